"""The report: the rows of a period and of a clinic, and the facts around them. The same head and options, the same
report."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from api.client.ledger_report.entries import models_of, users_of
from api.client.ledger_report.heads import ClockStep
from api.client.ledger_report.reading import LedgerReading
from api.client.ledger_report.rows import Row, all_rows
from api.entries import Party, Revocation
from ledger import VerifiedHead
from privacy.canonical_json import parse_timestamp
from privacy.errors import UsageError

__all__ = ["LIMITS", "Period", "Report", "Who", "build_report", "time_text", "when"]

LIMITS: Final = (
    "What was not logged: a request that the server refused, an answer that it did not log, a session that neither "
    "party reported. They left no entry.",
    "The request for an answer: a server takes it only from the clinic that committed the records, and logs the answer "
    "in its own name.",
    "What a consumer asked to be shown, what a clinic granted and what it showed: the parties have these documents, "
    "the ledger has digests. That what was shown is what was granted is for its recipient to check, with sealproof "
    "verify.",
    "Who read: the ledger does not know who fetched an entry, a bundle or this report, or which member of a clinic's "
    "staff used its key.",
    "Values: the ledger holds commitments and digests. Neither measurements nor answers nor names of patients are on "
    "it.",
    "Whether proofs hold: signatures and the rules of the ledger were checked here. The proof of an answer is checked "
    "on its bundle, with sealproof verify.",
    "Exact times: each is a pair. The newest published head without the entry was cosigned at the first, the first "
    "head with it by the second; the server may have taken the entry a little before the first. The server's own clock "
    "is its word alone, witnesses answer for theirs.",
)
"""What no report of a ledger can show."""

_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Period:
    """From the second `start` to the second `end` (Unix time), both included; None: without a bound."""

    start: int | None = None
    end: int | None = None

    def __post_init__(self) -> None:
        if self.start is not None and self.end is not None and self.start > self.end:
            raise UsageError(f"the period begins at {time_text(self.start)}, after its end at {time_text(self.end)}")

    @classmethod
    def parse(cls, start: str | None, end: str | None) -> Period:
        """From days (YYYY-MM-DD, whole days in UTC) or seconds (YYYY-MM-DDTHH:MM:SSZ). Raises UsageError."""
        return cls(
            None if start is None else _second(start, last=False), None if end is None else _second(end, last=True)
        )


@dataclass(frozen=True, slots=True)
class Who:
    """A party that wrote entries of the report: where it is registered, its key's SHA-256, and how many it wrote."""

    name: str
    role: str
    entry: int
    key: bytes
    entries: int


@dataclass(frozen=True, slots=True)
class Total:
    """How often records of a clinic were used by a model, for how many patients in all, and how much is flagged."""

    clinic: str
    model: str
    owner: str
    uses: int
    patients: int
    flagged: int


@dataclass(frozen=True)
class Report:
    """Everything that the files say. `policy` is the digest of the witness policy (`policy_digest`), if one was used.

    `published` heads were checked, of which the quorum cosigned `witnessed` and the server's clock dated `dated`.
    """

    head: VerifiedHead
    period: Period
    clinic: str | None
    policy: bytes | None
    rows: Sequence[Row]
    who: Sequence[Who]
    owners: dict[int, str]
    published: int
    witnessed: int
    dated: int
    steps: Sequence[ClockStep]
    head_time: int | None

    @property
    def totals(self) -> list[Total]:
        """Uses of records by clinic and model, by name; sessions without an answer have no model."""
        groups: dict[tuple[str, str, int], list[Row]] = {}
        for row in self.uses:
            index = row.said.model_entry
            groups.setdefault((row.said.clinic, row.said.model, -1 if index is None else index), []).append(row)
        return [
            Total(
                clinic,
                model or "(no answer)",
                self.owners.get(index, ""),
                len(rows),
                sum(row.said.patients or 0 for row in rows),
                sum(bool(row.flags) for row in rows),
            )
            for (clinic, model, index), rows in sorted(groups.items())
        ]

    @property
    def flagged(self) -> list[Row]:
        """The rows that an auditor should look at."""
        return [row for row in self.rows if row.flags]

    @property
    def uses(self) -> list[Row]:
        """Answers on records, and sessions that gave none."""
        return [row for row in self.rows if row.is_use]


def build_report(reading: LedgerReading, period: Period, clinic: str | None, policy: bytes | None) -> Report:
    """The report of a period: every entry that may have become public within it, by the better clock.

    With `clinic`, only what concerns the clinic of this name: its own entries, its records and answers on them, the
    models that answered, suspensions; and every broken entry, since nobody can say whom it concerns.

    Raises UsageError if there is no such clinic.
    """
    registry = reading.registry
    models = frozenset(users_of(registry, clinic)) if clinic is not None else frozenset()
    if clinic is not None:
        party = registry.party_named(clinic)
        if party is None or party.body.role != "clinic":
            names = sorted(one.body.name for one in registry.all(Party) if one.body.role == "clinic")
            raise UsageError(f"the ledger has no clinic {clinic!r}; it has: {', '.join(map(repr, names)) or 'none'}")
    rows = [
        row
        for row in all_rows(reading)
        if row.best.overlaps(period.start, period.end) and (clinic is None or _concerns(row, clinic, models))
    ]
    counts = Counter(row.author_entry for row in rows if row.author_entry is not None)
    first = {row.author_entry: row for row in reversed(rows)}
    return Report(
        head=reading.head,
        period=period,
        clinic=clinic,
        policy=policy,
        rows=rows,
        who=[
            Who(first[entry].author, first[entry].role, entry, first[entry].key or b"", count)
            for entry, count in sorted(counts.items())
        ],
        owners={index: registry.author_of(index).body.name for index in models_of(registry)},
        published=len(reading.heads),
        witnessed=reading.witnesses.dated if reading.witnesses else 0,
        dated=reading.clock.dated,
        steps=(*(reading.witnesses.steps if reading.witnesses else ()), *reading.clock.steps),
        head_time=reading.best.bounds(reading.head.size - 1).by if reading.head.size else None,
    )


def time_text(time: int | None) -> str:
    """A second in UTC, YYYY-MM-DDTHH:MM:SSZ; nothing for None."""
    if time is None:
        return ""
    return f"{(datetime(1970, 1, 1) + timedelta(seconds=time)).isoformat()}Z"


def when(after: int | None, by: int | None) -> str:
    """Bounds in words."""
    if after is None and by is None:
        return "no time known"
    if by is None:
        return f"after {_words(after)}"
    if after is None:
        return f"by {_words(by)}"
    low, high = _words(after), _words(by)
    return f"{low} to {high[11:] if low[:10] == high[:10] else high}"


def _words(time: int | None) -> str:
    return time_text(time).replace("T", " ").removesuffix("Z")


def _concerns(row: Row, clinic: str, models: frozenset[int]) -> bool:
    if row.author_entry is None or row.said.clinic == clinic or (row.author == clinic and row.role == "clinic"):
        return True
    withdrawn = row.about if row.kind == Revocation.KIND else ()
    return row.index in models or any(index in models for index in withdrawn)


def _second(text: str, *, last: bool) -> int:
    """The first or the last second that a text names."""
    if _DAY.fullmatch(text):
        try:
            day = date.fromisoformat(text)
        except ValueError as error:
            raise UsageError(f"{text!r} is no day: {error}") from error
        begin = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
        return begin + 86_399 if last else begin
    try:
        return int(parse_timestamp(text).timestamp())
    except UsageError as error:
        raise UsageError(f"{text!r} is no time: write YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ, in UTC") from error
