"""Blinded record handles: what lets a clinic show later that a coefficient is one patient, and says nothing before.

handle = SHA-256(salt || record id), a fresh 128-bit salt each, and the records entry carries the RFC 6962 root of the
handles in patient order: patient k of block b has index b * capacity + k (docs/spec/protocol.md, section 2). Salts and
ids stay with the clinic.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from ledger.merkle import Frontier, inclusion_proof, leaf_hash, node_hash
from privacy.canonical_json import Codec, Record
from privacy.errors import UsageError
from privacy.private_files import read_private, write_private

__all__ = ["SALT_BYTES", "RecordHandles"]

SALT_BYTES: Final = 16
_MAX_BYTES: Final = 1 << 29
_WHAT: Final = "record handles"


@dataclass(frozen=True)
class _File(Record):
    format: Literal["sealproof/record-handles/v1"]
    ids: tuple[Annotated[str, Field(min_length=1)], ...]
    salts: str


_CODEC: Final = Codec(_File, _WHAT, _MAX_BYTES)


@dataclass(frozen=True)
class RecordHandles:
    """Record ids in patient order and their salts. Secret, not shown. Raises UsageError if they do not pair."""

    ids: tuple[str, ...] = field(repr=False)
    salts: tuple[bytes, ...] = field(repr=False)

    def __post_init__(self) -> None:
        if not self.ids or len(self.ids) != len(self.salts) or len(set(self.ids)) != len(self.ids):
            raise UsageError("record handles need different ids, at least one, and a salt for each")
        if any(len(salt) != SALT_BYTES for salt in self.salts):
            raise UsageError(f"a salt has {SALT_BYTES} bytes")

    @classmethod
    def draw(cls, ids: Sequence[str]) -> RecordHandles:
        """Fresh salts for these ids."""
        return cls(tuple(ids), tuple(secrets.token_bytes(SALT_BYTES) for _ in ids))

    @cached_property
    def handles(self) -> tuple[bytes, ...]:
        """SHA-256(salt || id in UTF-8) of every record."""
        pairs = zip(self.salts, self.ids, strict=True)
        return tuple(hashlib.sha256(salt + record.encode("utf-8")).digest() for salt, record in pairs)

    @property
    def root(self) -> bytes:
        """The Merkle root of the handles, as the records entry carries it."""
        frontier, _ = Frontier().extend(map(leaf_hash, self.handles))
        return frontier.root()

    def path(self, index: int) -> list[bytes]:
        """The inclusion proof of handle `index` under `root`, of a tree of len(ids) leaves. Raises UsageError."""
        return inclusion_proof(index, len(self.handles), lambda level, place: self._nodes[level][place])

    @cached_property
    def _nodes(self) -> list[list[bytes]]:
        """The perfect subtrees of the tree, level by level, for one path or for many."""
        levels = [[leaf_hash(handle) for handle in self.handles]]
        while len(levels[-1]) > 1:
            below = levels[-1]
            levels.append([node_hash(*below[at : at + 2]) for at in range(0, len(below) - 1, 2)])
        return levels

    def save(self, path: Path) -> None:
        """Write the file, mode 0600. Raises OSError."""
        salts = base64.b64encode(b"".join(self.salts)).decode("ascii")
        write_private(path, _CODEC.encode(_File("sealproof/record-handles/v1", self.ids, salts)))

    @classmethod
    def load(cls, path: Path) -> RecordHandles:
        """Read a file written by `save`. Raises UsageError, DecodeError."""
        stored = _CODEC.decode(read_private(path, _MAX_BYTES, _WHAT))
        try:
            salts = base64.b64decode(stored.salts, validate=True)
        except ValueError as error:
            raise UsageError(f"{path}: the salts are not base64") from error
        pieces = tuple(salts[i : i + SALT_BYTES] for i in range(0, len(salts), SALT_BYTES))
        return cls(stored.ids, pieces)
