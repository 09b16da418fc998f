"""Statements about hidden weights, from a policy file to whoever reads the ledger."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.cli.main import main
from api.client.audit import verify_bundle
from api.client.clinic import Clinic
from api.client.owner import Owner, audit_opening
from api.client.transport import Server
from api.client.weight_policy import VerifiedWeights, verify_weights
from api.entries import Bounded, Model, Reference, Sign, ZeroWeight, decode_entry, sign_entry
from api.submission import check_behind
from ledger import Verifier
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.models.artefact import load_model, save_model
from privacy.models.linear import LinearModel
from privacy.models.network import Dense, Network
from privacy.models.network_artefact import save_any_model
from privacy.models.policy import Rule, WeightPolicy
from privacy.models.schema import Feature, Schema
from privacy.models.statements import load_opening
from privacy.models.weight_statements import HasSign, IsWithin, IsZero
from privacy.zk.group import ORDER
from tests.support.service import RunningServer, listening

SCHEMA = Schema(
    "heart", 1, (Feature("age", "a", 0, 120), Feature("bmi", "kg/m2", 10, 60), Feature("sex", "1", 0, 1, "boolean"))
)
MODEL = LinearModel("heart", np.array([[0.02, 0.1, 0.0]]), np.array([-3.5]), ("disease",), "logit", SCHEMA)
LAYERS = (Dense(np.array([[0.02, 0.1, 0.0]]), np.array([-3.5])), Dense(np.array([[1.5]]), np.array([0.25])))
RULES = """
[[rule]]
feature = "sex"
must = "be zero"

[[rule]]
feature = "age"
must = "not decrease the answer"

[[rule]]
feature = "bmi"
must = "stay within"
at_most = 2.5
"""
STRICTER = RULES.replace("2.5", "2.49")
SAYS = (
    "the weight of 'sex' in 'disease' is zero",
    "the weight of 'age' in 'disease' is not negative, so more of it never lowers the answer",
    "the weight of 'bmi' in 'disease' is at most 2.5 in magnitude, per half the range of the feature (25 kg/m2)",
)
CSV = "id,age,bmi,sex\np-1,40,22.5,0\np-2,71,31,1\n"


@dataclass(frozen=True)
class Shell:
    """Commands in one folder, in this process, against a running server."""

    folder: Path
    server: RunningServer

    def __call__(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        before, out, err = Path.cwd(), StringIO(), StringIO()
        with pytest.MonkeyPatch.context() as patch:
            os.chdir(self.folder)
            patch.setattr("sys.argv", ["sealproof", *arguments])
            patch.setenv("SEALPROOF_HOME", str(self.folder / "home"))
            patch.setattr("sys.stdout", out)
            patch.setattr("sys.stderr", err)
            try:
                with pytest.raises(SystemExit) as ended:
                    main()
            finally:
                os.chdir(before)
        assert ended.value.code == code, (arguments, out.getvalue(), err.getvalue())
        return out.getvalue(), err.getvalue()

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code)[0])

    @property
    def anybody(self) -> tuple[str, ...]:
        return "--server", self.server.url, "--log-key", "log.vkey"

    @property
    def size(self) -> int:
        return int(Server(self.server.url).checkpoint().split(b"\n")[1])


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A server with one model, published with a policy, and one without."""
    pytest.importorskip("zksk")
    folder = tmp_path_factory.mktemp("policy")
    save_model(MODEL, folder / "heart.json")
    save_any_model(Network("net", LAYERS, ("disease",), "logit", SCHEMA), folder / "net.json")
    (folder / "schema.json").write_bytes(SCHEMA.encode_json())
    (folder / "rules.toml").write_text(RULES)
    (folder / "stricter.toml").write_text(STRICTER)
    (folder / "patients.csv").write_text(CSV)
    with listening(folder / "server") as server:
        (folder / "log.vkey").write_text(server.log_key + "\n")
        run = Shell(folder, server)
        run("model", "init", "heart-lab", *run.anybody)
        run("model", "publish", "heart.json", "--schema", "schema.json", "--policy", "rules.toml")
        run("model", "publish", "heart.json", "--schema", "schema.json", "--version", "plain")
        yield run


@pytest.fixture(scope="module")
def published(shell: Shell) -> Model:
    with Owner.open(shell.folder / "owner") as owner:
        body = owner.session.model("heart 1").body
    assert isinstance(body, Model)
    return body


# -- the owner, before publishing -------------------------------------------------------------------------------------


