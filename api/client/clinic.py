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
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Protocol, Self

import httpx
import numpy as np

from api.client.audit import verify_bundle
from api.client.committed_records import OPENINGS, CommittedPlan, RecordOpenings, submit_committed
from api.client.disclosure import disclose
from api.client.encrypted_records import EncryptedPlan, PackingChoice, submit_encrypted
from api.client.handles import RecordHandles
from api.client.joint_answers import open_joint_answers
from api.client.joint_prediction import VerifiedJointPrediction
from api.client.prediction import VerifiedPrediction
from api.client.requests import PredictionRequest, Requests
from api.client.scores import Scores, decrypt, read_openings
from api.client.session import LocatedModel, Session, load_reference
from api.client.transport import JobState, ServerError
from api.client.verified_cache import VerifiedCache
from api.entries import Key, Network, Policy, Reference
from privacy.canonical_json import Codec, DecimalInteger, Record
from privacy.ckks.canonical import encode_public_key
from privacy.ckks.key_certificate import KeyOpenings, certify_key, verify_key_certificate
from privacy.ckks.keys import ClinicKeys, check_clinic_id
from privacy.ckks.params import ParameterSet, parameter_set
from privacy.errors import UsageError, VerificationFailed
from privacy.models.schema import Cohort, Schema
from privacy.mpc.disclosure import Kind
from privacy.mpc.records import CommittedRecord
from privacy.private_files import private_folder, read_private, write_private
from privacy.zk.group import ARKWORKS

__all__ = ["Clinic", "JobFailed", "JobRunner", "PackingChoice", "PredictionRequest", "SubmittedRecords"]

Progress = Callable[[str, int, int], None]

_MAX_SMALL: Final = 1 << 16
_MAX_CERTIFICATE: Final = 1 << 24
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


@dataclass(frozen=True)
class _Openings(Record):
    format: Literal["sealproof/key-openings/v1"]
    rho_plus: DecimalInteger = field(repr=False)
    rho_minus: DecimalInteger = field(repr=False)


_OPENINGS: Final = Codec(_Openings, "key openings", _MAX_SMALL)


@dataclass(frozen=True)
class SubmittedRecords:
    """A cohort on the ledger, and the folder with the handles of its patients."""

    reference: Reference
    folder: Path

    @property
    def index(self) -> int:
        """Index of the records entry."""
        return self.reference.index

    @cached_property
    def handles(self) -> RecordHandles:
        """Record ids in patient order, with their salts. Secret."""
        return RecordHandles.load(self.folder / "handles.json")

    @property
    def committed(self) -> bool:
        """Whether the records are committed for multi-party computation, rather than encrypted."""
        return (self.folder / OPENINGS).exists()


