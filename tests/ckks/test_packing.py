from __future__ import annotations

import cmath
import math

import numpy as np
import pytest

from privacy.ckks import packing
from privacy.ckks.packing import Packing
from privacy.ckks.params import ParameterSet
from privacy.ckks.polynomial import (
    centred_from_residues,
    negacyclic_multiply_integer,
    negacyclic_multiply_mod,
    residues_of,
)
from privacy.errors import UsageError

flint = pytest.importorskip("flint")


def negacyclic(a: list[int], b: list[int]) -> list[int]:
    """Second implementation: integers of any size, no FFT of ours."""
    N = len(a)
    product = [int(c) for c in (flint.fmpz_poly(a) * flint.fmpz_poly(b)).coeffs()]
    product += [0] * (2 * N - len(product))
    return [product[i] - product[i + N] for i in range(N)]


# -- layout


def test_columns_publish_one_coefficient_per_declared_patient(params: ParameterSet) -> None:
    assert packing.capacity(params, Packing.COLUMNS, 30) == 4096
    P = packing.positions(params, Packing.COLUMNS, 30, 569)
    assert P.dtype == np.int64
    assert P.tolist() == list(range(569))


def test_rows_publish_the_last_coefficient_of_each_declared_patient(params: ParameterSet) -> None:
    assert packing.capacity(params, Packing.ROWS, 30) == 136
    assert packing.positions(params, Packing.ROWS, 30, 3).tolist() == [29, 59, 89]
    assert packing.positions(params, Packing.ROWS, 30, 136)[-1] == 136 * 30 - 1
    assert packing.positions(params, Packing.ROWS, 4096, 1).tolist() == [4095]


@pytest.mark.parametrize(
    ("layout", "d", "count"),
    [
        ("columns", 30, 0),
        ("columns", 30, 4097),
        ("columns", 0, 1),
        ("rows", 30, 137),
        ("rows", 30, 0),
        ("rows", 4097, 1),
    ],
)
def test_undeclared_coefficients_cannot_be_asked_for(params: ParameterSet, layout: str, d: int, count: int) -> None:
    with pytest.raises(UsageError):
        packing.positions(params, Packing(layout), d, count)


def test_blocks_cover_every_patient_once() -> None:
    assert packing.blocks(5, 2) == [range(2), range(2, 4), range(4, 5)]
    assert packing.blocks(4, 4) == [range(4)]
    for count, capacity in ((0, 4), (4, 0), (-1, 4)):
        with pytest.raises(UsageError):
            packing.blocks(count, capacity)


def test_packed_tables(params: ParameterSet) -> None:
    values = np.arange(6.0).reshape(3, 2)
    columns = packing.pack(params, Packing.COLUMNS, values)
    assert columns.shape == (2, 4096)
    assert columns[:, :4].tolist() == [[0, 2, 4, 0], [1, 3, 5, 0]]
    rows = packing.pack(params, Packing.ROWS, values)
    assert rows.shape == (1, 4096)
    assert rows[0, :8].tolist() == [0, 1, 2, 3, 4, 5, 0, 0]
    assert not columns[:, 3:].any()
    assert not rows[0, 6:].any()


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(3),
        np.zeros((0, 2)),
        np.zeros((2, 0)),
        np.array([[math.nan]]),
        np.array([[math.inf]]),
        np.zeros((4097, 1)),
    ],
)
@pytest.mark.parametrize("layout", Packing)
def test_tables_that_do_not_fit_are_refused(params: ParameterSet, layout: Packing, values: np.ndarray) -> None:
    with pytest.raises(UsageError):
        packing.pack(params, layout, values)


def test_in_rows_the_answers_are_where_positions_says(params: ParameterSet, rng: np.random.Generator) -> None:
    d, count = 30, 136
    values, w = rng.integers(0, 1000, (count, d)), rng.integers(-50, 51, d)
    row = packing.pack_rows(params, values.astype(np.float64))[0].astype(np.int64)
    multiplier = np.zeros(params.N, dtype=np.int64)
    multiplier[d - 1 - np.arange(d)] = w
    product = negacyclic_multiply_integer(row, multiplier)
    assert product[packing.positions(params, Packing.ROWS, d, count)].tolist() == (values @ w).tolist()


def test_shifted_rows_are_products_by_monomials(params: ParameterSet, random_input: np.ndarray) -> None:
    random_input[0, 0, -3] = 0  # -0 must stay 0, not become q
    d = 30
    shifted = packing.rows_shifted(params, random_input, d)
    assert len(shifted) == d
    for i in (0, 1, 17, d - 1):
        monomial = np.zeros(params.N, dtype=np.int64)
        monomial[d - 1 - i] = 1
        assert np.array_equal(shifted[i], negacyclic_multiply_mod(params, random_input, monomial))
    assert np.array_equal(shifted[d - 1], random_input)
    assert not shifted[0].flags.writeable


