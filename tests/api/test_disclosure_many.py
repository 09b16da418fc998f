"""Disclosures of a hundred answers, of predictions with several blocks, proofs and outputs, from request to collection.

Positions follow from packing and place: a mistake in that arithmetic would show one patient's answer as another's, and
with one block nobody would see it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from api.client import disclosure, disclosure_statements
from api.client.clinic import Clinic
from api.client.consumer import Consumer
from api.client.handles import RecordHandles
from api.client.questions import question_of
from api.client.raw_answers import RawAnswers
from api.client.session import LocatedModel
from api.client.shown import ShownFact, VerifiedDisclosure
from api.consent import Question
from privacy.bundle import BundleReader
from privacy.ckks.packing import Packing, capacity
from privacy.errors import VerificationFailed
from privacy.models.linear import LinearModel
from privacy.mpc.answers import AnswerOpening
from tests.support import joint_bundles, shown
from tests.support.bundles import PARAMS, SCHEMA
from tests.support.disclosures import DisclosureStory
from tests.support.service import RunningServer, listening
from tests.support.shown import JointlyStory

COUNT, FULL = 2 * 1365 + 70, 1365
EDGES = [0, 1, FULL - 1, FULL, FULL + 1, 2 * FULL - 1, 2 * FULL, COUNT - 1]
"""The first and the last patients of three blocks."""

WEIGHTS = np.array([[0.02, -0.05, 0.9], [0.01, 0.02, -0.5], [-0.03, 0.01, 0.1]])
MODEL = LinearModel("several", WEIGHTS, np.array([-0.25, 0.1, 0.2]), ("low", "middle", "high"), "identity", SCHEMA)
IDS = [f"p{number}" for number in range(COUNT)]
VALUES = np.column_stack(
    [
        np.arange(COUNT) % 121,
        10 + 50 * ((np.arange(COUNT) * 7919) % 1009) / 1009,
        np.arange(COUNT) // 3 % 2,
    ]
).astype(float)
RAW = MODEL.predict_raw(VALUES)


@dataclass
class Shelf:
    clinic: Clinic
    consumer: Consumer
    model: LocatedModel
    records: int
    bundle: Path


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """Three blocks in `rows` packing; a proof covers six results at most, so two of the blocks, and one the last."""
    folder = tmp_path_factory.mktemp("many")
    with (
        listening(folder / "server", instances_per_proof=6) as server,
        server.owner(folder / "owner") as owner,
        server.clinic(folder / "clinic") as clinic,
        _consumer(server, folder) as consumer,
    ):
        model = owner.publish(MODEL, version="1")
        records = clinic.submit(SCHEMA.cohort(VALUES, IDS), model, packing="rows")
        bundle = clinic.fetch(clinic.request(records, model), inputs=True, timeout=60)
        yield Shelf(clinic, consumer, model, records.index, bundle)


def _consumer(server: RunningServer, folder: Path) -> Consumer:
    return Consumer.init(folder / "consumer", server.url, "acme-life", log_key=server.log_key, client=server.client)


def _through(shelf: Shelf, questions: list[Question], path: Path) -> VerifiedDisclosure:
    """Asked, granted, shown, collected."""
    asked = shelf.consumer.request(shelf.clinic.name, questions, purpose="a study", model=shelf.model)
    shelf.clinic.disclose(shelf.clinic.grant(asked.index).index)
    return shelf.consumer.collect(asked, path)


def _raw(fact: ShownFact) -> float:
    """What the float model says of the record that a fact names."""
    row = RAW[int(fact.record_id[1:])]
    return float(row[fact.output] - (0 if fact.versus is None else row[fact.versus]))


def test_blocks_are_as_large_as_the_test_says(shelf: Shelf) -> None:
    assert capacity(PARAMS, Packing.ROWS, SCHEMA.d) == FULL
    verified = shelf.clinic.open_bundle(shelf.bundle).verified
    assert [(proof.first_block, proof.blocks, proof.count) for proof in verified.prediction.body.proofs] == [  # type: ignore[union-attr]
        (0, 2, FULL),
        (2, 1, 70),
    ]


def test_a_hundred_answers_of_three_blocks_are_those_of_their_patients(shelf: Shelf, tmp_path: Path) -> None:
    """Single outputs and differences, exact and as thresholds, of the first and last patients of every block."""
    questions = []
    for patient in EDGES:
        for output, versus in ((0, None), (1, None), (2, None), (0, 1), (2, 1), (2, 0)):
            about = {"output": output, "versus": versus}
            raw = float(RAW[patient, output] - (0 if versus is None else RAW[patient, versus]))
            questions.append(question_of(shelf.model, IDS[patient], kind="exact", **about))  # type: ignore[arg-type]
            questions.append(
                question_of(shelf.model, IDS[patient], kind="threshold", threshold=raw - 1 / 32, **about)  # type: ignore[arg-type]
            )
    questions += [
        question_of(shelf.model, IDS[patient], kind="exact", tolerance=0.25, output="middle")
        for patient in (100, 1500, 2000, 2735)
    ]
    assert len(questions) == 100
    found = _through(shelf, questions, tmp_path / "many.sealproof")
    assert len(found.facts) == 100
    for fact in found.facts:
        assert fact.patient == int(fact.record_id[1:])
        raw, at = _raw(fact), fact.value / 64
        if fact.kind == "exact":
            assert abs(raw - at) <= fact.tolerance / 64 / 2 + 1 / 256
        else:
            assert at - 1 / 256 <= raw <= at + 1 / 16
    with BundleReader(tmp_path / "many.sealproof") as reader:
        assert len(reader.blob(found.entry.body.proof)) < 130_000  # 91 kB for one answer


def test_neighbours_across_a_block_are_not_confused(shelf: Shelf, tmp_path: Path) -> None:
    """An off-by-one of block or place would show the neighbour's answer, which is another one."""
    for first, second in itertools.pairwise(EDGES):
        if second - first == 1:
            assert abs(RAW[first] - RAW[second]).max() > 1 / 8
    questions = [
        question_of(shelf.model, IDS[patient], kind="exact", output=2, versus=0, tolerance=1 / 64)
        for patient in (FULL - 2, FULL + 2, 2 * FULL - 2, 2 * FULL + 1)
    ]
    found = _through(shelf, questions, tmp_path / "edges.sealproof")
    assert all(abs(_raw(fact) - fact.value / 64) <= 1 / 64 for fact in found.facts)


