"""The step of an audit about hospitals' approval of the model, for predictions of both schemes.

A bundle whose attestation names an approval carries its ledger entry. That the entry is in the log, signed by its
author, and under the head that the prediction names is checked with the other entries (steps 2 to 4 and 7); then

13 approval    about this very model, older than the prediction, every signature holds for this model, chain, contract
               and log; with a governance file, enough of its hospitals signed; with a chain, they still approve

It is taken before the expensive steps. Who is a hospital and how many are needed comes from the reader's governance
file, never from the entry.
"""

from __future__ import annotations

from api.approval_entries import verify_approval
from api.binding import Located
from api.entries import Approval, Reference
from api.governance import ApprovalContract, Governance
from privacy.errors import VerificationFailed

__all__ = ["check_approval"]


def check_approval(
    approval: Located[Approval],
    model: Reference,
    prediction: Reference,
    origin: str,
    governance: Governance | None,
    contract: ApprovalContract | None,
) -> str:
    """Step 13; what it shows, in words. `contract` is asked only with a governance file.

    Raises VerificationFailed: `approval.model`, `ledger.order`, `approval.signature`, and as `Governance.check` and
    `Governance.check_contract`. And what the contract's reader raises.
    """
    body, index = approval.body, approval.reference.index
    if body.model != model:
        raise VerificationFailed("approval.model", f"entry {index} approves another model than the one that was used")
    if not model.index < index < prediction.index:
        raise VerificationFailed("ledger.order", f"approval {index} is not between its model and the prediction")
    verify_approval(body, origin)
    where = f"contract 0x{body.contract.hex()} on chain {body.chain}"
    if governance is None:
        return (
            f"{len(body.signatures)} keys signed an approval of this model for {where}. Whose keys they are was not "
            "asked: there is no governance file."
        )
    signers = governance.check(body)
    sentence = (
        f"{len(signers)} of {len(governance.hospitals)} hospitals approved this model before the prediction, "
        f"{governance.threshold} were needed ({where})."
    )
    if contract is None:
        return sentence + " Whether they still do was not asked."
    return f"{sentence} In the contract {governance.check_contract(contract, origin, model)} approve it now."
