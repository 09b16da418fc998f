"""Proof X is exact: bits are bits, products are zero, ranges are ranges; and it hides which."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.zk import quadratic
from privacy.zk.group import ARKWORKS, ORDER
from privacy.zk.pedersen import commitment_key
from privacy.zk.quadratic import QuadraticProof, QuadraticSystem, RangeProof, Segment, prove_quadratic, prove_range
from privacy.zk.randomness import random_scalar
from privacy.zk.transcript import Transcript
from privacy.zk.wire import Reader

WITNESS = [[1, 0, 1, 1], [5, 7, 35, 9]]


def start() -> Transcript:
    return Transcript(b"test")


def system() -> QuadraticSystem:
    """v0..v3 bits, v0 v1 = 0, v4 v5 = v6, v7 = v4 + 4 v0, v2 + v3 = 2."""
    out = QuadraticSystem(8)
    out.add_bits(0, 4)
    out.add_exclusive(0, 1, 1)
    out.add([(4, 5, 1)], [(6, -1)])
    out.add(linear=[(7, 1), (4, -1), (0, -4)])
    out.add(linear=[(2, 1), (3, 1)], constant=-2)
    return out


@pytest.fixture(scope="module")
def keys() -> list:
    return [commitment_key("test/first", 4), commitment_key("test/second", 4)]


def commit(keys, witness, blindings) -> list[Segment]:
    return [
        Segment(key, key.commit([x % ORDER for x in v], rho))
        for key, v, rho in zip(keys, witness, blindings, strict=True)
    ]


@pytest.fixture(scope="module")
def made(keys) -> tuple[list[Segment], QuadraticProof, list[int]]:
    blindings = [random_scalar(), random_scalar()]
    segments = commit(keys, WITNESS, blindings)
    return segments, prove_quadratic(start(), segments, system(), WITNESS, blindings), blindings


def test_a_true_statement_verifies_and_round_trips(made) -> None:
    segments, proof, _ = made
    proof.verify(start(), segments, system())
    data = proof.encode(ARKWORKS)
    reader = Reader("x", data)
    again = QuadraticProof.read(reader, ARKWORKS, 2, 8)
    reader.end()
    assert again.encode(ARKWORKS) == data
    again.verify(start(), segments, system())


@pytest.mark.parametrize(
    ("segment", "place", "value"),
    [(0, 0, 2), (0, 1, ORDER - 1), (0, 1, 1), (0, 2, 0), (1, 2, 36), (1, 3, 5), (1, 0, 6)],
)
def test_a_witness_that_breaks_one_constraint_is_refused_by_prover_and_verifier(
    keys, monkeypatch, segment: int, place: int, value: int
) -> None:
    false = [list(v) for v in WITNESS]
    false[segment][place] = value
    blindings = [random_scalar(), random_scalar()]
    segments = commit(keys, false, blindings)
    with pytest.raises(UsageError, match="breaks constraint"):
        prove_quadratic(start(), segments, system(), false, blindings)
    # A prover without that check, honest otherwise.
    monkeypatch.setattr(QuadraticSystem, "violated", lambda self, witness: None)
    proof = prove_quadratic(start(), segments, system(), false, blindings)
    with pytest.raises(VerificationFailed, match=r"quadratic\.relation"):
        proof.verify(start(), segments, system())


def test_two_violations_do_not_cancel(keys, monkeypatch) -> None:
    """v4 v5 - v6 = 1 and v7 - v4 - 4 v0 = -1: their plain sum is zero, their fold by zeta is not."""
    false = [WITNESS[0], [5, 7, 34, 8]]
    blindings = [random_scalar(), random_scalar()]
    segments = commit(keys, false, blindings)
    monkeypatch.setattr(QuadraticSystem, "violated", lambda self, witness: None)
    proof = prove_quadratic(start(), segments, system(), false, blindings)
    with pytest.raises(VerificationFailed, match=r"quadratic\.relation"):
        proof.verify(start(), segments, system())
    # The weakened build: zeta = 1.
    monkeypatch.setattr(Transcript, "challenge_scalar", lambda self, label: 1 if label == b"zeta" else 77)
    weak = prove_quadratic(start(), segments, system(), false, blindings)
    weak.verify(start(), segments, system())


def test_every_message_matters(made) -> None:
    segments, proof, _ = made
    H = segments[0].key.blinding
    moved = [replace(proof, T0=ARKWORKS.add(proof.T0, H)), replace(proof, T1=ARKWORKS.add(proof.T1, H))]
    moved += [replace(proof, T0=proof.T1, T1=proof.T0), replace(proof, tau=(proof.tau + 1) % ORDER)]
    moved += [replace(proof, masks=proof.masks[::-1])]
    for i in range(8):
        z = list(proof.responses)
        z[i] = (z[i] + 1) % ORDER
        moved.append(replace(proof, responses=tuple(z)))
    for i in range(2):
        r = list(proof.blindings)
        r[i] = (r[i] + 1) % ORDER
        moved.append(replace(proof, blindings=tuple(r)))
    for bad in moved:
        with pytest.raises(VerificationFailed):
            bad.verify(start(), segments, system())


def test_another_statement_is_refused(made) -> None:
    segments, proof, _ = made
    with pytest.raises(VerificationFailed):
        proof.verify(Transcript(b"other"), segments, system())
    with pytest.raises(VerificationFailed):
        proof.verify(start(), segments[::-1], system())
    more = system()
    more.add(linear=[(4, 1)], constant=-6)
    with pytest.raises(VerificationFailed, match=r"quadratic\.relation"):
        proof.verify(start(), segments, more)
    constant = system()
    constant.add(constant=1)
    with pytest.raises(VerificationFailed, match=r"quadratic\.relation"):
        proof.verify(start(), segments, constant)


def test_the_order_of_constraints_is_part_of_the_statement() -> None:
    one, other = QuadraticSystem(4), QuadraticSystem(4)
    one.add_bits(0, 2)
    one.add_bits(2, 2)
    other.add_bits(2, 2)
    other.add_bits(0, 2)
    assert one.fold(5) != other.fold(5)


def test_coordinates_that_no_commitment_holds_are_refused(made) -> None:
    """Responses beyond the segments' keys would be free numbers."""
    segments, proof, _ = made
    wider = QuadraticSystem(9)
    with pytest.raises(UsageError, match="committed"):
        replace(proof, responses=(*proof.responses, 0)).verify(start(), segments, wider)
    with pytest.raises(UsageError, match="committed"):
        proof.verify(start(), segments[:1], system())


