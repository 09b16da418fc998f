"""Two-party computation, beside CrypTen's own prediction: `python benchmarks/mpc.py [--rounds 7]`.

Real patients (breast_cancer, 569 x 30), a linear model and a network of 16 ReLU neurons, batches of 1, 64 and 569. Node
A, node B, the dealer (`sealproof mpc dealer`) and an auditor are processes of this machine, the first three connected
as in production; CrypTen alone has two processes of its own. Every party is warm. In each round, one after the other:

    crypten   CrypTen's own prediction: fixed point, its default provider, torch's generators; output to the clinic
    compute   ours without proof: dealt randomness, CrypTen in exact integers, products over F_r, answers to the clinic
    session   ours with proof, all of it but HTTP: connecting, the terms, computing, proving, both nodes verifying,
              sealed shares; `connect` and `prove` are its two parts
    verify    an auditor's verification of all proofs of the session

`compute` and `crypten` begin on connections that stand. Then the certificates of records and network. Every answer of
ours is compared with exact integers, CrypTen's with the float model. Writes benchmarks/results/mpc.json and a plot, and
prints tables. Needs crypten (`make setup`).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from children import Child
from measure import machine, summary, versions
from mpc_processes import Parties, parties
from mpc_report import plot, print_tables, ratios
from mpc_work import PARAMETERS, SHAPES, MpcWork, study
from rich.console import Console

from privacy.models.network_quantise import network_error_bound
from privacy.mpc.params import PATIENTS_PER_PROOF

HERE = Path(__file__).resolve().parent
PACKAGES = ("sealproof", "crypten", "torch", "numpy", "py_arkworks_bls12381", "cryptography", "scikit-learn")
CRYPTEN_TOLERANCE = 0.05
"""Its fixed point has 16 bits after the point; with more error than this it would not do the same work."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What is run. Batches that take several proofs get half the rounds."""

    batches: tuple[int, ...] = (1, PATIENTS_PER_PROOF, 569)
    rounds: int = 7
    quick: bool = False

    def rounds_of(self, count: int) -> int:
        """Measured rounds of a batch of `count` patients."""
        return self.rounds if count <= PATIENTS_PER_PROOF else -(-self.rounds // 2)


@dataclass
class Figures:
    """What has been measured so far."""

    samples: dict[str, list[float]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    peak_rss_mb: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, seconds: float) -> None:
        self.samples.setdefault(name, []).append(seconds)


def left_out() -> str | None:
    """Why this cannot be measured here, or None if it can."""
    return None if find_spec("crypten") else "crypten is not installed: make setup, in a checkout"


# -- measuring --------------------------------------------------------------------------------------------------------


def _timed(action: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    found = action()
    return time.perf_counter() - start, found


def measure_batch(work: MpcWork, every: Parties, options: Options, figures: Figures, report: Report) -> None:
    """One model on one batch."""
    suffix = f"_{work.shape}_{work.count}"
    label = f"{work.shape}, {work.count} patients"
    work.prepare()
    every.open(work.folder)
    expected, plain = work.expected(), work.network.predict_raw(work.records)[:, 0]
    # What one full batch has not warmed up, several do not need.
    first = 1 if options.quick or work.count > PATIENTS_PER_PROOF else 0
    for number in range(first, options.rounds_of(work.count) + 1):
        into = figures if number else Figures()
        report(f"{label}: CrypTen alone")
        seconds, (theirs, _) = _timed(lambda: every.crypten_does("predict"))
        into.add(f"crypten{suffix}", seconds)
        report(f"{label}: without proof")
        every.nodes_do("connect")
        seconds, computed = _timed(lambda: every.nodes_do("compute"))
        every.nodes_do("disconnect")
        into.add(f"compute{suffix}", seconds)
        into.add(f"compute_deal{suffix}", computed["A"]["deal_seconds"])
        report(f"{label}: with proof")
        seconds, proven = _timed(lambda: every.nodes_do("session"))
        into.add(f"session{suffix}", seconds)
        into.add(f"connect{suffix}", proven["A"]["connect_seconds"])
        into.add(f"prove{suffix}", proven["A"]["prove_seconds"])
        report(f"{label}: verification")
        seconds, _ = _timed(lambda: every.auditor.ask("verify"))
        into.add(f"verify{suffix}", seconds)
        if not computed["A"]["answers"] == every.auditor.ask("open_answers") == expected:
            raise SystemExit(f"{label}: the answers are not the exact integers")
    figures.peak_rss_mb |= {f"{name}{suffix}": size for name, size in every.memory().items()}
    figures.sizes |= {
        f"crypten_link{suffix}": round(sum(every.crypten_does("count_bytes")) / 2),
        f"compute_link{suffix}": computed["A"]["link_bytes"],
        f"compute_dealer{suffix}": sum(computed[role]["dealer_bytes"] for role in "AB"),
        f"link{suffix}": proven["A"]["link_bytes"],
        f"dealer{suffix}": sum(proven[role]["dealer_bytes"] for role in "AB"),
        f"proof{suffix}": proven["B"]["proof_bytes"],
    }
    scale = 1 << work.quantised.answer_scale_bits
    figures.errors |= {
        f"crypten{suffix}": float(np.abs(np.array(theirs) - plain).max()),
        f"largest{suffix}": float(np.abs(np.array([z / scale for z in expected]) - plain).max()),
        f"proven{suffix}": float(network_error_bound(work.quantised)[0]),
    }
    if figures.errors[f"crypten{suffix}"] > CRYPTEN_TOLERANCE:
        raise SystemExit(f"{label}: CrypTen alone is off by {figures.errors[f'crypten{suffix}']}")


def measure_certificates(
    name: str, node: Child, auditor: Child, check: str, rounds: int, figures: Figures, report: Report
) -> None:
    """Make and verify the certificates of the opened work that are this node's."""
    for number in range(rounds + 1):
        into = figures if number else Figures()
        report(name.replace("_", " "))
        seconds, figures.sizes[name] = _timed(lambda: node.ask("certify"))
        into.add(f"{name}_prove", seconds)
        seconds, _ = _timed(lambda: auditor.ask(check))
        into.add(f"{name}_verify", seconds)


def measure_model(shape: str, folder: Path, options: Options, figures: Figures, report: Report) -> None:
    """One model on all batches, in processes of its own; then its certificate, and for the first model the records'."""
    report(f"{shape}: starting its processes")
    rounds = 1 if options.quick else -(-options.rounds // 2)
    with parties(folder) as every:
        for count in options.batches:
            work = MpcWork(folder / f"{shape}-{count}", shape, count, options.quick)
            measure_batch(work, every, options, figures, report)
        measure_certificates(
            f"network_certificate_{shape}",
            every.nodes["B"],
            every.auditor,
            "verify_network",
            rounds,
            figures,
            report,
        )
        for count in options.batches if shape == SHAPES[0] else ():
            if count <= PATIENTS_PER_PROOF:  # larger cohorts have one certificate for each 64 patients
                every.open(folder / f"{shape}-{count}")
                measure_certificates(
                    f"records_certificate_{count}",
                    every.nodes["A"],
                    every.auditor,
                    "verify_records",
                    rounds,
                    figures,
                    report,
                )


def measure(options: Options, report: Report) -> dict[str, Any]:
    """Run everything; the JSON's content but for `machine` and `command`."""
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="mpc-") as name:
        for shape in SHAPES:
            measure_model(shape, Path(name) / shape, options, figures, report)
        models = {shape: MpcWork(Path(name), shape, 1, options.quick).widths for shape in SHAPES}
    result: dict[str, Any] = {
        "work": {
            "data": "breast_cancer",
            "patients": len(study().cohort),
            "features": study().schema.d,
            "models": models,
            "batches": list(options.batches),
            "patients_per_proof": PATIENTS_PER_PROOF,
            "parameter_set": PARAMETERS.name,
        },
        "seconds": {name: summary(samples) for name, samples in figures.samples.items()},
        "bytes": figures.sizes,
        "peak_rss_mb": figures.peak_rss_mb,
        "error": figures.errors,
        "versions": dict(versions(PACKAGES)),
    }
    return {"ratios": ratios(result), **result}


QUICK = Options((1, 2), 1, quick=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write; default: benchmarks/results/mpc.json")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of batches of one proof; half of it for others")
    parser.add_argument("--quick", action="store_true", help="two patients, few neurons; written only with --json")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds is at least 1")
    reason = left_out()
    if reason is not None:
        raise SystemExit(reason)
    options = QUICK if arguments.quick else Options(rounds=arguments.rounds)
    with Console(stderr=True).status("starting") as status:
        result = measure(options, lambda text: status.update(text))
    words = ["--quick"] if options.quick else [f"--rounds {arguments.rounds}"]
    result |= {"machine": machine(), "command": " ".join(["python benchmarks/mpc.py", *words])}
    print_tables(result, Console(width=120))
    out = arguments.json or (None if options.quick else HERE / "results" / "mpc.json")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n")
        plot(result, out.with_suffix(".png"))


if __name__ == "__main__":
    main()
