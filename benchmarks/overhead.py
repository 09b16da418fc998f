"""What attestation costs, beside what it is added to: `python benchmarks/overhead.py [--peers]`.

One run, the same work for all: 4096 patients x 30 features, `columns` packing, linear model. Plain NumPy, the
clinic's encryption, bare SEAL and TenSEAL, our evaluation, proof, verification and decryption, for one block and for
several blocks in one proof; the certificates; disclosures of 1, 16 and 100 answers; one patient alone in `rows`
packing; where crypten is installed, two-party computation beside CrypTen alone (all that mpc.py measures, as section
`mpc`); with --peers, EZKL and Concrete ML. Steps take turns in rounds. Writes benchmarks/results/overhead.json and a
plot beside it, and prints tables.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import mpc
import numpy as np
from bare import BareSeal, TensealVectors
from disclosing import COUNTS, Disclosing
from measure import Step, interleave, machine, summary, versions
from peers import PeerFailed, concrete_ml, ezkl
from report import CHAIN, plot, print_tables, ratios
from rich.console import Console
from workload import Proven, Work

from privacy.ckks.evaluation_proof import EvaluationProof
from privacy.ckks.packing import Packing, pack

HERE = Path(__file__).resolve().parent
PACKAGES = ("sealproof", "numpy", "tenseal", "py_arkworks_bls12381", "python-flint")
TENSEAL_RECORDS = 8
NUMPY_CALLS = 100


@dataclass(frozen=True)
class Options:
    """What is run; `patients` a block."""

    patients: int
    features: int
    blocks: tuple[int, ...]
    rounds: int
    peer_seconds: float
    quick: bool


@dataclass
class Figures:
    """What has been measured so far."""

    seconds: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    peak_rss_mb: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)

    def add(self, seconds: dict[str, list[float]], suffix: str = "") -> None:
        self.seconds |= {name + suffix: summary(samples) for name, samples in seconds.items()}


@dataclass
class Turn:
    """What the steps of one round hand on to each other."""

    evaluations: Any = None
    proven: Any = None
    verified: Any = None
    answers: Any = None


def attested_steps(work: Work) -> tuple[list[Step], Turn]:
    """Clinic, server, auditor, clinic: the five steps on all blocks of `work`, whose inputs are in its folder."""
    values = [work.encoded(block) for block in range(work.blocks)]
    turn = Turn()

    def encrypt() -> None:
        for block in values:
            work.encrypt(block)

    def evaluate() -> None:
        turn.evaluations = work.evaluate()

    def prove() -> None:
        turn.proven = work.prove(turn.evaluations)

    def verify() -> None:
        turn.verified = work.verify(turn.proven)

    def decrypt() -> None:
        turn.answers = [work.open_result(result) for result in turn.proven.results]

    return [
        Step("clinic_encrypt", encrypt),
        Step("evaluate", evaluate),
        Step("prove", prove),
        Step("verify", verify),
        Step("decrypt", decrypt),
    ], turn


def check_answers(work: Work, turn: Turn) -> tuple[float, float]:
    """(largest error against the float model, what the attestation proves it to be below). Exits if it is not."""
    expected = [work.model.predict_raw(work.records(block))[:, 0] for block in range(work.blocks)]
    error = max(float(np.abs(a - b).max()) for a, b in zip(turn.answers, expected, strict=True))
    bound = float(turn.verified.error + work.quantised.error_bounds[0].total)
    if error > bound:
        raise SystemExit(f"answers are off by {error}, more than the proven bound {bound}")
    return error, bound


def bare_steps(work: Work, options: Options) -> list[Step]:
    """The same block in clear, with bare SEAL, and records one by one with TenSEAL."""
    weights, bias = work.model.weights[0], float(work.model.bias[0])
    records, values = work.records(0), work.encoded(0)
    seal = BareSeal(work.params, work.keys.s)
    stored = seal.load(seal.encrypt(pack(work.params, Packing.COLUMNS, values)))
    expected = np.full(work.params.N, bias)
    expected[: work.count] = work.model.predict_raw(records)[:, 0]
    error = seal.error(seal.evaluate(stored, weights, bias), expected)
    if error > 0.01:
        raise SystemExit(f"bare SEAL's answers are off by {error}: it does not do the same work")
    steps = [
        Step("numpy", lambda: records @ weights + bias, NUMPY_CALLS),
        Step("seal_encrypt", lambda: seal.encrypt(pack(work.params, Packing.COLUMNS, values))),
        Step("seal_evaluate", lambda: seal.evaluate(stored, weights, bias)),
    ]
    if options.quick:
        return steps
    tenseal = TensealVectors()
    vector = tenseal.encrypt(records[0])
    return [
        *steps,
        Step("tenseal_vector_encrypt", lambda: tenseal.serialised(records[0]), TENSEAL_RECORDS),
        Step("tenseal_vector_evaluate", lambda: tenseal.evaluate(vector, weights, bias), TENSEAL_RECORDS),
    ]


def measure_blocks(work: Work, options: Options, figures: Figures, report: Callable[[str], None]) -> None:
    """The attested chain on work.blocks blocks in one proof; for one block, the unattested steps in the same rounds."""
    one = work.blocks == 1
    suffix = "" if one else f"_{work.blocks}"
    report(f"{work.blocks} x {work.count} patients: encrypting to disk")
    work.submit()
    steps, turn = attested_steps(work)
    if one:
        steps = bare_steps(work, options) + steps
    rounds = options.rounds if one else -(-options.rounds // (2 if work.blocks <= 8 else 3))
    # Several blocks need nothing that one block has not warmed up.
    seconds = interleave(
        steps, rounds, warm_up=one, progress=lambda name: report(f"{work.blocks} x {work.count} patients: {name}")
    )
    figures.add(seconds, suffix)
    proven: Proven = turn.proven
    work.save("proven", proven)
    if one:
        work.save("proven-one", proven)
    figures.sizes[f"proof{suffix}"] = len(proven.proof)
    error, bound = check_answers(work, turn)
    figures.errors |= {f"largest{suffix}": error, f"proven{suffix}": bound}
    if one:
        figures.sizes["clinic_upload"] = sum(map(len, work.encrypt(work.encoded(0)).uploads))
        figures.sizes["result"] = len(proven.results[0])
        statement = proven.statement
        two = replace(
            statement,
            blocks=2,
            input_digests=statement.input_digests * 2,
            result_digests=statement.result_digests * 2,
        )
        figures.sizes["proof_2"] = EvaluationProof.size(two)
    for step in (
        ("verify",) if options.quick else ("numpy", "clinic_encrypt", "evaluate_and_prove", "verify", "decrypt")
    ):
        measure_memory(work, step, step + suffix, figures, report)


def measure_memory(work: Work, step: str, name: str, figures: Figures, report: Callable[[str], None]) -> None:
    """Peak memory of one step in a process of its own."""
    report(f"memory: {name}")
    arguments = [step, work.folder, work.packing, work.d, work.count, work.blocks]
    command = [sys.executable, str(HERE / "child.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed in its own process:\n{done.stderr}")
    figures.peak_rss_mb[name] = float(done.stdout)


def measure_certificates(work: Work, options: Options, figures: Figures, report: Callable[[str], None]) -> None:
    """Key certificate (once a key) and model certificate (once a model)."""
    made: dict[str, bytes] = {}

    def certify(name: str, make: Callable[[], bytes]) -> Callable[[], None]:
        def step() -> None:
            made[name] = make()

        return step

    steps = [
        Step("key_certificate_prove", certify("key", work.certify_key)),
        Step("key_certificate_verify", lambda: work.verify_key(made["key"])),
        Step("model_certificate_prove", certify("model", work.certify_model)),
        Step("model_certificate_verify", lambda: work.verify_model(made["model"])),
    ]
    figures.add(interleave(steps, -(-options.rounds // 2), warm_up=not options.quick, progress=report))
    for kind, data in made.items():
        figures.sizes[f"{kind}_certificate"] = len(data)
        work.save(f"{kind}-certificate", data)
    if not options.quick:
        for step in steps:
            measure_memory(work, step.name, step.name, figures, report)


def measure_disclosures(work: Work, options: Options, figures: Figures, report: Callable[[str], None]) -> None:
    """What it costs to show answers of the block that was proven last."""
    disclosing = Disclosing(work, work.load("proven-one"))
    steps, made = disclosing.steps(tuple(count for count in COUNTS if count <= work.count))
    figures.add(interleave(steps, options.rounds, warm_up=not options.quick, progress=report))
    figures.sizes |= {f"disclosure_{name}": len(proof) for name, proof in made.items()}


def measure_rows(work: Work, options: Options, figures: Figures, report: Callable[[str], None]) -> None:
    """One patient's query, from the encoded record to the verified, decrypted answer; `rows_total` is the whole."""
    steps, turn = attested_steps(work)
    submit = Step("encrypt", work.submit)  # the round's own upload is what is evaluated
    chain = [submit, *steps[1:]]
    seconds = interleave(
        chain, options.rounds, warm_up=not options.quick, progress=lambda name: report(f"one patient: {name}")
    )
    totals = [sum(each) for each in zip(*(seconds[name] for name in CHAIN), strict=True)]
    figures.add({f"rows_{name}": samples for name, samples in {**seconds, "total": totals}.items()})
    error, bound = check_answers(work, turn)
    figures.errors |= {"largest_rows": error, "proven_rows": bound}
    figures.sizes["rows_upload"] = sum(map(len, work.encrypt(work.encoded(0)).uploads))
    figures.sizes["rows_proof"] = len(turn.proven.proof)
    figures.sizes["rows_result"] = len(turn.proven.results[0])


