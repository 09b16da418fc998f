"""Sessions that break while secrets are in use: the pair is suspended on both disks and on the ledger, nothing is
published, and each disk holds what is needed, whatever broke and at which step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from api.client.clinic import JobFailed
from api.client.transport import Server, ServerRefused, ServerUnreachable
from api.mpc import dealer_process
from api.mpc.clearing import clear, standing
from api.mpc.node import _Keeper
from privacy.errors import UsageError, VerificationFailed
from privacy.zk.group import ORDER
from tests.support.pairs import IDS, ROLES, Died, Pair, Role, TappedLink, at, be_quick, die, pair_of
from tests.support.service import RunningServer


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    be_quick(monkeypatch)


@pytest.fixture
def pair(server: RunningServer, tmp_path: Path) -> Iterator[Pair]:
    with pair_of(server, tmp_path) as found:
        yield found


SENT = ("answers", "commitments", "masks", "responses", "blind check", "tau")
DEATHS = [(role, label) for role, last in (("A", "done"), ("B", "complete")) for label in (*SENT, last)]
DEATHS.remove(("B", "blind check"))  # it is A who asks


@pytest.mark.parametrize(("role", "label"), DEATHS)
def test_a_peer_that_dies_suspends_the_pair(pair: Pair, role: Role, label: str) -> None:
    other: Role = "B" if role == "A" else "A"
    ended = pair.breaks(**{role: at(label, die)})
    assert isinstance(ended.errors[role], Died)
    assert getattr(ended.errors[other], "check", None) == "mpc.gone", ended.errors[other]
    pair.check_suspended("is gone")
    # What broke it stays at home; everybody else is told of what kind it was.
    assert any("the node died" in reason for reasons in pair.suspended_here().values() for reason in reasons)
    assert any("Died in the node" in reason for reasons in pair.suspended_there().values() for reason in reasons)
    assert not any("the node died" in reason for reasons in pair.suspended_there().values() for reason in reasons)
    assert pair.state(ended.request).state == "failed"
    assert pair.predictions() == 0
    assert list((pair.owner.session.folder / "sessions").iterdir()) == []
    assert list((pair.owner.session.folder / "delivered").iterdir()) == []


def test_a_suspended_pair_computes_again_when_both_have_cleared_it_and_not_before(pair: Pair) -> None:
    pair.breaks(A=at("responses", die))
    clinic, owner = pair.clinic.session, pair.owner.session
    assert [(found.peer, len(found.local), len(found.open)) for found in standing(clinic)] == [
        (owner.identity.name, 1, 2)
    ]
    with pytest.raises(ServerRefused, match="sealproof mpc clear"):
        pair.ask()
    here, entries = clear(clinic, owner.identity.name)
    assert (here, len(entries)) == (1, 2)
    with pytest.raises(ServerRefused, match="sealproof mpc clear"):
        pair.ask()
    assert pair.suspended_here()["A"] == []
    assert set(pair.suspended_there()) == {"clinic", "owner"}
    here, entries = clear(owner, clinic.identity.name)
    assert (here, len(entries)) == (1, 2)
    assert standing(clinic) == standing(owner) == []
    for session, peer in ((clinic, owner), (owner, clinic)):
        with pytest.raises(UsageError, match="nothing for this party to clear"):
            clear(session, peer.identity.name)
    with pytest.raises(UsageError, match="has no party"):
        clear(clinic, "nobody")
    pair.check_open()


def test_a_clearance_that_the_server_swallows_is_not_taken_for_one(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.breaks(A=at("responses", die))
    session, name = pair.clinic.session, pair.owner.session.identity.name

    def refuse(*arguments: Any) -> None:
        raise VerificationFailed("entry.reference", "the log has another entry there")

    with monkeypatch.context() as patch:
        patch.setattr("api.client.session.Session.check_logged", refuse)
        with pytest.raises(VerificationFailed, match=r"entry\.reference"):
            clear(session, name)
    assert len(pair.suspended_here()["A"]) == 1


@pytest.mark.parametrize("role", ROLES)
def test_a_peer_that_stalls_suspends_the_pair(pair: Pair, role: Role) -> None:
    def sleep(link: TappedLink, data: bytes) -> bytes:
        time.sleep(1.5)
        return data

    pair.stall = 0.5
    other: Role = "B" if role == "A" else "A"
    ended = pair.breaks(**{role: at("responses", sleep)})
    assert getattr(ended.errors[other], "check", None) == "mpc.stalled"
    assert getattr(ended.errors[role], "check", None) in ("mpc.aborted", "mpc.gone", "mpc.stalled")
    pair.check_suspended("sent nothing for 0.5 s")
    assert pair.state(ended.request).state == "failed"


def other_label(link: TappedLink, data: bytes) -> None:
    link.link.send("nonsense", data)


def less(link: TappedLink, data: bytes) -> bytes:
    return data[:-1]


def more(link: TappedLink, data: bytes) -> bytes:
    return data + b"\0"


def noise(link: TappedLink, data: bytes) -> None:
    link.link._write(b"\xff" * 1000)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("garbage", [other_label, less, more, noise])
def test_a_peer_that_sends_garbage_is_told_so_and_suspended(pair: Pair, role: Role, garbage: Any) -> None:
    other: Role = "B" if role == "A" else "A"
    pair.stall = 2.0
    ended = pair.breaks(**{role: at("commitments", garbage)})
    assert getattr(ended.errors[other], "check", None) == "mpc.frame"
    assert getattr(ended.errors[role], "check", None) in ("mpc.aborted", "mpc.gone")
    pair.check_suspended("expected")
    assert pair.state(ended.request).state == "failed"


def flipped(link: TappedLink, data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def too_large(link: TappedLink, data: bytes) -> bytes:
    return ORDER.to_bytes(32, "little") + data[32:]


def no_points(link: TappedLink, data: bytes) -> bytes:
    return bytes(len(data))


LIES = [
    ("answers", flipped, "joint.blind-check"),
    ("responses", flipped, "joint.blind-check"),
    ("answers", too_large, "mpc.scalar"),
    ("responses", too_large, "mpc.scalar"),
    ("tau", too_large, "mpc.scalar"),
    ("commitments", no_points, "mpc.point"),
    ("blind check", no_points, "mpc.point"),
    ("tau", flipped, "joint.blind-check"),
]
LIARS = [(role, *lie) for role in ROLES for lie in LIES if (role, lie[0]) != ("B", "blind check")]


@pytest.mark.parametrize(("role", "label", "lie", "check"), LIARS)
def test_a_peer_that_lies_is_caught_by_the_other_and_the_pair_is_suspended(
    pair: Pair, role: Role, label: str, lie: Callable[[TappedLink, bytes], bytes], check: str
) -> None:
    """A share, a response, a scalar, a point: what is false makes the proof fail, and a proof that fails is a bit."""
    other: Role = "B" if role == "A" else "A"
    ended = pair.breaks(**{role: at(label, lie)})
    # In the blind check either may be the first to see it; the other hears.
    assert check in str(ended.errors[other])
    assert check in str(ended.errors[role])
    pair.check_suspended(check)
    assert pair.state(ended.request).state == "failed"
    assert pair.predictions() == 0


def test_a_dealer_that_deals_what_does_not_belong_together_is_caught(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = dealer_process.deal

    def wrong(plan: Any) -> tuple[bytes, bytes]:
        dealt_A, dealt_B = honest(plan)
        return bytes([dealt_A[0] ^ 1]) + dealt_A[1:], dealt_B

    monkeypatch.setattr(dealer_process, "deal", wrong)
    ended = pair.session()
    assert "joint.blind-check" in ended.checks
    pair.check_suspended("the peer or the dealer deviated")


def test_a_dealer_that_dies_while_it_deals_suspends_the_pair(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(plan: Any) -> tuple[bytes, bytes]:
        raise MemoryError

    monkeypatch.setattr(dealer_process, "deal", dead)
    ended = pair.session()
    assert set(ended.checks) <= {"mpc.aborted", "mpc.gone"}
    pair.check_suspended("the dealer failed; its log says why")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "words",
    ["e\u0301", "\u202etxt.exe", "\x1b[31m\n\n", "a" * 10_000, "", "\ud800"],
    ids=["not composed", "backwards", "red", "long", "nothing", "half a pair"],
)
def test_the_words_of_who_gives_up_do_not_keep_the_other_from_writing_the_suspension(
    pair: Pair, role: Role, words: str
) -> None:
    """Text that no entry can carry, chosen by a peer that would rather leave no trace on the ledger."""

    def give_up(link: TappedLink, data: bytes) -> None:
        link.link.abort(words)
        raise Died("gave up")

    other = "owner" if role == "A" else "clinic"
    ended = pair.breaks(**{role: at("responses", give_up)})
    assert ended.checks["AB".index(role) ^ 1] == "mpc.aborted"
    (reason,) = pair.suspended_there()[other]
    assert reason.isascii()
    assert reason.isprintable()
    pair.check_suspended("gave up")


def test_a_suspension_that_cannot_be_told_is_kept_all_the_same(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(*arguments: Any) -> None:
        raise ServerUnreachable("gone")

    monkeypatch.setattr(Server, "append", gone)
    monkeypatch.setattr(Server, "post_failure", gone)
    pair.breaks(A=at("responses", die))
    assert all(pair.suspended_here().values())
    assert "the suspension could not be reported" in caplog.text
    assert "the failure could not be reported" in caplog.text


# -- what is on disk after a break at each step -----------------------------------------------------------------------


def break_at(patch: pytest.MonkeyPatch, role: Role, method: str, after: bool = False) -> None:
    """The keeper of one node raises in `method`, before or after it has done its work."""
    honest = getattr(_Keeper, method)

    def broken(keeper: Any, *arguments: Any) -> Any:
        if keeper._node._role != role:
            return honest(keeper, *arguments)
        if after:
            honest(keeper, *arguments)
        raise OSError(28, f"no space left to {method}")

    patch.setattr(_Keeper, method, broken)


def shares_of(pair: Pair) -> int:
    return len(list((pair.clinic.session.folder / "joint").glob("*.shares.json")))


#                role, method, done before it raises; suspended here: A, B; shares of A on disk
STEPS = [
    ("A", "begin", False, False, False, 0),
    ("B", "begin", False, False, False, 0),
    ("A", "batch", False, True, True, 0),
    ("B", "batch", False, True, True, 1),
    ("A", "keep_key", False, True, True, 0),
    ("A", "keep_key", True, True, True, 1),
    ("B", "complete", False, False, True, 1),
    ("B", "deliver", False, False, False, 1),
]


@pytest.mark.parametrize(("role", "method", "after", "of_A", "of_B", "shares"), STEPS)
def test_a_break_at_each_step_leaves_what_is_needed_and_publishes_nothing(
    pair: Pair,
    monkeypatch: pytest.MonkeyPatch,
    role: Role,
    method: str,
    after: bool,
    of_A: bool,
    of_B: bool,
    shares: int,
) -> None:
    with monkeypatch.context() as patch:
        break_at(patch, role, method, after)
        ended = pair.session()
    assert isinstance(ended.errors[role], OSError)
    assert ended.errors["B" if role == "A" else "A"] is not None
    here, there = pair.suspended_here(), pair.suspended_there()
    assert (bool(here["A"]), bool(here["B"])) == (of_A, of_B)
    assert set(there) == {name for name, found in (("clinic", of_A), ("owner", of_B)) if found}
    assert shares_of(pair) == shares
    state = pair.state(ended.request)
    assert state.state == "failed"
    assert state.error is not None
    assert pair.predictions() == 0
    assert list((pair.owner.session.folder / "delivered").iterdir()) == []
    if not (of_A or of_B):
        pair.check_open()


def test_a_clinic_that_breaks_when_all_is_done_can_still_open_its_answers(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B has what it needs and may have published; A's shares and key are on its disk, and its node is careful."""
    with monkeypatch.context() as patch:
        break_at(patch, "A", "complete")
        patch.setattr(Server, "post_failure", lambda *arguments: None)
        patch.setattr(Server, "append", lambda *arguments: None)
        ended = pair.session()
    assert ended.errors["B"] is None
    assert pair.suspended_here()["B"] == []
    assert len(pair.suspended_here()["A"]) == 1
    scores = pair.clinic.open_bundle(pair.clinic.fetch(ended.request, timeout=30), ended.request)
    assert scores.ids == IDS


