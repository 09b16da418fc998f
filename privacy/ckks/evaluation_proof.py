"""Evaluation proof: statement, layout, wire format, and the linear form both sides compute
(docs/spec/protocol.md, sections 5 and 9).

PK{w, rho_W, (u_b, e_b) : C_W opens to w and, for every block and output b, on the published coefficients,
   ct_b = sum_i w_i ct_{i,b} + bias 1_P + p u_b + e_b mod Q,  |u_b| <= 2 M', |e0_b| <= 2 M0, |e1_b| <= 2 M1}.

The witness of one instance (a block under one output) is v = (u | nu, mu0, mu1 | K | T4 masks). All instances of a
proof share the rows R0, R1, R', the T4 challenges chi and zeta, so the form in v is one vector alpha; what differs
is the form in w and the right side beta. Instances are combined by rho_0 = 1 and 128-bit rho_b.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from privacy.ckks.bounds import Bounds, derive_bounds
from privacy.ckks.canonical import ResultCiphertext, public_key_digest
from privacy.ckks.folding import LIMBS, contract, correlate, fold_rows, recombine
from privacy.ckks.keys import derive_p1
from privacy.ckks.packing import Packing, positions
from privacy.ckks.params import ParameterSet
from privacy.errors import UsageError, VerificationFailed
from privacy.models.certificate import weights_key
from privacy.zk.group import ARKWORKS, ORDER, POINT_BYTES, Group, Point
from privacy.zk.pedersen import CommitmentKey, commitment_key
from privacy.zk.relations import KAPPA, T4_ROWS, J, LinearProof, LinearSegment, Run, inner, powers, ternary_rows
from privacy.zk.transcript import Transcript
from privacy.zk.wire import Reader, pack_integers

__all__ = ["EvaluationProof", "EvaluationStatement", "Form", "Instance", "OutputStatement", "Rows"]

MAGIC: Final = b"sealproof/evaluation/v1\n"
_ID: Final = 32

Residues = npt.NDArray[np.uint64]
Rows8 = npt.NDArray[np.int8]


@dataclass(frozen=True)
class OutputStatement:
    """One output of the committed model: public weight bits and the commitment C_W (48 bytes)."""

    name: str
    b: int
    b_bias: int
    commitment: bytes


@dataclass(frozen=True)
class EvaluationStatement:
    """Everything a proof is about. Identifiers are 32-byte hashes that mean nothing to this package.

    Blocks `first_block .. first_block + blocks - 1` of a records entry, each with `count` patients, are evaluated
    under every output. `input_digests` is block-major (d a block in `columns`, one in `rows`); `result_digests` is
    block-major, then by output. `head` is the (size, root) under which revocations were checked.
    """

    params: ParameterSet
    packing: Packing
    d: int
    count: int
    first_block: int
    blocks: int
    grid_bits: int
    clinic: str
    key_number: int
    key_id: bytes
    p0_digest: bytes
    key_certificate: bytes
    model_id: bytes
    model_certificate: bytes
    schema: bytes
    outputs: tuple[OutputStatement, ...]
    records_id: bytes
    handles: bytes
    head_size: int
    head_root: bytes
    input_digests: tuple[bytes, ...]
    result_digests: tuple[bytes, ...]

    def __post_init__(self) -> None:
        ids = [self.key_id, self.p0_digest, self.key_certificate, self.model_id, self.model_certificate]
        ids += [self.schema, self.records_id, self.handles, self.head_root]
        if any(len(x) != _ID for x in (*ids, *self.input_digests, *self.result_digests)):
            raise UsageError("identifiers and digests of a statement have 32 bytes")
        if any(len(output.commitment) != POINT_BYTES for output in self.outputs):
            raise UsageError(f"a commitment has {POINT_BYTES} bytes")
        if not self.outputs or self.blocks < 1 or self.first_block < 0:
            raise UsageError("a statement covers at least one block and one output")
        if len(self.input_digests) != self.blocks * self.ciphertexts:
            raise UsageError(f"{len(self.input_digests)} input digests for {self.blocks} blocks of {self.ciphertexts}")
        if len(self.result_digests) != self.instances:
            raise UsageError(f"{len(self.result_digests)} result digests for {self.instances} instances")

    @property
    def ciphertexts(self) -> int:
        """Input ciphertexts of a block."""
        return self.d if self.packing is Packing.COLUMNS else 1

    @property
    def instances(self) -> int:
        """B: blocks x outputs."""
        return self.blocks * len(self.outputs)

    @cached_property
    def positions(self) -> npt.NDArray[np.int64]:
        """P, the published coefficients of every block."""
        return positions(self.params, self.packing, self.d, self.count)

    @cached_property
    def bounds(self) -> Bounds:
        """Section 10, from the public numbers."""
        return derive_bounds(
            self.params,
            instances=self.instances,
            published=self.count,
            d=self.d,
            b=max(o.b for o in self.outputs),
            b_bias=max(o.b_bias for o in self.outputs),
            grid_bits=self.grid_bits,
        )

    def absorb(self, transcript: Transcript) -> None:
        """Absorb every field, and everything derived from them that the proof relies on."""
        transcript.absorb(b"params", self.params.encode())
        transcript.absorb(b"packing", str(self.packing).encode())
        transcript.absorb_integers(
            b"shape", [self.d, self.count, self.first_block, self.blocks, self.grid_bits, self.key_number]
        )
        transcript.absorb(b"clinic", self.clinic.encode())
        for label, value in (
            (b"key", self.key_id),
            (b"p0", self.p0_digest),
            (b"key certificate", self.key_certificate),
            (b"model", self.model_id),
            (b"model certificate", self.model_certificate),
            (b"schema", self.schema),
            (b"records", self.records_id),
            (b"handles", self.handles),
            (b"head", self.head_root),
        ):
            transcript.absorb(label, value)
        transcript.absorb_integers(b"head size", [self.head_size])
        for output in self.outputs:
            transcript.absorb(b"output", output.name.encode())
            transcript.absorb_integers(b"bits", [output.b, output.b_bias])
            transcript.absorb_point(b"C_W", output.commitment)
        transcript.absorb(b"inputs", b"".join(self.input_digests))
        transcript.absorb(b"results", b"".join(self.result_digests))
        bounds = self.bounds
        transcript.absorb_integers(
            b"bounds", [J, KAPPA, T4_ROWS, bounds.f, bounds.M0, bounds.M1, bounds.Mu, bounds.B4, bounds.err]
        )

    def start(self) -> Transcript:
        """A transcript that has absorbed this statement."""
        transcript = Transcript(MAGIC)
        self.absorb(transcript)
        return transcript

    def witness_runs(self) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
        """Honest bounds of the coordinates of sum_b rho_b v_b, as C_b and C_K,b hold them: what T1's responses hide."""
        # With more than one instance the 128-bit rho_b make every coordinate full-size.
        N, quotients = self.params.N, J * self.params.L
        bounds = self.bounds
        first = [(N, 1), (J, bounds.Mu), (J, bounds.M0), (J, bounds.M1)]
        second = [(quotients, bounds.K0), (quotients, bounds.K1), (T4_ROWS, bounds.B4)]
        one = self.instances == 1
        return (
            tuple(Run(count, bound if one else None) for count, bound in first),
            tuple(Run(count, bound if one else None) for count, bound in second),
        )

    def weight_runs(self) -> tuple[Run, ...]:
        """Weights and bias are hidden by full-size masks."""
        return (Run(self.d + 1, None),)

    def shapes(self) -> list[tuple[Run, ...]]:
        """Segments of T1: combined C_b, combined C_K,b, then C_W of each output."""
        return [*self.witness_runs(), *(self.weight_runs() for _ in self.outputs)]

    def witness_keys(self, group: Group = ARKWORKS) -> tuple[CommitmentKey, CommitmentKey]:
        """Keys of C_b = Com(u, nu, mu0, mu1) and C_K,b = Com(K, T4 masks)."""
        first = commitment_key("evaluation/u", self.params.N, group) + commitment_key("evaluation/masks", 3 * J, group)
        quotients = commitment_key("evaluation/quotients", 2 * J * self.params.L, group)
        return first, quotients + commitment_key("evaluation/t4", T4_ROWS, group)

    def segments(
        self, instances: Sequence[Instance], rho: Sequence[int], group: Group = ARKWORKS
    ) -> list[LinearSegment]:
        """What T1 opens: sum_b rho_b C_b, sum_b rho_b C_K,b, and C_W of each output."""
        # C_b and C_K,b are opened apart, each under its own generators. Their sum would not do: C_K,b is sent after
        # the rows are known and could move u and the masks to fit them.
        commitments = [
            group.msm([x.C for x in instances], rho),
            group.msm([x.C_K for x in instances], rho),
            *(group.decode(output.commitment) for output in self.outputs),
        ]
        segments = zip(self.opening_keys(group), commitments, self.shapes(), strict=True)
        return [LinearSegment(key, C, runs) for key, C, runs in segments]

    def opening_keys(self, group: Group = ARKWORKS) -> list[CommitmentKey]:
        """Keys of the segments of T1."""
        return [*self.witness_keys(group), *(weights_key(self.d, group) for _ in self.outputs)]


