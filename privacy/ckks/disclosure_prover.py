"""The clinic's side of a disclosure (docs/spec/protocol.md, section 6)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from privacy.ckks.disclosure import (
    Challenges,
    Coefficients,
    DisclosureProof,
    DisclosureStatement,
    Form,
    Results,
    absorb_commitments,
    absorb_values,
)
from privacy.ckks.key_certificate import KeyOpenings
from privacy.errors import UsageError
from privacy.zk.group import ARKWORKS, ORDER, Point
from privacy.zk.quadratic import Segment, prove_quadratic
from privacy.zk.randomness import SecretStream, random_scalar
from privacy.zk.relations import T4_ROWS, J, inner, prove_linear
from privacy.zk.squares import three_squares
from privacy.zk.transcript import Transcript

__all__ = ["prove_disclosure"]

_MAX_ATTEMPTS = 200
"""An honest attempt passes with probability 0.8: this many failures mean a bug, not bad luck."""

IntArray = npt.NDArray[np.int64]


def prove_disclosure(statement: DisclosureStatement, results: Results, s: IntArray, openings: KeyOpenings) -> bytes:
    """The proof of a true statement about answers under the key (s, openings).

    s: int64 (N,), ternary. `results(digest)` returns the result of a digest. No decryption is returned or kept.

    Raises:
        UsageError: the statement is not true of the answers, or s and its openings are not those of C_{s+} - C_{s-}.
        VerificationFailed: `disclosure.result`.
    """
    params, group = statement.params, ARKWORKS
    if s.dtype != np.int64 or s.shape != (params.N,) or int(np.abs(s).max()) > 1:
        raise UsageError(f"a secret key has {params.N} int64 coefficients from -1 to 1")
    key_s, key_V, _ = statement.keys()
    rho_s = (openings.rho_plus - openings.rho_minus) % ORDER
    secret = [int(x) for x in s]
    if not group.equal(key_s.commit(secret, rho_s), statement.secret_commitment()):
        raise UsageError("the secret key is not that of the key entry")
    coefficients = Coefficients(statement, results)
    v, quotients = _witness(statement, coefficients, s)
    stream = SecretStream()
    for _ in range(_MAX_ATTEMPTS):
        # Nothing of an attempt that fails is ever shown; masks and commitments are drawn anew.
        transcript = statement.start()
        rho_V, rho_R = random_scalar(), random_scalar()
        C_V = key_V.commit(v, rho_V)
        found = _attempt(statement, transcript, stream, v, quotients, C_V, rho_R)
        if found is not None:
            break
    else:
        raise UsageError("the proof restarted too often: the answers do not fit the statement's bounds")
    C_R, loose, challenges, z, xi = found
    form = Form.fold(transcript, statement, coefficients, challenges, z, xi)
    segments = statement.segments(C_V, C_R)
    opening = prove_linear(transcript, segments, form.alphas, form.beta, [secret, v, loose], [rho_s, rho_V, rho_R])
    squares = prove_quadratic(transcript, [Segment(key_V, C_V)], statement.squares(), [v], [rho_V])
    return DisclosureProof(C_V, C_R, z, xi, opening, squares).encode(statement)


def _witness(statement: DisclosureStatement, coefficients: Coefficients, s: IntArray) -> tuple[list[int], list[int]]:
    """v = (d, x, y, z) of every answer, and the quotients, by answers and primes."""
    params, stream = statement.params, SecretStream()
    v: list[int] = []
    quotients: list[int] = []
    for k, products in enumerate(coefficients.inner_products(s)):
        sums = [int(c0) + product for c0, product in zip(coefficients.c0[k], products, strict=True)]
        M = _centred(params.primes, sums)
        low, high = statement.interval(statement.answers[k])
        if not low <= M < high:
            raise UsageError("the statement is not true of the answer: there is nothing to prove")
        d = M - low
        v += [d, *three_squares(4 * d * (high - 1 - low - d) + 1, stream)]
        quotients += [(total - M) // q for total, q in zip(sums, params.primes, strict=True)]
    return v, quotients


def _centred(primes: tuple[int, ...], values: list[int]) -> int:
    """The integer in (-Q/2, Q/2) with these residues."""
    Q, total = 1, 0
    for q in primes:
        Q *= q
    for q, value in zip(primes, values, strict=True):
        other = Q // q
        total += value * other * pow(other, -1, q)
    total %= Q
    return total - Q if total > Q // 2 else total


def _attempt(
    statement: DisclosureStatement,
    transcript: Transcript,
    stream: SecretStream,
    v: list[int],
    quotients: list[int],
    C_V: Point,
    rho_R: int,
) -> tuple[Point, list[int], Challenges, tuple[int, ...], tuple[int, ...]] | None:
    """Steps 1 and 2; None when an abort test fails (all are taken together)."""
    bounds, (_, _, key_R) = statement.bounds, statement.keys()
    nu = [stream.below(2 * bounds.M5 + 1) - bounds.M5 for _ in range(J)]
    t4 = [stream.below(2 * bounds.B4 + 1) - bounds.B4 for _ in range(T4_ROWS)]
    loose = [*nu, *quotients, *t4]
    C_R = key_R.commit(loose, rho_R)
    absorb_commitments(transcript, key_R.group, C_V, C_R)
    challenges = Challenges.draw(transcript, statement)
    projections = [inner(row, v) for row in challenges.rows.tolist()]
    z = tuple(mask + x for mask, x in zip(nu, projections, strict=True))
    xi = tuple(mask + inner(row, quotients) for mask, row in zip(t4, challenges.chi, strict=True))
    if max(abs(x) for x in projections) > bounds.T5 or max(abs(x) for x in z) > bounds.M5 - bounds.T5:
        return None
    if max(abs(x) for x in xi) > bounds.B4 - bounds.honest4:
        return None
    absorb_values(transcript, z, xi)
    return C_R, loose, challenges, z, xi
