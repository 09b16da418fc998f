"""A contract is made to count approvals that no hospital gave, gave for something else, or has withdrawn.

Anybody may bring anything to it. Each attack is also run where the one check that stops it is missing, and succeeds
there.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from api import approval_entries
from api.approval_entries import ApprovalScope, sign_digest
from api.entries import Reference
from ledger.errors import ChainRefused
from tests.support.anvil import Anvil, start_anvil
from tests.support.bundles import ORIGIN
from tests.support.contracts import weakened
from tests.support.hospitals import (
    HOSPITALS,
    KEYS,
    ORDER,
    PARTS,
    STRANGER,
    digest_without,
)

TWO = HOSPITALS[:2]


NAME = "ModelApprovals"
PLACE = (7, sha256(b"model").digest())
MODEL = Reference(*PLACE)


class OnChain:
    """A contract and its hospitals; the artefact may be a weakened one."""

    def __init__(self, chain: Any, artefact: Any = None, origin: str = ORIGIN) -> None:
        from ledger.anchors.evm import Artefact
        from ledger.anchors.model_approvals import account_of_key

        self.accounts = [account_of_key(key) for key in KEYS]
        self.contract, _ = chain.deploy(
            artefact or Artefact.load(NAME), self.accounts, 2, sha256(origin.encode()).digest()
        )
        self.scope = ApprovalScope(chain.chain_id, bytes.fromhex(self.contract.address[2:]), origin)

    def sign(
        self, hospital: int, *, withdraw: bool = False, model: Reference = MODEL, part: str | None = None
    ) -> bytes:
        """As the contract wants it, without `part`."""
        domains = (approval_entries.APPROVAL_DOMAIN, approval_entries.WITHDRAWAL_DOMAIN)
        return sign_digest(digest_without(part)(self.scope, domains[withdraw], model), HOSPITALS[hospital])

    def approve(self, hospital: int, signature: bytes, place: tuple[int, bytes] = PLACE) -> None:
        self.contract.send("approve", self.accounts[hospital], *place, signature[:32], signature[32:])

    def withdraw(self, hospital: int, signature: bytes, place: tuple[int, bytes] = PLACE) -> None:
        self.contract.send("withdraw", self.accounts[hospital], *place, signature[:32], signature[32:])

    def approved(self, place: tuple[int, bytes] = PLACE) -> bool:
        return bool(self.contract.call("approved", *place))


def weak(*changes: tuple[str, str]) -> Any:
    return weakened(NAME, *changes)


LEFT_OUT = {
    "act": ("sha256(concat(act, ", "sha256(concat("),
    "chain": ("convert(chain.id, bytes32), ", ""),
    "contract": ("convert(self, bytes20), ", ""),
    "origin": ("ORIGIN_HASH, place", "place"),
    "index": ("place, leaf", "leaf"),
    "leaf": ("place, leaf", "place"),
}
"""How the contract looks that leaves a part out of what is signed."""


@pytest.mark.parametrize("part", [part for part in PARTS if part != "chain"])
def test_signatures_are_brought_to_another_contract_entry_or_act(chain: Any, part: str) -> None:
    def attack(target: OnChain, source: OnChain, left_out: str | None) -> None:
        """Use what hospitals signed for something else to have MODEL approved (or, for the act, withdrawn)."""
        meant = {"index": Reference(8, MODEL.leaf), "leaf": Reference(7, sha256(b"other").digest())}.get(part, MODEL)
        for hospital in (0, 1):
            if part == "act":
                target.approve(hospital, target.sign(hospital, part=left_out))
                target.withdraw(hospital, target.sign(hospital, part=left_out))
            else:
                target.approve(hospital, source.sign(hospital, model=meant, part=left_out))

    def pair(artefact: Any) -> tuple[OnChain, OnChain]:
        target = OnChain(chain, artefact)
        if part == "contract":
            return target, OnChain(chain, artefact)
        if part == "origin":
            source = OnChain(chain, artefact, origin="log.example/other")
            source.scope = replace(source.scope, contract=target.scope.contract)  # only the log is another one
            return target, source
        return target, target

    target, source = pair(None)
    with pytest.raises(ChainRefused, match="not the hospital's signature"):
        attack(target, source, None)
    assert not target.approved() or part == "act"
    target, source = pair(weak(LEFT_OUT[part]))
    attack(target, source, part)
    assert target.approved() == (part != "act"), "without the part in the digest, the attack works"


def test_signatures_are_brought_to_another_chain(anvil: Anvil, chain: Any) -> None:
    """Where the same account's same transaction gave a contract the same address."""
    second = start_anvil("--chain-id", "31338")
    try:
        for artefact, works in ((None, False), (weak(LEFT_OUT["chain"]), True)):
            with second.connected() as there:
                target = OnChain(there, artefact)
                here = replace(target.scope, chain=chain.chain_id)
                signed = [
                    sign_digest(
                        digest_without("chain" if works else None)(here, approval_entries.APPROVAL_DOMAIN, MODEL),
                        secret,
                    )
                    for secret in TWO
                ]
                if works:
                    for hospital, signature in enumerate(signed):
                        target.approve(hospital, signature)
                else:
                    with pytest.raises(ChainRefused, match="not the hospital's signature"):
                        target.approve(0, signed[0])
                assert target.approved() == works
    finally:
        second.stop()


