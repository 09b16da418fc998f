"""Approvals on the ledger, and what a server with a governance file serves."""

from __future__ import annotations

import base64
import secrets
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api import approval_gate as module
from api.approval_gate import ApprovalGate, approval_gate
from api.client.audit import verify_bundle
from api.client.governance import (
    find_model,
    read_log,
)
from api.client.shown import VerifiedDisclosure
from api.entries import Reference, Revocation
from api.errors import NotReady, PredictionRefused
from api.registry import Registry
from api.service import Service
from api.settings import Settings
from ledger import open_checkpoint
from ledger.errors import ChainRefused, ChainUnavailable
from privacy import attestation as att
from privacy.errors import DecodeError, UsageError, VerificationFailed
from tests.api.conftest import Caller, Running, Upload, ok, refused, with_data
from tests.support import bundles, disclosures
from tests.support.hospitals import (
    GOVERNANCE,
    HOSPITALS,
    KEYS,
    FakeContract,
    approval,
)
from tests.support.joint import SEALED
from tests.support.joint_server import Clock as HeldClock
from tests.support.joint_server import Held, Joint, ask, compute, deliver, meet

ORIGIN = bundles.ORIGIN
MODEL = Reference(3, bytes(range(32)))


# -- the ledger -------------------------------------------------------------------------------------------------------


def test_approvals_are_found_by_model_and_head(tmp_path: Path) -> None:
    world = bundles.World(tmp_path)
    server, owner = world.register("server", "scores.example"), world.register("owner", "heart-lab")
    model = world.append(owner, bundles.model_material().body()).reference
    before = world.log.size
    first = world.append(owner, approval(model, ORIGIN))
    second = world.append(server, approval(model, ORIGIN, HOSPITALS))
    registry = Registry.read(world.log)
    assert registry.origin == ORIGIN
    assert [found.reference for found in registry.approvals_of(model)] == [first.reference, second.reference]
    assert [found.reference for found in registry.approvals_of(model, second.reference.index)] == [first.reference]
    assert registry.approvals_of(model, before) == []
    assert registry.approvals_of(Reference(model.index, bytes(32))) == []
    nameless = Registry()
    nameless.extend(world.log.entries(0, before))
    with pytest.raises(UsageError, match="origin"):
        nameless.add(world.log.entry(before))
    assert nameless.size == before


def test_a_revoked_model_is_not_approved(tmp_path: Path) -> None:
    world = bundles.World(tmp_path)
    owner = world.register("owner", "heart-lab")
    model = world.append(owner, bundles.model_material().body())
    assert find_model(Registry.read(world.log), "heart").reference == model.reference
    world.append(owner, Revocation(model.reference, "wrong"))
    registry = Registry.read(world.log)
    entry = owner_signed(owner, approval(model.reference, ORIGIN))
    with pytest.raises(VerificationFailed) as caught:
        registry.check(entry)
    assert caught.value.check == "ledger.revoked"
    with pytest.raises(UsageError, match="no model"):
        find_model(registry, "heart")
    assert find_model(registry, model.reference.index).reference == model.reference


def owner_signed(owner: bundles.Actor, body: Any) -> bytes:
    from api.entries import sign_entry

    return sign_entry(body, owner.reference, owner.private_key)


def test_a_model_is_found_in_the_whole_log(tmp_path: Path) -> None:
    world = bundles.World(tmp_path)
    owners = [world.register("owner", name) for name in ("heart-lab", "other-lab")]
    first = world.append(owners[0], bundles.model_material().body())
    head = open_checkpoint(world.log.checkpoint(), world.verifier, ORIGIN)
    assert find_model(read_log(world, head), "heart 1").reference == first.reference
    world.append(owners[1], bundles.model_material().body())
    registry = read_log(world, open_checkpoint(world.log.checkpoint(), world.verifier, ORIGIN))
    with pytest.raises(UsageError, match="several owners"):
        find_model(registry, "heart")


# -- which models a server serves -------------------------------------------------------------------------------------


