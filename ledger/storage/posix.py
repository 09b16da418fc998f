"""One log in one folder of plain files, laid out as C2SP tlog-tiles says: any client of that format can read it.

    checkpoint                      the published checkpoint, with cosignatures
    tile/<L>/<N>[.p/<W>]            hashes (ledger.tiles)
    tile/entries/<N>[.p/<W>]        entries
    .state/checkpoint               the integrated head: its size in a line, then the signed checkpoint
    .state/publications/...         every published checkpoint (ledger.storage.posix_archive)
    .state/lock, format, tmp/       the writer's lock, the version of this layout, files that have no name yet

Serve everything but `.state`. A commit writes entry bundles and tiles first, waits for the disk, and puts the new
`.state/checkpoint` in place of the old one with one rename: the log is what that file says, and whatever a crash left
beyond it is not part of the log and is written over. A full tile is written once. Partial tiles are kept, because
clients with older checkpoints may ask for them; so many small appends take space (256 partial bundles for 256 entries).
The folder must be on one local disk: a lock file keeps a second writer out, and fsync has to mean what it says.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Final

from ledger.encoding import decode_decimal
from ledger.errors import CorruptLog, DecodeError, LogLocked, StorageError, UsageError
from ledger.files import Disk, DurableFiles, fsync_folder, lock_file
from ledger.merkle import HASH_BYTES, leaf_hash, node_count
from ledger.storage.base import Batch, Publication
from ledger.storage.posix_archive import PublicationArchive
from ledger.tiles import (
    TILE_HEIGHT,
    TILE_WIDTH,
    EntryBundle,
    Tile,
    decode_entry_bundle,
    encode_entry_bundle,
    entry_bundles,
    split_tile,
    tiles,
)

__all__ = ["PosixStorage"]

_FORMAT: Final = b"sealproof tiles 1\n"
_CACHED_TILES: Final = 256
"""Parsed tiles kept in memory, about 40 kB each."""


@dataclass(frozen=True, slots=True)
class _Durable:
    """What is on the disk, and would be found after a power cut: all that may be shown."""

    size: int
    checkpoint: bytes
    newest: Publication | None


class PosixStorage:
    """See `ledger.storage.base.Storage`. Made by `create`, `open` or `open_readonly`."""

    def __init__(self, folder: Path, lock: int | None, disk: Disk) -> None:
        self._folder = folder
        self._state = folder / ".state"
        self._archive = PublicationArchive(self._state / "publications")
        self._lock = lock
        self._read_only = lock is None
        self._disk = disk
        self._files = DurableFiles(folder, self._state / "tmp", disk)
        # Re-entrant, because a commit settles what an earlier one left in doubt.
        self._writing = threading.RLock()
        self._durable: _Durable | None = None
        self._tiles: OrderedDict[tuple[int, int], list[list[bytes]]] = OrderedDict()
        self._guard = threading.Lock()
        self._closed = False

    @classmethod
    def create(cls, folder: Path, checkpoint: bytes, disk: Disk | None = None) -> PosixStorage:
        """A new log that holds nothing but `checkpoint`, opened for writing. The folder is made, or must be empty.

        Raises UsageError when there is a log or anything else already, LogLocked, StorageError.
        """
        disk = disk or Disk()
        with _translated(folder):
            if not folder.is_dir():
                disk.make_folder(folder)
            elif any(found.name != ".state" for found in folder.iterdir()):
                raise _exists(folder)
            # Also when the folder is there: a creation that was interrupted may not have come to this.
            disk.sync_folder(folder.absolute().parent)
            if not (folder / ".state").is_dir():
                disk.make_folder(folder / ".state")
            storage = cls(folder, _lock(folder), disk)
        try:
            with _translated(folder):
                if cls.exists(folder):
                    raise _exists(folder)
                if not (storage._state / "tmp").is_dir():
                    disk.make_folder(storage._state / "tmp")
                storage._files.replace([(storage._state / "checkpoint", _encode_state(0, checkpoint))])
                storage._files.replace([(storage._state / "format", _FORMAT)])  # last: it makes the folder a log
                storage._durable = _Durable(0, checkpoint, None)
        except BaseException:
            storage.close()
            raise
        return storage

    @classmethod
    def open(cls, folder: Path, disk: Disk | None = None) -> PosixStorage:
        """Open for reading and writing. Raises UsageError for no log, LogLocked, StorageError."""
        _check_format(folder)
        with _translated(folder):
            storage = cls(folder, _lock(folder), disk or Disk())
        try:
            with _translated(folder):
                for inner in (storage._state, storage._state / "tmp"):
                    # What is left there is removed: somebody else's folder must not be reached through a link.
                    if inner.is_symlink():
                        raise CorruptLog(f"{inner} is a link; a log's own folders are none")
                (storage._state / "tmp").mkdir(exist_ok=True)
                for left in (storage._state / "tmp").iterdir():
                    left.unlink()
            storage._settled()
        except BaseException:
            storage.close()
            raise
        return storage

    @classmethod
    def open_readonly(cls, folder: Path) -> PosixStorage:
        """Open for reading, beside a writer if there is one. Raises UsageError for no log, StorageError."""
        _check_format(folder)
        return cls(folder, None, Disk())

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether there is a log in the folder, of whatever version. Raises StorageError."""
        with _translated(folder):
            return (folder / ".state" / "format").is_file()

    @property
    def shared(self) -> bool:
        return False

    def exclusive(self) -> AbstractContextManager[None]:
        return nullcontext()  # the lock file keeps every other writer out as long as this one lives

    def checkpoint(self) -> bytes:
        return self._settled().checkpoint

    def extent(self) -> tuple[int, int]:
        size = self._settled().size
        return size, node_count(size)

    def entries(self, start: int, stop: int) -> list[bytes]:
        size = self._settled().size
        if not 0 <= start <= stop <= size:
            raise CorruptLog(f"{self._folder}: entries {start} to {stop - 1} are not stored, there are {size}")
        found: list[bytes] = []
        for number in range(start // TILE_WIDTH, -(-stop // TILE_WIDTH)):
            first = number * TILE_WIDTH
            bundle = self._bundle(EntryBundle(number, min(TILE_WIDTH, size - first)))
            found += bundle[max(0, start - first) : stop - first]
        return found

    def nodes(self, positions: Sequence[tuple[int, int]]) -> list[bytes]:
        self._check_open()
        return [self._node(level, index) for level, index in positions]

    def completed_nodes(self, start: int, stop: int) -> list[bytes]:
        return self.nodes(list(_completed(start, stop)))

    def commit(self, batch: Batch) -> None:
        with self._writer():
            before = self._settled()
            state = self._state / "checkpoint"
            if not batch.previous == before.checkpoint == _decode_state(state, state.read_bytes())[1]:
                raise StorageError(f"{self._folder} was changed by another program: reopen the log")
            _check_batch(batch, before.size)
            size = before.size + len(batch.entries)
            files = [*self._new_bundles(batch, before.size, size), *self._new_tiles(batch, before.size, size)]
            with self._in_doubt(_Durable(size, batch.checkpoint, before.newest)):
                self._files.replace(files)
                self._files.replace([(state, _encode_state(size, batch.checkpoint))])

    def published(self) -> Publication | None:
        return self._settled().newest

    def publications(self, start: int, limit: int) -> list[Publication]:
        newest = self._settled().newest
        if newest is None or start > newest.size or limit < 1:
            return []
        with _translated(self._folder):
            older = takewhile(lambda size: size < newest.size, self._archive.sizes(start))
            found = [self._archive.read(size) for _, size in zip(range(limit), older, strict=False)]
        return [*found, newest] if len(found) < limit else found

    def publish(self, publication: Publication) -> None:
        with self._writer():
            before = self._settled()
            is_newest = before.newest is None or publication.size >= before.newest.size
            with self._in_doubt(_Durable(before.size, before.checkpoint, publication) if is_newest else before):
                self._files.replace([(self._archive.path(publication.size), publication.note)])
                if is_newest:
                    self._files.replace([(self._folder / "checkpoint", publication.note)])

    def close(self) -> None:
        with self._writing, self._guard:
            self._closed = True
            self._tiles.clear()
            self._disk.close()
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    # -- writing -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _writer(self) -> Iterator[None]:
        """This thread alone writes, and no other process."""
        with self._writing, _translated(self._folder):
            if self._lock is None:
                raise UsageError(f"{self._folder} is closed or open for reading only")
            held, named = os.fstat(self._lock), (self._state / "lock").stat()
            if (held.st_dev, held.st_ino) != (named.st_dev, named.st_ino):
                # Somebody deleted it, so that a second writer may have made another one.
                raise StorageError(f"{self._state / 'lock'} was replaced while it was held: reopen the log")
            yield

    @contextmanager
    def _in_doubt(self, after: _Durable) -> Iterator[None]:
        """`after` is on the disk when what is inside succeeds; when it fails, nobody knows what is: see `_settled`."""
        try:
            yield
        except BaseException:
            self._durable = None
            raise
        self._durable = after

    def _settled(self) -> _Durable:
        """What may be shown, because it is on the disk.

        A step that failed, or a process that was killed, may have given a file its name and not waited for the disk. A
        writer then writes the newest checkpoint and publication anew, because after a failed fsync a second one would
        report success and mean nothing; that also puts `checkpoint` right where only the archive got the publication. A
        reader waits for the disk itself, beside a writer that is about to.
        """
        self._check_open()
        if self._read_only:
            return self._reread()
        durable = self._durable
        if durable is None:
            with self._writer():
                durable = self._durable or self._write_again()
                self._durable = durable
        return durable

    def _write_again(self) -> _Durable:
        state, newest = self._state / "checkpoint", self._archive.newest()
        data = state.read_bytes()
        self._files.replace([(state, data)])
        if newest is not None:
            self._files.replace([(self._archive.path(newest.size), newest.note)])
            self._files.replace([(self._folder / "checkpoint", newest.note)])
        return _Durable(*_decode_state(state, data), newest)

    def _reread(self) -> _Durable:
        with _translated(self._folder):
            # The publication first: it is never of a later tree than the head that is read after it.
            newest, state = self._archive.newest(), self._state / "checkpoint"
            found = _Durable(*_decode_state(state, state.read_bytes()), newest)
            if found != self._durable:
                fsync_folder(self._state)
                if newest is not None:
                    self._archive.sync(newest.size)
                self._durable = found
        return found

    def _new_bundles(self, batch: Batch, size: int, new_size: int) -> Iterator[tuple[Path, bytes]]:
        for bundle in entry_bundles(size, new_size):
            old: list[bytes] = []
            if bundle.start < size:
                old = self._bundle(EntryBundle(bundle.number, size - bundle.start))
                # Damaged bytes must not be copied into a new file, where they would pass for an entry.
                if [leaf_hash(entry) for entry in old] != self._tile(0, bundle.number, len(old))[0][: len(old)]:
                    raise CorruptLog(
                        f"{self._folder}: entries {bundle.start} to {size - 1} do not hash to their leaves"
                    )
            new = batch.entries[max(bundle.start, size) - size : bundle.stop - size]
            yield self._folder / bundle.path, encode_entry_bundle([*old, *new])

    def _new_tiles(self, batch: Batch, size: int, new_size: int) -> Iterator[tuple[Path, bytes]]:
        new = {(node.level, node.number): node.hash for node in batch.nodes if node.level % TILE_HEIGHT == 0}
        for tile in tiles(size, new_size):
            width = max(0, _width(size, tile.level, tile.number))
            old = self._tile(tile.level, tile.number, width)[0][:width] if width else []
            yield self._folder / tile.path, b"".join([*old, *(new[at] for at in tile.positions()[width:])])

    # -- reading -------------------------------------------------------------------------------------------------------

    def _bundle(self, bundle: EntryBundle) -> list[bytes]:
        with _stored(self._folder, bundle.path):
            return decode_entry_bundle(bundle, (self._folder / bundle.path).read_bytes())

    def _node(self, level: int, index: int) -> bytes:
        tile_level, inside = divmod(level, TILE_HEIGHT)
        number, place = divmod(index, TILE_WIDTH >> inside)
        return self._tile(tile_level, number, (place + 1) << inside)[inside][place]

    def _tile(self, level: int, number: int, width: int) -> list[list[bytes]]:
        """The subtrees of a tile (`split_tile`), as wide as the integrated tree has it, which is at least `width`."""
        with self._guard:
            found = self._tiles.get((level, number))
            if found is not None and len(found[0]) >= width:
                self._tiles.move_to_end((level, number))
                return found
        durable = self._durable
        if durable is None or _width(durable.size, level, number) < width:
            durable = self._settled()
        present = _width(durable.size, level, number)
        if present < width:
            raise CorruptLog(f"{self._folder}: a tree of {durable.size} entries has no {width} hashes in its tile")
        tile = Tile(level, number, present)
        with _stored(self._folder, tile.path):
            found = split_tile(tile, (self._folder / tile.path).read_bytes())
        with self._guard:
            self._tiles[level, number] = found
            self._tiles.move_to_end((level, number))
            if len(self._tiles) > _CACHED_TILES:
                self._tiles.popitem(last=False)
        return found

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError(f"{self._folder} is closed")


def _exists(folder: Path) -> UsageError:
    return UsageError(f"{folder} exists already and is not empty: open it, or choose another folder")


def _lock(folder: Path) -> int:
    """The writer's lock, on `.state/lock`, as an open file descriptor. Raises OSError, LogLocked."""
    descriptor = lock_file(folder / ".state" / "lock")
    if descriptor is None:
        raise LogLocked(str(folder))
    return descriptor


def _check_format(folder: Path) -> None:
    if not PosixStorage.exists(folder):
        raise UsageError(f"there is no log in {folder}: create it first")
    with _translated(folder):
        found = (folder / ".state" / "format").read_bytes()
    if found != _FORMAT:
        raise UsageError(f"{folder} has the storage format {found[:40]!r}, this program reads {_FORMAT!r}")


def _encode_state(size: int, checkpoint: bytes) -> bytes:
    return b"%d\n" % size + checkpoint


def _decode_state(path: Path, data: bytes) -> tuple[int, bytes]:
    size, _, checkpoint = data.partition(b"\n")
    try:
        return decode_decimal(".state/checkpoint", size.decode("ascii")), checkpoint
    except (DecodeError, UnicodeDecodeError) as error:
        raise CorruptLog(f"{path} does not begin with a size") from error


def _check_batch(batch: Batch, size: int) -> None:
    """A batch that does not continue the stored tree is refused before anything is written."""
    if batch.first != size:
        raise StorageError(f"the next entry has index {size}, not {batch.first}")
    if not all(isinstance(entry, bytes) for entry in batch.entries):
        raise StorageError("an entry is not a byte string")
    given = [(node.level, node.number) for node in batch.nodes]
    if given != list(_completed(size, size + len(batch.entries))):
        raise StorageError("the nodes are not those that the entries complete, in order")
    if not all(len(node.hash) == HASH_BYTES for node in batch.nodes):
        raise StorageError(f"a node is not a hash of {HASH_BYTES} bytes")


def _width(size: int, level: int, number: int) -> int:
    """How many hashes tile (level, number) has in a tree of `size` entries; none if this is not positive."""
    return min(TILE_WIDTH, (size >> (level * TILE_HEIGHT)) - number * TILE_WIDTH)


def _completed(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """(level, index) of the nodes that leaves start..stop-1 complete, in order of completion."""
    for leaf in range(start, stop):
        level, index = 0, leaf
        yield level, index
        while index & 1:
            level, index = level + 1, index >> 1
            yield level, index


@contextmanager
def _translated(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{folder}: {error}") from error


@contextmanager
def _stored(folder: Path, path: str) -> Iterator[None]:
    """Reading a file that the checkpoint says is there."""
    try:
        yield
    except FileNotFoundError as error:
        raise CorruptLog(f"{folder}: {path} is missing") from error
    except DecodeError as error:
        raise CorruptLog(f"{folder}: {error}") from error
    except OSError as error:
        raise StorageError(f"{folder}: {error}") from error
