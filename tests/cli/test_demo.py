"""The demonstration tells the truth: it runs, refuses every forgery and lie, and its page says so.

Each part is run alone; the README's test runs all in one.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from api.demo.play_chain import why_no_chain

ROOT = Path(__file__).resolve().parents[2]

ENCRYPTED = ("linear.form", "linear.opening", "prediction.error-bound", "ledger.order", "attestation.signature")
TOGETHER = ("quadratic.opening", "prediction.scales", "attestation.proofs", "policy.model", "network.overflow")


CROOKED = {
    "a threshold one step higher than was proven": "linear.form",
    "an interval that the score is just outside of": "linear.form",
    "the same number once around the modulus": "disclosure.impossible",
    "another patient's answer under this patient's name": "inclusion.root",
    "this patient's proof under another patient's name": "linear.form",
    "a second key, made until the old record decrypts to a high score": "linear.form",
    "a consent that was given for another purpose": "consent.request",
    "a consent that had ended": "consent.expired",
    "more than was consented to": "consent.scope",
    "no consent on the ledger at all": "disclosure.grant",
    "the server raises the patient's result": "linear.form",
    "the prediction logged once more": "linear.form",
    "a ledger in which the key was registered after the records": "ledger.order",
    "the very same file, shown to another insurer": "disclosure.nonce",
}
"""What a crooked clinic, alone or with the server, shows an insurer, and the check that refuses it."""

LIES = {
    "in which entry 4 is another": ("monitor.fork", "another root of this size was cosigned", "fork: "),
    "without the last two": ("monitor.rollback", "knows 5 entries", "rollback: "),
    "computes every hash anew": ("monitor.consistency", "does not show that this tree extends", "proof: "),
    "changes entry 1 in the file": ("entries.hash", "", ""),
}
"""What the server does, and what monitor, witness and contract say to it; the last two see no files."""


def run(folder: Path, *arguments: str, **variables: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SEALPROOF_HOME": str(folder / "home"), "COLUMNS": "100"}
    environment |= variables
    command = [sys.executable, "-m", "api.cli", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("ckks")
    return folder, run(folder, "demo", "--ckks")


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("mpc")
    return folder, run(folder, "demo", "--mpc")


@pytest.fixture(scope="module")
def consumer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("consumer")
    return folder, run(folder, "demo", "--consumer")


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("ledger")
    return folder, run(folder, "demo", "--ledger")


def check_refusals(out: str, checks: tuple[str, ...], count: int) -> None:
    assert "ACCEPTED" not in out
    for check in checks:
        assert f"refused by {check}:" in out
    assert f"forgeries and lies refused: {count} of {count}" in out


def check_bundles(folder: Path, names: list[str]) -> None:
    bundles = sorted((folder / "demo-out").glob("*.sealproof"))
    assert [b.stem for b in bundles] == names
    found = json.loads(run(folder, "verify", *map(str, bundles), "--json"))
    assert [x["result"] for x in found] == ["verified"] * len(names)


def check_page(folder: Path, out: str) -> str:
    page = (folder / "demo-out" / "report.html").read_text()
    assert "<script" not in page
    # Addresses of witnesses are told as a part of the policy, and fetched by nobody.
    assert "http://" not in re.sub(r"http://(www\.w3\.org/2000/svg|127\.0\.0\.1:\d+\n)", "", page)
    assert not re.search(r"""\b(src|href|url)\s*[=(]\s*["']?[^"'#\s]""", page)
    for check in re.findall(r"^  refused by ([a-z.-]+):", out, re.M):
        assert check in page
    return page


@pytest.mark.slow
def test_every_forgery_on_encrypted_records_is_refused_by_the_check_it_is_aimed_at(encrypted):
    check_refusals(encrypted[1], ENCRYPTED, 9)


@pytest.mark.slow
def test_the_bundles_verify_again_and_leave_the_key_out(encrypted):
    folder, _ = encrypted
    check_bundles(folder, ["breast-cancer", "diabetes"])
    secret = (folder / "demo-out" / "state" / "clinic" / "keys" / "1.key").read_bytes()
    assert all(secret[64:128] not in b.read_bytes() for b in (folder / "demo-out").glob("*.sealproof"))


@pytest.mark.slow
def test_the_page_needs_nothing_from_elsewhere_and_names_every_check(encrypted):
    check_page(*encrypted)


@pytest.mark.slow
def test_a_crooked_clinic_shows_an_insurer_nothing_that_is_not_so(consumer):
    out = consumer[1]
    check_refusals(out, tuple(CROOKED.values()), len(CROOKED))
    for what, check in CROOKED.items():
        assert f"  refused by {check}: {what}" in out


@pytest.mark.slow
def test_what_the_insurer_was_shown_verifies_again_and_its_file_has_no_score(consumer):
    folder, out = consumer
    check_bundles(folder, ["breast-cancer", "insurer-risk-disclosure", "insurer-score-disclosure"])
    assert "malignant of record 'patient-001' is at least 0.859375" in out
    page = check_page(folder, out)
    for text in (
        "An insurer asks one question",
        "Neither a patient, nor a question, nor an answer",
        "disclosure.nonce",
    ):
        assert text in page
    ledger = page[page.index("What everybody can read") : page.index("Neither a patient")]
    assert "patient-001" not in ledger
    assert "life insurance" not in ledger


@pytest.mark.slow
def test_even_all_parties_together_get_no_forgery_accepted(together):
    check_refusals(together[1], (*TOGETHER, "entry.role"), 10)


@pytest.mark.slow
def test_bundles_that_were_computed_together_verify_again(together):
    names = [f"{data}-mpc-{kind}" for data in ("breast-cancer", "diabetes") for kind in ("linear", "relu")]
    check_bundles(together[0], [*names, "insurer-disclosure"])


@pytest.mark.slow
def test_a_node_that_cheats_is_caught_and_the_pair_goes_on_only_when_both_have_cleared_it(together):
    out = together[1]
    told = [
        "(joint.blind-check)",
        "(mpc.suspended)",
        "mpc clear heart-lab",
        "mpc clear st-anna",
        "every answer is right",
    ]
    places = [out.index(text) for text in told]
    assert places == sorted(places)


@pytest.mark.slow
def test_the_page_of_two_parties_needs_nothing_from_elsewhere_and_says_who_holds_what(together):
    page = check_page(*together)
    for text in ("Who talks to whom", "Who holds what", "joint.blind-check", "mpc.suspended", "What is not"):
        assert text in page


@pytest.mark.slow
def test_no_process_of_the_demonstration_is_left_behind(together):
    state = together[0] / "demo-out" / "state"
    logs = "".join((state / f"{name}.log").read_text() for name in ("owner-node", "dealer", "server"))
    addresses = set(re.findall(r"127\.0\.0\.1:(\d+)", logs))
    assert len(addresses) >= 3
    for port in addresses:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", int(port))) != 0


# -- the ledger -------------------------------------------------------------------------------------------------------


def check_lies(out: str, *, chained: bool) -> None:
    """Every lie was noticed by everybody who could."""
    assert "NOTICES NOTHING" not in out
    assert f"forgeries and lies refused: {len(LIES)} of {len(LIES)}" in out
    told = re.split(r"^  it ", out.split("turns crooked")[1], flags=re.M)[1:]
    assert len(told) == len(LIES)
    for text, (lie, (monitor, witness, contract)) in zip(told, LIES.items(), strict=True):
        assert lie in text
        assert f"monitor: {monitor}" in text
        assert "fsck: " in text
        assert ("witness: " in text) == bool(witness)
        assert witness in text
        assert ("contract: " in text) == (chained and bool(contract))
        assert not chained or contract in text


@pytest.mark.slow
def test_every_lie_about_the_ledger_is_noticed_by_whoever_can(ledger):
    check_lies(ledger[1], chained=why_no_chain() is None)


@pytest.mark.slow
def test_what_the_monitor_kept_convicts_the_server_and_the_copy_is_whole(ledger):
    folder, out = ledger
    page = check_page(folder, out)
    commands = re.findall(r"^again:   sealproof (ledger .+)$", out, re.M)
    assert [command.split()[1] for command in commands] == ["fsck", "evidence", "evidence"]
    for command in commands:
        assert f"sealproof {command}" in page
        run(folder, *shlex.split(command))


@pytest.mark.slow
def test_the_ledger_is_shown_without_a_chain_and_without_torch(tmp_path: Path):
    """What is missing for a chain is said, and everything else is shown."""
    absent = tmp_path / "without"
    absent.mkdir()
    (absent / "torch.py").write_text('raise ImportError("torch is not for this part")\n')
    path = os.pathsep.join([str(absent), str(ROOT)])
    out = run(tmp_path, "demo", "--ledger", SEALPROOF_ANVIL=str(tmp_path / "nowhere"), PYTHONPATH=path)
    assert "nothing is anchored: " in out
    assert "in a contract" not in out
    check_lies(out, chained=False)
    assert "no development chain" in (tmp_path / "demo-out" / "report.html").read_text()
