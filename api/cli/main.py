"""The commands' tree and the one place where errors become exit codes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from api.cli import clinic, committee, consumer, explain, governance, ledger, model, mpc, operator, tools, trust, verify
from api.cli.common import EXIT_USAGE, err, exit_code, one_line
from api.version import VERSION

__all__ = ["app", "main"]

app = typer.Typer(
    name="sealproof",
    help="Predictions on encrypted patient records that anyone can check.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(clinic.app, name="clinic")
app.add_typer(model.app, name="model")
app.add_typer(consumer.app, name="consumer")
app.add_typer(committee.app, name="committee")
app.add_typer(mpc.app, name="mpc")
app.add_typer(ledger.app, name="ledger")
app.add_typer(governance.app, name="governance")
app.add_typer(trust.app, name="trust")
app.add_typer(operator.party_app, name="party")
app.command("serve")(operator.serve)
app.command("verify")(verify.verify)
app.command("explain")(explain.explain)
app.command("exposure")(tools.exposure)
app.command("demo")(tools.demo)
app.command("bench")(tools.bench)
app.command("doctor")(tools.doctor)


def _version(shown: bool) -> None:
    if shown:
        typer.echo(VERSION)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Predictions on encrypted patient records that anyone can check."""


def main() -> None:
    """Run the command line. Exit codes: 0 done or verified, 1 refused, 2 unreadable or usage, 3 service or machine."""
    try:
        code = app(standalone_mode=False)
    except typer.Exit as error:
        code = error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        err.print("stopped; what was finished is kept, and the same command goes on from there")
        code = 130
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # wrong usage, told by the command-line parser
            error.show()
            sys.exit(EXIT_USAGE)
        code = exit_code(error)
        if code is None:
            raise
        err.print(f"error: {one_line(str(error))}", soft_wrap=True)
    sys.exit(code if isinstance(code, int) else 0)
