"""What an attacker tried on chains, approvals and reports and found: contracts with our code and somebody else's
storage, answers of a node that came too late or from no time, names that lead to another model, reporters who drop the
dates of witnesses or claim a version that nobody can check.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from api.approval_entries import ApprovalScope, sign_digest
from api.approval_gate import ApprovalGate
from api.client.anchored import check_anchor
from api.client.governance import find_model
from api.client.ledger_report import check as check_module
from api.client.ledger_report.check import LedgerNow, check_report
from api.client.ledger_report.files import render, write_report
from api.client.ledger_report.heads import open_heads, policy_digest
from api.client.ledger_report.manifest import HTML, NOTE, Manifest
from api.client.ledger_report.reading import read_ledger
from api.client.ledger_report.report import Period, build_report
from api.client.session import Session
from api.client.transport import ModelRow
from api.client.trial_model import published_model
from api.client.trust import TrustedLog
from api.clock import clock_name
from api.entries import Reference, decode_entry
from api.errors import PredictionRefused
from api.governance import ApprovalState
from api.registry import Registry
from ledger import Checkpoint, Signer, VerifiedHead, leaf_hash, open_checkpoint
from ledger.checkpoint import sign_checkpoint
from ledger.errors import ChainRefused, ChainUnavailable
from ledger.note import Note
from privacy.errors import UsageError, VerificationFailed
from tests.support import bundles
from tests.support.anvil import start_anvil
from tests.support.bundles import ORIGIN
from tests.support.contracts import weakened
from tests.support.hospitals import GOVERNANCE, HOSPITALS, KEYS, STRANGER, FakeContract, approval, key_of
from tests.support.report_ledger import ReportLedger, everything

MODEL = Reference(7, hashlib.sha256(b"model").digest())


# -- our code, somebody else's storage --------------------------------------------------------------------------------

LISTED = "        self.is_hospital[hospital] = True\n"
PRESET = f"        self.state[7][0x{MODEL.leaf.hex()}][hospital] = "


def rigged(chain: Any, constructor: str, *more: str) -> tuple[Any, ApprovalScope]:
    """A contract whose code is ours, made by another constructor: code at an address says nothing of its storage."""
    from ledger.anchors.model_approvals import account_of_key

    artefact = weakened("ModelApprovals", (LISTED, constructor))
    accounts = [account_of_key(key) for key in KEYS]
    contract, _ = chain.deploy(artefact, accounts, 2, hashlib.sha256(ORIGIN.encode()).digest())
    return contract, ApprovalScope(chain.chain_id, bytes.fromhex(contract.address[2:]), ORIGIN)


def withdrawal(scope: ApprovalScope, hospital: int = 0) -> tuple[bytes, bytes]:
    signature = sign_digest(scope.withdrawal_digest(MODEL), HOSPITALS[hospital])
    return signature[:32], signature[32:]


@pytest.mark.parametrize(
    ("constructor", "reason"),
    [
        pytest.param(PRESET + "1\n", "no hospital of this contract", id="hospitals-that-it-lists-and-does-not-know"),
        pytest.param(LISTED + PRESET + "1\n", "no reason given", id="approvals-that-it-does-not-count"),
    ],
)
def test_a_contract_with_our_code_refuses_withdrawals_for_ever(chain: Any, constructor: str, reason: str) -> None:
    """The model's owner makes the contract. Hospitals approve, and find when they withdraw that they cannot."""
    from ledger.anchors.model_approvals import ModelApprovals, account_of_key

    contract, scope = rigged(chain, constructor)
    with pytest.raises(ChainRefused, match=reason):
        contract.send("withdraw", account_of_key(KEYS[0]), MODEL.index, MODEL.leaf, *withdrawal(scope))
    assert list(contract.call("states", MODEL.index, MODEL.leaf)) == [1, 1, 1], "still approved, as it would always be"
    with pytest.raises(ChainRefused, match="not made by ours"):
        ModelApprovals.at(chain, contract.address).states(MODEL.index, MODEL.leaf)


def test_a_contract_that_counts_somebody_whom_it_does_not_list_is_refused(chain: Any) -> None:
    from ledger.anchors.model_approvals import ModelApprovals, account_of_key

    stranger = account_of_key(key_of(STRANGER))
    contract, scope = rigged(chain, LISTED + f"    self.is_hospital[{stranger}] = True\n")
    signature = sign_digest(scope.approval_digest(MODEL), STRANGER)
    contract.send("approve", stranger, MODEL.index, MODEL.leaf, signature[:32], signature[32:])
    with pytest.raises(ChainRefused, match="counts other approvals"):
        ModelApprovals.at(chain, contract.address).states(MODEL.index, MODEL.leaf)


