"""A clinic's consents: requests that consumers made of it, and what it grants, refuses and revokes.

    requests-in/<index>.json         what the request in that entry asks, once it was read and checked
    requests-in/<index>.refusal.{entry,reference}.json
    grants/<code>-<n>/               one grant: its document, and grant.{entry,reference}.json; what was shown under it
                                     (`api.client.disclosure`); revocation.{entry,reference}.json
    grants/.lock                     one process at a time grants, refuses, revokes and discloses

Who asked whom, and what came of it, is read from the log, all of it, so that no server can hide a withdrawal or a
revocation. Whatever is logged is kept before, and the same call after a crash finishes what was begun.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal

from api.client.delivery import REQUEST_BOX, unpack_request
from api.client.questions import check_question
from api.client.session import LocatedModel, Session, load_reference
from api.client.submitted_records import submitted_records
from api.client.transport import ServerRefused
from api.consent import MAX_DOCUMENT_BYTES, GrantDocument, Question, RequestDocument, Scope, check_answers_request
from api.consent_index import Standing
from api.consent_rules import MAX_REQUEST_BOX_BYTES
from api.entries import (
    Grant,
    JointPrediction,
    Party,
    Prediction,
    Reference,
    Refusal,
    Request,
)
from api.mpc.mirror import Mirror
from api.registry import Logged, Registry
from api.signing import timestamp
from ledger.files import held_lock
from privacy.canonical_json import parse_timestamp
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.private_files import create_private, private_folder, read_limited, read_private
from privacy.sealed import open_sealed

__all__ = ["DEFAULT_TERM", "Consents", "HeldGrant", "IncomingRequest", "Reason"]

DEFAULT_TERM: Final = timedelta(days=30)
"""How long a grant holds unless something else is said."""

Reason = Literal["declined", "no-consent", "no-such-answer"]

_DOCUMENT: Final = "document.json"
_NO_END: Final = "1970-01-01T00:00:00Z"


@dataclass(frozen=True)
class IncomingRequest:
    """A request of this clinic on the ledger, who made it, and what it asks.

    `document` is None where that could not be read, and `problem` says why. `grants` are the indices of grants that
    answer it and were not revoked.
    """

    reference: Reference
    consumer: Party
    document: RequestDocument | None
    state: Standing
    grants: tuple[int, ...]
    problem: str | None = None

    @property
    def index(self) -> int:
        """Index of the request's entry."""
        return self.reference.index


@dataclass(frozen=True)
class HeldGrant:
    """A grant of this clinic that is on the ledger, and what it says. `folder` has what belongs to it."""

    reference: Reference
    document: GrantDocument
    folder: Path = field(repr=False)

    @property
    def index(self) -> int:
        """Index of the grant's entry."""
        return self.reference.index

    @property
    def revoked(self) -> bool:
        """Whether this clinic has revoked it, or was about to."""
        return _is_revoked(self.folder)

    @property
    def ended(self) -> bool:
        """Whether its time is over."""
        return _is_over(self.document)


