"""A copy of a log in plain files, which is again a log in plain files: any server of static files can show it.

    <folder>/checkpoint          the head up to which everything here was checked, byte for byte as the log showed it
    <folder>/tile/...            tiles and entry bundles
    <folder>/.mirror/incoming/   what was downloaded and is not checked up to a signed head yet
    <folder>/.mirror/evidence/   two heads that contradict each other, if the log ever showed them

A run reads what was added since the last one (`ledger.fsck`), with the growth of the tree rebuilt from the entries.
Files get their names only after all of them were checked up to the signed head, and `checkpoint` comes last: whoever
reads the folder meanwhile, or after a crash, finds the old head with all its files. An interrupted run goes on where it
stopped. Partial files are dropped once the full one is there, as the format allows.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from api.client.log_evidence import check_growth, keep_evidence, shown_head
from api.client.state_folder import StateFolder
from api.client.tile_source import FileTiles, TileSource, in_order
from api.client.trust import TrustedLog
from ledger import FileRefused, LogMisbehaved, RootMismatch, StorageError, VerifiedHead, open_checkpoint
from ledger.files import fsync_folder
from ledger.fsck import Fetch
from ledger.note import Note
from ledger.tiles import TILE_HEIGHT, TILE_WIDTH, EntryBundle, Tile, entry_bundles, tiles

__all__ = ["MirrorReport", "mirror_log"]

_PRIVATE = ".mirror"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class MirrorReport:
    """A folder that now has the log up to `head`: `since` entries were there before, `files` were added or replaced."""

    head: VerifiedHead
    since: int
    files: int


def mirror_log(source: TileSource, log: TrustedLog, folder: Path, progress: Progress | None = None) -> MirrorReport:
    """Bring the copy in `folder`, which is made when needed, up to the head that `source` shows.

    `progress` gets (entries checked, entries in all).

    Raises:
        Rollback, Fork, InconsistentGrowth: the log contradicts the head of the copy; evidence is kept.
        VerificationFailed: what the log shows is not what its head says, or `policy.quorum`.
        StorageError, ServerError: the environment. After any error the copy is what it was.
    """
    state = StateFolder(folder / _PRIVATE)
    with state.locked():
        return _Mirror(source, log, folder, state).run(progress)


class _Mirror:
    def __init__(self, source: TileSource, log: TrustedLog, folder: Path, state: StateFolder) -> None:
        self._source = source
        self._log = log
        self._folder = folder
        self._state = state
        self._incoming = folder / _PRIVATE / "incoming"

    def run(self, progress: Progress | None) -> MirrorReport:
        head = shown_head(self._source, self._log)
        old = self._present()
        try:
            if old is None or head != old:
                self._download(old, head, progress)
        except LogMisbehaved as error:
            keep_evidence(self._state, error, (str(self._folder), self._source.name))
            raise
        self._log.witnesses(head.note)
        since = old.size if old is not None else 0
        files = self._settle(since, head.size)
        if old is None or head.size > old.size or _signs_no_less(head.note, old.note):
            self._write_checkpoint(head.note)
        self._tidy(since, head.size)
        return MirrorReport(head, since, files)

    def _present(self) -> VerifiedHead | None:
        with FileTiles(self._folder) as here:
            note = here.fetch("checkpoint")
        return None if note is None else open_checkpoint(note, self._log.verifier, self._log.origin)

    # -- reading ------------------------------------------------------------------------------------------------------

    def _download(self, old: VerifiedHead | None, head: VerifiedHead, progress: Progress | None) -> None:
        """Check what was added, and keep it aside."""

        def check(fetch: Fetch) -> None:
            check_growth(
                old,
                head,
                self._log.verifier,
                fetch,
                fetch_many=lambda paths: in_order(fetch, paths),
                checked=self._stage,
                progress=progress,
            )

        if not self._incoming.exists():
            self._incoming.mkdir()
            check(self._source.fetch)
            return
        with FileTiles(self._incoming) as staged:

            def either(path: str) -> bytes | None:
                found = staged.fetch(path)
                return self._source.fetch(path) if found is None else found

            try:
                check(either)
            except (FileRefused, RootMismatch):
                # What an earlier run left may be damaged, or of a head that never came to be: once more without it.
                self._clear()
                self._incoming.mkdir()
                check(self._source.fetch)

    def _stage(self, path: str, data: bytes) -> None:
        target = self._incoming / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}")
            temporary.write_bytes(data)
            temporary.replace(target)
        except OSError as error:
            raise StorageError(f"cannot write {target}: {error.strerror}") from error

    # -- writing ------------------------------------------------------------------------------------------------------

    def _settle(self, since: int, size: int) -> int:
        """Give checked files their names, durably. Returns how many."""
        touched: set[Path] = set()
        count = 0
        try:
            for path in chain((t.path for t in tiles(since, size)), (b.path for b in entry_bundles(since, size))):
                staged, target = self._incoming / path, self._folder / path
                with staged.open("rb") as opened:
                    os.fsync(opened.fileno())
                self._make_folder(target.parent, touched)
                staged.replace(target)
                touched.add(target.parent)
                count += 1
            for folder in touched:
                fsync_folder(folder)
        except OSError as error:
            raise StorageError(f"cannot write in {self._folder}: {error.strerror}") from error
        return count

    def _make_folder(self, folder: Path, touched: set[Path]) -> None:
        if not folder.is_dir():
            self._make_folder(folder.parent, touched)
            folder.mkdir()
            touched.add(folder.parent)

    def _write_checkpoint(self, note: bytes) -> None:
        self._state.write({"checkpoint": note})
        try:
            (self._state.folder / "checkpoint").replace(self._folder / "checkpoint")
            fsync_folder(self._folder)
        except OSError as error:
            raise StorageError(f"cannot write {self._folder / 'checkpoint'}: {error.strerror}") from error

    def _tidy(self, since: int, size: int) -> None:
        """Drop what nobody needs any more; what cannot be dropped does no harm."""
        with contextlib.suppress(OSError):
            self._clear()
            for path in _outgrown(since, size):
                shutil.rmtree(self._folder / path, ignore_errors=True)

    def _clear(self) -> None:
        if self._incoming.exists():
            shutil.rmtree(self._incoming)


def _outgrown(since: int, size: int) -> Iterator[str]:
    """Folders of partial files at the edge of the tree of `since` entries that have a full one in that of `size`."""
    for level in range(0, 64, TILE_HEIGHT):
        number = (since >> level) // TILE_WIDTH
        if (since >> level) % TILE_WIDTH and (number + 1) * TILE_WIDTH <= size >> level:
            yield f"{Tile(level // TILE_HEIGHT, number).path}.p"
            if level == 0:
                yield f"{EntryBundle(number).path}.p"


def _signs_no_less(note: bytes, old: bytes) -> bool:
    """Whether a note of the same head has the signatures of everybody who signed the old one."""
    signers = [{(s.name, s.key_id) for s in Note.parse(n).signatures} for n in (old, note)]
    return signers[0] <= signers[1]
