"""Predictions: ask, wait, fetch the bundle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse

from api.entries import Disclosure, JointPrediction, Prediction, Reference
from api.routes.dependencies import EntryIndex, JobId, ServiceOf, SignedBody, errors, json_body, signed_body
from api.schemas import JobResponse, Location, PredictionRequest, Queued, parsed
from api.service import Service
from privacy.errors import VerificationFailed

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["predictions"])

_MAX_REQUEST = 4096
_CHUNK = 1 << 18
_BUNDLE = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}, "example": "(a zip archive)"}}


@router.post(
    "/predictions",
    summary="Ask for a prediction",
    status_code=202,
    responses=errors(400, 401, 403, 409, 413, 429, 503),
    openapi_extra=json_body("PredictionRequest"),
)
def post_prediction(
    body: Annotated[SignedBody, Depends(signed_body(lambda _: _MAX_REQUEST))], service: ServiceOf
) -> Queued:
    """Queue a prediction with a model on records of the clinic that asks.

    Refused when the records' policy, an expiry, a revocation or the owner's exposure cap says so. Every prediction
    releases fresh equations of the model and is counted; asking again **with the same nonce** is the same prediction.

    Committed records are computed on by the nodes of clinic and owner: the job is `computing` until they have delivered
    proofs. It is refused while a failed session of these two is not cleared.
    """
    wanted = parsed(PredictionRequest, "prediction request", body.data)
    job = service.request_prediction(body.party, wanted.records, wanted.model, bytes.fromhex(wanted.nonce))
    return Queued(job=job.id)


@router.get("/jobs/{job}", summary="How far a prediction is", responses=errors(404))
def get_job(job: JobId, service: ServiceOf) -> JobResponse:
    """State and progress. Once `done`, `prediction` is the index of its entry; once `failed`, `error` says why."""
    return JobResponse.of(service.jobs.get(job))


@router.get(
    "/predictions/{index}/bundle",
    summary="Download the evidence of a prediction",
    response_class=StreamingResponse,
    responses={200: {"description": "the bundle", "content": _BUNDLE}, **errors(404, 429, 503, 507)},
)
def get_bundle(
    index: EntryIndex,
    service: ServiceOf,
    inputs: Annotated[bool, Query(description="Whether to put the canonical input ciphertexts in.")] = False,
) -> StreamingResponse:
    """One file with attestation, ledger entries, inclusion and consistency proofs, evaluation proofs and results.

    That of a joint prediction has its joint proofs and the commitments to records and answers, and no inputs.

    Verify it with `sealproof verify`; nothing in it needs to be believed.
    """
    path = service.bundle(index, inputs=inputs)
    size = path.stat().st_size
    content = _read_and_forget(path)
    next(content)
    headers = {
        "Content-Length": str(size),
        "Content-Disposition": f'attachment; filename="prediction-{index}.sealproof"',
    }
    return StreamingResponse(content, media_type="application/octet-stream", headers=headers)


@router.get("/predictions/{index}/disclosures", summary="What was disclosed of a prediction", responses=errors(404))
def get_disclosures(index: EntryIndex, service: ServiceOf) -> list[Location]:
    """The ledger entries by which its clinic logged that it showed answers to somebody, each with its grant.

    They say neither whose answers these were nor what was shown: that is in what the clinic gave to the recipient, who
    checks it with `sealproof verify --nonce`. A clinic logs a disclosure like any entry (POST /v1/entries). One without
    a grant was made without consent on the ledger: this server takes no more of these.
    """
    prediction = _prediction(service, index)
    found = [entry for entry in service.registry.all(Disclosure) if entry.body.prediction == prediction]
    return [Location.of(entry.reference) for entry in found]


def _prediction(service: Service, index: int) -> Reference:
    try:
        return service.registry.get(index, JointPrediction).reference
    except VerificationFailed:
        return service.registry.get(index, Prediction).reference


def _read_and_forget(path: FilePath) -> Iterator[bytes]:
    """Nothing, by when the file has no name any more: its room is free however the answer ends. Then its contents."""
    with path.open("rb") as file:
        path.unlink()
        yield b""
        while chunk := file.read(_CHUNK):
            yield chunk
