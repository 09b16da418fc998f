"""Cut off or failing at any write, a log keeps every acknowledged entry and never has two heads."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger import Log, Signer, StorageError, UsageError
from ledger.note import Note
from tests.support.faulty import FAULTS, Fault, FaultyStorage
from tests.support.storages import Backend
from tests.support.witnessed import Witnessed

Step = Callable[[Log, Witnessed], None]
"""One write, and its acknowledgement."""


def _append(*entries: bytes) -> Step:
    def step(log: Log, witnessed: Witnessed) -> None:
        for appended in log.append_many(entries):
            witnessed.acknowledge(appended.index, appended.leaf_hash)
        witnessed.see(log.head())

    return step


def _publish(witnesses: int) -> Step:
    def step(log: Log, witnessed: Witnessed) -> None:
        note = Note.parse(log.checkpoint())
        names = (Signer(f"witness.example/{i}", bytes([i]) * 32) for i in range(witnesses))
        lines = (witness.sign(note.text.encode()) for witness in names)
        witnessed.see_published(log.publish(Note(note.text, (*note.signatures, *lines)).format()).note)

    return step


STEPS = [
    _append(b"first"),
    _publish(0),
    _publish(2),
    _append(b"second", b"third"),
    _append(*(b"%d" % i for i in range(256))),
    _publish(1),
    _append(b"beyond a tile"),
    _publish(3),
    _append(b"last"),
]


@pytest.mark.parametrize("restart", [False, True], ids=["going on", "restarted"])
@pytest.mark.parametrize("fault", FAULTS)
def test_each_write_may_fail_before_or_after_it_was_stored(
    new_backend: Callable[[], Backend], first_note: bytes, signer: Signer, fault: Fault, restart: bool
) -> None:
    for failing in range(len(STEPS)):
        backend, witnessed = new_backend(), Witnessed(signer)
        storage = FaultyStorage(backend.create(first_note))
        log = Log(storage, signer.verifier, signer)
        for number, step in enumerate(STEPS):
            if number == failing:
                storage.fail = fault
                with pytest.raises(StorageError, match="injected"):
                    step(log, witnessed)
                witnessed.check(log)
                if restart:
                    log.close()
                    storage = FaultyStorage(backend.open())
                    log = Log(storage, signer.verifier, signer)
                    witnessed.check(log)
            # The step that failed is repeated, as its caller would: an entry may then be in the log twice.
            step(log, witnessed)
        witnessed.check(log)
        assert log.size in (261, 262, 263, 517)
        log.close()
        with Log.on(backend.open(), signer.verifier, signer) as again:
            witnessed.check(again)
            assert again.size - again.published().size in (1, 2)


@pytest.mark.parametrize("seed", range(2))
def test_any_mixture_of_faults_and_restarts(backend: Backend, first_note: bytes, signer: Signer, seed: int) -> None:
    rng, witnessed = random.Random(seed), Witnessed(signer)
    faults: list[Fault | None] = [None, None, *FAULTS]
    storage = FaultyStorage(backend.create(first_note))
    log = Log(storage, signer.verifier, signer)
    acknowledged = 0
    for number in range(60):
        storage.fail = rng.choice(faults)
        step = rng.choice([_append(b"%d" % number), _append(b"%d" % number, b"and more"), _publish(number)])
        try:
            step(log, witnessed)
            acknowledged += 1
        except StorageError as error:
            assert "injected" in str(error)
        witnessed.check(log)
        if rng.random() < 0.2:
            log.close()
            storage = FaultyStorage(backend.open())
            log = Log(storage, signer.verifier, signer)
            witnessed.check(log)
    log.close()
    assert acknowledged > 15


def test_a_power_cut_leaves_the_old_head_or_the_new_one(tmp_path: Path, signer: Signer) -> None:
    """The write-ahead log cut off at any byte: what reached the disk before the cut is a head that was signed."""
    path, notes, ends = tmp_path / "log.db", [], []
    wal = Path(f"{path}-wal")
    with Log.create(path, signer) as log:
        for i in range(12):
            notes.append(log.checkpoint())
            ends.append(wal.stat().st_size)
            log.append_many([f"entry {i}.{k}".encode() * 50 for k in range(1 + i % 4)])
        notes.append(log.checkpoint())
        ends.append(wal.stat().st_size)
        database, journal = path.read_bytes(), wal.read_bytes()
    rng = random.Random(5)
    cuts = sorted({*ends, *(e - 1 for e in ends), *(rng.randrange(len(journal)) for _ in range(40))})
    seen = set()
    for cut in cuts:
        folder = tmp_path / f"cut{cut}"
        folder.mkdir()
        (folder / "log.db").write_bytes(database)
        (folder / "log.db-wal").write_bytes(journal[:cut])
        expected = max((i for i, end in enumerate(ends) if end <= cut), default=None)
        if expected is None:
            # Not even the creation had returned.
            with pytest.raises(UsageError, match="not a log"):
                Log.open(folder / "log.db", signer)
        else:
            with Log.open(folder / "log.db", signer) as log:
                assert log.checkpoint() == notes[expected]
                log.append(b"and it goes on")
            seen.add(expected)
        shutil.rmtree(folder)
    assert seen == set(range(13))


def test_a_damaged_write_ahead_log_never_yields_a_mixture(tmp_path: Path, signer: Signer) -> None:
    """A sector that did not reach the disk: the head is an earlier one, whole, or the opening is refused."""
    path = tmp_path / "log.db"
    wal = Path(f"{path}-wal")
    with Log.create(path, signer) as log:
        notes = [log.checkpoint()]
        for i in range(6):
            log.append_many([f"entry {i}.{k}".encode() * 100 for k in range(3)])
            notes.append(log.checkpoint())
        database, journal = path.read_bytes(), wal.read_bytes()
    rng = random.Random(6)
    for number in range(25):
        folder = tmp_path / f"damage{number}"
        folder.mkdir()
        at = rng.randrange(0, len(journal) - 512) // 512 * 512
        (folder / "log.db").write_bytes(database)
        (folder / "log.db-wal").write_bytes(journal[:at] + bytes(512) + journal[at + 512 :])
        try:
            with Log.open(folder / "log.db", signer) as log:
                assert log.checkpoint() in notes
        except UsageError as error:
            assert "not a log" in str(error)
        shutil.rmtree(folder)
