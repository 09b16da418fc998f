"""A mirror is at every moment a log whose every file was checked, whatever its source does and whenever it stops."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from api.client.log_evidence import check_evidence
from api.client.log_mirror import mirror_log
from api.client.state_folder import StateFolder
from api.client.tile_source import FileTiles, HttpTiles
from api.client.transport import ServerUnreachable
from api.client.trust import TrustedLog, parse_trust
from ledger import Fork, InconsistentGrowth, Rollback, Signer, StorageError, VerificationFailed
from ledger.cosignature import Cosigner, with_cosignatures
from ledger.errors import FileRefused, RootMismatch
from ledger.fsck import fsck
from ledger.note import Note
from tests.support.tile_log import TileLog, folder_fetcher, serving, sign_head, write

SIGNER = Signer("log.example/mirrored", bytes(range(32)))
LOG = TrustedLog(SIGNER.verifier)
Files = dict[str, bytes]


class Memory:
    """A view of a log in memory; counts what is read, and may stop answering after so many files."""

    name = "memory"

    def __init__(self, files: Files, last: int | None = None) -> None:
        self.files = files
        self.asked: list[str] = []
        self._left = last

    def fetch(self, path: str) -> bytes | None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise ServerUnreachable("gone")
        self.asked.append(path)
        return self.files.get(path)

    def fetch_many(self, paths: Iterable[str]) -> Iterator[bytes | None]:
        return map(self.fetch, paths)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def log() -> TileLog:
    return TileLog(SIGNER, [b"entry %d" % i for i in range(66_000)])


@pytest.fixture
def lying(log: TileLog) -> TileLog:
    """The same with an old entry rewritten."""
    return TileLog(SIGNER, [*log.entries[:17], b"rewritten", *log.entries[18:2000]])


def shown(folder: Path) -> Files:
    """What a server of static files would show, hidden files aside."""
    paths = [p.relative_to(folder) for p in folder.rglob("*") if p.is_file()]
    return {str(p): (folder / p).read_bytes() for p in paths if not p.parts[0].startswith(".")}


def passes(folder: Path, log: TileLog, size: int) -> None:
    report = fsck(folder_fetcher(folder), log.vkey)
    assert (report.size, report.root) == (size, log.root(size))


def test_a_copy_is_the_log_itself_and_grows_with_it(log: TileLog, tmp_path: Path) -> None:
    folder = tmp_path / "copies" / "log"
    sizes = [0, 1, 255, 256, 300, 511, 700, 1999, 65_536, 66_000]
    before = 0
    for size in sizes:
        source = Memory(log.files(size))
        done = mirror_log(source, LOG, folder)
        assert (done.head.size, done.head.root, done.since) == (size, log.root(size), before)
        assert log.files(size).items() <= shown(folder).items()
        passes(folder, log, size)
        assert not [path for path in source.asked if path.startswith("tile/0/") and _full_before(path, before)]
        before = size
    # Partial files were dropped when the full ones came.
    partial = {path for path in shown(folder) if ".p/" in path}
    assert partial == {path for path in log.files(66_000) if ".p/" in path}
    assert not (folder / ".mirror" / "incoming").exists()


def _full_before(path: str, size: int) -> bool:
    return ".p/" not in path and (int(path.removeprefix("tile/0/").replace("x", "").replace("/", "")) + 1) * 256 < size


def test_a_copy_made_over_http_can_be_copied_again(log: TileLog, tmp_path: Path) -> None:
    files = log.files(3000)
    steps: list[tuple[int, int]] = []
    with serving(files.get) as url, HttpTiles(url) as source:
        mirror_log(source, LOG, tmp_path / "one", lambda done, total: steps.append((done, total)))
    assert steps[-1] == (3000, 3000)
    with FileTiles(tmp_path / "one") as source:
        mirror_log(source, LOG, tmp_path / "two")
    assert shown(tmp_path / "two") == files


def test_an_interrupted_copy_shows_the_old_head_and_goes_on_where_it_stopped(log: TileLog, tmp_path: Path) -> None:
    mirror_log(Memory(log.files(600)), LOG, tmp_path)
    old = shown(tmp_path)
    with pytest.raises(ServerUnreachable):
        mirror_log(Memory(log.files(40_000), last=100), LOG, tmp_path)
    assert shown(tmp_path) == old
    with pytest.raises(ServerUnreachable):
        mirror_log(Memory(log.files(41_000), last=100), LOG, tmp_path)
    assert shown(tmp_path) == old
    rest = Memory(log.files(41_000))
    mirror_log(rest, LOG, tmp_path)
    assert len(rest.asked) < len(log.files(41_000)) - 130
    passes(tmp_path, log, 41_000)


def test_stopped_after_any_write_it_is_still_a_log(
    log: TileLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends at every single step that changes a name; nothing is repaired by hand before the next run."""

    class Killed(BaseException):
        pass

    real = Path.replace
    steps = 0
    while True:
        folder = tmp_path / str(steps)
        mirror_log(Memory(log.files(300)), LOG, folder)
        left = steps

        def replace(self: Path, target: Path) -> Path:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return real(self, target)

        monkeypatch.setattr(Path, "replace", replace)
        try:
            mirror_log(Memory(log.files(600)), LOG, folder)
        except Killed:
            finished = False
        else:
            finished = True
        monkeypatch.setattr(Path, "replace", real)
        passes(folder, log, 300 if not finished and b"\n300\n" in (folder / "checkpoint").read_bytes() else 600)
        mirror_log(Memory(log.files(700)), LOG, folder)
        passes(folder, log, 700)
        steps += 1
        if finished:
            break
    assert steps > 10


