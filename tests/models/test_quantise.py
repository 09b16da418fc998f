"""Quantisation: answers within the derived bound for every patient, and the overflow check at its boundary."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.ckks.params import ParameterSet
from privacy.errors import UsageError, VerificationFailed
from privacy.models.linear import LinearModel, from_sklearn, from_torch
from privacy.models.quantise import (
    INPUT_NOISE,
    QuantisedModel,
    QuantisedOutput,
    answer_bound,
    check_overflow,
    encoded_bound_integer,
    error_bound,
    quantise,
    quantise_inputs,
    reference,
    to_answers,
    verify_overflow,
)
from privacy.models.schema import Feature, Schema

D = 58


@dataclass(frozen=True)
class Scales:
    """Scales and modulus of no real parameter set."""

    input_scale_bits: int
    weight_scale_bits: int
    Q: int


def exact_answers(model: LinearModel, row: list[float]) -> list[Fraction]:
    """The float model in rational arithmetic: what the error bound speaks of."""
    return [
        Fraction(bias) + sum(Fraction(w) * Fraction(x) for w, x in zip(weights, row, strict=True))
        for weights, bias in zip(model.weights.tolist(), model.bias.tolist(), strict=True)
    ]


def stays_within_its_bound(model: LinearModel, quantised: QuantisedModel, X: Any) -> None:
    z = reference(quantised, X)
    raw = model.predict_raw(X)
    answers = to_answers(z, quantised)
    for k, row in enumerate(np.asarray(X, dtype=np.float64).tolist()):
        for output, exact in enumerate(exact_answers(model, row)):
            bound = quantised.error_bounds[output]
            # No ciphertext here, so the noise of fresh ciphertexts must not be needed.
            assert abs(Fraction(z[k][output], 1 << D) - exact) <= bound.total - bound.input_noise
            assert abs(answers[k, output] - raw[k, output]) <= float(bound)


def test_every_breast_cancer_patient_is_within_the_bound(breast_cancer: Any, params: ParameterSet) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(StandardScaler(), linear_model.LogisticRegression()).fit(breast_cancer.X, breast_cancer.y)
    model = from_sklearn(pipeline, breast_cancer.schema)
    quantised = quantise(model, params, bias_bits=66)
    stays_within_its_bound(model, quantised, breast_cancer.X)
    assert float(quantised.error_bounds[0]) < 3e-6
    answers = to_answers(reference(quantised, breast_cancer.X), quantised)[:, 0]
    assert ((answers > 0) == pipeline.predict(breast_cancer.X)).all()


def test_every_diabetes_patient_is_within_the_bound(diabetes: Any, params: ParameterSet) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    model = from_sklearn(linear_model.Ridge().fit(diabetes.X, diabetes.y), diabetes.schema)
    quantised = quantise(model, params, weight_bits=32, bias_bits=66)
    stays_within_its_bound(model, quantised, diabetes.X)


def test_every_patient_of_several_classes_is_within_the_bound(multiclass: Any, params: ParameterSet) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(StandardScaler(), linear_model.LogisticRegression()).fit(multiclass.X, multiclass.y)
    model = from_sklearn(pipeline, multiclass.schema)
    quantised = quantise(model, params, weight_bits=[28, 32, 28])
    assert [output.b for output in quantised.outputs] == [28, 32, 28]
    stays_within_its_bound(model, quantised, multiclass.X)
    answers = to_answers(reference(quantised, multiclass.X), quantised)
    assert (answers.argmax(axis=1) == pipeline.predict(multiclass.X)).all()


def test_a_torch_layer_is_within_the_bound(plain_schema: Callable[..., Schema], params: ParameterSet) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(3)
    model = from_torch(torch.nn.Linear(12, 4), plain_schema(12, -2.5, 4.0), link="margin")
    X = np.random.default_rng(2).uniform(-2.5, 4.0, (50, 12))
    stays_within_its_bound(model, quantise(model, params), X)


def test_identity_encoding_is_within_the_bound(plain_schema: Callable[..., Schema], params: ParameterSet) -> None:
    schema = plain_schema(8, -5.3, 9.7, "identity")
    generator = np.random.default_rng(4)
    model = LinearModel("m", generator.normal(size=(2, 8)), generator.normal(size=2), ("a", "b"), "margin", schema)
    quantised = quantise(model, params)
    assert quantised.outputs[0].weights[0] == round(Fraction(float(model.weights[0, 0])) * 2**24)
    stays_within_its_bound(model, quantised, generator.uniform(-5.3, 9.7, (50, 8)))


@given(st.data())
def test_any_small_model_is_within_the_bound(data: st.DataObject) -> None:
    d = data.draw(st.integers(1, 3))
    ends = st.floats(-1e3, 1e3)
    features = []
    for i in range(d):
        low, high = sorted(data.draw(st.tuples(ends, ends).filter(lambda pair: abs(pair[0] - pair[1]) > 1e-3)))
        features.append(Feature(f"x{i}", "1", low, high, "number", data.draw(st.sampled_from(["unit", "identity"]))))
    schema = Schema("s", 1, tuple(features))
    weights = [[data.draw(st.floats(-50, 50)) for _ in range(d)]]
    model = LinearModel("m", weights, [data.draw(st.floats(-1e3, 1e3))], ("y",), "identity", schema)  # type: ignore[arg-type]
    row = [data.draw(st.floats(feature.minimum, feature.maximum)) for feature in features]
    quantised = quantise(model, Scales(34, 24, 2**200), weight_bits=44, bias_bits=82)
    bound = quantised.error_bounds[0]
    z = reference(quantised, [row])[0][0]
    assert abs(Fraction(z, 1 << D) - exact_answers(model, row)[0]) <= bound.total - bound.input_noise


def test_the_bound_is_nearly_reached(plain_schema: Callable[..., Schema], params: ParameterSet) -> None:
    # Every weight just under half a step away from an integer, every value at the end of its range.
    schema = plain_schema(20)
    weights = [[(1000.5 - 2**-20) * 2.0**-24] * 20]
    model = LinearModel("m", weights, [0.0], ("y",), "identity", schema)  # type: ignore[arg-type]
    quantised = quantise(model, params)
    z = reference(quantised, [[1.0] * 20])[0][0]
    error = abs(Fraction(z, 1 << D) - exact_answers(model, [1.0] * 20)[0])
    bound = quantised.error_bounds[0]
    assert bound.weight_rounding * Fraction(99, 100) < error <= bound.weight_rounding


def test_the_error_bound_is_the_sum_of_its_parts(plain_schema: Callable[..., Schema], params: ParameterSet) -> None:
    bound = error_bound(plain_schema(30), 28, params)
    assert bound.weight_rounding == Fraction(30, 2**25)
    assert bound.input_noise == Fraction(30 * 32 * 2**28, 2**58)
    assert bound.input_rounding == Fraction(30 * 2**28, 2**58) * (Fraction(1, 2) + Fraction(1, 2**17))
    assert bound.bias_rounding == Fraction(1, 2**59)
    third = dataclasses.replace(bound, weight_rounding=Fraction(1, 3) - bound.total + bound.weight_rounding)
    assert third.total == Fraction(1, 3)
    assert float(third) == math.nextafter(1 / 3, 1)  # the nearest double is below a third: printed bounds round up
    identity = error_bound(plain_schema(30, -8, 4, "identity"), 28, params)
    assert identity.weight_rounding == 8 * bound.weight_rounding
    assert identity.input_rounding == Fraction(30 * 2**28, 2**59)


def test_the_error_bound_does_not_depend_on_the_weights(small_schema: Schema, params: ParameterSet) -> None:
    models = [LinearModel("m", [[w, 0, w]], [w], ("y",), "margin", small_schema) for w in (0.0, 1e-3)]  # type: ignore[arg-type]
    first, second = (quantise(model, params) for model in models)
    assert first.error_bounds == second.error_bounds
    assert [(o.b, o.b_bias) for o in first.outputs] == [(o.b, o.b_bias) for o in second.outputs] == [(28, 62)]


def test_the_written_rule_on_a_small_example(params: ParameterSet) -> None:
    schema = Schema("s", 1, (Feature("a", "1", 2, 6), Feature("b", "1", -1, 3, encoding="identity")))
    model = LinearModel("m", [[0.5, -0.25]], [0.125], ("y",), "margin", schema)  # type: ignore[arg-type]
    quantised = quantise(model, params)
    output = quantised.outputs[0]
    assert output.weights == (2**24, -(2**22))  # 0.5 * half width 2; -0.25
    assert output.bias == 2**58 * 17 // 8  # 0.125 + 0.5 * center 4
    assert quantise_inputs(schema, [[6, 3], [2, -1], [4, 0.5]], 34).tolist() == [
        [2**34, 3 * 2**34],
        [-(2**34), -(2**34)],
        [0, 2**33],
    ]
    z = reference(quantised, [[6, 3]])
    assert z == [[2**58 - 3 * 2**56 + 2**58 * 17 // 8]]
    assert to_answers(z, quantised).tolist() == [[0.5 * 6 - 0.25 * 3 + 0.125]]


def test_ties_round_to_even(plain_schema: Callable[..., Schema], params: ParameterSet) -> None:
    schema = plain_schema(4)
    halves = [[k * 2.0**-25 for k in (1, 3, -1, -3)]]
    model = LinearModel("m", halves, [2.0**-59], ("y",), "margin", schema)  # type: ignore[arg-type]
    output = quantise(model, params).outputs[0]
    assert output.weights == (0, 2, 0, -2)
    assert output.bias == 0
    assert quantise_inputs(schema, [[k * 2.0**-35 for k in (1, 3, -1, -3)]], 34).tolist() == [[0, 2, 0, -2]]


def test_the_reference_is_exact_where_int64_would_overflow() -> None:
    schema = Schema("s", 1, tuple(Feature(f"x{i}", "1", -(2**20), 2**20, encoding="identity") for i in range(3)))
    model = LinearModel("m", [[2.0**9 + 2.0**-24] * 3], [0.0], ("y",), "margin", schema)  # type: ignore[arg-type]
    quantised = quantise(model, Scales(34, 24, 2**200), weight_bits=36)
    z = reference(quantised, [[2.0**20, 2.0**20, 2.0**20 - 2.0**-30]])
    assert z == [[(2**33 + 1) * (3 * 2**54 - 2**4)]]
    assert z[0][0] > 2**64


def test_inputs_that_do_not_fit_62_bits_are_refused() -> None:
    schema = Schema("s", 1, (Feature("x", "1", 0, 2**28, encoding="identity"),))
    assert quantise_inputs(schema, [[2**28]], 33).tolist() == [[2**61]]
    with pytest.raises(UsageError, match="62 bits"):
        quantise_inputs(schema, [[2**28]], 34)


def test_values_outside_the_schema_are_not_quantised(small_model: LinearModel, params: ParameterSet) -> None:
    with pytest.raises(UsageError, match="smoker"):
        reference(quantise(small_model, params), [[40, 100, 0.5]])


# --- public bounds ------------------------------------------------------------------------------------------------


@given(st.integers(16, 27), st.booleans(), st.booleans())
def test_weights_that_fit_are_taken_and_the_next_is_refused(bits: int, negative: bool, is_bias: bool) -> None:
    # The range is -2^b <= w < 2^b, as certified.
    b = bits // 4 * 4
    edge = -(2**b) if negative else 2**b - 1
    beyond = edge - 1 if negative else edge + 1
    fields: dict[str, Any] = {"weights": (0, 0), "bias": 0, "b": b, "b_bias": b}
    name = "bias" if is_bias else "weights"
    QuantisedOutput("y", **(fields | {name: edge if is_bias else (0, edge)}))
    with pytest.raises(UsageError, match=f"{name.removesuffix('s')}_bits={b + 4} would do|bias_bits={b + 4} would do"):
        QuantisedOutput("y", **(fields | {name: beyond if is_bias else (0, beyond)}))


def test_a_model_with_large_weights_names_the_bits_that_would_do(
    plain_schema: Callable[..., Schema], params: ParameterSet
) -> None:
    schema = plain_schema(2)
    model = LinearModel("m", [[16.0, 0.5]], [3000.0], ("y",), "identity", schema)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="weight_bits=32 would do"):
        quantise(model, params)
    with pytest.raises(UsageError, match="bias_bits=70 would do"):
        quantise(model, params, weight_bits=32)
    quantised = quantise(model, params, weight_bits=32, bias_bits=70)
    assert "16777216" not in repr(quantised)
    assert str(quantised.outputs[0].weights[0]) not in repr(quantised)
    assert str(quantised.outputs[0].bias) not in repr(quantised)


@pytest.mark.parametrize(
    ("b", "b_bias", "grid_bits"),
    [
        (26, 62, 6),
        (12, 62, 6),
        (64, 62, 6),
        (28, 61, 6),
        (28, 54, 6),
        (28, 122, 6),
        (28, 62, -1),
        (28, 62, 53),
        (True, 62, 6),
        (28.0, 62, 6),
    ],
)
def test_bounds_off_the_coarse_grid_are_refused_on_both_sides(
    plain_schema: Callable[..., Schema], b: Any, b_bias: int, grid_bits: int
) -> None:
    scales = Scales(34, 24, 2**300)
    verify_overflow(plain_schema(2), 28, 62, scales, 6)
    with pytest.raises(UsageError):
        check_overflow(plain_schema(2), b, b_bias, scales, grid_bits)
    with pytest.raises(VerificationFailed, match=r"model\.overflow"):
        verify_overflow(plain_schema(2), b, b_bias, scales, grid_bits)


def test_a_wrong_number_of_bits_is_refused(small_model: LinearModel, params: ParameterSet) -> None:
    with pytest.raises(UsageError, match="weight_bits has 2 numbers"):
        quantise(small_model, params, weight_bits=[28, 28])
    with pytest.raises(UsageError, match="bias_bits has 0 numbers"):
        quantise(small_model, params, bias_bits=[])


def test_the_answer_bound_is_the_written_sum(plain_schema: Callable[..., Schema], params: ParameterSet) -> None:
    expected = 3 * 2**28 * (7 * 2**34 + 32) + 2**62 + 2**46
    assert answer_bound(plain_schema(3, -7, 5, "identity"), 28, 62, params, 6) == expected
    assert INPUT_NOISE == 32


@pytest.mark.parametrize("excess", [-1, 0, 1])
def test_the_overflow_check_at_its_boundary(plain_schema: Callable[..., Schema], excess: int) -> None:
    schema = plain_schema(30)
    bound = answer_bound(schema, 28, 62, Scales(34, 24, 3), 6)
    scales = Scales(34, 24, 2 * bound + excess)
    if excess == 1:  # bound < Q/2
        check_overflow(schema, 28, 62, scales, 6)
        verify_overflow(schema, 28, 62, scales, 6)
        return
    with pytest.raises(UsageError, match="could wrap"):
        check_overflow(schema, 28, 62, scales, 6)
    with pytest.raises(VerificationFailed, match=r"model\.overflow"):
        verify_overflow(schema, 28, 62, scales, 6)


@pytest.mark.parametrize("X_max", [5.0, 10.0])
def test_4096_standardised_features_with_28_bits_are_refused(
    plain_schema: Callable[..., Schema], params: ParameterSet, X_max: float
) -> None:
    schema = plain_schema(4096, -X_max, X_max, "identity")
    with pytest.raises(UsageError, match="4096 features, b = 28"):
        check_overflow(schema, 28, 62, params, 6)
    model = LinearModel("m", np.zeros((1, 4096)), np.zeros(1), ("y",), "margin", schema)
    with pytest.raises(UsageError, match="could wrap"):
        quantise(model, params)


def test_4096_features_with_28_bits_allow_an_x_max_of_an_eighth_at_most(
    plain_schema: Callable[..., Schema], params: ParameterSet
) -> None:
    check_overflow(plain_schema(4096, -0.12, 0.12, "identity"), 28, 62, params, 6)
    with pytest.raises(UsageError, match="could wrap"):
        check_overflow(plain_schema(4096, -0.125, 0.125, "identity"), 28, 62, params, 6)


@given(st.floats(2.0**-60, 2.0**60), st.integers(0, 60))
def test_the_integer_bound_rounds_up_exactly(maximum: float, SX: int) -> None:
    bound = encoded_bound_integer(Feature("x", "1", 0, maximum, encoding="identity"), SX)
    exact = Fraction(maximum) * 2**SX
    assert bound - 1 < exact <= bound
    assert encoded_bound_integer(Feature("x", "1", 0, maximum), SX) == 2**SX


def test_no_integer_input_exceeds_the_integer_bound(plain_schema: Callable[..., Schema]) -> None:
    for high in (0.1, 1 / 3, math.nextafter(2.0, 3.0), 1e-12):
        schema = plain_schema(1, -high, high, "identity")
        x = quantise_inputs(schema, [[high], [-high]], 34)
        assert int(np.abs(x).max()) <= encoded_bound_integer(schema.features[0], 34)


def test_every_answer_at_the_ends_of_the_ranges_is_below_the_answer_bound(
    plain_schema: Callable[..., Schema], params: ParameterSet
) -> None:
    schema = plain_schema(5, -3, 3, "identity")
    most = (2**28 - 1) / 2**24
    model = LinearModel("m", [[most] * 5], [15.99], ("y",), "margin", schema)  # type: ignore[arg-type]
    z = reference(quantise(model, params), [[3.0] * 5])[0][0]
    assert z < answer_bound(schema, 28, 62, params, 6) < params.Q // 2


def test_quantised_models_are_frozen(small_model: LinearModel, params: ParameterSet) -> None:
    quantised = quantise(small_model, params, grid_bits=5)
    assert quantised.answer_scale_bits == D
    assert (quantised.name, quantised.link, quantised.grid_bits) == ("risk", "logit", 5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        quantised.grid_bits = 6  # type: ignore[misc]