@pytest.mark.parametrize("lie", ["shown and proven", "proven alone"])
def test_the_answer_at_the_same_place_of_another_block_is_refused(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    """The same coefficient of another result of the same proof: a clinic shows the first block's as the second's."""
    honest, patient = disclosure_statements.result_digests, FULL + 200 + len(lie)
    asked = shelf.consumer.request(
        shelf.clinic.name,
        [question_of(shelf.model, IDS[patient], kind="exact")],
        purpose="a study",
        model=shelf.model,
    )
    held = shelf.clinic.grant(asked.index)
    with monkeypatch.context() as patch:

        def other(prediction: Any, patient: int, output: int) -> tuple[bytes, int]:
            return honest(prediction, patient - FULL, output)

        nearest = RawAnswers.nearest
        patch.setattr(RawAnswers, "nearest", lambda raw, patient, *rest: nearest(raw, patient - FULL, *rest))
        patch.setattr(disclosure_statements, "result_digests", other)
        if lie == "shown and proven":
            patch.setattr(disclosure, "result_digests", other)
        shelf.clinic.disclose(held.index)
    with pytest.raises(VerificationFailed) as refused:
        shelf.consumer.collect(asked, tmp_path / "no.sealproof")
    assert refused.value.check == ("disclosure.answer" if lie == "shown and proven" else "linear.form")
    assert not (tmp_path / "no.sealproof").exists()


def test_a_hundred_committed_answers_of_two_proofs_are_those_of_their_patients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A joint proof covers 64 patients: the others are in a second one."""
    four = ([[0.02, -0.05, 0.9], [0.01, 0.02, -0.5], [-0.03, 0.01, 0.1], [0.01, 0.0, 0.3]], [-0.25, 0.1, 0.2, 0.0])
    monkeypatch.setitem(joint_bundles.NETWORKS, "four", (four,))
    monkeypatch.setattr(shown, "IDS", IDS)
    told = _seventy(tmp_path)
    assert [proof.count for proof in told.prediction.body.proofs] == [64, 6]
    places = [(output, None) for output in range(4)] + list(itertools.combinations(range(4), 2))
    kinds = itertools.cycle(("exact", "threshold", "open"))
    answers = [
        told.answer(patient, next(kinds), output=output, versus=versus, tolerance=3)
        for patient in (0, 1, 31, 32, 62, 63, 64, 65, 68, 69)
        for output, versus in places
    ]
    assert len(answers) == 100
    found = told.verify(told.disclose(tmp_path / "many.sealproof", *answers))
    model = joint_bundles.network_material("four").network
    raw = model.predict_raw(VALUES[:70])
    for fact, answer in zip(found.facts, answers, strict=True):
        row = raw[fact.patient]
        expected = float(row[fact.output] - (0 if fact.versus is None else row[fact.versus]))
        assert (fact.record_id, fact.value) == (IDS[fact.patient], answer.value)
        high = math.inf if fact.high is None else float(fact.high)
        assert float(fact.low) - 1e-3 <= expected <= high + 1e-3


def _seventy(folder: Path) -> JointlyStory:
    handles = RecordHandles.draw(IDS[:70])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joint_bundles, "HANDLES", handles.root)
        cohort = joint_bundles.commit_cohort(VALUES[:70])
        story = joint_bundles.tell(folder, network="four", cohort=cohort)
    prediction = story.log()
    return JointlyStory(_Batches(story, handles, prediction, story.attest(prediction)), folder)


class _Batches(DisclosureStory):
    """Openings of more than one proof."""

    def opening(self, patient: int, output: int = 0) -> AnswerOpening:
        z = [z for answers in self.story.predicted.answers for z in answers.z]
        rho = [rho for answers in self.story.predicted.answers for rho in answers.rho]
        place = patient * self.outputs + output
        return AnswerOpening(z[place], rho[place])
