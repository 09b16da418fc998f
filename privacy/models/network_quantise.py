"""Networks in integers: the rule, its error, its overflow check, its oracle (docs/spec/protocol.md, section 7).

Quantisation rule, version 1. With x' the schema's encoding of a record, S_0 = SX and S_l = SX + SW_1 + ... + SW_l, the
layers of a float network become, in exact rational arithmetic and rounded half to even,

    x_i   = round(x'_i * 2^SX)                                        -2^k_i    <= x_i  < 2^k_i
    w_ji  = round(W_ji * half_width_i * 2^SW_1)    (first layer)      -2^b      <= w_ji < 2^b
    w_ji  = round(W_ji * 2^SW_l)                   (later layers)
    c_j   = round((bias_j + sum_i W_ji center_i) * 2^S_1)             -2^b_bias <= c_j  < 2^b_bias
    c_j   = round(bias_j * 2^S_l)                  (later layers)
    h_j   = sum_i w_ji a_i + c_j                   a = x for the first layer
    a_j   = h_j - s_j h_j,  s_j = (h_j < 0)        ReLU; none after the last layer, whose h are the answers at 2^S_L

SW, b and b_bias are public, one of each per layer, and so are the widths of the layers. They are chosen by the owner
and never derived from the weights. Everything public here (bounds, checks, word lengths) is computed from the schema
and these numbers alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privacy.errors import UsageError, VerificationFailed
from privacy.models.linear import MAX_OUTPUTS, Link, check_names
from privacy.models.network import MAX_HIDDEN, MAX_LAYERS, MAX_NEURONS, Network
from privacy.models.quantise import encoded_bound_integer, encoding_error, quantise_inputs
from privacy.models.schema import MAX_FEATURES, Schema
from privacy.zk.group import POINT_BYTES

__all__ = [
    "BOUND_BITS",
    "QUANTISATION_RULE",
    "CommittedLayer",
    "LayerShape",
    "QuantisedLayer",
    "QuantisedNetwork",
    "check_bounds",
    "error_of_shapes",
    "feature_bits",
    "layer_bounds",
    "network_error_bound",
    "own_error_bound",
    "quantise_network",
    "reference_network",
    "to_network_answers",
    "verify_bounds",
    "word_bits",
]

QUANTISATION_RULE = "sealproof/network-quantisation/v1"
"""The rule of this module: a network under any other is refused."""

BOUND_BITS = 62
"""Every pre-activation and every answer of an accepted network is below 2^62 in magnitude."""

GRID_GUARD_BITS = 6
"""A disclosure grid is coarser than the grid of answers by at least these many bits."""

_SHORT_WORD, _LONG_WORD = 40, 64
_MAX_INPUT_SCALE = 32
_FIRST_RANGE, _LATER_RANGE, _BIAS_RANGE = 4, 2, 8
_WEIGHT_STEP, _BIAS_STEP = 2, 4
_LARGEST_SCALE, _GOOD_SCALE, _SMALLEST_SCALE = 12, 8, 4


@dataclass(frozen=True)
class LayerShape:
    """Public side of one layer: its width and -2^b <= w < 2^b at 2^SW, -2^b_bias <= bias < 2^b_bias.

    Raises UsageError for a number that no layer can have.
    """

    inputs: int
    outputs: int
    weight_scale_bits: int
    b: int
    b_bias: int

    def __post_init__(self) -> None:
        limits = {
            "inputs": (1, MAX_FEATURES),
            "outputs": (1, MAX_OUTPUTS),
            "weight_scale_bits": (1, 32),
            "b": (1, BOUND_BITS - 1),
            "b_bias": (1, BOUND_BITS - 1),
        }
        for what, (low, high) in limits.items():
            value = getattr(self, what)
            if type(value) is not int or not low <= value <= high:
                raise UsageError(f"a layer's {what} = {value!r} must be an integer from {low} to {high}")


@dataclass(frozen=True)
class CommittedLayer:
    """Public side of one committed layer: its shape and the 48 bytes of C_{l,j} of each of its rows, in order.

    Raises UsageError unless there is one commitment per output.
    """

    shape: LayerShape
    commitments: tuple[bytes, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "commitments", tuple(self.commitments))
        if len(self.commitments) != self.shape.outputs:
            raise UsageError(f"{len(self.commitments)} commitments for a layer of {self.shape.outputs} rows")
        if any(not isinstance(C, bytes) or len(C) != POINT_BYTES for C in self.commitments):
            raise UsageError(f"the commitment to a row must be {POINT_BYTES} bytes")


@dataclass(frozen=True)
class QuantisedLayer:
    """One layer in integers: secret `weights` (outputs rows of inputs numbers) at 2^SW and `bias` at 2^S_l.

    Raises UsageError when the numbers do not fit the public shape, naming neither a weight nor its place.
    """

    shape: LayerShape
    weights: tuple[tuple[int, ...], ...] = field(repr=False)
    bias: tuple[int, ...] = field(repr=False)

    def __post_init__(self) -> None:
        shape = self.shape
        if len(self.weights) != shape.outputs or any(len(row) != shape.inputs for row in self.weights):
            raise UsageError(f"weights are not {shape.outputs} rows of {shape.inputs} integers")
        if len(self.bias) != shape.outputs:
            raise UsageError(f"{len(self.bias)} biases for a layer of {shape.outputs} rows")
        for what, bits, values in (
            ("weights", shape.b, [value for row in self.weights for value in row]),
            ("biases", shape.b_bias, self.bias),
        ):
            if any(type(value) is not int or not -1 << bits <= value < 1 << bits for value in values):
                raise UsageError(f"{what} do not fit in {bits} bits and a sign")


@dataclass(frozen=True)
class QuantisedNetwork:
    """A network in integers: what is committed, certified and evaluated. Weights are secret, the rest is public.

    Answers are integers at 2^`answer_scale_bits` and lie on the public disclosure grid 2^-`grid_bits` once rounded for
    disclosure. Raises UsageError for names or a grid that no network has, and when `check_bounds` refuses.
    """

    name: str
    schema: Schema = field(repr=False)
    link: Link
    output_names: tuple[str, ...]
    layers: tuple[QuantisedLayer, ...]
    input_scale_bits: int
    grid_bits: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "output_names", tuple(self.output_names))
        check_bounds(self.schema, self.shapes, self.input_scale_bits)
        check_names(self.name, self.output_names, self.shapes[-1].outputs, self.link)
        most = self.answer_scale_bits - GRID_GUARD_BITS
        if type(self.grid_bits) is not int or not 0 <= self.grid_bits <= most:
            raise UsageError(f"grid_bits = {self.grid_bits!r} must be an integer from 0 to {most}")

    @property
    def shapes(self) -> tuple[LayerShape, ...]:
        """The public side of every layer."""
        return tuple(layer.shape for layer in self.layers)

    @property
    def answer_scale_bits(self) -> int:
        """S_L: answers are integers at 2^S_L."""
        return self.input_scale_bits + sum(shape.weight_scale_bits for shape in self.shapes)


# --- public bounds ------------------------------------------------------------------------------------------------


def feature_bits(schema: Schema, input_scale_bits: int) -> tuple[int, ...]:
    """k_i per feature: every integer input of an honest record has -2^k_i <= x_i < 2^k_i."""
    return tuple(encoded_bound_integer(feature, input_scale_bits).bit_length() for feature in schema.features)


def layer_bounds(schema: Schema, shapes: Sequence[LayerShape], input_scale_bits: int) -> tuple[int, ...]:
    """B_l per layer: no pre-activation of a certified network on a certified record exceeds it in magnitude.

    B_1 = sum_i 2^b 2^k_i + 2^b_bias and B_(l+1) = inputs 2^b B_l + 2^b_bias, exactly. The last is that of the answers.
    """
    reach = sum(1 << bits for bits in feature_bits(schema, input_scale_bits))
    bounds: list[int] = []
    for shape in shapes:
        if bounds:
            reach = shape.inputs * bounds[-1]
        bounds.append((reach << shape.b) + (1 << shape.b_bias))
    return tuple(bounds)


def word_bits(bound: int) -> int:
    """n: how many bits of two's complement hold the pre-activations of a hidden layer with this bound, 40 or 64."""
    return _SHORT_WORD if bound < 1 << (_SHORT_WORD - 1) else _LONG_WORD