@dataclass(frozen=True)
class Instance:
    """Prover messages of one instance."""

    C: Point
    C_K: Point
    z0: tuple[int, ...]
    z1: tuple[int, ...]
    zu: tuple[int, ...]
    xi: tuple[int, ...]


def _width(bound: int) -> int:
    """Bytes of a signed integer of magnitude at most `bound`."""
    return bound.bit_length() // 8 + 1


@dataclass(frozen=True)
class EvaluationProof:
    """All prover messages, in order."""

    instances: tuple[Instance, ...]
    opening: LinearProof

    def encode(self, statement: EvaluationStatement, group: Group = ARKWORKS) -> bytes:
        """Wire form; every length follows from the statement."""
        bounds = statement.bounds
        out = [MAGIC]
        for x in self.instances:
            out += [group.encode(x.C), group.encode(x.C_K)]
            for values, bound in ((x.z0, bounds.M0), (x.z1, bounds.M1), (x.zu, bounds.Mu), (x.xi, bounds.B4)):
                out.append(pack_integers(values, _width(bound), signed=True))
        return b"".join(out) + self.opening.encode(group, statement.shapes())

    @staticmethod
    def size(statement: EvaluationStatement) -> int:
        """Bytes of every proof of this statement."""
        bounds = statement.bounds
        one = 2 * 48 + J * sum(_width(m) for m in (bounds.M0, bounds.M1, bounds.Mu)) + T4_ROWS * _width(bounds.B4)
        return len(MAGIC) + statement.instances * one + LinearProof.size(statement.shapes())

    @staticmethod
    def decode(statement: EvaluationStatement, data: bytes, group: Group = ARKWORKS) -> EvaluationProof:
        """Strict inverse of `encode`.

        Raises:
            DecodeError: anything but the canonical encoding of a proof of this shape.
        """
        bounds = statement.bounds
        reader = Reader("evaluation proof", data)
        reader.expect(MAGIC)
        instances = []
        for _ in range(statement.instances):
            C, C_K = reader.points(group, 2)
            z0, z1, zu = (tuple(reader.integers(J, _width(m), signed=True)) for m in (bounds.M0, bounds.M1, bounds.Mu))
            xi = tuple(reader.integers(T4_ROWS, _width(bounds.B4), signed=True))
            instances.append(Instance(C, C_K, z0, z1, zu, xi))
        opening = LinearProof.read(reader, group, statement.shapes())
        reader.end()
        return EvaluationProof(tuple(instances), opening)


