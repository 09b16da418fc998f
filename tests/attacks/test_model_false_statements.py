"""Attack: say something false of a hidden weight, or pass off a proof of something else as its proof.

The cheating owner knows everything, skips its own checks and fills in digits that are not bits, or bits that do not
spell the distance. Each forgery passes a build from which what stops it was taken out, and only from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from privacy.ckks.params import parameter_set
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.models import certificate
from privacy.models import weight_proofs as module
from privacy.models.certificate import (
    QUANTISATION_RULE,
    ModelStatement,
    OutputStatement,
    VerifiedModel,
    WeightOpening,
    certify_model,
    verify_model_certificate,
    weights_key,
)
from privacy.models.schema import Feature, Schema
from privacy.models.weight_proofs import prove_statement, verify_statement
from privacy.models.weight_statements import HasSign, Interval, IsWithin, WeightStatement
from privacy.zk.group import ARKWORKS, ORDER, REFERENCE
from privacy.zk.quadratic import QuadraticSystem, prove_quadratic

B, BOUND = 16, 100
PARAMS = parameter_set("linear-4096")
SCHEMA = Schema("ward", 1, tuple(Feature(f"x{i}", "1", -1.0, 1.0) for i in range(4)))
# Weight 0 is positive, weight 1 negative, weight 2 just outside the bound, weight 3 zero; the second output's differ.
OPENINGS = (WeightOpening((5, -5, BOUND + 1, 0), 7, 1111), WeightOpening((-5, 5, 0, BOUND + 1), 7, 2222))
UP, DOWN = (HasSign(0, 0, "non-negative"), HasSign(0, 0, "non-positive"))
LIES: dict[str, WeightStatement] = {
    "a negative weight is not": HasSign(0, 1, "non-negative"),
    "a positive weight is not": DOWN,
    "a weight above the bound is not": IsWithin(0, 2, BOUND),
    "a weight below the bound is not": IsWithin(0, 1, 4),
}


def model_of(openings: Sequence[WeightOpening] = OPENINGS, version: str = "1") -> ModelStatement:
    outputs = tuple(
        OutputStatement(f"y{k}", "margin", B, 58, ARKWORKS.encode(weights_key(4).commit(o.values, o.rho)))
        for k, o in enumerate(openings)
    )
    return ModelStatement("risk", version, SCHEMA, PARAMS, QUANTISATION_RULE, 6, outputs)


def verified(model: ModelStatement, openings: Sequence[WeightOpening] = OPENINGS) -> VerifiedModel:
    return verify_model_certificate(model, certify_model(model, openings))


@pytest.fixture(scope="module")
def model() -> VerifiedModel:
    return verified(model_of())


def distances(interval: Interval, value: int) -> tuple[int, int]:
    return (value - interval.low) % ORDER, (interval.high - value) % ORDER


def truncated(interval: Interval, value: int) -> list[int]:
    """True bits, of other distances."""
    return [(side >> k) & 1 for side in distances(interval, value) for k in range(interval.bits)]


def not_bits(interval: Interval, value: int) -> list[int]:
    """Digits that spell the distances, the lowest of them no bit: r - 5 where the weight is 5 too small."""
    below, above = distances(interval, value)
    rest = [0] * (interval.bits - 1)
    return [below, *rest, above, *rest]


def two_as_a_bit(interval: Interval, value: int) -> list[int]:
    """As few wrong digits as can be: true bits, and a highest digit of 2 or more."""
    last = interval.bits - 1
    return [
        digit
        for side in distances(interval, value)
        for digit in (*((side >> k) & 1 for k in range(last)), side >> last)
    ]


def forge(model: VerifiedModel, stated: WeightStatement, digits_of: Any, opening: WeightOpening | None = None) -> bytes:
    """A proof by a prover that checks nothing, of the product's own relations as the tests patch them."""
    statement = model.statement
    opening = opening or OPENINGS[stated.output]
    interval = module._interval(statement, stated)
    digits = digits_of(interval, opening.weights[stated.feature])
    C_bits = module._bits_key(interval, ARKWORKS).commit(digits, 99)
    segments = module._segments(statement, interval, model.commitments[stated.output], C_bits, ARKWORKS)
    system = module._system(statement.d, stated.feature, interval)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QuadraticSystem, "violated", lambda self, witness: None)
        proof = prove_quadratic(
            module._transcript(statement, stated), segments, system, [opening.values, digits], [opening.rho, 99]
        )
    return b"".join([module._TAG, ARKWORKS.encode(C_bits), proof.encode(ARKWORKS)])


@contextmanager
def weakened(*changes: tuple[object, str, object]) -> Iterator[None]:
    """A build in which prover and verifier both lack something."""
    with pytest.MonkeyPatch.context() as patch:
        for target, name, value in changes:
            patch.setattr(target, name, value)
        yield


