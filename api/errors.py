"""Errors of the service, and how every error of the project is told over HTTP: one table, one JSON shape.

    ApiError
    ├── NotAuthenticated   401  the request is not signed by a registered party, or not freshly
    ├── NotPermitted       403  the party may not do this
    ├── PredictionRefused  403  policy, expiry or revocation forbids this prediction
    │   └── ExposureCap    403  it would release more bits of the model than the operator allows
    ├── NodesNotReady      503  a joint prediction cannot begin: a node is missing, or the two do not fit together
    ├── NotFound           404  there is no such thing here
    ├── Conflict           409  it is there already, in another form
    ├── TooLarge           413  the body is larger than this endpoint takes
    ├── RateLimited        429  too many requests, or too much waiting; try again later
    ├── NotReady           503  something that the operator must provide is missing
    ├── StorageFull        507  the disk is nearly full
    └── BlobDamaged        500  a stored file does not have its digest any more

The body of an error is {"error": {"type", "check", "message", "hint", "details"}}. `check` names a failed check of a
verifier, `details` holds numbers of an exposure cap; both are null otherwise. Messages never hold secrets: those of
unforeseen errors are not shown at all, only an id under which the server's log has them.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Any

from ledger import errors as ledger
from privacy import errors as privacy

__all__ = [
    "ERRORS",
    "ApiError",
    "BlobDamaged",
    "Conflict",
    "ErrorRow",
    "ExposureCap",
    "NodesNotReady",
    "NotAuthenticated",
    "NotFound",
    "NotPermitted",
    "NotReady",
    "Problem",
    "RateLimited",
    "StorageFull",
    "TooLarge",
    "describe",
]


class ApiError(Exception):
    """Root of every error that the service raises on purpose."""


class _Checked(ApiError):
    """An error with the stable name of the check that refused, such as `request.signature`."""

    def __init__(self, check: str, detail: str) -> None:
        super().__init__(f"{check}: {detail}")
        self.check = check
        self.detail = detail


class NotAuthenticated(_Checked):
    """The request is not signed by a registered party, or its time or nonce is not fresh."""


class NotPermitted(_Checked):
    """The party is known and may not do this."""


class PredictionRefused(_Checked):
    """The policy of the records, an expiry or a revocation forbids this prediction."""


class ExposureCap(PredictionRefused):
    """A prediction would release more bits of the model than the operator allows. `output` is the first such output."""

    def __init__(self, output: str, released: Fraction, waiting: Fraction, asked: Fraction, cap: Fraction) -> None:
        super().__init__(
            "exposure.cap",
            f"output {output!r}: {_bits(released)} bits are released, {_bits(waiting)} wait in queued jobs and "
            f"{_bits(asked)} are asked for; the operator allows {_bits(cap)} per clinic, model and output",
        )
        self.output = output
        self.released = released
        self.waiting = waiting
        self.asked = asked
        self.cap = cap


class NodesNotReady(_Checked):
    """A joint prediction did not begin: a party's node did not come, or the two nodes name different dealers."""


class NotFound(ApiError):
    """There is no such entry, blob, job or model here."""


class Conflict(ApiError):
    """Something else is there under this name already."""


class TooLarge(ApiError):
    """The body of a request is larger than this endpoint takes."""

    def __init__(self, limit: int, unit: str = "bytes") -> None:
        super().__init__(f"the body has more than {limit} {unit}")
        self.limit = limit


class RateLimited(ApiError):
    """Too many requests of this party, or too many jobs of it are waiting."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotReady(ApiError):
    """Something that the operator must provide is missing."""


class StorageFull(ApiError):
    """The server's disk is nearly full."""


class BlobDamaged(ApiError):
    """A stored blob does not have the digest it is named by."""


def _bits(value: Fraction) -> str:
    return f"{float(value):.1f}"


# -- the table --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ErrorRow:
    """How an exception class is told: HTTP status, type, and what to do. `internal`: its message stays in the log."""

    status: int
    type: str
    hint: str
    internal: bool = False


_OPERATOR = "This is for the server's operator; the id is in the server's log."
_BYTES = "Send exactly the canonical encoding; see the format documentation."
_NODES = "Start the nodes of both parties (sealproof mpc node), then ask again with a fresh nonce."
_BROKEN = "Look at the nodes of both parties; if these two are suspended, both owners clear it (sealproof mpc clear)."
_SIZE_OF_LOG = "Ask for an index or size below the size in the current checkpoint."

