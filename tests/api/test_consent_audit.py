"""Disclosures under a grant, of both schemes: what the auditor accepts, and what it says of it."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from api.cli.main import main
from api.client import disclosure_statements
from api.client.disclosure_statements import result_digests
from api.client.joint_prediction import VerifiedJointPrediction
from api.client.prediction import VerifiedPrediction
from api.client.shown import ShownFact
from api.client.trust import parse_trust
from api.consent import Scope
from ledger.cosignature import Cosigner, with_cosignatures
from ledger.note import Note
from privacy.canonical_json import parse_timestamp
from privacy.ckks.packing import Packing
from privacy.errors import UsageError, VerificationFailed
from privacy.zk.group import REFERENCE
from tests.support import shown
from tests.support.bundles import PARAMS, model_material
from tests.support.disclosures import IDS
from tests.support.shown import NONCE, PURPOSE, TWO, UNTIL, EncryptedStory, JointlyStory, ShownStory, question_of

END = int(parse_timestamp(UNTIL).timestamp())


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> EncryptedStory:
    return shown.tell_encrypted(tmp_path_factory.mktemp("encrypted"))


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> JointlyStory:
    return shown.tell_joint(tmp_path_factory.mktemp("joint"))


@pytest.fixture(scope="module")
def softmax(tmp_path_factory: pytest.TempPathFactory) -> EncryptedStory:
    return shown.tell_encrypted(tmp_path_factory.mktemp("softmax"), model_material(TWO, link="softmax"))


@pytest.fixture(params=["ckks", "mpc"])
def told(request: pytest.FixtureRequest, encrypted: EncryptedStory, joint: JointlyStory) -> ShownStory:
    return encrypted if request.param == "ckks" else joint


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "case.sealproof"


# -- what is accepted -------------------------------------------------------------------------------------------------


def test_one_answer_is_shown_to_who_asked(told: ShownStory, path: Path) -> None:
    found = told.verify(told.disclose(path, told.answer(1)), ledger=told.world)
    names = [check.name for check in found.checks]
    assert names[6:8] == ["head", "consent"] and names[-1] == "disclosure"
    assert isinstance(found.prediction, VerifiedPrediction if told.scheme == "ckks" else VerifiedJointPrediction)
    (fact,) = found.facts
    reached = told.raw(1) // told.step
    assert (fact.record_id, fact.handle, fact.patient, fact.output) == (IDS[1], told.handles.handles[1], 1, 0)
    assert (fact.kind, fact.value, fact.error) == ("threshold", reached, told.error)
    assert fact.low == Fraction(reached, 1 << told.grid_bits) and fact.high is None
    assert found.sentence == fact.sentence == f"y0 of record 'p-71' is at least {reached / 64}"
    assert found.clinic.name == "st-anna" and found.recipient_nonce == NONCE
    assert found.consent is not None and found.consent.consumer is not None and found.consent.request is not None
    assert found.consent.consumer.name == "insurer" and found.consent.document.purpose == PURPOSE
    assert found.consent.request.reference.index < found.consent.grant.reference.index < found.entry.reference.index
    assert found.consent.revoked_since == ()
    assert "'insurer', who had asked" in found.checks[7].sentence


def test_many_answers_are_shown_in_one_proof(told: ShownStory, path: Path) -> None:
    answers = [told.answer(patient) for patient in range(5)] + [told.answer(2, "exact", tolerance=3)]
    found = told.verify(told.disclose(path, *answers))
    assert [fact.record_id for fact in found.facts] == [*IDS, IDS[2]]
    assert all(
        fact.low - told.error <= Fraction(told.raw(fact.patient), 1 << told.scale_bits) <= (fact.high or math.inf)
        for fact in found.facts
    )
    assert found.facts[5].high == found.facts[5].low + Fraction(6, 64)


def test_less_than_was_asked_may_be_granted_and_less_than_was_granted_shown(told: ShownStory, path: Path) -> None:
    answers = [told.answer(patient) for patient in range(3)]
    questions = [question_of(answer) for answer in answers]
    told.verify(told.disclose(path, answers[0], questions=questions, granted=questions[:2]))


def test_a_grant_that_nobody_asked_for_is_for_whoever_gave_the_nonce(told: ShownStory, path: Path) -> None:
    found = told.verify(told.disclose(path, told.answer(1), asked=False))
    assert found.consent is not None
    assert (found.consent.request, found.consent.consumer) == (None, None)
    assert "whoever gave it the nonce" in found.checks[7].sentence


def test_a_scope_is_a_prediction_or_a_model_with_or_without_records(told: ShownStory, path: Path) -> None:
    body = told.prediction.body
    for scope in (Scope(None, body.model, None), Scope(None, body.model, body.records)):
        told.verify(told.disclose(path, told.answer(1), request={"scope": scope}))


def test_an_open_answer_is_shown_of_a_commitment_only(
    joint: JointlyStory, encrypted: EncryptedStory, path: Path
) -> None:
    (fact,) = joint.verify(joint.disclose(path, joint.answer(2, "open"))).facts
    assert fact.low == fact.high == Fraction(joint.raw(2), 1 << joint.scale_bits)
    whole = encrypted.answer(2, "open")
    case = encrypted.disclose(path, whole, proven=[encrypted.answer(2, "exact")])
    with pytest.raises(VerificationFailed, match=r"disclosure\.impossible"):
        encrypted.verify(case)


def test_columns_and_rows_have_the_same_handles(tmp_path: Path, path: Path) -> None:
    """Positions differ, the index of a handle does not."""
    told = shown.tell_encrypted(tmp_path, packing=Packing.COLUMNS)
    answers = [told.answer(patient, "exact") for patient in range(5)]
    found = told.verify(told.disclose(path, *answers))
    assert [fact.record_id for fact in found.facts] == list(IDS)
    assert [answer.position for answer in told.statement(answers, bytes(32)).answers] == [0, 1, 2, 3, 4]


def test_the_place_of_an_answer_follows_from_the_patients_number() -> None:
    """Blocks are divided over proofs; within one, results go block by block and output by output."""
    count, size = 3000, PARAMS.N // 3
    proofs = [
        SimpleNamespace(first_block=0, blocks=2, outputs=(0, 1), results=tuple(b"%d" % i for i in range(4))),
        SimpleNamespace(first_block=2, blocks=1, outputs=(0, 1), results=(b"last 0", b"last 1")),
    ]
    places = [3 * k + 2 for k in range(size)]
    statements = [
        SimpleNamespace(params=PARAMS, packing=Packing.ROWS, d=3, count=n, positions=places[:n])
        for n in (size, count - 2 * size)
    ]
    prediction: Any = SimpleNamespace(
        prediction=SimpleNamespace(body=SimpleNamespace(proofs=proofs)), statements=statements
    )
    for patient, output, expected in (
        (0, 0, (b"0", 2)),
        (size - 1, 1, (b"1", 3 * size - 1)),
        (size, 0, (b"2", 2)),
        (2 * size - 1, 1, (b"3", 3 * size - 1)),
        (2 * size, 0, (b"last 0", 2)),
        (count - 1, 1, (b"last 1", 3 * (count - 1 - 2 * size) + 2)),
    ):
        assert result_digests(prediction, patient, output) == expected
    for patient, output in ((count, 0), (3 * size, 0), (0, 2)):
        with pytest.raises(VerificationFailed, match=r"disclosure\.place"):
            result_digests(prediction, patient, output)


def test_the_second_implementation_of_the_group_agrees(joint: JointlyStory, path: Path) -> None:
    case = joint.disclose(path, joint.answer(1))
    with_own_cache = joint.verify(case, group=REFERENCE)
    assert with_own_cache.facts == joint.verify(case).facts


# -- differences ------------------------------------------------------------------------------------------------------


def test_a_softmax_is_shown_as_a_difference_of_two_logits(softmax: EncryptedStory, path: Path) -> None:
    told = softmax
    answers = [told.answer(1, output=0, versus=1), told.answer(1, "exact", output=1, versus=0)]
    found = told.verify(told.disclose(path, *answers))
    least, exact = found.facts
    difference = told.raw(1, 0) - told.raw(1, 1)
    assert least.sentence == f"y0 minus y1 of record 'p-71' is at least {(difference // told.step) / 64}"
    assert least.error == 2 * told.error and least.probability is None
    times = math.exp(float(least.low - least.error))
    assert least.meaning is not None and f"at least {math.floor(times * 10_000) / 10_000:.4f} times" in least.meaning
    assert exact.output_name == "y1" and exact.versus_name == "y0"
    assert abs(exact.value + Fraction(difference, told.step)) <= 1


def test_one_output_of_a_softmax_alone_is_not_shown(softmax: EncryptedStory, path: Path) -> None:
    alone = softmax.answer(1, output=0)
    case = softmax.disclose(path, alone, proven=[softmax.answer(1, output=0, versus=1)])
    with pytest.raises(VerificationFailed, match=r"disclosure\.softmax"):
        softmax.verify(case)


def test_a_difference_of_committed_answers_is_shown(tmp_path: Path, path: Path) -> None:
    told = shown.tell_joint(tmp_path, "two")
    answers = [told.answer(3, output=1, versus=0), told.answer(2, "open", output=0, versus=1)]
    least, whole = told.verify(told.disclose(path, *answers)).facts
    assert least.value == (told.raw(3, 1) - told.raw(3, 0)) // told.step
    assert whole.value == told.raw(2, 0) - told.raw(2, 1) and whole.error == 0


def test_a_difference_that_could_wrap_is_refused(
    softmax: EncryptedStory, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = softmax.disclose(path, softmax.answer(1, output=0, versus=1))
    monkeypatch.setattr(disclosure_statements, "answer_bound", lambda *arguments: PARAMS.Q // 4)
    softmax.verify(case)
    monkeypatch.setattr(disclosure_statements, "answer_bound", lambda *arguments: PARAMS.Q // 4 + 1)
    with pytest.raises(VerificationFailed, match=r"disclosure\.overflow"):
        softmax.verify(case)


# -- revocations and dates --------------------------------------------------------------------------------------------


def test_a_revocation_after_the_disclosure_is_told(told: ShownStory, path: Path) -> None:
    parts = told.parts(told.answer(1))
    assert parts.request is not None
    for target, author in ((parts.grant.reference, told.clinic), (parts.request.reference, told.consumer)):
        told.revoke(target, author)
    case = told.bundle(path, parts)
    found = told.verify(case, ledger=told.world)
    assert found.consent is not None
    assert found.consent.revoked_since == (parts.grant.reference, parts.request.reference)
    assert found.prediction.revoked_since == ()
    unasked = told.verify(case)
    assert unasked.consent is not None and unasked.consent.revoked_since == ()
    assert "not looked up" in unasked.checks[7].sentence


class Archive:
    """What a server has of a log with witnesses."""

    def __init__(self, told: ShownStory) -> None:
        self._world = told.world
        self.notes: list[bytes] = []

    def checkpoint(self) -> bytes:
        return self._world.log.published().note

    def publications(self, start: int, limit: int) -> list[bytes]:
        return self.notes[:limit]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)


class Dated:
    """A story whose heads witnesses cosign."""

    def __init__(self, told: ShownStory) -> None:
        self.told, self.archive = told, Archive(told)
        self.witnesses = [Cosigner.generate(f"hospital-{i}.example/w") for i in range(2)]
        lines = [f"log {told.world.verifier}"]
        lines += [f"witness w{i} {w.verifier}" for i, w in enumerate(self.witnesses)]
        (self.trusted,) = parse_trust("\n".join([*lines, "group two 2 w0 w1", "quorum two", ""]))

    def cosign(self, time: int) -> None:
        note = self.told.world.log.checkpoint()
        text = Note.parse(note).text.encode()
        cosigned = with_cosignatures(note, [witness.cosign(text, time) for witness in self.witnesses])
        self.archive.notes.append(self.told.world.log.publish(cosigned).note)


def test_witnesses_show_that_a_disclosure_was_made_in_time(tmp_path: Path, path: Path) -> None:
    dated = Dated(shown.tell_joint(tmp_path))
    parts = dated.told.parts(dated.told.answer(1))
    dated.cosign(END - 5)
    found = dated.told.verify(dated.told.bundle(path, parts), trust=dated.trusted)
    assert "Witnesses had seen it" in found.checks[7].sentence and "end of the consent" in found.checks[7].sentence
    # A bundle that was fetched later has a later head; an older one shows it.
    dated.told.world.register("owner", "later")
    dated.cosign(END + 500)
    case = dated.told.bundle(path, parts)
    assert "the clinic's word" in dated.told.verify(case, trust=dated.trusted).checks[7].sentence
    found = dated.told.verify(case, trust=dated.trusted, ledger=dated.archive)
    assert "Witnesses had seen it" in found.checks[7].sentence


def test_a_clinic_cannot_date_a_disclosure_back(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that it was made in time. No witness saw a head with it before the consent ended."""
    dated = Dated(shown.tell_joint(tmp_path))
    parts = dated.told.parts(dated.told.answer(1), before_entry=lambda grant: dated.cosign(END - 5))
    dated.cosign(END + 100)
    case = dated.told.bundle(path, parts)
    with pytest.raises(VerificationFailed, match=r"consent\.expired.*witnesses saw it first") as caught:
        dated.told.verify(case, trust=dated.trusted, ledger=dated.archive)
    assert caught.value.check == "consent.expired"
    monkeypatch.setattr("api.client.audit_consent.check_in_time", lambda *arguments: "")
    dated.told.verify(case, trust=dated.trusted, ledger=dated.archive)


