"""Processes that use a log until they are killed (SIGKILL) at a moment that the test chose.

`Killer` starts one helper process, which has imported everything and forks a child for each job; so a kill costs
milliseconds, and nothing of the test's own process (threads, locks, open files) is in a child.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from ledger import Log, MissingDependency, Signer
from ledger.note import Note
from tests.support.storages import Backend

__all__ = ["Appender", "Creator", "Job", "Kill", "Killer"]

ROOT: Final = Path(__file__).resolve().parents[2]
THREADS: Final = 3
_ATOMIC: Final = select.PIPE_BUF
"""A shorter write to a pipe arrives whole or not at all, also when its process is killed."""
_PATIENCE: Final = 30.0
"""Seconds after which a process that should have opened the log is killed anyway."""


@dataclass(frozen=True)
class Appender:
    """Opens the log and appends from several threads, one of which publishes too, reporting what was acknowledged.

    Lines: `opened`, `entry <index> <leaf hash>`, `head <note>`, `shown <note>` (hex), `failed <what>`.
    """

    backend: Backend
    origin: str
    seed: bytes
    run: int

    def __call__(self, report: Callable[[str], None]) -> None:
        signer = Signer(self.origin, self.seed)
        log = Log.on(self.backend.open(), signer.verifier, signer)
        report("opened")
        threads = [threading.Thread(target=self._work, args=(log, report, number)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _work(self, log: Log, report: Callable[[str], None], number: int) -> None:
        try:
            for i in range(10**6):
                batch = [b"run %d thread %d batch %d entry %d" % (self.run, number, i, k) for k in range(1 + i % 5)]
                report("\n".join(f"entry {at.index} {at.leaf_hash.hex()}" for at in log.append_many(batch)))
                report(f"head {log.checkpoint().hex()}")
                if number == 0:
                    report(f"shown {self._publish(log).hex()}")
        except BaseException as error:
            report(f"failed {error!r}")

    def _publish(self, log: Log) -> bytes:
        """Publish the head in two steps, as when a witness answers late."""
        witness = Signer("witness.example/kill", bytes(32))
        with log.exclusive():
            # Another process may have published this size already: its signatures must be kept.
            shown = max(log.published(), log.head(), key=lambda head: head.size)
            log.publish(shown.note)
            note = Note.parse(shown.note)
            line = witness.sign(note.text.encode())
            if line not in note.signatures:
                log.publish(Note(note.text, (*note.signatures, line)).format())
            return log.published().note


@dataclass(frozen=True)
class Creator:
    """Creates the log."""

    backend: Backend
    checkpoint: bytes

    def __call__(self, report: Callable[[str], None]) -> None:
        self.backend.create(self.checkpoint).close()
        report("created")


Job = Appender | Creator


@dataclass(frozen=True)
class Kill:
    """When to kill the process of a job: `seconds` after its start, or after it reported that it had opened the log."""

    job: Job
    seconds: float
    once_opened: bool = False


class Killer:
    """The helper process. Use as a context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.killing"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def run(self, kills: Sequence[Kill]) -> list[list[str]]:
        """Run the jobs side by side and kill each at its moment; what each had reported by then, in lines."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump(kills, self._process.stdin)
        self._process.stdin.flush()
        answer: list[list[str]] = pickle.load(self._process.stdout)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)


def _fork(job: Job) -> tuple[int, int]:
    """A child that does the job: its process id and the pipe that it reports through."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write_end)
        return pid, read_end
    status = 1
    try:
        guard = threading.Lock()

        def report(lines: str) -> None:
            data = (lines + "\n").encode()
            assert len(data) <= _ATOMIC
            with guard:
                os.write(write_end, data)

        try:
            job(report)
            status = 0
        except BaseException as error:
            report(f"failed {error!r}")
    finally:
        os._exit(status)


@dataclass
class _Child:
    pid: int
    pipe: int
    deadline: float
    kill: Kill
    output: bytes = b""
    killed: bool = False

    def read(self) -> bool:
        """Take what it reported. False when that was all."""
        data = os.read(self.pipe, 1 << 16)
        if self.kill.once_opened and b"opened\n" in data and b"opened\n" not in self.output:
            self.deadline = time.monotonic() + self.kill.seconds
        self.output += data
        return bool(data)


def _run(kills: Sequence[Kill]) -> list[list[str]]:
    children = []
    for kill in kills:
        pid, pipe = _fork(kill.job)
        children.append(_Child(pid, pipe, time.monotonic() + (_PATIENCE if kill.once_opened else kill.seconds), kill))
    alive = {child.pipe: child for child in children}
    while alive:
        wait = min(_PATIENCE if child.killed else child.deadline - time.monotonic() for child in alive.values())
        ready, _, _ = select.select(list(alive), [], [], max(0.0, wait))
        for pipe in ready:
            if not alive[pipe].read():
                os.waitpid(alive.pop(pipe).pid, 0)
                os.close(pipe)
        for child in alive.values():
            if not child.killed and child.deadline <= time.monotonic():
                os.kill(child.pid, signal.SIGKILL)  # not waited for yet, so the number is still its own
                child.killed = True
    return [child.output.decode().splitlines() for child in children]


def _serve() -> None:
    with contextlib.suppress(MissingDependency):
        importlib.import_module("ledger.storage.postgres")
    while True:
        try:
            kills: Any = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(_run(kills), sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _serve()
