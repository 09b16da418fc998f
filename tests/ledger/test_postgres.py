"""PostgreSQL: one history whoever writes, a lock that dies with its holder, and a password that nobody reads."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from ledger import CorruptLog, Log, LogLocked, Signer, StorageError, UsageError, leaf_hash
from ledger.merkle import Frontier
from ledger.storage.base import Batch, Publication
from ledger.storage.postgres_address import PostgresAddress
from tests.support.postgres import PASSWORD, TestServer
from tests.support.witnessed import Witnessed

postgres_storage = pytest.importorskip(
    "ledger.storage.postgres", reason="no driver: pip install 'sealproof[postgres]'", exc_type=ImportError
)
PostgresStorage = postgres_storage.PostgresStorage

ROOT = Path(__file__).resolve().parents[2]
WRITER = """
import sys
from ledger import Log, Signer
from ledger.storage.postgres import PostgresStorage
from ledger.storage.postgres_address import PostgresAddress

address, origin, name, rounds = sys.argv[1:]
signer = Signer(origin, bytes(range(32)))
with Log.on(PostgresStorage.open(PostgresAddress.parse(address)), signer.verifier, signer) as log:
    print("open", flush=True)
    sys.stdin.readline()
    for number in range(int(rounds)):
        if number % 3 == 0:
            ats = [log.append(f"{name} {number}".encode())]
        else:
            with log.exclusive():
                size = log.size
                ats = [log.append(f"{name} {number} first of {size}".encode())]
                assert ats[0].index == size, "somebody appended inside exclusive"
                ats.append(log.append(f"{name} {number} second of {size}".encode()))
                assert ats[1].index == size + 1, "somebody appended inside exclusive"
        if number % 5 == 0:
            with log.exclusive():
                print("published", log.publish(log.checkpoint()).note.hex())
        for at in ats:
            print("entry", at.index, at.leaf_hash.hex())
        print("head", log.checkpoint().hex(), flush=True)
"""
HOLDER = """
import sys, time
from ledger import Log, Signer
from ledger.storage.postgres import PostgresStorage
from ledger.storage.postgres_address import PostgresAddress

signer = Signer(sys.argv[2], bytes(range(32)))
log = Log.on(PostgresStorage.open(PostgresAddress.parse(sys.argv[1])), signer.verifier, signer)
with log.exclusive():
    log.append(b"held")
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def address(postgres: TestServer) -> PostgresAddress:
    return postgres.address()


@pytest.fixture
def log(address: PostgresAddress, signer: Signer, head_note: Callable[..., bytes]) -> Iterator[Log]:
    with Log.on(PostgresStorage.create(address, head_note([])), signer.verifier, signer) as log:
        yield log


def _open(address: PostgresAddress, signer: Signer) -> Log:
    return Log.on(PostgresStorage.open(address), signer.verifier, signer)


def _url(address: PostgresAddress) -> str:
    return f"{address.conninfo}&schema={address.schema}"


