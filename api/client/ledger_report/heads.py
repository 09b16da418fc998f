"""The archive of published heads, and when an entry became public.

Every published head is signed by the log and dated by those who cosigned it. Entry i became public after the newest
head without it, of at most i entries, and before the first head with it, of more. So two cosignature times bound it:

    after   the earliest time at which the newest dated head without the entry was cosigned
    by      the latest time at which the first dated head with the entry was cosigned: it existed by then

Two clocks are told apart: the witnesses of a policy, who answer for their time together, and the server's own. The
server may have taken an entry a little before `after`, while an older head was on its way to the witnesses. A server
that keeps heads out of the archive makes the bounds wider, never false. Where a clock went back, the bounds are widened
until they hold for either of its readings, and the place is reported.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from api.client.ledger_report.sources import LedgerSource
from api.client.session import log_errors
from api.clock import clock_name
from ledger import VerifiedHead, Verifier, open_checkpoint
from ledger import errors as ledger_errors
from ledger.cosignature import CosignatureVerifier
from ledger.errors import Fork
from ledger.note import Note
from ledger.trust_policy import TlogPolicy
from privacy.errors import VerificationFailed

__all__ = [
    "Bounds",
    "ClockStep",
    "Timeline",
    "clock_timeline",
    "open_heads",
    "policy_digest",
    "read_archive",
    "witness_timeline",
]

_PAGE: Final = 256
_LAST_SECOND: Final = 253_402_300_799
"""9999-12-31T23:59:59Z: what cannot be written as a date is no time."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """When an entry became public, in seconds of Unix time; None where nothing is known."""

    after: int | None
    by: int | None
    widened: bool = False
    """Whether a clock that went back made this wider."""

    def overlaps(self, start: int | None, end: int | None) -> bool:
        """Whether the entry may have become public at a second from `start` to `end`."""
        late = end is not None and self.after is not None and self.after > end
        early = start is not None and self.by is not None and self.by < start
        return not late and not early


@dataclass(frozen=True, slots=True)
class ClockStep:
    """A clock that went back: it dated a larger head earlier than a smaller one."""

    clock: str
    old_size: int
    old_time: int
    new_size: int
    new_time: int


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one kind of clock says of one head: the earliest and latest time, and each clock's own by name."""

    size: int
    earliest: int
    latest: int
    clocks: Mapping[str, tuple[int, int]]


class Timeline:
    """Bounds by one kind of clock. `steps` are the places where a clock went back."""

    def __init__(self, readings: Sequence[_Reading]) -> None:
        self._sizes = [reading.size for reading in readings]
        self._earliest = [reading.earliest for reading in readings]
        self._latest = [reading.latest for reading in readings]
        # No later head may be dated earlier and no earlier head later: else both dates are possible.
        self._lowest = list(accumulate(reversed(self._earliest), min))[::-1]
        self._highest = list(accumulate(self._latest, max))
        self.steps = tuple(_steps(readings))

    @property
    def dated(self) -> int:
        """Number of heads with a time."""
        return len(self._sizes)

    def bounds(self, index: int) -> Bounds:
        """When entry `index` became public."""
        first = bisect_right(self._sizes, index)  # the first head with more than `index` entries
        widened = False
        after = by = None
        if first > 0:
            after = self._lowest[first - 1]
            widened = after != self._earliest[first - 1]
        if first < len(self._sizes):
            by = self._highest[first]
            widened = widened or by != self._latest[first]
        return Bounds(after, by, widened and bool(self.steps))


def read_archive(source: LedgerSource, head: VerifiedHead, verifier: Verifier) -> list[VerifiedHead]:
    """The published heads up to `head`, which is the last of them: signed by the log, in order.

    Whether they are heads of the log's tree is found while it is read (`reading.read_ledger`).

    Raises:
        VerificationFailed: `report.archive` for heads out of order or an archive without `head`, and what
            `open_checkpoint` raises, as `log_errors` tells it.
        Fork: the archive has another root at the size of `head`.
    """
    heads: list[VerifiedHead] = []
    start = 0
    while start <= head.size:
        page = source.publications(start, _PAGE)
        if not page:
            break
        if len(page) > _PAGE:
            raise VerificationFailed("report.archive", f"asked for {_PAGE} published heads, got {len(page)}")
        opened = _opened(page, head.origin, verifier, start - 1)
        heads += (one for one in opened if one.size <= head.size)
        start = opened[-1].size + 1
    if not heads or heads[-1].size != head.size:
        size = heads[-1].size if heads else 0
        raise VerificationFailed(
            "report.archive",
            f"the archive of published heads ends at {size} entries, the log's head has {head.size}: the archive is "
            "stale or incomplete",
        )
    if heads[-1].root != head.root:
        raise Fork(head.size, heads[-1].note, head.note)
    return heads


