"""What entries of several kinds are made of: references to other entries, and for what records may be used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ledger.merkle import leaf_hash
from privacy.canonical_json import Digest, Record, Timestamp, UnsignedInteger

__all__ = ["Policy", "Reference"]


@dataclass(frozen=True)
class Reference(Record):
    """An entry of the ledger, by index and by leaf hash: neither alone says which entry is meant in which log."""

    index: UnsignedInteger
    leaf: Digest

    @classmethod
    def to(cls, index: int, entry: bytes) -> Reference:
        """The reference to the entry whose bytes are `entry` at `index`."""
        return cls(index, leaf_hash(entry))


@dataclass(frozen=True)
class Policy(Record):
    """For which models records may be used, and until when (null: no end)."""

    models: tuple[Reference, ...] | Literal["any"]
    until: Timestamp | None
