"""Linear and shortness relations T1, T2, T4, T5, T6 (docs/spec/protocol.md, section 4).

T1  PK{v : C_i = Com(v_i) and sum_i <alpha_i, v_i> = beta in F_r}: Schnorr over all coordinates at once. Responses
    of coordinates with a public bound are short: the mask of a coordinate with |v| <= V is uniform in
    [0, 2^m), m = 128 + bits(V) + 24 or a little more, and the prover starts this last step again unless every
    response lies in [T, 2^m - T), T = 2^128 V. Accepted responses are then exactly uniform there, whatever v is,
    so nothing leaks, and both the proof and the group operations shrink to about 152/255 for ternary witnesses.
    Soundness does not use the range of responses: two answers to different challenges give v in F_r.
    The challenge has 128 bits (error 2^-128 an attempt).
T2  an equation mod q becomes an integer equation with a committed quotient; `check_no_wrap` is its condition.
T4  five rows of challenges in [0, 2^kappa), T5 and T6 J = 160 ternary rows: drawn here, used by the proofs.

docs/adr/0002-short-responses.md argues the change against full-width responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from privacy.errors import UsageError, VerificationFailed
from privacy.zk.group import ORDER, POINT_BYTES, SCALAR_BYTES, Group, Point
from privacy.zk.pedersen import CommitmentKey, commit_soon
from privacy.zk.randomness import SecretStream, expand, random_scalar
from privacy.zk.transcript import Transcript
from privacy.zk.wire import Reader, pack_integers, pack_scalars

__all__ = [
    "KAPPA",
    "T4_ROWS",
    "J",
    "LinearProof",
    "LinearSegment",
    "Masks",
    "OpeningInProgress",
    "Run",
    "check_no_wrap",
    "inner",
    "powers",
    "prove_linear",
    "ternary_rows",
]

J: Final = 160
"""Rows of the ternary projections: error 1/2 a row."""

KAPPA: Final = 34
"""T4 challenges lie in [0, 2^kappa), below every data prime."""

T4_ROWS: Final = 5

CHALLENGE_BITS: Final = 128
_SLACK_BITS: Final = 24
"""Masks exceed the largest possible shift by 2^24, so that 10,000 coordinates restart less than once in 500 proofs."""

_FULL_BITS: Final = 254
"""From here on a short mask saves nothing: use a uniform scalar."""


@dataclass(frozen=True)
class Run:
    """`count` consecutive coordinates with |v| <= bound; bound None means any residue mod r."""

    count: int
    bound: int | None

    @cached_property
    def width(self) -> int:
        """Bytes of a response."""
        if self.bound is None:
            return SCALAR_BYTES
        bits = CHALLENGE_BITS + self.bound.bit_length() + _SLACK_BITS
        return -(-bits // 8) if bits < _FULL_BITS - 8 else SCALAR_BYTES

    @property
    def short(self) -> bool:
        """Whether responses are integers with a range instead of residues."""
        return self.width < SCALAR_BYTES


@dataclass(frozen=True)
class LinearSegment:
    """One committed part of the witness: key, commitment, and the public bounds of its coordinates."""

    key: CommitmentKey
    commitment: Point
    runs: tuple[Run, ...]

    def __post_init__(self) -> None:
        if sum(run.count for run in self.runs) != len(self.key):
            raise UsageError("the runs of a segment must cover its key")


@dataclass(frozen=True)
class LinearProof:
    """First messages A_i and t, responses z_i and r_i."""

    masks: tuple[Point, ...]
    t: int
    responses: tuple[tuple[int, ...], ...]
    blindings: tuple[int, ...]

    def encode(self, group: Group, shapes: Sequence[Sequence[Run]]) -> bytes:
        """Points, t, blindings, then responses at the width of their run."""
        out = [*(group.encode(p) for p in self.masks), pack_scalars((self.t, *self.blindings))]
        for runs, z in zip(shapes, self.responses, strict=True):
            at = 0
            for run in runs:
                out.append(pack_integers(z[at : at + run.count], run.width))
                at += run.count
        return b"".join(out)

    @staticmethod
    def read(reader: Reader, group: Group, shapes: Sequence[Sequence[Run]]) -> LinearProof:
        """Read a proof whose segments have these runs."""
        masks = reader.points(group, len(shapes))
        t, *blindings = reader.scalars(1 + len(shapes))
        responses = []
        for runs in shapes:
            z: list[int] = []
            for run in runs:
                z += reader.integers(run.count, run.width) if run.short else reader.scalars(run.count)
            responses.append(tuple(z))
        return LinearProof(tuple(masks), t, tuple(responses), tuple(blindings))

    @staticmethod
    def size(shapes: Sequence[Sequence[Run]]) -> int:
        """Bytes of an encoded proof."""
        fixed = len(shapes) * (POINT_BYTES + SCALAR_BYTES) + SCALAR_BYTES
        return fixed + sum(run.count * run.width for runs in shapes for run in runs)

    def open_soon(self, keys: Sequence[CommitmentKey]) -> OpeningInProgress:
        """Start the group operations of `verify`, which depend on responses and keys alone."""
        return OpeningInProgress(self, tuple(keys), commit_soon(keys, self.responses, self.blindings))

    def verify(
        self,
        transcript: Transcript,
        segments: Sequence[LinearSegment],
        alphas: Sequence[Sequence[int]],
        beta: int,
        in_progress: OpeningInProgress | None = None,
    ) -> None:
        """Check against the statement that `transcript` has absorbed: all that alphas and the keys derive from.

        `in_progress`: from `open_soon` of this proof with the keys of these segments.

        Raises:
            VerificationFailed: `linear.form` or `linear.opening`.
            UsageError: `in_progress` is of another proof or other keys.
        """
        group = segments[0].key.group
        keys = tuple(s.key for s in segments)
        in_progress = in_progress or self.open_soon(keys)
        if in_progress.proof is not self or in_progress.keys != keys:
            raise UsageError("the opening that was started is not the one to be verified")
        _absorb_statement(transcript, segments, beta)
        c = _challenge(transcript, group, self.masks, self.t)
        form = sum(inner(alpha, z) for alpha, z in zip(alphas, self.responses, strict=True))
        if (form - self.t - c * beta) % ORDER:
            raise VerificationFailed("linear.form", "the responses do not satisfy the linear relation")
        for segment, mask, found in zip(segments, self.masks, in_progress.opened.result(), strict=True):
            if not group.equal(found, group.add(mask, group.multiply(segment.commitment, c))):
                raise VerificationFailed("linear.opening", "the responses do not open the commitments")


@dataclass(frozen=True)
class OpeningInProgress:
    """Com_i(z_i; r_i) of a proof, being computed."""

    proof: LinearProof
    keys: tuple[CommitmentKey, ...]
    opened: Future[list[Point]]


class Masks:
    """Masks k of one attempt at T1 and their commitments, computed beside what the prover does meanwhile.

    They hide the witness once. Taking them a second time is refused: two responses under one mask give it away.
    """

    def __init__(self, keys: Sequence[CommitmentKey], shapes: Sequence[Sequence[Run]]) -> None:
        stream = SecretStream()
        self.keys = tuple(keys)
        self.shapes = tuple(tuple(runs) for runs in shapes)
        self._k = [_masks(stream, runs) for runs in shapes]
        self._blindings = [random_scalar() for _ in keys]
        self._commitments = commit_soon(keys, self._k, self._blindings)
        self._taken = False

    def take(self) -> tuple[list[list[int]], list[int], list[Point]]:
        """(k, blindings, commitments), once."""
        if self._taken:
            raise UsageError("masks are used once")
        self._taken = True
        return self._k, self._blindings, self._commitments.result()


def prove_linear(
    transcript: Transcript,
    segments: Sequence[LinearSegment],
    alphas: Sequence[Sequence[int]],
    beta: int,
    witness: Sequence[Sequence[int]],
    blindings: Sequence[int],
    masks: Masks | None = None,
) -> LinearProof:
    """T1. The transcript must have absorbed everything that alphas, beta and the keys are derived from.

    `masks` are those of the first attempt, if the caller had them prepared for these segments.

    Raises:
        UsageError: the witness does not satisfy the form (a false statement has no honest proof).
    """
    group = segments[0].key.group
    if (sum(inner(alpha, v) for alpha, v in zip(alphas, witness, strict=True)) - beta) % ORDER:
        raise UsageError("the witness does not satisfy the linear relation")
    for segment, v in zip(segments, witness, strict=True):
        _check_bounds(segment.runs, v)
    keys, shapes = tuple(s.key for s in segments), tuple(s.runs for s in segments)
    if masks is not None and (masks.keys != keys or masks.shapes != shapes):
        raise UsageError("the masks were prepared for other segments")
    _absorb_statement(transcript, segments, beta)
    while True:
        # Masks and their commitments are drawn anew on each attempt; an attempt that fails is never shown.
        attempt = transcript.copy()
        k, k_blindings, A = (masks or Masks(keys, shapes)).take()
        masks = None
        t = sum(inner(alpha, part) for alpha, part in zip(alphas, k, strict=True)) % ORDER
        c = _challenge(attempt, group, A, t)
        responses = []
        for segment, mask, v in zip(segments, k, witness, strict=True):
            z = _responses(segment.runs, mask, v, c)
            if z is None:
                break
            responses.append(tuple(z))
        else:
            transcript.adopt(attempt)
            r = tuple((a + c * rho) % ORDER for a, rho in zip(k_blindings, blindings, strict=True))
            return LinearProof(tuple(A), t, tuple(responses), r)


def _check_bounds(runs: Sequence[Run], v: Sequence[int]) -> None:
    """A coordinate beyond its bound would shift its response by more than the interval allows, and show."""
    at = 0
    for run in runs:
        part = v[at : at + run.count]
        at += run.count
        if run.bound is not None and (max(part) > run.bound or min(part) < -run.bound):
            raise UsageError("a witness coordinate exceeds its public bound")


def _masks(stream: SecretStream, runs: Sequence[Run]) -> list[int]:
    out: list[int] = []
    for run in runs:
        out += stream.integers(run.count, 8 * run.width) if run.short else stream.scalars(run.count)
    return out


def _responses(runs: Sequence[Run], k: Sequence[int], v: Sequence[int], c: int) -> list[int] | None:
    """k + c v, or None when a short response falls outside its interval."""
    out: list[int] = []
    for run in runs:
        part = slice(len(out), len(out) + run.count)
        z = [a + c * x for a, x in zip(k[part], v[part], strict=True)]
        if run.short and run.bound is not None:
            shift = run.bound << CHALLENGE_BITS
            if min(z) < shift or max(z) >= (1 << 8 * run.width) - shift:
                return None
        else:
            z = [x % ORDER for x in z]
        out += z
    return out


def _absorb_statement(transcript: Transcript, segments: Sequence[LinearSegment], beta: int) -> None:
    # Not alpha: it is a function of what the transcript holds already, and 5,000 scalars take longer to write down
    # than to use.
    transcript.absorb_scalars(b"beta", [beta])
    for segment in segments:
        transcript.absorb_integers(
            b"runs", [x for run in segment.runs for x in (run.count, -1 if run.bound is None else run.bound)]
        )
        transcript.absorb_point(b"commitment", segment.key.group.encode(segment.commitment))


def _challenge(transcript: Transcript, group: Group, masks: Sequence[Point], t: int) -> int:
    for mask in masks:
        transcript.absorb_point(b"A", group.encode(mask))
    transcript.absorb_scalars(b"t", [t])
    return int.from_bytes(transcript.challenge_bytes(b"c", CHALLENGE_BITS // 8), "little")


def inner(left: Sequence[int], right: Sequence[int]) -> int:
    """Inner product of integers, not reduced."""
    return sum(a * b for a, b in zip(left, right, strict=True))


def powers(base: int, count: int) -> list[int]:
    """1, base, ..., base^(count-1) mod r."""
    out, value = [], 1
    for _ in range(count):
        out.append(value)
        value = value * base % ORDER
    return out


def ternary_rows(key: bytes, rows: int, columns: int) -> npt.NDArray[np.int8]:
    """(rows, columns) of independent entries -1, 0, 1 with probability 1/4, 1/2, 1/4, expanded from 32 bytes.

    Two bits an entry, their difference: row-major, little-endian bits of the AES-256-CTR stream.
    """
    half = -(-rows * columns // 8)
    stream = np.frombuffer(expand(key, 2 * half), dtype=np.uint8)
    bits = np.unpackbits(stream, bitorder="little").view(np.int8)
    return (bits[: rows * columns] - bits[8 * half : 8 * half + rows * columns]).reshape(rows, columns)


def check_no_wrap(x_max: int, B4: int, q: int) -> int:
    """T2's condition: no row equation mod q can hold in F_r by wrapping around r.

    Returns the left side, for display.

    Raises:
        VerificationFailed: `no-wrap`.
    """
    left = (1 << 2 * KAPPA) * x_max + (1 << (KAPPA + 1)) * B4 * (1 + q)
    if left >= ORDER:
        raise VerificationFailed("no-wrap", f"2^(2 kappa) X_max + 2^(kappa+1) B4 (1+q) has {left.bit_length()} bits")
    return left