# -- words ------------------------------------------------------------------------------------------------------------

FACT = ShownFact("p7", bytes(32), 0, 0, None, "malignant", "threshold", 55, 0, 58, 6, "logit", Fraction(0))


def test_facts_in_words() -> None:
    assert FACT.sentence == "malignant of record 'p7' is at least 0.859375"
    assert FACT.probability == "of at least 0.7025"
    assert FACT.meaning == "which are log-odds: a probability of at least 0.7025"
    exact = replace(FACT, kind="exact", tolerance=2)
    assert exact.sentence.endswith("is 0.859375, within 0.03125") and exact.probability == "of about 0.7025"
    assert (exact.low, exact.high) == (Fraction(53, 64), Fraction(57, 64))
    whole = replace(FACT, kind="open", value=-(1 << 58) - 1)
    assert whole.sentence.endswith(f"is -1.{5**58:058d} exactly")
    assert replace(FACT, link="margin").probability is replace(FACT, link="identity").meaning is None


def test_an_encrypted_threshold_is_read_as_what_the_committed_model_reaches() -> None:
    """The decryption reaches 0.5, the committed model's own answer 0.5 less its error."""
    half = replace(FACT, value=0, error=Fraction(1, 4096))
    assert half.probability == "of at least 0.4999"
    assert replace(half, kind="exact", tolerance=1).probability == "of about 0.5000"


