"""Fixtures for the ledger's tests: outside vectors, a naive second Merkle implementation, storages of every kind."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ledger import Log, Signer
from ledger.checkpoint import Checkpoint, sign_checkpoint
from ledger.merkle import Frontier
from tests.support.faulty import FaultyStorage
from tests.support.storages import BACKENDS, Backend

ORIGIN = "ledger.example/test"
VECTORS = Path(__file__).resolve().parents[2] / ".." / "shared" / "vectors"


class Naive:
    """RFC 6962 by its recursive definitions, on whole lists of entries. Shares no code with ledger.merkle."""

    @staticmethod
    def leaf(entry: bytes) -> bytes:
        return hashlib.sha256(b"\x00" + entry).digest()

    @staticmethod
    def split(n: int) -> int:
        k = 1
        while 2 * k < n:
            k *= 2
        return k

    @classmethod
    def root(cls, entries: Sequence[bytes]) -> bytes:
        if not entries:
            return hashlib.sha256(b"").digest()
        if len(entries) == 1:
            return cls.leaf(entries[0])
        k = cls.split(len(entries))
        return hashlib.sha256(b"\x01" + cls.root(entries[:k]) + cls.root(entries[k:])).digest()

    @classmethod
    def path(cls, m: int, entries: Sequence[bytes]) -> list[bytes]:
        if len(entries) == 1:
            return []
        k = cls.split(len(entries))
        if m < k:
            return [*cls.path(m, entries[:k]), cls.root(entries[k:])]
        return [*cls.path(m - k, entries[k:]), cls.root(entries[:k])]

    @classmethod
    def proof(cls, m: int, entries: Sequence[bytes]) -> list[bytes]:
        return [] if m == 0 else cls._subproof(m, entries, True)

    @classmethod
    def _subproof(cls, m: int, entries: Sequence[bytes], whole: bool) -> list[bytes]:
        if m == len(entries):
            return [] if whole else [cls.root(entries)]
        k = cls.split(len(entries))
        if m <= k:
            return [*cls._subproof(m, entries[:k], whole), cls.root(entries[k:])]
        return [*cls._subproof(m - k, entries[k:], False), cls.root(entries[:k])]

    @classmethod
    def root_of_path(cls, leaf: bytes, m: int, n: int, path: list[bytes]) -> bytes | None:
        """The root that a path leads to, or None when its length is wrong."""
        if n == 1:
            return leaf if not path else None
        if not path:
            return None
        k = cls.split(n)
        left = m < k
        below = cls.root_of_path(leaf, m if left else m - k, k if left else n - k, path[:-1])
        if below is None:
            return None
        pair = below + path[-1] if left else path[-1] + below
        return hashlib.sha256(b"\x01" + pair).digest()


class MemoryNodes:
    """All nodes of a tree, by (level, index)."""

    def __init__(self, entries: Sequence[bytes]) -> None:
        self.frontier, nodes = Frontier().extend(Naive.leaf(e) for e in entries)
        self._hashes = {(node.level, node.number): node.hash for node in nodes}

    def __call__(self, level: int, index: int) -> bytes:
        return self._hashes[level, index]


@pytest.fixture(scope="session")
def naive() -> type[Naive]:
    return Naive


@pytest.fixture(scope="session")
def memory_nodes() -> type[MemoryNodes]:
    return MemoryNodes


@pytest.fixture(scope="session")
def origin() -> str:
    return ORIGIN


@pytest.fixture(scope="session")
def signer() -> Signer:
    return Signer(ORIGIN, bytes(range(32)))


@pytest.fixture(scope="session")
def head_note(signer: Signer) -> Callable[..., bytes]:
    """A checkpoint over given entries, signed."""

    def make(entries: Sequence[bytes], signer: Signer = signer) -> bytes:
        return sign_checkpoint(Checkpoint(signer.name, len(entries), Naive.root(entries)), signer)

    return make


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def log(log_path: Path, signer: Signer) -> Iterator[Log]:
    with Log.create(log_path, signer) as log:
        yield log


@pytest.fixture(params=sorted(BACKENDS))
def new_backend(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Backend]:
    """Every kind of storage in turn: each call gives a fresh place of that kind."""
    make, numbers = BACKENDS[request.param], itertools.count()

    def new() -> Backend:
        folder = tmp_path / f"{request.param}-{next(numbers)}"
        folder.mkdir()
        return make(request, folder)

    return new


@pytest.fixture
def backend(new_backend: Callable[[], Backend]) -> Backend:
    return new_backend()


@pytest.fixture
def first_note(head_note: Callable[..., bytes]) -> bytes:
    """The checkpoint of the empty log, as `create` wants it."""
    return head_note([])


@pytest.fixture
def faulty(backend: Backend, first_note: bytes) -> Iterator[FaultyStorage]:
    """A storage of every kind with an empty log, whose writes fail when told to."""
    storage = FaultyStorage(backend.create(first_note))
    yield storage
    storage.close()


@pytest.fixture(scope="session")
def vectors() -> Path:
    if not VECTORS.is_dir():
        pytest.skip("the outside test vectors are not beside this checkout")
    return VECTORS
