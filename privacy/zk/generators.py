"""Commitment generators by hash-to-curve, cached on disk (docs/spec/protocol.md, section 3).

Generator i of purpose p is hash_to_curve("sealproof/v1/generator/<p>/<i>"): nobody knows a relation between any
two of them, and purposes are disjoint. Hashing 5,000 points takes seconds, so affine coordinates are cached in
the user's cache folder. A forged generator would be a forged proof: the digests of the chunks that this protocol
version uses are part of the package (generators.json) and a cached chunk must match them; chunks beyond them (very
wide models) are spot-checked against fresh hashes and taken only from a folder that nobody else may write to, because
a spot check misses a single forged generator 99 times in 100. `python -m privacy.zk.generators` prints the table anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from privacy.errors import UsageError
from privacy.zk.group import ARKWORKS, Group, Point

__all__ = ["BLINDING", "blinding_generator", "cache_folder", "generators"]

BLINDING: Final = "blinding"
_CHUNK: Final = 1024
_AFFINE_BYTES: Final = 96
_SPOT_CHECKS: Final = 4


def cache_folder() -> Path:
    """`$SEALPROOF_CACHE`, else `$XDG_CACHE_HOME/sealproof`, else `~/.cache/sealproof`."""
    explicit = os.environ.get("SEALPROOF_CACHE")
    if explicit:
        return Path(explicit)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sealproof"


def _message(purpose: str, index: int) -> bytes:
    return f"sealproof/v1/generator/{purpose}/{index}".encode()


def generators(purpose: str, count: int, group: Group = ARKWORKS) -> list[Point]:
    """The first `count` generators of a purpose.

    Raises:
        UsageError: a purpose that is not plain lower-case text, or the one reserved for H.
    """
    if purpose == BLINDING:
        raise UsageError(f"generator purpose {BLINDING!r} is reserved: a vector on H itself would not be bound")
    if not purpose or not all(c.isascii() and (c.islower() or c.isdigit() or c in "-/") for c in purpose):
        raise UsageError(f"generator purpose {purpose!r}: use lower-case letters, digits, '-' and '/'")
    points: list[Point] = []
    for chunk in range(-(-count // _CHUNK)):
        points.extend(_chunk(purpose, chunk, group))
    return points[:count]


def blinding_generator(group: Group = ARKWORKS) -> Point:
    """H, the generator of every blinding."""
    return _blinding(group)


@lru_cache(maxsize=2)
def _blinding(group: Group) -> Point:
    return group.hash_to_curve(_message(BLINDING, 0))


@lru_cache(maxsize=256)
def _chunk(purpose: str, chunk: int, group: Group) -> tuple[Point, ...]:
    # Both groups read the coordinates that arkworks hashed; a test compares the two groups' hashing.
    path = cache_folder() / "generators-v1" / f"{purpose.replace('/', '_')}-{chunk}.bin"
    data = _load(path, purpose, chunk, group)
    if data is None:
        data = _hash_chunk(purpose, chunk)
        expected = _frozen_digest(purpose, chunk)
        if expected is not None and hashlib.sha256(data).hexdigest() != expected:
            raise UsageError(f"chunk {chunk} of generators {purpose!r} is not the one of this protocol version")
        _store(path, data)
    return tuple(
        group.import_affine(data[i : i + _AFFINE_BYTES]) for i in range(0, _CHUNK * _AFFINE_BYTES, _AFFINE_BYTES)
    )


def _hash_chunk(purpose: str, chunk: int) -> bytes:
    first = chunk * _CHUNK
    return b"".join(
        ARKWORKS.export_affine(ARKWORKS.hash_to_curve(_message(purpose, i))) for i in range(first, first + _CHUNK)
    )


@cache
def _frozen_digests() -> Mapping[str, list[str]]:
    table: dict[str, list[str]] = json.loads(files("privacy.zk").joinpath("generators.json").read_text())
    return table


def _frozen_digest(purpose: str, chunk: int) -> str | None:
    digests = _frozen_digests().get(purpose, [])
    return digests[chunk] if chunk < len(digests) else None


def _load(path: Path, purpose: str, chunk: int, group: Group) -> bytes | None:
    """Cached coordinates, or None when absent or not what they must be (then they are made again)."""
    try:
        raw, private = _read(path)
    except OSError:
        return None
    digest, data = raw[:32], raw[32:]
    if len(data) != _CHUNK * _AFFINE_BYTES or hashlib.sha256(data).digest() != digest:
        return None
    frozen = _frozen_digest(purpose, chunk)
    if frozen is not None:
        return data if digest.hex() == frozen else None
    if not private:
        return None
    for _ in range(_SPOT_CHECKS):
        place = secrets.randbelow(_CHUNK)
        expected = group.export_affine(group.hash_to_curve(_message(purpose, chunk * _CHUNK + place)))
        if data[place * _AFFINE_BYTES : (place + 1) * _AFFINE_BYTES] != expected:
            return None
    return data


def _read(path: Path) -> tuple[bytes, bool]:
    """A file, and whether only this user and the administrator may write to the folder that it was read from."""
    # Opened once: whoever may rename what is above it cannot exchange it between the look and the reading.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        status = os.fstat(folder)
        with os.fdopen(os.open(path.name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder), "rb") as file:
            return file.read(), status.st_uid in (0, os.getuid()) and not status.st_mode & 0o022
    finally:
        os.close(folder)


def _store(path: Path, data: bytes) -> None:
    """Atomic, best effort: a read-only home costs time, not correctness."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as handle:
            handle.write(hashlib.sha256(data).digest() + data)
        Path(handle.name).replace(path)
    except OSError:
        return


def _print_table() -> None:
    table = {
        purpose: [hashlib.sha256(_hash_chunk(purpose, chunk)).hexdigest() for chunk in range(len(digests))]
        for purpose, digests in _frozen_digests().items()
    }
    json.dump(table, sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")


if __name__ == "__main__":
    _print_table()