def test_shifts_by_almost_the_whole_ring(params: ParameterSet, random_input: np.ndarray) -> None:
    shifted = packing.rows_shifted(params, random_input, params.N)[0]
    assert np.array_equal(shifted[..., -1], random_input[..., 0])
    q = np.array(params.primes, dtype=np.uint64)[:, None]
    assert np.array_equal(shifted[..., :-1], (q - random_input[..., 1:]) % q)
    for d in (0, params.N + 1):
        with pytest.raises(UsageError):
            packing.rows_shifted(params, random_input, d)
    with pytest.raises(UsageError):
        packing.rows_shifted(params, random_input[0], 3)


# -- slots


def test_slot_j_is_the_value_at_the_root_to_the_power_three_to_the_j(rng: np.random.Generator) -> None:
    N = 64
    coefficients = rng.normal(size=(3, N))
    slots = packing.coefficients_to_slots(coefficients)
    assert slots.shape == (3, N // 2)
    for j in range(N // 2):
        root = cmath.exp(1j * math.pi * pow(3, j, 2 * N) / N)
        for row in range(3):
            value = sum(c * root**i for i, c in enumerate(coefficients[row].tolist()))
            assert slots[row, j] == pytest.approx(value, abs=1e-11)


def test_slots_need_a_ring() -> None:
    for N in (0, 2, 6, 100):
        with pytest.raises(UsageError):
            packing.coefficients_to_slots(np.zeros(N))


# -- exact products


@pytest.mark.parametrize("small", ["ternary", "largest", "alternating"])
@pytest.mark.parametrize("long", ["residues", "largest", "low limb full", "high limb full"])
def test_products_are_exact_over_the_integers(params: ParameterSet, rng, random_input, small: str, long: str) -> None:
    N = params.N
    short = {
        "ternary": rng.integers(-1, 2, N),
        "largest": np.full(N, 1024),
        "alternating": rng.choice([-1024, 1024], N),
    }[small]
    a = {
        "residues": random_input[0, 0],
        "largest": np.full(N, 2**37 - 1, dtype=np.uint64),
        "low limb full": np.full(N, 2**19 - 1, dtype=np.uint64),
        "high limb full": np.full(N, 2**37 - 2**19, dtype=np.uint64),
    }[long]
    assert negacyclic_multiply_integer(a, short).tolist() == negacyclic(a.tolist(), short.tolist())


def test_products_mod_the_primes_and_back(params: ParameterSet, random_input: np.ndarray, rng) -> None:
    u = rng.integers(-1, 2, params.N)
    product = negacyclic_multiply_mod(params, random_input, u)
    assert product.dtype == np.uint64
    for part in range(2):
        integers = centred_from_residues(params, random_input[part])
        expected = [c % params.Q for c in negacyclic(integers, u.tolist())]
        assert [c % params.Q for c in centred_from_residues(params, product[part])] == expected


def test_centred_integers_at_the_boundary(params: ParameterSet) -> None:
    Q = params.Q
    values = [0, 1, -1, Q // 2, -(Q // 2), Q // 2 - 1]
    residues = np.array([[value % q for value in values] for q in params.primes], dtype=np.uint64)
    assert centred_from_residues(params, residues) == [0, 1, -1, Q // 2, -(Q // 2), Q // 2 - 1]
    assert residues_of(params, np.array([-1, 5])).tolist() == [[q - 1, 5] for q in params.primes]


@pytest.mark.parametrize(
    ("a", "small"),
    [
        (np.full(8, 2**37), np.zeros(8, dtype=np.int64)),
        (np.full(8, -1), np.zeros(8, dtype=np.int64)),
        (np.zeros(8, dtype=np.int64), np.full(8, 1025)),
        (np.zeros(8, dtype=np.int64), np.full(8, -(2**63))),
        (np.zeros(8, dtype=np.int64), np.zeros(8)),
        (np.zeros(8), np.zeros(8, dtype=np.int64)),
        (np.zeros(4, dtype=np.int64), np.zeros(8, dtype=np.int64)),
        (np.zeros(6, dtype=np.int64), np.zeros(6, dtype=np.int64)),
        (np.zeros(8192, dtype=np.int64), np.zeros(8192, dtype=np.int64)),
    ],
)
def test_factors_for_which_exactness_is_not_proven_are_refused(a: np.ndarray, small: np.ndarray) -> None:
    with pytest.raises(UsageError):
        negacyclic_multiply_integer(a, small)
