"""The witness as a web service, its client, and its command: over real connections."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.cli.main import main
from api.client.transport import ServerUnreachable
from api.witness.app import create_witness_app, system_clock
from api.witness.client import WitnessClient, clients_of
from ledger.cosignature import CosignatureVerifier, Cosigner, with_cosignatures
from ledger.errors import DecodeError, StorageError, UsageError, VerificationFailed
from ledger.note import Signer
from ledger.trust_policy import TlogPolicy
from ledger.witness import Witness
from ledger.witness_store import SqliteWitnessStore
from ledger.witness_wire import MAX_ANSWER_BYTES, MAX_REQUEST_BYTES
from tests.support.lying_log import LyingLog, Tree, entries_of, text_of
from tests.support.service import on_a_socket

SIGNER = Signer("log.example/test", bytes(range(32)))
LOG = LyingLog(SIGNER)
COSIGNER = Cosigner("witness.example/w1", bytes([7]) * 32)
NOW = 1_700_000_000


@dataclass
class Service:
    url: str
    store: SqliteWitnessStore
    http: httpx.Client

    def client(self, **options: Any) -> WitnessClient:
        return WitnessClient(self.url, COSIGNER.verifier, **options)

    def post(self, body: bytes) -> httpx.Response:
        return self.http.post("/add-checkpoint", content=body)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    store = SqliteWitnessStore.create(tmp_path / "w.sqlite")
    witness = Witness(store, COSIGNER, {SIGNER.name: SIGNER.verifier})
    with on_a_socket(create_witness_app(witness, store, lambda: NOW)) as url, httpx.Client(base_url=url) as http:
        yield Service(url, store, http)
    store.close()


class TestService:
    def test_a_log_is_cosigned_and_its_policy_satisfied(self, service: Service) -> None:
        head = LOG.head(entries_of(5))
        reply = service.client().add_checkpoint(0, [], head)
        assert reply.signature is not None
        policy = TlogPolicy.parse(f"log {SIGNER.verifier}\nwitness W {COSIGNER.verifier} {service.url}\nquorum W\n")
        assert policy.open(with_cosignatures(head, [reply.signature]), SIGNER.name).time == NOW
        (client,) = clients_of(policy)
        tree = Tree(entries_of(9))
        reply = client.add_checkpoint(5, tree.consistency(5), LOG.head(entries_of(9)))
        assert reply.signature is not None
        # One that lost its place is told the size, and goes on from there.
        reply = client.add_checkpoint(5, tree.consistency(5), LOG.head(entries_of(9)))
        assert (reply.signature, reply.known_size) == (None, 9)
        assert client.add_checkpoint(9, [], LOG.head(entries_of(9))).signature is not None

    def test_answers_have_the_status_body_and_type_of_the_protocol(self, service: Service) -> None:
        answer = service.post(LOG.request(0, entries_of(5)))
        assert answer.status_code == 200
        assert answer.content == COSIGNER.cosign(text_of(LOG.head(entries_of(5))), NOW).line().encode()
        answer = service.post(LOG.request(3, entries_of(5)))
        assert (answer.status_code, answer.content) == (409, b"5\n")
        assert answer.headers["content-type"] == "text/x.tlog.size"
        for body, status in (
            (b"garbage", 400),
            (LyingLog(Signer(SIGNER.name, bytes(32))).request(5, entries_of(6)), 403),
            (LyingLog(Signer("unknown.example", bytes(32))).request(0, entries_of(6)), 404),
            (LOG.request(5, entries_of(5, changed=1)), 409),
            (LOG.request(5, entries_of(7), entries_of(7, changed=6)), 422),
        ):
            answer = service.post(body)
            assert answer.status_code == status
            assert answer.headers["content-type"] == "text/plain; charset=utf-8"
            assert answer.text.endswith("\n")
        assert service.http.get("/add-checkpoint").status_code == 405
        assert service.http.get("/docs").status_code == 404

    def test_the_last_head_is_shown_to_monitors(self, service: Service) -> None:
        path = f"/{hashlib.sha256(SIGNER.name.encode()).hexdigest()}/checkpoint"
        assert service.http.get(path).status_code == 404
        assert service.http.get("/nonsense/checkpoint").status_code == 404
        service.post(LOG.request(0, entries_of(5)))
        head = LOG.head(entries_of(5))
        assert service.http.get(path).content == head + COSIGNER.cosign(text_of(head), NOW).line().encode()

    def test_people_are_told_what_it_is(self, service: Service) -> None:
        assert "nothing cosigned yet" in service.http.get("/").text
        service.post(LOG.request(0, entries_of(5)))
        text = service.http.get("/").text
        assert str(COSIGNER.verifier) in text
        assert f"{SIGNER.name}: size 5, cosigned 2023-11-14T22:13:20Z" in text

    def test_evidence_is_public(self, service: Service) -> None:
        assert service.http.get("/evidence").json() == []
        service.post(LOG.request(0, entries_of(5)))
        for changed in range(3):
            service.post(LOG.request(5, entries_of(5, changed=changed)))
        found = service.http.get("/evidence").json()
        assert [piece["kind"] for piece in found] == ["fork"] * 3
        assert found[0]["old"].encode() == LOG.head(entries_of(5))
        assert found[0]["new"].encode() == LOG.head(entries_of(5, changed=0))
        page = service.http.get("/evidence", params={"after": found[0]["number"], "limit": 1}).json()
        assert page == found[1:2]
        for query in ("after=-1", "limit=0", "limit=101", "after=x", f"after={2**70}"):
            assert service.http.get(f"/evidence?{query}").status_code == 422

    def test_many_requests_at_once_get_one_head_of_a_size_cosigned(self, service: Service) -> None:
        service.post(LOG.request(0, entries_of(5)))
        bodies = [LOG.request(5, [*entries_of(5), b"%d" % i]) for i in range(24)]
        with ThreadPoolExecutor(12) as pool:
            statuses = sorted(answer.status_code for answer in pool.map(service.post, bodies))
        assert statuses == [200, *[409] * 23]

    def test_what_goes_wrong_inside_is_not_shown(
        self, service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(*_: object) -> None:
            raise StorageError("/secret/path: disk full")

        monkeypatch.setattr(service.store, "advance", broken)
        answer = service.post(LOG.request(0, entries_of(5)))
        assert answer.status_code == 500
        assert "nothing was cosigned" in answer.text
        assert "secret" not in answer.text
        assert "disk full" in caplog.text


def test_a_clock_that_was_never_set_dates_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert system_clock() == pytest.approx(time.time(), abs=5)
    monkeypatch.setattr("time.time", lambda: 42.0)
    with pytest.raises(StorageError, match="set it"):
        system_clock()


class TestHugeBodies:
    def test_a_body_that_announces_its_size_is_refused_unread(self, service: Service) -> None:
        host, port = service.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000000\r\n\r\n")
            answer = connection.recv(4096)
            assert answer.startswith(b"HTTP/1.1 413")
            assert b"connection: close" in answer.lower()

    def test_a_body_that_announces_nothing_is_read_no_further_than_the_limit(self, service: Service) -> None:
        sent = 0

        def endless() -> Iterator[bytes]:
            nonlocal sent
            while sent < 64 * MAX_REQUEST_BYTES:
                sent += 1 << 16
                yield bytes(1 << 16)

        with contextlib.suppress(httpx.TransportError):  # the connection may be closed while we still write
            assert service.http.post("/add-checkpoint", content=endless()).status_code == 413
        assert sent < 64 * MAX_REQUEST_BYTES

    def test_the_largest_body_that_is_allowed_is_looked_at(self, service: Service) -> None:
        assert service.post(b"x" * MAX_REQUEST_BYTES).status_code == 400
        assert service.post(b"x" * (MAX_REQUEST_BYTES + 1)).status_code == 413
        assert service.post(b"old 0\n\n" + b"\n" * (MAX_REQUEST_BYTES - 7)).status_code == 400

    def test_a_body_that_never_comes_is_not_waited_for(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("api.witness.app._BODY_SECONDS", 0.2)
        host, port = service.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nold 0")
            assert connection.recv(4096).startswith(b"HTTP/1.1 400")


Handler = Callable[[httpx.Request], httpx.Response]
HEAD = LOG.head(entries_of(5))


def client_of(handler: Handler, **options: Any) -> WitnessClient:
    http = httpx.Client(transport=httpx.MockTransport(handler))
    return WitnessClient("http://w.example/prefix/", COSIGNER.verifier, "W", client=http, **options)


class TestClient:
    def test_it_posts_to_the_prefix_and_asks_for_nothing_compressed(self) -> None:
        seen: list[httpx.Request] = []

        def handler(request: httpx.Request) -> httpx.Response:
            seen.append(request)
            return httpx.Response(200, content=COSIGNER.cosign(text_of(HEAD), 7).line().encode())

        assert client_of(handler).add_checkpoint(0, [], HEAD).signature is not None
        (request,) = seen
        assert (request.method, str(request.url)) == ("POST", "http://w.example/prefix/add-checkpoint")
        assert request.headers["accept-encoding"] == "identity"
        assert request.content == b"old 0\n\n" + HEAD

    @pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 403, 404, 409, 422, 429, 500, 503])
    def test_refusals_are_told_and_redirects_not_followed(self, status: int) -> None:
        def handler(request: httpx.Request) -> httpx.Response:
            assert request.url.host == "w.example"
            return httpx.Response(status, content=b"because\n", headers={"location": "http://evil.example/"})

        reply = client_of(handler).add_checkpoint(0, [], HEAD)
        assert (reply.signature, reply.known_size) == (None, None)
        assert reply.reason == f"status {status}: because"

    def test_what_no_witness_answers_is_an_error(self) -> None:
        line = COSIGNER.cosign(text_of(HEAD), 7).line().encode()
        other = COSIGNER.cosign(text_of(LOG.head(entries_of(6))), 7).line().encode()
        for content, headers, error in (
            (b"", {}, DecodeError),
            (b"\xff" * 10, {}, DecodeError),
            (line + b"garbage\n", {}, DecodeError),
            (other, {}, VerificationFailed),
            (bytes(MAX_ANSWER_BYTES + 1), {}, DecodeError),
            (line, {"content-encoding": "gzip"}, DecodeError),
            (line, {"content-encoding": "br"}, DecodeError),
        ):

            def handler(
                request: httpx.Request, content: bytes = content, headers: dict[str, str] = headers
            ) -> httpx.Response:
                return httpx.Response(200, stream=httpx.ByteStream(content), headers=headers)

            with pytest.raises(error):
                client_of(handler).add_checkpoint(0, [], HEAD)

    def test_an_endless_answer_is_not_read_to_its_end(self) -> None:
        given = 0

        class Endless(httpx.SyncByteStream):
            def __iter__(self) -> Iterator[bytes]:
                nonlocal given
                while True:
                    given += 1
                    yield bytes(1024)

        with pytest.raises(DecodeError, match="more than"):
            client_of(lambda _: httpx.Response(500, stream=Endless())).add_checkpoint(0, [], HEAD)
        assert given <= MAX_ANSWER_BYTES // 1024 + 1

    def test_an_answer_byte_by_byte_runs_into_the_deadline(self) -> None:
        class Dripping(httpx.SyncByteStream):
            def __iter__(self) -> Iterator[bytes]:
                while True:
                    time.sleep(0.02)
                    yield b"x"

        with pytest.raises(ServerUnreachable, match="too long"):
            client_of(lambda _: httpx.Response(200, stream=Dripping()), timeout=0.2).add_checkpoint(0, [], HEAD)

    def test_a_witness_that_is_not_there_is_named(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        client = WitnessClient(f"http://127.0.0.1:{port}", COSIGNER.verifier, "W", timeout=2)
        with pytest.raises(ServerUnreachable, match="W"):
            client.add_checkpoint(0, [], HEAD)

    def test_a_witness_that_says_nothing_is_given_up(self) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            with pytest.raises(ServerUnreachable, match="in time"):
                WitnessClient(url, COSIGNER.verifier, timeout=0.2).add_checkpoint(0, [], HEAD)

    @pytest.mark.parametrize("url", ["", "w.example", "file:///etc/passwd", "ftp://w.example", "//w.example"])
    def test_other_addresses_are_refused(self, url: str) -> None:
        with pytest.raises(UsageError, match="address"):
            WitnessClient(url, COSIGNER.verifier)

    def test_only_witnesses_with_an_address_are_asked(self) -> None:
        other = Cosigner("witness.example/w2", bytes(32)).verifier
        policy = TlogPolicy.parse(f"witness A {COSIGNER.verifier}\nwitness B {other} https://b.example\nquorum A\n")
        assert [(c.name, c.url, c.verifier) for c in clients_of(policy)] == [("B", "https://b.example", other)]


def run_cli(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr("sys.argv", ["sealproof", "ledger", "witness", *arguments])
        main()
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


class TestCommand:
    def test_evidence_is_listed_without_serving(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        store = SqliteWitnessStore.create(tmp_path / "witness.sqlite")
        witness = Witness(store, COSIGNER, {SIGNER.name: SIGNER.verifier})
        code, out, _ = run_cli(capsys, "--data", str(tmp_path), "--evidence")
        assert (code, out) == (0, "no log contradicted a head that was cosigned\n")
        witness.add_checkpoint(LOG.request(0, entries_of(5)), lambda: NOW)
        witness.add_checkpoint(LOG.request(5, entries_of(5, changed=1)), lambda: NOW)
        witness.add_checkpoint(LOG.request(5, entries_of(7, changed=1)), lambda: NOW)
        store.close()
        code, out, _ = run_cli(capsys, "--data", str(tmp_path), "--evidence", "--json")
        assert code == 0
        assert [piece["kind"] for piece in json.loads(out)] == ["fork", "unproven"]
        code, out, _ = run_cli(capsys, "--data", str(tmp_path), "--evidence")
        assert code == 0
        assert LOG.head(entries_of(5, changed=1)).decode() in out
        assert LOG.head(entries_of(5)).decode() in out
        assert "convicts nobody by itself" in out

    def test_wrong_use_is_told(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        data, key = str(tmp_path / "w"), str(SIGNER.verifier)
        other = str(Signer(SIGNER.name, bytes(32)).verifier)
        for arguments, said in (
            (["--data", data], "at least one log"),
            (["--data", data, "--log", key], "name the new one"),
            (["--data", data, "--log", key, "--name", "two words"], "not a key name"),
            (["--data", data, "--log", key, "--log", other, "--name", "w.example"], "two keys are given"),
            (["--data", data, "--log", str(COSIGNER.verifier), "--name", "w.example"], "type 01 but 04"),
            (["--data", data, "--log", "nonsense", "--name", "w.example"], "nonsense"),
            (["--data", data, "--evidence"], "no witness's memory"),
        ):
            code, _, err = run_cli(capsys, *arguments)
            assert (code, said in err) == (2, True), err
        assert not (tmp_path / "w").exists()

    @pytest.mark.slow
    def test_a_witness_that_is_killed_comes_back_with_its_key_and_its_memory(self, tmp_path: Path) -> None:
        (tmp_path / "policy").write_text(f"log {SIGNER.verifier}\nquorum none\n")
        command = [sys.executable, "-m", "api.cli", "ledger", "witness", "--data", str(tmp_path / "w"), "--port", "0"]
        command += ["--name", "witness.example/w1", "--log", str(tmp_path / "policy")]
        root = Path(__file__).resolve().parents[2]

        @contextmanager
        def running(*more: str) -> Iterator[tuple[str, str]]:
            with subprocess.Popen([*command, *more], cwd=root, stdout=subprocess.PIPE, text=True) as process:
                try:
                    assert process.stdout is not None
                    if more:
                        said = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
                        yield said["witness"], said["address"]
                    else:
                        key, address = process.stdout.readline(), process.stdout.readline()
                        assert key.startswith("witness: ")
                        yield key.removeprefix("witness: ").strip(), address.removeprefix("listening on ").strip()
                finally:
                    os.kill(process.pid, signal.SIGKILL)

        with running() as (vkey, address):
            client = WitnessClient(address, CosignatureVerifier.parse(vkey))
            assert client.add_checkpoint(0, [], LOG.head(entries_of(5))).signature is not None
        with running("--json") as (again, address):
            assert again == vkey
            client = WitnessClient(address, CosignatureVerifier.parse(vkey))
            assert client.add_checkpoint(0, [], LOG.head(entries_of(5, changed=1))).known_size == 5
            proof = Tree(entries_of(6)).consistency(5)
            assert client.add_checkpoint(5, proof, LOG.head(entries_of(6))).signature is not None
