"""Trap: a ciphertext commits to a record only under a key that was fixed before it (docs/spec/protocol.md, section 2).

After seeing its records on the ledger, a clinic that knows the model searches for a second, perfectly honest-looking
key under which the same bytes decrypt to a score of its choice. What stops it is the key entry id inside the digest.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from privacy.ckks.canonical import input_digest
from privacy.ckks.key_certificate import VerifiedKey, certify_key, verify_key_certificate
from privacy.ckks.keys import ClinicKeys
from privacy.ckks.params import parameter_set
from privacy.ckks.polynomial import centred_from_residues, negacyclic_multiply_mod, residues_of
from privacy.zk.randomness import SecretStream

PARAMS = replace(parameter_set("linear-4096"), name="test-64", N=64)
N, PATIENT = PARAMS.N, 5
PRIMES = np.array(PARAMS.primes, dtype=np.uint64)[:, None]
MODEL = [3 << 22, -(1 << 23), 5 << 21]
"""Weights 0.75, -0.5, 0.625 at scale 2^24."""
TOLERANCE = 0.5


def encrypt(rng: np.random.Generator, s: np.ndarray, values: np.ndarray) -> np.ndarray:
    c1 = rng.integers(0, PRIMES, (PARAMS.L, N), dtype=np.uint64)
    message = np.rint(values * 2.0**PARAMS.SX).astype(np.int64) + SecretStream().centred_binomial(N)
    c0 = (residues_of(PARAMS, message) + PRIMES - negacyclic_multiply_mod(PARAMS, c1, s)) % PRIMES
    return np.stack([c0, c1])


def score(records: list[np.ndarray], s: np.ndarray) -> float:
    """The patient's score as a client with key s decrypts it."""
    total = 0
    for weight, (c0, c1) in zip(MODEL, records, strict=True):
        plain = (c0 + negacyclic_multiply_mod(PARAMS, c1, s)) % PRIMES
        total += weight * centred_from_residues(PARAMS, plain)[PATIENT]
    return ((total + PARAMS.Q // 2) % PARAMS.Q - PARAMS.Q // 2) / 2.0**PARAMS.D


def second_secret(records: list[np.ndarray], chosen: float) -> np.ndarray:
    """A random ternary s under which the score is as chosen: about one in 2^14 for a tolerance of half a unit."""
    a, constant = [0] * N, 0
    for weight, (c0, c1) in zip(MODEL, records, strict=True):
        values = centred_from_residues(PARAMS, c1)
        row = [values[PATIENT - i] if i <= PATIENT else -values[N + PATIENT - i] for i in range(N)]
        a = [x + weight * y for x, y in zip(a, row, strict=True)]
        constant += weight * centred_from_residues(PARAMS, c0)[PATIENT]
    # Fractions of Q in units of 2^-64 wrap around as residues mod Q do.
    units = np.array([((x % PARAMS.Q) << 64) // PARAMS.Q for x in a], dtype=np.uint64).view(np.int64)
    offset = np.array([((constant % PARAMS.Q) << 64) // PARAMS.Q], dtype=np.uint64).view(np.int64)
    rng = np.random.default_rng(4)
    while True:
        candidates = rng.integers(-1, 2, (1 << 16, N))
        scores = (candidates @ units + offset) * (PARAMS.Q / 2.0 ** (64 + PARAMS.D))
        hits = np.flatnonzero(np.abs(scores - chosen) < TOLERANCE / 2)
        if hits.size:
            return candidates[hits[0]]


def certified(keys: ClinicKeys) -> VerifiedKey:
    p0 = keys.public.p0
    data, _ = certify_key(PARAMS, keys.clinic_id, keys.number, p0, keys.s, keys.e_pk)
    return verify_key_certificate(PARAMS, keys.clinic_id, keys.number, p0, data)


def entry_id(key: VerifiedKey) -> bytes:
    """Stands for the leaf hash of the key entry."""
    return hashlib.sha256(b"\0" + key.digest).digest()


def test_a_second_key_that_rewrites_a_score_cannot_take_over_the_records():
    stream = SecretStream()
    first = ClinicKeys(PARAMS, "mallory", 1, stream.ternary(N), stream.centred_binomial(N))
    values = np.zeros((len(MODEL), N))
    values[:, PATIENT] = [4.0, 2.0, 1.6]
    rng = np.random.default_rng(3)
    records = [encrypt(rng, first.s, row) for row in values]
    assert abs(score(records, first.s) - 3.0) < 0.01

    chosen = -100.0
    second = ClinicKeys(PARAMS, "mallory", 2, second_secret(records, chosen), stream.centred_binomial(N))
    assert abs(score(records, second.s) - chosen) < TOLERANCE
    # The key certificate cannot tell: the second key is a good key.
    key_1, key_2 = certified(first), certified(second)

    def weak(key: VerifiedKey, array: np.ndarray) -> bytes:
        return input_digest(PARAMS, bytes(32), array)  # every key entry looks alike

    assert [weak(key_1, x) for x in records] == [weak(key_2, x) for x in records]
    for array in records:
        assert input_digest(PARAMS, entry_id(key_1), array) != input_digest(PARAMS, entry_id(key_2), array)
