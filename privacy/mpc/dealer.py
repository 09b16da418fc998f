"""Correlated randomness for two parties, from a dealer that sees no data (docs/spec/protocol.md, section 7).

Both parties follow one public plan: a tuple of items, in the order in which the computation asks for them. The dealer
draws two seeds. Party A is dealt its seed and nothing else; party B is dealt its seed and, in plan order, the
corrections that make the two expansions satisfy the items' equations:

    MatrixTriple, ElementTriple    c_A + c_B = (a_A + a_B) (b_A + b_B) mod 2^64     correction: the words c_B
    BinaryTriple                   c_A ^ c_B = (a_A ^ a_B) & (b_A ^ b_B)            correction: the words c_B
    BitShares                      word_A + word_B = bit_A ^ bit_B mod 2^64         correction: the words word_B
    FieldProducts                  r_A + r_B = <R_A, R_B> mod r, for every group    correction: the scalars r_B

A correction is uniform to the one who receives it, because A's part of it comes from a seed that B never sees. Items
are handed out once and in order, so no mask is ever used twice.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, pairwise, repeat
from operator import mul
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from privacy.errors import DecodeError, UsageError
from privacy.zk.group import ORDER, SCALAR_BYTES
from privacy.zk.randomness import SecretStream
from privacy.zk.wire import Reader, pack_integers

__all__ = [
    "MAX_PLAN_BYTES",
    "MAX_PLAN_PRODUCTS",
    "MAX_PLAN_SCALARS",
    "MAX_PLAN_WORDS",
    "BinaryTriple",
    "BitShares",
    "Correlations",
    "ElementTriple",
    "FieldProducts",
    "MatrixTriple",
    "Plan",
    "PlanItem",
    "Role",
    "deal",
    "dealt_size",
    "decode_plan",
    "encode_plan",
    "plan_digest",
]

Role: TypeAlias = Literal["A", "B"]
Words: TypeAlias = NDArray[np.uint64]

MAX_PLAN_WORDS: Final = 1 << 26
"""Words of 64 bits that one party holds of one plan, at most: half a gigabyte."""

MAX_PLAN_SCALARS: Final = 1 << 24
"""Scalars of F_r that one party holds of one plan, at most: half a gigabyte."""

MAX_PLAN_PRODUCTS: Final = 1 << 30
"""Multiplications modulo 2^64 that one plan's matrix triples cost the dealer, at most: a few seconds."""

MAX_PLAN_BYTES: Final = 1 << 20

_SEED_BYTES: Final = 32
_WORD: Final = np.dtype("<u8")
_WORD_BYTES: Final = 8
_TAG: Final = b"sealproof/mpc-plan/v1"
_HIGH_LIMB: Final = np.uint64(ORDER >> 192)
_PIECE_SCALARS: Final = 1 << 14
"""Scalars that are Python integers at a time while a plan is dealt."""


@dataclass(frozen=True)
class MatrixTriple:
    """a (rows, inner), b (inner, columns) and c = a @ b, each shared additively mod 2^64."""

    rows: int
    inner: int
    columns: int


@dataclass(frozen=True)
class ElementTriple:
    """a, b and c = a b, `count` elements each, shared additively mod 2^64."""

    count: int


@dataclass(frozen=True)
class BinaryTriple:
    """a, b and c = a & b, `count` words each, shared by XOR."""

    count: int


@dataclass(frozen=True)
class BitShares:
    """`count` uniform bits, each shared additively mod 2^64 and by XOR."""

    count: int


@dataclass(frozen=True)
class FieldProducts:
    """For each group of `lengths`: a vector R_A of A's, one R_B of B's and additive shares mod r of <R_A, R_B>."""

    lengths: tuple[int, ...]


PlanItem: TypeAlias = MatrixTriple | ElementTriple | BinaryTriple | BitShares | FieldProducts
Plan: TypeAlias = tuple[PlanItem, ...]

