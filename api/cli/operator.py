"""sealproof serve and sealproof party: what the operator of a server types."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.cli.common import out
from api.cli.serving import serve_app
from privacy.errors import MissingDependency

_CONNECTIONS = 128
"""Connections at a time; more get 503, so that bodies of uploads cannot fill the memory."""

party_app = typer.Typer(help="Admit parties to a server with closed registration.", no_args_is_help=True)


def serve(
    data: Annotated[Path, typer.Option(help="Folder of the server: ledger, keys, blobs.")] = Path("sealproof-data"),
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on; beyond this machine only behind TLS.")] = "127.0.0.1",
    origin: Annotated[str, typer.Option(help="Name of the ledger; fixed once it exists.")] = "localhost/sealproof",
    closed: Annotated[bool, typer.Option("--closed", help="Only parties that were admitted may register.")] = False,
    ledger: Annotated[
        str | None,
        typer.Option(
            help="Where the ledger lies: sqlite:FILE, tiles:FOLDER or postgresql://... (several servers, one --data). "
            "Default: a file in --data."
        ),
    ] = None,
    witnesses: Annotated[
        Path | None, typer.Option(help="A tlog-policy file: its witnesses are asked to cosign every head.")
    ] = None,
    governance: Annotated[
        Path | None, typer.Option(help="Serve only models that the hospitals of this governance file approved.")
    ] = None,
    governance_rpc: Annotated[
        str | None, typer.Option(help="A node of the governance file's chain, where approvals may be withdrawn.")
    ] = None,
    exposure_cap: Annotated[
        str | None, typer.Option(help="Refuse predictions beyond this fraction of a model's bits, such as 1/2.")
    ] = None,
) -> None:
    """Run the service: publish, submit, predict, ledger. Further settings: environment variables SEALPROOF_*.

    Example: sealproof serve --data /srv/sealproof --port 8000 --exposure-cap 1/2
    """
    try:
        import uvicorn  # noqa: F401

        from api.app import create_app
        from api.settings import Settings
    except ImportError as error:
        raise MissingDependency("fastapi, uvicorn", "service") from error
    from ledger import Signer

    chosen: dict[str, object] = {"data": data, "origin": origin, "registration": "closed" if closed else "open"}
    given = {
        "exposure_cap": exposure_cap,
        "ledger": ledger,
        "witness_policy": witnesses,
        "governance": governance,
        "governance_rpc": governance_rpc,
    }
    chosen |= {name: value for name, value in given.items() if value is not None}
    app = create_app(Settings.model_validate({**Settings().model_dump(), **chosen}))

    def announce(address: str) -> None:
        verifier = Signer.load(data / "log.key").verifier
        (data / "log.vkey").write_text(f"{verifier}\n", encoding="utf-8")
        out.print(f"ledger key, for clinics and auditors (also in {data / 'log.vkey'}):\n{verifier}", markup=False)
        out.print(f"listening on {address}")

    serve_app(app, host, port, _CONNECTIONS, announce)


@party_app.command()
def add(
    identity: Annotated[Path, typer.Argument(help="Party entry that the clinic, owner or consumer sent you.")],
    data: Annotated[Path, typer.Option(help="Folder of the server.")] = Path("sealproof-data"),
) -> None:
    """Admit a party entry (name, role and key) to a server with closed registration; its holder then registers.

    Example: sealproof party add st-anna.json --data /srv/sealproof
    """
    from api.service import admit_party

    party = admit_party(data, identity.read_bytes())
    out.print(f"admitted: {party.role} {party.name}")


@party_app.command("entry")
def entry(
    folder: Annotated[Path, typer.Argument(help="Folder that init made.")],
    save: Annotated[Path, typer.Option(help="Where to write the party entry.")],
) -> None:
    """Write the party entry of a folder, for the operator of a server with closed registration.

    Example: sealproof party entry clinic --save st-anna.json
    """
    from api.client.identity import Identity

    save.write_bytes(Identity.load(folder).party_entry())
    out.print(f"give {save} to the operator of the server")
