"""The joint proof of two-party computation: what it says, its bytes, its verifier (docs/spec/protocol.md, section 7).

For every patient p of a batch,

    PK{ x_p, rho_p, (w, bias, rho) of every row, bits, z_p, rho'_p :
        C_x^p = Com(x_p; rho_p),  C_lj = Com((w, bias)_lj; rho_lj),  C_z^po = Com(z_po; rho'_po),
        z_p = network(x_p) over the integers }

by proof X over copies of the circuit (`privacy.mpc.circuit`), one a patient, with the rows of the network in common.
Nodes A and B make it together (`privacy.mpc.joint_prover`), but to a verifier it is an ordinary proof: it holds
whatever A, B and the dealer did, and whoever they are. Together with the certificates of records and network all values
are integers within public bounds far below r, so z_p is the exact integer answer.

Hidden: records, weights, every intermediate value and the answers. Not hidden: shapes, scales, bounds, names, and the
number of patients.

    "sealproof/joint-proof/v1\\n"
    for each patient: hidden commitments of A and of B (absent in a linear model); for each output: C_z of A and of B
    proof X over copies, segments (record | hidden | one an answer), common segments: the rows
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.models.certificate import weights_key
from privacy.models.network_quantise import CommittedLayer, LayerShape, verify_bounds
from privacy.models.schema import Schema
from privacy.mpc.circuit import Circuit
from privacy.mpc.params import PATIENTS_PER_PROOF, MpcParameters
from privacy.mpc.records import record_key
from privacy.zk.copies import CopyProof, CopyStatement, encoded_size
from privacy.zk.group import ARKWORKS, POINT_BYTES, Group, Point
from privacy.zk.pedersen import CommitmentKey, commitment_key
from privacy.zk.transcript import Transcript
from privacy.zk.wire import Reader

__all__ = [
    "JointCommitments",
    "JointStatement",
    "answer_key",
    "answers_digest",
    "copy_statement",
    "encode_joint",
    "hidden_key",
    "joint_transcript",
    "proof_size",
    "row_keys",
    "verify_joint",
]

_TAG: Final = b"sealproof/joint-proof/v1\n"
_WHAT: Final = "joint proof"
_ANSWERS_TAG: Final = b"sealproof/answers/v1\n"
_DIGEST_BYTES: Final = 32


@dataclass(frozen=True)
class JointStatement:
    """Every public input of one joint proof: section 9 of the protocol for this mode. `absorb` binds all of them.

    Ids are leaf hashes of ledger entries. `commitments` are the C_x of patients `first` .. of the records entry,
    `records_certificate` the digest of the certificate of that batch. `session` names the run: it hashes fresh nonces
    of both nodes, so that nothing of another session fits. Raises UsageError for a field that no session has.
    """

    parameters: MpcParameters
    session: bytes
    clinic: str
    clinic_id: bytes
    owner: str
    owner_id: bytes
    model_id: bytes
    model_certificate: bytes
    schema: Schema
    link: str
    output_names: tuple[str, ...]
    grid_bits: int
    layers: tuple[CommittedLayer, ...]
    records_id: bytes
    records_certificate: bytes
    handles: bytes
    first: int
    commitments: tuple[bytes, ...]
    head_size: int
    head_root: bytes

    def __post_init__(self) -> None:
        digests = [self.session, self.clinic_id, self.owner_id, self.model_id, self.model_certificate]
        digests += [self.records_id, self.records_certificate, self.handles, self.head_root]
        if any(len(digest) != _DIGEST_BYTES for digest in digests):
            raise UsageError(f"a digest of a joint statement has {_DIGEST_BYTES} bytes")
        if not 1 <= len(self.commitments) <= PATIENTS_PER_PROOF or self.first % PATIENTS_PER_PROOF:
            raise UsageError(f"{len(self.commitments)} patients from {self.first} on are no batch")
        if any(len(commitment) != POINT_BYTES for commitment in self.commitments):
            raise UsageError(f"a commitment to a record has {POINT_BYTES} bytes")
        if not self.layers or len(self.output_names) != self.layers[-1].shape.outputs:
            raise UsageError("a network has a layer, and a name for each of its outputs")

    @property
    def count(self) -> int:
        """Patients of the batch."""
        return len(self.commitments)

    @cached_property
    def circuit(self) -> Circuit:
        """The constraints of one patient. Check the bounds first (`check`)."""
        shapes = tuple(layer.shape for layer in self.layers)
        return _circuit(self.schema, shapes, self.parameters.input_scale_bits)

    def check(self) -> None:
        """What must hold of public numbers alone, for provers and verifier.

        Raises VerificationFailed(`network.overflow`): shapes do not chain, or values could leave the computation's
        words, so that the circuit would say something else than the network computes.
        """
        verify_bounds(self.schema, [layer.shape for layer in self.layers], self.parameters.input_scale_bits)

    def absorb(self, transcript: Transcript) -> None:
        """Absorb every field, in order. The protocol tag is in the transcript already."""
        transcript.absorb(b"parameters", self.parameters.encode())
        transcript.absorb(b"session", self.session)
        transcript.absorb(b"clinic", self.clinic.encode())
        transcript.absorb(b"clinic.id", self.clinic_id)
        transcript.absorb(b"owner", self.owner.encode())
        transcript.absorb(b"owner.id", self.owner_id)
        transcript.absorb(b"model.id", self.model_id)
        transcript.absorb(b"model.certificate", self.model_certificate)
        transcript.absorb(b"model.schema", self.schema.digest())
        transcript.absorb(b"model.link", self.link.encode())
        transcript.absorb_integers(b"model.shape", [self.grid_bits, len(self.output_names), len(self.layers)])
        for name in self.output_names:
            transcript.absorb(b"output.name", name.encode())
        for layer in self.layers:
            shape = layer.shape
            numbers = [shape.inputs, shape.outputs, shape.weight_scale_bits, shape.b, shape.b_bias]
            transcript.absorb_integers(b"layer.shape", numbers)
            for commitment in layer.commitments:
                transcript.absorb_point(b"layer.row", commitment)
        transcript.absorb_integers(b"circuit.words", self.circuit.word_sizes)
        transcript.absorb(b"records.id", self.records_id)
        transcript.absorb(b"records.certificate", self.records_certificate)
        transcript.absorb(b"records.handles", self.handles)
        transcript.absorb_integers(b"records.batch", [self.first, self.count])
        for commitment in self.commitments:
            transcript.absorb_point(b"records.C_x", commitment)
        transcript.absorb_integers(b"head.size", [self.head_size])
        transcript.absorb(b"head.root", self.head_root)


@dataclass(frozen=True)
class JointCommitments:
    """What the parties commit to before any challenge, patient by patient: hidden values (absent in a linear model)
    and, output by output, answers; of A and of B apart, since each commits to a share."""

    hidden_A: tuple[Point, ...]
    hidden_B: tuple[Point, ...]
    answers_A: tuple[tuple[Point, ...], ...]
    answers_B: tuple[tuple[Point, ...], ...]

    def points(self) -> list[Point]:
        """All of them, in the order of the encoding."""
        out: list[Point] = []
        for p, (mine, theirs) in enumerate(zip(self.answers_A, self.answers_B, strict=True)):
            out += [self.hidden_A[p], self.hidden_B[p]] if self.hidden_A else []
            for a, b in zip(mine, theirs, strict=True):
                out += [a, b]
        return out

    @staticmethod
    def of_points(circuit: Circuit, count: int, points: Sequence[Point]) -> JointCommitments:
        """The inverse of `points`."""
        hidden = 2 if circuit.hidden else 0
        step = hidden + 2 * circuit.answers
        rows = [points[p * step : (p + 1) * step] for p in range(count)]
        return JointCommitments(
            tuple(row[0] for row in rows) if hidden else (),
            tuple(row[1] for row in rows) if hidden else (),
            tuple(tuple(row[hidden::2]) for row in rows),
            tuple(tuple(row[hidden + 1 :: 2]) for row in rows),
        )

    def answers(self, group: Group) -> list[list[Point]]:
        """C_z of every patient and output: the sums of both shares."""
        return [
            [group.add(a, b) for a, b in zip(mine, theirs, strict=True)]
            for mine, theirs in zip(self.answers_A, self.answers_B, strict=True)
        ]

    def absorb(self, transcript: Transcript, group: Group) -> None:
        """Absorb the commitments of both parties, before zeta."""
        for point in self.points():
            transcript.absorb_point(b"joint commitment", group.encode(point))


def answer_key(group: Group = ARKWORKS) -> CommitmentKey:
    """The key of C_z: one generator, so that an answer can be opened, or proven in a range, alone."""
    return commitment_key("mpc/answer", 1, group)


def hidden_key(circuit: Circuit, group: Group = ARKWORKS) -> CommitmentKey:
    """The key of the hidden segment."""
    return commitment_key("mpc/hidden", circuit.hidden_size, group)


def answers_digest(points: Sequence[bytes]) -> bytes:
    """What the ledger says of the answers of one proof: SHA-256 of a tag and the C_z, patient by patient."""
    return hashlib.sha256(_ANSWERS_TAG + b"".join(points)).digest()


def joint_transcript(statement: JointStatement) -> Transcript:
    """A transcript that has absorbed the statement."""
    transcript = Transcript(b"joint-proof")
    statement.absorb(transcript)
    return transcript


def copy_statement(
    statement: JointStatement,
    commitments: JointCommitments,
    records: Sequence[Point],
    rows: Sequence[Point],
    group: Group,
) -> CopyStatement:
    """The commitments as proof X sees them; `records` are the C_x and `rows` the C_lj, decoded."""
    circuit = statement.circuit
    hidden = [[group.add(a, b)] for a, b in zip(commitments.hidden_A, commitments.hidden_B, strict=True)]
    answers = commitments.answers(group)
    copies = tuple((C_x, *(hidden[p] if hidden else ()), *answers[p]) for p, C_x in enumerate(records))  # one a patient
    keys = (
        record_key(circuit.d, group),
        *([hidden_key(circuit, group)] if circuit.hidden else []),
        *([answer_key(group)] * circuit.answers),
    )
    return CopyStatement(circuit.system, keys, copies, row_keys(statement, group), tuple(rows))


def row_keys(statement: JointStatement, group: Group = ARKWORKS) -> tuple[CommitmentKey, ...]:
    """The keys of the common segments: one object a layer, so that its rows are opened together."""
    keys: list[CommitmentKey] = []
    for layer in statement.layers:
        keys += [weights_key(layer.shape.inputs, group)] * layer.shape.outputs
    return tuple(keys)


def encode_joint(commitments: JointCommitments, proof: CopyProof, group: Group = ARKWORKS) -> bytes:
    """The bytes of a joint proof."""
    return b"".join([_TAG, *map(group.encode, commitments.points()), proof.encode(group)])


def proof_size(circuit: Circuit, count: int) -> int:
    """Bytes of a joint proof about `count` patients."""
    return len(_TAG) + POINT_BYTES * _points(circuit, count) + encoded_size(circuit.segments, circuit.common, count)


def _points(circuit: Circuit, count: int) -> int:
    """Commitments of both parties."""
    return count * ((2 if circuit.hidden else 0) + 2 * circuit.answers)


def verify_joint(statement: JointStatement, data: bytes, group: Group = ARKWORKS) -> tuple[bytes, ...]:
    """Check a joint proof; the C_z it is about (48 bytes each), patient by patient and output by output.

    `statement` comes from the ledger, never from the proof. The certificates of records and network are checked apart
    (`verify_records`, `verify_network_certificate`): without them the values need not be integers.

    Raises:
        DecodeError: `data` is not the encoding of a proof of this shape, or a commitment is not a point.
        VerificationFailed: `network.overflow`, `quadratic.opening`, `quadratic.relation`, `joint.answer`.
    """
    statement.check()
    circuit, count = statement.circuit, statement.count
    size = proof_size(circuit, count)
    if len(data) != size:
        raise DecodeError(_WHAT, f"expected {size} bytes, got {len(data)}")
    records = [group.decode(commitment) for commitment in statement.commitments]
    rows = [group.decode(commitment) for layer in statement.layers for commitment in layer.commitments]
    reader = Reader(_WHAT, data)
    reader.expect(_TAG)
    commitments = JointCommitments.of_points(circuit, count, reader.points(group, _points(circuit, count)))
    proof = CopyProof.read(reader, group, circuit.system, count)
    reader.end()
    transcript = joint_transcript(statement)
    commitments.absorb(transcript, group)
    proof.verify(transcript, copy_statement(statement, commitments, records, rows, group))
    answers = [point for patient in commitments.answers(group) for point in patient]
    if any(group.equal(point, group.identity()) for point in answers):
        raise VerificationFailed("joint.answer", "a commitment to an answer is the identity, which hides nothing")
    return tuple(map(group.encode, answers))


@lru_cache(maxsize=2)
def _circuit(schema: Schema, shapes: tuple[LayerShape, ...], input_scale_bits: int) -> Circuit:
    # A system of a few thousand constraints is the same for every batch and every prediction with a network. Few are
    # kept: that of the widest network takes a fifth of a gigabyte.
    return Circuit.of(schema, shapes, input_scale_bits)
