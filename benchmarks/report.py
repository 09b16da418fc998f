"""Ratios, the printed table and the plot of overhead.py, all from the numbers that its JSON keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import disclosing
import matplotlib
import mpc_report
from rich.console import Console
from rich.table import Table

matplotlib.use("Agg")
from matplotlib import pyplot

__all__ = ["per_patient", "plot", "print_tables", "ratios"]

Result = Mapping[str, Any]

CHAIN = ("encrypt", "evaluate", "prove", "verify", "decrypt")
"""Steps of a single patient's query, in order; `rows_total` is their sum in each round."""


def _rounds(result: Result, *names: str) -> list[float]:
    """The sum of these steps, round by round."""
    return [sum(values) for values in zip(*(result["seconds"][name]["rounds"] for name in names), strict=True)]


def _over(result: Result, above: Sequence[str], below: str) -> float:
    """Median over the rounds of the quotient of two sums of steps of the same round."""
    return median(a / b for a, b in zip(_rounds(result, *above), _rounds(result, below), strict=True))


def _peer_runs(result: Result, name: str) -> list[dict[str, Any]]:
    return list(result["peers"].get(name, {}).get("runs", []))


def _ezkl_per_record(run: Mapping[str, Any]) -> float:
    seconds: Mapping[str, Sequence[float]] = run["seconds"]
    batch: int = run["batch"]
    return median(w + p for w, p in zip(seconds["witness"], seconds["prove"], strict=True)) / batch


def _least(values: Iterable[float]) -> float | None:
    return min(values, default=None)


def ratios(result: Result) -> dict[str, float | None]:
    """The ratios by name; None where a peer was not measured.

    Seconds of one block are compared round by round, the median is quoted. `attestation_bytes_next` is the growth a
    block of proofs of several blocks; `ezkl_*` compares EZKL's witness and proof a record, at the best batch that
    fitted, with our evaluation and proof a patient: `ezkl_over_prove` with records and weights bound and hidden, in
    whichever way is cheaper for EZKL, `ezkl_hashed_over_prove` by Poseidon hashes, `ezkl_clear_over_prove` neither.
    """
    found: dict[str, float | None] = {}
    blocks = [B for B in result["work"]["blocks"] if B > 1]
    for suffix in ("", *(f"_{B}" for B in blocks)):
        encrypt = f"clinic_encrypt{suffix}"
        found[f"prove_over_encrypt{suffix}"] = _over(result, (f"evaluate{suffix}", f"prove{suffix}"), encrypt)
        found[f"verify_over_encrypt{suffix}"] = _over(result, (f"verify{suffix}",), encrypt)
    size, largest = result["bytes"], max(blocks, default=2)
    found["attestation_bytes_first"] = size["proof"]
    found["attestation_bytes_next"] = (
        (size[f"proof_{largest}"] - size["proof_2"]) / (largest - 2) if largest > 2 else size["proof_2"] - size["proof"]
    )
    ours = median(_rounds(result, "evaluate", "prove")) / result["work"]["patients"]
    ezkl = _peer_runs(result, "ezkl")
    for name, statements in (
        ("ezkl_over_prove", ("committed", "hashed")),
        ("ezkl_hashed_over_prove", ("hashed",)),
        ("ezkl_clear_over_prove", ("clear",)),
    ):
        best = _least(_ezkl_per_record(run) for run in ezkl if run["statement"] in statements)
        found[name] = None if best is None else best / ours
    concrete = _least(median(run["seconds"]["execute"]) for run in _peer_runs(result, "concrete_ml"))
    found["concrete_ml_over_attested"] = None if concrete is None else concrete / ours
    found |= disclosing.ratios(result, lambda above, below: _over(result, above, below))
    if "tenseal_vector_evaluate" in result["seconds"]:
        found["tenseal_over_attested"] = median(_rounds(result, "tenseal_vector_evaluate")) / ours
    return found


