"""sealproof ledger fsck, mirror, monitor, evidence: what outsiders do with a log in plain files."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.common import (
    EXIT_ENVIRONMENT,
    EXIT_REFUSED,
    Json,
    LogKey,
    err,
    one_line,
    out,
    print_json,
    progress,
    trusted_log,
    trusted_logs,
)
from api.client.log_evidence import check_evidence
from api.client.log_mirror import mirror_log
from api.client.log_monitor import Finding, Monitor, Round
from api.client.tile_source import TileSource, open_tiles
from api.client.trust import TrustedLog, TrustStore, home_folder
from ledger import open_checkpoint
from ledger.checkpoint import Checkpoint
from ledger.errors import FileRefused
from ledger.fsck import KnownTree, fsck
from ledger.note import MAX_NOTE_BYTES, Note
from privacy.errors import UsageError

__all__ = ["check_files", "mirror", "monitor", "show_evidence"]

Place = Annotated[
    str, typer.Argument(help="URL of the log (of a sealproof server: <server>/log), or a folder with its files.")
]


def check_files(
    place: Place,
    log_key: LogKey = None,
    since: Annotated[
        Path | None,
        typer.Option(help="A signed checkpoint up to which the log was checked before: read what is newer."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Read a whole log and check every file of it against its signed head, with code that shares nothing with servers.

    Example: sealproof ledger fsck http://localhost:8000/log --log-key log.vkey
    """
    source = open_tiles(place)
    try:
        note = _checkpoint(source)
        log = _log_of(note, log_key)
        known = None if since is None else open_checkpoint(_read_note(since), log.verifier, log.origin)
        with progress(as_json) as report:
            found = fsck(
                source.fetch,
                str(log.verifier),
                note=note,
                since=None if known is None else KnownTree(known.size, known.root),
                fetch_many=source.fetch_many,
                progress=lambda done, total: report("entries", done, total),
            )
        log.witnesses(note)
    finally:
        source.close()
    if as_json:
        print_json(
            {
                "origin": found.origin,
                "size": found.size,
                "root": found.root.hex(),
                "since": found.since,
                "files": found.files,
                "entry_bytes": found.entry_bytes,
            }
        )
    else:
        out.print(
            f"{found.origin}: {found.size} entries ({found.size - found.since} read), {found.files} files, all as the "
            "signed head says",
            soft_wrap=True,
        )


def mirror(
    place: Place,
    folder: Annotated[Path, typer.Argument(help="Folder of the copy; made when needed, brought up to date otherwise.")],
    log_key: LogKey = None,
    as_json: Json = False,
) -> None:
    """Copy a log into plain files, checked up to its signed head; the copy is again a log that anybody can check.

    Example: sealproof ledger mirror http://localhost:8000/log copy --log-key log.vkey
    """
    source = open_tiles(place)
    try:
        with progress(as_json) as report:
            log = _log_of(_checkpoint(source), log_key)
            done = mirror_log(source, log, folder, lambda done, total: report("entries", done, total))
    finally:
        source.close()
    if as_json:
        print_json({"origin": log.origin, "size": done.head.size, "since": done.since, "files": done.files})
    else:
        out.print(
            f"{folder}: {log.origin} up to {done.head.size} entries ({done.head.size - done.since} new)", soft_wrap=True
        )


def monitor(
    places: Annotated[list[str], typer.Argument(help="URLs (or folders) under which the same log is shown.")],
    log_key: LogKey = None,
    origin: Annotated[str | None, typer.Option(help="Which log, if the policy lists several.")] = None,
    state: Annotated[
        Path | None,
        typer.Option(help="Folder to remember heads and evidence in; default: in the user's configuration."),
    ] = None,
    checkpoint: Annotated[
        list[Path] | None, typer.Option(help="A checkpoint of the log from elsewhere, to compare; may be repeated.")
    ] = None,
    every: Annotated[
        float | None, typer.Option(help="Look again after so many seconds, until the log is convicted.", min=1)
    ] = None,
    whole: Annotated[bool, typer.Option("--whole", help="Read old entries again, not only what was added.")] = False,
    as_json: Json = False,
) -> None:
    """Check that a log only grows, has its witnesses, and shows the same to everybody; evidence of lies is kept.

    Looks once, or with --every until two of the log's own signatures contradict each other.

    Example: sealproof ledger monitor http://localhost:8000/log https://mirror.example/log --policy policy.txt
    """
    sources = [open_tiles(place) for place in places]
    try:
        log = _one_log(log_key, origin)
        others = [(str(path), _read_note(path)) for path in checkpoint or []]
        watching = Monitor(sources, log, state or _state(log.origin), others)
        code = _watch(watching, every, whole, as_json)
    finally:
        for source in sources:
            source.close()
    if code:
        raise typer.Exit(code)


