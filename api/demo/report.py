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
class Step:
    """One step of the story: who did what, how long it took, what it produced."""

    actor: str
    what: str
    seconds: float
    size: int | None = None


@dataclass(frozen=True)
class PatientRow:
    """One patient as the clinic sees it after verification."""

    patient: str
    answer: float
    shown: str
    plain: float
    truth: str


@dataclass(frozen=True)
class Tampering:
    """One attack that was tried: by whom, what was changed, which check refused it and what it said."""

    attacker: str
    what: str
    check: str
    message: str


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


_STYLE = """
:root{--ink:#1b2733;--soft:#5a6b7b;--line:#d8e0e7;--paper:#fff;--back:#f3f6f8;--good:#0f7b55;--bad:#b3261e;--a:#2563a8;
--b:#c2571a}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9fb0c0;--line:#33414e;--paper:#16202a;--back:#0e151c;
--good:#4cc38a;--bad:#ff8a80;--a:#6aa8ee;--b:#f0955a}}
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
main{max-width:60rem;margin:0 auto;padding:1.5rem}section{background:var(--paper);border:1px solid var(--line);
border-radius:10px;padding:1.2rem 1.5rem;margin:1.2rem 0}h1{font-size:1.7rem;margin:.2rem 0}h2{font-size:1.25rem;
margin:.2rem 0 .6rem}h3{font-size:1rem;margin:1.2rem 0 .4rem}p{margin:.4rem 0}.lead{color:var(--soft)}
.verdict{display:flex;gap:1rem;flex-wrap:wrap;margin:1rem 0}.tile{flex:1 1 12rem;border:1px solid var(--line);
border-radius:10px;padding:.8rem 1rem;background:var(--paper)}.tile b{display:block;font-size:1.5rem}
.tile span{color:var(--soft);font-size:.9rem}.good{color:var(--good)}.bad{color:var(--bad)}
table{border-collapse:collapse;width:100%;font-size:.93rem}th,td{text-align:left;padding:.35rem .6rem;
border-bottom:1px solid var(--line);vertical-align:top}th{color:var(--soft);font-weight:600}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}code{font:.85em/1.4 ui-monospace,
monospace;overflow-wrap:anywhere}td{overflow-wrap:anywhere;min-width:7rem}
td.n{min-width:0}.wide{overflow-x:auto}svg{max-width:100%;height:auto}details{margin:.6rem 0}
summary{cursor:pointer;color:var(--soft)}li{margin:.2rem 0}
"""


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
            f"<title>Sealproof demonstration</title><style>{_STYLE}</style><main>",
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
    picture = _histogram(study.scores) if study.scores else _scatter(study.pairs)
    quality = [(escape(a), escape(b), escape(c)) for a, b, c in study.quality]
    sample = [
        (escape(r.patient), f"{r.answer:+.4f}", escape(r.shown), f"{r.plain:+.4f}", escape(r.truth))
        for r in study.sample
    ]
    steps = [(escape(s.actor), escape(s.what), _seconds(s.seconds), _bytes(s.size)) for s in study.steps]
    checks = [(f"<code>{escape(n)}</code>", escape(what), _seconds(t)) for n, what, t in study.checks]
    sizes = [(escape(name), _bytes(size)) for name, size in study.sizes]
    return "".join(
        [
            f"<section><h2>{escape(study.title)}</h2><p>{escape(study.question)}</p>",
            f"<p>{study.patients:,} patients, {study.features} measurements each. Attested and plain answers differ by "
            f"at most <b>{study.largest_difference:.1e}</b>; the attestation promises at most "
            f"<b>{study.bound:.1e}</b>.</p>",
            _table(["On patients that were not trained on", "attested answers", "plain model"], quality),
            f"<h3>Every patient at a glance</h3>{picture}",
            "<h3>Some patients, as the clinic sees them</h3>",
            _table(["patient", "score", "reading", "plain model", "what was true"], sample, numbers={1, 3}),
            "<details open><summary>Who did what, and how long it took</summary>",
            _table(["who", "what", "time", "size"], steps, numbers={2, 3}),
            "</details><details><summary>What the auditor checked</summary>",
            _table(["check", "what it shows", "time"], checks, numbers={2}),
            "</details><details><summary>Sizes, and what the clinic learns of the model</summary>",
            _table(["what", "bytes"], sizes, numbers={1}),
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
        f"auditor.</p>{_table(['attacker', 'what was changed', 'caught by', 'what the auditor said'], rows)}</section>"
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


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: set[int] | None = None) -> str:
    """Cells are HTML already."""
    numbers = numbers or set()

    def cell(tag: str, place: int, text: str) -> str:
        return f"<{tag}{' class=n' if place in numbers else ''}>{text}</{tag}>"

    top = "".join(cell("th", i, escape(text)) for i, text in enumerate(head))
    body = "".join("<tr>" + "".join(cell("td", i, text) for i, text in enumerate(row)) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{top}</tr>{body}</table></div>'


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def _bytes(value: int | None) -> str:
    if value is None:
        return ""
    for unit, size in (("MB", 1_000_000), ("kB", 1_000)):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value} B"


_WIDTH, _HEIGHT, _MARGIN = 720, 240, 36


def _histogram(scores: Sequence[tuple[float, bool]], bins: int = 36) -> str:
    """Two overlaid histograms: patients with and without the outcome, by score."""
    low, high = min(s for s, _ in scores), max(s for s, _ in scores)
    width = (high - low) / bins or 1.0
    counts = {kind: [0] * bins for kind in (False, True)}
    for score, kind in scores:
        counts[kind][min(bins - 1, int((score - low) / width))] += 1
    top = max(max(values) for values in counts.values())
    step = (_WIDTH - 2 * _MARGIN) / bins
    bars = []
    for kind, colour in ((False, "var(--a)"), (True, "var(--b)")):
        for i, count in enumerate(counts[kind]):
            if count:
                height = count / top * (_HEIGHT - 2 * _MARGIN)
                bars.append(
                    f'<rect x="{_MARGIN + i * step:.1f}" y="{_HEIGHT - _MARGIN - height:.1f}" width="{step - 1:.1f}" '
                    f'height="{height:.1f}" fill="{colour}" fill-opacity=".65"/>'
                )
    zero = _MARGIN + (0 - low) / (high - low or 1.0) * (_WIDTH - 2 * _MARGIN)
    line = (
        f'<line x1="{zero:.1f}" x2="{zero:.1f}" y1="{_MARGIN - 14}" y2="{_HEIGHT - _MARGIN}" stroke="currentColor" '
        'stroke-dasharray="4 4"/>'
        if low < 0 < high
        else ""
    )
    legend = _label(_MARGIN, 16, "without the outcome", "var(--a)") + _label(_MARGIN + 190, 16, "with it", "var(--b)")
    return _svg("Number of patients by score", "".join(bars) + line + _axis(low, high, "score") + legend)


def _scatter(pairs: Sequence[tuple[float, float]]) -> str:
    """Attested answer against measured value."""
    low = min(min(pair) for pair in pairs)
    high = max(max(pair) for pair in pairs)
    scale = high - low or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            _MARGIN + (x - low) / scale * (_WIDTH - 2 * _MARGIN),
            _HEIGHT - _MARGIN - (y - low) / scale * (_HEIGHT - 2 * _MARGIN),
        )

    points = "".join(
        '<circle cx="{:.1f}" cy="{:.1f}" r="2.6" fill="var(--a)" fill-opacity=".6"/>'.format(*place(x, y))
        for x, y in pairs
    )
    (x1, y1), (x2, y2) = place(low, low), place(high, high)
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    line = f'<line {ends} stroke="currentColor" stroke-dasharray="4 4"/>'
    legend = _label(_MARGIN, 16, "a patient: predicted across, measured upwards", "var(--a)")
    return _svg("Predicted against measured values", line + points + _axis(low, high, "predicted value") + legend)


def _axis(low: float, high: float, name: str) -> str:
    y = _HEIGHT - _MARGIN
    ticks = []
    for i in range(5):
        x = _MARGIN + i / 4 * (_WIDTH - 2 * _MARGIN)
        ticks.append(
            f'<text x="{x:.0f}" y="{y + 16}" text-anchor="middle" font-size="12" fill="currentColor">'
            f"{low + i / 4 * (high - low):.1f}</text>"
        )
    return (
        f'<line x1="{_MARGIN}" x2="{_WIDTH - _MARGIN}" y1="{y}" y2="{y}" stroke="currentColor"/>{"".join(ticks)}'
        f'<text x="{_WIDTH - _MARGIN}" y="{y + 32}" text-anchor="end" font-size="12" fill="currentColor">'
        f"{escape(name)}</text>"
    )


def _label(x: int, y: int, text: str, colour: str) -> str:
    return (
        f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{colour}"/>'
        f'<text x="{x + 18}" y="{y}" font-size="13" fill="currentColor">{escape(text)}</text>'
    )


def _svg(title: str, content: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}" '
        f'xmlns="http://www.w3.org/2000/svg">{content}</svg>'
    )
