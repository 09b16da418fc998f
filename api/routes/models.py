"""Published models, their openings, and what their answers have given away."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from api.binding import statement_sentences
from api.entries import Model, Network, ZeroWeight
from api.exposure import recount
from api.registry import Logged
from api.routes.dependencies import EntryIndex, ServiceOf, SignedBody, binary_body, errors, signed_body
from api.schemas import LayerResponse, Location, ModelDetail, ModelSummary, Row, WeightStatementResponse
from api.service import Service
from privacy.errors import VerificationFailed
from privacy.models.schema import Schema

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["models"])


AnyModel = Logged[Model] | Logged[Network]


def _facts(service: Service, model: AnyModel) -> dict[str, Any]:
    owner = service.registry.author_of(model.reference.index)
    joint = isinstance(model.body, Network)
    return {
        "owner": owner.body.name,
        "ready": service.joint.nodes.present(owner.reference.index) if joint else service.has_opening(model.reference),
        "revoked": service.registry.revocation(model.reference) is not None,
    }


def _model(service: Service, index: int) -> AnyModel:
    try:
        return service.registry.get(index, Network)
    except VerificationFailed:
        return service.registry.get(index, Model)


@router.get("/models", summary="All models")
def get_models(service: ServiceOf) -> list[ModelSummary]:
    """Every model on the ledger, in the order of publication: linear models and networks."""
    models: list[AnyModel] = [*service.registry.all(Model), *service.registry.all(Network)]
    models.sort(key=lambda model: model.reference.index)
    return [ModelSummary.of(model, **_facts(service, model)) for model in models]


@router.get("/models/{index}", summary="One model", responses=errors())
def get_model(index: EntryIndex, service: ServiceOf) -> ModelDetail:
    """A model's public side. Its schema and certificate are blobs; its weights are nowhere to be had."""
    model = _model(service, index)
    body = model.body
    statements, layers = ((), body.layers) if isinstance(body, Network) else (body.statements, ())
    # Only a model that states something needs its schema here: for the names of features.
    says = (
        statement_sentences(body, Schema.decode_json(service.blobs.get(body.schema)))
        if isinstance(body, Model) and statements
        else ()
    )
    more = {
        "certificate": body.certificate.hex(),
        "card": body.card,
        "zero_weights": [{"output": s.output, "feature": s.feature} for s in statements if isinstance(s, ZeroWeight)],
        "statements": [WeightStatementResponse.of(s, words) for s, words in zip(statements, says, strict=True)],
        "layers": [LayerResponse.of(layer) for layer in layers],
    }
    return ModelDetail.model_validate(ModelSummary.of(model, **_facts(service, model)).model_dump() | more)


@router.put(
    "/models/{index}/opening",
    summary="Give the server a model's weights",
    responses=errors(400, 401, 403, 413, 429),
    openapi_extra=binary_body("A model opening: integer weights and blindings.", "application/json"),
)
def put_opening(
    index: EntryIndex,
    body: Annotated[SignedBody, Depends(signed_body(lambda settings: settings.max_blob_bytes))],
    service: ServiceOf,
) -> Location:
    """Keep the opening of a model's commitments, so that predictions can be made with it.

    Only the model's author may do that, over a connection that he trusts. The opening is checked against the
    commitments, stored readable by the server's user alone, and never handed out again.
    """
    service.store_opening(body.party, index, body.data)
    return Location.of(service.registry.get(index, Model).reference)


@router.get("/exposure", summary="What answers have given away", responses=errors())
def get_exposure(
    service: ServiceOf,
    clinic: Annotated[str | None, Query(max_length=128, description="Name of a clinic.", examples=["clinic-a"])] = None,
    model: Annotated[int | None, Query(ge=0, le=2**53 - 1, description="Index of a model entry.")] = None,
) -> list[Row]:
    """Bits released per clinic, model and output, recounted from the ledger, against the bits of the output.

    A cohort that releases more bits than an output has gives that output to its clinic: `recoverable` says so.
    """
    return [Row.of(row, service.settings.exposure_cap) for row in recount(service.registry, clinic, model)]
