"""A clinic shows answers to one recipient: what is written, logged and remembered, and what the recipient sees.

Nodes, server, client and commands are the real ones, over sockets of this machine. Requests, grants and refusals are in
`test_consents.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from api.cli.main import main
from api.client.clinic import Clinic
from api.client.questions import question_of
from api.client.raw_answers import RawAnswers
from api.client.shown import ShownFact
from api.client.transport import Server, ServerError, ServerUnreachable
from api.consent import Question
from api.entries import Disclosure, decode_entry
from privacy.bundle import BundleReader
from privacy.errors import UsageError, VerificationFailed
from tests.support.bundles import PATIENTS
from tests.support.pairs import IDS, RISK
from tests.support.service import RunningServer, listening
from tests.support.telling import HIGH, LOW, THREE, Told, tell_committed, tell_encrypted

NONCES = [bytes([n] * 32) for n in range(10)]
RAW = RISK.predict_raw(PATIENTS)[:, 0]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with listening(tmp_path_factory.mktemp("disclosure") / "server") as server:
        yield server


@pytest.fixture(scope="module")
def encrypted(service: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    with tell_encrypted(service, tmp_path_factory.mktemp("encrypted")) as found:
        yield found


@pytest.fixture(scope="module")
def committed(service: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    with tell_committed(service, tmp_path_factory.mktemp("committed")) as found:
        yield found


@pytest.fixture(scope="module")
def classes(service: RunningServer, encrypted: Told, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    with tell_encrypted(service, tmp_path_factory.mktemp("classes"), THREE, encrypted.clinic) as found:
        yield found


@pytest.fixture(params=["encrypted", "committed"])
def told(request: pytest.FixtureRequest) -> Iterator[Told]:
    """A clinic, which has not said anything yet."""
    found: Told = request.getfixturevalue(request.param)
    with found.forgotten():
        yield found


@pytest.fixture
def joint(committed: Told) -> Iterator[Told]:
    """The same of multi-party computation alone, where a story is no other under encryption."""
    with committed.forgotten():
        yield committed


# -- what is shown ----------------------------------------------------------------------------------------------------


def test_each_kind_says_what_it_says(told: Told, tmp_path: Path) -> None:
    path = tmp_path / "shown.sealproof"
    found = told.verified(told.show(path, NONCES[1], told.exact(HIGH)), NONCES[1])
    assert found.sentence == "risk of record 'p-71' is 0.515625, within 0.015625"
    assert abs(found.facts[0].value / 64 - RAW[1]) <= 1 / 64
    found = told.verified(told.show(path, NONCES[1], told.threshold(HIGH, 0.6)), NONCES[1])
    assert found.sentence == "risk of record 'p-71' is at least 0.40625"
    found = told.verified(told.show(path, NONCES[1], told.exact(LOW, 0.25)), NONCES[1])
    # Of the points a quarter apart: -0.84375 to within a quarter would tell a sixteenth of that.
    assert found.sentence == "risk of record 'p-18' is -0.75, within 0.25"


def test_all_of_a_committed_answer_is_shown_where_that_is_granted(joint: Told, tmp_path: Path) -> None:
    question = question_of(joint.model, HIGH, kind="open")
    found = joint.verified(joint.show(tmp_path / "shown.sealproof", NONCES[1], question), NONCES[1])
    (fact,) = found.facts
    assert abs(fact.value / 2**fact.scale_bits - RAW[1]) < 1e-3
    assert found.sentence.endswith("exactly")


def test_many_answers_of_both_kinds_are_shown_in_one_proof(told: Told, tmp_path: Path) -> None:
    size = told.log_size()
    questions = [told.exact(record) for record in IDS] + [told.threshold(HIGH, 0.6), told.threshold(LOW, 0.2)]
    found = told.verified(told.show(tmp_path / "shown.sealproof", NONCES[1], *questions), NONCES[1])
    assert [fact.record_id for fact in found.facts] == [*IDS, HIGH, LOW]
    for fact, raw in zip(found.facts, RAW, strict=False):
        assert abs(fact.value / 64 - raw) <= 1 / 64
    assert told.log_size() == size + 2  # the grant and one disclosure
    with BundleReader(tmp_path / "shown.sealproof") as reader, BundleReader(told.bundle) as before:
        proof = reader.blob(found.entry.body.proof)
        assert set(before.blob_digests()) < set(reader.blob_digests())
    if told.scheme == "ckks":  # one opening of the key, however many answers there are
        assert 80_000 < len(proof) < 100_000


def test_a_part_of_what_is_granted_is_shown(joint: Told, tmp_path: Path) -> None:
    held = joint.grant(NONCES[1], *(joint.exact(record) for record in IDS))
    for wanted in ([LOW], [IDS[0], IDS[4]]):
        path = joint.clinic.disclose(held.index, joint.bundle, tmp_path / "shown.sealproof", wanted)
        assert path is not None
        assert [fact.record_id for fact in joint.verified(path, NONCES[1]).facts] == wanted
    for unknown in (["nobody"], [LOW, "nobody"], []):
        with pytest.raises(VerificationFailed, match=r"consent\.scope"):
            joint.clinic.disclose(held.index, joint.bundle, tmp_path / "no.sealproof", unknown)
    assert not (tmp_path / "no.sealproof").exists()


def test_two_classes_of_a_softmax_are_compared_and_none_is_shown_alone(classes: Told, tmp_path: Path) -> None:
    raw, model = THREE.predict_raw(PATIENTS), classes.model
    with classes.forgotten():
        exact = question_of(model, HIGH, kind="exact", output="high", versus="low")
        odds = question_of(model, LOW, kind="threshold", odds=1.5, output="middle", versus="low")
        found = classes.verified(classes.show(tmp_path / "shown.sealproof", NONCES[1], exact, odds), NONCES[1])
        assert abs(found.facts[0].value / 64 - (raw[1, 2] - raw[1, 0])) <= 1 / 64
        assert raw[3, 1] - raw[3, 0] >= found.facts[1].value / 64 >= 0.405
        assert found.sentence.startswith("high minus low of record 'p-71' is ")
        size = classes.log_size()
        with pytest.raises(UsageError, match="softmax"):
            classes.grant(NONCES[1], Question(HIGH, 1, None, "exact", 0, 1))
        assert classes.log_size() == size


def test_a_pair_of_outputs_is_one_pair_in_whatever_order(classes: Told, tmp_path: Path) -> None:
    """a - b >= n, and then b - a >= -n, would tell the difference."""
    model = classes.model

    def difference(output: str, versus: str, threshold: float) -> Question:
        return question_of(model, HIGH, kind="threshold", threshold=threshold, output=output, versus=versus)

    with classes.forgotten():
        low = THREE.predict_raw(PATIENTS)[1]
        classes.show(tmp_path / "one.sealproof", NONCES[1], difference("high", "low", float(low[2] - low[0] - 0.1)))
        for question in (
            difference("low", "high", float(low[0] - low[2] - 0.1)),
            difference("high", "low", float(low[2] - low[0] - 0.2)),
        ):
            with pytest.raises(UsageError, match="something else was disclosed about this answer"):
                classes.show(tmp_path / "two.sealproof", NONCES[2], question)
        # About another pair, and of another kind, something else may be said.
        classes.show(tmp_path / "two.sealproof", NONCES[2], difference("middle", "low", -20.0))
        exact = question_of(model, HIGH, kind="exact", output="low", versus="high")
        classes.show(tmp_path / "two.sealproof", NONCES[2], exact)


def test_a_difference_of_committed_answers_is_shown(service: RunningServer, tmp_path: Path) -> None:
    from tests.support import pairs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "RISK", replace(THREE, name="three-together"))
        with tell_committed(service, tmp_path / "pair") as told:
            raw = THREE.predict_raw(PATIENTS)
            exact = question_of(told.model, HIGH, kind="exact", output="high", versus="low")
            opened = question_of(told.model, LOW, kind="open", output="middle", versus="low")
            found = told.verified(told.show(tmp_path / "shown.sealproof", NONCES[1], exact, opened), NONCES[1])
            assert abs(found.facts[0].value / 64 - (raw[1, 2] - raw[1, 0])) <= 1 / 64
            whole = found.facts[1]
            assert abs(whole.value / 2**whole.scale_bits - (raw[3, 1] - raw[3, 0])) < 1e-3


def test_a_recipient_finds_its_own_nonce_and_no_other(joint: Told, tmp_path: Path) -> None:
    path = joint.show(tmp_path / "shown.sealproof", NONCES[1], joint.exact(HIGH))
    assert "within 0.015625" in joint.verified(path, NONCES[1]).checks[-1].sentence
    assert "was not given" in joint.verified(path, None).checks[-1].sentence
    with pytest.raises(VerificationFailed, match=r"disclosure\.nonce"):
        joint.verified(path, NONCES[2])


# -- one statement of a kind ------------------------------------------------------------------------------------------


def test_saying_it_again_says_the_same(told: Told, tmp_path: Path) -> None:
    """The same bytes and the same entries, however often it is repeated."""
    size = told.log_size()
    shown = []
    for number in range(3):
        path = told.show(tmp_path / f"{number}.sealproof", NONCES[1], told.threshold(HIGH, 0.6))
        found = told.verified(path, NONCES[1])
        shown.append((found.entry, found.facts, found.issued_at))
        assert told.log_size() == size + 2
    assert shown[0] == shown[1] == shown[2]


def test_a_second_different_statement_of_a_kind_is_not_made(joint: Told, tmp_path: Path) -> None:
    """Two thresholds bracket a score, two intervals meet in a smaller one; whoever the first was shown to."""
    path = tmp_path / "shown.sealproof"
    joint.show(path, NONCES[1], joint.threshold(HIGH, 0.6))
    joint.show(path, NONCES[1], joint.exact(HIGH, 0.25))
    path.unlink()
    for question in (
        joint.threshold(HIGH, 0.5),
        joint.threshold(HIGH, 0.62),
        joint.exact(HIGH),
        joint.exact(HIGH, 0.5),
    ):
        for nonce in NONCES[1:3]:
            held = joint.grant(nonce, joint.exact(LOW), question)
            size = joint.log_size()
            with pytest.raises(UsageError, match="something else was disclosed about this answer of record 'p-71'"):
                joint.clinic.disclose(held.index, joint.bundle, path)
            assert joint.log_size() == size
    assert not path.exists()
    # What was granted beside it was not said, and may be said in another way.
    joint.show(path, NONCES[3], joint.exact(LOW, 0.5))


def test_of_two_statements_that_are_made_at_the_same_time_one_is(joint: Told, tmp_path: Path) -> None:
    grants = [joint.grant(NONCES[1], joint.threshold(HIGH, probability)) for probability in (0.6, 0.55, 0.5, 0.45)]
    start, ends = threading.Barrier(4), []
    joint.bundle  # noqa: B018 - predicted before the race

    def disclose(number: int) -> None:
        clinic = Clinic.open(joint.clinic.session.folder)
        start.wait()
        try:
            ends.append(clinic.disclose(grants[number].index, joint.bundle, tmp_path / f"{number}.sealproof"))
        except UsageError:
            ends.append(None)
        clinic.close()

    threads = [threading.Thread(target=disclose, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (path,) = [end for end in ends if end is not None]
    joint.verified(path, NONCES[1])


def test_a_second_prediction_of_the_same_records_is_no_second_chance(told: Told, tmp_path: Path) -> None:
    """Its answers are the same numbers under other commitments or with other noise: nothing new is said of them."""
    path = tmp_path / "shown.sealproof"
    told.show(path, NONCES[1], told.threshold(HIGH, 0.6), told.exact(HIGH))
    said = told.verified(path, NONCES[1]).facts
    again = told.bundles[1] if len(told.bundles) > 1 else told.predict()
    with pytest.raises(UsageError, match="something else was disclosed"):
        told.show(path, NONCES[1], told.threshold(HIGH, 0.5), bundle=again)
    honest = RawAnswers.nearest
    with pytest.MonkeyPatch.context() as patch:
        # An answer between two grid points, which other noise moves from one to the other.
        patch.setattr(RawAnswers, "nearest", lambda *arguments: honest(*arguments) + 1)
        told.show(path, NONCES[1], told.threshold(HIGH, 0.6), told.exact(HIGH), bundle=again)
    found = told.verified(path, NONCES[1])
    assert [fact.value for fact in found.facts] == [fact.value for fact in said]
    assert found.entry.body.prediction == told.clinic.open_bundle(again).verified.prediction.reference


def test_the_same_may_be_said_to_another_and_another_thing_of_another_patient(joint: Told, tmp_path: Path) -> None:
    size, entries = joint.log_size(), []
    for number, (record, threshold) in enumerate([(HIGH, 0.6), (HIGH, 0.6), (IDS[2], 0.5), (LOW, 0.2)]):
        path, nonce = tmp_path / f"{number}.sealproof", NONCES[1 + number]
        joint.show(path, nonce, joint.threshold(record, threshold))
        entries.append(joint.verified(path, nonce).entry)
        with pytest.raises(VerificationFailed, match=r"disclosure\.nonce"):
            joint.verified(path, NONCES[6])
    assert len({entry.reference for entry in entries}) == 4
    assert joint.log_size() == size + 8


def test_what_is_not_true_is_not_said_and_not_held_against_the_clinic(told: Told, tmp_path: Path) -> None:
    path = tmp_path / "shown.sealproof"
    for threshold in (0.64, 0.99):
        held = told.grant(NONCES[1], told.exact(LOW), told.threshold(HIGH, threshold))
        size = told.log_size()
        with pytest.raises(UsageError, match=r"'p-71' does not reach this threshold.*refuse the request"):
            told.clinic.disclose(held.index, told.bundle, path)
        assert told.log_size() == size
    assert not path.exists()
    assert not list(told.clinic.session.folder.glob("disclosures/*/said.json"))
    told.verified(told.show(path, NONCES[1], told.threshold(HIGH, 0.6)), NONCES[1])


# -- what is not shown ------------------------------------------------------------------------------------------------


def test_without_a_grant_nothing_is_shown(joint: Told, tmp_path: Path) -> None:
    held = joint.grant(NONCES[1], joint.exact(HIGH))
    for index in (held.index + 1, 0, joint.records.index):
        with pytest.raises(UsageError, match=f"entry {index} is no grant of this clinic; it has {held.index}"):
            joint.clinic.disclose(index, joint.bundle, tmp_path / "no.sealproof")
    with pytest.raises(UsageError, match="no mailbox, so a file must be written"):
        joint.clinic.disclose(held.index, joint.bundle)
    assert not (tmp_path / "no.sealproof").exists()
    assert not list(joint.clinic.session.folder.glob("disclosures/*/said.json"))


def test_a_grant_that_has_ended_or_was_revoked_shows_nothing(
    joint: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, ends = tmp_path / "no.sealproof", "2100-01-01T00:00:00Z"
    held = joint.grant(NONCES[1], joint.exact(HIGH), until=ends)
    revoked = joint.grant(NONCES[2], joint.exact(HIGH))
    joint.clinic.revoke_grant(revoked.index)
    with pytest.raises(VerificationFailed, match=r"consent\.revoked"):
        joint.clinic.disclose(revoked.index, joint.bundle, path)
    with monkeypatch.context() as patch:
        patch.setattr("api.client.consents.timestamp", lambda: "2100-01-01T00:00:01Z")
        size = joint.log_size()
        with pytest.raises(VerificationFailed, match=r"consent\.expired"):
            joint.clinic.disclose(held.index, joint.bundle, path)
        patch.setattr("api.client.consents.timestamp", lambda: ends)
        joint.clinic.disclose(held.index, joint.bundle, path)
    assert joint.log_size() == size + 1
    joint.verified(path, NONCES[1])


def test_a_revocation_that_only_the_ledger_has_is_heeded(joint: Told, tmp_path: Path) -> None:
    """Made from a copy of the folder, say: this one has not kept it, and the server is asked for all of its log."""
    held = joint.grant(NONCES[1], joint.exact(HIGH))
    joint.clinic.session.revoke(held.reference, "from another machine")
    assert not joint.clinic.grants()[-1].revoked
    with pytest.raises(VerificationFailed, match=r"consent\.revoked"):
        joint.clinic.disclose(held.index, joint.bundle, tmp_path / "no.sealproof")
    assert not (tmp_path / "no.sealproof").exists()


def test_no_more_answers_of_a_key_are_shown_than_its_cap(encrypted: Told, tmp_path: Path) -> None:
    told, path = encrypted, tmp_path / "shown.sealproof"
    with told.forgotten():
        careful = Clinic.open(told.clinic.session.folder, disclosure_cap=3)
        two = told.grant(NONCES[1], told.exact(HIGH), told.exact(LOW))
        three = told.grant(NONCES[2], told.exact(HIGH), told.exact(LOW), told.exact(IDS[0]))
        one = told.grant(NONCES[3], told.exact(IDS[0]))
        for _ in range(2):  # a repetition is not counted again
            careful.disclose(two.index, told.bundle, path)
        size = told.log_size()
        with pytest.raises(UsageError, match=r"2 answers were disclosed under this key, and 3 more .* cap of 3"):
            careful.disclose(three.index, told.bundle, path)
        assert told.log_size() == size
        careful.disclose(one.index, told.bundle, path)
        told.verified(path, NONCES[3])
        with pytest.raises(UsageError, match="cap of 3"):
            careful.disclose(three.index, told.bundle, path, [HIGH])
        told.clinic.disclose(three.index, told.bundle, path)
        told.verified(path, NONCES[2])
        careful.close()


IMPOSSIBLE: list[tuple[Question, str]] = [
    (Question("nobody", 0, None, "exact", 0, 1), "no record 'nobody' among"),
    (Question(HIGH, 1, None, "exact", 0, 1), "no output 1"),
    (Question(HIGH, 0, 1, "exact", 0, 1), "no output 1"),
    (Question(HIGH, 0, None, "exact", 0, 1 << 60), "no answer is that large"),
    (Question(HIGH, 0, None, "threshold", -(1 << 60), 0), "no answer is that large"),
]


@pytest.mark.parametrize(("question", "words"), IMPOSSIBLE, ids=lambda value: str(value)[:40])
def test_what_cannot_be_shown_is_not_even_granted(told: Told, question: Question, words: str) -> None:
    size = told.log_size()
    with pytest.raises(UsageError, match=words):
        told.grant(NONCES[1], told.exact(LOW), question)
    with pytest.raises(UsageError, match="32 bytes"):
        told.grant(bytes(31), told.exact(LOW))
    assert told.log_size() == size
    assert not list(told.clinic.session.folder.glob("grants/*/document.json"))


def test_an_answer_under_encryption_is_never_shown_whole(encrypted: Told) -> None:
    with pytest.raises(UsageError, match="not shown whole"):
        encrypted.grant(NONCES[1], Question(HIGH, 0, None, "open", 0, 0))


def test_a_statement_that_no_answer_of_the_model_fits_is_refused(told: Told, tmp_path: Path) -> None:
    held = told.grant(NONCES[1], Question(HIGH, 0, None, "exact", 0, (1 << 52)))
    with pytest.raises(UsageError, match="leaves the range"):
        told.clinic.disclose(held.index, told.bundle, tmp_path / "no.sealproof")
    assert not list(told.clinic.session.folder.glob("disclosures/*/said.json"))


# -- of which prediction ----------------------------------------------------------------------------------------------


def test_the_newest_prediction_that_the_grant_covers_is_found_or_fetched(told: Told, tmp_path: Path) -> None:
    path, newest = tmp_path / "shown.sealproof", told.bundles[-1] if told.bundles else told.predict()
    held = told.grant(NONCES[1], told.exact(HIGH))
    told.clinic.disclose(held.index, path=path)
    shown = told.verified(path, NONCES[1])  # with no server: the inputs are in it, which the kept bundle had not
    assert shown.entry.body.prediction == told.clinic.open_bundle(newest).verified.prediction.reference
    kept = told.clinic.session.folder / "bundles"
    kept.rename(kept.with_name("bundles.before"))
    try:
        other = told.grant(NONCES[2], told.exact(HIGH))
        told.clinic.disclose(other.index, path=path)
        assert told.verified(path, NONCES[2]).entry.body.prediction == shown.entry.body.prediction
    finally:
        for made in kept.iterdir():
            made.unlink()
        kept.rmdir()
        kept.with_name("bundles.before").rename(kept)


def test_what_is_shown_is_of_a_prediction_that_was_meant(
    told: Told, tmp_path: Path, honest_bundle: Path, encrypted: Told, committed: Told
) -> None:
    path = told.show(tmp_path / "shown.sealproof", NONCES[1], told.exact(HIGH))
    held = told.grant(NONCES[2], told.exact(HIGH))
    no = tmp_path / "no.sealproof"
    with pytest.raises(UsageError, match="is no prediction"):
        told.clinic.disclose(held.index, path, no)
    with pytest.raises(UsageError, match="there is nothing to open"):
        told.clinic.open_bundle(path)
    with pytest.raises(VerificationFailed, match=r"log\.untrusted"):
        told.clinic.disclose(held.index, honest_bundle, no)
    other = committed if told.scheme == "ckks" else encrypted
    with pytest.raises(VerificationFailed, match=r"clinic\.(key|records)"):
        told.clinic.disclose(held.index, other.bundle, no)
    meant = told.clinic.open_bundle(told.bundle).verified.prediction.reference
    second = told.bundles[1] if len(told.bundles) > 1 else told.predict()
    only = told.grant(
        NONCES[3], told.exact(HIGH), scope=replace(told.scope, prediction=meant, model=None, records=None)
    )
    with pytest.raises(VerificationFailed, match=r"consent\.scope"):
        told.clinic.disclose(only.index, second, no)
    assert not no.exists()
    told.clinic.disclose(only.index, path=no)
    assert told.verified(no, NONCES[3]).entry.body.prediction == meant


def test_records_of_another_cohort_have_no_answer_in_this_one(joint: Told, tmp_path: Path) -> None:
    held = joint.grant(NONCES[1], joint.exact(HIGH), scope=replace(joint.scope, records=None))
    with pytest.raises(UsageError, match="no cohort of this clinic"):
        joint.grant(NONCES[1], joint.exact(HIGH), scope=replace(joint.scope, records=held.reference))
    joint.clinic.disclose(held.index, joint.bundle, tmp_path / "shown.sealproof")


# -- crashes ----------------------------------------------------------------------------------------------------------


def crash(*arguments: object, **options: object) -> Any:
    raise KeyboardInterrupt


CRASHES = [
    "api.client.disclosure._Teller._say",
    "api.client.disclosure.sign_shown",
    "api.client.session.Session.log_once",
    "api.client.session.Session.check_logged",
    "api.client.disclosure.write_disclosure_bundle",
]


@pytest.mark.parametrize("where", CRASHES, ids=[where.rpartition(".")[2] for where in CRASHES])
def test_after_a_crash_the_same_is_said_and_logged_once(joint: Told, tmp_path: Path, where: str) -> None:
    path = tmp_path / "shown.sealproof"
    held, other = (joint.grant(NONCES[1], joint.threshold(HIGH, threshold)) for threshold in (0.6, 0.5))
    joint.bundle  # noqa: B018 - predicted before its size is taken
    size = joint.log_size()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, crash)
        with pytest.raises(KeyboardInterrupt):
            joint.clinic.disclose(held.index, joint.bundle, path)
    assert not path.exists()
    if not where.endswith("_say"):
        # Whether it reached anybody, nobody knows: what may have been said stays said.
        with pytest.raises(UsageError, match="something else was disclosed"):
            joint.clinic.disclose(other.index, joint.bundle, path)
    joint.clinic.disclose(held.index, joint.bundle, path)
    found = joint.verified(path, NONCES[1])
    assert joint.log_size() == size + 1
    assert found.entry.reference.index == size


def test_after_a_crash_at_every_step_an_encrypted_answer_is_shown_and_counted_once(
    encrypted: Told, tmp_path: Path
) -> None:
    path = tmp_path / "shown.sealproof"
    with encrypted.forgotten():
        held = encrypted.grant(NONCES[1], encrypted.exact(HIGH))
        encrypted.bundle  # noqa: B018 - predicted before its size is taken
        size = encrypted.log_size()
        for where in CRASHES:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(where, crash)
                with pytest.raises(KeyboardInterrupt):
                    encrypted.clinic.disclose(held.index, encrypted.bundle, path)
            assert not path.exists()
        careful = Clinic.open(encrypted.clinic.session.folder, disclosure_cap=1)
        careful.disclose(held.index, encrypted.bundle, path)
        careful.close()
        assert encrypted.verified(path, NONCES[1]).entry.reference.index == size
        assert encrypted.log_size() == size + 1


def test_without_the_server_nothing_is_shown(joint: Told, tmp_path: Path) -> None:
    """What is not on the ledger is not handed out."""
    path = tmp_path / "shown.sealproof"
    held = joint.grant(NONCES[1], joint.exact(HIGH))

    def gone(*arguments: object) -> Any:
        raise ServerUnreachable("gone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Server, "append", gone)
        with pytest.raises(ServerError):
            joint.clinic.disclose(held.index, joint.bundle, path)
    assert not path.exists()


def test_a_log_that_grows_meanwhile_is_asked_again(joint: Told, tmp_path: Path) -> None:
    honest, calls = Server.proof, []
    held = joint.grant(NONCES[1], joint.exact(HIGH))

    def proof(server: Server, index: int) -> bytes:
        calls.append(index)
        if len(calls) == 3:
            joint.server.owner(tmp_path / "newcomer", f"lab-{joint.log_size()}").close()
        return honest(server, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Server, "proof", proof)
        joint.clinic.disclose(held.index, joint.bundle, tmp_path / "shown.sealproof")
    joint.verified(tmp_path / "shown.sealproof", NONCES[1])


# -- what is kept and what is told ------------------------------------------------------------------------------------


def test_the_ledger_says_neither_whose_answer_nor_what(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    honest = Server._send

    def send(server: Server, method: str, path: str, limit: int, **options: Any) -> bytes:
        sent.append(path.encode() + (options.get("body") or b""))
        return honest(server, method, path, limit, **options)

    kind = told.exact(HIGH) if told.scheme == "ckks" else question_of(told.model, HIGH, kind="open")
    monkeypatch.setattr(Server, "_send", send)
    path = told.show(tmp_path / "shown.sealproof", NONCES[1], kind)
    found = told.verified(path, NONCES[1])
    data = told.clinic.session.server.entry(found.entry.reference.index)
    body = decode_entry(data).body
    assert isinstance(body, Disclosure)
    assert set(json.loads(data)["body"]) == {"grant", "prediction", "statement", "proof"}
    said = b"".join(sent)
    with BundleReader(path) as reader:
        statement, proof = reader.blob(body.statement), reader.blob(body.proof)
    patient = told.records.handles.ids.index(HIGH)
    salt = told.records.handles.salts[patient]
    for secret in (HIGH.encode(), salt, salt.hex().encode(), NONCES[1].hex().encode(), statement, proof[-32:]):
        assert secret not in said
    if told.scheme == "mpc":
        assert str(found.facts[0].value).encode() not in said


def test_a_disclosure_shows_one_patient_and_nothing_of_the_others(joint: Told, tmp_path: Path) -> None:
    path = joint.show(tmp_path / "shown.sealproof", NONCES[1], joint.exact(HIGH))
    data, handles = path.read_bytes(), joint.records.handles
    with BundleReader(path) as reader:
        body = decode_entry(reader.entry(joint.verified(path, NONCES[1]).entry.reference.index)).body
        assert isinstance(body, Disclosure)
        payloads = reader.blob(body.statement) + reader.blob(body.proof)
    for name, salt in zip(handles.ids, handles.salts, strict=True):
        if name != HIGH:
            assert name.encode() not in data
            assert salt not in data
            assert salt.hex().encode() not in data + payloads


def test_what_is_kept_is_private(told: Told, tmp_path: Path) -> None:
    told.show(tmp_path / "shown.sealproof", NONCES[1], told.exact(HIGH))
    folder = told.clinic.session.folder
    kept = [*(folder / "disclosures").rglob("*"), *(folder / "grants").rglob("*")]
    if told.scheme == "ckks":
        kept.append(folder / "keys" / "1.shown.json")
    assert len(kept) > 8
    kept.append(tmp_path / "shown.sealproof")  # an answer is in it
    for path in kept:
        assert path.stat().st_mode & 0o077 == 0, path
        assert HIGH not in str(path)


def test_answers_are_told_exactly_in_decimals() -> None:
    """Never a rounded double: what is shown is what was proven."""
    for value, bits, shown in (
        (1, 36, "0.000000000014551915228366851806640625"),
        (-3, 1, "-1.5"),
        (10, 0, "10"),
        (0, 6, "0"),
        (2**60, 36, "16777216"),
        (-(2**61) - 1, 61, "-1.0000000000000000004336808689942017736029811203479766845703125"),
    ):
        zero = Fraction(0)
        fact = ShownFact("p", bytes(32), 0, 0, None, "risk", "open", value, 0, bits, 0, "identity", zero)
        assert fact.in_words == f"is {shown} exactly"


# -- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("SEALPROOF_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, code: int = 0) -> tuple[str, str]:
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["sealproof", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        assert ended.value.code == code, (arguments, shown)
        return shown.out, shown.err

    return run


def test_the_commands_from_nonce_to_verdict(told: Told, tmp_path: Path, shell: Any) -> None:
    told.bundle  # noqa: B018 - there is a prediction
    nonce = json.loads(shell("consumer", "nonce", "--json")[0])["nonce"]
    folder, path, key = ("-f", told.clinic.session.folder), tmp_path / "shown.sealproof", told.server.log_key
    what = ("--model", told.model.reference.index, "--record", HIGH, "--at-least", "0.6", "--purpose", "for myself")
    out, _ = shell("clinic", "grant", "--nonce", nonce, *what, *folder)
    assert "is risk of record 'p-71' at least 0.40625 (a probability of at least 0.6001)?" in out
    grant = json.loads(shell("clinic", "grant", "--nonce", nonce, *what, *folder, "--json")[0])["grant"]
    out, err = shell("clinic", "disclose", grant, "--save", path, *folder)
    assert "0.5199" not in out + err
    out, _ = shell("verify", path, "--log-key", key, "--nonce", nonce)
    assert "risk of record 'p-71' is at least 0.40625" in out
    assert "VERIFIED" in out
    _, err = shell("verify", path, "--log-key", key, "--nonce", "00" * 32, code=1)
    assert "disclosure.nonce: this was made for another recipient" in err


def test_wrong_usage_ends_with_two_and_a_refused_grant_with_one(joint: Told, tmp_path: Path, shell: Any) -> None:
    path, folder = tmp_path / "shown.sealproof", ("-f", joint.clinic.session.folder)
    what = ("--model", joint.model.reference.index, "--record", HIGH, "--purpose", "x", *folder)
    nonce = ("--nonce", "00" * 32)
    for more, words in (
        (("--nonce", "12", *what, "--exact"), "a nonce has 32 bytes"),
        (("--nonce", "zz" * 32, *what, "--exact"), "is not hex"),
        ((*nonce, *what), "ask one thing"),
        ((*nonce, *what, "--exact", "--open"), "ask one thing"),
        ((*nonce, *what, "--exact", "--tolerance", "nan"), "multiple of the model's grid"),
        ((*nonce, *what, "--at-least", "nan"), "nan"),
        ((*nonce, *what, "--exact", "--output", "mood"), "no output 'mood'"),
        ((*nonce, *what, "--exact", "--until", "2020-01-01T00:00:00Z"), "is past"),
        ((*nonce, *what, "--exact", "--until", "tomorrow"), "expected YYYY"),
        ((*nonce, *what, "--exact", "--records", "1"), "entry 1 is no cohort"),
        ((*nonce, *what, "--exact", "--only", HIGH), "no request to grant a part of"),
        ((*nonce, "--exact", *folder), "with --nonce say what is shown"),
        (("12", *what, "--exact"), "what is shown is what the request asks"),
        (("12", *nonce, *what, "--exact"), "give the index of a request, or its file"),
        (folder, "give the index of a request, or its file"),
        (("999999", *folder), "entry 999999 is no request of this clinic"),
    ):
        _, err = shell("clinic", "grant", *more, code=2)
        assert words in err.replace("\n", " "), err
    _, err = shell("clinic", "disclose", "999999", *folder, code=2)
    assert "no grant of this clinic" in err
    _, err = shell("clinic", "refuse", "999999", "--reason", "because", *folder, code=2)
    assert "declined, no-consent, no-such-answer" in err
    held = joint.grant(NONCES[1], joint.exact(HIGH))
    shell("clinic", "revoke-grant", held.index, *folder)
    _, err = shell("clinic", "disclose", held.index, joint.bundle, "--save", path, *folder, code=1)
    assert "consent.revoked" in err
    assert not path.exists()


BLOCKED = ("tenseal", "torch", "crypten", "sklearn", "zksk", "petlib", "fastapi", "starlette", "uvicorn", "matplotlib")


def test_a_recipient_needs_no_library_of_the_nodes(joint: Told, tmp_path: Path) -> None:
    """The command, in a process that has what `pip install .` brings and nothing more."""
    path = joint.show(tmp_path / "shown.sealproof", NONCES[1], joint.exact(HIGH))
    arguments = ["sealproof", "verify", str(path), "--log-key", joint.server.log_key, "--nonce", NONCES[1].hex()]
    program = f"""
import sys
for name in {BLOCKED!r}:
    sys.modules[name] = None
sys.argv = {[*arguments, "--json"]!r}
from api.cli.main import main
try:
    main()
finally:
    assert not any(name.partition(".")[0] in {BLOCKED!r} and module for name, module in sys.modules.items())
"""
    environment = {**os.environ, "SEALPROOF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path.cwd(), env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "risk of record 'p-71' is 0.515625, within 0.015625" in done.stdout
