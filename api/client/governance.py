"""A hospital's side of governance: its key, what it signs, and the files in which its signatures are passed on.

    key         64 hex digits, mode 0600; what signs transactions on Ethereum has the same form (`api.chain.keys`)
    signed act  canonical JSON: an approval or a withdrawal with its signature, for whoever logs it or brings it to the
                contract. It is public, and is checked whenever it is read

Needs no web3: a hospital signs without a chain, and an owner logs approvals without one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from cryptography.hazmat.primitives.asymmetric import ec

from api.approval_entries import ApprovalScope, compressed_key, sign_digest, verify_digest
from api.client.history import LedgerAccess, whole_log
from api.entries import Approval, ApprovalSignature, Model, Network, Reference
from api.governance import Governance
from api.registry import Logged, Registry
from ledger import VerifiedHead
from privacy.canonical_json import Address, Codec, CurveKey, CurveSignature, Name, PositiveInteger, Record
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.private_files import create_private, read_limited, read_private

__all__ = [
    "Act",
    "LoggedModel",
    "SignedAct",
    "approval_of",
    "create_hospital_key",
    "find_model",
    "load_act",
    "load_hospital_key",
    "read_log",
    "sign_act",
]

Act = Literal["approve", "withdraw"]
LoggedModel = Logged[Model] | Logged[Network]

_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_SECRET: Final = re.compile(rb"[0-9a-f]{64}\n?")
_MAX_ACT_BYTES: Final = 1 << 12


# -- keys -------------------------------------------------------------------------------------------------------------


def create_hospital_key(path: Path) -> bytes:
    """A fresh key in a new file of mode 0600; its public key, compressed. Raises UsageError if the file exists."""
    key = ec.generate_private_key(ec.SECP256K1())
    try:
        create_private(path, b"%064x\n" % key.private_numbers().private_value)
    except FileExistsError:
        raise UsageError(f"{path} exists already: a key is never overwritten") from None
    return compressed_key(key.public_key())


def load_hospital_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key in a file. Raises UsageError if it cannot be read or others may, DecodeError for anything but a key."""
    data = read_private(path, 65, "the hospital's key")
    if _SECRET.fullmatch(data) is None or not 0 < int(data, 16) < _ORDER:
        raise DecodeError(f"hospital key {path}", "expected 64 lower-case hex digits, without 0x")
    return ec.derive_private_key(int(data, 16), ec.SECP256K1())


# -- what is signed, and on which ledger entry ------------------------------------------------------------------------


def read_log(ledger: LedgerAccess, head: VerifiedHead) -> Registry:
    """Every entry under a verified head, checked. Raises as `whole_log` and `Registry.add` do."""
    registry = Registry(head.origin)
    for _, entry in whole_log(ledger, head):
        registry.add(entry)
    return registry


def find_model(registry: Registry, which: str | int) -> LoggedModel:
    """A model or network by index, or the newest by name ("heart", or "heart 2" with its version).

    Raises UsageError if there is none, if several owners have one of this name, or if it is one model's name and
    another one's name and version.
    """
    models: list[LoggedModel] = [*registry.all(Model), *registry.all(Network)]
    if isinstance(which, int):
        found = [model for model in models if model.reference.index == which]
    else:
        found = [model for model in models if which in (model.body.name, f"{model.body.name} {model.body.version}")]
        found = [model for model in found if registry.revocation(model.reference) is None]
    if not found:
        raise UsageError(f"the ledger has no model {which!r}")
    listed = ", ".join(f"{m.reference.index} of {registry.author_of(m.reference.index).body.name!r}" for m in found)
    if len({model.author for model in found}) > 1:
        raise UsageError(f"several owners have a model {which!r}, say which by its ledger index: {listed}")
    if len({model.body.name for model in found}) > 1:
        raise UsageError(f"several models are called {which!r}, say which by its ledger index: {listed}")
    return max(found, key=lambda model: model.reference.index)


@dataclass(frozen=True)
class SignedAct(Record):
    """A hospital's approval or withdrawal, with everything that its signature is bound to."""

    format: Literal["sealproof/signed-act/v1"]
    act: Act
    chain: PositiveInteger
    contract: Address
    origin: Name
    model: Reference
    key: CurveKey
    signature: CurveSignature

    @property
    def digest(self) -> bytes:
        """What is signed."""
        scope = ApprovalScope(self.chain, self.contract, self.origin)
        return scope.approval_digest(self.model) if self.act == "approve" else scope.withdrawal_digest(self.model)

    def encode(self) -> bytes:
        """The bytes of the file."""
        return _ACT.encode(self)


_ACT: Final = Codec(SignedAct, "signed act", _MAX_ACT_BYTES)


def sign_act(
    act: Act, governance: Governance, origin: str, model: Reference, private_key: ec.EllipticCurvePrivateKey
) -> SignedAct:
    """Approve or withdraw a model entry of the log `origin`. Raises UsageError if the key is no hospital's."""
    key = compressed_key(private_key.public_key())
    if key not in governance.hospitals:
        raise UsageError(f"the governance file does not list the key {key.hex()}: its signature would not count")
    scope = governance.scope(origin)
    digest = scope.approval_digest(model) if act == "approve" else scope.withdrawal_digest(model)
    signature = sign_digest(digest, private_key)
    return SignedAct(
        "sealproof/signed-act/v1", act, governance.chain, governance.contract, origin, model, key, signature
    )


def load_act(path: Path) -> SignedAct:
    """A signed act, its signature verified.

    Raises UsageError if the file cannot be read, DecodeError, VerificationFailed(`approval.signature`).
    """
    found = _ACT.decode(read_limited(path, _MAX_ACT_BYTES))
    try:
        verify_digest(found.digest, found.key, found.signature)
    except UsageError as error:
        raise DecodeError(f"signed act {path}", str(error)) from error
    return found


def approval_of(acts: Sequence[SignedAct], governance: Governance, origin: str) -> Approval:
    """The ledger entry that these approvals make up, which satisfies the governance file.

    The same approval given twice is one. Raises VerificationFailed for acts that are no approvals of one model for
    this governance and log, by hospitals of it, or too few: `approval.act`, `approval.model`, `approval.chain`,
    `approval.contract`, `approval.log`, `approval.hospital`, `approval.threshold`.
    """
    by_key: dict[bytes, SignedAct] = {}
    for signed in acts:
        for check, fits in (
            ("act", signed.act == "approve"),
            ("model", signed.model == acts[0].model),
            ("chain", signed.chain == governance.chain),
            ("contract", signed.contract == governance.contract),
            ("log", signed.origin == origin),
            ("hospital", signed.key in governance.hospitals),
        ):
            if not fits:
                raise VerificationFailed(
                    f"approval.{check}",
                    f"the signature of {signed.key.hex()} is another {check}'s than that of the others or of the "
                    "governance file",
                )
        by_key[signed.key] = signed
    if len(by_key) < governance.threshold:
        raise VerificationFailed("approval.threshold", f"{len(by_key)} of {governance.threshold} hospitals have signed")
    return Approval(
        model=acts[0].model,
        chain=governance.chain,
        contract=governance.contract,
        threshold=governance.threshold,
        signatures=tuple(ApprovalSignature(key, by_key[key].signature) for key in sorted(by_key)),
    )
