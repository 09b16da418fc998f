"""Requests that a consumer has made, kept in its folder, and what the ledger says came of them.

asked/<nonce>/document.json                        what is asked, kept before anybody hears of it
asked/<nonce>/box                                  the same, sealed for the clinic's mailbox
asked/<nonce>/{request,withdrawal}.{entry,reference}.json
asked/<nonce>/answers-<index>.json                 what the disclosure in that entry has answered
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from api.binding import Located
from api.client.session import load_reference
from api.consent import MAX_DOCUMENT_BYTES, Question, RequestDocument
from api.consent_index import Standing
from api.entries import Disclosure, Grant, Party, Reference, Refusal, Request
from api.registry import Registry
from privacy.canonical_json import Codec, DecimalInteger, Record
from privacy.errors import UsageError, VerificationFailed
from privacy.private_files import private_folder, read_private, write_private

__all__ = ["Asked", "AskedRequest", "GrantState", "RequestState", "state_of"]

_DOCUMENT: Final = "document.json"
_REQUEST: Final = "request"
_MAX_ANSWERS_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class AskedRequest:
    """A request on the ledger, and what it asks."""

    reference: Reference
    document: RequestDocument

    @property
    def index(self) -> int:
        """Index of the request's entry."""
        return self.reference.index


@dataclass(frozen=True)
class GrantState:
    """A clinic's consent, as the ledger has it, and the disclosures under it."""

    grant: Located[Grant]
    revoked: bool
    disclosures: tuple[Located[Disclosure], ...]


@dataclass(frozen=True)
class RequestState:
    """A request and what came of it. `refusal` is the clinic's reason."""

    asked: AskedRequest
    clinic: Party
    state: Standing
    grants: tuple[GrantState, ...]
    refusal: str | None


@dataclass(frozen=True)
class _Answer(Record):
    question: Question
    value: DecimalInteger = field(repr=False)


@dataclass(frozen=True)
class _Answers(Record):
    format: Literal["sealproof/request-answers/v1"]
    disclosure: Reference
    answers: tuple[_Answer, ...]


_ANSWERS: Final = Codec(_Answers, "answers", _MAX_ANSWERS_BYTES)


def state_of(asked: AskedRequest, registry: Registry) -> RequestState:
    """What the log of `registry` says of a request. Raises VerificationFailed if it is not the log of the request."""
    found = registry.resolve(asked.reference, Request)
    consents, grants = registry.consents, []
    for index in consents.grants(asked.index):
        grant = registry.get(index, Grant)
        shown = [registry.get(i, Disclosure) for i in consents.disclosures(index)]
        located = tuple(Located(one.reference, one.body) for one in shown)
        revoked = registry.revocation(grant.reference) is not None
        grants.append(GrantState(Located(grant.reference, grant.body), revoked, located))
    refused = consents.refusal(asked.index)
    refusal = None if refused is None else registry.get(refused, Refusal).body.reason
    state = registry.standing(asked.reference)
    return RequestState(asked, registry.resolve(found.body.clinic, Party).body, state, tuple(grants), refusal)


class Asked:
    """The requests in `folder`, which is made with the first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def folder(self, document: RequestDocument) -> Path:
        """Where everything about a request is."""
        return self._folder / document.nonce.hex()

    def keep(self, document: RequestDocument) -> Path:
        """Keep what is about to be asked; returns its folder."""
        private_folder(self._folder)
        folder = private_folder(self.folder(document))
        write_private(folder / _DOCUMENT, document.encode())
        return folder

    def like(self, document: RequestDocument) -> list[tuple[RequestDocument, AskedRequest | None]]:
        """What was asked in the same words before, under other nonces; None beside what was never logged."""
        known = [(found, self._logged(found)) for found in self._documents()]
        return [(found, asked) for found, asked in known if replace(found, nonce=document.nonce) == document]

    def all(self) -> list[AskedRequest]:
        """Every request that is on the ledger, oldest first."""
        logged = [self._logged(document) for document in self._documents()]
        return sorted((asked for asked in logged if asked is not None), key=lambda asked: asked.index)

    def at(self, index: int) -> AskedRequest:
        """The request in ledger entry `index`. Raises UsageError if it was not asked from this folder."""
        known = self.all()
        for asked in known:
            if asked.index == index:
                return asked
        listed = ", ".join(str(asked.index) for asked in known) or "none yet"
        raise UsageError(f"entry {index} is no request of this consumer; it has {listed}")

    def with_nonce(self, nonce: bytes) -> AskedRequest | None:
        """The request with this nonce, or None."""
        return next((asked for asked in self.all() if asked.document.nonce == nonce), None)

    def remember(self, asked: AskedRequest, disclosure: Reference, answers: Sequence[tuple[Question, int]]) -> None:
        """Keep what a disclosure answers.

        Raises VerificationFailed(`request.answers`) if another one has answered one of the questions otherwise: then
        the clinic chooses what it says, and neither is believed.
        """
        folder, said = self.folder(asked.document), dict(answers)
        for path in sorted(folder.glob("answers-*.json")):
            before = _ANSWERS.decode(read_private(path, _MAX_ANSWERS_BYTES, "answers"))
            for answer in before.answers:
                if said.get(answer.question, answer.value) != answer.value:
                    raise VerificationFailed(
                        "request.answers",
                        f"the disclosure in entry {before.disclosure.index} has answered a question about record "
                        f"{answer.question.record!r} otherwise than that in entry {disclosure.index}",
                    )
        told = tuple(_Answer(question, value) for question, value in answers)
        data = _ANSWERS.encode(_Answers("sealproof/request-answers/v1", disclosure, told))
        write_private(folder / f"answers-{disclosure.index}.json", data)

    def _documents(self) -> list[RequestDocument]:
        paths = sorted(self._folder.glob(f"*/{_DOCUMENT}"))
        return [RequestDocument.decode(read_private(path, MAX_DOCUMENT_BYTES, "request")) for path in paths]

    def _logged(self, document: RequestDocument) -> AskedRequest | None:
        path = self.folder(document) / f"{_REQUEST}.reference.json"
        return AskedRequest(load_reference(path), document) if path.exists() else None
