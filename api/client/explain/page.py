"""An explanation as one page, in light or dark or on paper. No scripts, and nothing is fetched from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape as escape_markup
from typing import Final

from api.client.explain.document import Explanation, Picture, Place, Quantity, Section, Sentence, Signer
from api.client.explain.text import printable

__all__ = ["as_page"]

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1b2733;--soft:#5a6b7b;--line:#d8e0e7;--paper:#fff;--back:#f3f6f8;--good:#0f7b55;
--bad:#b3261e;--bar:#2563a8}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9fb0c0;--line:#33414e;--paper:#16202a;--back:#0e151c;
--good:#4cc38a;--bad:#ff8a80;--bar:#6aa8ee}}
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
main{max-width:56rem;margin:0 auto;padding:1.5rem}section{background:var(--paper);border:1px solid var(--line);
border-radius:10px;padding:1.1rem 1.4rem;margin:1.1rem 0}h1{font-size:1.65rem;margin:.2rem 0}h2{font-size:1.2rem;
margin:.1rem 0 .6rem}p{margin:.5rem 0}.soft{color:var(--soft);font-size:.9rem}.good{color:var(--good)}
.bad{color:var(--bad)}li{margin:.45rem 0}.terms{display:block;color:var(--soft);font-size:.88rem}
table{border-collapse:collapse;width:100%;font-size:.93rem}th,td{text-align:left;padding:.4rem .6rem;
border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}thead th{color:var(--soft)}
tbody th{font-weight:600;min-width:9rem}td{min-width:7rem}.wide{overflow-x:auto}
code,pre{font:.88em/1.45 ui-monospace,monospace;overflow-wrap:anywhere;white-space:pre-wrap}
pre{border:1px solid var(--line);border-radius:6px;padding:.6rem .8rem;margin:.6rem 0}
svg{width:100%;height:auto;display:block}svg text{fill:var(--ink);font:13px system-ui,sans-serif}
svg .small{font-size:12px;fill:var(--soft)}svg rect{fill:var(--paper);stroke:var(--line);stroke-width:1.5}
svg .ours{stroke:var(--good)}svg .arrow{fill:none;stroke:var(--bar);stroke-width:1.6}svg .tip,svg .dot{fill:var(--bar)}
svg .number{fill:var(--paper);font-size:12px;font-weight:700}
@media print{body{background:#fff;font-size:11pt}main{max-width:none;padding:0}section{border:0;padding:0}
li,tr,svg{break-inside:avoid}h2{break-after:avoid}.wide{overflow:visible}}
"""

_WIDE, _TALL, _GAP, _ROW = 148, 76, 46, 132
_LONGEST: Final = 19


def as_page(explanation: Explanation) -> bytes:
    """The file. Every text that is not ours is escaped."""
    name = escape(explanation.bundle)
    verdict = f'<strong class="{"good" if explanation.result == "verified" else "bad"}">{explanation.result}</strong>'
    return "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<title>{escape(explanation.title)}</title><style>{_STYLE}</style></head><body><main>",
            f"<h1>{escape(explanation.title)}</h1>",
            f'<p class="soft">The bundle <code>{name}</code> was {verdict} by <code>sealproof explain</code>. This '
            "page is an account of that, and proves nothing by itself.</p>",
            *_sections(explanation),
            "</main></body></html>\n",
        ]
    ).encode("utf-8")


def escape(text: str) -> str:
    """Text of others: no markup, and nothing that is not printed, such as marks that turn the direction of writing."""
    return escape_markup(printable(text))


def _sections(explanation: Explanation) -> list[str]:
    out = []
    for number, section in enumerate(explanation.sections, start=1):
        out.append(_section(section, number))
        if section.name == "in-short" and explanation.picture is not None:
            out.append(_picture(explanation.picture))
    return out


