"""Tiles: the layout of the format's own example, one spelling of each path, and a log that others wrote."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.checkpoint import open_checkpoint
from ledger.errors import DecodeError, UsageError
from ledger.merkle import HASH_BYTES, Frontier, leaf_hash
from ledger.note import Verifier
from ledger.tiles import (
    EntryBundle,
    Tile,
    decode_entry_bundle,
    encode_entry_bundle,
    entry_bundles,
    parse_path,
    split_tile,
    tile_of_node,
    tiles,
)
from tests.support.lying_log import Tree, entries_of

TESSERA_KEY = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"
SIZES = st.integers(0, 2**63 - 1)


def test_a_log_of_70000_entries_has_exactly_the_tiles_of_the_format() -> None:
    found = list(tiles(0, 70_000))
    assert Counter(tile.level for tile in found if tile.width == 256) == {0: 273, 1: 1}
    partial = [tile.path for tile in found if tile.width < 256]
    assert partial == ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"]
    full = [tile.path for tile in found if tile.width == 256]
    assert full == [*(f"tile/0/{i:03}" for i in range(273)), "tile/1/000"]
    bundles = [bundle.path for bundle in entry_bundles(0, 70_000)]
    assert bundles == [*(f"tile/entries/{i:03}" for i in range(273)), "tile/entries/273.p/112"]


@pytest.mark.parametrize(
    ("number", "path"),
    [
        (0, "000"),
        (7, "007"),
        (999, "999"),
        (1000, "x001/000"),
        (1_234_067, "x001/x234/067"),
        (123_456_789_012, "x123/x456/x789/012"),
    ],
)
def test_numbers_are_written_in_groups_of_three(number: int, path: str) -> None:
    assert Tile(3, number).path == f"tile/3/{path}"
    assert EntryBundle(number, 17).path == f"tile/entries/{path}.p/17"
    assert parse_path(f"tile/3/{path}") == Tile(3, number)
    assert parse_path(f"tile/entries/{path}.p/17") == EntryBundle(number, 17)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/x000/000",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/x001",
        "tile/0/X001/002",
        "tile/00/001",
        "tile/8/001",
        "tile/-1/001",
        "tile/Entries/001",
        "tile/0/001.p",
        "tile/0/001.p/",
        "tile/0/001.p/0",
        "tile/0/001.p/01",
        "tile/0/001.p/256",
        "tile/0/001.p/999",
        "tile/0/001.p/+5",
        "tile/0/٠٠١",
        "/tile/0/001",
        "tile/0/001/",
        "tile//001",
        "tile/0/../0/001",
        "tile/0/001\n",
        "tile/8/0/001",
        "checkpoint",
        "tile/0/" + "x999/" * 20 + "999",
        "tile/0/x036/x028/x797/x018/x963/968",
    ],
)
def test_other_spellings_of_paths_are_refused(path: str) -> None:
    with pytest.raises(DecodeError):
        parse_path(path)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=30), st.from_regex(r"tile/[0-9]/(x[0-9]{3}/){0,3}[0-9]{1,4}(\.p/[0-9]{1,4})?")))
def test_any_string_is_a_path_that_is_written_so_or_refused(text: str) -> None:
    with contextlib.suppress(DecodeError):
        assert parse_path(text).path == text


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 200_000))
def test_partial_widths_are_those_of_the_format_and_no_tile_is_empty(size: int) -> None:
    found = list(tiles(0, size))
    assert len(set(found)) == len(found)
    for level in range(8):
        here = [tile for tile in found if tile.level == level]
        hashes = size // 256**level
        assert sum(tile.width for tile in here) == hashes
        assert [tile.width for tile in here if tile.width < 256] == [hashes % 256] * (hashes % 256 > 0)
        assert all(tile.size_needed() <= size for tile in here)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 70_000), st.integers(0, 70_000))
def test_growth_adds_exactly_the_tiles_that_the_larger_tree_has_more(one: int, other: int) -> None:
    old, new = sorted((one, other))
    assert set(tiles(old, new)) == set(tiles(0, new)) - set(tiles(0, old))
    assert set(entry_bundles(old, new)) == set(entry_bundles(0, new)) - set(entry_bundles(0, old))
    if old < new:
        with pytest.raises(UsageError):
            list(tiles(new, old))


@given(SIZES)
def test_the_largest_trees_have_paths_too(size: int) -> None:
    for level in range(8):
        hashes = size >> (8 * level)
        if hashes % 256:
            tile = Tile(level, hashes // 256, hashes % 256)
            assert parse_path(tile.path) == tile
            assert tile.size_needed() <= size


def test_tiles_that_no_log_has_are_refused() -> None:
    for make in (
        lambda: Tile(8, 0),
        lambda: Tile(-1, 0),
        lambda: Tile(0, -1),
        lambda: Tile(0, 0, 0),
        lambda: Tile(0, 0, 257),
        lambda: EntryBundle(2**56),
        lambda: EntryBundle(0, 0),
    ):
        with pytest.raises(UsageError):
            make()


def test_every_node_of_a_tree_is_computed_from_its_tile() -> None:
    size = 256 * 3 + 77
    tree = Tree(entries_of(size))
    data = {tile: b"".join(tree.node(level, index) for level, index in tile.positions()) for tile in tiles(0, size)}
    for level in range(10):
        for index in range(size >> level):
            tile, inside, place = tile_of_node(level, index, size)
            assert split_tile(tile, data[tile])[inside][place] == tree.node(level, index)
        with pytest.raises(UsageError):
            tile_of_node(level, size >> level, size)


def test_a_tile_of_another_length_is_refused() -> None:
    tile = Tile(0, 0, 3)
    for length in (0, 32, 95, 97, 128):
        with pytest.raises(DecodeError, match="expected 3 hashes"):
            split_tile(tile, bytes(length))


class TestEntryBundles:
    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.binary(max_size=300), min_size=1, max_size=256))
    def test_entries_come_back(self, entries: list[bytes]) -> None:
        data = encode_entry_bundle(entries)
        assert decode_entry_bundle(EntryBundle(0, len(entries)), data) == entries

    def test_lengths_are_two_bytes_big_endian(self) -> None:
        assert encode_entry_bundle([b"", b"ab", b"x" * 258]) == b"\0\0" + b"\0\2ab" + b"\1\2" + b"x" * 258
        with pytest.raises(UsageError):
            encode_entry_bundle([bytes(65_536)])
        assert len(encode_entry_bundle([bytes(65_535)])) == 65_537

    @pytest.mark.parametrize("data", [b"", b"\0", b"\0\1", b"\0\0", b"\0\1a\0\2b", b"\0\0\0\0\0\0", b"\0\1a\0\1b\0"])
    def test_too_few_too_many_and_cut_off_entries_are_refused(self, data: bytes) -> None:
        with pytest.raises(DecodeError):
            decode_entry_bundle(EntryBundle(0, 2), data)

    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=60), st.integers(1, 8))
    def test_any_bytes_are_a_bundle_that_is_written_so_or_refused(self, data: bytes, width: int) -> None:
        with contextlib.suppress(DecodeError):
            assert encode_entry_bundle(decode_entry_bundle(EntryBundle(7, width), data)) == data


class TestALogThatOthersWrote:
    """Files of sizes 1 to 15 that another implementation wrote."""

    @pytest.mark.parametrize("size", range(1, 16))
    def test_its_files_give_its_signed_root(self, vectors: Path, size: int) -> None:
        folder = vectors / "tessera-log"
        head = open_checkpoint(
            (folder / f"checkpoint.{size}").read_bytes(), Verifier.parse(TESSERA_KEY), "example.com/log/testdata"
        )
        assert head.size == size
        (tile,), (bundle,) = tiles(0, size), entry_bundles(0, size)
        hashes = split_tile(tile, (folder / tile.path).read_bytes())[0]
        entries = decode_entry_bundle(bundle, (folder / bundle.path).read_bytes())
        assert [leaf_hash(entry) for entry in entries] == hashes
        assert Frontier().extend(hashes)[0].root() == head.root
        assert encode_entry_bundle(entries) == (folder / bundle.path).read_bytes()

    def test_no_byte_of_its_files_can_change(self, vectors: Path) -> None:
        folder = vectors / "tessera-log"
        tile, bundle = Tile(0, 0, 15), EntryBundle(0, 15)
        hashes, entries = (folder / tile.path).read_bytes(), (folder / bundle.path).read_bytes()
        root = Frontier().extend(split_tile(tile, hashes)[0])[0].root()
        for i in range(len(hashes)):
            changed = bytearray(hashes)
            changed[i] ^= 1
            assert Frontier().extend(split_tile(tile, bytes(changed))[0])[0].root() != root
        for i in range(len(entries)):
            changed = bytearray(entries)
            changed[i] ^= 1
            with contextlib.suppress(DecodeError):
                found = decode_entry_bundle(bundle, bytes(changed))
                assert b"".join(map(leaf_hash, found)) != hashes
        assert len(hashes) == 15 * HASH_BYTES
