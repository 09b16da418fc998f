"""Memory while predicting does not grow with the cohort: 64 blocks of 30 features in far less than 1.5 GB."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_D = 30
_INPUT_MB = _D * 2 * 2 * 4096 * 8 / 2**20
"""Input ciphertexts of one block."""

_SCRIPT = """
import resource, sys
from pathlib import Path
import numpy as np
from api.binding import Located
from api.blobs import BlobStore
from api.entries import Key, Model, ModelOutput, Policy, Records, Reference, encode_digest_list
from api.prediction import Context, plan_proofs, predict
from privacy.ckks.canonical import encode_input, encode_public_key
from privacy.ckks.params import parameter_set
from privacy.models.certificate import WeightOpening, weights_key
from privacy.models.statements import ModelOpening
from privacy.zk.group import ARKWORKS
from privacy.zk.randomness import random_scalar

blocks, d, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
params = parameter_set("linear-4096")
blobs = BlobStore(folder)
rng = np.random.default_rng(1)
uniform = lambda: np.stack([rng.integers(0, q, params.N, dtype=np.uint64) for q in params.primes])
digest, point = bytes(32), b"\\x80" * 48
secret = WeightOpening(tuple(int(x) for x in rng.integers(-(2**24), 2**24, d)), 12345, random_scalar())
C_W = ARKWORKS.encode(weights_key(d).commit(secret.values, secret.rho))
p0 = blobs.put(encode_public_key(params, uniform()))
key = Located(Reference(1, b"k" * 32), Key("clinic-a", params.name, 1, p0, point, point, {}, digest))
outputs = (ModelOutput("y", "identity", 28, 62, C_W),)
model = Located(
    Reference(2, b"m" * 32), Model("m", "1", params.name, digest, 34, 24, 6, outputs, digest, digest, {}, ())
)
array, inputs = np.stack([uniform(), uniform()]), []
for number in range(blocks * d):
    array[0, 0, 0] = number
    inputs.append(blobs.put(encode_input(params, key.reference.leaf, array)))
listed = blobs.put(encode_digest_list(inputs))
body = Records(
    "clinic-a", key.reference, params.name, digest, "columns", d, params.N * blocks, blocks, listed, digest,
    Policy("any", None),
)
context = Context(key, model, Located(Reference(3, b"r" * 32), body))
opening = ModelOpening("sealproof/model-opening/v1", "m", "1", (secret,))
found = predict(context, opening, blobs, plan_proofs(body, model.body, 64), (4, digest), lambda done: None)
assert len(found.proofs) == 1
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_mb(blocks: int, folder: Path) -> float:
    """Peak resident memory of a process that makes one proof over this many full blocks."""
    command = [sys.executable, "-c", _SCRIPT, str(blocks), str(_D), str(folder)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=300)
    return int(done.stdout) / 1024


@pytest.mark.slow
def test_inputs_are_never_all_in_memory(tmp_path: Path) -> None:
    few, many = peak_mb(2, tmp_path / "few"), peak_mb(14, tmp_path / "many")
    growth = (many - few) / 12
    assert growth < _INPUT_MB / 2
    assert few + 62 * growth < 1500
