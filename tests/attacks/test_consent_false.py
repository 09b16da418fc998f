"""A clinic shows what it was not asked, may not show, or what is another's; a consumer uses what is not its own.

Each test tells one lie as well as it can be told, signs and logs everything again, and is refused by a named check.
Where one check is the whole defence, the lie is shown to pass without it. `test_disclosure_false.py` forges proofs.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.binding import Located
from api.client import audit_consent, audit_disclosure
from api.client.audit import verify_bundle
from api.client.prediction import VERIFIED
from api.consent import GrantDocument, Question, RequestDocument, Scope
from api.entries import Grant, Party, Reference, Request, sign_entry
from privacy.attestation import PAYLOAD_TYPE
from privacy.attestation_disclosure import Disclosed, sign_disclosure
from privacy.attestation_parts import LedgerReference
from privacy.attestation_shown import Shown, ShownAnswer, sign_shown
from privacy.canonical_json import canonical_bytes
from privacy.ckks.disclosure_prover import prove_disclosure
from privacy.dsse import sign_payload
from privacy.errors import DecodeError, VerificationFailed
from tests.support import bundles, disclosures, shown
from tests.support.bundles import PARAMS, Actor, key_material, model_material
from tests.support.disclosures import IDS
from tests.support.shown import NONCE, TWO, UNTIL, EncryptedStory, JointlyStory, ShownStory, question_of

LATE = "2026-02-01T00:00:01Z"
OTHER = bytes(32)


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> EncryptedStory:
    """A model with two outputs."""
    return shown.tell_encrypted(tmp_path_factory.mktemp("encrypted"), model_material(TWO))


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> JointlyStory:
    """A network with two outputs."""
    return shown.tell_joint(tmp_path_factory.mktemp("joint"), "two")


@pytest.fixture(params=["ckks", "mpc"])
def told(request: pytest.FixtureRequest, encrypted: EncryptedStory, joint: JointlyStory) -> ShownStory:
    return encrypted if request.param == "ckks" else joint


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "case.sealproof"


def refused(told: ShownStory, case: Path, *checks: str, **options: Any) -> None:
    with pytest.raises(VerificationFailed) as caught:
        told.verify(case, **options)
    assert caught.value.check in checks, caught.value


PROOF = ("linear.form", "linear.opening", "quadratic.opening", "quadratic.relation", "disclosure.range")
"""A proof does not hold: at which of its parts does not matter here."""


# -- something else than was consented to -----------------------------------------------------------------------------


def test_a_grant_for_another_purpose_is_none(told: ShownStory, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = told.disclose(path, told.answer(1), grant={"purpose": "direct marketing"})
    refused(told, case, "consent.request")
    monkeypatch.setattr(audit_consent, "check_answers_request", lambda *arguments: None)
    found = told.verify(case)
    assert found.consent is not None and found.consent.document.purpose == "direct marketing"


def _another_record(q: Question) -> Question:
    return replace(q, record=IDS[0])


def _another_output(q: Question) -> Question:
    return replace(q, output=1)


def _another_threshold(q: Question) -> Question:
    return replace(q, value=q.value - 1)


def _another_kind(q: Question) -> Question:
    return replace(q, kind="exact", value=0, tolerance=1)


def _a_difference(q: Question) -> Question:
    return replace(q, versus=1)


@pytest.mark.parametrize("other", [_another_record, _another_output, _another_threshold, _another_kind, _a_difference])
def test_an_answer_to_another_question_is_refused(
    told: ShownStory, path: Path, other: Callable[[Question], Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked, granted and true; what is shown is something else, and as true."""
    answer = told.answer(1)
    case = told.disclose(path, answer, questions=[other(question_of(answer))])
    refused(told, case, "consent.scope")
    monkeypatch.setattr(audit_consent, "check_within", lambda *arguments: None)
    assert told.verify(case).facts[0].record_id == IDS[1]


def test_a_narrower_tolerance_than_was_granted_is_refused(told: ShownStory, path: Path) -> None:
    answer = told.answer(1, "exact", tolerance=1)
    asked = replace(question_of(answer), tolerance=8)
    refused(told, told.disclose(path, answer, questions=[asked]), "consent.scope")


def test_what_was_asked_and_not_granted_is_not_shown(told: ShownStory, path: Path) -> None:
    answers = [told.answer(1), told.answer(2)]
    granted = [question_of(answers[0])]
    refused(told, told.disclose(path, *answers, granted=granted), "consent.scope")


def test_what_was_granted_and_not_asked_is_not_shown(told: ShownStory, path: Path) -> None:
    """More than the request is no answer to it, even where no more is shown than was asked."""
    answers = [told.answer(1), told.answer(2)]
    both = [question_of(answer) for answer in answers]
    for said in (answers, answers[:1]):
        refused(told, told.disclose(path, *said, questions=both[:1], granted=both), "consent.request")


