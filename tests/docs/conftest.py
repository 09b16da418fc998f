"""The documents, and the tools that write their tables and examples."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def documents() -> list[Path]:
    """Every Markdown file of the repository; folders that begin with a dot are not part of it."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/**/*.md")]
    assert len(found) > 10
    return sorted(found)


@pytest.fixture(scope="session")
def tools() -> Iterator[ModuleType]:
    """docs/tools/generate.py, with its parts beside it as `generate.doc_tables` and so on."""
    folder = str(ROOT / "docs" / "tools")
    before = list(sys.path)
    sys.path.insert(0, folder)
    yield importlib.import_module("generate")
    sys.path[:] = before


@pytest.fixture(scope="session")
def line_counts(tools: ModuleType) -> ModuleType:
    return importlib.import_module("line_counts")
