"""After a session that broke, in whatever way, the pair does not compute again until it is cleared by hand."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from api.mpc import suspensions
from api.mpc.suspensions import ENDED, Suspended, SuspensionStore
from privacy.errors import DecodeError, UsageError

ROOT = Path(__file__).resolve().parents[2]
PEER, OTHER = bytes(range(32)), bytes([7] * 32)
SESSION, NEXT = bytes([1] * 32), bytes([2] * 32)
WHEN = "2030-01-02T03:04:05Z"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "suspensions"


@pytest.fixture
def store(folder: Path) -> SuspensionStore:
    return SuspensionStore(folder)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


# -- an honest life ---------------------------------------------------------------------------------------------------


def test_a_session_that_finishes_leaves_nothing(store: SuspensionStore, folder: Path) -> None:
    store.check(PEER)
    store.begin("St Anna", PEER, SESSION)
    store.finish(SESSION)
    store.check(PEER)
    assert store.list() == ()
    assert files(folder) == []
    store.begin("St Anna", PEER, NEXT)


def test_the_mark_is_on_disk_before_begin_returns(
    store: SuspensionStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    store.begin("St Anna", PEER, SESSION)
    assert files(folder) == [f"{PEER.hex()}.{SESSION.hex()}.json"]
    assert folder in synced
    assert len(synced) == 2


def test_folder_and_files_are_private(store: SuspensionStore, folder: Path) -> None:
    store.begin("St Anna", PEER, SESSION)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_folder_that_others_may_enter_is_refused(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    with pytest.raises(UsageError, match="accessible to others"):
        SuspensionStore(folder)
    folder.chmod(0o700)
    store = SuspensionStore(folder)
    folder.chmod(0o755)
    with pytest.raises(UsageError, match="accessible to others"):
        store.check(PEER)


# -- suspensions ------------------------------------------------------------------------------------------------------


def test_a_session_that_fails_suspends_the_pair_and_says_why_since_when_and_what_to_do(store: SuspensionStore) -> None:
    store.begin("St Anna", PEER, SESSION)
    store.fail(SESSION, "joint.relation: the proof of batch 3 does not hold", WHEN)
    for act in (lambda: store.check(PEER), lambda: store.begin("St Anna", PEER, NEXT)):
        with pytest.raises(UsageError) as caught:
            act()
        message = str(caught.value)
        assert "joint.relation: the proof of batch 3 does not hold" in message
        assert WHEN in message
        assert "sealproof mpc clear 'St Anna'" in message
    store.check(OTHER)
    assert store.list() == (
        Suspended("St Anna", PEER, SESSION, WHEN, "joint.relation: the proof of batch 3 does not hold", False),
    )


def test_a_suspension_survives_the_process(store: SuspensionStore, folder: Path) -> None:
    store.suspend("St Anna", PEER, SESSION, "told by the ledger", WHEN)
    with pytest.raises(UsageError, match="told by the ledger"):
        SuspensionStore(folder).check(PEER)


def test_the_first_reason_of_a_session_stays(store: SuspensionStore) -> None:
    store.begin("St Anna", PEER, SESSION)
    store.suspend("St Anna", PEER, SESSION, "the other side suspended it", WHEN)
    store.fail(SESSION, "and then we failed")
    assert [one.reason for one in store.list()] == ["the other side suspended it"]


def test_a_suspension_that_comes_during_a_session_is_not_removed_by_its_end(store: SuspensionStore) -> None:
    store.begin("St Anna", PEER, SESSION)
    store.suspend("St Anna", PEER, SESSION, "the other side suspended it", WHEN)
    store.finish(SESSION)
    with pytest.raises(UsageError, match="the other side suspended it"):
        store.check(PEER)


@pytest.mark.parametrize("reason", ["", "  ", "two\nlines\x1b[2J", "\udcff", "x" * 100_000, "o\u0308 \u202e"])
def test_whatever_the_other_side_wrote_as_its_reason_is_kept_in_some_form(store: SuspensionStore, reason: str) -> None:
    store.begin("St Anna", PEER, SESSION)
    store.fail(SESSION, reason)
    (found,) = store.list()
    assert found.reason.isprintable()
    assert found.reason
    with pytest.raises(UsageError, match="suspended since"):
        store.check(PEER)


def test_a_mark_taken_away_by_hand_during_the_session_does_not_undo_its_failure(
    store: SuspensionStore, folder: Path
) -> None:
    store.begin("St Anna", PEER, SESSION)
    (folder / files(folder)[0]).unlink()
    store.fail(SESSION, "broken")
    with pytest.raises(UsageError, match=r"'St Anna'.*broken"):
        store.check(PEER)


def test_if_the_disk_is_full_when_a_session_fails_its_mark_is_the_suspension(
    store: SuspensionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    store.begin("St Anna", PEER, SESSION)
    with monkeypatch.context() as patched:
        patched.setattr(suspensions, "write_private", full)
        with pytest.raises(OSError, match="No space"):
            store.fail(SESSION, "broken")
        with pytest.raises(OSError, match="No space"):
            store.begin("St Olaf", OTHER, NEXT)
    with pytest.raises(UsageError, match=ENDED):
        store.check(PEER)


def test_a_session_that_was_not_begun_here_cannot_end_here(store: SuspensionStore, folder: Path) -> None:
    store.begin("St Anna", PEER, SESSION)
    for other in (store, SuspensionStore(folder)):
        for end in (lambda o=other: o.finish(NEXT), lambda o=other: o.fail(NEXT, "x")):
            with pytest.raises(UsageError, match="was begun here"):
                end()
    with pytest.raises(UsageError, match="was begun here"):
        SuspensionStore(folder).finish(SESSION)
    store.finish(SESSION)
    with pytest.raises(UsageError, match="was begun here"):
        store.finish(SESSION)


@pytest.mark.parametrize(("key", "session"), [(bytes(31), SESSION), (PEER, bytes(33))])
def test_keys_and_sessions_of_other_sizes_are_refused(store: SuspensionStore, key: bytes, session: bytes) -> None:
    for act in (lambda: store.begin("x", key, session), lambda: store.suspend("x", key, session, "y")):
        with pytest.raises(UsageError, match="32 bytes each"):
            act()
    assert store.list() == ()


# -- one session at a time --------------------------------------------------------------------------------------------


def test_there_is_one_session_with_a_peer_at_a_time(store: SuspensionStore, folder: Path) -> None:
    store.begin("St Anna", PEER, SESSION)
    for one in (store, SuspensionStore(folder)):
        with pytest.raises(UsageError, match="a session with 'St Anna' is under way"):
            one.begin("St Anna", PEER, NEXT)
        assert one.list()[0].under_way
        with pytest.raises(UsageError, match="is under way; stop it first"):
            one.clear(PEER)
    store.begin("St Olaf", OTHER, NEXT)
    store.finish(SESSION)
    store.begin("St Anna", PEER, SESSION)


def test_of_many_threads_that_begin_with_a_peer_one_does(store: SuspensionStore) -> None:
    begun = []

    def begin(number: int) -> None:
        try:
            store.begin("St Anna", PEER, bytes([number] * 32))
        except UsageError:
            return
        begun.append(number)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(begun) == 1


def test_another_process_that_is_writing_is_waited_for(store: SuspensionStore, folder: Path) -> None:
    store.check(PEER)
    begun = threading.Thread(target=store.begin, args=("St Anna", PEER, SESSION))
    with (folder / ".lock").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        begun.start()
        begun.join(0.3)
        assert begun.is_alive()
        assert files(folder) == []
    begun.join(10)
    assert len(files(folder)) == 1


DYING = """
import sys, time
from pathlib import Path
from api.mpc.suspensions import SuspensionStore

