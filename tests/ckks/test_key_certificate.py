"""Key certificates: what they accept, what they bind, and that nothing else gets through.

Most tests use a ring of degree 64 with the real primes, where a verification takes milliseconds.
"""

from __future__ import annotations

import dataclasses
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.ckks import key_certificate
from privacy.ckks.key_certificate import (
    PURPOSES,
    RHO4,
    KeyCertificate,
    KeyStatement,
    VerifiedKey,
    certify_key,
    derive_key_bounds,
    verify_key_certificate,
)
from privacy.ckks.keys import ClinicKeys, derive_p1
from privacy.ckks.params import ParameterSet, parameter_set
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.zk.group import ARKWORKS, ORDER, REFERENCE
from privacy.zk.pedersen import commitment_key
from privacy.zk.randomness import SecretStream
from privacy.zk.relations import KAPPA, T4_ROWS

REAL = parameter_set("linear-4096")
SMALL = replace(REAL, name="test-64", N=64)
CLINIC, NUMBER = "clinic-a", 7


def make_keys(params: ParameterSet, number: int = NUMBER) -> ClinicKeys:
    stream = SecretStream()
    return ClinicKeys(params, CLINIC, number, stream.ternary(params.N), stream.centred_binomial(params.N))


@pytest.fixture(scope="module")
def keys() -> ClinicKeys:
    return make_keys(SMALL)


@pytest.fixture(scope="module")
def certified(keys):
    return certify_key(SMALL, CLINIC, NUMBER, keys.public.p0, keys.s, keys.e_pk)


@pytest.fixture(scope="module")
def data(certified):
    return certified[0]


def check(keys, data, **changed):
    names = {"params": SMALL, "clinic": CLINIC, "number": NUMBER, "p0": keys.public.p0, **changed}
    return verify_key_certificate(names["params"], names["clinic"], names["number"], names["p0"], data)


# What is accepted, and what comes back


def test_an_honest_certificate_verifies_and_names_its_key(keys, data):
    verified = check(keys, data)
    assert (verified.params, verified.clinic, verified.number) == (SMALL, CLINIC, NUMBER)
    assert np.array_equal(verified.p0, keys.public.p0)
    assert np.array_equal(verified.p1, derive_p1(SMALL, CLINIC, NUMBER))
    assert len(verified.digest) == 32


def test_the_difference_of_the_two_commitments_opens_to_s(keys, certified):
    verified = check(keys, certified[0])
    openings = certified[1]
    C_s = ARKWORKS.add(verified.C_plus, ARKWORKS.negate(verified.C_minus))
    expected = commitment_key("key/s", SMALL.N).commit(
        keys.s.tolist(), (openings.rho_plus - openings.rho_minus) % ORDER
    )
    assert ARKWORKS.equal(C_s, expected)


def test_the_extreme_errors_that_the_statement_allows_can_be_certified(keys):
    e_pk = np.resize(np.array([-32, 31, 0, -1], dtype=np.int64), SMALL.N)
    p0 = (keys.public.p0.astype(np.int64) + e_pk - keys.e_pk) % np.array(SMALL.primes)[:, None]
    data, _ = certify_key(SMALL, CLINIC, NUMBER, p0.astype(np.uint64), keys.s, e_pk)
    check(keys, data, p0=p0.astype(np.uint64))


def test_both_curve_implementations_accept_and_refuse_alike():
    params = replace(REAL, name="test-8", N=8)
    keys = make_keys(params)
    data, _ = certify_key(params, CLINIC, NUMBER, keys.public.p0, keys.s, keys.e_pk)
    assert verify_key_certificate(params, CLINIC, NUMBER, keys.public.p0, data, REFERENCE).digest
    wrong = keys.public.p0.copy()
    wrong[0, 0] = (wrong[0, 0] + 1) % params.primes[0]
    with pytest.raises(VerificationFailed):
        verify_key_certificate(params, CLINIC, NUMBER, wrong, data, REFERENCE)


@pytest.mark.slow
def test_the_default_parameter_set_round_trips_within_the_promised_size():
    keys = make_keys(REAL)
    data, _ = certify_key(REAL, CLINIC, NUMBER, keys.public.p0, keys.s, keys.e_pk)
    assert len(data) < 1_100_000
    verify_key_certificate(REAL, CLINIC, NUMBER, keys.public.p0, data)
    p0 = keys.public.p0.copy()
    p0[1, 4095] ^= 1
    with pytest.raises(VerificationFailed):
        verify_key_certificate(REAL, CLINIC, NUMBER, p0, data)


# Hiding


def test_two_certificates_of_one_key_share_no_commitment_and_no_t4_value(keys, data):
    other, _ = certify_key(SMALL, CLINIC, NUMBER, keys.public.p0, keys.s, keys.e_pk)
    left, right = (KeyCertificate.decode(SMALL, x) for x in (data, other))
    for name in ("C_plus", "C_minus", "C_e", "C_K"):
        assert not ARKWORKS.equal(getattr(left, name), getattr(right, name))
    assert not set(left.xi) & set(right.xi)