def refused(model: VerifiedModel, stated: WeightStatement, proof: bytes) -> None:
    with pytest.raises((VerificationFailed, DecodeError)):
        verify_statement(model, stated, proof)


# -- false statements -------------------------------------------------------------------------------------------------


def test_the_forger_makes_valid_proofs_of_true_statements(model: VerifiedModel) -> None:
    """Else the refusals below would prove nothing."""
    for stated in (UP, HasSign(0, 1, "non-positive"), IsWithin(0, 2, BOUND + 1), IsWithin(0, 1, 5)):
        verify_statement(model, stated, forge(model, stated, truncated))


@pytest.mark.parametrize("lie", LIES)
def test_the_honest_prover_refuses(model: VerifiedModel, lie: str) -> None:
    with pytest.raises(UsageError, match="false of the model"):
        prove_statement(model.statement, LIES[lie], OPENINGS[0])


@pytest.mark.parametrize("digits_of", [truncated, not_bits, two_as_a_bit])
@pytest.mark.parametrize("lie", LIES)
def test_the_verifier_refuses(model: VerifiedModel, lie: str, digits_of: Any) -> None:
    with pytest.raises(VerificationFailed) as refusal:
        verify_statement(model, LIES[lie], forge(model, LIES[lie], digits_of))
    assert refusal.value.check == "quadratic.relation"


def test_the_reference_verifier_refuses(model: VerifiedModel) -> None:
    lie = LIES["a negative weight is not"]
    reference = verify_model_certificate(model.statement, certify_model(model.statement, OPENINGS), REFERENCE)
    with pytest.raises(VerificationFailed) as refusal:
        verify_statement(reference, lie, forge(model, lie, two_as_a_bit))
    assert refusal.value.check == "quadratic.relation"


@pytest.mark.parametrize("digits_of", [not_bits, two_as_a_bit])
@pytest.mark.parametrize("lie", LIES)
def test_a_build_that_does_not_prove_bits_is_fooled(model: VerifiedModel, lie: str, digits_of: Any) -> None:
    with weakened((QuadraticSystem, "add_bits", lambda self, start, count: None)):
        verify_statement(model, LIES[lie], forge(model, LIES[lie], digits_of))


@pytest.mark.parametrize("lie", LIES)
def test_a_build_that_does_not_tie_bits_to_the_weight_is_fooled(model: VerifiedModel, lie: str) -> None:
    original = QuadraticSystem.add

    def bits_only(self: QuadraticSystem, quadratic: Any = (), linear: Any = (), constant: int = 0) -> None:
        if quadratic:
            original(self, quadratic, linear, constant)

    with weakened((QuadraticSystem, "add", bits_only)):
        verify_statement(model, LIES[lie], forge(model, LIES[lie], truncated))


@pytest.mark.parametrize("lie", LIES)
def test_a_build_whose_ranges_are_as_wide_as_the_field_is_fooled(model: VerifiedModel, lie: str) -> None:
    """r - 5 is a number of 255 honest bits: a range must not reach around the field."""
    with weakened((Interval, "bits", 255)):
        verify_statement(model, LIES[lie], forge(model, LIES[lie], truncated))


def one_sided(d: int, feature: int, interval: Interval) -> QuadraticSystem:
    """The relations without the distance from above: a power of two instead of the bound."""
    bits, first = interval.bits, d + 1
    system = QuadraticSystem(first + 2 * bits)
    system.add_bits(first, 2 * bits)
    system.add(linear=[(feature, 1), *((first + k, -(1 << k)) for k in range(bits))], constant=-interval.low)
    return system


def test_a_build_that_rounds_bounds_up_to_powers_of_two_is_fooled(model: VerifiedModel) -> None:
    lie = LIES["a weight above the bound is not"]
    with weakened((module, "_system", one_sided)):
        verify_statement(model, lie, forge(model, lie, truncated))


