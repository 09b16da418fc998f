"""The monitor's memory: whom to trust, the last head seen, and evidence against a log that contradicts itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from api.client.audit import verify_bundle
from api.client.trust import TrustStore, home_folder
from ledger import DecodeError, Fork, InconsistentGrowth, Log, Rollback, Signer, UsageError, open_checkpoint
from privacy.errors import VerificationFailed
from tests.support.bundles import Story

ORIGIN = "log.example/a"


@pytest.fixture
def signer() -> Signer:
    return Signer.generate(ORIGIN)


@pytest.fixture
def log(tmp_path: Path, signer: Signer) -> Log:
    log = Log.create(tmp_path / "log.sqlite", signer)
    log.append_many([b"a", b"b", b"c"])
    return log


@pytest.fixture
def fork(tmp_path: Path, signer: Signer) -> Log:
    log = Log.create(tmp_path / "fork.sqlite", signer)
    log.append_many([b"a", b"b", b"X"])
    return log


@pytest.fixture
def store(tmp_path: Path, signer: Signer) -> TrustStore:
    store = TrustStore(tmp_path / "home")
    store.add(str(signer.verifier))
    return store


def no_proof(old: int, new: int) -> Sequence[bytes]:
    raise AssertionError("nothing to prove")


def evidence(tmp_path: Path) -> set[bytes]:
    return {path.read_bytes() for path in (tmp_path / "home" / "evidence").rglob("*.note")}


def test_keys_are_added_listed_and_removed(store: TrustStore, signer: Signer, tmp_path: Path) -> None:
    other = Signer.generate("another.example/log")
    store.add(f"{other.verifier}\n")
    assert store.list() == [other.verifier, signer.verifier]
    assert store.find(ORIGIN) == signer.verifier
    assert store.find("unknown.example") is None
    store.remove(ORIGIN)
    assert store.list() == [other.verifier]
    with pytest.raises(UsageError, match="was not trusted"):
        store.remove(ORIGIN)
    assert (tmp_path / "home" / "logs").stat().st_mode & 0o077 == 0


def test_a_key_is_not_replaced_by_accident(store: TrustStore, signer: Signer) -> None:
    with pytest.raises(UsageError, match="another key is trusted"):
        store.add(str(Signer.generate(ORIGIN).verifier))
    assert store.add(str(signer.verifier)) == [signer.verifier]
    for text in ("", "hello", f"{signer.verifier}x", "../../etc+00000000+AA=="):
        with pytest.raises(DecodeError):
            store.add(text)
    assert store.list() == [signer.verifier]


def test_a_key_file_of_another_log_is_refused(store: TrustStore, tmp_path: Path) -> None:
    (path,) = (tmp_path / "home" / "logs").iterdir()
    path.write_text(f"{Signer.generate('mallory.example').verifier}\n")
    with pytest.raises(DecodeError, match="mallory"):
        store.find(ORIGIN)


def test_heads_are_followed_and_kept(store: TrustStore, log: Log) -> None:
    first = store.follow(log.checkpoint(), ORIGIN, no_proof)
    assert store.head(ORIGIN) == first
    log.append(b"d")
    second = store.follow(log.checkpoint(), ORIGIN, log.consistency_proof)
    assert (first.size, second.size, store.head(ORIGIN)) == (3, 4, second)
    assert store.follow(log.checkpoint(), ORIGIN, no_proof) == second
    store.remove(ORIGIN)
    store.add(str(log._verifier))
    assert store.head(ORIGIN) is None


def test_a_rollback_is_refused_with_evidence(store: TrustStore, log: Log, tmp_path: Path) -> None:
    old = log.checkpoint()
    log.append(b"d")
    kept = store.follow(log.checkpoint(), ORIGIN, log.consistency_proof)
    with pytest.raises(Rollback):
        store.follow(old, ORIGIN, log.consistency_proof)
    assert store.head(ORIGIN) == kept
    assert evidence(tmp_path) == {old, kept.note}


def test_a_fork_is_refused_with_evidence(store: TrustStore, log: Log, fork: Log, tmp_path: Path) -> None:
    kept = store.follow(log.checkpoint(), ORIGIN, no_proof)
    with pytest.raises(Fork):
        store.follow(fork.checkpoint(), ORIGIN, fork.consistency_proof)
    assert evidence(tmp_path) == {kept.note, fork.checkpoint()}
    fork.append(b"d")
    with pytest.raises(InconsistentGrowth):
        store.follow(fork.checkpoint(), ORIGIN, fork.consistency_proof)
    assert store.head(ORIGIN) == kept


def test_heads_in_bundles_may_be_older_but_not_of_a_fork(
    store: TrustStore, log: Log, fork: Log, signer: Signer, tmp_path: Path
) -> None:
    def head(of: Log) -> object:
        return open_checkpoint(of.checkpoint(), signer.verifier, ORIGIN)

    old, forked = head(log), head(fork)
    log.append(b"d")
    store.observe(head(log), None)  # type: ignore[arg-type]
    kept = store.head(ORIGIN)
    store.observe(old, log.consistency_proof)  # type: ignore[arg-type]
    store.observe(forked, None)  # type: ignore[arg-type]  # offline there is nothing to tell them apart
    with pytest.raises(InconsistentGrowth):
        store.observe(forked, log.consistency_proof)  # type: ignore[arg-type]
    assert store.head(ORIGIN) == kept
    fork.append(b"e")
    with pytest.raises(Fork):
        store.observe(head(fork), None)  # type: ignore[arg-type]
    log.append(b"e")
    store.observe(head(log), None)  # type: ignore[arg-type]
    assert store.head(ORIGIN) == kept  # not tied to it, so not kept
    store.observe(head(log), log.consistency_proof)  # type: ignore[arg-type]
    assert store.head(ORIGIN) == head(log)
    assert len(evidence(tmp_path)) == 3


def test_an_unknown_log_has_no_head(store: TrustStore) -> None:
    with pytest.raises(UsageError, match="is not trusted"):
        store.head("unknown.example")


def test_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALPROOF_HOME", "/a")
    assert home_folder() == Path("/a")
    monkeypatch.delenv("SEALPROOF_HOME")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/b")
    assert home_folder() == Path("/b/sealproof")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert home_folder() == Path.home() / ".config" / "sealproof"


def test_the_auditor_uses_the_store_and_refuses_a_fork(story: Story, honest_bundle: Path, tmp_path: Path) -> None:
    store = TrustStore(tmp_path / "home")
    with pytest.raises(VerificationFailed, match=r"log\.untrusted.*--log-key"):
        verify_bundle(honest_bundle, store)
    store.add(str(story.world.verifier))
    verified = verify_bundle(honest_bundle, store, cache=story.world.cache)
    assert store.head(verified.head.origin) == verified.head
    verify_bundle(honest_bundle, store, ledger=story.world, cache=story.world.cache)
    kept = store.head(verified.head.origin)
    assert kept is not None
    assert kept.size == story.world.log.size

    forked = Log.create(tmp_path / "fork.sqlite", story.world.signer)
    forked.append_many([b"x"] * kept.size)

    class Forked:
        checkpoint = forked.checkpoint
        consistency = forked.consistency_proof

        def __getattr__(self, name: str) -> object:
            return getattr(story.world, name)

    with pytest.raises(VerificationFailed) as caught:
        verify_bundle(honest_bundle, store, ledger=Forked(), cache=story.world.cache)  # type: ignore[arg-type]
    assert caught.value.check in ("monitor.fork", "monitor.consistency")
