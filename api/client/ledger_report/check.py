"""A finished report, checked: its note, its files, and on request the ledger that it was made from.

    1. the note is signed by the reporter: by a key that the reader gives, or by the party of the ledger that it names
    2. every file has the digest that the note gives
    3. the log as it stands now extends the head of the report; every entry is read again
    4. the kept heads are of the log, and none that the archive shows is missing among them
    5. the CSV made again from the ledger is the report's, byte for byte; the page too, if this version made it

Steps 3 to 5 need a source. The PDF is checked by its digest alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from api.client.ledger_report.csv_file import csv_bytes
from api.client.ledger_report.files import decode_heads, read_file
from api.client.ledger_report.heads import open_heads, policy_digest, read_archive
from api.client.ledger_report.html_page import html_bytes
from api.client.ledger_report.manifest import CSV, FILES, HEADS, HTML, NOTE, Manifest, party_index
from api.client.ledger_report.reading import LedgerReading, Progress, read_ledger
from api.client.ledger_report.report import build_report
from api.client.ledger_report.sources import LedgerSource
from api.client.session import log_errors
from api.client.trust import TrustedLog
from api.clock import clock_name
from api.entries import Party
from api.version import VERSION
from ledger import VerifiedHead, Verifier
from ledger.note import Note
from privacy.errors import UsageError, VerificationFailed

__all__ = ["CheckedReport", "LedgerNow", "check_report"]

_VERSION: Final = re.compile(r"([0-9]{1,6})\.([0-9]{1,6})(?![0-9])")
_FIRST: Final = (0, 3)
"""The first version that made reports."""


@dataclass(frozen=True)
class LedgerNow:
    """The ledger to compare with: `head` is its present one, verified as `trusted` demands."""

    source: LedgerSource
    head: VerifiedHead
    trusted: TrustedLog


@dataclass(frozen=True)
class CheckedReport:
    """What was found: who signed, as which party if the ledger was asked, and whether it was compared with the ledger.

    `page_compared` is False where another version made the page, whose layout need not be the same.
    """

    manifest: Manifest
    signed_by: str
    public_key: bytes
    party: Party | None
    compared: bool
    page_compared: bool


def check_report(
    folder: Path,
    reporter: Verifier | None,
    ledger: LedgerNow | None,
    progress: Progress = lambda stage, done, total: None,
) -> CheckedReport:
    """Check the report in `folder`. `reporter` is the key that must have signed it; None: a party of the ledger did.

    Raises:
        VerificationFailed: `report.signer`, `note.unsigned` or `note.signature` for another signer, `report.digest` for
            an altered file, `report.log`, `monitor.rollback`, `report.heads`, `report.csv`, `report.page`,
            `report.version` for a page of a version that is not known to have made any, and as `read_ledger` does.
        UsageError: there is neither a key nor a ledger to tell whose report it is, or the policy is missing.
        DecodeError, OSError: what cannot be read.
    """
    if reporter is None and ledger is None:
        raise UsageError("whose report is it? Give the reporter's key (--reporter-key), or the ledger (--server)")
    with log_errors():
        note = Note.parse(read_file(folder, NOTE))
        if reporter is not None:
            note.verify([reporter])
    manifest = Manifest.parse(note)
    files = {name: read_file(folder, name) for name in FILES if name in manifest.digests}
    for name, data in files.items():
        if hashlib.sha256(data).digest() != manifest.digests[name]:
            raise VerificationFailed("report.digest", f"{name} is not the file that {NOTE} is about: it was altered")
    if ledger is None:
        assert reporter is not None
        return CheckedReport(manifest, reporter.name, reporter.public_key, None, False, False)
    reading = _read_again(manifest, files[HEADS], ledger, progress)
    found, party = (reporter, None) if reporter is not None else _signer(note, reading)
    assert found is not None
    if party is None:
        entry = reading.registry.party_with_key(found.public_key)
        party = None if entry is None else entry.body
    report = build_report(reading, manifest.period, manifest.clinic, manifest.policy)
    _compare("report.csv", CSV, files[CSV], csv_bytes(report))
    if manifest != replace(Manifest.of(report, manifest.digests), made_by=manifest.made_by):
        raise VerificationFailed("report.note", "its counts are not those that the ledger gives")
    same = manifest.made_by == VERSION
    if not same and not _earlier(manifest.made_by):
        raise VerificationFailed(
            "report.version",
            f"the page claims version {manifest.made_by}, of which {VERSION} knows nothing: check it with that version",
        )
    if same:
        _compare("report.page", HTML, files[HTML], html_bytes(report))
    return CheckedReport(manifest, found.name, found.public_key, party, True, same)


def _read_again(manifest: Manifest, kept: bytes, ledger: LedgerNow, progress: Progress) -> LedgerReading:
    """The ledger under the head of the report, and everything up to its present head checked."""
    if manifest.origin != ledger.head.origin:
        raise VerificationFailed("report.log", f"the report is of {manifest.origin!r}, this is {ledger.head.origin!r}")
    if manifest.policy is not None and manifest.policy != policy_digest(ledger.trusted.policy):
        raise UsageError(
            f"the report is dated by a witness policy with the digest {manifest.policy.hex()}: give it (--policy)"
        )
    if ledger.head.size < manifest.size:
        raise VerificationFailed(
            "monitor.rollback", f"the report is of {manifest.size} entries, the log shows {ledger.head.size}"
        )
    heads = open_heads(decode_heads(kept), manifest.origin, ledger.trusted.verifier)
    if (heads[-1].size, heads[-1].root) != (manifest.size, manifest.root):
        raise VerificationFailed("report.heads", "the last of the kept heads is not the head that the note gives")
    _check_kept(heads, read_archive(ledger.source, ledger.head, ledger.trusted.verifier))
    policy = ledger.trusted.policy if manifest.policy is not None else None
    return read_ledger(ledger.source, heads, ledger.trusted.verifier, policy, ledger.head, progress)


def _check_kept(kept: Sequence[VerifiedHead], archive: Sequence[VerifiedHead]) -> None:
    """The report left out no head that the archive shows, and no date.

    A published head gets no more cosignatures once there is a larger one. Only the last head of the report may have
    been cosigned by witnesses after it was made, so theirs may be missing there.
    """
    by_size = {head.size: head for head in kept}
    for head in archive:
        if head.size > kept[-1].size:
            break
        ours = by_size.get(head.size)
        if ours is None or ours.root != head.root:
            raise VerificationFailed("report.heads", f"the published head of {head.size} entries is not in the report")
        names = {clock_name(head.origin)} if head.size == kept[-1].size else None
        shown, had = (Note.parse(one.note).signatures for one in (head, ours))
        if any((names is None or signature.name in names) and signature not in had for signature in shown):
            raise VerificationFailed("report.heads", f"a date of the head of {head.size} entries is not in the report")


def _signer(note: Note, reading: LedgerReading) -> tuple[Verifier, Party]:
    """The party of the ledger whose name the note carries, and that its signature is of that party's key."""
    for signature in note.signatures:
        index = party_index(signature.name, reading.head.origin)
        if index is None:
            continue
        party = reading.registry.get(index, Party).body
        verifier = Verifier(signature.name, party.public_key)
        with log_errors():
            note.verify([verifier])
        return verifier, party
    names = ", ".join(signature.name for signature in note.signatures)
    raise VerificationFailed(
        "report.signer", f"signed by {names}, who is no party of the ledger: give the key you expect (--reporter-key)"
    )


def _earlier(made_by: str) -> bool:
    """Whether a version before this one may have made a report, whose page need then not be the same."""
    found, ours = (_VERSION.match(version) for version in (made_by, VERSION))
    if found is None or ours is None:
        return False
    return _FIRST <= tuple(map(int, found.groups())) < tuple(map(int, ours.groups()))


def _compare(check: str, name: str, found: bytes, expected: bytes) -> None:
    if found == expected:
        return
    theirs, ours = found.split(b"\n"), expected.split(b"\n")
    line = next((i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), min(len(theirs), len(ours)))
    raise VerificationFailed(check, f"line {line + 1} of {name} is not what the ledger gives")
