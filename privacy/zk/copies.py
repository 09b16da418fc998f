"""Proof X over many copies of one system that share a common part (docs/spec/protocol.md, section 4, X).

PK{v_p = (v_p1 | ... | v_pk) for every copy p, w = (w_1 | ... | w_l) :
     C_ps = Com_s(v_ps; rho_ps), D_t = Com'_t(w_t; rho'_t), and every constraint holds for (v_p | w), for all p}

It is proof X of the large system in which every constraint is written down once a copy: constraint e of copy p has the
weight zeta^(p m + e), m being the number of constraints of one. Nothing but the evaluation is arranged by copies, so
that generators do not grow with their number, one form is folded for all of them, and the verifier opens all
commitments in one multi-scalar multiplication, under random weights of its own (error 2^-128).

Patients that share a network, and the rows of a layer's weights, are copies. Errors are those of proof X; what is not
hidden is the number of copies, of coordinates and the constraints.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import mul

from privacy.errors import UsageError, VerificationFailed
from privacy.zk.group import ORDER, POINT_BYTES, SCALAR_BYTES, Group, Point
from privacy.zk.pedersen import CommitmentKey, commit_all
from privacy.zk.quadratic import Folded, QuadraticSystem, scalar_commitment_key
from privacy.zk.randomness import SecretStream
from privacy.zk.transcript import Transcript
from privacy.zk.wire import Reader, pack_scalars

__all__ = [
    "CopyProof",
    "CopyStatement",
    "CopySystem",
    "Opening",
    "absorb_first_messages",
    "check_openings",
    "encoded_size",
    "mask_coefficients",
    "prove_copies",
    "split",
]

_WEIGHT_BITS = 128


@dataclass(frozen=True)
class CopySystem:
    """One copy's constraints, over the coordinates (segments of the copy | common segments), and their sizes.

    Raises UsageError unless the sizes add up to the coordinates of the system.
    """

    system: QuadraticSystem
    segments: tuple[int, ...]
    common: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.local_size + self.common_size != self.system.size:
            raise UsageError(f"segments of {self.local_size} + {self.common_size} for {self.system.size} coordinates")

    @cached_property
    def local_size(self) -> int:
        """Coordinates of one copy."""
        return sum(self.segments)

    @cached_property
    def common_size(self) -> int:
        """Coordinates that all copies share."""
        return sum(self.common)

    def copy_weights(self, zeta: int, copies: int) -> list[int]:
        """zeta^(p m) for every copy p."""
        step, weight, out = pow(zeta, len(self.system), ORDER), 1, []
        for _ in range(copies):
            out.append(weight)
            weight = weight * step % ORDER
        return out

    def proof_size(self, copies: int) -> int:
        """Bytes of an encoded proof."""
        return encoded_size(self.segments, self.common, copies)


@dataclass(frozen=True)
class CopyStatement:
    """What is proved: the system, the keys of each segment, and the commitments, copy by copy."""

    system: CopySystem
    keys: tuple[CommitmentKey, ...]
    commitments: tuple[tuple[Point, ...], ...]
    common_keys: tuple[CommitmentKey, ...] = ()
    common_commitments: tuple[Point, ...] = ()

    def __post_init__(self) -> None:
        if (
            tuple(map(len, self.keys)) != self.system.segments
            or tuple(map(len, self.common_keys)) != self.system.common
        ):
            raise UsageError("the keys of a statement must fit the segments of its system")
        if not self.commitments or any(len(copy) != len(self.keys) for copy in self.commitments):
            raise UsageError("a statement has at least one copy, and a commitment for each of its segments")
        if len(self.common_commitments) != len(self.common_keys):
            raise UsageError(f"{len(self.common_commitments)} commitments for {len(self.common_keys)} common segments")

    @property
    def group(self) -> Group:
        """Where the commitments live."""
        return self.keys[0].group

    def absorb(self, transcript: Transcript) -> None:
        """Absorb the shape and every commitment, before zeta."""
        shape = [len(self.commitments), len(self.keys), *self.system.segments, *self.system.common]
        transcript.absorb_integers(b"copies", shape)
        for copy in self.commitments:
            for point in copy:
                transcript.absorb_point(b"commitment", self.group.encode(point))
        for point in self.common_commitments:
            transcript.absorb_point(b"common commitment", self.group.encode(point))


@dataclass(frozen=True)
class Opening:
    """Responses to c under one commitment: Com(responses; blinding) must be mask + c commitment."""

    key: CommitmentKey
    commitment: Point
    mask: Point
    responses: Sequence[int]
    blinding: int


@dataclass(frozen=True)
class CopyProof:
    """First messages A_ps, A'_t, T0, T1; responses of every copy and of the common part, their blindings, and tau."""

    masks: tuple[tuple[Point, ...], ...]
    common_masks: tuple[Point, ...]
    T0: Point
    T1: Point
    responses: tuple[tuple[int, ...], ...]
    common_responses: tuple[int, ...]
    blindings: tuple[tuple[int, ...], ...]
    common_blindings: tuple[int, ...]
    tau: int

    def encode(self, group: Group) -> bytes:
        """Points, then scalars, in the order of the fields; lengths follow from the statement."""
        points = [point for copy in self.masks for point in copy] + [*self.common_masks, self.T0, self.T1]
        scalars = [z for copy in self.responses for z in copy] + list(self.common_responses)
        scalars += [r for copy in self.blindings for r in copy] + [*self.common_blindings, self.tau]
        return b"".join(map(group.encode, points)) + pack_scalars(scalars)

    @staticmethod
    def read(reader: Reader, group: Group, system: CopySystem, copies: int) -> CopyProof:
        """Read a proof of this shape. Raises DecodeError."""
        masks = tuple(tuple(reader.points(group, len(system.segments))) for _ in range(copies))
        common_masks = tuple(reader.points(group, len(system.common)))
        T0, T1 = reader.points(group, 2)
        responses = tuple(tuple(reader.scalars(system.local_size)) for _ in range(copies))
        common = tuple(reader.scalars(system.common_size))
        blindings = tuple(tuple(reader.scalars(len(system.segments))) for _ in range(copies))
        common_blindings = tuple(reader.scalars(len(system.common)))
        (tau,) = reader.scalars(1)
        return CopyProof(masks, common_masks, T0, T1, responses, common, blindings, common_blindings, tau)

    def verify(self, transcript: Transcript, statement: CopyStatement) -> None:
        """Check the proof against the statement that `transcript` has absorbed; its commitments are absorbed here.

        Raises:
            VerificationFailed: `quadratic.opening` or `quadratic.relation`.
            UsageError: the proof was read for another shape.
        """
        system, group = statement.system, statement.group
        if not self._has_shape(system, len(statement.commitments)):
            raise UsageError("the proof was read for another statement")
        statement.absorb(transcript)
        zeta = transcript.challenge_scalar(b"zeta")
        absorb_first_messages(transcript, group, self.masks, self.common_masks, self.T0, self.T1)
        c = transcript.challenge_scalar(b"c")
        check_openings(self._openings(statement), c)
        value = self.folded_value(system, system.system.fold(zeta), zeta, c)
        found = scalar_commitment_key(group).commit([value], self.tau)
        if not group.equal(found, group.msm([self.T0, self.T1], [1, c])):
            raise VerificationFailed("quadratic.relation", "the committed values break a constraint")

    def _has_shape(self, system: CopySystem, copies: int) -> bool:
        segments, common = len(system.segments), len(system.common)
        return (
            len(self.masks) == len(self.responses) == len(self.blindings) == copies
            and all(len(parts) == segments for parts in (*self.masks, *self.blindings))
            and all(len(z) == system.local_size for z in self.responses)
            and len(self.common_masks) == len(self.common_blindings) == common
            and len(self.common_responses) == system.common_size
        )

    def folded_value(self, system: CopySystem, form: Folded, zeta: int, c: int) -> int:
        """f(z), which T0 + c T1 commits to under tau if every constraint holds; `form` is the system folded by zeta."""
        weights = system.copy_weights(zeta, len(self.responses))
        return (
            sum(
                weight * form.evaluate((*z, *self.common_responses), c)
                for weight, z in zip(weights, self.responses, strict=True)
            )
            % ORDER
        )

    def _openings(self, statement: CopyStatement) -> Iterable[Opening]:
        system = statement.system
        rows = zip(statement.commitments, self.masks, self.responses, self.blindings, strict=True)
        for commitments, masks, responses, blindings in rows:
            parts = split(responses, system.segments)
            for key, C, A, z, r in zip(statement.keys, commitments, masks, parts, blindings, strict=True):
                yield Opening(key, C, A, z, r)
        parts = split(self.common_responses, system.common)
        common = zip(statement.common_keys, statement.common_commitments, self.common_masks, strict=True)
        for (key, C, A), z, r in zip(common, parts, self.common_blindings, strict=True):
            yield Opening(key, C, A, z, r)