ERRORS: Mapping[type[Exception], ErrorRow] = MappingProxyType(
    {
        ApiError: ErrorRow(500, "internal", _OPERATOR, internal=True),
        _Checked: ErrorRow(403, "refused", "See the check."),
        NotAuthenticated: ErrorRow(401, "not-authenticated", "Sign the request with the key of your party entry."),
        NotPermitted: ErrorRow(403, "not-permitted", "Ask as the party that this belongs to."),
        PredictionRefused: ErrorRow(403, "prediction-refused", "Look at the policy and the revocations on the ledger."),
        ExposureCap: ErrorRow(403, "exposure-cap", "Ask for fewer patients, or talk to the model's owner."),
        NodesNotReady: ErrorRow(503, "nodes-not-ready", _NODES),
        NotFound: ErrorRow(404, "not-found", "Look it up on the ledger."),
        Conflict: ErrorRow(409, "conflict", "Choose another name, number or nonce."),
        TooLarge: ErrorRow(413, "too-large", "Send less in one request."),
        RateLimited: ErrorRow(429, "rate-limited", "Wait, then try again."),
        NotReady: ErrorRow(503, "not-ready", "Ask the operator of the server."),
        StorageFull: ErrorRow(507, "storage-full", "Ask the operator of the server."),
        BlobDamaged: ErrorRow(500, "internal", _OPERATOR, internal=True),
        privacy.PrivacyError: ErrorRow(500, "internal", _OPERATOR, internal=True),
        privacy.UsageError: ErrorRow(422, "unusable", "The message says what to change."),
        privacy.DecodeError: ErrorRow(400, "malformed", _BYTES),
        privacy.VerificationFailed: ErrorRow(422, "verification-failed", "See the check; nothing was changed."),
        privacy.SessionBroken: ErrorRow(409, "session-broken", _BROKEN),
        privacy.MissingDependency: ErrorRow(503, "not-ready", "Ask the operator of the server."),
        ledger.LedgerError: ErrorRow(500, "internal", _OPERATOR, internal=True),
        ledger.UsageError: ErrorRow(422, "unusable", "The message says what to change."),
        ledger.EntryTooLarge: ErrorRow(413, "too-large", "Log a digest instead."),
        ledger.NotInLog: ErrorRow(404, "not-found", _SIZE_OF_LOG),
        ledger.DecodeError: ErrorRow(400, "malformed", _BYTES),
        ledger.VerificationFailed: ErrorRow(422, "verification-failed", "See the check; nothing was changed."),
        ledger.IndexOutOfRange: ErrorRow(422, "verification-failed", _SIZE_OF_LOG),
        ledger.RootMismatch: ErrorRow(422, "verification-failed", "See the check; nothing was changed."),
        ledger.OriginMismatch: ErrorRow(422, "verification-failed", "This is the log of another server."),
        ledger.FileRefused: ErrorRow(422, "verification-failed", "See the check; nothing was changed."),
        ledger.ChainRefused: ErrorRow(422, "verification-failed", "See the check; nothing was changed."),
        ledger.LogMisbehaved: ErrorRow(500, "internal", _OPERATOR, internal=True),
        ledger.Rollback: ErrorRow(500, "internal", _OPERATOR, internal=True),
        ledger.Fork: ErrorRow(500, "internal", _OPERATOR, internal=True),
        ledger.InconsistentGrowth: ErrorRow(500, "internal", _OPERATOR, internal=True),
        ledger.StorageError: ErrorRow(500, "internal", _OPERATOR, internal=True),
        ledger.ChainUnavailable: ErrorRow(503, "not-ready", "Ask the operator of the server.", internal=True),
        ledger.MissingDependency: ErrorRow(503, "not-ready", "Ask the operator of the server."),
        ledger.LogLocked: ErrorRow(503, "not-ready", "Ask the operator of the server.", internal=True),
        ledger.CorruptLog: ErrorRow(500, "internal", _OPERATOR, internal=True),
    }
)
"""Every exception class of privacy, ledger and api that the service may meet. Anything else is `internal`, 500."""

_UNFORESEEN = ErrorRow(500, "internal", _OPERATOR, internal=True)


@dataclass(frozen=True)
class Problem:
    """An error as it is told: `incident` is the id under which the log has what must not be shown, else None."""

    status: int
    type: str
    check: str | None
    message: str
    hint: str
    details: dict[str, Any] | None = None
    incident: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The JSON body."""
        fields = ("type", "check", "message", "hint", "details")
        return {"error": {name: getattr(self, name) for name in fields}}


def describe(error: BaseException) -> Problem:
    """How `error` is told to whoever made the request."""
    row = ERRORS.get(type(error), _UNFORESEEN) if isinstance(error, Exception) else _UNFORESEEN
    if row.internal:
        incident = secrets.token_hex(8)
        return Problem(row.status, row.type, None, f"internal error {incident}", row.hint, None, incident)
    check = getattr(error, "check", None)
    details = None
    if isinstance(error, ExposureCap):
        numbers = {"released_bits": error.released, "waiting_bits": error.waiting, "asked_bits": error.asked}
        details = {"output": error.output, **{k: float(v) for k, v in numbers.items()}, "cap_bits": float(error.cap)}
    return Problem(row.status, row.type, check, str(error), row.hint, details)
