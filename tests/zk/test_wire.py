"""Proof bytes are read strictly: fixed widths, canonical values, nothing left over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import DecodeError
from privacy.zk.group import ARKWORKS, ORDER
from privacy.zk.wire import Reader, pack_integers, pack_scalars


@given(st.lists(st.integers(0, ORDER - 1), max_size=8))
def test_scalars_round_trip(values: list[int]) -> None:
    reader = Reader("x", pack_scalars(values))
    assert reader.scalars(len(values)) == values
    reader.end()


@given(st.integers(1, 40), st.data())
def test_signed_integers_round_trip(width: int, data: st.DataObject) -> None:
    limit = 1 << (8 * width - 1)
    values = data.draw(st.lists(st.integers(-limit, limit - 1), max_size=6))
    reader = Reader("x", pack_integers(values, width, signed=True))
    assert reader.integers(len(values), width, signed=True) == values
    reader.end()


@given(st.binary(max_size=96), st.integers(1, 12))
def test_what_is_read_packs_to_the_bytes_that_were_read(data: bytes, width: int) -> None:
    count = len(data) // width
    for signed in (False, True):
        values = Reader("x", data).integers(count, width, signed=signed)
        assert pack_integers(values, width, signed=signed) == data[: count * width]


@pytest.mark.parametrize("value", [ORDER, ORDER + 1, (1 << 256) - 1])
def test_a_scalar_that_is_not_reduced_is_refused(value: int) -> None:
    data = pack_scalars([1]) + value.to_bytes(32, "little") + pack_scalars([2])
    with pytest.raises(DecodeError, match="not below the group order"):
        Reader("x", data).scalars(3)


def test_the_largest_scalar_is_accepted() -> None:
    assert Reader("x", pack_scalars([ORDER - 1])).scalars(1) == [ORDER - 1]


def test_truncated_bytes_are_refused() -> None:
    for missing in (1, 31, 32):
        with pytest.raises(DecodeError, match="truncated"):
            Reader("x", bytes(64 - missing)).scalars(2)


def test_trailing_bytes_are_refused() -> None:
    reader = Reader("thing", bytes(33))
    reader.scalars(1)
    with pytest.raises(DecodeError, match="thing: 1 bytes too many"):
        reader.end()


def test_a_wrong_tag_is_refused() -> None:
    with pytest.raises(DecodeError, match="expected b'abc'"):
        Reader("x", b"abd").expect(b"abc")
    with pytest.raises(DecodeError, match="truncated"):
        Reader("x", b"ab").expect(b"abc")


def test_points_outside_the_subgroup_and_the_identity_are_refused() -> None:
    identity = bytes([0xC0]) + bytes(47)
    # x = 4 is on the curve and outside the subgroup; the decoder says so at its place.
    outside = bytes([0x80]) + bytes(46) + bytes([4])
    good = ARKWORKS.encode(ARKWORKS.hash_to_curve(b"x"))
    for bad in (identity, outside, bytes(48), bytes([good[0] & 0x7F]) + good[1:]):
        with pytest.raises(DecodeError, match="at byte 48"):
            Reader("x", good + bad).points(ARKWORKS, 2)


def test_reading_points_stops_where_they_end() -> None:
    good = ARKWORKS.encode(ARKWORKS.hash_to_curve(b"x"))
    reader = Reader("x", good + b"rest")
    assert ARKWORKS.encode(reader.point(ARKWORKS)) == good
    assert reader.take(4) == b"rest"
    reader.end()
