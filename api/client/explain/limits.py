"""What is not claimed of a bundle: the fixed sentences of its attestation, and what is missing in this one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from api.client.explain.document import Section, Sentence
from api.client.explain.facts import Facts
from api.client.shown import VerifiedDisclosure
from privacy.attestation import JOINT_NOT_CLAIMED, NOT_CLAIMED

__all__ = ["not_claimed"]

_RANGES: Final = (
    "That the encrypted values lie within the ranges of the schema: of others, all that is said about answers is true "
    "only up to multiples of the ciphertexts' modulus."
)


def not_claimed(facts: Facts) -> Section:
    """The section of everything that a reader might believe and has no reason to."""
    said = [Sentence(text) for text in (NOT_CLAIMED if facts.mpc is None else JOINT_NOT_CLAIMED)]
    if facts.ckks is not None:
        said.append(Sentence(_RANGES))
    if facts.disclosure is not None:
        said += [Sentence(text) for text in _disclosure(facts, facts.disclosure)]
    else:
        said.append(
            Sentence("What the answers are: the bundle holds them hidden, and only the clinic can read its own.")
        )
    said += [Sentence(text) for text in _ledger(facts)]
    return Section("not-claimed", "What is not claimed", tuple(said))


def _disclosure(facts: Facts, found: VerifiedDisclosure) -> Iterator[str]:
    if found.consent is None:
        yield (
            "That anybody consented to this: no consent is on the ledger. The clinic showed it on its own authority, "
            "as clinics could until release 0.4."
        )
    else:
        yield (
            "That the patients agreed: the consent on the ledger is the clinic's. How the clinic obtained it, it does "
            "not say."
        )
        if not facts.in_time(found.consent.document.until):
            yield (
                f"That it was shown before the consent ended, {found.consent.document.until}: that is the word of the "
                "clinic's own clock."
            )
    if not facts.reading.nonce:
        yield (
            "That it was made for you: its nonce was not compared with one that you chose, because you gave none "
            "(--nonce)."
        )
    yield (
        "That the record's id stands for the person you think of, and that the clinic shows you all that it knows: it "
        "chose what to show."
    )
    if facts.ckks is not None:
        yield "Anything about the answer beyond what the sentences of part 2 say: the rest of it stays hidden."
    elif all(fact.kind != "open" for fact in found.facts):
        yield "Anything about the committed answer beyond what the sentences of part 2 say: the rest stays hidden."


def _ledger(facts: Facts) -> Iterator[str]:
    found, reading, witnessed = facts.prediction, facts.reading, facts.witnessed
    if not reading.server:
        yield (
            "That nothing it uses was revoked, before or since: revocations were not looked up, for want of a "
            "connection to the ledger (--server). The server says that nothing had been when it made the prediction."
        )
    else:
        yield "That nothing will be revoked later: revocations were looked up now, and not after this."
    if witnessed is None or witnessed.time is None:
        yield (
            "That the ledger shows everybody the same history: no policy with witnesses was given, so a fork would go "
            "unnoticed until two readers compare heads" + (", or a chain tells." if reading.anchors else ".")
        )
    else:
        yield "That the witnesses are in different hands: that is for you to know, who chose the policy."
    if facts.until is not None and not facts.in_time(facts.until):
        yield (
            f"That the records were used before the end that the clinic set, {facts.until}: that is the word of the "
            "server's own clock."
        )
    yield "That the ledger has not grown since, or that this is its newest head."
    if found.approval is None:
        yield "That any hospital approved the model: no approval is part of this prediction."
    elif reading.governance is None:
        yield (
            "That hospitals approved the model: keys signed an approval, but whose keys they are was not asked, since "
            "no governance file was given (--governance)."
        )
    elif not reading.contract:
        yield "That the hospitals still approve the model: the contract was not asked (--governance-rpc)."
    yield "That parties are who their names say: who may register under which name, the ledger's operator decides."
