"""The documents' example of hospitals that approve a model, from fixed keys that nobody may use."""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from doc_seeds import ORIGIN, seed

from api.approval_entries import Approval, ApprovalScope, ApprovalSignature, compressed_key
from api.entry_parts import Reference

__all__ = ["approval"]

_CHAIN = 31337
_CONTRACT = seed("contract")[:20]
_HOSPITALS = ("st-anna", "st-bruno")
_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def approval(model: Reference) -> Approval:
    """Both hospitals approve `model` in the examples' log."""
    digest = ApprovalScope(_CHAIN, _CONTRACT, ORIGIN).approval_digest(model)
    secrets = [ec.derive_private_key(int.from_bytes(seed(name), "big") % _ORDER, ec.SECP256K1()) for name in _HOSPITALS]
    signed = [ApprovalSignature(compressed_key(key.public_key()), _signature(digest, key)) for key in secrets]
    ordered = tuple(sorted(signed, key=lambda one: one.key))
    return Approval(model, _CHAIN, _CONTRACT, len(ordered), ordered)


def _signature(digest: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """As the product signs, but the same bytes every time (RFC 6979)."""
    r, s = decode_dss_signature(key.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256()), deterministic_signing=True)))
    return r.to_bytes(32, "big") + min(s, _ORDER - s).to_bytes(32, "big")