def per_patient(result: Result) -> list[tuple[str, str, float]]:
    """(group, label, median seconds per patient) of everything that was measured, in the order of the plot."""
    patients = result["work"]["patients"]
    rows: list[tuple[str, str, float]] = []

    def add(group: str, label: str, step: str, records: int) -> None:
        if step in result["seconds"]:
            rows.append((group, label, result["seconds"][step]["median"] / records))

    add("unattested", "NumPy, in clear", "numpy", patients)
    add("unattested", "SEAL: evaluate", "seal_evaluate", patients)
    add("unattested", "SEAL: encrypt", "seal_encrypt", patients)
    add("sealproof", "clinic: encrypt", "clinic_encrypt", patients)
    add("sealproof", "server: evaluate, re-randomised", "evaluate", patients)
    for B in result["work"]["blocks"]:
        suffix, where = ("", "") if B == 1 else (f"_{B}", f", {B} blocks")
        add("sealproof", f"server: prove{where}", f"prove{suffix}", B * patients)
        add("sealproof", f"auditor: verify{where}", f"verify{suffix}", B * patients)
    add("sealproof", "clinic: decrypt", "decrypt", patients)
    add("sealproof", "one patient alone, encrypt to decrypt", "rows_total", 1)
    for count in disclosing.COUNTS:
        several = "" if count == 1 else f", {count} in one proof"
        add("sealproof", f"clinic: disclose a threshold{several}", f"disclose_threshold_{count}", count)
        add("sealproof", f"consumer: verify it{several}", f"verify_disclosure_threshold_{count}", count)
    add("unattested", "TenSEAL: dot product", "tenseal_vector_evaluate", 1)
    for run in _peer_runs(result, "concrete_ml"):
        rows.append(("unattested", f"Concrete ML: execute, {run['bits']} bits", median(run["seconds"]["execute"])))
    rows += _two_parties(result)
    ezkl = _peer_runs(result, "ezkl")
    for statement in dict.fromkeys(run["statement"] for run in ezkl):
        runs = [run for run in ezkl if run["statement"] == statement]
        best = min(runs, key=_ezkl_per_record)
        for run in [runs[0]] if best is runs[0] else [best, runs[0]]:
            rows.append(("EZKL", f"EZKL, {statement}: prove, batch of {run['batch']}", _ezkl_per_record(run)))
    return rows


def _two_parties(result: Result) -> list[tuple[str, str, float]]:
    """Rows of section `mpc` in batches of one full proof; all others are in its own table and picture."""
    found = result.get("mpc")
    if found is None:
        return []
    count = found["work"]["batches"][1]
    return [
        (
            "sealproof" if name in ("prove", "verify") else "unattested",
            f"two parties, {mpc_report.NAMES[shape]}, batch of {count}: {label}",
            found["seconds"][f"{name}_{shape}_{count}"]["median"] / count,
        )
        for shape in found["work"]["models"]
        for name, label in mpc_report.TIMES.items()
    ]


def _time(seconds: float) -> str:
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _size(count: float) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB" if count >= 1e3 else f"{count:g} B"


def print_tables(result: Result, console: Console) -> None:
    """Steps, sizes, memory and ratios."""
    steps = Table("step", "min", "median", "max", title="seconds", title_justify="left")
    for name, times in result["seconds"].items():
        steps.add_row(name, *(_time(times[kind]) for kind in ("min", "median", "max")))
    console.print(steps)
    patient = Table("what", "per patient", title="median time per patient", title_justify="left")
    for _, label, seconds in per_patient(result):
        patient.add_row(label, _time(seconds))
    console.print(patient)
    sizes = Table("what", "size", title="bytes, and peak memory of the step's own process", title_justify="left")
    for name, count in result["bytes"].items():
        sizes.add_row(name, _size(count))
    for name, megabytes in result["peak_rss_mb"].items():
        sizes.add_row(f"memory: {name}", f"{megabytes:.0f} MB")
    console.print(sizes)
    table = Table("ratio", "value", title="ratios", title_justify="left")
    for name, value in result["ratios"].items():
        table.add_row(name, "not measured" if value is None else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}")
    console.print(table)
    if "mpc" in result:
        mpc_report.print_tables(result["mpc"], console)
    for name, reason in result["skipped"].items():
        console.print(f"skipped: {name}: {reason}", markup=False)


COLOURS = {"unattested": "#9aa5b1", "sealproof": "#1f6f8b", "EZKL": "#d17a22"}
MEANINGS = {
    "unattested": "encrypted or clear, without a proof",
    "sealproof": "this project, attested",
    "EZKL": "EZKL, clear-text records, with a proof",
}


def plot(result: Result, path: Path) -> None:
    """Seconds per patient as horizontal bars on a logarithmic axis."""
    rows = per_patient(result)[::-1]
    values = [seconds for _, _, seconds in rows]
    figure, axes = pyplot.subplots(figsize=(9, 0.8 + 0.31 * len(rows)), layout="constrained")
    axes.barh(range(len(rows)), values, color=[COLOURS[group] for group, _, _ in rows], height=0.72)
    axes.set_yticks(range(len(rows)), [label for _, label, _ in rows])
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 2, max(values) * 6)
    for place, value in enumerate(values):
        axes.text(value * 1.15, place, _time(value), va="center", fontsize=8)
    axes.set_xlabel("seconds per patient (median, logarithmic)")
    work = result["work"]
    axes.set_title(f"{work['features']} features; linear model, blocks of {work['patients']} patients", loc="left")
    axes.margins(y=0.01)
    axes.grid(axis="x", which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    present = [group for group in MEANINGS if any(row[0] == group for row in rows)]
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=COLOURS[group]) for group in present]
    figure.legend(
        handles, [MEANINGS[group] for group in present], loc="outside lower center", ncols=3, frameon=False, fontsize=8
    )
    figure.savefig(path, dpi=150, metadata={"Software": None})
    pyplot.close(figure)
