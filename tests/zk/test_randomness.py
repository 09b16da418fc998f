"""Secret randomness has the stated range and no bias that a sample can show.

Every statistical bound is Hoeffding's: n independent values in an interval of width w have a mean within
w sqrt(ln(2/delta) / 2n) of the true one except with probability delta. With delta = 2^-60 and fewer than a hundred
such comparisons, these tests fail by chance once in 2^53 runs.
"""

from __future__ import annotations

import itertools
import secrets
from math import log, sqrt

import numpy as np
import pytest

from privacy.errors import UsageError
from privacy.zk.group import ORDER
from privacy.zk.randomness import SecretStream, expand, random_scalar

LOG = log(2) * 61


def tolerance(count: int, width: float = 1.0) -> float:
    return width * sqrt(LOG / (2 * count))


def assert_frequency(hits: int, count: int, probability: float) -> None:
    assert abs(hits / count - probability) <= tolerance(count)


def test_expand_is_aes_256_in_counter_mode_from_zero():
    # The first block is AES-256 of the zero block under the zero key (NIST's known-answer value).
    assert expand(bytes(32), 16).hex() == "dc95c078a2408989ad48a21492842087"
    long = expand(b"k" * 32, 1000)
    assert expand(b"k" * 32, 10) == long[:10]
    assert expand(b"l" * 32, 1000) != long
    assert expand(bytes(32), 0) == b""


def test_stream_never_gives_the_same_bytes_twice(monkeypatch):
    monkeypatch.setattr(secrets, "token_bytes", lambda n: b"\x07" * n)
    stream = SecretStream()
    drawn = b"".join(stream.bytes(n) for n in (1, 15, 16, 17, 0, 51))
    assert drawn == expand(b"\x07" * 32, 100)


def test_streams_are_distinct():
    streams = [SecretStream().bytes(32) for _ in range(50)]
    assert len(set(streams)) == 50


def test_stream_is_keyed_with_256_bits_of_the_operating_system(monkeypatch):
    asked = []
    real = secrets.token_bytes
    monkeypatch.setattr(secrets, "token_bytes", lambda n: asked.append(n) or real(n))
    SecretStream().bytes(1)
    assert asked == [32]


def test_ternary_values_are_uniform():
    count = 10_000_000
    # Fine enough to see the bias of a byte taken mod 3 without rejection (86 of 256 instead of 1 in 3).
    assert tolerance(count) < 86 / 256 - 1 / 3
    values = SecretStream().ternary(count)
    assert values.dtype == np.int64
    assert values.size == count
    for value in (-1, 0, 1):
        assert_frequency(int((values == value).sum()), count, 1 / 3)
    assert int((values == -1).sum() + (values == 0).sum() + (values == 1).sum()) == count


def test_neighbouring_ternary_values_are_independent():
    values = SecretStream().ternary(2_000_000)
    product = values[0::2] * values[1::2]
    assert abs(product.mean()) <= tolerance(product.size, 2)


@pytest.mark.parametrize("pairs", [1, 2, 21])
def test_centred_binomial_has_its_range_mean_and_variance(pairs):
    count = 400_000
    values = SecretStream().centred_binomial(count, pairs)
    assert values.size == count
    assert np.abs(values).max() <= pairs
    assert abs(values.mean()) <= tolerance(count, 2 * pairs)
    assert abs((values**2).mean() - pairs / 2) <= tolerance(count, pairs**2)


def test_centred_binomial_of_one_pair_is_its_own_table():
    values = SecretStream().centred_binomial(200_000, 1)
    for value, probability in ((-1, 0.25), (0, 0.5), (1, 0.25)):
        assert_frequency(int((values == value).sum()), values.size, probability)


@pytest.mark.parametrize("bound", [0, 1, 2, 3 << 20, (1 << 44) + 12345, (1 << 61) - 1])
def test_symmetric_values_are_uniform(bound):
    count = 200_000
    values = SecretStream().symmetric(count, bound)
    assert values.size == count
    assert -bound <= values.min() <= values.max() <= bound
    span = 2 * bound + 1
    # Eight slices: a value reduced mod the span instead of rejected would favour the lower ones.
    edges = [-bound + i * span // 8 for i in range(9)]
    for low, high in itertools.pairwise(edges):
        assert_frequency(int(((values >= low) & (values < high)).sum()), count, (high - low) / span)


@pytest.mark.parametrize("bound", [-1, 1 << 61, 1 << 64])
def test_symmetric_bound_that_machine_words_cannot_hold_is_refused(bound):
    with pytest.raises(UsageError, match="bound"):
        SecretStream().symmetric(1, bound)


@pytest.mark.parametrize("bits", [8, 64, 136, 256])
def test_integers_have_fair_bits(bits):
    count = 20_000
    values = SecretStream().integers(count, bits)
    assert len(values) == count
    assert 0 <= min(values) <= max(values) < 1 << bits
    for place in (0, bits // 2, bits - 1):
        assert_frequency(sum(v >> place & 1 for v in values), count, 1 / 2)


@pytest.mark.parametrize("bits", [1, 34, 255])
def test_integers_of_broken_bytes_are_refused_not_shortened(bits):
    with pytest.raises(UsageError, match="whole bytes"):
        SecretStream().integers(1, bits)


@pytest.mark.parametrize("draw", [lambda n: SecretStream().scalars(n), lambda n: [random_scalar() for _ in range(n)]])
def test_scalars_are_uniform_below_the_order(draw):
    count = 20_000
    values = draw(count)
    assert len(values) == count
    assert 0 <= min(values) <= max(values) < ORDER
    for quarter in range(1, 4):
        assert_frequency(sum(v < ORDER * quarter // 4 for v in values), count, quarter / 4)
    assert_frequency(sum(v & 1 for v in values), count, 1 / 2)
    assert len(set(values)) == count


@pytest.mark.parametrize("bound", [1, 3, 3 << 100])
def test_below_is_uniform(bound):
    stream, count = SecretStream(), 20_000
    values = [stream.below(bound) for _ in range(count)]
    assert 0 <= min(values) <= max(values) < bound
    third = -(-bound // 3)
    assert_frequency(sum(v < third for v in values), count, third / bound)


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65])
def test_counts_are_exact(count):
    stream = SecretStream()
    assert stream.ternary(count).size == count
    assert stream.symmetric(count, 5).size == count
    assert len(stream.integers(count, 16)) == count
    assert len(stream.scalars(count)) == count
    assert len(stream.bytes(count)) == count
