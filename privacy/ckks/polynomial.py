"""Exact arithmetic in R = Z[X]/(X^N+1) on numpy arrays. No FHE library, no secrets of its own.

Products by a short polynomial go through floating-point FFTs on 19-bit limbs. They are exact, not approximate:

A negacyclic product of two real polynomials of degree N is one cyclic product of complex vectors of length n = N/2:
fold x_i + i x_{i+n}, multiply entry i by zeta^i, zeta = exp(i pi / N), transform, multiply pointwise, undo. For an FFT
product in double precision, Brent, Percival and Zimmermann ("Error bounds on complex floating-point multiplication",
Mathematics of Computation 76, 2007) bound the error of every coefficient by

    |x|_2 |y|_2 ((1+eps)^(3t) (1+eps sqrt 5)^(3t+1) (1+beta)^(3t) - 1),    t = log2 n, eps = 2^-53, beta <= eps

(their model is radix 2; larger radices only drop roundings). The three twists add 3 products, and 3 factors accurate to
8 eps. With t = 11: 36 + 37 sqrt 5 + 33 + 24 < 176 eps < 2^-45.5. A limb is below 2^19, a short coefficient at
most 2^10 in magnitude, so |x|_2 <= 2^19 sqrt N = 2^25, |y|_2 <= 2^16 and the error is below 2^(25+16-45.5) = 2^-4.5,
less than 1/2: rounding to the nearest integer gives the product. Products are below N 2^19 2^10 = 2^41, well inside the
53-bit mantissa.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy.ckks.params import ParameterSet
from privacy.errors import UsageError

__all__ = [
    "MAX_RESIDUE_BITS",
    "MAX_SHORT",
    "backward_transform",
    "centred_from_residues",
    "forward_transform",
    "negacyclic_multiply_integer",
    "negacyclic_multiply_mod",
    "residues_of",
]

MAX_RESIDUE_BITS = 37
MAX_SHORT = 2**10

_LIMB_BITS = 19
_MAX_N = 4096

Integers = NDArray[np.int64]
Residues = NDArray[np.uint64]
Complex = NDArray[np.complex128]


@lru_cache(maxsize=4)
def _twist(N: int) -> Complex:
    """zeta^i for i < N/2, zeta = exp(i pi / N)."""
    twist: Complex = np.exp(1j * np.pi * np.arange(N // 2) / N)
    twist.flags.writeable = False
    return twist


def forward_transform(x: NDArray[Any]) -> Complex:
    """Values of real polynomials (..., N) whose pointwise products are those of negacyclic products; (..., N/2)."""
    N = x.shape[-1]
    folded = np.empty((*x.shape[:-1], N // 2), dtype=np.complex128)
    folded.real = x[..., : N // 2]
    folded.imag = x[..., N // 2 :]
    folded *= _twist(N)
    values: Complex = np.fft.fft(folded)
    return values


def backward_transform(values: Complex) -> Integers:
    """The integer polynomials (..., N) nearest to what has these values: exact where the error is below 1/2."""
    half = values.shape[-1]
    folded = np.fft.ifft(values)
    folded *= _twist(2 * half).conj()
    out = np.empty((*values.shape[:-1], 2 * half), dtype=np.int64)
    out[..., :half] = np.rint(folded.real)
    out[..., half:] = np.rint(folded.imag)
    return out


def _check(a: NDArray[Any], small: Integers) -> None:
    N = small.shape[-1]
    if small.ndim != 1 or small.dtype != np.int64 or a.dtype not in (np.int64, np.uint64) or a.shape[-1:] != (N,):
        raise UsageError("negacyclic product: expected an int64 or uint64 array (..., N) and an int64 vector (N,)")
    if N > _MAX_N or N < 2 or N & (N - 1):
        raise UsageError(f"negacyclic product: N = {N} is not a power of two from 2 to {_MAX_N}")
    if small.max() > MAX_SHORT or small.min() < -MAX_SHORT:
        raise UsageError(f"negacyclic product: the short factor exceeds {MAX_SHORT} in magnitude")
    if a.size and (a.max() >= 1 << MAX_RESIDUE_BITS or a.min() < 0):
        raise UsageError(f"negacyclic product: the long factor is not in [0, 2^{MAX_RESIDUE_BITS})")


def negacyclic_multiply_integer(a: NDArray[Any], small: Integers) -> Integers:
    """a * small in Z[X]/(X^N+1), exactly and without any reduction, for each row of `a`.

    a: (..., N) integers in [0, 2^37). small: int64 (N,), |small_i| <= 2^10 (ternary u and s are what this is for).
    Returns int64 (..., N), below 2^59 (2^49 for a ternary factor). Raises UsageError outside these ranges.
    """
    _check(a, small)
    limbs = np.empty((2, *a.shape))
    limbs[0] = a & ((1 << _LIMB_BITS) - 1)
    limbs[1] = a >> _LIMB_BITS
    values = forward_transform(limbs)
    values *= forward_transform(small)
    products = backward_transform(values)
    result: Integers = products[1]
    result <<= _LIMB_BITS
    result += products[0]
    return result


def _reduce(params: ParameterSet, values: Integers) -> Residues:
    primes = np.array(params.primes, dtype=np.int64)[:, None]
    return (values % primes).astype(np.uint64)


def negacyclic_multiply_mod(params: ParameterSet, a: Residues, small: Integers) -> Residues:
    """a * small in Z_q_l[X]/(X^N+1) for every data prime.

    a: uint64 (..., L, N), residues. small: int64 (N,), the same integers for every prime, |small_i| <= 2^10.
    Returns uint64 of the shape of `a`. Raises UsageError outside these ranges.
    """
    return _reduce(params, negacyclic_multiply_integer(a, small))


def residues_of(params: ParameterSet, values: Integers) -> Residues:
    """The residues mod every data prime of int64 values (n,): uint64 (L, n)."""
    return _reduce(params, values[None, :])


def centred_from_residues(params: ParameterSet, residues: Residues) -> list[int]:
    """The integers in [-Q/2, Q/2) with these residues, uint64 (L, n), by the Chinese remainder theorem, exactly."""
    Q = params.Q
    total = np.zeros(residues.shape[-1], dtype=object)
    for q, row in zip(params.primes, residues, strict=True):
        cofactor = Q // q
        total += row.astype(object) * (cofactor * pow(cofactor, -1, q))
    return [(int(value) + Q // 2) % Q - Q // 2 for value in total]
