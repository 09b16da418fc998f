"""The consumer's part of the demonstration: an insurer asks a clinic about one patient, and believes nobody.

First as it should be: request, consent, disclosure, verification in a process without any key or encryption library.
Then everything that a crooked clinic, alone or with the server, could show instead (`api.demo.crooked`).
"""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path
from typing import Final

from api.client.audit import verify_bundle
from api.client.clinic import Clinic
from api.client.consumer import AskedRequest, Consumer
from api.client.prediction import VerifiedPrediction
from api.client.questions import question_in_words, question_of
from api.client.session import LocatedModel
from api.client.shown import VerifiedDisclosure
from api.client.transport import Server
from api.consent import Question
from api.demo.consumer_report import Answered, ConsumerReport
from api.demo.crooked import CrookedClinic, Crooks
from api.demo.forging import Forgery
from api.demo.page import Tampering
from api.demo.processes import audit
from api.demo.telling import Clock, judge, ledger_entries, say
from api.entries import decode_entry
from api.signing import load_private_key
from ledger import Signer, Verifier
from privacy.ckks.keys import ClinicKeys

__all__ = ["ConsumerStory"]

_AT_LEAST: Final = 0.7
_CLEARLY_BELOW: Final = 0.4
_TOLERANCE: Final = 0.25
_PURPOSE: Final = "life insurance, application 4711"
_KINDS: Final = ("request", "grant", "refusal", "disclosure")


class ConsumerStory:
    """Tells it, about the answers in `bundle` of `clinic`'s prediction with `model`, on the server at `url`."""

    def __init__(
        self, folder: Path, state: Path, url: str, log_key: str, clinic: Clinic, model: LocatedModel, bundle: Path
    ) -> None:
        self._folder, self._state, self._log_key = folder, state, log_key
        self._server, self._clinic, self._model, self._bundle = Server(url), clinic, model, bundle
        self._url = url

    def tell(self) -> ConsumerReport:
        """The whole story. Raises when anything honest does not hold."""
        say("\nAn insurer asks the clinic one question about one patient")
        clock = Clock()
        scores = self._clinic.open_bundle(self._bundle)
        values = scores.values[:, 0]
        high = next(i for i, value in enumerate(values) if value >= _AT_LEAST)
        low = next(i for i, value in enumerate(values) if value <= _CLEARLY_BELOW)
        insurer = clock.time(
            "insurer",
            "register on the ledger",
            lambda: Consumer.init(self._state / "insurer", self._url, "acme-life", log_key=self._log_key),
        )
        started = time.perf_counter()
        threshold = question_of(self._model, scores.ids[high], kind="threshold", threshold=_AT_LEAST)
        first = self._ask(insurer, clock, threshold, self._folder / "insurer-risk-disclosure.sealproof")
        seconds = time.perf_counter() - started
        exact = question_of(self._model, scores.ids[high], kind="exact", tolerance=_TOLERANCE)
        second = self._ask(insurer, clock, exact, self._folder / "insurer-score-disclosure.sealproof")
        refusal = self._refused(insurer, clock, scores.ids[low])
        tamperings = self._crooked(Path(first.path), low)
        return ConsumerReport(
            steps=clock.steps,
            seconds=seconds,
            answered=[first, second],
            refusal=refusal,
            on_the_ledger=_lines(self._server),
            tamperings=tamperings,
        )

    def _ask(self, insurer: Consumer, clock: Clock, question: Question, path: Path) -> Answered:
        """One question, from the request to the verdict of a process that has nothing but the file."""
        words = question_in_words(question, self._model)
        request = clock.time("insurer", f"ask: {words}", lambda: self._requested(insurer, question))
        grant = clock.time(
            "clinic",
            "read the request, ask the patient, consent for 30 days",
            lambda: self._clinic.grant(request.reference.index),
        )
        clock.time(
            "clinic",
            "prove exactly that about the encrypted answer, log it, and leave it sealed for the insurer",
            lambda: self._clinic.disclose(grant.reference.index, self._bundle),
        )
        shown = clock.time(
            "insurer",
            "collect it, and verify everything that it rests on",
            lambda: insurer.collect(request, path),
            lambda _: path.stat().st_size,
        )
        (verdict,) = clock.time(
            "insurer",
            "verify the file once more with the base install alone: no key, no encryption library",
            lambda: audit(self._state, [path], self._log_key, request.document.nonce),
        )
        if verdict["result"] != "verified":
            raise RuntimeError(f"the honest disclosure was refused: {verdict}")
        say(f"    {shown.sentence}")
        (fact,) = shown.facts
        meaning = "" if fact.meaning is None else f", {fact.meaning}"
        return Answered(words, f"{fact.sentence}{meaning}", str(path), path.stat().st_size)

    def _requested(self, insurer: Consumer, question: Question) -> AskedRequest:
        return insurer.request(self._clinic.name, [question], purpose=_PURPOSE, model=self._model)

    def _refused(self, insurer: Consumer, clock: Clock, record: str) -> str:
        """A patient who does not agree."""
        question = question_of(self._model, record, kind="threshold", threshold=_AT_LEAST)
        request = clock.time("insurer", "ask the same about somebody else", lambda: self._requested(insurer, question))
        clock.time(
            "clinic",
            "refuse: this patient does not agree",
            lambda: self._clinic.refuse(request.reference.index, "no-consent"),
        )
        return "the patient did not agree, and the ledger says no more than that it was refused"

    # -- the crooked --------------------------------------------------------------------------------------------------

    def _crooked(self, honest: Path, low: int) -> list[Tampering]:
        """Every forgery of the first disclosure, given to the insurer's verifier with the nonce of its question."""
        say("\nNow the crooked clinic, alone and with the server: everything that they could show instead")
        disclosed = verify_bundle(honest, Verifier.parse(self._log_key))
        prediction = disclosed.prediction if isinstance(disclosed, VerifiedDisclosure) else disclosed
        if not isinstance(disclosed, VerifiedDisclosure) or not isinstance(prediction, VerifiedPrediction):
            raise TypeError("the prediction was not made on encrypted records")  # unreachable: it is ours
        records = next(r for r in self._clinic.records() if r.reference == prediction.records.reference)
        crooks = Crooks(
            clinic_key=self._clinic.session.identity.private_key,
            keys=ClinicKeys.load(self._state / "clinic" / "keys" / f"{prediction.key.body.number}.key"),
            openings=self._clinic.key_openings(),
            handles=records.handles,
            server_key=load_private_key(self._state / "server" / "server.key"),
            log_signer=Signer.load(self._state / "server" / "log.key"),
        )
        entries = ledger_entries(self._server)
        forger = CrookedClinic(honest, entries, self._state / "crooked", crooks, prediction, low)
        nonce = disclosed.recipient_nonce
        told = judge(forger.all(), self._state, self._log_key, nonce)
        replay = Forgery("crooked clinic", "the very same file, shown to another insurer as an answer to it", honest)
        return told + judge([replay], self._state, self._log_key, secrets.token_bytes(32))


def _lines(server: Server) -> list[str]:
    """The entries of consent, as everybody reads them."""
    lines = []
    for index, data in enumerate(ledger_entries(server)):
        kind = decode_entry(data).kind.split("/")[1]
        if kind in _KINDS:
            body = json.loads(data)["body"]
            lines.append(f"{index}: {kind} {json.dumps(body, sort_keys=True)}")
    return lines
