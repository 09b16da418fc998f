"""Who asked whom to show something, and what came of it: the part of a registry about requests, grants, refusals and
disclosures (docs/spec/protocol.md, section 6).

    request     open, until its clinic grants or refuses it, or its consumer withdraws it (a revocation)
    granted     by one grant or more, each of which ends at a moment of its own, or earlier by a revocation
    refused     for good: whoever still wants something asks again
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from api.entries import Disclosure, Grant, Reference, Refusal, Request, Revocation
from privacy.errors import VerificationFailed

__all__ = ["ConsentIndex", "Standing"]

Standing = Literal["open", "granted", "refused", "withdrawn"]
"""How a request stands."""


@dataclass
class ConsentIndex:
    """Entries about consent, by what they are about. The registry adds what it has checked, in ledger order.

    Methods may be called from many threads; they hold `lock`, which is the registry's.
    """

    lock: threading.RLock
    _requests: dict[tuple[int, bytes], int] = field(default_factory=dict)
    """By consumer and document."""
    _documents: dict[tuple[int, bytes], int] = field(default_factory=dict)
    """By clinic and document: grants."""
    _addressed: dict[int, list[int]] = field(default_factory=dict)
    """By party, clinic or consumer: the requests to it or of it."""
    _open: dict[int, int] = field(default_factory=dict)
    """The consumers of requests that are neither granted nor refused nor withdrawn, by request."""
    _waiting: Counter[int] = field(default_factory=Counter)
    """How many of these each consumer has."""
    _grants: dict[int, list[int]] = field(default_factory=dict)
    _refusals: dict[int, int] = field(default_factory=dict)
    """Both by request."""
    _disclosures: dict[int, list[int]] = field(default_factory=dict)
    """By grant."""

    def requests(self, party: int) -> Sequence[int]:
        """The requests to a clinic or of a consumer, in ledger order."""
        with self.lock:
            return tuple(self._addressed.get(party, ()))

    def open_requests(self, consumer: int) -> int:
        """How many requests of a consumer wait for an answer."""
        with self.lock:
            return self._waiting[consumer]

    def grants(self, request: int) -> Sequence[int]:
        """What was granted of a request, in ledger order."""
        with self.lock:
            return tuple(self._grants.get(request, ()))

    def answer(self, request: int, size: int | None = None) -> Standing:
        """What the clinic has answered within the first `size` entries (default: all), whatever was revoked since."""

        def within(index: int | None) -> bool:
            return index is not None and (size is None or index < size)

        if any(map(within, self.grants(request))):
            return "granted"
        return "refused" if within(self.refusal(request)) else "open"

    def refusal(self, request: int) -> int | None:
        """The entry that refuses a request, or None."""
        return self._refusals.get(request)

    def disclosures(self, grant: int) -> Sequence[int]:
        """What was shown under a grant, in ledger order."""
        with self.lock:
            return tuple(self._disclosures.get(grant, ()))

    # -- for the registry ---------------------------------------------------------------------------------------------

    def check_request(self, request: Request, consumer: Reference) -> None:
        """Raise VerificationFailed(`request.again`) for a document that this consumer has asked with already."""
        index = self._requests.get((consumer.index, request.document))
        if index is not None:
            raise VerificationFailed("request.again", f"this document is that of the request in entry {index} already")

    def check_grant(self, grant: Grant, clinic: Reference) -> None:
        """A grant that is given once: what a second one gives, revoking the first would not end.

        Raises VerificationFailed: `grant.again`, or `grant.refused` for a request that was refused.
        """
        index = self._documents.get((clinic.index, grant.document))
        if index is not None:
            raise VerificationFailed("grant.again", f"this document is that of the grant in entry {index} already")
        if grant.request is not None and grant.request.index in self._refusals:
            index = self._refusals[grant.request.index]
            raise VerificationFailed("grant.refused", f"entry {index} has refused this request: wait for another one")

    def check_refusal(self, refusal: Refusal) -> None:
        """Raise VerificationFailed: `refusal.again`, or `refusal.granted` where a grant is there to be revoked."""
        request = refusal.request.index
        if request in self._refusals:
            raise VerificationFailed("refusal.again", f"entry {self._refusals[request]} has refused it already")
        if request in self._grants:
            index = self._grants[request][0]
            raise VerificationFailed("refusal.granted", f"entry {index} has granted it: revoke what was granted")

    def add(self, index: int, author: Reference, body: Request | Grant | Refusal | Disclosure | Revocation) -> None:
        """Index an entry of a registry."""
        match body:
            case Request():
                self._requests[author.index, body.document] = index
                self._open[index] = author.index
                self._waiting[author.index] += 1
                for party in (body.clinic.index, author.index):
                    self._addressed.setdefault(party, []).append(index)
            case Grant():
                self._documents[author.index, body.document] = index
                if body.request is not None:
                    self._close(body.request.index)
                    self._grants.setdefault(body.request.index, []).append(index)
            case Refusal():
                self._close(body.request.index)
                self._refusals[body.request.index] = index
            case Revocation():
                self._close(body.target.index)
            case Disclosure() if body.grant is not None:
                self._disclosures.setdefault(body.grant.index, []).append(index)

    def _close(self, request: int) -> None:
        consumer = self._open.pop(request, None)
        if consumer is not None:
            self._waiting[consumer] -= 1
