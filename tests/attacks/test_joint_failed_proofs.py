"""Attack: deviate so that a joint proof fails or holds depending on the other party's secrets, and look at how.

Whether it fails is one bit about a guess, and cannot be hidden: so a pair whose proof failed is suspended. *By how
much* it fails would be a whole value of the other party's: so nobody sends its tau before it knows that it holds.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from api.mpc.suspensions import SuspensionStore
from privacy.errors import MissingDependency, SessionBroken, UsageError, VerificationFailed
from privacy.mpc import blind_check, joint_prover
from privacy.mpc.channel import Channel
from privacy.mpc.joint_prover import BatchResult
from privacy.mpc.plan import cross_terms
from privacy.mpc.shares import exchange, unpack_scalars
from privacy.zk.copies import CopyProof
from privacy.zk.group import ARKWORKS, ORDER, Point
from privacy.zk.pedersen import CommitmentKey
from privacy.zk.quadratic import scalar_commitment_key
from privacy.zk.transcript import Transcript
from privacy.zk.wire import pack_scalars
from tests.support.joint_build import Case, Outcome, Tap, case, evaluate, run, with_session

KEY = scalar_commitment_key(ARKWORKS)
G, H = KEY.points[0], KEY.blinding
MOST = 1 << 12
"""Values that the attacker tries. All 2^17 of a feature take a second or two."""


def adding(label: str, place: int, amount: int, which: int = 0) -> Tap:
    """Add `amount` to one scalar of the frame number `which` with this label: (X + delta) + R instead of X + R."""
    seen = iter(range(10**6))

    def tap(name: str, data: bytes) -> bytes:
        if name != label or next(seen) != which:
            return data
        values = unpack_scalars(name, data)
        values[place] = (values[place] + amount) % ORDER
        return pack_scalars(values)

    return tap


# -- one bit, by whether it fails -------------------------------------------------------------------------------------


class Remembers(joint_prover._Party):
    """Keeps its own share bits; otherwise honest. What it sends is changed on the way."""

    bits: list[int]

    def _fill_bits(self, v: list[list[int]]) -> None:
        super()._fill_bits(v)
        layer = self._circuit.hidden[0]
        Remembers.bits = [v[0][i] for i in (layer.bits_B if self._role == "B" else layer.bits_A)]


def one_session(some: Case, k: int) -> tuple[int, bool]:
    """B adds one to the product with A's bit k: nothing happens if that is 0. Bit k of h, and whether A noticed."""
    outcome = run(with_session(some, secrets.token_bytes(32)), party_B=Remembers, tap_B=adding("bits", k, 1), timeout=5)
    noticed = not isinstance(outcome.of_A, BatchResult)
    assert not noticed or isinstance(outcome.of_A, SessionBroken | VerificationFailed)
    return int(noticed) ^ Remembers.bits[k], noticed


def word_of(some: Case) -> int:
    """The first neuron's pre-activation, which nobody may learn."""
    return evaluate(some.rows, some.records[0].values)[0][0][0] % (1 << 40)


def test_whether_a_proof_fails_is_one_bit_of_the_other_s_secrets() -> None:
    """Session by session B reads the pre-activation of A's patient. In about half of them A has noticed."""
    pytest.importorskip("privacy.mpc.backend", exc_type=MissingDependency)
    some = case((2, 1, 1))
    places = [*range(12), 39]
    read = [one_session(some, k) for k in places]
    assert [bit for bit, _ in read] == [(word_of(some) >> k) & 1 for k in places]


def test_a_suspended_pair_computes_no_second_proof(tmp_path: Path) -> None:
    """With the record of pairs, B is stopped at the first proof that fails; guesses that were right cost it nothing.

    Of n sessions it learns which one failed first: at most log2(n + 1) bits, whatever it asks in them.
    """
    pytest.importorskip("privacy.mpc.backend", exc_type=MissingDependency)
    some = case((2, 1, 1))
    store, peer = SuspensionStore(tmp_path / "suspensions"), bytes([7] * 32)
    failures = 0
    for k in range(40):
        session = secrets.token_bytes(32)
        try:
            store.begin("heart-lab", peer, session)
        except UsageError:
            break
        _, noticed = one_session(some, k)
        if noticed:
            failures += 1
            store.fail(session, "the joint proof does not hold")
        else:
            store.finish(session)
    else:
        pytest.fail("forty sessions and no suspension")  # one in 2^40
    assert failures == 1
    with pytest.raises(UsageError):
        store.check(peer)


# -- a whole value, by how much it fails ------------------------------------------------------------------------------

Exchange = Callable[[str, Channel, CommitmentKey, Point, int], int]


def at_once(role: str, channel: Channel, key: CommitmentKey, P: Point, mine: int) -> int:
    """The weakened build: tau is exchanged like any other response."""
    data = exchange(role, channel, "tau", pack_scalars([mine]), 32)  # type: ignore[arg-type]
    return (mine + unpack_scalars("tau", data)[0]) % ORDER


