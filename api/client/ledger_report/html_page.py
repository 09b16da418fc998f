"""report.html: one page for people, in light or dark or on paper. No scripts, and nothing is fetched from anywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from html import escape
from typing import Final

from api.client.ledger_report.activity import BUCKETS, Activity, activity
from api.client.ledger_report.report import LIMITS, Report, time_text, when
from api.client.ledger_report.rows import Row
from api.entries import Disclosure

__all__ = ["MOST_ROWS", "heading", "html_bytes", "summary"]

MOST_ROWS: Final = 5_000
"""Rows of one table on the page; report.csv has all of them."""

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1b2733;--soft:#5a6b7b;--line:#d8e0e7;--paper:#fff;--back:#f3f6f8;--good:#0f7b55;
--bad:#b3261e;--bar:#2563a8;--badback:#fbeceb}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9fb0c0;--line:#33414e;--paper:#16202a;--back:#0e151c;
--good:#4cc38a;--bad:#ff8a80;--bar:#6aa8ee;--badback:#3a2020}}
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:78rem;margin:0 auto;padding:1.5rem}section{background:var(--paper);border:1px solid var(--line);
border-radius:10px;padding:1.1rem 1.4rem;margin:1.1rem 0}h1{font-size:1.65rem;margin:.2rem 0}h2{font-size:1.2rem;
margin:.1rem 0 .6rem}h3{font-size:1rem;margin:1.3rem 0 .3rem}p{margin:.4rem 0}.lead,.soft{color:var(--soft)}
.lead{margin-bottom:1rem}.told td:nth-child(4){min-width:19rem}.tiles{display:flex;gap:1rem;flex-wrap:wrap}
.tile{flex:1 1 11rem;border:1px solid var(--line);border-radius:10px;
padding:.8rem 1rem;background:var(--paper)}.tile b{display:block;font-size:1.5rem}.tile span{color:var(--soft);
font-size:.9rem}.good{color:var(--good)}.bad{color:var(--bad)}
table{border-collapse:collapse;width:100%;font-size:.9rem}th,td{text-align:left;padding:.35rem .6rem;
border-bottom:1px solid var(--line);vertical-align:top}th{color:var(--soft);font-weight:600;position:sticky;top:0;
background:var(--paper)}td{overflow-wrap:anywhere;min-width:7rem}
td.n,th.n{min-width:0;text-align:right;font-variant-numeric:tabular-nums}
td.t{white-space:nowrap;font-variant-numeric:tabular-nums}tr.flagged td:first-child{box-shadow:inset 3px 0 var(--bad)}
.wide{overflow-x:auto}code{font:.88em/1.4 ui-monospace,monospace;overflow-wrap:anywhere}
.flag{display:inline-block;background:var(--badback);color:var(--bad);border-radius:5px;padding:0 .4rem;margin:0 .25rem
.1rem 0;font-size:.85em;white-space:nowrap}
svg{width:100%;height:auto;display:block}svg text{fill:currentColor;font:12px system-ui,sans-serif}
.soft text,text.soft{fill:var(--soft)}li{margin:.25rem 0}
@media print{body{background:#fff}main{max-width:none;padding:0}section{border:0;padding:0}.wide{overflow:visible}
tr{break-inside:avoid}th{position:static}}
"""


def html_bytes(report: Report) -> bytes:
    """The file. Every text that is not ours is escaped."""
    title = f"Audit report of the ledger {report.head.origin}"
    return "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>",
            f"<h1>{escape(title)}</h1>",
            f'<p class="lead">{escape(heading(report))}</p>',
            _tiles(report),
            _picture(activity(report)),
            _flagged(report),
            _uses(report),
            _who(report),
            f"<section><h2>What was checked</h2>{_list(summary(report))}</section>",
            f"<section><h2>What is not in this report</h2>{_list(LIMITS)}</section>",
            _check(report),
            _everything(report),
            "</main></body></html>\n",
        ]
    ).encode("utf-8")


def heading(report: Report) -> str:
    """What the report is about, in a sentence."""
    period, head = report.period, report.head
    if period.start is None and period.end is None:
        text = "All entries"
    else:
        start = "the beginning" if period.start is None else time_text(period.start)
        end = "the newest entry" if period.end is None else time_text(period.end)
        text = f"Entries that became public, or may have, from {start} to {end}"
    about = f", as far as they concern the clinic {report.clinic}" if report.clinic is not None else ""
    state = f"read when the ledger had {head.size:,} entries"
    seen = f", by {time_text(report.head_time)}" if report.head_time is not None else ""
    return f"{text}{about}; {state}{seen}."


