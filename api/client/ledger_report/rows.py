"""One row for each entry of the ledger: who, what, when, and what became of it.

Flags are stable names for what an auditor should look at:

    malformed               the bytes are no entry
    breaks-rule             an entry that the ledger's rules do not allow; `remarks` names the rule
    after-policy            an answer that became public after the policy of its records had ended
    perhaps-after-policy    the policy ended within the bounds of the answer's time, or no time is known
    used-after-revocation   an answer logged after its records, model or key were withdrawn
    shown-without-grant     answers that a clinic showed to somebody without consent on the ledger
    after-grant             shown, and public only after the grant had ended
    perhaps-after-grant     the grant ended within the bounds of its time, or no time is known
    open-suspension         a session ended without its proof, and not both parties have agreed to go on
    clock-went-back         the bounds of the time were widened, because a clock dated heads out of order
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from api.client.ledger_report.entries import Said, quoted, references, said
from api.client.ledger_report.heads import Bounds
from api.client.ledger_report.reading import Broken, LedgerReading
from api.entries import (
    Body,
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
    Reference,
    Request,
    Suspension,
)
from api.registry import Logged
from privacy.canonical_json import parse_timestamp
from privacy.errors import VerificationFailed

__all__ = ["FLAGS", "Row", "all_rows"]

FLAGS: Final = (
    "malformed",
    "breaks-rule",
    "after-policy",
    "perhaps-after-policy",
    "used-after-revocation",
    "shown-without-grant",
    "after-grant",
    "perhaps-after-grant",
    "open-suspension",
    "clock-went-back",
)

_REVOCABLE: Final = (Key, Model, Records, Network, CommittedRecords, Grant)


@dataclass(frozen=True)
class Row:
    """An entry in the report.

    `author` is the name that the author's party entry gives, `key` the SHA-256 of its public key; a broken entry has
    none. `about` are the entries that it refers to. `witnesses` is None without a policy.
    """

    index: int
    leaf: bytes
    kind: str
    author: str
    role: str
    author_entry: int | None
    key: bytes | None
    about: tuple[int, ...]
    said: Said
    witnesses: Bounds | None
    clock: Bounds
    outcome: str
    flags: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def best(self) -> Bounds:
        """The bounds by the better clock: the witnesses' if there are any, else the server's."""
        return self.clock if self.witnesses is None else self.witnesses

    @property
    def is_use(self) -> bool:
        """Whether records were used: an answer, or a session that was to give one."""
        return self.kind in (Prediction.KIND, JointPrediction.KIND, Suspension.KIND) and "breaks-rule" not in self.flags

    @property
    def requested_by(self) -> str:
        """Who asked: for an answer the clinic of the records, the only one whose request a server accepts; to be shown
        something a consumer."""
        return self.said.clinic if self.kind in (Prediction.KIND, JointPrediction.KIND) else self.said.asked_by


@dataclass
class _Outcome:
    text: str
    flags: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def all_rows(reading: LedgerReading) -> Iterator[Row]:
    """A row for every entry, in ledger order. What came later is told as it stands under the head of the reading."""
    broken = {entry.reference.index: entry for entry in reading.broken}
    cleared = _clearances(reading)
    for index in range(reading.head.size):
        clock = reading.clock.bounds(index)
        witnesses = None if reading.witnesses is None else reading.witnesses.bounds(index)
        if index in broken:
            yield _broken_row(reading, broken[index], witnesses, clock)
        else:
            yield _row(reading, reading.registry.entry(index), witnesses, clock, cleared)


def _row(
    reading: LedgerReading,
    entry: Logged[Body],
    witnesses: Bounds | None,
    clock: Bounds,
    cleared: dict[int, dict[str, int]],
) -> Row:
    party = reading.registry.author_of(entry.reference.index)
    outcome = _outcome(reading, entry, clock if witnesses is None else witnesses, cleared)
    if clock.widened or (witnesses is not None and witnesses.widened):
        outcome.flags.append("clock-went-back")
    return Row(
        entry.reference.index,
        entry.reference.leaf,
        entry.body.KIND,
        party.body.name,
        party.body.role,
        party.reference.index,
        hashlib.sha256(party.body.public_key).digest(),
        tuple(dict.fromkeys(reference.index for reference in references(entry.body))),
        said(reading.registry, entry),
        witnesses,
        clock,
        outcome.text,
        tuple(outcome.flags),
        tuple(outcome.remarks),
    )


def _broken_row(reading: LedgerReading, entry: Broken, witnesses: Bounds | None, clock: Bounds) -> Row:
    """Nobody is its author: whoever it names need not have signed it."""
    if entry.check is None:
        flag, outcome, remark = "malformed", "means nothing: no entry", entry.detail
    else:
        flag, outcome = "breaks-rule", "means nothing: breaks a rule of the ledger"
        remark = f"{entry.check}: {entry.detail}"
    text = "bytes that are no entry"
    if entry.kind:
        text = f"claims to be of kind {entry.kind}"
    if entry.author is not None:
        text += f", by {_claimed(reading, entry.author)}"
    return Row(
        entry.reference.index,
        entry.reference.leaf,
        entry.kind,
        "",
        "",
        None,
        None,
        (),
        Said(text),
        witnesses,
        clock,
        outcome,
        (flag,),
        (remark,),
    )


def _claimed(reading: LedgerReading, author: Reference) -> str:
    try:
        return quoted(reading.registry.resolve(author, Party).body.name)
    except VerificationFailed:
        return f"entry {author.index}"


def _outcome(
    reading: LedgerReading, entry: Logged[Body], bounds: Bounds, cleared: dict[int, dict[str, int]]
) -> _Outcome:
    body: object = entry.body
    outcome = _Outcome("logged")
    match body:
        case Party():
            outcome.text = "registered"
        case Prediction():
            used = [("records", body.records), ("model", body.model), ("key", body.key)]
            _use(
                reading, entry, used, reading.registry.resolve(body.records, Records).body.policy.until, bounds, outcome
            )
        case JointPrediction():
            used = [("records", body.records), ("model", body.model)]
            until = reading.registry.resolve(body.records, CommittedRecords).body.policy.until
            _use(reading, entry, used, until, bounds, outcome)
        case Disclosure(grant=None):
            outcome.text = "shown without consent on the ledger"
            outcome.flags.append("shown-without-grant")
        case Disclosure(grant=Reference() as reference):
            outcome.text = "shown"
            until = reading.registry.resolve(reference, Grant).body.until
            _ended(until, "grant", f"the grant in entry {reference.index}", bounds, outcome)
        case Request():
            outcome.text = _answered(reading, entry.reference)
        case Suspension():
            by = cleared.get(entry.reference.index, {})
            listed = ", ".join(f"{quoted(name)} in entry {index}" for name, index in by.items())
            if len(by) == 2:
                outcome.text = f"no answer; cleared by both: {listed}"
            else:
                outcome.text = f"no answer; cleared by {listed} only" if by else "no answer; not cleared"
                outcome.flags.append("open-suspension")
        case _ if isinstance(body, _REVOCABLE):
            index = reading.registry.revocation(entry.reference)
            if index is not None:
                outcome.text = f"logged; withdrawn later by entry {index}"
    return outcome


def _use(
    reading: LedgerReading,
    entry: Logged[Body],
    used: list[tuple[str, Reference]],
    until: str | None,
    bounds: Bounds,
    outcome: _Outcome,
) -> None:
    outcome.text = "answers logged"
    for what, reference in used:
        index = reading.registry.revocation(reference)
        if index is None:
            continue
        if index < entry.reference.index:
            outcome.flags.append("used-after-revocation")
            outcome.remarks.append(
                f"{what} (entry {reference.index}) withdrawn before, by entry {index}; the head that the answer names "
                "is older"
            )
        else:
            outcome.remarks.append(f"{what} (entry {reference.index}) withdrawn later, by entry {index}")
    if until is not None:
        _ended(until, "policy", "the policy of the records", bounds, outcome)


def _ended(until: str, name: str, what: str, bounds: Bounds, outcome: _Outcome) -> None:
    """Flag what became public, or may have, after `what` had ended at `until`."""
    end = int(parse_timestamp(until).timestamp())
    if bounds.after is not None and bounds.after > end:
        outcome.flags.append(f"after-{name}")
        outcome.remarks.append(f"became public after {what} had ended, on {until}")
    elif bounds.by is None or bounds.by > end:
        outcome.flags.append(f"perhaps-after-{name}")
        known = "no time is known" if (bounds.after, bounds.by) == (None, None) else "within the bounds of its time"
        outcome.remarks.append(f"{what} ended on {until}: {known}")


def _answered(reading: LedgerReading, request: Reference) -> str:
    """What came of a request."""
    registry = reading.registry
    grants, refusal = registry.consents.grants(request.index), registry.consents.refusal(request.index)
    told = "not answered"
    if grants:
        told = f"granted by {', '.join(f'entry {index}' for index in grants)}"
    elif refusal is not None:
        told = f"refused by entry {refusal}"
    index = registry.revocation(request)
    return told if index is None else f"{told}; withdrawn later by entry {index}"


def _clearances(reading: LedgerReading) -> dict[int, dict[str, int]]:
    """By suspension: the names of the parties that cleared it, with the entries."""
    found: dict[int, dict[str, int]] = {}
    for clearance in reading.registry.all(Clearance):
        index = clearance.reference.index
        by = found.setdefault(clearance.body.suspension.index, {})
        by[reading.registry.author_of(index).body.name] = index
    return found
