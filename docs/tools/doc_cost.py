"""The README's cost tables, from benchmarks/results/{overhead,latency,mpc}.json and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
LATENCY, RESULTS, MPC = FOLDER / "latency.json", FOLDER / "overhead.json", FOLDER / "mpc.json"


__all__ = ["LATENCY", "MPC", "PARTS", "RESULTS", "shown_size", "shown_time"]


def shown_time(seconds: float) -> str:
    """A time with three figures or so."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} µs"


def _cost() -> str:
    result: Mapping[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    seconds, ratios, size, work = result["seconds"], result["ratios"], result["bytes"], result["work"]
    largest = max(work["blocks"])

    def median(name: str) -> float:
        value: float = seconds[name]["median"]
        return value

    one = median("evaluate") + median("prove")
    many = (median(f"evaluate_{largest}") + median(f"prove_{largest}")) / largest
    table = [
        f"| {work['patients']} patients x {work['features']} features | one block | "
        f"{largest} blocks in one proof, a block |",
        "|---|---|---|",
        f"| bare SEAL: encode, encrypt, serialise | {shown_time(median('seal_encrypt'))} | |",
        f"| clinic: encrypt, digests included | {shown_time(median('clinic_encrypt'))} | "
        f"{shown_time(median(f'clinic_encrypt_{largest}') / largest)} |",
        f"| server: evaluate and prove | {shown_time(one)} | {shown_time(many)} |",
        f"| auditor: verify | {shown_time(median('verify'))} | {shown_time(median(f'verify_{largest}') / largest)} |",
        f"| evaluate and prove / encrypt | {ratios['prove_over_encrypt']:.2f} | "
        f"{ratios[f'prove_over_encrypt_{largest}']:.2f} |",
        f"| verify / encrypt | {ratios['verify_over_encrypt']:.2f} | {ratios[f'verify_over_encrypt_{largest}']:.3f} |",
        f"| proof | {size['proof'] / 1e3:.1f} kB | {size[f'proof_{largest}'] / largest / 1e3:.1f} kB |",
    ]
    latency = json.loads(LATENCY.read_text(encoding="utf-8"))["seconds"]["predict"]
    machine, versions = result["machine"], result["versions"]
    shown = ("tenseal", "py_arkworks_bls12381", "numpy", "ezkl", "concrete-ml")
    lines = [
        *table,
        "",
        f"One patient alone, from encryption to the decrypted answer: {shown_time(median('rows_total'))}, of which "
        f"{size['rows_upload'] / 1e3:.1f} kB are uploaded; over HTTP, with the ledger and all checks, "
        f"{shown_time(latency['median'])} from the request to the verified answer "
        "([latency.json](benchmarks/results/latency.json)). A key certificate (once a key) has "
        f"{size['key_certificate'] / 1e6:.2f} MB and takes {shown_time(median('key_certificate_prove'))} to make and "
        f"{shown_time(median('key_certificate_verify'))} to check.",
        *_peers(result),
        *_disclosures(result),
        "",
        f"Medians of one run on {machine['cpu']}, {machine['cores']} cores; Python {versions['python']}, "
        + ", ".join(f"{name} {versions[name]}" for name in shown if name in versions)
        + "; all numbers, with minima and maxima: [overhead.json](benchmarks/results/overhead.json), "
        "as a picture: [overhead.png](benchmarks/results/overhead.png).",
        *_two_parties(),
    ]
    return "\n".join(lines)


def _disclosures(result: Mapping[str, Any]) -> list[str]:
    """What it costs to show answers; nothing before it was measured."""
    seconds, size, ratios = result["seconds"], result["bytes"], result["ratios"]
    counts = [count for count in (1, 16, 100) if f"disclose_threshold_{count}" in seconds]
    if not counts:
        return []
    rows = {"clinic: prove": "disclose", "consumer: verify the proof": "verify_disclosure"}
    table = ["| answers that are disclosed in one proof | " + " | ".join(map(str, counts)) + " |"]
    table.append("|---" * (1 + len(counts)) + "|")
    for label, name in rows.items():
        for kind in ("threshold", "exact"):
            values = [shown_time(seconds[f"{name}_{kind}_{count}"]["median"]) for count in counts]
            table.append(f"| {label}, {kind} | {' | '.join(values)} |")
    for kind in ("threshold", "exact"):
        values = [shown_size(size[f"disclosure_{kind}_{count}"]) for count in counts]
        table.append(f"| proof, {kind} | {' | '.join(values)} |")
    for label, name in rows.items():
        values = [f"{ratios[f'{name}_over_encrypt_{count}']:.2f}" for count in counts]
        table.append(f"| {label} / encrypt a block of {result['work']['patients']} | {' | '.join(values)} |")
    latency = json.loads(LATENCY.read_text(encoding="utf-8")).get("disclosure")
    if not latency:
        return ["", *table]
    whole = shown_time(latency["seconds"]["disclosure"]["median"])
    text = (
        f"Over HTTP, from a consumer's request to its verified disclosure, with consent, ledger and all checks of the "
        f"prediction: {whole}, certificates verified before."
    )
    return ["", *table, "", text]


def shown_size(count: float) -> str:
    """A number of bytes, in bytes, kB or MB."""
    if count < 1e3:
        return f"{count:.0f} B"
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _factor(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}"


def _two_parties() -> list[str]:
    """Two-party computation, a patient, beside CrypTen alone; nothing before it was measured."""
    if not MPC.exists():
        return []
    result: Mapping[str, Any] = json.loads(MPC.read_text(encoding="utf-8"))
    seconds, size, work, ratios = result["seconds"], result["bytes"], result["work"], result["ratios"]
    names = {"linear": "linear", "relu": "ReLU"}
    columns = [(shape, count) for shape in work["models"] for count in work["batches"]]
    full, widths = work["patients_per_proof"], "-".join(map(str, work["models"]["relu"]))
    times = {
        "crypten": "CrypTen alone",
        "compute": "ours without proof",
        "prove": "ours with proof, verified by both nodes",
        "verify": "auditor: verify",
    }
    sizes = {"link": "between the nodes, both directions", "proof": "proof"}
    table = [
        "| two parties, a patient, in batches of | "
        + " | ".join(f"{names[shape]}, {count}" for shape, count in columns)
        + " |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for name, label in times.items():
        values = [shown_time(seconds[f"{name}_{s}_{n}"]["median"] / n) for s, n in columns]
        table.append(f"| {label} | {' | '.join(values)} |")
    for name, label in sizes.items():
        table.append(f"| {label} | {' | '.join(shown_size(size[f'{name}_{s}_{n}'] / n) for s, n in columns)} |")
    certificate = f"records_certificate_{full}"
    made, checked = (shown_time(seconds[f"network_certificate_relu_{step}"]["median"]) for step in ("prove", "verify"))
    latency = json.loads(LATENCY.read_text(encoding="utf-8")).get("mpc")
    over_http = (
        [
            f"One patient and {widths} over HTTP, with server, both nodes, dealer and ledger: "
            f"{shown_time(latency['seconds']['predict']['median'])} from the request to the verified answer."
        ]
        if latency
        else []
    )
    text = [
        f"Two parties, real patients ({work['data']}), a linear model and a {widths} network with ReLU, and a "
        "dealer that sees no data; nodes, dealer and auditor are processes of one machine, connected as in "
        f"production. In batches of {full}, ours without proof takes "
        f"{_factor(ratios[f'compute_over_crypten_linear_{full}'])} (linear) and "
        f"{_factor(ratios[f'compute_over_crypten_relu_{full}'])} (ReLU) times as long as CrypTen alone, and with proof "
        f"{_factor(ratios[f'proof_over_compute_linear_{full}'])} and "
        f"{_factor(ratios[f'proof_over_compute_relu_{full}'])} times as long as without.",
        *over_http,
        f"The certificate of the records has {shown_size(ratios['records_certificate_bytes_per_patient'])} a patient "
        f"and is made in {shown_time(seconds[f'{certificate}_prove']['median'] / full)} and checked in "
        f"{shown_time(seconds[f'{certificate}_verify']['median'] / full)} a patient; that of the network has "
        f"{shown_size(size['network_certificate_relu'])} and takes {made} to make and {checked} to check.",
        f"CrypTen {result['versions']['crypten']}, torch {result['versions']['torch']}; all numbers: "
        "[mpc.json](benchmarks/results/mpc.json), as a picture: [mpc.png](benchmarks/results/mpc.png).",
    ]
    return ["", *table, "", " ".join(text)]


def _peers(result: Mapping[str, Any]) -> list[str]:
    """EZKL and Concrete ML, as far as they were measured."""
    ratios, said = result["ratios"], []
    names = {
        "ezkl_over_prove": "EZKL's proof of a clear-text record that is bound and hidden takes {:,.0f} times as long",
        "ezkl_clear_over_prove": "its proof without binding the record or hiding the weights {:,.0f} times",
        "tenseal_over_attested": "TenSEAL's own dot product of an encrypted record, without any proof, {:,.0f} times",
        "concrete_ml_over_attested": "Concrete ML's encrypted prediction, without any proof, {:,.0f} times",
    }
    for name, text in names.items():
        if ratios.get(name) is not None:
            said.append(text.format(ratios[name]))
    if not said:
        return []
    return ["", f"Beside our evaluation and proof of one patient in a full block: {'; '.join(said)}."]


PARTS: Mapping[str, Callable[[], str]] = {"cost": _cost}
