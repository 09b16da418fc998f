"""sealproof explain: what a bundle proves, in plain words."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import typer

from api.cli.common import (
    Json,
    LogKey,
    ProgressCallback,
    out,
    print_json,
    progress,
)
from api.cli.verifying import CODES, FAILURES, Demands, failure, head_of
from api.client.explain.document import Explanation
from api.client.explain.facts import Reading
from api.client.explain.page import as_page
from api.client.explain.refused import explain_refused
from api.client.explain.text import as_text
from api.client.explain.verified import explain_verified
from api.client.trust import TrustedLog, TrustStore
from privacy.private_files import write_private


def explain(
    bundle: Annotated[Path, typer.Argument(help="Bundle to verify and explain.")],
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
        list[str] | None, typer.Option(help="Compare the bundle's head with the one on a chain, as verify does.")
    ] = None,
    governance: Annotated[
        Path | None, typer.Option(help="Demand that hospitals of this governance file approved the model before.")
    ] = None,
    governance_rpc: Annotated[
        str | None, typer.Option(help="A node of the governance file's chain: also demand that they still approve it.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page to this file, with a picture, instead of the text.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Verify a bundle and explain it: what is proved, who signed it, on which ledger, with which error, what is not
    claimed. Also a refusal: what failed, and what to do. Options and exit codes are those of verify.

    Example: sealproof explain disclosure.sealproof --log-key log.vkey --html explained.html
    """
    demands = Demands.of(log_key, server, backend, no_cache, nonce, anchor, governance, governance_rpc)
    options = {"--log-key": log_key, "--server": server, "--nonce": nonce}
    given = [word for name, value in options.items() if value is not None for word in (name, value)]
    given += [word for text in anchor or () for word in ("--anchor", text)]
    given += ["--governance", str(governance)] if governance is not None else []
    given += ["--governance-rpc", governance_rpc] if governance_rpc is not None else []
    given += ["--backend", backend] if backend != "arkworks" else []
    given += ["--no-cache"] if no_cache else []
    reading = Reading(
        options=tuple(given),
        pinned=log_key is not None,
        server=server is not None,
        nonce=nonce is not None,
        cached=not no_cache,
        governance=demands.governance,
        contract=governance_rpc is not None,
    )
    steps = _Steps()
    try:
        with progress(quiet=as_json) as report:
            found = demands.verify(bundle, steps.watching(report))
            steps.ended()
            compared = demands.compare(found)
        log = _log(demands.trusted, head_of(found).origin)
        explanation = explain_verified(found, replace(reading, anchors=tuple(compared), trusted=log))
    except FAILURES as error:
        explanation = explain_refused(str(bundle), *failure(error), steps.passed, reading)
    _show(explanation, html, as_json)
    if explanation.result != "verified":
        raise typer.Exit(CODES[explanation.result])


@dataclass
class _Steps:
    """Steps of an audit in the order in which they began; the last one may have failed."""

    begun: list[str] = field(default_factory=list)
    complete: bool = False

    @property
    def passed(self) -> list[str]:
        """Steps that had ended: all that began, but the last unless the audit is complete."""
        return self.begun if self.complete else self.begun[:-1]

    def ended(self) -> None:
        """Every step has passed."""
        self.complete = True

    def watching(self, report: ProgressCallback) -> ProgressCallback:
        """`report`, and the names are kept."""

        def watch(step: str, done: int, total: int) -> None:
            if step not in (*self.begun, "done"):
                self.begun.append(step)
            report(step, done, total)

        return watch


def _log(trusted: list[TrustedLog] | TrustStore, origin: str) -> TrustedLog | None:
    if isinstance(trusted, TrustStore):
        return trusted.trusted(origin)
    return next((log for log in trusted if log.origin == origin), None)


def _show(explanation: Explanation, html: Path | None, as_json: bool) -> None:
    if html is not None:
        write_private(html, as_page(explanation))
    if as_json:
        print_json(explanation.to_json())
    elif html is None:
        out.print(as_text(explanation), soft_wrap=True)
    else:
        out.print(f"{explanation.title}. The explanation is in {html}, which only you can read.", soft_wrap=True)
