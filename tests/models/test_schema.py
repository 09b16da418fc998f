"""The schema: canonical bytes, strict decoding, ranges and the encoding rule."""

from __future__ import annotations

import dataclasses
import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from privacy.errors import DecodeError, UsageError
from privacy.models.schema import MAX_MAGNITUDE, Feature, Schema, breast_cancer_schema, decode_canonical_json

ends = st.floats(-MAX_MAGNITUDE, MAX_MAGNITUDE)
names = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=12)


@st.composite
def number_features(draw: st.DrawFn) -> Feature:
    low, high = sorted(draw(st.tuples(ends, ends).filter(lambda pair: pair[0] != pair[1])))
    encoding = draw(st.sampled_from(["unit", "identity"]))
    return Feature(draw(names), "1", low, high, "number", encoding)  # type: ignore[arg-type]


schemas = st.builds(
    Schema,
    st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True),
    st.integers(1, 2**31),
    st.lists(number_features(), min_size=1, max_size=4, unique_by=lambda feature: feature.name).map(tuple),
)


@given(schemas)
def test_a_schema_decodes_to_itself_and_encodes_to_the_same_bytes(schema: Schema) -> None:
    encoded = schema.encode_json()
    decoded = Schema.decode_json(encoded)
    assert decoded == schema
    assert decoded.encode_json() == encoded
    assert decoded.digest() == schema.digest()


def test_every_field_is_bound_by_the_digest(small_schema: Schema) -> None:
    age, glucose, smoker = small_schema.features
    altered = [
        dataclasses.replace(small_schema, name="other"),
        dataclasses.replace(small_schema, version=3),
        dataclasses.replace(small_schema, features=(glucose, age, smoker)),
        dataclasses.replace(small_schema, features=(age, glucose)),
    ]
    changes = {
        "name": "sugar",
        "unit": "mmol/L",
        "minimum": 20.000000000000004,
        "maximum": 601,
        "type": "integer",
        "encoding": "identity",
    }
    assert set(changes) == {field.name for field in dataclasses.fields(Feature)}
    for field, value in changes.items():
        changed = dataclasses.replace(glucose, **{field: value})  # type: ignore[arg-type]
        altered.append(dataclasses.replace(small_schema, features=(age, changed, smoker)))
    digests = {schema.digest() for schema in altered}
    assert len(digests) == len(altered)
    assert small_schema.digest() not in digests


@given(st.binary(max_size=200))
@example(b"[" * 100_000)
@example(b"1" * 10_000)
@example(b'"\\ud800"')
@example(b"NaN")
@example(b"1e400")
@example(b"\xff")
def test_any_bytes_give_a_schema_or_a_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        Schema.decode_json(data)


@given(st.data())
def test_a_changed_byte_is_refused_or_is_another_schema(data: st.DataObject) -> None:
    encoded = bytearray(
        Schema("s", 1, (Feature("a", "1", -1.5, 2.25), Feature("b", "mg", 0, 1, "boolean"))).encode_json()
    )
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] = data.draw(st.integers(0, 255))
    try:
        decoded = Schema.decode_json(bytes(encoded))
    except DecodeError:
        return
    assert decoded.encode_json() == bytes(encoded)


def _document() -> dict[str, object]:
    return json.loads(Schema("s", 1, (Feature("a", "1", 0, 1),)).encode_json())  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "change",
    [
        {"format": "sealproof/schema/v2"},
        {"features": []},
        {"features": {}},
        {"features": [1]},
        {"features": [{"name": "a"}]},
        {"version": 0},
        {"version": True},
        {"version": "1"},
        {"name": ["s"]},
        {"name": ""},
        {"extra": 1},
    ],
    ids=str,
)
def test_a_document_with_a_wrong_field_is_refused(change: dict[str, object]) -> None:
    assert Schema.from_json(_document()).name == "s"
    with pytest.raises(DecodeError):
        Schema.from_json(_document() | change)


