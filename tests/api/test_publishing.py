"""Heads reach readers only when they are durable, dated, and shown to the witnesses; in order and never backwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from api.client.transport import ServerUnreachable
from api.clock import clock_name
from api.publishing import Publisher
from ledger import CorruptLog, Log, Signer, StorageError
from ledger.cosignature import CosignatureVerifier, Cosigner
from ledger.errors import VerificationFailed
from ledger.merkle import verify_consistency
from ledger.note import Note, Signature
from ledger.trust_policy import TlogPolicy
from ledger.witness_wire import WitnessReply

ORIGIN = "log.example/a"


class FakeWitness:
    """A witness as `WitnessClient` shows it, which checks what it is sent and may be made to misbehave."""

    def __init__(self, log: Log, name: str) -> None:
        self.name = name
        self.log = log
        self.cosigner = Cosigner.generate(f"{name}.example/w")
        self.verifier: CosignatureVerifier = self.cosigner.verifier
        self.size, self.root = 0, b""
        self.seconds = 0.0
        self.down = False
        self.asked: list[int] = []
        self.undurable = 0
        self.shown: bytes | None = None

    def latest(self, origin: str) -> bytes:
        if self.down or self.shown is None:
            raise ServerUnreachable("it does not show what it saw")
        return self.shown

    def add_checkpoint(self, old: int, proof: Sequence[bytes], checkpoint: bytes) -> WitnessReply:
        time.sleep(self.seconds)
        if self.down:
            raise ServerUnreachable("no answer")
        text = Note.parse(checkpoint).text
        size = int(text.split("\n")[1])
        self.asked.append(size)
        if old != self.size:
            return WitnessReply(None, self.size, "conflict")
        if size > self.log.head().size:
            self.undurable += 1
        root = self.log.root_at(size)
        if old:
            verify_consistency(old, size, proof, self.root, root)
        self.size, self.root = size, root
        return WitnessReply(self.cosigner.cosign(text.encode(), int(time.time())), None, "")


class Set:
    """A log, three fake witnesses, and publishers over them."""

    def __init__(self, folder: Path) -> None:
        self.signer = Signer.generate(ORIGIN)
        self.log = Log.create(folder / "log.sqlite", self.signer)
        self.witnesses = [FakeWitness(self.log, f"w{i}") for i in range(3)]
        self.clock = Cosigner.generate(clock_name(ORIGIN))
        lines = [f"log {self.signer.verifier}"]
        lines += [f"witness {w.name} {w.verifier} http://{w.name}.example" for w in self.witnesses]
        self.policy = TlogPolicy.parse("\n".join([*lines, "group g 2 w0 w1 w2", "quorum g", ""]))
        self.made: list[Publisher] = []

    def publisher(self, *, witnesses: bool = True, seconds: float = 1.0) -> Publisher:
        clients: Any = self.witnesses if witnesses else []
        made = Publisher(self.log, self.clock, self.policy if witnesses else None, clients, seconds)
        self.made.append(made)
        made.start()
        return made

    def append(self, publisher: Publisher, entry: bytes) -> int:
        index = self.log.append(entry).index
        publisher.wake()
        assert publisher.wait_for(index + 1, 10)
        return index

    def names(self) -> list[str]:
        return [s.name for s in Note.parse(self.log.published().note).signatures]


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Set]:
    made = Set(tmp_path)
    yield made
    for publisher in made.made:
        publisher.close()
    made.log.close()


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def test_without_witnesses_the_clock_dates_every_head(parts: Set) -> None:
    publisher, before = parts.publisher(witnesses=False), int(time.time())
    for n in range(3):
        parts.append(publisher, b"%d" % n)
    for head in parts.log.publications(1, 9):
        (signature,) = (s for s in Note.parse(head.note).signatures if s.name == f"{ORIGIN}/clock")
        parts.clock.verifier.verify(Note.parse(head.note).text.encode(), signature.signature)
        assert before <= parts.clock.verifier.time(signature.signature) <= time.time()
    assert parts.names() == [ORIGIN, f"{ORIGIN}/clock"]


def test_a_head_is_published_as_soon_as_the_quorum_has_cosigned_it(parts: Set) -> None:
    parts.witnesses[2].seconds = 5
    publisher, started = parts.publisher(seconds=4), time.monotonic()
    parts.append(publisher, b"a")
    assert time.monotonic() - started < 3, "it did not wait for the slow one"
    assert len(parts.policy.open(parts.log.published().note, ORIGIN).cosigned) == 2
    assert all(w.undurable == 0 for w in parts.witnesses)


def test_a_dead_witness_holds_up_nothing_and_a_missing_quorum_only_for_a_while(parts: Set) -> None:
    parts.witnesses[0].down = True
    publisher = parts.publisher(seconds=5)
    parts.append(publisher, b"a")
    assert len(parts.policy.open(parts.log.published().note, ORIGIN).cosigned) == 2
    parts.witnesses[1].down = True
    parts.append(publisher, b"b")
    assert parts.log.published().size == 2
    with pytest.raises(VerificationFailed, match=r"policy\.quorum"):
        parts.policy.open(parts.log.published().note, ORIGIN)
    assert publisher.first_head_with(0).size == 1, "the first head with a quorum"
    assert publisher.first_head_with(1).size == 2, "there is none with a quorum"


def test_missing_cosignatures_are_added_when_a_witness_is_back(parts: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.publishing._AGAIN_SECONDS", 0.05)
    parts.witnesses[0].down = parts.witnesses[1].down = True
    publisher = parts.publisher(seconds=0.05)
    parts.append(publisher, b"a")
    first = Note.parse(parts.log.published().note).signatures
    parts.witnesses[0].down = False
    until(lambda: f"{parts.witnesses[0].name}.example/w" in parts.names())
    assert Note.parse(parts.log.published().note).signatures[: len(first)] == first, "signatures are only added"
    assert parts.policy.open(parts.log.published().note, ORIGIN).time is not None


def test_a_witness_that_missed_heads_is_asked_again_from_where_it_stands(parts: Set) -> None:
    publisher = parts.publisher(seconds=5)
    parts.append(publisher, b"a")
    parts.witnesses[0].down = True
    parts.append(publisher, b"b")
    parts.append(publisher, b"c")
    parts.witnesses[0].down = False
    until(lambda: len(parts.witnesses[2].asked) >= 3)
    parts.append(publisher, b"d")
    until(lambda: parts.witnesses[0].size == 4)
    publisher.close()
    again = parts.publisher()  # knows nothing of what the witnesses know
    parts.append(again, b"e")
    assert len(parts.policy.open(parts.log.published().note, ORIGIN).cosigned) >= 2


def test_a_witness_ahead_of_the_log_does_not_cosign(parts: Set) -> None:
    parts.witnesses[0].size = 50
    publisher = parts.publisher()
    parts.append(publisher, b"a")
    cosigned = parts.policy.open(parts.log.published().note, ORIGIN).cosigned
    assert [c.name for c in cosigned] == ["w1", "w2"]


def test_heads_left_unpublished_by_a_crash_are_published_at_the_next_start(parts: Set) -> None:
    parts.log.append(b"a")
    publisher = parts.publisher()
    assert publisher.wait_for(1, 10)


@pytest.mark.parametrize("stored", [False, True], ids=["not persisted", "persisted but reported failed"])
def test_a_failed_publication_is_tried_again(parts: Set, monkeypatch: pytest.MonkeyPatch, stored: bool) -> None:
    real, failures = parts.log.publish, [2]

    def failing(note: bytes) -> Any:
        if failures[0]:
            failures[0] -= 1
            if stored:
                real(note)
            raise StorageError("injected")
        return real(note)

    monkeypatch.setattr(parts.log, "publish", failing)
    publisher = parts.publisher()
    index = parts.log.append(b"a").index
    assert publisher.wait_for(index + 1, 10)
    assert [head.size for head in parts.log.publications(0, 9)] == [1]


def test_many_appends_at_once_share_heads_and_all_are_published(parts: Set) -> None:
    publisher = parts.publisher()
    threads = [threading.Thread(target=parts.append, args=(publisher, b"%d" % n)) for n in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sizes = [head.size for head in parts.log.publications(0, 99)]
    assert sizes == sorted(set(sizes)) and sizes[-1] == 24
    assert all(w.undurable == 0 for w in parts.witnesses)


def test_a_bad_cosignature_is_not_published(parts: Set) -> None:
    """`WitnessClient` refuses it before; should it not, the policy of the server itself does not count the head."""
    publisher = parts.publisher(seconds=5)
    stranger = Cosigner.generate("stranger.example/w")

    def lie(old: int, proof: Sequence[bytes], checkpoint: bytes) -> WitnessReply:
        signature = stranger.cosign(Note.parse(checkpoint).text.encode(), 1)
        return WitnessReply(Signature(signature.name, signature.key_id, signature.signature), None, "")

    parts.witnesses[0].add_checkpoint = lie  # type: ignore[method-assign]
    parts.append(publisher, b"a")
    assert [c.name for c in parts.policy.open(parts.log.published().note, ORIGIN).cosigned] == ["w1", "w2"]


def test_a_witness_that_is_too_late_for_the_quorum_is_added_all_the_same(parts: Set) -> None:
    """A reader may demand more witnesses than the server waits for."""
    parts.witnesses[2].seconds = 2
    publisher = parts.publisher(seconds=4)
    parts.append(publisher, b"a")
    assert len(parts.policy.open(parts.log.published().note, ORIGIN).cosigned) == 2
    until(lambda: len(parts.policy.open(parts.log.published().note, ORIGIN).cosigned) == 3, 20)


def test_a_slow_witness_is_asked_about_the_newest_head_once_it_has_answered(parts: Set) -> None:
    parts.witnesses[2].seconds = 0.3
    publisher = parts.publisher(seconds=4)
    for n in range(5):
        parts.append(publisher, b"%d" % n)
    until(lambda: parts.witnesses[2].size == 5, 20)
    until(lambda: len(parts.policy.open(parts.log.published().note, ORIGIN).cosigned) == 3, 20)


@pytest.mark.parametrize("shown", ["ahead", "fork"])
def test_a_ledger_restored_from_an_old_copy_signs_nothing_on_top_of_it(parts: Set, tmp_path: Path, shown: str) -> None:
    """Its key signed heads that it has forgotten. Without the question at the start it would sign a fork."""
    lost = Log.create(tmp_path / "lost.sqlite", parts.signer)
    lost.append_many([b"a", b"b", b"c"] if shown == "ahead" else [b"x"])
    parts.log.append(b"a")
    parts.witnesses[1].shown = lost.checkpoint()
    parts.witnesses[1].size, parts.witnesses[1].root = lost.head().size, lost.head().root
    publisher = parts.publisher()
    with pytest.raises(CorruptLog, match="restored from an old copy"):
        publisher.check()
    parts.log.append(b"whatever is appended all the same")
    publisher.wake()
    assert not publisher.wait_for(2, 0.5)
    assert parts.log.publications(0, 9) == []
    lost.close()


def test_a_witness_cannot_stop_a_log_with_a_head_that_its_key_did_not_sign(parts: Set, tmp_path: Path) -> None:
    stranger = Log.create(tmp_path / "stranger.sqlite", Signer.generate(ORIGIN))
    stranger.append_many([b"a", b"b", b"c"])
    parts.witnesses[1].shown = stranger.checkpoint()
    publisher = parts.publisher()
    parts.append(publisher, b"a")
    publisher.check()
    stranger.close()
