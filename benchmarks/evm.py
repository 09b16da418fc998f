"""What the contracts cost: `python benchmarks/evm.py [--rounds 5]`, on a development chain (anvil) of this machine.

Gas of one transaction each, as a receipt tells it, so with its 21,000 base and its calldata: deployments; `advance` of
HeadAnchor between trees of several sizes; ModelApprovals' `approve` and `withdraw`; TrialEnrolment's committee, nonces
and `enrol` by 1, 3 and 8 members. `verify_inclusion` is a view that costs nothing when asked; its gas is what a
transaction would pay. Keys and digests are fixed, so the figures are the same every time, but for those of
ModelApprovals: an ECDSA signature is random, and one in two takes a second try of ecrecover (3,200 gas).

Seconds are those of the committee's signatures off the chain, in both implementations.

Writes benchmarks/results/evm.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from measure import Step, interleave, machine, summary, versions  # noqa: E402

from api.approval_entries import compressed_key, sign_digest  # noqa: E402
from api.demo.play_chain import anvil_version, find_anvil, play_chains, why_no_chain  # noqa: E402
from ledger import Checkpoint, Signer, VerifiedHead, open_checkpoint  # noqa: E402
from ledger.anchors.evm import Artefact, Chain  # noqa: E402
from ledger.anchors.head_anchor import HeadAnchor  # noqa: E402
from ledger.anchors.model_approvals import ModelApprovals, account_of_key  # noqa: E402
from ledger.anchors.trial import TrialContract  # noqa: E402
from ledger.checkpoint import sign_checkpoint  # noqa: E402
from ledger.merkle import consistency_proof, inclusion_proof  # noqa: E402
from privacy.zk.bls import (  # noqa: E402
    PAIRING,
    REFERENCE_PAIRING,
    Pairing,
    SecretKey,
    aggregate,
    public_key_eip2537,
    signature_eip2537,
    verify_aggregate,
    verify_possession,
)

ORIGIN = "evm.localhost/sealproof"
SIZES = (1_000, 1_001, 1_000_000, 1_000_001, 1_048_575)
HOSPITALS = 5
MEMBERS = 8
SIGNERS = (1, 3, 8)
CONTRACTS = ("HeadAnchor", "ModelApprovals", "TrialEnrolment")
PACKAGES = ("sealproof", "web3", "py_arkworks_bls12381", "py-ecc")


class Tree:
    """A full RFC 6962 tree of numbered leaves."""

    def __init__(self, size: int) -> None:
        level = [digest(b"leaf", number) for number in range(size)]
        self._levels = [level]
        while len(level) > 1:
            pairs = range(0, len(level) - len(level) % 2, 2)
            level = [hashlib.sha256(b"\x01" + level[i] + level[i + 1]).digest() for i in pairs]
            self._levels.append(level)

    def node(self, level: int, index: int) -> bytes:
        """Hash of a complete subtree."""
        return self._levels[level][index]

    def root(self, size: int) -> bytes:
        """Root of the first `size` leaves."""
        root, level, rest = b"", 0, size
        while rest:
            if rest & 1:
                node = self.node(level, rest - 1)
                root = hashlib.sha256(b"\x01" + node + root).digest() if root else node
            level, rest = level + 1, rest >> 1
        return root


def digest(what: bytes, number: int) -> bytes:
    """A fixed value."""
    return hashlib.sha256(b"%s %d" % (what, number)).digest()


def anchored(chain: Chain, tree: Tree) -> dict[str, Any]:
    """HeadAnchor: from the empty tree through `SIZES`, then proofs of entries in the largest."""
    signer = Signer(ORIGIN, digest(b"log", 0))

    def head(size: int) -> VerifiedHead:
        note = sign_checkpoint(Checkpoint(ORIGIN, size, tree.root(size)), signer)
        return open_checkpoint(note, signer.verifier, ORIGIN)

    anchor, receipt = HeadAnchor.deploy(chain, ORIGIN)
    rows, last = [], 0
    for size in SIZES:
        proof = consistency_proof(last, size, tree.node) if last else []
        gas = anchor.advance(head(size), proof).gas_used
        rows.append({"from": last, "to": size, "hashes": len(proof), "gas": gas})
        last = size
    places = (0, last // 2, last - 1)
    inclusion = []
    for place in places:
        hashes = inclusion_proof(place, last, tree.node)
        gas = estimate(anchor.contract, "verify_inclusion", tree.node(0, place), place, hashes)
        inclusion.append({"index": place, "size": last, "hashes": len(hashes), "gas": gas})
    return {"deploy": receipt.gas_used, "advance": rows, "verify_inclusion": inclusion}


def estimate(contract: Any, function: str, *arguments: Any) -> int:
    """Gas that a transaction calling a view would take."""
    return int(contract._contract.functions[function](*arguments).estimate_gas())


def approved(chain: Chain) -> dict[str, Any]:
    """ModelApprovals: three hospitals approve a model, and one withdraws."""
    secrets = [ec.derive_private_key(number + 1, ec.SECP256K1()) for number in range(HOSPITALS)]
    accounts = [account_of_key(compressed_key(secret.public_key())) for secret in secrets]
    contract, receipt = ModelApprovals.deploy(chain, accounts, 3, ORIGIN)
    leaf = digest(b"model", 0)
    message = contract.approval_digest(7, leaf)
    approvals = [
        contract.approve(account, 7, leaf, sign_digest(message, secret)).gas_used
        for account, secret in zip(accounts[:3], secrets, strict=False)
    ]
    assert contract.approved(7, leaf)
    signature = sign_digest(contract.withdrawal_digest(7, leaf), secrets[0])
    withdrawn = contract.withdraw(accounts[0], 7, leaf, signature).gas_used
    return {
        "deploy": receipt.gas_used,
        "approve": {"first": approvals[0], "next": approvals[1:]},
        "withdraw": withdrawn,
    }


def secret_key(number: int) -> SecretKey:
    """A committee member's, the same every time."""
    return SecretKey(int.from_bytes(digest(b"member", number), "big") >> 2)


