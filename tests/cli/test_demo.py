"""The demonstration tells the truth: it runs, refuses every forgery, and its page says so.

Each part is run alone; the README's test runs both in one.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

ENCRYPTED = ("linear.form", "linear.opening", "prediction.error-bound", "ledger.order", "attestation.signature")
TOGETHER = ("quadratic.opening", "prediction.scales", "attestation.proofs", "policy.model", "network.overflow")


def run(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SEALPROOF_HOME": str(folder / "home"), "COLUMNS": "100"}
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


def check_refusals(out: str, checks: tuple[str, ...], count: int) -> None:
    assert "ACCEPTED" not in out
    for check in checks:
        assert f"refused by {check}:" in out
    assert f"forgeries refused: {count} of {count}" in out


def check_bundles(folder: Path, names: list[str]) -> None:
    bundles = sorted((folder / "demo-out").glob("*.sealproof"))
    assert [b.stem for b in bundles] == names
    found = json.loads(run(folder, "verify", *map(str, bundles), "--json"))
    assert [x["result"] for x in found] == ["verified"] * len(names)


def check_page(folder: Path, out: str) -> str:
    page = (folder / "demo-out" / "report.html").read_text()
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
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
