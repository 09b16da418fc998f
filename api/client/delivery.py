"""What travels sealed between a consumer and a clinic, in blobs of a server that reads neither.

    request box    a `RequestDocument` and zeros to a multiple of 4 KiB, sealed for the clinic's mailbox; context: leaf
                   hash of the clinic's party entry
    delivery box   what a disclosure shows, sealed for the consumer's mailbox; context: leaf hash of the grant entry

    delivery       "sealproof/delivery/v1\\n", then statement, proof and grant, each 4 bytes of length (little-endian)
                   and the bytes; zeros to a multiple of 16 KiB

The statement is the signed envelope, the grant its document in the clear. Everybody sees how large a box is: the zeros
keep that from telling small answers or questions of different kinds, or about ids of different lengths, apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from api.consent import MAX_DOCUMENT_BYTES
from privacy.dsse import MAX_ENVELOPE_BYTES
from privacy.errors import DecodeError, UsageError
from privacy.zk.wire import Reader

__all__ = [
    "DELIVERY_BOX",
    "MAX_PROOF_BYTES",
    "REQUEST_BOX",
    "Delivery",
    "pack_delivery",
    "pack_request",
    "unpack_delivery",
    "unpack_request",
]

REQUEST_BOX: Final = b"sealproof/request-box/v1\n"
DELIVERY_BOX: Final = b"sealproof/delivery-box/v1\n"
MAX_PROOF_BYTES: Final = 1 << 23

_WHAT: Final = "delivery"
_TAG: Final = b"sealproof/delivery/v1\n"
_STEP: Final = 1 << 14
_REQUEST_STEP: Final = 1 << 12
_LIMITS: Final = {"statement": MAX_ENVELOPE_BYTES, "proof": MAX_PROOF_BYTES, "grant": MAX_DOCUMENT_BYTES}


@dataclass(frozen=True)
class Delivery:
    """A signed statement, its proof, and the grant in the clear, for the recipient alone. None is verified here."""

    statement: bytes = field(repr=False)
    proof: bytes = field(repr=False)
    grant: bytes = field(repr=False)


def pack_request(document: bytes) -> bytes:
    """The bytes to seal of a request in the clear."""
    return document + bytes(-len(document) % _REQUEST_STEP)


def unpack_request(data: bytes) -> bytes:
    """The request in the clear, which does not end in zeros. The ledger names its digest, and so no other."""
    return data.rstrip(b"\0")


def pack_delivery(statement: bytes, proof: bytes, grant: bytes) -> bytes:
    """The bytes to seal. Raises UsageError for an empty or too large part."""
    packed = _TAG
    for what, part in zip(_LIMITS, (statement, proof, grant), strict=True):
        if not 1 <= len(part) <= _LIMITS[what]:
            raise UsageError(f"{what} of {len(part)} bytes, a delivery has 1 to {_LIMITS[what]}")
        packed += len(part).to_bytes(4, "little") + part
    return packed + bytes(-len(packed) % _STEP)


def unpack_delivery(data: bytes) -> Delivery:
    """Strict inverse of `pack_delivery`. Raises DecodeError."""
    reader = Reader(_WHAT, data)
    reader.expect(_TAG)
    parts = []
    for what, limit in _LIMITS.items():
        (size,) = reader.integers(1, 4)
        if not 1 <= size <= limit:
            raise DecodeError(_WHAT, f"{what} of {size} bytes, expected 1 to {limit}")
        parts.append(reader.take(size))
    delivery = Delivery(*parts)
    if pack_delivery(*parts) != data:
        raise DecodeError(_WHAT, "other bytes than zeros, too many or too few of them, behind the last part")
    return delivery
