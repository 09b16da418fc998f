"""Shares of answers on their way from B to A, by way of the server, which cannot read them.

The server hands the box out with the published prediction and not before: a clinic cannot have its answers without the
ledger saying so, and a node of the owner that dies after publication takes no answers with it. X25519 with a fresh key
on both sides, HKDF-SHA256 over both public keys and the session, ChaCha20-Poly1305; each key seals one message.

    box   ephemeral public key of B (32) || ciphertext and tag of the shares
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from privacy.errors import SessionBroken, VerificationFailed

__all__ = ["KEY_BYTES", "open_box", "seal"]

KEY_BYTES: Final = 32
_INFO: Final = b"sealproof/sealed-shares/v1\n"
_NONCE: Final = bytes(12)  # the key is used once


def seal(shares: bytes, recipient: bytes, session: bytes) -> bytes:
    """A box of `shares` for the holder of the X25519 key `recipient`. Raises SessionBroken for a key that is none."""
    private = X25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    try:
        secret = private.exchange(X25519PublicKey.from_public_bytes(recipient))
    except ValueError as error:
        raise SessionBroken("mpc.box-key", "the other party sent no key that a box can be sealed for") from error
    key = _key(secret, public, recipient, session)
    return public + ChaCha20Poly1305(key).encrypt(_NONCE, shares, session)


def open_box(box: bytes, private: X25519PrivateKey, session: bytes) -> bytes:
    """The shares in a box sealed for `private` in this session. Raises VerificationFailed(`joint.box`)."""
    public, ciphertext = box[:KEY_BYTES], box[KEY_BYTES:]
    try:
        secret = private.exchange(X25519PublicKey.from_public_bytes(public))
        key = _key(secret, public, private.public_key().public_bytes_raw(), session)
        return ChaCha20Poly1305(key).decrypt(_NONCE, ciphertext, session)
    except (ValueError, InvalidTag) as error:
        raise VerificationFailed("joint.box", "the sealed shares are not for this session and key") from error


def _key(secret: bytes, sender: bytes, recipient: bytes, session: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt=session, info=_INFO + sender + recipient).derive(secret)