class Clinic:
    """A clinic's side. Open one with `init` or `open`; a context manager.

    Whatever talks to the server raises ServerError (an OSError) when it is unreachable or says no, DecodeError when it
    answers garbage, and VerificationFailed when what it says does not hold.
    """

    def __init__(self, session: Session, key_number: int | None) -> None:
        self._session = session
        self._key_number = key_number
        self._cache = VerifiedCache()
        self._requests = Requests(session.folder / "requests")

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
            return cls(session, _newest_key(session))
        clinic = cls(session, key_number)
        clinic._make_key(parameter_set(params), report)
        return clinic

    @classmethod
    def open(
        cls,
        folder: Path | str,
        url: str | None = None,
        *,
        key_number: int | None = None,
        client: httpx.Client | None = None,
    ) -> Clinic:
        """The clinic in `folder`, with its newest key unless `key_number` says otherwise. Raises UsageError.

        Without a logged key it can do everything but work with encrypted records, which raises UsageError.
        """
        session = Session.resume(Path(folder), "clinic", url, client)
        return cls(session, _newest_key(session) if key_number is None else key_number)

    @property
    def name(self) -> str:
        """The clinic's name on the ledger."""
        return self._session.identity.name

    @property
    def session(self) -> Session:
        """Identity, server and trusted logs."""
        return self._session

    def close(self) -> None:
        """Close the connections to the server."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @cached_property
    def key(self) -> Reference:
        """The key entry. Raises UsageError without a logged CKKS key."""
        return load_reference(self._key_file("reference.json"))

    @property
    def has_key(self) -> bool:
        """Whether there is a logged CKKS key, so that records can be encrypted."""
        return self._key_number is not None

    @cached_property
    def _keys(self) -> ClinicKeys:
        return ClinicKeys.load(self._key_file("key"))

    def key_openings(self) -> KeyOpenings:
        """Blindings of the key's commitments, for disclosures. Secret."""
        stored = _OPENINGS.decode(read_private(self._key_file("openings"), _MAX_SMALL, "key openings"))
        return KeyOpenings(stored.rho_plus, stored.rho_minus)

    # -- keys ---------------------------------------------------------------------------------------------------------

    def _number(self) -> int:
        if self._key_number is None:
            raise UsageError(
                f"the clinic {self.name!r} has no logged CKKS key, which encrypted records need: repeat init without "
                "ckks=False (sealproof clinic init without --mpc-only) to make one"
            )
        return self._key_number

    def _key_file(self, suffix: str) -> Path:
        return self._session.folder / "keys" / f"{self._number()}.{suffix}"

    def _make_key(self, params: ParameterSet, progress: Progress) -> None:
        number, folder = self._number(), private_folder(self._session.folder / "keys")
        if self._key_file("reference.json").exists():
            return
        progress("key", 0, 3)
        if not self._key_file("key").exists():
            ClinicKeys.generate(params, self.name, number).save(self._key_file("key"))
        keys = self._keys
        progress("key", 1, 3)
        if not self._key_file("certificate").exists():
            certificate, openings = certify_key(keys.params, self.name, number, keys.public.p0, keys.s, keys.e_pk)
            stored = _Openings("sealproof/key-openings/v1", openings.rho_plus, openings.rho_minus)
            write_private(self._key_file("openings"), _OPENINGS.encode(stored))
            write_private(self._key_file("certificate"), certificate)
        certificate = read_private(self._key_file("certificate"), _MAX_CERTIFICATE, "key certificate")
        verified = verify_key_certificate(keys.params, self.name, number, keys.public.p0, certificate)
        progress("key", 2, 3)
        server = self._session.server
        body = Key(
            clinic=self.name,
            parameter_set=keys.params.name,
            number=number,
            p0=server.put_blob(encode_public_key(keys.params, keys.public.p0)),
            C_s_plus=ARKWORKS.encode(verified.C_plus),
            C_s_minus=ARKWORKS.encode(verified.C_minus),
            commitments={},
            certificate=server.put_blob(certificate),
        )
        self._session.log_once(body, folder, str(number))
        progress("key", 3, 3)

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
        key, keys = self.key, self._keys
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
        paths = (self._session.folder / "records").glob("*/records.reference.json")
        found = [SubmittedRecords(load_reference(path), path.parent) for path in paths]
        return sorted(found, key=lambda records: records.index)

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
        server = None if offline else self._session.server
        verified = verify_bundle(
            Path(path),
            self._session.trust,
            ledger=server,
            nonce=None if request is None else request.nonce,
            progress=progress,
            cache=self._cache,
        )
        if not isinstance(verified, VerifiedPrediction | VerifiedJointPrediction):
            raise UsageError(
                f"{path} is no prediction, so there is nothing to open: sealproof verify says what it shows"
            )
        if isinstance(verified, VerifiedPrediction) and verified.key.reference != self.key:
            raise VerificationFailed("clinic.key", f"the prediction is under key entry {verified.key.reference.index}")
        own = {records.reference: records for records in self.records()}
        records = own.get(verified.records.reference)
        if records is None:
            raise VerificationFailed("clinic.records", "the prediction is not about records of this clinic")
        if request is not None and (request.records, request.model) != (
            verified.records.reference,
            verified.model.reference,
        ):
            raise VerificationFailed("clinic.request", "the prediction is about other records or another model")
        ids = records.handles.ids
        if isinstance(verified, VerifiedPrediction):
            return decrypt(verified, self._keys, ids)
        job = None if request is None else request.job
        return read_openings(verified, open_joint_answers(self._session.folder, server, verified, job), ids)

    def disclose(
        self,
        bundle: Path | str,
        record_id: str,
        *,
        kind: Kind,
        nonce: bytes,
        path: Path | str,
        output: str | int = 0,
        threshold: float | None = None,
        tolerance: float | None = None,
    ) -> Path:
        """Show one answer of a joint prediction, and nothing else, to the recipient who chose `nonce` (32 bytes).

        `kind`: `open` (all of the number), `exact` (to within `tolerance`, one step of the model's grid by default) or
        `threshold` (that it is at least `threshold`: a probability for a logit, else a raw answer). It is logged, and
        what is written to `path` is for the recipient. Raises as `api.client.disclosure.disclose`.
        """
        folders = {records.reference: records.folder for records in self.records()}
        return disclose(
            self._session,
            folders,
            Path(bundle),
            record_id,
            kind=kind,
            nonce=nonce,
            path=Path(path),
            output=output,
            threshold=threshold,
            tolerance=tolerance,
        )


def _read(source: Path | str | Cohort, schema: Schema, id_column: str | None) -> Cohort:
    return source if isinstance(source, Cohort) else schema.read_csv(Path(source), id_column=id_column)


def _newest_key(session: Session) -> int | None:
    """The largest number of a logged key in the folder."""
    numbers = [int(path.name.partition(".")[0]) for path in (session.folder / "keys").glob("*.reference.json")]
    return max(numbers, default=None)
