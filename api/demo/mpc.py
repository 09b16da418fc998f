"""The second part of the demonstration: predictions that clinic and owner compute together (two-party computation).

Three more processes run: a dealer, the clinic's node and the owner's. Records and weights stay in their folders; what
the nodes send each other is proven in zero knowledge, published by the server, and opened by the clinic at the end.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from api.binding import Located
from api.client.clinic import Clinic, PredictionRequest, SubmittedRecords
from api.client.joint_answers import open_joint_answers
from api.client.joint_prediction import VerifiedJointPrediction
from api.client.owner import Owner
from api.client.scores import Scores
from api.client.transport import Server
from api.demo.cheating import tell_cheating
from api.demo.joint_data import JointModel, JointStudy, joint_studies
from api.demo.joint_report import JointModelReport, JointPatient, JointReport, JointStudyReport
from api.demo.joint_tampering import JointForger, JointKeys
from api.demo.page import Tampering
from api.demo.processes import Parties, audit
from api.demo.telling import BOTH_NODES, Clock, judge, ledger_entries, say
from api.entries import Network, Policy
from api.signing import load_private_key
from ledger import Signer
from privacy import attestation
from privacy.models.network_quantise import network_error_bound, reference_network

__all__ = ["JointStory", "warm_up"]

_SHOWN: Final = 8
_PAUSE_SECONDS: Final = 0.05
_REPORT_SECONDS: Final = 10.0


def warm_up() -> None:
    """Hash the generators of this part once, so that nobody's step is timed with it."""
    from privacy.zk.generators import generators

    generators("mpc/hidden", 2048)
    for purpose in (
        "mpc/record",
        "mpc/record-bits",
        "mpc/answer",
        "model/weights",
        "model/bias",
        "network/bits",
        "quadratic/t",
    ):
        generators(purpose, 1)


@dataclass(frozen=True, eq=False)
class _Published:
    """A model of a study, its entry, and where the bundle of its prediction goes."""

    model: JointModel
    entry: Located[Network]
    bundle: Path


@dataclass(frozen=True, eq=False)
class _Predicted:
    """One prediction, verified and opened: what the clinic reads, what the auditor said, what was sent."""

    scores: Scores
    verdict: dict[str, Any]
    sent: int
    received: int
    """Bytes between the nodes, from the clinic's point of view."""
    dealt: int


class JointStory:
    """Tells it, against the server at `url`, with every party's folder under `state`.

    `owner` and `clinic` took part in what was told before; without them both register, and the clinic needs no key.
    """

    def __init__(
        self,
        folder: Path,
        state: Path,
        url: str,
        log_key: str,
        owner: Owner | None = None,
        clinic: Clinic | None = None,
    ) -> None:
        self._folder, self._state, self._log_key = folder, state, log_key
        self._server = Server(url)
        self._owner = owner or Owner.init(state / "owner", url, "heart-lab", log_key=log_key)
        self._clinic = clinic or Clinic.init(state / "clinic", url, "st-anna", log_key=log_key, ckks=False)

    def tell(self) -> JointReport:
        """Every study with both models, the forgeries, and a node that cheats. Raises when anything does not hold."""
        say("\nTogether, by two nodes: neither shows the other what it has, and nothing is encrypted for a server")
        with Parties(self._state) as parties:
            starting = Clock()
            self._start(parties, starting)
            studies = joint_studies()
            told = []
            for study in studies:
                told.append(self._study(study, parties))
                # What the clinic wants to show of these answers to somebody else, it can disclose from here on.
            tamperings = self._tamper(studies[0].models[-1].model.name)
            cheat = tell_cheating(self._state, self._owner, self._clinic, parties, studies[0])
        return JointReport(
            starting=starting.steps,
            studies=told,
            tamperings=tamperings,
            cheat=cheat,
            claims=attestation.JOINT_CLAIMS,
            not_claimed=attestation.JOINT_NOT_CLAIMED,
        )

    def _start(self, parties: Parties, clock: Clock) -> None:
        clock.time("dealer", "start: it will hand out random numbers, and see nothing else", parties.start_dealer)
        parties.start_nodes()
        clock.time("owner's node", "start, with the models' weights in its folder", lambda: parties.ready("owner"))
        clock.time("clinic's node", "start, with the records in its folder", lambda: parties.ready("clinic"))

    # -- one study ----------------------------------------------------------------------------------------------------

    def _study(self, study: JointStudy, parties: Parties) -> JointStudyReport:
        """One data set, from the CSV file to the verified answers of both models."""
        few = study.study
        say(f"\n{few.title}: {len(few.cohort)} patients, {few.schema.d} measurements each")
        clock = Clock()
        published = [self._publish(model, few.card, clock) for model in study.models]
        records = self._commit(study, published, clock)
        predicted = [self._predict(records, one, parties) for one in published]
        compared = [self._compare(study, one, found) for one, found in zip(published, predicted, strict=True)]
        answers = [found.scores for found in predicted]
        return JointStudyReport(
            title=few.title,
            question=few.question,
            patients=len(few.cohort),
            features=few.schema.d,
            steps=clock.steps,
            models=compared,
            sample=[
                JointPatient(
                    few.cohort.ids[i],
                    [few.reading(float(scores.values[i, 0])) for scores in answers],
                    few.truth_text(i),
                )
                for i in range(_SHOWN)
            ],
        )

    def _publish(self, model: JointModel, card: dict[str, str], clock: Clock) -> _Published:
        entry = clock.time(
            "model owner",
            f"quantise, commit to, certify and publish the {model.label}; its weights stay secret",
            lambda: self._owner.publish(model.model, version="1", scheme="mpc", card=card, **model.options),
        )
        return _Published(model, entry, self._folder / f"{model.model.name}.sealproof")

    def _commit(self, study: JointStudy, published: list[_Published], clock: Clock) -> SubmittedRecords:
        table = self._state / f"{study.name}-mpc.csv"
        study.study.write_csv(table)
        allowed = Policy(tuple(one.entry.reference for one in published), None)
        return clock.time(
            "clinic",
            "read the CSV file, commit to every record, prove its ranges; no record is sent",
            lambda: self._clinic.submit(
                table, schema=study.study.schema, scheme="mpc", policy=allowed, id_column="id"
            ),
        )

    def _predict(self, records: SubmittedRecords, published: _Published, parties: Parties) -> _Predicted:
        """Ask, let both nodes compute and prove, audit, and only then open the answers."""
        clinic, bundle, clock = self._clinic, published.bundle, Clock()
        request = clock.time(
            "clinic", f"ask for predictions of the {published.model.label}", lambda: clinic.request(records, published.entry)
        )
        clock.time(BOTH_NODES, "compute on shares that look like noise, and prove it", lambda: self._computed(request))
        clock.time(
            "server",
            "verify the proof, log it, attest; bundle fetched",
            lambda: clinic.fetch(request, bundle),
            lambda path: path.stat().st_size,
        )
        (verdict,) = clock.time(
            "auditor",
            "verify the bundle in a process without any key or encryption library",
            lambda: audit(self._state, [bundle], self._log_key),
        )
        if verdict["result"] != "verified":
            raise RuntimeError(f"the honest bundle was refused: {verdict}")
        scores = clock.time(
            "clinic",
            "verify the bundle again, and only then put both halves of the answers together",
            lambda: clinic.open_bundle(bundle, request),
        )
