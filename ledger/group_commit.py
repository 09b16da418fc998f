"""The queue behind group commit: appends that arrive while the disk is busy go to it together, with one flush.

A ticket is one caller's append: all of its entries, next to each other, or none. The first caller leads: it integrates
what waits as one batch, tells the others what came of it, and hands the lead to the first of those who came meanwhile.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

from ledger.errors import CorruptLog, StorageError, UsageError

__all__ = ["MAX_BATCH_BYTES", "MAX_BATCH_ENTRIES", "Ticket", "TicketQueue"]

MAX_BATCH_ENTRIES: Final = 4096
MAX_BATCH_BYTES: Final = 16 << 20
"""How much is integrated at once. A single ticket beyond these limits is a batch of its own."""


class Ticket:
    """One caller's entries and, once settled, the index of the first of them or what went wrong."""

    __slots__ = ("_error", "_first", "_woken", "bytes", "entries", "leads", "leaves")

    def __init__(self, entries: Sequence[bytes], leaves: Sequence[bytes]) -> None:
        self.entries = entries
        self.leaves = leaves
        self.bytes = sum(map(len, entries))
        self.leads = False
        self._woken = threading.Event()
        self._first: int | None = None
        self._error: BaseException | None = None

    @property
    def settled(self) -> bool:
        """Whether the outcome is known to this ticket's holder, good or bad."""
        return self._first is not None or self._error is not None

    @property
    def succeeded(self) -> bool:
        """Whether the entries are known to be durable."""
        return self._first is not None

    def wait(self) -> None:
        """Until the ticket is settled, or its caller has to lead."""
        self._woken.wait()

    def lead(self) -> None:
        """It is this ticket's caller that integrates the next batch."""
        self.leads = True
        self._woken.set()

    def succeed(self, first: int) -> None:
        """The entries are durable at first, first + 1, ..."""
        self._first = first
        self._woken.set()

    def fail(self, error: BaseException) -> None:
        """Nothing is known to be stored. Without effect on a ticket that was settled before."""
        if not self.settled:
            self._error = error
            self._woken.set()

    def result(self) -> int:
        """The index of the first entry. Raises the batch's error, as an object of this caller's own."""
        if self._first is not None:
            return self._first
        if self._error is None:
            raise AssertionError("the ticket is not settled")
        for kind in (CorruptLog, StorageError, UsageError):
            if isinstance(self._error, kind):
                raise kind(str(self._error)) from self._error
        # The writer of the batch was interrupted, or failed in a way that nobody foresaw: that is its own affair.
        raise StorageError(f"the append was broken off ({self._error!r})") from self._error


class TicketQueue:
    """Tickets that wait, in the order of their arrival, and at most one caller that leads. Used from many threads.

    Tickets stay here until they are settled, so that none is lost when a leader is interrupted.
    """

    def __init__(self) -> None:
        self._waiting: deque[Ticket] = deque()
        self._guard = threading.Lock()
        self._led = False

    def put(self, ticket: Ticket) -> None:
        """Wait at the end, and lead when nobody does: then it is the first."""
        with self._guard:
            self._waiting.append(ticket)
            if not self._led:
                self._led = True
                ticket.lead()

    def batch(self) -> list[Ticket]:
        """The next batch: tickets from the front, as many as the limits allow, one at least unless none waits."""
        found: list[Ticket] = []
        entries = size = 0
        with self._guard:
            for ticket in self._waiting:
                entries, size = entries + len(ticket.entries), size + ticket.bytes
                if found and (entries > MAX_BATCH_ENTRIES or size > MAX_BATCH_BYTES):
                    break
                found.append(ticket)
        return found

    def leave(self, ticket: Ticket) -> None:
        """The ticket's caller goes. Settled tickets go with it, and when it led, the first that waits leads now."""
        with self._guard:
            if ticket.leads:
                self._waiting = deque(other for other in self._waiting if other is not ticket and not other.settled)
                self._led = bool(self._waiting)
                if self._led:
                    self._waiting[0].lead()
            elif ticket in self._waiting:
                self._waiting.remove(ticket)
