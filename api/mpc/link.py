"""Links between nodes: TLS 1.3 with a pinned Ed25519 key on both sides, and no authority in between.

Both sides prove their long-term key in the handshake (`api.mpc.handshake`); here the key that was proved is compared
with the one that is expected. A client then says `link/ready`, and the server answers it once some `Listener.accept`
wanted this key: `connect` returns only when both sides are satisfied.

A channel belongs to one thread at a time; only `interrupt` may come from another. While a write waits for the peer to
take bytes, what the peer sends is read ahead up to a bound, so that two sides that both write before they read do not
wait for each other for ever.
"""

from __future__ import annotations

import contextlib
import logging
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple, NoReturn

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.mpc.handshake import secured
from privacy.errors import SessionBroken, UsageError
from privacy.mpc.channel import StreamChannel

__all__ = ["Address", "LinkChannel", "Listener", "connect", "parse_address"]

_READY: Final = "link/ready"
_KEY_BYTES: Final = 32
_HANDSHAKE_SECONDS: Final = 5.0
_HOLD_SECONDS: Final = 20.0
_STALL_SECONDS: Final = 120.0
_ABORT_SECONDS: Final = 5.0
_LINGER_SECONDS: Final = 1.0
_ALERT_SECONDS: Final = 0.25
_EVICTION_SECONDS: Final = 2.0
_MAX_GUESTS: Final = 64
_READ_AHEAD_BYTES: Final = 1 << 26
_CHUNK_BYTES: Final = 1 << 16
_SLOWEST_BYTES_PER_SECOND: Final = 1 << 16
"""A frame may take its channel's stall timeout and, beyond it, the time that it needs at this rate."""

_LOGGER: Final = logging.getLogger("sealproof.link")
_ADDRESS: Final = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([A-Za-z0-9_.-]+)):([0-9]{1,5})")


