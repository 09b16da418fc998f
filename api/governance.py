"""Governance files: which hospitals approve models, how many are needed, and in which contract.

    {"chain": 1, "contract": "0x...", "threshold": 2, "hospitals": ["<compressed secp256k1 key, 66 hex digits>", ...]}

Whoever must be convinced that hospitals approved a model (an auditor, the operator of a server) writes this file, or
gets it from somebody whom he trusts: it is the only place where the threshold and the keys come from. An approval on
the ledger shows who signed (`api.approval_entries`); whether nobody has withdrawn since, only the contract knows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Protocol

from pydantic import Field, TypeAdapter, ValidationError

from api.approval_entries import MAX_HOSPITALS, Approval, ApprovalScope, check_curve_key, check_distinct
from api.entry_parts import Reference
from privacy.canonical_json import CurveKey, PositiveInteger, Record
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.private_files import read_limited

__all__ = ["ApprovalContract", "ApprovalState", "Governance"]

ApprovalState = Literal["none", "approved", "withdrawn"]
"""What a contract knows of one hospital and one model entry. Withdrawn is for good."""

_MAX_FILE_BYTES: Final = 1 << 14
_WHAT: Final = "governance file"


class ApprovalContract(Protocol):
    """A contract ModelApprovals, as its readers see it (`api.chain.governance`)."""

    def states(self, origin: str, model: Reference, hospitals: Sequence[bytes]) -> Sequence[ApprovalState]:
        """What the contract knows now of each of these hospitals (compressed keys) and this entry of the log `origin`.

        Raises ledger.ChainUnavailable if it cannot be asked, ledger.ChainRefused if it is another contract.
        """
        ...


@dataclass(frozen=True)
class _File(Record):
    chain: PositiveInteger
    contract: Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{40}$")]
    threshold: PositiveInteger
    hospitals: tuple[CurveKey, ...]


_FILE: Final = TypeAdapter(_File)


@dataclass(frozen=True)
class Governance:
    """Models count as approved when `threshold` of `hospitals` (compressed keys) signed for this contract and chain."""

    chain: int
    contract: bytes
    threshold: int
    hospitals: tuple[bytes, ...]

    def __post_init__(self) -> None:
        for key in self.hospitals:
            check_curve_key(key)
        check_distinct(list(self.hospitals))
        if not 1 <= self.threshold <= len(self.hospitals) <= MAX_HOSPITALS:
            raise UsageError(
                f"{self.threshold} of {len(self.hospitals)} hospitals: at least one is needed, no more than there are, "
                f"and there are at most {MAX_HOSPITALS}"
            )
        if len(self.contract) != 20 or self.chain < 1:
            raise UsageError("a contract has an address of 20 bytes, on a chain with an id of at least 1")

    @classmethod
    def parse(cls, data: bytes) -> Governance:
        """The governance that a file says. Raises DecodeError."""
        if len(data) > _MAX_FILE_BYTES:
            raise DecodeError(_WHAT, f"more than {_MAX_FILE_BYTES} bytes")
        try:
            json.loads(data, object_pairs_hook=_without_repeats)  # pydantic would take the last of two equal names
            found = _FILE.validate_json(data)
            return cls(found.chain, bytes.fromhex(found.contract[2:]), found.threshold, found.hospitals)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise DecodeError(_WHAT, f"{place}: {first['msg']}" if place else first["msg"]) from None
        except (ValueError, RecursionError) as error:
            raise DecodeError(_WHAT, str(error)) from error

    @classmethod
    def load(cls, path: Path) -> Governance:
        """The governance in the file `path`. Raises UsageError if it cannot be read, DecodeError."""
        return cls.parse(read_limited(path, _MAX_FILE_BYTES))

    def encode(self) -> bytes:
        """The bytes of the file."""
        said = {
            "chain": self.chain,
            "contract": f"0x{self.contract.hex()}",
            "threshold": self.threshold,
            "hospitals": [key.hex() for key in self.hospitals],
        }
        return json.dumps(said, indent=2).encode("ascii") + b"\n"

    def scope(self, origin: str) -> ApprovalScope:
        """What signatures for models of the log `origin` are bound to."""
        return ApprovalScope(self.chain, self.contract, origin)

    def signers(self, approval: Approval) -> tuple[bytes, ...]:
        """Which of the hospitals signed an approval whose signatures were verified (`verify_approval`)."""
        signed = {signature.key for signature in approval.signatures}
        return tuple(key for key in self.hospitals if key in signed)

    def check(self, approval: Approval) -> tuple[bytes, ...]:
        """The hospitals that signed an approval whose signatures were verified; they are enough.

        The threshold is this file's, never the entry's. Raises VerificationFailed: `approval.chain`,
        `approval.contract`, `approval.threshold`.
        """
        if approval.chain != self.chain:
            raise VerificationFailed(
                "approval.chain", f"for chain {approval.chain}, the governance file says {self.chain}"
            )
        if approval.contract != self.contract:
            raise VerificationFailed(
                "approval.contract",
                f"for contract 0x{approval.contract.hex()}, the governance file says 0x{self.contract.hex()}",
            )
        signers = self.signers(approval)
        if len(signers) < self.threshold:
            raise VerificationFailed(
                "approval.threshold",
                f"signed by {len(signers)} of the hospitals in the governance file, {self.threshold} are needed",
            )
        return signers

    def check_contract(self, contract: ApprovalContract, origin: str, model: Reference) -> int:
        """How many of the hospitals approve this model in the contract now; they are enough.

        Raises VerificationFailed: `approval.withdrawn`, or `approval.not-relayed` if nobody withdrew and the contract
        has not been told of enough approvals. And what the contract's reader raises.
        """
        states = list(contract.states(origin, model, self.hospitals))
        approved, withdrawn = states.count("approved"), states.count("withdrawn")
        if approved >= self.threshold:
            return approved
        what = f"the contract has {approved} of the {self.threshold} approvals that are needed for entry {model.index}"
        if withdrawn:
            raise VerificationFailed("approval.withdrawn", f"{what}: {withdrawn} hospital(s) withdrew theirs")
        raise VerificationFailed(
            "approval.not-relayed", f"{what}: bring the signatures there with `sealproof governance submit`"
        )


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is there twice")
    return found
