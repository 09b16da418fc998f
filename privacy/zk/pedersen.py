"""Pedersen vector commitments Com(v; rho) = sum v_i G_i + rho H (docs/spec/protocol.md, section 3).

Perfectly hiding for uniform rho in F_r, binding under discrete log. A key fixes the generators; keys of different
purposes share no generator but H.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

from privacy.errors import UsageError
from privacy.zk.generators import blinding_generator, generators
from privacy.zk.group import ARKWORKS, Group, Point

__all__ = ["CommitmentKey", "commit_all", "commit_soon", "commitment_key"]


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
        return commit_all([self], [values], [rho])[0]

    def __add__(self, other: CommitmentKey) -> CommitmentKey:
        """Key of the concatenated vector."""
        return CommitmentKey(self.points + other.points, self.blinding, self.group)


def commit_all(keys: Sequence[CommitmentKey], vectors: Sequence[Sequence[int]], rhos: Sequence[int]) -> list[Point]:
    """Com_i(v_i; rho_i) for each key, on all cores at once. All keys are of one group.

    Raises:
        UsageError: a vector has another length than its key.
    """
    for key, values in zip(keys, vectors, strict=True):
        if len(values) != len(key.points):
            raise UsageError(f"commitment to {len(values)} values under a key of {len(key.points)} generators")
    group = keys[0].group
    sums = group.msm_many([(key.points, values) for key, values in zip(keys, vectors, strict=True)])
    return [
        group.add(total, group.multiply(key.blinding, rho)) for key, total, rho in zip(keys, sums, rhos, strict=True)
    ]


def commit_soon(
    keys: Sequence[CommitmentKey], vectors: Sequence[Sequence[int]], rhos: Sequence[int]
) -> Future[list[Point]]:
    """`commit_all` beside what the caller does meanwhile."""
    return _background().submit(commit_all, keys, vectors, rhos)


@cache
def _background() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2, thread_name_prefix="commit")


def commitment_key(purpose: str, count: int, group: Group = ARKWORKS) -> CommitmentKey:
    """The key of `count` coordinates for a purpose."""
    return CommitmentKey(tuple(generators(purpose, count, group)), blinding_generator(group), group)
