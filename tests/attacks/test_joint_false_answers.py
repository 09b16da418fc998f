"""Attack: a joint proof of an answer that is not the committed network's on the committed record.

By a node that deviates, by a dealer that deals wrongly, by messages of another session, and by clinic, owner and dealer
as one adversary who knows everything. Each lie is told as well as it can be: all that follows from it is consistent.
It passes on a build from which the one defence was taken out, and fails on ours.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from privacy.errors import MissingDependency, SessionBroken, UsageError, VerificationFailed
from privacy.models import network_quantise
from privacy.models.network_quantise import LayerShape
from privacy.mpc import circuit as circuit_module
from privacy.mpc import joint_proof, joint_prover, plan, records
from privacy.mpc.circuit import Circuit
from privacy.mpc.dealer import BinaryTriple, BitShares, ElementTriple, FieldProducts, MatrixTriple, deal, dealt_size
from privacy.mpc.joint_proof import JointStatement, verify_joint
from privacy.mpc.joint_prover import BatchResult
from privacy.mpc.records import CommittedRecord, RecordsStatement, certify_records, record_key, verify_records
from privacy.zk import copies
from privacy.zk.copies import CopyStatement, prove_copies
from privacy.zk.group import ARKWORKS, ORDER, REFERENCE
from privacy.zk.pedersen import commit_all
from tests.support.joint_build import (
    HANDLES,
    PARAMS,
    Alone,
    Case,
    Outcome,
    careless,
    case,
    evaluate,
    prove_alone,
    run,
    signed,
    with_session,
    witness_of,
)

CACHES = (joint_proof._circuit.cache_clear, plan._CROSS.clear, records._system.cache_clear)
THIRD = pow(3, -1, ORDER)


@pytest.fixture
def weakened(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """For builds with other constraints: nothing built before is used, and nothing of theirs stays behind."""
    for clear in CACHES:
        clear()
    yield monkeypatch
    monkeypatch.undo()
    for clear in CACHES:
        clear()


def refused(some: Case, proof: bytes, check: str = "quadratic.relation") -> None:
    with pytest.raises(VerificationFailed) as refusal:
        verify_joint(some.statement, proof)
    assert refusal.value.check == check


# -- all as one adversary ---------------------------------------------------------------------------------------------


class Lies:
    """False witnesses for one patient of a 4-3-1 network, from the true one; each breaks one constraint only."""

    def __init__(self, some: Case) -> None:
        self.some, self.circuit = some, some.circuit
        self.layer = some.circuit.hidden[0]
        self.h = evaluate(some.rows, some.records[0].values)[0][0]
        self.true = some.witnesses()[0]

    def told(self, h: list[int], signs: list[int] | None = None, outputs: list[int] | None = None) -> list[int]:
        """Everything that follows from these pre-activations, and from the signs and outputs if they are given."""
        rows = self.some.rows
        inner = [[replace(row, weights=(0,) * 4, bias=v) for row, v in zip(rows[0], h, strict=True)], rows[1]]
        out = witness_of(self.circuit, inner, self.some.records[0].values)
        signs = signs or [int(v < 0) for v in h]
        out[self.layer.signs[0] : self.layer.signs[-1] + 1] = signs
        outputs = outputs or [v * (1 - s) for v, s in zip(h, signs, strict=True)]
        out[self.layer.outputs[0] : self.layer.outputs[-1] + 1] = outputs
        (last,) = rows[1]
        answer = sum(w * a for w, a in zip(last.weights, outputs, strict=True)) + last.bias
        return [*out[: self.circuit.answer_range[0]], answer]

    def flipped_share_bit(self) -> list[int]:
        """A flips bit 5 of its share: h is another number, and all the rest follows from that one."""
        return self.told([self.h[0], self.h[1] ^ 32, self.h[2]])

    def truncated_word(self) -> list[int]:
        """h mod 2^10 is what the bits spell."""
        return self.told([v % 1024 for v in self.h])

    def wrong_sign(self) -> list[int]:
        """The first neuron speaks when it is silent, or the other way round."""
        return self.told(self.h, [1 - int(self.h[0] < 0), *(int(v < 0) for v in self.h[1:])])

    def leaky_relu(self) -> list[int]:
        """a = h whatever its sign."""
        return self.told(self.h, outputs=list(self.h))

    def wrong_output(self) -> list[int]:
        return [*self.true[:-1], self.true[-1] + 1]

    def fraction(self) -> list[int]:
        return [*self.true[:-1], THIRD]

    def digits_instead_of_bits(self) -> list[int]:
        """The lowest digit of B's share is h itself and all others are 0, so the sign is: a = h, though h < 0."""
        out = self.told(self.h, [0, *(int(v < 0) for v in self.h[1:])])
        for bits in (self.layer.bits_A, self.layer.bits_B):
            out[bits.start : bits.start + self.layer.n] = [0] * self.layer.n
        out[self.layer.bits_B.start] = self.h[0]
        return out


