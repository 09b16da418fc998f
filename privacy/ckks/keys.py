"""Key pairs: what the clinic keeps and what everybody sees (docs/spec/protocol.md, section 3).

s is ternary, p1 is derived from public names, p0 = -p1 s + e_pk mod the data primes. Two types, so that nothing public
can decrypt: `PublicKeys` needs no FHE library; `ClinicKeys` asks for one only to generate a key and to encrypt.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from privacy.ckks.canonical import ResultCiphertext, check_residues, public_key_digest, result_digest
from privacy.ckks.params import PARAMETER_SETS, ParameterSet
from privacy.ckks.polynomial import centred_from_residues, negacyclic_multiply_mod, residues_of
from privacy.errors import DecodeError, UsageError
from privacy.private_files import create_private

if TYPE_CHECKING:
    from privacy.ckks.backend import EncryptedInput

__all__ = ["E_PK_MAX", "ClinicKeys", "PublicKeys", "check_clinic_id", "derive_p1"]

E_PK_MAX = 21
"""|e_pk| <= 21: centred binomial, the difference of two sums of 21 bits."""

_CLINIC_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}")
_MAX_NUMBER = 2**32 - 1
_FILE = "clinic key file"
_FILE_TAG = b"sealproof/clinic-key/v1\n"
_DIGEST_BYTES = 32
_MAX_FILE_BYTES = 2**20


def _framed(*fields: bytes) -> bytes:
    return b"".join(part for item in fields for part in (len(item).to_bytes(4, "little"), item))


def check_clinic_id(clinic_id: str) -> None:
    """Raise UsageError unless this is 1 to 128 ASCII letters, digits or ._:@/- and begins with a letter or digit."""
    if not _CLINIC_ID.fullmatch(clinic_id):
        raise UsageError(
            f"clinic id {clinic_id!r}: expected 1 to 128 letters, digits or ._:@/-, a letter or digit first"
        )


def _check_name(clinic_id: str, number: int) -> None:
    check_clinic_id(clinic_id)
    if not 0 <= number <= _MAX_NUMBER:
        raise UsageError(f"key number {number} is not in 0 to {_MAX_NUMBER}")


@lru_cache(maxsize=16)
def derive_p1(params: ParameterSet, clinic_id: str, number: int) -> NDArray[np.uint64]:
    """p1, uint64 (L, N), read-only: SHAKE-256 of "sealproof-pk", parameter set, clinic id, key number, prime index.

    Words of 8 bytes are cut to the bit length of q_l and those not below q_l are skipped. Every verifier recomputes p1
    and none reads it from anywhere: a p1 chosen by the clinic (0, or g/f with short f and g) passes every shortness
    check and gives away all weights from one result. Raises UsageError for an invalid clinic id or number.
    """
    _check_name(clinic_id, number)
    p1 = np.empty((params.L, params.N), dtype=np.uint64)
    for level, q in enumerate(params.primes):
        seed = _framed(
            b"sealproof-pk", params.encode(), clinic_id.encode("ascii"), number.to_bytes(4, "little"), bytes([level])
        )
        xof = hashlib.shake_256(seed)
        mask = np.uint64((1 << q.bit_length()) - 1)
        wanted = params.N + 64
        while True:
            words = np.frombuffer(xof.digest(8 * wanted), dtype="<u8").astype(np.uint64) & mask
            accepted = words[words < q]
            if accepted.size >= params.N:
                break
            wanted *= 2
        p1[level] = accepted[: params.N]
    p1.flags.writeable = False
    return p1


@dataclass(frozen=True, eq=False)
class PublicKeys:
    """A clinic's public key: p0, uint64 (L, N), residues mod the data primes. p1 is derived, never stored.

    Raises UsageError if constructed from anything else.
    """

    params: ParameterSet
    clinic_id: str
    number: int
    p0: NDArray[np.uint64]

    def __post_init__(self) -> None:
        _check_name(self.clinic_id, self.number)
        check_residues(self.params, self.p0, (self.params.L, self.params.N), "public key p0")

    @property
    def p1(self) -> NDArray[np.uint64]:
        """p1, uint64 (L, N), as `derive_p1` gives it."""
        return derive_p1(self.params, self.clinic_id, self.number)

    @property
    def digest(self) -> bytes:
        """The digest of p0 that the key entry carries."""
        return public_key_digest(self.params, self.p0)

    def encode(self) -> bytes:
        """p0 as little-endian words; the names belong to whatever carries these bytes."""
        return self.p0.astype("<u8").tobytes()

    @classmethod
    def decode(cls, params: ParameterSet, clinic_id: str, number: int, data: bytes) -> PublicKeys:
        """The keys of this name whose `encode()` is `data`. Raises DecodeError, or UsageError for the name."""
        expected = 8 * params.L * params.N
        if len(data) != expected:
            raise DecodeError("public key p0", f"expected {expected} bytes, got {len(data)}")
        p0 = np.frombuffer(data, dtype="<u8").astype(np.uint64).reshape(params.L, params.N)
        if bool((p0 >= np.array(params.primes, dtype=np.uint64)[:, None]).any()):
            raise DecodeError("public key p0", "a residue is not below its prime")
        p0.flags.writeable = False
        return cls(params, clinic_id, number, p0)


def _centred_binomial(count: int) -> NDArray[np.int64]:
    bits = np.unpackbits(np.frombuffer(secrets.token_bytes(6 * count), dtype=np.uint8)).reshape(count, 48)
    signed = bits.astype(np.int64)
    errors: NDArray[np.int64] = signed[:, :E_PK_MAX].sum(axis=1) - signed[:, E_PK_MAX : 2 * E_PK_MAX].sum(axis=1)
    return errors


@dataclass(frozen=True, eq=False)
class ClinicKeys:
    """A clinic's key pair. `s` (ternary) and `e_pk` (|e| <= 21), int64 (N,), are secret and never shown.

    Raises UsageError if constructed with anything else. Get one with `generate` or `load`.
    """

    params: ParameterSet
    clinic_id: str
    number: int
    s: NDArray[np.int64] = field(repr=False)
    e_pk: NDArray[np.int64] = field(repr=False)

    def __post_init__(self) -> None:
        _check_name(self.clinic_id, self.number)
        for name, vector, bound in (("s", self.s, 1), ("e_pk", self.e_pk, E_PK_MAX)):
            shaped = vector.dtype == np.int64 and vector.shape == (self.params.N,)
            if not shaped or vector.min() < -bound or vector.max() > bound:
                raise UsageError(f"{name}: expected {self.params.N} int64 coefficients of magnitude at most {bound}")

    @classmethod
    def generate(cls, params: ParameterSet, clinic_id: str, number: int) -> ClinicKeys:
        """A fresh pair: s from SEAL's key generator, e_pk from the system's. Raises MissingDependency, UsageError."""
        from privacy.ckks import backend

        _check_name(clinic_id, number)
        return cls(params, clinic_id, number, backend.generate_secret_key(params), _centred_binomial(params.N))

    @cached_property
    def public(self) -> PublicKeys:
        """What may be published: p0 = -p1 s + e_pk mod the data primes."""
        p1 = derive_p1(self.params, self.clinic_id, self.number)
        q = np.array(self.params.primes, dtype=np.uint64)[:, None]
        p0 = (residues_of(self.params, self.e_pk) + q - negacyclic_multiply_mod(self.params, p1, self.s)) % q
        p0.flags.writeable = False
        return PublicKeys(self.params, self.clinic_id, self.number, p0)

    def encrypt_block(self, coefficients: NDArray[np.float64]) -> list[EncryptedInput]:
        """Encrypt packed coefficients (m, N); see `backend.encrypt_block`. Raises MissingDependency, UsageError."""
        from privacy.ckks import backend

        return backend.encrypt_block(self.params, self.s, coefficients)

    def decrypt_integers_unverified(self, result: ResultCiphertext) -> list[int]:
        """c0 + c1 s on the result's positions, centred mod Q: answers times 2^D, with their noise, as exact integers.

        For `api.client.scores`, which decrypts verified predictions only: answers to chosen ciphertexts can give the
        secret key away. Raises UsageError if the result is not canonical.
        """
        result_digest(self.params, result)
        product = negacyclic_multiply_mod(self.params, result.c1, self.s)[:, result.positions]
        q = np.array(self.params.primes, dtype=np.uint64)[:, None]
        return centred_from_residues(self.params, (result.c0 + product) % q)

    def decrypt_unverified(self, result: ResultCiphertext) -> NDArray[np.float64]:
        """The answers, float64 (|P|,): `decrypt_integers_unverified` over 2^D, and for the same caller."""
        return np.array([float(value) for value in self.decrypt_integers_unverified(result)]) * 2.0**-self.params.D

    def _encode(self) -> bytes:
        body = _FILE_TAG + _framed(
            self.params.encode(),
            self.clinic_id.encode("ascii"),
            self.number.to_bytes(4, "little"),
            (self.s + 1).astype(np.uint8).tobytes(),
            (self.e_pk + E_PK_MAX).astype(np.uint8).tobytes(),
        )
        return body + hashlib.sha256(body).digest()

    @classmethod
    def _decode(cls, data: bytes) -> ClinicKeys:
        body, checksum = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
        if not body.startswith(_FILE_TAG) or hashlib.sha256(body).digest() != checksum:
            raise DecodeError(_FILE, "not a clinic key file, or damaged")
        fields = []
        rest = body[len(_FILE_TAG) :]
        while rest:
            length = int.from_bytes(rest[:4], "little")
            if len(rest) < 4 + length:
                raise DecodeError(_FILE, "a field is cut off")
            fields.append(rest[4 : 4 + length])
            rest = rest[4 + length :]
        if len(fields) != 5:
            raise DecodeError(_FILE, f"{len(fields)} fields, expected 5")
        known = {params.encode(): params for params in PARAMETER_SETS.values()}
        params = known.get(fields[0])
        if params is None:
            raise DecodeError(_FILE, "unknown parameter set")
        s, e_pk = (np.frombuffer(item, dtype=np.uint8).astype(np.int64) for item in fields[3:])
        try:
            keys = cls(params, fields[1].decode("ascii"), int.from_bytes(fields[2], "little"), s - 1, e_pk - E_PK_MAX)
        except ValueError as error:  # UsageError and UnicodeDecodeError are ValueErrors
            raise DecodeError(_FILE, str(error)) from None
        if keys._encode() != data:
            raise DecodeError(_FILE, "not the canonical encoding of its contents")
        return keys

    def save(self, path: Path) -> None:
        """Write the key file, mode 0600, complete or not at all. Raises UsageError if `path` exists already.

        A key file is never overwritten: what was encrypted under a lost key is lost.
        """
        try:
            create_private(path, self._encode())
        except FileExistsError:
            raise UsageError(f"{path} exists; a clinic key is never overwritten, choose another name") from None

    @classmethod
    def load(cls, path: Path) -> ClinicKeys:
        """Read a key file.

        Raises UsageError if it cannot be opened, is no regular file or others may access it; DecodeError if malformed.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise UsageError(f"cannot open the clinic key {path}: {error.strerror}") from None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(f"{path} is not a regular file")
            if status.st_mode & 0o077:
                raise UsageError(f"{path} is accessible to others (mode {status.st_mode & 0o777:03o}): chmod 600 it")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return cls._decode(file.read(_MAX_FILE_BYTES))
        finally:
            os.close(descriptor)
