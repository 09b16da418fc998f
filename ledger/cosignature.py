"""Cosignatures of checkpoints (C2SP tlog-cosignature v1.0.1, Ed25519, type 04): who saw a head, and when.

The signature's bytes are a time (8 bytes, big-endian, seconds since 1970) and an Ed25519 signature of

    cosignature/v1
    time <seconds in decimal>
    <the whole text of the checkpoint>

It says that at this time the largest consistent tree that the cosigner had seen of this log was this one. What is
signed does not name the cosigner, so a key has one name, and is never also a key of type 01.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ledger.checkpoint import Checkpoint
from ledger.encoding import MAX_SIZE
from ledger.errors import DecodeError, UsageError, VerificationFailed
from ledger.note import Note, Signature
from ledger.note_keys import PublicKey, SecretKey

__all__ = ["MAX_TIME", "CosignatureVerifier", "Cosigner", "with_cosignatures"]

MAX_TIME: Final = MAX_SIZE
"""Largest time that the format allows, 2^63 - 1; the smallest is 1, because 0 says nothing about a time."""

_TIME_BYTES: Final = 8
_COSIGNATURE_BYTES: Final = _TIME_BYTES + 64


class CosignatureVerifier(PublicKey):
    """A cosigner's verifier key (type 04): `name+<key ID in hex>+base64(04 || public key)`. Is a `NoteVerifier`."""

    __slots__ = ()

    TYPE = 0x04
    WHAT = "cosigner key"

    def verify(self, text: bytes, signature: bytes) -> None:
        """Raises VerificationFailed unless `signature` is this key's cosignature of the checkpoint `text`.

        Its time, which `time` reads, is then authentic too: as honest as the cosigner's clock.
        """
        time = self.time(signature)
        if not self.holds(_message(text, time), signature[_TIME_BYTES:]):
            raise VerificationFailed("note.signature", f"the cosignature by {self.name!r} does not hold")

    def time(self, signature: bytes) -> int:
        """The time of a cosignature in seconds since 1970, NOT verified. Raises VerificationFailed for other bytes."""
        if len(signature) != _COSIGNATURE_BYTES:
            raise VerificationFailed(
                "note.signature",
                f"a cosignature by {self.name!r} has {len(signature)} bytes instead of {_COSIGNATURE_BYTES}",
            )
        time = int.from_bytes(signature[:_TIME_BYTES], "big")
        if not 1 <= time <= MAX_TIME:
            raise VerificationFailed("note.signature", f"a cosignature by {self.name!r} has the time {time}")
        return time


class Cosigner(SecretKey):
    """A cosigner's secret key (type 04). Its file is none of a log: a key that signs heads does not witness them."""

    __slots__ = ()

    verifier: CosignatureVerifier
    PUBLIC = CosignatureVerifier
    WHAT = "cosigner's secret key"

    def cosign(self, text: bytes, time: int) -> Signature:
        """This key's cosignature of the checkpoint with the note text `text`, at `time` (seconds since 1970).

        Signs whatever it is given: `ledger.witness` is what checks heads against each other first. Raises DecodeError
        unless the text is a checkpoint, UsageError for a time that the format does not have.
        """
        if not 1 <= time <= MAX_TIME:
            raise UsageError(f"a cosignature's time lies in 1..{MAX_TIME} seconds since 1970, got {time}")
        try:
            Checkpoint.parse(text.decode("utf-8"))
        except UnicodeDecodeError:
            raise DecodeError("checkpoint", "not UTF-8") from None
        signature = time.to_bytes(_TIME_BYTES, "big") + self._sign(_message(text, time))
        return Signature(self.name, self.verifier.key_id, signature)


def with_cosignatures(checkpoint: bytes, cosignatures: Iterable[Signature]) -> bytes:
    """The signed checkpoint with these signature lines added at its end, one for each key that has none there yet.

    Verifies nothing. Raises DecodeError for a malformed note, UsageError for more signatures than a note may have.
    """
    note = Note.parse(checkpoint)
    signatures = {(s.name, s.key_id): s for s in note.signatures}
    added = []
    for cosignature in cosignatures:
        if (cosignature.name, cosignature.key_id) not in signatures:
            signatures[cosignature.name, cosignature.key_id] = cosignature
            added.append(cosignature)
    return Note(note.text, (*note.signatures, *added)).format()


def _message(text: bytes, time: int) -> bytes:
    return b"cosignature/v1\ntime %d\n" % time + text
