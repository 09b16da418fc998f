"""The log: what it promises on append, to readers, and after a failed write."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest

from ledger import (
    MAX_ENTRY_BYTES,
    Appended,
    CorruptLog,
    EntryBundle,
    EntryTooLarge,
    Log,
    NotInLog,
    Signer,
    StorageError,
    Tile,
    TlogProof,
    UsageError,
    follow,
    leaf_hash,
    open_checkpoint,
    verify_consistency,
    verify_inclusion,
)
from tests.support.faulty import FAULTS, Fault, FaultyStorage
from tests.support.storages import Backend

ENTRIES = [f"entry {i}".encode() for i in range(40)]


@pytest.fixture
def log(backend: Backend, first_note: bytes, signer: Signer) -> Iterator[Log]:
    """An empty log on every kind of storage."""
    with Log.on(backend.create(first_note), signer.verifier, signer) as log:
        yield log


def test_entries_come_back_with_their_place_under_a_signed_root(log: Log, signer: Signer, naive: Any) -> None:
    appended = [log.append(ENTRIES[0]), *log.append_many(ENTRIES[1:20]), *log.append_many(ENTRIES[20:])]
    assert appended == [Appended(i, naive.leaf(e)) for i, e in enumerate(ENTRIES)]
    head = open_checkpoint(log.checkpoint(), signer.verifier, signer.name)
    assert (head.size, head.root) == (40, naive.root(ENTRIES))
    assert log.head() == head
    assert [log.entry(i) for i in range(40)] == ENTRIES
    assert [log.leaf_hash(i) for i in range(40)] == [naive.leaf(e) for e in ENTRIES]
    assert list(log.entries()) == ENTRIES
    assert list(log.entries(7, 9)) == ENTRIES[7:9]


def test_one_batch_and_single_appends_give_the_same_root(
    log: Log, new_backend: Callable[[], Backend], first_note: bytes, signer: Signer
) -> None:
    log.append_many(ENTRIES)
    with Log.on(new_backend().create(first_note), signer.verifier, signer) as singly:
        for entry in ENTRIES:
            singly.append(entry)
        assert singly.head() == log.head()


def test_proofs_hold_for_every_index_and_every_earlier_size(log: Log, signer: Signer, naive: Any) -> None:
    log.append_many(ENTRIES)
    for index, entry in enumerate(ENTRIES):
        verified = TlogProof.parse(log.tlog_proof(index)).verify(entry, signer.verifier, signer.name)
        assert verified.index == index
    for size in range(1, 41):
        root = naive.root(ENTRIES[:size])
        verify_inclusion(leaf_hash(ENTRIES[size // 2]), size // 2, size, log.inclusion_proof(size // 2, size), root)
        verify_consistency(size, 40, log.consistency_proof(size), root, log.head().root)
    assert log.consistency_proof(0) == []


def test_what_is_not_in_the_log_is_not_served(log: Log) -> None:
    log.append_many(ENTRIES[:5])
    for index in (-1, 5, 2**64):
        for read in (log.entry, log.leaf_hash, log.inclusion_proof, log.tlog_proof):
            with pytest.raises(NotInLog):
                read(index)
    calls: list[Callable[[], object]] = [
        lambda: log.inclusion_proof(3, 3),
        lambda: log.inclusion_proof(0, 6),
        lambda: log.inclusion_proof(0, -1),
        lambda: log.consistency_proof(6),
        lambda: log.consistency_proof(-1),
        lambda: log.consistency_proof(3, 2),
        lambda: log.consistency_proof(3, 6),
        lambda: log.entries(0, 6),
        lambda: log.entries(-1, 2),
        lambda: log.entries(3, 2),
    ]
    for call in calls:
        with pytest.raises(NotInLog):
            call()


def test_entry_sizes_are_limited_and_a_refused_batch_changes_nothing(
    log: Log, backend: Backend, signer: Signer
) -> None:
    log.append_many([b"", bytes(MAX_ENTRY_BYTES)])
    before = log.checkpoint()
    with pytest.raises(EntryTooLarge) as caught:
        log.append_many([b"fine", bytes(MAX_ENTRY_BYTES + 1)])
    assert (caught.value.size, caught.value.limit) == (65_536, 65_535)
    assert log.append_many([]) == []
    assert log.checkpoint() == before
    log.close()
    with Log.on(backend.open(), signer.verifier, signer) as again:
        assert again.checkpoint() == before
        assert list(again.entries()) == [b"", bytes(MAX_ENTRY_BYTES)]


def test_a_reopened_log_goes_on_where_it_was(backend: Backend, first_note: bytes, signer: Signer, naive: Any) -> None:
    backend.create(first_note).close()
    head = None
    for i in range(0, 40, 8):
        with Log.on(backend.open(), signer.verifier, signer) as log:
            proof = log.consistency_proof(head.size if head else 0)
            head = follow(head, log.checkpoint(), proof, signer.verifier, signer.name)
            assert log.append_many(ENTRIES[i : i + 8])[0].index == i
    with Log.on(backend.open(), signer.verifier, signer) as log:
        assert log.head().root == naive.root(ENTRIES)


def test_a_reader_without_the_key_sees_every_new_head_and_cannot_append(
    log: Log, backend: Backend, signer: Signer
) -> None:
    with Log.on(backend.open_readonly(), signer.verifier) as reader:
        assert reader.size == 0
        for i, entry in enumerate(ENTRIES[:5]):
            log.append(entry)
            assert reader.head() == log.head()
            assert reader.entry(i) == entry
            TlogProof.parse(reader.tlog_proof(i)).verify(entry, signer.verifier, signer.name)
        with pytest.raises(UsageError, match="reading only"):
            reader.append(b"x")
    with Log.on(backend.open_readonly(), signer.verifier) as later:
        assert later.size == 5


def test_many_threads_read_and_append_at_once(log: Log, signer: Signer, naive: Any) -> None:
    log.append_many(ENTRIES)
    failures: list[BaseException] = []
    appended: list[tuple[bytes, Appended]] = []
    stop = threading.Event()

    def read(number: int) -> None:
        head = log.head()
        try:
            while not stop.is_set():
                new = log.head()
                proof = log.consistency_proof(head.size, new.size)
                head = follow(head, new.note, proof, signer.verifier, signer.name)
                index = (number * 7 + head.size) % 40
                TlogProof.parse(log.tlog_proof(index)).verify(ENTRIES[index], signer.verifier, signer.name)
        except BaseException as error:
            failures.append(error)

    def write(number: int) -> None:
        try:
            for i in range(25):
                entry = f"thread {number} entry {i}".encode()
                appended.append((entry, log.append(entry)))
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read, args=(i,)) for i in range(4)]
    writers = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert failures == []
    assert log.size == 140
    assert sorted(a.index for _, a in appended) == list(range(40, 140)), "every append got a place of its own"
    assert all(log.entry(a.index) == entry for entry, a in appended)
    assert log.head().root == naive.root(list(log.entries()))


def test_a_proof_or_a_tile_takes_one_read(
    faulty: FaultyStorage, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read may be a round trip to a database."""
    log, reads = Log(faulty, signer.verifier, signer), list[int]()
    log.append_many(ENTRIES)
    nodes = faulty.nodes

    def counted(positions: Sequence[tuple[int, int]]) -> list[bytes]:
        reads.append(len(positions))
        return nodes(positions)

    monkeypatch.setattr(faulty, "nodes", counted)
    calls: list[Callable[[], object]] = [
        lambda: log.inclusion_proof(17),
        lambda: log.consistency_proof(13, 37),
        lambda: log.root_at(39),
        lambda: log.tlog_proof(17),
        lambda: log.tile(Tile(0, 0, 40)),
        lambda: log.leaf_hash(3),
    ]
    for call in calls:
        reads.clear()
        call()
        assert len(reads) == 1
    reads.clear()
    log.consistency_proof(0)
    log.entry_bundle(EntryBundle(0, 40))
    assert reads == [], "nothing to read is not read"


