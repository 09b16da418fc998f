"""Two clinical data sets that ship with scikit-learn, and models trained on them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from privacy.models.linear import LinearModel, from_sklearn
from privacy.models.schema import Cohort, Schema, breast_cancer_schema, diabetes_schema

__all__ = ["Study", "studies"]

_SEED = 20261122
"""Of the split into training and held-out patients; hides nothing."""


@dataclass(frozen=True, eq=False)
class Study:
    """A cohort, what was true of it, and a model trained on a part of it."""

    name: str
    title: str
    question: str
    schema: Schema
    cohort: Cohort
    truth: NDArray[np.float64]
    held_out: NDArray[np.int64]
    model: LinearModel
    card: dict[str, str]
    weight_bits: int
    classifies: bool

    @property
    def sample(self) -> list[int]:
        """Some held-out patients for the page."""
        return sorted(int(i) for i in self.held_out[:8])

    def write_csv(self, path: Path) -> None:
        """The file that the clinic starts from."""
        with path.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle)
            writer.writerow(["id", *self.schema.names])
            for patient, row in zip(self.cohort.ids, self.cohort.values.tolist(), strict=True):
                writer.writerow([patient, *map(repr, row)])

    def reading(self, value: float) -> str:
        """An answer in words."""
        return f"{value:.1%} malignant" if self.classifies else f"progression {value:.0f}"

    def truth_text(self, i: int) -> str:
        """What was true of patient i."""
        if self.classifies:
            return "malignant" if self.truth[i] else "benign"
        return f"{self.truth[i]:.0f}"

    def quality(self, answers: NDArray[np.float64], plain: NDArray[np.float64]) -> Sequence[tuple[str, str, str]]:
        """Quality on held-out patients: (measure, of attested answers, of the plain model)."""
        from sklearn.metrics import accuracy_score, mean_absolute_error, r2_score, roc_auc_score

        held, truth = self.held_out, self.truth[self.held_out]
        if self.classifies:
            measures: dict[str, Callable[[NDArray[np.float64]], str]] = {
                "accuracy": lambda y: f"{accuracy_score(truth, y > 0):.1%}",
                "area under ROC": lambda y: f"{roc_auc_score(truth, y):.4f}",
            }
        else:
            measures = {
                "R squared": lambda y: f"{r2_score(truth, y):.3f}",
                "mean absolute error": lambda y: f"{mean_absolute_error(truth, y):.1f}",
            }
        return [(name, measure(answers[held]), measure(plain[held])) for name, measure in measures.items()]


def studies() -> list[Study]:
    """breast_cancer with logistic regression, diabetes with ridge regression."""
    return [_breast_cancer(), _diabetes()]


def _split(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    order = np.random.default_rng(_SEED).permutation(count)
    return order[: count * 7 // 10], order[count * 7 // 10 :]


def _ids(count: int) -> list[str]:
    return [f"patient-{i:03d}" for i in range(1, count + 1)]


def _breast_cancer() -> Study:
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    data = load_breast_cancer()
    truth = (data.target == 0).astype(np.float64)  # scikit-learn's class 0 is malignant
    train, held_out = _split(len(truth))
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.1)).fit(data.data[train], truth[train])
    schema = breast_cancer_schema()
    return Study(
        name="breast-cancer",
        title="Breast cancer: is a mass malignant?",
        question="Thirty measurements of cell nuclei from a fine needle aspirate (Wisconsin, 569 patients); a logistic "
        "model says how likely the mass is malignant.",
        schema=schema,
        cohort=schema.cohort(data.data, _ids(len(truth))),
        truth=truth,
        held_out=held_out,
        model=from_sklearn(pipeline, schema, name="breast-cancer", output_names=("malignant",)),
        card={"training": "70% of scikit-learn's breast_cancer", "use": "demonstration"},
        weight_bits=28,
        classifies=True,
    )


def _diabetes() -> Study:
    from sklearn.datasets import load_diabetes
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    data = load_diabetes(scaled=False)
    train, held_out = _split(len(data.target))
    pipeline = make_pipeline(StandardScaler(), Ridge(alpha=1.0)).fit(data.data[train], data.target[train])
    schema = diabetes_schema()
    return Study(
        name="diabetes",
        title="Diabetes: how far will it progress?",
        question="Age, sex, body mass index, blood pressure and six serum measurements of 442 patients; a ridge "
        "regression predicts a measure of disease progression one year on.",
        schema=schema,
        cohort=schema.cohort(data.data, _ids(len(data.target))),
        truth=np.asarray(data.target, dtype=np.float64),
        held_out=held_out,
        model=from_sklearn(pipeline, schema, name="diabetes", output_names=("progression",)),
        card={"training": "70% of scikit-learn's diabetes", "use": "demonstration"},
        weight_bits=32,
        classifies=False,
    )
