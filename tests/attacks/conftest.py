"""A small world to attack: a clinic, a model, an evaluation, and a prover that shows its steps.

`Prover` follows the protocol in plain Python integers, sharing with the product only what a verifier fixes (bounds,
rows, the folded form, the transcript). A cheating prover overrides one step of it and keeps all others as good as
they can be made: quotients that are not integers become quotients mod r, values that do not fit are cut to fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from privacy.ckks.bounds import derive_bounds
from privacy.ckks.canonical import ResultCiphertext, input_digest, public_key_digest, result_digest
from privacy.ckks.evaluate import Evaluation, draw_noise, evaluate
from privacy.ckks.evaluation_proof import (
    EvaluationProof,
    EvaluationStatement,
    Form,
    Instance,
    OutputStatement,
    Rows,
    absorb_first,
    absorb_second,
    absorb_third,
    draw_chi,
)
from privacy.ckks.evaluation_prover import OutputWitness, prove_evaluation
from privacy.ckks.evaluation_verifier import VerifiedEvaluation, verify_evaluation, virtual_inputs
from privacy.ckks.keys import ClinicKeys
from privacy.ckks.packing import Packing, capacity, positions
from privacy.ckks.params import ParameterSet, parameter_set
from privacy.ckks.polynomial import negacyclic_multiply_mod
from privacy.models.certificate import weights_key
from privacy.zk import relations
from privacy.zk.group import ARKWORKS, ORDER, Group
from privacy.zk.randomness import SecretStream, random_scalar
from privacy.zk.relations import T4_ROWS, J, LinearProof, LinearSegment, inner

BASE = parameter_set("linear-4096")
B_WEIGHT, B_BIAS = 28, 62


def small_parameters(N: int) -> ParameterSet:
    """linear-4096's primes at a degree where a proof takes milliseconds; no security, same arithmetic."""
    return ParameterSet(f"test-{N}", N, BASE.primes, BASE.special_prime, BASE.SX, BASE.SW)


@dataclass(frozen=True)
class World:
    """Everything about one proven evaluation, secrets included."""

    keys: ClinicKeys
    stored: tuple[np.ndarray, ...]
    values: np.ndarray
    outputs: tuple[OutputWitness, ...]
    statement: EvaluationStatement
    evaluations: tuple[Evaluation, ...]

    @property
    def results(self) -> list[ResultCiphertext]:
        return [e.result for e in self.evaluations]

    def virtual(self, block: int) -> np.ndarray:
        return virtual_inputs(self.statement, self.stored[block])

    def prove(self) -> bytes:
        public = self.keys.public
        return prove_evaluation(self.statement, public.p0, public.p1, self.virtual, self.evaluations, self.outputs)

    def verify(
        self,
        proof: bytes,
        statement: EvaluationStatement | None = None,
        results: Sequence[ResultCiphertext] | None = None,
        stored: Sequence[np.ndarray] | None = None,
        group: Group = ARKWORKS,
        p0: np.ndarray | None = None,
        p1: np.ndarray | None = None,
    ) -> VerifiedEvaluation:
        results = self.results if results is None else results
        stored = self.stored if stored is None else stored
        public = self.keys.public
        return verify_evaluation(
            self.statement if statement is None else statement,
            proof,
            public.p0 if p0 is None else p0,
            public.p1 if p1 is None else p1,
            lambda block: stored[block],
            lambda instance: results[instance],
            group=group,
        )

    def claiming(self, results: Sequence[ResultCiphertext]) -> EvaluationStatement:
        """The statement with other results."""
        digests = tuple(result_digest(self.statement.params, r) for r in results)
        return replace(self.statement, result_digests=digests)


def encrypt(rng: np.random.Generator, keys: ClinicKeys, coefficients: np.ndarray) -> np.ndarray:
    """A textbook encryption (2, L, N) of integer coefficients, without any FHE library."""
    params = keys.params
    c1 = np.stack([rng.integers(0, q, params.N, dtype=np.uint64) for q in params.primes])
    noise = rng.integers(-9, 10, params.N)
    product = negacyclic_multiply_mod(params, c1, keys.s).astype(object)
    q = np.array(params.primes, dtype=object)[:, None]
    c0 = (coefficients.astype(object) + noise.astype(object) - product) % q
    return np.stack([c0.astype(np.uint64), c1])


def negacyclic(a: np.ndarray, u: Sequence[int]) -> np.ndarray:
    """a * u in Z[X]/(X^N+1) on Python integers; a: (..., N)."""
    N = a.shape[-1]
    out = np.zeros(a.shape, dtype=object)
    for i, x in enumerate(u):
        if x:
            out[..., i:] += a[..., : N - i] * x
            out[..., :i] -= a[..., N - i :] * x
    return out


