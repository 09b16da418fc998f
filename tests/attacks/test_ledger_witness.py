"""Attacks on witnesses and on those who count them. Each succeeds against a build with one protection taken out.

A witness is beaten when it has cosigned two heads that no one growing log has. A policy is beaten when it accepts a
head that fewer witnesses cosigned than it asks for.
"""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import trust_policy, witness
from ledger.checkpoint import Checkpoint, VerifiedHead, sign_checkpoint
from ledger.cosignature import CosignatureVerifier, Cosigner, with_cosignatures
from ledger.errors import DecodeError, UsageError, VerificationFailed
from ledger.note import Note, Signature, Signer
from ledger.trust_policy import Group, TlogPolicy, Witnessing
from ledger.witness import LastHead, Witness, WitnessAnswer, WitnessStore
from ledger.witness_store import SqliteWitnessStore, open_folder
from ledger.witness_wire import SIZE_TYPE, encode_request
from tests.support.lying_log import LyingLog, Tree, entries_of, text_of

SIGNER = Signer("log.example/test", bytes(range(32)))
LOG = LyingLog(SIGNER)
COSIGNER = Cosigner("witness.example/w1", bytes([7]) * 32)
HONEST, FORKED = entries_of(12), entries_of(12, changed=3)


class MemoryStore:
    """A correct store, in memory. Weakened ones derive from it."""

    def __init__(self) -> None:
        self.heads: dict[str, LastHead] = {}
        self.lock = threading.Lock()

    def last(self, origin: str) -> LastHead | None:
        return self.heads.get(origin)

    def advance(
        self, origin: str, expected: LastHead | None, new: VerifiedHead, now: Callable[[], int]
    ) -> LastHead | None:
        with self.lock:
            if not self.same(self.heads.get(origin), expected):
                return None
            self.heads[origin] = LastHead(new.size, new.root, now(), new.note)
            return self.heads[origin]

    def same(self, last: LastHead | None, expected: LastHead | None) -> bool:
        return last == expected

    def accuse(self, *_: Any) -> None:
        pass


class NoCompareStore(MemoryStore):
    """Stores whatever it is given, whatever was stored meanwhile."""

    def same(self, last: LastHead | None, expected: LastHead | None) -> bool:
        return True


@dataclass
class Victim:
    """A witness, everything that it ever cosigned, and how to start it again."""

    open_store: Callable[[], Any]

    def __post_init__(self) -> None:
        self.time = 1_700_000_000
        self.cosigned: list[tuple[int, list[bytes]]] = []
        self.store: WitnessStore = self.open_store()

    def restart(self) -> None:
        close = getattr(self.store, "close", None)
        if close is not None:
            close()
        self.store = self.open_store()

    def ask(self, old: int, entries: Sequence[bytes], proof: Sequence[bytes] | None = None) -> WitnessAnswer:
        """Ask for the head over `entries`, by default with a proof from that same tree."""
        tree = Tree(entries)
        if proof is None:
            proof = tree.consistency(old) if old <= tree.size else []
        return self.send(encode_request(old, proof, LOG.head(entries)), entries)

    def send(self, body: bytes, entries: Sequence[bytes]) -> WitnessAnswer:
        self.time += 10
        answer = Witness(self.store, COSIGNER, {SIGNER.name: SIGNER.verifier}).add_checkpoint(body, lambda: self.time)
        if answer.status == 200:
            self.took(answer.body.decode(), entries)
        return answer

    def took(self, line: str, entries: Sequence[bytes]) -> None:
        signature = Signature.parse(line.removesuffix("\n")).signature
        COSIGNER.verifier.verify(text_of(LOG.head(entries)), signature)
        self.cosigned.append((COSIGNER.verifier.time(signature), list(entries)))

    @property
    def beaten(self) -> bool:
        """Whether what was cosigned, read in the order of its times, is not one log that grows."""
        inorder = sorted(self.cosigned, key=lambda c: (c[0], len(c[1])))
        return any(later[: len(earlier)] != earlier for (_, earlier), (_, later) in itertools.pairwise(inorder))


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Victim]:
    path = tmp_path / "w.sqlite"
    SqliteWitnessStore.create(path).close()
    victim = Victim(lambda: SqliteWitnessStore.open(path))
    yield victim
    victim.store.close()  # type: ignore[attr-defined]


