"""sealproof explain: what a bundle proves, in plain words."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import typer

from api.chain.anchors import compare_head, parse_anchors
from api.cli.common import (
    EXIT_ENVIRONMENT,
    EXIT_REFUSED,
    EXIT_USAGE,
    Json,
    LogKey,
    ProgressCallback,
    nonce_bytes,
    out,
    print_json,
    progress,
    trusted_logs,
)
from api.cli.governance import governed
from api.client.audit import verify_bundle
from api.client.explain.document import Explanation
from api.client.explain.facts import Reading
from api.client.explain.page import as_page
from api.client.explain.refused import explain_refused
from api.client.explain.text import as_text
from api.client.explain.verified import explain_verified
from api.client.shown import VerifiedDisclosure
from api.client.transport import Server
from api.client.trust import TrustedLog, TrustStore
from api.client.verified_cache import VerifiedCache
from api.governance import Governance
from ledger import StorageError
from privacy.errors import DecodeError, VerificationFailed
from privacy.private_files import write_private
from privacy.zk.group import group_by_name

_CODES = {"verified": 0, "refused": EXIT_REFUSED, "unreadable": EXIT_USAGE, "unreachable": EXIT_ENVIRONMENT}


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
    trusted, recipient = trusted_logs(log_key), None if nonce is None else nonce_bytes(nonce)
    group = group_by_name(backend)
    anchors = [parsed for text in anchor or () for parsed in parse_anchors(text)]
    demanded = None if governance is None else Governance.load(governance)
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
        nonce=recipient is not None,
        cached=not no_cache,
        governance=demanded,
        contract=governance_rpc is not None,
    )
    steps = _Steps()
    try:
        with progress(quiet=as_json) as report, governed(demanded, governance_rpc) as contract:
            found = verify_bundle(
                bundle,
                trusted,
                group=group,
                ledger=Server(server) if server else None,
                recipient_nonce=recipient,
                progress=steps.watching(report),
                cache=None if no_cache else VerifiedCache(),
                governance=demanded,
                contract=contract,
            )
            steps.ended()
            head = found.prediction.head if isinstance(found, VerifiedDisclosure) else found.head
            compared = compare_head(anchors, head, Server(server).consistency if server else None)
        log = _log(trusted, head.origin)
        explanation = explain_verified(found, replace(reading, anchors=tuple(compared), trusted=log))
    except VerificationFailed as error:
        explanation = explain_refused(str(bundle), "refused", error.check, error.detail, steps.passed, reading)
    except StorageError as error:  # of a chain: what the bundle itself shows was not the problem
        explanation = explain_refused(
            str(bundle), "unreachable", "chain.unavailable", str(error), steps.passed, reading
        )
    except (DecodeError, OSError) as error:
        explanation = explain_refused(str(bundle), "unreadable", "bundle.unreadable", str(error), steps.passed, reading)
    _show(explanation, html, as_json)
    if explanation.result != "verified":
        raise typer.Exit(_CODES[explanation.result])


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
