"""BLS12-381 G1 behind one small interface (docs/spec/protocol.md, section 3).

Two implementations that share no code: `ARKWORKS` (Rust, fast, the default) and `REFERENCE` (py_ecc, pure
Python, slow; the verifier's second opinion). Only this file and `privacy.zk.bls` import a curve library.

Points are opaque values of the chosen implementation. Scalars are Python integers; signed integers are
taken as they are, so that small negative witnesses stay cheap.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, reduce
from hashlib import sha256
from typing import Any, Final, TypeAlias

import py_arkworks_bls12381 as arkworks

from privacy.errors import DecodeError, UsageError

__all__ = ["ARKWORKS", "ORDER", "POINT_BYTES", "REFERENCE", "SCALAR_BYTES", "Group", "Point", "Task", "group_by_name"]

ORDER: Final = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001
"""Prime order r of G1 (about 2^254.86)."""

FIELD: Final = 0x1A0111EA397FE69A4B1BA7B6434BACD764774B84F38512BF6730D2A0F6B0F6241EABFFFEB153FFFFB9FEFFFFFFFFAAAB
"""Base field prime."""

POINT_BYTES: Final = 48
SCALAR_BYTES: Final = 32
HASH_TO_CURVE_TAG: Final = b"SEALPROOF-V1-BLS12381G1_XMD:SHA-256_SSWU_RO_"

Point: TypeAlias = Any
"""A point of the implementation that made it; never mixed between implementations."""

Task: TypeAlias = tuple[Sequence[Point], Sequence[int]]
"""Points and as many scalars."""

_PARALLEL_COST: Final = 1 << 17
"""Points times bits below which a second thread costs more than it saves."""

_SPLIT_TERMS: Final = 512
"""Below this many terms a second thread costs more than it saves."""


_SHORT_BITS: Final = 8


class Group(ABC):
    """Prime-order group G1 of BLS12-381."""

    name: str

    @abstractmethod
    def identity(self) -> Point:
        """Neutral element."""

    @abstractmethod
    def add(self, left: Point, right: Point) -> Point:
        """Sum of two points."""

    @abstractmethod
    def negate(self, point: Point) -> Point:
        """Inverse of a point."""

    @abstractmethod
    def hash_to_curve(self, message: bytes) -> Point:
        """RFC 9380 BLS12381G1_XMD:SHA-256_SSWU_RO_ under this project's domain separation tag."""

    @abstractmethod
    def encode(self, point: Point) -> bytes:
        """48-byte compressed encoding (the Zcash convention)."""

    @abstractmethod
    def decode(self, data: bytes) -> Point:
        """Inverse of `encode`. Refuses the identity, points off the curve or the subgroup, and any
        encoding that is not canonical.

        Raises:
            DecodeError: with the reason.
        """

    @abstractmethod
    def export_affine(self, point: Point) -> bytes:
        """96 bytes x || y, big-endian; for the cache of generators only."""

    @abstractmethod
    def import_affine(self, data: bytes) -> Point:
        """Inverse of `export_affine` without a subgroup check: only for bytes whose digest was checked."""

    @abstractmethod
    def _multiply_accumulate(self, tasks: Sequence[Task]) -> list[Point]:
        """For each task (points, scalars): sum s_i P_i, scalars in [0, r), at least one."""

    def msm(self, points: Sequence[Point], scalars: Sequence[int]) -> Point:
        """Multi-scalar multiplication sum s_i P_i; see `msm_many`."""
        return self.msm_many([(points, scalars)])[0]

    def msm_many(self, tasks: Sequence[Task]) -> list[Point]:
        """sum s_i P_i for each task (points, scalars), all tasks side by side on the machine's cores.

        Scalars are any integers with |s| < r. Negative ones negate the point instead of growing to 255
        bits, because the cost is proportional to the length of the scalars.

        Raises:
            UsageError: lengths differ, or a scalar is out of range (one implementation would reduce it, the other not).
        """
        results = [self.identity()] * len(tasks)
        prepared = {place: self._unsigned(*task) for place, task in enumerate(tasks) if len(task[0]) or len(task[1])}
        for place, result in zip(prepared, self._multiply_accumulate(list(prepared.values())), strict=True):
            results[place] = result
        return results

    def _unsigned(self, points: Sequence[Point], scalars: Sequence[int]) -> Task:
        if len(points) != len(scalars):
            raise UsageError(f"msm: {len(points)} points but {len(scalars)} scalars")
        smallest = min(scalars)
        if smallest <= -ORDER or max(scalars) >= ORDER:
            raise UsageError("msm: a scalar is not between -r and r; reduce it mod r first")
        if smallest < 0:
            points = [self.negate(p) if s < 0 else p for p, s in zip(points, scalars, strict=True)]
            scalars = [-s if s < 0 else s for s in scalars]
        return points, scalars

    def equal(self, left: Point, right: Point) -> bool:
        """Whether two points are the same group element."""
        return bool(left == right)

    def multiply(self, point: Point, scalar: int) -> Point:
        """s P."""
        return self.msm([point], [scalar])

    def sum(self, points: Sequence[Point]) -> Point:
        """Sum of points."""
        return reduce(self.add, points, self.identity())


