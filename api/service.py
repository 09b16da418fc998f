"""The server without HTTP: what it keeps, and what each request does.

    ledger.sqlite  log.key  server.key  jobs.sqlite  nonces.sqlite  blobs/  models/  admitted/  tmp/

Every method either does all of what it says or raises and leaves entries, blobs and jobs as they were.

With its ledger in PostgreSQL several processes may serve one data folder. One of them leads (`api.leader`): it works
jobs off, matches the nodes of multi-party computation, and publishes heads.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from types import TracebackType

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.approval_gate import approval_gate
from api.binding import parameters_of
from api.blobs import BlobStore
from api.clock import clock_name
from api.consent_rules import MAX_REQUEST_BOX_BYTES, check_consent
from api.entries import (
    JointPrediction,
    Key,
    Model,
    Party,
    Prediction,
    Records,
    Reference,
    decode_entry,
    sign_entry,
    verify_signature,
)
from api.errors import (
    ApiError,
    Conflict,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    NotReady,
    RateLimited,
    TooLarge,
)
from api.exposure import bits_of_groups, hidden_bits, recount
from api.jobs import Job, JobStore, JobWorker
from api.joint_prediction import attest_joint, write_joint_bundle
from api.joint_service import JointService
from api.leader import Leadership
from api.limits import RateLimiter
from api.nonces import NonceStore
from api.policy import check_cap, check_use
from api.prediction import Context, PlannedProof, attest, check_entry_size, plan_proofs, predict, write_bundle
from api.publishing import Publisher
from api.registry import Logged, Registry
from api.settings import Settings
from api.signing import (
    SignedRequest,
    check_time,
    load_private_key,
    save_private_key,
    timestamp,
    verify_request,
)
from api.submission import check_behind, check_opening, check_result_count
from api.witness.client import clients_of
from ledger import Log, Signer, Verifier
from ledger.cosignature import Cosigner
from ledger.errors import LogLocked, StorageError
from ledger.files import held_lock
from ledger.storage.locate import LogPlace, open_or_create
from ledger.trust_policy import TlogPolicy
from privacy.ckks.canonical import encode_input
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.models.schema import Schema
from privacy.models.statements import decode_opening, load_opening, save_opening

__all__ = ["Service", "admit_party", "split_frames"]

_LOGGER = logging.getLogger("sealproof.service")

_HEAVY = 2
_TURN_SECONDS = 20
_POLL_SECONDS = 1.0
"""How often a process that does not lead tries to, and how soon jobs of another process are seen."""

_PUBLISH_SECONDS = 10.0
"""Beyond the time for witnesses: how long an entry waits for a published head before its author must ask again."""

_MOST_UNPUBLISHED = 24
"""Requests that wait for a published head at a time. Each waits in one of the threads that answer everybody, and slow
witnesses make the wait long: others are told to ask again."""

_MOST_WAITING = 8
"""Requests that do heavy work at a time, how long others wait for their turn, and how many: each waits in one of the
threads that answer those who only read."""


class Service:
    """A running server. Close it; until then a second one on the same folder is refused (LogLocked), unless its ledger
    is one that several may write."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        data = settings.data
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in ("models", "admitted"):
            (data / name).mkdir(exist_ok=True, mode=0o700)
        with ExitStack() as undo, held_lock(data / "start.lock"):
            signer = _log_key(data / "log.key", settings.origin)
            self.verifier = signer.verifier
            self.log = undo.enter_context(open_or_create(_place(settings), signer))
            self._leadership = Leadership(data / "leader.lock")
            undo.callback(self._leadership.release)
            self.blobs = BlobStore(data / "blobs", settings.min_free_bytes)
            if self._leadership.claim():
                shutil.rmtree(data / "tmp", ignore_errors=True)
                self.blobs.sweep()
            elif not self.log.shared:
                raise LogLocked(str(data))
            (data / "tmp").mkdir(mode=0o700, exist_ok=True)
            self.registry = Registry.read(self.log)
            self.approvals = approval_gate(settings, self.registry, undo)
            self._write = _Turn(self.log, self.registry)
            self._heavy = threading.BoundedSemaphore(_HEAVY)
            self._waiting = threading.BoundedSemaphore(_MOST_WAITING)
            self._unpublished = threading.BoundedSemaphore(_MOST_UNPUBLISHED)
            self._key = _server_key(data / "server.key")
            policy = _witness_policy(settings, self.verifier)
            self.publisher = Publisher(
                self.log,
                Cosigner(clock_name(settings.origin), self._key.private_bytes_raw()),
                policy,
                clients_of(policy) if policy is not None else [],
                settings.witness_seconds,
            )
            self.party = self._own_party()
            self.jobs = JobStore(data / "jobs.sqlite")
            undo.callback(self.jobs.close)
            self._nonces = NonceStore(data / "nonces.sqlite")
            undo.callback(self._nonces.close)
            self._limiter = RateLimiter(settings.requests_per_minute)
            self._worker = JobWorker(self.jobs, self, poll=_POLL_SECONDS if self.log.shared else None)
            self._ending = threading.Event()
            self._waiting_to_lead = threading.Thread(target=self._lead_in_turn, name="sealproof-leader", daemon=True)
            self.joint = JointService(
                settings,
                self.log,
                self.registry,
                self.blobs,
                self.jobs,
                self._write,
                lambda: self._worker.wake(),
                approvals=self.approvals,
            )
            self._undo = undo.pop_all()

    def start(self) -> None:
        """Begin to publish heads and to work off jobs, those of the last run first; as soon as this process leads."""
        if self._leadership.held:
            self._lead()
        else:
            self._waiting_to_lead.start()

    def _lead(self) -> None:
        self.publisher.start()
        self._worker.start()
        self.joint.start()

    def _lead_in_turn(self) -> None:
        while not self._ending.wait(_POLL_SECONDS):
            try:
                leads = self._leadership.claim()
            except OSError as error:
                # Such as too many open files: it passes, and somebody must take over afterwards.
                _LOGGER.warning("cannot tell whether another process leads: %s", error)
                continue
            if leads:
                self._lead()
                return

    def close(self) -> None:
        """Stop at the next step and close every file."""
        self._ending.set()
        if self._waiting_to_lead.is_alive():
            self._waiting_to_lead.join()
        self.joint.close()
        self._worker.stop()
        self.publisher.close()
        self._undo.close()

    def refresh(self) -> None:
        """See what other processes have logged since."""
        if self.log.shared:
            self.registry.refresh(self.log)

    @property
    def matching(self) -> JointService:
        """The part that matches nodes of multi-party computation. Raises NotReady where another process does it."""
        if not self._leadership.held:
            raise NotReady("another process of this server matches the nodes: give nodes the address of one alone")
        return self.joint

    def _published(self, reference: Reference) -> Reference:
        """`reference`, once a published head includes it.

        Raises NotReady, RateLimited; the entry is logged nevertheless.
        """
        self._wait_published(reference.index)
        return reference

    def _wait_published(self, index: int) -> None:
        self.publisher.wake()
        if self.publisher.wait_for(index + 1, 0):
            return
        if not self._unpublished.acquire(blocking=False):
            raise RateLimited("the entry is logged, and too many wait for a published head", _TURN_SECONDS)
        try:
            if not self.publisher.wait_for(index + 1, self.settings.witness_seconds + _PUBLISH_SECONDS):
                raise NotReady("the entry is logged, but no head that includes it is published yet: try again")
        finally:
            self._unpublished.release()

    # -- who asks ------------------------------------------------------------------------------------------------------

    def announce(self, request: SignedRequest) -> Logged[Party]:
        """The party that a request claims to be from, before its body is read. Raises NotAuthenticated."""
        check_time(request, datetime.now(UTC))
        try:
            return self.registry.get(request.party, Party)
        except VerificationFailed as error:
            raise NotAuthenticated("request.party", f"entry {request.party} is not a party") from error

    def authenticate(self, request: SignedRequest, method: str, target: str, body_digest: bytes) -> Logged[Party]:
        """The party that signed this request, whose nonce is now spent. Raises NotAuthenticated, RateLimited."""
        party = self.announce(request)
        now = datetime.now(UTC)
        verified = verify_request(request, method, target, body_digest, party.body.public_key, now)
        self._limiter.take(party.reference.index)
        self._nonces.spend(verified, now.timestamp())
        return party

    def register(self, entry: bytes, address: str) -> tuple[Reference, bool]:
        """Log a party entry; the reference, and whether it is new.

        Raises NotPermitted: `party.role` for a server, `party.registration` when the operator admits parties. And
        StorageFull.
        """
        self._limiter.take(("register", address))
        found = self.registry.index_of(entry)
        if found is not None:
            return self._published(self.registry.get(found, Party).reference), False
        decoded = decode_entry(entry)
        if not isinstance(decoded.body, Party):
            raise NotPermitted("entry.kind", "only a party is registered here")
        if decoded.body.role == "server":
            raise NotPermitted("party.role", "a server registers itself")
        self.registry.check(entry)
        self.blobs.check_room(len(entry))
        if self.settings.registration == "closed" and not _is_admitted(self.settings.data, decoded.body, entry):
            raise NotPermitted("party.registration", "the operator has not admitted this entry (sealproof party add)")
        return self._published(self._append(entry)), True

    # -- what is submitted ---------------------------------------------------------------------------------------------

    def store_blob(self, party: Logged[Party], digest: bytes, data: bytes) -> bool:
        """Store a blob; whether it is new. A consumer has nothing to upload but sealed requests.

        Raises VerificationFailed(`blob.digest`), TooLarge, StorageFull.
        """
        if party.body.role == "consumer" and len(data) > MAX_REQUEST_BOX_BYTES:
            raise TooLarge(MAX_REQUEST_BOX_BYTES)
        known = self.blobs.has(digest)
        if hashlib.sha256(data).digest() != digest:
            raise VerificationFailed("blob.digest", "the body does not have this SHA-256 digest")
        self.blobs.put(data)
        return not known

    def store_ciphertexts(self, party: Logged[Party], key: int, body: bytes) -> list[bytes]:
        """Store SEAL ciphertexts in canonical form, under the digests that a records entry lists.

        Raises NotPermitted(`key.author`), DecodeError, TooLarge.
        """
        from privacy.ckks.backend import canonical_from_seal

        entry = self.registry.get(key, Key)
        if entry.author != party.reference:
            raise NotPermitted("key.author", f"entry {key} is not a key of {party.body.name!r}")
        self.registry.check_not_revoked(entry.reference)
        params = parameters_of(entry.body.parameter_set)
        with self._turn():
            frames = split_frames(body, self.settings.max_ciphertexts)
            encoded = [encode_input(params, entry.reference.leaf, canonical_from_seal(params, x)) for x in frames]
        return [self.blobs.put(data) for data in encoded]

    def submit(self, party: Logged[Party], entry: bytes) -> tuple[Reference, bool]:
        """Log an entry of a clinic, owner or consumer; the reference, and whether it is new.

        The same bytes again give the same reference. Raises NotPermitted(`entry.author`) unless `party` wrote it,
        StorageFull, and as `Registry.check`, `check_consent` and `check_behind` do.
        """
        found = self.registry.index_of(entry)
        decoded = decode_entry(entry)
        if decoded.author != party.reference:
            raise NotPermitted("entry.author", f"party {party.reference.index} is not the author of this entry")
        if found is not None:
            return self._published(Reference.to(found, entry)), False
        self.registry.check(entry)
        self.blobs.check_room(len(entry))
        with self._turn():
            check_behind(decoded.body, self.blobs)
        with self._write:
            if self.registry.index_of(entry) is None:  # else an attempt that was reported as failed has logged it
                now = datetime.now(UTC)
                check_consent(self.registry, decoded, self.settings.requests_per_consumer, now)
            reference = self._append(entry)
        self.joint.nodes.wake()  # a revocation or suspension may concern a session
        return self._published(reference), True

    def _append(self, entry: bytes) -> Reference:
        with self._write:  # which has read what is logged: an append that was reported as failed may have happened
            found = self.registry.index_of(entry)
            if found is not None:
                return Reference.to(found, entry)
            self.registry.check(entry)
            self.publisher.check()
            appended = self.log.append(entry)
            self.registry.refresh(self.log)
        return Reference(appended.index, appended.leaf_hash)

    def store_opening(self, party: Logged[Party], index: int, data: bytes) -> None:
        """Keep the opening of a model of `party`, mode 0600. It is used for predictions and never handed out.

        Raises NotPermitted(`model.author`), DecodeError, VerificationFailed(`model.opening`).
        """
        model = self.registry.get(index, Model)
        if model.author != party.reference:
            raise NotPermitted("model.author", f"entry {index} is not a model of {party.body.name!r}")
        opening = decode_opening(data)
        with self._turn():
            check_opening(model.body, self._schema(model.body).d, opening)
        save_opening(opening, self._opening_path(model.reference))

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """A turn at heavy work. Raises RateLimited rather than hold up those who only read."""
        if not self._waiting.acquire(blocking=False):
            raise RateLimited("the server is busy", retry_after=_TURN_SECONDS)
        try:
            if not self._heavy.acquire(timeout=_TURN_SECONDS):
                raise RateLimited("the server is busy", retry_after=_TURN_SECONDS)
        finally:
            self._waiting.release()
        try:
            yield
        finally:
            self._heavy.release()

    def has_opening(self, model: Reference) -> bool:
        """Whether predictions with this model can be made."""
        return self._opening_path(model).is_file()

    def _opening_path(self, model: Reference) -> Path:
        return self.settings.data / "models" / f"{model.leaf.hex()}.opening"

    def _schema(self, model: Model) -> Schema:
        return Schema.decode_json(self.blobs.get(model.schema))

    # -- predictions ---------------------------------------------------------------------------------------------------

    def request_prediction(self, party: Logged[Party], records: int, model: int, nonce: bytes) -> Job:
        """Queue a prediction of the clinic that owns the records. The same request with the same nonce is the same job.

        With committed records it is computed by the nodes of clinic and owner first (`api.joint_service`).

        Raises:
            NotPermitted: `records.author`.
            PredictionRefused, ExposureCap, NotReady, RateLimited, Conflict.
            VerificationFailed, UsageError: records and model do not belong together.
        """
        known = self.jobs.find(party.reference.index, nonce.hex())
        if known is not None:
            if (known.records, known.model) != (records, model):
                raise Conflict("this nonce was used for another prediction")
            return known
        if self.joint.concerns(records):
            return self.joint.request(party, records, model, nonce)
        context = Context.of(self.registry, records, model)
        if self.registry.get(records, Records).author != party.reference:
            raise NotPermitted("records.author", f"entry {records} is not of {party.body.name!r}")
        self.approvals.require(model)
        self._check_policy(context)
        self._check_fit(context)
        if not self.has_opening(context.model.reference):
            raise NotReady(f"the owner of model {model} has not given its weights to this server")
        check_result_count(context.records.body.blocks * len(context.model.body.outputs))
        plan = self._plan(context)
        check_entry_size(context, plan)
        with self._write:
            self._check_cap(context, plan)
            job = self.jobs.add(
                party.reference.index,
                records,
                model,
                nonce.hex(),
                2 * context.records.body.blocks,
                self.settings.jobs_per_clinic,
            )
        self._worker.wake()
        return job

    def _plan(self, context: Context) -> tuple[PlannedProof, ...]:
        return plan_proofs(context.records.body, context.model.body, self.settings.instances_per_proof)

    def _check_policy(self, context: Context) -> None:
        about = (context.key, context.model, context.records)
        check_use(self.registry, context.records.body.policy, context.model.reference, about)
        self.approvals.check(context.model.reference)

    def _check_fit(self, context: Context) -> None:
        records, model = context.records.body, context.model.body
        if records.schema != model.schema:
            raise VerificationFailed("records.schema", "records and model have different schemas")
        if records.parameter_set != model.parameter_set:
            raise VerificationFailed("entry.parameter-set", "records and model name different parameter sets")
        if records.d != self._schema(model).d:
            raise VerificationFailed("records.schema", "the records have another number of features than the schema")

    def _check_cap(self, context: Context, plan: tuple[PlannedProof, ...]) -> None:
        """Count what was released, what queued jobs will release, and what is asked for, per output."""
        share = self.settings.exposure_cap
        if share is None:
            return
        records, model = context.records.body, context.model
        asked = _planned_bits(context, plan)
        waiting = dict.fromkeys(asked, Fraction(0))
        for job in self.jobs.pending(joint=False):
            logged = job.entry is not None and self.registry.index_of(job.entry) is not None
            other = Context.of(self.registry, job.records, job.model)
            if logged or other.model != model or other.records.body.clinic != records.clinic:
                continue
            for output, bits in _planned_bits(other, self._plan(other)).items():
                waiting[output] += bits
        outputs = [(o.name, hidden_bits(model.body, records.d, place)) for place, o in enumerate(model.body.outputs)]
        check_cap(share, outputs, recount(self.registry, records.clinic, model.reference.index), waiting, asked)

    def compute(self, job: Job, progress: Callable[[int], None]) -> bytes:
        """A job's work, for `JobWorker`."""
        self.refresh()
        self.approvals.ask(job.model)
        session = self.jobs.session(job.id)
        if session is not None:
            return sign_entry(self.joint.verify(job, session, progress), self.party.reference, self._key)
        context = Context.of(self.registry, job.records, job.model)
        with self._write:  # a revocation is logged before this head or after it
            self._check_policy(context)
            head = self.log.head()
            self.approvals.approval(context.model.reference, head.size)
        if not self.has_opening(context.model.reference):
            raise NotReady(f"the weights of model {context.model.reference.index} are no longer on this server")
        opening = load_opening(self._opening_path(context.model.reference))
        body = predict(context, opening, self.blobs, self._plan(context), (head.size, head.root), progress)
        return sign_entry(body, self.party.reference, self._key)

    def publish(self, job: Job, entry: bytes) -> tuple[int, bytes]:
        """The end of a job, for `JobWorker`: it may have got as far as here before."""
        joint = self.jobs.session(job.id) is not None
        approval = self._approval(job, entry)
        with self._write:
            index = self.registry.index_of(entry)
            if index is None:
                if joint:
                    self.joint.check(job)
                else:
                    self._check_policy(Context.of(self.registry, job.records, job.model))
                index = self._append(entry).index
        self.publisher.wake()
        make = attest_joint if joint else attest
        return index, make(self.log, self.registry, index, bytes.fromhex(job.nonce), timestamp(), self._key, approval)

    def _approval(self, job: Job, entry: bytes) -> int | None:
        """The approval that the attestation will name: one under the head that the prediction names."""
        self.registry.refresh(self.log)  # it may have been logged by an attempt that was reported as failed
        if self.registry.index_of(entry) is None:
            self.approvals.ask(job.model)
        body = decode_entry(entry).body
        if not isinstance(body, Prediction | JointPrediction):
            raise UsageError(f"a {body.KIND} is no prediction")
        return self.approvals.approval(body.model, body.checkpoint_size)

    def bundle(self, index: int, *, inputs: bool) -> Path:
        """The bundle of a prediction as a new file, which the caller removes. Raises NotFound, NotReady."""
        job = self.jobs.of_prediction(index)
        if job.attestation is None:
            raise NotFound(f"entry {index} has no attestation here")
        path = self.settings.data / "tmp" / f"{secrets.token_hex(16)}.sealproof"
        what = (path, self.log, self.registry, self.blobs, index, job.attestation)
        self._wait_published(index)
        head = self.publisher.first_head_with(index)
        with self._turn():
            if self.jobs.session(job.id) is not None:
                write_joint_bundle(*what, head=head)
            else:
                write_bundle(*what, inputs=inputs, head=head)
        return path

    # -- opening -------------------------------------------------------------------------------------------------------

    def _own_party(self) -> Logged[Party]:
        public_key = self._key.public_key().public_bytes_raw()
        if self.registry.party_with_key(public_key) is None:
            self._append(sign_entry(Party("server", self.settings.origin, public_key), None, self._key))
        found = self.registry.party_with_key(public_key)
        if found is None or found.body.role != "server":
            raise ApiError("the key of this server is registered in another role")
        return found


