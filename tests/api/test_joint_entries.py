"""Entries of multi-party computation say nothing that contradicts itself. Bytes and signatures: test_entries.py."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.entries import (
    MAX_ENTRY_BYTES,
    CommittedRecords,
    JointPrediction,
    JointProof,
    Network,
    NetworkLayer,
    Policy,
    Reference,
    decode_point_list,
    encode_point_list,
    sign_entry,
)
from privacy.errors import DecodeError, UsageError

AUTHOR = Reference(0, bytes(32))
POINT = b"\x80" * 48


def layer(inputs: int, outputs: int) -> NetworkLayer:
    return NetworkLayer(inputs, outputs, 10, 14, 34, (POINT,) * outputs)


def network(*widths: int) -> Network:
    layers = tuple(layer(a, b) for a, b in pairwise(widths))
    names = tuple(f"y{k}" for k in range(widths[-1]))
    fixed = (16, 6, 50, "identity", names, layers, bytes(32), bytes(32), {})
    return Network("net", "1", "mpc-64", bytes(32), *fixed)


def test_layers_of_a_network_fit_together() -> None:
    body = network(30, 16, 2)
    assert body.answer_scale_bits == 16 + 10 + 10
    with pytest.raises(UsageError, match="as many numbers"):
        replace(body, layers=(layer(30, 16), layer(15, 2)))
    with pytest.raises(UsageError, match="gives 2 numbers for 1 outputs"):
        replace(body, outputs=("y0",))
    with pytest.raises(UsageError, match="different names"):
        replace(body, outputs=("y0", "y0"))
    with pytest.raises(UsageError, match="at least one"):
        replace(body, layers=(), outputs=())
    with pytest.raises(UsageError, match="16 rows has 15 commitments"):
        NetworkLayer(30, 16, 10, 14, 34, (POINT,) * 15)


def test_the_largest_network_fits_into_an_entry() -> None:
    body = network(256, 250, 250, 12)
    assert len(sign_entry(body, AUTHOR, Ed25519PrivateKey.generate())) < MAX_ENTRY_BYTES


def test_records_have_a_certificate_and_predictions_a_proof() -> None:
    fixed = ("clinic", "mpc-64", bytes(32), 3, 1, bytes(32))
    with pytest.raises(UsageError, match="at least one certificate"):
        CommittedRecords(*fixed, (), bytes(32), Policy("any", None))
    with pytest.raises(UsageError, match="at least one proof"):
        JointPrediction(AUTHOR, AUTHOR, bytes(32), (), 36, 6, 1, bytes(32))


@pytest.mark.parametrize("firsts", [(0, 63), (0, 0), (64, 0)])
def test_no_patient_is_answered_twice(firsts: tuple[int, int]) -> None:
    proofs = tuple(JointProof(first, 64, bytes(32), 9, bytes(32)) for first in firsts)
    with pytest.raises(UsageError, match="never cover the same patient"):
        JointPrediction(AUTHOR, AUTHOR, bytes(32), proofs, 36, 6, 1, bytes(32))


def test_lists_of_points_have_exactly_the_expected_length() -> None:
    points = tuple(bytes([k]) * 48 for k in range(3))
    data = encode_point_list(points)
    assert decode_point_list(data, 3) == points
    for wrong in (data[:-1], data + b"\0", data[48:]):
        with pytest.raises(DecodeError):
            decode_point_list(wrong, 3)
    with pytest.raises(UsageError):
        encode_point_list([b"short"])
