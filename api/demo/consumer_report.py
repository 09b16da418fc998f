"""The consumer's part of the demonstration's page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from api.demo.page import Step, Tampering, bytes_text, steps_table, table, tampering_table

__all__ = ["Answered", "ConsumerReport", "render_consumer"]


@dataclass(frozen=True)
class Answered:
    """One question, what the consumer knows now, and the file that shows it to anybody."""

    question: str
    answer: str
    path: str
    size: int


@dataclass(frozen=True)
class ConsumerReport:
    """What was asked, shown and refused."""

    steps: Sequence[Step]
    seconds: float
    """From the first request to its verified answer."""
    answered: Sequence[Answered]
    refusal: str
    on_the_ledger: Sequence[str]
    tamperings: Sequence[Tampering]


def render_consumer(report: ConsumerReport) -> str:
    """HTML; every text is escaped."""
    rows = [
        (escape(one.question), f"<b>{escape(one.answer)}</b>", f"<code>{escape(one.path)}</code>", bytes_text(one.size))
        for one in report.answered
    ]
    entries = "".join(f"<li>{escape(line)}</li>" for line in report.on_the_ledger)
    return (
        "<section><h2>An insurer asks one question</h2><p>The insurer has no key and no encryption library, and trusts "
        "neither the clinic nor the server. It asks about one patient; the clinic consents, with the patient's word, "
        "and shows exactly that. What the insurer gets is a file that proves it, to the insurer and in no other "
        f"name.</p>{steps_table(report.steps)}"
        f"<p>From the request to the verified answer: {report.seconds:.2f} s.</p>"
        f"{table(['asked', 'shown', 'file', 'size'], rows, numbers={3})}"
        f"<p>A third question was refused: {escape(report.refusal)}.</p>"
        "<details><summary>What everybody can read of this on the ledger</summary>"
        f"<ul>{entries}</ul><p>Neither a patient, nor a question, nor an answer.</p></details></section>"
        "<section><h2>The clinic turns crooked, and the server with it</h2><p>They sign whatever they like and prove "
        "whatever can be proven. The insurer's program refuses each, and says why.</p>"
        f"{tampering_table(report.tamperings)}</section>"
    )
