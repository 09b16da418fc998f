"""A joint proof is of one session, one network, one batch and the C_z that it hands out; no byte can be changed."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import fields, replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.models.network_quantise import CommittedLayer
from privacy.mpc import joint_proof
from privacy.mpc.joint_proof import (
    JointCommitments,
    JointStatement,
    answer_key,
    answers_digest,
    joint_transcript,
    proof_size,
    row_keys,
    verify_joint,
)
from privacy.mpc.params import MpcParameters
from privacy.zk.group import ARKWORKS, ORDER, REFERENCE
from tests.support.joint_build import Alone, Case, case, commit_rows, prove_alone, with_session

NETWORKS = {
    "linear": ((4, 1), 6),
    "linear, two outputs": ((3, 2), 6),
    "one hidden layer": ((4, 3, 1), 6),
    "long words": ((2, 2, 2), 22),
    "two hidden layers": ((3, 2, 2, 1), 6),
}


@cache
def made(widths: tuple[int, ...] = (3, 2, 2), patients: int = 2) -> tuple[Case, Alone]:
    some = case(widths, patients)
    return some, prove_alone(some)


@pytest.mark.parametrize("patients", [1, 3])
@pytest.mark.parametrize(("widths", "b"), NETWORKS.values(), ids=NETWORKS)
def test_a_true_proof_verifies_and_hands_out_the_commitments_to_the_answers(
    widths: tuple[int, ...], b: int, patients: int
) -> None:
    some = case(widths, patients, b=b)
    alone = prove_alone(some)
    assert alone.z == some.answers
    points = verify_joint(some.statement, alone.proof)
    opened = [answer_key().commit([z], rho) for z, rho in zip(alone.z, alone.rho, strict=True)]
    assert list(points) == list(map(ARKWORKS.encode, opened))
    assert len(alone.proof) == proof_size(some.circuit, patients)


def test_the_reference_group_verifies_and_refuses() -> None:
    some, alone = made((2, 1), 1)
    assert verify_joint(some.statement, alone.proof, REFERENCE) == verify_joint(some.statement, alone.proof)
    with pytest.raises(VerificationFailed):
        verify_joint(replace(some.statement, session=bytes(32)), alone.proof, REFERENCE)


def test_networks_with_hidden_layers_verify_in_the_reference_group() -> None:
    some, alone = made((1, 1, 1), 1)
    assert verify_joint(some.statement, alone.proof, REFERENCE) == verify_joint(some.statement, alone.proof)


# -- the statement ----------------------------------------------------------------------------------------------------


def altered(some: Case) -> dict[str, JointStatement]:
    """Each field in turn, to something that a session could have."""
    about = some.statement
    other = case((3, 2, 2), 2, seed=2)
    first = about.schema.features[0]
    layer, *layers = about.layers
    names = {
        "parameters": MpcParameters("mpc-65", 16, 64),
        "clinic": "st-berta",
        "owner": "lung-lab",
        "schema": replace(about.schema, features=(replace(first, maximum=0.75), *about.schema.features[1:])),
        "link": "margin",
        "output_names": ("y1", "y0"),
        "grid_bits": 7,
        "layers": (
            CommittedLayer(layer.shape, (*layer.commitments[:1], other.statement.layers[0].commitments[0])),
            *layers,
        ),
        "first": 64,
        "commitments": (about.commitments[0], other.statement.commitments[0]),
        "head_size": 8,
    }
    for field in fields(JointStatement):
        value = getattr(about, field.name)
        if isinstance(value, bytes):
            names[field.name] = bytes([value[0] ^ 1]) + value[1:]
    return {name: replace(about, **{name: value}) for name, value in names.items()}  # type: ignore[arg-type]


def challenge(statement: JointStatement) -> int:
    return joint_transcript(statement).challenge_scalar(b"zeta")


@pytest.mark.parametrize("name", [field.name for field in fields(JointStatement)])
def test_every_field_of_the_statement_is_bound(name: str) -> None:
    some, alone = made()
    other = altered(some)[name]
    assert getattr(other, name) != getattr(some.statement, name)
    assert challenge(other) != challenge(some.statement)
    with pytest.raises(VerificationFailed):
        verify_joint(other, alone.proof)


@pytest.mark.parametrize("name", ["weight_scale_bits", "b", "b_bias"])
@pytest.mark.parametrize("layer", [0, 1])
def test_every_number_of_a_layer_is_bound(name: str, layer: int) -> None:
    some, alone = made()
    layers = list(some.statement.layers)
    shape = replace(layers[layer].shape, **{name: getattr(layers[layer].shape, name) + 1})
    layers[layer] = replace(layers[layer], shape=shape)
    other = replace(some.statement, layers=tuple(layers))
    assert challenge(other) != challenge(some.statement)
    with pytest.raises(VerificationFailed):
        verify_joint(other, alone.proof)


def test_rows_patients_and_layers_keep_their_places() -> None:
    some, alone = made()
    about = some.statement
    first, second = about.layers
    for other in (
        replace(about, commitments=about.commitments[::-1]),
        replace(about, layers=(replace(first, commitments=first.commitments[::-1]), second)),
        replace(about, layers=(first, replace(second, commitments=second.commitments[::-1]))),
        replace(about, layers=(replace(first, commitments=second.commitments), second)),
    ):
        with pytest.raises(VerificationFailed):
            verify_joint(other, alone.proof)


def test_names_run_together_are_other_names() -> None:
    some, _ = made()
    about = some.statement
    both = [replace(about, clinic="ab", owner="c"), replace(about, clinic="a", owner="bc")]
    both += [replace(about, output_names=("ab", "c")), replace(about, output_names=("a", "bc"))]
    assert len({challenge(statement) for statement in both}) == 4


def test_a_network_of_other_values_has_no_proof_in_this_one() -> None:
    """Same shapes, other weights; same weights, other blindings."""
    some, alone = made()
    for rows in (
        [[replace(row, bias=row.bias + 1) for row in layer] for layer in some.rows],
        [[replace(row, rho=row.rho + 1) for row in layer] for layer in some.rows],
    ):
        shapes = [layer.shape for layer in some.statement.layers]
        other = replace(some.statement, layers=commit_rows(shapes, rows))
        with pytest.raises(VerificationFailed):
            verify_joint(other, alone.proof)


@pytest.mark.parametrize(
    "changes",
    [
        {"session": bytes(31)},
        {"head_root": b""},
        {"first": 1},
        {"commitments": ()},
        {"commitments": (bytes(48),) * 65},
        {"commitments": (bytes(47),)},
        {"layers": ()},
        {"output_names": ("only one",)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_no_statement_of_another_shape_can_be_made(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        replace(made()[0].statement, **changes)


def test_bounds_are_checked_before_anything_is_read() -> None:
    some, alone = made()
    first, second = some.statement.layers
    wide = replace(first, shape=replace(first.shape, b=60))
    for layers in ((wide, second), (first, first), (second, first)):
        names = tuple(f"y{o}" for o in range(layers[-1].shape.outputs))
        with pytest.raises(VerificationFailed) as refusal:
            verify_joint(replace(some.statement, layers=layers, output_names=names), alone.proof)
        assert refusal.value.check == "network.overflow"


# -- the bytes --------------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(place=st.integers(0, 10**6), change=st.integers(1, 255))
def test_no_altered_byte_survives(place: int, change: int) -> None:
    some, alone = made()
    data = bytearray(alone.proof)
    data[place % len(data)] ^= change
    with pytest.raises((DecodeError, VerificationFailed)):
        verify_joint(some.statement, bytes(data))


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        verify_joint(made()[0].statement, data)


def test_another_length_is_refused_before_anything_is_read() -> None:
    some, alone = made()
    for data in (alone.proof[:-1], alone.proof + b"\0", b"", alone.proof * 2):
        with pytest.raises(DecodeError, match="expected"):
            verify_joint(some.statement, data)
    other, another = made((3, 2, 2), 1)
    for statement, proof in ((some.statement, another.proof), (other.statement, alone.proof)):
        with pytest.raises(DecodeError, match="expected"):
            verify_joint(statement, proof)


def test_the_length_is_checked_without_building_the_circuit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The widest network that a ledger may hold has a million constraints' terms: no stranger makes us write them."""
    some, alone = made((4, 1), 1)
    monkeypatch.setattr(type(some.circuit), "system", property(lambda self: pytest.fail("the circuit was built")))
    with pytest.raises(DecodeError, match="expected"):
        verify_joint(some.statement, alone.proof[:-1])
    assert proof_size(some.circuit, 1) == len(alone.proof)


