"""fsck accepts what honest logs serve, of any writer, and charges every change to the file that was changed."""

from __future__ import annotations

import ast
import base64
import hashlib
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import Log, Signer, VerificationFailed, open_checkpoint
from ledger.errors import DecodeError, FileRefused, RootMismatch, UsageError
from ledger.fsck import KnownTree, TreeSplit, fsck, split_tree
from ledger.fsck_head import open_head
from ledger.storage.posix import PosixStorage
from ledger.tiles import Tile, parse_path
from tests.support.tile_log import TileLog, fetcher, folder_fetcher, root_of, sign_head, write

SIGNER = Signer("log.example/fsck", bytes(range(32)))
VKEY = str(SIGNER.verifier)
TESSERA = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"
SIZES = [0, 1, 2, 3, 255, 256, 257, 511, 512, 513, 600, 65_535, 65_536, 65_537, 65_795, 70_000]

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def log() -> TileLog:
    return TileLog(SIGNER, [b"entry %d" % i for i in range(70_000)])


@pytest.fixture(scope="module")
def small(log: TileLog) -> Files:
    """600 entries: full and partial bundles and tiles, two levels."""
    return log.files(600)


@pytest.fixture(scope="module")
def large(log: TileLog) -> Files:
    """65,795 entries: full and partial tiles at levels 0 and 1, a partial one at level 2."""
    return log.files(65_795)


def check(files: Files, **options: object) -> object:
    return fsck(fetcher(files), VKEY, **options)  # type: ignore[arg-type]


def refusal(files: Files, **options: object) -> FileRefused:
    with pytest.raises(FileRefused) as caught:
        check(files, **options)
    assert caught.value.path in str(caught.value)
    return caught.value


# -- honest logs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_an_honest_log_passes_and_every_file_of_it_was_read(log: TileLog, size: int) -> None:
    files, checked, steps = log.files(size), {}, []
    report = fsck(
        fetcher(files), VKEY, checked=checked.__setitem__, progress=lambda done, total: steps.append((done, total))
    )
    assert (report.origin, report.size, report.root) == (SIGNER.name, size, log.root(size))
    assert (report.note, report.since) == (files["checkpoint"], 0)
    assert checked | {"checkpoint": files["checkpoint"]} == files
    assert report.files == len(files) - 1
    assert report.entry_bytes == sum(map(len, log.entries[:size]))
    assert [done for done, _ in steps] == [min(i + 256, size) for i in range(0, size, 256)]


def test_a_log_written_by_others_passes_at_every_size(vectors: Path) -> None:
    folder = vectors / "tessera-log"
    fetch = folder_fetcher(folder)
    assert fsck(fetch, TESSERA).size == 15
    reports = [fsck(fetch, TESSERA, note=(folder / f"checkpoint.{size}").read_bytes()) for size in range(16)]
    assert [report.size for report in reports] == list(range(16))
    for old in reports[1:]:
        for new in reports[old.size :]:
            assert fsck(fetch, TESSERA, note=new.note, since=KnownTree(old.size, old.root)).since == old.size
            split = split_tree(fetch, old.size, new.size)
            assert (split.old_root(), split.new_root()) == (old.root, new.root)


def test_a_log_written_by_others_fails_with_any_byte_changed(vectors: Path) -> None:
    folder = vectors / "tessera-log"
    for path in ("checkpoint", "tile/0/000.p/15", "tile/entries/000.p/15"):
        data = (folder / path).read_bytes()
        for place in range(len(data)):
            changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
            with pytest.raises(FileRefused) as caught:
                fsck(lambda p, c=changed, t=path: c if p == t else folder_fetcher(folder)(p), TESSERA)  # type: ignore[misc]
            assert caught.value.path == path


