"""What the names of failed checks mean, and for those that refuse a bundle: what they protect from, and what to do.

The first word of a name says what the check is about. The documents list all names with the meanings that stand here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

__all__ = ["MEANINGS", "REFUSALS", "Refusal", "meaning_of", "refusal_of"]

MEANINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "anchor": "the head of a bundle or server against the one in a contract",
        "approval": "hospitals' approval of a model: its signatures, its place, and the reader's governance file",
        "attestation": "the server's signed statement; also `attestation.` and a field that differs from the ledger's",
        "blob": "an uploaded file",
        "bls": "signatures and keys of a committee",
        "bounds": "what a parameter set leaves room for",
        "bundle": "the file: what is missing, damaged or not about the prediction",
        "chain": "what a contract said, or that it is not the contract it should be",
        "checkpoint": "a signed head",
        "clearance": "a clearance entry",
        "clinic": "a bundle that is not about this clinic's own records, key or request",
        "consent": "a clinic's grant against the request that it answers and against what was shown under it",
        "consistency": "a proof that one tree extends another",
        "disclosure": "answers that were shown to one recipient",
        "enrolment": "a disclosure against the terms of a trial, and the shares of its committee",
        "entries": "a bundle of entries that a log serves",
        "entry": "a ledger entry: its author, role, signature and references",
        "evaluation": "the proof of an evaluation on ciphertexts",
        "evidence": "two signed heads that are said to convict a log",
        "exposure": "bits of a model that answers have released",
        "file": "how a log serves a file",
        "grant": "a grant entry",
        "head": "the ledger head that a prediction names",
        "inclusion": "a proof that an entry is in a tree",
        "job": "who may deliver or fetch for a joint prediction",
        "joint": "the joint proof, and shares of its answers",
        "key": "a key entry and its certificate",
        "ledger": "order, references, names and revocations on the ledger",
        "linear": "a linear relation of a proof",
        "log": "the log that a proof is of, and whether it is trusted",
        "model": "a model entry, its certificate and its opening",
        "monitor": "a log that contradicts what it signed before",
        "mpc": "a session of two nodes, and why it ended",
        "network": "a network entry, its certificate and its opening",
        "note": "the signatures of a note",
        "offer": "what a node was asked to compute",
        "party": "a registration",
        "policy": "what records may be used for, and until when; `policy.quorum`: too few witnesses",
        "prediction": "a prediction entry against records and model",
        "publication": "a head that was to be published",
        "quadratic": "an exact relation of a proof, or a range",
        "records": "a records entry",
        "refusal": "a refusal entry",
        "report": "a ledger report against its signed note and the ledger",
        "representation": "an opening of commitments",
        "request": "a signed request to the server; a consumer's request on the ledger, and what is shown for it",
        "revocation": "a revocation entry",
        "sealed": "a box that was sealed for somebody else, or for another use",
        "submit": "what the server says it received",
        "suspension": "a suspension entry",
        "tile": "a tile that a log serves",
        "tree": "the root that all files together give",
        "trial": "a trial's contract against its terms",
        "zero-weight": "a statement that a weight is zero",
    }
)
"""What checks are about, by the first word of their names."""


@dataclass(frozen=True)
class Refusal:
    """What a check protects from, and what to do now that it failed.

    `because` says where to look first: at a file that may be damaged, at what the reader gave or left out, at what
    could not be reached, or at a claim that does not hold.
    """

    because: Literal["file", "reader", "unreachable", "claim"]
    guards: str
    advice: str


_AGAIN: Final = (
    "Do not rely on anything in this file. Get it again from where it came from. If a fresh copy fails in the same "
    "way, somebody made it so: keep it as evidence, and tell the clinic, the owner of the model and the operator of "
    "the ledger."
)
_FALSE: Final = (
    "Do not rely on anything in this file: what it says is not shown. Keep it as evidence, and tell the clinic, the "
    "owner of the model and the operator of the ledger, by a way that does not go through who sent it."
)
_LOG: Final = (
    "Stop using this ledger until it is explained. Keep the file and what was seen before: two signed heads that "
    "contradict each other convict whoever holds the ledger's key. Ask other readers and witnesses what they see."
)
_CLINIC: Final = "Ask the clinic for a disclosure that holds. Until then, what is shown here is not established."


def _claim(guards: str, advice: str = _FALSE) -> Refusal:
    return Refusal("claim", guards, advice)


def _reader(guards: str, advice: str) -> Refusal:
    return Refusal("reader", guards, advice)


REFUSALS: Final[Mapping[str, Refusal]] = MappingProxyType(
    {
        # By the whole name, where a check differs from the others of its kind.
        "anchor.origin": _reader(
            "Comparing the ledger with the anchor of another one.",
            "Take the anchor of the ledger that the bundle names, from somebody whom you trust.",
        ),
        "anchor.empty": _reader(
            "Taking a contract that holds nothing yet for a confirmation.",
            "Verify without the anchor, or wait until a head of this ledger is anchored.",
        ),
        "anchor.untied": _reader(
            "Taking two heads for one history without a proof that they are.",
            "Give --server, so that a proof between the two heads can be fetched. Nothing was found to be false.",
        ),
        "approval.missing": _reader(
            "Relying on a model that the hospitals of your governance file did not approve.",
            "If the approval matters to you, do not rely on the prediction, and ask for one under an approved model. "
            "Without --governance the rest can be verified.",
        ),
        "bundle.missing-inputs": _reader(
            "Believing a proof about records that nobody looked at.",
            "Give --server with the server that holds the encrypted records, or get the bundle with inputs. Nothing "
            "was found to be false.",
        ),
        "bundle.unreadable": Refusal(
            "file",
            "Guessing what a damaged file, or one of another kind, was meant to say.",
            "See whether this is the right file, and get it again from where it came from.",
        ),
        "chain.unavailable": Refusal(
            "unreachable",
            "Taking silence of a chain for its consent.",
            "Try again, or ask another node of the chain. Nothing was found to be false.",
        ),
        "consent.expired": _claim("Showing patients' answers after the consent to it had ended.", _CLINIC),
        "consent.revoked": _claim("Showing patients' answers after the consent to it was taken back.", _CLINIC),
        "disclosure.missing": _reader(
            "Taking a prediction, which shows nobody an answer, for an answer to your question.",
            "Ask the clinic for the file of the disclosure: this is that of the prediction alone.",
        ),
        "disclosure.nonce": _reader(
            "Taking a disclosure that was made for somebody else, or for an older question, for the answer to yours.",
            "See whether this is the nonce that you gave. If it is, ask the clinic for the disclosure that was made "
            "for it. What is shown may be true, but it was not shown to you.",
        ),
        "disclosure.grant": _claim(
            "Showing answers without a consent on the ledger, in the format of those who have one.", _CLINIC
        ),
        "head.revoked": _claim(
            "Predictions under a key, a model or records that had been revoked before.",
            "Do not rely on this prediction. Ask for a new one, under entries that are in force.",
        ),
        "log.untrusted": _reader(
            "Believing a ledger because the file itself says so.",
            "Get the key of this ledger from its operator and its witnesses, not from whoever sent the file, and give "
            "it with --log-key. Nothing was found to be false, and nothing was verified.",
        ),
        "policy.expired": _claim(
            "The use of records after the end that their clinic set for it.",
            "Do not rely on this prediction; tell the clinic that its records were used too late, or that nothing "
            "shows that it was in time.",
        ),
        "policy.model": _claim(
            "The use of records for a model that their clinic did not allow.",
            "Do not rely on this prediction, and tell the clinic for what its records were used.",
        ),
        "policy.quorum": _reader(
            "A ledger that shows you a history that its witnesses have not seen.",
            "Get the bundle again once the witnesses of your policy have cosigned. If they never do, ask them why: "
            "the ledger may be showing two histories.",
        ),
        # By the first word.
        "anchor": _claim("A ledger that shows one history here and has anchored another on a chain.", _LOG),
        "approval": _claim(
            "A model that is passed off as approved by hospitals.",
            "Do not rely on the approval. Ask the hospitals themselves whether they approve this entry of the ledger.",
        ),
        "attestation": _claim("A server that attests something else than the ledger says, or somebody in its name."),
        "bounds": _claim("Numbers so large that a proof about them would say nothing."),
        "bundle": Refusal(
            "file", "A damaged file, and parts that were left out, put in or exchanged on the way.", _AGAIN
        ),
        "chain": Refusal(
            "reader",
            "Believing a contract that is not the one that it should be.",
            "See whether address and node are right, and take them from somebody whom you trust.",
        ),
        "checkpoint": _claim("A head that the ledger did not sign, or signed for another one.", _AGAIN),
        "consent": _claim("Showing more, or to somebody else, or for another purpose, than was consented to.", _CLINIC),
        "consistency": _claim("A ledger that rewrote its past.", _LOG),
        "disclosure": _claim("A clinic, or somebody in its name, who shows another answer than the true one.", _CLINIC),
        "entry": _claim("Entries in somebody else's name, of another role, or about something else than they say."),
        "evaluation": _claim("Answers that were not computed by the committed model on the committed records."),
        "head": _claim("Predictions that are said to be older or newer than they are."),
        "inclusion": _claim("Entries that are not in the ledger, and records that are not in the cohort.", _AGAIN),
        "joint": _claim("Answers that were not computed by the committed network on the committed records."),
        "key": _claim("A clinic's key with which answers could be opened to something else than they are."),
        "ledger": _claim(
            "Records, keys and models that were chosen after the answers, and two parties under one name.", _LOG
        ),
        "linear": _claim("A proof that does not hold."),
        "log": _claim("Entries of another ledger, or from several of its states put together.", _AGAIN),
        "model": _claim("A model other than the committed one, or one whose answers may be anything."),
        "monitor": _claim("A ledger that goes back, or contradicts what it signed before.", _LOG),
        "network": _claim("A network other than the committed one, or one whose answers may be anything."),
        "note": _claim("A head that the ledger or its witnesses did not sign.", _AGAIN),
        "policy": _claim("The use of records against the will of their clinic."),
        "prediction": _claim("An entry that claims more patients, smaller errors or other answers than were proved."),
        "quadratic": _claim("A proof that does not hold."),
        "records": _claim("Records other than those that the clinic committed to."),
        "representation": _claim("A proof that does not hold."),
        "zero-weight": _claim("A statement about the model's weights that is not true, or not proved."),
    }
)
"""Refusals of bundles by the names of checks, or by the first words of these names."""

_OTHER: Final = _claim("A claim of the file that does not hold.")


def meaning_of(check: str) -> str | None:
    """What a check is about, in a few words; None for a name that no table has."""
    return MEANINGS.get(check.partition(".")[0])


def refusal_of(check: str) -> Refusal:
    """What the check with this name protects from, and what to do now that it failed."""
    return REFUSALS.get(check) or REFUSALS.get(check.partition(".")[0], _OTHER)
