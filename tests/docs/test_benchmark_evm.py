"""The published gas: complete, its ratios follow from it, and it is what the contracts take."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "evm.json"


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    if not RESULTS.exists():
        pytest.fail("no published results yet: run python benchmarks/evm.py")
    return json.loads(RESULTS.read_text())  # type: ignore[no-any-return]


def leaves(value: Any) -> list[int]:
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in leaves(part)]
    if isinstance(value, list):
        return [leaf for part in value for leaf in leaves(part)]
    return [value]


def test_published_gas_is_complete_and_its_ratios_recompute(published: dict[str, Any]) -> None:
    assert published.keys() == {"ratios", "gas", "seconds", "bytes", "work", "versions", "machine", "command"}
    gas, work = published["gas"], published["work"]
    assert gas.keys() == {"anchor", "approvals", "trial"}
    assert all(isinstance(value, int) for value in leaves(gas))
    assert [row["to"] for row in gas["anchor"]["advance"]] == work["tree_sizes"]
    enrol = {row["signers"]: row["gas"] for row in gas["trial"]["enrol"]["next"]}
    assert list(enrol) == work["signers"] == [1, 3, 8]
    ratios = published["ratios"]
    assert ratios["enrol_gas_per_further_signer"] == pytest.approx((enrol[8] - enrol[1]) / 7)
    assert ratios["enrol_8_over_1"] == pytest.approx(enrol[8] / enrol[1])
    rows = sorted((row["hashes"], row["gas"]) for row in gas["anchor"]["advance"] if row["from"])
    (few, least), (many, greatest) = rows[0], rows[-1]
    assert ratios["advance_gas_per_hash"] == pytest.approx((greatest - least) / (many - few))
    # EIP-7825: what one transaction may take at most.
    assert max(part["deploy"] for part in gas.values()) < 1 << 24
    for name in ("anvil", "compiler", "evm", "web3", "python"):
        assert published["versions"][name]


def test_published_code_is_that_of_the_committed_artefacts(published: dict[str, Any]) -> None:
    for name, size in published["bytes"].items():
        artefact = json.loads((ROOT / "ledger" / "anchors" / "contracts" / f"{name}.json").read_text())
        assert size == len(artefact["runtime"]) // 2 + artefact["immutable_bytes"] < 24_577
        assert published["versions"]["compiler"] == artefact["compiler"]


def test_published_gas_names_no_machine_and_no_path(published: dict[str, Any]) -> None:
    assert set(published["machine"]) == {"cpu", "cores", "memory_gb", "system"}
    text = json.dumps(published)
    for trace in ("/home/", "/root/", "/tmp/", "/usr/", "://", str(ROOT)):
        assert trace not in text


def test_the_contracts_take_the_published_gas(published: dict[str, Any], chain: Any) -> None:
    """Within two in a thousand: addresses differ, and a zero byte of calldata costs less than another. A hospital's
    signature may take a second try of ecrecover."""
    pytest.importorskip("web3", reason="web3 is not installed: pip install 'sealproof[evm]'")
    spec = importlib.util.spec_from_file_location("evm_benchmark", ROOT / "benchmarks" / "evm.py")
    assert spec is not None and spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    try:
        spec.loader.exec_module(benchmark)
    finally:
        sys.path[:] = before
    for part, measure, more in (("approvals", benchmark.approved, 3500), ("trial", benchmark.enrolled, 0)):
        found, expected = leaves(measure(chain)), leaves(published["gas"][part])
        assert found == pytest.approx(expected, rel=2e-3, abs=more)
