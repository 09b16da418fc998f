"""zero-weight statements, the opening file, and the opening to an auditor."""

from __future__ import annotations

import builtins
import stat
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privacy.ckks.params import parameter_set
from privacy.errors import DecodeError, MissingDependency, UsageError, VerificationFailed
from privacy.models.certificate import (
    ModelStatement,
    VerifiedModel,
    WeightOpening,
    certify_model,
    commit_model,
    model_statement,
    verify_model_certificate,
)
from privacy.models.linear import LinearModel
from privacy.models.quantise import quantise
from privacy.models.schema import Feature, Schema
from privacy.models.statements import (
    ModelOpening,
    load_opening,
    open_commitment,
    prove_zero_weight,
    save_opening,
    verify_zero_weight,
)
from privacy.zk.group import ORDER, REFERENCE


@dataclass(frozen=True, eq=False)
class Published:
    model: LinearModel
    statement: ModelStatement
    openings: tuple[WeightOpening, ...]
    certificate: bytes
    verified: VerifiedModel


@pytest.fixture(scope="module")
def published() -> Published:
    """Two outputs of three weights; weight 1 of output 0 and weight 0 of output 1 are zero."""
    params = parameter_set("linear-4096")
    schema = Schema("ward", 1, tuple(Feature(f"x{i}", "1", -1.0, 1.0) for i in range(3)))
    weights = np.array([[0.5, 0.0, -0.25], [0.0, 0.125, 0.75]])
    model = LinearModel("risk", weights, np.array([0.1, -0.2]), ("low", "high"), "margin", schema)
    quantised = quantise(model, params, weight_bits=24)
    commitments, openings = commit_model(quantised)
    statement = model_statement(quantised, params, "1", commitments)
    data = certify_model(statement, openings)
    return Published(model, statement, openings, data, verify_model_certificate(statement, data))


@pytest.fixture(scope="module")
def zero_proof(published: Published) -> bytes:
    pytest.importorskip("zksk")
    return prove_zero_weight(published.statement, 0, 1, published.openings[0])


# --- zero-weight --------------------------------------------------------------------------------------------------


def test_a_zero_weight_is_proven(published: Published, zero_proof: bytes) -> None:
    verify_zero_weight(published.verified, 0, 1, zero_proof)
    verify_zero_weight(published.verified, 1, 0, prove_zero_weight(published.statement, 1, 0, published.openings[1]))


def test_both_implementations_of_the_curve_accept_it(published: Published, zero_proof: bytes) -> None:
    reference = verify_model_certificate(published.statement, published.certificate, REFERENCE)
    verify_zero_weight(reference, 0, 1, zero_proof)
    with pytest.raises(VerificationFailed):
        verify_zero_weight(reference, 0, 2, zero_proof)


def test_a_weight_that_is_not_zero_has_no_proof(published: Published) -> None:
    pytest.importorskip("zksk")
    with pytest.raises(UsageError, match="do not satisfy"):
        prove_zero_weight(published.statement, 0, 0, published.openings[0])
    with pytest.raises(UsageError, match="do not satisfy"):
        prove_zero_weight(published.statement, 0, 1, published.openings[1])


@pytest.mark.parametrize(("output", "feature"), [(0, 0), (0, 2), (1, 1), (1, 0)])
def test_a_proof_says_nothing_about_another_weight(
    published: Published, zero_proof: bytes, output: int, feature: int
) -> None:
    with pytest.raises(VerificationFailed):
        verify_zero_weight(published.verified, output, feature, zero_proof)


@pytest.mark.parametrize(("output", "feature"), [(0, 3), (0, 4), (0, -1), (2, 0), (-1, 0)])
def test_the_bias_and_places_outside_the_model_are_refused(
    published: Published, zero_proof: bytes, output: int, feature: int
) -> None:
    with pytest.raises(VerificationFailed) as refusal:
        verify_zero_weight(published.verified, output, feature, zero_proof)
    assert refusal.value.check == "zero-weight.index"
    with pytest.raises(UsageError, match="no weight"):
        prove_zero_weight(published.statement, output, feature, published.openings[0])


def test_a_proof_is_bound_to_the_whole_model_statement(published: Published, zero_proof: bytes) -> None:
    statement = replace(published.statement, version="2")
    verified = verify_model_certificate(statement, certify_model(statement, published.openings))
    with pytest.raises(VerificationFailed):
        verify_zero_weight(verified, 0, 1, zero_proof)


def test_altered_proofs_are_refused(published: Published, zero_proof: bytes) -> None:
    for place in range(0, len(zero_proof), 7):
        corrupt = bytearray(zero_proof)
        corrupt[place] ^= 1
        with pytest.raises((DecodeError, VerificationFailed)):
            verify_zero_weight(published.verified, 0, 1, bytes(corrupt))
    for other in (b"", zero_proof[:-1], zero_proof + b"\0"):
        with pytest.raises(DecodeError):
            verify_zero_weight(published.verified, 0, 1, other)


def test_without_zksk_proving_says_so_and_verifying_works(
    published: Published, zero_proof: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] in ("zksk", "petlib") or name == "privacy.zk.sigma":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingDependency, match="zksk"):
        prove_zero_weight(published.statement, 0, 1, published.openings[0])
    verify_zero_weight(published.verified, 0, 1, zero_proof)


