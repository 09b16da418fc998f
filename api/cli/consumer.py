"""sealproof consumer: ask a clinic to show an answer, and check what it shows."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer

from api.cli.common import (
    Folder,
    Json,
    LogKey,
    kind_asked,
    log_key_text,
    model_argument,
    out,
    print_json,
    progress,
)
from api.cli.consumer_told import print_state, refuse, state_json, tell
from api.client.consumer import Consumer
from api.client.questions import question_in_words, question_of
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.private_files import read_limited

app = typer.Typer(help="Somebody to whom a clinic discloses answers.", no_args_is_help=True)

DEFAULT = Path("consumer")
_MAX_RECORDS_FILE = 1 << 20

RequestIndex = Annotated[int, typer.Argument(metavar="REQUEST", help="Ledger index of the request.")]
Offline = Annotated[
    bool, typer.Option("--offline", help="Ask the server for nothing: revocations are not looked up then.")
]


@app.callback()
def root() -> None:
    """Somebody to whom a clinic discloses answers: an insurer, a sponsor of a trial, an authority."""


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="Name on the ledger, such as acme-life.")],
    server: Annotated[str, typer.Option(help="Address of the server.")],
    log_key: LogKey = None,
    folder: Folder = DEFAULT,
    as_json: Json = False,
) -> None:
    """Register a consumer, with a key to sign by and a mailbox for what clinics send.

    Example: sealproof consumer init acme-life --server http://localhost:8000 --log-key log.vkey
    """
    with Consumer.init(folder, server, name, log_key=log_key_text(log_key)) as consumer:
        party = consumer.session.identity.party
        entry = None if party is None else party.index
        if as_json:
            print_json({"name": consumer.name, "entry": entry, "folder": str(folder)})
        else:
            out.print(f"consumer {consumer.name} registered as ledger entry {entry}. Keep {folder} secret.")


@app.command()
def request(
    clinic: Annotated[str, typer.Argument(help="The clinic's name on the ledger, or the index of its entry.")],
    purpose: Annotated[str, typer.Option(help="What the answers are for; the clinic reads it and consents to it.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Model: its name, 'name version', or ledger index.")
    ] = None,
    record: Annotated[
        list[str] | None, typer.Option("--record", "-r", help="Record id of a patient; may be repeated.")
    ] = None,
    records_file: Annotated[
        Path | None, typer.Option(help="File with record ids, one a line, for many patients.")
    ] = None,
    at_least: Annotated[
        float | None,
        typer.Option(help="Is it at least this? A probability for a logit; else an answer, or a difference of two."),
    ] = None,
    odds: Annotated[
        float | None, typer.Option(help="Of a softmax: is --output at least so many times as likely as --versus?")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="What is it, to within --tolerance?")] = False,
    tolerance: Annotated[
        float | None, typer.Option(help="Of --exact: a multiple of the model's grid, one step by default.")
    ] = None,
    whole: Annotated[
        bool, typer.Option("--open", help="What is it, all of it? Of multi-party computation only.")
    ] = False,
    output: Annotated[str | None, typer.Option(help="Output of the model; by default its first.")] = None,
    versus: Annotated[
        str | None, typer.Option(help="A second output: ask for the difference, output minus versus.")
    ] = None,
    records: Annotated[int | None, typer.Option(help="Only of this records entry of the clinic.")] = None,
    prediction: Annotated[int | None, typer.Option(help="Only of this prediction, by its ledger entry.")] = None,
    save: Annotated[
        Path | None, typer.Option(help="Also write the request to a file, to be handed over by another way.")
    ] = None,
    folder: Folder = DEFAULT,
    as_json: Json = False,
) -> None:
    """Ask a clinic to show answers. It is logged that you asked, not what: that is sealed for the clinic alone.

    A threshold is rounded up to the model's grid, so that a yes is one to what you asked.
    Run it again after a crash: the same request that nobody has answered yet is not made twice.
    Example: sealproof consumer request st-anna --model heart --record p7 --at-least 0.7 --purpose "life insurance 4711"
    """
    kind = kind_asked(at_least, odds, exact, whole)
    ids = _record_ids(record, records_file)
    with Consumer.open(folder) as consumer, progress(quiet=as_json) as report:
        if model is None and prediction is None:
            raise UsageError("say which model is asked about (--model), or which prediction (--prediction)")
        about = consumer.session.model(model_argument(model)) if model else consumer.model_of(prediction or 0)
        questions = [
            question_of(
                about,
                one,
                kind=kind,
                threshold=at_least,
                odds=odds,
                tolerance=tolerance,
                output=output if output is not None else 0,
                versus=versus,
            )
            for one in ids
        ]
        asked = consumer.request(
            model_argument(clinic),
            questions,
            purpose=purpose,
            model=about,
            records=records,
            prediction=prediction,
            save=save,
            progress=report,
        )
    words = [question_in_words(question, about) for question in asked.document.questions]
    if as_json:
        print_json(
            {
                "request": asked.index,
                "leaf": asked.reference.leaf.hex(),
                "clinic": asked.document.clinic.index,
                "nonce": asked.document.nonce.hex(),
                "questions": words,
                "saved": None if save is None else str(save),
            }
        )
        return
    for told in words:
        out.print(f"  {told}", soft_wrap=True)
    out.print(f"asked {clinic}, logged as request {asked.index}; sealproof consumer requests shows what came of it")
    if save is not None:
        out.print(f"hand {save} to the clinic: it says what is asked", soft_wrap=True)


@app.command()
def requests(folder: Folder = DEFAULT, as_json: Json = False) -> None:
    """What came of your requests, as the ledger has it: all of it is read, so that no server can hide anything.

    Example: sealproof consumer requests
    """
    with Consumer.open(folder) as consumer, progress(quiet=as_json) as report:
        states, size = consumer.requests(progress=report), consumer.log_size
    if as_json:
        print_json({"ledger_size": size, "requests": [state_json(state) for state in states]})
        return
    if not states:
        out.print("nothing was asked yet: sealproof consumer request")
    for state in states:
        print_state(state)


@app.command()
def withdraw(
    request: RequestIndex,
    reason: Annotated[str, typer.Option(help="Why; everybody can read it.")] = "withdrawn by its consumer",
    folder: Folder = DEFAULT,
    as_json: Json = False,
) -> None:
    """Ask no longer: from now on the clinic grants and shows nothing for this request.

    Example: sealproof consumer withdraw 12
    """
    with Consumer.open(folder) as consumer:
        logged = consumer.withdraw(request, reason)
    if as_json:
        print_json({"request": request, "withdrawal": logged.index})
    else:
        out.print(f"request {request} is withdrawn, logged as entry {logged.index}")


@app.command()
def collect(
    request: RequestIndex,
    save: Annotated[
        Path | None, typer.Option(help="Where to write the disclosure; by default in the folder, under received/.")
    ] = None,
    disclosure: Annotated[
        int | None, typer.Option(help="Which disclosure, by its ledger entry, where there are several.")
    ] = None,
    folder: Folder = DEFAULT,
    as_json: Json = False,
) -> None:
    """Fetch what the clinic has shown for a request, verify all of it, and only then write it.

    Exit code 0: verified and written; 1: refused; 2: unreadable, or nothing to collect; 3: the server failed.
    Example: sealproof consumer collect 12 --save p7.sealproof
    """
    try:
        with Consumer.open(folder) as consumer, progress(quiet=as_json) as report:
            found, path = consumer.collect_to(request, save, disclosure=disclosure, progress=report)
            asked = consumer.asked_in(found)
    except (VerificationFailed, DecodeError) as error:
        raise refuse(f"what was shown for request {request}", error, as_json) from None
    tell(path, found, asked, as_json)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A disclosure that a clinic has handed over, or that was collected.")],
    offline: Offline = False,
    folder: Folder = DEFAULT,
    as_json: Json = False,
) -> None:
    """Verify a disclosure against the request that you made: who shows what, whether it is true, and what is missing.

    Exit code 0: verified; 1: refused; 2: unreadable, or made for nobody here.
    Example: sealproof consumer verify p7.sealproof
    """
    try:
        with Consumer.open(folder) as consumer, progress(quiet=as_json) as report:
            found = consumer.verify(file, offline=offline, progress=report)
            asked = consumer.asked_in(found)
    except (VerificationFailed, DecodeError) as error:
        raise refuse(str(file), error, as_json) from None
    tell(file, found, asked, as_json)


@app.command()
def nonce(as_json: Json = False) -> None:
    """A fresh nonce, for a clinic that shows something without a request on the ledger, such as to a patient.

    Give it to the clinic, keep it, and check what it shows with `sealproof verify --nonce`. It makes the disclosure
    yours: nobody can show you one that was made for somebody else or for an earlier question.
    Example: sealproof consumer nonce
    """
    made = secrets.token_bytes(32).hex()
    if as_json:
        print_json({"nonce": made})
    else:
        out.print(made)


# -- what is asked ----------------------------------------------------------------------------------------------------


def _record_ids(record: list[str] | None, records_file: Path | None) -> list[str]:
    ids = list(record or ())
    if records_file is not None:
        data = read_limited(records_file, _MAX_RECORDS_FILE)
        if len(data) > _MAX_RECORDS_FILE:
            raise UsageError(f"{records_file} is too large for a list of record ids")
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UsageError(f"{records_file} is not UTF-8 text") from error
        ids += [line.strip() for line in text.splitlines() if line.strip()]
    if not ids:
        raise UsageError("say whose answers are asked for: --record ID, or --records-file FILE")
    twice = sorted({one for one in ids if ids.count(one) > 1})
    if twice:
        raise UsageError(f"record {twice[0]!r} is named twice")
    return ids