def test_a_model_file_is_compared_with_a_policy_before_anything_is_sent(shell: Shell) -> None:
    size = shell.size
    file = ("--model-file", "heart.json", "--schema", "schema.json")
    found = shell.json("model", "policy", "rules.toml", *file)
    assert found["satisfied"] and [row["state"] for row in found["rules"]] == ["satisfied"] * 3
    assert "all 3 are true" in shell("model", "policy", "rules.toml", *file)[0]
    found = shell.json("model", "policy", "stricter.toml", *file, code=1)
    assert [row["state"] for row in found["rules"]] == ["satisfied", "satisfied", "broken"]
    out, _ = shell("model", "policy", "stricter.toml", *file, code=1)
    assert "1 of 3 not true" in out and "rule 3   broken" in out
    assert shell.size == size


def test_a_policy_that_the_model_breaks_is_refused_without_a_trace(shell: Shell) -> None:
    size, folders = shell.size, set((shell.folder / "owner" / "models").iterdir())
    publish = ("model", "publish", "heart.json", "--schema", "schema.json", "--version", "9")
    _, err = shell(*publish, "--policy", "stricter.toml", code=2)
    assert "nothing was sent" in err and "rule 3" in err and "'bmi'" in err
    assert "rule 1" not in err and "0.1" not in err
    assert (shell.size, set((shell.folder / "owner" / "models").iterdir())) == (size, folders)


def test_publishing_again_with_the_same_policy_finds_the_same_entry(shell: Shell, published: Model) -> None:
    size = shell.size
    publish = ("model", "publish", "heart.json", "--schema", "schema.json")
    assert shell.json(*publish, "--policy", "rules.toml")["model"] == 2
    assert "--policy" in shell("model", "publish", "--help")[0]
    _, err = shell(*publish, code=2)
    assert "with other settings" in err
    assert shell.size == size


def test_a_network_has_no_policy(shell: Shell) -> None:
    publish = ("model", "publish", "net.json", "--schema", "schema.json")
    _, err = shell(*publish, "--policy", "rules.toml", code=2)
    assert "nothing can be proven of single weights of a network" in err
    together = ("model", "publish", "heart.json", "--schema", "schema.json", "--scheme", "mpc")
    _, err = shell(*together, "--policy", "rules.toml", code=2)
    assert "linear models with scheme ckks" in err
    _, err = shell("model", "policy", "rules.toml", "--model-file", "net.json", code=2)
    assert "is a network" in err
    shell(*publish, "--weight-range-bits", "4", "--weight-range-bits", "2", "--bias-range-bits", "8")
    for where in ((), shell.anybody):
        _, err = shell("model", "policy", "rules.toml", "--model", "net", *where, code=2)
        assert "is a network" in err


# -- anybody, after publishing ----------------------------------------------------------------------------------------


def test_the_entry_states_what_the_policy_demands(published: Model) -> None:
    stated = [(type(s), s.stated) for s in published.statements]
    assert stated == [
        (ZeroWeight, IsZero(0, 2)),
        (Sign, HasSign(0, 0, "non-negative")),
        (Bounded, IsWithin(0, 1, 5 << 23)),
    ]


@pytest.mark.parametrize("where", ["owner", "anybody"])
def test_a_published_model_is_compared_with_a_policy(shell: Shell, where: str) -> None:
    how = shell.anybody if where == "anybody" else ()
    found = shell.json("model", "policy", "rules.toml", "--model", "heart 1", *how)
    assert (found["satisfied"], found["entry"], found["model"]) == (True, 2, "heart 1")
    assert [row["proven"] for row in found["rules"]] == [[words] for words in SAYS]
    out, _ = shell("model", "policy", "rules.toml", "--model", "heart 1", *how)
    assert "all 3 are proven by ledger entry 2" in out and SAYS[1] in out
    found = shell.json("model", "policy", "stricter.toml", "--model", "heart 1", *how, code=1)
    assert [row["state"] for row in found["rules"]] == ["satisfied", "satisfied", "missing"]


def test_a_model_of_which_nothing_is_proven_satisfies_no_rule(shell: Shell) -> None:
    """Its weights are the same; what is not proven does not count."""
    found = shell.json("model", "policy", "rules.toml", "--model", "heart plain", *shell.anybody, code=1)
    assert {row["state"] for row in found["rules"]} == {"missing"}
    assert "3 of 3 not proven" in shell("model", "policy", "rules.toml", "-m", "heart plain", *shell.anybody, code=1)[0]


