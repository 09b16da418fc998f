"""What an attestation says of a prediction by multi-party computation (scheme `mpc`).

The signed statement is that of `privacy.attestation`, with this predicate and these subjects: one for each proof, the
digest of the commitments to its answers. Formats: docs/spec/formats.md, attestation. What is bound:
docs/spec/protocol.md, sections 7 and 9.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, Literal

from privacy.attestation_parts import ErrorBound, LedgerReference
from privacy.canonical_json import CamelRecord, Digest, Identifier, PositiveInteger, Timestamp, UnsignedInteger
from privacy.errors import UsageError

__all__ = [
    "JOINT_CLAIMS",
    "JOINT_NOT_CLAIMED",
    "JOINT_PROOF_MEDIA_TYPE",
    "JOINT_PROOF_SYSTEM",
    "JointCoverage",
    "JointPredicate",
    "JointProofReference",
]

JOINT_PROOF_SYSTEM: Final = "sealproof-joint-v1"
JOINT_PROOF_MEDIA_TYPE: Final = "application/vnd.sealproof.joint-proof.v1"

JOINT_CLAIMS = (
    "For each patient and output that a referenced proof covers, the answer whose commitment is under the listed "
    "digest opens to exactly the integer that the referenced network computes on the record that the referenced "
    "records entry commits to for this patient: in every layer the sum of the inputs times the weights, plus the bias, "
    "and between two layers the larger of that and zero, in units of 2^-errorBound.scaleBits, with no error; record, "
    "weights and biases are those, and the only ones, that their commitments open to.",
    "Together with the certificates of the referenced network and records, all of these are integers within the ranges "
    "that the network entry states and, for the values of a record, within the powers of two that the schema's ranges "
    "round up to, so that no value of the computation wraps around.",
    "This holds even if both computing parties and the dealer of their randomness cooperate against the reader, unless "
    "somebody computed discrete logarithms on BLS12-381 or found collisions of SHA-256, or a false proof passed by the "
    "chance that the protocol states.",
)
"""Exactly what a joint proof covers (docs/spec/protocol.md, section 7)."""

JOINT_NOT_CLAIMED = (
    "That the patient data is true, complete, within the ranges of the schema, or without duplicates.",
    "That the model is accurate, fair or good medicine.",
    "That the weights stay unknown to a clinic that received more answers than the exposure count allows.",
    "That clinic and model owner learn no more than the answers if one of them deviates from the protocol or works "
    "with the dealer: privacy holds against parties that follow it.",
    "That answers are blurred: they are exact, and tell as much of the weights as exact answers tell.",
    "That the number of patients, features, layers and neurons, or the times of requests, are hidden.",
    "That the service is available.",
    "That a proof made with a quantum computer would be sound.",
)


@dataclass(frozen=True)
class JointCoverage(CamelRecord):
    """Which answers one proof covers: patients first_patient .. first_patient + patients - 1 under all `outputs`.

    `answers` is the digest of the commitments to them, patient by patient and within a patient in the order of
    `outputs`.
    """

    first_patient: UnsignedInteger
    patients: PositiveInteger
    outputs: tuple[UnsignedInteger, ...]
    answers: Digest

    def __post_init__(self) -> None:
        if not self.outputs or self.outputs != tuple(range(len(self.outputs))):
            raise UsageError("coverage: a joint proof covers all outputs of the network, in order")

    @property
    def label(self) -> str:
        """What the statement calls these answers."""
        return f"patients-{self.first_patient}-{self.first_patient + self.patients - 1}"


@dataclass(frozen=True)
class JointProofReference(CamelRecord):
    """A joint proof by the digest and size of its bytes, and what it covers."""

    system: Literal["sealproof-joint-v1"]
    digest: Digest
    media_type: Literal["application/vnd.sealproof.joint-proof.v1"]
    size: PositiveInteger
    covers: JointCoverage

    @classmethod
    def to(cls, proof: bytes, covers: JointCoverage) -> JointProofReference:
        """The reference to the proof whose bytes are `proof`."""
        return cls(JOINT_PROOF_SYSTEM, hashlib.sha256(proof).digest(), JOINT_PROOF_MEDIA_TYPE, len(proof), covers)


@dataclass(frozen=True)
class JointPredicate(CamelRecord):
    """What the attestation of a prediction by multi-party computation says.

    `prediction` is the ledger entry that lists the same proofs and names the same session. `error_bound` is zero.
    `request_nonce` is what the clinic sent with its request. `claims` and `not_claimed` are the fixed sentences
    `JOINT_CLAIMS` and `JOINT_NOT_CLAIMED`. `approval` is the ledger entry by which hospitals approved the model;
    without one the field is left out.
    """

    prediction: LedgerReference
    model: LedgerReference
    records: LedgerReference
    scheme: Literal["mpc"]
    parameter_set: Identifier
    session: Digest
    proofs: tuple[JointProofReference, ...]
    error_bound: ErrorBound
    issued_at: Timestamp
    request_nonce: Digest
    claims: tuple[str, ...] = JOINT_CLAIMS
    not_claimed: tuple[str, ...] = JOINT_NOT_CLAIMED
    approval: LedgerReference | None = None

    def __post_init__(self) -> None:
        if self.claims != JOINT_CLAIMS or self.not_claimed != JOINT_NOT_CLAIMED:
            raise UsageError("predicate: claims and not_claimed are fixed sentences")
        if self.error_bound.error:
            raise UsageError("predicate: answers of multi-party computation have no error")
        reached = 0
        for proof in self.proofs:
            if proof.covers.first_patient != reached or proof.covers.outputs != self.proofs[0].covers.outputs:
                raise UsageError("predicate: proofs cover consecutive patients, from the first on, under all outputs")
            reached += proof.covers.patients
        if not reached:
            raise UsageError("predicate: there is at least one proof")

    def subjects(self) -> list[tuple[str, bytes]]:
        """(name, digest) of what the statement is about, in order."""
        return [(proof.covers.label, proof.covers.answers) for proof in self.proofs]
