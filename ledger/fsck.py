"""Checks every file of a log in plain files (C2SP tlog-tiles), of any log, and shares no code with the writer.

The signed head is opened with the log's key; every entry bundle is hashed; every tile of every level, full and partial,
must be, byte for byte, what the entries below it give; the root of it all must be the signed one. Files are read once,
in order, and only the right edge of the tree is kept: 256 hashes a level.

What a log serves is a claim, so whatever is wrong with it is a VerificationFailed with the name of a check:

    checkpoint.missing  .form  .origin  .unsigned  .signature  .empty  .size
    entries.missing     .form  .hash    .full
    tile.missing        .width .hash    .full
    tree.root           the files agree with each other, and not with the signed head
    tree.prefix         the tree does not begin with the one that was known before

All but the last two are a FileRefused, which names the file. Of an entry bundle and a tile that contradict each other
the tile above (or the signed root) decides which is refused.

Only the standard library and the ledger's error classes are imported here, and an Ed25519 verifier for the head.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from ledger.errors import FileRefused, RootMismatch, UsageError
from ledger.fsck_head import LARGEST_SIZE, open_head

__all__ = ["Fetch", "FetchMany", "FsckReport", "KnownTree", "TreeSplit", "fsck", "split_tree"]

Fetch = Callable[[str], bytes | None]
"""Path, such as `tile/entries/x001/234.p/5`, to the file's bytes, or to None where the log has no such file."""

FetchMany = Callable[[Iterable[str]], Iterator[bytes | None]]
"""The same for many paths, in their order; it may read ahead."""

_WIDTH: Final = 256
_LEVELS: Final = 8
_HASH: Final = 32
_ENTRIES: Final = -1
"""In the place of a tile's level: the entry bundle under the tile of level 0."""


class KnownTree(NamedTuple):
    """A tree that was checked before: size and root of a head that was verified."""

    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class FsckReport:
    """A log whose files were checked under the signed head `note`; entries before `since` were not read again."""

    origin: str
    size: int
    root: bytes
    note: bytes
    since: int
    files: int
    entry_bytes: int


