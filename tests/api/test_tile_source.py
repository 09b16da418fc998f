"""Files of a log over HTTP and from folders: limited in size and time, in order, and missing is not an error."""

from __future__ import annotations

import gzip
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.client.tile_source import FileTiles, HttpTiles, in_order, open_tiles, size_limit
from api.client.transport import ServerRefused, ServerUnreachable
from ledger import Signer, StorageError, UsageError
from ledger.errors import FileRefused
from ledger.fsck import fsck
from tests.support.tile_log import Answer, TileLog, serving, write

SIGNER = Signer("log.example/source", bytes(range(32)))
PATHS = ["checkpoint", "tile/0/000", "tile/0/x001/234.p/7", "tile/entries/000", "tile/entries/000.p/1"]


def quick(url: str, **options: float) -> HttpTiles:
    settings: dict[str, float] = {"timeout": 5, "retries": 2, "pause": 0.01, **options}
    return HttpTiles(url, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def log() -> TileLog:
    return TileLog(SIGNER, [b"entry %d" % i for i in range(700)])


def test_a_log_is_read_over_http_and_from_a_folder_alike(log: TileLog, tmp_path: Path) -> None:
    files = log.files()
    folder = write(tmp_path / "log", files)
    with serving(files.get) as url, open_tiles(f"{url}/") as remote, open_tiles(str(folder)) as local:
        assert (remote.name, local.name) == (url, str(folder))
        for source in (remote, local):
            assert fsck(source.fetch, log.vkey, fetch_many=source.fetch_many).size == 700
            assert list(source.fetch_many(sorted(files))) == [files[path] for path in sorted(files)]
            assert source.fetch("tile/0/999") is None
            assert source.fetch("tile/0/000.p/5") is None
    assert isinstance(remote, HttpTiles)
    assert isinstance(local, FileTiles)


@pytest.mark.parametrize(
    "path", ["", "/checkpoint", "tile/0/0", "tile/0/../../key", "tile/0/000/", "log.key", "tile/8/000"]
)
def test_only_paths_of_a_log_are_asked_for(tmp_path: Path, path: str) -> None:
    with FileTiles(tmp_path) as source, pytest.raises(UsageError, match="a log has no file"):
        source.fetch(path)


@pytest.mark.parametrize(
    "place",
    ["", "absent-folder", "ftp://x/log", "http://", "http://x/log?a=b", "https://x/#a", "http://me:secret@x/log"],
)
def test_what_is_no_place_of_a_log_is_refused(place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        open_tiles(place or "absent")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("path", PATHS)
def test_nothing_larger_than_its_path_allows_is_read(path: str, tmp_path: Path) -> None:
    limit = size_limit(path)
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1 << 16
            yield bytes(1 << 16)

    write(tmp_path, {path: bytes(limit + 1)})
    with FileTiles(tmp_path) as local, pytest.raises(FileRefused, match=r"file\.size") as caught:
        local.fetch(path)
    assert caught.value.path == path
    write(tmp_path, {path: bytes(limit)})
    with FileTiles(tmp_path) as local:
        assert local.fetch(path) == bytes(limit)
    for answer in (Answer(200, bytes(limit + 1)), Answer(200, chunks=endless())):
        with (
            serving(lambda _, a=answer: a) as url,
            quick(url) as remote,
            pytest.raises(FileRefused, match=r"file\.size"),
        ):
            remote.fetch(path)
    assert sent < limit + (8 << 20)


def test_compressed_bundles_are_read_and_bombs_are_not(log: TileLog) -> None:
    path, data = "tile/entries/000", log.files()["tile/entries/000"]
    packed, headers = gzip.compress(data), {"Content-Encoding": "gzip"}
    limit = size_limit(path)
    good = [Answer(200, packed, headers), Answer(200, chunks=iter([packed[:50], packed[50:]]), headers=headers)]
    for answer in good:
        with serving(lambda _, a=answer: a) as url, quick(url) as source:
            assert source.fetch(path) == data
    bad = {
        "file.size": [gzip.compress(bytes(limit + 1)), gzip.compress(bytes(200 << 20), 1)],
        "file.encoding": [packed[:-1], packed + b"x", packed + packed, data, b"", packed[:50] + bytes(200)],
    }
    for check, bodies in bad.items():
        for body in bodies:
            with serving(lambda _, b=body: Answer(200, b, headers)) as url, quick(url) as source:
                with pytest.raises(FileRefused) as caught:
                    source.fetch(path)
                assert (caught.value.check, caught.value.path) == (check, path)
    brotli = Answer(200, data, {"Content-Encoding": "br"})
    with serving(lambda _: brotli) as url, quick(url) as source, pytest.raises(FileRefused, match="was not asked for"):
        source.fetch(path)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(status: int) -> None:
    answers = iter(
        [Answer(status), Answer(status), Answer(200, b"head"), Answer(status), Answer(status), Answer(status)]
    )
    with serving(lambda _: next(answers)) as url, quick(url) as source:
        assert source.fetch("checkpoint") == b"head"
        with pytest.raises(ServerRefused) as caught:
            source.fetch("checkpoint")
        assert caught.value.status == status


@pytest.mark.parametrize("status", [204, 206, 301, 302, 400, 401, 403])
def test_other_answers_are_neither_a_file_nor_a_missing_one(status: int) -> None:
    asked: list[str] = []

    def answer(path: str) -> Answer:
        asked.append(path)
        return Answer(status, b"" if status == 204 else b"x", {"Location": "/elsewhere"})

    with serving(answer) as url, quick(url) as source, pytest.raises(ServerRefused) as caught:
        source.fetch("checkpoint")
    assert caught.value.status == status
    assert asked == ["checkpoint"], "no redirect is followed, nothing is repeated"


def test_a_server_that_drips_or_is_not_there_holds_nobody(log: TileLog) -> None:
    def drip() -> Iterator[bytes]:
        for _ in range(1000):
            time.sleep(0.02)
            yield b"x"

    with serving(lambda _: Answer(200, chunks=drip())) as url, quick(url, deadline=0.1, retries=0) as source:
        began = time.monotonic()
        with pytest.raises(ServerUnreachable, match="did not end in time"):
            source.fetch("checkpoint")
        assert time.monotonic() - began < 5
    with quick("http://127.0.0.1:9", retries=0) as source, pytest.raises(ServerUnreachable, match="cannot reach"):
        source.fetch("checkpoint")


@pytest.mark.parametrize("closes", [False, True])
def test_a_server_that_closes_each_connection_is_not_flooded(log: TileLog, closes: bool) -> None:
    files, now, most, lock = log.files(), 0, 0, threading.Lock()

    def answer(path: str) -> Answer:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1
        return Answer(200, files[path], {"Connection": "close"} if closes else {})

    with serving(answer) as url, quick(url) as source:
        assert source.fetch("checkpoint") == files["checkpoint"]
        assert list(source.fetch_many(["tile/0/000"] * 40)) == [files["tile/0/000"]] * 40
    assert most <= 4 if closes else most > 4


def test_reading_ahead_keeps_the_order_and_stops_when_nobody_wants_more() -> None:
    started: list[str] = []
    gate = threading.Event()

    def fetch(path: str) -> bytes:
        started.append(path)
        if path == "3":
            gate.wait(5)
        else:
            gate.set()
        return path.encode()

    names = [str(i) for i in range(50)]
    assert list(in_order(fetch, names, 4)) == [name.encode() for name in names]
    started.clear()
    some = in_order(fetch, names, 4)
    assert [next(some), next(some)] == [b"0", b"1"]
    some.close()  # type: ignore[attr-defined]
    assert len(started) <= 6


def test_an_error_of_one_file_ends_reading_ahead() -> None:
    def fetch(path: str) -> bytes:
        if path == "7":
            raise StorageError("no disk")
        return path.encode()

    with pytest.raises(StorageError):
        list(in_order(fetch, map(str, range(50)), 4))


def test_pipes_folders_and_closed_files_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "checkpoint")
    (tmp_path / "tile" / "0" / "000").mkdir(parents=True)
    with FileTiles(tmp_path) as source:
        for path in ("checkpoint", "tile/0/000"):
            with pytest.raises(FileRefused, match=r"file\.kind"):
                source.fetch(path)
        assert source.fetch("tile/0/000.p/1") is None
        write(tmp_path, {"tile/0/001": b"x"})
        (tmp_path / "tile/0/001").chmod(0)
        if os.geteuid():
            with pytest.raises(StorageError, match="cannot read"):
                source.fetch("tile/0/001")
