"""Answers are opened from both parties' shares, against the commitments of a verified proof, or not at all."""

from __future__ import annotations

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.mpc.answers import AnswerOpening, AnswerShare, decode_shares, encode_shares, open_answers
from privacy.mpc.joint_proof import answer_key
from privacy.zk.group import ARKWORKS, ORDER, REFERENCE
from privacy.zk.wire import pack_scalars

ANSWERS = [0, 5, -5, (1 << 61), -(1 << 61)]
BOUND = 1 << 61


def shared(value: int) -> tuple[int, int]:
    share = secrets.randbelow(ORDER)
    return share, (value - share) % ORDER


def made(answers: list[int] = ANSWERS) -> tuple[list[bytes], list[AnswerShare], list[AnswerShare], list[int]]:
    rhos = [secrets.randbelow(ORDER) for _ in answers]
    points = [ARKWORKS.encode(answer_key().commit([z], rho)) for z, rho in zip(answers, rhos, strict=True)]
    pairs = [(shared(z), shared(rho)) for z, rho in zip(answers, rhos, strict=True)]
    mine, theirs = ([AnswerShare(z[side], rho[side]) for z, rho in pairs] for side in (0, 1))
    return points, mine, theirs, rhos


def test_shares_of_both_open_the_answers() -> None:
    points, mine, theirs, rhos = made()
    openings = open_answers(points, mine, theirs, BOUND)
    assert [o.z for o in openings] == ANSWERS
    assert [o.rho for o in openings] == rhos
    assert open_answers(points, theirs, mine, BOUND) == openings


def test_the_reference_group_agrees() -> None:
    points, mine, theirs, _ = made([7])
    assert open_answers(points, mine, theirs, BOUND, REFERENCE)[0].z == 7


@pytest.mark.parametrize("change", ["z", "rho", "both", "exchanged", "another session", "too few", "too many"])
def test_wrong_shares_of_the_other_party_open_nothing(change: str) -> None:
    points, mine, theirs, _ = made()
    one = theirs[1]
    bad = {
        "z": [theirs[0], AnswerShare((one.z + 1) % ORDER, one.rho), *theirs[2:]],
        "rho": [theirs[0], AnswerShare(one.z, (one.rho + 1) % ORDER), *theirs[2:]],
        "both": [theirs[0], AnswerShare((one.z + 1) % ORDER, (one.rho - 1) % ORDER), *theirs[2:]],
        "exchanged": theirs[::-1],
        "another session": made()[2],
        "too few": theirs[:-1],
        "too many": [*theirs, one],
    }[change]
    with pytest.raises(VerificationFailed) as refusal:
        open_answers(points, mine, bad, BOUND)
    assert refusal.value.check == "joint.share"


def test_an_answer_beyond_the_bound_is_not_read() -> None:
    points, mine, theirs, _ = made()
    open_answers(points, mine, theirs, BOUND)
    with pytest.raises(VerificationFailed, match="bound"):
        open_answers(points, mine, theirs, BOUND - 1)


def test_a_fraction_is_not_an_answer() -> None:
    points, mine, theirs, _ = made([pow(3, -1, ORDER)])
    with pytest.raises(VerificationFailed, match="bound"):
        open_answers(points, mine, theirs, (1 << 62) - 1)


def test_one_party_s_shares_say_nothing() -> None:
    """Equal answers twice: no share repeats."""
    first, second = made([5] * 4), made([5] * 4)
    values = [v for run in (first, second) for part in run[1:3] for s in part for v in (s.z, s.rho)]
    assert len(set(values)) == len(values)


def test_encodings_round_trip_and_are_strict() -> None:
    _, mine, _, _ = made()
    data = encode_shares(mine)
    assert len(data) == 64 * len(mine)
    assert decode_shares(data) == tuple(mine)
    assert decode_shares(b"") == ()
    for length in (1, 32, 63, 65, 64 * len(mine) - 1):
        with pytest.raises(DecodeError):
            decode_shares((data + bytes(64))[:length])
    for place in range(0, len(data), 32):
        with pytest.raises(DecodeError, match="group order"):
            decode_shares(data[:place] + ORDER.to_bytes(32, "little") + data[place + 32 :])


@given(st.binary(max_size=200))
def test_any_bytes_are_shares_or_refused(data: bytes) -> None:
    try:
        shares = decode_shares(data)
    except DecodeError:
        return
    assert encode_shares(shares) == data


def test_shares_are_residues_and_secrets_are_not_shown() -> None:
    for z, rho in ((-1, 0), (0, -1), (ORDER, 0), (0, ORDER)):
        with pytest.raises(UsageError, match="share"):
            AnswerShare(z, rho)
    assert repr(AnswerShare(12345, 6789)) == "AnswerShare()"
    assert repr(AnswerOpening(12345, 6789)) == "AnswerOpening()"
    assert pack_scalars([12345, 6789]) == encode_shares([AnswerShare(12345, 6789)])
