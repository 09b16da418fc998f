"""A witness of logs (C2SP tlog-witness v1.0.0): cosigns a head only if it extends the last one that it cosigned.

Order of a request: check the log's signature, check the proof from the stored head to the new one, store the new head
in place of exactly that stored head, and only then cosign. Two requests at once, a crash at any moment, or a replayed
request can so never lead to cosignatures of two heads of one size, or of a smaller tree after a larger one. The first
head of a log is taken as it is. A head that contradicts the stored one is kept as evidence, with both signed notes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from ledger.checkpoint import Checkpoint, VerifiedHead, open_checkpoint
from ledger.cosignature import Cosigner, with_cosignatures
from ledger.encoding import encode_base64
from ledger.errors import DecodeError, RootMismatch, UsageError, VerificationFailed
from ledger.merkle import verify_consistency
from ledger.note import Note, Verifier
from ledger.witness_wire import SIZE_TYPE, TEXT_TYPE, WitnessRequest, parse_request

__all__ = ["Clock", "Evidence", "EvidenceKind", "LastHead", "Witness", "WitnessAnswer", "WitnessStore"]

Clock = Callable[[], int]
"""Seconds since 1970."""

EvidenceKind = Literal["fork", "unproven"]


@dataclass(frozen=True, slots=True)
class LastHead:
    """The head of a log that was cosigned last, and when. `note` is its text with the log's signature alone."""

    size: int
    root: bytes
    time: int
    note: bytes


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two heads signed by the log `origin`: the one that was cosigned (`old`), and one that was refused (`new`).

    `fork`: two roots of one size, which convicts the log. `unproven`: the proof sent with the new head does not show
    that it extends the old one. Proofs are not signed, and anybody can send a bad one: that convicts nobody by itself,
    and is forgotten when the same head comes with a good proof.
    """

    kind: EvidenceKind
    origin: str
    time: int
    old: bytes
    new: bytes
    proof: tuple[bytes, ...]

    def to_json(self, number: int) -> dict[str, object]:
        """As JSON, with its number in a store: the notes as text, the hashes in base64."""
        return {
            "number": number,
            "kind": self.kind,
            "origin": self.origin,
            "time": self.time,
            "old": self.old.decode("utf-8"),
            "new": self.new.decode("utf-8"),
            "proof": [encode_base64(hash_) for hash_ in self.proof],
        }


class WitnessStore(Protocol):
    """What a witness must not forget. Safe to use from many threads; every method raises StorageError."""

    def last(self, origin: str) -> LastHead | None:
        """The head of this log that was cosigned last."""

    def advance(self, origin: str, expected: LastHead | None, new: VerifiedHead, now: Clock) -> LastHead | None:
        """Store `new` if the last head still has the size and root of `expected`, dated by `now` inside of this step.

        Durable on return. None, with nothing changed, if another head was stored meanwhile. Forgets `unproven`
        evidence against this head. Raises StorageError when the clock went back since the last head.
        """

    def accuse(self, kind: EvidenceKind, old: LastHead, new: VerifiedHead, proof: Sequence[bytes], now: Clock) -> None:
        """Keep evidence; the same again, or more than is reasonable, is ignored."""


@dataclass(frozen=True, slots=True)
class WitnessAnswer:
    """An answer as it goes over HTTP."""

    status: int
    body: bytes
    content_type: str = TEXT_TYPE


_MAX_TEXT_BYTES: Final = 8192
"""Of a checkpoint: its extension lines are kept, and shown as evidence."""

_BAD_PROOF: Final = "the proof does not show that this tree extends the last one that was cosigned"


class Witness:
    """Cosigns heads of `logs` (origin to key) for whoever sends them. Safe to use from many threads.

    Raises UsageError for a log's key under another origin, or one that is the witness's own.
    """

    def __init__(self, store: WitnessStore, cosigner: Cosigner, logs: Mapping[str, Verifier]) -> None:
        for origin, verifier in logs.items():
            if verifier.name != origin:
                raise UsageError(f"the key of {verifier.name!r} cannot speak for the log {origin!r}")
            if verifier.public_key == cosigner.verifier.public_key:
                raise UsageError(f"the log {origin!r} has the witness's own key: a log is no witness of its own heads")
        self._store = store
        self._cosigner = cosigner
        self._logs = dict(logs)

    @property
    def logs(self) -> Mapping[str, Verifier]:
        """The logs that this witness follows."""
        return dict(self._logs)

    @property
    def vkey(self) -> str:
        """The witness's verifier key."""
        return str(self._cosigner.verifier)

    def last(self, origin: str) -> LastHead | None:
        """The head of a log that was cosigned last. Raises StorageError."""
        return self._store.last(origin)

    def latest(self, origin: str) -> bytes | None:
        """The last head as a note with the log's signature and this witness's cosignature, the one that it gave.

        None for a log that it does not follow, or of which it cosigned nothing. Raises StorageError.
        """
        last = self._store.last(origin)
        if last is None or origin not in self._logs:
            return None
        text = Note.parse(last.note).text.encode("utf-8")
        return with_cosignatures(last.note, [self._cosigner.cosign(text, last.time)])

    def add_checkpoint(self, body: bytes, now: Clock) -> WitnessAnswer:
        """Answer a request; a 200 has the cosignature, and what it says is stored. Raises StorageError only."""
        try:
            request = parse_request(body)
            note = Note.parse(request.checkpoint)
            origin = Checkpoint.parse(note.text).origin
        except DecodeError as error:
            return _refusal(400, str(error))
        text = note.text.encode("utf-8")
        if len(text) > _MAX_TEXT_BYTES:
            return _refusal(400, f"a checkpoint's text has at most {_MAX_TEXT_BYTES} bytes here, this one {len(text)}")
        log = self._logs.get(origin)
        if log is None:
            return _refusal(404, "this witness does not follow that log")
        try:
            # Only this signature is kept: anybody may have added lines by keys that nobody knows.
            (signature, *_) = note.verify([log])
            head = open_checkpoint(Note(note.text, (signature,)).format(), log, origin)
        except RootMismatch as error:
            return _refusal(422, str(error))
        except VerificationFailed as error:
            return _refusal(403, str(error))
        if request.old > head.size:
            return _refusal(400, f"the old size {request.old} is larger than the checkpoint's size {head.size}")
        while True:
            last = self._store.last(origin)
            refusal = self._refused(request, head, last, now)
            if refusal is not None:
                return refusal
            stored = self._store.advance(origin, last, head, now)
            if stored is not None:
                return WitnessAnswer(200, self._cosigner.cosign(text, stored.time).line().encode("utf-8"))
            # A larger head got ahead: look at that one. Sizes only grow, so this comes to an end.

    def _refused(
        self, request: WitnessRequest, head: VerifiedHead, last: LastHead | None, now: Clock
    ) -> WitnessAnswer | None:
        """Why `head` must not follow `last`, or None."""
        forked = last is not None and head.size == last.size and head.root != last.root
        if last is not None and forked:
            # Two signed roots of one size say it all, whatever else is wrong with the request.
            self._store.accuse("fork", last, head, request.proof, now)
        last_size = last.size if last is not None else 0
        if request.old != last_size:
            return WitnessAnswer(409, f"{last_size}\n".encode("ascii"), SIZE_TYPE)
        if last is None or last_size == 0 or head.size == last_size:
            # Every tree extends the empty one, and itself.
            if request.proof:
                return _refusal(422, "growth from the empty tree, and none at all, need no hashes")
            return _refusal(409, "another root of this size was cosigned") if forked else None
        try:
            verify_consistency(last_size, head.size, request.proof, last.root, head.root)
        except VerificationFailed as error:
            self._store.accuse("unproven", last, head, request.proof, now)
            return _refusal(422, f"{_BAD_PROOF} ({error})")
        return None


def _refusal(status: int, reason: str) -> WitnessAnswer:
    return WitnessAnswer(status, f"{reason}\n".encode("utf-8", "replace"))