def encoded_size(segments: Sequence[int], common: Sequence[int], copies: int) -> int:
    """Bytes of an encoded proof about a system with these segments, for those who have not built it."""
    commitments = copies * len(segments) + len(common)
    scalars = copies * sum(segments) + sum(common) + commitments + 1
    return POINT_BYTES * (commitments + 2) + SCALAR_BYTES * scalars


def check_openings(openings: Iterable[Opening], c: int) -> None:
    """Check all of Com(z; r) = A + c C at once: their sum under random weights of this verifier, error 2^-128.

    Openings under one key object share its generators in the sum. All keys are of one group and one blinding generator.

    Raises:
        VerificationFailed: `quadratic.opening`.
    """
    listed = list(openings)
    weights = [1, *(secrets.randbits(_WEIGHT_BITS) for _ in listed[1:])]
    by_key: dict[int, tuple[CommitmentKey, list[tuple[int, Opening]]]] = {}
    for weight, opening in zip(weights, listed, strict=True):
        by_key.setdefault(id(opening.key), (opening.key, []))[1].append((weight, opening))
    tasks: list[tuple[Sequence[Point], Sequence[int]]] = []
    for key, members in by_key.values():
        columns = zip(*(opening.responses for _, opening in members), strict=True)
        own = [weight for weight, _ in members]
        tasks.append((key.points, [sum(map(mul, own, column)) % ORDER for column in columns]))
    key = listed[0].key
    blinding = sum(weight * opening.blinding for weight, opening in zip(weights, listed, strict=True)) % ORDER
    tasks.append(([key.blinding], [blinding]))
    points = [opening.mask for opening in listed] + [opening.commitment for opening in listed]
    tasks.append((points, [-w for w in weights] + [-(w * c % ORDER) for w in weights]))
    group = key.group
    if not group.equal(group.sum(group.msm_many(tasks)), group.identity()):
        raise VerificationFailed("quadratic.opening", "responses do not open the commitments")


