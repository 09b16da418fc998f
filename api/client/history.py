"""What only a connection to the ledger can show: the log's present head, and revocations.

The whole log is read and hashed up to its signed head, so that a server cannot leave a revocation out. Nothing that a
server answers is believed before that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from api.client.trust import TrustedLog, TrustStore
from api.entries import AnyEntry, Party, Reference, Revocation, decode_entry, verify_signature
from ledger import VerifiedHead, leaf_hash, open_checkpoint, verify_consistency
from ledger.merkle import Frontier
from privacy.errors import DecodeError, VerificationFailed

__all__ = ["LedgerAccess", "Written", "check_history", "whole_log"]

_PAGE: Final = 256


class LedgerAccess(Protocol):
    """What an auditor may ask a server for. Raises DecodeError or OSError where there is no usable answer."""

    def checkpoint(self) -> bytes: ...

    def entries(self, start: int, stop: int) -> Sequence[bytes]: ...

    def consistency(self, old: int, new: int) -> Sequence[bytes]: ...

    def publications(self, start: int, limit: int) -> Sequence[bytes]: ...

    def blob(self, digest: bytes) -> bytes: ...


@dataclass(frozen=True)
class Written:
    """An entry that may have been revoked: the index of its author's party entry, and the key registered there.

    What was made of it is entry `used`: a revocation before that is refused under the name `check`.
    """

    reference: Reference
    author: int
    public_key: bytes
    used: int
    check: str = "head.revoked"


def check_history(
    ledger: LedgerAccess,
    trusted: TrustedLog,
    head: VerifiedHead,
    store: TrustStore | None,
    entries: Sequence[Written],
    parties: Mapping[str, int],
) -> tuple[Reference, ...]:
    """Read the log as it stands, which must extend `head`, and look for revocations of `entries`.

    `parties` are the names that the reader is shown, with the indices of their party entries: a log that has a second
    party of one of these names is refused, since nobody could tell who is meant.

    Returns those that were revoked after they were used. With a `store`, the present head must also extend the last one
    seen, and is kept.

    Raises:
        VerificationFailed: the `check` of an entry that was revoked before it was used, `ledger.name`,
            `ledger.entries`, `monitor.rollback`.
        ledger.VerificationFailed, ledger.DecodeError: a head or a proof that does not hold.
    """
    note = ledger.checkpoint()
    if store is not None:
        present = store.follow(note, trusted.origin, ledger.consistency)
    else:
        present = open_checkpoint(note, trusted.verifier, trusted.origin)
        trusted.witnesses(note)
    if present.size < head.size:
        raise VerificationFailed(
            "monitor.rollback", f"the server shows a log of {present.size} entries, the bundle one of {head.size}"
        )
    proof = ledger.consistency(head.size, present.size) if head.size < present.size else ()
    verify_consistency(head.size, present.size, proof, head.root, present.root)
    revoked_since: list[Reference] = []
    for index, data in whole_log(ledger, present):
        entry = _decoded(data)
        if entry is None:
            continue  # what means nothing revokes nothing; its bytes are in the root all the same
        if isinstance(entry.body, Party) and parties.get(entry.body.name, index) != index:
            raise VerificationFailed("ledger.name", f"entries {parties[entry.body.name]} and {index} share one name")
        target = _revoked(entry, entries)
        if target is None:
            continue
        if index < target.used:
            detail = f"entry {target.reference.index} had been revoked by entry {index}"
            raise VerificationFailed(target.check, detail)
        revoked_since.append(target.reference)
    return tuple(revoked_since)


def whole_log(ledger: LedgerAccess, head: VerifiedHead) -> Iterator[tuple[int, bytes]]:
    """(index, bytes) of every entry under `head`.

    Whether they are the log's is known at the end: believe nothing before the iterator is exhausted. Raises
    VerificationFailed(`ledger.entries`) there, and where the server shows too few.
    """
    frontier = Frontier()
    for start in range(0, head.size, _PAGE):
        stop = min(start + _PAGE, head.size)
        page = ledger.entries(start, stop)
        if len(page) != stop - start:
            raise VerificationFailed("ledger.entries", f"asked for {stop - start} entries, got {len(page)}")
        frontier, _ = frontier.extend(leaf_hash(data) for data in page)
        yield from enumerate(page, start)
    if frontier.root() != head.root:
        raise VerificationFailed("ledger.entries", "the entries that the server shows are not those of its log")


def _decoded(data: bytes) -> AnyEntry | None:
    try:
        return decode_entry(data)
    except DecodeError:
        return None


def _revoked(entry: AnyEntry, entries: Sequence[Written]) -> Written | None:
    """Which of `entries` this log entry revokes. Only who wrote an entry can revoke it."""
    if not isinstance(entry.body, Revocation) or entry.author is None:
        return None
    for written in entries:
        if entry.body.target == written.reference and entry.author.index == written.author:
            try:
                verify_signature(entry, written.public_key)
            except VerificationFailed:
                return None  # a log holds what it likes; a forged revocation is none
            return written
    return None
