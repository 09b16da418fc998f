"""Exchanging tau without showing by how much a proof fails (docs/spec/protocol.md, section 7).

With the responses z exchanged and tau = tau_A + tau_B still shared, let P = T0 + c T1 - f(z) G. If the proof holds, P
is tau H. If a party deviated, P - tau H = e G with a number e that depends, in a way of its choice, on the other's
secrets: with tau it would look e up, and a whole value of the other's with it. So tau is exchanged in steps, each of
which shows of e whether it is 0, or what the other guessed, and nothing else:

    A -> B    s H,  s (P - tau_A H)      s uniform in F_r without 0
    B         goes on only if the second is tau_B times the first: their difference is s e G
    B -> A    tau_B
    A         goes on only if P = (tau_A + tau_B) H
    A -> B    tau_A

What B is sent first hides e, unless it is 0, under DDH in G1. B's answer is the number tau_B and not points of the same
kind: those it could compute from what A sent if it had chosen T0 and T1 last, and with them it could guess once more.
"""

from __future__ import annotations

import secrets
from typing import Final

from privacy.errors import DecodeError, SessionBroken, VerificationFailed
from privacy.mpc.channel import Channel
from privacy.mpc.dealer import Role
from privacy.mpc.shares import receive_scalars, send_scalars
from privacy.zk.group import ORDER, POINT_BYTES, Point
from privacy.zk.pedersen import CommitmentKey
from privacy.zk.wire import Reader

__all__ = ["exchange_tau"]

_POINTS: Final = "blind check"
_TAU: Final = "tau"


def exchange_tau(role: Role, channel: Channel, key: CommitmentKey, P: Point, mine: int) -> int:
    """tau = tau_A + tau_B mod r, with P = tau H. `mine` is this party's share, H the blinding generator of `key`.

    Raises:
        VerificationFailed: `joint.blind-check`: P is no such point. The other party does not know `mine` then.
        SessionBroken: the other party is gone, or sends what is no point or no scalar.
    """
    if role == "A":
        channel.send(_POINTS, _blinded(key, P, mine))
        tau = _sum(channel, key, P, mine)
        send_scalars(channel, _TAU, [mine])
        return tau
    _check_blinded(channel, key, mine)
    send_scalars(channel, _TAU, [mine])
    return _sum(channel, key, P, mine)


def _blinded(key: CommitmentKey, P: Point, tau: int) -> bytes:
    group, H, s = key.group, key.blinding, 1 + secrets.randbelow(ORDER - 1)
    points = group.multiply(H, s), group.msm([P, H], [s, -(s * tau % ORDER)])
    return b"".join(map(group.encode, points))


def _check_blinded(channel: Channel, key: CommitmentKey, tau: int) -> None:
    data = channel.receive(_POINTS, 2 * POINT_BYTES)
    try:
        sH, blinded = Reader(_POINTS, data).points(key.group, 2)
    except DecodeError as error:
        raise SessionBroken("mpc.point", f"the other party sent no point: {error}") from error
    if not key.group.equal(blinded, key.group.multiply(sH, tau)):
        raise _failed()


def _sum(channel: Channel, key: CommitmentKey, P: Point, mine: int) -> int:
    (theirs,) = receive_scalars(channel, _TAU, 1)
    tau = (mine + theirs) % ORDER
    if not key.group.equal(P, key.group.multiply(key.blinding, tau)):
        raise _failed()
    return tau


def _failed() -> VerificationFailed:
    return VerificationFailed("joint.blind-check", "the joint proof does not hold: the peer or the dealer deviated")
