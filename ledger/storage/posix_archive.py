"""The archive of published checkpoints in plain files: one file a size, found without an index.

Size 1234 is 000/000/000/000/000/001/234: fixed width, so that names sort as sizes do. Reading only; writing is the
business of `ledger.storage.posix`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ledger.files import fsync_folder
from ledger.storage.base import Publication

__all__ = ["PublicationArchive"]

_GROUPS: Final = 7
"""Of three digits each: sizes have at most 19 digits."""
_GROUP: Final = re.compile(r"[0-9]{3}", re.ASCII)


class PublicationArchive:
    """The publications below `folder`, which need not exist yet. Every method raises OSError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, size: int) -> Path:
        """Where the publication of this size lies, or would."""
        digits = f"{size:0{3 * _GROUPS}}"
        return self._folder.joinpath(*(digits[i : i + 3] for i in range(0, len(digits), 3)))

    def newest(self) -> Publication | None:
        """The one of the largest size."""
        for size in _numbers(self._folder, 0, newest_first=True):
            return self.read(size)
        return None

    def read(self, size: int) -> Publication:
        """The publication of this size, which is there."""
        return Publication(size, self.path(size).read_bytes())

    def sizes(self, start: int) -> Iterator[int]:
        """The sizes of all publications, from `start` on, smallest first."""
        return _numbers(self._folder, start, newest_first=False)

    def sync(self, size: int) -> None:
        """Wait until the name of a publication has reached the disk, with the folders that it is in."""
        folder = self.path(size).parent
        while folder != self._folder.parent:
            fsync_folder(folder)
            folder = folder.parent


def _numbers(folder: Path, start: int, newest_first: bool, depth: int = 1, above: int = 0) -> Iterator[int]:
    """Numbers >= `start` whose groups of three digits are the names of nested folders, in order."""
    try:
        names = sorted(filter(_GROUP.fullmatch, (found.name for found in folder.iterdir())), reverse=newest_first)
    except FileNotFoundError:
        return  # nothing was published yet
    for name in names:
        number = above * 1000 + int(name)
        if depth == _GROUPS:
            if number >= start:
                yield number
        elif (number + 1) * 1000 ** (_GROUPS - depth) > start:
            yield from _numbers(folder / name, start, newest_first, depth + 1, number)
