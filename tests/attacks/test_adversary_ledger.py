"""What an attacker tried on the ledger, its witnesses and those who follow it, and found.

A server that shows two histories to one user at one moment; witnesses that date heads beyond the calendar, or never end
an answer; somebody's policy file that takes away the witnesses of another log; crowds that wait for a published head; a
monitor that is shown too little. Each attack succeeded against the build before its defence.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.client.dating import check_in_time
from api.client.log_monitor import Monitor
from api.client.tile_source import FileTiles
from api.client.trust import TrustedLog, TrustStore, parse_trust
from api.clock import clock_name
from api.entries import Party, sign_entry
from api.leader import Leadership
from api.publishing import Publisher
from api.service import Service
from api.settings import Settings
from ledger import Log, Signer, Verifier, open_checkpoint
from ledger.cosignature import MAX_TIME, Cosigner, with_cosignatures
from ledger.errors import InconsistentGrowth, LogMisbehaved, StorageError, UsageError
from ledger.errors import VerificationFailed as LogRefused
from ledger.trust_policy import TlogPolicy
from ledger.witness_wire import WitnessReply
from privacy.errors import UsageError as ServiceUsageError
from privacy.errors import VerificationFailed
from tests.support.lying_log import LyingLog, Tree, entries_of, text_of, write_plain_log
from tests.support.service import listening
from tests.support.witnesses import ORIGIN

SIGNER = Signer("log.example/a", bytes(range(32)))
OTHER = Signer("log.example/b", bytes(range(1, 33)))
LOG = LyingLog(SIGNER)
WITNESSES = [Cosigner(f"hospital-{i}.example/w", bytes([i + 7]) * 32) for i in range(2)]


def policy(*logs: Verifier, quorum: str = "both") -> str:
    """A policy that demands both witnesses, or none."""
    lines = [f"log {log}" for log in logs]
    lines += [f"witness w{i} {w.verifier}" for i, w in enumerate(WITNESSES)]
    return "\n".join([*lines, "group both all w0 w1", f"quorum {quorum}", ""])


# -- two histories at one moment ---------------------------------------------------------------------------------------

SEEN, FORK_A, FORK_B = entries_of(10), entries_of(20), [*entries_of(10), *entries_of(15, changed=12)[10:]]


def proof_of(entries: Sequence[bytes]) -> Callable[[int, int], Sequence[bytes]]:
    """What a server that shows these entries answers to any question for consistency."""
    return lambda old, new: Tree(entries[:new]).consistency(old)


@pytest.mark.parametrize("seen", [SEEN, []], ids=["after-a-common-head", "as-the-first-head"])
@pytest.mark.parametrize("how", ["follow", "observe"])
def test_two_processes_of_one_user_cannot_be_shown_two_histories_at_one_moment(
    tmp_path: Path, seen: Sequence[bytes], how: str
) -> None:
    stores = [TrustStore(tmp_path), TrustStore(tmp_path)]
    stores[0].add(str(SIGNER.verifier))
    if seen:
        stores[0].follow(LOG.head(seen), SIGNER.name, proof_of(seen))
    meanwhile = [lambda: stores[1].follow(LOG.head(FORK_B), SIGNER.name, proof_of(FORK_B))]
    read = stores[0].head

    def head_then_the_other_process(origin: str) -> Any:
        found = read(origin)
        if meanwhile:  # the other process is through before this one has written
            meanwhile.pop()()
        return found

    stores[0].head = head_then_the_other_process  # type: ignore[method-assign]
    note = LOG.head(FORK_A)
    with pytest.raises(InconsistentGrowth):
        if how == "follow":
            stores[0].follow(note, SIGNER.name, proof_of(FORK_A))
        else:
            stores[0].observe(open_checkpoint(note, SIGNER.verifier, SIGNER.name), proof_of(FORK_A))
    kept = read(SIGNER.name)
    assert kept is not None and kept.root == Tree(FORK_B).root
    assert list((tmp_path / "evidence").iterdir()), "two signed notes that convict the log"


def test_many_followers_of_one_folder_never_go_back(tmp_path: Path) -> None:
    TrustStore(tmp_path).add(str(SIGNER.verifier))
    entries, sizes = entries_of(40), [*range(1, 41)]

    def follow(size: int) -> None:
        with contextlib.suppress(LogMisbehaved):  # smaller than a head that another thread has kept
            TrustStore(tmp_path).follow(LOG.head(entries[:size]), SIGNER.name, proof_of(entries))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(follow, sizes))
    kept = TrustStore(tmp_path).head(SIGNER.name)
    assert kept is not None and kept.size == 40


# -- a downgrade of policies -------------------------------------------------------------------------------------------


def test_a_policy_file_about_another_log_does_not_take_away_witnesses(tmp_path: Path) -> None:
    store = TrustStore(tmp_path)
    store.add(policy(SIGNER.verifier))
    mallory = Cosigner.generate("mallory.example/w")
    lines = [f"log {OTHER.verifier}", f"log {SIGNER.verifier}", f"witness m {mallory.verifier}", "quorum m", ""]
    with pytest.raises(UsageError, match="about this log alone"):
        store.add("\n".join(lines))
    with pytest.raises(UsageError, match="remove it first to demand none"):
        store.add(policy(SIGNER.verifier, quorum="none"))
    assert store.find(OTHER.name) is None, "all of the file or nothing"
    assert store.trusted(SIGNER.name) == TrustedLog(SIGNER.verifier, TlogPolicy.parse(policy(SIGNER.verifier)))


def test_the_bare_key_does_not_take_away_witnesses_and_the_owner_may_change_them(tmp_path: Path) -> None:
    store = TrustStore(tmp_path)
    store.add(policy(SIGNER.verifier))
    store.add(str(SIGNER.verifier))
    store.add(policy(SIGNER.verifier, OTHER.verifier))  # the same demands: a file with more logs is fine
    store.add(policy(SIGNER.verifier).replace("group both all", "group both any"))
    found = store.trusted(SIGNER.name)
    assert found is not None and found.policy is not None
    assert found.policy.groups["both"].needed == 1


# -- witnesses that lie about time, or never end -----------------------------------------------------------------------


class NoArchive:
    """A server without older heads."""

    def __init__(self, *notes: bytes) -> None:
        self.notes = notes

    def publications(self, start: int, limit: int) -> Sequence[bytes]:
        return self.notes

    def consistency(self, old: int, new: int) -> Sequence[bytes]:
        return ()


@pytest.mark.parametrize("time_", [MAX_TIME, 253402300800], ids=["largest", "year-10000"])
def test_a_cosignature_beyond_the_calendar_is_a_refusal_and_no_crash(time_: int) -> None:
    (trusted,) = parse_trust(policy(SIGNER.verifier))
    bare = LOG.head(SEEN)
    note = with_cosignatures(bare, [w.cosign(text_of(bare), time_) for w in WITNESSES])
    witnessed = trusted.witnesses(note)
    assert witnessed is not None
    with pytest.raises(VerificationFailed, match=rf"policy\.expired.*{time_} s after 1970"):
        check_in_time("2026-03-01T00:00:00Z", 3, trusted, witnessed.head, witnessed, NoArchive(note))


@contextmanager
def dripping() -> Iterator[str]:
    """The address of somebody who takes connections and sends headers, a byte at a time, for ever."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        listener.settimeout(0.1)

        def drip() -> None:
            taken: list[socket.socket] = []
            while not stop.is_set():
                try:
                    taken.append(listener.accept()[0])
                    taken[-1].sendall(b"HTTP/1.1 200 OK\r\nX: ")
                except TimeoutError:
                    pass
                for one in taken:
                    try:
                        one.sendall(b"a")
                    except OSError:
                        continue
            for one in taken:
                one.close()

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stop.set()
            thread.join()


