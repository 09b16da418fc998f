"""Jobs of multi-party computation: what the server does for the nodes of clinic and owner (docs/spec/protocol.md,
section 7).

    request     the clinic asks; policy, revocations, suspensions and cap are checked, the ledger head is fixed; the
                job is `computing`
    offer       both nodes are there and name the same dealer: both are told to begin, on every poll until it is over
    delivery    the owner's node delivers proofs and sealed shares: the job is `queued`, and the job worker verifies,
                logs and attests as for any other prediction
    break off   a node reports a failure, a deadline passes, or a revocation or suspension came in between

A node takes part in one session at a time, oldest job first: several of a pair that fail together would tell several
bits. The clock of a job that waits for its turn stands still. Only requests, deliveries and failures are stored; which
nodes are there is known from their polls, so that a server that starts again finds its jobs as they were and counts
their time anew.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Literal

from api.approval_gate import ApprovalGate
from api.blobs import BlobStore
from api.entries import CommittedRecords, JointPrediction, Party
from api.errors import (
    ApiError,
    Conflict,
    NodesNotReady,
    NotFound,
    NotPermitted,
    NotReady,
    PredictionRefused,
    describe,
)
from api.exposure import joint_bits, network_bits, recount
from api.jobs import Job, JobStore, Session
from api.joint_binding import check_joint_fit
from api.joint_nodes import PRESENT_SECONDS, Announcement, Nodes
from api.joint_prediction import (
    Delivered,
    JointContext,
    check_delivered,
    check_joint_size,
    decode_delivered,
    encode_delivered,
    verify_delivered,
)
from api.policy import check_cap, check_use
from api.registry import Logged, Registry
from api.settings import Settings
from ledger import Log
from privacy.errors import PrivacyError, SessionBroken, VerificationFailed

__all__ = ["JointService", "Offer"]

_LOOK_SECONDS: Final = 0.5
"""How often deadlines are looked at; a deadline is kept that exactly."""

_REPORT_SECONDS: Final = 5.0
"""How long the nodes of a session that suspended its parties may take to report why, before the job fails without."""

_LOGGER: Final = logging.getLogger("sealproof.mpc")


@dataclass(frozen=True)
class Offer:
    """A session that is to begin, as one of its two nodes is told. `peer_address`: where B listens, for A."""

    job: Job
    role: Literal["A", "B"]
    owner: int
    peer_address: str | None
    checkpoint: bytes


class JointService:
    """The part of a server that multi-party computation takes.

    `write` is held while something is checked and then stored, `wake` tells the job worker of a queued job. Safe to use
    from many threads.
    """

    def __init__(
        self,
        settings: Settings,
        log: Log,
        registry: Registry,
        blobs: BlobStore,
        jobs: JobStore,
        write: AbstractContextManager[Any],
        wake: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        approvals: ApprovalGate | None = None,
    ) -> None:
        self.nodes = Nodes(clock)
        self._settings = settings
        self._log = log
        self._registry = registry
        self._blobs = blobs
        self._jobs = jobs
        self._write = write
        self._wake = wake
        self._clock = clock
        self._approvals = approvals or ApprovalGate(registry, None)
        self._lock = threading.Lock()
        self._since: dict[str, float] = {}
        """By job: since when it waits for its nodes, or for what they deliver."""
        self._suspended: dict[str, float] = {}
        """By job: since when its parties are suspended."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sealproof-sessions", daemon=True)

    def start(self) -> None:
        """Begin to watch deadlines."""
        self._ask_contract()  # before nodes come: what was not asked lately is not served
        self._thread.start()

    def close(self) -> None:
        """Stop to watch them."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    # -- the clinic asks ----------------------------------------------------------------------------------------------

    def concerns(self, records: int) -> bool:
        """Whether records entry `records` is one for multi-party computation."""
        try:
            self._registry.get(records, CommittedRecords)
        except VerificationFailed:
            return False
        return True

    def request(self, party: Logged[Party], records: int, model: int, nonce: bytes) -> Job:
        """A new job, which waits for the nodes of both parties.

        Raises:
            NotPermitted: `records.author`.
            PredictionRefused, ExposureCap, RateLimited, Conflict, NotReady.
            VerificationFailed, UsageError: records and model do not belong together, or are too large.
        """
        context = JointContext.of(self._registry, records, model)
        if context.clinic.reference != party.reference:
            raise NotPermitted("records.author", f"entry {records} is not of {party.body.name!r}")
        self._approvals.require(model)
        self._check_use(context)
        check_joint_fit(context.model.body, context.records.body)
        check_joint_size(context, self._blobs, self._settings.max_blob_bytes)
        with self._write:
            self._check_use(context)  # under the head that the prediction will name
            self._check_cap(context)
            # Nodes are shown this head and remember it, so it must be one that is published.
            head = self._log.published()
            if head.size <= max(records, model):
                raise NotReady("no head with these records and this model is published yet: ask again")
            self._approvals.approval(context.model.reference, head.size)
            job = self._jobs.add_joint(
                party.reference.index,
                context.owner.reference.index,
                records,
                model,
                nonce.hex(),
                len(context.records.body.certificates),
                (head.size, head.root, head.note),
                self._settings.jobs_per_clinic,
            )
        with self._lock:
            self._since.setdefault(job.id, self._clock())
        self.nodes.wake()
        return job

    def check(self, job: Job) -> None:
        """Policy, approvals, revocations and suspensions still allow this job. Raises PredictionRefused, NotReady."""
        self._check_use(JointContext.of(self._registry, job.records, job.model))

    def _check_use(self, context: JointContext) -> None:
        about = (context.model, context.records)
        check_use(self._registry, context.records.body.policy, context.model.reference, about)
        self._approvals.check(context.model.reference)
        clinic, owner = context.clinic, context.owner
        found = self._registry.suspension_of(clinic.reference.index, owner.reference.index)
        if found:
            entries = ", ".join(str(suspension.reference.index) for suspension in found)
            raise PredictionRefused(
                "mpc.suspended",
                f"a session of {clinic.body.name!r} and {owner.body.name!r} ended without its proofs (ledger entries "
                f"{entries}): both owners look into it, and each runs `sealproof mpc clear NAME -f FOLDER`",
            )

    def _check_cap(self, context: JointContext) -> None:
        share = self._settings.exposure_cap
        if share is None:
            return
        model, clinic = context.model, context.records.body.clinic
        asked = joint_bits(model.body, context.records.body.count)
        waiting = dict.fromkeys(asked, Fraction(0))
        for job in self._jobs.pending(joint=True):
            logged = job.entry is not None and self._registry.index_of(job.entry) is not None
            other = JointContext.of(self._registry, job.records, job.model)
            if logged or other.model != model or other.records.body.clinic != clinic:
                continue
            for output, bits in joint_bits(model.body, other.records.body.count).items():
                waiting[output] += bits
        outputs = [(name, network_bits(model.body)) for name in model.body.outputs]
        check_cap(share, outputs, recount(self._registry, clinic, model.reference.index), waiting, asked)

    # -- both nodes come ----------------------------------------------------------------------------------------------

    def offers(self, party: Logged[Party], said: Announcement) -> list[Offer]:
        """The node of this party is there: the sessions that it is to take part in, oldest first.

        Raises NotPermitted(`mpc.role`) for a party that takes part in none.
        """
        if party.body.role not in ("clinic", "owner"):
            raise NotPermitted("mpc.role", "only clinics and owners have nodes")
        index = party.reference.index
        self.nodes.announce(index, said)
        found = []
        for job, session in self.look():
            if index == job.clinic:
                listens = self.nodes.latest(session.owner)
                if listens is not None and listens.address is not None:  # else the server has just started again
                    found.append(Offer(job, "A", session.owner, listens.address, self._shown(session)))
            elif index == session.owner:
                found.append(Offer(job, "B", session.owner, None, self._shown(session)))
        return found

    def _shown(self, session: Session) -> bytes:
        """The head of a session with the cosignatures that have come since it was fixed."""
        published = self._log.publications(session.size, 1)
        return published[0].note if published and published[0].size == session.size else session.note

    def look(self) -> list[tuple[Job, Session]]:
        """Break off every job that cannot go on; the sessions that are to run now, oldest first."""
        if self._log.shared:
            self._registry.refresh(self._log)  # of jobs that another process took
        with self._lock:
            now = self._clock()
            computing = self._jobs.computing()
            self._since = {job.id: self._since.get(job.id, now) for job, _ in computing}
            self._suspended = {job.id: t for job, _ in computing if (t := self._suspended.get(job.id)) is not None}
            running, busy, news = [], set[int](), False
            for job, session in sorted(computing, key=lambda found: not found[1].offered):
                try:
                    if not self._may_go_on(job, session, now):
                        continue
                    if session.offered:
                        self._check_session_time(job, session, now)
                    elif busy & {job.clinic, session.owner}:
                        self._since[job.id] = now  # it waits for its turn
                        continue
                    elif self._are_ready(job, session, now):
                        self._jobs.offer(job.id)
                        self._since[job.id] = now
                        news = True
                    else:
                        continue
                except (ApiError, PrivacyError) as error:
                    self._break_off(job, error)
                    news = True
                else:
                    running.append((job, session))
                    busy |= {job.clinic, session.owner}
        if news:
            self.nodes.wake()
        return running

    def _may_go_on(self, job: Job, session: Session, now: float) -> bool:
        """Whether nothing came in between. Raises as `check`, for a suspended session once its report is overdue."""
        try:
            self.check(job)
        except PredictionRefused as error:
            since = self._suspended.setdefault(job.id, now)
            if not session.offered or error.check != "mpc.suspended" or now - since > _REPORT_SECONDS:
                raise
            return False
        return True

    def _are_ready(self, job: Job, session: Session, now: float) -> bool:
        """Whether both nodes are there. Raises NodesNotReady: `mpc.node` after their time, `mpc.dealer`."""
        missing = []
        clinic, owner = (self._registry.get(index, Party) for index in (job.clinic, session.owner))
        for party in (clinic, owner):
            if not self.nodes.present(party.reference.index):
                missing.append(f"the node of {_side(party)} was not there: start it with `sealproof mpc node`")
        theirs, ours = (self.nodes.latest(party.reference.index) for party in (owner, clinic))
        if theirs is not None and theirs.address is None:
            missing.append(f"the node of {_side(owner)} listens nowhere: start it with `sealproof mpc node --listen`")
        if not missing and theirs is not None and ours is not None:
            if theirs.dealer_key != ours.dealer_key:
                raise NodesNotReady(
                    "mpc.dealer",
                    f"the node of {_side(clinic)} uses the dealer with key {ours.dealer_key.hex()}, that of "
                    f"{_side(owner)} the one with key {theirs.dealer_key.hex()}: both must use the same",
                )
            return True
        limit = self._settings.mpc_node_seconds
        if now - self._since[job.id] > limit:
            raise NodesNotReady("mpc.node", f"after {limit:g} s " + "; ".join(missing))
        return False

    def _check_session_time(self, job: Job, session: Session, now: float) -> None:
        limit = self._settings.mpc_session_seconds
        if now - self._since[job.id] <= limit:
            return
        gone = [
            f"the node of {_side(self._registry.get(index, Party))} was not heard of for {PRESENT_SECONDS:g} s "
            "(start it with `sealproof mpc node`)"
            for index in (job.clinic, session.owner)
            if not self.nodes.present(index)
        ]
        raise SessionBroken("mpc.session-time", "; ".join([f"no proofs were delivered within {limit:g} s", *gone]))

    def _break_off(self, job: Job, error: Exception) -> bool:
        problem = describe(error)
        done = self._jobs.break_off(job.id, problem)
        if done:
            foreseen = problem.incident is None
            exc_info = None if foreseen else error
            _LOGGER.warning("a joint job of party %d failed: %s", job.clinic, problem.message, exc_info=exc_info)
        return done

    def _watch(self) -> None:
        while not self._stopping.wait(_LOOK_SECONDS):
            try:
                self._ask_contract()  # here, since nobody waits for this thread: the contract's node may take its time
                self.look()
            except Exception:
                # The disk failed; what cannot be stored now is looked at again.
                _LOGGER.exception("the deadlines of joint jobs could not be kept")

    def _ask_contract(self) -> None:
        self._approvals.refresh({job.model for job, _ in self._jobs.computing()})

    # -- the nodes answer ---------------------------------------------------------------------------------------------

    def deliver(self, party: Logged[Party], job_id: str, delivered: Delivered, sealed: bytes) -> None:
        """The owner's node delivers what both made. The same again changes nothing.

        Raises:
            NotFound, Conflict: there is no such job, it waits for nothing, something else was delivered for it, or this
                session for another.
            NotPermitted: `job.owner`.
            VerificationFailed: `prediction.coverage`, `entry.blob`, `prediction.proof-size`.
            StorageFull.
        """
        job, session = self._joint(job_id)
        if session.owner != party.reference.index:
            raise NotPermitted("job.owner", f"the model of this job is not of {party.body.name!r}")
        encoded = encode_delivered(delivered)
        if session.result is None:
            if job.state != "computing":
                raise Conflict(f"the job is {job.state} and waits for no result")
            context = JointContext.of(self._registry, job.records, job.model)
            check_delivered(context, delivered, self._blobs)
            self._blobs.check_room(len(encoded) + len(sealed))
            if self._jobs.deliver(job_id, delivered.session, encoded, sealed):
                self._wake()
                self.nodes.wake()
                return
            job, session = self._joint(job_id)  # it was broken off, or delivered, meanwhile
        if (session.result, session.sealed) != (encoded, sealed):
            raise Conflict("another result was delivered, or the job was broken off")

    def report_failure(self, party: Logged[Party], job_id: str, check: str, message: str) -> Job:
        """A node reports that its session ended without its proofs. Nothing changes if the job is not computing.

        Raises NotFound, NotPermitted(`job.party`).
        """
        job, session = self._joint(job_id)
        if party.reference.index not in (job.clinic, session.owner):
            raise NotPermitted("job.party", f"{party.body.name!r} takes no part in this job")
        said = message.removeprefix(f"{check}: ")
        if self._break_off(job, SessionBroken(check, f"the node of {_side(party)} reports: {said}")):
            self.nodes.wake()
        return self._jobs.get(job_id)

    def sealed(self, party: Logged[Party], job_id: str) -> bytes:
        """What the owner's node sealed for the clinic's, once the prediction is published.

        Raises NotFound, NotPermitted(`job.clinic`), Conflict before.
        """
        job, session = self._joint(job_id)
        if job.clinic != party.reference.index:
            raise NotPermitted("job.clinic", f"this job is not of {party.body.name!r}")
        if job.state != "done" or session.sealed is None:
            raise Conflict(f"the job is {job.state}: answers are handed out once their prediction is on the ledger")
        return session.sealed

    def _joint(self, job_id: str) -> tuple[Job, Session]:
        job, session = self._jobs.get(job_id), self._jobs.session(job_id)
        if session is None:
            raise NotFound("this is no job of multi-party computation")
        return job, session

    # -- the job worker publishes -------------------------------------------------------------------------------------

    def verify(self, job: Job, session: Session, progress: Callable[[int], None]) -> JointPrediction:
        """Verify what was delivered; the body of the entry that logs it. Raises as `verify_delivered`, `check`."""
        if session.result is None:
            raise NotFound("nothing was delivered for this job")
        self.check(job)
        context = JointContext.of(self._registry, job.records, job.model)
        delivered = decode_delivered(session.result)
        return verify_delivered(context, delivered, self._blobs, (session.size, session.root), progress)


def _side(party: Logged[Party]) -> str:
    return f"{party.body.role} {party.body.name!r} (party {party.reference.index})"
