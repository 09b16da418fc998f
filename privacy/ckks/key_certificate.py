"""Key certificate: a public key that was made as it should be (docs/spec/protocol.md, section 3).

    PK{(s+, s-, e_pk, rho): C_{s+} = Com(s+), C_{s-} = Com(s-) on the same generators, s+ and s- are bits with
       s+ s- = 0, -32 <= e_pk < 32, and p0 + p1 (s+ - s-) - e_pk = 0 mod q_l for every data prime}.

So s = s+ - s- is exactly ternary and C_s = C_{s+} - C_{s-} commits to it; approximate shortness would be worthless,
because a slack of 2^20 already lets a clinic decrypt to any score. p1 is derived from the key's name, never sent.

The equation mod q_l is checked by rows that are uniform in [0, q_l)^N and drawn after s and e_pk were committed: a
wrong p0 passes one with probability 1/q_l. For every row, over the integers (T2):

    X = (<row, p0> mod q_l) + <corr(row, p1), s> - <row, e_pk> = q_l K,    <corr(row, p1), s> = <row, p1 s>.

The quotients K are committed and shown to be loosely short by T4: five rows of challenges below 2^kappa, masks,
restarts. Everything else (bits, products, row equations, the definition of xi) is one proof X.

Hidden: s, e_pk, K, perfectly. Not hidden: the sizes, and that the key is well made. Soundness error: 2^-136 for the
rows, 2^-170 for T4, (9N + 13)/r + 2/r for X at two primes of 36 bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from typing import Final

import numpy as np
from flint import nmod_poly
from numpy.typing import NDArray

from privacy.ckks.bounds import E_PK
from privacy.ckks.canonical import check_residues, public_key_digest
from privacy.ckks.keys import derive_p1
from privacy.ckks.params import ParameterSet
from privacy.ckks.polynomial import negacyclic_multiply_mod, residues_of
from privacy.errors import UsageError, VerificationFailed
from privacy.zk.group import ARKWORKS, ORDER, Group, Point
from privacy.zk.pedersen import CommitmentKey, commitment_key
from privacy.zk.quadratic import QuadraticProof, QuadraticSystem, Segment, prove_quadratic
from privacy.zk.randomness import SecretStream, expand, random_scalar
from privacy.zk.relations import KAPPA, T4_ROWS, check_no_wrap, inner
from privacy.zk.transcript import Transcript
from privacy.zk.wire import Reader, pack_integers

__all__ = [
    "KeyBounds",
    "KeyCertificate",
    "KeyOpenings",
    "KeyStatement",
    "VerifiedKey",
    "certify_key",
    "derive_key_bounds",
    "verify_key_certificate",
]

Residues = NDArray[np.uint64]

PURPOSES: Final = ("key/s", "key/e", "key/quotient")
"""Generator purposes of s+ and s- (shared), of the bits of e_pk + 32, of quotients and T4 masks."""

ERROR_BITS: Final = (2 * E_PK).bit_length() - 1
"""e_pk + 32 has six bits."""

ROW_ERROR_BITS: Final = 136
"""The rows of each prime together miss a false equation with probability at most 2^-136."""

RHO4: Final = 1024
"""T4 masks exceed the honest value this many times: five rows pass with probability above 0.995."""

_TAG: Final = b"sealproof/v1/key-certificate\n"
_WHAT: Final = "key certificate"
_VERIFIER: Final = object()


@dataclass(frozen=True)
class KeyBounds:
    """Derived numbers of a key certificate; integers, the same for prover and verifier.

    `rows`: row equations of each prime. `x_max`: largest |X| that ternary s and 6-bit e_pk + 32 allow. `quotient`:
    largest |K| of an honest prover. `honest4`, `B4`: honest and accepted T4 values. `no_wrap`: left side of T2's
    condition, below r.
    """

    rows: tuple[int, ...]
    x_max: int
    quotient: int
    honest4: int
    B4: int
    no_wrap: int

    @property
    def quotients(self) -> int:
        """Number of row equations and so of quotients."""
        return sum(self.rows)

    @property
    def xi_bytes(self) -> int:
        """Bytes of a signed T4 value on the wire."""
        return self.B4.bit_length() // 8 + 1


def derive_key_bounds(params: ParameterSet) -> KeyBounds:
    """The bounds of every key certificate of a parameter set.

    Raises:
        VerificationFailed: `key.primes` if a T4 challenge could be a multiple of a prime, `no-wrap` if an integer
            equation could hold in F_r only.
    """
    if min(params.primes) <= 1 << KAPPA:
        raise VerificationFailed("key.primes", f"a data prime of {params.name} is not above 2^{KAPPA}")
    rows = tuple(_row_count(q) for q in params.primes)
    # |X| < q + N q |s| + N q |e_pk|, and K = X / q.
    multiple = 1 + params.N * (1 + E_PK)
    x_max = multiple * max(params.primes)
    honest4 = ((1 << KAPPA) - 1) * sum(rows) * multiple
    B4 = RHO4 * honest4
    no_wrap = max(check_no_wrap(x_max, B4, q) for q in params.primes)
    return KeyBounds(rows, x_max, multiple, honest4, B4, no_wrap)


def _row_count(q: int) -> int:
    """Smallest n with q^n >= 2^136."""
    count, reach = 0, 1
    while reach < 1 << ROW_ERROR_BITS:
        count, reach = count + 1, reach * q
    return count


@dataclass(frozen=True, eq=False)
class KeyStatement:
    """Everything public that a key certificate is about.

    p0 and p1: uint64 (L, N), residues. A verifier derives p1 from the names. `purposes` are the generator tags.
    Raises UsageError if p0 or p1 is not canonical.
    """

    params: ParameterSet
    clinic: str
    number: int
    p0: Residues
    p1: Residues
    purposes: tuple[str, str, str] = PURPOSES

    def __post_init__(self) -> None:
        for name, array in (("public key p0", self.p0), ("public key p1", self.p1)):
            check_residues(self.params, array, (self.params.L, self.params.N), name)

    def absorb(self, transcript: Transcript) -> None:
        """Absorb every field, and every number derived from them."""
        bounds = derive_key_bounds(self.params)
        transcript.absorb(b"parameter set", self.params.encode())
        transcript.absorb(b"clinic", self.clinic.encode())
        transcript.absorb_integers(b"key number", [self.number])
        transcript.absorb(b"p0", public_key_digest(self.params, self.p0))
        transcript.absorb(b"p1", self.p1.astype("<u8").tobytes())
        for purpose in self.purposes:
            transcript.absorb(b"generators", purpose.encode())
        transcript.absorb_integers(b"bounds", [E_PK, KAPPA, T4_ROWS, *bounds.rows, bounds.x_max, bounds.B4])

    def transcript(self) -> Transcript:
        """A transcript that has absorbed this statement and nothing else."""
        transcript = Transcript(b"key certificate")
        self.absorb(transcript)
        return transcript


@dataclass(frozen=True)
class KeyCertificate:
    """Commitments, T4 values and the proof X; about 1.05 MB encoded at N = 4096."""

    C_plus: Point
    C_minus: Point
    C_e: Point
    C_K: Point
    xi: tuple[int, ...]
    proof: QuadraticProof

    def encode(self, params: ParameterSet, group: Group = ARKWORKS) -> bytes:
        """Canonical bytes; all lengths follow from the parameter set."""
        points = b"".join(group.encode(point) for point in (self.C_plus, self.C_minus, self.C_e, self.C_K))
        xi = pack_integers(self.xi, derive_key_bounds(params).xi_bytes, signed=True)
        return _TAG + points + xi + self.proof.encode(group)

    @staticmethod
    def decode(params: ParameterSet, data: bytes, group: Group = ARKWORKS) -> KeyCertificate:
        """The certificate whose canonical bytes are `data`. Raises DecodeError."""
        bounds = derive_key_bounds(params)
        reader = Reader(_WHAT, data)
        reader.expect(_TAG)
        C_plus, C_minus, C_e, C_K = reader.points(group, 4)
        xi = tuple(reader.integers(T4_ROWS, bounds.xi_bytes, signed=True))
        size = (2 + ERROR_BITS) * params.N + bounds.quotients + T4_ROWS
        proof = QuadraticProof.read(reader, group, 4, size)
        reader.end()
        return KeyCertificate(C_plus, C_minus, C_e, C_K, xi, proof)

    def verify(self, statement: KeyStatement, group: Group = ARKWORKS) -> None:
        """Check the certificate against a statement; `verify_key_certificate` is what builds one safely.

        Raises:
            VerificationFailed: `key.quotients`, `quadratic.opening`, `quadratic.relation`, or a bound that fails.
        """
        bounds = derive_key_bounds(statement.params)
        if any(abs(value) > bounds.B4 for value in self.xi):
            raise VerificationFailed("key.quotients", f"a T4 value exceeds {bounds.B4} in magnitude")
        transcript = statement.transcript()
        _absorb_points(transcript, group, C_plus=self.C_plus, C_minus=self.C_minus, C_e=self.C_e)
        equations = _equations(transcript, statement)
        _absorb_points(transcript, group, C_K=self.C_K)
        chi = _loose_challenges(transcript, bounds.quotients)
        transcript.absorb_integers(b"xi", self.xi)
        system = _system(statement.params, equations, chi, self.xi)
        commitments = (self.C_plus, self.C_minus, self.C_e, self.C_K)
        keys = _commitment_keys(statement, group)
        segments = [Segment(key, point) for key, point in zip(keys, commitments, strict=True)]
        self.proof.verify(transcript, segments, system)


@dataclass(frozen=True)
class KeyOpenings:
    """Blindings of C_{s+} and C_{s-}. Secret: a clinic keeps them beside its key, for disclosures."""

    rho_plus: int = field(repr=False)
    rho_minus: int = field(repr=False)


@dataclass(frozen=True, eq=False)
class VerifiedKey:
    """A public key whose certificate was verified; only `verify_key_certificate` makes one.

    p0 and p1: uint64 (L, N), read-only. C_plus - C_minus commits to the ternary s. `digest`: SHA-256 of the
    certificate's bytes, as the key entry carries it.
    """

    params: ParameterSet
    clinic: str
    number: int
    p0: Residues
    p1: Residues
    C_plus: Point
    C_minus: Point
    digest: bytes
    made_by: InitVar[object]

    def __post_init__(self, made_by: object) -> None:
        if made_by is not _VERIFIER:
            raise UsageError("a VerifiedKey is made by verify_key_certificate only")


@dataclass(frozen=True)
class _Equation:
    """One row equation mod q: constant + <corr, s> - <row, e_pk> = q K."""

    q: int
    row: list[int] = field(repr=False)
    corr: list[int] = field(repr=False)
    constant: int

    def quotient(self, s: Sequence[int], e_pk: Sequence[int]) -> int:
        """K; the caller has checked that the key satisfies the equation mod q."""
        return (self.constant + inner(self.corr, s) - inner(self.row, e_pk)) // self.q


def certify_key(
    params: ParameterSet, clinic: str, number: int, p0: Residues, s: NDArray[np.int64], e_pk: NDArray[np.int64]
) -> tuple[bytes, KeyOpenings]:
    """Certificate of p0 = -p1 s + e_pk under the derived p1, and the secret openings of C_{s+}, C_{s-}.

    p0: uint64 (L, N). s, e_pk: int64 (N,), s ternary, -32 <= e_pk < 32.

    Raises:
        UsageError: the arguments are no such key pair, or p0 is not canonical.
    """
    statement = KeyStatement(params, clinic, number, p0, derive_p1(params, clinic, number))
    for name, vector, low, high in (("s", s, -1, 1), ("e_pk", e_pk, -E_PK, E_PK - 1)):
        if vector.dtype != np.int64 or vector.shape != (params.N,) or vector.min() < low or vector.max() > high:
            raise UsageError(f"{name}: expected {params.N} int64 coefficients from {low} to {high}")
    q = np.array(params.primes, dtype=np.uint64)[:, None]
    if not np.array_equal((p0 + negacyclic_multiply_mod(params, statement.p1, s)) % q, residues_of(params, e_pk)):
        raise UsageError("p0 is not -p1 s + e_pk under the p1 of this parameter set, clinic and key number")
    bits = ((e_pk + E_PK) >> np.arange(ERROR_BITS)[:, None]) & 1
    return _prove(statement, (s > 0).astype(int).tolist(), (s < 0).astype(int).tolist(), bits.reshape(-1).tolist())


def _prove(
    statement: KeyStatement, plus: list[int], minus: list[int], error_bits: list[int]
) -> tuple[bytes, KeyOpenings]:
    """The proof for s+, s- and the bits of e_pk + 32, bit i of coefficient k at place i N + k."""
    N = statement.params.N
    keys = _commitment_keys(statement, ARKWORKS)
    witness = [plus, minus, error_bits]
    blindings = [random_scalar() for _ in witness]
    C_plus, C_minus, C_e = (key.commit(part, rho) for key, part, rho in zip(keys[:3], witness, blindings, strict=True))
    transcript = statement.transcript()
    _absorb_points(transcript, ARKWORKS, C_plus=C_plus, C_minus=C_minus, C_e=C_e)
    equations = _equations(transcript, statement)
    s = [x - y for x, y in zip(plus, minus, strict=True)]
    e_pk = [sum(bit << i for i, bit in enumerate(error_bits[k::N])) - E_PK for k in range(N)]
    quotients = [equation.quotient(s, e_pk) for equation in equations]
    loose = _prove_loose(transcript, keys[3], derive_key_bounds(statement.params), quotients)
    segments = [Segment(key, point) for key, point in zip(keys, (C_plus, C_minus, C_e, loose.C_K), strict=True)]
    system = _system(statement.params, equations, loose.chi, loose.xi)
    witness.append([*quotients, *loose.masks])
    proof = prove_quadratic(transcript, segments, system, witness, [*blindings, loose.rho])
    certificate = KeyCertificate(C_plus, C_minus, C_e, loose.C_K, loose.xi, proof)
    return certificate.encode(statement.params), KeyOpenings(blindings[0], blindings[1])


@dataclass(frozen=True)
class _Loose:
    """A finished T4: commitment to quotients and masks, challenges, values; masks and blinding are secret."""

    C_K: Point
    chi: list[list[int]]
    xi: tuple[int, ...]
    masks: list[int] = field(repr=False)
    rho: int = field(repr=False)


def _prove_loose(transcript: Transcript, key: CommitmentKey, bounds: KeyBounds, quotients: list[int]) -> _Loose:
    """T4. Masks and their commitment are drawn anew on each attempt, and an attempt that fails is never shown."""
    stream = SecretStream()
    while True:
        attempt = transcript.copy()
        masks = [stream.below(2 * bounds.B4 + 1) - bounds.B4 for _ in range(T4_ROWS)]
        rho = random_scalar()
        C_K = key.commit([*quotients, *masks], rho)
        _absorb_points(attempt, key.group, C_K=C_K)
        chi = _loose_challenges(attempt, bounds.quotients)
        xi = tuple(mask + inner(row, quotients) for mask, row in zip(masks, chi, strict=True))
        if all(abs(value) <= bounds.B4 - bounds.honest4 for value in xi):
            attempt.absorb_integers(b"xi", xi)
            transcript.adopt(attempt)
            return _Loose(C_K, chi, xi, masks, rho)


def verify_key_certificate(
    params: ParameterSet, clinic: str, number: int, p0: Residues, data: bytes, group: Group = ARKWORKS
) -> VerifiedKey:
    """Verify a key certificate against the key entry's names and p0; p1 is derived here.

    p0: uint64 (L, N). Raises:
        DecodeError: `data` is not the canonical encoding of a certificate.
        VerificationFailed: `key.p0` if p0 is not canonical, else the check that failed.
        UsageError: clinic or number is no valid name of a key.
    """
    p1 = derive_p1(params, clinic, number)
    p0 = p0.copy()
    p0.flags.writeable = False
    try:
        statement = KeyStatement(params, clinic, number, p0, p1)
    except UsageError as error:
        raise VerificationFailed("key.p0", str(error)) from error
    certificate = KeyCertificate.decode(params, data, group)
    certificate.verify(statement, group)
    digest = hashlib.sha256(data).digest()
    return VerifiedKey(params, clinic, number, p0, p1, certificate.C_plus, certificate.C_minus, digest, _VERIFIER)


def _absorb_points(transcript: Transcript, group: Group, **points: Point) -> None:
    for label, point in points.items():
        transcript.absorb_point(label.encode(), group.encode(point))


def _commitment_keys(statement: KeyStatement, group: Group) -> list[CommitmentKey]:
    """Keys of s+, s-, the bits of e_pk + 32, and quotients with T4 masks."""
    N, (for_s, for_e, for_K) = statement.params.N, statement.purposes
    key_s = commitment_key(for_s, N, group)
    key_K = commitment_key(for_K, derive_key_bounds(statement.params).quotients + T4_ROWS, group)
    return [key_s, key_s, commitment_key(for_e, ERROR_BITS * N, group), key_K]


def _equations(transcript: Transcript, statement: KeyStatement) -> list[_Equation]:
    """Draw the rows of every prime and form their equations."""
    params = statement.params
    out = []
    for level, (q, count) in enumerate(zip(params.primes, derive_key_bounds(params).rows, strict=True)):
        rows = _uniform_rows(transcript.challenge_bytes(b"rows", 32), q, count, params.N).tolist()
        p0, p1 = statement.p0[level].tolist(), statement.p1[level].tolist()
        out += [_Equation(q, row, _correlation(row, p1, q), inner(row, p0) % q) for row in rows]
    return out


def _uniform_rows(seed: bytes, q: int, count: int, N: int) -> Residues:
    """(count, N) independent entries uniform in [0, q): little-endian words of the AES-256-CTR stream, cut to the bits
    of q; those not below q are skipped."""
    needed, mask = count * N, np.uint64((1 << q.bit_length()) - 1)
    length = needed + 64
    while True:
        words = np.frombuffer(expand(seed, 8 * length), dtype="<u8").astype(np.uint64) & mask
        words = words[words < np.uint64(q)]
        if words.size >= needed:
            return words[:needed].reshape(count, N)
        length *= 2


def _correlation(row: list[int], p1: list[int], q: int) -> list[int]:
    """corr with <corr, s> = <row, p1 s mod X^N+1> mod q for every s: row times p1(1/X), entries in [0, q)."""
    N = len(row)
    reverse = nmod_poly([p1[0], *(q - x for x in p1[:0:-1])], q)
    product = [int(x) for x in (nmod_poly(row, q) * reverse).coeffs()]
    product += [0] * (2 * N - len(product))
    return [(low - high) % q for low, high in zip(product[:N], product[N:], strict=True)]


def _loose_challenges(transcript: Transcript, quotients: int) -> list[list[int]]:
    """T4's rows over the quotients, entries in [0, 2^kappa)."""
    flat = transcript.challenge_integers(b"chi", T4_ROWS * quotients, KAPPA)
    return [flat[i : i + quotients] for i in range(0, len(flat), quotients)]


def _system(
    params: ParameterSet, equations: Sequence[_Equation], chi: Sequence[Sequence[int]], xi: Sequence[int]
) -> QuadraticSystem:
    """All constraints over (s+, s-, bits of e_pk + 32 from the lowest up, K, T4 masks), in the order of the proof."""
    N, bits = params.N, ERROR_BITS * params.N
    errors, quotients = 2 * N, 2 * N + bits
    masks = quotients + len(equations)
    system = QuadraticSystem(masks + len(xi))
    system.add_bits(0, 2 * N)
    system.add_exclusive(0, N, N)
    system.add_bits(errors, bits)
    for number, equation in enumerate(equations):
        coefficients = [*equation.corr, *(-x for x in equation.corr)]
        coefficients += [-(x << bit) for bit in range(ERROR_BITS) for x in equation.row]
        linear = [*enumerate(coefficients), (quotients + number, -equation.q)]
        system.add(linear=linear, constant=equation.constant + E_PK * sum(equation.row))
    for number, (row, value) in enumerate(zip(chi, xi, strict=True)):
        linear = [(masks + number, 1), *((quotients + i, x) for i, x in enumerate(row))]
        system.add(linear=linear, constant=-value % ORDER)
    return system
