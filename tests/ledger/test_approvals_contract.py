"""The contract ModelApprovals on a development chain: what counts, what does not, and that the ledger's code agrees."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import pytest

from api.approval_entries import ApprovalScope, sign_digest
from api.entry_parts import Reference
from ledger.errors import ChainRefused, UsageError
from tests.support.anvil import Anvil, start_anvil
from tests.support.hospitals import HOSPITALS, KEYS, ORDER, STRANGER, key_of

pytest.importorskip("web3", reason="web3 is not installed: pip install 'sealproof[evm]'")

from ledger.anchors.evm import Artefact, Chain
from ledger.anchors.model_approvals import MAX_HOSPITALS, ModelApprovals, account_of_key

ORIGIN = "log.example/sealproof"
ACCOUNTS = [account_of_key(key) for key in KEYS]
ZERO = "0x" + "0" * 40


def entry(number: int, index: int = 5) -> Reference:
    """A ledger entry that no other test uses."""
    return Reference(index, sha256(b"entry %d" % number).digest())


@pytest.fixture(scope="module")
def contract(chain: Chain) -> ModelApprovals:
    """Two of three hospitals."""
    return ModelApprovals.deploy(chain, ACCOUNTS, 2, ORIGIN)[0]


@pytest.fixture(scope="module")
def scope(contract: ModelApprovals) -> ApprovalScope:
    return scope_of(contract)


def scope_of(contract: ModelApprovals, origin: str = ORIGIN) -> ApprovalScope:
    return ApprovalScope(contract.contract.chain.chain_id, bytes.fromhex(contract.contract.address[2:]), origin)


Act = Callable[..., Any]


def approve(contract: ModelApprovals, hospital: int, model: Reference, scope: ApprovalScope | None = None) -> Any:
    digest = (scope or scope_of(contract)).approval_digest(model)
    return contract.approve(ACCOUNTS[hospital], model.index, model.leaf, sign_digest(digest, HOSPITALS[hospital]))


def withdraw(contract: ModelApprovals, hospital: int, model: Reference, scope: ApprovalScope | None = None) -> Any:
    digest = (scope or scope_of(contract)).withdrawal_digest(model)
    return contract.withdraw(ACCOUNTS[hospital], model.index, model.leaf, sign_digest(digest, HOSPITALS[hospital]))


@contextmanager
def refused(reason: str) -> Iterator[None]:
    with pytest.raises(ChainRefused) as caught:
        yield
    assert reason in str(caught.value)


# -- the honest way ---------------------------------------------------------------------------------------------------


def test_what_is_signed_is_the_same_here_and_there(contract: ModelApprovals, scope: ApprovalScope) -> None:
    for number, index in enumerate((0, 1, 255, 256, 2**32, 2**53 - 1)):
        model = entry(number, index)
        assert contract.approval_digest(index, model.leaf) == scope.approval_digest(model)
        assert contract.withdrawal_digest(index, model.leaf) == scope.withdrawal_digest(model)
    assert contract.hospitals == tuple(ACCOUNTS)
    assert (contract.threshold, contract.origin_hash) == (2, sha256(ORIGIN.encode()).digest())


def test_the_threshold_approves_and_a_withdrawal_below_it_ends_that(contract: ModelApprovals) -> None:
    model = entry(10)
    place = (model.index, model.leaf)
    assert not contract.approved(*place)
    approve(contract, 0, model)
    assert not contract.approved(*place)
    approve(contract, 2, model)
    assert contract.approved(*place)
    assert contract.states(*place) == dict(zip(ACCOUNTS, ("approved", "none", "approved"), strict=True))
    withdraw(contract, 0, model)
    assert not contract.approved(*place)
    assert contract.states(*place)[ACCOUNTS[0]] == "withdrawn"
    approve(contract, 1, model)
    assert contract.approved(*place), "the other two are enough"
    events = [*contract.contract.events("Approved", {"leaf": model.leaf})]
    assert [(e.values["hospital"], e.values["approvals"]) for e in events] == [
        (ACCOUNTS[0], 1),
        (ACCOUNTS[2], 2),
        (ACCOUNTS[1], 2),
    ]
    (event,) = contract.contract.events("Withdrawn", {"leaf": model.leaf})
    assert (event.values["hospital"], event.values["index"], event.values["approvals"]) == (ACCOUNTS[0], 5, 1)


def test_anybody_may_bring_a_hospitals_signature(anvil: Anvil, contract: ModelApprovals) -> None:
    model = entry(11)
    with anvil.connected(3) as other:
        approve(ModelApprovals.at(other, contract.contract.address), 1, model)
    assert contract.states(model.index, model.leaf)[ACCOUNTS[1]] == "approved"


def test_any_order_of_acts_gives_what_a_table_gives(contract: ModelApprovals) -> None:
    """Against the rules as a reader would write them down."""
    rng = random.Random(4)
    models = [entry(20), entry(21), entry(20, index=6)]
    table = {(m, h): "none" for m in range(len(models)) for h in range(3)}
    for _ in range(45):
        m, h = rng.randrange(len(models)), rng.randrange(3)
        if rng.random() < 0.7:
            if table[m, h] == "none":
                approve(contract, h, models[m])
                table[m, h] = "approved"
            else:
                with refused("withdrawn for good" if table[m, h] == "withdrawn" else "approved already"):
                    approve(contract, h, models[m])
        elif table[m, h] == "withdrawn":
            with refused("withdrawn already"):
                withdraw(contract, h, models[m])
        else:
            withdraw(contract, h, models[m])
            table[m, h] = "withdrawn"
        place = (models[m].index, models[m].leaf)
        now = [table[m, k] for k in range(3)]
        assert list(contract.states(*place).values()) == now
        assert contract.approved(*place) == (now.count("approved") >= 2)
        assert contract.contract.call("approvals", *place) == now.count("approved")


def test_a_hospital_withdraws_before_its_approval_has_come(contract: ModelApprovals) -> None:
    """It gave the signature away, and thought better of it."""
    model = entry(30)
    withdraw(contract, 0, model)
    with refused("withdrawn for good"):
        approve(contract, 0, model)
    assert contract.contract.call("approvals", model.index, model.leaf) == 0


# -- what does not count ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changed", ["chain", "contract", "origin", "index", "leaf", "act"])
def test_a_signature_for_something_else_does_not_count(contract: ModelApprovals, changed: str) -> None:
    model, honest = entry(40), scope_of(contract)
    scopes = {
        "chain": ApprovalScope(honest.chain + 1, honest.contract, honest.origin),
        "contract": ApprovalScope(honest.chain, bytes(20), honest.origin),
        "origin": ApprovalScope(honest.chain, honest.contract, "log.example/other"),
    }
    digest = scopes.get(changed, honest).approval_digest(
        {"index": Reference(6, model.leaf), "leaf": entry(41)}.get(changed, model)
    )
    if changed == "act":
        digest = honest.withdrawal_digest(model)
    with refused("not the hospital's signature"):
        contract.approve(ACCOUNTS[0], model.index, model.leaf, sign_digest(digest, HOSPITALS[0]))
    with refused("not the hospital's signature"):
        wrong = (
            honest.approval_digest(model)
            if changed == "act"
            else scopes.get(changed, honest).withdrawal_digest(
                {"index": Reference(6, model.leaf), "leaf": entry(41)}.get(changed, model)
            )
        )
        contract.withdraw(ACCOUNTS[0], model.index, model.leaf, sign_digest(wrong, HOSPITALS[0]))
    assert set(contract.states(model.index, model.leaf).values()) == {"none"}


def test_a_signature_from_another_chain_does_not_count_at_the_same_address(contract: ModelApprovals) -> None:
    """The same account's same transaction number gives a contract the same address on every chain."""
    second = start_anvil("--chain-id", "31338")
    try:
        with second.connected() as there:
            assert there.chain_id != contract.contract.chain.chain_id
            twin = None
            for _ in range(64):
                twin = ModelApprovals.deploy(there, ACCOUNTS, 2, ORIGIN)[0]
                if twin.contract.address == contract.contract.address:
                    break
            assert twin is not None
            if twin.contract.address != contract.contract.address:
                pytest.skip("more than 64 contracts were deployed before this one")
            model = entry(42)
            with refused("not the hospital's signature"):
                approve(twin, 0, model, scope_of(contract))
            approve(twin, 0, model)
    finally:
        second.stop()


