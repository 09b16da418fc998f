"""Whether what was shown is what was asked: the last check of a consumer, after that of the disclosure itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from api.client.asked import AskedRequest
from api.client.shown import ShownFact, VerifiedDisclosure
from api.consent import Question
from api.entries import Party
from privacy.errors import VerificationFailed

__all__ = ["check_answers", "not_granted", "question_answered", "unanswered"]


def question_answered(fact: ShownFact) -> Question:
    """The question that a fact answers."""
    value = fact.value if fact.kind == "threshold" else 0
    return Question(fact.record_id, fact.output, fact.versus, fact.kind, value, fact.tolerance)


def check_answers(found: VerifiedDisclosure, asked: AskedRequest, clinic: Party) -> None:
    """Check that a verified disclosure answers the request that was made to `clinic`, and nothing else.

    Raises VerificationFailed: `request.consent` (made under no grant, or for another request), `request.addressee`,
    `request.scope`, `request.question` (it answers something that was not asked), `request.answers` (a question twice).
    """
    document = asked.document
    if found.recipient_nonce != document.nonce:
        raise VerificationFailed("disclosure.nonce", "this was made for another recipient, or another request")
    consent = found.consent
    if consent is None or consent.request is None or consent.document.request != document.digest:
        raise VerificationFailed("request.consent", "it was not made under a grant of this request")
    if consent.request.reference != asked.reference:
        raise VerificationFailed("request.consent", f"the grant answers another request than entry {asked.index}")
    if found.clinic != clinic:
        raise VerificationFailed("request.addressee", f"{clinic.name!r} was asked, {found.clinic.name!r} answers")
    prediction = found.prediction
    if not document.scope.covers(
        prediction.prediction.reference, prediction.records.reference, prediction.model.reference
    ):
        raise VerificationFailed("request.scope", "it is about another prediction, other records or another model")
    answered = [question_answered(fact) for fact in found.facts]
    for question, times in Counter(answered).items():
        if question not in document.questions:
            raise VerificationFailed("request.question", _other(question, document.questions))
        if times > 1:
            raise VerificationFailed(
                "request.answers", f"it answers a question about record {question.record!r} {times} times"
            )


def unanswered(found: VerifiedDisclosure, asked: AskedRequest) -> tuple[Question, ...]:
    """What was asked and is not answered by this disclosure, granted or not."""
    answered = {question_answered(fact) for fact in found.facts}
    return tuple(question for question in asked.document.questions if question not in answered)


def not_granted(found: VerifiedDisclosure, asked: AskedRequest) -> tuple[Question, ...]:
    """What was asked and is not in the grant under which this was shown."""
    granted = () if found.consent is None else found.consent.document.questions
    return tuple(question for question in asked.document.questions if question not in granted)


def _other(shown: Question, asked: Iterable[Question]) -> str:
    """What is wrong with an answer to no question: most telling where a like one was asked."""
    where = (shown.record, shown.output, shown.versus, shown.kind)
    for question in asked:
        if (question.record, question.output, question.versus, question.kind) != where:
            continue
        if shown.kind == "exact":
            return (
                f"of record {shown.record!r} it was asked to within {question.tolerance} grid steps, it is answered to "
                f"within {shown.tolerance}"
            )
        return (
            f"of record {shown.record!r} it was asked whether it is at least {question.value} grid steps, it is "
            f"answered for {shown.value}"
        )
    return f"it answers something about record {shown.record!r} that was not asked"
