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
_ATTEMPTS: Final = 3
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
        """The contract at `address`; its code is compared with ours. Raises ChainRefused for anything else there.

        The same code may have been put there by another constructor, which left something else in the storage: a
        hospital that is listed, and whose withdrawal would still be refused (`chain.rigged`); see `states`, too.
        """
        found = cls(chain.contract(address, Artefact.load(_NAME)))
        for hospital in found.hospitals:
            if not found.contract.call("is_hospital", hospital):
                raise found._rigged(f"it lists {hospital}, and would take nothing that it signed")
        return found

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
        """What is known of the entry, by hospital.

        Raises ChainRefused(`chain.rigged`) for answers that no contract made by our constructor gives: a withdrawal
        would be refused there for ever. ChainUnavailable.
        """
        for _ in range(_ATTEMPTS):  # an approval may come between the two questions
            count, found = self.contract.call("approvals", index, leaf), self.contract.call("states", index, leaf)
            if len(found) != len(self.hospitals) or not all(state < len(_STATES) for state in found):
                raise self._rigged("its states are none")
            states = {hospital: _STATES[state] for hospital, state in zip(self.hospitals, found, strict=True)}
            if list(states.values()).count("approved") == count:
                return states
        raise self._rigged(f"it counts other approvals of entry {index} than its hospitals gave")

    def approval_digest(self, index: int, leaf: bytes) -> bytes:
        """What a hospital signs to approve the entry, as the contract computes it."""
        return bytes(self.contract.call("approval_digest", index, leaf))

    def _rigged(self, why: str) -> ChainRefused:
        return ChainRefused("chain.rigged", f"the contract at {self.contract.address} was not made by ours: {why}")

    def withdrawal_digest(self, index: int, leaf: bytes) -> bytes:
        """What a hospital signs to withdraw, as the contract computes it."""
        return bytes(self.contract.call("withdrawal_digest", index, leaf))
