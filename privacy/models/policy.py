"""Weight policies: rules that every weight of a linear model must obey, in a file that anybody can write and check.

    [[rule]]                          # one for each thing that must be true
    feature = "sex"                   # a feature of the model's schema
    must = "be zero"

    [[rule]]
    feature = "age"
    must = "not decrease the answer"  # or "not increase the answer"
    output = "risk"                   # left out: all outputs

    [[rule]]
    feature = "bmi"
    must = "stay within"
    at_most = 0.05

TOML, UTF-8, nothing else in it. "The answer" is the raw one, before any link: log-odds where the link is `logit`.
`at_most` is in units of that answer per unit of the *encoded* feature: with the encoding `unit`, how far going from the
middle of the feature's range to either end of it may move the answer; with `identity`, how far one unit of it may.

A rule is proven by a statement about each output (`privacy.models.weight_proofs`):

    be zero                    IsZero
    not decrease the answer    HasSign non-negative
    not increase the answer    HasSign non-positive
    stay within                IsWithin, bound = floor(at_most * 2^SW): the same set of integer weights, exactly

It is satisfied by whatever says at least as much: what is proven of a weight, and the range that the model's
certificate gives every weight, are intersected, and the rule must allow all that is left. Rules are about the integer
weights that are committed and computed with; a float weight may round to zero.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Literal, get_args

from privacy.errors import DecodeError, UsageError
from privacy.models.certificate import ModelStatement
from privacy.models.quantise import QuantisedModel
from privacy.models.schema import Schema
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
from privacy.private_files import read_limited

__all__ = ["Demand", "ModelShape", "Must", "Rule", "Verdict", "WeightPolicy"]

Must = Literal["be zero", "not decrease the answer", "not increase the answer", "stay within"]

_WHAT: Final = "weight policy"
_MAX_FILE_BYTES: Final = 1 << 20
_MAX_LINE_BYTES: Final = 1 << 10
"""A dotted name of a hundred thousand parts takes tomllib minutes."""
_MAX_RULES: Final = 4096
_MAX_EXPONENT: Final = 100


@dataclass(frozen=True)
class Rule:
    """What must be true of the weight of one feature; `output` None stands for all outputs.

    Raises UsageError for a rule that says nothing: no name, or `at_most` where it does not belong or not above 0.
    """

    feature: str
    must: Must
    at_most: Fraction | None = None
    output: str | None = None

    def __post_init__(self) -> None:
        if not self.feature or self.output == "":
            raise UsageError("a rule names a feature, and an output or none")
        if self.must not in get_args(Must):
            raise UsageError(f"must = {self.must!r} is not one of: {', '.join(map(repr, get_args(Must)))}")
        if (self.at_most is not None) != (self.must == "stay within"):
            raise UsageError("at_most = a number goes with must = 'stay within', and with nothing else")
        if self.at_most is not None and self.at_most <= 0:
            raise UsageError("at_most is above 0; if the weight is to be 0, say must = 'be zero'")


@dataclass(frozen=True)
class ModelShape:
    """What of a model a policy needs to know, all of it public: schema, SW, and name and b of every output."""

    schema: Schema
    weight_scale_bits: int
    outputs: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, model: ModelStatement | QuantisedModel) -> ModelShape:
        """The shape of a published or of a quantised model."""
        scale = model.weight_scale_bits if isinstance(model, QuantisedModel) else model.parameters.weight_scale_bits
        return cls(model.schema, scale, tuple((output.name, output.b) for output in model.outputs))


@dataclass(frozen=True)
class Demand:
    """A rule for one output: which weight it is about, and the integers that it may be.

    `statement` proves it; None if the certificate of the model does already. `rule` counts from 1, as in the file.
    """

    rule: int
    sentence: str
    output: int
    feature: int
    allowed: Interval
    statement: WeightStatement | None


@dataclass(frozen=True)
class Verdict:
    """Whether what is proven of a model satisfies a demand, and the statements about that weight, in words."""

    demand: Demand
    satisfied: bool
    proven: tuple[str, ...]


@dataclass(frozen=True)
class WeightPolicy:
    """Rules, in the order of the file. Raises UsageError if there is none: such a policy would allow any model."""

    rules: tuple[Rule, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.rules) <= _MAX_RULES:
            raise UsageError(f"a policy has 1 to {_MAX_RULES} rules, this one has {len(self.rules)}")

    @classmethod
    def parse(cls, data: bytes) -> WeightPolicy:
        """The policy that the bytes of a file say. Raises DecodeError, which names the rule."""
        if len(data) > _MAX_FILE_BYTES:
            raise DecodeError(_WHAT, f"more than {_MAX_FILE_BYTES} bytes")
        if any(len(line) > _MAX_LINE_BYTES for line in data.split(b"\n")):
            raise DecodeError(_WHAT, f"a line of more than {_MAX_LINE_BYTES} bytes")
        try:
            document = tomllib.loads(data.decode("utf-8"), parse_float=Decimal)
        except (ValueError, ArithmeticError, RecursionError) as error:
            raise DecodeError(_WHAT, f"not TOML: {error}") from error
        rules = document.get("rule")
        unknown = set(document) - {"rule"}
        if unknown:
            raise DecodeError(_WHAT, f"unknown name {min(unknown)!r}: a policy is made of [[rule]]")
        if not isinstance(rules, list):
            raise DecodeError(_WHAT, "no rules: write [[rule]] once for each")
        try:
            return cls(tuple(_rule(number, rule) for number, rule in enumerate(rules, start=1)))
        except UsageError as error:
            raise DecodeError(_WHAT, str(error)) from error

    @classmethod
    def load(cls, path: Path) -> WeightPolicy:
        """The policy in the file `path`. Raises UsageError if it cannot be read, DecodeError."""
        return cls.parse(read_limited(path, _MAX_FILE_BYTES))

    def demands(self, shape: ModelShape) -> tuple[Demand, ...]:
        """Every rule for every output that it is about.

        Raises UsageError for a feature or output that the model does not have, and for a bound below 2^-SW.
        """
        found = []
        for number, rule in enumerate(self.rules, start=1):
            names = [name for name, _ in shape.outputs]
            if rule.feature not in shape.schema.names:
                raise UsageError(f"rule {number}: the model has no feature {rule.feature!r}")
            if rule.output is not None and rule.output not in names:
                raise UsageError(f"rule {number}: the model has no output {rule.output!r}; it has {', '.join(names)}")
            feature = shape.schema.names.index(rule.feature)
            for output, (name, b) in enumerate(shape.outputs):
                if rule.output in (None, name):
                    stated = _statement(number, rule, output, feature, shape.weight_scale_bits)
                    allowed = stated.interval(b)
                    free = certified_interval(b).within(allowed)
                    sentence = _sentence(rule, name, shape)
                    found.append(Demand(number, sentence, output, feature, allowed, None if free else stated))
        return tuple(found)

    def broken(self, model: QuantisedModel) -> tuple[Demand, ...]:
        """The demands that a quantised model does not meet. That one of them is broken is secret, as the weights are.

        Raises UsageError as `demands`.
        """
        return tuple(
            demand
            for demand in self.demands(ModelShape.of(model))
            if model.outputs[demand.output].weights[demand.feature] not in demand.allowed
        )

    def statements(self, shape: ModelShape, also: Sequence[WeightStatement] = ()) -> tuple[WeightStatement, ...]:
        """What to prove of a model, beside what is proven `also`: nothing twice, and nothing that another one implies.

        Raises UsageError as `demands`.
        """
        wanted = [demand.statement for demand in self.demands(shape) if demand.statement is not None]
        distinct = [stated for stated in dict.fromkeys(wanted) if stated not in also]
        return tuple(
            stated
            for stated in distinct
            if not any(other != stated and _implies(other, stated, shape) for other in (*also, *distinct))
        )

    def verdicts(self, model: ModelStatement, proven: Sequence[WeightStatement]) -> tuple[Verdict, ...]:
        """Whether a published model obeys every rule; `proven` are statements whose proofs the caller has verified.

        Raises UsageError as `demands`, and for statements about weights that the model does not have.
        """
        shape = ModelShape.of(model)
        names = [name for name, _ in shape.outputs]
        if any(not (s.output < len(names) and s.feature < shape.schema.d) for s in proven):
            raise UsageError("a statement is about a weight that the model does not have")
        found = []
        for demand in self.demands(shape):
            about = [s for s in proven if (s.output, s.feature) == (demand.output, demand.feature)]
            b = shape.outputs[demand.output][1]
            known = [certified_interval(b), *(stated.interval(b) for stated in about)]
            low, high = max(i.low for i in known), min(i.high for i in known)
            sentences = tuple(s.sentence(shape.schema, names, shape.weight_scale_bits) for s in about)
            satisfied = demand.allowed.low <= low and high <= demand.allowed.high
            found.append(Verdict(demand, satisfied, sentences))
        return tuple(found)


def _rule(number: int, value: object) -> Rule:
    where = f"rule {number}"
    if not isinstance(value, dict):
        raise UsageError(f"{where}: write [[rule]], then one line for each of its names")
    known = {"feature", "must", "at_most", "output"}
    unknown = set(value) - known
    if unknown:
        raise UsageError(f"{where}: unknown name {min(unknown)!r}; a rule has {', '.join(sorted(known))}")
    for name in ("feature", "must"):
        if name not in value:
            raise UsageError(f"{where}: {name} is missing")
    for name in ("feature", "must", "output"):
        if name in value and not isinstance(value[name], str):
            raise UsageError(f'{where}: {name} is text in quotes, such as {name} = "..."')
    try:
        amount = _amount(value["at_most"]) if "at_most" in value else None
        return Rule(value["feature"], value["must"], amount, value.get("output"))
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _amount(value: Any) -> Fraction:
    """The number as written, exactly: no binary rounding comes between a policy and its proof."""
    plain = type(value) is int or (isinstance(value, Decimal) and value.is_finite())
    # 1e999999999 is a short text of a number that would fill all memory.
    if not plain or abs(Decimal(value).adjusted()) > _MAX_EXPONENT:
        raise UsageError("at_most is a number above 0, such as at_most = 0.05")
    return Fraction(value)


def _statement(number: int, rule: Rule, output: int, feature: int, scale_bits: int) -> WeightStatement:
    match rule.must:
        case "be zero":
            return IsZero(output, feature)
        case "not decrease the answer":
            return HasSign(output, feature, "non-negative")
        case "not increase the answer":
            return HasSign(output, feature, "non-positive")
        case "stay within":
            bound = math.floor((rule.at_most or 0) * (1 << scale_bits))
            if bound < 1:
                raise UsageError(
                    f"rule {number}: at_most is below the step of the weights, 2^-{scale_bits}: say must = 'be zero'"
                )
            return IsWithin(output, feature, bound)


def _sentence(rule: Rule, output: str, shape: ModelShape) -> str:
    """The rule for one output, in plain words."""
    what = f"the weight of {rule.feature!r} in {output!r} must "
    match rule.must:
        case "be zero":
            return what + "be zero"
        case "not decrease the answer":
            return what + "not be negative, so that more of it never lowers the answer"
        case "not increase the answer":
            return what + "not be positive, so that more of it never raises the answer"
        case "stay within":
            unit = per_unit(shape.schema.features[shape.schema.names.index(rule.feature)])
            return what + f"be at most {amount_text(rule.at_most or Fraction(0))} in magnitude, per {unit}"


def _implies(first: WeightStatement, second: WeightStatement, shape: ModelShape) -> bool:
    if (first.output, first.feature) != (second.output, second.feature):
        return False
    b = shape.outputs[first.output][1]
    return first.interval(b).within(second.interval(b))
