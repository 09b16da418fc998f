"""Tiles of a log (C2SP tlog-tiles): where hashes and entries lie in plain files. Pure functions, no I/O.

    tile/<L>/<N>[.p/<W>]        hashes of the nodes of level 8 * L, numbers 256 * N to 256 * N + W - 1, 32 bytes each
    tile/entries/<N>[.p/<W>]    entries 256 * N to 256 * N + W - 1: 2 bytes of length (big-endian), then the entry

A tile without `.p` is full (W = 256) and never changes. N is written in groups of three digits, all but the last with
an x before them: 1234067 is x001/x234/067. There is no empty tile. A tree of n entries has floor(n / 256^L) hashes at
level L, so the width of its partial tile there is that number modulo 256.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ledger.encoding import MAX_SIZE
from ledger.errors import DecodeError, UsageError
from ledger.merkle import HASH_BYTES, node_hash

__all__ = [
    "MAX_ENTRY_BYTES",
    "TILE_HEIGHT",
    "TILE_WIDTH",
    "EntryBundle",
    "Tile",
    "decode_entry_bundle",
    "encode_entry_bundle",
    "entry_bundles",
    "parse_path",
    "split_tile",
    "tile_of_node",
    "tiles",
]

TILE_HEIGHT: Final = 8
TILE_WIDTH: Final = 1 << TILE_HEIGHT
MAX_ENTRY_BYTES: Final = 65_535
"""The tile format gives an entry's length 16 bits."""

_MAX_LEVEL: Final = 7
"""256^8 entries are more than any log can have (2^63 - 1)."""
_PATH: Final = re.compile(
    r"tile/(?P<level>[0-7]|entries)/(?P<number>(?:x[0-9]{3}/)*[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Tile:
    """Hashes number * 256 .. number * 256 + width - 1 of level 8 * `level` of the tree."""

    level: int
    number: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        if not 0 <= self.level <= _MAX_LEVEL:
            raise UsageError(f"a tile lies at level 0 to {_MAX_LEVEL}, not {self.level}")
        _check(self.number, self.width)

    @property
    def path(self) -> str:
        """Where it is found."""
        return f"tile/{self.level}/{_number_path(self.number)}{_suffix(self.width)}"

    def positions(self) -> list[tuple[int, int]]:
        """(level, index) of its nodes in the tree, in order."""
        first = self.number * TILE_WIDTH
        return [(self.level * TILE_HEIGHT, first + place) for place in range(self.width)]

    def size_needed(self) -> int:
        """The smallest tree that has this tile."""
        return (self.number * TILE_WIDTH + self.width) << (self.level * TILE_HEIGHT)


@dataclass(frozen=True, slots=True)
class EntryBundle:
    """Entries number * 256 .. number * 256 + width - 1."""

    number: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        _check(self.number, self.width)

    @property
    def path(self) -> str:
        """Where it is found."""
        return f"tile/entries/{_number_path(self.number)}{_suffix(self.width)}"

    @property
    def start(self) -> int:
        """Index of its first entry."""
        return self.number * TILE_WIDTH

    @property
    def stop(self) -> int:
        """Index after its last entry."""
        return self.start + self.width


def parse_path(path: str) -> Tile | EntryBundle:
    """The tile whose `path` is exactly this. Raises DecodeError."""
    found = _PATH.fullmatch(path)
    if found is None or len(path) > 64:
        raise DecodeError("tile path", f"{path[:80]!r} is none")
    number = int(found["number"].replace("x", "").replace("/", ""))
    width = int(found["width"] or TILE_WIDTH)
    try:
        tile = EntryBundle(number, width) if found["level"] == "entries" else Tile(int(found["level"]), number, width)
    except UsageError as error:
        raise DecodeError("tile path", str(error)) from error
    if tile.path != path:
        raise DecodeError("tile path", f"{path!r} is written {tile.path!r}")
    return tile


def tiles(old_size: int, size: int) -> Iterator[Tile]:
    """The tiles that a tree of `size` entries has and one of `old_size` entries has not, by level, in order.

    Full ones, and the partial one at the right edge of each level (from `old_size` = 0: all tiles of the tree).
    Raises UsageError unless 0 <= old_size <= size.
    """
    _check_growth(old_size, size)
    for level in range(_MAX_LEVEL + 1):
        shift = level * TILE_HEIGHT
        for number, width in _edge(old_size >> shift, size >> shift):
            yield Tile(level, number, width)


def entry_bundles(old_size: int, size: int) -> Iterator[EntryBundle]:
    """The entry bundles that a tree of `size` entries has and one of `old_size` has not. Raises as `tiles` does."""
    _check_growth(old_size, size)
    for number, width in _edge(old_size, size):
        yield EntryBundle(number, width)


def tile_of_node(level: int, index: int, size: int) -> tuple[Tile, int, int]:
    """The tile, within a tree of `size` entries, from which node (level, index) is computed.

    Returns (tile, level of the node inside the tile, index of the node inside that level): see `split_tile`. The node
    must be in the tree. A node of level 8 * L is a hash of tile level L itself, levels between are computed from it.
    """
    tile_level, inside = divmod(level, TILE_HEIGHT)
    per_tile = TILE_WIDTH >> inside
    number, place = divmod(index, per_tile)
    hashes = (size >> (tile_level * TILE_HEIGHT)) - number * TILE_WIDTH
    if index < 0 or (index + 1) << level > size:
        raise UsageError(f"a tree of {size} entries has no node {index} of level {level}")
    return Tile(tile_level, number, min(hashes, TILE_WIDTH)), inside, place


def split_tile(tile: Tile, data: bytes) -> list[list[bytes]]:
    """The perfect subtrees inside a tile: [level in the tile][index in that level], level 0 being the tile's hashes.

    Raises DecodeError unless `data` has exactly the tile's width.
    """
    if len(data) != tile.width * HASH_BYTES:
        raise DecodeError(tile.path, f"expected {tile.width} hashes of {HASH_BYTES} bytes, got {len(data)} bytes")
    levels = [[data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES)]]
    while len(levels[-1]) > 1 and len(levels) < TILE_HEIGHT:
        below = levels[-1]
        levels.append([node_hash(below[i], below[i + 1]) for i in range(0, len(below) - 1, 2)])
    return levels


