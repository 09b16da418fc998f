"""The consumer: ask a clinic to show answers, and believe only what is proven to be the answer.

    consumer = Consumer.init(Path("insurer"), "http://localhost:8000", "acme-life", log_key="localhost/sealproof+...")
    model = consumer.session.model("heart")
    question = question_of(model, "p7", kind="threshold", threshold=0.7)
    asked = consumer.request("st-anna", [question], purpose="life insurance 4711", model=model)
    found = consumer.collect(asked, Path("p7.sealproof"))      # once the clinic has granted and disclosed

What is asked travels sealed for the clinic's mailbox, whose key is read from the trusted log; the server sees neither
question nor answer. What became of a request is read from the log too, all of it, so that no server can hide a refusal
or a grant, or show what is not there. The folder (mode 0700) keeps

    identity.key, identity.json, mailbox.key, trust/     who it is, which log it trusts
    asked/<nonce>/                                       requests and what was answered (`api.client.asked`)
    received/                                            collected disclosures

Neither an FHE library nor a key of the clinic is needed for anything here.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import httpx

from api.client.answered import check_answers, question_answered
from api.client.asked import Asked, AskedRequest, RequestState, state_of
from api.client.asking import clinic_on, model_of_prediction, scope_of
from api.client.audit import verify_bundle
from api.client.collecting import chosen, fetch_delivery, nonce_in, publish
from api.client.delivery import REQUEST_BOX, pack_request
from api.client.disclosure_bundle import write_disclosure_bundle
from api.client.model_folder import kept
from api.client.party_client import PartyClient
from api.client.questions import check_question
from api.client.session import LocatedModel, Session
from api.client.shown import VerifiedDisclosure
from api.client.verified_cache import VerifiedCache
from api.consent import Question, RequestDocument, Scope
from api.entries import (
    Party,
    Reference,
    Request,
    decode_entry,
)
from api.mpc.mirror import Mirror
from api.registry import Registry
from privacy.bundle import BundleReader
from privacy.errors import UsageError, VerificationFailed
from privacy.private_files import private_folder, write_private
from privacy.sealed import seal

__all__ = ["AskedRequest", "Consumer", "RequestState"]

Progress = Callable[[str, int, int], None]
_NONCE_BYTES: Final = 32
_MAX_QUESTIONS: Final = 256


class Consumer(PartyClient):
    """A consumer's side. Open one with `init` or `open`; a context manager.

    Whatever talks to the server raises ServerError (an OSError) when it is unreachable or says no, DecodeError when it
    answers garbage, and VerificationFailed when what it says does not hold.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._asked = Asked(session.folder / "asked")
        self._mirror = Mirror(session)
        self._cache = VerifiedCache()

    @classmethod
    def init(
        cls,
        folder: Path | str,
        url: str,
        name: str,
        *,
        log_key: str | None = None,
        client: httpx.Client | None = None,
    ) -> Consumer:
        """Register the consumer `name`, with a mailbox. `log_key`: of the server's log, learned from its operator."""
        return cls(Session.begin(Path(folder), "consumer", name, url, log_key, client))

    @classmethod
    def open(cls, folder: Path | str, url: str | None = None, *, client: httpx.Client | None = None) -> Consumer:
        """The consumer in `folder`. Raises UsageError."""
        return cls(Session.resume(Path(folder), "consumer", url, client))

    # -- asking -------------------------------------------------------------------------------------------------------

    def request(
        self,
        clinic: str | int,
        questions: Sequence[Question],
        *,
        purpose: str,
        model: str | int | LocatedModel | None = None,
        records: int | None = None,
        prediction: int | None = None,
        save: Path | str | None = None,
        progress: Progress | None = None,
    ) -> AskedRequest:
        """Ask a clinic (its name or the index of its party entry) to show answers, and log that it was asked.

        About any prediction with `model`, on records entry `records` if that is given, or about one `prediction`, by
        the index of its entry. `save` also writes the document to a file, to be handed over by another way: for a
        clinic without a mailbox, which an older release registered, that is the only one.

        The document is kept before anything is sent. The same request again, while it is not answered, finds it or
        finishes it. Raises UsageError for questions that cannot be asked; nothing was sent then.
        """
        registry = self._read_log(progress)
        party = clinic_on(registry, clinic)
        scope, about = scope_of(self._session, registry, party, model, records, prediction)
        document = self._document(party.reference, scope, purpose, questions)
        for question in document.questions:
            check_question(about, question)
        mailbox = party.body.mailbox
        if mailbox is None and save is None:
            raise UsageError(
                f"the clinic {party.body.name!r} has no mailbox, it was registered by an older release: give a file to "
                "save the request to (save, --save) and hand that over"
            )
        document = self._again(document, registry) or document
        folder = self._asked.keep(document)
        if save is not None:
            write_private(Path(save), document.encode())
        digest = None
        if mailbox is not None:
            context, data = party.reference.leaf, pack_request(document.encode())
            box = kept(folder / "box", lambda: seal(data, mailbox, purpose=REQUEST_BOX, context=context))
            digest = self._session.server.put_blob(box)
        reference = self._session.log_once(Request(party.reference, document.digest, digest), folder, "request")
        return AskedRequest(reference, document)

    def model_of(self, prediction: int) -> LocatedModel:
        """The model of a prediction, for questions about it."""
        return model_of_prediction(self._session, self._read_log(), prediction)

    def withdraw(self, request: int | AskedRequest, reason: str = "withdrawn by its consumer") -> Reference:
        """Ask no longer: from now on nothing may be granted or shown for this request. Repeatable."""
        asked = self._one(request)
        return self._session.revoke_once(asked.reference, reason, self._asked.folder(asked.document), "withdrawal")

    def requests(self, *, progress: Progress | None = None) -> list[RequestState]:
        """Every request of this folder and what the log says came of it, oldest first."""
        known = self._asked.all()
        if not known:
            return []
        registry = self._read_log(progress)
        return [state_of(asked, registry) for asked in known]

    def state(self, request: int | AskedRequest) -> RequestState:
        """What the log says came of one request."""
        return state_of(self._one(request), self._read_log())

    @property
    def log_size(self) -> int:
        """How many entries of the log `requests` and `state` have read."""
        return self._mirror.registry.size

    # -- believing ----------------------------------------------------------------------------------------------------

    def collect(
        self,
        request: int | AskedRequest,
        path: Path | str | None = None,
        *,
        disclosure: int | None = None,
        progress: Progress | None = None,
    ) -> VerifiedDisclosure:
        """Fetch what a clinic has shown for a request, verify all of it, and only then write it to `path`.

        `path` by default: `received/disclosure-<index>.sealproof` in the folder. `disclosure`: the index of its entry,
        where there are several. Raises UsageError if there is nothing to collect, with the reason; VerificationFailed
        with the check, DecodeError or ServerError, and nothing was written then.
        """
        return self.collect_to(request, path, disclosure=disclosure, progress=progress)[0]

    def collect_to(
        self,
        request: int | AskedRequest,
        path: Path | str | None = None,
        *,
        disclosure: int | None = None,
        progress: Progress | None = None,
    ) -> tuple[VerifiedDisclosure, Path]:
        """The same, with the path at which it was written."""
        asked = self._one(request)
        state = state_of(asked, self._read_log(progress))
        grant, shown = chosen(state, disclosure)
        delivery = fetch_delivery(self._session, state, grant, shown)
        received = private_folder(self._session.folder / "received")
        target = received / f"disclosure-{shown.reference.index}.sealproof" if path is None else Path(path)
        with TemporaryDirectory(dir=received, prefix=".") as scratch:
            source = Path(scratch) / "prediction.sealproof"
            self._session.server.save_bundle(shown.body.prediction.index, source, inputs=True, progress=progress)
            entries = [shown.reference, grant.grant.reference, asked.reference, self._session.identity.reference]
            blobs = [delivery.statement, delivery.proof, delivery.grant, asked.document.encode()]
            unverified = Path(scratch) / "disclosure.sealproof"
            write_disclosure_bundle(self._session, source, unverified, entries, blobs)
            found = self._verify(unverified, asked, state.clinic, False, progress)
            if found.entry.reference != shown.reference:
                raise VerificationFailed("disclosure.delivery", "the bundle shows another disclosure than was fetched")
            publish(unverified, target)
        return found, target

    def verify(
        self, path: Path | str, *, offline: bool = False, progress: Progress | None = None
    ) -> VerifiedDisclosure:
        """Verify a file, however it came, against the request of this folder that it was made for.

        `offline` asks the server for nothing: then nobody says whether grant or model were revoked since. Raises
        UsageError for a file that was made for nobody here, VerificationFailed, DecodeError, OSError.
        """
        asked = self._asked.with_nonce(nonce_in(Path(path)))
        if asked is None:
            raise UsageError(
                f"{path} was made for no request of this folder; if you gave the clinic a nonce yourself, check it "
                "with sealproof verify --nonce"
            )
        clinic = self._clinic_of(Path(path), asked) if offline else self.state(asked).clinic
        return self._verify(Path(path), asked, clinic, offline, progress)

    def asked_in(self, found: VerifiedDisclosure) -> AskedRequest:
        """The request that a disclosure answers. Raises UsageError if there is none here."""
        asked = self._asked.with_nonce(found.recipient_nonce)
        if asked is None:
            raise UsageError("this was made for no request of this folder")
        return asked

    def _verify(
        self, path: Path, asked: AskedRequest, clinic: Party, offline: bool, progress: Progress | None
    ) -> VerifiedDisclosure:
        found = verify_bundle(
            path,
            self._session.trust,
            ledger=None if offline else self._session.server,
            recipient_nonce=asked.document.nonce,
            progress=progress,
            cache=self._cache,
        )
        if not isinstance(found, VerifiedDisclosure):
            raise UsageError(f"{path} shows nobody an answer")
        check_answers(found, asked, clinic)
        said = [(question_answered(fact), fact.value) for fact in found.facts]
        self._asked.remember(asked, found.entry.reference, said)
        return found

    # -- parts --------------------------------------------------------------------------------------------------------

    def _read_log(self, progress: Progress | None = None) -> Registry:
        """Every entry of the trusted log, up to the newest head that was seen."""
        report = progress or (lambda stage, done, total: None)
        report("read the ledger", 0, 1)
        self._mirror.follow(self._session.server.checkpoint())
        report("read the ledger", 1, 1)
        return self._mirror.registry

    def _one(self, request: int | AskedRequest) -> AskedRequest:
        return request if isinstance(request, AskedRequest) else self._asked.at(request)

    def _document(
        self, clinic: Reference, scope: Scope, purpose: str, questions: Sequence[Question]
    ) -> RequestDocument:
        if not 1 <= len(questions) <= _MAX_QUESTIONS:
            raise UsageError(
                f"a request has 1 to {_MAX_QUESTIONS} questions, not {len(questions)}: divide them into several"
            )
        if not purpose.strip():
            raise UsageError("a request says what the answers are for (purpose, --purpose)")
        document = RequestDocument(
            "sealproof/request/v1",
            self._session.identity.origin,
            clinic,
            self._session.identity.reference,
            scope,
            purpose,
            secrets.token_bytes(_NONCE_BYTES),
            tuple(questions),
        )
        document.encode()  # what no request can carry is refused before anything is kept
        return document

    def _again(self, document: RequestDocument, registry: Registry) -> RequestDocument | None:
        """The same request, if it was broken off before it was logged or has no answer yet."""
        for found, asked in self._asked.like(document):
            if asked is None or state_of(asked, registry).state == "open":
                return found
        return None

    def _clinic_of(self, path: Path, asked: AskedRequest) -> Party:
        """The party entry of the clinic that was asked, as the file has it: its leaf hash says that it is that one."""
        wanted = asked.document.clinic
        with BundleReader(path) as reader:
            data = reader.entry(wanted.index)
        party = decode_entry(data).body
        if Reference.to(wanted.index, data) != wanted or not isinstance(party, Party):
            raise VerificationFailed("request.addressee", "the file is of another clinic than was asked")
        return party
