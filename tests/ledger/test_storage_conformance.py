"""What every storage promises, asked of each kind in the same way, without a log on top."""

from __future__ import annotations

import pickle
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ledger.errors import LedgerError, LogLocked, StorageError, UsageError
from ledger.merkle import Frontier, leaf_hash, node_count
from ledger.storage.base import Batch, Publication, Storage
from tests.support.storages import BACKENDS, VOLATILE, Backend, MemoryBackend

ENTRIES = [f"entry {i}".encode() * (i % 5) for i in range(700)]
STEPS = (1, 1, 5, 248, 1, 1, 3, 252, 100, 88)
"""Batches that end before, at and after the borders of a tile, and go over one."""


class Tree:
    """Makes the batches that a log would commit. A checkpoint is only bytes here: storages do not look inside."""

    def __init__(self, first_checkpoint: bytes = b"head 0") -> None:
        self.frontier, self.checkpoint, self.entries = Frontier(), first_checkpoint, list[bytes]()

    def batch(self, entries: list[bytes], checkpoint: bytes | None = None) -> Batch:
        """A batch on top of those before, which is then taken for stored."""
        first, previous = self.frontier.size, self.checkpoint
        self.frontier, nodes = self.frontier.extend(leaf_hash(entry) for entry in entries)
        self.checkpoint = checkpoint or b"head %d" % self.frontier.size
        self.entries += entries
        return Batch(previous, self.checkpoint, first, entries, nodes)


@pytest.fixture
def tree() -> Tree:
    return Tree()


@pytest.fixture
def storage(backend: Backend) -> Iterator[Storage]:
    storage = backend.create(b"head 0")
    yield storage
    storage.close()


@contextmanager
def closing(storage: Storage) -> Iterator[Storage]:
    try:
        yield storage
    finally:
        storage.close()


def _state(storage: Storage) -> tuple[object, ...]:
    size, _ = storage.extent()
    nodes = storage.completed_nodes(0, size)
    return (
        storage.checkpoint(),
        storage.extent(),
        storage.entries(0, size),
        nodes,
        storage.published(),
        storage.publications(0, 1000),
    )


class TestCreation:
    def test_a_new_storage_holds_its_checkpoint_and_nothing_else(self, storage: Storage) -> None:
        assert _state(storage) == (b"head 0", (0, 0), [], [], None, [])
        assert storage.nodes([]) == []

    def test_nothing_is_created_over_a_log(self, backend: Backend, storage: Storage, tree: Tree) -> None:
        storage.commit(tree.batch(ENTRIES[:3]))
        storage.close()
        with pytest.raises(UsageError):
            backend.create(b"another")
        with closing(backend.open()) as again:
            assert again.checkpoint() == b"head 3"

    def test_opening_does_not_create(self, backend: Backend) -> None:
        for _ in range(2):
            with pytest.raises(UsageError):
                backend.open()
            with pytest.raises(UsageError):
                backend.open_readonly()
        backend.create(b"head 0").close()

    def test_two_places_have_nothing_to_do_with_each_other(self, new_backend: Callable[[], Backend]) -> None:
        first, second = new_backend(), new_backend()
        with closing(first.create(b"head 0")) as one, closing(second.create(b"other 0")) as other:
            one.commit(Tree().batch(ENTRIES[:3]))
            assert _state(other) == (b"other 0", (0, 0), [], [], None, [])

    def test_a_place_can_be_named_to_another_process(self, backend: Backend) -> None:
        if isinstance(backend, MemoryBackend):
            pytest.skip("a log in memory does not leave its process")
        backend.create(b"head 0").close()
        copy: Backend = pickle.loads(pickle.dumps(backend))
        with closing(copy.open()) as again:
            assert again.checkpoint() == b"head 0"


