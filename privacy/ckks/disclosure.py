"""Disclosing answers of an encrypted prediction: statement, wire format, and the linear form both sides compute
(docs/spec/protocol.md, section 6).

Answer k is one published coefficient of one verified result (c0, c1), or of the difference of two results at the same
place. Its decryption is M_k = c0[k] + (c1 s)[k], centred mod Q. With lo_k <= hi_k from the statement,

    PK{s, M_k, rho : C_s = C_{s+} - C_{s-} = Com(s; rho), and for every k
                     M_k = c0_k + <a_k, s> mod Q,  lo_k <= M_k < hi_k}

    exact      lo, hi = Delta (n - m), Delta (n + m): M is within m grid steps of n
    threshold  lo, hi = Delta n, (Q + 1) / 2: M is at least n grid steps

with Delta the units of a decryption in one step of the model's public grid. -Q/2 <= lo and hi <= Q/2 always, since M is
fixed only mod Q: without these a true 0.30 is disclosed as 0.30 + Q / Delta. How it is proved:

1. Commit C_V = Com(v) to v = (d_k, x_k, y_k, z_k), d_k = M_k - lo_k, and C_R to masks nu of T5, quotients, masks of T4.
2. Rows R (ternary, J x 4n) and chi are drawn. Publish z = nu + R v (T5: every v_i is an integer of at most 2 M5) and
   xi = mask + <chi, K> (T4: quotients are a / d with |a| <= 2 B4, 0 < d < 2^kappa).
3. T1 opens one linear form in (s | v | nu, K, masks): every row equation d_k + lo_k = c0_k + <a_k, s> - q_l K over the
   integers (T2) for every prime, and the definitions of z and xi. Folded, however many answers there are, into one
   opening of s, whose responses are short.
4. X over C_V: 4 d_k (w_k - d_k) + 1 = x_k^2 + y_k^2 + z_k^2, w_k = hi_k - 1 - lo_k. All numbers are below 2^100, so it
   holds over the integers, and 0 <= d_k <= w_k (`privacy.zk.squares`; docs/adr/0017 says why not by bits).

s is ternary by the key certificate that C_{s+} and C_{s-} come from, which every verifier verifies; with a loosely
short s any answer could be shown. M is the decryption of a verified result, so the committed model's answer is within
the attested error of it.

Hidden: s and M beyond what the statement says; perfectly, but for the 2^-95 by which T5's restarts may depend on them.
Soundness error, each per attempt: 2^-J for T5, 2^-170 for T4, 2^-128 + (n L + J + 4)/r for T1, (n + 1)/r for X.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isqrt
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from flint import fmpz_mod_ctx, fmpz_mod_poly_ctx

from privacy.ckks.canonical import ResultCiphertext, result_digest
from privacy.ckks.params import ParameterSet
from privacy.errors import UsageError, VerificationFailed
from privacy.zk.group import ARKWORKS, ORDER, POINT_BYTES, Group, Point
from privacy.zk.pedersen import CommitmentKey, commitment_key
from privacy.zk.quadratic import QuadraticProof, QuadraticSystem, Segment
from privacy.zk.relations import (
    KAPPA,
    T4_ROWS,
    J,
    LinearProof,
    LinearSegment,
    Run,
    check_no_wrap,
    inner,
    powers,
    ternary_rows,
)
from privacy.zk.transcript import Transcript
from privacy.zk.wire import Reader, pack_integers

__all__ = [
    "MAX_ANSWERS",
    "Challenges",
    "Coefficients",
    "DisclosedAnswer",
    "DisclosureBounds",
    "DisclosureProof",
    "DisclosureStatement",
    "Form",
    "Kind",
    "Results",
    "absorb_commitments",
    "absorb_values",
    "verify_disclosure",
]

Kind = Literal["exact", "threshold"]

MAX_ANSWERS: Final = 256
"""Answers in one proof."""

_MAGIC: Final = b"sealproof/disclosure/v1\n"
_WHAT: Final = "disclosure"
_ID: Final = 32
_RHO5: Final = 734
_RHO4: Final = 1024
"""Masks of T5 and T4 exceed honest values so many times: all pass with probability exp(-J/734 - 5/1024) = 0.80."""
_WIDEST: Final = 100
"""Bits of a proven |v_i|: no sum of five products of two such numbers comes near r."""
_PURPOSES: Final = ("key/s", "disclosure/answers", "disclosure/masks")
"""Generator purposes of C_s, C_V and C_R."""

Results = Callable[[bytes], ResultCiphertext]
"""The result with a digest; who calls it compares the digest."""


@dataclass(frozen=True)
class DisclosedAnswer:
    """One thing said of one answer.

    `handle` is the blinded handle of the record, `patient` and `output` name the answer in its prediction, and
    `position` the coefficient of `results`: the digest of one result, or of two whose difference is meant (`versus` is
    then the output of the second). A difference is one mod Q: it is that of the model's answers if their public bounds
    together are below Q/2, which the caller checks, and within the sum of both errors. `value` is n in grid steps;
    `tolerance` m, one step or more for `exact` and else 0.
    Raises UsageError for fields that no answer has.
    """

    handle: bytes
    patient: int
    output: int
    versus: int | None
    results: tuple[bytes, ...]
    position: int
    kind: Kind
    value: int
    tolerance: int

    def __post_init__(self) -> None:
        if any(len(x) != _ID for x in (self.handle, *self.results)):
            raise UsageError("handles and digests have 32 bytes")
        if len(self.results) != (1 if self.versus is None else 2) or self.versus == self.output:
            raise UsageError("an answer has one result, and a difference two of different outputs")
        if min(self.patient, self.output, self.position, self.versus or 0) < 0:
            raise UsageError("patients, outputs and positions are not negative")
        if self.kind not in ("exact", "threshold"):
            raise UsageError(f"there is no disclosure of kind {self.kind!r} of an encrypted answer")
        if (self.kind == "exact") != (self.tolerance > 0) or self.tolerance < 0:
            raise UsageError("an exact disclosure has a tolerance of one grid step or more, others have none")

    def absorb(self, transcript: Transcript) -> None:
        """Absorb every field, in order."""
        transcript.absorb(b"handle", self.handle)
        versus = -1 if self.versus is None else self.versus
        transcript.absorb_integers(b"place", [self.patient, self.output, versus, self.position])
        for digest in self.results:
            transcript.absorb(b"result", digest)
        transcript.absorb(b"kind", self.kind.encode())
        transcript.absorb_integers(b"value", [self.value, self.tolerance])


@dataclass(frozen=True)
class DisclosureBounds:
    """Derived numbers of a proof, the same for prover and verifier.

    `T5` and `M5`: honest and accepted |z_j|. `quotient`: largest |K| of an honest prover. `honest4`, `B4`: honest and
    accepted T4 values. `no_wrap`: left side of T2's condition, below r.
    """

    T5: int
    M5: int
    quotient: int
    honest4: int
    B4: int
    no_wrap: int


@dataclass(frozen=True)
class DisclosureStatement:
    """Everything public that a disclosure is about, for one recipient and under one key.

    Ids are leaf hashes of ledger entries: of the key, the model, the records, the prediction and the grant by which the
    clinic consented. `C_plus` and `C_minus` (48 bytes) are those of the verified key certificate whose digest is
    `key_certificate`. Raises UsageError for a statement that nobody can make.
    """

    params: ParameterSet
    grid_bits: int
    key_id: bytes
    key_certificate: bytes
    C_plus: bytes
    C_minus: bytes
    model_id: bytes
    records_id: bytes
    prediction_id: bytes
    grant_id: bytes
    recipient_nonce: bytes
    answers: tuple[DisclosedAnswer, ...]

    def __post_init__(self) -> None:
        ids = (self.key_id, self.key_certificate, self.model_id, self.records_id, self.prediction_id, self.grant_id)
        if any(len(x) != _ID for x in (*ids, self.recipient_nonce)):
            raise UsageError("ids, digests and nonces of a statement have 32 bytes")
        if len(self.C_plus) != POINT_BYTES or len(self.C_minus) != POINT_BYTES:
            raise UsageError(f"a commitment has {POINT_BYTES} bytes")
        if not 1 <= len(self.answers) <= MAX_ANSWERS:
            raise UsageError(f"a disclosure is about 1 to {MAX_ANSWERS} answers, got {len(self.answers)}")
        if not 0 <= self.grid_bits <= self.params.D:
            raise UsageError(f"the grid 2^-{self.grid_bits} is finer than answers are")
        # "a - b >= n" beside "b - a >= -n" would say what one disclosure must not: the exact difference.
        places = [(a.patient, frozenset((a.output, a.versus)), a.kind) for a in self.answers]
        if len(set(places)) != len(places):
            raise UsageError("a disclosure says one thing of a kind about an answer")
        for answer in self.answers:
            low, high = self.interval(answer)
            half = (self.params.Q - 1) // 2
            if not (answer.position < self.params.N and -half <= low < high <= half + 1):
                raise UsageError("the interval leaves the range of a decryption: choose another value or tolerance")

    @property
    def step(self) -> int:
        """Delta: units of a decryption from one grid point to the next."""
        return 1 << (self.params.D - self.grid_bits)

    def interval(self, answer: DisclosedAnswer) -> tuple[int, int]:
        """lo and hi: the statement is lo <= M < hi, in units of a decryption."""
        if answer.kind == "exact":
            return self.step * (answer.value - answer.tolerance), self.step * (answer.value + answer.tolerance)
        return self.step * answer.value, (self.params.Q + 1) // 2

    @cached_property
    def bounds(self) -> DisclosureBounds:
        """Recomputed from the statement; nothing is read from a proof."""
        params, count = self.params, len(self.answers)
        # d_k and the three squares are at most w_k + 1. Twelve standard deviations of a ternary row, or all of it.
        reach = [high - low for low, high in map(self.interval, self.answers)]
        T5 = min(4 * sum(reach), isqrt(72 * 4 * sum(x * x for x in reach)) + 1)
        M5 = _RHO5 * T5
        q_min, q_max = min(params.primes), max(params.primes)
        if q_min <= 1 << KAPPA or q_max * params.N >= 1 << 62:
            raise UsageError(f"{params.name}: its data primes are too small or too large for disclosures")
        # |<a, s> + c0 - M|; M is an exact integer of a decryption's range by X.
        x_max = (params.N + 1) * q_max + params.Q // 2 + 1
        quotient = x_max // q_min + 1
        honest4 = ((1 << KAPPA) - 1) * count * params.L * quotient
        B4 = _RHO4 * honest4
        if (2 * M5).bit_length() > _WIDEST:
            raise UsageError("the intervals of this disclosure are too wide for an exact proof")
        no_wrap = max(check_no_wrap(x_max, B4, q) for q in params.primes)
        return DisclosureBounds(T5, M5, quotient, honest4, B4, no_wrap)

    def absorb(self, transcript: Transcript) -> None:
        """Absorb every field, and every number derived from them."""
        transcript.absorb(b"params", self.params.encode())
        for label, value in (
            (b"key", self.key_id),
            (b"key certificate", self.key_certificate),
            (b"model", self.model_id),
            (b"records", self.records_id),
            (b"prediction", self.prediction_id),
            (b"grant", self.grant_id),
            (b"recipient", self.recipient_nonce),
        ):
            transcript.absorb(label, value)
        transcript.absorb_point(b"C_s+", self.C_plus)
        transcript.absorb_point(b"C_s-", self.C_minus)
        for purpose in _PURPOSES:
            transcript.absorb(b"generators", purpose.encode())
        transcript.absorb_integers(b"scales", [self.params.D, self.grid_bits, len(self.answers)])
        for answer in self.answers:
            answer.absorb(transcript)
            transcript.absorb_integers(b"interval", self.interval(answer))
        bounds = self.bounds
        transcript.absorb_integers(b"bounds", [J, KAPPA, T4_ROWS, bounds.M5, bounds.B4])

    def start(self) -> Transcript:
        """A transcript that has absorbed this statement."""
        transcript = Transcript(_MAGIC)
        self.absorb(transcript)
        return transcript

    # -- shapes --------------------------------------------------------------------------------------------------------

    @property
    def quotients(self) -> int:
        """Number of row equations: one for every answer and prime."""
        return len(self.answers) * self.params.L

    def shapes(self) -> list[tuple[Run, ...]]:
        """Honest bounds of (s), (v) and (nu, K, T4 masks): what T1's responses hide."""
        bounds = self.bounds
        reach = max(high - low for low, high in map(self.interval, self.answers))
        return [
            (Run(self.params.N, 1),),
            (Run(4 * len(self.answers), reach),),
            (Run(J, bounds.M5), Run(self.quotients, bounds.quotient), Run(T4_ROWS, bounds.B4)),
        ]

    def keys(self, group: Group = ARKWORKS) -> tuple[CommitmentKey, CommitmentKey, CommitmentKey]:
        """Keys of C_s, C_V and C_R."""
        return (
            commitment_key(_PURPOSES[0], self.params.N, group),
            commitment_key(_PURPOSES[1], 4 * len(self.answers), group),
            commitment_key(_PURPOSES[2], J + self.quotients + T4_ROWS, group),
        )

    def secret_commitment(self, group: Group = ARKWORKS) -> Point:
        """C_s = C_{s+} - C_{s-}. Raises DecodeError."""
        return group.add(group.decode(self.C_plus), group.negate(group.decode(self.C_minus)))

    def segments(self, C_V: Point, C_R: Point, group: Group = ARKWORKS) -> list[LinearSegment]:
        """What T1 opens."""
        commitments = (self.secret_commitment(group), C_V, C_R)
        parts = zip(self.keys(group), commitments, self.shapes(), strict=True)
        return [LinearSegment(key, point, runs) for key, point, runs in parts]

    def squares(self) -> QuadraticSystem:
        """4 d (w - d) + 1 = x^2 + y^2 + z^2 for every answer, over (d, x, y, z) of each."""
        system = QuadraticSystem(4 * len(self.answers))
        for at, (low, high) in enumerate(map(self.interval, self.answers)):
            d = 4 * at
            roots = [(i, i, -1) for i in range(d + 1, d + 4)]
            system.add([(d, d, -4), *roots], [(d, 4 * (high - 1 - low))], 1)
        return system


