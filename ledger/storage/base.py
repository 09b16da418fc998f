"""What a log needs from the place where it lives. Backends share this shape and no code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ledger.merkle import Node

__all__ = ["Batch", "Storage"]


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


class Storage(Protocol):
    """Entries, tree nodes and one signed checkpoint. Bytes in, bytes out: verification is the log's business.

    Readers may call from many threads, also while the one writer commits. Every method raises StorageError when the
    environment fails or something asked for is not there.
    """

    def checkpoint(self) -> bytes:
        """The stored signed checkpoint."""

    def extent(self) -> tuple[int, int]:
        """(number of entries, number of nodes) stored, for comparison with the checkpoint."""

    def entries(self, start: int, stop: int) -> list[bytes]:
        """Entries start..stop-1, all of them."""

    def node(self, level: int, index: int) -> bytes:
        """The hash of node (level, index)."""

    def completed_nodes(self, start: int, stop: int) -> list[bytes]:
        """The hashes of all nodes that entries start..stop-1 complete, in order of completion."""

    def commit(self, batch: Batch) -> None:
        """Store the whole batch or nothing; durable on return.

        After StorageError the batch is stored wholly or not at all, and the caller has to look which.
        """

    def close(self) -> None:
        """Release files and locks. A second call does nothing."""
