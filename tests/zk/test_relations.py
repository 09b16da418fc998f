"""T1 opens linear forms and hides everything else; T2's condition and the rows of T4 to T6."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.ckks.params import PARAMETER_SETS
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.zk import relations
from privacy.zk.group import ARKWORKS, ORDER
from privacy.zk.pedersen import commitment_key
from privacy.zk.randomness import SecretStream, random_scalar
from privacy.zk.relations import (
    KAPPA,
    T4_ROWS,
    J,
    LinearProof,
    LinearSegment,
    Run,
    check_no_wrap,
    inner,
    prove_linear,
    ternary_rows,
)
from privacy.zk.transcript import Transcript
from privacy.zk.wire import Reader

RUNS = ((Run(4, 1), Run(3, 1 << 44), Run(2, 1 << 97)), (Run(2, None),))
WITNESS = ([1, -1, 0, 1, 1 << 44, -(1 << 44), 5, 1 << 97, -(1 << 97)], [ORDER - 3, 7])


@pytest.fixture(scope="module")
def keys() -> list:
    return [commitment_key("test/first", 9), commitment_key("test/second", 2)]


@pytest.fixture(scope="module")
def statement(keys) -> tuple:
    """Segments, alphas, beta and blindings of a true statement."""
    blindings = [random_scalar(), random_scalar()]
    segments = [
        LinearSegment(key, key.commit(v, rho), runs)
        for key, v, rho, runs in zip(keys, WITNESS, blindings, RUNS, strict=True)
    ]
    alphas = [SecretStream().scalars(9), SecretStream().scalars(2)]
    beta = sum(inner(a, v) for a, v in zip(alphas, WITNESS, strict=True)) % ORDER
    return segments, alphas, beta, blindings


def start() -> Transcript:
    return Transcript(b"test")


@pytest.fixture(scope="module")
def proof(statement) -> LinearProof:
    segments, alphas, beta, blindings = statement
    return prove_linear(start(), segments, alphas, beta, WITNESS, blindings)


def test_a_true_statement_verifies(statement, proof) -> None:
    segments, alphas, beta, _ = statement
    proof.verify(start(), segments, alphas, beta)


def test_prover_and_verifier_end_with_the_same_transcript(statement) -> None:
    segments, alphas, beta, blindings = statement
    ours, theirs = start(), start()
    prove_linear(ours, segments, alphas, beta, WITNESS, blindings).verify(theirs, segments, alphas, beta)
    assert ours.digest() == theirs.digest()


def test_encoding_has_the_announced_size_and_round_trips(proof) -> None:
    data = proof.encode(ARKWORKS, RUNS)
    assert len(data) == LinearProof.size(RUNS)
    reader = Reader("x", data)
    again = LinearProof.read(reader, ARKWORKS, RUNS)
    reader.end()
    assert again.encode(ARKWORKS, RUNS) == data


def test_a_false_statement_has_no_honest_proof(statement) -> None:
    segments, alphas, beta, blindings = statement
    with pytest.raises(UsageError, match="does not satisfy"):
        prove_linear(start(), segments, alphas, beta + 1, WITNESS, blindings)


@pytest.mark.parametrize("segment", [0, 1])
def test_every_coordinate_is_opened(statement, proof, segment: int) -> None:
    segments, alphas, beta, _ = statement
    for i in range(len(WITNESS[segment])):
        moved = [list(z) for z in proof.responses]
        moved[segment][i] += 1
        bad = replace(proof, responses=tuple(tuple(z) for z in moved))
        with pytest.raises(VerificationFailed, match=r"linear\.form"):
            bad.verify(start(), segments, alphas, beta)
        # Repaired in the form by another coordinate, it still does not open the commitment.
        free = [list(a) for a in alphas]
        free[segment][i] = 0
        with pytest.raises(VerificationFailed, match="linear"):
            bad.verify(start(), segments, free, beta)


def test_another_beta_alpha_commitment_or_history_is_refused(statement, proof) -> None:
    segments, alphas, beta, _ = statement
    with pytest.raises(VerificationFailed):
        proof.verify(start(), segments, alphas, (beta + 1) % ORDER)
    with pytest.raises(VerificationFailed):
        proof.verify(start(), segments, [[x + 1 for x in alphas[0]], alphas[1]], beta)
    other = replace(segments[0], commitment=ARKWORKS.add(segments[0].commitment, segments[0].key.points[0]))
    with pytest.raises(VerificationFailed):
        proof.verify(start(), [other, segments[1]], alphas, beta)
    with pytest.raises(VerificationFailed):
        proof.verify(Transcript(b"another"), segments, alphas, beta)


def test_other_public_bounds_are_another_statement(statement, proof) -> None:
    segments, alphas, beta, _ = statement
    looser = replace(segments[0], runs=(Run(4, 3), *RUNS[0][1:]))
    with pytest.raises(VerificationFailed):
        proof.verify(start(), [looser, segments[1]], alphas, beta)


@pytest.mark.parametrize("which", [0, 1])
def test_a_wrong_blinding_is_refused(statement, which: int) -> None:
    segments, alphas, beta, blindings = statement
    wrong = list(blindings)
    wrong[which] += 1
    proof = prove_linear(start(), segments, alphas, beta, WITNESS, wrong)
    with pytest.raises(VerificationFailed, match=r"linear\.opening"):
        proof.verify(start(), segments, alphas, beta)


def test_moving_a_first_message_or_t_is_refused(statement, proof) -> None:
    segments, alphas, beta, _ = statement
    A = ARKWORKS.add(proof.masks[0], segments[0].key.blinding)
    for bad in (
        replace(proof, t=(proof.t + 1) % ORDER),
        replace(proof, masks=(A, proof.masks[1])),
        replace(proof, masks=proof.masks[::-1]),
        # The blinding repaired for the moved A: the challenge has moved too.
        replace(proof, masks=(A, proof.masks[1]), blindings=((proof.blindings[0] + 1) % ORDER, proof.blindings[1])),
    ):
        with pytest.raises(VerificationFailed):
            bad.verify(start(), segments, alphas, beta)


def test_an_opening_of_the_sum_of_two_commitments_says_nothing_of_each(statement, monkeypatch) -> None:
    """Why segments stay apart: what was committed first can be moved by what was committed second."""
    # Whoever cheats runs a prover that does not check its own witness.
    monkeypatch.setattr(relations, "_check_bounds", lambda runs, v: None)
    segments, alphas, beta, blindings = statement
    first, second = segments
    shift = first.key.commit([1, *[0] * 8], 0)
    moved = [replace(first, commitment=first.commitment), replace(second, commitment=second.commitment)]
    moved[1] = replace(second, commitment=ARKWORKS.add(second.commitment, shift))
    changed = ([2, *WITNESS[0][1:]], WITNESS[1])
    beta = (beta + alphas[0][0]) % ORDER
    merged = LinearSegment(
        first.key + second.key,
        ARKWORKS.add(moved[0].commitment, moved[1].commitment),
        (*(replace(r, bound=None) for r in RUNS[0]), *RUNS[1]),
    )
    together = [*alphas[0], *alphas[1]]
    weak = prove_linear(start(), [merged], [together], beta, [[*changed[0], *changed[1]]], [sum(blindings)])
    weak.verify(start(), [merged], [together], beta)
    strong = prove_linear(start(), moved, alphas, beta, changed, blindings)
    with pytest.raises(VerificationFailed, match=r"linear\.opening"):
        strong.verify(start(), moved, alphas, beta)


def test_short_responses_lie_where_every_witness_could_put_them(statement) -> None:
    segments, alphas, beta, blindings = statement
    for _ in range(3):
        z = prove_linear(start(), segments, alphas, beta, WITNESS, blindings).responses[0]
        at = 0
        for run in RUNS[0]:
            if run.short:
                T = run.bound << 128
                assert all(T <= x < (1 << 8 * run.width) - T for x in z[at : at + run.count])
            at += run.count


def test_accepted_responses_do_not_depend_on_the_witness(monkeypatch) -> None:
    """Exhaustively, with a challenge of 4 bits: every witness gives each response of the interval exactly once."""
    monkeypatch.setattr(relations, "CHALLENGE_BITS", 4)
    monkeypatch.setattr(relations, "_SLACK_BITS", 2)
    run = Run(1, 3)
    assert run.width == 1
    seen = []
    for v in range(-3, 4):
        for c in (0, 7, 15):
            attempts = [relations._responses([run], [k], [v], c) for k in range(256)]
            seen.append(sorted(z[0] for z in attempts if z is not None))
    assert seen[0] == list(range(48, 256 - 48))
    assert all(accepted == seen[0] for accepted in seen)


def test_without_the_interval_a_response_at_the_edge_gives_the_witness_away(monkeypatch) -> None:
    """The weakened build: all responses in [0, 2^m) accepted. Then z < c v happens for v = 0 and never for v = 3."""
    monkeypatch.setattr(relations, "CHALLENGE_BITS", 4)
    monkeypatch.setattr(relations, "_SLACK_BITS", 2)
    run = Run(1, 3)
    low = {v: {k + 15 * v for k in range(256) if k + 15 * v < 45} for v in (0, 3)}
    assert low[0] and not low[3]
    assert all(relations._responses([run], [k], [0], 15) is None for k in low[0])


def test_a_restart_draws_masks_and_blindings_anew(statement, monkeypatch) -> None:
    segments, alphas, beta, blindings = statement
    original, calls, absorbed = relations._responses, [], []

    def refuse_once(runs, k, v, c):
        calls.append(list(k))
        return None if len(calls) == 1 else original(runs, k, v, c)

    challenge = relations._challenge

    def record(transcript, group, masks, t):
        absorbed.append([group.encode(m) for m in masks])
        return challenge(transcript, group, masks, t)

    monkeypatch.setattr(relations, "_responses", refuse_once)
    monkeypatch.setattr(relations, "_challenge", record)
    proof = prove_linear(start(), segments, alphas, beta, WITNESS, blindings)
    assert len(absorbed) >= 2
    assert not set(calls[0]) & set(calls[1])
    assert not set(absorbed[0]) & set(absorbed[1])
    monkeypatch.undo()
    # The verifier never sees the attempt that failed.
    proof.verify(start(), segments, alphas, beta)


def test_reused_masks_give_the_witness_away_and_ours_never_are(statement, monkeypatch) -> None:
    segments, alphas, beta, blindings = statement

    def two_proofs() -> list[tuple[LinearProof, int]]:
        out = []
        for label in (b"one", b"two"):
            transcript = Transcript(label)
            proof = prove_linear(transcript, segments, alphas, beta, WITNESS, blindings)
            twin = Transcript(label)
            relations._absorb_statement(twin, segments, beta)
            out.append((proof, relations._challenge(twin, ARKWORKS, proof.masks, proof.t)))
        return out

    def solve(pair: list[tuple[LinearProof, int]]) -> list[int]:
        (a, c), (b, e) = pair
        inverse = pow(c - e, -1, ORDER)
        return [(x - y) * inverse % ORDER for x, y in zip(a.responses[0], b.responses[0], strict=True)]

    wanted = [v % ORDER for v in WITNESS[0]]
    ours = two_proofs()
    assert not set(solve(ours)) & set(wanted)
    assert not set(ours[0][0].responses[0]) & set(ours[1][0].responses[0])
    fixed = {id(runs): relations._masks(SecretStream(), runs) for runs in RUNS}
    monkeypatch.setattr(relations, "_masks", lambda stream, runs: fixed[id(runs)])
    assert solve(two_proofs()) == wanted


def test_widths_follow_from_public_bounds() -> None:
    assert Run(1, None).width == 32
    assert Run(1, 1).width == 20
    assert (Run(1, 1).short, Run(1, None).short) == (True, False)
    for bits in range(1, 140):
        run = Run(1, (1 << bits) - 1)
        if run.short:
            # A response is below r as an integer, and the interval keeps all but 2^-22 of the masks.
            assert 1 << 8 * run.width < ORDER
            assert (run.bound << 129) << 23 <= 1 << 8 * run.width
        else:
            assert run.width == 32


def test_a_response_of_full_size_must_be_reduced(statement, proof) -> None:
    data = bytearray(proof.encode(ARKWORKS, RUNS))
    data[-32:] = ORDER.to_bytes(32, "little")
    with pytest.raises(DecodeError, match="group order"):
        LinearProof.read(Reader("x", bytes(data)), ARKWORKS, RUNS)


def test_a_response_at_its_width_cannot_be_written(proof) -> None:
    wide = list(proof.responses[0])
    wide[0] = 1 << 8 * RUNS[0][0].width
    with pytest.raises(OverflowError):
        replace(proof, responses=(tuple(wide), proof.responses[1])).encode(ARKWORKS, RUNS)


def test_runs_must_cover_the_key(keys) -> None:
    with pytest.raises(UsageError, match="cover"):
        LinearSegment(keys[0], keys[0].points[0], (Run(8, 1),))


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_flipped_bit_survives(statement, proof, place: int, bit: int) -> None:
    segments, alphas, beta, _ = statement
    data = bytearray(proof.encode(ARKWORKS, RUNS))
    data[place % len(data)] ^= 1 << bit
    with pytest.raises((DecodeError, VerificationFailed)):
        LinearProof.read(Reader("x", bytes(data)), ARKWORKS, RUNS).verify(start(), segments, alphas, beta)


def numbers_of_form(q: int) -> Iterator[tuple[int, int]]:
    """x_max just at the condition's edge for several B4."""
    for B4 in (1, 1 << 96, 1 << 150):
        yield B4, (ORDER - 1 - (1 << KAPPA + 1) * B4 * (1 + q)) // (1 << 2 * KAPPA)