def test_constraints_name_coordinates_that_exist() -> None:
    for terms in ({"linear": [(8, 1)]}, {"linear": [(-1, 1)]}, {"quadratic": [(0, 8, 1)]}, {"quadratic": [(-1, 0, 1)]}):
        with pytest.raises(UsageError, match="coordinate"):
            QuadraticSystem(8).add(**terms)


def test_the_clear_cross_term_would_be_an_equation_about_the_witness(made, monkeypatch) -> None:
    """T1 is committed: its value never appears. Opened, it would test guesses of the witness."""
    segments, proof, blindings = made
    drawn: list[list[int]] = []
    original = quadratic.SecretStream.scalars
    monkeypatch.setattr(quadratic.SecretStream, "scalars", lambda self, n: drawn.append(original(self, n)) or drawn[-1])
    transcript = start()
    proof = prove_quadratic(transcript, segments, system(), WITNESS, blindings)
    alpha = drawn[0]
    twin = start()
    quadratic._absorb_segments(twin, segments)
    form = system().fold(twin.challenge_scalar(b"zeta"))
    v = [x for part in WITNESS for x in part]

    def t1(witness: list[int]) -> int:
        square = sum(g * (alpha[i] * witness[j] + alpha[j] * witness[i]) for i, j, g in form.quadratic)
        return (square + sum(a * b for a, b in zip(form.linear, alpha, strict=True))) % ORDER

    assert t1(v) != t1([0, *v[1:]])
    assert t1(v).to_bytes(32, "little") not in proof.encode(ARKWORKS)
    key = quadratic.scalar_commitment_key(ARKWORKS)
    assert not ARKWORKS.equal(proof.T1, key.commit([t1(v)], 0))


def test_first_messages_made_after_the_challenge_prove_anything(keys, monkeypatch) -> None:
    """With c in hand, A and T0 follow from arbitrary responses. So c must depend on them."""
    false = [[2, 0, 1, 1], [5, 7, 35, 9]]
    segments = commit(keys, false, [3, 4])
    responses, blindings, tau = list(range(1, 9)), [11, 12], 13

    def forge() -> QuadraticProof:
        transcript = start()
        quadratic._absorb_segments(transcript, segments)
        form = system().fold(transcript.challenge_scalar(b"zeta"))
        c = transcript.challenge_scalar(b"c")  # too early
        parts = (responses[:4], responses[4:])
        masks = [
            ARKWORKS.add(s.key.commit(z, r), ARKWORKS.multiply(s.commitment, -c))
            for s, z, r in zip(segments, parts, blindings, strict=True)
        ]
        key = quadratic.scalar_commitment_key(ARKWORKS)
        T1 = key.commit([5], 6)
        T0 = ARKWORKS.add(key.commit([form.evaluate(responses, c)], tau), ARKWORKS.multiply(T1, -c))
        return QuadraticProof(tuple(masks), T0, T1, tuple(responses), tuple(blindings), tau)

    with pytest.raises(VerificationFailed):
        forge().verify(start(), segments, system())
    monkeypatch.setattr(quadratic, "_absorb_first_messages", lambda *_: None)
    forge().verify(start(), segments, system())


