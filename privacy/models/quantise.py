"""Linear models in integers: the rule, its error, its overflow check, its oracle (docs/spec/protocol.md, 1, 3 and 10).

Quantisation rule, version 1. With x' = (x - center) / half_width the schema's encoding (`identity`: center 0,
half_width 1) and D = SX + SW, an output w.x + bias of the float model becomes, in exact rational arithmetic and rounded
half to even,

    w_i  = round(weights_i * half_width_i * 2^SW)                      -2^b      <= w_i  < 2^b
    bias = round((bias + sum_i weights_i * center_i) * 2^D)            -2^b_bias <= bias < 2^b_bias
    x_i  = round(x'_i * 2^SX)                                          |x_i| <= ceil(X_i,max * 2^SX)
    z    = sum_i w_i x_i + bias                                        answer = z / 2^D

b and b_bias are public, one of each per output and on a coarse grid (b a multiple of 4, b_bias = D + a multiple of 4),
so that they say next to nothing about the weights. Everything public here (bounds, checks) is computed from the schema,
b and b_bias and never from a weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privacy.errors import UsageError, VerificationFailed
from privacy.models.linear import LinearModel, Link
from privacy.models.schema import Feature, Schema

__all__ = [
    "INPUT_NOISE",
    "ErrorBound",
    "QuantisedModel",
    "QuantisedOutput",
    "ScaleParameters",
    "answer_bound",
    "check_overflow",
    "default_bias_bits",
    "default_weight_bits",
    "encoded_bound_integer",
    "error_bound",
    "quantise",
    "quantise_inputs",
    "reference",
    "to_answers",
    "verify_overflow",
]

INPUT_NOISE = 32
"""No coefficient of an honest input ciphertext decrypts further than this from the integer x_i."""

_GRID_STEP = 4
_MIN_WEIGHT_BITS, _MAX_WEIGHT_BITS = 16, 60
_MAX_BIAS_EXCESS = 60
_INT64_SAFE = 2**62
# Subtraction and division round once each: |computed x' - exact x'| <= (2^-52 + 2^-106) |x'| + 2^-1075 < 2^-51.
_ENCODING_ROUNDING = Fraction(1, 2**51)


class ScaleParameters(Protocol):
    """What of a parameter set matters to integer models: scales 2^SX and 2^SW, and the modulus of the answers."""

    @property
    def input_scale_bits(self) -> int: ...

    @property
    def weight_scale_bits(self) -> int: ...

    @property
    def Q(self) -> int: ...  # noqa: N802


@dataclass(frozen=True)
class ErrorBound:
    """How far an answer may be from the float model (in exact arithmetic), in answer units. Public.

    It covers rounding of the weights, of the inputs and of the bias, and the noise of fresh input ciphertexts; it does
    not cover what the evaluation adds (`err` of docs/spec/protocol.md, section 10), which the attestation states.
    """

    weight_rounding: Fraction
    input_rounding: Fraction
    input_noise: Fraction
    bias_rounding: Fraction

    @property
    def total(self) -> Fraction:
        """The sum of all parts, exactly."""
        return self.weight_rounding + self.input_rounding + self.input_noise + self.bias_rounding

    def __float__(self) -> float:
        nearest = float(self.total)
        return nearest if nearest >= self.total else math.nextafter(nearest, math.inf)


@dataclass(frozen=True)
class QuantisedOutput:
    """One output in integers: secret `weights` at 2^SW and `bias` at 2^D; public name, b and b_bias.

    Raises UsageError when a weight or the bias is outside its public range.
    """

    name: str
    weights: tuple[int, ...] = field(repr=False)
    bias: int = field(repr=False)
    b: int
    b_bias: int

    def __post_init__(self) -> None:
        # The refusal goes to the owner alone; it names the bits that would do, never the weight.
        needed = max(_bits(weight) for weight in self.weights)
        if needed > self.b:
            advice = -(-needed // _GRID_STEP) * _GRID_STEP
            raise UsageError(
                f"output {self.name!r}: weights do not fit in b = {self.b} bits; weight_bits={advice} would do"
            )
        excess = _bits(self.bias) - self.b_bias
        if excess > 0:
            advice = self.b_bias - (-excess // _GRID_STEP) * _GRID_STEP
            raise UsageError(
                f"output {self.name!r}: the bias does not fit in {self.b_bias} bits; bias_bits={advice} would do"
            )


@dataclass(frozen=True)
class QuantisedModel:
    """A linear model in integers: what is committed, certified and evaluated. Weights are secret, the rest is public.

    Answers are integers at 2^D, D = `input_scale_bits` + `weight_scale_bits`, and lie on the public disclosure grid
    2^-`grid_bits` once rounded for disclosure. `error_bounds` has one entry per output.
    """

    name: str
    schema: Schema = field(repr=False)
    link: Link
    outputs: tuple[QuantisedOutput, ...]
    input_scale_bits: int
    weight_scale_bits: int
    grid_bits: int
    error_bounds: tuple[ErrorBound, ...] = field(repr=False)

    @property
    def answer_scale_bits(self) -> int:
        """D: answers are integers at 2^D."""
        return self.input_scale_bits + self.weight_scale_bits


def default_weight_bits(params: ScaleParameters) -> int:
    """b unless the owner asks for another: weights up to 16 for SW = 24 (b = 28)."""
    return (params.weight_scale_bits + 4) // _GRID_STEP * _GRID_STEP


def default_bias_bits(params: ScaleParameters) -> int:
    """b_bias unless the owner asks for another: a bias up to 16 (62 bits for SX + SW = 58)."""
    return params.input_scale_bits + params.weight_scale_bits + _GRID_STEP


def encoded_bound_integer(feature: Feature, input_scale_bits: int) -> int:
    """ceil(X_max * 2^SX), exactly: no integer input of this feature exceeds it in magnitude."""
    return math.ceil(Fraction(feature.encoded_bound) * (1 << input_scale_bits))


def encoding_error(feature: Feature, input_scale_bits: int) -> Fraction:
    """How far an integer input of this feature may be from its exact encoding times 2^SX, in units of the integer."""
    return Fraction(1, 2) + (_ENCODING_ROUNDING * (1 << input_scale_bits) if feature.encoding == "unit" else 0)


def answer_bound(schema: Schema, b: int, b_bias: int, params: ScaleParameters, grid_bits: int) -> int:
    """sum_i 2^b (X_i,max 2^SX + 32) + 2^b_bias + g 2^D / 2^6: more than any answer of a certified model.

    Integers only. Raises UsageError when b, b_bias or the grid is not one that exists (multiples of 4, 16 <= b <= 60;
    b_bias = D + a multiple of 4 up to 60; 0 <= gs <= D - 6).
    """
    SX, D = params.input_scale_bits, params.input_scale_bits + params.weight_scale_bits
    if type(b) is not int or not _MIN_WEIGHT_BITS <= b <= _MAX_WEIGHT_BITS or b % _GRID_STEP:
        raise UsageError(f"b = {b!r} must be a multiple of {_GRID_STEP} from {_MIN_WEIGHT_BITS} to {_MAX_WEIGHT_BITS}")
    if type(b_bias) is not int or not D <= b_bias <= D + _MAX_BIAS_EXCESS or (b_bias - D) % _GRID_STEP:
        raise UsageError(f"b_bias = {b_bias!r} must be {D} plus a multiple of {_GRID_STEP} up to {_MAX_BIAS_EXCESS}")
    if type(grid_bits) is not int or not 0 <= grid_bits <= D - 6:
        raise UsageError(f"grid_bits = {grid_bits!r} must be an integer from 0 to {D - 6}")
    inputs = sum(encoded_bound_integer(feature, SX) + INPUT_NOISE for feature in schema.features)
    return (inputs << b) + (1 << b_bias) + (1 << (D - grid_bits - 6))


def check_overflow(schema: Schema, b: int, b_bias: int, params: ScaleParameters, grid_bits: int) -> None:
    """The public check that answers cannot wrap: `answer_bound` < Q/2. Mandatory (docs/spec/protocol.md, section 3).

    Without it a certified "model" may compute any function mod Q. Raises UsageError: the owner's side.
    """
    problem = _overflow(schema, b, b_bias, params, grid_bits)
    if problem is not None:
        raise UsageError(problem + "; use fewer features, narrower ranges, the 'unit' encoding or fewer bits")


def verify_overflow(schema: Schema, b: int, b_bias: int, params: ScaleParameters, grid_bits: int) -> None:
    """The same check on the verifier's side: raises VerificationFailed("model.overflow", ...)."""
    try:
        problem = _overflow(schema, b, b_bias, params, grid_bits)
    except UsageError as error:
        raise VerificationFailed("model.overflow", str(error)) from error
    if problem is not None:
        raise VerificationFailed("model.overflow", problem)


