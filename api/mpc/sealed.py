"""Shares of answers on their way from B to A, by way of the server, which cannot read them.

The server hands the box out with the published prediction and not before: a clinic cannot have its answers without the
ledger saying so, and a node of the owner that dies after publication takes no answers with it. The key is fresh on both
sides and seals one message (`privacy.sealed`).
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from privacy import sealed
from privacy.errors import SessionBroken, UsageError, VerificationFailed
from privacy.sealed import KEY_BYTES

__all__ = ["KEY_BYTES", "open_box", "seal"]

_PURPOSE: Final = b"sealproof/sealed-shares/v1\n"


def seal(shares: bytes, recipient: bytes, session: bytes) -> bytes:
    """A box of `shares` for the holder of the X25519 key `recipient`. Raises SessionBroken for a key that is none."""
    try:
        return sealed.seal(shares, recipient, purpose=_PURPOSE, context=session)
    except UsageError as error:
        raise SessionBroken("mpc.box-key", "the other party sent no key that a box can be sealed for") from error


def open_box(box: bytes, private: X25519PrivateKey, session: bytes) -> bytes:
    """The shares in a box sealed for `private` in this session. Raises VerificationFailed(`joint.box`)."""
    try:
        return sealed.open_sealed(box, private, purpose=_PURPOSE, context=session)
    except VerificationFailed as error:
        raise VerificationFailed("joint.box", "the sealed shares are not for this session and key") from error
