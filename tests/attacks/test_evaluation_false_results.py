"""Forged results: everything honest but one lie, told as well as it can be told.

Where a check is what stops a forgery, the same forgery is shown to pass on a build weakened in that one place.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from privacy.ckks import evaluation_verifier
from privacy.ckks.canonical import ResultCiphertext
from privacy.ckks.evaluate import Noise, draw_noise, evaluate
from privacy.ckks.evaluation_proof import EvaluationProof, EvaluationStatement, Form, Rows
from privacy.errors import DecodeError, VerificationFailed
from privacy.zk.group import ARKWORKS, ORDER
from privacy.zk.relations import T4_ROWS, J, LinearSegment
from tests.attacks import conftest
from tests.attacks.conftest import Prover, Secrets, World, forced_linear, negacyclic

SHIFT = 1 << 54
"""A sixteenth of an answer unit: 380 times the attested error."""


def added(world: World, amount: int, *, part: str = "c0", place: int = 5, primes: tuple[int, ...] = (0, 1)):
    """The first result with `amount` added to one coefficient, mod the primes named."""
    result = world.results[0]
    array = getattr(result, part).copy()
    for level in primes:
        q = world.statement.params.primes[level]
        array[level, place] = (int(array[level, place]) + amount) % q
    return [replace(result, **{part: array}), *world.results[1:]]


def refused(prover: Prover, match: str = r"linear\.form") -> None:
    with pytest.raises(VerificationFailed, match=match):
        prover.world.verify(prover.prove(), statement=prover.statement, results=prover.results)


def accepted(prover: Prover) -> None:
    prover.world.verify(prover.prove(), statement=prover.statement, results=prover.results)


def test_the_harness_itself_is_accepted_when_it_does_not_cheat(world: World, pair: World) -> None:
    for w in (world, pair):
        accepted(Prover(w))


# A result that is off, with honest witnesses.


@pytest.mark.parametrize("part", ["c0", "c1"])
@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("amount", [1, -1, 1 << 20])
def test_one_coefficient_of_one_prime_off_by_one(world: World, part: str, level: int, amount: int) -> None:
    refused(Prover(world, added(world, amount, part=part, primes=(level,))))


@pytest.mark.parametrize("part", ["c0", "c1"])
def test_one_coefficient_off_in_all_primes(world: World, part: str) -> None:
    refused(Prover(world, added(world, SHIFT, part=part)))


def test_one_instance_of_several_off(pair: World) -> None:
    for b in range(4):
        result = pair.results[b]
        c0 = result.c0.copy()
        c0[:, 0] ^= np.uint64(1)
        refused(Prover(pair, [*pair.results[:b], replace(result, c0=c0), *pair.results[b + 1 :]]))


class Opposite(Prover):
    """Integer quotients as if the results were honest: what is left over of each row is the error itself."""

    def row_values(self, *arguments) -> list[int]:
        told, self.results = self.results, self.world.results
        try:
            return super().row_values(*arguments)
        finally:
            self.results = told


def test_errors_of_two_instances_do_not_cancel(pair: World, monkeypatch) -> None:
    """+1 in a result of one block and -1 in the other's, under one output: only rho keeps them apart."""
    up, down = pair.results[0], pair.results[2]
    up = replace(up, c1=(up.c1 + np.uint64(1)) % primes(pair))
    down = replace(down, c1=(down.c1 + primes(pair) - np.uint64(1)) % primes(pair))
    cheat = Opposite(pair, [up, pair.results[1], down, pair.results[3]])
    refused(cheat)
    # The weakened build: instances are added up as they are.
    honest = Form.__init__

    def without_rho(self, *arguments) -> None:
        honest(self, *arguments)
        self.rho = [1] * len(self.rho)

    monkeypatch.setattr(Form, "__init__", without_rho)
    accepted(cheat)


def primes(world: World) -> np.ndarray:
    return np.array(world.statement.params.primes, dtype=np.uint64)[:, None]


def test_results_of_two_outputs_swapped(pair: World) -> None:
    refused(Prover(pair, [pair.results[1], pair.results[0], *pair.results[2:]]))


def test_results_of_two_blocks_swapped(pair: World) -> None:
    refused(Prover(pair, [*pair.results[2:], *pair.results[:2]]))


# T4: quotients that are fractions.


class TrueXi(Prover):
    """A false quotient K = X/q mod r makes every row equation hold in F_r; only the size of xi tells."""

    def loose(self, b: int, x: Secrets, chi: list[list[int]]) -> None:
        super().loose(b, x, chi)
        assert max(map(abs, x.xi)) > self.bounds.B4


def test_a_false_quotient_shows_in_every_t4_row(world: World) -> None:
    cheat = TrueXi(world, added(world, 1, primes=(0,)))
    refused(cheat)


