"""The last step of the audit of a disclosure: answers of a verified prediction, shown to one recipient.

All steps of the prediction come first, and with a grant the one about consent (`audit_consent.py`); then

12 disclosure  signed by the clinic of the records, younger than the prediction, about these very answers and records,
               for this recipient and under this grant; its proof holds
"""

from __future__ import annotations

import hashlib
from fractions import Fraction

from api.client.audit_consent import ConsentAudit
from api.client.audit_evidence import Evidence
from api.client.disclosure_statements import encrypted_statement, joint_statements, result_digests
from api.client.joint_prediction import VerifiedJointPrediction
from api.client.prediction import VERIFIED, VerifiedPrediction, rounded_up
from api.client.shown import ShownFact, VerifiedDisclosure
from api.entries import Party
from ledger import verify_inclusion
from ledger.merkle import leaf_hash
from privacy.attestation_disclosure import Disclosed
from privacy.attestation_parts import LedgerReference
from privacy.attestation_shown import Shown, ShownAnswer
from privacy.ckks.canonical import ResultCiphertext, decode_result
from privacy.ckks.disclosure import verify_disclosure
from privacy.errors import VerificationFailed
from privacy.mpc.disclosure import AnswerStatement, verify_answer, verify_answers

__all__ = ["DisclosureAudit", "VerifiedDisclosure"]

AnyPrediction = VerifiedPrediction | VerifiedJointPrediction


class DisclosureAudit:
    """Step 12, after `consent` was through its own steps."""

    def __init__(self, evidence: Evidence, consent: ConsentAudit, recipient_nonce: bytes | None) -> None:
        self._evidence = evidence
        self._consent = consent
        self._nonce = recipient_nonce

    def run(self, prediction: AnyPrediction, clinic: Party) -> VerifiedDisclosure:
        """The step itself; `clinic` wrote the prediction's records."""
        self._evidence.step("disclosure", lambda: self._check(prediction))
        found = self._consent.statement
        return VerifiedDisclosure(
            prediction,
            clinic,
            self._consent.entry,
            self._facts,
            found.recipient_nonce,
            found.issued_at,
            self._consent.consent,
            tuple(self._evidence.checks),
            VERIFIED,
        )

    # 12 disclosure: by the clinic, of these answers and records, for this recipient; its proof holds.
    def _check(self, prediction: AnyPrediction) -> str:
        entry, found = self._consent.entry, self._consent.statement
        if entry.body.prediction != prediction.prediction.reference:
            raise VerificationFailed("disclosure.prediction", "it is about another prediction than the bundle")
        index = prediction.prediction.reference.index
        if not index < entry.reference.index:
            raise VerificationFailed("ledger.order", "the disclosure is older than its prediction")
        if found.prediction != LedgerReference.to(index, self._evidence.entry_bytes[index]):
            raise VerificationFailed("disclosure.prediction", "the clinic's statement is about another prediction")
        if self._nonce is not None and found.recipient_nonce != self._nonce:
            raise VerificationFailed("disclosure.nonce", "this was made for another recipient, or another question")
        if found.scheme != ("ckks" if isinstance(prediction, VerifiedPrediction) else "mpc"):
            raise VerificationFailed("disclosure.scheme", "the prediction was made by the other scheme")
        if (found.scale_bits, found.grid_bits) != (_scale_bits(prediction), prediction.model.body.grid_bits):
            raise VerificationFailed("disclosure.scales", "scale or grid are not those of the model")
        if isinstance(found, Shown):
            self._facts = self._check_shown(prediction, found)
        else:
            self._facts = (self._check_disclosed(prediction, found),)
        says = "; ".join(fact.sentence for fact in self._facts) + "."
        error = max(fact.error for fact in self._facts)
        if error:
            says += f" The committed model's own answers are within {rounded_up(error)} of that."
        if self._consent.grant is None:
            says += " No consent is on the ledger for this."
        if self._nonce is None:
            says += " Whether it was made for you shows its nonce, which was not given."
        return says

    def _check_shown(self, prediction: AnyPrediction, found: Shown) -> tuple[ShownFact, ...]:
        """Today's format: of answers of either scheme, under a grant that the proof binds."""
        grant = self._consent.grant
        if grant is None:
            raise VerificationFailed("disclosure.grant", "it was made under no grant")
        index = grant.reference.index
        if found.grant != LedgerReference.to(index, self._evidence.entry_bytes[index]):
            raise VerificationFailed("disclosure.grant", "the clinic's statement names another grant than its entry")
        grant_id, nonce, group = grant.reference.leaf, found.recipient_nonce, self._evidence.group
        for answer in found.answers:
            _check_answer(prediction, answer)
        proof = self._proof(found)
        if isinstance(prediction, VerifiedPrediction):
            statement = encrypted_statement(prediction, grant_id, nonce, found.answers)

            def result(digest: bytes) -> ResultCiphertext:
                return decode_result(statement.params, self._evidence.reader.blob(digest))

            verify_disclosure(statement, proof, result, group)
        else:
            verify_answers(joint_statements(prediction, grant_id, nonce, found.answers), proof, group)
        return tuple(_fact(prediction, answer) for answer in found.answers)

    def _check_disclosed(self, prediction: AnyPrediction, found: Disclosed) -> ShownFact:
        """The format of older releases: one committed answer, without consent."""
        if not isinstance(prediction, VerifiedJointPrediction):
            raise VerificationFailed("disclosure.scheme", "statements of this format are about committed answers")
        if not (found.patient < prediction.count and found.output < len(prediction.output_names)):
            raise VerificationFailed("disclosure.place", "the prediction has no such patient or output")
        if found.answer != prediction.answer(found.patient, found.output):
            raise VerificationFailed("disclosure.answer", "the commitment is not the one of this patient and output")
        _check_handle(prediction, found)
        statement = AnswerStatement(
            prediction_id=prediction.prediction.reference.leaf,
            handle=found.handle,
            patient=found.patient,
            output=found.output,
            answer=found.answer,
            scale_bits=found.scale_bits,
            grid_bits=found.grid_bits,
            bound=prediction.z_bound(found.output),
            kind=found.kind,
            value=found.value,
            tolerance=found.tolerance,
            recipient_nonce=found.recipient_nonce,
        )
        verify_answer(statement, self._proof(found), self._evidence.group)
        result = hashlib.sha256(found.answer).digest()
        return _fact(
            prediction,
            ShownAnswer(
                found.patient,
                found.output,
                None,
                found.kind,
                found.value,
                found.tolerance,
                result,
                found.record_id,
                found.salt,
                found.path,
            ),
        )

    def _proof(self, found: Shown | Disclosed) -> bytes:
        digest = self._consent.entry.body.proof
        if not self._evidence.reader.has(digest):
            raise VerificationFailed("bundle.missing-blob", f"proof {digest.hex()} is not in the bundle")
        proof = self._evidence.reader.blob(digest)
        if (found.proof.digest, found.proof.size) != (digest, len(proof)):
            raise VerificationFailed("disclosure.proof", "the clinic's statement names another proof than its entry")
        return proof


