"""Dealt randomness satisfies its equations, is handed out once, and its plans are read strictly and within bounds."""

from __future__ import annotations

import contextlib
import dataclasses
import tracemalloc
from itertools import accumulate, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import DecodeError, UsageError
from privacy.mpc import dealer
from privacy.mpc.dealer import (
    MAX_PLAN_BYTES,
    MAX_PLAN_PRODUCTS,
    MAX_PLAN_SCALARS,
    MAX_PLAN_WORDS,
    BinaryTriple,
    BitShares,
    Correlations,
    ElementTriple,
    FieldProducts,
    MatrixTriple,
    deal,
    dealt_size,
    decode_plan,
    encode_plan,
    plan_digest,
)
from privacy.zk.group import ORDER
from privacy.zk.randomness import SecretStream
from privacy.zk.wire import pack_integers

PLAN = (
    MatrixTriple(5, 3, 4),
    ElementTriple(6),
    BinaryTriple(7),
    BitShares(200),
    FieldProducts((1, 1, 1, 3, 3, 2, 1)),
    MatrixTriple(1, 1, 1),
    FieldProducts((40,)),
)

sizes = st.integers(1, 5)
items = st.one_of(
    st.builds(MatrixTriple, sizes, sizes, sizes),
    st.builds(ElementTriple, sizes),
    st.builds(BinaryTriple, sizes),
    st.builds(BitShares, sizes),
    st.builds(FieldProducts, st.lists(st.integers(1, 3), min_size=1, max_size=9).map(tuple)),
)
plans = st.lists(items, max_size=5).map(tuple)


def both(plan) -> tuple[Correlations, Correlations]:
    left, right = deal(plan)
    return Correlations("A", plan, left), Correlations("B", plan, right)


def take(party: Correlations, item):
    match item:
        case MatrixTriple(rows, inner, columns):
            return party.matrix_triple(rows, inner, columns)
        case ElementTriple(count):
            return party.element_triple(count)
        case BinaryTriple(count):
            return party.binary_triple(count)
        case BitShares(count):
            return party.bit_shares(count)
        case FieldProducts(lengths):
            return party.field_products(lengths)


def check(item, of_A, of_B) -> None:
    if isinstance(item, FieldProducts):
        (R_A, r_A), (R_B, r_B) = of_A, of_B
        assert all(0 <= value < ORDER for vector in (R_A, r_A, R_B, r_B) for value in vector)
        ends = list(accumulate(item.lengths, initial=0))
        assert len(R_A) == len(R_B) == ends[-1]
        for group, (start, end) in enumerate(pairwise(ends)):
            product = sum(x * y for x, y in zip(R_A[start:end], R_B[start:end], strict=True))
            assert (r_A[group] + r_B[group]) % ORDER == product % ORDER
        return
    if isinstance(item, BitShares):
        bits = of_A[1] ^ of_B[1]
        assert bits.max() <= 1 and np.array_equal(of_A[0] + of_B[0], bits)
        return
    if isinstance(item, BinaryTriple):
        a, b, c = (x ^ y for x, y in zip(of_A, of_B, strict=True))
        assert np.array_equal(c, a & b)
        return
    a, b, c = ([int(v) for v in (x + y).ravel()] for x, y in zip(of_A, of_B, strict=True))
    if isinstance(item, ElementTriple):
        assert c == [x * y % 2**64 for x, y in zip(a, b, strict=True)]
        return
    rows, inner, columns = item.rows, item.inner, item.columns
    assert c == [
        sum(a[i * inner + k] * b[k * columns + j] for k in range(inner)) % 2**64
        for i in range(rows)
        for j in range(columns)
    ]


@given(plans)
@settings(max_examples=50, deadline=None)
def test_every_item_satisfies_its_equation(plan) -> None:
    A, B = both(plan)
    for item in plan:
        check(item, take(A, item), take(B, item))
    assert A.left == B.left == 0


@given(plans)
@settings(deadline=None)
def test_plans_round_trip_and_dealt_bytes_have_the_announced_sizes(plan) -> None:
    data = encode_plan(plan)
    assert decode_plan(data) == plan
    assert tuple(len(part) for part in deal(plan)) == (dealt_size("A", plan), dealt_size("B", plan))


@given(plans, st.data())
@settings(deadline=None)
def test_a_mutated_plan_is_another_plan_or_refused(plan, data) -> None:
    original = encode_plan(plan)
    at = data.draw(st.integers(0, len(original) - 1))
    mutated = original[:at] + bytes([data.draw(st.integers(0, 255))]) + original[at + 1 :]
    try:
        found = decode_plan(mutated)
    except DecodeError:
        return
    assert encode_plan(found) == mutated


