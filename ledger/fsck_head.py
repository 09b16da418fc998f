"""Opens the signed head of a log for `ledger.fsck`: a second reading of signed notes and checkpoints, on purpose.

It shares no code with `ledger.note` and `ledger.checkpoint`, which sign, so that a mistake there is not repeated here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ledger.errors import DecodeError, FileRefused

__all__ = ["LARGEST_SIZE", "SignedHead", "open_head"]

LARGEST_SIZE: Final = 2**63 - 1

_HASH: Final = 32
_LARGEST_NOTE: Final = 1_000_000
_MOST_SIGNATURES: Final = 100
_NAME: Final = re.compile(r"[^\s+\x00-\x1f\ud800-\udfff]+")
_SIGNATURE: Final = re.compile(rf"— ({_NAME.pattern}) ([^ ]+)")
_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")


class SignedHead(NamedTuple):
    """What a log's key signed."""

    origin: str
    size: int
    root: bytes


def open_head(note: bytes, vkey: str) -> SignedHead:
    """The checkpoint in `note`, signed by the Ed25519 key `vkey`, whose name is the log's origin.

    Only one spelling of anything is accepted; signatures by other keys are ignored, a bad one by this key is not.
    Raises FileRefused (`checkpoint.form`, `.signature`, `.unsigned`, `.origin`, `.empty`); DecodeError for `vkey`.
    """
    key = _parse_key(vkey)
    text, signatures = _split_note(note)
    good = 0
    for line in signatures:
        parts = _SIGNATURE.fullmatch(line)
        data = _base64(parts[2]) if parts else None
        if parts is None or data is None or len(data) < 5:
            raise _malformed("a signature line is not '— name base64'")
        if (parts[1], data[:4]) != (key.name, key.key_id):
            continue  # by somebody whom we were not asked to believe
        try:
            Ed25519PublicKey.from_public_bytes(key.public).verify(data[4:], text.encode("utf-8"))
        except (InvalidSignature, ValueError):
            raise FileRefused("checkpoint.signature", "checkpoint", f"that of {key.name!r} does not hold") from None
        good += 1
    if not good:
        raise FileRefused("checkpoint.unsigned", "checkpoint", f"no signature by the key of {key.name!r}")
    lines = text[:-1].split("\n")
    if len(lines) < 3 or not all(lines):
        raise _malformed("expected at least origin, size and root, and no empty line")
    if lines[0] != key.name:
        raise FileRefused("checkpoint.origin", "checkpoint", f"of the log {lines[0][:80]!r}, not of {key.name!r}")
    root = _base64(lines[2])
    if not _DECIMAL.fullmatch(lines[1]) or int(lines[1]) > LARGEST_SIZE or root is None or len(root) != _HASH:
        raise _malformed("its size or root is not in the one spelling that is allowed")
    size = int(lines[1])
    if size == 0 and root != hashlib.sha256(b"").digest():
        raise FileRefused("checkpoint.empty", "checkpoint", "size 0 with a root that is not the empty tree's")
    return SignedHead(key.name, size, root)


class _Key(NamedTuple):
    name: str
    key_id: bytes
    public: bytes


def _parse_key(vkey: str) -> _Key:
    name, _, rest = vkey.partition("+")
    key_id, _, encoded = rest.partition("+")
    data = _base64(encoded)
    if not _NAME.fullmatch(name) or data is None or len(data) != 33 or data[0] != 1:
        raise DecodeError("verifier key", "expected name+id+base64 of an Ed25519 key (type 01)")
    expected = hashlib.sha256(name.encode("utf-8") + b"\n" + data).digest()[:4]
    if key_id != expected.hex():
        raise DecodeError("verifier key", f"key ID is {key_id!r}, its name and key give {expected.hex()!r}")
    return _Key(name, expected, data[1:])


def _split_note(note: bytes) -> tuple[str, list[str]]:
    if len(note) > _LARGEST_NOTE:
        raise _malformed(f"longer than {_LARGEST_NOTE} bytes")
    try:
        whole = note.decode("utf-8")
    except UnicodeDecodeError:
        raise _malformed("not UTF-8") from None
    text, separator, tail = whole.rpartition("\n\n")
    if _CONTROL.search(whole) or not separator or not tail.endswith("\n"):
        raise _malformed("not a signed note: text, an empty line, signature lines")
    signatures = tail[:-1].split("\n")
    if len(signatures) > _MOST_SIGNATURES:
        raise _malformed(f"more than {_MOST_SIGNATURES} signatures")
    return text + "\n", signatures


def _malformed(reason: str) -> FileRefused:
    return FileRefused("checkpoint.form", "checkpoint", reason)


def _base64(text: str) -> bytes | None:
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None
    return data if base64.b64encode(data).decode("ascii") == text else None
