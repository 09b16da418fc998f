"""The log itself: one writer appends, anyone reads, every head is signed.

Order of an append: hash, sign the new checkpoint, store entries, nodes and checkpoint in one durable transaction, and
only then show the new head to anyone. A checkpoint whose storing failed was never shown; the writer then looks at what
is stored before it signs again, and refuses to sign at all when that is neither the head before nor the head after.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ledger.checkpoint import Checkpoint, VerifiedHead, open_checkpoint, sign_checkpoint
from ledger.errors import (
    CorruptLog,
    EntryTooLarge,
    NotInLog,
    UsageError,
    VerificationFailed,
)
from ledger.merkle import (
    Frontier,
    consistency_proof,
    empty_root,
    inclusion_proof,
    leaf_hash,
    node_count,
    verify_inclusion,
)
from ledger.note import NoteVerifier, Signer
from ledger.proof import TlogProof
from ledger.storage.base import Batch, Storage
from ledger.storage.sqlite import SqliteStorage

__all__ = ["MAX_ENTRY_BYTES", "Appended", "Log"]

MAX_ENTRY_BYTES = 65_535
"""The tile format gives an entry's length 16 bits."""

_CHUNK = 1024


@dataclass(frozen=True, slots=True)
class Appended:
    """Where an entry went. Refer to it by both: the index finds it, the leaf hash binds it."""

    index: int
    leaf_hash: bytes


