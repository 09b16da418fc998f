"""What routes share: the service, signed bodies, and the OpenAPI text of errors and raw bodies."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Path, Request
from starlette.concurrency import run_in_threadpool

from api.entries import Party
from api.errors import ERRORS, NotAuthenticated, NotPermitted, TooLarge
from api.registry import Logged
from api.service import Service
from api.settings import Settings
from api.signing import (
    NONCE_HEADER,
    PARTY_HEADER,
    SIGNATURE_HEADER,
    TIME_HEADER,
    WINDOW_SECONDS,
    parse_signed_request,
)

__all__ = [
    "EntryIndex",
    "HexDigest",
    "JobId",
    "ServiceOf",
    "SignedBody",
    "binary_body",
    "errors",
    "json_body",
    "limited_body",
    "signed_body",
]

_LARGEST = 2**53 - 1
_ERROR_SCHEMA = {"$ref": "#/components/schemas/ErrorBody"}


def _service(request: Request) -> Service:
    service = request.app.state.service
    if not isinstance(service, Service):
        raise TypeError("the application was not started")
    service.refresh()
    return service


ServiceOf = Annotated[Service, Depends(_service)]
EntryIndex = Annotated[int, Path(ge=0, le=_LARGEST, description="Index of a ledger entry.", examples=[2])]
HexDigest = Annotated[
    str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256, lower-case hex.", examples=["9f3c" * 16])
]
JobId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="Id of the job.", examples=["5d41402a" * 4])]


@dataclass(frozen=True)
class SignedBody:
    """The body of a request whose signature was verified and whose nonce is spent."""

    party: Logged[Party]
    data: bytes


async def limited_body(request: Request, limit: int) -> bytes:
    """The body, read no further than `limit` bytes and no longer than a signature is good for.

    Raises TooLarge, before reading if the length is announced, and NotAuthenticated(`request.time`).
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise TooLarge(limit)
    body = bytearray()  # no list of parts: of 16 million single bytes it would take gigabytes
    try:
        async with asyncio.timeout(WINDOW_SECONDS):
            async for part in request.stream():
                if len(body) + len(part) > limit:
                    raise TooLarge(limit)
                body += part
    except TimeoutError:
        raise NotAuthenticated("request.time", f"the body took longer than {WINDOW_SECONDS} s") from None
    return bytes(body)


def signed_body(limit: Callable[[Settings], int]) -> Callable[..., Awaitable[SignedBody]]:
    """A dependency: the body of a signed request, at most `limit` bytes.

    Who claims to ask is looked up before anything of the body is read.
    """

    async def read(
        request: Request,
        party: Annotated[str | None, Header(alias=PARTY_HEADER, description="Index of the party's entry.")] = None,
        time: Annotated[str | None, Header(alias=TIME_HEADER, description="YYYY-MM-DDTHH:MM:SSZ, now.")] = None,
        nonce: Annotated[str | None, Header(alias=NONCE_HEADER, description="32 fresh hex digits.")] = None,
        signature: Annotated[
            str | None, Header(alias=SIGNATURE_HEADER, description="Ed25519 signature of the request in base64.")
        ] = None,
    ) -> SignedBody:
        service = await run_in_threadpool(_service, request)
        given = {PARTY_HEADER: party, TIME_HEADER: time, NONCE_HEADER: nonce, SIGNATURE_HEADER: signature}
        signed = parse_signed_request({name: value for name, value in given.items() if value is not None})
        if service.announce(signed).body.role == "server":
            raise NotPermitted("request.party", "the server makes no requests")
        data = await limited_body(request, limit(service.settings))
        digest = hashlib.sha256(data).digest()
        target = _target(request)
        author = await run_in_threadpool(service.authenticate, signed, request.method, target, digest)
        return SignedBody(author, data)

    return read


def _target(request: Request) -> str:
    """Path and query as sent."""
    path: bytes = request.scope.get("raw_path") or request.scope["path"].encode("utf-8")
    query: bytes = request.scope["query_string"]
    return (path.split(b"?")[0] + (b"?" + query if query else b"")).decode("latin-1")


def json_body(model: str) -> dict[str, Any]:
    """OpenAPI text of a JSON body that is read as bytes, since its signature is over these; `model` is its schema."""
    schema = {"$ref": f"#/components/schemas/{model}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def binary_body(description: str, media_type: str = "application/octet-stream") -> dict[str, Any]:
    """OpenAPI text of a body that is read as bytes."""
    schema = {"type": "string", "format": "binary"} if media_type == "application/octet-stream" else {"type": "object"}
    return {"requestBody": {"required": True, "description": description, "content": {media_type: {"schema": schema}}}}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI text of the errors of a route."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in (422, *statuses):
        rows = [row for row in ERRORS.values() if row.status == status]
        row, names = rows[0], sorted({row.type for row in rows})
        example = {"type": row.type, "check": None, "message": "...", "hint": row.hint, "details": None}
        found[status] = {
            "description": " or ".join(names),
            "content": {"application/json": {"schema": _ERROR_SCHEMA, "example": {"error": example}}},
        }
    return found
