"""What a clinic signs when it discloses one committed answer: an in-toto Statement v1 in a DSSE envelope.

The signature says who discloses; whether it is true is shown by the proof that the statement names, about the C_z of a
verified prediction. The subject is the digest of C_z. Format: docs/spec/formats.md, disclosure.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field

from privacy.attestation import PAYLOAD_TYPE, STATEMENT_TYPE
from privacy.attestation_parts import LedgerReference, Subject, SubjectDigest
from privacy.canonical_json import (
    CamelRecord,
    Codec,
    DecimalInteger,
    Digest,
    Point,
    PositiveInteger,
    Salt,
    Timestamp,
    UnsignedInteger,
)
from privacy.dsse import sign_payload, verified_payload
from privacy.errors import UsageError

__all__ = ["DISCLOSURE_CLAIMS", "DISCLOSURE_TYPE", "Disclosed", "sign_disclosure", "verify_disclosure_envelope"]

DISCLOSURE_TYPE: Final = "https://sealproof.dev/attestation/disclosure/v1"
"""A name, not an address: nothing is ever fetched from it."""

_MAX_STATEMENT_BYTES: Final = 1 << 16

DISCLOSURE_CLAIMS = (
    "The committed answer of the referenced prediction, for the record whose handle is opened here, is what kind, "
    "value and tolerance say: equal to value in units of 2^-scaleBits (open), within tolerance grid steps of value "
    "grid steps (exact), or at least value grid steps (threshold), a grid step being 2^-gridBits.",
    "It was made for the recipient who chose recipientNonce; that it is true can be checked by anybody who has it.",
)


@dataclass(frozen=True)
class _Proof(CamelRecord):
    digest: Digest
    size: PositiveInteger


@dataclass(frozen=True)
class Disclosed(CamelRecord):
    """A disclosure as its clinic signs it.

    `answer` is C_z of `patient` and `output`; `record_id`, `salt` and `path` open the record's blinded handle under the
    root of the records entry; `value` and `tolerance` are those of `privacy.mpc.disclosure.AnswerStatement`.
    """

    prediction: LedgerReference
    scheme: Literal["mpc"]
    kind: Literal["open", "exact", "threshold"]
    patient: UnsignedInteger
    output: UnsignedInteger
    answer: Point
    value: DecimalInteger
    tolerance: UnsignedInteger
    scale_bits: UnsignedInteger
    grid_bits: UnsignedInteger
    record_id: Annotated[str, Field(min_length=1, max_length=1024)] = field(repr=False)
    salt: Salt = field(repr=False)
    path: tuple[Digest, ...] = field(repr=False)
    recipient_nonce: Digest
    proof: _Proof
    issued_at: Timestamp
    claims: tuple[str, ...] = DISCLOSURE_CLAIMS

    def __post_init__(self) -> None:
        if self.claims != DISCLOSURE_CLAIMS:
            raise UsageError("disclosure: claims are fixed sentences")

    @property
    def handle(self) -> bytes:
        """The blinded handle that is opened: SHA-256(salt || record id)."""
        return hashlib.sha256(self.salt + self.record_id.encode("utf-8")).digest()

    @staticmethod
    def proof_reference(proof: bytes) -> _Proof:
        """The reference to the proof whose bytes are `proof`."""
        return _Proof(hashlib.sha256(proof).digest(), len(proof))


@dataclass(frozen=True)
class _Statement(CamelRecord):
    type_: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")]
    subject: tuple[Subject, ...]
    predicate_type: Literal["https://sealproof.dev/attestation/disclosure/v1"]
    predicate: Disclosed

    def __post_init__(self) -> None:
        if self.subject != _subjects(self.predicate):
            raise UsageError("subjects: not the answer that the predicate names")


def _subjects(disclosed: Disclosed) -> tuple[Subject, ...]:
    digest = hashlib.sha256(disclosed.answer).digest()
    return (Subject(f"patient-{disclosed.patient}/output-{disclosed.output}", SubjectDigest(digest)),)


_STATEMENT = Codec(_Statement, "disclosure statement", _MAX_STATEMENT_BYTES)


def sign_disclosure(disclosed: Disclosed, private_key: Ed25519PrivateKey) -> bytes:
    """The envelope of a disclosure, signed by its clinic. Raises UsageError for a field out of range."""
    statement = _Statement(STATEMENT_TYPE, _subjects(disclosed), DISCLOSURE_TYPE, disclosed)
    return sign_payload(_STATEMENT.encode(statement), PAYLOAD_TYPE, private_key)


def verify_disclosure_envelope(data: bytes, public_key: bytes) -> Disclosed:
    """What a clinic signed. Whether it is true is shown by its proof alone.

    Raises DecodeError, VerificationFailed("attestation.signature"), VerificationFailed("attestation.payload-type").
    """
    return _STATEMENT.decode(verified_payload(data, PAYLOAD_TYPE, public_key)).predicate
