"""A log that lies in its own files or signs two stories: what catches it, and which weaker checker would not.

The log's operator has the log's key and the server, so that it can sign and serve anything. Each lie is told over HTTP.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

import ledger.fsck
from api.client.log_evidence import check_evidence
from api.client.log_mirror import mirror_log
from api.client.log_monitor import Monitor, Round
from api.client.tile_source import HttpTiles
from api.client.trust import TrustedLog, parse_trust
from ledger import RootMismatch, Signer, VerificationFailed, follow, open_checkpoint
from ledger.cosignature import Cosigner, with_cosignatures
from ledger.errors import FileRefused
from ledger.fsck import KnownTree, fsck, split_tree
from ledger.merkle import Frontier, consistency_proof, inclusion_proof, leaf_hash, verify_inclusion
from ledger.note import Note
from ledger.tiles import decode_entry_bundle, entry_bundles, split_tile, tile_of_node
from tests.support.tile_log import Answer, TileLog, fetcher, serving, sign_head

SIGNER = Signer("log.example/liar", bytes(range(32)))
LOG = TrustedLog(SIGNER.verifier)
VKEY = str(SIGNER.verifier)
SIZE = 66_000
REWRITTEN = 300

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def honest() -> TileLog:
    return TileLog(SIGNER, [b"entry %d" % i for i in range(SIZE)])


@pytest.fixture(scope="module")
def rewritten(honest: TileLog) -> TileLog:
    """Entry 300 replaced, everything above it recomputed; heads are signed by the log's own key."""
    return TileLog(SIGNER, [*honest.entries[:REWRITTEN], b"another patient", *honest.entries[REWRITTEN + 1 :]])


@pytest.fixture(scope="module")
def files(honest: TileLog) -> Files:
    """66,000 entries: three levels."""
    return honest.files()


@pytest.fixture(scope="module")
def forged(rewritten: TileLog) -> Files:
    return rewritten.files()


@contextmanager
def shown(*stories: Mapping[str, bytes]) -> Iterator[list[HttpTiles]]:
    """One server a story."""
    with ExitStack() as stack:
        urls = [stack.enter_context(serving(dict(story).get)) for story in stories]
        yield [stack.enter_context(HttpTiles(url, retries=0)) for url in urls]


def fsck_of(story: Mapping[str, bytes], **options: Any) -> VerificationFailed | None:
    """What fsck says of a story over HTTP; None if it has nothing to say."""
    with shown(story) as (source,):
        try:
            fsck(source.fetch, VKEY, fetch_many=source.fetch_many, **options)
        except VerificationFailed as error:
            return error
    return None


def monitored(folder: Path, *stories: Mapping[str, bytes], log: TrustedLog = LOG) -> Round:
    """A round of a monitor whose views have the same names every time."""
    with shown(*stories) as sources:
        return Monitor([_Named(f"view {i}", source) for i, source in enumerate(sources)], log, folder).check()


class _Named:
    def __init__(self, name: str, source: HttpTiles) -> None:
        self.name = name
        self.fetch, self.fetch_many, self.close = source.fetch, source.fetch_many, source.close


# -- weaker checkers --------------------------------------------------------------------------------------------------


def believes_the_consistency_endpoint(old: bytes, story: Mapping[str, bytes], honest_tree: TileLog) -> None:
    """Follows heads by proofs that the log's server computes, as `ledger.follow` does, and reads no entries."""
    first = open_checkpoint(old, SIGNER.verifier, SIGNER.name)
    new = open_checkpoint(story["checkpoint"], SIGNER.verifier, SIGNER.name)
    _, nodes = Frontier().extend(leaf_hash(e) for e in honest_tree.entries[: new.size])
    found = {(node.level, node.number): node.hash for node in nodes}
    proof = consistency_proof(first.size, new.size, lambda level, index: found[level, index])
    follow(first, story["checkpoint"], proof, SIGNER.verifier, SIGNER.name)


def reads_entries_only(story: Mapping[str, bytes]) -> None:
    """Root from the entries, compared with the signed one; no tile is looked at."""
    head = open_checkpoint(story["checkpoint"], SIGNER.verifier, SIGNER.name)
    frontier = Frontier()
    for bundle in entry_bundles(0, head.size):
        frontier, _ = frontier.extend(leaf_hash(e) for e in decode_entry_bundle(bundle, story[bundle.path]))
    assert frontier.root() == head.root


def reads_tiles_only(story: Mapping[str, bytes]) -> None:
    """Root from the tiles at the edge of the tree, compared with the signed one; no entry is looked at."""
    head = open_checkpoint(story["checkpoint"], SIGNER.verifier, SIGNER.name)
    assert split_tree(fetcher(story), 1, head.size).new_root() == head.root


