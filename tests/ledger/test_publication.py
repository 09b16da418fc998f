"""Publishing a checkpoint: only what is durable and ours, never back, and everything served is about what was shown."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ledger import (
    CorruptLog,
    DecodeError,
    EntryBundle,
    Log,
    NotInLog,
    RootMismatch,
    Signer,
    StorageError,
    Tile,
    TlogProof,
    UsageError,
    VerificationFailed,
    leaf_hash,
    open_checkpoint,
    verify_consistency,
)
from ledger.checkpoint import Checkpoint, sign_checkpoint
from ledger.merkle import empty_root
from ledger.note import Note
from ledger.storage.base import Publication
from ledger.tiles import decode_entry_bundle, entry_bundles, parse_path, tiles
from tests.support.faulty import FAULTS, Fault, FaultyStorage
from tests.support.storages import Backend

ENTRIES = [f"entry {i}".encode() for i in range(300)]
WITNESSES = [Signer(f"witness.example/{i}", bytes([i]) * 32) for i in range(1, 4)]


def cosigned(note: bytes, *witnesses: Signer) -> bytes:
    """The note with more signature lines. (Their kind is no business of the log: it keeps what it is given.)"""
    parsed = Note.parse(note)
    return Note(parsed.text, (*parsed.signatures, *(w.sign(parsed.text.encode()) for w in witnesses))).format()


@pytest.fixture
def log(backend: Backend, first_note: bytes, signer: Signer) -> Iterator[Log]:
    with Log.on(backend.create(first_note), signer.verifier, signer) as log:
        yield log


class TestWhatIsPublished:
    def test_a_log_that_never_published_shows_its_integrated_head(self, log: Log) -> None:
        assert log.published() == log.head()
        log.append_many(ENTRIES[:5])
        assert log.published() == log.head()
        assert log.publications() == []

    def test_from_the_first_publication_on_it_stays_until_the_next(self, log: Log, signer: Signer) -> None:
        log.append_many(ENTRIES[:5])
        note = cosigned(log.checkpoint(), *WITNESSES)
        assert log.publish(note) == log.published()
        log.append_many(ENTRIES[5:9])
        assert log.published() == open_checkpoint(note, signer.verifier, signer.name)
        assert log.published().note == note
        assert (log.published().size, log.size) == (5, 9)
        log.publish(log.checkpoint())
        assert log.published() == log.head()

    def test_the_integrated_checkpoint_never_has_cosignatures(self, log: Log) -> None:
        log.append(b"x")
        before = log.checkpoint()
        log.publish(cosigned(before, *WITNESSES))
        assert log.checkpoint() == before
        assert len(Note.parse(before).signatures) == 1

    def test_an_earlier_head_may_be_published_while_the_log_goes_on(self, log: Log, naive: Any) -> None:
        notes = []
        for entry in ENTRIES[:20]:
            log.append(entry)
            notes.append(log.checkpoint())
        for size in (3, 4, 11, 20):
            log.publish(notes[size - 1])
            assert (log.published().size, log.published().root) == (size, naive.root(ENTRIES[:size]))
        assert [head.size for head in log.publications()] == [3, 4, 11, 20]

    def test_the_empty_log_may_be_published(self, log: Log) -> None:
        log.publish(log.checkpoint())
        assert log.published().size == 0
        log.append(b"x")
        assert log.published().size == 0

    def test_the_archive_keeps_one_note_a_size_and_survives(self, log: Log, backend: Backend, signer: Signer) -> None:
        expected = []
        for size in range(1, 8):
            log.append(ENTRIES[size])
            log.publish(log.checkpoint())
            log.publish(cosigned(log.checkpoint(), *WITNESSES[: size % 4]))
            expected.append(log.published())
        with Log.on(backend.open_readonly(), signer.verifier) as reader:
            for opened in (log, reader):
                assert opened.publications() == expected
                assert opened.publications(3, 2) == expected[2:4]
                assert opened.publications(8) == []
                for bad in ((-1, 5), (0, -1)):
                    with pytest.raises(UsageError):
                        opened.publications(*bad)
            assert reader.published() == expected[-1]
        log.close()
        with Log.on(backend.open(), signer.verifier, signer) as again:
            assert again.publications() == expected

    def test_a_reader_cannot_publish(self, log: Log, backend: Backend, signer: Signer) -> None:
        with Log.on(backend.open_readonly(), signer.verifier) as reader:
            with pytest.raises(UsageError, match="reading only"):
                reader.publish(log.checkpoint())
            with pytest.raises(UsageError, match="reading only"), reader.exclusive():
                pass


class TestWhatMayNotBePublished:
    @pytest.fixture
    def shown(self, log: Log) -> bytes:
        log.append_many(ENTRIES[:5])
        log.publish(cosigned(log.checkpoint(), *WITNESSES[:2]))
        log.append_many(ENTRIES[5:9])
        return log.published().note

    def _refuse(self, log: Log, note: bytes, error: type[Exception], match: str) -> None:
        before = (log.published(), log.publications(), log.head())
        with pytest.raises(error, match=match):
            log.publish(note)
        assert (log.published(), log.publications(), log.head()) == before

    def test_a_tree_that_the_log_does_not_have(
        self, log: Log, shown: bytes, head_note: Callable[..., bytes], naive: Any
    ) -> None:
        """Even when it is signed with the log's own key, as by another program with a copy of it."""
        self._refuse(log, head_note([*ENTRIES[:8], b"other"]), RootMismatch, "publication.root")
        self._refuse(log, head_note(ENTRIES[1:7]), RootMismatch, "publication.root")
        self._refuse(log, head_note(ENTRIES[:10]), NotInLog, "published size 10")
        with pytest.raises(RootMismatch) as caught:
            log.publish(head_note(ENTRIES[1:10]))
        assert caught.value.expected == naive.root(ENTRIES[:9])

    def test_an_earlier_size(self, log: Log, shown: bytes, head_note: Callable[..., bytes]) -> None:
        for size in (0, 1, 4):
            self._refuse(log, head_note(ENTRIES[:size]), UsageError, "back")
        log.publish(log.checkpoint())
        self._refuse(log, shown, UsageError, "back")

    def test_the_same_size_with_a_signature_less(self, log: Log, shown: bytes, head_note: Callable[..., bytes]) -> None:
        plain = head_note(ENTRIES[:5])
        for note in (plain, cosigned(plain, WITNESSES[0]), cosigned(plain, WITNESSES[0], WITNESSES[2])):
            self._refuse(log, note, UsageError, "lost: witness.example/")
        more = cosigned(plain, *WITNESSES)
        assert log.publish(more).note == more
        assert log.publish(cosigned(plain, *reversed(WITNESSES))).size == 5, "their order does not matter"
        assert log.publications() == [log.published()]

    def test_the_same_tree_under_another_text(self, log: Log, shown: bytes, signer: Signer) -> None:
        """Two texts for one size would make the cosignatures of the first worthless."""
        other = Checkpoint(signer.name, 5, log.root_at(5), ("an extension",))
        self._refuse(log, sign_checkpoint(other, signer), UsageError, "lost")

    def test_what_the_log_did_not_sign(self, log: Log, shown: bytes, signer: Signer) -> None:
        stranger = Signer(signer.name, bytes(32))
        checkpoint = Checkpoint(signer.name, 9, log.root_at(9))
        self._refuse(log, sign_checkpoint(checkpoint, stranger), VerificationFailed, "unsigned")
        other = Signer("ledger.example/other", bytes(range(32)))
        self._refuse(
            log, sign_checkpoint(Checkpoint(other.name, 9, log.root_at(9)), other), VerificationFailed, "unsigned"
        )
        self._refuse(log, log.checkpoint()[:-1], DecodeError, "newline")
        self._refuse(log, b"", DecodeError, "note")

    def test_the_same_note_again_is_nothing_new(self, faulty: FaultyStorage, signer: Signer) -> None:
        log = Log(faulty, signer.verifier, signer)
        log.append(b"x")
        for _ in range(3):
            log.publish(log.checkpoint())
        assert len(faulty.publications_tried) == 1


