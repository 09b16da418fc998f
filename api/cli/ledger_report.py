"""sealproof ledger report: who did what on a ledger, when, and what came of it, for people who audit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from api.cli.common import Json, LogKey, err, log_key_text, out, print_json, progress, trusted_head, trusted_log
from api.client.identity import Identity
from api.client.ledger_report import pdf_file
from api.client.ledger_report.check import CheckedReport, LedgerNow, check_report
from api.client.ledger_report.files import check_folder, render, write_report
from api.client.ledger_report.heads import ClockStep, policy_digest, read_archive
from api.client.ledger_report.manifest import party_signer
from api.client.ledger_report.reading import read_ledger
from api.client.ledger_report.report import Period, Report, build_report, time_text
from api.client.ledger_report.sources import open_mirror
from api.client.log_evidence import keep_evidence
from api.client.session import log_errors
from api.client.state_folder import StateFolder
from api.client.transport import Server
from api.client.trust import TrustStore, home_folder
from ledger import Checkpoint, LogMisbehaved, Signer, Verifier, open_checkpoint
from ledger.note import Note
from privacy.errors import UsageError
from privacy.private_files import read_private

_MAX_PASSPHRASE = 1 << 12


def report(
    server: Annotated[str | None, typer.Option(help="Address of the server whose ledger is read.")] = None,
    mirror: Annotated[str | None, typer.Option(help="Instead: a folder or URL of the log in plain files.")] = None,
    log_key: LogKey = None,
    start: Annotated[str | None, typer.Option("--from", help="First day or second, UTC: 2026-01-01.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Last day or second, UTC: 2026-03-31.")] = None,
    clinic: Annotated[str | None, typer.Option(help="Only what concerns the clinic of this name.")] = None,
    out_folder: Annotated[Path | None, typer.Option("--out", help="Where to write the report.")] = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", "-f", help="Sign as this party: the folder that its init made.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="Sign with this key instead, a signed-note key file.")] = None,
    new_key: Annotated[
        str | None, typer.Option(help="Make the file of --key first, a fresh key of this name: reports.st-anna.example")
    ] = None,
    no_pdf: Annotated[
        bool, typer.Option("--no-pdf", help="Leave report.pdf out; it needs the extra [report].")
    ] = False,
    pdf_key: Annotated[
        Path | None, typer.Option(help="Sign the PDF with this PKCS #12 file, as authorities give them out.")
    ] = None,
    pdf_passphrase: Annotated[Path | None, typer.Option(help="Private file with the passphrase of --pdf-key.")] = None,
    check: Annotated[Path | None, typer.Option(help="Check the report in this folder, instead of making one.")] = None,
    reporter_key: Annotated[
        str | None, typer.Option(help="With --check: the key, or a file with it, that must have signed the report.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Read the whole ledger, check it, and write who did what, when, and what came of it: CSV, HTML, PDF, signed.

    Example: sealproof ledger report --server http://localhost:8000 --from 2026-01-01 --out report --folder clinic
    """
    if check is not None:
        reporter = None if reporter_key is None else _verifier(reporter_key)
        now = None if server is None and mirror is None else _ledger(server, mirror, log_key)
        with _evidence(server or mirror), progress(quiet=as_json) as told:
            checked = check_report(check, reporter, now, told)
        _tell_checked(checked, as_json)
        return
    if out_folder is None:
        raise UsageError("where to? Give --out FOLDER for a new report, or --check FOLDER for one that is there")
    check_folder(out_folder)
    period, signer = Period.parse(start, end), _signer(folder, key, new_key)
    pdf = None if no_pdf else _pdf(signer, pdf_key, pdf_passphrase)
    ledger = _ledger(server, mirror, log_key)
    with _evidence(server or mirror), progress(quiet=as_json) as told:
        heads = read_archive(ledger.source, ledger.head, ledger.trusted.verifier)
        policy = ledger.trusted.policy
        reading = read_ledger(ledger.source, heads, ledger.trusted.verifier, policy, progress=told)
    made = build_report(reading, period, clinic, policy_digest(policy))
    written = write_report(out_folder, made, render(made, heads, pdf), signer)
    _tell(made, written, signer, as_json)


def _ledger(server: str | None, mirror: str | None, log_key: str | None) -> LedgerNow:
    """The ledger with its present head, verified."""
    if (server is None) == (mirror is None):
        raise UsageError("say which ledger: --server ADDRESS, or --mirror FOLDER")
    if server is not None:
        source = Server(server)
        head = trusted_head(source, log_key)
        with log_errors():
            return LedgerNow(source, head, trusted_log(head.origin, log_key))
    copy = open_mirror(mirror or "")
    note = copy.checkpoint()
    with log_errors():
        trusted = trusted_log(Checkpoint.parse(Note.parse(note).text).origin, log_key)
        head = open_checkpoint(note, trusted.verifier, trusted.origin)
        trusted.witnesses(note)
        if log_key is None:
            TrustStore().observe(head, None)  # another head of the same size as the last one seen is a fork
    return LedgerNow(copy, head, trusted)


