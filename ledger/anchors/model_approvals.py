"""The contract ModelApprovals: which entries of one log a set of hospitals approves.

Whoever has a hospital's signature may bring it; the contract checks it. What is signed is defined in the contract and,
for readers of the ledger, in `api.approval_entries`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, Literal

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ledger.anchors.evm import Artefact, Chain, Contract, Receipt, account_of
from ledger.errors import ChainRefused, UsageError

__all__ = ["MAX_HOSPITALS", "ModelApprovals", "State", "account_of_key"]

MAX_HOSPITALS: Final = 32

State = Literal["none", "approved", "withdrawn"]
"""What the contract knows of a hospital and an entry."""

_NAME: Final = "ModelApprovals"
_STATES: Final[tuple[State, ...]] = ("none", "approved", "withdrawn")


def account_of_key(key: bytes) -> str:
    """Address of the account of a compressed secp256k1 public key (33 bytes). Raises UsageError."""
    try:
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), key)
    except ValueError as error:
        raise UsageError(f"{key.hex()} is no point of secp256k1") from error
    return account_of(point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:])


class ModelApprovals:
    """A deployed contract. Hospitals, threshold and log never change."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self.hospitals: tuple[str, ...] = tuple(str(account) for account in contract.call("hospitals"))
        self.threshold = int(contract.call("threshold"))
        self.origin_hash = bytes(contract.call("origin_hash"))

    @classmethod
    def deploy(
        cls, chain: Chain, hospitals: Sequence[str], threshold: int, origin: str
    ) -> tuple[ModelApprovals, Receipt]:
        """A new contract for the models of the log `origin`, approved by `threshold` of these accounts.

        Raises UsageError for too many hospitals, ChainRefused for a threshold or a list that the contract does not
        take, ChainUnavailable.
        """
        if not 0 < len(hospitals) <= MAX_HOSPITALS:
            raise UsageError(f"a contract has 1 to {MAX_HOSPITALS} hospitals, not {len(hospitals)}")
        origin_hash = hashlib.sha256(origin.encode("utf-8")).digest()
        contract, receipt = chain.deploy(Artefact.load(_NAME), list(hospitals), threshold, origin_hash)
        return cls(contract), receipt

    @classmethod
    def at(cls, chain: Chain, address: str) -> ModelApprovals:
        """The contract at `address`; its code is compared with ours. Raises ChainRefused for anything else there."""
        return cls(chain.contract(address, Artefact.load(_NAME)))

    def check_origin(self, origin: str) -> None:
        """Raise ChainRefused(`chain.other-log`) unless the contract is about the models of the log `origin`."""
        if self.origin_hash != hashlib.sha256(origin.encode("utf-8")).digest():
            raise ChainRefused(
                "chain.other-log", f"the contract at {self.contract.address} is about another log than {origin!r}"
            )

    def approve(self, hospital: str, index: int, leaf: bytes, signature: bytes) -> Receipt:
        """Bring a hospital's approval of an entry; `signature` is r || s.

        Raises ChainRefused with the contract's reason, ChainUnavailable, UsageError without a key.
        """
        return self.contract.send("approve", hospital, index, leaf, signature[:32], signature[32:])

    def withdraw(self, hospital: str, index: int, leaf: bytes, signature: bytes) -> Receipt:
        """Bring a hospital's withdrawal, which is for good. Raises as `approve` does."""
        return self.contract.send("withdraw", hospital, index, leaf, signature[:32], signature[32:])

    def approved(self, index: int, leaf: bytes) -> bool:
        """Whether enough hospitals approve the entry now. Raises ChainUnavailable."""
        return bool(self.contract.call("approved", index, leaf))

    def states(self, index: int, leaf: bytes) -> dict[str, State]:
        """What is known of the entry, by hospital. Raises ChainUnavailable."""
        found = self.contract.call("states", index, leaf)
        return {hospital: _STATES[int(state)] for hospital, state in zip(self.hospitals, found, strict=True)}

    def approval_digest(self, index: int, leaf: bytes) -> bytes:
        """What a hospital signs to approve the entry, as the contract computes it."""
        return bytes(self.contract.call("approval_digest", index, leaf))

    def withdrawal_digest(self, index: int, leaf: bytes) -> bytes:
        """What a hospital signs to withdraw, as the contract computes it."""
        return bytes(self.contract.call("withdrawal_digest", index, leaf))
