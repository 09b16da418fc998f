"""Proof X over copies is proof X of the large system, with every copy bound apart and every message needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from random import Random
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.zk import copies as module
from privacy.zk.copies import (
    CopyProof,
    CopyStatement,
    CopySystem,
    Opening,
    check_openings,
    encoded_size,
    mask_coefficients,
    prove_copies,
    split,
)
from privacy.zk.group import ARKWORKS, ORDER, REFERENCE
from privacy.zk.pedersen import commitment_key
from privacy.zk.quadratic import QuadraticSystem
from privacy.zk.transcript import Transcript
from privacy.zk.wire import Reader

SEGMENTS, COMMON = (2, 4), (1, 2)
LOCAL, ALL = sum(SEGMENTS), sum(SEGMENTS) + sum(COMMON)


def start() -> Transcript:
    return Transcript(b"test")


def system_of(with_common: bool = True) -> CopySystem:
    """Per copy b0, b1 | p, q, r, y and in common u | t, s: bits, q = u + 4 b0, r = p q, y = p t + b1, s = t t.

    Without common segments u = 3 and t = 5 are constants.
    """
    system = QuadraticSystem(ALL if with_common else LOCAL)
    b0, b1, p, q, r, y, u, t, s = range(ALL)
    system.add_bits(b0, 2)
    system.add([(p, q, 1)], [(r, -1)])
    if with_common:
        system.add(linear=[(u, 1), (b0, 4), (q, -1)])
        system.add([(p, t, 1)], [(b1, 1), (y, -1)])
        system.add([(t, t, 1)], [(s, -1)])
    else:
        system.add(linear=[(b0, 4), (q, -1)], constant=3)
        system.add(linear=[(p, 5), (b1, 1), (y, -1)])
    return CopySystem(system, SEGMENTS, COMMON if with_common else ())


def copy_of(draw: Random) -> list[list[int]]:
    b0, b1, p = draw.randrange(2), draw.randrange(2), draw.randrange(1, 1000)
    q = 3 + 4 * b0
    return [[b0, b1], [p, q, p * q, 5 * p + b1]]


@dataclass(frozen=True)
class Made:
    """A statement, its proof, and the secrets behind both."""

    statement: CopyStatement
    proof: CopyProof
    witnesses: list[list[list[int]]]
    blindings: list[list[int]]
    common: list[list[int]]
    common_blindings: list[int]

    def prove_again(self) -> CopyProof:
        return prove_copies(start(), self.statement, self.witnesses, self.blindings, self.common, self.common_blindings)


def make(
    copies: int = 3,
    with_common: bool = True,
    change: Callable[[list[list[list[int]]], list[list[int]]], object] = lambda *_: None,
    system: CopySystem | None = None,
    seed: int = 1,
) -> Made:
    """An honest statement, or one about a witness that `change` has altered."""
    draw = Random(seed)
    system = system or system_of(with_common)
    keys = tuple(commitment_key(f"test/copy{i}", n) for i, n in enumerate(SEGMENTS))
    common_keys = tuple(commitment_key(f"test/common{i}", n) for i, n in enumerate(system.common))
    witnesses = [copy_of(draw) for _ in range(copies)]
    common = [[3], [5, 25]] if with_common else []
    change(witnesses, common)
    rhos = [[draw.randrange(ORDER) for _ in keys] for _ in witnesses]
    common_rhos = [draw.randrange(ORDER) for _ in common_keys]
    statement = CopyStatement(
        system,
        keys,
        tuple(
            tuple(key.commit([x % ORDER for x in v], rho) for key, v, rho in zip(keys, copy, row, strict=True))
            for copy, row in zip(witnesses, rhos, strict=True)
        ),
        common_keys,
        tuple(key.commit(v, rho) for key, v, rho in zip(common_keys, common, common_rhos, strict=True)),
    )
    proof = prove_copies(start(), statement, witnesses, rhos, common, common_rhos)
    return Made(statement, proof, witnesses, rhos, common, common_rhos)


def careless() -> Any:
    return mock.patch.object(QuadraticSystem, "violated", lambda self, witness: None)


def decode(data: bytes, made: Made) -> CopyProof:
    reader = Reader("proof", data)
    proof = CopyProof.read(reader, ARKWORKS, made.statement.system, len(made.statement.commitments))
    reader.end()
    return proof


@pytest.fixture(scope="module")
def made() -> Made:
    return make()


@pytest.mark.parametrize("with_common", [True, False], ids=["common", "no common"])
@pytest.mark.parametrize("copies", [1, 2, 5])
def test_true_statements_verify_and_round_trip_in_the_stated_size(copies: int, with_common: bool) -> None:
    made = make(copies, with_common)
    made.proof.verify(start(), made.statement)
    data = made.proof.encode(ARKWORKS)
    assert len(data) == made.statement.system.proof_size(copies)
    assert len(data) == encoded_size(SEGMENTS, COMMON if with_common else (), copies)
    again = decode(data, made)
    assert again.encode(ARKWORKS) == data
    again.verify(start(), made.statement)


def test_the_reference_group_verifies_and_refuses(made: Made) -> None:
    small = make(2)
    about, data = small.statement, small.proof.encode(ARKWORKS)

    def moved(point: Any) -> Any:
        return REFERENCE.decode(ARKWORKS.encode(point))

    statement = CopyStatement(
        about.system,
        tuple(commitment_key(f"test/copy{i}", n, REFERENCE) for i, n in enumerate(SEGMENTS)),
        tuple(tuple(map(moved, copy)) for copy in about.commitments),
        tuple(commitment_key(f"test/common{i}", n, REFERENCE) for i, n in enumerate(COMMON)),
        tuple(map(moved, about.common_commitments)),
    )
    proof = CopyProof.read(Reader("proof", data), REFERENCE, about.system, 2)
    proof.verify(start(), statement)
    with pytest.raises(VerificationFailed):
        replace(proof, tau=(proof.tau + 1) % ORDER).verify(start(), statement)


# -- the same as the large system -------------------------------------------------------------------------------------


def naive(system: CopySystem, copies: int) -> QuadraticSystem:
    """Every constraint written down once a copy, over all coordinates: copy by copy, then the common ones."""
    large = QuadraticSystem(copies * system.local_size + system.common_size)
    for p in range(copies):

        def place(i: int, p: int = p) -> int:
            of_copy = i < system.local_size
            return p * system.local_size + i if of_copy else (copies - 1) * system.local_size + i

        for quadratic, linear, constant in system.system._constraints:
            large.add([(place(i), place(j), c) for i, j, c in quadratic], [(place(i), c) for i, c in linear], constant)
    return large


@pytest.mark.parametrize("with_common", [True, False], ids=["common", "no common"])
@pytest.mark.parametrize("copies", [1, 2, 5])
def test_the_folded_form_is_that_of_the_large_system(copies: int, with_common: bool) -> None:
    draw = Random(copies)
    system = system_of(with_common)
    large = naive(system, copies)
    assert len(large) == copies * len(system.system)
    zeta, c = draw.randrange(ORDER), draw.randrange(ORDER)
    z = [[draw.randrange(ORDER) for _ in range(system.local_size)] for _ in range(copies)]
    v = [[draw.randrange(ORDER) for _ in range(system.local_size)] for _ in range(copies)]
    w, y = ([draw.randrange(ORDER) for _ in range(system.common_size)] for _ in range(2))
    form, large_form = system.system.fold(zeta), large.fold(zeta)

    def flat(parts: list[list[int]], common: list[int]) -> list[int]:
        return [x for part in parts for x in part] + common

    proof = replace(make(copies, with_common).proof, responses=tuple(map(tuple, z)), common_responses=tuple(w))
    assert proof.folded_value(system, form, zeta, c) == large_form.evaluate(flat(z, w), c)
    weights = system.copy_weights(zeta, copies)
    found = [mask_coefficients(form, (*a, *w), (*x, *y)) for a, x in zip(z, v, strict=True)]
    for place, expected in enumerate(mask_coefficients(large_form, flat(z, w), flat(v, y))):
        assert sum(g * pair[place] for g, pair in zip(weights, found, strict=True)) % ORDER == expected


def test_no_two_constraints_have_one_power_of_zeta() -> None:
    system = system_of()
    step, zeta = len(system.system), 7
    powers = [w * pow(zeta, e, ORDER) % ORDER for w in system.copy_weights(zeta, 9) for e in range(step)]
    assert powers == [pow(zeta, e, ORDER) for e in range(9 * step)]


# -- soundness --------------------------------------------------------------------------------------------------------


def every_element(value: Any) -> list[tuple[int, ...]]:
    """Where the elements of a field are: nested tuples."""
    if not isinstance(value, tuple):
        return [()]
    return [(i, *rest) for i, part in enumerate(value) for rest in every_element(part)]


def altered(value: Any, where: tuple[int, ...], H: Any) -> Any:
    if where:
        i, *rest = where
        return (*value[:i], altered(value[i], tuple(rest), H), *value[i + 1 :])
    return (value + 1) % ORDER if isinstance(value, int) else ARKWORKS.add(value, H)


@pytest.mark.parametrize("name", [field.name for field in fields(CopyProof)])
def test_every_element_of_every_field_matters(made: Made, name: str) -> None:
    value, H = getattr(made.proof, name), made.statement.keys[0].blinding
    places = every_element(value)
    assert places
    for where in places:
        with pytest.raises(VerificationFailed):
            replace(made.proof, **{name: altered(value, where, H)}).verify(start(), made.statement)


def test_exchanged_messages_are_refused(made: Made) -> None:
    proof = made.proof
    for bad in (
        replace(proof, masks=proof.masks[::-1]),
        replace(proof, responses=proof.responses[::-1]),
        replace(proof, blindings=proof.blindings[::-1]),
        replace(proof, T0=proof.T1, T1=proof.T0),
        replace(proof, masks=proof.masks[::-1], responses=proof.responses[::-1], blindings=proof.blindings[::-1]),
    ):
        with pytest.raises(VerificationFailed):
            bad.verify(start(), made.statement)


LIES = [(copy, segment, place) for copy in (0, 2) for segment, size in enumerate(SEGMENTS) for place in range(size)]


@pytest.mark.parametrize(("copy", "segment", "place"), LIES)
def test_a_false_coordinate_of_one_copy_is_refused_by_prover_and_verifier(copy: int, segment: int, place: int) -> None:
    def change(witnesses: list[list[list[int]]], common: list[list[int]]) -> None:
        witnesses[copy][segment][place] += 1 + (segment == 0)

    with pytest.raises(UsageError, match="breaks constraint"):
        make(change=change)
    with careless():
        false = make(change=change)
    with pytest.raises(VerificationFailed, match=r"quadratic\.relation"):
        false.proof.verify(start(), false.statement)


@pytest.mark.parametrize(("segment", "place"), [(0, 0), (1, 0), (1, 1)])
def test_a_false_common_coordinate_is_refused_by_prover_and_verifier(segment: int, place: int) -> None:
    def change(witnesses: list[list[list[int]]], common: list[list[int]]) -> None:
        common[segment][place] += 1

    with pytest.raises(UsageError, match="breaks constraint"):
        make(change=change)
    with careless():
        false = make(change=change)
    with pytest.raises(VerificationFailed, match=r"quadratic\.relation"):
        false.proof.verify(start(), false.statement)


def test_violations_in_two_copies_do_not_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    """r = p q + 1 in one copy and p q - 1 in another: with one weight for all copies their sum is zero."""

    def change(witnesses: list[list[list[int]]], common: list[list[int]]) -> None:
        witnesses[0][1][2] += 1
        witnesses[1][1][2] -= 1

    with careless():
        false = make(change=change)
        with pytest.raises(VerificationFailed, match=r"quadratic\.relation"):
            false.proof.verify(start(), false.statement)
        monkeypatch.setattr(CopySystem, "copy_weights", lambda self, zeta, copies: [1] * copies)
        weak = make(change=change)
    weak.proof.verify(start(), weak.statement)


def test_two_copies_do_not_share_powers_of_zeta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights 1, zeta, zeta^2 for the copies would give constraint e + 1 of one copy that of e of the next."""

    def change(witnesses: list[list[list[int]]], common: list[list[int]]) -> None:
        # Constraint 4, y = p t + b1, is off by -1 in copy 0; constraint 3, q = u + 4 b0, by 1 in copy 1.
        witnesses[0][1][3] += 1
        p, _, r, _ = witnesses[1][1]
        witnesses[1][1][1] -= 1
        witnesses[1][1][2] = r - p

    def weights(self: CopySystem, zeta: int, copies: int) -> list[int]:
        return [pow(zeta, p, ORDER) for p in range(copies)]

    with careless():
        false = make(2, change=change)
        with pytest.raises(VerificationFailed, match=r"quadratic\.relation"):
            false.proof.verify(start(), false.statement)
        monkeypatch.setattr(CopySystem, "copy_weights", weights)
        weak = make(2, change=change)
    weak.proof.verify(start(), weak.statement)


