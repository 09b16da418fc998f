"""EZKL on the same model: one proof of a batch of clear-text records. Runs in its own environment (see peers.py).

The choices are those that cost EZKL least: calibration for resources, a locally made SRS, answers public; the scales
that calibration chooses are kept in the result. What is visible of records and weights is an option. Writes one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import ezkl
import numpy as np
import onnx
from measure import peak_rss_mb
from onnx import TensorProto, helper, numpy_helper

OPSET = 13


def timed(step: Callable[[], object]) -> tuple[object, float]:
    start = time.perf_counter()
    return step(), time.perf_counter() - start


def write_onnx(path: Path, batch: int, features: int, rng: np.random.Generator) -> None:
    """y = x W^T + b for x (batch, features)."""
    weights = numpy_helper.from_array(rng.normal(size=(1, features)).astype(np.float32), "W")
    bias = numpy_helper.from_array(rng.normal(size=1).astype(np.float32), "b")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, features])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 1])
    node = helper.make_node("Gemm", ["x", "W", "b"], ["y"], transB=1)
    model = helper.make_model(
        helper.make_graph([node], "linear", [x], [y], [weights, bias]), opset_imports=[helper.make_opsetid("", OPSET)]
    )
    model.ir_version = 8
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def reference_string(folder: Path, logrows: int) -> Path:
    """An SRS of this size; made once, as it does not depend on the circuit."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"k{logrows}.srs"
    if not path.exists():
        unfinished = path.with_suffix(".unfinished")
        ezkl.gen_srs(str(unfinished), logrows)
        unfinished.rename(path)
    return path


def prove_batch(
    folder: Path, srs_folder: Path, batch: int, features: int, rounds: int, visibility: tuple[str, str]
) -> dict[str, object]:
    rng = np.random.default_rng(0)
    names = ("model.onnx", "settings", "circuit", "vk", "pk", "witness", "proof", "input")
    path = {name: str(folder / name) for name in names}
    write_onnx(Path(path["model.onnx"]), batch, features, rng)
    records = rng.uniform(-1, 1, (batch, features)).reshape(-1).tolist()
    Path(path["input"]).write_text(json.dumps({"input_data": [records]}))
    arguments = ezkl.PyRunArgs()
    arguments.input_visibility, arguments.param_visibility = visibility
    arguments.output_visibility = "public"
    arguments.variables = [("batch_size", batch)]
    ezkl.gen_settings(path["model.onnx"], path["settings"], arguments)
    ezkl.calibrate_settings(path["input"], path["model.onnx"], path["settings"], "resources")
    ezkl.compile_circuit(path["model.onnx"], path["circuit"], path["settings"])
    settings = json.loads(Path(path["settings"]).read_text())
    logrows = settings["run_args"]["logrows"]
    path["srs"] = str(reference_string(srs_folder, logrows))
    _, setup = timed(lambda: ezkl.setup(path["circuit"], path["vk"], path["pk"], path["srs"]))
    witness, prove, verify = [], [], []
    for _ in range(rounds):
        witness.append(timed(lambda: ezkl.gen_witness(path["input"], path["circuit"], path["witness"]))[1])
        prove.append(
            timed(lambda: ezkl.prove(path["witness"], path["circuit"], path["pk"], path["proof"], path["srs"]))[1]
        )
        accepted, seconds = timed(lambda: ezkl.verify(path["proof"], path["settings"], path["vk"], path["srs"]))
        if accepted is not True:
            raise RuntimeError("EZKL refused its own proof")
        verify.append(seconds)
    return {
        "batch": batch,
        "logrows": logrows,
        "scale_bits": [settings["run_args"][name] for name in ("input_scale", "param_scale")],
        "seconds": {"setup": [setup], "witness": witness, "prove": prove, "verify": verify},
        "bytes": {name: Path(path[name]).stat().st_size for name in ("proof", "pk", "vk", "srs")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--features", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--records", required=True, help="EZKL's visibility of the records")
    parser.add_argument("--weights", required=True, help="EZKL's visibility of the weights")
    parser.add_argument("--srs", type=Path, required=True, help="folder of reference strings")
    parser.add_argument("--out", type=Path, required=True, help="result, in a folder for the files of the run")
    arguments = parser.parse_args()
    found = prove_batch(
        arguments.out.parent,
        arguments.srs,
        arguments.batch,
        arguments.features,
        arguments.rounds,
        (arguments.records, arguments.weights),
    )
    found |= {"peak_rss_mb": peak_rss_mb(), "versions": {"ezkl": ezkl.__version__}}
    arguments.out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
