"""The rules of the ledger for multi-party computation: what refers to what, and who is suspended from whom."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.entries import (
    Body,
    Clearance,
    CommittedRecords,
    JointPrediction,
    JointProof,
    Key,
    Model,
    ModelOutput,
    Network,
    NetworkLayer,
    Party,
    Policy,
    Prediction,
    Reference,
    Revocation,
    Suspension,
    sign_entry,
)
from api.registry import Registry
from ledger import Log, Signer
from privacy.errors import VerificationFailed

POINT = b"\x80" * 48


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


@dataclass
class World:
    """A registry and the keys of everybody in it; `at` are the references by name."""

    registry: Registry = field(default_factory=Registry)
    keys: dict[str, Ed25519PrivateKey] = field(default_factory=dict)
    at: dict[str, Reference] = field(default_factory=dict)
    entries: list[bytes] = field(default_factory=list)

    def party(self, role: str, name: str) -> None:
        key = self.keys.setdefault(name, Ed25519PrivateKey.generate())
        self.log(name, sign_entry(Party(role, name, key.public_key().public_bytes_raw()), None, key))  # type: ignore[arg-type]

    def sign(self, author: str, body: Body, key: str | None = None) -> bytes:
        return sign_entry(body, self.at[author], self.keys[key or author])

    def log(self, name: str, entry: bytes) -> None:
        self.at[name] = self.registry.add(entry)
        self.entries.append(entry)

    def add(self, name: str, author: str, body: Body) -> None:
        self.log(name, self.sign(author, body))

    def refuses(self, author: str, body: Body, check: str, key: str | None = None) -> None:
        entry = self.sign(author, body, key)
        size = self.registry.size
        with pytest.raises(VerificationFailed) as caught:
            self.registry.add(entry)
        assert caught.value.check == check
        assert self.registry.size == size
        assert self.registry.index_of(entry) is None

    @property
    def size(self) -> int:
        return self.registry.size


@pytest.fixture
def world() -> World:
    """Two clinics, two owners, a server; a network, committed records, a joint prediction (entry 7)."""
    world = World()
    for role, name in (("server", "log"), ("clinic", "a"), ("clinic", "b"), ("owner", "lab"), ("owner", "other")):
        world.party(role, name)
    world.add("network", "lab", network())
    world.add("records", "a", records())
    world.add("prediction", "log", prediction(world))
    return world


def network(**changes: Any) -> Network:
    layers = (NetworkLayer(3, 2, 10, 14, 34, (POINT, POINT)), NetworkLayer(2, 1, 10, 12, 44, (POINT,)))
    fixed = (16, 6, 50, "logit", ("risk",), layers, digest("certificate"), digest("artefact"), {})
    return replace(Network("net", "1", "mpc-64", digest("schema"), *fixed), **changes)


def records(**changes: Any) -> CommittedRecords:
    fixed = (3, 65, digest("list"), (digest("first"), digest("second")), digest("handles"), Policy("any", None))
    return replace(CommittedRecords("a", "mpc-64", digest("schema"), *fixed), **changes)


def proof(first: int, count: int) -> JointProof:
    return JointProof(first, count, digest(f"proof {first}"), 9, digest(f"answers {first}"))


def prediction(world: World, **changes: Any) -> JointPrediction:
    proofs = (proof(0, 64), proof(64, 1))
    at, size = world.at, changes.pop("size", world.registry.size)
    session = digest(f"session {size}")
    body = JointPrediction(at["records"], at["network"], session, proofs, 36, 6, size, digest("root"))
    return replace(body, **changes)


def model() -> Model:
    outputs = (ModelOutput("risk", "logit", 28, 62, POINT),)
    return Model("net", "1", "linear-4096", digest("schema"), 34, 24, 6, outputs, bytes(32), bytes(32), {}, ())


def test_a_whole_ledger_is_read(world: World, tmp_path: Path) -> None:
    with Log.create(tmp_path / "log", Signer.generate("log")) as log:
        log.append_many(world.entries)
        registry = Registry.read(log)
    assert registry.get(5, Network).reference == world.at["network"]
    assert registry.get(6, CommittedRecords).reference == world.at["records"]
    assert registry.get(7, JointPrediction).body.session == digest("session 7")
    assert registry.author_of(6).body.name == "a"
    with pytest.raises(VerificationFailed, match="is a sealproof/network/v1, not a sealproof/model/v1"):
        registry.get(5, Model)


Case = tuple[str, str, Callable[[World], Body]]

REFUSED: dict[str, Case] = {
    "a network by a clinic": ("entry.role", "a", lambda w: network(version="2")),
    "records by an owner": ("entry.role", "lab", lambda w: records(handles=bytes(32))),
    "a prediction by a clinic": ("entry.role", "a", prediction),
    "a network's version again": ("model.name", "lab", lambda w: network(schema=bytes(32))),
    "a linear model of a network's name and version": ("model.name", "lab", lambda w: model()),
    "a network of an unknown parameter set": (
        "entry.parameter-set",
        "lab",
        lambda w: network(version="2", parameter_set="linear-4096"),
    ),
    "records of another clinic": ("records.clinic", "b", lambda w: records()),
    "records of an unknown parameter set": (
        "entry.parameter-set",
        "a",
        lambda w: records(parameter_set="linear-4096"),
    ),
    "records with a certificate too few": (
        "records.batches",
        "a",
        lambda w: records(certificates=(digest("first"),)),
    ),
    "records with a certificate too many": ("records.batches", "a", lambda w: records(count=64)),
    "records of very many patients": ("records.batches", "a", lambda w: records(count=2**53 - 1)),
    "a policy for what is no network": (
        "ledger.reference",
        "a",
        lambda w: records(policy=Policy((w.at["prediction"],), None)),
    ),
    "a prediction of what is no network": ("ledger.reference", "log", lambda w: prediction(w, model=w.at["records"])),
    "a prediction on what is no records": ("ledger.reference", "log", lambda w: prediction(w, records=w.at["network"])),
    "a prediction by index alone": (
        "ledger.reference",
        "log",
        lambda w: prediction(w, model=replace(w.at["network"], leaf=bytes(32))),
    ),
    "a prediction of the future": (
        "ledger.reference",
        "log",
        lambda w: prediction(w, model=Reference(w.size, bytes(32))),
    ),
    "a prediction that leaves a batch out": (
        "prediction.coverage",
        "log",
        lambda w: prediction(w, proofs=(proof(0, 64),)),
    ),
    "a prediction of undeclared patients": (
        "prediction.coverage",
        "log",
        lambda w: prediction(w, proofs=(proof(0, 64), proof(64, 2))),
    ),
    "a prediction in other batches": (
        "prediction.coverage",
        "log",
        lambda w: prediction(w, proofs=(proof(0, 63), proof(63, 2))),
    ),
    "a prediction with a gap": (
        "prediction.coverage",
        "log",
        lambda w: prediction(w, proofs=(proof(0, 64), proof(65, 1))),
    ),
    "answers at another scale": ("prediction.scales", "log", lambda w: prediction(w, answer_scale_bits=35)),
    "answers on another grid": ("prediction.scales", "log", lambda w: prediction(w, grid_bits=7)),
    "a prediction under a head before its records": ("prediction.head", "log", lambda w: prediction(w, size=6)),
    "a prediction under a head to come": ("prediction.head", "log", lambda w: prediction(w, size=w.size + 1)),
    "the prediction of a session again": (
        "prediction.session",
        "log",
        lambda w: prediction(w, session=digest("session 7")),
    ),
    "a revocation by somebody else": ("revocation.author", "b", lambda w: Revocation(w.at["records"], "mine")),
    "a revocation of a prediction": ("revocation.target", "log", lambda w: Revocation(w.at["prediction"], "regret")),
    "a suspension by the server": ("suspension.author", "log", lambda w: suspension(w)),
    "a suspension by another clinic": ("suspension.author", "b", lambda w: suspension(w)),
    "a suspension of two clinics": ("suspension.parties", "a", lambda w: suspension(w, owner=w.at["b"])),
    "a suspension of two owners": ("suspension.parties", "lab", lambda w: suspension(w, clinic=w.at["other"])),
    "a suspension of what is no party": ("ledger.reference", "a", lambda w: suspension(w, owner=w.at["network"])),
    "a suspension by index alone": (
        "ledger.reference",
        "a",
        lambda w: suspension(w, owner=replace(w.at["lab"], leaf=bytes(32))),
    ),
    "a clearance of what is no suspension": ("ledger.reference", "a", lambda w: Clearance(w.at["prediction"])),
}


def suspension(world: World, **changes: Any) -> Suspension:
    return replace(Suspension(world.at["a"], world.at["lab"], digest("session"), "the node stalled"), **changes)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(world: World, name: str) -> None:
    check, author, body = REFUSED[name]
    world.refuses(author, body(world), check)


def test_signed_by_somebody_else(world: World) -> None:
    world.refuses("lab", network(version="2"), "entry.signature", key="a")


def test_two_owners_may_use_one_name_and_a_network_takes_that_of_no_linear_model(world: World) -> None:
    world.add("same", "other", model())
    world.refuses("other", network(), "model.name")


@pytest.mark.parametrize(("field", "value"), [("schema", digest("other")), ("d", 4)])
def test_records_that_do_not_fit_the_network(world: World, field: str, value: Any) -> None:
    world.add("misfit", "a", records(**{field: value}))
    check = "records.schema" if field == "schema" else "records.features"
    world.refuses("log", prediction(world, records=world.at["misfit"]), check)


def test_encrypted_and_committed_records_are_not_exchanged(world: World) -> None:
    world.add("key", "a", Key("a", "linear-4096", 1, bytes(32), POINT, POINT, {}, bytes(32)))
    linear = replace(model(), version="2")
    world.add("linear", "lab", linear)
    world.refuses("log", prediction(world, model=world.at["linear"]), "ledger.reference")
    world.refuses("a", records(policy=Policy((world.at["linear"],), None)), "ledger.reference")
    assert world.registry.all(Prediction) == []


def test_a_policy_binds_the_prediction(world: World) -> None:
    world.add("second", "lab", network(version="2"))
    world.add("bound", "a", records(policy=Policy((world.at["second"],), None)))
    world.at["records"] = world.at["bound"]
    world.refuses("log", prediction(world), "policy.models")
    world.add("allowed", "log", prediction(world, model=world.at["second"]))


@pytest.mark.parametrize(("what", "author"), [("network", "lab"), ("records", "a")])
def test_what_is_revoked_is_used_no_more(world: World, what: str, author: str) -> None:
    before = world.size
    world.add("revocation", author, Revocation(world.at[what], "mistake"))
    world.refuses("log", prediction(world), "ledger.revoked")
    world.refuses(author, Revocation(world.at[what], "again"), "ledger.revoked")
    world.add("late", "log", prediction(world, size=before))


# -- suspensions -------------------------------------------------------------------------------------------------------


def open_between(world: World, clinic: str = "a", owner: str = "lab", size: int | None = None) -> list[int]:
    found = world.registry.suspension_of(world.at[clinic].index, world.at[owner].index, size)
    return [entry.reference.index for entry in found]


@pytest.mark.parametrize("author", ["a", "lab"])
def test_a_suspended_pair_gets_no_prediction_until_both_have_cleared_it(world: World, author: str) -> None:
    assert open_between(world) == []
    world.add("suspension", author, suspension(world))
    assert open_between(world) == [8]
    assert open_between(world, "b") == open_between(world, "a", "other") == []
    world.refuses("log", prediction(world), "mpc.suspended")
    world.add("first", "a", Clearance(world.at["suspension"]))
    world.refuses("log", prediction(world), "mpc.suspended")
    world.add("second", "lab", Clearance(world.at["suspension"]))
    assert open_between(world) == []
    world.add("again", "log", prediction(world))


def test_the_head_that_a_prediction_names_must_be_free_of_suspensions_too(world: World) -> None:
    """Else a session that was run while the pair was suspended could be logged after it was cleared."""
    world.add("suspension", "a", suspension(world))
    world.add("first", "a", Clearance(world.at["suspension"]))
    during = world.size
    world.add("second", "lab", Clearance(world.at["suspension"]))
    assert open_between(world, size=during) == [8]
    assert open_between(world, size=8) == []
    world.refuses("log", prediction(world, size=during), "mpc.suspended")
    world.add("before", "log", prediction(world, size=8))


def test_a_suspension_that_came_while_the_proof_was_made_stops_the_prediction(world: World) -> None:
    head = world.size
    world.add("suspension", "lab", suspension(world))
    world.refuses("log", prediction(world, size=head), "mpc.suspended")


def test_every_suspension_is_cleared_by_itself(world: World) -> None:
    world.add("of a", "a", suspension(world))
    world.add("of lab", "lab", suspension(world))
    for party in ("a", "lab"):
        world.add(f"{party} clears one", party, Clearance(world.at["of a"]))
    assert open_between(world) == [world.at["of lab"].index]
    world.refuses("log", prediction(world), "mpc.suspended")


def test_a_clearance_is_by_a_party_of_the_suspension_and_once(world: World) -> None:
    world.add("suspension", "a", suspension(world))
    for stranger in ("b", "other", "log"):
        world.refuses(stranger, Clearance(world.at["suspension"]), "clearance.author")
    world.add("clearance", "a", Clearance(world.at["suspension"]))
    assert world.registry.index_of(world.entries[-1]) is not None
    with pytest.raises(VerificationFailed, match=r"ledger\.duplicate"):
        world.registry.add(world.entries[-1])
    assert open_between(world) == [8], "one party clears for itself only"


def test_other_pairs_go_on(world: World) -> None:
    world.add("suspension", "a", suspension(world))
    world.add("theirs", "b", records(clinic="b"))
    world.add("fine", "log", prediction(world, records=world.at["theirs"]))
