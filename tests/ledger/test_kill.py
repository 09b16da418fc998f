"""Killed with SIGKILL at any moment, a log keeps every acknowledged entry and publication and never has two heads."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ledger import Log, Signer, UsageError
from tests.support.killing import Appender, Creator, Kill, Killer
from tests.support.storages import BACKENDS, VOLATILE, Backend
from tests.support.witnessed import Witnessed

DURABLE = sorted(set(BACKENDS) - VOLATILE)
KILLS = 120
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


def _hear(witnessed: Witnessed, lines: list[str]) -> None:
    """What one process reported before it was killed."""
    assert not [line for line in lines if line.startswith("failed")]
    for kind, *words in (line.split() for line in lines):
        if kind == "entry":
            witnessed.acknowledge(int(words[0]), bytes.fromhex(words[1]))
        elif kind == "head":
            witnessed.see_note(bytes.fromhex(words[0]))
        elif kind == "shown":
            witnessed.see_published(bytes.fromhex(words[0]))


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
                _hear(witnessed, lines)
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
