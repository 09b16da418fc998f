"""No two different conversations give the same challenge."""

from __future__ import annotations

import hashlib

import pytest

from privacy.errors import UsageError
from privacy.zk import transcript as transcript_module
from privacy.zk.group import ORDER
from privacy.zk.transcript import PROTOCOL_TAG, Transcript


def digest_of(*frames: tuple[bytes, bytes], label: bytes = b"test") -> bytes:
    transcript = Transcript(label)
    for name, data in frames:
        transcript.absorb(name, data)
    return transcript.digest()


def unframed(*frames: tuple[bytes, bytes]) -> bytes:
    """The transcript as it must not be: labels and data run together."""
    return hashlib.shake_256(b"".join(name + data for name, data in frames)).digest(32)


# Pairs of conversations that a transcript without lengths confuses.
CONFUSED = {
    "a byte moved from label to data": ([(b"ab", b"c")], [(b"a", b"bc")]),
    "a byte moved from data to the next label": ([(b"a", b"bc"), (b"d", b"e")], [(b"a", b"b"), (b"cd", b"e")]),
    "a byte moved between two frames": ([(b"x", b"12"), (b"x", b"3")], [(b"x", b"1"), (b"2x", b"3")]),
    "two frames run into one": ([(b"x", b"1"), (b"x", b"2")], [(b"x", b"1x2")]),
    "an empty frame": ([(b"x", b"1")], [(b"x", b"1"), (b"", b"")]),
    "label and data split off an empty one": ([(b"x", b"")], [(b"", b"x")]),
}


@pytest.mark.parametrize("name", CONFUSED)
def test_framing_separates_what_concatenation_confuses(name):
    left, right = CONFUSED[name]
    assert unframed(*left) == unframed(*right)
    assert digest_of(*left) != digest_of(*right)


def test_order_label_data_and_proof_label_all_count():
    base = [(b"a", b"1"), (b"b", b"2")]
    others = [
        digest_of(*reversed(base)),
        digest_of((b"a", b"2"), (b"b", b"1")),
        digest_of((b"A", b"1"), (b"b", b"2")),
        digest_of((b"a", b"1")),
        digest_of(*base, base[0]),
        digest_of(*base, label=b"other"),
        digest_of(),
    ]
    assert len({digest_of(*base), *others}) == len(others) + 1


def test_data_that_imitates_a_frame_is_not_a_frame():
    frame = (1).to_bytes(8, "little") + b"b" + (1).to_bytes(8, "little") + b"2"
    assert digest_of((b"a", b"1" + frame)) != digest_of((b"a", b"1"), (b"b", b"2"))


def test_protocol_tag_is_absorbed(monkeypatch):
    before = digest_of()
    monkeypatch.setattr(transcript_module, "PROTOCOL_TAG", b"sealproof/v2")
    assert digest_of() != before


def test_state_is_shake_256_of_the_frames():
    def frame(label, data):
        return b"".join(len(part).to_bytes(8, "little") + part for part in (label, data))

    expected = hashlib.shake_256(
        frame(b"protocol", PROTOCOL_TAG)
        + frame(b"proof", b"kind")
        + frame(b"point", bytes(range(48)))
        + frame(b"n", (-2).to_bytes(64, "little", signed=True) + (3).to_bytes(64, "little"))
        + frame(b"challenge:zeta", (64).to_bytes(8, "little"))
    ).digest(64)
    transcript = Transcript(b"kind")
    transcript.absorb_point(b"point", bytes(range(48)))
    transcript.absorb_integers(b"n", [-2, 3])
    assert transcript.challenge_scalar(b"zeta") == int.from_bytes(expected, "little") % ORDER


def test_a_drawn_challenge_is_absorbed():
    drawn, silent = Transcript(b"test"), Transcript(b"test")
    drawn.challenge_bytes(b"zeta", 32)
    assert drawn.challenge_bytes(b"c", 32) != silent.challenge_bytes(b"c", 32)


def test_label_and_length_of_a_drawn_challenge_are_absorbed():
    def after(label, length):
        transcript = Transcript(b"test")
        transcript.challenge_bytes(label, length)
        return transcript.digest()

    assert len({after(b"zeta", 32), after(b"zeta", 64), after(b"rho", 32)}) == 3


def test_drawing_twice_gives_two_challenges():
    transcript = Transcript(b"test")
    assert transcript.challenge_bytes(b"c", 32) != transcript.challenge_bytes(b"c", 32)
    assert transcript.digest() != transcript.digest()


def test_a_longer_challenge_is_no_extension_of_a_shorter_one():
    assert Transcript(b"test").challenge_bytes(b"c", 64)[:32] != Transcript(b"test").challenge_bytes(b"c", 32)


def test_what_follows_a_challenge_still_counts():
    left, right = Transcript(b"test"), Transcript(b"test")
    assert left.challenge_scalar(b"zeta") == right.challenge_scalar(b"zeta")
    left.absorb(b"A", b"1")
    right.absorb(b"A", b"2")
    assert left.challenge_scalar(b"c") != right.challenge_scalar(b"c")


def test_integers_of_any_size_and_sign_have_one_encoding_each():
    def of(*calls):
        transcript = Transcript(b"test")
        for values in calls:
            transcript.absorb_integers(b"n", values)
        return transcript.digest()

    values = [0, 1, -1, 255, 256, -256, 2**510, -(2**511)]
    assert len({of([v]) for v in values}) == len(values)
    assert len({of([1, 2]), of([2, 1]), of([1], [2]), of([1, 2], []), of([1 + (2 << 64)])}) == 5
    for value in (2**511, -(2**511) - 1):
        with pytest.raises(UsageError, match="511 bits"):
            of([value])


def test_scalars_are_absorbed_as_residues():
    def of(values):
        transcript = Transcript(b"test")
        transcript.absorb_scalars(b"z", values)
        return transcript.digest()

    assert of([5]) == of([5 + ORDER]) == of([5 - ORDER])
    assert len({of([5]), of([6]), of([-5]), of([5, 0]), of([0, 5])}) == 5


@pytest.mark.parametrize("length", [0, 47, 49, 96])
def test_a_point_of_the_wrong_length_is_refused(length):
    with pytest.raises(UsageError, match="48 bytes"):
        Transcript(b"test").absorb_point(b"A", bytes(length))


def test_integer_challenges_fill_their_range_and_no_more():
    transcript = Transcript(b"test")
    for bits in (1, 8, 34, 64):
        values = transcript.challenge_integers(b"chi", 500, bits)
        assert len(values) == 500
        assert min(values) >= 0
        # 500 fair top bits are all zero with probability 2^-500.
        assert max(values).bit_length() == bits


def test_scalar_challenges_are_below_the_order_and_full_size():
    transcript = Transcript(b"test")
    values = [transcript.challenge_scalar(b"c") for _ in range(100)]
    assert len(set(values)) == 100
    # A value is below r/2 with probability 1/2: not all 100 are, except once in 2^100.
    assert ORDER // 2 < max(values) < ORDER


def test_absorbed_data_cannot_pass_for_a_drawn_challenge():
    # Without the reserved label, absorbing the right length would leave the same state as drawing.
    transcript = Transcript(b"t")
    with pytest.raises(UsageError, match="reserved"):
        transcript.absorb(b"challenge:c", (32).to_bytes(8, "little"))
