"""The picture of a report: how much of what happened when. Pure geometry; the page and the PDF draw it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from api.client.ledger_report.report import Report, time_text
from api.client.ledger_report.rows import Row
from api.entries import (
    Approval,
    Clearance,
    CommittedRecords,
    Disclosure,
    Grant,
    JointPrediction,
    Key,
    Model,
    Network,
    Party,
    Prediction,
    Records,
    Refusal,
    Request,
    Revocation,
    Suspension,
)

__all__ = ["BUCKETS", "Activity", "Lane", "activity"]

BUCKETS: Final = 72
_TICKS: Final = 5

_LANES: Final = (
    ("parties and keys", (Party, Key)),
    ("models", (Model, Network, Approval)),
    ("records", (Records, CommittedRecords)),
    ("answers", (Prediction, JointPrediction)),
    ("asked and granted", (Request, Grant, Refusal)),
    ("shown to others", (Disclosure,)),
    ("withdrawn, suspended", (Revocation, Suspension, Clearance)),
)
_KINDS: Final = {body.KIND: name for name, bodies in _LANES for body in bodies}
_OTHER: Final = "other"
_FLAGGED: Final = "to look at"


@dataclass(frozen=True, slots=True)
class Lane:
    """One line of the picture: entries of a sort, counted in `BUCKETS` equal parts of the time shown."""

    name: str
    counts: tuple[int, ...]
    flagged: bool = False

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class Activity:
    """The picture. `ticks` are (place from 0 to 1, text); `axis` says what lies along."""

    lanes: tuple[Lane, ...]
    ticks: tuple[tuple[float, str], ...]
    axis: str


def activity(report: Report) -> Activity:
    """Entries at the time by which they were public; in the order of the ledger if no time is known."""
    timed = [row for row in report.rows if row.best.by is not None]
    times = [row.best.by for row in timed if row.best.by is not None]
    place: Callable[[Row], int]
    label: Callable[[int], str]
    if times and min(times) < max(times):
        low, high, rows = min(times), max(times), timed
        place, label = (lambda row: row.best.by or 0), _time_label(high - low)
        without = len(report.rows) - len(timed)
        axis = "time by which an entry was public (UTC)"
        axis += f"; {without:,} entries without a known time are not shown" if without else ""
    else:
        rows = list(report.rows)
        low, high = (rows[0].index, rows[-1].index) if rows else (0, 0)
        place, label, axis = (lambda row: row.index), str, "entries in the order of the ledger"
    lanes = [Lane(name, _counts([r for r in rows if _lane(r) == name], place, low, high)) for name in _names(rows)]
    flagged = [row for row in rows if row.flags]
    if flagged:
        lanes.append(Lane(_FLAGGED, _counts(flagged, place, low, high), flagged=True))
    steps = [i / (_TICKS - 1) for i in range(_TICKS)] if high > low else [0.0]
    return Activity(tuple(lanes), tuple((x, label(low + round(x * (high - low)))) for x in steps), axis)


def _names(rows: Sequence[Row]) -> list[str]:
    present = {_lane(row) for row in rows}
    return [name for name in (*(name for name, _ in _LANES), _OTHER) if name in present]


def _lane(row: Row) -> str:
    return _OTHER if row.author_entry is None else _KINDS.get(row.kind, _OTHER)


def _counts(rows: Sequence[Row], place: Callable[[Row], int], low: int, high: int) -> tuple[int, ...]:
    counts = [0] * BUCKETS
    for row in rows:
        counts[min(BUCKETS - 1, (place(row) - low) * BUCKETS // max(1, high - low))] += 1
    return tuple(counts)


def _time_label(span: int) -> Callable[[int], str]:
    """Days where days go by, else hours and minutes."""
    if span > 5 * 86_400:
        return lambda time: time_text(time)[:10]
    return lambda time: time_text(time)[5 : 16 if span > 600 else 19].replace("T", " ")
