"""Files of networks: exact, strict, private, never a pickle; one reader for both kinds of model."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.models.artefact import artefact_commitment, artefact_digest, encode_model, new_salt, save_model
from privacy.models.linear import LinearModel
from privacy.models.network import Dense, Network
from privacy.models.network_artefact import (
    any_model_digest,
    decode_any_model,
    decode_network,
    encode_any_model,
    encode_network,
    load_any_model,
    save_any_model,
    verify_any_model_opening,
)
from privacy.models.schema import Feature, Schema

finite = st.floats(allow_nan=False, allow_infinity=False)


@pytest.fixture
def network(small_schema: Schema) -> Network:
    layers = (
        Dense(np.array([[0.01, -0.02, 0.5], [1.0, 2.0, 3.0]]), np.array([0.1, -1.0])),
        Dense(np.array([[1.5, 0.25]]), np.array([-0.5])),
    )
    return Network("risk", layers, ("risk",), "logit", small_schema)


@given(st.lists(finite, min_size=5, max_size=5))
@example([-0.0, 5e-324, 1.7976931348623157e308, 0.1, -1.0])
def test_a_network_decodes_to_the_same_numbers_and_bytes(numbers: list[float]) -> None:
    schema = Schema("s", 1, (Feature("a", "1", 0, 1), Feature("b", "mg", -1, 1)))
    layers = (
        Dense(np.array([numbers[:2]]), np.array(numbers[2:3])),
        Dense(np.array([numbers[3:4]]), np.array(numbers[4:])),
    )
    network = Network("m", layers, ("y",), "margin", schema)
    encoded = encode_network(network)
    decoded = decode_network(encoded)
    assert encode_network(decoded) == encoded
    found = [x for layer in decoded.layers for x in (*layer.weights.reshape(-1).tolist(), *layer.bias.tolist())]
    assert [x.hex() for x in found] == [x.hex() for x in numbers]
    assert (decoded.name, decoded.output_names, decoded.link, decoded.schema) == ("m", ("y",), "margin", schema)


def test_every_field_is_bound_by_the_digest(network: Network) -> None:
    first, last = network.layers
    nudged = Dense(last.weights, np.array([np.nextafter(-0.5, 0)]))
    changes: dict[str, Any] = {
        "name": "other",
        "layers": (first, nudged),
        "output_names": ("score",),
        "link": "margin",
        "schema": dataclasses.replace(network.schema, version=9),
    }
    assert set(changes) == {field.name for field in dataclasses.fields(Network)}
    digests = {any_model_digest(dataclasses.replace(network, **{field: value})) for field, value in changes.items()}
    assert len(digests | {any_model_digest(network)}) == len(changes) + 1


ONE = "0x1.0000000000000p+0"


@pytest.mark.parametrize(
    "change",
    [
        {"format": "sealproof/network-model/v2"},
        {"format": "sealproof/linear-model/v1"},
        {"layers": []},
        {"layers": {}},
        {"layers": [1]},
        {"layers": [{"weights": [[ONE] * 3]}]},
        {"layers": [{"weights": [[ONE] * 3], "bias": [ONE], "more": 1}]},
        {"layers": [{"weights": [[ONE] * 2], "bias": [ONE]}]},
        {"layers": [{"weights": [[ONE] * 3, [ONE] * 2], "bias": [ONE]}]},
        {"layers": [{"weights": [[ONE] * 3], "bias": [ONE, ONE]}]},
        {"layers": [{"weights": [], "bias": []}]},
        {"layers": [{"weights": [["0x1.0p+0"] * 3], "bias": [ONE]}]},
        {"layers": [{"weights": [["nan"] * 3], "bias": [ONE]}]},
        {"layers": [{"weights": [[1.0] * 3], "bias": [ONE]}]},
        {"output_names": ["a", "b"]},
        {"output_names": [["a"]]},
        {"output_names": "a"},
        {"link": ["logit"]},
        {"link": "softmax"},
        {"name": 1},
        {"schema": {}},
        {"extra": 1},
    ],
    ids=str,
)
def test_a_document_with_a_wrong_field_is_refused(network: Network, change: dict[str, object]) -> None:
    document = json.loads(encode_network(network))
    assert encode_network(decode_network(rfc8785.dumps(document))) == encode_network(network)
    good = {"layers": [{"weights": [[ONE] * 3], "bias": [ONE]}]}
    decode_network(rfc8785.dumps(document | good))
    for decode in (decode_network, decode_any_model):
        with pytest.raises(DecodeError):
            decode(rfc8785.dumps(document | change))


@given(st.data())
def test_a_changed_byte_is_refused_or_is_another_network(data: st.DataObject) -> None:
    schema = Schema("s", 1, (Feature("a", "1", 0, 1),))
    layers = (Dense(np.array([[1.5]]), np.array([-2.0])),) * 2
    encoded = bytearray(encode_network(Network("m", layers, ("y",), "logit", schema)))
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_any_model(bytes(encoded))
    except DecodeError:
        return
    assert encode_any_model(decoded) == bytes(encoded)


@given(st.binary(max_size=100))
def test_any_bytes_give_a_model_or_a_decode_error(data: bytes) -> None:
    for decode in (decode_network, decode_any_model):
        with pytest.raises(DecodeError):
            decode(data)


# --- files and commitments ----------------------------------------------------------------------------------------


def test_a_file_says_which_kind_of_model_it_holds(network: Network, small_model: LinearModel, tmp_path: Path) -> None:
    save_any_model(network, tmp_path / "network.json")
    save_any_model(small_model, tmp_path / "linear.json")
    save_model(small_model, tmp_path / "older.json")
    assert stat.S_IMODE((tmp_path / "network.json").stat().st_mode) == 0o600
    read = load_any_model(tmp_path / "network.json")
    assert isinstance(read, Network)
    assert encode_network(read) == encode_network(network)
    for name in ("linear.json", "older.json"):
        linear = load_any_model(tmp_path / name)
        assert isinstance(linear, LinearModel)
        assert encode_model(linear) == encode_model(small_model)


def test_a_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(ran),)

    for name, protocol in (("model.pt", 0), ("model.json", 4)):
        (tmp_path / name).write_bytes(pickle.dumps(Attack(), protocol=protocol))
        with pytest.raises(UsageError, match="pickled model"):
            load_any_model(tmp_path / name)
    assert not ran.exists()


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        load_any_model(tmp_path / "absent.json")


def test_the_commitment_opens_to_its_model_and_salt_only(network: Network, small_model: LinearModel) -> None:
    assert any_model_digest(small_model) == artefact_digest(small_model)
    salt = new_salt()
    for model, other in ((network, small_model), (small_model, network)):
        commitment = artefact_commitment(any_model_digest(model), salt)
        verify_any_model_opening(commitment, model, salt)
        for wrong_model, wrong_salt in ((other, salt), (model, new_salt()), (model, salt[:-1])):
            with pytest.raises(VerificationFailed, match=r"model\.artefact"):
                verify_any_model_opening(commitment, wrong_model, wrong_salt)
