"""A clinic shows a consumer an answer of an encrypted prediction that is not the answer.

`Liar` is the clinic's prover without its scruples: it proves what it is asked to, of decryptions that it says it has,
and keeps everything else as good as it can be made. Where a check is what stops a lie, the same lie is shown to pass
on a build weakened in that one place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import cached_property
from math import isqrt

import numpy as np
import pytest
from flint import fmpz_mat, fmpz_mod_ctx

from privacy.ckks import disclosure, key_certificate
from privacy.ckks.canonical import ResultCiphertext
from privacy.ckks.disclosure import (
    Challenges,
    Coefficients,
    DisclosedAnswer,
    DisclosureBounds,
    DisclosureProof,
    DisclosureStatement,
    Form,
    absorb_values,
    verify_disclosure,
)
from privacy.ckks.key_certificate import KeyOpenings, KeyStatement, verify_key_certificate
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.zk import relations
from privacy.zk.group import ARKWORKS, ORDER, Point
from privacy.zk.quadratic import QuadraticSystem, Segment, prove_quadratic
from privacy.zk.randomness import SecretStream, random_scalar
from privacy.zk.relations import T4_ROWS, J, Run, inner
from privacy.zk.squares import three_squares
from privacy.zk.transcript import Transcript
from tests.attacks.conftest import centred, fit, forced_linear
from tests.support.encrypted_answers import BASE, STEP, UNIT, Answers, clinic, name, small_parameters

Q = BASE.Q
LITTLE = UNIT // 1000
"""A thousandth of an answer unit."""


class Liar:
    """`told`: what the clinic says that its answers decrypt to. s and openings are its own if nothing else is said."""

    def __init__(
        self,
        answers: Answers,
        statement: DisclosureStatement,
        told: Sequence[int],
        s: np.ndarray | None = None,
        openings: KeyOpenings | None = None,
    ) -> None:
        self.answers, self.statement, self.told = answers, statement, told
        self.s = answers.clinic.keys.s if s is None else s
        self.openings = openings or answers.clinic.openings
        self.stream = SecretStream()

    # -- what a lie may change ---------------------------------------------------------------------------------------

    def roots(self, n: int) -> tuple[int, int, int]:
        """x, y, z with x^2 + y^2 + z^2 = n if there are such, or about n."""
        return three_squares(n, self.stream) if n > 0 else (isqrt(-n), 0, 0)

    def quotient(self, value: int, q: int) -> int:
        """value / q, as an integer or else as a fraction mod r."""
        return value // q if value % q == 0 else centred(value * pow(q, -1, ORDER))

    def masks(self, v: list[int], quotients: list[int]) -> tuple[list[int], list[int]]:
        """Masks of T5 and T4, so far from the ends that what is nearly honest always fits."""
        bounds = self.statement.bounds
        m5, m4 = bounds.M5 - 2 * bounds.T5, bounds.B4 - 8 * bounds.honest4
        nu = [self.stream.below(2 * m5 + 1) - m5 for _ in range(disclosure.J)]
        return nu, [self.stream.below(2 * m4 + 1) - m4 for _ in range(T4_ROWS)]

    def show(self, values: list[int], bound: int) -> tuple[int, ...]:
        return tuple(fit(values, bound))

    def squared(self, v: list[int], rho: int, C_V: Point) -> tuple[list[int], int, Point]:
        """What X is proven about."""
        return v, rho, C_V

    def lucky(self, rows: np.ndarray) -> bool:
        return True

    # -- the protocol ------------------------------------------------------------------------------------------------

    def witness(self, coefficients: Coefficients) -> tuple[list[int], list[int]]:
        v, quotients = [], []
        products = coefficients.inner_products(self.s)
        for k, (answer, M) in enumerate(zip(self.statement.answers, self.told, strict=True)):
            low, high = self.statement.interval(answer)
            d, w = M - low, high - 1 - low
            v += [d, *self.roots(4 * d * (w - d) + 1)]
            for c0, product, q in zip(coefficients.c0[k], products[k], BASE.primes, strict=True):
                quotients.append(self.quotient(int(c0) + product - M, q))
        return v, quotients

    def prove(self) -> bytes:
        statement, bounds = self.statement, self.statement.bounds
        _, key_V, key_R = statement.keys()
        coefficients = Coefficients(statement, self.answers.lookup)
        v, quotients = self.witness(coefficients)
        while True:
            rho_V, rho_R = random_scalar(), random_scalar()
            nu, t4 = self.masks(v, quotients)
            loose = [*nu, *quotients, *t4]
            C_V, C_R = key_V.commit(v, rho_V), key_R.commit(loose, rho_R)
            transcript = statement.start()
            disclosure.absorb_commitments(transcript, ARKWORKS, C_V, C_R)
            challenges = Challenges.draw(transcript, statement)
            if self.lucky(challenges.rows):
                break
        projected = [inner(row, v) for row in challenges.rows.tolist()]
        z = self.show([centred(mask + x) for mask, x in zip(nu, projected, strict=True)], bounds.M5)
        loosely = [inner(row, quotients) for row in challenges.chi]
        xi = self.show([centred(mask + x) for mask, x in zip(t4, loosely, strict=True)], bounds.B4)
        absorb_values(transcript, z, xi)
        form = Form.fold(transcript, statement, coefficients, challenges, z, xi)
        segments = statement.segments(C_V, C_R)
        secret = [int(x) for x in self.s]
        rho_s = (self.openings.rho_plus - self.openings.rho_minus) % ORDER
        rhos = [rho_s, rho_V, rho_R]
        opening = forced_linear(transcript, segments, form.alphas, form.beta, [secret, v, loose], rhos)
        # What an honest prover's transcript has absorbed by now.
        relations._challenge(transcript, ARKWORKS, opening.masks, opening.t)
        squared, rho, self.C_X = self.squared(v, rho_V, C_V)
        squares = prove_quadratic(transcript, [Segment(key_V, self.C_X)], statement.squares(), [squared], [rho])
        return DisclosureProof(C_V, C_R, z, xi, opening, squares).encode(statement)


@pytest.fixture(autouse=True)
def liars_prove_squares_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QuadraticSystem, "violated", lambda system, witness: None)


class Roots(Liar):
    """x, y, z that are square roots mod r: y and z small, x as large as r."""

    def roots(self, n: int) -> tuple[int, int, int]:
        while True:
            y, z = self.stream.below(1 << 40), self.stream.below(1 << 40)
            rest = (n - y * y - z * z) % ORDER
            if pow(rest, (ORDER - 1) // 2, ORDER) == 1:
                return centred(int(fmpz_mod_ctx(ORDER)(rest).sqrt())), y, z


class Openly(Liar):
    """Publishes what it has, as far as the encoding allows."""

    def show(self, values: list[int], bound: int) -> tuple[int, ...]:
        top = (1 << 8 * disclosure._width(bound) - 1) - 1
        return tuple(max(min(value, top), -top - 1) for value in values)


class OpenRoots(Openly, Roots):
    pass


class Rounding(Liar):
    """Integer quotients, nearly."""

    def quotient(self, value: int, q: int) -> int:
        return value // q


def refused(liar: Liar, *checks: str, lookup: Callable[[bytes], ResultCiphertext] | None = None) -> None:
    with pytest.raises(VerificationFailed) as caught:
        verify_disclosure(liar.statement, liar.prove(), lookup or liar.answers.lookup)
    assert caught.value.check in checks, caught.value


def accepted(liar: Liar) -> None:
    verify_disclosure(liar.statement, liar.prove(), liar.answers.lookup)


# -- weakened builds --------------------------------------------------------------------------------------------------


class Weakened(DisclosureStatement):
    """Responses of full size: short ones have no room for huge numbers, on which no proof here relies."""

    @classmethod
    def of(cls, statement: DisclosureStatement, **changes):
        return cls(**{**{f.name: getattr(statement, f.name) for f in fields(DisclosureStatement)}, **changes})

    def shapes(self) -> list[tuple[Run, ...]]:
        return [tuple(Run(run.count, None) for run in runs) for runs in super().shapes()]


class WithoutT5(Weakened):
    @cached_property
    def bounds(self) -> DisclosureBounds:
        return replace(super().bounds, M5=(ORDER - 1) // 2)


class WithoutT4(Weakened):
    @cached_property
    def bounds(self) -> DisclosureBounds:
        return replace(super().bounds, B4=(ORDER - 1) // 2)


class Unbounded(DisclosureStatement):
    """Any interval, any tolerance."""

    of = classmethod(Weakened.of.__func__)

    def __post_init__(self) -> None:
        pass


# -- the number -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def told() -> Answers:
    """A score of 0.30 and some others, off the grid as scores are; a second output."""
    scores = [0.30, -1.25, 7.5, 0.0, -0.01]
    return Answers.encrypt(
        clinic(), [int(x * UNIT) + 123_456_789 for x in scores], [int(x * UNIT) - 987_654 for x in reversed(scores)]
    )


def missed(case: str) -> tuple[Answers, DisclosureStatement, int]:
    """A statement that is not true, by very little; and a decryption for which it would be."""
    low, high = 18 * STEP, 20 * STEP
    M = {
        "a unit below": low - 1,
        "a unit above": high,
        "a thousandth below": low - LITTLE,
        "a thousandth above": high - 1 + LITTLE,
        "a threshold by a unit": low - 1,
        "a threshold by a thousandth": low - LITTLE,
    }[case]
    answers = Answers.encrypt(clinic(), [M])
    said = answers.answer(0, value=19)
    if "threshold" in case:
        said = answers.answer(0, "threshold", value=18)
    inside = low if low > M else high - 1
    return answers, answers.statement(said), inside


CASES = [
    *("a unit below", "a unit above", "a thousandth below", "a thousandth above"),
    *("a threshold by a unit", "a threshold by a thousandth"),
]


def test_the_liar_is_believed_when_it_does_not_lie(told: Answers) -> None:
    said = [told.answer(0), told.answer(1, "threshold", 1), told.answer(2, versus=1)]
    M = [told.decryptions[0][0], told.decryptions[1][1], told.decryptions[0][2] - told.decryptions[1][2]]
    statement = told.statement(*said)
    for kind in (Liar, Openly, Rounding):
        accepted(kind(told, statement, M))
    for weakened in (Weakened, WithoutT4):
        accepted(Liar(told, weakened.of(statement), M))


@pytest.mark.parametrize("case", CASES)
def test_an_interval_that_is_just_missed(case: str) -> None:
    """The true decryption: 4 d (w - d) + 1 is negative, which no three squares are."""
    answers, statement, _ = missed(case)
    refused(Liar(answers, statement, answers.decryptions[0]), "quadratic.relation")


@pytest.mark.parametrize("case", CASES)
def test_without_t5_square_roots_mod_r_show_any_interval(case: str) -> None:
    answers, statement, _ = missed(case)
    M = answers.decryptions[0]
    for build in (statement, Weakened.of(statement)):
        refused(OpenRoots(answers, build, M), "disclosure.range")
        refused(Roots(answers, build, M), "linear.form")
    accepted(Roots(answers, WithoutT5.of(statement), M))


@pytest.mark.parametrize("case", CASES)
def test_without_t4_a_quotient_that_is_a_fraction_shows_any_decryption(case: str) -> None:
    answers, statement, inside = missed(case)
    refused(Rounding(answers, statement, [inside]), "linear.form")
    for build in (statement, Weakened.of(statement)):
        refused(Liar(answers, build, [inside]), "linear.form")
        refused(Openly(answers, build, [inside]), "disclosure.range")
    accepted(Liar(answers, WithoutT4.of(statement), [inside]))


def test_a_fraction_for_one_prime_only() -> None:
    """The decryption moved by q_1 is right mod q_1; the other prime is what it fails."""
    answers = Answers.encrypt(clinic(), [19 * STEP + 5])
    moved = 19 * STEP + 5 + BASE.primes[0] * 70_000
    statement = answers.statement(answers.answer(0, value=moved // STEP))
    refused(Liar(answers, statement, [moved]), "linear.form")
    refused(Openly(answers, statement, [moved]), "disclosure.range")
    accepted(Liar(answers, WithoutT4.of(statement), [moved]))


def test_one_lie_among_many_truths(told: Answers) -> None:
    said = [told.answer(place, "threshold") for place in range(5)]
    M = list(told.decryptions[0])
    for place in range(5):
        false = [*said]
        false[place] = replace(said[place], value=said[place].value + 1)
        statement = told.statement(*false)
        inside = [*M[:place], statement.interval(false[place])[0], *M[place + 1 :]]
        refused(Liar(told, statement, M), "quadratic.relation")
        refused(Liar(told, statement, inside), "linear.form")


def test_lies_about_two_answers_do_not_cancel(told: Answers) -> None:
    """One unit more here and one less there: one power of zeta a relation keeps them apart."""
    said = [told.answer(0, tolerance=2), told.answer(1, tolerance=2)]
    statement = told.statement(*said)
    M = [told.decryptions[0][0] + STEP, told.decryptions[0][1] - STEP]
    refused(Rounding(told, statement, M), "linear.form")


# -- wrapping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", [1, -1], ids=["up", "down"])
def test_without_the_bounds_of_intervals_a_score_is_off_by_the_modulus(turns: int) -> None:
    """0.30 is disclosed as 16384.22: M is fixed mod Q only, and T4's slack hides one Q more."""
    M = int(0.30 * UNIT)
    answers = Answers.encrypt(clinic(), [M])
    honest = answers.statement(answers.answer(0))
    wrapped = M + turns * Q
    value = (wrapped + STEP // 2) // STEP
    assert turns < 0 or round(value / 64, 2) == 16384.22
    said = replace(honest.answers[0], value=value)
    with pytest.raises(UsageError, match="leaves the range"):
        replace(honest, answers=(said,))
    accepted(Liar(answers, Unbounded.of(honest, answers=(said,)), [wrapped]))


def test_a_threshold_beyond_the_modulus() -> None:
    M = int(0.30 * UNIT)
    answers = Answers.encrypt(clinic(), [M])
    honest = answers.statement(answers.answer(0, "threshold"))
    said = replace(honest.answers[0], value=(M + Q) // STEP)
    with pytest.raises(UsageError, match="leaves the range"):
        replace(honest, answers=(said,))

    class Endless(Unbounded):
        def interval(self, answer: DisclosedAnswer) -> tuple[int, int]:
            return super().interval(answer)[0], 2 * Q

    accepted(Liar(answers, Endless.of(honest, answers=(said,)), [M + Q]))


def test_a_decryption_moved_by_the_order_of_the_group_is_the_same_to_commitments() -> None:
    answers, statement, _ = missed("a thousandth above")
    (M,) = answers.decryptions[0]
    low, _ = statement.interval(statement.answers[0])
    for moved in (M + ORDER, M - ORDER):
        # As an integer: whatever is congruent to it mod r is beyond the interval, or far too long.
        liar = Roots(answers, statement, [centred(moved - low) + low])
        refused(liar, "linear.form", "disclosure.range")


class Wrapped(Liar):
    """x, y, z with x^2 + y^2 + z^2 = n + 4 r t over the integers, for an n that is negative: about 128 bits each."""

    def roots(self, n: int) -> tuple[int, int, int]:
        t = 4 + -n // ORDER
        return three_squares(n + 4 * t * ORDER, self.stream)


def test_with_masks_too_wide_the_squares_would_wrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of 130 bits suffice. 2 M5 of ours is checked to have 100 at most."""
    answers, statement, _ = missed("a thousandth below")
    M = answers.decryptions[0]
    refused(Wrapped(answers, Weakened.of(statement), M), "linear.form")
    monkeypatch.setattr(disclosure, "_RHO5", 1 << 100)
    with pytest.raises(UsageError, match="too wide for an exact proof"):
        Wrapped(answers, Weakened.of(statement), M).prove()
    monkeypatch.setattr(disclosure, "_WIDEST", 200)
    accepted(Wrapped(answers, Weakened.of(statement), M))


def test_a_difference_is_one_mod_q() -> None:
    """6000 less -6000 is 12000, and 12000 - Q is what is shown: the caller must know that the outputs cannot do this.

    `disclosure` has no model to look at. This test says what its docstring demands of whoever calls it.
    """
    answers = Answers.encrypt(clinic(), [6000 * UNIT], [-6000 * UNIT])
    wrapped = 12000 * UNIT - Q
    assert wrapped < 0
    said = answers.answer(0, versus=1, value=(wrapped + STEP // 2) // STEP)
    statement = answers.statement(said)
    verify_disclosure(statement, answers.prove(statement), answers.lookup)


# -- rows -------------------------------------------------------------------------------------------------------------


class Lucky(Roots):
    """Tries until no row sees x."""

    def lucky(self, rows: np.ndarray) -> bool:
        return disclosure.J == J or not rows[:, 1].any()


def test_with_few_rows_a_huge_square_root_is_overlooked(monkeypatch: pytest.MonkeyPatch) -> None:
    answers, statement, _ = missed("a threshold by a unit")
    M = answers.decryptions[0]
    refused(Lucky(answers, Weakened.of(statement), M), "linear.form")
    monkeypatch.setattr(disclosure, "J", 4)
    accepted(Lucky(answers, Weakened.of(statement), M))


class Knowing(Liar):
    """Chooses masks for the rows that there would be if nothing were committed before."""

    def masks(self, v: list[int], quotients: list[int]) -> tuple[list[int], list[int]]:
        known = Challenges.draw(self.statement.start(), self.statement)
        nu, t4 = super().masks(v, quotients)
        nu = [centred(mask - inner(row, v)) for mask, row in zip(nu, known.rows.tolist(), strict=True)]
        t4 = [centred(mask - inner(row, quotients)) for mask, row in zip(t4, known.chi, strict=True)]
        return nu, t4


class KnowingRoots(Knowing, Roots):
    pass


@pytest.mark.parametrize("lie", ["roots", "quotients"])
def test_rows_known_before_the_commitments_would_be_worth_nothing(lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, statement, inside = missed("a thousandth above")
    weakened = Weakened.of(statement)
    if lie == "roots":
        liar: Liar = KnowingRoots(answers, weakened, answers.decryptions[0])
    else:
        liar = Knowing(answers, weakened, [inside])
    refused(liar, "linear.form")
    monkeypatch.setattr(disclosure, "absorb_commitments", lambda *arguments: None)
    accepted(liar)


# -- commitments ------------------------------------------------------------------------------------------------------


class TwoFaced(Liar):
    """One C_V for the linear form, another for the squares."""

    def squared(self, v: list[int], rho: int, C_V: Point) -> tuple[list[int], int, Point]:
        fine = [0, 1, 0, 0] * (len(v) // 4)
        return fine, rho, self.statement.keys()[1].commit(fine, rho)


def test_the_squares_are_of_what_the_linear_form_opens() -> None:
    answers, statement, _ = missed("a thousandth above")
    liar = TwoFaced(answers, statement, answers.decryptions[0])
    data = liar.prove()
    with pytest.raises(VerificationFailed, match=r"quadratic\.opening"):
        verify_disclosure(statement, data, answers.lookup)
    replaced = data.replace(ARKWORKS.encode(DisclosureProof.decode(statement, data).C_V), ARKWORKS.encode(liar.C_X), 1)
    with pytest.raises(VerificationFailed, match=r"linear\.|quadratic\."):
        verify_disclosure(statement, replaced, answers.lookup)

    # The weakened build: a verifier that takes the second commitment from somewhere else.
    proof = DisclosureProof.decode(statement, data)
    transcript = statement.start()
    disclosure.absorb_commitments(transcript, ARKWORKS, proof.C_V, proof.C_R)
    challenges = Challenges.draw(transcript, statement)
    absorb_values(transcript, proof.z, proof.xi)
    coefficients = Coefficients(statement, answers.lookup)
    form = Form.fold(transcript, statement, coefficients, challenges, proof.z, proof.xi)
    segments = statement.segments(proof.C_V, proof.C_R)
    proof.opening.verify(transcript, segments, form.alphas, form.beta)
    proof.squares.verify(transcript, [Segment(segments[1].key, liar.C_X)], statement.squares())


@pytest.mark.parametrize("part", ["C_V", "C_R"])
def test_a_commitment_of_another_proof(told: Answers, part: str) -> None:
    statement = told.statement(told.answer(0))
    one, two = (DisclosureProof.decode(statement, told.prove(statement)) for _ in range(2))
    mixed = replace(one, **{part: getattr(two, part)}).encode(statement)
    with pytest.raises(VerificationFailed):
        verify_disclosure(statement, mixed, told.lookup)


@pytest.mark.parametrize("part", ["z", "xi", "opening", "squares"])
def test_a_part_of_another_proof(told: Answers, part: str) -> None:
    statement = told.statement(told.answer(0))
    one, two = (DisclosureProof.decode(statement, told.prove(statement)) for _ in range(2))
    with pytest.raises(VerificationFailed):
        verify_disclosure(statement, replace(one, **{part: getattr(two, part)}).encode(statement), told.lookup)


# -- keys -------------------------------------------------------------------------------------------------------------


def test_another_key_decrypts_to_something_else(told: Answers) -> None:
    """Under a statement that names that key it is true: whoever verifies compares the key with the prediction's."""
    other = clinic("st-ben")
    fake = Answers(other, told.decryptions, told.results)
    M = other.keys.decrypt_integers_unverified(told.results[0])[0]
    said = replace(told.answer(0), value=(M + STEP // 2) // STEP)
    assert abs(M - told.decryptions[0][0]) > UNIT
    named, ours = fake.statement(said), told.statement(said)
    verify_disclosure(named, fake.prove(named), told.lookup)
    for statement in (ours, replace(named, C_plus=ours.C_plus), replace(named, C_minus=ours.C_minus)):
        refused(Liar(told, statement, [M], other.keys.s, other.openings), "linear.opening")


def row_mod_Q(result: ResultCiphertext, k: int) -> list[int]:
    """a_k with M = c0[k] + <a_k, s> mod Q."""
    N, primes = result.c1.shape[1], BASE.primes
    whole = [
        sum(int(x) * (Q // q) * pow(Q // q, -1, q) for x, q in zip(column, primes, strict=True)) % Q
        for column in result.c1.T
    ]
    return [whole[k - j] if j <= k else -whole[N + k - j] for j in range(N)]


def short_change(row: Sequence[int], difference: int) -> list[int]:
    """Short integers with <row, them> = difference mod Q: lattice reduction, and rounding in the reduced basis."""
    n, inverse = len(row), pow(row[0], -1, Q)
    kernel = [[Q] + [0] * (n - 1)]
    kernel += [[-row[i] * inverse % Q] + [int(i == j) for j in range(1, n)] for i in range(1, n)]
    basis = fmpz_mat(kernel).lll()
    start = [difference * inverse % Q] + [0] * (n - 1)
    exact = basis.transpose().solve(fmpz_mat([[x] for x in start]))
    for i in range(n):
        p, q = int(exact[i, 0].p), int(exact[i, 0].q)
        turns = (2 * p + q) // (2 * q)
        start = [x - turns * int(basis[i, j]) for j, x in enumerate(start)]
    assert (sum(a * b for a, b in zip(row, start, strict=True)) - difference) % Q == 0
    return start


def long_key(answers: Answers, wished: int, coordinates: int) -> list[int]:
    row = row_mod_Q(answers.results[0], 0)
    change = short_change(row[:coordinates], wished - answers.decryptions[0][0])
    return [int(x) + y for x, y in zip(answers.clinic.keys.s, change + [0] * (64 - coordinates), strict=True)]


@pytest.mark.parametrize(("coordinates", "bits"), [(6, 20), (24, 8)], ids=["2^20", "2^8"])
def test_with_a_key_that_is_loosely_short_any_score_is_shown(
    coordinates: int, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few coefficients moved, and 0.30 decrypts to 4242. The key certificate is what this proof stands on."""
    answers = Answers.encrypt(clinic(), [int(0.30 * UNIT)])
    wished = 4242 * UNIT
    s = long_key(answers, wished, coordinates)
    assert 1 < max(map(abs, s)) < 1 << bits
    said = answers.answer(0, value=4242 * 64)
    honest = answers.statement(said)
    made = answers.clinic
    liar = Liar(answers, honest, [wished], np.array(s))
    refused(liar, "linear.opening")

    # The weakened build: somebody who takes commitments to a key without its certificate.
    key_s = honest.keys()[0]
    C_plus, C_minus = key_s.commit(s, 17), key_s.commit([0] * 64, 4)
    named = replace(honest, C_plus=ARKWORKS.encode(C_plus), C_minus=ARKWORKS.encode(C_minus))
    accepted(Liar(answers, named, [wished], np.array(s), KeyOpenings(17, 4)))

    # And a certificate for it, told as well as it can be told.
    statement = KeyStatement(made.params, made.keys.clinic_id, 1, made.keys.public.p0, made.keys.public.p1)
    bits_of_e = ((made.keys.e_pk + 32) >> np.arange(6)[:, None]) & 1
    forged, _ = key_certificate._prove(statement, s, [0] * 64, bits_of_e.reshape(-1).tolist())
    with pytest.raises(VerificationFailed):
        verify_key_certificate(made.params, made.keys.clinic_id, 1, made.keys.public.p0, forged)


# -- places -----------------------------------------------------------------------------------------------------------


def test_the_answer_of_another_patient(told: Answers) -> None:
    """A fine score at another coefficient, another output, or the other way round."""
    fine = told.answer(2)
    M = told.decryptions[0][2]
    for said in (
        replace(fine, position=0),
        replace(fine, results=(told.digests[1],)),
        replace(fine, versus=1, results=told.digests),
    ):
        statement = told.statement(said)
        refused(Liar(told, statement, [M]), "linear.form")
        refused(Openly(told, statement, [M]), "disclosure.range")
        with pytest.raises((VerificationFailed, DecodeError)):
            verify_disclosure(statement, told.prove(told.statement(fine)), told.lookup)
    difference = told.answer(2, versus=1)
    turned = replace(difference, output=1, versus=0, results=difference.results[::-1])
    D = told.decryptions[0][2] - told.decryptions[1][2]
    refused(Liar(told, told.statement(turned), [D]), "linear.form")


def test_a_result_of_the_clinics_own_making(told: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same digest with other bytes: only whoever does not hash what it gets believes them."""
    wished = told.clinic.encrypt([40 * UNIT])
    own = Answers(told.clinic, ((40 * UNIT,),), (wished,))
    said = replace(own.answer(0), results=told.digests[:1])
    statement = told.statement(said)
    own_statement = own.statement(own.answer(0))
    verify_disclosure(own_statement, own.prove(own_statement), own.lookup)
    with pytest.raises(VerificationFailed, match=r"disclosure\.result"):
        verify_disclosure(statement, own.prove(own_statement), lambda digest: wished)
    monkeypatch.setattr(disclosure, "_loaded", lambda params, digest, results: results(digest))
    monkeypatch.setattr(Answers, "lookup", property(lambda answers: lambda digest: wished))
    accepted(Liar(told, statement, [40 * UNIT]))


@pytest.mark.parametrize("change", ["reordered", "one less", "one more", "twice the first"])
def test_other_answers_than_those_proven(told: Answers, change: str) -> None:
    said = [told.answer(0), told.answer(1), told.answer(3)]
    proof = told.prove(told.statement(*said))
    other = {
        "reordered": [said[1], said[0], said[2]],
        "one less": said[:2],
        "one more": [*said, told.answer(2)],
        "twice the first": [said[0], replace(said[0], patient=9), said[2]],
    }[change]
    with pytest.raises((VerificationFailed, DecodeError)):
        verify_disclosure(told.statement(*other), proof, told.lookup)


@pytest.mark.parametrize("tolerance", [0, -1, -5])
def test_intervals_that_end_before_they_begin(told: Answers, tolerance: int, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = told.statement(told.answer(0))
    with pytest.raises(UsageError, match="tolerance"):
        replace(honest.answers[0], tolerance=tolerance)
    monkeypatch.setattr(DisclosedAnswer, "__post_init__", lambda answer: None)
    with pytest.raises(UsageError, match="leaves the range"):
        replace(honest, answers=(replace(honest.answers[0], tolerance=tolerance),))


# -- replay -----------------------------------------------------------------------------------------------------------

REPLAYS = {
    "key_id": b"key",
    "key_certificate": b"key certificate",
    "model_id": b"model",
    "records_id": b"records",
    "prediction_id": b"prediction",
    "grant_id": b"grant",
    "recipient_nonce": b"recipient",
    "handle": b"handle",
    "patient": b"place",
    "output": b"place",
}
"""Fields that only the transcript binds, and their labels there."""


@pytest.mark.parametrize("field", REPLAYS)
def test_a_disclosure_shown_for_another(told: Answers, field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(statement: DisclosureStatement) -> DisclosureStatement:
        if field in ("handle", "patient", "output"):
            (answer,) = statement.answers
            return replace(statement, answers=(replace(answer, **{field: name("x") if field == "handle" else 9}),))
        return replace(statement, **{field: name("another")})

    statement = told.statement(told.answer(0))
    proof = told.prove(statement)
    with pytest.raises(VerificationFailed, match=r"linear\."):
        verify_disclosure(other(statement), proof, told.lookup)

    # The weakened build forgets to absorb it.
    absorb = Transcript.absorb
    monkeypatch.setattr(
        Transcript, "absorb", lambda self, label, data: None if label == REPLAYS[field] else absorb(self, label, data)
    )
    verify_disclosure(other(statement), told.prove(statement), told.lookup)


def altered(told: Answers, statement: DisclosureStatement) -> dict[str, DisclosureStatement]:
    """The statement with one field altered at a time; the fields of its first answer too."""
    first, second = statement.answers
    params = replace(small_parameters(64), name="another")

    def answer(**changes) -> DisclosureStatement:
        return replace(statement, answers=(replace(first, **changes), second))

    other = clinic("st-ben")
    return {
        "params": replace(statement, params=params),
        "grid_bits": replace(statement, grid_bits=7),
        **{f: replace(statement, **{f: name("another")}) for f in REPLAYS if hasattr(statement, f)},
        "C_plus": replace(statement, C_plus=other.C_plus),
        "C_minus": replace(statement, C_minus=other.C_minus),
        "answers": replace(statement, answers=(second, first)),
        "answers.handle": answer(handle=name("another")),
        "answers.patient": answer(patient=9),
        "answers.output": answer(output=9),
        "answers.versus": answer(versus=9),
        "answers.results": answer(results=first.results[::-1]),
        "answers.position": answer(position=1),
        "answers.kind": answer(kind="threshold", tolerance=0),
        "answers.value": answer(value=first.value + 1),
        "answers.tolerance": answer(tolerance=2),
    }


FIELDS = [f.name for f in fields(DisclosureStatement)] + [f"answers.{f.name}" for f in fields(DisclosedAnswer)]


@pytest.fixture(scope="module")
def proven(told: Answers) -> tuple[DisclosureStatement, bytes]:
    """A difference and a single answer."""
    statement = told.statement(told.answer(0, versus=1), told.answer(1))
    return statement, told.prove(statement)


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_of_a_statement_is_bound(
    told: Answers, proven: tuple[DisclosureStatement, bytes], field: str
) -> None:
    statement, proof = proven
    other = altered(told, statement)
    assert sorted(other) == sorted(FIELDS)
    assert other[field].start().digest() != statement.start().digest()
    results = dict(zip(told.digests, told.results, strict=True))
    with pytest.raises((VerificationFailed, DecodeError)):
        verify_disclosure(other[field], proof, lambda digest: results[digest])
    verify_disclosure(statement, proof, told.lookup)


@pytest.mark.parametrize("change", ["truncated", "extended", "nothing"])
def test_other_lengths(told: Answers, proven: tuple[DisclosureStatement, bytes], change: str) -> None:
    statement, proof = proven
    data = {"truncated": proof[:-32], "extended": proof + bytes(32), "nothing": b""}[change]
    with pytest.raises(DecodeError):
        verify_disclosure(statement, data, told.lookup)
