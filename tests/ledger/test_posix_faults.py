"""Plain files, when any step of the operating system fails, the process dies there, or the power goes.

Every write, fsync, rename and new folder of a story is hit in turn. What must hold each time: the stored head is one
that was signed for this history, nothing acknowledged is lost, and no two heads of one size are ever shown.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from ledger import Log, Signer, StorageError, UsageError
from ledger.checkpoint import VerifiedHead, open_checkpoint
from ledger.files import Disk
from ledger.merkle import verify_consistency
from ledger.storage.posix import PosixStorage
from tests.support.disks import MOMENTS, FailingDisk, Killed, Moment, PowerCutDisk

SIZES = (3, 256, 600)
"""Appends of the story: a partial tile, then one that completes it, then one over several tiles."""


@dataclass
class Witness:
    """Remembers what a log showed and acknowledged, and holds it to that."""

    signer: Signer
    acknowledged: dict[int, bytes] = field(default_factory=dict)
    shown: dict[int, VerifiedHead] = field(default_factory=dict)
    published: int = 0

    def see(self, note: bytes) -> None:
        """A head was shown: never another one of its size."""
        head = open_checkpoint(note, self.signer.verifier, self.signer.name)
        known = self.shown.setdefault(head.size, head)
        assert known.root == head.root, f"two heads of size {head.size}"

    def append(self, log: Log, entries: list[bytes]) -> None:
        for entry, at in zip(entries, log.append_many(entries), strict=True):
            assert at.index not in self.acknowledged, "an index was given out twice"
            self.acknowledged[at.index] = entry
        self.see(log.checkpoint())

    def publish(self, log: Log) -> None:
        self.published = max(self.published, log.publish(log.checkpoint()).size)
        self.see(log.published().note)

    def look(self, folder: Path) -> None:
        """What a client of the plain files sees at this moment counts as shown and as published."""
        with suppress(FileNotFoundError):
            note = (folder / "checkpoint").read_bytes()
            self.see(note)
            self.published = max(self.published, open_checkpoint(note, self.signer.verifier, self.signer.name).size)

    def check(self, log: Log) -> None:
        """Everything that was ever shown or acknowledged is in this log."""
        self.see(log.checkpoint())
        assert log.size >= max(self.shown), "a head that was shown is gone"
        stored = list(log.entries())
        assert all(stored[index] == entry for index, entry in self.acknowledged.items()), "an entry was lost"
        for head in self.shown.values():
            assert log.root_at(head.size) == head.root
            if head.size > 0:
                proof = log.consistency_proof(head.size)
                verify_consistency(head.size, log.size, proof, head.root, log.head().root)
        if self.published:
            assert log.published().size >= self.published, "a publication is gone"
            assert log.published() == log.publications(0, 1000)[-1]


def _batch(name: str, count: int) -> list[bytes]:
    return [f"{name} {i}".encode() for i in range(count)]


def _tell(log: Log, witness: Witness, name: str, retry: bool) -> None:
    """Append and publish twice over; with `retry`, go on after a failure as the service does."""
    size = log.size
    for target in [size + step for step in (SIZES[0], SIZES[1] - SIZES[0])]:
        count = target - log.size
        if count > 0:
            _again(
                retry, log, lambda count=count, target=target: witness.append(log, _batch(f"{name} {target}", count))
            )
        _again(retry, log, lambda: witness.publish(log))


def _again(retry: bool, log: Log, act: Callable[[], None]) -> None:
    try:
        act()
    except StorageError:
        if not retry:
            raise
        act()


def _create(folder: Path, signer: Signer, first: bytes, disk: Disk) -> Log:
    return Log.on(PosixStorage.create(folder, first, disk), signer.verifier, signer)


def _open(folder: Path, signer: Signer, disk: Disk | None = None) -> Log:
    return Log.on(PosixStorage.open(folder, disk), signer.verifier, signer)


@pytest.fixture(scope="module")
def first(head_note: Callable[..., bytes]) -> bytes:
    return head_note([])


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory, signer: Signer, first: bytes) -> list[str]:
    """The steps of the story when nothing fails."""
    disk = FailingDisk()
    with _create(tmp_path_factory.mktemp("steps") / "log", signer, first, disk) as log:
        disk.steps.clear()
        _tell(log, Witness(signer), "steps", retry=False)
    return disk.steps


def test_the_order_of_steps(steps: list[str], tmp_path: Path, signer: Signer, first: bytes) -> None:
    """Bytes before names, names before the head: what the power cut tests below rely on, in plain sight."""
    with _create(tmp_path / "log", signer, first, disk := FailingDisk()) as log:
        log.append(b"a")
        disk.steps.clear()
        log.append(b"b")
        assert disk.steps == [
            *["write", "sync"] * 2,  # the entry bundle and the tile
            *["rename"] * 2,
            *["sync_folder"] * 2,
            *["write", "sync", "rename", "sync_folder"],  # the head
        ]
    assert len(steps) > 60


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_step_that_fails_once_costs_nothing(
    tmp_path: Path, signer: Signer, first: bytes, steps: list[str], moment: Moment
) -> None:
    """The log stays usable: the head is looked up, the append or the publication is tried again."""
    for number, name in enumerate(steps):
        if moment == "half way" and name != "write":
            continue
        disk, witness, folder = FailingDisk(), Witness(signer), tmp_path / str(number)
        with _create(folder, signer, first, disk) as log:
            disk.fail(number, moment)
            _tell(log, witness, "story", retry=True)
            witness.check(log)
            assert log.published() == open_checkpoint((folder / "checkpoint").read_bytes(), signer.verifier, log.origin)
        with _open(folder, signer) as log:
            witness.check(log)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_disk_that_fails_for_good_shows_no_head_that_is_not_on_it(
    tmp_path: Path, signer: Signer, first: bytes, steps: list[str], moment: Moment
) -> None:
    for number, name in enumerate(steps):
        if moment == "half way" and name != "write":
            continue
        disk, witness, folder = FailingDisk(), Witness(signer), tmp_path / str(number)
        with _create(folder, signer, first, disk) as log:
            disk.fail(number, moment, forever=True)
            with pytest.raises(StorageError, match="injected"):
                _tell(log, witness, "story", retry=False)
            storage = log._storage
            for ask in (storage.checkpoint, storage.published, storage.extent):
                with pytest.raises(StorageError, match="injected"):
                    ask()
            with pytest.raises(StorageError):
                witness.append(log, [b"still broken"])
            disk.heal()
            witness.see(storage.checkpoint())
            witness.append(log, [b"repaired"])
            witness.publish(log)
            witness.check(log)


def test_a_process_that_dies_at_any_step_leaves_a_log(
    tmp_path: Path, signer: Signer, first: bytes, steps: list[str]
) -> None:
    for number in range(len(steps)):
        folder, witness = tmp_path / str(number), Witness(signer)
        log = _create(folder, signer, first, disk := FailingDisk(Killed))
        disk.fail(number, "half way", forever=True)
        with pytest.raises(Killed):
            _tell(log, witness, "killed", retry=False)
        log.close()  # nothing but the lock, which the system would drop
        witness.look(folder)
        with Log.on(PosixStorage.open_readonly(folder), signer.verifier) as reader:
            witness.see(reader.checkpoint())
            witness.see(reader.published().note)
        with _open(folder, signer) as log:
            witness.check(log)
            _tell(log, witness, "next", retry=False)
            witness.check(log)
            assert (folder / "checkpoint").read_bytes() == log.published().note


def test_a_creation_that_stops_at_any_step_can_be_repeated(tmp_path: Path, signer: Signer, first: bytes) -> None:
    count = FailingDisk()
    _create(tmp_path / "counted", signer, first, count).close()
    for number in range(len(count.steps)):
        for moment in MOMENTS:
            folder, disk = tmp_path / f"{number} {moment}", FailingDisk()
            disk.fail(number, moment)
            with pytest.raises(StorageError, match="injected"):
                PosixStorage.create(folder, b"of a creation that failed", disk)
            if PosixStorage.exists(folder):
                # It was the last step that was reported to have failed.
                assert number >= len(count.steps) - 2
                PosixStorage.open(folder).close()
                continue
            with pytest.raises(UsageError, match="no log"):
                PosixStorage.open(folder)
            with _create(folder, signer, first, Disk()) as log:
                assert log.append(b"x").index == 0


def _story_until(disk: PowerCutDisk, folder: Path, signer: Signer, first: bytes, witness: Witness, name: str) -> bool:
    """Create or open the log and append to it, until the disk kills the process; whether creation was over."""
    created = False
    with suppress(Killed):
        if PosixStorage.exists(folder):
            created = True
            log = _open(folder, signer, disk)
        else:
            log = _create(folder, signer, first, disk)
            created = True
        try:
            _tell(log, witness, name, retry=False)
        finally:
            log.close()
    witness.look(folder)
    return created


def _check_after_cuts(
    disk: PowerCutDisk, tmp_path: Path, signer: Signer, first: bytes, witness: Witness, created: bool, name: str
) -> None:
    for keep in (0.0, 0.5, 1.0):
        folder = tmp_path / f"cut {name} {keep}"
        disk.after_power_cut(folder, random.Random(folder.name), keep)
        if not created and not PosixStorage.exists(folder):
            with _create(folder, signer, first, Disk()) as log:
                log.append(b"created at last")
            continue
        with Log.on(PosixStorage.open_readonly(folder), signer.verifier) as reader:
            witness_of_cut = Witness(signer, dict(witness.acknowledged), dict(witness.shown), witness.published)
            witness_of_cut.check(reader)
        with _open(folder, signer) as log:
            witness_of_cut.check(log)
            witness_of_cut.append(log, _batch("after the cut", 300))
            witness_of_cut.publish(log)
            witness_of_cut.check(log)


def _power_cuts(tmp_path: Path, signer: Signer, first: bytes, every: int, offset: int) -> None:
    """A power cut at each step, also after an earlier process was killed at some step without one."""
    whole = PowerCutDisk(tmp_path / "whole")
    _story_until(whole, tmp_path / "whole", signer, first, Witness(signer), "whole")
    for number in range(offset, whole.steps + 1, every):
        folder = tmp_path / f"{number}" / "log"
        folder.parent.mkdir()
        disk, witness = PowerCutDisk(folder), Witness(signer)
        disk.kill_at = number
        created = _story_until(disk, folder, signer, first, witness, "one")
        check = partial(_check_after_cuts, disk, tmp_path, signer, first, witness)
        check(created, f"{number} one")
        # The power stayed on. What the next process shows or acknowledges, the first one may never have synced.
        disk.kill_at = None
        if PosixStorage.exists(folder):
            with _open(folder, signer, disk) as log:
                witness.see(log.checkpoint())
                witness.look(folder)
            check(True, f"{number} opened")
        created = _story_until(disk, folder, signer, first, witness, "two")
        check(created, f"{number} two")


def test_a_power_cut_loses_nothing_acknowledged(tmp_path: Path, signer: Signer, first: bytes) -> None:
    _power_cuts(tmp_path, signer, first, every=9, offset=4)


@pytest.mark.slow
def test_a_power_cut_at_any_step_loses_nothing_acknowledged(tmp_path: Path, signer: Signer, first: bytes) -> None:
    _power_cuts(tmp_path, signer, first, every=1, offset=0)
