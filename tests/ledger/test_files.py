"""Durable writes: several waits for the disk at once, and what is left when one of them fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.files import Disk, DurableFiles
from tests.support.disks import FailingDisk


class RecordingDisk(Disk):
    """Waits for nothing, counts, and fails for the folders named."""

    def __init__(self, *failing: str) -> None:
        self.synced: list[str] = []
        self._failing = failing
        self._guard = threading.Lock()

    def sync_folder(self, folder: Path) -> None:
        with self._guard:
            self.synced.append(folder.name)
        if folder.name in self._failing:
            raise OSError(f"injected: {folder.name}")


def _open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    disk.close()
    disk.close()


def test_several_files_are_replaced_and_folders_are_made(tmp_path: Path, temporary: Path, disk: Disk) -> None:
    files = DurableFiles(tmp_path, temporary, disk)
    wanted = [(tmp_path / f"a/{i % 7}/{i}", b"%d" % i * 1000) for i in range(200)]
    before = _open_files()
    for data in (b"old", b"new"):
        files.replace([(path, data + content) for path, content in wanted])
    assert [path.read_bytes() for path, _ in wanted] == [b"new" + content for _, content in wanted]
    assert list(temporary.iterdir()) == []
    assert _open_files() == before
    disk.close()
    files.replace([(tmp_path / "one", b"1"), (tmp_path / "two", b"2")])  # it can be used again
    files.replace([])
    assert (tmp_path / "two").read_bytes() == b"2"


@pytest.mark.parametrize("failing", ["0", "3", "4"])
def test_a_failure_is_raised_when_all_others_are_over(tmp_path: Path, temporary: Path, failing: str) -> None:
    disk = RecordingDisk(failing)
    files = DurableFiles(tmp_path, temporary, disk)
    with pytest.raises(OSError, match=f"injected: {failing}"):
        files.replace([(tmp_path / str(i) / "file", b"x") for i in range(5)])
    assert {"0", "1", "2", "3", "4"} <= set(disk.synced)
    disk.close()


def test_folders_are_synced_once_by_each_process_and_again_after_a_failure(tmp_path: Path, temporary: Path) -> None:
    disk = RecordingDisk()
    files = DurableFiles(tmp_path, temporary, disk)
    target = [(tmp_path / "a" / "b" / "file", b"x")]
    disk._failing = ("a",)
    with pytest.raises(OSError, match="injected"):
        files.replace(target)
    disk._failing = ()
    for expected in ({tmp_path.name, "a", "b"}, {"b"}):
        disk.synced.clear()
        files.replace(target)
        assert set(disk.synced) == expected
    disk.synced.clear()
    DurableFiles(tmp_path, temporary, disk).replace(target)
    assert set(disk.synced) == {tmp_path.name, "a", "b"}, "another process may have made them, and not synced"
    disk.close()


def test_no_descriptor_stays_open_after_a_failure(tmp_path: Path, temporary: Path) -> None:
    before = _open_files()
    for number in range(12):
        disk = FailingDisk()
        disk.fail(number, "after")
        with pytest.raises(OSError, match="injected"):
            DurableFiles(tmp_path, temporary, disk).replace([(tmp_path / str(i), b"x" * 100) for i in range(4)])
    assert _open_files() == before
