"""The second part of the demonstration: predictions that clinic and owner compute together (two-party computation).

Three more processes run: a dealer, the clinic's node and the owner's. Records and weights stay in their folders; what
the nodes send each other is proven in zero knowledge, published by the server, and opened by the clinic at the end.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
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
from api.demo.cheating import CheatingScene
from api.demo.disclosing import disclose_one
from api.demo.joint_data import JointModel, JointStudy, joint_studies
from api.demo.joint_report import CheatReport, JointModelReport, JointPatient, JointReport, JointStudyReport
from api.demo.joint_tampering import JointForger, JointKeys
from api.demo.page import Step, Tampering
from api.demo.processes import Parties, audit
from api.demo.telling import BOTH_NODES, Clock, judge, ledger_entries, say
from api.entries import Network, Policy
from api.signing import load_private_key
from ledger import Signer
from privacy import attestation
from privacy.models.network_quantise import network_error_bound, reference_network

__all__ = ["tell_together", "warm_up"]

_PAUSE_SECONDS: Final = 0.05


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
    """One prediction, verified and opened: what the clinic reads, what the auditor said, and what was sent."""

    scores: Scores
    verdict: dict[str, Any]
    steps: Sequence[Step]
    sent: int
    received: int
    """Bytes between the nodes, as the clinic's sees it."""
    dealt: int


def tell_together(
    folder: Path, state: Path, url: str, log_key: str, parties: tuple[Owner, Clinic] | None = None
) -> JointReport:
    """Both studies, the forgeries, and a node that cheats. Raises when anything honest does not hold.

    Every party has a folder under `state`; bundles go to `folder`. `parties` took part in what was told before, at the
    server at `url`; without them both register, and the clinic needs no key.
    """
    say("\nComputed together: records stay with the clinic, weights with the model owner, and neither is sent")
    clock = Clock()
    if parties is None:
        owner = clock.time(
            "model owner", "register", lambda: Owner.init(state / "owner", url, "heart-lab", log_key=log_key)
        )
        clinic = clock.time(
            "clinic",
            "register; it needs no encryption key",
            lambda: Clinic.init(state / "clinic", url, "st-anna", log_key=log_key, ckks=False),
        )
        parties = owner, clinic
    with Parties(state) as processes:
        return _Story(folder, state, log_key, *parties, processes, clock).tell()


