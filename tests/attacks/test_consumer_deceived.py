"""A consumer is lied to: by a server, by a clinic, by both. It believes nothing that is not proven, and says what is
missing.

The clinic is the real one with its own checks taken out, so that everything it signs and proves is as good as its lie
allows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api.client import answered, disclosure
from api.client.answered import not_granted, unanswered
from api.client.asked import AskedRequest
from api.client.consents import HeldGrant
from api.client.delivery import DELIVERY_BOX, pack_delivery, unpack_delivery
from api.client.transport import Server, ServerError
from api.consent import GrantDocument
from api.entries import Disclosure, Grant, Party, Reference, decode_entry, sign_entry
from privacy.errors import DecodeError, PrivacyError, UsageError, VerificationFailed
from privacy.private_files import private_folder
from privacy.sealed import open_sealed, seal
from tests.support.consumers import Story, predict, sentences, tell
from tests.support.service import running

Answered = tuple[AskedRequest, HeldGrant]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("deceived")
    with running(folder / "server", requests_per_minute=100_000) as server:
        yield tell(server, folder)


@pytest.fixture(scope="module")
def answered_before(told: Story) -> Answered:
    """A request that was answered as it should be."""
    return told.shown(*told.patients())


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Where nothing may be written by a disclosure that is refused."""
    yield tmp_path / "shown.sealproof"
    assert list(tmp_path.glob("*.sealproof*")) + list(tmp_path.glob(".*")) == []


def disclosures(told: Story, asked: AskedRequest) -> list[Any]:
    return [shown for grant in told.consumer.state(asked).grants for shown in grant.disclosures]


def log(told: Story, folder: Path, held: HeldGrant, like: Disclosure, **changes: Any) -> Reference:
    """The clinic logs a disclosure under this grant: one that was made before, with changes."""
    body = replace(like, grant=held.reference, **changes)
    return told.clinic.session.log_once(body, private_folder(folder), "disclosure")


def delivery_of(told: Story, asked: AskedRequest) -> Any:
    """What the clinic sent for this request."""
    (shown,) = disclosures(told, asked)
    box = told.consumer.session.server.blob(shown.body.delivery)
    mailbox = told.consumer.session.identity.mailbox
    assert mailbox is not None
    return unpack_delivery(open_sealed(box, mailbox, purpose=DELIVERY_BOX, context=shown.body.grant.leaf))


def box_for(told: Story, held: HeldGrant, *parts: bytes) -> bytes:
    """A sealed delivery of these parts under this grant, on the server. Returns its digest."""
    body = told.consumer.session.fetch(told.consumer.session.identity.party.index)[1].body
    box = seal(pack_delivery(*parts), body.mailbox, purpose=DELIVERY_BOX, context=held.reference.leaf)
    return told.clinic.session.server.put_blob(box)


def refused(told: Story, asked: AskedRequest, path: Path, check: str, **options: Any) -> VerificationFailed:
    with pytest.raises(VerificationFailed) as error:
        told.consumer.collect(asked, path, **options)
    assert error.value.check == check, error.value
    return error.value


# -- boxes ------------------------------------------------------------------------------------------------------------


def test_a_server_that_hands_out_another_box_is_found_out(
    told: Story, answered_before: Answered, path: Path, monkeypatch: Any
) -> None:
    asked, _ = told.shown(*told.patients())
    (wanted,) = disclosures(told, asked)
    (instead,) = disclosures(told, answered_before[0])
    really = Server._get

    def get(server: Server, target: str, limit: int) -> bytes:
        return really(server, target.replace(wanted.body.delivery.hex(), instead.body.delivery.hex()), limit)

    monkeypatch.setattr(Server, "_get", get)
    with pytest.raises(DecodeError, match="another digest"):
        told.consumer.collect(asked, path)


def test_a_server_that_has_lost_the_box_is_told_as_such(
    told: Story, answered_before: Answered, path: Path, monkeypatch: Any
) -> None:
    asked, _ = answered_before
    (wanted,) = disclosures(told, asked)
    really = Server._get

    def get(server: Server, target: str, limit: int) -> bytes:
        return really(server, target.replace(wanted.body.delivery.hex(), "00" * 32), limit)

    monkeypatch.setattr(Server, "_get", get)
    with pytest.raises(ServerError, match=r"does not have the delivery.*ask 'st-anna' for the file itself"):
        told.consumer.collect(asked, path)


