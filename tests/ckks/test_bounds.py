"""Section 10's numbers: the printed table, every refusal at its boundary, and what each bound is for."""

from __future__ import annotations

from dataclasses import replace
from math import isqrt, log2

import numpy as np
import pytest

from privacy.ckks import bounds as bounds_module
from privacy.ckks.bounds import E_PK, MAX_INSTANCES, Bounds, derive_bounds
from privacy.ckks.params import ParameterSet, parameter_set
from privacy.errors import UsageError, VerificationFailed
from privacy.zk.group import ORDER
from privacy.zk.relations import KAPPA, J, check_no_wrap

LINEAR = parameter_set("linear-4096")

TABLE = [
    # instances, grid bits, f, M0, M1, M', err - 58, B4 at d = 30 and 4096, T2 left side at d = 30 and 4096
    (1, 6, 25, 44.4, 21.9, 19.9, -12.6, (96.5, 102.4), (167.5, 173.4)),
    (16, 6, 21, 44.4, 25.9, 23.9, -12.5, (100.5, 106.4), (171.5, 177.4)),
    (64, 6, 19, 44.4, 27.9, 25.9, -12.1, (102.5, 108.4), (173.5, 179.4)),
    (256, 5, 17, 44.4, 29.9, 27.9, -11.2, (104.5, 110.4), (175.5, 181.4)),
]


def derive(params: ParameterSet = LINEAR, **changes: int) -> Bounds:
    arguments = {"instances": 1, "published": params.N, "d": 30, "b": 28, "b_bias": 62, "grid_bits": 6} | changes
    return derive_bounds(params, **arguments)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row[0]} blocks")
@pytest.mark.parametrize("which", [0, 1], ids=["d=30", "d=4096"])
def test_the_table_of_the_protocol(row: tuple, which: int) -> None:
    instances, grid_bits, f, M0, M1, Mu, err, B4, no_wrap = row
    found = derive(instances=instances, grid_bits=grid_bits, d=(30, 4096)[which])
    assert found.f == f
    printed = [round(log2(x), 1) for x in (found.M0, found.M1, found.Mu, found.err / 2**58, found.B4)]
    assert printed == [M0, M1, Mu, err, B4[which]]
    # The protocol takes the largest projection that occurs; the verifier here the largest possible one. With B4 at
    # 2^96 and more the second term decides and both print the same.
    assert round(log2(found.no_wrap), 1) == no_wrap[which]


def test_the_logarithms_for_display_are_those_of_the_numbers() -> None:
    found = derive()
    assert found.log2()["M0"] == log2(found.M0)
    assert found.log2()["f"] == log2(found.f)


def test_256_full_blocks_need_a_coarser_grid() -> None:
    with pytest.raises(UsageError, match=r"fewer blocks in a proof or a coarser grid"):
        derive(instances=256, grid_bits=6)
    assert derive(instances=256, grid_bits=5).f == 17


def test_instances_from_1_to_256() -> None:
    for instances in (0, -1, MAX_INSTANCES + 1):
        with pytest.raises(UsageError, match="1 to 256"):
            derive(instances=instances, grid_bits=0)
    for instances in (1, MAX_INSTANCES):
        derive(instances=instances, grid_bits=0)


def test_published_coefficients_from_1_to_N() -> None:
    for published in (0, -1, LINEAR.N + 1):
        with pytest.raises(UsageError, match="publishes"):
            derive(published=published)
    for published in (1, LINEAR.N):
        derive(published=published)


@pytest.mark.parametrize(
    "change", [{"d": 0}, {"b": 0}, {"b_bias": 0}, {"grid_bits": -1}, {"grid_bits": 53}, {"grid_bits": 58}]
)
def test_impossible_shapes_are_usage_errors(change: dict) -> None:
    with pytest.raises(UsageError):
        derive(**change)


def largest(accepts) -> int:
    """Largest n >= 1 that is accepted, found by bisection."""
    low, high = 0, 1 << 12
    while high - low > 1:
        middle = (low + high) // 2
        try:
            accepts(middle)
            low = middle
        except (UsageError, VerificationFailed):
            high = middle
    return low


