"""A witness: every status of the protocol, what is stored before it is said, evidence, clocks, and its folder."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.checkpoint import Checkpoint, VerifiedHead, open_checkpoint, sign_checkpoint
from ledger.cosignature import Cosigner, with_cosignatures
from ledger.errors import DecodeError, StorageError, UsageError, VerificationFailed
from ledger.note import Note, Signature, Signer
from ledger.witness import Witness, WitnessAnswer
from ledger.witness_store import SqliteWitnessStore, open_folder
from ledger.witness_wire import (
    MAX_ANSWER_BYTES,
    MAX_REQUEST_BYTES,
    SIZE_TYPE,
    WitnessReply,
    encode_request,
    parse_answer,
    parse_request,
)
from tests.support.lying_log import LyingLog, Tree, entries_of, text_of

SIGNER = Signer("log.example/test", bytes(range(32)))
LOG = LyingLog(SIGNER)
OTHER = LyingLog(Signer("other.example/log", bytes(32)))
COSIGNER = Cosigner("witness.example/w1", bytes([7]) * 32)


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.time = 1_700_000_000

    def __call__(self) -> int:
        return self.time


class Asked:
    """A witness with its memory and clock."""

    def __init__(self, path: Path) -> None:
        self.store = SqliteWitnessStore.create(path)
        self.clock = Clock()
        self.witness = Witness(self.store, COSIGNER, {log.signer.name: log.signer.verifier for log in (LOG, OTHER)})

    def __call__(self, body: bytes) -> WitnessAnswer:
        return self.witness.add_checkpoint(body, self.clock)

    def cosigns(self, old: int, entries: Sequence[bytes], log: LyingLog = LOG) -> int:
        """The time of the cosignature, which must be given."""
        answer = self(log.request(old, entries))
        assert answer.status == 200, answer
        return verified(answer, log.head(entries))

    def refuses(self, body: bytes, status: int) -> WitnessAnswer:
        """Refused, and nothing changed."""
        before = self.store.heads()
        answer = self(body)
        assert answer.status == status, answer
        assert self.store.heads() == before
        return answer

    def kinds(self) -> list[str]:
        return [evidence.kind for _, evidence in self.store.evidence()]


def verified(answer: WitnessAnswer, checkpoint: bytes) -> int:
    """The time of the one cosignature in an answer, which holds for this checkpoint."""
    assert answer.body.count(b"\n") == 1
    line = Signature.parse(answer.body.decode()[:-1])
    COSIGNER.verifier.verify(text_of(checkpoint), line.signature)
    assert (line.name, line.key_id) == (COSIGNER.name, COSIGNER.verifier.key_id)
    return COSIGNER.verifier.time(line.signature)


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    made = Asked(tmp_path / "w.sqlite")
    yield made
    made.store.close()


class TestTheProtocol:
    def test_an_honest_log_is_cosigned_step_by_step(self, asked: Asked) -> None:
        entries = entries_of(20)
        for old, new in itertools.pairwise([0, 1, 2, 5, 8, 8, 13, 20]):
            asked.clock.time += 10
            assert asked.cosigns(old, entries[:new]) == asked.clock.time
        last = asked.store.last(SIGNER.name)
        assert last is not None
        assert (last.size, last.root) == (20, Tree(entries).root)
        assert asked.kinds() == []

    def test_the_first_head_is_taken_as_it_is_and_needs_no_proof(self, asked: Asked) -> None:
        asked.cosigns(0, entries_of(12))

    def test_the_empty_tree_is_cosigned_and_grown_from(self, asked: Asked) -> None:
        asked.cosigns(0, [])
        asked.cosigns(0, [])
        asked.refuses(LOG.request(0, entries_of(3)).replace(b"old 0\n", b"old 0\n" + b"A" * 43 + b"=\n"), 422)
        asked.cosigns(0, entries_of(3))

    def test_logs_do_not_touch_each_other(self, asked: Asked) -> None:
        asked.cosigns(0, entries_of(5))
        asked.cosigns(0, entries_of(3, changed=1), OTHER)
        asked.cosigns(3, entries_of(4, changed=1), OTHER)
        asked.cosigns(5, entries_of(6))

    def test_the_same_head_is_cosigned_again_with_the_present_time(self, asked: Asked) -> None:
        first = asked.cosigns(0, entries_of(5))
        asked.clock.time += 100
        assert asked.cosigns(5, entries_of(5)) == first + 100

    def test_409_tells_the_size_that_was_cosigned_last(self, asked: Asked) -> None:
        for old in (1, 5):
            answer = asked.refuses(LOG.request(old, entries_of(5)), 409)
            assert (answer.body, answer.content_type) == (b"0\n", "text/x.tlog.size")
        asked.cosigns(0, entries_of(5))
        for old, size in ((0, 5), (0, 9), (4, 9), (6, 9), (9, 9), (3, 4), (0, 0)):
            answer = asked.refuses(LOG.request(old, entries_of(size)), 409)
            assert (answer.body, answer.content_type) == (b"5\n", "text/x.tlog.size")
        assert asked.kinds() == []

    def test_409_of_another_kind_for_another_root_of_the_same_size(self, asked: Asked) -> None:
        asked.cosigns(0, entries_of(5))
        answer = asked.refuses(encode_request(5, [], LOG.head(entries_of(5, changed=2))), 409)
        assert answer.content_type != SIZE_TYPE

    def test_422_for_a_proof_that_does_not_show_it(self, asked: Asked) -> None:
        entries = entries_of(9)
        asked.refuses(encode_request(0, [bytes(32)], LOG.head(entries)), 422)
        asked.cosigns(0, entries[:5])
        good = Tree(entries).consistency(5)
        for proof in ([], good[:-1], [*good, bytes(32)], good[::-1], [bytes(32)] * len(good), [bytes(32)] * 63):
            asked.refuses(encode_request(5, proof, LOG.head(entries)), 422)
        asked.refuses(encode_request(5, [bytes(32)], LOG.head(entries[:5])), 422)
        asked.cosigns(5, entries)

    def test_422_for_an_empty_tree_with_a_root(self, asked: Asked) -> None:
        head = sign_checkpoint(Checkpoint(SIGNER.name, 0, bytes(32)), SIGNER)
        asked.refuses(encode_request(0, [], head), 422)

    def test_400_for_an_old_size_beyond_the_checkpoint_before_anything_else_is_looked_at(self, asked: Asked) -> None:
        asked.cosigns(0, entries_of(5))
        asked.refuses(encode_request(5, [], LOG.head(entries_of(4))), 400)
        asked.refuses(encode_request(7, [], LOG.head(entries_of(6))), 400)

    def test_403_without_the_logs_signature_and_with_a_bad_one_beside_a_good_one(self, asked: Asked) -> None:
        head = LOG.head(entries_of(5))
        text = Note.parse(head).text
        stranger = Signer(SIGNER.name, bytes(32)).sign(text.encode())
        cosigned = COSIGNER.cosign(text.encode(), 5)
        asked.refuses(encode_request(0, [], Note(text, (stranger, cosigned)).format()), 403)
        bad = Signature(SIGNER.name, SIGNER.verifier.key_id, bytes(64))
        good = SIGNER.sign(text.encode())
        for pair in ((good, bad), (bad, good)):
            asked.refuses(encode_request(0, [], Note(text, pair).format()), 403)
        # Signatures by others are of no interest.
        assert asked(encode_request(0, [], Note(text, (stranger, good, cosigned)).format())).status == 200

    def test_404_for_a_log_that_is_not_followed(self, asked: Asked) -> None:
        unknown = LyingLog(Signer("unknown.example", bytes(32)))
        asked.refuses(unknown.request(0, entries_of(5)), 404)

    def test_a_log_cannot_speak_for_another(self, asked: Asked) -> None:
        text = Checkpoint(OTHER.signer.name, 5, bytes(32)).format()
        asked.refuses(encode_request(0, [], Note(text, (SIGNER.sign(text.encode()),)).format()), 403)

    def test_extension_lines_are_cosigned_and_may_change_at_one_size(self, asked: Asked) -> None:
        head = LOG.head(entries_of(5), "extended")
        verified(asked(encode_request(0, [], head)), head)
        asked.cosigns(5, entries_of(5))


MALFORMED = [
    b"",
    b"\n",
    b"\n\n",
    b"old 0",
    b"old 0\n",
    b"old 0\n\n",
    b"new 0\n\n{head}",
    b"old\n\n{head}",
    b"old \n\n{head}",
    b"old 00\n\n{head}",
    b"old +0\n\n{head}",
    b"old -0\n\n{head}",
    b"old 0x0\n\n{head}",
    b"old 0 \n\n{head}",
    b"old  0\n\n{head}",
    b" old 0\n\n{head}",
    b"Old 0\n\n{head}",
    b"old 0\r\n\r\n{head}",
    b"old 0\n{head}",
    b"old 0\n\n\n{head}",
    b"\nold 0\n\n{head}",
    b"old \xd9\xa0\n\n{head}",
    b"old 9223372036854775808\n\n{head}",
    b"old 18446744073709551616\n\n{head}",
    b"old 0\nAAAA\n\n{head}",
    b"old 0\n" + b"A" * 43 + b"\n\n{head}",
    b"old 0\n" + b"A" * 42 + b"B=\n\n{head}",
    b"old 0\n" + b"A" * 44 + b"\n\n{head}",
    b"old 0\n" + b"A" * 43 + b"= \n\n{head}",
    b"old 0\n" + b"-" * 43 + b"=\n\n{head}",
    b"old 0\n" + (b"A" * 43 + b"=\n") * 64 + b"\n{head}",
    b"old 0\n\ngarbage",
    b"old 0\n\n{head}{head}",
    b"old 0\n\nlog.example/test\n5\n\n{line}",
    b"old 0\n\nlog.example/test\n05\n" + b"A" * 43 + b"=\n\n{line}",
    b"old 0\n\nlog.example/test\n5\nAAAA\n\n{line}",
    b"old 0\n\nlog.example/test\n-1\n" + b"A" * 43 + b"=\n\n{line}",
    b"x" * (MAX_REQUEST_BYTES + 1),
]


@pytest.mark.parametrize("number", range(len(MALFORMED)))
def test_400_for_malformed_bytes(asked: Asked, number: int) -> None:
    head = LOG.head(entries_of(5))
    body = MALFORMED[number].replace(b"{head}", head).replace(b"{line}", SIGNER.sign(b"x\n").line().encode())
    asked.refuses(body, 400)
    assert asked.kinds() == []


class TestTheWire:
    @settings(max_examples=100, deadline=None)
    @given(
        st.integers(0, 2**63 - 1), st.lists(st.binary(min_size=32, max_size=32), max_size=63), st.binary(max_size=99)
    )
    def test_requests_come_back(self, old: int, proof: list[bytes], checkpoint: bytes) -> None:
        request = parse_request(encode_request(old, proof, checkpoint))
        assert (request.old, list(request.proof), request.checkpoint) == (old, proof, checkpoint)

    @settings(max_examples=300, deadline=None)
    @given(
        st.one_of(
            st.binary(max_size=120),
            st.lists(st.sampled_from(["old ", "0", "7", "\n", "A" * 43 + "=", " ", "—"]), max_size=12).map(
                lambda parts: "".join(parts).encode()
            ),
        )
    )
    def test_any_bytes_are_a_request_that_is_written_so_or_refused(self, body: bytes) -> None:
        with contextlib.suppress(DecodeError):
            request = parse_request(body)
            assert encode_request(request.old, request.proof, request.checkpoint) == body

    def test_what_cannot_be_asked_is_not_written(self) -> None:
        for old, proof, checkpoint in (
            (-1, [], b""),
            (0, [bytes(32)] * 64, b""),
            (0, [bytes(31)], b""),
            (0, [], bytes(MAX_REQUEST_BYTES)),
        ):
            with pytest.raises(UsageError):
                encode_request(old, proof, checkpoint)

    HEAD = LOG.head(entries_of(5))

    def parse(self, status: int, kind: str, body: bytes) -> WitnessReply:
        return parse_answer(status, kind, body, self.HEAD, COSIGNER.verifier)

    def test_answers_are_understood(self) -> None:
        good = COSIGNER.cosign(text_of(self.HEAD), 77)
        stranger = Signature("stranger", bytes(4), b"whatever")
        for body in (good.line(), stranger.line() + good.line()):
            assert self.parse(200, "anything", body.encode()) == WitnessReply(good, None, "cosigned")
        assert self.parse(409, SIZE_TYPE, b"12\n").known_size == 12
        assert self.parse(409, SIZE_TYPE, b"0\n").known_size == 0
        for status, kind in (
            (409, "text/plain"),
            (400, ""),
            (403, SIZE_TYPE),
            (404, ""),
            (422, ""),
            (500, ""),
            (302, ""),
        ):
            reply = self.parse(status, kind, b"12\n")
            assert (reply.signature, reply.known_size) == (None, None)
            assert str(status) in reply.reason

    def test_what_no_witness_answers_is_refused(self) -> None:
        for body in (b"", b"\n", b"x\n", COSIGNER.cosign(text_of(self.HEAD), 77).line().encode()[:-1], b"\xff\n"):
            with pytest.raises(DecodeError):
                self.parse(200, "", body)
        for body in (b"", b"12", b"12\n\n", b"012\n", b"+1\n", b"-1\n", b"12 \n", b"\xff\n", b"9" * 30 + b"\n"):
            with pytest.raises(DecodeError):
                self.parse(409, SIZE_TYPE, body)
        with pytest.raises(DecodeError, match="more than"):
            self.parse(404, "", bytes(MAX_ANSWER_BYTES + 1))
        with pytest.raises(DecodeError, match="more than"):
            self.parse(200, "", Signature("s", bytes(4), b"x").line().encode() * 101)

    def test_a_cosignature_of_something_else_is_refused(self) -> None:
        other = LOG.head(entries_of(6))
        for line in (
            COSIGNER.cosign(text_of(other), 77),
            Cosigner("stranger.example", bytes(32)).cosign(text_of(self.HEAD), 77),
            Signature(COSIGNER.name, COSIGNER.verifier.key_id, bytes(72)),
            Signature(COSIGNER.name, COSIGNER.verifier.key_id, bytes(64)),
        ):
            with pytest.raises(VerificationFailed):
                self.parse(200, "", line.line().encode())

    def test_reasons_of_others_are_shown_on_one_line_and_not_at_any_length(self) -> None:
        reason = self.parse(404, "", b"\x1b[31m red \n\nfake line\r\n" + b"x" * 1000).reason
        assert reason.isprintable()
        assert len(reason) < 250
        assert "no reason" in self.parse(404, "", b"").reason


class TestEvidence:
    def test_a_fork_is_kept_with_both_notes_whatever_old_size_it_came_with(self, asked: Asked) -> None:
        asked.cosigns(0, entries_of(5))
        for number, old in enumerate((5, 0, 3)):
            forked = LOG.head(entries_of(5, changed=number))
            asked.refuses(encode_request(old, [], forked), 409)
            asked.refuses(encode_request(old, [], forked), 409)
            found = asked.store.evidence()[number][1]
            assert (found.kind, found.origin, found.new) == ("fork", SIGNER.name, forked)
            assert found.old == LOG.head(entries_of(5))
            heads = [open_checkpoint(note, SIGNER.verifier, SIGNER.name) for note in (found.old, found.new)]
            assert heads[0].size == heads[1].size
            assert heads[0].root != heads[1].root
        assert len(asked.kinds()) == 3

    def test_a_rewritten_past_is_kept_with_the_proof_that_came(self, asked: Asked) -> None:
        asked.cosigns(0, entries_of(5))
        rewritten = entries_of(9, changed=2)
        asked.refuses(LOG.request(5, rewritten), 422)
        ((number, found),) = asked.store.evidence()
        assert (found.kind, found.new, list(found.proof)) == (
            "unproven",
            LOG.head(rewritten),
            Tree(rewritten).consistency(5),
        )
        shown = found.to_json(number)
        assert shown["new"] == LOG.head(rewritten).decode()
        assert shown["old"] == LOG.head(entries_of(5)).decode()
        # Nothing that the log does later takes it back, except proving this very head.
        asked.cosigns(5, entries_of(12))
        assert asked.kinds() == ["unproven"]

    def test_somebody_elses_bad_proof_does_not_stick_to_an_honest_log(self, asked: Asked) -> None:
        asked.cosigns(0, entries_of(5))
        asked.refuses(encode_request(5, [], LOG.head(entries_of(9))), 422)
        assert asked.kinds() == ["unproven"]
        asked.cosigns(5, entries_of(9))
        assert asked.kinds() == []

    def test_unsigned_and_malformed_heads_are_no_evidence(self, asked: Asked) -> None:
        asked.cosigns(0, entries_of(5))
        forged = LyingLog(Signer(SIGNER.name, bytes(32)))
        asked.refuses(forged.request(5, entries_of(5, changed=1)), 403)
        asked.refuses(forged.request(5, entries_of(9, changed=1)), 403)
        asked.refuses(b"old 5\n\n" + LOG.head(entries_of(5, changed=1))[:-1], 400)
        assert asked.kinds() == []

    def test_lines_that_anybody_added_are_not_kept(self, asked: Asked) -> None:
        junk = [Signature(f"stranger{i}", bytes(4), bytes(1000)) for i in range(90)]
        asked(encode_request(0, [], with_cosignatures(LOG.head(entries_of(5)), junk)))
        forked = LOG.head(entries_of(5, changed=1))
        asked.refuses(encode_request(5, [], with_cosignatures(forked, junk)), 409)
        ((_, found),) = asked.store.evidence()
        assert (found.old, found.new) == (LOG.head(entries_of(5)), forked)

    def test_a_log_cannot_make_its_heads_long(self, asked: Asked) -> None:
        asked.refuses(encode_request(0, [], LOG.head(entries_of(5), "x" * 8192)), 400)
        assert asked(encode_request(0, [], LOG.head(entries_of(5), "x" * 8000))).status == 200

    def test_it_does_not_fill_the_disk(self, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ledger.witness_store._MOST_KEPT", {"fork": 3, "unproven": 2})
        asked.cosigns(0, entries_of(5))
        for i in range(5):
            asked.refuses(encode_request(5, [], LOG.head(entries_of(5, changed=i))), 409)
            asked.refuses(encode_request(5, [], LOG.head(entries_of(9, changed=i))), 422)
        found = [evidence for _, evidence in asked.store.evidence()]
        forks = [e.new for e in found if e.kind == "fork"]
        unproven = [e.new for e in found if e.kind == "unproven"]
        assert forks == [LOG.head(entries_of(5, changed=i)) for i in range(3)]
        assert unproven == [LOG.head(entries_of(9, changed=i)) for i in (3, 4)]
        numbers = [number for number, _ in asked.store.evidence()]
        assert [n for n, _ in asked.store.evidence(after=numbers[1])] == numbers[2:]
        assert [n for n, _ in asked.store.evidence(limit=2)] == numbers[:2]


class TestClock:
    def test_a_larger_head_never_has_an_earlier_time(self, asked: Asked) -> None:
        first = asked.cosigns(0, entries_of(5))
        asked.clock.time -= 30  # as when the clock is corrected
        assert asked.cosigns(5, entries_of(6)) == first
        asked.clock.time += 31
        assert asked.cosigns(6, entries_of(7)) == first + 1

    def test_with_a_clock_far_behind_nothing_is_cosigned_and_nothing_changes(self, asked: Asked) -> None:
        asked.cosigns(0, entries_of(5))
        before = asked.store.heads()
        asked.clock.time -= 3600
        with pytest.raises(StorageError, match="3600 s before the last cosignature"):
            asked(LOG.request(5, entries_of(6)))
        assert asked.store.heads() == before
        asked.cosigns(0, entries_of(3), OTHER)
        asked.clock.time += 3600
        asked.cosigns(5, entries_of(6))

    def test_the_time_is_taken_after_the_head_was_compared(self, asked: Asked) -> None:
        """A time from before could be later than that of a larger head which another request stored meanwhile."""
        log: list[str] = []
        store = asked.store

        class Watched:
            last, accuse = store.last, store.accuse

            def advance(self, origin: str, expected: Any, new: VerifiedHead, now: Callable[[], int]) -> Any:
                log.append("advance")
                return store.advance(origin, expected, new, now)

        def now() -> int:
            log.append("now")
            assert store._connection.in_transaction
            return 7

        Witness(Watched(), COSIGNER, {SIGNER.name: SIGNER.verifier}).add_checkpoint(LOG.request(0, entries_of(3)), now)
        assert log == ["advance", "now"]


class TestStoredFirst:
    def test_nothing_is_cosigned_when_storing_fails(self, asked: Asked) -> None:
        class Broken:
            last, accuse = asked.store.last, asked.store.accuse

            def advance(self, *_: Any) -> None:
                raise StorageError("injected")

        class Silent(Cosigner):
            def cosign(self, text: bytes, time: int) -> Signature:
                raise AssertionError("cosigned before it was stored")

        witness = Witness(Broken(), Silent("w.example", bytes(32)), {SIGNER.name: SIGNER.verifier})
        with pytest.raises(StorageError):
            witness.add_checkpoint(LOG.request(0, entries_of(3)), asked.clock)

    def test_the_memory_survives_and_is_the_same_for_two_programs(self, asked: Asked, tmp_path: Path) -> None:
        asked.cosigns(0, entries_of(5))
        second = SqliteWitnessStore.open(tmp_path / "w.sqlite")
        try:
            witness = Witness(second, COSIGNER, {SIGNER.name: SIGNER.verifier})
            forked = encode_request(5, [], LOG.head(entries_of(5, changed=1)))
            assert witness.add_checkpoint(forked, asked.clock).status == 409
            assert witness.add_checkpoint(LOG.request(5, entries_of(8)), asked.clock).status == 200
            asked.refuses(LOG.request(5, entries_of(6)), 409)
        finally:
            second.close()

    def test_a_head_is_not_stored_on_top_of_another_than_was_looked_at(self, asked: Asked) -> None:
        def head(entries: list[bytes]) -> VerifiedHead:
            return open_checkpoint(LOG.head(entries), SIGNER.verifier, SIGNER.name)

        five = asked.store.advance(SIGNER.name, None, head(entries_of(5)), asked.clock)
        assert five is not None
        assert asked.store.advance(SIGNER.name, None, head(entries_of(6)), asked.clock) is None
        forked = replace(five, root=Tree(entries_of(5, changed=1)).root)
        assert asked.store.advance(SIGNER.name, forked, head(entries_of(6)), asked.clock) is None
        six = asked.store.advance(SIGNER.name, five, head(entries_of(6)), asked.clock)
        assert asked.store.advance(SIGNER.name, five, head(entries_of(7)), asked.clock) is None
        assert asked.store.last(SIGNER.name) == six
        assert asked.store.last("nobody") is None

    def test_durability_is_asked_for(self, asked: Asked) -> None:
        assert asked.store._connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert asked.store._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


class TestLatest:
    def test_it_is_the_last_head_with_both_signatures_and_the_time_that_was_given(self, asked: Asked) -> None:
        assert asked.witness.latest(SIGNER.name) is None
        assert asked.witness.latest("nobody") is None
        stranger = Signature("stranger", bytes(4), b"whatever")
        head = LOG.head(entries_of(5))
        answer = asked(encode_request(0, [], with_cosignatures(head, [stranger])))
        time = verified(answer, head)
        asked.clock.time += 1000
        assert asked.witness.latest(SIGNER.name) == head + COSIGNER.cosign(text_of(head), time).line().encode()
        assert answer.body in (asked.witness.latest(SIGNER.name) or b"")

    def test_a_log_with_a_new_key_goes_on_from_its_last_head(self, asked: Asked) -> None:
        asked.cosigns(0, entries_of(5))
        new = LyingLog(Signer(SIGNER.name, bytes(32)))
        rekeyed = Witness(asked.store, COSIGNER, {SIGNER.name: new.signer.verifier})
        latest = rekeyed.latest(SIGNER.name)
        assert latest is not None
        assert latest.startswith(LOG.head(entries_of(5)))
        assert rekeyed.add_checkpoint(new.request(5, entries_of(5, changed=1)), asked.clock).status == 409
        assert rekeyed.add_checkpoint(LOG.request(5, entries_of(6)), asked.clock).status == 403
        assert rekeyed.add_checkpoint(new.request(5, entries_of(6)), asked.clock).status == 200


class TestConfiguration:
    def test_a_witness_has_no_key_of_a_log_and_a_log_only_its_own_name(self, asked: Asked) -> None:
        same = Signer("log.example/same", bytes([7]) * 32)
        with pytest.raises(UsageError, match="own key"):
            Witness(asked.store, COSIGNER, {same.name: same.verifier})
        with pytest.raises(UsageError, match="cannot speak"):
            Witness(asked.store, COSIGNER, {"another": SIGNER.verifier})

    def test_what_it_is_can_be_asked(self, asked: Asked) -> None:
        assert asked.witness.vkey == str(COSIGNER.verifier)
        assert set(asked.witness.logs) == {SIGNER.name, OTHER.signer.name}


class TestFolder:
    def test_key_and_memory_are_made_once_and_used_again(self, tmp_path: Path) -> None:
        folder = tmp_path / "a" / "w"
        store, cosigner = open_folder(folder, "witness.example/w1")
        store.close()
        assert folder.stat().st_mode & 0o777 == 0o700
        for name in ("witness.key", "witness.sqlite"):
            assert (folder / name).stat().st_mode & 0o777 == 0o600
        for named in (None, "witness.example/w1"):
            store, again = open_folder(folder, named)
            store.close()
            assert again.verifier == cosigner.verifier

    def test_a_new_witness_needs_a_name_and_an_old_one_keeps_it(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="name the new one"):
            open_folder(tmp_path / "w", None)
        with pytest.raises(UsageError, match="not a key name"):
            open_folder(tmp_path / "w", "two words")
        assert not (tmp_path / "w").exists()
        open_folder(tmp_path / "w", "one.example")[0].close()
        with pytest.raises(UsageError, match=r"called 'one\.example'"):
            open_folder(tmp_path / "w", "two.example")

    def test_a_key_without_its_memory_is_not_used(self, tmp_path: Path) -> None:
        open_folder(tmp_path, "one.example")[0].close()
        (tmp_path / "witness.sqlite").unlink()
        with pytest.raises(UsageError, match="is gone"):
            open_folder(tmp_path, "one.example")
        assert not (tmp_path / "witness.sqlite").exists()

    def test_an_interrupted_start_is_gone_on_from_and_a_used_memory_gets_no_new_key(self, tmp_path: Path) -> None:
        SqliteWitnessStore.create(tmp_path / "witness.sqlite").close()
        store, cosigner = open_folder(tmp_path, "one.example")
        witness = Witness(store, cosigner, {SIGNER.name: SIGNER.verifier})
        assert witness.add_checkpoint(LOG.request(0, entries_of(3)), Clock()).status == 200
        store.close()
        (tmp_path / "witness.key").unlink()
        with pytest.raises(UsageError, match="memory of a witness already"):
            open_folder(tmp_path, "one.example")

    def test_other_files_are_not_taken_for_a_memory(self, tmp_path: Path) -> None:
        path = tmp_path / "witness.sqlite"
        with pytest.raises(UsageError, match="no witness's memory"):
            SqliteWitnessStore.open(path)
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE other (x)")
        connection.commit()
        connection.close()
        for make in (SqliteWitnessStore.open, SqliteWitnessStore.create):
            with pytest.raises(UsageError, match="not the memory"):
                make(path)
        path.write_bytes(b"garbage" * 1000)
        for make in (SqliteWitnessStore.open, SqliteWitnessStore.create):
            with pytest.raises(StorageError):
                make(path)
        with pytest.raises(StorageError):
            SqliteWitnessStore.create(tmp_path / "none" / "w.sqlite")

    def test_a_closed_memory_says_so(self, tmp_path: Path) -> None:
        store = SqliteWitnessStore.create(tmp_path / "w.sqlite")
        store.close()
        store.close()
        with pytest.raises(StorageError):
            store.last("x")


OLD = st.one_of(st.just(-1), st.integers(0, 9))
"""An old size; -1 is the true one."""


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(OLD, st.integers(0, 9), st.integers(0, 3), st.integers(0, 3)), max_size=25))
def test_whatever_a_log_asks_the_cosigned_heads_are_one_growing_log(requests: list[tuple[int, int, int, int]]) -> None:
    """Trees that share their first entries with others or not, proofs from any of them, any old size, any order."""
    worlds = [entries_of(9), entries_of(9, changed=0), entries_of(9, changed=4), entries_of(9, changed=8)]
    clock, cosigned = Clock(), [list[bytes]()]
    with TemporaryDirectory() as folder:
        store = SqliteWitnessStore.create(Path(folder) / "w.sqlite")
        witness = Witness(store, COSIGNER, {SIGNER.name: SIGNER.verifier})
        for asked, size, world, proven in requests:
            clock.time += 1
            old = len(cosigned[-1]) if asked == -1 else asked
            entries, tree = worlds[world][:size], Tree(worlds[proven][:size])
            proof = tree.consistency(old) if old < size else []
            if witness.add_checkpoint(encode_request(old, proof, LOG.head(entries)), clock).status == 200:
                cosigned.append(entries)
        store.close()
    for earlier, later in itertools.pairwise(cosigned):
        assert later[: len(earlier)] == earlier
