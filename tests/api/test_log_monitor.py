"""The monitor accepts an honest log from all sides, remembers, and tells lies of a log from failures of a network."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.cli.main import main
from api.client.log_evidence import check_evidence, check_extends
from api.client.log_monitor import Monitor, Round
from api.client.state_folder import StateFolder
from api.client.tile_source import FileTiles, HttpTiles, TileSource
from api.client.trust import TrustedLog, parse_trust
from ledger import DecodeError, Fork, Signer, StorageError, UsageError, VerificationFailed, open_checkpoint
from ledger.cosignature import Cosigner, with_cosignatures
from ledger.note import Note
from tests.support.tile_log import Answer, TileLog, serving, sign_head, write

SIGNER = Signer("log.example/watched", bytes(range(32)))
LOG = TrustedLog(SIGNER.verifier)
Files = dict[str, bytes]


@dataclass
class View:
    """A view in memory whose files a test exchanges."""

    name: str
    files: Files

    def fetch(self, path: str) -> bytes | None:
        return self.files.get(path)

    def fetch_many(self, paths):  # type: ignore[no-untyped-def]
        return map(self.fetch, paths)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def log() -> TileLog:
    return TileLog(SIGNER, [b"entry %d" % i for i in range(2000)])


@pytest.fixture(scope="module")
def lying(log: TileLog) -> TileLog:
    """The same with entry 17 rewritten: all tiles, and heads that the log's key signed."""
    return TileLog(SIGNER, [*log.entries[:17], b"rewritten", *log.entries[18:]])


def look(
    folder: Path, *views: TileSource, log: TrustedLog = LOG, others: list[tuple[str, bytes]] | None = None
) -> Round:
    return Monitor(views, log, folder, others or []).check()


def remembered(folder: Path) -> set[bytes]:
    return {path.read_bytes() for path in (folder / "views").glob("*.note")}


def checks(found: Round) -> list[tuple[str, str]]:
    return [(finding.view, finding.check) for finding in found.findings]


# -- honest logs ------------------------------------------------------------------------------------------------------


def test_an_honest_log_is_followed_and_only_what_is_new_is_read(log: TileLog, tmp_path: Path) -> None:
    before = 0
    for size in (0, 1, 1, 300, 512, 1999, 1999):
        view = View("a", log.files(size))
        found = look(tmp_path, view)
        assert not found.findings
        assert not found.unreachable
        (report,) = found.views
        assert (report.view, report.since, report.head.size, report.head.root) == ("a", before, size, log.root(size))
        assert remembered(tmp_path) == {log.note(size)}
        before = size
    # Old bundles are not asked for again: they may even be gone (a pruned log).
    pruned = {path: data for path, data in log.files(2000).items() if path not in ("tile/entries/000", "tile/0/001")}
    assert not look(tmp_path, View("a", pruned)).findings


def test_asked_for_the_whole_log_it_reads_old_entries_again(log: TileLog, tmp_path: Path) -> None:
    look(tmp_path, View("a", log.files(600)))
    changed = {**log.files(900), "tile/entries/000": log.files(900)["tile/entries/001"]}
    assert not look(tmp_path, View("a", changed)).findings
    found = Monitor([View("a", changed)], LOG, tmp_path).check(whole=True)
    assert checks(found) == [("a", "entries.hash")]
    assert not Monitor([View("a", log.files(900))], LOG, tmp_path).check(whole=True).findings


def test_views_of_different_age_agree(log: TileLog, tmp_path: Path) -> None:
    views = [View("server", log.files(1500)), View("mirror", log.files(700)), View("new", log.files(0))]
    found = look(tmp_path, *views)
    assert not found.findings
    assert [view.head.size for view in found.views] == [1500, 700, 0]
    views = [View("server", log.files(1600)), View("mirror", log.files(2000)), View("new", log.files(1600))]
    found = look(tmp_path, *views)
    assert not found.findings
    assert [view.since for view in found.views] == [1500, 700, 0]


def test_views_may_be_servers_and_folders(log: TileLog, tmp_path: Path) -> None:
    folder = write(tmp_path / "log", log.files(900))
    with serving(log.files(1000).get) as url, HttpTiles(url) as server, FileTiles(folder) as mirror:
        found = look(tmp_path / "state", server, mirror)
        steps: list[tuple[str, int, int]] = []
        Monitor([server], LOG, tmp_path / "again").check(lambda *step: steps.append(step))
    assert not found.findings
    assert {view.view: view.head.size for view in found.views} == {url: 1000, str(folder): 900}
    assert steps[-1] == (url, 1000, 1000)


