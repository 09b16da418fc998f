"""sealproof ledger: what anyone may ask a log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.cli import ledger_anchor, ledger_report, ledger_watch, ledger_witness
from api.cli.common import Json, LogKey, out, print_json, trusted_head, trusted_log
from api.client.session import log_errors
from api.client.transport import Server
from api.entries import decode_entry
from ledger import TlogProof
from ledger.checkpoint import Checkpoint
from ledger.note import Note
from privacy.errors import UsageError

app = typer.Typer(help="The ledger: its signed head, and proofs that entries are in it.", no_args_is_help=True)
app.add_typer(ledger_anchor.app, name="anchor")
app.command("witness")(ledger_witness.witness)
app.command("report")(ledger_report.report)
app.command("fsck")(ledger_watch.check_files)
app.command("mirror")(ledger_watch.mirror)
app.command("monitor")(ledger_watch.monitor)
app.command("evidence")(ledger_watch.show_evidence)

Address = Annotated[str, typer.Option("--server", help="Address of the server.")]


@app.command()
def checkpoint(server: Address, log_key: LogKey = None, as_json: Json = False) -> None:
    """Fetch the signed head, verify it, and remember it if the log is trusted: a later fork or rollback is refused.

    Example: sealproof ledger checkpoint --server http://localhost:8000
    """
    head = trusted_head(Server(server), log_key)
    if as_json:
        print_json({"origin": head.origin, "size": head.size, "root": head.root.hex()})
    else:
        out.print(head.note.decode(), end="", markup=False, soft_wrap=True)


@app.command()
def prove(
    index: Annotated[int, typer.Argument(help="Ledger index of an entry.")],
    server: Address,
    log_key: LogKey = None,
    save: Annotated[Path | None, typer.Option(help="Write entry and proof to FILE.json and FILE.tlog-proof.")] = None,
    as_json: Json = False,
) -> None:
    """Fetch an entry with its inclusion proof, and verify both.

    Example: sealproof ledger prove 3 --server http://localhost:8000
    """
    source = Server(server)
    entry, proof = source.entry(index), source.proof(index)
    with log_errors():
        parsed = TlogProof.parse(proof)
        origin = Checkpoint.parse(Note.parse(parsed.checkpoint).text).origin
        log = trusted_log(origin, log_key)
        verified = parsed.verify(entry, log.verifier, origin)
        log.witnesses(parsed.checkpoint)
    if verified.index != index:
        raise UsageError(f"the server answered with entry {verified.index}")
    kind = decode_entry(entry).kind
    if save is not None:
        save.with_suffix(".json").write_bytes(entry)
        save.with_suffix(".tlog-proof").write_bytes(proof)
    if as_json:
        print_json({"index": index, "kind": kind, "leaf": verified.leaf_hash.hex(), "size": verified.head.size})
    else:
        out.print(f"entry {index} ({kind}) is in the log of {verified.head.size} entries")
        out.print(entry.decode(), markup=False, soft_wrap=True)