@pytest.mark.parametrize("size", [1, 256, 600])
def test_what_our_own_log_serves_passes(tmp_path: Path, size: int) -> None:
    with Log.create(tmp_path / "log.sqlite", SIGNER) as log:
        log.append_many([b"entry %d" % i for i in range(size)])
        log.publish(log.checkpoint())

        def fetch(path: str) -> bytes | None:
            if path == "checkpoint":
                return log.published().note
            found = parse_path(path)
            try:
                return log.tile(found) if isinstance(found, Tile) else log.entry_bundle(found)
            except UsageError:
                return None

        report = fsck(fetch, VKEY)
        assert (report.size, report.root) == (size, log.head().root)


def test_the_folder_of_our_own_log_passes(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    storage = PosixStorage.create(folder, sign_head(SIGNER, 0, root_of([])))
    with Log.on(storage, SIGNER.verifier, SIGNER) as log:
        for size in (1, 300, 211):
            log.append_many([b"x" * (i % 70) for i in range(size)])
            log.publish(log.checkpoint())
            assert fsck(folder_fetcher(folder), VKEY).size == log.size


def test_a_log_may_drop_partial_files_once_the_full_ones_are_there(log: TileLog) -> None:
    note = log.note(700)
    grown = {path: data for path, data in log.files(65_795).items() if not path.endswith(".p/2")}
    checked: Files = {}
    report = check(grown, note=note, checked=checked.__setitem__)
    assert report.size == 700  # type: ignore[attr-defined]
    assert checked | {"checkpoint": note} == log.files(700)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_two_sizes_of_a_log_are_tied_by_its_tiles_alone(log: TileLog, data: st.DataObject) -> None:
    new = data.draw(st.integers(1, 3000))
    old = data.draw(st.integers(1, new))
    small_log = TileLog(SIGNER, log.entries[:new])
    files = small_log.files()
    split = split_tree(fetcher(files), old, new)
    assert (split.old_root(), split.new_root()) == (small_log.root(old), small_log.root())
    report = check(files, since=KnownTree(old, small_log.root(old)))
    assert report.since == old  # type: ignore[attr-defined]


def test_with_a_known_tree_only_what_is_new_is_read(log: TileLog, large: Files) -> None:
    asked: list[str] = []

    def fetch(path: str) -> bytes | None:
        asked.append(path)
        return large.get(path)

    report = fsck(fetch, VKEY, since=KnownTree(65_000, log.root(65_000)))
    assert (report.size, report.since) == (65_795, 65_000)
    bundles = [path for path in asked if path.startswith("tile/entries/")]
    assert bundles[:2] == ["tile/entries/253", "tile/entries/254"]
    assert len(asked) < 30


def test_memory_does_not_grow_with_the_log(log: TileLog, large: Files, tmp_path: Path) -> None:
    fetch = folder_fetcher(write(tmp_path, large))
    tracemalloc.start()
    try:
        fsck(fetch, VKEY)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(map(len, large.values())) > 2_900_000
    assert peak < 500_000


# -- every change is caught, and charged to the right file -------------------------------------------------------------


def _first(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def _last(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 0x80])


CHANGES: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda data: None,
    "empty": lambda data: b"",
    "a-byte-short": lambda data: data[:-1],
    "a-hash-short": lambda data: data[:-32],
    "a-byte-more": lambda data: data + b"\0",
    "a-hash-more": lambda data: data + bytes(32),
    "first-bit": _first,
    "last-bit": _last,
    "zeros": lambda data: bytes(len(data)),
    "garbage": lambda data: hashlib.shake_128(data).digest(len(data)),
    "huge": lambda data: data * 300,
    "twice": lambda data: data * 2,
    "reversed": lambda data: data[::-1],
    "text": lambda data: b"<html>404 not found</html>",
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_file_of_a_log_matters(small: Files, change: str) -> None:
    for path in small:
        if path == "checkpoint":
            continue
        changed = CHANGES[change](small[path])
        files = {**small, path: changed} if changed is not None else {p: d for p, d in small.items() if p != path}
        error = refusal(files)
        assert error.path == path, error
        kind = "entries" if "entries" in path else "tile"
        allowed = {f"{kind}.{name}" for name in ("missing", "form", "width", "hash")}
        assert error.check in allowed
        assert (error.check == f"{kind}.missing") == (change == "missing")
        if change in ("empty", "a-byte-short", "a-byte-more", "twice"):
            assert error.check == ("entries.form" if kind == "entries" else "tile.width")


@pytest.mark.parametrize("path", ["tile/1/000", "tile/1/001.p/1", "tile/2/000.p/1"])
@pytest.mark.parametrize("change", ["missing", "a-hash-more", "first-bit", "last-bit", "garbage"])
def test_tiles_of_upper_levels_matter_as_much(large: Files, path: str, change: str) -> None:
    changed = CHANGES[change](large[path])
    files = {**large, path: changed} if changed is not None else {p: d for p, d in large.items() if p != path}
    assert refusal(files).path == path


def test_files_in_each_others_place_are_refused(small: Files) -> None:
    for one, other in [
        ("tile/0/000", "tile/0/001"),
        ("tile/entries/000", "tile/entries/001"),
        ("tile/0/000", "tile/entries/000"),
        ("tile/1/000.p/2", "tile/0/002.p/88"),
    ]:
        swapped = {**small, one: small[other], other: small[one]}
        assert refusal(swapped).path in (one, other)


def test_a_bundle_is_charged_when_only_it_was_rewritten_and_a_tile_when_only_it_was(log: TileLog, small: Files) -> None:
    for index in (0, 255, 256, 511, 512, 599):
        lying = TileLog(SIGNER, [*log.entries[:index], b"rewritten", *log.entries[index + 1 : 600]]).files()
        suffix = f"{index // 256:03}" + (".p/88" if index >= 512 else "")
        bundle, tile = f"tile/entries/{suffix}", f"tile/0/{suffix}"
        error = refusal({**small, bundle: lying[bundle]})
        assert (error.check, error.path) == ("entries.hash", bundle)
        assert f"number {index} " in str(error)
        error = refusal({**small, tile: lying[tile]})
        assert (error.check, error.path) == ("tile.hash", tile)
        assert f"number {index} " in str(error)
        # Both of them: the tile above is now the odd one out, or nothing is and the signed root decides.
        both = {**small, bundle: lying[bundle], tile: lying[tile]}
        if index < 512:
            assert refusal(both).path == "tile/1/000.p/2"
        else:
            with pytest.raises(RootMismatch) as caught:
                check(both)
            assert caught.value.check == "tree.root"


def test_a_rewritten_entry_with_all_its_tiles_does_not_give_the_signed_root(log: TileLog, small: Files) -> None:
    lying = TileLog(SIGNER, [*log.entries[:17], b"rewritten", *log.entries[18:600]])
    with pytest.raises(RootMismatch) as caught:
        check({**lying.files(), "checkpoint": small["checkpoint"]})
    assert (caught.value.check, caught.value.expected, caught.value.computed) == (
        "tree.root",
        log.root(600),
        lying.root(),
    )
    # Under a head of its own it is a log like any other; only who knew the old one can tell.
    check(lying.files())
    with pytest.raises(RootMismatch) as caught:
        check(lying.files(), since=KnownTree(300, log.root(300)))
    assert caught.value.check == "tree.prefix"
    split = split_tree(fetcher(lying.files()), 300, 600)
    assert split.new_root() == lying.root()
    assert split.old_root() == lying.root(300) != log.root(300)


def test_old_tiles_over_a_rewritten_tree_do_not_help(log: TileLog, small: Files) -> None:
    """Shown to who knows the old tree: its own tiles, and a head over rewritten ones."""
    lying = TileLog(SIGNER, [*log.entries[:17], b"rewritten", *log.entries[18:600]])
    with pytest.raises(RootMismatch) as caught:
        check({**small, "checkpoint": lying.note()}, since=KnownTree(300, log.root(300)))
    assert caught.value.check == "tree.root"


def test_a_full_file_that_contradicts_the_partial_one_is_refused(log: TileLog, small: Files) -> None:
    note, grown = log.note(600), log.files(1000)
    both = {**grown, **small}
    check(both, note=note)
    for kind in ("0", "entries"):
        path = f"tile/{kind}/002"
        for lie in (_first(grown[path]), b"", grown[path][:40], bytes(8192)):
            error = refusal({**both, path: lie}, note=note)
            assert error.path == path
            assert error.check == ("tile.full" if kind == "0" else "entries.full")
        # Behind what the head covers it may hold anything: no one signed that.
        check({**both, path: _last(grown[path])}, note=note)


def test_a_server_that_changes_its_mind_between_two_requests_is_refused(log: TileLog, small: Files) -> None:
    lying = TileLog(SIGNER, [*log.entries[:513], b"rewritten", *log.entries[514:600]]).files()
    asked: dict[str, int] = {}

    def fetch(path: str) -> bytes | None:
        asked[path] = asked.get(path, 0) + 1
        second = path == "tile/0/002.p/88" and asked[path] > 1
        return (lying if second or path.startswith("tile/entries/002") else small).get(path)

    with pytest.raises(FileRefused) as caught:
        fsck(fetch, VKEY, since=KnownTree(520, log.root(520)))
    assert (caught.value.check, caught.value.path) == ("entries.hash", "tile/entries/002.p/88")


@pytest.mark.parametrize("known", [1, 256, 300, 512, 599, 600])
def test_a_known_tree_with_another_root_is_not_continued(log: TileLog, small: Files, known: int) -> None:
    with pytest.raises(RootMismatch) as caught:
        check(small, since=KnownTree(known, bytes(32)))
    assert (caught.value.check, caught.value.computed) == ("tree.prefix", log.root(known))


def test_a_head_behind_the_known_tree_is_refused(log: TileLog, small: Files) -> None:
    error = refusal(small, since=KnownTree(601, log.root(601)))
    assert (error.check, error.path) == ("checkpoint.size", "checkpoint")


def test_a_size_that_was_signed_and_never_served_ends_at_the_first_missing_file() -> None:
    for size in (1, 257, 2**40, 2**63 - 1):
        error = refusal({"checkpoint": sign_head(SIGNER, size, bytes(32))})
        assert error.check == "entries.missing"


@given(st.sampled_from(["checkpoint", "tile/0/000.p/5", "tile/entries/000.p/5"]), st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_no_bytes_do_anything_but_be_refused(path: str, data: bytes) -> None:
    with pytest.raises(FileRefused) as caught:
        check({**TileLog(SIGNER, [b"%d" % i for i in range(5)]).files(), path: data})
    assert caught.value.path == path


# -- the signed head: a second reading of notes must agree with the first --------------------------------------------


OTHER = Signer("other.example/log", bytes(32))
ROOT = base64.b64encode(bytes(range(32))).decode()
EMPTY = base64.b64encode(hashlib.sha256(b"").digest()).decode()

TEXTS = [
    f"{SIGNER.name}\n5\n{ROOT}\n",
    f"{SIGNER.name}\n5\n{ROOT}\nextension\n",
    f"{SIGNER.name}\n5\n{ROOT}\n\nextension\n",
    f"{SIGNER.name}\n5\n{ROOT}\n\n",
    f"{SIGNER.name}\n5\n{ROOT}\n ext\u00e9nsion \u2014 x\n",
    f"{SIGNER.name}\n5\n",
    f"{SIGNER.name}\n\n{ROOT}\n",
    f"\n5\n{ROOT}\n",
    "\n",
    f"{SIGNER.name}\n5\n{ROOT}",
    f"{OTHER.name}\n5\n{ROOT}\n",
    f"{SIGNER.name} \n5\n{ROOT}\n",
    f"{SIGNER.name}\r\n5\n{ROOT}\n",
    f"{SIGNER.name}\n5\n{ROOT}\r\n",
    f"{SIGNER.name}\n5\t\n{ROOT}\n",
    f"{SIGNER.name}\n5\n{ROOT}\n\x00\n",
    f"{SIGNER.name}\n5\n{ROOT}\n\x7f\n",
    f"{SIGNER.name}\n0\n{EMPTY}\n",
    f"{SIGNER.name}\n0\n{ROOT}\n",
    *(
        f"{SIGNER.name}\n{size}\n{ROOT}\n"
        for size in ("00", "05", "+5", "-5", " 5", "5 ", "5_0", "0x5", "5.0", "1e3", "\u0665", str(2**63 - 1))
    ),
    *(f"{SIGNER.name}\n{size}\n{ROOT}\n" for size in (str(2**63), "9" * 19, "9" * 30)),
    *(
        f"{SIGNER.name}\n5\n{root}\n"
        for root in (
            ROOT[:-1],
            ROOT + "=",
            ROOT[:-2] + "9=",
            ROOT.replace("A", "-"),
            " " + ROOT,
            ROOT[:4],
            ROOT[4:],
            ROOT + ROOT,
        )
    ),
]


def _line(name: str, data: bytes) -> str:
    return f"— {name} {base64.b64encode(data).decode()}\n"


def _tails(text: str) -> Iterator[str]:
    good = SIGNER.sign(text.encode())
    own, other = good.line(), OTHER.sign(text.encode()).line()
    wrong_id = _line(SIGNER.name, b"\0\0\0\0" + good.signature)
    bad = _line(SIGNER.name, good.key_id + _last(good.signature))
    stranger = Signer(SIGNER.name, bytes(32)).sign(text.encode()).line()
    yield from (own, own + own, other + own, own + other, other, wrong_id, wrong_id + own, bad, own + bad, bad + own)
    yield from (stranger, own + stranger, "", "\n", own[:-1], own + "\n", own + "x\n", "-" + own[1:], own[2:])
    yield from (own.replace("— ", "—  "), own.replace(" ", "  ", 2), own.replace("— ", "\u2013 "), own[:-1] + " \n")
    yield from (own[:-2] + "\n", own[:-1] + "=\n", own.replace("\n", "\r\n"), own + _line("a+b", bytes(68)))
    yield from (own + _line("a b", bytes(68)), own + _line("", bytes(68)), own + _line("a", b"abcd"))
    yield from (own + _line("a", b"abcde"), own + _line("a\u00a0b", bytes(68)), own + _line("\u00e9", bytes(68)))
    yield from (other * 99 + own, other * 100 + own, _line(SIGNER.name, good.key_id + good.signature[:-1]))
    yield from (_line(SIGNER.name, good.key_id + good.signature + b"\0"), _line(SIGNER.name, good.key_id))


def _notes() -> Iterator[bytes]:
    for text in TEXTS:
        for tail in _tails(text):
            yield (text + "\n" + tail).encode()
    good = TileLog(SIGNER, [b"x"]).note()
    yield from (b"", b"\n", b"\n\n", b"\xff" + good, good + b"\xff", b"\xef\xbb\xbf" + good, good * 2)
    yield good.replace(b"\n\n", b"\n\n\n")
    yield good.replace(b"\n\n", b"\n")
    text = f"{SIGNER.name}\n5\n{ROOT}\n" + "x" * 1_000_000 + "\n"
    yield (text + "\n" + SIGNER.sign(text.encode()).line()).encode()


def test_heads_are_opened_as_the_ledger_opens_them() -> None:
    accepted = refused = 0
    for note in _notes():
        try:
            head = open_checkpoint(note, SIGNER.verifier, SIGNER.name)
        except (DecodeError, VerificationFailed):
            refused += 1
            with pytest.raises(FileRefused) as caught:
                open_head(note, VKEY)
            assert caught.value.path == "checkpoint"
            assert caught.value.check.startswith("checkpoint.")
        else:
            accepted += 1
            assert open_head(note, VKEY) == (head.origin, head.size, head.root)
    assert accepted > 40
    assert refused > 1000


@pytest.mark.parametrize(
    ("note", "name"),
    [
        (sign_head(SIGNER, 5, bytes(32), origin=OTHER.name), "origin"),
        (sign_head(OTHER, 5, bytes(32)), "unsigned"),
        (sign_head(Signer(SIGNER.name, bytes(32)), 5, bytes(32)), "unsigned"),
        (sign_head(SIGNER, 5, bytes(32)).replace(b"\n5\n", b"\n6\n"), "signature"),
        (sign_head(SIGNER, 0, bytes(32)), "empty"),
        (sign_head(SIGNER, 5, bytes(31)), "form"),
        (b"garbage", "form"),
        (None, "missing"),
    ],
    ids=["origin", "stranger", "same-name", "changed", "empty", "root", "garbage", "missing"],
)
def test_a_bad_head_is_refused_by_name(small: Files, note: bytes | None, name: str) -> None:
    files = {path: data for path, data in small.items() if path != "checkpoint"}
    if note is not None:
        files["checkpoint"] = note
    error = refusal(files)
    assert (error.check, error.path) == (f"checkpoint.{name}", "checkpoint")


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "hello",
        VKEY + "A",
        VKEY.replace("+", " ", 1),
        VKEY.upper(),
        VKEY.replace("fsck", "fsck2"),
        "a\ud800" + VKEY,
        "witness.example+00000000+" + base64.b64encode(b"\x04" + bytes(32)).decode(),
    ],
    ids=range(8),
)
def test_what_is_no_verifier_key_is_refused(small: Files, vkey: str) -> None:
    with pytest.raises(DecodeError, match="verifier key"):
        fsck(fetcher(small), vkey)


