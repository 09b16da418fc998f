"""The parameter sets of two-party computation that exist (docs/spec/protocol.md, section 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from privacy.errors import UsageError

__all__ = ["MPC_PARAMETER_SETS", "PATIENTS_PER_PROOF", "MpcParameters", "batches", "mpc_parameters"]

PATIENTS_PER_PROOF: Final = 64
"""Certificates of records and joint proofs cover batches of at most so many patients: memory does not grow with the
cohort, and the shape of every proof follows from the ledger."""


@dataclass(frozen=True)
class MpcParameters:
    """A parameter set: records are integers at scale 2^`input_scale_bits`, CrypTen computes modulo 2^`word_bits`."""

    name: str
    input_scale_bits: int
    word_bits: int

    def encode(self) -> bytes:
        """Canonical bytes of every field, for transcripts. The name is length-prefixed, the rest has fixed width."""
        name = self.name.encode("ascii")
        numbers = self.input_scale_bits.to_bytes(1, "little") + self.word_bits.to_bytes(1, "little")
        return len(name).to_bytes(1, "little") + name + numbers


_MPC_64 = MpcParameters("mpc-64", 16, 64)

MPC_PARAMETER_SETS: Mapping[str, MpcParameters] = MappingProxyType({_MPC_64.name: _MPC_64})
"""Every parameter set that is accepted, by name."""


def mpc_parameters(name: str) -> MpcParameters:
    """The parameter set called `name`. Raises UsageError for any other name."""
    found = MPC_PARAMETER_SETS.get(name)
    if found is None:
        raise UsageError(f"unknown parameter set {name!r}; known: {', '.join(sorted(MPC_PARAMETER_SETS))}")
    return found


def batches(count: int) -> list[range]:
    """The patients of each certificate and proof of a cohort: consecutive, full but for the last."""
    return [range(first, min(first + PATIENTS_PER_PROOF, count)) for first in range(0, count, PATIENTS_PER_PROOF)]
