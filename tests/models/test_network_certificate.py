"""Commitments to rows and the certificate `bounded`: what holds, what every field binds, which bytes are refused."""

from __future__ import annotations

import dataclasses
import stat
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import DecodeError, PrivacyError, UsageError, VerificationFailed
from privacy.models import network_certificate as module
from privacy.models.linear import Link
from privacy.models.network import Dense, Network
from privacy.models.network_certificate import (
    NetworkOpening,
    NetworkStatement,
    RowOpening,
    VerifiedNetwork,
    certify_network,
    commit_network,
    decode_network_opening,
    encode_network_opening,
    load_network_opening,
    network_certificate_size,
    network_statement,
    open_network,
    save_network_opening,
    verify_network_certificate,
)
from privacy.models.network_quantise import (
    CommittedLayer,
    LayerShape,
    QuantisedLayer,
    QuantisedNetwork,
    layer_bounds,
    network_error_bound,
    quantise_network,
)
from privacy.models.schema import Feature, Schema
from privacy.zk import transcript as transcript_module
from privacy.zk.group import ARKWORKS, ORDER, REFERENCE
from privacy.zk.pedersen import commitment_key
from privacy.zk.transcript import Transcript

B, B_BIAS = 3, 6  # short proofs


@dataclass(frozen=True)
class Parameters:
    """A parameter set of no engine."""

    name: str = "mpc-test"
    input_scale_bits: int = 16

    def encode(self) -> bytes:
        return f"{self.name} {self.input_scale_bits}".encode()


@dataclass(frozen=True)
class Certified:
    quantised: QuantisedNetwork
    statement: NetworkStatement
    openings: tuple[tuple[RowOpening, ...], ...]
    data: bytes


def a_schema(d: int = 2) -> Schema:
    return Schema("ward", 1, tuple(Feature(f"x{i}", "mg/dL", 0.0, 10.0) for i in range(d)))


def layer(*rows: tuple[int, ...]) -> QuantisedLayer:
    """A layer of rows (w_1, ..., w_m, bias)."""
    shape = LayerShape(len(rows[0]) - 1, len(rows), 4, B, B_BIAS)
    return QuantisedLayer(shape, tuple(row[:-1] for row in rows), tuple(row[-1] for row in rows))


def certified(*layers: QuantisedLayer, link: Link = "margin") -> Certified:
    names = tuple(f"y{k}" for k in range(layers[-1].shape.outputs))
    quantised = QuantisedNetwork("risk", a_schema(layers[0].shape.inputs), link, names, layers, 16, 6)
    committed, openings = commit_network(quantised)
    statement = network_statement(quantised, Parameters(), "1.0", committed)
    return Certified(quantised, statement, openings, certify_network(statement, openings))


@pytest.fixture(scope="module")
def deep() -> Certified:
    """2 - 3 - 2."""
    return certified(layer((5, -7, 11), (1, 0, -2), (-8, 7, 63)), layer((1, 2, 3, 4), (-1, -2, -3, -64)))


@pytest.fixture(scope="module")
def single() -> Certified:
    return certified(layer((5, -7, 11)))


# --- what holds ---------------------------------------------------------------------------------------------------


def test_a_certified_network_verifies(deep: Certified) -> None:
    verified = verify_network_certificate(deep.statement, deep.data)
    assert verified.statement == deep.statement
    found = [tuple(map(ARKWORKS.encode, rows)) for rows in verified.commitments]
    assert found == [layer.commitments for layer in deep.statement.layers]
    assert len(deep.data) == network_certificate_size(deep.statement)


def test_extreme_weights_and_biases_are_certified() -> None:
    low, high = -(1 << B), (1 << B) - 1
    extreme = certified(layer((low, high, -(1 << B_BIAS))), layer((low, (1 << B_BIAS) - 1), (high, 0)), link="softmax")
    verify_network_certificate(extreme.statement, extreme.data)


def test_a_row_is_committed_as_an_output_of_a_linear_model_is(single: Certified) -> None:
    key = commitment_key("model/weights", 2) + commitment_key("model/bias", 1)
    point = key.commit([5, -7, 11], single.openings[0][0].rho)
    assert ARKWORKS.encode(point) == single.statement.layers[0].commitments[0]


