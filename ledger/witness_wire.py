"""What a log and a witness say to each other (C2SP tlog-witness v1.0.0): bodies of requests and answers. No I/O.

POST <prefix>/add-checkpoint        200  signature lines of the witness's cosignatures
old <size>                          400  malformed, or old > size of the checkpoint
<base64 hash>   (0 to 63 of them)   403  no good signature by the log's key
                                    404  a log that the witness does not follow
<signed checkpoint>                 409  old is not the last size cosigned: body "<size>\\n", text/x.tlog.size;
                                         or another root of this very size was cosigned: any other type
                                    422  the proof does not show that the tree extends the last one
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ledger.cosignature import CosignatureVerifier
from ledger.encoding import decode_base64, decode_decimal, encode_base64
from ledger.errors import DecodeError, UsageError
from ledger.merkle import HASH_BYTES
from ledger.note import MAX_SIGNATURES, Note, Signature

__all__ = [
    "MAX_ANSWER_BYTES",
    "MAX_PROOF_HASHES",
    "MAX_REQUEST_BYTES",
    "SIZE_TYPE",
    "TEXT_TYPE",
    "WitnessReply",
    "WitnessRequest",
    "encode_request",
    "parse_answer",
    "parse_request",
]

MAX_PROOF_HASHES: Final = 63
MAX_REQUEST_BYTES: Final = 1 << 18
"""A proof has 3 kB at most; the rest is for a checkpoint with extension lines and signatures of many kinds."""
MAX_ANSWER_BYTES: Final = 1 << 16

SIZE_TYPE: Final = "text/x.tlog.size"
TEXT_TYPE: Final = "text/plain; charset=utf-8"

_OLD: Final = "old "
_SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class WitnessRequest:
    """A parsed request, nothing of it verified. `checkpoint` is a note, byte for byte as sent."""

    old: int
    proof: tuple[bytes, ...]
    checkpoint: bytes


@dataclass(frozen=True, slots=True)
class WitnessReply:
    """What a witness answered: exactly one of the first two where it is useful, else both None and the reason why.

    `signature` is its cosignature of the checkpoint that was sent, verified. `known_size` is the size that it cosigned
    last: ask again with a proof from there.
    """

    signature: Signature | None
    known_size: int | None
    reason: str


def encode_request(old: int, proof: Sequence[bytes], checkpoint: bytes) -> bytes:
    """The body that asks to cosign `checkpoint` after size `old`. Raises UsageError for what no request may hold."""
    if old < 0 or len(proof) > MAX_PROOF_HASHES or any(len(h) != HASH_BYTES for h in proof):
        raise UsageError(f"a request has an old size and at most {MAX_PROOF_HASHES} hashes of {HASH_BYTES} bytes")
    head = f"{_OLD}{old}\n" + "".join(f"{encode_base64(h)}\n" for h in proof)
    body = head.encode("ascii") + b"\n" + checkpoint
    if len(body) > MAX_REQUEST_BYTES:
        raise UsageError(f"a request has at most {MAX_REQUEST_BYTES} bytes, this one has {len(body)}")
    return body


def parse_request(body: bytes) -> WitnessRequest:
    """The request whose encoding is exactly `body`; the checkpoint may still be anything. Raises DecodeError."""
    if len(body) > MAX_REQUEST_BYTES:
        raise DecodeError("add-checkpoint", f"more than {MAX_REQUEST_BYTES} bytes")
    head, separator, checkpoint = body.partition(b"\n\n")
    if not separator:
        raise DecodeError("add-checkpoint", "no empty line before the checkpoint")
    try:
        first, *rest = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise DecodeError("add-checkpoint", "not ASCII before the checkpoint") from None
    if not first.startswith(_OLD):
        raise DecodeError("add-checkpoint", "the first line does not begin with `old `")
    if len(rest) > MAX_PROOF_HASHES:
        raise DecodeError("add-checkpoint", f"more than {MAX_PROOF_HASHES} hashes")
    old = decode_decimal("old size", first.removeprefix(_OLD))
    return WitnessRequest(old, tuple(decode_base64("proof hash", line, HASH_BYTES) for line in rest), checkpoint)


def parse_answer(
    status: int, content_type: str, body: bytes, checkpoint: bytes, verifier: CosignatureVerifier
) -> WitnessReply:
    """What an answer to a request about `checkpoint` says; cosignatures of other keys are ignored.

    Raises DecodeError for a malformed 200 or size, VerificationFailed for a 200 without a cosignature by `verifier`
    that holds.
    """
    if len(body) > MAX_ANSWER_BYTES:
        raise DecodeError("answer of a witness", f"more than {MAX_ANSWER_BYTES} bytes")
    if status == 200:
        note = Note(Note.parse(checkpoint).text, _signature_lines(body))
        (signature, *_) = note.verify([verifier])
        return WitnessReply(signature, None, "cosigned")
    if status == 409 and content_type == SIZE_TYPE:
        line = _text(body)
        if not line.endswith("\n"):
            raise DecodeError("size told by a witness", "no newline at the end")
        return WitnessReply(None, decode_decimal("size told by a witness", line[:-1]), "it cosigned another size last")
    return WitnessReply(None, None, f"status {status}: {_shown(body)}")


def _signature_lines(body: bytes) -> tuple[Signature, ...]:
    text = _text(body)
    if not text.endswith("\n"):
        raise DecodeError("answer of a witness", "no signature line, or no newline at the end")
    lines = text[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise DecodeError("answer of a witness", f"more than {MAX_SIGNATURES} signatures")
    return tuple(Signature.parse(line) for line in lines)


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        raise DecodeError("answer of a witness", "not UTF-8") from None


def _shown(body: bytes) -> str:
    """The beginning of a message by somebody else, on one line."""
    text = body[:_SHOWN].decode("utf-8", "replace").strip()
    return "".join(c if c.isprintable() else " " for c in text) or "no reason given"
