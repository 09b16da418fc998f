"""How patients and features are laid out in ciphertext coefficients (docs/spec/protocol.md, section 2). No FHE library.

`columns`: one ciphertext per feature, patient p in coefficient p. `rows`: one ciphertext, patient p's feature i in
coefficient p*d + i; multiplied by sum_i w_i X^(d-1-i), it has patient p's answer in coefficient p*d + d-1.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from privacy.ckks.params import ParameterSet
from privacy.errors import UsageError

__all__ = [
    "Packing",
    "blocks",
    "capacity",
    "coefficients_to_slots",
    "pack",
    "pack_columns",
    "pack_rows",
    "positions",
    "rows_shifted",
]

_GENERATOR = 3
"""Slot j of SEAL's encoder is the value at zeta^(3^j), not 5^j. With 5 everything still round-trips, wrongly."""


class Packing(StrEnum):
    """The two layouts; the values are what ledger entries say."""

    COLUMNS = "columns"
    ROWS = "rows"


def capacity(params: ParameterSet, packing: Packing, d: int) -> int:
    """Patients per block with `d` features. Raises UsageError unless d >= 1 and, for `rows`, d <= N."""
    if d < 1:
        raise UsageError(f"number of features must be at least 1, got {d}")
    if packing is Packing.COLUMNS:
        return params.N
    if d > params.N:
        raise UsageError(f"rows packing of {params.name} holds at most {params.N} features, got {d}")
    return params.N // d


def positions(params: ParameterSet, packing: Packing, d: int, count: int) -> NDArray[np.int64]:
    """P: the coefficients that hold the answers of a block's `count` patients, strictly increasing int64 (count,).

    Only these coefficients of a result's c0 are ever published. Raises UsageError unless 1 <= count <= capacity.
    """
    limit = capacity(params, packing, d)
    if not 1 <= count <= limit:
        raise UsageError(
            f"a {packing} block of {params.name} holds 1 to {limit} patients with {d} features, got {count}"
        )
    patients = np.arange(count, dtype=np.int64)
    return patients if packing is Packing.COLUMNS else patients * d + (d - 1)


def blocks(count: int, capacity: int) -> list[range]:
    """The patient indices of each block: full blocks, then what is left over. Raises UsageError if either is < 1."""
    if count < 1 or capacity < 1:
        raise UsageError(f"cannot divide {count} patients into blocks of {capacity}")
    return [range(start, min(start + capacity, count)) for start in range(0, count, capacity)]


def _checked(params: ParameterSet, packing: Packing, values: NDArray[np.float64]) -> tuple[int, int]:
    if values.ndim != 2:
        raise UsageError(f"expected a table (patients, features), got {values.ndim} dimensions")
    count, d = values.shape
    limit = capacity(params, packing, d)
    if not 1 <= count <= limit:
        raise UsageError(
            f"a {packing} block of {params.name} holds 1 to {limit} patients with {d} features, got {count}"
        )
    if not bool(np.isfinite(values).all()):
        raise UsageError("a value is not a finite number")
    return count, d


def pack_columns(params: ParameterSet, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients (d, N) in answer units of one `columns` block from values (count, d). Raises UsageError."""
    count, d = _checked(params, Packing.COLUMNS, values)
    coefficients = np.zeros((d, params.N))
    coefficients[:, :count] = values.T
    return coefficients


def pack_rows(params: ParameterSet, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients (1, N) of one `rows` block from values (count, d). Raises UsageError."""
    count, d = _checked(params, Packing.ROWS, values)
    coefficients = np.zeros((1, params.N))
    coefficients[0, : count * d] = values.reshape(-1)
    return coefficients


def pack(params: ParameterSet, packing: Packing, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients (ciphertexts, N) of one block in either layout from values (count, d). Raises UsageError."""
    return pack_columns(params, values) if packing is Packing.COLUMNS else pack_rows(params, values)


@lru_cache(maxsize=4)
def _slot_order(N: int) -> tuple[NDArray[np.complex128], NDArray[np.int64], NDArray[np.bool_]]:
    """The twist zeta^i; per slot j, the k with zeta^(4k+1) = zeta^(3^j) or its conjugate, and whether the latter."""
    exponents = np.empty(N // 2, dtype=np.int64)
    exponent = 1
    for j in range(N // 2):
        exponents[j] = exponent
        exponent = exponent * _GENERATOR % (2 * N)
    conjugated = exponents % 4 == 3
    index = np.where(conjugated, 2 * N - exponents, exponents) // 4
    twist: NDArray[np.complex128] = np.exp(1j * np.pi * np.arange(N // 2) / N)
    return twist, index, conjugated


def coefficients_to_slots(coefficients: NDArray[np.float64]) -> NDArray[np.complex128]:
    """The slot values (..., N/2) that SEAL's encoder turns into exactly these real coefficients (..., N).

    Slot j is the polynomial's value at zeta^(3^j), zeta = exp(i pi / N). The powers of zeta with exponent 1 mod 4 are
    one FFT of length N/2 of a_i + i a_(i+N/2); those with exponent 3 mod 4 are their conjugates, as a is real.
    """
    N = coefficients.shape[-1]
    if N < 4 or N & (N - 1):
        raise UsageError(f"expected a power of two of coefficients, got {N}")
    twist, index, conjugated = _slot_order(N)
    folded = (coefficients[..., : N // 2] + 1j * coefficients[..., N // 2 :]) * twist
    values = (np.fft.ifft(folded) * (N // 2))[..., index]
    slots: NDArray[np.complex128] = np.where(conjugated, values.conj(), values)
    return slots


def rows_shifted(params: ParameterSet, array: NDArray[np.uint64], d: int) -> list[NDArray[np.uint64]]:
    """The d virtual inputs X^(d-1-i) * ct, i = 0..d-1, of a `rows` ciphertext `array` (2, L, N), residues mod q_l.

    All are read-only views into one array of twice the size: nothing is copied per feature. Raises UsageError.
    """
    N = params.N
    if array.shape != (2, params.L, N):
        raise UsageError(f"expected a ciphertext of shape {(2, params.L, N)}, got {array.shape}")
    if not 1 <= d <= N:
        raise UsageError(f"rows packing of {params.name} holds 1 to {N} features, got {d}")
    q = np.array(params.primes, dtype=np.uint64)[:, None]
    # Entry N + j - k of (-a, a) is coefficient j of X^k a: what is pushed over the top comes back negated.
    extended = np.concatenate([np.where(array == 0, array, q - array), array], axis=-1)
    extended.flags.writeable = False
    return [extended[..., N - shift : 2 * N - shift] for shift in range(d - 1, -1, -1)]
