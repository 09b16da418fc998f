"""Commitment and certificate `bounded`: what holds, what every field binds, which bytes are refused."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.ckks.params import ParameterSet, parameter_set
from privacy.errors import DecodeError, PrivacyError, UsageError, VerificationFailed
from privacy.models import certificate as module
from privacy.models.certificate import (
    ModelStatement,
    OutputStatement,
    VerifiedModel,
    WeightOpening,
    certificate_size,
    certify_model,
    commit_model,
    model_statement,
    verify_model_certificate,
    weights_key,
)
from privacy.models.linear import LinearModel
from privacy.models.quantise import QuantisedModel, QuantisedOutput, quantise
from privacy.models.schema import Feature, Schema
from privacy.zk import transcript as transcript_module
from privacy.zk.generators import generators
from privacy.zk.group import ARKWORKS, ORDER, REFERENCE
from privacy.zk.pedersen import commitment_key
from privacy.zk.transcript import Transcript

B, B_BIAS = 16, 58  # the smallest that the quantisation rule knows: short proofs


@dataclass(frozen=True)
class Certified:
    quantised: QuantisedModel
    statement: ModelStatement
    openings: tuple[WeightOpening, ...]
    data: bytes


def certified(weights: list[tuple[int, ...]], biases: list[int], link: str = "margin", d: int = 2) -> Certified:
    params = parameter_set("linear-4096")
    schema = Schema("ward", 1, tuple(Feature(f"x{i}", "mg/dL", 0.0, 10.0) for i in range(d)))
    outputs = tuple(
        QuantisedOutput(f"y{k}", w, bias, B, B_BIAS) for k, (w, bias) in enumerate(zip(weights, biases, strict=True))
    )
    quantised = QuantisedModel("risk", schema, link, outputs, 34, 24, 6, ())  # type: ignore[arg-type]
    commitments, openings = commit_model(quantised)
    statement = model_statement(quantised, params, "1.0", commitments)
    return Certified(quantised, statement, openings, certify_model(statement, openings))


@pytest.fixture(scope="module")
def one() -> Certified:
    return certified([(5, -7)], [11])


@pytest.fixture(scope="module")
def two() -> Certified:
    return certified([(5, -7), (100, 0)], [11, -12])


# --- what holds ---------------------------------------------------------------------------------------------------


def test_a_certified_model_verifies(two: Certified) -> None:
    verified = verify_model_certificate(two.statement, two.data)
    assert verified.statement == two.statement
    assert [ARKWORKS.encode(C_W) for C_W in verified.commitments] == [o.C_W for o in two.statement.outputs]


def test_extreme_weights_and_biases_are_certified() -> None:
    low, high = -(1 << B), (1 << B) - 1
    extreme = certified([(low, high), (0, 0)], [-(1 << B_BIAS), (1 << B_BIAS) - 1])
    verify_model_certificate(extreme.statement, extreme.data)


def test_C_W_commits_to_the_weights_in_order_then_the_bias(one: Certified) -> None:
    key = commitment_key("model/weights", 2) + commitment_key("model/bias", 1)
    assert key.points == weights_key(2).points == (*generators("model/weights", 2), *generators("model/bias", 1))
    C_W = key.commit([5, -7, 11], one.openings[0].rho)
    assert ARKWORKS.encode(C_W) == one.statement.outputs[0].C_W


def test_a_model_committed_twice_gives_unrelated_commitments(one: Certified) -> None:
    again, openings = commit_model(one.quantised)
    assert again[0] != one.statement.outputs[0].C_W
    assert openings[0].values == one.openings[0].values and openings[0].rho != one.openings[0].rho


def test_a_model_certified_twice_shares_no_byte_block(one: Certified) -> None:
    again = certify_model(one.statement, one.openings)
    tag = len(module._TAG)
    blocks = {one.data[i : i + 16] for i in range(tag, len(one.data), 16)}
    assert not blocks & {again[i : i + 16] for i in range(tag, len(again), 16)}


def test_a_real_model_of_thirty_features_has_a_certificate_under_100_kB(breast_cancer: Any) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    pipeline = pytest.importorskip("sklearn.pipeline")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    from privacy.models.linear import from_sklearn

    fitted = pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression())
    fitted.fit(breast_cancer.X, breast_cancer.y)
    params = parameter_set("linear-4096")
    quantised = quantise(from_sklearn(fitted, breast_cancer.schema), params, weight_bits=28, bias_bits=66)
    commitments, openings = commit_model(quantised)
    statement = model_statement(quantised, params, "1", commitments)
    data = certify_model(statement, openings)
    verify_model_certificate(statement, data)
    # 31 values, 30 * 29 + 67 bits, 3 blindings, 5 points, the tag
    assert len(data) == certificate_size(statement) == 32 * (31 + 937 + 3) + 48 * 5 + len(module._TAG) < 100_000


def test_both_implementations_of_the_curve_agree(one: Certified) -> None:
    verified = verify_model_certificate(one.statement, one.data, REFERENCE)
    assert REFERENCE.encode(verified.commitments[0]) == one.statement.outputs[0].C_W
    corrupt = bytearray(one.data)
    corrupt[-1] ^= 1
    checks = []
    for group in (ARKWORKS, REFERENCE):
        with pytest.raises(VerificationFailed) as refusal:
            verify_model_certificate(one.statement, bytes(corrupt), group)
        checks.append(refusal.value.check)
    assert checks[0] == checks[1] == "quadratic.relation"
    other = replace(one.statement, name="other")
    with pytest.raises(VerificationFailed):
        verify_model_certificate(other, one.data, REFERENCE)


def test_the_reference_curve_makes_certificates_that_the_fast_one_accepts(one: Certified) -> None:
    commitments, openings = commit_model(one.quantised, REFERENCE)
    statement = model_statement(one.quantised, one.statement.parameters, "1.0", commitments)
    verify_model_certificate(statement, certify_model(statement, openings, REFERENCE), ARKWORKS)


def test_the_verifier_needs_neither_zksk_nor_a_machine_learning_library() -> None:
    code = (
        "import sys, privacy.models.certificate, privacy.models.statements\n"
        "bad = {'zksk', 'petlib', 'tenseal', 'torch', 'sklearn', 'fastapi'} & set(sys.modules)\n"
        "sys.exit(repr(bad) if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- every public input is bound ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class OtherParameters(ParameterSet):
    """A parameter set whose modulus can be altered alone."""

    modulus: int = 0

    @property
    def Q(self) -> int:  # type: ignore[override]
        return self.modulus


def _altered_schemas(schema: Schema) -> dict[str, Schema]:
    first, *rest = schema.features
    features = {
        "name": replace(first, name="x"),
        "unit": replace(first, unit="mmol/L"),
        "minimum": replace(first, minimum=1.0),
        "maximum": replace(first, maximum=11.0),
        "type": replace(first, type="integer"),
        "encoding": replace(first, encoding="identity"),
    }
    assert set(features) == {f.name for f in dataclasses.fields(Feature)}
    schemas = {
        "name": replace(schema, name="other"),
        "version": replace(schema, version=2),
        "features": replace(schema, features=(*reversed(schema.features),)),
    }
    assert set(schemas) == {f.name for f in dataclasses.fields(Schema)}
    schemas |= {f"features.{what}": replace(schema, features=(f, *rest)) for what, f in features.items()}
    schemas["features.count"] = replace(schema, features=(first,))
    return schemas


def _altered_parameters(params: ParameterSet) -> dict[str, ParameterSet]:
    altered = {
        "name": replace(params, name="linear-4097"),
        "N": replace(params, N=8192),
        "primes": replace(params, primes=(*reversed(params.primes),)),
        "special_prime": replace(params, special_prime=params.special_prime + 2),
        "input_scale_bits": replace(params, input_scale_bits=33),
        "weight_scale_bits": replace(params, weight_scale_bits=23),
    }
    assert set(altered) == {f.name for f in dataclasses.fields(ParameterSet)}
    fields = {f.name: getattr(params, f.name) for f in dataclasses.fields(params)}
    return altered | {"Q": OtherParameters(**fields, modulus=params.Q + 2)}


def alterations(two: Certified) -> dict[str, ModelStatement]:
    """The statement with one thing altered, for every field and every nested field."""
    s = two.statement
    first, second = s.outputs
    outputs = {
        "name": replace(first, name="y"),
        "link": replace(first, link="identity"),
        "b": replace(first, b=20),
        "b_bias": replace(first, b_bias=62),
        "C_W": replace(first, C_W=certified([(5, -7)], [11]).statement.outputs[0].C_W),
    }
    assert set(outputs) == {f.name for f in dataclasses.fields(OutputStatement)}
    top = {
        "name": replace(s, name="other"),
        "version": replace(s, version="1.1"),
        "schema": replace(s, schema=replace(s.schema, name="x")),
        "parameters": replace(s, parameters=replace(s.parameters, N=2048)),  # type: ignore[type-var]
        "quantisation_rule": replace(s, quantisation_rule="sealproof/quantisation/v2"),
        "grid_bits": replace(s, grid_bits=5),
        "outputs": replace(s, outputs=(second, first)),
    }
    assert set(top) == {f.name for f in dataclasses.fields(ModelStatement)}
    top |= {f"schema.{what}": replace(s, schema=schema) for what, schema in _altered_schemas(s.schema).items()}
    params: Any = s.parameters
    top |= {f"parameters.{what}": replace(s, parameters=p) for what, p in _altered_parameters(params).items()}
    top |= {f"outputs.{what}": replace(s, outputs=(output, second)) for what, output in outputs.items()}
    top["outputs.fewer"] = replace(s, outputs=(first,))
    top["outputs.more"] = replace(s, outputs=(first, second, replace(first, name="y2")))
    return top


def _challenge(statement: ModelStatement) -> bytes:
    transcript = Transcript(b"test")
    statement.absorb(transcript)
    return transcript.challenge_bytes(b"c", 32)


def test_altering_any_public_input_changes_the_challenge_and_is_refused(two: Certified) -> None:
    seen = {_challenge(two.statement)}
    for what, statement in alterations(two).items():
        challenge = _challenge(statement)
        assert challenge not in seen, what
        seen.add(challenge)
        with pytest.raises((VerificationFailed, DecodeError)):
            verify_model_certificate(statement, two.data)
            pytest.fail(f"{what} is not bound")


def test_altering_what_the_statement_absorbs_alone_is_refused(two: Certified) -> None:
    """Alterations that leave every other check true are caught by the proof itself."""
    altered = alterations(two)
    for what in ("name", "version", "schema.name", "parameters.special_prime", "grid_bits", "outputs", "outputs.link"):
        with pytest.raises(VerificationFailed, match=r"quadratic\."):
            verify_model_certificate(altered[what], two.data)


def test_the_protocol_tag_is_bound(one: Certified, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcript_module, "PROTOCOL_TAG", b"sealproof/v2")
    with pytest.raises(VerificationFailed, match="quadratic"):
        verify_model_certificate(one.statement, one.data)


# --- refusals before any proof ------------------------------------------------------------------------------------


def test_the_overflow_check_is_part_of_verification(one: Certified) -> None:
    wide = replace(one.statement.schema.features[0], maximum=2.0**30, encoding="identity")
    schema = replace(one.statement.schema, features=(wide, one.statement.schema.features[1]))
    statement = replace(one.statement, schema=schema)
    with pytest.raises(VerificationFailed) as refusal:
        verify_model_certificate(statement, one.data)
    assert refusal.value.check == "model.overflow"
    with pytest.raises(VerificationFailed) as refusal:
        certify_model(statement, one.openings)
    assert refusal.value.check == "model.overflow"


@pytest.mark.parametrize(
    ("links", "check"),
    [(("tanh", "tanh"), "model.link"), (("softmax", "logit"), "model.link"), (("softmax",), "model.link")],
)
def test_links_without_a_meaning_are_refused(two: Certified, links: tuple[str, ...], check: str) -> None:
    outputs = tuple(replace(o, link=link) for o, link in zip(two.statement.outputs, links, strict=False))
    with pytest.raises(VerificationFailed) as refusal:
        verify_model_certificate(replace(two.statement, outputs=outputs), two.data)
    assert refusal.value.check == check


def test_a_softmax_model_verifies() -> None:
    model = certified([(1, 2), (3, 4)], [5, 6], link="softmax")
    verify_model_certificate(model.statement, model.data)


def test_a_C_W_that_is_no_point_is_refused(one: Certified) -> None:
    identity = bytes([0xC0]) + bytes(47)
    for C_W in (bytes(48), b"\xff" * 48, identity):
        output = replace(one.statement.outputs[0], C_W=C_W)
        with pytest.raises(DecodeError):
            verify_model_certificate(replace(one.statement, outputs=(output,)), one.data)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "a\nb"},
        {"name": "e\u0301"},
        {"name": "\ud800"},
        {"version": 1},
        {"version": "x" * 129},
        {"quantisation_rule": ""},
        {"grid_bits": -1},
        {"grid_bits": True},
        {"outputs": ()},
    ],
)
def test_a_statement_that_no_model_can_have_is_not_made(one: Certified, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        replace(one.statement, **wrong)


@pytest.mark.parametrize(
    "wrong", [{"name": " y"}, {"b": 0}, {"b": 28.0}, {"b_bias": 1 << 20}, {"C_W": bytes(47)}, {"C_W": "00" * 48}]
)
def test_an_output_that_no_model_can_have_is_not_made(one: Certified, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        replace(one.statement.outputs[0], **wrong)


def test_two_outputs_of_one_name_are_not_a_model(two: Certified) -> None:
    first, second = two.statement.outputs
    with pytest.raises(UsageError, match="different names"):
        replace(two.statement, outputs=(first, replace(second, name=first.name)))


def test_a_verified_model_is_made_by_the_verifier_only(one: Certified) -> None:
    with pytest.raises(UsageError):
        VerifiedModel(one.statement, ARKWORKS, (), object())
    verified = verify_model_certificate(one.statement, one.data)
    with pytest.raises((UsageError, ValueError)):
        replace(verified, statement=replace(one.statement, name="other"))


# --- the owner's mistakes -----------------------------------------------------------------------------------------


def test_an_opening_of_something_else_is_refused_before_proving(two: Certified) -> None:
    with pytest.raises(UsageError, match="does not open"):
        certify_model(two.statement, tuple(reversed(two.openings)))
    with pytest.raises(UsageError, match="1 openings for 2"):
        certify_model(two.statement, two.openings[:1])
    short = replace(two.openings[0], weights=(5,))
    with pytest.raises(UsageError):
        certify_model(two.statement, (short, two.openings[1]))


def test_a_refused_weight_is_not_named(one: Certified) -> None:
    secret = 31337 << 2
    opening = WeightOpening((secret, 0), 0, 1)
    C_W = ARKWORKS.encode(weights_key(2).commit(opening.values, 1))
    statement = replace(one.statement, outputs=(replace(one.statement.outputs[0], C_W=C_W),))
    with pytest.raises(UsageError, match="out of its public range") as refusal:
        certify_model(statement, (opening,))
    assert str(secret) not in str(refusal.value)


def test_secrets_are_not_shown() -> None:
    text = repr(WeightOpening((31337,), 27182, 16180))
    assert not any(secret in text for secret in ("31337", "27182", "16180"))


@pytest.mark.parametrize("rho", [-1, ORDER])
def test_a_blinding_outside_the_field_is_refused(rho: int) -> None:
    with pytest.raises(UsageError):
        WeightOpening((1,), 2, rho)


def test_a_statement_for_other_scales_or_outputs_is_not_made(one: Certified, params: ParameterSet) -> None:
    with pytest.raises(UsageError, match="2 commitments for 1"):
        model_statement(one.quantised, params, "1", [bytes(48)] * 2)
    with pytest.raises(UsageError, match="other scales"):
        model_statement(one.quantised, replace(params, weight_scale_bits=20), "1", [bytes(48)])


# --- bytes --------------------------------------------------------------------------------------------------------


def test_every_altered_byte_of_a_certificate_is_refused(one: Certified) -> None:
    points = len(module._TAG) + 5 * 48
    places = [*range(0, points, 5), *range(points, len(one.data), 37), len(one.data) - 1]
    for place in places:
        corrupt = bytearray(one.data)
        corrupt[place] ^= 1 << (place % 8)
        with pytest.raises((DecodeError, VerificationFailed)):
            verify_model_certificate(one.statement, bytes(corrupt))
            pytest.fail(f"byte {place} is not checked")


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b""])
def test_a_certificate_of_another_length_is_refused(one: Certified, change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(DecodeError, match="expected"):
        verify_model_certificate(one.statement, change(one.data))


def test_a_scalar_that_is_not_reduced_is_refused(one: Certified) -> None:
    at = len(one.data) - 32
    shifted = int.from_bytes(one.data[at:], "little") + ORDER
    with pytest.raises(DecodeError, match="not below the group order"):
        verify_model_certificate(one.statement, one.data[:at] + shifted.to_bytes(32, "little"))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_arbitrary_bytes_give_a_refusal_and_never_a_traceback(data: st.DataObject) -> None:
    model = _shared()
    start = data.draw(st.integers(0, len(model.data) - 1))
    patch = data.draw(st.binary(min_size=1, max_size=96))
    mutated = (model.data[:start] + patch + model.data[start + len(patch) :])[: len(model.data)]
    if mutated == model.data:
        return
    with pytest.raises(PrivacyError):
        verify_model_certificate(model.statement, mutated)


_CACHE: list[Certified] = []


def _shared() -> Certified:
    # hypothesis wants no function-scoped fixture, and one model serves all examples
    if not _CACHE:
        _CACHE.append(certified([(5, -7)], [11]))
    return _CACHE[0]


# --- through the float model --------------------------------------------------------------------------------------


def test_a_quantised_model_is_certified_end_to_end(small_model: LinearModel, params: ParameterSet) -> None:
    quantised = quantise(small_model, params, grid_bits=5)
    commitments, openings = commit_model(quantised)
    statement = model_statement(quantised, params, "2026-01", commitments)
    assert statement.outputs[0].link == "logit" and statement.grid_bits == 5 and statement.d == 3
    verify_model_certificate(statement, certify_model(statement, openings))
    assert openings[0].values == (*quantised.outputs[0].weights, quantised.outputs[0].bias)
    assert np.allclose([w / 2**24 for w in openings[0].weights], [0.01 * 41, -0.02 * 290, 0.25], atol=1e-7)