@dataclass(frozen=True)
class DisclosureProof:
    """All prover messages, in order; about 90 kB for one answer, and some 300 bytes for each further one."""

    C_V: Point
    C_R: Point
    z: tuple[int, ...]
    xi: tuple[int, ...]
    opening: LinearProof
    squares: QuadraticProof

    def encode(self, statement: DisclosureStatement, group: Group = ARKWORKS) -> bytes:
        """Wire form; every length follows from the statement."""
        bounds = statement.bounds
        head = _MAGIC + group.encode(self.C_V) + group.encode(self.C_R)
        head += pack_integers(self.z, _width(bounds.M5), signed=True)
        head += pack_integers(self.xi, _width(bounds.B4), signed=True)
        return head + self.opening.encode(group, statement.shapes()) + self.squares.encode(group)

    @staticmethod
    def decode(statement: DisclosureStatement, data: bytes, group: Group = ARKWORKS) -> DisclosureProof:
        """Strict inverse of `encode`. Raises DecodeError for anything but a proof of this shape."""
        bounds = statement.bounds
        reader = Reader(_WHAT, data)
        reader.expect(_MAGIC)
        C_V, C_R = reader.points(group, 2)
        z = tuple(reader.integers(J, _width(bounds.M5), signed=True))
        xi = tuple(reader.integers(T4_ROWS, _width(bounds.B4), signed=True))
        opening = LinearProof.read(reader, group, statement.shapes())
        squares = QuadraticProof.read(reader, group, 1, 4 * len(statement.answers))
        reader.end()
        return DisclosureProof(C_V, C_R, z, xi, opening, squares)


