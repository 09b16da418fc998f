"""Several writers of one log, as several servers on one database: one tree, and no foreign change is signed over."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger import CorruptLog, Log, NotInLog, Signer, StorageError, TlogProof, UsageError, VerificationFailed, follow
from tests.support.faulty import FAULTS, Fault, FaultyStorage
from tests.support.memory_storage import MemoryPlace
from tests.support.storages import BACKENDS, Backend, MemoryBackend

ENTRIES = [f"entry {i}".encode() for i in range(40)]


@pytest.fixture(params=["memory", "postgres"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    backend = BACKENDS[request.param](request, tmp_path)
    assert backend.shared
    return backend


@pytest.fixture
def one(backend: Backend, first_note: bytes, signer: Signer) -> Iterator[Log]:
    with Log.on(backend.create(first_note), signer.verifier, signer) as log:
        yield log


@pytest.fixture
def two(one: Log, backend: Backend, signer: Signer) -> Iterator[Log]:
    with Log.on(backend.open(), signer.verifier, signer) as log:
        yield log


def test_writers_that_take_turns_make_one_tree(
    one: Log, two: Log, backend: Backend, signer: Signer, naive: Any
) -> None:
    with Log.on(backend.open_readonly(), signer.verifier) as reader:
        head = reader.head()
        for i, entry in enumerate(ENTRIES):
            assert (one, two)[i % 3 % 2].append(entry).index == i
            assert one.head() == two.head() == reader.head()
            proof = one.consistency_proof(head.size)
            head = follow(head, two.checkpoint(), proof, signer.verifier, signer.name)
            for log in (one, two, reader):
                TlogProof.parse(log.tlog_proof(i)).verify(entry, signer.verifier, signer.name)
        assert list(one.entries()) == list(two.entries()) == ENTRIES
        assert head.root == naive.root(ENTRIES)


def test_threads_of_two_writers_get_a_place_each(one: Log, two: Log, naive: Any) -> None:
    appended: list[tuple[int, bytes]] = []
    failures: list[BaseException] = []

    def write(log: Log, number: int) -> None:
        try:
            for i in range(15):
                entry = b"thread %d entry %d" % (number, i)
                appended.append((log.append(entry).index, entry))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=((one, two)[n % 2], n), daemon=True) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert sorted(index for index, _ in appended) == list(range(120))
    stored = list(one.entries())
    assert all(stored[index] == entry for index, entry in appended)
    assert two.head().root == naive.root(stored)


def test_inside_exclusive_no_other_writer_appends(one: Log, two: Log) -> None:
    failures: list[BaseException] = []

    def count(log: Log) -> None:
        try:
            for _ in range(12):
                with log.exclusive():
                    size = log.size
                    assert log.append(b"%d" % size).index == size
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=count, args=(log,), daemon=True) for log in (one, two, one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert list(one.entries()) == [b"%d" % i for i in range(48)]


def test_what_one_publishes_binds_the_other(one: Log, two: Log) -> None:
    one.append_many(ENTRIES[:3])
    three = one.checkpoint()
    two.append_many(ENTRIES[3:5])
    five = one.publish(one.checkpoint())
    assert two.published() == five
    with pytest.raises(UsageError, match="back"):
        two.publish(three)
    two.append(ENTRIES[5])
    two.publish(two.checkpoint())
    assert [head.size for head in one.publications()] == [5, 6]


@pytest.mark.parametrize("fail", FAULTS)
def test_a_failed_append_is_settled_on_whatever_the_other_made_of_it(
    one: Log, backend: Backend, signer: Signer, fail: Fault, naive: Any
) -> None:
    faulty = FaultyStorage(backend.open())
    with Log.on(faulty, signer.verifier, signer) as two:
        two.append_many(ENTRIES[:3])
        seen = two.head()
        faulty.fail = fail
        with pytest.raises(StorageError):
            two.append(ENTRIES[3])
        doubtful, stored = faulty.signed[-1], fail == "persisted"
        assert one.append(b"of the other").index == 3 + stored
        if not stored:
            with pytest.raises(VerificationFailed):
                two.publish(doubtful)
        assert two.append(b"after").index == 4 + stored
        expected = [*ENTRIES[: 3 + stored], b"of the other", b"after"]
        assert list(two.entries()) == expected
        assert two.head().root == naive.root(expected)
        follow(seen, two.checkpoint(), one.consistency_proof(3), signer.verifier, signer.name)


class TestAChangeThatIsNoGrowth:
    """Made in memory, where a test can do to the stored log what a database's administrator can."""

    @pytest.fixture
    def place(self) -> MemoryPlace:
        return MemoryPlace()

    @pytest.fixture
    def faulty(self, place: MemoryPlace, first_note: bytes) -> FaultyStorage:
        return FaultyStorage(MemoryBackend(place).create(first_note))

    @pytest.fixture
    def log(self, faulty: FaultyStorage, signer: Signer) -> Log:
        log = Log(faulty, signer.verifier, signer)
        log.append_many(ENTRIES[:5])
        return log

    def _replace(self, place: MemoryPlace, other: MemoryPlace) -> None:
        place.checkpoint, place.entries, place.nodes = other.checkpoint, other.entries, other.nodes

    def _never_signs(self, log: Log, faulty: FaultyStorage, error: type[Exception]) -> None:
        signed = len(faulty.batches)
        for _ in range(2):
            with pytest.raises(error):
                log.append(b"x")
            with pytest.raises(error), log.exclusive():
                pytest.fail("was entered")
        assert len(faulty.batches) == signed

    def test_an_older_copy_put_back_is_not_signed_over(
        self, log: Log, faulty: FaultyStorage, place: MemoryPlace
    ) -> None:
        """Otherwise two different trees of six entries would be signed, one of them shown before the restore."""
        older = MemoryPlace(place.checkpoint, list(place.entries), list(place.nodes))
        log.append(ENTRIES[5])
        self._replace(place, older)
        self._never_signs(log, faulty, CorruptLog)

    def test_nor_when_it_has_grown_since(
        self, log: Log, faulty: FaultyStorage, place: MemoryPlace, signer: Signer
    ) -> None:
        older = MemoryBackend(MemoryPlace(place.checkpoint, list(place.entries), list(place.nodes)))
        log.append(ENTRIES[5])
        with Log.on(older.open(), signer.verifier, signer) as restored:
            restored.append_many([b"another sixth", b"seventh"])
        self._replace(place, older.place)
        self._never_signs(log, faulty, CorruptLog)

    def test_a_head_by_another_key_is_not_signed_over(
        self, log: Log, faulty: FaultyStorage, place: MemoryPlace, head_note: Callable[..., bytes], signer: Signer
    ) -> None:
        place.checkpoint = head_note(ENTRIES[:5], Signer(signer.name, bytes(32)))
        self._never_signs(log, faulty, VerificationFailed)
        place.checkpoint = b"no note at all"
        self._never_signs(log, faulty, CorruptLog)

    @pytest.mark.parametrize(
        ("what", "change"),
        [
            ("entries", "one too many"),
            ("nodes", "one too many"),
            ("entries", "one missing"),
            ("nodes", "one missing"),
            # A damaged entry is found when it is read, and on opening: here only the edge of the tree is.
            ("nodes", "one damaged"),
        ],
    )
    def test_a_tree_that_does_not_match_the_others_checkpoint_is_found(
        self, log: Log, faulty: FaultyStorage, place: MemoryPlace, signer: Signer, what: str, change: str
    ) -> None:
        with Log.on(MemoryBackend(place).open(), signer.verifier, signer) as other:
            other.append(ENTRIES[5])
        values: list[bytes] = getattr(place, what)
        if change == "one too many":
            values.append(bytes(32))
        elif change == "one missing":
            values.pop()
        else:
            values[-1] = bytes(32)
        self._never_signs(log, faulty, StorageError)

    def test_opening_waits_for_nobody_and_still_checks_everything(
        self, log: Log, place: MemoryPlace, signer: Signer
    ) -> None:
        backend = MemoryBackend(place)
        place.entries.append(b"being stored by another process right now")
        Log.on(backend.open(), signer.verifier, signer).close()
        place.entries[2] = b"changed"
        with pytest.raises(CorruptLog):
            Log.on(backend.open(), signer.verifier, signer)
        del place.entries[4:]
        with pytest.raises(CorruptLog):
            Log.on(backend.open(), signer.verifier, signer)


def test_a_head_that_the_other_made_is_known_at_once(one: Log, two: Log) -> None:
    with pytest.raises(NotInLog):
        two.entry(0)
    one.append(b"x")
    assert two.entry(0) == b"x"
    assert two.size == 1
    assert two.root_at(1) == one.head().root
