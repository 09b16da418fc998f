"""A folder in which one process at a time keeps what it must find again after a crash."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ledger.errors import StorageError
from ledger.files import Disk, DurableFiles, lock_file

__all__ = ["StateFolder"]


class StateFolder:
    """Small files under `folder`, which is made when needed; each is replaced whole and durably, or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else has the folder meanwhile. Raises StorageError if somebody has it already."""
        try:
            (self.folder / ".new").mkdir(parents=True, exist_ok=True)
            descriptor = lock_file(self.folder / ".lock", 0o666)
        except OSError as error:
            raise StorageError(f"cannot use the folder {self.folder}: {error.strerror}") from error
        if descriptor is None:
            raise StorageError(f"another process uses {self.folder}: wait for it, or stop it")
        try:
            yield
        finally:
            os.close(descriptor)

    def read(self, name: str, limit: int) -> bytes | None:
        """The file, at most `limit` bytes of it, or None. Raises StorageError."""
        try:
            with (self.folder / name).open("rb") as file:
                return file.read(limit)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"cannot read {self.folder / name}: {error.strerror}") from error

    def names(self, folder: str, suffix: str) -> list[str]:
        """Names of the files in a folder of it that end in `suffix`, sorted. Raises StorageError."""
        try:
            return sorted(f"{folder}/{p.name}" for p in (self.folder / folder).glob(f"*{suffix}"))
        except OSError as error:
            raise StorageError(f"cannot read {self.folder / folder}: {error.strerror}") from error

    def write(self, files: dict[str, bytes]) -> None:
        """Replace files; only while the folder is locked. Raises StorageError."""
        try:
            durable = DurableFiles(self.folder, self.folder / ".new", Disk())
            durable.replace([(self.folder / name, data) for name, data in files.items()])
        except OSError as error:
            raise StorageError(f"cannot write in {self.folder}: {error.strerror}") from error
