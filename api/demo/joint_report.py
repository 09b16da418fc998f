"""The page's part about predictions that clinic and owner compute together (two-party computation)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from api.demo.page import (
    Step,
    Tampering,
    bytes_text,
    checks_table,
    histogram,
    promises,
    scatter,
    seconds_text,
    steps_table,
    table,
    tampering_table,
)

__all__ = [
    "CheatReport",
    "JointModelReport",
    "JointPatient",
    "JointReport",
    "JointStudyReport",
    "render_joint",
]


@dataclass(frozen=True)
class JointModelReport:
    """One model on the patients of a study."""

    title: str
    label: str
    patients: int
    features: int
    quality: Sequence[tuple[str, str, str]]
    """(measure, attested answers, plain float model)."""
    largest_difference: float
    bound: float
    steps: Sequence[Step]
    checks: Sequence[tuple[str, str, float]]
    """(name, plain sentence, seconds) of each check of the auditor."""
    scores: Sequence[tuple[float, bool]]
    """(answer, has the outcome) of every patient, for the picture; empty for a regression."""
    pairs: Sequence[tuple[float, float]]
    """(attested answer, measured value) of every patient of a regression; empty for a classification."""
    exposure: str
    bundle: str
    sizes: Sequence[tuple[str, int]]


@dataclass(frozen=True)
class JointPatient:
    """One patient as the clinic sees it: what each model says, and what was true."""

    patient: str
    readings: Sequence[str]
    truth: str


@dataclass(frozen=True)
class JointStudyReport:
    """One data set under its models; `steps` are those before the predictions."""

    title: str
    question: str
    patients: int
    features: int
    steps: Sequence[Step]
    models: Sequence[JointModelReport]
    sample: Sequence[JointPatient]


@dataclass(frozen=True)
class CheatReport:
    """The node that cheated: what happened, and what everybody said."""

    steps: Sequence[Step]
    clinic_said: str
    owner_said: str
    failure: str
    refusal: str


@dataclass(frozen=True)
class JointReport:
    """Everything that the page says of this part."""

    starting: Sequence[Step]
    studies: Sequence[JointStudyReport]
    tamperings: Sequence[Tampering]
    cheat: CheatReport
    claims: Sequence[str]
    not_claimed: Sequence[str]

    @property
    def models(self) -> list[JointModelReport]:
        """Every model of every study."""
        return [model for study in self.studies for model in study.models]


def render_joint(report: JointReport) -> str:
    return ""
