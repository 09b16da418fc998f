"""Bodies of the ledger entries by which answers are shown: a request, the clinic's consent, what was disclosed
(docs/spec/protocol.md, section 6).

A consumer asks, the clinic grants or refuses, and discloses under the grant. The ledger shows who asked whom and when,
and how it ended. It reveals neither a patient, nor a question, nor an answer: documents are named by digests of texts
that hold 256 random bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from api.entry_parts import Reference
from privacy.canonical_json import Digest, OmitNone, Record, Timestamp

__all__ = ["Disclosure", "Grant", "Refusal", "Request"]


@dataclass(frozen=True)
class Request(Record):
    """A consumer asks a clinic to show something; written by the consumer.

    `document` is the SHA-256 of the request in the clear (`api.consent.RequestDocument`), which holds a nonce. `box` is
    the digest of a blob: the same text sealed for the clinic's mailbox; null if it is handed over by another way.
    """

    KIND: ClassVar[str] = "sealproof/request/v1"

    clinic: Reference
    document: Digest
    box: Digest | None


@dataclass(frozen=True)
class Grant(Record):
    """A clinic consents to show something to somebody, until a moment; written by the clinic.

    `document` is the SHA-256 of the grant in the clear (`api.consent.GrantDocument`), which holds a salt and says what,
    to whom and for which purpose. `request` is what it answers; null for somebody who is not on the ledger, such as a
    patient. A revocation ends it earlier.
    """

    KIND: ClassVar[str] = "sealproof/grant/v1"

    request: Reference | None
    document: Digest
    until: Timestamp


@dataclass(frozen=True)
class Refusal(Record):
    """A clinic refuses a request; written by the clinic."""

    KIND: ClassVar[str] = "sealproof/refusal/v1"

    request: Reference
    reason: Literal["declined", "no-consent", "no-such-answer"]


@dataclass(frozen=True)
class Disclosure(Record):
    """A clinic has shown committed or encrypted answers to somebody; written by the clinic of the prediction's records.

    `statement` is the SHA-256 of the signed statement, which only the recipient gets: it says neither whose answer it
    is nor what was shown, and nobody can guess it, since it holds the salt of a record's handle and a nonce. `proof` is
    the digest of its proof.

    `grant` is the consent under which it was made. Where there is none, the clinic showed it without consent on the
    ledger, as everybody can see (and as clinics did until version 0.4). `delivery` is the digest of a blob: what the
    recipient needs, sealed for its mailbox.
    """

    KIND: ClassVar[str] = "sealproof/disclosure/v1"

    prediction: Reference
    statement: Digest
    proof: Digest
    grant: Annotated[Reference | None, OmitNone] = None
    delivery: Annotated[Digest | None, OmitNone] = None
