"""`pip install .`, with no extra, is enough to audit: the promise of the README, in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.consumers import tell
from tests.support.service import listening

ROOT = Path(__file__).resolve().parents[2]
FROZEN = ROOT / "tests" / "frozen"
ABSENT = ("tenseal", "torch", "crypten", "sklearn", "zksk", "petlib", "fastapi", "uvicorn", "matplotlib", "web3")


@pytest.mark.slow
def test_the_base_install_verifies_and_has_no_fhe_library(tmp_path: Path):
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", str(ROOT)], check=True, cwd=tmp_path)
    absent = f"import importlib.util as u; print([m for m in {ABSENT!r} if u.find_spec(m)])"
    listed = subprocess.run([str(python), "-c", absent], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert listed.stdout.strip() == "[]"
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    nonce = bytes(range(32)).hex()
    for folder, name, more in (
        ("v1", "heart", []),
        ("v1-mpc", "heart", []),
        ("v1-mpc", "threshold-disclosure", ["--nonce", nonce]),
    ):
        bundle = FROZEN / folder / f"{name}.sealproof"
        command = [str(environment / "bin" / "sealproof"), "verify", str(bundle), "--no-cache", "--json", *more]
        command += ["--log-key", str(bundle.parent / "log.vkey")]
        for verb in ("explain", "verify"):
            command[1] = verb
            done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            assert json.loads(done.stdout)["result"] == "verified"
    # A consumer asks and checks with no more than that; the clinic's side, which needs tenseal, is done here.
    with listening(tmp_path / "server") as server:
        story = tell(server, tmp_path)
        asked, _ = story.shown(*story.patients())
        folder, shown = story.consumer.session.folder, tmp_path / "shown.sealproof"
        for words in (
            ["requests"],
            ["collect", str(asked.index), "--save", str(shown)],
            ["verify", str(shown)],
            ["verify", str(shown), "--offline"],
        ):
            consumer = [str(environment / "bin" / "sealproof"), "consumer", *words, "--folder", str(folder), "--json"]
            done = subprocess.run(consumer, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["facts"][0]["says"] == "risk of record 'p0' is at least 0.40625"
    # What needs an extra says which.
    contract = "http://127.0.0.1:1#0x" + "00" * 20
    done = subprocess.run([*command, "--anchor", contract], cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert done.returncode == 3
    assert "pip install 'sealproof[evm]'" in done.stderr