@contextmanager
def _process(code: str, address: PostgresAddress, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", code, _url(address), *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(postgres_storage._SESSION, "lock_timeout", "200ms")


class TestManyWriters:
    def test_four_processes_append_to_one_history(self, log: Log, address: PostgresAddress, signer: Signer) -> None:
        rounds, names = 30, ["a", "b", "c", "d"]
        witnessed = Witnessed(signer)
        with contextlib.ExitStack() as stack:
            processes = [stack.enter_context(_process(WRITER, address, log.origin, n, str(rounds))) for n in names]
            assert [_line(process) for process in processes] == ["open\n"] * 4
            for process in processes:
                _go(process)
            outputs = [process.communicate(timeout=120)[0] for process in processes]
            assert [process.returncode for process in processes] == [0] * 4
        for kind, *words in (line.split() for output in outputs for line in output.splitlines()):
            if kind == "entry":
                witnessed.acknowledge(int(words[0]), bytes.fromhex(words[1]))
            elif kind == "head":
                witnessed.see_note(bytes.fromhex(words[0]))
            elif kind == "published":
                witnessed.see_published(bytes.fromhex(words[0]))
        expected = 4 * (rounds + sum(1 for number in range(rounds) if number % 3))
        assert log.size == expected
        assert sorted(witnessed.entries) == list(range(expected)), "no gaps, and every one acknowledged once"
        witnessed.check(log)
        with _open(address, signer) as again:  # checks every entry and node
            witnessed.check(again)
            writers = [entry.split()[0] for entry in again.entries()]
            assert set(writers) == {b"a", b"b", b"c", b"d"}
            assert sum(1 for one, next_ in pairwise(writers) if one != next_) > 8, "they took turns"

    def test_another_one_goes_on_when_the_holder_of_the_lock_is_killed(
        self, log: Log, address: PostgresAddress, signer: Signer
    ) -> None:
        with _process(HOLDER, address, log.origin) as holder:
            assert _line(holder) == "held\n"
            appended: list[int] = []
            waiting = threading.Thread(target=lambda: appended.append(log.append(b"after").index))
            waiting.start()
            waiting.join(0.5)
            assert waiting.is_alive(), "the lock was not held"
            assert log.size == 1, "readers do not wait"
            holder.send_signal(signal.SIGKILL)
            killed = time.monotonic()
            waiting.join(20)
            assert appended == [1], "what the holder had appended is there"
            assert time.monotonic() - killed < 10
        with _open(address, signer) as again:
            assert list(again.entries()) == [b"held", b"after"]

    @pytest.mark.usefixtures("short_patience")
    def test_a_writer_that_waits_too_long_says_so_and_can_wait_again(
        self, address: PostgresAddress, signer: Signer, head_note: Callable[..., bytes]
    ) -> None:
        with Log.on(PostgresStorage.create(address, head_note([])), signer.verifier, signer) as log:
            with _process(HOLDER, address, log.origin) as holder:
                assert _line(holder) == "held\n"
                with pytest.raises(LogLocked):
                    log.append(b"too early")
                holder.send_signal(signal.SIGSTOP)  # a process that hangs keeps the lock, whatever it does
                with pytest.raises(LogLocked):
                    log.append(b"too early")
                holder.send_signal(signal.SIGKILL)
                holder.wait()
            for attempt in range(50):
                with contextlib.suppress(LogLocked):
                    log.append(b"in time")
                    break
                assert attempt < 49
            assert list(log.entries()) == [b"held", b"in time"]

    def test_threads_of_two_writers_in_one_process(self, log: Log, address: PostgresAddress, signer: Signer) -> None:
        with _open(address, signer) as other:
            inside, failures = threading.Lock(), list[BaseException]()

            def work(log: Log, name: bytes) -> None:
                try:
                    for i in range(8):
                        with log.exclusive(), log.exclusive():
                            assert inside.acquire(blocking=False), "two threads are inside"
                            size = log.size
                            assert log.append(b"%s %d" % (name, i)).index == size
                            inside.release()
                except BaseException as error:
                    failures.append(error)

            threads = [threading.Thread(target=work, args=(log, b"a")) for _ in range(3)]
            threads += [threading.Thread(target=work, args=(other, b"b")) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert failures == []
            assert (log.size, other.size) == (48, 48)
            assert log.head() == other.head()

    def test_of_several_creators_one_wins(self, address: PostgresAddress, head_note: Callable[..., bytes]) -> None:
        outcomes: list[str] = []

        def create() -> None:
            try:
                PostgresStorage.create(address, head_note([])).close()
                outcomes.append("created")
            except UsageError as error:
                assert "exists already" in str(error)
                outcomes.append("refused")

        threads = [threading.Thread(target=create) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["created", "refused", "refused", "refused"]


class TestLostConnections:
    def test_a_connection_that_dies_inside_exclusive_makes_commits_fail(
        self, log: Log, address: PostgresAddress, signer: Signer, postgres: TestServer
    ) -> None:
        """Another process may have gone on by then, so that nothing may be committed on a new connection."""
        with _open(address, signer) as other:
            with log.exclusive():
                assert log.append(b"one").index == 0
                postgres.execute("SELECT pg_terminate_backend(%s)", log._storage._backend)  # type: ignore[attr-defined]
                assert other.append(b"of another").index == 1, "the lock went with the connection"
                for _ in range(3):
                    with pytest.raises(StorageError):
                        log.append(b"two")
                with pytest.raises(StorageError):
                    log.publish(log.checkpoint())
                with log.exclusive(), pytest.raises(StorageError):
                    log.append(b"three")
            assert log.append(b"four").index == 2
            assert list(other.entries()) == [b"one", b"of another", b"four"]
            assert log.published().size == 3

    def test_an_idle_connection_that_died_is_replaced(
        self, log: Log, address: PostgresAddress, signer: Signer, postgres: TestServer
    ) -> None:
        log.append(b"one")
        log.publish(log.checkpoint())
        with Log.on(PostgresStorage.open_readonly(address), signer.verifier) as reader:
            assert reader.size == 1
            for size in (1, 2):
                postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
                assert reader.size == size
                assert reader.published().size == size
                assert log.append(b"more").index == size
                log.publish(log.checkpoint())

    def test_a_server_that_crashes_keeps_what_it_acknowledged(
        self, log: Log, address: PostgresAddress, signer: Signer, postgres: TestServer
    ) -> None:
        witnessed, ending = Witnessed(signer), threading.Event()

        def work(name: bytes) -> None:
            with contextlib.suppress(StorageError), _open(address, signer) as own:
                for number in range(10**6):
                    if ending.is_set():
                        return
                    at = own.append(b"%s %d" % (name, number))
                    witnessed.acknowledge(at.index, at.leaf_hash)
                    witnessed.see(own.head())

        for crash in range(2):
            threads = [threading.Thread(target=work, args=(b"%d %d" % (crash, n),)) for n in range(2)]
            for thread in threads:
                thread.start()
            time.sleep(0.3)
            postgres.crash()
            ending.set()
            for thread in threads:
                thread.join()
            ending.clear()
            with _open(address, signer) as again:
                witnessed.check(again)
            log.append(b"after crash %d" % crash)
            witnessed.see(log.head())
        assert len(witnessed.entries) > 10

    def test_a_server_that_is_gone_is_an_error_of_the_environment(
        self, log: Log, address: PostgresAddress, tmp_path: Path
    ) -> None:
        nowhere = PostgresAddress.parse(f"postgresql://someone:{PASSWORD}@/postgres?host={tmp_path}")
        with pytest.raises(StorageError, match="cannot connect to postgresql://someone:"):
            PostgresStorage.open(nowhere)
        with pytest.raises(StorageError):
            PostgresStorage.exists(nowhere)


class TestDurability:
    def test_commits_wait_for_the_disk_whatever_the_database_says(
        self, log: Log, address: PostgresAddress, signer: Signer, postgres: TestServer
    ) -> None:
        postgres.execute("ALTER ROLE postgres SET synchronous_commit = off")
        try:
            with _open(address, signer) as careful:
                careful.append(b"x")
                connection = careful._storage._writer  # type: ignore[attr-defined]
                assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
                connection.execute("SET synchronous_commit = off")
                with pytest.raises(StorageError, match="synchronous_commit was set to off"):
                    careful.append(b"y")
                assert careful.size == 1
        finally:
            postgres.execute("ALTER ROLE postgres RESET synchronous_commit")

    def test_a_server_without_fsync_is_refused(
        self, log: Log, address: PostgresAddress, signer: Signer, postgres: TestServer
    ) -> None:
        log.append(b"x")
        postgres.execute("ALTER SYSTEM SET fsync = off")
        try:
            postgres.execute("SELECT pg_reload_conf()")
            for attempt in range(100):
                time.sleep(0.05)
                if postgres.execute("SHOW fsync") == [("off",)]:
                    break
                assert attempt < 99
            with pytest.raises(StorageError, match="fsync = off"):
                PostgresStorage.open(address)
            with Log.on(PostgresStorage.open_readonly(address), signer.verifier) as reader:
                assert reader.size == 1
        finally:
            postgres.execute("ALTER SYSTEM RESET fsync")
            postgres.execute("SELECT pg_reload_conf()")
        for attempt in range(100):
            time.sleep(0.05)
            if postgres.execute("SHOW fsync") == [("on",)]:
                break
            assert attempt < 99

    def test_a_pooler_that_swaps_sessions_is_noticed(self, log: Log) -> None:
        with log.exclusive():
            log._storage._backend += 1  # type: ignore[attr-defined]  # as if the lock were another session's
            with pytest.raises(StorageError, match="pooler"):
                log.append(b"x")
        assert log.append(b"y").index == 0

    def test_a_second_head_is_refused_even_without_the_lock(
        self, log: Log, address: PostgresAddress, signer: Signer, postgres: TestServer
    ) -> None:
        """The transaction itself compares what it continues."""
        storage = PostgresStorage.open(address)
        note = storage.checkpoint()
        log.append(b"x")
        frontier, nodes = Frontier().extend([leaf_hash(b"y")])
        assert frontier.size == 1
        with pytest.raises(StorageError, match="changed by another program"):
            storage.commit(Batch(note, b"second head", 0, [b"y"], nodes))
        assert storage.checkpoint() == log.checkpoint()
        assert list(log.entries()) == [b"x"]
        storage.close()


class TestRights:
    def test_reading_needs_the_right_to_read_only(
        self, log: Log, address: PostgresAddress, signer: Signer, postgres: TestServer
    ) -> None:
        log.append(b"x")
        log.publish(log.checkpoint())
        walled = postgres.address_with_password(address.schema)
        with pytest.raises(StorageError, match="permission denied"):
            PostgresStorage.open_readonly(walled)
        postgres.execute(f"GRANT USAGE ON SCHEMA {address.schema} TO walled")
        postgres.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {address.schema} TO walled")
        storage = PostgresStorage.open_readonly(walled)
        with Log.on(storage, signer.verifier) as reader:
            assert reader.published().size == 1
            for call in (
                lambda: storage.commit(Batch(b"", b"", 1, [], [])),
                lambda: storage.publish(Publication(1, b"")),
                lambda: storage.exclusive().__enter__(),
            ):
                with pytest.raises(UsageError, match="reading only"):
                    call()
            with pytest.raises(StorageError, match="read-only transaction"):
                storage._read("DELETE FROM {schema}.entries")

    def test_a_role_of_its_own_creates_its_own_schema(
        self, postgres: TestServer, signer: Signer, head_note: Callable[..., bytes]
    ) -> None:
        walled = postgres.address_with_password("of_walled")
        with Log.on(PostgresStorage.create(walled, head_note([])), signer.verifier, signer) as log:
            assert log.append(b"x").index == 0

    def test_nothing_is_created_over_other_tables(
        self, postgres: TestServer, address: PostgresAddress, head_note: Callable[..., bytes]
    ) -> None:
        assert not PostgresStorage.exists(address)
        with pytest.raises(UsageError, match="no log"):
            PostgresStorage.open(address)
        postgres.execute(f"CREATE SCHEMA {address.schema}")
        assert not PostgresStorage.exists(address)
        postgres.execute(f"CREATE TABLE {address.schema}.mine (x integer)")
        for _ in range(2):
            with pytest.raises(UsageError, match="exists already and is not empty"):
                PostgresStorage.create(address, head_note([]))
        postgres.execute(f"DROP TABLE {address.schema}.mine")
        PostgresStorage.create(address, head_note([])).close()
        assert PostgresStorage.exists(address)

    @pytest.mark.parametrize(
        ("change", "says"),
        [("version = 2", "version 2"), ("name = 'another program'", "not a log")],
        ids=["version", "name"],
    )
    def test_another_format_is_refused(
        self, log: Log, address: PostgresAddress, postgres: TestServer, change: str, says: str
    ) -> None:
        postgres.execute(f"UPDATE {address.schema}.format SET {change}")
        for call in (PostgresStorage.open, PostgresStorage.open_readonly):
            with pytest.raises(UsageError, match=says):
                call(address)

    def test_two_schemas_are_two_logs(
        self, log: Log, postgres: TestServer, signer: Signer, head_note: Callable[..., bytes]
    ) -> None:
        other = postgres.address()
        with Log.on(PostgresStorage.create(other, head_note([])), signer.verifier, signer) as second:
            with log.exclusive():
                assert second.append(b"not locked").index == 0
            assert log.size == 0


DAMAGES = {
    "an entry's byte": "UPDATE {0}.entries SET data = 'entry X' WHERE id = 4",
    "two entries swapped": "UPDATE {0}.entries SET data = (SELECT data FROM {0}.entries WHERE id = 5) WHERE id = 4",
    "the last entry gone": "DELETE FROM {0}.entries WHERE id = 10",
    "a middle entry gone": "DELETE FROM {0}.entries WHERE id = 4",
    "an inner node": "UPDATE {0}.nodes SET hash = sha256('') WHERE id = 6",
    "a leaf's node": "UPDATE {0}.nodes SET hash = sha256('') WHERE id = 0",
    "a node gone": "DELETE FROM {0}.nodes WHERE id = 6",
    "no head": "DELETE FROM {0}.head",
    "a publication of another size": "UPDATE {0}.publications SET size = 10",
}


@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_nothing_is_signed_on_top_of_damage(
    log: Log, address: PostgresAddress, signer: Signer, postgres: TestServer, damage: str
) -> None:
    log.append_many([b"entry %d" % i for i in range(11)])
    log.publish(log.checkpoint())
    log.close()
    postgres.execute(DAMAGES[damage].format(address.schema))
    with pytest.raises(CorruptLog):
        _open(address, signer)


class TestPassword:
    def test_it_is_in_no_message_and_no_log(
        self, postgres: TestServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        secret = "hunter2"
        addresses = [
            postgres.address_with_password("missing", f"{secret}%2F%40"),
            PostgresAddress.parse(f"postgresql://u:{secret}@127.0.0.1:1/db"),
            PostgresAddress.parse(f"postgresql://u:{secret}@/db?host={tmp_path}"),
            PostgresAddress.parse(f"postgresql://u:{secret}@127.0.0.1:99999/db"),
            PostgresAddress.parse(f"postgresql://u:{secret}@127.0.0.1/db?no_such_option=1"),
            PostgresAddress.parse(f"postgresql://u:{secret}@{'a' * 70}/db"),
            PostgresAddress.parse(f"postgresql://u:{secret}@{secret}.invalid/db?connect_timeout=2"),
        ]
        calls = [PostgresStorage.open, PostgresStorage.exists, lambda a: PostgresStorage.create(a, b"x")]
        for address in addresses:
            for call in calls:
                with pytest.raises(StorageError) as caught:
                    call(address)
                told = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
                assert secret not in told.replace(f"{secret}.invalid", "")
            assert secret not in f"{address} {address!r}".replace(f"{secret}.invalid", "")
        assert secret not in caplog.text
        assert "***" in str(addresses[0])

    def test_it_is_in_no_error_of_an_open_log(self, postgres: TestServer, signer: Signer) -> None:
        address = postgres.address_with_password(f"walled_{os.getpid()}")
        storage = PostgresStorage.create(address, b"first")
        assert "w0rd" not in repr(storage)
        for provoke in (
            lambda: storage.commit(Batch(b"wrong", b"", 0, [b"x"], [])),
            lambda: storage.commit(Batch(b"first", b"second", 0, [None], [])),  # type: ignore[list-item]
            lambda: storage.entries(0, 5),
            lambda: storage.nodes([(0, 7)]),
            lambda: storage._read("SELECT nonsense FROM {schema}.entries"),
        ):
            with pytest.raises(StorageError) as caught:
                provoke()
            assert "w0rd" not in "".join(traceback.format_exception(caught.value))
        assert storage.checkpoint() == b"first"
        # Not known to happen with an address that was understood; but the words are libpq's and the server's.
        told = storage._told(postgres_storage.psycopg.OperationalError("no such host:\n pa/ss@w0rd-of-the-test@x"))
        assert told == "no such host: ***@x"
        storage.close()