def test_a_state_that_there_is_not_is_refused_in_words(chain: Any) -> None:
    from ledger.anchors.model_approvals import ModelApprovals

    contract, _ = rigged(chain, LISTED + PRESET + "7\n")
    with pytest.raises(ChainRefused, match="its states are none"):
        ModelApprovals.at(chain, contract.address).states(MODEL.index, MODEL.leaf)


def test_an_honest_contract_answers_after_approvals_and_withdrawals(chain: Any) -> None:
    from ledger.anchors.model_approvals import ModelApprovals, account_of_key

    contract, scope = rigged(chain, LISTED)
    found, accounts = ModelApprovals.at(chain, contract.address), [account_of_key(key) for key in KEYS]
    for hospital, account in enumerate(accounts[:2]):
        signature = sign_digest(scope.approval_digest(MODEL), HOSPITALS[hospital])
        found.approve(account, MODEL.index, MODEL.leaf, signature)
    found.withdraw(accounts[0], MODEL.index, MODEL.leaf, b"".join(withdrawal(scope)))
    found.withdraw(accounts[2], MODEL.index, MODEL.leaf, b"".join(withdrawal(scope, 2)))
    expected = dict(zip(accounts, ("withdrawn", "approved", "withdrawn"), strict=True))
    assert found.states(MODEL.index, MODEL.leaf) == expected


# -- what a node says -------------------------------------------------------------------------------------------------


def test_a_block_beyond_the_calendar_is_refused_in_words() -> None:
    """A node, or the chain of an attacker, dates a block in the year 12000: the auditor got a traceback."""
    from ledger.anchors.head_anchor import HeadAnchor

    far = start_anvil()
    try:
        with far.connected() as chain:
            anchor, _ = HeadAnchor.deploy(chain, ORIGIN)
            far.request("evm_setNextBlockTimestamp", 316_500_000_000)
            signer = Signer.generate(ORIGIN)
            head = first_head(signer)
            anchor.advance(head, [])
            with pytest.raises(ChainUnavailable, match="which is no time"):
                check_anchor(head, None, anchor)
    finally:
        far.stop()


def first_head(signer: Signer) -> VerifiedHead:
    note = sign_checkpoint(Checkpoint(ORIGIN, 1, leaf_hash(b"entry")), signer)
    return open_checkpoint(note, signer.verifier, ORIGIN)


class SlowContract(FakeContract):
    """The first who asks hears, late, what was true when he asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asking, self.answer = threading.Event(), threading.Event()

    def states(self, origin: str, model: Reference, hospitals: Sequence[bytes]) -> list[ApprovalState]:
        first = self.asked == 0
        found = super().states(origin, model, hospitals)
        if first:
            self.asking.set()
            assert self.answer.wait(30)
        return found


def test_an_answer_from_before_a_withdrawal_does_not_take_the_place_of_a_newer_one(tmp_path: Path) -> None:
    """One request hangs at the node. Others have heard of the withdrawal when it brings the approval of before."""
    world = bundles.World(tmp_path)
    owner = world.register("owner", "heart-lab")
    model = world.append(owner, bundles.model_material().body()).reference
    world.append(owner, approval(model, ORIGIN))
    contract, seconds = SlowContract(), [0.0]
    gate = ApprovalGate(Registry.read(world.log), GOVERNANCE, contract, lambda: seconds[0])
    told: list[Exception] = []

    def slow() -> None:
        try:
            gate.require(model.index)
        except PredictionRefused as error:
            told.append(error)

    thread = threading.Thread(target=slow)
    thread.start()
    assert contract.asking.wait(30)
    contract.known, seconds[0] = dict.fromkeys(KEYS, "withdrawn"), 6.0
    with pytest.raises(PredictionRefused):
        gate.require(model.index)
    contract.answer.set()
    thread.join(30)
    assert len(told) == 1, "who asked first is told what is known by now"
    with pytest.raises(PredictionRefused, match="withdrew"):
        gate.check(model)


# -- a name that leads to another model -------------------------------------------------------------------------------

OWNER_ROWS = [ModelRow(3, bytes(32), "heart", "2", "heart-lab"), ModelRow(9, bytes(32), "heart 2", "1", "heart-lab")]
"""An owner had version 2 of "heart" looked at, and publishes another model as "heart 2" just before it is approved."""


def test_a_hospital_does_not_sign_for_a_model_with_the_name_of_a_version(tmp_path: Path) -> None:
    world = bundles.World(tmp_path)
    owner = world.register("owner", "heart-lab")
    body = bundles.model_material().body()
    reviewed = world.append(owner, replace(body, name="heart", version="2"))
    trap = world.append(owner, replace(body, name="heart 2", version="1"))
    registry = Registry.read(world.log)
    with pytest.raises(UsageError, match=r"several models are called 'heart 2'"):
        find_model(registry, "heart 2")
    assert find_model(registry, "heart").reference == reviewed.reference
    assert find_model(registry, "heart 2 1").reference == trap.reference


def test_a_clinic_and_an_organiser_are_not_led_there_either() -> None:
    server: Any = SimpleNamespace(models=lambda: OWNER_ROWS)
    session = Session(None, server, None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"several models are called 'heart 2'"):
        session.model("heart 2")
    with pytest.raises(UsageError, match=r"several models are called 'heart 2'"):
        published_model(server, TrustedLog(Signer.generate(ORIGIN).verifier), "heart 2")


def test_a_server_that_lists_a_model_under_the_name_of_another_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lists "heart" and gives the index of another model: records were committed for it, or a trial was made."""
    world = bundles.World(tmp_path)
    owner = world.register("owner", "heart-lab")
    other = world.append(owner, replace(bundles.model_material().body(), name="liver"))
    entry = world.log.entry(other.reference.index)
    server: Any = SimpleNamespace(
        models=lambda: [ModelRow(other.reference.index, other.reference.leaf, "heart", "1", "heart-lab")],
        entry=world.log.entry,
        proof=world.log.tlog_proof,
    )
    session = Session(None, server, None)  # type: ignore[arg-type]
    monkeypatch.setattr(Session, "fetch", lambda self, index: (other.reference, decode_entry(entry)))
    with pytest.raises(VerificationFailed, match=r"model\.name.*'liver'"):
        session.model("heart")
    with pytest.raises(VerificationFailed, match=r"model\.name.*'liver'"):
        published_model(server, TrustedLog(world.verifier), "heart")
    assert session.model(other.reference.index).reference == other.reference