def test_a_signature_has_one_spelling(contract: ModelApprovals, scope: ApprovalScope) -> None:
    model = entry(50)
    place = (model.index, model.leaf)
    signature = sign_digest(scope.approval_digest(model), HOSPITALS[0])
    r, s = signature[:32], int.from_bytes(signature[32:], "big")

    def number(value: int) -> bytes:
        return value.to_bytes(32, "big")

    with refused("s is above n/2"):
        contract.approve(ACCOUNTS[0], *place, r + number(ORDER - s))
    with refused("s is above n/2"):
        contract.approve(ACCOUNTS[0], *place, r + number(2**256 - 1))
    for zeroed in (r + number(0), number(0) + number(s), number(ORDER) + number(s), bytes(64)):
        with refused("not the hospital's signature"):
            contract.approve(ACCOUNTS[0], *place, zeroed)
    contract.approve(ACCOUNTS[0], *place, signature)


def test_only_hospitals_count(contract: ModelApprovals, scope: ApprovalScope) -> None:
    model = entry(51)
    place, digest = (model.index, model.leaf), scope.approval_digest(model)
    with refused("no hospital"):
        contract.approve(account_of_key(key_of(STRANGER)), *place, sign_digest(digest, STRANGER))
    with refused("not the hospital's signature"):
        contract.approve(ACCOUNTS[0], *place, sign_digest(digest, HOSPITALS[1]))
    for nothing in (bytes(64), b"\xff" * 32 + bytes(31) + b"\x01"):
        with refused("no hospital"):
            contract.approve(ZERO, *place, nothing)  # ecrecover answers zero for what is no signature
    assert contract.contract.call("approvals", *place) == 0


