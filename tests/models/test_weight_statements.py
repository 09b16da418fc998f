"""Signs and bounds of hidden weights: what can be proven, what is bound, and how it is told."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from dataclasses import dataclass, replace
from fractions import Fraction

import pytest

from privacy.ckks.params import parameter_set
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.models import weight_proofs
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
from privacy.models.weight_proofs import prove_statement, statement_size, verify_statement
from privacy.models.weight_statements import (
    HasSign,
    Interval,
    IsWithin,
    IsZero,
    WeightStatement,
    amount_text,
    certified_interval,
    per_unit,
)
from privacy.zk.group import ARKWORKS, REFERENCE
from privacy.zk.transcript import Transcript

B = 16
PARAMS = parameter_set("linear-4096")
SCHEMA = Schema(
    "ward",
    1,
    (
        Feature("age", "a", 0, 120),
        Feature("bmi", "kg/m2", 10, 60),
        Feature("dose", "mg", -1, 1, encoding="identity"),
        Feature("score", "1", 0, 1, encoding="identity"),
    ),
)
WEIGHTS = ((5, -70, 0, (1 << B) - 1), (-(1 << B), 3, 1, -1))


@dataclass(frozen=True, eq=False)
class Published:
    statement: ModelStatement
    openings: tuple[WeightOpening, ...]
    verified: VerifiedModel


@pytest.fixture(scope="module")
def published() -> Published:
    key = weights_key(4)
    openings = tuple(WeightOpening(weights, 7, 1000 + k) for k, weights in enumerate(WEIGHTS))
    outputs = tuple(
        OutputStatement(name, "margin", B, 58, ARKWORKS.encode(key.commit(o.values, o.rho)))
        for name, o in zip(("low", "high"), openings, strict=True)
    )
    statement = ModelStatement("risk", "1", SCHEMA, PARAMS, QUANTISATION_RULE, 6, outputs)
    verified = verify_model_certificate(statement, certify_model(statement, openings))
    return Published(statement, openings, verified)


def prove(published: Published, stated: WeightStatement) -> bytes:
    return prove_statement(published.statement, stated, published.openings[stated.output])


TRUE: list[WeightStatement] = [
    HasSign(0, 0, "non-negative"),
    HasSign(0, 1, "non-positive"),
    HasSign(0, 2, "non-negative"),
    HasSign(0, 2, "non-positive"),
    HasSign(0, 3, "non-negative"),  # the largest weight of b bits
    HasSign(1, 0, "non-positive"),  # the smallest one
    IsWithin(0, 0, 5),
    IsWithin(0, 1, 70),
    IsWithin(0, 2, 1),
    IsWithin(0, 3, (1 << B) - 1),
    IsWithin(1, 0, 1 << B),
    IsWithin(1, 3, 1),
]
FALSE: list[WeightStatement] = [
    HasSign(0, 0, "non-positive"),
    HasSign(0, 1, "non-negative"),
    HasSign(1, 3, "non-negative"),
    HasSign(1, 2, "non-positive"),
    IsWithin(0, 0, 4),
    IsWithin(0, 1, 69),
    IsWithin(1, 0, (1 << B) - 1),
]


@pytest.mark.parametrize("stated", TRUE, ids=str)
def test_what_is_true_is_proven_in_the_announced_size(published: Published, stated: WeightStatement) -> None:
    proof = prove(published, stated)
    assert len(proof) == statement_size(published.statement, stated)
    verify_statement(published.verified, stated, proof)


@pytest.mark.parametrize("stated", FALSE, ids=str)
def test_what_is_false_by_one_has_no_proof_and_the_refusal_names_no_weight(
    published: Published, stated: WeightStatement
) -> None:
    with pytest.raises(UsageError) as refusal:
        prove(published, stated)
    assert str(refusal.value) == f"this is false of the model: {stated.sentence(SCHEMA, ('low', 'high'), 24)}"


def test_a_zero_weight_goes_through_the_same_two_functions(published: Published) -> None:
    pytest.importorskip("zksk")
    verify_statement(published.verified, IsZero(0, 2), prove(published, IsZero(0, 2)))
    with pytest.raises(UsageError):
        prove(published, IsZero(0, 0))
    with pytest.raises(VerificationFailed):
        verify_statement(published.verified, IsZero(0, 3), prove(published, IsZero(0, 2)))


def test_both_implementations_of_the_curve_agree(published: Published) -> None:
    stated = IsWithin(0, 1, 70)
    reference = verify_model_certificate(
        published.statement, certify_model(published.statement, published.openings), REFERENCE
    )
    verify_statement(reference, stated, prove(published, stated))
    with pytest.raises(VerificationFailed):
        verify_statement(reference, replace(stated, bound=71), prove(published, stated))


def test_every_field_of_a_statement_changes_the_challenge() -> None:
    def challenge(stated: WeightStatement) -> bytes:
        transcript = Transcript(b"test")
        stated.absorb(transcript)
        return transcript.digest()

    others = {"output": 1, "feature": 2, "direction": "non-positive", "bound": 71}
    seen = set()
    for stated in (IsZero(0, 1), HasSign(0, 1, "non-negative"), IsWithin(0, 1, 70)):
        seen.add(challenge(stated))
        for field in dataclasses.fields(stated):
            seen.add(challenge(replace(stated, **{field.name: others[field.name]})))
    assert len(seen) == 3 + 2 + 3 + 3


def test_a_proof_is_bound_to_every_field_of_the_model(published: Published) -> None:
    """Its own output's C_W is among them; the certificate of the altered model is honest."""
    stated = HasSign(0, 0, "non-negative")
    proof = prove(published, stated)
    first, second = published.statement.outputs
    narrower = replace(SCHEMA, features=(replace(SCHEMA.features[0], maximum=100.0), *SCHEMA.features[1:]))
    wide = replace(first, b=B + 4)
    for change in (
        {"name": "other"},
        {"version": "2"},
        {"schema": narrower},
        {"grid_bits": 5},
        {"outputs": (replace(first, name="lower"), second)},
        {"outputs": (replace(first, link="identity"), replace(second, link="identity"))},
        {"outputs": (first, replace(second, b_bias=62))},
        {"outputs": (first,)},
    ):
        statement = replace(published.statement, **change)
        openings = published.openings[: len(statement.outputs)]
        verified = verify_model_certificate(statement, certify_model(statement, openings))
        with pytest.raises(VerificationFailed) as refusal:
            verify_statement(verified, stated, proof)
        assert refusal.value.check.startswith("quadratic.")
    statement = replace(published.statement, outputs=(wide, second))
    verified = verify_model_certificate(statement, certify_model(statement, published.openings))
    with pytest.raises(DecodeError):
        verify_statement(verified, stated, proof)  # more bits


