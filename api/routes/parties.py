"""Who is here: the server itself, and the parties that register."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from api.entries import MAX_ENTRY_BYTES
from api.routes.dependencies import ServiceOf, binary_body, errors, limited_body
from api.schemas import Health, Location
from api.version import VERSION

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["parties"])


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
    summary="Register a clinic or an owner",
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
