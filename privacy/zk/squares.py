"""Three squares: the witness that a number is not negative (docs/spec/protocol.md, section 6).

Every n = 1 mod 4 is a sum of three squares (Legendre: only 4^a (8 b + 7) is not). With a + b public,

    a b >= 0  and so  a >= 0 and b >= 0   <=>   4 a b + 1 = x^2 + y^2 + z^2   over the integers,

one equation of degree two, exact, where a range proof by bits needs one for every bit. It says something about integers
only if all five numbers are short against r: who uses it proves that as well.

Found by Rabin and Shallit's method: a random even x, until n - x^2 is a prime p = 1 mod 4, which Hermite and Serret's
algorithm splits. If n is a square itself, n - x^2 = (m - x)(m + x) is hardly ever prime, and (m, 0, 0) is the answer:
that is so for 4 a b + 1 with a and b next to each other. How long it takes depends on the number; the squares never
leave the prover.
"""

from __future__ import annotations

from math import isqrt

from flint import fmpz

from privacy.errors import UsageError
from privacy.zk.randomness import SecretStream

__all__ = ["three_squares"]

_SMALL = 1 << 12
"""Below this, candidates are few and no prime may be among them, as for 85: all are tried."""


def three_squares(n: int, stream: SecretStream) -> tuple[int, int, int]:
    """x, y, z >= 0 with x^2 + y^2 + z^2 = n.

    Raises:
        UsageError: n is negative or not 1 mod 4.
    """
    if n < 0 or n % 4 != 1:
        raise UsageError("three squares are found of numbers that are 1 mod 4 and not negative")
    if n < _SMALL:
        return _small(n)
    root = isqrt(n)
    if root * root == n:
        return root, 0, 0
    half = root // 2 + 1
    while True:
        x = 2 * stream.below(half)
        rest = n - x * x
        if rest > 1 and bool(fmpz(rest).is_probable_prime()):
            return (x, *_two_squares(rest, stream))


def _small(n: int) -> tuple[int, int, int]:
    for x in range(isqrt(n) + 1):
        for y in range(isqrt(n - x * x) + 1):
            z = isqrt(n - x * x - y * y)
            if x * x + y * y + z * z == n:
                return x, y, z
    raise AssertionError(f"{n} is 1 mod 4 and has no three squares")


def _two_squares(p: int, stream: SecretStream) -> tuple[int, int]:
    """y, z with y^2 + z^2 = p, for a prime p = 1 mod 4. A pseudoprime would fail the prover's own check."""
    while True:
        root = pow(stream.below(p - 1) + 1, (p - 1) // 4, p)
        if root * root % p == p - 1:
            break
    # Euclid on (p, root) until the remainder is at most sqrt(p).
    a, b = p, root
    while b * b > p:
        a, b = b, a % b
    return b, isqrt(p - b * b)
