"""Ratios, the printed tables and the plot of mpc.py, all from the numbers that its JSON keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib
from rich.console import Console
from rich.table import Table

matplotlib.use("Agg")
from matplotlib import pyplot

__all__ = ["NAMES", "TIMES", "plot", "print_tables", "ratios"]

Result = Mapping[str, Any]

TIMES = {
    "crypten": "CrypTen alone",
    "compute": "ours without proof",
    "prove": "ours with proof",
    "verify": "verification",
}
"""Steps that are compared, as tables and plots call them."""

SIZES = {
    "crypten_link": "CrypTen alone, between its parties",
    "compute_link": "without proof, between the nodes",
    "link": "with proof, between the nodes",
    "compute_dealer": "without proof, from the dealer",
    "dealer": "with proof, from the dealer",
    "proof": "proof",
}

NAMES = {"linear": "linear", "relu": "ReLU"}


def _rounds(result: Result, name: str) -> list[float]:
    return list(result["seconds"][name]["rounds"])


def _over(result: Result, above: str, below: str) -> float:
    """Median over the rounds of the quotient of two steps of the same round."""
    return median(a / b for a, b in zip(_rounds(result, above), _rounds(result, below), strict=True))


def ratios(result: Result) -> dict[str, float]:
    """The ratios by name, each for a model and a batch.

    `compute_over_crypten`: ours without proof over CrypTen alone. `proof_over_compute`: with proof (connections
    standing) over without. `verify_over_prove`: the auditor's verification over the same. Seconds are compared round by
    round, the median is quoted. `per_patient_*_64_over_1`: a patient's part of a batch of 64 over a batch of one:
    `time` of computing and proving, `bytes` of the proof, `link_bytes` between the nodes.
    """
    found: dict[str, float] = {}
    one, full = result["work"]["batches"][:2]
    size, seconds = result["bytes"], result["seconds"]
    for shape in result["work"]["models"]:
        for count in result["work"]["batches"]:
            suffix = f"_{shape}_{count}"
            found[f"compute_over_crypten{suffix}"] = _over(result, f"compute{suffix}", f"crypten{suffix}")
            found[f"proof_over_compute{suffix}"] = _over(result, f"prove{suffix}", f"compute{suffix}")
            found[f"verify_over_prove{suffix}"] = _over(result, f"verify{suffix}", f"prove{suffix}")
        each = f"{full}_over_{one}_{shape}"
        a, b = f"_{shape}_{full}", f"_{shape}_{one}"
        times = seconds[f"prove{a}"]["median"] / seconds[f"prove{b}"]["median"]
        found[f"per_patient_time_{each}"] = times * one / full
        found[f"per_patient_bytes_{each}"] = size[f"proof{a}"] / size[f"proof{b}"] * one / full
        found[f"per_patient_link_bytes_{each}"] = size[f"link{a}"] / size[f"link{b}"] * one / full
    found["records_certificate_bytes_per_patient"] = size[f"records_certificate_{full}"] / full
    return found


def _time(seconds: float) -> str:
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _size(count: float) -> str:
    return f"{count / 1e6:.3g} MB" if count >= 1e6 else f"{count / 1e3:.3g} kB" if count >= 1e3 else f"{count:.3g} B"


def _columns(result: Result) -> list[tuple[str, int]]:
    return [(shape, count) for shape in result["work"]["models"] for count in result["work"]["batches"]]


def _table(result: Result, title: str) -> Table:
    names = [f"{NAMES[shape]}, {count}" for shape, count in _columns(result)]
    return Table("", *names, title=title, title_justify="left")


def print_tables(result: Result, console: Console) -> None:
    """Times, bytes, memory, certificates and ratios, a column for each model and batch."""
    columns = _columns(result)
    steps = {**TIMES, "connect": "connecting", "session": "whole session", "compute_deal": "of it, the dealer (A)"}
    whole = _table(result, "two parties: median seconds of the batch")
    for name, label in steps.items():
        whole.add_row(label, *(_time(result["seconds"][f"{name}_{s}_{n}"]["median"]) for s, n in columns))
    console.print(whole)
    each = _table(result, "two parties: median time per patient")
    for name, label in TIMES.items():
        each.add_row(label, *(_time(result["seconds"][f"{name}_{s}_{n}"]["median"] / n) for s, n in columns))
    console.print(each)
    sizes = _table(result, "two parties: bytes of the batch, both directions; peak memory of the process so far")
    for name, label in SIZES.items():
        sizes.add_row(label, *(_size(result["bytes"][f"{name}_{s}_{n}"]) for s, n in columns))
    for name in ("node_A", "node_B", "dealer", "auditor", "crypten"):
        label = f"memory: {name.replace('_', ' ')}"
        sizes.add_row(label, *(f"{result['peak_rss_mb'][f'{name}_{s}_{n}']:.0f} MB" for s, n in columns))
    console.print(sizes)
    once = Table("", "prove", "verify", "size", title="certificates", title_justify="left")
    for name, count in result["bytes"].items():
        if "certificate" in name:
            times = [_time(result["seconds"][f"{name}_{step}"]["median"]) for step in ("prove", "verify")]
            once.add_row(name.replace("_", " "), *times, _size(count))
    console.print(once)
    table = _table(result, "ratios")
    for name in ("compute_over_crypten", "proof_over_compute", "verify_over_prove"):
        table.add_row(name, *(f"{result['ratios'][f'{name}_{s}_{n}']:.3g}" for s, n in columns))
    console.print(table)
    for name, value in result["ratios"].items():
        if "per_patient" in name:
            console.print(f"{name} {value:,.4g}", markup=False)


COLOURS = {"crypten": "#9aa5b1", "compute": "#7fb3c4", "prove": "#1f6f8b", "verify": "#d17a22"}
SIZE_BARS = {"crypten_link": "crypten", "compute_link": "compute", "link": "prove", "proof": "verify"}
SIZE_LABELS = {
    "crypten_link": "between the parties:\nCrypTen alone",
    "compute_link": "ours without proof",
    "link": "ours with proof",
    "proof": "the proof itself",
}


def plot(result: Result, path: Path) -> None:
    """Seconds and bytes per patient as horizontal bars on logarithmic axes: a row of panels for each, a column for
    each model."""
    models, batches = list(result["work"]["models"]), result["work"]["batches"]
    figure, axes = pyplot.subplots(
        2, len(models), figsize=(11, 7.4), layout="constrained", sharex="row", sharey="row", squeeze=False
    )
    for place, shape in enumerate(models):
        widths = "-".join(map(str, result["work"]["models"][shape]))
        times = {
            label: [(n, result["seconds"][f"{name}_{shape}_{n}"]["median"] / n) for n in batches]
            for name, label in TIMES.items()
        }
        sizes = {
            SIZE_LABELS[name]: [(n, result["bytes"][f"{name}_{shape}_{n}"] / n) for n in batches] for name in SIZE_BARS
        }
        first = place == 0
        _bars(axes[0][place], times, list(COLOURS.values()), _time, first)
        _bars(axes[1][place], sizes, [COLOURS[name] for name in SIZE_BARS.values()], _size, first)
        axes[0][place].set_title(f"{NAMES[shape]} model, {widths}", loc="left")
        axes[0][place].set_xlabel("seconds per patient (median, logarithmic)")
        axes[1][place].set_xlabel("bytes per patient (logarithmic)")
    listed = ", ".join(map(str, batches))
    figure.suptitle(
        f"Two-party prediction; in each group batches of {listed} patients, from top to bottom", fontsize=10
    )
    figure.savefig(path, dpi=150, metadata={"Software": None})
    pyplot.close(figure)


def _bars(
    axes: Any,
    groups: Mapping[str, Sequence[tuple[int, float]]],
    colours: Sequence[str],
    text: Callable[[float], str],
    first: bool,
) -> None:
    """Groups from top to bottom, in each the batches from top to bottom; `first` of its row of panels."""
    values = [value for bars in groups.values() for _, value in bars]
    step = max(len(bars) for bars in groups.values()) + 1
    ticks = []
    for number, (bars, colour) in enumerate(zip(groups.values(), colours, strict=True)):
        for k, (count, value) in enumerate(bars):
            y = number * step + k
            axes.barh(y, value, color=colour, height=0.86, alpha=1 - 0.22 * k)
            axes.text(value * 1.1, y, f"{text(value)}  ({count})", va="center", fontsize=7.5)
        ticks.append(number * step + (len(bars) - 1) / 2)
    axes.set_yticks(ticks, list(groups))
    axes.set_ylim(len(groups) * step - 1, -1)
    axes.set_xscale("log")
    low, high = min(values) / 3, max(values) * 8
    axes.set_xlim((low, high) if first else (min(low, axes.get_xlim()[0]), max(high, axes.get_xlim()[1])))
    axes.grid(axis="x", which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