def test_a_grant_about_another_prediction_model_or_cohort_is_none(told: ShownStory, path: Path) -> None:
    body, here = told.prediction.body, told.prediction.reference
    other = Reference(here.index, OTHER)
    for scope in (
        Scope(other, None, None),
        Scope(body.records, None, None),
        Scope(None, body.records, None),
        Scope(None, replace(body.model, leaf=OTHER), None),
        Scope(None, body.model, here),
        Scope(None, body.model, replace(body.records, leaf=OTHER)),
    ):
        refused(told, told.disclose(path, told.answer(1), request={"scope": scope}), "consent.scope")


def test_the_grant_of_one_prediction_is_none_of_the_next(encrypted: EncryptedStory, path: Path) -> None:
    """The same model, the same records: what was consented to is an answer that exists already."""
    second = shown.second_encrypted(encrypted)
    scope = Scope(second.prediction.reference, None, None)
    refused(encrypted, encrypted.disclose(path, encrypted.answer(1), request={"scope": scope}), "consent.scope")
    parts = second.parts(second.answer(1))
    second.verify(second.bundle(path, parts))
    refused(encrypted, encrypted.bundle(path, parts), "consent.scope")


def test_two_patients_under_one_id_do_not_answer_one_question(tmp_path: Path, path: Path) -> None:
    """A clinic submits one record twice, and shows both as the answer: one of them will do."""
    from api.client.handles import RecordHandles

    told = shown.tell_joint(tmp_path)
    salts = told.handles.salts
    object.__setattr__(told.handles, "ids", (*IDS[:4], IDS[1]))
    assert isinstance(told.handles, RecordHandles) and len(set(salts)) == 5
    question = question_of(told.answer(1, threshold=-100))
    answers = [told.answer(1, threshold=-100), told.answer(4, threshold=-100, record_id=IDS[1])]
    refused(told, told.disclose(path, *answers, questions=[question]), "consent.scope")


# -- to somebody else -------------------------------------------------------------------------------------------------


def test_what_was_shown_to_one_consumer_is_nothing_to_another(told: ShownStory, path: Path) -> None:
    refused(told, told.disclose(path, told.answer(1)), "disclosure.nonce", nonce=OTHER)


