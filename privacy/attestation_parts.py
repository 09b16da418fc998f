"""What attestations of every kind are made of: subjects, references to ledger entries, and the error of an answer."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from privacy.canonical_json import CamelRecord, DecimalInteger, Digest, UnsignedInteger

__all__ = ["ErrorBound", "LedgerReference", "Subject", "SubjectDigest"]


@dataclass(frozen=True)
class LedgerReference(CamelRecord):
    """An entry of the ledger: its index, its RFC 6962 leaf hash, and the SHA-256 of its bytes."""

    index: UnsignedInteger
    leaf: Digest
    digest: Digest

    @classmethod
    def to(cls, index: int, entry: bytes) -> LedgerReference:
        """The reference to the entry whose bytes are `entry` at `index`."""
        return cls(index, hashlib.sha256(b"\x00" + entry).digest(), hashlib.sha256(entry).digest())


@dataclass(frozen=True)
class ErrorBound(CamelRecord):
    """A decrypted answer is off by at most error / 2^scale_bits of a unit. Answers lie on the grid 2^-grid_bits."""

    error: Annotated[DecimalInteger, Field(ge=0)]
    scale_bits: UnsignedInteger
    grid_bits: UnsignedInteger


@dataclass(frozen=True)
class SubjectDigest(CamelRecord):
    """How in-toto names a digest."""

    sha256: Digest


@dataclass(frozen=True)
class Subject(CamelRecord):
    """What a statement is about: a name within it, and the digest of the thing."""

    name: str
    digest: SubjectDigest
