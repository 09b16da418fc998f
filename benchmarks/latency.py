"""One patient at a time over HTTP: `python benchmarks/latency.py [--rounds 20]`.

A real server in another process of this machine, `rows` packing, 30 features (breast_cancer). Each round takes another
patient: `submit` encrypts, uploads and commits on the ledger; `predict` is from the request to the verified and
decrypted answer (job, evaluation, proof, two ledger entries, bundle, all ten steps of the verification). Keys are warm:
the first round, in which the key's and the model's certificates are checked and cached, is given apart.

Section `disclosure`: a consumer asks whether a patient's score is at least something, the clinic consents, discloses,
and leaves it sealed on the server; the consumer collects and verifies it, everything that it rests on included (ten
steps of the prediction, consent, proof). `disclosure` is from the request to the verified answer.

Where crypten is installed, section `mpc` is the same for two-party computation and a network of 16 ReLU neurons, with
server, dealer and both nodes in processes of their own, started as anybody would: `submit` commits to the record,
certifies and logs it; `predict` is from the request to the verified and opened answer (offers to the nodes, their
session, joint proof, its verification by the server, two ledger entries, bundle, all steps of the verification).

Writes benchmarks/results/latency.json and a plot beside it.
"""

from __future__ import annotations

import argparse
import contextlib
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
from mpc import left_out  # noqa: E402
from mpc_processes import command_process, dealer_process  # noqa: E402
from mpc_work import MpcWork  # noqa: E402

from api.client.clinic import Clinic  # noqa: E402
from api.client.consumer import Consumer  # noqa: E402
from api.client.owner import Owner  # noqa: E402
from api.client.questions import question_of  # noqa: E402
from api.demo.data import studies  # noqa: E402
from api.demo.run import local_server, warm_up  # noqa: E402

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

TIMEOUT_SECONDS = 120
PACKAGES = ("sealproof", "numpy", "tenseal", "py_arkworks_bls12381", "fastapi", "uvicorn", "httpx")


def patients_in_turn(clinic: Clinic, model: Any, rounds: int) -> dict[str, Any]:
    """Rounds of submit and predict, each with a patient of its own: ratios, seconds, bytes."""
    study = studies()[0]
    taken = iter(range(len(study.cohort)))
    state: dict[str, Any] = {}

    def submit() -> None:
        i = next(taken)
        cohort = study.schema.cohort(study.cohort.values[i : i + 1], [study.cohort.ids[i]])
        state["records"] = clinic.submit(cohort, model)

    def predict() -> None:
        state["scores"] = clinic.predict(state["records"], model, timeout=TIMEOUT_SECONDS)

    steps = [Step("submit", submit), Step("predict", predict)]
    first = interleave(steps, 1, warm_up=False)
    seconds = interleave(steps, rounds, warm_up=False)
    total = [a + b for a, b in zip(seconds["submit"], seconds["predict"], strict=True)]
    return {
        "ratios": {"first_over_warm": first["predict"][0] / median(seconds["predict"])},
        "seconds": {
            **{name: summary(values) for name, values in seconds.items()},
            "total": summary(total),
            "first_predict": summary(first["predict"]),
        },
        "bytes": {"bundle_without_inputs": state["scores"].verified.path.stat().st_size},
    }


def disclosures_in_turn(clinic: Clinic, consumer: Consumer, model: Any, rounds: int, folder: Path) -> dict[str, Any]:
    """Rounds of request, consent, disclosure and verification, each about another patient of one prediction."""
    study = studies()[0]
    cohort = study.schema.cohort(study.cohort.values[: rounds + 1], study.cohort.ids[: rounds + 1])
    scores = clinic.predict(clinic.submit(cohort, model), model, timeout=TIMEOUT_SECONDS)
    bundle = folder / "prediction.sealproof"
    bundle.write_bytes(scores.verified.path.read_bytes())
    taken = iter(range(rounds + 1))
    state: dict[str, Any] = {}

    def request() -> None:
        place = next(taken)
        # A little below what the patient has: a true statement about everybody.
        question = question_of(model, scores.ids[place], kind="threshold", threshold=float(scores.values[place, 0]) / 2)
        state["request"] = consumer.request(clinic.name, [question], purpose="benchmark", model=model)

    def grant() -> None:
        state["grant"] = clinic.grant(state["request"].reference.index)

    def disclose() -> None:
        clinic.disclose(state["grant"].reference.index)

    def collect() -> None:
        state["path"] = folder / f"{state['request'].reference.index}.sealproof"
        consumer.collect(state["request"], state["path"])

    steps = [Step("request", request), Step("grant", grant), Step("disclose", disclose), Step("collect", collect)]
    interleave(steps, 1, warm_up=False)  # the first one keeps copies of models and schemas
    seconds = interleave(steps, rounds, warm_up=False)
    total = [sum(each) for each in zip(*seconds.values(), strict=True)]
    return {
        "seconds": {**{name: summary(values) for name, values in seconds.items()}, "disclosure": summary(total)},
        "bytes": {"bundle_with_inputs": state["path"].stat().st_size},
    }