_ENDS = """
import sys
from pathlib import Path
from api.clock import clock_name
from api.publishing import Publisher
from api.witness.client import clients_of
from ledger import Log, Signer
from ledger.cosignature import Cosigner
from ledger.trust_policy import TlogPolicy

folder, url = Path(sys.argv[1]), sys.argv[2]
signer, witness = Signer.generate("log.example/a"), Cosigner.generate("slow.example/w")
policy = TlogPolicy.parse(f"log {signer.verifier}\\nwitness w {witness.verifier} {url}\\nquorum w\\n")
with Log.create(folder / "log.sqlite", signer) as log:
    publisher = Publisher(log, Cosigner.generate(clock_name(log.origin)), policy, clients_of(policy), 0.2)
    publisher.start()
    log.append(b"a")
    publisher.wake()
    assert publisher.wait_for(1, 10)
    publisher.close()
print("closed", flush=True)
"""


def test_a_witness_that_never_ends_its_answer_does_not_keep_the_server_from_ending(tmp_path: Path) -> None:
    with dripping() as url:
        run = subprocess.run(
            [sys.executable, "-c", _ENDS, str(tmp_path), url], capture_output=True, text=True, timeout=30, check=False
        )
    assert (run.returncode, run.stdout) == (0, "closed\n"), run.stderr


