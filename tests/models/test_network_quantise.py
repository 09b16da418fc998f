"""Networks in integers: answers within the derived bounds, and the overflow check at its boundary."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import UsageError, VerificationFailed
from privacy.models.linear import LinearModel, Link
from privacy.models.network import Dense, Network, from_torch_network, network_of
from privacy.models.network_quantise import (
    CommittedLayer,
    LayerShape,
    QuantisedLayer,
    QuantisedNetwork,
    check_bounds,
    error_of_shapes,
    feature_bits,
    layer_bounds,
    network_error_bound,
    own_error_bound,
    quantise_network,
    reference_network,
    to_network_answers,
    verify_bounds,
    word_bits,
)
from privacy.models.quantise import quantise_inputs
from privacy.models.schema import Feature, Schema

SX = 16


def exact_answers(network: Network, row: list[float]) -> list[Fraction]:
    """The float network in rational arithmetic: what the error bounds speak of."""
    a = [Fraction(x) for x in row]
    for number, layer in enumerate(network.layers):
        if number:
            a = [max(value, Fraction(0)) for value in a]
        a = [
            Fraction(bias) + sum(Fraction(w) * x for w, x in zip(weights, a, strict=True))
            for weights, bias in zip(layer.weights.tolist(), layer.bias.tolist(), strict=True)
        ]
    return a


def stays_within_its_bounds(network: Network, quantised: QuantisedNetwork, X: Any) -> None:
    z = reference_network(quantised, X)
    own, public = own_error_bound(network, quantised), network_error_bound(quantised)
    answers, raw = to_network_answers(z, quantised), network.predict_raw(X)
    most = layer_bounds(quantised.schema, quantised.shapes, quantised.input_scale_bits)[-1]
    for k, row in enumerate(np.asarray(X, dtype=np.float64).tolist()):
        for output, exact in enumerate(exact_answers(network, row)):
            assert abs(Fraction(z[k][output], 1 << quantised.answer_scale_bits) - exact) <= own[output]
            assert own[output] <= public[output]
            assert abs(z[k][output]) <= most
            assert abs(answers[k, output] - raw[k, output]) <= float(own[output]) + 1e-9 * (1 + abs(raw[k, output]))


def random_network(schema: Schema, *widths: int, seed: int = 0, link: Link = "identity") -> Network:
    """Layers of these widths with weights of about 1 in encoded terms."""
    generator = np.random.default_rng(seed)
    half_widths = np.array([feature.half_width for feature in schema.features])
    layers, inputs = [], schema.d
    for width in widths:
        weights = generator.normal(size=(width, inputs)) / (half_widths if inputs == schema.d and not layers else 2)
        layers.append(Dense(weights, generator.normal(size=width)))
        inputs = width
    names = tuple(f"y{k}" for k in range(widths[-1]))
    return Network("net", tuple(layers), names, link, schema)


def patients_of(schema: Schema, count: int, seed: int = 0) -> Any:
    """Records within the schema, among them its corners."""
    low = np.array([feature.minimum for feature in schema.features])
    high = np.array([feature.maximum for feature in schema.features])
    inner = np.random.default_rng(seed).uniform(low, high, (count, schema.d))
    whole = [feature.type != "number" for feature in schema.features]
    inner[:, whole] = np.floor(inner[:, whole])
    return np.concatenate([inner, [low], [high]])


# --- answers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [(1,), (3,), (5, 2), (6, 4, 3), (64, 1)], ids=str)
def test_every_answer_is_within_its_bounds(small_schema: Schema, widths: tuple[int, ...]) -> None:
    network = random_network(small_schema, *widths, seed=len(widths))
    stays_within_its_bounds(network, quantise_network(network, SX), patients_of(small_schema, 30))


@pytest.mark.parametrize("encoding", ["unit", "identity"])
def test_every_answer_is_within_its_bounds_for_both_encodings(
    plain_schema: Callable[..., Schema], encoding: str
) -> None:
    schema = plain_schema(5, -3.0, 1.0, encoding)
    network = random_network(schema, 4, 2, seed=9)
    stays_within_its_bounds(network, quantise_network(network, SX), patients_of(schema, 30))


def test_a_torch_network_on_real_patients_is_within_its_bounds(breast_cancer: Any) -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(6)
    module = nn.Sequential(nn.BatchNorm1d(30), nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 1)).double()
    X = torch.tensor(breast_cancer.X)
    for _ in range(20):
        module(X)
    network = from_torch_network(module.eval(), breast_cancer.schema, link="logit")
    quantised = quantise_network(network, SX)
    assert [(shape.weight_scale_bits, shape.b) for shape in quantised.shapes] == [(12, 16), (12, 14)]
    assert word_bits(layer_bounds(breast_cancer.schema, quantised.shapes, SX)[0]) == 40
    stays_within_its_bounds(network, quantised, breast_cancer.X[:60])
    assert max(own_error_bound(network, quantised)) < 0.05


def test_a_linear_model_is_quantised_as_a_network_of_one_layer(small_model: LinearModel, small_schema: Schema) -> None:
    network = network_of(small_model)
    stays_within_its_bounds(network, quantise_network(network, SX), patients_of(small_schema, 30))


def test_relu_keeps_what_is_not_negative() -> None:
    """a = h - s h with s = (h < 0), and h = x."""
    schema = Schema("s", 1, (Feature("x", "1", -4, 4, "number", "identity"),))
    layers = (Dense([[1.0]], [0.0]), Dense([[1.0]], [0.0]))  # type: ignore[arg-type]
    network = Network("relu", layers, ("y",), "identity", schema)
    quantised = quantise_network(network, 4, weight_scale_bits=2, grid_bits=0)
    z = reference_network(quantised, [[-2], [-1], [0], [1], [2]])
    assert z == [[0], [0], [0], [1 << 8], [2 << 8]]
    assert to_network_answers(z, quantised).tolist() == [[0], [0], [0], [1], [2]]


def test_the_reference_is_the_written_rule_in_plain_integers(small_schema: Schema) -> None:
    quantised = quantise_network(random_network(small_schema, 4, 3, 2, seed=3), SX)
    X = patients_of(small_schema, 10)
    expected = []
    for x in quantise_inputs(small_schema, X, SX).tolist():
        a = x
        for number, layer in enumerate(quantised.layers):
            h = [sum(w * v for w, v in zip(row, a, strict=True)) + c
                 for row, c in zip(layer.weights, layer.bias, strict=True)]  # fmt: skip
            a = h if number == len(quantised.layers) - 1 else [v - (v < 0) * v for v in h]
        expected.append(a)
    found = reference_network(quantised, X)
    assert found == expected
    assert all(type(value) is int for row in found for value in row)


def test_integers_follow_the_rule(small_schema: Schema) -> None:
    network = random_network(small_schema, 3, 2, seed=8)
    quantised = quantise_network(network, SX, weight_scale_bits=[10, 9])
    first, second = quantised.layers
    features = small_schema.features
    for row, bias, floats, offset in zip(
        first.weights, first.bias, network.layers[0].weights.tolist(), network.layers[0].bias.tolist(), strict=True
    ):
        exact = [Fraction(w) * Fraction(f.half_width) * 2**10 for w, f in zip(floats, features, strict=True)]
        assert list(row) == [round(value) for value in exact]
        shifted = Fraction(offset) + sum(
            Fraction(w) * Fraction(f.center) for w, f in zip(floats, features, strict=True)
        )
        assert bias == round(shifted * 2 ** (SX + 10))
    assert second.weights[0][0] == round(Fraction(float(network.layers[1].weights[0, 0])) * 2**9)
    assert second.bias[1] == round(Fraction(float(network.layers[1].bias[1])) * 2 ** (SX + 19))
    assert quantised.answer_scale_bits == SX + 19


def test_halves_round_to_even() -> None:
    schema = Schema("s", 1, (Feature("x", "1", -1, 1),))
    for weight, rounded in ((0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2)):
        network = Network("h", (Dense([[weight / 16]], [0.0]),), ("y",), "identity", schema)  # type: ignore[arg-type]
        assert quantise_network(network, SX, weight_scale_bits=4).layers[0].weights == ((rounded,),)


@settings(max_examples=30)
@given(st.data())
def test_no_network_and_no_patient_leave_the_bounds(data: st.DataObject) -> None:
    schema = Schema("s", 1, (Feature("a", "1", -3, 5), Feature("b", "1", 0, 1, "boolean")))
    widths = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    layers, inputs = [], 2
    for width in widths:
        weight = st.floats(-3.5, 3.5)
        weights = data.draw(
            st.lists(st.lists(weight, min_size=inputs, max_size=inputs), min_size=width, max_size=width)
        )
        bias = data.draw(st.lists(st.floats(-200, 200), min_size=width, max_size=width))
        layers.append(Dense(np.array(weights), np.array(bias)))
        inputs = width
    names = tuple(f"y{k}" for k in range(widths[-1]))
    network = Network("net", tuple(layers), names, "identity", schema)
    patient = [[data.draw(st.floats(-3, 5)), data.draw(st.sampled_from([0.0, 1.0]))]]
    stays_within_its_bounds(network, quantise_network(network, SX), patient)


def test_a_bound_is_for_the_network_that_was_quantised(small_schema: Schema) -> None:
    network = random_network(small_schema, 3, 2)
    quantised = quantise_network(network, SX)
    for other in (
        random_network(small_schema, 3, 2, seed=1),
        random_network(small_schema, 2, 2),
        random_network(small_schema, 2),
        dataclasses.replace(network, schema=dataclasses.replace(small_schema, version=9)),
    ):
        with pytest.raises(UsageError, match="not a quantisation"):
            own_error_bound(other, quantised)


# --- public bounds ------------------------------------------------------------------------------------------------


def test_the_bounds_are_those_of_the_rule() -> None:
    schema = Schema("s", 1, (Feature("a", "1", 0, 7), Feature("b", "1", -1, 3, "number", "identity")))
    assert feature_bits(schema, 4) == (5, 6)  # |x| <= 2^4, and 3 2^4 = 48 < 2^6
    shapes = (LayerShape(2, 3, 2, 6, 9), LayerShape(3, 1, 2, 4, 10))
    first = 2**6 * (2**5 + 2**6) + 2**9
    assert layer_bounds(schema, shapes, 4) == (first, 3 * 2**4 * first + 2**10)


def test_the_extreme_network_on_the_extreme_patient_reaches_but_does_not_pass_the_bound() -> None:
    schema = Schema("s", 1, (Feature("a", "1", -(2.0**4 - 1), 2.0**4 - 1, "number", "identity"),))
    shape = LayerShape(1, 1, 2, 6, 9)
    layer = QuantisedLayer(shape, ((-(1 << 6),),), (-(1 << 9),))
    quantised = QuantisedNetwork("x", schema, "identity", ("y",), (layer,), 4, 0)
    ((z,),) = reference_network(quantised, [[2.0**4 - 1]])
    (bound,) = layer_bounds(schema, (shape,), 4)
    assert z == -(2**6 * (2**8 - 2**4) + 2**9)
    assert -bound <= z < -bound + 2**11


@pytest.mark.parametrize(("bound", "bits"), [(0, 40), (2**39 - 1, 40), (2**39, 64), (2**62 - 1, 64)])
def test_words_are_short_where_they_can_be(bound: int, bits: int) -> None:
    assert word_bits(bound) == bits
    assert bound < 1 << (bits - 1)


def test_bounds_pass_up_to_62_bits_exactly() -> None:
    schema = Schema("s", 1, tuple(Feature(f"x{i}", "1", -1, 1) for i in range(8)))
    # B_1 = 8 2^b 2^17 + 2^b_bias
    fits = [LayerShape(8, 1, 12, 41, 60)]
    check_bounds(schema, fits, SX)
    verify_bounds(schema, fits, SX)
    for shape in (LayerShape(8, 1, 12, 41, 61), LayerShape(8, 1, 12, 42, 1)):
        with pytest.raises(UsageError, match="overflow"):
            check_bounds(schema, [shape], SX)
        with pytest.raises(VerificationFailed) as refusal:
            verify_bounds(schema, [shape], SX)
        assert refusal.value.check == "network.overflow"


def test_a_bound_just_below_2_62_passes_and_2_62_does_not() -> None:
    schema = Schema("s", 1, tuple(Feature(f"x{i}", "1", -1, 1) for i in range(7)))
    # 7 2^42 2^17 + 2^59 = 2^62
    shape = LayerShape(7, 1, 12, 42, 59)
    assert layer_bounds(schema, [shape], SX) == (2**62,)
    with pytest.raises(UsageError, match="overflow"):
        check_bounds(schema, [shape], SX)
    check_bounds(schema, [dataclasses.replace(shape, b_bias=58)], SX)


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ([], "1 to 3 layers"),
        ([(3, 2), (2, 2), (2, 2), (2, 1)], "1 to 3 layers"),
        ([(2, 1)], "layer 1 takes 2 numbers, 3 arrive"),
        ([(3, 2), (3, 1)], "layer 2 takes 3 numbers, 2 arrive"),
        ([(3, 256), (256, 256), (256, 1)], "512 neurons"),
    ],
    ids=str,
)
def test_layers_that_do_not_fit_together_are_refused(small_schema: Schema, widths: Any, message: str) -> None:
    shapes = [LayerShape(inputs, outputs, 4, 6, 8) for inputs, outputs in widths]
    with pytest.raises(UsageError, match=message):
        check_bounds(small_schema, shapes, SX)
    with pytest.raises(VerificationFailed) as refusal:
        verify_bounds(small_schema, shapes, SX)
    assert refusal.value.check == "network.overflow"


@pytest.mark.parametrize("scale", [0, 33, True, 16.0])
def test_a_scale_of_inputs_that_no_parameter_set_has_is_refused(small_schema: Schema, scale: Any) -> None:
    with pytest.raises(VerificationFailed, match="input_scale_bits"):
        verify_bounds(small_schema, [LayerShape(3, 1, 4, 6, 8)], scale)


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": 0},
        {"inputs": 4097},
        {"outputs": 257},
        {"outputs": True},
        {"weight_scale_bits": 0},
        {"b": 0},
        {"b": 62},
        {"b_bias": 1.0},
        {"b_bias": 1 << 70},
    ],
    ids=str,
)
def test_a_shape_that_no_layer_can_have_is_not_made(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(change))):
        dataclasses.replace(LayerShape(3, 2, 4, 6, 8), **change)


@pytest.mark.parametrize("commitments", [(), (bytes(48),), (bytes(48), bytes(47)), (bytes(48), "00" * 48)], ids=str)
def test_a_layer_has_a_commitment_of_48_bytes_for_every_row(commitments: Any) -> None:
    shape = LayerShape(3, 2, 4, 6, 8)
    assert CommittedLayer(shape, (bytes(48),) * 2).shape is shape
    with pytest.raises(UsageError):
        CommittedLayer(shape, commitments)


# --- choosing scales and ranges -----------------------------------------------------------------------------------


def test_default_scales_keep_words_short_if_weights_stay_precise(plain_schema: Callable[..., Schema]) -> None:
    """The largest common SW from 12 to 8 with 40-bit words, else the largest with which nothing overflows."""
    short = quantise_network(random_network(plain_schema(100), 8, 1), SX)
    assert [shape.weight_scale_bits for shape in short.shapes] == [11, 11]
    long = quantise_network(random_network(plain_schema(1000), 8, 1), SX)
    assert [shape.weight_scale_bits for shape in long.shapes] == [8, 8]
    deep = quantise_network(random_network(plain_schema(30), 32, 16, 1), SX)
    bounds = layer_bounds(deep.schema, deep.shapes, SX)
    assert [word_bits(bound) for bound in bounds[:-1]] == [40, 64]
    assert (
        bounds[-1]
        < 2**62
        <= layer_bounds(
            deep.schema,
            [dataclasses.replace(s, weight_scale_bits=8, b=s.b + 1, b_bias=s.b_bias + 3) for s in deep.shapes],
            SX,
        )[-1]
    )


def test_scales_and_ranges_can_be_chosen_layer_by_layer(small_schema: Schema) -> None:
    network = random_network(small_schema, 3, 2)
    quantised = quantise_network(
        network, SX, grid_bits=3, weight_scale_bits=[10, 8], weight_range_bits=[6, 3], bias_range_bits=4
    )
    assert quantised.shapes == (LayerShape(3, 3, 10, 16, 30), LayerShape(3, 2, 8, 11, 38))
    assert quantised.grid_bits == 3


def test_shapes_do_not_depend_on_the_weights(small_schema: Schema) -> None:
    one, other = (random_network(small_schema, 4, 2, seed=seed) for seed in (1, 2))
    assert quantise_network(one, SX).shapes == quantise_network(other, SX).shapes


def test_a_weight_out_of_range_is_refused_with_the_range_that_would_do(small_schema: Schema) -> None:
    network = random_network(small_schema, 2, 1)
    weights = network.layers[1].weights.copy()
    weights[0, 1] = 6.789
    big = dataclasses.replace(network, layers=(network.layers[0], Dense(weights, network.layers[1].bias)))
    with pytest.raises(UsageError, match=r"layer 2: its weight range of 2\^2.*weight_range_bits=4 would do") as refusal:
        quantise_network(big, SX)
    assert "6.789" not in str(refusal.value)
    quantise_network(big, SX, weight_range_bits=[4, 4])
    biased = dataclasses.replace(network, layers=(Dense(network.layers[0].weights, [0.0, -1234.5]), network.layers[1]))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"layer 1: its bias range of 2\^8.*bias_range_bits=12 would do") as refusal:
        quantise_network(biased, SX)
    assert "1234" not in str(refusal.value)
    quantise_network(biased, SX, bias_range_bits=12)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"weight_scale_bits": [12]}, "1 numbers, the network has 2 layers"),
        ({"weight_scale_bits": [12, 12.0]}, "must be integers"),
        ({"weight_range_bits": True}, "must be integers"),
        ({"weight_range_bits": [4, 2, 2]}, "3 numbers"),
        ({"bias_range_bits": 60}, "even weights at"),
        ({"weight_scale_bits": 24}, "b_bias = 72"),
        ({"weight_scale_bits": 18}, "overflow"),
        ({"weight_scale_bits": 33}, "weight_scale_bits = 33"),
        ({"grid_bits": -1}, "grid_bits"),
        ({"grid_bits": 100}, "grid_bits"),
        ({"grid_bits": True}, "grid_bits"),
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused(small_schema: Schema, settings_: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        quantise_network(random_network(small_schema, 3, 1), SX, **settings_)


def test_a_network_that_overflows_at_every_scale_is_refused() -> None:
    schema = Schema("s", 1, (Feature("x", "1", 0, 2.0**40, "number", "identity"),))
    with pytest.raises(UsageError, match=r"even weights at 2\^4 do not fit: layer 1 could overflow"):
        quantise_network(Network("n", (Dense([[1.0]], [0.0]),), ("y",), "identity", schema), SX)  # type: ignore[arg-type]


# --- integers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "bias", "message"),
    [
        (((1, 2),), (1, 2), "2 rows of 2"),
        (((1, 2), (3,)), (1, 2), "2 rows of 2"),
        (((1, 2), (3, 4)), (1,), "1 biases"),
        (((1, 2), (3, 64)), (1, 2), "weights do not fit in 6 bits"),
        (((1, -65), (3, 4)), (1, 2), "weights do not fit"),
        (((1, 2), (3, 4)), (1, 256), "biases do not fit in 8 bits"),
        (((1, 2.0), (3, 4)), (1, 2), "weights do not fit"),
    ],
    ids=str,
)
def test_integers_that_do_not_fit_the_shape_are_no_layer(weights: Any, bias: Any, message: str) -> None:
    shape = LayerShape(2, 2, 4, 6, 8)
    QuantisedLayer(shape, ((63, -64), (0, 1)), (255, -256))
    with pytest.raises(UsageError, match=message):
        QuantisedLayer(shape, weights, bias)


def test_an_unchecked_quantised_network_does_not_exist(small_schema: Schema) -> None:
    quantised = quantise_network(random_network(small_schema, 3, 2), SX)
    for change in (
        {"layers": quantised.layers[:1]},
        {"layers": tuple(reversed(quantised.layers))},
        {"output_names": ("a",)},
        {"link": "probit"},
        {"input_scale_bits": 60},
        {"grid_bits": 1000},
    ):
        with pytest.raises(UsageError):
            dataclasses.replace(quantised, **change)  # type: ignore[arg-type]


def test_secrets_are_not_shown(small_schema: Schema) -> None:
    shape = LayerShape(1, 1, 4, 20, 20)
    assert not any(secret in repr(QuantisedLayer(shape, ((31337,),), (27182,))) for secret in ("31337", "27182"))


def test_the_public_error_bound_needs_no_weight(small_schema: Schema) -> None:
    quantised = quantise_network(random_network(small_schema, 3, 2), SX)
    assert network_error_bound(quantised) == (error_of_shapes(small_schema, quantised.shapes, SX),) * 2
