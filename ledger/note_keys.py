"""Keys of signed notes: what all of this project's key types share (C2SP signed-note v1.0.0).

A key has a name, a type byte and 32 bytes of Ed25519 key. In text it is `name+<key ID in hex>+base64(type || key)`, and
the key ID is SHA-256(name || newline || type || public key), first 4 bytes. The type says what is signed: 01 the bare
text of a note (`ledger.note`), 04 a checkpoint with a time (`ledger.cosignature`). A key is of one type for life.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ledger.encoding import decode_base64, encode_base64
from ledger.errors import DecodeError, StorageError, UsageError
from ledger.files import fsync_folder

__all__ = ["ED25519_BYTES", "KEY_ID_BYTES", "PublicKey", "SecretKey", "encodable", "valid_name"]

KEY_ID_BYTES: Final = 4
ED25519_BYTES: Final = 32

_PRIVATE: Final = "PRIVATE+KEY+"
_LARGEST_FILE: Final = 4096


def encodable(text: str) -> bool:
    """False for lone surrogates, which Python strings may hold and UTF-8 may not."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def valid_name(name: str) -> bool:
    """Whether a key may be called so: not empty, no Unicode space, plus or control character."""
    return bool(name) and "+" not in name and not any(c.isspace() or c < " " for c in name) and encodable(name)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A verifier key of some type; keys of different types are never equal. Use a subclass."""

    name: str
    public_key: bytes

    TYPE: ClassVar[int]
    """The type byte."""

    WHAT: ClassVar[str]
    """What errors call it."""

    def __post_init__(self) -> None:
        if not valid_name(self.name):
            raise UsageError(f"{self.name!r} is not a key name: it must have no space, plus or control character")
        if len(self.public_key) != ED25519_BYTES:
            raise UsageError(f"an Ed25519 public key has {ED25519_BYTES} bytes, got {len(self.public_key)}")

    @classmethod
    def parse(cls, vkey: str) -> Self:
        """The key whose `str()` is exactly `vkey`. Raises DecodeError."""
        name, _, rest = vkey.partition("+")
        key_id, _, encoded = rest.partition("+")
        key = cls(name, _key_bytes(cls.WHAT, cls.TYPE, name, encoded))
        if key_id != key.key_id.hex():
            raise DecodeError(cls.WHAT, f"key ID is {key_id!r}, its name and key give {key.key_id.hex()!r}")
        return key

    @property
    def key_id(self) -> bytes:
        """SHA-256(name || newline || type || public key), first 4 bytes."""
        material = self.name.encode("utf-8") + b"\n" + bytes([self.TYPE]) + self.public_key
        return hashlib.sha256(material).digest()[:KEY_ID_BYTES]

    def holds(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's Ed25519 signature of exactly `message`."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{encode_base64(bytes([self.TYPE]) + self.public_key)}"


class SecretKey:
    """A signing key with its name. Secret: it never prints, and its file is readable by its owner only.

    Use a subclass: its `PUBLIC` decides the type, and with it what is signed.
    """

    __slots__ = ("_key", "_seed", "verifier")

    verifier: PublicKey
    """The public half, with the name."""

    PUBLIC: ClassVar[type[PublicKey]]
    WHAT: ClassVar[str]

    def __init__(self, name: str, seed: bytes) -> None:
        if len(seed) != ED25519_BYTES:
            raise UsageError(f"an Ed25519 seed has {ED25519_BYTES} bytes")
        self._seed = seed
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.verifier = self.PUBLIC(name, self._key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls, name: str) -> Self:
        """A fresh key from the operating system's randomness."""
        return cls(name, secrets.token_bytes(ED25519_BYTES))

    @classmethod
    def parse(cls, skey: str) -> Self:
        """A key from `PRIVATE+KEY+name+<key ID>+base64(type || seed)`. Raises DecodeError, which never quotes it."""
        if not skey.startswith(_PRIVATE):
            raise DecodeError(cls.WHAT, f"does not start with {_PRIVATE}")
        name, _, rest = skey[len(_PRIVATE) :].partition("+")
        key_id, _, encoded = rest.partition("+")
        key = cls(name, _key_bytes(cls.WHAT, cls.PUBLIC.TYPE, name, encoded))
        if key_id != key.verifier.key_id.hex():
            raise DecodeError(cls.WHAT, "its key ID does not match its name and key")
        return key

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a key file. Raises UsageError when others than its owner may open it, StorageError, DecodeError."""
        try:
            with path.open("rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                data = file.read(_LARGEST_FILE)
        except OSError as error:
            raise StorageError(f"cannot read the {cls.WHAT} {path}: {error.strerror}") from error
        if mode & 0o077:
            raise UsageError(f"the {cls.WHAT} {path} has mode {mode:04o}: run chmod 600 on it, and consider it exposed")
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            raise DecodeError(cls.WHAT, "not UTF-8") from None
        if not text.endswith("\n"):
            raise DecodeError(cls.WHAT, "no newline at the end of the file")
        return cls.parse(text[:-1])

    def save(self, path: Path) -> None:
        """Write a new key file of mode 0600, durable on return. Never overwrites. Raises StorageError."""
        encoded = encode_base64(bytes([self.PUBLIC.TYPE]) + self._seed)
        line = f"{_PRIVATE}{self.name}+{self.verifier.key_id.hex()}+{encoded}\n"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(line.encode("utf-8"))
                file.flush()
                os.fsync(descriptor)
            fsync_folder(path.parent)
        except FileExistsError:
            raise StorageError(f"{path} exists already: a {self.WHAT} is never overwritten") from None
        except OSError as error:
            raise StorageError(f"cannot write the {self.WHAT} {path}: {error.strerror}") from error

    @property
    def name(self) -> str:
        """The key name: for a log, its origin."""
        return self.verifier.name

    def _sign(self, message: bytes) -> bytes:
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, key ID {self.verifier.key_id.hex()})"

    def __reduce__(self) -> str:
        raise UsageError(f"a {self.WHAT} is not pickled or copied: save it to a file of mode 0600")


def _key_bytes(what: str, type_: int, name: str, encoded: str) -> bytes:
    """The 32 bytes behind the type byte, which must be `type_`."""
    if not valid_name(name):
        raise DecodeError(what, "the key name is empty or has a space or control character")
    data = decode_base64(what, encoded)
    if not data or data[0] != type_:
        raise DecodeError(what, f"not an Ed25519 key of type {type_:02x}" + (f" but {data[0]:02x}" if data else ""))
    if len(data) != 1 + ED25519_BYTES:
        raise DecodeError(what, f"an Ed25519 key has {ED25519_BYTES} bytes, got {len(data) - 1}")
    return data[1:]
