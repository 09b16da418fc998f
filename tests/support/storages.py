"""The storage backends that the conformance suite, the fault tests and the kill tests run on.

To add one: a class with the shape of `Backend`, and a line in `BACKENDS`. What it holds must survive pickling, because
the kill tests open the same place in other processes (all but those in `VOLATILE`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import pytest

from ledger.errors import UsageError
from ledger.storage.base import Storage
from ledger.storage.posix import PosixStorage
from ledger.storage.postgres_address import PostgresAddress
from ledger.storage.sqlite import SqliteStorage
from tests.support.memory_storage import MemoryPlace, MemoryStorage

__all__ = [
    "BACKENDS",
    "VOLATILE",
    "Backend",
    "MakeBackend",
    "MemoryBackend",
    "PosixBackend",
    "PostgresBackend",
    "SqliteBackend",
]


class Backend(Protocol):
    """One place for one log, empty at first. Picklable: a copy in another process means the same place."""

    @property
    def shared(self) -> bool:
        """Whether several writers may be open at once; otherwise a second one is refused with LogLocked."""

    def create(self, checkpoint: bytes) -> Storage:
        """A new storage that holds nothing but `checkpoint`, opened for writing."""

    def open(self) -> Storage:
        """Open for reading and writing."""

    def open_readonly(self) -> Storage:
        """Open for reading, beside a writer if there is one."""


MakeBackend = Callable[[pytest.FixtureRequest, Path], Backend]
"""Makes a fresh place, in the given empty folder or wherever a session fixture says (`request.getfixturevalue`)."""


@dataclass(frozen=True)
class SqliteBackend:
    """A log in a file."""

    path: Path
    shared: bool = False

    def create(self, checkpoint: bytes) -> Storage:
        return SqliteStorage.create(self.path, checkpoint)

    def open(self) -> Storage:
        return SqliteStorage.open(self.path)

    def open_readonly(self) -> Storage:
        return SqliteStorage.open_readonly(self.path)


@dataclass(frozen=True)
class MemoryBackend:
    """A log in this process, shared by all who open it: how the log treats a database, without one."""

    place: MemoryPlace = field(default_factory=MemoryPlace)
    shared: bool = True

    def create(self, checkpoint: bytes) -> Storage:
        if self.place.checkpoint is not None:
            raise UsageError("there is a log already")
        self.place.checkpoint = checkpoint
        return MemoryStorage(self.place, writable=True)

    def open(self) -> Storage:
        return self._existing(writable=True)

    def open_readonly(self) -> Storage:
        return self._existing(writable=False)

    def _existing(self, writable: bool) -> Storage:
        if self.place.checkpoint is None:
            raise UsageError("there is no log")
        return MemoryStorage(self.place, writable)


@dataclass(frozen=True)
class PosixBackend:
    """A log in a folder of plain files."""

    folder: Path
    shared: bool = False

    def create(self, checkpoint: bytes) -> Storage:
        return PosixStorage.create(self.folder, checkpoint)

    def open(self) -> Storage:
        return PosixStorage.open(self.folder)

    def open_readonly(self) -> Storage:
        return PosixStorage.open_readonly(self.folder)


@dataclass(frozen=True)
class PostgresBackend:
    """A log in a schema of the test's server."""

    address: PostgresAddress
    shared: bool = True

    def create(self, checkpoint: bytes) -> Storage:
        from ledger.storage.postgres import PostgresStorage

        return PostgresStorage.create(self.address, checkpoint)

    def open(self) -> Storage:
        from ledger.storage.postgres import PostgresStorage

        return PostgresStorage.open(self.address)

    def open_readonly(self) -> Storage:
        from ledger.storage.postgres import PostgresStorage

        return PostgresStorage.open_readonly(self.address)


def _sqlite(_: pytest.FixtureRequest, folder: Path) -> Backend:
    return SqliteBackend(folder / "log.db")


def _memory(_: pytest.FixtureRequest, folder: Path) -> Backend:
    return MemoryBackend()


def _posix(_: pytest.FixtureRequest, folder: Path) -> Backend:
    return PosixBackend(folder / "log")


def _postgres(request: pytest.FixtureRequest, _: Path) -> Backend:
    return PostgresBackend(request.getfixturevalue("postgres").address())


BACKENDS: Final[dict[str, MakeBackend]] = {
    "memory": _memory,
    "sqlite": _sqlite,
    "posix": _posix,
    "postgres": _postgres,
}
VOLATILE: Final = frozenset({"memory"})
"""Those that do not outlive their process."""
