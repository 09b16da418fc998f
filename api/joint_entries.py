"""Bodies of the ledger entries of multi-party computation (docs/spec/protocol.md, section 7).

A network and a cohort are committed by those who hold them; a joint prediction names the proofs that both made together
in one session. An active party learns one bit of the other's secrets for each proof that fails, so the end of a session
without a proof is an entry too: it stops all sessions between the two until both have cleared it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from api.entry_parts import Policy, Reference
from privacy.canonical_json import (
    Digest,
    Identifier,
    Name,
    Point,
    PositiveInteger,
    Record,
    Text,
    UnsignedInteger,
)
from privacy.errors import UsageError

__all__ = [
    "Clearance",
    "CommittedRecords",
    "JointPrediction",
    "JointProof",
    "Network",
    "NetworkLayer",
    "Suspension",
]


@dataclass(frozen=True)
class NetworkLayer(Record):
    """One layer of a network: `outputs` rows of `inputs` weights with -2^b <= w < 2^b at 2^weight_scale_bits and a bias
    with -2^b_bias <= bias < 2^b_bias, and the commitment to each row, in order."""

    inputs: PositiveInteger
    outputs: PositiveInteger
    weight_scale_bits: UnsignedInteger
    b: UnsignedInteger
    b_bias: UnsignedInteger
    commitments: tuple[Point, ...]

    def __post_init__(self) -> None:
        if len(self.commitments) != self.outputs:
            raise UsageError(f"a layer of {self.outputs} rows has {len(self.commitments)} commitments")


@dataclass(frozen=True)
class Network(Record):
    """A committed network of linear layers with ReLU between them; one layer alone is a linear model.

    `schema` and `certificate` are digests of blobs, `artefact` is a blinded commitment to the float artefact's digest,
    `card` is what the owner says of the model, g = 2^-grid_bits. `answer_bits` is bit_length(2 z_max), z_max being the
    bound of an answer that follows from the schema and the layers: what an answer tells at most, readable without the
    schema. Whoever has the schema recomputes it.
    """

    KIND: ClassVar[str] = "sealproof/network/v1"

    name: Name
    version: Name
    parameter_set: Identifier
    schema: Digest
    input_scale_bits: UnsignedInteger
    grid_bits: UnsignedInteger
    answer_bits: PositiveInteger
    link: Identifier
    outputs: tuple[Name, ...]
    layers: tuple[NetworkLayer, ...]
    certificate: Digest
    artefact: Digest
    card: dict[Identifier, Text]

    def __post_init__(self) -> None:
        if not self.outputs or not self.layers:
            raise UsageError("a network has at least one layer and one output")
        if len(set(self.outputs)) != len(self.outputs):
            raise UsageError("outputs must have different names")
        widths = [layer.outputs for layer in self.layers]
        if [layer.inputs for layer in self.layers[1:]] != widths[:-1]:
            raise UsageError("every layer takes as many numbers as the one before it gives")
        if widths[-1] != len(self.outputs):
            raise UsageError(f"the last layer gives {widths[-1]} numbers for {len(self.outputs)} outputs")

    @property
    def answer_scale_bits(self) -> int:
        """Answers are integers at 2^answer_scale_bits."""
        return self.input_scale_bits + sum(layer.weight_scale_bits for layer in self.layers)


@dataclass(frozen=True)
class CommittedRecords(Record):
    """A committed cohort of `count` patients with `d` features each.

    `commitments` is the digest of a blob, the commitments C_x in patient order (`encode_point_list`). `certificates`
    are the digests of the proofs that the values lie in their ranges, one for each batch of consecutive patients.
    `handles` is the Merkle root of the blinded record handles.
    """

    KIND: ClassVar[str] = "sealproof/committed-records/v1"

    clinic: Name
    parameter_set: Identifier
    schema: Digest
    d: PositiveInteger
    count: PositiveInteger
    commitments: Digest
    certificates: tuple[Digest, ...]
    handles: Digest
    policy: Policy

    def __post_init__(self) -> None:
        if not self.certificates:
            raise UsageError("committed records have at least one certificate")


@dataclass(frozen=True)
class JointProof(Record):
    """One joint proof: patients first .. first + count - 1 under every output of the network.

    `digest` and `size` are those of the proof bytes, which hold the commitments to the answers; `answers` is the digest
    of these commitments.
    """

    first: UnsignedInteger
    count: PositiveInteger
    digest: Digest
    size: PositiveInteger
    answers: Digest


@dataclass(frozen=True)
class JointPrediction(Record):
    """Committed answers of a network on committed records, computed by clinic and owner in one session.

    Answers are integers at 2^answer_scale_bits, without error. `checkpoint_size` and `checkpoint_root` are the ledger
    head under which nothing of these was revoked and the two parties were not suspended.
    """

    KIND: ClassVar[str] = "sealproof/joint-prediction/v1"

    records: Reference
    model: Reference
    session: Digest
    proofs: tuple[JointProof, ...]
    answer_scale_bits: UnsignedInteger
    grid_bits: UnsignedInteger
    checkpoint_size: UnsignedInteger
    checkpoint_root: Digest

    def __post_init__(self) -> None:
        if not self.proofs:
            raise UsageError("a prediction has at least one proof")
        if any(b.first < a.first + a.count for a, b in zip(self.proofs, self.proofs[1:], strict=False)):
            raise UsageError("proofs stand in the order of their patients, and two never cover the same patient")


@dataclass(frozen=True)
class Suspension(Record):
    """A session between a clinic and an owner ended without its proof; written by either of them.

    `clinic` and `owner` are their party entries. No joint prediction between the two is logged until both have written
    a `Clearance`.
    """

    KIND: ClassVar[str] = "sealproof/suspension/v1"

    clinic: Reference
    owner: Reference
    session: Digest
    reason: Text


@dataclass(frozen=True)
class Clearance(Record):
    """A party of a suspension has looked into it and agrees to go on."""

    KIND: ClassVar[str] = "sealproof/clearance/v1"

    suspension: Reference
