"""The README's cost table, from benchmarks/results/{overhead,latency}.json and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

LATENCY = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "latency.json"
RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "overhead.json"


def _time(seconds: float) -> str:
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
        f"| bare SEAL: encode, encrypt, serialise | {_time(median('seal_encrypt'))} | |",
        f"| clinic: encrypt, digests included | {_time(median('clinic_encrypt'))} | "
        f"{_time(median(f'clinic_encrypt_{largest}') / largest)} |",
        f"| server: evaluate and prove | {_time(one)} | {_time(many)} |",
        f"| auditor: verify | {_time(median('verify'))} | {_time(median(f'verify_{largest}') / largest)} |",
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
        f"One patient alone, from encryption to the decrypted answer: {_time(median('rows_total'))}, of which "
        f"{size['rows_upload'] / 1e3:.1f} kB are uploaded; over HTTP, with the ledger and all checks, "
        f"{_time(latency['median'])} from the request to the verified answer "
        "([latency.json](benchmarks/results/latency.json)). A key certificate (once a key) has "
        f"{size['key_certificate'] / 1e6:.2f} MB and takes {_time(median('key_certificate_prove'))} to make and "
        f"{_time(median('key_certificate_verify'))} to check.",
        *_peers(result),
        "",
        f"Medians of one run on {machine['cpu']}, {machine['cores']} cores; Python {versions['python']}, "
        + ", ".join(f"{name} {versions[name]}" for name in shown if name in versions)
        + "; all numbers, with minima and maxima: [overhead.json](benchmarks/results/overhead.json), "
        "as a picture: [overhead.png](benchmarks/results/overhead.png).",
    ]
    return "\n".join(lines)


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
