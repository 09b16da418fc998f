"""What `sealproof consumer` prints: how requests stand, and what was shown, facts first."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from api.cli.common import EXIT_REFUSED, EXIT_USAGE, err, one_line, out, print_json
from api.client.answered import not_granted, unanswered
from api.client.asked import AskedRequest, GrantState, RequestState
from api.client.prediction import rounded_up
from api.client.questions import question_in_words
from api.client.session import LocatedModel
from api.client.shown import VerifiedDisclosure
from api.consent import Question
from privacy.canonical_json import parse_timestamp
from privacy.errors import DecodeError, VerificationFailed

__all__ = ["print_state", "refuse", "state_json", "tell"]


def _expired(grant: GrantState) -> bool:
    return parse_timestamp(grant.grant.body.until) < datetime.now(UTC)


def state_json(state: RequestState) -> dict[str, Any]:
    document = state.asked.document
    return {
        "request": state.asked.index,
        "clinic": state.clinic.name,
        "purpose": document.purpose,
        "records": sorted({question.record for question in document.questions}),
        "questions": len(document.questions),
        "state": state.state,
        "refusal": state.refusal,
        "grants": [
            {
                "grant": grant.grant.reference.index,
                "until": grant.grant.body.until,
                "expired": _expired(grant),
                "revoked": grant.revoked,
                "disclosures": [one.reference.index for one in grant.disclosures],
            }
            for grant in state.grants
        ],
    }


def print_state(state: RequestState) -> None:
    number, document = state.asked.index, state.asked.document
    why = f": {state.refusal}" if state.state == "refused" else ""
    about = "1 question" if len(document.questions) == 1 else f"{len(document.questions)} questions"
    out.print(f"{number}  {state.clinic.name}, {about}, {document.purpose}: {state.state}{why}", soft_wrap=True)
    several = sum(len(grant.disclosures) for grant in state.grants) > 1
    for grant in state.grants:
        ended = " (revoked)" if grant.revoked else " (ended)" if _expired(grant) else ""
        shown = ", ".join(str(one.reference.index) for one in grant.disclosures)
        which = f" --disclosure {grant.disclosures[0].reference.index}" if several else ""
        told = f"shown in entry {shown}: sealproof consumer collect {number}{which}" if shown else "nothing shown yet"
        out.print(
            f"   grant {grant.grant.reference.index} until {grant.grant.body.until}{ended}; {told}", soft_wrap=True
        )


def _model(found: VerifiedDisclosure) -> LocatedModel:
    return found.prediction.model


def _missing(found: VerifiedDisclosure, asked: AskedRequest) -> list[tuple[Question, bool]]:
    """Questions without an answer, and whether the clinic granted them."""
    refused = set(not_granted(found, asked))
    return [(question, question not in refused) for question in unanswered(found, asked)]


def tell(path: Path, found: VerifiedDisclosure, asked: AskedRequest, as_json: bool) -> None:
    """The facts first, then what they rest on."""
    missing, body, head = _missing(found, asked), found.prediction.model.body, found.prediction.head
    consent = found.consent
    revoked = [one.index for one in (*found.prediction.revoked_since, *(consent.revoked_since if consent else ()))]
    if as_json:
        print_json(
            {
                "result": "verified",
                "file": str(path),
                "request": asked.index,
                "purpose": asked.document.purpose,
                "clinic": found.clinic.name,
                "facts": [fact.to_json() for fact in found.facts],
                "unanswered": [
                    {"question": question_in_words(question, _model(found)), "granted": granted}
                    for question, granted in missing
                ],
                "model": {"name": body.name, "version": body.version, "owner": found.prediction.owner.name},
                "disclosure": found.entry.reference.index,
                "grant": None if consent is None else consent.grant.reference.index,
                "until": None if consent is None else consent.document.until,
                "issued_at": found.issued_at,
                "revoked_since": revoked,
                "ledger": {"origin": head.origin, "size": head.size},
            }
        )
        return
    out.print(f"{found.clinic.name} shows, for request {asked.index} ({asked.document.purpose}):", soft_wrap=True)
    for fact in found.facts:
        out.print(f"  {one_line(fact.sentence)}", soft_wrap=True)
        if fact.meaning is not None:
            out.print(f"    {one_line(fact.meaning)}", soft_wrap=True)
        if fact.error:
            out.print(f"    of an encrypted answer, within {rounded_up(fact.error)} of the committed model's")
    for question, granted in missing:
        why = "granted, but not answered here" if granted else "not granted"
        out.print(f"  NOT ANSWERED ({why}): {one_line(question_in_words(question, _model(found)))}", soft_wrap=True)
    out.print(
        f"VERIFIED {one_line(str(path))}: model {body.name} {body.version} of {found.prediction.owner.name}; shown at "
        f"{found.issued_at}, ledger entry {found.entry.reference.index} of {head.origin}",
        soft_wrap=True,
    )
    for index in revoked:
        out.print(f"note: ledger entry {index}, which it uses, was revoked since")


def refuse(what: str, error: VerificationFailed | DecodeError, as_json: bool) -> typer.Exit:
    """Say that nothing of it is believed, and why. Returns how the command ends."""
    result, code, check, message = "unreadable", EXIT_USAGE, "bundle.unreadable", str(error)
    if isinstance(error, VerificationFailed):
        result, code, check, message = "refused", EXIT_REFUSED, error.check, error.detail
    if as_json:
        print_json({"result": result, "file": what, "check": check, "message": message})
    else:
        err.print(f"{result.upper()} {one_line(what)}: believe nothing of it", soft_wrap=True)
        err.print(f"  {check}: {one_line(message)}", soft_wrap=True)
    return typer.Exit(code)