@given(st.binary(max_size=60))
@settings(deadline=None)
def test_any_bytes_decode_or_are_refused(data) -> None:
    for candidate in (data, dealer._TAG + data):
        with contextlib.suppress(DecodeError):
            assert encode_plan(decode_plan(candidate)) == candidate


def test_plans_that_differ_anywhere_have_different_digests() -> None:
    digests = {plan_digest(PLAN), plan_digest(PLAN[:-1]), plan_digest((*PLAN[1:], PLAN[0]))}
    altered = 0
    for place, item in enumerate(PLAN):
        for field in dataclasses.fields(item):
            value = getattr(item, field.name)
            other = (*value, 1) if isinstance(value, tuple) else value + 1
            changed = dataclasses.replace(item, **{field.name: other})
            digests.add(plan_digest((*PLAN[:place], changed, *PLAN[place + 1 :])))
            altered += 1
    assert len(digests) == 3 + altered
    assert plan_digest((ElementTriple(3),)) != plan_digest((BinaryTriple(3),))


HUGE = [
    (ElementTriple(MAX_PLAN_WORDS // 3 + 1),),
    (ElementTriple(MAX_PLAN_WORDS // 6 + 1), BinaryTriple(MAX_PLAN_WORDS // 6 + 1)),
    (BitShares(MAX_PLAN_WORDS // 2 + 1),),
    (MatrixTriple(1 << 11, 1 << 11, 1 << 9),),
    (MatrixTriple(1 << 31, 1 << 31, 1 << 31),),
]


@pytest.mark.parametrize("plan", HUGE)
def test_more_work_than_allowed_is_refused_before_anything_is_allocated(plan) -> None:
    numbers = {MatrixTriple: 0, ElementTriple: 1, BinaryTriple: 2, BitShares: 3}
    data = dealer._TAG + pack_integers([len(plan)], 4)
    for item in plan:
        data += bytes([numbers[type(item)]]) + pack_integers(list(dataclasses.astuple(item)), 4)
    refused_cheaply(plan, data)


def test_more_scalars_than_allowed_are_refused_before_anything_is_allocated() -> None:
    runs = [(1, MAX_PLAN_SCALARS // 2 + 1)], [(MAX_PLAN_SCALARS, 1)], [(2**32 - 1, 2**32 - 1)], [(1, 9), (2, 2**32 - 1)]
    for some in runs:
        numbers = [number for run in some for number in run]
        data = dealer._TAG + pack_integers([1], 4) + b"\x04" + pack_integers([len(some), *numbers], 4)
        refused_cheaply(None, data)
    refused_cheaply((FieldProducts((MAX_PLAN_SCALARS,)),), None)


def refused_cheaply(plan, data) -> None:
    tracemalloc.start()
    try:
        if data is not None:
            with pytest.raises(DecodeError, match="more than"):
                decode_plan(data)
        if plan is not None:
            for refused in (encode_plan, deal, plan_digest, lambda p: dealt_size("A", p)):
                with pytest.raises(UsageError, match="more than"):
                    refused(plan)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_the_limits_leave_room_for_the_largest_batch() -> None:
    patients, neurons, bits = 64, 512, 64
    words = 3 * 13 * patients * neurons
    assert words < MAX_PLAN_WORDS // 16
    assert 3 * patients * neurons * (bits + 4) < MAX_PLAN_SCALARS
    assert patients * 4096 * 256 < MAX_PLAN_PRODUCTS


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "truncated"),
        (pack_integers([1], 4), "truncated"),
        (pack_integers([1], 4) + b"\x05" + pack_integers([1], 4), "kind 5"),
        (pack_integers([1], 4) + b"\x01" + pack_integers([0], 4), "size is 0"),
        (pack_integers([1], 4) + b"\x00" + pack_integers([1, 0, 1], 4), "size is 0"),
        (pack_integers([1], 4) + b"\x04" + pack_integers([0], 4), "size is 0"),
        (pack_integers([1], 4) + b"\x04" + pack_integers([1, 3, 0], 4), "size is 0"),
        (pack_integers([1], 4) + b"\x04" + pack_integers([2, 3, 1, 3, 1], 4), "one length"),
        (pack_integers([1], 4) + b"\x04" + pack_integers([2**31, 3, 1], 4), "truncated"),
        (pack_integers([0], 4) + b"\x00", "too many"),
    ],
)
def test_a_plan_that_is_not_canonical_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        decode_plan(dealer._TAG + body)


def test_a_plan_of_another_version_or_too_many_bytes_is_refused() -> None:
    with pytest.raises(DecodeError):
        decode_plan(encode_plan(PLAN).replace(b"/v1", b"/v2"))
    with pytest.raises(DecodeError, match="bytes"):
        decode_plan(encode_plan(PLAN) + bytes(MAX_PLAN_BYTES))
    with pytest.raises(UsageError, match="bytes"):
        encode_plan((FieldProducts((1, 2) * (MAX_PLAN_BYTES // 16)),))


@pytest.mark.parametrize("item", [ElementTriple(0), MatrixTriple(1, -1, 1), FieldProducts(()), FieldProducts((2, 0))])
def test_sizes_below_one_are_refused(item) -> None:
    for refused in (encode_plan, deal):
        with pytest.raises(UsageError, match="at least 1"):
            refused((item,))


def test_things_that_are_no_items_are_refused() -> None:
    with pytest.raises(UsageError, match="str"):
        deal(("MatrixTriple",))


def test_items_come_in_plan_order_once_and_a_refusal_uses_nothing_up() -> None:
    A, B = both(PLAN)
    for party in (A, B):
        with pytest.raises(UsageError, match="item 0"):
            party.element_triple(6)
        with pytest.raises(UsageError, match="item 0"):
            party.matrix_triple(5, 3, 5)
    check(PLAN[0], take(A, PLAN[0]), take(B, PLAN[0]))
    with pytest.raises(UsageError, match="item 1"):
        take(A, PLAN[0])
    for item in PLAN[1:]:
        check(item, take(A, item), take(B, item))
    for party in (A, B):
        with pytest.raises(UsageError, match="used up"):
            take(party, PLAN[-1])


def test_no_mask_appears_twice() -> None:
    plan = (FieldProducts((3, 2)), FieldProducts((3, 2)), ElementTriple(8), ElementTriple(8))
    seen: list[int] = []
    for party in (*both(plan), *both(plan)):
        for item in plan:
            seen += [int(value) for part in take(party, item) for value in part]
    assert len(set(seen)) == len(seen)


def test_a_is_dealt_its_seed_alone_and_b_never_sees_it() -> None:
    left, right = deal(PLAN)
    assert len(left) == 32 and left not in right and right[:32] != left
    assert deal(PLAN)[0] != left


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"\0", lambda d: b""])
def test_dealt_bytes_of_another_size_are_refused(change) -> None:
    for role, part in zip("AB", deal(PLAN), strict=True):
        with pytest.raises(DecodeError, match="expected"):
            Correlations(role, PLAN, change(part))


@pytest.mark.parametrize("value", [ORDER, ORDER + 1, 2**256 - 1])
def test_a_dealt_scalar_that_is_not_below_the_order_is_refused(value: int) -> None:
    plan = (FieldProducts((2, 2)),)
    _, dealt = deal(plan)
    with pytest.raises(DecodeError, match="group order"):
        Correlations("B", plan, dealt[:-32] + value.to_bytes(32, "little"))
    Correlations("B", plan, dealt[:-32] + (ORDER - 1).to_bytes(32, "little"))


def test_parties_have_two_names() -> None:
    with pytest.raises(UsageError, match="'C'"):
        Correlations("C", (), bytes(32))


def test_scalars_are_drawn_by_rejection_and_ties_are_compared_exactly() -> None:
    top = ORDER >> 192
    rows = [(0, 0, 0, top), (1, 0, 0, top + 1), tuple((ORDER >> 64 * k) % 2**64 for k in range(4)), (0, 0, 0, top - 1)]
    limbs = np.array([*rows, tuple(((ORDER - 1) >> 64 * k) % 2**64 for k in range(4))], dtype=np.uint64)
    assert dealer._below_order(limbs).tolist() == [True, False, False, True, True]
    values = dealer._integers(dealer._drawn_scalars(SecretStream(), 4000))
    assert len(values) == 4000 and max(values) < ORDER
    # The mean of 4000 uniform values lies within 8 standard deviations of r/2.
    assert abs(sum(values) / 4000 / ORDER - 0.5) < 8 * 0.2887 / 4000**0.5


def test_a_stream_with_a_key_is_what_its_other_holders_expand() -> None:
    key = bytes(range(32))
    assert SecretStream(key).bytes(100) == SecretStream(key).bytes(100) != SecretStream().bytes(100)
    assert SecretStream(key).bytes(50) != SecretStream(key[::-1]).bytes(50)
    for wrong in (b"", bytes(16), bytes(33)):
        with pytest.raises(UsageError, match="32 bytes"):
            SecretStream(wrong)
