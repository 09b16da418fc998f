"""The explanation of a bundle that was not verified: which check failed, what it protects from, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from api.client.explain.checks import meaning_of, refusal_of
from api.client.explain.document import Explanation, Outcome, Section, Sentence
from api.client.explain.facts import Reading, in_capitals
from api.client.explain.verified import command

__all__ = ["explain_refused"]

_SHORT: Final = {
    "file": "This file could not be verified. It is damaged, incomplete, or was altered on the way.",
    "reader": "This bundle was not verified. That need not be its fault: look at what was given to check it with.",
    "unreachable": "This bundle was not verified, because somebody who was to be asked did not answer.",
    "claim": "This bundle was refused: something that it claims does not hold.",
}
_TITLES: Final = {
    "refused": "Refused",
    "unreadable": "Not readable",
    "unreachable": "Not verified: somebody did not answer",
}


def explain_refused(
    path: str, result: Outcome, check: str, message: str, passed: Sequence[str], reading: Reading
) -> Explanation:
    """`check` and `message` are those of the refusal, `passed` the steps that had ended before."""
    refusal = refusal_of(check)
    meaning = meaning_of(check)
    said = [Sentence(_SHORT[refusal.because])]
    said.append(
        Sentence("Nothing in it is established by it: an explanation of what it proves would be one of nothing.")
    )
    failed = [Sentence(f"The check {check!r} failed: {message.rstrip('.')}.")]
    if meaning is not None:
        failed.append(Sentence(f"It is about {meaning.rstrip('.')}."))
    failed.append(Sentence(f"What it protects you from: {refusal.guards}"))
    sections = (
        Section("in-short", "In short", tuple(said)),
        Section("failed", "What failed", tuple(failed)),
        Section("passed", "What had been checked before", (_passed(passed),)),
        Section("advice", "What to do", (Sentence(in_capitals(refusal.advice.rstrip("."))),)),
        Section("repeat", "How to check it yourself", (), (), (), (command(path, reading),)),
    )
    return Explanation(path, result, None, None, _TITLES[result], sections, check=check, message=message)


def _passed(steps: Sequence[str]) -> Sentence:
    if not steps:
        return Sentence("Nothing.")
    return Sentence(
        f"These steps had passed: {', '.join(steps)}. That says nothing in favour of the rest; each depends on all."
    )