def _width(bound: int) -> int:
    """Bytes of a signed integer of magnitude at most `bound`."""
    return bound.bit_length() // 8 + 1


class Coefficients:
    """c0 and c1 of every answer of a statement, read from results whose digests were compared.

    Raises VerificationFailed(`disclosure.result`) for a result with another digest, or without that coefficient.
    """

    def __init__(self, statement: DisclosureStatement, results: Results) -> None:
        self._statement = statement
        params = statement.params
        loaded: dict[bytes, ResultCiphertext] = {}
        self.c0 = np.empty((len(statement.answers), params.L), dtype=np.int64)
        """(n, L): residues of the published coefficient, or of the difference of two."""
        self._places: dict[tuple[bytes, ...], list[int]] = {}
        for at, answer in enumerate(statement.answers):
            parts = []
            for digest in answer.results:
                if digest not in loaded:
                    loaded[digest] = _loaded(params, digest, results)
                parts.append(_coefficient(loaded[digest], answer.position))
            q = np.array(params.primes, dtype=np.int64)
            self.c0[at] = parts[0] if len(parts) == 1 else (parts[0] - parts[1]) % q
            self._places.setdefault(answer.results, []).append(at)
        self._c1: Mapping[tuple[bytes, ...], npt.NDArray[np.int64]] = {
            key: _first_component(params, [loaded[digest].c1 for digest in key]) for key in self._places
        }

    def inner_products(self, s: npt.NDArray[np.int64]) -> list[list[int]]:
        """<a_k, s> over the integers, for every answer and prime; a_k has entries in (-q, q)."""
        N = self._statement.params.N
        out: list[list[int]] = [[] for _ in self._statement.answers]
        for key, places in self._places.items():
            for at in places:
                position = self._statement.answers[at].position
                for c1 in self._c1[key]:
                    # (c1 s)[k] = sum_{j <= k} c1[k - j] s[j] - sum_{j > k} c1[N + k - j] s[j]; below 2^50.
                    row = np.concatenate([c1[: position + 1][::-1], -c1[position + 1 :][::-1]])
                    assert row.size == N
                    out[at].append(int(row @ s))
        return out

    def folded(self, weights: Sequence[Sequence[int]]) -> list[int]:
        """sum over answers k and primes l of weights[k][l] a_{k,l}, mod r: N coefficients of s."""
        N = self._statement.params.N
        ring = fmpz_mod_poly_ctx(fmpz_mod_ctx(ORDER))
        total = ring.zero()
        for key, places in self._places.items():
            for level, c1 in enumerate(self._c1[key]):
                sparse = [0] * N
                for at in places:
                    position = self._statement.answers[at].position
                    sparse[position] = (sparse[position] + weights[at][level]) % ORDER
                # <w, c1 s> = <w c1(1/X), s>, and 1/X = -X^(N-1) in the ring.
                values = c1.tolist()
                reverse = [values[0], *(-x % ORDER for x in values[:0:-1])]
                total += ring(sparse) * ring(reverse)
        product = [int(x) for x in total.coeffs()]
        product += [0] * (2 * N - len(product))
        return [(low - high) % ORDER for low, high in zip(product[:N], product[N:], strict=True)]


