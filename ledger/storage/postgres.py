"""One log in one schema of a PostgreSQL database, which several processes may write (extra `postgres`).

Entries, nodes and checkpoint change in one transaction that waits for the disk (synchronous_commit). Whoever writes
holds an advisory lock of the database for the schema: a commit for its transaction, `exclusive` for the connection that
it keeps, so that the server drops it with the process, or with the network. After that loss commits inside the same
`exclusive` fail, because another process may have gone on: nothing is ever committed on a second connection. Besides,
a commit compares the stored checkpoint with the one that it continues, so that even a broken lock makes no second head.

A connection pooler between must pool sessions, not transactions (locks belong to sessions; it is noticed).
Only this module imports psycopg; without it, importing this module raises MissingDependency.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from ledger.errors import CorruptLog, LogLocked, MissingDependency, StorageError, UsageError
from ledger.merkle import node_count, node_position
from ledger.storage.base import Batch, Publication
from ledger.storage.postgres_address import PostgresAddress

try:
    import psycopg
    from psycopg import sql
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
except ImportError as error:
    raise MissingDependency("psycopg", "postgres") from error

__all__ = ["PostgresStorage"]

_NAME: Final = "sealproof ledger"
_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE {schema}.format (id integer PRIMARY KEY CHECK (id = 0), name text NOT NULL, version integer NOT NULL);
CREATE TABLE {schema}.entries (id bigint PRIMARY KEY, data bytea NOT NULL);
CREATE TABLE {schema}.nodes (id bigint PRIMARY KEY, hash bytea NOT NULL CHECK (octet_length(hash) = 32));
CREATE TABLE {schema}.head (id integer PRIMARY KEY CHECK (id = 0), checkpoint bytea NOT NULL);
CREATE TABLE {schema}.publications (size bigint PRIMARY KEY, note bytea NOT NULL)
"""
# Nodes are numbered in the order of their completion, so that every insert goes to the end of the table.

_LOCK_SECONDS: Final = 60
"""How long a writer waits for others before it reports that the log is locked."""
_READERS: Final = 8
"""Connections for reading: more threads than these wait for each other."""
_SESSION: Final = {
    "lock_timeout": f"{_LOCK_SECONDS}s",
    "synchronous_commit": "on",
    "search_path": "pg_catalog",
    # The server drops the lock of a machine that vanished without a word after a minute, not after two hours.
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}
_DURABLE: Final = frozenset({"on", "remote_apply"})
_DEFAULTS: Final = {
    "connect_timeout": "10",
    "application_name": "sealproof",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}

_Connection = psycopg.Connection[tuple[Any, ...]]


