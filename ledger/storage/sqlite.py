"""One log in one SQLite file.

Entries, nodes and checkpoint change in one transaction, with synchronous=FULL: after a crash the file holds the old
head or the new one. The writer holds an exclusive lock on `<file>.lock` for as long as it lives; the operating system
drops it with the process, so a killed writer blocks nobody. The file must be on a local disk (file locks and the shared
memory of SQLite's write-ahead log do not work over a network).
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from ledger.errors import CorruptLog, LogLocked, StorageError, UsageError
from ledger.files import fsync_folder, lock_file
from ledger.merkle import node_count, node_position
from ledger.storage.base import Batch, Publication

__all__ = ["SqliteStorage"]

_APPLICATION_ID = 0x7365616C  # "seal": tells our files from other SQLite files
_VERSION = 2
_FIRST_VERSION = 1
"""Version 1 had no publications. A writer brings its files up to date; a reader takes them as they are."""
_PUBLICATIONS = "CREATE TABLE publications (size INTEGER PRIMARY KEY, note BLOB NOT NULL)"
_SCHEMA = (
    "CREATE TABLE entries (id INTEGER PRIMARY KEY, data BLOB NOT NULL)",
    # Nodes are numbered in the order of their completion, so that every insert goes to the end of the table.
    "CREATE TABLE nodes (id INTEGER PRIMARY KEY, hash BLOB NOT NULL)",
    "CREATE TABLE head (id INTEGER PRIMARY KEY CHECK (id = 0), checkpoint BLOB NOT NULL)",
    _PUBLICATIONS,
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_VERSION}",
)
_BUSY_SECONDS = 10.0
_MAX_VARIABLES = 500
"""Parameters in one statement: SQLite may be built to take no more than 999."""


class SqliteStorage:
    """See `ledger.storage.base.Storage`. Made by `create`, `open` or `open_readonly`."""

    def __init__(self, path: Path, lock: int | None) -> None:
        self._path = path
        self._lock = lock
        self._writer: sqlite3.Connection | None = None
        self._writing = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._guard = threading.Lock()
        self._closed = False

    @classmethod
    def create(cls, path: Path, checkpoint: bytes) -> SqliteStorage:
        """A new log file that holds nothing but `checkpoint`, opened for writing.

        Raises UsageError when there is a log already, LogLocked, StorageError.
        """
        return cls._open_writer(path, checkpoint)

    @classmethod
    def open(cls, path: Path) -> SqliteStorage:
        """Open for reading and writing; a file of version 1 becomes one of version 2.

        Raises UsageError for no log, LogLocked, StorageError.
        """
        if not path.is_file():
            raise UsageError(f"there is no log at {path}: create it first")
        return cls._open_writer(path, None)

    @classmethod
    def open_readonly(cls, path: Path) -> SqliteStorage:
        """Open for reading, beside a writer if there is one. Raises UsageError for no log, StorageError."""
        if not path.is_file():
            raise UsageError(f"there is no log at {path}: create it first")
        storage = cls(path, None)
        try:
            with storage._reader() as connection:
                _check_format(connection, path)
        except BaseException:
            storage.close()
            raise
        return storage

    @classmethod
    def _open_writer(cls, path: Path, first_checkpoint: bytes | None) -> SqliteStorage:
        storage = cls(path, _lock(path))
        try:
            with _translated(path):
                storage._writer = connection = _connect(path, read_only=False)
                if first_checkpoint is None:
                    version = _check_format(connection, path)
                elif connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone() != (0,):
                    raise UsageError(f"{path} exists already: open it, or choose another path")
                _make_durable(connection, path)
                if first_checkpoint is not None:
                    _initialise(connection, path, first_checkpoint)
                else:
                    if version < _VERSION:
                        _migrate(connection)
                    _settle(connection)
        except BaseException:
            storage.close()
            raise
        return storage

    @property
    def shared(self) -> bool:
        return False

    def exclusive(self) -> AbstractContextManager[None]:
        return nullcontext()  # the lock file keeps every other writer out as long as this one lives

    def checkpoint(self) -> bytes:
        with self._reader() as connection:
            return _one(connection.execute("SELECT checkpoint FROM head"), "the checkpoint")

    def extent(self) -> tuple[int, int]:
        with self._reader() as connection:
            row = connection.execute(
                "SELECT (SELECT COALESCE(MAX(id) + 1, 0) FROM entries), (SELECT COALESCE(MAX(id) + 1, 0) FROM nodes)"
            ).fetchone()
            return int(row[0]), int(row[1])

    def entries(self, start: int, stop: int) -> list[bytes]:
        query = "SELECT data FROM entries WHERE id >= ? AND id < ? ORDER BY id"
        with self._reader() as connection:
            return _many(connection.execute(query, (start, stop)), stop - start, f"entries {start} to {stop - 1}")

    def nodes(self, positions: Sequence[tuple[int, int]]) -> list[bytes]:
        ids = [node_position(level, index) for level, index in positions]
        found: dict[int, bytes] = {}
        with self._reader() as connection:
            for start in range(0, len(ids), _MAX_VARIABLES):
                some = ids[start : start + _MAX_VARIABLES]
                marks = ",".join("?" * len(some))
                found.update(connection.execute(f"SELECT id, hash FROM nodes WHERE id IN ({marks})", some))  # noqa: S608
        return [
            _blob(found.get(id_), f"node {index} of level {level}")
            for id_, (level, index) in zip(ids, positions, strict=True)
        ]

    def completed_nodes(self, start: int, stop: int) -> list[bytes]:
        first, last = node_count(start), node_count(stop)
        query = "SELECT hash FROM nodes WHERE id >= ? AND id < ? ORDER BY id"
        with self._reader() as connection:
            found = connection.execute(query, (first, last))
            return _many(found, last - first, f"the nodes of entries {start} to {stop - 1}")

    def commit(self, batch: Batch) -> None:
        with self._transaction() as connection:
            if _one(connection.execute("SELECT checkpoint FROM head"), "the checkpoint") != batch.previous:
                raise StorageError(f"{self._path} was changed by another program: reopen the log")
            connection.executemany(
                "INSERT INTO entries (id, data) VALUES (?, ?)", enumerate(batch.entries, batch.first)
            )
            connection.executemany(
                "INSERT INTO nodes (id, hash) VALUES (?, ?)",
                ((node_position(node.level, node.number), node.hash) for node in batch.nodes),
            )
            connection.execute("UPDATE head SET checkpoint = ? WHERE id = 0", (batch.checkpoint,))

    def published(self) -> Publication | None:
        newest = self._publications("ORDER BY size DESC LIMIT 1", ())
        return newest[0] if newest else None

    def publications(self, start: int, limit: int) -> list[Publication]:
        return self._publications("WHERE size >= ? ORDER BY size LIMIT ?", (start, limit))

    def publish(self, publication: Publication) -> None:
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO publications (size, note) VALUES (?, ?) "
                "ON CONFLICT (size) DO UPDATE SET note = excluded.note",
                (publication.size, publication.note),
            )

    def close(self) -> None:
        with self._guard:
            self._closed = True
            connections, self._idle = self._idle, []
        if self._writer is not None:
            # Last, because the last connection to close folds the write-ahead log into the file.
            connections.append(self._writer)
            self._writer = None
        for connection in connections:
            connection.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One transaction of the writer: everything inside is on the disk when it is left, or nothing is stored."""
        with self._writing, _translated(self._path):
            connection = self._writer
            if connection is None:
                raise UsageError(f"{self._path} is closed or open for reading only")
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _publications(self, clause: str, values: tuple[int, ...]) -> list[Publication]:
        with self._reader() as connection:
            if _check_format(connection, self._path) == _FIRST_VERSION:
                return []
            rows = connection.execute(f"SELECT size, note FROM publications {clause}", values).fetchall()  # noqa: S608
        return [Publication(size, _blob(note, f"the publication of size {size}")) for size, note in rows]

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        """A connection for this thread alone, kept for the next reader afterwards."""
        with self._guard:
            if self._closed:
                raise UsageError(f"{self._path} is closed")
            connection = self._idle.pop() if self._idle else None
        with _translated(self._path):
            if connection is None:
                connection = _connect(self._path, read_only=True)
            try:
                yield connection
            finally:
                with self._guard:
                    keep = not self._closed
                    if keep:
                        self._idle.append(connection)
                if not keep:
                    connection.close()