def _loaded(params: ParameterSet, digest: bytes, results: Results) -> ResultCiphertext:
    found = results(digest)
    try:
        same = result_digest(params, found) == digest
    except UsageError as error:
        raise VerificationFailed("disclosure.result", str(error)) from error
    if not same:
        raise VerificationFailed("disclosure.result", f"the result has not the digest {digest.hex()}")
    return found


def _coefficient(result: ResultCiphertext, position: int) -> npt.NDArray[np.int64]:
    place = int(np.searchsorted(result.positions, position))
    if place == result.positions.size or result.positions[place] != position:
        raise VerificationFailed("disclosure.result", f"the result does not publish coefficient {position}")
    column: npt.NDArray[np.int64] = result.c0[:, place].astype(np.int64)
    return column


def _first_component(params: ParameterSet, parts: Sequence[npt.NDArray[np.uint64]]) -> npt.NDArray[np.int64]:
    first = parts[0].astype(np.int64)
    if len(parts) == 1:
        return first
    q = np.array(params.primes, dtype=np.int64)[:, None]
    difference: npt.NDArray[np.int64] = (first - parts[1].astype(np.int64)) % q
    return difference


@dataclass(frozen=True)
class Challenges:
    """R (J x 4n, ternary) and chi (five rows over the quotients), drawn once C_V and C_R are absorbed."""

    rows: npt.NDArray[np.int8]
    chi: list[list[int]]

    @staticmethod
    def draw(transcript: Transcript, statement: DisclosureStatement) -> Challenges:
        columns, quotients = 4 * len(statement.answers), statement.quotients
        rows = ternary_rows(transcript.challenge_bytes(b"R", 32), J, columns)
        flat = transcript.challenge_integers(b"chi", T4_ROWS * quotients, KAPPA)
        return Challenges(rows, [flat[i * quotients : (i + 1) * quotients] for i in range(T4_ROWS)])


