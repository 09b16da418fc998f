"""Who is here: the server itself, the parties that register, and what they ask of each other."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.consent_schemas import PartyRow, RequestRow
from api.entries import MAX_ENTRY_BYTES, Party
from api.routes.dependencies import EntryIndex, ServiceOf, binary_body, errors, limited_body
from api.schemas import Health, Location
from api.version import VERSION

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["parties"])

_MOST = 256

Start = Annotated[int, Query(ge=0, le=2**53 - 1, description="Index of the first entry.", examples=[0])]
Limit = Annotated[int, Query(ge=1, le=_MOST, description="Rows at most.", examples=[64])]
PartyName = Annotated[str | None, Query(max_length=128, description="Only this party.", examples=["st-anna"])]


@router.get("/health", summary="Who this server is")
def health(service: ServiceOf) -> Health:
    """The name and verifier key of its ledger, and the index of its own party entry, whose key signs attestations."""
    return Health(
        status="ok",
        version=VERSION,
        origin=service.log.origin,
        log_key=str(service.verifier),
        server_party=service.party.reference.index,
    )


@router.post(
    "/parties",
    summary="Register a clinic, an owner or a consumer",
    status_code=201,
    responses={
        200: {"model": Location, "description": "registered already"},
        **errors(400, 401, 403, 413, 429, 503, 507),
    },
    openapi_extra=binary_body("A party entry, signed by the key that it registers.", "application/json"),
)
async def register(request: Request, response: Response, service: ServiceOf) -> Location:
    """Log the party entry in the body. It is the one request without signature headers: the entry signs itself.

    Names and keys are used once. The same bytes again give the same index.
    """
    entry = await limited_body(request, MAX_ENTRY_BYTES)
    address = request.client.host if request.client else ""
    reference, new = await run_in_threadpool(service.register, entry, address)
    response.status_code = 201 if new else 200
    return Location.of(reference)


@router.get("/parties", summary="All parties", responses=errors())
def get_parties(service: ServiceOf, name: PartyName = None, start: Start = 0, limit: Limit = _MOST) -> list[PartyRow]:
    """Parties in the order of their registration, from entry `start` on; or the one of this name, if it is there."""
    size = service.log.published().size
    if name is not None:
        named = service.registry.party_named(name)
        parties = [] if named is None else [named]
    else:
        parties = service.registry.all(Party)
    shown = [party for party in parties if start <= party.reference.index < size]
    return [PartyRow.of(party) for party in shown[:limit]]


@router.get("/parties/{index}/requests", summary="What consumers ask of clinics", responses=errors())
def get_requests(index: EntryIndex, service: ServiceOf, start: Start = 0, limit: Limit = _MOST) -> list[RequestRow]:
    """Requests to a clinic, or of a consumer, and what came of each; in ledger order, from entry `start` on.

    What is asked, and what for, is in documents that the two parties have and the ledger only names: a clinic opens the
    sealed request, whose digest the request entry gives, with its mailbox key.
    """
    size = service.log.published().size
    party = service.registry.get(index, Party).reference.index
    shown = [i for i in service.registry.consents.requests(party) if start <= i < size]
    return [RequestRow.of(service.registry, i, size) for i in shown[:limit]]