def check_bounds(schema: Schema, shapes: Sequence[LayerShape], input_scale_bits: int) -> None:
    """The public check that layers fit together and that nothing can wrap: every B_l < 2^62. Mandatory.

    Without it a certified "network" may compute another function than the one that its weights describe. Raises
    UsageError: the owner's side.
    """
    problem = _bounds_problem(schema, shapes, input_scale_bits)
    if problem is not None:
        raise UsageError(problem)


def verify_bounds(schema: Schema, shapes: Sequence[LayerShape], input_scale_bits: int) -> None:
    """The same check on the verifier's side: raises VerificationFailed("network.overflow", ...)."""
    problem = _bounds_problem(schema, shapes, input_scale_bits)
    if problem is not None:
        raise VerificationFailed("network.overflow", problem)


def _bounds_problem(schema: Schema, shapes: Sequence[LayerShape], input_scale_bits: int) -> str | None:
    if type(input_scale_bits) is not int or not 1 <= input_scale_bits <= _MAX_INPUT_SCALE:
        return f"input_scale_bits = {input_scale_bits!r} must be an integer from 1 to {_MAX_INPUT_SCALE}"
    if not 1 <= len(shapes) <= MAX_LAYERS:
        return f"a network has 1 to {MAX_LAYERS} layers, this one has {len(shapes)}"
    width = schema.d
    for number, shape in enumerate(shapes, start=1):
        if shape.inputs != width:
            return f"layer {number} takes {shape.inputs} numbers, {width} arrive"
        width = shape.outputs
    if any(shape.outputs > MAX_HIDDEN for shape in shapes[:-1]):
        return f"a hidden layer has at most {MAX_HIDDEN} neurons"
    neurons = sum(shape.outputs for shape in shapes)
    if neurons > MAX_NEURONS:
        return f"a network has at most {MAX_NEURONS} neurons in all, this one has {neurons}"
    for number, bound in enumerate(layer_bounds(schema, shapes, input_scale_bits), start=1):
        if bound >= 1 << BOUND_BITS:
            return (
                f"layer {number} could overflow: its values reach 2^{math.log2(bound):.3f}, which is not below "
                f"2^{BOUND_BITS}; use fewer features or neurons, narrower ranges or fewer bits"
            )
    return None


