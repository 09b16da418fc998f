"""Entries of a disclosure in a bundle: the clinic's own, its consent, and the request that this answers.

A bundle of a disclosure is that of its prediction with some entries and blobs more: the disclosure entry, the grant
under which it was made, the request that the grant answers and the party entry of who asked; the signed statement, the
proof, grant and request in the clear. Who wrote the entries, that they are signed and that nothing else is there
belongs to step 3 of the audit; that nobody wrote before registering to step 4; revocations to step 7. Then

11 consent     what was disclosed is what the grant lists, of this prediction, under this model; the grant is the
               clinic's, answers that request, which was made to it, or none, and had not ended

Older releases knew no consent: a disclosure without grant has no such step, and step 12 says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from api.binding import Located
from api.client.audit_evidence import Evidence
from api.client.dating import CONSENT, check_in_time
from api.client.history import Written
from api.client.shown import VerifiedConsent
from api.consent import GrantDocument, Question, RequestDocument, check_answers_request, check_within
from api.entries import Disclosure, Grant, Party, Reference, Request, verify_signature
from privacy.attestation_disclosure import Disclosed, verify_disclosure_envelope
from privacy.attestation_shown import Shown, ShownAnswer, verify_shown
from privacy.canonical_json import parse_timestamp
from privacy.errors import DecodeError, VerificationFailed

__all__ = ["ConsentAudit", "Subject"]


@dataclass(frozen=True)
class Subject:
    """The prediction that a bundle is about, and what that is about."""

    prediction: Reference
    records: Reference
    model: Reference


class ConsentAudit:
    """Who wrote what of a disclosure, and by whose consent. Attributes appear as the steps establish them."""

    def __init__(self, evidence: Evidence, index: int) -> None:
        body = evidence.entries[index].body
        if not isinstance(body, Disclosure):
            raise VerificationFailed("entry.kind", f"entry {index} is no disclosure")
        self._evidence = evidence
        self.entry = Located(Reference.to(index, evidence.entry_bytes[index]), body)
        self.grant: Located[Grant] | None = None
        self.request: Located[Request] | None = None
        self.consumer: Located[Party] | None = None
        self.consent: VerifiedConsent | None = None
        self.authors: dict[int, int] = {}
        """Of these entries: the index of the author's party entry."""
        self.blobs = {body.statement, body.proof}
        """What only the last steps read."""
        self.revoked_since: tuple[Reference, ...] = ()

    # Part of step 3: every entry is signed by its author's registered key, in the right role.
    def check_entries(self, clinic: Located[Party]) -> dict[int, int]:
        """The authors of all entries of a disclosure; `clinic` wrote the records of the prediction."""
        self._clinic = clinic.body
        self._signed_by(clinic, self.entry.reference, "disclosure")
        if self.entry.body.grant is None:
            return self.authors
        grant = self._evidence.referenced(self.entry.body.grant)
        if not isinstance(grant.body, Grant):
            raise VerificationFailed("entry.kind", f"entry {self.entry.body.grant.index} is no grant entry")
        self.grant = Located(self.entry.body.grant, grant.body)
        self._signed_by(clinic, self.grant.reference, "consent")
        self.blobs.add(grant.body.document)
        if grant.body.request is not None:
            found = self._evidence.signed(grant.body.request, Request)
            self.request, self.consumer = found.located, found.author
            self.authors[found.located.reference.index] = found.author.reference.index
            self.blobs.add(found.located.body.document)
        return self.authors

    def _signed_by(self, clinic: Located[Party], reference: Reference, what: str) -> None:
        entry = self._evidence.referenced(reference)
        if entry.author != clinic.reference:
            raise VerificationFailed(f"{what}.author", "it was not logged by the clinic whose records they are")
        verify_signature(entry, clinic.body.public_key)
        self.authors[reference.index] = clinic.reference.index

    @property
    def written(self) -> list[Written]:
        """What must not have been revoked before the disclosure."""
        keys = {party.reference.index: party.body.public_key for party in (self.consumer,) if party is not None}
        out: list[Written] = []
        for located in (self.grant, self.request):
            if located is not None:
                author = self.authors[located.reference.index]
                key = keys.get(author, self._clinic.public_key)
                out.append(Written(located.reference, author, key, self.entry.reference.index, "consent.revoked"))
        return out

    @cached_property
    def statement(self) -> Shown | Disclosed:
        """What the clinic signed, in today's format; in the first one where the entry names no grant."""
        data, key = self._blob(self.entry.body.statement, "signed statement"), self._clinic.public_key
        if self.grant is not None:
            return verify_shown(data, key)
        try:
            return verify_disclosure_envelope(data, key)
        except DecodeError:
            verify_shown(data, key)
        raise VerificationFailed("disclosure.grant", "the entry names no grant, without which nothing is shown")

    # 11 consent: what was disclosed is what the clinic consented to show, to this recipient and until then.
    def check(self, about: Subject, clinic: Located[Party]) -> str:
        """The step itself, of an entry that names a grant."""
        found = self.statement
        if self.grant is None or not isinstance(found, Shown):
            raise VerificationFailed("disclosure.grant", "a statement of today's format is made under a grant")
        document = self._document(self.grant, clinic.reference)
        sentence = self._check_request(document, clinic.reference)
        self._check_order()
        check_within(document, about.prediction, about.records, about.model, _answered(found.answers))
        if found.recipient_nonce != document.nonce:
            raise VerificationFailed("disclosure.nonce", "this was made for another recipient than the grant names")
        if parse_timestamp(document.until) < parse_timestamp(found.issued_at):
            raise VerificationFailed("consent.expired", f"the clinic consented until {document.until}, not later")
        evidence = self._evidence
        dated = check_in_time(
            document.until,
            self.entry.reference.index,
            evidence.trusted,
            evidence.head,
            evidence.witnessed,
            evidence.ledger,
            CONSENT,
        )
        self.consent = VerifiedConsent(
            self.grant,
            document,
            self.request,
            None if self.consumer is None else self.consumer.body,
            self.revoked_since,
        )
        asked = "" if evidence.ledger is not None else " Whether it was revoked before was not looked up."
        return f"{sentence} It is for {document.purpose!r}, until {document.until}.{dated}{asked}"

    def _document(self, grant: Located[Grant], clinic: Reference) -> GrantDocument:
        document = GrantDocument.decode(self._blob(grant.body.document, "grant"))
        if (document.origin, document.clinic) != (self._evidence.head.origin, clinic):
            raise VerificationFailed("consent.document", "the grant is one of another clinic or another log")
        if document.until != grant.body.until:
            raise VerificationFailed("consent.document", "the grant and its entry end at different times")
        return document

    def _check_request(self, document: GrantDocument, clinic: Reference) -> str:
        """The grant answers this request, all that it names or less; or none, and the entry says the same."""
        if self.grant is None or self.request is None or self.consumer is None:
            if document.request is not None:
                raise VerificationFailed("consent.request", "the grant answers a request that its entry does not name")
            return f"Clinic {self._clinic.name!r} consented to show this to whoever gave it the nonce."
        asked = RequestDocument.decode(self._blob(self.request.body.document, "request"))
        if (asked.clinic, self.request.body.clinic) != (clinic, clinic):
            raise VerificationFailed("consent.request", "the request was made to another clinic")
        if asked.consumer != self.consumer.reference:
            raise VerificationFailed("consent.author", "the request was logged by somebody else than it says")
        check_answers_request(document, asked)
        return f"Clinic {self._clinic.name!r} consented to show this to {self.consumer.body.name!r}, who had asked."

    def _check_order(self) -> None:
        """request < grant < disclosure."""
        order = [located.reference.index for located in (self.request, self.grant, self.entry) if located is not None]
        if order != sorted(order):
            raise VerificationFailed("consent.order", "request, consent and disclosure were not logged in this order")

    def _blob(self, digest: bytes, what: str) -> bytes:
        if not self._evidence.reader.has(digest):
            raise VerificationFailed("bundle.missing-blob", f"{what} {digest.hex()} is not in the bundle")
        return self._evidence.reader.blob(digest)


def _answered(answers: tuple[ShownAnswer, ...]) -> list[Question]:
    """The questions that are answered, without the answers. Raises VerificationFailed, UsageError."""
    questions = [
        Question(a.record_id, a.output, a.versus, a.kind, a.value if a.kind == "threshold" else 0, a.tolerance)
        for a in answers
    ]
    if len(set(questions)) != len(questions):
        # Two patients under one id: which of them was meant nobody has said.
        raise VerificationFailed("consent.scope", "one question is answered twice")
    return questions
