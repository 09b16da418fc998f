"""Prediction jobs: kept in SQLite, worked off by one thread, resumed after a restart.

    queued -> running -> done | failed
    computing -> queued, or failed                    multi-party computation

A job of multi-party computation is `computing` while the nodes of clinic and owner are at work (`api.joint_service`);
once they have delivered its proofs it is a job like any other.

A job becomes one prediction entry at most, whatever is interrupted and whenever: the signed entry is stored with the
job **before** it is appended, and a job that has an entry looks for it in the log before it appends it. A job that has
none yet is simply worked again, since nothing of the earlier attempt was shown to anyone, unless the server ended
during each of a few attempts.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from api.database import Database
from api.errors import Conflict, NotFound, NotReady, Problem, RateLimited, describe
from ledger.errors import StorageError

__all__ = ["Job", "JobStore", "JobWorker", "Session", "Stopped", "Work"]

State = Literal["computing", "queued", "running", "done", "failed"]

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, clinic INTEGER NOT NULL,
        records INTEGER NOT NULL, model INTEGER NOT NULL, nonce TEXT NOT NULL, state TEXT NOT NULL,
        done INTEGER NOT NULL, total INTEGER NOT NULL, entry BLOB, prediction INTEGER UNIQUE, attestation BLOB,
        error TEXT, UNIQUE (clinic, nonce)) STRICT""",
    "CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state)",
    "CREATE TABLE IF NOT EXISTS starts (id TEXT PRIMARY KEY, count INTEGER NOT NULL) STRICT",
    """CREATE TABLE IF NOT EXISTS sessions (
        id TEXT PRIMARY KEY, owner INTEGER NOT NULL, size INTEGER NOT NULL, root BLOB NOT NULL, note BLOB NOT NULL,
        offered INTEGER NOT NULL, session BLOB UNIQUE, result BLOB, sealed BLOB) STRICT""",
)
_PENDING: Final = "state IN ('computing', 'queued', 'running')"
_IF_COMPUTING: Final = "WHERE id = ? AND state = 'computing'"
_PROGRESS_SECONDS: Final = 0.2
_RETRY_SECONDS: Final = 5.0
_MOST_STARTS: Final = 3
"""A job during which the server ended that often, killed for memory for instance, is not tried again: all others wait
behind it."""
_LOGGER: Final = logging.getLogger("sealproof.jobs")


class Stopped(BaseException):
    """The server stops: the job in hand is left as it is. No error of the job, so not an Exception."""


@dataclass(frozen=True)
class Job:
    """A job as it is stored. `clinic` is the index of its party entry; `entry` and `attestation` come with time."""

    id: str
    clinic: int
    records: int
    model: int
    nonce: str
    state: State
    done: int
    total: int
    entry: bytes | None
    prediction: int | None
    attestation: bytes | None
    error: dict[str, Any] | None


@dataclass(frozen=True)
class Session:
    """What a job of multi-party computation has beyond other jobs.

    `owner` is the index of the model owner's party entry. `size`, `root` and `note` are the ledger head that the
    prediction will name. `offered`: both nodes were told to begin. `result` and `sealed` are what they delivered.
    """

    owner: int
    size: int
    root: bytes
    note: bytes = field(repr=False)
    offered: bool
    result: bytes | None = field(repr=False)
    sealed: bytes | None = field(repr=False)


def _job(row: sqlite3.Row) -> Job:
    fields = {name: row[name] for name in Job.__dataclass_fields__}
    return Job(**{**fields, "error": None if row["error"] is None else json.loads(row["error"])})


def _session(row: sqlite3.Row) -> Session:
    fields = {name: row[name] for name in Session.__dataclass_fields__}
    return Session(**{**fields, "offered": bool(row["offered"])})


def _told(problem: Problem) -> str:
    return json.dumps(problem.to_json()["error"])


