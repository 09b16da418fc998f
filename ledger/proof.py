"""Proof files (C2SP tlog-proof): everything that shows, offline, that an entry is in a log.

Lines: `c2sp.org/tlog-proof@v1`, optionally `extra <base64>`, `index <n>`, one base64 hash a line from the leaf's
sibling upward, an empty line, then the signed checkpoint verbatim. The entry itself travels apart. `extra` is not
authenticated by anything.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass

from ledger.checkpoint import Checkpoint, VerifiedHead, open_checkpoint
from ledger.encoding import MAX_SIZE, decode_base64, decode_decimal, encode_base64
from ledger.errors import DecodeError, UsageError
from ledger.merkle import HASH_BYTES, leaf_hash, verify_inclusion
from ledger.note import Note, NoteVerifier

__all__ = ["HEADER", "TlogProof", "VerifiedEntry"]

HEADER = "c2sp.org/tlog-proof@v1"
_MAX_HASHES = 63
_VERIFIED = object()


@dataclass(frozen=True, slots=True)
class VerifiedEntry:
    """An entry that is number `index` in the log of `head`. Only `TlogProof.verify` makes one."""

    index: int
    entry: bytes
    leaf_hash: bytes
    head: VerifiedHead
    _token: InitVar[object]

    def __post_init__(self, _token: object) -> None:
        if _token is not _VERIFIED:
            raise UsageError("a VerifiedEntry comes from TlogProof.verify only")


@dataclass(frozen=True, slots=True)
class TlogProof:
    """A parsed proof file, NOT yet verified. `checkpoint` is the signed note, byte for byte."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.index <= MAX_SIZE:
            raise UsageError(f"an index lies in 0..{MAX_SIZE}, got {self.index}")
        if len(self.hashes) > _MAX_HASHES or any(len(h) != HASH_BYTES for h in self.hashes):
            raise UsageError(f"a proof has at most {_MAX_HASHES} hashes of {HASH_BYTES} bytes")
        if self.extra == b"":
            raise UsageError("extra data is absent (None) or not empty")

    @classmethod
    def parse(cls, data: bytes) -> TlogProof:
        """The proof whose `format()` is exactly `data`. Raises DecodeError, also for a malformed checkpoint."""
        head, separator, checkpoint = data.partition(b"\n\n")
        if not separator:
            raise DecodeError("tlog-proof", "no empty line before the checkpoint")
        try:
            lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError:
            raise DecodeError("tlog-proof", "not ASCII before the checkpoint") from None
        if lines.pop(0) != HEADER:
            raise DecodeError("tlog-proof", f"the first line is not {HEADER}")
        extra = None
        if lines and lines[0].startswith("extra "):
            extra = decode_base64("tlog-proof extra", lines.pop(0).removeprefix("extra "))
            if not extra:
                raise DecodeError("tlog-proof extra", "empty: the line must then be left out")
        if not lines or not lines[0].startswith("index "):
            raise DecodeError("tlog-proof", "no index line")
        index = decode_decimal("tlog-proof index", lines.pop(0).removeprefix("index "))
        if len(lines) > _MAX_HASHES:
            raise DecodeError("tlog-proof", f"more than {_MAX_HASHES} hashes")
        hashes = tuple(decode_base64("tlog-proof hash", line, HASH_BYTES) for line in lines)
        Checkpoint.parse(Note.parse(checkpoint).text)
        return cls(index, hashes, checkpoint, extra)

    def format(self) -> bytes:
        """The proof file's bytes."""
        lines = [HEADER]
        if self.extra is not None:
            lines.append(f"extra {encode_base64(self.extra)}")
        lines.append(f"index {self.index}")
        lines.extend(encode_base64(h) for h in self.hashes)
        return "".join(f"{line}\n" for line in lines).encode("ascii") + b"\n" + self.checkpoint

    def verify(self, entry: bytes, verifier: NoteVerifier, origin: str) -> VerifiedEntry:
        """Check the checkpoint's signature, then that `entry` is number `index` of its tree.

        Raises as `open_checkpoint` and `verify_inclusion` do; `extra` is ignored.
        """
        head = open_checkpoint(self.checkpoint, verifier, origin)
        leaf = leaf_hash(entry)
        verify_inclusion(leaf, self.index, head.size, self.hashes, head.root)
        return VerifiedEntry(self.index, entry, leaf, head, _token=_VERIFIED)