def make_world(
    N: int = 64,
    d: int = 3,
    count: int | None = None,
    packing: Packing = Packing.COLUMNS,
    blocks: int = 1,
    outputs: int = 1,
    grid_bits: int = 6,
    seed: int = 1,
    first_block: int = 0,
) -> World:
    rng = np.random.default_rng(seed)
    params = BASE if N == BASE.N else small_parameters(N)
    count = capacity(params, packing, d) if count is None else count
    s, e_pk = rng.integers(-1, 2, N), rng.integers(-10, 11, N)
    keys = ClinicKeys(params, "clinic-a", 1, s, e_pk)
    public = keys.public
    values = rng.integers(-(1 << 34), 1 << 34, (blocks, count, d))
    stored = []
    for block in values:
        if packing is Packing.COLUMNS:
            table = np.zeros((d, N), dtype=np.int64)
            table[:, :count] = block.T
        else:
            table = np.zeros((1, N), dtype=np.int64)
            table[0, : count * d] = block.reshape(-1)
        stored.append(np.stack([encrypt(rng, keys, row) for row in table]))
    key = weights_key(d)
    witnesses, committed = [], []
    for o in range(outputs):
        weights = tuple(int(x) for x in rng.integers(-(1 << B_WEIGHT), 1 << B_WEIGHT, d))
        w = OutputWitness(weights, int(rng.integers(-(1 << 60), 1 << 60)), random_scalar())
        witnesses.append(w)
        C_W = ARKWORKS.encode(key.commit([*w.weights, w.bias], w.rho))
        committed.append(OutputStatement(f"y{o}", B_WEIGHT, B_BIAS, C_W))
    P = positions(params, packing, d, count)
    bounds = derive_bounds(
        params, instances=blocks * outputs, published=count, d=d, b=B_WEIGHT, b_bias=B_BIAS, grid_bits=grid_bits
    )
    name = iter(range(1, 100))
    some_id = lambda: bytes([next(name)] * 32)  # noqa: E731
    statement = EvaluationStatement(
        params=params,
        packing=packing,
        d=d,
        count=count,
        first_block=first_block,
        blocks=blocks,
        grid_bits=grid_bits,
        clinic="clinic-a",
        key_number=1,
        key_id=some_id(),
        p0_digest=public_key_digest(params, public.p0),
        key_certificate=some_id(),
        model_id=some_id(),
        model_certificate=some_id(),
        schema=some_id(),
        outputs=tuple(committed),
        records_id=some_id(),
        handles=some_id(),
        head_size=5,
        head_root=some_id(),
        input_digests=tuple(input_digest(params, bytes([1] * 32), ct) for block in stored for ct in block),
        result_digests=(bytes(32),) * (blocks * outputs),
    )
    evaluations = []
    for block in stored:
        virtual = virtual_inputs(statement, block)
        for w in witnesses:
            noise = draw_noise(params, count, bounds.f)
            evaluations.append(evaluate(params, public.p0, public.p1, virtual, w.weights, w.bias, P, noise))
    world = World(keys, tuple(stored), values, tuple(witnesses), statement, tuple(evaluations))
    return replace(world, statement=world.claiming(world.results))


@dataclass
class Secrets:
    """What a prover holds of one instance. Lists of Python integers; a cheat puts in what it likes."""

    u: list[int]
    e0: list[int]
    e1: list[int]
    nu: list[int]
    mu0: list[int]
    mu1: list[int]
    t4: list[int]
    rho: int
    rho_K: int
    C: Any = None
    C_K: Any = None
    K: list[int] | None = None
    z0: list[int] | None = None
    z1: list[int] | None = None
    zu: list[int] | None = None
    xi: list[int] | None = None

    def first(self) -> list[int]:
        return [*self.u, *self.nu, *self.mu0, *self.mu1]