def both_ask(role: str, channel: Channel, key: CommitmentKey, P: Point, mine: int) -> int:
    """Another weakened build: B answers with points of the same kind, and then both send tau."""
    if role == "A":
        channel.send("blind check", blind_check._blinded(key, P, mine))
        blind_check._check_blinded(channel, key, mine)
    else:
        blind_check._check_blinded(channel, key, mine)
        channel.send("blind check", blind_check._blinded(key, P, mine))
    return at_once(role, channel, key, P, mine)


class Eye:
    """What a deviating party sees of a proof that fails, and the values that it tries."""

    def __init__(self, patch: pytest.MonkeyPatch, thief: str, by: Exchange, by_thief: Exchange | None = None) -> None:
        self.c = 0
        self.P: Point = None
        self.tau: int | None = None
        self._thief, self._by, self._by_thief = thief, by, by_thief or by
        self._absorb = joint_prover.absorb_first_messages
        patch.setattr(joint_prover, "exchange_tau", self._exchange)
        patch.setattr(joint_prover, "absorb_first_messages", self._absorb_and_keep_c)

    def _exchange(self, role: str, channel: Channel, key: CommitmentKey, P: Point, mine: int) -> int:
        if role != self._thief:
            return self._by(role, channel, key, P, mine)
        self.P = P
        self.tau = self._by_thief(role, channel, key, P, mine)
        return self.tau

    def _absorb_and_keep_c(self, transcript: Transcript, *messages: Any) -> None:
        self._absorb(transcript, *messages)
        self.c = transcript.copy().challenge_scalar(b"c")

    def looked_up(self, tau: int) -> int | None:
        """The value v with P - tau H = c v G, if it is one that somebody would try."""
        difference = ARKWORKS.multiply(ARKWORKS.msm([self.P, H], [1, -tau]), pow(self.c, -1, ORDER))
        up = down = ARKWORKS.identity()
        for value in range(MOST):
            if ARKWORKS.equal(up, difference):
                return value
            if ARKWORKS.equal(down, difference):
                return -value
            up, down = ARKWORKS.add(up, G), ARKWORKS.add(down, ARKWORKS.negate(G))
        return None


class AsksForWeight(joint_prover._Party):
    """A in a linear model: asks for the inner product with one mask too many, where B's first weight is."""

    def _mask_coefficients(self, form: Any, weights: Any, *rest: Any) -> tuple[int, int]:
        first_weight = [0] * self._circuit.system.system.size
        first_weight[self._circuit.row_starts[0][0]] = 1
        cross = cross_terms(self._circuit)
        self._place = cross.support.index(0)
        self._amount = pow(cross.times(form, first_weight, weights[0])[self._place], -1, ORDER)
        return super()._mask_coefficients(form, weights, *rest)

    def _products(self, label: str, lengths: tuple[int, ...], mine: Any) -> list[int]:
        if label == "masks":
            mine = list(mine)
            mine[lengths[0] + self._place] += self._amount
        return super()._products(label, lengths, mine)


def place_of_x0(some: Case) -> int:
    """Where x_0 is in the second group of A's message for t0 and t1: after the masks of both groups."""
    support = cross_terms(some.circuit).support
    return 2 * len(support) + support.index(0)


def steal_record(some: Case, party_B: Any = None) -> Outcome:
    return run(some, party_B=party_B, tap_B=adding("masks", place_of_x0(some), 1), timeout=5)


def steal_weight(some: Case) -> Outcome:
    return run(some, party_A=AsksForWeight, timeout=5)


def small() -> Case:
    return case((2, 1), values=[[-1234, 777]])


def test_with_tau_at_hand_one_failed_proof_shows_a_whole_value_of_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    eye = Eye(monkeypatch, "B", at_once)
    outcome = steal_record(small())
    assert outcome.checks == ("quadratic.relation", "quadratic.relation")
    assert eye.tau is not None and eye.looked_up(eye.tau) == -1234


def test_with_tau_at_hand_one_failed_proof_shows_a_whole_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    eye, some = Eye(monkeypatch, "A", at_once), small()
    outcome = steal_weight(some)
    assert outcome.checks == ("quadratic.relation", "quadratic.relation")
    assert eye.tau is not None and eye.looked_up(eye.tau) == some.rows[0][0].weights[0]


