"""The last step of the audit of a disclosure: one committed answer of a verified prediction, shown to one recipient.

A bundle of a disclosure is that of its prediction with one entry and two blobs more: the clinic's disclosure entry, the
statement that it signed, and the proof. All steps of the prediction come first; then

11 disclosure  logged and signed by the clinic of the records, younger than the prediction, about this very answer and
               record, for this recipient's nonce; its proof holds
"""

from __future__ import annotations

import math
from dataclasses import InitVar, dataclass

from api.binding import Located
from api.client.audit_base import Evidence
from api.client.joint_prediction import VerifiedJointPrediction
from api.client.prediction import VERIFIED, Check
from api.entries import Disclosure, Reference, verify_signature
from ledger import verify_inclusion
from ledger.merkle import leaf_hash
from privacy.attestation_disclosure import Disclosed, verify_disclosure_envelope
from privacy.attestation_parts import LedgerReference
from privacy.errors import UsageError, VerificationFailed
from privacy.models.linear import sigmoid
from privacy.mpc.disclosure import AnswerStatement, verify_answer

__all__ = ["DisclosureAudit", "VerifiedDisclosure", "in_words", "probability"]


@dataclass(frozen=True)
class VerifiedDisclosure:
    """What one answer was shown to be, and to whom. Only `verify_bundle` makes one."""

    prediction: VerifiedJointPrediction
    entry: Located[Disclosure]
    disclosed: Disclosed
    statement: AnswerStatement
    checks: tuple[Check, ...]
    made_by: InitVar[object]

    def __post_init__(self, made_by: object) -> None:
        if made_by is not VERIFIED:
            raise UsageError("a VerifiedDisclosure is made by verify_bundle only")

    @property
    def output_name(self) -> str:
        """Name of the output that was disclosed."""
        return self.prediction.output_names[self.statement.output]

    @property
    def sentence(self) -> str:
        """What is true now, in words."""
        return f"{self.output_name} of record {self.disclosed.record_id!r} {in_words(self.statement)}"


def probability(found: VerifiedDisclosure) -> str | None:
    """What the statement means as a probability, in words; None unless the answer is one's log-odds."""
    statement = found.statement
    if found.prediction.model.body.link != "logit":
        return None
    scale = statement.scale_bits if statement.kind == "open" else statement.grid_bits
    about = {"open": "of ", "exact": "of about ", "threshold": "of at least "}[statement.kind]
    # Rounded down to four digits, so that "at least" stays true.
    return f"{about}{math.floor(float(sigmoid(statement.value / 2**scale)) * 10_000) / 10_000:.4f}"


def in_words(statement: AnswerStatement) -> str:
    """What a statement says of the raw answer, with exact decimals."""
    if statement.kind == "open":
        return f"is {_decimal(statement.value, statement.scale_bits)} exactly"
    value = _decimal(statement.value, statement.grid_bits)
    if statement.kind == "threshold":
        return f"is at least {value}"
    return f"is {value}, within {_decimal(statement.tolerance, statement.grid_bits)}"


def _decimal(value: int, bits: int) -> str:
    """value / 2^bits, every digit of it: a decimal of the library would be rounded to 28."""
    digits = str(abs(value) * 5**bits).rjust(bits + 1, "0")
    whole, part = digits[: len(digits) - bits], digits[len(digits) - bits :].rstrip("0")
    return ("-" if value < 0 else "") + whole + (f".{part}" if part else "")


class DisclosureAudit:
    """Step 11. Made before the other steps, so that they know which entry and blobs are not theirs."""

    def __init__(self, evidence: Evidence, index: int, recipient_nonce: bytes | None) -> None:
        self._evidence = evidence
        self._nonce = recipient_nonce
        entry = evidence.entries[index]
        if not isinstance(entry.body, Disclosure):
            raise VerificationFailed("entry.kind", f"entry {index} is no disclosure")
        self._entry = entry
        self._located = Located(Reference.to(index, evidence.entry_bytes[index]), entry.body)
        evidence.also_blobs |= {entry.body.statement, entry.body.proof}

    def run(self, prediction: VerifiedJointPrediction, clinic: Reference) -> VerifiedDisclosure:
        """The step itself; `clinic` is the party that wrote the prediction's records."""
        self._evidence.step("disclosure", lambda: self._check(prediction, clinic))
        return VerifiedDisclosure(
            prediction, self._located, self._disclosed, self._statement, tuple(self._evidence.checks), VERIFIED
        )

    # 11 disclosure: by the clinic, of this answer and record, for this recipient; its proof holds.
    def _check(self, prediction: VerifiedJointPrediction, clinic: Reference) -> str:
        entry, reader = self._located, self._evidence.reader
        if self._entry.author != clinic:
            raise VerificationFailed("disclosure.author", "it was not logged by the clinic whose records they are")
        verify_signature(self._entry, prediction.clinic.public_key)
        found = verify_disclosure_envelope(reader.blob(entry.body.statement), prediction.clinic.public_key)
        self._disclosed = found
        if entry.body.prediction != prediction.prediction.reference:
            raise VerificationFailed("disclosure.prediction", "it is about another prediction than the bundle")
        if not prediction.prediction.reference.index < entry.reference.index:
            raise VerificationFailed("ledger.order", "the disclosure is older than its prediction")
        index = prediction.prediction.reference.index
        if found.prediction != LedgerReference.to(index, self._evidence.entry_bytes[index]):
            raise VerificationFailed("disclosure.prediction", "the clinic's statement is about another prediction")
        if self._nonce is not None and found.recipient_nonce != self._nonce:
            raise VerificationFailed("disclosure.nonce", "this was made for another recipient, or another question")
        if not (found.patient < prediction.count and found.output < len(prediction.output_names)):
            raise VerificationFailed("disclosure.place", "the prediction has no such patient or output")
        if found.answer != prediction.answer(found.patient, found.output):
            raise VerificationFailed("disclosure.answer", "the commitment is not the one of this patient and output")
        scales = (prediction.answer_scale_bits, prediction.model.body.grid_bits)
        if (found.scale_bits, found.grid_bits) != scales:
            raise VerificationFailed("disclosure.scales", "scale or grid are not those of the network")
        records = prediction.records.body
        verify_inclusion(leaf_hash(found.handle), found.patient, records.count, found.path, records.handles)
        self._statement = AnswerStatement(
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
        proof = reader.blob(entry.body.proof)
        if (found.proof.digest, found.proof.size) != (entry.body.proof, len(proof)):
            raise VerificationFailed("disclosure.proof", "the clinic's statement names another proof than its entry")
        verify_answer(self._statement, proof, self._evidence.group)
        name = prediction.output_names[found.output]
        asked = "" if self._nonce is not None else " Whether it was made for you shows its nonce, which was not given."
        return f"{name} of record {found.record_id!r} {in_words(self._statement)}.{asked}"
