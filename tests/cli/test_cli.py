"""The command line against a real server: what users type, what they get, and how it ends."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from api.cli.main import app, main
from privacy.models.artefact import save_model
from privacy.models.linear import LinearModel
from privacy.models.network import Dense, Network
from privacy.models.network_artefact import save_any_model
from privacy.models.schema import Feature, Schema
from tests.support.service import RunningServer, listening

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = Schema(
    "heart", 1, (Feature("age", "a", 0, 120), Feature("bmi", "kg/m2", 10, 60), Feature("unused", "1", 0, 1))
)
CSV = "id,age,bmi,unused\np-1,40,22.5,0\np-2,71,31,1\np-3,55,27.25,1\n"


class Shell:
    """Runs commands in one folder, in this process."""

    def __init__(self, folder: Path, server: RunningServer) -> None:
        self.folder, self.server = folder, server

    def __call__(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        before = Path.cwd()
        os.chdir(self.folder)
        patch = pytest.MonkeyPatch()
        patch.setattr("sys.argv", ["sealproof", *arguments])
        patch.setenv("SEALPROOF_HOME", str(self.folder / "home"))
        from io import StringIO

        out, err = StringIO(), StringIO()
        patch.setattr("sys.stdout", out)
        patch.setattr("sys.stderr", err)
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            patch.undo()
            os.chdir(before)
        assert ended.value.code == code, (arguments, out.getvalue(), err.getvalue())
        return out.getvalue(), err.getvalue()

    @property
    def connect(self) -> tuple[str, ...]:
        return "--server", self.server.url, "--log-key", "log.vkey"

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code)[0])


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A folder in which everything up to a verified prediction was typed."""
    folder = tmp_path_factory.mktemp("cli")
    model = LinearModel("heart", np.array([[0.02, 0.1, 0.0]]), np.array([-3.5]), ("disease",), "logit", SCHEMA)
    save_model(model, folder / "heart.json")
    layers = (Dense(np.array([[0.02, 0.1, 0.0]]), np.array([-3.5])), Dense(np.array([[1.5]]), np.array([0.25])))
    save_any_model(Network("net", layers, ("disease",), "logit", SCHEMA), folder / "net.json")
    (folder / "schema.json").write_bytes(SCHEMA.encode_json())
    (folder / "patients.csv").write_text(CSV)
    with listening(folder / "server") as server:
        (folder / "log.vkey").write_text(server.log_key + "\n")
        run = Shell(folder, server)
        run("model", "init", "heart-lab", *run.connect)
        run("model", "publish", "heart.json", "--schema", "schema.json", "--zero", "unused", "--card", "use=test")
        run("clinic", "init", "st-anna", *run.connect)
        run("clinic", "submit", "patients.csv", "--model", "heart", "--id-column", "id")
        run("clinic", "predict", "--model", "heart", "--bundle", "b.sealproof", "--inputs", "--scores", "scores.csv")
        yield run


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(path):
    text = COMMANDS[path].help
    assert f"Example: sealproof {' '.join(path)}" in text
    assert all(getattr(option, "help", None) for option in COMMANDS[path].params)


def test_scores_are_the_models_and_stay_in_a_private_file(shell):
    rows = (shell.folder / "scores.csv").read_text().splitlines()
    assert rows[0] == "id,disease"
    values = [float(row.split(",")[1]) for row in rows[1:]]
    raw = np.array([[40, 22.5], [71, 31], [55, 27.25]]) @ [0.02, 0.1] - 3.5
    assert np.abs(np.array(values) - 1 / (1 + np.exp(-raw))).max() < 1 / 256
    assert (shell.folder / "scores.csv").stat().st_mode & 0o077 == 0


def test_answers_are_on_no_screen(shell):
    out, err = shell("clinic", "open", "b.sealproof", "--offline")
    printed = out + err + json.dumps(shell.json("clinic", "open", "b.sealproof", "--offline"))
    for row in (shell.folder / "scores.csv").read_text().splitlines()[1:]:
        patient, value = row.split(",")
        assert patient not in printed
        assert value[:8] not in printed


