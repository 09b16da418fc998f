"""A log in plain files, written from the format's text (C2SP tlog-tiles) without the ledger package's tree or tiles.

Files are a dict from path to bytes, so that a test may change any of them before they are written or served. The
signer may be anybody, and what is signed need not be what is served.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ledger import Signer

__all__ = ["Answer", "TileLog", "fetcher", "folder_fetcher", "number_path", "root_of", "serving", "sign_head", "write"]

Files = dict[str, bytes]


def _sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _levels(entries: Sequence[bytes]) -> list[list[bytes]]:
    """[level][index]: all perfect subtrees."""
    levels = [[_sha(b"\0" + entry) for entry in entries]]
    while len(levels[-1]) > 1:
        row = levels[-1]
        levels.append([_sha(b"\1" + row[2 * i] + row[2 * i + 1]) for i in range(len(row) // 2)])
    return levels


def root_of(entries: Sequence[bytes]) -> bytes:
    """RFC 6962, 2.1: bits of the size from the right."""
    levels, root = _levels(entries), None
    for level, row in enumerate(levels):
        if len(entries) >> level & 1:
            root = row[-1] if root is None else _sha(b"\1" + row[(len(entries) >> level) - 1] + root)
    return _sha(b"") if root is None else root


def number_path(number: int) -> str:
    """1234067 is x001/x234/067."""
    digits = str(number)
    while len(digits) % 3:
        digits = "0" + digits
    groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    return "/".join(["x" + group for group in groups[:-1]] + groups[-1:])


def sign_head(signer: Signer, size: int, root: bytes, *, origin: str | None = None, extra: str = "") -> bytes:
    """A signed checkpoint that says anything."""
    text = f"{origin or signer.name}\n{size}\n{base64.b64encode(root).decode()}\n{extra}"
    return (text + "\n" + signer.sign(text.encode()).line()).encode()


@dataclass
class TileLog:
    """Entries under a signer, and the files of any size of it."""

    signer: Signer
    entries: list[bytes] = field(default_factory=list)

    @property
    def vkey(self) -> str:
        return str(self.signer.verifier)

    def root(self, size: int | None = None) -> bytes:
        return root_of(self.entries[:size])

    def note(self, size: int | None = None) -> bytes:
        """The checkpoint of the first `size` entries."""
        size = len(self.entries) if size is None else size
        return sign_head(self.signer, size, self.root(size))

    def files(self, size: int | None = None) -> Files:
        """Checkpoint, tiles and entry bundles of the first `size` entries; of partial files only those of this size."""
        size = len(self.entries) if size is None else size
        entries = self.entries[:size]
        files = {"checkpoint": self.note(size)}
        bundled = [len(entry).to_bytes(2, "big") + entry for entry in entries]
        rows = {"entries": bundled} | {str(i // 8): row for i, row in enumerate(_levels(entries)) if i % 8 == 0}
        for name, row in rows.items():
            for start in range(0, len(row), 256):
                part = row[start : start + 256]
                suffix = f".p/{len(part)}" if len(part) < 256 else ""
                files[f"tile/{name}/{number_path(start // 256)}{suffix}"] = b"".join(part)
        return files


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files into a folder, over what is there."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def fetcher(files: Mapping[str, bytes]) -> Callable[[str], bytes | None]:
    """How fsck reads files that lie in memory."""
    return files.get


def folder_fetcher(folder: Path) -> Callable[[str], bytes | None]:
    """How fsck reads a folder, without the product's own way of it."""
    return lambda path: (folder / path).read_bytes() if (folder / path).is_file() else None


@dataclass(frozen=True)
class Answer:
    """An HTTP answer: bytes with headers, or chunks that come slowly."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    chunks: Iterator[bytes] | None = None


@contextmanager
def serving(answer: Callable[[str], Answer | bytes | None]) -> Iterator[str]:
    """An HTTP server in threads; `answer` gets the path without its first slash. Gives the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            found = answer(self.path.removeprefix("/"))
            if not isinstance(found, Answer):
                found = Answer(404) if found is None else Answer(200, found)
            self.send_response(found.status)
            for name, value in found.headers.items():
                self.send_header(name, value)
            try:
                if found.chunks is not None:
                    self.send_header("Connection", "close")
                    self.close_connection = True
                    self.end_headers()
                    for chunk in found.chunks:
                        self.wfile.write(chunk)
                        self.wfile.flush()
                    return
                self.send_header("Content-Length", str(len(found.body)))
                self.end_headers()
                self.wfile.write(found.body)
            except OSError:
                self.close_connection = True  # the reader had enough

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 64

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # readers hang up on what is too large

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
