"""Making a joint proof: one party's side of one batch (docs/spec/protocol.md, section 7).

A knows the records x, B the rows w; s, h, a and z are additive shares mod r that neither knows. Both run `prove_batch`
at the two ends of a channel:

 1 CrypTen gives each party its XOR share of every bit of every hidden pre-activation (`privacy.mpc.backend`)
 2 shares over F_r of s and h from the bits, then of a = h - s h, then of z: three rounds of inner products
 3 both commit to their shares; all commitments of both are absorbed before any challenge
 4 zeta folds the constraints; masks; t0 and t1 fall into own parts and two inner products; both commit
 5 c; responses are exchanged and added, all but tau
 6 tau, in such a way that nobody sees by how much a proof fails (`privacy.mpc.blind_check`)
 7 both verify the finished proof as anybody would

What a party sends is a commitment, a value under a mask used once, or a response, so an honest-but-curious peer learns
nothing. A peer that deviates makes step 6 fail, and learns by whether it does if a guess about the other's secrets was
right: the caller suspends the pair, so that it guesses wrong once at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from operator import mul
from typing import Final

import numpy as np
from numpy.typing import NDArray

from privacy.errors import DecodeError, SessionBroken, UsageError
from privacy.mpc.answers import AnswerShare
from privacy.mpc.blind_check import exchange_tau
from privacy.mpc.channel import Channel
from privacy.mpc.dealer import Correlations, Role
from privacy.mpc.joint_proof import (
    JointCommitments,
    JointStatement,
    answer_key,
    copy_statement,
    encode_joint,
    hidden_key,
    joint_transcript,
    row_keys,
    verify_joint,
)
from privacy.mpc.plan import Lengths, cross_terms
from privacy.mpc.records import CommittedRecord, as_array, record_key
from privacy.mpc.shares import exchange, inner_products, unpack_scalars
from privacy.zk.copies import CopyProof, absorb_first_messages, mask_coefficients, split
from privacy.zk.group import ARKWORKS, ORDER, POINT_BYTES, SCALAR_BYTES, Point
from privacy.zk.pedersen import CommitmentKey, commit_all
from privacy.zk.quadratic import Folded, scalar_commitment_key
from privacy.zk.randomness import SecretStream
from privacy.zk.wire import Reader, pack_scalars

__all__ = ["BatchResult", "Row", "compute_answer_shares", "prove_batch"]

_KEY_BYTES: Final = 32
_GROUP: Final = ARKWORKS

Vectors = list[list[int]]


@dataclass(frozen=True)
class Row:
    """Opening of one C_lj: integer weights and bias of a neuron, and the blinding. Secret."""

    weights: tuple[int, ...] = field(repr=False)
    bias: int = field(repr=False)
    rho: int = field(repr=False)

    @property
    def values(self) -> tuple[int, ...]:
        """The committed vector."""
        return (*self.weights, self.bias)


@dataclass(frozen=True)
class BatchResult:
    """A finished, verified proof, the C_z it is about, and this party's shares of the answers, patient by patient and
    output by output."""

    proof: bytes
    answers: tuple[bytes, ...]
    shares: tuple[AnswerShare, ...] = field(repr=False)


# -- one party's side -------------------------------------------------------------------------------------------------


def prove_batch(
    role: Role,
    statement: JointStatement,
    secret: Sequence[CommittedRecord] | Sequence[Sequence[Row]],
    channel: Channel,
    correlations: Correlations,
) -> BatchResult:
    """Compute and prove the answers of one batch together with the party at the other end of `channel`.

    `secret`: for A the openings of the C_x, in order; for B the openings of the C_lj, layer by layer. `correlations`
    are this party's part of `batch_plan`, from a dealer that both trust not to work with the other.

    Raises:
        VerificationFailed: `network.overflow` before anything is sent; `joint.blind-check` and what `verify_joint`
            raises: the proof does not hold, so the peer or the dealer deviated, and the pair must be suspended.
        SessionBroken: the peer is gone, stalls, or sends what cannot be.
        UsageError: the secret does not open the statement's commitments; nothing was sent.
    """
    statement.check()
    _check_secret(role, statement, secret)
    return _Party(role, statement, secret, channel, correlations).run()


def compute_answer_shares(
    role: Role,
    statement: JointStatement,
    secret: Sequence[CommittedRecord] | Sequence[Sequence[Row]],
    channel: Channel,
    correlations: Correlations,
) -> list[int]:
    """Steps 1 and 2 alone: this party's shares mod r of the answers, patient by patient and output by output.

    Nothing is committed to and nothing proven, so a party may have computed anything: this is what the proof is added
    to, for measuring what it adds. Arguments as for `prove_batch`; of `correlations` all but the last item is used.

    Raises:
        VerificationFailed: `network.overflow`, before anything is sent.
        SessionBroken: the peer is gone, stalls, or sends what cannot be.
    """
    statement.check()
    return _Party(role, statement, secret, channel, correlations).compute()


class _Party:
    def __init__(
        self,
        role: Role,
        statement: JointStatement,
        secret: Sequence[CommittedRecord] | Sequence[Sequence[Row]],
        channel: Channel,
        correlations: Correlations,
    ) -> None:
        self._role: Role = role
        self._statement = statement
        self._circuit = statement.circuit
        self._count = statement.count
        self._channel = channel
        self._correlations = correlations
        self._stream = SecretStream()
        self._lengths = Lengths(self._circuit, self._count)
        self._records = [x for x in secret if isinstance(x, CommittedRecord)]
        self._layers = [list(layer) for layer in secret if not isinstance(layer, CommittedRecord)]

    @cached_property
    def _rows(self) -> list[Row]:
        return [row for layer in self._layers for row in layer]

    def compute(self) -> list[int]:
        """Steps 1 and 2: shares of the answers."""
        return [values[coordinate] for values in self._shares() for coordinate in self._circuit.answer_range]

    def run(self) -> BatchResult:
        """All steps, in order."""
        v = self._shares()
        w = [x for row in self._rows for x in row.values] or [0] * self._circuit.system.common_size
        blindings = self._blindings()
        mine = self._commit(v, blindings)
        commitments = self._exchange_commitments(mine)
        proof = self._prove(v, w, blindings, commitments)
        data = encode_joint(commitments, proof, _GROUP)
        answers = verify_joint(self._statement, data, _GROUP)
        first = 2 if self._circuit.hidden else 1
        shares = [
            AnswerShare(v[p][coordinate], blindings[p][first + o])
            for p in range(self._count)
            for o, coordinate in enumerate(self._circuit.answer_range)
        ]
        return BatchResult(data, answers, tuple(shares))

    # -- 1 and 2: shares ----------------------------------------------------------------------------------------------

    def _shares(self) -> Vectors:
        """This party's share of every coordinate of every copy; 0 where it has none."""
        circuit = self._circuit
        v = [[0] * circuit.system.local_size for _ in range(self._count)]
        for values, record in zip(v, self._records, strict=False):
            values[: circuit.d] = record.values
        if circuit.hidden:
            self._fill_bits(v)
            self._fill_values(v)
            self._fill_outputs(v)
        self._fill_answers(v)
        return v

    def _words(self) -> list[list[list[int]]]:
        """XOR shares of the pre-activations as 64-bit words: layer, patient, neuron."""
        from privacy.mpc.backend import hidden_words  # a linear model needs no CrypTen

        key = self._stream.bytes(_KEY_BYTES)
        if self._role == "A":
            self._channel.send("ring key", key)
        else:
            key = self._channel.receive("ring key", _KEY_BYTES)
        shapes = self._circuit.shapes
        secret = as_array(self._records) if self._role == "A" else [_layer_arrays(layer) for layer in self._layers]
        found = hidden_words(self._role, shapes, self._count, secret, self._channel, self._correlations, key)
        return [layer.tolist() for layer in found]

    def _fill_bits(self, v: Vectors) -> None:
        for layer, words in zip(self._circuit.hidden, self._words(), strict=True):
            at = layer.bits_A if self._role == "A" else layer.bits_B
            for values, row in zip(v, words, strict=True):
                values[at.start : at.stop] = [(word >> k) & 1 for word in row for k in range(layer.n)]

    def _neurons(self, v: Vectors) -> Iterator[tuple[list[int], int, int, int, list[int], list[int]]]:
        """Every patient and neuron: the copy, where s, h and a are, this party's bits, and what they count."""
        for values in v:
            for layer in self._circuit.hidden:
                at, n, powers = layer.bits_A if self._role == "A" else layer.bits_B, layer.n, layer.powers
                for k in range(layer.width):
                    bits = values[at.start + k * n : at.start + (k + 1) * n]
                    yield values, layer.signs[k], layer.values[k], layer.outputs[k], bits, powers

    def _fill_values(self, v: Vectors) -> None:
        """Shares of h and s: own bits, less twice the products of A's and B's bits."""
        neurons = list(self._neurons(v))
        mine: list[int] = []
        for _, _, _, _, bits, powers in neurons:
            mine += map(mul, powers, bits) if self._role == "A" else bits
        mine += [bits[-1] for *_, bits, _ in neurons]
        products = self._products("bits", self._lengths.bits, mine)
        for place, (values, s, h, _, bits, powers) in enumerate(neurons):
            values[h] = (sum(map(mul, powers, bits)) - 2 * products[place]) % ORDER
            values[s] = (bits[-1] - 2 * products[len(neurons) + place]) % ORDER

    def _fill_outputs(self, v: Vectors) -> None:
        """Shares of a = h - s h."""
        neurons = list(self._neurons(v))
        mine: list[int] = []
        for values, s, h, *_ in neurons:
            mine += (values[s], values[h]) if self._role == "A" else (values[h], values[s])
        products = self._products("relu", self._lengths.relu, mine)
        for (values, s, h, a, *_), product in zip(neurons, products, strict=True):
            values[a] = (values[h] - values[s] * values[h] - product) % ORDER

    def _fill_answers(self, v: Vectors) -> None:
        """Shares of z = <w, y> + bias: w is B's, y shared (or the record, which is A's)."""
        circuit = self._circuit
        inputs = circuit.hidden[-1].outputs if circuit.hidden else range(circuit.d)
        mine: list[int] = []
        for values in v:
            y = values[inputs.start : inputs.stop]
            for o in range(circuit.answers):
                mine += y if self._role == "A" else self._layers[-1][o].weights
        products = iter(self._products("answers", self._lengths.answers, mine))
        for values in v:
            y = values[inputs.start : inputs.stop]
            for o, coordinate in enumerate(circuit.answer_range):
                own = 0
                if self._role == "B":
                    row = self._layers[-1][o]
                    own = sum(map(mul, row.weights, y)) + row.bias
                values[coordinate] = (own + next(products)) % ORDER

    def _products(self, label: str, lengths: tuple[int, ...], mine: Sequence[int]) -> list[int]:
        return inner_products(self._role, self._channel, label, self._correlations, lengths, mine)

    # -- 3: commitments -----------------------------------------------------------------------------------------------

    def _blindings(self) -> Vectors:
        """Of every segment of every copy: the record's own for A, fresh shares for what both commit to."""
        drawn = len(self._circuit.system.segments) - 1
        records = [record.rho for record in self._records] or [0] * self._count
        return [[rho, *self._stream.scalars(drawn)] for rho in records]

    def _segment_keys(self) -> list[CommitmentKey]:
        """Keys of the segments that both commit to, in order."""
        circuit = self._circuit
        return [*([hidden_key(circuit)] if circuit.hidden else []), *([answer_key()] * circuit.answers)]

    def _commit(self, v: Vectors, blindings: Vectors) -> list[Point]:
        """Commitments to this party's shares of the segments that both have: copy by copy."""
        keys = self._segment_keys() * self._count
        parts = [part for values in v for part in split(values, self._circuit.system.segments)[1:]]
        return commit_all(keys, parts, [rho for row in blindings for rho in row[1:]])

    def _exchange_commitments(self, mine: list[Point]) -> JointCommitments:
        theirs = self._exchange_points("commitments", mine, len(mine))
        of_A, of_B = (mine, theirs) if self._role == "A" else (theirs, mine)
        step = len(self._circuit.system.segments) - 1
        first = 1 if self._circuit.hidden else 0
        rows_A = [of_A[i : i + step] for i in range(0, len(of_A), step)]
        rows_B = [of_B[i : i + step] for i in range(0, len(of_B), step)]
        return JointCommitments(
            tuple(row[0] for row in rows_A) if first else (),
            tuple(row[0] for row in rows_B) if first else (),
            tuple(tuple(row[first:]) for row in rows_A),
            tuple(tuple(row[first:]) for row in rows_B),
        )

    def _exchange_points(self, label: str, mine: list[Point], count: int) -> list[Point]:
        data = exchange(self._role, self._channel, label, b"".join(map(_GROUP.encode, mine)), POINT_BYTES * count)
        try:
            return Reader(label, data).points(_GROUP, count)
        except DecodeError as error:
            raise SessionBroken("mpc.point", f"the other party sent no point: {error}") from error

    # -- 4 to 7: the proof --------------------------------------------------------------------------------------------

    def _prove(self, v: Vectors, w: list[int], blindings: Vectors, commitments: JointCommitments) -> CopyProof:
        circuit, statement, system = self._circuit, self._statement, self._circuit.system
        decode = _GROUP.decode
        records = [decode(point) for point in statement.commitments]
        rows = [decode(point) for layer in statement.layers for point in layer.commitments]
        copies = copy_statement(statement, commitments, records, rows, _GROUP)
        transcript = joint_transcript(statement)
        commitments.absorb(transcript, _GROUP)
        copies.absorb(transcript)
        zeta = transcript.challenge_scalar(b"zeta")
        form = system.system.fold(zeta)
        weights = system.copy_weights(zeta, self._count)

        alpha, alpha_common = self._masks()
        t0, t1 = self._mask_coefficients(form, weights, alpha, alpha_common, v, w)
        mask_blindings = [self._stream.scalars(len(system.segments)) for _ in v]
        common_blindings = self._stream.scalars(len(system.common))
        tau0, tau1 = self._stream.scalars(2)
        mine = self._commit_masks(alpha, alpha_common, mask_blindings, common_blindings)
        scalar_key = scalar_commitment_key(_GROUP)
        mine += commit_all([scalar_key, scalar_key], [[t0], [t1]], [tau0, tau1])
        masks, common_masks, T0, T1 = self._exchange_masks(mine)
        absorb_first_messages(transcript, _GROUP, masks, common_masks, T0, T1)
        c = transcript.challenge_scalar(b"c")

        own = circuit.of_A() if self._role == "A" else circuit.of_B()
        answer: list[int] = []
        for a, x, r, rho in zip(alpha, v, mask_blindings, blindings, strict=True):
            answer += [(a[i] + c * x[i]) % ORDER for i in own]
            answer += [(m + c * y) % ORDER for m, y in zip(r, rho, strict=True)][0 if self._role == "A" else 1 :]
        if self._role == "B":
            answer += [(a + c * x) % ORDER for a, x in zip(alpha_common, w, strict=True)]
            answer += [(m + c * row.rho) % ORDER for m, row in zip(common_blindings, self._rows, strict=True)]
        proof = self._assemble(masks, common_masks, T0, T1, answer)
        value = proof.folded_value(system, form, zeta, c)
        P = _GROUP.msm([T0, T1, *scalar_key.points], [1, c, -value])
        tau = (tau0 + c * tau1) % ORDER
        return replace(proof, tau=exchange_tau(self._role, self._channel, scalar_key, P, tau))

    def _masks(self) -> tuple[Vectors, list[int]]:
        """Uniform where this party has a share, 0 elsewhere."""
        circuit = self._circuit
        own = circuit.of_A() if self._role == "A" else circuit.of_B()
        alpha = []
        for _ in range(self._count):
            values = [0] * circuit.system.local_size
            for i, mask in zip(own, self._stream.scalars(len(own)), strict=True):
                values[i] = mask
            alpha.append(values)
        size = circuit.system.common_size
        return alpha, self._stream.scalars(size) if self._role == "B" else [0] * size

    def _mask_coefficients(
        self,
        form: Folded,
        weights: list[int],
        alpha: Vectors,
        alpha_common: list[int],
        v: Vectors,
        w: list[int],
    ) -> tuple[int, int]:
        """This party's shares of t0 and t1."""
        t0 = t1 = 0
        for weight, a, x in zip(weights, alpha, v, strict=True):
            part0, part1 = mask_coefficients(form, (*a, *alpha_common), (*x, *w))
            t0, t1 = t0 + weight * part0, t1 + weight * part1
        cross = cross_terms(self._circuit)
        first: list[int] = []
        second: list[int] = []
        for weight, a, x in zip(weights, alpha, v, strict=True):
            if self._role == "A":
                masks = [a[i] for i in cross.support]
                first += masks
                second += masks + [x[i] for i in cross.support]
            else:
                masks = cross.times(form, (*a, *alpha_common), weight)
                first += masks
                second += cross.times(form, (*x, *w), weight) + masks
        cross0, cross1 = self._products("masks", self._lengths.masks, first + second)
        return (t0 + cross0) % ORDER, (t1 + cross1) % ORDER

    def _commit_masks(
        self, alpha: Vectors, alpha_common: list[int], blindings: Vectors, common_blindings: list[int]
    ) -> list[Point]:
        """A: record, hidden and answer segments of every copy; B: hidden and answers, then the common rows."""
        system = self._circuit.system
        keys, parts, rhos = [], [], []
        first = 0 if self._role == "A" else 1
        segment_keys = [record_key(self._circuit.d), *self._segment_keys()][first:]
        for a, r in zip(alpha, blindings, strict=True):
            keys += segment_keys
            parts += split(a, system.segments)[first:]
            rhos += r[first:]
        if self._role == "B":
            keys += row_keys(self._statement)
            parts += split(alpha_common, system.common)
            rhos += common_blindings
        return commit_all(keys, parts, rhos)

    def _exchange_masks(
        self, mine: list[Point]
    ) -> tuple[tuple[tuple[Point, ...], ...], tuple[Point, ...], Point, Point]:
        """Exchange first messages; what both have is added, the record's is A's, the rows' are B's."""
        count, shared, rows = self._count, len(self._segment_keys()), len(self._circuit.system.common)
        sizes = {"A": count * (1 + shared) + 2, "B": count * shared + rows + 2}
        theirs = self._exchange_points("masks", mine, sizes["B" if self._role == "A" else "A"])
        of_A, of_B = (mine, theirs) if self._role == "A" else (theirs, mine)
        masks = []
        for p in range(count):
            record, *left = of_A[p * (1 + shared) : (p + 1) * (1 + shared)]
            right = of_B[p * shared : (p + 1) * shared]
            masks.append((record, *(_GROUP.add(a, b) for a, b in zip(left, right, strict=True))))
        common = tuple(of_B[count * shared : count * shared + rows])
        T0, T1 = (_GROUP.add(a, b) for a, b in zip(of_A[-2:], of_B[-2:], strict=True))
        return tuple(masks), common, T0, T1

    def _assemble(
        self,
        masks: tuple[tuple[Point, ...], ...],
        common_masks: tuple[Point, ...],
        T0: Point,
        T1: Point,
        mine: list[int],
    ) -> CopyProof:
        """Exchange responses and add them up; tau is left for later."""
        circuit, count, segments = self._circuit, self._count, len(self._circuit.system.segments)
        sizes = {
            "A": count * (len(circuit.of_A()) + segments),
            "B": count * (len(circuit.of_B()) + segments - 1) + circuit.system.common_size + len(circuit.system.common),
        }
        size = SCALAR_BYTES * sizes["B" if self._role == "A" else "A"]
        data = exchange(self._role, self._channel, "responses", pack_scalars(mine), size)
        theirs = unpack_scalars("responses", data)
        of_A, of_B = (iter(mine), iter(theirs)) if self._role == "A" else (iter(theirs), iter(mine))
        responses, blindings = [], []
        for _ in range(count):
            z = [0] * circuit.system.local_size
            r = [0] * segments
            for coordinates, values, first in ((circuit.of_A(), of_A, 0), (circuit.of_B(), of_B, 1)):
                for i in coordinates:
                    z[i] += next(values)
                for segment in range(first, segments):
                    r[segment] += next(values)
            responses.append(tuple(x % ORDER for x in z))
            blindings.append(tuple(x % ORDER for x in r))
        common = tuple(islice(of_B, circuit.system.common_size))
        common_blindings = tuple(islice(of_B, len(circuit.system.common)))
        return CopyProof(masks, common_masks, T0, T1, tuple(responses), common, tuple(blindings), common_blindings, 0)


