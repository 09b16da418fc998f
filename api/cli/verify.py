"""sealproof verify: the auditor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.common import (
    Json,
    LogKey,
    err,
    one_line,
    out,
    print_json,
    progress,
)
from api.cli.verifying import CODES, FAILURES, Demands, failure
from api.client.anchored import AnchorComparison
from api.client.joint_prediction import VerifiedJointPrediction
from api.client.prediction import Check, VerifiedPrediction
from api.client.shown import VerifiedConsent, VerifiedDisclosure


def verify(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles to verify.")],
    log_key: LogKey = None,
    server: Annotated[str | None, typer.Option(help="Also ask this server: missing inputs, revocations.")] = None,
    backend: Annotated[str, typer.Option(help="arkworks, or reference: a second, slow implementation.")] = "arkworks",
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Check certificates again, even if seen before.")
    ] = False,
    nonce: Annotated[
        str | None, typer.Option(help="Of a disclosure: the nonce that you gave to the clinic, 64 hex digits.")
    ] = None,
    anchor: Annotated[
        list[str] | None,
        typer.Option(
            help="Compare the bundle's head with the one on a chain: NODE#CONTRACT, such as "
            "http://127.0.0.1:8545#0x..., or a file that lists anchors. May be repeated."
        ),
    ] = None,
    governance: Annotated[
        Path | None, typer.Option(help="Demand that hospitals of this governance file approved the model before.")
    ] = None,
    governance_rpc: Annotated[
        str | None, typer.Option(help="A node of the governance file's chain: also demand that they still approve it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Verify bundles and disclosures, without key or FHE library. Exit code 0: verified; 1: refused; 2: unreadable;
    3: a chain that was to be asked did not answer.

    Example: sealproof verify prediction.sealproof --log-key log.vkey
    """
    demands = Demands.of(log_key, server, backend, no_cache, nonce, anchor, governance, governance_rpc)
    reports = []
    for bundle in bundles:
        try:
            with progress(quiet=as_json) as report:
                verified = demands.verify(bundle, report)
                compared = demands.compare(verified)
            reports.append(_report(bundle, verified, pinned=log_key is not None) | _anchored(compared))
        except FAILURES as error:
            reports.append(_refused(bundle, *failure(error)))
    if as_json:
        print_json(reports[0] if len(reports) == 1 else reports)
    else:
        for result in reports:
            _print(result)
    states = {result["result"] for result in reports}
    for state, code in CODES.items():
        if state in states:
            raise typer.Exit(code)


def _report(
    bundle: Path, found: VerifiedPrediction | VerifiedJointPrediction | VerifiedDisclosure, pinned: bool
) -> dict[str, Any]:
    if not isinstance(found, VerifiedDisclosure):
        return _verified(bundle, found, pinned)
    told = _verified(bundle, found.prediction, pinned)
    told["checks"] = _checks(found.checks)
    told["disclosure"] = {
        "facts": [fact.to_json() for fact in found.facts],
        "recipient_nonce": found.recipient_nonce.hex(),
        "entry": found.entry.reference.index,
        "issued_at": found.issued_at,
        "consent": None if found.consent is None else _consent(found.consent),
    }
    return told


def _consent(consent: VerifiedConsent) -> dict[str, Any]:
    return {
        "purpose": consent.document.purpose,
        "consumer": None if consent.consumer is None else consent.consumer.name,
        "until": consent.document.until,
        "grant": consent.grant.reference.index,
        "request": None if consent.request is None else consent.request.reference.index,
        "revoked_since": [reference.index for reference in consent.revoked_since],
    }


def _approval(found: VerifiedPrediction | VerifiedJointPrediction) -> dict[str, Any]:
    if found.approval is None:
        return {}
    body = found.approval.body
    return {
        "approval": {
            "entry": found.approval.reference.index,
            "chain": body.chain,
            "contract": f"0x{body.contract.hex()}",
            "keys": [signed.key.hex() for signed in body.signatures],
        }
    }


def _anchored(compared: Sequence[AnchorComparison]) -> dict[str, Any]:
    return {"anchors": [comparison.to_json() for comparison in compared]} if compared else {}