class TestAFailedPublication:
    @pytest.mark.parametrize("fail", FAULTS)
    def test_leaves_the_old_one_or_the_new_one_and_can_be_repeated(
        self, faulty: FaultyStorage, backend: Backend, signer: Signer, fail: Fault
    ) -> None:
        log = Log(faulty, signer.verifier, signer)
        log.append_many(ENTRIES[:5])
        log.publish(log.checkpoint())
        log.append_many(ENTRIES[5:9])
        note = cosigned(log.checkpoint(), WITNESSES[0])
        faulty.fail = fail
        with pytest.raises(StorageError):
            log.publish(note)
        assert log.published().size == (9 if fail == "persisted" else 5)
        log.append(b"the log goes on")
        assert log.publish(note).note == log.published().note == note
        log.close()
        with Log.on(backend.open(), signer.verifier, signer) as again:
            assert [head.size for head in again.publications()] == [5, 9]

    @pytest.mark.parametrize("fail", FAULTS)
    def test_signatures_are_not_lost_by_it(self, faulty: FaultyStorage, signer: Signer, fail: Fault) -> None:
        log = Log(faulty, signer.verifier, signer)
        log.append(b"x")
        plain, one = log.checkpoint(), cosigned(log.checkpoint(), WITNESSES[0])
        log.publish(plain)
        faulty.fail = fail
        with pytest.raises(StorageError):
            log.publish(one)
        if fail == "persisted":
            with pytest.raises(UsageError, match="lost"):
                log.publish(plain)
        log.publish(cosigned(one, WITNESSES[1]))
        assert len(Note.parse(log.published().note).signatures) == 3

    @pytest.mark.parametrize("fail", FAULTS)
    def test_what_an_append_left_in_doubt_is_looked_at_before_it_is_shown(
        self, faulty: FaultyStorage, signer: Signer, fail: Fault
    ) -> None:
        """A checkpoint whose storing failed was signed: publishing it is refused unless it turns out to be stored."""
        log = Log(faulty, signer.verifier, signer)
        log.append_many(ENTRIES[:5])
        faulty.fail = fail
        with pytest.raises(StorageError):
            log.append(ENTRIES[5])
        doubtful = faulty.signed[-1]
        if fail == "persisted":
            assert log.publish(doubtful).size == 6
        else:
            with pytest.raises(NotInLog):
                log.publish(doubtful)
            log.append(b"another entry in its place")
            with pytest.raises(RootMismatch):
                log.publish(doubtful)
            assert log.publications() == []