class _Story:
    def __init__(
        self,
        folder: Path,
        state: Path,
        log_key: str,
        owner: Owner,
        clinic: Clinic,
        processes: Parties,
        clock: Clock,
    ) -> None:
        self._folder, self._state, self._log_key = folder, state, log_key
        self._owner, self._clinic = owner, clinic
        self._processes = processes
        self._starting = clock
        self._server = clinic.session.server

    def tell(self) -> JointReport:
        self._start(self._starting)
        studies = joint_studies()
        told = [self._tell(study) for study in studies]
        shown = disclose_one(
            self._clinic,
            self._folder / f"{studies[0].models[-1].model.name}.sealproof",
            self._state,
            self._folder / "insurer-disclosure.sealproof",
            self._log_key,
        )
        tamperings = self._tamper(studies[0].models[-1].model.name)
        cheat = self._cheat(studies[0])
        return JointReport(
            starting=self._starting.steps,
            studies=told,
            tamperings=tamperings,
            cheat=cheat,
            disclosure=shown,
            claims=attestation.JOINT_CLAIMS,
            not_claimed=attestation.JOINT_NOT_CLAIMED,
        )

    def _start(self, clock: Clock) -> None:
        processes = self._processes
        clock.time("dealer", "start; it will hand out random numbers and see nothing else", processes.start_dealer)
        clock.time(BOTH_NODES, "start, each beside what must stay: records, weights", processes.start_nodes)

    # -- one study ----------------------------------------------------------------------------------------------------

    def _tell(self, study: JointStudy) -> JointStudyReport:
        """One data set, from the CSV file to the verified answers of both models."""
        few, clock = study.study, Clock()
        say(f"\n{few.title}: {len(few.cohort)} patients, {few.schema.d} measurements each")
        published = [self._publish(model, few.card, clock) for model in study.models]
        records = self._commit(study, published, clock)
        found = [self._predict(records, one) for one in published]
        return JointStudyReport(
            title=few.title,
            question=few.question,
            patients=len(few.cohort),
            features=few.schema.d,
            steps=clock.steps,
            models=[self._compare(study, *pair) for pair in zip(published, found, strict=True)],
            sample=[
                JointPatient(
                    few.cohort.ids[i],
                    [few.reading(float(one.scores.values[i, 0])) for one in found],
                    few.truth_text(i),
                )
                for i in few.sample
            ],
        )

    def _publish(self, model: JointModel, card: dict[str, str], clock: Clock) -> _Published:
        entry = clock.time(
            "model owner",
            f"quantise, commit to, certify and publish the {model.label}; its weights stay secret",
            lambda: self._owner.publish(
                model.model,
                version="1",
                scheme="mpc",
                card=card,
                weight_scale_bits=model.scale_bits,
                weight_range_bits=model.range_bits,
                bias_range_bits=model.bias_bits,
            ),
        )
        return _Published(model, entry, self._folder / f"{model.model.name}.sealproof")

    def _commit(self, study: JointStudy, published: Sequence[_Published], clock: Clock) -> SubmittedRecords:
        path = self._state / f"{study.study.name}-mpc.csv"
        study.study.write_csv(path)
        allowed = Policy(tuple(one.entry.reference for one in published), None)
        return clock.time(
            "clinic",
            "read the CSV file, commit to every record, prove its ranges; no record is sent",
            lambda: self._clinic.submit(path, schema=study.study.schema, scheme="mpc", policy=allowed, id_column="id"),
        )

    def _predict(self, records: SubmittedRecords, published: _Published) -> _Predicted:
        """Ask, let both nodes compute and prove, audit, and only then open the answers."""
        clinic, bundle, clock = self._clinic, published.bundle, Clock()
        request = clock.time(
            "clinic",
            f"ask for predictions of the {published.model.label}",
            lambda: clinic.request(records, published.entry),
        )
        clock.time(BOTH_NODES, "compute on shares that look like noise, and prove it", lambda: self._wait(request))
        clock.time(
            "server",
            "verify the proof, log and attest the prediction; bundle fetched",
            lambda: clinic.fetch(request, bundle),
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
            "clinic",
            "verify the bundle again, and only then put both halves of the answers together",
            lambda: clinic.open_bundle(bundle, request),
        )
        return _Predicted(scores, verdict, clock.steps, *_traffic(self._processes, request, scores))

    def _wait(self, request: PredictionRequest) -> None:
        """Until the nodes have delivered, or have given up: then the next step says why."""
        while self._clinic.state(request).state == "computing":
            self._processes.check_alive()
            time.sleep(_PAUSE_SECONDS)

    def _compare(self, study: JointStudy, published: _Published, found: _Predicted) -> JointModelReport:
        """Answers against the integers of the committed model, the float model and the truth."""
        few, model, scores = study.study, published.model, found.scores
        answers, plain = scores.raw.on_grid(scores.grid_bits)[:, 0], model.plain(few.cohort.values)[:, 0]
        worst = self._check(study, model, scores)
        (row,) = self._server.exposure(self._clinic.name, published.entry.reference.index)
        proof = sum(proof.size for proof in _joint(scores).prediction.body.proofs)
        return JointModelReport(
            title=f"{few.title.partition(':')[0]}: {model.label}",
            label=model.label,
            patients=len(scores),
            features=few.schema.d,
            quality=few.quality(answers, plain),
            largest_difference=worst,
            bound=float(scores.error_bounds[0]),
            steps=found.steps,
            checks=[(c["name"], c["shows"], c["seconds"]) for c in found.verdict["checks"]],
            scores=[(float(a), bool(t)) for a, t in zip(answers, few.truth, strict=True)] if few.classifies else [],
            pairs=[] if few.classifies else [(float(a), float(t)) for a, t in zip(answers, few.truth, strict=True)],
            seconds=sum(step.seconds for step in found.steps if step.actor == BOTH_NODES),
            between=found.sent + found.received,
            exposure=_exposure(model, row),
            bundle=str(published.bundle),
            sizes=[
                ("bundle", published.bundle.stat().st_size),
                ("proof in it", proof),
                ("from the clinic's node to the owner's", found.sent),
                ("from the owner's node to the clinic's", found.received),
                ("random numbers from the dealer", found.dealt),
            ],
        )

    def _check(self, study: JointStudy, model: JointModel, scores: Scores) -> float:
        """The largest difference from the float model. Raises unless every answer is exactly the committed model's."""
        values = study.study.cohort.values
        opened = [opening.z for opening in open_joint_answers(self._clinic.session.folder, None, _joint(scores))]
        if opened != [z for patient in reference_network(model.quantised, values) for z in patient]:
            raise RuntimeError(f"an answer is not the integer that the {model.label} gives for this record")
        worst = float(np.abs(scores.raw.reveal_raw() - model.plain(values)).max())
        promised = network_error_bound(model.quantised)
        if scores.error_bounds != promised or worst > promised[0]:
            raise RuntimeError(f"an answer is off by {worst}, promised are {float(promised[0])}")
        return worst

    # -- the dishonest ------------------------------------------------------------------------------------------------

    def _tamper(self, name: str) -> list[Tampering]:
        """Every forgery of the bundle of model `name`, all given to one auditor's process."""
        say("\nNow the dishonest again: even owner, clinic and server together do not get a false answer accepted")
        data = self._state / "server"
        keys = JointKeys(
            Signer.load(data / "log.key"),
            load_private_key(data / "server.key"),
            self._owner.session.identity.private_key,
            self._clinic.session.identity.private_key,
        )
        forger = JointForger(
            self._folder / f"{name}.sealproof",
            ledger_entries(self._server),
            self._state / "joint-forgeries",
            keys,
            self._owner.network_rows(name),
        )
        return judge(forger.all(), self._state, self._log_key)

    def _cheat(self, study: JointStudy) -> CheatReport:
        """A live scene with the linear model of a study."""
        model = study.models[0]
        entry = self._owner.session.model(model.model.name)
        records = next(mine for mine in self._clinic.records() if mine.committed)
        scene = CheatingScene(self._owner, self._clinic, self._processes, records, entry)
        return scene.tell(lambda scores: self._check(study, model, scores))


