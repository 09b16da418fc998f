"""A committee's files, keys and signatures, the trial's contract compared with its terms, and the commands."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.binding import Located
from api.cli.main import main
from api.client.committee import Member
from api.client.enrolment import CASE, MEMBER, SHARE, SIGNED, TERMS, Enrolment, TrialTerms, combine
from api.client.trial_model import trial_threshold
from privacy.ckks.params import parameter_set
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.models.network import Dense, Network
from privacy.zk.bls import REFERENCE_PAIRING
from tests.support import disclosures, trials
from tests.support.anvil import KEYS
from tests.support.bundles import ORIGIN as LOG
from tests.support.bundles import SCHEMA, model_material
from tests.support.joint_bundles import network_material
from tests.support.service import listening
from tests.support.trials import case_of, enrolment_of, member, share_of, sign, terms_of

TERMS_OF_3 = terms_of()
NONCE = case_of(TERMS_OF_3).nonce
BODY = enrolment_of(TERMS_OF_3, 1, NONCE)
FILES = {
    "member": (MEMBER, member(0)),
    "terms": (TERMS, TERMS_OF_3),
    "case": (CASE, case_of(TERMS_OF_3, 3, bytes([7] * 32))),
    "share": (SHARE, share_of(BODY, 1)),
    "signed": (SIGNED, sign(TERMS_OF_3, BODY, [0, 2])),
}


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_files_round_trip_in_one_spelling(name: str) -> None:
    codec, value = FILES[name]
    data = codec.encode(value)
    assert codec.decode(data) == value
    for wrong in (data + b"\n", b" " + data, data.replace(b'"format"', b'"format" '), data[:-1], b"", b"[]", b"{}"):
        with pytest.raises(DecodeError):
            codec.decode(wrong)
    document = json.loads(data)
    for key in document:
        less = {name: value for name, value in document.items() if name != key}
        for other in (less, {**document, "more": 1}, {**document, key: None}):
            with pytest.raises(DecodeError):
                codec.decode(json.dumps(other, separators=(",", ":"), sort_keys=True).encode())


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.data())
def test_a_changed_byte_is_refused_or_another_value(name: str, data: Any) -> None:
    codec, value = FILES[name]
    raw = bytearray(codec.encode(value))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != raw[place]))
    with contextlib.suppress(DecodeError):
        assert codec.decode(bytes(raw)) != value


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"quorum": 4}, "never reached"),
        ({"members": (member(0), member(0))}, "two members"),
        ({"members": (member(0), replace(member(0), name="another"))}, "two members"),
        ({"threshold": 1 << 62}, "threshold"),
        ({"threshold": -(1 << 62)}, "threshold"),
    ],
)
def test_terms_that_no_contract_has_are_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        replace(TERMS_OF_3, **change)


def test_files_with_senseless_numbers_are_refused() -> None:
    data = TERMS.encode(TERMS_OF_3)
    for old, new in (
        (b'"quorum":2', b'"quorum":0'),
        (b'"quorum":2', b'"quorum":4'),
        (b'"output":0', b'"output":-1'),
        (b'"threshold":"-5"', b'"threshold":-5'),
        (b'"threshold":"-5"', b'"threshold":"-05"'),
        (b'"chain":31337', b'"chain":0'),
        (b'"format":"sealproof/trial-terms/v1"', b'"format":"sealproof/trial-terms/v2"'),
    ):
        assert old in data
        with pytest.raises(DecodeError):
            TERMS.decode(data.replace(old, new))
    with pytest.raises(DecodeError):
        TERMS.decode(data.replace(b'"members":[', b'"members":[' + b",".join([MEMBER.encode(member(0))] * 65) + b","))
    signed = SIGNED.encode(FILES["signed"][1])
    assert b'"members":[0,2]' in signed
    for order in (b"[2,0]", b"[0,0,2]", b"[0,0]", b"[]", b"[-1,2]"):
        with pytest.raises(DecodeError):
            SIGNED.decode(signed.replace(b"[0,2]", order))


# -- digests ----------------------------------------------------------------------------------------------------------

OTHER_TERMS = {
    "chain": 1,
    "contract": bytes(20),
    "origin": "another.example/log",
    "model": replace(trials.MODEL, leaf=bytes(32)),
    "output": 1,
    "threshold": -6,
    "quorum": 3,
    "members": (member(0), member(1), member(3)),
}


def test_the_digest_of_a_trial_holds_every_term() -> None:
    assert {field.name for field in fields(TrialTerms)} == {*OTHER_TERMS, "format"}
    digests = {replace(TERMS_OF_3, **{name: value}).digest for name, value in OTHER_TERMS.items()}
    digests |= {replace(TERMS_OF_3, members=TERMS_OF_3.members[::-1]).digest, TERMS_OF_3.digest}
    digests |= {replace(TERMS_OF_3, members=(*TERMS_OF_3.members, member(3))).digest}
    digests |= {replace(TERMS_OF_3, model=replace(trials.MODEL, index=8)).digest}
    assert len(digests) == len(OTHER_TERMS) + 4
    renamed = replace(TERMS_OF_3, members=tuple(replace(m, name="x" + m.name) for m in TERMS_OF_3.members))
    assert renamed.digest == TERMS_OF_3.digest  # names are for people; the contract knows keys


def test_what_is_signed_holds_every_field_and_fields_have_one_width() -> None:
    names = [field.name for field in fields(Enrolment)]
    messages = {replace(BODY, **{name: sha256(f"other {name}".encode()).digest()}).message for name in names}
    assert len(messages | {BODY.message}) == len(names) + 1
    for name in names:
        for width in (0, 31, 33, 64):
            with pytest.raises(UsageError, match="32 bytes"):
                _ = replace(BODY, **{name: bytes(width)}).message
    # The same bytes, split at another place, are no other enrolment.
    with pytest.raises(UsageError):
        _ = replace(BODY, prediction=BODY.prediction + BODY.disclosure[:1], disclosure=BODY.disclosure[1:]).message
    with pytest.raises(UsageError, match="20 bytes"):
        _ = replace(TERMS_OF_3, contract=bytes(21)).digest


def test_a_nonce_and_a_handle_are_of_one_trial() -> None:
    other = replace(TERMS_OF_3, chain=1)
    assert len({case_of(t, n, b).nonce for t in (TERMS_OF_3, other) for n in (0, 1) for b in (bytes(32), NONCE)}) == 8
    assert TERMS_OF_3.handle(NONCE) != other.handle(NONCE) != NONCE


# -- keys -------------------------------------------------------------------------------------------------------------


def test_a_member_keeps_a_private_key_and_gives_a_public_file(tmp_path: Path) -> None:
    made = Member.create(tmp_path / "dr-b", "dr-b")
    for path in (tmp_path / "dr-b").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "dr-b").stat().st_mode) == 0o700
    secret = (tmp_path / "dr-b" / "committee.key").read_text().split()[1]
    assert secret not in repr(made)
    assert secret not in MEMBER.encode(made.public).decode()
    made.public.proven()
    made.public.proven(REFERENCE_PAIRING)
    assert Member.create(tmp_path / "dr-b", "dr-b").public == Member.load(tmp_path / "dr-b").public == made.public
    with pytest.raises(UsageError, match="belongs to the member 'dr-b'"):
        Member.create(tmp_path / "dr-b", "dr-c")
    with pytest.raises(UsageError, match="not pickled"):
        pickle.dumps(made)


def test_a_folder_that_is_not_a_members_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder of a committee member"):
        Member.load(tmp_path / "nowhere")
    made = Member.create(tmp_path / "a", "dr-a")
    other = Member.create(tmp_path / "b", "dr-b")
    key = tmp_path / "a" / "committee.key"
    original = key.read_bytes()
    for wrong in (b"", original[:-1], original + b"\n", original.upper(), original.replace(b"v1", b"v2")):
        key.write_bytes(wrong)
        with pytest.raises(DecodeError, match="committee key"):
            Member.load(tmp_path / "a")
    key.write_bytes(original.split()[0] + b" " + b"0" * 64 + b"\n")
    with pytest.raises(DecodeError, match="secret key"):
        Member.load(tmp_path / "a")
    key.write_bytes((tmp_path / "b" / "committee.key").read_bytes())
    with pytest.raises(UsageError, match="not about the key"):
        Member.load(tmp_path / "a")
    key.write_bytes(original)
    key.chmod(0o644)
    with pytest.raises(UsageError, match="accessible to others"):
        Member.load(tmp_path / "a")
    assert made.public.key != other.public.key


# -- signatures -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_shares_of_a_quorum_become_one_signature_in_any_order_and_any_number_of_times() -> None:
    shares = [share_of(BODY, place) for place in (2, 0, 2)]
    signed = combine(TERMS_OF_3, shares)
    assert (signed.members, signed.bitmap) == ((0, 2), 0b101)
    assert signed == combine(TERMS_OF_3, shares[:2][::-1])
    signed.verify(TERMS_OF_3, REFERENCE_PAIRING)
    assert combine(TERMS_OF_3, [share_of(BODY, place) for place in range(3)]).bitmap == 0b111


def test_shares_that_make_no_signature_are_named() -> None:
    with pytest.raises(UsageError, match="no share"):
        combine(TERMS_OF_3, [])
    with pytest.raises(UsageError, match="1 members signed, 2 are needed"):
        combine(TERMS_OF_3, [share_of(BODY, 0), share_of(BODY, 0)])
    with pytest.raises(UsageError, match="different enrolments"):
        combine(TERMS_OF_3, [share_of(BODY, 0), share_of(enrolment_of(TERMS_OF_3, 2, NONCE), 1)])
    forged = replace(share_of(BODY, 0), member=1)
    with pytest.raises(VerificationFailed, match=r"bls\.signature: share of member 1"):
        combine(TERMS_OF_3, [share_of(BODY, 0), forged])
    with pytest.raises(VerificationFailed, match=r"enrolment\.member"):
        combine(TERMS_OF_3, [replace(forged, member=3)])
    with pytest.raises(VerificationFailed, match=r"enrolment\.trial"):
        combine(replace(TERMS_OF_3, chain=1), [share_of(BODY, 0), share_of(BODY, 1)])
    with pytest.raises(DecodeError, match="signature"):
        combine(TERMS_OF_3, [replace(forged, signature=bytes(48))])


def test_a_signed_enrolment_is_verified_as_the_contract_does() -> None:
    signed = sign(TERMS_OF_3, BODY, [0, 1])
    for change, check in (
        ({"members": (0,)}, "enrolment.quorum"),
        ({"members": (0, 2)}, "bls.signature"),
        ({"members": (0, 1, 2)}, "bls.signature"),
        ({"members": (0, 3)}, "enrolment.member"),
        ({"enrolment": replace(BODY, trial=bytes(32))}, "enrolment.trial"),
        ({"enrolment": replace(BODY, handle=bytes(32))}, "bls.signature"),
    ):
        with pytest.raises(VerificationFailed) as caught:
            replace(signed, **change).verify(TERMS_OF_3)
        assert caught.value.check == check
    unproved = replace(TERMS_OF_3.members[1], possession=member(0).possession)
    with pytest.raises(VerificationFailed, match=r"bls\.possession"):
        signed.verify(replace(TERMS_OF_3, members=(member(0), unproved, member(2))))


def test_a_threshold_is_rounded_up_to_the_grid_of_its_model() -> None:
    network = located(network_material("linear").body())
    assert (network.body.link, network.body.grid_bits) == ("logit", 6)
    assert trial_threshold(network, None, 0.5) == (0, 0)
    assert trial_threshold(network, "y0", 0.7) == (0, 55)  # log(0.7 / 0.3) * 64 = 54.2
    many = located(network_material("two").body())
    assert trial_threshold(many, "y1", -0.01) == (1, 0)
    with pytest.raises(UsageError, match="there is y0, y1"):
        trial_threshold(many, "y2", 0.5)
    with pytest.raises(UsageError):
        trial_threshold(network, None, 1.5)
    with pytest.raises(UsageError, match="not known here: 'unheard-of'"):
        trial_threshold(located(replace(network.body, link="unheard-of")), None, 0.5)
    with pytest.raises(UsageError, match="no answer of this model reaches"):
        trial_threshold(many, None, 2.0**40)


def test_a_threshold_of_a_model_for_encrypted_records_is_one_of_its_grid() -> None:
    model = located(model_material().body())
    assert trial_threshold(model, None, 0.7) == (0, 55)
    raw = located(model_material(((0.02, 0.01, 0.9), (-0.01, 0.03, -0.5))).body())
    half = parameter_set("linear-4096").Q // 2 / 2**58
    assert trial_threshold(raw, "y1", half - 1)[1] == int((half - 1) * 64) + 1
    for beyond in (half + 1, -half - 1):
        with pytest.raises(UsageError, match="no answer of this model reaches"):
            trial_threshold(raw, None, beyond)
    softmax = located(replace(raw.body, outputs=tuple(replace(o, link="softmax") for o in raw.body.outputs)))
    with pytest.raises(UsageError, match="softmax"):
        trial_threshold(softmax, None, 0.5)


def located(body: Any) -> Any:
    return Located(trials.MODEL, body)


def test_a_member_needs_no_library_for_chains() -> None:
    code = (
        "import sys\n"
        "for name in ('web3', 'eth_account', 'requests', 'vyper', 'tenseal', 'torch'): sys.modules[name] = None\n"
        "import api.cli.committee, api.client.committee\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


# -- terms and contract -----------------------------------------------------------------------------------------------


def begin(chain: Any, **changes: Any) -> Any:
    from api.chain.trial import create_trial

    values: dict[str, Any] = {
        "origin": trials.ORIGIN,
        "model": trials.MODEL,
        "output": 0,
        "threshold": trials.THRESHOLD,
        "quorum": 2,
        "members": TERMS_OF_3.members,
    }
    return create_trial(chain, **{**values, **changes})


def test_a_trial_is_made_from_terms_and_every_difference_is_noticed(chain: Any) -> None:
    from api.chain.trial import enrol, issue, open_trial

    heard: list[str] = []
    terms, contract = begin(chain, told=lambda what, receipt: heard.append(what))
    assert len(heard) == 1 + 3 + 1
    assert contract.state().trial == terms.digest
    case = issue(contract, terms)
    body = enrolment_of(terms, 1, case.nonce)
    signed = sign(terms, body, [0, 1])
    with pytest.raises(VerificationFailed, match=r"bls\.signature"):
        enrol(contract, terms, replace(signed, members=(0, 2)))
    enrol(contract, terms, signed)
    assert open_trial(chain, terms).is_enrolled(body.handle)
    for change in (
        {"origin": "another.example"},
        {"model": replace(trials.MODEL, index=8)},
        {"output": 1},
        {"threshold": 0},
        {"quorum": 1},
    ):
        with pytest.raises(VerificationFailed, match=r"trial\.terms"):
            open_trial(chain, replace(terms, **change))
    for members in (terms.members[::-1], terms.members[:2], (*terms.members, member(3)), (member(3), *terms.members)):
        with pytest.raises(VerificationFailed, match=r"trial\.committee"):
            open_trial(chain, replace(terms, members=members))
    with pytest.raises(VerificationFailed, match=r"trial\.chain"):
        open_trial(chain, replace(terms, chain=1))
    with pytest.raises(VerificationFailed, match=r"bls\.possession"):
        bad = replace(terms.members[0], possession=member(1).possession)
        open_trial(chain, replace(terms, members=(bad, *terms.members[1:])))


def test_a_trial_that_was_interrupted_is_finished_and_no_other(chain: Any) -> None:
    from api.chain.trial import open_trial

    contract = trials.deploy(chain)
    trials.add(contract, member(0))
    half = terms_of(bytes.fromhex(contract.address[2:]), chain.chain_id, 2)
    trials.add(contract, member(1))
    with pytest.raises(VerificationFailed, match=r"trial\.unsealed"):
        open_trial(chain, half)
    with pytest.raises(VerificationFailed, match=r"trial\.terms"):
        begin(chain, address=contract.address, threshold=7)
    with pytest.raises(VerificationFailed, match=r"trial\.committee"):
        begin(chain, address=contract.address, members=TERMS_OF_3.members[::-1])
    heard: list[str] = []
    terms, _ = begin(chain, address=contract.address, told=lambda what, receipt: heard.append(what))
    assert heard == ["member member-2 added", "committee sealed"]
    assert terms.contract.hex() == contract.address[2:].lower()
    assert begin(chain, address=contract.address)[0] == terms


def test_nothing_is_paid_for_a_key_without_its_proof(chain: Any) -> None:
    before = chain.block_number()
    bad = replace(member(0), possession=member(1).possession)
    with pytest.raises(VerificationFailed, match=r"bls\.possession"):
        begin(chain, members=(bad, member(1)))
    with pytest.raises(UsageError, match="never reached"):
        begin(chain, quorum=9)
    assert chain.block_number() == before


def test_a_node_that_shows_another_nonce_is_noticed(chain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from api.chain.trial import issue

    trial = trials.make_trial(chain)
    honest = trial.contract.issue
    monkeypatch.setattr(trial.contract, "issue", lambda blinding: (5, *honest(blinding)[1:]))
    with pytest.raises(VerificationFailed, match=r"trial\.nonce"):
        issue(trial.contract, trial.terms)


# -- commands ---------------------------------------------------------------------------------------------------------


class Shell:
    """Runs commands in one folder, in this process."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, rpc: str) -> None:
        self.folder, self._patch = folder, monkeypatch
        self.chain = ("--rpc", rpc, "--key", "payer.key")
        monkeypatch.chdir(folder)
        monkeypatch.setenv("SEALPROOF_HOME", str(folder / "home"))

    def __call__(self, *arguments: str, code: int = 0) -> str:
        out, err = io.StringIO(), io.StringIO()
        with self._patch.context() as patch:
            patch.setattr("sys.argv", ["sealproof", "committee", *arguments])
            patch.setattr("sys.stdout", out)
            patch.setattr("sys.stderr", err)
            with pytest.raises(SystemExit) as ended:
                main()
        assert ended.value.code == code, (arguments, out.getvalue(), err.getvalue())
        return out.getvalue() + (err.getvalue() if code else "")

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anvil: Any, chain: Any) -> Iterator[Shell]:
    (tmp_path / "payer.key").write_text(KEYS[0] + "\n")
    (tmp_path / "payer.key").chmod(0o600)
    yield Shell(tmp_path, monkeypatch, anvil.rpc)


