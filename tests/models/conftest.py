"""Trained models on real data, and the one parameter set, shared by the tests of privacy.models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from privacy.ckks.params import ParameterSet, parameter_set
from privacy.models.linear import LinearModel
from privacy.models.schema import Feature, Schema, breast_cancer_schema, diabetes_schema


@dataclass(frozen=True, eq=False)
class Data:
    """Records in raw units, labels, and the schema that they satisfy."""

    X: NDArray[np.float64]
    y: NDArray[np.float64]
    schema: Schema


@pytest.fixture(scope="session")
def params() -> ParameterSet:
    return parameter_set("linear-4096")


@pytest.fixture(scope="session")
def breast_cancer() -> Data:
    datasets = pytest.importorskip("sklearn.datasets")
    X, y = datasets.load_breast_cancer(return_X_y=True)
    return Data(X, y, breast_cancer_schema())


@pytest.fixture(scope="session")
def diabetes() -> Data:
    datasets = pytest.importorskip("sklearn.datasets")
    X, y = datasets.load_diabetes(return_X_y=True, scaled=False)
    return Data(X, y, diabetes_schema())


@pytest.fixture(scope="session", params=["iris", "wine"])
def multiclass(request: pytest.FixtureRequest) -> Data:
    datasets = pytest.importorskip("sklearn.datasets")
    bunch = getattr(datasets, f"load_{request.param}")()
    names = [str(name) for name in bunch.feature_names]
    return Data(bunch.data, bunch.target, Schema.from_data(request.param, 1, names, bunch.data, margin=0.1))


@pytest.fixture
def small_schema() -> Schema:
    return Schema(
        "ward",
        2,
        (
            Feature("age", "a", 18, 100, "integer"),
            Feature("glucose", "mg/dL", 20, 600),
            Feature("smoker", "1", 0, 1, "boolean"),
        ),
    )


@pytest.fixture
def plain_schema() -> Callable[..., Schema]:
    """A schema of d like features."""

    def make(d: int, low: float = -1.0, high: float = 1.0, encoding: str = "unit") -> Schema:
        features = tuple(Feature(f"x{i}", "1", low, high, "number", encoding) for i in range(d))  # type: ignore[arg-type]
        return Schema("plain", 1, features)

    return make


@pytest.fixture
def small_model(small_schema: Schema) -> LinearModel:
    return LinearModel("risk", [[0.01, -0.02, 0.5]], [0.1], ("risk",), "logit", small_schema)  # type: ignore[arg-type]
