"""A clinic with a prediction of either scheme, and everything that it needs to show answers of it.

Server, client, nodes and consumer are the real ones, over sockets of this machine.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from api.client.audit import verify_bundle
from api.client.clinic import Clinic, HeldGrant, SubmittedRecords
from api.client.consumer import Consumer
from api.client.questions import question_of
from api.client.session import LocatedModel
from api.client.shown import VerifiedDisclosure
from api.client.verified_cache import VerifiedCache
from api.consent import Question, Scope
from ledger import Verifier
from privacy.models.linear import LinearModel
from tests.support.bundles import PATIENTS, SCHEMA
from tests.support.pairs import IDS, RISK, Pair, pair_of
from tests.support.service import RunningServer

Scheme = Literal["ckks", "mpc"]

HIGH, LOW = IDS[1], IDS[3]
"""Records with the highest and the lowest answer: 0.52 and -0.84, probabilities of 0.63 and 0.30."""
PURPOSE = "life insurance 4711"
CLASSES = np.array([[0.02, -0.05, 0.9], [0.01, 0.02, -0.5], [-0.01, 0.01, 0.1]])
THREE = LinearModel("three", CLASSES, np.array([-0.25, 0.1, 0.2]), ("low", "middle", "high"), "softmax", SCHEMA)

_NAMES = itertools.count(1)


@dataclass
class Told:
    """A clinic and its prediction. `folder` is free for whatever a test writes."""

    scheme: Scheme
    server: RunningServer
    clinic: Clinic
    model: LocatedModel
    records: SubmittedRecords
    folder: Path
    pair: Pair | None = None
    bundles: list[Path] = field(default_factory=list)

    @property
    def bundle(self) -> Path:
        """Of the first prediction, without inputs."""
        return self.bundles[0] if self.bundles else self.predict()

    def predict(self) -> Path:
        """The bundle of a new prediction."""
        if self.pair is not None:
            ended = self.pair.session()
            assert ended.errors == {"A": None, "B": None}
            request = ended.request
        else:
            request = self.clinic.request(self.records, self.model)
        self.bundles.append(self.clinic.fetch(request, timeout=60))
        return self.bundles[-1]

    @property
    def scope(self) -> Scope:
        return Scope(None, self.model.reference, self.records.reference)

    def threshold(self, record: str, probability: float) -> Question:
        return question_of(self.model, record, kind="threshold", threshold=probability)

    def exact(self, record: str, tolerance: float | None = None) -> Question:
        return question_of(self.model, record, kind="exact", tolerance=tolerance)

    def grant(self, nonce: bytes, *questions: Question, **options: Any) -> HeldGrant:
        return self.clinic.grant_nonce(nonce, questions, **{"scope": self.scope, "purpose": PURPOSE, **options})

    def show(self, path: Path, nonce: bytes, *questions: Question, bundle: Path | None = None) -> Path:
        """Grant it to who has the nonce, and show it."""
        held = self.grant(nonce, *questions)
        assert self.clinic.disclose(held.index, bundle or self.bundle, path) == path
        return path

    def verified(self, path: Path, nonce: bytes | None, **options: Any) -> VerifiedDisclosure:
        """As the recipient does, who has the log's key and the nonce, and marks of certificates, and nothing else."""
        options = {"cache": VerifiedCache(), **options}
        found = verify_bundle(path, Verifier.parse(self.server.log_key), recipient_nonce=nonce, **options)
        assert isinstance(found, VerifiedDisclosure)
        return found

    def log_size(self) -> int:
        """Entries of the log, the first prediction's included: whichever test comes first makes that."""
        assert self.bundle.exists()
        return int(self.clinic.session.server.checkpoint().split(b"\n")[1])

    @contextmanager
    def forgotten(self) -> Iterator[None]:
        """The clinic as it was before it said or granted anything; afterwards it remembers again."""
        folder = self.clinic.session.folder
        kept = {name: folder / f"{name}.before" for name in ("disclosures", "grants", "keys/1.shown.json")}
        for name, path in kept.items():
            if (folder / name).exists():
                (folder / name).rename(path)
        yield
        for number, (name, path) in enumerate(kept.items()):
            if (folder / name).exists():
                (folder / name).rename(folder / f"after-{next(_NAMES)}-{number}")
            if path.exists():
                path.rename(folder / name)

    def consumer(self, folder: Path, name: str | None = None) -> Consumer:
        name = name or f"acme-{next(_NAMES)}"
        return Consumer.init(folder, self.server.url, name, log_key=self.server.log_key, client=self.server.client)


@contextmanager
def tell_encrypted(
    server: RunningServer, folder: Path, model: LinearModel = RISK, clinic: Clinic | None = None
) -> Iterator[Told]:
    """A new clinic with a key, or that `clinic`, and records encrypted for `model`."""
    number = next(_NAMES)
    with ExitStack() as stack:
        owner = stack.enter_context(server.owner(folder / f"owner-{number}", f"he-lab-{number}"))
        located = owner.publish(model, version="1")
        if clinic is None:
            clinic = stack.enter_context(server.clinic(folder / f"he-clinic-{number}", f"st-he-{number}"))
        records = clinic.submit(SCHEMA.cohort(PATIENTS, IDS), located)
        yield Told("ckks", server, clinic, located, records, folder)


@contextmanager
def tell_committed(server: RunningServer, folder: Path) -> Iterator[Told]:
    """A clinic, an owner and a node each, and records committed for a network."""
    with pair_of(server, folder) as pair:
        yield Told("mpc", server, pair.clinic, pair.model, pair.records, folder, pair)