@pytest.fixture
def forgetful() -> Victim:
    """Without persistence."""
    return Victim(MemoryStore)


# -- one head after the other -----------------------------------------------------------------------------------------


def rewrite(victim: Victim) -> None:
    """Show a head, then a larger one over another past, with every proof that one might try."""
    victim.ask(0, HONEST[:7])
    for proven in (HONEST, FORKED):
        victim.ask(7, FORKED, Tree(proven).consistency(7))
    for proof in ([], [bytes(32)] * 5, [Tree(HONEST[:7]).root], [Tree(FORKED[:7]).root]):
        victim.ask(7, FORKED, proof)


def fork(victim: Victim) -> None:
    """Show two heads of one size."""
    victim.ask(0, HONEST[:7])
    for old in (7, 0, 6, 8):
        victim.ask(old, FORKED[:7], [])


def roll_back(victim: Victim) -> None:
    """Show a head, then a smaller one, then grow that one otherwise."""
    victim.ask(0, HONEST[:7])
    for old in (0, 5, 7):
        victim.ask(old, FORKED[:5], [])
    victim.ask(5, FORKED[:9])


@pytest.mark.parametrize("attack", [rewrite, fork, roll_back])
def test_a_log_cannot_have_two_histories_cosigned(ours: Victim, attack: Callable[[Victim], None]) -> None:
    attack(ours)
    ours.restart()
    attack(ours)
    assert not ours.beaten
    assert ours.ask(7, HONEST).status == 200, "the honest log is cosigned as before"


def test_against_a_witness_that_believes_proofs_the_rewrite_works(
    ours: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witness, "verify_consistency", lambda *_: None)
    rewrite(ours)
    assert ours.beaten


@pytest.mark.parametrize("attack", [fork, roll_back])
def test_against_a_witness_that_forgets_it_works(forgetful: Victim, attack: Callable[[Victim], None]) -> None:
    forgetful.ask(0, HONEST[:7])
    forgetful.restart()
    forgetful.ask(0, FORKED[:7] if attack is fork else FORKED[:5])
    assert forgetful.beaten


def replay(victim: Victim) -> None:
    """Record the requests of an honest log, and send each of them again later, also after a restart."""
    requests = []
    for old, size in itertools.pairwise([0, 3, 5, 9]):
        proof = Tree(HONEST[:size]).consistency(old)
        requests.append((encode_request(old, proof, LOG.head(HONEST[:size])), HONEST[:size]))
    for body, entries in requests:
        victim.send(body, entries)
    for body, entries in requests:
        victim.send(body, entries)
    victim.restart()
    for body, entries in requests[:-1]:
        victim.send(body, entries)


def test_a_replayed_request_is_answered_with_the_size_that_is_known(ours: Victim) -> None:
    replay(ours)
    assert not ours.beaten
    assert [len(entries) for _, entries in ours.cosigned] == [3, 5, 9]


def test_against_a_witness_that_forgets_the_replay_works(forgetful: Victim) -> None:
    replay(forgetful)
    assert forgetful.beaten


# -- two at once ------------------------------------------------------------------------------------------------------


class Meeting:
    """A store that lets requests go on only when all of them have looked at the last head."""

    def __init__(self, store: Any, parties: int) -> None:
        self.accuse, self.advance = store.accuse, store.advance
        self._store, self._barrier, self._waited = store, threading.Barrier(parties), threading.local()

    def last(self, origin: str) -> LastHead | None:
        found: LastHead | None = self._store.last(origin)
        if not getattr(self._waited, "done", False):
            self._waited.done = True
            self._barrier.wait(10)
        return found


