"""When a prediction was made, by others than the server that made it: the first head with it that witnesses cosigned.

The attestation is dated by the server alone. Where the records were to be used until a certain time, an auditor who
knows witnesses of the log asks them instead: their cosignatures are dated, and a server cannot have an old one for a
head that did not exist then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from api.client.times import told
from api.client.trust import TrustedLog
from ledger import VerifiedHead, verify_consistency
from ledger.errors import VerificationFailed as LogRefused
from ledger.trust_policy import WitnessedHead
from privacy.canonical_json import parse_timestamp
from privacy.errors import VerificationFailed

__all__ = ["Archive", "check_in_time"]

_LOOKED_AT: Final = 64
"""Heads that are looked at for one that is old enough: their times grow with their sizes."""


class Archive(Protocol):
    """Where published heads are found. Nothing that it answers is trusted."""

    def publications(self, start: int, limit: int) -> Sequence[bytes]: ...

    def consistency(self, old: int, new: int) -> Sequence[bytes]: ...


def check_in_time(
    until: str | None,
    index: int,
    trusted: TrustedLog,
    head: VerifiedHead,
    witnessed: WitnessedHead | None,
    archive: Archive | None,
) -> str:
    """A sentence on whether entry `index`, which is under `head`, was logged before `until`; empty without an end.

    `witnessed` is what the policy says of `head`. If that was cosigned too late, an older head may show it: it is
    looked for in `archive`, and without one nothing is refused, since proofs may be fetched at any later time.

    Raises VerificationFailed(`policy.expired`) if an archive has no head with the entry that witnesses had seen by
    then.
    """
    if until is None:
        return ""
    if witnessed is None or witnessed.time is None:
        return f" That it was made by {until} is the server's word: no policy with witnesses was given."
    limit = int(parse_timestamp(until).timestamp())
    if witnessed.time <= limit:
        return f" Witnesses had seen it by {told(witnessed.time)}, before the records' end at {until}."
    if archive is None:
        return (
            f" That it was made by {until} is the server's word: this head was cosigned later, and no older one shown."
        )
    first: int | None = None
    for note in archive.publications(index + 1, _LOOKED_AT):
        try:
            older = trusted.witnesses(note)
        except LogRefused:
            continue  # no quorum had cosigned this one
        if older is None or older.time is None or not index < older.head.size <= head.size:
            continue
        first = older.time if first is None else min(first, older.time)
        if older.time <= limit:
            steps = archive.consistency(older.head.size, head.size) if older.head.size < head.size else ()
            verify_consistency(older.head.size, head.size, steps, older.head.root, head.root)
            return f" Witnesses had seen it by {told(older.time)}, before the records' end at {until}."
    seen = "no witnesses saw it" if first is None else f"witnesses saw it first at {told(first)}"
    raise VerificationFailed("policy.expired", f"the records were to be used until {until}, and {seen}")
