"""Both parties get tau if P = (tau_A + tau_B) H; of a difference neither sees more than that there is one."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from privacy.errors import PrivacyError, SessionBroken, VerificationFailed
from privacy.mpc.blind_check import exchange_tau
from privacy.zk.group import ARKWORKS, ORDER
from privacy.zk.quadratic import scalar_commitment_key
from tests.support.joint_build import TappedChannel, tapped_channels

KEY = scalar_commitment_key(ARKWORKS)
G, H = KEY.points[0], KEY.blinding
LABELS = (["blind check", "tau"], ["tau"])


def both(e: int, taus: tuple[int, int], channels: tuple[TappedChannel, ...] | None = None) -> list[int | PrivacyError]:
    """What each party says of P = tau H + e G."""
    P = KEY.commit([e], sum(taus) % ORDER)
    channels = channels or tapped_channels(timeout=5)

    def one(place: int) -> int | PrivacyError:
        try:
            return exchange_tau("AB"[place], channels[place], KEY, P, taus[place])  # type: ignore[arg-type]
        except PrivacyError as error:
            channels[place].abort(str(error))
            return error

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(one, range(2)))


def scalar() -> int:
    return secrets.randbelow(ORDER)


def labels(channels: tuple[TappedChannel, ...]) -> tuple[list[str], ...]:
    return tuple([label for label, _ in channel.frames] for channel in channels)


def test_both_get_the_sum_that_P_is_made_with() -> None:
    for taus in ((scalar(), scalar()), (1, ORDER - 2), (5, ORDER - 4)):
        channels = tapped_channels()
        assert both(0, taus, channels) == [sum(taus) % ORDER] * 2
        assert labels(channels) == LABELS


@pytest.mark.parametrize("e", [1, -1, 12345, ORDER // 2])
def test_any_difference_is_found_before_anybody_sends_tau(e: int) -> None:
    channels = tapped_channels(timeout=5)
    of_A, of_B = both(e % ORDER, (scalar(), scalar()), channels)
    assert isinstance(of_B, VerificationFailed) and of_B.check == "joint.blind-check"
    assert isinstance(of_A, SessionBroken) and of_A.check == "mpc.aborted"
    assert labels(channels) == (["blind check"], [])


@pytest.mark.parametrize("wrong", [0, 1, ORDER - 1])
def test_A_keeps_its_tau_from_a_B_that_sends_another(wrong: int) -> None:
    """B says that all is well although it is not, and has to say a number then."""
    channels = tapped_channels(tap_B=lambda label, data: wrong.to_bytes(32, "little"), timeout=5)
    of_A, of_B = both(0, (scalar(), scalar()), channels)
    assert isinstance(of_A, VerificationFailed) and of_A.check == "joint.blind-check"
    assert isinstance(of_B, SessionBroken)
    assert labels(channels) == (["blind check"], ["tau"])


def test_B_notices_a_wrong_tau_of_A() -> None:
    def tap(label: str, data: bytes) -> bytes:
        return data if label != "tau" else bytes(32)

    of_A, of_B = both(0, (5, 6), tapped_channels(tap_A=tap, timeout=5))
    assert of_A == 11
    assert isinstance(of_B, VerificationFailed) and of_B.check == "joint.blind-check"


def test_what_A_asks_differs_from_run_to_run() -> None:
    sent = []
    for _ in range(2):
        channels = tapped_channels()
        both(0, (3, 4), channels)
        data = channels[0].frames[0][1]
        sent += [data[:48], data[48:]]
    assert len(set(sent)) == len(sent)


def test_a_small_difference_cannot_be_looked_up() -> None:
    """B knows P, tau_B and what A sent. All candidates for e that it can think of leave it where it was."""
    e, taus = 7, (scalar(), scalar())
    channels = tapped_channels(timeout=5)
    both(e, taus, channels)
    data = channels[0].frames[0][1]
    sH, blinded = ARKWORKS.decode(data[:48]), ARKWORKS.decode(data[48:])
    P = KEY.commit([e], sum(taus) % ORDER)
    difference = ARKWORKS.add(blinded, ARKWORKS.multiply(sH, -taus[1]))  # s e G
    combinations: list[Any] = [sH, P, G, H, ARKWORKS.add(P, ARKWORKS.multiply(H, -taus[1]))]
    for guess in range(1, 20):
        assert not any(ARKWORKS.equal(difference, ARKWORKS.multiply(point, guess)) for point in combinations)
    # With tau_A it would be one look-up: that is why A sends it last.
    residual = ARKWORKS.add(P, ARKWORKS.multiply(H, -(sum(taus) % ORDER)))
    assert [g for g in range(20) if ARKWORKS.equal(residual, ARKWORKS.multiply(G, g))] == [e]


@pytest.mark.parametrize("bad", [b"\xc0" + bytes(47), bytes(48), b"\xff" * 48], ids=["identity", "no flag", "large"])
@pytest.mark.parametrize("place", [0, 48])
def test_what_is_no_point_ends_the_session(bad: bytes, place: int) -> None:
    """The identity twice would pass for every tau: it is no point here."""

    def tap(label: str, data: bytes) -> bytes:
        return data[:place] + bad + data[place + 48 :] if label == "blind check" else data

    of_A, of_B = both(0, (3, 4), tapped_channels(tap_A=tap, timeout=5))
    assert isinstance(of_B, SessionBroken) and of_B.check == "mpc.point"
    assert isinstance(of_A, SessionBroken) and of_A.check == "mpc.aborted"


@pytest.mark.parametrize("party", ["tap_A", "tap_B"])
def test_what_is_no_scalar_ends_the_session(party: str) -> None:
    def tap(label: str, data: bytes) -> bytes:
        return data if label != "tau" else ORDER.to_bytes(32, "little")

    ends = both(0, (3, 4), tapped_channels(timeout=5, **{party: tap}))  # type: ignore[arg-type]
    victim = ends[1 if party == "tap_A" else 0]
    assert isinstance(victim, SessionBroken) and victim.check == "mpc.scalar"
