"""The dealer as a process: it deals correlated randomness to pairs of nodes over links, and sees no data.

A node connects (`api.mpc.link`, under its own key), and every length below is fixed or announced before:

    node   -> dealer   dealer/hello      session (32) || role (1, "A" or "B") || key of the other party (32)
    dealer -> node     dealer/paired     empty, once the other party is there and names this one
    node   -> dealer   dealer/plan-size  u32le, 0 to end the session
    node   -> dealer   dealer/plan       as `encode_plan` writes it
    dealer -> node     dealer/dealt      what this party is dealt, in pieces of at most 16 MiB; then the next plan

Two connections are a pair if session and both keys are the same and their roles are opposite; TLS has proved the keys,
so nobody can take a place in the session of others. Plans must be equal byte for byte. Each is dealt from fresh
randomness, once, and a session of a pair can be opened once in the life of the process.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.mpc.link import Address, LinkChannel, Listener, connect
from privacy.errors import PrivacyError, SessionBroken, UsageError
from privacy.mpc.dealer import MAX_PLAN_BYTES, Plan, Role, deal, dealt_size, decode_plan, encode_plan

__all__ = ["DealerClient", "DealerServer"]

_HELLO: Final = "dealer/hello"
_PAIRED: Final = "dealer/paired"
_PLAN_SIZE: Final = "dealer/plan-size"
_PLAN: Final = "dealer/plan"
_DEALT: Final = "dealer/dealt"

_DIGEST_BYTES: Final = 32
_HELLO_BYTES: Final = 2 * _DIGEST_BYTES + 1
_PIECE_BYTES: Final = 1 << 24
_READ_AHEAD_BYTES: Final = 1 << 16
_HELLO_SECONDS: Final = 10.0
_PAIR_SECONDS: Final = 30.0
_IDLE_SECONDS: Final = 600.0
_POLL_SECONDS: Final = 1.0
_HOLD_SECONDS: Final = 5.0
_ROLES: Final[tuple[Role, Role]] = "A", "B"
_MAX_OPENED: Final = 1 << 20
_DEALS_AT_ONCE: Final = 2
"""A plan may take gigabytes while it is dealt."""

_LOGGER: Final = logging.getLogger("sealproof.dealer")


@dataclass(frozen=True)
class _Place:
    """A session and its two parties; `name` is the same for both of them and for no one else."""

    session: bytes
    key_A: bytes
    key_B: bytes

    @property
    def name(self) -> bytes:
        return hashlib.sha256(self.session + self.key_A + self.key_B).digest()

    def __str__(self) -> str:
        return f"session {self.session.hex()[:16]} of A {self.key_A.hex()[:16]} and B {self.key_B.hex()[:16]}"


@dataclass(eq=False)
class _Waiting:
    """The first party of a place, and the second once it is there."""

    role: Role
    channel: LinkChannel
    other: LinkChannel | None = None


@dataclass
class _Totals:
    plans: int = 0
    dealt: int = 0


class _PartyFailed(Exception):
    """The connection with one of the parties broke; the other one is to know."""

    def __init__(self, role: Role, error: SessionBroken) -> None:
        super().__init__(f"party {role}: {error}")
        self.check = error.check


class DealerServer:
    """A dealer that listens at `address` under its own key; `serve` or `start` it, then `close` it.

    Args:
        allowed: whose keys are served; anyone's by default, since the dealer has nothing to hide from anyone.
        max_sessions: pairs at a time; four times as many connections may wait for their pair.
        max_dealt_bytes: what one party may be dealt of one plan.
        pair_timeout: seconds a party waits for the other one.
        idle_timeout: seconds without a plan after which a session is over.

    Raises:
        UsageError: the address cannot be had.
    """

    def __init__(
        self,
        address: Address,
        private_key: Ed25519PrivateKey,
        *,
        allowed: Callable[[bytes], bool] | None = None,
        max_sessions: int = 16,
        max_dealt_bytes: int = 1 << 28,
        pair_timeout: float = _PAIR_SECONDS,
        idle_timeout: float = _IDLE_SECONDS,
    ) -> None:
        self.public_key = private_key.public_key().public_bytes_raw()
        self._allowed = allowed or (lambda key: True)
        self._max_sessions = max_sessions
        self._max_dealt_bytes = max_dealt_bytes
        self._pair_timeout = pair_timeout
        self._idle_timeout = idle_timeout
        self._changed = threading.Condition()
        self._deals = threading.BoundedSemaphore(_DEALS_AT_ONCE)
        self._channels: dict[LinkChannel, threading.Thread] = {}
        self._waiting: dict[bytes, _Waiting] = {}
        self._opened: set[bytes] = set()
        self._sessions = 0
        self._closed = False
        self._serving: threading.Thread | None = None
        # Nobody who keeps to the order sends while being dealt to; there is room for an abort and no more.
        self._listener = Listener(address, private_key, hold=_HOLD_SECONDS, read_ahead=_READ_AHEAD_BYTES)
        self.port = self._listener.port

    def serve(self) -> None:
        """Serve until another thread calls `close`."""
        while True:
            try:
                channel = self._listener.accept(self._allowed, _POLL_SECONDS)
            except SessionBroken:
                if self._closed:
                    return
                continue
            thread = threading.Thread(target=self._greet, args=(channel,), name="sealproof-dealer", daemon=True)
            with self._changed:
                busy = self._closed or len(self._channels) >= 6 * self._max_sessions
                if not busy:
                    self._channels[channel] = thread
            if busy:
                channel.abort("the dealer has too many connections")
                channel.close(linger=0)
                continue
            try:
                thread.start()
            except RuntimeError:  # no more threads
                self._forget(channel)

    def start(self) -> None:
        """Serve in a thread of this process."""
        self._serving = threading.Thread(target=self.serve, name="sealproof-dealer-accept", daemon=True)
        self._serving.start()

    def close(self) -> None:
        """Stop listening and end every session, with its reason told to both parties."""
        with self._changed:
            self._closed = True
            threads = set(self._channels.values())
            for channel in self._channels:
                channel.interrupt()
            self._changed.notify_all()
        self._listener.close()
        if self._serving is not None and self._serving is not threading.current_thread():
            self._serving.join()
        for thread in threads:
            if thread.ident is not None:
                thread.join()

    def __enter__(self) -> DealerServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- pairing ------------------------------------------------------------------------------------------------------

    def _greet(self, channel: LinkChannel) -> None:
        """The thread of one connection: of the first of a pair until the session is over, of the second until then."""
        handed_over = False
        try:
            channel.timeout = _HELLO_SECONDS
            role, place = self._read_hello(channel)
            waiting = self._wait_for_other(role, place, channel)
            handed_over = waiting is None
            if waiting is not None and waiting.other is not None:
                other_role: Role = "B" if role == "A" else "A"
                self._session(place, {role: channel, other_role: waiting.other})
        except SessionBroken as error:
            _LOGGER.debug("a connection came to nothing: %s", error.check)
            channel.abort(error.detail)
        finally:
            if not handed_over:
                self._forget(channel)

    def _read_hello(self, channel: LinkChannel) -> tuple[Role, _Place]:
        hello = channel.receive(_HELLO, _HELLO_BYTES)
        session, letter, other = hello[:32], hello[32:33], hello[33:]
        if letter not in (b"A", b"B") or other == channel.peer_key:
            raise SessionBroken("mpc.hello", "a hello names the role A or B and the key of another party")
        if letter == b"A":
            return "A", _Place(session, channel.peer_key, other)
        return "B", _Place(session, other, channel.peer_key)

    def _wait_for_other(self, role: Role, place: _Place, channel: LinkChannel) -> _Waiting | None:
        """For the first party of a pair: the pair. For the second: None, its channel now belongs to the first's thread.

        Raises SessionBroken if there will be no pair.
        """
        with self._changed:
            if place.name in self._opened or len(self._opened) >= _MAX_OPENED:
                raise SessionBroken("mpc.replay", "this session was opened before; a dealer opens a session once")
            first = self._waiting.get(place.name)
            if first is not None and first.channel.idle():
                if first.role == role:
                    raise SessionBroken("mpc.replay", f"party {role} of this session waits here already")
                if self._sessions >= self._max_sessions:
                    raise SessionBroken("mpc.busy", f"the dealer has {self._sessions} sessions and takes no more now")
                del self._waiting[place.name]
                self._opened.add(place.name)
                self._sessions += 1
                first.other = channel
                self._changed.notify_all()
                return None
            # Nobody is here, or whoever waited has gone.
            if len(self._waiting) >= 4 * self._max_sessions:
                raise SessionBroken("mpc.busy", "too many parties wait for their pairs")
            waiting = self._waiting[place.name] = _Waiting(role, channel)
            self._changed.wait_for(lambda: waiting.other is not None or self._closed, self._pair_timeout)
            if waiting.other is not None:
                return waiting
            if self._waiting.get(place.name) is waiting:
                del self._waiting[place.name]
        if self._closed:
            raise SessionBroken("mpc.unpaired", "the dealer was stopped")
        raise SessionBroken("mpc.unpaired", f"the other party did not come within {self._pair_timeout:g} s")

    def _forget(self, channel: LinkChannel) -> None:
        channel.close()
        with self._changed:
            self._channels.pop(channel, None)

    # -- a session ----------------------------------------------------------------------------------------------------

    def _session(self, place: _Place, channels: dict[Role, LinkChannel]) -> None:
        totals, outcome = _Totals(), "failed"
        try:
            for role in _ROLES:
                channels[role].timeout = self._idle_timeout
                _send(channels, role, _PAIRED, b"")
            while self._deal_once(channels, totals):
                pass
            outcome = "ended"
        except (_PartyFailed, PrivacyError) as error:
            outcome = getattr(error, "check", "mpc.plan")
            reason = "the dealer was stopped" if self._closed else str(error)
            for channel in channels.values():
                channel.abort(reason)
        except Exception:
            _LOGGER.exception("%s", place)
            for channel in channels.values():
                channel.abort("the dealer failed; its log says why")
        finally:
            with self._changed:
                self._sessions -= 1
            _LOGGER.info("%s: %d plans, %d bytes dealt, %s", place, totals.plans, totals.dealt, outcome)
            for channel in channels.values():  # last: `close` waits for the threads of channels that are known
                self._forget(channel)

    def _deal_once(self, channels: dict[Role, LinkChannel], totals: _Totals) -> bool:
        """Take one plan from both and deal it; False if both have ended the session."""
        sizes = [int.from_bytes(_receive(channels, role, _PLAN_SIZE, 4), "little") for role in _ROLES]
        if sizes == [0, 0]:
            return False
        if 0 in sizes:
            raise SessionBroken(
                "mpc.plans-differ", f"party {'AB'[sizes.index(0)]} ended the session, the other did not"
            )
        if max(sizes) > MAX_PLAN_BYTES:
            raise SessionBroken("mpc.plan", f"a plan of {max(sizes)} bytes is too large, at most {MAX_PLAN_BYTES} pass")
        plan_A, plan_B = (_receive(channels, role, _PLAN, size) for role, size in zip(_ROLES, sizes, strict=True))
        if plan_A != plan_B:
            raise SessionBroken("mpc.plans-differ", "the two parties ask for different plans")
        plan = decode_plan(plan_A)
        largest = max(dealt_size(role, plan) for role in _ROLES)
        if largest > self._max_dealt_bytes:
            raise SessionBroken(
                "mpc.plan", f"the plan is too large: {largest} bytes for one party, at most {self._max_dealt_bytes}"
            )
        with self._deals:
            dealt_A, dealt_B = deal(plan)
        for role, dealt in zip(_ROLES, (dealt_A, dealt_B), strict=True):
            for at in range(0, len(dealt), _PIECE_BYTES):
                _send(channels, role, _DEALT, dealt[at : at + _PIECE_BYTES])
        totals.plans += 1
        totals.dealt += len(dealt_A) + len(dealt_B)
        return True


def _send(channels: dict[Role, LinkChannel], role: Role, label: str, data: bytes) -> None:
    try:
        channels[role].send(label, data)
    except SessionBroken as error:
        raise _PartyFailed(role, error) from error


def _receive(channels: dict[Role, LinkChannel], role: Role, label: str, size: int) -> bytes:
    try:
        return channels[role].receive(label, size)
    except SessionBroken as error:
        raise _PartyFailed(role, error) from error


class DealerClient:
    """One party's end of a session with the dealer; made when both parties are connected.

    Args:
        address: of the dealer.
        dealer_key: its public key, 32 bytes.
        private_key: this party's own.
        session: 32 bytes that both parties have, used once.
        role: this party's.
        peer_key: the other party's public key, 32 bytes.
        pair_timeout: seconds to wait for the dealer and then for the other party.
        timeout: seconds to wait for what is dealt, the other party's part included.

    Raises:
        UsageError: a key or session of another size, another role, or this party's own key as the other's.
        SessionBroken: no connection, or the dealer refused (`mpc.aborted`, with its reason).
    """

    def __init__(
        self,
        address: Address,
        dealer_key: bytes,
        private_key: Ed25519PrivateKey,
        session: bytes,
        role: Role,
        peer_key: bytes,
        *,
        pair_timeout: float = _PAIR_SECONDS,
        timeout: float = _IDLE_SECONDS,
    ) -> None:
        if len(session) != _DIGEST_BYTES or len(peer_key) != _DIGEST_BYTES or role not in ("A", "B"):
            raise UsageError("a session and a key have 32 bytes each, a role is 'A' or 'B'")
        if peer_key == private_key.public_key().public_bytes_raw():
            raise UsageError("the other party of a session has another key than this one")
        self.role: Role = role
        self._channel = connect(*address, private_key, dealer_key, pair_timeout)
        self._channel.peer = "the dealer"
        try:
            self._channel.send(_HELLO, session + role.encode("ascii") + peer_key)
            self._channel.timeout = pair_timeout + _POLL_SECONDS  # the dealer's own reason comes first
            self._channel.receive(_PAIRED, 0)
        except BaseException:
            self._channel.close()
            raise
        self._channel.timeout = timeout

    @property
    def received_bytes(self) -> int:
        """Bytes received from the dealer so far, frames included."""
        return self._channel.received_bytes

    def deal(self, plan: Plan) -> bytes:
        """What the dealer deals to this party for `plan`, once the other party asks for the same. Secret.

        Raises:
            UsageError: a plan that cannot be dealt.
            SessionBroken: the dealer or the other party is gone, or the plans differ; the session is over.
        """
        data, missing = encode_plan(plan), dealt_size(self.role, plan)
        self._channel.send(_PLAN_SIZE, len(data).to_bytes(4, "little"))
        self._channel.send(_PLAN, data)
        pieces = []
        while missing:
            pieces.append(self._channel.receive(_DEALT, min(missing, _PIECE_BYTES)))
            missing -= len(pieces[-1])
        return b"".join(pieces)

    def abort(self, reason: str) -> None:
        """Tell the dealer, and through it the other party, why this session is over. Never raises."""
        self._channel.abort(reason)

    def close(self) -> None:
        """End the session. Never raises; may be called again."""
        with contextlib.suppress(SessionBroken):
            self._channel.send(_PLAN_SIZE, bytes(4))
        self._channel.close()

    def __enter__(self) -> DealerClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.abort("the party gave up")
        self.close()
