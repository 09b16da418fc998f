"""Forged key certificates: a prover who follows the protocol with a false witness, one lie for each lemma.

Every lie that a weakened build lets through is shown to pass there first (docs/spec/protocol.md, sections 3 and 4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pytest

from privacy.ckks import key_certificate as module
from privacy.ckks.canonical import ResultCiphertext
from privacy.ckks.key_certificate import KeyBounds, KeyCertificate, KeyStatement, derive_key_bounds
from privacy.ckks.keys import ClinicKeys, derive_p1
from privacy.ckks.params import parameter_set
from privacy.ckks.polynomial import centred_from_residues, negacyclic_multiply_mod, residues_of
from privacy.errors import VerificationFailed
from privacy.zk.group import ARKWORKS, ORDER
from privacy.zk.quadratic import QuadraticSystem
from privacy.zk.randomness import SecretStream, random_scalar

PARAMS = replace(parameter_set("linear-4096"), name="test-64", N=64)
CLINIC, NUMBER = "mallory", 0
N = PARAMS.N
PRIMES = np.array(PARAMS.primes, dtype=np.uint64)[:, None]


@dataclass(frozen=True)
class Witness:
    """What a cheating clinic feeds the prover; any integers."""

    plus: list[int]
    minus: list[int]
    error_bits: list[int]


def honest_keys() -> ClinicKeys:
    stream = SecretStream()
    return ClinicKeys(PARAMS, CLINIC, NUMBER, stream.ternary(N), stream.centred_binomial(N))


def witness_of(s: np.ndarray, e_pk: np.ndarray) -> Witness:
    bits = ((e_pk + 32) >> np.arange(6)[:, None]) & 1
    return Witness((s > 0).astype(int).tolist(), (s < 0).astype(int).tolist(), bits.reshape(-1).tolist())


def public_key(s: np.ndarray, e_pk: np.ndarray) -> np.ndarray:
    """p0 = -p1 s + e_pk for any short s and e_pk."""
    return (residues_of(PARAMS, e_pk) + PRIMES - negacyclic_multiply_mod(PARAMS, p1(), s)) % PRIMES


def p1() -> np.ndarray:
    return derive_p1(PARAMS, CLINIC, NUMBER)


def statement_of(p0: np.ndarray) -> KeyStatement:
    return KeyStatement(PARAMS, CLINIC, NUMBER, p0, p1())


def centred(value: int) -> int:
    return (value + ORDER // 2) % ORDER - ORDER // 2


def forge(statement: KeyStatement, witness: Witness, *, lie: bool = False, tries: int = 1) -> KeyCertificate:
    """The product's prover without its scruples.

    Quotients are X / q_l in F_r, which is the true quotient where one exists. T4 is tried `tries` times; a value that
    is still out of bounds is published as it is or, with `lie`, replaced by one that is not.
    """

    def quotient(equation, s, e_pk):
        X = equation.constant + sum(a * b for a, b in zip(equation.corr, s, strict=True))
        X -= sum(a * b for a, b in zip(equation.row, e_pk, strict=True))
        return centred(X * pow(equation.q, -1, ORDER))

    def prove_loose(transcript, key, bounds, quotients):
        stream = SecretStream()
        for _ in range(tries):
            attempt = transcript.copy()
            masks, rho = [stream.below(bounds.B4) for _ in range(module.T4_ROWS)], random_scalar()
            C_K = key.commit([*quotients, *masks], rho)
            module._absorb_points(attempt, key.group, C_K=C_K)
            chi = module._loose_challenges(attempt, bounds.quotients)
            values = [centred(m + module.inner(row, quotients)) for m, row in zip(masks, chi, strict=True)]
            if all(abs(x) <= bounds.B4 for x in values):
                break
        limit = 1 << (8 * bounds.xi_bytes - 1)
        xi = tuple((x + 1) % bounds.B4 if lie else max(-limit, min(limit - 1, x)) for x in values)
        attempt.absorb_integers(b"xi", xi)
        transcript.adopt(attempt)
        return module._Loose(C_K, chi, xi, masks, rho)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module._Equation, "quotient", quotient)
        patch.setattr(module, "_prove_loose", prove_loose)
        patch.setattr(QuadraticSystem, "violated", lambda self, witness: None)
        data, _ = module._prove(statement, witness.plus, witness.minus, witness.error_bits)
    return KeyCertificate.decode(statement.params, data)


@contextmanager
def weakened(target: object, **replacements: object) -> Iterator[None]:
    """A build in which prover and verifier both lack something."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in replacements.items():
            patch.setattr(target, name, value)
        yield


def without(constraint: str) -> Callable[[], object]:
    return lambda: weakened(QuadraticSystem, **{constraint: lambda self, *args: None})


def refused(statement: KeyStatement, witness: Witness, **how: object) -> str:
    with pytest.raises(VerificationFailed) as failure:
        forge(statement, witness, **how).verify(statement)
    return failure.value.check


def test_the_forging_prover_is_the_honest_one_when_there_is_nothing_to_forge():
    keys = honest_keys()
    statement = statement_of(keys.public.p0)
    forge(statement, witness_of(keys.s, keys.e_pk)).verify(statement)


