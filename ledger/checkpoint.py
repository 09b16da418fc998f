"""Checkpoints (C2SP tlog-checkpoint v1.0.0): what a log signs about its tree.

The note text is `origin`, the size in decimal, the root in base64, then optional extension lines. The name of the log's
key is its origin, so that a key of one log never speaks for another.
"""

from __future__ import annotations

import re
from dataclasses import InitVar, dataclass, field

from ledger.encoding import MAX_SIZE, decode_base64, decode_decimal, encode_base64
from ledger.errors import DecodeError, OriginMismatch, RootMismatch, UsageError
from ledger.merkle import HASH_BYTES, empty_root
from ledger.note import Note, NoteVerifier, Signer, sign_note

__all__ = ["Checkpoint", "VerifiedHead", "open_checkpoint", "sign_checkpoint"]

_VERIFIED = object()
_LINE = re.compile(r"[^\x00-\x1f]+")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A claim about a log's tree, signed or not. To rely on one, get a `VerifiedHead` from `open_checkpoint`."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not all(_LINE.fullmatch(line) for line in (self.origin, *self.extensions)):
            raise UsageError("the origin and every extension must be one non-empty line without control characters")
        if not 0 <= self.size <= MAX_SIZE:
            raise UsageError(f"a tree size lies in 0..{MAX_SIZE}, got {self.size}")
        if len(self.root) != HASH_BYTES:
            raise UsageError(f"a root has {HASH_BYTES} bytes, got {len(self.root)}")

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """The checkpoint whose `format()` is exactly `text` (a note's text). Raises DecodeError."""
        if not text.endswith("\n"):
            raise DecodeError("checkpoint", "no newline at the end")
        lines = text[:-1].split("\n")
        if len(lines) < 3:
            raise DecodeError("checkpoint", f"expected at least 3 lines, got {len(lines)}")
        if not all(_LINE.fullmatch(line) for line in lines):
            raise DecodeError("checkpoint", "has an empty line or a control character")
        origin, size, root, *extensions = lines
        return cls(
            origin,
            decode_decimal("checkpoint size", size),
            decode_base64("checkpoint root", root, HASH_BYTES),
            tuple(extensions),
        )

    def format(self) -> str:
        """The text to sign."""
        return "".join(f"{s}\n" for s in (self.origin, str(self.size), encode_base64(self.root), *self.extensions))


@dataclass(frozen=True, slots=True)
class VerifiedHead:
    """A checkpoint whose signature by the log's key was verified. Only `open_checkpoint` makes one.

    `note` holds the signed bytes as received: evidence, should the log ever contradict them.
    """

    checkpoint: Checkpoint
    note: bytes
    _token: InitVar[object]

    def __post_init__(self, _token: object) -> None:
        if _token is not _VERIFIED:
            raise UsageError("a VerifiedHead comes from open_checkpoint only")

    @property
    def origin(self) -> str:
        """The log's name."""
        return self.checkpoint.origin

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.checkpoint.size

    @property
    def root(self) -> bytes:
        """Root hash of the tree of `size` entries."""
        return self.checkpoint.root


def sign_checkpoint(checkpoint: Checkpoint, signer: Signer) -> bytes:
    """The checkpoint as a note signed by the log's key. Raises UsageError when the key's name is not the origin."""
    if signer.name != checkpoint.origin:
        raise UsageError(f"the key of {signer.name!r} cannot sign for the log {checkpoint.origin!r}")
    return sign_note(checkpoint.format(), [signer]).format()


def open_checkpoint(note_bytes: bytes, verifier: NoteVerifier, origin: str) -> VerifiedHead:
    """Verify a signed checkpoint of the log `origin`.

    Raises DecodeError for malformed bytes, VerificationFailed for a missing or bad signature, OriginMismatch for
    another log's checkpoint, RootMismatch for a size of 0 with a root that is not the empty tree's, and UsageError when
    `verifier` is not a key of `origin`.
    """
    if verifier.name != origin:
        raise UsageError(f"the key of {verifier.name!r} cannot speak for the log {origin!r}")
    note = Note.parse(note_bytes)
    note.verify([verifier])
    checkpoint = Checkpoint.parse(note.text)
    if checkpoint.origin != origin:
        raise OriginMismatch(origin, checkpoint.origin)
    if checkpoint.size == 0 and checkpoint.root != empty_root():
        raise RootMismatch("checkpoint.empty", empty_root(), checkpoint.root)
    return VerifiedHead(checkpoint, note_bytes, _token=_VERIFIED)
