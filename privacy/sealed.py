"""Sealed boxes: a message that only the holder of one X25519 key can read, on its way through somebody else's hands.

X25519 with a fresh key of the sender, HKDF-SHA256 over both public keys, ChaCha20-Poly1305; each derived key seals one
message. `purpose` and `context` separate uses: a box opens only under those it was sealed for. Nothing says who sealed
it: what must be known about the sender is signed inside, or named by a signed digest of the box.

    box   ephemeral public key (32) || ciphertext and tag
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from privacy.errors import UsageError, VerificationFailed

__all__ = ["KEY_BYTES", "OVERHEAD_BYTES", "open_sealed", "seal"]

KEY_BYTES: Final = 32
OVERHEAD_BYTES: Final = KEY_BYTES + 16
"""How much longer a box is than its message."""

_NONCE: Final = bytes(12)  # the key is used once


def seal(message: bytes, recipient: bytes, *, purpose: bytes, context: bytes) -> bytes:
    """A box of `message` for the holder of the X25519 key `recipient` (32 bytes). Raises UsageError for no such key."""
    private = X25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    try:
        secret = private.exchange(X25519PublicKey.from_public_bytes(recipient))
    except ValueError as error:
        raise UsageError("this is no key that a box can be sealed for") from error
    key = _key(secret, public, recipient, purpose, context)
    return public + ChaCha20Poly1305(key).encrypt(_NONCE, message, context)


def open_sealed(box: bytes, private: X25519PrivateKey, *, purpose: bytes, context: bytes) -> bytes:
    """The message in a box. Raises VerificationFailed(`sealed.box`) unless it was sealed for this key and use."""
    public, ciphertext = box[:KEY_BYTES], box[KEY_BYTES:]
    try:
        secret = private.exchange(X25519PublicKey.from_public_bytes(public))
        key = _key(secret, public, private.public_key().public_bytes_raw(), purpose, context)
        return ChaCha20Poly1305(key).decrypt(_NONCE, ciphertext, context)
    except (ValueError, InvalidTag) as error:
        raise VerificationFailed("sealed.box", "the box was not sealed for this key, or for another use") from error


def _key(secret: bytes, sender: bytes, recipient: bytes, purpose: bytes, context: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt=context, info=purpose + sender + recipient).derive(secret)
