"""The demonstration tells the truth: it runs, refuses every forgery, and its page says so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("demo")
    import os

    done = subprocess.run(
        [sys.executable, "-m", "api.cli", "demo"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SEALPROOF_HOME": str(folder / "home"), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


@pytest.mark.slow
def test_every_forgery_is_refused_by_the_check_it_is_aimed_at(shown):
    _, out = shown
    assert "ACCEPTED" not in out
    for check in ("linear.form", "linear.opening", "prediction.error-bound", "ledger.order", "attestation.signature"):
        assert f"refused by {check}:" in out
    assert "9 of 9" in out


@pytest.mark.slow
def test_the_bundles_verify_again_and_leave_the_key_out(shown):
    folder, _ = shown
    import os

    bundles = sorted((folder / "demo-out").glob("*.sealproof"))
    assert [b.stem for b in bundles] == ["breast-cancer", "diabetes"]
    command = [sys.executable, "-m", "api.cli", "verify", *map(str, bundles), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SEALPROOF_HOME": str(folder / "home")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [x["result"] for x in json.loads(done.stdout)] == ["verified", "verified"]
    secret = (folder / "demo-out" / "state" / "clinic" / "keys" / "1.key").read_bytes()
    assert all(secret[64:128] not in b.read_bytes() for b in bundles)


@pytest.mark.slow
def test_the_page_needs_nothing_from_elsewhere_and_names_every_check(shown):
    folder, out = shown
    page = (folder / "demo-out" / "report.html").read_text()
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    for line in out.splitlines():
        if line.startswith("  refused by "):
            check = line.removeprefix("  refused by ").partition(":")[0]
            assert check in page