class Dropping:
    """A system that leaves out the constraint with this number of those added through it."""

    def __init__(self, system: Any, number: int) -> None:
        self._system, self._number, self._at = system, number, 0

    def add(self, *args: Any, **kwargs: Any) -> None:
        if self._at != self._number:
            self._system.add(*args, **kwargs)
        self._at += 1


def without(patch: pytest.MonkeyPatch, defence: str) -> None:
    """A build whose circuit lacks one kind of constraint."""
    neuron, row = circuit_module._add_neuron, circuit_module._add_row
    numbers = {"word": 0, "sign": 1, "relu": 2}

    def neuron_less(system: Any, layer: Any, number: int) -> None:
        neuron(Dropping(system, numbers[defence]), layer, number)

    def row_less(system: Any, start: int, inputs: Any, output: int) -> None:
        hidden = len(inputs) == 4
        if hidden != (defence == "hidden rows"):
            row(system, start, inputs, output)

    if defence in numbers:
        patch.setattr(circuit_module, "_add_neuron", neuron_less)
    elif defence == "bits":
        patch.setattr(circuit_module.QuadraticSystem, "add_bits", lambda self, start, count: None)
    else:
        patch.setattr(circuit_module, "_add_row", row_less)


DEFENCES = {
    "flipped_share_bit": "hidden rows",
    "truncated_word": "hidden rows",
    "wrong_sign": "sign",
    "leaky_relu": "relu",
    "wrong_output": "answer rows",
    "fraction": "answer rows",
    "digits_instead_of_bits": "bits",
}
"""The constraints that must be missing for each lie to pass."""


def small(**changes: Any) -> Case:
    """4-3-1; the first neuron is silent and the second speaks."""
    cases = (case((4, 3, 1), seed=seed, **changes) for seed in range(50))
    some = next(found for found in cases if Lies(found).h[0] < 0 < Lies(found).h[1])
    assert Lies(some).told(Lies(some).h)[-1] == some.answers[0]
    return some


@pytest.mark.parametrize("lie", DEFENCES)
def test_clinic_owner_and_dealer_together_cannot_prove_a_false_answer(lie: str) -> None:
    some = small()
    witness = getattr(Lies(some), lie)()
    assert witness[-1] != some.answers[0]
    with pytest.raises(UsageError, match="breaks constraint"):
        prove_alone(some, [witness])
    with careless():
        alone = prove_alone(some, [witness])
    assert alone.z == [signed(witness[-1] % ORDER)]
    refused(some, alone.proof)


@pytest.mark.parametrize("lie", DEFENCES)
def test_a_build_without_the_one_constraint_is_fooled(lie: str, weakened: pytest.MonkeyPatch) -> None:
    without(weakened, DEFENCES[lie])
    some = small()
    witness = getattr(Lies(some), lie)()
    alone = prove_alone(some, [witness])
    verify_joint(some.statement, alone.proof)
    assert alone.z != some.answers


def test_a_true_answer_has_a_proof_and_the_reference_verifier_refuses_a_false_one() -> None:
    some = case((1, 1, 1))
    verify_joint(some.statement, prove_alone(some).proof, REFERENCE)
    witness = some.witnesses()[0]
    witness[-1] += 1
    with careless():
        false = prove_alone(some, [witness])
    with pytest.raises(VerificationFailed) as refusal:
        verify_joint(some.statement, false.proof, REFERENCE)
    assert refusal.value.check == "quadratic.relation"


