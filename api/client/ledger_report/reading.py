"""The whole log, read once and checked: against its signed head, and against every published head before it.

Entries that are malformed or break a rule of the ledger are kept as such: a log is not refused for what somebody wrote
into it, and nothing in it is hidden.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, cast

from api.client.ledger_report.heads import Timeline, clock_timeline, witness_timeline
from api.client.ledger_report.sources import LedgerSource
from api.entries import AnyEntry, Body, Party, Reference, decode_entry
from api.registry import Logged, Registry
from ledger import VerifiedHead, Verifier, leaf_hash
from ledger.errors import InconsistentGrowth, RootMismatch
from ledger.merkle import Frontier, node_hash
from ledger.trust_policy import TlogPolicy
from privacy.errors import PrivacyError, VerificationFailed

__all__ = ["Broken", "LedgerReading", "OpenRegistry", "Progress", "checked_entries", "read_ledger"]

_PAGE: Final = 256
_MAX_DETAIL: Final = 300

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Broken:
    """An entry that means nothing: `check` is the rule that it breaks, or None if its bytes are no entry.

    `kind` and `author` are what it claims; its signature need not hold.
    """

    reference: Reference
    kind: str
    author: Reference | None
    check: str | None
    detail: str


@dataclass(frozen=True)
class _PassedOver:
    """In the place of an entry that means nothing, so that those behind it keep their indices."""

    KIND: ClassVar[str] = "malformed entry"


class OpenRegistry(Registry):
    """A registry that passes over what it refuses, and goes on."""

    def take(self, data: bytes) -> Logged[Body] | Broken:
        """Index the next entry of the ledger, or put a gap in its place."""
        with self._lock:
            try:
                return self._entries[self.add(data).index]
            except PrivacyError as error:
                reference = Reference(len(self._entries), leaf_hash(data))
                gap = cast(Body, _PassedOver())  # of no kind, so no lookup ever gives it away
                self._entries.append(Logged(reference, gap, None))
                return _broken(reference, data, error)

    def entry(self, index: int) -> Logged[Body]:
        """The entry at `index`, of whatever kind; a gap is one of an unknown kind."""
        return self._entries[index]


@dataclass(frozen=True)
class LedgerReading:
    """A log that was read and checked under `head`.

    `heads` is the archive up to it. `witnesses` is None without a policy that asks for some.
    """

    head: VerifiedHead
    heads: Sequence[VerifiedHead]
    registry: OpenRegistry
    broken: Sequence[Broken]
    clock: Timeline
    witnesses: Timeline | None

    @property
    def best(self) -> Timeline:
        """The better of the two clocks: the witnesses' if there are any, else the server's."""
        return self.clock if self.witnesses is None else self.witnesses


def read_ledger(
    source: LedgerSource,
    heads: Sequence[VerifiedHead],
    verifier: Verifier,
    policy: TlogPolicy | None,
    present: VerifiedHead | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> LedgerReading:
    """Read the log under the last of `heads` (`read_archive`, `open_heads`).

    With `present`, a later head, everything up to that is read and checked; what lies behind `heads` is not looked at.

    Raises:
        VerificationFailed: `ledger.entries` where the entries are not those of the log, and as the timelines do.
        InconsistentGrowth: a published head is not of the log's tree. It holds the evidence.
    """
    head = heads[-1]
    registry, broken = OpenRegistry(head.origin), []
    for data in checked_entries(source, heads, present, progress):
        if registry.size < head.size:
            taken = registry.take(data)
            if isinstance(taken, Broken):
                broken.append(taken)
    keys = [party.body.public_key for party in registry.all(Party) if party.body.role == "server"]
    asked = None if policy is None or policy.quorum is None else witness_timeline(heads, policy, verifier)
    return LedgerReading(head, heads, registry, broken, clock_timeline(heads, keys), asked)


def checked_entries(
    source: LedgerSource, heads: Sequence[VerifiedHead], present: VerifiedHead | None, progress: Progress
) -> Iterator[bytes]:
    """Every entry up to `present`, by default the last of `heads`. Believe none before the iterator is exhausted.

    Only the right edge of the tree is kept in memory. Raises as `read_ledger` does, at the end, so that a server whose
    entries are wrong is not mistaken for a log that signed a wrong head.
    """
    last = present or heads[-1]
    frontier, waiting = Frontier(), iter(heads)
    expected: VerifiedHead | None = next((head for head in waiting if head.size), None)
    wrong: tuple[VerifiedHead, Frontier, _Peaks] | None = None
    for start in range(0, last.size, _PAGE):
        stop = min(start + _PAGE, last.size)
        page = source.entries(start, stop)
        if len(page) != stop - start:
            raise VerificationFailed("ledger.entries", f"asked for {stop - start} entries, got {len(page)}")
        leaves = [leaf_hash(data) for data in page]
        done = start
        while done < stop:
            until = min(stop, expected.size) if expected is not None else stop
            part = leaves[done - start : until - start]
            frontier = frontier.extend(part)[0]
            if wrong is not None:
                wrong[2].extend(part)
            done = until
            if expected is not None and expected.size == done:
                if frontier.root() != expected.root and wrong is None:
                    wrong = expected, frontier, _Peaks(done)
                expected = next(waiting, None)
        yield from page
        progress("reading the ledger", stop, last.size)
    if frontier.root() != last.root:
        raise VerificationFailed("ledger.entries", "the entries that are shown are not those of the log")
    if wrong is not None:
        head, tree, peaks = wrong
        reason = RootMismatch("tree.prefix", head.root, tree.root())
        raise InconsistentGrowth(reason, head.note, last.note, (*tree.hashes, *peaks.hashes))


class _Peaks:
    """The perfect subtrees that lie behind the first `start` entries, from the left: the other half of evidence."""

    def __init__(self, start: int) -> None:
        self._next = start
        self._stack: list[tuple[int, int, bytes]] = []

    def extend(self, leaves: Sequence[bytes]) -> None:
        for leaf in leaves:
            level, index, hash_ = 0, self._next, leaf
            while index & 1 and self._stack and self._stack[-1][:2] == (level, index - 1):
                hash_ = node_hash(self._stack.pop()[2], hash_)
                level, index = level + 1, index >> 1
            self._stack.append((level, index, hash_))
            self._next += 1

    @property
    def hashes(self) -> tuple[bytes, ...]:
        return tuple(hash_ for _, _, hash_ in self._stack)


def _broken(reference: Reference, data: bytes, error: PrivacyError) -> Broken:
    check = error.check if isinstance(error, VerificationFailed) else None
    detail = error.detail if isinstance(error, VerificationFailed) else str(error)
    if len(detail) > _MAX_DETAIL:
        detail = detail[:_MAX_DETAIL] + "..."
    entry: AnyEntry | None = None
    with contextlib.suppress(PrivacyError):
        entry = decode_entry(data)
    return Broken(reference, entry.kind if entry else "", entry.author if entry else None, check, detail)
