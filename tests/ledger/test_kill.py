"""Killed with SIGKILL at any moment, a log keeps every acknowledged entry and publication and never has two heads."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ledger import Log, Signer, UsageError, VerifiedHead, leaf_hash, open_checkpoint
from ledger.note import Note
from tests.support.killing import Appender, Creator, Kill, Killer
from tests.support.storages import BACKENDS, VOLATILE, Backend

DURABLE = sorted(set(BACKENDS) - VOLATILE)
KILLS = 150
"""For each backend, in the slow test."""
FRESH = 25
"""A new log after so many kills: opening one checks everything, and that takes longer with every entry."""


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    with Killer() as killer:
        yield killer


@pytest.fixture(params=DURABLE)
def new_backend(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Backend]:
    numbers = iter(range(10**6))

    def new() -> Backend:
        folder = tmp_path / f"{request.param}-{next(numbers)}"
        folder.mkdir()
        return BACKENDS[request.param](request, folder)

    return new


class Witnessed:
    """Everything that the outside saw of one log: it must stay true for ever."""

    def __init__(self, signer: Signer) -> None:
        self.signer = signer
        self.entries: dict[int, bytes] = {}
        self.roots: dict[int, bytes] = {}
        self.published: dict[int, bytes] = {}

    def hear(self, lines: list[str]) -> None:
        """What one process reported before it was killed."""
        assert not [line for line in lines if line.startswith("failed")], lines[-1]
        for kind, *words in (line.split() for line in lines):
            if kind == "entry":
                index = int(words[0])
                assert index not in self.entries, "an index was given out twice"
                self.entries[index] = bytes.fromhex(words[1])
            elif kind == "head":
                self.see(self._open(bytes.fromhex(words[0])))
            elif kind == "shown":
                head = self._open(bytes.fromhex(words[0]))
                self.see(head)
                self.published[head.size] = head.note

    def see(self, head: VerifiedHead) -> None:
        """A head that was shown: a second root of the same size would be a fork."""
        assert self.roots.setdefault(head.size, head.root) == head.root, f"two roots of size {head.size} were shown"

    def check(self, log: Log) -> None:
        """The log as it was found after the kills, compared with all that was seen before."""
        stored = list(log.entries())
        for index, leaf in self.entries.items():
            assert leaf_hash(stored[index]) == leaf, "an acknowledged entry was lost"
        archive = log.publications(0, 10**6)
        for head in (log.head(), log.published(), *archive):
            self.see(head)
        for size, root in self.roots.items():
            assert log.root_at(size) == root, f"the log does not extend the head of size {size}"
        kept = {head.size: head.note for head in archive}
        for size, note in self.published.items():
            lost = set(Note.parse(note).signatures) - set(Note.parse(kept[size]).signatures)
            assert not lost, "an acknowledged publication was lost"
        if archive:
            assert log.published() == archive[-1]

    def _open(self, note: bytes) -> VerifiedHead:
        return open_checkpoint(note, self.signer.verifier, self.signer.name)


def _kill_and_check(
    killer: Killer, new_backend: Callable[[], Backend], first_note: bytes, signer: Signer, kills: int
) -> None:
    rng = random.Random(kills)
    seed, unacknowledged = bytes(range(32)), 0
    assert Signer(signer.name, seed).verifier == signer.verifier
    done = 0
    while done < kills:
        backend = new_backend()
        backend.create(first_note).close()
        witnessed, end = Witnessed(signer), min(kills, done + FRESH)
        while done < end:
            # Where several may write, two do: one is killed while the other goes on.
            jobs = [Appender(backend, signer.name, seed, done + i) for i in range(1 + backend.shared)]
            # One in four may fall into the opening, the others are for appends and publications.
            moments = [Kill(job, rng.uniform(0.001, 0.06), once_opened=rng.random() < 0.75) for job in jobs]
            for kill, lines in zip(moments, killer.run(moments), strict=True):
                assert "opened" in lines or not kill.once_opened
                witnessed.hear(lines)
            done += len(jobs)
            with Log.on(backend.open(), signer.verifier, signer) as log:
                witnessed.check(log)
                unacknowledged += log.size > len(witnessed.entries)
                assert log.append(b"and it goes on").index == log.size - 1
                # What a killed process stored and could not acknowledge belongs to nobody: from now on it is known.
                witnessed.entries |= {i: log.leaf_hash(i) for i in range(log.size)}
                witnessed.see(log.head())
        assert len(witnessed.roots) > 1
    if kills >= KILLS:
        assert unacknowledged, "no kill fell between a commit and its acknowledgement: they came at the wrong moments"


def test_a_killed_writer_loses_nothing_acknowledged(
    killer: Killer, new_backend: Callable[[], Backend], first_note: bytes, signer: Signer
) -> None:
    _kill_and_check(killer, new_backend, first_note, signer, 8)


@pytest.mark.slow
def test_hundreds_of_killed_writers_lose_nothing_acknowledged(
    killer: Killer, new_backend: Callable[[], Backend], first_note: bytes, signer: Signer
) -> None:
    _kill_and_check(killer, new_backend, first_note, signer, KILLS)


@pytest.mark.slow
def test_a_creation_that_was_killed_is_complete_or_can_be_repeated(
    killer: Killer, new_backend: Callable[[], Backend], first_note: bytes, signer: Signer
) -> None:
    rng = random.Random(3)
    complete = 0
    for _ in range(25):
        backend = new_backend()
        (lines,) = killer.run([Kill(Creator(backend, first_note), rng.uniform(0.0, 0.03))])
        try:
            storage = backend.open()
            complete += 1
        except UsageError:
            assert lines == [], "it was reported complete"
            storage = backend.create(first_note)
        with Log.on(storage, signer.verifier, signer) as log:
            assert log.checkpoint() == first_note
            assert log.append(b"x").index == 0
    assert complete < 25, "none was killed early enough"
