"""The published figures: complete, and every ratio follows from the seconds and bytes printed beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "overhead.json"

KEYS = {"ratios", "seconds", "bytes", "peak_rss_mb", "versions", "machine", "command"}
RATIOS = {
    "prove_over_encrypt",
    "verify_over_encrypt",
    "prove_over_encrypt_64",
    "verify_over_encrypt_64",
    "attestation_bytes_first",
    "attestation_bytes_next",
    "ezkl_over_prove",
}


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    if not RESULTS.exists():
        pytest.fail("no published results yet: run python benchmarks/overhead.py --peers")
    return json.loads(RESULTS.read_text())  # type: ignore[no-any-return]


def check_ratios(result: dict[str, Any]) -> None:
    """Recompute every ratio from the raw rounds; independent of the benchmark's own code."""
    ratios, sizes = result["ratios"], result["bytes"]

    def rounds(name: str) -> list[float]:
        times = result["seconds"][name]
        assert times["min"] == min(times["rounds"])
        assert times["max"] == max(times["rounds"])
        assert times["median"] == median(times["rounds"])
        return times["rounds"]  # type: ignore[no-any-return]

    largest = max(result["work"]["blocks"])
    for blocks in result["work"]["blocks"]:
        end = "" if blocks == 1 else f"_{blocks}"
        encrypt, evaluate, prove, verify = (
            rounds(name + end) for name in ("clinic_encrypt", "evaluate", "prove", "verify")
        )
        proving = [(a + b) / c for a, b, c in zip(evaluate, prove, encrypt, strict=True)]
        assert ratios[f"prove_over_encrypt{end}"] == pytest.approx(median(proving))
        verifying = [a / c for a, c in zip(verify, encrypt, strict=True)]
        assert ratios[f"verify_over_encrypt{end}"] == pytest.approx(median(verifying))
    assert ratios["attestation_bytes_first"] == sizes["proof"]
    if largest > 2:
        growth = (sizes[f"proof_{largest}"] - sizes["proof_2"]) / (largest - 2)
        assert ratios["attestation_bytes_next"] == pytest.approx(growth)
    ours = median(a + b for a, b in zip(rounds("evaluate"), rounds("prove"), strict=True))
    ours /= result["work"]["patients"]
    for name, statements in {
        "ezkl_over_prove": {"committed", "hashed"},
        "ezkl_hashed_over_prove": {"hashed"},
        "ezkl_clear_over_prove": {"clear"},
    }.items():
        theirs = [
            median(a + b for a, b in zip(run["seconds"]["witness"], run["seconds"]["prove"], strict=True))
            / run["batch"]
            for run in result["peers"].get("ezkl", {"runs": []})["runs"]
            if run["statement"] in statements
        ]
        assert ratios[name] == (pytest.approx(min(theirs) / ours) if theirs else None)
    for name, seconds in (
        (
            "concrete_ml_over_attested",
            [r["seconds"]["execute"] for r in result["peers"].get("concrete_ml", {"runs": []})["runs"]],
        ),
        (
            "tenseal_over_attested",
            [rounds("tenseal_vector_evaluate")] if "tenseal_vector_evaluate" in result["seconds"] else [],
        ),
    ):
        assert ratios.get(name) == (pytest.approx(min(map(median, seconds)) / ours) if seconds else None)


def test_published_results_have_every_key(published: dict[str, Any]) -> None:
    assert published.keys() >= KEYS
    assert published["ratios"].keys() >= RATIOS
    assert all(published["seconds"].values())


def test_published_ratios_recompute(published: dict[str, Any]) -> None:
    check_ratios(published)


def test_published_results_are_of_the_named_work(published: dict[str, Any]) -> None:
    assert published["work"]["features"] == 30
    assert published["work"]["patients"] == 4096
    assert set(published["work"]["blocks"]) >= {1, 8, 64}


def test_a_peer_is_measured_or_its_absence_explained(published: dict[str, Any]) -> None:
    for peer in ("ezkl", "concrete_ml"):
        assert (peer in published["peers"]) != (peer in published["skipped"])
        assert published["skipped"].get(peer, "measured").strip()


def test_published_answers_are_within_the_proven_bound(published: dict[str, Any]) -> None:
    errors = published["error"]
    compared = [name for name in errors if name.startswith("largest")]
    assert compared
    for name in compared:
        assert errors[name] <= errors[name.replace("largest", "proven")]


def test_memory_does_not_grow_with_the_cohort(published: dict[str, Any]) -> None:
    for step in ("evaluate_and_prove_64", "verify_64"):
        assert published["peak_rss_mb"][step] < 1500


def test_published_results_name_no_machine_and_no_path(published: dict[str, Any]) -> None:
    assert set(published["machine"]) == {"cpu", "cores", "memory_gb", "system"}
    text = json.dumps(published)
    for trace in ("/home/", "/root/", "/tmp/", "/usr/", "://", str(ROOT)):
        assert trace not in text
    assert RESULTS.with_suffix(".png").exists()


@pytest.mark.slow
def test_overhead_runs_on_a_tiny_cohort(tmp_path: Path) -> None:
    out = tmp_path / "quick.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "overhead.py"), "--quick", "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "prove_over_encrypt" in done.stdout
    result = json.loads(out.read_text())
    assert result.keys() >= KEYS
    assert str(tmp_path) not in out.read_text()
    check_ratios(result)
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_overhead_refuses_a_senseless_option(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "overhead.py"), "--rounds", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "at least 1" in done.stderr


def test_a_changed_ratio_is_noticed(published: dict[str, Any]) -> None:
    for name, value in published["ratios"].items():
        if value is not None:
            changed = {**published, "ratios": {**published["ratios"], name: value * 1.01}}
            with pytest.raises(AssertionError):
                check_ratios(changed)


def test_the_published_latency_is_complete_and_within_the_measure():
    result = json.loads((RESULTS.parent / "latency.json").read_text())
    for key in ("ratios", "seconds", "bytes", "peak_rss_mb", "versions", "machine", "command"):
        assert result[key]
    rounds = result["seconds"]["predict"]["rounds"]
    assert result["seconds"]["predict"]["median"] == median(rounds)
    first = result["seconds"]["first_predict"]["median"]
    assert result["ratios"]["first_over_warm"] == pytest.approx(first / median(rounds))
    # One patient: under a second from request to verified answer, keys warm.
    assert max(rounds) < 1
    assert not any(trace in json.dumps(result) for trace in ("/home/", "/root/", "/tmp/", "://", str(ROOT)))