@pytest.mark.parametrize(
    "change",
    [
        {"minimum": "0"},
        {"minimum": False},
        {"minimum": 1},
        {"maximum": 1e300},
        {"type": "float"},
        {"type": ["number"]},
        {"encoding": None},
        {"unit": ""},
        {"unit": "mg dL"},
        {"name": " a"},
        {"name": "a\nb"},
        {"name": 1},
    ],
    ids=str,
)
def test_a_feature_with_a_wrong_field_is_refused(change: dict[str, object]) -> None:
    document = _document()
    document["features"] = [document["features"][0] | change]  # type: ignore[index]
    with pytest.raises(DecodeError):
        Schema.from_json(document)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":1}',
        b'{"b":1,"a":1}',
        b'{"a": 1}',
        b'{"a":1.0}',
        b'{"a":1e2}',
        b'{"a":-0}',
        b'"\\u0041"',
        b"1\n",
        b"",
    ],
)
def test_json_that_is_not_canonical_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_canonical_json("document", data)


def test_numbers_past_two_to_the_53_keep_their_canonical_text() -> None:
    assert decode_canonical_json("number", b"100000000000000000000") == 1e20
    with pytest.raises(DecodeError):
        decode_canonical_json("number", b"9007199254740993")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("minimum", math.nan),
        ("minimum", -math.inf),
        ("maximum", math.inf),
        ("maximum", 10**400),
        ("maximum", 20),
        ("type", "boolean"),
    ],
)
def test_a_feature_without_a_usable_range_is_refused(field: str, value: object) -> None:
    with pytest.raises(UsageError, match="glucose"):
        dataclasses.replace(Feature("glucose", "mg/dL", 20, 600), **{field: value})  # type: ignore[arg-type]


def test_an_integer_feature_has_integral_ends() -> None:
    with pytest.raises(UsageError, match="not integral"):
        Feature("age", "a", 0.5, 100, "integer")


def test_two_features_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="'a'"):
        Schema("s", 1, (Feature("a", "1", 0, 1), Feature("b", "1", 0, 1), Feature("a", "1", 0, 2)))


def test_more_features_than_coefficients_are_refused() -> None:
    features = tuple(Feature(f"x{i}", "1", 0, 1) for i in range(4097))
    assert Schema("s", 1, features[:4096]).d == 4096
    with pytest.raises(UsageError, match="4097"):
        Schema("s", 1, features)


@given(number_features(), st.floats(0, 1))
@example(Feature("a", "1", 1.0, math.nextafter(1.0, 2.0)), 1.0)
@example(Feature("a", "1", 0.1, 0.3), 1.0)
@example(Feature("a", "1", -1.0, math.nextafter(1.0, 2.0)), 1.0)
@example(Feature("a", "1", 0.0, 5e-324), 0.5)
@example(Feature("a", "1", -MAX_MAGNITUDE, MAX_MAGNITUDE), 1.0)
def test_no_encoded_value_exceeds_the_bound_and_none_is_clipped(feature: Feature, part: float) -> None:
    schema = Schema("s", 1, (feature,))
    inside = min(max(feature.minimum + part * (feature.maximum - feature.minimum), feature.minimum), feature.maximum)
    values = [[feature.minimum], [feature.maximum], [inside]]
    encoded = schema.encode(values)[:, 0].tolist()
    assert all(abs(x) <= schema.encoded_bound(0) for x in encoded)
    for x, (value,) in zip(encoded, values, strict=True):
        exact = (Fraction(value) - Fraction(feature.center)) / Fraction(feature.half_width)
        assert abs(exact) <= Fraction(schema.encoded_bound(0))
        assert abs(Fraction(x) - exact) <= (0 if feature.encoding == "identity" else Fraction(1, 2**51))


def test_identity_encoding_keeps_values_and_its_bound_is_the_larger_end() -> None:
    schema = Schema("s", 1, (Feature("a", "1", -7.5, 3, encoding="identity"),))
    assert schema.encode([[-7.5], [0.3]]).tolist() == [[-7.5], [0.3]]
    assert schema.encoded_bound(0) == 7.5