def _checks(checks: Sequence[Check]) -> list[dict[str, Any]]:
    return [{"name": c.name, "shows": c.sentence, "seconds": round(c.seconds, 4)} for c in checks]


def _verified(bundle: Path, found: VerifiedPrediction | VerifiedJointPrediction, pinned: bool) -> dict[str, Any]:
    body = found.model.body
    return {
        "bundle": str(bundle),
        "result": "verified",
        "scheme": "mpc" if isinstance(found, VerifiedJointPrediction) else "ckks",
        "clinic": found.records.body.clinic,
        "model": {"name": body.name, "version": body.version, "owner": found.owner.name},
        "outputs": [
            {"name": name, "error_bound": float(found.error_bound(place))}
            for place, name in enumerate(found.output_names)
        ],
        "patients": found.count,
        "server": found.server.name,
        "issued_at": found.issued_at,
        "evaluation_error": 0.0 if isinstance(found, VerifiedJointPrediction) else float(found.evaluation_error),
        "ledger": {
            "origin": found.head.origin,
            "size": found.head.size,
            "root": found.head.root.hex(),
            "key": "given with --log-key" if pinned else "trusted on this machine",
        },
        "revoked_since": [reference.index for reference in found.revoked_since],
        "checks": _checks(found.checks),
        **_approval(found),
    }


def _refused(bundle: Path, result: str, check: str, detail: str) -> dict[str, Any]:
    return {"bundle": str(bundle), "result": result, "check": check, "message": detail}


def _print(result: dict[str, Any]) -> None:
    if result["result"] != "verified":
        err.print(f"{result['result'].upper()} {one_line(result['bundle'])}", soft_wrap=True)
        err.print(f"  {result['check']}: {one_line(result['message'])}", soft_wrap=True)
        return
    for check in result["checks"]:
        out.print(f"  {check['name']:<13} {check['seconds']:6.2f} s  {one_line(check['shows'])}", soft_wrap=True)
    for found in result.get("anchors", ()):
        out.print(f"  {'anchor':<23} {one_line(found['says'])}", soft_wrap=True)
    if "disclosure" in result:
        _print_disclosure(result["clinic"], result["disclosure"])
    model = result["model"]
    bounds = ", ".join(f"{o['name']} within {o['error_bound']:.2g}" for o in result["outputs"])
    how = " by multi-party computation; answers are exact" if result["scheme"] == "mpc" else ""
    out.print(
        f"VERIFIED {one_line(result['bundle'])}: {result['patients']} patients of {result['clinic']}, "
        f"model {model['name']} {model['version']} of {model['owner']}{how}; {bounds} of the float model; "
        f"ledger {result['ledger']['origin']}, {result['ledger']['size']} entries ({result['ledger']['key']})",
        soft_wrap=True,
    )
    for index in result["revoked_since"]:
        out.print(f"note: ledger entry {index}, which it uses, was revoked after this prediction")
    consent = result.get("disclosure", {}).get("consent")
    for index in consent["revoked_since"] if consent else ():
        what = "the consent" if index == consent["grant"] else "the request"
        out.print(f"note: {what} in ledger entry {index} was revoked after this disclosure")


def _print_disclosure(clinic: str, shown: dict[str, Any]) -> None:
    for fact in shown["facts"]:
        out.print(f"DISCLOSED by {clinic}: {one_line(fact['says'])}", soft_wrap=True)
        if fact["meaning"] is not None:
            out.print(f"  {one_line(fact['meaning'])}", soft_wrap=True)
        if fact["error"] != "0":
            out.print(f"  of an encrypted answer, within {fact['error']} of the committed model's")
    consent = shown["consent"]
    if consent is None:
        out.print("  no consent is on the ledger for this")
        return
    asked = "whoever gave the clinic this nonce"
    if consent["request"] is not None:
        asked = f"{consent['consumer']}, who asked in entry {consent['request']}"
    out.print(
        f"  consent in entry {consent['grant']} for {one_line(repr(consent['purpose']))}, to {one_line(asked)}, until "
        f"{consent['until']}",
        soft_wrap=True,
    )
