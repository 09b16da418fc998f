"""Fixed bytes, keys and points of the documents' examples. None of these keys may be used for anything else."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy.zk.group import ARKWORKS

__all__ = ["ORIGIN", "PLACEHOLDER", "WHEN", "fenced", "hex_lines", "point", "seed", "signing_key"]

ORIGIN = "example.org/log"
WHEN = "2026-01-31T12:00:00Z"
PLACEHOLDER = b"an example, not a proof"


def seed(name: str) -> bytes:
    """32 fixed bytes for a name."""
    return hashlib.sha256(f"sealproof documentation: {name}".encode()).digest()


def signing_key(name: str) -> Ed25519PrivateKey:
    """The documentation's key of a party; worthless, as everybody has it."""
    return Ed25519PrivateKey.from_private_bytes(seed(name))


def point(name: str) -> bytes:
    """Some point of the group."""
    return ARKWORKS.encode(ARKWORKS.hash_to_curve(seed(name)))


def fenced(language: str, data: bytes) -> str:
    """A fenced block."""
    return f"```{language}\n{data.decode('utf-8').rstrip()}\n```"


def hex_lines(data: bytes) -> str:
    """A fenced block of hex digits, 32 bytes a line."""
    lines = "\n".join(data[at : at + 32].hex() for at in range(0, len(data), 32))
    return f"```text\n{lines}\n```"
