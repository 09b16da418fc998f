"""The queue behind group commit: appends that arrive while the disk is busy go to it together, with one flush.

Whoever holds the log's writing lock takes what waits and integrates it as one batch; the others find their tickets
settled when they get the lock. One ticket is one caller's append: all of its entries, next to each other, or none.
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

    __slots__ = ("_error", "_first", "bytes", "entries", "leaves")

    def __init__(self, entries: Sequence[bytes], leaves: Sequence[bytes]) -> None:
        self.entries = entries
        self.leaves = leaves
        self.bytes = sum(map(len, entries))
        self._first: int | None = None
        self._error: BaseException | None = None

    @property
    def settled(self) -> bool:
        """Whether the outcome is known to this ticket's holder, good or bad."""
        return self._first is not None or self._error is not None

    def succeed(self, first: int) -> None:
        """The entries are durable at first, first + 1, ..."""
        self._first = first

    def fail(self, error: BaseException) -> None:
        """Nothing is known to be stored. Without effect on a ticket that was settled before."""
        if not self.settled:
            self._error = error

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
    """Tickets that wait, in the order of their arrival. Safe to use from many threads."""

    def __init__(self) -> None:
        self._waiting: deque[Ticket] = deque()
        self._guard = threading.Lock()

    def put(self, ticket: Ticket) -> None:
        """Wait at the end."""
        with self._guard:
            self._waiting.append(ticket)

    def holds(self, ticket: Ticket) -> bool:
        """Whether the ticket still waits."""
        with self._guard:
            return ticket in self._waiting

    def withdraw(self, ticket: Ticket) -> None:
        """No longer wait. Without effect when the ticket was taken."""
        with self._guard:
            if ticket in self._waiting:
                self._waiting.remove(ticket)

    def take(self) -> list[Ticket]:
        """The next batch: tickets from the front, as many as the limits allow, one at least unless none waits."""
        taken: list[Ticket] = []
        entries = size = 0
        with self._guard:
            while self._waiting:
                ticket = self._waiting[0]
                entries, size = entries + len(ticket.entries), size + ticket.bytes
                if taken and (entries > MAX_BATCH_ENTRIES or size > MAX_BATCH_BYTES):
                    break
                taken.append(self._waiting.popleft())
        return taken