# -- its own limits ---------------------------------------------------------------------------------------------------


def test_a_split_needs_exactly_the_hashes_of_its_sizes() -> None:
    hashes = (bytes(32),) * 9
    for old, new, left, right in [
        (0, 5, 0, 2),
        (6, 5, 2, 0),
        (5, 2**63, 2, 9),
        (5, 7, 1, 2),
        (5, 7, 2, 1),
        (5, 7, 3, 2),
    ]:
        with pytest.raises(UsageError):
            TreeSplit(old, new, hashes[:left], hashes[:right])
    with pytest.raises(UsageError):
        TreeSplit(5, 7, (bytes(31), bytes(32)), hashes[:2])
    with pytest.raises(UsageError):
        split_tree(fetcher({}), 0, 5)
    with pytest.raises(FileRefused, match=r"tile\.missing"):
        split_tree(fetcher({}), 4, 5)


def test_files_read_ahead_come_in_order(small: Files) -> None:
    asked: list[str] = []

    def fetch_many(paths: Iterable[str]) -> Iterator[bytes | None]:
        asked.extend(paths)
        return (small.get(path) for path in asked)

    fsck(fetcher(small), VKEY, fetch_many=fetch_many)
    assert set(asked) == set(small) - {"checkpoint"}


def test_reading_ahead_is_stopped_when_a_file_is_refused(small: Files) -> None:
    stopped = []

    def fetch_many(paths: Iterable[str]) -> Iterator[bytes | None]:
        try:
            for path in paths:
                yield small[path]
        finally:
            stopped.append(path)

    with pytest.raises(RootMismatch) as caught:
        fsck(fetcher(small), VKEY, note=sign_head(SIGNER, 600, bytes(32)), fetch_many=fetch_many)
    with pytest.raises(FileRefused) as refused:
        fsck(
            fetcher(small),
            VKEY,
            note=sign_head(SIGNER, 2000, bytes(32)),
            fetch_many=lambda p: fetch_many(["tile/0/000"]),
        )
    assert (caught.value.check, refused.value.path) == ("tree.root", "tile/entries/000")
    assert stopped == ["tile/1/000.p/2", "tile/0/000"]


def test_fsck_imports_nothing_that_writes_a_log() -> None:
    allowed = {"__future__", "base64", "binascii", "hashlib", "re", "typing", "collections.abc", "dataclasses"}
    allowed |= {"cryptography.exceptions", "cryptography.hazmat.primitives.asymmetric.ed25519"}
    for module in ("fsck", "fsck_head"):
        tree = ast.parse((Path(__file__).resolve().parents[2] / "ledger" / f"{module}.py").read_text(encoding="utf-8"))
        imported = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module or "")
        assert imported <= allowed | {"ledger.errors", "ledger.fsck_head"}
