"""The explanation of a bundle that was verified."""

from __future__ import annotations

import shlex
from typing import Final

from api.client.explain.document import Explanation, Section, Sentence
from api.client.explain.facts import Facts, Found, Reading, many, told
from api.client.explain.limits import not_claimed
from api.client.explain.numbers import numbers
from api.client.explain.picture import picture
from api.client.explain.proved import proved, weights
from api.client.explain.signed import ledger_head, signed
from api.client.shown import VerifiedDisclosure

__all__ = ["command", "explain_verified"]

_IN_SHORT: Final = 3
"""Answers that are told in the first paragraph."""


def explain_verified(found: Found, reading: Reading) -> Explanation:
    """All there is to say of it.

    Raises OSError, DecodeError and VerificationFailed(`entry.reference`) if its file was changed since.
    """
    facts = Facts(found, reading)
    how = "on encrypted records" if facts.ckks is not None else "by multi-party computation"
    title = f"A disclosure from a prediction {how}" if facts.disclosure is not None else f"A prediction {how}"
    sections = (
        Section("in-short", "In short", tuple(map(Sentence, _short(facts)))),
        proved(facts),
        signed(facts),
        ledger_head(facts),
        numbers(facts),
        not_claimed(facts),
        weights(facts),
        _repeat(str(facts.path), reading),
    )
    return Explanation(
        bundle=str(facts.path),
        result="verified",
        kind="prediction" if facts.disclosure is None else "disclosure",
        scheme="mpc" if facts.ckks is None else "ckks",
        title=f"{title}: verified",
        sections=sections,
        picture=picture(facts),
        checks=facts.checks,
    )


def command(path: str, reading: Reading) -> str:
    """What verifies this bundle in the same way."""
    return shlex.join(["sealproof", "verify", path, *reading.options])


def _short(facts: Facts) -> list[str]:
    found, model = facts.prediction, facts.prediction.model.body
    clinic, owner, server = (repr(party.name) for party in (facts.clinic.body, found.owner, found.server))
    records, name = many(found.count, "patient"), f"{model.name!r}, version {model.version!r}"
    if facts.ckks is not None:
        story = (
            f"The clinic {clinic} had the records of {records} answered by a model of {owner} ({name}). It encrypted "
            f"the records under a key of its own; the server {server} computed on the encrypted records, and proved "
            "that it computed that model and nothing else."
        )
    else:
        story = (
            f"The clinic {clinic} had the records of {records} answered by a network of {owner} ({name}). The two "
            "computed together, by a protocol in which neither shows its secret, and made one proof, which the server "
            f"{server} logged."
        )
    trust = (
        "You need not believe any of them that the answers are right: the proof was checked here, on this machine, "
        "against what each had put into the ledger before. What they could still be wrong about is in part 6."
    )
    shown = _hidden() if facts.disclosure is None else _shown(facts.disclosure, clinic)
    return [story, shown, trust] if facts.disclosure is None else [shown, story, trust]


def _hidden() -> str:
    return "The answers themselves stay hidden in this file: only the clinic can read those of its patients."


def _shown(found: VerifiedDisclosure, clinic: str) -> str:
    consent = found.consent
    to = "whoever chose its nonce" if consent is None or consent.consumer is None else repr(consent.consumer.name)
    facts = [told(fact) for fact in found.facts[:_IN_SHORT]]
    says = "; ".join(facts) + (
        f"; and {len(found.facts) - _IN_SHORT} more, in part 2" if found.facts[_IN_SHORT:] else ""
    )
    if consent is None:
        under = "There is no consent to this on the ledger."
    else:
        under = (
            f"It had consented to that on the ledger, for the purpose {consent.document.purpose!r}, until "
            f"{consent.document.until}."
        )
    return f"The clinic {clinic} shows this to {to}, and proves it: {says}. {under}"


def _repeat(path: str, reading: Reading) -> Section:
    sentences = [
        "This explanation is an account by the program that made it, and proves nothing to anybody else. The bundle "
        "does: whoever has it can check it, without any secret and without an FHE library (pip install sealproof)."
    ]
    if not reading.pinned:
        sentences.append(
            "The key of the ledger was trusted on this machine. Elsewhere add --log-key, with the key from the "
            "ledger's operator or its witnesses, and not from who sends the file."
        )
    else:
        sentences.append("Take the key of the ledger from its operator or its witnesses, not from who sends the file.")
    if reading.cached:
        sentences.append("With --no-cache, nothing that this machine verified before is taken as verified.")
    return Section(
        "repeat", "How to check it yourself", tuple(map(Sentence, sentences)), (), (), (command(path, reading),)
    )
