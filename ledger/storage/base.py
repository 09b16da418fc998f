"""What a log needs from the place where it lives. Backends share this shape and no code."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from ledger.merkle import Node

__all__ = ["Batch", "Publication", "Storage"]


@dataclass(frozen=True, slots=True)
class Batch:
    """One append: entries first, first + 1, ..., the tree nodes they complete, and the checkpoint after them.

    `previous` is the checkpoint that the writer believes to be stored: the batch applies on top of that one only.
    """

    previous: bytes
    checkpoint: bytes
    first: int
    entries: Sequence[bytes]
    nodes: Sequence[Node]


@dataclass(frozen=True, slots=True)
class Publication:
    """A checkpoint as it is shown to the world: the log's signature and the cosignatures that witnesses gave."""

    size: int
    note: bytes


class Storage(Protocol):
    """Entries, tree nodes, one signed checkpoint, and what was published of it. Verification is the log's business.

    Reading methods are called from many threads, also while a writer commits; `commit` and `publish` by one thread at a
    time, inside `exclusive`. Every method raises StorageError when the environment fails or something asked for is not
    there, and UsageError when the storage is closed, or a write is asked of one that is open for reading.
    """

    @property
    def shared(self) -> bool:
        """Whether other processes may write too, so that the head must be read anew before each use."""

    def checkpoint(self) -> bytes:
        """The stored signed checkpoint: that of the integrated tree, published or not."""

    def extent(self) -> tuple[int, int]:
        """(number of entries, number of nodes) stored, for comparison with the checkpoint.

        What another writer is storing at this moment may be counted or not.
        """

    def entries(self, start: int, stop: int) -> list[bytes]:
        """Entries start..stop-1, all of them."""

    def nodes(self, positions: Sequence[tuple[int, int]]) -> list[bytes]:
        """The hashes of the nodes (level, index), in the order asked for."""

    def completed_nodes(self, start: int, stop: int) -> list[bytes]:
        """The hashes of all nodes that entries start..stop-1 complete, in order of completion."""

    def exclusive(self) -> AbstractContextManager[None]:
        """Nobody else commits inside. Re-entrant for its thread. Nothing to do where a writer holds its lock for life.

        What was read before may be old by the time it is entered. When the lock is lost inside, commits fail.
        """

    def commit(self, batch: Batch) -> None:
        """Store the whole batch or nothing; durable on return. Refused unless `previous` is the stored checkpoint.

        After StorageError the batch is stored wholly or not at all, and the caller has to look which.
        """

    def published(self) -> Publication | None:
        """The newest publication, or None."""

    def publications(self, start: int, limit: int) -> list[Publication]:
        """At most `limit` publications of sizes >= `start`, in order of their sizes: one for each size published."""

    def publish(self, publication: Publication) -> None:
        """Keep a publication, in place of one of the same size; durable on return.

        After StorageError it is stored or not, and the caller has to look. What it may say is the log's business.
        """

    def close(self) -> None:
        """Release files and locks. A second call does nothing."""
