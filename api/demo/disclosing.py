"""The scene in which a clinic shows an insurer one thing about one patient, and a second insurer is shown its copy."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from api.client.clinic import Clinic
from api.client.questions import question_of
from api.client.scores import Scores
from api.consent import Scope
from api.demo.page import Step
from api.demo.processes import audit
from api.demo.telling import Clock, say

__all__ = ["DisclosureReport", "disclose_one"]

_AT_LEAST = 0.7


@dataclass(frozen=True)
class DisclosureReport:
    """What was shown, and what became of it in the wrong hands."""

    steps: Sequence[Step]
    says: str
    replay: str
    size: int
    path: str


def disclose_one(clinic: Clinic, prediction: Path, state: Path, path: Path, log_key: str) -> DisclosureReport:
    """Prove to an insurer that one patient's answer reaches a threshold; then show the file to another insurer.

    `prediction` is the bundle of a model with a probability. Raises when the honest disclosure does not verify.
    """
    say("\nThe clinic shows an insurer one thing about one patient, with the patient's consent, and nothing else")
    clock = Clock()
    scores = clinic.open_bundle(prediction)
    patient = next(i for i, value in zip(scores.ids, scores.values[:, 0], strict=True) if value >= _AT_LEAST)
    nonce = clock.time("insurer", "choose a nonce for the question", lambda: secrets.token_bytes(32))
    clock.time(
        "clinic",
        f"consent, prove that the probability of {patient} is at least {_AT_LEAST}, and log that something was shown",
        lambda: _disclose(clinic, scores, patient, nonce, prediction, path),
        lambda _: path.stat().st_size,
    )
    (verdict,) = clock.time(
        "insurer",
        "verify it with the base install alone: no key, no encryption library",
        lambda: audit(state, [path], log_key, nonce),
    )
    if verdict["result"] != "verified":
        raise RuntimeError(f"the honest disclosure was refused: {verdict}")
    (fact,) = verdict["disclosure"]["facts"]
    says = f"{fact['says']}: a probability {fact['probability']}"
    say(f"    {says}")
    (other,) = clock.time(
        "another insurer",
        "is shown the same file, as if it had been made for its own question",
        lambda: audit(state, [path], log_key, secrets.token_bytes(32)),
    )
    if other["result"] == "verified":
        raise RuntimeError("a disclosure for somebody else was accepted")
    say(f"    refused by {other['check']}")
    return DisclosureReport(clock.steps, says, f"{other['check']}: {other['message']}", path.stat().st_size, str(path))


def _disclose(clinic: Clinic, scores: Scores, patient: str, nonce: bytes, prediction: Path, path: Path) -> None:
    """Consent to show it to whoever chose the nonce, and show it."""
    verified = scores.verified
    model, records = verified.model, verified.records.reference
    question = question_of(model, patient, kind="threshold", threshold=_AT_LEAST)
    scope = Scope(None, model.reference, records)
    held = clinic.grant_nonce(nonce, [question], scope=scope, purpose="an insurer's question")
    clinic.disclose(held.index, prediction, path)
