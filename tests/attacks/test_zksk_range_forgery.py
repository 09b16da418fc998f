"""Why zksk's disjunctions and range proofs are not used (docs/spec/protocol.md, section 4, S).

Each attack works on zksk 0.0.2, with its own verifier and petlib's own curve, and fails on our range proof:

- bit commitments beyond the declared ones join the sum that is compared with C, but no proof is asked of them;
- an extra challenge of a disjunction joins the sum that is compared with c, but belongs to no branch;
- challenges of branches are summed mod 2^128 and used mod the group order, so adding multiples of the order to one
  moves the sum to any wanted value;
- the true branch's challenge comes out negative, the simulated one's does not: the proof shows which branch is true.
"""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest

from privacy.errors import DecodeError, VerificationFailed
from privacy.zk.group import ARKWORKS, ORDER
from privacy.zk.pedersen import commitment_key
from privacy.zk.quadratic import QuadraticProof, RangeProof, prove_range
from privacy.zk.transcript import Transcript

zksk = pytest.importorskip("zksk")
base = pytest.importorskip("zksk.base")
composition = pytest.importorskip("zksk.composition")
rangeproof = pytest.importorskip("zksk.primitives.rangeproof")
Bn = pytest.importorskip("petlib.bn").Bn
EcGroup = pytest.importorskip("petlib.ec").EcGroup

BITS = 16
HIGH = 1 << BITS
CHALLENGE_MODULUS = Bn(2).pow(128)


@pytest.fixture(scope="module")
def curve() -> SimpleNamespace:
    group = EcGroup(713)
    return SimpleNamespace(
        group=group, order=group.order(), g=group.hash_to_point(b"attack g"), h=group.hash_to_point(b"attack h")
    )


def commit(curve, value, rho):
    return Bn(value) * curve.g + rho * curve.h


def public_statement(curve, commitment):
    """What a zksk verifier builds: no secret in it. [0, 2^16)."""
    return rangeproof.RangeStmt(commitment, curve.g, curve.h, 0, HIGH, zksk.Secret(), zksk.Secret())


def honest_range_proof(curve, value):
    rho = curve.order.random()
    commitment = commit(curve, value, rho)
    secrets = zksk.Secret(value=Bn(value)), zksk.Secret(value=rho)
    nizk = rangeproof.RangeStmt(commitment, curve.g, curve.h, 0, HIGH, *secrets).prove()
    return commitment, nizk


def test_zksk_range_proof_accepts_a_value_in_range(curve):
    commitment, nizk = honest_range_proof(curve, 1000)
    assert public_statement(curve, commitment).verify(nizk) is True


def test_zksk_prover_refuses_minus_five(curve):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(Exception, match="negative"):
            honest_range_proof(curve, -5)


def forger(curve):
    """zksk's own class with one bit commitment more, which takes up what does not fit in the declared bits."""

    class PowerTwoRangeStmt(rangeproof.PowerTwoRangeStmt):  # the class name is part of the statement's hash
        def precommit(self):
            low, rest = int(self.x.value) % (1 << self.num_bits), int(self.x.value) >> self.num_bits
            for secret in self.randomizers:
                secret.value = self.order.random()
            blindings = [secret.value for secret in self.randomizers] + [self.order.random()]
            values = [low >> i & 1 for i in range(self.num_bits)] + [rest]
            total = sum((Bn(2).pow(i) * blinding for i, blinding in enumerate(blindings)), Bn(0))
            return {
                "Cs": [commit(curve, value, blinding) for value, blinding in zip(values, blindings, strict=True)],
                "rand": (total - self.randomizer.value) % self.order,
            }

        def construct_stmt(self, precommitment):
            self.is_prover = False
            statement = super().construct_stmt(precommitment)
            for i, disjunction in enumerate(statement.subproofs):
                bit = int(self.x.value) >> i & 1
                disjunction.subproofs[1 - bit].set_simulated(True)
            return statement

    return PowerTwoRangeStmt


@pytest.mark.parametrize("value", [-5, -1, HIGH, 1234567890])
def test_attack_extra_bit_commitments(curve, value):
    rho = curve.order.random()
    commitment = commit(curve, value, rho)
    r = zksk.Secret(value=rho)
    cheat = forger(curve)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zksk warns its own prover about values out of range
        parts = [
            cheat(commitment, curve.g, curve.h, BITS, zksk.Secret(value=Bn(value)), r),
            cheat(commitment, curve.g, curve.h, BITS, zksk.Secret(value=Bn(value)), r),
        ]
        nizk = (
            zksk.DLRep(commitment, zksk.Secret(value=Bn(value)) * curve.g + r * curve.h) & parts[0] & parts[1]
        ).prove()
    assert public_statement(curve, commitment).verify(nizk) is True


def false_disjunction(curve):
    """Two points whose logarithms to base h nobody here knows: neither branch can be proved."""
    x = zksk.Secret(name="x")
    targets = [curve.group.hash_to_point(b"left"), curve.group.hash_to_point(b"right")]
    return composition.OrProofStmt(*(zksk.DLRep(target, x * curve.h) for target in targets))


