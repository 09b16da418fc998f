"""What is disclosed of one committed answer is true of it, and is bound to every word of the statement."""

from __future__ import annotations

import secrets
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.mpc.answers import AnswerOpening
from privacy.mpc.disclosure import AnswerStatement, Kind, disclose_answer, statement_about, verify_answer
from privacy.mpc.joint_proof import answer_key
from privacy.zk.group import ARKWORKS, ORDER, POINT_BYTES, REFERENCE, SCALAR_BYTES

BOUND, SCALE, GRID = (1 << 40) + 12_345, 36, 6
STEP = 1 << (SCALE - GRID)
KINDS: tuple[Kind, ...] = ("open", "exact", "threshold")
TAG = b"sealproof/answer-disclosure/v1\n"


def opening_of(z: int) -> tuple[AnswerOpening, bytes]:
    rho = secrets.randbelow(ORDER)
    return AnswerOpening(z, rho), ARKWORKS.encode(answer_key().commit([z % ORDER], rho))


def about(
    z: int, kind: Kind, *, threshold: int = 0, tolerance: int = 1, **changes: Any
) -> tuple[AnswerStatement, AnswerOpening]:
    """A true statement about z, and its opening."""
    opening, answer = opening_of(z)
    said = {
        "prediction_id": bytes([1] * 32),
        "handle": bytes([2] * 32),
        "patient": 3,
        "output": 1,
        "answer": answer,
        "scale_bits": SCALE,
        "grid_bits": GRID,
        "bound": BOUND,
        "recipient_nonce": bytes([4] * 32),
        **changes,
    }
    return statement_about(opening, kind, threshold=threshold, tolerance=tolerance, **said), opening


def proven(z: int, kind: Kind, **changes: Any) -> AnswerStatement:
    """A true statement, proven and verified."""
    statement, opening = about(z, kind, **changes)
    verify_answer(statement, disclose_answer(statement, opening))
    return statement


def refused(statement: AnswerStatement, proof: bytes) -> None:
    with pytest.raises((VerificationFailed, DecodeError)):
        verify_answer(statement, proof)


# -- what is true -----------------------------------------------------------------------------------------------------

