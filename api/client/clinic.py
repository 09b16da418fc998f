"""The clinic: keys, encrypted records, predictions, and answers that are verified before they are decrypted.

    clinic = Clinic.init(Path("clinic"), "http://localhost:8000", "st-anna", log_key="localhost/sealproof+...")
    records = clinic.submit(Path("patients.csv"), model="heart")
    scores = clinic.predict(records, "heart")

Its folder (mode 0700) holds everything that is secret, and every step can be repeated after a crash:

    identity.key, identity.json, trust/     who it is, which log it trusts
    keys/<number>.{key,openings,certificate,reference.json}
    records/<id>/                           handles (ids and salts), digests of what was uploaded, the entry
    requests/<nonce>.json, bundles/         predictions asked for, and their bundles
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

import httpx
import numpy as np

from api.binding import Located
from api.client.audit import verify_bundle
from api.client.handles import RecordHandles
from api.client.scores import Scores, decrypt
from api.client.session import Session, load_reference
from api.client.transport import MAX_UPLOAD_BYTES, MAX_UPLOAD_FILES, JobState, ServerError
from api.client.verified_cache import VerifiedCache
from api.entries import Key, Model, Policy, Records, Reference, encode_digest_list
from privacy.canonical_json import Codec, DecimalInteger, Digest, Identifier, Record
from privacy.ckks.canonical import encode_public_key, input_digest
from privacy.ckks.key_certificate import KeyOpenings, certify_key, verify_key_certificate
from privacy.ckks.keys import ClinicKeys, check_clinic_id
from privacy.ckks.packing import Packing, blocks, capacity, pack
from privacy.ckks.params import ParameterSet, parameter_set
from privacy.errors import UsageError, VerificationFailed
from privacy.models.schema import Cohort, Schema
from privacy.private_files import private_folder, read_private, write_private
from privacy.zk.group import ARKWORKS

__all__ = ["Clinic", "JobFailed", "PackingChoice", "PredictionRequest", "SubmittedRecords"]

PackingChoice = Literal["auto", "rows", "columns"]
Progress = Callable[[str, int, int], None]

_MAX_SMALL: Final = 1 << 16
_MAX_CERTIFICATE: Final = 1 << 24
_MAX_DIGESTS: Final = 1 << 24
_POLL_SECONDS: Final = (0.05, 2.0)


class JobFailed(ServerError):
    """The server could not make the prediction."""

    def __init__(self, check: str | None, message: str, hint: str) -> None:
        super().__init__(f"the prediction failed: {message} {hint}".rstrip())
        self.check = check


@dataclass(frozen=True)
class _Openings(Record):
    format: Literal["sealproof/key-openings/v1"]
    rho_plus: DecimalInteger = field(repr=False)
    rho_minus: DecimalInteger = field(repr=False)


@dataclass(frozen=True)
class _Plan(Record):
    """How a cohort is submitted, fixed before the first byte is sent."""

    format: Literal["sealproof/submission/v1"]
    key: int
    schema: Digest
    packing: Literal["columns", "rows"]
    policy: Policy


@dataclass(frozen=True)
class PredictionRequest(Record):
    """A prediction that was asked for: the entries, and the nonce that its attestation must repeat."""

    records: Reference
    model: Reference
    nonce: Digest
    job: Identifier


_OPENINGS: Final = Codec(_Openings, "key openings", _MAX_SMALL)
_PLAN: Final = Codec(_Plan, "submission", 1 << 20)
_REQUEST: Final = Codec(PredictionRequest, "prediction request", _MAX_SMALL)


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


class Clinic:
    """A clinic's side. Open one with `init` or `open`; a context manager.

    Whatever talks to the server raises ServerError (an OSError) when it is unreachable or says no, DecodeError when it
    answers garbage, and VerificationFailed when what it says does not hold.
    """

    def __init__(self, session: Session, key_number: int) -> None:
        self._session = session
        self._key_number = key_number
        self._cache = VerifiedCache()

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
        client: httpx.Client | None = None,
        progress: Progress | None = None,
    ) -> Clinic:
        """Register the clinic `name`, generate its key pair, certify it and log it. Repeat it to finish it.

        `log_key`: the verifier key of the server's log, learned from its operator. Raises UsageError for a name that is
        no clinic id or a log that is not trusted, MissingDependency without tenseal.
        """
        check_clinic_id(name)
        report = progress or (lambda step, done, total: None)
        session = Session.begin(Path(folder), "clinic", name, url, log_key, client)
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
        """The clinic in `folder`, with its newest key unless `key_number` says otherwise. Raises UsageError."""
        session = Session.resume(Path(folder), "clinic", url, client)
        numbers = [int(path.name.partition(".")[0]) for path in (session.folder / "keys").glob("*.reference.json")]
        if not numbers:
            raise UsageError(f"{folder} has no logged key: run init again to finish it")
        return cls(session, max(numbers) if key_number is None else key_number)

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
        """The key entry."""
        return load_reference(self._key_file("reference.json"))

    @cached_property
    def _keys(self) -> ClinicKeys:
        return ClinicKeys.load(self._key_file("key"))

    def key_openings(self) -> KeyOpenings:
        """Blindings of the key's commitments, for disclosures. Secret."""
        stored = _OPENINGS.decode(read_private(self._key_file("openings"), _MAX_SMALL, "key openings"))
        return KeyOpenings(stored.rho_plus, stored.rho_minus)

    # -- keys ---------------------------------------------------------------------------------------------------------

    def _key_file(self, suffix: str) -> Path:
        return self._session.folder / "keys" / f"{self._key_number}.{suffix}"

    def _make_key(self, params: ParameterSet, progress: Progress) -> None:
        folder = private_folder(self._session.folder / "keys")
        if self._key_file("reference.json").exists():
            return
        progress("key", 0, 3)
        if not self._key_file("key").exists():
            ClinicKeys.generate(params, self.name, self._key_number).save(self._key_file("key"))
        keys = self._keys
        progress("key", 1, 3)
        if not self._key_file("certificate").exists():
            certificate, openings = certify_key(
                keys.params, self.name, self._key_number, keys.public.p0, keys.s, keys.e_pk
            )
            stored = _Openings("sealproof/key-openings/v1", openings.rho_plus, openings.rho_minus)
            write_private(self._key_file("openings"), _OPENINGS.encode(stored))
            write_private(self._key_file("certificate"), certificate)
        certificate = read_private(self._key_file("certificate"), _MAX_CERTIFICATE, "key certificate")
        verified = verify_key_certificate(keys.params, self.name, self._key_number, keys.public.p0, certificate)
        progress("key", 2, 3)
        server = self._session.server
        body = Key(
            clinic=self.name,
            parameter_set=keys.params.name,
            number=self._key_number,
            p0=server.put_blob(encode_public_key(keys.params, keys.public.p0)),
            C_s_plus=ARKWORKS.encode(verified.C_plus),
            C_s_minus=ARKWORKS.encode(verified.C_minus),
            commitments={},
            certificate=server.put_blob(certificate),
        )
        self._session.log_once(body, folder, str(self._key_number))
        progress("key", 3, 3)

    # -- records ------------------------------------------------------------------------------------------------------

    def submit(
        self,
        source: Path | str | Cohort,
        model: str | int | Located[Model] | None = None,
        *,
        schema: Schema | None = None,
        packing: PackingChoice = "auto",
        policy: Policy | None = None,
        id_column: str | None = None,
        progress: Progress | None = None,
    ) -> SubmittedRecords:
        """Encrypt a cohort (a CSV file, or one that was read before) and commit to it on the ledger.

        The schema is that of `model`, or `schema`. `packing` auto: `rows` if one block holds everybody, else `columns`.
        `policy` says which models may use the records and until when; by default `model` alone, or any without one.
        Submitting the same cohort in the same way again continues where it stopped, or finds it. Raises UsageError and
        DecodeError for records that do not satisfy the schema; nothing was sent then.
        """
        report = progress or (lambda step, done, total: None)
        found = self._session.model(model) if model is not None else None
        if found is not None:
            schema = self._session.schema(found)
        if schema is None:
            raise UsageError("say which model or which schema the records are for")
        cohort = source if isinstance(source, Cohort) else schema.read_csv(Path(source), id_column=id_column)
        params = self._keys.params
        if packing == "auto":
            fits = schema.d <= params.N and len(cohort) <= capacity(params, Packing.ROWS, schema.d)
            packing = "rows" if fits else "columns"
        if policy is None:
            policy = Policy("any" if found is None else (found.reference,), None)
        plan = _Plan("sealproof/submission/v1", self.key.index, schema.digest(), packing, policy)
        folder = self._submission_folder(plan, cohort)
        if not (folder / "handles.json").exists():
            RecordHandles.draw(cohort.ids).save(folder / "handles.json")
        digests = self._upload(cohort, schema, plan, folder, report)
        handles = RecordHandles.load(folder / "handles.json")
        body = Records(
            clinic=self.name,
            key=self.key,
            parameter_set=params.name,
            schema=plan.schema,
            packing=plan.packing,
            d=schema.d,
            count=len(cohort),
            blocks=len(blocks(len(cohort), capacity(params, Packing(packing), schema.d))),
            ciphertexts=self._session.server.put_blob(encode_digest_list(digests)),
            handles=handles.root,
            policy=policy,
        )
        return SubmittedRecords(self._session.log_once(body, folder, "records"), folder)

    def records(self) -> list[SubmittedRecords]:
        """All cohorts of this clinic that are on the ledger, oldest first."""
        paths = (self._session.folder / "records").glob("*/records.reference.json")
        found = [SubmittedRecords(load_reference(path), path.parent) for path in paths]
        return sorted(found, key=lambda records: records.index)

    def _submission_folder(self, plan: _Plan, cohort: Cohort) -> Path:
        """One folder for one cohort submitted in one way. The name is keyed: it tells nothing without the identity."""
        encoded = _PLAN.encode(plan)
        code = hmac.new(self._session.identity.private_key.private_bytes_raw(), encoded, hashlib.sha256)
        for patient in cohort.ids:
            code.update(len(patient.encode()).to_bytes(4, "little") + patient.encode())
        code.update(np.ascontiguousarray(cohort.values, dtype="<f8").tobytes())
        parent = private_folder(self._session.folder / "records")
        folder = private_folder(parent / code.hexdigest()[:32])
        if not (folder / "plan.json").exists():
            write_private(folder / "plan.json", encoded)
        return folder

    def _upload(
        self, cohort: Cohort, schema: Schema, plan: _Plan, folder: Path, progress: Progress
    ) -> tuple[bytes, ...]:
        """Encrypt and send block by block; digests of finished blocks are kept, so that a crash loses one at most."""
        params, packing = self._keys.params, Packing(plan.packing)
        per_block = schema.d if packing is Packing.COLUMNS else 1
        spans = blocks(len(cohort), capacity(params, packing, schema.d))
        kept = folder / "digests"
        data = read_private(kept, _MAX_DIGESTS, "digests") if kept.exists() else b""
        done = len(data) // (32 * per_block)
        for place in range(done, len(spans)):
            progress("encrypt and send", place, len(spans))
            values = schema.encode(cohort.values[spans[place].start : spans[place].stop])
            encrypted = self._keys.encrypt_block(pack(params, packing, values))
            digests = [input_digest(params, self.key.leaf, item.array) for item in encrypted]
            place_in_block = 0
            for batch in _batches([item.seal_bytes for item in encrypted]):
                answered = self._session.server.upload_ciphertexts(self.key.index, batch)
                if answered != digests[place_in_block : place_in_block + len(batch)]:
                    raise VerificationFailed("submit.digests", "the server stored other ciphertexts than were sent")
                place_in_block += len(batch)
            data = data[: place * 32 * per_block] + b"".join(digests)
            write_private(kept, data)
        progress("encrypt and send", len(spans), len(spans))
        return tuple(data[i : i + 32] for i in range(0, len(data), 32))

    # -- predictions --------------------------------------------------------------------------------------------------

    def predict(
        self,
        records: SubmittedRecords,
        model: str | int | Located[Model],
        *,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> Scores:
        """Ask for a prediction, wait, fetch the bundle, verify it, and only then decrypt it."""
        request = self.request(records, model)
        return self.open_bundle(self.fetch(request, progress=progress, timeout=timeout), request, progress=progress)

    def request(self, records: SubmittedRecords, model: str | int | Located[Model]) -> PredictionRequest:
        """Ask the server for a prediction, under a fresh nonce. The request is kept in the folder."""
        found = self._session.model(model)
        nonce = secrets.token_bytes(32)
        job = self._session.server.request_prediction(records.index, found.reference.index, nonce)
        request = PredictionRequest(records.reference, found.reference, nonce, job)
        folder = private_folder(self._session.folder / "requests")
        write_private(folder / f"{nonce.hex()}.json", _REQUEST.encode(request))
        return request

    def requests(self) -> list[PredictionRequest]:
        """Every prediction that this clinic asked for."""
        paths = sorted((self._session.folder / "requests").glob("*.json"))
        return [_REQUEST.decode(read_private(path, _MAX_SMALL, "prediction request")) for path in paths]

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
            report("predict", state.done, max(state.total, 1))
            if state.state == "failed":
                said = state.error
                raise JobFailed(
                    said.check if said else None, said.message if said else "no reason given", said.hint if said else ""
                )
            if timeout is not None and time.monotonic() - started > timeout:
                raise ServerError(f"the prediction is {state.state} after {timeout:.0f} s; ask for job {state.id}")
            time.sleep(pause)
            pause = min(2 * pause, _POLL_SECONDS[1])
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
        """Verify a bundle and only then decrypt it.

        It must be about this clinic's own key and records and, with `request`, be the answer to it. `offline` asks the
        server for nothing: the bundle must carry its inputs, and revocations are not looked up.

        Raises VerificationFailed with the check, DecodeError, OSError; nothing was decrypted then.
        """
        verified = verify_bundle(
            Path(path),
            self._session.trust,
            ledger=None if offline else self._session.server,
            nonce=None if request is None else request.nonce,
            progress=progress,
            cache=self._cache,
        )
        if verified.key.reference != self.key:
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
        return decrypt(verified, self._keys, records.handles.ids)


def _batches(files: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Runs of files that one request takes."""
    batch: list[bytes] = []
    size = 0
    for file in files:
        if batch and (len(batch) == MAX_UPLOAD_FILES or size + 4 + len(file) > MAX_UPLOAD_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += 4 + len(file)
    if batch:
        yield batch