def fsck(
    fetch: Fetch,
    vkey: str,
    *,
    note: bytes | None = None,
    since: KnownTree | None = None,
    fetch_many: FetchMany | None = None,
    checked: Callable[[str, bytes], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FsckReport:
    """Check the log behind `fetch` under its head: the checkpoint that it serves, or `note`.

    `vkey` is the log's Ed25519 verifier key, whose name is the log's origin. With `since`, only what was added to that
    tree is read, and the log must begin with that tree. `checked` gets every file once it agrees with its neighbours,
    with the bytes that belong under this head; whether they are the log's is known when fsck returns, not before.
    `progress` gets (entries read, entries in all).

    Raises:
        FileRefused, RootMismatch: the log is not what its head says; the checks are listed above.
        DecodeError: `vkey` is none.
    """
    if note is None:
        note = fetch("checkpoint")
        if note is None:
            raise FileRefused("checkpoint.missing", "checkpoint", "there is none")
    origin, size, root = open_head(note, vkey)
    known = since or KnownTree(0, b"")
    if size < known.size:
        raise FileRefused("checkpoint.size", "checkpoint", f"of {size} entries; {known.size} were known before")
    check = _Check(fetch, size, root, known)
    files = _files(known.size, size)
    paths = (_path(*file) for file in _files(known.size, size))
    contents = (fetch_many or _one_by_one(fetch))(paths)
    try:
        for (level, number, width), data in zip(files, contents, strict=True):
            if level == _ENTRIES:
                check.bundle(number, width, data)
                continue
            check.tile(level, number, width, data, checked)
            if progress is not None and level == 0:
                progress(min((number + 1) * _WIDTH, size), size)
    finally:
        if isinstance(contents, Generator):
            contents.close()  # what it reads ahead is not wanted any more
    check.finish()
    return FsckReport(origin, size, root, note, known.size, check.files, check.entry_bytes)


# -- the walk ---------------------------------------------------------------------------------------------------------


def _one_by_one(fetch: Fetch) -> FetchMany:
    return lambda paths: map(fetch, paths)


def _files(since: int, size: int) -> Iterator[tuple[int, int, int]]:
    """(level, number, width) of the files of a tree of `size` entries that hold anything from entry `since` on.

    Bundle (level -1), its tile of level 0, then every tile above that these complete; at the end the partial ones.
    """
    for number in range(since // _WIDTH, -(-size // _WIDTH)):
        width = min(_WIDTH, size - number * _WIDTH)
        yield _ENTRIES, number, width
        yield 0, number, width
        level, above = 0, number
        while width == _WIDTH and above % _WIDTH == _WIDTH - 1:
            level, above = level + 1, above // _WIDTH
            yield level, above, _WIDTH
    for level in range(1, _LEVELS):
        count = size >> (8 * level)
        if count % _WIDTH:
            yield level, count // _WIDTH, count % _WIDTH


class _Check:
    """What is known of the tree so far: `edge[level]` are the hashes of the tile there that is not full yet."""

    def __init__(self, fetch: Fetch, size: int, root: bytes, known: KnownTree) -> None:
        self._fetch = fetch
        self._size = size
        self._root = root
        self._old = known
        self._edge = _edge(fetch, known, size)
        self._bundle: tuple[str, bytes, list[bytes]] = ("", b"", [])
        self.files = 0
        self.entry_bytes = 0

    def bundle(self, number: int, width: int, data: bytes | None) -> None:
        """Hash the entries of a bundle; its tile of level 0 must come next."""
        path, whole = _path(_ENTRIES, number, width), width
        if data is None and width < _WIDTH:
            # A log may drop a partial file once the full one is there, which begins with it.
            path, whole = _path(_ENTRIES, number, _WIDTH), _WIDTH
            data = self._fetch(path)
        if data is None:
            raise FileRefused("entries.missing", _path(_ENTRIES, number, width), f"no entries from {number * _WIDTH}")
        leaves, end = _leaves(path, data, number * _WIDTH, width)
        if whole == width and end != len(data):
            raise FileRefused("entries.form", path, f"{len(data) - end} bytes after its {width} entries")
        self._bundle = path, data[:end], leaves
        self.entry_bytes += end - 2 * width

    def tile(
        self, level: int, number: int, width: int, data: bytes | None, checked: Callable[[str, bytes], None] | None
    ) -> None:
        """Compare a tile with what lies below it."""
        path = _path(level, number, width)
        served = _tile_hashes(self._fetch, level, number, width, data)
        if level == 0:
            self._compare_leaves(path, number, served)
            self._edge[0] = self._bundle[2]
        else:
            _compare(path, served, self._edge[level], number * _WIDTH, "what lies below gives")
        self._done("tile", path, b"".join(served), width, checked)
        if level == 0:
            self._done("entries", _path(_ENTRIES, number, width), self._bundle[1], width, checked)
        if width == _WIDTH:
            self._edge[level] = []
            self._edge[level + 1].append(_perfect(served))

    def finish(self) -> None:
        """The root of all files must be the signed one."""
        root = _root_of_edge(self._edge)
        if root != self._root:
            raise RootMismatch("tree.root", self._root, root)

    def _done(
        self, kind: str, path: str, exact: bytes, width: int, checked: Callable[[str, bytes], None] | None
    ) -> None:
        full = None if width == _WIDTH else self._fetch(path.partition(".p/")[0])
        if full is not None and not full.startswith(exact):
            # The log has grown since the head: the full file is there already, and must begin with the partial one.
            raise FileRefused(f"{kind}.full", path.partition(".p/")[0], f"does not begin with what {path} must be")
        if checked is not None:
            checked(path, exact)
        self.files += 1

    def _compare_leaves(self, path: str, number: int, served: list[bytes]) -> None:
        bundle, _, leaves = self._bundle
        if served != leaves and self._supported(number, served):
            _compare(bundle, leaves, served, number * _WIDTH, f"{path} and the tree above it say", "entries.hash")
        _compare(path, served, leaves, number * _WIDTH, f"{bundle} gives")
        known = self._edge[0] if number == self._old.size // _WIDTH else []
        # Both may have been changed alike since the edge was read. What was known before knows better.
        _compare(bundle, leaves[: len(known)], known, number * _WIDTH, "the known tree has", "entries.hash")

    def _supported(self, number: int, hashes: list[bytes]) -> bool:
        """Whether the tree above these leaves agrees with them."""
        if len(hashes) < _WIDTH:
            return _root_of_edge([hashes, *self._edge[1:]]) == self._root
        above, place = divmod(number, _WIDTH)
        parent = self._fetch(_path(1, above, min(_WIDTH, self._size // _WIDTH - above * _WIDTH))) or b""
        return parent[place * _HASH : (place + 1) * _HASH] == _perfect(hashes)


def _edge(fetch: Fetch, known: KnownTree, size: int) -> list[list[bytes]]:
    """The unfinished tiles of the known tree, from the files of the present one; they must hash to the known root."""
    edge: list[list[bytes]] = [[] for _ in range(_LEVELS)]
    if known.size == 0:
        return edge
    for level in range(_LEVELS):
        count = known.size >> (8 * level)
        if count % _WIDTH:
            number = count // _WIDTH
            width = min(_WIDTH, (size >> (8 * level)) - number * _WIDTH)
            edge[level] = _read_tile(fetch, level, number, width)[: count % _WIDTH]
    root = _root_of_edge(edge)
    if root != known.root:
        raise RootMismatch("tree.prefix", known.root, root)
    return edge


def _compare(
    path: str, found: Sequence[bytes], expected: Sequence[bytes], first: int, source: str, check: str = "tile.hash"
) -> None:
    for place, (one, other) in enumerate(zip(found, expected, strict=True), first):
        if one != other:
            raise FileRefused(check, path, f"number {place} is {one.hex()}, {source} {other.hex()}")


# -- two sizes of one tree --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TreeSplit:
    """Hashes of the perfect subtrees of entries [0, old_size) and [old_size, new_size) of one tree, from the left.

    They give the roots at both sizes, so that somebody who signed `new_root()` for new_size and anything but
    `old_root()` for old_size has signed two trees of which neither extends the other.
    """

    old_size: int
    new_size: int
    old: tuple[bytes, ...]
    rest: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if not 0 < self.old_size <= self.new_size <= LARGEST_SIZE:
            raise UsageError(f"no tree of {self.new_size} entries begins with one of {self.old_size}")
        wanted = len(_subtrees(0, self.old_size)), len(_subtrees(self.old_size, self.new_size))
        if (len(self.old), len(self.rest)) != wanted or any(len(h) != _HASH for h in (*self.old, *self.rest)):
            raise UsageError(f"sizes {self.old_size} and {self.new_size} need {wanted[0]} + {wanted[1]} hashes")

    def old_root(self) -> bytes:
        """Root of the first `old_size` entries."""
        return _root(list(zip(_subtrees(0, self.old_size), self.old, strict=True)))

    def new_root(self) -> bytes:
        """Root of all entries."""
        places = _subtrees(0, self.old_size) + _subtrees(self.old_size, self.new_size)
        return _root(list(zip(places, self.old + self.rest, strict=True)))


def split_tree(fetch: Fetch, old_size: int, new_size: int) -> TreeSplit:
    """What the tiles of the log, under a head of `new_size` entries, say of its trees of both sizes.

    Compare both roots with signed ones. Raises FileRefused for tiles that are missing or of another width, and
    UsageError unless 0 < old_size <= new_size.
    """
    tiles: dict[tuple[int, int], list[bytes]] = {}

    def node(level: int, index: int) -> bytes:
        tile_level, inside = divmod(level, 8)
        number, place = divmod(index << inside, _WIDTH)
        if (tile_level, number) not in tiles:
            width = min(_WIDTH, (new_size >> (8 * tile_level)) - number * _WIDTH)
            tiles[tile_level, number] = _read_tile(fetch, tile_level, number, width)
        return _perfect(tiles[tile_level, number][place : place + (1 << inside)])

    if not 0 < old_size <= new_size <= LARGEST_SIZE:
        raise UsageError(f"no tree of {new_size} entries begins with one of {old_size}")
    old = tuple(node(*place) for place in _subtrees(0, old_size))
    return TreeSplit(old_size, new_size, old, tuple(node(*place) for place in _subtrees(old_size, new_size)))


def _subtrees(start: int, stop: int) -> list[tuple[int, int]]:
    """(level, index) of the fewest perfect subtrees that make up entries start..stop-1, from the left."""
    found = []
    while start < stop:
        level = (stop - start).bit_length() - 1
        if start:
            level = min(level, (start & -start).bit_length() - 1)
        found.append((level, start >> level))
        start += 1 << level
    return found


def _root(nodes: list[tuple[tuple[int, int], bytes]]) -> bytes:
    """Root of a tree from perfect subtrees, from the left, that make it up."""
    stack: list[bytes] = []
    for (_, index), hash_ in nodes:
        while index % 2:  # a right child, whose left sibling was completed just before
            index, hash_ = index // 2, _node(stack.pop(), hash_)
        stack.append(hash_)
    root = stack.pop()
    while stack:
        root = _node(stack.pop(), root)
    return root


# -- hashes and files -------------------------------------------------------------------------------------------------


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _perfect(hashes: Sequence[bytes]) -> bytes:
    """Root of a perfect subtree: 1, 2, 4, ... hashes."""
    while len(hashes) > 1:
        hashes = [_node(hashes[i], hashes[i + 1]) for i in range(0, len(hashes), 2)]
    return hashes[0]


def _root_of_edge(edge: Sequence[Sequence[bytes]]) -> bytes:
    """Root of the tree whose unfinished tiles these are, level by level: every binary digit of its size is a peak."""
    peaks = []
    for hashes in reversed(edge):
        at = 0
        for bit in (128, 64, 32, 16, 8, 4, 2, 1):
            if len(hashes) & bit:
                peaks.append(_perfect(hashes[at : at + bit]))
                at += bit
    if not peaks:
        return hashlib.sha256(b"").digest()
    root = peaks.pop()
    while peaks:
        root = _node(peaks.pop(), root)
    return root


def _path(level: int, number: int, width: int) -> str:
    name, number = f"{number % 1000:03}", number // 1000
    while number:
        name, number = f"x{number % 1000:03}/{name}", number // 1000
    kind = "entries" if level == _ENTRIES else str(level)
    return f"tile/{kind}/{name}" + (f".p/{width}" if width < _WIDTH else "")


def _read_tile(fetch: Fetch, level: int, number: int, width: int) -> list[bytes]:
    return _tile_hashes(fetch, level, number, width, fetch(_path(level, number, width)))


def _tile_hashes(fetch: Fetch, level: int, number: int, width: int, data: bytes | None) -> list[bytes]:
    """The hashes of a tile from its bytes, or from those of the full tile where the partial one is gone."""
    path, whole = _path(level, number, width), width
    if data is None and width < _WIDTH:
        path, whole = _path(level, number, _WIDTH), _WIDTH
        data = fetch(path)
    if data is None:
        raise FileRefused("tile.missing", _path(level, number, width), f"no hashes of level {8 * level} there")
    if len(data) != whole * _HASH:
        raise FileRefused("tile.width", path, f"expected {whole} hashes of {_HASH} bytes, got {len(data)} bytes")
    return [data[at : at + _HASH] for at in range(0, width * _HASH, _HASH)]


def _leaves(path: str, data: bytes, first: int, width: int) -> tuple[list[bytes], int]:
    """Leaf hashes of the first `width` entries of a bundle, and where these end."""
    leaves, at = [], 0
    for index in range(first, first + width):
        start = at + 2
        end = start + int.from_bytes(data[at:start], "big")
        if len(data) < end:
            raise FileRefused("entries.form", path, f"entry {index} is cut off after {len(data)} bytes")
        leaves.append(hashlib.sha256(b"\x00" + data[start:end]).digest())
        at = end
    return leaves, at
