"""Plain files, when any step of the operating system fails, the process dies there, or the power goes.

Every write, fsync, rename and new folder of a story is hit in turn. What must hold each time: the stored head is one
that was signed for this history, nothing acknowledged is lost, and no two heads of one size are ever shown.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from ledger import Log, Signer, StorageError, UsageError
from ledger.checkpoint import open_checkpoint
from ledger.files import Disk
from ledger.storage.posix import PosixStorage
from tests.support.disks import MOMENTS, FailingDisk, HastyDisk, Killed, Moment, PowerCutDisk
from tests.support.witnessed import Witnessed

SIZES = (3, 256, 600)
"""Appends of the story: a partial tile, then one that completes it, then one over several tiles."""


def _append(log: Log, witnessed: Witnessed, entries: list[bytes]) -> None:
    for at in log.append_many(entries):
        witnessed.acknowledge(at.index, at.leaf_hash)
    witnessed.see_note(log.checkpoint())


def _publish(log: Log, witnessed: Witnessed) -> None:
    witnessed.see_published(log.publish(log.checkpoint()).note)


def _look(folder: Path, witnessed: Witnessed) -> None:
    """What a client of the plain files sees at this moment counts as shown and as published."""
    with suppress(FileNotFoundError):
        witnessed.see_published((folder / "checkpoint").read_bytes())


def _so_far(witnessed: Witnessed) -> Witnessed:
    copy = Witnessed(witnessed.signer)
    copy.entries |= witnessed.entries
    copy.roots |= witnessed.roots
    copy.published |= witnessed.published
    return copy


def _batch(name: str, count: int) -> list[bytes]:
    return [f"{name} {i}".encode() for i in range(count)]


def _tell(log: Log, witnessed: Witnessed, name: str, retry: bool) -> None:
    """Append and publish twice over; with `retry`, go on after a failure as the service does."""
    size = log.size
    for target in [size + step for step in (SIZES[0], SIZES[1] - SIZES[0])]:
        count = target - log.size
        if count > 0:
            _again(
                retry,
                log,
                lambda count=count, target=target: _append(log, witnessed, _batch(f"{name} {target}", count)),
            )
        _again(retry, log, lambda: _publish(log, witnessed))


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
        _tell(log, Witnessed(signer), "steps", retry=False)
    return disk.steps


def test_the_order_of_steps(steps: list[str], tmp_path: Path, signer: Signer, first: bytes) -> None:
    """Bytes before names, names before the head: what the power cut tests below rely on, in plain sight."""
    with _create(tmp_path / "log", signer, first, disk := FailingDisk()) as log:
        log.append(b"a")
        disk.steps.clear()
        log.append(b"b")
        assert disk.steps == [
            *["write"] * 2,  # the entry bundle and the tile
            *["sync"] * 2,
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
        disk, witnessed, folder = FailingDisk(), Witnessed(signer), tmp_path / str(number)
        with _create(folder, signer, first, disk) as log:
            disk.fail(number, moment)
            _tell(log, witnessed, "story", retry=True)
            witnessed.check(log)
            assert log.published() == open_checkpoint((folder / "checkpoint").read_bytes(), signer.verifier, log.origin)
        with _open(folder, signer, HastyDisk()) as log:
            witnessed.check(log)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_disk_that_fails_for_good_shows_no_head_that_is_not_on_it(
    tmp_path: Path, signer: Signer, first: bytes, steps: list[str], moment: Moment
) -> None:
    for number, name in enumerate(steps):
        if moment == "half way" and name != "write":
            continue
        disk, witnessed, folder = FailingDisk(), Witnessed(signer), tmp_path / str(number)
        with _create(folder, signer, first, disk) as log:
            disk.fail(number, moment, forever=True)
            with pytest.raises(StorageError, match="injected"):
                _tell(log, witnessed, "story", retry=False)
            storage = log._storage
            for ask in (storage.checkpoint, storage.published, storage.extent):
                with pytest.raises(StorageError, match="injected"):
                    ask()
            with pytest.raises(StorageError):
                _append(log, witnessed, [b"still broken"])
            disk.heal()
            witnessed.see_note(storage.checkpoint())
            _append(log, witnessed, [b"repaired"])
            _publish(log, witnessed)
            witnessed.check(log)


def test_a_process_that_dies_at_any_step_leaves_a_log(
    tmp_path: Path, signer: Signer, first: bytes, steps: list[str]
) -> None:
    for number in range(len(steps)):
        folder, witnessed = tmp_path / str(number), Witnessed(signer)
        log = _create(folder, signer, first, disk := FailingDisk(Killed))
        disk.fail(number, "half way", forever=True)
        with pytest.raises(Killed):
            _tell(log, witnessed, "killed", retry=False)
        log.close()  # nothing but the lock, which the system would drop
        _look(folder, witnessed)
        with Log.on(PosixStorage.open_readonly(folder), signer.verifier) as reader:
            witnessed.see_note(reader.checkpoint())
            witnessed.see_note(reader.published().note)
        with _open(folder, signer, HastyDisk()) as log:
            witnessed.check(log)
            _tell(log, witnessed, "next", retry=False)
            witnessed.check(log)
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
            with _create(folder, signer, first, HastyDisk()) as log:
                assert log.append(b"x").index == 0


def _story_until(
    disk: PowerCutDisk, folder: Path, signer: Signer, first: bytes, witnessed: Witnessed, name: str
) -> bool:
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
            _tell(log, witnessed, name, retry=False)
        finally:
            log.close()
    _look(folder, witnessed)
    return created


def _check_after_cuts(
    disk: PowerCutDisk, tmp_path: Path, signer: Signer, first: bytes, witnessed: Witnessed, created: bool, name: str
) -> None:
    for keep in (0.0, 0.5):
        folder = tmp_path / f"cut {name} {keep}"
        disk.after_power_cut(folder, random.Random(folder.name), keep)
        if not created and not PosixStorage.exists(folder):
            with _create(folder, signer, first, HastyDisk()) as log:
                log.append(b"created at last")
            continue
        with Log.on(PosixStorage.open_readonly(folder), signer.verifier) as reader:
            then = _so_far(witnessed)
            then.check(reader)
        with _open(folder, signer, HastyDisk()) as log:
            then.check(log)
            _append(log, then, _batch("after the cut", 300))
            _publish(log, then)
            then.check(log)


def _power_cuts(tmp_path: Path, signer: Signer, first: bytes, every: int, offset: int) -> None:
    """A power cut at each step, also after an earlier process was killed at some step without one."""
    whole = PowerCutDisk(tmp_path / "whole")
    _story_until(whole, tmp_path / "whole", signer, first, Witnessed(signer), "whole")
    for number in range(offset, whole.steps + 1, every):
        folder = tmp_path / f"{number}" / "log"
        folder.parent.mkdir()
        disk, witnessed = PowerCutDisk(folder), Witnessed(signer)
        disk.kill_at = number
        created = _story_until(disk, folder, signer, first, witnessed, "one")
        check = partial(_check_after_cuts, disk, tmp_path, signer, first, witnessed)
        check(created, f"{number} one")
        # The power stayed on. What the next process shows or acknowledges, the first one may never have synced.
        disk.kill_at = None
        if PosixStorage.exists(folder):
            with _open(folder, signer, disk) as log:
                witnessed.see_note(log.checkpoint())
                _look(folder, witnessed)
            check(True, f"{number} opened")
        created = _story_until(disk, folder, signer, first, witnessed, "two")
        check(created, f"{number} two")


def test_a_power_cut_loses_nothing_acknowledged(tmp_path: Path, signer: Signer, first: bytes) -> None:
    _power_cuts(tmp_path, signer, first, every=9, offset=4)


@pytest.mark.slow
def test_a_power_cut_at_any_step_loses_nothing_acknowledged(tmp_path: Path, signer: Signer, first: bytes) -> None:
    _power_cuts(tmp_path, signer, first, every=1, offset=0)
