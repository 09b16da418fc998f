"""What every command shares: consoles, exit codes, progress, the folder of a clinic or owner.

Exit codes: 0 done or verified, 1 refused (a check failed), 2 unreadable input or wrong usage, 3 the service or the
environment failed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from api.client.transport import ServerError
from ledger import Verifier
from ledger import errors as ledger_errors
from privacy import errors as privacy_errors

__all__ = [
    "EXIT_ENVIRONMENT",
    "EXIT_REFUSED",
    "EXIT_USAGE",
    "Folder",
    "Json",
    "LogKey",
    "ModelName",
    "ProgressCallback",
    "err",
    "exit_code",
    "log_key_text",
    "model_argument",
    "out",
    "print_json",
    "progress",
]

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_ENVIRONMENT = 3

ProgressCallback = Callable[[str, int, int], None]

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """One JSON document on standard output, nothing else."""
    typer.echo(json.dumps(value, indent=2, sort_keys=True))


@contextmanager
def progress(quiet: bool = False) -> Iterator[ProgressCallback]:
    """A bar a stage on standard error; silent where it is no terminal or `quiet` is asked for."""
    if quiet or not err.is_terminal:
        yield lambda stage, done, total: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield report


def exit_code(error: BaseException) -> int | None:
    """The exit code of an error that is told in one line; None for a bug, which keeps its traceback."""
    if isinstance(error, privacy_errors.VerificationFailed | ledger_errors.VerificationFailed):
        return EXIT_REFUSED
    if isinstance(error, privacy_errors.MissingDependency | ledger_errors.StorageError | ServerError):
        return EXIT_ENVIRONMENT
    if isinstance(error, privacy_errors.PrivacyError | ledger_errors.LedgerError | OSError):
        return EXIT_USAGE
    return None


def log_key_text(value: str | None) -> str | None:
    """A verifier key given as such or as the name of a file that holds it."""
    if value is None or "+" in value:
        return value
    text = Path(value).read_text(encoding="utf-8").strip()
    Verifier.parse(text)
    return text


# Options that many commands share.
Folder = Annotated[Path, typer.Option("--folder", "-f", help="Folder with this party's keys and state.")]
LogKey = Annotated[
    str | None,
    typer.Option(help="Verifier key of the ledger, or a file with it; from its operator, not from the bundle."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
ModelName = Annotated[str, typer.Option("--model", "-m", help="Model: its name, 'name version', or ledger index.")]


def model_argument(text: str) -> str | int:
    """A ledger index if it looks like one, else a name."""
    return int(text) if text.isascii() and text.isdigit() else text
