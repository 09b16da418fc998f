"""What the ledger and the contracts cost, from benchmarks/results/{ledger,evm}.json and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from doc_cost import FOLDER, shown_size, shown_time
from doc_tables import table

__all__ = ["EVM", "LEDGER", "PARTS"]

LEDGER, EVM = FOLDER / "ledger.json", FOLDER / "evm.json"

_PLACES = {"sqlite": "SQLite", "tiles": "plain files", "postgres": "PostgreSQL"}
_ABSENT = "not measured yet"


def _machine(result: Mapping[str, Any], packages: Mapping[str, str]) -> str:
    machine, versions = result["machine"], result["versions"]
    named = [f"{label} {versions[name]}" for name, label in packages.items() if name in versions]
    return f"{machine['cpu']}, {machine['cores']} cores; {', '.join(named)}"


def ledger_cost() -> str:
    """Appends by storage, beside a flush of the disk and pymerkle; then proofs."""
    if not LEDGER.exists():
        return f"The ledger: {_ABSENT} (`sealproof bench ledger`)."
    result: Mapping[str, Any] = json.loads(LEDGER.read_text(encoding="utf-8"))
    seconds, ratios, work = result["seconds"], result["ratios"], result["work"]

    def median(name: str) -> str:
        return shown_time(seconds[name]["median"]) if name in seconds else ""

    threads, batch = f"{work['threads']} threads", f"in batches of {work['batch']}"
    steps = {
        "single": "one after the other",
        "threads": f"from {threads} at a time",
        "batch": batch,
        "published": "one, until a head with it is published",
        "integrate": f"longest wait of an append, {threads}",
    }
    columns: dict[str, tuple[str, Mapping[str, str]]] = {
        place: (label, {step: f"{place}_{step}" for step in steps})
        for place, label in _PLACES.items()
        if f"{place}_single" in seconds
    }
    if "pymerkle_single" in seconds:
        columns["pymerkle"] = "pymerkle, unsigned", {"single": "pymerkle_single", "batch": "pymerkle_batch"}
    columns["disk"] = "the disk alone: write and flush", {"single": "fsync", "batch": "fsync_batch"}
    head = [f"an entry of {result['bytes']['entry']} bytes, durable", *(label for label, _ in columns.values())]
    rows = [[label, *(median(names.get(step, "")) for _, names in columns.values())] for step, label in steps.items()]
    lines = [
        table(head, rows),
        "",
        f"With SQLite an append takes {_factor(ratios['sqlite_single_over_fsync'])} times as long as a flush of the "
        f"disk alone, and from {threads} at a time {_factor(ratios['sqlite_threads_over_fsync'])} times. In a "
        f"log of {work['proof_log']:,} entries an inclusion proof is made in {median('proof_inclusion')}"
        + (f" (pymerkle: {median('pymerkle_proof_inclusion')})" if "pymerkle_proof_inclusion" in seconds else "")
        + f", a consistency proof in {median('proof_consistency')}; opening that log and checking all of it takes "
        f"{median('opening')}, its file has {shown_size(result['bytes']['log_file'])}.",
        "",
        f"Medians of one run on {_machine(result, _LEDGER_VERSIONS)}; all numbers: "
        "[ledger.json](benchmarks/results/ledger.json), as a picture: [ledger.png](benchmarks/results/ledger.png).",
    ]
    return "\n".join(lines)


_LEDGER_VERSIONS = {
    "python": "Python",
    "sealproof": "sealproof",
    "psycopg": "psycopg",
    "pymerkle": "pymerkle",
}
_EVM_VERSIONS = {"compiler": "", "evm": "EVM", "anvil": "anvil", "web3": "web3", "py_arkworks_bls12381": "arkworks"}


def _factor(ratio: float | None) -> str:
    return "?" if ratio is None else f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}"


def chain_cost() -> str:
    """Gas of every transaction, and times of the committee's signatures."""
    if not EVM.exists():
        return f"Contracts: {_ABSENT} (`sealproof bench evm`)."
    result: Mapping[str, Any] = json.loads(EVM.read_text(encoding="utf-8"))
    gas, seconds, ratios = result["gas"], result["seconds"], result["ratios"]
    anchor, approvals, trial = gas["anchor"], gas["approvals"], gas["trial"]
    first, *later = anchor["advance"]
    rows = [["HeadAnchor", "deploy", anchor["deploy"]], ["", "first head", first["gas"]]]
    rows += [
        ["", f"from {row['from']:,} to {row['to']:,} entries ({row['hashes']} hashes)", row["gas"]] for row in later
    ]
    rows += [
        ["ModelApprovals", "deploy", approvals["deploy"]],
        ["", "first approval of a model", approvals["approve"]["first"]],
        ["", "another one", max(approvals["approve"]["next"])],
        ["", "withdrawal", approvals["withdraw"]],
        ["TrialEnrolment", "deploy", trial["deploy"]],
        ["", "add a member", max(trial["add_member"]["next"])],
        ["", "seal the committee", trial["seal"]],
        ["", "issue a nonce", max(trial["issue"]["next"])],
    ]
    rows += [["", f"enrol, {_members(row['signers'])}", row["gas"]] for row in trial["enrol"]["next"]]

    def median(name: str) -> str:
        return shown_time(seconds[name]["median"])

    versions = ", ".join(f"{label} {result['versions'][name]}".strip() for name, label in _EVM_VERSIONS.items())
    return "\n".join(
        [
            table(["contract", "transaction", "gas"], [[name, what, f"{value:,}"] for name, what, value in rows]),
            "",
            f"A further hash of a proof costs {_factor(ratios['advance_gas_per_hash'])} gas, a further signer of an "
            f"enrolment {_factor(ratios['enrol_gas_per_further_signer'])}; a hospital's key is recovered from its "
            "signature in one or two tries, of about 3,000 gas each. Off the chain, a member signs in "
            f"{median('sign')}, and the signature of three is verified in {median('verify_3')}, by the reference "
            f"implementation in {median('verify_3_reference')}.",
            "",
            f"Gas on a development chain ({versions}); seconds are medians of one run on {result['machine']['cpu']}, "
            f"{result['machine']['cores']} cores; all numbers: [evm.json](../benchmarks/results/evm.json).",
        ]
    )


def _members(count: int) -> str:
    return "1 member" if count == 1 else f"{count} members"


PARTS: Mapping[str, Callable[[], str]] = {"ledger-cost": ledger_cost, "chain-cost": chain_cost}