def _signer(folder: Path | None, key: Path | None, new_key: str | None) -> Signer | None:
    if folder is not None and key is not None:
        raise UsageError("one reporter: --folder of a party, or --key, not both")
    if folder is not None:
        return party_signer(Identity.load(folder))
    if key is None and new_key is not None:
        raise UsageError("--new-key makes the file of --key, which is missing")
    if key is not None and new_key is not None:
        with log_errors():
            Signer.generate(new_key).save(key)
    return None if key is None else Signer.load(key)


def _pdf(signer: Signer | None, path: Path | None, passphrase: Path | None) -> Callable[[Report], bytes]:
    """How report.pdf is made and signed. Raises MissingDependency before anything is read."""
    if passphrase is not None and path is None:
        raise UsageError("--pdf-passphrase is that of --pdf-key, which is missing")
    pdf_file.check_installed(signing=signer is not None or path is not None)
    if path is not None:
        secret = None
        if passphrase is not None:
            secret = read_private(passphrase, _MAX_PASSPHRASE, "passphrase").removesuffix(b"\n")
        return lambda made: pdf_file.sign_pdf_with_file(pdf_file.pdf_bytes(made), path, secret)
    if signer is not None:
        return lambda made: pdf_file.sign_pdf_with_signer(pdf_file.pdf_bytes(made), signer)
    return pdf_file.pdf_bytes


def _verifier(text: str) -> Verifier:
    found = log_key_text(text)
    with log_errors():
        return Verifier.parse((found or "").strip())


@contextmanager
def _evidence(seen: str | None) -> Iterator[None]:
    """Keep what convicts a log, should it contradict itself."""
    try:
        yield
    except LogMisbehaved as error:
        state = StateFolder(home_folder())
        with state.locked():
            kept = keep_evidence(state, error, (f"archive of {seen}", str(seen)))
        err.print(f"the log contradicts itself; its two signed heads are kept in {kept}", soft_wrap=True)
        raise


def _tell(made: Report, written: list[Path], signer: Signer | None, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "origin": made.head.origin,
                "size": made.head.size,
                "root": made.head.root.hex(),
                "from": time_text(made.period.start) or None,
                "to": time_text(made.period.end) or None,
                "clinic": made.clinic,
                "entries": len(made.rows),
                "flagged": [{"entry": row.index, "flags": list(row.flags)} for row in made.flagged],
                "clock_steps": [_step(step) for step in made.steps],
                "files": [str(path) for path in written],
                "reporter_key": None if signer is None else str(signer.verifier),
            }
        )
        return
    out.print(f"{len(made.rows)} of {made.head.size} entries, {len(made.flagged)} of them to look at")
    for step in made.steps:
        out.print(f"a clock went back: {step.clock}, between the heads of {step.old_size} and {step.new_size} entries")
    for path in written:
        out.print(str(path), soft_wrap=True)
    if signer is None:
        out.print("not signed: give --folder of a party or --key, so that others can check who made it")
    else:
        out.print(f"signed, with the key\n{signer.verifier}", soft_wrap=True)


def _step(step: ClockStep) -> dict[str, str | int]:
    return {
        "clock": step.clock,
        "old_size": step.old_size,
        "old_time": time_text(step.old_time),
        "new_size": step.new_size,
        "new_time": time_text(step.new_time),
    }


def _tell_checked(checked: CheckedReport, as_json: bool) -> None:
    manifest, party = checked.manifest, checked.party
    if as_json:
        print_json(
            {
                "result": "verified",
                "origin": manifest.origin,
                "size": manifest.size,
                "from": time_text(manifest.period.start) or None,
                "to": time_text(manifest.period.end) or None,
                "clinic": manifest.clinic,
                "entries": manifest.entries,
                "flagged": manifest.flagged,
                "signed_by": checked.signed_by,
                "party": None if party is None else {"name": party.name, "role": party.role},
                "files": {name: digest.hex() for name, digest in manifest.digests.items()},
                "compared_with_ledger": checked.compared,
                "page_compared": checked.page_compared,
            }
        )
        return
    who = "" if party is None else f", the {party.role} {party.name}"
    out.print(f"signed by {checked.signed_by}{who}; {', '.join(manifest.digests)} are as they were", soft_wrap=True)
    if not checked.compared:
        out.print("not compared with the ledger: give --server or --mirror for that")
        return
    out.print(f"report.csv is what the ledger gives: {manifest.entries} of {manifest.size} entries")
    if checked.page_compared:
        out.print("report.html is what the ledger gives")
    else:
        out.print(f"report.html was made by version {manifest.made_by}: only its digest was checked")