# --- quantising ---------------------------------------------------------------------------------------------------


def quantise_network(
    network: Network,
    input_scale_bits: int,
    *,
    grid_bits: int = 6,
    weight_scale_bits: int | Sequence[int] | None = None,
    weight_range_bits: int | Sequence[int] | None = None,
    bias_range_bits: int | Sequence[int] | None = None,
) -> QuantisedNetwork:
    """The integer network of `network` by the rule of this module, for inputs at 2^`input_scale_bits`.

    `weight_scale_bits` (SW), `weight_range_bits` and `bias_range_bits` are public: one number for all layers or one
    per layer, chosen by the owner and never derived from the weights. Weights of a layer lie below 2^range in
    magnitude, those of the first in terms of encoded inputs (b = SW + range), biases likewise (b_bias = S_l + range).
    By default the ranges are 2^4 for weights of the first layer, 2^2 for those of later ones and 2^8 for biases, and
    SW is the largest common one from 12 to 8 with which hidden values take short words, else the largest from 12 to 4
    with which nothing overflows.

    Raises UsageError when a weight or bias does not fit (it names the range that would do, never a weight), and when
    `check_bounds` refuses.
    """
    count = len(network.layers)
    default_ranges = (_FIRST_RANGE, *[_LATER_RANGE] * (count - 1))
    ranges = _per_layer("weight_range_bits", default_ranges if weight_range_bits is None else weight_range_bits, count)
    bias_ranges = _per_layer("bias_range_bits", _BIAS_RANGE if bias_range_bits is None else bias_range_bits, count)
    if weight_scale_bits is None:
        shapes = _default_shapes(network, input_scale_bits, ranges, bias_ranges)
    else:
        scales = _per_layer("weight_scale_bits", weight_scale_bits, count)
        shapes = _shapes(network, input_scale_bits, scales, ranges, bias_ranges)
        check_bounds(network.schema, shapes, input_scale_bits)
    layers = []
    scale = input_scale_bits
    integers = _integers(network, input_scale_bits, shapes)
    for number, (shape, (weights, bias)) in enumerate(zip(shapes, integers, strict=True), start=1):
        scale += shape.weight_scale_bits
        _check_range(number, "weight", shape.b, weights, shape.weight_scale_bits, _WEIGHT_STEP)
        _check_range(number, "bias", shape.b_bias, [bias], scale, _BIAS_STEP)
        layers.append(QuantisedLayer(shape, weights, bias))
    return QuantisedNetwork(
        name=network.name,
        schema=network.schema,
        link=network.link,
        output_names=network.output_names,
        layers=tuple(layers),
        input_scale_bits=input_scale_bits,
        grid_bits=grid_bits,
    )


