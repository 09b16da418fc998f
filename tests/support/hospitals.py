"""Three hospitals with worthless keys, and approvals by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from api.approval_entries import Approval, ApprovalScope, ApprovalSignature, compressed_key, sign_digest
from api.entry_parts import Reference
from api.governance import ApprovalState, Governance

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
CONTRACT = bytes(range(20))
CHAIN = 31337


def private_key(number: int) -> ec.EllipticCurvePrivateKey:
    """The key whose secret is this number."""
    return ec.derive_private_key(number, ec.SECP256K1())


def key_of(secret: ec.EllipticCurvePrivateKey) -> bytes:
    """Its compressed public key."""
    return compressed_key(secret.public_key())


HOSPITALS: tuple[ec.EllipticCurvePrivateKey, ...] = tuple(
    sorted((private_key(number) for number in (101, 102, 103)), key=key_of)
)
KEYS = tuple(key_of(secret) for secret in HOSPITALS)
STRANGER = private_key(104)

GOVERNANCE = Governance(CHAIN, CONTRACT, 2, KEYS)
"""Two of the three."""


PARTS = ("act", "chain", "contract", "origin", "index", "leaf")
"""What a signature is bound to."""


def digest_without(part: str | None) -> Callable[[ApprovalScope, bytes, Reference], bytes]:
    """`ApprovalScope._digest` with one thing left out."""

    def digest(scope: ApprovalScope, act: bytes, model: Reference) -> bytes:
        said = {
            "act": act,
            "chain": scope.chain.to_bytes(32, "big"),
            "contract": scope.contract,
            "origin": sha256(scope.origin.encode()).digest(),
            "index": model.index.to_bytes(8, "big"),
            "leaf": model.leaf,
        }
        return sha256(b"".join(value for name, value in said.items() if name != part)).digest()

    return digest


def signatures(digest: bytes, secrets: Sequence[ec.EllipticCurvePrivateKey]) -> tuple[ApprovalSignature, ...]:
    """Signatures of one digest, in the order of the keys."""
    return tuple(
        ApprovalSignature(key_of(secret), sign_digest(digest, secret)) for secret in sorted(secrets, key=key_of)
    )


def approval(
    model: Reference,
    origin: str,
    secrets: Sequence[ec.EllipticCurvePrivateKey] = HOSPITALS[:2],
    governance: Governance = GOVERNANCE,
    **changes: Any,
) -> Approval:
    """An honest approval; `changes` replace fields afterwards."""
    scope = ApprovalScope(governance.chain, governance.contract, origin)
    signed = signatures(scope.approval_digest(model), secrets)
    made = Approval(model, governance.chain, governance.contract, min(governance.threshold, len(signed)), signed)
    return replace(made, **changes)


class FakeContract:
    """A contract whose answers a test chooses, by key. Everything was approved, unless said otherwise."""

    def __init__(self) -> None:
        self.known: dict[bytes, ApprovalState] = {}
        self.error: Exception | None = None
        self.asked = 0

    def states(self, origin: str, model: Reference, hospitals: Sequence[bytes]) -> list[ApprovalState]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return [self.known.get(key, "approved") for key in hospitals]
