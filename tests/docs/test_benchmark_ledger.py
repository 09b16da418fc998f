"""The published figures of the ledger: complete, and every ratio follows from the rounds printed beside it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "ledger.json"

KEYS = {"ratios", "seconds", "bytes", "peak_rss_mb", "work", "skipped", "versions", "machine", "command"}
BACKENDS = ("sqlite", "tiles", "postgres")
STEPS = ("single", "threads", "batch", "published", "integrate")
PROOFS = ("proof_inclusion", "proof_consistency", "proof_file", "proof_verified")
PEER = ("pymerkle_single", "pymerkle_batch", "pymerkle_proof_inclusion")


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    if not RESULTS.exists():
        pytest.fail("no published results yet: run python benchmarks/ledger_log.py")
    return json.loads(RESULTS.read_text())  # type: ignore[no-any-return]


def check_complete(result: dict[str, Any]) -> None:
    """Every step was measured in every round, or its absence is explained."""
    assert result.keys() == KEYS
    assert result["skipped"].keys() <= {"postgres", "pymerkle"}
    assert all(result["skipped"].values())
    expected = {"fsync", "fsync_batch", "opening", *PROOFS}
    expected |= {f"{b}_{step}" for b in BACKENDS if b not in result["skipped"] for step in STEPS}
    expected |= set() if "pymerkle" in result["skipped"] else set(PEER)
    seconds = result["seconds"]
    assert seconds.keys() == expected
    assert len({len(times["rounds"]) for name, times in seconds.items() if name != "opening"}) == 1
    for times in seconds.values():
        rounds = times["rounds"]
        assert (times["min"], times["median"], times["max"]) == (min(rounds), median(rounds), max(rounds))
        assert min(rounds) > 0
    # The longest wait of one append among many is no shorter than the mean of all of them.
    for backend in BACKENDS:
        if backend not in result["skipped"]:
            waits, threads = (seconds[f"{backend}_{step}"]["rounds"] for step in ("integrate", "threads"))
            assert all(longest > mean for longest, mean in zip(waits, threads, strict=True))


def check_ratios(result: dict[str, Any]) -> None:
    """Recompute every ratio from the raw rounds; independent of the benchmark's own code."""
    seconds = result["seconds"]
    pairs = {
        "single_over_pymerkle": ("sqlite_single", "pymerkle_single"),
        "batch_over_pymerkle": ("sqlite_batch", "pymerkle_batch"),
        "proof_over_pymerkle": ("proof_inclusion", "pymerkle_proof_inclusion"),
    }
    for backend in BACKENDS:
        pairs[f"{backend}_single_over_fsync"] = (f"{backend}_single", "fsync")
        pairs[f"{backend}_threads_over_fsync"] = (f"{backend}_threads", "fsync")
        pairs[f"{backend}_batch_over_fsync_batch"] = (f"{backend}_batch", "fsync_batch")
    assert result["ratios"].keys() == pairs.keys()
    for name, (above, below) in pairs.items():
        found = result["ratios"][name]
        if above not in seconds or below not in seconds:
            assert found is None
            continue
        rounds = zip(seconds[above]["rounds"], seconds[below]["rounds"], strict=True)
        assert found == pytest.approx(median(a / b for a, b in rounds))


def test_published_figures_are_complete_and_their_ratios_recompute(published: dict[str, Any]) -> None:
    check_complete(published)
    check_ratios(published)


def test_published_figures_are_of_the_named_work(published: dict[str, Any]) -> None:
    assert published["work"] == {"batch": 256, "threads": 32, "proof_log": 1_000_000, "proofs": 256}
    assert published["bytes"]["entry"] == 400
    assert not published["skipped"]
    assert min(len(times["rounds"]) for name, times in published["seconds"].items() if name != "opening") >= 3


def test_a_proof_of_a_million_entries_takes_less_than_a_millisecond(published: dict[str, Any]) -> None:
    for name in PROOFS[:3]:
        assert published["seconds"][name]["median"] < 1e-3


def test_appends_that_arrive_together_share_flushes(published: dict[str, Any]) -> None:
    for backend in BACKENDS:
        seconds = published["seconds"]
        assert seconds[f"{backend}_threads"]["median"] < seconds[f"{backend}_single"]["median"]


def test_a_changed_ratio_is_noticed(published: dict[str, Any]) -> None:
    for name, value in published["ratios"].items():
        changed = {**published, "ratios": {**published["ratios"], name: value * 1.01}}
        with pytest.raises(AssertionError):
            check_ratios(changed)


def test_published_figures_name_no_machine_and_no_path(published: dict[str, Any]) -> None:
    assert set(published["machine"]) == {"cpu", "cores", "memory_gb", "system"}
    text = json.dumps(published)
    for trace in ("/home/", "/root/", "/tmp/", "/usr/", "://", str(ROOT)):
        assert trace not in text
    assert RESULTS.with_suffix(".png").exists()


@pytest.mark.slow
def test_the_ledger_is_measured_and_the_documents_show_it(
    tmp_path: Path, tools: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "quick.json"
    script = str(ROOT / "benchmarks" / "ledger_log.py")
    command = [sys.executable, script, "--rounds", "2", "--million", "2000", "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    check_complete(result)
    check_ratios(result)
    assert (importlib.util.find_spec("pymerkle") is None) == ("pymerkle" in result["skipped"])
    assert str(tmp_path) not in out.read_text()
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(tools.doc_cost_ledger, "LEDGER", out)
    shown = tools.doc_cost_ledger.ledger_cost()
    assert "In a log of 2,000 entries" in shown
    assert ("pymerkle" in shown) == ("pymerkle" not in result["skipped"])


def test_what_was_not_measured_is_said_to_be_missing(
    tools: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, part in (("LEDGER", "ledger_cost"), ("EVM", "chain_cost")):
        monkeypatch.setattr(tools.doc_cost_ledger, name, tmp_path / "missing.json")
        assert "not measured yet" in getattr(tools.doc_cost_ledger, part)()


@pytest.mark.slow
def test_a_senseless_option_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "ledger_log.py"), "--rounds", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "from 1 to 100" in done.stderr


def test_no_benchmark_has_the_name_of_a_package(root: Path) -> None:
    """It would hide the package from the others, whose folder is looked in first."""
    packages = {path.parent.name for path in root.glob("*/__init__.py")}
    assert "ledger" in packages
    assert not packages & {path.stem for path in (root / "benchmarks").glob("*.py")}
