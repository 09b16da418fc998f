"""Committed records are integers of the schema's ranges, of one clinic, one cohort and one batch."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.models.network_quantise import feature_bits
from privacy.models.quantise import quantise_inputs
from privacy.models.schema import Feature, Schema
from privacy.mpc.params import PATIENTS_PER_PROOF, MpcParameters, batches, mpc_parameters
from privacy.mpc.records import (
    CommittedRecord,
    RecordsStatement,
    as_array,
    certify_records,
    commit_records,
    record_key,
    verify_records,
)
from privacy.zk.group import ARKWORKS, ORDER, REFERENCE
from privacy.zk.transcript import Transcript
from tests.support.joint_build import HANDLES, PARAMS, case

SCHEMA = Schema("ward", 1, (Feature("age", "year", 0.0, 120.0), Feature("crp", "mg/L", -1.0, 1.0)))
VALUES = [[63.0, 0.25], [0.0, -1.0], [120.0, 1.0]]


@cache
def made() -> tuple[RecordsStatement, tuple[CommittedRecord, ...], bytes]:
    commitments, openings = commit_records(SCHEMA, PARAMS, VALUES)
    statement = RecordsStatement(PARAMS, "st-anna", SCHEMA, HANDLES, 3, 0, commitments)
    return statement, openings, certify_records(statement, openings)


def test_a_batch_is_certified_and_verified() -> None:
    statement, openings, certificate = made()
    verify_records(statement, certificate)
    assert as_array(openings).tolist() == quantise_inputs(SCHEMA, VALUES, PARAMS.input_scale_bits).tolist()
    assert as_array(openings).dtype == np.int64
    assert [o.commit() for o in openings] == list(statement.commitments)


def test_the_reference_group_verifies_and_refuses() -> None:
    some = case((2, 1))
    verify_records(some.records_statement, some.certificate, REFERENCE)
    with pytest.raises(VerificationFailed):
        verify_records(replace(some.records_statement, clinic="other"), some.certificate, REFERENCE)


def altered_statements() -> dict[str, RecordsStatement]:
    """Each field in turn, to something that is a statement, too."""
    statement, _, _ = made()
    others = commit_records(SCHEMA, PARAMS, VALUES)[0]
    ranges = replace(SCHEMA, features=(replace(SCHEMA.features[0], maximum=121.0), SCHEMA.features[1]))
    return {
        "parameters": replace(statement, parameters=MpcParameters("mpc-65", 16, 64)),
        "clinic": replace(statement, clinic="st-berta"),
        "schema": replace(statement, schema=ranges),
        "handles": replace(statement, handles=bytes(32)),
        "total": replace(statement, total=67, first=64),
        "first": RecordsStatement(PARAMS, "st-anna", SCHEMA, HANDLES, 131, 128, statement.commitments),
        "commitments": replace(statement, commitments=(*statement.commitments[:2], others[2])),
    }


@pytest.mark.parametrize("name", [field.name for field in fields(RecordsStatement)])
def test_every_field_of_the_statement_is_bound(name: str) -> None:
    statement, _, certificate = made()
    other = altered_statements()[name]
    assert getattr(other, name) != getattr(statement, name)

    def challenge(some: RecordsStatement) -> int:
        transcript = Transcript(b"records-certificate")
        some.absorb(transcript)
        return transcript.challenge_scalar(b"zeta")

    assert challenge(other) != challenge(statement)
    with pytest.raises(VerificationFailed):
        verify_records(other, certificate)


def test_patients_keep_their_places() -> None:
    statement, _, certificate = made()
    for order in ((1, 0, 2), (2, 1, 0), (0, 0, 2)):
        moved = replace(statement, commitments=tuple(statement.commitments[i] for i in order))
        with pytest.raises(VerificationFailed):
            verify_records(moved, certificate)


def test_certificates_of_two_batches_do_not_serve_each_other() -> None:
    """Two full batches of the same patients: only `first` differs."""
    commitments, openings = commit_records(SCHEMA, PARAMS, [VALUES[0]] * PATIENTS_PER_PROOF)
    both = [
        RecordsStatement(PARAMS, "st-anna", SCHEMA, HANDLES, 2 * PATIENTS_PER_PROOF, first, commitments)
        for first in (0, PATIENTS_PER_PROOF)
    ]
    certificate = certify_records(both[0], openings)
    verify_records(both[0], certificate)
    with pytest.raises(VerificationFailed):
        verify_records(both[1], certificate)


@pytest.mark.parametrize("feature", [0, 1])
@pytest.mark.parametrize(("side", "inside"), [("least", True), ("most", True), ("below", False), ("above", False)])
def test_the_range_is_exact(feature: int, side: str, inside: bool) -> None:
    k = feature_bits(SCHEMA, PARAMS.input_scale_bits)[feature]
    value = {"least": -(1 << k), "most": (1 << k) - 1, "below": -(1 << k) - 1, "above": 1 << k}[side]
    values = [0, 0]
    values[feature] = value
    opening = CommittedRecord(tuple(values), 5)
    statement = RecordsStatement(PARAMS, "st-anna", SCHEMA, HANDLES, 1, 0, (opening.commit(),))
    if inside:
        verify_records(statement, certify_records(statement, [opening]))
        return
    with pytest.raises(UsageError, match="out of the range") as refusal:
        certify_records(statement, [opening])
    assert str(abs(value)) not in str(refusal.value)


def test_honest_records_are_within_the_certified_range() -> None:
    for feature in (Feature("a", "1", -1.0, 1.0), Feature("b", "1", 0.0, 300.0), Feature("c", "1", -5e-324, 1e9)):
        schema = Schema("edges", 1, (feature,))
        (k,) = feature_bits(schema, PARAMS.input_scale_bits)
        edges = [[feature.minimum], [feature.maximum]]
        for value in quantise_inputs(schema, edges, PARAMS.input_scale_bits).ravel().tolist():
            assert -(1 << k) <= value < 1 << k


def test_the_prover_refuses_what_is_not_its_own() -> None:
    statement, openings, _ = made()
    for others in (
        openings[::-1],
        openings[:2],
        (*openings[:2], replace(openings[2], rho=openings[2].rho + 1)),
        (*openings[:2], CommittedRecord((0, 0), openings[2].rho)),
    ):
        with pytest.raises(UsageError, match="do not open"):
            certify_records(statement, others)


def test_values_outside_the_schema_are_not_committed() -> None:
    for values in ([[121.0, 0.0]], [[-0.5, 0.0]], [[float("nan"), 0.0]], [[1.0]]):
        with pytest.raises(UsageError):
            commit_records(SCHEMA, PARAMS, values)


def test_blindings_are_fresh_and_secrets_are_not_shown() -> None:
    first, openings = commit_records(SCHEMA, PARAMS, [VALUES[0]] * 4)
    second, _ = commit_records(SCHEMA, PARAMS, [VALUES[0]] * 4)
    assert len({*first, *second}) == 8
    assert repr(openings[0]) == "CommittedRecord()"


@pytest.mark.parametrize(
    "changes",
    [
        {"total": 4},
        {"total": 0},
        {"total": -1},
        {"first": 1},
        {"first": 64},
        {"first": -64, "total": 3},
        {"commitments": ()},
        {"commitments": (bytes(47),) * 3},
        {"handles": bytes(31)},
    ],
    ids=str,
)
def test_no_statement_of_another_shape_can_be_made(changes: dict[str, Any]) -> None:
    statement, _, _ = made()
    with pytest.raises(UsageError):
        replace(statement, **changes)


def test_batches_cover_every_patient_once() -> None:
    for count in (1, 63, 64, 65, 128, 200):
        parts = batches(count)
        assert [p for part in parts for p in part] == list(range(count))
        assert all(len(part) == PATIENTS_PER_PROOF for part in parts[:-1])
    with pytest.raises(UsageError, match="unknown parameter set"):
        mpc_parameters("mpc-32")


@pytest.mark.parametrize("bad", [b"\xc0" + bytes(47), bytes(48), b"\xff" * 48], ids=["identity", "no flag", "large"])
def test_a_commitment_that_is_no_point_is_refused(bad: bytes) -> None:
    statement, _, certificate = made()
    with pytest.raises(DecodeError):
        verify_records(replace(statement, commitments=(bad, *statement.commitments[1:])), certificate)


def test_records_of_fewer_features_are_others() -> None:
    """Com(x_1; rho) is Com(x_1, 0; rho): the schema says how many features there are, and it is bound."""
    one = replace(SCHEMA, features=SCHEMA.features[:1])
    opening = CommittedRecord((5,), 7)
    assert opening.commit() == CommittedRecord((5, 0), 7).commit()
    assert record_key(2).points[:1] == record_key(1).points
    statement = RecordsStatement(PARAMS, "st-anna", one, HANDLES, 1, 0, (opening.commit(),))
    certificate = certify_records(statement, [opening])
    with pytest.raises(DecodeError, match="expected"):
        verify_records(replace(statement, schema=SCHEMA), certificate)


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 10**6), change=st.integers(1, 255))
def test_no_altered_byte_survives(place: int, change: int) -> None:
    statement, _, certificate = made()
    data = bytearray(certificate)
    data[place % len(data)] ^= change
    with pytest.raises((DecodeError, VerificationFailed)):
        verify_records(statement, bytes(data))


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        verify_records(made()[0], data)


def test_another_length_is_refused_before_anything_is_read() -> None:
    statement, _, certificate = made()
    for data in (certificate[:-1], certificate + b"\0", b""):
        with pytest.raises(DecodeError, match="expected"):
            verify_records(statement, data)
    data = bytearray(certificate)
    data[-32:] = (int.from_bytes(data[-32:], "little") % ORDER + ORDER).to_bytes(32, "little")
    with pytest.raises(DecodeError, match="group order"):
        verify_records(statement, bytes(data))


def test_two_certificates_of_one_batch_share_no_message() -> None:
    statement, openings, certificate = made()
    again = certify_records(statement, openings)
    tag = len(b"sealproof/records-certificate/v1\n")
    points = [{data[i : i + 48] for i in range(tag, tag + 48 * 11, 48)} for data in (certificate, again)]
    assert len(points[0]) == 11 and not points[0] & points[1]
    assert ARKWORKS.decode(certificate[tag : tag + 48]) is not None