# s and e_pk are exactly in range


@pytest.mark.parametrize("coefficient", [2, -2, 3, 1000])
def test_a_secret_key_that_is_not_ternary_cannot_be_certified(coefficient):
    keys = honest_keys()
    s = keys.s.copy()
    s[11] = coefficient
    statement = statement_of(public_key(s, keys.e_pk))
    honest = witness_of(s, keys.e_pk)
    plus, minus = honest.plus.copy(), honest.minus.copy()
    plus[11], minus[11] = max(coefficient, 0), max(-coefficient, 0)
    witness = replace(honest, plus=plus, minus=minus)
    with without("add_bits")():
        forge(statement, witness).verify(statement)
    assert refused(statement, witness) == "quadratic.relation"


def test_overlapping_halves_of_s_cannot_be_certified():
    keys = honest_keys()
    statement = statement_of(keys.public.p0)
    honest = witness_of(keys.s, keys.e_pk)
    place = int(np.flatnonzero(keys.s == 0)[0])
    plus, minus = honest.plus.copy(), honest.minus.copy()
    plus[place] = minus[place] = 1
    witness = replace(honest, plus=plus, minus=minus)
    with without("add_exclusive")():
        forge(statement, witness).verify(statement)
    assert refused(statement, witness) == "quadratic.relation"


@pytest.mark.parametrize("error", [32, -33, 40, 500])
def test_an_error_of_the_public_key_outside_six_bits_cannot_be_certified(error):
    keys = honest_keys()
    e_pk = keys.e_pk.copy()
    e_pk[0] = error
    statement = statement_of(public_key(keys.s, e_pk))
    witness = witness_of(keys.s, keys.e_pk)
    bits = witness.error_bits.copy()
    bits[::N] = [error + 32, 0, 0, 0, 0, 0]  # a "lowest bit" that carries everything
    witness = replace(witness, error_bits=bits)
    with without("add_bits")():
        forge(statement, witness).verify(statement)
    assert refused(statement, witness) == "quadratic.relation"


