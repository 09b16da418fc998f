"""Signed notes (C2SP signed-note v1.0.0) with Ed25519 keys.

A note is a UTF-8 text that ends in a newline, an empty line, and signature lines
`— <name> <base64(key ID || signature)>`; the last empty line is the one that splits. The signature covers the text with
its final newline. A signature by an unknown (name, key ID) is ignored, whatever its type; a bad signature by a known
key refuses the note; at least one good signature by a known key is needed.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ledger.encoding import decode_base64, encode_base64
from ledger.errors import DecodeError, StorageError, UsageError, VerificationFailed
from ledger.files import fsync_folder

__all__ = ["MAX_NOTE_BYTES", "MAX_SIGNATURES", "Note", "NoteVerifier", "Signature", "Signer", "Verifier", "sign_note"]

MAX_NOTE_BYTES = 1_000_000
MAX_SIGNATURES = 100
"""Limits against notes made to exhaust a reader; the format asks for at least 16 signatures."""

_KEY_ID_BYTES = 4
_ED25519 = 0x01
_ED25519_BYTES = 32
_PREFIX = "— "
_PRIVATE = "PRIVATE+KEY+"
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: who claims to have signed, and the signature's bytes (their meaning depends on the key)."""

    name: str
    key_id: bytes
    signature: bytes

    def __post_init__(self) -> None:
        if not _valid_name(self.name):
            raise UsageError(f"{self.name!r} is not a key name: it must have no space, plus or control character")
        if len(self.key_id) != _KEY_ID_BYTES or not self.signature:
            raise UsageError(f"a signature needs a key ID of {_KEY_ID_BYTES} bytes and at least one more byte")

    def line(self) -> str:
        """The signature line with its newline."""
        return f"{_PREFIX}{self.name} {encode_base64(self.key_id + self.signature)}\n"


class NoteVerifier(Protocol):
    """A key that can check signatures on notes: `Verifier` here; other signature types have the same shape."""

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
        return cls(text + "\n", tuple(_parse_signature(line) for line in lines))

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


