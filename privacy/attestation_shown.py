"""What a clinic signs when it shows answers of a prediction under a grant: an in-toto Statement v1 in a DSSE envelope.

One format for both schemes, and for many answers of one prediction in one proof. The signature says who discloses;
whether it is true is shown by the proof that the statement names, about a verified prediction. It replaces the format
of `privacy.attestation_disclosure`, which was for single committed answers and knew no consent; such statements are
still verified. Format: docs/spec/formats.md, disclosure.
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
    PositiveInteger,
    Salt,
    Timestamp,
    UnsignedInteger,
)
from privacy.dsse import sign_payload, verified_payload
from privacy.errors import UsageError

__all__ = ["SHOWN_CLAIMS", "SHOWN_TYPE", "Shown", "ShownAnswer", "sign_shown", "verify_shown"]

SHOWN_TYPE: Final = "https://sealproof.dev/attestation/disclosure/v2"
"""A name, not an address: nothing is ever fetched from it."""

_MAX_STATEMENT_BYTES: Final = 1 << 20
_MAX_ANSWERS: Final = 256

SHOWN_CLAIMS = (
    "Each answer of the referenced prediction that is listed here, for the record whose handle is opened beside it, is "
    "what kind, value and tolerance say: within tolerance grid steps of value grid steps (exact), at least value grid "
    "steps (threshold), or equal to value in units of 2^-scaleBits (open), a grid step being 2^-gridBits. Where versus "
    "is given, the answer is that of output minus that of versus.",
    "An answer under encryption (ckks) is the decryption of the published result, which differs from the committed "
    "model's answer by at most the error bound of the prediction, and a difference of two by at most twice that; an "
    "answer of multi-party computation (mpc) is exact.",
    "It was made under the referenced grant, for the recipient who chose recipientNonce; that it is true can be "
    "checked by anybody who has it.",
)


@dataclass(frozen=True)
class _Proof(CamelRecord):
    digest: Digest
    size: PositiveInteger


@dataclass(frozen=True)
class ShownAnswer(CamelRecord):
    """What is said of one answer.

    `result` is what is opened: the canonical digest of the encrypted result, or the SHA-256 of the commitment C_z.
    `record_id`, `salt` and `path` open the record's blinded handle under the root of the records entry.
    """

    patient: UnsignedInteger
    output: UnsignedInteger
    versus: UnsignedInteger | None
    kind: Literal["threshold", "exact", "open"]
    value: DecimalInteger
    tolerance: UnsignedInteger
    result: Digest
    record_id: Annotated[str, Field(min_length=1, max_length=1024)] = field(repr=False)
    salt: Salt = field(repr=False)
    path: tuple[Digest, ...] = field(repr=False)

    @property
    def handle(self) -> bytes:
        """The blinded handle that is opened: SHA-256(salt || record id)."""
        return hashlib.sha256(self.salt + self.record_id.encode("utf-8")).digest()

    @property
    def place(self) -> str:
        """The name of this answer among those of the statement."""
        versus = "" if self.versus is None else f"-minus-{self.versus}"
        return f"patient-{self.patient}/output-{self.output}{versus}/{self.kind}"


@dataclass(frozen=True)
class Shown(CamelRecord):
    """A disclosure as its clinic signs it. Raises UsageError for answers that are not told apart."""

    prediction: LedgerReference
    grant: LedgerReference
    scheme: Literal["ckks", "mpc"]
    answers: Annotated[tuple[ShownAnswer, ...], Field(min_length=1, max_length=_MAX_ANSWERS)]
    scale_bits: UnsignedInteger
    grid_bits: UnsignedInteger
    recipient_nonce: Digest
    proof: _Proof
    issued_at: Timestamp
    claims: tuple[str, ...] = SHOWN_CLAIMS

    def __post_init__(self) -> None:
        if self.claims != SHOWN_CLAIMS:
            raise UsageError("disclosure: claims are fixed sentences")
        if len({answer.place for answer in self.answers}) != len(self.answers):
            raise UsageError("a disclosure says one thing of a kind about an answer")

    @staticmethod
    def proof_reference(proof: bytes) -> _Proof:
        """The reference to the proof whose bytes are `proof`."""
        return _Proof(hashlib.sha256(proof).digest(), len(proof))


@dataclass(frozen=True)
class _Statement(CamelRecord):
    type_: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")]
    subject: tuple[Subject, ...]
    predicate_type: Literal["https://sealproof.dev/attestation/disclosure/v2"]
    predicate: Shown

    def __post_init__(self) -> None:
        if self.subject != _subjects(self.predicate):
            raise UsageError("subjects: not the answers that the predicate names")


def _subjects(shown: Shown) -> tuple[Subject, ...]:
    return tuple(Subject(answer.place, SubjectDigest(answer.result)) for answer in shown.answers)


_STATEMENT = Codec(_Statement, "disclosure statement", _MAX_STATEMENT_BYTES)


def sign_shown(shown: Shown, private_key: Ed25519PrivateKey) -> bytes:
    """The envelope of a disclosure, signed by its clinic. Raises UsageError for a field out of range."""
    statement = _Statement(STATEMENT_TYPE, _subjects(shown), SHOWN_TYPE, shown)
    return sign_payload(_STATEMENT.encode(statement), PAYLOAD_TYPE, private_key)


def verify_shown(data: bytes, public_key: bytes) -> Shown:
    """What a clinic signed. Whether it is true is shown by its proof alone.

    Raises DecodeError, VerificationFailed("attestation.signature"), VerificationFailed("attestation.payload-type").
    """
    return _STATEMENT.decode(verified_payload(data, PAYLOAD_TYPE, public_key)).predicate