@pytest.mark.parametrize("value", [pow(3, -1, ORDER), (PARAMS.Q + 1) // 2], ids=["1/3 mod r", "1/2 mod Q"])
def test_a_weight_that_is_no_integer_of_the_range_is_refused_even_without_its_certificate(value: int) -> None:
    """The statement stands by itself; here the certificate, which would refuse too, was never checked."""
    opening = WeightOpening((value, 0, 0, 0), 0, 5)
    statement = model_of([opening])
    commitments = (ARKWORKS.decode(statement.outputs[0].C_W),)
    unchecked = VerifiedModel(statement, ARKWORKS, commitments, certificate._VERIFIED)
    for stated in (UP, IsWithin(0, 0, BOUND)):
        for digits_of in (truncated, not_bits, two_as_a_bit):
            refused(unchecked, stated, forge(unchecked, stated, digits_of, opening))


# -- true proofs of something else ------------------------------------------------------------------------------------

PLACELESS = (HasSign, "absorb", lambda self, transcript: transcript.absorb(b"statement.type", b"sign"))
"""A build in which a statement does not bind what it is about."""


def test_a_proof_about_another_feature_is_refused(model: VerifiedModel) -> None:
    """Both the relation and the transcript name the feature; a build must lack both to be fooled."""
    lie = replace(UP, feature=1)
    refused(model, lie, prove_statement(model.statement, UP, OPENINGS[0]))
    original = module._system
    first_only = (module, "_system", lambda d, feature, interval: original(d, 0, interval))
    for change in (PLACELESS, first_only):
        with weakened(change):
            refused(model, lie, prove_statement(model.statement, UP, OPENINGS[0]))
    with weakened(PLACELESS, first_only):
        verify_statement(model, lie, prove_statement(model.statement, UP, OPENINGS[0]))


def test_a_proof_about_another_output_is_refused(model: VerifiedModel) -> None:
    lie = replace(UP, output=1)
    refused(model, lie, prove_statement(model.statement, UP, OPENINGS[0]))
    with weakened(PLACELESS):
        refused(model, lie, prove_statement(model.statement, UP, OPENINGS[0]))

    def first_output(statement: ModelStatement, interval: Interval, C_W: Any, C_bits: Any, group: Any) -> Any:
        return segments(statement, interval, model.commitments[0], C_bits, group)

    segments = module._segments
    with weakened((module, "_segments", first_output)):
        refused(model, lie, prove_statement(model.statement, UP, OPENINGS[0]))
    with weakened(PLACELESS, (module, "_segments", first_output)):
        verify_statement(model, lie, prove_statement(model.statement, UP, OPENINGS[0]))


def test_a_proof_of_another_model_is_refused_although_its_commitment_was_copied(model: VerifiedModel) -> None:
    """A thief who copies C_W and everything proven of it cannot say it of a model of another name."""
    proof = prove_statement(model.statement, UP, OPENINGS[0])
    stolen = verified(model_of(version="stolen"))
    refused(stolen, UP, proof)
    with weakened((ModelStatement, "absorb", lambda self, transcript: None)):
        verify_statement(stolen, UP, prove_statement(model.statement, UP, OPENINGS[0]))


def test_a_proof_of_a_model_with_other_weights_is_refused(model: VerifiedModel) -> None:
    others = (replace(OPENINGS[0], weights=(-5, 5, 0, 0)), OPENINGS[1])
    other = verified(model_of(others), others)
    proof = prove_statement(model.statement, UP, OPENINGS[0])
    refused(other, UP, proof)
    with weakened((ModelStatement, "absorb", lambda self, transcript: None)):
        refused(other, UP, prove_statement(model.statement, UP, OPENINGS[0]))


def test_a_proof_in_the_other_direction_is_refused(model: VerifiedModel) -> None:
    proof = prove_statement(model.statement, UP, OPENINGS[0])
    refused(model, DOWN, proof)
    upwards = (HasSign, "interval", lambda self, b: Interval(0, (1 << b) - 1))
    for change in (PLACELESS, upwards):
        with weakened(change):
            refused(model, DOWN, prove_statement(model.statement, UP, OPENINGS[0]))
    with weakened(PLACELESS, upwards):
        verify_statement(model, DOWN, prove_statement(model.statement, UP, OPENINGS[0]))


def test_a_proof_of_a_larger_bound_is_refused(model: VerifiedModel) -> None:
    """Both bounds have distances of 8 bits: the proofs differ in nothing that their bytes show."""
    true, lie = IsWithin(0, 2, BOUND + 1), IsWithin(0, 2, BOUND)
    proof = prove_statement(model.statement, true, OPENINGS[0])
    refused(model, lie, proof)
    place_only = (IsWithin, "absorb", lambda self, transcript: transcript.absorb_integers(b"place", [0, self.feature]))
    larger = (IsWithin, "interval", lambda self, b: Interval(-BOUND - 1, BOUND + 1))
    for change in (place_only, larger):
        with weakened(change):
            refused(model, lie, prove_statement(model.statement, true, OPENINGS[0]))
    with weakened(place_only, larger):
        verify_statement(model, lie, prove_statement(model.statement, true, OPENINGS[0]))


def test_a_proof_of_another_kind_is_refused(model: VerifiedModel) -> None:
    """|w| <= 2^14 and w >= 0 have numbers of the same size; neither proves the other."""
    wide = IsWithin(0, 0, 1 << (B - 2))
    assert wide.interval(B).bits == UP.interval(B).bits
    refused(model, UP, prove_statement(model.statement, wide, OPENINGS[0]))
    refused(model, wide, prove_statement(model.statement, UP, OPENINGS[0]))
