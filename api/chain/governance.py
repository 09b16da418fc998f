"""A contract ModelApprovals as readers of a governance file see it, through one node of its chain.

What the node says is believed: name one that you trust. The contract's code is compared with ours, its log and its
hospitals with the governance file.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final, Self

from api.entry_parts import Reference
from api.governance import ApprovalState, Governance
from ledger.anchors.evm import Chain
from ledger.anchors.model_approvals import ModelApprovals, account_of_key
from ledger.errors import ChainRefused, ChainUnavailable
from privacy.errors import UsageError

__all__ = ["ChainApprovals"]

_TIMEOUT_SECONDS: Final = 10.0


class ChainApprovals:
    """The contract of a governance file, read through the node at `rpc`. Safe to use from many threads.

    It connects when it is first used, and again after the node was away. Close it.
    """

    def __init__(self, rpc: str, governance: Governance) -> None:
        self._rpc = rpc
        self._governance = governance
        self._accounts = {key: account_of_key(key) for key in governance.hospitals}
        self._lock = threading.Lock()
        self._chain: Chain | None = None
        self._contract: ModelApprovals | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            if self._chain is not None:
                self._chain.close()
            self._chain = self._contract = None

    def open(self) -> ModelApprovals:
        """The contract, connected.

        Raises:
            ChainUnavailable: the node does not answer.
            ChainRefused: another contract, or none, is at the address; or it does not know a hospital of the file
                (`chain.other-hospitals`), whose approval could never count.
            UsageError: the node is one of another chain.
        """
        with self._lock:
            if self._contract is None:
                chain = Chain.connect(self._rpc, timeout=_TIMEOUT_SECONDS)
                try:
                    self._contract = self._checked(chain)
                except BaseException:
                    chain.close()
                    raise
                self._chain = chain
            return self._contract

    def _checked(self, chain: Chain) -> ModelApprovals:
        said = self._governance
        if chain.chain_id != said.chain:
            raise UsageError(f"the node is one of chain {chain.chain_id}, the governance file says {said.chain}")
        contract = ModelApprovals.at(chain, f"0x{said.contract.hex()}")
        known = {account.lower() for account in contract.hospitals}
        for key, account in self._accounts.items():
            if account.lower() not in known:
                raise ChainRefused(
                    "chain.other-hospitals", f"the contract knows no hospital {account} (key {key.hex()})"
                )
        return contract

    def states(self, origin: str, model: Reference, hospitals: Sequence[bytes]) -> list[ApprovalState]:
        """What the contract knows now of these hospitals (compressed keys) and this entry of the log `origin`.

        Raises as `open` does, and ChainRefused(`chain.other-log`).
        """
        contract = self.open()
        contract.check_origin(origin)
        try:
            found = contract.states(model.index, model.leaf)
        except ChainUnavailable:
            self.close()
            raise
        by_account = {account.lower(): state for account, state in found.items()}
        return [by_account.get(self._accounts[key].lower(), "none") for key in hospitals]