class TestEntriesAndNodes:
    def test_every_batch_is_there_whole_for_this_opening_and_the_next_and_a_reader(
        self, backend: Backend, storage: Storage, tree: Tree, memory_nodes: Any
    ) -> None:
        rng = random.Random(1)
        for step in STEPS:
            size = tree.frontier.size
            storage.commit(tree.batch(ENTRIES[size : size + step]))
        assert tree.frontier.size == len(ENTRIES)
        expected = memory_nodes(ENTRIES)
        positions = [(level, index) for level in range(10) for index in range(len(ENTRIES) >> level)]
        assert len(positions) == node_count(len(ENTRIES))
        positions = rng.sample(positions, len(positions)) + rng.sample(positions, 50)
        with closing(backend.open_readonly()) as reader:
            for opened in (storage, reader):
                assert opened.checkpoint() == b"head 700"
                assert opened.extent() == (700, node_count(700))
                assert opened.nodes(positions) == [expected(*position) for position in positions]
                for _ in range(30):
                    start = rng.randrange(701)
                    stop = rng.randrange(start, 701)
                    assert opened.entries(start, stop) == ENTRIES[start:stop]
                    _, nodes = Frontier.load(start, expected).extend(leaf_hash(e) for e in ENTRIES[start:stop])
                    assert opened.completed_nodes(start, stop) == [node.hash for node in nodes]
        before = _state(storage)
        storage.close()
        with closing(backend.open()) as again:
            assert _state(again) == before

    def test_nodes_of_growing_edges_are_never_those_of_before(
        self, storage: Storage, tree: Tree, memory_nodes: Any
    ) -> None:
        """Read after each of many small batches, so that nothing remembered from a smaller tree passes for a node."""
        expected = memory_nodes(ENTRIES)
        for size in range(1, 20):
            storage.commit(tree.batch(ENTRIES[size - 1 : size]))
            positions = [(level, index) for level in range(5) for index in range(size >> level)]
            assert storage.nodes(positions) == [expected(*position) for position in positions]

    def test_the_longest_and_the_shortest_entries_come_back(self, storage: Storage, tree: Tree) -> None:
        entries = [b"", bytes(65_535), b"\x00", b"\n", bytes(range(256)) * 255, b""]
        storage.commit(tree.batch(entries))
        assert storage.entries(0, 6) == entries

    def test_a_large_batch_is_stored_at_once(self, storage: Storage, tree: Tree) -> None:
        entries = [b"%d" % i for i in range(5000)]
        storage.commit(tree.batch(entries))
        assert storage.extent() == (5000, node_count(5000))
        assert storage.entries(4990, 5000) == entries[4990:]
        assert storage.nodes([(12, 0)]) == [tree.frontier.hashes[0]]

    def test_what_is_not_there_is_an_error_not_a_gap(self, storage: Storage, tree: Tree) -> None:
        storage.commit(tree.batch(ENTRIES[:5]))
        calls: list[Callable[[], object]] = [
            lambda: storage.entries(0, 6),
            lambda: storage.entries(5, 6),
            lambda: storage.entries(300, 301),
            lambda: storage.nodes([(0, 0), (0, 5)]),
            lambda: storage.nodes([(1, 2)]),
            lambda: storage.nodes([(3, 0)]),
            lambda: storage.nodes([(8, 0)]),
            lambda: storage.nodes([(0, 2**62)]),
            lambda: storage.completed_nodes(0, 6),
        ]
        for call in calls:
            with pytest.raises(StorageError):
                call()
        assert storage.entries(0, 5) == ENTRIES[:5]