def summary(report: Report) -> list[str]:
    """What was checked to make the report, in sentences."""
    head = report.head
    told = [
        f"All {head.size:,} entries were read; together they have the root {head.root.hex()} that the ledger's key "
        "signed. None can be left out, added, changed or moved.",
        f"{_many(report.published, 'published head')} before it and with it: each signed by the ledger's key, and each "
        "of the same growing tree.",
        "The signature of every entry, and the rules of the ledger: who may write what, what refers to what, nothing "
        "used once it was withdrawn. Entries that break one are listed and flagged.",
        f"Times by the server's own clock: {_many(report.dated, 'head')} dated with the key of the server's entry.",
    ]
    if report.policy is not None:
        told.append(
            f"Times by witnesses: the quorum of the policy with the digest {report.policy.hex()} cosigned "
            f"{_many(report.witnessed, 'head')}."
        )
    told += [
        f"A clock went back: {step.clock} dated the head of {step.old_size:,} entries {time_text(step.old_time)} and "
        f"the larger one of {step.new_size:,} entries {time_text(step.new_time)}. Times there are wider for it."
        for step in report.steps
    ]
    return told


def _tiles(report: Report) -> str:
    uses, flagged = report.uses, len(report.flagged)
    answers = [row for row in uses if row.said.patients is not None]
    patients = sum(row.said.patients or 0 for row in answers)
    look = ("nothing", "good") if not flagged and not report.steps else (f"{flagged:,}", "bad")
    tiles = [
        (f"{len(report.rows):,}", f"of {report.head.size:,} entries are in this report", ""),
        (f"{len(answers):,}", f"uses of records, {patients:,} patients' answers", ""),
        (look[0], "to look at" + (", and a clock that went back" if report.steps else ""), look[1]),
        ("complete", "every entry read, every published head checked", "good"),
    ]
    shown = (f'<div class="tile"><b class="{c}">{escape(a)}</b><span>{escape(b)}</span></div>' for a, b, c in tiles)
    return f'<div class="tiles">{"".join(shown)}</div>'


def _picture(shown: Activity) -> str:
    if not shown.lanes:
        return ""
    left, right, width, lane, top = 165, 60, 1000, 34, 8
    span, height = width - left - right, top + lane * len(shown.lanes) + 44
    step, parts = span / BUCKETS, []
    for number, row in enumerate(shown.lanes):
        base, most = top + lane * (number + 1), max(1, *row.counts)
        colour = "var(--bad)" if row.flagged else "var(--bar)"
        parts.append(f'<text x="{left - 12}" y="{base - 6}" text-anchor="end">{escape(row.name)}</text>')
        parts.append(f'<text x="{width - right + 12}" y="{base - 6}">{row.total:,}</text>')
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{base}" y2="{base}" stroke="var(--line)"/>')
        for place, count in enumerate(row.counts):
            if count:
                tall = max(3.0, count / most * (lane - 8))
                parts.append(
                    f'<rect x="{left + place * step + 0.75:.1f}" y="{base - tall:.1f}" width="{step - 1.5:.1f}" '
                    f'height="{tall:.1f}" rx="1.5" fill="{colour}"/>'
                )
    under = top + lane * len(shown.lanes) + 18
    for number, (at, text) in enumerate(shown.ticks):
        anchor = "start" if number == 0 else "end" if number == len(shown.ticks) - 1 else "middle"
        parts.append(f'<text class="soft" x="{left + at * span:.0f}" y="{under}" text-anchor="{anchor}">')
        parts.append(f"{escape(text)}</text>")
    parts.append(
        f'<text class="soft" x="{left}" y="{under + 20}">{escape(shown.axis)}; each line on its own scale</text>'
    )
    return (
        f'<section><h2>Activity</h2><svg viewBox="0 0 {width} {height}" role="img" aria-label="Entries over time" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg></section>'
    )


def _flagged(report: Report) -> str:
    rows = [
        _row(row, [str(row.index), _when(row), escape(row.author), escape(row.said.what), _outcome(row)])
        for row in report.flagged[:MOST_ROWS]
    ]
    if not rows:
        return ""
    head = ("entry", "when (UTC)", "who", "what", "why")
    return f"<section><h2>To look at</h2>{_table(head, rows, told=True)}{_rest(len(report.flagged))}</section>"