def test_the_signing_key_must_be_the_logs(backend: Backend, first_note: bytes, signer: Signer) -> None:
    other = Signer(signer.name, bytes(32))
    with pytest.raises(UsageError, match="does not belong"):
        Log.on(backend.create(first_note), signer.verifier, other)
    with Log.on(backend.open(), signer.verifier, signer) as log:
        assert log.size == 0, "the storage was closed, so that it can be opened again"


class TestAFailedWrite:
    def test_that_was_not_persisted_leaves_the_old_head_and_the_log_goes_on(
        self, faulty: FaultyStorage, signer: Signer, naive: Any
    ) -> None:
        log = Log(faulty, signer.verifier, signer)
        log.append_many(ENTRIES[:3])
        before = log.head()
        faulty.fail = "not persisted"
        with pytest.raises(StorageError):
            log.append(b"lost")
        assert log.head() == before
        assert faulty.checkpoint() == before.note
        assert log.append(ENTRIES[3]) == Appended(3, leaf_hash(ENTRIES[3]))
        after = follow(before, log.checkpoint(), log.consistency_proof(3), signer.verifier, signer.name)
        assert after.root == naive.root(ENTRIES[:4])

    def test_that_was_persisted_is_found_again_and_never_signed_over(
        self, faulty: FaultyStorage, signer: Signer, naive: Any
    ) -> None:
        log = Log(faulty, signer.verifier, signer)
        log.append_many(ENTRIES[:3])
        before = log.head()
        faulty.fail = "persisted"
        with pytest.raises(StorageError):
            log.append(ENTRIES[3])
        # A log that is alone shows it once it has looked; in a shared storage every look shows what is stored.
        assert log.head() == before or faulty.shared
        assert log.append(ENTRIES[4]) == Appended(4, leaf_hash(ENTRIES[4]))
        heads = [open_checkpoint(note, signer.verifier, signer.name) for note in faulty.signed]
        assert [h.size for h in heads] == [3, 4, 5]
        for old, new in pairwise(heads):
            proof = log.consistency_proof(old.size, new.size)
            follow(old, new.note, proof, signer.verifier, signer.name)
        assert log.head().root == naive.root(ENTRIES[:5])

    @pytest.mark.parametrize("fail", FAULTS)
    def test_a_restart_after_it_finds_one_consistent_head(
        self, faulty: FaultyStorage, backend: Backend, signer: Signer, fail: Fault
    ) -> None:
        log = Log(faulty, signer.verifier, signer)
        log.append_many(ENTRIES[:3])
        before = log.head()
        faulty.fail = fail
        with pytest.raises(StorageError):
            log.append_many(ENTRIES[3:9])
        log.close()
        with Log.on(backend.open(), signer.verifier, signer) as again:
            assert again.size == (9 if fail == "persisted" else 3)
            follow(before, again.checkpoint(), again.consistency_proof(3), signer.verifier, signer.name)
            assert again.append(b"next").index == again.size - 1

    def test_several_in_a_row_lose_nothing_acknowledged(self, faulty: FaultyStorage, signer: Signer) -> None:
        log = Log(faulty, signer.verifier, signer)
        acknowledged: dict[int, bytes] = {}
        head = log.head()
        for i, entry in enumerate(ENTRIES):
            faults: tuple[Fault | None, ...] = ("persisted", "not persisted", None, "not persisted", None)
            faulty.fail = faults[i % 5]
            try:
                acknowledged[log.append(entry).index] = entry
            except StorageError:
                continue
            head = follow(head, log.checkpoint(), log.consistency_proof(head.size), signer.verifier, signer.name)
        assert len(acknowledged) == 16
        assert {i: log.entry(i) for i in acknowledged} == acknowledged
        assert log.size == 24, "the persisted ones are there, the others are not"

    def test_a_stored_head_that_is_neither_old_nor_new_is_never_signed_over(
        self, faulty: FaultyStorage, signer: Signer, head_note: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log = Log(faulty, signer.verifier, signer)
        log.append_many(ENTRIES[:3])
        faulty.fail = "not persisted"
        with pytest.raises(StorageError):
            log.append(ENTRIES[3])
        signed = len(faulty.signed)
        monkeypatch.setattr(faulty, "checkpoint", lambda: head_note([b"something else"]))
        for _ in range(2):
            with pytest.raises(CorruptLog):
                log.append(ENTRIES[4])
        assert len(faulty.signed) == signed
