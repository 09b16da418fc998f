"""Disclosures made step by step from library calls, so that a test can tell one lie and sign everything again.

Whoever holds the keys of a clinic and of a server can write what these functions write.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from api.binding import Located
from api.client.handles import RecordHandles
from api.entries import CommittedRecords, Disclosure, JointPrediction, Reference
from privacy.attestation_disclosure import Disclosed, sign_disclosure
from privacy.attestation_parts import LedgerReference
from privacy.mpc.answers import AnswerOpening
from privacy.mpc.disclosure import AnswerStatement, Kind, disclose_answer, statement_about
from privacy.mpc.joint_proof import answer_key
from privacy.mpc.records import RecordsStatement, certify_records
from privacy.zk.group import ARKWORKS, ORDER
from tests.support import joint_bundles
from tests.support.bundles import ISSUED_AT, SCHEMA, Actor
from tests.support.joint_bundles import PARAMS, JointStory, RecordsMaterial, commit_cohort

IDS = ("p-40", "p-71", "p-55", "p-18", "p-90")
RECIPIENT = bytes(range(100, 132))


@dataclass(frozen=True, eq=False)
class Handled(RecordsMaterial):
    """A cohort whose patients have handles."""

    handles: RecordHandles

    def body(self, **changes: Any) -> CommittedRecords:
        return super().body(**{"handles": self.handles.root, **changes})


def handled(cohort: RecordsMaterial, handles: RecordHandles) -> Handled:
    """The same commitments, certified with these handles; one batch."""
    count = len(cohort.values)
    statement = RecordsStatement(PARAMS, cohort.clinic, SCHEMA, handles.root, count, 0, cohort.commitments)
    certificate = certify_records(statement, cohort.openings)
    return Handled(cohort.clinic, cohort.values, cohort.commitments, cohort.openings, (certificate,), handles)


@dataclass
class DisclosureStory:
    """A logged joint prediction with its attestation, and what its clinic knows."""

    story: JointStory
    handles: RecordHandles
    prediction: Located[JointPrediction]
    envelope: bytes

    @property
    def outputs(self) -> int:
        return len(self.story.model.body.outputs)

    @property
    def bound(self) -> int:
        return self.story.network.statement.bounds[-1]

    @property
    def step(self) -> int:
        return 1 << (self.story.model.body.answer_scale_bits - self.story.model.body.grid_bits)

    def opening(self, patient: int, output: int = 0) -> AnswerOpening:
        (answers,) = self.story.predicted.answers
        place = patient * self.outputs + output
        return AnswerOpening(answers.z[place], answers.rho[place])

    def answer(self, patient: int, output: int = 0) -> bytes:
        opening = self.opening(patient, output)
        return ARKWORKS.encode(answer_key().commit([opening.z % ORDER], opening.rho))

    def statement(
        self,
        patient: int,
        kind: Kind = "exact",
        *,
        output: int = 0,
        threshold: int = 0,
        tolerance: int = 1,
        **changes: Any,
    ) -> AnswerStatement:
        """A true statement; `changes` make it another one."""
        made = statement_about(
            self.opening(patient, output),
            kind,
            prediction_id=self.prediction.reference.leaf,
            handle=self.handles.handles[patient],
            patient=patient,
            output=output,
            answer=self.answer(patient, output),
            scale_bits=self.story.model.body.answer_scale_bits,
            grid_bits=self.story.model.body.grid_bits,
            bound=self.bound,
            threshold=threshold,
            tolerance=tolerance,
            recipient_nonce=RECIPIENT,
        )
        return replace(made, **changes)

    def prove(self, statement: AnswerStatement) -> bytes:
        return disclose_answer(statement, self.opening(statement.patient, statement.output))

    def disclosed(self, statement: AnswerStatement, proof: bytes, /, **changes: Any) -> Disclosed:
        """What an honest clinic signs of a statement; `changes` are its lies."""
        patient, named = statement.patient, self.prediction.reference
        made = Disclosed(
            prediction=changes.pop("prediction", None) or self.reference_of(named),
            scheme="mpc",
            kind=statement.kind,
            patient=patient,
            output=statement.output,
            answer=statement.answer,
            value=statement.value,
            tolerance=statement.tolerance,
            scale_bits=statement.scale_bits,
            grid_bits=statement.grid_bits,
            record_id=IDS[patient],
            salt=self.handles.salts[patient],
            path=tuple(self.handles.path(patient)),
            recipient_nonce=statement.recipient_nonce,
            proof=Disclosed.proof_reference(proof),
            issued_at=ISSUED_AT,
        )
        return replace(made, **changes)

    def reference_of(self, to: Reference) -> LedgerReference:
        return LedgerReference.to(to.index, self.story.world.log.entry(to.index))

    def sign(self, disclosed: Disclosed, author: Actor | None = None) -> bytes:
        return sign_disclosure(disclosed, (author or self.story.clinic).private_key)

    def log(self, signed: bytes, proof: bytes, author: Actor | None = None, **changes: Any) -> Located[Disclosure]:
        body = Disclosure(self.prediction.reference, sha256(signed).digest(), sha256(proof).digest())
        return self.story.world.append(author or self.story.clinic, replace(body, **changes))

    def bundle(
        self,
        path: Path,
        entry: Located[Disclosure],
        blobs: Iterable[bytes],
        parties: Iterable[Actor] = (),
        more: Iterable[int] = (),
    ) -> Path:
        """The prediction's bundle with one entry and the blobs of a disclosure more."""
        story = self.story
        located = [self.prediction, story.records, story.model, entry]
        indices = {one.reference.index for one in located} | set(more)
        indices |= {actor.reference.index for actor in (*story.parties, *parties)}
        return story.bundle(path, self.prediction, self.envelope, [*story.blobs, *blobs], indices)

    def disclose(self, path: Path, statement: AnswerStatement, proof: bytes | None = None, /, **changes: Any) -> Path:
        """All of it: prove if no proof is given, sign with these changes, log, bundle."""
        proof = self.prove(statement) if proof is None else proof
        signed = self.sign(self.disclosed(statement, proof, **changes))
        return self.bundle(path, self.log(signed, proof), [signed, proof])


def tell(folder: Path, network: str = "linear") -> DisclosureStory:
    """Five patients with handles, a network, and a logged prediction about them."""
    handles = RecordHandles.draw(IDS)
    story = joint_bundles.tell(folder, network=network, cohort=handled(commit_cohort(joint_bundles.PATIENTS), handles))
    prediction = story.log()
    return DisclosureStory(story, handles, prediction, story.attest(prediction))


def second_prediction(told: DisclosureStory) -> DisclosureStory:
    """Another prediction of the same network about the same records, on the same log."""
    story = replace(told.story)
    story.predicted = told.story.predict(session=sha256(b"another session").digest())
    prediction = story.log()
    return DisclosureStory(story, told.handles, prediction, story.attest(prediction))
