"""Joint predictions over HTTP: what the server does for the nodes of clinic and owner, and what it refuses."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.client.audit import verify_bundle
from api.client.joint_prediction import VerifiedJointPrediction
from api.entries import (
    Clearance,
    JointPrediction,
    JointProof,
    Policy,
    Reference,
    Revocation,
    Suspension,
)
from api.exposure import joint_bits, network_bits
from ledger import open_checkpoint
from privacy.models.network_quantise import reference_network
from privacy.mpc.answers import open_answers
from tests.api.conftest import CLINIC, Caller, Running, ok, refused, register
from tests.support.bundles import PATIENTS, SCHEMA
from tests.support.joint import SEALED, Computed
from tests.support.joint_bundles import commit_cohort, network_material
from tests.support.joint_server import (
    DEALER,
    LISTENS,
    OWNER,
    Joint,
    ask,
    compute,
    deliver,
    fail,
    meet,
    poll,
    post,
    publish_network,
    submit_cohort,
)


@pytest.fixture
def job(joint: Joint) -> Iterator[str]:
    """A computing job, which is broken off afterwards if it still is."""
    found = ask(joint)
    yield found
    fail(joint.clinic, found)


# -- what is published ------------------------------------------------------------------------------------------------


def test_a_network_is_listed_among_the_models(service: Running, joint: Joint, model_entry: Reference) -> None:
    rows = {row["index"]: row for row in ok(service.client.get("/v1/models"))}
    assert list(rows) == sorted(rows)
    assert (rows[model_entry.index]["scheme"], rows[model_entry.index]["ready"]) == ("ckks", True)
    row, last = rows[joint.model.index], joint.network.body().layers[-1]
    assert (row["scheme"], row["name"], row["owner"]) == ("mpc", "heart-net", OWNER)
    assert row["outputs"] == [{"name": "y0", "link": "logit", "b": last.b, "b_bias": last.b_bias}]
    poll(joint.owner)
    detail = ok(service.client.get(f"/v1/models/{joint.model.index}"))
    assert detail["ready"], "its owner's node is there"
    assert [layer["inputs"] for layer in detail["layers"]] == [3]
    assert (detail["zero_weights"], detail["certificate"]) == ([], joint.network.body().certificate.hex())
    assert ok(service.client.get(f"/v1/models/{model_entry.index}"))["layers"] == []
    refused(service.client.get("/v1/models/0"), 422, "verification-failed", "ledger.reference")


@pytest.fixture
def unchanged(service: Running) -> Iterator[None]:
    size = service.service.log.size
    yield
    assert service.service.log.size == size


@pytest.mark.usefixtures("unchanged")
def test_a_network_is_not_logged_without_its_certificate(service: Running, owner_party: Caller) -> None:
    made = network_material("linear", "nowhere")
    owner_party.upload(SCHEMA.encode_json())
    entry = owner_party.sign(made.body())
    refused(owner_party.send("POST", "/v1/entries", entry), 422, "verification-failed", "entry.blob")
    damaged = bytearray(made.certificate)
    damaged[-1] ^= 1
    entry = owner_party.sign(made.body(certificate=owner_party.upload(bytes(damaged))))
    assert not owner_party.send("POST", "/v1/entries", entry).is_success
    entry = owner_party.sign(made.body(certificate=owner_party.upload(made.certificate), answer_bits=60))
    refused(owner_party.send("POST", "/v1/entries", entry), 422, "verification-failed", "network.answer-bits")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"schema": bytes(32)}, "entry.blob"),
        ({"commitments": bytes(32)}, "entry.blob"),
        ({"certificates": (bytes(32),)}, "entry.blob"),
        ({"certificates": (bytes(32), bytes(32))}, "records.batches"),
        ({"handles": bytes(32)}, "quadratic.opening"),
        ({"d": 4}, "records.features"),
        ({"clinic": "clinic-b"}, "records.clinic"),
    ],
)
def test_committed_records_are_logged_with_all_that_is_behind_them(
    joint: Joint, changes: dict[str, Any], check: str
) -> None:
    entry = joint.clinic.sign(joint.cohort.body(**changes))
    refused(joint.clinic.send("POST", "/v1/entries", entry), 422, "verification-failed", check)


@pytest.mark.usefixtures("unchanged")
def test_a_list_of_commitments_of_another_length(joint: Joint) -> None:
    digest = joint.clinic.upload(joint.cohort.blobs[0] + bytes(48))
    entry = joint.clinic.sign(joint.cohort.body(commitments=digest))
    refused(joint.clinic.send("POST", "/v1/entries", entry), 400, "malformed")


@pytest.mark.usefixtures("unchanged")
def test_nobody_submits_a_joint_prediction(service: Running, joint: Joint) -> None:
    proofs = (JointProof(0, len(PATIENTS), bytes(32), 1, bytes(32)),)
    body = joint.network.body()
    head = service.service.log.head()
    prediction = JointPrediction(
        joint.records, joint.model, bytes(32), proofs, body.answer_scale_bits, body.grid_bits, head.size, head.root
    )
    for party in (joint.clinic, joint.owner):
        entry = party.sign(prediction)
        refused(party.send("POST", "/v1/entries", entry), 422, "verification-failed", "entry.role")


# -- the whole way ----------------------------------------------------------------------------------------------------


def test_a_joint_prediction_from_request_to_answers(service: Running, joint: Joint, tmp_path: Path) -> None:
    nonce = secrets.token_hex(32)
    job = ask(joint, nonce=nonce)
    assert ask(joint, nonce=nonce) == job, "the same nonce is the same job"
    state = ok(service.client.get(f"/v1/jobs/{job}"))
    assert (state["state"], state["done"], state["total"], state["error"]) == ("computing", 0, 1, None)
    meet(joint)
    (for_owner,), (for_clinic,) = poll(joint.owner), poll(joint.clinic)
    assert for_clinic == {
        "job": job,
        "role": "A",
        "records": joint.records.index,
        "model": joint.model.index,
        "nonce": nonce,
        "clinic": joint.clinic.reference.index,
        "owner": joint.owner.reference.index,
        "peer_address": LISTENS,
        "checkpoint": for_owner["checkpoint"],
    }
    assert for_owner == {**for_clinic, "role": "B", "peer_address": None}
    head = open_checkpoint(for_clinic["checkpoint"].encode(), service.service.verifier, service.service.log.origin)
    made = compute(service, joint, job)
    size = service.service.log.size
    assert ok(deliver(joint.owner, job, made.body())) == {"job": job}
    done = joint.clinic.wait(job)
    assert (done["state"], done["prediction"], done["done"]) == ("done", size, 1)
    assert ok(deliver(joint.owner, job, made.body())) == {"job": job}, "the same again is answered the same way"
    refused(deliver(joint.owner, job, made.body(b"other")), 409, "conflict")
    assert poll(joint.clinic) == poll(joint.owner) == []

    logged = service.service.registry.get(size, JointPrediction).body
    assert (logged.checkpoint_size, logged.checkpoint_root) == (head.size, head.root)
    assert logged.session == made.delivered.session

    sealed = joint.clinic.send("GET", f"/v1/mpc/jobs/{job}/sealed")
    assert (sealed.status_code, sealed.content) == (200, SEALED)

    paths = []
    for inputs in ("false", "true"):
        answered = service.client.get(f"/v1/predictions/{size}/bundle?inputs={inputs}")
        assert answered.status_code == 200
        paths.append(tmp_path / f"{inputs}.sealproof")
        paths[-1].write_bytes(answered.content)
    assert paths[0].read_bytes() == paths[1].read_bytes(), "there are no inputs to add"
    verified = verify_bundle(paths[0], service.service.verifier, nonce=bytes.fromhex(nonce))
    assert isinstance(verified, VerifiedJointPrediction)
    assert (verified.clinic.name, verified.owner.name, verified.answers) == (CLINIC, OWNER, made.answers)
    opened = open_answers(verified.answers, made.shares["A"], made.shares["B"], verified.z_bound(0))
    assert [[answer.z] for answer in opened] == reference_network(joint.network.quantised, PATIENTS)

    rows = ok(service.client.get(f"/v1/exposure?model={joint.model.index}"))
    times = sum(p.body.model == joint.model for p in service.service.registry.all(JointPrediction))
    released = float(times * joint_bits(joint.network.body(), len(PATIENTS))[0])
    assert [(row["predictions"], row["released_bits"]) for row in rows] == [(times, released)]
    assert rows[0]["model_bits"] == network_bits(joint.network.body())


# -- what is refused when it is asked for -----------------------------------------------------------------------------


def refuse(running: Running, party: Caller, records: Reference, model: Reference, type: str, check: str | None) -> Any:
    status = {"verification-failed": 422, "unusable": 422}.get(type, 403)
    before = running.state()
    error = refused(party.predict(records.index, model.index, secrets.token_hex(32)), status, type, check)
    assert running.state() == before
    return error


def test_nobody_asks_for_another_clinics_records(service: Running, joint: Joint) -> None:
    for stranger in (register(service.client, "clinic", "clinic-z"), joint.owner):
        refuse(service, stranger, joint.records, joint.model, "not-permitted", "records.author")


def test_records_are_used_as_their_policy_says(service: Running, joint: Joint) -> None:
    elsewhere = submit_cohort(joint.clinic, joint.cohort, policy=Policy((), None))
    refuse(service, joint.clinic, elsewhere, joint.model, "prediction-refused", "policy.models")
    expired = submit_cohort(joint.clinic, joint.cohort, policy=Policy("any", "2020-01-01T00:00:00Z"))
    refuse(service, joint.clinic, expired, joint.model, "prediction-refused", "policy.until")


def test_revoked_records_and_networks(service: Running, joint: Joint) -> None:
    records = submit_cohort(joint.clinic, joint.cohort, policy=Policy("any", "2100-01-01T00:00:00Z"))
    joint.clinic.submit(Revocation(records, "consent withdrawn"))
    refuse(service, joint.clinic, records, joint.model, "prediction-refused", "ledger.revoked")
    model = publish_network(joint.owner, network_material("linear", "withdrawn"))
    joint.owner.submit(Revocation(model, "a mistake"))
    refuse(service, joint.clinic, joint.records, model, "prediction-refused", "ledger.revoked")
    assert ok(service.client.get(f"/v1/models/{model.index}"))["revoked"]


def test_encrypted_and_committed_records_are_for_models_of_their_own_scheme(
    service: Running, joint: Joint, model_entry: Reference, upload_cohort: Callable[..., Any]
) -> None:
    encrypted = joint.clinic.submit(upload_cohort(1).body)
    refuse(service, joint.clinic, encrypted, joint.model, "verification-failed", "ledger.reference")
    refuse(service, joint.clinic, joint.records, model_entry, "verification-failed", "ledger.reference")


def test_the_same_nonce_for_other_records(joint: Joint, job: str, service: Running) -> None:
    nonce = service.service.jobs.get(job).nonce
    other = submit_cohort(joint.clinic, joint.cohort, policy=Policy((joint.model,), None))
    refused(joint.clinic.predict(other.index, joint.model.index, nonce), 409, "conflict")


# -- two nodes meet ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"address": "no address"},
        {"address": "owner.example:0"},
        {"dealer_address": None},
        {"dealer_key": "0D" * 32},
        {"dealer_key": "0d" * 31},
        {"wait": 31},
        {"wait": -1},
        {"wait": "1"},
        {"more": 1},
    ],
)
def test_announcements_that_say_nothing_sensible(joint: Joint, changes: dict[str, Any]) -> None:
    said = {"address": LISTENS, **DEALER, "wait": 0, **changes}
    refused(post(joint.owner, "/v1/mpc/offers", said), 400, "malformed")


def test_announcements_and_reports_are_short(joint: Joint, job: str) -> None:
    for target in ("/v1/mpc/offers", f"/v1/mpc/jobs/{job}/failure"):
        refused(joint.owner.send("POST", target, bytes(4097)), 413, "too-large")


def test_only_registered_parties_announce_themselves(service: Running, joint: Joint) -> None:
    stranger = replace(joint.clinic, private_key=Ed25519PrivateKey.generate())
    body = {"address": None, **DEALER, "wait": 20}
    refused(post(stranger, "/v1/mpc/offers", body), 401, "not-authenticated", "request.signature")
    refused(service.client.post("/v1/mpc/offers", json=body), 401, "not-authenticated", "request.headers")


def test_a_stranger_is_offered_nothing(service: Running, joint: Joint, job: str) -> None:
    meet(joint)
    assert poll(register(service.client, "clinic", "clinic-y")) == []
    assert poll(register(service.client, "owner", "other-lab")) == []


def test_nodes_with_different_dealers_never_begin(service: Running, joint: Joint) -> None:
    poll(joint.owner, dealer_key="0e" * 32)
    job = ask(joint)
    assert poll(joint.clinic) == []
    state = ok(service.client.get(f"/v1/jobs/{job}"))
    assert (state["state"], state["error"]["type"]) == ("failed", "nodes-not-ready")
    assert state["error"]["check"] == "mpc.dealer"
    assert "0e" * 32 in state["error"]["message"]
    assert "0d" * 32 in state["error"]["message"]


def test_a_waiting_request_is_answered_when_the_other_node_comes(joint: Joint) -> None:
    poll(joint.owner, address=None)  # there, but listening nowhere
    job = ask(joint)
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.append(poll(joint.clinic, wait=20)))
    started = time.monotonic()
    waiting.start()
    time.sleep(0.3)
    assert not found
    assert [offer["job"] for offer in poll(joint.owner)] == [job]
    waiting.join(10)
    assert [offer["job"] for offer in found[0]] == [job]
    assert time.monotonic() - started < 10
    ok(fail(joint.clinic, job))


def test_a_waiting_request_is_answered_when_a_job_comes(joint: Joint) -> None:
    meet(joint)
    found: list[Any] = []
    parties = (joint.clinic, joint.owner)
    waiting = [threading.Thread(target=lambda party=party: found.append(poll(party, wait=20))) for party in parties]
    for thread in waiting:
        thread.start()
    time.sleep(0.3)
    job = ask(joint)
    for thread in waiting:
        thread.join(10)
    assert [[offer["job"] for offer in offers] for offers in found] == [[job], [job]]
    ok(fail(joint.owner, job))


def test_a_request_waits_no_longer_than_it_says(joint: Joint) -> None:
    started = time.monotonic()
    assert poll(joint.clinic, wait=1) == []
    assert 0.9 < time.monotonic() - started < 8


def test_a_newer_request_of_a_party_ends_an_older_one(joint: Joint) -> None:
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.append(poll(joint.clinic, wait=20)))
    waiting.start()
    time.sleep(0.3)
    assert poll(joint.clinic) == []
    waiting.join(10)
    assert found == [[]]


def test_waiting_holds_no_thread(service: Running, joint: Joint) -> None:
    """More requests wait than there are threads; the server answers others all the same."""
    parties = [register(service.client, "clinic", f"waiting-{number}") for number in range(45)]
    threads = [threading.Thread(target=poll, args=(party, 3)) for party in parties]
    for thread in threads:
        thread.start()
    time.sleep(1)
    started = time.monotonic()
    ok(service.client.get("/v1/health"))
    assert time.monotonic() - started < 2
    for thread in threads:
        thread.join(20)


# -- what nodes deliver -----------------------------------------------------------------------------------------------


def test_only_the_owner_delivers(service: Running, joint: Joint, job: str) -> None:
    made = compute(service, joint, job)
    for party in (joint.clinic, register(service.client, "owner", "third-lab")):
        refused(deliver(party, job, made.body()), 403, "not-permitted", "job.owner")
    assert service.service.jobs.get(job).state == "computing"


def test_results_that_are_not_whole(service: Running, joint: Joint, job: str) -> None:
    made = compute(service, joint, job)
    (proof,) = made.delivered.proofs
    for changes, check in (
        ({"proofs": ()}, "prediction.coverage"),
        ({"proofs": (proof, proof)}, "prediction.coverage"),
        ({"proofs": (replace(proof, digest=bytes(32)),)}, "entry.blob"),
        ({"proofs": (replace(proof, size=proof.size + 1),)}, "prediction.proof-size"),
    ):
        refused(deliver(joint.owner, job, made.body(**changes)), 422, "verification-failed", check)
    body = made.body()
    for wrong in (
        {**body, "session": "00"},
        {**body, "sealed": "not base64!"},
        {**body, "sealed": "A" * (4 * ((1 << 20) // 3 + 2))},
        {**body, "more": 1},
        {"session": body["session"], "proofs": body["proofs"]},
        [],
    ):
        refused(deliver(joint.owner, job, wrong), 400, "malformed")  # type: ignore[arg-type]
    found = service.service.jobs.session(job)
    assert found is not None
    assert (service.service.jobs.get(job).state, found.result, found.sealed) == ("computing", None, None)


def test_jobs_that_are_not_of_this_kind(
    service: Running, joint: Joint, model_entry: Reference, upload_cohort: Callable[..., Any]
) -> None:
    encrypted = joint.clinic.submit(upload_cohort(2).body)
    job = ok(joint.clinic.predict(encrypted.index, model_entry.index, secrets.token_hex(32)))["job"]
    joint.clinic.wait(job)
    body = {"session": "00" * 32, "proofs": [], "sealed": ""}
    for other in (job, "00" * 16):
        refused(deliver(joint.owner, other, body), 404, "not-found")
        refused(fail(joint.owner, other), 404, "not-found")
        refused(joint.clinic.send("GET", f"/v1/mpc/jobs/{other}/sealed"), 404, "not-found")


def lie(
    running: Running, joint: Joint, job: str, made: Computed, check: str, type: str = "verification-failed"
) -> None:
    """What the owner delivers is found out: the job fails, nothing is logged, nothing is handed out."""
    size = running.service.log.size
    ok(deliver(joint.owner, job, made.body()))
    state = joint.clinic.wait(job)
    assert (state["state"], state["prediction"]) == ("failed", None)
    assert (state["error"]["type"], state["error"]["check"]) == (type, check)
    assert running.service.log.size == size
    refused(joint.clinic.send("GET", f"/v1/mpc/jobs/{job}/sealed"), 409, "conflict")
    refused(deliver(joint.owner, job, made.body(b"another try")), 409, "conflict")


def altered(joint: Joint, made: Computed, data: bytes) -> Computed:
    """The same with another proof, uploaded."""
    proof = replace(made.delivered.proofs[0], digest=joint.owner.upload(data), size=len(data))
    return replace(made, delivered=replace(made.delivered, proofs=(proof,)))


def test_a_false_proof_fails_the_job_and_logs_nothing(service: Running, joint: Joint) -> None:
    job = ask(joint)
    made = compute(service, joint, job)
    data = bytearray(made.proofs[0])
    data[-40] ^= 1  # a response of proof X
    lie(service, joint, job, altered(joint, made, bytes(data)), "quadratic.opening")


def test_a_proof_that_is_none(service: Running, joint: Joint) -> None:
    job = ask(joint)
    made = compute(service, joint, job)
    lie(service, joint, job, altered(joint, made, b"no proof at all"), None, "malformed")


def test_other_answers_than_were_proven(service: Running, joint: Joint) -> None:
    job = ask(joint)
    made = compute(service, joint, job)
    proof = replace(made.delivered.proofs[0], answers=bytes(32))
    lie(service, joint, job, replace(made, delivered=replace(made.delivered, proofs=(proof,))), "prediction.answers")


def test_a_proof_of_another_session(service: Running, joint: Joint) -> None:
    job = ask(joint)
    made = compute(service, joint, job)
    other = replace(made, delivered=replace(made.delivered, session=secrets.token_bytes(32)))
    lie(service, joint, job, other, "quadratic.opening")


def test_a_proof_under_another_head(service: Running, joint: Joint) -> None:
    """Replay for a later job about the same entries: the head that the server fixed for it is another."""
    job = ask(joint)
    made = compute(service, joint, job)
    ok(fail(joint.clinic, job))
    register(service.client, "clinic", "one-more-entry")
    lie(service, joint, ask(joint), made, "quadratic.opening")


def test_one_session_is_one_prediction(service: Running, joint: Joint) -> None:
    """Replay for a second job under the same head: its entry would be the very same bytes."""
    first, second = ask(joint), ask(joint)
    made = compute(service, joint, first)
    ok(deliver(joint.owner, first, made.body()))
    refused(deliver(joint.owner, second, made.body()), 409, "conflict")
    assert joint.clinic.wait(first)["state"] == "done"
    refused(deliver(joint.owner, second, made.body()), 409, "conflict")
    assert service.service.jobs.get(second).state == "computing"
    ok(fail(joint.clinic, second))


# -- failures ---------------------------------------------------------------------------------------------------------


def test_a_reported_failure_says_who_reported_it(service: Running, joint: Joint) -> None:
    for party, role in ((joint.clinic, "clinic"), (joint.owner, "owner")):
        job = ask(joint)
        state = ok(fail(party, job, "mpc.stalled: the peer is gone"))
        assert (state["state"], state["error"]["type"], state["error"]["check"]) == (
            "failed",
            "session-broken",
            "mpc.stalled",
        )
        assert f"the node of {role} '{party.name}'" in state["error"]["message"]
        assert state["error"]["message"].endswith("reports: the peer is gone")
        again = ok(fail(joint.owner, job, "no, it was like this"))
        assert again == state, "the first report stands"
        assert ok(service.client.get(f"/v1/jobs/{job}")) == state
        made = {"session": "00" * 32, "proofs": [], "sealed": ""}
        refused(deliver(joint.owner, job, made), 409, "conflict")
        refused(joint.clinic.send("GET", f"/v1/mpc/jobs/{job}/sealed"), 409, "conflict")


def test_strangers_report_nothing(service: Running, joint: Joint, job: str) -> None:
    refused(fail(register(service.client, "clinic", "clinic-x"), job), 403, "not-permitted", "job.party")
    assert service.service.jobs.get(job).state == "computing"


@pytest.mark.parametrize(
    "said",
    [
        {"check": "mpc.stalled", "message": "x" * 401},
        {"check": "mpc.stalled", "message": "two\nlines"},
        {"check": "mpc.stalled", "message": "\x1b[31m"},
        {"check": "no name", "message": ""},
        {"check": "", "message": ""},
        {"check": "x" * 65, "message": ""},
    ],
)
def test_reports_that_could_not_be_shown(service: Running, joint: Joint, job: str, said: dict[str, str]) -> None:
    refused(post(joint.owner, f"/v1/mpc/jobs/{job}/failure", said), 400, "malformed")
    assert service.service.jobs.get(job).state == "computing"


def test_a_failure_reported_too_late(service: Running, joint: Joint) -> None:
    job = ask(joint)
    made = compute(service, joint, job)
    ok(deliver(joint.owner, job, made.body()))
    joint.clinic.wait(job)
    assert ok(fail(joint.clinic, job))["state"] == "done"


def test_sealed_shares_are_for_the_clinic_and_after_publication(service: Running, joint: Joint, job: str) -> None:
    target = f"/v1/mpc/jobs/{job}/sealed"
    refused(joint.clinic.send("GET", target), 409, "conflict")
    made = compute(service, joint, job)
    ok(deliver(joint.owner, job, made.body()))
    joint.clinic.wait(job)
    for party in (joint.owner, register(service.client, "clinic", "clinic-w")):
        refused(party.send("GET", target), 403, "not-permitted", "job.clinic")
    refused(service.client.get(target), 401, "not-authenticated", "request.headers")
    assert joint.clinic.send("GET", target).content == SEALED


# -- suspensions ------------------------------------------------------------------------------------------------------


def test_suspensions_and_clearances_are_submitted_by_their_authors(service: Running, joint: Joint) -> None:
    other = register(service.client, "clinic", "clinic-s")
    body = Suspension(other.reference, joint.owner.reference, bytes(32), "it broke")
    refused(
        joint.clinic.send("POST", "/v1/entries", joint.clinic.sign(body)),
        422,
        "verification-failed",
        "suspension.author",
    )
    suspended = joint.owner.submit(body)
    again = joint.clinic.sign(Clearance(suspended))
    refused(joint.clinic.send("POST", "/v1/entries", again), 422, "verification-failed", "clearance.author")
    for party in (other, joint.owner):
        party.submit(Clearance(suspended))
    refused(
        other.send("POST", "/v1/entries", joint.owner.sign(Clearance(suspended))), 403, "not-permitted", "entry.author"
    )


# -- cohorts of several batches ---------------------------------------------------------------------------------------


def test_a_cohort_of_two_batches(service: Running, joint: Joint, tmp_path: Path) -> None:
    values = np.tile(PATIENTS, (14, 1))[:66]
    cohort = commit_cohort(values, CLINIC)
    two = replace(joint, cohort=cohort, records=submit_cohort(joint.clinic, cohort))
    job = ask(two)
    assert ok(service.client.get(f"/v1/jobs/{job}"))["total"] == 2
    made = compute(service, two, job)
    half = made.body(proofs=made.delivered.proofs[:1])
    refused(deliver(two.owner, job, half), 422, "verification-failed", "prediction.coverage")
    ok(deliver(two.owner, job, made.body()))
    done = two.clinic.wait(job)
    assert (done["state"], done["done"]) == ("done", 2)
    path = tmp_path / "two.sealproof"
    path.write_bytes(service.client.get(f"/v1/predictions/{done['prediction']}/bundle").content)
    verified = verify_bundle(path, service.service.verifier)
    assert verified.count == 66
    second = ask(two)
    made = compute(service, two, second)
    ok(deliver(two.owner, second, made.body(proofs=made.delivered.proofs[::-1])))
    assert two.clinic.wait(second)["state"] == "failed"
