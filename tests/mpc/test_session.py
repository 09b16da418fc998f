"""One session between two nodes: what both compare, in which order it ends, and what a break leaves at each step.

Both sides run in this process over a memory channel, with a linear network. What they keep is kept by a `Keeper` of the
test, which writes down what it was told and raises where it is asked to. Nodes have their own: `test_node_breaks.py`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from api.binding import Located
from api.entries import Reference
from api.mpc.sealed import open_box
from api.mpc.session import Terms, hello, run_session
from privacy.errors import PrivacyError, SessionBroken, UsageError, VerificationFailed
from privacy.models.schema import Feature, Schema
from privacy.mpc.answers import AnswerShare, decode_shares, open_answers
from privacy.mpc.channel import MemoryChannel
from privacy.mpc.dealer import Plan, deal
from privacy.mpc.joint_proof import verify_joint
from privacy.mpc.joint_prover import Row
from tests.support import joint_bundles
from tests.support.bundles import PATIENTS, SCHEMA
from tests.support.joint_bundles import JointStory, commit_cohort

Role = Literal["A", "B"]
ROLES: tuple[Role, Role] = ("A", "B")


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> JointStory:
    return joint_bundles.tell(tmp_path_factory.mktemp("story"), network="linear")


@pytest.fixture(scope="module")
def terms(story: JointStory) -> Terms:
    return terms_of(story)


def terms_of(story: JointStory, **changes: Any) -> Terms:
    return replace(
        Terms(
            job="0a" * 16,
            nonce=bytes(range(32)),
            model=story.model,
            records=story.records,
            clinic=story.party(story.clinic),
            owner=story.party(story.owner),
            schema=SCHEMA,
            commitments=story.cohort.commitments,
            head=story.world.head,
            dealer_key=bytes([9] * 32),
        ),
        **changes,
    )


# -- both sides in this process ---------------------------------------------------------------------------------------


class Recorded(MemoryChannel):
    """Writes down what is sent, beside what the keepers are told."""

    def __init__(self, role: Role, journal: list[str], *arguments: Any) -> None:
        super().__init__(*arguments)
        self.role, self.journal = role, journal
        self.frames: list[tuple[str, bytes]] = []

    def send(self, label: str, data: bytes) -> None:
        self.journal.append(f"{self.role} sends {label}")
        self.frames.append((label, data))
        super().send(label, data)


def channels(journal: list[str], timeout: float = 20.0) -> tuple[Recorded, Recorded]:
    forth: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    back: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    return Recorded("A", journal, "B", forth, back, timeout), Recorded("B", journal, "A", back, forth, timeout)


class SharedDealer:
    """Deals every plan once, and each party its own part."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._dealt: dict[Role, list[bytes]] = {"A": [], "B": []}

    def of(self, role: Role) -> Any:
        shared = self

        class Connection:
            def deal(self, plan: Plan) -> bytes:
                with shared._lock:
                    if not shared._dealt[role]:
                        for place, part in zip(ROLES, deal(plan), strict=True):
                            shared._dealt[place].append(part)
                    return shared._dealt[role].pop(0)

        return Connection()


class Told(Exception):
    """What a keeper raises in these tests."""


@dataclass
class Keeps:
    """A keeper that keeps everything and raises in the method `breaks`."""

    role: Role
    dealer: SharedDealer
    journal: list[str]
    breaks: str | None = None
    proofs: list[bytes] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)
    shares: list[AnswerShare] = field(default_factory=list)
    key: X25519PrivateKey | None = None
    box: bytes | None = None

    def _told(self, method: str) -> None:
        self.journal.append(f"{self.role} {method}")
        if self.breaks == method:
            raise Told(f"{self.role} cannot {method}")

    def begin(self, session: bytes) -> Any:
        self._told("begin")
        return self.dealer.of(self.role)

    def batch(self, number: int, proof: bytes, answers: Sequence[bytes], shares: Sequence[AnswerShare]) -> None:
        self._told("batch")
        assert number == len(self.proofs)
        self.proofs.append(proof)
        self.answers += answers
        self.shares += shares

    def complete(self, session: bytes) -> None:
        self._told("complete")

    def keep_key(self, session: bytes, private: X25519PrivateKey) -> None:
        self._told("keep_key")
        self.key = private

    def deliver(self, session: bytes, box: bytes) -> None:
        self._told("deliver")
        self.box = box


@dataclass
class Ended:
    journal: list[str]
    keepers: dict[Role, Keeps]
    sessions: dict[Role, bytes]
    errors: dict[Role, Exception]
    channels: dict[Role, Recorded]

    def place(self, what: str) -> int:
        return self.journal.index(what)