class SkipsUpperTiles(ledger.fsck._Check):
    """Compares the tiles of level 0 with the entries, and believes that those above follow."""

    def tile(self, level: int, number: int, width: int, data: bytes | None, checked: Any) -> None:
        super().tile(level, number, width, b"".join(self._edge[level]) if level else data, checked)


# -- one story, false files -------------------------------------------------------------------------------------------


def test_a_rewritten_entry_bundle_under_the_old_tiles(honest: TileLog, files: Files, forged: Files) -> None:
    story = {**files, "tile/entries/001": forged["tile/entries/001"]}
    error = fsck_of(story)
    assert isinstance(error, FileRefused)
    assert (error.check, error.path) == ("entries.hash", "tile/entries/001")
    assert "number 300 " in str(error)
    # The heads are consistent and all hashes are right: who reads no entries is shown a false one.
    believes_the_consistency_endpoint(honest.note(1000), story, honest)
    reads_tiles_only(story)


def test_a_rewritten_tile_over_the_old_entries(files: Files, forged: Files) -> None:
    for path in ("tile/0/001", "tile/1/000"):
        error = fsck_of({**files, path: forged[path]})
        assert isinstance(error, FileRefused)
        assert (error.check, error.path) == ("tile.hash", path)
        reads_entries_only({**files, path: forged[path]})