def test_a_server_that_answers_without_end_is_cut_short(
    told: Story, answered_before: Answered, path: Path, monkeypatch: Any
) -> None:
    asked, _ = answered_before
    monkeypatch.setattr("api.client.transport.MAX_BLOB_BYTES", 1000)
    with pytest.raises(DecodeError, match="more than 1000 bytes"):
        told.consumer.collect(asked, path)
    monkeypatch.undo()
    monkeypatch.setattr("api.client.transport.MAX_BUNDLE_BYTES", 1000)
    with pytest.raises(DecodeError, match="more than 1000 bytes"):
        told.consumer.collect(asked, path)


def test_the_box_of_another_consumer_does_not_open(told: Story, path: Path, tmp_path: Path) -> None:
    rival = told.another(tmp_path / "rival", "rival-life")
    theirs, _ = told.shown(*told.patients(), consumer=rival)
    (grant,) = rival.state(theirs).grants
    asked, held = told.granted(*told.patients())
    log(told, tmp_path / "lie", held, grant.disclosures[0].body)
    error = refused(told, asked, path, "sealed.box")
    assert "was not sealed for this consumer under this grant" in error.detail


def test_the_box_of_an_earlier_grant_does_not_open(
    told: Story, answered_before: Answered, path: Path, tmp_path: Path
) -> None:
    """The context of a box is the grant, so that nothing that was sent before can be sent again."""
    first, _ = answered_before
    (before,) = disclosures(told, first)
    asked, held = told.granted(first.document.questions[0].record)
    log(told, tmp_path / "lie", held, before.body)
    refused(told, asked, path, "sealed.box")


def test_a_replayed_disclosure_does_not_answer_a_new_request(
    told: Story, answered_before: Answered, path: Path, tmp_path: Path
) -> None:
    """The same question again, an honest old answer, sealed and logged anew: the nonce is another."""
    first, _ = answered_before
    (before,), old = disclosures(told, first), delivery_of(told, first)
    asked, held = told.granted(first.document.questions[0].record)
    box = box_for(told, held, old.statement, old.proof, held.document.encode())
    log(told, tmp_path / "lie", held, before.body, delivery=box)
    error = refused(told, asked, path, "disclosure.nonce")
    assert "another recipient" in error.detail


def test_an_old_file_is_not_taken_for_the_answer_to_a_new_request(
    told: Story, answered_before: Answered, tmp_path: Path
) -> None:
    """It is found to be the answer to the old one."""
    first, _ = answered_before
    found = told.consumer.collect(first, tmp_path / "old.sealproof")
    asked = told.ask(first.document.questions[0].record)
    assert told.consumer.asked_in(told.consumer.verify(tmp_path / "old.sealproof")) == first != asked
    assert found.recipient_nonce != asked.document.nonce


def test_a_box_that_holds_another_statement_than_the_ledger_names(
    told: Story, answered_before: Answered, path: Path, tmp_path: Path
) -> None:
    asked, held = told.granted(*told.patients())
    theirs, _ = answered_before
    (before,), parts = disclosures(told, theirs), delivery_of(told, theirs)
    for number, lie in enumerate(
        (
            {"statement": bytes(32)},
            {"proof": bytes(32)},
            {},  # the grant is theirs
        )
    ):
        box = box_for(told, held, parts.statement, parts.proof, parts.grant)
        index = log(told, tmp_path / f"lie-{number}", held, before.body, delivery=box, **lie).index
        error = refused(told, asked, path, "disclosure.delivery", disclosure=index)
        assert ("statement", "proof", "grant")[number] in error.detail


def test_a_box_of_noise_is_refused_as_unreadable(told: Story, path: Path, tmp_path: Path) -> None:
    asked, held = told.granted(*told.patients())
    mailbox = told.consumer.session.identity.mailbox.public_key().public_bytes_raw()
    box = seal(b"noise" * 1000, mailbox, purpose=DELIVERY_BOX, context=held.reference.leaf)
    digest = told.clinic.session.server.put_blob(box)
    prediction = told.clinic.open_bundle(told.bundle).verified.prediction.reference
    body = Disclosure(prediction, bytes(32), bytes(32), held.reference, digest)
    told.clinic.session.log_once(body, private_folder(tmp_path / "lie"), "disclosure")
    with pytest.raises(DecodeError, match="delivery"):
        told.consumer.collect(asked, path)


