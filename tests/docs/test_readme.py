"""What README.md and docs/ledger.md say is run, in the order a reader would type it, and prints what they show."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "docs" / "tools" / "readme.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme_tool", TOOL)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    try:
        spec.loader.exec_module(made)
    finally:
        sys.path[:] = before
    return made


@pytest.mark.slow
@pytest.mark.parametrize("part", ["--without", "--only"])
def test_the_readme_shows_what_happens(part: str):
    """Everything but the demonstration, which takes as long as that, and the demonstration."""
    done = subprocess.run([sys.executable, str(TOOL), part, "demo"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_block_of_commands_is_run_or_plainly_not_for_running(tool: ModuleType):
    """Blocks without a name are what a reader types once, such as `make demo`."""
    for path in tool.DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        assert text.count("```console") == sum(match["kind"] == "console" for match in tool.blocks(text).values())
        assert text.count("```python") == sum(match["kind"] == "python" for match in tool.blocks(text).values())


def test_a_changed_output_is_noticed(tool: ModuleType):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = tool.blocks(text)["auditor-shell"][0]
    assert "VERIFIED" in block
    assert tool.normalised(block) != tool.normalised(block.replace("VERIFIED", "REFUSED"))
    assert tool.normalised(block) == tool.normalised(block.replace("0.00 s", "7.31 s"))


def test_signatures_may_differ_and_who_signed_may_not(tool: ModuleType):
    text = (ROOT / "docs" / "ledger.md").read_text(encoding="utf-8")
    block = tool.blocks(text)["since-shell"][0]
    shown = re.findall(r"^— (\S+) (\S+)$", block, re.M)
    assert len(shown) == 4
    for name, signature in shown:
        assert tool.normalised(block.replace(signature, "A" * 96)) == tool.normalised(block)
        assert tool.normalised(block.replace(f"— {name} ", "— another ")) != tool.normalised(block)


def test_what_tells_of_chains_is_left_out_only_where_there_is_none(tool: ModuleType):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = tool.blocks(text)["demo"][0]
    assert "    contract: " in block
    without = "".join(
        line
        for line in block.splitlines(keepends=True)
        if "    contract: " not in line and "in a contract on chain" not in line
    )
    assert tool.normalised(without, chain=False) == tool.normalised(block, chain=False)
    assert tool.normalised(without) != tool.normalised(block)
    assert tool.normalised(block.replace("witness: ", "nobody: "), chain=False) != tool.normalised(block, chain=False)


def test_commands_go_on_over_lines_and_outputs_belong_to_them(tool: ModuleType):
    body = "$ cat > a <<END\n> one\n> END\n$ cat a\none\n> not a command\n$ true\n"
    assert tool.steps(body) == [
        ("$ cat > a <<END\n> one\n> END\n", ""),
        ("$ cat a\n", "one\n> not a command\n"),
        ("$ true\n", ""),
    ]


def test_what_an_output_showed_is_exchanged_in_later_commands(tool: ModuleType, tmp_path: Path):
    session = tool.Session(tmp_path)
    key, other = f"log.example+{'0' * 8}+{'A' * 44}", f"log.example+{'1' * 8}+{'B' * 44}"
    for old, new in ((key, other), ("0x" + "0" * 40, "0x" + "aB" * 20), ("02" * 33, "03" * 33), ("0" * 64, "f" * 64)):
        session.learn(f"shown: {old}\n", f"shown: {new}\n")
        assert session.current(f"$ use {old} twice {old}") == f"$ use {new} twice {new}"
    session.learn("one " + "a" * 64, "none")
    assert session.current("a" * 64) == "a" * 64
    assert session.shell("printf 'a\\nb\\n' | tail -1") == "b\n"
    session.close()