class Consents:
    """The consents in the folder of a clinic.

    Whatever talks to the server raises ServerError, DecodeError and VerificationFailed as the rest of the clinic does.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._mirror = Mirror(session)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time; the others wait. Not to be taken twice."""
        with held_lock(private_folder(self._session.folder / "grants") / ".lock"):
            yield

    def read_log(self) -> Registry:
        """The trusted log up to the newest head that this folder has seen; only while the folder is locked."""
        self._mirror.follow(self._session.server.checkpoint())
        return self._mirror.registry

    # -- requests -----------------------------------------------------------------------------------------------------

    def incoming(self, *, all: bool = False) -> list[IncomingRequest]:
        """Requests of this clinic that wait for an answer, or with `all` every one, oldest first.

        One whose text cannot be read is told as such, and hides no other.
        """
        with self.locked():
            registry = self.read_log()
            indices = registry.consents.requests(self._party.index)
            wanted = [i for i in indices if all or registry.standing(registry.reference(i)) == "open"]
            return [self._read(registry, index) for index in wanted]

    def _read(self, registry: Registry, index: int) -> IncomingRequest:
        logged = registry.get(index, Request)
        try:
            document, problem = self._document(registry, logged), None
        except (VerificationFailed, DecodeError, ServerRefused) as error:
            document, problem = None, str(error)
        if document is None and problem is None:
            problem = "it was to be handed over as a file (sealproof clinic grant --request FILE)"
        consumer = registry.author_of(index).body
        state, grants = registry.standing(logged.reference), _held(registry, logged.reference)
        return IncomingRequest(logged.reference, consumer, document, state, grants, problem)

    def _document(self, registry: Registry, logged: Logged[Request]) -> RequestDocument | None:
        """What a request asks; None if its text was not handed over yet."""
        path = self._kept(logged.reference.index)
        if path.exists():
            data = read_private(path, MAX_DOCUMENT_BYTES, "request")
            return self._checked(registry, logged, RequestDocument.decode(data))
        mailbox, box = self._session.identity.mailbox, logged.body.box
        if box is None:
            return None
        if mailbox is None:
            raise VerificationFailed("request.box", "it is sealed, and this clinic has no mailbox")
        sealed = self._session.server.blob(box)
        if len(sealed) > MAX_REQUEST_BOX_BYTES:
            raise DecodeError("request", f"a box of {len(sealed)} bytes holds none")
        data = open_sealed(sealed, mailbox, purpose=REQUEST_BOX, context=self._party.leaf)
        return self._keep(registry, logged, RequestDocument.decode(unpack_request(data)))

    def _keep(self, registry: Registry, logged: Logged[Request], document: RequestDocument) -> RequestDocument:
        self._checked(registry, logged, document)
        path = self._kept(logged.reference.index)
        if not path.exists():
            create_private(path, document.encode())
        return document

    def _checked(self, registry: Registry, logged: Logged[Request], document: RequestDocument) -> RequestDocument:
        """Raise VerificationFailed(`request.document`) unless this is what the entry is about, and for this clinic."""
        if document.digest != logged.body.document:
            raise VerificationFailed("request.document", "the text is not the one that the ledger names")
        consumer = registry.author_of(logged.reference.index).reference
        meant = (self._session.identity.origin, self._party, consumer)
        if (document.origin, document.clinic, document.consumer) != meant:
            raise VerificationFailed("request.document", "the text is about another log, clinic or consumer")
        return document

    def _handed_over(self, registry: Registry, document: RequestDocument) -> int:
        """The index of the request whose text was handed over. Raises UsageError if none is on the log."""
        for index in registry.consents.requests(self._party.index):
            logged = registry.get(index, Request)
            if logged.body.document == document.digest:
                self._keep(registry, logged, document)
                return index
        raise UsageError("the ledger has no request of this clinic with this text: its consumer logs it first")

    # -- grants -------------------------------------------------------------------------------------------------------

    def grant(
        self,
        request: int | Path | RequestDocument,
        *,
        only: Sequence[str] | None = None,
        until: str | timedelta | None = None,
    ) -> HeldGrant:
        """Consent to show what a request asks, or of that only what is about the records `only`; see `Clinic.grant`."""
        if isinstance(request, Path):
            request = RequestDocument.decode(read_limited(request, MAX_DOCUMENT_BYTES))
        with self.locked():
            registry = self.read_log()
            index = request if isinstance(request, int) else self._handed_over(registry, request)
            found = self._answerable(registry, index)
            if found.document is None:
                raise UsageError(f"what the request in entry {index} asks is not known: {found.problem}")
            questions = _of_records(found.document.questions, only)
            asked = found.document
            draft = GrantDocument(
                "sealproof/grant/v1",
                asked.origin,
                asked.clinic,
                asked.consumer,
                asked.digest,
                asked.scope,
                asked.purpose,
                asked.nonce,
                questions,
                _NO_END,
                bytes(32),
            )
            check_answers_request(draft, asked)
            return self._grant(draft, found.reference, until)

    def grant_nonce(
        self,
        nonce: bytes,
        questions: Sequence[Question],
        *,
        scope: Scope,
        purpose: str,
        until: str | timedelta | None = None,
    ) -> HeldGrant:
        """Consent to show something to whoever chose `nonce` and is not on the ledger; see `Clinic.grant_nonce`."""
        if len(nonce) != 32:
            raise UsageError(f"a recipient's nonce has 32 bytes, got {len(nonce)}")
        origin, clinic = self._session.identity.origin, self._party
        asked = (None, None, scope, purpose, nonce, tuple(questions))
        with self.locked():
            draft = GrantDocument("sealproof/grant/v1", origin, clinic, *asked, _NO_END, bytes(32))
            return self._grant(draft, None, until)

    def grants(self) -> list[HeldGrant]:
        """Every grant of this folder that is on the ledger, oldest first."""
        paths = (self._session.folder / "grants").glob("*/grant.reference.json")
        found = [HeldGrant(load_reference(path), _document(path.parent), path.parent) for path in paths]
        return sorted(found, key=lambda held: held.index)

    def held(self, index: int) -> HeldGrant:
        """The grant in ledger entry `index`. Raises UsageError if this folder holds no such grant."""
        known = self.grants()
        for held in known:
            if held.index == index:
                return held
        listed = ", ".join(str(held.index) for held in known) or "none yet"
        raise UsageError(f"entry {index} is no grant of this clinic; it has {listed}")

    def check_held(self, held: HeldGrant, registry: Registry) -> None:
        """Raise VerificationFailed unless something may be shown under a grant now: `consent.expired`,
        `consent.revoked` for it or its request."""
        if held.ended:
            raise VerificationFailed("consent.expired", f"the grant in entry {held.index} ended {held.document.until}")
        logged = registry.resolve(held.reference, Grant)
        if held.revoked or registry.revocation(held.reference) is not None:
            raise VerificationFailed("consent.revoked", f"the grant in entry {held.index} was revoked")
        request = logged.body.request
        if request is not None and registry.revocation(request) is not None:
            raise VerificationFailed("consent.revoked", f"the request in entry {request.index} was withdrawn")

    def _grant(self, draft: GrantDocument, request: Reference | None, until: str | timedelta | None) -> HeldGrant:
        """Log a grant of this draft, or find the one that holds."""
        self._check_answerable(draft.scope, draft.questions)
        end = _end(until)
        key = self._session.identity.private_key.private_bytes_raw()
        code = hmac.new(key, draft.encode(), hashlib.sha256).hexdigest()[:32]
        parent, number = private_folder(self._session.folder / "grants"), 0
        while (folder := parent / f"{code}-{number}").is_dir() and (folder / _DOCUMENT).exists():
            kept = _document(folder)
            if not (_is_revoked(folder) or _is_over(kept)):
                if not isinstance(until, str) or until == kept.until:
                    return self._log(folder, kept, request)
                if not (folder / "grant.reference.json").exists():
                    raise UsageError(
                        f"a grant of this until {kept.until} was begun: finish it first, without another end"
                    )
            number += 1
        document = replace(draft, until=end, salt=secrets.token_bytes(32))
        create_private(private_folder(folder) / _DOCUMENT, document.encode())
        return self._log(folder, document, request)

    def _log(self, folder: Path, document: GrantDocument, request: Reference | None) -> HeldGrant:
        body = Grant(request, document.digest, document.until)
        return HeldGrant(self._session.log_once(body, folder, "grant"), document, folder)

    # -- the other answers --------------------------------------------------------------------------------------------

    def refuse(self, request: int, reason: Reason = "declined") -> Reference:
        """Refuse a request for good."""
        with self.locked():
            found = self._answerable(self.read_log(), request)
            if found.state == "granted":
                listed = ", ".join(map(str, found.grants)) or "none that still holds"
                raise UsageError(f"the request in entry {request} was granted: revoke that ({listed})")
            folder = private_folder(self._session.folder / "requests-in")
            return self._session.log_once(Refusal(found.reference, reason), folder, f"{request}.refusal")

    def revoke(self, grant: int, reason: str) -> Reference:
        """End a grant now: nothing more is shown under it."""
        with self.locked():
            held = self.held(grant)
            return self._session.revoke_once(held.reference, reason, held.folder, "revocation")

    def _answerable(self, registry: Registry, index: int) -> IncomingRequest:
        """A request of this clinic that was not withdrawn. Raises UsageError."""
        if index not in registry.consents.requests(self._party.index):
            raise UsageError(f"entry {index} is no request of this clinic: sealproof clinic requests --all lists them")
        found = self._read(registry, index)
        if found.state == "withdrawn":
            raise UsageError(f"the request in entry {index} was withdrawn by {found.consumer.name!r}")
        return found

    # -- what can be asked of this clinic -----------------------------------------------------------------------------

    def model(self, scope: Scope) -> LocatedModel:
        """The model whose answers are meant. Raises UsageError for a scope that is not about this clinic's records."""
        return self._about(scope)[0]

    def _about(self, scope: Scope) -> tuple[LocatedModel, set[str]]:
        """The model that is meant, and the records of this clinic that may be."""
        mine = {found.reference: found.handles.ids for found in submitted_records(self._session.folder)}
        reference, records = scope.model, scope.records
        if scope.prediction is not None:
            with _looked_up(scope.prediction):
                found, entry = self._session.fetch(scope.prediction.index)
            if found != scope.prediction or not isinstance(entry.body, Prediction | JointPrediction):
                raise UsageError(f"entry {scope.prediction.index} is not the prediction that is meant")
            reference, records = entry.body.model, entry.body.records
        if records is not None and records not in mine:
            raise UsageError(f"entry {records.index} is no cohort of this clinic, and the question is about that")
        if reference is None:
            raise UsageError("the scope names neither a prediction nor a model")
        with _looked_up(reference):
            model = self._session.model(reference.index)
        if model.reference != reference:
            raise UsageError(f"entry {reference.index} is not the model that is meant")
        return model, {name for at, names in mine.items() if records in (None, at) for name in names}

    def _check_answerable(self, scope: Scope, questions: Sequence[Question]) -> None:
        """Raise UsageError, with what to do instead, for a question that this clinic could never answer."""
        model, known = self._about(scope)
        for question in questions:
            check_question(model, question)
        missing = sorted({question.record for question in questions} - known)
        if missing:
            raise UsageError(
                f"there is no record {', '.join(map(repr, missing))} among those that are asked about: grant the "
                "others (only, --only), or refuse with no-such-answer"
            )

    @property
    def _party(self) -> Reference:
        return self._session.identity.reference

    def _kept(self, index: int) -> Path:
        return private_folder(self._session.folder / "requests-in") / f"{index}.json"