class TestCommit:
    def test_a_batch_on_top_of_another_checkpoint_changes_nothing(self, storage: Storage, tree: Tree) -> None:
        storage.commit(tree.batch(ENTRIES[:5]))
        before = _state(storage)
        good = tree.batch(ENTRIES[5:9])
        for previous in (b"head 0", b"head 9", b"", b"head 5 "):
            with pytest.raises(StorageError):
                storage.commit(Batch(previous, good.checkpoint, good.first, good.entries, good.nodes))
            assert _state(storage) == before
        storage.commit(good)
        assert storage.checkpoint() == b"head 9"

    def test_a_batch_is_not_stored_twice(self, storage: Storage, tree: Tree) -> None:
        batch = tree.batch(ENTRIES[:5])
        storage.commit(batch)
        before = _state(storage)
        with pytest.raises(StorageError):
            storage.commit(batch)
        assert _state(storage) == before

    def test_a_reader_sees_every_batch_whole_or_not_at_all(self, backend: Backend, storage: Storage) -> None:
        """Entries and nodes of a head are there before the head is."""
        tree, failures, done = Tree(), list[BaseException](), threading.Event()

        def read(opened: Storage) -> None:
            try:
                while not done.is_set():
                    size = int(opened.checkpoint().removeprefix(b"head "))
                    assert opened.extent()[0] >= size
                    assert opened.entries(0, size) == ENTRIES[:size]
                    leaves = [leaf_hash(entry) for entry in ENTRIES[:size]]
                    assert opened.nodes([(0, index) for index in range(size)]) == leaves
            except BaseException as error:
                failures.append(error)

        with closing(backend.open_readonly()) as reader:
            threads = [threading.Thread(target=read, args=(opened,)) for opened in (storage, storage, reader, reader)]
            for thread in threads:
                thread.start()
            for size in range(0, 120, 6):
                storage.commit(tree.batch(ENTRIES[size : size + 6]))
            done.set()
            for thread in threads:
                thread.join()
        assert failures == []

    def test_a_reader_writes_nothing(self, backend: Backend, storage: Storage, tree: Tree) -> None:
        storage.commit(tree.batch(ENTRIES[:5]))
        before = _state(storage)
        with closing(backend.open_readonly()) as reader:
            with pytest.raises(UsageError):
                reader.commit(tree.batch(ENTRIES[5:6]))
            with pytest.raises(UsageError):
                reader.publish(Publication(5, b"shown"))
            assert _state(reader) == before
        assert _state(storage) == before


class TestPublications:
    def test_each_size_is_kept_in_order_and_the_largest_is_the_newest(self, backend: Backend, storage: Storage) -> None:
        sizes = [0, 1, 255, 256, 700, 999, 1000, 1_234_067, 2**40]
        for size in sizes:
            storage.publish(Publication(size, b"shown %d" % size))
            assert storage.published() == Publication(size, b"shown %d" % size)
        expected = [Publication(size, b"shown %d" % size) for size in sizes]
        with closing(backend.open_readonly()) as reader:
            for opened in (storage, reader):
                assert opened.publications(0, 100) == expected
                assert opened.publications(1, 3) == expected[1:4]
                assert opened.publications(2, 3) == expected[2:5]
                assert opened.publications(1000, 100) == expected[6:]
                assert opened.publications(2**40 + 1, 1) == []
                assert opened.publications(0, 0) == []
        storage.close()
        with closing(backend.open()) as again:
            assert again.publications(0, 100) == expected
            assert again.published() == expected[-1]

    def test_the_same_size_again_takes_the_place_of_the_first(self, backend: Backend, storage: Storage) -> None:
        storage.publish(Publication(3, b"shown 3"))
        storage.publish(Publication(5, b"shown 5"))
        with closing(backend.open_readonly()) as reader:
            assert reader.published() == Publication(5, b"shown 5")
            storage.publish(Publication(5, b"shown 5, with more signatures than before"))
            storage.publish(Publication(5, b"less"))
            for opened in (storage, reader):
                assert opened.publications(0, 9) == [Publication(3, b"shown 3"), Publication(5, b"less")]
                assert opened.published() == Publication(5, b"less")

    def test_it_changes_nothing_else_and_a_commit_does_not_change_it(self, storage: Storage, tree: Tree) -> None:
        storage.commit(tree.batch(ENTRIES[:5]))
        checkpoint, extent = storage.checkpoint(), storage.extent()
        storage.publish(Publication(5, b"shown"))
        assert (storage.checkpoint(), storage.extent()) == (checkpoint, extent)
        storage.commit(tree.batch(ENTRIES[5:9]))
        assert storage.published() == Publication(5, b"shown")