def test_an_answer_that_was_lost_after_the_delivery_changes_nothing(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Server.post_result

    def lost(server: Server, *arguments: Any) -> None:
        honest(server, *arguments)
        raise ServerUnreachable("the line was cut")

    with monkeypatch.context() as patch:
        patch.setattr(Server, "post_result", lost)
        ended = pair.session()
    assert isinstance(ended.errors["B"], ServerUnreachable)
    assert ended.checks[0] == "mpc.aborted"
    assert pair.state(ended.request).state == "done"
    assert pair.clinic.open_bundle(pair.clinic.fetch(ended.request), ended.request).ids == IDS
    pair.check_open()


def test_nothing_is_delivered_that_cannot_be_counted(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "no space left")

    posted: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr("api.mpc.delivered.write_private", full)
        patch.setattr(Server, "post_result", lambda *arguments: posted.append(arguments))
        ended = pair.session()
    assert isinstance(ended.errors["B"], OSError)
    assert posted == []
    assert pair.state(ended.request).state == "failed"
    pair.check_open()


def test_a_refusal_without_a_name_is_reported_all_the_same(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's refusals name no check: the job must not hang because of it."""

    def refuse(*arguments: Any) -> None:
        raise ServerRefused(507, "storage-full", None, "the disk is nearly full", "")

    with monkeypatch.context() as patch:
        patch.setattr(Server, "post_result", refuse)
        ended = pair.session()
    with pytest.raises(JobFailed, match="the disk is nearly full"):
        pair.clinic.fetch(ended.request, timeout=10)
    # Nobody knows what became of the box: it counts.
    assert len(list((pair.owner.session.folder / "delivered").iterdir())) == 1
    pair.check_open()


def test_a_mark_that_cannot_be_taken_away_stays_and_both_are_told(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fails when the session is over: the mark is what is left, and it suspends."""
    node = pair.nodes["B"]

    def fail(session: bytes) -> None:
        raise OSError(5, "input or output error")

    with monkeypatch.context() as patch:
        patch.setattr(node.suspensions, "finish", fail)
        ended = pair.session()
    assert isinstance(ended.errors["B"], OSError)
    assert ended.checks[0] == "mpc.aborted"
    assert len(pair.suspended_here()["B"]) == 1
    assert pair.state(ended.request).state == "failed"
    assert pair.predictions() == 0


def test_who_uploads_for_long_is_not_taken_for_dead(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """While B uploads it says nothing on the link, and that can take longer than any single message may."""
    honest = Server.put_blob

    def slow(server: Server, data: bytes) -> bytes:
        time.sleep(1.5)
        return honest(server, data)

    pair.stall = 0.5
    with monkeypatch.context() as patch:
        patch.setattr(Server, "put_blob", slow)
        ended = pair.session()
    assert ended.errors == {"A": None, "B": None}
    assert pair.state(ended.request).state == "done"