def test_submitting_again_finds_the_same_records(shell):
    first = shell.json("clinic", "submit", "patients.csv", "--model", "heart", "--id-column", "id")
    second = shell.json("clinic", "submit", "patients.csv", "--model", "heart", "--id-column", "id")
    assert first == second
    assert first["patients"] == 3


def test_verify_ends_with_0_1_or_2(shell):
    found = shell.json("verify", "b.sealproof", "--log-key", "log.vkey")
    assert found["result"] == "verified"
    assert [c["name"] for c in found["checks"]][-1] == "proofs"
    refused = shell.json("verify", "b.sealproof", code=1)
    assert refused["check"] == "log.untrusted"
    shell("verify", "absent.sealproof", "--log-key", "log.vkey", code=2)
    damaged = bytearray((shell.folder / "b.sealproof").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (shell.folder / "damaged.sealproof").write_bytes(damaged)
    both = shell.json("verify", "b.sealproof", "damaged.sealproof", "--log-key", "log.vkey", code=2)
    assert [x["result"] for x in both] == ["verified", "unreadable"]
    shell("verify", code=2)
    shell("verify", "b.sealproof", "--backend", "none", code=2)
    shell("verify", "b.sealproof", "--log-key", "nonsense+key", code=2)


def test_verify_with_the_server_sees_a_revocation_made_later(shell):
    shell("model", "publish", "heart.json", "--schema", "schema.json", "--version", "2", "--zero", "unused")
    shell("clinic", "submit", "patients.csv", "--model", "heart 2", "--id-column", "id")
    shell("clinic", "predict", "--model", "heart 2", "--bundle", "b2.sealproof", "--inputs")
    shell("model", "revoke", "--model", "heart 2", "--reason", "superseded")
    seen = shell.json("verify", "b2.sealproof", "--log-key", "log.vkey", "--server", shell.server.url)
    assert len(seen["revoked_since"]) == 1
    _, err = shell("clinic", "predict", "--model", "heart 2", code=2)
    assert "no model" in err


def test_trust_is_given_and_taken(shell):
    shell("trust", "add", "log.vkey")
    assert shell.json("trust", "list") == [shell.server.log_key]
    assert shell.json("verify", "b.sealproof")["ledger"]["key"] == "trusted on this machine"
    assert shell.json("ledger", "checkpoint", "--server", shell.server.url)["size"] >= 7
    shell("trust", "remove", shell.server.log_key.partition("+")[0])
    shell("verify", "b.sealproof", code=1)


def test_anyone_recounts_the_exposure_that_the_server_shows(shell):
    arguments = ("exposure", "--server", shell.server.url, "--clinic", "st-anna")
    shown = shell.json(*arguments)
    own = shell.json(*arguments, "--recount", "--log-key", "log.vkey")
    assert shown
    assert [{k: v for k, v in row.items() if k != "cap_bits"} for row in shown] == own
    assert "disease" in shell(*arguments)[0]


def test_an_entry_is_proved_and_saved(shell):
    found = shell.json("ledger", "prove", "2", "--server", shell.server.url, "--log-key", "log.vkey", "--save", "e2")
    assert found["kind"] == "sealproof/model/v1"
    assert (shell.folder / "e2.tlog-proof").read_text().startswith("c2sp.org/tlog-proof@v1")
    shell("ledger", "prove", "9999", "--server", shell.server.url, "--log-key", "log.vkey", code=3)


def test_owner_opens_and_explains(shell):
    assert len(shell.json("model", "audit", "--model", "heart 1")["artefact"]) == 64
    (policy,) = shell.json("model", "policy", "--model", "heart 1")
    assert policy["answers"] >= 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["clinic", "submit", "patients.csv", "--model", "heart", "--packing", "diagonal"], 2, "--packing"),
        (["clinic", "submit", "absent.csv", "--model", "heart"], 2, "absent.csv"),
        (["clinic", "submit", "patients.csv", "--model", "nobody"], 2, "no model"),
        (["clinic", "predict", "--model", "heart", "--records", "99"], 2, "no cohort of this clinic"),
        (["clinic", "predict", "--model", "heart", "--folder", "elsewhere"], 2, "elsewhere"),
        (["model", "publish", "heart.json", "--schema", "schema.json", "--card", "novalue"], 2, "key=value"),
        (["model", "publish", "heart.json", "--schema", "schema.json", "--zero", "nothing"], 2, "no such feature"),
        (
            ["model", "publish", "heart.json", "--schema", "schema.json", "--scheme", "fhe"],
            2,
            "--scheme is ckks or mpc",
        ),
        (["model", "publish", "net.json", "--schema", "schema.json", "--scheme", "ckks"], 2, "takes linear models"),
        (["model", "publish", "net.json", "--schema", "schema.json", "--zero", "unused"], 2, "with scheme ckks"),
        (["exposure", "--server", "http://127.0.0.1:9"], 3, "127.0.0.1:9"),
        (["bench", "nothing"], 2, "no benchmark"),
        (["no-such-command"], 2, "no-such-command"),
    ],
)
def test_mistakes_are_told_in_one_line(shell, arguments, code, said):
    _, err = shell(*arguments, code=code)
    assert said in err
    assert "Traceback" not in err