def make_members(shell: Shell, *names: str) -> list[str]:
    for name in names:
        shell("member", name, "--folder", name, "--save", f"{name}.member")
    return [f"{name}.member" for name in names]


@pytest.mark.slow
def test_a_patient_is_enrolled_by_commands(shell: Shell, chain: Any) -> None:
    told = disclosures.tell(shell.folder)
    files = make_members(shell, "dr-a", "dr-b", "dr-c")
    members = tuple(MEMBER.decode(Path(path).read_bytes()) for path in files)
    reached = told.opening(1).z // told.step
    terms, _ = begin(chain, origin=LOG, model=told.story.model.reference, threshold=reached, members=members)
    Path("trial.json").write_bytes(TERMS.encode(terms))
    issued = shell.json("nonce", "--trial", "trial.json", *shell.chain, "--save", "case.json")
    assert issued["case"] == 0
    nonce = bytes.fromhex(issued["nonce"])
    told.disclose(
        shell.folder / "p.sealproof", told.statement(1, "threshold", threshold=reached, recipient_nonce=nonce)
    )
    Path("log.vkey").write_text(str(told.story.world.verifier) + "\n")
    about = ("p.sealproof", "--trial", "trial.json", "--case", "case.json", "--log-key", "log.vkey", "--no-cache")
    text = shell("sign", *about, "--folder", "dr-a", "--save", "dr-a.share")
    assert "VERIFIED: y0 of record 'p-71' is at least" in text
    assert "no server was asked" in text
    found = shell.json("sign", *about, "--folder", "dr-c", "--save", "dr-c.share")
    assert (found["member"], found["checks"][-1]["name"], found["clinic"]) == (2, "disclosure", "st-anna")
    assert found["probability"].startswith("of at least 0.")
    shell("combine", "dr-a.share", "--trial", "trial.json", "--save", "p.enrolment", code=2)
    combined = shell.json("combine", "dr-a.share", "dr-c.share", "--trial", "trial.json", "--save", "p.enrolment")
    assert combined["members"] == [0, 2]
    enrolled = shell.json("enrol", "p.enrolment", "--trial", "trial.json", *shell.chain)
    assert enrolled["handle"] == combined["handle"]
    assert "spent" in shell("enrol", "p.enrolment", "--trial", "trial.json", *shell.chain, code=1)
    status = shell.json("status", "--trial", "trial.json", *shell.chain[:2])
    assert (status["cases"], [one["handle"] for one in status["enrolled"]]) == (1, [enrolled["handle"]])
    assert "by dr-a, dr-c" in shell("status", "--trial", "trial.json", *shell.chain[:2])

    # What is refused is refused with the documented code, and nothing is written.
    low = told.statement(1, "threshold", threshold=reached - 1, recipient_nonce=nonce)
    told.disclose(shell.folder / "low.sealproof", low)
    text = shell("sign", "low.sealproof", *about[1:], "--folder", "dr-b", "--save", "low.share", code=1)
    assert "enrolment.threshold" in text
    assert not Path("low.share").exists()
    Path("case.json").write_text("{}")
    assert "trial case" in shell("sign", *about, "--folder", "dr-b", "--save", "low.share", code=2)
    Path("trial.json").write_bytes(TERMS.encode(replace(terms, threshold=0)))
    assert "another threshold" in shell("status", "--trial", "trial.json", *shell.chain[:2], code=1)
    assert "127.0.0.1" in shell("status", "--trial", "trial.json", "--rpc", "http://127.0.0.1:1", code=3)


