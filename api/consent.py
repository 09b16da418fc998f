"""What a consumer asks and what a clinic consents to: the documents behind request and grant entries
(docs/spec/protocol.md, section 6).

Both parties keep them; the ledger has their SHA-256, which a nonce or a salt keeps anybody from guessing. A disclosure
is made for one grant, and says only what that grant lists: of these records, under these models, about these questions,
for this purpose, to this recipient, until this moment.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from pydantic import Field

from api.entry_parts import Reference
from privacy.canonical_json import Codec, DecimalInteger, Digest, Record, Text, Timestamp, UnsignedInteger
from privacy.errors import UsageError, VerificationFailed

__all__ = [
    "MAX_DOCUMENT_BYTES",
    "GrantDocument",
    "Question",
    "RequestDocument",
    "Scope",
    "check_answers_request",
    "check_within",
]

MAX_DOCUMENT_BYTES: Final = 1 << 19
_MAX_QUESTIONS: Final = 256

RecordId = Annotated[str, Field(min_length=1, max_length=1024)]
Purpose = Annotated[Text, Field(min_length=1)]


@dataclass(frozen=True)
class Question(Record):
    """One thing about one answer of one record.

    `threshold`: is it at least `value` steps of the model's grid? `exact`: what is it, to within `tolerance` steps?
    `open`: all of it, of a committed answer. With `versus` the answer is the difference of two outputs, output minus
    versus. Raises UsageError for a question that nobody can answer.
    """

    record: RecordId = field(repr=False)
    output: UnsignedInteger
    versus: UnsignedInteger | None
    kind: Literal["threshold", "exact", "open"]
    value: DecimalInteger
    tolerance: UnsignedInteger

    def __post_init__(self) -> None:
        if self.versus == self.output:
            raise UsageError("a difference is of two different outputs")
        if self.kind != "threshold" and self.value != 0:
            raise UsageError("only a threshold has a value: what an exact answer is, is not for the question to say")
        if (self.kind == "exact") != (self.tolerance > 0):
            raise UsageError("an exact question has a tolerance of one grid step or more, others have none")


@dataclass(frozen=True)
class Scope(Record):
    """Which predictions a question is about: one, or any with `model`, on `records` if they are named.

    Raises UsageError unless it is one or the other.
    """

    prediction: Reference | None
    model: Reference | None
    records: Reference | None

    def __post_init__(self) -> None:
        if (self.prediction is None) == (self.model is None) or (self.records is not None and self.model is None):
            raise UsageError("a scope is a prediction, or a model with or without records")

    def covers(self, prediction: Reference, records: Reference, model: Reference) -> bool:
        """Whether a prediction with these entries is meant."""
        if self.prediction is not None:
            return self.prediction == prediction
        return self.model == model and self.records in (None, records)


@dataclass(frozen=True)
class RequestDocument(Record):
    """What a consumer asks a clinic of the log `origin`. `nonce`: 32 random bytes, which the disclosure will bear."""

    format: Literal["sealproof/request/v1"]
    origin: Text
    clinic: Reference
    consumer: Reference
    scope: Scope
    purpose: Purpose
    nonce: Digest = field(repr=False)
    questions: Annotated[tuple[Question, ...], Field(min_length=1, max_length=_MAX_QUESTIONS)]

    def __post_init__(self) -> None:
        _check_different(self.questions)

    def encode(self) -> bytes:
        """Canonical bytes, of which a request entry names the SHA-256. Raises UsageError."""
        return _REQUEST.encode(self)

    @staticmethod
    def decode(data: bytes) -> RequestDocument:
        """Strict inverse of `encode`. Raises DecodeError."""
        return _REQUEST.decode(data)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical bytes."""
        return hashlib.sha256(self.encode()).digest()


@dataclass(frozen=True)
class GrantDocument(Record):
    """What a clinic consents to show, to whom, why and until when.

    `request` is the digest of the document it answers and `consumer` the party that asked; both are null for a
    recipient who has given a nonce in another way. `salt`: 32 random bytes.
    """

    format: Literal["sealproof/grant/v1"]
    origin: Text
    clinic: Reference
    consumer: Reference | None
    request: Digest | None
    scope: Scope
    purpose: Purpose
    nonce: Digest = field(repr=False)
    questions: Annotated[tuple[Question, ...], Field(min_length=1, max_length=_MAX_QUESTIONS)]
    until: Timestamp
    salt: Digest = field(repr=False)

    def __post_init__(self) -> None:
        if (self.consumer is None) != (self.request is None):
            raise UsageError("a grant answers a request of a consumer, or names neither")
        _check_different(self.questions)

    def encode(self) -> bytes:
        """Canonical bytes, of which a grant entry names the SHA-256. Raises UsageError."""
        return _GRANT.encode(self)

    @staticmethod
    def decode(data: bytes) -> GrantDocument:
        """Strict inverse of `encode`. Raises DecodeError."""
        return _GRANT.decode(data)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical bytes."""
        return hashlib.sha256(self.encode()).digest()


_REQUEST: Final = Codec(RequestDocument, "request", MAX_DOCUMENT_BYTES)
_GRANT: Final = Codec(GrantDocument, "grant", MAX_DOCUMENT_BYTES)


def _check_different(questions: Sequence[Question]) -> None:
    # a - b and b - a are one answer: two thresholds on them would bracket it.
    places = [(q.record, frozenset((q.output, q.versus)), q.kind) for q in questions]
    if len(set(places)) != len(places):
        raise UsageError("two questions of a kind are about the same answer")


def check_answers_request(grant: GrantDocument, request: RequestDocument) -> None:
    """Check that a grant gives what a request asks for, or less, and to nobody else and for nothing else.

    Raises VerificationFailed(`consent.request`).
    """
    if grant.request != request.digest or grant.consumer != request.consumer:
        raise VerificationFailed("consent.request", "the grant answers another request")
    for name in ("origin", "clinic", "scope", "purpose", "nonce"):
        if getattr(grant, name) != getattr(request, name):
            raise VerificationFailed("consent.request", f"grant and request have different {name}s")
    if not set(grant.questions) <= set(request.questions):
        raise VerificationFailed("consent.request", "the grant is about something that was not asked")


def check_within(
    grant: GrantDocument, prediction: Reference, records: Reference, model: Reference, answered: Iterable[Question]
) -> None:
    """Check that what is disclosed of a prediction is what the grant lists; `answered` without the values shown.

    Raises VerificationFailed(`consent.scope`).
    """
    if not grant.scope.covers(prediction, records, model):
        raise VerificationFailed(
            "consent.scope", "the grant is about another prediction, other records or another model"
        )
    if not set(answered) <= set(grant.questions):
        raise VerificationFailed("consent.scope", "something is shown that the grant does not list")
