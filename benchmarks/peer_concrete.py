"""Concrete ML on the same model: encrypted logistic regression, no proof. Runs in its own environment (see peers.py).

Prints nothing; writes one JSON object. Encryption, execution and decryption are timed apart, record by record.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib import metadata
from pathlib import Path

import numpy as np
from concrete.ml.sklearn import LogisticRegression
from measure import peak_rss_mb

TRAINING_RECORDS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bits", type=int, required=True)
    parser.add_argument("--features", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True, help="records executed, after one that is not counted")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (TRAINING_RECORDS, arguments.features))
    y = (X @ rng.normal(size=arguments.features) > 0).astype(int)
    model = LogisticRegression(n_bits=arguments.bits)
    model.fit(X, y)
    start = time.perf_counter()
    circuit = model.compile(X)
    compiled = time.perf_counter() - start
    start = time.perf_counter()
    circuit.keygen()
    keys = time.perf_counter() - start
    names = ("encrypt", "execute", "decrypt", "predict")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for record in X[: arguments.rounds + 1]:
        quantised = model.quantize_input(record[None])
        times = [time.perf_counter()]
        encrypted = circuit.encrypt(quantised)
        times.append(time.perf_counter())
        result = circuit.run(encrypted)
        times.append(time.perf_counter())
        circuit.decrypt(result)
        times.append(time.perf_counter())
        model.predict(record[None], fhe="execute")
        times.append(time.perf_counter())
        for name, before, after in zip(names, times[:-1], times[1:], strict=True):
            seconds[name].append(after - before)
    found = {
        "bits": arguments.bits,
        "seconds": {
            "compile": [compiled],
            "keygen": [keys],
            **{name: samples[1:] for name, samples in seconds.items()},
        },
        "peak_rss_mb": peak_rss_mb(),
        "versions": {"concrete-ml": metadata.version("concrete-ml")},
    }
    arguments.out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
