"""Durable file system operations: after them a power cut finds what was written.

A file is replaced by writing another one beside it, fsync, rename, and fsync of the folder that holds the name: before
the rename readers see the old bytes, afterwards the new ones, and never a part of them.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

__all__ = ["Disk", "DurableFiles", "fsync_folder", "held_lock", "lock_file"]

_T = TypeVar("_T")
_REMEMBERED: Final = 10_000
"""Folders that are known to be durable: more are synced again rather than kept in memory."""
_OPEN: Final = 64
"""Files that are open at once."""
_AT_ONCE: Final = 8
"""Threads that wait for the disk."""


def lock_file(path: Path, mode: int = 0o600) -> int | None:
    """An exclusive lock on the file `path` (made when needed), as an open descriptor: close it to let go.

    None if somebody has it. The system drops it with its process, so a killed one blocks nobody. The file stays:
    removing it would race. Raises OSError.
    """
    try:
        return _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB, mode)
    except BlockingIOError:
        return None


@contextmanager
def held_lock(path: Path) -> Iterator[None]:
    """The same lock for the block; whoever comes meanwhile waits. Raises OSError before the block."""
    descriptor = _locked(path, fcntl.LOCK_EX, 0o600)
    try:
        yield
    finally:
        os.close(descriptor)


def _locked(path: Path, how: int, mode: int) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        fcntl.flock(descriptor, how)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class Disk:
    """The steps of the operating system that durable writes are made of, each of which may fail with OSError.

    Tests put one in place that fails at a chosen step, or that forgets what was never synced.
    """

    _pool: ThreadPoolExecutor | None = None

    def make_folder(self, folder: Path) -> None:
        """A new, empty folder. Its name is durable after `sync_folder` of its parent."""
        folder.mkdir()

    def write(self, path: Path, data: bytes) -> int:
        """A file with these bytes, in place of one that was there. Returns its open descriptor, for `sync`."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(descriptor, left) :]
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def sync(self, descriptor: int) -> None:
        """Wait until the bytes of a file have reached the disk."""
        _fsync(descriptor)

    def sync_all(self, descriptors: Sequence[int]) -> None:
        """`sync` of several files at once, which takes little longer than one: a journal writes them together."""
        self._side_by_side(self.sync, descriptors)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file the name `target`, in place of the file that has it. Durable after `sync_folder`."""
        source.replace(target)

    def sync_folder(self, folder: Path) -> None:
        """Wait until the names in a folder have reached the disk."""
        fsync_folder(folder)

    def sync_folders(self, folders: Sequence[Path]) -> None:
        """`sync_folder` of several at once."""
        self._side_by_side(self.sync_folder, folders)

    def close(self) -> None:
        """End the threads that wait for the disk. It can be used again."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()

    def _side_by_side(self, act: Callable[[_T], None], items: Sequence[_T]) -> None:
        """`act` on every item. All of them are over when this returns or raises what the first that failed raised."""
        if not items:
            return
        others: list[Future[None]] = []
        if len(items) > 1:
            self._pool = self._pool or ThreadPoolExecutor(_AT_ONCE, "sealproof-disk")
            others = [self._pool.submit(act, item) for item in items[1:]]
        try:
            act(items[0])
        finally:
            wait(others)
        for done in others:
            done.result()


class DurableFiles:
    """Writes files below the folder `root`, one caller at a time.

    `temporary` is a folder of the same file system, for files that have no name yet.
    """

    def __init__(self, root: Path, temporary: Path, disk: Disk) -> None:
        self._root = root
        self._temporary = temporary
        self._disk = disk
        # Folders whose own names are on the disk. One that is merely there may have been made by a process that was
        # killed before it synced, so that each is synced once by each process.
        self._durable: set[Path] = {root}

    def replace(self, files: Sequence[tuple[Path, bytes]]) -> None:
        """Write files, in place of those that have their names, and make them durable. Missing folders are made.

        All bytes are on the disk before the first name is given, and all names when this returns. After OSError each
        of the files may be the old one or the new one, and a power cut may still change which.
        """
        touched: dict[Path, None] = {}
        folders: set[Path] = set()
        for path, _ in files:
            self._make_folders(path.parent, folders, touched)
            touched[path.parent] = None
        for first in range(0, len(files), _OPEN):
            self._write(first, [data for _, data in files[first : first + _OPEN]])
        for number, (path, _) in enumerate(files):
            self._disk.rename(self._temporary / str(number), path)
        self._disk.sync_folders(list(touched))
        if len(self._durable) > _REMEMBERED:
            self._durable = {self._root}
        self._durable |= folders

    def _write(self, first: int, contents: Sequence[bytes]) -> None:
        """Files without a name, numbered from `first`, on the disk."""
        descriptors: list[int] = []
        try:
            for number, data in enumerate(contents, first):
                descriptors.append(self._disk.write(self._temporary / str(number), data))
            self._disk.sync_all(descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _make_folders(self, folder: Path, folders: set[Path], touched: dict[Path, None]) -> None:
        """Make `folder` and what is missing above it. `touched`: where a name lies that is not known to be durable."""
        if folder in self._durable or folder in folders:
            return
        self._make_folders(folder.parent, folders, touched)
        if not folder.is_dir():
            self._disk.make_folder(folder)
        touched[folder.parent] = None
        folders.add(folder)


def fsync_folder(folder: Path) -> None:
    """Make the names of new files in `folder` durable: fsync of a file alone does not. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _fsync(descriptor)
    finally:
        os.close(descriptor)


def _fsync(descriptor: int) -> None:
    if sys.platform == "darwin":
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)  # its plain fsync does not reach the disk
    else:
        os.fsync(descriptor)
