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
from rich.text import Text

from api.client.questions import Kind
from api.client.session import log_errors
from api.client.transport import Server, ServerError
from api.client.trust import TrustedLog, TrustStore, parse_trust
from ledger import Checkpoint, VerifiedHead, open_checkpoint
from ledger import errors as ledger_errors
from ledger.note import Note
from privacy import errors as privacy_errors
from privacy.errors import UsageError

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
    "kind_asked",
    "log_key_text",
    "model_argument",
    "nonce_bytes",
    "one_line",
    "out",
    "print_json",
    "progress",
    "trusted_head",
    "trusted_log",
    "trusted_logs",
]

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_ENVIRONMENT = 3

ProgressCallback = Callable[[str, int, int], None]


def one_line(text: str) -> str:
    """`text` with everything that could steer a terminal, or begin a line of its own, written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class _PlainConsole(Console):
    """Names and messages come from other people: no markup is read in them and no control character is passed on."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Every string that is shown, in a table too: only newlines survive of what is not printable."""
        return super().render_str("\n".join(map(one_line, text.split("\n"))), **options)


out = _PlainConsole()
err = _PlainConsole(stderr=True)


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
    """A verifier key, given as such, or the text of a file with one or with a tlog-policy."""
    if value is None:
        return None
    path = Path(value)
    text = value if "+" in value and not path.exists() else path.read_text(encoding="utf-8")
    with log_errors():
        parse_trust(text)
    return text


def trusted_logs(log_key: str | None) -> list[TrustedLog] | TrustStore:
    """What `--log-key` says to trust, or what is trusted on this machine."""
    text = log_key_text(log_key)
    with log_errors():
        return [_with_policy(log) for log in parse_trust(text)] if text else TrustStore()


def _with_policy(log: TrustedLog) -> TrustedLog:
    """A log that was given by its key alone, with its witnesses if they are known on this machine."""
    if log.policy is not None:
        return log
    known = TrustStore().trusted(log.origin)
    return known if known is not None and known.verifier == log.verifier else log


def trusted_log(origin: str, log_key: str | None) -> TrustedLog:
    """How a log is trusted: as given, else as on this machine. Raises UsageError if it is not."""
    trusted = trusted_logs(log_key)
    if isinstance(trusted, TrustStore):
        found = trusted.trusted(origin)
    else:
        found = next((log for log in trusted if log.origin == origin), None)
    if found is None:
        raise UsageError(f"no trusted key for the log {origin!r}: give --log-key, or sealproof trust add")
    return found


def trusted_head(source: Server, log_key: str | None) -> VerifiedHead:
    """The server's published head, verified; without `log_key` also compared with the last one seen, and kept."""
    note = source.checkpoint()
    with log_errors():
        origin = Checkpoint.parse(Note.parse(note).text).origin
        log = trusted_log(origin, log_key)
        head = open_checkpoint(note, log.verifier, origin)
        if log_key is None:
            return TrustStore().follow(note, origin, source.consistency)
        log.witnesses(note)
        return head


# Options that many commands share.
Folder = Annotated[Path, typer.Option("--folder", "-f", help="Folder with this party's keys and state.")]
LogKey = Annotated[
    str | None,
    typer.Option(
        "--log-key",
        "--policy",
        help="Verifier key of the ledger, or a file with it, or a tlog-policy file, which also says whose cosignatures "
        "are demanded; from its operator and its witnesses, not from the bundle.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
ModelName = Annotated[str, typer.Option("--model", "-m", help="Model: its name, 'name version', or ledger index.")]


def nonce_bytes(text: str) -> bytes:
    """A recipient's nonce: 64 hex digits. Raises UsageError."""
    try:
        nonce = bytes.fromhex(text)
    except ValueError as error:
        raise UsageError(f"the nonce {text!r} is not hex") from error
    if len(nonce) != 32:
        raise UsageError(f"a nonce has 32 bytes (64 hex digits), got {len(nonce)}; make one: sealproof consumer nonce")
    return nonce


def kind_asked(at_least: float | None, odds: float | None, exact: bool, whole: bool) -> Kind:
    """What the options of a question say is to be shown. Raises UsageError unless it is one thing."""
    if (at_least is not None or odds is not None) + exact + whole != 1:
        raise UsageError("ask one thing: --at-least NUMBER (or --odds NUMBER), --exact, or --open")
    return "exact" if exact else "open" if whole else "threshold"


def model_argument(text: str) -> str | int:
    """A ledger index if it looks like one, else a name."""
    return int(text) if text.isascii() and text.isdigit() else text
