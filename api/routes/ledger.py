"""The ledger, for anyone: head, entries, proofs."""

from __future__ import annotations

import base64
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import PlainTextResponse

from api.routes.dependencies import EntryIndex, ServiceOf, errors
from api.service import Service
from ledger.errors import NotInLog, UsageError

__all__ = ["router"]

router = APIRouter(prefix="/v1/ledger", tags=["ledger"])

_MOST = 256
_CHECKPOINT = "localhost/sealproof\n5\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n— localhost/sealproof ...\n"
_TEXT = {"text/plain": {"schema": {"type": "string"}, "example": _CHECKPOINT}}
_PROOF = {
    "text/plain": {"schema": {"type": "string"}, "example": f"c2sp.org/tlog-proof@v1\nindex 2\n...\n\n{_CHECKPOINT}"}
}
_ENTRY = {"application/json": {"schema": {"type": "object"}, "example": {"kind": "sealproof/records/v1"}}}
_LIST = {"content": {"application/json": {"example": ["CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="]}}}

Size = Annotated[int, Query(ge=0, le=2**53 - 1, examples=[5])]
Limit = Annotated[int, Query(ge=1, le=_MOST, examples=[16])]


def _check_published(service: Service, what: str, value: int, size: int) -> None:
    """Nothing is shown before a head with it is published: `value` needs one of `size` entries. Raises NotInLog."""
    published = service.log.published().size
    if size > published:
        raise NotInLog(what, value, published)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


@router.get(
    "/checkpoint",
    summary="The signed head",
    response_class=PlainTextResponse,
    responses={200: {"description": "a signed note", "content": _TEXT}},
)
def get_checkpoint(service: ServiceOf) -> PlainTextResponse:
    """Origin, size and root of the ledger, as a signed note (C2SP tlog-checkpoint) with its cosignatures."""
    return PlainTextResponse(service.log.published().note)


@router.get("/checkpoints", summary="Heads that were published", responses={200: _LIST, **errors(404)})
def get_checkpoints(service: ServiceOf, start: Size = 0, limit: Limit = _MOST) -> list[str]:
    """Signed notes in base64, in order of their sizes, from size `start` on: one for each size that was published.

    Their cosignatures are dated, by the server's clock and by witnesses: entry i was logged after the last head of at
    most i entries was cosigned, and before the first head of more.
    """
    return [_base64(head.note) for head in service.log.publications(start, limit)]


@router.get(
    "/entries/{index}",
    summary="One entry",
    response_class=Response,
    responses={200: {"description": "its bytes", "content": _ENTRY}, **errors(404)},
)
def get_entry(index: EntryIndex, service: ServiceOf) -> Response:
    """The canonical bytes of an entry: exactly what its leaf hash is of."""
    _check_published(service, "index", index, index + 1)
    return Response(service.log.entry(index), media_type="application/json")


@router.get("/entries", summary="Many entries", responses={200: _LIST, **errors(404)})
def get_entries(service: ServiceOf, start: Size = 0, stop: Size | None = None) -> list[str]:
    """Entries start to stop - 1 in base64, at most 256; without `stop`, as many as there are."""
    end = min(start + _MOST, service.log.published().size) if stop is None else stop
    if end - start > _MOST:
        raise UsageError(f"at most {_MOST} entries at a time, asked for {end - start}")
    _check_published(service, "stop", end, end)
    return [_base64(entry) for entry in service.log.entries(start, end)]


@router.get(
    "/proof/{index}",
    summary="Proof that an entry is in the ledger",
    response_class=PlainTextResponse,
    responses={200: {"description": "a proof file", "content": _PROOF}, **errors(404)},
)
def get_proof(index: EntryIndex, service: ServiceOf) -> PlainTextResponse:
    """Inclusion proof under the present checkpoint, with the checkpoint (C2SP tlog-proof)."""
    return PlainTextResponse(service.log.tlog_proof(index))


@router.get("/consistency", summary="Proof that the ledger only grew", responses={200: _LIST, **errors(404)})
def get_consistency(service: ServiceOf, old: Size, new: Size) -> list[str]:
    """Hashes (base64) that show the ledger of `new` entries to extend that of `old` entries (RFC 9162, 2.1.4)."""
    _check_published(service, "new size", new, new)
    return [_base64(node) for node in service.log.consistency_proof(old, new)]