@pytest.mark.parametrize(("steal", "thief"), [(steal_record, "B"), (steal_weight, "A")])
def test_a_proof_that_would_fail_shows_that_and_no_value(
    steal: Any, thief: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The honest party never sends its tau; with all that it did send nothing can be looked up."""
    eye = Eye(monkeypatch, thief, blind_check.exchange_tau)
    outcome = steal(small())
    assert not isinstance(outcome.of_A, BatchResult) and not isinstance(outcome.of_B, BatchResult)
    assert "joint.blind-check" in outcome.checks
    victim = outcome.channels[1 - "AB".index(thief)]
    assert "tau" not in {label for label, _ in victim.frames}
    assert eye.tau is None
    for guess in (0, *unpack_scalars("responses", dict(victim.frames)["responses"])):
        assert eye.looked_up(guess) is None


class Cancels(joint_prover._Party):
    """B, who sees A's T0 and T1 first: answers with -T0 and -T1 and multiples of H, so that P = p H with a known p.

    For that it bends one response until f(z) = 0. From what A asks in the blind check it can then compute A's own
    multiple of a point: p s H - s (P - tau_A H) = tau_A s H.
    """

    taus = (111, 222)
    eye: Eye
    now: Cancels

    def _exchange_points(self, label: str, mine: list[Point], count: int) -> list[Point]:
        if label != "masks":
            return super()._exchange_points(label, mine, count)
        data = self._channel.receive(label, 48 * count)
        theirs = [ARKWORKS.decode(data[i : i + 48]) for i in range(0, len(data), 48)]
        self.of_A = theirs[-2:]
        mine[-2:] = [ARKWORKS.msm([H, T], [tau, -1]) for tau, T in zip(self.taus, self.of_A, strict=True)]
        self._channel.send(label, b"".join(map(ARKWORKS.encode, mine)))
        return theirs

    def _mask_coefficients(self, form: Any, *rest: Any) -> tuple[int, int]:
        self._form = form
        self._t = super()._mask_coefficients(form, *rest)
        return self._t

    def _assemble(self, *messages: Any) -> CopyProof:
        c, held = self.eye.c, []
        with mock.patch.object(self._channel, "send", lambda label, data: held.append(data)):
            proof = super()._assemble(*messages)
        f = self._form.evaluate((*proof.responses[0], *proof.common_responses), c)
        self.expected = (f - self._t[0] - c * self._t[1]) % ORDER
        # The last common coordinate, the bias, is in f with c times its linear coefficient.
        shift = -f * pow(c * self._form.linear[-1], -1, ORDER)
        values = unpack_scalars("responses", held[0])
        place = len(values) - 1 - len(self._circuit.common)
        values[place] = (values[place] + shift) % ORDER
        self._channel.send("responses", pack_scalars(values))
        *rest, bias = proof.common_responses
        Cancels.now = self
        return replace(proof, common_responses=(*rest, (bias + shift) % ORDER))

    def look(self, channel: Channel, P: Point) -> int:
        """B's side of `both_ask`, up to A's tau; what it looks up is x_0."""
        c = self.eye.c
        p = (self.taus[0] + c * self.taus[1]) % ORDER
        assert ARKWORKS.equal(P, ARKWORKS.multiply(H, p))
        asked = channel.receive("blind check", 96)
        sH, blinded = ARKWORKS.decode(asked[:48]), ARKWORKS.decode(asked[48:])
        channel.send("blind check", asked[:48] + ARKWORKS.encode(ARKWORKS.msm([sH, blinded], [p, -1])))
        (tau_A,) = unpack_scalars("tau", channel.receive("tau", 32))
        channel.send("tau", pack_scalars([0]))
        # (t0 + c t1 of A) G, less what it would be had nobody deviated: c x_0 G.
        self.eye.P = ARKWORKS.msm([*self.of_A, H, G], [1, c, -tau_A, -self.expected])
        return 0


def test_who_chooses_T0_and_T1_last_would_pass_a_check_of_points_and_look(monkeypatch: pytest.MonkeyPatch) -> None:
    eye = Eye(monkeypatch, "B", both_ask, lambda role, channel, key, P, mine: Cancels.now.look(channel, P))
    Cancels.eye = eye
    outcome = steal_record(small(), Cancels)
    assert "quadratic.opening" in outcome.checks  # A notices afterwards
    assert eye.looked_up(0) == -1234


def test_who_chooses_T0_and_T1_last_cannot_answer_with_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have to know p - tau_A."""

    def bluff(role: str, channel: Channel, key: CommitmentKey, P: Point, mine: int) -> int:
        channel.receive("blind check", 96)
        channel.send("tau", pack_scalars([mine]))
        return (mine + unpack_scalars("tau", channel.receive("tau", 32))[0]) % ORDER

    Cancels.eye = eye = Eye(monkeypatch, "B", blind_check.exchange_tau, bluff)
    outcome = steal_record(small(), Cancels)
    assert outcome.checks == ("joint.blind-check", "mpc.aborted")
    assert eye.tau is None
    assert "tau" not in {label for label, _ in outcome.channels[0].frames}


class Guesses(joint_prover._Party):
    """B: makes the difference vanish if x_0 is what it thinks."""

    guess = 0

    def _mask_coefficients(self, *args: Any) -> tuple[int, int]:
        t0, t1 = super()._mask_coefficients(*args)
        return t0, (t1 - self.guess) % ORDER


@pytest.mark.parametrize("guess", [-1234, -1235, 0])
def test_a_guess_is_answered_by_yes_or_no(guess: int) -> None:
    """The bit that is left: a right guess gives a proof, and a true one; a wrong one ends everything."""
    some = small()
    party = type("Guessing", (Guesses,), {"guess": guess})
    outcome = run(some, party_B=party, tap_B=adding("masks", place_of_x0(some), 1), timeout=5)
    if guess == -1234:
        assert (sum(end.shares[0].z for end in outcome.results) - some.answers[0]) % ORDER == 0
    else:
        assert "joint.blind-check" in outcome.checks
