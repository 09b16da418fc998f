"""Files of a report: CSV, page, PDF, the signed note; checking them; where the ledger is read from; the command."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from api.client.identity import Identity
from api.client.ledger_report import activity as picture
from api.client.ledger_report import html_page, pdf_file
from api.client.ledger_report.check import LedgerNow, check_report
from api.client.ledger_report.csv_file import COLUMNS, csv_bytes
from api.client.ledger_report.files import decode_heads, encode_heads, render, write_report
from api.client.ledger_report.heads import Bounds, policy_digest
from api.client.ledger_report.html_page import html_bytes
from api.client.ledger_report.manifest import NOTE, Manifest, party_index, party_signer
from api.client.ledger_report.report import Period, Report, build_report
from api.client.ledger_report.sources import open_mirror
from api.client.log_evidence import check_evidence
from api.entries import Revocation
from ledger import Log, Signer
from ledger.note import Note
from ledger.storage.posix import PosixStorage
from ledger.storage.posix_archive import PublicationArchive
from ledger.trust_policy import TlogPolicy
from privacy.errors import DecodeError, MissingDependency, UsageError, VerificationFailed
from tests.support.report_ledger import (
    HOUR,
    NOON,
    ORIGIN,
    REPORTER,
    ReportLedger,
    cells,
    everything,
    joint,
    records,
    report_of,
    started,
)
from tests.support.service import listening


@pytest.fixture(scope="module")
def ledger() -> ReportLedger:
    return everything()


@pytest.fixture(scope="module")
def report(ledger: ReportLedger) -> Report:
    return report_of(ledger, witnessed=True)


# -- the files --------------------------------------------------------------------------------------------------------


def test_the_same_ledger_gives_the_same_files(ledger: ReportLedger):
    def made() -> dict[str, bytes]:
        reading = ledger.read(witnessed=True)
        return render(build_report(reading, Period(), None, b"p" * 32), reading.heads, pdf_file.pdf_bytes)

    assert made() == made()


def test_the_csv_is_rfc_4180_with_a_byte_order_mark(report: Report):
    data = csv_bytes(report)
    assert data.startswith(b'\xef\xbb\xbf"entry",')
    lines = data.decode("utf-8-sig").split("\r\n")
    assert lines.pop() == ""
    assert len(lines) == 20
    assert "\n" not in "".join(lines)
    rows = cells(report)
    assert tuple(rows[0]) == COLUMNS
    assert [row["entry"] for row in rows] == [str(i) for i in range(19)]
    assert rows[7]["about_entries"] == "6 5 4"
    assert rows[7]["leaf_sha256"] == report.rows[7].leaf.hex()


class Reader(HTMLParser):
    """Checks that tags are balanced, and gathers what a browser would fetch or run."""

    VOID = frozenset({"meta", "rect", "line", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(page: bytes) -> Reader:
    reader = Reader()
    reader.feed(page.decode())
    reader.close()
    assert reader.open == []
    return reader


def test_the_page_is_whole_and_fetches_and_runs_nothing(report: Report):
    page = parsed(html_bytes(report))
    assert {"svg", "table", "h1"} <= page.seen
    assert not page.seen & {"script", "link", "img", "iframe", "object", "form", "a", "base"}
    assert not page.attributes & {"src", "href", "srcset", "action", "onload", "onclick", "style"}
    assert "default-src 'none'" in html_bytes(report).decode()


def test_the_page_shows_only_so_many_rows(report: Report, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(html_page, "MOST_ROWS", 4)
    text = parsed(html_bytes(report)).text
    assert "The first 4 of 19; report.csv has all." in text


def test_the_picture_counts_every_entry_once(report: Report):
    shown = picture.activity(report)
    assert sum(lane.total for lane in shown.lanes if not lane.flagged) == 19
    assert [lane.total for lane in shown.lanes if lane.flagged] == [2]
    assert shown.ticks[0][1] == "01-01 12:01"
    assert shown.ticks[-1][0] == 1.0


def test_a_report_without_entries_has_all_its_files(ledger: ReportLedger):
    empty = report_of(ledger, Period.parse("2027-01-01", None))
    assert parsed(html_bytes(empty)).text.count("No records were used.") == 1
    assert csv_bytes(empty).decode("utf-8-sig").count("\r\n") == 1
    assert pdf_file.pdf_bytes(empty).startswith(b"%PDF")


def test_policies_that_ask_for_the_same_have_one_digest(ledger: ReportLedger):
    text = "\n".join(f"witness w{i} {witness.verifier}" for i, witness in enumerate(ledger.witnesses))
    bare = TlogPolicy.parse(f"# a comment\n{text}\ngroup g 2 w0 w1 w2\nquorum g\n")
    assert policy_digest(bare) == policy_digest(ledger.policy)
    assert policy_digest(bare) != policy_digest(replace(bare, quorum="w0"))
    assert policy_digest(TlogPolicy.parse(f"{text}\ngroup g 3 w0 w1 w2\nquorum g\n")) != policy_digest(bare)


# -- PDF --------------------------------------------------------------------------------------------------------------


def embedded(pdf: bytes, roots: list[Any]) -> Any:
    from pyhanko.pdf_utils.reader import PdfFileReader
    from pyhanko.sign.validation import validate_pdf_signature
    from pyhanko_certvalidator import ValidationContext

    signature = PdfFileReader(io.BytesIO(pdf)).embedded_signatures[0]
    trust = ValidationContext(trust_roots=roots or [signature.signer_cert], allow_fetching=False)
    return signature, validate_pdf_signature(signature, trust)


def test_the_pdf_is_signed_inside_by_the_key_of_the_note(report: Report):
    plain = pdf_file.pdf_bytes(report)
    signed = pdf_file.sign_pdf_with_signer(plain, REPORTER)
    signature, status = embedded(signed, [])
    assert status.intact and status.valid and status.bottom_line
    assert signature.signer_cert.public_key["public_key"].native == REPORTER.verifier.public_key
    assert signature.signer_cert.subject.native == {"common_name": "reporter.example"}
    at = signed.index(b"/CreationDate") + 20
    _, status = embedded(signed[:at] + b"1" + signed[at + 1 :], [])
    assert not status.intact


def pkcs12(path: Path, passphrase: bytes | None) -> Any:
    """A key with a certificate such as an authority gives, in a file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, NoEncryption
    from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates
    from cryptography.x509.oid import NameOID

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Compliance office")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(private.public_key())
    builder = builder.serial_number(7).not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
    builder = builder.not_valid_after(datetime.now(UTC) + timedelta(days=400))
    usage = x509.KeyUsage(True, True, False, False, False, False, False, False, False)
    certificate = builder.add_extension(usage, critical=True).sign(private, hashes.SHA256())
    locked = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    path.write_bytes(serialize_key_and_certificates(b"x", private, certificate, None, locked))
    return certificate


