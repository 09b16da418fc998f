"""Parts of the demonstration that can be tried without telling the whole story."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from api.cli import tools
from api.client.audit import verify_bundle
from api.demo import cheating_node, play_chain
from api.demo.base_install import base_install
from api.demo.joint_tampering import JointForger, JointKeys
from api.demo.page import Step, steps_table, table
from api.demo.processes import Background
from api.mpc.link import LinkChannel
from privacy.errors import MissingDependency, VerificationFailed
from privacy.mpc.joint_prover import Row
from tests.support import joint_bundles

ROOT = Path(__file__).resolve().parents[2]

REFUSED_BY = [
    "quadratic.opening",
    "prediction.scales",
    "quadratic.opening",
    "attestation.proofs",
    "quadratic.opening",  # the records of the small world may be used with any model: the certificate refuses it
    "quadratic.opening",
    "network.overflow",
    "quadratic.opening",
    "quadratic.opening",
    "entry.role",
]


@pytest.mark.parametrize("network", ["linear", "small"])
def test_every_forgery_of_a_small_bundle_is_refused_by_the_check_it_is_aimed_at(tmp_path: Path, network: str) -> None:
    story = joint_bundles.tell(tmp_path, network=network)
    honest = story.bundle(tmp_path / "honest.sealproof")
    verify_bundle(honest, story.world.verifier)
    rows = [[Row(row.weights, row.bias, row.rho) for row in layer] for layer in story.network.rows]
    keys = JointKeys(story.world.signer, *(p.private_key for p in (story.server, story.owner, story.clinic)))
    entries = story.world.entries(0, story.world.log.size)
    found = []
    for forgery in JointForger(honest, entries, tmp_path / "forged", keys, rows).all():
        with pytest.raises(VerificationFailed) as caught:
            verify_bundle(forgery.path, story.world.verifier)
        found.append(caught.value.check)
    assert found == REFUSED_BY


def test_the_changed_software_changes_one_bit_of_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, bytes]] = []
    monkeypatch.setattr(LinkChannel, "send", lambda self, label, data: sent.append((label, data)))
    cheating_node.cheat()
    for label in ("answers", "responses"):
        LinkChannel.send(None, label, bytes(64))  # type: ignore[arg-type]
    assert sent == [("answers", b"\1" + bytes(63)), ("responses", bytes(64))]


def test_a_process_that_does_not_start_says_why(tmp_path: Path) -> None:
    arguments = ["mpc", "node", "-f", str(tmp_path / "absent"), "--dealer", "127.0.0.1:1", "--dealer-key", "00" * 32]
    with Background("node", tmp_path / "node.log", arguments) as node, pytest.raises(RuntimeError, match="absent"):
        node.find("is ready", "word that it is ready")


@pytest.mark.parametrize(
    ("options", "absent", "told"),
    [
        ({"mpc": True}, ("crypten", "tenseal"), "crypten==0.4.1"),
        ({}, ("torch",), "sealproof[torch]"),
        ({"ckks": True}, ("tenseal", "torch", "crypten"), "sealproof[ckks]"),
        ({"ledger": True}, ("uvicorn", "tenseal", "torch", "crypten"), "sealproof[service]"),
    ],
)
def test_what_a_part_lacks_is_told_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, bool], absent: tuple[str, ...], told: str
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else real(name))
    with pytest.raises(MissingDependency, match="is not installed") as caught:
        tools.demo(Path("nowhere"), **{"ckks": False, "mpc": False, "ledger": False, **options})
    assert told in str(caught.value)
    assert caught.value.package == absent[0]


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ((), (True, True, True, True)),
        (("ckks",), (True, False, False, False)),
        (("mpc",), (False, True, False, False)),
        (("ledger",), (False, False, True, False)),
        (("consumer",), (False, False, False, True)),
        (("ckks", "mpc"), (True, True, False, False)),
    ],
)
def test_options_choose_the_parts(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], parts: tuple[bool, ...]
) -> None:
    asked: list[Any] = []

    def run_demo(folder: Path, *, encrypted: bool, together: bool, ledger: bool, consumer: bool) -> bool:
        asked.append((encrypted, together, ledger, consumer))
        return True

    monkeypatch.setattr("api.demo.run.run_demo", run_demo)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    tools.demo(Path("nowhere"), **{name: name in options for name in ("ckks", "mpc", "ledger", "consumer")})
    assert asked == [parts]


def test_a_chain_is_started_only_where_everything_for_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    for name, absent, reason in (
        (str(tmp_path / "nowhere"), (), "which is no program"),
        (sys.executable, ("web3",), r"sealproof\[evm\]"),
    ):
        monkeypatch.setenv("SEALPROOF_ANVIL", name)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, no=absent: None if name in no else real(name))
        assert re.search(reason, play_chain.why_no_chain() or "")
        with play_chain.play_chains(tmp_path, (31337,)) as chains:
            assert chains == []
    monkeypatch.delenv("SEALPROOF_ANVIL")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(play_chain, "_TOOLS", tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    assert play_chain.find_anvil() is None
    assert "make anvil" in (play_chain.why_no_chain() or "")


def test_the_program_of_the_chain_is_found_where_it_is_named_or_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "@foundry-rs" / "anvil-some-system" / "bin" / "anvil"
    named = tmp_path / "mine"
    for path in (program, named):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\necho anvil Version: 1.2.3-stable\n")
        path.chmod(0o755)
    monkeypatch.setattr(play_chain, "_TOOLS", tmp_path)
    monkeypatch.delenv("SEALPROOF_ANVIL", raising=False)
    assert play_chain.find_anvil() == program
    monkeypatch.setenv("SEALPROOF_ANVIL", str(named))
    assert play_chain.find_anvil() == named
    assert play_chain.anvil_version(named) == "1.2.3"
    assert play_chain.anvil_version(tmp_path / "nowhere") == ""


def test_the_command_that_installs_crypten_names_the_version_of_the_makefile() -> None:
    (command,) = (how for module, _, how in tools._PARTS if module == "crypten")
    assert command.rpartition(" ")[2] in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_auditor_has_what_the_base_install_brings_and_nothing_that_computes(tmp_path: Path) -> None:
    installed = base_install(tmp_path / "site")
    assert base_install(tmp_path / "site") == installed
    absent = ("tenseal", "torch", "crypten", "sklearn", "zksk", "petlib", "fastapi", "uvicorn", "matplotlib", "web3")
    program = (
        f"import importlib.util as u; print([m for m in {absent!r} if u.find_spec(m)]); import numpy, api.cli.main"
    )
    command = [sys.executable, "-S", "-c", program]
    done = subprocess.run(command, env={"PYTHONPATH": str(installed)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[]", "")


def test_cells_of_the_page_are_escaped_and_empty_columns_are_left_out() -> None:
    shown = steps_table([Step("<b>", "a & b", 1.5)])
    assert "&lt;b&gt;" in shown
    assert "a &amp; b" in shown
    assert "size" not in shown
    assert "size" in steps_table([Step("x", "y", 0.1, 2_000)])
    assert "<td class=n>1</td>" in table(["a", "b"], [("x", "1")], numbers={1})
