"""Fiat-Shamir transcript: everything labelled, everything length-framed (docs/spec/protocol.md, section 1).

One transcript per proof. It absorbs the protocol tag, every public input and every prover message before any
challenge is drawn, and each drawn challenge is itself absorbed (its label and length), so that no two different
conversations share a state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from privacy.errors import UsageError
from privacy.zk.group import ORDER, POINT_BYTES, SCALAR_BYTES

__all__ = ["PROTOCOL_TAG", "Transcript"]

PROTOCOL_TAG: Final = b"sealproof/v1"
_DRAWN: Final = b"challenge:"
INTEGER_BYTES: Final = 64
"""Every integer is absorbed as 64 signed little-endian bytes: one encoding for all of them."""


class Transcript:
    """SHAKE-256 duplex in the simplest form: absorb frames, squeeze from a copy of the state."""

    def __init__(self, label: bytes) -> None:
        self._state = hashlib.shake_256()
        self.absorb(b"protocol", PROTOCOL_TAG)
        self.absorb(b"proof", label)

    def absorb(self, label: bytes, data: bytes) -> None:
        """Absorb one labelled byte string. Labels that begin with `challenge:` are kept for drawn challenges."""
        if label.startswith(_DRAWN):
            raise UsageError(f"label {label!r} is reserved")
        self._frame(label, data)

    def _frame(self, label: bytes, data: bytes) -> None:
        for part in (label, data):
            self._state.update(len(part).to_bytes(8, "little"))
            self._state.update(part)

    def absorb_integers(self, label: bytes, values: Iterable[int]) -> None:
        """Absorb signed integers of at most 511 bits, each 64 bytes wide."""
        try:
            data = b"".join(v.to_bytes(INTEGER_BYTES, "little", signed=True) for v in values)
        except OverflowError as error:
            raise UsageError(f"{label!r}: an integer of more than {8 * INTEGER_BYTES - 1} bits") from error
        self.absorb(label, data)

    def absorb_point(self, label: bytes, encoded: bytes) -> None:
        """Absorb a compressed point."""
        if len(encoded) != POINT_BYTES:
            raise UsageError(f"a point has {POINT_BYTES} bytes, got {len(encoded)}")
        self.absorb(label, encoded)

    def absorb_scalars(self, label: bytes, values: Iterable[int]) -> None:
        """Absorb residues mod r (reduced here: callers absorb what they computed)."""
        self.absorb(label, b"".join((v % ORDER).to_bytes(SCALAR_BYTES, "little") for v in values))

    def challenge_bytes(self, label: bytes, length: int) -> bytes:
        """Draw `length` bytes."""
        self._frame(_DRAWN + label, length.to_bytes(8, "little"))
        return self._state.copy().digest(length)

    def challenge_scalar(self, label: bytes) -> int:
        """Draw a scalar within 2^-257 of uniform in F_r (64 bytes, reduced)."""
        return int.from_bytes(self.challenge_bytes(label, 64), "little") % ORDER

    def challenge_integers(self, label: bytes, count: int, bits: int) -> list[int]:
        """Draw `count` integers uniform in [0, 2^bits)."""
        width = -(-bits // 8)
        data = self.challenge_bytes(label, count * width)
        mask = (1 << bits) - 1
        return [int.from_bytes(data[i : i + width], "little") & mask for i in range(0, count * width, width)]

    def copy(self) -> Transcript:
        """An independent transcript with the same history (provers retry aborted steps on copies)."""
        twin = Transcript.__new__(Transcript)
        twin._state = self._state.copy()
        return twin

    def adopt(self, attempt: Transcript) -> None:
        """Continue where an attempt that succeeded has ended."""
        self._state = attempt._state

    def digest(self) -> bytes:
        """32 bytes that stand for everything absorbed so far."""
        return self.challenge_bytes(b"digest", 32)