def _check_answer(prediction: AnyPrediction, answer: ShownAnswer) -> None:
    """What is opened is the answer of this place, and the handle that of the record there."""
    if not (answer.patient < prediction.count and answer.output < len(prediction.output_names)):
        raise VerificationFailed("disclosure.place", "the prediction has no such patient or output")
    if isinstance(prediction, VerifiedPrediction):
        result, _ = result_digests(prediction, answer.patient, answer.output)
    else:
        result = hashlib.sha256(prediction.answer(answer.patient, answer.output)).digest()
    if answer.result != result:
        raise VerificationFailed("disclosure.answer", "what is opened is not the answer of this patient and output")
    _check_handle(prediction, answer)


def _check_handle(prediction: AnyPrediction, said: ShownAnswer | Disclosed) -> None:
    """The index of a handle is the patient's number, from which its position follows in both packings."""
    records = prediction.records.body
    verify_inclusion(leaf_hash(said.handle), said.patient, records.count, said.path, records.handles)


def _link(prediction: AnyPrediction, output: int) -> str:
    if isinstance(prediction, VerifiedPrediction):
        return prediction.model.body.outputs[output].link
    return prediction.model.body.link


def _scale_bits(prediction: AnyPrediction) -> int:
    if isinstance(prediction, VerifiedPrediction):
        return prediction.prediction.body.error_bound.scale_bits
    return prediction.answer_scale_bits


def _fact(prediction: AnyPrediction, answer: ShownAnswer) -> ShownFact:
    """What was shown, now that its proof holds."""
    error = prediction.evaluation_error if isinstance(prediction, VerifiedPrediction) else Fraction(0)
    names = prediction.output_names
    return ShownFact(
        record_id=answer.record_id,
        handle=answer.handle,
        patient=answer.patient,
        output=answer.output,
        versus=answer.versus,
        output_name=names[answer.output],
        kind=answer.kind,
        value=answer.value,
        tolerance=answer.tolerance,
        scale_bits=_scale_bits(prediction),
        grid_bits=prediction.model.body.grid_bits,
        link=_link(prediction, answer.output),
        error=error if answer.versus is None else 2 * error,
        versus_name=None if answer.versus is None else names[answer.versus],
    )
