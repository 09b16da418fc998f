"""A clinic, with server and owner if it likes, shows somebody an answer that the network did not give of that patient.
The statements are those of older releases, which knew no consent (`test_consent_false.py` is about today's).

Each test tells one lie as well as it can be told, signs and logs everything again, and is refused. Where a defence can
be taken out, the lie is shown to pass without it.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from api.client import audit_disclosure
from api.client.audit import verify_bundle
from api.client.joint_prediction import VerifiedJointPrediction
from api.client.shown import VerifiedDisclosure
from api.entries import Disclosure, Reference, sign_entry
from ledger.merkle import leaf_hash
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.mpc import disclosure
from privacy.mpc.answers import AnswerOpening
from privacy.mpc.disclosure import AnswerStatement, disclose_answer
from privacy.mpc.joint_proof import answer_key
from privacy.zk.group import ARKWORKS, ORDER
from privacy.zk.quadratic import prove_range
from tests.support import bundles, disclosures
from tests.support.disclosures import IDS, RECIPIENT, DisclosureStory
from tests.support.joint_bundles import JointStory

TAG = b"sealproof/answer-disclosure/v1\n"


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> DisclosureStory:
    return disclosures.tell(tmp_path_factory.mktemp("disclosures"))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> DisclosureStory:
    """A network with two outputs (and a hidden layer)."""
    return disclosures.tell(tmp_path_factory.mktemp("two-outputs"), "two")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "case.sealproof"


def verify(path: Path, told: DisclosureStory, nonce: bytes | None = RECIPIENT) -> VerifiedDisclosure:
    world = told.story.world
    found = verify_bundle(path, world.verifier, cache=world.cache, recipient_nonce=nonce)
    assert isinstance(found, VerifiedDisclosure)
    return found


def refused(path: Path, told: DisclosureStory, *checks: str, nonce: bytes | None = RECIPIENT) -> None:
    with pytest.raises(VerificationFailed) as caught:
        verify(path, told, nonce)
    assert caught.value.check in checks, caught.value


PROOF = ("quadratic.opening", "quadratic.relation")


# -- what is true -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["open", "exact", "threshold"])
def test_a_true_statement_is_verified_in_words(told: DisclosureStory, path: Path, kind: Any) -> None:
    reached = told.opening(1).z // told.step
    statement = told.statement(1, kind, threshold=reached)
    found = verify(told.disclose(path, statement), told)
    (fact,) = found.facts
    assert (fact.record_id, fact.output_name, fact.handle, fact.patient) == (IDS[1], "y0", statement.handle, 1)
    assert (fact.kind, fact.value, fact.tolerance) == (statement.kind, statement.value, statement.tolerance)
    assert found.checks[-1].name == "disclosure" and "consent" not in [check.name for check in found.checks]
    assert found.consent is None and "No consent is on the ledger" in found.checks[-1].sentence
    exact = Decimal(told.opening(1).z) / 2**statement.scale_bits
    shown = {
        "open": f"y0 of record 'p-71' is {exact} exactly",
        "exact": f"y0 of record 'p-71' is {statement.value / 64}, within 0.015625",
        "threshold": f"y0 of record 'p-71' is at least {reached / 64}",
    }
    assert found.sentence == shown[kind]
    assert "was not given" in verify(path, told, None).checks[-1].sentence
    assert "was not given" not in found.checks[-1].sentence


def test_only_the_verifier_makes_a_verified_disclosure(told: DisclosureStory, path: Path) -> None:
    found = verify(told.disclose(path, told.statement(0)), told)
    with pytest.raises(UsageError, match="made by verify_bundle only"):
        replace(found, made_by=object())


# -- the number -------------------------------------------------------------------------------------------------------


class Careless:
    """A prover that proves what it is asked to, of numbers that it says it has."""

    def __init__(self, statement: AnswerStatement, z: int, rho: int) -> None:
        self.statement, self.z, self.rho = statement, z, rho

    def prove(self, bits: int | None = None) -> bytes:
        """Range proofs of the statement's sides; a side that does not fit is taken mod r, and then mod 2^k."""
        statement = self.statement
        k, key = bits or statement.range_bits, answer_key()
        values = [(self.z - statement.low, self.rho)]
        if statement.kind == "exact":
            values.append((statement.high - 1 - self.z, -self.rho % ORDER))
        parts = []
        for side, (value, rho) in enumerate(values):
            fitted = value % ORDER % (1 << k)
            parts.append(prove_range(disclosure._transcript(statement, side), key, fitted, rho, k).encode(ARKWORKS))
        return b"".join([TAG, *parts])


