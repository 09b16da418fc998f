"""report.csv: one line an entry, RFC 4180 with every cell in quotes, UTF-8 with a byte order mark for spreadsheets.

A spreadsheet runs a cell that begins like a formula, so names that others chose are made harmless: an apostrophe is put
before =, +, - and @ at the beginning of a cell, and also behind a character at which a spreadsheet set to another
language may split the line; blanks and quotes between them do not help.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from api.client.ledger_report.heads import Bounds
from api.client.ledger_report.report import Report, time_text
from api.client.ledger_report.rows import Row

__all__ = ["COLUMNS", "csv_bytes", "safe_cell"]

COLUMNS: Final = (
    "entry",
    "kind",
    "author",
    "role",
    "author_entry",
    "author_key_sha256",
    "what",
    "about_entries",
    "clinic",
    "records_entry",
    "patients",
    "model",
    "model_entry",
    "model_owner",
    "requested_by",
    "witnesses_after",
    "witnesses_by",
    "server_clock_after",
    "server_clock_by",
    "outcome",
    "flags",
    "remarks",
    "leaf_sha256",
)

_FORMULA: Final = re.compile(r"""(^|[;,|\t])([\s"']*)(?=[=+\-@＝＋－＠])""")
_BOM: Final = "\ufeff"


def csv_bytes(report: Report) -> bytes:
    """The file."""
    lines = [_line(COLUMNS), *(_line(_cells(report, row)) for row in report.rows)]
    return (_BOM + "".join(lines)).encode("utf-8")


def safe_cell(text: str) -> str:
    """`text` as a spreadsheet may read it: no formula, on one line."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return _FORMULA.sub(r"\1\2'", shown)


def _line(cells: Iterable[str]) -> str:
    return ",".join('"' + safe_cell(cell).replace('"', '""') + '"' for cell in cells) + "\r\n"


def _cells(report: Report, row: Row) -> list[str]:
    said = row.said
    return [
        str(row.index),
        row.kind,
        row.author,
        row.role,
        _number(row.author_entry),
        "" if row.key is None else row.key.hex(),
        said.what,
        " ".join(map(str, row.about)),
        said.clinic,
        _number(said.records),
        _number(said.patients),
        said.model,
        _number(said.model_entry),
        "" if said.model_entry is None else report.owners.get(said.model_entry, ""),
        row.requested_by,
        *_times(row.witnesses),
        *_times(row.clock),
        row.outcome,
        " ".join(row.flags),
        "; ".join(row.remarks),
        row.leaf.hex(),
    ]


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _times(bounds: Bounds | None) -> tuple[str, str]:
    return ("", "") if bounds is None else (time_text(bounds.after), time_text(bounds.by))
