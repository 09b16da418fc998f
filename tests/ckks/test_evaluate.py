"""Evaluation is exact, agrees with SEAL, and is blinded by fresh noise that is the same integers for every prime."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from privacy.ckks.canonical import result_digest
from privacy.ckks.evaluate import NOISE_PAIRS, Evaluation, Noise, draw_noise, evaluate
from privacy.ckks.keys import ClinicKeys
from privacy.ckks.packing import Packing, pack_columns, pack_rows, positions, rows_shifted
from privacy.ckks.params import ParameterSet
from privacy.errors import UsageError

BASE_WEIGHT = (1 << 28) - 1


def small(params: ParameterSet, N: int = 64) -> ParameterSet:
    return ParameterSet(f"test-{N}", N, params.primes, params.special_prime, params.SX, params.SW)


def uniform(rng: np.random.Generator, params: ParameterSet, *shape: int) -> np.ndarray:
    return np.stack([rng.integers(0, q, (*shape, params.N), dtype=np.uint64) for q in params.primes], axis=len(shape))


def no_noise(params: ParameterSet, published: int) -> Noise:
    zero = np.zeros(params.N, dtype=np.int64)
    return Noise(u=zero, e0=zero[:published], e1=zero)


def times(p: list[int], u: list[int]) -> list[int]:
    """p u in Z[X]/(X^N+1), schoolbook."""
    N = len(p)
    out = [0] * N
    for i, x in enumerate(u):
        for j, y in enumerate(p):
            out[(i + j) % N] += x * y if i + j < N else -x * y
    return out


def integers(params, p, inputs, weights, bias, P, noise, k: int, level: int) -> list[int]:
    """V + e of one component and prime over the integers; on P for k = 0."""
    pu = times(p[level].tolist(), noise.u.tolist())
    total = [sum(w * int(x) for w, x in zip(weights, column, strict=True)) for column in inputs[:, k, level].T]
    total = [a + b for a, b in zip(total, pu, strict=True)]
    if k == 0:
        return [total[i] + bias + int(e) for i, e in zip(P, noise.e0, strict=True)]
    return [a + int(e) for a, e in zip(total, noise.e1, strict=True)]


def check_exact(params, p0, p1, inputs, weights, bias, P, noise) -> Evaluation:
    found = evaluate(params, p0, p1, inputs, weights, bias, P, noise)
    for k, p, c, kappa in ((0, p0, found.result.c0, found.kappa0), (1, p1, found.result.c1, found.kappa1)):
        for level, q in enumerate(params.primes):
            wanted = integers(params, p, inputs, weights, bias, P, noise, k, level)
            assert c[level].tolist() == [v % q for v in wanted]
            # The identity that gives the quotients of the proof: c - (V + e) = kappa q.
            got = zip(c[level].tolist(), wanted, kappa[level].tolist(), strict=True)
            assert all(a - v == t * q for a, v, t in got)
    result_digest(params, found.result)
    return found


EXTREME = {
    "largest": [BASE_WEIGHT] * 5,
    "smallest": [-(1 << 28)] * 5,
    "alternating": [BASE_WEIGHT, -BASE_WEIGHT] * 2 + [1],
    "zero": [0] * 5,
    "one": [0, 0, 1, 0, 0],
}


@pytest.mark.parametrize("weights", EXTREME)
@pytest.mark.parametrize("bias", [0, (1 << 62) - 1, -(1 << 62) + 1, -(1 << 62), 1])
@pytest.mark.parametrize("residues", ["random", "largest", "zero"])
def test_the_result_is_the_exact_integer_sum(params, rng, weights: str, bias: int, residues: str) -> None:
    tiny = small(params, 16)
    p0, p1, inputs = uniform(rng, tiny), uniform(rng, tiny), uniform(rng, tiny, 5, 2)
    q = np.array(tiny.primes, dtype=np.uint64)[:, None]
    if residues != "random":
        inputs[:] = q - np.uint64(1) if residues == "largest" else 0
        p0[:] = p1[:] = q - np.uint64(1)
    P = np.array([0, 3, 15])
    check_exact(tiny, p0, p1, inputs, EXTREME[weights], bias, P, draw_noise(tiny, 3, 25))


@pytest.mark.parametrize("f", [0, 25, 34, 35, 36, 37, 39, 41])
def test_a_blur_beyond_the_primes_is_still_exact(params, rng, f: int) -> None:
    """On a coarse grid with few patients f exceeds 36 bits."""
    tiny = small(params, 16)
    inputs = uniform(rng, tiny, 2, 2)
    noise = draw_noise(tiny, 2, f)
    for sign in (1, -1):
        at_edge = Noise(noise.u, np.array([sign << f, noise.e0[1]]), noise.e1)
        P = np.array([1, 2])
        check_exact(tiny, uniform(rng, tiny), uniform(rng, tiny), inputs, [5, -7], 3, P, at_edge)


def test_every_noise_at_its_edge(params, rng) -> None:
    tiny = small(params, 16)
    inputs = np.zeros((1, 2, tiny.L, 16), dtype=np.uint64)
    edge = np.where(np.arange(16) % 2, NOISE_PAIRS, -NOISE_PAIRS)
    for u in (np.ones(16, dtype=np.int64), -np.ones(16, dtype=np.int64)):
        noise = Noise(u, edge[:3].copy(), edge)
        check_exact(tiny, uniform(rng, tiny), uniform(rng, tiny), inputs, [0], 0, np.array([0, 1, 2]), noise)


def seal_sum(params: ParameterSet, files: list[bytes], plaintexts: list[np.ndarray]) -> np.ndarray:
    """sum_i pt_i * ct_i by SEAL's Evaluator, in coefficient form (2, L, N)."""
    from privacy.ckks import backend
    from privacy.ckks.packing import coefficients_to_slots

    seal, total = backend._seal(params), None
    for file, polynomial in zip(files, plaintexts, strict=True):
        ct, product = backend.sealapi.Ciphertext(), backend.sealapi.Ciphertext()
        with backend._memory_file(file) as (_, path):
            ct.load(seal.context, path)
        plaintext = backend.sealapi.Plaintext()
        seal.encoder.encode(coefficients_to_slots(polynomial).tolist(), 1.0, plaintext)
        if plaintext.is_zero():
            continue
        seal.evaluator.multiply_plain(ct, plaintext, product)
        if total is None:
            total = product
        else:
            added = backend.sealapi.Ciphertext()
            seal.evaluator.add(total, product, added)
            total = added
    out = backend.sealapi.Ciphertext()
    seal.evaluator.transform_from_ntt(total, out)
    return backend.parse_ciphertext(params, backend._saved(out)).polynomials