class Log:
    """An append-only log in a storage, named by its key (origin = key name). Safe to use from many threads.

    With a signer it is the writer and checks the whole stored tree, entries included, when it opens; without one it
    only reads, and checks the right edge of the tree (whoever gets its proofs verifies them anyway).
    Raises CorruptLog when the stored tree does not match the stored checkpoint, VerificationFailed when the checkpoint
    is not signed by the log's key.
    """

    def __init__(self, storage: Storage, verifier: NoteVerifier, signer: Signer | None = None) -> None:
        self._storage = storage
        self._verifier = verifier
        self._signer = signer
        self._append_lock = threading.Lock()
        self._uncertain: tuple[bytes, bytes] | None = None
        self._head = self._stored_head()
        if signer is not None:
            self._frontier = self._check_everything(self._head)
        else:
            self._frontier = self._check_edge(self._head)

    @classmethod
    def create(cls, path: Path, signer: Signer) -> Log:
        """A new, empty log in the file `path`, opened for appending. Raises UsageError when there is one already."""
        first = sign_checkpoint(Checkpoint(signer.name, 0, empty_root()), signer)
        return cls._on(SqliteStorage.create(path, first), signer.verifier, signer)

    @classmethod
    def open(cls, path: Path, signer: Signer) -> Log:
        """Open the log in the file `path` as its one writer. Raises LogLocked when it has one already."""
        return cls._on(SqliteStorage.open(path), signer.verifier, signer)

    @classmethod
    def open_readonly(cls, path: Path, verifier: NoteVerifier) -> Log:
        """Open the log in the file `path` for reading, beside its writer if there is one."""
        return cls._on(SqliteStorage.open_readonly(path), verifier, None)

    @classmethod
    def _on(cls, storage: Storage, verifier: NoteVerifier, signer: Signer | None) -> Log:
        try:
            return cls(storage, verifier, signer)
        except BaseException:
            storage.close()
            raise

    @property
    def origin(self) -> str:
        """The log's name."""
        return self._verifier.name

    @property
    def size(self) -> int:
        """Number of entries under the present head."""
        return self.head().size

    def head(self) -> VerifiedHead:
        """The present head. For a reader: the stored one, verified again whenever it has changed."""
        if self._signer is None and self._storage.checkpoint() != self._head.note:
            self._head = self._stored_head()
        return self._head

    def checkpoint(self) -> bytes:
        """The present signed checkpoint."""
        return self.head().note

    def append(self, entry: bytes) -> Appended:
        """Append one entry; see `append_many`."""
        return self.append_many([entry])[0]

    def append_many(self, entries: Sequence[bytes]) -> list[Appended]:
        """Append entries in order: all of them or none, with one signature and one disk flush.

        On return they are durable and under the signed checkpoint. Raises UsageError (EntryTooLarge) with nothing
        changed. After StorageError the outcome is unknown, the log stays usable, and its size tells.
        """
        if self._signer is None:
            raise UsageError("this log is open for reading only: open it with its signer to append")
        entries = [bytes(entry) for entry in entries]
        for entry in entries:
            if len(entry) > MAX_ENTRY_BYTES:
                raise EntryTooLarge(len(entry), MAX_ENTRY_BYTES)
        if not entries:
            return []
        leaves = [leaf_hash(entry) for entry in entries]
        with self._append_lock:
            self._settle()
            first, previous = self._head.size, self._head.note
            frontier, nodes = self._frontier.extend(leaves)
            note = sign_checkpoint(Checkpoint(self.origin, frontier.size, frontier.root()), self._signer)
            head = open_checkpoint(note, self._verifier, self.origin)
            self._uncertain = (previous, note)
            self._storage.commit(Batch(previous, note, first, entries, nodes))
            self._uncertain = None
            self._head, self._frontier = head, frontier
        return [Appended(first + i, leaf) for i, leaf in enumerate(leaves)]

    def entry(self, index: int) -> bytes:
        """Entry number `index`. Raises NotInLog, CorruptLog."""
        size = self.size
        if not 0 <= index < size:
            raise NotInLog("index", index, size)
        (entry,) = self._storage.entries(index, index + 1)
        if leaf_hash(entry) != self._storage.node(0, index):
            raise CorruptLog(f"entry {index} does not hash to its leaf")
        return entry

    def entries(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Entries start..stop-1 (to the present end when `stop` is None), read in chunks. Raises NotInLog."""
        size = self.size
        stop = size if stop is None else stop
        if not 0 <= stop <= size:
            raise NotInLog("stop", stop, size)
        if not 0 <= start <= stop:
            raise NotInLog("start", start, stop)
        return self._read(start, stop)

    def leaf_hash(self, index: int) -> bytes:
        """The leaf hash of entry number `index`. Raises NotInLog."""
        size = self.size
        if not 0 <= index < size:
            raise NotInLog("index", index, size)
        return self._storage.node(0, index)

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        """Hashes that show entry `index` in the tree of `size` (default: the present one). Raises NotInLog."""
        size = self._known_size("size", size)
        if not 0 <= index < size:
            raise NotInLog("index", index, size)
        return inclusion_proof(index, size, self._storage.node)

    def consistency_proof(self, old: int, new: int | None = None) -> list[bytes]:
        """Hashes that show the tree of size `new` (default: the present one) to extend that of size `old`.

        Empty for old = 0 and for equal sizes. Raises NotInLog.
        """
        new = self._known_size("new size", new)
        if not 0 <= old <= new:
            raise NotInLog("old size", old, new)
        return consistency_proof(old, new, self._storage.node)

    def tlog_proof(self, index: int) -> bytes:
        """The proof file of entry `index` under the present checkpoint, checked before it is handed out.

        Raises NotInLog, CorruptLog.
        """
        head = self.head()
        proof = self.inclusion_proof(index, head.size)
        try:
            verify_inclusion(self._storage.node(0, index), index, head.size, proof, head.root)
        except VerificationFailed as error:
            raise CorruptLog(f"the stored nodes give no proof for index {index} ({error})") from error
        return TlogProof(index, tuple(proof), head.note).format()

    def close(self) -> None:
        """Release the file and the writer's lock."""
        with self._append_lock:
            self._storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _known_size(self, what: str, size: int | None) -> int:
        present = self.size
        if size is not None and not 0 <= size <= present:
            raise NotInLog(what, size, present)
        return present if size is None else size

    def _stored_head(self) -> VerifiedHead:
        return open_checkpoint(self._storage.checkpoint(), self._verifier, self.origin)

    def _settle(self) -> None:
        """After a failed commit: take the head before or the head after, whichever is stored, and no other."""
        if self._uncertain is None:
            return
        if self._storage.checkpoint() not in self._uncertain:
            raise CorruptLog("after a failed append the stored checkpoint is neither the old nor the new one")
        head = self._stored_head()
        self._frontier = self._check_edge(head)
        self._check_extent(head)
        self._head = head
        self._uncertain = None

    def _check_extent(self, head: VerifiedHead) -> None:
        """Nothing missing at the end, nothing beyond it."""
        expected = (head.size, node_count(head.size))
        if self._storage.extent() != expected:
            raise CorruptLog(f"(entries, nodes) stored: {self._storage.extent()}, the checkpoint asks for {expected}")

    def _check_edge(self, head: VerifiedHead) -> Frontier:
        """The stored right edge, if it hashes to the signed root."""
        frontier = Frontier.load(head.size, self._storage.node)
        self._check_root(head, frontier)
        return frontier

    def _check_everything(self, head: VerifiedHead) -> Frontier:
        """The frontier rebuilt from the entries, if every stored node and the signed root agree with it."""
        self._check_extent(head)
        frontier = Frontier()
        for start in range(0, head.size, _CHUNK):
            stop = min(start + _CHUNK, head.size)
            frontier, nodes = frontier.extend(leaf_hash(entry) for entry in self._storage.entries(start, stop))
            if [node.hash for node in nodes] != self._storage.completed_nodes(start, stop):
                raise CorruptLog(f"entries {start} to {stop - 1} do not hash to the stored nodes")
        self._check_root(head, frontier)
        return frontier

    def _check_root(self, head: VerifiedHead, frontier: Frontier) -> None:
        if frontier.root() != head.root:
            raise CorruptLog(
                f"the stored tree of {head.size} entries has root {frontier.root().hex()}, "
                f"the checkpoint says {head.root.hex()}"
            )

    def _read(self, start: int, stop: int) -> Iterator[bytes]:
        for first in range(start, stop, _CHUNK):
            yield from self._storage.entries(first, min(first + _CHUNK, stop))
