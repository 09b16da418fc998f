"""Plain files: the layout that other clients read, and what damage, strangers and a second writer cannot do."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ledger import CorruptLog, Log, LogLocked, Signer, StorageError, UsageError, VerificationFailed
from ledger.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from ledger.merkle import Frontier, empty_root, leaf_hash
from ledger.storage.base import Batch
from ledger.storage.posix import PosixStorage
from ledger.tiles import EntryBundle, Tile, entry_bundles, tiles

ROOT = Path(__file__).resolve().parents[2]


def _entries(start: int, stop: int) -> list[bytes]:
    return [f"entry {i}".encode() * (i % 3) for i in range(start, stop)]


def _files(folder: Path) -> dict[str, bytes]:
    """What the world sees: everything but `.state`."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {name: path.read_bytes() for path in found if not (name := str(path.relative_to(folder))).startswith(".")}


def _plain_client(files: Callable[[str], bytes], size: int) -> tuple[list[bytes], bytes]:
    """Entries and root as a stranger computes them from entry bundles, checking each tile. From the specification."""
    path = lambda n: "/".join([*(f"x{n // 1000**k % 1000:03}" for k in range(_groups(n) - 1, 0, -1)), f"{n % 1000:03}"])  # noqa: E731
    entries: list[bytes] = []
    for n in range(-(-size // 256)):
        width = min(256, size - 256 * n)
        data = files(f"tile/entries/{path(n)}" + (f".p/{width}" if width < 256 else ""))
        while data:
            length = int.from_bytes(data[:2], "big")
            entries.append(data[2 : 2 + length])
            data = data[2 + length :]
    assert len(entries) == size
    row = [hashlib.sha256(b"\x00" + entry).digest() for entry in entries]
    level, edge = 0, []
    while row:
        if level % 8 == 0:
            for n in range(-(-len(row) // 256)):
                hashes = row[256 * n : 256 * n + 256]
                name = f"tile/{level // 8}/{path(n)}" + (f".p/{len(hashes)}" if len(hashes) < 256 else "")
                assert files(name) == b"".join(hashes), name
        if len(row) % 2:
            edge.append(row[-1])
        row = [hashlib.sha256(b"\x01" + row[i] + row[i + 1]).digest() for i in range(0, len(row) - 1, 2)]
        level += 1
    root = edge[0] if edge else hashlib.sha256(b"").digest()
    for left in edge[1:]:
        root = hashlib.sha256(b"\x01" + left + root).digest()
    return entries, root


def _groups(n: int) -> int:
    return max(1, -(-len(str(n)) // 3))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def log(folder: Path, signer: Signer, head_note: Callable[..., bytes]) -> Iterator[Log]:
    with Log.on(PosixStorage.create(folder, head_note([])), signer.verifier, signer) as log:
        yield log


@pytest.fixture
def filled(folder: Path, log: Log) -> Path:
    """A closed log of 300 entries, appended 256 + 44, and a published checkpoint of 300."""
    log.append_many(_entries(0, 256))
    log.append_many(_entries(256, 300))
    log.publish(log.checkpoint())
    log.close()
    return folder


def _open(folder: Path, signer: Signer) -> Log:
    return Log.on(PosixStorage.open(folder), signer.verifier, signer)


class TestLayout:
    @pytest.mark.parametrize("batches", [[1] * 20, [255, 1, 1], [256, 256], [100, 600, 3], [1, 1000]], ids=str)
    def test_a_plain_client_reads_every_published_tree(
        self, log: Log, folder: Path, signer: Signer, batches: Sequence[int]
    ) -> None:
        shown: list[bytes] = []
        for batch in batches:
            log.append_many(_entries(log.size, log.size + batch))
            assert (folder / "checkpoint").exists() == bool(shown)
            log.publish(log.checkpoint())
            shown.append((folder / "checkpoint").read_bytes())
            assert shown[-1] == log.checkpoint()
        for note in shown:  # also of the checkpoints of before, whose partial tiles are kept
            head = open_checkpoint(note, signer.verifier, signer.name)
            entries, root = _plain_client(lambda name: (folder / name).read_bytes(), head.size)
            assert entries == _entries(0, head.size)
            assert root == head.root

    def test_three_levels(self, log: Log, folder: Path) -> None:
        entries = [b"%d" % i for i in range(65_536 + 300)]
        log.append_many(entries[:70])
        log.append_many(entries[70:])
        _, root = _plain_client(lambda name: (folder / name).read_bytes(), len(entries))
        assert root == log.head().root
        assert (folder / "tile/2/000.p/1").stat().st_size == 32
        assert (folder / "tile/entries/257.p/44").exists()

    def test_there_is_no_file_but_those_of_the_format(self, log: Log, folder: Path) -> None:
        size, expected = 0, set()
        for batch in (3, 253, 1, 299):
            log.append_many(_entries(size, size + batch))
            expected |= {t.path for t in [*tiles(size, size + batch), *entry_bundles(size, size + batch)]}
            size += batch
        assert set(_files(folder)) == expected
        log.publish(log.checkpoint())
        assert set(_files(folder)) == {*expected, "checkpoint"}
        assert list((folder / ".state" / "tmp").iterdir()) == []

    def test_a_full_tile_is_written_once(self, log: Log, folder: Path) -> None:
        log.append_many(_entries(0, 300))
        full = [folder / Tile(0, 0).path, folder / EntryBundle(0).path]
        before = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in full]
        for i in range(300, 520):
            log.append(b"%d" % i)
        assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in full] == before

    def test_only_publishing_changes_what_is_published(self, log: Log, folder: Path) -> None:
        log.append(b"a")
        log.publish(log.checkpoint())
        published = (folder / "checkpoint").read_bytes()
        log.append(b"b")
        assert (folder / "checkpoint").read_bytes() == published
        assert log.size == 2

    def test_what_the_log_serves_is_what_lies_in_the_files(self, filled: Path, signer: Signer) -> None:
        with Log.on(PosixStorage.open_readonly(filled), signer.verifier) as reader:
            for tile in tiles(0, 300):
                assert reader.tile(tile) == (filled / tile.path).read_bytes()
            for bundle in entry_bundles(0, 300):
                assert reader.entry_bundle(bundle) == (filled / bundle.path).read_bytes()

    def test_a_copied_folder_is_the_same_log(self, filled: Path, tmp_path: Path, signer: Signer) -> None:
        copy = tmp_path / "backup with spaces?#%41"
        shutil.copytree(filled, copy)
        with _open(copy, signer) as log:
            assert list(log.entries()) == _entries(0, 300)
            log.append(b"x")
        with _open(filled, signer) as log:
            assert log.size == 300


class TestOneWriter:
    def test_a_second_writer_is_refused(self, log: Log, folder: Path, signer: Signer) -> None:
        with pytest.raises(LogLocked, match="log"):
            PosixStorage.open(folder)
        assert log.append(b"the first one goes on").index == 0
        log.close()
        log.close()
        with _open(folder, signer) as second:
            assert second.size == 1
        with pytest.raises(UsageError, match="closed"):
            log.append(b"y")
        with pytest.raises(UsageError, match="closed"):
            log.entry(0)

    def test_the_lock_goes_with_its_process(self, filled: Path, signer: Signer) -> None:
        code = (
            "import sys, time; from pathlib import Path; from ledger.storage.posix import PosixStorage\n"
            "storage = PosixStorage.open(Path(sys.argv[1])); print('open', flush=True); time.sleep(60)"
        )
        with subprocess.Popen([sys.executable, "-c", code, filled], cwd=ROOT, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"open\n"
            with pytest.raises(LogLocked):
                PosixStorage.open(filled)
            holder.kill()
        _open(filled, signer).close()

    def test_a_writer_whose_lock_file_was_deleted_stops(self, log: Log, folder: Path, signer: Signer) -> None:
        log.append(b"x")
        (folder / ".state" / "lock").unlink()
        with _open(folder, signer) as second:
            with pytest.raises(StorageError, match="replaced while it was held"):
                log.append(b"y")
            assert second.append(b"z").index == 1

    def test_a_change_behind_the_writers_back_stops_it(self, log: Log, folder: Path) -> None:
        log.append(b"x")
        (folder / ".state" / "checkpoint").write_bytes(b"0\nanother")
        with pytest.raises(StorageError, match="changed by another program"):
            log.append(b"y")

    def test_a_failed_opening_releases_the_lock(self, filled: Path, signer: Signer) -> None:
        for _ in range(2):
            with pytest.raises(VerificationFailed):
                _open(filled, Signer(signer.name, bytes(32)))
        _open(filled, signer).close()


class TestReaders:
    def test_a_reader_follows_the_writer(self, log: Log, folder: Path, signer: Signer) -> None:
        with Log.on(PosixStorage.open_readonly(folder), signer.verifier) as reader:
            for i in range(300):
                log.append(b"%d" % i)
                if i % 50 == 0:
                    log.publish(log.checkpoint())
                    assert reader.published() == log.published()
                assert reader.head() == log.head()
                assert reader.entry(i) == b"%d" % i
                assert reader.inclusion_proof(i // 2) == log.inclusion_proof(i // 2)
            assert [head.size for head in reader.publications()] == [1, 51, 101, 151, 201, 251]
            with pytest.raises(UsageError, match="reading only"):
                reader.append(b"x")

    def test_a_reader_waits_for_the_disk_before_it_shows_a_head(
        self, log: Log, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The writer may have given the file its name and not have synced the folder yet, or be dead by now."""
        reader = PosixStorage.open_readonly(folder)
        log.append(b"x")
        log.publish(log.checkpoint())

        def broken(_: Path) -> None:
            raise OSError("injected: the disk is gone")

        with monkeypatch.context() as patch:
            patch.setattr("ledger.storage.posix.fsync_folder", broken)
            with pytest.raises(StorageError, match="disk is gone"):
                reader.checkpoint()
            with pytest.raises(StorageError, match="disk is gone"):
                reader.published()
        assert reader.checkpoint() == log.checkpoint()
        reader.close()

    def test_a_reader_needs_no_right_to_write(self, filled: Path, tmp_path: Path, signer: Signer) -> None:
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        for path in [filled, *filled.rglob("*")]:
            path.chmod(0o500 if path.is_dir() else 0o400)
        with Log.on(PosixStorage.open_readonly(filled), signer.verifier) as reader:
            assert reader.size == 300


class TestWhatIsNotALog:
    def test_a_log_is_not_created_over_anything(self, filled: Path, tmp_path: Path) -> None:
        other = tmp_path / "other"
        other.mkdir()
        (other / "mine.txt").write_text("mine")
        for folder in (filled, other):
            before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
            with pytest.raises(UsageError, match="exists already"):
                PosixStorage.create(folder, b"first")
            assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
        file = tmp_path / "file"
        file.write_text("mine")
        with pytest.raises(StorageError):
            PosixStorage.create(file, b"first")
        with pytest.raises(StorageError):
            PosixStorage.create(tmp_path / "missing" / "log", b"first")

    def test_a_missing_log_is_not_created_by_opening_it(self, tmp_path: Path, filled: Path) -> None:
        mirror = tmp_path / "mirror"
        mirror.mkdir()
        for name, data in _files(filled).items():
            (mirror / name).parent.mkdir(parents=True, exist_ok=True)
            (mirror / name).write_bytes(data)
        for folder in (mirror, tmp_path / "missing", tmp_path):
            for call in (PosixStorage.open, PosixStorage.open_readonly):
                with pytest.raises(UsageError, match="no log"):
                    call(folder)
            assert not (folder / ".state").exists()

    def test_another_version_of_the_format_is_refused(self, filled: Path) -> None:
        (filled / ".state" / "format").write_text("sealproof tiles 2\n")
        for call in (PosixStorage.open, PosixStorage.open_readonly):
            with pytest.raises(UsageError, match="tiles 2"):
                call(filled)

    def test_an_empty_folder_becomes_a_log(self, folder: Path, signer: Signer, head_note: Callable[..., bytes]) -> None:
        folder.mkdir()
        with Log.on(PosixStorage.create(folder, head_note([])), signer.verifier, signer) as log:
            log.append(b"x")


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "an entry's byte": lambda f: _flip(f / "tile/entries/000"),
    "the last entry's byte": lambda f: _flip(f / "tile/entries/001.p/44"),
    "a leaf's hash": lambda f: _flip(f / "tile/0/000"),
    "the last leaf's hash": lambda f: _flip(f / "tile/0/001.p/44"),
    "a hash of level 8": lambda f: _flip(f / "tile/1/000.p/1"),
    "a bundle gone": lambda f: (f / "tile/entries/000").unlink(),
    "a tile gone": lambda f: (f / "tile/0/000").unlink(),
    "the edge gone": lambda f: (f / "tile/0/001.p/44").unlink(),
    "a short tile": lambda f: (f / "tile/0/000").write_bytes(bytes(32 * 255)),
    "an empty tile": lambda f: (f / "tile/0/000").write_bytes(b""),
    "a short bundle": lambda f: (f / "tile/entries/001.p/44").write_bytes(b"\0\0" * 43),
    "a long bundle": lambda f: (f / "tile/entries/001.p/44").write_bytes(b"\0\0" * 45),
    "a bundle cut off": lambda f: (f / "tile/entries/001.p/44").write_bytes(b"\0\0" * 43 + b"\0\x09x"),
    "a size that the checkpoint does not have": lambda f: _resize(f, b"299"),
    "a size beyond the files": lambda f: _resize(f, b"301"),
    "a size that is none": lambda f: _resize(f, b"+300"),
    "an empty state": lambda f: (f / ".state/checkpoint").write_bytes(b""),
    "a publication of another size": lambda f: _move_publication(f),
}


def _resize(folder: Path, size: bytes) -> None:
    state = folder / ".state" / "checkpoint"
    state.write_bytes(size + b"\n" + state.read_bytes().partition(b"\n")[2])


def _move_publication(folder: Path) -> None:
    (place,) = (folder / ".state" / "publications").rglob("300")
    place.rename(place.with_name("299"))


class TestDamage:
    @pytest.mark.parametrize("damage", sorted(DAMAGES))
    def test_nothing_is_signed_on_top_of_damage(self, filled: Path, signer: Signer, damage: str) -> None:
        DAMAGES[damage](filled)
        note = (filled / ".state" / "checkpoint").read_bytes()
        with pytest.raises(CorruptLog):
            _open(filled, signer)
        assert (filled / ".state" / "checkpoint").read_bytes() == note

    def test_a_reader_never_hands_out_what_does_not_hold(self, filled: Path, signer: Signer) -> None:
        with Log.on(PosixStorage.open_readonly(filled), signer.verifier) as reader:
            _flip(filled / "tile/entries/000")
            _flip(filled / "tile/0/000")
            with pytest.raises(CorruptLog):
                reader.entry(255)
            with pytest.raises(CorruptLog):
                reader.tlog_proof(254)
            assert reader.entry(299) == _entries(299, 300)[0]

    def test_damaged_bytes_are_not_copied_into_a_new_file(self, log: Log, folder: Path) -> None:
        """A partial bundle grows by being copied: what changed under the writer must not travel on."""
        log.append_many([b"one", b"two"])
        before = log.head()
        _flip(folder / "tile/entries/000.p/2")
        with pytest.raises(CorruptLog, match="do not hash"):
            log.append(b"three")
        assert not (folder / "tile/entries/000.p/3").exists()
        _flip(folder / "tile/entries/000.p/2")
        assert log.append(b"three").index == before.size

    def test_what_lies_beyond_the_head_is_written_over(self, filled: Path, signer: Signer) -> None:
        """As a crash leaves it: wider partial tiles, the next full ones, files without a name."""
        for left in ("tile/0/001.p/45", "tile/entries/001.p/45", "tile/0/001", "tile/entries/001", ".state/tmp/0"):
            (filled / left).write_bytes(b"left by a crash")
        with _open(filled, signer) as log:
            log.append(b"the entry")
            log.append_many(_entries(301, 600))
            log.publish(log.checkpoint())
            entries, root = _plain_client(lambda name: (filled / name).read_bytes(), 600)
            assert entries[300] == b"the entry"
            assert root == log.head().root
        _open(filled, signer).close()

    @pytest.mark.parametrize(
        "bad",
        ["wrong first", "node missing", "nodes swapped", "node taken", "short hash", "not bytes", "too long"],
    )
    def test_a_batch_that_does_not_continue_the_tree_writes_nothing(self, filled: Path, bad: str) -> None:
        storage = PosixStorage.open(filled)
        before, files = storage.checkpoint(), _files(filled)
        frontier = Frontier.load(300, lambda level, index: storage.nodes([(level, index)])[0])
        entries = [b"x", b"y"]
        _, nodes = frontier.extend(map(leaf_hash, entries))
        good = Batch(before, b"next", 300, entries, nodes)
        batch = {
            "wrong first": Batch(before, b"next", 299, entries, nodes),
            "node missing": Batch(before, b"next", 300, entries, nodes[1:]),
            "nodes swapped": Batch(before, b"next", 300, entries, [nodes[1], nodes[0], *nodes[2:]]),
            "node taken": Batch(before, b"next", 300, entries, [*nodes, nodes[0]]),
            "short hash": Batch(before, b"next", 300, entries, [nodes[0]._replace(hash=b"x"), *nodes[1:]]),
            "not bytes": Batch(before, b"next", 300, [b"x", None], nodes),  # type: ignore[list-item]
            "too long": Batch(before, b"next", 300, [b"x", bytes(65_536)], nodes),
        }[bad]
        with pytest.raises((StorageError, UsageError)):
            storage.commit(batch)
        assert storage.checkpoint() == before
        assert _files(filled) == files
        storage.commit(good)
        assert storage.checkpoint() == b"next"
        storage.close()


@pytest.mark.parametrize("linked", [".state", ".state/tmp"])
def test_a_folder_behind_a_link_is_not_emptied(tmp_path: Path, signer: Signer, linked: str) -> None:
    """Whoever can write into the log's folder had any other folder emptied when the log was opened."""
    first = sign_checkpoint(Checkpoint(signer.name, 0, empty_root()), signer)
    folder, other = tmp_path / "log", tmp_path / "other"
    PosixStorage.create(folder, first).close()
    (folder / linked).rename(other)
    (other / "tmp").mkdir(exist_ok=True)
    for kept in (other / "kept", other / "tmp" / "kept"):
        kept.write_bytes(b"somebody else's")
    (folder / linked).symlink_to(other)
    with pytest.raises(CorruptLog, match="is a link"):
        PosixStorage.open(folder)
    assert (other / "kept").exists()
    assert (other / "tmp" / "kept").exists()