def _uses(report: Report) -> str:
    uses = report.uses
    if not uses:
        return "<section><h2>Use of records</h2><p>No records were used.</p></section>"
    totals = [
        f"<tr><td>{escape(one.clinic)}</td><td>{escape(one.model)}</td><td>{escape(one.owner)}</td>"
        f"<td class=n>{one.uses:,}</td><td class=n>{one.patients:,}</td><td class=n>{one.flagged or ''}</td></tr>"
        for one in report.totals
    ]
    shown = Counter(index for row in report.rows if row.kind == Disclosure.KIND for index in row.about)
    rows = []
    for row in uses[:MOST_ROWS]:
        said = row.said
        records = "" if said.records is None else f"entry {said.records}"
        patients = "" if said.patients is None else f"{said.patients:,}"
        model = "" if said.model_entry is None else f"{escape(said.model)} <span class=soft>entry {said.model_entry}"
        model += f", {escape(report.owners.get(said.model_entry, ''))}</span>" if said.model_entry is not None else ""
        told = f"{shown[row.index]:,}" if shown[row.index] else ""
        cells = [str(row.index), _when(row), escape(said.clinic), records, patients, model]
        rows.append(_row(row, [*cells, escape(row.requested_by), _outcome(row), told], {4, 8}))
    head = (
        *("entry", "when (UTC)", "clinic", "its records", "patients", "model and owner", "requested by", "outcome"),
        "shown",
    )
    note = (
        "<p class=soft>Which clinic's records were used by which model, when, and with what outcome. Requested by: a "
        "server takes a request only from the clinic of the records; the request itself is not on the ledger. Shown: "
        "how often the clinic showed answers to others, as far as that is in this report. Requests that were refused "
        "never reached the ledger.</p>"
    )
    sums = _table(("clinic", "model", "its owner", "uses", "patients' answers", "to look at"), totals, {3, 4, 5})
    listed = f"<h3>One by one</h3>{_table(head, rows, {0, 4, 8})}{_rest(len(uses))}"
    return f"<section><h2>Use of records</h2>{note}{sums}{listed}</section>"


def _who(report: Report) -> str:
    rows = [
        f"<tr><td>{escape(one.name)}</td><td>{escape(one.role)}</td><td class=n>{one.entry}</td>"
        f"<td><code>{one.key.hex()}</code></td><td class=n>{one.entries:,}</td></tr>"
        for one in report.who
    ]
    head = ("party", "role", "registered in entry", "SHA-256 of its key", "entries here")
    return f"<section><h2>Who</h2>{_table(head, rows, {2, 4})}</section>"


def _everything(report: Report) -> str:
    rows = [
        _row(
            row,
            [
                str(row.index),
                _when(row),
                f"{escape(row.author)} <span class=soft>{escape(row.role)}</span>",
                escape(row.said.what),
                " ".join(map(str, row.about)),
                _outcome(row),
            ],
        )
        for row in report.rows[:MOST_ROWS]
    ]
    head = ("entry", "when (UTC)", "who", "what", "about", "outcome")
    note = (
        "<p class=soft>When: by witnesses if a policy was given, else by the server's clock; report.csv has both.</p>"
    )
    return f"<section><h2>Every entry</h2>{note}{_table(head, rows, told=True)}{_rest(len(report.rows))}</section>"


def _check(report: Report) -> str:
    trust = "--log-key LOG.VKEY" if report.policy is None else "--policy POLICY"
    return (
        "<section><h2>Check this report</h2><p>report.note is signed by who made it and names the SHA-256 of every "
        "file beside it. This makes the report again from the ledger and compares: <code>sealproof ledger report "
        f"--check FOLDER --server ADDRESS {trust}</code></p>"
        f"<p class=soft>Ledger <code>{escape(report.head.origin)}</code>, {report.head.size:,} entries, root "
        f"<code>{report.head.root.hex()}</code>.</p></section>"
    )


def _row(row: Row, cells: Sequence[str], numbers: Container[int] = ()) -> str:
    """Cells are HTML already; the first is the number of the entry, the second its time."""
    kinds = [" class=n", " class=t", *(" class=n" if i in numbers else "" for i in range(2, len(cells)))]
    body = "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, cells, strict=True))
    return f"<tr{' class=flagged' if row.flags else ''}>{body}</tr>"


def _outcome(row: Row) -> str:
    flags = "".join(f"<span class=flag>{escape(flag)}</span>" for flag in row.flags)
    remarks = f" <span class=soft>{escape('; '.join(row.remarks))}</span>" if row.remarks else ""
    return f"{flags}{escape(row.outcome)}{remarks}"


def _when(row: Row) -> str:
    return escape(when(row.best.after, row.best.by)).replace(" to ", "<br>")


def _table(head: Sequence[str], rows: Sequence[str], numbers: Container[int] = (0,), told: bool = False) -> str:
    """`told`: the fourth column is a sentence."""
    top = "".join(f"<th{' class=n' if i in numbers else ''}>{escape(text)}</th>" for i, text in enumerate(head))
    return f'<div class="wide"><table{" class=told" if told else ""}><tr>{top}</tr>{"".join(rows)}</table></div>'


def _rest(count: int) -> str:
    if count <= MOST_ROWS:
        return ""
    return f"<p>The first {MOST_ROWS:,} of {count:,}; report.csv has all.</p>"


def _list(sentences: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>"


def _many(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
