"""Which of several server processes on one data folder does what only one may do: jobs, sessions, publishing.

The operating system drops the lock with its process, so that another takes over when the leader dies.
"""

from __future__ import annotations

import os
from pathlib import Path

from ledger.files import lock_file

__all__ = ["Leadership"]


class Leadership:
    """A claim to lead, by a lock on the file `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this process leads."""
        return self._descriptor is not None

    def claim(self) -> bool:
        """Lead, if nobody else does; whether this process leads now. Raises OSError where that cannot be told."""
        if self._descriptor is None:
            self._descriptor = lock_file(self._path)
        return self.held

    def release(self) -> None:
        """Lead no longer."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