@pytest.fixture(scope="module")
def two(new_world) -> World:
    """Two blocks: responses have full size, so that nothing but T4 limits quotients."""
    return new_world(blocks=2, count=9, seed=3)


def weaken(monkeypatch: pytest.MonkeyPatch, rows: list[list[int]]) -> None:
    """A build whose T4 challenges are these."""
    monkeypatch.setattr(evaluation_verifier, "draw_chi", lambda *_: rows)
    monkeypatch.setattr(conftest, "draw_chi", lambda *_: rows)


def test_with_challenges_that_q_divides_the_false_quotient_passes(two: World, monkeypatch) -> None:
    """The weakened build: chi = q on the quotients of the first prime, as a wide challenge happens to be."""
    q = two.statement.params.primes[0]
    cheat = Prover(two, added(two, 1, primes=(0,)))
    refused(cheat)
    weaken(monkeypatch, [[0] * (2 * J) + [q] * J + [0] * J + [q] * J + [0] * J] * T4_ROWS)
    accepted(cheat)


class KnowingChi(Prover):
    """Chooses the T4 masks so that they cancel false quotients in rows known beforehand."""

    rows: list[list[int]]

    def commit_second(self, b: int, x: Secrets) -> None:
        vector = [*x.mu0, *x.mu1, *x.K]
        x.t4 = [-conftest.dot(row, vector) % ORDER for row in self.rows]
        super().commit_second(b, x)


def test_t4_rows_known_in_advance_would_be_worth_nothing(two: World, monkeypatch) -> None:
    rng = np.random.default_rng(3)
    cheat = KnowingChi(two, added(two, 1, primes=(0,)))
    cheat.rows = [[int(x) for x in rng.integers(0, 1 << 34, 6 * J)] for _ in range(T4_ROWS)]
    refused(cheat)
    weaken(monkeypatch, cheat.rows)
    accepted(cheat)


# Residuals and u that are not short.


class Larger(Prover):
    """Adds to one coefficient of e0, e1 or u what it added to the result."""

    what, place, amount = "e0", 5, SHIFT

    def secrets(self, b: int) -> Secrets:
        x = super().secrets(b)
        getattr(x, self.what)[self.place] += self.amount
        return x


class LargerE1(Larger):
    """2^36 in c1 is 2^16 times M1."""

    what, amount = "e1", 1 << 36


class LargerU(Larger):
    """u_5 = 2^22, far beyond 2 M'; the result is what this u gives."""

    what, amount = "u", 1 << 22


def with_u(world: World, amount: int, place: int = 5, levels: tuple[int, ...] = (0, 1)) -> list[ResultCiphertext]:
    """The first result under u + amount X^place."""
    result, public, P = world.results[0], world.keys.public, world.statement.positions
    c0, c1 = result.c0.copy(), result.c1.copy()
    unit = [0] * place + [amount]
    for level in levels:
        q = world.statement.params.primes[level]
        more = [negacyclic(p[level].astype(object), unit) for p in (public.p0, public.p1)]
        c0[level] = ((c0[level].astype(object) + more[0][P]) % q).astype(np.uint64)
        c1[level] = ((c1[level].astype(object) + more[1]) % q).astype(np.uint64)
    return [ResultCiphertext(P, c0, c1), *world.results[1:]]


def cheats(world: World) -> list[Larger]:
    return [
        Larger(world, added(world, SHIFT)),
        LargerE1(world, added(world, LargerE1.amount, part="c1")),
        LargerU(world, with_u(world, LargerU.amount)),
    ]


@pytest.mark.parametrize("which", [0, 1, 2], ids=["e0", "e1", "u"])
def test_noise_beyond_its_bound_is_refused(world: World, which: int) -> None:
    refused(cheats(world)[which])