def test_a_grant_to_one_recipient_serves_no_other(
    told: ShownStory, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clinic shows it to a second one, who chose another nonce, under the grant that the first was given."""
    lies: dict[str, Any] = {"proven_for": OTHER, "shown": {"recipient_nonce": OTHER}}
    for asked in (True, False):
        refused(told, told.disclose(path, told.answer(1), asked=asked, **lies), "disclosure.nonce", nonce=OTHER)
    refused(told, told.disclose(path, told.answer(1), grant={"nonce": OTHER}, **lies), "consent.request", nonce=OTHER)
    # Signed for the second, with the proof that was made for the first.
    case = told.disclose(path, told.answer(1), request={"nonce": OTHER}, shown={"recipient_nonce": OTHER})
    refused(told, case, *PROOF, nonce=OTHER)


def test_a_grant_to_another_consumer_than_asked_is_none(told: ShownStory, path: Path) -> None:
    other = told.world.register("consumer", f"another insurer {told.world.log.size}")
    refused(told, told.disclose(path, told.answer(1), grant={"consumer": other.reference}), "consent.request")
    refused(told, told.disclose(path, told.answer(1), request={"consumer": other.reference}), "consent.author")
    # The other logs the request that the first has written.
    parts = told.parts(told.answer(1), request_entry={"author": other})
    parts.also.append(other)
    refused(told, told.bundle(path, parts), "bundle.stray", "consent.author")
    indices = [actor.reference.index for actor in (*told.story.parties, other)]
    told.story.bundle(path, told.prediction, told.envelope, _blobs(told, parts), indices=_indices(told, parts, indices))
    refused(told, path, "consent.author")


def _blobs(told: ShownStory, parts: shown.Parts) -> list[bytes]:
    return [*told.story.blobs, parts.signed, parts.proof, *parts.documents]


def _indices(told: ShownStory, parts: shown.Parts, more: list[int]) -> Any:
    located = [parts.grant, parts.entry, *([parts.request] if parts.request else [])]
    return {one.reference.index for one in located} | {r.index for r in told._named} | set(more)


def test_a_request_of_somebody_who_is_no_consumer_is_none(joint: JointlyStory, path: Path) -> None:
    parts = joint.parts(
        joint.answer(1),
        request={"consumer": joint.story.owner.reference},
        request_entry={"author": joint.story.owner},
    )
    actors = [actor.reference.index for actor in joint.story.parties]
    joint.story.bundle(
        path, joint.prediction, joint.envelope, _blobs(joint, parts), indices=_indices(joint, parts, actors)
    )
    refused(joint, path, "entry.role")


def test_a_request_to_another_clinic_is_not_answered_here(told: ShownStory, path: Path) -> None:
    other = told.world.register("clinic", f"st-bruno {told.world.log.size}")
    refused(told, told.disclose(path, told.answer(1), request_entry={"clinic": other.reference}), "consent.request")
    for lie in ({"request": {"clinic": other.reference}}, {"grant": {"clinic": other.reference}}):
        refused(told, told.disclose(path, told.answer(1), **lie), "consent.document", "consent.request")


# -- by somebody else -------------------------------------------------------------------------------------------------


def test_the_consent_of_another_clinic_is_none(told: ShownStory, path: Path) -> None:
    """Whoever has a clinic's key can log a grant; for these records only their clinic can."""
    other = told.world.register("clinic", f"st-clara {told.world.log.size}")
    for author in (other, told.consumer, told.story.server):
        parts = told.parts(told.answer(1), grant_entry={"author": author})
        refused(told, told.bundle(path, parts), "consent.author")


def test_a_disclosure_that_another_clinic_logged_is_refused(told: ShownStory, path: Path) -> None:
    other = told.world.register("clinic", f"st-dora {told.world.log.size}")
    for author in (other, told.story.server, told.consumer):
        refused(told, told.disclose(path, told.answer(1), entry={"author": author}), "disclosure.author")


def test_a_statement_that_another_signed_is_refused(told: ShownStory, path: Path) -> None:
    parts = told.parts(told.answer(1))
    for key in (told.story.server.private_key, told.consumer.private_key):
        signed = sign_shown(parts.shown, key)
        entry = told.log_disclosure(signed, parts.proof, parts.grant.reference)
        refused(told, told.bundle(path, replace(parts, signed=signed, entry=entry)), "attestation.signature")


@pytest.mark.parametrize("what", ["grant", "request", "entry"])
def test_an_entry_that_its_author_did_not_sign_is_refused(joint: JointlyStory, path: Path, what: str) -> None:
    """The log's operator writes an entry in somebody's name, and all later ones refer to it."""
    genuine = joint.world.append

    def forged(author: Any, body: Any) -> Any:
        kinds = {"grant": "Grant", "request": "Request", "entry": "Disclosure"}
        if type(body).__name__ != kinds[what]:
            return genuine(author, body)
        data = sign_entry(body, author.reference, joint.story.server.private_key)
        return bundles.Located(Reference.to(joint.world.log.append(data).index, data), body)

    joint.world.append = forged  # type: ignore[method-assign]
    try:
        parts = joint.parts(joint.answer(1))
    finally:
        del joint.world.append
    refused(joint, joint.bundle(path, parts), "entry.signature")


# -- when -------------------------------------------------------------------------------------------------------------


def test_nothing_is_shown_after_the_consent_ended(told: ShownStory, path: Path) -> None:
    told.verify(told.disclose(path, told.answer(1), shown={"issued_at": UNTIL}))
    refused(told, told.disclose(path, told.answer(1), shown={"issued_at": LATE}), "consent.expired")
    early = {"until": "2026-01-02T03:04:04Z"}
    refused(told, told.disclose(path, told.answer(1), grant=early), "consent.expired")
    # The entry, which everybody reads, says that it holds longer than the text does, or the other way round.
    later = {"until": "2027-01-01T00:00:00Z"}
    refused(told, told.disclose(path, told.answer(1), grant_entry=later), "consent.document")
    late = {"issued_at": LATE}
    refused(told, told.disclose(path, told.answer(1), grant_entry=later, shown=late), "consent.document")


def test_a_revoked_consent_is_none(told: ShownStory, path: Path) -> None:
    case = told.disclose(path, told.answer(1), before_entry=lambda grant: told.revoke(grant, told.clinic))
    refused(told, case, "consent.revoked", ledger=told.world)
    found = told.verify(case)  # who does not ask the ledger is told so
    assert "Whether it was revoked before was not looked up" in found.checks[7].sentence


def test_a_withdrawn_request_is_answered_no_more(told: ShownStory, path: Path) -> None:
    case = told.disclose(path, told.answer(1), before_grant=lambda request: told.revoke(request, told.consumer))
    refused(told, case, "consent.revoked", ledger=told.world)


def test_nobody_else_revokes_a_consent(told: ShownStory, path: Path) -> None:
    def others(grant: Reference) -> None:
        for author in (told.consumer, told.story.server):
            told.revoke(grant, author)

    found = told.verify(told.disclose(path, told.answer(1), before_entry=others), ledger=told.world)
    assert found.consent is not None and found.consent.revoked_since == ()


def test_a_consent_that_was_logged_afterwards_is_none(
    told: ShownStory, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signatures are deterministic: an entry can be named before it is logged, and made up when it is needed."""
    answer = told.answer(1)
    document = told.request_document([question_of(answer)])
    consent = told.grant_document(document, document.questions)

    def ahead(body: Any, author: Any) -> tuple[bytes, Reference]:
        data = sign_entry(body, author.reference, author.private_key)
        return data, Reference.to(told.world.log.size + 1, data)

    # The grant is older than the request.
    data, request = ahead(Request(told.clinic.reference, document.digest, None), told.consumer)
    grant = told.log_grant(consent, request)
    told.world.log.append(data)
    asked = Located(request, Request(told.clinic.reference, document.digest, None))
    early = told.bundle(path, _under(told, answer, asked, grant, document, consent))
    refused(told, early, "consent.order")
    # The disclosure is older than the grant.
    asked = told.log_request(document)
    body = Grant(asked.reference, consent.digest, consent.until)
    data, reference = ahead(body, told.clinic)
    parts = _under(told, answer, asked, Located(reference, body), document, consent, data)
    assert told.world.log.append(data).index == reference.index
    late = told.bundle(path, parts)
    refused(told, late, "consent.order")
    monkeypatch.setattr(audit_consent.ConsentAudit, "_check_order", lambda audit: None)
    told.verify(late)


def _under(
    told: ShownStory,
    answer: ShownAnswer,
    request: Located[Request],
    grant: Located[Grant],
    document: RequestDocument,
    consent: GrantDocument,
    unlogged: bytes | None = None,
) -> shown.Parts:
    """A disclosure under a grant, which may be `unlogged` yet."""
    proof = told.prove([answer], grant.reference.leaf)
    named = unlogged if unlogged is not None else told.world.log.entry(grant.reference.index)
    reference = LedgerReference.to(grant.reference.index, named)
    signed = sign_shown(
        told.shown([answer], told.prediction.reference, proof, grant=reference), told.clinic.private_key
    )
    entry = told.log_disclosure(signed, proof, grant.reference)
    made = told.shown([answer], told.prediction.reference, proof, grant=reference)
    return shown.Parts(request, document, grant, consent, made, signed, proof, entry)


def test_a_prediction_that_was_logged_afterwards_was_not_shown(encrypted: EncryptedStory, path: Path) -> None:
    """Clinic and server know the prediction's entry before it is logged."""
    told, story = encrypted, encrypted.story
    data = sign_entry(story.predicted.body, story.server.reference, story.server.private_key)
    # Four entries come first: request, grant, disclosure.
    reference = Reference.to(told.world.log.size + 3, data)
    late = EncryptedStory.__new__(EncryptedStory)
    late.__dict__.update(told.__dict__)
    late.prediction = replace(told.prediction, reference=reference)
    late.__dict__.pop("verified", None)
    before = told.verified
    late.__dict__["verified"] = replace(before, prediction=late.prediction, made_by=VERIFIED)
    named = LedgerReference.to(reference.index, data)
    late.reference_of = lambda to: named if to == reference else told.reference_of(to)  # type: ignore[method-assign]
    parts = late.parts(late.answer(1))
    assert told.world.log.append(data).index == reference.index
    late.envelope = story.attest(late.prediction)
    refused(late, late.bundle(path, parts), "ledger.order")


def test_a_consumer_that_registered_afterwards_did_not_ask(joint: JointlyStory, path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    party = sign_entry(Party("consumer", "latecomer", key.public_key().public_bytes_raw()), None, key)
    later = Actor(key, Reference.to(joint.world.log.size + 1, party))
    lies: dict[str, Any] = {"request": {"consumer": later.reference}, "request_entry": {"author": later}}
    answer = joint.answer(1)
    parts = joint.parts(answer, **lies, before_grant=lambda request: joint.world.log.append(party))
    actors = [actor.reference.index for actor in (*joint.story.parties, later)]
    joint.story.bundle(
        path, joint.prediction, joint.envelope, _blobs(joint, parts), indices=_indices(joint, parts, actors)
    )
    refused(joint, path, "ledger.order")


# -- what belongs together --------------------------------------------------------------------------------------------


def test_documents_are_those_that_the_entries_name(told: ShownStory, path: Path) -> None:
    parts, others = told.parts(told.answer(1)), told.parts(told.answer(1), grant={"salt": OTHER})
    grant, request = parts.documents
    for blobs in (
        [parts.signed, parts.proof, others.documents[0], request],
        [parts.signed, parts.proof, request],
        [parts.signed, parts.proof, grant],
        [parts.signed, parts.proof, grant, request, others.documents[0]],
        [others.signed, parts.proof, grant, request],
        [parts.signed, others.proof, grant, request],
    ):
        refused(told, told.bundle(path, parts, blobs), "bundle.missing-blob", "bundle.stray")


@pytest.mark.parametrize("name", [field.name for field in fields(GrantDocument)])
def test_every_field_of_a_grant_is_bound(told: ShownStory, path: Path, name: str) -> None:
    """In the file alone, and logged and signed again by the clinic."""
    parts = told.parts(told.answer(1))
    document, party = parts.grant_document, told.clinic.reference
    question = document.questions[0]
    changed: dict[str, Any] = {
        "format": ("sealproof/grant/v2", None),
        "origin": ("another.example/log", "consent.document"),
        "clinic": (replace(party, leaf=OTHER), "consent.document"),
        "consumer": (party, "consent.request"),
        "request": (OTHER, "consent.request"),
        "scope": (Scope(None, told.prediction.body.model, None), "consent.request"),
        "purpose": ("something else", "consent.request"),
        "nonce": (OTHER, "consent.request"),
        "questions": ((replace(question, record=IDS[0]),), "consent.request"),
        "until": ("2026-01-01T00:00:00Z", "consent.expired"),
        "salt": (OTHER, None),  # it says nothing, and hides what the others say
    }
    value, check = changed[name]
    if name != "format":
        swapped = replace(document, **{name: value}).encode()
    else:
        swapped = document.encode().replace(b"sealproof/grant/v1", b"sealproof/grant/v2")
        grant = told.log_grant(document, parts.request.reference if parts.request else None, document=_sha(swapped))
        moved = _under_again(told, parts, grant)
        with pytest.raises(DecodeError):
            told.verify(told.bundle(path, moved, [moved.signed, moved.proof, swapped, parts.documents[1]]))
    blobs = [parts.signed, parts.proof, swapped, parts.documents[1]]
    refused(told, told.bundle(path, parts, blobs), "bundle.missing-blob", "bundle.stray")
    if check is not None:
        refused(told, told.disclose(path, told.answer(1), grant={name: value}), check)


def _sha(data: bytes) -> bytes:
    return sha256(data).digest()


def _under_again(told: ShownStory, parts: shown.Parts, grant: Located[Grant]) -> shown.Parts:
    assert parts.request is not None and parts.request_document is not None
    answer = parts.shown.answers[0]
    return _under(told, answer, parts.request, grant, parts.request_document, parts.grant_document)


@pytest.mark.parametrize("name", [field.name for field in fields(RequestDocument)])
def test_every_field_of_a_request_is_bound(told: ShownStory, path: Path, name: str) -> None:
    """In the file alone, and logged again by its consumer after the clinic has granted the first one."""
    parts = told.parts(told.answer(1))
    document, party = parts.request_document, told.clinic.reference
    assert document is not None
    question = document.questions[0]
    changed: dict[str, Any] = {
        "format": "sealproof/request/v2",
        "origin": "another.example/log",
        "clinic": replace(party, leaf=OTHER),
        "consumer": party,
        "scope": Scope(None, told.prediction.body.model, None),
        "purpose": "something else",
        "nonce": OTHER,
        "questions": (question, replace(question, record=IDS[0])),
    }
    if name == "format":
        swapped = document.encode().replace(b"sealproof/request/v1", b"sealproof/request/v2")
    else:
        swapped = replace(document, **{name: changed[name]}).encode()
    blobs = [parts.signed, parts.proof, parts.documents[0], swapped]
    refused(told, told.bundle(path, parts, blobs), "bundle.missing-blob", "bundle.stray")
    again = told.world.append(told.consumer, Request(party, _sha(swapped), None))
    grant = told.log_grant(parts.grant_document, again.reference)
    moved = _under(told, told.answer(1), again, grant, document, parts.grant_document)
    with pytest.raises((VerificationFailed, DecodeError)) as caught:
        told.verify(told.bundle(path, moved, [moved.signed, moved.proof, parts.documents[0], swapped]))
    if name != "format":
        assert isinstance(caught.value, VerificationFailed)
        assert caught.value.check in ("consent.request", "consent.author", "disclosure.nonce")


def test_a_grant_and_its_entry_name_the_same_request_or_none(told: ShownStory, path: Path) -> None:
    unasked = told.parts(told.answer(1), grant_entry={"request": None})
    unasked.request = unasked.request_document = None
    refused(told, told.bundle(path, unasked), "consent.request")
    parts = told.parts(told.answer(1))
    assert parts.request is not None
    nobody = told.grant_document(None, parts.grant_document.questions)
    grant = told.log_grant(nobody, parts.request.reference)
    moved = replace(_under_again(told, parts, grant), grant_document=nobody)
    refused(told, told.bundle(path, moved), "consent.request")
    other = told.log_request(told.request_document(parts.grant_document.questions, nonce=OTHER))
    grant = told.log_grant(parts.grant_document, other.reference)
    moved = replace(_under_again(told, parts, grant), request=other)
    moved.request_document = told.request_document(parts.grant_document.questions, nonce=OTHER)
    refused(told, told.bundle(path, moved), "consent.request")


def test_a_disclosure_without_a_grant_shows_nothing_in_this_format(told: ShownStory, path: Path) -> None:
    """Its entry alone tells everybody that there was no consent."""
    parts = told.parts(told.answer(1), entry={"grant": None})
    named = [*told._named, parts.entry.reference, *(actor.reference for actor in told.story.parties)]
    blobs = [*told.story.blobs, parts.signed, parts.proof]
    told.story.bundle(path, told.prediction, told.envelope, blobs, indices={r.index for r in named})
    refused(told, path, "disclosure.grant")
    # Nor do a grant and a request help that nothing names.
    refused(told, told.bundle(path, parts), "bundle.stray")


def test_a_statement_of_the_old_format_is_under_no_grant(tmp_path: Path, path: Path) -> None:
    old = disclosures.tell(tmp_path)
    told = JointlyStory(old, tmp_path)
    parts = told.parts(told.answer(1))
    statement = old.statement(1)
    proof = old.prove(statement)
    signed = old.sign(old.disclosed(statement, proof))
    entry = told.log_disclosure(signed, proof, parts.grant.reference)
    with pytest.raises(DecodeError):
        told.verify(told.bundle(path, replace(parts, signed=signed, proof=proof, entry=entry)), None)


def test_an_old_statement_is_none_about_answers_under_encryption(encrypted: EncryptedStory, path: Path) -> None:
    """Even one that the clinic signed: there is no commitment that it could be about."""
    told = encrypted
    made = Disclosed(
        prediction=told.reference_of(told.prediction.reference),
        scheme="mpc",
        kind="threshold",
        patient=1,
        output=0,
        answer=bytes([0xC0]) + bytes(47),
        value=0,
        tolerance=0,
        scale_bits=told.scale_bits,
        grid_bits=told.grid_bits,
        record_id=IDS[1],
        salt=told.handles.salts[1],
        path=tuple(told.handles.path(1)),
        recipient_nonce=NONCE,
        proof=Disclosed.proof_reference(b"proof"),
        issued_at=bundles.ISSUED_AT,
    )
    signed = sign_disclosure(made, told.clinic.private_key)
    entry = told.log_disclosure(signed, b"proof", None)
    named = [*told._named, entry.reference, *(actor.reference for actor in told.story.parties)]
    blobs = [*told.story.blobs, signed, b"proof"]
    told.story.bundle(path, told.prediction, told.envelope, blobs, indices={r.index for r in named})
    refused(told, path, "disclosure.scheme")


def test_a_bundle_has_one_disclosure_and_no_other_consent(told: ShownStory, path: Path) -> None:
    parts, more = told.parts(told.answer(1)), told.parts(told.answer(2))
    refused(told, told.bundle(path, parts, indices=[more.entry.reference.index]), "entry.disclosure")
    assert more.request is not None
    for stray in (more.grant.reference.index, more.request.reference.index):
        refused(told, told.bundle(path, parts, indices=[stray]), "bundle.stray")
    blobs = [parts.signed, parts.proof, *parts.documents, more.signed]
    refused(told, told.bundle(path, parts, blobs), "bundle.stray")


def test_consent_beside_a_prediction_alone_is_stray(told: ShownStory, path: Path) -> None:
    parts = told.parts(told.answer(1))
    indices = {r.index for r in (*told._named, parts.grant.reference, *(a.reference for a in told.story.parties))}
    told.story.bundle(path, told.prediction, told.envelope, told.story.blobs, indices=indices)
    with pytest.raises(VerificationFailed, match=r"bundle\.stray"):
        verify_bundle(path, told.world.verifier, cache=told.world.cache)


def test_entries_of_another_kind_are_no_consent(told: ShownStory, path: Path) -> None:
    """The disclosure names its own prediction as the grant, or the grant the records as a request."""
    parts = told.parts(told.answer(1), entry={"grant": told.prediction.reference})
    refused(told, told.bundle(path, parts), "entry.kind")
    parts = told.parts(told.answer(1), grant_entry={"request": told.prediction.body.records})
    refused(told, told.bundle(path, parts), "entry.kind")
    missing = replace(told.prediction.reference, index=10**6)
    refused(told, told.disclose(path, told.answer(1), entry={"grant": missing}), "bundle.missing-entry")
    wrong = replace(parts.grant.reference, leaf=OTHER)
    refused(told, told.bundle(path, told_with(told, wrong, parts)), "entry.reference")


def told_with(told: ShownStory, grant: Reference, parts: shown.Parts) -> shown.Parts:
    entry = told.log_disclosure(parts.signed, parts.proof, grant)
    return replace(parts, entry=entry)


# -- the statement ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [field.name for field in fields(Shown)])
def test_every_field_of_a_statement_is_bound(told: ShownStory, path: Path, name: str) -> None:
    """Altered, signed and logged again, with a proof of what is true."""
    reference = told.reference_of(told.prediction.reference)
    altered: dict[str, tuple[Any, tuple[str, ...]]] = {
        "prediction": (replace(reference, digest=OTHER), ("disclosure.prediction",)),
        "grant": (reference, ("disclosure.grant",)),
        "scheme": ("mpc" if told.scheme == "ckks" else "ckks", ("disclosure.scheme",)),
        "answers": ((told.answer(0), told.answer(1)), ("consent.scope",)),
        "scale_bits": (told.scale_bits - 1, ("disclosure.scales",)),
        "grid_bits": (told.grid_bits + 1, ("disclosure.scales",)),
        "recipient_nonce": (OTHER, ("disclosure.nonce",)),
        "proof": (Shown.proof_reference(b"another"), ("disclosure.proof",)),
        "issued_at": (LATE, ("consent.expired",)),
        "claims": (("All is well.",), ()),
    }
    value, checks = altered[name]
    if name == "claims":
        signed = sign_shown(told.parts(told.answer(1)).shown, told.clinic.private_key)
        payload = json.loads(base64.b64decode(json.loads(signed)["payload"]))
        payload["predicate"]["claims"] = list(value)
        forged = sign_payload(canonical_bytes("statement", payload), PAYLOAD_TYPE, told.clinic.private_key)
        parts = told.parts(told.answer(1))
        entry = told.log_disclosure(forged, parts.proof, parts.grant.reference)
        with pytest.raises(DecodeError, match="claims"):
            told.verify(told.bundle(path, replace(parts, signed=forged, entry=entry)))
        return
    refused(told, told.disclose(path, told.answer(1), shown={name: value}), *checks)
    if name == "prediction":
        for change in ({"index": reference.index - 1}, {"leaf": OTHER}):
            lie = {"prediction": replace(reference, **change)}
            refused(told, told.disclose(path, told.answer(1), shown=lie), "disclosure.prediction")
        other = Reference(reference.index - 1, OTHER)
        refused(told, told.disclose(path, told.answer(1), entry={"prediction": other}), "disclosure.prediction")


@pytest.mark.parametrize("name", [field.name for field in fields(ShownAnswer)])
def test_every_field_of_an_answer_is_bound(told: ShownStory, path: Path, name: str) -> None:
    """Altered in what is signed, while asked, granted and proven is either the truth or the same lie, as far as it
    can be proven."""
    honest, exact = told.answer(1), told.answer(1, "exact", tolerance=2)
    proofs: tuple[str, ...] = PROOF if told.scheme == "ckks" else (*PROOF, "disclosure.opening")
    altered: dict[str, list[tuple[ShownAnswer, ShownAnswer, tuple[str, ...]]]] = {
        "patient": [
            (honest, replace(honest, patient=0), ("disclosure.answer", "inclusion.root")),
            (honest, replace(honest, patient=2**40), ("disclosure.place",)),
        ],
        "output": [
            (honest, replace(honest, output=1), ("disclosure.answer",)),
            (honest, replace(honest, output=1, result=told.result(1, 1)), proofs),
            (honest, replace(honest, output=2), ("disclosure.place",)),
        ],
        "versus": [
            (honest, replace(honest, versus=1), proofs),
            (told.answer(1, versus=1), replace(told.answer(1, versus=1), versus=None), proofs),
            (honest, replace(honest, versus=7), ("disclosure.place",)),
        ],
        "kind": [(honest, replace(exact, value=honest.value), (*proofs, "decode"))],
        "value": [
            (honest, replace(honest, value=honest.value + 1), proofs),
            (exact, replace(exact, value=exact.value + 1), proofs),
            (honest, replace(honest, value=1 << 200), ("disclosure.impossible",)),
        ],
        "tolerance": [
            (exact, replace(exact, tolerance=1), proofs),
            (exact, replace(exact, tolerance=2**50), ("disclosure.impossible",)),
        ],
        "result": [
            (honest, replace(honest, result=OTHER), ("disclosure.answer",)),
            (honest, replace(honest, result=told.result(1, 1)), ("disclosure.answer",)),
        ],
        "record_id": [(honest, replace(honest, record_id=IDS[0]), ("inclusion.root",))],
        "salt": [(honest, replace(honest, salt=bytes(16)), ("inclusion.root",))],
        "path": [
            (honest, replace(honest, path=tuple(told.handles.path(0))), ("inclusion.root",)),
            (
                honest,
                replace(honest, path=()),
                ("inclusion.length", "inclusion.path", "inclusion.size", "inclusion.root"),
            ),
        ],
    }
    for proven, said, checks in altered[name]:
        case = told.disclose(path, said, proven=[proven])
        with pytest.raises((VerificationFailed, DecodeError)) as caught:
            told.verify(case)
        check = caught.value.check if isinstance(caught.value, VerificationFailed) else "decode"
        assert check in checks or (check == "decode" and set(checks) & set(PROOF)), caught.value


def test_another_patients_answer_under_this_ones_name_is_refused(
    told: ShownStory, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is patient 0's, and proven, but the handle that is opened."""
    mine = {"record_id": IDS[1], "salt": told.handles.salts[1], "path": tuple(told.handles.path(1))}
    case = told.disclose(path, told.answer(0, **mine))
    refused(told, case, "inclusion.root")
    monkeypatch.setattr(audit_disclosure, "verify_inclusion", lambda *arguments: None)
    assert "record 'p-71'" in told.verify(case).sentence


# -- keys and results -------------------------------------------------------------------------------------------------


def test_a_proof_under_another_key_is_refused(encrypted: EncryptedStory, path: Path) -> None:
    """A second key of the clinic, which decrypts the same bytes to something else: with as good a certificate."""
    told, other = encrypted, key_material(number=2)
    parts = told.parts(told.answer(1))
    body = other.body()
    statement = replace(
        told.statement([told.answer(1)], parts.grant.reference.leaf), C_plus=body.C_s_plus, C_minus=body.C_s_minus
    )
    # What it can prove is about other bytes: the least that every decryption reaches.
    least = -((PARAMS.Q - 1) // 2) // told.step + 1
    answers = tuple(replace(answer, value=least) for answer in statement.answers)
    proof = prove_disclosure(replace(statement, answers=answers), told.result_of, other.keys.s, other.openings)
    said = told.answer(1, threshold=least)
    case = told.parts(said)
    signed = sign_shown(told.shown([said], case.grant.reference, proof), told.clinic.private_key)
    entry = told.log_disclosure(signed, proof, case.grant.reference)
    refused(told, told.bundle(path, replace(case, signed=signed, proof=proof, entry=entry)), *PROOF)


def test_a_key_that_is_younger_than_the_records_opens_nothing(encrypted: EncryptedStory, path: Path) -> None:
    """The server attests the same answers under a key that was registered when they were known."""
    told, story = encrypted, encrypted.story
    later = told.world.append(told.clinic, key_material(number=2).body())
    prediction = story.log(key=later.reference)
    moved = EncryptedStory.__new__(EncryptedStory)
    moved.__dict__.update(told.__dict__)
    moved.prediction, moved.envelope = prediction, story.attest(prediction)
    parts = moved.parts(moved.answer(1))
    refused(moved, moved.bundle(path, parts), "ledger.order")
    # Nor under the old key, with the new one's proof: `test_a_proof_under_another_key_is_refused`.


def test_results_of_a_second_prediction_are_not_those_of_the_first(encrypted: EncryptedStory, path: Path) -> None:
    """Both are true; the errors of the second are others, and its grant is another's."""
    told, second = encrypted, shown.second_encrypted(encrypted)
    theirs = second.answer(1)
    scope = Scope(None, told.prediction.body.model, None)
    lies: dict[str, Any] = {"request": {"scope": scope}}
    parts = second.parts(theirs, **lies)
    # In the other's bundle, entry and statement name theirs.
    refused(told, told.bundle(path, parts), "disclosure.prediction")
    proof = second.prove([theirs], parts.grant.reference.leaf)
    for said, check in ((theirs, ("disclosure.answer",)), (replace(theirs, result=told.result(1, 0)), PROOF)):
        signed = sign_shown(told.shown([said], parts.grant.reference, proof), told.clinic.private_key)
        entry = told.log_disclosure(signed, proof, parts.grant.reference)
        refused(told, told.bundle(path, replace(parts, signed=signed, proof=proof, entry=entry)), *check)


def test_a_proof_for_one_grant_serves_no_other(told: ShownStory, path: Path) -> None:
    """The same answer, recipient and question, consented to twice: each disclosure is for its own."""
    first = told.parts(told.answer(1))
    second = told.parts(told.answer(1), grant={"salt": OTHER})
    made = told.shown([told.answer(1)], second.grant.reference, first.proof)
    signed = sign_shown(made, told.clinic.private_key)
    entry = told.log_disclosure(signed, first.proof, second.grant.reference)
    case = told.bundle(path, replace(second, signed=signed, proof=first.proof, entry=entry))
    refused(told, case, *PROOF)