def test_the_no_wrap_condition_at_its_boundary() -> None:
    q = 68719403009
    for B4, x_max in numbers_of_form(q):
        assert check_no_wrap(x_max, B4, q) < ORDER
        with pytest.raises(VerificationFailed, match="no-wrap"):
            check_no_wrap(x_max + 1, B4, q)
    assert check_no_wrap(0, (ORDER - 1) // ((1 << KAPPA + 1) * (1 + q)), q) < ORDER
    with pytest.raises(VerificationFailed, match="no-wrap"):
        check_no_wrap(0, (ORDER - 1) // ((1 << KAPPA + 1) * (1 + q)) + 1, q)


def test_statistical_masks_of_128_bits_would_wrap() -> None:
    """The trap: T4 masks 2^128 above the honest value break the condition for every parameter set."""
    for params in PARAMETER_SETS.values():
        honest = (1 << KAPPA) * J * (1 << 40)
        with pytest.raises(VerificationFailed, match="no-wrap"):
            check_no_wrap(1, honest << 128, max(params.primes))


def test_beyond_the_condition_a_false_equation_holds_by_wrapping() -> None:
    """X = 1 is no multiple of q, yet 1 = q K in F_r with K of 219 bits: only the bound on K tells."""
    q = 68719403009
    K = pow(q, -1, ORDER)
    assert (q * K - 1) % ORDER == 0
    assert K.bit_length() > 200
    with pytest.raises(VerificationFailed, match="no-wrap"):
        check_no_wrap(1, K, q)


def test_a_false_quotient_passes_one_row_with_wide_challenges_and_never_ours() -> None:
    """T4's trap: with K = e/q mod r, chi K is short exactly if q divides chi e."""
    q, e = 68719230977, 5
    K = e * pow(q, -1, ORDER) % ORDER
    centred = lambda x: (x + ORDER // 2) % ORDER - ORDER // 2  # noqa: E731
    lucky = 12345 * q  # a 128-bit challenge is a multiple of q once in 2^36
    assert lucky < 1 << 128
    assert centred(lucky * K) == 12345 * e
    for params in PARAMETER_SETS.values():
        assert all(p > 1 << KAPPA for p in params.primes)
    rng = np.random.default_rng(1)
    rows = [int(x) for x in rng.integers(1, 1 << KAPPA, 2000)]
    # chi e / q with chi e not a multiple of q is a fraction mod r: never below r / q in magnitude.
    assert min(abs(centred(chi * K)) for chi in rows) > ORDER // q // 2


def test_rows_are_ternary_with_the_stated_frequencies_and_follow_from_the_key() -> None:
    rows = ternary_rows(bytes(32), J, 4096)
    assert rows.shape == (J, 4096)
    frequencies = np.bincount(rows.reshape(-1) + 1) / rows.size
    assert np.allclose(frequencies, [0.25, 0.5, 0.25], atol=12 * 0.5 / rows.size**0.5)
    assert np.array_equal(rows, ternary_rows(bytes(32), J, 4096))
    other = ternary_rows(bytes([1] + [0] * 31), J, 4096)
    assert 0.3 < (rows == other).mean() < 0.45
    # Columns are independent: no correlation beyond twelve standard deviations.
    half = rows.astype(np.int64)
    assert abs(int((half[:, 0] * half[:, 1]).sum())) < 12 * J**0.5


@pytest.mark.parametrize("columns", [1, 3, 5])
def test_rows_of_odd_lengths_use_different_bits_for_the_two_halves(columns: int) -> None:
    rows = np.stack([ternary_rows(bytes([i] + [0] * 31), J, columns) for i in range(20)])
    frequencies = np.bincount(rows.reshape(-1) + 1, minlength=3) / rows.size
    assert np.allclose(frequencies, [0.25, 0.5, 0.25], atol=12 * 0.5 / rows.size**0.5)


@pytest.mark.parametrize("residue", [1, ORDER // 2, (ORDER + 1) // 2, ORDER - 1, 1 << 200])
def test_a_coordinate_out_of_range_escapes_a_ternary_row_at_most_half_the_time(residue: int) -> None:
    """T5 and T6: of x - v, x, x, x + v (each a quarter), no more than half fit into [-M, M] when |v| > 2 M."""
    M = 0 if residue in (1, ORDER - 1) else 1 << 100
    centred = lambda x: (x + ORDER // 2) % ORDER - ORDER // 2  # noqa: E731
    for x in (0, M, -M, M // 2, residue, -residue):
        outcomes = [centred(x + a * residue) for a in (-1, 0, 0, 1)]
        assert sum(abs(z) <= M for z in outcomes) <= 2


def test_the_number_of_rows_reaches_the_stated_error() -> None:
    assert J == 160
    assert T4_ROWS * KAPPA == 170


def test_a_prover_refuses_a_witness_beyond_its_public_bounds(statement) -> None:
    """Its responses would leave the interval in a way that depends on the witness."""
    segments, alphas, beta, blindings = statement
    beyond = ([2, *WITNESS[0][1:]], WITNESS[1])
    with pytest.raises(UsageError, match="exceeds its public bound"):
        prove_linear(start(), segments, alphas, (beta + alphas[0][0]) % ORDER, beyond, blindings)
