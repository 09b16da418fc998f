"""Inner products over F_r add up from shares, and what is exchanged for them is uniform and used once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from privacy.errors import SessionBroken, UsageError
from privacy.mpc.channel import memory_channels
from privacy.mpc.dealer import Correlations, FieldProducts, deal
from privacy.mpc.shares import exchange, inner_products, receive_scalars, send_scalars, unpack_scalars
from privacy.zk.group import ORDER
from privacy.zk.wire import pack_scalars
from tests.support.joint_build import TappedChannel, tapped_channels


def both(
    lengths: Sequence[int],
    X: Sequence[int],
    Y: Sequence[int],
    channels: tuple[TappedChannel, ...] | None = None,
    dealt: tuple[bytes, bytes] | None = None,
) -> tuple[list[int], list[int]]:
    plan = (FieldProducts(tuple(lengths)),)
    channels = channels or tapped_channels()
    dealt = dealt or deal(plan)

    def one(place: int) -> list[int]:
        role = "AB"[place]
        correlations = Correlations(role, plan, dealt[place])
        return inner_products(role, channels[place], "test", correlations, lengths, (X, Y)[place])

    with ThreadPoolExecutor(2) as threads:
        of_A, of_B = threads.map(one, range(2))
    return of_A, of_B


def vectors(lengths: Sequence[int], seed: int) -> tuple[list[int], list[int]]:
    draw = Random(seed)
    return tuple([draw.choice((0, 1, ORDER - 1, draw.randrange(ORDER))) for _ in range(sum(lengths))] for _ in "XY")  # type: ignore[return-value]


@pytest.mark.parametrize("lengths", [(1,), (5,), (1, 1, 1), (3, 1, 4, 1, 5), (40,) * 7], ids=str)
def test_shares_add_up_to_the_inner_products(lengths: tuple[int, ...]) -> None:
    X, Y = vectors(lengths, len(lengths))
    of_A, of_B = both(lengths, X, Y)
    at = 0
    for length, a, b in zip(lengths, of_A, of_B, strict=True):
        expected = sum(x * y for x, y in zip(X[at : at + length], Y[at : at + length], strict=True))
        assert (a + b - expected) % ORDER == 0
        assert 0 <= a < ORDER and 0 <= b < ORDER
        at += length


def test_negative_integers_are_residues() -> None:
    of_A, of_B = both((2,), [-3, 5], [7, -11])
    assert (of_A[0] + of_B[0] + 21 + 55) % ORDER == 0


def test_equal_inputs_give_different_messages_and_shares() -> None:
    """No coordinate of either party's message repeats, nor a share."""
    X, Y = vectors((6, 2), 1)
    runs = []
    for _ in range(2):
        channels = tapped_channels()
        shares = both((6, 2), X, Y, channels)
        sent = [unpack_scalars("test", data) for channel in channels for _, data in channel.frames]
        runs.append([*shares, *sent])
    for left, right in zip(*runs, strict=True):
        assert not set(left) & set(right)
        assert not set(left) & set(X + Y)


def test_a_mask_is_never_used_twice() -> None:
    plan = (FieldProducts((2,)),)
    dealt = deal(plan)
    A, _ = memory_channels(timeout=0.1)
    correlations = Correlations("A", plan, dealt[0])
    with pytest.raises(SessionBroken):
        inner_products("A", A, "test", correlations, (2,), [1, 2])
    with pytest.raises(UsageError, match="used up"):
        inner_products("A", A, "test", correlations, (2,), [3, 4])


def test_two_messages_under_one_mask_would_tell_their_difference() -> None:
    """The weakened dealer: the same randomness for two products."""
    plan = (FieldProducts((2,)),)
    dealt = deal(plan)
    messages = []
    for X in ([10, 20], [13, 29]):
        channels = tapped_channels()
        both((2,), X, [1, 1], channels, dealt)
        messages.append(unpack_scalars("test", channels[0].frames[0][1]))
    assert [(y - x) % ORDER for x, y in zip(*messages, strict=True)] == [3, 9]


def test_another_number_of_coordinates_is_refused_before_anything_is_sent() -> None:
    A, _ = memory_channels()
    plan = (FieldProducts((2, 1)),)
    correlations = Correlations("A", plan, deal(plan)[0])
    with pytest.raises(UsageError, match="groups of 3"):
        inner_products("A", A, "test", correlations, (2, 1), [1, 2])
    assert (A.sent_bytes, correlations.left) == (0, 1)


def test_wrong_randomness_gives_a_wrong_product() -> None:
    """It is the joint proof that finds out, not this."""
    plan = (FieldProducts((2,)),)
    a, b = deal(plan)
    b = b[:32] + bytes([b[32] ^ 1]) + b[33:]
    of_A, of_B = both((2,), [1, 2], [3, 4], dealt=(a, b))
    assert abs((of_A[0] + of_B[0]) % ORDER - 11) == 1


@pytest.mark.parametrize("bad", [ORDER, ORDER + 1, (1 << 256) - 1])
def test_a_scalar_that_is_not_reduced_ends_the_session(bad: int) -> None:
    A, B = memory_channels()
    B.send("x", (5).to_bytes(32, "little") + bad.to_bytes(32, "little"))
    with pytest.raises(SessionBroken) as broken:
        receive_scalars(A, "x", 2)
    assert broken.value.check == "mpc.scalar"
    channels = tapped_channels(tap_B=lambda label, data: bad.to_bytes(32, "little"), timeout=0.5)
    with pytest.raises(SessionBroken) as broken:
        both((1,), [1], [2], channels)
    assert broken.value.check == "mpc.scalar"


def test_scalars_are_sent_as_they_are() -> None:
    A, B = memory_channels()
    values = [0, 1, ORDER - 1]
    send_scalars(A, "x", values)
    assert receive_scalars(B, "x", 3) == values
    assert unpack_scalars("x", pack_scalars(values)) == values
    assert unpack_scalars("x", b"") == []


def test_A_sends_first_and_B_answers() -> None:
    A, B = memory_channels(timeout=0.2)
    with pytest.raises(SessionBroken):
        exchange("B", B, "x", b"1", 1)
    assert B.sent_bytes == 0
    with pytest.raises(SessionBroken):
        exchange("A", A, "x", b"1", 1)
    assert A.sent_bytes > 0
