"""A clinic shows answers under a grant, and nothing else.

    held = clinic.grant(request)
    clinic.disclose(held.index)                              # sealed for the consumer, on the server
    clinic.disclose(held.index, path=Path("p7.sealproof"))   # and a file, too

About one answer a clinic says one thing of a kind, whoever asks and whatever the prediction: two thresholds would
bracket a score, which nobody agreed to. What is said is kept before it is proven, the statement before it is logged:

    disclosures/<code>/said.json         what was said about one answer (or the difference of two), of one kind
    grants/<grant>/shown-<code>/         one disclosure: statement.json, proof, box, disclosure.{entry,reference}.json
    keys/<number>.shown.json             how many answers were shown under a key
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from api.client.clinic_keys import KeyFolder
from api.client.consents import Consents, HeldGrant
from api.client.delivery import DELIVERY_BOX, MAX_PROOF_BYTES, pack_delivery
from api.client.disclosure_bundle import write_disclosure_bundle
from api.client.disclosure_statements import encrypted_statement, joint_statements, result_digests
from api.client.model_folder import kept
from api.client.opening import OpenedPrediction
from api.client.prediction import VerifiedPrediction
from api.client.questions import check_question, output_names
from api.client.session import Session
from api.consent import MAX_DOCUMENT_BYTES, Question, check_within
from api.entries import Disclosure, Grant, Party, Reference
from api.registry import Registry
from api.signing import timestamp
from privacy.attestation_parts import LedgerReference
from privacy.attestation_shown import Shown, ShownAnswer, sign_shown
from privacy.bundle import BundleReader
from privacy.canonical_json import Codec, DecimalInteger, Digest, Record, UnsignedInteger
from privacy.ckks.canonical import ResultCiphertext, decode_result
from privacy.ckks.disclosure_prover import prove_disclosure
from privacy.dsse import MAX_ENVELOPE_BYTES
from privacy.errors import UsageError, VerificationFailed
from privacy.mpc.answers import AnswerOpening
from privacy.mpc.disclosure import disclose_answers
from privacy.private_files import create_private, private_folder, read_private, write_private
from privacy.sealed import seal
from privacy.zk.group import ORDER

__all__ = ["DEFAULT_CAP", "disclose", "questions_to_answer"]

DEFAULT_CAP: Final = 1024
"""Answers that are shown under one CKKS key (docs/spec/protocol.md, section 6)."""

_SMALL: Final = 1 << 12
_MAX_SHOWN: Final = 1 << 24


@dataclass(frozen=True)
class _Said(Record):
    """What was said about an answer, whoever it was said to."""

    format: Literal["sealproof/disclosed-answer/v1"]
    value: DecimalInteger = field(repr=False)
    tolerance: UnsignedInteger


@dataclass(frozen=True)
class _SaidOfTwo(Record):
    """The same of a difference: "a minus b" and "b minus a" are about one pair, and are two statements."""

    format: Literal["sealproof/disclosed-difference/v1"]
    output: UnsignedInteger
    value: DecimalInteger = field(repr=False)
    tolerance: UnsignedInteger


@dataclass(frozen=True)
class _Counted(Record):
    disclosure: Digest
    answers: UnsignedInteger


@dataclass(frozen=True)
class _Count(Record):
    format: Literal["sealproof/shown-answers/v1"]
    disclosures: tuple[_Counted, ...]


_SAID: Final = Codec(_Said, "disclosed answer", _SMALL)
_SAID_OF_TWO: Final = Codec(_SaidOfTwo, "disclosed difference", _SMALL)
_COUNT: Final = Codec(_Count, "count of shown answers", _MAX_SHOWN)


def questions_to_answer(held: HeldGrant, records: Sequence[str] | None) -> tuple[Question, ...]:
    """The questions of a grant, or those about `records`.

    Raises VerificationFailed(`consent.scope`) for a record that the grant does not list.
    """
    questions = held.document.questions
    if records is None:
        return questions
    unknown = set(records) - {question.record for question in questions}
    if unknown or not records:
        listed = ", ".join(map(repr, sorted(unknown))) or "none"
        raise VerificationFailed("consent.scope", f"the grant in entry {held.index} does not list record {listed}")
    return tuple(question for question in questions if question.record in records)


def disclose(
    session: Session,
    consents: Consents,
    held: HeldGrant,
    found: OpenedPrediction,
    questions: Sequence[Question],
    key: KeyFolder,
    *,
    path: Path | None = None,
    cap: int = DEFAULT_CAP,
) -> Path | None:
    """Show the answers of a verified and opened prediction to these questions of a grant, in one proof.

    It is logged, and sealed for the consumer's mailbox if it has one; a file is written to `path`, if that is given.
    `key` is that of an encrypted prediction. Whoever repeats it after a crash shows the same, and nothing twice.

    Raises:
        VerificationFailed: `consent.expired`, `consent.revoked` (also of records that the clinic has withdrawn),
            `consent.scope`, and what a server shows that does not hold.
        UsageError: a threshold that is not reached; something else of the kind was said about an answer before; the cap
            of the key is reached; nobody would get it. Nothing was sent then.
        DecodeError, ServerError.
    """
    verified = found.verified
    with consents.locked():
        registry = consents.read_log()
        consents.check_held(held, registry)
        about = (verified.prediction.reference, verified.records.reference, verified.model.reference)
        check_within(held.document, *about, questions)
        withdrawn = registry.revocation(verified.records.reference)
        if withdrawn is not None:
            raise VerificationFailed(
                "consent.revoked", f"entry {withdrawn} has withdrawn the records of this prediction"
            )
        consumer = _consumer(held, registry)
        if path is None and (consumer is None or consumer.mailbox is None):
            raise UsageError("the recipient has no mailbox, so a file must be written for it (path, --save)")
        teller = _Teller(session, held, found, key, cap)
        folder = teller.folder(questions)
        if not (folder / "statement.json").exists():
            teller.make(folder, questions)
        signed = read_private(folder / "statement.json", MAX_ENVELOPE_BYTES, "disclosure")
        proof = read_private(folder / "proof", MAX_PROOF_BYTES, "disclosure")
        document = held.document.encode()
        delivery = None
        if consumer is not None and consumer.mailbox is not None:
            delivery = session.server.put_blob(_box(folder, consumer.mailbox, held, (signed, proof, document)))
        statement_digest, proof_digest = (hashlib.sha256(part).digest() for part in (signed, proof))
        prediction = verified.prediction.reference
        body = Disclosure(prediction, statement_digest, proof_digest, held.reference, delivery)
        reference = session.log_once(body, folder, "disclosure")
        if path is not None:
            entries, blobs = [reference, held.reference], [signed, proof, document]
            request = registry.resolve(held.reference, Grant).body.request
            if request is not None and held.document.consumer is not None:
                entries += [request, held.document.consumer]
                blobs.append(_request(session, request))
            write_disclosure_bundle(session, verified.path, path, entries, blobs)
    return path


def _consumer(held: HeldGrant, registry: Registry) -> Party | None:
    consumer = held.document.consumer
    return None if consumer is None else registry.resolve(consumer, Party).body


def _request(session: Session, request: Reference) -> bytes:
    """The text of a request that this clinic has granted, which it keeps."""
    return read_private(session.folder / "requests-in" / f"{request.index}.json", MAX_DOCUMENT_BYTES, "request")


def _box(folder: Path, mailbox: bytes, held: HeldGrant, parts: tuple[bytes, bytes, bytes]) -> bytes:
    """The sealed delivery; the same bytes every time, since an entry names them."""
    context = held.reference.leaf
    return kept(folder / "box", lambda: seal(pack_delivery(*parts), mailbox, purpose=DELIVERY_BOX, context=context))


class _NotReached(UsageError):
    """A threshold that the answer does not reach."""


class _Teller:
    """What is said of the answers of one prediction under one grant; only while the clinic's consents are locked."""

    def __init__(self, session: Session, held: HeldGrant, found: OpenedPrediction, key: KeyFolder, cap: int) -> None:
        self._session = session
        self._held = held
        self._opened = found
        self._verified = found.verified
        self._key = key
        self._cap = cap
        self._handles = found.records.handles
        self._grid = self._verified.model.body.grid_bits

    def folder(self, questions: Sequence[Question]) -> Path:
        """Where this disclosure is kept: the same for the same answers of the same prediction."""
        parts = [b"%d" % len(questions)]
        for question in questions:
            parts += [question.record.encode(), *_place(question), b"%d %d" % (question.value, question.tolerance)]
        code = self._code(b"shown", self._held.reference.leaf, self._verified.prediction.reference.leaf, *parts)
        return private_folder(self._held.folder / f"shown-{code.hex()[:32]}")

    def make(self, folder: Path, questions: Sequence[Question]) -> None:
        """Say it, prove it and sign it. Raises UsageError for what is not true or may not be said."""
        issued_at = timestamp()  # when the grant was found to hold; proving takes a while
        try:
            answers = tuple(self._answer(question) for question in questions)
        except _NotReached:
            # That nothing is shown tells of the key what something that is shown would.
            self._count(folder, 1)
            raise
        prove = self._prover(answers)  # what nobody can state is refused before it is said
        for question, answer in zip(questions, answers, strict=True):
            self._check_said(question, answer)
        self._count(folder, len(answers))
        for question, answer in zip(questions, answers, strict=True):
            self._say(question, answer)
        proof = prove()
        with BundleReader(self._verified.path) as reader:
            prediction = reader.entry(self._verified.prediction.reference.index)
        grant = (self._held.folder / "grant.entry.json").read_bytes()
        encrypted = isinstance(self._verified, VerifiedPrediction)
        signed = sign_shown(
            Shown(
                prediction=LedgerReference.to(self._verified.prediction.reference.index, prediction),
                grant=LedgerReference.to(self._held.index, grant),
                scheme="ckks" if encrypted else "mpc",
                answers=answers,
                scale_bits=self._scale_bits,
                grid_bits=self._grid,
                recipient_nonce=self._held.document.nonce,
                proof=Shown.proof_reference(proof),
                issued_at=issued_at,
            ),
            self._session.identity.private_key,
        )
        write_private(folder / "proof", proof)
        write_private(folder / "statement.json", signed)

    @property
    def _scale_bits(self) -> int:
        if isinstance(self._verified, VerifiedPrediction):
            return self._verified.prediction.body.error_bound.scale_bits
        return self._verified.answer_scale_bits

    # -- answers ------------------------------------------------------------------------------------------------------

    def _answer(self, question: Question) -> ShownAnswer:
        check_question(self._verified.model, question)
        if question.record not in self._handles.ids:
            raise UsageError(f"the prediction has no record {question.record!r}: disclose it from another one")
        patient = self._handles.ids.index(question.record)
        return ShownAnswer(
            patient=patient,
            output=question.output,
            versus=question.versus,
            kind=question.kind,
            value=self._value(question, patient),
            tolerance=question.tolerance,
            result=self._result_of(patient, question.output),
            record_id=question.record,
            salt=self._handles.salts[patient],
            path=tuple(self._handles.path(patient)),
        )

    def _result_of(self, patient: int, output: int) -> bytes:
        """What is opened; of a difference, that of its first output."""
        if isinstance(self._verified, VerifiedPrediction):
            return result_digests(self._verified, patient, output)[0]
        return hashlib.sha256(self._verified.answer(patient, output)).digest()

    def _value(self, question: Question, patient: int) -> int:
        """What is true of the answer: that it reaches the threshold, the nearest point of a grid as coarse as the
        tolerance, or all of it."""
        raw, place = self._opened.scores.raw, (patient, question.output, self._grid)
        if question.kind == "open":
            return self._opening(patient, question.output, question.versus).z
        if question.kind == "exact":
            # Another prediction of the same answer has other noise, and must not say another grid point.
            said = self._said(question, patient)
            if said is not None and (said[0], said[2]) == (question.output, question.tolerance):
                return said[1]  # which is still true, but for a bug: else there is no proof
            return raw.nearest(*place, question.versus, question.tolerance)
        if not raw.reaches(*place, question.value, question.versus):
            raise _NotReached(
                f"the answer about record {question.record!r} does not reach this threshold: there is nothing to "
                "prove. Disclose the others (records, --record), or refuse the request. Whoever asked sees that "
                "nothing is shown: with a lower threshold that is reached it would have the answer between the two"
            )
        return question.value

    def _opening(self, patient: int, output: int, versus: int | None) -> AnswerOpening:
        width = len(output_names(self._verified.model))
        opening = self._opened.openings[patient * width + output]
        if versus is None:
            return opening
        other = self._opened.openings[patient * width + versus]
        return AnswerOpening(opening.z - other.z, (opening.rho - other.rho) % ORDER)

    def _prover(self, answers: Sequence[ShownAnswer]) -> Callable[[], bytes]:
        """How the answers are proven. Raises UsageError, VerificationFailed for statements that nobody can make."""
        ids = (self._held.reference.leaf, self._held.document.nonce)
        if isinstance(self._verified, VerifiedPrediction):
            statement = encrypted_statement(self._verified, *ids, answers)
            return lambda: prove_disclosure(statement, self._result, self._key.keys.s, self._key.openings())
        statements = joint_statements(self._verified, *ids, answers)
        openings = [self._opening(answer.patient, answer.output, answer.versus) for answer in answers]
        return lambda: disclose_answers(statements, openings)

    def _result(self, digest: bytes) -> ResultCiphertext:
        with BundleReader(self._verified.path) as reader:
            return decode_result(self._key.keys.params, reader.blob(digest))

    # -- what was said, and how much ----------------------------------------------------------------------------------

    def _code(self, *parts: bytes) -> bytes:
        """A name for something: it tells nothing without the identity."""
        code = hashlib.sha256(self._session.identity.private_key.private_bytes_raw())
        for part in parts:
            code.update(len(part).to_bytes(4, "little") + part)
        return code.digest()

    def _said_path(self, question: Question, patient: int) -> Path:
        about = (self._verified.records.reference.leaf, self._handles.handles[patient])
        code = self._code(*about, self._verified.model.reference.leaf, *_place(question)).hex()[:32]
        return self._session.folder / "disclosures" / code / "said.json"

    def _said(self, question: Question, patient: int) -> tuple[int, int, int] | None:
        """Output (of a difference: the one that the other is taken from), value and tolerance of what was said."""
        path = self._said_path(question, patient)
        if not path.exists():
            return None
        data = read_private(path, _SMALL, "disclosed answer")
        if question.versus is None:
            one = _SAID.decode(data)
            return question.output, one.value, one.tolerance
        two = _SAID_OF_TWO.decode(data)
        return two.output, two.value, two.tolerance

    def _check_said(self, question: Question, answer: ShownAnswer) -> None:
        said = self._said(question, answer.patient)
        if said is not None and said != (answer.output, answer.value, answer.tolerance):
            raise UsageError(
                f"something else was disclosed about this answer of record {question.record!r} before (kind "
                f"{question.kind!r}): a second statement of a kind could be combined with the first, and is not made"
            )

    def _say(self, question: Question, answer: ShownAnswer) -> None:
        path = self._said_path(question, answer.patient)
        private_folder(private_folder(path.parent.parent) / path.parent.name)
        if question.versus is None:
            data = _SAID.encode(_Said("sealproof/disclosed-answer/v1", answer.value, answer.tolerance))
        else:
            said = ("sealproof/disclosed-difference/v1", answer.output, answer.value, answer.tolerance)
            data = _SAID_OF_TWO.encode(_SaidOfTwo(*said))  # type: ignore[arg-type]  # the literal
        with contextlib.suppress(FileExistsError):
            create_private(path, data)
        self._check_said(question, answer)

    def _count(self, folder: Path, answers: int) -> None:
        """Count these answers of an encrypted prediction's key, once. Raises UsageError for more than the cap."""
        if not isinstance(self._verified, VerifiedPrediction):
            return
        path, name = self._key.path("shown.json"), hashlib.sha256(folder.name.encode()).digest()
        counted: tuple[_Counted, ...] = ()
        if path.exists():
            counted = _COUNT.decode(read_private(path, _MAX_SHOWN, "count of shown answers")).disclosures
        if any(one.disclosure == name for one in counted):
            return
        before = sum(one.answers for one in counted)
        if before + answers > self._cap:
            raise UsageError(
                f"{before} answers were disclosed under this key, and {answers} more would exceed the cap of "
                f"{self._cap}: each may tell a little of the key, so make a new one (sealproof clinic init), or raise "
                "the cap (disclosure_cap, --cap)"
            )
        more = _Count("sealproof/shown-answers/v1", (*counted, _Counted(name, answers)))
        write_private(path, _COUNT.encode(more))


def _place(question: Question) -> tuple[bytes, ...]:
    """Which answer, of which kind: a pair of outputs in whatever order is one."""
    if question.versus is None:
        return b"%d" % question.output, question.kind.encode()
    first, second = sorted((question.output, question.versus))
    return b"%d %d" % (first, second), question.kind.encode()