def test_a_network_is_published_and_records_are_committed_for_it(shell):
    """Everything of multi-party computation but the nodes, which have their own tests."""
    path = ("--schema", "schema.json")
    assert shell.json("model", "publish", "heart.json", *path, "--version", "3", "--scheme", "mpc")["scheme"] == "mpc"
    options = ("--weight-range-bits", "4", "--weight-range-bits", "2", "--bias-range-bits", "8")
    published = shell.json("model", "publish", "net.json", *path, *options)
    assert (published["name"], published["scheme"]) == ("net", "mpc")
    assert shell.json("model", "publish", "net.json", *path, *options) == published
    assert len(shell.json("model", "audit", "--model", "net")["artefact"]) == 64
    (policy,) = shell.json("model", "policy", "--model", "net")
    assert policy["bits"] > policy["bits_per_answer"] > 1
    _, err = shell("clinic", "predict", "--model", "net", code=2)
    assert "no records committed for networks" in err
    out, _ = shell("clinic", "init", "st-berta", *shell.connect, "--mpc-only", "--folder", "berta")
    assert "no key for encrypted records" in out
    found = shell.json("clinic", "submit", "patients.csv", "-m", "net", "--id-column", "id", "--folder", "berta")
    assert found["patients"] == 3
    _, err = shell("clinic", "submit", "patients.csv", "-m", "heart 1", "--id-column", "id", "-f", "berta", code=2)
    assert "--mpc-only" in err
    _, err = shell("clinic", "predict", "-m", "net", "--timeout", "0", "--folder", "berta", code=3)
    assert "do the nodes of clinic and owner run?" in err
    out, _ = shell("clinic", "init", "st-berta", *shell.connect, "--folder", "berta")
    assert "its key is ledger entry" in out
    shell("clinic", "submit", "patients.csv", "-m", "heart 1", "--id-column", "id", "--folder", "berta")


def test_doctor_names_what_is_missing_and_how_to_install_it(shell):
    rows = {row["module"]: row for row in shell.json("doctor")}
    assert rows["tenseal"]["install"] == "pip install 'sealproof[ckks]'"
    assert rows["py_arkworks_bls12381"]["installed"] is True
    assert rows["anvil"]["install"].startswith("make anvil")


def test_doctor_names_what_every_extra_installs_and_commands_that_install_extras_that_exist(shell):
    """`all` is the others together; `dev` is for tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = {extra for row in shell.json("doctor") for extra in re.findall(r"sealproof\[(\w+)\]", row["install"])}
    assert named == set(extras) - {"all", "dev"}
    (together,) = extras["all"]
    assert set(re.findall(r"\w+", together.removeprefix("sealproof"))) == named


def test_the_version_is_that_of_the_project(shell):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert shell("--version")[0].strip() == project["version"]


def test_the_operator_admits_a_party_of_a_closed_server(shell):
    shell("party", "entry", "clinic", "--save", "party.json")
    assert "st-anna" in shell("party", "add", "party.json", "--data", "elsewhere-data")[0]
    assert list((shell.folder / "elsewhere-data" / "admitted").iterdir())
