"""Files that hold the key of an Ethereum account: 64 hex digits, readable by their owner alone."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ledger.anchors.evm import ChainKey
from ledger.errors import UsageError as LedgerUsageError
from privacy.errors import DecodeError, UsageError
from privacy.private_files import create_private, read_private

__all__ = ["create_key", "load_key"]

_MAX_BYTES: Final = 65


def create_key(path: Path) -> ChainKey:
    """A fresh key in a new file of mode 0600. Raises UsageError if the file exists, OSError."""
    key = ChainKey.generate()
    try:
        create_private(path, key.format().encode("ascii"))
    except FileExistsError:
        raise UsageError(f"{path} exists already: a key is never overwritten") from None
    return key


def load_key(path: Path) -> ChainKey:
    """The key in a file. Raises UsageError if it cannot be read or others may, DecodeError for anything but a key."""
    data = read_private(path, _MAX_BYTES, "the chain key")
    try:
        return ChainKey.parse(data.decode("ascii"))
    except (LedgerUsageError, UnicodeDecodeError):
        # Not `from error`: nothing of what might be a secret may reach a traceback.
        raise DecodeError(f"chain key {path}", "expected 64 lower-case hex digits, without 0x") from None
