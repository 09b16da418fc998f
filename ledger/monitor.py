"""Following a log over time: accept a new head only when it extends the last one."""

from __future__ import annotations

from collections.abc import Sequence

from ledger.checkpoint import VerifiedHead, open_checkpoint
from ledger.errors import Fork, InconsistentGrowth, Rollback, UsageError, VerificationFailed
from ledger.merkle import verify_consistency
from ledger.note import NoteVerifier

__all__ = ["follow"]


def follow(
    old: VerifiedHead | None, new: bytes, proof: Sequence[bytes], verifier: NoteVerifier, origin: str
) -> VerifiedHead:
    """The new head, verified to extend `old`; keep it (durably) and pass it the next time.

    `old` is None on first contact only: that head is trusted as it is. From None and from an empty tree, and to the
    same head, the proof must be empty. Raises Rollback, Fork or InconsistentGrowth (each holds the signed evidence),
    and what `open_checkpoint` raises. After any error the caller still holds `old`.
    """
    head = open_checkpoint(new, verifier, origin)
    if old is not None and old.origin != origin:
        raise UsageError(f"the old head is of the log {old.origin!r}, not of {origin!r}")
    if old is None or old.size == 0:
        # Every tree extends the empty one, which `verify_consistency` leaves to its caller to say.
        if proof:
            raise VerificationFailed("consistency.length", "a first head and growth from the empty tree need no hashes")
        return head
    if head.size < old.size:
        raise Rollback(old.size, head.size, old.note, new)
    if head.size == old.size and head.root != old.root:
        raise Fork(head.size, old.note, new)
    try:
        verify_consistency(old.size, head.size, proof, old.root, head.root)
    except VerificationFailed as reason:
        raise InconsistentGrowth(reason, old.note, new, proof) from reason
    return head
