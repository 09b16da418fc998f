"""One patient at a time over HTTP: `python benchmarks/latency.py [--rounds 20]`.

A real server in another process of this machine, `rows` packing, 30 features (breast_cancer). Each round takes another
patient: `submit` encrypts, uploads and commits on the ledger; `predict` is from the request to the verified and
decrypted answer (job, evaluation, proof, two ledger entries, bundle, all ten steps of the verification). Keys are warm:
the first round, in which the key's and the model's certificates are checked and cached, is given apart. Writes
benchmarks/results/latency.json and a plot beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import matplotlib  # noqa: E402
from measure import Step, interleave, machine, peak_rss_mb, summary, versions  # noqa: E402

from api.client.clinic import Clinic  # noqa: E402
from api.client.owner import Owner  # noqa: E402
from api.demo.data import studies  # noqa: E402
from api.demo.run import local_server, warm_up  # noqa: E402

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

PACKAGES = ("sealproof", "numpy", "tenseal", "py_arkworks_bls12381", "fastapi", "uvicorn", "httpx")


def measure(rounds: int, folder: Path) -> dict[str, Any]:
    """Rounds of submit and predict, each with a patient of its own."""
    study = studies()[0]
    warm_up()
    with local_server(folder / "server", "latency.localhost/sealproof") as (url, log_key):
        owner = Owner.init(folder / "owner", url, "heart-lab", log_key=log_key)
        model = owner.publish(study.model, version="1", weight_bits=study.weight_bits, bias_bits=66)
        clinic = Clinic.init(folder / "clinic", url, "st-anna", log_key=log_key)
        taken = iter(range(len(study.cohort)))
        state: dict[str, Any] = {}

        def submit() -> None:
            i = next(taken)
            cohort = study.schema.cohort(study.cohort.values[i : i + 1], [study.cohort.ids[i]])
            state["records"] = clinic.submit(cohort, model)

        def predict() -> None:
            state["scores"] = clinic.predict(state["records"], model)

        steps = [Step("submit", submit), Step("predict", predict)]
        first = interleave(steps, 1, warm_up=False)
        seconds = interleave(steps, rounds, warm_up=False)
        bundle = state["scores"].verified.path.stat().st_size
    total = [a + b for a, b in zip(seconds["submit"], seconds["predict"], strict=True)]
    return {
        "ratios": {"first_over_warm": first["predict"][0] / median(seconds["predict"])},
        "seconds": {
            **{name: summary(values) for name, values in seconds.items()},
            "total": summary(total),
            "first_predict": summary(first["predict"]),
        },
        "bytes": {"bundle_without_inputs": bundle},
        "peak_rss_mb": {"client": peak_rss_mb()},
        "work": {"patients": 1, "features": study.schema.d, "packing": "rows"},
        "versions": dict(versions(PACKAGES)),
        "machine": machine(),
        "command": f"python benchmarks/latency.py --rounds {rounds}",
    }


def plot(result: dict[str, Any], path: Path) -> None:
    """Every round as a point."""
    figure, axes = pyplot.subplots(figsize=(7, 2.6), layout="constrained")
    names = ("submit", "predict", "total")
    for place, name in enumerate(names):
        values = [1000 * x for x in result["seconds"][name]["rounds"]]
        axes.plot(values, [place] * len(values), "o", alpha=0.5, color="#1f6f8b")
        axes.plot([median(values)], [place], "|", markersize=22, color="#d17a22")
    axes.set_yticks(range(len(names)), ["submit", "request to verified answer", "both"])
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlim(left=0)
    axes.set_xlabel("milliseconds a patient, over HTTP (bar: median)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150, metadata={"Software": None})
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="patients, after the first")
    arguments = parser.parse_args()
    if not 1 <= arguments.rounds <= 500:
        parser.error("--rounds is from 1 to 500")
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments.rounds, Path(folder))
    out = HERE / "results" / "latency.json"
    out.write_text(json.dumps(result, indent=1) + "\n")
    plot(result, out.with_suffix(".png"))
    for name in ("submit", "predict", "total", "first_predict"):
        times = result["seconds"][name]
        print(f"{name:<14} min {times['min']:.3f} s  median {times['median']:.3f} s  max {times['max']:.3f} s")


if __name__ == "__main__":
    main()