LEFT: dict[str, Callable[[bytes], bytes]] = {
    "damaged": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "empty": lambda data: b"",
    "huge": lambda data: data * 1000,
}


@pytest.mark.parametrize("damage", LEFT)
@pytest.mark.parametrize("kind", ["0", "entries"])
def test_what_an_earlier_run_left_is_not_trusted(log: TileLog, tmp_path: Path, damage: str, kind: str) -> None:
    with pytest.raises(ServerUnreachable):
        mirror_log(Memory(log.files(2000), last=12), LOG, tmp_path)
    left = tmp_path / ".mirror" / "incoming" / "tile" / kind / "001"
    left.write_bytes(LEFT[damage](left.read_bytes()))
    mirror_log(Memory(log.files(2000)), LOG, tmp_path)
    assert shown(tmp_path) == log.files(2000)


def test_what_a_lying_source_left_does_not_stand_in_the_way_of_an_honest_one(
    log: TileLog, lying: TileLog, tmp_path: Path
) -> None:
    with pytest.raises(RootMismatch, match=r"tree\.root"):
        mirror_log(Memory({**lying.files(2000), "checkpoint": log.note(2000)}), LOG, tmp_path)
    assert shown(tmp_path) == {}
    mirror_log(Memory(log.files(2000)), LOG, tmp_path)
    assert shown(tmp_path) == log.files(2000)


def refused(source: Memory, folder: Path, check: str) -> VerificationFailed:
    """A run that is refused by that check and changes nothing."""
    before = shown(folder)
    with pytest.raises(VerificationFailed) as caught:
        mirror_log(source, LOG, folder)
    assert caught.value.check == check
    assert shown(folder) == before
    return caught.value


def evidence(folder: Path) -> list[Path]:
    return sorted((folder / ".mirror" / "evidence").glob("*"))


def test_a_log_that_contradicts_the_copy_is_refused_and_convicted(log: TileLog, lying: TileLog, tmp_path: Path) -> None:
    mirror_log(Memory(log.files(1000)), LOG, tmp_path)
    assert isinstance(refused(Memory({"checkpoint": lying.note(1000)}), tmp_path, "monitor.fork"), Fork)
    assert isinstance(refused(Memory(lying.files(2000)), tmp_path, "monitor.consistency"), InconsistentGrowth)
    assert len(evidence(tmp_path)) == 2
    for folder in evidence(tmp_path):
        assert "signed" in check_evidence(folder, SIGNER.verifier)
    assert isinstance(refused(Memory(log.files(999)), tmp_path, "monitor.rollback"), Rollback)
    assert len(evidence(tmp_path)) == 3
    mirror_log(Memory(log.files(2000)), LOG, tmp_path)
    passes(tmp_path, log, 2000)


def test_files_that_are_not_the_heads_are_refused(log: TileLog, tmp_path: Path) -> None:
    mirror_log(Memory(log.files(500)), LOG, tmp_path)
    files = log.files(1000)
    lies: list[tuple[Files, str]] = [
        ({**files, "tile/entries/002": files["tile/entries/001"]}, "entries.hash"),
        ({**files, "tile/0/002": files["tile/0/001"]}, "tile.hash"),
        ({p: d for p, d in files.items() if p != "tile/1/000.p/3"}, "tile.missing"),
        ({**files, "tile/entries/003.p/232": b"garbage"}, "entries.form"),
        ({**files, "checkpoint": b"garbage"}, "checkpoint.form"),
        ({p: d for p, d in files.items() if p != "checkpoint"}, "checkpoint.missing"),
        ({**files, "checkpoint": sign_head(SIGNER, 1000, bytes(32))}, "tree.root"),
        ({**files, "checkpoint": sign_head(Signer("other.example", bytes(32)), 1000, bytes(32))}, "note.unsigned"),
        ({**files, "checkpoint": sign_head(SIGNER, 1000, bytes(32), origin="other.example")}, "checkpoint.origin"),
    ]
    for lie, check in lies:
        refused(Memory(lie), tmp_path, check)
        assert evidence(tmp_path) == []
    mirror_log(Memory(files), LOG, tmp_path)


