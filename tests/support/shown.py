"""Requests, grants and disclosures of both schemes, made step by step from library calls, so that a test can tell one
lie and sign everything again.

Whoever holds the keys of a consumer, a clinic and a server can write what these functions write.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from api.binding import Located
from api.client.audit import verify_bundle
from api.client.disclosure_statements import encrypted_statement, joint_statements
from api.client.handles import RecordHandles
from api.client.joint_prediction import VerifiedJointPrediction
from api.client.prediction import VerifiedPrediction
from api.client.shown import VerifiedDisclosure
from api.consent import GrantDocument, Question, RequestDocument, Scope
from api.entries import Disclosure, Grant, Reference, Request, Revocation
from privacy.attestation_parts import LedgerReference
from privacy.attestation_shown import Shown, ShownAnswer, sign_shown
from privacy.ckks.canonical import ResultCiphertext, decode_result
from privacy.ckks.disclosure import DisclosureStatement
from privacy.ckks.disclosure_prover import prove_disclosure
from privacy.ckks.packing import Packing
from privacy.ckks.polynomial import negacyclic_multiply_mod
from privacy.mpc.answers import AnswerOpening
from privacy.mpc.disclosure import disclose_answers
from privacy.zk.group import ORDER
from tests.support import bundles, disclosures
from tests.support.bundles import ISSUED_AT, ORIGIN, PARAMS, Actor, ModelMaterial, Story, World
from tests.support.disclosures import IDS, DisclosureStory

NONCE = bytes(range(100, 132))
PURPOSE = "life insurance, policy 7"
UNTIL = "2026-02-01T00:00:00Z"
SALT = bytes(range(200, 232))
TWO = ((0.02, 0.01, 0.9), (-0.01, 0.03, -0.5))
"""Weights of a model with two outputs."""


@dataclass
class Parts:
    """All that one disclosure is made of. A test replaces what it lies about."""

    request: Located[Request] | None
    request_document: RequestDocument | None
    grant: Located[Grant]
    grant_document: GrantDocument
    shown: Shown
    signed: bytes
    proof: bytes
    entry: Located[Disclosure]
    also: list[Actor] = field(default_factory=list)

    @property
    def documents(self) -> list[bytes]:
        documents = (self.grant_document, self.request_document)
        return [document.encode() for document in documents if document is not None]


class ShownStory:
    """A logged prediction with its attestation, what its clinic knows, and a consumer. One class for each scheme."""

    scheme: Any
    outputs: int
    story: Any
    handles: RecordHandles
    prediction: Located[Any]
    envelope: bytes
    consumer: Actor
    folder: Path

    @property
    def world(self) -> World:
        world: World = self.story.world
        return world

    @property
    def clinic(self) -> Actor:
        clinic: Actor = self.story.clinic
        return clinic

    @property
    def _named(self) -> list[Reference]:
        """Entries of the prediction."""
        raise NotImplementedError

    def raw(self, patient: int, output: int = 0) -> int:
        """The answer in units of 2^-scale_bits: its decryption, or what is committed."""
        raise NotImplementedError

    def result(self, patient: int, output: int) -> bytes:
        raise NotImplementedError

    def prove(self, answers: Sequence[ShownAnswer], grant: bytes, nonce: bytes = NONCE) -> bytes:
        raise NotImplementedError

    @cached_property
    def verified(self) -> Any:
        """The prediction, as everybody can verify it."""
        path = self.story.bundle(self.folder / "prediction.sealproof", self.prediction, self.envelope)
        return verify_bundle(path, self.world.verifier, cache=self.world.cache)

    @property
    def grid_bits(self) -> int:
        bits: int = self.story.model.body.grid_bits
        return bits

    @property
    def scale_bits(self) -> int:
        raise NotImplementedError

    @property
    def step(self) -> int:
        return 1 << (self.scale_bits - self.grid_bits)

    @property
    def error(self) -> Fraction:
        found = self.verified
        return found.evaluation_error if isinstance(found, VerifiedPrediction) else Fraction(0)

    # -- what is said --------------------------------------------------------------------------------------------------

    def answer(
        self,
        patient: int,
        kind: Any = "threshold",
        *,
        output: int = 0,
        versus: int | None = None,
        threshold: int | None = None,
        tolerance: int = 1,
        **changes: Any,
    ) -> ShownAnswer:
        """Something true: by default, the largest threshold that the answer reaches. `changes` are lies."""
        raw = self.raw(patient, output) - (0 if versus is None else self.raw(patient, versus))
        reached = raw // self.step if threshold is None else threshold
        values = {"threshold": reached, "exact": (raw + self.step // 2) // self.step, "open": raw}
        made = ShownAnswer(
            patient=patient,
            output=output,
            versus=versus,
            kind=kind,
            value=values[kind],
            tolerance=tolerance if kind == "exact" else 0,
            result=self.result(patient, output),
            record_id=IDS[patient],
            salt=self.handles.salts[patient],
            path=tuple(self.handles.path(patient)),
        )
        return replace(made, **changes)

    # -- documents and entries -----------------------------------------------------------------------------------------

    @property
    def scope(self) -> Scope:
        return Scope(self.prediction.reference, None, None)

    def request_document(self, questions: Iterable[Question], /, **changes: Any) -> RequestDocument:
        made = RequestDocument(
            "sealproof/request/v1",
            ORIGIN,
            self.clinic.reference,
            self.consumer.reference,
            self.scope,
            PURPOSE,
            NONCE,
            tuple(questions),
        )
        return replace(made, **changes)

    def grant_document(
        self, asked: RequestDocument | None, questions: Iterable[Question], /, **changes: Any
    ) -> GrantDocument:
        made = GrantDocument(
            format="sealproof/grant/v1",
            origin=ORIGIN,
            clinic=self.clinic.reference,
            consumer=None if asked is None else asked.consumer,
            request=None if asked is None else asked.digest,
            scope=self.scope if asked is None else asked.scope,
            purpose=PURPOSE if asked is None else asked.purpose,
            nonce=NONCE if asked is None else asked.nonce,
            questions=tuple(questions),
            until=UNTIL,
            salt=SALT,
        )
        return replace(made, **changes)

    def log_request(
        self, document: RequestDocument, /, author: Actor | None = None, **changes: Any
    ) -> Located[Request]:
        body = Request(self.clinic.reference, document.digest, None)
        return self.world.append(author or self.consumer, replace(body, **changes))

    def log_grant(
        self, document: GrantDocument, request: Reference | None, /, author: Actor | None = None, **changes: Any
    ) -> Located[Grant]:
        body = Grant(request, document.digest, document.until)
        return self.world.append(author or self.clinic, replace(body, **changes))

    def revoke(self, target: Reference, author: Actor) -> Located[Revocation]:
        return self.world.append(author, Revocation(target, "changed my mind"))

    def reference_of(self, to: Reference) -> LedgerReference:
        return LedgerReference.to(to.index, self.world.log.entry(to.index))

    def shown(self, answers: Sequence[ShownAnswer], grant: Reference, proof: bytes, /, **changes: Any) -> Shown:
        """What an honest clinic signs; `changes` are its lies."""
        made = Shown(
            prediction=self.reference_of(self.prediction.reference),
            grant=self.reference_of(grant),
            scheme=self.scheme,
            answers=tuple(answers),
            scale_bits=self.scale_bits,
            grid_bits=self.grid_bits,
            recipient_nonce=NONCE,
            proof=Shown.proof_reference(proof),
            issued_at=ISSUED_AT,
        )
        return replace(made, **changes)

    def log_disclosure(
        self, signed: bytes, proof: bytes, grant: Reference | None, /, author: Actor | None = None, **changes: Any
    ) -> Located[Disclosure]:
        body = Disclosure(self.prediction.reference, sha256(signed).digest(), sha256(proof).digest(), grant)
        return self.world.append(author or self.clinic, replace(body, **changes))

    # -- all of it -----------------------------------------------------------------------------------------------------

    def parts(
        self,
        *answers: ShownAnswer,
        proven: Sequence[ShownAnswer] | None = None,
        proven_for: bytes = NONCE,
        asked: bool = True,
        questions: Sequence[Question] | None = None,
        granted: Sequence[Question] | None = None,
        request: dict[str, Any] | None = None,
        request_entry: dict[str, Any] | None = None,
        grant: dict[str, Any] | None = None,
        grant_entry: dict[str, Any] | None = None,
        shown: dict[str, Any] | None = None,
        entry: dict[str, Any] | None = None,
        before_grant: Any = None,
        before_entry: Any = None,
    ) -> Parts:
        """Ask, grant, prove, sign and log; every dict of changes is a lie told at that step.

        `proven`: answers that are proven instead of those that are said. `asked=False`: the grant answers no request.
        `before_grant` and `before_entry` are called with the references of request and grant, to log something then.
        """
        wanted = [question_of(answer) for answer in answers] if questions is None else questions
        document = self.request_document(wanted, **(request or {})) if asked else None
        logged = None if document is None else self.log_request(document, **(request_entry or {}))
        if before_grant is not None:
            before_grant(logged and logged.reference)
        consent = self.grant_document(document, wanted if granted is None else granted, **(grant or {}))
        grant_changes = dict(grant_entry or {})
        answered = grant_changes.pop("request", logged and logged.reference)
        given = self.log_grant(consent, answered, **grant_changes)
        if before_entry is not None:
            before_entry(given.reference)
        proof = self.prove(answers if proven is None else proven, given.reference.leaf, proven_for)
        made = self.shown(answers, given.reference, proof, **(shown or {}))
        signed = sign_shown(made, self.clinic.private_key)
        entry_changes = dict(entry or {})
        under = entry_changes.pop("grant", given.reference)
        disclosure = self.log_disclosure(signed, proof, under, **entry_changes)
        return Parts(logged, document, given, consent, made, signed, proof, disclosure)

    def bundle(
        self, path: Path, parts: Parts, blobs: Iterable[bytes] | None = None, indices: Iterable[int] = ()
    ) -> Path:
        """The prediction's bundle with the entries and blobs of a disclosure; `blobs` instead of its own."""
        consumers = [self.consumer] if parts.request is not None else []
        actors = [*self.story.parties, *consumers, *parts.also]
        more = [parts.grant.reference, parts.entry.reference, *(a.reference for a in actors)]
        more += [parts.request.reference] if parts.request is not None else []
        chosen = [parts.signed, parts.proof, *parts.documents] if blobs is None else list(blobs)
        return Path(
            self.story.bundle(
                path,
                self.prediction,
                self.envelope,
                list(dict.fromkeys([*self.story.blobs, *chosen])),
                indices={reference.index for reference in (*self._named, *more)} | set(indices),
            )
        )

    def disclose(self, path: Path, *answers: ShownAnswer, **lies: Any) -> Path:
        """All of it in a file; see `parts`."""
        return self.bundle(path, self.parts(*answers, **lies))

    def verify(self, path: Path, nonce: bytes | None = NONCE, **options: Any) -> VerifiedDisclosure:
        found = verify_bundle(
            path, options.pop("trust", self.world.verifier), cache=self.world.cache, recipient_nonce=nonce, **options
        )
        assert isinstance(found, VerifiedDisclosure)
        return found


