"""Jobs survive whatever happens to the server, and never log two predictions."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from api.blobs import BlobStore
from api.entries import Party, Prediction, Reference
from api.errors import BlobDamaged, Conflict, NotFound, RateLimited, StorageFull
from api.jobs import Job, JobStore, JobWorker
from api.service import Service
from api.settings import Settings
from ledger.errors import StorageError
from privacy.bundle import BundleReader
from privacy.errors import VerificationFailed
from tests.api.conftest import (
    CLINIC,
    Caller,
    Running,
    Upload,
    with_data,
)

NONCE = "ab" * 32


@pytest.fixture(scope="module")
def prepared(
    service: Running, clinic_party: Caller, upload_cohort: Upload, model_entry: Reference
) -> tuple[Settings, int, int]:
    """A server's folder with records to predict on: settings, index of the records, index of the model."""
    records = clinic_party.submit(upload_cohort(3).body)
    return service.settings, records.index, model_entry.index


@pytest.fixture
def stopped(prepared: tuple[Settings, int, int], service: Running, tmp_path: Path) -> Iterator[tuple[Service, Job]]:
    """A copy of that server whose worker was never started, and a queued job on it."""
    source, records, model = prepared
    copy = with_data(source, tmp_path / "data")
    shutil.copytree(source.data, copy.data)
    found = Service(copy)
    clinic = found.registry.party_named(CLINIC)
    assert clinic is not None
    job = found.request_prediction(clinic, records, model, bytes.fromhex(NONCE))
    yield found, job
    found.close()


def predictions(service: Service) -> list[int]:
    return [p.reference.index for p in service.registry.all(Prediction)]


def restart(service: Service) -> Service:
    service.close()
    again = Service(service.settings)
    again.start()
    return again


def finish(service: Service, job: Job) -> Job:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = service.jobs.get(job.id)
        if found.state in ("done", "failed"):
            return found
        time.sleep(0.02)
    raise TimeoutError


def check_done(service: Service, job: Job, before: int) -> None:
    """One prediction more, and its bundle is there."""
    found = finish(service, job)
    assert found.error is None
    assert predictions(service) == [before]
    assert found.prediction == before
    path = service.bundle(before, inputs=False)
    with BundleReader(path) as bundle:
        bundle.check()
    service.close()


def compute(service: Service, job: Job) -> bytes:
    service.jobs.start(job.id)
    return service.compute(job, lambda done: None)


def test_a_queued_job_is_done_after_a_restart(stopped: tuple[Service, Job]) -> None:
    service, job = stopped
    check_done(restart(service), job, service.log.size)


def test_a_running_job_starts_again(stopped: tuple[Service, Job]) -> None:
    service, job = stopped
    compute(service, job)  # and the machine goes down before anything was kept
    check_done(restart(service), job, service.log.size)


def test_killed_before_the_append(stopped: tuple[Service, Job]) -> None:
    service, job = stopped
    entry = compute(service, job)
    service.jobs.keep_entry(job.id, entry)
    size = service.log.size
    again = restart(service)
    found = finish(again, job)
    assert again.log.entry(size) == entry
    check_done(again, found, size)


def test_killed_after_the_append(stopped: tuple[Service, Job]) -> None:
    service, job = stopped
    entry = compute(service, job)
    service.jobs.keep_entry(job.id, entry)
    index, _ = service.publish(job, entry)
    size = service.log.size
    again = restart(service)
    check_done(again, job, index)
    assert size == index + 1


