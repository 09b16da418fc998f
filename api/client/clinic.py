"""The clinic: records that nobody else reads, predictions, and answers that are verified before they are decrypted.

    clinic = Clinic.init(Path("clinic"), "http://localhost:8000", "st-anna", log_key="localhost/sealproof+...")
    records = clinic.submit(Path("patients.csv"), model="heart")
    scores = clinic.predict(records, "heart")

The model decides how: a linear model works on records encrypted under the clinic's CKKS key, a network together with
the clinic's node on records that are committed and never sent. The folder (mode 0700) holds everything that is secret,
and every step can be repeated after a crash:

    identity.key, identity.json, trust/     who it is, which log it trusts
    keys/<number>.{key,openings,certificate,reference.json}
    records/<id>/                           handles (ids and salts) and the entry; digests of what was uploaded, or
                                            openings of what was committed
    requests/<nonce>.json, bundles/         predictions asked for, and their bundles
    joint/                                  this clinic's shares of answers (`api.client.joint_answers`)
    requests-in/, grants/, disclosures/     what others asked to be shown, what was consented to, and what was said
                                            (`api.client.consents`, `api.client.disclosure`)
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal, Protocol

import httpx
import numpy as np

from api.client.clinic_keys import KeyFolder, key_folder, newest_key
from api.client.committed_records import OPENINGS, CommittedPlan, RecordOpenings, submit_committed
from api.client.consents import Consents, HeldGrant, IncomingRequest, Reason
from api.client.disclosure import DEFAULT_CAP, disclose, questions_to_answer
from api.client.disclosure_source import find_source
from api.client.encrypted_records import EncryptedPlan, PackingChoice, submit_encrypted
from api.client.handles import RecordHandles
from api.client.opening import open_prediction
from api.client.party_client import PartyClient
from api.client.requests import PredictionRequest, Requests
from api.client.scores import Scores
from api.client.session import LocatedModel, Session
from api.client.submitted_records import SubmittedRecords, submitted_records
from api.client.transport import JobState, ServerError
from api.client.verified_cache import VerifiedCache
from api.consent import Question, RequestDocument, Scope
from api.entries import Network, Policy, Reference
from privacy.ckks.key_certificate import KeyOpenings
from privacy.ckks.keys import check_clinic_id
from privacy.ckks.params import parameter_set
from privacy.errors import UsageError, VerificationFailed
from privacy.models.schema import Cohort, Schema
from privacy.mpc.records import CommittedRecord
from privacy.private_files import private_folder, write_private

__all__ = [
    "Clinic",
    "HeldGrant",
    "IncomingRequest",
    "JobFailed",
    "JobRunner",
    "PackingChoice",
    "PredictionRequest",
    "SubmittedRecords",
]

Progress = Callable[[str, int, int], None]

_POLL_SECONDS: Final = (0.05, 2.0)
_POLL_GROWTH: Final = 1.2  # who waits for an answer of a second waits a fifth of it too long at most
_MPC_PARAMETERS: Final = "mpc-64"
_STAGES: Final = {"queued": "predict", "running": "predict", "computing": "compute with the owner's node"}


class JobFailed(ServerError):
    """The server could not make the prediction."""

    def __init__(self, check: str | None, message: str, hint: str) -> None:
        super().__init__(f"the prediction failed: {message} {hint}".rstrip())
        self.check = check


class JobRunner(Protocol):
    """A node that computes this clinic's part of a joint prediction, such as `api.mpc.node.Node`."""

    def run_job(self, job: str) -> object: ...