@pytest.mark.parametrize("patient", [0, 1])
def test_a_false_answer_of_one_patient_among_true_ones_is_refused(patient: int) -> None:
    some = case((3, 2, 1), 3)
    witnesses = some.witnesses()
    witnesses[patient][-1] += 1
    with careless():
        refused(some, prove_alone(some, witnesses).proof)


def test_false_answers_of_two_patients_do_not_cancel() -> None:
    some = case((3, 2, 1), 2)
    witnesses = some.witnesses()
    witnesses[0][-1] += 1
    witnesses[1][-1] -= 1
    with careless():
        refused(some, prove_alone(some, witnesses).proof)


def test_another_network_than_the_committed_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers of other weights, proven consistently: the rows do not open."""
    some = case((3, 2, 1))
    row, *rest = some.rows[0]
    other = replace(some, rows=((replace(row, weights=(row.weights[0] + 1, *row.weights[1:])), *rest), some.rows[1]))
    alone = prove_alone(other)
    refused(some, alone.proof, "quadratic.opening")
    monkeypatch.setattr(copies, "check_openings", lambda *_: None)
    verify_joint(some.statement, alone.proof)  # a build that does not open what the ledger holds
    assert alone.z != some.answers


def test_another_record_than_the_committed_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    some = case((3, 2, 1))
    x, *rest = some.records[0].values
    other = replace(some, records=(replace(some.records[0], values=(x + 1, *rest)),))
    alone = prove_alone(other)
    refused(some, alone.proof, "quadratic.opening")
    monkeypatch.setattr(copies, "check_openings", lambda *_: None)
    verify_joint(some.statement, alone.proof)
    assert alone.z != some.answers


# -- records and weights that are no integers -------------------------------------------------------------------------


def forge_records_certificate(statement: RecordsStatement, openings: list[CommittedRecord]) -> bytes:
    """By a prover that checks nothing: bits of x mod 2^w, as good as they can be."""
    widths = records._widths(statement)
    bits = []
    for opening in openings:
        shifted = [(x + (1 << (w - 1))) % ORDER for x, w in zip(opening.values, widths, strict=True)]
        bits.append([(x >> k) & 1 for x, w in zip(shifted, widths, strict=True) for k in range(w)])
    key = records._bits_key(sum(widths), ARKWORKS)
    rhos = [secrets.randbelow(ORDER) for _ in bits]
    points = commit_all([key] * len(bits), bits, rhos)
    own = [ARKWORKS.decode(commitment) for commitment in statement.commitments]
    about: CopyStatement = records._copies(statement, own, points, ARKWORKS)
    witnesses = [[[x % ORDER for x in o.values], b] for o, b in zip(openings, bits, strict=True)]
    blindings = [[o.rho, rho] for o, rho in zip(openings, rhos, strict=True)]
    with careless():
        proof = prove_copies(records._transcript(statement), about, witnesses, blindings)
    return b"".join([records._TAG, *map(ARKWORKS.encode, points), proof.encode(ARKWORKS)])


def test_a_proof_about_a_third_holds_and_the_certificate_of_the_record_does_not() -> None:
    """x = 1/3 mod r: the joint proof alone is true, and about nothing. A verifier that stops there is fooled."""
    rows = [[replace(case((1, 1)).rows[0][0], weights=(3,), bias=5)]]
    some = case((1, 1), rows=rows, values=[[THIRD]])
    alone = prove_alone(some)
    verify_joint(some.statement, alone.proof)
    assert alone.z == [6]  # 3/3 + 5, which no integer record gives
    with pytest.raises(UsageError, match="out of the range"):
        certify_records(some.records_statement, some.records)
    forged = forge_records_certificate(some.records_statement, list(some.records))
    with pytest.raises(VerificationFailed) as refusal:
        verify_records(some.records_statement, forged)
    assert refusal.value.check == "quadratic.relation"


def test_a_record_without_bounds_gives_its_patient_a_chosen_score() -> None:
    some = case((2, 1))
    (row,) = some.rows[0]
    score = 977 << 20
    x = (score - row.bias) * pow(row.weights[0], -1, ORDER) % ORDER
    chosen = case((2, 1), rows=some.rows, values=[[x, 0]])
    alone = prove_alone(chosen)
    verify_joint(chosen.statement, alone.proof)
    assert alone.z == [score]
    with pytest.raises(VerificationFailed):
        forged = forge_records_certificate(chosen.records_statement, list(chosen.records))
        verify_records(chosen.records_statement, forged)


def test_the_forger_makes_valid_certificates_of_true_records() -> None:
    """Else the refusals above would prove nothing."""
    some = case((2, 1))
    verify_records(some.records_statement, forge_records_certificate(some.records_statement, list(some.records)))


@pytest.mark.parametrize("value", [1 << 17, -(1 << 17) - 1, THIRD, ORDER // 2], ids=["most", "least", "third", "half"])
def test_a_build_that_does_not_tie_bits_to_records_is_fooled(value: int, weakened: pytest.MonkeyPatch) -> None:
    opening = CommittedRecord((value,), 7)
    C_x = ARKWORKS.encode(record_key(1).commit([value % ORDER], 7))
    statement = RecordsStatement(PARAMS, "st-anna", case((1, 1)).schema, HANDLES, 1, 0, (C_x,))
    with pytest.raises(VerificationFailed, match=r"quadratic\.relation"):
        verify_records(statement, forge_records_certificate(statement, [opening]))
    original = circuit_module.QuadraticSystem.add

    def bits_only(self: Any, quadratic: Any = (), linear: Any = (), constant: int = 0) -> None:
        if quadratic:
            original(self, quadratic, linear, constant)

    weakened.setattr(circuit_module.QuadraticSystem, "add", bits_only)
    records._system.cache_clear()
    verify_records(statement, forge_records_certificate(statement, [opening]))


def test_a_weight_of_a_third_has_a_joint_proof_and_needs_the_network_s_certificate() -> None:
    """The same on the owner's side; `bounded` of the network refuses it (tests/models/test_network_certificate.py)."""
    rows = [[replace(case((1, 1)).rows[0][0], weights=(THIRD,), bias=0)]]
    some = case((1, 1), rows=rows, values=[[1]])
    alone = prove_alone(some)
    verify_joint(some.statement, alone.proof)
    assert alone.z == [signed(THIRD)] and abs(alone.z[0]) > 1 << 62