def _overflow(schema: Schema, b: int, b_bias: int, params: ScaleParameters, grid_bits: int) -> str | None:
    bound = answer_bound(schema, b, b_bias, params, grid_bits)
    if 2 * bound < params.Q:
        return None
    return (
        f"answers could wrap: with {schema.d} features, b = {b}, b_bias = {b_bias} they reach "
        f"2^{math.log2(bound):.3f}, which is not below Q/2 = 2^{math.log2(params.Q) - 1:.3f}"
    )


def error_bound(schema: Schema, b: int, params: ScaleParameters) -> ErrorBound:
    """The error bound of an output with weights below 2^b, from public numbers only."""
    SX, SW = params.input_scale_bits, params.weight_scale_bits
    D = SX + SW
    half = Fraction(1, 2)
    weights = sum((half * Fraction(feature.encoded_bound) for feature in schema.features), Fraction(0))
    inputs = sum((encoding_error(feature, SX) for feature in schema.features), Fraction(0))
    return ErrorBound(
        weight_rounding=weights / (1 << SW),
        input_rounding=inputs * (1 << b) / (1 << D),
        input_noise=Fraction(INPUT_NOISE * schema.d * (1 << b), 1 << D),
        bias_rounding=half / (1 << D),
    )


def quantise(
    model: LinearModel,
    params: ScaleParameters,
    *,
    grid_bits: int = 6,
    weight_bits: int | Sequence[int] | None = None,
    bias_bits: int | Sequence[int] | None = None,
) -> QuantisedModel:
    """The integer model of `model` by the rule of this module.

    `weight_bits` (b) and `bias_bits` (b_bias) are public: one number for all outputs or one per output; by default
    weights and biases up to 16 in magnitude. Both are chosen by the owner and never derived from the weights.

    Raises UsageError when a weight or bias does not fit, when b or b_bias is not on the coarse grid, and when the
    overflow check refuses.
    """
    b = _per_output("weight_bits", default_weight_bits(params) if weight_bits is None else weight_bits, model.outputs)
    b_bias = _per_output("bias_bits", default_bias_bits(params) if bias_bits is None else bias_bits, model.outputs)
    D = params.input_scale_bits + params.weight_scale_bits
    half_widths = [Fraction(feature.half_width) for feature in model.schema.features]
    centers = [Fraction(feature.center) for feature in model.schema.features]
    outputs = []
    for k, name in enumerate(model.output_names):
        check_overflow(model.schema, b[k], b_bias[k], params, grid_bits)
        exact = [Fraction(weight) for weight in model.weights[k].tolist()]
        shifted = Fraction(float(model.bias[k])) + sum(w * c for w, c in zip(exact, centers, strict=True))
        weights = tuple(round(w * h * (1 << params.weight_scale_bits)) for w, h in zip(exact, half_widths, strict=True))
        outputs.append(QuantisedOutput(name, weights, round(shifted * (1 << D)), b[k], b_bias[k]))
    return QuantisedModel(
        name=model.name,
        schema=model.schema,
        link=model.link,
        outputs=tuple(outputs),
        input_scale_bits=params.input_scale_bits,
        weight_scale_bits=params.weight_scale_bits,
        grid_bits=grid_bits,
        error_bounds=tuple(error_bound(model.schema, bits, params) for bits in b),
    )


