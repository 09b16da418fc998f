"""Attestation of a prediction: an in-toto Statement v1 in a DSSE envelope.

The envelope says who issued the statement and nothing else: whether the statement is true is shown by the proofs that
it names. The bytes that were verified are the bytes that are handed on (`privacy.dsse`).

    envelope   {"payload": base64, "payloadType": "application/vnd.in-toto+json", "signatures": [{"keyid", "sig"}]}
    statement  {"_type", "predicate", "predicateType", "subject"}

There is one predicate a scheme: `Predicate` here for encrypted records (`ckks`), whose subjects are the result
ciphertexts, and `JointPredicate` for multi-party computation (`mpc`, `privacy.attestation_joint`).

Formats: docs/spec/formats.md, attestation. What is bound: docs/spec/protocol.md, section 9.
"""

from __future__ import annotations

import hashlib
from dataclasses import InitVar, dataclass
from typing import Annotated, Final, Literal

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field

from privacy.attestation_joint import (
    JOINT_CLAIMS,
    JOINT_NOT_CLAIMED,
    JOINT_PROOF_MEDIA_TYPE,
    JOINT_PROOF_SYSTEM,
    JointCoverage,
    JointPredicate,
    JointProofReference,
)
from privacy.attestation_parts import ErrorBound, LedgerReference, Subject, SubjectDigest
from privacy.canonical_json import (
    CamelRecord,
    Codec,
    Digest,
    Identifier,
    PositiveInteger,
    Timestamp,
    UnsignedInteger,
)
from privacy.dsse import (
    MAX_ENVELOPE_BYTES,
    Envelope,
    EnvelopeSignature,
    decode_envelope,
    encode_envelope,
    pae,
    sign_payload,
    verified_payload,
)
from privacy.errors import UsageError

__all__ = [
    "CLAIMS",
    "JOINT_CLAIMS",
    "JOINT_NOT_CLAIMED",
    "JOINT_PROOF_MEDIA_TYPE",
    "JOINT_PROOF_SYSTEM",
    "MAX_ENVELOPE_BYTES",
    "NOT_CLAIMED",
    "PAYLOAD_TYPE",
    "PREDICATE_TYPE",
    "PROOF_MEDIA_TYPE",
    "PROOF_SYSTEM",
    "STATEMENT_TYPE",
    "AnyPredicate",
    "Coverage",
    "Envelope",
    "EnvelopeSignature",
    "ErrorBound",
    "JointCoverage",
    "JointPredicate",
    "JointProofReference",
    "LedgerReference",
    "Positions",
    "Predicate",
    "ProofReference",
    "VerifiedStatement",
    "decode_envelope",
    "decode_statement",
    "encode_envelope",
    "encode_statement",
    "pae",
    "sign_payload",
    "sign_statement",
    "verify_envelope",
]

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://sealproof.dev/attestation/prediction/v1"
"""A name, not an address: nothing is ever fetched from it."""

PROOF_SYSTEM: Final = "sealproof-evaluation-v1"
PROOF_MEDIA_TYPE: Final = "application/vnd.sealproof.evaluation-proof.v1"

_MAX_STATEMENT_BYTES = 3 * MAX_ENVELOPE_BYTES // 4
_MAX_EXTENT = 1 << 15
"""The largest ring degree for which SEAL has parameters: no position can lie beyond it."""

CLAIMS = (
    "Each listed result equals, on the listed coefficients of its first component and on all of its second, the sum of "
    "the referenced records' input ciphertexts times the weights, plus the bias, plus an encryption of zero under the "
    "referenced key; the weights and the bias are those, and the only ones, that the referenced model's commitment "
    "opens to.",
    "Together with the certificates of the referenced key and model, every answer that this key decrypts from the "
    "listed coefficients differs by at most errorBound.error, in units of 2^-errorBound.scaleBits, from the committed "
    "model's integer answer on the values that the committed input ciphertexts decrypt to, provided that these lie "
    "within the ranges of the schema; outside of them the same holds modulo the ciphertext modulus.",
    "This holds unless somebody computed discrete logarithms on BLS12-381 or found collisions of SHA-256, or a false "
    "proof passed by the chance that the protocol states.",
)
"""Exactly what an evaluation proof covers (docs/spec/protocol.md, section 5, theorem to keep true)."""