def _planned_bits(context: Context, plan: tuple[PlannedProof, ...]) -> dict[int, Fraction]:
    covers = [(planned.group, planned.outputs) for planned in plan]
    return bits_of_groups(context.records.body, context.model.body, covers)


def _log_key(path: Path, origin: str) -> Signer:
    if not path.exists():
        Signer.generate(origin).save(path)
    signer = Signer.load(path)
    if signer.name != origin:
        raise UsageError(f"the ledger of {path} is {signer.name!r}, not {origin!r}: its origin never changes")
    return signer


def _place(settings: Settings) -> LogPlace:
    return LogPlace.parse(settings.ledger or f"sqlite:{settings.data / 'ledger.sqlite'}")


def _witness_policy(settings: Settings, verifier: Verifier) -> TlogPolicy | None:
    """Whose cosignatures are asked for. Raises UsageError, DecodeError for a file that names no witness to ask."""
    if settings.witness_policy is None:
        return None
    try:
        policy = TlogPolicy.load(settings.witness_policy)
    except StorageError as error:
        raise UsageError(str(error)) from error
    if not clients_of(policy):
        raise UsageError(f"the witness policy {settings.witness_policy} names no witness with a URL")
    if policy.log(settings.origin) != verifier:
        # With another key no head would ever have the quorum, for this server or for a reader.
        raise UsageError(f"the witness policy {settings.witness_policy} has no line for the log {verifier}")
    return policy


