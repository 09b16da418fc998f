"""sealproof consumer: what an insurer types, from its registration to a verified answer, and how mistakes end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from api.client.clinic import Clinic
from privacy.models.artefact import save_model
from privacy.models.linear import LinearModel
from tests.cli.test_cli import CSV, SCHEMA, Shell
from tests.support.service import listening

PURPOSE = ("--purpose", "life insurance 4711")
ABOUT = ("consumer", "request", "st-anna", "--model", "heart")


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A folder in which an owner, a clinic with a prediction and a consumer were made."""
    folder = tmp_path_factory.mktemp("consumer-cli")
    # 0.3, 2.85 and 1.325: probabilities of 0.57, 0.95 and 0.79.
    model = LinearModel("heart", np.array([[0.02, 0.1, 0.0]]), np.array([-2.75]), ("disease",), "logit", SCHEMA)
    save_model(model, folder / "heart.json")
    (folder / "schema.json").write_bytes(SCHEMA.encode_json())
    (folder / "patients.csv").write_text(CSV)
    (folder / "ids.txt").write_text("p-1\n\n p-2 \np-3\n")
    with listening(folder / "server") as server:
        (folder / "log.vkey").write_text(server.log_key + "\n")
        run = Shell(folder, server)
        run("model", "init", "heart-lab", *run.connect)
        run("model", "publish", "heart.json", "--schema", "schema.json")
        run("clinic", "init", "st-anna", *run.connect)
        run("clinic", "submit", "patients.csv", "--model", "heart", "--id-column", "id")
        run("clinic", "predict", "--model", "heart", "--inputs")
        out, _ = run("consumer", "init", "acme-life", *run.connect)
        assert "consumer acme-life registered as ledger entry" in out
        yield run


@pytest.fixture
def clinic(shell: Shell) -> Iterator[Clinic]:
    """The other side, which has commands of its own."""
    with Clinic.open(shell.folder / "clinic") as found:
        yield found


def ask(shell: Shell, *arguments: str) -> Any:
    return shell.json(*ABOUT, *PURPOSE, *arguments)


def test_from_a_question_to_a_proven_answer(shell: Shell, clinic: Clinic) -> None:
    out, _ = shell(*ABOUT, "--record", "p-2", "--at-least", "0.7", *PURPOSE)
    assert "  is disease of record 'p-2' at least 0.859375 (a probability of at least 0.7025)?\n" in out
    asked = ask(shell, "--record", "p-2", "--at-least", "0.7")
    index = str(asked["request"])
    assert f"logged as request {index}" in out
    assert f"{index}  st-anna, 1 question, life insurance 4711: open\n" in shell("consumer", "requests")[0]
    _, err = shell("consumer", "collect", index, code=2)
    assert "has not answered the request" in err
    held = clinic.grant(asked["request"])
    assert "granted\n   grant" in (out := shell("consumer", "requests")[0])
    assert "nothing shown yet" in out
    clinic.disclose(held.index)
    assert f"sealproof consumer collect {index}" in shell("consumer", "requests")[0]
    out, _ = shell("consumer", "collect", index, "--save", "p-2.sealproof")
    lines = out.splitlines()
    assert lines[0] == f"st-anna shows, for request {index} (life insurance 4711):"
    assert lines[1] == "  disease of record 'p-2' is at least 0.859375"
    assert "a probability of at least" in lines[2]
    assert lines[-1].startswith("VERIFIED p-2.sealproof: model heart 1 of heart-lab; shown at ")
    assert "NOT ANSWERED" not in out
    assert shell("consumer", "verify", "p-2.sealproof")[0] == out
    told = shell.json("consumer", "verify", "p-2.sealproof", "--offline")
    assert (told["result"], told["clinic"], told["purpose"]) == ("verified", "st-anna", "life insurance 4711")
    assert [fact["says"] for fact in told["facts"]] == ["disease of record 'p-2' is at least 0.859375"]
    assert told["unanswered"] == told["revoked_since"] == []
    assert told["grant"] == held.index
    # Anybody else verifies the same file.
    verified = shell.json("verify", "p-2.sealproof", "--log-key", "log.vkey", "--nonce", asked["nonce"])
    assert verified["result"] == "verified"


def test_many_patients_from_a_file_and_what_was_left_out(shell: Shell, clinic: Clinic) -> None:
    asked = ask(shell, "--records-file", "ids.txt", "--exact", "--tolerance", "0.25")
    assert asked["questions"] == [f"what is disease of record 'p-{n}', to within 0.25?" for n in (1, 2, 3)]
    held = clinic.grant(asked["request"], only=["p-1", "p-3"])
    clinic.disclose(held.index, records=["p-3"])
    out, _ = shell("consumer", "collect", str(asked["request"]), "--save", "some.sealproof")
    assert "  NOT ANSWERED (granted, but not answered here): what is disease of record 'p-1', to within 0.25?\n" in out
    assert "  NOT ANSWERED (not granted): what is disease of record 'p-2', to within 0.25?\n" in out
    told = shell.json("consumer", "verify", "some.sealproof")
    assert [(one["granted"], "p-1" in one["question"]) for one in told["unanswered"]] == [(True, True), (False, False)]
    assert (told["facts"][0]["record"], told["facts"][0]["tolerance"]) == ("p-3", 16)
    (state,) = [row for row in shell.json("consumer", "requests")["requests"] if row["request"] == asked["request"]]
    assert (state["state"], state["questions"], state["records"]) == ("granted", 3, ["p-1", "p-2", "p-3"])
    assert state["grants"][0]["disclosures"] == [told["disclosure"]]


