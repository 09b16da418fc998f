"""Additive shares in F_r and their products (docs/spec/protocol.md, section 7).

A has X, B has Y, and the dealer gave R_A, r_A to A and R_B, r_B to B with r_A + r_B = <R_A, R_B>. They exchange
X + R_A and Y + R_B, and then

    A:  <X, Y + R_B> + r_A          B:  r_B - <X + R_A, R_B>          add up to <X, Y>.

What is exchanged is uniform, since every R is used once. A sends first: the parties alternate, so that nobody waits for
room in a full connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import mul
from typing import Final

from privacy.errors import SessionBroken, UsageError
from privacy.mpc.channel import Channel
from privacy.mpc.dealer import Correlations, Role
from privacy.zk.group import ORDER, SCALAR_BYTES
from privacy.zk.wire import pack_scalars

__all__ = ["Role", "exchange", "inner_products", "receive_scalars", "send_scalars", "unpack_scalars"]

_FIRST: Final = "A"


def exchange(role: Role, channel: Channel, label: str, mine: bytes, size: int) -> bytes:
    """Send `mine` and return the `size` bytes of the other party; A sends first."""
    if role == _FIRST:
        channel.send(label, mine)
        return channel.receive(label, size)
    theirs = channel.receive(label, size)
    channel.send(label, mine)
    return theirs


def send_scalars(channel: Channel, label: str, values: Sequence[int]) -> None:
    """Send residues in [0, r)."""
    channel.send(label, pack_scalars(values))


def receive_scalars(channel: Channel, label: str, count: int) -> list[int]:
    """`count` residues from the other party. Raises SessionBroken(`mpc.scalar`) for one that is not below r."""
    return unpack_scalars(label, channel.receive(label, SCALAR_BYTES * count))


def unpack_scalars(label: str, data: bytes) -> list[int]:
    """Residues that the other party sent. Raises SessionBroken(`mpc.scalar`) for one that is not below r."""
    values = [int.from_bytes(data[i : i + SCALAR_BYTES], "little") for i in range(0, len(data), SCALAR_BYTES)]
    if values and max(values) >= ORDER:
        raise SessionBroken("mpc.scalar", f"{label}: a scalar is not below the group order")
    return values


def inner_products(
    role: Role,
    channel: Channel,
    label: str,
    correlations: Correlations,
    lengths: Sequence[int],
    mine: Sequence[int],
) -> list[int]:
    """This party's shares of <X_g, Y_g> for every group g of `lengths` coordinates, `mine` being all X (or all Y).

    Raises SessionBroken, and UsageError for another number of coordinates than `lengths` adds up to.
    """
    if len(mine) != sum(lengths):
        raise UsageError(f"{len(mine)} coordinates for groups of {sum(lengths)}")
    R, r = correlations.field_products(tuple(lengths))
    masked = [(x + mask) % ORDER for x, mask in zip(mine, R, strict=True)]
    size = SCALAR_BYTES * len(masked)
    theirs = unpack_scalars(label, exchange(role, channel, label, pack_scalars(masked), size))
    shares, at = [], 0
    for length, own in zip(lengths, r, strict=True):
        part = slice(at, at + length)
        if role == "A":
            shares.append((sum(map(mul, mine[part], theirs[part])) + own) % ORDER)
        else:
            shares.append((own - sum(map(mul, theirs[part], R[part]))) % ORDER)
        at += length
    return shares
