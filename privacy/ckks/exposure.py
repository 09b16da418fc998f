"""How much of a model its answers give away (docs/spec/protocol.md, section 5, exposure).

A published coefficient of a result is a value mod Q under noise that the evaluation proof bounds by 2^f, so it tells at
most log2(Q) - (f + 1) bits of the weights to whoever can decrypt it; a malicious clinic is not held to the schema's
ranges, so nothing less is counted. A model output has sum_i (b + 1) + b_bias + 1 bits. Once more bits are released
than it has, a linear output can be solved for: the blur slows that, only a cap prevents it.

f is always derived again from public numbers (section 10), never read from an entry. Integers and fractions only:
log2(Q) is rounded up to a multiple of 1/64.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from privacy.ckks.bounds import derive_bounds
from privacy.ckks.params import ParameterSet
from privacy.errors import UsageError

__all__ = ["Exposure", "log2_of_modulus", "model_bits", "proof_bits", "released_bits"]

_FRACTION: Final = 64
"""log2(Q) is a multiple of 1/64, rounded up: an owner is never told less than what is released."""


def log2_of_modulus(params: ParameterSet) -> Fraction:
    """log2(Q), rounded up to a multiple of 1/64."""
    power: int = params.Q**_FRACTION
    return Fraction((power - 1).bit_length(), _FRACTION)


def released_bits(params: ParameterSet, published: int, f: int) -> Fraction:
    """Bits that one result with `published` coefficients and a blur of f bits releases. Raises UsageError."""
    if published < 1 or f < 0:
        raise UsageError(f"a result publishes at least one coefficient under a blur of f >= 0, got {published}, {f}")
    return published * max(Fraction(0), log2_of_modulus(params) - (f + 1))


def model_bits(d: int, b: int, b_bias: int) -> int:
    """Bits of one output: d weights in [-2^b, 2^b) and a bias in [-2^b_bias, 2^b_bias)."""
    if d < 1 or b < 0 or b_bias < 0:
        raise UsageError(f"impossible model: d={d}, b={b}, b_bias={b_bias}")
    return d * (b + 1) + b_bias + 1


def proof_bits(
    params: ParameterSet, *, blocks: int, outputs: int, count: int, d: int, b: int, b_bias: int, grid_bits: int
) -> Fraction:
    """Bits that one evaluation proof releases of **each** of its outputs.

    It covers `blocks` blocks of `count` patients under `outputs` outputs; b and b_bias are the largest of those
    outputs, as in the proof's own bounds.

    Raises:
        UsageError, VerificationFailed: no such proof can exist (`derive_bounds`).
    """
    bounds = derive_bounds(
        params, instances=blocks * outputs, published=count, d=d, b=b, b_bias=b_bias, grid_bits=grid_bits
    )
    return blocks * released_bits(params, count, bounds.f)


@dataclass(frozen=True)
class Exposure:
    """Bits released of one output against the bits that it has."""

    released: Fraction
    model_bits: int

    @property
    def share(self) -> Fraction:
        """Released bits as a fraction of the model's."""
        return self.released / self.model_bits

    @property
    def recoverable(self) -> bool:
        """Whether the answers may determine the output: a cohort larger than that gives the model to its clinic."""
        return self.released > self.model_bits
