"""Disclosures under a grant, of both schemes, made from library calls: requests, grants, statements, proofs, bundles.

Whoever holds the keys of a clinic, a consumer and a server can write what these functions write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from api.binding import Located
from api.client.audit import verify_bundle
from api.client.disclosure_statements import encrypted_statement, joint_statements, result_digests
from api.client.handles import RecordHandles
from api.client.joint_prediction import VerifiedJointPrediction
from api.client.prediction import VerifiedPrediction
from api.consent import GrantDocument, Question, RequestDocument, Scope
from api.entries import Disclosure, Grant, Reference, Request
from privacy.attestation_parts import LedgerReference
from privacy.attestation_shown import Shown, ShownAnswer, sign_shown
from privacy.bundle import BundleReader
from privacy.ckks.canonical import ResultCiphertext, decode_result
from privacy.ckks.disclosure_prover import prove_disclosure
from privacy.mpc.disclosure import disclose_answers
from tests.support import bundles, disclosures
from tests.support.bundles import ISSUED_AT, Actor, World
from tests.support.disclosures import IDS, RECIPIENT, DisclosureStory

UNTIL = "2027-01-02T03:04:05Z"
PURPOSE = "a claim about 'treatment' <b>"
SALT = sha256(b"salt of a grant").digest()


@dataclass(frozen=True)
class Consented:
    """A grant on a log, who asked for it, and the texts behind the entries."""

    grant: Located[Grant]
    document: GrantDocument
    request: Located[Request] | None
    consumer: Actor | None
    blobs: list[bytes]

    @property
    def entries(self) -> list[int]:
        located: list[Any] = [self.grant.reference, self.request and self.request.reference]
        return [one.index for one in (*located, self.consumer and self.consumer.reference) if one is not None]


def consent(
    world: World,
    clinic: Actor,
    prediction: Reference,
    questions: Sequence[Question],
    *,
    consumer: str | None = "health-insurer",
    until: str = UNTIL,
    purpose: str = PURPOSE,
) -> Consented:
    """A consumer asks and the clinic grants all of it; or grants unasked, to whoever gave the nonce."""
    asked = None if consumer is None else world.register("consumer", consumer)  # type: ignore[arg-type]
    scope, wanted = Scope(prediction, None, None), tuple(questions)
    origin = world.signer.name
    request, blobs, digest = None, [], None
    if asked is not None:
        text = RequestDocument(
            "sealproof/request/v1", origin, clinic.reference, asked.reference, scope, purpose, RECIPIENT, wanted
        )
        request = world.append(asked, Request(clinic.reference, text.digest, None))
        digest, blobs = text.digest, [text.encode()]
    document = GrantDocument(
        "sealproof/grant/v1",
        origin,
        clinic.reference,
        None if asked is None else asked.reference,
        digest,
        scope,
        purpose,
        RECIPIENT,
        wanted,
        until,
        SALT,
    )
    body = Grant(None if request is None else request.reference, document.digest, until)
    return Consented(world.append(clinic, body), document, request, asked, [*blobs, document.encode()])


def _sign(
    world: World,
    clinic: Actor,
    found: VerifiedPrediction | VerifiedJointPrediction,
    agreed: Consented,
    answers: tuple[ShownAnswer, ...],
    proof: bytes,
) -> tuple[Located[Disclosure], bytes]:
    """The statement, signed, and its entry."""
    encrypted = isinstance(found, VerifiedPrediction)
    prediction, grant = found.prediction.reference, agreed.grant.reference
    scale = found.prediction.body.error_bound.scale_bits if encrypted else found.answer_scale_bits  # type: ignore[union-attr]
    signed = sign_shown(
        Shown(
            LedgerReference.to(prediction.index, world.log.entry(prediction.index)),
            LedgerReference.to(grant.index, world.log.entry(grant.index)),
            "ckks" if encrypted else "mpc",
            answers,
            scale,
            found.model.body.grid_bits,
            RECIPIENT,
            Shown.proof_reference(proof),
            ISSUED_AT,
        ),
        clinic.private_key,
    )
    entry = world.append(clinic, Disclosure(prediction, sha256(signed).digest(), sha256(proof).digest(), grant))
    return entry, signed


def _answer(handles: RecordHandles, question: Question, value: int, result: bytes) -> ShownAnswer:
    patient = handles.ids.index(question.record)
    return ShownAnswer(
        patient,
        question.output,
        question.versus,
        question.kind,
        value,
        question.tolerance,
        result,
        question.record,
        handles.salts[patient],
        tuple(handles.path(patient)),
    )


@dataclass
class EncryptedStory:
    """A logged prediction on encrypted records that have handles, verified, and its answers in grid steps."""

    story: bundles.Story
    handles: RecordHandles
    prediction: Located[Any]
    envelope: bytes
    verified: VerifiedPrediction
    steps: list[list[int]]

    def disclose(self, path: Path, agreed: Consented) -> Path:
        """Everything that the grant lists, in one proof."""
        story = self.story
        answers = tuple(self._said(question) for question in agreed.document.questions)
        statement = encrypted_statement(self.verified, agreed.grant.reference.leaf, RECIPIENT, answers)
        material = story.key_material
        proof = prove_disclosure(statement, self._result, material.keys.s, material.openings)
        entry, signed = _sign(story.world, story.clinic, self.verified, agreed, answers, proof)
        body = self.prediction.body
        named = [self.prediction.reference, body.records, body.model, body.key, entry.reference]
        indices = {one.index for one in named} | {one.reference.index for one in story.parties} | set(agreed.entries)
        blobs = [*story.blobs, signed, proof, *agreed.blobs]
        return story.bundle(path, self.prediction, self.envelope, blobs, indices=indices)

    def _said(self, question: Question) -> ShownAnswer:
        patient = self.handles.ids.index(question.record)
        digest, _ = result_digests(self.verified, patient, question.output)
        row = self.steps[patient]
        found = row[question.output] - (0 if question.versus is None else row[question.versus])
        return _answer(self.handles, question, question.value if question.kind == "threshold" else found, digest)

    def _result(self, digest: bytes) -> ResultCiphertext:
        with BundleReader(self.verified.path) as reader:
            return decode_result(bundles.PARAMS, reader.blob(digest))


@cache
def model_of_two() -> bundles.ModelMaterial:
    """Two outputs, so that there are differences; one weight is proven to be zero."""
    return bundles.model_material(((0.02, 0.0, 0.9), (-0.01, 0.03, 0.25)))


def encrypted(folder: Path, model: bundles.ModelMaterial | None = None) -> EncryptedStory:
    """Five patients with handles, and a prediction about them on a log."""
    handles = RecordHandles.draw(IDS)
    story = bundles.tell(folder, model=model, records_changes={"handles": handles.root})
    prediction = story.log()
    envelope = story.attest(prediction)
    path = story.bundle(folder / "prediction.sealproof", prediction, envelope)
    verified = verify_bundle(path, story.world.verifier, cache=story.world.cache)
    assert isinstance(verified, VerifiedPrediction)
    grid = 1 << verified.model.body.grid_bits
    raw = [[0.0] * len(verified.output_names) for _ in IDS]
    for result in verified.results():
        for place, value in enumerate(story.key_material.keys.decrypt_unverified(result.ciphertext)):
            raw[result.first_patient + place][result.output] = float(value)
    return EncryptedStory(
        story, handles, prediction, envelope, verified, [[round(value * grid) for value in row] for row in raw]
    )


def disclose_joint(told: DisclosureStory, path: Path, agreed: Consented) -> Path:
    """Everything that the grant lists of a joint prediction; thresholds are reached."""
    world, clinic = told.story.world, told.story.clinic
    before = told.story.bundle(path.with_suffix(".prediction"), told.prediction, told.envelope)
    found = verify_bundle(before, world.verifier, cache=world.cache)
    assert isinstance(found, VerifiedJointPrediction)
    answers, openings = [], []
    for question in agreed.document.questions:
        opening = told.opening(told.handles.ids.index(question.record), question.output)
        nearest = (opening.z + told.step // 2) // told.step
        value = {"open": opening.z, "exact": nearest, "threshold": question.value}[question.kind]
        result = sha256(told.answer(told.handles.ids.index(question.record), question.output)).digest()
        answers.append(_answer(told.handles, question, value, result))
        openings.append(opening)
    statements = joint_statements(found, agreed.grant.reference.leaf, RECIPIENT, answers)
    proof = disclose_answers(statements, openings)
    entry, signed = _sign(world, clinic, found, agreed, tuple(answers), proof)
    return told.bundle(path, entry, [signed, proof, *agreed.blobs], more=agreed.entries)


def joint(folder: Path) -> DisclosureStory:
    """Five patients with handles, and a joint prediction about them on a log."""
    return disclosures.tell(folder)


def threshold(record: str, value: int, output: int = 0) -> Question:
    return Question(record, output, None, "threshold", value, 0)


def exact(record: str, tolerance: int = 1, output: int = 0, versus: int | None = None) -> Question:
    return Question(record, output, versus, "exact", 0, tolerance)


def whole(record: str, output: int = 0) -> Question:
    return replace(threshold(record, 0, output), kind="open")
