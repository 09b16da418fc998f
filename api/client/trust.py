"""Which logs are trusted, and the last head seen of each: the monitor's memory.

A bundle proves what was logged under a key. Whether that key is the log's is for the reader to know, so trusted keys
are written here by a person and by nothing else. For each log the last verified head is kept; a head that does not
extend it is refused and both signed notes are kept as evidence, because together they convict the log.

    $SEALPROOF_HOME or ~/.config/sealproof
      logs/<SHA-256 of the origin>.vkey     the verifier key, one line
      heads/<SHA-256 of the origin>.note    the last head
      evidence/<SHA-256 of the two notes>/{old,new}.note
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ledger import (
    InconsistentGrowth,
    LogMisbehaved,
    UsageError,
    VerificationFailed,
    VerifiedHead,
    Verifier,
    follow,
    open_checkpoint,
    verify_consistency,
)
from ledger.errors import DecodeError, Fork, StorageError

__all__ = ["ConsistencySource", "TrustStore", "home_folder"]

ConsistencySource = Callable[[int, int], Sequence[bytes]]
"""(old size, new size) to the hashes of a consistency proof; nothing it returns is trusted."""

_MAX_KEY_BYTES = 4096
_MAX_NOTE_BYTES = 1_000_000


def home_folder() -> Path:
    """`$SEALPROOF_HOME`, else `$XDG_CONFIG_HOME/sealproof`, else `~/.config/sealproof`."""
    explicit = os.environ.get("SEALPROOF_HOME")
    if explicit:
        return Path(explicit)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "sealproof"


class TrustStore:
    """Trusted log keys and last heads in a folder (default: `home_folder()`), made with mode 0700 when needed."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or home_folder()

    # -- keys ---------------------------------------------------------------------------------------------------------

    def add(self, vkey: str) -> Verifier:
        """Trust the log with this verifier key (`name+id+base64`); its name is the log's origin.

        Raises DecodeError for anything else, and UsageError if another key is trusted for this origin: remove it
        first, on purpose.
        """
        verifier = Verifier.parse(vkey.strip())
        known = self.find(verifier.name)
        if known is not None and known != verifier:
            raise UsageError(
                f"another key is trusted for the log {verifier.name!r} ({known}): remove it first if it was replaced"
            )
        self._write("logs", f"{_name(verifier.name)}.vkey", f"{verifier}\n".encode())
        return verifier

    def remove(self, origin: str) -> None:
        """Trust the log `origin` no longer, and forget its head. Raises UsageError if it was not trusted."""
        if self.find(origin) is None:
            raise UsageError(f"the log {origin!r} was not trusted; trusted: {self._listed()}")
        self._path("logs", f"{_name(origin)}.vkey").unlink()
        self._path("heads", f"{_name(origin)}.note").unlink(missing_ok=True)

    def list(self) -> list[Verifier]:
        """All trusted keys, by origin. Raises DecodeError for a file that is not one."""
        paths = sorted(self._path("logs", "").glob("*.vkey"))
        return sorted((self._read_key(path) for path in paths), key=lambda verifier: verifier.name)

    def find(self, origin: str) -> Verifier | None:
        """The key that is trusted for the log `origin`, or None. Raises DecodeError for a damaged file."""
        path = self._path("logs", f"{_name(origin)}.vkey")
        if not path.exists():
            return None
        verifier = self._read_key(path)
        if verifier.name != origin:
            raise DecodeError("trusted key", f"{path} is the key of {verifier.name!r}, not of {origin!r}")
        return verifier

    # -- heads --------------------------------------------------------------------------------------------------------

    def head(self, origin: str) -> VerifiedHead | None:
        """The last head seen of a trusted log, verified again, or None.

        Raises UsageError for a log that is not trusted; DecodeError or VerificationFailed for a damaged file.
        """
        verifier = self._trusted(origin)
        path = self._path("heads", f"{_name(origin)}.note")
        if not path.exists():
            return None
        return open_checkpoint(_read(path, _MAX_NOTE_BYTES), verifier, origin)

    def follow(self, note: bytes, origin: str, consistency: ConsistencySource) -> VerifiedHead:
        """The head that the log shows now, verified to extend the last one and kept in its place.

        Raises Rollback, Fork or InconsistentGrowth with the evidence kept, and what `ledger.follow` raises.
        """
        verifier, old = self._trusted(origin), self.head(origin)
        new = open_checkpoint(note, verifier, origin)
        needed = old is not None and 0 < old.size < new.size
        proof = consistency(old.size, new.size) if old is not None and needed else ()
        with self._keeping_evidence():
            head = follow(old, note, proof, verifier, origin)
        self._keep(head)
        return head

    def observe(self, head: VerifiedHead, consistency: ConsistencySource | None) -> None:
        """Compare a head that need not be the newest, such as a bundle's, with the last one seen.

        Older and newer heads are tied to it by a consistency proof where there is a source of them; without one, only
        two different heads of one size can be told apart. A newer head is kept when it is tied, or the first.

        Raises Fork or InconsistentGrowth with the evidence kept.
        """
        last = self.head(head.origin)
        if last is None:
            self._keep(head)
            return
        with self._keeping_evidence():
            if head.size == last.size:
                if head.root != last.root:
                    raise Fork(head.size, last.note, head.note)
                return
            if consistency is None:
                return
            small, large = sorted((head, last), key=lambda h: h.size)
            if small.size:
                proof = tuple(consistency(small.size, large.size))
                try:
                    verify_consistency(small.size, large.size, proof, small.root, large.root)
                except VerificationFailed as reason:
                    raise InconsistentGrowth(reason, small.note, large.note, proof) from reason
        if large is head:
            self._keep(head)

    # -- files --------------------------------------------------------------------------------------------------------

    def _trusted(self, origin: str) -> Verifier:
        verifier = self.find(origin)
        if verifier is None:
            raise UsageError(f"the log {origin!r} is not trusted; trusted: {self._listed()}")
        return verifier

    def _listed(self) -> str:
        return ", ".join(repr(verifier.name) for verifier in self.list()) or "none"

    @contextlib.contextmanager
    def _keeping_evidence(self) -> Iterator[None]:
        try:
            yield
        except LogMisbehaved as error:
            folder = "evidence/" + hashlib.sha256(error.old + b"\0" + error.new).hexdigest()
            self._write(folder, "old.note", error.old)
            self._write(folder, "new.note", error.new)
            raise

    def _keep(self, head: VerifiedHead) -> None:
        self._write("heads", f"{_name(head.origin)}.note", head.note)

    def _path(self, folder: str, name: str) -> Path:
        return self._folder / folder / name

    def _read_key(self, path: Path) -> Verifier:
        return Verifier.parse(_read(path, _MAX_KEY_BYTES).decode("utf-8", "replace").removesuffix("\n"))

    def _write(self, folder: str, name: str, data: bytes) -> None:
        """Replace a file, whole or not at all. Raises StorageError."""
        path = self._path(folder, name)
        temporary = path.with_name(f".{name}.{secrets.token_hex(8)}")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for parent in reversed(path.relative_to(self._folder).parents):
                (self._folder / parent).mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise StorageError(f"cannot write {path}: {error.strerror}") from error


def _name(origin: str) -> str:
    # An origin may hold slashes and dots; a digest is a safe name for any.
    return hashlib.sha256(origin.encode("utf-8", "surrogatepass")).hexdigest()


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
