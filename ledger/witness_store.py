"""A witness's memory in one SQLite file: the last head of each log, and evidence against logs.

A witness that forgets is no witness: it would cosign a second head of a size. So a head is durable before it is
cosigned (synchronous=FULL), it is stored only on top of the head that was looked at, and a key is never used without
the memory that belongs to it. Never put back an old copy of the file: take a new key instead. Several processes may
share the file, on a local disk.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ledger.checkpoint import VerifiedHead
from ledger.cosignature import Cosigner
from ledger.errors import StorageError, UsageError
from ledger.files import fsync_folder
from ledger.merkle import HASH_BYTES
from ledger.witness import Clock, Evidence, EvidenceKind, LastHead

__all__ = ["SqliteWitnessStore", "open_folder"]

_APPLICATION_ID: Final = 0x7769746E  # "witn"
_VERSION: Final = 1
_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS heads "
    "(origin TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, time INTEGER NOT NULL, note BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS evidence (id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, "
    "origin TEXT NOT NULL, time INTEGER NOT NULL, size INTEGER NOT NULL, root BLOB NOT NULL, old BLOB NOT NULL, "
    "new BLOB NOT NULL, proof BLOB NOT NULL, UNIQUE (origin, kind, size, root))",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_VERSION}",
)
_BUSY_SECONDS: Final = 10.0
_CLOCK_SECONDS: Final = 60
"""A clock that was set back by so little is waited out with the last time; more than that and nothing is cosigned."""
_MOST_KEPT: Final = {"fork": 1000, "unproven": 100}
"""Evidence per log and kind. Of forks the first are kept, of unproven heads, which anybody can send, the last."""


class SqliteWitnessStore:
    """See `ledger.witness.WitnessStore`. Made by `create` or `open`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self._lock = threading.Lock()

    @classmethod
    def create(cls, path: Path) -> SqliteWitnessStore:
        """A new, empty memory of mode 0600, durable on return; an empty one left by an interrupted start is used.

        Raises UsageError for a file that holds anything, StorageError.
        """
        with _translated(path):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            store = cls(path, _connect(path))
        try:
            with store._transaction() as connection:
                if connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone() != (0,):
                    _check_format(connection, path)
                    if connection.execute("SELECT COUNT(*) FROM heads").fetchone() != (0,):
                        raise UsageError(f"{path} is the memory of a witness already")
                for statement in _SCHEMA:
                    connection.execute(statement)
            with _translated(path):
                fsync_folder(path.resolve().parent)
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def open(cls, path: Path) -> SqliteWitnessStore:
        """Open a witness's memory. Raises UsageError if there is none, StorageError."""
        if not path.is_file():
            raise UsageError(f"there is no witness's memory at {path}")
        with _translated(path):
            store = cls(path, _connect(path))
        try:
            with _translated(path):
                _check_format(store._connection, path)
        except BaseException:
            store.close()
            raise
        return store

    def last(self, origin: str) -> LastHead | None:
        with self._lock, _translated(self._path):
            return _last(self._connection, origin)

    def heads(self) -> dict[str, LastHead]:
        """The last head of each log, by origin."""
        with self._lock, _translated(self._path):
            rows = self._connection.execute("SELECT origin, size, root, time, note FROM heads ORDER BY origin")
            return {origin: LastHead(*head) for origin, *head in rows}

    def advance(self, origin: str, expected: LastHead | None, new: VerifiedHead, now: Clock) -> LastHead | None:
        with self._transaction() as connection:
            last = _last(connection, origin)
            if _tree(last) != _tree(expected):
                return None
            # Inside the transaction: a time taken before could be later than that of a larger head stored meanwhile.
            head = LastHead(new.size, new.root, _time_after(last, now()), new.note)
            connection.execute(
                "INSERT OR REPLACE INTO heads (origin, size, root, time, note) VALUES (?, ?, ?, ?, ?)",
                (origin, head.size, head.root, head.time, head.note),
            )
            connection.execute(
                "DELETE FROM evidence WHERE origin = ? AND kind = 'unproven' AND size = ? AND root = ?",
                (origin, head.size, head.root),
            )
        return head

    def accuse(self, kind: EvidenceKind, old: LastHead, new: VerifiedHead, proof: Sequence[bytes], now: Clock) -> None:
        which = (new.origin, kind)
        with self._transaction() as connection:
            count = "SELECT COUNT(*) FROM evidence WHERE origin = ? AND kind = ?"
            if kind == "fork" and connection.execute(count, which).fetchone()[0] >= _MOST_KEPT[kind]:
                return
            connection.execute(
                "INSERT OR IGNORE INTO evidence (origin, kind, time, size, root, old, new, proof) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*which, now(), new.size, new.root, old.note, new.note, b"".join(proof)),
            )
            connection.execute(
                "DELETE FROM evidence WHERE origin = ? AND kind = ? AND id NOT IN "
                "(SELECT id FROM evidence WHERE origin = ? AND kind = ? ORDER BY id DESC LIMIT ?)",
                (*which, *which, _MOST_KEPT[kind]),
            )

    def evidence(self, after: int = 0, limit: int = 100) -> list[tuple[int, Evidence]]:
        """At most `limit` pieces of evidence with their numbers, oldest first, from those with numbers > `after`."""
        query = "SELECT id, kind, origin, time, old, new, proof FROM evidence WHERE id > ? ORDER BY id LIMIT ?"
        with self._lock, _translated(self._path):
            rows = self._connection.execute(query, (after, limit)).fetchall()
        return [
            (number, Evidence(kind, origin, time, old, new, _hashes(proof)))
            for number, kind, origin, time, old, new, proof in rows
        ]

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All of what is done in the block, or nothing of it; durable when the block ends."""
        with self._lock, _translated(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def open_folder(folder: Path, name: str | None) -> tuple[SqliteWitnessStore, Cosigner]:
    """A witness's folder: its memory `witness.sqlite` and its key `witness.key`, both made on first start.

    `name` (a URL without its scheme) names a new key, and must agree with one that is there. The memory is made first,
    so that there is never a key without it. Raises UsageError for a key whose memory is gone: such a key must not be
    used again. Raises StorageError, DecodeError.
    """
    key, memory = folder / "witness.key", folder / "witness.sqlite"
    if not key.exists():
        if name is None:
            raise UsageError(
                f"there is no witness in {folder}: name the new one with --name, such as witness.example/w1"
            )
        cosigner = Cosigner.generate(name)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make the folder {folder}: {error.strerror}") from error
        store = SqliteWitnessStore.create(memory)
        try:
            cosigner.save(key)
        except BaseException:
            store.close()
            raise
        return store, cosigner
    cosigner = Cosigner.load(key)
    if name is not None and name != cosigner.name:
        raise UsageError(f"the witness in {folder} is called {cosigner.name!r}, not {name!r}")
    if not memory.exists():
        raise UsageError(
            f"{memory} is gone, and with it what this key cosigned: remove {key}, and tell those who trust it"
        )
    return SqliteWitnessStore.open(memory), cosigner


def _last(connection: sqlite3.Connection, origin: str) -> LastHead | None:
    row = connection.execute("SELECT size, root, time, note FROM heads WHERE origin = ?", (origin,)).fetchone()
    return LastHead(*row) if row else None


def _tree(head: LastHead | None) -> tuple[int, bytes] | None:
    return (head.size, head.root) if head is not None else None


def _time_after(last: LastHead | None, now: int) -> int:
    """The time to sign: never earlier than that of the last head, whose cosignature says it was the largest by then."""
    if last is None or now >= last.time:
        return now
    if last.time - now > _CLOCK_SECONDS:
        raise StorageError(f"the clock shows {now}, {last.time - now} s before the last cosignature: set it right")
    return last.time


def _hashes(proof: bytes) -> tuple[bytes, ...]:
    return tuple(proof[i : i + HASH_BYTES] for i in range(0, len(proof), HASH_BYTES))


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")  # macOS: its plain fsync does not reach the disk
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StorageError(f"{path}: SQLite cannot use its write-ahead log here ({mode} instead)")
    except BaseException:
        connection.close()
        raise
    return connection


def _check_format(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if (application, version) != (_APPLICATION_ID, _VERSION):
        raise UsageError(f"{path} is not the memory of a witness that this program can read")


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StorageError(f"{path}: {error}") from error
