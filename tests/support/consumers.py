"""A clinic with predictions on encrypted records, and a consumer that asks it: all the real ones, in one process.

A clinic says one thing of a kind about an answer, so every test takes patients of its own (`Story.patients`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from api.client.asked import AskedRequest
from api.client.clinic import Clinic, SubmittedRecords
from api.client.consents import HeldGrant
from api.client.consumer import Consumer
from api.client.owner import Owner
from api.client.questions import question_of
from api.client.session import LocatedModel
from api.client.shown import VerifiedDisclosure
from api.consent import Question
from privacy.models.linear import LinearModel
from tests.support.bundles import PATIENTS, SCHEMA
from tests.support.service import RunningServer

MODEL: Final = LinearModel("heart", np.array([[0.02, 0.0, 0.9]]), np.array([-0.25]), ("risk",), "logit", SCHEMA)
COUNT: Final = 60
PURPOSE: Final = "life insurance 4711"
PROBABILITY: Final = 0.6
"""Every patient of a story reaches it: all have the values of one with 0.63."""


@dataclass
class Story:
    """A server, an owner with a model, a clinic with 60 patients and a prediction about them, and a consumer."""

    server: RunningServer
    owner: Owner
    model: LocatedModel
    clinic: Clinic
    records: SubmittedRecords
    bundle: Path
    consumer: Consumer
    _free: list[str] = field(default_factory=list)

    def patients(self, count: int = 1) -> list[str]:
        """Record ids that nobody has asked about."""
        return [self._free.pop(0) for _ in range(count)]

    def question(self, record: str, **options: Any) -> Question:
        """A question about a patient; by default whether a probability is at least 0.6, which it is."""
        asked = options or {"kind": "threshold", "threshold": PROBABILITY}
        return question_of(self.model, record, **asked)

    def ask(self, *records: str, consumer: Consumer | None = None, **options: Any) -> AskedRequest:
        """A request of the consumer, or another one."""
        questions = [self.question(record, **options) for record in records]
        return (consumer or self.consumer).request(self.clinic.name, questions, purpose=PURPOSE, model=self.model)

    def granted(
        self, *records: str, consumer: Consumer | None = None, **options: Any
    ) -> tuple[AskedRequest, HeldGrant]:
        """The same, granted."""
        asked = self.ask(*records, consumer=consumer, **options)
        return asked, self.clinic.grant(asked.index)

    def shown(self, *records: str, **options: Any) -> tuple[AskedRequest, HeldGrant]:
        """The same, disclosed."""
        asked, held = self.granted(*records, **options)
        self.clinic.disclose(held.index, self.bundle)
        return asked, held

    def another(self, folder: Path, name: str) -> Consumer:
        """One more consumer."""
        server = self.server
        return Consumer.init(folder, server.url, name, log_key=server.log_key, client=server.client)

    @property
    def log_size(self) -> int:
        return int(self.consumer.session.server.checkpoint().split(b"\n")[1])


def tell(server: RunningServer, folder: Path, tag: str = "") -> Story:
    """Parties are called after `tag`, where several stories share a server."""
    owner = server.owner(folder / "owner", f"heart-lab{tag}")
    model = owner.publish(MODEL, version="1")
    clinic = server.clinic(folder / "clinic", f"st-anna{tag}")
    ids = [f"p{number}" for number in range(COUNT)]
    records = clinic.submit(SCHEMA.cohort(np.tile(PATIENTS[1], (COUNT, 1)), ids), model)
    bundle = predict(clinic, records, model, folder / "prediction.sealproof")
    consumer = Consumer.init(
        folder / "consumer", server.url, f"acme-life{tag}", log_key=server.log_key, client=server.client
    )
    return Story(server, owner, model, clinic, records, bundle, consumer, list(ids))


def predict(clinic: Clinic, records: SubmittedRecords, model: LocatedModel, path: Path) -> Path:
    """A new prediction's bundle, with its inputs."""
    return clinic.fetch(clinic.request(records, model), path, inputs=True, timeout=60)


def sentences(found: VerifiedDisclosure) -> list[str]:
    return [fact.sentence for fact in found.facts]
