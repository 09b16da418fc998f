"""Where a log lies, in one line of text: what a setting or a command line names it by.

sqlite:PATH                                             one file, one writer
tiles:FOLDER                                            plain files that any C2SP client reads, one writer
postgresql://user:password@host/database?schema=NAME    a database, several writers (extra `postgres`)
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from ledger.checkpoint import Checkpoint, sign_checkpoint
from ledger.errors import UsageError
from ledger.log import Log
from ledger.merkle import empty_root
from ledger.note import Signer
from ledger.storage.base import Storage
from ledger.storage.posix import PosixStorage
from ledger.storage.postgres_address import PostgresAddress
from ledger.storage.sqlite import SqliteStorage

if TYPE_CHECKING:
    from ledger.storage.postgres import PostgresStorage

__all__ = ["LogPlace", "open_or_create"]

_FORMS: Final = "sqlite:PATH, tiles:FOLDER or postgresql://user:password@host/database?schema=NAME"


@dataclass(frozen=True, slots=True)
class LogPlace:
    """A place for one log. `str` and `repr` show it without a password."""

    kind: Literal["sqlite", "tiles", "postgresql"]
    where: Path | PostgresAddress

    @classmethod
    def parse(cls, text: str) -> LogPlace:
        """The place named by `text`, see above; nothing is looked at. Raises UsageError, which repeats no password."""
        kind, colon, rest = text.partition(":")
        if colon and kind in ("postgresql", "postgres"):
            return cls("postgresql", PostgresAddress.parse(text))
        if not colon or kind not in ("sqlite", "tiles"):
            raise UsageError(f"the place of a log is one of {_FORMS}")
        if not rest or "\0" in rest:
            raise UsageError(f"{kind}: names no {'file' if kind == 'sqlite' else 'folder'}")
        return cls("sqlite" if kind == "sqlite" else "tiles", Path(rest))

    def exists(self) -> bool:
        """Whether there is something at the place that `open` would look at. Raises StorageError, MissingDependency."""
        match self.where:
            case PostgresAddress():
                return _postgres().exists(self.where)
            case Path():
                return _sqlite_exists(self.where) if self.kind == "sqlite" else PosixStorage.exists(self.where)

    def create(self, first_checkpoint: bytes) -> Storage:
        """A new log that holds nothing but this checkpoint, opened for writing.

        Raises UsageError when there is one or anything else at the place, LogLocked, StorageError, MissingDependency.
        """
        match self.where:
            case PostgresAddress():
                return _postgres().create(self.where, first_checkpoint)
            case Path():
                kind = SqliteStorage if self.kind == "sqlite" else PosixStorage
                return kind.create(self.where, first_checkpoint)

    def open(self) -> Storage:
        """For reading and writing. Raises UsageError for no log, LogLocked, StorageError, MissingDependency."""
        match self.where:
            case PostgresAddress():
                return _postgres().open(self.where)
            case Path():
                return SqliteStorage.open(self.where) if self.kind == "sqlite" else PosixStorage.open(self.where)

    def open_readonly(self) -> Storage:
        """For reading, beside writers. Raises UsageError for no log, StorageError, MissingDependency."""
        match self.where:
            case PostgresAddress():
                return _postgres().open_readonly(self.where)
            case Path():
                kind = SqliteStorage if self.kind == "sqlite" else PosixStorage
                return kind.open_readonly(self.where)

    def __str__(self) -> str:
        return str(self.where) if isinstance(self.where, PostgresAddress) else f"{self.kind}:{self.where}"


def open_or_create(place: LogPlace, signer: Signer) -> Log:
    """The log at `place` as a writer of it; a new, empty one where there is none.

    Raises what `LogPlace.open`, `LogPlace.create` and `Log` raise.
    """
    if place.exists():
        storage = place.open()
    else:
        try:
            storage = place.create(sign_checkpoint(Checkpoint(signer.name, 0, empty_root()), signer))
        except UsageError:
            if not place.exists():
                raise
            storage = place.open()  # another process was quicker
    return Log.on(storage, signer.verifier, signer)


def _postgres() -> type[PostgresStorage]:
    """Imported when it is needed: the driver is an extra."""
    from ledger.storage.postgres import PostgresStorage

    return PostgresStorage


def _sqlite_exists(path: Path) -> bool:
    """Not for what an interrupted creation left: a file without tables, in which `create` goes on."""
    if not path.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            return bool(connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone() != (0,))
    except sqlite3.Error:
        return True  # opening it will say what is wrong
