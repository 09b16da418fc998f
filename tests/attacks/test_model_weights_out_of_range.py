"""Attack: certify a weight or a bias outside its public range, or one that is no integer.

The cheating prover knows everything, skips its own checks and fills in digits that are not bits, or bits that do not
spell the value. Each forgery passes a build from which the constraint that stops it was taken out.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from privacy.ckks.params import parameter_set
from privacy.errors import UsageError, VerificationFailed
from privacy.models import certificate as module
from privacy.models.certificate import (
    QUANTISATION_RULE,
    ModelStatement,
    OutputStatement,
    WeightOpening,
    certify_model,
    verify_model_certificate,
    weights_key,
)
from privacy.models.schema import Feature, Schema
from privacy.zk.group import ARKWORKS, ORDER, REFERENCE
from privacy.zk.quadratic import QuadraticSystem, prove_quadratic

B, B_BIAS = 16, 58
PARAMS = parameter_set("linear-4096")
SCHEMA = Schema("ward", 1, (Feature("x0", "1", -1.0, 1.0), Feature("x1", "1", -1.0, 1.0)))

LIES = {
    "weight 2^b": [1 << B, 0, 0],
    "weight -2^b - 1": [0, -(1 << B) - 1, 0],
    "weight 1/3 mod r": [pow(3, -1, ORDER), 0, 0],
    "weight 1/2 mod Q": [(PARAMS.Q + 1) // 2, 0, 0],
    "weight Q": [PARAMS.Q, 0, 0],
    "bias 2^b_bias": [0, 0, 1 << B_BIAS],
    "bias -2^b_bias - 1": [0, 0, -(1 << B_BIAS) - 1],
    "bias 1/3 mod r": [0, 0, pow(3, -1, ORDER)],
}
RHO = 12345


def statement_of(values: list[int]) -> ModelStatement:
    C_W = ARKWORKS.encode(weights_key(2).commit(values, RHO))
    return ModelStatement(
        "risk", "1", SCHEMA, PARAMS, QUANTISATION_RULE, 6, (OutputStatement("y", "margin", B, B_BIAS, C_W),)
    )


def truncated(value: int, width: int) -> list[int]:
    """True bits, of another value."""
    shifted = (value + (1 << (width - 1))) % ORDER
    return [(shifted >> k) & 1 for k in range(width)]


def not_bits(value: int, width: int) -> list[int]:
    """Digits that spell the value, the lowest of them no bit."""
    return [(value + (1 << (width - 1))) % ORDER, *[0] * (width - 1)]


def two_as_a_bit(value: int, width: int) -> list[int]:
    """As few wrong digits as can be: true bits, and a highest digit of 2 or more."""
    shifted = (value + (1 << (width - 1))) % ORDER
    return [(shifted >> k) & 1 for k in range(width - 1)] + [shifted >> (width - 1)]


def forge(statement: ModelStatement, values: list[int], digits_of) -> bytes:
    """A certificate by a prover that checks nothing. Uses the prover's `violated` as the tests below patch it."""
    output = statement.outputs[0]
    widths = module._widths(2, output)
    digits = [x for value, width in zip(values, widths, strict=True) for x in digits_of(value, width)]
    key = module._bits_key(2, output, ARKWORKS)
    C_bits = key.commit(digits, RHO + 1)
    segments = module._segments(statement, [ARKWORKS.decode(output.C_W)], [C_bits], ARKWORKS)
    witness = [[v % ORDER for v in values], digits]
    proof = prove_quadratic(module._transcript(statement), segments, module._system(statement), witness, [RHO, RHO + 1])
    return b"".join([module._TAG, ARKWORKS.encode(C_bits), proof.encode(ARKWORKS)])


@pytest.fixture
def unchecked_prover(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QuadraticSystem, "violated", lambda self, witness: None)


@pytest.mark.usefixtures("unchecked_prover")
def test_the_forger_makes_valid_certificates_of_true_statements() -> None:
    """Else the refusals below would prove nothing."""
    values = [(1 << B) - 1, -(1 << B), -(1 << B_BIAS)]
    statement = statement_of(values)
    verify_model_certificate(statement, forge(statement, values, truncated))


@pytest.mark.parametrize("lie", LIES)
def test_the_honest_prover_refuses(lie: str) -> None:
    values = LIES[lie]
    with pytest.raises(UsageError, match="out of its public range"):
        certify_model(statement_of(values), (WeightOpening(tuple(values[:2]), values[2], RHO),))


@pytest.mark.usefixtures("unchecked_prover")
@pytest.mark.parametrize("digits_of", [truncated, not_bits, two_as_a_bit])
@pytest.mark.parametrize("lie", LIES)
def test_the_verifier_refuses(lie: str, digits_of) -> None:
    statement = statement_of(LIES[lie])
    with pytest.raises(VerificationFailed) as refusal:
        verify_model_certificate(statement, forge(statement, LIES[lie], digits_of))
    assert refusal.value.check == "quadratic.relation"


@pytest.mark.usefixtures("unchecked_prover")
def test_the_reference_verifier_refuses() -> None:
    values = LIES["weight 2^b"]
    statement = statement_of(values)
    with pytest.raises(VerificationFailed) as refusal:
        verify_model_certificate(statement, forge(statement, values, two_as_a_bit), REFERENCE)
    assert refusal.value.check == "quadratic.relation"


@pytest.mark.parametrize("digits_of", [not_bits, two_as_a_bit])
@pytest.mark.parametrize("lie", LIES)
def test_a_build_that_does_not_prove_bits_is_fooled(lie: str, digits_of, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QuadraticSystem, "add_bits", lambda self, start, count: None)
    statement = statement_of(LIES[lie])
    verify_model_certificate(statement, forge(statement, LIES[lie], digits_of))


@pytest.mark.parametrize("lie", LIES)
def test_a_build_that_does_not_tie_bits_to_weights_is_fooled(lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = QuadraticSystem.add

    def bits_only(self: QuadraticSystem, quadratic=(), linear=(), constant: int = 0) -> None:
        if quadratic:
            original(self, quadratic, linear, constant)

    monkeypatch.setattr(QuadraticSystem, "add", bits_only)
    statement = statement_of(LIES[lie])
    verify_model_certificate(statement, forge(statement, LIES[lie], truncated))


@pytest.mark.usefixtures("unchecked_prover")
def test_a_certificate_for_more_bits_does_not_serve_fewer() -> None:
    """2^b needs b + 4 bits; its certificate is true for those and refused for these."""
    values = LIES["weight 2^b"]
    statement = statement_of(values)
    wider = replace(statement, outputs=(replace(statement.outputs[0], b=B + 4),))
    certificate = certify_model(wider, (WeightOpening(tuple(values[:2]), values[2], RHO),))
    verify_model_certificate(wider, certificate)
    with pytest.raises(ValueError, match="expected"):
        verify_model_certificate(statement, certificate)