def test_what_was_shown_by_another_way_is_asked_for_there(
    told: Story, answered_before: Answered, path: Path, tmp_path: Path
) -> None:
    (before,) = disclosures(told, answered_before[0])
    asked, held = told.granted(*told.patients())
    log(told, tmp_path / "lie", held, before.body, delivery=None)
    with pytest.raises(UsageError, match="no delivery on the server: ask 'st-anna' for the file"):
        told.consumer.collect(asked, path)


# -- a clinic that answers something else -----------------------------------------------------------------------------


def test_an_answer_about_another_patient_is_refused(told: Story, path: Path, monkeypatch: Any) -> None:
    """A true answer with a true proof, about somebody whom nobody asked about."""
    mine, other = told.patients(2)
    asked, held = told.granted(mine)
    monkeypatch.setattr(disclosure, "check_within", lambda *arguments: None)
    monkeypatch.setattr("api.client.clinic.questions_to_answer", lambda held, records: (told.question(other),))
    told.clinic.disclose(held.index, told.bundle)
    refused(told, asked, path, "consent.scope")


def test_an_answer_to_another_question_is_refused(told: Story, path: Path, monkeypatch: Any) -> None:
    (record,) = told.patients()
    asked, held = told.granted(record)
    lower = told.question(record, kind="threshold", threshold=0.5)
    monkeypatch.setattr(disclosure, "check_within", lambda *arguments: None)
    monkeypatch.setattr("api.client.clinic.questions_to_answer", lambda held, records: (lower,))
    told.clinic.disclose(held.index, told.bundle)
    refused(told, asked, path, "consent.scope")


def granted_otherwise(told: Story, asked: AskedRequest, folder: Path, **changes: Any) -> HeldGrant:
    """A grant that says other things than the request, logged by its clinic and kept where the clinic looks."""
    document = asked.document
    made = GrantDocument(
        "sealproof/grant/v1",
        document.origin,
        document.clinic,
        document.consumer,
        document.digest,
        document.scope,
        document.purpose,
        document.nonce,
        document.questions,
        "2099-01-01T00:00:00Z",
        bytes(32),
    )
    made = replace(made, **changes)
    body = Grant(asked.reference, made.digest, made.until)
    return HeldGrant(told.clinic.session.log_once(body, private_folder(folder), "grant"), made, folder)


def disclose_under(told: Story, held: HeldGrant, monkeypatch: Any) -> None:
    monkeypatch.setattr("api.client.consents.Consents.held", lambda consents, index: held)
    told.clinic.disclose(held.index, told.bundle)
    monkeypatch.undo()