# -- reporters --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ledger() -> ReportLedger:
    return everything()


def reporter(ledger: ReportLedger) -> Signer:
    return Signer(f"{ledger.log.name}/party/1", ledger.keys["st-anna"].private_bytes_raw())


def now(ledger: ReportLedger) -> LedgerNow:
    return LedgerNow(ledger.source, ledger.head(), ledger.trusted(witnessed=True))


def reported(ledger: ReportLedger, folder: Path, notes: Sequence[bytes] | None = None) -> Path:
    """A report dated by witnesses that a clinic made from these published heads; everything in it fits together."""
    heads = ledger.read().heads if notes is None else open_heads(notes, ledger.log.name, ledger.log.verifier)
    reading = read_ledger(ledger.source, heads, ledger.log.verifier, ledger.policy)
    report = build_report(reading, Period(), None, policy_digest(ledger.policy))
    write_report(folder, report, render(report, heads, None), reporter(ledger))
    return folder


def undated(note: bytes, origin: str) -> bytes:
    """A head without the cosignatures of witnesses."""
    parsed = Note.parse(note)
    kept = tuple(one for one in parsed.signatures if one.name in (origin, clock_name(origin)))
    assert len(kept) == 2 < len(parsed.signatures)
    return Note(parsed.text, kept).format()


def test_a_reporter_who_takes_off_the_witnesses_of_a_head_is_found(ledger: ReportLedger, tmp_path: Path) -> None:
    """Without their date an answer after the end of its records is only perhaps one."""
    notes = [head.note for head in ledger.read().heads]
    assert check_report(reported(ledger, tmp_path / "honest"), None, now(ledger)).compared
    fewer = [undated(note, ledger.log.name) for note in notes[:-1]] + notes[-1:]
    folder = reported(ledger, tmp_path / "fewer", fewer)
    with pytest.raises(VerificationFailed, match=r"report\.heads: a date of the head"):
        check_report(folder, None, now(ledger))


def test_the_last_head_of_a_report_may_be_cosigned_after_it_was_made(ledger: ReportLedger, tmp_path: Path) -> None:
    notes = [head.note for head in ledger.read().heads]
    folder = reported(ledger, tmp_path / "r", [*notes[:-1], undated(notes[-1], ledger.log.name)])
    assert check_report(folder, None, now(ledger)).compared


@pytest.mark.parametrize("version", ["0.2.9", "99.0", "0.31", "none", "0.3000000000"])
def test_a_page_is_not_excused_by_a_version_that_nobody_can_check(
    ledger: ReportLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """The page of another version is not compared: so a reporter claims one, and lets it tell another story."""
    monkeypatch.setattr(check_module, "VERSION", "0.30.1")
    folder = reported(ledger, tmp_path / "r")
    page = (folder / HTML).read_bytes().replace(b"open-suspension", b"")
    (folder / HTML).write_bytes(page)
    manifest = Manifest.parse(Note.parse((folder / NOTE).read_bytes()))
    digests = {**manifest.digests, HTML: hashlib.sha256(page).digest()}
    lie = replace(manifest, digests=digests, made_by=version).sign(reporter(ledger))
    (folder / NOTE).write_bytes(lie)
    with pytest.raises(VerificationFailed, match=r"report\.version"):
        check_report(folder, None, now(ledger))
