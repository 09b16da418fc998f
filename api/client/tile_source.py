"""Where the files of a log in plain files are read from: a server's URL, or a folder.

Nothing that is read is trusted: `ledger.fsck` checks it. Here only sizes and times are limited, so that neither a
server nor a damaged folder can fill memory or hold a reader for ever. A file that is not there is None; a file that no
log can have (larger than its path allows, or not what was asked for) is refused; everything else that goes wrong is the
environment's fault: ServerError, StorageError.
"""

from __future__ import annotations

import contextlib
import functools
import os
import ssl
import stat
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

import httpx

from api.client.transport import ServerRefused, ServerUnreachable
from ledger.errors import DecodeError, FileRefused, StorageError, UsageError
from ledger.note import MAX_NOTE_BYTES
from ledger.tiles import MAX_ENTRY_BYTES, TILE_WIDTH, Tile, parse_path

__all__ = ["FileTiles", "HttpTiles", "TileSource", "in_order", "open_tiles", "size_limit"]

_HASH: Final = 32
_IN_FLIGHT: Final = 16
"""Files asked for at a time. The largest bundle has 16 MiB, so a hostile log can make a reader hold 256 MiB."""

_FEW: Final = 4
"""The same for servers that close the connection after each file: simple ones drop what comes faster."""

_RETRIED: Final = frozenset({429, 500, 502, 503, 504})
_MISSING: Final = frozenset({404, 410})
_CHUNK: Final = 1 << 16


class TileSource(Protocol):
    """One view of a log. `name` is what a person calls it."""

    @property
    def name(self) -> str: ...

    def fetch(self, path: str) -> bytes | None:
        """The file `checkpoint`, `tile/<L>/<N>` or `tile/entries/<N>`, or None where there is none. Thread-safe.

        Raises FileRefused (`file.size`, `file.kind`), ServerError, StorageError; UsageError for any other path.
        """

    def fetch_many(self, paths: Iterable[str]) -> Iterator[bytes | None]:
        """`fetch` of each path, in order, reading a few ahead."""

    def close(self) -> None:
        """Give up connections."""


def open_tiles(place: str) -> HttpTiles | FileTiles:
    """The log at a URL or in a folder. Raises UsageError for neither."""
    if place.startswith(("http://", "https://")):
        return HttpTiles(place)
    return FileTiles(Path(place))


def size_limit(path: str) -> int:
    """The largest size that the file of a log at `path` may have, in bytes. Raises UsageError for no such path."""
    if path == "checkpoint":
        return MAX_NOTE_BYTES
    try:
        tile = parse_path(path)
    except DecodeError as error:
        raise UsageError(f"a log has no file {path[:80]!r}: {error.reason}") from error
    # A partial file may be answered with the full one, which begins with it.
    return TILE_WIDTH * (_HASH if isinstance(tile, Tile) else 2 + MAX_ENTRY_BYTES)


class FileTiles:
    """A log in a folder of this machine, such as a mirror."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UsageError(f"{folder} is no folder; a log is a folder with the file checkpoint, or an http(s) URL")
        self._folder = folder

    @property
    def name(self) -> str:
        """The folder."""
        return str(self._folder)

    def fetch(self, path: str) -> bytes | None:
        """See TileSource."""
        limit = size_limit(path)
        try:
            # A pipe in the place of a file would block without O_NONBLOCK.
            descriptor = os.open(self._folder / path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(f"cannot read {self._folder / path}: {error.strerror}") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise FileRefused("file.kind", path, "not a regular file")
        try:
            with os.fdopen(descriptor, "rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise StorageError(f"cannot read {self._folder / path}: {error.strerror}") from error
        if len(data) > limit:
            raise FileRefused("file.size", path, f"more than {limit} bytes")
        return data

    def fetch_many(self, paths: Iterable[str]) -> Iterator[bytes | None]:
        """See TileSource; one after the other."""
        return map(self.fetch, paths)

    def close(self) -> None:
        """Nothing to do."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Reading them takes longer than a request; one context serves all."""
    return httpx.create_ssl_context()