def show_evidence(
    folder: Annotated[Path, typer.Argument(help="Folder with old.note and new.note, as monitor and mirror keep it.")],
    log_key: LogKey = None,
    as_json: Json = False,
) -> None:
    """Check evidence against a log: do these two signed heads prove that it lied? Exit code 0 if they do, else 1.

    Example: sealproof ledger evidence evidence/1f0c --log-key log.vkey
    """
    log = _log_of(_read_note(folder / "new.note"), log_key)
    proven = check_evidence(folder, log.verifier)
    if as_json:
        print_json({"origin": log.origin, "proven": proven})
    else:
        out.print(proven, soft_wrap=True)


def _watch(watching: Monitor, every: float | None, whole: bool, as_json: bool) -> int:
    while True:
        with progress(as_json or every is not None) as report:
            found = watching.check(report, whole=whole)
        _show(found, every is not None, as_json)
        if every is None or found.convicted:
            break
        time.sleep(every)
    if found.findings:
        return EXIT_REFUSED
    return EXIT_ENVIRONMENT if found.unreachable else 0


def _show(found: Round, again: bool, as_json: bool) -> None:
    if as_json and again:
        typer.echo(json.dumps(_as_json(found), sort_keys=True))
    elif as_json:
        print_json(_as_json(found))
    elif not again or found.findings or found.unreachable or any(v.head.size > v.since for v in found.views):
        _print(found)


def _print(found: Round) -> None:
    for view in found.views:
        seen = f", cosigned by {', '.join(c.name for c in view.cosigned)}" if view.cosigned else ""
        out.print(f"{view.view}: {view.head.size} entries ({view.head.size - view.since} new){seen}", soft_wrap=True)
    for name, reason in found.unreachable:
        err.print(f"{name}: not reached: {one_line(reason)}", soft_wrap=True)
    for finding in found.findings:
        err.print(one_line(f"{finding.view}: {finding.check}: {finding.detail}"), soft_wrap=True)
        if finding.evidence is not None:
            proves = "proves that the log lied: publish it" if finding.convicts else "proves nothing by itself"
            err.print(f"  evidence: {finding.evidence} ({proves})", soft_wrap=True)
    if not found.findings and not found.unreachable and len(found.views) > 1:
        out.print("all of them agree")


def _as_json(found: Round) -> dict[str, Any]:
    return {
        "views": [
            {
                "view": view.view,
                "size": view.head.size,
                "since": view.since,
                "root": view.head.root.hex(),
                "cosigned": [{"name": c.name, "time": c.time} for c in view.cosigned],
                "time": view.time,
            }
            for view in found.views
        ],
        "findings": [_finding(finding) for finding in found.findings],
        "unreachable": [{"view": name, "reason": reason} for name, reason in found.unreachable],
        "convicted": found.convicted,
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "view": finding.view,
        "check": finding.check,
        "detail": finding.detail,
        "evidence": None if finding.evidence is None else str(finding.evidence),
        "convicts": finding.convicts,
    }


def _checkpoint(source: TileSource) -> bytes:
    note = source.fetch("checkpoint")
    if note is None:
        raise FileRefused(
            "checkpoint.missing", "checkpoint", f"none at {source.name} (the log of a sealproof server is <server>/log)"
        )
    return note


def _log_of(note: bytes, log_key: str | None) -> TrustedLog:
    """The trusted log: the only one that was named, else the one that a note, not verified yet, says it is of."""
    trusted = trusted_logs(log_key)
    if not isinstance(trusted, TrustStore) and len(trusted) == 1:
        return trusted[0]
    return trusted_log(Checkpoint.parse(Note.parse(note).text).origin, log_key)


def _one_log(log_key: str | None, origin: str | None) -> TrustedLog:
    """The log to watch: the only one that is trusted, or the one named. No view may choose it."""
    if origin is not None:
        return trusted_log(origin, log_key)
    trusted = trusted_logs(log_key)
    names = [v.name for v in trusted.list()] if isinstance(trusted, TrustStore) else [log.origin for log in trusted]
    if len(names) != 1:
        raise UsageError(f"say with --origin which log to watch; trusted: {', '.join(map(repr, names)) or 'none'}")
    return trusted_log(names[0], log_key)


def _read_note(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_NOTE_BYTES + 1)


def _state(origin: str) -> Path:
    return home_folder() / "monitor" / hashlib.sha256(origin.encode("utf-8", "surrogatepass")).hexdigest()
