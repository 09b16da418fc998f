"""A trial on a chain, and the files that pass between its organiser, the committee and the contract.

    TrialTerms       what the contract was made for, and the committee's keys: public, the same for everybody
    Case             a nonce that the organiser had issued: for the clinic that discloses, and for the committee
    Share            one member's signature of an enrolment
    SignedEnrolment  the sum of a quorum's signatures, which the contract takes

All digests are those of the contract (ledger/anchors/contracts/TrialEnrolment.vy): SHA-256 of a tag and fields of fixed
width. Terms that are not those of the contract give another digest, and signatures that it refuses. Nothing here knows
a chain: a member needs no node.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Final, Literal

from pydantic import Field

from api.entries import Reference
from privacy.canonical_json import (
    Address,
    Codec,
    DecimalInteger,
    Digest,
    Name,
    PairingKey,
    Point,
    PositiveInteger,
    Record,
    Text,
    UnsignedInteger,
)
from privacy.errors import UsageError, VerificationFailed
from privacy.zk.bls import (
    PAIRING,
    Pairing,
    ProvenKey,
    aggregate,
    public_key_eip2537,
    verify,
    verify_aggregate,
    verify_possession,
)

__all__ = [
    "CASE",
    "MAX_MEMBERS",
    "MEMBER",
    "SHARE",
    "SIGNED",
    "TERMS",
    "Case",
    "CommitteeMember",
    "Enrolment",
    "Share",
    "SignedEnrolment",
    "TrialTerms",
    "combine",
]

MAX_MEMBERS: Final = 64
"""What the contract takes."""

_TRIAL: Final = b"sealproof/trial/v1\n"
_NONCE: Final = b"sealproof/trial-nonce/v1\n"
_HANDLE: Final = b"sealproof/trial-handle/v1\n"
_ENROLMENT: Final = b"sealproof/enrolment/v1\n"
_WORD: Final = 32
_ADDRESS_BYTES: Final = 20
_MAX_THRESHOLD: Final = 1 << 62
"""No answer is that many grid steps, of either scheme; the contract's type would hold 2^255."""


@dataclass(frozen=True)
class CommitteeMember(Record):
    """A member's public key (96 bytes) with the proof that its secret is known (48 bytes)."""

    format: Literal["sealproof/committee-member/v1"]
    name: Name
    key: PairingKey
    possession: Point

    def proven(self, pairing: Pairing = PAIRING) -> ProvenKey:
        """The key, its proof of possession checked. Raises DecodeError, VerificationFailed(`bls.possession`)."""
        return verify_possession(self.key, self.possession, pairing)


@dataclass(frozen=True)
class TrialTerms(Record):
    """What a contract enrols for: the records of which output `output` of the model with entry `model` of the log
    `origin` is at least `threshold` grid steps of that model, if `quorum` of the members say so.

    Raises UsageError for terms that no contract has. Whether the keys are sound says `keys`, whether a contract has
    these terms says `api.chain.trial`.
    """

    format: Literal["sealproof/trial-terms/v1"]
    chain: PositiveInteger
    contract: Address
    origin: Text
    model: Reference
    output: UnsignedInteger
    threshold: DecimalInteger
    quorum: PositiveInteger
    members: Annotated[tuple[CommitteeMember, ...], Field(min_length=1, max_length=MAX_MEMBERS)]

    def __post_init__(self) -> None:
        if self.quorum > len(self.members):
            raise UsageError(f"trial: a quorum of {self.quorum} of {len(self.members)} members is never reached")
        if len({member.key for member in self.members}) != len(self.members):
            raise UsageError("trial: a key is that of two members")
        if not -_MAX_THRESHOLD < self.threshold < _MAX_THRESHOLD:
            raise UsageError("trial: no answer of a model reaches that threshold")

    @cached_property
    def committee(self) -> bytes:
        """Digest of the members' keys, in order."""
        digest = bytes(_WORD)
        for member in self.members:
            digest = hashlib.sha256(digest + public_key_eip2537(member.key)).digest()
        return digest

    @property
    def origin_digest(self) -> bytes:
        """SHA-256 of the log's origin."""
        return hashlib.sha256(self.origin.encode("utf-8")).digest()

    @cached_property
    def digest(self) -> bytes:
        """What every signature of this trial is bound to. Raises DecodeError for a key that is no point."""
        place = _fields(_unsigned(self.chain)) + _fields(self.contract, size=_ADDRESS_BYTES)
        return _digest(
            _TRIAL + place,
            self.origin_digest,
            _unsigned(self.model.index),
            self.model.leaf,
            _unsigned(self.output),
            self.threshold.to_bytes(_WORD, "big", signed=True),
            _unsigned(self.quorum),
            _unsigned(len(self.members)),
            self.committee,
        )

    def keys(self, pairing: Pairing = PAIRING) -> tuple[ProvenKey, ...]:
        """The members' keys. Raises DecodeError, VerificationFailed(`bls.possession`)."""
        return tuple(member.proven(pairing) for member in self.members)

    def handle(self, handle: bytes) -> bytes:
        """What this trial knows a record by: its blinded handle hashed once more, so that two trials cannot compare."""
        return _digest(_HANDLE, self.digest, handle)


