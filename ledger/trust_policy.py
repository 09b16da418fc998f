"""Whom to believe about a log's heads (C2SP tlog-policy): logs, witnesses, and how many of them are enough.

    log <vkey> [<url>]                      a log; its key's name is its origin
    witness <name> <vkey> [<url>]           a witness (key of type 04), called <name> in this file
    group <name> all|any|<k> <name>...      is satisfied if all, one or k of its members are
    quorum <name>|none                      what must be satisfied by the cosignatures of a head; exactly once

Words are separated by spaces and tabs; empty lines and lines that begin with # are ignored. Names refer to lines before
them, and each may be a member of one group only, so that no witness counts twice. For the same reason no public key may
stand in two lines, under whatever names: a log is no witness of its own heads. Beyond the format's own rules, a file is
UTF-8, has one key for an origin and at most 64 logs, witnesses and groups each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import InitVar, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeVar

from ledger.checkpoint import VerifiedHead, open_checkpoint
from ledger.cosignature import CosignatureVerifier
from ledger.encoding import decode_decimal
from ledger.errors import DecodeError, StorageError, UsageError, VerificationFailed
from ledger.note import Note, Verifier

__all__ = ["Cosigned", "Group", "TlogPolicy", "WitnessedHead", "Witnessing"]

_MAX_BYTES: Final = 1 << 17
_MAX_EACH: Final = 64
_NONE: Final = "none"
_WORD: Final = re.compile(r"[^ \t]+")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_WHAT: Final = "policy"
_VERIFIED: Final = object()

_Key = TypeVar("_Key", Verifier, CosignatureVerifier)


@dataclass(frozen=True, slots=True)
class Witnessing:
    """A witness of a policy: what the file calls it, its key, and where it takes checkpoints, if the file says so."""

    name: str
    verifier: CosignatureVerifier
    url: str | None


@dataclass(frozen=True, slots=True)
class Group:
    """A rule of a policy: satisfied when `needed` of its members (witnesses or groups) are."""

    name: str
    needed: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A witness whose cosignature of a head holds: what the policy calls it, and the earliest time that it signed."""

    name: str
    time: int


@dataclass(frozen=True, slots=True)
class WitnessedHead:
    """A head that satisfies a policy. Only `TlogPolicy.open` makes one.

    `cosigned` has every listed witness that cosigned, in the policy's order. `time` (seconds since 1970) is when there
    were enough of them: by then the head existed, unless so many of them lie; None for a policy that asks for none.
    """

    head: VerifiedHead
    cosigned: tuple[Cosigned, ...]
    time: int | None
    _token: InitVar[object]

    def __post_init__(self, _token: object) -> None:
        if _token is not _VERIFIED:
            raise UsageError("a WitnessedHead comes from TlogPolicy.open only")


