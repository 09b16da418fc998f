"""JSON of requests, grants and refusals, as the service tells them (`api.schemas`)."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from api.entries import Grant, Party, Refusal, Request
from api.registry import Logged, Registry
from api.schemas import Hex32, Index
from privacy.canonical_json import Timestamp

__all__ = ["GrantRow", "PartyRow", "RefusalRow", "RequestRow"]

_LEAF = "9f3c" * 16
_GRANT: dict[str, Any] = {"index": 9, "until": "2026-08-01T00:00:00Z", "revoked": False, "disclosures": [11]}


def _example(**fields: Any) -> ConfigDict:
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [fields]})


class PartyRow(BaseModel):
    """A party. `mailbox`: its entry has a key for which others may seal something."""

    model_config = _example(index=1, leaf=_LEAF, role="clinic", name="st-anna", mailbox=True)

    index: Index
    leaf: Hex32
    role: Literal["clinic", "owner", "server", "consumer"]
    name: str
    mailbox: bool

    @classmethod
    def of(cls, party: Logged[Party]) -> Self:
        body, at = party.body, party.reference
        return cls(index=at.index, leaf=at.leaf.hex(), role=body.role, name=body.name, mailbox=body.mailbox is not None)


class GrantRow(BaseModel):
    """A grant, and what was shown under it. After `until` nothing more is, nor once it is revoked."""

    model_config = _example(**_GRANT)

    index: Index
    until: Timestamp
    revoked: bool
    disclosures: list[Index]

    @classmethod
    def of(cls, registry: Registry, index: int, size: int) -> Self:
        """Grant `index` as it stands under the first `size` entries."""
        grant = registry.get(index, Grant)
        return cls(
            index=index,
            until=grant.body.until,
            revoked=registry.revocation(grant.reference, size) is not None,
            disclosures=[i for i in registry.consents.disclosures(index) if i < size],
        )


class RefusalRow(BaseModel):
    """A refusal of a request."""

    model_config = _example(index=9, reason="declined")

    index: Index
    reason: Literal["declined", "no-consent", "no-such-answer"]


class RequestRow(BaseModel):
    """A request and what came of it. `clinic` and `consumer` are indices of party entries.

    A request is `open` until its clinic has answered or its consumer has withdrawn it; it is `granted` once anything
    was, whether or not that has ended by now.
    """

    model_config = _example(index=8, leaf=_LEAF, clinic=1, consumer=3, state="granted", grants=[_GRANT], refusal=None)

    index: Index
    leaf: Hex32
    clinic: Index
    consumer: Index
    state: Literal["open", "granted", "refused", "withdrawn"]
    grants: list[GrantRow]
    refusal: RefusalRow | None

    @classmethod
    def of(cls, registry: Registry, index: int, size: int) -> Self:
        """Request `index` as it stands under the first `size` entries."""
        request, consents = registry.get(index, Request), registry.consents
        grants = [GrantRow.of(registry, i, size) for i in consents.grants(index) if i < size]
        refused = consents.refusal(index)
        refusal = None if refused is None or refused >= size else registry.get(refused, Refusal)
        return cls(
            index=index,
            leaf=request.reference.leaf.hex(),
            clinic=request.body.clinic.index,
            consumer=registry.author_of(index).reference.index,
            state=registry.standing(request.reference, size),
            grants=grants,
            refusal=None if refusal is None else RefusalRow(index=refusal.reference.index, reason=refusal.body.reason),
        )