class PostgresStorage:
    """See `ledger.storage.base.Storage`. Made by `create`, `open` or `open_readonly`."""

    def __init__(self, address: PostgresAddress, read_only: bool) -> None:
        self._address = address
        self._read_only = read_only
        digest = hashlib.sha256(f"{_NAME}\n{address.schema}".encode()).digest()
        self._key = int.from_bytes(digest[:8], "big", signed=True)
        self._readers = threading.BoundedSemaphore(_READERS)
        self._idle: list[_Connection] = []
        self._guard = threading.Lock()
        self._closed = False
        # One connection writes; one thread at a time has it, for as long as it is in `exclusive`.
        self._turn = threading.RLock()
        self._depth = 0
        self._writer: _Connection | None = None
        self._backend = 0

    @classmethod
    def create(cls, address: PostgresAddress, checkpoint: bytes) -> PostgresStorage:
        """A new log that holds nothing but `checkpoint`, opened for writing. The schema is made, or must be empty.

        Raises UsageError when there is a log or anything else already, StorageError.
        """
        storage = cls(address, read_only=False)
        try:
            with storage._transaction() as connection:
                storage._initialise(connection, checkpoint)
        except BaseException:
            storage.close()
            raise
        return storage

    @classmethod
    def open(cls, address: PostgresAddress) -> PostgresStorage:
        """Open for reading and writing, beside other writers. Raises UsageError for no log, StorageError."""
        return cls._open(address, read_only=False)

    @classmethod
    def open_readonly(cls, address: PostgresAddress) -> PostgresStorage:
        """Open for reading; the right to SELECT is enough. Raises UsageError for no log, StorageError."""
        return cls._open(address, read_only=True)

    @classmethod
    def exists(cls, address: PostgresAddress) -> bool:
        """Whether there is a log in the schema, of whatever version. Raises StorageError."""
        storage = cls(address, read_only=True)
        try:
            return storage._has_log()
        finally:
            storage.close()

    @classmethod
    def _open(cls, address: PostgresAddress, read_only: bool) -> PostgresStorage:
        storage = cls(address, read_only)
        try:
            if not storage._has_log():
                raise UsageError(f"there is no log at {address}: create it first")
            (found,) = storage._read("SELECT name, version FROM {schema}.format")
            if found[0] != _NAME:
                raise UsageError(f"what lies at {address} is not a log")
            if found[1] != _VERSION:
                raise UsageError(f"{address} has storage version {found[1]}, this program reads version {_VERSION}")
        except BaseException:
            storage.close()
            raise
        return storage

    @property
    def shared(self) -> bool:
        return True

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        with self._turn:
            if self._depth == 0:
                self._acquire()
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self._release()

    def checkpoint(self) -> bytes:
        return _only(self._read("SELECT checkpoint FROM {schema}.head"), "the checkpoint")

    def extent(self) -> tuple[int, int]:
        (row,) = self._read(
            "SELECT (SELECT coalesce(max(id) + 1, 0) FROM {schema}.entries),"
            " (SELECT coalesce(max(id) + 1, 0) FROM {schema}.nodes)"
        )
        return row[0], row[1]

    def entries(self, start: int, stop: int) -> list[bytes]:
        rows = self._read("SELECT data FROM {schema}.entries WHERE id >= %s AND id < %s ORDER BY id", start, stop)
        return _all(rows, stop - start, f"entries {start} to {stop - 1}")

    def nodes(self, positions: Sequence[tuple[int, int]]) -> list[bytes]:
        ids = [node_position(level, index) for level, index in positions]
        found = dict(self._read("SELECT id, hash FROM {schema}.nodes WHERE id = ANY(%s::bigint[])", ids))
        for id_, (level, index) in zip(ids, positions, strict=True):
            if id_ not in found:
                raise CorruptLog(f"node {index} of level {level} is not stored")
        return [found[id_] for id_ in ids]

    def completed_nodes(self, start: int, stop: int) -> list[bytes]:
        first, last = node_count(start), node_count(stop)
        rows = self._read("SELECT hash FROM {schema}.nodes WHERE id >= %s AND id < %s ORDER BY id", first, last)
        return _all(rows, last - first, f"the nodes of entries {start} to {stop - 1}")

    def commit(self, batch: Batch) -> None:
        with self._transaction() as connection:
            head = connection.execute(
                self._sql("UPDATE {schema}.head SET checkpoint = %b WHERE id = 0 AND checkpoint = %b"),
                (batch.checkpoint, batch.previous),
            )
            if head.rowcount != 1:
                raise StorageError(f"{self._address} was changed by another program: read the log anew")
            connection.execute(
                self._sql(
                    "INSERT INTO {schema}.entries (id, data)"
                    " SELECT %s + place - 1, data FROM unnest(%b::bytea[]) WITH ORDINALITY AS t (data, place)"
                ),
                (batch.first, list(batch.entries)),
            )
            connection.execute(
                self._sql(
                    "INSERT INTO {schema}.nodes (id, hash)"
                    " SELECT id, hash FROM unnest(%b::bigint[], %b::bytea[]) AS t (id, hash)"
                ),
                ([node_position(node.level, node.number) for node in batch.nodes], [node.hash for node in batch.nodes]),
            )

    def published(self) -> Publication | None:
        rows = self._read("SELECT size, note FROM {schema}.publications ORDER BY size DESC LIMIT 1")
        return Publication(*rows[0]) if rows else None

    def publications(self, start: int, limit: int) -> list[Publication]:
        query = "SELECT size, note FROM {schema}.publications WHERE size >= %s ORDER BY size LIMIT %s"
        return [Publication(*row) for row in self._read(query, start, limit)]

    def publish(self, publication: Publication) -> None:
        with self._transaction() as connection:
            connection.execute(
                self._sql(
                    "INSERT INTO {schema}.publications (size, note) VALUES (%s, %b)"
                    " ON CONFLICT (size) DO UPDATE SET note = excluded.note"
                ),
                (publication.size, publication.note),
            )

    def close(self) -> None:
        with self._turn:
            with self._guard:
                self._closed = True
                connections, self._idle = self._idle, []
            if self._writer is not None:
                connections.append(self._writer)
                self._writer = None
            for connection in connections:
                connection.close()

    # -- writing -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[_Connection]:
        """A transaction on the one connection that writes, under the lock; on the disk when it is left."""
        with self.exclusive(), self._translated():
            connection = self._writer
            if connection is None or connection.closed:
                raise StorageError(f"{self._address}: the connection that held the log's lock was lost")
            with connection.transaction():
                backend, durability, _ = _row(
                    connection.execute(
                        "SELECT pg_backend_pid(), current_setting('synchronous_commit'), pg_advisory_xact_lock(%s)",
                        (self._key,),
                    )
                )
                if backend != self._backend:
                    raise StorageError(f"{self._address} is behind a pooler that swaps sessions: connect to the server")
                if durability not in _DURABLE:
                    raise StorageError(f"{self._address}: synchronous_commit was set to {durability}, not to on")
                yield connection

    def _acquire(self) -> None:
        """Take the log's lock, on the connection of before if that lives. Nothing was decided yet, so it may be new."""
        if self._read_only:
            raise UsageError(f"{self._address} is open for reading only")
        with self._translated():
            connection, self._writer = self._writer, None
            for _ in range(2):
                fresh = connection is None
                connection = connection or self._connect()
                try:
                    _, self._backend = _row(
                        connection.execute("SELECT pg_advisory_lock(%s), pg_backend_pid()", (self._key,))
                    )
                except BaseException as error:
                    # Closing it gives back the lock, should the server have granted it.
                    connection.close()
                    connection = None
                    if isinstance(error, psycopg.errors.LockNotAvailable):
                        raise LogLocked(str(self._address)) from None
                    if fresh or not isinstance(error, psycopg.OperationalError):
                        raise
                else:
                    self._writer = connection
                    return

    def _release(self) -> None:
        """Give the lock back; by closing the connection when there is the least doubt about it."""
        connection = self._writer
        if connection is None:
            return
        try:
            (released,) = _row(connection.execute("SELECT pg_advisory_unlock(%s)", (self._key,)))
        except psycopg.Error:
            released = False
        if not released or self._closed:
            connection.close()
            self._writer = None

    def _initialise(self, connection: _Connection, checkpoint: bytes) -> None:
        known, relations = _row(
            connection.execute(
                "SELECT count(DISTINCT n.oid), count(c.oid) FROM pg_namespace n"
                " LEFT JOIN pg_class c ON c.relnamespace = n.oid WHERE n.nspname = %s",
                (self._address.schema,),
            )
        )
        if relations:
            raise UsageError(f"{self._address} exists already and is not empty: open it, or choose another schema")
        if not known:
            connection.execute(self._sql("CREATE SCHEMA {schema}"))
        connection.execute(self._sql(_SCHEMA))
        connection.execute(self._sql("INSERT INTO {schema}.format VALUES (0, %s, %s)"), (_NAME, _VERSION))
        connection.execute(self._sql("INSERT INTO {schema}.head VALUES (0, %b)"), (checkpoint,))

    def _sql(self, query: str) -> sql.Composed:
        return sql.SQL(query).format(schema=sql.Identifier(self._address.schema))

    # -- connections ---------------------------------------------------------------------------------------------------

    def _has_log(self) -> bool:
        query = (
            "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = %s AND c.relname = 'format')"
        )
        ((found,),) = self._read(query, self._address.schema)
        return bool(found)

    def _read(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """The rows of one statement. A connection that broke while nobody used it is replaced by a new one."""
        composed = self._sql(query)
        with self._readers, self._translated():
            with self._guard:
                connection = self._idle.pop() if self._idle else None
            if connection is not None:
                try:
                    return connection.execute(composed, parameters, binary=True).fetchall()
                except psycopg.OperationalError:
                    if not connection.broken:
                        raise
                finally:
                    self._put_back(connection)
            connection = self._connect()
            try:
                return connection.execute(composed, parameters, binary=True).fetchall()
            finally:
                self._put_back(connection)

    def _put_back(self, connection: _Connection) -> None:
        with self._guard:
            keep = not self._closed and not connection.closed
            if keep:
                self._idle.append(connection)
        if not keep:
            connection.close()

    def _connect(self) -> _Connection:
        """A session in which commits wait for the disk. Raises StorageError, in words without the password."""
        if self._closed:
            raise UsageError(f"{self._address} is closed")
        conninfo = self._address.conninfo
        try:
            given = conninfo_to_dict(conninfo)
            more = {name: value for name, value in _DEFAULTS.items() if name not in given}
            connection = psycopg.connect(make_conninfo(conninfo, **more), autocommit=True)
        except (psycopg.Error, UnicodeError) as error:  # UnicodeError: a host name that no name server could know
            raise StorageError(f"cannot connect to {self._address}: {self._told(error)}") from None
        try:
            connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            fsync, durability = _row(
                connection.execute("SELECT current_setting('fsync'), current_setting('synchronous_commit')")
            )
            settings = {**_SESSION, "default_transaction_read_only": "on" if self._read_only else "off"}
            if durability in _DURABLE:
                del settings["synchronous_commit"]
            connection.execute(
                "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS t (name, value)",
                (list(settings), list(settings.values())),
            )
            if fsync != "on" and not self._read_only:
                raise StorageError(f"{self._address}: the server runs with fsync = {fsync}, a crash would lose entries")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise StorageError(f"{self._address}: {self._told(error)}") from None

    def _told(self, error: Exception) -> str:
        """What the driver or the server says, in one line."""
        said = error.diag.message_primary if isinstance(error, psycopg.Error) else None
        return self._address.hide(" ".join((said or str(error)).split()))


def _row(cursor: psycopg.Cursor[tuple[Any, ...]]) -> tuple[Any, ...]:
    row = cursor.fetchone()
    if row is None:
        raise StorageError("the database answered a question with nothing")
    return row


def _only(rows: list[tuple[Any, ...]], what: str) -> bytes:
    return _all(rows, 1, what)[0]


def _all(rows: list[tuple[Any, ...]], expected: int, what: str) -> list[bytes]:
    if len(rows) != expected:
        raise CorruptLog(f"{what}: {len(rows)} of {expected} are stored")
    return [row[0] for row in rows]
