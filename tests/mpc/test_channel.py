"""Frames have the label and the size that both sides expect, or the session is over."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import SessionBroken, UsageError
from privacy.mpc import channel as module
from privacy.mpc.channel import MAX_FRAME_BYTES, MemoryChannel, StreamChannel, memory_channels


def raw(channel: MemoryChannel, data: bytes) -> None:
    """What a peer writes that does not use our code."""
    channel._write(data)


def frame(kind: int, label: bytes, data: bytes, length: int | None = None) -> bytes:
    size = (len(data) if length is None else length).to_bytes(4, "little")
    return bytes([kind, len(label)]) + label + size + data


def test_frames_arrive_in_order_with_their_labels() -> None:
    A, B = memory_channels()
    A.send("one", b"1")
    A.send("two", b"")
    A.send("three", bytes(100_000))
    assert B.receive("one", 1) == b"1"
    assert B.receive("two", 0) == b""
    assert B.receive("three", 100_000) == bytes(100_000)
    assert A.sent_bytes == B.received_bytes == 3 * 6 + 11 + 100_001
    assert A.received_bytes == B.sent_bytes == 0


def test_both_directions_are_apart() -> None:
    A, B = memory_channels()
    A.send("x", b"from A")
    B.send("x", b"from B")
    assert (A.receive("x", 6), B.receive("x", 6)) == (b"from B", b"from A")


@pytest.mark.parametrize(
    "sent",
    [
        frame(0, b"other", b"12345"),
        frame(0, b"label", b"1234"),
        frame(0, b"label", b"123456"),
        frame(0, b"label", b"", length=(1 << 32) - 1),
        frame(0, b"", b"12345"),
        frame(0, b"labe", b"l12345"),
        frame(0, b"\xff\xfe\x00\x1b[2J", b"12345"),
        frame(2, b"label", b"12345"),
        frame(255, b"label", b"12345"),
    ],
    ids=["label", "short", "long", "huge", "no label", "prefix", "unprintable", "kind", "kind 255"],
)
def test_any_other_frame_ends_the_session(sent: bytes) -> None:
    A, B = memory_channels(timeout=0.2)
    raw(A, sent)
    with pytest.raises(SessionBroken) as broken:
        B.receive("label", 5)
    assert broken.value.check == "mpc.frame"
    assert str(broken.value).isprintable()


def test_a_refused_frame_is_not_read() -> None:
    """4 GB are announced: the receiver neither waits for them nor makes room."""
    A, B = memory_channels(timeout=0.2)
    raw(A, frame(0, b"label", b"", length=(1 << 32) - 1))
    with pytest.raises(SessionBroken, match="expected 5"):
        B.receive("label", 5)


def test_an_abort_says_why_to_the_other_side() -> None:
    A, B = memory_channels()
    A.abort("the proof does not hold")
    with pytest.raises(SessionBroken, match="A gave up: the proof does not hold") as broken:
        B.receive("anything", 10)
    assert broken.value.check == "mpc.aborted"


@pytest.mark.parametrize("reason", ["", "x" * 5000, "é" * 300, "\x1b[2J\nline", "a\udc80b"], ids=ascii)
def test_no_reason_breaks_an_abort(reason: str) -> None:
    A, B = memory_channels()
    A.abort(reason)
    with pytest.raises(SessionBroken) as broken:
        B.receive("anything", 10)
    assert broken.value.check == "mpc.aborted"
    assert str(broken.value).isprintable() and len(str(broken.value)) < 500


def test_a_long_reason_of_a_peer_is_cut_short() -> None:
    A, B = memory_channels(timeout=0.2)
    raw(A, frame(1, b"abort", b"y" * 1000))
    with pytest.raises(SessionBroken) as broken:
        B.receive("anything", 10)
    assert str(broken.value).count("y") == 400


@pytest.mark.parametrize("part", range(13))
def test_a_frame_that_stops_in_the_middle_is_a_stall(part: int) -> None:
    A, B = memory_channels(timeout=0.05)
    whole = frame(0, b"label", b"12345")
    raw(A, whole[: min(part, len(whole) - 1)])
    with pytest.raises(SessionBroken) as broken:
        B.receive("label", 5)
    assert broken.value.check == "mpc.stalled"


@given(st.lists(st.integers(1, 7), min_size=1, max_size=40))
def test_bytes_may_come_in_any_pieces(sizes: list[int]) -> None:
    A, B = memory_channels(timeout=1)
    data = frame(0, b"a", b"hello") + frame(0, b"b", b"") + frame(0, b"c", b"world" * 3)
    at = 0
    for size in [*sizes, len(data)]:
        raw(A, data[at : at + size])
        at += size
    assert [B.receive("a", 5), B.receive("b", 0), B.receive("c", 15)] == [b"hello", b"", b"world" * 3]


@given(st.binary(max_size=60))
def test_arbitrary_bytes_end_the_session(data: bytes) -> None:
    A, B = memory_channels(timeout=0.001)
    raw(A, data)
    with pytest.raises(SessionBroken):
        B.receive("a label that nobody guesses", 3)


def test_labels_and_frames_that_cannot_be_sent_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    A, _ = memory_channels()
    assert MAX_FRAME_BYTES == 1 << 28
    for label in ("", "x" * 256):
        with pytest.raises(UsageError, match="labels"):
            A.send(label, b"")
    monkeypatch.setattr(module, "MAX_FRAME_BYTES", 10)
    A.send("x" * 255, bytes(10))
    with pytest.raises(UsageError, match="frames"):
        A.send("x", bytes(11))


def test_an_abort_never_raises() -> None:
    class Broken(StreamChannel):
        def _write(self, data: bytes) -> None:
            raise SessionBroken("mpc.gone", "gone")

    Broken("peer").abort("no matter")


def test_a_receiver_waits_for_a_sender() -> None:
    A, B = memory_channels(timeout=5)
    threading.Timer(0.05, A.send, ("late", b"x")).start()
    assert B.receive("late", 1) == b"x"