@dataclass(frozen=True)
class Rows:
    """Ternary challenges: R0 on all of N (zero outside P), R1, Ru (the protocol's R')."""

    R0: Rows8
    R1: Rows8
    Ru: Rows8

    @staticmethod
    def draw(transcript: Transcript, params: ParameterSet, P: npt.NDArray[np.int64]) -> Rows:
        """Draw after every C_b has been absorbed."""
        keys = [transcript.challenge_bytes(label, 32) for label in (b"R0", b"R1", b"R'")]
        R0 = np.zeros((J, params.N), dtype=np.int8)
        R0[:, P] = ternary_rows(keys[0], J, P.size)
        return Rows(R0, ternary_rows(keys[1], J, params.N), ternary_rows(keys[2], J, params.N))


def check_public_key(statement: EvaluationStatement, p0: Residues, p1: Residues) -> None:
    """Raise VerificationFailed unless p0 is the key entry's and p1 the one its names derive.

    The prover checks it too: under a p1 of the clinic's choice, one result gives away all weights.
    """
    if public_key_digest(statement.params, p0) != statement.p0_digest:
        raise VerificationFailed("evaluation.public-key", "p0 is not the one of the key entry")
    if not np.array_equal(p1, derive_p1(statement.params, statement.clinic, statement.key_number)):
        raise VerificationFailed("evaluation.public-key", "p1 is not the one derived from the clinic's names")


def absorb_first(transcript: Transcript, group: Group, commitments: Sequence[Point]) -> None:
    """C_b of every instance, before the rows are drawn."""
    for C in commitments:
        transcript.absorb_point(b"C", group.encode(C))


