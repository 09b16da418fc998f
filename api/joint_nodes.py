"""Which nodes of clinics and owners are there, and how those who wait for a session are woken. In memory only.

A node announces itself with each of its requests for offers (`api.routes.mpc`). A request that waits holds no thread:
it sleeps in the event loop until something changed that could concern it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

__all__ = ["PRESENT_SECONDS", "Announcement", "Nodes", "Waiter"]

PRESENT_SECONDS: Final = 30.0
"""A node that was not heard of for so long is not there. One that waits for offers is."""


@dataclass(frozen=True)
class Announcement:
    """What a node says of itself: where it listens (an owner's node), and its dealer's address and key (32 bytes)."""

    address: str | None
    dealer_address: str
    dealer_key: bytes


class Waiter:
    """One request that waits for offers. `ended`: a newer one of the same party has taken its place."""

    def __init__(self) -> None:
        self.ended = False
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def reset(self) -> None:
        """What happened until now has been looked at."""
        self._event.clear()

    async def wait(self, seconds: float) -> None:
        """Sleep until something happens after the last `reset`, or for so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()

    def wake(self) -> None:
        """Something happened. May be called from any thread."""
        with contextlib.suppress(RuntimeError):  # the server has stopped meanwhile
            self._loop.call_soon_threadsafe(self._event.set)


class Nodes:
    """The nodes of a server's parties, which are named by the index of their entries. Safe to use from many threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._said: dict[int, tuple[Announcement, float]] = {}
        self._waiters: dict[int, Waiter] = {}

    def announce(self, party: int, said: Announcement) -> None:
        """The node of this party is there. Wakes the others if that is news."""
        with self._lock:
            now = self._clock()
            before, since = self._said.get(party, (None, now))
            self._said[party] = (said, now)
        if before != said or now - since > PRESENT_SECONDS:
            self.wake()

    def latest(self, party: int) -> Announcement | None:
        """What the node of this party said last, if it ever said anything since the server started."""
        with self._lock:
            found = self._said.get(party)
        return None if found is None else found[0]

    def present(self, party: int) -> bool:
        """Whether the node of this party is there."""
        with self._lock:
            found = self._said.get(party)
            if found is None:
                return False
            return party in self._waiters or self._clock() - found[1] <= PRESENT_SECONDS

    @contextmanager
    def waiting(self, party: int) -> Iterator[Waiter]:
        """A request of this party waits. An older one of it ends. Only in the event loop."""
        waiter = Waiter()
        with self._lock:
            older = self._waiters.get(party)
            self._waiters[party] = waiter
        if older is not None:
            older.ended = True
            older.wake()
        try:
            yield waiter
        finally:
            with self._lock:
                if self._waiters.get(party) is waiter:
                    del self._waiters[party]

    def wake(self) -> None:
        """Whoever waits looks again."""
        with self._lock:
            waiters = list(self._waiters.values())
        for waiter in waiters:
            waiter.wake()