def test_importing_the_statements_does_not_import_zksk() -> None:
    code = "import sys, privacy.models.statements; sys.exit('zksk' in sys.modules or 'petlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- opening to an auditor ----------------------------------------------------------------------------------------


def test_the_float_model_and_the_blindings_reproduce_the_commitments(published: Published) -> None:
    quantised = open_commitment(published.statement, published.model, published.openings)
    assert [(*o.weights, o.bias) for o in quantised.outputs] == [o.values for o in published.openings]
    open_commitment(published.statement, published.model, published.openings, REFERENCE)


def test_claimed_integers_are_not_believed(published: Published) -> None:
    """Integers come from the float model alone; an opening that lies about them changes nothing."""
    lies = tuple(replace(opening, weights=(1, 2, 3), bias=4) for opening in published.openings)
    assert open_commitment(published.statement, published.model, lies).outputs[0].weights != (1, 2, 3)


def _moved(model: LinearModel, what: str) -> LinearModel:
    step = 2.0**-24  # one unit of the integer weights
    if what == "weight":
        return replace(model, weights=model.weights + np.array([[0, 0, step], [0, 0, 0]]))
    if what == "bias":
        return replace(model, bias=model.bias + np.array([0, step]))
    if what == "outputs swapped":
        return replace(model, weights=model.weights[::-1], bias=model.bias[::-1])
    if what == "link":
        return replace(model, link="identity")
    if what == "name":
        return replace(model, name="other")
    if what == "output names":
        return replace(model, output_names=("high", "low"))
    if what == "too large":
        return replace(model, weights=model.weights * 1e6)
    first, *rest = model.schema.features
    return replace(model, schema=replace(model.schema, features=(replace(first, maximum=2.0), *rest)))


@pytest.mark.parametrize(
    "what", ["weight", "bias", "outputs swapped", "link", "name", "output names", "too large", "schema"]
)
def test_another_float_model_does_not_open_the_commitments(published: Published, what: str) -> None:
    with pytest.raises(VerificationFailed) as refusal:
        open_commitment(published.statement, _moved(published.model, what), published.openings)
    assert refusal.value.check == "model.opening"


def test_another_blinding_does_not_open_the_commitments(published: Published) -> None:
    first, second = published.openings
    for openings in ((replace(first, rho=(first.rho + 1) % ORDER), second), (second, first), (first,), ()):
        with pytest.raises(VerificationFailed) as refusal:
            open_commitment(published.statement, published.model, openings)
        assert refusal.value.check == "model.opening"


def test_a_statement_under_another_rule_is_not_opened(published: Published) -> None:
    statement = replace(published.statement, quantisation_rule="other")
    with pytest.raises(VerificationFailed) as refusal:
        open_commitment(statement, published.model, published.openings)
    assert refusal.value.check == "model.rule"


# --- opening file -------------------------------------------------------------------------------------------------


def test_an_opening_file_round_trips_and_certifies(published: Published, tmp_path: Path) -> None:
    path = tmp_path / "model.opening"
    opening = ModelOpening.of(published.statement, published.openings)
    save_opening(opening, path)
    loaded = load_opening(path)
    assert loaded == opening
    assert (loaded.name, loaded.version) == ("risk", "1")
    verify_model_certificate(published.statement, certify_model(published.statement, loaded.outputs))


def test_an_opening_file_is_readable_by_its_owner_alone(published: Published, tmp_path: Path) -> None:
    path = tmp_path / "model.opening"
    path.write_text("old")
    path.chmod(0o644)
    save_opening(ModelOpening.of(published.statement, published.openings), path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.opening"
    path.write_bytes(b"old")
    opening = ModelOpening.of(published.statement, published.openings)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("privacy.private_files.os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        save_opening(opening, path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    with pytest.raises(UsageError):
        save_opening(replace(opening, name=""), path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"format"', b' "format"'),
        (b'"rho":"', b'"rho":"0'),
        (b'"rho":"', b'"rho":"-'),
        (b'"rho":"', b'"rho":"9'),
        (b"opening/v1", b"opening/v2"),
        (b'"name":"risk"', b'"name":"risk","extra":1'),
        (b'"version":"1"', b'"version":1'),
        (b"}", b"}}"),
    ],
)
def test_a_file_that_is_not_exactly_an_opening_is_refused(
    published: Published, tmp_path: Path, old: bytes, new: bytes
) -> None:
    path = tmp_path / "model.opening"
    # A blinding of 77 digits, so that one more digit in front leaves the field.
    openings = tuple(replace(opening, rho=ORDER - 1) for opening in published.openings)
    save_opening(ModelOpening.of(published.statement, openings), path)
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))
    with pytest.raises(DecodeError):
        load_opening(path)


def test_a_missing_file_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        load_opening(tmp_path / "none")


def test_an_opening_does_not_show_its_weights(published: Published) -> None:
    shown = repr(ModelOpening.of(published.statement, published.openings))
    for opening in published.openings:
        assert str(opening.rho) not in shown
        assert not any(str(value) in shown for value in opening.values if abs(value) > 9)
