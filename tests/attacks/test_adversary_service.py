"""An adversary's notebook on everything above the proofs: the service, its clients, the auditor's terminal.

Each test was an attack that worked before the defence that it now holds up.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import io
import os
import sys
import threading
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.table import Table

from api import binding
from api.blobs import BlobStore
from api.cli import clinic as clinic_commands
from api.cli import common, main, verify
from api.client.clinic import Clinic
from api.client.raw_answers import RawAnswers
from api.client.scores import Scores
from api.client.session import Session
from api.client.transport import ModelRow, Server, ServerRefused
from api.client.verified_cache import VerifiedCache
from api.demo import run
from api.entries import (
    ErrorBound,
    Party,
    Policy,
    Prediction,
    PredictionProof,
    Records,
    Reference,
    encode_digest_list,
    sign_entry,
)
from api.errors import NotAuthenticated, NotPermitted, RateLimited, StorageFull
from api.jobs import Job, JobStore, JobWorker, Stopped
from api.prediction import write_bundle
from api.registry import Registry
from api.routes import dependencies
from api.service import Service, admit_party
from api.submission import check_behind
from ledger.errors import StorageError
from privacy.ckks.canonical import encode_input
from privacy.ckks.params import parameter_set
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.models.statements import decode_opening
from privacy.zk import generators
from privacy.zk.group import ARKWORKS
from tests.support.bundles import tell
from tests.support.service import running

PARAMS = parameter_set("linear-4096")
NOBODY = Reference(0, bytes(32))
HUGE = 2**53 - 1


def records(**changes: Any) -> Records:
    """A records entry that nothing stands behind."""
    body = Records(
        clinic="clinic-a",
        key=NOBODY,
        parameter_set=PARAMS.name,
        schema=bytes(32),
        packing="rows",
        d=PARAMS.N,
        count=1,
        blocks=1,
        ciphertexts=bytes(32),
        handles=bytes(32),
        policy=Policy("any", None),
    )
    return replace(body, **changes)


# -- a log that the auditor trusts, and that lies ----------------------------------------------------------------------


def test_a_records_entry_of_2_to_the_53_blocks_is_refused_without_listing_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clinic, server and log together: one small bundle that filled the memory of whoever verified it."""

    def small(*arguments: int) -> range:
        found = range(*arguments)
        assert found.stop - found.start < 1 << 20, "somebody counts to 2^53"
        return found

    monkeypatch.setattr(binding, "range", small, raising=False)
    proof = PredictionProof(0, 1, 1, (0,), (bytes(32),), bytes(32), 1, 20)
    prediction = Prediction(NOBODY, NOBODY, NOBODY, (proof,), ErrorBound(1, 58, 6), 1, bytes(32))
    with pytest.raises(VerificationFailed, match=r"prediction\.coverage"):
        binding.check_coverage(prediction, records(count=HUGE, blocks=HUGE), 1)
    binding.check_coverage(prediction, records(), 1)


@pytest.mark.parametrize("outputs", [(1,), (0, 1)])
def test_every_block_and_output_must_be_answered_and_no_other(outputs: tuple[int, ...]) -> None:
    """The count above alone would take an answer to output 1 for one to output 0."""
    proof = PredictionProof(0, 1, 1, outputs, (bytes(32),) * len(outputs), bytes(32), 1, 20)
    prediction = Prediction(NOBODY, NOBODY, NOBODY, (proof,), ErrorBound(1, 58, 6), 1, bytes(32))
    with pytest.raises(VerificationFailed, match=r"prediction\.coverage"):
        binding.check_coverage(prediction, records(), 1)


# -- words of others on one's own terminal -----------------------------------------------------------------------------

STEERING = "\x1b[2K\x1b[1Aoverwritten \x9b31m\r\nVERIFIED forged.sealproof"


def test_no_message_of_a_server_steers_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server's refusal moved the cursor up and wrote VERIFIED over what stood there."""

    def refuse(**_: Any) -> None:
        raise ServerRefused(403, "refused", None, STEERING, "")

    monkeypatch.setattr(sys.modules["api.cli.main"], "app", refuse)
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert shown.strip().isprintable()


def test_no_bundle_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    verify._print(verify._refused(Path(f"{STEERING}.sealproof"), "unreadable", "bundle.unreadable", STEERING))
    shown = capsys.readouterr().err
    assert shown.count("\n") == 2
    assert all(line.isprintable() for line in shown.splitlines())


