"""Proof X: exact quadratic relations over committed vectors (docs/spec/protocol.md, section 4).

PK{v = (v_1 | ... | v_k), rho_i : C_i = Com_i(v_i; rho_i) and every constraint of the system holds in F_r}.

All constraints fold by powers of zeta into one form v^T Gamma v + lambda.v + const = 0. With masks alpha and
responses z = alpha + c v,

    z^T Gamma z + c lambda.z + c^2 const = t0 + c t1,
    t0 = alpha^T Gamma alpha,  t1 = alpha^T (Gamma + Gamma^T) v + lambda.alpha,

and t0, t1 are committed before c is drawn (a clear t1 would be a linear equation about the witness). Perfectly
hiding, soundness error (number of constraints)/r for zeta plus 2/r for c, per attempt. What is not hidden: the
number of coordinates and the constraints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from privacy.errors import UsageError, VerificationFailed
from privacy.zk.group import ORDER, Group, Point
from privacy.zk.pedersen import CommitmentKey, commit_all, commitment_key
from privacy.zk.randomness import SecretStream, random_scalar
from privacy.zk.transcript import Transcript
from privacy.zk.wire import Reader, pack_scalars

__all__ = [
    "Folded",
    "QuadraticProof",
    "QuadraticSystem",
    "RangeProof",
    "Segment",
    "prove_quadratic",
    "prove_range",
    "scalar_commitment_key",
]


@dataclass(frozen=True)
class Segment:
    """One committed part of the witness: its key and its commitment."""

    key: CommitmentKey
    commitment: Point


@dataclass(frozen=True)
class Folded:
    """One quadratic form: sum gamma v_i v_j + sum lambda_i v_i + constant."""

    quadratic: tuple[tuple[int, int, int], ...]
    linear: tuple[int, ...]
    constant: int

    def evaluate(self, z: Sequence[int], c: int) -> int:
        """z^T Gamma z + c lambda.z + c^2 const."""
        square = sum(g * z[i] * z[j] for i, j, g in self.quadratic)
        line = sum(a * b for a, b in zip(self.linear, z, strict=True))
        return (square + c * line + c * c * self.constant) % ORDER


@dataclass
class QuadraticSystem:
    """Constraints on a witness of `size` coordinates, each `sum c v_i v_j + sum a v_i + constant = 0` in F_r.

    The order in which constraints are added is part of the statement: constraint number e gets weight zeta^e.
    """

    size: int
    _constraints: list[tuple[tuple[tuple[int, int, int], ...], tuple[tuple[int, int], ...], int]] = field(
        default_factory=list
    )

    def __len__(self) -> int:
        """Number of constraints."""
        return len(self._constraints)

    def add(
        self,
        quadratic: Iterable[tuple[int, int, int]] = (),
        linear: Iterable[tuple[int, int]] = (),
        constant: int = 0,
    ) -> None:
        """Add one constraint; terms are (i, j, coefficient) and (i, coefficient)."""
        quad, line = tuple(quadratic), tuple(linear)
        indices = [i for i, _, _ in quad] + [j for _, j, _ in quad] + [i for i, _ in line]
        if indices and not 0 <= min(indices) <= max(indices) < self.size:
            raise UsageError(f"a constraint names coordinate {max(indices)} of a witness of {self.size}")
        self._constraints.append((quad, line, constant))

    def add_bits(self, start: int, count: int) -> None:
        """v_i in {0, 1} for start <= i < start + count."""
        for i in range(start, start + count):
            self.add([(i, i, 1)], [(i, -1)])

    def add_exclusive(self, left: int, right: int, count: int) -> None:
        """v_{left+i} v_{right+i} = 0 for i < count."""
        for i in range(count):
            self.add([(left + i, right + i, 1)])

    def fold(self, zeta: int) -> Folded:
        """Combine all constraints with weights 1, zeta, zeta^2, ..."""
        quadratic: dict[tuple[int, int], int] = {}
        linear = [0] * self.size
        constant = 0
        weight = 1
        for quad, line, const in self._constraints:
            for i, j, c in quad:
                quadratic[i, j] = quadratic.get((i, j), 0) + weight * c
            for i, c in line:
                linear[i] += weight * c
            constant += weight * const
            weight = weight * zeta % ORDER
        return Folded(
            tuple((i, j, c % ORDER) for (i, j), c in quadratic.items()),
            tuple(c % ORDER for c in linear),
            constant % ORDER,
        )

    def violated(self, witness: Sequence[int]) -> int | None:
        """Number of the first constraint that a witness breaks (the prover's own check)."""
        for number, (quad, line, const) in enumerate(self._constraints):
            value = sum(c * witness[i] * witness[j] for i, j, c in quad)
            value += sum(c * witness[i] for i, c in line) + const
            if value % ORDER:
                return number
        return None


@dataclass(frozen=True)
class QuadraticProof:
    """First messages A_i, T0, T1; responses z, r_i and tau."""

    masks: tuple[Point, ...]
    T0: Point
    T1: Point
    responses: tuple[int, ...]
    blindings: tuple[int, ...]
    tau: int

    def encode(self, group: Group) -> bytes:
        """48 B a point, 32 B a scalar; lengths follow from the statement."""
        points = b"".join(group.encode(p) for p in (*self.masks, self.T0, self.T1))
        return points + pack_scalars((*self.responses, *self.blindings, self.tau))

    @staticmethod
    def read(reader: Reader, group: Group, segments: int, size: int) -> QuadraticProof:
        """Read a proof for `segments` commitments over `size` coordinates in all."""
        masks = reader.points(group, segments)
        t0, t1 = reader.points(group, 2)
        responses = reader.scalars(size)
        blindings = reader.scalars(segments)
        (tau,) = reader.scalars(1)
        return QuadraticProof(tuple(masks), t0, t1, tuple(responses), tuple(blindings), tau)

    def verify(self, transcript: Transcript, segments: Sequence[Segment], system: QuadraticSystem) -> None:
        """Check the proof against the statement that `transcript` has absorbed.

        Raises:
            VerificationFailed: `quadratic.opening` or `quadratic.relation`.
            UsageError: the system's coordinates are not those of the segments.
        """
        group = segments[0].key.group
        if not sum(len(segment.key) for segment in segments) == system.size == len(self.responses):
            raise UsageError(f"a system of {system.size} coordinates, all of which must be committed, no others")
        _absorb_segments(transcript, segments)
        form = system.fold(transcript.challenge_scalar(b"zeta"))
        _absorb_first_messages(transcript, group, self.masks, self.T0, self.T1)
        c = transcript.challenge_scalar(b"c")
        opened = commit_all([s.key for s in segments], _split(self.responses, segments), self.blindings)
        for segment, mask, found in zip(segments, self.masks, opened, strict=True):
            if not group.equal(found, group.add(mask, group.multiply(segment.commitment, c))):
                raise VerificationFailed("quadratic.opening", "responses do not open the commitments")
        scalar_key = scalar_commitment_key(group)
        value = form.evaluate(self.responses, c)
        if not group.equal(scalar_key.commit([value], self.tau), group.msm([self.T0, self.T1], [1, c])):
            raise VerificationFailed("quadratic.relation", "the committed values break a constraint")


def prove_quadratic(
    transcript: Transcript,
    segments: Sequence[Segment],
    system: QuadraticSystem,
    witness: Sequence[Sequence[int]],
    blindings: Sequence[int],
) -> QuadraticProof:
    """Prove that the witness (one vector a segment, its blinding beside it) satisfies the system.

    The caller's transcript must have absorbed the statement. Commitments are absorbed here.

    Raises:
        UsageError: the witness does not satisfy the system or has the wrong shape.
    """
    group = segments[0].key.group
    v = [x for part in witness for x in part]
    if len(v) != system.size or [len(part) for part in witness] != [len(s.key) for s in segments]:
        raise UsageError(f"witness of {len(v)} coordinates for a system of {system.size}")
    broken = system.violated(v)
    if broken is not None:
        raise UsageError(f"the witness breaks constraint {broken}: nothing to prove")
    _absorb_segments(transcript, segments)
    form = system.fold(transcript.challenge_scalar(b"zeta"))
    alpha = SecretStream().scalars(system.size)
    mask_blindings = [random_scalar() for _ in segments]
    masks = commit_all([s.key for s in segments], _split(alpha, segments), mask_blindings)
    t0 = sum(g * alpha[i] * alpha[j] for i, j, g in form.quadratic) % ORDER
    t1 = sum(g * (alpha[i] * v[j] + alpha[j] * v[i]) for i, j, g in form.quadratic)
    t1 = (t1 + sum(a * b for a, b in zip(form.linear, alpha, strict=True))) % ORDER
    scalar_key, tau0, tau1 = scalar_commitment_key(group), random_scalar(), random_scalar()
    T0, T1 = scalar_key.commit([t0], tau0), scalar_key.commit([t1], tau1)
    _absorb_first_messages(transcript, group, masks, T0, T1)
    c = transcript.challenge_scalar(b"c")
    return QuadraticProof(
        tuple(masks),
        T0,
        T1,
        tuple((a + c * x) % ORDER for a, x in zip(alpha, v, strict=True)),
        tuple((a + c * x) % ORDER for a, x in zip(mask_blindings, blindings, strict=True)),
        (tau0 + c * tau1) % ORDER,
    )


def _split(values: Sequence[int], segments: Sequence[Segment]) -> list[Sequence[int]]:
    """The coordinates of each segment."""
    ends = list(accumulate(len(segment.key) for segment in segments))
    return [values[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def scalar_commitment_key(group: Group) -> CommitmentKey:
    """The key of T0 and T1, the commitments to single scalars."""
    return commitment_key("quadratic/t", 1, group)


def _absorb_segments(transcript: Transcript, segments: Sequence[Segment]) -> None:
    transcript.absorb_integers(b"segments", [len(s.key) for s in segments])
    for segment in segments:
        transcript.absorb_point(b"commitment", segment.key.group.encode(segment.commitment))


def _absorb_first_messages(transcript: Transcript, group: Group, masks: Sequence[Point], T0: Point, T1: Point) -> None:
    for label, point in [(b"A", mask) for mask in masks] + [(b"T0", T0), (b"T1", T1)]:
        transcript.absorb_point(label, group.encode(point))


@dataclass(frozen=True)
class RangeProof:
    """PK{(value, rho): C = value G + rho H and 0 <= value < 2^bits}. Hides everything but `bits`."""

    bit_commitment: Point
    proof: QuadraticProof

    def encode(self, group: Group) -> bytes:
        """48 B and the proof's bytes."""
        return group.encode(self.bit_commitment) + self.proof.encode(group)

    @staticmethod
    def decode(data: bytes, bits: int, group: Group) -> RangeProof:
        """Strict inverse of `encode` for a public number of bits."""
        reader = Reader("range proof", data)
        commitment = reader.point(group)
        proof = QuadraticProof.read(reader, group, 2, bits + 1)
        reader.end()
        return RangeProof(commitment, proof)

    def verify(self, transcript: Transcript, key: CommitmentKey, commitment: Point, bits: int) -> None:
        """Raises VerificationFailed unless the committed value is in [0, 2^bits)."""
        segments = _range_segments(key, commitment, self.bit_commitment, bits)
        transcript.absorb_integers(b"range bits", [bits])
        self.proof.verify(transcript, segments, _range_system(bits))


def prove_range(transcript: Transcript, key: CommitmentKey, value: int, rho: int, bits: int) -> RangeProof:
    """Range proof of the value committed as `key.commit([value], rho)` (one generator).

    Raises:
        UsageError: the value is outside [0, 2^bits).
    """
    if not 0 <= value < 1 << bits:
        raise UsageError(f"the value does not lie in [0, 2^{bits})")
    witness = [(value >> i) & 1 for i in range(bits)]
    bit_rho = random_scalar()
    bit_commitment = _bit_key(bits, key.group).commit(witness, bit_rho)
    segments = _range_segments(key, key.commit([value], rho), bit_commitment, bits)
    transcript.absorb_integers(b"range bits", [bits])
    proof = prove_quadratic(transcript, segments, _range_system(bits), [[value], witness], [rho, bit_rho])
    return RangeProof(bit_commitment, proof)


def _bit_key(bits: int, group: Group) -> CommitmentKey:
    return commitment_key("range/bits", bits, group)


def _range_segments(key: CommitmentKey, commitment: Point, bit_commitment: Point, bits: int) -> list[Segment]:
    return [Segment(key, commitment), Segment(_bit_key(bits, key.group), bit_commitment)]


def _range_system(bits: int) -> QuadraticSystem:
    system = QuadraticSystem(bits + 1)
    system.add_bits(1, bits)
    system.add(linear=[(0, -1)] + [(1 + i, 1 << i) for i in range(bits)])
    return system
