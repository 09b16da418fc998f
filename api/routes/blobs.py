"""Blobs by digest, and ciphertexts on their way to becoming blobs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from api.routes.dependencies import HexDigest, ServiceOf, SignedBody, binary_body, errors, signed_body
from api.schemas import Digests, StoredBlob

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["blobs"])

_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}, "example": "(bytes)"}}


@router.put(
    "/blobs/{digest}",
    summary="Upload a blob",
    status_code=201,
    responses={200: {"model": StoredBlob, "description": "here already"}, **errors(401, 403, 413, 429, 507)},
    openapi_extra=binary_body("Certificates, p0, schemas, proofs of statements, lists of digests, sealed boxes."),
)
def put_blob(
    digest: HexDigest,
    body: Annotated[SignedBody, Depends(signed_body(lambda settings: settings.max_blob_bytes))],
    response: Response,
    service: ServiceOf,
) -> StoredBlob:
    """Store the body under its SHA-256 digest. It becomes part of the ledger's evidence once an entry names it.

    A consumer uploads sealed requests only, of at most 512 KiB and 48 bytes.
    """
    new = service.store_blob(body.party, bytes.fromhex(digest), body.data)
    response.status_code = 201 if new else 200
    return StoredBlob(digest=digest, size=len(body.data))


@router.get(
    "/blobs/{digest}",
    summary="Download a blob",
    response_class=Response,
    responses={200: {"description": "the blob", "content": _BYTES}, **errors(404)},
)
def get_blob(digest: HexDigest, service: ServiceOf) -> Response:
    """The bytes with this SHA-256 digest. They never change."""
    data = service.blobs.get(bytes.fromhex(digest))
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(data, media_type="application/octet-stream", headers=headers)


@router.post(
    "/ciphertexts",
    summary="Upload encrypted records",
    responses=errors(400, 401, 403, 413, 429, 507),
    openapi_extra=binary_body("One after the other: length (4 bytes, little-endian), SEAL ciphertext."),
)
def post_ciphertexts(
    key: Annotated[int, Query(ge=0, le=2**53 - 1, description="Index of the clinic's key entry.", examples=[1])],
    body: Annotated[SignedBody, Depends(signed_body(lambda settings: settings.max_ciphertexts_bytes))],
    service: ServiceOf,
) -> Digests:
    """Parse SEAL ciphertexts strictly, store them in canonical form, and return the digests for a records entry."""
    return Digests(digests=[digest.hex() for digest in service.store_ciphertexts(body.party, key, body.data)])
