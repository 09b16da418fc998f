"""The registry refuses every entry that breaks a rule of the ledger, and changes nothing then."""

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
    ErrorBound,
    Key,
    Model,
    ModelOutput,
    Party,
    Policy,
    Prediction,
    PredictionProof,
    Records,
    Reference,
    Revocation,
    sign_entry,
)
from api.registry import Registry
from ledger import Log, Signer
from privacy.errors import DecodeError, VerificationFailed

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

    def party(self, role: str, name: str) -> bytes:
        key = self.keys.setdefault(name, Ed25519PrivateKey.generate())
        return sign_entry(Party(role, name, key.public_key().public_bytes_raw()), None, key)  # type: ignore[arg-type]

    def sign(self, author: str, body: Body, key: str | None = None) -> bytes:
        return sign_entry(body, self.at[author], self.keys[key or author])

    def add(self, name: str, entry: bytes) -> None:
        self.at[name] = self.registry.add(entry)
        self.entries.append(entry)

    def refuses(self, entry: bytes, check: str) -> None:
        size = self.registry.size
        with pytest.raises(VerificationFailed) as caught:
            self.registry.add(entry)
        assert caught.value.check == check
        assert self.registry.size == size
        assert check == "ledger.duplicate" or self.registry.index_of(entry) is None


@pytest.fixture
def world() -> World:
    """Two clinics, an owner, a server; a key, a model, records, a prediction."""
    world = World()
    for role, name in (("server", "log"), ("clinic", "clinic-a"), ("clinic", "clinic-b"), ("owner", "lab")):
        world.add(name, world.party(role, name))
    world.add("key", world.sign("clinic-a", key()))
    world.add("model", world.sign("lab", model()))
    world.add("records", world.sign("clinic-a", records(world)))
    world.add("prediction", world.sign("log", prediction(world)))
    return world


def key(**changes: Any) -> Key:
    body = Key("clinic-a", "linear-4096", 1, digest("p0"), POINT, POINT, {}, digest("certificate"))
    return replace(body, **changes)


def model(**changes: Any) -> Model:
    outputs = (ModelOutput("risk", "logit", 28, 62, POINT),)
    fixed = (digest("schema"), 34, 24, 6, outputs, digest("certificate"), digest("artefact"), {}, ())
    return replace(Model("risk", "1", "linear-4096", *fixed), **changes)


def records(world: World, **changes: Any) -> Records:
    fixed = (digest("list"), digest("handles"), Policy("any", None))
    body = Records("clinic-a", world.at["key"], "linear-4096", digest("schema"), "columns", 30, 4097, 2, *fixed)
    return replace(body, **changes)


def proof(first_block: int, count: int) -> PredictionProof:
    return PredictionProof(first_block, 1, count, (0,), (digest(f"result {first_block}"),), digest("proof"), 9, 25)


def prediction(world: World, **changes: Any) -> Prediction:
    at = world.at
    proofs = (proof(0, 4096), proof(1, 1))
    body = Prediction(at["records"], at["model"], at["key"], proofs, ErrorBound(1, 58, 6), 7, digest("root"))
    return replace(body, **changes)


def test_a_whole_ledger_is_read(world: World, tmp_path: Path) -> None:
    with Log.create(tmp_path / "log", Signer.generate("log")) as log:
        log.append_many(world.entries)
        registry = Registry.read(log)
    assert registry.size == 8
    assert registry.get(6, Records).reference == world.at["records"]
    assert registry.author_of(6).body.name == "clinic-a"
    assert registry.author_of(1).body.name == "clinic-a"
    assert [x.reference.index for x in registry.all(Party)] == [0, 1, 2, 3]
    named = registry.party_named("lab")
    assert named is not None
    assert registry.party_with_key(named.body.public_key) == named
    assert registry.party_named("nobody") is None
    assert registry.index_of(world.entries[5]) == 5


def test_a_log_with_a_bad_entry_is_not_read(world: World, tmp_path: Path) -> None:
    forged = world.sign("lab", model(version="2"), key="clinic-b")
    with Log.create(tmp_path / "log", Signer.generate("log")) as log:
        log.append_many([*world.entries, forged])
        with pytest.raises(VerificationFailed, match=r"entry\.signature"):
            Registry.read(log)


def test_bytes_that_are_no_entry(world: World) -> None:
    with pytest.raises(DecodeError):
        world.registry.add(world.entries[0] + b" ")


Forge = Callable[[World], bytes]