@contextmanager
def _looked_up(reference: Reference) -> Iterator[None]:
    """A consumer names what it likes: what the server does not have is a bad question, and no failure of the server."""
    try:
        yield
    except ServerRefused as error:
        if error.status not in (404, 422):
            raise
        raise UsageError(f"entry {reference.index} is not on the ledger, and the question is about that") from error


def _held(registry: Registry, request: Reference) -> tuple[int, ...]:
    """Which grants of a request still hold."""
    logged = [registry.get(index, Grant) for index in registry.consents.grants(request.index)]
    return tuple(grant.reference.index for grant in logged if registry.revocation(grant.reference) is None)


def _of_records(questions: Sequence[Question], only: Sequence[str] | None) -> tuple[Question, ...]:
    if only is None:
        return tuple(questions)
    unasked = set(only) - {question.record for question in questions}
    if unasked or not only:
        raise UsageError(f"nothing is asked about record {', '.join(map(repr, sorted(unasked))) or 'none'}")
    return tuple(question for question in questions if question.record in only)


def _end(until: str | timedelta | None) -> str:
    """The moment until which a grant holds. Raises UsageError for one that is past."""
    now = parse_timestamp(timestamp())
    if isinstance(until, str):
        if parse_timestamp(until) <= now:
            raise UsageError(f"{until} is past: nothing could be shown under the grant")
        return until
    term = DEFAULT_TERM if until is None else until
    if not timedelta(seconds=1) <= term <= timedelta(days=36500):
        raise UsageError("a grant holds for a second to a hundred years")
    return timestamp(now + term)


def _document(folder: Path) -> GrantDocument:
    return GrantDocument.decode(read_private(folder / _DOCUMENT, MAX_DOCUMENT_BYTES, "grant"))


def _is_revoked(folder: Path) -> bool:
    return (folder / "revocation.entry.json").exists()


def _is_over(document: GrantDocument) -> bool:
    return parse_timestamp(document.until) < parse_timestamp(timestamp())
