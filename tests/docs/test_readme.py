"""The README's commands are run, in the order a reader would type them, and print what it shows."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "docs" / "tools" / "readme.py"


@pytest.mark.slow
def test_the_readme_shows_what_happens():
    done = subprocess.run([sys.executable, str(TOOL)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_changed_output_is_noticed():
    spec = importlib.util.spec_from_file_location("readme_tool", TOOL)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = tool.blocks(text)["auditor-shell"][0]
    assert "VERIFIED" in block
    assert tool.normalised(block) != tool.normalised(block.replace("VERIFIED", "REFUSED"))
    assert tool.normalised(block) == tool.normalised(block.replace("0.00 s", "7.31 s"))