# -- words that are too short -----------------------------------------------------------------------------------------


def wide() -> tuple[list[list[Any]], list[list[int]]]:
    """3-1-1 with h = 3 (2^38 - 2^16), within the schema: 40 bits of it read as a large negative number."""
    template = case((3, 1, 1), b=22)
    (first,), (last,) = template.rows
    rows = [[replace(first, weights=((1 << 22) - 1,) * 3, bias=0)], [replace(last, weights=(1,), bias=0)]]
    return rows, [[1 << 16] * 3]


def truncated(some: Case) -> list[int]:
    """The witness of a computation whose words have 40 bits."""
    (h,) = evaluate(some.rows, some.records[0].values)[0][0]
    word = (h + (1 << 39)) % (1 << 40) - (1 << 39)
    assert h >= 1 << 39 and word < 0
    layer = some.circuit.hidden[0]
    bits = [(word >> k) & 1 for k in range(layer.n)]
    share = [secrets.randbelow(2) for _ in bits]
    out = [*some.records[0].values, *share, *(a ^ b for a, b in zip(share, bits, strict=True))]
    a = max(word, 0)
    (last,) = some.rows[1]
    return [*out, int(word < 0), word, a, last.weights[0] * a + last.bias]


def test_a_network_that_needs_more_than_40_bits_gets_them() -> None:
    rows, values = wide()
    some = case((3, 1, 1), b=22, rows=rows, values=values)
    assert some.circuit.word_sizes == (64,)
    assert some.answers[0] > 1 << 39
    alone = prove_alone(some)
    verify_joint(some.statement, alone.proof)
    with careless():
        refused(some, prove_alone(some, [truncated(some)]).proof)


