"""Exposure: numbers worked out by hand, and rounding that never favours whoever asks."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from privacy.ckks.bounds import derive_bounds
from privacy.ckks.exposure import Exposure, log2_of_modulus, model_bits, proof_bits, released_bits
from privacy.ckks.params import ParameterSet
from privacy.errors import UsageError

BREAST_CANCER = {"d": 30, "b": 28, "b_bias": 62, "grid_bits": 6}


def test_a_model_has_the_bits_of_its_weights_and_bias() -> None:
    assert model_bits(30, 28, 62) == 30 * 29 + 63 == 933
    assert model_bits(1, 0, 0) == 2


def test_log2_of_the_modulus_is_rounded_up(params: ParameterSet) -> None:
    # Q = 68719230977 * 68719403009 is just below 2^72; 2^(72 - 1/64) would be 1.1 per cent smaller.
    assert params.Q < 1 << 72
    assert log2_of_modulus(params) == 72
    small = replace(params, primes=(3,))
    assert log2_of_modulus(small) == Fraction(102, 64)  # log2(3) = 1.58496 = 101.4 / 64
    exact = replace(params, primes=(1 << 10,))
    assert log2_of_modulus(exact) == 10


def test_a_result_releases_what_is_above_the_blur(params: ParameterSet) -> None:
    assert released_bits(params, published=4096, f=25) == 4096 * (72 - 26) == 188_416
    assert released_bits(params, published=1, f=0) == 71
    assert released_bits(params, published=7, f=80) == 0  # a blur larger than the modulus leaves nothing


def test_the_blur_comes_from_the_bounds_of_the_proof(params: ParameterSet) -> None:
    # Protocol, section 10: f = 25, 21, 19 for 1, 16, 64 full blocks at g = 2^-6.
    for blocks, f in ((1, 25), (16, 21), (64, 19)):
        bits = proof_bits(params, blocks=blocks, outputs=1, count=4096, **BREAST_CANCER)
        assert bits == blocks * 4096 * (72 - (f + 1))


def test_outputs_share_the_bounds_but_are_counted_apart(params: ParameterSet) -> None:
    together = proof_bits(params, blocks=1, outputs=16, count=4096, **BREAST_CANCER)
    assert together == 4096 * (72 - 22)  # f of 16 instances, one output's coefficients


def test_fewer_patients_are_blurred_more_and_release_less(params: ParameterSet) -> None:
    f = derive_bounds(params, instances=1, published=569, d=30, b=28, b_bias=62, grid_bits=6).f
    bits = proof_bits(params, blocks=1, outputs=1, count=569, **BREAST_CANCER)
    assert f > 25
    assert bits == 569 * (72 - (f + 1))


def test_recoverable_means_more_bits_than_the_model_has() -> None:
    assert not Exposure(Fraction(933), 933).recoverable
    assert Exposure(Fraction(933) + Fraction(1, 64), 933).recoverable
    assert Exposure(Fraction(1866), 933).share == 2


@pytest.mark.parametrize("arguments", [(0, 25), (-1, 25), (10, -1)])
def test_impossible_results_are_refused(params: ParameterSet, arguments: tuple[int, int]) -> None:
    with pytest.raises(UsageError):
        released_bits(params, *arguments)


@pytest.mark.parametrize("arguments", [(0, 28, 62), (30, -1, 62), (30, 28, -1)])
def test_impossible_models_are_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError):
        model_bits(*arguments)


def test_what_cannot_be_proven_releases_nothing(params: ParameterSet) -> None:
    with pytest.raises(UsageError, match="no room"):
        proof_bits(params, blocks=256, outputs=1, count=4096, **BREAST_CANCER)
