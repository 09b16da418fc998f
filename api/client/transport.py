"""Talking to a server: signed requests, bounded answers, errors in words.

    ServerError (OSError)
    ├── ServerUnreachable   no connection, or no answer in time
    └── ServerRefused       the server said no; status, type, check, message and hint are what it said

A server may answer anything. What is not exactly what was asked for is a DecodeError that names the request; nothing
larger than the limit of that request is read, and no redirect is followed. What an answer says is checked by whoever
uses it: digests here, signatures and proofs in `api.client.audit`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import secrets
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from api.client.http_answers import (
    Digests,
    ExposureRow,
    Health,
    Job,
    JobState,
    Logged,
    ModelRow,
    Offer,
    Offers,
    PartyRow,
    Refused,
    RequestRow,
    Stored,
)
from api.client.identity import Identity
from api.entries import Reference
from api.signing import sign_request
from ledger.merkle import HASH_BYTES, leaf_hash
from privacy.bundle import MAX_BLOB_BYTES, MAX_BUNDLE_BYTES
from privacy.errors import DecodeError, UsageError

__all__ = [
    "MAX_OFFER_WAIT",
    "MAX_UPLOAD_BYTES",
    "MAX_UPLOAD_FILES",
    "Health",
    "JobState",
    "ModelRow",
    "Offer",
    "PartyRow",
    "RequestRow",
    "Server",
    "ServerError",
    "ServerRefused",
    "ServerUnreachable",
    "UploadedProof",
]

MAX_UPLOAD_FILES: Final = 64
MAX_UPLOAD_BYTES: Final = 4 << 20
"""Of one request with ciphertexts."""
MAX_OFFER_WAIT: Final = 30
"""Seconds that a request for offers may wait: well below the time after which a connection is given up."""

_MAX_JSON: Final = 1 << 25
_MAX_NOTE: Final = 1 << 20
_MAX_SEALED: Final = 1 << 20
_PAGE: Final = 256
_MOST_ROWS: Final = 1 << 18
_RETRIED: Final = frozenset({429, 502, 503, 504})
_CHUNK: Final = 1 << 16
_JSON: Final = "application/json"

T = TypeVar("T")
RowT = TypeVar("RowT", PartyRow, RequestRow)
Progress = Callable[[str, int, int], None]


class ServerError(OSError):
    """The server could not be used. Nothing was changed here."""


class ServerUnreachable(ServerError):
    """No connection, or no answer in time."""


class ServerRefused(ServerError):
    """The server said no, and why."""

    def __init__(self, status: int, type: str, check: str | None, message: str, hint: str) -> None:
        super().__init__(f"the server refused ({status} {type}): {message}" + (f" {hint}" if hint else ""))
        self.status = status
        self.type = type
        self.check = check
        self.message = message
        self.hint = hint


@dataclass(frozen=True)
class UploadedProof:
    """A joint proof that lies on the server as a blob: its digest and size, and the digest of its answers' C_z."""

    digest: bytes
    size: int
    answers: bytes


class _Held:
    """Closes a client's connections when the last `Server` that shares them is gone."""

    def __init__(self, client: httpx.Client) -> None:
        # Not __del__: in a cycle of garbage a socket might be finalised first, and complain that nobody closed it.
        weakref.finalize(self, client.close)