@dataclass(frozen=True, slots=True)
class TlogPolicy:
    """A parsed policy. `quorum` names a witness or a group, or is None where no cosignature is asked for.

    `logs` has at most one key of each origin, `log_urls` the addresses by origin of logs that have one.
    """

    logs: tuple[Verifier, ...]
    log_urls: Mapping[str, str]
    witnesses: tuple[Witnessing, ...]
    groups: Mapping[str, Group]
    quorum: str | None

    @classmethod
    def parse(cls, text: str) -> TlogPolicy:
        """The policy that a file says. Raises DecodeError, which names the line."""
        if len(text) > _MAX_BYTES:
            raise DecodeError(_WHAT, f"longer than {_MAX_BYTES} characters")
        reader = _Reader()
        for number, words in _lines(text):
            reader.line(number, words)
        return reader.policy()

    @classmethod
    def load(cls, path: Path) -> TlogPolicy:
        """Read a policy file. Raises StorageError, DecodeError."""
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
        except OSError as error:
            raise StorageError(f"cannot read the policy {path}: {error.strerror}") from error
        try:
            return cls.parse(data.decode("utf-8"))
        except UnicodeDecodeError:
            raise DecodeError(_WHAT, f"{path} is not UTF-8") from None

    def log(self, origin: str) -> Verifier | None:
        """The key of the log `origin`, if the policy lists it."""
        return next((verifier for verifier in self.logs if verifier.name == origin), None)

    def open(self, note: bytes, origin: str, log: Verifier | None = None) -> WitnessedHead:
        """Verify a checkpoint of the log `origin`: the log's signature, every listed witness's, and the quorum.

        `log` is the log's key where it is known otherwise; it must agree with the policy if that lists the log.
        Raises VerificationFailed: `policy.log` for a log that nobody named, `policy.quorum` for too few cosignatures,
        and for a bad signature by any listed key, however many others hold. Raises what `open_checkpoint` does.
        """
        verifier = self._log_key(origin, log)
        head = open_checkpoint(note, verifier, origin)
        parsed = Note.parse(note)
        by_key = {(w.verifier.name, w.verifier.key_id): w for w in self.witnesses}
        times: dict[str, int] = {}
        for signature in parsed.verify([verifier, *(w.verifier for w in self.witnesses)]):
            witness = by_key.get((signature.name, signature.key_id))
            if witness is not None:
                time = witness.verifier.time(signature.signature)
                times[witness.name] = min(time, times.get(witness.name, time))
        cosigned = tuple(Cosigned(w.name, times[w.name]) for w in self.witnesses if w.name in times)
        return WitnessedHead(head, cosigned, self._satisfied(times), _token=_VERIFIED)

    def _log_key(self, origin: str, log: Verifier | None) -> Verifier:
        listed = self.log(origin)
        if log is None:
            if listed is None:
                raise VerificationFailed("policy.log", f"the policy lists no log {origin!r}")
            return listed
        if listed is not None and listed != log:
            raise VerificationFailed("policy.log", f"the policy lists another key for the log {origin!r}")
        if any(w.verifier.public_key == log.public_key for w in self.witnesses):
            raise VerificationFailed("policy.log", f"a witness of the policy has the key of the log {origin!r} itself")
        return log

    def _satisfied(self, times: Mapping[str, int]) -> int | None:
        if self.quorum is None:
            return None
        reached = self._reached(self.quorum, times)
        if reached is None:
            valid = ", ".join(w.name for w in self.witnesses if w.name in times) or "none"
            raise VerificationFailed("policy.quorum", f"{self._wanted(times)}, valid cosignatures: {valid}")
        return reached

    def _wanted(self, times: Mapping[str, int]) -> str:
        group = self.groups.get(self.quorum or "")
        if group is None:
            return f"a cosignature by the witness {self.quorum!r} is needed"
        have = sum(self._reached(member, times) is not None for member in group.members)
        return f"group {group.name!r}: {have} of {group.needed} needed"

    def _reached(self, name: str, times: Mapping[str, int]) -> int | None:
        """The smallest time at which witness or group `name` was satisfied; None if it is not."""
        group = self.groups.get(name)
        if group is None:
            return times.get(name)
        reached = sorted(t for t in (self._reached(member, times) for member in group.members) if t is not None)
        return reached[group.needed - 1] if len(reached) >= group.needed else None