@pytest.mark.parametrize("passphrase", [None, b"secret"], ids=["open", "locked"])
def test_the_pdf_is_signed_with_the_certificate_of_an_authority(
    report: Report, tmp_path: Path, passphrase: bytes | None
):
    pkcs12(tmp_path / "key.p12", passphrase)
    signed = pdf_file.sign_pdf_with_file(pdf_file.pdf_bytes(report), tmp_path / "key.p12", passphrase)
    signature, status = embedded(signed, [])
    assert status.bottom_line
    assert signature.signer_cert.subject.native == {"common_name": "Compliance office"}


def test_a_key_file_that_does_not_open_is_refused(report: Report, tmp_path: Path):
    pkcs12(tmp_path / "key.p12", b"secret")
    (tmp_path / "junk.p12").write_bytes(b"junk")
    for name, passphrase in (("key.p12", b"wrong"), ("key.p12", None), ("junk.p12", b"secret"), ("absent.p12", None)):
        with pytest.raises(UsageError, match=name):
            pdf_file.sign_pdf_with_file(b"%PDF", tmp_path / name, passphrase)


@pytest.mark.parametrize(("missing", "package"), [("fpdf", "fpdf2"), ("pyhanko", "pyHanko")])
def test_a_missing_library_is_told_with_its_command(missing: str, package: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pdf_file.importlib.util, "find_spec", lambda name: None if name == missing else object())
    with pytest.raises(MissingDependency, match=rf"{package} is not installed.*sealproof\[report\].*--no-pdf"):
        pdf_file.check_installed(signing=True)