def race(victim: Victim, old: int, heads: Sequence[list[bytes]]) -> list[int]:
    """All heads at once, each with a good proof. Statuses."""
    store, answers = Meeting(victim.store, len(heads)), dict[int, WitnessAnswer]()

    def ask(number: int) -> None:
        body = encode_request(old, Tree(heads[number]).consistency(old), LOG.head(heads[number]))
        served = Witness(store, COSIGNER, {SIGNER.name: SIGNER.verifier})
        answers[number] = served.add_checkpoint(body, lambda: victim.time)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(heads))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for number, answer in answers.items():
        if answer.status == 200:
            victim.took(answer.body.decode(), heads[number])
    return sorted(answer.status for answer in answers.values())


TWO_OF_ONE_SIZE = [[*HONEST[:5], b"one"], [*HONEST[:5], b"other"]]
SMALL_AND_LARGE = [[*HONEST[:5], b"one"], [*HONEST[:5], b"other", b"and more"]]


@pytest.mark.parametrize("heads", [TWO_OF_ONE_SIZE, SMALL_AND_LARGE], ids=["one size", "two sizes"])
@pytest.mark.parametrize("old", [0, 5])
def test_of_two_heads_at_once_one_is_cosigned(ours: Victim, heads: list[list[bytes]], old: int) -> None:
    if old:
        ours.ask(0, HONEST[:old])
    assert race(ours, old, heads) == [200, 409]
    assert not ours.beaten


@pytest.mark.parametrize("heads", [TWO_OF_ONE_SIZE, SMALL_AND_LARGE], ids=["one size", "two sizes"])
def test_against_a_witness_that_stores_without_comparing_both_are(heads: list[list[bytes]]) -> None:
    victim = Victim(NoCompareStore)
    victim.ask(0, HONEST[:5])
    assert race(victim, 5, heads) == [200, 200]
    assert victim.beaten


def test_of_many_heads_at_once_through_two_programs_one_is_cosigned(tmp_path: Path, ours: Victim) -> None:
    """Two memories on one file, as two processes have them."""
    ours.ask(0, HONEST[:5])
    second = SqliteWitnessStore.open(tmp_path / "w.sqlite")
    try:
        statuses, heads = [], [[*HONEST[:5], b"head %d" % i] for i in range(8)]
        barrier = threading.Barrier(len(heads))

        def ask(number: int) -> None:
            store = (ours.store, second)[number % 2]
            body = encode_request(5, Tree(heads[number]).consistency(5), LOG.head(heads[number]))
            barrier.wait(10)
            answer = Witness(store, COSIGNER, {SIGNER.name: SIGNER.verifier}).add_checkpoint(body, lambda: ours.time)
            statuses.append(answer.status)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(heads))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(statuses) == [200, *[409] * 7]
    finally:
        second.close()


# -- kill -9 ----------------------------------------------------------------------------------------------------------