def measure_mpc(rounds: int, folder: Path) -> dict[str, Any]:
    """The same with two nodes and a dealer, and a network."""
    work = MpcWork(folder, "relu", 1)
    network = work.network
    with contextlib.ExitStack() as stack:
        url, log_key = stack.enter_context(local_server(folder / "server", "latency.localhost/sealproof"))
        owner = Owner.init(folder / "owner", url, "heart-lab", log_key=log_key)
        model = owner.publish(network, version="1", scheme="mpc")
        clinic = Clinic.init(folder / "clinic", url, "st-anna", log_key=log_key, ckks=False)
        dealer = stack.enter_context(dealer_process(folder / "dealer"))
        processes = {"dealer": dealer.process}
        for name, options in (("owner", ["--listen", "127.0.0.1:0"]), ("clinic", [])):
            words = ["mpc", "node", "-f", str(folder / name), "--dealer", dealer.address, "--dealer-key", dealer.key]
            command = command_process([*words, *options], "is ready", folder / f"node-{name}.log")
            processes[f"node_{name}"] = stack.enter_context(command)[0]
        found = patients_in_turn(clinic, model, rounds)
        memory = {name: peak_rss_mb(process) for name, process in processes.items()}
    return {
        **found,
        "peak_rss_mb": memory,
        "work": {"patients": 1, "features": network.schema.d, "model": work.widths},
        "versions": dict(versions(("crypten", "torch"))),
    }


def measure(rounds: int, folder: Path) -> dict[str, Any]:
    """Both ways."""
    study = studies()[0]
    warm_up()
    with local_server(folder / "server", "latency.localhost/sealproof") as (url, log_key):
        owner = Owner.init(folder / "owner", url, "heart-lab", log_key=log_key)
        model = owner.publish(study.model, version="1", weight_bits=study.weight_bits, bias_bits=66)
        clinic = Clinic.init(folder / "clinic", url, "st-anna", log_key=log_key)
        found = patients_in_turn(clinic, model, rounds)
        consumer = Consumer.init(folder / "consumer", url, "acme-life", log_key=log_key)
        shown = disclosures_in_turn(clinic, consumer, model, rounds, folder)
        memory = {"client": peak_rss_mb()}
    reason = left_out()
    (folder / "mpc").mkdir()
    return {
        **found,
        "disclosure": shown,
        "peak_rss_mb": memory,
        "work": {"patients": 1, "features": study.schema.d, "packing": "rows"},
        **({"mpc": measure_mpc(rounds, folder / "mpc")} if reason is None else {"skipped": {"mpc": reason}}),
        "versions": dict(versions(PACKAGES)),
        "machine": machine(),
        "command": f"python benchmarks/latency.py --rounds {rounds}",
    }


def plot(result: dict[str, Any], path: Path) -> None:
    """Every round as a point."""
    labels = {"submit": "submit", "predict": "request to verified answer", "total": "both"}
    rows = [(label, result["seconds"][name]) for name, label in labels.items()]
    rows.append(("request to verified disclosure", result["disclosure"]["seconds"]["disclosure"]))
    if "mpc" in result:
        rows += [(f"two parties: {label}", result["mpc"]["seconds"][name]) for name, label in labels.items()]
    figure, axes = pyplot.subplots(figsize=(7, 1.1 + 0.5 * len(rows)), layout="constrained")
    for place, (_, times) in enumerate(rows):
        values = [1000 * x for x in times["rounds"]]
        axes.plot(values, [place] * len(values), "o", alpha=0.5, color="#1f6f8b")
        axes.plot([median(values)], [place], "|", markersize=22, color="#d17a22")
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlim(left=0)
    axes.set_xlabel("milliseconds a patient, over HTTP (bar: median)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150, metadata={"Software": None})
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write; default: benchmarks/results/latency.json")
    parser.add_argument("--rounds", type=int, default=20, help="patients, after the first")
    arguments = parser.parse_args()
    if not 1 <= arguments.rounds <= 500:
        parser.error("--rounds is from 1 to 500")
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments.rounds, Path(folder))
    out = arguments.json or HERE / "results" / "latency.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    plot(result, out.with_suffix(".png"))
    for section in filter(None, (result, result.get("mpc"))):
        print("one patient, encrypted" if section is result else "one patient, two parties")
        for name in ("submit", "predict", "total", "first_predict"):
            times = section["seconds"][name]
            print(f"{name:<14} min {times['min']:.3f} s  median {times['median']:.3f} s  max {times['max']:.3f} s")
    print("one patient's answer, disclosed")
    for name, times in result["disclosure"]["seconds"].items():
        print(f"{name:<14} min {times['min']:.3f} s  median {times['median']:.3f} s  max {times['max']:.3f} s")
    for name, reason in result.get("skipped", {}).items():
        print(f"skipped: {name}: {reason}")


if __name__ == "__main__":
    main()
