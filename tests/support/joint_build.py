"""Small cases of two-party computation: a committed network, committed records, both parties, and provers that lie.

Needs neither the service nor, but for networks with hidden layers, CrypTen. Integers are drawn from a seed, blindings
are not, so a test that fails fails again.
"""

from __future__ import annotations

import queue
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from random import Random
from typing import Any
from unittest import mock

import numpy as np

from privacy.errors import PrivacyError
from privacy.models.certificate import weights_key
from privacy.models.network_quantise import CommittedLayer, LayerShape
from privacy.models.schema import Feature, Schema
from privacy.mpc import joint_prover
from privacy.mpc.channel import MemoryChannel
from privacy.mpc.circuit import Circuit
from privacy.mpc.dealer import Correlations, Plan, deal
from privacy.mpc.joint_proof import (
    JointCommitments,
    JointStatement,
    answer_key,
    copy_statement,
    encode_joint,
    hidden_key,
    joint_transcript,
)
from privacy.mpc.joint_prover import BatchResult, Row, prove_batch
from privacy.mpc.params import mpc_parameters
from privacy.mpc.plan import batch_plan
from privacy.mpc.records import CommittedRecord, RecordsStatement, certify_records, commit_records, record_key
from privacy.zk.copies import prove_copies, split
from privacy.zk.group import ARKWORKS, ORDER
from privacy.zk.quadratic import QuadraticSystem

PARAMS = mpc_parameters("mpc-64")
HANDLES = bytes(range(32))
CLINIC, OWNER = "st-anna", "heart-lab"

Tap = Callable[[str, bytes], bytes]
Rows = Sequence[Sequence[Row]]


def schema_of(d: int) -> Schema:
    return Schema("ward", 1, tuple(Feature(f"x{i}", "1", -1.0, 1.0) for i in range(d)))


def shapes_of(widths: Sequence[int], b: int = 6) -> tuple[LayerShape, ...]:
    """Layers of small weights; b = 6 keeps n at 40, b = 22 makes it 64."""
    shapes, scale = [], PARAMS.input_scale_bits
    for inputs, outputs in pairwise(widths):
        scale += 4
        shapes.append(LayerShape(inputs, outputs, 4, b if not shapes else 6, scale + 2))
    return tuple(shapes)


def signed(value: int) -> int:
    """A residue as the centred integer that it stands for."""
    return value - ORDER if value > ORDER // 2 else value


def evaluate(rows: Rows, x: Sequence[int]) -> tuple[list[list[int]], list[int]]:
    """Pre-activations of every hidden layer, and the answers, in Python's integers."""
    hidden: list[list[int]] = []
    for layer in rows:
        h = [sum(w * v for w, v in zip(row.weights, x, strict=True)) + row.bias for row in layer]
        hidden.append(h)
        x = [max(value, 0) for value in h]
    return hidden[:-1], hidden[-1]


def witness_of(
    circuit: Circuit, rows: Rows, x: Sequence[int], of_A: Callable[[int], int] = secrets.randbits
) -> list[int]:
    """All coordinates of one patient's copy; `of_A(n)` draws A's share of a word."""
    out = list(x)
    hidden, answers = evaluate(rows, x)
    for layer, h in zip(circuit.hidden, hidden, strict=True):
        words = [value % (1 << layer.n) for value in h]
        shares = [of_A(layer.n) for _ in h]
        signs = [int(value < 0) for value in h]
        halves = shares + [word ^ share for word, share in zip(words, shares, strict=True)]
        out += [(word >> k) & 1 for word in halves for k in range(layer.n)]
        out += [*signs, *h, *(max(value, 0) for value in h)]
    return out + answers


@dataclass(frozen=True, eq=False)
class Case:
    """A network and a batch of records, committed; secrets of both parties; and the statements about them."""

    schema: Schema
    rows: tuple[tuple[Row, ...], ...]
    records: tuple[CommittedRecord, ...]
    records_statement: RecordsStatement
    statement: JointStatement

    @property
    def circuit(self) -> Circuit:
        return self.statement.circuit

    @cached_property
    def plan(self) -> Plan:
        return batch_plan(self.circuit, self.statement.count)

    @cached_property
    def certificate(self) -> bytes:
        return certify_records(self.records_statement, self.records)

    @property
    def answers(self) -> list[int]:
        """What the network says, patient by patient and output by output."""
        return [z for record in self.records for z in evaluate(self.rows, record.values)[1]]

    @property
    def common(self) -> list[int]:
        """The coordinates that all patients share."""
        return [value for layer in self.rows for row in layer for value in row.values]

    def witnesses(self) -> list[list[int]]:
        return [witness_of(self.circuit, self.rows, record.values) for record in self.records]