@pytest.fixture
def witnesses() -> list[Cosigner]:
    return [Cosigner.generate(f"w{i}.example") for i in range(3)]


@pytest.fixture
def policy(witnesses: list[Cosigner]) -> TrustedLog:
    lines = [f"log {SIGNER.verifier}", *(f"witness w{i} {w.verifier}" for i, w in enumerate(witnesses))]
    (log,) = parse_trust("\n".join([*lines, "group two 2 w0 w1 w2", "quorum two", ""]))
    return log


def cosigned(files: Files, *signed: tuple[Cosigner, int]) -> Files:
    text = Note.parse(files["checkpoint"]).text.encode()
    lines = [cosigner.cosign(text, time) for cosigner, time in signed]
    return {**files, "checkpoint": with_cosignatures(files["checkpoint"], lines)}


def test_a_head_needs_the_policys_witnesses(
    log: TileLog, policy: TrustedLog, witnesses: list[Cosigner], tmp_path: Path
) -> None:
    w0, w1, _ = witnesses
    good = cosigned(log.files(500), (w0, 100), (w1, 160))
    (report,) = look(tmp_path, View("a", good), log=policy).views
    assert [(c.name, c.time) for c in report.cosigned] == [("w0", 100), ("w1", 160)]
    assert report.time == 160
    stranger = Cosigner.generate("stranger.example")
    for signed in ([], [(w0, 200)], [(w0, 200), (stranger, 200)]):
        found = look(tmp_path, View("a", cosigned(log.files(600), *signed)), log=policy)
        assert checks(found) == [("a", "policy.quorum")]
        assert not found.views
        assert remembered(tmp_path) == {good["checkpoint"]}
    forged = cosigned(log.files(600), (w0, 200), (w1, 200))
    note = forged["checkpoint"]
    forged["checkpoint"] = note[:-10] + (b"A" if note[-10:-9] != b"A" else b"B") + note[-9:]
    assert checks(look(tmp_path, View("a", forged), log=policy)) == [("a", "note.signature")]


def test_a_head_without_witnesses_still_convicts(
    log: TileLog, lying: TileLog, policy: TrustedLog, witnesses: list[Cosigner], tmp_path: Path
) -> None:
    """The quorum is for belief. To show a lie the log's own signatures are enough."""
    honest = cosigned(log.files(500), (witnesses[0], 100), (witnesses[2], 100))
    found = look(tmp_path, View("a", honest), View("b", lying.files(700)), log=policy)
    assert found.convicted
    assert ("b", "policy.quorum") in checks(found)
    assert [f.check for f in found.findings if f.convicts] == ["monitor.consistency"]


# -- failures that are no lies ----------------------------------------------------------------------------------------


def test_a_view_that_is_not_reached_does_not_hide_the_others(log: TileLog, tmp_path: Path) -> None:
    fails = HttpTiles("http://127.0.0.1:9", retries=0)
    with fails, serving(lambda _: Answer(500)) as url, HttpTiles(url, retries=0) as broken:
        found = look(tmp_path, View("a", log.files(5)), fails, broken)
    assert not found.findings
    assert [view.view for view in found.views] == ["a"]
    assert [name for name, _ in found.unreachable] == [fails.name, broken.name]
    assert remembered(tmp_path) == {log.note(5)}


def test_state_of_another_log_or_damaged_state_is_not_used(log: TileLog, tmp_path: Path) -> None:
    look(tmp_path, View("a", log.files(5)))
    (note,) = (tmp_path / "views").iterdir()
    for data in (b"garbage", TileLog(Signer("other.example", bytes(32)), [b"x"]).note(), b""):
        note.write_bytes(data)
        with pytest.raises(StorageError, match="is no head of the log"):
            look(tmp_path, View("a", log.files(6)))
        assert note.read_bytes() == data


def test_two_monitors_do_not_share_a_folder(log: TileLog, tmp_path: Path) -> None:
    with StateFolder(tmp_path).locked(), pytest.raises(StorageError, match="another process"):
        look(tmp_path, View("a", log.files(5)))


def test_a_folder_that_cannot_be_written_stops_the_monitor(log: TileLog, tmp_path: Path) -> None:
    (tmp_path / "views").write_bytes(b"in the way")
    with pytest.raises(StorageError):
        look(tmp_path, View("a", log.files(5)))


