"""Folding is exact: floating point gives the integers that Python gives, for the worst limbs and at full size."""

from __future__ import annotations

import numpy as np
import pytest
from flint import fmpz_poly
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.ckks.folding import LIMBS, contract, correlate, fold_rows, recombine
from privacy.ckks.params import parameter_set
from privacy.errors import UsageError
from privacy.zk.group import ORDER
from privacy.zk.relations import J, ternary_rows

PRIMES = parameter_set("linear-4096").primes
HALF = 1 << 15

SCALARS = {
    "all limbs at the carry": int("8000" * 15, 16),
    "just below the carry": int("7fff" * 15, 16),
    "all ones": (1 << 254) - 1,
    "largest": ORDER - 1,
    "zero": 0,
    "alternating": int("ffff0000" * 7, 16),
}
ROWS = {
    "ones": np.ones((J, 64), dtype=np.int8),
    "minus ones": -np.ones((J, 64), dtype=np.int8),
    "alternating": np.where(np.add.outer(np.arange(J), np.arange(64)) % 2, 1, -1).astype(np.int8),
    "zero": np.zeros((J, 64), dtype=np.int8),
    "drawn": ternary_rows(bytes(32), J, 64),
}


def value(limbs: np.ndarray) -> list[int]:
    """(LIMBS, n) to n integers."""
    return [sum(int(x) << (16 * i) for i, x in enumerate(column)) for column in limbs.T.tolist()]


def exact_rows(rows: np.ndarray, weights: list[int]) -> list[int]:
    return [sum(w * r for w, r in zip(weights, column, strict=True)) for column in rows.T.tolist()]


def negacyclic_correlation(z: list[int], p: list[int]) -> list[int]:
    """z times p(1/X) mod X^N+1, by FLINT."""
    N = len(z)
    product = fmpz_poly(z) * fmpz_poly([p[0], *(-x for x in p[:0:-1])])
    c = [int(x) for x in product.coeffs()]
    c += [0] * (2 * N - len(c))
    return [low - high for low, high in zip(c[:N], c[N:], strict=True)]


@pytest.mark.parametrize("scalar", SCALARS)
@pytest.mark.parametrize("rows", ROWS)
def test_folded_rows_are_the_exact_sums_in_balanced_limbs(scalar: str, rows: str) -> None:
    weights = [SCALARS[scalar]] * J
    (folded,) = fold_rows(ROWS[rows], [weights])
    assert folded.shape == (LIMBS, 64)
    assert np.array_equal(folded, np.rint(folded))
    assert np.abs(folded).max() <= HALF
    assert value(folded) == exact_rows(ROWS[rows], weights)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, ORDER - 1), min_size=J, max_size=J), st.binary(min_size=32, max_size=32))
def test_any_weights_fold_exactly(weights: list[int], seed: bytes) -> None:
    rows = ternary_rows(seed, J, 8)
    folded = fold_rows(rows, [weights, weights[::-1]])
    assert value(folded[0]) == exact_rows(rows, weights)
    assert value(folded[1]) == exact_rows(rows, weights[::-1])


