"""A clinic shows one answer to one recipient: what is written, logged and remembered, and what the recipient sees.

Nodes, server, client and commands are the real ones, over sockets of this machine.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from api.cli.main import main
from api.client.audit import verify_bundle
from api.client.audit_disclosure import VerifiedDisclosure, in_words
from api.client.clinic import Clinic
from api.client.transport import Server, ServerError, ServerUnreachable
from api.entries import Disclosure, decode_entry
from ledger import Verifier
from privacy.bundle import BundleReader
from privacy.errors import UsageError, VerificationFailed
from privacy.mpc.disclosure import AnswerStatement
from tests.support.bundles import PATIENTS
from tests.support.pairs import IDS, RISK, Pair, pair_of
from tests.support.service import listening

NONCES = [bytes([n] * 32) for n in range(10)]
RAW = RISK.predict_raw(PATIENTS)[:, 0]
HIGH, LOW = IDS[1], IDS[3]
"""Records with the highest and the lowest answer: 0.52 and -0.84, probabilities of 0.63 and 0.30."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("disclosure")
    with listening(folder / "server") as server, pair_of(server, folder) as found:
        (folder / "log.vkey").write_text(server.log_key + "\n")
        yield found


def predict(pair: Pair) -> Path:
    """The bundle of a new prediction. What was said of the answers of another one was said of these, too."""
    ended = pair.session()
    assert ended.errors == {"A": None, "B": None}
    return pair.clinic.fetch(ended.request, timeout=60)


@pytest.fixture(scope="module")
def bundle(pair: Pair) -> Path:
    return predict(pair)


@pytest.fixture
def clinic(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clinic]:
    """The clinic, which has not said anything yet."""
    folder = pair.clinic.session.folder / "disclosures"
    kept = folder.with_name("disclosures.before")
    if folder.exists():
        folder.rename(kept)
    yield pair.clinic
    if kept.exists():
        shutil.rmtree(folder, ignore_errors=True)
        kept.rename(folder)


def log_size(pair: Pair) -> int:
    return int(pair.clinic.session.server.checkpoint().split(b"\n")[1])


def verified(path: Path, pair: Pair, nonce: bytes | None) -> VerifiedDisclosure:
    """As the recipient does, who has the log's key and the nonce, and nothing else."""
    found = verify_bundle(path, Verifier.parse(pair.server.log_key), recipient_nonce=nonce)
    assert isinstance(found, VerifiedDisclosure)
    return found


# -- the library ------------------------------------------------------------------------------------------------------


