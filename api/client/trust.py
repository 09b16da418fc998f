"""Which logs are trusted, and the last head seen of each: the monitor's memory.

A bundle proves what was logged under a key. Whether that key is the log's is for the reader to know, so trusted keys
are written here by a person and by nothing else. For each log the last verified head is kept; a head that does not
extend it is refused and both signed notes are kept as evidence, because together they convict the log.

A log is trusted by its key alone, or by a tlog-policy file: then every head must also be cosigned by a quorum of the
witnesses that the file names, whoever shows it.

    $SEALPROOF_HOME or ~/.config/sealproof
      logs/<SHA-256 of the origin>.vkey     the verifier key, one line
      logs/<SHA-256 of the origin>.policy   the policy file, if there is one
      heads/<SHA-256 of the origin>.note    the last head
      evidence/<SHA-256 of the two notes>/{old,new}.note
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
from ledger.files import held_lock
from ledger.trust_policy import TlogPolicy, WitnessedHead
from privacy.private_files import write_private

__all__ = ["ConsistencySource", "TrustStore", "TrustedLog", "home_folder", "parse_trust"]

ConsistencySource = Callable[[int, int], Sequence[bytes]]
"""(old size, new size) to the hashes of a consistency proof; nothing it returns is trusted."""

_MAX_KEY_BYTES = 4096
_MAX_POLICY_BYTES = 1 << 20
_MAX_NOTE_BYTES = 1_000_000


def home_folder() -> Path:
    """`$SEALPROOF_HOME`, else `$XDG_CONFIG_HOME/sealproof`, else `~/.config/sealproof`."""
    explicit = os.environ.get("SEALPROOF_HOME")
    if explicit:
        return Path(explicit)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "sealproof"


@dataclass(frozen=True)
class TrustedLog:
    """A log that somebody decided to trust: by its key, and by the witnesses of a policy if there is one."""

    verifier: Verifier
    policy: TlogPolicy | None = None

    @property
    def origin(self) -> str:
        """The log's name."""
        return self.verifier.name

    def witnesses(self, note: bytes) -> WitnessedHead | None:
        """What the witnesses of the policy say of a signed head; None without a policy.

        Raises VerificationFailed(`policy.quorum`) unless a quorum of them cosigned it, and as `open_checkpoint` does.
        """
        return None if self.policy is None else self.policy.open(note, self.origin)


def parse_trust(text: str) -> list[TrustedLog]:
    """The logs that a verifier key, or the text of a tlog-policy file, says to trust. Raises DecodeError."""
    if "\n" not in text.strip():
        return [TrustedLog(Verifier.parse(text.strip()))]
    policy = TlogPolicy.parse(text)
    return [TrustedLog(verifier, policy) for verifier in policy.logs]


