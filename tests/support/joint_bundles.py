"""Bundles of multi-party computation made step by step from library calls, so that a test can change one step.

The joint proof is made by one prover who knows both sides: clinic and owner as one adversary. Nothing of the server,
of the nodes or of CrypTen is used; whoever holds a server's key can write what these functions write.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from api import joint_binding as binding
from api.binding import Located
from api.consistency import ConsistencyProof
from api.entries import (
    CommittedRecords,
    JointPrediction,
    JointProof,
    Network,
    Party,
    Policy,
    decode_entry,
    encode_point_list,
)
from ledger import Signer
from privacy import attestation as att
from privacy.bundle import BundleWriter
from privacy.models import network_certificate as certificates
from privacy.models.network import Dense
from privacy.models.network import Network as FloatNetwork
from privacy.models.network_quantise import QuantisedNetwork, quantise_network
from privacy.mpc.circuit import Circuit
from privacy.mpc.joint_proof import (
    JointCommitments,
    JointStatement,
    answer_key,
    answers_digest,
    copy_statement,
    encode_joint,
    hidden_key,
    joint_transcript,
)
from privacy.mpc.params import batches, mpc_parameters
from privacy.mpc.records import CommittedRecord, RecordsStatement, certify_records, commit_records
from privacy.zk.copies import prove_copies, split
from privacy.zk.group import ARKWORKS, ORDER
from tests.support.bundles import ISSUED_AT, NONCE, PATIENTS, SCHEMA, Actor, World

PARAMS = mpc_parameters("mpc-64")
HANDLES = sha256(b"handles").digest()
SESSION = sha256(b"session").digest()

NETWORKS: dict[str, tuple[tuple[Any, Any], ...]] = {
    "linear": (([[0.02, -0.05, 0.9]], [-0.25]),),
    "small": (([[0.02, -0.05, 0.9], [-0.01, 0.04, -0.5]], [-0.25, 0.5]), ([[0.75, -1.25]], [0.125])),
    "other": (([[0.01, -0.05, 0.9], [-0.01, 0.04, -0.5]], [-0.25, 0.5]), ([[0.75, -1.25]], [0.125])),
    "two": (([[0.02, -0.05, 0.9]], [-0.25]), ([[0.75], [-0.5]], [0.125, 1.0])),
}
"""Weights and bias of every layer, by name."""


@dataclass(frozen=True, eq=False)
class NetworkMaterial:
    """A committed network: the float one, the integers, openings and certificate."""

    network: FloatNetwork
    quantised: QuantisedNetwork
    statement: certificates.NetworkStatement
    rows: tuple[tuple[certificates.RowOpening, ...], ...]
    certificate: bytes

    def body(self, **changes: Any) -> Network:
        body = binding.network_entry(self.statement, sha256(self.certificate).digest(), bytes(32), {})
        return replace(body, **changes)

    @property
    def blobs(self) -> list[bytes]:
        return [self.certificate, SCHEMA.encode_json()]


@cache
def network_material(name: str = "small", version: str = "1") -> NetworkMaterial:
    layers = tuple(Dense(np.array(weights), np.array(bias)) for weights, bias in NETWORKS[name])
    names = tuple(f"y{k}" for k in range(layers[-1].outputs))
    network = FloatNetwork("heart-net", layers, names, "logit" if len(names) == 1 else "identity", SCHEMA)
    quantised = quantise_network(network, PARAMS.input_scale_bits)
    committed, rows = certificates.commit_network(quantised)
    statement = certificates.network_statement(quantised, PARAMS, version, committed)
    return NetworkMaterial(network, quantised, statement, rows, certificates.certify_network(statement, rows))


@dataclass(frozen=True, eq=False)
class RecordsMaterial:
    """A committed cohort: values, commitments, openings, and one certificate a batch."""

    clinic: str
    values: np.ndarray[Any, Any]
    commitments: tuple[bytes, ...]
    openings: tuple[CommittedRecord, ...]
    certificates: tuple[bytes, ...]

    def body(self, **changes: Any) -> CommittedRecords:
        body = CommittedRecords(
            clinic=self.clinic,
            parameter_set=PARAMS.name,
            schema=SCHEMA.digest(),
            d=SCHEMA.d,
            count=len(self.values),
            commitments=sha256(encode_point_list(self.commitments)).digest(),
            certificates=tuple(sha256(certificate).digest() for certificate in self.certificates),
            handles=HANDLES,
            policy=Policy("any", None),
        )
        return replace(body, **changes)

    @property
    def blobs(self) -> list[bytes]:
        return [encode_point_list(self.commitments), *self.certificates]


def commit_cohort(values: np.ndarray[Any, Any], clinic: str = "st-anna") -> RecordsMaterial:
    commitments, openings = commit_records(SCHEMA, PARAMS, values)
    made = []
    for batch in batches(len(values)):
        part = slice(batch.start, batch.stop)
        statement = RecordsStatement(
            PARAMS, clinic, SCHEMA, HANDLES, len(values), batch.start, commitments[batch.start : batch.stop]
        )
        made.append(certify_records(statement, openings[part]))
    return RecordsMaterial(clinic, values, commitments, openings, tuple(made))


@cache
def records_material(clinic: str = "st-anna") -> RecordsMaterial:
    return commit_cohort(PATIENTS, clinic)


# -- one prover for both sides ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answers:
    """Openings of the C_z of one batch: values and blindings, patient by patient and output by output."""

    z: list[int]
    rho: list[int]


def witness_of(circuit: Circuit, rows: Sequence[Sequence[Any]], values: Sequence[int]) -> list[int]:
    """All coordinates of one patient: record, bits of A and B, signs, pre-activations, outputs, answers."""
    out, y = list(values), list(values)
    for layer, layer_rows in zip(circuit.hidden, rows, strict=False):
        h = [sum(w * a for w, a in zip(row.weights, y, strict=True)) + row.bias for row in layer_rows]
        words = [value % (1 << layer.n) for value in h]
        of_A = [secrets.randbelow(1 << layer.n) for _ in h]
        of_B = [word ^ a for word, a in zip(words, of_A, strict=True)]
        signs = [int(value < 0) for value in h]
        y = [value * (1 - sign) for value, sign in zip(h, signs, strict=True)]
        out += [(word >> k) & 1 for half in (of_A, of_B) for word in half for k in range(layer.n)]
        out += [*signs, *h, *y]
    return out + [sum(w * a for w, a in zip(row.weights, y, strict=True)) + row.bias for row in rows[-1]]


def prove_alone(
    statement: JointStatement, rows: Sequence[Sequence[Any]], records: Sequence[CommittedRecord]
) -> tuple[bytes, Answers]:
    """The joint proof of a batch by somebody who knows everything; A commits to all of it and B to zero."""
    circuit, group = statement.circuit, ARKWORKS
    witnesses = [split(witness_of(circuit, rows, record.values), circuit.system.segments) for record in records]
    keys = [*([hidden_key(circuit)] if circuit.hidden else []), *([answer_key()] * circuit.answers)]
    points, blindings = [], []
    for record, witness in zip(records, witnesses, strict=True):
        halves = [(secrets.randbelow(ORDER), secrets.randbelow(ORDER)) for _ in keys]
        for key, part, (a, b) in zip(keys, witness[1:], halves, strict=True):
            points += [key.commit([x % ORDER for x in part], a), key.commit([0] * len(part), b)]
        blindings.append([record.rho, *((a + b) % ORDER for a, b in halves)])
    commitments = JointCommitments.of_points(circuit, len(records), points)
    copies = copy_statement(
        statement,
        commitments,
        [group.decode(point) for point in statement.commitments],
        [group.decode(point) for layer in statement.layers for point in layer.commitments],
        group,
    )
    transcript = joint_transcript(statement)
    commitments.absorb(transcript, group)
    flat = [row for layer in rows for row in layer]
    proof = prove_copies(
        transcript, copies, witnesses, blindings, [row.values for row in flat], [row.rho for row in flat]
    )
    answers = Answers(
        [witness[-circuit.answers + o][0] for witness in witnesses for o in range(circuit.answers)],
        [rho for row in blindings for rho in row[len(row) - circuit.answers :]],
    )
    return encode_joint(commitments, proof), answers


# -- the story --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Predicted:
    """A prediction that is not logged yet, the proofs behind it, and the openings of its answers."""

    body: JointPrediction
    blobs: list[bytes]
    answers: list[Answers]


@dataclass
class JointStory:
    """An honest world up to a joint prediction that is proven and not yet logged."""

    world: World
    server: Actor
    clinic: Actor
    owner: Actor
    network: NetworkMaterial
    cohort: RecordsMaterial
    model: Located[Network]
    records: Located[CommittedRecords]
    predicted: Predicted

    @property
    def parties(self) -> list[Actor]:
        return [self.server, self.clinic, self.owner]

    @property
    def blobs(self) -> list[bytes]:
        return [*self.network.blobs, *self.cohort.blobs, *self.predicted.blobs]

    def party(self, actor: Actor) -> Located[Party]:
        body = decode_entry(self.world.log.entry(actor.reference.index)).body
        assert isinstance(body, Party)
        return Located(actor.reference, body)

    def predict(self, **changes: Any) -> Predicted:
        """Prove again; `changes` replace model, records, network, cohort, owner, clinic, session or head."""
        using = {
            "model": self.model,
            "records": self.records,
            "network": self.network,
            "cohort": self.cohort,
            "owner": self.owner,
            "clinic": self.clinic,
            "session": SESSION,
            "head": self.world.head,
            **changes,
        }
        cohort, model, records = using["cohort"], using["model"], using["records"]
        proofs, blobs, answers = [], [], []
        for batch in batches(len(cohort.values)):
            part = slice(batch.start, batch.stop)
            statement = binding.joint_statement(
                model,
                records,
                self.party(using["owner"]),
                self.party(using["clinic"]),
                SCHEMA,
                using["session"],
                batch,
                cohort.commitments[part],
                using["head"],
            )
            proof, opened = prove_alone(statement, using["network"].rows, cohort.openings[part])
            points = [ARKWORKS.encode(answer_key().commit([z % ORDER], r)) for z, r in zip(opened.z, opened.rho)]  # noqa: B905
            digest = answers_digest(points)
            proofs.append(JointProof(batch.start, len(batch), sha256(proof).digest(), len(proof), digest))
            blobs.append(proof)
            answers.append(opened)
        body = JointPrediction(
            records.reference,
            model.reference,
            using["session"],
            tuple(proofs),
            model.body.answer_scale_bits,
            model.body.grid_bits,
            *using["head"],
        )
        return Predicted(body, blobs, answers)

    def log(self, **changes: Any) -> Located[JointPrediction]:
        """Log the prediction, with these fields altered, as the holder of the server's key can."""
        return self.world.append(self.server, replace(self.predicted.body, **changes))

    def predicate(self, prediction: Located[JointPrediction], **changes: Any) -> att.JointPredicate:
        made = binding.joint_predicate(
            self.world.log.entry,
            prediction.reference.index,
            prediction.body,
            self.model.body,
            issued_at=ISSUED_AT,
            request_nonce=NONCE,
        )
        return replace(made, **changes)

    def attest(self, prediction: Located[JointPrediction], **changes: Any) -> bytes:
        return att.sign_statement(self.predicate(prediction, **changes), self.server.private_key)

    def bundle(
        self,
        path: Path,
        prediction: Located[JointPrediction] | None = None,
        envelope: bytes | None = None,
        blobs: Iterable[bytes] | None = None,
        indices: Iterable[int] | None = None,
    ) -> Path:
        """The bundle; every part that is not given is the honest one."""
        world = self.world
        prediction = prediction or self.log()
        envelope = envelope or self.attest(prediction)
        body = prediction.body
        named = [prediction.reference, body.records, body.model, *(actor.reference for actor in self.parties)]
        with BundleWriter(path) as writer:
            writer.set_attestation(envelope)
            for index in {r.index for r in named} if indices is None else indices:
                writer.add_entry(index, world.log.entry(index), world.log.tlog_proof(index))
            size = body.checkpoint_size
            hashes = tuple(world.log.consistency_proof(size)) if size <= world.log.size else ()
            writer.set_consistency_proof(ConsistencyProof(size, world.log.size, hashes).format())
            for blob in self.blobs if blobs is None else blobs:
                writer.add_blob(blob)
        return path


def tell(
    folder: Path,
    *,
    network: str = "small",
    cohort: RecordsMaterial | None = None,
    signer: Signer | None = None,
    records_changes: dict[str, Any] | None = None,
) -> JointStory:
    """An honest story: parties, network, committed records, joint prediction."""
    world = World(folder, signer)
    server = world.register("server", "scores.example")
    clinic = world.register("clinic", "st-anna")
    owner = world.register("owner", "heart-lab")
    material, committed = network_material(network), cohort or records_material()
    model = world.append(owner, material.body())
    records = world.append(clinic, committed.body(**(records_changes or {})))
    unproven: Any = None
    story = JointStory(world, server, clinic, owner, material, committed, model, records, unproven)
    story.predicted = story.predict()
    return story