def _per_layer(what: str, bits: int | Sequence[int], count: int) -> list[int]:
    chosen = [bits] * count if isinstance(bits, int) else list(bits)
    if len(chosen) != count:
        raise UsageError(f"{what} has {len(chosen)} numbers, the network has {count} layers")
    if any(type(number) is not int for number in chosen):
        raise UsageError(f"{what} = {bits!r} must be integers")
    return chosen


def _shapes(
    network: Network,
    input_scale_bits: int,
    scales: Sequence[int],
    ranges: Sequence[int],
    bias_ranges: Sequence[int],
) -> tuple[LayerShape, ...]:
    shapes = []
    scale = input_scale_bits
    for layer, SW, weight, bias in zip(network.layers, scales, ranges, bias_ranges, strict=True):
        scale += SW
        shapes.append(LayerShape(layer.inputs, layer.outputs, SW, SW + weight, scale + bias))
    return tuple(shapes)


def _default_shapes(
    network: Network, input_scale_bits: int, ranges: Sequence[int], bias_ranges: Sequence[int]
) -> tuple[LayerShape, ...]:
    """Shapes of the largest common SW, from public numbers only."""
    fitting = []
    problem: UsageError | None = None
    for SW in range(_LARGEST_SCALE, _SMALLEST_SCALE - 1, -1):
        try:
            shapes = _shapes(network, input_scale_bits, [SW] * len(ranges), ranges, bias_ranges)
            check_bounds(network.schema, shapes, input_scale_bits)
        except UsageError as error:
            problem = error
            continue
        fitting.append(shapes)
        hidden = layer_bounds(network.schema, shapes, input_scale_bits)[:-1]
        if SW >= _GOOD_SCALE and all(word_bits(bound) == _SHORT_WORD for bound in hidden):
            return shapes
    if not fitting:
        raise UsageError(f"even weights at 2^{_SMALLEST_SCALE} do not fit: {problem}") from problem
    return fitting[0]


def _integers(
    network: Network, input_scale_bits: int, shapes: Sequence[LayerShape]
) -> list[tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]]:
    """(weights, biases) of each layer by the rule, in range or not. Secret."""
    integers = []
    scale = input_scale_bits
    for (weights, bias), shape in zip(_exact_layers(network), shapes, strict=True):
        scale += shape.weight_scale_bits
        rows = tuple(tuple(round(w * (1 << shape.weight_scale_bits)) for w in row) for row in weights)
        integers.append((rows, tuple(round(value * (1 << scale)) for value in bias)))
    return integers


def _exact_layers(network: Network) -> list[tuple[list[list[Fraction]], list[Fraction]]]:
    """(weights, biases) of each layer as exact numbers, those of the first in terms of encoded inputs. Secret."""
    layers = []
    for layer in network.layers:
        weights = [[Fraction(w) for w in row] for row in layer.weights.tolist()]
        layers.append((weights, [Fraction(value) for value in layer.bias.tolist()]))
    features = network.schema.features
    half_widths = [Fraction(feature.half_width) for feature in features]
    centers = [Fraction(feature.center) for feature in features]
    weights, bias = layers[0]
    shifted = [
        value + sum((w * c for w, c in zip(row, centers, strict=True)), Fraction(0))
        for value, row in zip(bias, weights, strict=True)
    ]
    layers[0] = ([[w * h for w, h in zip(row, half_widths, strict=True)] for row in weights], shifted)
    return layers


def _check_range(number: int, kind: str, bits: int, rows: Sequence[Sequence[int]], scale: int, step: int) -> None:
    # The refusal goes to the owner alone; what it advises is coarse, as the range will be public.
    needed = max((value if value >= 0 else ~value).bit_length() for row in rows for value in row)
    if needed > bits:
        current = bits - scale
        advice = current - (bits - needed) // step * step
        raise UsageError(
            f"layer {number}: its {kind} range of 2^{current} is too small; {kind}_range_bits={advice} would do there"
        )


# --- answers ------------------------------------------------------------------------------------------------------


def reference_network(quantised: QuantisedNetwork, values: ArrayLike) -> list[list[int]]:
    """The exact answers z[patient][output], integers at 2^S_L, of records in raw units: the oracle for every backend.

    Raises UsageError for values outside the schema.
    """
    # Python's integers: products of intermediate sums are exact whatever their size.
    a = quantise_inputs(quantised.schema, values, quantised.input_scale_bits).astype(object)
    for number, layer in enumerate(quantised.layers):
        if number:
            a = np.where(a >= 0, a, 0)
        a = a @ np.array(layer.weights, dtype=object).T + np.array(layer.bias, dtype=object)
    return cast("list[list[int]]", a.tolist())


