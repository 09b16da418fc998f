"""Signed requests: who asks, without a password (pure; used by server and clients).

A party signs every request that changes something with the Ed25519 key that the ledger knows it by:

    sealproof/request/v1\\n method \\n path?query \\n time \\n nonce \\n SHA-256 of the body in hex

Time and a fresh nonce make a request single-use: the server accepts times within `WINDOW_SECONDS` of its own and
remembers nonces for as long. A signature is for one method, target and body, so it says nothing on another request.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from api.errors import NotAuthenticated
from privacy.canonical_json import parse_timestamp
from privacy.errors import DecodeError, UsageError
from privacy.private_files import create_private, read_private

__all__ = [
    "NONCE_HEADER",
    "PARTY_HEADER",
    "SIGNATURE_HEADER",
    "TIME_HEADER",
    "WINDOW_SECONDS",
    "SignedRequest",
    "VerifiedRequest",
    "check_time",
    "load_private_key",
    "parse_signed_request",
    "request_bytes",
    "save_private_key",
    "sign_request",
    "timestamp",
    "verify_request",
]

PARTY_HEADER = "Sealproof-Party"
TIME_HEADER = "Sealproof-Time"
NONCE_HEADER = "Sealproof-Nonce"
SIGNATURE_HEADER = "Sealproof-Signature"

WINDOW_SECONDS = 300
"""A request is accepted when its time is at most this far from the server's."""

_DOMAIN = b"sealproof/request/v1\n"
_PARTY = re.compile(r"0|[1-9][0-9]{0,15}")
_NONCE = re.compile(r"[0-9a-f]{32}")
_LARGEST_INDEX = 2**53 - 1
_SIGNATURE_BYTES = 64
_KEY_FILE = "signing key file"
_KEY_TAG = "sealproof/ed25519/v1 "
_KEY_BYTES = 32
_VERIFIED = object()


@dataclass(frozen=True)
class SignedRequest:
    """The four headers of a request, parsed and NOT yet verified. `time` and `nonce` are kept as written."""

    party: int
    time: str
    nonce: str
    signature: bytes


@dataclass(frozen=True)
class VerifiedRequest:
    """A request that the holder of `public_key` signed. Only `verify_request` makes one. The nonce is **not** spent
    yet."""

    party: int
    nonce: str
    public_key: bytes
    made_by: InitVar[object]

    def __post_init__(self, made_by: object) -> None:
        if made_by is not _VERIFIED:
            raise UsageError("a VerifiedRequest is made by verify_request only")


def timestamp(now: datetime | None = None) -> str:
    """`now` (default: the present) in UTC as YYYY-MM-DDTHH:MM:SSZ."""
    return (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def request_bytes(method: str, target: str, time: str, nonce: str, body_digest: bytes) -> bytes:
    """The bytes under the signature. `target` is the path with its query, as sent; `body_digest` the body's SHA-256.

    Raises UsageError for a part that could be read as two.
    """
    parts = (method, target, time, nonce)
    if any("\n" in part or not part.isascii() for part in parts):
        raise UsageError("method, target, time and nonce of a request are ASCII without newlines")
    return _DOMAIN + "\n".join((*parts, body_digest.hex())).encode("ascii")


def sign_request(
    method: str, target: str, body: bytes, party: int, private_key: Ed25519PrivateKey, now: datetime | None = None
) -> dict[str, str]:
    """The four headers of a request by `party`, the index of the party entry of `private_key`. Raises UsageError."""
    time, nonce = timestamp(now), secrets.token_hex(16)
    signature = private_key.sign(request_bytes(method, target, time, nonce, hashlib.sha256(body).digest()))
    return {
        PARTY_HEADER: str(party),
        TIME_HEADER: time,
        NONCE_HEADER: nonce,
        SIGNATURE_HEADER: base64.b64encode(signature).decode("ascii"),
    }


def parse_signed_request(headers: Mapping[str, str]) -> SignedRequest:
    """The signed request that case-insensitive `headers` describe. Raises NotAuthenticated(`request.headers`)."""
    values = {}
    for name in (PARTY_HEADER, TIME_HEADER, NONCE_HEADER, SIGNATURE_HEADER):
        value = headers.get(name)
        if value is None:
            raise NotAuthenticated("request.headers", f"the header {name} is missing")
        values[name] = value
    if not _PARTY.fullmatch(values[PARTY_HEADER]) or int(values[PARTY_HEADER]) > _LARGEST_INDEX:
        raise NotAuthenticated("request.headers", f"{PARTY_HEADER} is not the index of an entry")
    if not _NONCE.fullmatch(values[NONCE_HEADER]):
        raise NotAuthenticated("request.headers", f"{NONCE_HEADER} is not 32 lower-case hex digits")
    try:
        parse_timestamp(values[TIME_HEADER])
        signature = base64.b64decode(values[SIGNATURE_HEADER], validate=True)
    except (UsageError, binascii.Error, ValueError) as error:
        raise NotAuthenticated("request.headers", f"a header is malformed: {error}") from error
    if len(signature) != _SIGNATURE_BYTES:
        raise NotAuthenticated("request.headers", f"{SIGNATURE_HEADER} is not {_SIGNATURE_BYTES} bytes in base64")
    return SignedRequest(int(values[PARTY_HEADER]), values[TIME_HEADER], values[NONCE_HEADER], signature)


def check_time(request: SignedRequest, now: datetime) -> None:
    """Raise NotAuthenticated(`request.time`) unless the request's time is within the window around `now`."""
    off = (parse_timestamp(request.time) - now).total_seconds()
    if abs(off) > WINDOW_SECONDS:
        raise NotAuthenticated(
            "request.time", f"the request is {off:+.0f} s away from the server's clock, at most {WINDOW_SECONDS} s pass"
        )


def verify_request(
    request: SignedRequest, method: str, target: str, body_digest: bytes, public_key: bytes, now: datetime
) -> VerifiedRequest:
    """Check time and signature of a request. `public_key` is that of the party entry that `request.party` names.

    Raises NotAuthenticated: `request.time` or `request.signature`.
    """
    check_time(request, now)
    try:
        message = request_bytes(method, target, request.time, request.nonce, body_digest)
        Ed25519PublicKey.from_public_bytes(public_key).verify(request.signature, message)
    except (InvalidSignature, ValueError) as error:
        raise NotAuthenticated(
            "request.signature", f"this request was not signed by the key of party {request.party}"
        ) from error
    return VerifiedRequest(request.party, request.nonce, public_key, _VERIFIED)


# -- key files --------------------------------------------------------------------------------------------------------


def save_private_key(private_key: Ed25519PrivateKey, path: Path) -> None:
    """Write a new key file of mode 0600, durable on return. Raises UsageError if `path` exists already."""
    line = f"{_KEY_TAG}{private_key.private_bytes_raw().hex()}\n"
    try:
        create_private(path, line.encode("ascii"))
    except FileExistsError:
        raise UsageError(f"{path} exists; a signing key is never overwritten, choose another name") from None


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """Read a key file. Raises UsageError if it cannot be read or others may read it, DecodeError if malformed."""
    data = read_private(path, 1024, "the signing key")
    match = re.fullmatch(re.escape(_KEY_TAG) + r"([0-9a-f]{64})\n", data.decode("ascii", "replace"))
    if match is None:
        raise DecodeError(_KEY_FILE, f"{path} is not a {_KEY_TAG.strip()} file of {_KEY_BYTES} bytes in hex")
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(match.group(1)))
