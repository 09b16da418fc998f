"""Evaluation of a linear model on encrypted records, with re-randomisation (docs/spec/protocol.md, section 5).

The server computes on canonical arrays in NumPy: no rotation, relinearisation or rescale is needed, so no FHE
library is either. Per block and output

    ct = sum_i w_i ct_i + bias 1_P + p u + e   mod Q,  published as (c0 on P, all of c1).

Without p u + e, anyone could solve for the weights from the public ciphertexts; with it, a result is an encryption
under fresh randomness. Together with the residues, the evaluation hands back kappa = (c - (sum + e)) / q, the integer
quotient vector per component and prime, from which the prover's row quotients follow by one projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from privacy.ckks.canonical import ResultCiphertext
from privacy.ckks.params import ParameterSet
from privacy.ckks.polynomial import negacyclic_multiply_integer
from privacy.errors import UsageError
from privacy.zk.randomness import SecretStream

__all__ = ["Evaluation", "Noise", "draw_noise", "evaluate"]

IntArray = npt.NDArray[np.int64]
Residues = npt.NDArray[np.uint64]

NOISE_PAIRS = 21
"""e1 is centred binomial with |e1| <= 21, the width of fresh encryption noise."""


@dataclass(frozen=True)
class Noise:
    """Secret randomness of one result: u ternary (N,), e0 on P in [-2^f, 2^f] (the blur), e1 (N,)."""

    u: IntArray = field(repr=False)
    e0: IntArray = field(repr=False)
    e1: IntArray = field(repr=False)


@dataclass(frozen=True)
class Evaluation:
    """A result and what its proof needs: the noise and the quotients kappa0 (L, |P|), kappa1 (L, N). Secret."""

    result: ResultCiphertext
    noise: Noise = field(repr=False)
    kappa0: IntArray = field(repr=False)
    kappa1: IntArray = field(repr=False)


def draw_noise(params: ParameterSet, published: int, f: int) -> Noise:
    """Fresh noise from the operating system's randomness; the same integers serve every prime."""
    stream = SecretStream()
    return Noise(
        u=stream.ternary(params.N),
        e0=stream.symmetric(published, 1 << f),
        e1=stream.centred_binomial(params.N, NOISE_PAIRS),
    )


def evaluate(
    params: ParameterSet,
    p0: Residues,
    p1: Residues,
    inputs: Residues,
    weights: Sequence[int],
    bias: int,
    positions: IntArray,
    noise: Noise,
) -> Evaluation:
    """Evaluate one output on one block.

    p0, p1: (L, N). inputs: (d, 2, L, N) residues in coefficient form. weights: d integers at scale 2^SW, bias at
    scale 2^D. positions: sorted int64 indices of the published coefficients of c0.

    Raises:
        UsageError: shapes differ, or numbers so large that the float64 quotient estimate could be off by more
            than one.
    """
    d = len(weights)
    if inputs.shape != (d, 2, params.L, params.N):
        raise UsageError(f"inputs have shape {inputs.shape}, expected {(d, 2, params.L, params.N)}")
    primes = np.array(params.primes, dtype=np.int64)[:, None]
    # The estimate V/q in float64 must be right to within 1/2: |V| <= magnitude, d + 3 roundings of 2^-53.
    magnitude = (sum(abs(w) for w in weights) + params.N + 1) * max(params.primes) + abs(bias)
    if magnitude * (d + 3) >> 52 >= min(params.primes) // 2:
        raise UsageError("the weights are too large for this evaluator's quotient estimate")
    w = np.array(weights, dtype=np.int64)
    flat = inputs.reshape(d, -1).view(np.int64)
    # V is computed modulo 2^64 (wrapping) and approximately; together they determine it exactly.
    total = np.zeros(flat.shape[1], dtype=np.int64)
    product = np.empty_like(total)
    for i in range(d):
        np.multiply(flat[i], w[i], out=product)
        total += product
    wrapped = total.reshape(2, params.L, params.N)
    estimate = (w.astype(np.float64) @ flat.astype(np.float64)).reshape(2, params.L, params.N)
    shift = np.stack([negacyclic_multiply_integer(p0, noise.u), negacyclic_multiply_integer(p1, noise.u)])
    wrapped += shift
    estimate += shift
    bias_wrapped = (bias + (1 << 63)) % (1 << 64) - (1 << 63)  # a bias may exceed 63 bits
    # The blur may exceed q on a coarse grid, so the estimate includes the noise.
    on_P = estimate[0][:, positions] + float(bias) + noise.e0
    c0, kappa0 = _reduce(wrapped[0][:, positions] + bias_wrapped + noise.e0, on_P, primes)
    c1, kappa1 = _reduce(wrapped[1] + noise.e1, estimate[1] + noise.e1, primes)
    return Evaluation(ResultCiphertext(positions, c0, c1), noise, kappa0, kappa1)


def _reduce(wrapped: IntArray, estimate: npt.NDArray[np.float64], primes: IntArray) -> tuple[Residues, IntArray]:
    """(c, kappa) with c = V + kappa q in [0, q), from V mod 2^64 and V approximately."""
    quotient = np.floor(estimate / primes).astype(np.int64)
    c = wrapped - quotient * primes
    for _ in range(2):  # the estimate is off by less than one; its floor may add one more
        correction = (c < 0).astype(np.int64) - (c >= primes).astype(np.int64)
        c += correction * primes
        quotient -= correction
    return c.astype(np.uint64), -quotient
