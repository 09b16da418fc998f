"""What verify and explain do alike: read their options, verify a bundle, compare its head, name what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from api.chain.anchors import Anchor, compare_head, parse_anchors
from api.cli.common import (
    EXIT_ENVIRONMENT,
    EXIT_REFUSED,
    EXIT_USAGE,
    ProgressCallback,
    nonce_bytes,
    trusted_logs,
)
from api.cli.governance import governed
from api.client.anchored import AnchorComparison
from api.client.audit import verify_bundle
from api.client.joint_prediction import VerifiedJointPrediction
from api.client.prediction import VerifiedPrediction
from api.client.shown import VerifiedDisclosure
from api.client.transport import Server
from api.client.trust import TrustedLog, TrustStore
from api.client.verified_cache import VerifiedCache
from api.governance import Governance
from ledger import StorageError, VerifiedHead
from privacy.errors import DecodeError, VerificationFailed
from privacy.zk.group import Group, group_by_name

__all__ = ["CODES", "FAILURES", "Demands", "Verified", "failure", "head_of"]

Verified = VerifiedPrediction | VerifiedJointPrediction | VerifiedDisclosure

Failed = Literal["refused", "unreadable", "unreachable"]

FAILURES = (VerificationFailed, StorageError, DecodeError, OSError)
"""What a bundle, or what was asked about it, may end with; any other error is one of usage."""

CODES = {"refused": EXIT_REFUSED, "unreadable": EXIT_USAGE, "unreachable": EXIT_ENVIRONMENT}
"""Exit codes by result, the first that applies of several bundles."""


@dataclass(frozen=True)
class Demands:
    """The options, read."""

    trusted: list[TrustedLog] | TrustStore
    group: Group
    server: Server | None
    recipient: bytes | None
    cached: bool
    anchors: Sequence[Anchor]
    governance: Governance | None
    governance_rpc: str | None

    @classmethod
    def of(
        cls,
        log_key: str | None,
        server: str | None,
        backend: str,
        no_cache: bool,
        nonce: str | None,
        anchor: Sequence[str] | None,
        governance: Path | None,
        governance_rpc: str | None,
    ) -> Demands:
        """Raises UsageError and DecodeError for options that say nothing, OSError for files that cannot be read."""
        return cls(
            trusted_logs(log_key),
            group_by_name(backend),
            Server(server) if server else None,
            None if nonce is None else nonce_bytes(nonce),
            not no_cache,
            [parsed for text in anchor or () for parsed in parse_anchors(text)],
            None if governance is None else Governance.load(governance),
            governance_rpc,
        )

    def verify(self, bundle: Path, report: ProgressCallback) -> Verified:
        """The bundle, verified. Raises one of FAILURES."""
        with governed(self.governance, self.governance_rpc) as contract:
            return verify_bundle(
                bundle,
                self.trusted,
                group=self.group,
                ledger=self.server,
                recipient_nonce=self.recipient,
                progress=report,
                cache=VerifiedCache() if self.cached else None,
                governance=self.governance,
                contract=contract,
            )

    def compare(self, found: Verified) -> Sequence[AnchorComparison]:
        """Its head beside those on chains. Raises one of FAILURES."""
        return compare_head(self.anchors, head_of(found), self.server.consistency if self.server else None)


def head_of(found: Verified) -> VerifiedHead:
    """The ledger head that a bundle rests on."""
    return found.prediction.head if isinstance(found, VerifiedDisclosure) else found.head


def failure(error: Exception) -> tuple[Failed, str, str]:
    """Result, check and message of one of FAILURES."""
    if isinstance(error, VerificationFailed):
        return "refused", error.check, error.detail
    if isinstance(error, StorageError):  # of a chain: what the bundle itself shows was not the problem
        return "unreachable", "chain.unavailable", str(error)
    return "unreadable", "bundle.unreadable", str(error)