def both(
    story: JointStory,
    of_A: Terms,
    of_B: Terms | None = None,
    *,
    breaks: tuple[Role, str] | None = None,
    timeout: float = 20.0,
) -> Ended:
    """A whole session. Who gives up says so to the other, as nodes do."""
    journal: list[str] = []
    dealer, ends = SharedDealer(), channels(journal, timeout)
    ended = Ended(journal, {}, {}, {}, dict(zip(ROLES, ends, strict=True)))
    rows = [[Row(row.weights, row.bias, row.rho) for row in layer] for layer in story.network.rows]

    def side(role: Role, about: Terms, secret: Any) -> None:
        broken = breaks[1] if breaks is not None and breaks[0] == role else None
        keeper = ended.keepers[role] = Keeps(role, dealer, journal, broken)
        try:
            ended.sessions[role] = run_session(role, about, secret, ended.channels[role], keeper)
        except (PrivacyError, Told) as error:
            ended.errors[role] = error
            ended.channels[role].abort(str(error))

    sides = (("A", of_A, list(story.cohort.openings)), ("B", of_B or of_A, rows))
    threads = [threading.Thread(target=side, args=one) for one in sides]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ended


def at_once(*actions: Callable[[], Any]) -> list[Any]:
    """What each of two actions gives, or the error that it raises."""
    found: list[Any] = [None] * len(actions)

    def run(place: int) -> None:
        try:
            found[place] = actions[place]()
        except PrivacyError as error:
            found[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def greet(of_A: Terms, of_B: Terms) -> list[Any]:
    left, right = channels([])
    return at_once(lambda: hello("A", of_A, left), lambda: hello("B", of_B, right))


# -- hello ------------------------------------------------------------------------------------------------------------


def test_both_sides_have_the_same_session_and_no_two_are_the_same(terms: Terms) -> None:
    seen = set()
    for _ in range(20):
        of_A, of_B = greet(terms, terms)
        assert of_A == of_B
        assert len(of_A) == 32
        seen.add(of_A)
    assert len(seen) == 20


def elsewhere(located: Located[Any], **changes: Any) -> Located[Any]:
    """The same body in another entry."""
    reference = located.reference
    return replace(located, reference=Reference(reference.index, bytes([reference.leaf[0] ^ 1]) + reference.leaf[1:]))


ALTERED: dict[str, tuple[str, Callable[[Terms], dict[str, Any]]]] = {
    "job": ("job", lambda terms: {"job": "0b" * 16}),
    "nonce": ("request", lambda terms: {"nonce": bytes(32)}),
    "model": ("model", lambda terms: {"model": elsewhere(terms.model)}),
    "records": ("records", lambda terms: {"records": elsewhere(terms.records)}),
    "clinic": ("clinic", lambda terms: {"clinic": elsewhere(terms.clinic)}),
    "owner": ("owner", lambda terms: {"owner": elsewhere(terms.owner)}),
    "commitments": ("commitments", lambda terms: {"commitments": terms.commitments[::-1]}),
    "a commitment less": ("commitments", lambda terms: {"commitments": terms.commitments[:-1]}),
    "head": ("ledger head", lambda terms: {"head": (terms.head[0] + 1, terms.head[1])}),
    "root": ("ledger head", lambda terms: {"head": (terms.head[0], bytes(32))}),
    "dealer_key": ("dealer", lambda terms: {"dealer_key": bytes([8] * 32)}),
}


@pytest.mark.parametrize("what", ALTERED)
def test_a_field_that_differs_ends_the_session_and_both_sides_hear_which(terms: Terms, what: str) -> None:
    name, change = ALTERED[what]
    altered = replace(terms, **change(terms))
    for pair in ((terms, altered), (altered, terms)):
        for error in greet(*pair):
            assert isinstance(error, SessionBroken)
            assert (error.check, error.detail) == (
                "mpc.terms",
                f"the two nodes were told of different things: the {name} differs",
            )


def test_every_field_of_the_terms_is_compared(terms: Terms) -> None:
    """The schema is not: it is that of the model's entry, or the statement refuses it."""
    assert {field.name for field in fields(Terms)} <= {*ALTERED, "schema"}
    assert set(terms.fields()) == {name for name, _ in ALTERED.values()}
    other = Schema("heart", 2, (*SCHEMA.features[:2], Feature("smoker", "1", 0, 1)))
    for number in range(len(terms.records.body.certificates)):
        with pytest.raises(VerificationFailed, match="schema"):
            replace(terms, schema=other).statement(bytes(32), number)


def test_where_an_entry_stands_is_compared_by_its_leaf_alone(terms: Terms) -> None:
    """An index is a hint: what is signed and proven names the leaf."""
    moved = replace(terms.model, reference=Reference(99, terms.model.reference.leaf))
    of_A, of_B = greet(terms, replace(terms, model=moved))
    assert of_A == of_B


def test_nothing_secret_is_told_before_both_agree(story: JointStory, terms: Terms) -> None:
    ended = both(story, terms, replace(terms, job="0b" * 16))
    assert {role: error.check for role, error in ended.errors.items()} == dict.fromkeys(ROLES, "mpc.terms")  # type: ignore[attr-defined]
    assert [name for channel in ended.channels.values() for name, _ in channel.frames] == ["hello", "hello"]
    assert not any("begin" in step for step in ended.journal)


def test_a_hello_that_is_sent_back_is_refused(terms: Terms) -> None:
    """A node that has nothing of its own to say repeats what it hears: there is no session with oneself."""
    mine, theirs = channels([])
    size = len(b"".join(terms.fields().values())) + 32
    error, _ = at_once(lambda: hello("A", terms, mine), lambda: theirs.send("hello", theirs.receive("hello", size)))
    assert isinstance(error, SessionBroken)
    assert error.check == "mpc.nonce"


def test_a_hello_of_an_older_session_makes_another_session(terms: Terms) -> None:
    """Whoever replays all that a node said once is in a session of its own: the other's nonce is fresh."""
    left, right = channels([])
    first = at_once(lambda: hello("A", terms, left), lambda: hello("B", terms, right))[0]
    ((_, said),) = left.frames
    again, mine = channels([])
    second, _ = at_once(lambda: hello("B", terms, mine), lambda: again.send("hello", said))
    assert len(second) == 32
    assert second != first


def test_nonces_have_an_order(terms: Terms, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session does not turn into another one in which the parts were exchanged."""
    sessions = []
    for nonces in ((bytes([1] * 32), bytes([2] * 32)), (bytes([2] * 32), bytes([1] * 32))):
        left, right = channels([])
        drawn = iter(nonces)
        monkeypatch.setattr("api.mpc.session.secrets.token_bytes", lambda size, drawn=drawn: next(drawn))
        theirs = b"".join(terms.fields().values())
        right.send("hello", theirs + nonces[1])
        sessions.append(hello("A", terms, left))
    assert sessions[0] != sessions[1]


@pytest.mark.parametrize("size", [0, 31, 1000])
def test_a_hello_of_another_size_is_refused(terms: Terms, size: int) -> None:
    left, right = channels([])
    right.send("hello", bytes(size))
    with pytest.raises(SessionBroken, match=r"mpc\.frame"):
        hello("A", terms, left)


# -- the ending -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(story: JointStory, terms: Terms) -> Ended:
    return both(story, terms)


def test_both_end_with_one_session_and_one_proof(story: JointStory, terms: Terms, done: Ended) -> None:
    assert done.errors == {}
    assert done.sessions["A"] == done.sessions["B"]
    of_A, of_B = done.keepers["A"], done.keepers["B"]
    assert of_A.proofs == of_B.proofs
    statement = terms.statement(done.sessions["A"], 0)
    assert list(verify_joint(statement, of_A.proofs[0])) == of_A.answers == of_B.answers


def test_the_sealed_shares_open_the_answers(story: JointStory, terms: Terms, done: Ended) -> None:
    of_A, of_B = done.keepers["A"], done.keepers["B"]
    assert of_A.key is not None
    assert of_B.box is not None
    theirs = decode_shares(open_box(of_B.box, of_A.key, done.sessions["A"]))
    bound = story.network.statement.bounds[-1]
    opened = open_answers(of_A.answers, of_A.shares, theirs, bound)
    (row,) = story.network.rows[0]
    for opening, record in zip(opened, story.cohort.openings, strict=True):
        assert opening.z == sum(w * x for w, x in zip(row.weights, record.values, strict=True)) + row.bias


def test_shares_and_key_are_kept_before_done_is_said(done: Ended) -> None:
    assert done.place("A keep_key") < done.place("A sends done")
    assert max(i for i, step in enumerate(done.journal) if step == "A batch") < done.place("A keep_key")


def test_nothing_is_delivered_before_done_and_complete_were_said(done: Ended) -> None:
    order = ["A sends done", "B sends complete", "B complete", "B deliver", "B sends delivered"]
    assert [step for step in done.journal if step in order] == order
    assert done.place("B sends complete") < done.place("A complete")


def test_the_mark_of_each_is_taken_away_after_the_other_has_verified(done: Ended) -> None:
    for role in ROLES:
        other = "B" if role == "A" else "A"
        assert done.place(f"{other} batch") < done.place(f"{role} complete")


def test_the_box_is_on_no_channel(done: Ended) -> None:
    """The owner's shares go by way of the server, or the clinic could take them and let the prediction fall."""
    box = done.keepers["B"].box
    shares = [value for share in done.keepers["B"].shares for value in (share.z, share.rho)]
    assert box is not None
    sent = b"".join(data for _, data in done.channels["B"].frames)
    assert box not in sent
    assert not any(value.to_bytes(32, "little") in sent for value in shares)


def test_a_cohort_of_several_proofs_ends_with_one_box(tmp_path: Path) -> None:
    story = joint_bundles.tell(tmp_path, network="linear", cohort=commit_cohort(PATIENTS.repeat(14, axis=0)))
    ended = both(story, terms_of(story))
    assert ended.errors == {}
    of_A, of_B = ended.keepers["A"], ended.keepers["B"]
    assert {ended.journal.count(f"{role} begin") for role in ROLES} == {1}
    assert len(of_A.proofs) == len(of_B.proofs) == 2
    assert len(of_A.shares) == 70
    assert of_A.key is not None
    assert of_B.box is not None
    theirs = decode_shares(open_box(of_B.box, of_A.key, ended.sessions["A"]))
    open_answers(of_A.answers, of_A.shares, theirs, story.network.statement.bounds[-1])


# -- what a break leaves ----------------------------------------------------------------------------------------------

BREAKS: list[tuple[Role, str]] = [
    ("A", "begin"),
    ("B", "begin"),
    ("A", "batch"),
    ("B", "batch"),
    ("A", "keep_key"),
    ("A", "complete"),
    ("B", "complete"),
    ("B", "deliver"),
]


@pytest.mark.parametrize("breaks", BREAKS, ids=lambda found: "-".join(found))
def test_a_break_at_any_step_is_heard_by_both_and_publishes_nothing_half_done(
    story: JointStory, terms: Terms, breaks: tuple[Role, str]
) -> None:
    role, method = breaks
    other: Role = "B" if role == "A" else "A"
    ended = both(story, terms, breaks=breaks)
    assert isinstance(ended.errors[role], Told)
    heard = ended.errors.get(other)
    if breaks == ("A", "complete"):  # B has all it needs by then
        assert heard is None
        assert ended.keepers["B"].box is not None
        return
    assert isinstance(heard, SessionBroken)
    assert (heard.check, f"{role} cannot {method}" in heard.detail) == ("mpc.aborted", True)
    assert "B deliver" not in ended.journal or breaks == ("B", "deliver")
    assert ended.keepers["B"].box is None


@pytest.mark.parametrize("breaks", BREAKS, ids=lambda found: "-".join(found))
def test_who_has_said_the_last_word_is_not_suspended_and_all_others_are(
    story: JointStory, terms: Terms, breaks: tuple[Role, str]
) -> None:
    """`complete` takes the mark away. It is reached by exactly those who know that the other has verified."""
    ended = both(story, terms, breaks=breaks)
    completed = {role for role in ROLES if f"{role} complete" in ended.journal}
    expected: dict[tuple[Role, str], set[str]] = {
        ("A", "complete"): {"A", "B"},
        ("B", "complete"): {"A", "B"},
        ("B", "deliver"): {"A", "B"},
    }
    assert completed == expected.get(breaks, set())


def test_a_clinic_that_keeps_nothing_does_not_say_done(story: JointStory, terms: Terms) -> None:
    ended = both(story, terms, breaks=("A", "keep_key"))
    assert "A sends done" not in ended.journal
    assert ended.keepers["B"].box is None


def test_the_secrets_of_others_are_refused_before_anything_of_them_is_sent(
    story: JointStory, terms: Terms, tmp_path: Path
) -> None:
    other = joint_bundles.tell(tmp_path, network="linear", cohort=commit_cohort(PATIENTS))
    assert other.cohort.commitments != story.cohort.commitments
    mixed = replace(story, cohort=replace(story.cohort, openings=other.cohort.openings))
    ended = both(mixed, terms, timeout=2)
    assert isinstance(ended.errors["A"], UsageError)
    assert [label for label, _ in ended.channels["A"].frames] == ["hello"]


@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31)])
def test_a_key_that_anybody_could_open_gets_no_box(story: JointStory, terms: Terms, key: bytes) -> None:
    """Points of small order: the secret that they agree on with any key is known to all."""
    journal: list[str] = []
    left, right = channels(journal)
    dealer = SharedDealer()
    rows = [[Row(row.weights, row.bias, row.rho) for row in layer] for layer in story.network.rows]
    keeper = Keeps("B", dealer, journal)

    class Cheap(Keeps):
        def keep_key(self, session: bytes, private: X25519PrivateKey) -> None:
            left.send("done", key)
            raise Told

    def clinic() -> None:
        with pytest.raises(Told):
            run_session("A", terms, list(story.cohort.openings), left, Cheap("A", dealer, journal))

    _, error = at_once(clinic, lambda: run_session("B", terms, rows, right, keeper))
    assert isinstance(error, SessionBroken)
    assert error.check == "mpc.box-key"
    assert keeper.box is None
    assert "B complete" not in journal