def _lock(path: Path) -> int:
    """The writer's lock, on `<path>.lock`, as an open file descriptor."""
    try:
        descriptor = lock_file(Path(f"{path}.lock"))
    except OSError as error:
        raise StorageError(f"cannot lock {path}.lock: {error.strerror}") from error
    if descriptor is None:
        raise LogLocked(str(path))
    return descriptor


def _connect(path: Path, read_only: bool) -> sqlite3.Connection:
    mode = "ro" if read_only else "rwc"
    return sqlite3.connect(
        f"{path.resolve().as_uri()}?mode={mode}",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )


def _make_durable(connection: sqlite3.Connection, path: Path) -> None:
    """A commit returns only when the write-ahead log has reached the disk; readers never wait for the writer."""
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = ON")  # macOS: its plain fsync does not reach the disk
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StorageError(f"{path}: SQLite cannot use its write-ahead log here ({mode} instead)")


def _initialise(connection: sqlite3.Connection, path: Path, checkpoint: bytes) -> None:
    """Schema and first checkpoint in one transaction: an interrupted creation leaves an empty file, used again here."""
    connection.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA:
        connection.execute(statement)
    connection.execute("INSERT INTO head (id, checkpoint) VALUES (0, ?)", (checkpoint,))
    connection.execute("COMMIT")
    fsync_folder(path.resolve().parent)


def _migrate(connection: sqlite3.Connection) -> None:
    """From version 1, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(_PUBLICATIONS)
    connection.execute(f"PRAGMA user_version = {_VERSION}")
    connection.execute("COMMIT")


def _settle(connection: sqlite3.Connection) -> None:
    """Flush what is read: a writer killed before its last flush left a commit that a power cut would take away again.

    Nobody may be shown that before it is durable. Any commit flushes all that stands before it in the write-ahead log.
    """
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE head SET checkpoint = checkpoint")
    connection.execute("COMMIT")


def _check_format(connection: sqlite3.Connection, path: Path) -> int:
    """The file's version, if it is one that this program reads. Raises UsageError."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION_ID:
        raise UsageError(f"{path} is not a log")
    if not _FIRST_VERSION <= version <= _VERSION:
        raise UsageError(f"{path} has storage version {version}, this program reads up to version {_VERSION}")
    return int(version)


def _one(cursor: sqlite3.Cursor, what: str) -> bytes:
    return _many(cursor, 1, what)[0]


def _many(cursor: sqlite3.Cursor, expected: int, what: str) -> list[bytes]:
    values = [_blob(value, what) for (value,) in cursor]
    if len(values) != expected:
        raise CorruptLog(f"{what}: {len(values)} of {expected} are stored")
    return values


def _blob(value: object, what: str) -> bytes:
    if value is None:
        raise CorruptLog(f"{what} is not stored")
    if not isinstance(value, bytes):
        raise CorruptLog(f"{what}: a stored value is not a byte string")
    return value


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError, OverflowError) as error:
        raise StorageError(f"{path}: {error}") from error
