"""Attestation of a prediction: an in-toto Statement v1 in a DSSE envelope.

The envelope says who issued the statement and nothing else: whether the statement is true is shown by the proofs that
it names. The bytes that were verified are the bytes that are handed on; nothing is parsed before its signature held
and nothing is serialised again.

    envelope   {"payload": base64, "payloadType": "application/vnd.in-toto+json", "signatures": [{"keyid", "sig"}]}
    signature  Ed25519 over PAE(payloadType, payload)
    statement  {"_type", "predicate", "predicateType", "subject"}; the subjects are the result ciphertexts

Formats: docs/spec/formats.md, attestation. What is bound: docs/spec/protocol.md, section 9.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import InitVar, dataclass
from typing import Annotated, Final, Literal

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field

from privacy.canonical_json import (
    CamelRecord,
    Codec,
    DecimalInteger,
    Digest,
    Identifier,
    PositiveInteger,
    Timestamp,
    UnsignedInteger,
)
from privacy.errors import DecodeError, UsageError, VerificationFailed

__all__ = [
    "CLAIMS",
    "MAX_ENVELOPE_BYTES",
    "NOT_CLAIMED",
    "PAYLOAD_TYPE",
    "PREDICATE_TYPE",
    "PROOF_MEDIA_TYPE",
    "PROOF_SYSTEM",
    "STATEMENT_TYPE",
    "Coverage",
    "Envelope",
    "EnvelopeSignature",
    "ErrorBound",
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

MAX_ENVELOPE_BYTES = 1 << 20
_MAX_STATEMENT_BYTES = 3 * MAX_ENVELOPE_BYTES // 4
_MAX_SIGNATURES = 16
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


# -- DSSE -------------------------------------------------------------------------------------------------------------


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding of a payload and its type: the bytes that are signed."""
    type_bytes = payload_type.encode("utf-8")
    return b"DSSEv1 %d %s %d %s" % (len(type_bytes), type_bytes, len(payload), payload)


@dataclass(frozen=True)
class EnvelopeSignature(CamelRecord):
    """A signature as it stands in the envelope. `keyid` is a hint that decides nothing; None where it is absent."""

    sig: Annotated[str, Field(max_length=8192)]
    keyid: Annotated[str, Field(max_length=1024)] | None = None


@dataclass(frozen=True)
class Envelope(CamelRecord):
    """A DSSE envelope as it stands. Base64 is kept as written, in the standard or URL-safe alphabet, with padding."""

    payload: str
    payload_type: str
    signatures: tuple[EnvelopeSignature, ...]

    def payload_bytes(self) -> bytes:
        """The payload, decoded but **not** verified. Raises DecodeError."""
        return _from_base64("payload", self.payload)


_ENVELOPE = Codec(Envelope, "DSSE envelope", MAX_ENVELOPE_BYTES, omit_none=True)


def _from_base64(field: str, text: str) -> bytes:
    """Decode one of the two alphabets, whole and canonical. Raises DecodeError."""
    for altchars in (b"+/", b"-_"):
        try:
            value = base64.b64decode(text.encode("ascii"), altchars=altchars, validate=True)
        except (binascii.Error, ValueError):
            continue
        # Python accepts set bits behind the last byte; the same bytes must have one spelling in an alphabet.
        if base64.b64encode(value, altchars=altchars).decode("ascii") == text:
            return value
    raise DecodeError("DSSE envelope", f"{field}: neither standard nor URL-safe base64 with padding")


def decode_envelope(data: bytes) -> Envelope:
    """The envelope whose canonical encoding is `data`; its base64 fields decode.

    Raises DecodeError, also for no signature, more than 16, and the same signature or key id twice.
    """
    envelope = _ENVELOPE.decode(data)
    envelope.payload_bytes()
    if not 1 <= len(envelope.signatures) <= _MAX_SIGNATURES:
        raise DecodeError("DSSE envelope", f"{len(envelope.signatures)} signatures, expected 1 to {_MAX_SIGNATURES}")
    raw = [_from_base64("sig", signature.sig) for signature in envelope.signatures]
    named = [signature.keyid for signature in envelope.signatures if signature.keyid]
    if len(set(raw)) != len(raw) or len(set(named)) != len(named):
        raise DecodeError("DSSE envelope", "the same signature or key id twice")
    return envelope


def encode_envelope(envelope: Envelope) -> bytes:
    """The canonical bytes of an envelope. Raises UsageError if it could not be read back."""
    data = _ENVELOPE.encode(envelope)
    try:
        decode_envelope(data)
    except DecodeError as error:
        raise UsageError(str(error)) from error
    return data


