"""Weight policies: what a file may say, what follows from it, and what satisfies it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.ckks.params import parameter_set
from privacy.errors import DecodeError, UsageError
from privacy.models.certificate import commit_model, model_statement
from privacy.models.linear import LinearModel
from privacy.models.policy import Demand, ModelShape, Rule, WeightPolicy
from privacy.models.quantise import QuantisedModel, quantise
from privacy.models.schema import Feature, Schema
from privacy.models.weight_statements import HasSign, IsWithin, IsZero, WeightStatement

PARAMS = parameter_set("linear-4096")
SCHEMA = Schema(
    "heart", 1, (Feature("age", "a", 0, 120), Feature("bmi", "kg/m2", 10, 60), Feature("sex", "1", 0, 1, "boolean"))
)
GOOD = """
[[rule]]                        # nothing may depend on it
feature = "sex"
must = "be zero"

[[rule]]
feature = "age"
must = "not decrease the answer"
output = "risk"

[[rule]]
feature = "bmi"
must = "not increase the answer"
output = "ease"

[[rule]]
feature = "bmi"
must = "stay within"
at_most = 3.75
"""


def quantised(weights: Any = ((0.02, 0.15, 0.0), (0.01, -0.1, 0.0)), **options: Any) -> QuantisedModel:
    model = LinearModel("heart", np.array(weights), np.array([0.1, 0.2]), ("risk", "ease"), "identity", SCHEMA)
    return quantise(model, PARAMS, **options)


SHAPE = ModelShape.of(quantised())


def parse(text: str) -> WeightPolicy:
    return WeightPolicy.parse(text.encode())


def rules(*wanted: Rule) -> WeightPolicy:
    return WeightPolicy(wanted)


def test_a_file_is_read_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(GOOD)
    policy = WeightPolicy.load(tmp_path / "rules.toml")
    assert policy.rules == (
        Rule("sex", "be zero"),
        Rule("age", "not decrease the answer", output="risk"),
        Rule("bmi", "not increase the answer", output="ease"),
        Rule("bmi", "stay within", Fraction(15, 4)),
    )
    with pytest.raises(UsageError, match="cannot read"):
        WeightPolicy.load(tmp_path / "absent.toml")


def test_numbers_are_taken_exactly() -> None:
    policy = parse('[[rule]]\nfeature = "bmi"\nmust = "stay within"\nat_most = 0.1')
    assert policy.rules[0].at_most == Fraction(1, 10) != Fraction(0.1)
    assert parse('[[rule]]\nfeature = "bmi"\nmust = "stay within"\nat_most = 2').rules[0].at_most == 2


BAD = {
    "no rule": ("", "no rules"),
    "an empty list": ("rule = []", "1 to"),
    "not TOML": ("[[rule]", "not TOML"),
    "no UTF-8": (b"\xff", "not TOML"),
    "an unknown table": ('[other]\nx = 1\n[[rule]]\nfeature = "a"\nmust = "be zero"', "unknown name 'other'"),
    "a table that is no list": ('[rule]\nfeature = "a"\nmust = "be zero"', "no rules"),
    "a rule that is no table": ("rule = [1]", "rule 1"),
    "an unknown name": ('[[rule]]\nfeature = "a"\nmust = "be zero"\nmax = 3', "unknown name 'max'"),
    "no feature": ('[[rule]]\nmust = "be zero"', "feature is missing"),
    "an empty feature": ('[[rule]]\nfeature = ""\nmust = "be zero"', "names a feature"),
    "an empty output": ('[[rule]]\nfeature = "a"\noutput = ""\nmust = "be zero"', "names a feature"),
    "nothing that must be": ('[[rule]]\nfeature = "a"', "must is missing"),
    "something else": ('[[rule]]\nfeature = "a"\nmust = "be nice"', "be nice"),
    "a number as a feature": ('[[rule]]\nfeature = 1\nmust = "be zero"', "text in quotes"),
    "within nothing": ('[[rule]]\nfeature = "a"\nmust = "stay within"', "at_most"),
    "zero with a bound": ('[[rule]]\nfeature = "a"\nmust = "be zero"\nat_most = 1', "at_most"),
    "within zero": ('[[rule]]\nfeature = "a"\nmust = "stay within"\nat_most = 0.0', "above 0"),
    "within less than zero": ('[[rule]]\nfeature = "a"\nmust = "stay within"\nat_most = -1', "above 0"),
    "within a text": ('[[rule]]\nfeature = "a"\nmust = "stay within"\nat_most = "1"', "number"),
    "within true": ('[[rule]]\nfeature = "a"\nmust = "stay within"\nat_most = true', "number"),
    "within nan": ('[[rule]]\nfeature = "a"\nmust = "stay within"\nat_most = nan', "number"),
    "within infinity": ('[[rule]]\nfeature = "a"\nmust = "stay within"\nat_most = inf', "number"),
    "within a number of a gigabyte": ('[[rule]]\nfeature = "a"\nmust = "stay within"\nat_most = 1e999999999', "number"),
    "the second rule": ('[[rule]]\nfeature = "a"\nmust = "be zero"\n[[rule]]\nfeature = "a"', "rule 2"),
    "too much": (b"#" * (1 << 20) + b"\n", "more than"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_policy_is_refused_with_the_place(name: str) -> None:
    text, said = BAD[name]
    with pytest.raises(DecodeError, match=r"weight policy") as refusal:
        WeightPolicy.parse(text if isinstance(text, bytes) else text.encode())
    assert said in str(refusal.value)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_policy_or_a_decode_error(data: bytes) -> None:
    try:
        WeightPolicy.parse(data)
    except DecodeError:
        return


def test_each_rule_is_for_all_outputs_unless_it_names_one() -> None:
    found = parse(GOOD).demands(SHAPE)
    places = [(d.rule, d.output, d.feature) for d in found]
    assert places == [(1, 0, 2), (1, 1, 2), (2, 0, 0), (3, 1, 1), (4, 0, 1), (4, 1, 1)]
    assert [d.statement for d in found[2:5]] == [
        HasSign(0, 0, "non-negative"),
        HasSign(1, 1, "non-positive"),
        IsWithin(0, 1, 15 << 22),
    ]
    assert found[0].sentence == "the weight of 'sex' in 'risk' must be zero"
    assert found[4].sentence.endswith("at most 3.75 in magnitude, per half the range of the feature (25 kg/m2)")


def test_rules_about_another_model_are_told() -> None:
    with pytest.raises(UsageError, match="rule 1: the model has no feature 'height'"):
        rules(Rule("height", "be zero")).demands(SHAPE)
    with pytest.raises(UsageError, match="no output 'other'; it has risk, ease"):
        rules(Rule("age", "be zero", output="other")).demands(SHAPE)
    with pytest.raises(UsageError, match=r"below the step of the weights, 2\^-24"):
        rules(Rule("age", "stay within", Fraction(1, 1 << 25))).demands(SHAPE)


def test_bounds_are_rounded_to_the_same_set_of_integer_weights() -> None:
    (demand,) = rules(Rule("age", "stay within", Fraction(1, 10), "risk")).demands(SHAPE)
    assert isinstance(demand.statement, IsWithin)
    bound = demand.statement.bound
    assert Fraction(bound, 1 << 24) <= Fraction(1, 10) < Fraction(bound + 1, 1 << 24)


def broken(policy: WeightPolicy, model: QuantisedModel) -> list[tuple[int, int]]:
    return [(demand.rule, demand.output) for demand in policy.broken(model)]


def test_a_model_obeys_a_policy_or_breaks_named_rules() -> None:
    """bmi has half a range of 25: 0.15 a unit is 3.75 in all, exactly the limit."""
    assert broken(parse(GOOD), quantised()) == []
    step = 2.0**-24 / 25
    assert broken(parse(GOOD), quantised(((0.02, 0.15 + step, 0.0), (0.01, -0.1, 0.0)))) == [(4, 0)]
    assert broken(parse(GOOD), quantised(((-0.02, 0.15, 0.3), (-0.01, 0.1, 0.0)))) == [(1, 0), (2, 0), (3, 1)]
    # 1e-9 rounds to zero at 2^-24: it is the committed integers that count.
    assert broken(parse(GOOD), quantised(((0.02, 0.15, -1e-9), (0.01, -0.1, 1e-9)))) == []


ZERO, UP, DOWN = Rule("age", "be zero"), Rule("age", "not decrease the answer"), Rule("age", "not increase the answer")
ONE, TWO = Rule("age", "stay within", Fraction(1)), Rule("age", "stay within", Fraction(2))
WIDE = Rule("age", "stay within", Fraction(16))
S_ZERO, S_UP, S_DOWN = IsZero(0, 0), HasSign(0, 0, "non-negative"), HasSign(0, 0, "non-positive")
S_ONE, S_TWO = IsWithin(0, 0, 1 << 24), IsWithin(0, 0, 2 << 24)

SATISFIED: list[tuple[Rule, list[WeightStatement], bool]] = [
    (ZERO, [S_ZERO], True),
    (ZERO, [S_UP, S_DOWN], True),
    (ZERO, [S_UP, S_ONE], False),
    (ZERO, [], False),
    (UP, [S_UP], True),
    (UP, [S_ZERO], True),
    (UP, [S_DOWN], False),
    (UP, [S_ONE], False),
    (DOWN, [S_ZERO], True),
    (ONE, [S_ONE], True),
    (ONE, [S_ZERO], True),
    (ONE, [S_TWO], False),
    (ONE, [S_UP], False),
    (TWO, [S_ONE], True),
    (WIDE, [], True),  # b = 28: the certificate keeps every weight below 16
    (ONE, [IsWithin(0, 1, 1)], False),
    (UP, [HasSign(0, 1, "non-negative")], False),
]


@pytest.mark.parametrize(("rule", "proven", "satisfied"), SATISFIED)
def test_a_rule_is_satisfied_by_what_says_at_least_as_much(
    rule: Rule, proven: list[WeightStatement], satisfied: bool
) -> None:
    model = LinearModel("heart", np.zeros((1, 3)), np.zeros(1), ("risk",), "identity", SCHEMA)
    integers = quantise(model, PARAMS)
    statement = model_statement(integers, PARAMS, "1", commit_model(integers)[0])
    (verdict,) = rules(rule).verdicts(statement, proven)
    assert verdict.satisfied is satisfied
    assert len(verdict.proven) == sum(s.feature == 0 for s in proven)


def test_a_rule_for_all_outputs_wants_every_one_of_them() -> None:
    integers = quantised()
    statement = model_statement(integers, PARAMS, "1", commit_model(integers)[0])
    states = [v.satisfied for v in rules(ZERO).verdicts(statement, [IsZero(1, 0)])]
    assert states == [False, True]
    with pytest.raises(UsageError, match="does not have"):
        rules(ZERO).verdicts(statement, [IsZero(2, 0)])


def test_nothing_is_proven_twice_or_that_follows_from_something_else() -> None:
    one = ModelShape(SCHEMA, 24, (("risk", 28),))
    assert rules(ZERO, ZERO, UP, ONE).statements(one) == (S_ZERO,)
    assert rules(TWO, ONE, UP).statements(one) == (S_ONE, S_UP)
    assert rules(UP, ZERO).statements(one, [S_ZERO]) == ()
    assert rules(WIDE).statements(one) == ()


@given(
    st.lists(st.sampled_from([ZERO, UP, DOWN, ONE, TWO, WIDE]), min_size=1, max_size=5),
    st.lists(st.sampled_from([S_ZERO, S_UP, S_DOWN]), max_size=2),
)
def test_what_is_chosen_to_be_proven_satisfies_the_policy(wanted: list[Rule], also: list[WeightStatement]) -> None:
    model = LinearModel("heart", np.zeros((1, 3)), np.zeros(1), ("risk",), "identity", SCHEMA)
    integers = quantise(model, PARAMS)
    policy = rules(*wanted)
    statement = model_statement(integers, PARAMS, "1", [bytes(48)])
    proven = [*also, *policy.statements(ModelShape.of(integers), also)]
    assert all(verdict.satisfied for verdict in policy.verdicts(statement, proven))


def test_a_policy_without_rules_is_none() -> None:
    with pytest.raises(UsageError, match="1 to"):
        WeightPolicy(())


def test_a_demand_names_no_weight() -> None:
    for demand in parse(GOOD).broken(quantised(((-0.0371, 0.15, 0.0), (0.01, -0.1, 0.0)))):
        assert isinstance(demand, Demand)
        assert "0371" not in repr(demand)