class TestOpening:
    @pytest.mark.parametrize("entries", [ENTRIES[:6], [b"other", *ENTRIES[1:4]]], ids=["beyond", "another tree"])
    def test_a_log_that_lacks_what_it_published_is_not_opened_for_signing(
        self,
        backend: Backend,
        first_note: bytes,
        signer: Signer,
        head_note: Callable[..., bytes],
        entries: list[bytes],
    ) -> None:
        """As when an older copy of the log was put back, and only its newest publication is of today."""
        storage = backend.create(first_note)
        with Log.on(storage, signer.verifier, signer) as log:
            log.append_many(ENTRIES[:4])
            storage.publish(Publication(len(entries), head_note(entries)))
        with pytest.raises(CorruptLog, match="published"):
            Log.on(backend.open(), signer.verifier, signer)

    def test_a_publication_under_another_size_or_by_another_key_is_not_shown(
        self, backend: Backend, first_note: bytes, signer: Signer, head_note: Callable[..., bytes]
    ) -> None:
        storage = backend.create(first_note)
        log = Log(storage, signer.verifier, signer)
        log.append_many(ENTRIES[:4])
        storage.publish(Publication(1, head_note(ENTRIES[:1], Signer(signer.name, bytes(32)))))
        with pytest.raises(VerificationFailed):
            log.published()
        storage.publish(Publication(2, head_note(ENTRIES[:1])))
        with pytest.raises(CorruptLog, match="size 2 holds a checkpoint of size 1"):
            log.published()
        storage.publish(Publication(3, b"no note"))
        with pytest.raises(CorruptLog):
            log.published()
        storage.close()