class TestWriters:
    def test_a_second_writer_is_refused_or_takes_turns(self, backend: Backend, storage: Storage, tree: Tree) -> None:
        assert storage.shared == backend.shared
        if not backend.shared:
            for _ in range(2):
                with pytest.raises(LogLocked):
                    backend.open()
            with pytest.raises((LogLocked, UsageError)):
                backend.create(b"head 0")
            storage.commit(tree.batch(ENTRIES[:5]))
            return
        with closing(backend.open()) as second:
            storage.commit(tree.batch(ENTRIES[:5]))
            assert second.checkpoint() == b"head 5"
            second.commit(tree.batch(ENTRIES[5:9]))
            assert storage.checkpoint() == b"head 9"
            late = Tree()
            late.batch(ENTRIES[:5])
            with pytest.raises(StorageError):
                storage.commit(late.batch([b"this writer did not look"]))
            assert storage.entries(0, 9) == ENTRIES[:9]

    def test_the_next_writer_may_open_once_the_first_has_closed(self, backend: Backend, storage: Storage) -> None:
        storage.close()
        backend.open().close()
        backend.open().close()

    def test_exclusive_is_reentrant_and_leaves_readers_alone(
        self, backend: Backend, storage: Storage, tree: Tree
    ) -> None:
        with closing(backend.open_readonly()) as reader, storage.exclusive():
            with storage.exclusive():
                storage.commit(tree.batch(ENTRIES[:5]))
            assert reader.checkpoint() == b"head 5"
            storage.publish(Publication(5, b"shown"))
            storage.commit(tree.batch(ENTRIES[5:9]))
            assert reader.published() == Publication(5, b"shown")

    def test_exclusive_is_left_after_an_error(self, storage: Storage, tree: Tree) -> None:
        with pytest.raises(ZeroDivisionError), storage.exclusive():
            raise ZeroDivisionError
        done = threading.Thread(target=lambda: storage.commit(tree.batch(ENTRIES[:5])))
        done.start()
        done.join(30)
        assert storage.checkpoint() == b"head 5"

    def test_inside_exclusive_nobody_else_commits(self, backend: Backend, storage: Storage, tree: Tree) -> None:
        if not backend.shared:
            pytest.skip("its one writer has the place for itself as long as it lives")
        order, inside = list[str](), threading.Event()
        batch = tree.batch(ENTRIES[:5])

        def commit(opened: Storage) -> None:
            assert inside.wait(30)
            opened.commit(batch)
            order.append("committed")

        with closing(backend.open()) as second:
            thread = threading.Thread(target=commit, args=(second,))
            thread.start()
            with storage.exclusive():
                inside.set()
                thread.join(0.3)
                order.append("left")
            thread.join(30)
        assert order == ["left", "committed"]

    def test_many_writers_of_one_place_make_one_tree(self, backend: Backend, storage: Storage) -> None:
        """Each looks and commits inside `exclusive`: none is refused, nothing is lost."""
        if not backend.shared:
            pytest.skip("it has one writer")
        failures: list[BaseException] = []

        def write(number: int) -> None:
            try:
                with closing(backend.open()) as opened:
                    for i in range(10):
                        with opened.exclusive():
                            size, previous = opened.extent()[0], opened.checkpoint()
                            tree = Tree()
                            tree.batch(opened.entries(0, size), previous)
                            opened.commit(tree.batch([b"writer %d entry %d" % (number, i)]))
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert storage.checkpoint() == b"head 40"
        assert sorted(storage.entries(0, 40)) == sorted(
            b"writer %d entry %d" % (n, i) for n in range(4) for i in range(10)
        )


class TestClosing:
    def test_a_second_close_does_nothing_and_use_after_it_is_refused(self, storage: Storage, tree: Tree) -> None:
        batch = tree.batch(ENTRIES[:5])
        storage.commit(batch)
        storage.close()
        storage.close()
        calls: list[Callable[[], object]] = [
            storage.checkpoint,
            storage.extent,
            storage.published,
            lambda: storage.entries(0, 1),
            lambda: storage.nodes([(0, 0)]),
            lambda: storage.publications(0, 1),
            lambda: storage.commit(batch),
            lambda: storage.publish(Publication(5, b"shown")),
        ]
        for call in calls:
            with pytest.raises(LedgerError):
                call()

    def test_a_reader_may_close_while_others_go_on(self, backend: Backend, storage: Storage, tree: Tree) -> None:
        with closing(backend.open_readonly()) as first, closing(backend.open_readonly()) as second:
            first.close()
            storage.commit(tree.batch(ENTRIES[:5]))
            assert second.checkpoint() == b"head 5"


def test_every_backend_is_named_once_and_the_volatile_ones_are_some_of_them() -> None:
    assert set(BACKENDS) > VOLATILE