def _layer_arrays(layer: Sequence[Row]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Weights (outputs, inputs) and biases of a layer. All are below 2^62 by the layer's public bounds."""
    weights = np.array([row.weights for row in layer], dtype=np.int64)
    return weights, np.array([row.bias for row in layer], dtype=np.int64)


def _check_secret(
    role: Role, statement: JointStatement, secret: Sequence[CommittedRecord] | Sequence[Sequence[Row]]
) -> None:
    """Raise UsageError unless the secret opens the statement's commitments."""
    if role == "A":
        records = [item for item in secret if isinstance(item, CommittedRecord)]
        d = statement.circuit.d
        fits = len(records) == statement.count == len(secret) and all(len(r.values) == d for r in records)
        keys, values, rhos = [record_key(d)] * len(records), [r.values for r in records], [r.rho for r in records]
        expected = list(statement.commitments)
    else:
        layers = [list(item) for item in secret if not isinstance(item, CommittedRecord)]
        shapes = [layer.shape for layer in statement.layers]
        fits = [len(layer) for layer in layers] == [shape.outputs for shape in shapes] and all(
            len(row.weights) == shape.inputs for layer, shape in zip(layers, shapes, strict=False) for row in layer
        )
        rows = [row for layer in layers for row in layer]
        keys, values, rhos = list(row_keys(statement)), [row.values for row in rows], [row.rho for row in rows]
        expected = [C for layer in statement.layers for C in layer.commitments]
    if not fits or list(map(_GROUP.encode, commit_all(keys, values, rhos))) != expected:
        raise UsageError("the secret does not open the commitments of the statement")