def test_a_network_committed_or_certified_twice_shares_nothing(deep: Certified) -> None:
    committed, openings = commit_network(deep.quantised)
    before = {C for layer in deep.statement.layers for C in layer.commitments}
    assert not before & {C for layer in committed for C in layer.commitments}
    assert [row.values for row in openings[1]] == [row.values for row in deep.openings[1]]
    again = certify_network(deep.statement, deep.openings)
    tag = len(module._TAG)
    blocks = {deep.data[i : i + 16] for i in range(tag, len(deep.data), 16)}
    assert not blocks & {again[i : i + 16] for i in range(tag, len(again), 16)}


def test_the_statement_tells_the_bounds_of_the_network(deep: Certified) -> None:
    quantised, statement = deep.quantised, deep.statement
    assert statement.bounds == layer_bounds(quantised.schema, quantised.shapes, 16)
    assert statement.answer_scale_bits == quantised.answer_scale_bits == 24
    assert (statement.error_bound,) * 2 == network_error_bound(quantised)


def test_a_network_of_thirty_features_and_sixteen_neurons_has_a_certificate_under_350_kB() -> None:
    generator = np.random.default_rng(0)
    layers = (
        Dense(generator.normal(size=(16, 30)) / 5, generator.normal(size=16)),
        Dense(generator.normal(size=(1, 16)) / 2, np.zeros(1)),
    )
    quantised = quantise_network(Network("mlp", layers, ("y",), "logit", a_schema(30)), 16)
    committed, openings = commit_network(quantised)
    statement = network_statement(quantised, Parameters(), "1", committed)
    data = certify_network(statement, openings)
    verify_network_certificate(statement, data)
    assert len(data) < 350_000


def test_both_implementations_of_the_curve_agree(single: Certified) -> None:
    verified = verify_network_certificate(single.statement, single.data, REFERENCE)
    assert REFERENCE.encode(verified.commitments[0][0]) == single.statement.layers[0].commitments[0]
    corrupt = bytearray(single.data)
    corrupt[-1] ^= 1
    for group in (ARKWORKS, REFERENCE):
        with pytest.raises(VerificationFailed) as refusal:
            verify_network_certificate(single.statement, bytes(corrupt), group)
        assert refusal.value.check == "quadratic.relation"