def test_views_must_have_different_names_and_notes_must_be_the_logs(log: TileLog, tmp_path: Path) -> None:
    view = View("a", log.files(5))
    for views in ([], [view, view]):
        with pytest.raises(UsageError, match="one or several different addresses"):
            Monitor(views, LOG, tmp_path)
    with pytest.raises(DecodeError):
        Monitor([view], LOG, tmp_path, [("x", b"garbage")])
    with pytest.raises(VerificationFailed):
        Monitor([view], LOG, tmp_path, [("x", sign_head(Signer(SIGNER.name, bytes(32)), 5, bytes(32)))])


# -- lies -------------------------------------------------------------------------------------------------------------


def test_a_rollback_is_a_finding_with_evidence_that_convicts_nobody(log: TileLog, tmp_path: Path) -> None:
    look(tmp_path, View("a", log.files(900)))
    for size in (899, 1, 0):
        found = look(tmp_path, View("a", log.files(size)))
        (finding,) = found.findings
        assert (finding.check, finding.convicts, found.convicted) == ("monitor.rollback", False, False)
        assert finding.evidence is not None
        assert (finding.evidence / "old.note").read_bytes() == log.note(900)
        assert (finding.evidence / "new.note").read_bytes() == log.note(size)
        with pytest.raises(VerificationFailed, match=r"evidence\.nothing"):
            check_evidence(finding.evidence, SIGNER.verifier)
        assert remembered(tmp_path) == {log.note(900)}
    assert not look(tmp_path, View("a", log.files(901))).findings


def test_evidence_is_kept_once_whoever_cosigns(
    log: TileLog, lying: TileLog, witnesses: list[Cosigner], tmp_path: Path
) -> None:
    look(tmp_path, View("a", log.files(900)))
    stories = [cosigned(lying.files(900), (witnesses[0], time)) for time in (1, 2, 3)]
    assert all(look(tmp_path, View("a", story)).convicted for story in stories)
    (folder,) = (tmp_path / "evidence").iterdir()
    assert (folder / "new.note").read_bytes() == stories[0]["checkpoint"]


def test_nothing_moves_on_after_a_conviction(log: TileLog, lying: TileLog, tmp_path: Path) -> None:
    look(tmp_path, View("a", log.files(500)), View("b", log.files(500)), View("c", log.files(400)))
    before = remembered(tmp_path)
    found = look(tmp_path, View("a", log.files(800)), View("b", lying.files(800)), View("c", log.files(450)))
    assert found.convicted
    assert remembered(tmp_path) == before


def test_a_finding_in_one_view_does_not_stop_the_others(log: TileLog, tmp_path: Path) -> None:
    look(tmp_path, View("a", log.files(500)), View("b", log.files(500)))
    damaged = {**log.files(800), "tile/entries/002": b"garbage"}
    found = look(tmp_path, View("a", log.files(800)), View("b", damaged))
    assert checks(found) == [("b", "entries.form")]
    assert remembered(tmp_path) == {log.note(800), log.note(500)}


def test_heads_from_elsewhere_are_compared(log: TileLog, lying: TileLog, tmp_path: Path) -> None:
    good = [("colleague", log.note(300)), ("bundle", log.note(1000)), ("empty", log.note(0))]
    assert not look(tmp_path, View("a", log.files(1000)), others=good).findings
    found = look(tmp_path, View("a", log.files(1000)), others=[("bundle", lying.note(300))])
    assert checks(found) == [("bundle", "monitor.consistency")]
    assert found.convicted
    found = look(tmp_path, View("a", log.files(1000)), others=[("bundle", lying.note(1000))])
    assert checks(found) == [("bundle", "monitor.fork")]


def test_a_head_that_was_seen_once_is_compared_for_ever(log: TileLog, lying: TileLog, tmp_path: Path) -> None:
    """Wherever it was seen: the view may be silent now, or not be asked any more."""
    gone = HttpTiles("http://127.0.0.1:9", retries=0)
    look(tmp_path, View(gone.name, lying.files(500)))
    for views in ([gone], []):
        found = look(tmp_path, View("a", log.files(900)), *views)
        assert found.convicted
        assert [finding.check for finding in found.findings] == ["monitor.consistency"]
        assert remembered(tmp_path) == {lying.note(500)}
    gone.close()


def test_two_heads_of_one_size_need_no_files_to_convict(log: TileLog, lying: TileLog, tmp_path: Path) -> None:
    look(tmp_path, View("a", log.files(900)))
    found = look(tmp_path, View("a", {"checkpoint": lying.note(900)}))
    assert checks(found) == [("a", "monitor.fork")]
    heads = [open_checkpoint(note, SIGNER.verifier, SIGNER.name) for note in (log.note(900), lying.note(900))]
    with pytest.raises(Fork):
        check_extends(*heads, fetch={}.get)
    check_extends(heads[0], heads[0], fetch={}.get)
    with pytest.raises(UsageError):
        check_extends(heads[0], open_checkpoint(log.note(899), SIGNER.verifier, SIGNER.name), fetch={}.get)


