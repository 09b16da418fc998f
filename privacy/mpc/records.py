"""Commitments to patient records for two-party computation, and their certificate (docs/spec/protocol.md, section 7).

One commitment a patient, C_x = Com((x_1, .., x_d); rho), under a blinding of its own; x_i are the schema's encoding at
scale 2^SX. The openings stay with the clinic. The certificate `bounded` of a batch of at most 64 patients,

    PK{ x_p, rho_p : C_x^p = Com(x_p; rho_p),  -2^k_i <= x_pi < 2^k_i  for every patient p and feature i },

is proof X on the k_i + 1 bits of x_pi + 2^k_i; k_i follows from the schema. It is exact: without it a "record" may be
any fraction mod r, and a proof about it would be about nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privacy.errors import DecodeError, UsageError
from privacy.models.network_quantise import feature_bits
from privacy.models.quantise import quantise_inputs
from privacy.models.schema import Schema
from privacy.mpc.params import PATIENTS_PER_PROOF, MpcParameters
from privacy.zk.copies import CopyProof, CopyStatement, CopySystem, prove_copies
from privacy.zk.group import ARKWORKS, ORDER, POINT_BYTES, Group, Point
from privacy.zk.pedersen import CommitmentKey, commit_all, commitment_key
from privacy.zk.quadratic import QuadraticSystem
from privacy.zk.transcript import Transcript
from privacy.zk.wire import Reader

__all__ = [
    "CommittedRecord",
    "RecordsStatement",
    "as_array",
    "certify_records",
    "commit_records",
    "record_key",
    "verify_records",
]

_TAG: Final = b"sealproof/records-certificate/v1\n"
_WHAT: Final = "records certificate"


def record_key(d: int, group: Group = ARKWORKS) -> CommitmentKey:
    """The key of C_x: d generators."""
    return commitment_key("mpc/record", d, group)


@dataclass(frozen=True)
class CommittedRecord:
    """Opening of one C_x: integers at 2^SX and the blinding. Secret; `repr` shows none of it."""

    values: tuple[int, ...] = field(repr=False)
    rho: int = field(repr=False)

    def commit(self, group: Group = ARKWORKS) -> bytes:
        """C_x, 48 bytes."""
        return group.encode(record_key(len(self.values), group).commit(self.values, self.rho))


@dataclass(frozen=True)
class RecordsStatement:
    """Public side of one batch: patients `first` .. of `total`, their C_x, and what the records entry says of all.

    Raises UsageError for a batch that no cohort has.
    """

    parameters: MpcParameters
    clinic: str
    schema: Schema
    handles: bytes
    total: int
    first: int
    commitments: tuple[bytes, ...]

    def __post_init__(self) -> None:
        expected = min(PATIENTS_PER_PROOF, self.total - self.first)
        if self.first % PATIENTS_PER_PROOF or not 0 <= self.first < self.total or len(self.commitments) != expected:
            raise UsageError(f"{len(self.commitments)} patients from {self.first} on are no batch of {self.total}")
        if any(len(commitment) != POINT_BYTES for commitment in self.commitments) or len(self.handles) != 32:
            raise UsageError(f"a commitment has {POINT_BYTES} bytes, the root of the handles 32")

    def absorb(self, transcript: Transcript) -> None:
        """Absorb every field, in order."""
        transcript.absorb(b"records.parameters", self.parameters.encode())
        transcript.absorb(b"records.clinic", self.clinic.encode())
        transcript.absorb(b"records.schema", self.schema.digest())
        transcript.absorb(b"records.handles", self.handles)
        transcript.absorb_integers(b"records.batch", [self.total, self.first, len(self.commitments)])
        for commitment in self.commitments:
            transcript.absorb_point(b"records.C_x", commitment)


def commit_records(
    schema: Schema, parameters: MpcParameters, values: ArrayLike, group: Group = ARKWORKS
) -> tuple[tuple[bytes, ...], tuple[CommittedRecord, ...]]:
    """C_x of every record (raw units, shape (patients, d)) and the openings, under fresh blindings.

    Raises UsageError for values outside the schema.
    """
    integers = quantise_inputs(schema, values, parameters.input_scale_bits).tolist()
    openings = tuple(CommittedRecord(tuple(row), secrets.randbelow(ORDER)) for row in integers)
    key = record_key(schema.d, group)
    points = commit_all([key] * len(openings), [o.values for o in openings], [o.rho for o in openings])
    return tuple(map(group.encode, points)), openings


def certify_records(statement: RecordsStatement, openings: Sequence[CommittedRecord], group: Group = ARKWORKS) -> bytes:
    """The certificate of one batch, `openings` in the order of its patients.

    Raises UsageError for an opening of something else or a value out of range, naming neither value nor patient.
    """
    widths = _widths(statement)
    points = commit_all(
        [record_key(len(widths), group)] * len(openings), [o.values for o in openings], [o.rho for o in openings]
    )
    if tuple(map(group.encode, points)) != statement.commitments:
        raise UsageError("the openings do not open the commitments of the batch")
    bits = []
    for opening in openings:
        if any(not -1 << (w - 1) <= x < 1 << (w - 1) for x, w in zip(opening.values, widths, strict=True)):
            raise UsageError("a value is out of the range that the schema gives it")
        shifted = [x + (1 << (w - 1)) for x, w in zip(opening.values, widths, strict=True)]
        bits.append([(x >> k) & 1 for x, w in zip(shifted, widths, strict=True) for k in range(w)])
    rhos = [secrets.randbelow(ORDER) for _ in openings]
    bit_commitments = commit_all([_bits_key(sum(widths), group)] * len(bits), bits, rhos)
    proof = prove_copies(
        _transcript(statement),
        _copies(statement, points, bit_commitments, group),
        [[o.values, b] for o, b in zip(openings, bits, strict=True)],
        [[o.rho, rho] for o, rho in zip(openings, rhos, strict=True)],
    )
    return b"".join([_TAG, *map(group.encode, bit_commitments), proof.encode(group)])


def verify_records(statement: RecordsStatement, data: bytes, group: Group = ARKWORKS) -> None:
    """Check the certificate of a batch. `statement` comes from the ledger and the verifier's own schema.

    Raises:
        DecodeError: `data` is not the encoding of a certificate of this shape, or a C_x is not a point.
        VerificationFailed: `quadratic.opening`, `quadratic.relation`.
    """
    points = [group.decode(commitment) for commitment in statement.commitments]
    system = _system(tuple(_widths(statement)))
    count = len(points)
    size = len(_TAG) + POINT_BYTES * count + system.proof_size(count)
    if len(data) != size:
        raise DecodeError(_WHAT, f"expected {size} bytes, got {len(data)}")
    reader = Reader(_WHAT, data)
    reader.expect(_TAG)
    bit_commitments = reader.points(group, count)
    proof = CopyProof.read(reader, group, system, count)
    reader.end()
    proof.verify(_transcript(statement), _copies(statement, points, bit_commitments, group))


def as_array(openings: Sequence[CommittedRecord]) -> NDArray[np.int64]:
    """The records as int64 of shape (patients, d), for the computation. Values are below 2^62 by their encoding."""
    return np.array([opening.values for opening in openings], dtype=np.int64)


def _widths(statement: RecordsStatement) -> list[int]:
    """Bits of x_i + 2^k_i, feature by feature."""
    return [k + 1 for k in feature_bits(statement.schema, statement.parameters.input_scale_bits)]


def _transcript(statement: RecordsStatement) -> Transcript:
    transcript = Transcript(b"records-certificate")
    statement.absorb(transcript)
    return transcript


def _bits_key(bits: int, group: Group) -> CommitmentKey:
    return commitment_key("mpc/record-bits", bits, group)


@lru_cache(maxsize=2)
def _system(widths: tuple[int, ...]) -> CopySystem:
    """Segments: the record, and the bits of its values, lowest first."""
    d, total = len(widths), sum(widths)
    system = QuadraticSystem(d + total)
    system.add_bits(d, total)
    at = d
    for i, width in enumerate(widths):
        system.add(linear=[(i, -1), *((at + k, 1 << k) for k in range(width))], constant=-(1 << (width - 1)))
        at += width
    return CopySystem(system, (d, total))


def _copies(
    statement: RecordsStatement, points: Sequence[Point], bit_commitments: Sequence[Point], group: Group
) -> CopyStatement:
    widths = tuple(_widths(statement))
    keys = (record_key(len(widths), group), _bits_key(sum(widths), group))
    return CopyStatement(_system(widths), keys, tuple(zip(points, bit_commitments, strict=True)))
