"""The CKKS parameter sets that exist (docs/spec/protocol.md, section 1).

A set is named, its primes are written out, and nothing else is accepted: a verifier must not have to ask a library
which primes a bit size stands for. SEAL's last prime serves key switching only, which no computation here uses; it is
kept because the two sides' SEAL contexts, and so their identifiers, depend on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from types import MappingProxyType

from privacy.errors import UsageError

__all__ = ["PARAMETER_SETS", "ParameterSet", "parameter_set"]


@dataclass(frozen=True)
class ParameterSet:
    """A CKKS parameter set.

    `N` is the ring degree, `primes` are the data primes q_1..q_L, `special_prime` is SEAL's key-switching prime,
    inputs are encoded at scale 2^SX (`input_scale_bits`), weights are integers at scale 2^SW (`weight_scale_bits`).
    """

    name: str
    N: int
    primes: tuple[int, ...]
    special_prime: int
    input_scale_bits: int
    weight_scale_bits: int

    @property
    def L(self) -> int:  # noqa: N802
        """Number of data primes."""
        return len(self.primes)

    @cached_property
    def Q(self) -> int:  # noqa: N802
        """Product of the data primes: the modulus of every ciphertext and public key."""
        return prod(self.primes)

    @property
    def SX(self) -> int:  # noqa: N802
        """Scale bits of inputs, in the protocol's letters."""
        return self.input_scale_bits

    @property
    def SW(self) -> int:  # noqa: N802
        """Scale bits of weights, in the protocol's letters."""
        return self.weight_scale_bits

    @property
    def D(self) -> int:  # noqa: N802
        """Scale bits of answers: Delta_y = 2^D with D = SX + SW."""
        return self.input_scale_bits + self.weight_scale_bits

    def encode(self) -> bytes:
        """Canonical bytes of every field, for transcripts and digest headers.

        Two sets with equal encodings are equal: the name is length-prefixed, everything else has fixed width, and the
        number of primes comes before them.
        """
        name = self.name.encode("ascii")
        return b"".join(
            [
                len(name).to_bytes(1, "little"),
                name,
                self.N.to_bytes(4, "little"),
                self.L.to_bytes(1, "little"),
                *(q.to_bytes(8, "little") for q in self.primes),
                self.special_prime.to_bytes(8, "little"),
                self.input_scale_bits.to_bytes(1, "little"),
                self.weight_scale_bits.to_bytes(1, "little"),
            ]
        )


_LINEAR_4096 = ParameterSet(
    name="linear-4096",
    N=4096,
    primes=(68719230977, 68719403009),
    special_prime=137438822401,
    input_scale_bits=34,
    weight_scale_bits=24,
)

PARAMETER_SETS: Mapping[str, ParameterSet] = MappingProxyType({_LINEAR_4096.name: _LINEAR_4096})
"""Every parameter set that is accepted, by name."""


def parameter_set(name: str) -> ParameterSet:
    """The parameter set called `name`. Raises UsageError for any other name."""
    found = PARAMETER_SETS.get(name)
    if found is None:
        raise UsageError(f"unknown parameter set {name!r}; known: {', '.join(sorted(PARAMETER_SETS))}")
    return found
