"""Clocks, memory and the machine. Standard library only: the peers import it from their own environments."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

__all__ = ["Step", "interleave", "machine", "peak_rss_mb", "summary", "versions"]


@dataclass(frozen=True)
class Step:
    """One measured step. Short ones are called `calls` times in a row and their mean is the round's time."""

    name: str
    run: Callable[[], object]
    calls: int = 1


def interleave(
    steps: Sequence[Step], rounds: int, *, warm_up: bool, progress: Callable[[str], None] = lambda name: None
) -> dict[str, list[float]]:
    """Seconds of each step in each round, after one round that is not counted if `warm_up`.

    The steps take turns (A B C A B C ...), so that a machine that slows down for a while slows all of them, and a
    ratio of two steps of one round means something.
    """
    seconds: dict[str, list[float]] = {step.name: [] for step in steps}
    for number in range(0 if warm_up else 1, rounds + 1):
        for step in steps:
            progress(step.name)
            start = time.perf_counter()
            for _ in range(step.calls):
                step.run()
            if number:
                seconds[step.name].append((time.perf_counter() - start) / step.calls)
    return seconds


def summary(samples: Sequence[float]) -> dict[str, object]:
    """Least, median and greatest of the rounds, and the rounds themselves, from which every ratio is recomputed."""
    return {
        "min": min(samples),
        "median": statistics.median(samples),
        "max": max(samples),
        "rounds": list(samples),
    }


def peak_rss_mb(process: int | None = None) -> float:
    """Peak resident memory of a process, by default this one, in megabytes (10^6 bytes).

    From /proc, because getrusage's ru_maxrss survives exec and so starts at the size of the parent.
    """
    for line in Path(f"/proc/{process or 'self'}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) * 1024 / 1e6, 1)
    raise OSError("this kernel does not report VmHWM")


def machine() -> dict[str, object]:
    """What a reader needs to judge the figures, and nothing that names the machine."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions(packages: Sequence[str]) -> Mapping[str, str]:
    """Python's version and those of the packages."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}