VALUES = [0, 1, -1, STEP, -STEP, STEP // 2, -STEP // 2, STEP // 2 - 1, -STEP // 2 - 1, 5 * STEP + 77, -5 * STEP + 77]


@pytest.mark.parametrize("z", [*VALUES, BOUND, -BOUND])
def test_an_open_disclosure_is_the_number_itself(z: int) -> None:
    assert proven(z, "open").value == z


@pytest.mark.parametrize("z", VALUES)
@pytest.mark.parametrize("tolerance", [1, 2, 50])
def test_an_exact_disclosure_is_the_nearest_point_of_the_grid(z: int, tolerance: int) -> None:
    statement = proven(z, "exact", tolerance=tolerance)
    assert abs(statement.value * STEP - z) * 2 <= STEP
    assert statement.low <= z < statement.high


@pytest.mark.parametrize("z", VALUES)
def test_a_threshold_is_proven_up_to_the_answer_and_no_further(z: int) -> None:
    reached = z // STEP
    proven(z, "threshold", threshold=reached)
    proven(z, "threshold", threshold=reached - 1000)
    with pytest.raises(UsageError, match="does not reach"):
        about(z, "threshold", threshold=reached + 1)


@settings(max_examples=25, deadline=None)
@given(st.integers(-BOUND, BOUND), st.sampled_from(KINDS), st.integers(1, 300))
def test_every_answer_that_a_network_can_give_is_disclosed(z: int, kind: Kind, tolerance: int) -> None:
    inside = abs(z) + (tolerance + 1) * STEP <= BOUND
    if kind == "exact" and not inside:
        return
    below = max(z // STEP - tolerance, -(BOUND // STEP))
    if kind == "threshold" and z < below * STEP:
        return
    proven(z, kind, tolerance=tolerance, threshold=below)


def test_the_ends_of_the_range_can_be_said() -> None:
    """At z_max a threshold leaves one number, which takes a range proof of no bits; at -z_max it says nothing."""
    top = 1 << 30
    assert proven(top, "threshold", threshold=top // STEP, bound=top).range_bits == 0
    assert proven(-top, "threshold", threshold=-top // STEP, bound=top).range_bits == 32
    assert proven(0, "exact", tolerance=top // STEP, bound=top).range_bits == 31


@pytest.mark.parametrize("grid_bits", [0, SCALE])
def test_the_coarsest_and_the_finest_grid(grid_bits: int) -> None:
    step = 1 << (SCALE - grid_bits)
    for z in (0, 5, -5, 2**35 + 1):
        for kind in KINDS:
            if kind == "exact" and abs(z) + 2 * step > BOUND:
                continue
            found = proven(z, kind, grid_bits=grid_bits, threshold=z // step)
            assert found.step == step
    finest = proven(5, "exact", grid_bits=SCALE)
    assert (finest.value, finest.low, finest.high, finest.range_bits) == (5, 4, 6, 1)


# -- what is not ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [0, -1, 1 << 62])
def test_a_bound_that_no_network_has_is_refused(bound: int) -> None:
    with pytest.raises(UsageError, match="bound"):
        about(0, "open", bound=bound)


def test_statements_that_nobody_can_make_are_refused() -> None:
    for kind, options, words in (
        ("open", {"z": BOUND + 1}, "no answer of this network is that large"),
        ("open", {"z": -BOUND - 1}, "no answer of this network is that large"),
        ("exact", {"tolerance": 0}, "one grid step or more"),
        ("exact", {"tolerance": -1}, "one grid step or more"),
        ("exact", {"z": BOUND - STEP // 4}, "leaves the range"),
        ("exact", {"z": -BOUND + STEP // 4}, "leaves the range"),
        ("exact", {"tolerance": BOUND // STEP + 1}, "leaves the range"),
        ("threshold", {"threshold": -BOUND // STEP - 1}, "reaches that threshold"),
        ("open", {"patient": -1}, "no disclosure"),
        ("open", {"output": -1}, "no disclosure"),
        ("open", {"handle": bytes(31)}, "32 bytes"),
        ("open", {"prediction_id": bytes(33)}, "32 bytes"),
        ("open", {"recipient_nonce": b""}, "32 bytes"),
        ("open", {"answer": bytes(47)}, "48"),
    ):
        changed: Any = dict(options)
        with pytest.raises(UsageError, match=words):
            about(changed.pop("z", 0), kind, **changed)  # type: ignore[arg-type]
    statement, _ = about(0, "open")
    for changes in (
        {"kind": "all"},
        {"kind": "threshold", "value": BOUND // STEP + 1},
        {"tolerance": 1},
        {"grid_bits": SCALE + 1},
    ):
        with pytest.raises(UsageError):
            replace(statement, **changes)


def test_a_false_statement_has_no_proof() -> None:
    for z in (300 * STEP, -300 * STEP, 17):
        statement, opening = about(z, "open")
        for changes in (
            {"value": z + 1},
            {"value": z - 1},
            {"kind": "exact", "value": z // STEP + 5, "tolerance": 4},
            {"kind": "exact", "value": z // STEP - 5, "tolerance": 4},
            {"kind": "threshold", "value": z // STEP + 1},
        ):
            with pytest.raises(UsageError, match="not true of the answer"):
                disclose_answer(replace(statement, **changes), opening)


def test_an_opening_of_another_answer_is_refused() -> None:
    statement, opening = about(1000, "open")
    for other in (opening_of(1000)[0], replace(opening, z=1001), replace(opening, rho=opening.rho ^ 1)):
        with pytest.raises(UsageError, match="not that of the answer"):
            disclose_answer(statement, other)


# -- every word is bound ----------------------------------------------------------------------------------------------


def altered(statement: AnswerStatement) -> dict[str, list[Any]]:
    """Other values of every field, with which the statement could still be made, some of them true as well."""
    kinds: dict[str, list[dict[str, Any]]] = {
        "open": [{"kind": "threshold", "value": statement.value // STEP}],
        "exact": [{"kind": "threshold", "tolerance": 0}],
        "threshold": [{"kind": "exact", "tolerance": 1}, {"kind": "open"}],
    }
    changes: dict[str, list[Any]] = {
        "prediction_id": [bytes(32)],
        "handle": [bytes(32)],
        "patient": [0, 4],
        "output": [0, 2],
        "answer": [opening_of(0)[1], ARKWORKS.encode(ARKWORKS.hash_to_curve(b"another"))],
        "scale_bits": [SCALE + 1, SCALE - 1],
        "grid_bits": [GRID + 1, GRID - 1],
        "bound": [BOUND + 1, BOUND - 1, BOUND * 2],
        "value": [statement.value + 1, statement.value - 1, -statement.value],
        "recipient_nonce": [bytes(32)],
        "grant_id": [bytes(32)],
        "tolerance": [2, 3] if statement.kind == "exact" else [],
    }
    found = {name: [{name: value} for value in values] for name, values in changes.items()}
    return found | {"kind": kinds[statement.kind]}


@pytest.mark.parametrize("kind", ["exact", "threshold"])
def test_every_field_of_a_statement_is_bound(kind: Kind) -> None:
    """Also where the altered statement is true: a weaker threshold, a wider interval, another recipient."""
    statement, opening = about(300 * STEP + 5, kind, threshold=250)
    proof = disclose_answer(statement, opening)
    cases = altered(statement)
    assert set(cases) == {field.name for field in fields(AnswerStatement)}
    for name, variants in cases.items():
        assert variants or name == "tolerance"
        for changes in variants:
            refused(replace(statement, **changes), proof)
    verify_answer(statement, proof)


def test_an_opening_says_what_the_answer_is_and_nothing_else() -> None:
    """Nonce, place and handle of an opening are in the signed statement; its numbers are the answer's."""
    statement, opening = about(300 * STEP + 5, "open")
    proof = disclose_answer(statement, opening)
    for name in ("answer", "value", "kind"):
        for changes in altered(statement)[name]:
            refused(replace(statement, **changes), proof)
    wrapped = statement.value - ORDER
    with pytest.raises(UsageError, match="that large"):
        replace(statement, value=wrapped)


def test_the_two_sides_of_an_interval_are_not_exchanged() -> None:
    """Com(z - lo) and Com(hi - 1 - z) have transcripts of their own, even where they are the same number."""
    opening, answer = opening_of(0)
    statement, _ = about(0, "exact", tolerance=1)
    statement = replace(statement, answer=answer)
    proof = disclose_answer(statement, opening)
    half = (len(proof) - len(TAG)) // 2
    first, second = proof[len(TAG) : len(TAG) + half], proof[len(TAG) + half :]
    refused(statement, TAG + second + first)
    refused(statement, TAG + first + first)
    refused(statement, TAG + second + second)


def test_one_side_of_an_interval_is_not_enough() -> None:
    statement, opening = about(300 * STEP, "exact")
    proof = disclose_answer(statement, opening)
    half = (len(proof) - len(TAG)) // 2
    refused(statement, proof[: len(TAG) + half])


# -- bytes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_size_follows_from_the_statement_and_tells_nothing_of_the_answer(kind: Kind) -> None:
    sizes = set()
    for z in (300 * STEP, 301 * STEP - 1, 300 * STEP + STEP // 3):
        statement, opening = about(z, kind, threshold=-5)
        sizes.add((statement.range_bits if kind != "open" else 0, len(disclose_answer(statement, opening))))
    ((bits, size),) = sizes
    if kind == "open":
        assert size == len(TAG) + SCALAR_BYTES
    else:
        one = 5 * POINT_BYTES + SCALAR_BYTES * (bits + 4)
        assert size == len(TAG) + one * (2 if kind == "exact" else 1)


def test_the_number_of_bits_is_not_the_provers_to_choose() -> None:
    """A k that fits the answer would tell its size: the verifier recomputes it and reads no other."""
    statement, opening = about(5, "threshold", threshold=0)
    assert statement.range_bits == BOUND.bit_length()
    assert "range_bits" not in {field.name for field in fields(AnswerStatement)}
    narrow = replace(statement, bound=7)
    refused(statement, disclose_answer(narrow, opening))


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_that_are_not_exactly_a_disclosure_are_refused(kind: Kind) -> None:
    statement, opening = about(300 * STEP, kind, threshold=250)
    proof = disclose_answer(statement, opening)
    for data in (b"", TAG, proof[:-1], proof + b"\0", proof[1:], TAG[:-2] + b"2\n" + proof[len(TAG) :], bytes(5000)):
        with pytest.raises(DecodeError):
            verify_answer(statement, data)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 10_000), st.integers(0, 7))
def test_a_disclosure_with_one_bit_changed_is_refused(kind: Kind, place: int, bit: int) -> None:
    statement, opening = _PROVEN.setdefault(kind, _prove(kind))[:2]
    proof = bytearray(_PROVEN[kind][2])
    proof[place % len(proof)] ^= 1 << bit
    refused(statement, bytes(proof))
    assert opening.z == 300 * STEP


def _prove(kind: Kind) -> tuple[AnswerStatement, AnswerOpening, bytes]:
    statement, opening = about(300 * STEP, kind, threshold=250)
    return statement, opening, disclose_answer(statement, opening)


_PROVEN: dict[str, tuple[AnswerStatement, AnswerOpening, bytes]] = {}


@pytest.mark.parametrize("kind", KINDS)
def test_scalars_have_one_encoding(kind: Kind) -> None:
    statement, opening = about(300 * STEP, kind, threshold=250)
    proof = disclose_answer(statement, opening)
    last = int.from_bytes(proof[-32:], "little")
    if last + ORDER < 1 << 256:
        with pytest.raises(DecodeError):
            verify_answer(statement, proof[:-32] + (last + ORDER).to_bytes(32, "little"))
    with pytest.raises(DecodeError):
        verify_answer(statement, proof[:-32] + b"\xff" * 32)


@pytest.mark.parametrize("answer", [bytes(48), b"\xc0" + bytes(47), b"\xff" * 48])
def test_an_answer_that_is_no_commitment_is_refused(answer: bytes) -> None:
    for kind in KINDS:
        statement, opening = about(300 * STEP, kind, threshold=250)
        proof = disclose_answer(statement, opening)
        refused(replace(statement, answer=answer), proof)


def test_nothing_of_the_opening_is_in_a_proof_of_a_range() -> None:
    for kind in ("exact", "threshold"):
        statement, opening = about(300 * STEP, kind, threshold=250)  # type: ignore[arg-type]
        proof = disclose_answer(statement, opening)
        for value in (opening.rho, -opening.rho % ORDER, opening.z, opening.z - statement.low):
            assert value.to_bytes(32, "little") not in proof
        assert proof != disclose_answer(statement, opening)


def test_openings_are_not_shown() -> None:
    opening, _ = opening_of(123_456)
    assert repr(opening) == "AnswerOpening()"


def test_the_independent_implementation_of_the_curve_agrees() -> None:
    statement, opening = about(3, "exact", scale_bits=8, grid_bits=8, bound=100)
    verify_answer(statement, disclose_answer(statement, opening), REFERENCE)
