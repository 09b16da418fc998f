"""report.pdf: the report on paper, and a signature inside it. The only file that imports fpdf2 and pyHanko.

The built-in fonts of PDF have Western European letters only; any other is written as its escape. The same report gives
the same bytes, but for the signature, which holds the time at which it was made.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from api.client.ledger_report.activity import BUCKETS, Activity, activity
from api.client.ledger_report.html_page import heading, summary
from api.client.ledger_report.report import LIMITS, Report, when
from api.client.ledger_report.rows import Row
from ledger import Signer
from privacy.errors import MissingDependency, UsageError

if TYPE_CHECKING:
    from fpdf import FPDF

__all__ = ["MOST_ROWS", "check_installed", "pdf_bytes", "sign_pdf_with_file", "sign_pdf_with_signer"]

MOST_ROWS: Final = 1_000
"""Rows of one table in the PDF; report.csv has all of them."""

_MOST_LETTERS: Final = 400
_INK: Final = (27, 39, 51)
_SOFT: Final = (90, 107, 123)
_BAR: Final = (37, 99, 168)
_BAD: Final = (179, 38, 30)
_BEGIN: Final = datetime(2020, 1, 1, tzinfo=UTC)
_NO_END: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""RFC 5280, 4.1.2.5: a certificate without an end."""


def check_installed(signing: bool) -> None:
    """Raise MissingDependency unless a PDF can be made, and signed if that is wanted."""
    for module, package in (("fpdf", "fpdf2"), *((("pyhanko", "pyHanko"),) if signing else ())):
        if importlib.util.find_spec(module) is None:
            raise MissingDependency(
                package, "report", "pip install 'sealproof[report]' (or leave the PDF out with --no-pdf)"
            )


def pdf_bytes(report: Report) -> bytes:
    """The file, not signed. Raises MissingDependency."""
    check_installed(signing=False)
    from fpdf import FPDF

    class Paper(FPDF):
        def footer(self) -> None:
            """The log and the page at the bottom of each."""
            self.set_y(-12)
            self.set_font("Helvetica", size=7)
            self.set_text_color(*_SOFT)
            self.cell(0, 6, f"{_latin(report.head.origin)}, {report.head.size:,} entries, page {self.page_no()}")

    paper = Paper(orientation="landscape", format="A4")
    # Not the present: the same report is the same file. A report without a known time carries the earliest date.
    paper.set_creation_date(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=report.head_time or 0))
    paper.set_title(_latin(f"Audit report of the ledger {report.head.origin}"))
    paper.set_margin(14)
    paper.set_auto_page_break(True, 16)
    paper.add_page()
    _text(paper, f"Audit report of the ledger {report.head.origin}", 17, bold=True)
    _text(paper, heading(report), 10, colour=_SOFT)
    _picture(paper, activity(report))
    if report.flagged:
        _heading(paper, "To look at")
        _table(paper, ("entry", "when (UTC)", "who", "what", "why"), (6, 18, 16, 34, 40), _flagged(report))
    _heading(paper, "Use of records")
    _text(paper, "A server takes a request only from the clinic of the records; the request itself is not logged.", 8.5)
    totals = [
        (one.clinic, one.model, one.owner, f"{one.uses:,}", f"{one.patients:,}", f"{one.flagged or ''}")
        for one in report.totals
    ]
    sums = ("clinic", "model", "its owner", "uses", "patients' answers", "to look at")
    _table(paper, sums, (20, 24, 20, 8, 12, 8), totals)
    paper.ln(4)
    titles = ("entry", "when (UTC)", "clinic", "its records", "patients", "model and owner", "outcome")
    _table(paper, titles, (6, 18, 16, 10, 8, 28, 34), _uses(report))
    _heading(paper, "Who")
    who = [(w.name, w.role, str(w.entry), w.key.hex(), str(w.entries)) for w in report.who]
    _table(paper, ("party", "role", "entry", "SHA-256 of its key", "entries here"), (22, 8, 6, 54, 10), who)
    for title, sentences in (("What was checked", summary(report)), ("What is not in this report", LIMITS)):
        _heading(paper, title)
        for sentence in sentences:
            _text(paper, f"- {sentence}", 8.5)
    _heading(paper, "Every entry")
    all_titles = ("entry", "when (UTC)", "who", "what", "about", "outcome")
    _table(paper, all_titles, (6, 18, 16, 40, 8, 34), _everything(report))
    return bytes(paper.output())


