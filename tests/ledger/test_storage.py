"""SQLite storage: one writer, all or nothing, and no signature on top of a damaged tree."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger import CorruptLog, Log, LogLocked, Signer, StorageError, UsageError, VerificationFailed, follow
from ledger.merkle import Frontier, leaf_hash
from ledger.storage.base import Batch
from ledger.storage.sqlite import SqliteStorage
from tests.support.faulty import FaultyStorage

ENTRIES = [f"entry {i}".encode() for i in range(11)]


def _sql(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


@pytest.fixture
def filled(log_path: Path, signer: Signer) -> Path:
    with Log.create(log_path, signer) as log:
        log.append_many(ENTRIES)
    return log_path


@pytest.fixture
def filled_batch() -> Batch:
    frontier, nodes = Frontier().extend(leaf_hash(e) for e in ENTRIES)
    assert frontier.size == 11
    return Batch(b"first", b"second", 0, ENTRIES, nodes)


class TestOneWriter:
    def test_a_second_writer_is_refused_with_the_path(self, log: Log, log_path: Path, signer: Signer) -> None:
        with pytest.raises(LogLocked, match=r"log\.db") as caught:
            Log.open(log_path, signer)
        assert caught.value.path == str(log_path)
        with pytest.raises(LogLocked):
            Log.create(log_path, signer)
        assert log.append(b"the first one goes on").index == 0

    def test_the_next_writer_may_open_once_the_first_has_closed(self, log: Log, log_path: Path, signer: Signer) -> None:
        log.append(b"x")
        log.close()
        log.close()
        with Log.open(log_path, signer) as second:
            assert second.size == 1
        with pytest.raises(UsageError):
            log.append(b"y")
        with pytest.raises(UsageError):
            log.entry(0)

    def test_a_failed_opening_releases_the_lock(self, filled: Path, signer: Signer) -> None:
        stranger = Signer(signer.name, bytes(32))
        for _ in range(2):
            with pytest.raises(VerificationFailed):
                Log.open(filled, stranger)
        Log.open(filled, signer).close()

    def test_a_change_behind_the_writers_back_stops_it(self, log: Log, log_path: Path) -> None:
        """As when the lock file was deleted: the transaction itself refuses a second head."""
        log.append(b"x")
        before = log.head()
        _sql(log_path, "UPDATE head SET checkpoint = x'00'")
        with pytest.raises(StorageError, match="changed by another program"):
            log.append(b"y")
        with pytest.raises(CorruptLog):
            log.append(b"y")
        assert log.head() == before

    def test_growth_by_another_program_is_not_taken_for_an_append_of_its_own_that_failed(
        self, log_path: Path, signer: Signer
    ) -> None:
        """As when the lock file was deleted: what is stored is a good log, and not what this writer left."""
        Log.create(log_path, signer).close()
        faulty = FaultyStorage(SqliteStorage.open(log_path))
        with Log.on(faulty, signer.verifier, signer) as log:
            log.append(b"x")
            faulty.fail = "not persisted"
            with pytest.raises(StorageError):
                log.append(b"y")
            Path(f"{log_path}.lock").unlink()
            with Log.open(log_path, signer) as other:
                other.append(b"z")
            with pytest.raises(CorruptLog, match="neither"):
                log.append(b"y")
            assert len(faulty.signed) == 2


class TestAllOrNothing:
    @pytest.mark.parametrize("bad", ["index taken", "node taken", "not bytes"])
    def test_a_batch_that_fails_half_way_leaves_nothing(self, log_path: Path, filled_batch: Batch, bad: str) -> None:
        storage = SqliteStorage.create(log_path, b"first")
        storage.commit(filled_batch)
        extent = storage.extent()
        frontier, _ = Frontier().extend(leaf_hash(e) for e in ENTRIES)
        _, nodes = frontier.extend([leaf_hash(b"x"), leaf_hash(b"y")])
        good = Batch(b"second", b"third", 11, [b"x", b"y"], nodes)
        batch = {
            "index taken": Batch(b"second", b"third", 10, [b"x", b"y"], nodes),
            "node taken": Batch(b"second", b"third", 11, [b"x", b"y"], [*nodes, filled_batch.nodes[0]]),
            "not bytes": Batch(b"second", b"third", 11, [b"x", None], nodes),  # type: ignore[list-item]
        }[bad]
        with pytest.raises(StorageError):
            storage.commit(batch)
        assert (storage.checkpoint(), storage.extent()) == (b"second", extent)
        storage.commit(good)
        assert storage.checkpoint() == b"third"
        storage.close()

    def test_a_full_disk_is_reported_and_the_log_goes_on_when_there_is_room(
        self, log_path: Path, signer: Signer
    ) -> None:
        with Log.create(log_path, signer) as log:
            log.append_many(ENTRIES)
            before = log.head()
            connection = log._storage._writer  # type: ignore[attr-defined]
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages + 2}")
            with pytest.raises(StorageError, match="full"):
                log.append_many([bytes(60_000)] * 3)
            assert log.head() == before
            connection.execute("PRAGMA max_page_count = 1000000")
            assert log.append(b"after").index == 11
            follow(before, log.checkpoint(), log.consistency_proof(11), signer.verifier, signer.name)

    def test_commits_wait_for_the_disk(self, log: Log) -> None:
        connection = log._storage._writer  # type: ignore[attr-defined]
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,), "FULL: fsync before a commit returns"
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)

    def test_an_interrupted_creation_can_be_repeated(self, log_path: Path, signer: Signer) -> None:
        log_path.touch()
        with pytest.raises(UsageError, match="not a log"):
            Log.open(log_path, signer)
        with Log.create(log_path, signer) as log:
            assert log.append(b"x").index == 0


class TestWhatIsNotALog:
    def test_a_log_is_not_created_over_another_file(self, filled: Path, signer: Signer) -> None:
        before = filled.read_bytes()
        with pytest.raises(UsageError, match="exists already"):
            Log.create(filled, signer)
        assert filled.read_bytes() == before
        with Log.open(filled, signer) as log:
            assert log.size == 11

    def test_a_missing_log_is_not_created_by_opening_it(self, log_path: Path, signer: Signer) -> None:
        for call in (lambda: Log.open(log_path, signer), lambda: Log.open_readonly(log_path, signer.verifier)):
            with pytest.raises(UsageError, match="no log"):
                call()
        assert not log_path.exists()
        with pytest.raises(StorageError):
            Log.create(log_path.parent / "missing" / "log.db", signer)

    def test_foreign_files_are_refused_and_left_as_they_are(self, tmp_path: Path, signer: Signer) -> None:
        text, database = tmp_path / "text", tmp_path / "database"
        text.write_bytes(b"not a database, but long enough to look at it " * 50)
        _sql(database, "CREATE TABLE mine (x)")
        for path in (text, database):
            before = path.read_bytes()
            opens: list[Callable[[Path], object]] = [
                lambda p: Log.open(p, signer),
                lambda p: Log.open_readonly(p, signer.verifier),
                lambda p: Log.create(p, signer),
            ]
            for open_ in opens:
                with pytest.raises((UsageError, StorageError)):
                    open_(path)
            assert path.read_bytes() == before

    @pytest.mark.parametrize("version", [0, 3])
    def test_another_version_of_the_format_is_refused(self, filled: Path, signer: Signer, version: int) -> None:
        _sql(filled, f"PRAGMA user_version = {version}")
        with pytest.raises(UsageError, match=f"version {version}"):
            Log.open(filled, signer)
        with pytest.raises(UsageError, match=f"version {version}"):
            Log.open_readonly(filled, signer.verifier)


class TestVersionOne:
    """Files of 0.2.0 had no publications."""

    @pytest.fixture
    def old(self, filled: Path) -> Path:
        _sql(filled, "DROP TABLE publications", "PRAGMA user_version = 1")
        return filled

    def test_a_reader_takes_the_file_as_it_is(self, old: Path, signer: Signer) -> None:
        before = old.read_bytes()
        with Log.open_readonly(old, signer.verifier) as reader:
            assert list(reader.entries()) == ENTRIES
            assert reader.published() == reader.head()
            assert reader.publications() == []
        assert old.read_bytes() == before

    def test_a_writer_brings_it_up_to_date_and_an_open_reader_notices(self, old: Path, signer: Signer) -> None:
        with Log.open_readonly(old, signer.verifier) as reader, Log.open(old, signer) as log:
            assert list(log.entries()) == ENTRIES
            log.append(b"after")
            log.publish(log.checkpoint())
            assert reader.published() == log.head()
            assert reader.publications() == [log.head()]
        with Log.open(old, signer) as again:
            assert again.published().size == 12

    def test_a_foreign_version_one_file_is_left_as_it_is(self, old: Path, signer: Signer) -> None:
        _sql(old, "PRAGMA application_id = 7")
        before = old.read_bytes()
        with pytest.raises(UsageError, match="not a log"):
            Log.open(old, signer)
        assert old.read_bytes() == before


TAMPERINGS = {
    "an entry's byte": ["UPDATE entries SET data = 'entry X' WHERE id = 4"],
    "an entry's type": ["UPDATE entries SET data = CAST(data AS TEXT) WHERE id = 4"],
    "an entry and its leaf": [
        "UPDATE entries SET data = x'00' WHERE id = 4",
        f"UPDATE nodes SET hash = x'{leaf_hash(bytes(1)).hex()}' WHERE id = 7",
    ],
    "two entries swapped": [
        "UPDATE entries SET id = 100 WHERE id = 3",
        "UPDATE entries SET id = 3 WHERE id = 4",
        "UPDATE entries SET id = 4 WHERE id = 100",
    ],
    "the last entry gone": ["DELETE FROM entries WHERE id = 10"],
    "a middle entry gone": ["DELETE FROM entries WHERE id = 4"],
    "an entry too many": ["INSERT INTO entries VALUES (11, x'00')"],
    "an inner node": ["UPDATE nodes SET hash = zeroblob(32) WHERE id = 6"],
    "a leaf's node": ["UPDATE nodes SET hash = zeroblob(32) WHERE id = 0"],
    "a short node": ["UPDATE nodes SET hash = x'00' WHERE id = 0"],
    "a node gone": ["DELETE FROM nodes WHERE id = 6"],
    "a node too many": ["INSERT INTO nodes SELECT MAX(id) + 1, zeroblob(32) FROM nodes"],
    "everything gone": ["DELETE FROM nodes", "DELETE FROM entries"],
    "no checkpoint": ["DELETE FROM head"],
}


@pytest.mark.parametrize("statements", TAMPERINGS.values(), ids=TAMPERINGS.keys())
def test_a_tree_that_does_not_match_its_checkpoint_is_not_opened_for_signing(
    filled: Path, signer: Signer, statements: list[str]
) -> None:
    _sql(filled, *statements)
    with pytest.raises(CorruptLog):
        Log.open(filled, signer)


def test_the_checkpoint_of_an_earlier_size_or_another_tree_is_not_signed_over(
    filled: Path, signer: Signer, head_note: Callable[..., bytes]
) -> None:
    for entries in (ENTRIES[:10], [*ENTRIES, b"x"], [b"x", *ENTRIES[1:]], []):
        _sql(filled, f"UPDATE head SET checkpoint = x'{head_note(entries).hex()}'")
        with pytest.raises(CorruptLog):
            Log.open(filled, signer)
    _sql(filled, f"UPDATE head SET checkpoint = x'{head_note(ENTRIES).hex()}'")
    Log.open(filled, signer).close()


def test_a_checkpoint_by_another_key_is_not_signed_over(
    filled: Path, signer: Signer, head_note: Callable[..., bytes]
) -> None:
    forged = head_note(ENTRIES, Signer(signer.name, bytes(32)))
    _sql(filled, f"UPDATE head SET checkpoint = x'{forged.hex()}'")
    with pytest.raises(VerificationFailed):
        Log.open(filled, signer)
    with pytest.raises(VerificationFailed):
        Log.open_readonly(filled, signer.verifier)


def test_a_reader_never_hands_out_a_proof_or_an_entry_that_does_not_hold(filled: Path, signer: Signer) -> None:
    with Log.open_readonly(filled, signer.verifier) as reader:
        _sql(
            filled,
            "UPDATE nodes SET hash = zeroblob(32) WHERE id = 2",
            "UPDATE entries SET data = x'00' WHERE id = 9",
        )
        with pytest.raises(CorruptLog):
            reader.tlog_proof(3)
        with pytest.raises(CorruptLog):
            reader.entry(9)
        assert reader.entry(5) == ENTRIES[5]
    _sql(filled, "UPDATE nodes SET hash = zeroblob(32) WHERE id = 14")
    with pytest.raises(CorruptLog):
        Log.open_readonly(filled, signer.verifier)


def test_a_copied_file_is_the_same_log(filled: Path, tmp_path: Path, signer: Signer) -> None:
    copy = tmp_path / "backup with spaces?#%41.db"
    shutil.copy(filled, copy)
    with Log.open(copy, signer) as log:
        assert list(log.entries()) == ENTRIES
        log.append(b"x")
    with Log.open_readonly(copy, signer.verifier) as reader:
        assert reader.size == 12
