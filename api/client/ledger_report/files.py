"""A report's files: rendered, written, read again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from api.client.ledger_report.csv_file import csv_bytes
from api.client.ledger_report.html_page import html_bytes
from api.client.ledger_report.manifest import CSV, FILES, HEADS, HTML, NOTE, PDF, Manifest
from api.client.ledger_report.report import Report
from ledger import VerifiedHead
from ledger.encoding import decode_base64, encode_base64
from ledger.errors import DecodeError as LedgerDecodeError
from ledger.errors import StorageError
from ledger.files import fsync_folder
from ledger.note import MAX_NOTE_BYTES, Signer
from privacy.errors import DecodeError, UsageError
from privacy.private_files import read_limited

__all__ = ["check_folder", "decode_heads", "encode_heads", "read_file", "render", "write_report"]

MakePdf = Callable[[Report], bytes]

_MAX_FILE: Final = 1 << 30
_HEADS: Final = "report.heads"


def check_folder(folder: Path) -> None:
    """Raise UsageError if a report is in `folder` already: it is evidence, and never overwritten."""
    found = [name for name in (*FILES, NOTE) if (folder / name).exists()]
    if found:
        raise UsageError(f"{folder} holds {', '.join(found)} already: choose another folder for this report")


def render(report: Report, heads: Sequence[VerifiedHead], pdf: MakePdf | None) -> dict[str, bytes]:
    """The files by name, without the note. `pdf` makes report.pdf; None leaves it out."""
    files = {CSV: csv_bytes(report), HEADS: encode_heads(heads), HTML: html_bytes(report)}
    if pdf is not None:
        files[PDF] = pdf(report)
    return files


def write_report(folder: Path, report: Report, files: Mapping[str, bytes], signer: Signer | None) -> list[Path]:
    """Write the files, and at last the note if there is a signer. Returns what was written.

    Raises UsageError if there is a report already, StorageError.
    """
    check_folder(folder)
    written = dict(files)
    if signer is not None:
        digests = {name: hashlib.sha256(data).digest() for name, data in files.items()}
        written[NOTE] = Manifest.of(report, digests).sign(signer)
    return [_write(folder / name, data) for name, data in written.items()]


def encode_heads(heads: Sequence[VerifiedHead]) -> bytes:
    """report.heads: the published heads that date the entries, one note in base64 a line."""
    return "".join(f"{encode_base64(head.note)}\n" for head in heads).encode("ascii")


def decode_heads(data: bytes) -> list[bytes]:
    """The notes of report.heads, NOT yet verified. Raises DecodeError."""
    try:
        lines = data.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise DecodeError(_HEADS, "not ASCII") from None
    if lines.pop() or not all(lines) or not lines:
        raise DecodeError(_HEADS, "has an empty line, or no newline at the end")
    if max(map(len, lines)) > 2 * MAX_NOTE_BYTES:
        raise DecodeError(_HEADS, "a line is too long")
    try:
        return [decode_base64(_HEADS, line) for line in lines]
    except LedgerDecodeError as error:
        raise DecodeError(error.what, error.reason) from error


def read_file(folder: Path, name: str) -> bytes:
    """A file of a report. Raises UsageError, DecodeError."""
    limit = MAX_NOTE_BYTES if name == NOTE else _MAX_FILE
    data = read_limited(folder / name, limit)
    if len(data) > limit:
        raise DecodeError(name, f"more than {limit} bytes")
    return data


def _write(path: Path, data: bytes) -> Path:
    """A whole file or none, durable on return."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_folder(path.parent)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path