def test_letters_that_the_fonts_lack_and_very_long_texts_are_shown(tmp_path: Path):
    ledger = started()
    ledger.party("owner", "実験室 Ω")
    ledger.add("records", "st-anna", records(ledger))
    ledger.add("long", "st-anna", Revocation(ledger.at["records"], "Ω" * 4096))
    ledger.publish(NOON)
    assert pdf_file.pdf_bytes(report_of(ledger)).startswith(b"%PDF")
    assert pdf_file._latin("é Ω") == "é \\u03a9"


# -- the note, and checking -------------------------------------------------------------------------------------------


@pytest.fixture
def folder(ledger: ReportLedger, report: Report, tmp_path: Path) -> Path:
    """A signed report, dated by witnesses, without PDF."""
    files = render(report, ledger.read().heads, None)
    write_report(tmp_path / "report", report, files, REPORTER)
    return tmp_path / "report"


def now(ledger: ReportLedger, witnessed: bool = True) -> LedgerNow:
    return LedgerNow(ledger.source, ledger.head(), ledger.trusted(witnessed))


def test_a_report_is_checked_against_the_key_and_the_ledger(ledger: ReportLedger, folder: Path):
    checked = check_report(folder, REPORTER.verifier, now(ledger))
    assert checked.compared and checked.page_compared
    assert (checked.manifest.entries, checked.manifest.flagged, checked.party) == (19, 2, None)
    checked = check_report(folder, REPORTER.verifier, None)
    assert not checked.compared


def test_a_report_still_holds_when_the_ledger_has_grown(folder: Path):
    grown = everything()
    grown.raw("junk", b"x")
    # A witness that was late cosigns an old head, and the withdrawal of a model comes after the report.
    grown.add("end", "heart-lab", Revocation(grown.at["model"], "retired"))
    text = Note.parse(grown.notes[-1]).text.encode()
    from ledger.cosignature import with_cosignatures

    grown.notes[-1] = with_cosignatures(grown.notes[-1], [grown.witnesses[2].cosign(text, NOON)])
    grown.publish(NOON + 30 * HOUR, {0: NOON + 30 * HOUR, 1: NOON + 30 * HOUR})
    assert check_report(folder, REPORTER.verifier, now(grown)).compared


def test_a_report_by_a_party_is_checked_with_the_key_of_its_entry(ledger: ReportLedger, tmp_path: Path):
    identity = Identity(tmp_path, "clinic", "st-anna", "http://x", ORIGIN, ledger.at["st-anna"], ledger.keys["st-anna"])
    signer = party_signer(identity)
    assert (signer.name, party_index(signer.name, ORIGIN)) == (f"{ORIGIN}/party/1", 1)
    report = report_of(ledger, Period.parse(None, "2026-06-30"), "st-anna")
    write_report(tmp_path / "report", report, render(report, ledger.read().heads, None), signer)
    checked = check_report(tmp_path / "report", None, now(ledger, witnessed=False))
    assert checked.party is not None
    assert (checked.party.name, checked.signed_by) == ("st-anna", f"{ORIGIN}/party/1")
    with pytest.raises(UsageError, match="not registered"):
        party_signer(replace(identity, party=None))


@pytest.mark.parametrize("name", ["x/party/1", f"{ORIGIN}/party/01", f"{ORIGIN}/party/", f"{ORIGIN}/party/-1", ORIGIN])
def test_other_names_are_no_partys(name: str):
    assert party_index(name, ORIGIN) is None


def test_a_report_of_another_version_is_compared_but_for_its_page(
    ledger: ReportLedger, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    import api.client.ledger_report.check as check_module

    monkeypatch.setattr(check_module, "VERSION", "99.0")
    checked = check_report(folder, REPORTER.verifier, now(ledger))
    assert checked.compared and not checked.page_compared


def test_a_report_dated_by_witnesses_needs_their_policy_to_be_checked(ledger: ReportLedger, folder: Path):
    with pytest.raises(UsageError, match="--policy"):
        check_report(folder, REPORTER.verifier, now(ledger, witnessed=False))


def test_somebody_must_say_whose_report_it_is(folder: Path):
    with pytest.raises(UsageError, match="whose report"):
        check_report(folder, None, None)


def test_a_report_is_never_overwritten(ledger: ReportLedger, report: Report, folder: Path):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UsageError, match="already"):
        write_report(folder, report, {}, REPORTER)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (folder / NOTE).unlink()
    with pytest.raises(UsageError, match="already"):
        write_report(folder, report, {}, None)