def measure_peers(
    options: Options, wanted: bool, report: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, str]]:
    """What the peers took, and why the others are missing."""
    found: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for name, peer in (("ezkl", ezkl), ("concrete_ml", concrete_ml)):
        if not wanted:
            skipped[name] = "not asked for; run with --peers"
            continue
        try:
            found[name] = peer(options.features, options.rounds, options.peer_seconds, report)
        except PeerFailed as error:
            skipped[name] = str(error)
    return found, skipped


def measure_two_parties(options: Options, report: Callable[[str], None]) -> tuple[dict[str, Any], dict[str, str]]:
    """The section `mpc`, or why it is missing."""
    reason = mpc.left_out()
    if reason is not None:
        return {}, {"mpc": reason}
    return {"mpc": mpc.measure(mpc.QUICK if options.quick else mpc.Options(rounds=options.rounds), report)}, {}


def measure(options: Options, peers: bool, report: Callable[[str], None]) -> dict[str, Any]:
    """Run everything; the JSON's content but for `command`."""
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="overhead-") as name:
        folder = Path(name)
        for blocks in options.blocks:
            work = Work(folder, Packing.COLUMNS, options.features, options.patients, blocks)
            measure_blocks(work, options, figures, report)
        one = Work(folder, Packing.COLUMNS, options.features, options.patients, 1)
        measure_certificates(one, options, figures, report)
        measure_disclosures(one, options, figures, report)
        measure_rows(Work(folder, Packing.ROWS, options.features, 1, 1), options, figures, report)
    two_parties, skipped = measure_two_parties(options, report)
    found, peers_skipped = measure_peers(options, peers, report)
    known = dict(versions(PACKAGES))
    for peer in found.values():
        known |= {name: version for run in peer["runs"] for name, version in run.pop("versions").items()}
    result: dict[str, Any] = {
        "work": {
            "model": "linear",
            "features": options.features,
            "patients": options.patients,
            "blocks": list(options.blocks),
            "parameter_set": one.params.name,
        },
        "seconds": figures.seconds,
        "bytes": figures.sizes,
        "peak_rss_mb": figures.peak_rss_mb,
        "error": figures.errors,
        **two_parties,
        "peers": found,
        "skipped": skipped | peers_skipped,
        "versions": known,
        "machine": machine(),
    }
    return {"ratios": ratios(result), **result}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write; default: benchmarks/results/overhead.json")
    parser.add_argument("--blocks", type=int, nargs="+", default=[8, 64], help="blocks of one proof, beside 1")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of the one-block steps; fewer for larger ones")
    parser.add_argument("--peers", action="store_true", help="EZKL and Concrete ML too, installed under build/peers")
    parser.add_argument("--peer-seconds", type=float, default=300.0, help="limit of one batch of a peer, keys included")
    parser.add_argument("--quick", action="store_true", help="a tiny cohort, one round; written only with --json")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or min(arguments.blocks) < 1:
        parser.error("--rounds and --blocks are at least 1")
    blocks = (1, *sorted(set(arguments.blocks) - {1}))
    options = Options(4096, 30, blocks, arguments.rounds, arguments.peer_seconds, quick=False)
    if arguments.quick:
        options = Options(64, 5, (1, 2), 1, arguments.peer_seconds, quick=True)
    console = Console(width=120)
    with Console(stderr=True).status("starting") as status:
        result = measure(options, arguments.peers, lambda text: status.update(text))
    # The place of the output is a matter of this machine, not of the measurement.
    words = [f"--blocks {' '.join(map(str, arguments.blocks))}", f"--rounds {arguments.rounds}"]
    words += [f"--peers --peer-seconds {arguments.peer_seconds:g}"] if arguments.peers else []
    words += ["--quick"] if arguments.quick else []
    result["command"] = " ".join(["python benchmarks/overhead.py", *words])
    print_tables(result, console)
    out = arguments.json or (None if options.quick else HERE / "results" / "overhead.json")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n")
        plot(result, out.with_suffix(".png"))


if __name__ == "__main__":
    main()
