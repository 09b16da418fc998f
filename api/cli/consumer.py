"""sealproof consumer: who asks a clinic to show an answer."""

from __future__ import annotations

import secrets

import typer

from api.cli.common import Json, out, print_json

app = typer.Typer(help="Somebody to whom a clinic discloses an answer.", no_args_is_help=True)


@app.callback()
def root() -> None:
    """Somebody to whom a clinic discloses an answer."""


@app.command()
def nonce(as_json: Json = False) -> None:
    """A fresh nonce: give it to the clinic, keep it, and verify what it discloses with `sealproof verify --nonce`.

    It makes the disclosure yours: nobody can show you one that was made for somebody else or for an earlier question.
    Example: sealproof consumer nonce
    """
    made = secrets.token_bytes(32).hex()
    if as_json:
        print_json({"nonce": made})
    else:
        out.print(made)
