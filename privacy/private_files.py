"""Small private files: written whole or not at all, readable by their owner alone."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from privacy.errors import DecodeError, UsageError

__all__ = ["create_private", "private_folder", "read_limited", "read_private", "write_private"]


def private_folder(path: Path) -> Path:
    """`path`, made with mode 0700 if it does not exist. Raises UsageError if others may access it, and OSError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise UsageError(f"{path} is accessible to others (mode {mode:03o}): chmod 700 it, secrets are kept there")
    return path


def write_private(path: Path, data: bytes) -> None:
    """Replace `path` by a file of mode 0600, durable on return. Raises OSError; then `path` is as it was."""
    with _written(path, data) as temporary:
        temporary.replace(path)


def create_private(path: Path, data: bytes) -> None:
    """Write a new file of mode 0600, durable on return. Raises FileExistsError if `path` exists, and OSError."""
    with _written(path, data) as temporary:
        os.link(temporary, path)  # a link, unlike a rename, fails if the name is taken


@contextlib.contextmanager
def _written(path: Path, data: bytes) -> Iterator[Path]:
    """A complete file beside `path`, to be given its name; the folder is synced afterwards."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # the new name itself survives a crash
    finally:
        os.close(folder)


def read_limited(path: Path, limit: int) -> bytes:
    """The bytes of a file whoever may read it, no more than one beyond `limit`: what is longer its decoder refuses.

    Raises UsageError if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def read_private(path: Path, limit: int, what: str) -> bytes:
    """The bytes of a private file. Raises UsageError if it cannot be read or others may, DecodeError if too large."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read(limit + 1)
    except OSError as error:
        raise UsageError(f"cannot read {what} {path}: {error.strerror}") from error
    if mode & 0o077:
        raise UsageError(f"{path} is accessible to others (mode {mode:03o}): chmod 600 it")
    if len(data) > limit:
        raise DecodeError(what, f"{path} has more than {limit} bytes")
    return data