def test_the_room_for_the_blur_ends_where_it_no_longer_hides_u() -> None:
    """Recomputed from the rule, not from the code's own numbers: 2^f >= 8 E_pk sqrt(N)."""
    floor = 8 * E_PK * isqrt(LINEAR.N)
    assert floor == 1 << 14
    N, D, gamma = LINEAR.N, LINEAR.D, isqrt(24 * LINEAR.N) + 1

    def room(instances: int, grid_bits: int) -> int:
        rho = 2201 * instances
        rest = 2 * N * (32 * rho * (isqrt(48 * N) + 1) + rho * (isqrt(756 * N) + 1))
        return ((1 << (D - grid_bits - 6)) - rest) // (2 * rho * gamma)

    for grid_bits in (8, 9, 10, 12):
        last = largest(lambda n, g=grid_bits: derive(instances=n, grid_bits=g))
        if last < MAX_INSTANCES:
            assert room(last, grid_bits) >= floor > room(last + 1, grid_bits)
            assert derive(instances=last, grid_bits=grid_bits).f == room(last, grid_bits).bit_length() - 1
    grid = largest(lambda g: derive(grid_bits=g))
    assert room(1, grid) >= floor > room(1, grid + 1)
    with pytest.raises(UsageError, match="blur"):
        derive(grid_bits=grid + 1)


def test_the_error_stays_under_a_64th_of_the_grid_and_is_what_a_decryption_can_be_off_by() -> None:
    for instances, grid_bits, published in ((1, 6, 4096), (1, 6, 1), (7, 6, 100), (64, 6, 4096), (256, 5, 4096)):
        found = derive(instances=instances, grid_bits=grid_bits, published=published)
        assert found.err <= 1 << (LINEAR.D - grid_bits - 6)
        assert found.err == LINEAR.N * E_PK * 2 * found.Mu + 2 * found.M0 + LINEAR.N * 2 * found.M1
        # One more bit of blur would not fit.
        rest = found.err - 2 * found.M0
        assert rest + 4 * found.M0 > 1 << (LINEAR.D - grid_bits - 6)


@pytest.mark.parametrize("published", [1, 2, 24, 25, 569, 4096])
def test_twelve_standard_deviations_or_the_hard_limit(published: int) -> None:
    found = derive(published=published)
    assert published << found.f >= found.T0
    # Blur: variance 2^(2f)/3, rows 1/2.
    assert min(published, 12 * (published / 6) ** 0.5) * 2.0**found.f * 0.999 <= found.T0
    assert found.T1 >= 12 * (LINEAR.N * 10.5 / 2) ** 0.5
    assert found.Tu >= 12 * (LINEAR.N * (2 / 3) / 2) ** 0.5
    assert found.S >= 12 * (LINEAR.N / 2) ** 0.5


def test_honest_projections_stay_below_their_bounds(rng: np.random.Generator) -> None:
    found = derive()
    R = rng.integers(0, 2, (J, LINEAR.N)) - rng.integers(0, 2, (J, LINEAR.N))
    e0 = rng.integers(-(1 << found.f), (1 << found.f) + 1, LINEAR.N)
    u = rng.integers(-1, 2, LINEAR.N)
    assert np.abs(R @ e0).max() <= found.T0 // 2
    assert np.abs(R @ u).max() <= found.Tu // 2


def test_the_pass_rate_is_080_whatever_the_number_of_instances() -> None:
    for instances, grid_bits in ((1, 6), (16, 6), (256, 5)):
        found = derive(instances=instances, grid_bits=grid_bits)
        rate = 1.0
        for M, T in ((found.M0, found.T0), (found.M1, found.T1), (found.Mu, found.Tu)):
            rate *= (1 - T / M) ** (J * instances)
        rate *= (1 - found.honest4 / found.B4) ** (5 * instances)
        assert 0.79 < rate < 0.81