def test_a_name_is_not_read_as_markup(capsys: pytest.CaptureFixture[str]) -> None:
    """An output called [/x] ended the clinic's command with a traceback, [link=...] made it a link."""
    common.out.print("[/x] [link=http://evil.example]risk[/link] :smile:")
    assert capsys.readouterr().out.strip() == "[/x] [link=http://evil.example]risk[/link] :smile:"


def test_no_cell_of_a_table_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("clinic", STEERING)
    table.add_row(STEERING, "[/x]")
    common.out.print(table)
    assert all(line.isprintable() for line in capsys.readouterr().out.split("\n"))


def test_an_output_with_the_name_of_a_formula_is_text_in_a_spreadsheet(tmp_path: Path) -> None:
    raw, links = RawAnswers([[0, 0]], 36), ("identity", "identity")
    scores = Scores(("1",), ("=HYPERLINK(A1)", "risk"), links, raw, 6, (), None)  # type: ignore[arg-type]
    scores.to_csv(tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_text().splitlines()[0] == "id,'=HYPERLINK(A1),risk"


# -- a clinic is led astray --------------------------------------------------------------------------------------------


def test_a_model_name_that_two_owners_use_names_no_model() -> None:
    """Anybody may publish another "heart"; the clinic took the newest, whoever had made it."""
    rows = [ModelRow(3, bytes(32), "heart", "1", "heart-lab"), ModelRow(9, bytes(32), "heart", "1", "squatter")]
    fetched: list[int] = []

    def fetch(_: Session, index: int) -> Any:
        fetched.append(index)
        raise UsageError("entry: no further")

    server: Any = SimpleNamespace(models=lambda: rows)
    session = Session(None, server, None)  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "fetch", fetch)
        with pytest.raises(UsageError, match=r"several owners.*3 of 'heart-lab', 9 of 'squatter'"):
            session.model("heart")
        assert fetched == []
        rows.pop()
        with pytest.raises(UsageError, match="no further"):
            session.model("heart")
        assert fetched == [3]


def test_opening_offline_asks_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The server was told which predictions a clinic reads again, and when."""

    class Offline:
        def requests(self) -> list[Any]:
            raise AssertionError("asked the server how far its requests are")

        def open_bundle(self, path: Path, request: Any, **options: Any) -> Any:
            assert options["offline"]
            raise VerificationFailed("no.further", "")

    monkeypatch.setattr(Clinic, "open", lambda folder: Offline())
    with pytest.raises(VerificationFailed, match=r"no\.further"):
        clinic_commands.open_bundle(tmp_path / "prediction-6.sealproof", offline=True, folder=tmp_path)


def test_a_compressed_answer_is_not_unfolded() -> None:
    """64 kB of gzip are 64 MB before the first byte can be counted."""
    bomb = gzip.compress(bytes(1 << 24))

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["accept-encoding"] == "identity"
        stream = httpx.ByteStream(bomb)
        return httpx.Response(200, headers={"content-encoding": "gzip"}, stream=stream)

    with httpx.Client(transport=httpx.MockTransport(answer), base_url="http://evil.example") as client:
        tracemalloc.start()
        try:
            with pytest.raises(DecodeError, match="compressed"):
                Server("http://evil.example", client=client).checkpoint()
            assert tracemalloc.get_traced_memory()[1] < 1 << 22
        finally:
            tracemalloc.stop()


@pytest.fixture
def exchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[VerifiedCache, bytes]]:
    """A cache below a folder of somebody else, who exchanges it right after each look at its permissions."""
    own, forged = tmp_path / "verified", tmp_path / "forged"
    for folder in (own, forged):
        folder.mkdir(mode=0o700)
    cache = VerifiedCache(own)
    mark = cache.mark("key/test", [b"a certificate that does not hold"])
    (forged / mark.hex()).write_bytes(mark)

    def exchange() -> None:
        if forged.exists():
            own.rename(tmp_path / "aside")
            forged.rename(own)

    look, look_open, place = Path.lstat, os.fstat, own.stat().st_ino

    def lstat(path: Path) -> os.stat_result:
        found = look(path)
        if path == own:
            exchange()
        return found

    def fstat(descriptor: int) -> os.stat_result:
        found = look_open(descriptor)
        if found.st_ino == place:
            exchange()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Path, "lstat", lstat)
        patch.setattr(os, "fstat", fstat)
        yield cache, mark


def test_a_mark_is_read_from_the_folder_that_was_looked_at(exchanged: tuple[VerifiedCache, bytes]) -> None:
    cache, mark = exchanged
    assert not cache.knows(mark)
    assert cache.knows(mark)  # the exchange happened: the forged folder is in place now


def test_generators_are_read_from_the_folder_that_was_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same exchange the other way round: read while it was forged, looked at when it was back."""
    monkeypatch.setattr(generators, "_CHUNK", 16)
    monkeypatch.setattr(generators.secrets, "randbelow", lambda n: 0)  # spot checks that miss
    points = [ARKWORKS.hash_to_curve(generators._message("attack/wide", i)) for i in range(16)]
    points[5] = ARKWORKS.add(points[4], points[4])
    data = b"".join(ARKWORKS.export_affine(point) for point in points)
    folder, own = tmp_path / "generators-v1", tmp_path / "own"
    own.mkdir(mode=0o700)
    folder.mkdir()
    (folder / "attack_wide-0.bin").write_bytes(hashlib.sha256(data).digest() + data)
    look = Path.lstat

    def lstat(path: Path) -> os.stat_result:
        if path == folder:
            folder.rename(tmp_path / "aside")
            own.rename(folder)
        return look(path)

    def load() -> bytes | None:
        return generators._load(folder / "attack_wide-0.bin", "attack/wide", 0, ARKWORKS)

    folder.chmod(0o700)
    assert load() == data  # it is accepted where nobody else could have written it
    folder.chmod(0o777)
    monkeypatch.setattr(Path, "lstat", lstat)
    assert load() is None