def test_a_truncated_word_has_no_proof_even_where_40_bits_are_believed_to_do(weakened: pytest.MonkeyPatch) -> None:
    """Without the bound n is 40 for everybody. h is the row's sum over F_r, and no 40 bits spell it: no proof at all,
    true or false. Where the row is not proven over F_r (a computation mod 2^n is trusted), the false one passes."""
    rows, values = wide()
    weakened.setattr(circuit_module, "word_bits", lambda bound: 40)
    some = case((3, 1, 1), b=22, rows=rows, values=values)
    assert some.circuit.word_sizes == (40,)
    with careless():
        for witness in (some.witnesses()[0], truncated(some)):
            refused(some, prove_alone(some, [witness]).proof)
    row = circuit_module._add_row
    weakened.setattr(
        circuit_module,
        "_add_row",
        lambda system, start, inputs, output: None if len(inputs) == 3 else row(system, start, inputs, output),
    )
    joint_proof._circuit.cache_clear()
    some = case((3, 1, 1), b=22, rows=rows, values=values)
    alone = prove_alone(some, [truncated(some)])
    verify_joint(some.statement, alone.proof)
    assert alone.z != some.answers


def test_without_the_check_of_bounds_parties_compute_another_function(weakened: pytest.MonkeyPatch) -> None:
    """CrypTen's words wrap at 2^63: a huge positive sum is a negative one, silently. The proof still refuses it."""
    pytest.importorskip("privacy.mpc.backend", exc_type=MissingDependency)
    template = case((1, 1, 1))
    (first,), (last,) = template.rows
    rows = [[replace(first, weights=(1 << 50,), bias=0)], [replace(last, weights=(1,), bias=0)]]
    some = case((1, 1, 1), rows=rows, values=[[1 << 13]])  # h = 2^63
    shapes = (LayerShape(1, 1, 4, 51, 22), some.statement.layers[1].shape)
    layers = tuple(replace(layer, shape=s) for layer, s in zip(some.statement.layers, shapes, strict=True))
    some = replace(some, statement=replace(some.statement, layers=layers))
    with pytest.raises(VerificationFailed, match=r"network\.overflow"):
        some.statement.check()
    weakened.setattr(network_quantise, "_bounds_problem", lambda *_: None)
    outcome = run(some, party_A=Computes, party_B=Computes)
    of_A, of_B = outcome.results
    assert (of_A.shares[0].z + of_B.shares[0].z) % ORDER == 0 != some.answers[0]  # ReLU of "a negative number"
    assert "joint.blind-check" in run(some, timeout=5).checks


class Computes(joint_prover._Party):
    """Computes and proves nothing."""

    def run(self) -> BatchResult:
        return BatchResult(b"", (), tuple(joint_prover.AnswerShare(z, 0) for z in self.compute()))


# -- a node that deviates ---------------------------------------------------------------------------------------------


class FlipsShareBit(joint_prover._Party):
    """Flips a bit of its own share of a pre-activation, and goes on from there."""

    def _fill_bits(self, v: list[list[int]]) -> None:
        super()._fill_bits(v)
        layer = self._circuit.hidden[0]
        v[0][(layer.bits_A if self._role == "A" else layer.bits_B)[3]] ^= 1


class ClaimsShareBit(joint_prover._Party):
    """Computes with the right bits and commits to one that is flipped."""

    def _commit(self, v: Any, blindings: Any) -> Any:
        layer = self._circuit.hidden[0]
        v[0][(layer.bits_A if self._role == "A" else layer.bits_B)[3]] ^= 1
        return super()._commit(v, blindings)


class WrongOutput(joint_prover._Party):
    """Adds one to its share of the answer."""

    def _fill_answers(self, v: list[list[int]]) -> None:
        super()._fill_answers(v)
        place = self._circuit.answer_range[0]
        v[0][place] = (v[0][place] + 1) % ORDER


class WrongRelu(joint_prover._Party):
    """Adds one to its share of an output of the hidden layer."""

    def _fill_outputs(self, v: list[list[int]]) -> None:
        super()._fill_outputs(v)
        place = self._circuit.hidden[0].outputs[0]
        v[0][place] = (v[0][place] + 1) % ORDER


class OtherSecret(joint_prover._Party):
    """Computes with another weight or record than the committed one, and proves with the committed one."""

    def _shares(self) -> list[list[int]]:
        records, layers = self._records, self._layers
        self._records = [replace(r, values=(r.values[0] + 1, *r.values[1:])) for r in records]
        self._layers = [[replace(r, weights=(r.weights[0] + 1, *r.weights[1:])) for r in layer] for layer in layers]
        v = super()._shares()
        self._records, self._layers = records, layers
        for values, record in zip(v, records, strict=False):
            values[: self._circuit.d] = record.values
        return v