def sign_pdf_with_signer(pdf: bytes, reporter: Signer) -> bytes:
    """The PDF with a signature by the key of report.note, in a certificate that it signs itself: its name and the key.

    No authority vouches for it: it shows that the file is as it was, to whoever knows the key. Raises
    MissingDependency.
    """
    check_installed(signing=True)
    from asn1crypto.algos import SignedDigestAlgorithm
    from pyhanko.sign import signers

    class NoteKey(signers.Signer):
        """What is signed is DER, which is no text, so it is never mistaken for a note or an entry."""

        async def async_sign_raw(self, data: bytes, digest_algorithm: str, dry_run: bool = False) -> bytes:
            return reporter.sign(data).signature

    mechanism = SignedDigestAlgorithm({"algorithm": "ed25519"})
    signer = NoteKey(signing_cert=_certificate(reporter), signature_mechanism=mechanism)
    return _signed(pdf, signer, reporter.name)


def sign_pdf_with_file(pdf: bytes, path: Path, passphrase: bytes | None) -> bytes:
    """The PDF with a signature by the key and certificate of a PKCS #12 file, as authorities give them out.

    Raises UsageError if the file cannot be opened with this passphrase, MissingDependency.
    """
    check_installed(signing=True)
    from pyhanko.sign.signers import SimpleSigner

    if not path.is_file():
        raise UsageError(f"cannot read {path}: there is no such file")
    signer = SimpleSigner.load_pkcs12(str(path), passphrase=passphrase)  # type: ignore[no-untyped-call]
    if signer is None:
        raise UsageError(f"{path} is no PKCS #12 file that this passphrase opens (--pdf-passphrase)")
    return _signed(pdf, signer, None)


def _signed(pdf: bytes, signer: Any, name: str | None) -> bytes:
    from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
    from pyhanko.sign import signers

    meta = signers.PdfSignatureMetadata(field_name="Report", name=name, reason="Audit report of a ledger")
    out: io.BytesIO = signers.sign_pdf(IncrementalPdfFileWriter(io.BytesIO(pdf)), meta, signer=signer)
    return out.getvalue()


def _certificate(reporter: Signer) -> Any:
    """An X.509 certificate of the key, signed by itself; the same every time."""
    from asn1crypto import x509

    public = reporter.verifier.public_key
    # An attribute of a name holds 64 characters; the key identifies, not the name.
    who = x509.Name.build({"common_name": reporter.name[:64]})
    algorithm = {"algorithm": "ed25519"}
    usage = {"extn_id": "key_usage", "critical": True, "extn_value": {"digital_signature", "non_repudiation"}}
    body = x509.TbsCertificate(
        {
            "version": "v3",
            "serial_number": int.from_bytes(hashlib.sha256(public).digest()[:16], "big") >> 1 | 1,
            "signature": algorithm,
            "issuer": who,
            "subject": who,
            "validity": {"not_before": {"utc_time": _BEGIN}, "not_after": {"general_time": _NO_END}},
            "subject_public_key_info": {"algorithm": algorithm, "public_key": public},
            "extensions": [usage],
        }
    )
    signature = reporter.sign(body.dump()).signature
    return x509.Certificate({"tbs_certificate": body, "signature_algorithm": algorithm, "signature_value": signature})


# -- drawing ----------------------------------------------------------------------------------------------------------


def _latin(text: str) -> str:
    """`text` in the letters that the fonts have."""
    return "".join(c if c.isprintable() and ord(c) < 256 else c.encode("unicode_escape").decode("ascii") for c in text)


def _short(text: str) -> str:
    """A text in a cell: a row must fit on a page. report.csv has all of it."""
    shown = _latin(text)
    return shown if len(shown) <= _MOST_LETTERS else f"{shown[: _MOST_LETTERS - 3]}..."