def test_each_kind_says_what_it_says(pair: Pair, clinic: Clinic, bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "shown.sealproof"
    exact = clinic.disclose(bundle, HIGH, kind="exact", nonce=NONCES[1], path=path)
    found = verified(exact, pair, NONCES[1])
    assert found.sentence == "risk of record 'p-71' is 0.515625, within 0.015625"
    assert abs(float(found.statement.value) / 64 - RAW[1]) <= 1 / 64
    found = verified(clinic.disclose(bundle, HIGH, kind="open", nonce=NONCES[1], path=path), pair, NONCES[1])
    assert abs(found.statement.value / 2**found.statement.scale_bits - RAW[1]) < 1e-3
    assert found.sentence.endswith("exactly")
    reached = clinic.disclose(bundle, HIGH, kind="threshold", threshold=0.6, nonce=NONCES[1], path=path)
    assert verified(reached, pair, NONCES[1]).sentence == "risk of record 'p-71' is at least 0.40625"
    wide = clinic.disclose(bundle, LOW, kind="exact", tolerance=0.25, nonce=NONCES[1], path=path)
    assert verified(wide, pair, NONCES[1]).sentence == "risk of record 'p-18' is -0.84375, within 0.25"


def test_a_recipient_finds_its_own_nonce_and_no_other(pair: Pair, clinic: Clinic, bundle: Path, tmp_path: Path) -> None:
    path = clinic.disclose(bundle, HIGH, kind="exact", nonce=NONCES[1], path=tmp_path / "shown.sealproof")
    assert verified(path, pair, NONCES[1]).checks[-1].sentence.endswith("within 0.015625.")
    assert "was not given" in verified(path, pair, None).checks[-1].sentence
    with pytest.raises(VerificationFailed, match=r"disclosure\.nonce"):
        verified(path, pair, NONCES[2])


def test_saying_it_again_says_the_same(pair: Pair, clinic: Clinic, bundle: Path, tmp_path: Path) -> None:
    """The same bytes and the same entry, also from another bundle file, however often it is repeated."""
    size = log_size(pair)
    shown = []
    for number in range(3):
        path = tmp_path / f"{number}.sealproof"
        clinic.disclose(bundle, HIGH, kind="threshold", threshold=0.6, nonce=NONCES[1], path=path)
        found = verified(path, pair, NONCES[1])
        shown.append((found.entry, found.disclosed))
        assert log_size(pair) == size + 1
    assert shown[0] == shown[1] == shown[2]


def test_a_second_different_statement_of_a_kind_is_not_made(
    pair: Pair, clinic: Clinic, bundle: Path, tmp_path: Path
) -> None:
    """Two thresholds bracket a score, two intervals meet in a smaller one; whoever the first was shown to."""
    path = tmp_path / "shown.sealproof"
    clinic.disclose(bundle, HIGH, kind="threshold", threshold=0.6, nonce=NONCES[1], path=path)
    clinic.disclose(bundle, HIGH, kind="exact", tolerance=0.25, nonce=NONCES[1], path=path)
    size = log_size(pair)
    path.unlink()
    for options in (
        {"kind": "threshold", "threshold": 0.5},
        {"kind": "threshold", "threshold": 0.62},
        {"kind": "exact"},
        {"kind": "exact", "tolerance": 0.5},
    ):
        for nonce in NONCES[1:3]:
            with pytest.raises(UsageError, match="something else was disclosed about this answer before"):
                clinic.disclose(bundle, HIGH, nonce=nonce, path=path, **options)
    assert log_size(pair) == size
    assert not path.exists()


def test_of_two_statements_that_are_made_at_the_same_time_one_is(
    pair: Pair, clinic: Clinic, bundle: Path, tmp_path: Path
) -> None:
    start, ends = threading.Barrier(4), []

    def disclose(number: int) -> None:
        path, threshold = tmp_path / f"{number}.sealproof", (0.6, 0.55, 0.5, 0.45)[number]
        start.wait()
        try:
            ends.append(
                clinic.disclose(bundle, HIGH, kind="threshold", threshold=threshold, nonce=NONCES[1], path=path)
            )
        except UsageError:
            ends.append(None)

    threads = [threading.Thread(target=disclose, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (path,) = [end for end in ends if end is not None]
    verified(path, pair, NONCES[1])


def test_a_second_prediction_of_the_same_records_is_no_second_chance(
    pair: Pair, clinic: Clinic, bundle: Path, tmp_path: Path
) -> None:
    """Its answers are the same numbers under other commitments."""
    path = tmp_path / "shown.sealproof"
    clinic.disclose(bundle, HIGH, kind="threshold", threshold=0.6, nonce=NONCES[1], path=path)
    again = predict(pair)
    with pytest.raises(UsageError, match="something else was disclosed"):
        clinic.disclose(again, HIGH, kind="threshold", threshold=0.5, nonce=NONCES[1], path=path)
    clinic.disclose(again, HIGH, kind="threshold", threshold=0.6, nonce=NONCES[1], path=path)
    verified(path, pair, NONCES[1])


def test_the_same_may_be_said_to_another_and_another_thing_of_another_patient(
    pair: Pair, clinic: Clinic, bundle: Path, tmp_path: Path
) -> None:
    size, entries = log_size(pair), []
    for number, (record, threshold) in enumerate([(HIGH, 0.6), (HIGH, 0.6), (IDS[2], 0.5), (LOW, 0.2)]):
        path, nonce = tmp_path / f"{number}.sealproof", NONCES[1 + number]
        clinic.disclose(bundle, record, kind="threshold", threshold=threshold, nonce=nonce, path=path)
        found = verified(path, pair, nonce)
        entries.append(found.entry)
        for other in NONCES[1:5]:
            if other != nonce:
                with pytest.raises(VerificationFailed, match=r"disclosure\.nonce"):
                    verified(path, pair, other)
    assert len({entry.reference for entry in entries}) == 4
    assert log_size(pair) == size + 4


def test_what_is_not_true_is_not_said_and_not_held_against_the_clinic(
    pair: Pair, clinic: Clinic, bundle: Path, tmp_path: Path
) -> None:
    path, size = tmp_path / "shown.sealproof", log_size(pair)
    for threshold in (0.64, 0.99):
        with pytest.raises(UsageError, match="does not reach this threshold"):
            clinic.disclose(bundle, HIGH, kind="threshold", threshold=threshold, nonce=NONCES[1], path=path)
    assert not path.exists()
    assert log_size(pair) == size
    clinic.disclose(bundle, HIGH, kind="threshold", threshold=0.6, nonce=NONCES[1], path=path)
    verified(path, pair, NONCES[1])


ODD: list[tuple[dict[str, Any], str]] = [
    ({"record_id": "nobody"}, "no record with this id"),
    ({"output": "mood"}, "no output 'mood'; there is risk"),
    ({"output": 1}, "no output 1"),
    ({"output": -1}, "no output -1"),
    ({"threshold": 0.6}, "threshold belongs to"),
    ({"kind": "threshold"}, "threshold belongs to"),
    ({"kind": "threshold", "threshold": 1.5}, "probability"),
    ({"kind": "threshold", "threshold": float("nan")}, "probability|finite"),
    ({"kind": "threshold", "threshold": 0.6, "tolerance": 0.5}, "tolerance belongs to"),
    ({"kind": "open", "tolerance": 0.5}, "tolerance belongs to"),
    ({"tolerance": 0.01}, "multiple of the model's grid"),
    ({"tolerance": 0.0}, "multiple of the model's grid"),
    ({"tolerance": -1.0}, "multiple of the model's grid"),
    ({"tolerance": float("nan")}, "multiple of the model's grid"),
    ({"tolerance": float("inf")}, "multiple of the model's grid"),
    ({"tolerance": 1e30}, "leaves the range"),
    ({"nonce": bytes(31)}, "32 bytes"),
]


@pytest.mark.parametrize(("options", "words"), ODD, ids=lambda value: str(value)[:40])
def test_what_cannot_be_said_is_told_in_words(
    pair: Pair, clinic: Clinic, bundle: Path, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    path, size = tmp_path / "shown.sealproof", log_size(pair)
    said = {"record_id": HIGH, "kind": "exact", "nonce": NONCES[1], "path": path, **options}
    with pytest.raises(UsageError, match=words):
        clinic.disclose(bundle, said.pop("record_id"), **said)
    assert not path.exists()
    assert log_size(pair) == size
    assert not list(clinic.session.folder.glob("disclosures/*/said.json"))


def test_a_disclosure_is_made_of_a_prediction_of_ones_own(
    pair: Pair, clinic: Clinic, bundle: Path, tmp_path: Path, honest_bundle: Path
) -> None:
    path = clinic.disclose(bundle, HIGH, kind="exact", nonce=NONCES[1], path=tmp_path / "shown.sealproof")
    with pytest.raises(UsageError, match="no prediction by two-party computation"):
        clinic.disclose(path, HIGH, kind="exact", nonce=NONCES[1], path=tmp_path / "again.sealproof")
    with pytest.raises(UsageError, match="there is nothing to open"):
        clinic.open_bundle(path)
    with pytest.raises(VerificationFailed, match=r"log\.untrusted"):
        clinic.disclose(honest_bundle, HIGH, kind="exact", nonce=NONCES[1], path=tmp_path / "again.sealproof")
    stranger = Clinic.init(tmp_path / "stranger", pair.server.url, "st-gerda", log_key=pair.server.log_key, ckks=False)
    with pytest.raises(VerificationFailed, match=r"clinic\.records"):
        stranger.disclose(bundle, HIGH, kind="exact", nonce=NONCES[1], path=tmp_path / "again.sealproof")


# -- crashes ----------------------------------------------------------------------------------------------------------


def crash(*arguments: object, **options: object) -> Any:
    raise KeyboardInterrupt


CRASHES: list[tuple[str, Any]] = [
    ("api.client.disclosure.disclose_answer", crash),
    ("api.client.disclosure.sign_disclosure", crash),
    ("api.client.session.Session.log_once", crash),
    ("api.client.session.Session.check_logged", crash),
    ("api.client.disclosure._write", crash),
]


@pytest.mark.parametrize(("where", "what"), CRASHES, ids=[where.rpartition(".")[2] for where, _ in CRASHES])
def test_after_a_crash_the_same_is_said_and_logged_once(
    pair: Pair, clinic: Clinic, bundle: Path, tmp_path: Path, where: str, what: Callable[..., Any]
) -> None:
    path, size = tmp_path / "shown.sealproof", log_size(pair)

    def disclose(threshold: float) -> Path:
        return clinic.disclose(bundle, HIGH, kind="threshold", threshold=threshold, nonce=NONCES[1], path=path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, what)
        with pytest.raises(KeyboardInterrupt):
            disclose(0.6)
    assert not path.exists()
    # Whether it reached anybody, nobody knows: what may have been said stays said.
    with pytest.raises(UsageError, match="something else was disclosed"):
        disclose(0.5)
    found = verified(disclose(0.6), pair, NONCES[1])
    assert log_size(pair) == size + 1
    assert found.entry.reference.index == size


def test_without_the_server_nothing_is_shown(pair: Pair, clinic: Clinic, bundle: Path, tmp_path: Path) -> None:
    """What is not on the ledger is not handed out."""
    path = tmp_path / "shown.sealproof"

    def gone(*arguments: object) -> Any:
        raise ServerUnreachable("gone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Server, "append", gone)
        with pytest.raises(ServerError):
            clinic.disclose(bundle, HIGH, kind="exact", nonce=NONCES[1], path=path)
    assert not path.exists()


def test_a_log_that_grows_meanwhile_is_asked_again(pair: Pair, clinic: Clinic, bundle: Path, tmp_path: Path) -> None:
    honest, calls = Server.proof, []

    def proof(server: Server, index: int) -> bytes:
        calls.append(index)
        if len(calls) == 3:
            pair.server.owner(tmp_path / "newcomer", f"lab-{log_size(pair)}")
        return honest(server, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Server, "proof", proof)
        path = clinic.disclose(bundle, HIGH, kind="exact", nonce=NONCES[1], path=tmp_path / "shown.sealproof")
    verified(path, pair, NONCES[1])


# -- what is kept and what is told ------------------------------------------------------------------------------------


def test_the_ledger_says_neither_whose_answer_nor_what(
    pair: Pair, clinic: Clinic, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    honest = Server._send

    def send(server: Server, method: str, path: str, limit: int, **options: Any) -> bytes:
        sent.append(path.encode() + (options.get("body") or b""))
        return honest(server, method, path, limit, **options)

    monkeypatch.setattr(Server, "_send", send)
    path = clinic.disclose(bundle, HIGH, kind="open", nonce=NONCES[1], path=tmp_path / "shown.sealproof")
    found = verified(path, pair, NONCES[1])
    data = pair.clinic.session.server.entry(found.entry.reference.index)
    body = decode_entry(data).body
    assert isinstance(body, Disclosure)
    assert set(json.loads(data)["body"]) == {"prediction", "statement", "proof"}
    told = b"".join(sent)
    with BundleReader(path) as reader:
        statement, proof = reader.blob(body.statement), reader.blob(body.proof)
    salt = found.disclosed.salt
    for secret in (HIGH.encode(), salt, salt.hex().encode(), NONCES[1].hex().encode(), statement, proof[-32:]):
        assert secret not in told
    assert str(found.statement.value).encode() not in told


def test_a_disclosure_shows_one_patient_and_nothing_of_the_others(
    pair: Pair, clinic: Clinic, bundle: Path, tmp_path: Path
) -> None:
    path = clinic.disclose(bundle, HIGH, kind="exact", nonce=NONCES[1], path=tmp_path / "shown.sealproof")
    data, handles = path.read_bytes(), pair.records.handles
    with BundleReader(path) as reader, BundleReader(bundle) as before:
        added = set(reader.blob_digests()) - set(before.blob_digests())
        payloads = b"".join(reader.blob(digest) for digest in added)
        assert len(added) == 2
        assert set(before.blob_digests()) < set(reader.blob_digests())
    for name, salt in zip(handles.ids, handles.salts, strict=True):
        if name != HIGH:
            assert name.encode() not in data
            assert salt not in data
            assert salt.hex().encode() not in data + payloads


def test_what_is_kept_is_private(pair: Pair, clinic: Clinic, bundle: Path, tmp_path: Path) -> None:
    clinic.disclose(bundle, HIGH, kind="open", nonce=NONCES[1], path=tmp_path / "shown.sealproof")
    kept = list((clinic.session.folder / "disclosures").rglob("*"))
    assert len(kept) > 4
    for path in kept:
        assert path.stat().st_mode & 0o077 == 0, path
        assert HIGH not in str(path)


def test_answers_are_told_exactly_in_decimals() -> None:
    """Never a rounded double: what is shown is what was proven."""
    for value, bits, shown in (
        (1, 36, "0.000000000014551915228366851806640625"),
        (-3, 1, "-1.5"),
        (10, 0, "10"),
        (0, 6, "0"),
        (2**60, 36, "16777216"),
        (-(2**61) - 1, 61, "-1.0000000000000000004336808689942017736029811203479766845703125"),
    ):
        statement = AnswerStatement(
            bytes(32), bytes(32), 0, 0, bytes(48), bits, 0, (1 << 62) - 1, "open", value, 0, bytes(32)
        )
        assert in_words(statement) == f"is {shown} exactly"


# -- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("SEALPROOF_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path, code: int = 0) -> tuple[str, str]:
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["sealproof", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        assert ended.value.code == code, (arguments, shown)
        return shown.out, shown.err

    return run


def test_the_commands_from_nonce_to_verdict(
    pair: Pair, clinic: Clinic, bundle: Path, tmp_path: Path, shell: Any
) -> None:
    nonce = json.loads(shell("consumer", "nonce", "--json")[0])["nonce"]
    assert len(shell("consumer", "nonce")[0].strip()) == len(nonce) == 64
    folder, path, key = clinic.session.folder, tmp_path / "shown.sealproof", pair.server.log_key
    said = ("--record", HIGH, "--at-least", "0.6", "--nonce", nonce, "--save", path, "-f", folder)
    out, err = shell("clinic", "disclose", bundle, *said)
    assert "0.5199" not in out + err
    out, _ = shell("verify", path, "--log-key", key, "--nonce", nonce)
    name = clinic.name
    assert f"DISCLOSED by {name}: risk of record 'p-71' is at least 0.40625\n" in out
    assert "VERIFIED" in out
    assert "was not given" not in out
    out, _ = shell("verify", path, "--log-key", key)
    assert "Whether it was made for you shows its nonce, which was not given." in out
    _, err = shell("verify", path, "--log-key", key, "--nonce", "00" * 32, code=1)
    assert "disclosure.nonce: this was made for another recipient" in err


def test_the_verdict_in_json(pair: Pair, clinic: Clinic, bundle: Path, tmp_path: Path, shell: Any) -> None:
    path, nonce = tmp_path / "shown.sealproof", NONCES[7].hex()
    said = ("--kind", "exact", "--record", HIGH, "--nonce", nonce, "--save", path, "-f", clinic.session.folder)
    json.loads(shell("clinic", "disclose", bundle, *said, "--json")[0])
    verify = ("verify", path, "--log-key", pair.server.log_key, "--json")
    for more in ((), ("--nonce", nonce)):
        found = json.loads(shell(*verify, *more)[0])
        assert (found["result"], found["scheme"]) == ("verified", "mpc")
        assert found["checks"][-1]["name"] == "disclosure"
        assert {name: found["disclosure"][name] for name in ("record", "output", "kind", "value", "tolerance")} == {
            "record": HIGH,
            "output": "risk",
            "kind": "exact",
            "value": "33",
            "tolerance": 1,
        }
        assert found["disclosure"]["recipient_nonce"] == nonce
        assert found["disclosure"]["says"] == "risk of record 'p-71' is 0.515625, within 0.015625"
    refused = json.loads(shell(*verify, "--nonce", "00" * 32, code=1)[0])
    assert (refused["result"], refused["check"]) == ("refused", "disclosure.nonce")


def test_wrong_usage_ends_with_two(pair: Pair, clinic: Clinic, bundle: Path, tmp_path: Path, shell: Any) -> None:
    path = tmp_path / "shown.sealproof"
    said = ("--record", HIGH, "--save", path, "-f", clinic.session.folder)
    for more, words in (
        (("--nonce", "12"), "a nonce has 32 bytes"),
        (("--nonce", "zz" * 32), "is not hex"),
        (("--nonce", "00" * 32), "threshold belongs to"),
        (("--nonce", "00" * 32, "--kind", "all"), "all"),
        (("--nonce", "00" * 32, "--kind", "exact", "--tolerance", "nan"), "multiple of the model's grid"),
        (("--nonce", "00" * 32, "--at-least", "nan"), "nan"),
        (("--nonce", "00" * 32, "--at-least", "0.9"), "does not reach this threshold"),
        (("--nonce", "00" * 32, "--kind", "exact", "--output", "mood"), "no output 'mood'"),
    ):
        _, err = shell("clinic", "disclose", bundle, *said, *more, code=2)
        assert words in err
    shell("verify", bundle, "--log-key", pair.server.log_key, "--nonce", "12", code=2)
    assert not path.exists()


BLOCKED = ("tenseal", "torch", "crypten", "sklearn", "zksk", "petlib", "fastapi", "starlette", "uvicorn", "matplotlib")


def test_a_recipient_needs_no_library_of_the_nodes(pair: Pair, clinic: Clinic, bundle: Path, tmp_path: Path) -> None:
    """The command, in a process that has what `pip install .` brings and nothing more."""
    path = clinic.disclose(bundle, HIGH, kind="exact", nonce=NONCES[1], path=tmp_path / "shown.sealproof")
    arguments = ["sealproof", "verify", str(path), "--log-key", pair.server.log_key, "--nonce", NONCES[1].hex()]
    program = f"""
import sys
for name in {BLOCKED!r}:
    sys.modules[name] = None
sys.argv = {[*arguments, "--json"]!r}
from api.cli.main import main
try:
    main()
finally:
    assert not any(name.partition(".")[0] in {BLOCKED!r} and module for name, module in sys.modules.items())
"""
    environment = {**os.environ, "SEALPROOF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path.cwd(), env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["disclosure"]["says"] == "risk of record 'p-71' is 0.515625, within 0.015625"