def extreme_folded(shape: tuple[int, ...], pattern: str) -> np.ndarray:
    n = shape[-1]
    signs = {
        "high": np.ones(n),
        "low": -np.ones(n),
        "alternating": np.where(np.arange(n) % 2, 1.0, -1.0),
        "halves": np.where(np.arange(n) < n // 2, 1.0, -1.0),
    }[pattern]
    return np.broadcast_to(signs * HALF, shape).copy()


@pytest.mark.parametrize("pattern", ["high", "low", "alternating", "halves"])
@pytest.mark.parametrize("residue", ["largest", "zero", "alternating", "limb ones"])
def test_contraction_is_exact_at_full_size(pattern: str, residue: str) -> None:
    N, L = 4096, 2
    folded = extreme_folded((2, L, LIMBS, N), pattern)
    arrays = np.zeros((2, 2, L, N), dtype=np.uint64)
    for level, q in enumerate(PRIMES):
        arrays[:, :, level] = {
            "largest": q - 1,
            "zero": 0,
            "alternating": np.where(np.arange(N) % 2, q - 1, 0).astype(np.uint64),
            "limb ones": (1 << 36) - 1,
        }[residue]
    arrays[1, 0, 0, 17] = 1
    z = [value(folded[k, level]) for k in (0, 1) for level in range(L)]
    flat = arrays.reshape(2, 2 * L, N).tolist()
    wanted = [sum(a * b for part, row in zip(z, m, strict=True) for a, b in zip(part, row, strict=True)) for m in flat]
    assert contract(folded, arrays) == wanted


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_contraction_of_anything_is_exact(data: st.DataObject) -> None:
    n, m = 4, data.draw(st.integers(1, 3))
    limbs = st.integers(-HALF, HALF)
    folded = np.array(data.draw(st.lists(limbs, min_size=2 * LIMBS * n, max_size=2 * LIMBS * n)), dtype=np.float64)
    folded = folded.reshape(2, LIMBS, n)
    residues = st.lists(st.integers(0, (1 << 36) + (1 << 18) - 1), min_size=m * 2 * n, max_size=m * 2 * n)
    arrays = np.array(data.draw(residues), dtype=np.uint64).reshape(m, 2, n)
    z = [*value(folded[0]), *value(folded[1])]
    assert contract(folded, arrays) == [
        sum(a * b for a, b in zip(z, row.reshape(-1).tolist(), strict=True)) for row in arrays
    ]


def test_contractions_too_long_for_the_mantissa_are_refused() -> None:
    terms = (1 << 19) + 1
    with pytest.raises(UsageError, match="not exact"):
        contract(np.zeros((LIMBS, terms)), np.zeros((1, terms), dtype=np.uint64))


def worst_residues(q: int, N: int, pattern: str) -> np.ndarray:
    out = {
        "largest": np.full(N, q - 1),
        "balanced limbs at +2^15 - 1": np.full(N, 0x7FFF7FFF),
        "balanced limbs at -2^15": np.full(N, 0x80008000),
        "alternating": np.where(np.arange(N) % 2, q - 1, 0x7FFF8000),
        "zero but one": np.where(np.arange(N) == N - 1, q - 1, 0),
    }[pattern]
    return out.astype(np.uint64)


@pytest.mark.parametrize("pattern", ["high", "alternating", "halves"])
@pytest.mark.parametrize(
    "residue",
    ["largest", "balanced limbs at +2^15 - 1", "balanced limbs at -2^15", "alternating", "zero but one"],
)
def test_correlation_is_exact_at_full_size(pattern: str, residue: str) -> None:
    N = 4096
    folded = extreme_folded((2, LIMBS, N), pattern)
    p = np.stack([worst_residues(q, N, residue) for q in PRIMES])
    wanted = [negacyclic_correlation(value(folded[level]), p[level].tolist()) for level in range(2)]
    assert recombine(correlate(folded, p)) == [a + b for a, b in zip(*wanted, strict=True)]


def test_correlation_is_exact_on_signs_chosen_to_add_up(rng: np.random.Generator) -> None:
    """All products of one output have one sign: the largest sums that limbs can make."""
    N = 4096
    p = np.stack([worst_residues(q, N, "balanced limbs at -2^15") for q in PRIMES])
    folded = np.empty((2, LIMBS, N))
    folded[...] = np.where(rng.integers(0, 2, N), HALF, -HALF)
    folded[..., 0] = HALF
    wanted = [negacyclic_correlation(value(folded[level]), p[level].tolist()) for level in range(2)]
    assert recombine(correlate(folded, p)) == [a + b for a, b in zip(*wanted, strict=True)]


@pytest.mark.parametrize("N", [4, 64, 4096])
def test_correlation_is_the_adjoint_of_multiplication_by_p(N: int, rng: np.random.Generator) -> None:
    """<alpha, u> = sum_l <Z_l, p_l u>: what the verifier needs of it, checked by schoolbook on a few u."""
    weights = [[int.from_bytes(rng.bytes(32), "little") % ORDER for _ in range(J)] for _ in PRIMES]
    folded = fold_rows(ternary_rows(bytes(32), J, N), weights)
    p = np.stack([rng.integers(0, q, N, dtype=np.uint64) for q in PRIMES])
    alpha = recombine(correlate(folded, p))
    z = [value(part) for part in folded]
    for place in {0, 1, N // 2, N - 1}:
        # u = X^place: p_l u is p_l turned by `place`, with the sign flipped where it wraps.
        total = 0
        for level in range(2):
            row = p[level].tolist()
            turned = [-x for x in row[N - place :]] + row[: N - place]
            total += sum(a * b for a, b in zip(z[level], turned, strict=True))
        assert alpha[place] == total


def test_correlations_without_a_proven_bound_are_refused() -> None:
    for L, N in ((3, 64), (2, 8192)):
        with pytest.raises(UsageError, match="no proven rounding bound"):
            correlate(np.zeros((L, LIMBS, N)), np.zeros((L, N), dtype=np.uint64))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(-(1 << 62) + 1, (1 << 62) - 1), min_size=5, max_size=5), min_size=1, max_size=6))
def test_recombination_carries_exactly(columns: list[list[int]]) -> None:
    limbs = np.array(columns, dtype=np.int64).T
    assert recombine(limbs) == [sum(x << (16 * i) for i, x in enumerate(column)) for column in columns]
