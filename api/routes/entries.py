"""Entries that clinics, owners and consumers write."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from api.entries import MAX_ENTRY_BYTES
from api.routes.dependencies import ServiceOf, SignedBody, binary_body, errors, signed_body
from api.schemas import Location

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["entries"])


@router.post(
    "/entries",
    summary="Log a key, a model, records, a request, a grant, a disclosure, a revocation or whatever else",
    status_code=201,
    responses={200: {"model": Location, "description": "logged already"}, **errors(400, 401, 403, 413, 429, 503, 507)},
    openapi_extra=binary_body("A signed ledger entry, in canonical JSON.", "application/json"),
)
def post_entry(
    body: Annotated[SignedBody, Depends(signed_body(lambda _: MAX_ENTRY_BYTES))],
    response: Response,
    service: ServiceOf,
) -> Location:
    """Check the entry and everything behind it, then append it to the ledger.

    Only its author may submit it, and the blobs that it names must be uploaded before. Certificates are verified here,
    which takes up to a second. The same bytes again give the same index.

    A consumer may write requests, and withdraw them by a revocation. Answers are disclosed under a grant that has not
    ended and that nobody has revoked.
    """
    reference, new = service.submit(body.party, body.data)
    response.status_code = 201 if new else 200
    return Location.of(reference)
