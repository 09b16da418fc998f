"""sealproof ledger witness: cosigning the heads of other people's logs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.cli.common import Json, log_key_text, out, print_json
from api.cli.serving import serve_app
from api.client.trust import parse_trust
from ledger import Verifier
from ledger.witness import Evidence, Witness
from ledger.witness_store import SqliteWitnessStore, open_folder
from privacy.errors import MissingDependency, UsageError

__all__ = ["witness"]

_CONNECTIONS = 64
_PAGE = 100


def witness(
    data: Annotated[Path, typer.Option(help="Folder of the witness: its key and its memory.")] = Path("witness-data"),
    name: Annotated[
        str | None, typer.Option(help="Name of a new witness's key: a URL without its scheme, fixed for ever.")
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option(help="Verifier key of a log to follow, or a file with it, or a policy file; may be repeated."),
    ] = None,
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8100,
    host: Annotated[str, typer.Option(help="Address to listen on; beyond this machine only behind TLS.")] = "127.0.0.1",
    evidence: Annotated[
        bool, typer.Option("--evidence", help="List the heads that contradict cosigned ones, and exit.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a witness: it cosigns a log's head only if that extends the last one. Prints its key and address.

    Example: sealproof ledger witness --data /srv/witness --name witness.example/w1 --log localhost/sealproof+0e...
    """
    if evidence:
        _show_evidence(data, as_json)
        return
    try:
        from api.witness.app import create_witness_app
    except ImportError as error:
        raise MissingDependency("fastapi, uvicorn", "service") from error
    logs = _logs(log or [])
    store, cosigner = open_folder(data, name)
    try:
        watching = Witness(store, cosigner, logs)
        serve_app(
            create_witness_app(watching, store),
            host,
            port,
            _CONNECTIONS,
            lambda address: _announce(watching, address, as_json),
        )
    finally:
        store.close()


def _announce(watching: Witness, address: str, as_json: bool) -> None:
    if as_json:
        print_json({"witness": watching.vkey, "address": address, "logs": sorted(watching.logs)})
    else:
        out.print(f"witness: {watching.vkey}", markup=False, soft_wrap=True)
        out.print(f"listening on {address}", soft_wrap=True)


def _logs(values: list[str]) -> dict[str, Verifier]:
    logs: dict[str, Verifier] = {}
    for value in values:
        for trusted in parse_trust(log_key_text(value) or ""):
            if logs.setdefault(trusted.origin, trusted.verifier) != trusted.verifier:
                raise UsageError(f"two keys are given for the log {trusted.origin!r}")
    if not logs:
        raise UsageError("a witness follows at least one log: give its verifier key with --log")
    return logs


def _show_evidence(data: Path, as_json: bool) -> None:
    store = SqliteWitnessStore.open(data / "witness.sqlite")
    try:
        found = _all_evidence(store)
    finally:
        store.close()
    if as_json:
        print_json([piece.to_json(number) for number, piece in found])
        return
    for number, piece in found:
        out.print(f"{number}: {_MEANING[piece.kind]} {piece.origin}; cosigned, then refused:", soft_wrap=True)
        out.print(piece.old.decode("utf-8"), soft_wrap=True)
        out.print(piece.new.decode("utf-8"), soft_wrap=True)
    if not found:
        out.print("no log contradicted a head that was cosigned")


_MEANING = {
    "fork": "fork, two signed roots of one size, by",
    "unproven": "a signed head without a good proof (which convicts nobody by itself), of",
}


def _all_evidence(store: SqliteWitnessStore) -> list[tuple[int, Evidence]]:
    found: list[tuple[int, Evidence]] = []
    while page := store.evidence(found[-1][0] if found else 0, _PAGE):
        found += page
    return found