class TrustStore:
    """Trusted log keys and last heads in a folder (default: `home_folder()`), made with mode 0700 when needed."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or home_folder()

    # -- keys ---------------------------------------------------------------------------------------------------------

    def add(self, text: str) -> list[Verifier]:
        """Trust the log with this verifier key (`name+id+base64`), whose name is its origin, or all logs of a policy.

        A policy takes the place of an older one, and of none, unless it is about other logs as well or asks for no
        witness: then somebody's file about his log would take away the witnesses of another. Raises DecodeError for
        anything else, and UsageError for that, and if another key is trusted for one of the origins: remove it first,
        on purpose.
        """
        logs = parse_trust(text)
        for log in logs:
            known = self.find(log.origin)
            if known is not None and known != log.verifier:
                raise UsageError(
                    f"another key is trusted for the log {log.origin!r} ({known}): remove it first if it was replaced"
                )
        for log in logs:
            self._check_not_weakened(log, alone=len(logs) == 1)
        for log in logs:
            if log.policy is not None:
                self._write("logs", f"{_name(log.origin)}.policy", text.encode("utf-8"))
            self._write("logs", f"{_name(log.origin)}.vkey", f"{log.verifier}\n".encode())
        return [log.verifier for log in logs]

    def _check_not_weakened(self, new: TrustedLog, alone: bool) -> None:
        known = self.trusted(new.origin)
        if known is None or known.policy is None or new.policy is None or _demands(new) == _demands(known):
            return
        if new.policy.quorum is None:
            raise UsageError(f"witnesses are demanded for the log {new.origin!r}: remove it first to demand none")
        if not alone:
            raise UsageError(
                f"another policy is trusted for the log {new.origin!r}: replace it by a file about this log alone"
            )

    def remove(self, origin: str) -> None:
        """Trust the log `origin` no longer, and forget its head and policy. Raises UsageError if it was not trusted."""
        if self.find(origin) is None:
            raise UsageError(f"the log {origin!r} was not trusted; trusted: {self._listed()}")
        self._path("logs", f"{_name(origin)}.vkey").unlink()
        self._path("logs", f"{_name(origin)}.policy").unlink(missing_ok=True)
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

    def trusted(self, origin: str) -> TrustedLog | None:
        """How the log `origin` is trusted, or None. Raises DecodeError for a damaged file."""
        verifier = self.find(origin)
        if verifier is None:
            return None
        path = self._path("logs", f"{_name(origin)}.policy")
        if not path.exists():
            return TrustedLog(verifier)
        policy = TlogPolicy.parse(_read(path, _MAX_POLICY_BYTES).decode("utf-8", "replace"))
        if policy.log(origin) != verifier:
            raise DecodeError("trusted policy", f"{path} is not about the log {origin!r} and its trusted key")
        return TrustedLog(verifier, policy)

    # -- heads --------------------------------------------------------------------------------------------------------

    def head(self, origin: str) -> VerifiedHead | None:
        """The last head seen of a trusted log, verified again, or None.

        Raises UsageError for a log that is not trusted; DecodeError or VerificationFailed for a damaged file.
        """
        verifier = self._trusted(origin).verifier
        path = self._path("heads", f"{_name(origin)}.note")
        if not path.exists():
            return None
        return open_checkpoint(_read(path, _MAX_NOTE_BYTES), verifier, origin)

    def follow(self, note: bytes, origin: str, consistency: ConsistencySource) -> VerifiedHead:
        """The head that the log shows now, verified to extend the last one and kept in its place.

        Raises Rollback, Fork or InconsistentGrowth with the evidence kept, what `ledger.follow` raises, and
        VerificationFailed(`policy.quorum`).
        """
        trusted = self._trusted(origin)
        new = open_checkpoint(note, trusted.verifier, origin)
        while True:
            old = self.head(origin)
            needed = old is not None and 0 < old.size < new.size
            proof = consistency(old.size, new.size) if old is not None and needed else ()
            with self._keeping_evidence():
                head = follow(old, note, proof, trusted.verifier, origin)
            trusted.witnesses(note)
            if self._keep(head, old):
                return head

    def observe(self, head: VerifiedHead, consistency: ConsistencySource | None) -> None:
        """Compare a head that need not be the newest, such as a bundle's, with the last one seen.

        Older and newer heads are tied to it by a consistency proof where there is a source of them; without one, only
        two different heads of one size can be told apart. A newer head is kept when it is tied, or the first.

        Raises Fork or InconsistentGrowth with the evidence kept, and VerificationFailed(`policy.quorum`).
        """
        while True:
            last = self.head(head.origin)
            tied = last is None or self._tie(last, head, consistency)
            self._trusted(head.origin).witnesses(head.note)
            newer = last is None or (tied and head.size > last.size)
            if not newer or self._keep(head, last):
                return

    def _tie(self, last: VerifiedHead, head: VerifiedHead, consistency: ConsistencySource | None) -> bool:
        """Whether one of two heads was shown to extend the other. Raises Fork, InconsistentGrowth."""
        with self._keeping_evidence():
            if head.size == last.size:
                if head.root != last.root:
                    raise Fork(head.size, last.note, head.note)
                return True
            if consistency is None:
                return False
            small, large = sorted((head, last), key=lambda h: h.size)
            if small.size:
                proof = tuple(consistency(small.size, large.size))
                try:
                    verify_consistency(small.size, large.size, proof, small.root, large.root)
                except VerificationFailed as reason:
                    raise InconsistentGrowth(reason, small.note, large.note, proof) from reason
        return True

    # -- files --------------------------------------------------------------------------------------------------------

    def _trusted(self, origin: str) -> TrustedLog:
        log = self.trusted(origin)
        if log is None:
            raise UsageError(f"the log {origin!r} is not trusted; trusted: {self._listed()}")
        return log

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

    def _keep(self, head: VerifiedHead, last: VerifiedHead | None) -> bool:
        """Keep `head`, which was tied to `last`; False, with nothing changed, if another head was kept meanwhile.

        Else a log could show two histories at one moment to two processes of this user, and only one be remembered.
        """
        lock = self._path("heads", ".lock")
        with _stored(lock):
            self._make_folders(lock)
            with held_lock(lock):
                if _tree(self.head(head.origin)) != _tree(last):
                    return False
                self._write("heads", f"{_name(head.origin)}.note", head.note)
        return True

    def _make_folders(self, path: Path) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for parent in reversed(path.relative_to(self._folder).parents):
            (self._folder / parent).mkdir(mode=0o700, exist_ok=True)

    def _path(self, folder: str, name: str) -> Path:
        return self._folder / folder / name

    def _read_key(self, path: Path) -> Verifier:
        return Verifier.parse(_read(path, _MAX_KEY_BYTES).decode("utf-8", "replace").removesuffix("\n"))

    def _write(self, folder: str, name: str, data: bytes) -> None:
        """Replace a file, whole or not at all. Raises StorageError."""
        path = self._path(folder, name)
        with _stored(path):
            self._make_folders(path)
            write_private(path, data)


@contextlib.contextmanager
def _stored(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error


def _tree(head: VerifiedHead | None) -> tuple[int, bytes] | None:
    return (head.size, head.root) if head is not None else None


def _demands(log: TrustedLog) -> object:
    """What a policy demands of the heads of one log, whatever else the file says."""
    policy = log.policy
    if policy is None:
        return None
    return tuple((w.name, w.verifier) for w in policy.witnesses), tuple(policy.groups.items()), policy.quorum


def _name(origin: str) -> str:
    # An origin may hold slashes and dots; a digest is a safe name for any.
    return hashlib.sha256(origin.encode("utf-8", "surrogatepass")).hexdigest()


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
