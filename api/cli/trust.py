"""sealproof trust: which ledgers this user trusts."""

from __future__ import annotations

from typing import Annotated

import typer

from api.cli.common import Json, log_key_text, out, print_json
from api.client.session import log_errors
from api.client.trust import TrustStore

app = typer.Typer(help="Which ledgers are trusted on this machine.", no_args_is_help=True)


@app.command()
def add(
    key: Annotated[str, typer.Argument(help="Verifier key of a log, or a file with it, or a tlog-policy file.")],
) -> None:
    """Trust a log, or the logs of a policy together with their witnesses. Get keys from their owners, not from bundles.

    Example: sealproof trust add log.vkey
    """
    with log_errors():
        added = TrustStore().add(log_key_text(key) or "")
    for verifier in added:
        out.print(f"trusted: {verifier.name}")


@app.command("list")
def show(as_json: Json = False) -> None:
    """The trusted logs.

    Example: sealproof trust list
    """
    with log_errors():
        found = TrustStore().list()
    if as_json:
        print_json([str(verifier) for verifier in found])
    for verifier in [] if as_json else found:
        out.print(str(verifier), markup=False)


@app.command()
def remove(origin: Annotated[str, typer.Argument(help="Name of the log.")]) -> None:
    """Trust a log no longer.

    Example: sealproof trust remove localhost/sealproof
    """
    with log_errors():
        TrustStore().remove(origin)
    out.print(f"no longer trusted: {origin}")