class OtherSecretThroughout(joint_prover._Party):
    """Computes and proves with another weight or record than the committed one."""

    def run(self) -> BatchResult:
        self._records = [replace(r, values=(r.values[0] + 1, *r.values[1:])) for r in self._records]
        self._layers = [[replace(r, weights=(r.weights[0] + 1, *r.weights[1:])) for r in la] for la in self._layers]
        return super().run()


DEVIATIONS = [FlipsShareBit, ClaimsShareBit, WrongOutput, WrongRelu, OtherSecret]


def nobody_has_a_result(outcome: Outcome) -> None:
    for end in (outcome.of_A, outcome.of_B):
        assert isinstance(end, SessionBroken | VerificationFailed), end


@pytest.mark.parametrize("role", ["A", "B"])
@pytest.mark.parametrize("party", DEVIATIONS, ids=lambda party: party.__name__)
def test_a_node_that_deviates_gets_no_proof(party: type[joint_prover._Party], role: str) -> None:
    pytest.importorskip("privacy.mpc.backend", exc_type=MissingDependency)
    some = case((4, 3, 1))
    outcome = run(some, timeout=5, **{f"party_{role}": party})
    nobody_has_a_result(outcome)
    assert "joint.blind-check" in outcome.checks


@pytest.mark.parametrize("role", ["A", "B"])
def test_a_node_with_another_secret_throughout_opens_nothing(role: str) -> None:
    """All is consistent but the commitments on the ledger: that is found when the proof is verified."""
    some = case((4, 1))
    outcome = run(some, **{f"party_{role}": OtherSecretThroughout})
    nobody_has_a_result(outcome)
    assert outcome.checks == ("quadratic.opening", "quadratic.opening")


@pytest.mark.parametrize("role", ["A", "B"])
def test_without_a_proof_nobody_would_notice(role: str) -> None:
    """The weakened build: shares are added up as they come."""

    class Deviates(OtherSecret, Computes):
        pass

    some = case((4, 1))
    parties = {"party_A": Computes, "party_B": Computes} | {f"party_{role}": Deviates}
    of_A, of_B = run(some, **parties).results
    assert signed((of_A.shares[0].z + of_B.shares[0].z) % ORDER) != some.answers[0]


# -- a dealer that deals wrongly --------------------------------------------------------------------------------------


def offset_of(some: Case, kind: type) -> int:
    """Where B's corrections for the last item of this kind begin."""
    items = [i for i, item in enumerate(some.plan) if isinstance(item, kind)]
    return dealt_size("B", some.plan[: items[-1]])


KINDS = [MatrixTriple, ElementTriple, BinaryTriple, BitShares, FieldProducts]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_wrong_correlations_of_any_kind_give_no_answer(kind: type) -> None:
    """Two hidden layers use all five kinds. Of two words all bits are wrong, or of a scalar the lowest."""
    pytest.importorskip("privacy.mpc.backend", exc_type=MissingDependency)
    some = case((3, 2, 2, 1))
    assert {type(item) for item in some.plan} == set(KINDS)
    of_A, of_B = deal(some.plan)
    at = offset_of(some, kind)
    wrong = bytes([of_B[at] ^ 1]) if kind is FieldProducts else bytes(b ^ 0xFF for b in of_B[at : at + 16])
    outcome = run(some, dealt=(of_A, of_B[:at] + wrong + of_B[at + len(wrong) :]), timeout=5)
    nobody_has_a_result(outcome)
    assert "joint.blind-check" in outcome.checks


@pytest.mark.parametrize("dealt", ["twice A's seed", "another deal's B", "zeros"])
def test_randomness_that_does_not_belong_together_gives_no_answer(dealt: str) -> None:
    some = case((4, 1))
    of_A, of_B = deal(some.plan)
    wrong = {
        "twice A's seed": (of_A, of_A + of_B[32:]),
        "another deal's B": (of_A, deal(some.plan)[1]),
        "zeros": (of_A, bytes(len(of_B))),
    }[dealt]
    outcome = run(some, dealt=wrong, timeout=5)
    nobody_has_a_result(outcome)