def sign_payload(payload: bytes, payload_type: str, private_key: Ed25519PrivateKey) -> bytes:
    """The bytes of an envelope with one signature. The key id is the SHA-256 of the public key. Raises UsageError."""
    signature = EnvelopeSignature(
        keyid=hashlib.sha256(private_key.public_key().public_bytes_raw()).hexdigest(),
        sig=base64.b64encode(private_key.sign(pae(payload_type, payload))).decode("ascii"),
    )
    return encode_envelope(Envelope(base64.b64encode(payload).decode("ascii"), payload_type, (signature,)))


# -- the statement ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LedgerReference(CamelRecord):
    """An entry of the ledger: its index, its RFC 6962 leaf hash, and the SHA-256 of its bytes."""

    index: UnsignedInteger
    leaf: Digest
    digest: Digest

    @classmethod
    def to(cls, index: int, entry: bytes) -> LedgerReference:
        """The reference to the entry whose bytes are `entry` at `index`."""
        return cls(index, hashlib.sha256(b"\x00" + entry).digest(), hashlib.sha256(entry).digest())


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
class ErrorBound(CamelRecord):
    """A decrypted answer is off by at most error / 2^scale_bits of a unit. Answers lie on the grid 2^-grid_bits."""

    error: Annotated[DecimalInteger, Field(ge=0)]
    scale_bits: UnsignedInteger
    grid_bits: UnsignedInteger


@dataclass(frozen=True)
class Predicate(CamelRecord):
    """What a prediction's attestation says.

    `prediction` is the ledger entry that lists the same results and proofs; it is younger than the other three.
    `error_bound` is the largest of the proofs. `request_nonce` is what the clinic sent with its request. `claims` and
    `not_claimed` are the fixed sentences `CLAIMS` and `NOT_CLAIMED`: whoever reads them reads all that is promised,
    and nobody can add to them.
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

    def __post_init__(self) -> None:
        if self.claims != CLAIMS or self.not_claimed != NOT_CLAIMED:
            raise UsageError("predicate: claims and not_claimed are fixed sentences")
        places = [(block, output) for proof in self.proofs for block, output, _ in proof.covers.labelled_results()]
        if not places or len(set(places)) != len(places):
            raise UsageError("predicate: every result is covered by one proof, and there is at least one")


@dataclass(frozen=True)
class _SubjectDigest(CamelRecord):
    sha256: Digest


@dataclass(frozen=True)
class _Subject(CamelRecord):
    name: str
    digest: _SubjectDigest


@dataclass(frozen=True)
class _Statement(CamelRecord):
    type_: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")]
    subject: tuple[_Subject, ...]
    predicate_type: Literal["https://sealproof.dev/attestation/prediction/v1"]
    predicate: Predicate

    def __post_init__(self) -> None:
        if self.subject != _subjects(self.predicate):
            raise UsageError("subjects: not the results that the predicate lists, in that order")


def _subjects(predicate: Predicate) -> tuple[_Subject, ...]:
    return tuple(
        _Subject(f"block-{block}/output-{output}", _SubjectDigest(digest))
        for proof in predicate.proofs
        for block, output, digest in proof.covers.labelled_results()
    )


_STATEMENT = Codec(_Statement, "in-toto statement", _MAX_STATEMENT_BYTES)


def encode_statement(predicate: Predicate) -> bytes:
    """The canonical bytes of the statement; its subjects follow from the predicate. Raises UsageError."""
    return _STATEMENT.encode(_Statement(STATEMENT_TYPE, _subjects(predicate), PREDICATE_TYPE, predicate))


def decode_statement(data: bytes) -> Predicate:
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
    predicate: Predicate
    public_key: bytes
    made_by: InitVar[object]

    def __post_init__(self, made_by: object) -> None:
        if made_by is not _VERIFIED:
            raise UsageError("a VerifiedStatement is made by verify_envelope only")


def sign_statement(predicate: Predicate, private_key: Ed25519PrivateKey) -> bytes:
    """The bytes of the attestation: the envelope around the statement. Raises UsageError."""
    return sign_payload(encode_statement(predicate), PAYLOAD_TYPE, private_key)


def verify_envelope(data: bytes, public_key: bytes) -> VerifiedStatement:
    """Verify that `public_key` (Ed25519, 32 bytes) signed the statement in the envelope `data`, and read it.

    One good signature by that key is enough, signatures of others are ignored. Raises DecodeError,
    VerificationFailed("attestation.signature") and VerificationFailed("attestation.payload-type").
    """
    envelope = decode_envelope(data)
    payload = envelope.payload_bytes()
    signed = pae(envelope.payload_type, payload)
    if not any(_is_signed(public_key, _from_base64("sig", entry.sig), signed) for entry in envelope.signatures):
        raise VerificationFailed("attestation.signature", f"no signature by the key {public_key.hex()}")
    if envelope.payload_type != PAYLOAD_TYPE:
        raise VerificationFailed("attestation.payload-type", f"expected {PAYLOAD_TYPE}, got {envelope.payload_type!r}")
    return VerifiedStatement(payload, decode_statement(payload), public_key, _VERIFIED)


def _is_signed(public_key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