class _Arkworks(Group):
    name = "arkworks"

    def identity(self) -> Point:
        return arkworks.G1Point.identity()

    def add(self, left: Point, right: Point) -> Point:
        return left + right

    def negate(self, point: Point) -> Point:
        return -point

    def hash_to_curve(self, message: bytes) -> Point:
        return arkworks.G1Point.hash_to_curve(message, HASH_TO_CURVE_TAG)

    def encode(self, point: Point) -> bytes:
        return bytes(point.to_compressed_bytes())

    def decode(self, data: bytes) -> Point:
        _check_compressed_form(data)
        try:
            point = arkworks.G1Point.from_compressed_bytes(data)
        except ValueError as error:
            raise DecodeError("point", f"not a point of the BLS12-381 G1 subgroup ({error})") from error
        if self.encode(point) != data:
            raise DecodeError("point", "encoding is not canonical")
        return point

    def export_affine(self, point: Point) -> bytes:
        return bytes(point.to_xy_bytes_be())

    def import_affine(self, data: bytes) -> Point:
        return arkworks.G1Point.from_xy_bytes_unchecked_be(data)

    def _multiply_accumulate(self, tasks: Sequence[Task]) -> list[Point]:
        workers = _workers()
        pieces: list[tuple[int, int, list[Point], list[Any]]] = []
        for place, (points, scalars) in enumerate(tasks):
            for some_points, some_scalars in _by_length(points, scalars):
                converted = [arkworks.Scalar.from_le_bytes(s.to_bytes(32, "little")) for s in some_scalars]
                bits = max(s.bit_length() for s in some_scalars)
                # Small work stays in this thread: the others may be busy with somebody's large work.
                parts = workers if len(converted) * bits >= _PARALLEL_COST else 1
                for i in range(parts):  # interleaved: scalars of one length stand together
                    mine = converted[i::parts]
                    pieces.append((len(mine) * bits, place, list(some_points[i::parts]), mine))
        sums = [self.identity()] * len(tasks)
        for place, total in _run(pieces, workers):
            sums[place] = sums[place] + total
        return sums


def _by_length(points: Sequence[Point], scalars: Sequence[int]) -> list[Task]:
    """One long scalar makes the library walk all of its windows for every point: short ones go apart."""
    short = [s >> _SHORT_BITS == 0 for s in scalars]
    if sum(short) < _SPLIT_TERMS or all(short):
        return [(points, scalars)]
    return [
        (
            [p for p, x in zip(points, short, strict=True) if x is side],
            [s for s, x in zip(scalars, short, strict=True) if x is side],
        )
        for side in (True, False)
    ]


def _run(pieces: list[tuple[int, int, list[Point], list[Any]]], workers: int) -> list[tuple[int, Point]]:
    """Largest pieces first; the binding releases the GIL."""
    pieces.sort(key=lambda piece: piece[0], reverse=True)

    def one(piece: tuple[int, int, list[Point], list[Any]]) -> tuple[int, Point]:
        _, place, points, scalars = piece
        return place, arkworks.G1Point.multiexp_unchecked(points, scalars)

    if workers == 1 or len(pieces) == 1 or sum(piece[0] for piece in pieces) < _PARALLEL_COST:
        return [one(piece) for piece in pieces]
    return list(_pool().map(one, pieces))