def test_an_answer_one_unit_beyond_the_tolerance_is_refused(told: DisclosureStory, path: Path) -> None:
    """The grid point that is claimed is as near as it can be without being true: z = hi, and z = lo - 1."""
    for patient in range(5):
        opening, step = told.opening(patient), told.step
        below = opening.z // step
        for value in (below - 1, below + 2):
            statement = told.statement(patient, "exact", value=value)
            assert not statement.low <= opening.z < statement.high
            proof = Careless(statement, opening.z, opening.rho).prove()
            refused(told.disclose(path, statement, proof), told, *PROOF)
        verify(told.disclose(path, told.statement(patient, "exact", value=below + 1)), told)


def test_a_threshold_that_was_just_missed_is_refused(told: DisclosureStory, path: Path) -> None:
    for patient in range(5):
        opening = told.opening(patient)
        missed = opening.z // told.step + 1
        statement = told.statement(patient, "threshold", threshold=missed - 1)
        verify(told.disclose(path, statement), told)
        false = replace(statement, value=missed)
        proof = Careless(false, opening.z, opening.rho).prove()
        refused(told.disclose(path, false, proof), told, *PROOF)


def test_with_an_answer_of_its_own_making_a_clinic_could_claim_anything(
    told: DisclosureStory, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fresh commitment to a better score, disclosed without a flaw. It is not the C_z that was proven."""
    wished, rho = 50 * told.step, 12_345
    answer = ARKWORKS.encode(answer_key().commit([wished], rho))
    statement = told.statement(0, "threshold", threshold=-200, value=50, answer=answer)
    case = told.disclose(path, statement, disclose_answer(statement, AnswerOpening(wished, rho)))
    refused(case, told, "disclosure.answer")
    monkeypatch.setattr(VerifiedJointPrediction, "answer", lambda prediction, patient, output: answer)
    assert "at least 0.78125" in verify(case, told).sentence


def test_a_proof_about_another_answer_is_refused_under_the_right_one(told: DisclosureStory, path: Path) -> None:
    """The wished score's proof, with the true C_z in the statement."""
    for kind in ("exact", "threshold"):
        opening = told.opening(0)
        moved = AnswerOpening(opening.z + 3 * told.step, opening.rho)
        statement = told.statement(0, kind, threshold=-200)  # type: ignore[arg-type]
        false = replace(statement, value=statement.value + 3)
        refused(told.disclose(path, false, Careless(false, moved.z, moved.rho).prove()), told, *PROOF)


def test_an_opening_to_another_number_is_refused(told: DisclosureStory, path: Path) -> None:
    opening = told.opening(2)
    statement = told.statement(2, "open")
    for value in (opening.z + 1, opening.z - 1, -opening.z, 0):
        false = replace(statement, value=value)
        for rho in (opening.rho, (opening.rho + 1) % ORDER):
            proof = TAG + rho.to_bytes(32, "little")
            refused(told.disclose(path, false, proof), told, "disclosure.opening")


# -- ranges -----------------------------------------------------------------------------------------------------------


def test_with_a_k_of_the_provers_choice_a_range_wraps_and_anything_is_reached(
    told: DisclosureStory, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """z - lo is negative, which is a number below 2^255 as well: with bits enough "at least" is always true."""
    opening = told.opening(0)
    missed = opening.z // told.step + 40
    false = replace(told.statement(0, "threshold", threshold=-200), value=missed)
    wrapped = Careless(false, opening.z, opening.rho)
    case = told.disclose(path, false, wrapped.prove(bits=255))
    with pytest.raises(DecodeError, match="expected"):
        verify(case, told)
    refused(told.disclose(path, false, wrapped.prove()), told, *PROOF)
    with monkeypatch.context() as patch:
        patch.setattr(AnswerStatement, "range_bits", property(lambda statement: 255))
        false_case = told.disclose(path, false, wrapped.prove(bits=255))
        assert f"is at least {missed / 64}" in verify(false_case, told).sentence


def test_a_range_of_fewer_bits_is_refused_although_it_is_true(told: DisclosureStory, path: Path) -> None:
    """It would tell more than the statement: how large the answer is at most."""
    statement, opening = told.statement(0, "threshold", threshold=-200), told.opening(0)
    fits = (opening.z - statement.low).bit_length()
    assert fits < statement.range_bits
    for bits in (fits, statement.range_bits - 1, statement.range_bits + 1):
        with pytest.raises(DecodeError, match="expected"):
            verify(told.disclose(path, statement, Careless(statement, opening.z, opening.rho).prove(bits)), told)


def test_a_range_wide_enough_to_wrap_cannot_be_stated(told: DisclosureStory, path: Path) -> None:
    """Values near r, or beyond the bound: no answer is there, and the statement is refused before its proof."""
    statement = told.statement(0, "threshold", threshold=-200)
    proof = told.prove(statement)
    for value in (ORDER // told.step, -ORDER // told.step, told.bound // told.step + 1, -told.bound // told.step - 1):
        refused(told.disclose(path, statement, proof, value=value), told, "disclosure.impossible")
    opened = told.statement(0, "open")
    for value in (opened.value + ORDER, opened.value - ORDER):
        refused(told.disclose(path, opened, told.prove(opened), value=value), told, "disclosure.impossible")
    exact = told.statement(0, "exact")
    for tolerance in (told.bound // told.step + 1, 2**53 - 1):
        refused(told.disclose(path, exact, told.prove(exact), tolerance=tolerance), told, "disclosure.impossible")
    refused(told.disclose(path, exact, told.prove(exact), tolerance=0), told, "disclosure.impossible")


def test_another_scale_would_double_the_answer(
    told: DisclosureStory, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number is right and its unit is not."""
    statement = told.statement(1, "open")
    half = replace(statement, scale_bits=statement.scale_bits - 1)
    case = told.disclose(path, half, told.prove(half))
    refused(case, told, "disclosure.scales")
    for changes in ({"grid_bits": 5}, {"grid_bits": 7}, {"scale_bits": statement.scale_bits + 1}):
        changed = replace(told.statement(1), **changes)
        refused(told.disclose(path, changed, Careless(changed, 0, 0).prove()), told, "disclosure.scales")


# -- whose answer -----------------------------------------------------------------------------------------------------


def test_the_answer_of_another_patient_under_this_ones_name_is_refused(
    told: DisclosureStory, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is patient 1's but the handle that is opened, which is patient 0's."""
    handles = told.handles
    statement = told.statement(1, "exact", handle=handles.handles[0])
    mine = {"record_id": IDS[0], "salt": handles.salts[0], "path": tuple(handles.path(0))}
    case = told.disclose(path, statement, **mine)
    refused(case, told, "inclusion.root")
    monkeypatch.setattr(audit_disclosure, "verify_inclusion", lambda *arguments: None)
    assert "record 'p-40'" in verify(case, told).sentence


def test_the_place_of_another_patient_is_refused(told: DisclosureStory, path: Path) -> None:
    """The handle is this patient's, and so is the answer; the place is not, in either of them or in both."""
    statement = told.statement(1)
    refused(told.disclose(path, statement, told.prove(statement), patient=0), told, "disclosure.answer")
    moved = replace(statement, patient=0)
    proof = disclose_answer(moved, told.opening(1))
    signed = told.sign(told.disclosed(statement, proof, patient=0))
    refused(told.bundle(path, told.log(signed, proof), [signed, proof]), told, "disclosure.answer")
    for patient, output in ((5, 0), (2**53 - 1, 0), (1, 1), (1, 7)):
        case = told.disclose(path, statement, told.prove(statement), patient=patient, output=output)
        refused(case, told, "disclosure.place")


@pytest.mark.parametrize(
    "changes",
    [
        {"record_id": "p-72"},
        {"record_id": "p-71 "},
        {"salt": bytes(16)},
        {"path": ()},
        {"path": (bytes(32),) * 3},
        {"path": (bytes(32),) * 60},
    ],
)
def test_a_record_that_was_not_committed_is_refused(told: DisclosureStory, path: Path, changes: dict[str, Any]) -> None:
    """Another id, another salt, another way up the tree: the handles were fixed with the records."""
    honest = told.disclosed(told.statement(1), b"proof")
    handle = replace(honest, **changes).handle
    with pytest.raises(VerificationFailed) as caught:
        verify(told.disclose(path, told.statement(1, handle=handle), **changes), told)
    assert caught.value.check.startswith("inclusion."), caught.value


def test_a_handle_that_the_statement_does_not_open_is_refused(told: DisclosureStory, path: Path) -> None:
    """The proof is about one handle, what is signed opens another: the verifier derives it from salt and id."""
    statement = told.statement(1, "exact", handle=told.handles.handles[0])
    refused(told.disclose(path, statement), told, *PROOF)


def test_the_answer_of_another_output_is_refused(two: DisclosureStory, path: Path) -> None:
    """y1 is shown as y0: with its own commitment, and with that of y0."""
    verify(two.disclose(path, two.statement(1, output=1)), two)
    statement = two.statement(1, output=1)
    refused(two.disclose(path, statement, two.prove(statement), output=0), two, "disclosure.answer")
    as_first = replace(statement, output=0)
    proof = disclose_answer(as_first, two.opening(1, 1))
    refused(two.disclose(path, as_first, proof), two, "disclosure.answer")
    named = replace(as_first, answer=two.answer(1, 0))
    refused(two.disclose(path, named, proof), two, *PROOF)


def test_an_answer_of_another_prediction_is_refused(told: DisclosureStory, path: Path) -> None:
    """The same records, the same network, another session: its commitments are others, and so is its entry."""
    other = disclosures.second_prediction(told)
    statement = other.statement(1)
    proof = other.prove(statement)
    # All of it is about the other prediction, in the bundle of this one.
    signed = other.sign(other.disclosed(statement, proof))
    refused(told.bundle(path, other.log(signed, proof), [signed, proof]), told, "disclosure.prediction")
    # The entry is about this one, what is signed about the other.
    refused(told.bundle(path, told.log(signed, proof), [signed, proof]), told, "disclosure.prediction")
    # What is signed names this one, the answer is the other's.
    renamed = replace(statement, prediction_id=told.prediction.reference.leaf)
    proof = disclose_answer(renamed, other.opening(1))
    signed = told.sign(told.disclosed(renamed, proof))
    refused(told.bundle(path, told.log(signed, proof), [signed, proof]), told, "disclosure.answer")
    # The proof is the other's, everything else is this one's.
    about_other = replace(told.statement(1), prediction_id=other.prediction.reference.leaf)
    proof = disclose_answer(about_other, told.opening(1))
    refused(told.disclose(path, told.statement(1), proof), told, *PROOF)


# -- to whom, by whom, and when ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["open", "exact", "threshold"])
def test_what_was_shown_to_one_recipient_is_nothing_to_another(told: DisclosureStory, path: Path, kind: Any) -> None:
    case = told.disclose(path, told.statement(1, kind, threshold=-200))
    verify(case, told)
    refused(case, told, "disclosure.nonce", nonce=bytes(32))


@pytest.mark.parametrize("kind", ["exact", "threshold"])
def test_a_recipient_cannot_be_told_with_the_proof_of_another(told: DisclosureStory, path: Path, kind: Any) -> None:
    """The clinic signs the new nonce under the old proof, which is bound to the old one."""
    statement = told.statement(1, kind, threshold=-200)
    proof = told.prove(replace(statement, recipient_nonce=bytes(32)))
    refused(told.disclose(path, statement, proof), told, *PROOF)


def test_a_recipient_cannot_pass_a_disclosure_on_as_its_own(told: DisclosureStory, path: Path) -> None:
    """Without the clinic's key the nonce cannot be exchanged, whoever holds server and log."""
    statement = told.statement(1)
    proof = told.prove(statement)
    for author in (told.story.server, told.story.owner):
        signed = told.sign(told.disclosed(statement, proof), author)
        refused(told.bundle(path, told.log(signed, proof), [signed, proof]), told, "attestation.signature")


def test_a_disclosure_that_another_clinic_logged_is_refused(told: DisclosureStory, path: Path) -> None:
    """A true statement, signed by the right clinic; only its entry is not: then the ledger counts it elsewhere."""
    world = told.story.world
    stranger = world.register("clinic", f"st-bruno-{world.log.size}")
    statement = told.statement(1)
    proof = told.prove(statement)
    signed = told.sign(told.disclosed(statement, proof))
    entry = told.log(signed, proof, stranger)
    refused(told.bundle(path, entry, [signed, proof]), told, "disclosure.author")
    case = told.bundle(path, entry, [signed, proof], parties=[stranger])
    refused(case, told, "disclosure.author", "bundle.stray")
    for author in (told.story.server, told.story.owner):
        refused(told.bundle(path, told.log(signed, proof, author), [signed, proof]), told, "disclosure.author")


def test_an_entry_that_the_clinic_did_not_sign_is_refused(told: DisclosureStory, path: Path) -> None:
    """The log's operator writes an entry in the clinic's name."""
    statement, story = told.statement(1), told.story
    proof = told.prove(statement)
    signed = told.sign(told.disclosed(statement, proof))
    body = Disclosure(told.prediction.reference, sha256(signed).digest(), sha256(proof).digest())
    data = sign_entry(body, story.clinic.reference, story.server.private_key)
    index = story.world.log.append(data).index
    entry = replace(told.log(signed, proof), reference=Reference.to(index, data))
    refused(told.bundle(path, entry, [signed, proof]), told, "entry.signature")


def test_a_disclosure_that_is_older_than_its_prediction_is_refused(told: DisclosureStory, path: Path) -> None:
    """Clinic and server know the prediction's entry before it is logged, and log what is shown of it first."""
    story = told.story
    world, predicted = story.world, story.predict(session=sha256(b"late").digest())
    data = sign_entry(predicted.body, story.server.reference, story.server.private_key)
    reference = Reference(world.log.size + 1, leaf_hash(data))
    late = replace(told, story=replace(story, predicted=predicted))
    late.prediction = replace(told.prediction, reference=reference, body=predicted.body)
    statement = late.statement(1)
    proof = late.prove(statement)
    made = late.disclosed(statement, proof, prediction=disclosures.LedgerReference.to(reference.index, data))
    signed = late.sign(made)
    entry = late.log(signed, proof)
    assert world.log.append(data).index == reference.index
    late.envelope = late.story.attest(late.prediction)
    refused(late.bundle(path, entry, [signed, proof]), late, "ledger.order")


# -- statement, entry and proof belong together -----------------------------------------------------------------------


def test_an_entry_names_the_statement_and_the_proof_that_are_shown(told: DisclosureStory, path: Path) -> None:
    statement, other = told.statement(1), told.statement(2)
    proof, other_proof = told.prove(statement), told.prove(other)
    signed = told.sign(told.disclosed(statement, proof))
    other_signed = told.sign(told.disclosed(other, other_proof))
    # The entry is about another statement or proof than those in the file.
    with pytest.raises((VerificationFailed, DecodeError)):
        verify(told.bundle(path, told.log(other_signed, other_proof), [signed, proof]), told)
    # What is signed names another proof than the entry.
    entry = told.log(signed, other_proof)
    refused(told.bundle(path, entry, [signed, other_proof]), told, "disclosure.proof")
    entry = told.log(other_signed, proof)
    refused(told.bundle(path, entry, [other_signed, proof]), told, "disclosure.proof")
    size = disclosures.Disclosed.proof_reference(proof + b"\0")
    wrong = told.sign(told.disclosed(statement, proof, proof=replace(size, digest=sha256(proof).digest())))
    refused(told.bundle(path, told.log(wrong, proof), [wrong, proof]), told, "disclosure.proof")


def test_a_statement_that_cannot_be_read_is_refused(told: DisclosureStory, path: Path) -> None:
    proof = told.prove(told.statement(1))
    for garbage in (b"{}", b"garbage", told.envelope):
        entry = told.log(garbage, proof)
        with pytest.raises((VerificationFailed, DecodeError)):
            verify(told.bundle(path, entry, [garbage, proof]), told)


def test_a_bundle_shows_one_disclosure_and_nothing_beside_it(told: DisclosureStory, path: Path) -> None:
    statement, other = told.statement(1), told.statement(2)
    proof, other_proof = told.prove(statement), told.prove(other)
    signed, other_signed = (
        told.sign(told.disclosed(one, its)) for one, its in ((statement, proof), (other, other_proof))
    )
    entry, more = told.log(signed, proof), told.log(other_signed, other_proof)
    both = told.bundle(path, entry, [signed, proof, other_signed, other_proof], more=[more.reference.index])
    refused(both, told, "entry.disclosure")
    refused(told.bundle(path, entry, [signed, proof, other_signed]), told, "bundle.stray")
    with pytest.raises((VerificationFailed, DecodeError)):
        verify(told.bundle(path, entry, [signed]), told)


def test_a_prediction_alone_is_no_disclosure(told: DisclosureStory, path: Path) -> None:
    """All blobs of one are there, and its entry is not."""
    statement = told.statement(1)
    proof = told.prove(statement)
    signed = told.sign(told.disclosed(statement, proof))
    blobs = [*told.story.blobs, signed, proof]
    with pytest.raises(VerificationFailed, match=r"bundle\.stray"):
        verify_bundle(told.story.bundle(path, told.prediction, told.envelope, blobs), told.story.world.verifier)


def test_answers_under_encryption_are_not_shown_without_a_grant(story: bundles.Story, path: Path) -> None:
    """Raw decryptions must not be shown (IND-CPA-D), and older releases proved no statement about them."""
    prediction = story.log()
    body = Disclosure(prediction.reference, bytes(32), bytes(32))
    entry = story.world.append(story.clinic, body)
    named = [prediction.reference, story.records.entry.reference, story.model.reference, story.key.reference]
    indices = {reference.index for reference in (*named, entry.reference)}
    indices |= {actor.reference.index for actor in story.parties}
    case = story.bundle(path, prediction, indices=indices)
    with pytest.raises(VerificationFailed) as caught:
        verify_bundle(case, story.world.verifier, cache=story.world.cache)
    assert caught.value.check == "bundle.missing-blob"


def test_a_nonce_is_refused_where_nothing_is_disclosed(joint_story: JointStory, joint_bundle: Path) -> None:
    """A plain prediction is no answer to a recipient's question, however true it is."""
    with pytest.raises(VerificationFailed) as caught:
        verify_bundle(joint_bundle, joint_story.world.verifier, recipient_nonce=RECIPIENT)
    assert caught.value.check == "disclosure.missing"
