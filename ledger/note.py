"""Signed notes (C2SP signed-note v1.0.0) with Ed25519 keys.

A note is a UTF-8 text that ends in a newline, an empty line, and signature lines
`— <name> <base64(key ID || signature)>`; the last empty line is the one that splits. The signature covers the text with
its final newline. A signature by an unknown (name, key ID) is ignored, whatever its type; a bad signature by a known
key refuses the note; at least one good signature by a known key is needed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ledger.encoding import decode_base64, encode_base64
from ledger.errors import DecodeError, UsageError, VerificationFailed
from ledger.note_keys import KEY_ID_BYTES, PublicKey, SecretKey, encodable, valid_name

__all__ = ["MAX_NOTE_BYTES", "MAX_SIGNATURES", "Note", "NoteVerifier", "Signature", "Signer", "Verifier", "sign_note"]

MAX_NOTE_BYTES = 1_000_000
MAX_SIGNATURES = 100
"""Limits against notes made to exhaust a reader; the format asks for at least 16 signatures."""

_PREFIX = "— "
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: who claims to have signed, and the signature's bytes (their meaning depends on the key)."""

    name: str
    key_id: bytes
    signature: bytes

    def __post_init__(self) -> None:
        if not valid_name(self.name):
            raise UsageError(f"{self.name!r} is not a key name: it must have no space, plus or control character")
        if len(self.key_id) != KEY_ID_BYTES or not self.signature:
            raise UsageError(f"a signature needs a key ID of {KEY_ID_BYTES} bytes and at least one more byte")

    @classmethod
    def parse(cls, line: str) -> Signature:
        """The signature whose `line()` is `line` and a newline. Raises DecodeError."""
        if not line.startswith(_PREFIX):
            raise DecodeError("note", "a signature line does not start with an em dash and a space")
        name, _, encoded = line[len(_PREFIX) :].partition(" ")
        if not valid_name(name):
            raise DecodeError("note", "a key name is empty or has a plus or a space")
        data = decode_base64("note signature", encoded)
        if len(data) <= KEY_ID_BYTES:
            raise DecodeError("note signature", f"has {len(data)} bytes, which leaves none after the key ID")
        return cls(name, data[:KEY_ID_BYTES], data[KEY_ID_BYTES:])

    def line(self) -> str:
        """The signature line with its newline."""
        return f"{_PREFIX}{self.name} {encode_base64(self.key_id + self.signature)}\n"


class NoteVerifier(Protocol):
    """A key that can check signatures on notes: `Verifier` here, `CosignatureVerifier` in `ledger.cosignature`."""

    @property
    def name(self) -> str: ...

    @property
    def key_id(self) -> bytes: ...

    def verify(self, text: bytes, signature: bytes) -> None:
        """Raises VerificationFailed unless `signature` is this key's signature of the note text."""


@dataclass(frozen=True, slots=True)
class Note:
    """A parsed note, NOT yet verified: call `verify` before believing `text`."""

    text: str
    signatures: tuple[Signature, ...]

    def __post_init__(self) -> None:
        _check_text(self.text)
        if not 1 <= len(self.signatures) <= MAX_SIGNATURES:
            raise UsageError(f"a note needs 1 to {MAX_SIGNATURES} signatures, got {len(self.signatures)}")

    @classmethod
    def parse(cls, data: bytes) -> Note:
        """The note whose `format()` is exactly `data`. Raises DecodeError."""
        if len(data) > MAX_NOTE_BYTES:
            raise DecodeError("note", f"longer than {MAX_NOTE_BYTES} bytes")
        try:
            whole = data.decode("utf-8")
        except UnicodeDecodeError:
            raise DecodeError("note", "not UTF-8") from None
        if _CONTROL.search(whole):
            raise DecodeError("note", "has a control character other than newline")
        text, separator, tail = whole.rpartition("\n\n")
        if not separator:
            raise DecodeError("note", "no empty line between text and signatures")
        if not tail.endswith("\n"):
            raise DecodeError("note", "no signature line, or no newline at the end")
        lines = tail[:-1].split("\n")
        if len(lines) > MAX_SIGNATURES:
            raise DecodeError("note", f"more than {MAX_SIGNATURES} signatures")
        return cls(text + "\n", tuple(Signature.parse(line) for line in lines))

    def format(self) -> bytes:
        """The note's bytes."""
        return (self.text + "\n" + "".join(s.line() for s in self.signatures)).encode("utf-8")

    def verify(self, verifiers: Sequence[NoteVerifier]) -> tuple[Signature, ...]:
        """The signatures by known keys, all of them checked; at least one. Raises VerificationFailed."""
        known = {(v.name, v.key_id): v for v in verifiers}
        if len(known) != len(verifiers):
            raise UsageError("two verifier keys have the same name and key ID")
        good = []
        for signature in self.signatures:
            verifier = known.get((signature.name, signature.key_id))
            if verifier is not None:
                verifier.verify(self.text.encode("utf-8"), signature.signature)
                good.append(signature)
        if not good:
            names = ", ".join(sorted(v.name for v in verifiers))
            raise VerificationFailed("note.unsigned", f"no signature by a known key ({names})")
        return tuple(good)


class Verifier(PublicKey):
    """An Ed25519 verifier key (type 01): `name+<key ID in hex>+base64(01 || public key)`."""

    __slots__ = ()

    TYPE = 0x01
    WHAT = "verifier key"

    def verify(self, text: bytes, signature: bytes) -> None:
        """Raises VerificationFailed unless `signature` is this key's Ed25519 signature of `text`."""
        if not self.holds(text, signature):
            raise VerificationFailed("note.signature", f"the signature by {self.name!r} does not hold")


class Signer(SecretKey):
    """An Ed25519 signing key of type 01, which signs the bare text of notes: for a log, its checkpoints."""

    __slots__ = ()

    verifier: Verifier
    PUBLIC = Verifier
    WHAT = "signing key"

    def sign(self, text: bytes) -> Signature:
        """This key's signature of a note text."""
        return Signature(self.name, self.verifier.key_id, self._sign(text))


def sign_note(text: str, signers: Sequence[Signer]) -> Note:
    """`text` signed by every signer. Raises UsageError for a text that cannot be a note."""
    _check_text(text)
    return Note(text, tuple(signer.sign(text.encode("utf-8")) for signer in signers))


def _check_text(text: str) -> None:
    if not text.endswith("\n") or _CONTROL.search(text) or not encodable(text):
        raise UsageError("a note's text must be Unicode that ends in a newline and has no other control character")
