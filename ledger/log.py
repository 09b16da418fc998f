"""The log itself: its writers append, anyone reads, every head is signed.

Order of an append: hash, sign the new checkpoint, store entries, nodes and checkpoint durably and as one, and only then
show the new head to anyone. A checkpoint whose storing failed was never shown; the writer then looks at what is stored
before it signs again, and refuses to sign at all when that is neither the head before nor the head after.

Two heads: the integrated one (`head`) is the newest that is durable; the published one (`published`) is the newest that
its owner chose to show to the world, as a rule with cosignatures of witnesses. Every published checkpoint is kept.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ledger.checkpoint import Checkpoint, VerifiedHead, open_checkpoint, sign_checkpoint
from ledger.errors import (
    CorruptLog,
    DecodeError,
    EntryTooLarge,
    NotInLog,
    RootMismatch,
    UsageError,
    VerificationFailed,
)
from ledger.group_commit import Ticket, TicketQueue
from ledger.merkle import empty_root, leaf_hash, verify_inclusion
from ledger.note import Note, NoteVerifier, Signer
from ledger.proof import TlogProof
from ledger.storage.base import Batch, Publication, Storage
from ledger.storage.sqlite import SqliteStorage
from ledger.stored_tree import StoredTree
from ledger.tiles import MAX_ENTRY_BYTES, EntryBundle, Tile, encode_entry_bundle

__all__ = ["Appended", "Log"]

_CHUNK = 1024


@dataclass(frozen=True, slots=True)
class Appended:
    """Where an entry went. Refer to it by both: the index finds it, the leaf hash binds it."""

    index: int
    leaf_hash: bytes


class Log:
    """An append-only log in a storage, named by its key (origin = key name). Safe to use from many threads.

    With a signer it is a writer and checks the whole stored tree, entries included, when it opens (and the newest
    publication against it); without one it only reads, and checks the right edge of the tree (whoever gets its proofs
    verifies them anyway). A storage that several processes may write (`Storage.shared`) is looked at again before each
    use, and what another process stored must extend what was seen before.
    Raises CorruptLog when the stored tree does not match the stored checkpoint, VerificationFailed when the checkpoint
    is not signed by the log's key, UsageError when `verifier` and `signer` are not one key.
    """

    def __init__(self, storage: Storage, verifier: NoteVerifier, signer: Signer | None = None) -> None:
        if signer is not None and (signer.name, signer.verifier.key_id) != (verifier.name, verifier.key_id):
            raise UsageError(f"the signing key of {signer.name!r} does not belong to the verifier key given with it")
        self._storage = storage
        self._verifier = verifier
        self._signer = signer
        # Whoever holds it may append and publish. Re-entrant, because `exclusive` keeps it across a caller's appends.
        self._turn = threading.RLock()
        self._holder: int | None = None
        self._queue = TicketQueue()
        self._uncertain: tuple[bytes, bytes] | None = None
        self._tree = StoredTree(storage)
        self._seen = self._head = self._stored(storage.checkpoint())
        self._shown: VerifiedHead | None = None
        if signer is not None:
            self._tree.check_extent(self._head, exact=not storage.shared)
            self._frontier = self._tree.check_everything(self._head)
            self._check_publication()
        else:
            self._frontier = self._tree.check_edge(self._head)

    @classmethod
    def create(cls, path: Path, signer: Signer) -> Log:
        """A new, empty log in the file `path`, opened for appending. Raises UsageError when there is one already."""
        first = sign_checkpoint(Checkpoint(signer.name, 0, empty_root()), signer)
        return cls.on(SqliteStorage.create(path, first), signer.verifier, signer)

    @classmethod
    def open(cls, path: Path, signer: Signer) -> Log:
        """Open the log in the file `path` as its one writer. Raises LogLocked when it has one already."""
        return cls.on(SqliteStorage.open(path), signer.verifier, signer)

    @classmethod
    def open_readonly(cls, path: Path, verifier: NoteVerifier) -> Log:
        """Open the log in the file `path` for reading, beside its writer if there is one."""
        return cls.on(SqliteStorage.open_readonly(path), verifier)

    @classmethod
    def on(cls, storage: Storage, verifier: NoteVerifier, signer: Signer | None = None) -> Log:
        """The log in an opened storage of any kind, which now belongs to it: when this fails, it is closed."""
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
    def verifier(self) -> NoteVerifier:
        """The log's public key."""
        return self._verifier

    @property
    def shared(self) -> bool:
        """Whether other processes may append too."""
        return self._storage.shared

    @property
    def size(self) -> int:
        """Number of entries under the present head."""
        return self.head().size

    def head(self) -> VerifiedHead:
        """The present integrated head, with the log's own signature only.

        For a reader, and for a storage that others may write: the stored one, verified again whenever it has changed.
        """
        if self._signer is not None and not self._storage.shared:
            return self._head
        head, note = self._seen, self._storage.checkpoint()
        if head.note != note:
            head = self._seen = self._stored(note)
        return head

    def checkpoint(self) -> bytes:
        """The present integrated head as a signed note."""
        return self.head().note

    def root_at(self, size: int) -> bytes:
        """Root of the tree of the first `size` entries, computed from stored nodes. Raises NotInLog, CorruptLog."""
        return self._tree.root(self._known_size("size", size))

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Nobody else, thread or process, appends or publishes inside; re-entrant for its thread.

        For reading, deciding and appending as one step. Appends of other threads wait until it is left, so do not wait
        for another thread inside. Raises UsageError without a signer, StorageError, CorruptLog.
        """
        if self._signer is None:
            raise UsageError("this log is open for reading only: open it with its signer to append")
        with self._turn:
            if self._holder is not None:
                yield
                return
            with self._storage.exclusive():
                self._catch_up(entering=True)
                self._holder = threading.get_ident()
                try:
                    yield
                finally:
                    self._holder = None

    def append(self, entry: bytes) -> Appended:
        """Append one entry; see `append_many`."""
        return self.append_many([entry])[0]

    def append_many(self, entries: Sequence[bytes]) -> list[Appended]:
        """Append entries next to each other and in order: all of them or none.

        On return they are durable and under the signed checkpoint. Calls of several threads that wait for the disk
        share one signature and one flush. Raises UsageError (EntryTooLarge) with nothing changed. After StorageError
        the outcome is unknown, the log stays usable, and its size tells.
        """
        if self._signer is None:
            raise UsageError("this log is open for reading only: open it with its signer to append")
        entries = [bytes(entry) for entry in entries]
        for entry in entries:
            if len(entry) > MAX_ENTRY_BYTES:
                raise EntryTooLarge(len(entry), MAX_ENTRY_BYTES)
        if not entries:
            return []
        ticket = Ticket(entries, [leaf_hash(entry) for entry in entries])
        if self._holder == threading.get_ident():
            self._integrate([ticket], self._signer)
        else:
            self._wait_for(ticket, self._signer)
        first = ticket.result()
        return [Appended(first + i, leaf) for i, leaf in enumerate(ticket.leaves)]

    def entry(self, index: int) -> bytes:
        """Entry number `index`. Raises NotInLog, CorruptLog."""
        size = self.size
        if not 0 <= index < size:
            raise NotInLog("index", index, size)
        (entry,) = self._storage.entries(index, index + 1)
        if leaf_hash(entry) != self._tree.nodes([(0, index)])[0]:
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
        return self._tree.nodes([(0, index)])[0]

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        """Hashes that show entry `index` in the tree of `size` (default: the present one). Raises NotInLog."""
        known = self._known_size("size", size)
        if not 0 <= index < known:
            raise NotInLog("index", index, known)
        return self._tree.inclusion(index, known)[1]

    def consistency_proof(self, old: int, new: int | None = None) -> list[bytes]:
        """Hashes that show the tree of size `new` (default: the present one) to extend that of size `old`.

        Empty for old = 0 and for equal sizes. Raises NotInLog.
        """
        known = self._known_size("new size", new)
        if not 0 <= old <= known:
            raise NotInLog("old size", old, known)
        return self._tree.consistency(old, known)

    def tlog_proof(self, index: int, head: VerifiedHead | None = None) -> bytes:
        """The proof file of entry `index` under `head` (default: the published one), checked before it is handed out.

        `head` may be any head of this log that the caller got from it. Raises NotInLog, UsageError for a head of
        another log, CorruptLog when the stored nodes do not lead to the head's root.
        """
        if head is None:
            head = self.published()
        elif head.origin != self.origin:
            raise UsageError(f"a head of the log {head.origin!r} shows nothing about {self.origin!r}")
        size, root = self._known_size("size", head.size), head.root
        if not 0 <= index < size:
            raise NotInLog("index", index, size)
        leaf, proof = self._tree.inclusion(index, size)
        try:
            verify_inclusion(leaf, index, size, proof, root)
        except VerificationFailed as error:
            raise CorruptLog(f"the stored nodes give no proof for index {index} ({error})") from error
        return TlogProof(index, tuple(proof), head.note).format()

    def published(self) -> VerifiedHead:
        """The newest published checkpoint with its cosignatures; the integrated head when none was ever published.

        The log's signature is verified here, cosignatures are for whoever relies on them.
        """
        publication = self._storage.published()
        if publication is None:
            return self.head()
        head = self._shown
        if head is None or head.note != publication.note:
            head = self._shown = self._open_publication(publication)
        return head

    def publications(self, start_size: int = 0, limit: int = 100) -> list[VerifiedHead]:
        """At most `limit` published checkpoints of sizes >= `start_size`, smallest first, one for each size.

        The archive: the times in their cosignatures date the entries. Raises UsageError for a negative number.
        """
        if start_size < 0 or limit < 0:
            raise UsageError(f"expected a size and a limit of 0 or more, got {start_size} and {limit}")
        return [self._open_publication(found) for found in self._storage.publications(start_size, limit)]

    def publish(self, note: bytes) -> VerifiedHead:
        """Show a checkpoint of this log to the world, durably: what `published`, tiles and proofs are about from now.

        `note` is the signed checkpoint of the present or an earlier integrated head, with cosignatures or without; who
        cosigned is the caller's business. Only what is durable and in this log can be published: raises DecodeError and
        VerificationFailed for a note that the log's key did not sign, NotInLog for a size beyond the integrated head,
        RootMismatch for another tree. Never goes back: raises UsageError for a size below the published one, and for
        the same size unless every signature line of the stored note is kept (cosignatures are only added). After
        StorageError the outcome is unknown, and `published` tells. Waits while another thread is in `exclusive`.
        """
        head = self._open(note)
        with self.exclusive():
            if head.size > self._head.size:
                raise NotInLog("published size", head.size, self._head.size)
            root = self._tree.root(head.size)
            if root != head.root:
                raise RootMismatch("publication.root", root, head.root)
            old = self._storage.published()
            if old is not None:
                _check_succession(old, head)
            if old is None or old.note != note:
                self._storage.publish(Publication(head.size, note))
        return head

    def tile(self, tile: Tile) -> bytes:
        """The bytes of a tile of the published tree, full or partial. Raises NotInLog, CorruptLog."""
        self._check_published(tile.path, tile.size_needed())
        return b"".join(self._tree.nodes(tile.positions()))

    def entry_bundle(self, bundle: EntryBundle) -> bytes:
        """The bytes of an entry bundle of the published tree, full or partial. Raises NotInLog, CorruptLog."""
        self._check_published(bundle.path, bundle.stop)
        return encode_entry_bundle(self._storage.entries(bundle.start, bundle.stop))

    def close(self) -> None:
        """Release the storage and the writer's lock."""
        with self._turn:
            self._storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait_for(self, ticket: Ticket, signer: Signer) -> None:
        """Queue the ticket until it is settled; when it is this thread's part to lead, integrate all that wait."""
        self._queue.put(ticket)
        try:
            ticket.wait()
            if not ticket.settled:
                self._serve(signer)
        except Exception:
            # Leaving the storage's lock may fail after the entries were stored: that is for the next writer to find.
            if not ticket.succeeded:
                raise
        finally:
            self._queue.leave(ticket)

    def _serve(self, signer: Signer) -> None:
        """Integrate the next batch of the queue. Raises what went wrong, and tells it to every ticket of the batch."""
        tickets: list[Ticket] = []
        try:
            with self.exclusive():
                tickets = self._queue.batch()
                self._integrate(tickets, signer)
        except BaseException as error:
            if not tickets and isinstance(error, Exception):
                # The log itself is out of reach: that is true for everybody who waits for it.
                tickets = self._queue.batch()
            for ticket in tickets:
                ticket.fail(error)
            raise

    def _integrate(self, tickets: Sequence[Ticket], signer: Signer) -> None:
        """Sign and store the entries of all tickets as one batch. Only inside `exclusive`."""
        self._catch_up(entering=False)
        entries = [entry for ticket in tickets for entry in ticket.entries]
        first, previous = self._head.size, self._head.note
        frontier, nodes = self._frontier.extend(leaf for ticket in tickets for leaf in ticket.leaves)
        note = sign_checkpoint(Checkpoint(self.origin, frontier.size, frontier.root()), signer)
        head = self._open(note)
        self._uncertain = (previous, note)
        self._storage.commit(Batch(previous, note, first, entries, nodes))
        self._head, self._seen, self._frontier = head, head, frontier
        self._uncertain = None  # last: an interrupt before it makes the next append look at what is stored
        for ticket in tickets:
            ticket.succeed(first)
            first += len(ticket.entries)

    def _catch_up(self, entering: bool) -> None:
        """Make head and frontier those that are stored. Only with the storage's exclusive lock.

        Needed after a failed commit, where the head before or the head after is stored, whichever, and no other; and
        on entering a shared storage, where another process may have gone on. Either way what is stored must extend
        what this writer saw before: a restored backup under a running writer is found here, before anything is signed.
        """
        if self._uncertain is None and not (entering and self._storage.shared):
            return
        note = self._storage.checkpoint()
        if self._uncertain is None and note == self._head.note:
            return
        if self._uncertain is not None and not self._storage.shared and note not in self._uncertain:
            raise CorruptLog("after a failed append the stored checkpoint is neither the old nor the new one")
        old, head = self._head, self._stored(note)
        if head.size < old.size or self._tree.root(old.size) != old.root:
            raise CorruptLog(
                f"the stored log of size {head.size} does not extend the head of size {old.size} seen here"
            )
        frontier = self._tree.check_edge(head)
        self._tree.check_extent(head, exact=True)
        self._head, self._frontier = head, frontier
        self._uncertain = None

    def _known_size(self, what: str, size: int | None) -> int:
        present = self.size
        if size is not None and not 0 <= size <= present:
            raise NotInLog(what, size, present)
        return present if size is None else size

    def _check_published(self, path: str, size_needed: int) -> None:
        size = self.published().size
        if size_needed > size:
            raise NotInLog(f"{path} of a tree of size", size_needed, size)

    def _open(self, note: bytes) -> VerifiedHead:
        return open_checkpoint(note, self._verifier, self.origin)

    def _stored(self, note: bytes) -> VerifiedHead:
        try:
            return self._open(note)
        except DecodeError as error:
            raise CorruptLog(f"a stored checkpoint is none ({error})") from error

    def _open_publication(self, publication: Publication) -> VerifiedHead:
        head = self._stored(publication.note)
        if head.size != publication.size:
            raise CorruptLog(f"the publication of size {publication.size} holds a checkpoint of size {head.size}")
        return head

    def _check_publication(self) -> None:
        """What was shown to the world must be in the log: it is not when an older copy of the log was put back."""
        publication = self._storage.published()
        if publication is None:
            return
        shown = self._open_publication(publication)
        if shown.size > self.size or self._tree.root(shown.size) != shown.root:
            raise CorruptLog(f"the published checkpoint of size {shown.size} is not one of the stored log")

    def _read(self, start: int, stop: int) -> Iterator[bytes]:
        for first in range(start, stop, _CHUNK):
            yield from self._storage.entries(first, min(first + _CHUNK, stop))


def _check_succession(old: Publication, new: VerifiedHead) -> None:
    """Publications only grow: in size, or at one size in signatures."""
    if new.size < old.size:
        raise UsageError(f"size {old.size} is published already: size {new.size} would go back")
    if new.size == old.size:
        kept = set(Note.parse(new.note).signatures)
        lost = [signature.name for signature in Note.parse(old.note).signatures if signature not in kept]
        if lost:
            raise UsageError(f"signatures published at size {old.size} would be lost: {', '.join(lost)}")