def test_scalars_have_one_spelling() -> None:
    some, alone = made((4, 1), 1)
    data = alone.proof
    found = 0
    for place in range(len(data) - 32 * 6, len(data), 32):
        value = int.from_bytes(data[place : place + 32], "little") + ORDER
        if value < 1 << 256:
            found += 1
            with pytest.raises(DecodeError, match="group order"):
                verify_joint(some.statement, data[:place] + value.to_bytes(32, "little") + data[place + 32 :])
    assert found


def test_a_commitment_that_is_no_point_is_refused() -> None:
    some, alone = made()
    for bad in (b"\xc0" + bytes(47), bytes(48), b"\xff" * 48):
        with pytest.raises(DecodeError):
            verify_joint(replace(some.statement, commitments=(bad, some.statement.commitments[1])), alone.proof)
        layer = some.statement.layers[0]
        layers = (replace(layer, commitments=(bad, layer.commitments[1])), some.statement.layers[1])
        with pytest.raises(DecodeError):
            verify_joint(replace(some.statement, layers=layers), alone.proof)
        tag = len(b"sealproof/joint-proof/v1\n")
        for place in range(4):
            at = tag + 48 * place
            with pytest.raises(DecodeError):
                verify_joint(some.statement, alone.proof[:at] + bad + alone.proof[at + 48 :])


