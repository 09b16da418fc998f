"""Field-sized linear forms against small-integer arrays, exactly, in double precision.

The evaluation proof folds J ternary rows by powers of a challenge into vectors Z with 255-bit entries and needs
<Z, ct> for every input ciphertext and the negacyclic correlation of Z with the public key. Both are done on
balanced 16-bit limbs of Z with floating-point matrix products and FFTs whose results are integers below 2^53, and
whose rounding errors are below 1/2 by the bound written at each function: the outcome is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, wraps
from typing import Final, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from privacy.ckks.polynomial import backward_transform, forward_transform
from privacy.errors import UsageError

__all__ = ["CORRELATION_LIMBS", "LIMBS", "contract", "correlate", "fold_rows", "one_blas_thread", "recombine"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

LIMB_BITS: Final = 16
LIMBS: Final = 17
"""Balanced limbs |x| <= 2^15 of integers up to 2^271: sums of 160 scalars have 263 bits."""

_SCALAR_LIMBS: Final = 16
_LIMB: Final = 1 << LIMB_BITS
_SLICE: Final = 64
"""Arrays split into limbs at a time, so that wide models do not multiply memory."""

_INPUT_LIMB_BITS: Final = 18
_INPUT_LIMIT: Final = (1 << 2 * _INPUT_LIMB_BITS) + (1 << _INPUT_LIMB_BITS)
_KEY_LIMBS: Final = 3
_KEY_BITS: Final = 37
CORRELATION_LIMBS: Final = LIMBS + _KEY_LIMBS - 1
_EXACT: Final = 1 << 53


def one_blas_thread(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Run a function with one BLAS thread.

    The products here are too small to share out, and OpenBLAS's second thread spins after each of them on the core
    that the group operations need: measured, a tenth of the whole.
    """

    @wraps(function)
    def limited(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with _blas().limit(limits=1, user_api="blas"):
            return function(*args, **kwargs)

    return limited


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def fold_rows(rows: npt.NDArray[np.int8], weights: Sequence[Sequence[int]]) -> FloatArray:
    """For each list of J scalars w: sum_j w_j rows_j as balanced limbs, shape (len(weights), LIMBS, n).

    rows: (J, n) with entries -1, 0, 1. Sums of 160 limbs below 2^16 are exact.
    """
    digits = b"".join(w.to_bytes(32, "little") for part in weights for w in part)
    # Axes: weight list, limb, row.
    limbs = np.frombuffer(digits, dtype="<u2").reshape(len(weights), rows.shape[0], _SCALAR_LIMBS).transpose(0, 2, 1)
    sums = limbs.astype(np.float64).reshape(-1, rows.shape[0]) @ rows.astype(np.float64)
    out = np.zeros((len(weights), LIMBS, rows.shape[1]))
    out[:, :_SCALAR_LIMBS] = sums.reshape(len(weights), _SCALAR_LIMBS, -1)
    for a in range(LIMBS - 1):
        carry = np.rint(out[:, a] / _LIMB)
        out[:, a] -= carry * _LIMB
        out[:, a + 1] += carry
    return out


def contract(folded: FloatArray, arrays: npt.NDArray[np.uint64]) -> list[int]:
    """sum over every axis but the first of `arrays` times the folded form: one signed integer an array.

    folded: (..., LIMBS, n) with |limb| <= 2^15; arrays: (m, ..., n), entries below 2^36 + 2^18. Limbs of 18 bits
    make terms of at most 2^33, and at most 2^19 of them are added: below 2^53, in any order.

    Raises UsageError for anything larger: it would be rounded without a trace.
    """
    m, terms = arrays.shape[0], arrays[0].size
    if terms << (LIMB_BITS - 1 + _INPUT_LIMB_BITS + 1) > _EXACT or int(arrays.max()) >= _INPUT_LIMIT:
        raise UsageError(f"a contraction over {terms} coordinates is not exact in double precision")
    flat = arrays.reshape(m, terms)
    form = np.moveaxis(folded, -2, 0).reshape(LIMBS, terms)
    out: list[int] = []
    for start in range(0, m, _SLICE):
        part = flat[start : start + _SLICE]
        split = np.empty((2, *part.shape))
        split[0] = part & ((1 << _INPUT_LIMB_BITS) - 1)
        split[1] = part >> _INPUT_LIMB_BITS
        products = (split.reshape(-1, terms) @ form.T).astype(np.int64)
        low, high = recombine(products[: len(part)].T), recombine(products[len(part) :].T)
        out += [x + (y << _INPUT_LIMB_BITS) for x, y in zip(low, high, strict=True)]
    return out


def correlate(folded: FloatArray, polynomials: npt.NDArray[np.uint64]) -> IntArray:
    """alpha with <alpha, u> = sum_l <Z_l, p_l u mod X^N+1> for every integer vector u, as CORRELATION_LIMBS limbs a
    coefficient: shape (CORRELATION_LIMBS, N), |limb| < 2^45, for `recombine`.

    folded: (L, LIMBS, N); polynomials: (L, N) with entries below 2^37. alpha = sum_l Z_l p_l(1/X).

    Exactness: one negacyclic product on n = N/2 complex points has error below |x|_2 |y|_2 2^-45.5 for N <= 4096
    (privacy/ckks/polynomial.py has the bound and its source). Balanced limbs give |x|_2, |y|_2 <= 2^15 sqrt(N) =
    2^21, and at most 2 L products of full limbs meet in one output (the third limb of a 37-bit residue is below
    2^6): L = 2 gives less than 4.1 * 2^(42-45.5) < 0.37 < 1/2.

    Raises UsageError for anything larger: it would be rounded without a trace.
    """
    L, N = polynomials.shape
    if N > 4096 or L > 2 or int(polynomials.max()) >> _KEY_BITS:
        raise UsageError(f"correlation of {L} primes at degree {N} has no proven rounding bound")
    reverse = np.empty((L, N), dtype=np.int64)
    reverse[:, 0] = polynomials[:, 0]
    reverse[:, 1:] = -polynomials[:, :0:-1].astype(np.int64)
    parts = np.empty((L, _KEY_LIMBS, N))
    for b in range(_KEY_LIMBS - 1):
        carry = (reverse + _LIMB // 2) >> LIMB_BITS
        parts[:, b] = reverse - (carry << LIMB_BITS)
        reverse = carry
    parts[:, -1] = reverse
    left, right = forward_transform(folded), forward_transform(parts)
    # All primes and limb pairs of one weight are added before the inverse transform.
    outputs = np.zeros((CORRELATION_LIMBS, N // 2), dtype=np.complex128)
    for b in range(_KEY_LIMBS):
        outputs[b : b + LIMBS] += np.einsum("lan,ln->an", left, right[:, b])
    return backward_transform(outputs)


def recombine(limbs: IntArray) -> list[int]:
    """(k, m) signed limbs below 2^62 in weight 2^(16 i) to m signed integers, exactly."""
    k, m = limbs.shape
    digits = np.empty((m, k + 4), dtype=np.uint16)
    carry = np.zeros(m, dtype=np.int64)
    for a in range(k):
        value = limbs[a] + carry
        digits[:, a] = (value & (_LIMB - 1)).astype(np.uint16)
        carry = value >> LIMB_BITS
    for a in range(k, k + 4):
        digits[:, a] = (carry & (_LIMB - 1)).astype(np.uint16)
        carry >>= LIMB_BITS
    data, width = digits.tobytes(), 2 * (k + 4)
    return [int.from_bytes(data[i : i + width], "little", signed=True) for i in range(0, len(data), width)]