def enrolled(chain: Chain) -> dict[str, Any]:
    """TrialEnrolment: a committee of eight, then enrolments by 1, 3 and 8 of them."""
    contract, receipt = TrialContract.deploy(
        chain, origin=digest(b"origin", 0), index=7, model=digest(b"model", 0), output=0, threshold=55, quorum=1
    )
    secrets = [secret_key(number) for number in range(MEMBERS)]
    added = [
        contract.add_member(public_key_eip2537(s.public), signature_eip2537(s.prove_possession())).gas_used
        for s in secrets
    ]
    sealed = contract.seal().gas_used
    issued, rows = [], []
    # The first enrolment of a trial pays for a counter that is zero before: it is told apart.
    for patient, signers in enumerate((1, *SIGNERS)):
        _, nonce, issue = contract.issue(digest(b"blinding", patient))
        issued.append(issue.gas_used)
        fields = [digest(b"prediction", 0), digest(b"disclosure", patient), digest(b"handle", patient), nonce]
        message = contract.message(*fields)
        signature = aggregate([secret.sign(message) for secret in secrets[:signers]])
        gas = contract.enrol(*fields, (1 << signers) - 1, signature_eip2537(signature)).gas_used
        rows.append({"signers": signers, "gas": gas})
    return {
        "deploy": receipt.gas_used,
        "add_member": {"first": added[0], "next": added[1:]},
        "seal": sealed,
        "issue": {"first": issued[0], "next": issued[1:]},
        "enrol": {"first": rows[0]["gas"], "next": rows[1:]},
    }


def signatures(rounds: int) -> dict[str, Any]:
    """Seconds of what members and readers do without a chain."""
    secrets = [secret_key(number) for number in range(3)]
    message = digest(b"message", 0)
    proofs = [secret.prove_possession() for secret in secrets]
    keys = [verify_possession(s.public, proof) for s, proof in zip(secrets, proofs, strict=True)]
    signature = aggregate([secret.sign(message) for secret in secrets])

    def check(pairing: Pairing) -> None:
        verify_aggregate(keys, message, signature, pairing)

    steps = [
        Step("sign", lambda: secrets[0].sign(message), 20),
        Step("verify_possession", lambda: verify_possession(secrets[0].public, proofs[0]), 20),
        Step("aggregate_3", lambda: aggregate([secret.sign(message) for secret in secrets]), 20),
        Step("verify_3", lambda: check(PAIRING), 20),
        Step("verify_3_reference", lambda: check(REFERENCE_PAIRING)),
    ]
    return {name: summary(values) for name, values in interleave(steps, rounds, warm_up=True).items()}


