"""The ledger in the layout that every transparency-log client reads (C2SP tlog-tiles): head and tiles.

The log's URL is <server>/log. Tiles and entry bundles exist up to the published head and never change.
"""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from api.errors import NotFound
from api.routes.dependencies import ServiceOf, errors
from ledger.errors import DecodeError
from ledger.tiles import Tile, parse_path

__all__ = ["router"]

router = APIRouter(prefix="/log", tags=["log"])

_NOTE = {"text/plain": {"schema": {"type": "string"}, "example": "localhost/sealproof\n5\nCsUYap...\n\n— ..."}}
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}, "example": "(hashes)"}}
_FOREVER = {"Cache-Control": "public, max-age=31536000, immutable"}


@router.get(
    "/checkpoint",
    summary="The published head",
    response_class=PlainTextResponse,
    responses={200: {"description": "a signed note with cosignatures", "content": _NOTE}},
)
def get_log_checkpoint(service: ServiceOf) -> PlainTextResponse:
    """Origin, size and root of the ledger, signed by its key and cosigned by the witnesses that answered."""
    return PlainTextResponse(service.log.published().note, headers={"Cache-Control": "no-cache"})


@router.get(
    "/tile/{path:path}",
    summary="A tile of hashes, or a bundle of entries",
    response_class=Response,
    responses={200: {"description": "its bytes", "content": _BYTES}, **errors(404)},
)
def get_tile(path: str, service: ServiceOf) -> Response:
    """`tile/<L>/<N>[.p/<W>]` holds 32 bytes a hash, `tile/entries/<N>[.p/<W>]` a length of 2 bytes before each entry.

    Full tiles have 256 hashes or entries. There is nothing beyond the published head.
    """
    try:
        found = parse_path(f"tile/{path}")
    except DecodeError as error:
        raise NotFound(str(error)) from error
    data = service.log.tile(found) if isinstance(found, Tile) else service.log.entry_bundle(found)
    return Response(data, media_type="application/octet-stream", headers=_FOREVER)
