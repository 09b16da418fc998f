"""What an owner may say in public of one hidden weight (docs/spec/protocol.md, section 8). Only the words are here.

With w_i the committed integer weight (at 2^SW) of feature i in one output, and b the output's public number of bits:

    IsZero       w_i = 0
    HasSign      0 <= w_i, or w_i <= 0
    IsWithin     -bound <= w_i <= bound

Units: w_i / 2^SW is how much the raw answer changes over one unit of the *encoded* feature. For the encoding `unit`
that is from the middle of the feature's range to either end, for `identity` it is one unit of the feature.

`privacy.models.weight_proofs` proves them. They are about linear models; there is none about a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal, localcontext
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from privacy.errors import UsageError

if TYPE_CHECKING:  # ledger entries are made of these words, and are read without numpy and without a curve
    from privacy.models.schema import Feature, Schema
    from privacy.zk.transcript import Transcript

__all__ = [
    "DIRECTIONS",
    "Direction",
    "HasSign",
    "Interval",
    "IsWithin",
    "IsZero",
    "WeightStatement",
    "amount_text",
    "certified_interval",
    "per_unit",
]

Direction = Literal["non-negative", "non-positive"]
DIRECTIONS: Final[tuple[Direction, ...]] = ("non-negative", "non-positive")


@dataclass(frozen=True)
class Interval:
    """The integers from `low` to `high`, both included, at the scale of the weights. Raises UsageError if empty."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise UsageError(f"there is no integer from {self.low} to {self.high}")

    @property
    def bits(self) -> int:
        """k: value - low and high - value are numbers of k bits for every value inside."""
        return (self.high - self.low).bit_length()

    def __contains__(self, value: int) -> bool:
        return self.low <= value <= self.high

    def within(self, other: Interval) -> bool:
        """Whether all of it lies in `other`."""
        return other.low <= self.low and self.high <= other.high


@dataclass(frozen=True)
class _About:
    """The weight that a statement is about, by the places of its output and its feature."""

    TYPE: ClassVar[str]

    output: int
    feature: int

    def absorb(self, transcript: Transcript) -> None:
        transcript.absorb(b"statement.type", self.TYPE.encode())
        transcript.absorb_integers(b"statement.place", [self.output, self.feature])

    def _weight(self, schema: Schema, outputs: Sequence[str]) -> str:
        return f"the weight of {schema.features[self.feature].name!r} in {outputs[self.output]!r}"


@dataclass(frozen=True)
class IsZero(_About):
    """The weight is zero: the feature is not used."""

    TYPE = "zero-weight"

    def interval(self, b: int) -> Interval:
        """The weights of which it is true."""
        return Interval(0, 0)

    def sentence(self, schema: Schema, outputs: Sequence[str], weight_scale_bits: int) -> str:
        """In plain words, for the model of this schema and these names of outputs."""
        return f"{self._weight(schema, outputs)} is zero"


@dataclass(frozen=True)
class HasSign(_About):
    """The weight is not negative (the feature never lowers the answer), or not positive (it never raises it)."""

    TYPE = "sign"

    direction: Direction

    def absorb(self, transcript: Transcript) -> None:
        super().absorb(transcript)
        transcript.absorb(b"statement.direction", self.direction.encode())

    def interval(self, b: int) -> Interval:
        """The weights of which it is true, among those of b bits."""
        return Interval(0, (1 << b) - 1) if self.direction == "non-negative" else Interval(-1 << b, 0)

    def sentence(self, schema: Schema, outputs: Sequence[str], weight_scale_bits: int) -> str:
        """In plain words, for the model of this schema and these names of outputs."""
        sign, effect = ("negative", "lowers") if self.direction == "non-negative" else ("positive", "raises")
        return f"{self._weight(schema, outputs)} is not {sign}, so more of it never {effect} the answer"


@dataclass(frozen=True)
class IsWithin(_About):
    """The weight is at most `bound` in magnitude, an integer at the scale 2^SW of the weights."""

    TYPE = "bounded"

    bound: int

    def absorb(self, transcript: Transcript) -> None:
        super().absorb(transcript)
        transcript.absorb_integers(b"statement.bound", [self.bound])

    def interval(self, b: int) -> Interval:
        """The weights of which it is true."""
        return Interval(-self.bound, self.bound)

    def sentence(self, schema: Schema, outputs: Sequence[str], weight_scale_bits: int) -> str:
        """In plain words, for the model of this schema and these names of outputs."""
        amount = amount_text(Fraction(self.bound, 1 << weight_scale_bits))
        unit = per_unit(schema.features[self.feature])
        return f"{self._weight(schema, outputs)} is at most {amount} in magnitude, per {unit}"


WeightStatement = IsZero | HasSign | IsWithin
"""What may be said of one weight. `output` and `feature` are places in the model's outputs and in its schema."""


def per_unit(feature: Feature) -> str:
    """What a weight of this feature is per, in words: one unit of the encoded feature."""
    if feature.encoding == "identity":
        return "unit of the feature" if feature.unit == "1" else feature.unit
    width = f"{feature.half_width:g}" + ("" if feature.unit == "1" else f" {feature.unit}")
    return f"half the range of the feature ({width})"


def amount_text(amount: Fraction) -> str:
    """A positive amount with six figures, never smaller than it is."""
    context = Context(prec=6, rounding=ROUND_CEILING)
    with localcontext(Context(prec=200, rounding=ROUND_CEILING)):
        exact = Decimal(amount.numerator) / amount.denominator
    return f"{context.create_decimal(exact).normalize():f}"


def certified_interval(b: int) -> Interval:
    """Every weight of a certified model lies in it, whatever else is said."""
    return Interval(-1 << b, (1 << b) - 1)