def test_the_verifier_needs_neither_zksk_nor_a_machine_learning_library() -> None:
    code = (
        "import sys, privacy.models.network_certificate, privacy.models.network_artefact\n"
        "bad = {'zksk', 'petlib', 'tenseal', 'torch', 'crypten', 'sklearn', 'fastapi'} & set(sys.modules)\n"
        "sys.exit(repr(bad) if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- every public input is bound ----------------------------------------------------------------------------------


def alterations(deep: Certified) -> dict[str, NetworkStatement]:
    """The statement with one thing altered, for every field and every nested field."""
    s = deep.statement
    first, second = s.layers
    C = certified(layer((5, -7, 11))).statement.layers[0].commitments[0]
    shapes = {
        "weight_scale_bits": replace(first.shape, weight_scale_bits=5),
        "b": replace(first.shape, b=4),
        "b_bias": replace(first.shape, b_bias=7),
    }
    altered = {
        "name": replace(s, name="other"),
        "version": replace(s, version="1.1"),
        "schema": replace(s, schema=replace(s.schema, name="x")),
        "parameters": replace(s, parameters=Parameters(name="mpc-other")),
        "quantisation_rule": replace(s, quantisation_rule="sealproof/network-quantisation/v2"),
        "grid_bits": replace(s, grid_bits=5),
        "link": replace(s, link="identity"),
        "output_names": replace(s, output_names=("y1", "y0")),
        "layers": replace(s, layers=(first, replace(second, commitments=second.commitments[::-1]))),
    }
    assert set(altered) == {field.name for field in dataclasses.fields(NetworkStatement)}
    features = (replace(s.schema.features[0], maximum=11.0), s.schema.features[1])
    altered["schema.features"] = replace(s, schema=replace(s.schema, features=features))
    altered["parameters.input_scale_bits"] = replace(s, parameters=Parameters(input_scale_bits=15))
    sizes = {"inputs", "outputs"}
    assert set(shapes) | sizes == {field.name for field in dataclasses.fields(LayerShape)}
    for what, shape in shapes.items():
        altered[f"layers.shape.{what}"] = replace(s, layers=(replace(first, shape=shape), second))
    altered["layers.commitment"] = replace(s, layers=(replace(first, commitments=(C, *first.commitments[1:])), second))
    altered["layers.rows"] = replace(s, layers=(replace(first, commitments=first.commitments[::-1]), second))
    altered["layers.fewer"] = replace(s, layers=(second,))
    altered["layers.wider"] = replace(
        s,
        layers=(
            CommittedLayer(replace(first.shape, outputs=4), (*first.commitments, C)),
            replace(second, shape=replace(second.shape, inputs=4)),
        ),
    )
    return altered


def _challenge(statement: NetworkStatement) -> bytes:
    transcript = Transcript(b"test")
    statement.absorb(transcript)
    return transcript.challenge_bytes(b"c", 32)


def test_altering_any_public_input_changes_the_challenge_and_is_refused(deep: Certified) -> None:
    seen = {_challenge(deep.statement)}
    for what, statement in alterations(deep).items():
        challenge = _challenge(statement)
        assert challenge not in seen, what
        seen.add(challenge)
        with pytest.raises((VerificationFailed, DecodeError)):
            verify_network_certificate(statement, deep.data)
            pytest.fail(f"{what} is not bound")


def test_altering_what_the_statement_absorbs_alone_is_refused(deep: Certified) -> None:
    """Alterations that leave every other check true are caught by the proof itself."""
    altered = alterations(deep)
    for what in ("name", "version", "schema", "parameters", "grid_bits", "link", "output_names", "layers",
                 "layers.rows", "layers.shape.weight_scale_bits"):  # fmt: skip
        with pytest.raises(VerificationFailed, match=r"quadratic\."):
            verify_network_certificate(altered[what], deep.data)


def test_a_proof_is_of_its_layer_only() -> None:
    """Two layers of one shape: neither proof does for the other, even with the commitments beside it exchanged."""
    same = certified(layer((1, 2, 3), (4, 5, 6)), layer((-1, -2, -3), (-4, -5, -6)))
    tag = len(module._TAG)
    half = (len(same.data) - tag) // 2
    swapped = same.data[:tag] + same.data[tag + half :] + same.data[tag : tag + half]
    statement = replace(same.statement, layers=same.statement.layers[::-1])
    for one in (same.statement, statement):
        with pytest.raises(VerificationFailed, match=r"quadratic\."):
            verify_network_certificate(one, swapped)


def test_the_protocol_tag_is_bound(single: Certified, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcript_module, "PROTOCOL_TAG", b"sealproof/v2")
    with pytest.raises(VerificationFailed, match="quadratic"):
        verify_network_certificate(single.statement, single.data)


def test_weights_out_of_range_have_no_certificate(single: Certified, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one bit too many nor a fraction mod r: a prover that skips its own checks makes a proof that fails."""
    third = pow(3, -1, ORDER)
    monkeypatch.setattr("privacy.zk.quadratic.QuadraticSystem.violated", lambda self, witness: None)
    for weight in (1 << B, -(1 << B) - 1, third):
        row = RowOpening((weight, 0), 0, 1)
        C = ARKWORKS.encode(module.weights_key(2).commit(row.values, 1))
        statement = replace(single.statement, layers=(replace(single.statement.layers[0], commitments=(C,)),))
        data = _certify_unchecked(statement, row)
        with pytest.raises(VerificationFailed, match=r"quadratic\.relation"):
            verify_network_certificate(statement, data)


def _certify_unchecked(statement: NetworkStatement, row: RowOpening) -> bytes:
    shape = statement.layers[0].shape
    key, bits_key = module.weights_key(shape.inputs), module._bits_key(shape, ARKWORKS)
    bits = [
        bit for v, width in zip(row.values, module._widths(shape), strict=True) for bit in module.offset_bits(v, width)
    ]
    point, bit_point = key.commit(row.values, row.rho), bits_key.commit(bits, 5)
    copies = module.CopyStatement(module._system(shape), (key, bits_key), ((point, bit_point),))
    proof = module.prove_copies(module._transcript(statement, 0), copies, [(row.values, bits)], [(row.rho, 5)])
    return module._TAG + ARKWORKS.encode(bit_point) + proof.encode(ARKWORKS)


# --- refusals before any proof ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"quantisation_rule": "sealproof/quantisation/v1"}, "network.rule"),
        ({"link": "tanh"}, "network.link"),
        ({"link": "softmax"}, "network.link"),
        ({"grid_bits": 15}, "network.grid"),
        ({"parameters": Parameters(input_scale_bits=40)}, "network.overflow"),
        ({"schema": a_schema(3)}, "network.overflow"),
        ({"schema": Schema("w", 1, (*a_schema(1).features, Feature("b", "1", 0, 2.0**50, "number", "identity")))},
         "network.overflow"),
    ],
    ids=str,
)  # fmt: skip
def test_public_checks_are_part_of_proving_and_verifying(single: Certified, change: Any, check: str) -> None:
    statement = replace(single.statement, **change)
    for refused in (
        lambda: verify_network_certificate(statement, single.data),
        lambda: certify_network(statement, single.openings),
        lambda: open_network(statement, _float_network(single), single.openings),
    ):
        with pytest.raises(VerificationFailed) as refusal:
            refused()
        assert refusal.value.check == check


def test_a_commitment_that_is_no_point_is_refused(single: Certified) -> None:
    identity = bytes([0xC0]) + bytes(47)
    for C in (bytes(48), b"\xff" * 48, identity):
        layers = (replace(single.statement.layers[0], commitments=(C,)),)
        with pytest.raises(DecodeError):
            verify_network_certificate(replace(single.statement, layers=layers), single.data)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "e\u0301"},
        {"version": 1},
        {"version": "x" * 129},
        {"quantisation_rule": ""},
        {"grid_bits": -1},
        {"grid_bits": True},
        {"layers": ()},
        {"output_names": ()},
        {"output_names": ("a", "b")},
        {"output_names": (" a",)},
    ],
)
def test_a_statement_that_no_network_can_have_is_not_made(single: Certified, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        replace(single.statement, **wrong)


def test_a_verified_network_is_made_by_the_verifier_only(single: Certified) -> None:
    with pytest.raises(UsageError):
        VerifiedNetwork(single.statement, ARKWORKS, (), object())
    verified = verify_network_certificate(single.statement, single.data)
    with pytest.raises((UsageError, ValueError)):
        replace(verified, statement=replace(single.statement, name="other"))


# --- the owner's mistakes -----------------------------------------------------------------------------------------


def test_openings_of_something_else_are_refused_before_proving(deep: Certified) -> None:
    first, second = deep.openings
    for openings, message in (
        ((first[::-1], second), "layer 1: an opening does not open"),
        ((first, second[::-1]), "layer 2: an opening does not open"),
        ((first[:2], second), "not one for every row"),
        ((first,), "not one for every row"),
        (((replace(first[0], weights=(5,)), *first[1:]), second), "another number of weights"),
    ):
        with pytest.raises(UsageError, match=message):
            certify_network(deep.statement, openings)


def test_a_refused_weight_is_not_named(single: Certified) -> None:
    secret = 31337
    row = RowOpening((secret, 0), 0, 1)
    C = ARKWORKS.encode(module.weights_key(2).commit(row.values, 1))
    statement = replace(single.statement, layers=(replace(single.statement.layers[0], commitments=(C,)),))
    with pytest.raises(UsageError, match="out of its public range") as refusal:
        certify_network(statement, ((row,),))
    assert str(secret) not in str(refusal.value)


def test_a_statement_for_another_scale_or_other_shapes_is_not_made(single: Certified, deep: Certified) -> None:
    with pytest.raises(UsageError, match="other shapes"):
        network_statement(single.quantised, Parameters(), "1", deep.statement.layers)
    with pytest.raises(UsageError, match=r"inputs at 2\^16"):
        network_statement(single.quantised, Parameters(input_scale_bits=12), "1", single.statement.layers)


def test_secrets_are_not_shown() -> None:
    row = RowOpening((31337,), 27182, 16180)
    text = repr(row) + repr(NetworkOpening("sealproof/network-opening/v1", "a", "1", ((row,),)))
    assert not any(secret in text for secret in ("31337", "27182", "16180"))


# --- bytes --------------------------------------------------------------------------------------------------------


def test_every_altered_byte_of_a_certificate_is_refused(single: Certified) -> None:
    points = len(module._TAG) + 5 * 48
    places = [*range(0, points, 5), *range(points, len(single.data), 7), len(single.data) - 1]
    for place in places:
        corrupt = bytearray(single.data)
        corrupt[place] ^= 1 << (place % 8)
        with pytest.raises((VerificationFailed, DecodeError)):
            verify_network_certificate(single.statement, bytes(corrupt))


@given(st.integers(-3, 3), st.binary(max_size=4))
def test_a_certificate_of_another_length_is_refused(single: Certified, cut: int, more: bytes) -> None:
    data = single.data[: len(single.data) + cut] + more if cut <= 0 else single.data[cut:] + more
    if data == single.data:
        return
    with pytest.raises(PrivacyError):
        verify_network_certificate(single.statement, data)


# --- opening ------------------------------------------------------------------------------------------------------


def _float_network(one: Certified) -> Network:
    """The float network that quantises to exactly the integers of `one`."""
    layers, scale = [], 16
    half_widths = np.array([feature.half_width for feature in one.quantised.schema.features])
    centers = np.array([feature.center for feature in one.quantised.schema.features])
    for number, quantised in enumerate(one.quantised.layers):
        scale += quantised.shape.weight_scale_bits
        weights = np.array(quantised.weights, dtype=np.float64) / 2**quantised.shape.weight_scale_bits
        bias = np.array(quantised.bias, dtype=np.float64) / 2**scale
        if number == 0:
            weights = weights / half_widths
            bias = bias - weights @ centers
        layers.append(Dense(weights, bias))
    q = one.quantised
    return Network(q.name, tuple(layers), q.output_names, q.link, q.schema)


def test_a_network_opens_its_commitments(deep: Certified) -> None:
    assert open_network(deep.statement, _float_network(deep), deep.openings) == deep.quantised


def test_another_network_or_opening_does_not_open_the_commitments(deep: Certified) -> None:
    network = _float_network(deep)
    first, last = network.layers
    moved = Dense(last.weights, last.bias + 2.0**-24)
    narrow = (Dense(first.weights[:2], first.bias[:2]), Dense(last.weights[:, :2], last.bias))
    schema = replace(network.schema, version=2)
    a, b = deep.openings
    cases: list[tuple[Network, Any, str]] = [
        (replace(network, layers=(first, moved)), deep.openings, "layer 2: a row is committed with other weights"),
        (replace(network, layers=narrow), deep.openings, "other widths"),
        (replace(network, layers=(first, Dense(last.weights + 9, last.bias))), deep.openings, "does not quantise"),
        (replace(network, layers=(Dense(network.layers[0].weights[:2], [0, 0]),)), deep.openings, "does not quantise"),  # type: ignore[arg-type]
        (replace(network, name="other"), deep.openings, "another name"),
        (replace(network, schema=schema), deep.openings, "another name or schema"),
        (replace(network, output_names=("a", "b")), deep.openings, "other outputs"),
        (replace(network, link="identity"), deep.openings, "other outputs"),
        (network, (a[::-1], b), "layer 1: a row is committed"),
        (network, (a, b[:1]), "not one for every row"),
    ]
    for wrong, openings, message in cases:
        with pytest.raises(VerificationFailed, match=message) as refusal:
            open_network(deep.statement, wrong, openings)
        assert refusal.value.check == "network.opening"


def test_a_saved_opening_is_private_and_loads_back(deep: Certified, tmp_path: Path) -> None:
    opening = NetworkOpening.of(deep.statement, deep.openings)
    path = tmp_path / "opening.json"
    save_network_opening(opening, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_network_opening(path) == opening
    data = encode_network_opening(opening)
    assert decode_network_opening(data) == opening
    assert certify_network(deep.statement, opening.layers)
    for wrong in (data[:-1], data + b" ", data.replace(b"network-opening/v1", b"model-opening/v1"), b"{}"):
        with pytest.raises(DecodeError):
            decode_network_opening(wrong)
    with pytest.raises(UsageError, match="cannot read"):
        load_network_opening(tmp_path / "absent")