class Address(NamedTuple):
    """Where a node listens: a host name or IP address, and a TCP port (0: any free one, for listening only)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """The address that `host:port` or `[IPv6]:port` names. Raises UsageError."""
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match[3]) > 65535:
        raise UsageError(f"{text!r} is not an address: expected host:port or [IPv6 address]:port")
    return Address(match[1] or match[2], int(match[3]))


class LinkChannel(StreamChannel):
    """A channel to the node whose key is `peer_key` (32 bytes). Made by `connect` and `Listener.accept` only.

    `timeout`: the seconds without a single byte after which a send or receive gives up as `mpc.stalled`; may be
    changed at any time. `sent_bytes` and `received_bytes` count frames, not TLS or the handshake.
    """

    def __init__(
        self, connection: ssl.SSLSocket, peer_key: bytes, timeout: float, read_ahead: int = _READ_AHEAD_BYTES
    ) -> None:
        super().__init__(f"node {peer_key.hex()[:16]}")
        self.peer_key = peer_key
        self.timeout = timeout
        self._connection = connection
        self._connection.settimeout(0)
        self._read_ahead = read_ahead
        self._ahead = bytearray()
        self._label = ""
        self._deadline: float | None = None
        self._reads_over = False
        self._writes_over = False
        self._aborted = False
        self._interrupted = False
        self._closed = False

    def receive(self, label: str, size: int) -> bytes:
        """The next frame, of this label and size.

        Raises SessionBroken: `mpc.aborted`, `mpc.frame`, `mpc.stalled`, `mpc.gone`; nothing can be received after it.
        """
        if self._reads_over:
            raise SessionBroken("mpc.gone", f"nothing can be received from {self.peer} any more")
        self._label, self._deadline = label, time.monotonic() + self._allowance(size)
        try:
            return super().receive(label, size)
        except SessionBroken:
            self._reads_over = True  # in the midst of a frame, perhaps: what follows has no meaning
            raise
        finally:
            self._deadline = None

    def abort(self, reason: str) -> None:
        """Tell the other side why there will be nothing more, waiting for at most a few seconds. Never raises."""
        if self._aborted or self._closed:
            return
        self.timeout = min(self.timeout, _ABORT_SECONDS)
        super().abort(reason.encode("utf-8", "replace").decode("utf-8"))
        self._aborted = self._writes_over = True
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._connection, socket.SHUT_WR)

    def close(self, linger: float = _LINGER_SECONDS) -> None:
        """End the connection; after an abort wait `linger` seconds for the peer to read why. Never raises."""
        if self._closed:
            return
        self._closed = self._reads_over = self._writes_over = True
        with contextlib.suppress(OSError, ValueError):
            socket.socket.shutdown(self._connection, socket.SHUT_WR)
            # A socket that is closed with bytes unread resets the connection, and the reason of an abort may be lost.
            deadline = time.monotonic() + linger
            while self._aborted and time.monotonic() < deadline and self._wait(select.POLLIN, deadline):
                if not socket.socket.recv(self._connection, _CHUNK_BYTES):
                    break
        self._connection.close()

    def interrupt(self) -> None:
        """Let what another thread waits for on this channel fail as `mpc.gone`. That thread then aborts and closes."""
        self._interrupted = True

    def __enter__(self) -> LinkChannel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def idle(self) -> bool:
        """Whether the peer is there and has sent nothing that was not received: true of one that waits for us."""
        return not self._ahead and not self._connection.pending() and not self._wait(select.POLLIN, time.monotonic())

    def _send(self, kind: int, label: str, data: bytes) -> None:
        self._label = label
        super()._send(kind, label, data)

    def _write(self, data: bytes) -> None:
        if self._writes_over:
            raise SessionBroken("mpc.gone", f"nothing can be sent to {self.peer} any more")
        deadline, view = time.monotonic() + self._allowance(len(data)), memoryview(data)
        try:
            while view:
                try:
                    view = view[self._connection.send(view[:_CHUNK_BYTES]) :]
                except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                    full = len(self._ahead) >= self._read_ahead
                    self._wait_or_fail(select.POLLOUT if full else select.POLLOUT | select.POLLIN, deadline)
                    self._take_ahead()
        except (OSError, ValueError) as error:
            self._writes_over = True
            with contextlib.suppress(OSError, ValueError):
                self._take_ahead()
            self._raise_if_aborted()
            if isinstance(error, TimeoutError):
                raise SessionBroken(
                    "mpc.stalled",
                    f"{self.peer} took nothing for {self.timeout:g} s; {len(view)} of {len(data)} bytes of "
                    f"{self._label!r} were to be sent",
                ) from None
            self._raise_gone(error, f"{self._label!r} was being sent")

    def _take_ahead(self) -> None:
        """Move what has arrived to the buffer, up to its bound. Raises OSError at the end of the stream too."""
        while len(self._ahead) < self._read_ahead:
            try:
                part = self._connection.recv(_CHUNK_BYTES)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            if not part:
                raise ConnectionResetError("the connection was closed")
            self._ahead += part

    def _raise_if_aborted(self) -> None:
        """A write that failed is best explained by the abort that came before. Writes happen between frames read."""
        place, ahead = 0, self._ahead
        while place + 2 <= len(ahead) and not self._reads_over:
            head = place + 2 + ahead[place + 1]
            end = head + 4 + int.from_bytes(ahead[head : head + 4], "little")
            if ahead[place] == 1 and end <= len(ahead):
                del ahead[:place]
                self.receive("abort", 0)
            place = end

    def _read(self, size: int) -> bytes:
        data = bytearray(size)
        got = min(size, len(self._ahead))
        data[:got] = self._ahead[:got]
        del self._ahead[:got]
        view = memoryview(data)
        deadline = self._deadline or time.monotonic() + self._allowance(size)
        try:
            while got < size:
                try:
                    count = self._connection.recv_into(view[got : got + _CHUNK_BYTES])
                except ssl.SSLWantReadError:
                    self._wait_or_fail(select.POLLIN, deadline)
                except ssl.SSLWantWriteError:
                    self._wait_or_fail(select.POLLOUT, deadline)
                else:
                    if not count:
                        raise ConnectionResetError("the connection was closed")
                    got += count
        except TimeoutError:
            raise SessionBroken(
                "mpc.stalled",
                f"{self.peer} sent nothing for {self.timeout:g} s, or too slowly; {self._label!r} was due",
            ) from None
        except (OSError, ValueError) as error:
            self._raise_gone(error, f"{self._label!r} was due")
        return bytes(data)

    def _raise_gone(self, error: Exception, what: str) -> NoReturn:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise SessionBroken("mpc.gone", f"{self.peer} is gone while {what}: {reason}") from error

    def _allowance(self, size: int) -> float:
        return self.timeout + size / _SLOWEST_BYTES_PER_SECOND

    def _wait(self, events: int, deadline: float) -> bool:
        poll = select.poll()
        poll.register(self._connection.fileno(), events)
        return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))

    def _wait_or_fail(self, events: int, deadline: float) -> None:
        deadline = min(deadline, time.monotonic() + self.timeout)
        while not self._interrupted:
            if self._wait(events, min(deadline, time.monotonic() + _ALERT_SECONDS)):
                return
            if time.monotonic() >= deadline:
                raise TimeoutError
        raise ConnectionAbortedError("this node is stopping")

    def __reduce__(self) -> Any:
        raise UsageError("a link is a connection of this process and is not pickled or copied")


def connect(
    host: str,
    port: int,
    private_key: Ed25519PrivateKey,
    peer_key: bytes,
    timeout: float = 10.0,
    *,
    stall_timeout: float = _STALL_SECONDS,
) -> LinkChannel:
    """A link to the node at `host`:`port`, which must hold the key `peer_key` (32 bytes) and accept ours.

    `timeout` bounds the whole, from the look-up of the name to the other side's `accept`; `stall_timeout` is the
    channel's. Raises SessionBroken: `mpc.unreachable`, `mpc.peer-key` (another key is there), `mpc.aborted` (our key
    is not wanted there), `mpc.handshake`, `mpc.stalled`, `mpc.gone`; UsageError for a key that is not 32 bytes.
    """
    if len(peer_key) != _KEY_BYTES:
        raise UsageError(f"a key of a node has {_KEY_BYTES} bytes, got {len(peer_key)}")
    address, deadline = Address(host, port), time.monotonic() + timeout
    try:
        plain = socket.create_connection((host, port), timeout)
    except (OSError, UnicodeError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "no answer in time"
        raise SessionBroken("mpc.unreachable", f"{address}: {reason}") from error
    tls, found = secured(plain, private_key, deadline, f"{address}", server=False)
    channel = LinkChannel(tls, found, max(0.01, deadline - time.monotonic()))
    try:
        if found != peer_key:
            channel.abort(f"the key {found.hex()} is not the expected {peer_key.hex()}")
            raise SessionBroken("mpc.peer-key", f"{address} has the key {found.hex()}, expected {peer_key.hex()}")
        channel.send(_READY, b"")
        try:
            channel.receive(_READY, 0)
        except SessionBroken as error:
            if error.check != "mpc.stalled":
                raise
            own = private_key.public_key().public_bytes_raw().hex()
            raise SessionBroken(
                "mpc.stalled",
                f"{address} did not take up the connection within {timeout:g} s: its node is busy or does not expect "
                f"the key {own}",
            ) from None
    except BaseException:
        channel.close()
        raise
    channel.timeout = stall_timeout
    channel.sent_bytes = channel.received_bytes = 0
    return channel


class _Guest:
    """A connection that nobody has taken yet: in its handshake while `channel` is None, then waiting to be wanted."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.handle = connection.dup()  # for whoever ends it from outside; TLS takes `connection` over
        self.channel: LinkChannel | None = None
        self.taken = False
        self.evicted = False

    def close(self) -> None:
        """Let go of what has no channel that would."""
        self.handle.close()
        if self.channel is None:
            self.connection.close()


