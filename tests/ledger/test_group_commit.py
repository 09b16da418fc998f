"""Appends that wait for the disk go to it together; each caller still gets its own place and its own outcome."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NoReturn

import pytest

from ledger import MAX_ENTRY_BYTES, Appended, EntryTooLarge, Log, Signer, StorageError, UsageError, follow
from ledger.group_commit import MAX_BATCH_BYTES, MAX_BATCH_ENTRIES, Ticket, TicketQueue
from tests.support.faulty import FAULTS, Fault, FaultyStorage

SECONDS = 30.0


@pytest.fixture
def log(faulty: FaultyStorage, signer: Signer) -> Log:
    return Log(faulty, signer.verifier, signer)


class Caller(threading.Thread):
    """One thread that appends, and what came of it."""

    def __init__(self, log: Log, entries: list[bytes]) -> None:
        super().__init__(daemon=True)
        self.log, self.entries = log, entries
        self.appended: list[Appended] | None = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.appended = self.log.append_many(self.entries)
        except BaseException as error:
            self.error = error

    def outcome(self) -> list[int] | BaseException:
        self.join(SECONDS)
        assert not self.is_alive(), "an append never came back"
        if self.error is not None:
            return self.error
        assert self.appended is not None
        return [at.index for at in self.appended]


def _waiting(log: Log) -> int:
    return len(log._queue._waiting)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@contextmanager
def busy(log: Log, faulty: FaultyStorage, error: BaseException | None = None) -> Iterator[Caller]:
    """A commit of one entry that is under way inside, and ends (with `error`) on leaving."""
    reached, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        faulty.before_commit = None
        reached.set()
        assert go_on.wait(SECONDS)
        if error is not None:
            raise error

    faulty.before_commit = wait
    first = Caller(log, [b"the first"])
    assert reached.wait(SECONDS)
    try:
        yield first
    finally:
        go_on.set()
        first.join(SECONDS)


def _call_in_order(log: Log, batches: list[list[bytes]]) -> list[Caller]:
    """Callers whose tickets wait in this order."""
    callers = []
    for entries in batches:
        before = _waiting(log)
        callers.append(Caller(log, entries))
        _until(lambda before=before: _waiting(log) == before + 1)  # type: ignore[misc]
    return callers


def test_appends_that_wait_are_integrated_by_one_commit_in_the_order_of_their_arrival(
    log: Log, faulty: FaultyStorage, naive: Any
) -> None:
    batches = [[b"caller %d entry %d" % (i, k) for k in range(1 + i % 3)] for i in range(20)]
    with busy(log, faulty) as first:
        callers = _call_in_order(log, batches)
        assert len(faulty.batches) == 1
    assert first.outcome() == [0]
    outcomes = [caller.outcome() for caller in callers]
    assert len(faulty.batches) == 2, "one signature and one flush for all of them"
    entries = [entry for batch in batches for entry in batch]
    assert [index for outcome in outcomes if isinstance(outcome, list) for index in outcome] == list(
        range(1, len(entries) + 1)
    )
    assert list(log.entries()) == [b"the first", *entries]
    assert log.head().root == naive.root([b"the first", *entries])


def test_each_caller_gets_the_leaf_hashes_of_its_own_entries(log: Log, faulty: FaultyStorage, naive: Any) -> None:
    with busy(log, faulty):
        callers = _call_in_order(log, [[b"a", b"b"], [b"c"]])
    assert [caller.outcome() for caller in callers] == [[1, 2], [3]]
    assert callers[0].appended == [Appended(1, naive.leaf(b"a")), Appended(2, naive.leaf(b"b"))]
    assert callers[1].appended == [Appended(3, naive.leaf(b"c"))]


def test_a_refused_append_harms_no_other(log: Log, faulty: FaultyStorage) -> None:
    with busy(log, faulty):
        good = _call_in_order(log, [[b"a"]])
        too_large = Caller(log, [b"fine", bytes(MAX_ENTRY_BYTES + 1)])
        assert isinstance(too_large.outcome(), EntryTooLarge), "at once, without waiting for the disk"
        good += _call_in_order(log, [[b"b"], [b"c"]])
    assert [caller.outcome() for caller in good] == [[1], [2], [3]]
    assert list(log.entries()) == [b"the first", b"a", b"b", b"c"]


@pytest.mark.parametrize("fail", FAULTS)
def test_a_failed_write_reaches_every_caller_of_the_batch_and_the_log_settles(
    log: Log, faulty: FaultyStorage, signer: Signer, fail: Fault, naive: Any
) -> None:
    log.append(b"before")
    before = log.head()
    with busy(log, faulty) as first:
        callers = _call_in_order(log, [[b"a", b"b"], [b"c"], [b"d"]])
        # The commit under way has taken its fault (none) once it goes on: this one is for the next.
        faulty.before_commit = lambda: setattr(faulty, "fail", fail) if len(faulty.batches) == 3 else None
    assert first.outcome() == [1]
    errors = [caller.outcome() for caller in callers]
    assert all(isinstance(error, StorageError) and "injected" in str(error) for error in errors)
    assert len({id(error) for error in errors}) == 3, "each its own: a traceback belongs to one thread"
    assert log.append(b"after").index == (6 if fail == "persisted" else 2)
    stored = [b"a", b"b", b"c", b"d"] if fail == "persisted" else []
    assert list(log.entries()) == [b"before", b"the first", *stored, b"after"]
    follow(before, log.checkpoint(), log.consistency_proof(1), signer.verifier, signer.name)
    assert log.head().root == naive.root(list(log.entries()))


def test_a_failed_write_does_not_touch_those_who_came_later(log: Log, faulty: FaultyStorage) -> None:
    with busy(log, faulty, StorageError("injected: nothing was written")) as first:
        later = _call_in_order(log, [[b"a"], [b"b"]])
    assert isinstance(first.outcome(), StorageError)
    assert [caller.outcome() for caller in later] == [[0], [1]]


def test_a_log_that_cannot_settle_says_so_to_everybody(
    log: Log, faulty: FaultyStorage, head_note: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with busy(log, faulty, StorageError("injected: nothing was written")):
        later = _call_in_order(log, [[b"a"], [b"b"], [b"c"]])
        monkeypatch.setattr(faulty, "checkpoint", lambda: head_note([b"somebody else's"]))
    assert all(isinstance(caller.outcome(), StorageError) for caller in later)
    assert len(faulty.batches) == 1, "nothing was signed"


def test_a_storage_that_cannot_be_reached_is_asked_once_for_all_who_wait(
    log: Log, faulty: FaultyStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def out_of_reach() -> NoReturn:
        asked.append(1)
        raise StorageError("injected: the database does not answer")

    with busy(log, faulty):
        callers = _call_in_order(log, [[b"a"], [b"b"], [b"c"]])
        monkeypatch.setattr(faulty, "exclusive", out_of_reach)
    assert all("does not answer" in str(caller.outcome()) for caller in callers)
    assert asked == [1]
    monkeypatch.undo()
    assert log.append(b"after").index == 1


def test_an_interrupted_writer_leaves_nobody_waiting(log: Log, faulty: FaultyStorage) -> None:
    with busy(log, faulty) as first:
        callers = _call_in_order(log, [[b"a"], [b"b"], [b"c"]])

        def interrupt() -> None:
            faulty.before_commit = None
            raise KeyboardInterrupt

        faulty.before_commit = interrupt
    assert first.outcome() == [0]
    outcomes = [caller.outcome() for caller in callers]
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["KeyboardInterrupt"] + ["StorageError"] * 2
    assert any("broken off" in str(outcome) for outcome in outcomes)
    assert log.append(b"after").index == 1


def test_a_leader_that_is_interrupted_before_it_began_concerns_nobody_else(
    log: Log, faulty: FaultyStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    exclusive, interrupts = faulty.exclusive, [KeyboardInterrupt]

    def interrupted() -> AbstractContextManager[None]:
        if interrupts:
            raise interrupts.pop()
        return exclusive()

    with busy(log, faulty):
        callers = _call_in_order(log, [[b"a"], [b"b"], [b"c"]])
        monkeypatch.setattr(faulty, "exclusive", interrupted)
    assert isinstance(callers[0].outcome(), KeyboardInterrupt)
    assert [caller.outcome() for caller in callers[1:]] == [[1], [2]]
    assert list(log.entries()) == [b"the first", b"b", b"c"], "what was interrupted in the queue is not appended later"


def test_a_lock_that_cannot_be_left_does_not_hide_that_the_entries_are_durable(
    log: Log, faulty: FaultyStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    exclusive = faulty.exclusive

    @contextmanager
    def lost() -> Iterator[None]:
        with exclusive():
            yield
        raise StorageError("injected: the connection was lost after the commit")

    monkeypatch.setattr(faulty, "exclusive", lost)
    assert log.append(b"a").index == 0
    with busy(log, faulty) as first:
        callers = _call_in_order(log, [[b"b"], [b"c"]])
    assert [first.outcome(), *(caller.outcome() for caller in callers)] == [[1], [2], [3]]
    monkeypatch.undo()
    assert log.append(b"d").index == 4


def test_a_mistake_in_a_storage_is_shown_as_it_is_to_one_and_harms_no_later_append(
    log: Log, faulty: FaultyStorage
) -> None:
    with busy(log, faulty, ZeroDivisionError("a mistake")) as first:
        later = _call_in_order(log, [[b"a"]])
    assert isinstance(first.outcome(), ZeroDivisionError)
    assert later[0].outcome() == [0]


def test_a_log_that_is_closed_answers_all_who_wait(log: Log, faulty: FaultyStorage) -> None:
    with busy(log, faulty) as first:
        callers = _call_in_order(log, [[b"a"], [b"b"]])
        faulty.before_commit = log.close
    assert first.outcome() == [0]
    assert all(isinstance(caller.outcome(), UsageError | StorageError) for caller in callers)


class TestExclusive:
    def test_nobody_appends_in_between_and_the_waiting_come_after(self, log: Log, faulty: FaultyStorage) -> None:
        with log.exclusive():
            assert log.append(b"mine").index == 0
            callers = _call_in_order(log, [[b"a"], [b"b"]])
            with log.exclusive():
                assert log.append_many([b"mine too", b"and this"])[0].index == 1
            assert log.append(b"and the last").index == 3
            assert log.size == 4
        assert [caller.outcome() for caller in callers] == [[4], [5]]
        assert len(faulty.batches) == 4

    def test_a_decision_on_what_was_read_is_still_true_when_it_is_appended(self, log: Log) -> None:
        def count() -> None:
            for _ in range(10):
                with log.exclusive():
                    size = log.size
                    assert log.append(b"%d" % size).index == size

        threads = [threading.Thread(target=count, daemon=True) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        assert list(log.entries()) == [b"%d" % i for i in range(60)]

    @pytest.mark.parametrize("fail", FAULTS)
    def test_a_failed_append_inside_is_settled_by_the_next_one(
        self, log: Log, faulty: FaultyStorage, fail: Fault
    ) -> None:
        with log.exclusive():
            faulty.fail = fail
            with pytest.raises(StorageError):
                log.append(b"a")
            assert log.append(b"b").index == (1 if fail == "persisted" else 0)
            log.publish(log.checkpoint())

    def test_it_is_left_after_an_error(self, log: Log) -> None:
        with pytest.raises(ZeroDivisionError), log.exclusive():
            raise ZeroDivisionError
        assert Caller(log, [b"another thread"]).outcome() == [0]


class TestLimits:
    def test_a_long_queue_is_integrated_in_several_batches(self, log: Log, faulty: FaultyStorage) -> None:
        batches = [[b"%d.%d" % (i, k) for k in range(1500)] for i in range(4)]
        with busy(log, faulty):
            callers = _call_in_order(log, batches)
        assert [len(_indices(caller)) for caller in callers] == [1500] * 4
        assert [len(batch.entries) for batch in faulty.batches] == [1, 3000, 3000]
        assert list(log.entries(1)) == [entry for batch in batches for entry in batch]

    def test_a_caller_beyond_the_limit_is_a_batch_of_its_own(self, log: Log, faulty: FaultyStorage) -> None:
        with busy(log, faulty):
            callers = _call_in_order(log, [[b"a"], [b"x"] * (MAX_BATCH_ENTRIES + 1), [b"b"]])
        assert [len(_indices(caller)) for caller in callers] == [1, MAX_BATCH_ENTRIES + 1, 1]
        assert [len(batch.entries) for batch in faulty.batches] == [1, 1, MAX_BATCH_ENTRIES + 1, 1]

    def test_a_batch_is_limited_in_bytes_too(self) -> None:
        entry = bytes(MAX_ENTRY_BYTES)
        queue, tickets = _queue_of(*(Ticket([entry] * 100, [bytes(32)] * 100) for _ in range(5)))
        assert 2 * tickets[0].bytes < MAX_BATCH_BYTES < 3 * tickets[0].bytes
        batches = []
        while batch := queue.batch():
            assert batch[0].leads
            batches.append(batch)
            for ticket in batch:
                ticket.succeed(0)
            for ticket in reversed(batch):
                queue.leave(ticket)
        assert batches == [tickets[:2], tickets[2:4], tickets[4:]]

    def test_a_ticket_is_settled_once(self) -> None:
        ticket = Ticket([b"x"], [bytes(32)])
        assert not ticket.settled
        with pytest.raises(AssertionError):
            ticket.result()
        ticket.succeed(7)
        ticket.fail(StorageError("the unlocking failed after the commit"))
        assert ticket.result() == 7


class TestTheLead:
    def test_the_first_leads_and_hands_over_to_the_first_that_waits(self) -> None:
        queue, (a, b, c) = _queue_of(*(Ticket([b"x"], [bytes(32)]) for _ in range(3)))
        assert [t.leads for t in (a, b, c)] == [True, False, False]
        a.succeed(0)
        b.succeed(1)
        queue.leave(a)
        assert [t.leads for t in (a, b, c)] == [True, False, True]
        queue.leave(b)
        assert queue.batch() == [c]
        c.succeed(2)
        queue.leave(c)
        later = Ticket([b"x"], [bytes(32)])
        queue.put(later)
        assert later.leads, "nobody did"

    def test_an_interrupted_leader_passes_the_lead_and_an_interrupted_follower_goes_quietly(self) -> None:
        queue, (a, b, c) = _queue_of(*(Ticket([b"x"], [bytes(32)]) for _ in range(3)))
        queue.leave(b)
        assert queue.batch() == [a, c]
        queue.leave(a)
        assert queue.batch() == [c]
        assert c.leads

    def test_waiting_ends_for_the_settled_and_for_the_leader(self) -> None:
        _, (a, b, c) = _queue_of(*(Ticket([b"x"], [bytes(32)]) for _ in range(3)))
        b.succeed(1)
        c.fail(StorageError("x"))
        for ticket in (a, b, c):
            ticket.wait()


def _queue_of(*tickets: Ticket) -> tuple[TicketQueue, list[Ticket]]:
    queue = TicketQueue()
    for ticket in tickets:
        queue.put(ticket)
    return queue, list(tickets)


def _indices(caller: Caller) -> list[int]:
    outcome = caller.outcome()
    assert isinstance(outcome, list)
    return outcome


def test_many_threads_under_random_faults_lose_nothing_that_was_acknowledged(
    log: Log, faulty: FaultyStorage, signer: Signer, naive: Any
) -> None:
    rng = random.Random(9)
    acknowledged: dict[int, bytes] = {}
    unexpected: list[BaseException] = []
    faults: list[Fault | None] = [None, None, None, *FAULTS]
    faulty.before_commit = lambda: setattr(faulty, "fail", rng.choice(faults))

    def write(number: int) -> None:
        last = -1
        for i in range(20):
            batch = [b"thread %d batch %d entry %d" % (number, i, k) for k in range(1 + (number + i) % 3)]
            try:
                appended = log.append_many(batch)
            except StorageError:
                continue
            except BaseException as error:
                unexpected.append(error)
                return
            assert [a.index for a in appended] == list(range(appended[0].index, appended[0].index + len(batch)))
            assert appended[0].index > last
            last = appended[-1].index
            acknowledged.update({a.index: entry for a, entry in zip(appended, batch, strict=True)})

    threads = [threading.Thread(target=write, args=(number,), daemon=True) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()
    faulty.before_commit = None
    log.append(b"the last")
    assert unexpected == []
    assert 0 < len(acknowledged) < log.size
    assert all(log.entry(index) == entry for index, entry in acknowledged.items())
    assert log.head().root == naive.root(list(log.entries()))
    assert len(faulty.batches) < 160, "appends were grouped"
