"""Questions about answers: a person's numbers become steps of the model's grid, and words again, without a gain."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from api.binding import Located
from api.client.figures import decimal
from api.client.questions import check_question, question_in_words, question_of
from api.client.session import LocatedModel
from api.consent import Question
from api.entries import Model, ModelOutput, Network, NetworkLayer, Reference
from privacy.errors import UsageError
from privacy.models.linear import sigmoid

POINT = b"\xc0" + bytes(47)
AT = Reference(7, bytes(32))


def linear(*names: str, link: str = "logit", grid_bits: int = 6, parameter_set: str = "linear-4096") -> LocatedModel:
    outputs = tuple(ModelOutput(name, link, 24, 58, POINT) for name in names)
    body = Model("heart", "1", parameter_set, bytes(32), 34, 24, grid_bits, outputs, bytes(32), bytes(32), {}, ())
    return Located(AT, body)


def network(*names: str, link: str = "logit") -> LocatedModel:
    layer = NetworkLayer(3, len(names), 12, 16, 30, (POINT,) * len(names))
    body = Network("net", "1", "mpc-64", bytes(32), 12, 6, 40, link, names, (layer,), bytes(32), bytes(32), {})
    return Located(AT, body)


ONE = linear("malignant")
KINDS = linear("benign", "malignant", "other", link="softmax")


@pytest.mark.parametrize("probability", [0.001, 0.25, 0.5, 0.7, 0.7024, 0.99, 0.999999])
def test_a_probability_is_rounded_up_to_the_grid_and_told_rounded_down(probability: float) -> None:
    """So that a yes is one to what was asked, and the words claim no more than the number."""
    question = question_of(ONE, "p7", kind="threshold", threshold=probability)
    reached = float(sigmoid(question.value / 64))
    assert reached >= probability > float(sigmoid((question.value - 1) / 64))
    words = question_in_words(question, ONE)
    told = float(words.partition("a probability of at least ")[2].removesuffix(")?"))
    assert reached - 1e-4 <= told <= reached


def test_questions_in_words() -> None:
    ask = question_of
    for question, model, words in (
        (
            ask(ONE, "p7", kind="threshold", threshold=0.7),
            ONE,
            "is malignant of record 'p7' at least 0.859375 (a probability of at least 0.7025)?",
        ),
        (ask(ONE, "p7", kind="exact"), ONE, "what is malignant of record 'p7', to within 0.015625?"),
        (ask(ONE, "p7", kind="exact", tolerance=0.25), ONE, "what is malignant of record 'p7', to within 0.25?"),
        (ask(network("risk"), "p7", kind="open"), network("risk"), "what exactly is risk of record 'p7'?"),
        (
            ask(linear("y", link="identity"), "p7", kind="threshold", threshold=-1.26),
            linear("y", link="identity"),
            "is y of record 'p7' at least -1.25?",
        ),
        (
            ask(KINDS, "p7", kind="threshold", odds=2, output="malignant", versus="benign"),
            KINDS,
            "is malignant minus benign of record 'p7' at least 0.703125 (malignant at least 2.0200 times as likely as "
            "benign)?",
        ),
        (
            ask(KINDS, "p7", kind="exact", tolerance=0.5, output=2, versus="0"),
            KINDS,
            "what is other minus benign of record 'p7', to within 0.5?",
        ),
        (
            ask(linear("a", "b"), "p7", kind="threshold", threshold=1.0, output=1, versus=0),
            linear("a", "b"),
            "is b minus a of record 'p7' at least 1?",
        ),
    ):
        assert question_in_words(question, model) == words


def test_odds_are_a_difference_rounded_up() -> None:
    for odds in (1e-12, 0.5, 1.0, 3, 1e12):
        question = question_of(KINDS, "p7", kind="threshold", odds=odds, output=1, versus=0)
        assert math.exp(question.value / 64) >= odds * (1 - 1e-12) > math.exp((question.value - 1) / 64)


def test_what_a_record_is_called_cannot_steer_a_terminal() -> None:
    question = question_of(ONE, "p7\x1b[2J\n", kind="exact")
    assert question_in_words(question, ONE).isprintable()


ODD: list[tuple[LocatedModel, dict[str, Any], str]] = [
    (ONE, {"kind": "threshold"}, "has a threshold"),
    (ONE, {"kind": "threshold", "threshold": 0.5, "odds": 2}, "has a threshold"),
    (ONE, {"kind": "threshold", "threshold": 0.0}, "probability"),
    (ONE, {"kind": "threshold", "threshold": 1.5}, "probability"),
    (ONE, {"kind": "threshold", "threshold": math.nan}, "probability|finite"),
    (ONE, {"kind": "threshold", "odds": 2}, "two outputs of a softmax"),
    (ONE, {"kind": "threshold", "threshold": 0.5, "tolerance": 1}, "tolerance belongs to"),
    (ONE, {"kind": "exact", "threshold": 0.5}, "threshold belongs to"),
    (ONE, {"kind": "exact", "odds": 2}, "threshold belongs to"),
    (ONE, {"kind": "exact", "tolerance": 0.01}, "multiple of the model's grid, 2\\^-6 = 0.015625"),
    (ONE, {"kind": "exact", "tolerance": 0}, "multiple of"),
    (ONE, {"kind": "exact", "tolerance": -1}, "multiple of"),
    (ONE, {"kind": "exact", "tolerance": math.inf}, "multiple of"),
    (ONE, {"kind": "exact", "tolerance": 1e30}, "that large"),
    (ONE, {"kind": "open"}, "exactly to within a tolerance"),
    (ONE, {"kind": "exact", "output": 1}, "no output 1; it has 'malignant'"),
    (ONE, {"kind": "exact", "output": "mood"}, "no output 'mood'"),
    (ONE, {"kind": "exact", "output": "-1"}, "no output '-1'"),
    (ONE, {"kind": "exact", "output": -1}, "no output -1"),
    (ONE, {"kind": "exact", "versus": 0}, "two different outputs"),
    (KINDS, {"kind": "exact"}, "versus, --versus.*'benign' versus 'malignant'"),
    (KINDS, {"kind": "threshold", "threshold": 0.7}, "no probability without all the others"),
    (KINDS, {"kind": "threshold", "odds": 0, "versus": 1}, "odds 0"),
    (KINDS, {"kind": "threshold", "odds": math.inf, "versus": 1}, "odds inf"),
    (KINDS, {"kind": "threshold", "odds": math.nan, "versus": 1}, "odds nan"),
    (network("a", "b", link="softmax"), {"kind": "open"}, "no probability without"),
    (linear("y", link="identity"), {"kind": "threshold", "threshold": math.inf}, "finite"),
    (linear("y", link="identity"), {"kind": "threshold", "threshold": 1e300}, "that large"),
    (linear("y", link="tea-leaves"), {"kind": "exact"}, "not known here: 'tea-leaves'"),
    (linear("y", parameter_set="linear-2048"), {"kind": "exact"}, "linear-2048"),
]


@pytest.mark.parametrize(("model", "options", "words"), ODD, ids=lambda value: str(value)[:40])
def test_what_cannot_be_asked_says_what_to_ask(model: LocatedModel, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        question_of(model, "p7", **options)


def test_a_question_of_somebody_else_is_checked_like_ones_own() -> None:
    """A clinic gets them from consumers, who may have asked anything."""
    honest = question_of(KINDS, "p7", kind="exact", output=1, versus=0)
    check_question(KINDS, honest)
    bad: tuple[Question, ...] = (
        replace(honest, versus=None),
        replace(honest, output=3),
        replace(honest, versus=9),
        replace(honest, tolerance=1 << 53),
        Question("p7", 1, 0, "open", 0, 0),
        Question("p7", 1, 0, "threshold", -(1 << 60), 0),
    )
    for question in bad:
        with pytest.raises(UsageError):
            check_question(KINDS, question)
        with pytest.raises(UsageError):
            question_in_words(question, KINDS)


def test_decimals_have_every_digit() -> None:
    assert [decimal(*pair) for pair in ((55, 6), (-3, 1), (10, 0), (0, 6), (1, 24))] == [
        "0.859375",
        "-1.5",
        "10",
        "0",
        "0.000000059604644775390625",
    ]