def absorb_commitments(transcript: Transcript, group: Group, C_V: Point, C_R: Point) -> None:
    """C_V and C_R, before the rows are drawn."""
    transcript.absorb_point(b"C_V", group.encode(C_V))
    transcript.absorb_point(b"C_R", group.encode(C_R))


def absorb_values(transcript: Transcript, z: Sequence[int], xi: Sequence[int]) -> None:
    """The published values, before zeta is drawn."""
    transcript.absorb_integers(b"z", z)
    transcript.absorb_integers(b"xi", xi)


@dataclass(frozen=True)
class Form:
    """The folded linear form: coefficients of (s), (v), (nu, K, T4 masks), and its right side."""

    alphas: tuple[list[int], list[int], list[int]]
    beta: int

    @staticmethod
    def fold(
        transcript: Transcript,
        statement: DisclosureStatement,
        coefficients: Coefficients,
        challenges: Challenges,
        z: Sequence[int],
        xi: Sequence[int],
    ) -> Form:
        """One power of zeta a relation: answers by primes, then the J rows of T5, then those of T4."""
        params, count = statement.params, len(statement.answers)
        zeta = transcript.challenge_scalar(b"zeta")
        weights = powers(zeta, statement.quotients + J + T4_ROWS)
        w5 = weights[statement.quotients : statement.quotients + J]
        w4 = weights[statement.quotients + J :]
        equations = [weights[k * params.L : (k + 1) * params.L] for k in range(count)]
        alpha_v = _ternary_sum(w5, challenges.rows)
        alpha_K: list[int] = []
        beta = inner(w5, z) + inner(w4, xi)
        for k, answer in enumerate(statement.answers):
            # d + lo = c0 + <a, s> - q K, as <a, s> - d - q K = lo - c0.
            low, _ = statement.interval(answer)
            alpha_v[4 * k] = (alpha_v[4 * k] - sum(equations[k])) % ORDER
            for level, (q, weight) in enumerate(zip(params.primes, equations[k], strict=True)):
                beta += weight * (low - int(coefficients.c0[k, level]))
                loose = sum(w * row[k * params.L + level] for w, row in zip(w4, challenges.chi, strict=True))
                alpha_K.append((loose - q * weight) % ORDER)
        return Form((coefficients.folded(equations), alpha_v, [*w5, *alpha_K, *w4]), beta % ORDER)