class Clock:
    """Seconds that pass when a test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def gate(tmp_path: Path) -> tuple[ApprovalGate, FakeContract, Clock, Reference]:
    world = bundles.World(tmp_path)
    owner = world.register("owner", "heart-lab")
    model = world.append(owner, bundles.model_material().body()).reference
    world.append(owner, approval(model, ORIGIN))
    contract, clock = FakeContract(), Clock()
    return ApprovalGate(Registry.read(world.log), GOVERNANCE, contract, clock), contract, clock, model


def unapproved(check: Callable[[], Any]) -> str:
    with pytest.raises(PredictionRefused) as caught:
        check()
    assert caught.value.check == "model.unapproved"
    return caught.value.detail


def test_without_a_file_every_model_is_served() -> None:
    gate = ApprovalGate(Registry(), None)
    gate.ask(5)
    gate.require(5)
    gate.check(MODEL)
    assert gate.approval(MODEL, 7) is None


def test_what_the_contract_said_is_believed_for_a_minute(gate: Any) -> None:
    served, contract, clock, model = gate
    with pytest.raises(NotReady, match="lately"):
        served.check(model)
    served.require(model.index)
    served.check(model)
    clock.now += 4
    served.require(model.index)
    assert contract.asked == 1
    contract.error = ChainUnavailable("node", "away")
    clock.now += 40
    with pytest.raises(NotReady, match="cannot be asked now"):
        served.require(model.index)
    with pytest.raises(ChainUnavailable):
        served.ask(model.index)
    served.check(model)
    clock.now += 20
    with pytest.raises(NotReady, match="lately"):
        served.check(model)
    contract.error = None
    served.refresh({model.index})
    served.check(model)


def test_a_withdrawal_ends_service(gate: Any) -> None:
    served, contract, clock, model = gate
    served.require(model.index)
    contract.known = dict.fromkeys(KEYS[:2], "withdrawn")
    served.require(model.index)  # it was asked just now
    clock.now += 6
    assert "withdrew" in unapproved(lambda: served.require(model.index))
    assert "withdrew" in unapproved(lambda: served.check(model))
    served.refresh({model.index})
    assert served.approval(model) is not None, "the ledger forgets nothing"


def test_a_contract_that_cannot_be_used_is_no_approval(gate: Any) -> None:
    served, contract, _, model = gate
    contract.error = ChainRefused("chain.other-log", "another log")
    with pytest.raises(NotReady, match="cannot be used"):
        served.require(model.index)


def test_the_newest_approval_under_the_head_is_named(tmp_path: Path) -> None:
    world = bundles.World(tmp_path)
    owner = world.register("owner", "heart-lab")
    model = world.append(owner, bundles.model_material().body()).reference
    start = world.log.size
    gate = ApprovalGate(Registry(ORIGIN), GOVERNANCE)
    indices = [
        world.append(owner, body).reference.index
        for body in (
            approval(model, ORIGIN),
            approval(model, ORIGIN, HOSPITALS[:1]),
            approval(model, ORIGIN, governance=replace(GOVERNANCE, chain=5)),
            approval(model, ORIGIN, HOSPITALS[1:]),
        )
    ]
    gate._registry.refresh(world.log)
    assert gate.approval(model) == gate.approval(model, indices[3] + 1) == indices[3]
    assert gate.approval(model, indices[3]) == gate.approval(model, indices[0] + 1) == indices[0]
    strict = ApprovalGate(gate._registry, replace(GOVERNANCE, threshold=3))
    assert "3 are needed" in unapproved(lambda: strict.approval(model))
    fresh = ApprovalGate(gate._registry, replace(GOVERNANCE, contract=bytes(20)))
    assert "governance file says 0x0000" in unapproved(lambda: fresh.approval(model))
    assert "no approval of it is on the ledger" in unapproved(lambda: gate.approval(model, start))


# -- the service ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("governed")
    (folder / "governance.json").write_bytes(GOVERNANCE.encode())
    return Settings(data=folder / "data", min_free_bytes=0, governance=folder / "governance.json")


@pytest.fixture
def contract(service: Running, monkeypatch: pytest.MonkeyPatch) -> FakeContract:
    """As if the operator had named a node; each question is asked anew."""
    gate, contract = service.service.approvals, FakeContract()
    monkeypatch.setattr(module, "_FRESH_SECONDS", -1.0)
    monkeypatch.setattr(gate, "_contract", contract)
    gate._said.clear()
    return contract


def bundle(service: Running, index: int, path: Path) -> Path:
    found = service.service.bundle(index, inputs=True)
    path.write_bytes(found.read_bytes())
    found.unlink()
    return path


def test_only_approved_models_predict(
    service: Running,
    clinic_party: Caller,
    owner_party: Caller,
    upload_cohort: Upload,
    model_entry: Reference,
    tmp_path: Path,
) -> None:
    origin = service.settings.origin
    records = clinic_party.submit(upload_cohort(2).body).index

    def predict() -> Any:
        return clinic_party.predict(records, model_entry.index, secrets.token_hex(32))

    def is_refused(reason: str) -> None:
        before = service.state()
        error = refused(predict(), 403, "prediction-refused", "model.unapproved")
        assert reason in error["message"]
        assert service.state() == before

    is_refused("no approval of it is on the ledger")
    owner_party.submit(approval(model_entry, origin, HOSPITALS[:1]))
    is_refused("1 of the hospitals")
    owner_party.submit(approval(model_entry, origin, governance=replace(GOVERNANCE, contract=bytes(20))))
    is_refused("the governance file says")
    for body, check in ((approval(model_entry, "log.example/other"), "approval.signature"),):
        entry = owner_party.sign(body)
        refused(owner_party.send("POST", "/v1/entries", entry), 422, "verification-failed", check)
    entry = clinic_party.sign(approval(model_entry, origin))
    refused(clinic_party.send("POST", "/v1/entries", entry), 422, "verification-failed", "entry.role")
    logged = owner_party.submit(approval(model_entry, origin))
    done = clinic_party.wait(ok(predict())["job"])
    path = bundle(service, done["prediction"], tmp_path / "b.sealproof")
    verifier = service.service.verifier
    found = verify_bundle(path, verifier, governance=GOVERNANCE)
    assert found.approval is not None and found.approval.reference == logged
    assert verify_bundle(path, verifier).approval == found.approval
    with pytest.raises(VerificationFailed, match="3 are needed"):
        verify_bundle(path, verifier, governance=replace(GOVERNANCE, threshold=3))

    # A server that starts again and has not attested yet names the same approval, whatever has happened since.
    owner_party.submit(approval(model_entry, origin, HOSPITALS))
    job = service.service.jobs.of_prediction(done["prediction"])
    assert job.entry is not None
    index, again = service.service.publish(job, job.entry)
    said = att.verify_envelope(again, service.service.party.body.public_key).predicate
    assert (index, said.approval.index) == (done["prediction"], logged.index)


def test_a_withdrawn_model_predicts_no_more(
    service: Running, clinic_party: Caller, upload_cohort: Upload, model_entry: Reference, contract: FakeContract
) -> None:
    records = clinic_party.submit(upload_cohort(1).body).index

    def predict() -> Any:
        return clinic_party.predict(records, model_entry.index, secrets.token_hex(32))

    assert clinic_party.wait(ok(predict())["job"])["state"] == "done"
    contract.known = dict.fromkeys(KEYS[1:], "withdrawn")
    before = service.state()
    error = refused(predict(), 403, "prediction-refused", "model.unapproved")
    assert "2 hospital(s) withdrew" in error["message"]
    contract.error = ChainUnavailable("node.example", "away")
    refused(predict(), 503, "not-ready")
    assert service.state() == before


@pytest.mark.parametrize("at", [2, 3], ids=["before-it-is-computed", "before-it-is-published"])
def test_a_withdrawal_stops_what_is_under_way(
    service: Running,
    clinic_party: Caller,
    upload_cohort: Upload,
    model_entry: Reference,
    contract: FakeContract,
    at: int,
) -> None:
    records = clinic_party.submit(upload_cohort(1).body).index
    states = contract.states

    def scripted(*arguments: Any) -> Any:
        if contract.asked + 1 >= at:
            contract.known = dict.fromkeys(KEYS, "withdrawn")
        return states(*arguments)

    contract.states = scripted  # type: ignore[method-assign]
    job = ok(clinic_party.predict(records, model_entry.index, secrets.token_hex(32)))["job"]
    size = service.service.log.size
    found = clinic_party.wait(job)
    assert (found["state"], found["error"]["check"]) == ("failed", "model.unapproved")
    assert (contract.asked, service.service.log.size) == (at, size)


def test_only_approved_networks_predict(service: Running, joint: Joint, tmp_path: Path) -> None:
    origin = service.settings.origin
    before = service.state()
    nonce = secrets.token_hex(32)
    error = refused(
        joint.clinic.predict(joint.records.index, joint.model.index, nonce),
        403,
        "prediction-refused",
        "model.unapproved",
    )
    assert "no approval" in error["message"]
    assert service.state() == before
    logged = joint.owner.submit(approval(joint.model, origin))
    job = ask(joint, nonce=nonce)
    meet(joint)
    made = compute(service, joint, job)
    body = {
        "session": made.delivered.session.hex(),
        "proofs": [
            {"digest": p.digest.hex(), "size": p.size, "answers": p.answers.hex()} for p in made.delivered.proofs
        ],
        "sealed": base64.b64encode(SEALED).decode(),
    }
    ok(deliver(joint.owner, job, body))
    done = joint.clinic.wait(job)
    assert done["state"] == "done", done
    path = bundle(service, done["prediction"], tmp_path / "b.sealproof")
    found = verify_bundle(path, service.service.verifier, governance=GOVERNANCE)
    assert found.approval is not None and found.approval.reference == logged


def test_a_withdrawal_breaks_a_session_off(service: Running, joint: Joint, contract: FakeContract) -> None:
    joint.owner.submit(approval(joint.model, service.settings.origin, HOSPITALS))
    job = ask(joint)
    contract.known = dict.fromkeys(KEYS, "withdrawn")
    found = joint.clinic.wait(job)
    assert (found["state"], found["error"]["check"]) == ("failed", "model.unapproved")


def test_a_session_survives_that_the_server_starts_again(
    service: Running, joint: Joint, contract: FakeContract, tmp_path: Path
) -> None:
    """Nothing is known of the contract then, and a node may poll at once."""
    joint.owner.submit(approval(joint.model, service.settings.origin, HOSPITALS))
    copy = with_data(service.settings, tmp_path / "data")
    shutil.copytree(service.settings.data, copy.data)
    held = Held(Service(copy), joint, HeldClock())
    try:
        held.service.approvals._contract = contract
        with pytest.raises(NotReady, match="lately"):
            held.service.approvals.check(joint.model)
        job = held.ask()
        held.service.approvals._said.clear()
        held.service.start()
        held.service.joint.look()
        assert held.state(job) == "computing"
    finally:
        held.service.close()


def test_a_server_does_not_start_with_a_governance_it_cannot_keep(tmp_path: Path) -> None:
    from contextlib import ExitStack

    registry = Registry(ORIGIN)
    (tmp_path / "g.json").write_bytes(b"{}")
    for settings, error in (
        (Settings(data=tmp_path, governance=tmp_path / "none.json"), UsageError),
        (Settings(data=tmp_path, governance=tmp_path / "g.json"), DecodeError),
        (Settings(data=tmp_path, governance_rpc="http://127.0.0.1:1"), UsageError),
    ):
        with ExitStack() as undo, pytest.raises(error):
            approval_gate(settings, registry, undo)
    assert "127.0.0.1" not in repr(settings), "the address of a node often holds an access token"


def test_a_disclosure_carries_the_approval_of_its_prediction(tmp_path: Path) -> None:
    told = disclosures.tell(tmp_path)
    world, model = told.story.world, told.story.model.reference
    logged = world.append(told.story.owner, approval(model, ORIGIN))
    story = replace(told.story)
    story.predicted = story.predict(session=bytes(32))
    prediction = story.log()
    envelope = story.attest(prediction, approval=told.reference_of(logged.reference))
    approved = disclosures.DisclosureStory(story, told.handles, prediction, envelope)
    statement = approved.statement(0)
    proof = approved.prove(statement)
    signed = approved.sign(approved.disclosed(statement, proof))
    path = tmp_path / "d.sealproof"
    approved.bundle(path, approved.log(signed, proof), [signed, proof], more=[logged.reference.index])
    found = verify_bundle(path, world.verifier, governance=GOVERNANCE)
    assert isinstance(found, VerifiedDisclosure)
    assert found.prediction.approval == logged
    strict = replace(GOVERNANCE, threshold=3)
    with pytest.raises(VerificationFailed, match="3 are needed"):
        verify_bundle(path, world.verifier, governance=strict)


def test_a_bundle_without_an_approval_is_refused(honest_bundle: Path, story: bundles.Story) -> None:
    with pytest.raises(VerificationFailed) as caught:
        verify_bundle(honest_bundle, story.world.verifier, governance=GOVERNANCE)
    assert caught.value.check == "approval.missing"
