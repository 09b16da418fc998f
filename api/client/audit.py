"""The auditor: verify a bundle, offline, without any secret and without an FHE library.

`verify_bundle` takes these steps, the cheap ones first. Each is restated beside its code: 1 and 2 in
`audit_evidence.py`, the others in `audit_ckks.py` for predictions on encrypted records and in `audit_joint.py` for
multi-party computation.

 1 bundle       the file is a bundle, and every blob in it has the digest it is named by
 2 log          one checkpoint, signed by a trusted log and cosigned by its witnesses; every entry is in that log
 3 entries      every entry is signed by its author's registered key, in the right role and under the right name
 4 order        (key <) records, {model, records} < prediction, every author older than what it signed
 5 references   prediction, records, (key,) model, schema, policy and coverage belong together
 6 attestation  signed by the server that logged the prediction; it says what the prediction entry says, field by field
 7 head         the ledger head that the prediction names is a past of the checkpoint; nothing was revoked under it
 8 statements   what the proofs are about follows from the entries: inputs, positions, blur and error bound; commitments
 9 certificates of key or records and of the model, and every zero-weight statement
10 proofs       every proof, over the very bytes that are handed out afterwards
11 consent      of a disclosure under a grant (`audit_consent.py`), after step 7: what was disclosed is what the clinic
                consented to show, for this purpose, to this recipient and until then
12 disclosure   if there is one (`audit_disclosure.py`): by the clinic, of answers of this prediction, for one recipient
13 approval     if there is one (`audit_approval.py`), after step 7: hospitals approved the model before the prediction

What is proved, and what is not: docs/spec/protocol.md, sections 0, 5, 7 and 9. Nothing is read from a proof or from the
attestation that is not compared with the ledger or recomputed.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from api.client.audit_ckks import CkksAudit
from api.client.audit_consent import ConsentAudit
from api.client.audit_disclosure import DisclosureAudit
from api.client.audit_evidence import Evidence, LogTrust, Progress
from api.client.audit_joint import JointAudit
from api.client.history import LedgerAccess
from api.client.joint_prediction import VerifiedJointPrediction
from api.client.prediction import VerifiedPrediction
from api.client.shown import VerifiedDisclosure
from api.client.verified_cache import VerifiedCache
from api.entries import JointPrediction
from api.governance import ApprovalContract, Governance
from privacy.errors import VerificationFailed
from privacy.zk.group import ARKWORKS, Group

__all__ = ["Progress", "verify_bundle"]


def verify_bundle(
    path: Path,
    log_key: LogTrust,
    *,
    group: Group = ARKWORKS,
    ledger: LedgerAccess | None = None,
    nonce: bytes | None = None,
    recipient_nonce: bytes | None = None,
    progress: Progress | None = None,
    cache: VerifiedCache | None = None,
    governance: Governance | None = None,
    contract: ApprovalContract | None = None,
) -> VerifiedPrediction | VerifiedJointPrediction | VerifiedDisclosure:
    """Verify everything that a bundle claims. The type of what comes back says what it is about.

    `log_key`: the keys of trusted logs; with a `TrustedLog` that has a policy, a quorum of its witnesses must have
    cosigned; with a `TrustStore` the head is also compared with the last one seen, and kept.
    `ledger`: where to ask for inputs that the bundle leaves out, for revocations and for the present head; without it
    the bundle must carry its inputs, and revocation rests on the server's word at the head that it names. `nonce`: what
    the client sent with its request, to be found in the attestation; `recipient_nonce`: what the recipient of a
    disclosure chose, to be found in it. `cache`: of certificates verified before.
    `governance`: whose approval of the model is demanded, and in which contract; `contract`: that contract, to be asked
    whether they still approve.

    Raises:
        VerificationFailed: with the name of the check.
        DecodeError: malformed bytes.
        OSError: the file, or the server, cannot be read.
    """
    with ExitStack() as stack:
        evidence = Evidence(stack, path, log_key, group, ledger, nonce, progress, cache, governance, contract)
        kind = evidence.open()
        if recipient_nonce is not None and evidence.disclosure is None:
            raise VerificationFailed("disclosure.missing", "a nonce was given, but the bundle shows nobody an answer")
        if governance is not None and evidence.approval is None:
            raise VerificationFailed(
                "approval.missing", "the prediction names no approval of its model; the governance file demands one"
            )
        consent = None if evidence.disclosure is None else ConsentAudit(evidence, evidence.disclosure)
        audit = (JointAudit if kind is JointPrediction else CkksAudit)(evidence, consent)
        prediction = audit.run()
        if consent is None:
            return prediction
        return DisclosureAudit(evidence, consent, recipient_nonce).run(prediction, audit.clinic.body)