# -- deploying --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hospitals", "threshold", "reason"),
    [
        (ACCOUNTS, 0, "the threshold"),
        (ACCOUNTS, 4, "the threshold"),
        ([*ACCOUNTS, ACCOUNTS[1]], 2, "there twice"),
        ([ACCOUNTS[0], ZERO], 1, "zero address"),
    ],
    ids=["no-threshold", "too-high", "twice", "zero"],
)
def test_a_contract_that_makes_no_sense_is_not_created(
    chain: Chain, hospitals: list[str], threshold: int, reason: str
) -> None:
    with refused(reason):
        ModelApprovals.deploy(chain, hospitals, threshold, ORIGIN)


def test_there_are_at_most_32_hospitals(chain: Chain) -> None:
    many = [f"0x{number:040d}" for number in range(1, MAX_HOSPITALS + 2)]
    with pytest.raises(UsageError, match="1 to 32"):
        ModelApprovals.deploy(chain, many, 1, ORIGIN)
    with pytest.raises(UsageError, match="1 to 32"):
        ModelApprovals.deploy(chain, [], 1, ORIGIN)
    deployed, _ = ModelApprovals.deploy(chain, many[:MAX_HOSPITALS], MAX_HOSPITALS, ORIGIN)
    assert len(deployed.states(1, bytes(32))) == MAX_HOSPITALS


def test_another_contract_at_the_address_is_refused(chain: Chain, contract: ModelApprovals) -> None:
    other, _ = chain.deploy(Artefact.load("HeadAnchor"), ORIGIN)
    with pytest.raises(ChainRefused, match="is not ModelApprovals"):
        ModelApprovals.at(chain, other.address)
    with pytest.raises(ChainRefused, match="no contract"):
        ModelApprovals.at(chain, ACCOUNTS[0])
    found = ModelApprovals.at(chain, contract.contract.address)
    found.check_origin(ORIGIN)
    with pytest.raises(ChainRefused, match="another log"):
        found.check_origin("log.example/other")


def test_an_account_is_that_of_its_key() -> None:
    """A well-known pair: the first account of every development chain."""
    from tests.support.anvil import KEYS as ANVIL_KEYS
    from tests.support.hospitals import private_key

    key = key_of(private_key(int(ANVIL_KEYS[0], 16)))
    assert account_of_key(key) == "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
    with pytest.raises(UsageError, match="no point"):
        account_of_key(b"\x02" + bytes(32))
