"""Pedersen vector commitments Com(v; rho) = sum v_i G_i + rho H (docs/spec/protocol.md, section 3).

Perfectly hiding for uniform rho in F_r, binding under discrete log. A key fixes the generators; keys of different
purposes share no generator but H.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from privacy.errors import UsageError
from privacy.zk.generators import blinding_generator, generators
from privacy.zk.group import ARKWORKS, Group, Point

__all__ = ["CommitmentKey", "commitment_key"]


@dataclass(frozen=True)
class CommitmentKey:
    """Generators of one vector, in order, and the group they live in."""

    points: tuple[Point, ...]
    blinding: Point
    group: Group

    def __len__(self) -> int:
        return len(self.points)

    def commit(self, values: Sequence[int], rho: int) -> Point:
        """Com(values; rho). Values are integers with |v| < r, as many as there are generators."""
        if len(values) != len(self.points):
            raise UsageError(f"commitment to {len(values)} values under a key of {len(self.points)} generators")
        vector = self.group.msm(self.points, values)
        return self.group.add(vector, self.group.multiply(self.blinding, rho))

    def __add__(self, other: CommitmentKey) -> CommitmentKey:
        """Key of the concatenated vector."""
        return CommitmentKey(self.points + other.points, self.blinding, self.group)


def commitment_key(purpose: str, count: int, group: Group = ARKWORKS) -> CommitmentKey:
    """The key of `count` coordinates for a purpose."""
    return CommitmentKey(tuple(generators(purpose, count, group)), blinding_generator(group), group)
