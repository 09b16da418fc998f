"""Reports of a ledger: what they say, when they say it happened, and that the same ledger gives the same files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.approval_entries import ApprovalScope, compressed_key, sign_digest
from api.client.ledger_report.entries import Said, said
from api.client.ledger_report.heads import Bounds, Timeline, policy_digest
from api.client.ledger_report.html_page import html_bytes
from api.client.ledger_report.reading import Broken, OpenRegistry
from api.client.ledger_report.report import Period, Report, time_text, when
from api.client.ledger_report.rows import FLAGS, Row
from api.entries import Approval, ApprovalSignature, Clearance, Reference, Revocation
from api.registry import Logged
from ledger.trust_policy import TlogPolicy
from privacy.errors import UsageError
from tests.support.report_ledger import (
    HOUR,
    NOON,
    ORIGIN,
    ReportLedger,
    cells,
    consented,
    everything,
    grant,
    prediction,
    records,
    report_of,
    shown,
    started,
)


@pytest.fixture(scope="module")
def ledger() -> ReportLedger:
    return everything()


@pytest.fixture(scope="module")
def report(ledger: ReportLedger) -> Report:
    return report_of(ledger, witnessed=True)


# -- what is said -----------------------------------------------------------------------------------------------------

TOLD = {
    0: ("server", "registered as server", "registered"),
    4: ("st-anna", "registered encryption key number 1", "logged"),
    5: ("heart-lab", 'published the model "heart 1", a linear model with 1 output', "logged"),
    6: ("st-anna", "committed encrypted records of 4,097 patients, 30 measurements", "withdrawn later by entry 17"),
    7: ("server", 'logged answers of the model "heart 1" for 4,097 patients, on encrypted records', "answers logged"),
    8: ("heart-lab", 'published the model "net 2", a network of 2 layers', "logged"),
    9: ("st-anna", "committed records of 65 patients, 3 measurements each, for any model", "logged"),
    11: ("server", 'logged answers of the model "net 2" for 65 patients, computed jointly', "answers logged"),
    13: (
        *("st-anna", "showed answers of entry 11 to a recipient who is not on the ledger, without a grant"),
        "shown without consent on the ledger",
    ),
    14: ("st-anna", 'that ended without its proof: "the other node stalled"', "cleared by both"),
    16: ("heart-lab", "agreed to go on after the suspension in entry 14", "logged"),
    17: ("st-anna", 'withdrew entry 6 (records): "consent was withdrawn"', "logged"),
    18: ("heart-lab", "reported a session", "no answer; not cleared"),
}


@pytest.mark.parametrize("index", TOLD)
def test_every_entry_says_who_did_what_and_what_came_of_it(report: Report, index: int):
    row, (author, what, outcome) = report.rows[index], TOLD[index]
    assert (row.index, row.author) == (index, author)
    assert what in row.said.what
    assert outcome in row.outcome


CONSENTED = {
    19: ("insurer", 'registered as consumer "insurer"', "registered", ""),
    21: ("insurer", 'asked "st-anna" to show something', "granted by entry 24, entry 31", ""),
    22: ("sponsor", 'asked "city" to show something', "refused by entry 23", ""),
    23: ("city", 'refused the request in entry 22 of "sponsor": no-consent', "logged", ""),
    24: ("st-anna", 'granted the request in entry 21 of "insurer", until 2026-02-01T00:00:00Z', "logged", ""),
    25: ("st-anna", 'showed answers of entry 11 to "insurer", under the grant in entry 24', "shown", ""),
    26: ("st-anna", 'showed answers of entry 7 to "insurer", under the grant in entry 24', "shown", ""),
    27: ("insurer", "asked", "not answered; withdrawn later by entry 28", ""),
    28: ("insurer", 'withdrew entry 27 (request): "asked by mistake"', "logged", ""),
    29: ("st-anna", "granted somebody who is not on the ledger to be shown something, until 2026", "logged", ""),
    30: ("st-anna", "to a recipient who is not on the ledger, under the grant in entry 29", "shown", ""),
    31: ("st-anna", "granted the request in entry 21", "logged; withdrawn later by entry 32", ""),
    32: ("st-anna", "withdrew entry 31 (grant)", "logged", ""),
    33: ("city", "without a grant", "shown without consent on the ledger", "shown-without-grant"),
    34: ("sponsor", "asked", "not answered", ""),
}


@pytest.fixture(scope="module")
def asked() -> Report:
    return report_of(consented(), witnessed=True)


@pytest.mark.parametrize("index", CONSENTED)
def test_requests_consent_and_what_was_shown_are_told(asked: Report, index: int):
    row, (author, what, outcome, flags) = asked.rows[index], CONSENTED[index]
    assert row.author == author
    assert what in row.said.what
    assert row.outcome == outcome
    assert " ".join(row.flags) == flags


def test_a_disclosure_names_the_clinic_the_model_and_who_asked(asked: Report):
    rows = cells(asked)
    wanted = ("clinic", "records_entry", "model", "model_owner", "requested_by", "about_entries")
    assert [rows[25][name] for name in wanted] == ["st-anna", "9", "net 2", "heart-lab", "insurer", "11 24"]
    assert [rows[30][name] for name in wanted] == ["st-anna", "9", "net 2", "heart-lab", "", "11 29"]
    assert [rows[index]["requested_by"] for index in (21, 22, 23, 24)] == ["insurer", "sponsor", "sponsor", "insurer"]
    page = html_bytes(asked).decode()
    assert "asked and granted" in page
    assert "What a consumer asked to be shown" in page


def test_the_report_of_a_clinic_has_what_it_was_asked_and_what_it_granted():
    rows = report_of(consented(), clinic="st-anna").rows
    assert [row.index for row in rows if row.index > 18] == [21, *range(24, 33), 34]


@pytest.mark.parametrize(
    ("until", "flags"),
    [
        ("2026-01-01T12:30:00Z", ("after-grant",)),
        ("2026-01-01T13:30:00Z", ("perhaps-after-grant",)),
        ("2026-01-01T14:30:00Z", ()),
    ],
)
def test_what_became_public_after_its_grant_had_ended_is_flagged(until: str, flags: tuple[str, ...]):
    ledger = everything()
    ledger.notes.clear()
    ledger.add("short", "st-anna", grant(ledger, None, "short", until))
    ledger.publish(NOON + HOUR)
    ledger.add("shown", "st-anna", shown(ledger, grant="short"))
    ledger.publish(NOON + 2 * HOUR)
    row = report_of(ledger).rows[20]
    assert row.flags == flags
    assert len(row.remarks) == len(flags)
    assert all(remark.startswith(("became public after", "the grant in entry 19 ended")) for remark in row.remarks)


def test_each_use_of_records_names_clinic_records_model_owner_requester_time_and_outcome(report: Report):
    """What an audit log is asked for: 45 CFR 164.312(b)."""
    uses = {row["entry"]: row for row in cells(report) if row["entry"] in ("7", "11", "12")}
    wanted = ("clinic", "records_entry", "patients", "model", "model_owner", "requested_by", "outcome")
    assert [uses["7"][name] for name in wanted] == [
        *("st-anna", "6", "4097", "heart 1", "heart-lab", "st-anna", "answers logged")
    ]
    assert [uses["12"][name] for name in wanted] == [
        *("city", "10", "65", "net 2", "heart-lab", "city", "answers logged")
    ]
    assert uses["7"]["remarks"] == "records (entry 6) withdrawn later, by entry 17"
    assert [row.index for row in report.uses] == [7, 11, 12, 14, 18]
    assert [(t.clinic, t.model, t.uses, t.patients) for t in report.totals] == [
        *(("city", "net 2", 1, 65), ("st-anna", "(no answer)", 2, 0)),
        *(("st-anna", "heart 1", 1, 4097), ("st-anna", "net 2", 1, 65)),
    ]


def test_the_report_says_what_it_cannot_know(report: Report):
    page = html_bytes(report).decode()
    assert "a request that the server refused" in page
    assert "Requests that were refused never reached the ledger" in page
    assert "the request itself is not on the ledger" in page


def test_parties_are_listed_with_their_keys(report: Report, ledger: ReportLedger):
    import hashlib

    assert [(who.name, who.role, who.entry, who.entries) for who in report.who] == [
        *(("server", "server", 0, 4), ("st-anna", "clinic", 1, 8)),
        *(("city", "clinic", 2, 2), ("heart-lab", "owner", 3, 5)),
    ]
    public = ledger.keys["city"].public_key().public_bytes_raw()
    assert report.who[2].key == hashlib.sha256(public).digest()


def test_malformed_and_forbidden_entries_are_listed_and_their_claims_are_nobodys():
    ledger = everything()
    ledger.raw("junk", b"\xff\x00")
    ledger.raw("again", ledger.entries[5])
    ledger.raw("theft", ledger.sign("city", Revocation(ledger.at["city records"], "x"), key="heart-lab"))
    ledger.add("after", "city", Revocation(ledger.at["city records"], "closed"))
    ledger.publish(NOON + 20 * HOUR)
    rows = report_of(ledger).rows
    assert [row.flags for row in rows[19:22]] == [("malformed",), ("breaks-rule",), ("breaks-rule",)]
    assert all((row.author, row.key, row.author_entry) == ("", None, None) for row in rows[19:22])
    assert rows[20].remarks == ("ledger.duplicate: this is entry 5 already",)
    assert rows[21].remarks[0].startswith("entry.signature:")
    assert 'by "city"' in rows[21].said.what
    # What follows keeps its index, and what was only claimed has revoked nothing.
    assert (rows[22].author, rows[22].about) == ("city", (10,))
    assert rows[10].outcome == "logged; withdrawn later by entry 22"


def test_approvals_by_hospitals_are_told():
    from cryptography.hazmat.primitives.asymmetric import ec

    hospital = ec.generate_private_key(ec.SECP256K1())
    ledger = started()
    scope = ApprovalScope(31337, bytes(20), ORIGIN)
    signature = sign_digest(scope.approval_digest(ledger.at["model"]), hospital)
    signed = ApprovalSignature(compressed_key(hospital.public_key()), signature)
    ledger.add("approval", "heart-lab", Approval(ledger.at["model"], 31337, bytes(20), 1, (signed,)))
    other = ApprovalSignature(signed.key, sign_digest(bytes(32), hospital))
    ledger.add("forged", "heart-lab", Approval(ledger.at["model"], 31337, bytes(20), 1, (other,)))
    ledger.publish(NOON)
    rows = report_of(ledger).rows
    assert rows[5].said.what.startswith('recorded that 1 hospital approved the model "heart 1", contract 0x0000')
    assert (rows[5].about, rows[5].said.model_entry, rows[5].flags) == ((4,), 4, ())
    assert rows[6].flags == ("breaks-rule",)


def test_a_kind_that_this_report_does_not_know_is_told_by_its_name_and_what_it_refers_to():
    @dataclass(frozen=True)
    class Later:
        KIND = "sealproof/later/v1"
        answer: Reference
        text: str

    ledger = everything()
    registry = ledger.read().registry
    body: Any = Later(ledger.at["city joint"], "x")
    told = said(registry, Logged(Reference(19, bytes(32)), body, ledger.at["city"]))
    assert told == Said("wrote an entry of kind sealproof/later/v1", "city", None, "net 2", 8)


@given(st.one_of(st.binary(max_size=300), st.integers(0, 18), st.tuples(st.integers(0, 18), st.integers(0, 5000))))
def test_no_bytes_stop_the_reading(chosen: Any):
    ledger = everything_once()
    if isinstance(chosen, bytes):
        data = chosen
    elif isinstance(chosen, int):
        data = ledger.entries[chosen]
    else:
        data = bytearray(ledger.entries[chosen[0]])
        data[chosen[1] % len(data)] ^= 1
    registry = OpenRegistry(ORIGIN)
    for entry in ledger.entries:
        assert not isinstance(registry.take(entry), Broken)
    assert isinstance(registry.take(bytes(data)), Broken)
    assert registry.size == len(ledger.entries) + 1


_ONCE: list[ReportLedger] = []


def everything_once() -> ReportLedger:
    if not _ONCE:
        _ONCE.append(everything())
    return _ONCE[0]


# -- when -------------------------------------------------------------------------------------------------------------


def test_an_entry_became_public_between_the_last_head_without_it_and_the_first_with_it(report: Report):
    row = report.rows[7]
    assert row.clock == Bounds(NOON + 2 * HOUR, NOON + 3 * HOUR)
    # Of two witnesses the earlier says since when at least, the quorum by when.
    assert row.witnesses == Bounds(NOON + 2 * HOUR + 60, NOON + 3 * HOUR + 61)
    assert report.rows[0].clock == Bounds(None, NOON)
    assert when(row.clock.after, row.clock.by) == "2026-01-01 14:00:00 to 15:00:00"


def test_without_a_policy_witnesses_date_nothing(ledger: ReportLedger):
    plain = report_of(ledger)
    assert all(row.witnesses is None and row.best == row.clock for row in plain.rows)
    assert {row["witnesses_by"] for row in cells(plain)} == {""}
    none = TlogPolicy.parse(f"log {ledger.log.verifier}\nquorum none\n")
    assert policy_digest(none) is None


def test_heads_without_a_quorum_are_checked_and_date_nothing():
    ledger = started()
    ledger.publish(NOON, {0: NOON, 1: NOON})
    ledger.add("records", "st-anna", records(ledger))
    ledger.publish(NOON + HOUR, {0: NOON + HOUR})
    ledger.add("more", "st-anna", records(ledger))
    ledger.publish(NOON + 2 * HOUR, {1: NOON + 2 * HOUR, 2: NOON + 2 * HOUR + 5})
    report = report_of(ledger, witnessed=True)
    assert [row.witnesses for row in report.rows[5:]] == [Bounds(NOON, NOON + 2 * HOUR + 5)] * 2
    assert [row.clock for row in report.rows[5:]] == [
        *(Bounds(NOON, NOON + HOUR), Bounds(NOON + HOUR, NOON + 2 * HOUR))
    ]
    assert (report.published, report.witnessed, report.dated) == (3, 2, 3)


def test_a_log_without_any_date_is_reported_without_times():
    ledger = started()
    ledger.publish(NOON, clock=False)
    report = report_of(ledger)
    assert {(row.best.after, row.best.by) for row in report.rows} == {(None, None)}
    assert "in the order of the ledger" in html_bytes(report).decode()
    assert "no time known" in html_bytes(report).decode()
    # Nobody can say that an entry lies outside a period, so none is left out.
    assert len(report_of(ledger, Period.parse("2030-01-01", None)).rows) == 5


def test_empty_timeline_and_skewed_witnesses():
    assert Timeline([]).bounds(3) == Bounds(None, None)
    ledger = started()
    ledger.publish(NOON, {0: NOON + 10, 1: NOON + 12})
    ledger.add("records", "st-anna", records(ledger))
    # Another pair, whose clocks are a little behind: no clock went back, and the bounds hold for all of them.
    ledger.publish(NOON + 5, {1: NOON + 13, 2: NOON + 8})
    report = report_of(ledger, witnessed=True)
    assert report.steps == ()
    assert report.rows[5].witnesses == Bounds(NOON + 8, NOON + 13)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, None, range(19)),
        ("2026-01-01", "2026-01-01", range(19)),
        ("2026-01-01T14:30:00Z", "2026-01-01T15:30:00Z", range(7, 11)),
        ("2026-01-01T15:00:00Z", "2026-01-01T15:00:00Z", range(7, 11)),
        (None, "2026-01-01T12:30:00Z", range(6)),
        ("2026-01-01T18:30:00Z", None, range(17, 19)),
        ("2026-01-02", None, range(0)),
        (None, "2025-12-31", range(4)),
    ],
)
def test_a_period_has_what_may_have_become_public_in_it(
    ledger: ReportLedger, start: str | None, end: str | None, expected: range
):
    rows = report_of(ledger, Period.parse(start, end)).rows
    # Before the first head nothing is known, so what it holds may be as old as one likes.
    assert [row.index for row in rows] == list(expected)


@pytest.mark.parametrize("bad", ["2026-02-30", "yesterday", "2026-1-1", "2026-01-01T00:00Z", "", "2026-01-01 00:00:00"])
def test_a_period_that_is_none_is_refused(bad: str):
    with pytest.raises(UsageError, match=r"no day|no time"):
        Period.parse(bad, None)
    with pytest.raises(UsageError):
        Period.parse(None, bad)


def test_a_period_that_ends_before_it_begins_is_refused():
    with pytest.raises(UsageError, match="begins at"):
        Period.parse("2026-02-01", "2026-01-31")
    assert Period.parse("2026-02-01", "2026-02-01") == Period(1_769_904_000, 1_769_990_399)


@pytest.mark.parametrize(
    ("time", "text"),
    [(0, "1970-01-01T00:00:00Z"), (NOON, "2026-01-01T12:00:00Z"), (253_402_300_799, "9999-12-31T23:59:59Z")],
)
def test_times_are_written_in_utc(time: int, text: str):
    assert time_text(time) == text


# -- whom it concerns -------------------------------------------------------------------------------------------------


def test_a_report_about_a_clinic_has_what_concerns_it_and_nothing_of_others(ledger: ReportLedger):
    rows = report_of(ledger, clinic="city").rows
    # Its party entry, the model that answered on its records, its records, and the answer.
    assert [row.index for row in rows] == [2, 8, 10, 12]
    rows = report_of(ledger, clinic="st-anna").rows
    assert [row.index for row in rows] == [1, 4, 5, 6, 7, 8, 9, 11, 13, 14, 15, 16, 17, 18]


def test_a_report_about_a_clinic_has_withdrawn_models_and_all_broken_entries():
    ledger = everything()
    ledger.add("end", "heart-lab", Revocation(ledger.at["network"], "retired"))
    ledger.raw("junk", b"x")
    ledger.publish(NOON + 20 * HOUR)
    assert [row.index for row in report_of(ledger, clinic="city").rows] == [2, 8, 10, 12, 19, 20]


@pytest.mark.parametrize("name", ["nobody", "heart-lab", "server", ""])
def test_a_clinic_that_is_none_is_refused(ledger: ReportLedger, name: str):
    with pytest.raises(UsageError, match="it has: 'city', 'st-anna'"):
        report_of(ledger, clinic=name)


# -- what to look at --------------------------------------------------------------------------------------------------


def with_policy(until: str | None, after: int | None, by: int | None) -> Row:
    """An answer on records with this end; the head before it and the first with it dated so."""
    ledger = started()
    ledger.add("records", "st-anna", records(ledger, until))
    ledger.publish(after or NOON, clock=after is not None)
    ledger.add("prediction", "server", prediction(ledger))
    ledger.publish(by or NOON, clock=by is not None)
    return report_of(ledger).rows[6]


@pytest.mark.parametrize(
    ("until", "after", "by", "flags"),
    [
        (None, NOON, NOON + HOUR, ()),
        ("2026-01-01T13:00:00Z", NOON, NOON + HOUR, ()),
        ("2026-01-01T12:59:59Z", NOON, NOON + HOUR, ("perhaps-after-policy",)),
        ("2026-01-01T12:00:00Z", NOON, NOON + HOUR, ("perhaps-after-policy",)),
        ("2026-01-01T11:59:59Z", NOON, NOON + HOUR, ("after-policy",)),
        ("2026-01-01T11:59:59Z", NOON, None, ("after-policy",)),
        ("2026-01-01T12:30:00Z", NOON, None, ("perhaps-after-policy",)),
        ("2026-01-01T12:30:00Z", None, NOON, ()),
        ("2026-01-01T12:30:00Z", None, None, ("perhaps-after-policy",)),
    ],
)
def test_an_answer_after_the_policy_of_its_records_is_flagged(
    until: str | None, after: int | None, by: int | None, flags: tuple[str, ...]
):
    assert with_policy(until, after, by).flags == flags


def test_an_answer_logged_after_a_withdrawal_is_flagged():
    ledger = started()
    ledger.add("records", "st-anna", records(ledger))
    old = len(ledger.entries)
    ledger.add("revocation", "st-anna", Revocation(ledger.at["records"], "withdrawn"))
    # The ledger allows it: the answer names a head under which nothing was withdrawn yet.
    ledger.add("prediction", "server", prediction(ledger, size=old))
    ledger.publish(NOON)
    row = report_of(ledger).rows[7]
    assert row.flags == ("used-after-revocation",)
    assert row.remarks == ("records (entry 5) withdrawn before, by entry 6; the head that the answer names is older",)


def test_a_suspension_that_one_party_cleared_stays_open(ledger: ReportLedger):
    half = everything()
    half.add("cleared", "st-anna", Clearance(half.at["stays"]))
    half.publish(NOON + 20 * HOUR)
    row = report_of(half).rows[18]
    assert row.flags == ("open-suspension",)
    assert row.outcome == 'no answer; cleared by "st-anna" in entry 19 only'


def test_every_flag_is_one_of_those_documented(report: Report):
    from api.client.ledger_report import rows

    assert {flag for row in report.rows for flag in row.flags} <= set(FLAGS)
    assert all(f"    {flag} " in (rows.__doc__ or "") for flag in FLAGS)
