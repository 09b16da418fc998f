"""What a server demands of a new entry about consent, beyond what every ledger shows (`api.registry`).

Ledgers of older releases hold disclosures without a grant, and whether a moment has passed only a clock tells: so this
is asked when an entry is submitted, and never of what is logged. An auditor sees a disclosure without a grant as one,
and has the witnesses' clocks to date the others by.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from api.consent import MAX_DOCUMENT_BYTES
from api.entries import AnyEntry, Disclosure, Grant, Reference, Request
from api.errors import NotPermitted
from api.registry import Registry
from privacy.canonical_json import parse_timestamp
from privacy.errors import VerificationFailed
from privacy.sealed import OVERHEAD_BYTES

__all__ = ["MAX_REQUEST_BOX_BYTES", "check_consent"]

MAX_REQUEST_BOX_BYTES: Final = MAX_DOCUMENT_BYTES + OVERHEAD_BYTES
"""Of a sealed request; what is larger holds none, and a clinic that looks into its mailbox need not fetch it."""


def check_consent(registry: Registry, entry: AnyEntry, open_requests: int, now: datetime) -> None:
    """Check what only a new entry must keep; `open_requests` is how many of a consumer may be open at a time.

    Raises:
        NotPermitted: `disclosure.grant` for something shown without a grant, `request.cap`.
        VerificationFailed: `consent.expired` under a grant, or of one, that has ended; `ledger.reference`.
    """
    match entry.body:
        case Disclosure(grant=None):
            raise NotPermitted("disclosure.grant", "answers are shown under a grant: log one first (sealproof clinic)")
        case Disclosure(grant=Reference() as reference):
            _check_until(registry.resolve(reference, Grant).body, now)
        case Grant() as grant:
            _check_until(grant, now)
        case Request() if entry.author is not None:
            waiting = registry.consents.open_requests(entry.author.index)
            if waiting >= open_requests:
                detail = f"{waiting} requests of party {entry.author.index} are open: wait for answers or withdraw some"
                raise NotPermitted("request.cap", detail)


def _check_until(grant: Grant, now: datetime) -> None:
    if parse_timestamp(grant.until) < now:
        raise VerificationFailed("consent.expired", f"the grant ended at {grant.until}")