def to_network_answers(z: Sequence[Sequence[int]], quantised: QuantisedNetwork) -> NDArray[np.float64]:
    """Integer answers at 2^S_L, shape (patients, outputs), as float64 in answer units, each rounded once."""
    scale = 1 << quantised.answer_scale_bits
    answers = [[value / scale for value in row] for row in z]
    return np.array(answers, dtype=np.float64).reshape(len(answers), len(quantised.output_names))


# --- error --------------------------------------------------------------------------------------------------------


def error_of_shapes(schema: Schema, shapes: Sequence[LayerShape], input_scale_bits: int) -> Fraction:
    """How far an answer may be from the float network in exact arithmetic, in answer units, from public numbers only.

    With inputs off by at most e_i, weights below 2^b off by at most 1/2 and biases by at most 1/2, in integer units:
    E_1 = sum_i (2^b e_i + X_i,max 2^SX / 2) + 1/2 and E_(l+1) = inputs (2^b E_l + (B_l + E_l) / 2) + 1/2; ReLU adds
    nothing. A worst case over all networks of these shapes: `own_error_bound` is the one of a network.
    """
    half = Fraction(1, 2)
    scale = input_scale_bits
    error = Fraction(0)
    bounds = layer_bounds(schema, shapes, input_scale_bits)
    for number, shape in enumerate(shapes):
        scale += shape.weight_scale_bits
        if number == 0:
            inputs = sum((encoding_error(f, input_scale_bits) for f in schema.features), Fraction(0))
            reach = sum((Fraction(f.encoded_bound) for f in schema.features), Fraction(0)) * (1 << input_scale_bits)
        else:
            inputs, reach = shape.inputs * error, shape.inputs * (bounds[number - 1] + error)
        error = (1 << shape.b) * inputs + half * reach + half
    return error / (1 << scale)


def network_error_bound(quantised: QuantisedNetwork) -> tuple[Fraction, ...]:
    """`error_of_shapes` of a network, one entry per output: they are all alike. Public."""
    error = error_of_shapes(quantised.schema, quantised.shapes, quantised.input_scale_bits)
    return (error,) * len(quantised.output_names)


def own_error_bound(network: Network, quantised: QuantisedNetwork) -> tuple[Fraction, ...]:
    """How far an answer of this very network may be from it in exact arithmetic, per output, in answer units. Secret.

    Never above `network_error_bound`: actual weights and their rounding take the place of the worst ones, and hidden
    values are at most what the schema's ranges and the weights let them be. Raises UsageError when `quantised` is not
    a quantisation of `network`.
    """
    integers = [(layer.weights, layer.bias) for layer in quantised.layers]
    same = (network.schema, network.output_names) == (quantised.schema, quantised.output_names)
    if not same or len(network.layers) != len(integers):
        raise UsageError("the integers are not a quantisation of this network")
    if _integers(network, quantised.input_scale_bits, quantised.shapes) != integers:
        raise UsageError("the integers are not a quantisation of this network")
    features = network.schema.features
    # Per number that arrives, at the scale of the layer before: its error, and the range of its exact value.
    errors = [encoding_error(feature, quantised.input_scale_bits) for feature in features]
    highest = [Fraction(feature.encoded_bound) * (1 << quantised.input_scale_bits) for feature in features]
    lowest = [-value for value in highest]
    scale = quantised.input_scale_bits
    for (weights, bias), layer in zip(_exact_layers(network), quantised.layers, strict=True):
        scale += layer.shape.weight_scale_bits
        weight_unit, unit = 1 << layer.shape.weight_scale_bits, 1 << scale
        rows = [[w * weight_unit for w in row] for row in weights]
        offsets = [value * unit for value in bias]
        reach = [max(high, -low) for low, high in zip(lowest, highest, strict=True)]
        new_errors = [
            abs(integer - exact)
            + sum(
                (abs(w) * e + abs(w - real) * r for w, real, e, r in zip(ints, row, errors, reach, strict=True)),
                Fraction(0),
            )
            for ints, integer, row, exact in zip(layer.weights, layer.bias, rows, offsets, strict=True)
        ]
        ends = list(zip(lowest, highest, strict=True))
        highest = [
            offset + sum((max(w * low, w * high) for w, (low, high) in zip(row, ends, strict=True)), Fraction(0))
            for row, offset in zip(rows, offsets, strict=True)
        ]
        errors, lowest, highest = new_errors, [Fraction(0)] * len(rows), [max(high, Fraction(0)) for high in highest]
    return tuple(error / (1 << scale) for error in errors)
