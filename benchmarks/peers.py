"""Other systems on the same model, each in its own virtual environment under build/peers.

A peer that cannot be installed or run is skipped, and the result says why.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["concrete_ml", "ezkl"]

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE.parent / "build" / "peers"

INSTALL_SECONDS = 1800
EZKL_BATCHES = (1, 8, 64, 256, 1024, 4096)
EZKL_STATEMENTS = {
    "clear": ("public", "fixed"),
    "committed": ("polycommit", "polycommit"),
    "hashed": ("hashed", "hashed"),
}
"""Visibility of (records, weights). `clear`: anyone sees the records, the weights are part of the circuit. The other
two hide both and bind them, as ours does: by KZG commitments, or by Poseidon hashes."""
EZKL_ROUNDS = 3
"""Its steps are alone on the machine and take seconds; each batch and statement makes this many proofs."""
CONCRETE_BITS = (8, 12)
MEMORY_SHARE = 0.85


class PeerFailed(Exception):
    """A peer could not be installed or run; the text says why."""


def _environment(name: str, requirements: Sequence[str]) -> Path:
    """The Python of the environment, made and filled if it is not there yet."""
    folder = ENVIRONMENTS / name
    python, ready = folder / "bin" / "python", folder / ".ready"
    wanted = "\n".join(requirements)
    if ready.exists() and ready.read_text() == wanted:
        return python
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", "--clear", str(folder)], INSTALL_SECONDS)
    _run([str(python), "-m", "pip", "install", "--quiet", *requirements], INSTALL_SECONDS)
    ready.write_text(wanted)
    return python


def _limit_memory() -> None:
    """What does not fit in memory fails by itself, not by taking the machine down."""
    limit = int(MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _run(command: Sequence[str], seconds: float) -> None:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
            preexec_fn=_limit_memory,
        )
    except subprocess.TimeoutExpired:
        raise PeerFailed(f"not finished after {seconds:.0f} s") from None
    if done.returncode:
        # An index's address is nobody's business.
        lines = [line for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip() and "://" not in line]
        reason = lines[-1][:200] if lines else ""
        raise PeerFailed(f"exit status {done.returncode}: {reason}".replace(str(HERE.parent), "."))


def _measure(python: Path, script: str, options: Mapping[str, object], seconds: float) -> dict[str, Any]:
    # The folder is ours, not the peer's, so that it goes even when the peer is killed. On disk: keys exceed 1 GB.
    with tempfile.TemporaryDirectory(dir=ENVIRONMENTS) as folder:
        out = Path(folder) / "result.json"
        arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        _run([str(python), str(HERE / script), *arguments, "--out", str(out)], seconds)
        found: dict[str, Any] = json.loads(out.read_text())
        return found


def ezkl(features: int, rounds: int, seconds: float, report: Callable[[str], None]) -> dict[str, Any]:
    """EZKL 23.0.5: per statement, batches that grow until one does not fit in `seconds` or in memory.

    Raises PeerFailed when not even one proof can be made.
    """
    python = _environment("ezkl", ["ezkl==23.0.5", "onnx", "numpy"])
    runs, stopped = [], {}
    for statement, (records, weights) in EZKL_STATEMENTS.items():
        for batch in EZKL_BATCHES:
            report(f"EZKL, {statement}, batch of {batch}")
            options = {
                "batch": batch,
                "features": features,
                "rounds": min(rounds, EZKL_ROUNDS),
                "records": records,
                "weights": weights,
                "srs": ENVIRONMENTS / "srs",
            }
            try:
                runs.append({"statement": statement, **_measure(python, "peer_ezkl.py", options, seconds)})
            except PeerFailed as error:
                stopped[statement] = f"batch of {batch}: {error}"
                break
    if not runs:
        raise PeerFailed("; ".join(stopped.values()))
    return {"runs": runs, "stopped": stopped}


def concrete_ml(features: int, rounds: int, seconds: float, report: Callable[[str], None]) -> dict[str, Any]:
    """Concrete ML 1.9.0: logistic regression at each of CONCRETE_BITS. Raises PeerFailed."""
    # Its sources still import what later setuptools no longer ship.
    python = _environment("concrete-ml", ["concrete-ml==1.9.0", "setuptools<81"])
    runs = []
    for bits in CONCRETE_BITS:
        report(f"Concrete ML, {bits} bits")
        options = {"bits": bits, "features": features, "rounds": rounds}
        runs.append(_measure(python, "peer_concrete.py", options, seconds))
    return {"runs": runs}