def test_a_rewritten_upper_tile_gives_nobody_a_proof(
    honest: TileLog, files: Files, forged: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = {**files, "tile/1/000": forged["tile/1/000"]}
    assert getattr(fsck_of(story), "path", None) == "tile/1/000"

    def node(level: int, index: int) -> bytes:
        tile, inside, place = tile_of_node(level, index, SIZE)
        return split_tile(tile, story[tile.path])[inside][place]

    proof = inclusion_proof(5, SIZE, node)
    with pytest.raises(RootMismatch):  # this is what such a tile is for: an entry that cannot be shown to be there
        verify_inclusion(leaf_hash(honest.entries[5]), 5, SIZE, proof, honest.root())
    reads_entries_only(story)
    monkeypatch.setattr(ledger.fsck, "_Check", SkipsUpperTiles)
    assert fsck_of(story) is None
    assert fsck_of({**files, "tile/0/001": forged["tile/0/001"]}) is not None


def _changed(data: bytes, how: str) -> bytes:
    return {
        "short": data[:-1],
        "wide": data + bytes(32),
        "huge": data * (1 + (20 << 20) // len(data)),
        "garbage": hashlib.shake_128(data).digest(len(data)),
        "web-page": b"<html>not found</html>",
        "empty": b"",
    }[how]


@pytest.mark.parametrize("how", ["missing", "short", "wide", "huge", "garbage", "web-page", "empty"])
def test_anything_else_in_the_place_of_any_file(honest: TileLog, how: str, tmp_path: Path) -> None:
    story = honest.files(600)
    names = {"missing": "missing", "huge": "size", "short": "", "wide": "", "garbage": "", "web-page": "", "empty": ""}
    for number, path in enumerate(sorted(story)):
        false = {p: d for p, d in story.items() if p != path or how != "missing"}
        if how != "missing":
            false[path] = _changed(story[path], how)
        error = fsck_of(false)
        assert isinstance(error, FileRefused), path
        assert error.path == path
        assert error.check.split(".")[0] in ("checkpoint", "entries", "tile", "file")
        assert names[how] in error.check
        # The same by the monitor and by the mirror, which keeps nothing of it.
        (finding,) = monitored(tmp_path / f"state-{number}", false).findings
        assert finding.check.split(".")[0] in ("checkpoint", "note", "entries", "tile", "file")
        assert not finding.convicts
        with shown(false) as (source,), pytest.raises(VerificationFailed):
            mirror_log(source, LOG, tmp_path / f"copy-{number}")
        assert not (tmp_path / f"copy-{number}" / "checkpoint").exists()
        assert not (tmp_path / f"copy-{number}" / "tile").exists()


@pytest.mark.parametrize(
    ("note", "check"),
    [
        (sign_head(SIGNER, 600, bytes(32), origin="log.example/other"), "checkpoint.origin"),
        (sign_head(Signer("log.example/other", bytes(32)), 600, bytes(32)), "checkpoint.unsigned"),
        (sign_head(Signer(SIGNER.name, bytes(32)), 600, bytes(32)), "checkpoint.unsigned"),
        (sign_head(SIGNER, 600, bytes(32)).replace(b"\n600\n", b"\n601\n"), "checkpoint.signature"),
        (sign_head(SIGNER, 600, bytes(32)), "tree.root"),
        (sign_head(SIGNER, 2**62, bytes(32)), "entries.missing"),
    ],
    ids=["other-origin", "other-key", "same-name", "changed", "other-root", "endless"],
)
def test_heads_that_are_not_the_logs_or_not_of_these_files(
    honest: TileLog, note: bytes, check: str, tmp_path: Path
) -> None:
    story = {**honest.files(512), "checkpoint": note}
    if check == "tree.root":
        story = {**honest.files(600), "checkpoint": note}
    error = fsck_of(story)
    assert error is not None
    assert error.check == check
    found = monitored(tmp_path, story)
    assert [f.convicts for f in found.findings] == [False]
    assert not found.views


def test_an_answer_that_changes_between_two_requests(honest: TileLog, rewritten: TileLog) -> None:
    """Honest tiles for who compares hashes, false ones for who builds proofs: whichever fsck gets, something is off."""
    story, false = honest.files(600), rewritten.files(600)
    for path in ("tile/0/001", "tile/1/000.p/2"):
        for turn in range(3):
            asked = 0

            def answer(wanted: str, path: str = path, turn: int = turn) -> bytes | None:
                nonlocal asked
                asked += wanted == path
                return (false if wanted == path and asked > turn else story).get(wanted)

            with serving(answer) as url, HttpTiles(url, retries=0) as source:
                try:
                    fsck(source.fetch, VKEY, since=KnownTree(400, honest.root(400)))
                except VerificationFailed as error:
                    assert error.check in ("tile.hash", "tree.prefix")
                else:
                    assert asked <= turn, "only what was never read may be false"


# -- two stories ------------------------------------------------------------------------------------------------------


def convicting(found: Round) -> set[str]:
    """The checks that convict, with evidence that anybody can check by the log's key alone."""
    checks = set()
    for finding in found.findings:
        if finding.convicts:
            assert finding.evidence is not None
            assert "signed" in check_evidence(finding.evidence, SIGNER.verifier)
            checks.add(finding.check)
    assert bool(checks) == found.convicted
    return checks


def test_a_fork_shown_to_two_readers(honest: TileLog, rewritten: TileLog, tmp_path: Path) -> None:
    one, other = honest.files(600), rewritten.files(600)
    assert convicting(monitored(tmp_path / "both", one, other)) == {"monitor.fork"}
    # Each story is perfect by itself: one address is not enough to see it.
    assert not monitored(tmp_path / "one", one).findings
    assert not monitored(tmp_path / "other", other).findings
    assert fsck_of(one) is None
    assert fsck_of(other) is None


def test_a_fork_of_different_sizes(honest: TileLog, rewritten: TileLog, tmp_path: Path) -> None:
    for name, one, other in [
        ("grown", honest.files(600), rewritten.files(900)),
        ("behind", honest.files(900), rewritten.files(600)),
        ("much", honest.files(301), rewritten.files(SIZE)),
    ]:
        assert convicting(monitored(tmp_path / name, one, other)) == {"monitor.consistency"}
    # Before the entry that differs both are one log.
    assert not monitored(tmp_path / "same", honest.files(REWRITTEN), rewritten.files(900)).findings


def test_a_fork_that_only_one_checkpoint_was_ever_seen_of(honest: TileLog, rewritten: TileLog, tmp_path: Path) -> None:
    """A clinic holds a bundle with a head that nobody else was shown."""
    with shown(honest.files(900)) as (source,):
        found = Monitor([source], LOG, tmp_path, [("the clinic's bundle", rewritten.note(450))]).check()
    assert convicting(found) == {"monitor.consistency"}


def test_a_fork_shown_to_a_single_reader_gets_no_quorum(honest: TileLog, rewritten: TileLog, tmp_path: Path) -> None:
    """Who has one address only needs witnesses: they cosign one story."""
    witness = Cosigner.generate("w.example")
    (trusted,) = parse_trust(f"log {SIGNER.verifier}\nwitness w {witness.verifier}\nquorum w\n")
    text = Note.parse(honest.note(600)).text.encode()
    cosigned = with_cosignatures(honest.note(600), [witness.cosign(text, 1)])
    assert not monitored(tmp_path / "one", {**honest.files(600), "checkpoint": cosigned}, log=trusted).findings
    lines = cosigned[cosigned.index(b"\n\n") :]
    replayed = rewritten.note(600)[: rewritten.note(600).index(b"\n\n")] + lines
    for note in (rewritten.note(600), replayed):
        found = monitored(tmp_path / "other", {**rewritten.files(600), "checkpoint": note}, log=trusted)
        assert {f.check for f in found.findings} <= {"policy.quorum", "note.signature"}
        assert found.findings
        assert not monitored(tmp_path / "no-policy", rewritten.files(600)).findings


def test_the_past_rewritten_under_a_new_signed_head(
    honest: TileLog, rewritten: TileLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size, check in [(900, "monitor.fork"), (901, "monitor.consistency"), (2000, "monitor.consistency")]:
        folder = tmp_path / str(size)
        monitored(folder, honest.files(900))
        assert convicting(monitored(folder, rewritten.files(size))) == {check}
        # It is not believed a second time either.
        assert convicting(monitored(folder, rewritten.files(size))) == {check}
        assert not monitored(folder, honest.files(2000)).findings
    # Without memory every story is the first.
    assert fsck_of(rewritten.files(2000)) is None
    # One that takes the old edge of the tree from the tiles as they are now, and hashes new entries only, sees nothing;
    # the monitor compares the two heads once more by itself.
    real = ledger.fsck._edge

    def unchecked(fetch: Any, known: KnownTree, size: int) -> Any:
        root = split_tree(fetch, known.size, size).old_root() if known.size else known.root
        return real(fetch, KnownTree(known.size, root), size)

    monitored(tmp_path / "weak", honest.files(900))
    monkeypatch.setattr(ledger.fsck, "_edge", unchecked)
    assert fsck_of(rewritten.files(2000), since=KnownTree(900, honest.root(900))) is None
    assert convicting(monitored(tmp_path / "weak", rewritten.files(2000))) == {"monitor.consistency"}


def test_old_tiles_for_the_monitor_over_a_rewritten_head(honest: TileLog, rewritten: TileLog, tmp_path: Path) -> None:
    """The log hides the rewritten tiles from who knows better; then it cannot show a tree for its new head."""
    monitored(tmp_path, honest.files(900))
    found = monitored(tmp_path, {**honest.files(2000), "checkpoint": rewritten.note(2000)})
    assert [(f.check, f.convicts) for f in found.findings] == [("tree.root", False)]
    # One honest reader of that head with its tiles is enough to convict.
    assert convicting(monitored(tmp_path, honest.files(2000), rewritten.files(2000))) == {"monitor.fork"}


def test_a_rollback_and_a_replayed_head(honest: TileLog, rewritten: TileLog, tmp_path: Path) -> None:
    monitored(tmp_path, honest.files(900))
    found = monitored(tmp_path, honest.files(600))
    assert [f.check for f in found.findings] == ["monitor.rollback"]
    assert fsck_of(honest.files(600)) is None, "an old head is in order for who does not remember the new one"
    # Back, and on by another way: each step is refused, and the second one convicts.
    found = monitored(tmp_path, rewritten.files(600))
    assert [f.check for f in found.findings] == ["monitor.rollback"]
    assert convicting(monitored(tmp_path, rewritten.files(1200))) == {"monitor.consistency"}


def test_a_fork_behind_a_rollback_is_convicted_where_another_view_has_the_tree(
    honest: TileLog, rewritten: TileLog, tmp_path: Path
) -> None:
    monitored(tmp_path, honest.files(900), honest.files(900))
    found = monitored(tmp_path, honest.files(950), rewritten.files(600))
    assert {f.check for f in found.findings} == {"monitor.rollback", "monitor.consistency"}
    assert convicting(found) == {"monitor.consistency"}


def test_another_log_or_damaged_files_convict_nobody(honest: TileLog, tmp_path: Path) -> None:
    """Only two signatures of the log do: a broken disk or a stranger's key must not ruin an honest operator."""
    monitored(tmp_path, honest.files(900))
    files, stranger = honest.files(2000), TileLog(Signer(SIGNER.name, bytes(32)), honest.entries[:5])
    stories: list[Files] = [
        stranger.files(),
        {**files, "tile/1/000.p/7": bytes(7 * 32)},
        {**files, "tile/0/003": bytes(8192)},
        {**files, "tile/entries/003": b"\0\0" * 256},
        {"checkpoint": files["checkpoint"]},
    ]
    for story in stories:
        found = monitored(tmp_path, story)
        assert found.findings
        assert not found.convicted
    assert not monitored(tmp_path, files).findings


def test_a_server_that_answers_without_end_is_left(honest: TileLog, tmp_path: Path) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(1 << 16)

    story = honest.files(600)
    answers: dict[str, Callable[[], Answer]] = {
        path: (lambda: Answer(200, chunks=endless())) for path in ("checkpoint", "tile/0/001", "tile/entries/001")
    }
    for path, answer in answers.items():
        with (
            serving(lambda wanted, p=path, a=answer: a() if wanted == p else story.get(wanted)) as url,
            HttpTiles(url, retries=0) as source,
        ):
            (finding,) = Monitor([source], LOG, tmp_path / path).check().findings
            assert finding.check == "file.size"