@pytest.mark.parametrize("which", [0, 1, 2], ids=["e0", "e1", "u"])
def test_an_out_of_range_projection_is_refused_before_anything_else(world: World, which: int, monkeypatch) -> None:
    """Publishing the true projections does not help either."""
    cheat = cheats(world)[which]
    width = lambda M: 8 * (M.bit_length() // 8 + 1) - 1  # noqa: E731
    # As far out as the encoding allows.
    monkeypatch.setattr(
        conftest, "fit", lambda values, M: [max(min(v, 2 ** width(M) - 1), -(2 ** width(M))) for v in values]
    )
    refused(cheat, match=r"evaluation\.shortness")


class Predicting(Larger):
    """Knows the rows before it commits, and lets the masks absorb what is too long."""

    rows: Rows

    def commit_first(self, b: int, x: Secrets) -> None:
        P = self.statement.positions.tolist()
        matrix, column, masks = {
            "e0": (self.rows.R0, P[self.place], x.mu0),
            "e1": (self.rows.R1, self.place, x.mu1),
            "u": (self.rows.Ru, self.place, x.nu),
        }[self.what]
        for j in range(J):
            masks[j] -= int(matrix[j, column]) * self.amount
        super().commit_first(b, x)


@pytest.mark.parametrize("which", [0, 1, 2], ids=["e0", "e1", "u"])
def test_rows_known_before_the_commitment_would_let_it_pass(world: World, which: int, monkeypatch) -> None:
    transcript = world.statement.start()
    known = Rows.draw(transcript, world.statement.params, world.statement.positions)
    honest = cheats(world)[which]
    cheat = type("Cheat", (Predicting,), {"what": honest.what, "amount": honest.amount, "rows": known})(
        world, honest.results
    )
    # Masks made for these rows do not fit the rows that the commitment itself decides.
    refused(cheat)
    monkeypatch.setattr(Rows, "draw", staticmethod(lambda *_: known))
    accepted(cheat)


class Late(Larger):
    """Chooses the masks after the rows, inside the commitment to the quotients, which is sent later."""

    def project(self, b: int, x: Secrets, rows: Rows) -> None:
        P = self.statement.positions.tolist()
        matrix, column, masks, offset = {
            "e0": (rows.R0, P[self.place], x.mu0, self.params.N + J),
            "e1": (rows.R1, self.place, x.mu1, self.params.N + 2 * J),
            "u": (rows.Ru, self.place, x.nu, self.params.N),
        }[self.what]
        self.moved = [0] * len(self.keys[0])
        for j in range(J):
            step = -int(matrix[j, column]) * self.amount
            masks[j] += step
            self.moved[offset + j] = step
        super().project(b, x, rows)

    def commit_second(self, b: int, x: Secrets) -> None:
        super().commit_second(b, x)
        x.C_K = ARKWORKS.add(x.C_K, self.keys[0].commit(self.moved, 0))


@pytest.mark.parametrize("which", [0, 1, 2], ids=["e0", "e1", "u"])
def test_masks_smuggled_into_the_later_commitment_are_refused(world: World, which: int, monkeypatch) -> None:
    """C_b and C_K,b are opened apart. On a build that opens their sum, this forgery of 380 times the error passes."""
    honest = cheats(world)[which]
    late = {"what": honest.what, "amount": honest.amount}
    refused(type("Cheat", (Late,), late)(world, honest.results), match=r"linear\.opening")

    class Merged(Late):
        def open(self, transcript, form, held, instances):
            segments, alphas, beta = self.opening_statement(form, instances)
            (x,) = held
            weights, bias = self.weights(0)
            witness = [[*x.first(), *x.K, *x.t4], [*weights, bias]]
            blindings = [x.rho + x.rho_K, self.world.outputs[0].rho]
            return forced_linear(transcript, segments, alphas, beta, witness, blindings)

    apart, alpha, shapes = EvaluationStatement.segments, Form.alpha, EvaluationStatement.shapes
    keys = EvaluationStatement.opening_keys

    def merged_segments(self, *arguments):
        with monkeypatch.context() as unmerged:
            unmerged.setattr(EvaluationStatement, "shapes", shapes)
            unmerged.setattr(EvaluationStatement, "opening_keys", keys)
            first, second, *rest = apart(self, *arguments)
        C = ARKWORKS.add(first.commitment, second.commitment)
        return [LinearSegment(first.key + second.key, C, (*first.runs, *second.runs)), *rest]

    def merged_shapes(self):
        first, second, *rest = shapes(self)
        return [(*first, *second), *rest]

    def merged_keys(self, *arguments):
        first, second, *rest = keys(self, *arguments)
        return [first + second, *rest]

    monkeypatch.setattr(EvaluationStatement, "segments", merged_segments)
    monkeypatch.setattr(EvaluationStatement, "opening_keys", merged_keys)
    monkeypatch.setattr(EvaluationStatement, "shapes", merged_shapes)
    monkeypatch.setattr(Form, "alpha", lambda self, *p: ([x for part in alpha(self, *p) for x in part],))
    accepted(type("Cheat", (Merged,), late)(world, honest.results))


def test_noise_within_its_proven_bound_is_within_the_attested_error(world: World) -> None:
    """Not a forgery: the theorem allows |e0| <= 2 M0, and the printed error counts on it."""
    cheat = type("Slight", (Larger,), {"amount": world.statement.bounds.T0})(
        world, added(world, world.statement.bounds.T0)
    )
    verified = world.verify(cheat.prove(), statement=cheat.statement, results=cheat.results)
    off = [
        a - b
        for a, b in zip(
            world.keys.decrypt_integers_unverified(cheat.results[0]),
            world.keys.decrypt_integers_unverified(world.results[0]),
            strict=True,
        )
    ]
    assert max(map(abs, off)) == world.statement.bounds.T0
    assert max(map(abs, off)) < verified.error * 2**world.statement.params.D


# u or e drawn inside the loop over primes.


@pytest.mark.parametrize("part", ["u", "e0", "e1"])
def test_noise_drawn_for_each_prime_is_no_result_and_has_no_proof(world: World, part: str) -> None:
    noise, s, public = world.evaluations[0].noise, world.statement, world.keys.public
    again = draw_noise(s.params, s.count, 20)
    other = Noise(**{**vars(noise), part: getattr(again, part)})
    w = world.outputs[0]
    second = evaluate(s.params, public.p0, public.p1, world.virtual(0), w.weights, w.bias, s.positions, other).result
    first = world.results[0]
    mixed = ResultCiphertext(
        first.positions, np.stack([first.c0[0], second.c0[1]]), np.stack([first.c1[0], second.c1[1]])
    )
    garbage = [abs(x) for x in world.keys.decrypt_integers_unverified(mixed)]
    assert np.median(garbage) > s.params.Q >> 6
    refused(Prover(world, [mixed]))


# Other weights than C_W's.


def test_weights_other_than_the_committed_ones(world: World) -> None:
    s, public, w = world.statement, world.keys.public, world.outputs[0]
    noise = world.evaluations[0].noise
    for change in ("weight", "bias"):
        weights = (w.weights[0] + 1, *w.weights[1:]) if change == "weight" else w.weights
        bias = w.bias + (1 << 58 if change == "bias" else 0)
        result = evaluate(s.params, public.p0, public.p1, world.virtual(0), weights, bias, s.positions, noise).result

        lie = (list(weights), bias)

        class Other(Prover):
            def weights(self, output: int, lie: tuple[list[int], int] = lie) -> tuple[list[int], int]:
                return lie

        # All relations hold for the lie, but C_W does not open to it; with C_W's own opening they do not hold.
        refused(Other(world, [result]), match=r"linear\.opening")
        refused(Prover(world, [result]))


def test_the_opening_of_C_W_needs_its_blinding(world: World) -> None:
    wrong = replace(world, outputs=(replace(world.outputs[0], rho=world.outputs[0].rho + 1),))
    refused(Prover(wrong), match=r"linear\.opening")


# Pieces of other proofs.


def test_an_instance_of_another_proof_is_refused(pair: World) -> None:
    s = pair.statement
    one, other = (EvaluationProof.decode(s, pair.prove()) for _ in range(2))
    for b in range(4):
        mixed = replace(one, instances=(*one.instances[:b], other.instances[b], *one.instances[b + 1 :]))
        with pytest.raises(VerificationFailed):
            pair.verify(mixed.encode(s))
    with pytest.raises(VerificationFailed):
        pair.verify(replace(one, opening=other.opening).encode(s))
    with pytest.raises(VerificationFailed):
        pair.verify(replace(one, instances=one.instances[::-1]).encode(s))
    doubled = replace(one, instances=(one.instances[0], one.instances[0], *one.instances[2:]))
    with pytest.raises(VerificationFailed):
        pair.verify(doubled.encode(s))


def test_parts_of_an_instance_of_another_proof_are_refused(world: World) -> None:
    s = world.statement
    (one,), (other,) = (EvaluationProof.decode(s, world.prove()).instances for _ in range(2))
    whole = EvaluationProof.decode(s, world.prove())
    for name in ("C", "C_K", "z0", "z1", "zu", "xi"):
        mixed = replace(whole, instances=(replace(whole.instances[0], **{name: getattr(one, name)}),))
        with pytest.raises(VerificationFailed):
            world.verify(mixed.encode(s))
        assert getattr(one, name) != getattr(other, name)


def test_a_proof_of_one_block_is_no_proof_of_the_next(new_world) -> None:
    first, later = new_world(count=9), new_world(count=9, first_block=1)
    with pytest.raises(VerificationFailed):
        first.verify(first.prove(), statement=replace(first.statement, first_block=1))
    with pytest.raises((VerificationFailed, DecodeError)):
        later.verify(first.prove())


# Coefficients that were not declared.


def test_publishing_more_or_other_coefficients_than_declared_is_refused(new_world) -> None:
    world = new_world(count=5)
    s, public, w = world.statement, world.keys.public, world.outputs[0]
    for P in (np.arange(6), np.arange(1, 6), np.array([0, 1, 2, 3, 9])):
        noise = draw_noise(s.params, P.size, s.bounds.f)
        wide = evaluate(s.params, public.p0, public.p1, world.virtual(0), w.weights, w.bias, P, noise).result
        with pytest.raises(VerificationFailed, match=r"evaluation\.positions"):
            world.verify(world.prove(), statement=world.claiming([wide]), results=[wide])
    # A statement that declares more patients is another statement.
    wider = new_world(count=6)
    with pytest.raises((VerificationFailed, DecodeError)):
        world.verify(world.prove(), statement=wider.statement, results=wider.results)