# The witness in a process of its own, which dies at a chosen moment; what it answered before is on its output.
PROCESS = """
import base64, json, os, signal, sys
from pathlib import Path
from ledger.cosignature import Cosigner
from ledger.note import Verifier
from ledger.witness import LastHead, Witness
from ledger.witness_store import SqliteWitnessStore

folder, vkey, moment, body = sys.argv[1], sys.argv[2], sys.argv[3], base64.b64decode(sys.argv[4])
store = SqliteWitnessStore.open(Path(folder) / "w.sqlite")

def die(at):
    if at == moment:
        os.kill(os.getpid(), signal.SIGKILL)

class Dying:
    last, accuse = store.last, store.accuse

    def advance(self, origin, expected, new, now):
        die("before storing")
        def dying_now():
            die("inside of storing")
            return now()
        if moment == "replies first":  # the weakened build: what it says is not stored yet
            return LastHead(new.size, new.root, now(), new.note)
        stored = store.advance(origin, expected, new, dying_now)
        die("before cosigning")
        return stored

key = Verifier.parse(vkey)
answer = Witness(Dying(), Cosigner("witness.example/w1", bytes([7]) * 32), {key.name: key}).add_checkpoint(
    body, lambda: 1_700_000_100)
die("before replying")
print(json.dumps([answer.status, answer.body.decode()]), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(folder: Path, moment: str, body: bytes) -> list[Any] | None:
    """What was answered before the process died."""
    import base64

    root = Path(__file__).resolve().parents[2]
    arguments = [str(folder), str(SIGNER.verifier), moment, base64.b64encode(body).decode()]
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, *arguments], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return json.loads(done.stdout) if done.stdout else None


def crash_and_fork(victim: Victim, folder: Path, moment: str) -> bool:
    """One head, the witness killed on the next, then another head in its place. Whether the second was answered."""
    victim.ask(0, HONEST[:5])
    victim.store.close()  # type: ignore[attr-defined]
    body = encode_request(5, Tree(HONEST[:6]).consistency(5), LOG.head(HONEST[:6]))
    answer = killed(folder, moment, body)
    if answer is not None:
        victim.took(answer[1], HONEST[:6])
    victim.store = victim.open_store()
    return answer is not None


@pytest.mark.parametrize(
    ("moment", "stored"),
    [
        ("before storing", False),
        ("inside of storing", False),
        ("before cosigning", True),
        ("before replying", True),
        ("after replying", True),
    ],
)
def test_a_crash_at_any_moment_leaves_no_room_for_a_second_head(
    ours: Victim, tmp_path: Path, moment: str, stored: bool
) -> None:
    answered = crash_and_fork(ours, tmp_path, moment)
    assert answered == (moment == "after replying")
    other = [*HONEST[:5], b"another sixth"]
    if stored:
        # Whether it was answered or not: the witness may have been heard by somebody.
        assert ours.ask(5, other).status == 409
        assert ours.ask(6, other, []).status == 409
        # And the honest log, whose request was never answered, finds its way back.
        answer = ours.ask(5, HONEST[:6])
        assert (answer.status, answer.content_type, answer.body) == (409, SIZE_TYPE, b"6\n")
        assert ours.ask(6, HONEST[:6]).status == 200
    else:
        assert ours.ask(5, other).status == 200
        assert ours.ask(5, HONEST[:6]).status == 409
    assert not ours.beaten


def test_against_a_witness_that_replies_before_it_stores_a_crash_works(ours: Victim, tmp_path: Path) -> None:
    assert crash_and_fork(ours, tmp_path, "replies first")
    assert ours.ask(5, [*HONEST[:5], b"another sixth"]).status == 200
    assert ours.beaten


# -- a witness made to forget -----------------------------------------------------------------------------------------


def test_a_memory_that_was_deleted_is_not_replaced_by_an_empty_one(tmp_path: Path) -> None:
    store, cosigner = open_folder(tmp_path, "witness.example/w1")
    served = Witness(store, cosigner, {SIGNER.name: SIGNER.verifier})
    assert served.add_checkpoint(LOG.request(0, HONEST[:7]), lambda: 5).status == 200
    store.close()
    for path in tmp_path.glob("witness.sqlite*"):
        path.unlink()
    with pytest.raises(UsageError, match="is gone"):
        open_folder(tmp_path, None)
    # The weakened start, which makes a new memory for the old key, cosigns the fork.
    store = SqliteWitnessStore.create(tmp_path / "witness.sqlite")
    served = Witness(store, cosigner, {SIGNER.name: SIGNER.verifier})
    assert served.add_checkpoint(LOG.request(0, FORKED[:7]), lambda: 6).status == 200
    store.close()


# -- cosignatures taken from where they belong ------------------------------------------------------------------------

POLICY = f"log {SIGNER.verifier}\nwitness W {COSIGNER.verifier}\nquorum W\n"
HEAD = LOG.head(HONEST)
CHECKPOINTS = {
    "another tree": LOG.head(FORKED),
    "a larger tree": LOG.head([*HONEST, b"more"]),
    "an extension line": LOG.head(HONEST, "extended"),
}


def accepts(policy: TlogPolicy, note: bytes) -> bool:
    try:
        policy.open(note, SIGNER.name)
    except VerificationFailed:
        return False
    return True


@pytest.mark.parametrize("target", CHECKPOINTS)
def test_a_cosignature_does_not_move_to_another_checkpoint(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = with_cosignatures(CHECKPOINTS[target], [COSIGNER.cosign(text_of(HEAD), 77)])
    assert not accepts(TlogPolicy.parse(POLICY), moved)
    monkeypatch.setattr(CosignatureVerifier, "verify", lambda self, text, signature: None)
    assert accepts(TlogPolicy.parse(POLICY), moved), "against a policy that counts lines without verifying them"


def test_a_cosignature_does_not_move_to_another_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def backdated(made: Signature) -> bytes:
        signature = (5).to_bytes(8, "big") + made.signature[8:]
        return with_cosignatures(HEAD, [Signature(made.name, made.key_id, signature)])

    policy = TlogPolicy.parse(POLICY)
    assert not accepts(policy, backdated(COSIGNER.cosign(text_of(HEAD), 77)))
    # The weakened build: a time that is carried along but not signed.
    monkeypatch.setattr("ledger.cosignature._message", lambda text, time: b"cosignature/v1\n" + text)
    assert policy.open(backdated(COSIGNER.cosign(text_of(HEAD), 77)), SIGNER.name).time == 5


def test_a_cosignature_does_not_move_to_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is signed does not name the cosigner: one key under two names would speak for both."""
    twin = CosignatureVerifier("twin.example", COSIGNER.verifier.public_key)
    made = COSIGNER.cosign(text_of(HEAD), 77)
    renamed = Signature(twin.name, twin.key_id, made.signature)
    twin.verify(text_of(HEAD), renamed.signature)
    assert not accepts(TlogPolicy.parse(POLICY), with_cosignatures(HEAD, [renamed]))
    both = f"log {SIGNER.verifier}\nwitness A {COSIGNER.verifier}\nwitness B {twin}\ngroup g 2 A B\nquorum g\n"
    with pytest.raises(DecodeError, match="public key"):
        TlogPolicy.parse(both)
    without_check(monkeypatch)
    assert accepts(TlogPolicy.parse(both), with_cosignatures(HEAD, [made, renamed]))


