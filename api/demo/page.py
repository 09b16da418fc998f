"""Pieces of the demonstration's page: its style, tables, pictures, and what every part of the story consists of.

No scripts, and nothing is fetched from anywhere. Pictures are inline SVG in the colours of the page, light or dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = [
    "STYLE",
    "Step",
    "Tampering",
    "bytes_text",
    "checks_table",
    "histogram",
    "promises",
    "scatter",
    "seconds_text",
    "steps_table",
    "table",
    "tampering_table",
    "unbroken",
]


@dataclass(frozen=True)
class Step:
    """One step of the story: who did what, how long it took, what it produced."""

    actor: str
    what: str
    seconds: float
    size: int | None = None


@dataclass(frozen=True)
class Tampering:
    """One attack that was tried: by whom, what was changed, which check refused it and what it said."""

    attacker: str
    what: str
    check: str
    message: str


STYLE = """
:root{--ink:#1b2733;--soft:#5a6b7b;--line:#d8e0e7;--paper:#fff;--back:#f3f6f8;--good:#0f7b55;--bad:#b3261e;--a:#2563a8;
--b:#c2571a}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9fb0c0;--line:#33414e;--paper:#16202a;--back:#0e151c;
--good:#4cc38a;--bad:#ff8a80;--a:#6aa8ee;--b:#f0955a}}
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
main{max-width:60rem;margin:0 auto;padding:1.5rem}section{background:var(--paper);border:1px solid var(--line);
border-radius:10px;padding:1.2rem 1.5rem;margin:1.2rem 0}h1{font-size:1.7rem;margin:.2rem 0}h2{font-size:1.25rem;
margin:.2rem 0 .6rem}h2.part{font-size:1.45rem;margin:2.2rem 0 .2rem}h3{font-size:1rem;margin:1.2rem 0 .4rem}
p{margin:.4rem 0}.lead{color:var(--soft)}
.verdict{display:flex;gap:1rem;flex-wrap:wrap;margin:1rem 0}.tile{flex:1 1 12rem;border:1px solid var(--line);
border-radius:10px;padding:.8rem 1rem;background:var(--paper)}.tile b{display:block;font-size:1.5rem}
.tile span{color:var(--soft);font-size:.9rem}.good{color:var(--good)}.bad{color:var(--bad)}
code.bad,.line{white-space:nowrap}
table{border-collapse:collapse;width:100%;font-size:.93rem}th,td{text-align:left;padding:.35rem .6rem;
border-bottom:1px solid var(--line);vertical-align:top}th{color:var(--soft);font-weight:600}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}td.n{white-space:nowrap}code{font:.85em/1.4 ui-monospace,
monospace;overflow-wrap:anywhere}td{overflow-wrap:anywhere;min-width:7rem}
td.n{min-width:0}.wide{overflow-x:auto}svg{max-width:100%;height:auto}details{margin:.6rem 0}
summary{cursor:pointer;color:var(--soft)}li{margin:.2rem 0}
"""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: set[int] | None = None) -> str:
    """Cells are HTML already."""
    numbers = numbers or set()

    def cell(tag: str, place: int, text: str) -> str:
        return f"<{tag}{' class=n' if place in numbers else ''}>{text}</{tag}>"

    top = "".join(cell("th", i, escape(text)) for i, text in enumerate(head))
    body = "".join("<tr>" + "".join(cell("td", i, text) for i, text in enumerate(row)) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{top}</tr>{body}</table></div>'


def steps_table(steps: Sequence[Step]) -> str:
    """Who did what, how long it took, and, if anything has a size, how large the result is."""
    rows = [(escape(s.actor), escape(s.what), seconds_text(s.seconds), bytes_text(s.size)) for s in steps]
    columns = 4 if any(step.size is not None for step in steps) else 3
    return table(["who", "what", "time", "size"][:columns], [row[:columns] for row in rows], numbers={2, 3})


def checks_table(checks: Sequence[tuple[str, str, float]]) -> str:
    """Name, plain sentence and seconds of each check of the auditor."""
    rows = [(f"<code>{escape(name)}</code>", escape(what), seconds_text(t)) for name, what, t in checks]
    return table(["check", "what it shows", "time"], rows, numbers={2})


def tampering_table(tamperings: Sequence[Tampering]) -> str:
    """Every attack, and the check that refused it."""
    rows = [
        (escape(t.attacker), escape(t.what), f'<code class="bad">{escape(t.check)}</code>', escape(t.message))
        for t in tamperings
    ]
    return table(["attacker", "what was changed", "caught by", "what the auditor said"], rows)


def promises(claims: Sequence[str], not_claimed: Sequence[str]) -> str:
    """What the attestation says, word by word, and what it does not."""
    proved = "".join(f"<li>{escape(sentence)}</li>" for sentence in claims)
    others = "".join(f"<li>{escape(sentence)}</li>" for sentence in not_claimed)
    return f"<section><h2>What is proved</h2><ul>{proved}</ul><h2>What is not</h2><ul>{others}</ul></section>"


def unbroken(text: str) -> str:
    """A text, escaped, that is not broken into lines."""
    return f'<span class="line">{escape(text)}</span>'


def seconds_text(value: float) -> str:
    """A duration for people."""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def bytes_text(value: int | None) -> str:
    """A size for people; nothing for None."""
    if value is None:
        return ""
    for unit, size in (("MB", 1_000_000), ("kB", 1_000)):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value} B"


_WIDTH, _HEIGHT, _MARGIN = 720, 240, 36


def histogram(scores: Sequence[tuple[float, bool]], bins: int = 36) -> str:
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


def scatter(pairs: Sequence[tuple[float, float]]) -> str:
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