def test_t4_values_near_the_bound_are_never_published_and_restarts_commit_anew(keys, monkeypatch):
    """With masks only twice the honest value most attempts must be thrown away."""
    monkeypatch.setattr(key_certificate, "RHO4", 2)
    bounds = derive_key_bounds(SMALL)
    assert bounds.B4 // bounds.honest4 == 2
    absorbed = []
    original = key_certificate._absorb_points

    def spy(transcript, group, **points):
        absorbed.extend(group.encode(point) for point in points.values())
        original(transcript, group, **points)

    monkeypatch.setattr(key_certificate, "_absorb_points", spy)
    data, _ = certify_key(SMALL, CLINIC, NUMBER, keys.public.p0, keys.s, keys.e_pk)
    assert all(abs(x) <= bounds.B4 - bounds.honest4 for x in KeyCertificate.decode(SMALL, data).xi)
    assert len(absorbed) == len(set(absorbed))
    check(keys, data)


def test_openings_do_not_show_themselves(certified):
    assert repr(certified[1]) == "KeyOpenings()"


# Every public input is bound


def altered(statement: KeyStatement, name: str) -> KeyStatement:
    def bump(array):
        changed = array.copy()
        changed[1, 5] = (changed[1, 5] + 1) % SMALL.primes[1]
        return changed

    changes = {
        "params": replace(SMALL, weight_scale_bits=SMALL.weight_scale_bits + 1),
        "clinic": "clinic-b",
        "number": NUMBER + 1,
        "p0": bump(statement.p0),
        "p1": bump(statement.p1),
        "purposes": (PURPOSES[1], PURPOSES[0], PURPOSES[2]),
    }
    return replace(statement, **{name: changes[name]})


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(KeyStatement)])
def test_altering_any_field_of_the_statement_changes_the_challenge_and_is_refused(keys, data, name):
    statement = KeyStatement(SMALL, CLINIC, NUMBER, keys.public.p0, derive_p1(SMALL, CLINIC, NUMBER))
    changed = altered(statement, name)
    assert statement.transcript().digest() != changed.transcript().digest()
    certificate = KeyCertificate.decode(SMALL, data)
    certificate.verify(statement)
    with pytest.raises(VerificationFailed):
        certificate.verify(changed)


@pytest.mark.parametrize("field", ["name", "special_prime", "input_scale_bits", "weight_scale_bits"])
def test_every_part_of_the_parameter_set_is_bound(keys, data, field):
    value = "test-65" if field == "name" else getattr(SMALL, field) + 1
    with pytest.raises(VerificationFailed):
        check(keys, data, params=replace(SMALL, **{field: value}))


def test_primes_in_another_order_are_refused(keys, data):
    params = replace(SMALL, primes=SMALL.primes[::-1])
    p0 = keys.public.p0[::-1] % np.array(params.primes, dtype=np.uint64)[:, None]
    with pytest.raises(VerificationFailed):
        check(keys, data, params=params, p0=p0)


def test_a_certificate_serves_no_other_clinic_and_no_other_key_number(keys, data):
    for changed in ({"clinic": "clinic-b"}, {"number": NUMBER + 1}):
        with pytest.raises(VerificationFailed):
            check(keys, data, **changed)


def test_a_certificate_serves_no_other_p0(keys, data):
    for level, place, step in [(0, 0, 1), (1, 0, 1), (0, 63, -1), (1, 31, -1)]:
        p0 = keys.public.p0.astype(np.int64)
        p0[level, place] = (p0[level, place] + step) % SMALL.primes[level]
        with pytest.raises(VerificationFailed):
            check(keys, data, p0=p0.astype(np.uint64))


def test_residues_that_are_not_reduced_are_refused(keys, data):
    p0 = keys.public.p0.copy()
    p0[0, 3] += SMALL.primes[0]
    for bad in (p0, keys.public.p0.astype(np.int64), keys.public.p0[:, :63], keys.public.p0[:1]):
        with pytest.raises(VerificationFailed) as refused:
            check(keys, data, p0=bad)
        assert refused.value.check == "key.p0"


# Bytes


def test_decoding_is_the_inverse_of_encoding(data):
    assert KeyCertificate.decode(SMALL, data).encode(SMALL) == data


def test_mutated_bytes_are_refused_wherever_they_are(keys, data):
    rng = random.Random(20260)
    header = data.index(b"\n") + 1
    xi = header + 4 * 48
    named = [0, header - 1, *(header + 48 * i + j for i in range(4) for j in (0, 1, 47)), *range(xi, xi + 12)]
    spread = [rng.randrange(len(data)) for _ in range(60)] + [len(data) - 1, len(data) - 32, len(data) - 33]
    for place in named + spread:
        bad = bytearray(data)
        bad[place] ^= 1 << rng.randrange(8)
        with pytest.raises((DecodeError, VerificationFailed)):
            check(keys, bytes(bad))


