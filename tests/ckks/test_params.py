from __future__ import annotations

import dataclasses

import pytest

from privacy.ckks.params import PARAMETER_SETS, ParameterSet, parameter_set
from privacy.errors import UsageError

sealapi = pytest.importorskip("tenseal.sealapi")


def test_the_literal_primes_are_those_seal_derives_from_the_bit_sizes() -> None:
    params = parameter_set("linear-4096")
    derived = [modulus.value() for modulus in sealapi.CoeffModulus.Create(4096, [36, 36, 37])]
    assert derived == [*params.primes, params.special_prime]
    assert params.primes == (68719230977, 68719403009)
    assert params.special_prime == 137438822401


@pytest.mark.parametrize("params", PARAMETER_SETS.values(), ids=lambda params: params.name)
def test_every_set_is_within_the_128_bit_table_and_fits_the_transform(params: ParameterSet) -> None:
    primes = (*params.primes, params.special_prime)
    total = 1
    for q in primes:
        total *= q
    assert total.bit_length() <= sealapi.CoeffModulus.MaxBitCount(params.N, sealapi.SEC_LEVEL_TYPE.TC128)
    assert len(set(primes)) == len(primes)
    assert all(q % (2 * params.N) == 1 and sealapi.Modulus(q).is_prime() for q in primes)


def test_derived_quantities() -> None:
    params = parameter_set("linear-4096")
    assert (params.L, params.N, params.SX, params.SW, params.D) == (2, 4096, 34, 24, 58)
    assert params.Q == 68719230977 * 68719403009


@pytest.mark.parametrize("name", ["", "linear-2048x", "LINEAR-4096", "linear-4096 ", "quadratic"])
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="linear-4096"):
        parameter_set(name)


def test_the_sets_cannot_be_extended_at_run_time() -> None:
    with pytest.raises(TypeError):
        PARAMETER_SETS["mine"] = parameter_set("linear-4096")  # type: ignore[index]


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(ParameterSet)])
def test_every_field_changes_the_encoding(name: str) -> None:
    params = parameter_set("linear-4096")
    value = getattr(params, name)
    changed = {str: lambda: "linear-4097", int: lambda: value + 1, tuple: lambda: (value[0], value[1] + 2)}[
        type(value)
    ]()
    assert dataclasses.replace(params, **{name: changed}).encode() != params.encode()


def test_one_prime_fewer_changes_the_encoding_even_if_the_next_field_takes_its_place() -> None:
    params = parameter_set("linear-4096")
    shifted = dataclasses.replace(params, primes=params.primes[:1], special_prime=params.primes[1])
    assert shifted.encode() != params.encode()
    assert not params.encode().startswith(shifted.encode())
