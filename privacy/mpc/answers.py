"""Answers of two-party computation: shares, and the openings of C_z that A alone ends up with.

C_z = Com(z; rho) with z = z_A + z_B and rho = rho_A + rho_B mod r. B hands (z_B, rho_B) over, sealed for A, when the
prediction is on the ledger; nobody else ever has both (docs/spec/protocol.md, section 7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.mpc.joint_proof import answer_key
from privacy.zk.group import ARKWORKS, ORDER, SCALAR_BYTES, Group
from privacy.zk.pedersen import commit_all
from privacy.zk.wire import Reader, pack_scalars

__all__ = ["AnswerOpening", "AnswerShare", "decode_shares", "encode_shares", "open_answers"]


@dataclass(frozen=True)
class AnswerShare:
    """One party's additive share of an answer and of its blinding, both in [0, r). Secret."""

    z: int = field(repr=False)
    rho: int = field(repr=False)

    def __post_init__(self) -> None:
        if not (0 <= self.z < ORDER and 0 <= self.rho < ORDER):
            raise UsageError("a share lies in [0, r)")


@dataclass(frozen=True)
class AnswerOpening:
    """Opening of one C_z: the integer answer z, and rho in [0, r). Secret."""

    z: int = field(repr=False)
    rho: int = field(repr=False)


def encode_shares(shares: Sequence[AnswerShare]) -> bytes:
    """64 bytes a share."""
    return pack_scalars([value for share in shares for value in (share.z, share.rho)])


def decode_shares(data: bytes) -> tuple[AnswerShare, ...]:
    """Inverse of `encode_shares`. Raises DecodeError."""
    if len(data) % (2 * SCALAR_BYTES):
        raise DecodeError("answer shares", f"{len(data)} bytes are no whole number of shares")
    reader = Reader("answer shares", data)
    values = reader.scalars(len(data) // SCALAR_BYTES)
    return tuple(AnswerShare(z, rho) for z, rho in zip(values[::2], values[1::2], strict=True))


def open_answers(
    answers: Sequence[bytes],
    mine: Sequence[AnswerShare],
    theirs: Sequence[AnswerShare],
    bound: int,
    group: Group = ARKWORKS,
) -> tuple[AnswerOpening, ...]:
    """Add the shares of both parties and check that the sums open `answers`, the C_z of verified proofs.

    `bound` is the public bound of an answer (`layer_bounds`), which a verified proof implies: it is checked all the
    same before anybody reads a number.

    Raises:
        VerificationFailed: `joint.share`.
    """
    if not len(answers) == len(mine) == len(theirs):
        raise VerificationFailed("joint.share", f"{len(mine)} and {len(theirs)} shares of {len(answers)} answers")
    openings = []
    for own, other in zip(mine, theirs, strict=True):
        z = (own.z + other.z) % ORDER
        openings.append(AnswerOpening(z - ORDER if z > ORDER // 2 else z, (own.rho + other.rho) % ORDER))
    key = answer_key(group)
    points = commit_all([key] * len(openings), [[o.z] for o in openings], [o.rho for o in openings])
    if list(map(group.encode, points)) != list(answers):
        raise VerificationFailed("joint.share", "the other party's shares do not open the committed answers")
    if any(abs(opening.z) > bound for opening in openings):
        raise VerificationFailed("joint.share", "an answer is beyond the bound of the network")
    return tuple(openings)
