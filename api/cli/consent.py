"""What a clinic shows to others, and by whose consent: the commands requests, grant, refuse, revoke-grant, disclose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from api.cli.common import Folder, Json, kind_asked, model_argument, nonce_bytes, out, print_json, progress
from api.client.clinic import Clinic, HeldGrant, IncomingRequest
from api.client.consents import Reason
from api.client.disclosure import DEFAULT_CAP
from api.client.questions import question_in_words, question_of
from api.consent import Question, Scope
from privacy.errors import UsageError

__all__ = ["COMMANDS"]

DEFAULT = Path("clinic")

GrantIndex = Annotated[int, typer.Argument(metavar="GRANT", help="Ledger index of the grant.")]
Records = Annotated[list[str] | None, typer.Option("--record", "-r", help="Record id; may be repeated.")]


def requests(
    everything: Annotated[bool, typer.Option("--all", help="Those that were answered or withdrawn, too.")] = False,
    folder: Folder = DEFAULT,
    as_json: Json = False,
) -> None:
    """Who asks this clinic to show what, about which records, and for which purpose.

    Requests are read from the ledger and their texts from the clinic's mailbox; nobody else can read those.
    Example: sealproof clinic requests
    """
    with Clinic.open(folder) as clinic:
        told = [_told(clinic, request) for request in clinic.incoming(all=everything)]
    if as_json:
        print_json({"requests": told})
        return
    for request in told:
        out.print(f"request {request['request']} of {request['consumer']}, {request['state']}", soft_wrap=True)
        if request["problem"] is not None:
            out.print(f"  not readable: {request['problem']}", soft_wrap=True)
            continue
        out.print(f"  for {request['purpose']!r}, about {request['about']}", soft_wrap=True)
        for question in request["questions"]:
            out.print(f"  {question['asks']}", soft_wrap=True)
        if request["grants"]:
            out.print(f"  granted in {', '.join(f'entry {index}' for index in request['grants'])}", soft_wrap=True)
    if not told:
        out.print("no requests" if everything else "no requests wait for an answer (--all lists the others)")


def grant(
    request: Annotated[
        int | None, typer.Argument(metavar="REQUEST", help="Ledger index of the request (sealproof clinic requests).")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Grant only what is asked about this record; may be repeated.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Last moment to show it, such as 2027-01-01T00:00:00Z; 30 days by default.")
    ] = None,
    document: Annotated[
        Path | None, typer.Option("--request", help="The request, where it was handed over as a file.")
    ] = None,
    nonce: Annotated[
        str | None, typer.Option(help="For somebody who is not on the ledger: what sealproof consumer nonce printed.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="With --nonce: the model, by name, 'name version' or index.")
    ] = None,
    record: Annotated[
        list[str] | None, typer.Option("--record", "-r", help="With --nonce: record id; may be repeated.")
    ] = None,
    at_least: Annotated[
        float | None,
        typer.Option(help="With --nonce: that it is at least this. A probability for a logit; else an answer."),
    ] = None,
    odds: Annotated[
        float | None, typer.Option(help="With --nonce: of a softmax, that --output is so many times --versus.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="With --nonce: what it is, to within --tolerance.")] = False,
    tolerance: Annotated[
        float | None, typer.Option(help="Of --exact: a multiple of the model's grid, one step by default.")
    ] = None,
    whole: Annotated[
        bool, typer.Option("--open", help="With --nonce: all of it, of multi-party computation only.")
    ] = False,
    output: Annotated[str | None, typer.Option(help="With --nonce: output of the model, its first by default.")] = None,
    versus: Annotated[
        str | None, typer.Option(help="With --nonce: a second output, for the difference of the two.")
    ] = None,
    records: Annotated[int | None, typer.Option(help="With --nonce: only of this records entry.")] = None,
    purpose: Annotated[str | None, typer.Option(help="With --nonce: what the answers are for.")] = None,
    folder: Folder = DEFAULT,
    as_json: Json = False,
) -> None:
    """Consent to show what a request asks, or less. It is logged that you consent, not to what; nothing is shown yet.

    For somebody who is not on the ledger, such as a patient, say yourself what is shown: --nonce 9f3c... --model heart
    --record p7 --at-least 0.7 --purpose "for myself".
    Example: sealproof clinic grant 12 --only p7 --until 2027-01-01T00:00:00Z
    """
    if (request is not None) + (document is not None) + (nonce is not None) != 1:
        raise UsageError("give the index of a request, or its file (--request), or a recipient's nonce (--nonce)")
    said = (model, record, at_least, odds, tolerance, output, versus, records, purpose)
    with Clinic.open(folder) as clinic:
        if nonce is None:
            if exact or whole or any(one is not None for one in said):
                raise UsageError("what is shown is what the request asks: --only grants less, nothing grants another")
            asked = document if request is None else request
            assert asked is not None
            held = clinic.grant(asked, only=only, until=until)
        else:
            if only is not None:
                raise UsageError("with --nonce there is no request to grant a part of: name the records (--record)")
            if model is None or not record or purpose is None:
                raise UsageError("with --nonce say what is shown: --model, --record, --purpose, and a question")
            about = clinic.session.model(model_argument(model))
            questions = [
                question_of(
                    about,
                    one,
                    kind=kind_asked(at_least, odds, exact, whole),
                    threshold=at_least,
                    odds=odds,
                    tolerance=tolerance,
                    output=output if output is not None else 0,
                    versus=versus,
                )
                for one in record
            ]
            cohort = None
            if records is not None:
                cohort = next((mine.reference for mine in clinic.records() if mine.index == records), None)
                if cohort is None:
                    raise UsageError(f"entry {records} is no cohort of this clinic")
            scope = Scope(None, about.reference, cohort)
            held = clinic.grant_nonce(nonce_bytes(nonce), questions, scope=scope, purpose=purpose, until=until)
        questions_told = _questions(clinic, held.document.scope, held.document.questions)
    if as_json:
        print_json(
            {
                "grant": held.index,
                "leaf": held.reference.leaf.hex(),
                "until": held.document.until,
                "questions": questions_told,
            }
        )
        return
    for question in questions_told:
        out.print(f"granted: {question['asks']}", soft_wrap=True)
    out.print(f"grant {held.index}, until {held.document.until}. Now: sealproof clinic disclose {held.index}")


def refuse(
    request: Annotated[int, typer.Argument(metavar="REQUEST", help="Ledger index of the request.")],
    reason: Annotated[str, typer.Option(help="declined, no-consent or no-such-answer; it is logged.")] = "declined",
    folder: Folder = DEFAULT,
    as_json: Json = False,
) -> None:
    """Refuse a request for good. That, and the reason, is logged.

    Example: sealproof clinic refuse 12 --reason no-consent
    """
    known: dict[str, Reason] = {name: name for name in get_args(Reason)}
    if reason not in known:
        raise UsageError(f"--reason is {', '.join(known)}, not {reason!r}")
    with Clinic.open(folder) as clinic:
        reference = clinic.refuse(request, known[reason])
    if as_json:
        print_json({"refusal": reference.index, "request": request, "reason": reason})
    else:
        out.print(f"request {request} refused ({reason}), as entry {reference.index} says")


def revoke_grant(
    grant: GrantIndex,
    reason: Annotated[str, typer.Option(help="Why; it is logged.")] = "revoked by the clinic",
    folder: Folder = DEFAULT,
    as_json: Json = False,
) -> None:
    """End a grant now: nothing more is shown under it. What was shown before stays shown.

    Example: sealproof clinic revoke-grant 14
    """
    with Clinic.open(folder) as clinic:
        reference = clinic.revoke_grant(grant, reason)
    if as_json:
        print_json({"revocation": reference.index, "grant": grant})
    else:
        out.print(f"grant {grant} revoked by entry {reference.index}")


def disclose(
    grant: GrantIndex,
    bundle: Annotated[
        Path | None, typer.Argument(help="Bundle of the prediction; by default the newest that the grant covers.")
    ] = None,
    record: Records = None,
    save: Annotated[
        Path | None, typer.Option(help="Write a file, too, for the recipient alone; needed if it has no mailbox.")
    ] = None,
    cap: Annotated[
        int, typer.Option(min=1, help="Answers that may be disclosed under one encryption key, all in all.")
    ] = DEFAULT_CAP,
    folder: Folder = DEFAULT,
    as_json: Json = False,
) -> None:
    """Show what a grant lists, provably, and nothing else: sealed for the consumer, on the server.

    The prediction is verified before it is opened. It is logged that something was shown; the ledger says neither whose
    answer it is nor what was shown. One statement of a kind is made about an answer, and no second, different one.
    Example: sealproof clinic disclose 14 --save p7.sealproof
    """
    with Clinic.open(folder, disclosure_cap=cap) as clinic, progress() as report:
        path = clinic.disclose(grant, bundle, save, record, progress=report)
        held = next(held for held in clinic.grants() if held.index == grant)
    how = _handed_over(held, path)
    if as_json:
        print_json({"grant": grant, "saved": None if path is None else str(path), "delivered": how["delivered"]})
        return
    out.print(f"disclosed and logged. {how['words']}", soft_wrap=True)


def _handed_over(held: HeldGrant, path: Path | None) -> dict[str, Any]:
    delivered = any(held.folder.glob("shown-*/box"))
    words = "The consumer fetches it with sealproof consumer collect." if delivered else ""
    if path is not None:
        words += f" Give {path} to the recipient, who checks it with sealproof verify --nonce."
    return {"delivered": delivered, "words": words.strip()}


def _told(clinic: Clinic, request: IncomingRequest) -> dict[str, Any]:
    """A request in words and numbers."""
    document, problem = request.document, request.problem
    questions: list[dict[str, Any]] = []
    about = None
    if document is not None:
        try:
            questions = _questions(clinic, document.scope, document.questions)
            about = _about(clinic, document.scope)
        except UsageError as error:  # a question that no model of this scope answers hides no other request
            problem = str(error)
    return {
        "request": request.index,
        "consumer": request.consumer.name,
        "state": request.state,
        "problem": problem,
        "purpose": None if document is None else document.purpose,
        "about": about,
        "questions": questions,
        "grants": list(request.grants),
    }


def _about(clinic: Clinic, scope: Scope) -> str:
    if scope.prediction is not None:
        return f"the prediction in entry {scope.prediction.index}"
    model = clinic.asked_model(scope)
    cohort = "" if scope.records is None else f" on the records in entry {scope.records.index}"
    # Owners share no names: somebody else's model may be called the same.
    return f"any prediction of {model.body.name} {model.body.version} (entry {model.reference.index}){cohort}"


def _questions(clinic: Clinic, scope: Scope, questions: tuple[Question, ...]) -> list[dict[str, Any]]:
    model = clinic.asked_model(scope)
    return [
        {"record": question.record, "kind": question.kind, "asks": question_in_words(question, model)}
        for question in questions
    ]


COMMANDS = (requests, grant, refuse, revoke_grant, disclose)
