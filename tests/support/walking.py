"""Looks for numbers that must not leave in everything that leaves: requests, files, boxes, screens.

Bytes are searched as they are and unfolded: members of archives, base64 and hex wherever they stand, zlib and gzip.
Numbers in text are compared by value, whatever their digits: what lies next to a secret answer, and not on the public
grid, is one that was rounded too little.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import pytest

from privacy.models.linear import sigmoid

_DEPTH = 4
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{11,}={0,2}")
_HEX = re.compile(rb"[0-9a-fA-F]{10,}")
_WORD = rb"[0-9A-Za-z_.+/]"
_NUMBER = re.compile(rb"(?<!%b)[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?!%b)" % (_WORD, _WORD))
"""One that stands alone: digits within a digest are none."""
_HEX_WORD = re.compile(rb"(?<!%b)(?:0[xX])?([0-9a-fA-F]{5,40})(?!%b)" % (_WORD, _WORD))
_TEXT = re.compile(rb"[\t\n\r -~]{4,}")


@dataclass(frozen=True)
class Secrets:
    """Raw answers: integers at 2^-scale_bits, of a model with a grid and (all of them) the link `logit` or none."""

    integers: tuple[int, ...]
    scale_bits: int
    grid_bits: int

    @property
    def floats(self) -> list[float]:
        return [value / (1 << self.scale_bits) for value in self.integers]

    def needles(self) -> dict[bytes, str]:
        """Every spelling, with what it is called."""
        found: dict[bytes, str] = {}
        for value, raw in zip(self.integers, self.floats, strict=True):
            found[str(abs(value)).encode()] = "decimal integer"
            # The low bytes are those of every width, signed or not.
            width = max(5, min(7, (abs(value).bit_length() + 7) // 8))
            for number in (value, -value):
                low = (number % (1 << (8 * width))).to_bytes(width, "little")
                found[low], found[low[::-1]] = "integer, little-endian", "integer, big-endian"
            for shown in (raw, float(sigmoid(raw))):
                found[struct.pack("<d", shown)] = found[struct.pack(">d", shown)] = "float64"
                found[repr(abs(shown)).encode()] = "float"
                found[float.hex(abs(shown)).encode()] = "float in hex"
        for raw, other in zip(self.floats, self.floats[1:], strict=False):  # one alone would be found by chance
            found[struct.pack("<2f", raw, other)] = found[struct.pack(">2f", raw, other)] = "float32"
        return found

    def betrays(self, number: float) -> bool:
        """Whether a number in a text lies next to an answer, or to its probability, and not on the grid."""
        step = 2.0**-self.grid_bits
        if 0 < number < 1 and _near_integer(math.log(number / (1 - number)) / step):
            return False  # the probability that belongs to a grid point
        for raw in self.floats:
            for scale in (1.0, 2.0**self.scale_bits):
                shown = number / scale
                if abs(abs(shown) - abs(raw)) < step / 8 and not float(shown / step).is_integer():
                    return True
            if abs(number - float(sigmoid(raw))) < step / 64:
                return True
        return False


def _near_integer(value: float) -> bool:
    return abs(value - round(value)) < 1e-6


@dataclass
class Walker:
    """Finds secrets in what is given to it; `found` has where, and how they were spelt."""

    secrets: Secrets
    found: list[str] = field(default_factory=list)
    walked: int = 0

    def __post_init__(self) -> None:
        self._seen: set[bytes] = set()
        self._needles = self.secrets.needles()
        self._integers = set(map(abs, self.secrets.integers))

    def walk(self, name: str, data: bytes) -> None:
        if data[:2] == b"PK":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                for member in archive.namelist():
                    self.walk(f"{name}/{member}", archive.read(member))
            return
        digest = hashlib.sha256(data).digest()
        if digest in self._seen:
            return  # bundles of one prediction have most of their members in common
        self._seen.add(digest)
        for where, layer in unfolded(name, data):
            self.walked += len(layer)
            # One search a spelling: an expression with all of them takes twenty times as long on large files.
            self.found += [f"{where}: {what}" for needle, what in self._needles.items() if needle in layer]
            for word in _HEX_WORD.finditer(layer):
                if int(word.group(1), 16) in self._integers:
                    self.found.append(f"{where}: integer in hex")
            for text in _TEXT.finditer(layer):
                for token in _NUMBER.finditer(text.group()):
                    if 3 <= len(token.group()) <= 40 and self.secrets.betrays(float(token.group())):
                        self.found.append(f"{where}: the number {token.group().decode()}")


def unfolded(name: str, data: bytes, depth: int = _DEPTH) -> Iterator[tuple[str, bytes]]:
    """The bytes, and those that are folded into them."""
    yield name, data
    if depth == 0:
        return
    if data[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.namelist():
                yield from unfolded(f"{name}/{member}", archive.read(member), depth - 1)
        return
    for plain in _inflated(data):
        yield from unfolded(f"{name} (inflated)", plain, depth - 1)
    for match in _HEX.finditer(data):
        for skip in (0, 1):
            run = match.group()[skip:]
            yield from unfolded(f"{name} (hex)", bytes.fromhex(run[: len(run) // 2 * 2].decode()), 0)
    for match in _BASE64.finditer(data):
        run = match.group().rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
        for skip in range(4):  # it may stand anywhere in a longer word
            part = run[skip:]
            part = part[: len(part) // 4 * 4] if len(part) % 4 == 1 else part
            try:
                plain = base64.b64decode(part + b"=" * (-len(part) % 4))
            except binascii.Error:
                continue
            yield from unfolded(f"{name} (base64)", plain, depth - 1 if len(plain) > 64 and skip == 0 else 0)


def _inflated(data: bytes) -> Iterator[bytes]:
    for bits in (zlib.MAX_WBITS, zlib.MAX_WBITS | 16):
        try:
            yield zlib.decompress(data, bits)
        except zlib.error:
            continue


class Outgoing:
    """Every HTTP request of this process: method, address, headers, body."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.sent: list[tuple[str, bytes]] = []
        honest = httpx.HTTPTransport.handle_request

        def handle(transport: httpx.HTTPTransport, request: httpx.Request) -> Any:
            headers = b"\n".join(key + b": " + value for key, value in request.headers.raw)
            name = f"{request.method} {request.url.path}"
            self.sent.append((f"{name}, address", str(request.url).encode()))
            self.sent.append((f"{name}, headers", headers))
            self.sent.append((f"{name}, body", request.read()))
            return honest(transport, request)

        patch.setattr(httpx.HTTPTransport, "handle_request", handle)

    def walk(self, walker: Walker) -> None:
        for name, data in self.sent:
            walker.walk(name, data)


def secrets_of(raw: Any, scale_bits: int, grid_bits: int, leave_out: Sequence[int] = ()) -> Secrets:
    """The raw answers of a clinic, `reveal_raw`ed, but for some patients."""
    values = np.delete(np.asarray(raw), list(leave_out), axis=0).ravel().tolist()
    return Secrets(tuple(round(value * 2**scale_bits) for value in values), scale_bits, grid_bits)
