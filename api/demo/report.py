"""The page that `sealproof demo` leaves: one HTML file, no scripts, nothing fetched from anywhere.

Written for a physician first: what was computed, whether it can be trusted, what was tried against it. Numbers and
digests for auditors follow. Pictures are inline SVG.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["PatientRow", "Report", "Step", "StudyReport", "Tampering", "render"]


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
class Report:
    """Everything on the page."""

    created: str
    machine: str
    versions: str
    origin: str
    log_key: str
    studies: Sequence[StudyReport]
    tamperings: Sequence[Tampering]
    claims: Sequence[str]
    not_claimed: Sequence[str]


def render(report: Report) -> str:
    """The whole page. Every text is escaped."""
    patients = sum(study.patients for study in report.studies)
    tiles = [
        (f"{patients:,}", "patients scored without being seen"),
        ("verified", "by an auditor's process with no key and no encryption library"),
        (f"{len(report.tamperings)} of {len(report.tamperings)}", "manipulations refused, each by a named check"),
    ]
    return "".join(
        [
            '<!doctype html><html lang="en"><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<title>Sealproof demonstration</title><style>{STYLE}</style><main>",
            "<h1>Predictions on encrypted patient records that anyone can check</h1>",
            f'<p class="lead">Made on {escape(report.created)} by <code>sealproof demo</code>.</p>',
            '<div class="verdict">',
            *(f'<div class="tile"><b class="good">{escape(a)}</b><span>{escape(b)}</span></div>' for a, b in tiles),
            "</div>",
            _story(),
            *(_study(study) for study in report.studies),
            _tamperings(report.tamperings),
            _promises(report),
            _auditor(report),
            "</main></html>",
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
    steps = [(escape(s.actor), escape(s.what), seconds_text(s.seconds), bytes_text(s.size)) for s in study.steps]
    checks = [(f"<code>{escape(n)}</code>", escape(what), seconds_text(t)) for n, what, t in study.checks]
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
            table(["who", "what", "time", "size"], steps, numbers={2, 3}),
            "</details><details><summary>What the auditor checked</summary>",
            table(["check", "what it shows", "time"], checks, numbers={2}),
            "</details><details><summary>Sizes, and what the clinic learns of the model</summary>",
            table(["what", "bytes"], sizes, numbers={1}),
            f"<p>{escape(study.exposure)}</p></details>",
            f"<p>Bundle: <code>{escape(study.bundle)}</code></p></section>",
        ]
    )


def _tamperings(tamperings: Sequence[Tampering]) -> str:
    rows = [
        (escape(t.attacker), escape(t.what), f'<code class="bad">{escape(t.check)}</code>', escape(t.message))
        for t in tamperings
    ]
    return (
        "<section><h2>What was tried against it</h2><p>Each of these manipulations was really carried out on a copy of "
        "the bundle, with the server's own signing keys where the attacker is the server, and given to the same "
        f"auditor.</p>{table(['attacker', 'what was changed', 'caught by', 'what the auditor said'], rows)}</section>"
    )


def _promises(report: Report) -> str:
    claims = "".join(f"<li>{escape(x)}</li>" for x in report.claims)
    others = "".join(f"<li>{escape(x)}</li>" for x in report.not_claimed)
    return f"<section><h2>What is proved</h2><ul>{claims}</ul><h2>What is not</h2><ul>{others}</ul></section>"


def _auditor(report: Report) -> str:
    bundles = "".join(f"<li><code>sealproof verify {escape(s.bundle)}</code></li>" for s in report.studies)
    return (
        f"<section><h2>Check it yourself</h2><ul>{bundles}</ul><p>Ledger <code>{escape(report.origin)}</code>, key "
        f"<code>{escape(report.log_key)}</code>.</p><p class='lead'>{escape(report.machine)}; "
        f"{escape(report.versions)}</p></section>"
    )