class Broken:
    """The client of a witness whose answers nobody foresaw."""

    def __init__(self, number: int) -> None:
        self.name = f"w{number}"
        self.verifier = WITNESSES[number].verifier

    def add_checkpoint(self, old: int, proof: Sequence[bytes], checkpoint: bytes) -> Any:
        raise RecursionError("whatever a library makes of an answer")


def test_a_witness_that_breaks_its_client_does_not_stop_publishing(tmp_path: Path) -> None:
    clients: Any = [Broken(0), Broken(1)]
    with Log.create(tmp_path / "log.sqlite", SIGNER) as log:
        clock = Cosigner.generate(clock_name(log.origin))
        publisher = Publisher(log, clock, TlogPolicy.parse(policy(SIGNER.verifier)), clients, 0.1)
        publisher.start()
        try:
            for size in (1, 2):
                log.append(b"a%d" % size)
                publisher.wake()
                assert publisher.wait_for(size, 5)
        finally:
            publisher.close()


class Slow:
    """A witness that cosigns whatever it is sent, somewhat later than the log waits for it."""

    def __init__(self, number: int, seconds: float) -> None:
        self.name = f"w{number}"
        self.verifier = WITNESSES[number].verifier
        self._number, self._seconds = number, seconds

    def add_checkpoint(self, old: int, proof: Sequence[bytes], checkpoint: bytes) -> WitnessReply:
        time.sleep(self._seconds)
        return WitnessReply(WITNESSES[self._number].cosign(text_of(checkpoint), int(time.time())), None, "")


def test_whoever_appends_all_the_time_cannot_keep_slow_witnesses_from_every_head(tmp_path: Path) -> None:
    clients: Any = [Slow(0, 0.5), Slow(1, 0.4)]
    asked = TlogPolicy.parse(policy(SIGNER.verifier))
    with Log.create(tmp_path / "log.sqlite", SIGNER) as log:
        publisher = Publisher(log, Cosigner.generate(clock_name(log.origin)), asked, clients, 0.3)
        publisher.start()
        try:
            end = time.monotonic() + 3
            while time.monotonic() < end:
                log.append(b"again")
                publisher.wake()
                time.sleep(0.02)
        finally:
            publisher.close()
        good, heads = 0, log.publications(1, 1000)
        for head in heads:
            with contextlib.suppress(LogRefused):
                good += asked.open(head.note, head.origin).time is not None
    assert good >= 2
    assert len(heads) < 20, "nor fill the archive with heads that nobody cosigned"


def test_a_database_that_is_down_all_night_does_not_fill_the_disk_with_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def down(self: Log) -> Any:
        raise StorageError("the database is down")

    with Log.create(tmp_path / "log.sqlite", SIGNER) as log:
        publisher = Publisher(log, Cosigner.generate(clock_name(log.origin)), None, [], 0.1)
        monkeypatch.setattr(Log, "head", down)
        publisher.start()
        end = time.monotonic() + 1.2
        while time.monotonic() < end:
            publisher.wake()  # as every request does
            time.sleep(0.01)
        started = time.monotonic()
        publisher.close()
        assert time.monotonic() - started < 0.5, "stopping does not wait for the next try"
        monkeypatch.undo()
    assert len(caplog.records) <= 3