class TestWhatIsServed:
    @pytest.fixture
    def partly(self, log: Log) -> Log:
        """300 entries, of which 270 are published."""
        log.append_many(ENTRIES[:270])
        log.publish(log.checkpoint())
        log.append_many(ENTRIES[270:])
        return log

    def test_tiles_and_bundles_rebuild_the_published_tree(
        self, partly: Log, backend: Backend, signer: Signer, naive: Any, memory_nodes: Any
    ) -> None:
        expected = memory_nodes(ENTRIES)
        with Log.on(backend.open_readonly(), signer.verifier) as reader:
            for opened in (partly, reader):
                read = [b for bundle in entry_bundles(0, 270) for b in self._entries(opened, bundle)]
                assert read == ENTRIES[:270]
                assert naive.root(read) == opened.published().root
                for tile in tiles(0, 270):
                    assert opened.tile(tile) == b"".join(expected(*position) for position in tile.positions())

    def _entries(self, log: Log, bundle: EntryBundle) -> list[bytes]:
        return decode_entry_bundle(bundle, log.entry_bundle(bundle))

    def test_earlier_partial_tiles_are_served_to_clients_with_an_older_checkpoint(self, partly: Log) -> None:
        for width in (1, 17, 255, 256):
            assert partly.tile(Tile(0, 0, width)) == b"".join(leaf_hash(e) for e in ENTRIES[:width])
            assert self._entries(partly, EntryBundle(0, width)) == ENTRIES[:width]
        assert len(partly.tile(Tile(0, 1, 5))) == 5 * 32

    @pytest.mark.parametrize(
        "path",
        [
            "tile/0/001",
            "tile/0/001.p/15",
            "tile/0/002.p/1",
            "tile/1/000",
            "tile/1/000.p/2",
            "tile/2/000.p/1",
            "tile/entries/001",
            "tile/entries/001.p/15",
            "tile/entries/x001/000",
        ],
    )
    def test_nothing_beyond_the_published_size_is_served(self, partly: Log, path: str) -> None:
        """The log has 300 entries: `tile/0/001.p/15` exists, and was shown to nobody."""
        tile = parse_path(path)
        with pytest.raises(NotInLog, match="size is 270"):
            partly.tile(tile) if isinstance(tile, Tile) else partly.entry_bundle(tile)

    def test_proofs_are_under_the_published_head_or_the_one_asked_for(self, partly: Log, signer: Signer) -> None:
        earlier = partly.head()
        proof = TlogProof.parse(partly.tlog_proof(5))
        assert proof.checkpoint == partly.published().note
        proof.verify(ENTRIES[5], signer.verifier, signer.name)
        with pytest.raises(NotInLog):
            partly.tlog_proof(270)
        newest = TlogProof.parse(partly.tlog_proof(270, earlier))
        assert newest.verify(ENTRIES[270], signer.verifier, signer.name).head.size == 300
        partly.append(b"more")
        assert partly.tlog_proof(270, earlier) == newest.format()
        archived = TlogProof.parse(partly.tlog_proof(5, partly.publications()[0]))
        assert archived.verify(ENTRIES[5], signer.verifier, signer.name).head.size == 270

    def test_no_proof_is_given_under_a_head_that_is_not_ours(
        self, partly: Log, signer: Signer, head_note: Callable[..., bytes]
    ) -> None:
        forked = open_checkpoint(head_note([b"x", *ENTRIES[1:290]]), signer.verifier, signer.name)
        with pytest.raises(CorruptLog):
            partly.tlog_proof(5, forked)
        future = open_checkpoint(head_note([*ENTRIES, b"x"]), signer.verifier, signer.name)
        with pytest.raises(NotInLog):
            partly.tlog_proof(5, future)
        other = Signer("ledger.example/other", bytes(range(32)))
        with pytest.raises(UsageError, match=r"ledger\.example/other"):
            partly.tlog_proof(5, open_checkpoint(head_note(ENTRIES[:9], other), other.verifier, other.name))

    def test_the_root_of_every_earlier_size_is_known(self, partly: Log, naive: Any) -> None:
        for size in (0, 1, 2, 3, 255, 256, 257, 270, 299, 300):
            assert partly.root_at(size) == naive.root(ENTRIES[:size])
        assert partly.root_at(0) == empty_root()
        for size in (-1, 301):
            with pytest.raises(NotInLog):
                partly.root_at(size)
        proof = partly.consistency_proof(270, 300)
        verify_consistency(270, 300, proof, partly.root_at(270), partly.root_at(300))

    def test_a_note_that_reaches_the_limit_of_signatures_is_not_made_unreadable(self, log: Log) -> None:
        log.append(b"x")
        line = log.checkpoint().split(b"\n\n")[1]
        name, key = b"witness.example/many", base64.b64encode(bytes(12))
        note = log.checkpoint() + b"".join(b"\xe2\x80\x94 %s%d %s\n" % (name, i, key) for i in range(99))
        assert log.publish(note).note == note
        with pytest.raises(DecodeError, match="100 signatures"):
            log.publish(note + line)
