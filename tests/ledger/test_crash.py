"""Killed or cut off at any moment, a log keeps every acknowledged entry and never has two heads."""

from __future__ import annotations

import base64
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ledger import Log, Signer, UsageError, follow, leaf_hash, open_checkpoint
from ledger.merkle import Frontier

ROOT = Path(__file__).resolve().parents[2]
APPENDER = """
import base64, sys
from pathlib import Path
from ledger import Log, Signer

path, key, run = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
with Log.open(path, Signer.load(key)) as log:
    print("ready", flush=True)
    number = 0
    while True:
        batch = [f"run {run} entry {number + i}".encode() for i in range(1 + number % 7)]
        number += len(batch)
        appended = log.append_many(batch)
        for entry, at in zip(batch, appended):
            print("entry", at.index, base64.b64encode(entry).decode())
        print("head", base64.b64encode(log.checkpoint()).decode(), flush=True)
"""


def _append_until_killed(path: Path, key: Path, run: int, seconds: float) -> tuple[dict[int, bytes], list[bytes]]:
    """What an appender acknowledged before SIGKILL: its entries by index, and the heads it showed."""
    process = subprocess.Popen(
        [sys.executable, "-c", APPENDER, str(path), str(key), str(run)], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    timer = time.monotonic() + seconds
    lines = []
    while time.monotonic() < timer:
        lines.append(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    lines += process.stdout.read().split(b"\n")
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    entries, heads = {}, []
    for line in lines:
        words = line.split()
        # The last line may be cut off: count what was surely shown only.
        if words[:1] == [b"entry"] and len(words) == 3 and len(words[2]) % 4 == 0:
            entries[int(words[1])] = base64.b64decode(words[2])
        if words[:1] == [b"head"] and len(words) == 2 and len(words[1]) % 4 == 0:
            heads.append(base64.b64decode(words[1]))
    return entries, heads


def _kill_and_check(tmp_path: Path, runs: int) -> None:
    rng = random.Random(runs)
    path, key = tmp_path / "log.db", tmp_path / "key"
    signer = Signer.generate("ledger.example/crash")
    signer.save(key)
    Log.create(path, signer).close()
    acknowledged: dict[int, bytes] = {}
    head = None
    for run in range(runs):
        entries, heads = _append_until_killed(path, key, run, rng.uniform(0.05, 0.3))
        assert len(entries) > 0
        assert not acknowledged.keys() & entries.keys(), "no index was given out twice"
        acknowledged |= entries
        with Log.open(path, signer) as log:
            stored = list(log.entries())
            assert all(stored[i] == entry for i, entry in acknowledged.items()), "an acknowledged entry was lost"
            for note in [*heads, log.checkpoint()]:
                size = open_checkpoint(note, signer.verifier, signer.name).size
                proof = log.consistency_proof(head.size, size) if head else []
                head = follow(head, note, proof, signer.verifier, signer.name)
            assert head is not None
            assert head.size == len(stored)
            # The killed batch is there wholly or not at all, and nothing else beyond what was acknowledged.
            assert 0 <= len(stored) - len(acknowledged) <= 7 * (run + 1)
            frontier, _ = Frontier().extend(leaf_hash(e) for e in stored)
            assert frontier.root() == head.root


def test_a_killed_appender_loses_nothing_acknowledged(tmp_path: Path) -> None:
    _kill_and_check(tmp_path, 2)


@pytest.mark.slow
def test_ten_killed_appenders_lose_nothing_acknowledged(tmp_path: Path) -> None:
    _kill_and_check(tmp_path, 10)


def test_a_power_cut_leaves_the_old_head_or_the_new_one(tmp_path: Path, signer: Signer) -> None:
    """The write-ahead log cut off at any byte: what reached the disk before the cut is a head that was signed."""
    path, notes, ends = tmp_path / "log.db", [], []
    wal = Path(f"{path}-wal")
    with Log.create(path, signer) as log:
        for i in range(12):
            notes.append(log.checkpoint())
            ends.append(wal.stat().st_size)
            log.append_many([f"entry {i}.{k}".encode() * 50 for k in range(1 + i % 4)])
        notes.append(log.checkpoint())
        ends.append(wal.stat().st_size)
        database, journal = path.read_bytes(), wal.read_bytes()
    rng = random.Random(5)
    cuts = sorted({*ends, *(e - 1 for e in ends), *(rng.randrange(len(journal)) for _ in range(40))})
    seen = set()
    for cut in cuts:
        folder = tmp_path / f"cut{cut}"
        folder.mkdir()
        (folder / "log.db").write_bytes(database)
        (folder / "log.db-wal").write_bytes(journal[:cut])
        expected = max((i for i, end in enumerate(ends) if end <= cut), default=None)
        if expected is None:
            # Not even the creation had returned.
            with pytest.raises(UsageError, match="not a log"):
                Log.open(folder / "log.db", signer)
        else:
            with Log.open(folder / "log.db", signer) as log:
                assert log.checkpoint() == notes[expected]
                log.append(b"and it goes on")
            seen.add(expected)
        shutil.rmtree(folder)
    assert seen == set(range(13))


def test_a_damaged_write_ahead_log_never_yields_a_mixture(tmp_path: Path, signer: Signer) -> None:
    """A sector that did not reach the disk: the head is an earlier one, whole, or the opening is refused."""
    path = tmp_path / "log.db"
    wal = Path(f"{path}-wal")
    with Log.create(path, signer) as log:
        notes = [log.checkpoint()]
        for i in range(6):
            log.append_many([f"entry {i}.{k}".encode() * 100 for k in range(3)])
            notes.append(log.checkpoint())
        database, journal = path.read_bytes(), wal.read_bytes()
    rng = random.Random(6)
    for number in range(25):
        folder = tmp_path / f"damage{number}"
        folder.mkdir()
        at = rng.randrange(0, len(journal) - 512) // 512 * 512
        (folder / "log.db").write_bytes(database)
        (folder / "log.db-wal").write_bytes(journal[:at] + bytes(512) + journal[at + 512 :])
        try:
            with Log.open(folder / "log.db", signer) as log:
                assert log.checkpoint() in notes
        except UsageError as error:
            assert "not a log" in str(error)
        shutil.rmtree(folder)
