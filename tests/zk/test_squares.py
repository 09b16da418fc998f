"""Every number that is 1 mod 4 is a sum of three squares, and they are found, whatever the number looks like."""

from __future__ import annotations

import secrets
from math import isqrt

import numpy as np
import pytest

from privacy.errors import UsageError
from privacy.zk import squares
from privacy.zk.randomness import SecretStream
from privacy.zk.squares import three_squares

STREAM = SecretStream()


def check(n: int) -> tuple[int, int, int]:
    found = three_squares(n, STREAM)
    assert min(found) >= 0
    assert sum(x * x for x in found) == n
    return found


def test_all_small_numbers() -> None:
    """Exhaustive, well beyond where candidates are no longer tried one by one."""
    for n in range(1, 4 * squares._SMALL, 4):
        check(n)


def test_above_the_small_ones_a_prime_is_always_left_unless_the_number_is_a_square() -> None:
    """What the random search relies on; 85 is the last number that is no square and has no such x."""
    limit = 1 << 18
    prime = np.ones(limit, dtype=bool)
    prime[:2] = False
    for i in range(2, isqrt(limit) + 1):
        prime[i * i :: i] = False
    found = np.zeros(limit, dtype=bool)
    for x in range(0, isqrt(limit), 2):
        found[x * x :] |= prime[: limit - x * x]
    missing = [n for n in range(1, limit, 4) if not found[n] and isqrt(n) ** 2 != n]
    assert missing == [85]
    assert missing[-1] < squares._SMALL


@pytest.mark.parametrize("bits", [12, 13, 24, 53, 64, 106, 144, 146, 200])
def test_random_numbers(bits: int) -> None:
    for _ in range(30):
        check((1 << bits) | secrets.randbits(bits) & ~3 | 1)


@pytest.mark.parametrize("bits", [6, 7, 20, 53, 72])
def test_squares_of_odd_numbers(bits: int) -> None:
    """n - x^2 = (m - x)(m + x) is never prime here, and a search for one would not end."""
    for _ in range(30):
        m = (1 << bits) | secrets.randbits(bits) | 1
        assert check(m * m)[0] <= m


@pytest.mark.parametrize("w", [0, 1, 2, 3, 31, 32, (1 << 53) - 1, (1 << 53) - 2, (1 << 72) - 5])
def test_a_number_and_its_distance_from_the_end_of_an_interval(w: int) -> None:
    """4 d (w - d) + 1 at both ends, beside them, and in the middle, where it is a square if w is odd."""
    near = {0, 1, 2, w // 2 - 1, w // 2, w // 2 + 1, w // 2 + 2, w - 2, w - 1, w}
    for d in near & set(range(w + 1) if w < 40 else near):
        n = 4 * d * (w - d) + 1
        x, y, z = check(n)
        # What the mask of T5 is sized by, and what no honest witness exceeds.
        assert max(d, x, y, z) <= w + 1
        assert 3 * (d * d + x * x + y * y + z * z) <= 4 * (w * w + 1)


def test_both_ends_need_one_square_only() -> None:
    assert sorted(check(1)) == [0, 0, 1]


@pytest.mark.parametrize("n", [0, 2, 3, 4, 7, 15, 28, 1 << 80, (1 << 80) + 7, -1, -3, -7])
def test_other_numbers_are_refused(n: int) -> None:
    with pytest.raises(UsageError, match="1 mod 4 and not negative"):
        three_squares(n, STREAM)


def test_primes_are_split_whatever_root_is_drawn() -> None:
    for p in (5, 13, 17, 4093, 65537, 2**255 - 19):
        for _ in range(20):
            y, z = squares._two_squares(p, STREAM)
            assert y * y + z * z == p


def test_the_squares_of_a_number_differ_from_time_to_time() -> None:
    """They are drawn, not computed, so that a proof made twice has two witnesses."""
    n = 4 * 12345678901 * 98765432109 + 1
    assert len({check(n) for _ in range(5)}) > 1