def test_a_revoked_model_satisfies_nothing(shell: Shell) -> None:
    publish = ("model", "publish", "heart.json", "--schema", "schema.json", "--version", "gone")
    index = shell.json(*publish, "--policy", "rules.toml")["model"]
    shell("model", "revoke", "--model", "heart gone", "--reason", "wrong")
    shell("model", "policy", "rules.toml", "--model", str(index), *shell.anybody, code=1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rules.toml"], "--model-file"),
        (["rules.toml", "--model", "heart", "--model-file", "heart.json"], "--model-file"),
        (["--model-file", "heart.json"], "compared with a policy"),
        (["rules.toml", "--model-file", "heart.json", "--server", "http://localhost"], "--server and --log-key"),
        (["rules.toml", "--model", "heart", "--schema", "schema.json"], "go with --model-file"),
        (["rules.toml", "--model", "heart", "--log-key", "log.vkey"], "--log-key goes with --server"),
        (["--model", "heart", "--server", "http://localhost"], "give the file"),
        (["absent.toml", "--model", "heart"], "cannot read"),
        (["patients.csv", "--model", "heart"], "not TOML"),
    ],
)
def test_mistakes_are_told_in_one_line(shell: Shell, arguments: list[str], said: str) -> None:
    _, err = shell("model", "policy", *arguments, code=2)
    assert said in err and "Traceback" not in err


def test_what_is_proven_is_shown_with_the_model(shell: Shell) -> None:
    (row,) = shell.json("model", "policy", "--model", "heart 1")
    assert row["statements"] == list(SAYS)
    assert SAYS[2] in shell("model", "policy", "--model", "heart 1")[0]
    import httpx

    detail = httpx.get(f"{shell.server.url}/v1/models/2").json()
    assert [s["says"] for s in detail["statements"]] == list(SAYS)
    assert [(s["type"], s["direction"], s["bound"]) for s in detail["statements"]] == [
        ("zero-weight", None, None),
        ("sign", "non-negative", None),
        ("bounded", None, str(5 << 23)),
    ]
    assert detail["zero_weights"] == [{"output": 0, "feature": 2}]
    assert httpx.get(f"{shell.server.url}/v1/models/3").json()["statements"] == []


# -- the auditor ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(shell: Shell) -> Path:
    with Clinic.init(shell.folder / "clinic", shell.server.url, "st-anna", log_key=shell.server.log_key) as clinic:
        records = clinic.submit(shell.folder / "patients.csv", model="heart 1")
        request = clinic.request(records, "heart 1")
        return clinic.fetch(request, shell.folder / "b.sealproof", inputs=True, timeout=120)


def test_verify_says_in_words_what_is_proven_of_the_weights(shell: Shell, bundle: Path) -> None:
    found = shell.json("verify", bundle.name, "--log-key", "log.vkey", "--no-cache")
    (shown,) = (check["shows"] for check in found["checks"] if check["name"] == "certificates")
    assert shown.endswith(f"Proven of single weights: {'; '.join(SAYS)}.")
    verified = verify_bundle(bundle, Verifier.parse(shell.server.log_key))
    assert [s.stated for s in verified.model.body.statements][1:] == [  # type: ignore[union-attr]
        HasSign(0, 0, "non-negative"),
        IsWithin(0, 1, 5 << 23),
    ]


@pytest.fixture(scope="module")
def blobs(shell: Shell, published: Model) -> dict[bytes, bytes]:
    server = Server(shell.server.url)
    digests = [published.schema, published.certificate, *(s.proof for s in published.statements)]
    return {digest: server.blob(digest) for digest in digests}


class Blobs:
    """As much of a blob store as `check_behind` asks for."""

    def __init__(self, held: dict[bytes, bytes]) -> None:
        self.get = held.__getitem__


def lies(model: Model) -> dict[str, Model]:
    zero, sign, bounded = model.statements
    assert isinstance(sign, Sign) and isinstance(bounded, Bounded)

    def stating(*statements: Any) -> Model:
        return replace(model, statements=statements)

    return {
        "another direction": stating(replace(sign, direction="non-positive")),
        "another feature": stating(replace(sign, feature=1)),
        "a smaller bound": stating(replace(bounded, bound=bounded.bound - 1)),
        "a larger bound": stating(replace(bounded, bound=bounded.bound + 1)),
        "a bound that says nothing": stating(replace(bounded, bound=1 << 60)),
        "the bias": stating(replace(sign, feature=3)),
        "the proof of another statement": stating(replace(sign, proof=zero.proof)),
        "two exchanged proofs": stating(replace(sign, proof=bounded.proof), replace(bounded, proof=sign.proof)),
        "a zero with the proof of a sign": stating(replace(zero, proof=sign.proof)),
        "another version": replace(model, version="2"),
    }


LIES = [
    "another direction",
    "another feature",
    "a smaller bound",
    "a larger bound",
    "a bound that says nothing",
    "the bias",
    "the proof of another statement",
    "two exchanged proofs",
    "a zero with the proof of a sign",
    "another version",
]


@pytest.mark.parametrize("name", LIES)
def test_server_and_reader_refuse_an_entry_that_states_what_its_proofs_do_not_prove(
    published: Model, blobs: dict[bytes, bytes], name: str
) -> None:
    check_behind(published, Blobs(blobs))  # type: ignore[arg-type]
    verify_weights(published, blobs.__getitem__)
    lie = lies(published)[name]
    with pytest.raises((VerificationFailed, DecodeError)):
        check_behind(lie, Blobs(blobs))  # type: ignore[arg-type]
    with pytest.raises((VerificationFailed, DecodeError)):
        verify_weights(lie, blobs.__getitem__)