def absorb_first_messages(
    transcript: Transcript,
    group: Group,
    masks: Sequence[Sequence[Point]],
    common_masks: Sequence[Point],
    T0: Point,
    T1: Point,
) -> None:
    """Absorb the prover's first messages, before c."""
    for point in [point for copy in masks for point in copy] + list(common_masks):
        transcript.absorb_point(b"A", group.encode(point))
    transcript.absorb_point(b"T0", group.encode(T0))
    transcript.absorb_point(b"T1", group.encode(T1))


def prove_copies(
    transcript: Transcript,
    statement: CopyStatement,
    witnesses: Sequence[Sequence[Sequence[int]]],
    blindings: Sequence[Sequence[int]],
    common_witness: Sequence[Sequence[int]] = (),
    common_blindings: Sequence[int] = (),
) -> CopyProof:
    """Prove that every copy's witness (a vector a segment) satisfies the system together with the common witness.

    The caller's transcript must have absorbed the statement's context. Memory grows with the copies.

    Raises:
        UsageError: a witness does not satisfy the system or has the wrong shape.
    """
    system, group = statement.system, statement.group
    w = [x for part in common_witness for x in part]
    local = [[x for part in witness for x in part] for witness in witnesses]
    shapes = {tuple(map(len, witness)) for witness in witnesses} | {system.segments}
    if len(shapes) != 1 or len(local) != len(statement.commitments) or tuple(map(len, common_witness)) != system.common:
        raise UsageError("the witness does not have the shape of the statement")
    for v in local:
        broken = system.system.violated((*v, *w))
        if broken is not None:
            raise UsageError(f"the witness breaks constraint {broken}: nothing to prove")
    statement.absorb(transcript)
    zeta = transcript.challenge_scalar(b"zeta")
    form = system.system.fold(zeta)
    stream = SecretStream()
    alpha = [stream.scalars(system.local_size) for _ in local]
    alpha_common = stream.scalars(system.common_size)
    mask_blindings = [stream.scalars(len(system.segments)) for _ in local]
    common_mask_blindings = stream.scalars(len(system.common))
    flat = [(key, part, r) for a, rs in zip(alpha, mask_blindings, strict=True)
            for key, part, r in zip(statement.keys, split(a, system.segments), rs, strict=True)]  # fmt: skip
    flat += zip(statement.common_keys, split(alpha_common, system.common), common_mask_blindings, strict=True)
    points = commit_all([k for k, _, _ in flat], [part for _, part, _ in flat], [r for _, _, r in flat])
    per_copy = len(system.segments)
    masks = tuple(tuple(points[p * per_copy : (p + 1) * per_copy]) for p in range(len(local)))
    common_masks = tuple(points[len(local) * per_copy :])
    t0 = t1 = 0
    for weight, a, v in zip(system.copy_weights(zeta, len(local)), alpha, local, strict=True):
        part0, part1 = mask_coefficients(form, (*a, *alpha_common), (*v, *w))
        t0, t1 = t0 + weight * part0, t1 + weight * part1
    key = scalar_commitment_key(group)
    tau0, tau1 = stream.scalars(2)
    T0, T1 = commit_all([key, key], [[t0 % ORDER], [t1 % ORDER]], [tau0, tau1])
    absorb_first_messages(transcript, group, masks, common_masks, T0, T1)
    c = transcript.challenge_scalar(b"c")
    return CopyProof(
        masks,
        common_masks,
        T0,
        T1,
        tuple(_respond(a, v, c) for a, v in zip(alpha, local, strict=True)),
        _respond(alpha_common, w, c),
        tuple(_respond(a, r, c) for a, r in zip(mask_blindings, blindings, strict=True)),
        _respond(common_mask_blindings, common_blindings, c),
        (tau0 + c * tau1) % ORDER,
    )


def mask_coefficients(form: Folded, a: Sequence[int], v: Sequence[int]) -> tuple[int, int]:
    """t0 and t1 of one copy: a^T Gamma a, and a^T (Gamma + Gamma^T) v + lambda.a."""
    t0 = sum(g * a[i] * a[j] for i, j, g in form.quadratic)
    t1 = sum(g * (a[i] * v[j] + a[j] * v[i]) for i, j, g in form.quadratic)
    return t0 % ORDER, (t1 + sum(map(mul, form.linear, a))) % ORDER


def _respond(mask: Sequence[int], value: Sequence[int], c: int) -> tuple[int, ...]:
    return tuple((a + c * x) % ORDER for a, x in zip(mask, value, strict=True))


def split(values: Sequence[int], sizes: Sequence[int]) -> list[Sequence[int]]:
    """Consecutive parts of these sizes. Raises UsageError unless they are all of `values`."""
    if len(values) != sum(sizes):
        raise UsageError(f"{len(values)} coordinates for segments of {sum(sizes)}")
    parts, at = [], 0
    for size in sizes:
        parts.append(values[at : at + size])
        at += size
    return parts
