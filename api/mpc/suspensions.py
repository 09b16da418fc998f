"""Which pairs of nodes may not compute together: a local record that survives a crash at any moment.

A broken session may have told an active party one bit of the other's secrets, so after it no further session runs
between the two, on any data, until both owners clear it by hand (docs/spec/protocol.md, section 7). A node that dies
in a session cannot write that down any more: therefore `begin` writes a mark *before* anything depends on a secret,
`finish` removes it, and a mark whose process is gone is a suspension.

One file for every session of a peer, `<key of the peer>.<session>.json`, mode 0600, in a folder of mode 0700. The
process of a session holds a lock on its mark, which ends with the process however it ends. Only one session runs
with a peer at a time: several that fail together would tell several bits.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

from api.signing import timestamp
from ledger.files import held_lock
from privacy.canonical_json import Codec, Digest, Name, Record, Text, Timestamp
from privacy.errors import DecodeError, UsageError
from privacy.private_files import private_folder, read_private, write_private

__all__ = ["ENDED", "Suspended", "SuspensionStore"]

ENDED: Final = "the node ended during a session"
"""The reason of a suspension that nobody was left to write."""

_WHAT: Final = "suspension"
_MAX_BYTES: Final = 1 << 15
_MAX_REASON: Final = 1000
_FILE: Final = re.compile(r"([0-9a-f]{64})\.([0-9a-f]{64})\.json")
_LOCK: Final = ".lock"

_State: TypeAlias = Literal["under way", "suspended"]


@dataclass(frozen=True)
class _Stored(Record):
    format: Literal["sealproof/suspended-pair/v1"]
    peer: Name
    peer_key: Digest
    session: Digest
    state: _State
    since: Timestamp
    reason: Text


_CODEC: Final = Codec(_Stored, _WHAT, _MAX_BYTES)


@dataclass(frozen=True)
class Suspended:
    """A session with `peer` that is under way in some living process (`under_way`), or that broke, and why."""

    peer: str
    peer_key: bytes
    session: bytes
    since: str
    reason: str
    under_way: bool


class _Live(NamedTuple):
    """A session of this process; the open `descriptor` holds the lock on its mark."""

    peer: str
    peer_key: bytes
    path: Path
    descriptor: int


class SuspensionStore:
    """The record in `folder`, which is made if it does not exist. Threads and processes may share it.

    Raises:
        UsageError: the folder is accessible to others. So does every method, and OSError if the disk fails; nothing
            may be computed then.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = private_folder(folder)
        self._thread_lock = threading.Lock()
        self._live: dict[bytes, _Live] = {}

    def begin(self, peer: str, peer_key: bytes, session: bytes, when: str | None = None) -> None:
        """Mark on disk that a session (32 bytes) with `peer` is under way. Until then nothing secret may be used.

        Raises:
            UsageError: the pair is suspended or has a session under way.
            DecodeError: a file of this pair is damaged, which counts as a suspension.
        """
        with self._locked():
            self._check(peer_key)
            path = self._path(peer_key, session)
            self._write(path, peer, peer_key, session, "under way", "a session was under way", when)
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                raise
            self._live[session] = _Live(peer, peer_key, path, descriptor)

    def finish(self, session: bytes) -> None:
        """The session ended as it should: take its mark away. A suspension that came meanwhile stays.

        Raises UsageError if this object did not begin the session.
        """
        with self._locked(), self._ended(session) as live:
            if live.path.exists() and self._read(live.path).state == "under way":
                live.path.unlink()
                _sync(self._folder)

    def fail(self, session: bytes, reason: str, when: str | None = None) -> None:
        """The session broke: the pair is suspended from now on. `reason` is kept, its unprintable characters are not.

        Raises UsageError if this object did not begin the session. If the disk fails, the mark of `begin` remains and
        is a suspension, too.
        """
        with self._locked(), self._ended(session) as live:
            if live.path.exists():
                with contextlib.suppress(DecodeError):
                    if self._read(live.path).state == "suspended":  # the first reason is the one to look into
                        return
            self._write(live.path, live.peer, live.peer_key, session, "suspended", reason, when)

    def suspend(self, peer: str, peer_key: bytes, session: bytes, reason: str, when: str | None = None) -> None:
        """Suspend the pair, as when the ledger tells of it. `when` is YYYY-MM-DDTHH:MM:SSZ, the present by default."""
        with self._locked():
            self._write(self._path(peer_key, session), peer, peer_key, session, "suspended", reason, when)

    def check(self, peer_key: bytes) -> None:
        """Raise UsageError if the pair is suspended or has a session under way, saying why, since when and what to do.

        Raises DecodeError if a file of this pair is damaged: that is a suspension, too.
        """
        with self._locked():
            self._check(peer_key)

    def clear(self, peer: bytes | str) -> tuple[Suspended, ...]:
        """Take away the suspensions of a peer, given by its key, its key in hex or its name, and return them.

        Damaged files are found by the key alone, and are removed without being returned. Raises UsageError if there
        is nothing to clear, a session is under way, or the name is that of several keys.
        """
        with self._locked():
            key = self._key_of(peer)
            found, paths = [], [path for path in self._files() if path.name.startswith(key.hex())]
            for path in paths:
                with contextlib.suppress(DecodeError):
                    found.append(self._shown(path))
            if not paths:
                raise UsageError(f"there is nothing to clear for {_named(peer)}")
            if any(one.under_way for one in found):
                raise UsageError(f"a session with {_named(peer)} is under way; stop it first")
            for path in paths:
                path.unlink()
            _sync(self._folder)
        return tuple(found)

    def list(self) -> tuple[Suspended, ...]:
        """All suspensions and sessions under way, oldest first; a damaged file is one whose date is unknown."""
        found = []
        with self._locked():
            for path in self._files():
                try:
                    found.append(self._shown(path))
                except DecodeError as error:
                    key, session, _ = path.name.split(".")
                    found.append(
                        Suspended(key, bytes.fromhex(key), bytes.fromhex(session), "unknown", str(error), False)
                    )
        return tuple(sorted(found, key=lambda one: (one.since, one.session)))

    # -- with the lock held -------------------------------------------------------------------------------------------

    def _check(self, peer_key: bytes) -> None:
        for path in self._files():
            if not path.name.startswith(peer_key.hex()):
                continue
            try:
                found = self._shown(path)
            except DecodeError as error:
                raise DecodeError(
                    error.what,
                    f"{error.reason}. The pair is suspended until `sealproof mpc clear {peer_key.hex()} -f FOLDER`",
                ) from error
            if found.under_way:
                raise UsageError(
                    f"a session with {found.peer!r} is under way since {found.since}; there is one at a time"
                )
            raise UsageError(
                f"no session with {found.peer!r}: suspended since {found.since}, session {found.session.hex()[:16]}: "
                f"{found.reason}. Both owners have to look into it and then run "
                f"`sealproof mpc clear {shlex.quote(found.peer)} -f FOLDER`"
            )

    def _key_of(self, peer: bytes | str) -> bytes:
        if isinstance(peer, bytes):
            return peer
        keys = {path.name.partition(".")[0] for path in self._files()}
        matching = {peer} & keys
        for path in self._files():
            with contextlib.suppress(DecodeError):
                if self._read(path).peer == peer:
                    matching.add(path.name.partition(".")[0])
        if len(matching) > 1:
            raise UsageError(f"{peer!r} is the name of several keys, give one of them: {', '.join(sorted(matching))}")
        if not matching:
            raise UsageError(f"there is nothing to clear for {peer!r}; if its file is damaged, give its key in hex")
        return bytes.fromhex(matching.pop())

    def _files(self) -> tuple[Path, ...]:
        """Every record. Unfinished files begin with a dot and never counted; anything else has no business here."""
        paths = tuple(sorted(path for path in self._folder.iterdir() if not path.name.startswith(".")))
        for path in paths:
            if _FILE.fullmatch(path.name) is None:
                raise DecodeError(_WHAT, f"{path} is not a suspension: nothing is computed until it is taken away")
        return paths

    def _shown(self, path: Path) -> Suspended:
        stored = self._read(path)
        live = stored.state == "under way" and self._is_live(path)
        reason = ENDED if stored.state == "under way" and not live else stored.reason
        return Suspended(stored.peer, stored.peer_key, stored.session, stored.since, reason, live)

    @staticmethod
    def _is_live(path: Path) -> bool:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _read(self, path: Path) -> _Stored:
        try:
            stored = _CODEC.decode(read_private(path, _MAX_BYTES, _WHAT))
        except DecodeError as error:
            raise DecodeError(_WHAT, f"{path} is damaged ({error.reason})") from error
        if path != self._path(stored.peer_key, stored.session):
            raise DecodeError(_WHAT, f"{path} is that of another pair or session")
        return stored

    def _write(
        self, path: Path, peer: str, peer_key: bytes, session: bytes, state: _State, reason: str, when: str | None
    ) -> None:
        since = when or timestamp()
        stored = _Stored("sealproof/suspended-pair/v1", peer, peer_key, session, state, since, _printable(reason))
        write_private(path, _CODEC.encode(stored))

    def _path(self, peer_key: bytes, session: bytes) -> Path:
        if len(peer_key) != 32 or len(session) != 32:
            raise UsageError("a key and a session have 32 bytes each")
        return self._folder / f"{peer_key.hex()}.{session.hex()}.json"

    @contextlib.contextmanager
    def _ended(self, session: bytes) -> Iterator[_Live]:
        """The mark of a session that `begin` began; its lock ends afterwards, whatever happens."""
        if session not in self._live:
            raise UsageError(f"no session {session.hex()[:16]} was begun here")
        live = self._live.pop(session)
        try:
            yield live
        finally:
            os.close(live.descriptor)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """The folder for this thread of this process alone."""
        with self._thread_lock:
            private_folder(self._folder)
            with held_lock(self._folder / _LOCK):
                yield


def _printable(reason: str) -> str:
    """`reason` as a text that a record can carry: whatever the other party wrote, it can be kept."""
    shown = "".join(c if c.isascii() and c.isprintable() else "?" for c in reason).strip()[:_MAX_REASON].strip()
    return shown or "no reason was given"


def _named(peer: bytes | str) -> str:
    return peer.hex() if isinstance(peer, bytes) else repr(peer)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