NOT_CLAIMED = (
    "That the patient data is true, complete, within the ranges of the schema, or without duplicates.",
    "That the model is accurate, fair or good medicine.",
    "That the weights stay unknown to a clinic that received more answers than the exposure count allows.",
    "That the number of patients, features and blocks, or the times of requests, are hidden.",
    "That the service is available.",
    "That a proof made with a quantum computer would be sound.",
)


# -- the statement ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Positions(CamelRecord):
    """The published coefficients P of every result of one proof (docs/spec/protocol.md, section 2).

    `columns`: coefficient p is patient p. `rows`: coefficient p*d + d-1 is patient p. `digest` is the SHA-256 of
    `sealproof/positions/v1\\n` and the coefficients in order, 4 bytes little-endian each; it is never taken on trust.
    """

    packing: Literal["columns", "rows"]
    d: PositiveInteger
    count: PositiveInteger
    digest: Digest

    def __post_init__(self) -> None:
        if self.digest != _positions_digest(_coefficients(self.packing, self.d, self.count)):
            raise UsageError("positions: the digest is not that of the coefficients that packing, d and count give")

    @classmethod
    def declare(cls, packing: Literal["columns", "rows"], d: int, count: int) -> Positions:
        """The coefficients of `count` patients of `d` features. Raises UsageError if no ring has so many."""
        return cls(packing, d, count, _positions_digest(_coefficients(packing, d, count)))

    def coefficients(self) -> range:
        """P, in increasing order."""
        return _coefficients(self.packing, self.d, self.count)


def _coefficients(packing: str, d: int, count: int) -> range:
    stride = d if packing == "rows" else 1
    if d < 1 or count < 1 or count * stride > _MAX_EXTENT:
        raise UsageError(f"positions: {count} patients of {d} features in {packing} fit no ring")
    return range(stride - 1, count * stride, stride)


def _positions_digest(coefficients: range) -> bytes:
    words = np.arange(coefficients.start, coefficients.stop, coefficients.step, dtype="<u4")
    return hashlib.sha256(b"sealproof/positions/v1\n" + words.tobytes()).digest()


@dataclass(frozen=True)
class Coverage(CamelRecord):
    """Which results one proof covers.

    Blocks first_block .. first_block + blocks - 1 and the model outputs `outputs`; `results` are the canonical result
    digests, block by block and within a block in the order of `outputs`; `blur_bits` is f.
    """

    first_block: UnsignedInteger
    blocks: PositiveInteger
    outputs: tuple[UnsignedInteger, ...]
    positions: Positions
    results: tuple[Digest, ...]
    blur_bits: UnsignedInteger

    def __post_init__(self) -> None:
        if not self.outputs or any(a >= b for a, b in zip(self.outputs, self.outputs[1:], strict=False)):
            raise UsageError("coverage: outputs must be strictly increasing, and at least one")
        if len(self.results) != self.blocks * len(self.outputs):
            raise UsageError(f"coverage: expected {self.blocks * len(self.outputs)} results, got {len(self.results)}")

    def labelled_results(self) -> list[tuple[int, int, bytes]]:
        """(block, output, digest) of every result, in the order of `results`."""
        places = [
            (block, output)
            for block in range(self.first_block, self.first_block + self.blocks)
            for output in self.outputs
        ]
        return [(block, output, digest) for (block, output), digest in zip(places, self.results, strict=True)]


@dataclass(frozen=True)
class ProofReference(CamelRecord):
    """A proof by the digest and size of its bytes, and what it covers."""

    system: Literal["sealproof-evaluation-v1"]
    digest: Digest
    media_type: Literal["application/vnd.sealproof.evaluation-proof.v1"]
    size: PositiveInteger
    covers: Coverage

    @classmethod
    def to(cls, proof: bytes, covers: Coverage) -> ProofReference:
        """The reference to the proof whose bytes are `proof`."""
        return cls(PROOF_SYSTEM, hashlib.sha256(proof).digest(), PROOF_MEDIA_TYPE, len(proof), covers)