def encode_entry_bundle(entries: Sequence[bytes]) -> bytes:
    """The bytes of a bundle. Raises UsageError for an entry that is too long."""
    if any(len(entry) > MAX_ENTRY_BYTES for entry in entries):
        raise UsageError(f"an entry has at most {MAX_ENTRY_BYTES} bytes")
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def decode_entry_bundle(bundle: EntryBundle, data: bytes) -> list[bytes]:
    """The entries of a bundle, exactly as many as it has. Raises DecodeError."""
    entries: list[bytes] = []
    at = 0
    while at < len(data) and len(entries) <= bundle.width:
        length = int.from_bytes(data[at : at + 2], "big")
        entry = data[at + 2 : at + 2 + length]
        if at + 2 > len(data) or len(entry) != length:
            raise DecodeError(bundle.path, f"entry {bundle.start + len(entries)} is cut off")
        entries.append(entry)
        at += 2 + length
    if len(entries) != bundle.width:
        raise DecodeError(
            bundle.path, f"expected {bundle.width} entries, got {'more' if at < len(data) else len(entries)}"
        )
    return entries


def _check(number: int, width: int) -> None:
    if not 1 <= width <= TILE_WIDTH:
        raise UsageError(f"a tile has a width of 1 to {TILE_WIDTH}, not {width}")
    if not 0 <= number <= MAX_SIZE // TILE_WIDTH:
        raise UsageError(f"no log has a tile number {number}")


def _check_growth(old_size: int, size: int) -> None:
    if not 0 <= old_size <= size <= MAX_SIZE:
        raise UsageError(f"no log grows from size {old_size} to size {size}")


def _edge(old: int, new: int) -> Iterator[tuple[int, int]]:
    """(number, width) of what `new` items fill and `old` did not, 256 to a tile."""
    if old == new:
        return
    for number in range(old // TILE_WIDTH, new // TILE_WIDTH):
        yield number, TILE_WIDTH
    if new % TILE_WIDTH:
        yield new // TILE_WIDTH, new % TILE_WIDTH


def _number_path(number: int) -> str:
    digits = str(number)
    digits = digits.rjust(-(-len(digits) // 3) * 3, "0")
    groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    return "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])


def _suffix(width: int) -> str:
    return "" if width == TILE_WIDTH else f".p/{width}"
