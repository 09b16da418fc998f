"""The contract HeadAnchor: one log's head on a chain, which can only grow.

The contract checks that each head extends the last (RFC 9162, section 2.1.4.2). It cannot check the signature of a
checkpoint; only verified heads are sent from here, and a head read from it is compared with verified ones
(`api.client.anchored`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ledger.anchors.evm import Artefact, Chain, Contract, Event, Receipt
from ledger.anchors.head import AnchoredHead
from ledger.checkpoint import VerifiedHead
from ledger.errors import OriginMismatch, UsageError

__all__ = ["MAX_HASHES", "MAX_ORIGIN_BYTES", "HeadAnchor"]

MAX_ORIGIN_BYTES = 128
MAX_HASHES = 63
_NAME = "HeadAnchor"


class HeadAnchor:
    """A deployed anchor. `origin` is the log that it is for; it never changes."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self.origin = str(contract.call("origin"))

    @classmethod
    def deploy(cls, chain: Chain, origin: str) -> tuple[HeadAnchor, Receipt]:
        """A new anchor for the log `origin`. The chain's key pays, and is the only one that may advance it.

        Raises UsageError for a name of more than MAX_ORIGIN_BYTES, ChainUnavailable, ChainRefused.
        """
        length = len(origin.encode("utf-8"))
        if not 0 < length <= MAX_ORIGIN_BYTES:
            raise UsageError(f"an anchored log's name has 1 to {MAX_ORIGIN_BYTES} bytes, this one {length}")
        contract, receipt = chain.deploy(Artefact.load(_NAME), origin)
        return cls(contract), receipt

    @classmethod
    def at(cls, chain: Chain, address: str) -> HeadAnchor:
        """The anchor at `address`; its code is compared with ours. Raises ChainRefused for anything else there."""
        return cls(chain.contract(address, Artefact.load(_NAME)))

    @property
    def name(self) -> str:
        """Contract and chain, as they are told to people."""
        return f"{self.contract.address} on chain {self.contract.chain.chain_id}"

    @property
    def operator(self) -> str:
        """Address of the account that may advance the head."""
        return str(self.contract.call("operator"))

    def newest(self) -> AnchoredHead:
        """The present head; size 0 before the first. Raises ChainUnavailable."""
        origin, size, root = self.contract.call("head")
        found = self.at_size(size) if size else None
        if found is not None and found.root == root:
            return found
        return AnchoredHead(str(origin), int(size), bytes(root), None, None)

    def at_size(self, size: int) -> AnchoredHead | None:
        """The head of exactly this size, if one was anchored: from the contract's events. Raises ChainUnavailable."""
        found = [self._head(event) for event in self._events({"size": size})]
        return found[-1] if found else None

    def heads(self) -> Iterator[AnchoredHead]:
        """All heads in the order in which they were anchored. Raises ChainUnavailable."""
        return map(self._head, self._events({}))

    def advance(self, head: VerifiedHead, proof: Sequence[bytes]) -> Receipt:
        """Anchor a head; `proof` leads to it from the anchored one and is empty for the first.

        Raises OriginMismatch for another log's head, ChainRefused when the contract finds a rollback, a fork or a bad
        proof, ChainUnavailable, UsageError without a key.
        """
        if head.origin != self.origin:
            raise OriginMismatch(self.origin, head.origin)
        if len(proof) > MAX_HASHES:
            raise UsageError(f"a proof of {len(proof)} hashes is none: at most {MAX_HASHES}")
        return self.contract.send("advance", head.size, head.root, list(proof))

    def verify_inclusion(self, leaf: bytes, index: int, proof: Sequence[bytes]) -> None:
        """Have the contract check that leaf hash `leaf` is number `index` in the anchored tree.

        Raises ChainRefused unless it is, ChainUnavailable.
        """
        self.contract.call("verify_inclusion", leaf, index, list(proof))

    def _events(self, filters: dict[str, int]) -> Iterator[Event]:
        return self.contract.events("Head", filters, first_block=int(self.contract.call("first_block")))

    def _head(self, event: Event) -> AnchoredHead:
        size, root = int(event.values["size"]), bytes(event.values["root"])
        return AnchoredHead(self.origin, size, root, event.block, self.contract.chain.block_time(event.block))