# -- the server is worn out --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with running(tmp_path_factory.mktemp("worn") / "data") as server:
        yield server.client


@pytest.fixture
def service(client: Any) -> Service:
    found: Service = client.app.state.service
    return found


@pytest.mark.parametrize("wanted", [None, "bytes=garbage", "bytes=99999999-", "bytes=0-1"])
def test_no_download_leaves_a_bundle_behind(
    client: Any, service: Service, monkeypatch: pytest.MonkeyPatch, wanted: str | None
) -> None:
    """Each request for a range that there is none of left one more copy of the bundle on the disk, unsigned."""
    job = SimpleNamespace(id="0" * 32, attestation=b"x")
    monkeypatch.setattr(service.jobs, "of_prediction", lambda index: job)
    monkeypatch.setattr("api.service.write_bundle", lambda path, *_, **__: path.write_bytes(bytes(1 << 20)))
    response = client.get("/v1/predictions/0/bundle", headers={"Range": wanted} if wanted else {})
    assert response.content == bytes(1 << 20)
    assert list((service.settings.data / "tmp").iterdir()) == []


def test_bundles_leave_the_disk_its_room(tmp_path: Path) -> None:
    """Uploads stopped before the disk was full; downloads, which anybody may ask for, did not."""
    folder = tmp_path / "story"
    folder.mkdir()
    story = tell(folder)  # its ledger is read as a whole, so it is no other test's
    blobs = BlobStore(tmp_path / "blobs")
    for blob in story.blobs:
        blobs.put(blob)
    prediction = story.log()
    full = BlobStore(tmp_path / "blobs", min_free=1 << 60)
    log, registry = story.world.log, Registry.read(story.world.log)
    for store, error in ((full, StorageFull), (blobs, None)):
        path, index = tmp_path / "b.sealproof", prediction.reference.index
        if error is None:
            write_bundle(path, log, registry, store, index, story.attest(prediction), inputs=True)
            assert path.exists()
        else:
            with pytest.raises(error):
                write_bundle(path, log, registry, store, index, story.attest(prediction), inputs=True)
            assert {p.name for p in tmp_path.iterdir()} == {"blobs", "story"}