@cache
def _workers() -> int:
    return max(1, min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_workers(), thread_name_prefix="msm")


class _Reference(Group):
    """py_ecc, projective coordinates, with a bucket method of our own so that a proof verifies in seconds."""

    name = "reference"

    @staticmethod
    @cache
    def _curve() -> Any:
        from py_ecc.optimized_bls12_381 import optimized_curve

        return optimized_curve

    def identity(self) -> Point:
        return self._curve().Z1

    def add(self, left: Point, right: Point) -> Point:
        return self._curve().add(left, right)

    def negate(self, point: Point) -> Point:
        return self._curve().neg(point)

    def equal(self, left: Point, right: Point) -> bool:
        return bool(self._curve().eq(left, right))

    def hash_to_curve(self, message: bytes) -> Point:
        from py_ecc.bls.hash_to_curve import hash_to_G1

        return hash_to_G1(message, HASH_TO_CURVE_TAG, sha256)

    def encode(self, point: Point) -> bytes:
        from py_ecc.bls.point_compression import compress_G1

        return int(compress_G1(point)).to_bytes(POINT_BYTES, "big")

    def decode(self, data: bytes) -> Point:
        from py_ecc.bls.point_compression import decompress_G1

        _check_compressed_form(data)
        try:
            point = decompress_G1(int.from_bytes(data, "big"))
        except ValueError as error:
            raise DecodeError("point", f"not a point of BLS12-381 ({error})") from error
        if not self.equal(self._curve().multiply(point, ORDER), self.identity()):
            raise DecodeError("point", "not in the subgroup of prime order")
        if self.encode(point) != data:
            raise DecodeError("point", "encoding is not canonical")
        return point

    def export_affine(self, point: Point) -> bytes:
        x, y = self._curve().normalize(point)
        return int(x).to_bytes(48, "big") + int(y).to_bytes(48, "big")

    def import_affine(self, data: bytes) -> Point:
        field = self._curve().FQ
        return field(int.from_bytes(data[:48], "big")), field(int.from_bytes(data[48:], "big")), field(1)

    def _multiply_accumulate(self, tasks: Sequence[Task]) -> list[Point]:
        return [self._pippenger(*task) for task in tasks]

    def _pippenger(self, points: Sequence[Point], scalars: Sequence[int]) -> Point:
        # Pippenger: per window, sum points into buckets by digit, then sum k * bucket_k by running sums.
        curve = self._curve()
        width = max(2, min(12, len(points).bit_length() - 3))
        windows = -(-max(s.bit_length() for s in scalars) // width)
        total = self.identity()
        for window in reversed(range(windows)):
            for _ in range(width):
                total = curve.double(total)
            buckets = [self.identity()] * (1 << width)
            for point, scalar in zip(points, scalars, strict=True):
                digit = (scalar >> (window * width)) & ((1 << width) - 1)
                if digit:
                    buckets[digit] = curve.add(buckets[digit], point)
            running = self.identity()
            for bucket in reversed(buckets[1:]):
                running = curve.add(running, bucket)
                total = curve.add(total, running)
        return total


def _check_compressed_form(data: bytes) -> None:
    if len(data) != POINT_BYTES:
        raise DecodeError("point", f"expected {POINT_BYTES} bytes, got {len(data)}")
    if not data[0] & 0x80:
        raise DecodeError("point", "the compression flag is not set")
    if data[0] & 0x40:
        raise DecodeError("point", "the identity is not allowed here")
    if int.from_bytes(bytes([data[0] & 0x1F]) + data[1:], "big") >= FIELD:
        raise DecodeError("point", "the coordinate is not reduced")


ARKWORKS: Final[Group] = _Arkworks()
REFERENCE: Final[Group] = _Reference()


def group_by_name(name: str) -> Group:
    """`arkworks` (default everywhere) or `reference`.

    Raises:
        UsageError: any other name.
    """
    for group in (ARKWORKS, REFERENCE):
        if group.name == name:
            return group
    raise UsageError(f"unknown backend {name!r}: choose 'arkworks' or 'reference'")