def test_files_that_change_while_views_are_compared_are_a_finding(log: TileLog, tmp_path: Path) -> None:
    class Changing(View):
        asked = 0

        def fetch(self, path: str) -> bytes | None:
            self.asked += path == "tile/0/001"
            return bytes(8192) if path == "tile/0/001" and self.asked > 1 else super().fetch(path)

    found = look(tmp_path, Changing("a", log.files(900)), others=[("x", log.note(300))])
    assert checks(found) == [("a", "tree.root")]
    assert not found.convicted
    assert remembered(tmp_path) == set()


# -- evidence ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(log: TileLog, lying: TileLog, tmp_path: Path) -> dict[str, Path]:
    """Evidence of a fork and of an inconsistent growth, by check."""
    look(tmp_path, View("a", log.files(700)))
    found = [look(tmp_path, View("a", lying.files(size))) for size in (700, 1234)]
    return {f.check: f.evidence for r in found for f in r.findings if f.evidence is not None}


def test_evidence_is_checked_without_the_monitor(kept: dict[str, Path], log: TileLog, lying: TileLog) -> None:
    assert set(kept) == {"monitor.fork", "monitor.consistency"}
    said = check_evidence(kept["monitor.fork"], SIGNER.verifier)
    assert log.root(700).hex() in said
    assert lying.root(700).hex() in said
    said = check_evidence(kept["monitor.consistency"], SIGNER.verifier)
    assert "1234 entries that does not begin with the tree of 700 entries" in said
    about = json.loads((kept["monitor.consistency"] / "about.json").read_bytes())
    assert about == {"check": "monitor.consistency", "seen": ["a (before)", "a"]}


def _no_newline(data: bytes) -> bytes:
    return data[:-1]


FORGERIES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "garbage": ("hashes", lambda data: b"garbage"),
    "empty": ("hashes", lambda data: b""),
    "a-hash-less": ("hashes", lambda data: data[45:]),
    "a-hash-more": ("hashes", lambda data: data[:45] + data),
    "other-hash": ("hashes", lambda data: b"A" * 43 + b"=\n" + data[45:]),
    "no-newline": ("hashes", _no_newline),
    "not-ascii": ("hashes", lambda data: b"\xff" + data),
    "old-note": ("old.note", lambda data: data.replace(b"\n700\n", b"\n701\n")),
    "new-note": ("new.note", lambda data: data.replace(b"\n1234\n", b"\n1235\n")),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_changed_evidence_convicts_nobody(kept: dict[str, Path], forgery: str) -> None:
    folder = kept["monitor.consistency"]
    name, change = FORGERIES[forgery]
    (folder / name).write_bytes(change((folder / name).read_bytes()))
    with pytest.raises((VerificationFailed, DecodeError)):
        check_evidence(folder, SIGNER.verifier)


def test_honest_heads_convict_nobody_whatever_hashes_lie_beside_them(
    kept: dict[str, Path], log: TileLog, lying: TileLog
) -> None:
    folder = kept["monitor.consistency"]
    (folder / "new.note").write_bytes(log.note(1234))
    with pytest.raises(VerificationFailed, match=r"tree\.root"):
        check_evidence(folder, SIGNER.verifier)
    (folder / "new.note").write_bytes(lying.note(1234))
    (folder / "old.note").write_bytes(lying.note(700))
    with pytest.raises(VerificationFailed, match=r"evidence\.nothing.*does begin"):
        check_evidence(folder, SIGNER.verifier)
    (folder / "old.note").write_bytes((folder / "new.note").read_bytes())
    with pytest.raises(VerificationFailed, match=r"evidence\.nothing"):
        check_evidence(folder, SIGNER.verifier)
    with pytest.raises(VerificationFailed, match=r"note\.unsigned"):
        check_evidence(folder, Signer(SIGNER.name, bytes(32)).verifier)
    with pytest.raises(StorageError):
        check_evidence(folder / "absent", SIGNER.verifier)


