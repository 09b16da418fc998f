"""The server's side of the evaluation proof (docs/spec/protocol.md, section 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from privacy.ckks.evaluate import Evaluation
from privacy.ckks.evaluation_proof import (
    EvaluationProof,
    EvaluationStatement,
    Form,
    Instance,
    Rows,
    absorb_first,
    absorb_second,
    absorb_third,
    check_public_key,
    draw_chi,
)
from privacy.ckks.folding import one_blas_thread
from privacy.errors import UsageError
from privacy.zk.group import ARKWORKS, ORDER
from privacy.zk.randomness import SecretStream, random_scalar
from privacy.zk.relations import T4_ROWS, J, Masks, inner, prove_linear
from privacy.zk.transcript import Transcript

__all__ = ["OutputWitness", "prove_evaluation"]

_MAX_ATTEMPTS = 200
"""An honest attempt passes with probability 0.8: this many failures mean a bug, not bad luck."""

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class OutputWitness:
    """Opening of one C_W: weights, bias, blinding."""

    weights: tuple[int, ...] = field(repr=False)
    bias: int = field(repr=False)
    rho: int = field(repr=False)


@dataclass(frozen=True)
class _Masks:
    """Masks of one instance and the blindings of its two commitments."""

    nu: IntArray
    mu0: IntArray
    mu1: IntArray
    t4: list[int]
    rho: int
    rho_quotients: int


@one_blas_thread
def prove_evaluation(
    statement: EvaluationStatement,
    p0: npt.NDArray[np.uint64],
    p1: npt.NDArray[np.uint64],
    inputs: Callable[[int], npt.NDArray[np.uint64]],
    evaluations: Sequence[Evaluation],
    outputs: Sequence[OutputWitness],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> bytes:
    """Prove that every result of `evaluations` (block-major, then output) is what the statement says.

    `inputs(block)` returns (d, 2, L, N) virtual inputs of block 0.. of this statement and is called once a block,
    so memory does not grow with their number. `progress(done, total)` counts blocks folded.

    Raises:
        UsageError: the evaluations are not of this statement.
        VerificationFailed: p0 or p1 is not the certified one.
    """
    if len(evaluations) != statement.instances or len(outputs) != len(statement.outputs):
        raise UsageError("one evaluation an instance and one opening an output are needed")
    check_public_key(statement, p0, p1)
    opening_masks = Masks(statement.opening_keys(), statement.shapes())
    transcript = statement.start()
    for _ in range(_MAX_ATTEMPTS):
        # Nothing of an attempt that fails is ever shown; masks and commitments are drawn anew.
        attempt = transcript.copy()
        found = _attempt(statement, attempt, evaluations)
        if found is not None:
            break
    else:
        raise UsageError("the proof restarted too often: the evaluations do not fit the statement's bounds")
    rows, chi, instances, masks = found
    form = Form(statement, rows, chi, attempt)
    alpha = form.alpha(p0, p1)
    vectors = [_first_vector(e, m) for e, (m, _) in zip(evaluations, masks, strict=True)]
    first = _combine(form.rho, vectors, [m.rho for m, _ in masks])
    second = _combine(form.rho, [K + m.t4 for m, K in masks], [m.rho_quotients for m, _ in masks])
    alphas_w = [[0] * (statement.d + 1) for _ in statement.outputs]
    beta = 0
    for block in range(statement.blocks):
        base = form.alpha_weights(inputs(block))
        for o in range(len(statement.outputs)):
            b = block * len(statement.outputs) + o
            rho = form.rho[b]
            alphas_w[o] = [(x + rho * y) % ORDER for x, y in zip(alphas_w[o], base, strict=True)]
            beta += rho * form.beta(evaluations[b].result, instances[b])
        progress(block + 1, statement.blocks)
    segments = statement.segments(instances, form.rho)
    witness = [first[0], second[0], *([*o.weights, o.bias] for o in outputs)]
    blindings = [first[1], second[1], *(o.rho for o in outputs)]
    opening = prove_linear(attempt, segments, [*alpha, *alphas_w], beta % ORDER, witness, blindings, opening_masks)
    return EvaluationProof(tuple(instances), opening).encode(statement)


def _attempt(
    statement: EvaluationStatement, transcript: Transcript, evaluations: Sequence[Evaluation]
) -> tuple[Rows, list[list[int]], list[Instance], list[tuple[_Masks, list[int]]]] | None:
    """Steps 1 to 4 up to xi; None when any abort test of any instance fails (all are taken together)."""
    params, bounds, group = statement.params, statement.bounds, ARKWORKS
    first, second = statement.witness_keys()
    stream = SecretStream()
    masks = [_draw_masks(statement, stream) for _ in evaluations]
    commitments = [first.commit(_first_vector(e, m), m.rho) for e, m in zip(evaluations, masks, strict=True)]
    absorb_first(transcript, group, commitments)
    rows = Rows.draw(transcript, params, statement.positions)
    R0 = rows.R0[:, statement.positions].astype(np.float64)
    R1, Ru = rows.R1.astype(np.float64), rows.Ru.astype(np.float32)
    instances, quotients = [], []
    for evaluation, mask, C in zip(evaluations, masks, commitments, strict=True):
        noise = evaluation.noise
        over0 = _project(R0, np.vstack([noise.e0[None], evaluation.kappa0]))
        over1 = _project(R1, np.vstack([noise.e1[None], evaluation.kappa1]))
        over_u = (Ru @ noise.u.astype(np.float32)).astype(np.int64)
        z0, z1, zu = over0[0] + mask.mu0, over1[0] + mask.mu1, over_u + mask.nu
        limits = ((z0, bounds.M0 - bounds.T0), (z1, bounds.M1 - bounds.T1), (zu, bounds.Mu - bounds.Tu))
        if any(int(np.abs(z).max()) > limit for z, limit in limits):
            return None
        if int(np.abs(over0[1:]).max()) > bounds.K0 or int(np.abs(over1[1:]).max()) > bounds.K1:
            return None
        K = [int(x) for x in np.concatenate([over0[1:].ravel(), over1[1:].ravel()])]
        quotients.append(K)
        C_K = second.commit(K + mask.t4, mask.rho_quotients)
        instances.append(Instance(C, C_K, tuple(z0.tolist()), tuple(z1.tolist()), tuple(zu.tolist()), xi=()))
    absorb_second(transcript, group, instances)
    chi = draw_chi(transcript, params)
    complete = []
    for x, mask, K in zip(instances, masks, quotients, strict=True):
        loose = [int(v) for v in (*mask.mu0, *mask.mu1)] + K
        xi = tuple(m + inner(row, loose) for m, row in zip(mask.t4, chi, strict=True))
        if max(abs(v) for v in xi) > bounds.B4 - bounds.honest4:
            return None
        complete.append(Instance(x.C, x.C_K, x.z0, x.z1, x.zu, xi))
    absorb_third(transcript, complete)
    return rows, chi, complete, list(zip(masks, quotients, strict=True))


def _draw_masks(statement: EvaluationStatement, stream: SecretStream) -> _Masks:
    bounds = statement.bounds
    return _Masks(
        nu=stream.symmetric(J, bounds.Mu),
        mu0=stream.symmetric(J, bounds.M0),
        mu1=stream.symmetric(J, bounds.M1),
        t4=[stream.below(2 * bounds.B4 + 1) - bounds.B4 for _ in range(T4_ROWS)],
        rho=random_scalar(),
        rho_quotients=random_scalar(),
    )


def _first_vector(evaluation: Evaluation, mask: _Masks) -> list[int]:
    parts: list[int] = np.concatenate([evaluation.noise.u, mask.nu, mask.mu0, mask.mu1]).tolist()
    return parts


def _project(rows: npt.NDArray[np.float64], vectors: IntArray) -> IntArray:
    """rows @ v for each vector, exactly: (number of vectors, J). Limbs keep sums below 2^53 when they must."""
    largest = int(np.abs(vectors).max())
    if largest * vectors.shape[1] < 1 << 53:
        return (vectors.astype(np.float64) @ rows.T).astype(np.int64)
    low = vectors & 0xFFFFFF
    return _project(rows, low) + (_project(rows, vectors >> 24) << 24)


def _combine(rho: Sequence[int], vectors: Sequence[Sequence[int]], blindings: Sequence[int]) -> tuple[list[int], int]:
    """sum_b rho_b v_b and its blinding; integers when there is one instance, residues otherwise."""
    total = [rho[0] * x for x in vectors[0]]
    for weight, v in zip(rho[1:], vectors[1:], strict=True):
        total = [a + weight * x for a, x in zip(total, v, strict=True)]
    if len(vectors) > 1:
        total = [x % ORDER for x in total]
    return total, inner(rho, blindings) % ORDER