_KINDS: Final[Mapping[int, tuple[Callable[..., PlanItem], int]]] = MappingProxyType(
    {0: (MatrixTriple, 3), 1: (ElementTriple, 1), 2: (BinaryTriple, 1), 3: (BitShares, 1), 4: (FieldProducts, 0)}
)
"""Wire number of every item, and of how many sizes it consists; products have a count of runs first."""

_NUMBERS: Final = MappingProxyType({kind: number for number, (kind, _) in _KINDS.items()})


@dataclass(frozen=True)
class _Cost:
    """What an item takes: words and scalars that each party holds of it, corrections for B, matrix products."""

    words: int = 0
    scalars: int = 0
    correction_words: int = 0
    correction_scalars: int = 0
    products: int = 0


def _cost(item: PlanItem) -> _Cost:
    match item:
        case MatrixTriple(rows, inner, columns):
            out = rows * columns
            return _Cost(words=rows * inner + inner * columns + out, correction_words=out, products=out * inner)
        case ElementTriple(count) | BinaryTriple(count):
            return _Cost(words=3 * count, correction_words=count)
        case BitShares(count):
            return _Cost(words=2 * count, correction_words=count)
        case FieldProducts(lengths):
            return _product_cost(sum(lengths), len(lengths))


def _product_cost(total: int, groups: int) -> _Cost:
    return _Cost(scalars=total + groups, correction_scalars=groups)


def _sizes(item: PlanItem) -> tuple[int, ...]:
    match item:
        case MatrixTriple(rows, inner, columns):
            return rows, inner, columns
        case FieldProducts(lengths):
            return lengths
        case _:
            return (item.count,)


class _Budget:
    """Adds up what a plan takes and refuses it, before anything is allocated, when it is too much."""

    def __init__(self) -> None:
        self._words = self._scalars = self._products = 0

    def spend(self, cost: _Cost) -> None:
        """Raises UsageError."""
        self._words += cost.words
        self._scalars += cost.scalars
        self._products += cost.products
        for what, total, limit in (
            ("words", self._words, MAX_PLAN_WORDS),
            ("scalars", self._scalars, MAX_PLAN_SCALARS),
            ("products", self._products, MAX_PLAN_PRODUCTS),
        ):
            if total > limit:
                raise UsageError(f"the plan takes more than {limit} {what}: compute fewer patients at a time")


def _check_plan(plan: Sequence[PlanItem]) -> list[_Cost]:
    """The cost of every item. Raises UsageError for a plan that `decode_plan` would refuse."""
    budget = _Budget()
    costs = []
    for item in plan:
        if type(item) not in _NUMBERS:
            raise UsageError(f"a plan has no items of type {type(item).__name__}")
        sizes = _sizes(item)
        if not sizes or min(sizes) < 1:
            raise UsageError(f"{type(item).__name__}: every size is at least 1")
        costs.append(_cost(item))
        budget.spend(costs[-1])
    return costs


def encode_plan(plan: Plan) -> bytes:
    """Canonical bytes of a plan: `_TAG`, u32 items, then of each item u8 kind and its sizes as u32, little-endian.

    FieldProducts write u32 runs, then (length, times) of each run of equal lengths.

    Raises:
        UsageError: a size below 1, or more work or bytes than a plan may have.
    """
    _check_plan(plan)
    parts = [_TAG, pack_integers([len(plan)], 4)]
    for item in plan:
        parts.append(bytes([_NUMBERS[type(item)]]))
        if isinstance(item, FieldProducts):
            runs = list(_runs(item.lengths))
            parts.append(pack_integers([len(runs), *chain.from_iterable(runs)], 4))
        else:
            parts.append(pack_integers(_sizes(item), 4))
    data = b"".join(parts)
    if len(data) > MAX_PLAN_BYTES:
        raise UsageError(f"the plan takes {len(data)} bytes, more than {MAX_PLAN_BYTES}")
    return data


