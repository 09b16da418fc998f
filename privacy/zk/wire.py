"""Strict reader and writer of proof bytes: fixed widths, little-endian, nothing left over."""

from __future__ import annotations

from collections.abc import Sequence

from privacy.errors import DecodeError
from privacy.zk.group import ORDER, POINT_BYTES, SCALAR_BYTES, Group, Point

__all__ = ["Reader", "pack_integers", "pack_scalars"]


def pack_scalars(values: Sequence[int]) -> bytes:
    """Residues in [0, r), 32 bytes each."""
    return b"".join(v.to_bytes(SCALAR_BYTES, "little") for v in values)


def pack_integers(values: Sequence[int], width: int, *, signed: bool = False) -> bytes:
    """Integers of `width` bytes each."""
    return b"".join(v.to_bytes(width, "little", signed=signed) for v in values)


class Reader:
    """Reads one proof from front to back; every refusal says where."""

    def __init__(self, what: str, data: bytes) -> None:
        self._what = what
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        """Next `count` bytes."""
        end = self._at + count
        if end > len(self._data):
            raise DecodeError(self._what, f"truncated: needs {end} bytes or more, has {len(self._data)}")
        part = self._data[self._at : end]
        self._at = end
        return part

    def expect(self, constant: bytes) -> None:
        """Next bytes must be these."""
        found = self.take(len(constant))
        if found != constant:
            raise DecodeError(self._what, f"expected {constant!r}, got {found!r}")

    def point(self, group: Group) -> Point:
        """A canonical point of the subgroup, not the identity."""
        start = self._at
        try:
            return group.decode(self.take(POINT_BYTES))
        except DecodeError as error:
            raise DecodeError(self._what, f"at byte {start}: {error}") from error

    def points(self, group: Group, count: int) -> list[Point]:
        """`count` points."""
        return [self.point(group) for _ in range(count)]

    def scalars(self, count: int) -> list[int]:
        """`count` scalars, each below r."""
        start = self._at
        data = self.take(SCALAR_BYTES * count)
        values = [int.from_bytes(data[i : i + SCALAR_BYTES], "little") for i in range(0, len(data), SCALAR_BYTES)]
        if values and max(values) >= ORDER:
            raise DecodeError(self._what, f"a scalar after byte {start} is not below the group order")
        return values

    def integers(self, count: int, width: int, *, signed: bool = False) -> list[int]:
        """`count` integers of `width` bytes."""
        data = self.take(width * count)
        return [int.from_bytes(data[i : i + width], "little", signed=signed) for i in range(0, len(data), width)]

    def end(self) -> None:
        """No byte may be left."""
        left = len(self._data) - self._at
        if left:
            raise DecodeError(self._what, f"{left} bytes too many")
