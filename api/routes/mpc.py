"""For the nodes of multi-party computation: sessions that wait for them, and what becomes of each."""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Response
from starlette.concurrency import run_in_threadpool

from api.joint_nodes import Announcement
from api.joint_prediction import MAX_SEALED_BYTES, Delivered, DeliveredProof
from api.joint_schemas import FailureRequest, OfferRequest, OfferResponse, Offers, ResultRequest
from api.routes.dependencies import JobId, ServiceOf, SignedBody, errors, json_body, signed_body
from api.schemas import JobResponse, Queued, parsed
from privacy.errors import DecodeError

__all__ = ["router"]

router = APIRouter(prefix="/v1/mpc", tags=["mpc"])

_MAX_SMALL: Final = 4096
_MAX_RESULT: Final = 1 << 21
_BOX = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}, "example": "(bytes)"}}


@router.post(
    "/offers",
    summary="Announce a node and wait for sessions",
    responses=errors(400, 401, 403, 413, 429),
    openapi_extra=json_body("OfferRequest"),
)
async def post_offers(
    body: Annotated[SignedBody, Depends(signed_body(lambda _: _MAX_SMALL))], service: ServiceOf
) -> Offers:
    """Sessions that this party's node is to take part in, as soon as there are any, or none after `wait` seconds.

    A session begins when the nodes of both parties were heard of within half a minute, the owner's listens somewhere,
    and both name the same dealer. It is repeated on every request until its job is no longer `computing`. A newer
    request of a party ends an older one that still waits.
    """
    wanted = parsed(OfferRequest, "request for offers", body.data)
    said = Announcement(wanted.address, wanted.dealer_address, bytes.fromhex(wanted.dealer_key))
    loop = asyncio.get_running_loop()
    end = loop.time() + wanted.wait
    with service.matching.nodes.waiting(body.party.reference.index) as waiter:
        while True:
            waiter.reset()
            found = await run_in_threadpool(service.matching.offers, body.party, said)
            left = end - loop.time()
            if found or left <= 0 or waiter.ended:
                return Offers(offers=[OfferResponse.of(offer) for offer in found])
            await waiter.wait(left)


@router.post(
    "/jobs/{job}/result",
    summary="Deliver the proofs of a session",
    status_code=202,
    responses=errors(400, 401, 403, 404, 409, 413, 429, 507),
    openapi_extra=json_body("ResultRequest"),
)
def post_result(
    job: JobId, body: Annotated[SignedBody, Depends(signed_body(lambda _: _MAX_RESULT))], service: ServiceOf
) -> Queued:
    """What both nodes of a session made, delivered by the model's owner; proofs are uploaded as blobs before.

    The server verifies the proofs, logs the prediction and attests it, as the job then shows. The same body again is
    answered the same way.
    """
    said = parsed(ResultRequest, "joint result", body.data)
    try:
        sealed = base64.b64decode(said.sealed, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DecodeError("joint result", f"sealed: {error}") from error
    if len(sealed) > MAX_SEALED_BYTES:
        raise DecodeError("joint result", f"sealed: more than {MAX_SEALED_BYTES} bytes")
    proofs = tuple(DeliveredProof(bytes.fromhex(p.digest), p.size, bytes.fromhex(p.answers)) for p in said.proofs)
    service.matching.deliver(body.party, job, Delivered(bytes.fromhex(said.session), proofs), sealed)
    return Queued(job=job)


@router.post(
    "/jobs/{job}/failure",
    summary="Report that a session broke",
    responses=errors(400, 401, 403, 404, 413, 429),
    openapi_extra=json_body("FailureRequest"),
)
def post_failure(
    job: JobId, body: Annotated[SignedBody, Depends(signed_body(lambda _: _MAX_SMALL))], service: ServiceOf
) -> JobResponse:
    """A session ended without its proofs, says a node of either party: the job fails, and says who reported it.

    A job that is no longer `computing` stays as it is. The job is answered.
    """
    said = parsed(FailureRequest, "report of a failure", body.data)
    return JobResponse.of(service.matching.report_failure(body.party, job, said.check, said.message))


@router.get(
    "/jobs/{job}/sealed",
    summary="Fetch the owner's shares of the answers",
    response_class=Response,
    responses={200: {"description": "the sealed shares", "content": _BOX}, **errors(401, 403, 404, 409, 429)},
)
def get_sealed(
    job: JobId, body: Annotated[SignedBody, Depends(signed_body(lambda _: 0))], service: ServiceOf
) -> Response:
    """What the owner's node sealed for the node of the clinic, which alone may ask, once the prediction is logged."""
    return Response(service.joint.sealed(body.party, job), media_type="application/octet-stream")
