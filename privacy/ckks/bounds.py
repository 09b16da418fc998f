"""Every bound of the evaluation proof, derived (docs/spec/protocol.md, section 10).

Integers only. Prover and verifier call this one function with public numbers; nothing is read from a proof and
nothing is picked by hand. Twelve standard deviations throughout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isqrt, log2
from typing import Final

from privacy.ckks.params import ParameterSet
from privacy.errors import UsageError, VerificationFailed
from privacy.zk.group import ORDER
from privacy.zk.relations import KAPPA, J, check_no_wrap

__all__ = ["E_PK", "MAX_INSTANCES", "Bounds", "derive_bounds"]

E_PK: Final = 32
"""Proven bound on the error of a public key."""

_MAX_BITS: Final = 256

_BLUR_FLOOR: Final = 8
"""The blur must exceed this many times E_pk sqrt(N): under a key with a short p0, whose decryption noise is p0 u, a
clinic could otherwise round the blur away and read u, and with u the weights from c1."""

MAX_INSTANCES: Final = 256
"""Largest number of blocks x outputs in one proof."""


@dataclass(frozen=True)
class Bounds:
    """Bounds of one evaluation proof; letters as in section 10 of the protocol.

    `T0, T1, Tu` are honest projections, `M0, M1, Mu` (the protocol's M') the accepted ones, `f` the blur in bits,
    `err` the proven error of a decryption at scale 2^D, `K0, K1` honest quotients, `honest4, B4` those of T4.
    """

    T0: int
    T1: int
    Tu: int
    M0: int
    M1: int
    Mu: int
    f: int
    err: int
    S: int
    S_P: int
    K0: int
    K1: int
    honest4: int
    B4: int
    no_wrap: int

    def log2(self) -> Mapping[str, float]:
        """Base-2 logarithms, for tables."""
        return {f.name: log2(getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) > 0}


def derive_bounds(
    params: ParameterSet, *, instances: int, published: int, d: int, b: int, b_bias: int, grid_bits: int
) -> Bounds:
    """Bounds for `instances` blocks x outputs, |P| = `published`, d weights of b bits, a bias of b_bias bits.

    Raises:
        UsageError: a combination that cannot be proven, with what to change.
        VerificationFailed: `no-wrap` for numbers whose integer equations could wrap.
    """
    N, L, Q, q_min = params.N, params.L, params.Q, min(params.primes)
    if q_min <= 1 << KAPPA:
        # A T4 challenge that is a multiple of q would let a false quotient e/q pass.
        raise UsageError(f"{params.name}: a data prime is not above 2^{KAPPA}")
    if not 1 <= instances <= MAX_INSTANCES:
        raise UsageError(f"one proof covers 1 to {MAX_INSTANCES} blocks x outputs, got {instances}")
    if not 1 <= published <= N:
        raise UsageError(f"a block publishes 1 to {N} coefficients, got {published}")
    # The cap comes before any shift: these numbers may stand in an entry that somebody made up.
    if d < 1 or not 1 <= b <= _MAX_BITS or not 1 <= b_bias <= _MAX_BITS or not 0 <= grid_bits <= params.D - 6:
        raise UsageError(f"impossible shape: d={d}, b={b}, b_bias={b_bias}, grid 2^-{grid_bits}")
    rho, rho4 = 2201 * instances, 1024 * instances
    T1 = isqrt(756 * N) + 1
    Tu = isqrt(48 * N) + 1
    gamma = min(published, isqrt(24 * published) + 1)
    M1, Mu = rho * T1, rho * Tu
    rest = 2 * N * (E_PK * Mu + M1)
    allowance = 1 << (params.D - grid_bits - 6)
    room = (allowance - rest) // (2 * rho * gamma)
    if room < 1:
        raise UsageError(
            f"{instances} blocks x outputs leave no room for the blur at grid 2^-{grid_bits}: "
            "use fewer blocks in a proof or a coarser grid"
        )
    f = room.bit_length() - 1
    if 1 << f < _BLUR_FLOOR * E_PK * isqrt(N):
        raise UsageError(
            f"{instances} blocks x outputs at grid 2^-{grid_bits} leave a blur of {f} bits, too little to hide u: "
            "use fewer blocks in a proof or a coarser grid"
        )
    T0 = gamma << f
    M0 = rho * T0
    err = rest + 2 * M0
    S = isqrt(72 * N) + 1
    S_P = min(published, isqrt(72 * published) + 1)
    W = d << b
    K1 = S * (1 + W) + N * S + 1
    K0 = S_P * (1 + W) + ((S_P << b_bias) // q_min + 1) + N * S_P + T0 // q_min + 2
    honest4 = ((1 << KAPPA) - 1) * (J * L * (K0 + K1) + J * (M0 + M1))
    B4 = rho4 * honest4
    # Projections are at most N q in absolute value, whatever the data: exact maxima would only be smaller.
    q_max = max(params.primes)
    x_max = N * q_max * (1 + W + 2 * Mu * N) + (N << b_bias) + max(M0, M1)
    no_wrap = max(check_no_wrap(x_max, B4, q) for q in params.primes)
    if 4 * max(M0, M1) >= Q or 4 * Mu >= ORDER:
        raise VerificationFailed("bounds.modulus", "4 max(M0, M1) < Q and 4 M' < r do not hold")
    return Bounds(T0, T1, Tu, M0, M1, Mu, f, err, S, S_P, K0, K1, honest4, B4, no_wrap)
