"""A copy of the log's entries that a node keeps, read once and checked against signed heads.

Revocations, suspensions and exposure are read off it, so that a node does not depend on what its server says of them.
"""

from __future__ import annotations

from typing import Final

from api.client.session import Session, log_errors
from api.registry import Registry
from ledger import VerifiedHead, leaf_hash, open_checkpoint
from ledger.merkle import Frontier
from privacy.errors import VerificationFailed

__all__ = ["Mirror"]

_PAGE: Final = 256


class Mirror:
    """The entries of the trusted log of `session`, up to the newest head that its folder has seen."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._frontier = Frontier()
        self.registry = Registry(session.identity.origin)

    def follow(self, note: bytes) -> VerifiedHead:
        """Tie the head that `note` signs to the newest one that the folder has seen, and read up to the newest.

        It may be older: a server that shows an old head does not hide what this party knows the log to hold, such as a
        revocation of its own.

        Raises:
            VerificationFailed: `ledger.entries` if the entries are not those of the newest head, and what a log that
                breaks the rules of entries breaks. The copy is made anew next time.
            ServerError, DecodeError, ledger.VerificationFailed.
        """
        with log_errors():
            origin = self._session.identity.origin
            verifier = self._session.trust.find(origin)
            if verifier is None:
                raise VerificationFailed("log.untrusted", f"no trusted key for the log {origin!r}")
            head = open_checkpoint(note, verifier, origin)
            self._session.trust.observe(head, self._session.server.consistency)
            newest = self._session.trust.head(origin) or head
        try:
            self._read(newest)
        except Exception:
            self._frontier, self.registry = Frontier(), Registry(self._session.identity.origin)
            raise
        return head

    def _read(self, head: VerifiedHead) -> None:
        if head.size < self._frontier.size:
            return  # another reader of the folder has put an older one in its place; both are tied to the last
        while self._frontier.size < head.size:
            start = self._frontier.size
            page = self._session.server.entries(start, min(start + _PAGE, head.size))
            if not page:
                raise VerificationFailed("ledger.entries", f"the server shows no entry {start} of {head.size}")
            for entry in page:
                self.registry.add(entry)
            self._frontier, _ = self._frontier.extend(leaf_hash(entry) for entry in page)
        if self._frontier.root() != head.root:
            raise VerificationFailed("ledger.entries", "the entries that the server shows are not those of its log")