@dataclass(frozen=True, slots=True)
class Verifier:
    """An Ed25519 verifier key (type 01): `name+<key ID in hex>+base64(01 || public key)`."""

    name: str
    public_key: bytes

    def __post_init__(self) -> None:
        if not _valid_name(self.name):
            raise UsageError(f"{self.name!r} is not a key name: it must have no space, plus or control character")
        if len(self.public_key) != _ED25519_BYTES:
            raise UsageError(f"an Ed25519 public key has {_ED25519_BYTES} bytes, got {len(self.public_key)}")

    @classmethod
    def parse(cls, vkey: str) -> Verifier:
        """The key whose `str()` is exactly `vkey`. Raises DecodeError."""
        name, _, rest = vkey.partition("+")
        key_id, _, encoded = rest.partition("+")
        public_key = _parse_key("verifier key", name, encoded)
        verifier = cls(name, public_key)
        if key_id != verifier.key_id.hex():
            raise DecodeError("verifier key", f"key ID is {key_id!r}, its name and key give {verifier.key_id.hex()!r}")
        return verifier

    @property
    def key_id(self) -> bytes:
        """SHA-256(name || newline || 01 || public key), first 4 bytes."""
        material = self.name.encode("utf-8") + b"\n" + bytes([_ED25519]) + self.public_key
        return hashlib.sha256(material).digest()[:_KEY_ID_BYTES]

    def verify(self, text: bytes, signature: bytes) -> None:
        """Raises VerificationFailed unless `signature` is this key's Ed25519 signature of `text`."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, text)
        except (InvalidSignature, ValueError):
            raise VerificationFailed("note.signature", f"the signature by {self.name!r} does not hold") from None

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{encode_base64(bytes([_ED25519]) + self.public_key)}"


class Signer:
    """An Ed25519 signing key with its name. Secret: it never prints, and its file is readable by its owner only."""

    __slots__ = ("_key", "_seed", "verifier")

    verifier: Verifier

    def __init__(self, name: str, seed: bytes) -> None:
        if len(seed) != _ED25519_BYTES:
            raise UsageError(f"an Ed25519 seed has {_ED25519_BYTES} bytes")
        self._seed = seed
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.verifier = Verifier(name, self._key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls, name: str) -> Signer:
        """A fresh key from the operating system's randomness."""
        return cls(name, secrets.token_bytes(_ED25519_BYTES))

    @classmethod
    def parse(cls, skey: str) -> Signer:
        """A key from `PRIVATE+KEY+name+<key ID>+base64(01 || seed)`. Raises DecodeError, which never quotes it."""
        if not skey.startswith(_PRIVATE):
            raise DecodeError("signing key", f"does not start with {_PRIVATE}")
        name, _, rest = skey[len(_PRIVATE) :].partition("+")
        key_id, _, encoded = rest.partition("+")
        signer = cls(name, _parse_key("signing key", name, encoded))
        if key_id != signer.verifier.key_id.hex():
            raise DecodeError("signing key", "its key ID does not match its name and key")
        return signer

    @classmethod
    def load(cls, path: Path) -> Signer:
        """Read a key file. Raises UsageError when others than its owner may open it, StorageError, DecodeError."""
        try:
            with path.open("rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                data = file.read(4096)
        except OSError as error:
            raise StorageError(f"cannot read the signing key {path}: {error.strerror}") from error
        if mode & 0o077:
            raise UsageError(
                f"the signing key {path} has mode {mode:04o}: run chmod 600 on it, and consider it exposed"
            )
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            raise DecodeError("signing key", "not UTF-8") from None
        if not text.endswith("\n"):
            raise DecodeError("signing key", "no newline at the end of the file")
        return cls.parse(text[:-1])

    def save(self, path: Path) -> None:
        """Write a new key file of mode 0600, durable on return. Never overwrites. Raises StorageError."""
        line = f"{_PRIVATE}{self.name}+{self.verifier.key_id.hex()}+{encode_base64(bytes([_ED25519]) + self._seed)}\n"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(line.encode("utf-8"))
                file.flush()
                os.fsync(descriptor)
            fsync_folder(path.parent)
        except FileExistsError:
            raise StorageError(f"{path} exists already: a signing key is never overwritten") from None
        except OSError as error:
            raise StorageError(f"cannot write the signing key {path}: {error.strerror}") from error

    @property
    def name(self) -> str:
        """The key name: for a log, its origin."""
        return self.verifier.name

    def sign(self, text: bytes) -> Signature:
        """This key's signature of a note text."""
        return Signature(self.name, self.verifier.key_id, self._key.sign(text))

    def __repr__(self) -> str:
        return f"Signer({self.name!r}, key ID {self.verifier.key_id.hex()})"

    def __reduce__(self) -> str:
        raise UsageError("a signing key is not pickled or copied: save it to a file of mode 0600")


def sign_note(text: str, signers: Sequence[Signer]) -> Note:
    """`text` signed by every signer. Raises UsageError for a text that cannot be a note."""
    _check_text(text)
    return Note(text, tuple(signer.sign(text.encode("utf-8")) for signer in signers))


def _check_text(text: str) -> None:
    if not text.endswith("\n") or _CONTROL.search(text) or not _encodable(text):
        raise UsageError("a note's text must be Unicode that ends in a newline and has no other control character")


def _valid_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(c.isspace() or c < " " for c in name) and _encodable(name)


def _encodable(text: str) -> bool:
    """False for lone surrogates, which Python strings may hold and UTF-8 may not."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _parse_key(what: str, name: str, encoded: str) -> bytes:
    """The 32 bytes behind the type byte 01."""
    if not _valid_name(name):
        raise DecodeError(what, "the key name is empty or has a space or control character")
    data = decode_base64(what, encoded)
    if not data or data[0] != _ED25519:
        raise DecodeError(what, "not an Ed25519 key (type 01)")
    if len(data) != 1 + _ED25519_BYTES:
        raise DecodeError(what, f"an Ed25519 key has {_ED25519_BYTES} bytes, got {len(data) - 1}")
    return data[1:]


def _parse_signature(line: str) -> Signature:
    if not line.startswith(_PREFIX):
        raise DecodeError("note", "a signature line does not start with an em dash and a space")
    name, _, encoded = line[len(_PREFIX) :].partition(" ")
    if not _valid_name(name):
        raise DecodeError("note", "a key name is empty or has a plus or a space")
    data = decode_base64("note signature", encoded)
    if len(data) <= _KEY_ID_BYTES:
        raise DecodeError("note signature", f"has {len(data)} bytes, which leaves none after the key ID")
    return Signature(name, data[:_KEY_ID_BYTES], data[_KEY_ID_BYTES:])