class Server:
    """A server at `url`; requests that change something are signed by `identity`.

    `client` replaces the HTTP client, for tests (starlette's TestClient) and for proxies. `timeout` in seconds is per
    request and between bytes. Requests that may be repeated without harm are, `retries` times.
    """

    def __init__(
        self,
        url: str,
        identity: Identity | None = None,
        *,
        client: httpx.Client | None = None,
        timeout: float = 60.0,
        retries: int = 3,
        pause: float = 0.5,
    ) -> None:
        if client is None and not url.startswith(("http://", "https://")):
            raise UsageError(f"{url!r} is not the address of a server: it begins with http:// or https://")
        self.url = url.rstrip("/")
        self.identity = identity
        self._borrowed = client is not None
        self._client = client or httpx.Client(base_url=self.url, timeout=timeout, follow_redirects=False)
        self._held = None if client else _Held(self._client)
        self._retries = retries
        self._pause = pause

    def close(self) -> None:
        """Close the connections, unless the HTTP client was given."""
        if not self._borrowed:
            self._client.close()

    def signing_as(self, identity: Identity) -> Server:
        """The same server and connections, with requests signed by `identity`."""
        server = Server.__new__(Server)
        server.__dict__ = {**self.__dict__, "identity": identity}
        return server

    # -- what changes something ---------------------------------------------------------------------------------------

    def register(self, entry: bytes) -> Reference:
        """Log a party entry, or find it. Raises ServerError, DecodeError."""
        return self._logged(entry, self._send("POST", "/v1/parties", _MAX_NOTE, body=entry, kind=_JSON))

    def append(self, entry: bytes) -> Reference:
        """Log an entry. Raises ServerError, and DecodeError if the server logged anything else."""
        return self._logged(entry, self._send("POST", "/v1/entries", _MAX_NOTE, body=entry, kind=_JSON, signed=True))

    def put_blob(self, data: bytes) -> bytes:
        """Store a blob; returns its digest. Raises ServerError, DecodeError."""
        digest = hashlib.sha256(data).digest()
        path = f"/v1/blobs/{digest.hex()}"
        kind = "application/octet-stream"
        answer = self._send("PUT", path, _MAX_NOTE, body=data, kind=kind, signed=True, repeat=True)
        stored = _parsed(Stored, path, answer)
        if (stored.digest, stored.size) != (digest, len(data)):
            raise DecodeError(_answer_to(path), "another digest or size than what was sent")
        return digest

    def put_opening(self, model: int, opening: bytes) -> None:
        """Hand the opening of a model's commitment to the server that evaluates it. Raises ServerError."""
        path = f"/v1/models/{model}/opening"
        self._send("PUT", path, _MAX_NOTE, body=opening, kind=_JSON, signed=True, repeat=True)

    def upload_ciphertexts(self, key: int, files: Sequence[bytes]) -> list[bytes]:
        """Send SEAL files, encrypted under key entry `key`; returns the canonical digests that the server computed."""
        body = b"".join(len(file).to_bytes(4, "little") + file for file in files)
        if len(files) > MAX_UPLOAD_FILES or len(body) > MAX_UPLOAD_BYTES:
            raise UsageError(f"at most {MAX_UPLOAD_FILES} ciphertexts and {MAX_UPLOAD_BYTES} bytes in one request")
        path = f"/v1/ciphertexts?key={key}"
        kind = "application/octet-stream"
        answer = self._send("POST", path, _MAX_JSON, body=body, kind=kind, signed=True, repeat=True)
        digests = _parsed(Digests, path, answer).digests
        if len(digests) != len(files):
            raise DecodeError(_answer_to(path), f"{len(digests)} digests for {len(files)} ciphertexts")
        return digests

    def request_prediction(self, records: int, model: int, nonce: bytes) -> str:
        """Ask for a prediction; the same nonce is the same request. Returns the job's id."""
        body = b'{"model":%d,"nonce":"%s","records":%d}' % (model, nonce.hex().encode("ascii"), records)
        path = "/v1/predictions"
        answer = self._send("POST", path, _MAX_NOTE, body=body, kind=_JSON, signed=True, repeat=True)
        return _parsed(Job, path, answer).job

    # -- nodes of multi-party computation -----------------------------------------------------------------------------

    def offers(self, address: str | None, dealer_address: str, dealer_key: bytes, wait: int) -> list[Offer]:
        """Joint predictions that wait for this party's node, as soon as there are any, or none after `wait` seconds.

        `address` is where the node listens (host:port) if it does; the dealer is the one it would use, with its key of
        32 bytes. Raises UsageError for a wait of more than MAX_OFFER_WAIT, ServerError, DecodeError.
        """
        if not 0 <= wait <= MAX_OFFER_WAIT:
            raise UsageError(f"a request for offers waits 0 to {MAX_OFFER_WAIT} seconds, not {wait}")
        asked = {"address": address, "dealer_address": dealer_address, "dealer_key": dealer_key.hex(), "wait": wait}
        path = "/v1/mpc/offers"
        # Not repeated: whoever asks for offers asks again anyhow.
        answer = self._send("POST", path, _MAX_JSON, body=_json_body(asked), kind=_JSON, signed=True)
        return _parsed(Offers, path, answer).offers

    def post_result(self, job: str, session: bytes, proofs: Sequence[UploadedProof], sealed: bytes) -> None:
        """Report the proofs of a finished session, uploaded before, in the order of their patients.

        `sealed` is B's part of the answers, for A alone. The same result may be reported again. Raises ServerError.
        """
        result = {
            "session": session.hex(),
            "proofs": [{"digest": p.digest.hex(), "size": p.size, "answers": p.answers.hex()} for p in proofs],
            "sealed": base64.b64encode(sealed).decode("ascii"),
        }
        self._report(f"/v1/mpc/jobs/{job}/result", result)

    def post_failure(self, job: str, check: str, message: str) -> None:
        """Report that the session of a job ended without its proofs. Raises ServerError."""
        self._report(f"/v1/mpc/jobs/{job}/failure", {"check": check, "message": message})

    def sealed(self, job: str) -> bytes:
        """B's sealed part of the answers of a finished job, NOT yet verified; for the clinic that asked for it."""
        return self._send("GET", f"/v1/mpc/jobs/{job}/sealed", _MAX_SEALED, signed=True, repeat=True)

    def _report(self, path: str, said: dict[str, Any]) -> None:
        self._send("POST", path, _MAX_NOTE, body=_json_body(said), kind=_JSON, signed=True, repeat=True)

    # -- what only reads ----------------------------------------------------------------------------------------------

    def health(self) -> Health:
        """Who the server says it is."""
        return self._json(Health, "/v1/health")

    def job(self, job: str) -> JobState:
        """The state of a prediction."""
        return self._json(JobState, f"/v1/jobs/{job}")

    def models(self) -> list[ModelRow]:
        """The models that the server offers."""
        return self._json(list[ModelRow], "/v1/models")

    def parties(self, name: str | None = None) -> list[PartyRow]:
        """The parties that the server knows, or the one of this name if it is there. Raises as `requests_of` does."""
        named = f"&{httpx.QueryParams({'name': name})}" if name is not None else ""
        return self._rows(list[PartyRow], "/v1/parties", 0, named)

    def requests_of(self, party: int, start: int = 0) -> list[RequestRow]:
        """The requests to a clinic or of a consumer, by the index of its party entry; from entry `start` on, in order.

        What the server says came of them is to be looked up on the ledger. Raises ServerError, DecodeError.
        """
        return self._rows(list[RequestRow], f"/v1/parties/{party}/requests", start)

    def _rows(self, shape: type[list[RowT]], path: str, start: int, more: str = "") -> list[RowT]:
        """Rows of a list that is told in pages, in the order of their indices. Raises DecodeError for any other."""
        rows: list[RowT] = []
        while True:
            page = self._json(shape, f"{path}?start={start}&limit={_PAGE}{more}")
            for row in page:
                if row.index < start:
                    raise DecodeError(_answer_to(path), f"entry {row.index} is told twice or out of order")
                start = row.index + 1
            rows += page
            if len(page) < _PAGE:
                return rows
            if len(rows) > _MOST_ROWS:
                raise DecodeError(_answer_to(path), f"more than {_MOST_ROWS} rows")

    def checkpoint(self) -> bytes:
        """The log's present signed checkpoint, NOT yet verified."""
        return self._get("/v1/ledger/checkpoint", _MAX_NOTE)

    def publications(self, start: int, limit: int = _PAGE) -> list[bytes]:
        """At most `limit` (256) published checkpoints of sizes from `start` on, in order, NOT yet verified."""
        path = f"/v1/ledger/checkpoints?start={start}&limit={limit}"
        found = _decoded(path, self._json(list[str], path))
        if len(found) > limit:
            raise DecodeError(_answer_to(path), f"{len(found)} checkpoints, asked for {limit}")
        return found

    def entry(self, index: int) -> bytes:
        """The bytes of an entry, NOT yet verified."""
        return self._get(f"/v1/ledger/entries/{index}", 1 << 16)

    def entries(self, start: int, stop: int) -> list[bytes]:
        """Entries start..stop-1, at most 256, NOT yet verified."""
        if not 0 <= start <= stop <= start + _PAGE:
            raise UsageError(f"at most {_PAGE} entries at once")
        path = f"/v1/ledger/entries?start={start}&stop={stop}"
        return _decoded(path, self._json(list[str], path))

    def proof(self, index: int) -> bytes:
        """The tlog-proof of an entry, NOT yet verified."""
        return self._get(f"/v1/ledger/proof/{index}", _MAX_NOTE)

    def consistency(self, old: int, new: int) -> list[bytes]:
        """The hashes that should show the log of `new` entries to extend that of `old`, NOT yet verified."""
        path = f"/v1/ledger/consistency?old={old}&new={new}"
        hashes = _decoded(path, self._json(list[str], path))
        if any(len(hash_) != HASH_BYTES for hash_ in hashes):
            raise DecodeError(_answer_to(path), "a hash has another length")
        return hashes

    def blob(self, digest: bytes) -> bytes:
        """The blob with this SHA-256 digest, which is checked."""
        path = f"/v1/blobs/{digest.hex()}"
        data = self._get(path, MAX_BLOB_BYTES)
        if hashlib.sha256(data).digest() != digest:
            raise DecodeError(_answer_to(path), "the blob has another digest")
        return data

    def exposure(self, clinic: str | None = None, model: int | None = None) -> list[dict[str, Any]]:
        """The server's recount of released bits, as it tells it."""
        wanted = {"clinic": clinic, "model": model}
        query = str(httpx.QueryParams({name: value for name, value in wanted.items() if value is not None}))
        rows = self._json(list[ExposureRow], "/v1/exposure" + (f"?{query}" if query else ""))
        return [vars(row) for row in rows]

    def save_bundle(
        self, prediction: int, path: Path, *, inputs: bool = False, progress: Progress | None = None
    ) -> None:
        """Write the bundle of prediction entry `prediction` to `path`: whole or not at all, NOT yet verified."""
        target = f"/v1/predictions/{prediction}/bundle?inputs={'true' if inputs else 'false'}"
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            with temporary.open("xb") as file, self._exchange("GET", target, None, {}) as response:
                received = 0
                announced = response.headers.get("content-length", "")
                total = int(announced) if announced.isdecimal() and len(announced) < 12 else 0
                for chunk in response.iter_bytes(_CHUNK):
                    received += len(chunk)
                    if received > MAX_BUNDLE_BYTES:
                        raise DecodeError(_answer_to(target), f"more than {MAX_BUNDLE_BYTES} bytes")
                    file.write(chunk)
                    if progress is not None:
                        progress("bundle", received, max(total, received))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    # -- requests -----------------------------------------------------------------------------------------------------

    def _json(self, shape: type[T], path: str) -> T:
        return _parsed(shape, path, self._get(path, _MAX_JSON))

    def _get(self, path: str, limit: int) -> bytes:
        return self._send("GET", path, limit, repeat=True)

    def _logged(self, entry: bytes, answer: bytes) -> Reference:
        logged = _parsed(Logged, "/v1/entries", answer)
        if logged.leaf != leaf_hash(entry):
            raise DecodeError(_answer_to("/v1/entries"), "the leaf hash is not that of the entry that was sent")
        return Reference(logged.index, logged.leaf)

    def _send(
        self,
        method: str,
        path: str,
        limit: int,
        *,
        body: bytes | None = None,
        kind: str = "",
        signed: bool = False,
        repeat: bool = False,
    ) -> bytes:
        """The body of the answer, at most `limit` bytes. Repeats a request that may be repeated."""
        attempt = 0
        while True:
            headers = {"content-type": kind} if kind else {}
            if signed:
                headers |= self._signature(method, path, body or b"")
            try:
                with self._exchange(method, path, body, headers) as response:
                    return _limited(response, path, limit)
            except (ServerUnreachable, ServerRefused) as error:
                lasting = isinstance(error, ServerRefused) and error.status not in _RETRIED
                attempt += 1
                if not repeat or lasting or attempt > self._retries:
                    raise
                time.sleep(self._pause * 2 ** (attempt - 1))

    def _signature(self, method: str, path: str, body: bytes) -> dict[str, str]:
        if self.identity is None or self.identity.party is None:
            raise UsageError(f"{method} {path} must be signed: open the folder of a registered party")
        return sign_request(method, path, body, self.identity.party.index, self.identity.private_key)

    @contextmanager
    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> Iterator[httpx.Response]:
        """A successful answer, not read yet. Translates everything that httpx raises."""
        try:
            plain = {"accept-encoding": "identity", **headers}
            with self._client.stream(method, path, content=body, headers=plain) as response:
                _check_plain(response, path)
                if not 200 <= response.status_code < 300:
                    raise _refusal(response, path)
                yield response
        except httpx.TimeoutException as error:
            raise ServerUnreachable(f"{self.url} did not answer {method} {path} in time") from error
        except httpx.TransportError as error:
            raise ServerUnreachable(f"cannot reach {self.url} for {method} {path}: {error}") from error
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise DecodeError(_answer_to(path), f"not an HTTP answer: {error}") from error


