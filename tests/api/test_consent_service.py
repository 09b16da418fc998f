"""Requests, grants and disclosures over HTTP: what a server takes, what it refuses, and what it tells of them."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from api.client.transport import RequestRow, Server
from api.consent_rules import MAX_REQUEST_BOX_BYTES, check_consent
from api.entries import (
    Body,
    Disclosure,
    Grant,
    Party,
    Records,
    Reference,
    Refusal,
    Request,
    Revocation,
    decode_entry,
    sign_entry,
)
from api.errors import NotPermitted
from api.registry import Registry
from api.settings import Settings
from privacy.errors import VerificationFailed
from tests.api.conftest import Caller, Running, Upload, location, ok, refused, register, run_server, with_data
from tests.support.report_ledger import ORIGIN, consented, grant, shown

UNTIL = "2999-01-01T00:00:00Z"
PAST = "2001-01-01T00:00:00Z"


def fresh() -> bytes:
    return secrets.token_bytes(32)


@pytest.fixture(scope="module")
def consumer(service: Running) -> Caller:
    """With a mailbox, as every new one has."""
    key, mailbox = Ed25519PrivateKey.generate(), X25519PrivateKey.generate().public_key().public_bytes_raw()
    party = Party("consumer", "insurer", key.public_key().public_bytes_raw(), mailbox)
    reference = location(service.client.post("/v1/parties", content=sign_entry(party, None, key)))
    return Caller("insurer", key, service.client, reference)


@pytest.fixture(scope="module")
def other_clinic(service: Running) -> Caller:
    return register(service.client, "clinic", "clinic-b")


@pytest.fixture(scope="module")
def prediction(service: Running, clinic_party: Caller, upload_cohort: Upload, model_entry: Reference) -> Reference:
    records = clinic_party.submit(upload_cohort(3).body)
    job = ok(clinic_party.predict(records.index, model_entry.index, "ab" * 32))["job"]
    done = clinic_party.wait(job)
    assert done["state"] == "done", done
    return service.service.registry.reference(done["prediction"])


@pytest.fixture(scope="module")
def request_entry(consumer: Caller, clinic_party: Caller) -> Reference:
    return consumer.submit(Request(clinic_party.reference, fresh(), consumer.upload(b"a sealed box")))


@pytest.fixture(scope="module")
def grant_entry(clinic_party: Caller, request_entry: Reference) -> Reference:
    return clinic_party.submit(Grant(request_entry, fresh(), UNTIL))


@pytest.fixture
def unchanged(service: Running, prediction: Reference, grant_entry: Reference, other_clinic: Caller) -> Iterator[None]:
    """Whatever happens in the test, the server keeps what it kept."""
    before = service.state()
    yield
    assert service.state() == before


def failed(check: str) -> tuple[str, str]:
    return "verification-failed", check


def send(author: Caller, body: Body) -> httpx.Response:
    return author.send("POST", "/v1/entries", author.sign(body))


# -- what is told -----------------------------------------------------------------------------------------------------


def test_parties_are_listed_and_found_by_name(service: Running, consumer: Caller, other_clinic: Caller) -> None:
    server = Server(service.url)
    rows = server.parties()
    assert [row.index for row in rows] == sorted(row.index for row in rows)
    assert {(row.name, row.role, row.mailbox) for row in rows} >= {
        *(("insurer", "consumer", True), ("clinic-b", "clinic", False), ("localhost/sealproof", "server", False)),
    }
    (found,) = server.parties("insurer")
    assert Reference(found.index, found.leaf) == consumer.reference
    assert server.parties("nobody") == []
    page = ok(service.client.get(f"/v1/parties?start={rows[1].index}&limit=1"))
    assert [row["index"] for row in page] == [rows[1].index]
    server.close()


def test_a_request_from_asking_to_being_shown(
    service: Running, consumer: Caller, clinic_party: Caller, prediction: Reference
) -> None:
    server = Server(service.url)
    box = consumer.upload(b"sealed for the clinic")
    request = consumer.submit(Request(clinic_party.reference, fresh(), box))

    def row() -> RequestRow:
        told = server.requests_of(clinic_party.reference.index, request.index)
        assert told == server.requests_of(consumer.reference.index, request.index)
        return told[0]

    assert (row().state, row().grants, row().refusal) == ("open", (), None)
    assert Reference(row().index, row().leaf) == request
    assert (row().clinic, row().consumer) == (clinic_party.reference.index, consumer.reference.index)
    granted = clinic_party.submit(Grant(request, fresh(), UNTIL))
    assert (row().state, row().grants[0].index, row().grants[0].until) == ("granted", granted.index, UNTIL)
    delivery = clinic_party.upload(b"sealed for the consumer")
    disclosed = clinic_party.submit(Disclosure(prediction, fresh(), fresh(), granted, delivery))
    assert row().grants[0].disclosures == (disclosed.index,)
    listed = ok(service.client.get(f"/v1/predictions/{prediction.index}/disclosures"))
    assert disclosed.index in [one["index"] for one in listed]
    clinic_party.submit(Revocation(granted, "no longer"))
    assert (row().state, row().grants[0].revoked) == ("granted", True)
    refused(send(clinic_party, Disclosure(prediction, fresh(), fresh(), granted)), 422, *failed("ledger.revoked"))
    server.close()


def test_refused_and_withdrawn_requests(service: Running, consumer: Caller, clinic_party: Caller) -> None:
    server = Server(service.url)
    unwelcome, regret = (consumer.submit(Request(clinic_party.reference, fresh(), None)) for _ in range(2))
    refusal = clinic_party.submit(Refusal(unwelcome, "declined"))
    consumer.submit(Revocation(regret, "asked by mistake"))
    first, second = server.requests_of(consumer.reference.index, unwelcome.index)[:2]
    assert first.refusal is not None
    assert (first.state, first.refusal.index, first.refusal.reason) == ("refused", refusal.index, "declined")
    assert (second.state, second.refusal) == ("withdrawn", None)
    refused(send(clinic_party, Grant(regret, fresh(), UNTIL)), 422, *failed("ledger.revoked"))
    server.close()


def test_the_same_entry_again_has_the_same_index(consumer: Caller, clinic_party: Caller) -> None:
    entry = consumer.sign(Request(clinic_party.reference, fresh(), None))
    first = consumer.send("POST", "/v1/entries", entry)
    again = consumer.send("POST", "/v1/entries", entry)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()


def test_lists_of_what_is_no_party_and_no_prediction(service: Running, key_entry: Reference) -> None:
    refused(service.client.get(f"/v1/parties/{key_entry.index}/requests"), 422, *failed("ledger.reference"))
    refused(service.client.get(f"/v1/predictions/{key_entry.index}/disclosures"), 422, *failed("ledger.reference"))
    refused(service.client.get("/v1/parties/999999/requests"), 422, *failed("ledger.reference"))
    refused(service.client.get("/v1/parties?limit=257"), 422, "invalid-request")


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchanged")
def test_nothing_is_shown_without_a_grant_though_older_ledgers_may_show_it(
    service: Running, clinic_party: Caller, prediction: Reference
) -> None:
    entry = clinic_party.sign(Disclosure(prediction, fresh(), fresh()))
    refused(clinic_party.send("POST", "/v1/entries", entry), 403, "not-permitted", "disclosure.grant")
    assert service.service.registry.check(entry)


@pytest.mark.usefixtures("unchanged")
def test_a_grant_that_has_ended_before_it_begins(clinic_party: Caller, request_entry: Reference) -> None:
    for request in (request_entry, None):
        refused(send(clinic_party, Grant(request, fresh(), PAST)), 422, *failed("consent.expired"))


@pytest.mark.usefixtures("unchanged")
def test_boxes_that_were_not_uploaded_or_hold_no_request(
    consumer: Caller, clinic_party: Caller, prediction: Reference, grant_entry: Reference
) -> None:
    refused(send(consumer, Request(clinic_party.reference, fresh(), fresh())), 422, *failed("entry.blob"))
    late = Disclosure(prediction, fresh(), fresh(), grant_entry, fresh())
    refused(send(clinic_party, late), 422, *failed("entry.blob"))


def test_a_box_too_large_for_a_request(consumer: Caller, clinic_party: Caller) -> None:
    """A clinic that looks into its mailbox fetches no gigabytes."""
    largest, larger = bytes(MAX_REQUEST_BOX_BYTES), bytes(MAX_REQUEST_BOX_BYTES + 1)
    target = f"/v1/blobs/{hashlib.sha256(larger).hexdigest()}"
    refused(consumer.send("PUT", target, larger), 413, "too-large")
    assert consumer.client.get(target).status_code == 404
    # An accomplice among the clinics uploads it.
    box = clinic_party.upload(larger)
    refused(send(consumer, Request(clinic_party.reference, fresh(), box)), 422, *failed("request.box"))
    consumer.submit(Request(clinic_party.reference, fresh(), consumer.upload(largest)))


@pytest.mark.usefixtures("unchanged")
def test_another_clinic_neither_answers_nor_uses_what_was_granted(
    consumer: Caller, other_clinic: Caller, prediction: Reference, request_entry: Reference, grant_entry: Reference
) -> None:
    refused(send(other_clinic, Grant(request_entry, fresh(), UNTIL)), 422, *failed("request.addressee"))
    refused(send(other_clinic, Refusal(request_entry, "declined")), 422, *failed("request.addressee"))
    refused(send(other_clinic, Revocation(grant_entry, "x")), 422, *failed("revocation.author"))
    stolen = Disclosure(prediction, fresh(), fresh(), grant_entry)
    refused(send(other_clinic, stolen), 422, *failed("disclosure.author"))
    refused(send(consumer, stolen), 422, *failed("entry.role"))


@pytest.mark.usefixtures("unchanged")
def test_what_a_consumer_signed_is_submitted_by_itself_alone(consumer: Caller, clinic_party: Caller) -> None:
    entry = consumer.sign(Request(clinic_party.reference, fresh(), None))
    refused(clinic_party.send("POST", "/v1/entries", entry), 403, "not-permitted", "entry.author")


Try = Callable[[Caller, int, int, int], httpx.Response]
OFFER = {"address": None, "dealer_address": "dealer.example:7300", "dealer_key": "ab" * 32, "wait": 0}
NOT_FOR_CONSUMERS: dict[str, tuple[str, Try]] = {
    "a prediction": ("records.author", lambda who, _, records, model: who.predict(records, model, "cd" * 32)),
    "ciphertexts": ("key.author", lambda who, key, *_: who.send("POST", f"/v1/ciphertexts?key={key}", b"x")),
    "weights": ("model.author", lambda who, _, __, model: who.send("PUT", f"/v1/models/{model}/opening", b"{}")),
    "sessions": ("mpc.role", lambda who, *_: who.send("POST", "/v1/mpc/offers", json.dumps(OFFER).encode())),
}


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("what", NOT_FOR_CONSUMERS)
def test_a_consumer_has_no_part_in_computing(
    service: Running, consumer: Caller, key_entry: Reference, model_entry: Reference, prediction: Reference, what: str
) -> None:
    check, attempt = NOT_FOR_CONSUMERS[what]
    records = service.service.registry.all(Records)[0].reference
    response = attempt(consumer, key_entry.index, records.index, model_entry.index)
    refused(response, 403, "not-permitted", check)


def test_a_consumer_has_so_many_open_requests_at_most(settings: Settings, tmp_path: Path) -> None:
    with run_server(with_data(settings, tmp_path / "data", requests_per_consumer=2)) as running:
        consumer, other = (register(running.client, "consumer", name) for name in ("insurer", "sponsor"))
        clinic, second = (register(running.client, "clinic", name) for name in ("clinic-a", "clinic-b"))
        first = consumer.sign(Request(clinic.reference, fresh(), None))
        logged = location(consumer.send("POST", "/v1/entries", first))
        answered = consumer.submit(Request(second.reference, fresh(), None))
        before = running.state()
        for to in (clinic, second):
            refused(send(consumer, Request(to.reference, fresh(), None)), 403, "not-permitted", "request.cap")
        assert running.state() == before
        # Nobody else is kept from asking, and what is logged already is answered as ever.
        other.submit(Request(clinic.reference, fresh(), None))
        assert location(consumer.send("POST", "/v1/entries", first)) == logged
        second.submit(Refusal(answered, "declined"))
        consumer.submit(Request(clinic.reference, fresh(), None))
        refused(send(consumer, Request(clinic.reference, fresh(), None)), 403, "not-permitted", "request.cap")
        consumer.submit(Revocation(logged, "enough"))
        last = consumer.submit(Request(clinic.reference, fresh(), None))
        refused(send(consumer, Request(clinic.reference, fresh(), None)), 403, "not-permitted", "request.cap")
        granted = clinic.submit(Grant(last, fresh(), UNTIL))
        consumer.submit(Request(clinic.reference, fresh(), None))
        # A grant that ends reopens nothing.
        clinic.submit(Revocation(granted, "no longer"))
        refused(send(consumer, Request(clinic.reference, fresh(), None)), 403, "not-permitted", "request.cap")


# -- the rules themselves ---------------------------------------------------------------------------------------------


def test_a_grant_holds_to_the_second() -> None:
    ledger = consented()  # its grant ends with the second 2026-02-01T00:00:00Z
    registry = Registry(ORIGIN)
    registry.extend(ledger.entries)
    for author, body in (("st-anna", shown(ledger, text="new")), ("st-anna", grant(ledger, document="new"))):
        entry = decode_entry(ledger.sign(author, body))
        check_consent(registry, entry, 1, datetime(2026, 2, 1, tzinfo=UTC))
        with pytest.raises(VerificationFailed, match=r"consent\.expired"):
            check_consent(registry, entry, 1, datetime(2026, 2, 1, 0, 0, 1, tzinfo=UTC))


def test_whoever_asks_of_what_is_no_grant_gets_no_answer() -> None:
    ledger = consented()
    registry = Registry(ORIGIN)
    registry.extend(ledger.entries)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    entry = decode_entry(ledger.sign("st-anna", shown(ledger, grant="request", text="new")))
    with pytest.raises(VerificationFailed, match=r"ledger\.reference"):
        check_consent(registry, entry, 1, now)
    entry = decode_entry(ledger.sign("st-anna", shown(ledger, grant=None, text="new")))
    with pytest.raises(NotPermitted, match=r"disclosure\.grant"):
        check_consent(registry, entry, 1, now)