def decode_plan(data: bytes) -> Plan:
    """Inverse of `encode_plan`, total over all byte strings. Work and memory are bounded before they are spent.

    Raises:
        DecodeError: anything that `encode_plan` does not return.
    """
    if len(data) > MAX_PLAN_BYTES:
        raise DecodeError("plan", f"more than {MAX_PLAN_BYTES} bytes")
    reader = Reader("plan", data)
    reader.expect(_TAG)
    budget = _Budget()
    items: list[PlanItem] = []
    for _ in range(reader.integers(1, 4)[0]):
        number = reader.integers(1, 1)[0]
        if number not in _KINDS:
            raise DecodeError("plan", f"no item has kind {number}")
        kind, count = _KINDS[number]
        sizes = reader.integers(count or 2 * reader.integers(1, 4)[0], 4)
        if not sizes or 0 in sizes:
            raise DecodeError("plan", "a size is 0")
        try:
            if kind is FieldProducts:
                items.append(_decode_products(sizes, budget))
            else:
                items.append(kind(*sizes))
                budget.spend(_cost(items[-1]))
        except UsageError as error:
            raise DecodeError("plan", str(error)) from None
    reader.end()
    return tuple(items)


def _decode_products(numbers: list[int], budget: _Budget) -> FieldProducts:
    lengths, times = numbers[::2], numbers[1::2]
    if any(left == right for left, right in pairwise(lengths)):
        raise DecodeError("plan", "neighbouring runs of one length")
    budget.spend(_product_cost(sum(map(mul, lengths, times)), sum(times)))
    return FieldProducts(tuple(chain.from_iterable(map(repeat, lengths, times))))


def plan_digest(plan: Plan) -> bytes:
    """SHA-256 of the plan's canonical bytes; the parties and the dealer compare it. Raises UsageError."""
    return hashlib.sha256(encode_plan(plan)).digest()


def dealt_size(role: Role, plan: Plan) -> int:
    """How many bytes `deal` gives to this party. Raises UsageError for a plan that cannot be dealt."""
    return _dealt_size(role, _check_plan(plan))


def _dealt_size(role: Role, costs: Sequence[_Cost]) -> int:
    if role == "A":
        return _SEED_BYTES
    words = sum(cost.correction_words for cost in costs)
    return _SEED_BYTES + _WORD_BYTES * words + SCALAR_BYTES * sum(cost.correction_scalars for cost in costs)


def deal(plan: Plan) -> tuple[bytes, bytes]:
    """Fresh correlated randomness: what A is dealt and what B is dealt, `dealt_size` bytes each. Both are secret.

    Raises:
        UsageError: a size below 1, or more work than a plan may have.
    """
    _check_plan(plan)
    seeds = secrets.token_bytes(_SEED_BYTES), secrets.token_bytes(_SEED_BYTES)
    left, right = (SecretStream(seed) for seed in seeds)
    parts = [seeds[1]]
    for item in plan:
        if isinstance(item, FieldProducts):
            parts.append(_product_corrections(item, left, right))
        else:
            parts.append(_word_correction(item, left, right).tobytes())
    return seeds[0], b"".join(parts)


def _word_correction(
    item: MatrixTriple | ElementTriple | BinaryTriple | BitShares, left: SecretStream, right: SecretStream
) -> Words:
    if isinstance(item, BitShares):
        word_A, bit_A, bit_B = _drawn(left, item.count), _drawn_bits(left, item.count), _drawn_bits(right, item.count)
        return (bit_A ^ bit_B) - word_A
    a_A, b_A, c_A = (_drawn(left, *shape) for shape in _shapes(item))
    a_B, b_B = (_drawn(right, *shape) for shape in _shapes(item)[:2])
    if isinstance(item, BinaryTriple):
        return ((a_A ^ a_B) & (b_A ^ b_B)) ^ c_A
    if isinstance(item, ElementTriple):
        return (a_A + a_B) * (b_A + b_B) - c_A
    return (a_A + a_B) @ (b_A + b_B) - c_A