@pytest.mark.slow
def test_a_trial_about_a_published_network_is_made_by_commands(shell: Shell, chain: Any) -> None:
    from api.client.owner import Owner

    layers = (Dense(np.array([[0.02, -0.05, 0.9]]), np.array([-0.25])),)
    files = make_members(shell, "dr-a", "dr-b")
    with listening(shell.folder / "server") as server:
        Path("log.vkey").write_text(server.log_key + "\n")
        owner = Owner.init(shell.folder / "owner", server.url, "heart-lab", log_key=server.log_key)
        network = Network("heart", layers, ("disease",), "logit", SCHEMA)
        published = owner.publish(network, version="1", scheme="mpc")
        asked = ("--model", "heart", "--at-least", "0.7", "--server", server.url, "--log-key", "log.vkey")
        made = shell.json("init", *files, "--quorum", "2", *asked, *shell.chain)
        text = shell("init", *files, "--quorum", "2", *asked, *shell.chain, "--contract", made["contract"])
        assert "disease by model heart 1 is at least 55 / 2^6" in text
        for wrong in (["--output", "age"], ["--at-least", "2"], ["--model", "unknown"], ["--model", "0"]):
            shell("init", *files, "--quorum", "2", *asked, *shell.chain, *wrong, code=2)
    terms = TERMS.decode(Path("trial.json").read_bytes())
    assert terms.model == published.reference
    assert (terms.threshold, terms.output, terms.quorum, made["trial"]) == (55, 0, 2, terms.digest.hex())
    assert made["gas"] > 1_000_000
    shell("status", "--trial", "trial.json", *shell.chain[:2])