def commit_rows(shapes: Sequence[LayerShape], rows: Rows) -> tuple[CommittedLayer, ...]:
    layers = []
    for shape, layer in zip(shapes, rows, strict=True):
        key = weights_key(shape.inputs)
        points = tuple(ARKWORKS.encode(key.commit([v % ORDER for v in row.values], row.rho)) for row in layer)
        layers.append(CommittedLayer(shape, points))
    return tuple(layers)


def case(
    widths: Sequence[int] = (4, 3, 1),
    patients: int = 1,
    *,
    seed: int = 1,
    b: int = 6,
    rows: Rows | None = None,
    values: Sequence[Sequence[int]] | None = None,
    **changes: Any,
) -> Case:
    """A case of these widths. `rows` and `values` (integers at 2^SX) replace the random ones, `changes` are fields of
    the joint statement."""
    draw = Random(seed)
    shapes, schema = shapes_of(widths, b), schema_of(widths[0])
    if rows is None:
        rows = [
            [
                Row(
                    tuple(draw.choice((-1, 1)) * draw.randrange(1, 1 << s.b) for _ in range(s.inputs)),
                    draw.randrange(-(1 << s.b_bias), 1 << s.b_bias),
                    secrets.randbelow(ORDER),
                )
                for _ in range(s.outputs)
            ]
            for s in shapes
        ]
    if values is None:
        raw = np.array([[draw.uniform(-1, 1) for _ in range(widths[0])] for _ in range(patients)])
        commitments, records = commit_records(schema, PARAMS, raw)
    else:
        records = tuple(CommittedRecord(tuple(row), secrets.randbelow(ORDER)) for row in values)
        key = record_key(widths[0])
        commitments = tuple(ARKWORKS.encode(key.commit([v % ORDER for v in r.values], r.rho)) for r in records)
    committed = commit_rows(shapes, rows)
    digest = iter(range(1, 100))
    fields: dict[str, Any] = {
        "parameters": PARAMS,
        "session": secrets.token_bytes(32),
        "clinic": CLINIC,
        "clinic_id": bytes([next(digest)]) * 32,
        "owner": OWNER,
        "owner_id": bytes([next(digest)]) * 32,
        "model_id": bytes([next(digest)]) * 32,
        "model_certificate": bytes([next(digest)]) * 32,
        "schema": schema,
        "link": "logit" if widths[-1] == 1 else "identity",
        "output_names": tuple(f"y{o}" for o in range(widths[-1])),
        "grid_bits": 6,
        "layers": committed,
        "records_id": bytes([next(digest)]) * 32,
        "records_certificate": bytes([next(digest)]) * 32,
        "handles": HANDLES,
        "first": 0,
        "commitments": commitments,
        "head_size": 7,
        "head_root": bytes([next(digest)]) * 32,
    }
    about = RecordsStatement(PARAMS, CLINIC, schema, HANDLES, len(records), 0, commitments)
    return Case(schema, tuple(map(tuple, rows)), records, about, JointStatement(**fields | changes))


# -- one prover who knows everything ----------------------------------------------------------------------------------


def careless() -> Any:
    """A prover's own check of its witness, taken out: `with careless(): ...`."""
    return mock.patch.object(QuadraticSystem, "violated", lambda self, witness: None)


@dataclass(frozen=True)
class Alone:
    """A joint proof by one prover, and the openings of the C_z in it."""

    proof: bytes
    z: list[int]
    rho: list[int]