def _shapes(
    item: MatrixTriple | ElementTriple | BinaryTriple,
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    if isinstance(item, MatrixTriple):
        return (item.rows, item.inner), (item.inner, item.columns), (item.rows, item.columns)
    return (item.count,), (item.count,), (item.count,)


def _product_corrections(item: FieldProducts, left: SecretStream, right: SecretStream) -> bytes:
    """r_B = <R_A, R_B> - r_A mod r for every group. Scalars become Python integers a piece at a time."""
    total, groups = sum(item.lengths), len(item.lengths)
    R_A, r_A = _drawn_scalars(left, total), _drawn_scalars(left, groups)
    R_B = _drawn_scalars(right, total)
    out = []
    at = group = 0
    for length, times in _runs(item.lengths):
        step = max(1, _PIECE_SCALARS // length)
        for first in range(0, times, step):
            count = min(step, times - first)
            xs, ys = _integers(R_A[at : at + count * length]), _integers(R_B[at : at + count * length])
            shares = _integers(r_A[group : group + count])
            products = _inner_products(xs, ys, length)
            out += [((p - s) % ORDER).to_bytes(SCALAR_BYTES, "little") for p, s in zip(products, shares, strict=True)]
            at += count * length
            group += count
    return b"".join(out)


def _inner_products(xs: list[int], ys: list[int], length: int) -> Iterable[int]:
    if length == 1:
        return map(mul, xs, ys)
    return (sum(map(mul, xs[at : at + length], ys[at : at + length])) for at in range(0, len(xs), length))


def _runs(lengths: Iterable[int]) -> Iterator[tuple[int, int]]:
    return ((length, sum(1 for _ in run)) for length, run in groupby(lengths))


def _drawn(stream: SecretStream, *shape: int) -> Words:
    return np.frombuffer(stream.bytes(_WORD_BYTES * math.prod(shape)), dtype=_WORD).astype(np.uint64).reshape(shape)


def _drawn_bits(stream: SecretStream, count: int) -> Words:
    return _drawn(stream, count) & np.uint64(1)


def _drawn_scalars(stream: SecretStream, count: int) -> Words:
    """Uniform in [0, r) by rejection from 255 bits, as little-endian limbs (count, 4)."""
    parts: list[Words] = []
    missing = count
    while missing:
        limbs = _drawn(stream, missing + missing // 8 + 8, 4)
        limbs[:, 3] &= np.uint64((1 << 63) - 1)
        good = limbs[_below_order(limbs)][:missing]
        parts.append(good)
        missing -= len(good)
    return np.concatenate(parts)


def _below_order(limbs: Words) -> NDArray[np.bool_]:
    below: NDArray[np.bool_] = limbs[:, 3] < _HIGH_LIMB
    for place in np.flatnonzero(limbs[:, 3] == _HIGH_LIMB):
        below[place] = _integers(limbs[place : place + 1])[0] < ORDER
    return below


def _integers(limbs: Words) -> list[int]:
    data = limbs.astype(_WORD).tobytes()
    return [int.from_bytes(data[at : at + SCALAR_BYTES], "little") for at in range(0, len(data), SCALAR_BYTES)]


class Correlations:
    """One party's part of a dealt plan, handed out once and in plan order.

    Args:
        role: "A" or "B".
        plan: the plan that was dealt.
        dealt: the bytes that the dealer made for this party. Secret.

    Raises:
        UsageError: another role, or a plan that cannot be dealt.
        DecodeError: `dealt` has another size, or holds a scalar that is not below r.
    """

    def __init__(self, role: Role, plan: Plan, dealt: bytes) -> None:
        if role not in ("A", "B"):
            raise UsageError(f"a party is 'A' or 'B', not {role!r}")
        costs = _check_plan(plan)
        expected = _dealt_size(role, costs)
        if len(dealt) != expected:
            raise DecodeError("dealt randomness", f"expected {expected} bytes for {role}, got {len(dealt)}")
        self._is_first = role == "A"
        self._plan = plan
        self._at = 0
        self._stream = SecretStream(dealt[:_SEED_BYTES])
        self._corrections: list[Words] = []
        if not self._is_first:
            self._corrections = _split(dealt, costs)

    @property
    def left(self) -> int:
        """How many items of the plan have not been handed out."""
        return len(self._plan) - self._at

    def matrix_triple(self, rows: int, inner: int, columns: int) -> tuple[Words, Words, Words]:
        """This party's shares of a (rows, inner), b (inner, columns), c (rows, columns). Raises UsageError."""
        return self._triple(MatrixTriple(rows, inner, columns))

    def element_triple(self, count: int) -> tuple[Words, Words, Words]:
        """This party's shares of a, b and c = a b, shape (count,). Raises UsageError."""
        return self._triple(ElementTriple(count))

    def binary_triple(self, count: int) -> tuple[Words, Words, Words]:
        """This party's XOR shares of a, b and c = a & b, shape (count,). Raises UsageError."""
        return self._triple(BinaryTriple(count))

    def bit_shares(self, count: int) -> tuple[Words, Words]:
        """This party's arithmetic and XOR shares of uniform bits, shape (count,). Raises UsageError."""
        correction = self._next(BitShares(count))
        words = _drawn(self._stream, count) if correction is None else correction
        return words, _drawn_bits(self._stream, count)

    def field_products(self, lengths: Sequence[int]) -> tuple[list[int], list[int]]:
        """This party's mask vectors, all groups in one list, and its share mod r of each group's product.

        Raises:
            UsageError: not the next item of the plan.
        """
        correction = self._next(FieldProducts(tuple(lengths)))
        masks = _drawn_scalars(self._stream, sum(lengths))
        shares = _drawn_scalars(self._stream, len(lengths)) if correction is None else correction
        return _integers(masks), _integers(shares)

    def _triple(self, item: MatrixTriple | ElementTriple | BinaryTriple) -> tuple[Words, Words, Words]:
        correction = self._next(item)
        shape_a, shape_b, shape_c = _shapes(item)
        a, b = _drawn(self._stream, *shape_a), _drawn(self._stream, *shape_b)
        return a, b, _drawn(self._stream, *shape_c) if correction is None else correction.reshape(shape_c)

    def _next(self, asked: PlanItem) -> Words | None:
        """B's correction for the next item, None for A. Whatever is refused here has used nothing up."""
        if not self.left:
            raise UsageError("the plan is used up: nothing is handed out twice")
        planned = self._plan[self._at]
        if asked != planned:
            raise UsageError(f"item {self._at} of the plan is {_describe(planned)}, asked for {_describe(asked)}")
        self._at += 1
        return None if self._is_first else self._corrections[self._at - 1]


def _split(dealt: bytes, costs: Sequence[_Cost]) -> list[Words]:
    """B's corrections item by item: words, or limbs (groups, 4)."""
    corrections = []
    at = _SEED_BYTES
    for cost in costs:
        size = _WORD_BYTES * cost.correction_words + SCALAR_BYTES * cost.correction_scalars
        words = np.frombuffer(dealt, dtype=_WORD, count=size // _WORD_BYTES, offset=at).astype(np.uint64)
        if cost.correction_scalars:
            words = words.reshape(-1, 4)
            if not _below_order(words).all():
                raise DecodeError("dealt randomness", "a scalar is not below the group order")
        corrections.append(words)
        at += size
    return corrections


def _describe(item: PlanItem) -> str:
    if isinstance(item, FieldProducts):
        return f"FieldProducts of {len(item.lengths)} groups"
    return repr(item)
