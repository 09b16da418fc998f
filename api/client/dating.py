"""When an entry was logged, by others than whoever made it: the first head with it that witnesses cosigned.

An attestation is dated by its server alone, and a disclosure by its clinic. Where the records were to be used, or a
consent holds, until a certain time, an auditor who knows witnesses of the log asks them instead: their cosignatures are
dated, and nobody can have an old one for a head that did not exist then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from api.client.times import told
from api.client.trust import TrustedLog
from ledger import VerifiedHead, verify_consistency
from ledger.errors import VerificationFailed as LogRefused
from ledger.trust_policy import WitnessedHead
from privacy.canonical_json import parse_timestamp
from privacy.errors import VerificationFailed

__all__ = ["CONSENT", "RECORDS", "Archive", "Limit", "check_in_time"]

_LOOKED_AT: Final = 64
"""Heads that are looked at for one that is old enough: their times grow with their sizes."""


@dataclass(frozen=True)
class Limit:
    """A rule with an end: the name of its check, who says else that it was kept, and the rule in words."""

    check: str
    word: str
    end: str
    rule: str


RECORDS: Final = Limit("policy.expired", "the server's word", "the records' end", "the records were to be used")
"""Records are used for a prediction."""

CONSENT: Final = Limit("consent.expired", "the clinic's word", "the end of the consent", "the clinic consented")
"""Something is disclosed under a grant."""


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
    rule: Limit = RECORDS,
) -> str:
    """A sentence on whether entry `index`, which is under `head`, was logged before `until`; empty without an end.

    `witnessed` is what the policy says of `head`. If that was cosigned too late, an older head may show it: it is
    looked for in `archive`, and without one nothing is refused, since proofs may be fetched at any later time.

    Raises VerificationFailed(`rule.check`) if an archive has no head with the entry that witnesses had seen by then.
    """
    if until is None:
        return ""
    if witnessed is None or witnessed.time is None:
        return f" That it was made by {until} is {rule.word}: no policy with witnesses was given."
    limit = int(parse_timestamp(until).timestamp())
    if witnessed.time <= limit:
        return f" Witnesses had seen it by {told(witnessed.time)}, before {rule.end} at {until}."
    if archive is None:
        return f" That it was made by {until} is {rule.word}: this head was cosigned later, and no older one shown."
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
            return f" Witnesses had seen it by {told(older.time)}, before {rule.end} at {until}."
    seen = "no witnesses saw it" if first is None else f"witnesses saw it first at {told(first)}"
    raise VerificationFailed(rule.check, f"{rule.rule} until {until}, and {seen}")