def _text(paper: FPDF, text: str, size: float, *, bold: bool = False, colour: tuple[int, int, int] = _INK) -> None:
    paper.set_font("Helvetica", style="B" if bold else "", size=size)
    paper.set_text_color(*colour)
    paper.multi_cell(0, size * 0.5, _latin(text), new_x="LMARGIN", new_y="NEXT", align="L")


def _heading(paper: FPDF, text: str) -> None:
    paper.ln(5)
    if paper.will_page_break(30):
        paper.add_page()
    _text(paper, text, 12, bold=True)
    paper.ln(1)


def _table(paper: FPDF, head: Sequence[str], widths: Sequence[int], rows: Sequence[Sequence[str]]) -> None:
    if not rows:
        _text(paper, "None.", 8.5)
        return
    paper.set_font("Helvetica", size=7.5)
    paper.set_text_color(*_INK)
    paper.set_draw_color(216, 224, 231)
    paper.set_fill_color(255)
    with paper.table(
        col_widths=tuple(widths), line_height=3.8, padding=0.8, text_align="LEFT", borders_layout="HORIZONTAL_LINES"
    ) as table:
        for row in (head, *rows[:MOST_ROWS]):
            line = table.row()
            for cell in row:
                line.cell(_short(cell))
    if len(rows) > MOST_ROWS:
        _text(paper, f"The first {MOST_ROWS:,} of {len(rows):,}; report.csv has all.", 8.5)


def _picture(paper: FPDF, shown: Activity) -> None:
    if not shown.lanes:
        return
    _heading(paper, "Activity")
    left, lane = paper.l_margin + 38.0, 7.0
    span, top = paper.epw - 38 - 14, paper.get_y()
    paper.set_font("Helvetica", size=8)
    paper.set_draw_color(216, 224, 231)
    for number, row in enumerate(shown.lanes):
        base, most = top + lane * (number + 1), max(1, *row.counts)
        paper.set_text_color(*_INK)
        paper.text(paper.l_margin, base - 1.2, row.name)
        paper.text(left + span + 2, base - 1.2, f"{row.total:,}")
        paper.line(left, base, left + span, base)
        paper.set_fill_color(*(_BAD if row.flagged else _BAR))
        for place, count in enumerate(row.counts):
            if count:
                tall = max(0.7, count / most * (lane - 1.8))
                paper.rect(left + place * span / BUCKETS + 0.2, base - tall, span / BUCKETS - 0.4, tall, style="F")
    under = top + lane * len(shown.lanes) + 4
    paper.set_text_color(*_SOFT)
    for at, label in shown.ticks:
        width = paper.get_string_width(label)
        paper.text(left + at * (span - width), under, label)
    paper.text(left, under + 5, f"{shown.axis}; each line on its own scale")
    paper.set_y(under + 7)


def _when(row: Row) -> str:
    return when(row.best.after, row.best.by)


def _outcome(row: Row) -> str:
    flags = f"[{', '.join(row.flags)}] " if row.flags else ""
    return flags + "; ".join((row.outcome, *row.remarks))


def _flagged(report: Report) -> list[tuple[str, ...]]:
    return [(str(row.index), _when(row), row.author, row.said.what, _outcome(row)) for row in report.flagged]


def _uses(report: Report) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for row in report.uses:
        said, model = row.said, ""
        if said.model_entry is not None:
            model = f"{said.model} (entry {said.model_entry}, {report.owners.get(said.model_entry, '')})"
        records = "" if said.records is None else f"entry {said.records}"
        patients = "" if said.patients is None else f"{said.patients:,}"
        rows.append((str(row.index), _when(row), said.clinic, records, patients, model, _outcome(row)))
    return rows


def _everything(report: Report) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for row in report.rows:
        who, about = f"{row.author} {row.role}".strip(), " ".join(map(str, row.about))
        rows.append((str(row.index), _when(row), who, row.said.what, about, _outcome(row)))
    return rows