# -- a log's key as a witness's key -----------------------------------------------------------------------------------


def without_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy reader that lets one public key stand in several lines."""

    class Nothing(set[bytes]):
        def __contains__(self, key: object) -> bool:
            return False

    original = trust_policy._Reader.__init__

    def careless(self: Any) -> None:
        original(self)
        self._keys = Nothing()

    monkeypatch.setattr(trust_policy._Reader, "__init__", careless)


def test_a_key_of_type_01_cannot_be_made_to_cosign(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that signs bare texts signs any text, also one that reads as a cosignature's message."""
    witness_of_itself = CosignatureVerifier("independent.example", SIGNER.verifier.public_key)
    text = text_of(HEAD)
    trick = SIGNER.sign(b"cosignature/v1\ntime 77\n" + text).signature
    forged = Signature(witness_of_itself.name, witness_of_itself.key_id, (77).to_bytes(8, "big") + trick)
    note = with_cosignatures(HEAD, [forged])
    policy = f"log {SIGNER.verifier}\nwitness W {witness_of_itself}\nquorum W\n"
    with pytest.raises(DecodeError, match="public key"):
        TlogPolicy.parse(policy)
    with pytest.raises(VerificationFailed, match="key of the log") as caught:
        TlogPolicy.parse(f"witness W {witness_of_itself}\nquorum W\n").open(note, SIGNER.name, SIGNER.verifier)
    assert caught.value.check == "policy.log"
    # The vkey of type 01 itself is none of a witness, and what a log signs as a head never is a cosignature.
    with pytest.raises(DecodeError, match="type 04 but 01"):
        TlogPolicy.parse(f"witness W {SIGNER.verifier}\nquorum W\n")
    with pytest.raises(UsageError):
        sign_checkpoint(Checkpoint("cosignature/v1", 5, bytes(32)), SIGNER)
    without_check(monkeypatch)
    assert accepts(TlogPolicy.parse(policy), note), "against a policy that lets a log witness itself"


def test_a_witness_does_not_follow_a_log_with_its_own_key(tmp_path: Path) -> None:
    store = SqliteWitnessStore.create(tmp_path / "w.sqlite")
    try:
        same = Signer("log.example/same", bytes([7]) * 32)
        with pytest.raises(UsageError, match="own key"):
            Witness(store, COSIGNER, {same.name: same.verifier})
    finally:
        store.close()


