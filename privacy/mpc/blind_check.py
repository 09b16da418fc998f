"""Whether a joint proof holds, before either party can see by how much it does not (docs/spec/protocol.md, section 7).

With the responses z exchanged and tau = tau_A + tau_B still shared, let P = T0 + c T1 - f(z) G. If the proof holds, P
is tau H. If a party deviated, P - tau H = e G with a number e that depends, in a way of its choice, on the other's
secrets: with tau it would look e up, and a whole value of the other's with it. So both keep their tau until they know
that e is 0:

    A -> B    s H,  s (P - tau_A H)                 s uniform in F_r without 0
    B         goes on only if the second is tau_B times the first, since the difference is s e G;
              sends the same with a number and the tau_B of its own, and A checks likewise

Of e this shows whether it is 0. Under DDH in G1 it shows nothing else, not even whether a guess of another e is right:
that would need s G.
"""

from __future__ import annotations

import secrets
from typing import Final

from privacy.errors import DecodeError, SessionBroken, VerificationFailed
from privacy.mpc.channel import Channel
from privacy.mpc.dealer import Role
from privacy.zk.group import ORDER, POINT_BYTES, Group, Point
from privacy.zk.pedersen import CommitmentKey
from privacy.zk.wire import Reader

__all__ = ["check_blindly"]

_LABEL: Final = "blind check"


def check_blindly(role: Role, channel: Channel, key: CommitmentKey, P: Point, tau: int) -> None:
    """Agree with the other party that P = (tau_A + tau_B) H: `tau` is this party's share, H the blinding of `key`.

    Raises:
        VerificationFailed: `joint.blind-check`: it is not. Nothing about this party's tau is known to the other then.
        SessionBroken: the other party is gone or sends no points.
    """
    if role == "A":
        channel.send(_LABEL, _blinded(key, P, tau))
        _check_peer(channel, key.group, tau)
    else:
        _check_peer(channel, key.group, tau)
        channel.send(_LABEL, _blinded(key, P, tau))


def _blinded(key: CommitmentKey, P: Point, tau: int) -> bytes:
    group, H, s = key.group, key.blinding, 1 + secrets.randbelow(ORDER - 1)
    points = group.multiply(H, s), group.msm([P, H], [s, -(s * tau % ORDER)])
    return b"".join(map(group.encode, points))


def _check_peer(channel: Channel, group: Group, tau: int) -> None:
    data = channel.receive(_LABEL, 2 * POINT_BYTES)
    try:
        blinding, blinded = Reader(_LABEL, data).points(group, 2)
    except DecodeError as error:
        raise SessionBroken("mpc.point", f"the other party sent no point: {error}") from error
    if not group.equal(blinded, group.multiply(blinding, tau)):
        raise VerificationFailed("joint.blind-check", "the joint proof would not hold: the peer or the dealer deviated")