class JobStore:
    """The jobs on disk. Safe to use from many threads."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _SCHEMA)

    def add(self, clinic: int, records: int, model: int, nonce: str, total: int, most_waiting: int) -> Job:
        """A new job.

        Raises Conflict if the clinic used the nonce before (see `find`), RateLimited if `most_waiting` of its jobs
        wait or run already; nothing is stored then.
        """
        with self._database.transaction() as connection:
            job_id = _insert(connection, (clinic, records, model, nonce, "queued", 0, total), most_waiting)
        return self.get(job_id)

    def add_joint(
        self,
        clinic: int,
        owner: int,
        records: int,
        model: int,
        nonce: str,
        total: int,
        head: tuple[int, bytes, bytes],
        most_waiting: int,
    ) -> Job:
        """A new job of multi-party computation, under the ledger head (size, root, note). Raises as `add` does."""
        with self._database.transaction() as connection:
            job_id = _insert(connection, (clinic, records, model, nonce, "computing", 0, total), most_waiting)
            connection.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, 0, NULL, NULL, NULL)", (job_id, owner, *head)
            )
        return self.get(job_id)

    def find(self, clinic: int, nonce: str) -> Job | None:
        """The job that this clinic asked for with this nonce, or None."""
        rows = self._database.rows("SELECT * FROM jobs WHERE clinic = ? AND nonce = ?", (clinic, nonce))
        return _job(rows[0]) if rows else None

    def get(self, job_id: str) -> Job:
        """The job with this id. Raises NotFound."""
        rows = self._database.rows("SELECT * FROM jobs WHERE id = ?", (job_id,))
        if not rows:
            raise NotFound("there is no such job")
        return _job(rows[0])

    def of_prediction(self, index: int) -> Job:
        """The finished job whose prediction is ledger entry `index`. Raises NotFound."""
        rows = self._database.rows("SELECT * FROM jobs WHERE prediction = ? AND state = 'done'", (index,))
        if not rows:
            raise NotFound(f"entry {index} is not a prediction of this server")
        return _job(rows[0])

    def unfinished(self) -> list[Job]:
        """Jobs that wait for the server or run, oldest first."""
        query = "SELECT * FROM jobs WHERE state IN ('queued', 'running') ORDER BY number"
        return [_job(row) for row in self._database.rows(query)]

    def pending(self, *, joint: bool) -> list[Job]:
        """Jobs that may still become a prediction: those of multi-party computation, or all others."""
        query = f"SELECT * FROM jobs WHERE {_PENDING} AND (id IN (SELECT id FROM sessions)) = ? ORDER BY number"  # noqa: S608
        return [_job(row) for row in self._database.rows(query, (int(joint),))]

    def computing(self) -> list[tuple[Job, Session]]:
        """Jobs that wait for the nodes of their parties, oldest first."""
        query = "SELECT * FROM jobs JOIN sessions USING (id) WHERE state = 'computing' ORDER BY number"
        return [(_job(row), _session(row)) for row in self._database.rows(query)]

    def session(self, job_id: str) -> Session | None:
        """What a job of multi-party computation has beyond others; None for any other job."""
        rows = self._database.rows("SELECT * FROM sessions WHERE id = ?", (job_id,))
        return _session(rows[0]) if rows else None

    def count(self) -> int:
        """How many jobs there are, finished ones included."""
        return int(self._database.rows("SELECT count(*) FROM jobs")[0][0])

    def start(self, job_id: str) -> int:
        """The job is running, from the beginning; how often it was started before and neither ended nor withdrawn."""
        with self._database.transaction() as connection:
            connection.execute("UPDATE jobs SET state = 'running', done = 0 WHERE id = ?", (job_id,))
            connection.execute("INSERT INTO starts VALUES (?, 0) ON CONFLICT (id) DO NOTHING", (job_id,))
            before = int(connection.execute("SELECT count FROM starts WHERE id = ?", (job_id,)).fetchone()[0])
            connection.execute("UPDATE starts SET count = count + 1 WHERE id = ?", (job_id,))
        return before

    def withdraw_start(self, job_id: str) -> None:
        """The last start does not count: the job was put off in good order."""
        with self._database.transaction() as connection:
            connection.execute("UPDATE starts SET count = count - 1 WHERE id = ?", (job_id,))

    def progress(self, job_id: str, done: int) -> None:
        """How far the job is."""
        self._update(job_id, "done = ?", (done,))

    def keep_entry(self, job_id: str, entry: bytes) -> None:
        """Store the signed prediction entry, durably, before it is appended to the log."""
        self._update(job_id, "entry = ?", (entry,))

    def finish(self, job_id: str, prediction: int, attestation: bytes) -> None:
        """The job is done: its entry is number `prediction` of the log."""
        change = "state = 'done', done = total, prediction = ?, attestation = ?"
        self._update(job_id, change, (prediction, attestation))

    def fail(self, job_id: str, problem: Problem) -> None:
        """The job has failed, for this reason."""
        self._update(job_id, "state = 'failed', error = ?", (_told(problem),))

    def offer(self, job_id: str) -> None:
        """Both nodes of a computing job are told to begin."""
        with self._database.transaction() as connection:
            connection.execute("UPDATE sessions SET offered = 1 WHERE id = ?", (job_id,))

    def deliver(self, job_id: str, session: bytes, result: bytes, sealed: bytes) -> bool:
        """A computing job is queued, with what its nodes delivered; False, and nothing changed, for any other.

        Raises Conflict if this session was delivered for another job: two jobs would become the same entry.
        """
        with self._database.transaction() as connection:
            changed = connection.execute(f"UPDATE jobs SET state = 'queued' {_IF_COMPUTING}", (job_id,))  # noqa: S608
            if not changed.rowcount:
                return False
            query = "UPDATE sessions SET session = ?, result = ?, sealed = ? WHERE id = ?"
            try:
                connection.execute(query, (session, result, sealed, job_id))
            except sqlite3.IntegrityError:
                raise Conflict("this session was delivered for another job") from None
        return True

    def break_off(self, job_id: str, problem: Problem) -> bool:
        """A computing job has failed, for this reason; False, and nothing changed, for any other."""
        with self._database.transaction() as connection:
            query = f"UPDATE jobs SET state = 'failed', error = ? {_IF_COMPUTING}"  # noqa: S608
            return bool(connection.execute(query, (_told(problem), job_id)).rowcount)

    def _update(self, job_id: str, change: str, values: tuple[Any, ...]) -> None:
        with self._database.transaction() as connection:
            # `change` is one of the constants above, never input.
            connection.execute(f"UPDATE jobs SET {change} WHERE id = ?", (*values, job_id))  # noqa: S608

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _insert(connection: sqlite3.Connection, job: tuple[Any, ...], most_waiting: int) -> str:
    clinic, job_id = job[0], secrets.token_hex(16)
    waiting = f"SELECT count(*) FROM jobs WHERE clinic = ? AND {_PENDING}"  # noqa: S608
    if connection.execute(waiting, (clinic,)).fetchone()[0] >= most_waiting:
        raise RateLimited(f"{most_waiting} jobs of this clinic are waiting", retry_after=10)
    try:
        connection.execute(
            "INSERT INTO jobs (id, clinic, records, model, nonce, state, done, total) VALUES (?,?,?,?,?,?,?,?)",
            (job_id, *job),
        )
    except sqlite3.IntegrityError:
        raise Conflict("this clinic made a prediction with this nonce before") from None
    return job_id


class Work(Protocol):
    """What a job consists of."""

    def compute(self, job: Job, progress: Callable[[int], None]) -> bytes:
        """Evaluate and prove, or verify what was delivered; the signed prediction entry, its blobs being stored."""

    def publish(self, job: Job, entry: bytes) -> tuple[int, bytes]:
        """Append the entry unless it is in the log already; its index, and the attestation."""


class JobWorker:
    """The thread that works jobs off, oldest first.

    It looks for new ones when it is woken, and every `poll` seconds where other processes may add some.
    """

    def __init__(self, store: JobStore, work: Work, poll: float | None = None) -> None:
        self._store = store
        self._work = work
        self._poll = poll
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="sealproof-jobs", daemon=True)

    def start(self) -> None:
        """Begin with what was left of the last run."""
        self._thread.start()

    def wake(self) -> None:
        """There may be a new job."""
        self._wake.set()

    def stop(self, timeout: float = 60.0) -> None:
        """Stop at the next step of the job in hand, which is resumed at the next start."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                jobs = self._store.unfinished()
                if not jobs:
                    self._wake.wait(self._poll)
                    continue
                self._do(jobs[0])
            except Stopped:
                return
            except Exception:
                # The disk failed, perhaps with the entry half-way into the log: only looking again can tell.
                _LOGGER.exception("a job could not be stored; it is tried again")
                self._wake.wait(_RETRY_SECONDS)

    def _do(self, job: Job) -> None:
        before = self._store.start(job.id)
        entry = job.entry
        try:
            if entry is None:
                if before >= _MOST_STARTS:
                    raise NotReady(f"the server ended {before} times while it worked on this; it is not tried again")
                entry = self._work.compute(job, self._progress(job))
                self._store.keep_entry(job.id, entry)
            index, attestation = self._work.publish(job, entry)
        except (StorageError, sqlite3.Error, Stopped):
            # Not the job's fault, and whether the entry was appended is unknown: the job stays as it is.
            with contextlib.suppress(sqlite3.Error):
                self._store.withdraw_start(job.id)
            raise
        except Exception as error:
            self._fail(job, error)
        else:
            self._store.finish(job.id, index, attestation)

    def _fail(self, job: Job, error: Exception) -> None:
        problem = describe(error)
        foreseen = problem.incident is None
        _LOGGER.error("a job of party %d failed: %s", job.clinic, problem.message, exc_info=None if foreseen else error)
        self._store.fail(job.id, problem)

    def _progress(self, job: Job) -> Callable[[int], None]:
        last = 0.0

        def report(done: int) -> None:
            nonlocal last
            if self._stopping:
                raise Stopped
            now = time.monotonic()
            if now - last >= _PROGRESS_SECONDS:
                last = now
                self._store.progress(job.id, done)

        return report