def _joint(scores: Scores) -> VerifiedJointPrediction:
    if not isinstance(scores.verified, VerifiedJointPrediction):
        raise TypeError("the scores are not of a joint prediction")  # unreachable: networks have no other predictions
    return scores.verified


def _traffic(processes: Parties, request: PredictionRequest, scores: Scores) -> tuple[int, int, int]:
    """Bytes that the clinic's node sent and received, and that the dealer dealt, by their own logs."""
    session = _joint(scores).prediction.body.session.hex()[:16]
    told = processes.clinic.find(rf"job {request.job}: proven; (\d+) bytes sent, (\d+) received", "word of its session")
    dealt = processes.dealer.find(rf"session {session} .* (\d+) bytes dealt", "word of the session")
    return int(told[1]), int(told[2]), int(dealt[1])


def _exposure(model: JointModel, row: dict[str, Any]) -> str:
    told = f"These answers are exact and told the clinic at most {row['released_bits']:,.0f} bits about a model of "
    told += f"{row['model_bits']:,}"
    if row["recoverable"]:
        return f"{told}: a clinic with so many answers of a {model.label} may work out its weights. {_TOLD}"
    return f"{told}: not enough to work out its weights. {_TOLD}"


_TOLD: Final = "The owner is told so before agreeing, and its node refuses beyond a limit of the owner's choice."
