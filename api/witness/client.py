"""Asking a witness over HTTP for its cosignature of a checkpoint."""

from __future__ import annotations

import hashlib
import time
import weakref
from collections.abc import Sequence
from typing import Final

import httpx

from api.client.transport import ServerUnreachable
from ledger.cosignature import CosignatureVerifier
from ledger.errors import DecodeError, UsageError
from ledger.trust_policy import TlogPolicy
from ledger.witness_wire import MAX_ANSWER_BYTES, WitnessReply, encode_request, parse_answer

__all__ = ["WitnessClient", "clients_of"]

_PATH: Final = "/add-checkpoint"


class WitnessClient:
    """A witness under the submission prefix `url`, known by its key. Safe to use from many threads.

    `name` is what messages call it (default: the key's name). `timeout` (seconds) bounds each wait for bytes, and the
    body of an answer as a whole. `client` replaces the HTTP client, for tests and proxies.
    """

    def __init__(
        self,
        url: str,
        verifier: CosignatureVerifier,
        name: str | None = None,
        *,
        timeout: float = 10.0,
        client: httpx.Client | None = None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"{url!r} is not the address of a witness: it begins with http:// or https://")
        self.url = url.rstrip("/")
        self.verifier = verifier
        self.name = name or verifier.name
        self._timeout = timeout
        self._client = client or httpx.Client(timeout=timeout, follow_redirects=False)
        if client is None:
            # Not __del__: in a cycle of garbage a socket might be finalised first, and complain that nobody closed it.
            weakref.finalize(self, self._client.close)

    def add_checkpoint(self, old: int, proof: Sequence[bytes], checkpoint: bytes) -> WitnessReply:
        """Ask once for a cosignature of the signed `checkpoint`; `proof` shows that it extends the tree of size `old`.

        Raises ServerUnreachable (an OSError) without an answer, DecodeError for an answer that no witness gives,
        VerificationFailed for a cosignature that does not hold, UsageError for what cannot be asked. A refusal is no
        error: the reply says the reason, or the size that the witness knows.
        """
        body = encode_request(old, proof, checkpoint)
        status, kind, answer = self._exchange("POST", _PATH, body)
        return parse_answer(status, kind, answer, checkpoint, self.verifier)

    def latest(self, origin: str) -> bytes:
        """The last head of the log `origin` that the witness cosigned, NOT verified.

        Not every witness shows it. Raises ServerUnreachable, and DecodeError where there is none.
        """
        status, _, answer = self._exchange("GET", f"/{hashlib.sha256(origin.encode('utf-8')).hexdigest()}/checkpoint")
        if status != 200:
            raise DecodeError("answer of a witness", f"status {status} instead of its last head of {origin!r}")
        return answer

    def _exchange(self, method: str, path: str, body: bytes | None = None) -> tuple[int, str, bytes]:
        """Status, content type and body of an answer. Raises ServerUnreachable, DecodeError."""
        headers = {"content-type": "text/plain; charset=utf-8", "accept-encoding": "identity"}
        try:
            with self._client.stream(method, self.url + path, content=body, headers=headers) as response:
                if response.headers.get("content-encoding", "identity") != "identity":
                    # Unfolding happens before anything can be counted.
                    raise DecodeError("answer of a witness", "compressed, which was not asked for")
                answer = self._read(response)
                return response.status_code, response.headers.get("content-type", ""), answer
        except httpx.TimeoutException as error:
            raise ServerUnreachable(f"the witness {self.name} ({self.url}) did not answer in time") from error
        except httpx.TransportError as error:
            raise ServerUnreachable(f"cannot reach the witness {self.name} ({self.url}): {error}") from error
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise DecodeError("answer of a witness", f"not an HTTP answer: {error}") from error

    def _read(self, response: httpx.Response) -> bytes:
        end, body = time.monotonic() + self._timeout, bytearray()
        for chunk in response.iter_bytes():  # as it comes, so that one byte at a time runs into the deadline too
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise DecodeError("answer of a witness", f"more than {MAX_ANSWER_BYTES} bytes")
            if time.monotonic() > end:
                raise ServerUnreachable(f"the witness {self.name} ({self.url}) took too long to answer")
        return bytes(body)

    def __repr__(self) -> str:
        return f"WitnessClient({self.name!r}, {self.url!r})"


def clients_of(policy: TlogPolicy, *, timeout: float = 10.0) -> list[WitnessClient]:
    """A client for every witness of a policy that has an address there. Raises UsageError for one that is no URL."""
    return [WitnessClient(w.url, w.verifier, w.name, timeout=timeout) for w in policy.witnesses if w.url is not None]
