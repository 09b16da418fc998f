"""Append-only transparency log (RFC 6962, C2SP). Knows nothing of privacy: an entry is opaque bytes.

Log             create, append, read, prove, publish        ledger.log
TlogProof       a proof file; verify gives a VerifiedEntry  ledger.proof
open_checkpoint verify a signed head: VerifiedHead          ledger.checkpoint
follow          accept only heads that extend the last one  ledger.monitor
Signer          the log's key; Verifier is its public part  ledger.note
"""

from ledger.checkpoint import Checkpoint, VerifiedHead, open_checkpoint
from ledger.errors import (
    ChainRefused,
    ChainUnavailable,
    CorruptLog,
    DecodeError,
    EntryTooLarge,
    FileRefused,
    Fork,
    InconsistentGrowth,
    IndexOutOfRange,
    LedgerError,
    LogLocked,
    LogMisbehaved,
    MissingDependency,
    NotInLog,
    OriginMismatch,
    Rollback,
    RootMismatch,
    StorageError,
    UsageError,
    VerificationFailed,
)
from ledger.log import Appended, Log
from ledger.merkle import leaf_hash, verify_consistency, verify_inclusion
from ledger.monitor import follow
from ledger.note import Signer, Verifier
from ledger.proof import TlogProof, VerifiedEntry
from ledger.tiles import MAX_ENTRY_BYTES, EntryBundle, Tile

__all__ = [
    "MAX_ENTRY_BYTES",
    "Appended",
    "ChainRefused",
    "ChainUnavailable",
    "Checkpoint",
    "CorruptLog",
    "DecodeError",
    "EntryBundle",
    "EntryTooLarge",
    "FileRefused",
    "Fork",
    "InconsistentGrowth",
    "IndexOutOfRange",
    "LedgerError",
    "Log",
    "LogLocked",
    "LogMisbehaved",
    "MissingDependency",
    "NotInLog",
    "OriginMismatch",
    "Rollback",
    "RootMismatch",
    "Signer",
    "StorageError",
    "Tile",
    "TlogProof",
    "UsageError",
    "VerificationFailed",
    "VerifiedEntry",
    "VerifiedHead",
    "Verifier",
    "follow",
    "leaf_hash",
    "open_checkpoint",
    "verify_consistency",
    "verify_inclusion",
]
