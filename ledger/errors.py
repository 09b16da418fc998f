"""Errors of the ledger package, split by who must act.

LedgerError
├── UsageError              the caller asked for something that can never work; fix the call
│   ├── EntryTooLarge       an entry is longer than the format allows
│   └── NotInLog            an index or a size beyond the log's present size
├── DecodeError             malformed bytes from outside; nothing was changed
├── VerificationFailed      well-formed, but a proof, a root or a signature does not hold
│   ├── IndexOutOfRange     a proof for an index that the tree does not have
│   ├── RootMismatch        a recomputed root is not the signed one
│   ├── OriginMismatch      a checkpoint of another log
│   ├── FileRefused         a file that a log serves is missing, malformed or not what its signed head says
│   ├── ChainRefused        a contract on a chain said no, or is not the contract it should be
│   └── LogMisbehaved       the log contradicts a head that it signed before; keeps the evidence
│       ├── Rollback        the new head is smaller
│       ├── Fork            same size, another root
│       └── InconsistentGrowth   the proof does not show that the new tree extends the old one
└── StorageError            the environment failed: disk, file, lock; look at the machine
    ├── LogLocked           another writer holds the log
    ├── ChainUnavailable    the node of a chain cannot be used, or a transaction did not get through
    ├── MissingDependency   an optional package is not installed; the message says how to install it
    └── CorruptLog          what is stored does not match the stored checkpoint; nothing is signed
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "ChainRefused",
    "ChainUnavailable",
    "CorruptLog",
    "DecodeError",
    "EntryTooLarge",
    "FileRefused",
    "Fork",
    "InconsistentGrowth",
    "IndexOutOfRange",
    "LedgerError",
    "LogLocked",
    "LogMisbehaved",
    "MissingDependency",
    "NotInLog",
    "OriginMismatch",
    "Rollback",
    "RootMismatch",
    "StorageError",
    "UsageError",
    "VerificationFailed",
]


class LedgerError(Exception):
    """Root of every error that the ledger package raises on purpose."""


class UsageError(LedgerError, ValueError):
    """The caller asked for something that can never work. The message says what to change."""


class EntryTooLarge(UsageError):
    """An entry is longer than `limit` bytes."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"an entry has {size} bytes, at most {limit} are allowed: log a digest of it instead")
        self.size = size
        self.limit = limit


class NotInLog(UsageError, LookupError):
    """The log has no such index, or has never had such a size."""

    def __init__(self, what: str, value: int, size: int) -> None:
        super().__init__(f"{what} {value} is not in the log, whose size is {size}")
        self.what = what
        self.value = value
        self.size = size


class DecodeError(LedgerError, ValueError):
    """Bytes from outside are not the canonical encoding of what was expected."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"{what}: {reason}")
        self.what = what
        self.reason = reason


class VerificationFailed(LedgerError):
    """A check of a verifier failed. `check` is a stable name such as `inclusion.root`."""

    def __init__(self, check: str, detail: str) -> None:
        super().__init__(f"{check}: {detail}")
        self.check = check
        self.detail = detail


class IndexOutOfRange(VerificationFailed):
    """A tree of `size` leaves has no leaf `index`, whatever a proof says."""

    def __init__(self, index: int, size: int) -> None:
        super().__init__("inclusion.index", f"a tree of {size} leaves has no index {index}")
        self.index = index
        self.size = size


class RootMismatch(VerificationFailed):
    """The root computed from a proof is not the expected one."""

    def __init__(self, check: str, expected: bytes, computed: bytes) -> None:
        super().__init__(check, f"expected root {expected.hex()}, computed {computed.hex()}")
        self.expected = expected
        self.computed = computed


class OriginMismatch(VerificationFailed):
    """A well-signed checkpoint, but of another log."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__("checkpoint.origin", f"expected log {expected!r}, the checkpoint names {found!r}")
        self.expected = expected
        self.found = found


class FileRefused(VerificationFailed):
    """The file `path` of a log is missing, malformed, or says something else than the log's signed head."""

    def __init__(self, check: str, path: str, reason: str) -> None:
        super().__init__(check, f"{path}: {reason}")
        self.path = path
        self.reason = reason


class ChainRefused(VerificationFailed):
    """A contract reverted, with its reason; or what lies at its address is not that contract. Nothing was changed."""


class LogMisbehaved(VerificationFailed):
    """The log contradicts itself. `old` and `new` are the two signed checkpoints: publish them."""

    def __init__(self, check: str, detail: str, old: bytes, new: bytes) -> None:
        super().__init__(check, detail)
        self.old = old
        self.new = new


class Rollback(LogMisbehaved):
    """The log shows a smaller tree than it signed before (or an old checkpoint was replayed)."""

    def __init__(self, old_size: int, new_size: int, old: bytes, new: bytes) -> None:
        super().__init__("monitor.rollback", f"size went from {old_size} back to {new_size}", old, new)
        self.old_size = old_size
        self.new_size = new_size


class Fork(LogMisbehaved):
    """The log signed two different trees of one size. The two checkpoints alone prove it."""

    def __init__(self, size: int, old: bytes, new: bytes) -> None:
        super().__init__("monitor.fork", f"two different roots were signed for size {size}", old, new)
        self.size = size


class InconsistentGrowth(LogMisbehaved):
    """The proof does not show that the new tree extends the old one.

    The proof is not signed, so this convicts the log only once it has no valid proof to offer; until then do not move
    to the new head. `reason` is the failed Merkle check.
    """

    def __init__(self, reason: VerificationFailed, old: bytes, new: bytes, proof: Sequence[bytes]) -> None:
        super().__init__("monitor.consistency", str(reason), old, new)
        self.reason = reason
        self.proof = tuple(proof)


class StorageError(LedgerError):
    """Reading or writing failed. After a failed append its outcome is unknown: look at the log's size."""


class LogLocked(StorageError):
    """Another process, or another object of this one, is the writer of the log."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} has a writer already: stop it, or open the log read-only")
        self.path = path


class ChainUnavailable(StorageError):
    """The chain's node `node` did not answer usefully, or a transaction was not mined in time."""

    def __init__(self, node: str, detail: str) -> None:
        super().__init__(f"the chain's node at {node}: {detail}")
        self.node = node
        self.detail = detail


class MissingDependency(StorageError, ImportError):
    """The optional package `package` is missing; it comes with the extra `extra`."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed. Install it with: pip install 'sealproof[{extra}]'")
        self.package = package
        self.extra = extra


class CorruptLog(StorageError):
    """The stored tree does not match the stored checkpoint. Restore a backup; nothing was signed."""