def test_the_note_is_read_as_it_is_written(report: Report):
    digests = {"report.csv": bytes(32), "report.heads": bytes(32), "report.html": bytes(32)}
    for changes in ({}, {"clinic": "St. Änna +1"}, {"policy": None}, {"period": Period(0, 5)}):
        manifest = replace(Manifest.of(report, digests), **changes)
        assert Manifest.parse(Note.parse(manifest.sign(REPORTER))) == manifest


Change = Callable[[str], str]

MALFORMED: dict[str, Change] = {
    "another format": lambda t: t.replace("ledger-report/v1", "ledger-report/v2"),
    "a line too many": lambda t: t + "more 1\n",
    "a line twice": lambda t: t.replace("entries", "size 19\nentries"),
    "a missing line": lambda t: t.replace("to -\n", ""),
    "another order": lambda t: t.replace("from -\nto -\n", "to -\nfrom -\n"),
    "a number with a zero": lambda t: t.replace("size 19", "size 019"),
    "a day": lambda t: t.replace("from -", "from 2026-01-01"),
    "a period backwards": lambda t: t.replace("from -\nto -", "from 2026-01-02T00:00:00Z\nto 2026-01-01T00:00:00Z"),
    "capital digits": lambda t: t.replace("policy 6b", "policy 6B").replace("policy a", "policy A"),
    "a path": lambda t: t.replace("report.csv", "../report.csv"),
    "an unknown file": lambda t: t.replace("report.csv", "report.exe"),
    "no page": lambda t: "".join(line for line in t.splitlines(True) if not line.endswith("report.html\n")),
    "a short digest": lambda t: t.replace("sha256 00", "sha256 0"),
    "no root": lambda t: t.replace("root ", "root x"),
    "a strange version": lambda t: t.replace("made-by ", "made-by <b>"),
    "many lines": lambda t: t + "sha256\n" * 40,
}


@pytest.mark.parametrize("change", MALFORMED)
def test_a_malformed_note_is_refused(report: Report, change: str):
    digests = {"report.csv": bytes(32), "report.heads": bytes(32), "report.html": bytes(32)}
    text = replace(Manifest.of(report, digests), policy=b"\xaa" * 32).text()
    changed = MALFORMED[change](text)
    assert changed != text
    from ledger.note import sign_note

    with pytest.raises(DecodeError):
        Manifest.parse(sign_note(changed, [REPORTER]))


@pytest.mark.parametrize("data", [b"", b"AA==", b"\n", b"\xff\n", b"AA==\n\n", b"A\n", b"AB==\n"])
def test_malformed_heads_are_refused(data: bytes):
    with pytest.raises(DecodeError):
        decode_heads(data)


def test_heads_are_read_as_they_are_written(ledger: ReportLedger):
    assert decode_heads(encode_heads(ledger.read().heads)) == ledger.notes


# -- sources ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def plain_files(ledger: ReportLedger, tmp_path: Path) -> Iterator[Path]:
    """The ledger as a server keeps it in plain files, its archive included."""
    from ledger.checkpoint import Checkpoint, sign_checkpoint
    from ledger.merkle import empty_root

    place = tmp_path / "log"
    storage = PosixStorage.create(place, sign_checkpoint(Checkpoint(ORIGIN, 0, empty_root()), ledger.log))
    with Log.on(storage, ledger.log.verifier, ledger.log) as log:
        done = 0
        for note in ledger.notes:
            size = int(Note.parse(note).text.split("\n")[1])
            log.append_many(ledger.entries[done:size])
            log.publish(note)
            done = size
    yield place


def test_a_log_in_plain_files_gives_the_report_of_its_server(ledger: ReportLedger, report: Report, plain_files: Path):
    source = open_mirror(str(plain_files))
    assert list(source.publications(0, 256)) == ledger.notes
    assert list(source.publications(8, 2)) == ledger.notes[3:5]
    assert list(source.entries(3, 9)) == ledger.entries[3:9]
    reading = ledger.read(source, witnessed=True)  # type: ignore[arg-type]
    assert csv_bytes(build_report(reading, Period(), None, report.policy)) == csv_bytes(report)