def test_a_policy_is_asked_before_anything_gets_a_name(log: TileLog, tmp_path: Path) -> None:
    witness = Cosigner.generate("w.example")
    (trusted,) = parse_trust(f"log {SIGNER.verifier}\nwitness w {witness.verifier}\nquorum w\n")
    files = log.files(1000)
    with pytest.raises(VerificationFailed, match=r"policy\.quorum"):
        mirror_log(Memory(files), trusted, tmp_path)
    assert shown(tmp_path) == {}
    text = Note.parse(files["checkpoint"]).text.encode()
    cosigned = with_cosignatures(files["checkpoint"], [witness.cosign(text, 1_700_000_000)])
    source = Memory({**files, "checkpoint": cosigned})
    mirror_log(source, trusted, tmp_path)
    assert (tmp_path / "checkpoint").read_bytes() == cosigned
    assert source.asked.count("tile/entries/000") == 0, "what was read before the refusal is not read again"


def test_the_same_head_again_may_bring_cosignatures_and_never_loses_them(log: TileLog, tmp_path: Path) -> None:
    files = log.files(5)
    bare = files["checkpoint"]
    text = Note.parse(bare).text.encode()
    one, two = (Cosigner.generate(f"w{i}.example") for i in (1, 2))
    more = with_cosignatures(bare, [one.cosign(text, 7)])
    most = with_cosignatures(more, [two.cosign(text, 9)])
    other = with_cosignatures(bare, [two.cosign(text, 9)])
    for note, kept in [(bare, bare), (more, more), (bare, more), (most, most), (other, most), (more, most)]:
        done = mirror_log(Memory({**files, "checkpoint": note}), LOG, tmp_path)
        assert (done.since, done.files) == (5, 0) or note is bare
        assert (tmp_path / "checkpoint").read_bytes() == kept


def test_a_folder_with_another_logs_copy_is_left_alone(log: TileLog, tmp_path: Path) -> None:
    other = TileLog(Signer("other.example/log", bytes(32)), [b"x"])
    write(tmp_path, other.files())
    with pytest.raises(VerificationFailed, match=r"note\.unsigned"):
        mirror_log(Memory(log.files(5)), LOG, tmp_path)
    assert shown(tmp_path) == other.files()


def test_two_runs_do_not_write_at_a_time(log: TileLog, tmp_path: Path) -> None:
    with StateFolder(tmp_path / ".mirror").locked(), pytest.raises(StorageError, match="another process"):
        mirror_log(Memory(log.files(5)), LOG, tmp_path)
    mirror_log(Memory(log.files(5)), LOG, tmp_path)


def test_a_folder_that_cannot_be_written_is_an_error_of_the_environment(log: TileLog, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError):
        mirror_log(Memory(log.files(5)), LOG, tmp_path / "file" / "log")
    (tmp_path / "tile").write_bytes(b"in the way")
    with pytest.raises(StorageError):
        mirror_log(Memory(log.files(5)), LOG, tmp_path)
    assert not (tmp_path / "checkpoint").exists()


def test_a_source_without_partial_files_gives_a_copy_with_them(log: TileLog, tmp_path: Path) -> None:
    note = log.note(700)
    grown = {**log.files(66_000), "checkpoint": note}
    mirror_log(Memory(grown), LOG, tmp_path)
    assert shown(tmp_path) == log.files(700)


def test_a_partial_file_that_its_successor_contradicts_is_refused(log: TileLog, lying: TileLog, tmp_path: Path) -> None:
    files = {**log.files(200), "tile/0/000": lying.files(2000)["tile/0/000"]}
    error = refused(Memory(files), tmp_path, "tile.full")
    assert isinstance(error, FileRefused)
    assert error.path == "tile/0/000"


def test_roots_are_those_of_the_format() -> None:
    assert base64.b64encode(TileLog(SIGNER).root()).startswith(b"47DEQpj8HBSa")
