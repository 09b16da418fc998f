"""A storage in memory, shared like a database: the simplest thing that keeps the rules, and quick."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from ledger.errors import StorageError, UsageError
from ledger.merkle import node_count, node_position
from ledger.storage.base import Batch, Publication

__all__ = ["MemoryPlace", "MemoryStorage"]


@dataclass(eq=False)
class MemoryPlace:
    """What is stored, whoever has it open."""

    checkpoint: bytes | None = None
    entries: list[bytes] = field(default_factory=list)
    nodes: list[bytes] = field(default_factory=list)
    publications: dict[int, bytes] = field(default_factory=dict)
    exclusive: threading.RLock = field(default_factory=threading.RLock)
    guard: threading.RLock = field(default_factory=threading.RLock)


class MemoryStorage:
    """One opening of a place. Several may be writers at once."""

    def __init__(self, place: MemoryPlace, writable: bool) -> None:
        self._place = place
        self._writable = writable
        self._closed = False

    @property
    def shared(self) -> bool:
        return True

    def checkpoint(self) -> bytes:
        found = self._open().checkpoint
        assert found is not None
        return found

    def extent(self) -> tuple[int, int]:
        place = self._open()
        with place.guard:
            return len(place.entries), len(place.nodes)

    def entries(self, start: int, stop: int) -> list[bytes]:
        return _slice(self._open().entries, start, stop)

    def nodes(self, positions: Sequence[tuple[int, int]]) -> list[bytes]:
        place = self._open()
        return [_slice(place.nodes, at, at + 1)[0] for at in (node_position(*position) for position in positions)]

    def completed_nodes(self, start: int, stop: int) -> list[bytes]:
        return _slice(self._open().nodes, node_count(start), node_count(stop))

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        with self._open().exclusive:
            yield

    def commit(self, batch: Batch) -> None:
        place = self._open(writing=True)
        with place.exclusive, place.guard:
            if batch.previous != place.checkpoint or batch.first != len(place.entries):
                raise StorageError("the log was changed by another program")
            place.entries += batch.entries
            place.nodes += [node.hash for node in batch.nodes]
            place.checkpoint = batch.checkpoint

    def published(self) -> Publication | None:
        place = self._open()
        with place.guard:
            return max((Publication(*item) for item in place.publications.items()), key=_size, default=None)

    def publications(self, start: int, limit: int) -> list[Publication]:
        place = self._open()
        with place.guard:
            found = sorted((Publication(*item) for item in place.publications.items()), key=_size)
        return [publication for publication in found if publication.size >= start][:limit]

    def publish(self, publication: Publication) -> None:
        place = self._open(writing=True)
        with place.guard:
            place.publications[publication.size] = publication.note

    def close(self) -> None:
        self._closed = True

    def _open(self, writing: bool = False) -> MemoryPlace:
        if self._closed:
            raise UsageError("the storage is closed")
        if writing and not self._writable:
            raise UsageError("the storage is open for reading only")
        return self._place


def _slice(values: list[bytes], start: int, stop: int) -> list[bytes]:
    if not 0 <= start <= stop <= len(values):
        raise StorageError(f"{start} to {stop} of {len(values)} values are not stored")
    return values[start:stop]


def _size(publication: Publication) -> int:
    return publication.size