def test_a_mirror_has_one_date(ledger: ReportLedger, plain_files: Path):
    import shutil

    shutil.rmtree(plain_files / ".state")
    source = open_mirror(str(plain_files))
    rows = build_report(ledger.read(source), Period(), None, None).rows  # type: ignore[arg-type]
    assert {row.clock for row in rows} == {Bounds(None, NOON + 7 * HOUR)}
    # The report of the server holds against it all the same: a mirror shows no head that is missing there.
    files = render(report_of(ledger), ledger.read().heads, None)
    write_report(plain_files / "report", report_of(ledger), files, REPORTER)
    seen = LedgerNow(source, ledger.head(), ledger.trusted())
    assert check_report(plain_files / "report", REPORTER.verifier, seen).compared


def test_a_mirror_with_a_full_tile_in_place_of_the_partial_one_is_read(tmp_path: Path, ledger: ReportLedger):
    from ledger.tiles import EntryBundle, encode_entry_bundle

    entries = ledger.entries + [b"x%d" % i for i in range(256 - len(ledger.entries))]
    (tmp_path / "checkpoint").write_bytes(ledger.notes[-1])
    full = tmp_path / EntryBundle(0).path
    full.parent.mkdir(parents=True)
    full.write_bytes(encode_entry_bundle(entries))
    assert list(open_mirror(str(tmp_path)).entries(0, 19)) == ledger.entries
    with pytest.raises(UsageError, match="19 entries"):
        open_mirror(str(tmp_path)).entries(0, 20)


def test_a_folder_that_is_no_log_is_refused(tmp_path: Path):
    from ledger.errors import StorageError

    with pytest.raises(StorageError, match="no checkpoint"):
        open_mirror(str(tmp_path))
    (tmp_path / "checkpoint").write_bytes(b"junk")
    with pytest.raises(DecodeError):
        open_mirror(str(tmp_path)).entries(0, 1)


def test_long_logs_are_read_page_by_page():
    ledger = started()
    ledger.publish(NOON)
    ledger.add("records", "st-anna", records(ledger))
    for number in range(600):
        ledger.raw("junk", b"junk %d" % number)
        if number % 2 == 0:
            ledger.publish(NOON + number)
    ledger.publish(NOON + 700)
    report = report_of(ledger)
    assert report.published == 302
    assert sum(row.flags == ("malformed",) for row in report.rows) == 600


# -- the command ------------------------------------------------------------------------------------------------------


def run(*arguments: str, home: Path) -> tuple[int, str, str]:
    from contextlib import redirect_stderr, redirect_stdout

    from api.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr("sys.argv", ["sealproof", "ledger", "report", *arguments])
        patch.setenv("SEALPROOF_HOME", str(home))
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0), out.getvalue(), err.getvalue()


def test_the_command_makes_and_checks_a_report_of_a_running_server(tmp_path: Path):
    import json

    with listening(tmp_path / "server") as server:
        for name in ("lab", "other-lab"):
            server.owner(tmp_path / name, name).close()
        connect = ("--server", server.url, "--log-key", server.log_key)
        made = (*connect, "--out", str(tmp_path / "report"), "--folder", str(tmp_path / "lab"))
        code, out, err = run(*made, "--json", home=tmp_path)
        assert code == 0, err
        told = json.loads(out)
        assert (told["entries"], told["size"], told["flagged"]) == (3, 3, [])
        assert [Path(name).name for name in told["files"]] == [
            *("report.csv", "report.heads", "report.html", "report.pdf", "report.note")
        ]
        check = ("--check", str(tmp_path / "report"))
        code, out, err = run(*check, *connect, "--json", home=tmp_path)
        assert code == 0, err
        found = json.loads(out)
        assert (found["result"], found["compared_with_ledger"]) == ("verified", True)
        assert found["party"] == {"name": "lab", "role": "owner"}
        code, out, _ = run(*check, "--reporter-key", told["reporter_key"], home=tmp_path)
        assert code == 0 and "not compared with the ledger" in out
        # The server's own clock has dated what it published.
        with (tmp_path / "report/report.csv").open(encoding="utf-8-sig", newline="") as file:
            assert all(row["server_clock_by"] for row in csv.DictReader(file))
        code, _, err = run(*made, home=tmp_path)
        assert code == 2 and "already" in err
        (tmp_path / "report/report.html").write_text("all is well")
        code, _, err = run(*check, *connect, home=tmp_path)
        assert code == 1 and "report.digest" in err


