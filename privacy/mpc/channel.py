"""What the parties of a session talk through: labelled frames whose sizes both know beforehand.

Every message of the protocol has a label and a length that follow from public shapes, so a receiver says what it
expects and anything else ends the session. A party that gives up says why in an abort frame, so that both sides know.
The transport (TLS with pinned keys, `api.mpc.link`) keeps what is sent secret and unchanged; here is only the order.

    frame   u8 kind (0 data, 1 abort) || u8 length of label || label || u32le length || bytes
"""

from __future__ import annotations

import queue
from typing import Final, Protocol

from privacy.errors import SessionBroken, UsageError

__all__ = ["MAX_FRAME_BYTES", "Channel", "MemoryChannel", "StreamChannel", "memory_channels"]

MAX_FRAME_BYTES: Final = 1 << 28
_MAX_REASON: Final = 400


class Channel(Protocol):
    """One end of a connection between two parties. Every method may raise SessionBroken."""

    sent_bytes: int
    received_bytes: int

    def send(self, label: str, data: bytes) -> None:
        """Send one frame."""

    def receive(self, label: str, size: int) -> bytes:
        """The next frame, which must carry this label and exactly `size` bytes."""

    def abort(self, reason: str) -> None:
        """Tell the other side why there will be nothing more. Never raises."""


class StreamChannel:
    """Frames over a byte stream; subclasses say how bytes are written and read (`SessionBroken` if they cannot)."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.sent_bytes = 0
        self.received_bytes = 0

    def _write(self, data: bytes) -> None:
        raise NotImplementedError

    def _read(self, size: int) -> bytes:
        raise NotImplementedError

    def send(self, label: str, data: bytes) -> None:
        """Send one frame. Raises SessionBroken."""
        self._send(0, label, data)

    def _send(self, kind: int, label: str, data: bytes) -> None:
        name = label.encode("ascii")
        if not 1 <= len(name) <= 255 or len(data) > MAX_FRAME_BYTES:
            raise UsageError(f"frame {label!r} of {len(data)} bytes: labels have 1 to 255, frames at most 2^28 bytes")
        frame = bytes([kind, len(name)]) + name + len(data).to_bytes(4, "little") + data
        self._write(frame)
        self.sent_bytes += len(frame)

    def receive(self, label: str, size: int) -> bytes:
        """The next frame, of this label and size. Raises SessionBroken: `mpc.aborted`, `mpc.frame`."""
        kind, name_length = self._read(2)
        name = self._read(name_length)
        length = int.from_bytes(self._read(4), "little")
        self.received_bytes += 6 + name_length + length
        if kind == 1:
            reason = self._read(min(length, _MAX_REASON)).decode("utf-8", "replace")
            shown = "".join(c if c.isprintable() else "?" for c in reason)
            raise SessionBroken("mpc.aborted", f"{self.peer} gave up: {shown}")
        if kind != 0 or name != label.encode("ascii") or length != size:
            raise SessionBroken(
                "mpc.frame", f"{self.peer} sent {length} bytes of {name[:40]!r}, expected {size} of {label!r}"
            )
        return self._read(size)

    def abort(self, reason: str) -> None:
        """Tell the other side why there will be nothing more. Never raises."""
        try:
            self._send(1, "abort", reason.encode("utf-8", "replace")[:_MAX_REASON])
        except SessionBroken:
            return


class MemoryChannel(StreamChannel):
    """A channel within one process, for tests and benchmarks; made in pairs by `memory_channels`."""

    def __init__(
        self, peer: str, outgoing: queue.SimpleQueue[bytes], incoming: queue.SimpleQueue[bytes], timeout: float
    ) -> None:
        super().__init__(peer)
        self._outgoing = outgoing
        self._incoming = incoming
        self._timeout = timeout
        self._buffer = b""

    def _write(self, data: bytes) -> None:
        self._outgoing.put(data)

    def _read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            try:
                self._buffer += self._incoming.get(timeout=self._timeout)
            except queue.Empty:
                raise SessionBroken("mpc.stalled", f"{self.peer} sent nothing for {self._timeout:g} s") from None
        part, self._buffer = self._buffer[:size], self._buffer[size:]
        return part


def memory_channels(left: str = "A", right: str = "B", timeout: float = 30.0) -> tuple[MemoryChannel, MemoryChannel]:
    """Both ends of a connection: that of `left`, whose peer is `right`, and that of `right`."""
    forth: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    back: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    return MemoryChannel(right, forth, back, timeout), MemoryChannel(left, back, forth, timeout)