def simulate_both(curve, statement):
    """Simulated commitments, challenges and responses of all branches, and the hash they lead to."""
    challenges = [CHALLENGE_MODULUS.random() for _ in statement.subproofs]
    responses = [[curve.order.random()] for _ in statement.subproofs]
    commitments = [
        branch.recompute_commitment(c, z)
        for branch, c, z in zip(statement.subproofs, challenges, responses, strict=True)
    ]
    prehash = statement.prehash_statement()
    stmt_hash = prehash.digest()
    challenge = base.build_fiat_shamir_challenge(prehash, None, commitments)
    return challenges, responses, challenge, stmt_hash


def test_two_simulated_branches_alone_are_refused(curve):
    statement = false_disjunction(curve)
    challenges, responses, challenge, stmt_hash = simulate_both(curve, statement)
    nizk = base.NIZK(challenge, (challenges, responses), stmt_hash=stmt_hash)
    with pytest.raises(Exception, match="Inconsistent challenges"):
        false_disjunction(curve).verify(nizk)


def test_attack_extra_or_challenge(curve):
    statement = false_disjunction(curve)
    challenges, responses, challenge, stmt_hash = simulate_both(curve, statement)
    surplus = (challenge - challenges[0] - challenges[1]) % CHALLENGE_MODULUS
    nizk = base.NIZK(challenge, ([*challenges, surplus], responses), stmt_hash=stmt_hash)
    assert false_disjunction(curve).verify(nizk) is True


def test_attack_challenge_shifted_by_a_multiple_of_the_order(curve):
    statement = false_disjunction(curve)
    challenges, responses, challenge, stmt_hash = simulate_both(curve, statement)
    surplus = (challenge - challenges[0] - challenges[1]) % CHALLENGE_MODULUS
    multiple = surplus * curve.order.mod_inverse(CHALLENGE_MODULUS) % CHALLENGE_MODULUS
    shifted = [challenges[0] + multiple * curve.order, challenges[1]]
    nizk = base.NIZK(challenge, (shifted, responses), stmt_hash=stmt_hash)
    assert false_disjunction(curve).verify(nizk) is True


def test_attack_shifted_challenges_prove_minus_five_in_range(curve):
    # Cs are commitments to -5 and fifteen zeros, so no bit proof of the first one is true, and all are simulated.
    rho = curve.order.random()
    commitment = commit(curve, -5, rho)
    statement = public_statement(curve, commitment)
    ranges = statement.subproofs[1:]
    precommitment: list = [None]
    for part in ranges:
        blindings = [curve.order.random() for _ in range(BITS)]
        total = sum((Bn(2).pow(i) * b for i, b in enumerate(blindings)), Bn(0))
        values = [-5] + [0] * (BITS - 1)
        precommitment.append(
            {
                "Cs": [commit(curve, v, b) for v, b in zip(values, blindings, strict=True)],
                "rand": (total - rho) % curve.order,
            }
        )
        part.full_construct_stmt(precommitment[-1])
    masks = [curve.order.random(), curve.order.random()]
    commitments: list = [masks[0] * curve.g + masks[1] * curve.h]
    simulated: list = []
    for part in ranges:
        row = []
        for disjunction in part.constructed_stmt.subproofs:
            challenges = [CHALLENGE_MODULUS.random() for _ in range(2)]
            responses = [[curve.order.random()] for _ in range(2)]
            branches = zip(disjunction.subproofs, challenges, responses, strict=True)
            row.append((challenges, responses, [branch.recompute_commitment(c, z) for branch, c, z in branches]))
        simulated.append(row)
        commitments.append([commitment for _, _, commitment in row])
    prehash = statement.prehash_statement()
    stmt_hash = prehash.digest()
    challenge = base.build_fiat_shamir_challenge(prehash, precommitment, commitments)
    inverse = curve.order.mod_inverse(CHALLENGE_MODULUS)
    answers: list = [[(masks[0] + challenge * Bn(-5)) % curve.order, (masks[1] + challenge * rho) % curve.order]]
    for row in simulated:
        shifted = []
        for (left, right), responses, _ in row:
            multiple = (challenge - left - right) * inverse % CHALLENGE_MODULUS
            shifted.append(([left + multiple * curve.order, right], responses))
        answers.append(shifted)
    nizk = base.NIZK(challenge, answers, precommitment=precommitment, stmt_hash=stmt_hash)
    assert public_statement(curve, commitment).verify(nizk) is True


def test_attack_sign_of_the_challenges_reads_the_committed_value(curve):
    for value in (0, 1, 0xA5C3, HIGH - 1, 31337):
        commitment, nizk = honest_range_proof(curve, value)
        assert public_statement(curve, commitment).verify(nizk) is True
        _, first_range, _ = nizk.responses
        read = 0
        for i, ((zero, one), _) in enumerate(first_range):
            assert (zero < 0) is not (one < 0)
            read |= int(one < 0) << i
        assert read == value


# The same attacks on our own range proof.