@pytest.mark.parametrize(
    ("i", "value", "message"),
    [
        (0, 17.0, r"patient 1, feature 'age': 17.0 is outside the range \[18.0, 100.0\] \(unit a\)"),
        (0, 40.5, "not an integer"),
        (1, 600.0000000000001, "outside the range"),
        (1, math.nan, "not a finite number"),
        (1, -math.inf, "not a finite number"),
        (2, 0.5, "not 0 or 1"),
    ],
)
def test_a_value_outside_the_schema_is_refused_with_value_and_range(
    small_schema: Schema, i: int, value: float, message: str
) -> None:
    good = [[50.0, 100.0, 1.0], [60.0, 110.0, 0.0]]
    assert small_schema.validate(good).shape == (2, 3)
    good[1][i] = value
    with pytest.raises(UsageError, match=message):
        small_schema.encode(good)


@pytest.mark.parametrize(
    "values", [[50.0, 100.0, 1.0], [[50.0, 100.0]], [["x", 1, 2]], [[1.0, 2.0, 1.0], [1.0]]], ids=str
)
def test_values_of_the_wrong_shape_or_kind_are_refused(small_schema: Schema, values: object) -> None:
    with pytest.raises(UsageError):
        small_schema.validate(values)  # type: ignore[arg-type]


def test_a_cohort_is_read_only_and_does_not_show_its_patients(small_schema: Schema) -> None:
    values = np.array([[50.0, 123.0, 1.0]])
    cohort = small_schema.cohort(values, ["Jane"])
    values[0, 1] = 20.0
    assert cohort.values[0, 1] == 123.0
    with pytest.raises(ValueError, match="read-only"):
        cohort.values[0, 0] = 1.0
    assert "Jane" not in repr(cohort)
    assert "123" not in repr(cohort)


@pytest.mark.parametrize("ids", [["a"], ["a", "a"], ["a", ""], ["a", 1]], ids=str)
def test_ids_that_do_not_name_each_patient_once_are_refused(small_schema: Schema, ids: list[str]) -> None:
    with pytest.raises(UsageError):
        small_schema.cohort([[50, 100, 1], [60, 100, 0]], ids)


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5),
    st.floats(0, 2),
    st.sampled_from(["number", "integer"]),
)
@example([0.3], 0.0, "number")
@example([0.0], 0.0, "integer")
@example([0.1, 0.3], 0.0, "number")
def test_derived_ranges_contain_the_data_and_its_margin(column: list[float], margin: float, kind: str) -> None:
    column = [float(round(value)) for value in column] if kind == "integer" else column
    schema = Schema.from_data("s", 1, ["a"], [[x] for x in column], margin=margin, types={"a": kind})  # type: ignore[dict-item]
    feature = schema.features[0]
    spread = max(column) - min(column)
    assert feature.minimum <= min(column)
    assert feature.maximum >= max(column) + margin * spread * (1 - 1e-9) - 1e-300
    assert min(column) < 0 or feature.minimum >= 0


def test_derived_ranges_are_round_numbers_of_the_real_data() -> None:
    pytest.importorskip("sklearn")
    schema = breast_cancer_schema()
    assert schema.d == 30
    assert (schema.features[0].minimum, schema.features[0].maximum) == (4.0, 31.0)
    assert all(feature.minimum >= 0 for feature in schema.features)


@pytest.mark.parametrize(
    "wrong",
    [
        {"values": [[math.nan]]},
        {"values": []},
        {"values": [[1.0, 2.0]]},
        {"margin": -0.1},
        {"margin": math.nan},
        {"units": ["1", "1"]},
        {"ranges": {"b": (0, 1)}},
        {"ranges": {"a": (0, 0.5)}},
    ],
    ids=str,
)
def test_a_schema_is_not_derived_from_unusable_data(wrong: dict[str, object]) -> None:
    arguments: dict[str, object] = {"values": [[1.0]], "margin": 0.1} | wrong
    values = arguments.pop("values")
    with pytest.raises(UsageError):
        Schema.from_data("s", 1, ["a"], values, **arguments)  # type: ignore[arg-type]