class Clinic(PartyClient):
    """A clinic's side. Open one with `init` or `open`; a context manager.

    Whatever talks to the server raises ServerError (an OSError) when it is unreachable or says no, DecodeError when it
    answers garbage, and VerificationFailed when what it says does not hold.
    """

    def __init__(self, session: Session, key_number: int | None, disclosure_cap: int = DEFAULT_CAP) -> None:
        super().__init__(session)
        self._key = KeyFolder(session, key_number)
        self._cache = VerifiedCache()
        self._requests = Requests(session.folder / "requests")
        self._consents = Consents(session)
        self._disclosure_cap = disclosure_cap

    @classmethod
    def init(
        cls,
        folder: Path | str,
        url: str,
        name: str,
        *,
        log_key: str | None = None,
        params: str = "linear-4096",
        key_number: int = 1,
        ckks: bool = True,
        client: httpx.Client | None = None,
        progress: Progress | None = None,
    ) -> Clinic:
        """Register the clinic `name`, generate its key pair, certify it and log it. Repeat it to finish it.

        `log_key`: the verifier key of the server's log, learned from its operator. Without `ckks` no key is made, which
        is enough for multi-party computation and needs no tenseal; repeated with it, it adds the key. Raises UsageError
        for a name that is no clinic id or a log that is not trusted, MissingDependency without tenseal.
        """
        check_clinic_id(name)
        report = progress or (lambda step, done, total: None)
        session = Session.begin(Path(folder), "clinic", name, url, log_key, client)
        if not ckks:
            return cls(session, newest_key(session))
        clinic = cls(session, key_number)
        clinic._key.make(parameter_set(params), report)
        return clinic

    @classmethod
    def open(
        cls,
        folder: Path | str,
        url: str | None = None,
        *,
        key_number: int | None = None,
        disclosure_cap: int = DEFAULT_CAP,
        client: httpx.Client | None = None,
    ) -> Clinic:
        """The clinic in `folder`, with its newest key unless `key_number` says otherwise. Raises UsageError.

        Without a logged key it can do everything but work with encrypted records, which raises UsageError. At most
        `disclosure_cap` answers are disclosed under a key, all in all (docs/spec/protocol.md, section 6).
        """
        session = Session.resume(Path(folder), "clinic", url, client)
        return cls(session, newest_key(session) if key_number is None else key_number, disclosure_cap)

    @property
    def key(self) -> Reference:
        """The key entry. Raises UsageError without a logged CKKS key."""
        return self._key.reference

    @property
    def has_key(self) -> bool:
        """Whether there is a logged CKKS key, so that records can be encrypted."""
        return self._key.exists

    def key_openings(self) -> KeyOpenings:
        """Blindings of the key's commitments. Secret."""
        return self._key.openings()

    # -- records ------------------------------------------------------------------------------------------------------

    def submit(
        self,
        source: Path | str | Cohort,
        model: str | int | LocatedModel | None = None,
        *,
        schema: Schema | None = None,
        scheme: Literal["ckks", "mpc"] | None = None,
        packing: PackingChoice = "auto",
        policy: Policy | None = None,
        id_column: str | None = None,
        progress: Progress | None = None,
    ) -> SubmittedRecords:
        """Encrypt a cohort (a CSV file, or one that was read before), or for a network commit to it, and log its entry.

        The schema is that of `model`, or `schema`; so is the `scheme` (ckks: encrypt, mpc: commit), else ckks.
        `packing` of encrypted records auto: `rows` if one block holds everybody, else `columns`. `policy` says which
        models may use the records and until when; by default `model` alone, or any without one.

        Submitting the same cohort in the same way again continues where it stopped, or finds it. Raises UsageError and
        DecodeError for records that do not satisfy the schema; nothing was sent then.
        """
        report = progress or (lambda step, done, total: None)
        found = self._session.model(model) if model is not None else None
        if found is not None:
            schema = self._session.schema(found)
            needed: Literal["ckks", "mpc"] = "mpc" if isinstance(found.body, Network) else "ckks"
            if scheme not in (None, needed):
                raise UsageError(f"the model {found.body.name!r} takes records submitted for scheme {needed}")
            scheme = needed
        if schema is None:
            raise UsageError("say which model or which schema the records are for")
        if policy is None:
            policy = Policy("any" if found is None else (found.reference,), None)
        session = self._session
        if scheme == "mpc":
            if packing != "auto":
                raise UsageError("packing is about encrypted records: for multi-party computation there is none")
            cohort = _read(source, schema, id_column)
            params = _MPC_PARAMETERS if found is None else found.body.parameter_set
            committed = CommittedPlan.of(params, schema, policy)
            folder = self._submission_folder(committed.encode(), cohort)
            return SubmittedRecords(submit_committed(session, folder, committed, schema, cohort, report), folder)
        key, keys = self._key.reference, self._key.keys
        cohort = _read(source, schema, id_column)
        plan = EncryptedPlan.of(keys.params, key, schema, len(cohort), packing, policy)
        folder = self._submission_folder(plan.encode(), cohort)
        return SubmittedRecords(submit_encrypted(session, folder, plan, keys, key, schema, cohort, report), folder)

    def committed_openings(self, records: int) -> tuple[CommittedRecord, ...]:
        """The openings of the C_x of records entry `records` in patient order, for this clinic's node. Secret.

        Raises UsageError for an entry that is not one of this clinic's committed cohorts, DecodeError.
        """
        found = next((mine for mine in self.records() if mine.index == records), None)
        if found is None or not found.committed:
            raise UsageError(f"entry {records} is no cohort that this clinic committed for multi-party computation")
        return RecordOpenings.load(found.folder / OPENINGS).records

    def records(self) -> list[SubmittedRecords]:
        """All cohorts of this clinic that are on the ledger, oldest first."""
        return submitted_records(self._session.folder)

    def _submission_folder(self, encoded: bytes, cohort: Cohort) -> Path:
        """One folder for one cohort submitted in one way (its encoded plan), with the handles of its patients.

        The name is keyed: it tells nothing without the identity.
        """
        code = hmac.new(self._session.identity.private_key.private_bytes_raw(), encoded, hashlib.sha256)
        for patient in cohort.ids:
            code.update(len(patient.encode()).to_bytes(4, "little") + patient.encode())
        code.update(np.ascontiguousarray(cohort.values, dtype="<f8").tobytes())
        parent = private_folder(self._session.folder / "records")
        folder = private_folder(parent / code.hexdigest()[:32])
        if not (folder / "plan.json").exists():
            write_private(folder / "plan.json", encoded)
        if not (folder / "handles.json").exists():
            RecordHandles.draw(cohort.ids).save(folder / "handles.json")
        return folder

    # -- predictions --------------------------------------------------------------------------------------------------

    def predict(
        self,
        records: SubmittedRecords,
        model: str | int | LocatedModel,
        *,
        node: JobRunner | None = None,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> Scores:
        """Ask for a prediction, wait, fetch the bundle, verify it, and only then decrypt it.

        A network is computed by the nodes of clinic and owner. `node`, if given, does this clinic's part here and now;
        otherwise the prediction waits for the clinic's node process. It has nothing to do for a linear model.
        """
        found = self._session.model(model)
        request = self.request(records, found)
        if node is not None and isinstance(found.body, Network):
            node.run_job(request.job)
        return self.open_bundle(self.fetch(request, progress=progress, timeout=timeout), request, progress=progress)

    def request(self, records: SubmittedRecords, model: str | int | LocatedModel) -> PredictionRequest:
        """Ask the server for a prediction, under a fresh nonce. The request is kept in the folder.

        Raises UsageError when records were encrypted for a network, or committed for a linear model.
        """
        found = self._session.model(model)
        if records.committed != isinstance(found.body, Network):
            how = "encrypted" if records.committed else "committed"
            raise UsageError(f"the model {found.body.name!r} takes {how} records: submit the cohort for this model")
        asked = self._requests.draw(records.reference, found.reference)
        job = self._session.server.request_prediction(records.index, found.reference.index, asked)
        return self._requests.keep(PredictionRequest(records.reference, found.reference, asked, job))

    def check_asked(self, nonce: bytes, records: Reference, model: Reference) -> None:
        """Raise VerificationFailed(`offer.request`) unless this folder asked for this prediction under this nonce."""
        self._requests.check(nonce, records, model)

    def requests(self) -> list[PredictionRequest]:
        """Every prediction that this clinic asked for."""
        return self._requests.all()

    def state(self, request: PredictionRequest) -> JobState:
        """How far the server is."""
        return self._session.server.job(request.job)

    def fetch(
        self,
        request: PredictionRequest,
        path: Path | None = None,
        *,
        inputs: bool = False,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> Path:
        """Wait for the prediction and write its bundle, NOT yet verified, to `path` (default: in the folder).

        `inputs` asks for a self-contained bundle. Raises JobFailed, and ServerError after `timeout` seconds.
        """
        report = progress or (lambda step, done, total: None)
        started, pause = time.monotonic(), _POLL_SECONDS[0]
        while (state := self.state(request)).state != "done" or state.prediction is None:
            report(_STAGES.get(state.state, "predict"), state.done, max(state.total, 1))
            if state.state == "failed":
                said = state.error
                raise JobFailed(
                    said.check if said else None, said.message if said else "no reason given", said.hint if said else ""
                )
            if timeout is not None and time.monotonic() - started > timeout:
                nodes = " (do the nodes of clinic and owner run?)" if state.state == "computing" else ""
                raise ServerError(
                    f"the prediction is {state.state} after {timeout:.0f} s{nodes}; ask for job {state.id}"
                )
            time.sleep(pause)
            pause = min(_POLL_GROWTH * pause, _POLL_SECONDS[1])
        report("predict", 1, 1)
        if path is None:
            path = private_folder(self._session.folder / "bundles") / f"prediction-{state.prediction}.sealproof"
        self._session.server.save_bundle(state.prediction, path, inputs=inputs, progress=progress)
        return path

    def open_bundle(
        self,
        path: Path | str,
        request: PredictionRequest | None = None,
        *,
        offline: bool = False,
        progress: Progress | None = None,
    ) -> Scores:
        """Verify a bundle and only then decrypt it, or open its committed answers.

        It must be about this clinic's own key and records and, with `request`, be the answer to it. `offline` asks the
        server for nothing: the bundle must carry its inputs, and revocations are not looked up. The owner's part of
        the answers of a joint prediction is fetched once, so it is opened first with a connection.

        Raises VerificationFailed with the check, DecodeError, OSError; nothing was decrypted then.
        """
        found = open_prediction(
            self._session,
            self._key,
            Path(path),
            offline=offline,
            request=request,
            cache=self._cache,
            progress=progress,
        )
        return found.scores

    # -- consent ------------------------------------------------------------------------------------------------------

    def incoming(self, *, all: bool = False) -> list[IncomingRequest]:
        """Requests to show answers that wait for this clinic, or with `all` every one, oldest first."""
        return self._consents.incoming(all=all)

    def grant(
        self,
        request: int | Path | RequestDocument,
        *,
        only: Sequence[str] | None = None,
        until: str | timedelta | None = None,
    ) -> HeldGrant:
        """Consent to show what a request asks, or of that only what is about the records `only`.

        `request`: the index of its entry, or its text if that was handed over by hand. `until`: the end, a moment such
        as 2027-01-01T00:00:00Z or so long from now; 30 days by default. Nothing is shown yet: see `disclose`. Granting
        the same again finds the grant, or makes another one if that has ended. Raises UsageError.
        """
        return self._consents.grant(request, only=only, until=until)

    def grant_nonce(
        self,
        nonce: bytes,
        questions: Sequence[Question],
        *,
        scope: Scope,
        purpose: str,
        until: str | timedelta | None = None,
    ) -> HeldGrant:
        """Consent to show something to somebody who is not on the ledger and chose `nonce` (32 bytes)."""
        return self._consents.grant_nonce(nonce, questions, scope=scope, purpose=purpose, until=until)

    def grants(self) -> list[HeldGrant]:
        """Every grant of this clinic, oldest first."""
        return self._consents.grants()

    def asked_model(self, scope: Scope) -> LocatedModel:
        """The model whose answers are asked for. Raises UsageError for a scope that is not about this clinic."""
        return self._consents.model(scope)

    def refuse(self, request: int, reason: Reason = "declined") -> Reference:
        """Refuse a request for good. Raises UsageError if it was granted, answered or withdrawn."""
        return self._consents.refuse(request, reason)

    def revoke_grant(self, grant: int, reason: str = "revoked by the clinic") -> Reference:
        """End the grant in entry `grant` now: nothing more is shown under it. Raises UsageError."""
        return self._consents.revoke(grant, reason)

    def disclose(
        self,
        grant: int,
        bundle: Path | str | None = None,
        path: Path | str | None = None,
        records: Sequence[str] | None = None,
        *,
        progress: Progress | None = None,
    ) -> Path | None:
        """Show what the grant in entry `grant` lists, or of that only what is about `records`, and nothing else.

        `bundle`: of the prediction whose answers are shown; by default the newest kept or asked for that the grant
        covers. It is verified first. What is shown is logged, left on the server sealed for the consumer, and written
        to `path`, if one is given: that file is for the recipient alone. Raises as `api.client.disclosure.disclose`,
        and UsageError for a grant that this folder does not hold.
        """
        held = self._consents.held(grant)
        with self._consents.locked():
            self._consents.check_held(held, self._consents.read_log())  # before anything is fetched or opened
        questions = questions_to_answer(held, records)
        wanted = {question.record for question in questions}
        source = find_source(self._session, held.document.scope, wanted, None if bundle is None else Path(bundle))
        key = self._key if source.key is None else key_folder(self._session, source.key, self._key)
        found = open_prediction(self._session, key, source.path, cache=self._cache, progress=progress)
        if found.verified.prediction.reference != source.prediction:
            raise VerificationFailed("consent.scope", f"{source.path} is about another prediction than it says")
        return disclose(
            self._session,
            self._consents,
            held,
            found,
            questions,
            key,
            path=None if path is None else Path(path),
            cap=self._disclosure_cap,
        )


def _read(source: Path | str | Cohort, schema: Schema, id_column: str | None) -> Cohort:
    return source if isinstance(source, Cohort) else schema.read_csv(Path(source), id_column=id_column)
