"""DSSE envelopes: signed bytes of a named type, and who signed them.

    envelope   {"payload": base64, "payloadType": text, "signatures": [{"keyid", "sig"}]}
    signature  Ed25519 over PAE(payloadType, payload)

The bytes that were verified are the bytes that are handed on; nothing is parsed before its signature held and nothing
is serialised again. Format: docs/spec/formats.md, attestation.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Annotated

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field

from privacy.canonical_json import CamelRecord, Codec
from privacy.errors import DecodeError, UsageError, VerificationFailed

__all__ = [
    "MAX_ENVELOPE_BYTES",
    "Envelope",
    "EnvelopeSignature",
    "decode_envelope",
    "encode_envelope",
    "pae",
    "sign_payload",
    "verified_payload",
]

MAX_ENVELOPE_BYTES = 1 << 20
_MAX_SIGNATURES = 16


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


def verified_payload(data: bytes, payload_type: str, public_key: bytes) -> bytes:
    """The payload of the envelope `data`, which `public_key` (Ed25519, 32 bytes) signed as one of `payload_type`.

    One good signature by that key is enough, signatures of others are ignored. Raises DecodeError,
    VerificationFailed("attestation.signature") and VerificationFailed("attestation.payload-type").
    """
    envelope = decode_envelope(data)
    payload = envelope.payload_bytes()
    signed = pae(envelope.payload_type, payload)
    if not any(_is_signed(public_key, _from_base64("sig", entry.sig), signed) for entry in envelope.signatures):
        raise VerificationFailed("attestation.signature", f"no signature by the key {public_key.hex()}")
    if envelope.payload_type != payload_type:
        raise VerificationFailed("attestation.payload-type", f"expected {payload_type}, got {envelope.payload_type!r}")
    return payload


def _is_signed(public_key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
