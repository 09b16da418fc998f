"""Consistency proofs as bundles carry them: a ledger head that an entry names leads to a signed checkpoint.

    sealproof/consistency/v1
    old <size>
    new <size>
    <one base64 hash a line, as RFC 9162, section 2.1.4 orders them>

Nothing here is signed: the proof shows that the tree of `new` leaves extends that of `old` leaves, for two roots that
the verifier has from elsewhere. No hashes for old = 0 and for equal sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ledger.encoding import decode_base64, decode_decimal, encode_base64
from ledger.errors import DecodeError
from ledger.merkle import HASH_BYTES

__all__ = ["HEADER", "ConsistencyProof", "decode_hashes"]

HEADER: Final = "sealproof/consistency/v1"
_WHAT: Final = "consistency proof"
_MAX_HASHES: Final = 64


@dataclass(frozen=True, slots=True)
class ConsistencyProof:
    """A parsed proof, NOT yet verified: give its hashes to `ledger.verify_consistency` with both roots."""

    old: int
    new: int
    hashes: tuple[bytes, ...]

    def format(self) -> bytes:
        """The text of the proof."""
        lines = [HEADER, f"old {self.old}", f"new {self.new}", *map(encode_base64, self.hashes)]
        return "".join(f"{line}\n" for line in lines).encode("ascii")

    @classmethod
    def parse(cls, data: bytes) -> ConsistencyProof:
        """The proof whose `format()` is exactly `data`. Raises ledger.DecodeError."""
        try:
            text = data.decode("ascii")
        except UnicodeDecodeError:
            raise DecodeError(_WHAT, "not ASCII") from None
        lines = text.split("\n")
        if lines.pop() != "" or len(lines) < 3 or lines[0] != HEADER:
            raise DecodeError(_WHAT, f"expected lines that begin with {HEADER}, each with a newline at its end")
        sizes = []
        for name, line in zip(("old", "new"), lines[1:3], strict=True):
            key, _, value = line.partition(" ")
            if key != name:
                raise DecodeError(_WHAT, f"expected a line {name!r}, got {line[:40]!r}")
            sizes.append(decode_decimal(f"{_WHAT}, {name}", value))
        return cls(sizes[0], sizes[1], decode_hashes(lines[3:]))


def decode_hashes(lines: Sequence[str]) -> tuple[bytes, ...]:
    """The hashes that these base64 strings spell. Raises ledger.DecodeError."""
    if len(lines) > _MAX_HASHES:
        raise DecodeError(_WHAT, f"{len(lines)} hashes, no log needs more than {_MAX_HASHES}")
    return tuple(decode_base64(_WHAT, line, HASH_BYTES) for line in lines)