def absorb_second(transcript: Transcript, group: Group, instances: Sequence[Instance]) -> None:
    """z_b and C_K,b of every instance, before chi is drawn."""
    for x in instances:
        for label, values in ((b"z0", x.z0), (b"z1", x.z1), (b"z'", x.zu)):
            transcript.absorb_integers(label, values)
        transcript.absorb_point(b"C_K", group.encode(x.C_K))


def draw_chi(transcript: Transcript, params: ParameterSet) -> list[list[int]]:
    """Five rows over (mu0, mu1, K), each entry in [0, 2^kappa)."""
    n = 2 * J + 2 * J * params.L
    flat = transcript.challenge_integers(b"chi", T4_ROWS * n, KAPPA)
    return [flat[i * n : (i + 1) * n] for i in range(T4_ROWS)]


def absorb_third(transcript: Transcript, instances: Sequence[Instance]) -> None:
    """xi_b of every instance, before zeta and rho are drawn."""
    for x in instances:
        transcript.absorb_integers(b"xi", x.xi)


class Form:
    """The folded linear form of one proof: alpha in v, alpha_W in w, beta (section 5, steps 3 and 4).

    Relation (component k, prime l, row j) has weight zeta^((k L + l) J + j); the T5 rows and the T4 rows follow.
    """

    def __init__(
        self,
        statement: EvaluationStatement,
        rows: Rows,
        chi: Sequence[Sequence[int]],
        transcript: Transcript,
    ) -> None:
        params = statement.params
        L = params.L
        zeta = transcript.challenge_scalar(b"zeta")
        count = statement.instances
        self.rho = [1, *transcript.challenge_integers(b"rho", count - 1, 128)]
        self._statement = statement
        self._zeta_J = powers(zeta, J)
        weights = powers(zeta, 2 * L * J + J + T4_ROWS)
        self._theta = [[weights[(k * L + level) * J] for level in range(L)] for k in (0, 1)]
        self._w5 = weights[2 * L * J : 2 * L * J + J]
        self._w4 = weights[2 * L * J + J :]
        lists = [[[t * z % ORDER for z in self._zeta_J] for t in theta] for theta in self._theta]
        # Axes: component, prime, limb, coefficient. The weights theta are inside.
        self._folded = np.stack([fold_rows(rows.R0, lists[0]), fold_rows(rows.R1, lists[1])])
        self._folded_u = fold_rows(rows.Ru, [self._w5])
        self._chi_sum = [sum(w * c for w, c in zip(self._w4, column, strict=True)) for column in zip(*chi, strict=True)]

    def alpha(self, p0: Residues, p1: Residues) -> tuple[list[int], list[int]]:
        """Coefficients of (u | nu, mu0, mu1) and of (K0, K1 | T4 masks)."""
        primes, theta = self._statement.params.primes, self._theta
        limbs = -correlate(self._folded[0], p0) - correlate(self._folded[1], p1)
        limbs[:LIMBS] += self._folded_u[0].astype(np.int64)
        alpha = [x % ORDER for x in recombine(limbs)]
        alpha += self._w5
        chi = iter(self._chi_sum)
        for k in (0, 1):
            total = sum(theta[k])
            alpha += [(total * z + next(chi)) % ORDER for z in self._zeta_J]
        quotients: list[int] = []
        for k in (0, 1):
            for q, t in zip(primes, theta[k], strict=True):
                factor = -q * t % ORDER
                quotients += [(factor * z + next(chi)) % ORDER for z in self._zeta_J]
        return alpha, quotients + self._w4

    def alpha_weights(self, arrays: Residues) -> list[int]:
        """Coefficients of (w_1..w_d, bias) for one block; arrays: (d, 2, L, N) virtual inputs."""
        out = [-x % ORDER for x in contract(self._folded, arrays)]
        return [*out, self._alpha_bias]

    @cached_property
    def _alpha_bias(self) -> int:
        ones = np.zeros((1, *self._folded.shape[:2], self._folded.shape[-1]), dtype=np.uint64)
        ones[0, 0, :, self._statement.positions] = 1
        return -contract(self._folded, ones)[0] % ORDER

    def beta(self, result: ResultCiphertext, instance: Instance) -> int:
        """Right side of one instance."""
        full = np.zeros((1, *self._folded.shape[:2], self._folded.shape[-1]), dtype=np.uint64)
        full[0, 0][:, result.positions] = result.c0
        full[0, 1] = result.c1
        beta = -contract(self._folded, full)[0]
        for theta, z in zip(self._theta, (instance.z0, instance.z1), strict=True):
            beta += sum(theta) * inner(self._zeta_J, z)
        beta += inner(self._w5, instance.zu) + inner(self._w4, instance.xi)
        return beta % ORDER
