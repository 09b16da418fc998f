"""The first part of the demonstration: predictions on records that stay encrypted (CKKS).

The clinic sends ciphertexts, the server computes on them with the owner's weights, and the clinic decrypts what an
auditor's process, without any key or encryption library, has verified.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from api.client.clinic import Clinic
from api.client.owner import Owner
from api.client.scores import Scores
from api.client.session import LocatedModel
from api.client.transport import Server
from api.demo.ckks_report import EncryptedReport, PatientRow, StudyReport
from api.demo.data import Study, studies
from api.demo.page import Step, Tampering
from api.demo.processes import audit
from api.demo.tampering import Forger
from api.demo.telling import Clock, judge, ledger_entries, say
from api.signing import load_private_key
from ledger import Signer
from privacy import attestation
from privacy.models.statements import load_opening

__all__ = ["EncryptedStory", "warm_up"]


def warm_up() -> None:
    """Hash the generators of this part once, so that nobody's step is timed with it."""
    from privacy.ckks.key_certificate import PURPOSES
    from privacy.zk.generators import generators

    for purpose, count in (*zip(PURPOSES, (4096, 6 * 4096, 64), strict=True), ("evaluation/u", 4096)):
        generators(purpose, count)
    for purpose in (
        "disclosure/answers",
        "disclosure/masks",
        "evaluation/masks",
        "evaluation/quotients",
        "evaluation/t4",
        "model/weights",
        "model/bias",
        "model/bits",
    ):
        generators(purpose, 1)


class EncryptedStory:
    """Tells it, against the server at `url`, with every party's folder under `state`."""

    def __init__(self, folder: Path, state: Path, url: str, log_key: str) -> None:
        self._folder, self._state, self._url, self._log_key = folder, state, url, log_key
        self._owner: Owner | None = None
        self._clinic: Clinic | None = None
        self._server = Server(url)

    def tell(self) -> EncryptedReport:
        """Every study, then the forgeries. Raises when anything honest does not hold."""
        told = [self._tell(study) for study in studies()]
        return EncryptedReport(told, self._tamper(), attestation.CLAIMS, attestation.NOT_CLAIMED)

    def prepare(self) -> None:
        """The first study alone, for a story that needs its answers."""
        self._tell(studies()[0])

    def disclosable(self) -> tuple[Clinic, LocatedModel, Path]:
        """The clinic, the model of the first study, and the bundle of its predictions, for more to come."""
        name = studies()[0].name
        _, clinic = self.parties
        return clinic, clinic.session.model(name), self._folder / f"{name}.sealproof"

    @property
    def parties(self) -> tuple[Owner, Clinic]:
        """Who took part, for more to come."""
        return self._parties(Clock())

    def _tell(self, study: Study) -> StudyReport:
        """One data set, from the CSV file to verified answers."""
        say(f"\n{study.title}: {len(study.cohort)} patients, {study.schema.d} measurements each")
        clock = Clock()
        bundle = self._folder / f"{study.name}.sealproof"
        owner, clinic = self._parties(clock)
        model = clock.time(
            "model owner",
            "quantise, commit to, certify and publish the model; its weights stay secret",
            lambda: owner.publish(
                study.model, version="1", card=study.card, weight_bits=study.weight_bits, bias_bits=66
            ),
        )
        table = self._state / f"{study.name}.csv"
        study.write_csv(table)
        records = clock.time(
            "clinic",
            "read the CSV file, encrypt every record, send ciphertexts, commit to them",
            lambda: clinic.submit(table, model, id_column="id"),
        )
        request = clock.time("clinic", "ask for predictions", lambda: clinic.request(records, model))
        clock.time(
            "server",
            "evaluate under encryption, re-randomise, prove, attest; bundle fetched",
            lambda: clinic.fetch(request, bundle, inputs=True),
            lambda path: path.stat().st_size,
        )
        (verdict,) = clock.time(
            "auditor",
            "verify the bundle with the base install alone: no key, no encryption library",
            lambda: audit(self._state, [bundle], self._log_key),
        )
        if verdict["result"] != "verified":
            raise RuntimeError(f"the honest bundle was refused: {verdict}")
        scores = clock.time(
            "clinic", "verify the bundle again, and only then decrypt", lambda: clinic.open_bundle(bundle, request)
        )
        rows = self._server.exposure(clinic.name, model.reference.index)
        return _compare(study, scores, verdict, clock.steps, rows, bundle)

    def _parties(self, clock: Clock) -> tuple[Owner, Clinic]:
        if self._owner is None:
            self._owner = Owner.init(self._state / "owner", self._url, "heart-lab", log_key=self._log_key)
        if self._clinic is None:
            self._clinic = clock.time(
                "clinic",
                "generate keys and prove, once, that they are honest",
                lambda: Clinic.init(self._state / "clinic", self._url, "st-anna", log_key=self._log_key),
            )
        return self._owner, self._clinic

    def _tamper(self) -> list[Tampering]:
        """Every forgery of the first bundle, all given to one auditor's process."""
        owner, clinic = self.parties
        say("\nNow the dishonest: each forgery is signed with whatever keys its maker would have")
        first = self._folder / f"{studies()[0].name}.sealproof"
        openings = [load_opening(path) for path in (self._state / "owner" / "models").glob("*/opening.json")]
        forger = Forger(
            first,
            ledger_entries(self._server),
            self._state / "forgeries",
            log_signer=Signer.load(self._state / "server" / "log.key"),
            server_key=load_private_key(self._state / "server" / "server.key"),
            owner_key=owner.session.identity.private_key,
            clinic_key=clinic.session.identity.private_key,
            opening=next(opening for opening in openings if opening.name == first.stem),
        )
        return judge(forger.all(), self._state, self._log_key)


