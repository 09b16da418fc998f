"""A witness as a web service: C2SP tlog-witness, and pages for people and monitors.

POST /add-checkpoint                        cosigns a head that extends the last one (`ledger.witness`)
GET  /<SHA-256 of the origin>/checkpoint    the last head of a log, with its signature and ours
GET  /evidence                              heads that contradict those that were cosigned, as JSON
GET  /                                      who this is and what it follows, as text
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from typing import Annotated, Final

from fastapi import FastAPI, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.requests import ClientDisconnect

from api.client.times import told
from api.version import VERSION
from ledger.errors import StorageError
from ledger.witness import Clock, Witness
from ledger.witness_store import SqliteWitnessStore
from ledger.witness_wire import MAX_REQUEST_BYTES, TEXT_TYPE

__all__ = ["create_witness_app", "system_clock"]

_LOGGER: Final = logging.getLogger("sealproof.witness")
_BODY_SECONDS: Final = 30.0
_PAGE: Final = 100
_CLOCK_UNSET: Final = 1_735_689_600  # 2025-01-01


def system_clock() -> int:
    """Seconds since 1970. Raises StorageError for a clock that was never set, as machines have after a cold start."""
    now = int(time.time())
    if now < _CLOCK_UNSET:
        raise StorageError(f"the clock shows {now} seconds since 1970, which is years ago: set it")
    return now


def create_witness_app(witness: Witness, store: SqliteWitnessStore, now: Clock = system_clock) -> FastAPI:
    """The application. `store` is the one that `witness` uses; `now` tells the time in seconds since 1970."""
    app = FastAPI(title="Sealproof witness", version=VERSION, docs_url=None, redoc_url=None, openapi_url=None)
    by_hash = {hashlib.sha256(origin.encode("utf-8")).hexdigest(): origin for origin in witness.logs}

    @app.post("/add-checkpoint")
    async def add_checkpoint(request: Request) -> Response:
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                body = await _body(request)
        except (TimeoutError, ClientDisconnect):
            return _text("the body did not arrive\n", 400)
        if body is None:
            # What is still coming is not read.
            return _text(f"a request has at most {MAX_REQUEST_BYTES} bytes\n", 413, {"Connection": "close"})
        answer = await run_in_threadpool(witness.add_checkpoint, body, now)
        # As a header and not as a media type, to which a character set would be added.
        return Response(answer.body, answer.status, {"Content-Type": answer.content_type})

    @app.get("/evidence")
    def evidence(
        after: Annotated[int, Query(ge=0, le=2**53)] = 0, limit: Annotated[int, Query(ge=1, le=_PAGE)] = _PAGE
    ) -> JSONResponse:
        return JSONResponse([found.to_json(number) for number, found in store.evidence(after, limit)])

    @app.get("/{origin_hash}/checkpoint")
    def latest(origin_hash: str) -> Response:
        origin = by_hash.get(origin_hash)
        note = witness.latest(origin) if origin is not None else None
        if note is None:
            return _text("no head of that log was cosigned here\n", 404)
        return Response(note, 200, {"Content-Type": TEXT_TYPE})

    @app.get("/")
    def about() -> PlainTextResponse:
        return PlainTextResponse(_about(witness))

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        incident = secrets.token_hex(8)
        _LOGGER.error("%s %s: %s", request.method, request.url.path, incident, exc_info=error)
        return _text(f"internal error {incident}; nothing was cosigned\n", 500)

    return app


async def _body(request: Request) -> bytes | None:
    """The body, or None when it is too long; then it is not read to its end."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > MAX_REQUEST_BYTES:
        return None
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_REQUEST_BYTES:
            return None
    return bytes(body)


def _text(text: str, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(text.encode("utf-8"), status, {"Content-Type": TEXT_TYPE, **(headers or {})})


def _about(witness: Witness) -> str:
    lines = [
        "This is a witness of transparency logs (C2SP tlog-witness). It cosigns a log's head if that extends the last",
        "one that it cosigned. Its verifier key, for policies (take it from its operator, not from this page):",
        "",
        f"  {witness.vkey}",
        "",
        "Logs:",
        "",
    ]
    for origin in sorted(witness.logs):
        last = witness.last(origin)
        if last is None:
            lines.append(f"  {origin}: nothing cosigned yet")
        else:
            lines.append(f"  {origin}: size {last.size}, cosigned {told(last.time)}")
    lines += ["", "Evidence against logs: /evidence", ""]
    return "\n".join(lines)