def test_columns_agree_with_seal(params, clinic_keys: ClinicKeys, rng) -> None:
    d, n = 4, params.N
    encrypted = clinic_keys.encrypt_block(pack_columns(params, rng.uniform(-8, 8, (n, d))))
    weights = [BASE_WEIGHT, -(1 << 28) + 1, 12345, -1]
    polynomials = [np.concatenate([[float(w)], np.zeros(n - 1)]) for w in weights]
    wanted = seal_sum(params, [e.seal_bytes for e in encrypted], polynomials)
    arrays = np.stack([e.array for e in encrypted])
    P, public = positions(params, Packing.COLUMNS, d, n), clinic_keys.public
    found = evaluate(params, public.p0, public.p1, arrays, weights, 0, P, no_noise(params, n)).result
    assert np.array_equal(found.c0, wanted[0])
    assert np.array_equal(found.c1, wanted[1])


def test_rows_agree_with_seal(params, clinic_keys: ClinicKeys, rng) -> None:
    d = 30
    count = params.N // d
    (encrypted,) = clinic_keys.encrypt_block(pack_rows(params, rng.uniform(-8, 8, (count, d))))
    weights = [int(x) for x in rng.integers(-(1 << 28), 1 << 28, d)]
    polynomial = np.zeros(params.N)
    polynomial[:d] = weights[::-1]
    wanted = seal_sum(params, [encrypted.seal_bytes], [polynomial])
    P, public = positions(params, Packing.ROWS, d, count), clinic_keys.public
    virtual = np.stack(rows_shifted(params, encrypted.array, d))
    found = evaluate(params, public.p0, public.p1, virtual, weights, 0, P, no_noise(params, count)).result
    assert np.array_equal(found.c0, wanted[0][:, P])
    assert np.array_equal(found.c1, wanted[1])


@pytest.mark.parametrize("packing", [Packing.COLUMNS, Packing.ROWS])
def test_every_patients_answer_is_the_models(params, clinic_keys: ClinicKeys, rng, packing: Packing) -> None:
    d = 30
    count = 569 if packing is Packing.COLUMNS else params.N // d
    values = rng.uniform(-1, 1, (count, d))
    weights = [int(x) for x in rng.integers(-(1 << 28), 1 << 28, d)]
    bias = 1 << 59
    pack = pack_columns if packing is Packing.COLUMNS else pack_rows
    arrays = np.stack([e.array for e in clinic_keys.encrypt_block(pack(params, values))])
    if packing is Packing.ROWS:
        arrays = np.stack(rows_shifted(params, arrays[0], d))
    P, public = positions(params, packing, d, count), clinic_keys.public
    found = evaluate(params, public.p0, public.p1, arrays, weights, bias, P, draw_noise(params, count, 25))
    answers = clinic_keys.decrypt_unverified(found.result)
    wanted = values @ np.array(weights) / 2**params.SW + bias / 2**params.D
    assert np.abs(answers - wanted).max() < 1e-5