class HttpTiles:
    """A log at an http(s) URL: `<url>/checkpoint`, `<url>/tile/...`; of a sealproof server, `<server>/log`.

    `timeout` in seconds is for a connection and between bytes, `deadline` for a whole file. Requests that fail for
    reasons that may pass are repeated `retries` times, first after `pause` seconds, then after twice that. No redirect
    is followed. `client` replaces the HTTP client, for tests and proxies, and is not closed.
    """

    def __init__(
        self,
        url: str,
        *,
        client: httpx.Client | None = None,
        timeout: float = 30.0,
        deadline: float = 120.0,
        retries: int = 3,
        pause: float = 0.25,
        in_flight: int = _IN_FLIGHT,
    ) -> None:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise UsageError(f"{url!r} is not the address of a log: {error}") from error
        if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment:
            raise UsageError(f"{url!r} is not the address of a log: http(s)://host/path, without ? and #")
        if parsed.userinfo:
            raise UsageError("a password does not belong in the address of a log: it would be shown")
        self._url = url.rstrip("/")
        self._borrowed = client is not None
        # A few more than are read ahead: files out of their order must not wait for those.
        limits = httpx.Limits(max_connections=in_flight + 2, max_keepalive_connections=in_flight + 2)
        self._client = client or httpx.Client(
            timeout=timeout, follow_redirects=False, limits=limits, verify=_certificates()
        )
        self._deadline = deadline
        self._retries = retries
        self._pause = pause
        self._in_flight = in_flight
        self._closing = False
        self._few = threading.BoundedSemaphore(_FEW)

    @property
    def name(self) -> str:
        """The URL."""
        return self._url

    def fetch(self, path: str) -> bytes | None:
        """See TileSource."""
        limit = size_limit(path)
        attempt = 0
        while True:
            try:
                return self._get(path, limit)
            except (ServerUnreachable, ServerRefused) as error:
                attempt += 1
                if attempt > self._retries or (isinstance(error, ServerRefused) and error.status not in _RETRIED):
                    raise
                time.sleep(self._pause * 2 ** (attempt - 1))

    def fetch_many(self, paths: Iterable[str]) -> Iterator[bytes | None]:
        """See TileSource."""
        return in_order(self.fetch, paths, self._in_flight)

    def close(self) -> None:
        """Close the connections, unless the HTTP client was given."""
        if not self._borrowed:
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _get(self, path: str, limit: int) -> bytes | None:
        until = time.monotonic() + self._deadline
        # Bundles of other people's logs may be compressed whether one asks for it or not (C2SP tlog-tiles).
        headers = {"accept-encoding": "identity, gzip;q=0.5"}
        try:
            with (
                self._few if self._closing else contextlib.nullcontext(),
                self._client.stream("GET", f"{self._url}/{path}", headers=headers) as response,
            ):
                if response.http_version == "HTTP/1.0" or response.headers.get("connection", "").lower() == "close":
                    self._closing = True
                if response.status_code in _MISSING:
                    return None
                if response.status_code != 200:
                    raise ServerRefused(response.status_code, "unknown", None, f"{self._url}/{path} failed.", "")
                return _body(response, path, limit, lambda: time.monotonic() > until)
        except httpx.TimeoutException as error:
            raise ServerUnreachable(f"{self._url} did not answer GET {path} in time") from error
        except httpx.TransportError as error:
            raise ServerUnreachable(f"cannot reach {self._url} for GET {path}: {error}") from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise FileRefused("file.http", path, f"{self._url} gave no HTTP answer: {error}") from error


def _body(response: httpx.Response, path: str, limit: int, late: Callable[[], bool]) -> bytes:
    """The body, unpacked; never more of it in memory than `limit` and a chunk."""
    encoding = response.headers.get("content-encoding", "identity")
    if encoding not in ("identity", "", "gzip"):
        raise FileRefused("file.encoding", path, f"in the encoding {encoding[:40]!r}, which was not asked for")
    unpack = zlib.decompressobj(wbits=31) if encoding == "gzip" else None
    data = bytearray()
    for chunk in response.iter_raw():
        if late():
            raise ServerUnreachable(f"{response.url} did not end in time")
        if unpack is None:
            data += chunk
        else:
            try:
                data += unpack.decompress(chunk, limit + 1 - len(data))
            except zlib.error:
                raise FileRefused("file.encoding", path, "damaged gzip") from None
            if unpack.unused_data:
                raise FileRefused("file.encoding", path, "something follows the end of its gzip")
        if len(data) > limit:
            raise FileRefused("file.size", path, f"more than {limit} bytes")
    if unpack is not None and not unpack.eof:
        raise FileRefused("file.encoding", path, "gzip that is cut off")
    return bytes(data)


def in_order(
    fetch: Callable[[str], bytes | None], paths: Iterable[str], in_flight: int = _IN_FLIGHT
) -> Iterator[bytes | None]:
    """What `fetch` gives for `paths`, in their order, with at most `in_flight` asked for and not yet taken."""
    with ThreadPoolExecutor(in_flight, thread_name_prefix="tiles") as pool:
        waiting: deque[Future[bytes | None]] = deque()
        try:
            for path in paths:
                waiting.append(pool.submit(fetch, path))
                if len(waiting) >= in_flight:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