def _ternary_sum(weights: Sequence[int], rows: npt.NDArray[np.int8]) -> list[int]:
    """sum_j weights[j] rows[j], mod r."""
    out = [0] * rows.shape[1]
    for weight, row in zip(weights, rows.tolist(), strict=True):
        out = [x + weight * sign for x, sign in zip(out, row, strict=True)]
    return [x % ORDER for x in out]


def verify_disclosure(statement: DisclosureStatement, data: bytes, results: Results, group: Group = ARKWORKS) -> None:
    """Check a disclosure.

    The caller has verified the key's certificate, the prediction whose `results` these are, that the outputs of a
    difference cannot wrap mod Q together, and that records, handles, positions and grant belong together.
    `results(digest)` returns the result of a digest, which is compared here.

    Raises:
        DecodeError: `data` is not the encoding of a proof of this shape, or a commitment is no point.
        VerificationFailed: `disclosure.result`, `disclosure.range` for a published value beyond its bound,
            `linear.form`, `linear.opening`, `quadratic.opening`, `quadratic.relation`.
    """
    bounds = statement.bounds
    proof = DisclosureProof.decode(statement, data, group)
    if any(abs(x) > bounds.M5 for x in proof.z) or any(abs(x) > bounds.B4 for x in proof.xi):
        raise VerificationFailed("disclosure.range", "a published value exceeds its bound")
    coefficients = Coefficients(statement, results)
    segments = statement.segments(proof.C_V, proof.C_R, group)
    transcript = statement.start()
    absorb_commitments(transcript, group, proof.C_V, proof.C_R)
    challenges = Challenges.draw(transcript, statement)
    absorb_values(transcript, proof.z, proof.xi)
    form = Form.fold(transcript, statement, coefficients, challenges, proof.z, proof.xi)
    proof.opening.verify(transcript, segments, form.alphas, form.beta)
    proof.squares.verify(transcript, [Segment(segments[1].key, proof.C_V)], statement.squares())
