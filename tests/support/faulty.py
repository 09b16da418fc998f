"""A storage that fails when it is told to: before a write reached it, or after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Literal

from ledger.errors import StorageError
from ledger.storage.base import Batch, Publication, Storage

__all__ = ["FAULTS", "Fault", "FaultyStorage"]

Fault = Literal["not persisted", "persisted"]
FAULTS: tuple[Fault, ...] = ("not persisted", "persisted")


class FaultyStorage:
    """Passes everything on; `fail` makes the next write (commit or publish) fail, and `before_commit` runs first."""

    def __init__(self, inner: Storage) -> None:
        self.inner = inner
        self.fail: Fault | None = None
        self.before_commit: Callable[[], None] | None = None
        self.batches: list[Batch] = []
        self.publications_tried: list[Publication] = []

    @property
    def shared(self) -> bool:
        return self.inner.shared

    @property
    def signed(self) -> list[bytes]:
        """Every checkpoint that the log signed to have it stored."""
        return [batch.checkpoint for batch in self.batches]

    def checkpoint(self) -> bytes:
        return self.inner.checkpoint()

    def extent(self) -> tuple[int, int]:
        return self.inner.extent()

    def entries(self, start: int, stop: int) -> list[bytes]:
        return self.inner.entries(start, stop)

    def nodes(self, positions: Sequence[tuple[int, int]]) -> list[bytes]:
        return self.inner.nodes(positions)

    def completed_nodes(self, start: int, stop: int) -> list[bytes]:
        return self.inner.completed_nodes(start, stop)

    def exclusive(self) -> AbstractContextManager[None]:
        return self.inner.exclusive()

    def commit(self, batch: Batch) -> None:
        self.batches.append(batch)
        if self.before_commit is not None:
            self.before_commit()
        self._write(lambda: self.inner.commit(batch))

    def published(self) -> Publication | None:
        return self.inner.published()

    def publications(self, start: int, limit: int) -> list[Publication]:
        return self.inner.publications(start, limit)

    def publish(self, publication: Publication) -> None:
        self.publications_tried.append(publication)
        self._write(lambda: self.inner.publish(publication))

    def close(self) -> None:
        self.inner.close()

    def _write(self, write: Callable[[], None]) -> None:
        fail, self.fail = self.fail, None
        if fail == "not persisted":
            raise StorageError("injected: nothing was written")
        write()
        if fail == "persisted":
            raise StorageError("injected: written, but reported failed")