def test_shares_of_a_commitment_cannot_be_moved_between_the_parties() -> None:
    """The sums are what the proof is about; both summands are bound all the same, so a proof has one spelling."""
    some, alone = made()
    tag, H = len(b"sealproof/joint-proof/v1\n"), answer_key().blinding
    for place in (0, 2, 4):  # hidden shares, and each answer's
        at = tag + 48 * place
        a, b = (ARKWORKS.decode(alone.proof[i : i + 48]) for i in (at, at + 48))
        moved = ARKWORKS.encode(ARKWORKS.add(a, H)) + ARKWORKS.encode(ARKWORKS.add(b, ARKWORKS.negate(H)))
        swapped = ARKWORKS.encode(b) + ARKWORKS.encode(a)
        for pair in (moved, swapped):
            with pytest.raises(VerificationFailed):
                verify_joint(some.statement, alone.proof[:at] + pair + alone.proof[at + 96 :])


def test_commitments_are_laid_out_patient_by_patient() -> None:
    some, alone = made()
    tag = len(b"sealproof/joint-proof/v1\n")
    points = [ARKWORKS.decode(alone.proof[i : i + 48]) for i in range(tag, tag + 48 * 12, 48)]
    commitments = JointCommitments.of_points(some.circuit, 2, points)
    assert commitments.points() == points
    answers = [ARKWORKS.encode(point) for patient in commitments.answers(ARKWORKS) for point in patient]
    assert tuple(answers) == verify_joint(some.statement, alone.proof)
    assert answers_digest(answers) == hashlib.sha256(b"sealproof/answers/v1\n" + b"".join(answers)).digest()
    assert answers_digest(answers) != answers_digest(answers[::-1])


def test_an_answer_that_hides_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """z = 0 under rho = 0 is the identity: everybody would know the answer. Its proof holds otherwise."""
    rows = [[replace(row, weights=(0,) * 4, bias=0) for row in layer] for layer in case((4, 1)).rows]
    some = case((4, 1), rows=rows)
    drawn, original = iter([5, ORDER - 5]), secrets.randbelow
    with monkeypatch.context() as planted:
        planted.setattr(secrets, "randbelow", lambda bound: next(drawn, None) or original(bound))
        alone = prove_alone(some)
    assert (alone.z, alone.rho) == ([0], [0])
    with pytest.raises(VerificationFailed) as refusal:
        verify_joint(some.statement, alone.proof)
    assert refusal.value.check == "joint.answer"


def test_a_proof_of_another_session_is_refused() -> None:
    some, alone = made()
    with pytest.raises(VerificationFailed):
        verify_joint(with_session(some, hashlib.sha256(b"another").digest()).statement, alone.proof)


def test_rows_of_a_layer_are_opened_under_one_key() -> None:
    some, _ = made()
    keys = row_keys(some.statement)
    assert [len(key) for key in keys] == list(some.circuit.common)
    assert keys[0] is keys[1] and keys[2] is keys[3] and keys[0] is not keys[2]
    assert joint_proof.hidden_key(some.circuit).points[0] != answer_key().points[0]