def test_an_old_approval_is_brought_again_after_the_withdrawal(chain: Any) -> None:
    """Everybody has it: it is on the ledger."""
    forgets = weak(("self.state[index][leaf][hospital] = WITHDRAWN", "self.state[index][leaf][hospital] = 0"))
    for artefact, works in ((None, False), (forgets, True)):
        target = OnChain(chain, artefact)
        signed = [target.sign(hospital) for hospital in (0, 1)]
        for hospital, signature in enumerate(signed):
            target.approve(hospital, signature)
        target.withdraw(0, target.sign(0, withdraw=True))
        assert not target.approved()
        if works:
            target.approve(0, signed[0])
        else:
            with pytest.raises(ChainRefused, match="withdrawn for good"):
                target.approve(0, signed[0])
        assert target.approved() == works


def test_one_hospital_is_counted_twice_by_the_contract(chain: Any) -> None:
    counts = weak(('assert known != APPROVED, "approved already"', "pass"))
    low = 'assert convert(s, uint256) <= HALF_ORDER, "s is above n/2: another spelling of the same signature"'
    for artefact, works in ((None, False), (counts, True)):
        target = OnChain(chain, artefact)
        target.approve(0, target.sign(0))
        if works:
            target.approve(0, target.sign(0))
        else:
            with pytest.raises(ChainRefused, match="approved already"):
                target.approve(0, target.sign(0))
        assert target.approved() == works
    both = OnChain(chain, weak((low, "pass"), ('assert known != APPROVED, "approved already"', "pass")))
    signature = both.sign(0)
    second = signature[:32] + (ORDER - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")
    both.approve(0, signature)
    both.approve(0, second)
    assert both.approved(), "a contract that remembers signatures, not hospitals, is fooled by the other spelling"


def test_nobody_signs_for_the_zero_address(chain: Any) -> None:
    """ecrecover answers zero for what is no signature."""
    anybody = weak(('assert self.is_hospital[hospital], "no hospital of this contract"', "pass"))
    for artefact, works in ((None, False), (anybody, True)):
        target = OnChain(chain, artefact)
        target.accounts = ["0x" + "0" * 40] * 3
        if works:
            target.approve(0, bytes(64))
        else:
            with pytest.raises(ChainRefused, match="no hospital"):
                target.approve(0, bytes(64))
        assert target.contract.call("approvals", *PLACE) == int(works)


def test_a_stranger_approves_as_a_hospital(chain: Any) -> None:
    unsigned = weak(
        ('assert ecrecover(digest, 28, r, s) == hospital, "not the hospital\'s signature of this act"', "pass")
    )
    for artefact, works in ((None, False), (unsigned, True)):
        target = OnChain(chain, artefact)
        forged = sign_digest(target.scope.approval_digest(MODEL), STRANGER)
        if works:
            target.approve(0, forged)
            target.approve(1, forged)
        else:
            with pytest.raises(ChainRefused, match="not the hospital's signature"):
                target.approve(0, forged)
        assert target.approved() == works


def test_a_contract_that_says_yes_to_everything_is_not_believed(chain: Any) -> None:
    from ledger.anchors.model_approvals import ModelApprovals

    yes = OnChain(chain, weak(("return self.approvals[index][leaf] >= THRESHOLD", "return True")))
    assert yes.approved()
    with pytest.raises(ChainRefused, match="is not ModelApprovals"):
        ModelApprovals.at(chain, yes.contract.address)