def test_masks_are_never_reused(made) -> None:
    segments, proof, blindings = made
    again = prove_quadratic(start(), segments, system(), WITNESS, blindings)
    assert not set(again.responses) & set(proof.responses)
    assert ARKWORKS.encode(again.T0) != ARKWORKS.encode(proof.T0)


@pytest.fixture(scope="module")
def range_key():
    return commitment_key("test/value", 1)


@pytest.mark.parametrize(("value", "bits"), [(0, 1), (1, 1), (0, 16), (65535, 16), (12345, 16), (2**63 - 1, 63)])
def test_values_in_range_are_proven(range_key, value: int, bits: int) -> None:
    rho = random_scalar()
    proof = prove_range(start(), range_key, value, rho, bits)
    data = proof.encode(ARKWORKS)
    assert len(data) == 48 + 4 * 48 + 32 * (bits + 1) + 2 * 32 + 32
    RangeProof.decode(data, bits, ARKWORKS).verify(start(), range_key, range_key.commit([value], rho), bits)


@pytest.mark.parametrize("value", [-1, 65536, ORDER - 5, -(1 << 40)])
def test_values_out_of_range_have_no_proof(range_key, monkeypatch, value: int) -> None:
    with pytest.raises(UsageError, match="does not lie"):
        prove_range(start(), range_key, value, 1, 16)
    # The best a prover without that check can do: the low 16 bits, or a top "bit" that makes the sum right.
    rho, commitment = 5, range_key.commit([value % ORDER], 5)
    low = [(value >> i) & 1 for i in range(16)]
    lifted = [*low[:15], (value - sum(b << i for i, b in enumerate(low[:15]))) * pow(1 << 15, -1, ORDER) % ORDER]
    monkeypatch.setattr(QuadraticSystem, "violated", lambda self, witness: None)
    for bits in (low, lifted):
        bit_commitment = quadratic._bit_key(16, ARKWORKS).commit(bits, 7)
        segments = quadratic._range_segments(range_key, commitment, bit_commitment, 16)
        transcript = start()
        transcript.absorb_integers(b"range bits", [16])
        inner = prove_quadratic(transcript, segments, quadratic._range_system(16), [[value % ORDER], bits], [rho, 7])
        with pytest.raises(VerificationFailed, match=r"quadratic\.relation"):
            RangeProof(bit_commitment, inner).verify(start(), range_key, commitment, 16)


def test_a_range_proof_is_of_one_commitment_one_width_and_one_conversation(range_key) -> None:
    proof = prove_range(start(), range_key, 9, 3, 8)
    C = range_key.commit([9], 3)
    proof.verify(start(), range_key, C, 8)
    with pytest.raises(VerificationFailed):
        proof.verify(start(), range_key, range_key.commit([9], 4), 8)
    with pytest.raises(VerificationFailed):
        proof.verify(start(), range_key, range_key.commit([8], 3), 8)
    with pytest.raises(VerificationFailed):
        proof.verify(Transcript(b"other"), range_key, C, 8)
    with pytest.raises((UsageError, VerificationFailed)):
        proof.verify(start(), range_key, C, 7)
    other = prove_range(start(), range_key, 9, 3, 8)
    with pytest.raises(VerificationFailed):
        replace(proof, bit_commitment=other.bit_commitment).verify(start(), range_key, C, 8)
    for bits in (7, 9):
        with pytest.raises(DecodeError):
            RangeProof.decode(proof.encode(ARKWORKS), bits, ARKWORKS)


@pytest.fixture(scope="module")
def range_bytes(range_key) -> bytes:
    return prove_range(start(), range_key, 9, 3, 8).encode(ARKWORKS)


@settings(max_examples=80, deadline=None)
@given(place=st.integers(0, 10_000), change=st.integers(1, 255))
def test_no_altered_byte_survives(range_key, range_bytes, place: int, change: int) -> None:
    data = bytearray(range_bytes)
    data[place % len(data)] ^= change
    with pytest.raises((DecodeError, VerificationFailed)):
        RangeProof.decode(bytes(data), 8, ARKWORKS).verify(start(), range_key, range_key.commit([9], 3), 8)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=700))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        RangeProof.decode(data, 8, ARKWORKS)
