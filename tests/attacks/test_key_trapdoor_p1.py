"""Trap: a p1 chosen by the clinic gives away all weights from one result (docs/spec/protocol.md, section 3).

The key looks perfectly short: s ternary, e_pk small, p0 = -p1 s + e_pk. A verifier that took p1 from the clinic would
accept it. p1 is derived from public names instead, and nothing in the interface takes one.
"""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest
from flint import nmod_mat, nmod_poly

from privacy.ckks import key_certificate as module
from privacy.ckks.key_certificate import KeyCertificate, KeyStatement, certify_key, verify_key_certificate
from privacy.ckks.keys import derive_p1
from privacy.ckks.params import parameter_set
from privacy.ckks.polynomial import centred_from_residues, negacyclic_multiply_mod, residues_of
from privacy.errors import UsageError, VerificationFailed
from privacy.zk.randomness import SecretStream

PARAMS = replace(parameter_set("linear-4096"), name="test-64", N=64)
N, d, b = PARAMS.N, 30, 28
PRIMES = np.array(PARAMS.primes, dtype=np.uint64)[:, None]
STEP = 1 << 20
"""The clinic's chosen inputs: c1 of feature i is 2^20 X^i."""


def inverse(f: list[int], q: int) -> list[int]:
    """1/f mod (X^N+1, q)."""
    matrix = [[f[r - c] if r >= c else -f[N + r - c] for c in range(N)] for r in range(N)]
    unit = nmod_mat(N, 1, [1] + [0] * (N - 1), q)
    solution = nmod_mat(N, N, [x % q for row in matrix for x in row], q).solve(unit)
    return [int(solution[i, 0]) for i in range(N)]


def product(a: list[int], c: list[int], q: int) -> list[int]:
    out = [int(x) for x in (nmod_poly([x % q for x in a], q) * nmod_poly([x % q for x in c], q)).coeffs()]
    out += [0] * (2 * N - len(out))
    return [(out[i] - out[N + i]) % q for i in range(N)]


def short_fraction() -> tuple[np.ndarray, np.ndarray]:
    """(f, p1) with p1 = g/f mod every prime, f and g ternary."""
    stream = SecretStream()
    g = stream.ternary(N).tolist()
    while True:
        f = stream.ternary(N)
        try:
            rows = [product(g, inverse(f.tolist(), q), q) for q in PARAMS.primes]
        except ZeroDivisionError:
            continue
        return f, np.array(rows, dtype=np.uint64)


def one() -> np.ndarray:
    return np.eye(1, N, dtype=np.int64)[0]


def server_c1(p1: np.ndarray, weights: list[int]) -> np.ndarray:
    """c1 of an honest server's re-randomised result on the clinic's chosen inputs."""
    stream = SecretStream()
    plain = np.zeros(N, dtype=np.int64)
    plain[:d] = np.array(weights, dtype=np.int64) * STEP
    masked = negacyclic_multiply_mod(PARAMS, p1, stream.ternary(N))
    return (residues_of(PARAMS, plain) + masked + residues_of(PARAMS, stream.centred_binomial(N))) % PRIMES


def read_weights(f: np.ndarray, c1: np.ndarray) -> list[int]:
    """f c1 = 2^20 f W + (g u + f e1), short in the last part: round it away, divide by f."""
    scaled = centred_from_residues(PARAMS, negacyclic_multiply_mod(PARAMS, c1, f))
    rounded = [(x + STEP // 2) // STEP for x in scaled]
    q = PARAMS.primes[0]
    weights = product(rounded, inverse(f.tolist(), q), q)
    return [x - q if x > q // 2 else x for x in weights[:d]]


@pytest.mark.parametrize("trapdoor", ["zero", "short fraction"])
def test_a_chosen_p1_gives_away_every_weight_and_is_refused(trapdoor):
    stream = SecretStream()
    s, e_pk = stream.ternary(N), stream.centred_binomial(N)
    f, chosen = (one(), np.zeros((PARAMS.L, N), dtype=np.uint64)) if trapdoor == "zero" else short_fraction()
    p0 = (residues_of(PARAMS, e_pk) + PRIMES - negacyclic_multiply_mod(PARAMS, chosen, s)) % PRIMES

    # A verifier that takes p1 from the clinic is satisfied...
    taken = KeyStatement(PARAMS, "mallory", 0, p0, chosen)
    bits = (((e_pk + 32) >> np.arange(6)[:, None]) & 1).reshape(-1).tolist()
    data, _ = module._prove(taken, (s > 0).astype(int).tolist(), (s < 0).astype(int).tolist(), bits)
    KeyCertificate.decode(PARAMS, data).verify(taken)
    # ...and one result under this key tells all weights.
    weights = [stream.below(1 << (b + 1)) - (1 << b) for _ in range(d)]
    assert read_weights(f, server_c1(chosen, weights)) == weights

    # Ours derives p1: the certificate is refused, none can be made, and the same reading finds nothing.
    with pytest.raises(VerificationFailed):
        verify_key_certificate(PARAMS, "mallory", 0, p0, data)
    with pytest.raises(UsageError):
        certify_key(PARAMS, "mallory", 0, p0, s, e_pk)
    derived = derive_p1(PARAMS, "mallory", 0)
    found = read_weights(f, server_c1(derived, weights))
    assert not any(x == w for x, w in zip(found, weights, strict=True))


def test_no_public_function_takes_a_p1():
    for function in (certify_key, verify_key_certificate):
        assert "p1" not in inspect.signature(function).parameters