def test_exact_with_a_wider_tolerance_than_asked_is_refused(
    told: Story, path: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """The audit refuses it for the grant; the consumer by itself, too, in words."""
    (record,) = told.patients()
    asked = told.ask(record, kind="exact", tolerance=0.25)
    wider = told.question(record, kind="exact", tolerance=4.0)
    disclose_under(told, granted_otherwise(told, asked, tmp_path / "lie", questions=(wider,)), monkeypatch)
    refused(told, asked, path, "consent.request")
    monkeypatch.setattr("api.client.audit_consent.check_answers_request", lambda grant, request: None)
    error = refused(told, asked, path, "request.question")
    assert "asked to within 16 grid steps, it is answered to within 256" in error.detail


@pytest.mark.parametrize("what", ["purpose", "request"])
def test_consent_to_something_else_is_refused(
    told: Story, path: Path, tmp_path: Path, monkeypatch: Any, what: str
) -> None:
    asked = told.ask(*told.patients())
    lie: dict[str, Any] = {"purpose": "marketing"} if what == "purpose" else {what: bytes(32)}
    disclose_under(told, granted_otherwise(told, asked, tmp_path / "lie", **lie), monkeypatch)
    refused(told, asked, path, "consent.request")


def test_fewer_answers_than_granted_are_told_plainly(told: Story, tmp_path: Path) -> None:
    """True, and not all: which questions were left out, and whether the clinic had consented to them."""
    ones = told.patients(3)
    asked = told.ask(*ones)
    held = told.clinic.grant(asked.index, only=ones[:2])
    told.clinic.disclose(held.index, told.bundle, records=ones[:1])
    found = told.consumer.collect(asked, tmp_path / "shown.sealproof")
    assert sentences(found) == [f"risk of record '{ones[0]}' is at least 0.40625"]
    assert [question.record for question in unanswered(found, asked)] == ones[1:]
    assert [question.record for question in not_granted(found, asked)] == ones[2:]


def test_a_clinic_that_answers_one_question_in_two_ways_is_not_believed(
    told: Story, path: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """Both are proven: within four steps of 33, and of 36. Together they would say more than was agreed to."""
    (record,) = told.patients()
    asked, held = told.shown(record, kind="exact", tolerance=4 / 64)
    found = told.consumer.collect(asked, tmp_path / "first.sealproof")
    again = predict(told.clinic, told.records, told.model, tmp_path / "again.bundle")
    honest = disclosure._Teller._value
    monkeypatch.setattr(disclosure._Teller, "_value", lambda self, *place: honest(self, *place) + 3)
    monkeypatch.setattr(disclosure._Teller, "_check_said", lambda self, *said: None)
    monkeypatch.setattr(disclosure._Teller, "_say", lambda self, *said: None)
    told.clinic.disclose(held.index, again)
    monkeypatch.undo()
    first, second = disclosures(told, asked)
    assert first.reference == found.entry.reference
    error = refused(told, asked, path, "request.answers", disclosure=second.reference.index)
    assert f"entry {first.reference.index} has answered" in error.detail
    assert told.consumer.verify(tmp_path / "first.sealproof").facts == found.facts
    (tmp_path / "first.sealproof").unlink()


# -- a server that hides and invents ----------------------------------------------------------------------------------


def test_what_came_of_a_request_is_not_the_servers_to_say(told: Story, path: Path, monkeypatch: Any) -> None:
    """It is never asked: its list could be stale, or invented. The log is read instead."""

    def never(*arguments: object, **options: object) -> Any:
        raise AssertionError("the server's word was asked for")

    monkeypatch.setattr(Server, "requests_of", never)
    monkeypatch.setattr(Server, "parties", never)
    asked = told.ask(*told.patients())
    told.clinic.refuse(asked.index, "declined")
    assert told.consumer.state(asked).state == "refused"
    with pytest.raises(UsageError, match="has refused the request"):
        told.consumer.collect(asked, path)


def test_an_entry_that_is_left_out_of_the_log_is_missed(
    told: Story, answered_before: Answered, path: Path, monkeypatch: Any
) -> None:
    """A server hides the grant: by leaving it out, or by another entry in its place."""
    asked, held = answered_before
    consumer = told.consumer.open(told.consumer.session.folder, client=told.server.client)
    honest = Server.entries

    def shorter(server: Server, start: int, stop: int) -> list[bytes]:
        return [entry for i, entry in enumerate(honest(server, start, stop), start) if i != held.index]

    def another(server: Server, start: int, stop: int) -> list[bytes]:
        entries = honest(server, start, stop)
        return [entries[0] if i == held.index else entry for i, entry in enumerate(entries, start)]

    for lie in (shorter, another):
        monkeypatch.setattr(Server, "entries", lie)
        with pytest.raises(PrivacyError):
            consumer.collect(asked, path)
        with pytest.raises(PrivacyError):
            consumer.requests()
    monkeypatch.undo()
    assert consumer.state(asked).state == "granted"


def test_an_old_head_hides_nothing_that_was_seen(told: Story, monkeypatch: Any) -> None:
    """Stale: the server goes back to before the refusal. Who has seen a newer head reads up to that."""
    asked = told.ask(*told.patients())
    before = told.consumer.session.server.checkpoint()
    assert told.consumer.state(asked).state == "open"
    told.clinic.refuse(asked.index, "declined")
    monkeypatch.setattr(Server, "checkpoint", lambda server: before)
    assert told.consumer.state(asked).state == "open"  # not seen yet: nothing false is believed, nothing is written
    monkeypatch.undo()
    assert told.consumer.state(asked).state == "refused"
    monkeypatch.setattr(Server, "checkpoint", lambda server: before)
    again = told.consumer.open(told.consumer.session.folder, client=told.server.client)
    assert again.state(asked).state == "refused"


def test_a_server_cannot_lie_about_a_clinics_mailbox(told: Story, tmp_path: Path, monkeypatch: Any) -> None:
    """Not even with the clinic's signing key: the key is read from the entry that the trusted log includes."""
    session = told.clinic.session
    party = session.identity.party
    assert party is not None
    body = decode_entry(session.server.entry(party.index)).body
    assert isinstance(body, Party)
    mine = told.consumer.session.identity.mailbox.public_key().public_bytes_raw()
    forged = sign_entry(replace(body, mailbox=mine), None, session.identity.private_key)
    honest = Server.entries

    def entries(server: Server, start: int, stop: int) -> list[bytes]:
        return [forged if i == party.index else entry for i, entry in enumerate(honest(server, start, stop), start)]

    sent: list[str] = []
    monkeypatch.setattr(Server, "put_blob", lambda server, data: sent.append("a box"))
    monkeypatch.setattr(Server, "append", lambda server, entry: sent.append("an entry"))
    monkeypatch.setattr(Server, "entries", entries)
    stranger = told.another(tmp_path / "stranger", "stranger-life")
    with pytest.raises(VerificationFailed):
        told.ask("p0", consumer=stranger)
    assert sent == []
    assert not (stranger.session.folder / "asked").exists()


def test_a_bundle_of_another_prediction_than_was_shown_is_refused(
    told: Story, answered_before: Answered, path: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    asked, _ = answered_before
    predict(told.clinic, told.records, told.model, tmp_path / "again.bundle")
    honest = Server.save_bundle

    def save(server: Server, prediction: int, target: Path, **options: Any) -> None:
        target.write_bytes((tmp_path / "again.bundle").read_bytes())

    monkeypatch.setattr(Server, "save_bundle", save)
    refused(told, asked, path, "disclosure.prediction")
    monkeypatch.setattr(Server, "save_bundle", honest)
    told.consumer.collect(asked, tmp_path / "good")


def test_a_file_that_was_changed_by_one_bit_is_refused(told: Story, answered_before: Answered, tmp_path: Path) -> None:
    asked, _ = answered_before
    good = tmp_path / "good"
    told.consumer.collect(asked, good)
    data = good.read_bytes()
    digest = hashlib.sha256(data).digest()
    for number in range(8):
        place = int.from_bytes(digest[2 * number : 2 * number + 2], "big") * len(data) >> 16
        changed = bytearray(data)
        changed[place] ^= 1 << (number % 8)
        bad = tmp_path / "bad"
        bad.write_bytes(changed)
        with pytest.raises((VerificationFailed, DecodeError, UsageError)):
            told.consumer.verify(bad, offline=True)


def test_a_lower_threshold_than_asked_is_refused_by_two_checks(
    told: Story, path: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """The audit's, for the grant, and the consumer's own, for its question. Without both, a weaker answer is taken."""
    (record,) = told.patients()
    asked = told.ask(record)
    lower = told.question(record, kind="threshold", threshold=0.5)
    disclose_under(told, granted_otherwise(told, asked, tmp_path / "lie", questions=(lower,)), monkeypatch)
    refused(told, asked, path, "consent.request")
    monkeypatch.setattr("api.client.audit_consent.check_answers_request", lambda grant, request: None)
    error = refused(told, asked, path, "request.question")
    assert "at least 26 grid steps, it is answered for 0" in error.detail
    monkeypatch.setattr("api.client.consumer.check_answers", lambda *arguments: None)
    found = told.consumer.collect(asked, tmp_path / "believed")
    assert found.facts[0].value == 0
    monkeypatch.setattr("api.client.consumer.check_answers", answered.check_answers)
    with pytest.raises(VerificationFailed, match=r"request\.question"):
        told.consumer.verify(tmp_path / "believed")