def test_wrong_correlations_give_wrong_answers_where_nothing_is_proven() -> None:
    some = case((4, 1))
    of_A, of_B = deal(some.plan)
    at = offset_of(some, FieldProducts) - 32  # the answer's product comes before the masks'
    wrong = of_B[:at] + bytes([of_B[at] ^ 1]) + of_B[at + 1 :]
    first, second = run(some, party_A=Computes, party_B=Computes, dealt=(of_A, wrong)).results
    assert signed((first.shares[0].z + second.shares[0].z) % ORDER) != some.answers[0]


# -- messages and proofs of another session ---------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["A", "B"])
@pytest.mark.parametrize("widths", [(4, 1), (3, 2, 1)])
def test_a_node_that_repeats_the_messages_of_an_older_session_gets_no_proof(widths: Any, role: str) -> None:
    pytest.importorskip("privacy.mpc.backend", exc_type=MissingDependency)
    some = case(widths)
    old = run(some)
    assert old.results
    frames = iter(old.channels["AB".index(role)].frames)

    def repeat(label: str, data: bytes) -> bytes:
        then, said = next(frames)
        assert (then, len(said)) == (label, len(data))
        return said

    tap: dict[str, Callable[[str, bytes], bytes]] = {f"tap_{role}": repeat}
    outcome = run(with_session(some, secrets.token_bytes(32)), timeout=5, **tap)  # type: ignore[arg-type]
    nobody_has_a_result(outcome)


def test_a_proof_of_an_older_session_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    some = case((4, 1))
    alone = prove_alone(some)
    verify_joint(some.statement, alone.proof)
    newer = with_session(some, secrets.token_bytes(32))
    with pytest.raises(VerificationFailed):
        verify_joint(newer.statement, alone.proof)
    with forgetting(monkeypatch, "session", bytes(32)):
        old = prove_alone(some)
        verify_joint(newer.statement, old.proof)  # a build that does not bind the session


@pytest.mark.parametrize(
    ("field", "value"),
    [("records_id", bytes(32)), ("model_id", bytes(32)), ("clinic", "x"), ("head_root", bytes(32)), ("first", 0)],
)
def test_a_proof_for_other_entries_is_refused(field: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is bound by the transcript alone: a build that forgets to absorb it takes the proof."""
    some = case((4, 1))
    old = getattr(some.statement, field)
    new = old + 64 if isinstance(old, int) else "y" if isinstance(old, str) else bytes([old[0] ^ 1]) + old[1:]
    other = replace(some.statement, **{field: new})
    with pytest.raises(VerificationFailed):
        verify_joint(other, prove_alone(some).proof)
    with forgetting(monkeypatch, field, value):
        verify_joint(other, prove_alone(some).proof)


@contextmanager
def forgetting(patch: pytest.MonkeyPatch, field: str, value: Any) -> Iterator[None]:
    """A build whose statements absorb `value` in the place of this field."""
    absorb = JointStatement.absorb
    with patch.context() as inner:
        inner.setattr(JointStatement, "absorb", lambda self, t: absorb(replace(self, **{field: value}), t))
        yield


# -- proofs put together from others ----------------------------------------------------------------------------------


def test_patients_of_two_proofs_do_not_make_a_third() -> None:
    """Exchanging all that belongs to one patient between two true proofs of one session: c is another one."""
    some = case((4, 1), 2)
    first, second = prove_alone(some), prove_alone(some)
    circuit: Circuit = some.circuit
    tag, step = len(joint_proof._TAG), 96 * circuit.answers
    mixed = first.proof[: tag + step] + second.proof[tag + step : tag + 2 * step] + first.proof[tag + 2 * step :]
    with pytest.raises(VerificationFailed):
        verify_joint(some.statement, mixed)


def test_the_honest_answer_is_the_only_one() -> None:
    """Many false answers, near and far; every one is refused and the true one is not."""
    some = case((3, 2, 1))
    honest: Alone = prove_alone(some)
    verify_joint(some.statement, honest.proof)
    true = some.witnesses()[0]
    for lie in (-true[-1] - 1, 0, true[-1] - 1, true[-1] + (1 << 40), true[-1] + (1 << 64), ORDER - 1, ORDER // 2):
        with careless():
            refused(some, prove_alone(some, [[*true[:-1], lie % ORDER]]).proof)