def test_with_slack_a_clinic_decrypts_to_any_score_it_likes():
    """Without exact shortness (no bits, room of 2^128 in T4) a second opening of the same p0 gives a chosen score."""
    keys = honest_keys()
    statement = statement_of(keys.public.p0)
    rng = np.random.default_rng(1)
    c1 = rng.integers(0, PRIMES, (PARAMS.L, N), dtype=np.uint64)
    noise = np.full(N, 1 << 40, dtype=np.int64)
    c0 = (residues_of(PARAMS, noise) + PRIMES - negacyclic_multiply_mod(PARAMS, c1, keys.s)) % PRIMES
    result = ResultCiphertext(np.array([0], dtype=np.int64), c0[:, :1].copy(), c1)
    assert keys.decrypt_integers_unverified(result) == [1 << 40]

    chosen = -(5 << PARAMS.D)
    (leading,) = centred_from_residues(PARAMS, c1[:, :1])
    delta = (chosen - (1 << 40)) * pow(leading, -1, PARAMS.Q) % PARAMS.Q
    s = [int(x) for x in keys.s]
    s[0] += delta
    # e' = p0 + p1 s' mod Q: whatever it takes.
    change = np.array(
        [[x * delta % q for x in row.tolist()] for row, q in zip(p1(), PARAMS.primes, strict=True)], dtype=np.uint64
    )
    e_pk = [a + b for a, b in zip(keys.e_pk.tolist(), centred_from_residues(PARAMS, change), strict=True)]
    witness = Witness(s, [0] * N, [*(x + 32 for x in e_pk), *([0] * (5 * N))])

    decrypted = centred_from_residues(PARAMS, c0[:, :1])[0] + sum(x * y for x, y in zip(first_row(c1), s, strict=True))
    assert (decrypted + PARAMS.Q // 2) % PARAMS.Q - PARAMS.Q // 2 == chosen

    true_bounds = derive_key_bounds(PARAMS)
    roomy = replace(true_bounds, B4=true_bounds.B4 << 128)
    with weakened(module, derive_key_bounds=lambda params: roomy):
        with without("add_bits")(), without("add_exclusive")():
            forge(statement, witness, tries=50).verify(statement)
        assert refused(statement, witness, tries=50) == "quadratic.relation"
    assert refused(statement, witness) == "key.quotients"
    assert refused(statement, witness, lie=True) == "quadratic.relation"


def first_row(c1: np.ndarray) -> list[int]:
    """Integers a with <a, s> = (c1 s)[0] mod Q."""
    values = centred_from_residues(PARAMS, c1)
    return [values[0], *(-x for x in values[:0:-1])]


# The key equation, through T2 and T4


@pytest.mark.parametrize("level", [0, 1])
def test_a_p0_that_is_off_by_one_cannot_be_certified(level):
    keys = honest_keys()
    p0 = keys.public.p0.copy()
    p0[level, 20] = (p0[level, 20] + np.uint64(1)) % PRIMES[level, 0]
    statement, witness = statement_of(p0), witness_of(keys.s, keys.e_pk)
    assert refused(statement, witness, tries=20) == "key.quotients"
    assert refused(statement, witness, lie=True) == "quadratic.relation"
    # What lets it through is the missing shortness of quotients, so that is what refuses it.
    unbounded = replace(derive_key_bounds(PARAMS), B4=ORDER)
    with weakened(module, derive_key_bounds=lambda params: unbounded):
        forge(statement, witness).verify(statement)


def test_errors_that_differ_between_the_primes_cannot_be_certified():
    """e_pk must be the same integers for every prime."""
    keys = honest_keys()
    other = keys.e_pk.copy()
    other[3] = -other[3] if other[3] else 1
    p0 = keys.public.p0.copy()
    p0[1] = public_key(keys.s, other)[1]
    statement = statement_of(p0)
    for e_pk in (keys.e_pk, other):
        assert refused(statement, witness_of(keys.s, e_pk)) == "key.quotients"


def test_a_false_t4_value_is_refused():
    keys = honest_keys()
    statement = statement_of(keys.public.p0)
    assert refused(statement, witness_of(keys.s, keys.e_pk), lie=True) == "quadratic.relation"


def single_row(bounds: KeyBounds) -> KeyBounds:
    """T4 with one row of 128-bit challenges: honest values and masks grow with the challenges."""
    honest4 = bounds.quotients * bounds.quotient << 128
    return replace(bounds, honest4=honest4, B4=module.RHO4 * honest4)


def wide_challenges(transcript, quotients):
    return [transcript.challenge_integers(b"chi", quotients, 128)]


def test_one_row_of_128_bits_lets_a_false_quotient_through_when_q_divides_the_challenge():
    """The false quotients are X / q_l; a multiple of q_l makes them integers again. Five rows below q_l never do."""
    keys = honest_keys()
    p0 = keys.public.p0.copy()
    p0[0, 20] = (p0[0, 20] + np.uint64(1)) % PRIMES[0, 0]
    statement, witness = statement_of(p0), witness_of(keys.s, keys.e_pk)
    weak = single_row(derive_key_bounds(PARAMS))

    def lucky(transcript, quotients):
        (row,) = wide_challenges(transcript, quotients)
        return [[x - x % PARAMS.primes[0] for x in row]]

    common = {"T4_ROWS": 1, "derive_key_bounds": lambda params: weak}
    with weakened(module, **common, _loose_challenges=wide_challenges):
        assert refused(statement, witness, tries=20) == "key.quotients"
    with weakened(module, **common, _loose_challenges=lucky):
        forge(statement, witness, tries=20).verify(statement)
    assert refused(statement, witness, tries=20) == "key.quotients"


def test_one_row_of_128_bits_falls_to_patience():
    """The same without luck, at a prime of 7 bits: restarting until q divides what is needed takes some 97 tries."""
    params = replace(PARAMS, name="test-97", N=16, primes=(97,))
    stream = SecretStream()
    keys = ClinicKeys(params, CLINIC, NUMBER, stream.ternary(16), stream.centred_binomial(16))
    p0 = keys.public.p0.copy()
    p0[0, 2] = (p0[0, 2] + 1) % 97
    witness = witness_of(keys.s, keys.e_pk)
    with pytest.raises(VerificationFailed, match=r"key\.primes"):
        derive_key_bounds(params)
    # The bounds of this set as they would be without that refusal.
    rows, multiple = 21, 1 + 16 * 33
    five_rows = KeyBounds((rows,), multiple * 97, multiple, honest := (2**34 - 1) * rows * multiple, honest << 10, 0)
    one_row = single_row(five_rows)
    statement = KeyStatement(params, CLINIC, NUMBER, p0, derive_p1(params, CLINIC, NUMBER))
    with weakened(module, T4_ROWS=1, derive_key_bounds=lambda params: one_row, _loose_challenges=wide_challenges):
        forge(statement, witness, tries=20_000).verify(statement)
    with weakened(module, derive_key_bounds=lambda params: five_rows):
        assert refused(statement, witness, tries=300) == "key.quotients"


def test_commitments_of_another_certificate_cannot_be_slipped_in():
    """Rows and challenges depend on every commitment: parts of two true certificates make no third."""
    keys = honest_keys()
    statement, witness = statement_of(keys.public.p0), witness_of(keys.s, keys.e_pk)
    one, two = forge(statement, witness), forge(statement, witness)
    for name in ("C_plus", "C_minus", "C_e", "C_K", "xi", "proof"):
        with pytest.raises(VerificationFailed):
            replace(one, **{name: getattr(two, name)}).verify(statement)


def test_swapped_halves_of_s_are_refused():
    keys = honest_keys()
    statement = statement_of(keys.public.p0)
    certificate = forge(statement, witness_of(keys.s, keys.e_pk))
    swapped = replace(certificate, C_plus=certificate.C_minus, C_minus=certificate.C_plus)
    with pytest.raises(VerificationFailed):
        swapped.verify(statement)
    shifted = replace(certificate, C_plus=ARKWORKS.add(certificate.C_plus, certificate.C_minus))
    with pytest.raises(VerificationFailed):
        shifted.verify(statement)
