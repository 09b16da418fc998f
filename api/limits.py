"""How many requests a party may make."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from time import monotonic

from api.errors import RateLimited

__all__ = ["RateLimiter"]

_MOST_KEPT = 10_000


class RateLimiter:
    """A token bucket for each key: `per_minute` at once, refilled evenly. Kept in memory only."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = monotonic) -> None:
        self._capacity = float(per_minute)
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[Hashable, tuple[float, float]] = {}

    def take(self, key: Hashable) -> None:
        """Count one request. Raises RateLimited when there were too many."""
        with self._lock:
            now = self._clock()
            if len(self._buckets) >= _MOST_KEPT:
                self._forget_full(now)
            level = self._level(key, now)
            if level < 1:
                wait = (1 - level) * 60 / self._capacity
                raise RateLimited("too many requests", retry_after=max(1, round(wait)))
            self._buckets[key] = (level - 1, now)

    def _level(self, key: Hashable, now: float) -> float:
        level, since = self._buckets.get(key, (self._capacity, now))
        return min(self._capacity, level + (now - since) * self._capacity / 60)

    def _forget_full(self, now: float) -> None:
        self._buckets = {k: v for k, v in self._buckets.items() if self._level(k, now) < self._capacity}
