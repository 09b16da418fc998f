"""One step in a process of its own, for its peak memory: `child.py STEP FOLDER PACKING D COUNT BLOCKS`.

Prints the peak in megabytes. The folder is one that overhead.py has prepared.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from measure import peak_rss_mb
from workload import Work

from privacy.ckks.packing import Packing

__all__ = ["STEPS"]


def _encrypt(work: Work) -> None:
    for block in range(work.blocks):
        work.encrypt(work.encoded(block))


def _numpy(work: Work) -> None:
    for block in range(work.blocks):
        work.model.predict_raw(work.records(block))


STEPS: Mapping[str, Callable[[Work], object]] = {
    "numpy": _numpy,
    "clinic_encrypt": _encrypt,
    "evaluate_and_prove": lambda work: work.prove(work.evaluate()),
    "verify": lambda work: work.verify(work.load("proven")),
    "decrypt": lambda work: [work.open_result(result) for result in work.load("proven").results],
    "key_certificate_prove": lambda work: work.certify_key(),
    "key_certificate_verify": lambda work: work.verify_key(work.load("key-certificate")),
    "model_certificate_prove": lambda work: work.certify_model(),
    "model_certificate_verify": lambda work: work.verify_model(work.load("model-certificate")),
}


def main() -> None:
    step, folder, packing, d, count, blocks = sys.argv[1:]
    STEPS[step](Work(Path(folder), Packing(packing), int(d), int(count), int(blocks)))
    print(peak_rss_mb())


if __name__ == "__main__":
    main()