def test_entries_leave_the_disk_its_room(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blobs stopped before the disk was full; entries, 64 kB each and any number of them, did not."""
    monkeypatch.setattr(service.blobs, "_min_free", 1 << 60)
    key, size = Ed25519PrivateKey.generate(), service.log.size
    entry = sign_entry(Party("owner", "one-more", key.public_key().public_bytes_raw()), None, key)
    with pytest.raises(StorageFull):
        service.register(entry, "testclient")
    assert service.log.size == size


def test_those_who_wait_for_heavy_work_leave_threads_for_those_who_read(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty requests for bundles held all threads for twenty seconds, and nobody could read a checkpoint."""
    monkeypatch.setattr("api.service._TURN_SECONDS", 1.0)
    outcomes: list[float] = []

    def ask() -> None:
        started = time.monotonic()
        with pytest.raises(RateLimited), service._turn():
            pass
        outcomes.append(time.monotonic() - started)

    with service._turn(), service._turn():
        threads = [threading.Thread(target=ask) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sum(waited < 0.5 for waited in outcomes) == 12
    with service._turn(), service._turn():
        pass  # every place was given back


def test_a_prediction_that_no_entry_could_list_is_not_planned(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a million blocks were planned, bounded and encoded, for minutes, before the entry was found too large."""
    body = SimpleNamespace(blocks=1 << 19)
    model = SimpleNamespace(reference=NOBODY, body=SimpleNamespace(outputs=(0,)))
    context = SimpleNamespace(records=SimpleNamespace(body=body), model=model)
    party: Any = SimpleNamespace(reference=NOBODY, body=SimpleNamespace(name="clinic-a"))
    monkeypatch.setattr("api.service.Context.of", lambda *_: context)
    monkeypatch.setattr(service.joint, "concerns", lambda _: False)
    monkeypatch.setattr(service.registry, "get", lambda *_: SimpleNamespace(author=NOBODY))
    for check in ("_check_policy", "_check_fit"):
        monkeypatch.setattr(service, check, lambda _: None)
    monkeypatch.setattr(service, "has_opening", lambda _: True)
    monkeypatch.setattr(service, "_plan", lambda _: pytest.fail("it was planned"))
    with pytest.raises(UsageError, match="divide the cohort"):
        service.request_prediction(party, 1, 2, bytes(32))


def test_records_that_nothing_could_ever_be_predicted_for_are_refused_unread(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="divide the cohort"):
        check_behind(records(count=1 << 19, blocks=1 << 19), BlobStore(tmp_path / "blobs"))


def test_a_ciphertext_that_is_listed_often_is_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One upload, listed half a million times, kept the server at it for minutes."""
    blobs = BlobStore(tmp_path / "blobs")
    digest = blobs.put(encode_input(PARAMS, NOBODY.leaf, np.zeros((2, PARAMS.L, PARAMS.N), dtype=np.uint64)))
    body = records(count=1000, blocks=1000, ciphertexts=blobs.put(encode_digest_list([digest] * 1000)))
    read: list[bytes] = []
    get: Callable[[bytes], bytes] = blobs.get
    monkeypatch.setattr(blobs, "get", lambda d: (read.append(d), get(d))[1])
    check_behind(body, blobs)
    assert read.count(digest) == 1


def request_of(parts: Callable[[], Any]) -> Any:
    from starlette.requests import Request

    async def receive() -> dict[str, Any]:
        found: dict[str, Any] = await parts()
        return found

    return Request({"type": "http", "method": "PUT", "path": "/", "headers": []}, receive)


def test_a_body_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever named a party's number could hold connections and memory for as long as he liked."""
    monkeypatch.setattr(dependencies, "WINDOW_SECONDS", 0.05)

    async def drip() -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def read() -> bytes:
        return await asyncio.wait_for(dependencies.limited_body(request_of(drip), 1 << 24), 2)

    with pytest.raises(NotAuthenticated, match=r"request\.time"):
        asyncio.run(read())


def test_a_body_in_crumbs_takes_no_more_memory_than_its_bytes() -> None:
    """Two bytes at a time, a body took twenty times its size."""
    left = 1 << 17

    async def crumb() -> dict[str, Any]:
        nonlocal left
        left -= 1
        return {"type": "http.request", "body": left.to_bytes(4, "little")[:2], "more_body": left > 0}

    tracemalloc.start()
    try:
        body = asyncio.run(dependencies.limited_body(request_of(crumb), 1 << 24))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(body) == 1 << 18
    assert peak < 8 * len(body)


class Deadly:
    """Work during which the process is killed, as far as the store of jobs can tell."""

    def __init__(self) -> None:
        self.calls = 0

    def compute(self, job: Job, progress: Callable[[int], None]) -> bytes:
        self.calls += 1
        raise SystemExit

    def publish(self, job: Job, entry: bytes) -> tuple[int, bytes]:
        raise AssertionError("nothing was computed")


def test_a_job_that_kills_the_server_is_given_up_and_the_next_is_done(tmp_path: Path) -> None:
    """Restarted, the server took up the same job again, and was killed again, with everybody waiting behind it."""
    work = Deadly()
    for _ in range(5):
        store = JobStore(tmp_path / "jobs.sqlite")
        if not store.count():
            first = store.add(1, 4, 2, "00" * 32, 2, 16)
            store.add(1, 4, 2, "01" * 32, 2, 16)
        worker, waiting = JobWorker(store, work), store.unfinished()
        with contextlib.suppress(SystemExit):
            worker._do(waiting[0])
        store.close()
    store = JobStore(tmp_path / "jobs.sqlite")
    assert store.get(first.id).state == "failed"
    assert [job.nonce for job in store.unfinished()] == ["01" * 32]
    assert work.calls == 4  # three times the first, once the second
    store.close()


def test_a_job_that_is_put_off_is_not_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, work = JobStore(tmp_path / "jobs.sqlite"), Deadly()
    job = store.add(1, 4, 2, "00" * 32, 2, 16)
    for error in [Stopped(), StorageError("the disk")] * 5:
        monkeypatch.setattr(work, "compute", Mock(side_effect=error))
        with pytest.raises((Stopped, StorageError)):
            JobWorker(store, work)._do(job)
    assert store.get(job.id).state == "running"
    store.close()


# -- who is admitted, and what is removed ------------------------------------------------------------------------------


def test_whom_the_operator_admits_is_who_registers(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key alone was admitted: a clinic came back as an owner, or under the name of another hospital."""
    key = Ed25519PrivateKey.generate()
    public_key = key.public_key().public_bytes_raw()
    seen = sign_entry(Party("clinic", "clinic-seen", public_key), None, key)
    others = [Party("owner", "clinic-seen", public_key), Party("clinic", "university-hospital", public_key)]
    monkeypatch.setattr(service, "settings", service.settings.model_copy(update={"registration": "closed"}))
    admit_party(service.settings.data, seen)
    for other in others:
        with pytest.raises(NotPermitted, match=r"party\.registration"):
            service.register(sign_entry(other, None, key), "testclient")
    assert service.register(seen, "testclient")[1]


def test_the_demo_removes_nobodys_bundles(tmp_path: Path) -> None:
    """A folder with a log.vkey was taken for the demo's own, and lost every bundle in it."""
    for name in ("log.vkey", "prediction-6.sealproof"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(FileExistsError):
        run._clear(tmp_path)
    assert (tmp_path / "prediction-6.sealproof").exists()
    (tmp_path / "state" / "server").mkdir(parents=True)
    run._clear(tmp_path)
    assert not (tmp_path / "prediction-6.sealproof").exists()
    run._clear(tmp_path / "absent")


# -- crashes, and secrets in what they print ---------------------------------------------------------------------------


def test_an_append_of_unknown_outcome_is_found_when_it_is_repeated(service: Service) -> None:
    """Reported as failed, yet in the log: the same bytes again were refused as a duplicate."""
    key = Ed25519PrivateKey.generate()
    entry = sign_entry(Party("clinic", "clinic-again", key.public_key().public_bytes_raw()), None, key)
    appended = service.log.append(entry)  # behind the back of the index, as after an error of the disk
    reference, _ = service.register(entry, "testclient")
    assert reference == Reference(appended.index, appended.leaf_hash)


def test_a_traceback_shows_no_weight() -> None:
    secret = "314159265358979323846"
    outputs = b'[{"bias":"0","rho":"0","weights":[%s]}]' % secret.encode()
    with pytest.raises(DecodeError) as caught:
        decode_opening(b'{"format":"sealproof/model-opening/v1","name":"m","outputs":%s,"version":"1"}' % outputs)
    text = io.StringIO()
    traceback.print_exception(caught.value, file=text)
    assert secret[:6] not in text.getvalue()


def test_a_field_name_of_others_is_quoted_in_errors() -> None:
    with pytest.raises(DecodeError) as caught:
        decode_opening(b'{"\\u001b[2J":1,"format":"sealproof/model-opening/v1","name":"m","outputs":[],"version":"1"}')
    assert "u001b" in str(caught.value) or "x1b" in str(caught.value)
    assert str(caught.value).isprintable()