class _Turn:
    """Nobody else, in this process or another, logs anything inside; the registry is up to date. Re-entrant."""

    def __init__(self, log: Log, registry: Registry) -> None:
        self._log = log
        self._registry = registry
        self._local = threading.local()

    def __enter__(self) -> None:
        turn = self._log.exclusive()
        turn.__enter__()
        try:
            self._registry.refresh(self._log)
        except BaseException as error:
            turn.__exit__(type(error), error, error.__traceback__)
            raise
        self._turns().append(turn)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._turns().pop().__exit__(kind, error, trace)

    def _turns(self) -> list[AbstractContextManager[None]]:
        if not hasattr(self._local, "turns"):
            self._local.turns = []
        turns: list[AbstractContextManager[None]] = self._local.turns
        return turns


def _server_key(path: Path) -> Ed25519PrivateKey:
    if not path.exists():
        save_private_key(Ed25519PrivateKey.generate(), path)
    return load_private_key(path)


def split_frames(body: bytes, most: int) -> list[bytes]:
    """The parts of a body of u32le length || bytes, one after the other; at least one, at most `most`.

    Raises DecodeError, TooLarge.
    """
    parts: list[bytes] = []
    at = 0
    while at < len(body):
        if len(parts) == most:
            raise TooLarge(most, "parts")
        length = int.from_bytes(body[at : at + 4], "little")
        at += 4
        if length == 0 or at + length > len(body):
            raise DecodeError("ciphertexts", f"part {len(parts)} is empty or cut off")
        parts.append(body[at : at + length])
        at += length
    if not parts:
        raise DecodeError("ciphertexts", "the body is empty")
    return parts


# -- admission by the operator ----------------------------------------------------------------------------------------


def _admission(data: Path, party: Party) -> Path:
    return data / "admitted" / f"{party.public_key.hex()}.json"


def _is_admitted(data: Path, party: Party, entry: bytes) -> bool:
    """Whether the operator admitted this very entry: the role and the name that he saw, not the key alone."""
    try:
        return _admission(data, party).read_bytes() == entry
    except FileNotFoundError:
        return False


def admit_party(data: Path, entry: bytes) -> Party:
    """Admit a party entry (name, role and key) to a server with closed registration; its holder then registers.

    The server may be running.

    Raises DecodeError, VerificationFailed(`entry.signature`), UsageError for the entry of a server.
    """
    decoded = decode_entry(entry)
    if not isinstance(decoded.body, Party) or decoded.body.role == "server":
        raise UsageError("only the party entry of a clinic, an owner or a consumer is admitted")
    verify_signature(decoded, decoded.body.public_key)
    folder = data / "admitted"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _admission(data, decoded.body).write_bytes(entry)
    return decoded.body
