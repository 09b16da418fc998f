"""The leak of the obvious design: a plain weighted sum of public ciphertexts is a linear system for the weights.

The solver below recovers every weight and the bias from public data alone when the evaluation adds no encryption of
zero. On published results it finds numbers that have nothing to do with the weights.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from flint import nmod_mat

from privacy.ckks.canonical import ResultCiphertext
from privacy.ckks.evaluate import Noise, draw_noise, evaluate
from privacy.ckks.packing import Packing
from privacy.ckks.polynomial import centred_from_residues
from tests.attacks.conftest import World, encrypt, negacyclic


def solve(world: World, result: ResultCiphertext) -> tuple[list[int], list[int]]:
    """(weights, bias as every published coefficient tells it) from inputs and result; no secret is used."""
    s = world.statement
    virtual, d = world.virtual(0), s.d
    by_prime, biases = [], []
    for level, q in enumerate(s.params.primes):
        # c1 = sum_i w_i c1_i mod q: N equations in d unknowns; d of them fix the answer.
        rows = [[int(x) for x in virtual[:, 1, level, i]] for i in range(d)]
        right = [[int(result.c1[level, i])] for i in range(d)]
        w = nmod_mat(rows, q).solve(nmod_mat(right, q))
        by_prime.append([int(w[i, 0]) for i in range(d)])
        c0 = virtual[:, 0, level][:, s.positions].astype(object)
        total = sum(x * c for x, c in zip(by_prime[-1], c0, strict=True))
        biases.append((result.c0[level].astype(object) - total) % q)
    weights = centred_from_residues(s.params, np.array(by_prime, dtype=np.uint64))
    return weights, centred_from_residues(s.params, np.array(biases).astype(np.uint64))


def raw(world: World) -> ResultCiphertext:
    """sum_i w_i ct_i + bias, published as it is."""
    s, w, public = world.statement, world.outputs[0], world.keys.public
    zero = np.zeros(s.params.N, dtype=np.int64)
    nothing = Noise(u=zero, e0=zero[: s.count], e1=zero)
    inputs = world.virtual(0)
    return evaluate(s.params, public.p0, public.p1, inputs, w.weights, w.bias, s.positions, nothing).result


@pytest.mark.parametrize("packing", [Packing.COLUMNS, Packing.ROWS])
@pytest.mark.parametrize("d", [1, 7, 30])
def test_a_raw_evaluation_gives_all_weights_away(new_world, packing: Packing, d: int) -> None:
    world = new_world(N=128, d=d, packing=packing)
    weights, biases = solve(world, raw(world))
    assert weights == list(world.outputs[0].weights)
    assert set(biases) == {world.outputs[0].bias}


@pytest.mark.parametrize("packing", [Packing.COLUMNS, Packing.ROWS])
@pytest.mark.parametrize("d", [1, 7, 30])
def test_a_published_result_gives_none_of_them(new_world, packing: Packing, d: int) -> None:
    world = new_world(N=128, d=d, packing=packing)
    weights, biases = solve(world, world.results[0])
    for found, true in zip(weights, world.outputs[0].weights, strict=True):
        assert found != true
        # Not near either: what is found is spread over all of Q.
        assert abs(found - true) > 1 << 40
    assert world.outputs[0].bias not in biases


def test_at_the_default_parameters(new_world) -> None:
    world = new_world(N=4096, d=30, count=569)
    weights, biases = solve(world, raw(world))
    assert weights == list(world.outputs[0].weights)
    assert set(biases) == {world.outputs[0].bias}
    found, _ = solve(world, world.results[0])
    assert not set(found) & set(weights)


def test_noise_on_c0_alone_hides_nothing(new_world) -> None:
    """Blur without p u + e1: c1 still is the plain sum."""
    world = new_world(d=5)
    s, w, public = world.statement, world.outputs[0], world.keys.public
    noise = draw_noise(s.params, s.count, s.bounds.f)
    zero = np.zeros_like(noise.u)
    half = replace(noise, u=zero, e1=zero)
    inputs = world.virtual(0)
    result = evaluate(s.params, public.p0, public.p1, inputs, w.weights, w.bias, s.positions, half).result
    assert solve(world, result)[0] == list(w.weights)


def test_the_same_randomness_twice_cancels_and_ours_is_fresh(new_world) -> None:
    """Two results under one u, e: their difference is a raw evaluation of the difference of the inputs."""
    world = new_world(d=4, blocks=2, count=20)
    s, w, public = world.statement, world.outputs[0], world.keys.public
    q = np.array(s.params.primes, dtype=np.uint64)[:, None]

    def difference(noises: list[Noise]) -> tuple[World, ResultCiphertext]:
        a, b = (
            evaluate(s.params, public.p0, public.p1, world.virtual(i), w.weights, w.bias, s.positions, noise).result
            for i, noise in enumerate(noises)
        )
        inputs = (world.stored[0] + q - world.stored[1]) % q
        c0, c1 = (a.c0 + q - b.c0) % q, (a.c1 + q - b.c1) % q
        return replace(world, stored=(inputs, *world.stored[1:])), ResultCiphertext(s.positions, c0, c1)

    noise = draw_noise(s.params, s.count, s.bounds.f)
    assert solve(*difference([noise, noise]))[0] == list(w.weights)
    fresh = draw_noise(s.params, s.count, s.bounds.f)
    assert not set(solve(*difference([noise, fresh]))[0]) & set(w.weights)


def test_unpublished_coefficients_would_give_the_weights_to_one_chosen_record(new_world) -> None:
    """In `rows`, one record (1, 0, ..., 0) makes every coefficient of c0 one weight. P keeps all but one secret."""
    world = new_world(N=64, d=8, packing=Packing.ROWS, count=1)
    s, w, keys = world.statement, world.outputs[0], world.keys
    record = np.zeros(64, dtype=np.int64)
    record[0] = 1 << s.params.SX
    chosen = replace(world, stored=(encrypt(np.random.default_rng(5), keys, record)[None],))
    everything = np.arange(64)
    noise = draw_noise(s.params, 64, s.bounds.f)
    public = keys.public

    def published(P: np.ndarray) -> list[int]:
        inputs = chosen.virtual(0)
        blinded = replace(noise, e0=noise.e0[: P.size])
        result = evaluate(s.params, public.p0, public.p1, inputs, w.weights, 0, P, blinded).result
        return [round(x / (1 << s.params.SX)) for x in keys.decrypt_integers_unverified(result)]

    # Blurred and re-randomised as ever, and still the weights to within 2^(f+1-SX), a few units.
    found = published(everything)[:8][::-1]
    assert max(abs(a - b) for a, b in zip(found, w.weights, strict=True)) <= 1 << max(0, s.bounds.f + 2 - s.params.SX)
    assert len(published(s.positions)) == 1


def test_the_reference_multiplication_of_these_tests_is_right() -> None:
    rng = np.random.default_rng(1)
    a = rng.integers(0, 100, 8).astype(object)
    turned = negacyclic(a, [0, 1])
    assert turned.tolist() == [-a[7], *a[:7].tolist()]