class _Reader:
    """Takes the lines of a file in order."""

    def __init__(self) -> None:
        self._logs: dict[str, Verifier] = {}
        self._urls: dict[str, str] = {}
        self._witnesses: dict[str, Witnessing] = {}
        self._groups: dict[str, Group] = {}
        self._quorum: list[str] = []
        self._members: set[str] = set()
        self._keys: set[bytes] = set()
        self._number = 0

    def line(self, number: int, words: list[str]) -> None:
        self._number = number
        match words:
            case ["log", vkey, *url] if len(url) <= 1:
                self._log(vkey, url)
            case ["witness", name, vkey, *url] if len(url) <= 1:
                self._witness(name, vkey, url)
            case ["group", name, threshold, _, *_]:
                self._group(name, threshold, words[3:])
            case ["quorum", name]:
                self._set_quorum(name)
            case _:
                raise self._wrong("expected log, witness, group or quorum with their words, got " + _shown(words))

    def policy(self) -> TlogPolicy:
        if not self._quorum:
            raise DecodeError(_WHAT, "has no quorum line (write `quorum none` to ask for no cosignature)")
        name = self._quorum[0]
        return TlogPolicy(
            tuple(self._logs.values()),
            MappingProxyType(self._urls),
            tuple(self._witnesses.values()),
            MappingProxyType(self._groups),
            None if name == _NONE else name,
        )

    def _log(self, vkey: str, url: list[str]) -> None:
        verifier = self._key(Verifier, vkey)
        if verifier.name in self._logs:
            raise self._wrong(f"the log {verifier.name!r} has a key already")
        self._logs[verifier.name] = verifier
        if url:
            self._urls[verifier.name] = url[0]
        self._limit(self._logs)

    def _witness(self, name: str, vkey: str, url: list[str]) -> None:
        self._new_name(name)
        verifier, known = self._key(CosignatureVerifier, vkey), self._witnesses.values()
        if any((w.verifier.name, w.verifier.key_id) == (verifier.name, verifier.key_id) for w in known):
            raise self._wrong("another witness has the same key name and key ID")
        self._witnesses[name] = Witnessing(name, verifier, url[0] if url else None)
        self._limit(self._witnesses)

    def _group(self, name: str, threshold: str, members: list[str]) -> None:
        self._new_name(name)
        for member in members:
            if member not in self._witnesses and member not in self._groups:
                raise self._wrong(f"{member!r} is not the name of a witness or group defined before")
            if member in self._members:
                raise self._wrong(f"{member!r} is a member of a group already, and would count twice")
            self._members.add(member)
        if threshold in ("all", "any"):
            needed = len(members) if threshold == "all" else 1
        else:
            needed = self._threshold(threshold)
        if not 1 <= needed <= len(members):
            raise self._wrong(f"{needed} of {len(members)} members can never be meant")
        self._groups[name] = Group(name, needed, tuple(members))
        self._limit(self._groups)

    def _set_quorum(self, name: str) -> None:
        if self._quorum:
            raise self._wrong("a second quorum line")
        if name != _NONE and name not in self._witnesses and name not in self._groups:
            raise self._wrong(f"{name!r} is not the name of a witness or group defined before")
        self._quorum.append(name)

    def _new_name(self, name: str) -> None:
        if name == _NONE or name in self._witnesses or name in self._groups:
            raise self._wrong(f"the name {name!r} is taken")

    def _threshold(self, text: str) -> int:
        try:
            return decode_decimal("threshold", text)
        except DecodeError:
            raise self._wrong(f"a group asks for all, any or a number of its members, not {text!r}") from None

    def _key(self, kind: type[_Key], vkey: str) -> _Key:
        try:
            key = kind.parse(vkey)
        except DecodeError as error:
            raise self._wrong(str(error)) from error
        if key.public_key in self._keys:
            raise self._wrong(f"the public key of {key.name!r} stands in an earlier line, under whatever name")
        self._keys.add(key.public_key)
        return key

    def _limit(self, defined: Mapping[str, object]) -> None:
        if len(defined) > _MAX_EACH:
            raise self._wrong(f"more than {_MAX_EACH} of a kind")

    def _wrong(self, reason: str) -> DecodeError:
        return DecodeError(_WHAT, f"line {self._number}: {reason}")


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """(number, words) of each line that says something."""
    if found := _CONTROL.search(text):
        raise DecodeError(_WHAT, f"has the control character {found[0]!r}")
    if not text.endswith("\n"):
        raise DecodeError(_WHAT, "does not end in a newline: is it complete?")
    # Not str.split() and str.splitlines(): they also split at other characters, which may be part of a name here.
    for number, line in enumerate(text[:-1].split("\n"), 1):
        words = _WORD.findall(line)
        if words and not words[0].startswith("#"):
            yield number, words


def _shown(words: list[str]) -> str:
    return repr(" ".join(words)[:80])
