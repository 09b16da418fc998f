"""The contract TrialEnrolment on a chain: deployed, read, and sent what a committee signed.

Keys and signatures are bytes as EIP-2537 writes them: 256 of a public key in G2, 128 of a point in G1. What they mean,
and what is hashed into a trial's digest, is told in contracts/TrialEnrolment.vy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ledger.anchors.evm import Artefact, Chain, Contract, Receipt
from ledger.errors import ChainUnavailable, UsageError

__all__ = ["Enrolled", "TrialContract", "TrialState"]

KEY_BYTES: Final = 256
SIGNATURE_BYTES: Final = 128
_WORD: Final = 32
_UNSEALED: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class TrialState:
    """What a contract says of itself. `trial` is its digest, None until the committee is sealed."""

    organiser: str
    origin: bytes
    index: int
    model: bytes
    output: int
    threshold: int
    quorum: int
    members: int
    trial: bytes | None
    cases: int
    participants: int


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A record that the contract enrolled: digests of 32 bytes, and the members that signed."""

    handle: bytes
    disclosure: bytes
    prediction: bytes
    nonce: bytes
    members: tuple[int, ...]
    block: int
    transaction: bytes


class TrialContract:
    """One trial. Every method raises ChainUnavailable, and ChainRefused with the contract's reason."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract

    @classmethod
    def deploy(
        cls, chain: Chain, *, origin: bytes, index: int, model: bytes, output: int, threshold: int, quorum: int
    ) -> tuple[TrialContract, Receipt]:
        """A new trial, whose organiser is the account that pays. `origin` is the SHA-256 of the log's origin, `index`
        and `model` (its leaf) say which entry the model's is."""
        artefact = Artefact.load("TrialEnrolment")
        contract, receipt = chain.deploy(artefact, origin, index, model, output, threshold, quorum)
        return cls(contract), receipt

    @classmethod
    def at(cls, chain: Chain, address: str) -> TrialContract:
        """The trial at an address, whose code must be that of this package. Raises ChainRefused, UsageError."""
        return cls(chain.contract(address, Artefact.load("TrialEnrolment")))

    @property
    def address(self) -> str:
        """Where it lies."""
        return self.contract.address

    def add_member(self, key: bytes, possession: bytes) -> Receipt:
        """Add a committee member by public key and proof of possession; for the organiser, before `seal`."""
        return self.contract.send("add_member", _words(key, KEY_BYTES), _words(possession, SIGNATURE_BYTES))

    def seal(self) -> Receipt:
        """Fix the committee; for the organiser."""
        return self.contract.send("seal")

    def issue(self, blinding: bytes) -> tuple[int, bytes, Receipt]:
        """A nonce: the number of its case, the nonce, and the receipt; for the organiser."""
        receipt = self.contract.send("issue", blinding)
        found = self.contract.events("NonceIssued", first_block=receipt.block, last_block=receipt.block)
        for event in found:
            if event.transaction == receipt.transaction:
                return int(event.values["case"]), bytes(event.values["nonce"]), receipt
        raise ChainUnavailable(self.contract.chain.shown, "it shows no event of the nonce that was just issued")

    def enrol(
        self, prediction: bytes, disclosure: bytes, handle: bytes, nonce: bytes, bitmap: int, signature: bytes
    ) -> Receipt:
        """Enrol a record; for anybody who has the signatures."""
        words = _words(signature, SIGNATURE_BYTES)
        return self.contract.send("enrol", prediction, disclosure, handle, nonce, bitmap, words)

    def state(self) -> TrialState:
        """Everything that the contract says of itself but its keys."""
        ask = self.contract.call
        trial = bytes(ask("trial"))
        return TrialState(
            organiser=str(ask("ORGANISER")),
            origin=bytes(ask("ORIGIN")),
            index=int(ask("INDEX")),
            model=bytes(ask("MODEL")),
            output=int(ask("OUTPUT")),
            threshold=int(ask("THRESHOLD")),
            quorum=int(ask("QUORUM")),
            members=int(ask("members")),
            trial=None if trial == _UNSEALED else trial,
            cases=int(ask("cases")),
            participants=int(ask("participants")),
        )

    def key(self, index: int) -> bytes:
        """Public key of a member, 256 bytes."""
        return b"".join(self.contract.call("key", index))

    def message(self, prediction: bytes, disclosure: bytes, handle: bytes, nonce: bytes) -> bytes:
        """What members sign, computed by the contract."""
        return bytes(self.contract.call("message", prediction, disclosure, handle, nonce))

    def is_enrolled(self, handle: bytes) -> bool:
        """Whether a record is in."""
        return bool(self.contract.call("enrolled", handle))

    def enrolments(self) -> Iterator[Enrolled]:
        """Everybody who was enrolled, in order."""
        for event in self.contract.events("Enrolled", first_block=int(self.contract.call("FIRST_BLOCK"))):
            values, bitmap = event.values, int(event.values["bitmap"])
            yield Enrolled(
                handle=bytes(values["handle"]),
                disclosure=bytes(values["disclosure"]),
                prediction=bytes(values["prediction"]),
                nonce=bytes(values["nonce"]),
                members=tuple(i for i in range(bitmap.bit_length()) if bitmap >> i & 1),
                block=event.block,
                transaction=event.transaction,
            )


def _words(data: bytes, size: int) -> Sequence[bytes]:
    if len(data) != size:
        raise UsageError(f"expected {size} bytes, got {len(data)}")
    return [data[i : i + _WORD] for i in range(0, size, _WORD)]
