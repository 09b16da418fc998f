"""The auditor's side of the evaluation proof (docs/spec/protocol.md, sections 5 and 9). No FHE library, no secret.

Steps, in the order of the protocol:

1. derive every bound from the public numbers; decode the proof strictly;
2. replay the transcript: statement, C_b, rows, z_b (|z| <= M), C_K,b, chi, xi_b (|xi| <= B4), zeta, rho;
3. per block: hash the arrays that are about to be used and compare with the statement's digests, then fold them;
4. check the one opening T1 of sum_b rho_b C_b, sum_b rho_b C_K,b and every C_W, each under its own generators.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import InitVar, dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from privacy.ckks.canonical import ResultCiphertext, input_digest, result_digest
from privacy.ckks.evaluation_proof import (
    EvaluationProof,
    EvaluationStatement,
    Form,
    Rows,
    absorb_first,
    absorb_second,
    absorb_third,
    check_public_key,
    draw_chi,
)
from privacy.ckks.folding import one_blas_thread
from privacy.ckks.packing import Packing, rows_shifted
from privacy.errors import UsageError, VerificationFailed
from privacy.zk.group import ARKWORKS, ORDER, Group

__all__ = ["VerifiedEvaluation", "verify_evaluation", "virtual_inputs"]

Residues = npt.NDArray[np.uint64]

_TOKEN = object()


@dataclass(frozen=True)
class VerifiedEvaluation:
    """What a verified proof says; only `verify_evaluation` makes one."""

    statement: EvaluationStatement
    error: Fraction
    """Largest distance, in answer units, between a decryption and the integer result."""
    blur_bits: int
    made_by: InitVar[object]

    def __post_init__(self, made_by: object) -> None:
        if made_by is not _TOKEN:
            raise VerificationFailed("evaluation.unverified", "only verify_evaluation makes this object")


def virtual_inputs(statement: EvaluationStatement, stored: Residues) -> Residues:
    """The d inputs (d, 2, L, N) of a block from its stored ciphertexts (m, 2, L, N)."""
    if statement.packing is Packing.COLUMNS:
        return stored
    return np.stack(rows_shifted(statement.params, stored[0], statement.d))


@one_blas_thread
def verify_evaluation(
    statement: EvaluationStatement,
    proof: bytes,
    p0: Residues,
    p1: Residues,
    inputs: Callable[[int], Residues],
    results: Callable[[int], ResultCiphertext],
    progress: Callable[[int, int], None] = lambda done, total: None,
    group: Group = ARKWORKS,
) -> VerifiedEvaluation:
    """Verify an evaluation proof.

    `inputs(block)` returns the stored ciphertexts (m, 2, L, N) of block 0.. of this statement, `results(instance)`
    one result; each is asked for once, hashed and compared before use. p0 and p1 are those of the verified key
    certificate (p1 is derived again here). `statement.outputs[].commitment` must be certified `bounded`.

    Raises:
        DecodeError: the proof is not the canonical encoding of a proof of this shape.
        VerificationFailed: naming the check.
    """
    params, bounds = statement.params, statement.bounds
    check_public_key(statement, p0, p1)
    decoded = EvaluationProof.decode(statement, proof, group)
    # Half of the work is opening the responses, which depends on nothing that follows: it runs beside it.
    in_progress = decoded.opening.open_soon(statement.opening_keys(group))
    transcript = statement.start()
    absorb_first(transcript, group, [x.C for x in decoded.instances])
    rows = Rows.draw(transcript, params, statement.positions)
    for x in decoded.instances:
        for name, values, bound in (
            ("z0", x.z0, bounds.M0),
            ("z1", x.z1, bounds.M1),
            ("z'", x.zu, bounds.Mu),
            ("xi", x.xi, bounds.B4),
        ):
            if max(abs(v) for v in values) > bound:
                raise VerificationFailed("evaluation.shortness", f"a projection {name} exceeds its bound")
    absorb_second(transcript, group, decoded.instances)
    chi = draw_chi(transcript, params)
    absorb_third(transcript, decoded.instances)
    form = Form(statement, rows, chi, transcript)
    alphas_w = [[0] * (statement.d + 1) for _ in statement.outputs]
    beta = 0
    for block in range(statement.blocks):
        stored = inputs(block)
        _check_inputs(statement, block, stored)
        base = form.alpha_weights(virtual_inputs(statement, stored))
        for o in range(len(statement.outputs)):
            b = block * len(statement.outputs) + o
            result = results(b)
            _check_result(statement, b, result)
            alphas_w[o] = [(x + form.rho[b] * y) % ORDER for x, y in zip(alphas_w[o], base, strict=True)]
            beta += form.rho[b] * form.beta(result, decoded.instances[b])
        progress(block + 1, statement.blocks)
    segments = statement.segments(decoded.instances, form.rho, group)
    decoded.opening.verify(transcript, segments, [*form.alpha(p0, p1), *alphas_w], beta % ORDER, in_progress)
    return VerifiedEvaluation(statement, Fraction(bounds.err, 1 << params.D), bounds.f, _TOKEN)


def _check_inputs(statement: EvaluationStatement, block: int, stored: Residues) -> None:
    params, m = statement.params, statement.ciphertexts
    if stored.shape != (m, 2, params.L, params.N):
        raise VerificationFailed("evaluation.inputs", f"block {block} has shape {stored.shape}")
    expected = statement.input_digests[block * m : (block + 1) * m]
    for place, (array, digest) in enumerate(zip(stored, expected, strict=True)):
        try:
            found = input_digest(params, statement.key_id, array)
        except UsageError as error:
            raise VerificationFailed("evaluation.inputs", f"ciphertext {place} of block {block}: {error}") from error
        if found != digest:
            raise VerificationFailed(
                "evaluation.inputs", f"ciphertext {place} of block {block} is not the committed one"
            )


def _check_result(statement: EvaluationStatement, instance: int, result: ResultCiphertext) -> None:
    if not np.array_equal(result.positions, statement.positions):
        raise VerificationFailed("evaluation.positions", f"result {instance} publishes other coefficients")
    try:
        found = result_digest(statement.params, result)
    except UsageError as error:
        raise VerificationFailed("evaluation.results", f"result {instance}: {error}") from error
    if found != statement.result_digests[instance]:
        raise VerificationFailed("evaluation.results", f"result {instance} is not the one of the statement")
