"""Blobs on disk: immutable files named by the SHA-256 of their bytes.

    blobs/ab/abcdef...   written beside its place, flushed, renamed, and the folder flushed

so a name is there only with its whole contents. Every read is hashed again.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from pathlib import Path

from api.errors import BlobDamaged, NotFound, StorageFull
from ledger.files import fsync_folder

__all__ = ["BlobStore"]


class BlobStore:
    """The blobs under one folder. Safe to use from many threads. `min_free` bytes of the disk stay free."""

    def __init__(self, folder: Path, min_free: int = 0) -> None:
        self._folder = folder
        self._min_free = min_free
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def path(self, digest: bytes) -> Path:
        """Where the blob with this digest is, or would be."""
        name = digest.hex()
        return self._folder / name[:2] / name

    def has(self, digest: bytes) -> bool:
        """Whether this blob is here."""
        return self.path(digest).is_file()

    def put(self, data: bytes) -> bytes:
        """Store a blob, durably, and return its digest. Raises StorageFull with nothing written."""
        digest = hashlib.sha256(data).digest()
        target = self.path(digest)
        if target.is_file():
            return digest
        self.check_room(len(data))
        if not target.parent.is_dir():
            target.parent.mkdir(exist_ok=True, mode=0o700)
            fsync_folder(self._folder)
        temporary = target.with_name(f".{secrets.token_hex(16)}")
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync_folder(target.parent)
        return digest

    def check_room(self, size: int) -> None:
        """Raise StorageFull unless `size` more bytes leave what has to stay free of the disk."""
        if shutil.disk_usage(self._folder).free < self._min_free + size:
            raise StorageFull("the server stores nothing more until there is room")

    def get(self, digest: bytes) -> bytes:
        """The blob with this digest. Raises NotFound, and BlobDamaged if the file was changed."""
        try:
            data = self.path(digest).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"there is no blob {digest.hex()}") from None
        if hashlib.sha256(data).digest() != digest:
            raise BlobDamaged(f"the blob {digest.hex()} was changed on disk")
        return data

    def sweep(self) -> None:
        """Remove what a crash left half-written."""
        for leftover in self._folder.glob("??/.*"):
            leftover.unlink(missing_ok=True)
