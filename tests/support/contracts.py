"""Compiling contracts in tests: the committed ones again, and weakened variants of them."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = ROOT / "ledger" / "anchors" / "contracts"


@cache
def contracts_tool() -> Any:
    """docs/tools/contracts.py as a module. Skips the test where its compiler is missing."""
    pytest.importorskip("vyper", reason="the compiler vyper is not installed: it is part of the extra dev")
    spec = importlib.util.spec_from_file_location("contracts_tool", ROOT / "docs" / "tools" / "contracts.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def weakened(name: str, *changes: tuple[str, str]) -> Any:
    """The contract's `Artefact` after replacing each text, which must be there exactly once, by another."""
    from ledger.anchors.evm import Artefact

    source = (CONTRACTS / f"{name}.vy").read_text(encoding="utf-8")
    for old, new in changes:
        assert source.count(old) == 1, (source.count(old), old)
        source = source.replace(old, new)
    return Artefact.from_json(contracts_tool().compiled(name, source))
