"""Disks that fail and disks that forget, for storages that write through `ledger.files.Disk`.

None of them waits for the real disk: whether a real power cut would find the bytes is not what these tests look at.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from ledger.files import Disk

__all__ = ["MOMENTS", "FailingDisk", "HastyDisk", "Killed", "Moment", "PowerCutDisk"]

Moment = Literal["before", "half way", "after"]
MOMENTS: Final[tuple[Moment, ...]] = ("before", "half way", "after")
"""When a step fails: not having happened, having written half of its bytes, or having happened."""


class Killed(BaseException):
    """The process ends here. No handler of the code under test may do anything that reaches the disk."""


class HastyDisk(Disk):
    """Waits for nothing."""

    def sync(self, descriptor: int) -> None: ...

    def sync_folder(self, folder: Path) -> None: ...


class _Steps(Disk):
    """Every step goes through `_step`, and happens but for the waiting; one after the other, to be counted."""

    def __init__(self) -> None:
        self._written: dict[int, Path] = {}

    def make_folder(self, folder: Path) -> None:
        self._step("make_folder", lambda: super(_Steps, self).make_folder(folder), folder)

    def write(self, path: Path, data: bytes) -> int:
        opened: list[int] = []
        try:
            self._step("write", lambda: opened.append(super(_Steps, self).write(path, data)), path, data)
        except BaseException:
            for descriptor in opened:
                os.close(descriptor)
            raise
        self._written[opened[0]] = path
        return opened[0]

    def sync(self, descriptor: int) -> None:
        self._step("sync", lambda: None, self._written[descriptor])

    def sync_all(self, descriptors: Sequence[int]) -> None:
        for descriptor in descriptors:
            self.sync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        self._step("rename", lambda: super(_Steps, self).rename(source, target), source, target)

    def sync_folder(self, folder: Path) -> None:
        self._step("sync_folder", lambda: None, folder)

    def sync_folders(self, folders: Sequence[Path]) -> None:
        for folder in folders:
            self.sync_folder(folder)

    def _step(self, name: str, do: Callable[[], None], path: Path, more: Path | bytes | None = None) -> None:
        raise NotImplementedError


class FailingDisk(_Steps):
    """Counts steps. `fail(number, moment)` makes the one so many steps ahead fail (0: the next), or all from it on."""

    def __init__(self, error: type[BaseException] = OSError) -> None:
        super().__init__()
        self.steps: list[str] = []
        self._error = error
        self._at: range = range(0)
        self._moment: Moment = "before"

    def fail(self, number: int, moment: Moment, *, forever: bool = False) -> None:
        first = len(self.steps) + number
        self._at, self._moment = range(first, 10**9 if forever else first + 1), moment

    def heal(self) -> None:
        self._at = range(0)

    def _step(self, name: str, do: Callable[[], None], path: Path, more: Path | bytes | None = None) -> None:
        failing = len(self.steps) in self._at
        self.steps.append(name)
        if not failing:
            do()
            return
        if self._moment == "after":
            do()
        elif self._moment == "half way" and isinstance(more, bytes):
            path.write_bytes(more[: len(more) // 2])
        raise self._error(f"injected: {name} {path.name} failed {self._moment}")


@dataclass(eq=False)
class _File:
    data: bytes
    durable: bool = False


@dataclass(eq=False)
class _Folder:
    """Names as every process sees them, and as the disk has them."""

    names: dict[str, _File | _Folder] = field(default_factory=dict)
    durable: dict[str, _File | _Folder] = field(default_factory=dict)


class PowerCutDisk(_Steps):
    """Does everything really, and keeps account of what the disk is bound to have.

    After a power cut an unsynced file may hold a part of its bytes or zeros, and a name that was given or taken since
    the last sync of its folder may be there or not: `after_power_cut` lays out one of the possible outcomes.
    """

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = root
        self._top = _Folder()
        self.steps = 0
        self.kill_at: int | None = None

    def after_power_cut(self, target: Path, rng: random.Random, keep: float) -> None:
        """Make the folder `target` what may be left of the root. `keep`: how likely it is that an unsynced change is.

        Makes nothing when not even the root's own name is left.
        """
        found = self._survivors(self._top, rng, keep).get(self._root.name)
        if isinstance(found, _Folder):
            self._lay_out(found, target, rng, keep)

    def _survivors(self, folder: _Folder, rng: random.Random, keep: float) -> dict[str, _File | _Folder]:
        names: dict[str, _File | _Folder] = {}
        for name in sorted({*folder.names, *folder.durable}):
            new, old = folder.names.get(name), folder.durable.get(name)
            chosen = new if new is old or rng.random() < keep else old
            if chosen is not None:
                names[name] = chosen
        return names

    def _lay_out(self, folder: _Folder, target: Path, rng: random.Random, keep: float) -> None:
        target.mkdir()
        for name, node in self._survivors(folder, rng, keep).items():
            if isinstance(node, _Folder):
                self._lay_out(node, target / name, rng, keep)
            elif node.durable or rng.random() < keep:
                (target / name).write_bytes(node.data)
            else:
                cut = node.data[: rng.randrange(len(node.data) + 1)]
                (target / name).write_bytes(rng.choice([cut, cut + bytes(len(node.data) - len(cut))]))

    def _step(self, name: str, do: Callable[[], None], path: Path, more: Path | bytes | None = None) -> None:
        if self.kill_at is not None and self.steps >= self.kill_at:
            raise Killed
        self.steps += 1
        do()
        if name == "make_folder":
            self._folder(path.parent).names[path.name] = _Folder()
        elif name == "write" and isinstance(more, bytes):
            self._folder(path.parent).names[path.name] = _File(more)
        elif name == "sync":
            found = self._folder(path.parent).names[path.name]
            assert isinstance(found, _File)
            found.durable = True
        elif name == "rename" and isinstance(more, Path):
            self._folder(more.parent).names[more.name] = self._folder(path.parent).names.pop(path.name)
        elif name == "sync_folder":
            folder = self._folder(path)
            folder.durable = dict(folder.names)

    def _folder(self, path: Path) -> _Folder:
        """Of the folder at `path`, which is the root, something in it, or the folder that holds the root."""
        node = self._top
        for part in path.resolve().relative_to(self._root.resolve().parent).parts:
            found = node.names[part]
            assert isinstance(found, _Folder), path
            node = found
        return node
