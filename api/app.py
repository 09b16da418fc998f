"""The HTTP application: routes, lifespan, and how errors become responses.

uvicorn.run(create_app(Settings()))
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from api.errors import ApiError, Problem, RateLimited, TooLarge, describe
from api.joint_schemas import FailureRequest, OfferRequest, ResultRequest
from api.routes import blobs, entries, ledger, log, models, mpc, parties, predictions
from api.schemas import ErrorBody, PredictionRequest, error_body
from api.service import Service
from api.settings import Settings
from api.version import VERSION
from ledger.errors import LedgerError
from privacy.errors import PrivacyError

__all__ = ["create_app"]

_LOGGER = logging.getLogger("sealproof.api")
_DESCRIPTION = (
    "Predictions on encrypted patient records that anyone can check. Requests that change something are signed by a "
    "registered party's Ed25519 key; everything that is read is public and checks itself."
)


def create_app(settings: Settings) -> FastAPI:
    """The application. It opens its data folder when it starts, and raises LogLocked if another server has it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service = Service(settings)
        app.state.service = service
        service.start()
        try:
            yield
        finally:
            service.close()

    app = FastAPI(title="Sealproof", version=VERSION, description=_DESCRIPTION, lifespan=lifespan)
    for module in (parties, blobs, entries, predictions, mpc, ledger, log, models):
        app.include_router(module.router)
    for family in (ApiError, PrivacyError, LedgerError, Exception):
        app.add_exception_handler(family, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _response(problem: Problem, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(error_body(problem), status_code=problem.status, headers=headers)


async def _on_error(request: Request, error: Exception) -> JSONResponse:
    problem = describe(error)
    if problem.incident is not None:
        _LOGGER.error("%s %s: %s", request.method, request.url.path, problem.message, exc_info=error)
    headers = {}
    if isinstance(error, RateLimited):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, TooLarge):
        headers["Connection"] = "close"  # what is still coming is not read
    return _response(problem, headers)


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    first = error.errors()[0] if isinstance(error, RequestValidationError) else {"loc": (), "msg": "invalid"}
    place = ".".join(str(part) for part in first["loc"])
    hint = "See the API's description."
    return _response(Problem(422, "invalid-request", None, f"{place}: {first['msg']}", hint))


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    kinds = {404: "not-found", 405: "method-not-allowed"}
    kind = kinds.get(error.status_code, "refused")
    headers = dict(error.headers) if error.headers else None
    return _response(Problem(error.status_code, kind, None, str(error.detail), "See the API's description."), headers)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the schemas that routes name and do not return."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = document["components"]["schemas"]
        for model in (PredictionRequest, OfferRequest, ResultRequest, FailureRequest, ErrorBody):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}))
            schemas[model.__name__] = schema
        app.openapi_schema = document
    return app.openapi_schema
