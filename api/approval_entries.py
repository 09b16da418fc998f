"""Approvals of a model by hospitals: what each hospital signs, and the ledger entry that holds the signatures.

Hospitals sign with Ethereum keys (secp256k1), so that the same 64 bytes count in the contract ModelApprovals
(ledger/anchors/contracts/ModelApprovals.vy) and in the ledger entry. Signed is the SHA-256 of

    domain                      `sealproof/approval/v1` or `sealproof/withdrawal/v1`, and a newline
    chain id                    32 bytes, big-endian
    address of the contract     20 bytes
    SHA-256 of the log's origin 32 bytes
    index of the model entry     8 bytes, big-endian
    leaf hash of the model entry 32 bytes

so that a signature for one chain, contract, log or model counts for no other, and an approval is no withdrawal. One
signature has one spelling: r and s big-endian, 0 < r < n, 0 < s <= n/2; keys are compressed points.

An entry shows that these keys signed, and nothing else. Whose keys they are and how many are needed says the
governance file of whoever reads it (`api.governance`); the threshold in the entry binds only its writer. Withdrawals
are not on the ledger: they are in the contract.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from api.entry_parts import Reference
from privacy.canonical_json import Address, CurveKey, CurveSignature, PositiveInteger, Record
from privacy.errors import UsageError, VerificationFailed

__all__ = [
    "APPROVAL_DOMAIN",
    "MAX_HOSPITALS",
    "WITHDRAWAL_DOMAIN",
    "Approval",
    "ApprovalScope",
    "ApprovalSignature",
    "check_curve_key",
    "check_curve_signature",
    "check_distinct",
    "compressed_key",
    "sign_digest",
    "verify_approval",
    "verify_digest",
]

APPROVAL_DOMAIN: Final = b"sealproof/approval/v1\n"
WITHDRAWAL_DOMAIN: Final = b"sealproof/withdrawal/v1\n"

MAX_HOSPITALS: Final = 32
"""The most that a contract ModelApprovals has, and the most signatures of one entry."""

_CURVE: Final = ec.SECP256K1()
_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""n, the order of the group of secp256k1."""


# -- what is signed ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ApprovalScope:
    """Where a signature counts: one contract on one chain, for the models of one log."""

    chain: int
    contract: bytes
    origin: str

    def approval_digest(self, model: Reference) -> bytes:
        """The 32 bytes that a hospital signs to approve this model entry."""
        return self._digest(APPROVAL_DOMAIN, model)

    def withdrawal_digest(self, model: Reference) -> bytes:
        """The 32 bytes that a hospital signs to withdraw its approval of this model entry, for good."""
        return self._digest(WITHDRAWAL_DOMAIN, model)

    def _digest(self, domain: bytes, model: Reference) -> bytes:
        message = domain + self.chain.to_bytes(32, "big") + self.contract
        message += hashlib.sha256(self.origin.encode("utf-8")).digest()
        return hashlib.sha256(message + model.index.to_bytes(8, "big") + model.leaf).digest()


# -- keys and signatures ----------------------------------------------------------------------------------------------


def check_curve_key(key: bytes) -> ec.EllipticCurvePublicKey:
    """The public key whose compressed encoding is `key` (33 bytes). Raises UsageError."""
    if len(key) != 33 or key[0] not in (2, 3):
        raise UsageError("a hospital's key is a compressed secp256k1 point: 02 or 03, then 32 bytes")
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, key)
    except ValueError as error:
        raise UsageError(f"{key.hex()} is no point of secp256k1") from error


def compressed_key(key: ec.EllipticCurvePublicKey) -> bytes:
    """The 33 bytes of a public key."""
    return key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)


def check_distinct(keys: list[bytes]) -> None:
    """Raise UsageError if two keys are one, or of one holder for certain: whoever knows d knows -d too."""
    if len({key[1:] for key in keys}) != len(keys):
        raise UsageError("two keys are the same, or one is the negative of the other: each hospital counts once")


def check_curve_signature(signature: bytes) -> tuple[int, int]:
    """r and s of a signature in its one accepted spelling. Raises UsageError."""
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if len(signature) != 64 or not 0 < r < _ORDER or not 0 < s < _ORDER:
        raise UsageError("a signature is r and s, 32 bytes each, both above 0 and below the group order")
    if s > _ORDER // 2:
        raise UsageError("s is above n/2: the same signature has a second spelling, n - s, and only that one counts")
    return r, s


def sign_digest(digest: bytes, private_key: ec.EllipticCurvePrivateKey) -> bytes:
    """The signature (r || s, low s) of a digest of `ApprovalScope` by a hospital's key."""
    r, s = decode_dss_signature(private_key.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256()))))
    return r.to_bytes(32, "big") + min(s, _ORDER - s).to_bytes(32, "big")


def verify_digest(digest: bytes, key: bytes, signature: bytes) -> None:
    """Check that `key` (compressed) signed `digest`.

    Raises VerificationFailed(`approval.signature`), and UsageError for a key or signature in no accepted spelling.
    """
    r, s = check_curve_signature(signature)
    try:
        check_curve_key(key).verify(encode_dss_signature(r, s), digest, ec.ECDSA(Prehashed(hashes.SHA256())))
    except InvalidSignature as error:
        raise VerificationFailed(
            "approval.signature", f"not signed by {key.hex()} for this model, chain, contract and log"
        ) from error


# -- the entry --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ApprovalSignature(Record):
    """One hospital's signature of the approval, under its compressed key."""

    key: CurveKey
    signature: CurveSignature

    def __post_init__(self) -> None:
        check_curve_key(self.key)
        check_curve_signature(self.signature)


@dataclass(frozen=True)
class Approval(Record):
    """Hospitals approve a model or network: their signatures, in the order of their keys.

    They count in the contract at `contract` on the chain with id `chain` as well. `threshold` is what the writer says
    is needed; an entry has no fewer signatures.
    """

    KIND: ClassVar[str] = "sealproof/approval/v1"

    model: Reference
    chain: PositiveInteger
    contract: Address
    threshold: PositiveInteger
    signatures: tuple[ApprovalSignature, ...]

    def __post_init__(self) -> None:
        keys = [signed.key for signed in self.signatures]
        if not self.threshold <= len(keys) <= MAX_HOSPITALS:
            raise UsageError(
                f"{len(keys)} signatures: an approval has at least its threshold ({self.threshold}) and at most "
                f"{MAX_HOSPITALS}"
            )
        if keys != sorted(keys):
            raise UsageError("signatures stand in the order of their keys")
        check_distinct(keys)


def verify_approval(approval: Approval, origin: str) -> None:
    """Check that every signature of an entry holds for its model, chain and contract, in the log `origin`.

    Whose keys signed is not asked here. Raises VerificationFailed(`approval.signature`).
    """
    digest = ApprovalScope(approval.chain, approval.contract, origin).approval_digest(approval.model)
    for signed in approval.signatures:
        verify_digest(digest, signed.key, signed.signature)