# -- crowds ------------------------------------------------------------------------------------------------------------


def witness_file(folder: Path, log: Verifier, url: str) -> Path:
    """A policy of a server that asks one witness at `url`."""
    path = folder / "policy.txt"
    path.write_text(f"log {log}\nwitness w {WITNESSES[0].verifier} {url}\nquorum w\n")
    return path


def party(number: int) -> bytes:
    key = Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big"))
    return sign_entry(Party("clinic", f"crowd-{number}", key.public_key().public_bytes_raw()), None, key)


def test_a_crowd_that_waits_for_a_slow_witness_leaves_room_for_those_who_read(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    signer = Signer.generate(ORIGIN)
    signer.save(data / "log.key")
    entries = [party(number) for number in range(1, 101)]
    with (
        dripping() as url,
        listening(data, witness_policy=witness_file(tmp_path, signer.verifier, url), witness_seconds=4) as server,
        httpx.Client(base_url=server.url, timeout=30, limits=httpx.Limits(max_connections=200)) as client,
        ThreadPoolExecutor(len(entries)) as pool,
    ):
        crowd = [pool.submit(client.post, "/v1/parties", content=e, headers=_JSON) for e in entries]
        time.sleep(1)
        started = time.monotonic()
        assert httpx.get(f"{server.url}/v1/health", timeout=20).status_code == 200
        waited = time.monotonic() - started
        statuses = {one.result().status_code for one in crowd}
        assert waited < 2, f"somebody who only reads waited {waited:.1f} s for the crowd"
        assert statuses <= {200, 201, 429, 503}, statuses
        # Who was told to ask again finds the entry logged.
        again = client.post("/v1/parties", content=entries[-1], headers=_JSON)
        assert again.status_code in (200, 201)


_JSON = {"content-type": "application/json"}


# -- the operator ------------------------------------------------------------------------------------------------------


def test_a_policy_with_another_key_of_this_log_is_refused_at_the_start(tmp_path: Path) -> None:
    """No head would ever have its quorum, and every answer would wait for it."""
    wrong = witness_file(tmp_path, Signer.generate(ORIGIN).verifier, "http://127.0.0.1:9")
    with pytest.raises(ServiceUsageError, match="has no line for the log"):
        Service(Settings(data=tmp_path / "data", origin=ORIGIN, witness_policy=wrong))


def test_a_process_without_a_free_descriptor_takes_over_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections without end to a process that does not lead must not make it give up leading for good."""
    service = Service(Settings(data=tmp_path / "data"))
    claim, failures = Leadership.claim, [1]

    def claim_without_files(self: Leadership) -> bool:
        if failures:
            failures.pop()
            raise OSError(errno.EMFILE, "Too many open files")
        return claim(self)

    service._leadership.release()
    monkeypatch.setattr(Leadership, "claim", claim_without_files)
    monkeypatch.setattr("api.service._POLL_SECONDS", 0.02)
    service.start()
    try:
        end = time.monotonic() + 10
        while not service._leadership.held:
            assert time.monotonic() < end, "nobody leads any more"
            time.sleep(0.01)
    finally:
        service.close()


# -- a monitor that is shown too little --------------------------------------------------------------------------------


def test_a_head_from_elsewhere_that_no_view_reaches_is_not_passed_over(tmp_path: Path) -> None:
    write_plain_log(tmp_path / "shown", SEEN, LOG.head(SEEN))
    forked = LOG.head(FORK_B)  # signed for somebody else; the monitor is never shown that many entries
    with FileTiles(tmp_path / "shown") as view:
        found = Monitor([view], TrustedLog(SIGNER.verifier), tmp_path / "state", [("bundle", forked)]).check()
    ((where, reason),) = found.unreachable
    assert where == "bundle" and "not compared" in reason