def test_verified_weights_are_made_by_verification_only(published: Model, blobs: dict[bytes, bytes]) -> None:
    found = verify_weights(published, blobs.__getitem__)
    assert all(v.satisfied for v in found.verdicts(WeightPolicy((Rule("sex", "not decrease the answer"),))))
    with pytest.raises(UsageError):
        VerifiedWeights(found.model, found.proven, object())


# -- entries ----------------------------------------------------------------------------------------------------------

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def test_entries_with_zero_weights_have_the_bytes_that_they_always_had(published: Model) -> None:
    body = replace(published, statements=(ZeroWeight("zero-weight", 0, 2, bytes(32)),))
    data = sign_entry(body, Reference(1, bytes(32)), KEY)
    expected = '"statements":[{"feature":2,"output":0,"proof":"' + "00" * 32 + '","type":"zero-weight"}]'
    assert expected.encode() in data
    assert decode_entry(data).body == body


def test_new_statements_have_one_encoding(published: Model) -> None:
    data = sign_entry(published, Reference(1, bytes(32)), KEY)
    assert decode_entry(data).body == published
    assert b'{"direction":"non-negative","feature":0,"output":0,"proof":' in data
    assert b'{"bound":"41943040","feature":1,"output":0,"proof":' in data
    for old, new in (
        (b'"bound":"41943040"', b'"bound":41943040'),
        (b'"bound":"41943040"', b'"bound":"041943040"'),
        (b'"bound":"41943040"', b'"bound":"0"'),
        (b'"bound":"41943040"', b'"bound":"-5"'),
        (b'"direction":"non-negative"', b'"direction":"upwards"'),
        (b'"direction":"non-negative",', b""),
        (b'"type":"sign"', b'"type":"bounded"'),
        (b'"type":"sign"', b'"type":"zero-weight"'),
        (b'"type":"sign"', b'"type":"other"'),
    ):
        assert old in data
        with pytest.raises(DecodeError):
            decode_entry(data.replace(old, new, 1))


# -- the opening to an auditor ----------------------------------------------------------------------------------------


def test_float_file_rule_and_blindings_reproduce_the_published_commitment(shell: Shell, published: Model) -> None:
    with Owner.open(shell.folder / "owner") as owner:
        found = owner.audit("heart 1")
        located = owner.session.model("heart 1")
    assert found.artefact_digest == sha256((shell.folder / "heart.json").read_bytes()).digest()
    (folder,) = (
        path
        for path in (shell.folder / "owner" / "models").iterdir()
        if (path / "model.reference.json").read_bytes().startswith(b'{"index":2,')
    )
    model, opening, salt = (
        load_model(folder / "model.json"),
        load_opening(folder / "opening.json"),
        (folder / "salt").read_bytes(),
    )
    audit_opening(located, model, opening, salt)  # type: ignore[arg-type]
    auditor = shell.json("model", "audit", "--model", "heart 1", "--opened", str(folder), *shell.anybody)
    assert auditor["artefact"] == found.artefact_digest.hex()
    shell("model", "audit", "--model", "heart plain", "--opened", str(folder), *shell.anybody, code=1)
    shell("model", "audit", "--model", "heart 1", "--opened", str(folder), code=2)
    step = 2.0**-24 / 25
    (output,) = opening.outputs
    changed: list[tuple[Any, Any, Any, str]] = [
        (replace(model, weights=model.weights + np.array([[0, step, 0]])), opening, salt, "model.opening"),
        (replace(model, bias=model.bias + 2.0**-40), opening, salt, "model.opening"),
        (model, replace(opening, outputs=(replace(output, rho=(output.rho + 1) % ORDER),)), salt, "model.opening"),
        # Zero with a sign is another file and the same integer.
        (replace(model, weights=model.weights * np.array([[1, 1, -1]])), opening, salt, "model.artefact"),
        (model, opening, bytes(16), "model.artefact"),
    ]
    for *opened, check in changed:
        with pytest.raises(VerificationFailed) as refusal:
            audit_opening(located, *opened)  # type: ignore[arg-type]
        assert refusal.value.check == check


def test_another_quantisation_rule_does_not_open_the_published_commitment(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounding up instead of to the nearest: other integers, and so another C_W."""
    monkeypatch.setattr("privacy.models.quantise.round", lambda value: value.__ceil__(), raising=False)
    with Owner.open(shell.folder / "owner") as owner, pytest.raises(VerificationFailed) as refusal:
        owner.audit("heart 1")
    assert refusal.value.check == "model.opening"
