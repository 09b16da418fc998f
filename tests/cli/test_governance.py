"""The commands of governance, against a real server and a development chain."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from api import approval_gate as module
from api.entries import Reference
from api.governance import Governance
from ledger.errors import ChainRefused, ChainUnavailable
from privacy.errors import UsageError
from privacy.models.artefact import save_model
from privacy.models.linear import LinearModel
from tests.cli.test_cli import CSV, SCHEMA, Shell
from tests.support.anvil import KEYS as ANVIL_KEYS
from tests.support.anvil import Anvil
from tests.support.hospitals import (
    KEYS,
)
from tests.support.service import listening

# -- with a chain -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory, anvil: Anvil) -> Iterator[Shell]:
    """Three hospitals, two of which are needed; a server that serves approved models; one model and one cohort."""
    pytest.importorskip("web3", reason="web3 is not installed: pip install 'sealproof[evm]'")
    folder = tmp_path_factory.mktemp("governance")
    model = LinearModel("heart", np.array([[0.02, 0.1, 0.0]]), np.array([-3.5]), ("disease",), "logit", SCHEMA)
    save_model(model, folder / "heart.json")
    (folder / "schema.json").write_bytes(SCHEMA.encode_json())
    (folder / "patients.csv").write_text(CSV)
    (folder / "pay.key").write_text(ANVIL_KEYS[1])
    (folder / "pay.key").chmod(0o600)
    nobody: Any = None
    offline = Shell(folder, nobody)
    keys = [offline("governance", "keygen", f"h{n}.key")[0].strip() for n in range(3)]
    listed = [part for key in keys for part in ("--hospital", key)]
    offline(
        *("governance", "deploy", "--rpc", anvil.rpc, "--chain-key", "pay.key", *listed, "--threshold", "2"),
        *("--origin", "localhost/sealproof", "--save", "governance.json"),
    )
    chosen = {"governance": folder / "governance.json", "governance_rpc": anvil.rpc}
    with pytest.MonkeyPatch.context() as patch, listening(folder / "server", **chosen) as server:
        patch.setattr(module, "_FRESH_SECONDS", 0.1)
        (folder / "log.vkey").write_text(server.log_key + "\n")
        run = Shell(folder, server)
        run("model", "init", "heart-lab", *run.connect)
        run("model", "publish", "heart.json", "--schema", "schema.json")
        run("clinic", "init", "st-anna", *run.connect)
        run("clinic", "submit", "patients.csv", "--model", "heart", "--id-column", "id")
        yield run


G = ("--governance", "governance.json")
PREDICT = ("clinic", "predict", "--model", "heart", "--inputs")


@pytest.mark.slow
def test_hospitals_approve_a_model_and_withdraw(shell: Shell, anvil: Anvil) -> None:
    """The whole story, as it is typed."""
    chain = ("--rpc", anvil.rpc, "--chain-key", "pay.key")
    about = ("--model", "heart", *shell.connect)
    _, told = shell(*PREDICT, "--bundle", "none.sealproof", code=3)
    assert "approved models only" in told or "approvals that are needed" in told
    assert not shell.json("governance", "status", *G, *about, code=1)["approved"]
    for n in (0, 1):
        said = shell.json("governance", "sign", *G, "--key", f"h{n}.key", *about, "--save", f"h{n}.json")
        assert (said["act"], said["name"], said["owner"]) == ("approve", "heart", "heart-lab")
    assert "threshold" in shell("governance", "log", "h0.json", *G, code=1)[1]
    logged = shell.json("governance", "log", "h0.json", "h1.json", *G)
    status = shell.json("governance", "status", *G, *about)
    assert status["approved"] and status["contract"] is None
    status = shell.json("governance", "status", *G, *about, "--rpc", anvil.rpc, code=1)
    assert set(status["contract"].values()) == {"none"}
    rows = shell.json("governance", "submit", "h0.json", "h1.json", *chain)
    assert [row["approved"] for row in rows] == [False, True]
    assert all(row["gas_used"] > 21_000 for row in rows)
    assert [row["gas_used"] for row in shell.json("governance", "submit", "h0.json", "h1.json", *chain)] == [None] * 2
    assert shell.json("governance", "status", *G, *about, "--rpc", anvil.rpc)["approved"]

    wait_for_the_contract()
    shell(*PREDICT, "--bundle", "b.sealproof")
    verify = ("verify", "b.sealproof", "--log-key", "log.vkey", *G)
    found = shell.json(*verify, "--governance-rpc", anvil.rpc)
    assert found["approval"]["entry"] == logged["approval"]
    assert "approve it now" in next(check["shows"] for check in found["checks"] if check["name"] == "approval")
    assert "2 of 3 hospitals approved" in shell(*verify)[0]
    assert "usage" not in shell("verify", "b.sealproof", "--log-key", "log.vkey", "--governance-rpc", "x", code=2)[1]

    shell("governance", "sign", *G, "--key", "h1.key", *about, "--withdraw", "--save", "w1.json")
    assert "not approved now" in shell("governance", "submit", "w1.json", *chain)[0]
    assert "withdrawn for good" in shell("governance", "submit", "h1.json", *chain, code=1)[1]
    assert "NOT approved" in shell("governance", "status", *G, *about, "--rpc", anvil.rpc, code=1)[0]
    refused_now = shell.json(*verify, "--governance-rpc", anvil.rpc, code=1)
    assert refused_now["check"] == "approval.withdrawn"
    shell(*verify)  # what was approved when it was made stays verified for whoever does not ask
    wait_for_the_contract()
    assert "withdrew" in shell(*PREDICT, "--bundle", "none.sealproof", code=3)[1]


def wait_for_the_contract() -> None:
    """Until the server asks it again."""
    time.sleep(2 * module._FRESH_SECONDS)


def test_the_node_and_the_contract_are_those_of_the_file(anvil: Anvil, shell: Shell) -> None:
    from api.chain.governance import ChainApprovals

    said = Governance.load(shell.folder / "governance.json")
    model = Reference(2, bytes(32))
    with ChainApprovals(anvil.rpc, said) as contract:
        assert contract.states("localhost/sealproof", model, said.hospitals) == ["none"] * 3
        with pytest.raises(ChainRefused, match="another log"):
            contract.states("log.example/other", model, said.hospitals)
    with ChainApprovals(anvil.rpc, replace(said, chain=1)) as contract, pytest.raises(UsageError, match="chain 31337"):
        contract.open()
    for wrong, reason in (
        (replace(said, contract=bytes(20)), "no contract"),
        (replace(said, hospitals=KEYS), "knows no hospital"),
    ):
        with ChainApprovals(anvil.rpc, wrong) as contract, pytest.raises(ChainRefused, match=reason):
            contract.open()
    with ChainApprovals("http://127.0.0.1:9", said) as contract, pytest.raises(ChainUnavailable):
        contract.states("localhost/sealproof", model, said.hospitals)