def test_a_refusal_and_a_withdrawal_are_told(shell: Shell, clinic: Clinic) -> None:
    first = ask(shell, "--record", "p-1", "--at-least", "0.99")
    clinic.refuse(first["request"], "no-consent")
    assert "refused: no-consent" in shell("consumer", "requests")[0]
    _, err = shell("consumer", "collect", str(first["request"]), code=2)
    assert "'st-anna' has refused the request" in err
    second = ask(shell, "--record", "p-1", "--at-least", "0.98", "--save", "request.json")
    assert (shell.folder / "request.json").stat().st_mode & 0o077 == 0
    assert json.loads((shell.folder / "request.json").read_text())["purpose"] == "life insurance 4711"
    out, _ = shell("consumer", "withdraw", str(second["request"]))
    assert f"request {second['request']} is withdrawn" in out
    again = shell.json("consumer", "withdraw", str(second["request"]))
    assert again["request"] == second["request"]
    assert "withdrawn" in shell("consumer", "requests")[0]


def test_what_is_refused_ends_with_one_and_says_to_believe_nothing(shell: Shell, clinic: Clinic) -> None:
    asked = ask(shell, "--record", "p-3", "--at-least", "0.6")
    clinic.disclose(clinic.grant(asked["request"]).index)
    shell("consumer", "collect", str(asked["request"]), "--save", "p-3.sealproof")
    data = bytearray((shell.folder / "p-3.sealproof").read_bytes())
    data[len(data) // 2] ^= 1
    (shell.folder / "damaged.sealproof").write_bytes(data)
    _, err = shell("consumer", "verify", "damaged.sealproof", code=2)
    assert "UNREADABLE damaged.sealproof: believe nothing of it" in err
    # A file of somebody else, and one in which nobody trusts the log.
    shell("consumer", "init", "other-life", *shell.connect, "--folder", "other")
    _, err = shell("consumer", "verify", "p-3.sealproof", "--folder", "other", code=2)
    assert "made for no request of this folder" in err
    trusted = shell.folder / "consumer" / "trust"
    trusted.rename(trusted.with_name("trust.away"))
    try:
        _, err = shell("consumer", "verify", "p-3.sealproof", "--offline", code=1)
        assert "REFUSED p-3.sealproof: believe nothing of it\n  log.untrusted:" in err
        told = shell.json("consumer", "verify", "p-3.sealproof", "--offline", code=1)
        assert (told["result"], told["check"]) == ("refused", "log.untrusted")
    finally:
        trusted.with_name("trust.away").rename(trusted)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--record", "p-1"], 2, "ask one thing: --at-least"),
        (["--record", "p-1", "--exact", "--open"], 2, "ask one thing"),
        (["--record", "p-1", "--at-least", "0.5", "--exact"], 2, "ask one thing"),
        (["--at-least", "0.5"], 2, "--record ID, or --records-file FILE"),
        (["--record", "p-1", "--record", "p-1", "--at-least", "0.5"], 2, "named twice"),
        (["--records-file", "absent.txt", "--at-least", "0.5"], 2, "absent.txt"),
        (["--record", "p-1", "--at-least", "70"], 2, "probability 70.0 is not between 0 and 1"),
        (["--record", "p-1", "--odds", "2"], 2, "two outputs of a softmax"),
        (["--record", "p-1", "--open"], 2, "exactly to within a tolerance"),
        (["--record", "p-1", "--exact", "--tolerance", "0.1"], 2, "multiple of the model's grid"),
        (["--record", "p-1", "--exact", "--output", "mood"], 2, "it has 'disease'"),
        (["--record", "p-1", "--exact", "--records", "0"], 2, "no records entry"),
        (["--record", "p-1", "--exact", "--prediction", "0"], 2, "no prediction"),
        (["--record", "p-1", "--exact", "--folder", "elsewhere"], 2, "elsewhere is no folder of a consumer"),
        (["--record", "p-1", "--exact", "--folder", "clinic"], 2, "belongs to the clinic"),
    ],
)
def test_mistakes_are_told_in_one_line(shell: Shell, arguments: list[str], code: int, said: str) -> None:
    _, err = shell(*ABOUT, *PURPOSE, *arguments, code=code)
    assert said in err
    assert "Traceback" not in err


def test_other_mistakes_are_told_too(shell: Shell) -> None:
    one = ("--record", "p-1", "--exact")
    for arguments, said in (
        (("consumer", "request", "st-berta", "--model", "heart", *one, *PURPOSE), "no party 'st-berta'"),
        (("consumer", "request", "heart-lab", "--model", "heart", *one, *PURPOSE), "only clinics are asked"),
        (("consumer", "request", "st-anna", *one, *PURPOSE), "--model"),
        (("consumer", "request", "st-anna", "--model", "lung", *one, *PURPOSE), "no model 'lung'"),
        (("consumer", "request", "st-anna", "--model", "heart", *one, "--purpose", " "), "--purpose"),
        (("consumer", "request", "st-anna", "--model", "heart", *one), "--purpose"),
        (("consumer", "withdraw", "0"), "no request of this consumer"),
        (("consumer", "collect", "99999"), "no request of this consumer"),
        (("consumer", "verify", "clinic/bundles"), ""),
        (("consumer", "verify", "schema.json"), "UNREADABLE"),
    ):
        _, err = shell(*arguments, code=2)
        assert said in err
        assert "Traceback" not in err


def test_a_nonce_for_somebody_who_is_not_on_the_ledger(shell: Shell) -> None:
    made = shell.json("consumer", "nonce")["nonce"]
    assert len(made) == len(shell("consumer", "nonce")[0].strip()) == 64
