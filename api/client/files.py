"""Small private files: written whole or not at all, readable by their owner alone."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from privacy.errors import DecodeError, UsageError

__all__ = ["private_folder", "read_private", "write_private"]


def private_folder(path: Path) -> Path:
    """`path`, made with mode 0700 if it does not exist. Raises UsageError if others may access it, and OSError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise UsageError(f"{path} is accessible to others (mode {mode:03o}): chmod 700 it, secrets are kept there")
    return path


def write_private(path: Path, data: bytes) -> None:
    """Replace `path` by a file of mode 0600, durable on return. Raises OSError; then `path` is as it was."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


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
