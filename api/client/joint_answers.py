"""What a clinic keeps of its sessions: its shares of the answers, and the other party's, sealed, once it has them.

    joint/<session>.shares.json   shares of this clinic and the key that the owner's are sealed for; written by its node
                                  before the prediction is published, so that a crash loses no answer
    joint/<session>.box           the owner's shares, still sealed, kept once they opened the committed answers

Both files together open every C_z of the session. Destroying them is forgetting the answers.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal, Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pydantic import Field

from api.client.joint_prediction import VerifiedJointPrediction
from api.mpc.sealed import open_box
from privacy.canonical_json import Codec, Digest, Record
from privacy.errors import DecodeError, UsageError
from privacy.mpc.answers import AnswerOpening, AnswerShare, decode_shares, encode_shares, open_answers
from privacy.private_files import private_folder, read_private, write_private

__all__ = ["SealedSource", "keep_shares", "open_joint_answers"]

_WHAT: Final = "shares of answers"
_MAX_BYTES: Final = 1 << 24
_MAX_BOX: Final = 1 << 20


class SealedSource(Protocol):
    """Where the owner's shares come from: a server."""

    def sealed(self, job: str) -> bytes: ...


@dataclass(frozen=True)
class _Shares(Record):
    format: Literal["sealproof/answer-shares/v1"]
    session: Digest
    job: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    key: Digest = field(repr=False)
    shares: str = field(repr=False)


_CODEC: Final = Codec(_Shares, _WHAT, _MAX_BYTES)


def _path(folder: Path, session: bytes, suffix: str) -> Path:
    return folder / "joint" / f"{session.hex()}.{suffix}"


def keep_shares(folder: Path, session: bytes, job: str, key: X25519PrivateKey, shares: Sequence[AnswerShare]) -> None:
    """Write this clinic's shares of a session, durable on return. Raises OSError."""
    private_folder(folder / "joint")
    encoded = base64.b64encode(encode_shares(shares)).decode("ascii")
    stored = _Shares("sealproof/answer-shares/v1", session, job, key.private_bytes_raw(), encoded)
    write_private(_path(folder, session, "shares.json"), _CODEC.encode(stored))


def open_joint_answers(
    folder: Path, server: SealedSource | None, verified: VerifiedJointPrediction, job: str | None = None
) -> tuple[AnswerOpening, ...]:
    """The openings of a verified prediction's answers, patient by patient and output by output.

    The owner's shares are asked of `server` once, and kept only if they open the commitments. With `job`, the shares
    must be of that job.

    Raises:
        UsageError: this folder has no shares of that session, or no connection to get the owner's.
        VerificationFailed: `joint.box`, `joint.share`: the owner's shares are not what was proven. Nothing was kept.
        ServerError, DecodeError.
    """
    session = verified.prediction.body.session
    path = _path(folder, session, "shares.json")
    if not path.exists():
        raise UsageError(f"{folder} has no shares of session {session.hex()}: another clinic's, or another folder's")
    stored = _CODEC.decode(read_private(path, _MAX_BYTES, _WHAT))
    if stored.session != session or (job is not None and stored.job != job):
        raise UsageError(f"{path} is about another session or job")
    kept = _path(folder, session, "box")
    if kept.exists():
        box = read_private(kept, _MAX_BOX, "sealed shares")
    elif server is not None:
        box = server.sealed(stored.job)
    else:
        raise UsageError("the owner's part of these answers was not fetched yet: connect to the server once")
    theirs = decode_shares(open_box(box, X25519PrivateKey.from_private_bytes(stored.key), session))
    openings = open_answers(verified.answers, _mine(stored), theirs, verified.z_bound(0))
    if not kept.exists():
        write_private(kept, box)
    return openings


def _mine(stored: _Shares) -> tuple[AnswerShare, ...]:
    try:
        return decode_shares(base64.b64decode(stored.shares, validate=True))
    except (binascii.Error, ValueError) as error:
        raise DecodeError(_WHAT, "the shares are damaged") from error