# -- one witness counted twice ----------------------------------------------------------------------------------------

V = COSIGNER.verifier
OTHER = Cosigner("witness.example/w2", bytes([8]) * 32).verifier
TWICE = {
    "two names": f"witness A {V}\nwitness B {V}\ngroup g 2 A B\nquorum g\n",
    "two key names": (
        f"witness A {V}\nwitness B {CosignatureVerifier('alias.example', V.public_key)}\ngroup g 2 A B\nquorum g\n"
    ),
    "one name defined twice": f"witness A {V}\nwitness A {OTHER}\ngroup g 2 A A\nquorum g\n",
    "one name twice in a group": f"witness A {V}\ngroup g 2 A A\nquorum g\n",
    "one name in two groups": f"witness A {V}\ngroup g any A\ngroup h any A\ngroup i all g h\nquorum i\n",
    "one group in two groups": f"witness A {V}\ngroup g any A\ngroup h any g\ngroup i 2 h g\nquorum i\n",
}


@pytest.mark.parametrize("how", TWICE)
def test_a_policy_in_which_a_witness_counts_twice_is_refused(how: str) -> None:
    with pytest.raises(DecodeError):
        TlogPolicy.parse(f"log {SIGNER.verifier}\n{TWICE[how]}")


def test_against_a_policy_built_without_the_readers_checks_one_witness_is_a_quorum_of_two() -> None:
    note = with_cosignatures(HEAD, [COSIGNER.cosign(text_of(HEAD), 77)])
    careless = TlogPolicy((SIGNER.verifier,), {}, (Witnessing("A", V, None),), {"g": Group("g", 2, ("A", "A"))}, "g")
    assert accepts(careless, note)


def test_one_witness_that_signs_twice_counts_once() -> None:
    policy = TlogPolicy.parse(f"log {SIGNER.verifier}\nwitness A {V}\nwitness B {OTHER}\ngroup g 2 A B\nquorum g\n")
    lines = "".join(COSIGNER.cosign(text_of(HEAD), time).line() for time in (77, 78, 79))
    assert not accepts(policy, HEAD + lines.encode())


# -- anything at all --------------------------------------------------------------------------------------------------

PIECES = [b"old ", b"0", b"5", b"7", b"\n", b"\n\n", b"A" * 43 + b"=", b"log.example/test", HEAD, LOG.head(FORKED[:5])]


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Witness]:
    store = SqliteWitnessStore.create(tmp_path_factory.mktemp("fuzzed") / "w.sqlite")
    served = Witness(store, COSIGNER, {SIGNER.name: SIGNER.verifier})
    assert served.add_checkpoint(LOG.request(0, HONEST[:5]), lambda: 5).status == 200
    yield served
    store.close()


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=4)), max_size=12).map(b"".join),
    )
)
def test_no_bytes_at_all_get_anything_else_than_an_answer(fuzzed: Witness, body: bytes) -> None:
    answer = fuzzed.add_checkpoint(body, lambda: 6)
    assert answer.status in (400, 403, 404, 409, 422)
    last = fuzzed.last(SIGNER.name)
    assert last is not None
    assert last.note == LOG.head(HONEST[:5])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_change_of_a_good_request_gets_another_head_cosigned(fuzzed: Witness, data: st.DataObject) -> None:
    good = LOG.request(5, HONEST[:9])
    at = data.draw(st.integers(0, len(good)))
    changed = good[:at] + data.draw(st.binary(max_size=3)) + good[at + data.draw(st.integers(0, 3)) :]
    store = MemoryStore()
    last = fuzzed.last(SIGNER.name)
    assert last is not None
    store.heads[SIGNER.name] = last
    answer = Witness(store, COSIGNER, {SIGNER.name: SIGNER.verifier}).add_checkpoint(changed, lambda: 6)
    if answer.status == 200:
        assert Note.parse(store.heads[SIGNER.name].note).text == Note.parse(LOG.head(HONEST[:9])).text