def test_large_differences_are_still_words() -> None:
    far = replace(FACT, link="softmax", versus=1, versus_name="benign", value=1 << 20)
    assert far.meaning is not None and "times as likely as benign" in far.meaning
    assert replace(far, value=-(1 << 20)).meaning is not None


def test_only_the_verifier_makes_one(joint: JointlyStory, path: Path) -> None:
    found = joint.verify(joint.disclose(path, joint.answer(0)))
    with pytest.raises(UsageError, match="made by verify_bundle only"):
        replace(found, made_by=object())


def run(patch: pytest.MonkeyPatch, *arguments: str) -> str:
    out = io.StringIO()
    with patch.context() as during:
        during.setattr("sys.argv", ["sealproof", "verify", *arguments])
        during.setattr("sys.stdout", out)
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 0, out.getvalue()
    return out.getvalue()


def test_the_command_tells_answers_and_consent(
    told: ShownStory, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = told.disclose(path, told.answer(1), told.answer(2, "exact"))
    monkeypatch.setenv("SEALPROOF_HOME", str(tmp_path / "home"))
    key = tmp_path / "log.vkey"
    key.write_text(f"{told.world.verifier}\n")
    given = [str(case), "--log-key", str(key), "--nonce", NONCE.hex()]
    text = run(monkeypatch, *given)
    for said in (
        f"DISCLOSED by st-anna: y0 of record 'p-71' is at least {told.raw(1) // told.step / 64}",
        "which are log-odds: a probability of at least 0.",
        f"for '{PURPOSE}', to insurer, who asked in entry",
    ):
        assert said in text
    found = json.loads(run(monkeypatch, *given, "--json"))["disclosure"]
    assert [fact["record"] for fact in found["facts"]] == ["p-71", "p-55"]
    assert found["facts"][0]["error"] == ("0" if told.scheme == "mpc" else "0.00017")
    consent = found["consent"]
    assert (consent["consumer"], consent["purpose"], consent["until"]) == ("insurer", PURPOSE, UNTIL)
    assert consent["request"] < consent["grant"] < found["entry"]
    unasked = told.disclose(path, told.answer(3), asked=False)
    text = run(monkeypatch, *given)
    assert "to whoever gave the clinic this nonce" in text and unasked == case
