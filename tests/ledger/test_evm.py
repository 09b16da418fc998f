"""The adapter to chains: what becomes of transactions that fail, and which block is read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ledger.errors import ChainRefused, ChainUnavailable, UsageError
from ledger.merkle import node_hash
from tests.support.anvil import start_anvil

pytest.importorskip("web3", reason="web3 is not installed: pip install 'sealproof[evm]'")

from ledger.anchors.evm import Artefact, Chain, ChainKey, Contract
from ledger.anchors.head_anchor import HeadAnchor

ORIGIN = "ledger.example/evm"
ROOT = bytes(range(32))
FOUR, FIFTH, SIXTH = bytes([4] * 32), bytes([5] * 32), bytes([6] * 32)  # of a tree: a perfect one of four, two leaves


@pytest.fixture
def contract(chain: Chain) -> Contract:
    deployed, _ = chain.deploy(Artefact.load("HeadAnchor"), ORIGIN)
    deployed.send("advance", 5, node_hash(FOUR, FIFTH), [])
    return deployed


class Unestimated:
    """A call whose gas is not estimated, which is what usually finds out that it would revert."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def estimate_gas(self, transaction: Any) -> int:
        return 200_000

    def build_transaction(self, transaction: Any) -> Any:
        return self._call.build_transaction(transaction)


def test_a_transaction_that_is_mined_and_reverts_has_failed(chain, contract):
    call = Unestimated(contract._contract.functions["advance"](3, ROOT, []))
    with pytest.raises(ChainRefused) as refused:
        chain._transact("try", call)
    assert refused.value.check == "chain.reverted"
    assert contract.call("size") == 5


def test_a_transaction_that_is_not_mined_is_named_so_that_it_can_be_looked_for():
    idle = start_anvil("--no-mining")
    try:
        with idle.connected(timeout=0.3) as chain, pytest.raises(ChainUnavailable, match="not mined after") as failed:
            chain.deploy(Artefact.load("HeadAnchor"), ORIGIN)
        number = str(failed.value).split("transaction ")[1].split()[0]
        assert idle.request("eth_getTransactionByHash", f"0x{number}")["blockNumber"] is None
    finally:
        idle.stop()


def test_threads_share_one_key_without_losing_a_transaction(chain):
    with ThreadPoolExecutor(4) as pool:
        artefact = Artefact.load("HeadAnchor")
        made = list(pool.map(lambda i: chain.deploy(artefact, f"log-{i}"), range(8)))
    assert sorted(contract.call("origin") for contract, _ in made) == [f"log-{i}" for i in range(8)]
    assert len({receipt.transaction for _, receipt in made}) == 8


def test_a_chain_is_read_at_the_block_that_was_asked_for(anvil, chain, contract):
    anvil.request("anvil_mine", "0x100")
    contract.send("advance", 6, node_hash(FOUR, node_hash(FIFTH, SIXTH)), [FIFTH, SIXTH, FOUR])
    with anvil.connected(None, finality="finalized") as reader:
        behind = HeadAnchor.at(reader, contract.address)
        assert behind.newest().size == 5
        assert behind.at_size(6) is None
        anvil.request("anvil_mine", "0x100")
        assert behind.newest().size == 6
        assert behind.at_size(6) == behind.newest()


def test_nothing_is_sent_without_a_key_or_without_money(anvil, contract):
    with anvil.connected(None) as reader, pytest.raises(UsageError, match="a key that pays"):
        Contract(reader, contract.address, contract.artefact).send("advance", 6, ROOT, [])
    with Chain.connect(anvil.rpc, ChainKey.generate()) as poor, pytest.raises(ChainUnavailable, match="funds"):
        poor.deploy(Artefact.load("HeadAnchor"), ORIGIN)


def test_a_call_that_the_contract_does_not_have_is_a_mistake_of_the_caller(contract):
    for call in (
        lambda: contract.call("no_such_function"),
        lambda: contract.call("verify_inclusion"),
        lambda: contract.send("advance", -1, ROOT, []),
        lambda: contract.send("advance", 2**64, ROOT, []),
        lambda: contract.send("advance", 6, ROOT[:-1], []),
        lambda: list(contract.events("NoSuchEvent")),
    ):
        with pytest.raises(UsageError):
            call()


@pytest.mark.parametrize("rpc", ["ws://127.0.0.1:8545", "127.0.0.1:8545", "http://127.0.0.1:99999", "http://[::1"])
def test_an_address_that_is_no_node_is_refused_and_not_shown(rpc):
    with pytest.raises(UsageError):
        Chain.connect(rpc + "/token")


def test_an_artefact_that_is_not_there_is_named():
    with pytest.raises(UsageError, match="NoSuchContract"):
        Artefact.load("NoSuchContract")