def test_an_append_that_was_reported_as_failed_but_happened(
    stopped: tuple[Service, Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    service, job = stopped
    real, failures = service.log.append, []

    def append(entry: bytes) -> object:
        found = real(entry)
        if not failures:
            failures.append(found.index)
            raise StorageError("the disk says no")
        return found

    monkeypatch.setattr(service.log, "append", append)
    monkeypatch.setattr("api.jobs._RETRY_SECONDS", 0.05)
    service.start()
    found = finish(service, job)
    assert found.prediction == failures[0]
    assert predictions(service) == failures


def test_a_failed_job_says_why_and_releases_nothing(
    stopped: tuple[Service, Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    service, job = stopped
    size = service.log.size

    def fail(*args: object) -> bytes:
        raise VerificationFailed("some.check", "so it is")

    monkeypatch.setattr(service, "compute", fail)
    service.start()
    found = finish(service, job)
    assert found.error is not None
    assert (found.state, found.error["check"]) == ("failed", "some.check")
    assert service.log.size == size


def test_unforeseen_failures_keep_their_secrets(stopped: tuple[Service, Job], monkeypatch: pytest.MonkeyPatch) -> None:
    service, job = stopped

    def fail(*args: object) -> bytes:
        raise ZeroDivisionError("weights were [1, 2, 3]")

    monkeypatch.setattr(service, "compute", fail)
    service.start()
    found = finish(service, job)
    assert found.error is not None
    assert found.error["type"] == "internal"
    assert "weights" not in str(found.error)


# -- the worker and the store alone -----------------------------------------------------------------------------------


class Endless:
    """Work that goes on until it is stopped."""

    def __init__(self) -> None:
        self.started = threading.Event()

    def compute(self, job: Job, progress: Callable[[int], None]) -> bytes:
        self.started.set()
        for done in range(10_000_000):
            progress(done)
            time.sleep(0.001)
        return b""

    def publish(self, job: Job, entry: bytes) -> tuple[int, bytes]:
        raise AssertionError("never reached")


def test_a_server_that_stops_leaves_the_job_for_the_next(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.sqlite")
    job = store.add(1, 2, 3, NONCE, 10, 1)
    work = Endless()
    worker = JobWorker(store, work)
    worker.start()
    assert work.started.wait(10)
    worker.stop()
    assert store.get(job.id).state == "running"
    store.close()
    again = JobStore(tmp_path / "jobs.sqlite")
    assert [x.id for x in again.unfinished()] == [job.id]
    again.close()


def test_jobs_are_limited_and_nonces_used_once(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "jobs.sqlite")
    first = store.add(1, 2, 3, NONCE, 10, 2)
    with pytest.raises(Conflict):
        store.add(1, 2, 3, NONCE, 10, 2)
    store.add(1, 2, 3, "cd" * 32, 10, 2)
    with pytest.raises(RateLimited):
        store.add(1, 2, 3, "ef" * 32, 10, 2)
    store.add(9, 2, 3, NONCE, 10, 2)  # another clinic
    assert store.count() == 3
    assert store.find(1, NONCE) == first
    assert store.find(2, NONCE) is None
    for missing in (lambda: store.get("x"), lambda: store.of_prediction(7)):
        with pytest.raises(NotFound):
            missing()
    store.close()


# -- blobs ------------------------------------------------------------------------------------------------------------


def test_blobs_are_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = BlobStore(tmp_path / "blobs")
    digest = store.put(b"x")
    assert (store.put(b"x"), store.get(digest), store.has(digest)) == (digest, b"x", True)
    assert store.path(digest).stat().st_mode & 0o111 == 0

    def fail(*args: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space"):
        store.put(b"y")
    monkeypatch.undo()
    assert [p for p in (tmp_path / "blobs").rglob("*") if p.is_file()] == [store.path(digest)]


def test_a_damaged_blob_is_not_served(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    digest = store.put(b"x")
    store.path(digest).write_bytes(b"y")
    with pytest.raises(BlobDamaged):
        store.get(digest)
    with pytest.raises(NotFound):
        store.get(bytes(32))


def test_leftovers_of_a_crash_are_swept(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    digest = store.put(b"x")
    leftover = store.path(digest).with_name(".half")
    leftover.write_bytes(b"z")
    store.sweep()
    assert not leftover.exists()
    assert store.has(digest)


def test_the_disk_is_not_filled(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs", min_free=1 << 60)
    with pytest.raises(StorageFull):
        store.put(b"x")
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_the_server_is_one_party(stopped: tuple[Service, Job]) -> None:
    service, _ = stopped
    servers = [p for p in service.registry.all(Party) if p.body.role == "server"]
    assert [p.reference for p in servers] == [service.party.reference]
    for name in ("log.key", "server.key", "jobs.sqlite", "nonces.sqlite"):
        assert (service.settings.data / name).stat().st_mode & 0o077 == 0
    assert service.settings.data.stat().st_mode & 0o777 == 0o700