@dataclass(frozen=True)
class Case(Record):
    """A nonce of a trial: `number` was counted by the contract, `blinding` was drawn by the organiser."""

    format: Literal["sealproof/trial-case/v1"]
    trial: Digest
    number: UnsignedInteger
    blinding: Digest

    @property
    def nonce(self) -> bytes:
        """What the clinic discloses to. It holds the trial, so a disclosure to it is for no other contract or chain."""
        return _digest(_NONCE, self.trial, _unsigned(self.number), self.blinding)


@dataclass(frozen=True)
class Enrolment(Record):
    """What a quorum says: the record `handle` (as the trial knows it) reaches the trial's threshold, by the disclosure
    with this leaf, about the prediction with this leaf, made to `nonce`."""

    trial: Digest
    prediction: Digest
    disclosure: Digest
    handle: Digest
    nonce: Digest

    @property
    def message(self) -> bytes:
        """What members sign."""
        return _digest(_ENROLMENT, self.trial, self.prediction, self.disclosure, self.handle, self.nonce)


@dataclass(frozen=True)
class Share(Record):
    """The signature of one member, counted from 0."""

    format: Literal["sealproof/enrolment-share/v1"]
    enrolment: Enrolment
    member: UnsignedInteger
    signature: Point

    def verify(self, terms: TrialTerms) -> None:
        """Raises VerificationFailed: `enrolment.trial`, `enrolment.member`, `bls.signature`; DecodeError."""
        _of_trial(self.enrolment, terms)
        if self.member >= len(terms.members):
            raise VerificationFailed("enrolment.member", f"the committee has no member {self.member}")
        verify(terms.members[self.member].key, self.enrolment.message, self.signature)


@dataclass(frozen=True)
class SignedEnrolment(Record):
    """The signature of several members, in ascending order."""

    format: Literal["sealproof/signed-enrolment/v1"]
    enrolment: Enrolment
    members: Annotated[tuple[UnsignedInteger, ...], Field(min_length=1, max_length=MAX_MEMBERS)]
    signature: Point

    def __post_init__(self) -> None:
        if list(self.members) != sorted(set(self.members)):
            raise UsageError("signed enrolment: members are named once each, in ascending order")

    @property
    def bitmap(self) -> int:
        """Bit i: member i signed."""
        return sum(1 << member for member in self.members)

    def verify(self, terms: TrialTerms, pairing: Pairing = PAIRING) -> None:
        """Check what the contract checks of a signature: whose it is, of which trial, and that they are a quorum.

        Raises VerificationFailed: `enrolment.trial`, `enrolment.member`, `enrolment.quorum`, `bls.*`; DecodeError.
        """
        _of_trial(self.enrolment, terms)
        if self.members[-1] >= len(terms.members):
            raise VerificationFailed("enrolment.member", f"the committee has no member {self.members[-1]}")
        if len(self.members) < terms.quorum:
            raise VerificationFailed("enrolment.quorum", f"{len(self.members)} of {terms.quorum} needed members signed")
        keys = [terms.members[member].proven(pairing) for member in self.members]
        verify_aggregate(keys, self.enrolment.message, self.signature, pairing)


def combine(terms: TrialTerms, shares: Sequence[Share]) -> SignedEnrolment:
    """Verify every share and add them up; the same member's twice counts once.

    Raises UsageError for no share, shares of different enrolments or fewer than the quorum; VerificationFailed and
    DecodeError for a share that does not hold, which is named.
    """
    if not shares:
        raise UsageError("there is no share to combine")
    first = shares[0].enrolment
    by_member: dict[int, bytes] = {}
    for share in shares:
        if share.enrolment != first:
            raise UsageError("these shares are of different enrolments: combine those of one")
        try:
            share.verify(terms)
        except VerificationFailed as error:
            raise VerificationFailed(error.check, f"share of member {share.member}: {error.detail}") from error
        by_member[share.member] = share.signature
    if len(by_member) < terms.quorum:
        raise UsageError(f"{len(by_member)} members signed, {terms.quorum} are needed")
    members = tuple(sorted(by_member))
    signature = aggregate([by_member[member] for member in members])
    signed = SignedEnrolment("sealproof/signed-enrolment/v1", first, members, signature)
    signed.verify(terms)
    return signed


MEMBER: Final = Codec(CommitteeMember, "committee member", 1 << 12)
TERMS: Final = Codec(TrialTerms, "trial terms", 1 << 16)
CASE: Final = Codec(Case, "trial case", 1 << 12)
SHARE: Final = Codec(Share, "enrolment share", 1 << 12)
SIGNED: Final = Codec(SignedEnrolment, "signed enrolment", 1 << 12)


def _of_trial(enrolment: Enrolment, terms: TrialTerms) -> None:
    if enrolment.trial != terms.digest:
        raise VerificationFailed("enrolment.trial", "it is an enrolment in another trial than these terms")


def _digest(tag: bytes, *fields: bytes) -> bytes:
    return hashlib.sha256(tag + _fields(*fields)).digest()


def _fields(*fields: bytes, size: int = _WORD) -> bytes:
    """Fields of one width, so that no two lists of them are the same bytes. Raises UsageError."""
    if any(len(field) != size for field in fields):
        raise UsageError(f"a digest of a trial takes fields of {size} bytes")
    return b"".join(fields)


def _unsigned(value: int) -> bytes:
    return value.to_bytes(_WORD, "big")
