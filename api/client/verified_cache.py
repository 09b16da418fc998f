"""What this machine has verified already, so that a certificate is checked once and not with every bundle.

A mark is an empty promise of this program to itself: a file named by the SHA-256 of everything that went into the
check. Bundles, servers and ledgers cannot make one; only who may write into this folder can, and who can do that could
as well replace the program. A folder that others may write to is not used.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from privacy.zk.generators import cache_folder

__all__ = ["VerifiedCache"]

_TAG: Final = b"sealproof/verified/v1"
"""A new version whenever a verifier becomes stricter: what the old one accepted is then checked again."""


class VerifiedCache:
    """Marks in `folder` (default: `verified` in the cache folder), which is made with mode 0700."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or cache_folder() / "verified"

    def mark(self, kind: str, parts: Sequence[bytes]) -> bytes:
        """The name of the check `kind` of exactly these inputs, in this order."""
        digest = hashlib.sha256()
        for part in (_TAG, kind.encode("ascii"), *parts):
            digest.update(len(part).to_bytes(8, "little") + part)
        return digest.digest()

    def knows(self, mark: bytes) -> bool:
        """Whether this check was passed before, on this machine, by this user."""
        try:
            with self._private_folder() as folder:
                descriptor = os.open(mark.hex(), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
                with os.fdopen(descriptor, "rb") as file:
                    return file.read(len(mark) + 1) == mark
        except OSError:
            return False

    def remember(self, mark: bytes) -> None:
        """Keep that the check was passed. Best effort: a read-only home costs time, not correctness."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._private_folder() as folder:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
                with os.fdopen(os.open(mark.hex(), flags, 0o600, dir_fd=folder), "wb") as file:
                    file.write(mark)
        except OSError:
            return

    @contextmanager
    def _private_folder(self) -> Iterator[int]:
        """The folder, open: whoever may rename what is above it cannot exchange it after the look. Raises OSError."""
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            status = os.fstat(folder)
            if status.st_uid != os.getuid() or status.st_mode & 0o022:
                raise PermissionError(f"others may write to {self._folder}")
            yield folder
        finally:
            os.close(folder)
