"""BLS signatures on BLS12-381 for the committee of a trial: signatures in G1 (48 bytes), public keys in G2 (96 bytes).

    sign        S = s H(m)                     H: RFC 9380 hash to G1 under SIGNATURE_TAG
    verify      e(S, g2) = e(H(m), pk)         pk = s g2
    aggregate   S = sum S_i;  e(S, g2) = e(H(m), sum pk_i), all of one message

Sums of public keys are sound only if everybody knows the secret of the key that he brings: pk' = x g2 - pk would sign
in the name of pk. So a key is proved first, by s H'(pk) under POSSESSION_TAG, and only a `ProvenKey`, which
`verify_possession` alone makes, can be added up (draft-irtf-cfrg-bls-signature, minimal-signature-size, proof of
possession; the tags are our own, and H' takes the key in the form of EIP-2537, which a contract can hash as well).

Two implementations that share no code, as in `privacy.zk.group`: `PAIRING` (arkworks) and `REFERENCE_PAIRING` (py_ecc,
half a second a pairing). Multiplication by a secret is not constant-time: sign on a machine of one's own.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import InitVar, dataclass
from functools import cache, reduce
from hashlib import sha256
from typing import Any, Final

import py_arkworks_bls12381 as arkworks

from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.zk.group import ARKWORKS, FIELD, ORDER, POINT_BYTES, REFERENCE, Group, Point

__all__ = [
    "PAIRING",
    "POSSESSION_TAG",
    "PUBLIC_BYTES",
    "REFERENCE_PAIRING",
    "SECRET_BYTES",
    "SIGNATURE_BYTES",
    "SIGNATURE_TAG",
    "Pairing",
    "ProvenKey",
    "SecretKey",
    "aggregate",
    "public_key_eip2537",
    "signature_eip2537",
    "verify",
    "verify_aggregate",
    "verify_possession",
]

SECRET_BYTES: Final = 32
PUBLIC_BYTES: Final = 96
SIGNATURE_BYTES: Final = POINT_BYTES

SIGNATURE_TAG: Final = b"SEALPROOF-V1-COMMITTEE-SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_"
POSSESSION_TAG: Final = b"SEALPROOF-V1-COMMITTEE-POP_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_"

_COORDINATE: Final = 48
_PADDING: Final = bytes(16)
_PROVEN: Final = object()


class Pairing(ABC):
    """e: G1 x G2 -> GT of BLS12-381, and what signatures need of G2. `group` is G1 of the same implementation."""

    name: str
    group: Group

    @abstractmethod
    def hash_to_curve(self, message: bytes, tag: bytes) -> Point:
        """RFC 9380 BLS12381G1_XMD:SHA-256_SSWU_RO_ of `message` under `tag`."""

    @abstractmethod
    def multiple_of_generator(self, scalar: int) -> Point:
        """s g2, for s in [0, r)."""

    @abstractmethod
    def add(self, left: Point, right: Point) -> Point:
        """Sum of two points of G2."""

    @abstractmethod
    def encode(self, point: Point) -> bytes:
        """96-byte compressed encoding (the Zcash convention) of a point of G2."""

    @abstractmethod
    def affine(self, point: Point) -> bytes:
        """192 bytes x.c0 || x.c1 || y.c0 || y.c1, big-endian, of a point of G2 that is not the identity."""

    @abstractmethod
    def equal_pairings(self, left: tuple[Point, Point], right: tuple[Point, Point]) -> bool:
        """Whether e(P, Q) = e(P', Q') for points of the subgroups."""

    def decode(self, data: bytes) -> Point:
        """Inverse of `encode`. Refuses the identity, points off the curve or the subgroup, and any encoding that is
        not canonical.

        Raises:
            DecodeError: with the reason.
        """
        if len(data) != PUBLIC_BYTES:
            raise DecodeError("public key", f"expected {PUBLIC_BYTES} bytes, got {len(data)}")
        if not data[0] & 0x80:
            raise DecodeError("public key", "the compression flag is not set")
        if data[0] & 0x40:
            raise DecodeError("public key", "the identity is not allowed here")
        coordinates = bytes([data[0] & 0x1F]) + data[1:_COORDINATE], data[_COORDINATE:]
        if any(int.from_bytes(part, "big") >= FIELD for part in coordinates):
            raise DecodeError("public key", "a coordinate is not reduced")
        point = self._decode(data)
        if self.encode(point) != data:
            raise DecodeError("public key", "encoding is not canonical")
        return point

    @abstractmethod
    def _decode(self, data: bytes) -> Point:
        """The point of the subgroup, of an encoding whose form was checked. Raises DecodeError."""


class _Arkworks(Pairing):
    name = "arkworks"
    group = ARKWORKS

    def hash_to_curve(self, message: bytes, tag: bytes) -> Point:
        return arkworks.G1Point.hash_to_curve(message, tag)

    def multiple_of_generator(self, scalar: int) -> Point:
        return arkworks.G2Point() * arkworks.Scalar.from_le_bytes(scalar.to_bytes(32, "little"))

    def add(self, left: Point, right: Point) -> Point:
        return left + right

    def encode(self, point: Point) -> bytes:
        return bytes(point.to_compressed_bytes())

    def affine(self, point: Point) -> bytes:
        return bytes(point.to_xy_bytes_be())

    def equal_pairings(self, left: tuple[Point, Point], right: tuple[Point, Point]) -> bool:
        return bool(arkworks.GT.pairing_check([-left[0], right[0]], [left[1], right[1]]))

    def _decode(self, data: bytes) -> Point:
        try:
            return arkworks.G2Point.from_compressed_bytes(data)
        except ValueError as error:
            raise DecodeError("public key", f"not a point of the BLS12-381 G2 subgroup ({error})") from error


class _Reference(Pairing):
    name = "reference"
    group = REFERENCE

    @staticmethod
    @cache
    def _curve() -> Any:
        from py_ecc import optimized_bls12_381

        return optimized_bls12_381

    def hash_to_curve(self, message: bytes, tag: bytes) -> Point:
        from py_ecc.bls.hash_to_curve import hash_to_G1

        return hash_to_G1(message, tag, sha256)

    def multiple_of_generator(self, scalar: int) -> Point:
        return self._curve().multiply(self._curve().G2, scalar)

    def add(self, left: Point, right: Point) -> Point:
        return self._curve().add(left, right)

    def encode(self, point: Point) -> bytes:
        from py_ecc.bls.point_compression import compress_G2

        return b"".join(int(part).to_bytes(_COORDINATE, "big") for part in compress_G2(point))

    def affine(self, point: Point) -> bytes:
        parts = [c for coordinate in self._curve().normalize(point) for c in coordinate.coeffs]
        return b"".join(int(part).to_bytes(_COORDINATE, "big") for part in parts)

    def equal_pairings(self, left: tuple[Point, Point], right: tuple[Point, Point]) -> bool:
        pairing = self._curve().pairing
        return bool(pairing(left[1], left[0]) == pairing(right[1], right[0]))

    def _decode(self, data: bytes) -> Point:
        from py_ecc.bls.point_compression import decompress_G2

        halves = tuple(int.from_bytes(part, "big") for part in (data[:_COORDINATE], data[_COORDINATE:]))
        try:
            point = decompress_G2(halves)
        except ValueError as error:
            raise DecodeError("public key", f"not a point of BLS12-381 ({error})") from error
        if not self._curve().is_inf(self._curve().multiply(point, ORDER)):
            raise DecodeError("public key", "not in the subgroup of prime order")
        return point


PAIRING: Final[Pairing] = _Arkworks()
REFERENCE_PAIRING: Final[Pairing] = _Reference()


class SecretKey:
    """s in [1, r). Signs, and proves that it is known; never shown, pickled or copied.

    Raises:
        UsageError: a scalar that is no secret key.
    """

    def __init__(self, scalar: int) -> None:
        if not 0 < scalar < ORDER:
            raise UsageError("a secret key is a scalar from 1 to r - 1")
        self._scalar = scalar
        self.public: Final = PAIRING.encode(PAIRING.multiple_of_generator(scalar))

    @classmethod
    def generate(cls) -> SecretKey:
        """A fresh one."""
        return cls(1 + secrets.randbelow(ORDER - 1))

    @classmethod
    def from_bytes(cls, data: bytes) -> SecretKey:
        """Inverse of `to_bytes`. Raises DecodeError."""
        if len(data) != SECRET_BYTES:
            raise DecodeError("secret key", f"expected {SECRET_BYTES} bytes, got {len(data)}")
        scalar = int.from_bytes(data, "big")
        if not 0 < scalar < ORDER:
            raise DecodeError("secret key", "the scalar is zero or not below the group order")
        return cls(scalar)

    def to_bytes(self) -> bytes:
        """32 bytes, big-endian. Secret."""
        return self._scalar.to_bytes(SECRET_BYTES, "big")

    def sign(self, message: bytes) -> bytes:
        """The signature of `message`, 48 bytes; the same one every time."""
        return self._multiple(PAIRING.hash_to_curve(message, SIGNATURE_TAG))

    def prove_possession(self) -> bytes:
        """What shows to everybody that the secret of `public` is known, 48 bytes."""
        return self._multiple(PAIRING.hash_to_curve(public_key_eip2537(self.public), POSSESSION_TAG))

    def _multiple(self, point: Point) -> bytes:
        return ARKWORKS.encode(ARKWORKS.multiply(point, self._scalar))

    def __repr__(self) -> str:
        return f"SecretKey(public={self.public.hex()})"

    def __reduce__(self) -> Any:
        raise UsageError("a secret key is not pickled or copied")


@dataclass(frozen=True)
class ProvenKey:
    """A public key whose owner knows its secret. Only `verify_possession` makes one."""

    public: bytes
    made_by: InitVar[object]

    def __post_init__(self, made_by: object) -> None:
        if made_by is not _PROVEN:
            raise UsageError("a ProvenKey is made by verify_possession only")


def verify_possession(public: bytes, proof: bytes, pairing: Pairing = PAIRING) -> ProvenKey:
    """Check PK{ s : public = s g2 } by a signature of the key under a tag of its own.

    Raises:
        DecodeError: no such point, the identity, or another spelling of one.
        VerificationFailed: `bls.possession`.
    """
    key, point = pairing.decode(public), _signature(proof, pairing)
    hashed = pairing.hash_to_curve(_padded(pairing.affine(key)), POSSESSION_TAG)
    if not pairing.equal_pairings((point, pairing.multiple_of_generator(1)), (hashed, key)):
        raise VerificationFailed("bls.possession", "this does not show that the secret of the key is known")
    return ProvenKey(public, _PROVEN)


def verify(public: bytes, message: bytes, signature: bytes, pairing: Pairing = PAIRING) -> None:
    """Check the signature of one key. Raises DecodeError, VerificationFailed(`bls.signature`)."""
    _check(pairing.decode(public), message, signature, pairing)


def aggregate(signatures: Sequence[bytes]) -> bytes:
    """The sum of verified signatures of one message. Raises DecodeError, and UsageError if there is no sum to give."""
    if not signatures:
        raise UsageError("there is no signature to add up")
    total = ARKWORKS.sum([_signature(signature, PAIRING) for signature in signatures])
    if ARKWORKS.equal(total, ARKWORKS.identity()):
        raise UsageError("these signatures cancel: their keys were made so that they do")
    return ARKWORKS.encode(total)


def verify_aggregate(keys: Sequence[ProvenKey], message: bytes, signature: bytes, pairing: Pairing = PAIRING) -> None:
    """Check that the holder of every key signed `message`: signature is the sum of theirs.

    Raises:
        UsageError: no key.
        DecodeError: the signature is no point of the subgroup, or the identity.
        VerificationFailed: `bls.repeated` for a key that is given twice, `bls.cancelled` for keys that add up to
            nothing (nobody's signature would do for them), `bls.signature`.
    """
    if not keys:
        raise UsageError("a signature of nobody is none")
    if len({key.public for key in keys}) != len(keys):
        raise VerificationFailed("bls.repeated", "a key is counted twice")
    total = reduce(pairing.add, [pairing.decode(key.public) for key in keys])
    if pairing.encode(total)[0] & 0x40:
        raise VerificationFailed("bls.cancelled", "the keys add up to the identity: their owners made them together")
    _check(total, message, signature, pairing)


def public_key_eip2537(public: bytes) -> bytes:
    """A public key as EVM precompiles read it: 256 bytes, x.c0 || x.c1 || y.c0 || y.c1. Raises DecodeError."""
    return _padded(PAIRING.affine(PAIRING.decode(public)))


def signature_eip2537(signature: bytes) -> bytes:
    """A signature, or a proof of possession, as EVM precompiles read it: 128 bytes, x || y. Raises DecodeError."""
    return _padded(ARKWORKS.export_affine(_signature(signature, PAIRING)))


def _check(key: Point, message: bytes, signature: bytes, pairing: Pairing) -> None:
    point, hashed = _signature(signature, pairing), pairing.hash_to_curve(message, SIGNATURE_TAG)
    if not pairing.equal_pairings((point, pairing.multiple_of_generator(1)), (hashed, key)):
        raise VerificationFailed("bls.signature", "this is no signature of the message by that key")


def _signature(data: bytes, pairing: Pairing) -> Point:
    try:
        return pairing.group.decode(data)
    except DecodeError as error:
        raise DecodeError("signature", error.reason) from error


def _padded(coordinates: bytes) -> bytes:
    pieces = range(0, len(coordinates), _COORDINATE)
    return b"".join(_PADDING + coordinates[i : i + _COORDINATE] for i in pieces)