@dataclass(frozen=True)
class Predicate(CamelRecord):
    """What a prediction's attestation says.

    `prediction` is the ledger entry that lists the same results and proofs; it is younger than the other three.
    `error_bound` is the largest of the proofs. `request_nonce` is what the clinic sent with its request. `claims` and
    `not_claimed` are the fixed sentences `CLAIMS` and `NOT_CLAIMED`: whoever reads them reads all that is promised,
    and nobody can add to them. `approval` is the ledger entry by which hospitals approved the model; without one the
    field is left out.
    """

    prediction: LedgerReference
    model: LedgerReference
    records: LedgerReference
    key: LedgerReference
    scheme: Literal["ckks"]
    parameter_set: Identifier
    proofs: tuple[ProofReference, ...]
    error_bound: ErrorBound
    issued_at: Timestamp
    request_nonce: Digest
    claims: tuple[str, ...] = CLAIMS
    not_claimed: tuple[str, ...] = NOT_CLAIMED
    approval: LedgerReference | None = None

    def __post_init__(self) -> None:
        if self.claims != CLAIMS or self.not_claimed != NOT_CLAIMED:
            raise UsageError("predicate: claims and not_claimed are fixed sentences")
        places = [(block, output) for proof in self.proofs for block, output, _ in proof.covers.labelled_results()]
        if not places or len(set(places)) != len(places):
            raise UsageError("predicate: every result is covered by one proof, and there is at least one")

    def subjects(self) -> list[tuple[str, bytes]]:
        """(name, digest) of what the statement is about, in order."""
        return [
            (f"block-{block}/output-{output}", digest)
            for proof in self.proofs
            for block, output, digest in proof.covers.labelled_results()
        ]


AnyPredicate = Predicate | JointPredicate
"""What a prediction's attestation may say. `scheme` tells which."""


@dataclass(frozen=True)
class _Statement(CamelRecord):
    type_: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")]
    subject: tuple[Subject, ...]
    predicate_type: Literal["https://sealproof.dev/attestation/prediction/v1"]
    predicate: Annotated[AnyPredicate, Field(discriminator="scheme")]

    def __post_init__(self) -> None:
        if self.subject != _subjects(self.predicate):
            raise UsageError("subjects: not the results that the predicate lists, in that order")


def _subjects(predicate: AnyPredicate) -> tuple[Subject, ...]:
    return tuple(Subject(name, SubjectDigest(digest)) for name, digest in predicate.subjects())


_STATEMENT = Codec(_Statement, "in-toto statement", _MAX_STATEMENT_BYTES, omit_none=True)


def encode_statement(predicate: AnyPredicate) -> bytes:
    """The canonical bytes of the statement; its subjects follow from the predicate. Raises UsageError."""
    return _STATEMENT.encode(_Statement(STATEMENT_TYPE, _subjects(predicate), PREDICATE_TYPE, predicate))


def decode_statement(data: bytes) -> AnyPredicate:
    """The predicate of the statement whose canonical encoding is `data`. Raises DecodeError."""
    return _STATEMENT.decode(data).predicate


# -- signing and verifying --------------------------------------------------------------------------------------------

_VERIFIED = object()


@dataclass(frozen=True)
class VerifiedStatement:
    """A statement that `public_key` signed. Only `verify_envelope` makes one. The proofs it names are **not** checked
    yet.

    `payload` are the signed bytes, `predicate` is what they say.
    """

    payload: bytes
    predicate: AnyPredicate
    public_key: bytes
    made_by: InitVar[object]

    def __post_init__(self, made_by: object) -> None:
        if made_by is not _VERIFIED:
            raise UsageError("a VerifiedStatement is made by verify_envelope only")


def sign_statement(predicate: AnyPredicate, private_key: Ed25519PrivateKey) -> bytes:
    """The bytes of the attestation: the envelope around the statement. Raises UsageError."""
    return sign_payload(encode_statement(predicate), PAYLOAD_TYPE, private_key)


def verify_envelope(data: bytes, public_key: bytes) -> VerifiedStatement:
    """Verify that `public_key` (Ed25519, 32 bytes) signed the statement in the envelope `data`, and read it.

    One good signature by that key is enough, signatures of others are ignored. Raises DecodeError,
    VerificationFailed("attestation.signature") and VerificationFailed("attestation.payload-type").
    """
    payload = verified_payload(data, PAYLOAD_TYPE, public_key)
    return VerifiedStatement(payload, decode_statement(payload), public_key, _VERIFIED)
