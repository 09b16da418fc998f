"""The CKKS keys in a clinic's folder: made once, certified, logged, and kept.

keys/<number>.{key,openings,certificate,reference.json}
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

from api.client.session import Session, load_reference
from api.entries import Key, Reference
from privacy.canonical_json import Codec, DecimalInteger, Record
from privacy.ckks.canonical import encode_public_key
from privacy.ckks.key_certificate import KeyOpenings, certify_key, verify_key_certificate
from privacy.ckks.keys import ClinicKeys
from privacy.ckks.params import ParameterSet
from privacy.errors import UsageError
from privacy.private_files import private_folder, read_private, write_private
from privacy.zk.group import ARKWORKS

__all__ = ["KeyFolder", "key_folder", "newest_key"]

_MAX_SMALL: Final = 1 << 16
_MAX_CERTIFICATE: Final = 1 << 24


@dataclass(frozen=True)
class _Openings(Record):
    format: Literal["sealproof/key-openings/v1"]
    rho_plus: DecimalInteger = field(repr=False)
    rho_minus: DecimalInteger = field(repr=False)


_OPENINGS: Final = Codec(_Openings, "key openings", _MAX_SMALL)


def newest_key(session: Session) -> int | None:
    """The largest number of a logged key in the folder."""
    numbers = [int(path.name.partition(".")[0]) for path in (session.folder / "keys").glob("*.reference.json")]
    return max(numbers, default=None)


def key_folder(session: Session, reference: Reference, otherwise: KeyFolder) -> KeyFolder:
    """The key whose entry is `reference`, or the other one if this folder has none."""
    for path in (session.folder / "keys").glob("*.reference.json"):
        if load_reference(path) == reference:
            return KeyFolder(session, int(path.name.partition(".")[0]))
    return otherwise


class KeyFolder:
    """Key `number` of a clinic; None: it has none, and whatever needs one raises UsageError."""

    def __init__(self, session: Session, number: int | None) -> None:
        self._session = session
        self._number = number

    @property
    def exists(self) -> bool:
        """Whether there is a key at all."""
        return self._number is not None

    @cached_property
    def reference(self) -> Reference:
        """The key entry."""
        return load_reference(self.path("reference.json"))

    @cached_property
    def keys(self) -> ClinicKeys:
        """The key pair. Secret."""
        return ClinicKeys.load(self.path("key"))

    def openings(self) -> KeyOpenings:
        """Blindings of the key's commitments. Secret."""
        stored = _OPENINGS.decode(read_private(self.path("openings"), _MAX_SMALL, "key openings"))
        return KeyOpenings(stored.rho_plus, stored.rho_minus)

    def path(self, suffix: str) -> Path:
        """A file of this key. Raises UsageError if there is none."""
        return self._session.folder / "keys" / f"{self._needed()}.{suffix}"

    def make(self, params: ParameterSet, progress: Callable[[str, int, int], None]) -> None:
        """Generate the key, certify it and log it, from where an earlier call stopped."""
        number, folder = self._needed(), private_folder(self._session.folder / "keys")
        name = self._session.identity.name
        if self.path("reference.json").exists():
            return
        progress("key", 0, 3)
        if not self.path("key").exists():
            ClinicKeys.generate(params, name, number).save(self.path("key"))
        keys = self.keys
        progress("key", 1, 3)
        if not self.path("certificate").exists():
            certificate, openings = certify_key(keys.params, name, number, keys.public.p0, keys.s, keys.e_pk)
            stored = _Openings("sealproof/key-openings/v1", openings.rho_plus, openings.rho_minus)
            write_private(self.path("openings"), _OPENINGS.encode(stored))
            write_private(self.path("certificate"), certificate)
        certificate = read_private(self.path("certificate"), _MAX_CERTIFICATE, "key certificate")
        verified = verify_key_certificate(keys.params, name, number, keys.public.p0, certificate)
        progress("key", 2, 3)
        server = self._session.server
        body = Key(
            clinic=name,
            parameter_set=keys.params.name,
            number=number,
            p0=server.put_blob(encode_public_key(keys.params, keys.public.p0)),
            C_s_plus=ARKWORKS.encode(verified.C_plus),
            C_s_minus=ARKWORKS.encode(verified.C_minus),
            commitments={},
            certificate=server.put_blob(certificate),
        )
        self._session.log_once(body, folder, str(number))
        progress("key", 3, 3)

    def _needed(self) -> int:
        if self._number is None:
            raise UsageError(
                f"the clinic {self._session.identity.name!r} has no logged CKKS key, which encrypted records need: "
                "repeat init without ckks=False (sealproof clinic init without --mpc-only) to make one"
            )
        return self._number