# -- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Type `sealproof ledger ...`; gives standard output, after the exit code was compared."""
    monkeypatch.setenv("SEALPROOF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.vkey").write_text(f"{SIGNER.verifier}\n")

    def run(*arguments: str, code: int = 0) -> str:
        monkeypatch.setattr("sys.argv", ["sealproof", "ledger", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert ended.value.code == code, (arguments, said)
        return said.out

    return run


def test_the_commands_for_outsiders(run: Callable[..., str], log: TileLog, lying: TileLog, tmp_path: Path) -> None:
    key = ("--log-key", "log.vkey")
    files = log.files(700)
    with serving(lambda path: files.get(path)) as url:
        assert "700 entries (700 read), 7 files" in run("fsck", url, *key)
        assert json.loads(run("fsck", url, *key, "--json"))["root"] == log.root(700).hex()
        assert "700 entries (700 new)" in run("mirror", url, "copy", *key)
        files = log.files(900)
        assert json.loads(run("mirror", url, "copy", *key, "--json")) == {
            "origin": SIGNER.name,
            "size": 900,
            "since": 700,
            "files": 5,
        }
        assert "900 entries (200 read)" in run(
            "fsck", "copy", *key, "--since", str(write(tmp_path, {"old": log.note(700)}) / "old")
        )
        assert "all of them agree" in run("monitor", url, "copy", *key, "--state", "state")
        files = lying.files(1000)
        found = json.loads(run("monitor", url, "copy", *key, "--state", "state", "--json", code=1))
        assert found["convicted"]
        folder = found["findings"][0]["evidence"]
        assert "does not begin with" in run("evidence", folder, *key)
        assert json.loads(run("evidence", folder, *key, "--json"))["origin"] == SIGNER.name
        run("monitor", url, *key, "--state", "state", "--every", "1", code=1)
        run("mirror", url, "copy", *key, code=1)
        files = {**files, "tile/0/000": b"garbage"}
        run("fsck", url, *key, code=1)
        files = {**files, "checkpoint": b"garbage"}
        run("fsck", url, *key, code=1)
        run("mirror", url, "other", *key, code=1)
        run("fsck", url, code=2)
        files = {}
        run("fsck", url, *key, code=1)
    run("fsck", url, *key, code=3)
    run("monitor", url, *key, "--state", "state", code=3)
    run("monitor", url, "--state", "state", code=2)
    run("fsck", "absent", *key, code=2)
    (tmp_path / "empty").mkdir()
    run("evidence", "empty", *key, code=2)


def test_the_monitor_watches_the_log_that_is_trusted(run: Callable[..., str], log: TileLog, tmp_path: Path) -> None:
    other = Signer("other.example/log", bytes(32))
    folder = write(tmp_path / "log", log.files(5))
    (tmp_path / "policy").write_text(f"log {SIGNER.verifier}\nlog {other.verifier}\nquorum none\n")
    run("monitor", str(folder), "--policy", "policy", code=2)
    run("monitor", str(folder), "--policy", "policy", "--origin", SIGNER.name)
    run("monitor", str(folder), "--policy", "policy", "--origin", other.name, code=1)
    run("monitor", str(folder), "--policy", "policy", "--origin", "third.example", code=2)
    assert len(list((tmp_path / "home" / "monitor").iterdir())) == 2


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_the_monitor_runs_until_the_log_is_convicted(
    run: Callable[..., str],
    log: TileLog,
    lying: TileLog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    as_json: bool,
) -> None:
    """Growth, nothing new, a missing tile and an old head are told and survived; two stories end it."""
    damaged = {path: data for path, data in log.files(950).items() if path != "tile/0/003.p/182"}
    stories = iter([log.files(700), log.files(900), damaged, log.files(800), log.files(1000), lying.files(1000)])
    folder = write(tmp_path / "log", log.files(700))
    waited = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        for path in folder.rglob("*"):
            if path.is_file():
                path.unlink()
        write(folder, next(stories))

    monkeypatch.setattr("time.sleep", wait)
    arguments = ["monitor", str(folder), "--log-key", "log.vkey", "--state", "state", "--every", "30"]
    said = run(*arguments, *(["--json"] if as_json else []), code=1)
    assert waited == [30] * 6
    if as_json:
        rounds = [json.loads(line) for line in said.splitlines()]
        assert [[f["check"] for f in r["findings"]] for r in rounds] == [
            [],
            [],
            [],
            ["tile.missing"],
            ["monitor.rollback"],
            [],
            ["monitor.fork"],
        ]
        assert [r["convicted"] for r in rounds] == [False] * 6 + [True]
    else:
        sizes = [line.removeprefix(f"{folder}: ") for line in said.splitlines()]
        assert sizes == ["700 entries (700 new)", "900 entries (200 new)", "1000 entries (100 new)"]
