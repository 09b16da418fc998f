"""Canonical base64 and decimal numbers, as the C2SP text formats spell them.

Python's own decoders accept several spellings of one value (`int(" +1_0")`, base64 with stray trailing bits), and a
signed text must have one.
"""

from __future__ import annotations

import base64
import binascii
import re

from ledger.errors import DecodeError

__all__ = ["MAX_SIZE", "decode_base64", "decode_decimal", "encode_base64"]

MAX_SIZE = 2**63 - 1
"""Largest tree size: the formats' other implementations use signed 64-bit integers."""

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


def encode_base64(data: bytes) -> str:
    """Standard base64 with padding (RFC 4648, section 4)."""
    return base64.b64encode(data).decode("ascii")


def decode_base64(what: str, text: str, length: int | None = None) -> bytes:
    """The bytes whose `encode_base64` is exactly `text`, `length` of them when given. Raises DecodeError."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise DecodeError(what, "not base64") from None
    if encode_base64(data) != text:
        raise DecodeError(what, "not canonical base64")
    if length is not None and len(data) != length:
        raise DecodeError(what, f"expected {length} bytes, got {len(data)}")
    return data


def decode_decimal(what: str, text: str) -> int:
    """A number in 0..MAX_SIZE without sign or leading zeros. Raises DecodeError."""
    if _DECIMAL.fullmatch(text) is None or int(text) > MAX_SIZE:
        raise DecodeError(what, f"expected a decimal number from 0 to {MAX_SIZE} without leading zeros")
    return int(text)