KEY = commitment_key("test", 1)


def transcript() -> Transcript:
    return Transcript(b"attack")


def our_proof(value: int = 1000) -> tuple:
    return KEY.commit([value], 77), prove_range(transcript(), KEY, value, 77, BITS)


def verify(data: bytes, commitment) -> None:
    RangeProof.decode(data, BITS, ARKWORKS).verify(transcript(), KEY, commitment, BITS)


def test_our_range_proof_accepts_a_value_in_range():
    for value in (0, 1000, HIGH - 1):
        commitment, proof = our_proof(value)
        verify(proof.encode(ARKWORKS), commitment)


@pytest.mark.parametrize("value", [-5, -1, HIGH, 1234567890])
def test_ours_refuses_a_proof_carried_over_to_a_value_out_of_range(value):
    _, proof = our_proof(value % HIGH)
    with pytest.raises(VerificationFailed):
        verify(proof.encode(ARKWORKS), KEY.commit([value], 77))


@pytest.mark.parametrize("value", [-5, -1, HIGH, 1234567890])
@pytest.mark.parametrize("top", ["bit is not a bit", "bits do not sum to the value"])
def test_ours_refuses_a_cheating_prover(monkeypatch, value, top):
    # The cheat keeps all of zksk's freedom: any integers as "bits", and the prover's own check removed.
    from privacy.zk import quadratic

    bits = [value % HIGH >> i & 1 for i in range(BITS)]
    if top == "bit is not a bit":
        bits[-1] += (value - value % HIGH) >> (BITS - 1)
        assert sum(b << i for i, b in enumerate(bits)) == value
    commitment, bit_rho = KEY.commit([value], 77), 88
    bit_commitment = quadratic._bit_key(BITS, ARKWORKS).commit(bits, bit_rho)
    segments = quadratic._range_segments(KEY, commitment, bit_commitment, BITS)
    monkeypatch.setattr(quadratic.QuadraticSystem, "violated", lambda *_: None)
    state = transcript()
    state.absorb_integers(b"range bits", [BITS])
    system = quadratic._range_system(BITS)
    proof = quadratic.prove_quadratic(state, segments, system, [[value], bits], [77, bit_rho])
    with pytest.raises(VerificationFailed) as caught:
        verify(RangeProof(bit_commitment, proof).encode(ARKWORKS), commitment)
    assert caught.value.check == "quadratic.relation"


def scalars_start(proof: RangeProof) -> int:
    return 48 * (1 + len(proof.proof.masks) + 2)


def test_ours_has_no_room_for_extra_elements():
    commitment, proof = our_proof()
    data, scalars = proof.encode(ARKWORKS), scalars_start(proof)
    point = data[:48]
    for extended in (
        point + data,
        data[:48] + point + data[48:],
        data[:scalars] + point + data[scalars:],
        data[:scalars] + bytes(32) + data[scalars:],
        data + bytes(32),
        data + point,
        data + b"\0",
        data[:-1],
        data[:-32],
    ):
        with pytest.raises(DecodeError):
            verify(extended, commitment)


def test_ours_refuses_a_proof_for_more_bits():
    # What "one more bit commitment" would be here.
    commitment = KEY.commit([HIGH + 1], 77)
    longer = prove_range(transcript(), KEY, HIGH + 1, 77, BITS + 1).encode(ARKWORKS)
    longer_proof = RangeProof.decode(longer, BITS + 1, ARKWORKS)
    longer_proof.verify(transcript(), KEY, commitment, BITS + 1)
    with pytest.raises(DecodeError):
        verify(longer, commitment)
    cut = QuadraticProof(
        longer_proof.proof.masks,
        longer_proof.proof.T0,
        longer_proof.proof.T1,
        longer_proof.proof.responses[: BITS + 1],
        longer_proof.proof.blindings,
        longer_proof.proof.tau,
    )
    with pytest.raises(VerificationFailed):
        verify(RangeProof(longer_proof.bit_commitment, cut).encode(ARKWORKS), commitment)


def test_ours_refuses_scalars_shifted_by_the_order():
    commitment, proof = our_proof()
    data, scalars = proof.encode(ARKWORKS), scalars_start(proof)
    for at in range(scalars, len(data), 32):
        value = int.from_bytes(data[at : at + 32], "little")
        shifted = data[:at] + (value + ORDER).to_bytes(32, "little") + data[at + 32 :]
        with pytest.raises(DecodeError, match="order"):
            verify(shifted, commitment)


def test_ours_has_no_challenge_and_no_signed_number_in_the_proof():
    # The bytes are points and residues below r only; every response is masked by a uniform residue.
    commitment, proof = our_proof(0xA5C3)
    data = proof.encode(ARKWORKS)
    assert len(data) == scalars_start(proof) + 32 * (BITS + 1 + 2 + 1)
    again = prove_range(transcript(), KEY, 0xA5C3, 77, BITS).encode(ARKWORKS)
    for at in range(0, len(data) - 31, 16):
        assert data[at : at + 32] != again[at : at + 32]
    verify(again, commitment)