def test_weights_enter_through_public_bits_only() -> None:
    assert derive(b=27) != derive(b=28)
    assert derive(b=27).f == derive(b=28).f


def test_the_t4_bound_covers_the_largest_honest_values() -> None:
    found = derive()
    worst = (2**KAPPA - 1) * (J * LINEAR.L * (found.K0 + found.K1) + J * (found.M0 + found.M1))
    assert found.honest4 == worst
    assert 1024 * worst == found.B4


def test_worst_case_projections_bound_every_true_projection() -> None:
    """X_max is taken with every coefficient at its largest; all-equal adversarial arrays do not exceed it."""
    found = derive(d=2)
    q, N = max(LINEAR.primes), LINEAR.N
    x = N * (q - 1) + 2 * (1 << 28) * N * (q - 1) + 2 * found.Mu * N * N * (q - 1) + (N << 62) + found.M0
    assert (x << (2 * KAPPA)) + (1 << (KAPPA + 1)) * found.B4 * (1 + q) <= found.no_wrap
    assert found.no_wrap == check_no_wrap(
        N * q * (1 + (2 << 28) + 2 * found.Mu * N) + (N << 62) + max(found.M0, found.M1), found.B4, q
    )


def test_wrapping_numbers_are_refused_at_the_boundary() -> None:
    """Weights of b bits: accepted up to some b, refused from the next one on, and r lies between the two."""
    last = largest(lambda b: derive(b=b))
    assert derive(b=last).no_wrap < ORDER <= 2 * derive(b=last).no_wrap
    with pytest.raises(VerificationFailed, match="no-wrap"):
        derive(b=last + 1)
    last = largest(lambda b: derive(b_bias=b))
    with pytest.raises(VerificationFailed, match="no-wrap"):
        derive(b_bias=last + 1)


def test_4_M_below_Q(monkeypatch: pytest.MonkeyPatch) -> None:
    """One prime and a coarse grid: M0 near 2^51 with Q = 2^36 proves nothing about residues mod Q."""
    single = replace(LINEAR, name="one-prime", primes=LINEAR.primes[:1])
    with pytest.raises(VerificationFailed, match=r"bounds\.modulus"):
        derive(single)
    assert 4 * max(derive().M0, derive().M1) < LINEAR.Q
    # And just at the boundary: Q = 4 M0 is refused, Q = 4 M0 + 1 is not.
    M0 = derive().M0

    class Fixed(ParameterSet):
        modulus = 0

        @property
        def Q(self) -> int:
            return self.modulus

    edge = Fixed("edge", LINEAR.N, LINEAR.primes, LINEAR.special_prime, LINEAR.SX, LINEAR.SW)
    Fixed.modulus = 4 * M0
    with pytest.raises(VerificationFailed, match=r"bounds\.modulus"):
        derive(edge)
    Fixed.modulus = 4 * M0 + 1
    derive(edge)


def test_4_M_prime_below_r(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds_module, "check_no_wrap", lambda *_: 0)
    Mu = derive().Mu
    monkeypatch.setattr(bounds_module, "ORDER", 4 * Mu)
    with pytest.raises(VerificationFailed, match=r"bounds\.modulus"):
        derive()
    monkeypatch.setattr(bounds_module, "ORDER", 4 * Mu + 1)
    derive()


def test_primes_that_a_t4_challenge_could_be_a_multiple_of_are_refused() -> None:
    for q in (1 << KAPPA, 12289):
        with pytest.raises(UsageError, match="data prime"):
            derive(replace(LINEAR, primes=(LINEAR.primes[0], q)))


def test_few_patients_leave_room_for_more_blur() -> None:
    assert derive(published=1).f > derive(published=569).f > derive().f == 25


def test_absurd_bit_sizes_are_refused_before_any_number_is_made_of_them() -> None:
    for changes in ({"b": 1 << 53}, {"b_bias": 1 << 53}, {"b": 257}, {"b_bias": 257}):
        with pytest.raises(UsageError, match="impossible shape"):
            derive(**changes)