def prove_alone(
    some: Case, witnesses: Sequence[Sequence[int]] | None = None, common: Sequence[int] | None = None
) -> Alone:
    """The joint proof by clinic, owner and dealer as one; `witnesses` (a copy each) and `common` may be false.

    Records and rows are opened as they were committed whatever the witness says: a prover cannot do better.
    """
    circuit, group, statement = some.circuit, ARKWORKS, some.statement
    copies = [split([v % ORDER for v in w], circuit.segments) for w in witnesses or some.witnesses()]
    keys = [*([hidden_key(circuit)] if circuit.hidden else []), *([answer_key()] * circuit.answers)]
    points, blindings = [], []
    for record, witness in zip(some.records, copies, strict=True):
        halves = [(secrets.randbelow(ORDER), secrets.randbelow(ORDER)) for _ in keys]
        for key, part, (a, b) in zip(keys, witness[1:], halves, strict=True):
            of_A = [secrets.randbelow(ORDER) for _ in part]
            of_B = [(x - y) % ORDER for x, y in zip(part, of_A, strict=True)]
            points += [key.commit(of_A, a), key.commit(of_B, b)]
        blindings.append([record.rho, *((a + b) % ORDER for a, b in halves)])
    commitments = JointCommitments.of_points(circuit, len(copies), points)
    records = [group.decode(point) for point in statement.commitments]
    rows = [group.decode(point) for layer in statement.layers for point in layer.commitments]
    about = copy_statement(statement, commitments, records, rows, group)
    transcript = joint_transcript(statement)
    commitments.absorb(transcript, group)
    flat = [row for layer in some.rows for row in layer]
    shared = split([v % ORDER for v in (common or some.common)], circuit.common)
    proof = prove_copies(transcript, about, copies, blindings, shared, [row.rho for row in flat])
    first = len(circuit.segments) - circuit.answers
    return Alone(
        encode_joint(commitments, proof),
        [signed(witness[first + o][0]) for witness in copies for o in range(circuit.answers)],
        [row[first + o] for row in blindings for o in range(circuit.answers)],
    )


# -- both parties -----------------------------------------------------------------------------------------------------


class TappedChannel(MemoryChannel):
    """Keeps the frames that it sends and lets a test change them on the way."""

    def __init__(self, *args: Any, tap: Tap | None = None) -> None:
        super().__init__(*args)
        self.tap = tap
        self.frames: list[tuple[str, bytes]] = []

    def send(self, label: str, data: bytes) -> None:
        data = self.tap(label, data) if self.tap else data
        self.frames.append((label, data))
        super().send(label, data)


def tapped_channels(
    tap_A: Tap | None = None, tap_B: Tap | None = None, timeout: float = 20.0
) -> tuple[TappedChannel, ...]:
    forth: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    back: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    return TappedChannel("B", forth, back, timeout, tap=tap_A), TappedChannel("A", back, forth, timeout, tap=tap_B)


@dataclass
class Outcome:
    """What both parties have at the end: a result, or the error that ended it; and what they sent."""

    of_A: BatchResult | PrivacyError
    of_B: BatchResult | PrivacyError
    channels: tuple[TappedChannel, ...] = field(repr=False)

    @property
    def results(self) -> tuple[BatchResult, BatchResult]:
        """Of a run that both finished."""
        for end in (self.of_A, self.of_B):
            if isinstance(end, PrivacyError):
                raise end
        return self.of_A, self.of_B  # type: ignore[return-value]

    @property
    def checks(self) -> tuple[str | None, str | None]:
        """The names of what failed."""
        return getattr(self.of_A, "check", None), getattr(self.of_B, "check", None)


Party = type[joint_prover._Party]


def run(
    some: Case,
    *,
    party_A: Party | None = None,
    party_B: Party | None = None,
    tap_A: Tap | None = None,
    tap_B: Tap | None = None,
    dealt: tuple[bytes, bytes] | None = None,
    other: Case | None = None,
    timeout: float = 20.0,
) -> Outcome:
    """One batch by both parties in two threads, each of which tells the other when it gives up, as nodes do.

    `party_A` and `party_B` are deviating parties, `tap_A` and `tap_B` change what is sent, `dealt` is what a dealer
    other than ours gives, `other` is the case that B believes in.
    """
    channels = tapped_channels(tap_A, tap_B, timeout)
    dealt = dealt or deal(some.plan)

    def one(place: int) -> BatchResult | PrivacyError:
        role, mine, party = "AB"[place], (some, other or some)[place], (party_A, party_B)[place]
        secret = mine.records if role == "A" else mine.rows
        correlations = Correlations(role, mine.plan, dealt[place])  # type: ignore[arg-type]
        try:
            if party is None:
                return prove_batch(role, mine.statement, secret, channels[place], correlations)  # type: ignore[arg-type]
            return party(role, mine.statement, secret, channels[place], correlations).run()  # type: ignore[arg-type]
        except PrivacyError as error:
            channels[place].abort(str(error))
            return error

    with ThreadPoolExecutor(2) as threads:
        of_A, of_B = threads.map(one, range(2))
    return Outcome(of_A, of_B, channels)


def with_session(some: Case, session: bytes) -> Case:
    """The same secrets in another session."""
    return replace(some, statement=replace(some.statement, session=session))