class Listener:
    """Takes connections at `address` for the node that holds `private_key`; `port` is where it really listens.

    Handshakes run in threads of their own and end after 5 s, so that a slow or hostile client stops nobody. Whoever
    has proved a key waits up to `hold` seconds for an `accept` that wants it. With `_MAX_GUESTS` connections under
    way or waiting the oldest has to go: an honest one is taken within moments. Raises UsageError if the address
    cannot be had.
    """

    def __init__(
        self,
        address: Address,
        private_key: Ed25519PrivateKey,
        *,
        hold: float = _HOLD_SECONDS,
        stall_timeout: float = _STALL_SECONDS,
        read_ahead: int = _READ_AHEAD_BYTES,
    ) -> None:
        self._private_key = private_key
        self._hold = hold
        self._stall_timeout = stall_timeout
        self._read_ahead = read_ahead
        self._changed = threading.Condition()
        self._guests: list[_Guest] = []
        self._closed = False
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        try:
            self._socket = socket.create_server(tuple(address), family=family, backlog=128)
        except (OSError, UnicodeError, OverflowError) as error:
            raise UsageError(f"cannot listen at {address}: {getattr(error, 'strerror', None) or error}") from error
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._listen, name="sealproof-listener", daemon=True)
        self._thread.start()

    def accept(self, allowed: bytes | Callable[[bytes], bool], timeout: float) -> LinkChannel:
        """The first connection of a node whose key is `allowed`, or for which `allowed(key)` is true.

        Several threads may wait for different keys. `allowed` is asked under a lock, perhaps often: it only looks.
        Raises SessionBroken after `timeout` seconds: `mpc.peer-key` if others with other keys are there, else
        `mpc.unreachable`; `mpc.gone` once the listener is closed.
        """
        wanted = allowed if callable(allowed) else lambda key: key == allowed
        deadline = time.monotonic() + timeout
        while True:
            channel = self._take(wanted, deadline)
            if channel is None:
                break
            try:
                channel.send(_READY, b"")
            except SessionBroken:
                channel.close()
                continue
            channel.timeout = self._stall_timeout
            channel.sent_bytes = channel.received_bytes = 0
            return channel
        with self._changed:
            waiting = [guest.channel for guest in self._guests if guest.channel is not None and not guest.taken]
            others = [channel.peer_key.hex() for channel in waiting]
        expected = "one of the expected keys" if callable(allowed) else f"the key {allowed.hex()}"
        if others:
            found = ", ".join(others[:4])
            raise SessionBroken("mpc.peer-key", f"nobody with {expected} in {timeout:g} s, only {found}")
        raise SessionBroken("mpc.unreachable", f"nobody with {expected} connected within {timeout:g} s")

    def close(self) -> None:
        """Take no more connections and end those that nobody took; links that were accepted live on."""
        with self._changed:
            self._closed = True
            for guest in self._guests:
                _shut(guest.handle)
            self._changed.notify_all()
        _shut(self._socket)  # wakes the thread that accepts
        self._thread.join()
        self._socket.close()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, wanted: Callable[[bytes], bool], deadline: float) -> LinkChannel | None:
        with self._changed:
            while True:
                if self._closed:
                    raise SessionBroken("mpc.gone", "this node does not listen any more")
                for guest in self._guests:
                    channel = guest.channel
                    if channel is None or guest.taken or guest.evicted or not wanted(channel.peer_key):
                        continue
                    if not channel.idle():  # gave up waiting, or talks out of turn
                        guest.evicted = True
                        continue
                    guest.taken = True
                    self._changed.notify_all()
                    return channel
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return None
                self._changed.wait(remaining)

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
                guest = _Guest(connection)
            except OSError as error:
                if self._closed:
                    return
                _LOGGER.warning("cannot take a connection: %s", error)
                time.sleep(0.1)  # out of descriptors, most likely: they come back when guests leave
                continue
            with self._changed:
                if len(self._guests) >= _MAX_GUESTS:
                    self._evict()
                    self._changed.wait_for(lambda: self._closed or len(self._guests) < _MAX_GUESTS, _EVICTION_SECONDS)
                admitted = not self._closed and len(self._guests) < _MAX_GUESTS
                if admitted:
                    self._guests.append(guest)
            if not admitted:
                guest.close()
                continue
            try:
                threading.Thread(target=self._receive_guest, args=(guest,), name="sealproof-guest", daemon=True).start()
            except RuntimeError:  # no more threads
                with self._changed:
                    self._guests.remove(guest)
                guest.close()

    def _evict(self) -> None:
        for guest in self._guests:
            if not guest.taken and not guest.evicted:
                guest.evicted = True
                _shut(guest.handle)
                self._changed.notify_all()
                return

    def _receive_guest(self, guest: _Guest) -> None:
        channel = None
        try:
            channel = self._welcome(guest)
            with self._changed:
                guest.channel = channel
                self._changed.notify_all()
                self._changed.wait_for(lambda: guest.taken or guest.evicted or self._closed, self._hold)
        except SessionBroken as error:
            _LOGGER.debug("a connection came to nothing: %s", error)
        finally:
            with self._changed:
                self._guests.remove(guest)
                self._changed.notify_all()
            if channel is not None and not guest.taken:
                channel.abort(f"the key {channel.peer_key.hex()} is not expected here at the moment")
                channel.close()
            guest.close()

    def _welcome(self, guest: _Guest) -> LinkChannel:
        deadline = time.monotonic() + _HANDSHAKE_SECONDS
        tls, key = secured(guest.connection, self._private_key, deadline, "a client", server=True)
        channel = LinkChannel(tls, key, max(0.01, deadline - time.monotonic()), self._read_ahead)
        try:
            channel.receive(_READY, 0)
        except SessionBroken:
            channel.close()
            raise
        return channel


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
