"""Questions about answers of a model: from a person's numbers to steps of the model's public grid, and back to words.

A consumer asks them, a clinic consents to them, and whoever explains a disclosure tells them again, in the same words.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Final, Literal, get_args

from api.client.figures import decimal, rounded_down, times_as_likely
from api.client.session import LocatedModel
from api.consent import Question
from api.entries import Model
from privacy.errors import UsageError
from privacy.models.linear import Link, raw_threshold, sigmoid

__all__ = ["Kind", "check_question", "link_of", "output_names", "question_in_words", "question_of"]

Kind = Literal["threshold", "exact", "open"]

_LARGEST: Final = 1 << 53
"""More grid steps than any answer has: those under encryption stay below 2^20, others below 2^53."""
_MAX_ODDS: Final = 1e12


def question_of(
    model: LocatedModel,
    record: str,
    *,
    kind: Kind,
    threshold: float | None = None,
    odds: float | None = None,
    tolerance: float | None = None,
    output: str | int = 0,
    versus: str | int | None = None,
) -> Question:
    """A question about one answer of `record`, on the grid of `model`.

    `output` and `versus` are names or places; with `versus` the answer is the difference of the two, output minus
    versus. Of a threshold, `threshold` is a probability for a single logit, and else a raw answer or a difference of
    two; `odds` r asks it of two outputs of a softmax: that output is at least r times as likely as versus, which is a
    difference of ln r. Both are rounded up to the grid, so that a yes is one to what was asked. `tolerance` of exact
    is in units of the answer and a multiple of the grid, by default one step.

    Raises UsageError for a question that cannot be asked of this model, with what to ask instead.
    """
    place = _place(model, output)
    other = None if versus is None else _place(model, versus)
    if other == place:
        raise UsageError("a difference is of two different outputs")
    link, grid_bits = _link(model, place, other), model.body.grid_bits
    if kind != "exact" and tolerance is not None:
        raise UsageError("a tolerance belongs to an exact question, and to no other")
    if kind == "threshold":
        value = _threshold(link, threshold, odds, grid_bits, other is not None)
    elif threshold is not None or odds is not None:
        raise UsageError("a threshold belongs to a question of that kind, and to no other")
    else:
        value = 0
    steps = _tolerance(tolerance, grid_bits) if kind == "exact" else 0
    question = Question(record, place, other, kind, value, steps)
    check_question(model, question)
    return question


def check_question(model: LocatedModel, question: Question) -> None:
    """Raise UsageError, with what to ask instead, unless an answer of `model` can be shown in this way."""
    names = output_names(model)
    for place in (question.output, question.versus):
        if place is not None and not place < len(names):
            raise UsageError(f"the model {model.body.name!r} has no output {place}; it has {_listed(names)}")
    _link(model, question.output, question.versus)
    if isinstance(model.body, Model):
        if model.body.parameter_set == "linear-2048":
            raise UsageError(
                f"the model {model.body.name!r} is published with the parameter set linear-2048, whose answers are for "
                "the clinic alone: its owner must publish it with linear-4096"
            )
        if question.kind == "open":
            raise UsageError(
                "an answer under encryption is not shown whole, which would tell of the clinic's key: ask for it "
                "exactly to within a tolerance"
            )
    if max(abs(question.value), question.tolerance) >= _LARGEST:
        raise UsageError("no answer is that large")


def output_names(model: LocatedModel) -> tuple[str, ...]:
    """Names of the outputs, in order."""
    body = model.body
    return tuple(output.name for output in body.outputs) if isinstance(body, Model) else body.outputs


def link_of(model: LocatedModel, output: int) -> Link:
    """How a raw answer of this output is read. Raises UsageError for a link that is not known."""
    body = model.body
    told = body.outputs[output].link if isinstance(body, Model) else body.link
    for link in get_args(Link):
        if told == link:
            found: Link = link
            return found
    raise UsageError(f"the model {body.name!r} reads its answers in a way that is not known here: {told!r}")


def question_in_words(question: Question, model: LocatedModel) -> str:
    """The question as one asks a person, with exact decimals. Raises UsageError as `check_question` does."""
    check_question(model, question)
    names, grid_bits = output_names(model), model.body.grid_bits
    about = names[question.output]
    if question.versus is not None:
        about += f" minus {names[question.versus]}"
    about += f" of record {question.record!r}"
    if question.kind == "open":
        return f"what exactly is {about}?"
    if question.kind == "exact":
        return f"what is {about}, to within {decimal(question.tolerance, grid_bits)}?"
    meaning = _meaning(question, model)
    return f"is {about} at least {decimal(question.value, grid_bits)}{f' ({meaning})' if meaning else ''}?"


def _meaning(question: Question, model: LocatedModel) -> str | None:
    """What a threshold means to people. Rounded down, so that "at least" stays true."""
    link, raw = link_of(model, question.output), question.value / 2**model.body.grid_bits
    if question.versus is None:
        return f"a probability of at least {rounded_down(float(sigmoid(raw)))}" if link == "logit" else None
    if link != "softmax" or raw > math.log(_MAX_ODDS):
        return None
    names = output_names(model)
    return f"{names[question.output]} at least {times_as_likely(raw)} times as likely as {names[question.versus]}"


def _link(model: LocatedModel, output: int, versus: int | None) -> Link:
    """How one answer, or both of a difference, are read. Raises UsageError where one says nothing without the other."""
    link = link_of(model, output)
    if versus is None and link == "softmax":
        first, second, *_ = output_names(model)
        raise UsageError(
            "an output of a softmax has no probability without all the others, and is not shown alone: ask for the "
            f"difference of two outputs (versus, --versus), such as {first!r} versus {second!r}, or that one is so "
            "many times as likely as the other (odds, --odds)"
        )
    if versus is not None and link_of(model, versus) != link:
        raise UsageError("a difference is of two outputs that are read alike")
    return link


def _threshold(link: Link, threshold: float | None, odds: float | None, grid_bits: int, difference: bool) -> int:
    if threshold is not None and odds is None:
        return raw_threshold("identity" if difference else link, threshold, grid_bits)
    if odds is None or threshold is not None:
        raise UsageError("a threshold question has a threshold (threshold, --at-least) or odds (odds, --odds)")
    if link != "softmax":
        raise UsageError("odds are of two outputs of a softmax: give a threshold of the answer itself")
    if not 1 / _MAX_ODDS <= odds <= _MAX_ODDS:
        raise UsageError(f"odds {odds!r} are not between {1 / _MAX_ODDS:g} and {_MAX_ODDS:g}")
    return raw_threshold("identity", math.log(odds), grid_bits)


def _tolerance(tolerance: float | None, grid_bits: int) -> int:
    if tolerance is None:
        return 1
    steps = Fraction(tolerance) * (1 << grid_bits) if math.isfinite(tolerance) else Fraction(0)
    if steps.denominator != 1 or steps < 1:
        step = decimal(1, grid_bits)
        raise UsageError(f"a tolerance is a multiple of the model's grid, 2^-{grid_bits} = {step}, and at least that")
    return int(steps)


def _place(model: LocatedModel, which: str | int) -> int:
    names = output_names(model)
    if isinstance(which, str):
        if which in names:
            return names.index(which)
        if which.isascii() and which.isdigit() and len(which) < 4:
            which = int(which)
    if not isinstance(which, int) or not 0 <= which < len(names):
        raise UsageError(f"the model {model.body.name!r} has no output {which!r}; it has {_listed(names)}")
    return which


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"{name!r}" for name in names[:8]) + (", ..." if len(names) > 8 else "")