def open_heads(notes: Sequence[bytes], origin: str, verifier: Verifier) -> list[VerifiedHead]:
    """The heads with these notes, which were kept: signed by the log, in order of their sizes.

    Raises VerificationFailed and DecodeError as `read_archive` does, but compares them with no head.
    """
    return _opened(notes, origin, verifier, -1)


def _opened(notes: Sequence[bytes], origin: str, verifier: Verifier, last: int) -> list[VerifiedHead]:
    """The heads with these notes; their sizes grow from more than `last` on."""
    heads = []
    for note in notes:
        with log_errors():
            head = open_checkpoint(note, verifier, origin)
        if head.size <= last:
            raise VerificationFailed("report.archive", f"a head of {head.size} entries is listed behind size {last}")
        last = head.size
        heads.append(head)
    return heads


def witness_timeline(heads: Sequence[VerifiedHead], policy: TlogPolicy, verifier: Verifier) -> Timeline:
    """Bounds by the witnesses of `policy`. A head without its quorum is public all the same; it dates nothing.

    Raises VerificationFailed: a listed witness's signature does not hold, `report.time`.
    """
    readings = []
    for head in heads:
        with log_errors():
            try:
                found = policy.open(head.note, head.origin, verifier)
            except ledger_errors.VerificationFailed as error:
                if error.check == "policy.quorum":
                    continue
                raise
        if found.time is None:
            continue  # the policy asks for no witnesses
        times = {one.name: (_checked(one.time, one.name),) * 2 for one in found.cosigned}
        # Among those that make the quorum at least one is honest, but not known which: its time lies between these.
        earliest = min(low for low, _ in times.values())
        readings.append(_Reading(head.size, earliest, _checked(found.time, "the quorum"), times))
    return Timeline(readings)


def policy_digest(policy: TlogPolicy | None) -> bytes | None:
    """SHA-256 of what a policy says of witnesses, groups and the quorum, a canonical line each; None if it has none.

    Comments, addresses and logs of the file do not count: the same demand has the same digest.
    """
    if policy is None or policy.quorum is None:
        return None
    lines = [f"witness {one.name} {one.verifier}" for one in policy.witnesses]
    lines += [f"group {one.name} {one.needed} {' '.join(one.members)}" for one in policy.groups.values()]
    lines.append(f"quorum {policy.quorum}")
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode("utf-8")).digest()


def clock_timeline(heads: Sequence[VerifiedHead], keys: Sequence[bytes]) -> Timeline:
    """Bounds by the server's own clock. `keys` are the Ed25519 keys of the server parties of the ledger.

    Raises VerificationFailed: a cosignature under one of these keys does not hold, `report.time`.
    """
    readings = []
    for head in heads:
        name = clock_name(head.origin)
        clocks = {verifier.key_id: verifier for verifier in (CosignatureVerifier(name, key) for key in keys)}
        note = Note.parse(head.note)
        times: dict[str, tuple[int, int]] = {}
        for signature in note.signatures:
            clock = clocks.get(signature.key_id) if signature.name == name else None
            if clock is None:
                continue
            with log_errors():
                clock.verify(note.text.encode("utf-8"), signature.signature)
                _count(times, name, _checked(clock.time(signature.signature), name))
        if times:
            earliest, latest = times[name]
            readings.append(_Reading(head.size, earliest, latest, times))
    return Timeline(readings)


def _count(times: dict[str, tuple[int, int]], name: str, time: int) -> None:
    low, high = times.get(name, (time, time))
    times[name] = (min(low, time), max(high, time))


def _checked(time: int, name: str) -> int:
    if not 0 <= time <= _LAST_SECOND:
        raise VerificationFailed("report.time", f"{name!r} cosigned at {time}, which is no time")
    return time


def _steps(readings: Sequence[_Reading]) -> Iterable[ClockStep]:
    last: dict[str, tuple[int, int]] = {}
    for reading in readings:
        for name, (earliest, latest) in sorted(reading.clocks.items()):
            if name in last and earliest < last[name][1]:
                size, time = last[name]
                yield ClockStep(name, size, time, reading.size, earliest)
            last[name] = (reading.size, latest)