def _section(section: Section, number: int) -> str:
    anchor = f"{escape(section.name)}-title"
    parts = [f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{number}. {escape(section.title)}</h2>']
    if section.name == "in-short":
        parts += [f"<p>{escape(sentence.plain)}</p>" for sentence in section.sentences]
    elif section.sentences:
        parts.append(f"<ul>{''.join(map(_sentence, section.sentences))}</ul>")
    if section.signers:
        head = ("who", "said", "signed entries", "key")
        parts.append(_table(head, [_signer(signer) for signer in section.signers]))
    if section.quantities:
        parts.append(_table(("what", "value", "meaning"), [_quantity(quantity) for quantity in section.quantities]))
    parts += [f"<pre>{escape(command)}</pre>" for command in section.commands]
    return "".join([*parts, "</section>"])


def _sentence(sentence: Sentence) -> str:
    after = escape(sentence.terms)
    if sentence.step:
        after += f"{' ' if after else ''}(checked in step <code>{escape(sentence.step)}</code>)"
    terms = f'<span class="terms">{after}</span>' if after else ""
    return f"<li>{escape(sentence.plain)}{terms}</li>"


def _signer(signer: Signer) -> list[str]:
    registered = "" if signer.registered is None else f"registered in {signer.registered}"
    entries = ", ".join(map(str, signer.entries))
    where = "; ".join(text for text in (entries, registered) if text)
    return [
        f"{escape(signer.role)} {escape(signer.name)}",
        escape(signer.said),
        escape(where),
        f"<code>{escape(signer.fingerprint)}</code>",
    ]


def _quantity(quantity: Quantity) -> list[str]:
    return [escape(quantity.name), escape(quantity.shown), escape(quantity.note)]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML already; the first of a row names it."""
    top = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in rows
    )
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


# -- the picture ------------------------------------------------------------------------------------------------------


def _picture(picture: Picture) -> str:
    places = {place.key: place for place in picture.places}
    columns = max(place.column for place in picture.places) + 1
    rows = max(place.row for place in picture.places) + 1
    width, height = columns * (_WIDE + _GAP) - _GAP + 4, (rows - 1) * _ROW + _TALL + 4
    drawn = [_arrow(places[a.start], places[a.end], n) for n, a in enumerate(picture.arrows, start=1)]
    drawn += [_box(place) for place in picture.places]
    listed = "".join(
        f"<li>{escape(places[arrow.start].title)} to {escape(places[arrow.end].title)}: {escape(arrow.gives)}</li>"
        for arrow in picture.arrows
    )
    return (
        '<section aria-labelledby="picture-title"><h2 id="picture-title">Who gives what to whom</h2>'
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="Boxes for those who take part, with numbered '
        f'arrows between them; the list below says what each arrow stands for.">{"".join(drawn)}</svg>'
        f"<ol>{listed}</ol></section>"
    )


def _corner(place: Place) -> tuple[int, int]:
    return place.column * (_WIDE + _GAP) + 2, place.row * _ROW + 2


def _box(place: Place) -> str:
    x, y = _corner(place)
    middle, ours = x + _WIDE // 2, ' class="ours"' if place.key in ("proof", "reader") else ""
    return (
        f'<rect{ours} x="{x}" y="{y}" width="{_WIDE}" height="{_TALL}" rx="9"/>'
        f'<text class="small" x="{middle}" y="{y + 30}" text-anchor="middle">{escape(place.title)}</text>'
        f'<text x="{middle}" y="{y + 52}" text-anchor="middle">{escape(_short(place.name))}</text>'
    )


def _short(name: str) -> str:
    shown = printable(name)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"


def _arrow(start: Place, end: Place, number: int) -> str:
    """From edge to edge, with its number in the middle."""
    (x1, y1), (x2, y2) = _corner(start), _corner(end)
    if start.row == end.row:
        ahead = start.column < end.column
        x1, x2 = (x1 + _WIDE, x2) if ahead else (x1, x2 + _WIDE)
        y1 = y2 = y1 + _TALL // 2
        tip = f"{x2},{y2} {x2 - 9 if ahead else x2 + 9},{y2 - 5} {x2 - 9 if ahead else x2 + 9},{y2 + 5}"
    else:
        down = start.row < end.row
        shift = 0 if start.column == end.column else 30 if start.column < end.column else -30
        x1, x2 = x1 + _WIDE // 2 + shift, x2 + _WIDE // 2 - shift
        y1, y2 = (y1 + _TALL, y2) if down else (y1, y2 + _TALL)
        tip = f"{x2},{y2} {x2 - 5},{y2 - 9 if down else y2 + 9} {x2 + 5},{y2 - 9 if down else y2 + 9}"
    mx, my = (x1 + x2) // 2, (y1 + y2) // 2
    return (
        f'<path class="arrow" d="M{x1} {y1}L{x2} {y2}"/><polygon class="tip" points="{tip}"/>'
        f'<circle class="dot" cx="{mx}" cy="{my}" r="9"/>'
        f'<text class="number" x="{mx}" y="{my + 4}" text-anchor="middle">{number}</text>'
    )