def test_noise_has_its_distribution_and_is_never_repeated(params) -> None:
    f = 10
    draws = [draw_noise(params, 4096, f) for _ in range(3)]
    for x in draws:
        assert x.u.shape == x.e1.shape == (params.N,)
        assert x.e0.shape == (4096,)
        assert set(np.unique(x.u)) == {-1, 0, 1}
        assert np.abs(x.e0).max() <= 1 << f
        assert np.abs(x.e1).max() <= NOISE_PAIRS
        # Frequencies and moments within eight standard deviations.
        assert abs((x.u == 0).mean() - 1 / 3) < 8 * (2 / 9 / params.N) ** 0.5
        assert abs(x.u.mean()) < 8 * (2 / 3 / params.N) ** 0.5
        assert abs((x.e1**2).mean() - 10.5) < 8 * 10.5 * (2 / params.N) ** 0.5
        assert abs((x.e0**2).mean() / ((1 << f) ** 2 / 3) - 1) < 8 * (0.8 / params.N) ** 0.5
    for name in (x.name for x in fields(Noise)):
        assert not np.array_equal(getattr(draws[0], name), getattr(draws[1], name))
        assert not np.array_equal(getattr(draws[1], name), getattr(draws[2], name))
    edges = np.concatenate([draw_noise(params, 4096, 1).e0 for _ in range(2)])
    assert set(np.unique(edges)) == {-2, -1, 0, 1, 2}


def test_the_noise_is_the_same_integers_for_every_prime(params, clinic_keys: ClinicKeys) -> None:
    """Encryptions of zero under the key decrypt to something short mod Q, which CRT of different noises would not."""
    public = clinic_keys.public
    P = positions(params, Packing.COLUMNS, 1, params.N)
    zero = np.zeros((1, 2, params.L, params.N), dtype=np.uint64)
    noise = draw_noise(params, params.N, 0)
    found = evaluate(params, public.p0, public.p1, zero, [0], 0, P, noise)
    assert max(abs(x) for x in clinic_keys.decrypt_integers_unverified(found.result)) < params.N * (21 + 21 + 1)
    # The trap: another u in the second prime.
    other = evaluate(params, public.p0, public.p1, zero, [0], 0, P, draw_noise(params, params.N, 0))
    mixed = found.result
    c0, c1 = mixed.c0.copy(), mixed.c1.copy()
    c0[1], c1[1] = other.result.c0[1], other.result.c1[1]
    garbage = clinic_keys.decrypt_integers_unverified(type(mixed)(mixed.positions, c0, c1))
    assert np.median([abs(x) for x in garbage]) > params.Q >> 4


def test_two_evaluations_of_one_input_share_nothing(params, rng) -> None:
    tiny = small(params)
    p0, p1, inputs = uniform(rng, tiny), uniform(rng, tiny), uniform(rng, tiny, 2, 2)
    P = np.arange(8)
    a, b = (evaluate(tiny, p0, p1, inputs, [1, 2], 3, P, draw_noise(tiny, 8, 20)).result for _ in range(2))
    assert not set(a.c1.reshape(-1).tolist()) & set(b.c1.reshape(-1).tolist())
    assert not np.array_equal(a.c0, b.c0)


def test_secrets_do_not_show_in_a_repr(params, rng) -> None:
    tiny = small(params, 16)
    noise = draw_noise(tiny, 2, 5)
    assert repr(noise) == "Noise()"
    found = evaluate(
        tiny, uniform(rng, tiny), uniform(rng, tiny), uniform(rng, tiny, 1, 2), [7], 3, np.array([0, 1]), noise
    )
    assert "kappa" not in repr(found)
    assert "noise" not in repr(found).lower()


def test_wrong_shapes_and_numbers_too_large_are_refused(params, rng) -> None:
    tiny = small(params, 16)
    p, inputs, P = uniform(rng, tiny), uniform(rng, tiny, 2, 2), np.array([0])
    noise = no_noise(tiny, 1)
    with pytest.raises(UsageError, match="shape"):
        evaluate(tiny, p, p, inputs, [1], 0, P, noise)
    with pytest.raises(UsageError, match="shape"):
        evaluate(tiny, p, p, inputs[:, :1], [1, 2], 0, P, noise)
    with pytest.raises(UsageError, match="too large"):
        evaluate(tiny, p, p, inputs, [1 << 52, 1], 0, P, noise)
    with pytest.raises(UsageError, match="too large"):
        evaluate(tiny, p, p, inputs, [1, 1], 1 << 90, P, noise)


def test_the_largest_weights_that_are_accepted_are_still_exact(params, rng) -> None:
    tiny = small(params, 16)
    p0, p1, P = uniform(rng, tiny), uniform(rng, tiny), np.array([0, 5])
    inputs = uniform(rng, tiny, 2, 2)

    def accepted(bits: int) -> bool:
        try:
            evaluate(tiny, p0, p1, inputs, [1 << bits, -(1 << bits)], 0, P, no_noise(tiny, 2))
        except UsageError:
            return False
        return True

    bits = max(b for b in range(28, 60) if accepted(b))
    assert bits >= 40
    for bias in (0, 1 << 66, -(1 << 66)):
        weights = [(1 << bits) - 1, -(1 << bits) + 3]
        check_exact(tiny, p0, p1, inputs, weights, bias, P, draw_noise(tiny, 2, 25))
