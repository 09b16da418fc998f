"""A server with a network and committed records on it, and what the nodes of their parties ask and report."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass
from typing import Any

import httpx

from api.client.audit import verify_bundle
from api.client.joint_prediction import VerifiedJointPrediction
from api.entries import (
    JointPrediction,
    Party,
    Reference,
)
from api.jobs import Job
from api.joint_nodes import Announcement
from api.joint_prediction import JointContext
from api.joint_service import Offer
from api.registry import Logged
from api.service import Service
from tests.api.conftest import CLINIC, Caller, Running, ok
from tests.support.bundles import PATIENTS, SCHEMA
from tests.support.joint import SEALED, Computed, compute_session
from tests.support.joint_bundles import NetworkMaterial, RecordsMaterial, commit_cohort, network_material

DEALER = {"dealer_address": "dealer.example:7200", "dealer_key": "0d" * 32}
LISTENS = "owner.example:7100"
OWNER = "oncology-lab"


@dataclass(frozen=True, eq=False)
class Joint:
    """Entries that can be predicted on, and the secrets behind them."""

    clinic: Caller
    owner: Caller
    network: NetworkMaterial
    cohort: RecordsMaterial
    model: Reference
    records: Reference


def publish_network(owner: Caller, network: NetworkMaterial) -> Reference:
    for blob in network.blobs:
        owner.upload(blob)
    return owner.submit(network.body())


def submit_cohort(clinic: Caller, cohort: RecordsMaterial, **changes: Any) -> Reference:
    for blob in [SCHEMA.encode_json(), *cohort.blobs]:
        clinic.upload(blob)
    return clinic.submit(cohort.body(**changes))


def publish_joint(clinic: Caller, owner: Caller) -> Joint:
    """A linear network with one output, and the five patients of `tests.support.bundles`."""
    network, cohort = network_material("linear"), commit_cohort(PATIENTS, CLINIC)
    return Joint(clinic, owner, network, cohort, publish_network(owner, network), submit_cohort(clinic, cohort))


def ask(joint: Joint, records: Reference | None = None, nonce: str | None = None) -> str:
    """The id of a new job."""
    found = joint.clinic.predict((records or joint.records).index, joint.model.index, nonce or secrets.token_hex(32))
    return str(ok(found)["job"])


def poll(party: Caller, wait: int = 0, **changes: Any) -> list[dict[str, Any]]:
    """One request for offers. Owners listen."""
    address = LISTENS if party.name == OWNER else None
    said = {"address": address, **DEALER, "wait": wait, **changes}
    return list(ok(post(party, "/v1/mpc/offers", said))["offers"])


def post(party: Caller, target: str, said: Any) -> httpx.Response:
    return party.send("POST", target, json.dumps(said).encode())


def meet(joint: Joint) -> None:
    """Both nodes are there."""
    poll(joint.owner)
    poll(joint.clinic)


def compute(running: Running, joint: Joint, job: str, **changes: Any) -> Computed:
    """The session of a job, with its proofs uploaded by the owner."""
    service = running.service
    found, session = service.jobs.get(job), service.jobs.session(job)
    assert session is not None
    context = JointContext.of(service.registry, found.records, found.model)
    made = compute_session(context, joint.network, joint.cohort, (session.size, session.root), **changes)
    for proof in made.proofs:
        joint.owner.upload(proof)
    return made


def deliver(party: Caller, job: str, body: dict[str, Any]) -> httpx.Response:
    return post(party, f"/v1/mpc/jobs/{job}/result", body)


def fail(party: Caller, job: str, message: str = "nothing was heard for 120 s") -> httpx.Response:
    return post(party, f"/v1/mpc/jobs/{job}/failure", {"check": "mpc.stalled", "message": message})


# -- a server whose worker and clock a test holds ---------------------------------------------------------------------


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Held:
    """A copy of the server's folder, opened without its threads."""

    service: Service
    joint: Joint
    clock: Clock

    def __post_init__(self) -> None:
        self.hold()

    def hold(self) -> None:
        self.service.joint._clock = self.service.joint.nodes._clock = self.clock

    @property
    def clinic(self) -> Logged[Party]:
        return self.service.registry.get(self.joint.clinic.reference.index, Party)

    @property
    def owner(self) -> Logged[Party]:
        return self.service.registry.get(self.joint.owner.reference.index, Party)

    def ask(self, records: Reference | None = None, model: Reference | None = None) -> Job:
        indices = (records or self.joint.records).index, (model or self.joint.model).index
        return self.service.request_prediction(self.clinic, *indices, secrets.token_bytes(32))

    def offers(self, party: Logged[Party], listens: str | None = LISTENS) -> list[Offer]:
        return self.service.joint.offers(party, Announcement(listens, "dealer.example:7200", bytes(32)))

    def poll(self, party: Logged[Party], listens: str | None = LISTENS) -> list[str]:
        return [offer.job.id for offer in self.offers(party, listens)]

    def meet(self) -> None:
        self.poll(self.owner)
        self.poll(self.clinic, None)

    def log(self, author: Caller, body: Any) -> Reference:
        return self.service._append(author.sign(body))

    def compute(self, job: Job) -> Computed:
        session = self.service.jobs.session(job.id)
        assert session is not None
        context = JointContext.of(self.service.registry, job.records, job.model)
        head = (session.size, session.root)
        made = compute_session(context, self.joint.network, self.joint.cohort, head)
        for proof in made.proofs:
            self.service.blobs.put(proof)
        return made

    def deliver(self, job: Job, made: Computed) -> None:
        self.service.joint.deliver(self.owner, job.id, made.delivered, SEALED)

    def state(self, job: Job) -> str:
        return self.service.jobs.get(job.id).state

    def error(self, job: Job) -> dict[str, Any]:
        found = self.service.jobs.get(job.id)
        assert (found.state, found.prediction) == ("failed", None)
        assert found.error is not None
        return found.error

    def restart(self) -> None:
        self.service.close()
        self.service = Service(self.service.settings)
        self.hold()

    def finish(self, job: Job) -> Job:
        """Let the threads run until the job ends."""
        self.service.start()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = self.service.jobs.get(job.id)
            if found.state in ("done", "failed"):
                return found
            time.sleep(0.02)
        raise TimeoutError

    def check_done(self, job: Job, made: Computed) -> None:
        """One prediction more than before, of this session, and its bundle is there."""
        found = self.finish(job)
        assert found.error is None
        logged = [p for p in self.service.registry.all(JointPrediction) if p.body.session == made.delivered.session]
        assert [p.reference.index for p in logged] == [found.prediction]
        path = self.service.bundle(logged[0].reference.index, inputs=False)
        assert isinstance(verify_bundle(path, self.service.verifier), VerifiedJointPrediction)