REFUSED: dict[str, tuple[str, Forge]] = {
    "the same entry twice": ("ledger.duplicate", lambda w: w.entries[5]),
    "a name that is taken": ("party.name", lambda w: _renamed(w, "clinic-a")),
    "a key that is taken": (
        "party.key",
        lambda w: sign_entry(Party("owner", "new", _public(w, "lab")), None, w.keys["lab"]),
    ),
    "a clinic whose name gives no p1": ("party.name", lambda w: w.party("clinic", "Clinique Élisabeth")),
    "an author who is not a party": ("ledger.reference", lambda w: _by(w, model(version="2"), w.at["key"])),
    "an author by index alone": (
        "ledger.reference",
        lambda w: _by(w, model(version="2"), replace(w.at["lab"], leaf=bytes(32))),
    ),
    "an author from the future": (
        "ledger.reference",
        lambda w: _by(w, model(version="2"), Reference(99, bytes(32))),
    ),
    "signed by somebody else": ("entry.signature", lambda w: w.sign("lab", model(version="2"), key="clinic-a")),
    "a key by an owner": ("entry.role", lambda w: w.sign("lab", key(number=2))),
    "a model by a clinic": ("entry.role", lambda w: w.sign("clinic-a", model(version="2"))),
    "records by an owner": ("entry.role", lambda w: w.sign("lab", records(w, count=1, blocks=1))),
    "a prediction by a clinic": ("entry.role", lambda w: w.sign("clinic-a", prediction(w, checkpoint_root=bytes(32)))),
    "a key of another clinic": ("key.clinic", lambda w: w.sign("clinic-b", key(number=2))),
    "a key number again": ("key.number", lambda w: w.sign("clinic-a", key(p0=bytes(32)))),
    "an unknown parameter set": ("entry.parameter-set", lambda w: w.sign("clinic-a", key(number=2, parameter_set="x"))),
    "a model version again": ("model.name", lambda w: w.sign("lab", model(schema=bytes(32)))),
    "records of another clinic": ("records.clinic", lambda w: w.sign("clinic-b", records(w))),
    "records under another clinic's key": (
        "records.key",
        lambda w: w.sign("clinic-b", records(w, clinic="clinic-b")),
    ),
    "records under a model as key": ("ledger.reference", lambda w: w.sign("clinic-a", records(w, key=w.at["model"]))),
    "records with too few blocks": ("records.blocks", lambda w: w.sign("clinic-a", records(w, blocks=1))),
    "records in rows that are too long": (
        "records.shape",
        lambda w: w.sign("clinic-a", records(w, packing="rows", d=4097)),
    ),
    "a policy for what is no model": (
        "ledger.reference",
        lambda w: w.sign("clinic-a", records(w, policy=Policy((w.at["key"],), None))),
    ),
    "a prediction under another key": ("ledger.reference", lambda w: w.sign("log", prediction(w, key=w.at["records"]))),
    "a prediction on what is no records": (
        "ledger.reference",
        lambda w: w.sign("log", prediction(w, records=w.at["model"])),
    ),
    "a prediction that leaves a block out": (
        "prediction.coverage",
        lambda w: w.sign("log", prediction(w, proofs=(proof(0, 4096),))),
    ),
    "a prediction of undeclared patients": (
        "prediction.coverage",
        lambda w: w.sign("log", prediction(w, proofs=(proof(0, 4096), proof(1, 2)))),
    ),
    "a prediction under a head before its records": (
        "prediction.head",
        lambda w: w.sign("log", prediction(w, checkpoint_size=6)),
    ),
    "a prediction under a head to come": (
        "prediction.head",
        lambda w: w.sign("log", prediction(w, checkpoint_size=9)),
    ),
    "a revocation by somebody else": (
        "revocation.author",
        lambda w: w.sign("clinic-b", Revocation(w.at["key"], "mine now")),
    ),
    "a revocation of a prediction": (
        "revocation.target",
        lambda w: w.sign("log", Revocation(w.at["prediction"], "regret")),
    ),
    "a revocation by index alone": (
        "ledger.reference",
        lambda w: w.sign("clinic-a", Revocation(replace(w.at["key"], leaf=bytes(32)), "x")),
    ),
    "a revocation of what is to come": (
        "ledger.reference",
        lambda w: w.sign("clinic-a", Revocation(Reference(8, bytes(32)), "x")),
    ),
}


def _public(world: World, name: str) -> bytes:
    return world.keys[name].public_key().public_bytes_raw()


def _renamed(world: World, name: str) -> bytes:
    key = Ed25519PrivateKey.generate()
    return sign_entry(Party("clinic", name, key.public_key().public_bytes_raw()), None, key)


def _by(world: World, body: Body, author: Reference) -> bytes:
    return sign_entry(body, author, world.keys["lab"])


@pytest.mark.parametrize("name", REFUSED)
def test_refused(world: World, name: str) -> None:
    check, forge = REFUSED[name]
    world.refuses(forge(world), check)


def test_what_is_revoked_is_used_no_more(world: World) -> None:
    world.add("revocation", world.sign("clinic-a", Revocation(world.at["key"], "lost")))
    registry = world.registry
    assert registry.revocation(world.at["key"]) == 8
    assert registry.revocation(world.at["key"], size=8) is None
    assert registry.revocation(world.at["model"]) is None
    world.refuses(world.sign("clinic-a", records(world, handles=bytes(32))), "ledger.revoked")
    world.refuses(world.sign("log", prediction(world, checkpoint_size=9)), "ledger.revoked")
    world.refuses(world.sign("clinic-a", Revocation(world.at["key"], "again")), "ledger.revoked")


def test_a_prediction_under_a_head_before_the_revocation_stands(world: World) -> None:
    world.add("revocation", world.sign("lab", Revocation(world.at["model"], "old")))
    world.add("late", world.sign("log", prediction(world, checkpoint_size=8)))


def test_a_policy_binds_the_prediction(world: World) -> None:
    world.add("other", world.sign("lab", model(version="2")))
    policy = Policy((world.at["other"],), None)
    world.add("bound", world.sign("clinic-a", records(world, policy=policy)))
    world.at["records"] = world.at["bound"]
    world.refuses(world.sign("log", prediction(world, checkpoint_size=10)), "policy.models")
    world.add("allowed", world.sign("log", prediction(world, model=world.at["other"], checkpoint_size=10)))


def test_schema_and_parameters_must_agree(world: World) -> None:
    world.add("other", world.sign("lab", model(version="2", schema=digest("other schema"))))
    world.refuses(world.sign("log", prediction(world, model=world.at["other"], checkpoint_size=9)), "records.schema")


def test_lookups_say_what_is_there(world: World) -> None:
    registry = world.registry
    for index in (-1, 8):
        with pytest.raises(VerificationFailed, match=r"ledger\.reference"):
            registry.get(index, Party)
        with pytest.raises(VerificationFailed, match=r"ledger\.reference"):
            registry.author_of(index)
    with pytest.raises(VerificationFailed, match="is a sealproof/model/v1, not a sealproof/key/v1"):
        registry.get(5, Key)