def ratios(gas: dict[str, Any]) -> dict[str, float]:
    """What follows from the gas beside it."""
    enrol = {row["signers"]: row["gas"] for row in gas["trial"]["enrol"]["next"]}
    advance = gas["anchor"]["advance"][1:]
    fewest, most = (pick(advance, key=lambda row: (row["hashes"], row["gas"])) for pick in (min, max))
    return {
        "enrol_gas_per_further_signer": (enrol[8] - enrol[1]) / 7,
        "enrol_8_over_1": enrol[8] / enrol[1],
        "advance_gas_per_hash": (most["gas"] - fewest["gas"]) / (most["hashes"] - fewest["hashes"]),
    }


def measure(rounds: int) -> dict[str, Any]:
    """Everything, on a fresh chain."""
    program = find_anvil()
    assert program is not None
    tree = Tree(max(SIZES))
    with tempfile.TemporaryDirectory() as folder, play_chains(Path(folder), (31337,)) as (chain,):
        gas = {"anchor": anchored(chain, tree), "approvals": approved(chain), "trial": enrolled(chain)}
    artefacts = [Artefact.load(name) for name in CONTRACTS]
    return {
        "ratios": ratios(gas),
        "gas": gas,
        "seconds": signatures(rounds),
        "bytes": {artefact.name: len(artefact.runtime) + artefact.immutable_bytes for artefact in artefacts},
        "work": {"tree_sizes": SIZES, "hospitals": HOSPITALS, "members": MEMBERS, "signers": SIGNERS},
        "versions": {
            **versions(PACKAGES),
            "anvil": anvil_version(program),
            "compiler": artefacts[0].compiler,
            "evm": artefacts[0].evm_version,
        },
        "machine": machine(),
        "command": f"python benchmarks/evm.py --rounds {rounds}",
    }


def show(gas: dict[str, Any]) -> None:
    """The table."""

    def row(name: str, value: int, more: str = "") -> None:
        print(f"{name:<44} {value:>10,} gas  {more}")

    for name, part in (("HeadAnchor", "anchor"), ("ModelApprovals", "approvals"), ("TrialEnrolment", "trial")):
        row(f"deploy {name}", gas[part]["deploy"])
    for one in gas["anchor"]["advance"]:
        row(f"advance {one['from']:,} to {one['to']:,}", one["gas"], f"{one['hashes']} hashes")
    for one in gas["anchor"]["verify_inclusion"]:
        row(f"verify_inclusion {one['index']:,} of {one['size']:,}", one["gas"], f"{one['hashes']} hashes")
    row("approve", most(gas["approvals"]["approve"]["next"]))
    row("withdraw", gas["approvals"]["withdraw"])
    row("add_member", most(gas["trial"]["add_member"]["next"]))
    row("seal", gas["trial"]["seal"])
    row("issue", most(gas["trial"]["issue"]["next"]))
    for one in gas["trial"]["enrol"]["next"]:
        row(f"enrol, {one['signers']} signers", one["gas"])


def most(values: Sequence[int]) -> int:
    """The greatest."""
    return max(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write; default: benchmarks/results/evm.json")
    parser.add_argument("--rounds", type=int, default=5, help="of the signatures; gas is the same every time")
    arguments = parser.parse_args()
    if not 1 <= arguments.rounds <= 100:
        parser.error("--rounds is from 1 to 100")
    missing = why_no_chain()
    if missing is not None:
        parser.error(missing)
    result = measure(arguments.rounds)
    out = arguments.json or HERE / "results" / "evm.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    show(result["gas"])
    for name, times in result["seconds"].items():
        print(f"{name:<44} median {1000 * times['median']:8.2f} ms")


if __name__ == "__main__":
    main()