def openings(made: Made, c: int = 5) -> list[Opening]:
    """Three right openings under one key."""
    key = made.statement.keys[0]
    values = [([k + 1, 2], k + 3, [7, k], 11 * k + 1) for k in range(3)]
    return [
        Opening(key, key.commit(v, rho), key.commit(a, s), [x + c * y for x, y in zip(a, v, strict=True)], s + c * rho)
        for v, rho, a, s in values
    ]


def test_false_openings_that_cancel_in_a_plain_sum_are_refused(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verifier may add openings up under weights that the prover does not know, and under no others."""
    good = openings(made)
    check_openings(good, 5)
    first, second, third = good
    false = [
        replace(first, responses=[first.responses[0] + 9, first.responses[1]]),
        replace(second, responses=[second.responses[0] - 9, second.responses[1]]),
        third,
    ]
    with pytest.raises(VerificationFailed, match=r"quadratic\.opening"):
        check_openings(false, 5)
    with monkeypatch.context() as weakened:
        weakened.setattr(module.secrets, "randbits", lambda bits: 1)
        check_openings(false, 5)
    for place in range(3):
        one = list(good)
        one[place] = replace(one[place], blinding=one[place].blinding + 1)
        with pytest.raises(VerificationFailed, match=r"quadratic\.opening"):
            check_openings(one, 5)


def test_the_weights_of_a_verifier_are_fresh_and_wide(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int, int]] = []
    original = module.secrets.randbits
    monkeypatch.setattr(
        module.secrets,
        "randbits",
        lambda bits: drawn.append((bits, original(bits))) or drawn[-1][1],  # type: ignore[func-returns-value]
    )
    for _ in range(2):
        made.proof.verify(start(), made.statement)
    assert {bits for bits, _ in drawn} == {128}
    assert len(drawn) == len({value for _, value in drawn}) == 2 * (3 * 2 + 2 - 1)


def test_first_messages_made_after_the_challenge_prove_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """With c in hand, A and T0 follow from arbitrary responses. So c must depend on them."""

    def change(witnesses: list[list[list[int]]], common: list[list[int]]) -> None:
        witnesses[0][0][0] = 7

    with careless():
        false = make(2, change=change)
    system, keys = false.statement.system, false.statement.keys

    def forge() -> CopyProof:
        transcript = start()
        false.statement.absorb(transcript)
        zeta = transcript.challenge_scalar(b"zeta")
        c = transcript.challenge_scalar(b"c")  # too early
        proof = replace(false.proof, responses=tuple((i,) * LOCAL for i in (3, 4)), common_responses=(1, 2, 3), tau=13)

        def masks(commitments: Any, own: Any, sizes: Any, values: Any, rhos: Any) -> Any:
            parts = zip(own, commitments, split(values, sizes), rhos, strict=True)
            return tuple(ARKWORKS.add(k.commit(z, r), ARKWORKS.multiply(C, -c)) for k, C, z, r in parts)

        rows = zip(false.statement.commitments, proof.responses, proof.blindings, strict=True)
        key = module.scalar_commitment_key(ARKWORKS)
        value = proof.folded_value(system, system.system.fold(zeta), zeta, c)
        T0 = ARKWORKS.add(key.commit([value], proof.tau), ARKWORKS.multiply(proof.T1, -c))
        return replace(
            proof,
            masks=tuple(masks(C, keys, SEGMENTS, z, r) for C, z, r in rows),
            common_masks=masks(
                false.statement.common_commitments,
                false.statement.common_keys,
                COMMON,
                proof.common_responses,
                proof.common_blindings,
            ),
            T0=T0,
        )

    with pytest.raises(VerificationFailed):
        forge().verify(start(), false.statement)
    monkeypatch.setattr(module, "absorb_first_messages", lambda *_: None)
    forge().verify(start(), false.statement)


# -- statements -------------------------------------------------------------------------------------------------------


def test_a_proof_is_of_its_commitments_in_their_order_and_conversation(made: Made) -> None:
    about, other = made.statement, make(seed=2).statement
    for statement in (
        replace(about, commitments=about.commitments[::-1]),
        replace(about, commitments=(other.commitments[0], *about.commitments[1:])),
        replace(about, common_commitments=other.common_commitments),
        replace(about, keys=tuple(commitment_key(f"test/other{i}", n) for i, n in enumerate(SEGMENTS))),
    ):
        with pytest.raises(VerificationFailed):
            made.proof.verify(start(), statement)
    with pytest.raises(VerificationFailed):
        made.proof.verify(Transcript(b"other"), about)


def test_a_proof_of_fewer_constraints_does_not_serve_more(made: Made) -> None:
    system = system_of()
    system.system.add(linear=[(0, 1)], constant=-1)
    with pytest.raises(VerificationFailed, match=r"quadratic\.relation"):
        made.proof.verify(start(), replace(made.statement, system=system))


@pytest.mark.parametrize("copies", [1, 2, 4])
def test_a_proof_of_some_copies_does_not_serve_others(made: Made, copies: int) -> None:
    about = made.statement
    statement = replace(about, commitments=(about.commitments * 2)[:copies])
    with pytest.raises(UsageError, match="another statement"):
        made.proof.verify(start(), statement)
    reader = Reader("proof", made.proof.encode(ARKWORKS))
    with pytest.raises(DecodeError):
        CopyProof.read(reader, ARKWORKS, about.system, copies)
        reader.end()


@pytest.mark.parametrize("name", ["masks", "responses", "blindings", "common_masks", "common_blindings"])
def test_a_proof_with_a_part_missing_is_refused(made: Made, name: str) -> None:
    value = getattr(made.proof, name)
    for shorter in (value[1:], (), *([(value[0][1:], *value[1:])] if isinstance(value[0], tuple) else [])):
        with pytest.raises(UsageError, match="another statement"):
            replace(made.proof, **{name: shorter}).verify(start(), made.statement)


def test_shapes_that_do_not_fit_are_refused(made: Made) -> None:
    about = made.statement
    with pytest.raises(UsageError, match="coordinates"):
        CopySystem(QuadraticSystem(ALL + 1), SEGMENTS, COMMON)
    with pytest.raises(UsageError, match="keys"):
        replace(about, keys=about.keys[::-1])
    with pytest.raises(UsageError, match="keys"):
        replace(about, common_keys=about.common_keys[:1], common_commitments=about.common_commitments[:1])
    with pytest.raises(UsageError, match="at least one copy"):
        replace(about, commitments=())
    with pytest.raises(UsageError, match="each of its segments"):
        replace(about, commitments=(about.commitments[0][:1],))
    with pytest.raises(UsageError, match="common segments"):
        replace(about, common_commitments=())
    with pytest.raises(UsageError, match="coordinates for segments"):
        split([1, 2, 3], (1, 1))


def test_a_witness_of_another_shape_is_refused(made: Made) -> None:
    def refused(witnesses: Any, blindings: Any, common: Any) -> None:
        with pytest.raises(UsageError, match="shape"):
            prove_copies(start(), made.statement, witnesses, blindings, common, made.common_blindings)

    refused(made.witnesses[:2], made.blindings[:2], made.common)
    refused([[[*v[0], 0], v[1]] for v in made.witnesses], made.blindings, made.common)
    refused([[v[1], v[0]] for v in made.witnesses], made.blindings, made.common)
    refused(made.witnesses, made.blindings, made.common[:1])


# -- encoding and hiding ----------------------------------------------------------------------------------------------


def test_masks_are_never_reused_and_copies_have_their_own(made: Made) -> None:
    again = made.prove_again()
    values = [z for copy in made.proof.responses for z in copy]
    assert len(set(values)) == len(values)
    assert not set(values) & {z for copy in again.responses for z in copy}
    points = [ARKWORKS.encode(A) for proof in (made.proof, again) for copy in proof.masks for A in copy]
    assert len(set(points)) == len(points)


def test_equal_copies_look_different() -> None:
    def change(witnesses: list[list[list[int]]], common: list[list[int]]) -> None:
        witnesses[1] = witnesses[0]

    same = make(2, change=change)
    assert not set(same.proof.responses[0]) & set(same.proof.responses[1])


@settings(max_examples=80, deadline=None)
@given(place=st.integers(0, 10**6), change=st.integers(1, 255))
def test_no_altered_byte_survives(made: Made, place: int, change: int) -> None:
    data = bytearray(made.proof.encode(ARKWORKS))
    data[place % len(data)] ^= change
    with pytest.raises((DecodeError, VerificationFailed)):
        decode(bytes(data), made).verify(start(), made.statement)


def test_other_spellings_and_lengths_are_refused(made: Made) -> None:
    data = made.proof.encode(ARKWORKS)
    points = 48 * (3 * len(SEGMENTS) + len(COMMON) + 2)
    for place in (0, 48, points - 48):
        for bad in (b"\xc0" + bytes(47), bytes(48), b"\xff" * 48):  # the identity, no flag, not reduced
            with pytest.raises(DecodeError):
                decode(data[:place] + bad + data[place + 48 :], made)
    for place in range(points, len(data), 32):
        value = int.from_bytes(data[place : place + 32], "little")
        if value + ORDER < 1 << 256:
            with pytest.raises(DecodeError, match="group order"):
                decode(data[:place] + (value + ORDER).to_bytes(32, "little") + data[place + 32 :], made)
    for end in [*accumulate([48] * 3), points, len(data) - 32, len(data) - 1]:
        with pytest.raises(DecodeError, match="truncated"):
            decode(data[:end], made)
    with pytest.raises(DecodeError, match="too many"):
        decode(data + b"\0", made)