store = SuspensionStore(Path(sys.argv[1]))
store.begin("St Anna", bytes.fromhex(sys.argv[2]), bytes.fromhex(sys.argv[3]))
print("begun", flush=True)
time.sleep(60)
"""


def test_a_node_that_is_killed_in_a_session_leaves_a_suspension(store: SuspensionStore, folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", DYING, str(folder), PEER.hex(), SESSION.hex()], stdout=subprocess.PIPE, cwd=ROOT
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        with pytest.raises(UsageError, match="is under way"):
            store.check(PEER)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    with pytest.raises(UsageError, match="the node ended during a session") as caught:
        store.check(PEER)
    assert "sealproof mpc clear 'St Anna'" in str(caught.value)
    assert [(one.session, one.reason, one.under_way) for one in store.list()] == [(SESSION, ENDED, False)]
    assert [one.session for one in store.clear("St Anna")] == [SESSION]
    store.check(PEER)


# -- clearing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", [PEER, PEER.hex(), "St Anna"], ids=["key", "hex", "name"])
def test_clearing_takes_all_suspensions_of_a_peer_away_and_no_others(store: SuspensionStore, by: bytes | str) -> None:
    store.suspend("St Anna", PEER, SESSION, "first", WHEN)
    store.suspend("St Anna", PEER, NEXT, "second", WHEN)
    store.suspend("St Olaf", OTHER, SESSION, "third", WHEN)
    assert [one.reason for one in store.clear(by)] == ["first", "second"]
    store.check(PEER)
    with pytest.raises(UsageError, match="third"):
        store.check(OTHER)


def test_there_must_be_something_to_clear(store: SuspensionStore) -> None:
    for peer in (PEER, PEER.hex(), "St Anna"):
        with pytest.raises(UsageError, match="nothing to clear"):
            store.clear(peer)


def test_a_name_of_two_keys_clears_neither(store: SuspensionStore) -> None:
    store.suspend("St Anna", PEER, SESSION, "first", WHEN)
    store.suspend("St Anna", OTHER, SESSION, "second", WHEN)
    store.suspend(PEER.hex(), OTHER, NEXT, "one that calls itself by the key of another", WHEN)
    for name in ("St Anna", PEER.hex()):
        with pytest.raises(UsageError, match="the name of several keys") as caught:
            store.clear(name)
        assert PEER.hex() in str(caught.value)
        assert OTHER.hex() in str(caught.value)
    assert len(store.list()) == 3


# -- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff" * 100, b"x" * 100_000], ids=["empty", "other", "noise", "large"])
def test_a_damaged_file_is_a_suspension_of_its_pair_and_no_other(
    store: SuspensionStore, folder: Path, data: bytes
) -> None:
    store.suspend("St Anna", PEER, SESSION, "first", WHEN)
    (folder / files(folder)[0]).write_bytes(data)
    for act in (lambda: store.check(PEER), lambda: store.begin("St Anna", PEER, NEXT)):
        with pytest.raises(DecodeError, match=f"is suspended until `sealproof mpc clear {PEER.hex()} -f FOLDER`"):
            act()
    store.check(OTHER)
    (found,) = store.list()
    assert "damaged" in found.reason
    with pytest.raises(UsageError, match="give its key in hex"):
        store.clear("St Anna")
    assert store.clear(PEER.hex()) == ()
    store.check(PEER)


def test_a_file_moved_to_the_name_of_another_pair_is_damaged(store: SuspensionStore, folder: Path) -> None:
    store.suspend("St Anna", PEER, SESSION, "first", WHEN)
    (folder / files(folder)[0]).rename(folder / f"{OTHER.hex()}.{SESSION.hex()}.json")
    with pytest.raises(DecodeError, match="another pair or session"):
        store.check(OTHER)


def test_a_file_that_is_no_suspension_stops_everything(store: SuspensionStore, folder: Path) -> None:
    (folder / "suspension (copy).json").write_bytes(b"{}")
    with pytest.raises(DecodeError, match="taken away"):
        store.check(PEER)


def test_what_a_crash_left_of_a_write_is_ignored(store: SuspensionStore, folder: Path) -> None:
    (folder / f".{PEER.hex()}.{SESSION.hex()}.json.0123456789abcdef").write_bytes(b"half")
    store.check(PEER)


def test_a_file_that_others_may_read_is_refused(store: SuspensionStore, folder: Path) -> None:
    store.suspend("St Anna", PEER, SESSION, "first", WHEN)
    (folder / files(folder)[0]).chmod(0o644)
    with pytest.raises(UsageError, match="accessible to others"):
        store.check(PEER)


def test_a_mark_damaged_during_its_session_stays_a_suspension(store: SuspensionStore, folder: Path) -> None:
    store.begin("St Anna", PEER, SESSION)
    (folder / files(folder)[0]).write_bytes(b"noise")
    with pytest.raises(DecodeError):
        store.finish(SESSION)
    with pytest.raises(DecodeError, match="is suspended until"):
        store.check(PEER)
    store.clear(PEER)
    store.begin("St Anna", PEER, NEXT)
    (folder / files(folder)[0]).write_bytes(b"noise")
    store.fail(NEXT, "broken")
    with pytest.raises(UsageError, match="broken"):
        store.check(PEER)
