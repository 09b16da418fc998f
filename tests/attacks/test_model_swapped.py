"""Attack: use the certificate of one model, output or schema for another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from privacy.ckks.params import parameter_set
from privacy.errors import DecodeError, VerificationFailed
from privacy.models import certificate as module
from privacy.models.certificate import ModelStatement, certify_model, commit_model, model_statement
from privacy.models.certificate import verify_model_certificate as verify
from privacy.models.quantise import QuantisedModel, QuantisedOutput
from privacy.models.schema import Feature, Schema

PARAMS = parameter_set("linear-4096")
SCHEMA = Schema("ward", 1, (Feature("age", "a", 0.0, 120.0), Feature("glucose", "mg/dL", 20.0, 600.0)))


def publish(weights: list[tuple[int, int]], name: str = "risk") -> tuple[ModelStatement, bytes]:
    outputs = tuple(QuantisedOutput(f"y{k}", w, 7 * k, 16, 58) for k, w in enumerate(weights))
    quantised = QuantisedModel(name, SCHEMA, "margin", outputs, 34, 24, 6, ())
    commitments, openings = commit_model(quantised)
    statement = model_statement(quantised, PARAMS, "1", commitments)
    return statement, certify_model(statement, openings)


@pytest.fixture(scope="module")
def mine() -> tuple[ModelStatement, bytes]:
    return publish([(5, -7), (100, 3)])


def test_the_untouched_model_verifies(mine: tuple[ModelStatement, bytes]) -> None:
    verify(*mine)


def test_the_commitment_of_another_model_is_refused(mine: tuple[ModelStatement, bytes]) -> None:
    statement, certificate = mine
    other, other_certificate = publish([(5, -7), (100, 3)])  # the same weights under other blindings
    with pytest.raises(VerificationFailed):
        verify(other, certificate)
    with pytest.raises(VerificationFailed):
        verify(statement, other_certificate)
    for k in range(2):
        mixed = list(statement.outputs)
        mixed[k] = replace(mixed[k], C_W=other.outputs[k].C_W)
        with pytest.raises(VerificationFailed):
            verify(replace(statement, outputs=tuple(mixed)), certificate)


def test_swapped_outputs_are_refused(mine: tuple[ModelStatement, bytes]) -> None:
    statement, certificate = mine
    first, second = statement.outputs
    orders = [
        (second, first),
        (replace(first, C_W=second.C_W), replace(second, C_W=first.C_W)),
        (replace(first, name=second.name), replace(second, name=first.name)),
    ]
    for outputs in orders:
        with pytest.raises(VerificationFailed):
            verify(replace(statement, outputs=outputs), certificate)


def test_swapped_bit_commitments_are_refused(mine: tuple[ModelStatement, bytes]) -> None:
    statement, certificate = mine
    at = len(module._TAG)
    swapped = certificate[:at] + certificate[at + 48 : at + 96] + certificate[at : at + 48] + certificate[at + 96 :]
    with pytest.raises(VerificationFailed):
        verify(statement, swapped)


def test_certificates_of_single_outputs_do_not_add_up(mine: tuple[ModelStatement, bytes]) -> None:
    """One proof covers all outputs; halves are no proof of the whole, nor the whole of a half."""
    statement, certificate = mine
    _, single_certificate = publish([(5, -7)])
    with pytest.raises(DecodeError):
        verify(statement, single_certificate + single_certificate[len(module._TAG) :])
    with pytest.raises(DecodeError):
        verify(replace(statement, outputs=statement.outputs[:1]), certificate)


def test_the_certificate_of_another_schema_is_refused(mine: tuple[ModelStatement, bytes]) -> None:
    """Same weights, another meaning: units, order and ranges of the features are part of the model."""
    statement, certificate = mine
    age, glucose = SCHEMA.features
    schemas = [
        replace(SCHEMA, features=(glucose, age)),
        replace(SCHEMA, features=(age, replace(glucose, unit="mmol/L"))),
        replace(SCHEMA, features=(age, replace(glucose, maximum=500.0))),
        replace(SCHEMA, version=2),
    ]
    for schema in schemas:
        with pytest.raises(VerificationFailed):
            verify(replace(statement, schema=schema), certificate)


def test_a_build_that_does_not_bind_the_statement_is_fooled(
    mine: tuple[ModelStatement, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelStatement, "absorb", lambda self, transcript: None)
    statement, certificate = publish([(5, -7), (100, 3)])
    first, second = statement.outputs
    verify(replace(statement, name="approved", schema=replace(SCHEMA, features=SCHEMA.features[::-1])), certificate)
    verify(
        replace(statement, outputs=(replace(first, name=second.name), replace(second, name=first.name))), certificate
    )
    monkeypatch.undo()
    with pytest.raises(VerificationFailed):
        verify(statement, certificate)
