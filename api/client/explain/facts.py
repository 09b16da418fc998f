"""What an explanation is made from: a verified bundle, what its reader gave, and who wrote the entries in it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal, localcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

from api.binding import Located
from api.client.anchored import AnchorComparison
from api.client.joint_prediction import VerifiedJointPrediction
from api.client.prediction import Check, VerifiedPrediction
from api.client.shown import ShownFact, VerifiedDisclosure
from api.client.trust import TrustedLog
from api.entries import Party, Reference, decode_entry
from api.governance import Governance
from ledger import VerifiedHead
from ledger.merkle import leaf_hash
from ledger.trust_policy import WitnessedHead
from privacy.bundle import BundleReader
from privacy.canonical_json import parse_timestamp
from privacy.errors import VerificationFailed

__all__ = [
    "AnyPrediction",
    "Facts",
    "Found",
    "Reading",
    "amount",
    "fingerprint",
    "fraction_text",
    "in_capitals",
    "listed",
    "many",
    "told",
]

AnyPrediction = VerifiedPrediction | VerifiedJointPrediction
Found = AnyPrediction | VerifiedDisclosure


@dataclass(frozen=True)
class Reading:
    """What the reader gave. `options` are those of `sealproof verify`, as typed, so that anybody can repeat it.

    `trusted` is the log that was trusted, on this machine or (`pinned`) by an option. `server`: whether it was asked
    for revocations. `cached`: certificates that this machine has verified before were not verified again.
    """

    options: tuple[str, ...]
    pinned: bool
    server: bool = False
    nonce: bool = False
    cached: bool = True
    governance: Governance | None = None
    contract: bool = False
    anchors: tuple[AnchorComparison, ...] = ()
    trusted: TrustedLog | None = None


class Facts:
    """A verified bundle. What is read from its file again is compared with the leaf hashes that were verified.

    Raises OSError, DecodeError, and VerificationFailed(`entry.reference`) if the file was changed since.
    """

    def __init__(self, found: Found, reading: Reading) -> None:
        self.found = found
        self.reading = reading
        self.disclosure = found if isinstance(found, VerifiedDisclosure) else None
        self.prediction: AnyPrediction = found.prediction if isinstance(found, VerifiedDisclosure) else found
        self.checks: tuple[Check, ...] = found.checks
        path = self.prediction.path
        self.bundle_bytes = path.stat().st_size
        with BundleReader(path) as reader:
            self._entries = {index: reader.entry(index) for index in reader.entry_indices()}
            proof = None if self.disclosure is None else self.disclosure.entry.body.proof
            self.disclosure_bytes = None if proof is None else len(reader.blob(proof))

    @property
    def path(self) -> Path:
        """The file."""
        return self.prediction.path

    @property
    def head(self) -> VerifiedHead:
        """The ledger head that everything was verified under."""
        return self.prediction.head

    @property
    def mpc(self) -> VerifiedJointPrediction | None:
        """The prediction, if it is one of multi-party computation."""
        return self.prediction if isinstance(self.prediction, VerifiedJointPrediction) else None

    @property
    def ckks(self) -> VerifiedPrediction | None:
        """The prediction, if it is one on encrypted records."""
        return self.prediction if isinstance(self.prediction, VerifiedPrediction) else None

    @property
    def steps(self) -> frozenset[str]:
        """Names of the steps that were taken, all of which passed."""
        return frozenset(check.name for check in self.checks)

    @property
    def clinic(self) -> Located[Party]:
        """The party whose records they are."""
        return self.author(self.prediction.records)

    @property
    def witnessed(self) -> WitnessedHead | None:
        """What the witnesses of the reader's policy say of the head; None without a policy."""
        trusted = self.reading.trusted
        return None if trusted is None else trusted.witnesses(self.head.note)

    @property
    def until(self) -> str | None:
        """The end that the clinic set for the use of its records, if there is one."""
        return self.prediction.records.body.policy.until

    def in_time(self, until: str) -> bool:
        """Whether others than who made it showed that it was made before this end, which the audit looked at.

        As `api.client.dating` says: by the witnesses of this head, or of an older one that the server showed.
        """
        witnessed = self.witnessed
        if witnessed is None or witnessed.time is None:
            return False
        return witnessed.time <= int(parse_timestamp(until).timestamp()) or self.reading.server

    def author(self, located: Located[Any]) -> Located[Party]:
        """The party that wrote a verified entry, and where it is registered."""
        author = decode_entry(self._entry(located.reference)).author
        if author is None:
            raise VerificationFailed("entry.author", f"entry {located.reference.index} has no author")
        body = decode_entry(self._entry(author)).body
        if not isinstance(body, Party):
            raise VerificationFailed("entry.author", f"the author of entry {located.reference.index} is no party")
        return Located(author, body)

    def _entry(self, reference: Reference) -> bytes:
        data = self._entries.get(reference.index)
        if data is None or leaf_hash(data) != reference.leaf:
            raise VerificationFailed("entry.reference", f"entry {reference.index} was changed while it was explained")
        return data


def fingerprint(public_key: bytes) -> str:
    """How reports and explanations tell keys of parties apart."""
    return f"SHA-256 {hashlib.sha256(public_key).hexdigest()}"


def many(count: int, thing: str) -> str:
    """A number of things in words."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def in_capitals(sentence: str) -> str:
    """A sentence that begins with a capital letter and ends with a full stop."""
    return f"{sentence[:1].upper()}{sentence[1:]}."


def told(fact: ShownFact) -> str:
    """What is shown of whose answer, and how it is read, without a full stop. Names of outputs are quoted, too."""
    subject = repr(fact.output_name) + ("" if fact.versus_name is None else f" minus {fact.versus_name!r}")
    meaning = "" if fact.meaning is None else f", {fact.meaning}"
    return f"{subject} of record {fact.record_id!r} {fact.in_words}{meaning}"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def fraction_text(value: Fraction) -> str:
    """A fraction exactly, for machines."""
    return f"{value.numerator}/{value.denominator}"


def amount(value: Fraction, *, up: bool) -> str:
    """A number with six figures, never below it (`up`) or never above it."""
    rounding = ROUND_CEILING if up else ROUND_FLOOR
    with localcontext(Context(prec=60, rounding=rounding)):
        exact = Decimal(value.numerator) / value.denominator
    return f"{Context(prec=6, rounding=rounding).create_decimal(exact).normalize():f}"