def _json_body(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("utf-8")


def _answer_to(path: str) -> str:
    return f"answer of the server to {path.partition('?')[0]}"


def _check_plain(response: httpx.Response, path: str) -> None:
    # Unfolding happens before anything can be counted: 64 kB of gzip become 64 MB.
    if response.headers.get("content-encoding", "") not in ("", "identity"):
        raise DecodeError(_answer_to(path), "compressed, which was not asked for")


def _limited(response: httpx.Response, path: str, limit: int) -> bytes:
    data = bytearray()
    for chunk in response.iter_bytes(_CHUNK):
        data += chunk
        if len(data) > limit:
            raise DecodeError(_answer_to(path), f"more than {limit} bytes")
    return bytes(data)


def _refusal(response: httpx.Response, path: str) -> ServerRefused:
    """What the server said with an error status; garbage there is still an error status."""
    try:
        said = _parsed(Refused, path, _limited(response, path, _MAX_NOTE)).error
    except DecodeError:
        return ServerRefused(response.status_code, "unknown", None, f"{path.partition('?')[0]} failed", "")
    return ServerRefused(response.status_code, said.type, said.check, said.message, said.hint)


def _parsed(shape: type[T], path: str, data: bytes) -> T:
    try:
        return TypeAdapter(shape).validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DecodeError(_answer_to(path), f"{place + ': ' if place else ''}{first['msg']}") from error


def _decoded(path: str, texts: Sequence[str]) -> list[bytes]:
    try:
        return [base64.b64decode(text.encode("ascii"), validate=True) for text in texts]
    except (binascii.Error, UnicodeEncodeError) as error:
        raise DecodeError(_answer_to(path), "not base64") from error
