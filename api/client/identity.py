"""Who a client is: an Ed25519 key in a private file, and the party entry that registers it on a ledger."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.entries import Body, Party, Reference, sign_entry
from api.signing import load_private_key, save_private_key
from privacy.canonical_json import Codec, Name, Record, Text
from privacy.errors import UsageError
from privacy.private_files import private_folder, read_private, write_private

__all__ = ["Identity", "Role"]

Role = Literal["clinic", "owner"]
_KEY: Final = "identity.key"
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


_CODEC: Final = Codec(_Stored, "identity", _MAX_BYTES)


@dataclass(frozen=True)
class Identity:
    """A party: role, name, signing key (secret, not shown), the server and log it belongs to, and its entry there.

    `party` is None until the entry is logged.
    """

    folder: Path
    role: Role
    name: str
    server: str
    origin: str
    party: Reference | None
    private_key: Ed25519PrivateKey = field(repr=False)

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
        identity = cls(folder, role, name, server, origin, None, load_private_key(folder / _KEY))
        identity._save()
        return identity

    @classmethod
    def load(cls, folder: Path) -> Identity:
        """The identity in `folder`. Raises UsageError if there is none or others may read it, DecodeError."""
        stored = _CODEC.decode(read_private(folder / _FILE, _MAX_BYTES, "identity"))
        private_key = load_private_key(folder / _KEY)
        return cls(folder, stored.role, stored.name, stored.server, stored.origin, stored.party, private_key)

    def party_entry(self) -> bytes:
        """The entry that registers this key, signed by it; the same bytes every time."""
        return sign_entry(
            Party(self.role, self.name, self.private_key.public_key().public_bytes_raw()), None, self.private_key
        )

    def registered(self, reference: Reference) -> Identity:
        """This identity with its party entry, saved."""
        identity = replace(self, party=reference)
        identity._save()
        return identity

    def sign(self, body: Body) -> bytes:
        """An entry with this body. Raises UsageError if the party is not registered yet."""
        if self.party is None:
            raise UsageError(f"{self.name!r} is not registered on the ledger yet: finish its init first")
        return sign_entry(body, self.party, self.private_key)

    def _save(self) -> None:
        stored = _Stored("sealproof/identity/v1", self.role, self.name, self.server, self.origin, self.party)
        write_private(self.folder / _FILE, _CODEC.encode(stored))

    def __reduce__(self) -> Any:
        raise UsageError("an identity holds a signing key and is not pickled or copied")
