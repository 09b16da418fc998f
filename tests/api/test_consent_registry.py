"""What a ledger shows about consent: whoever breaks a rule of it, as consumer or as clinic, is refused by everybody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from api.consent_schemas import RequestRow
from api.entries import Body, Grant, Model, Network, Reference, Refusal, Request, Revocation
from api.registry import Registry
from privacy.errors import VerificationFailed
from tests.support.report_ledger import (
    ORIGIN,
    ReportLedger,
    committed,
    consented,
    digest,
    grant,
    key,
    model,
    network,
    prediction,
    records,
    request,
    shown,
)


@pytest.fixture(scope="module")
def ledger() -> ReportLedger:
    return consented()


@pytest.fixture(scope="module")
def registry(ledger: ReportLedger) -> Registry:
    registry = Registry(ORIGIN)
    registry.extend(ledger.entries)
    return registry


def refuses(registry: Registry, entry: bytes, check: str) -> None:
    size = registry.size
    with pytest.raises(VerificationFailed) as caught:
        registry.add(entry)
    assert caught.value.check == check
    assert registry.size == size
    assert check == "ledger.duplicate" or registry.index_of(entry) is None


# -- who may write what -----------------------------------------------------------------------------------------------

Make = Callable[[ReportLedger], tuple[str, Body]]

REFUSED: dict[str, tuple[str, Make]] = {
    # A malicious consumer.
    "a grant that a consumer gives itself": ("entry.role", lambda w: ("insurer", grant(w, "waiting", "mine"))),
    "a refusal by a consumer": ("entry.role", lambda w: ("insurer", Refusal(w.at["waiting"], "declined"))),
    "a disclosure by a consumer": ("entry.role", lambda w: ("insurer", shown(w, text="mine"))),
    "a key of a consumer": ("entry.role", lambda w: ("insurer", replace(key(), clinic="insurer"))),
    "records of a consumer": ("entry.role", lambda w: ("insurer", replace(records(w), clinic="insurer"))),
    "committed records of a consumer": ("entry.role", lambda w: ("insurer", committed("insurer"))),
    "a model of a consumer": ("entry.role", lambda w: ("insurer", model(name="mine"))),
    "a network of a consumer": ("entry.role", lambda w: ("insurer", replace(network(), name="mine"))),
    "a prediction by a consumer": ("entry.role", lambda w: ("insurer", prediction(w))),
    "a request to an owner": ("request.clinic", lambda w: ("insurer", request(w, "heart-lab", "new"))),
    "a request to the server": ("request.clinic", lambda w: ("insurer", request(w, "server", "new"))),
    "a request to another consumer": ("request.clinic", lambda w: ("insurer", request(w, "sponsor", "new"))),
    "a request to itself": ("request.clinic", lambda w: ("insurer", request(w, "insurer", "new"))),
    "a request to what is no party": ("ledger.reference", lambda w: ("insurer", request(w, "records", "new"))),
    "a request to a clinic by index alone": (
        "ledger.reference",
        lambda w: ("insurer", Request(replace(w.at["city"], leaf=bytes(32)), digest("new"), None)),
    ),
    "the same request twice": ("ledger.duplicate", lambda w: ("insurer", request(w))),
    "the same document sealed again": ("request.again", lambda w: ("insurer", request(w, box="again"))),
    "the same document for another clinic": ("request.again", lambda w: ("insurer", request(w, "city"))),
    "a withdrawn document again": ("request.again", lambda w: ("insurer", request(w, document="regret", box="x"))),
    "a request of another consumer withdrawn": (
        "revocation.author",
        lambda w: ("insurer", Revocation(w.at["waiting"], "x")),
    ),
    "a grant revoked by who asked": ("revocation.author", lambda w: ("insurer", Revocation(w.at["grant"], "x"))),
    "a request withdrawn twice": ("ledger.revoked", lambda w: ("insurer", Revocation(w.at["regret"], "again"))),
    # A malicious clinic.
    "a request by a clinic": ("entry.role", lambda w: ("city", request(w, "st-anna", "new"))),
    "a request by an owner": ("entry.role", lambda w: ("heart-lab", request(w, "st-anna", "new"))),
    "a request by the server": ("entry.role", lambda w: ("server", request(w, "st-anna", "new"))),
    "a grant of a request to another clinic": ("request.addressee", lambda w: ("city", grant(w, "waiting", "new"))),
    "a refusal of a request to another clinic": (
        "request.addressee",
        lambda w: ("city", Refusal(w.at["waiting"], "declined")),
    ),
    "a grant of a withdrawn request": ("ledger.revoked", lambda w: ("st-anna", grant(w, "regret", "new"))),
    "a refusal of a withdrawn request": ("ledger.revoked", lambda w: ("st-anna", Refusal(w.at["regret"], "declined"))),
    "a grant of a refused request": ("grant.refused", lambda w: ("city", grant(w, "unwelcome", "new"))),
    "a second refusal": ("refusal.again", lambda w: ("city", Refusal(w.at["unwelcome"], "declined"))),
    "a refusal of a granted request": ("refusal.granted", lambda w: ("st-anna", Refusal(w.at["request"], "declined"))),
    "the same grant twice": ("ledger.duplicate", lambda w: ("st-anna", grant(w))),
    "a grant for longer by the same document": (
        "grant.again",
        lambda w: ("st-anna", grant(w, until="2027-01-01T00:00:00Z")),
    ),
    "a revoked grant again": ("grant.again", lambda w: ("st-anna", grant(w, None, "grant too"))),
    "a grant of what is no request": ("ledger.reference", lambda w: ("st-anna", grant(w, "grant", "new"))),
    "a grant of a request by index alone": (
        "ledger.reference",
        lambda w: ("st-anna", replace(grant(w, None, "new"), request=replace(w.at["waiting"], leaf=bytes(32)))),
    ),
    "a grant of a request to come": (
        "ledger.reference",
        lambda w: ("st-anna", replace(grant(w, None, "new"), request=Reference(99, bytes(32)))),
    ),
    "a refusal of what is no request": ("ledger.reference", lambda w: ("city", Refusal(w.at["grant"], "declined"))),
    "another clinic's answers shown": ("disclosure.author", lambda w: ("city", shown(w, "joint", None, "new"))),
    "another clinic's encrypted answers shown": (
        "disclosure.author",
        lambda w: ("city", shown(w, "prediction", None, "new")),
    ),
    "answers shown under another clinic's grant": (
        "grant.author",
        lambda w: ("city", shown(w, "city joint", "grant", "new")),
    ),
    "answers shown under a revoked grant": ("ledger.revoked", lambda w: ("st-anna", shown(w, "joint", "grant too"))),
    "answers shown under a request": ("ledger.reference", lambda w: ("st-anna", shown(w, "joint", "waiting"))),
    "answers shown under a grant by index alone": (
        "ledger.reference",
        lambda w: ("st-anna", replace(shown(w, text="new"), grant=replace(w.at["grant"], leaf=bytes(32)))),
    ),
    "answers shown under a grant to come": (
        "ledger.reference",
        lambda w: ("st-anna", replace(shown(w, text="new"), grant=Reference(99, bytes(32)))),
    ),
    "what is no answer shown": ("ledger.reference", lambda w: ("st-anna", shown(w, "records", text="new"))),
    "an answer by index alone shown": (
        "ledger.reference",
        lambda w: ("st-anna", replace(shown(w, text="new"), prediction=replace(w.at["joint"], leaf=bytes(32)))),
    ),
    "a grant of another clinic revoked": ("revocation.author", lambda w: ("city", Revocation(w.at["grant"], "x"))),
    "a request withdrawn by its clinic": ("revocation.author", lambda w: ("st-anna", Revocation(w.at["request"], "x"))),
    "a grant revoked twice": ("ledger.revoked", lambda w: ("st-anna", Revocation(w.at["grant too"], "again"))),
    "a refusal revoked": ("revocation.target", lambda w: ("city", Revocation(w.at["refusal"], "regret"))),
    "a disclosure revoked": ("revocation.target", lambda w: ("st-anna", Revocation(w.at["shown"], "regret"))),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(ledger: ReportLedger, registry: Registry, name: str) -> None:
    check, make = REFUSED[name]
    author, body = make(ledger)
    refuses(registry, ledger.sign(author, body), check)


@pytest.mark.parametrize("author", ["city", "heart-lab", "sponsor"])
def test_a_request_signed_by_somebody_else_is_refused(ledger: ReportLedger, registry: Registry, author: str) -> None:
    refuses(registry, ledger.sign("insurer", request(ledger, document="forged"), key=author), "entry.signature")


def test_a_grant_signed_by_somebody_else_is_refused(ledger: ReportLedger, registry: Registry) -> None:
    for author in ("insurer", "server", "city"):
        refuses(registry, ledger.sign("st-anna", grant(ledger, "waiting", "forged"), key=author), "entry.signature")


# -- in which order ---------------------------------------------------------------------------------------------------


def read(ledger: ReportLedger) -> Registry:
    registry = Registry(ORIGIN)
    registry.extend(ledger.entries)
    return registry


def test_nothing_is_shown_under_a_grant_once_it_is_revoked() -> None:
    ledger = consented()
    ledger.add("more", "st-anna", shown(ledger, text="more"))
    ledger.add("end", "st-anna", Revocation(ledger.at["grant"], "no longer"))
    registry = read(ledger)
    refuses(registry, ledger.sign("st-anna", shown(ledger, text="late")), "ledger.revoked")
    assert RequestRow.of(registry, 21, registry.size).state == "granted"
    # Who regrets it may grant the same request anew, in a new document.
    ledger.add("anew", "st-anna", grant(ledger, document="anew"))
    ledger.add("under it", "st-anna", shown(ledger, grant="anew", text="late"))
    registry.extend(ledger.entries[-2:])


def test_nothing_is_granted_or_shown_once_the_consumer_has_withdrawn_its_request() -> None:
    ledger = consented()
    ledger.add("end", "insurer", Revocation(ledger.at["request"], "no longer of interest"))
    registry = read(ledger)
    refuses(registry, ledger.sign("st-anna", shown(ledger, text="late")), "ledger.revoked")
    refuses(registry, ledger.sign("st-anna", grant(ledger, document="late")), "ledger.revoked")
    assert RequestRow.of(registry, 21, registry.size).state == "withdrawn"


def test_consumers_may_use_the_same_document_and_clinics_too() -> None:
    """Whoever copies a digest from the ledger keeps nobody else from using it."""
    ledger = consented()
    ledger.add("copy", "sponsor", request(ledger))
    ledger.add("copied", "city", grant(ledger, None))
    read(ledger)


def test_ledgers_of_older_releases_are_read() -> None:
    """With disclosures without a grant, which a server takes no more."""
    ledger = consented()
    ledger.add("old", "st-anna", shown(ledger, "joint", None, "old"))
    ledger.add("expired", "st-anna", grant(ledger, None, "expired", "2001-01-01T00:00:00Z"))
    ledger.add("late", "st-anna", shown(ledger, grant="expired", text="late"))
    assert read(ledger).size == len(ledger.entries)


# -- what came of a request -------------------------------------------------------------------------------------------

STATES = {21: "granted", 22: "refused", 27: "withdrawn", 34: "open"}


@pytest.mark.parametrize("index", STATES)
def test_requests_say_what_came_of_them(registry: Registry, index: int) -> None:
    assert RequestRow.of(registry, index, registry.size).state == STATES[index]
    # Under the head that has the request and nothing after it, each is open.
    assert RequestRow.of(registry, index, index + 1).state == "open"


def test_a_request_lists_its_grants_and_what_was_shown_under_each(registry: Registry) -> None:
    row = RequestRow.of(registry, 21, registry.size)
    assert [(one.index, one.revoked, one.disclosures) for one in row.grants] == [(24, False, [25, 26]), (31, True, [])]
    assert (row.clinic, row.consumer, row.refusal) == (1, 19, None)
    before = RequestRow.of(registry, 21, 26)
    assert [(one.index, one.revoked, one.disclosures) for one in before.grants] == [(24, False, [25])]
    assert not RequestRow.of(registry, 21, 32).grants[1].revoked
    refused = RequestRow.of(registry, 22, registry.size).refusal
    assert refused is not None
    assert (refused.index, refused.reason) == (23, "no-consent")


def test_requests_are_found_by_clinic_and_by_consumer(registry: Registry) -> None:
    consents = registry.consents
    assert [tuple(consents.requests(party)) for party in (1, 2, 3, 19, 20)] == [
        *((21, 27, 34), (22,), (), (21, 27), (22, 34)),
    ]
    assert [consents.open_requests(consumer) for consumer in (19, 20, 1)] == [0, 1, 0]
    assert tuple(consents.disclosures(29)) == (30,)


def test_bodies_of_all_kinds_are_found(registry: Registry) -> None:
    assert [entry.reference.index for entry in registry.all(Request)] == [21, 22, 27, 34]
    assert [entry.reference.index for entry in registry.all(Grant)] == [24, 29, 31]
    assert [entry.reference.index for entry in registry.all(Refusal)] == [23]
    assert registry.get(5, Model) and registry.get(8, Network)
