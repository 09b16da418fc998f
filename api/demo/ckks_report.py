"""The page's part about predictions on encrypted records (CKKS)."""

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
    steps_table,
    table,
    tampering_table,
)

__all__ = ["EncryptedReport", "PatientRow", "StudyReport", "render_encrypted"]


@dataclass(frozen=True)
class PatientRow:
    """One patient as the clinic sees it after verification."""

    patient: str
    answer: float
    shown: str
    plain: float
    truth: str


@dataclass(frozen=True)
class StudyReport:
    """One data set under one model."""

    title: str
    question: str
    patients: int
    features: int
    quality: Sequence[tuple[str, str, str]]
    """(measure, attested answers, plain float model)."""
    largest_difference: float
    bound: float
    steps: Sequence[Step]
    checks: Sequence[tuple[str, str, float]]
    """(name, plain sentence, seconds) of each check of the auditor."""
    sample: Sequence[PatientRow]
    scores: Sequence[tuple[float, bool]]
    """(answer, has the outcome) of every patient, for the picture; empty for a regression."""
    pairs: Sequence[tuple[float, float]]
    """(attested answer, measured value) of every patient of a regression; empty for a classification."""
    exposure: str
    bundle: str
    sizes: Sequence[tuple[str, int]]


@dataclass(frozen=True)
class EncryptedReport:
    """Everything that the page says of this part."""

    studies: Sequence[StudyReport]
    tamperings: Sequence[Tampering]
    claims: Sequence[str]
    not_claimed: Sequence[str]


def render_encrypted(report: EncryptedReport) -> str:
    """The sections of this part. Every text is escaped."""
    return "".join(
        [
            _story(),
            *(_study(study) for study in report.studies),
            _tamperings(report.tamperings),
            promises(report.claims, report.not_claimed),
        ]
    )


def _story() -> str:
    return (
        "<section><h2>What happened</h2><p>A clinic encrypted its patients' records on its own computer and sent only "
        "ciphertexts. A model owner, who never saw a record, computed risk scores on them with a model that it keeps "
        "secret. Everybody's part was fixed in a public ledger before: the clinic's key and records, the owner's model."
        "</p><p>With the scores came a mathematical proof that they are this model's answers for these records, and "
        "nobody else's. A third party checked that proof first, without any key. Only then did the clinic decrypt.</p>"
        "</section>"
    )


def _study(study: StudyReport) -> str:
    picture = histogram(study.scores) if study.scores else scatter(study.pairs)
    quality = [(escape(a), escape(b), escape(c)) for a, b, c in study.quality]
    sample = [
        (escape(r.patient), f"{r.answer:+.4f}", escape(r.shown), f"{r.plain:+.4f}", escape(r.truth))
        for r in study.sample
    ]
    sizes = [(escape(name), bytes_text(size)) for name, size in study.sizes]
    return "".join(
        [
            f"<section><h2>{escape(study.title)}</h2><p>{escape(study.question)}</p>",
            f"<p>{study.patients:,} patients, {study.features} measurements each. Attested and plain answers differ by "
            f"at most <b>{study.largest_difference:.1e}</b>; the attestation promises at most "
            f"<b>{study.bound:.1e}</b>.</p>",
            table(["On patients that were not trained on", "attested answers", "plain model"], quality),
            f"<h3>Every patient at a glance</h3>{picture}",
            "<h3>Some patients, as the clinic sees them</h3>",
            table(["patient", "score", "reading", "plain model", "what was true"], sample, numbers={1, 3}),
            "<details open><summary>Who did what, and how long it took</summary>",
            steps_table(study.steps),
            "</details><details><summary>What the auditor checked</summary>",
            checks_table(study.checks),
            "</details><details><summary>Sizes, and what the clinic learns of the model</summary>",
            table(["what", "bytes"], sizes, numbers={1}),
            f"<p>{escape(study.exposure)}</p></details>",
            f"<p>Bundle: <code>{escape(study.bundle)}</code></p></section>",
        ]
    )


def _tamperings(tamperings: Sequence[Tampering]) -> str:
    return (
        "<section><h2>What was tried against it</h2><p>Each of these manipulations was really carried out on a copy of "
        "the bundle, with the server's own signing keys where the attacker is the server, and given to the same "
        f"auditor.</p>{tampering_table(tamperings)}</section>"
    )