@pytest.mark.parametrize(
    ("stated", "check"),
    [
        (HasSign(2, 0, "non-negative"), "model.statement-place"),
        (HasSign(-1, 0, "non-negative"), "model.statement-place"),
        (HasSign(0, 4, "non-negative"), "model.statement-place"),  # where the bias is
        (IsWithin(0, -1, 5), "model.statement-place"),
        (HasSign(0, 0, "upwards"), "model.statement-direction"),  # type: ignore[arg-type]
        (IsWithin(0, 0, 0), "model.statement-bound"),
        (IsWithin(0, 0, -5), "model.statement-bound"),
        (IsWithin(0, 0, (1 << B) + 1), "model.statement-bound"),
    ],
    ids=str,
)
def test_what_cannot_be_said_is_refused_by_name(published: Published, stated: WeightStatement, check: str) -> None:
    with pytest.raises(VerificationFailed) as refusal:
        verify_statement(published.verified, stated, b"")
    assert refusal.value.check == check
    with pytest.raises(UsageError):
        prove_statement(published.statement, stated, published.openings[0])


def test_altered_and_truncated_proofs_are_refused(published: Published) -> None:
    stated = IsWithin(0, 0, 5)
    proof = prove(published, stated)
    for place in range(0, len(proof), 13):
        corrupt = bytearray(proof)
        corrupt[place] ^= 1
        with pytest.raises((DecodeError, VerificationFailed)):
            verify_statement(published.verified, stated, bytes(corrupt))
    for other in (b"", proof[:-1], proof + b"\0", b"\0" * len(proof), b"\xff" * len(proof)):
        with pytest.raises(DecodeError):
            verify_statement(published.verified, stated, other)


def test_an_opening_of_something_else_proves_nothing(published: Published) -> None:
    with pytest.raises(UsageError, match="does not open"):
        prove_statement(published.statement, HasSign(0, 0, "non-negative"), published.openings[1])


def test_two_proofs_of_one_statement_share_no_response(published: Published) -> None:
    first, second = prove(published, IsWithin(0, 0, 5)), prove(published, IsWithin(0, 0, 5))
    tag = len(weight_proofs._TAG)
    pieces = [{proof[k : k + 32] for k in range(tag + 240, len(proof), 32)} for proof in (first, second)]
    assert not pieces[0] & pieces[1]


def test_the_interval_of_a_statement_is_exactly_the_weights_of_which_it_is_true() -> None:
    b = 4
    every = range(-(1 << b), 1 << b)
    for stated, true in (
        (IsZero(0, 0), lambda w: w == 0),
        (HasSign(0, 0, "non-negative"), lambda w: w >= 0),
        (HasSign(0, 0, "non-positive"), lambda w: w <= 0),
        (IsWithin(0, 0, 3), lambda w: abs(w) <= 3),
    ):
        assert [w in stated.interval(b) for w in every] == [true(w) for w in every]
        assert stated.interval(b).within(certified_interval(b))
    assert all(w in certified_interval(b) for w in every)
    with pytest.raises(UsageError):
        Interval(1, 0)


def test_statements_read_as_plain_words() -> None:
    names = ("low", "high")
    assert IsZero(1, 0).sentence(SCHEMA, names, 24) == "the weight of 'age' in 'high' is zero"
    assert "is not negative, so more of it never lowers" in HasSign(0, 0, "non-negative").sentence(SCHEMA, names, 24)
    assert "is not positive, so more of it never raises" in HasSign(0, 0, "non-positive").sentence(SCHEMA, names, 24)
    bound = IsWithin(0, 1, 838860)
    assert bound.sentence(SCHEMA, names, 24) == (
        "the weight of 'bmi' in 'low' is at most 0.05 in magnitude, per half the range of the feature (25 kg/m2)"
    )
    assert per_unit(SCHEMA.features[2]) == "mg"
    assert per_unit(SCHEMA.features[3]) == "unit of the feature"


@pytest.mark.parametrize("amount", [Fraction(1, 3), Fraction(838860, 1 << 24), Fraction(1, 1 << 24), Fraction(10**12)])
def test_a_bound_is_never_told_smaller_than_it_is(amount: Fraction) -> None:
    told = Fraction(amount_text(amount))
    assert amount <= told <= amount * (1 + Fraction(1, 10**5))


def test_reading_a_ledger_entry_needs_no_numbers_library() -> None:
    code = "import sys, privacy.models.weight_statements; sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