def quantise_inputs(schema: Schema, values: ArrayLike, input_scale_bits: int) -> NDArray[np.int64]:
    """Integer inputs x_i = round(x'_i * 2^SX), half to even, shape (patients, d).

    Raises UsageError for values outside the schema, and for ranges whose inputs would not fit 62 bits.
    """
    if any(encoded_bound_integer(feature, input_scale_bits) >= _INT64_SAFE for feature in schema.features):
        raise UsageError(f"schema {schema.name!r}: at scale 2^{input_scale_bits} inputs exceed 62 bits")
    # The product with a power of two is exact, so the only rounding is rint's.
    return np.rint(np.ldexp(schema.encode(values), input_scale_bits)).astype(np.int64)


def reference(quantised: QuantisedModel, values: ArrayLike) -> list[list[int]]:
    """The exact answers z[patient][output], integers at 2^D, of records in raw units: the oracle for every backend.

    Raises UsageError for values outside the schema.
    """
    # Products reach 2^62 and sums more: Python's integers, not int64.
    x = quantise_inputs(quantised.schema, values, quantised.input_scale_bits).astype(object)
    weights = np.array([output.weights for output in quantised.outputs], dtype=object)
    biases = np.array([output.bias for output in quantised.outputs], dtype=object)
    return cast("list[list[int]]", (x @ weights.T + biases).tolist())


def to_answers(z: Sequence[Sequence[int]], quantised: QuantisedModel) -> NDArray[np.float64]:
    """Integer answers at 2^D, shape (patients, outputs), as float64 in answer units, each rounded once."""
    scale = 1 << quantised.answer_scale_bits
    answers = [[value / scale for value in row] for row in z]
    return np.array(answers, dtype=np.float64).reshape(len(answers), len(quantised.outputs))


def _bits(value: int) -> int:
    """The least k with -2^k <= value < 2^k."""
    return (value if value >= 0 else ~value).bit_length()


def _per_output(what: str, bits: int | Sequence[int], outputs: int) -> list[int]:
    chosen = [bits] * outputs if isinstance(bits, int) else list(bits)
    if len(chosen) != outputs:
        raise UsageError(f"{what} has {len(chosen)} numbers, the model has {outputs} outputs")
    return chosen
