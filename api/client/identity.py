"""Who a client is: an Ed25519 key in a private file, and the party entry that registers it on a ledger.

Clinics and consumers have a mailbox besides: an X25519 key in `mailbox.key` (32 bytes, private) whose public half is in
the party entry, so that they can leave each other sealed boxes on a server (`privacy.sealed`). A folder that an older
release made has none, and its party entry stays as it was.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from api.entries import Body, Party, Reference, sign_entry
from api.signing import load_private_key, save_private_key
from privacy.canonical_json import Codec, Digest, Name, OmitNone, Record, Text
from privacy.errors import DecodeError, UsageError
from privacy.private_files import create_private, private_folder, read_private, write_private
from privacy.sealed import KEY_BYTES

__all__ = ["Identity", "Role"]

Role = Literal["clinic", "owner", "consumer"]
_WITH_MAILBOX: Final = frozenset({"clinic", "consumer"})
_KEY: Final = "identity.key"
_MAILBOX: Final = "mailbox.key"
_FILE: Final = "identity.json"
_MAX_BYTES: Final = 1 << 16


@dataclass(frozen=True)
class _Stored(Record):
    format: Literal["sealproof/identity/v1"]
    role: Role
    name: Name
    server: Text
    origin: Text
    party: Reference | None
    mailbox: Annotated[Digest | None, OmitNone] = None
    """The public half of the mailbox key, so that its loss is noticed."""


_CODEC: Final = Codec(_Stored, "identity", _MAX_BYTES)


@dataclass(frozen=True)
class Identity:
    """A party: role, name, secret keys (not shown), the server and log it belongs to, and its entry there.

    `party` is None until the entry is logged. `mailbox` opens what others have sealed for this party; an owner has
    none, nor has a clinic whose folder an older release made.
    """

    folder: Path
    role: Role
    name: str
    server: str
    origin: str
    party: Reference | None
    private_key: Ed25519PrivateKey = field(repr=False)
    mailbox: X25519PrivateKey | None = field(default=None, repr=False)

    @classmethod
    def create(cls, folder: Path, role: Role, name: str, server: str, origin: str) -> Identity:
        """A new identity in `folder`, or the unfinished one that is there already.

        Raises UsageError if the folder holds an identity of another role, name or log.
        """
        private_folder(folder)
        if (folder / _FILE).exists():
            found = cls.load(folder)
            if (found.role, found.name, found.origin) != (role, name, origin):
                raise UsageError(
                    f"{folder} belongs to the {found.role} {found.name!r} on the log {found.origin!r}: use another"
                )
            return replace(found, server=server)
        # A name that no entry can carry is refused before a key is made.
        _CODEC.encode(_Stored("sealproof/identity/v1", role, name, server, origin, None))
        if not (folder / _KEY).exists():
            save_private_key(Ed25519PrivateKey.generate(), folder / _KEY)
        if role in _WITH_MAILBOX and not (folder / _MAILBOX).exists():
            create_private(folder / _MAILBOX, X25519PrivateKey.generate().private_bytes_raw())
        mailbox = _load_mailbox(folder / _MAILBOX) if role in _WITH_MAILBOX else None
        identity = cls(folder, role, name, server, origin, None, load_private_key(folder / _KEY), mailbox)
        identity._save()
        return identity

    @classmethod
    def load(cls, folder: Path) -> Identity:
        """The identity in `folder`.

        Raises UsageError if there is none, others may read it or its mailbox key is missing or another, DecodeError.
        """
        stored = _CODEC.decode(read_private(folder / _FILE, _MAX_BYTES, "identity"))
        private_key = load_private_key(folder / _KEY)
        mailbox = None if stored.mailbox is None else _load_mailbox(folder / _MAILBOX)
        if mailbox is not None and mailbox.public_key().public_bytes_raw() != stored.mailbox:
            raise UsageError(f"{folder / _MAILBOX} is not the mailbox key that {stored.name!r} has registered")
        who = (stored.role, stored.name, stored.server, stored.origin, stored.party)
        return cls(folder, *who, private_key, mailbox)

    def party_entry(self) -> bytes:
        """The entry that registers these keys, signed by the signing key; the same bytes every time."""
        public_key = self.private_key.public_key().public_bytes_raw()
        return sign_entry(Party(self.role, self.name, public_key, self._mailbox_key), None, self.private_key)

    @property
    def _mailbox_key(self) -> bytes | None:
        return None if self.mailbox is None else self.mailbox.public_key().public_bytes_raw()

    def registered(self, reference: Reference) -> Identity:
        """This identity with its party entry, saved."""
        identity = replace(self, party=reference)
        identity._save()
        return identity

    @property
    def reference(self) -> Reference:
        """The party entry. Raises UsageError if the party is not registered yet."""
        if self.party is None:
            raise UsageError(f"{self.name!r} is not registered on the ledger yet: finish its init first")
        return self.party

    def sign(self, body: Body) -> bytes:
        """An entry with this body. Raises UsageError if the party is not registered yet."""
        return sign_entry(body, self.reference, self.private_key)

    def _save(self) -> None:
        who = (self.role, self.name, self.server, self.origin, self.party)
        write_private(self.folder / _FILE, _CODEC.encode(_Stored("sealproof/identity/v1", *who, self._mailbox_key)))

    def __reduce__(self) -> Any:
        raise UsageError("an identity holds a signing key and is not pickled or copied")


def _load_mailbox(path: Path) -> X25519PrivateKey:
    data = read_private(path, KEY_BYTES, "the mailbox key")
    if len(data) != KEY_BYTES:
        raise DecodeError("mailbox key", f"{path} has {len(data)} bytes instead of {KEY_BYTES}")
    return X25519PrivateKey.from_private_bytes(data)