class Prover:
    """The steps of section 5, one method each. `prove` gives bytes whatever the witness is."""

    def __init__(self, world: World, results: Sequence[ResultCiphertext] | None = None) -> None:
        self.world = world
        self.results = list(world.results if results is None else results)
        self.statement = world.claiming(self.results)
        self.bounds = self.statement.bounds
        self.params = self.statement.params
        self.keys = self.statement.witness_keys()

    # Steps, in order. Each may be overridden.

    def secrets(self, b: int) -> Secrets:
        stream, bounds, noise = SecretStream(), self.bounds, self.world.evaluations[b].noise
        # Masks are a little shorter than the protocol's: then a cheat needs no restarts.
        draw = lambda M, T: stream.symmetric(J, M - 2 * T).tolist()  # noqa: E731
        return Secrets(
            u=noise.u.tolist(),
            e0=noise.e0.tolist(),
            e1=noise.e1.tolist(),
            nu=draw(bounds.Mu, bounds.Tu),
            mu0=draw(bounds.M0, bounds.T0),
            mu1=draw(bounds.M1, bounds.T1),
            t4=[stream.below(bounds.B4) - bounds.B4 // 2 for _ in range(T4_ROWS)],
            rho=random_scalar(),
            rho_K=random_scalar(),
        )

    def weights(self, output: int) -> tuple[list[int], int]:
        w = self.world.outputs[output]
        return list(w.weights), w.bias

    def commit_first(self, b: int, x: Secrets) -> None:
        x.C = self.keys[0].commit([v % ORDER for v in x.first()], x.rho)

    def project(self, b: int, x: Secrets, rows: Rows) -> None:
        P = self.statement.positions
        x.z0 = [dot(r, x.e0) + m for r, m in zip(rows.R0[:, P].tolist(), x.mu0, strict=True)]
        x.z1 = [dot(r, x.e1) + m for r, m in zip(rows.R1.tolist(), x.mu1, strict=True)]
        x.zu = [dot(r, x.u) + m for r, m in zip(rows.Ru.tolist(), x.nu, strict=True)]

    def quotients(self, b: int, x: Secrets, rows: Rows) -> None:
        x.K = [
            value // q if value % q == 0 else value * pow(q, -1, ORDER) % ORDER
            for k in (0, 1)
            for level, q in enumerate(self.params.primes)
            for value in self.row_values(b, x, rows, k, level)
        ]

    def commit_second(self, b: int, x: Secrets) -> None:
        x.C_K = self.keys[1].commit([v % ORDER for v in (*x.K, *x.t4)], x.rho_K)

    def loose(self, b: int, x: Secrets, chi: list[list[int]]) -> None:
        vector = [*x.mu0, *x.mu1, *x.K]
        x.xi = [centred(m + dot(row, vector)) for m, row in zip(x.t4, chi, strict=True)]

    # The rest is the protocol's.

    def row_values(self, b: int, x: Secrets, rows: Rows, k: int, level: int) -> list[int]:
        """<R_j, c - sum w ct - bias 1_P - p u> + mu - z over the integers, for each row j."""
        block, output = divmod(b, len(self.statement.outputs))
        P, result, public = self.statement.positions, self.results[b], self.world.keys.public
        weights, bias = self.weights(output)
        p = (public.p0 if k == 0 else public.p1)[level].astype(object)
        residual = -negacyclic(p, x.u)
        for w, ct in zip(weights, self.world.virtual(block)[:, k, level].astype(object), strict=True):
            residual = residual - w * ct
        if k == 0:
            residual = residual[P] - bias + result.c0[level].astype(object)
            matrix, mu, z = rows.R0[:, P], x.mu0, x.z0
        else:
            residual = residual + result.c1[level].astype(object)
            matrix, mu, z = rows.R1, x.mu1, x.z1
        return [dot(r, residual) + m - y for r, m, y in zip(matrix.tolist(), mu, z, strict=True)]

    def prove(self) -> bytes:
        statement, bounds = self.statement, self.bounds
        transcript = statement.start()
        held = [self.secrets(b) for b in range(statement.instances)]
        for b, x in enumerate(held):
            self.commit_first(b, x)
        absorb_first(transcript, ARKWORKS, [x.C for x in held])
        rows = Rows.draw(transcript, self.params, statement.positions)
        for b, x in enumerate(held):
            self.project(b, x, rows)
            x.z0, x.z1, x.zu = fit(x.z0, bounds.M0), fit(x.z1, bounds.M1), fit(x.zu, bounds.Mu)
            self.quotients(b, x, rows)
            self.commit_second(b, x)
        instances = [Instance(x.C, x.C_K, tuple(x.z0), tuple(x.z1), tuple(x.zu), ()) for x in held]
        absorb_second(transcript, ARKWORKS, instances)
        chi = draw_chi(transcript, self.params)
        for b, x in enumerate(held):
            self.loose(b, x, chi)
            x.xi = fit(x.xi, bounds.B4)
        instances = [replace(i, xi=tuple(x.xi)) for i, x in zip(instances, held, strict=True)]
        absorb_third(transcript, instances)
        form = Form(statement, rows, chi, transcript)
        opening = self.open(transcript, form, held, instances)
        return EvaluationProof(tuple(instances), opening).encode(statement)

    def open(self, transcript: Any, form: Form, held: list[Secrets], instances: list[Instance]) -> LinearProof:
        segments, alphas, beta = self.opening_statement(form, instances)
        rho = form.rho
        combine = lambda get: [sum(r * v for r, v in zip(rho, c)) for c in zip(*(get(x) for x in held))]  # noqa: B905,E731
        witness = [combine(lambda x: x.first()), combine(lambda x: [*x.K, *x.t4])]
        blindings = [inner(rho, [x.rho for x in held]), inner(rho, [x.rho_K for x in held])]
        for o, output in enumerate(self.world.outputs):
            weights, bias = self.weights(o)
            witness.append([*weights, bias])
            blindings.append(output.rho)
        return forced_linear(transcript, segments, alphas, beta, witness, blindings)

    def opening_statement(
        self, form: Form, instances: list[Instance]
    ) -> tuple[list[LinearSegment], list[list[int]], int]:
        """What the verifier will have T1 prove."""
        statement, public = self.statement, self.world.keys.public
        alphas_w = [[0] * (statement.d + 1) for _ in statement.outputs]
        beta = 0
        for block in range(statement.blocks):
            base = form.alpha_weights(self.world.virtual(block))
            for o in range(len(statement.outputs)):
                b = block * len(statement.outputs) + o
                alphas_w[o] = [(x + form.rho[b] * y) % ORDER for x, y in zip(alphas_w[o], base, strict=True)]
                beta += form.rho[b] * form.beta(self.results[b], instances[b])
        segments = statement.segments(instances, form.rho)
        return segments, [*form.alpha(public.p0, public.p1), *alphas_w], beta % ORDER


def dot(row: Sequence[int], values: Sequence[int]) -> int:
    return sum(a * b for a, b in zip(row, values, strict=True) if a)


def centred(value: int) -> int:
    value %= ORDER
    return value - ORDER if value > ORDER // 2 else value


def fit(values: Sequence[int], bound: int) -> list[int]:
    """What is out of range would be refused at once; 0 at least is looked at."""
    return [v if abs(v) <= bound else 0 for v in values]


def forced_linear(
    transcript: Any,
    segments: Sequence[LinearSegment],
    alphas: Sequence[Sequence[int]],
    beta: int,
    witness: Sequence[Sequence[int]],
    blindings: Sequence[int],
) -> LinearProof:
    """T1 for any witness, true or not; responses that never fit their width are cut."""
    relations._absorb_statement(transcript, segments, beta)
    for _ in range(20):
        proof, fits = _try_linear(transcript.copy(), segments, alphas, witness, blindings)
        if fits:
            break
    return proof


def _try_linear(
    transcript: Any,
    segments: Sequence[LinearSegment],
    alphas: Sequence[Sequence[int]],
    witness: Sequence[Sequence[int]],
    blindings: Sequence[int],
) -> tuple[LinearProof, bool]:
    stream = SecretStream()
    k = [relations._masks(stream, s.runs) for s in segments]
    k_blindings = [random_scalar() for _ in segments]
    A = tuple(s.key.commit(part, rho) for s, part, rho in zip(segments, k, k_blindings, strict=True))
    t = sum(inner(a, part) for a, part in zip(alphas, k, strict=True)) % ORDER
    c = relations._challenge(transcript, ARKWORKS, A, t)
    responses, fits = [], True
    for segment, mask, v in zip(segments, k, witness, strict=True):
        z: list[int] = []
        for run in segment.runs:
            part = slice(len(z), len(z) + run.count)
            values = [a + c * centred(x) for a, x in zip(mask[part], v[part], strict=True)]
            limit = 1 << 8 * run.width
            fits = fits and (not run.short or 0 <= min(values) <= max(values) < limit)
            z += [x % limit if run.short else x % ORDER for x in values]
        responses.append(tuple(z))
    r = tuple((a + c * rho) % ORDER for a, rho in zip(k_blindings, blindings, strict=True))
    return LinearProof(A, t, tuple(responses), r), fits


@pytest.fixture(autouse=True)
def cheaters_do_not_check_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """An honest prover refuses witnesses beyond their bounds; whoever cheats runs a prover without that check."""
    monkeypatch.setattr(relations, "_check_bounds", lambda runs, v: None)


@pytest.fixture(scope="session")
def world() -> World:
    """One block, one output, 64 patients with 3 features in columns."""
    return make_world()


@pytest.fixture(scope="session")
def pair() -> World:
    """Two blocks under two outputs in one proof: all responses have full size."""
    return make_world(blocks=2, outputs=2, count=40, seed=2)


@pytest.fixture(scope="session")
def new_world() -> Callable[..., World]:
    return make_world
