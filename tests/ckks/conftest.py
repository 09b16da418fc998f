from __future__ import annotations

import numpy as np
import pytest

from privacy.ckks.canonical import ResultCiphertext
from privacy.ckks.keys import ClinicKeys
from privacy.ckks.params import ParameterSet, parameter_set


@pytest.fixture(scope="session")
def params() -> ParameterSet:
    return parameter_set("linear-4096")


@pytest.fixture(scope="session")
def clinic_keys(params: ParameterSet) -> ClinicKeys:
    """One key pair for the whole session; tests must not change it."""
    return ClinicKeys.generate(params, "clinic-a", 1)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20)


@pytest.fixture
def random_input(params: ParameterSet, rng: np.random.Generator) -> np.ndarray:
    """Uniform residues of the shape of an input ciphertext."""
    return np.stack([[rng.integers(0, q, params.N, dtype=np.uint64) for q in params.primes] for _ in range(2)])


@pytest.fixture
def random_result(params: ParameterSet, random_input: np.ndarray) -> ResultCiphertext:
    positions = np.array([0, 3, 4, 1000, params.N - 1])
    return ResultCiphertext(positions, np.ascontiguousarray(random_input[0][:, positions]), random_input[1])