def test_cut_and_lengthened_bytes_are_refused(data):
    for bad in (b"", data[:-1], data[:100], data + b"\0", data + data, data[1:]):
        with pytest.raises(DecodeError):
            KeyCertificate.decode(SMALL, bad)


def test_scalars_that_are_not_reduced_are_refused(data):
    tau = int.from_bytes(data[-32:], "little")
    for value in (ORDER, 2**256 - 1, *([tau + ORDER] if tau + ORDER < 2**256 else [])):
        with pytest.raises(DecodeError):
            KeyCertificate.decode(SMALL, data[:-32] + value.to_bytes(32, "little"))


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_decoded_exactly_or_refused(junk):
    for candidate in (junk, b"sealproof/v1/key-certificate\n" + junk):
        with pytest.raises(DecodeError):
            KeyCertificate.decode(SMALL, candidate)


def test_a_certificate_of_another_ring_is_refused(data):
    with pytest.raises(DecodeError):
        KeyCertificate.decode(replace(SMALL, N=32), data)


# The prover refuses what is no key


def test_the_prover_refuses_a_pair_that_is_no_key(keys):
    p0, s, e_pk = keys.public.p0, keys.s, keys.e_pk
    big_s, big_e, small_e = s.copy(), e_pk.copy(), e_pk.copy()
    big_s[0], big_e[0], small_e[0] = 2, 32, -33
    other_p0 = p0.copy()
    other_p0[1, 9] = (other_p0[1, 9] + 1) % SMALL.primes[1]
    attempts = [(p0, big_s, e_pk), (p0, s, big_e), (p0, s, small_e), (other_p0, s, e_pk), (p0, -s, e_pk)]
    attempts += [(p0, s[:10], e_pk), (p0, s.astype(np.int32), e_pk), (p0 + SMALL.primes[1], s, e_pk)]
    for attempt in attempts:
        with pytest.raises(UsageError):
            certify_key(SMALL, CLINIC, NUMBER, *attempt)
    with pytest.raises(UsageError):
        certify_key(SMALL, CLINIC, NUMBER + 1, p0, s, e_pk)


# What only the verifier makes


def test_nobody_else_makes_a_verified_key(keys, data):
    verified = check(keys, data)
    fields = {f.name: getattr(verified, f.name) for f in dataclasses.fields(verified)}
    with pytest.raises(UsageError):
        VerifiedKey(**fields, made_by=object())
    with pytest.raises(TypeError):
        VerifiedKey(**fields)
    with pytest.raises((ValueError, TypeError)):
        replace(verified, clinic="clinic-b")


def test_a_verified_key_does_not_change_with_the_array_it_came_from(keys, data):
    p0 = keys.public.p0.copy()
    verified = check(keys, data, p0=p0)
    p0[:] = 0
    assert np.array_equal(verified.p0, keys.public.p0)
    with pytest.raises(ValueError, match="read-only"):
        verified.p0[0, 0] = 1


# Derived bounds


def test_bounds_are_the_documented_ones_at_the_default_set():
    bounds = derive_key_bounds(REAL)
    assert bounds.rows == (4, 4)
    assert all(q**n >= 2**136 > q ** (n - 1) for q, n in zip(REAL.primes, bounds.rows, strict=True))
    assert bounds.quotient == 135169
    assert bounds.x_max == bounds.quotient * max(REAL.primes)
    assert bounds.B4 == 1024 * (2**34 - 1) * 8 * 135169
    assert bounds.no_wrap.bit_length() < 170


def test_the_no_wrap_condition_is_tight_at_its_boundary():
    def left_side(q: int) -> int:
        multiple = 1 + 64 * 33
        B4 = RHO4 * (2**KAPPA - 1) * multiple
        return 2 ** (2 * KAPPA) * multiple * q + 2 ** (KAPPA + 1) * B4 * (1 + q)

    low, high = 2**136, 2**200  # one row a prime, so that only q moves
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if left_side(middle) < ORDER else (low, middle)
    assert derive_key_bounds(replace(SMALL, primes=(low,))).no_wrap == left_side(low)
    with pytest.raises(VerificationFailed, match="no-wrap"):
        derive_key_bounds(replace(SMALL, primes=(high,)))


def test_primes_that_a_t4_challenge_could_divide_by_are_refused():
    with pytest.raises(VerificationFailed) as refused:
        derive_key_bounds(replace(SMALL, primes=(SMALL.primes[0], 2**34 - 41)))
    assert refused.value.check == "key.primes"


def test_five_rows_are_published(data):
    assert len(KeyCertificate.decode(SMALL, data).xi) == T4_ROWS == 5