def question_of(answer: ShownAnswer) -> Question:
    """What was asked, if this is the answer."""
    value = answer.value if answer.kind == "threshold" else 0
    return Question(answer.record_id, answer.output, answer.versus, answer.kind, value, answer.tolerance)


# -- under encryption -------------------------------------------------------------------------------------------------


class EncryptedStory(ShownStory):
    """Answers of an encrypted prediction. The clinic decrypts them here, and nothing else does."""

    scheme = "ckks"

    def __init__(self, story: Story, handles: RecordHandles, folder: Path, consumer: Actor | None = None) -> None:
        self.story, self.handles, self.folder = story, handles, folder
        self.outputs = len(story.model.body.outputs)
        self.consumer = consumer or story.world.register("consumer", "insurer")
        self.prediction = story.log()
        self.envelope = story.attest(self.prediction)

    @property
    def _named(self) -> list[Reference]:
        body = self.prediction.body
        return [self.prediction.reference, body.records, body.model, body.key]

    @property
    def scale_bits(self) -> int:
        bits: int = PARAMS.D
        return bits

    @cached_property
    def _results(self) -> dict[bytes, ResultCiphertext]:
        (proof,) = self.prediction.body.proofs
        blobs = {sha256(blob).digest(): blob for blob in self.story.predicted.blobs}
        return {digest: decode_result(PARAMS, blobs[digest]) for digest in proof.results}

    def result_of(self, digest: bytes) -> ResultCiphertext:
        return self._results[digest]

    def result(self, patient: int, output: int) -> bytes:
        found: bytes = self.prediction.body.proofs[0].results[output]
        return found

    @cached_property
    def _decryptions(self) -> list[list[int]]:
        """By outputs and patients, centred mod Q."""
        s, out = self.story.key_material.keys.s, []
        for digest in self.prediction.body.proofs[0].results:
            found = self._results[digest]
            product = negacyclic_multiply_mod(PARAMS, found.c1, s)[:, found.positions]
            row = []
            for k in range(len(found.positions)):
                M, Q = 0, PARAMS.Q
                for level, q in enumerate(PARAMS.primes):
                    residue = (int(found.c0[level, k]) + int(product[level, k])) % q
                    M += residue * (Q // q) * pow(Q // q, -1, q)
                row.append((M + Q // 2) % Q - Q // 2)
            out.append(row)
        return out

    def raw(self, patient: int, output: int = 0) -> int:
        return self._decryptions[output][patient]

    def statement(self, answers: Sequence[ShownAnswer], grant: bytes, nonce: bytes = NONCE) -> DisclosureStatement:
        assert isinstance(self.verified, VerifiedPrediction)
        return encrypted_statement(self.verified, grant, nonce, answers)

    def prove(self, answers: Sequence[ShownAnswer], grant: bytes, nonce: bytes = NONCE) -> bytes:
        material = self.story.key_material
        return prove_disclosure(
            self.statement(answers, grant, nonce), self.result_of, material.keys.s, material.openings
        )


def tell_encrypted(
    folder: Path, model: ModelMaterial | None = None, packing: Packing = Packing.ROWS, **options: Any
) -> EncryptedStory:
    """Five patients with handles, a model, a logged prediction about them, and an insurer."""
    handles = RecordHandles.draw(IDS)
    changes = {"handles": handles.root, **options.pop("records_changes", {})}
    story = bundles.tell(folder, model=model, packing=packing, records_changes=changes, **options)
    return EncryptedStory(story, handles, folder)


def second_encrypted(told: EncryptedStory) -> EncryptedStory:
    """Another prediction of the same model about the same records, on the same log."""
    story = told.story
    again = bundles.predict(
        story.key_material, story.model_material, story.key, story.model, story.records, story.world.head
    )
    return EncryptedStory(replace(story, predicted=again), told.handles, told.folder, told.consumer)


# -- multi-party computation ------------------------------------------------------------------------------------------


class JointlyStory(ShownStory):
    """Answers of a joint prediction."""

    scheme = "mpc"

    def __init__(self, joint: DisclosureStory, folder: Path) -> None:
        self._joint, self.story, self.handles, self.folder = joint, joint.story, joint.handles, folder
        self.prediction, self.envelope, self.outputs = joint.prediction, joint.envelope, joint.outputs
        self.consumer = joint.story.world.register("consumer", "insurer")

    @property
    def _named(self) -> list[Reference]:
        body = self.prediction.body
        return [self.prediction.reference, body.records, body.model]

    @property
    def scale_bits(self) -> int:
        bits: int = self.story.model.body.answer_scale_bits
        return bits

    def result(self, patient: int, output: int) -> bytes:
        return sha256(self._joint.answer(patient, output)).digest()

    def raw(self, patient: int, output: int = 0) -> int:
        return self._joint.opening(patient, output).z

    def prove(self, answers: Sequence[ShownAnswer], grant: bytes, nonce: bytes = NONCE) -> bytes:
        assert isinstance(self.verified, VerifiedJointPrediction)
        statements = joint_statements(self.verified, grant, nonce, answers)
        return disclose_answers(statements, [self._opening(a.patient, a.output, a.versus) for a in answers])

    def _opening(self, patient: int, output: int, versus: int | None) -> AnswerOpening:
        one = self._joint.opening(patient, output)
        if versus is None:
            return one
        other = self._joint.opening(patient, versus)
        return AnswerOpening(one.z - other.z, (one.rho - other.rho) % ORDER)


def tell_joint(folder: Path, network: str = "linear") -> JointlyStory:
    """The same of a network."""
    return JointlyStory(disclosures.tell(folder, network), folder)
