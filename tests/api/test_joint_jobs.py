"""Jobs of joint predictions: deadlines, turns, suspensions, the cap, and whatever happens to the server."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.entries import (
    Clearance,
    JointPrediction,
    Party,
    Reference,
    Revocation,
    Suspension,
    sign_entry,
)
from api.errors import Conflict, ExposureCap, PredictionRefused, RateLimited
from api.exposure import joint_bits, network_bits
from api.joint_nodes import PRESENT_SECONDS
from api.joint_prediction import JointContext, check_joint_size
from api.service import Service
from ledger.errors import StorageError
from privacy.errors import UsageError
from tests.api.conftest import CLINIC, Caller, Running, with_data
from tests.support.bundles import PATIENTS
from tests.support.joint import SEALED
from tests.support.joint_bundles import commit_cohort
from tests.support.joint_server import (
    LISTENS,
    OWNER,
    Clock,
    Held,
    Joint,
)


@pytest.fixture
def held(service: Running, joint: Joint, tmp_path: Path) -> Iterator[Held]:
    copy = with_data(service.settings, tmp_path / "data", mpc_node_seconds=60, mpc_session_seconds=900)
    shutil.copytree(service.settings.data, copy.data)
    found = Held(Service(copy), joint, Clock())
    yield found
    found.service.close()


def test_a_job_whose_nodes_do_not_come_fails_and_says_whose(held: Held) -> None:
    job = held.ask()
    held.clock.now += 60
    held.service.joint.look()
    assert held.state(job) == "computing"
    held.clock.now += 1
    held.service.joint.look()
    error = held.error(job)
    assert (error["type"], error["check"]) == ("nodes-not-ready", "mpc.node")
    assert f"clinic '{CLINIC}'" in error["message"]
    assert f"owner '{OWNER}'" in error["message"]
    assert "`sealproof mpc node`" in error["message"]


def test_only_the_missing_node_is_named(held: Held) -> None:
    job = held.ask()
    held.clock.now += 55
    held.poll(held.clinic, None)
    held.clock.now += 6
    held.service.joint.look()
    message = held.error(job)["message"]
    assert "owner" in message
    assert "clinic" not in message


def test_an_owners_node_that_listens_nowhere_is_told_so(held: Held) -> None:
    job = held.ask()
    held.clock.now += 61
    held.poll(held.owner, None)
    assert "--listen" in held.error(job)["message"]


def test_a_session_waits_for_both_nodes_and_for_an_address(held: Held) -> None:
    job = held.ask()
    assert held.poll(held.owner, None) == []
    assert held.poll(held.clinic, None) == [], "B listens nowhere"
    assert held.poll(held.owner) == [job.id]
    for _ in range(2):
        assert [offer.peer_address for offer in held.offers(held.clinic, None)] == [LISTENS]
    assert held.poll(held.owner, "[::1]:7100") == [job.id], "repeated as long as the job is computing"
    assert [offer.peer_address for offer in held.offers(held.clinic, None)] == ["[::1]:7100"], "where its node is now"


def test_a_node_that_went_away_is_not_there(held: Held) -> None:
    held.poll(held.owner)
    held.clock.now += PRESENT_SECONDS + 1
    held.ask()
    assert held.poll(held.clinic, None) == []
    assert held.poll(held.owner) != []


def test_a_session_without_result_fails_after_its_time(held: Held) -> None:
    job = held.ask()
    held.clock.now += 50
    held.meet()
    held.clock.now += 880
    assert held.poll(held.clinic, None) == [job.id], "the session has its own time"
    held.clock.now += 21
    held.service.joint.look()
    error = held.error(job)
    assert (error["type"], error["check"]) == ("session-broken", "mpc.session-time")
    assert "owner" in error["message"], "the node that was not heard of"
    assert "clinic" not in error["message"]
    assert held.poll(held.owner) == []


def test_deadlines_pass_without_anybody_asking(held: Held) -> None:
    job = held.ask()
    held.clock.now += 61
    assert held.finish(job).state == "failed"


def test_a_node_has_one_session_at_a_time_oldest_first(held: Held) -> None:
    jobs = [held.ask() for _ in range(3)]
    held.meet()
    assert held.poll(held.owner) == [jobs[0].id]
    held.clock.now += 800
    held.meet()
    held.service.joint.report_failure(held.owner, jobs[0].id, "mpc.stalled", "slow")
    assert held.poll(held.clinic, None) == [jobs[1].id]
    held.clock.now += 800
    assert held.poll(held.clinic, None) == [jobs[1].id], "its time began when its turn came"
    assert held.state(jobs[2]) == "computing"


def test_a_clinic_waits_for_its_turn_while_the_owners_node_computes_with_another(held: Held) -> None:
    """A node in a session does not ask for offers: that it is busy is no reason to give up on it."""
    other = Ed25519PrivateKey.generate()
    party = sign_entry(Party("clinic", "clinic-b", other.public_key().public_bytes_raw()), None, other)
    clinic = held.service.registry.get(held.service._append(party).index, Party)
    cohort = commit_cohort(PATIENTS, "clinic-b")
    for blob in cohort.blobs:
        held.service.blobs.put(blob)
    records = held.service._append(sign_entry(cohort.body(), clinic.reference, other))
    held.service.publisher.publish()
    first = held.ask()
    held.meet()
    model = held.joint.model.index
    second = held.service.request_prediction(clinic, records.index, model, secrets.token_bytes(32))
    for _ in range(4):
        held.clock.now += 25
        assert held.poll(clinic, None) == []
    assert [held.state(job) for job in (first, second)] == ["computing"] * 2
    held.service.joint.report_failure(held.owner, first.id, "mpc.stalled", "slow")
    assert held.poll(held.owner) == [second.id]
    assert held.poll(clinic, None) == [second.id]


def test_a_lost_node_fails_all_jobs_that_wait_for_it(held: Held) -> None:
    jobs = [held.ask() for _ in range(3)]
    held.clock.now += 61
    held.service.joint.look()
    assert [held.state(job) for job in jobs] == ["failed"] * 3


def test_computing_jobs_count_among_those_of_a_clinic(held: Held) -> None:
    for _ in range(held.service.settings.jobs_per_clinic):
        held.ask()
    with pytest.raises(RateLimited):
        held.ask()


# -- revocations, suspensions and the cap -----------------------------------------------------------------------------


def suspend(held: Held, author: Caller) -> Reference:
    body = Suspension(held.joint.clinic.reference, held.joint.owner.reference, secrets.token_bytes(32), "it broke")
    return held.log(author, body)


def test_a_suspended_pair_computes_nothing_until_both_have_cleared_it(held: Held) -> None:
    first, second = suspend(held, held.joint.clinic), suspend(held, held.joint.owner)
    with pytest.raises(PredictionRefused, match="mpc clear") as refusal:
        held.ask()
    assert refusal.value.check == "mpc.suspended"
    assert f"{first.index}, {second.index}" in str(refusal.value)
    for entry in (first, second):
        held.log(held.joint.clinic, Clearance(entry))
    held.log(held.joint.owner, Clearance(first))
    with pytest.raises(PredictionRefused, match=str(second.index)):
        held.ask()
    held.log(held.joint.owner, Clearance(second))
    assert held.ask().state == "computing"


def test_a_suspension_ends_every_computing_job_of_the_pair(held: Held) -> None:
    jobs = [held.ask(), held.ask()]
    suspend(held, held.joint.owner)
    assert held.poll(held.owner) == []
    assert [held.error(job)["check"] for job in jobs] == ["mpc.suspended"] * 2


def test_the_session_that_suspended_its_parties_may_still_say_why(held: Held) -> None:
    """Nodes log a suspension first and report to the server then."""
    reported, silent = held.ask(), held.ask()
    held.meet()
    suspend(held, held.joint.owner)
    assert held.poll(held.clinic, None) == []
    assert (held.state(reported), held.error(silent)["check"]) == ("computing", "mpc.suspended")
    held.service.joint.report_failure(held.owner, reported.id, "mpc.frame", "not what was expected")
    assert (held.error(reported)["type"], held.error(reported)["check"]) == ("session-broken", "mpc.frame")


def test_a_suspended_session_without_a_report_fails_too(held: Held) -> None:
    job = held.ask()
    held.meet()
    suspend(held, held.joint.clinic)
    held.service.joint.look()
    held.clock.now += 6
    assert held.poll(held.clinic, None) == []
    assert held.error(job)["check"] == "mpc.suspended"


def test_a_revocation_ends_a_computing_job(held: Held) -> None:
    job = held.ask()
    held.meet()
    held.log(held.joint.owner, Revocation(held.joint.model, "a mistake"))
    held.service.joint.look()
    assert held.error(job)["check"] == "ledger.revoked"


@pytest.mark.parametrize("when", ["delivered", "verified"])
def test_a_suspension_before_publication_stops_it(held: Held, when: str) -> None:
    job = held.ask()
    held.deliver(job, held.compute(job))
    if when == "verified":
        held.service.jobs.start(job.id)
        held.service.jobs.keep_entry(job.id, held.service.compute(job, lambda done: None))
    suspend(held, held.joint.clinic)
    size = held.service.log.size
    assert held.finish(job).state == "failed"
    assert held.error(job)["check"] == "mpc.suspended"
    assert held.service.log.size == size


def test_the_cap_counts_computing_jobs(service: Running, joint: Joint, tmp_path: Path) -> None:
    body = joint.network.body()
    one = joint_bits(body, len(PATIENTS))[0]
    told = sum(p.body.model == joint.model for p in service.service.registry.all(JointPrediction)) * one
    share = Fraction(told + one * 5 / 2) / network_bits(body)
    copy = with_data(service.settings, tmp_path / "data", exposure_cap=share)
    shutil.copytree(service.settings.data, copy.data)
    held = Held(Service(copy), joint, Clock())
    job, _ = held.ask(), held.ask()
    with pytest.raises(ExposureCap) as refusal:
        held.ask()
    error = refusal.value
    assert (error.output, error.released, error.waiting, error.asked) == ("y0", told, 2 * one, one)
    held.service.joint.report_failure(held.clinic, job.id, "mpc.stalled", "gone")
    made = held.compute(held.ask())
    held.service.close()
    assert made.proofs


# -- what is too large ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"max_blob_bytes": 2000}, "at most 2000: submit cohorts of at most 4 patients"),
        ({"max_blob_bytes": 200}, "the network is too large"),
    ],
)
def test_a_proof_that_is_too_large_for_a_blob(
    service: Running, joint: Joint, tmp_path: Path, limit: dict[str, int], message: str
) -> None:
    copy = with_data(service.settings, tmp_path / "data", **limit)
    shutil.copytree(service.settings.data, copy.data)
    held = Held(Service(copy), joint, Clock())
    with pytest.raises(UsageError, match=message):
        held.ask()
    assert held.service.jobs.count() == service.service.jobs.count()
    held.service.close()


def test_more_answers_or_proofs_than_can_be_handed_over(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    context = JointContext.of(held.service.registry, held.joint.records.index, held.joint.model.index)
    body = replace(context.records.body, count=64 * 400, certificates=(bytes(32),) * 400)
    large = replace(context, records=replace(context.records, body=body))
    with pytest.raises(UsageError, match="25600 patients are too many for one joint prediction: at most 16368"):
        check_joint_size(large, held.service.blobs, 1 << 24)
    monkeypatch.setattr("api.joint_prediction.MAX_SEALED_BYTES", 1 << 30)
    with pytest.raises(UsageError, match="too many proofs for one prediction entry"):
        check_joint_size(large, held.service.blobs, 1 << 24)


# -- restarts ---------------------------------------------------------------------------------------------------------


def test_a_computing_job_survives_a_restart_with_its_time_and_its_head(held: Held) -> None:
    job = held.ask()
    before = held.service.jobs.session(job.id)
    held.clock.now += 50
    held.restart()
    held.clock.now += 50
    held.meet()
    after = held.service.jobs.session(job.id)
    assert after == replace(before, offered=True)  # type: ignore[type-var]
    assert held.poll(held.clinic, None) == [job.id]


def test_a_session_under_way_survives_a_restart(held: Held) -> None:
    job = held.ask()
    held.meet()
    made = held.compute(job)
    held.restart()
    held.clock.now += 61
    assert held.poll(held.clinic, None) == [], "the owner's node has not said yet where it listens"
    assert held.state(job) == "computing", "its nodes need not ask again: they are at work"
    held.deliver(job, made)
    held.check_done(job, made)


def test_a_delivered_result_survives_a_restart(held: Held) -> None:
    job = held.ask()
    made = held.compute(job)
    held.deliver(job, made)
    assert held.state(job) == "queued"
    held.restart()
    held.deliver(job, made)  # its answer was lost on the way
    held.check_done(job, made)
    assert held.service.joint.sealed(held.clinic, job.id) == SEALED


def test_a_running_job_is_verified_again_after_a_restart(held: Held) -> None:
    job = held.ask()
    made = held.compute(job)
    held.deliver(job, made)
    held.service.jobs.start(job.id)
    held.service.compute(job, lambda done: None)
    held.restart()
    held.check_done(job, made)


def test_killed_before_the_append(held: Held) -> None:
    job = held.ask()
    made = held.compute(job)
    held.deliver(job, made)
    held.service.jobs.start(job.id)
    entry = held.service.compute(job, lambda done: None)
    held.service.jobs.keep_entry(job.id, entry)
    size = held.service.log.size
    held.restart()
    held.check_done(job, made)
    assert held.service.log.entry(size) == entry


def test_killed_after_the_append(held: Held) -> None:
    job = held.ask()
    made = held.compute(job)
    held.deliver(job, made)
    held.service.jobs.start(job.id)
    entry = held.service.compute(job, lambda done: None)
    held.service.jobs.keep_entry(job.id, entry)
    index, _ = held.service.publish(job, entry)
    held.restart()
    held.check_done(job, made)
    assert held.service.log.size == index + 1


def test_an_append_that_was_reported_as_failed_but_happened(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    job = held.ask()
    made = held.compute(job)
    held.deliver(job, made)
    real, failures = held.service.log.append, []

    def append(entry: bytes) -> object:
        found = real(entry)
        if not failures:
            failures.append(found.index)
            raise StorageError("the disk says no")
        return found

    monkeypatch.setattr(held.service.log, "append", append)
    monkeypatch.setattr("api.jobs._RETRY_SECONDS", 0.05)
    held.check_done(job, made)
    assert len(failures) == 1


def test_a_failed_job_stays_failed(held: Held) -> None:
    job = held.ask()
    held.service.joint.report_failure(held.clinic, job.id, "mpc.stalled", "gone")
    held.restart()
    assert held.error(job)["type"] == "session-broken"
    assert held.poll(held.owner) == []


def test_a_result_and_a_failure_at_the_same_time(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever is stored first stands; the other changes nothing."""
    job = held.ask()
    made = held.compute(job)
    jobs, real = held.service.jobs, held.service.jobs.deliver

    def late(*what: Any) -> bool:
        held.service.joint.report_failure(held.clinic, job.id, "mpc.stalled", "gone")
        return real(*what)

    monkeypatch.setattr(jobs, "deliver", late)
    with pytest.raises(Conflict):
        held.deliver(job, made)
    assert held.error(job)["check"] == "mpc.stalled"
    found = jobs.session(job.id)
    assert found is not None
    assert (found.result, found.sealed) == (None, None)


def test_the_same_result_twice_at_the_same_time(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    job = held.ask()
    made = held.compute(job)
    real = held.service.jobs.deliver

    def twice(*what: Any) -> bool:
        assert real(*what)
        return real(*what)

    monkeypatch.setattr(held.service.jobs, "deliver", twice)
    held.deliver(job, made)
    assert held.state(job) == "queued"
