"""Where a log and the archive of its published heads come from. Nothing that a source answers is believed unchecked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

from api.client.session import log_errors
from api.client.tile_source import TileSource, open_tiles
from ledger.checkpoint import Checkpoint
from ledger.errors import StorageError
from ledger.note import Note
from ledger.storage.posix_archive import PublicationArchive
from ledger.tiles import TILE_WIDTH, EntryBundle, decode_entry_bundle
from privacy.errors import UsageError

__all__ = ["LedgerSource", "TileLedger", "open_mirror"]

_ARCHIVE: Final = Path(".state/publications")


class LedgerSource(Protocol):
    """What a report is made from. `api.client.transport.Server` is one, a `TileLedger` another.

    Raises DecodeError or OSError where there is no usable answer.
    """

    def checkpoint(self) -> bytes:
        """The newest published head, a signed note."""

    def entries(self, start: int, stop: int) -> Sequence[bytes]:
        """Entries start..stop-1, at most 256."""

    def publications(self, start: int, limit: int) -> Sequence[bytes]:
        """At most `limit` published heads of sizes >= `start`, in order of their sizes: one for each size."""


class TileLedger:
    """A log in plain files (C2SP tlog-tiles), such as a mirror: `checkpoint` and `tile/entries/...`.

    The format has no archive: without one, the checkpoint is the only published head, and the only date.
    """

    def __init__(self, tiles: TileSource, archive: PublicationArchive | None = None) -> None:
        self._tiles = tiles
        self._archive = archive
        self._newest = self._read("checkpoint")

    def checkpoint(self) -> bytes:
        """The checkpoint as it was when this was opened."""
        return self._newest

    def entries(self, start: int, stop: int) -> Sequence[bytes]:
        """Entries start..stop-1 of the log of `checkpoint`. Raises UsageError, DecodeError, and as the files do."""
        size = _size_of(self._newest)
        if not 0 <= start <= stop <= size:
            raise UsageError(f"{self._tiles.name} holds {size} entries, asked for {start} to {stop}")
        entries: list[bytes] = []
        for number in range(start // TILE_WIDTH, -(-stop // TILE_WIDTH)):
            first = number * TILE_WIDTH
            bundle = self._bundle(number, min(TILE_WIDTH, size - first))
            entries += bundle[max(start - first, 0) : stop - first]
        return entries

    def publications(self, start: int, limit: int) -> Sequence[bytes]:
        """The archive, of which the checkpoint is a part. Raises DecodeError, OSError."""
        newest = _size_of(self._newest)
        sizes: Iterable[int] = () if self._archive is None else self._archive.sizes(start)
        notes = {size: self._archived(size) for size in islice(sizes, limit)}
        if newest >= start and len(notes) < limit:
            notes.setdefault(newest, self._newest)
        return [notes[size] for size in sorted(notes)]

    def close(self) -> None:
        """Give up connections."""
        self._tiles.close()

    def _archived(self, size: int) -> bytes:
        assert self._archive is not None
        return self._archive.read(size).note

    def _bundle(self, number: int, width: int) -> list[bytes]:
        """The first `width` entries of a bundle: from the partial one, or from the full one that took its place."""
        bundle, full = EntryBundle(number, width), EntryBundle(number)
        data = self._tiles.fetch(bundle.path)
        with log_errors():
            if data is None and width < TILE_WIDTH:
                return decode_entry_bundle(full, self._read(full.path))[:width]
            return decode_entry_bundle(bundle, self._read(bundle.path) if data is None else data)

    def _read(self, path: str) -> bytes:
        data = self._tiles.fetch(path)
        if data is None:
            raise StorageError(f"{self._tiles.name} has no {path}: it is no log in plain files, or not a whole one")
        return data


def open_mirror(place: str) -> TileLedger:
    """The log in a folder or at a URL; the folder of a log that a server keeps in plain files has its archive too.

    Raises UsageError, StorageError, ServerError.
    """
    archive = Path(place) / _ARCHIVE
    return TileLedger(open_tiles(place), PublicationArchive(archive) if archive.is_dir() else None)


def _size_of(note: bytes) -> int:
    with log_errors():
        return Checkpoint.parse(Note.parse(note).text).size
