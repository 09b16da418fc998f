"""An explanation on a terminal of 80 columns: plain words first, numbers after them."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap
from typing import Final

from api.client.explain.document import Explanation, Quantity, Section, Sentence, Signer

__all__ = ["WIDTH", "as_text", "printable"]

WIDTH: Final = 80


def printable(text: str) -> str:
    """`text` with everything that could steer a terminal, or reorder what is read, written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def as_text(explanation: Explanation) -> str:
    """The explanation, in lines of at most 80 characters but for commands, which are not broken."""
    lines = [*_wrapped(explanation.title), ""]
    for number, section in enumerate(explanation.sections, start=1):
        lines += [*_wrapped(f"{number}. {section.title}"), ""]
        lines += [*_section(section), ""]
    return "\n".join(lines).rstrip("\n")


def _section(section: Section) -> Iterator[str]:
    bullet = "" if section.name == "in-short" else "- "
    for sentence in section.sentences:
        yield from _sentence(sentence, bullet)
    for signer in section.signers:
        yield from _signer(signer)
    for quantity in section.quantities:
        yield from _quantity(quantity)
    for command in section.commands:
        yield f"     {printable(command)}"  # one line, to be copied


def _sentence(sentence: Sentence, bullet: str) -> Iterator[str]:
    yield from _wrapped(sentence.plain, f"   {bullet}", 3 + len(bullet))
    after = [f"[{sentence.terms}]"] if sentence.terms else []
    after += [f"(checked in step {sentence.step!r})"] if sentence.step else []
    if after:
        yield from _wrapped(" ".join(after), " " * (3 + len(bullet) + 2))


def _signer(signer: Signer) -> Iterator[str]:
    yield from _wrapped(f"{signer.role} {signer.name}: {signer.said}", "   - ", 5)
    where = [f"registered in entry {signer.registered}"] if signer.registered is not None else []
    where += [f"signed {_entries(signer.entries)}"] if signer.entries else []
    if where:
        yield from _wrapped("; ".join(where) + ".", " " * 7)
    yield from _wrapped(f"key {signer.fingerprint}", " " * 7)


def _entries(indices: tuple[int, ...]) -> str:
    return f"{'entry' if len(indices) == 1 else 'entries'} {', '.join(map(str, indices))}"


def _quantity(quantity: Quantity) -> Iterator[str]:
    yield from _wrapped(f"{quantity.name}: {quantity.shown}", "   - ", 7)
    if quantity.note:
        yield from _wrapped(quantity.note, " " * 7)


def _wrapped(text: str, first: str = "", indent: int | None = None) -> list[str]:
    rest = " " * (len(first) if indent is None else indent)
    return wrap(printable(text), WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False) or [first]