def _compare(
    study: Study,
    scores: Scores,
    verdict: dict[str, Any],
    steps: list[Step],
    exposure: list[dict[str, Any]],
    bundle: Path,
) -> StudyReport:
    """Attested answers against the float model and against the truth. Raises if the printed bound does not hold."""
    answers = scores.raw.reveal_raw()[:, 0]
    plain = study.model.predict_raw(study.cohort.values)[:, 0]
    worst, bound = float(np.abs(answers - plain).max()), float(scores.error_bounds[0])
    if worst > bound:
        raise RuntimeError(f"an answer is off by {worst}, the attestation promises {bound}")
    row = exposure[0]
    on_grid = scores.raw.on_grid(scores.grid_bits)[:, 0]  # of what is shown to people, nothing is finer
    shown = [
        PatientRow(
            scores.ids[i],
            float(on_grid[i]),
            study.reading(float(scores.values[i, 0])),
            float(plain[i]),
            study.truth_text(i),
        )
        for i in study.sample
    ]
    sizes = [("bundle, with the encrypted inputs", bundle.stat().st_size)]
    sizes += [(name, size) for name, size in _members(bundle)]
    return StudyReport(
        title=study.title,
        question=study.question,
        patients=len(scores),
        features=study.schema.d,
        quality=study.quality(answers, plain),
        largest_difference=worst,
        bound=bound,
        steps=steps,
        checks=[(c["name"], c["shows"], c["seconds"]) for c in verdict["checks"]],
        sample=shown,
        scores=[(float(a), bool(t)) for a, t in zip(on_grid, study.truth, strict=True)] if study.classifies else [],
        pairs=[] if study.classifies else [(float(a), float(t)) for a, t in zip(on_grid, study.truth, strict=True)],
        exposure=(
            f"These answers released {row['released_bits']:,.0f} bits about a model of {row['model_bits']:,}: a clinic "
            "that combines this many answers of a linear model can work out its weights, and the owner is told so "
            "before agreeing; servers can be told to refuse beyond a limit."
        ),
        bundle=str(bundle),
        sizes=sizes,
    )


def _members(bundle: Path) -> list[tuple[str, int]]:
    from api.entries import Prediction, decode_entry
    from privacy.bundle import BundleReader

    with BundleReader(bundle) as reader:
        bodies = [decode_entry(reader.entry(i)).body for i in reader.entry_indices()]
        prediction = next(body for body in bodies if isinstance(body, Prediction))
        proofs = sum(proof.size for proof in prediction.proofs)
        results = sum(len(reader.blob(d)) for proof in prediction.proofs for d in proof.results)
    return [("evaluation proof", proofs), ("result ciphertexts", results)]
