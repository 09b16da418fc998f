"""What an owner is told of its models: what is public about them, and that a commitment was opened."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from api.client.session import LocatedModel

__all__ = ["Audited", "OutputPolicy"]


@dataclass(frozen=True)
class OutputPolicy:
    """What is public about one output, and how far its weights carry.

    `bits` is what the weights and the bias can hold at most, `bits_per_answer` what one patient's answer releases in a
    prediction for one patient, and `answers` how many such answers release as many bits as there are: a cohort larger
    than that may give the model to its clinic (docs/spec/protocol.md, section 5, Exposure). An output of a network
    depends on all layers: `bits` counts them all, `b` and `b_bias` are the largest of them. `statements` are what was
    published of single weights, in words.
    """

    name: str
    link: str
    b: int
    b_bias: int
    bits: int
    bits_per_answer: Fraction
    answers: int
    statements: tuple[str, ...] = ()


@dataclass(frozen=True)
class Audited:
    """A commitment that was opened: the float model is the one that was committed to.

    `rounding` is the largest error per output that quantising can cause, from public numbers.
    """

    model: LocatedModel
    artefact_digest: bytes
    rounding: tuple[Fraction, ...]