def test_the_command_reads_a_mirror_and_says_what_is_wrong(ledger: ReportLedger, plain_files: Path, tmp_path: Path):
    policy = tmp_path / "policy"
    lines = [f"log {ledger.log.verifier}", *(f"witness w{i} {w.verifier}" for i, w in enumerate(ledger.witnesses))]
    policy.write_text("\n".join([*lines, "group g 2 w0 w1 w2", "quorum g", ""]))
    source = ("--mirror", str(plain_files), "--policy", str(policy))
    made = (*source, "--key", str(tmp_path / "reporter.key"), "--no-pdf", "--clinic", "st-anna")
    code, out, err = run(*made, "--new-key", "office", "--out", str(tmp_path / "a"), home=tmp_path)
    assert code == 0, err
    assert "14 of 19 entries, 2 of them to look at" in out
    office = str(Signer.load(tmp_path / "reporter.key").verifier)
    assert office in out.splitlines()
    code, out, err = run("--check", str(tmp_path / "a"), *source, home=tmp_path)
    assert code == 1 and "report.signer" in err
    key = ("--reporter-key", office)
    code, out, err = run("--check", str(tmp_path / "a"), *source, *key, home=tmp_path)
    assert code == 0 and "report.html is what the ledger gives" in out
    for arguments, message in (
        ((*source,), "--out"),
        (("--out", "x"), "--server"),
        ((*source, "--server", "http://x", "--out", "x"), "--server"),
        ((*made, "--folder", "y", "--out", "x"), "not both"),
        ((*source, "--new-key", "y", "--out", "x"), "--key"),
        ((*source, "--out", "x", "--pdf-passphrase", "y"), "--pdf-key"),
        ((*source, "--out", "x", "--no-pdf", "--clinic", "nobody"), "no clinic"),
        ((*source, "--out", "x", "--no-pdf", "--from", "monday"), "YYYY-MM-DD"),
    ):
        code, _, err = run(*arguments, home=tmp_path)
        assert code == 2 and message in err, (arguments, err)
    assert not Path("x").exists()


def test_the_command_keeps_what_convicts_a_log(ledger: ReportLedger, plain_files: Path, tmp_path: Path):
    archive = PublicationArchive(plain_files / ".state/publications")
    archive.path(8).write_bytes(ledger.head_note(8, root=bytes(32)))
    source = ("--mirror", str(plain_files), "--log-key", str(ledger.log.verifier))
    code, _, err = run(*source, "--out", str(tmp_path / "o"), "--no-pdf", home=tmp_path / "home")
    assert code == 1 and "two signed heads are kept in" in err
    assert not (tmp_path / "o").exists()
    (kept,) = (tmp_path / "home/evidence").iterdir()
    assert "tree of 8 entries" in check_evidence(kept, ledger.log.verifier)


def test_an_unsigned_report_says_so(ledger: ReportLedger, plain_files: Path, tmp_path: Path):
    key = ("--log-key", str(ledger.log.verifier))
    out_folder = ("--out", str(tmp_path / "u"), "--no-pdf")
    code, out, err = run("--mirror", str(plain_files), *key, *out_folder, home=tmp_path)
    assert code == 0, err
    assert "not signed" in out
    assert not (tmp_path / "u" / NOTE).exists()


def test_the_joint_bodies_of_the_fixture_are_used(ledger: ReportLedger):
    """The ledger of these tests is one that the registry accepts whole."""
    assert joint(ledger).KIND in {row.kind for row in report_of(ledger).rows}
    with pytest.raises(VerificationFailed, match=r"report\.archive"):
        ledger.read(replace(ledger.source, notes=[ledger.notes[-1], ledger.notes[0]]))
