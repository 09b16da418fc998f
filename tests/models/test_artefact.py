"""Model files: exact, strict, private, never a pickle; and the blinded commitment to them."""

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
from privacy.models.artefact import (
    artefact_commitment,
    artefact_digest,
    decode_model,
    encode_model,
    load_model,
    new_salt,
    save_model,
    verify_artefact_opening,
)
from privacy.models.linear import LinearModel
from privacy.models.schema import Feature, Schema

finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(finite, min_size=3, max_size=3))
@example([-0.0, 5e-324, 1.7976931348623157e308])
def test_a_model_decodes_to_the_same_numbers_and_bytes(numbers: list[float]) -> None:
    schema = Schema("s", 1, (Feature("a", "1", 0, 1), Feature("b", "mg", -1, 1)))
    model = LinearModel("m", np.array([numbers[:2]]), np.array(numbers[2:]), ("y",), "margin", schema)
    encoded = encode_model(model)
    decoded = decode_model(encoded)
    assert encode_model(decoded) == encoded
    assert [x.hex() for x in decoded.weights[0].tolist()] == [x.hex() for x in numbers[:2]]
    assert (decoded.name, decoded.output_names, decoded.link, decoded.schema) == ("m", ("y",), "margin", schema)


def test_every_field_is_bound_by_the_digest(small_model: LinearModel) -> None:
    changes: dict[str, Any] = {
        "name": "other",
        "weights": [[0.01, -0.02, 0.5000000000000001]],
        "bias": [-0.1],
        "output_names": ("score",),
        "link": "margin",
        "schema": dataclasses.replace(small_model.schema, version=9),
    }
    assert set(changes) == {field.name for field in dataclasses.fields(LinearModel)}
    for field, value in changes.items():
        assert artefact_digest(dataclasses.replace(small_model, **{field: value})) != artefact_digest(small_model)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "sealproof/linear-model/v2"},
        {"weights": []},
        {"weights": [["0x1.0p+0", "0x1.0p+0"]]},
        {"weights": [["0x1.0p+0"] * 3, ["0x1.0p+0"] * 2]},
        {"weights": [["0x1.0p+0"] * 3]},  # one spelling only: 0x1.0000000000000p+0
        {"weights": [["1.0"] * 3]},
        {"weights": [["inf"] * 3]},
        {"weights": [["nan"] * 3]},
        {"weights": [["0x1.0p+99999"] * 3]},
        {"weights": [[1.0] * 3]},
        {"weights": ["0x1.0000000000000p+0"] * 3},
        {"weights": {}},
        {"bias": "0x0.0p+0"},
        {"bias": ["0x0.0p+0", "0x0.0p+0"]},
        {"output_names": ["a", "b"]},
        {"output_names": [["a"]]},
        {"output_names": "a"},
        {"link": ["logit"]},
        {"link": "softmax"},
        {"name": 1},
        {"schema": {}},
        {"schema": None},
        {"extra": 1},
    ],
    ids=str,
)
def test_a_document_with_a_wrong_field_is_refused(small_model: LinearModel, change: dict[str, object]) -> None:
    document = json.loads(encode_model(small_model))
    assert encode_model(decode_model(rfc8785.dumps(document))) == encode_model(small_model)
    with pytest.raises(DecodeError):
        decode_model(rfc8785.dumps(document | change))


@given(st.data())
def test_a_changed_byte_is_refused_or_is_another_model(data: st.DataObject) -> None:
    schema = Schema("s", 1, (Feature("a", "1", 0, 1),))
    encoded = bytearray(encode_model(LinearModel("m", np.array([[1.5]]), np.array([-2.0]), ("y",), "logit", schema)))
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_model(bytes(encoded))
    except DecodeError:
        return
    assert encode_model(decoded) == bytes(encoded)


@given(st.binary(max_size=100))
def test_any_bytes_give_a_model_or_a_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_model(data)


# --- files --------------------------------------------------------------------------------------------------------


def test_a_saved_model_is_private_and_loads_back(small_model: LinearModel, tmp_path: Path) -> None:
    path = tmp_path / "risk.json"
    path.write_text("older")
    path.chmod(0o644)
    save_model(small_model, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert encode_model(load_model(path)) == encode_model(small_model)
    assert os.listdir(tmp_path) == ["risk.json"]  # noqa: PTH208


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    small_model: LinearModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "risk.json"
    save_model(small_model, path)
    before = path.read_bytes()

    def broken(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="No space"):
        save_model(dataclasses.replace(small_model, name="other"), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["risk.json"]


def test_a_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(ran),)

    for name in ("model.pkl", "model.json"):
        path = tmp_path / name
        path.write_bytes(pickle.dumps(Attack()))
        with pytest.raises(UsageError, match="pickled model"):
            load_model(path)
    (tmp_path / "text.joblib").write_bytes(pickle.dumps(Attack(), protocol=0))
    (tmp_path / "zip.json").write_bytes(b"PK\x03\x04")
    for name in ("text.joblib", "zip.json"):
        with pytest.raises(UsageError, match="pickled model"):
            load_model(tmp_path / name)
    (tmp_path / "text.json").write_bytes(pickle.dumps(Attack(), protocol=0))
    with pytest.raises(DecodeError):
        load_model(tmp_path / "text.json")
    assert not ran.exists()


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        load_model(tmp_path / "absent.json")


# --- commitment ---------------------------------------------------------------------------------------------------


def test_the_commitment_opens_to_its_model_and_salt_only(small_model: LinearModel) -> None:
    salt = new_salt()
    commitment = artefact_commitment(artefact_digest(small_model), salt)
    verify_artefact_opening(commitment, small_model, salt)
    nudged = dataclasses.replace(small_model, bias=np.array([np.nextafter(0.1, 1)]))
    for wrong_commitment, model, wrong_salt in (
        (commitment, nudged, salt),
        (commitment, small_model, new_salt()),
        (commitment, small_model, salt[:-1]),
        (commitment, small_model, salt + b"\0"),
        (commitment[:-1], small_model, salt),
        (b"", small_model, salt),
        (bytes([commitment[0] ^ 1]) + commitment[1:], small_model, salt),
    ):
        with pytest.raises(VerificationFailed, match=r"model\.artefact"):
            verify_artefact_opening(wrong_commitment, model, wrong_salt)


def test_the_commitment_to_a_guessed_model_cannot_be_confirmed_without_the_salt(small_model: LinearModel) -> None:
    digest = artefact_digest(small_model)
    commitments = {artefact_commitment(digest, new_salt()) for _ in range(50)}
    assert len(commitments) == 50
    assert digest not in commitments


@pytest.mark.parametrize(
    ("digest", "salt"), [(b"\0" * 31, b"\0" * 16), (b"\0" * 32, b"\0" * 15), (b"\0" * 33, b"\0" * 15)]
)
def test_parts_of_the_wrong_length_are_not_committed(digest: bytes, salt: bytes) -> None:
    assert len(artefact_commitment(b"\0" * 32, b"\0" * 16)) == 32
    with pytest.raises(UsageError, match="expected a digest of 32"):
        artefact_commitment(digest, salt)
