"""Both parties learn whether P = (tau_A + tau_B) H, and of a difference not more than that there is one."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from privacy.errors import PrivacyError, SessionBroken, VerificationFailed
from privacy.mpc.blind_check import check_blindly
from privacy.zk.group import ARKWORKS, ORDER
from privacy.zk.quadratic import scalar_commitment_key
from tests.support.joint_build import TappedChannel, tapped_channels

KEY = scalar_commitment_key(ARKWORKS)
G, H = KEY.points[0], KEY.blinding


def both(e: int, taus: tuple[int, int], channels: tuple[TappedChannel, ...] | None = None) -> list[PrivacyError | None]:
    """What each party says of P = tau H + e G."""
    P = KEY.commit([e], sum(taus) % ORDER)
    channels = channels or tapped_channels(timeout=5)

    def one(place: int) -> PrivacyError | None:
        try:
            check_blindly("AB"[place], channels[place], KEY, P, taus[place])  # type: ignore[arg-type]
        except PrivacyError as error:
            channels[place].abort(str(error))
            return error
        return None

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(one, range(2)))


def scalar() -> int:
    return secrets.randbelow(ORDER)


def test_a_point_that_is_the_sum_passes_with_both() -> None:
    for taus in ((scalar(), scalar()), (1, ORDER - 2), (5, ORDER - 4)):
        assert both(0, taus) == [None, None]


@pytest.mark.parametrize("e", [1, -1, 12345, ORDER // 2])
def test_any_difference_is_found_by_both(e: int) -> None:
    of_A, of_B = both(e % ORDER, (scalar(), scalar()))
    assert isinstance(of_B, VerificationFailed) and of_B.check == "joint.blind-check"
    assert isinstance(of_A, SessionBroken) and of_A.check == "mpc.aborted"


def test_B_answers_only_when_it_has_seen_that_the_difference_is_zero() -> None:
    channels = tapped_channels(timeout=1)
    both(1, (scalar(), scalar()), channels)
    assert [len(channel.frames) for channel in channels] == [1, 0]


def test_messages_differ_from_run_to_run() -> None:
    taus = (3, 4)
    sent = []
    for _ in range(2):
        channels = tapped_channels()
        both(0, taus, channels)
        sent += [data[i : i + 48] for channel in channels for _, data in channel.frames for i in (0, 48)]
    assert len(set(sent)) == len(sent) == 8


def test_a_small_difference_cannot_be_looked_up() -> None:
    """B knows P, tau_B and what A sent. All candidates for e that it can think of leave it where it was."""
    e, taus = 7, (scalar(), scalar())
    channels = tapped_channels(timeout=1)
    both(e, taus, channels)
    data = channels[0].frames[0][1]
    sH, blinded = ARKWORKS.decode(data[:48]), ARKWORKS.decode(data[48:])
    P = KEY.commit([e], sum(taus) % ORDER)
    difference = ARKWORKS.add(blinded, ARKWORKS.multiply(sH, -taus[1]))  # s e G
    combinations: list[Any] = [sH, P, G, H, ARKWORKS.add(P, ARKWORKS.multiply(H, -taus[1]))]
    for guess in range(1, 20):
        assert not any(ARKWORKS.equal(difference, ARKWORKS.multiply(point, guess)) for point in combinations)
    # With tau_A it would be one look-up: that is why tau is exchanged afterwards.
    residual = ARKWORKS.add(P, ARKWORKS.multiply(H, -(sum(taus) % ORDER)))
    assert [g for g in range(20) if ARKWORKS.equal(residual, ARKWORKS.multiply(G, g))] == [e]


def test_an_echo_is_no_proof() -> None:
    """Who sends back what it got passes only if both taus are equal, which they are not."""
    channels = tapped_channels(timeout=5)
    P = KEY.commit([1], 9)
    with ThreadPoolExecutor(1) as threads:
        task = threads.submit(check_blindly, "A", channels[0], KEY, P, 4)
        channels[1].send("blind check", channels[1].receive("blind check", 96))
        with pytest.raises(VerificationFailed, match=r"joint\.blind-check"):
            task.result()


@pytest.mark.parametrize("bad", [b"\xc0" + bytes(47), bytes(48), b"\xff" * 48], ids=["identity", "no flag", "large"])
@pytest.mark.parametrize("place", [0, 48])
def test_what_is_no_point_ends_the_session(bad: bytes, place: int) -> None:
    """The identity twice would pass for every tau: it is no point here."""
    channels = tapped_channels(tap_A=lambda label, data: data[:place] + bad + data[place + 48 :], timeout=1)
    of_A, of_B = both(0, (3, 4), channels)
    assert isinstance(of_B, SessionBroken) and of_B.check == "mpc.point"
    assert isinstance(of_A, SessionBroken)
