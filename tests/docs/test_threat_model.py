"""The threat model names every attack test, and every test that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROW = re.compile(r"^\| `(tests/attacks/[^`]+)` \| (.+) \|$", re.MULTILINE)

TESTED = re.compile(r"^\| ([0-9]+) \| [^|]+ \| `([\w/.]+)::(\w+)` \|$", re.MULTILINE)
TRAP = r"\*\*Trap:"


@pytest.fixture(scope="module")
def text(root: Path) -> str:
    return (root / "docs/threat-model.md").read_text(encoding="utf-8")


def test_the_table_and_the_folder_agree(text: str, root: Path):
    named = [name for name, _ in ROW.findall(text)]
    present = [f"tests/attacks/{path.name}" for path in (root / "tests/attacks").glob("test_*.py")]
    assert sorted(named) == sorted(present)


def test_every_row_says_what_the_file_holds_up(text: str):
    assert all(len(promise) > 20 for _, promise in ROW.findall(text))


def test_every_attack_test_says_what_it_is_about(root: Path):
    for path in (root / "tests/attacks").glob("test_*.py"):
        assert path.read_text(encoding="utf-8").startswith('"""'), path.name


def test_every_trap_of_the_protocol_has_a_test(text: str, root: Path):
    protocol = (root / "docs/spec/protocol.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ([0-9]+)\. ", protocol, flags=re.MULTILINE)[1:]
    traps = [number for number, body in zip(sections[::2], sections[1::2], strict=True) for _ in re.findall(TRAP, body)]
    rows = TESTED.findall(text)
    assert [number for number, _, _ in rows] == traps
    for _, name, function in rows:
        assert f"def {function}(" in (root / name).read_text(encoding="utf-8"), f"{name}::{function}"


def test_every_named_path_exists(text: str, root: Path):
    for name in re.findall(r"`((?:tests|docs|privacy|ledger|api)/[^`*<>:]*)", text):
        assert (root / name).exists(), name


def test_no_defence_is_claimed_without_numbers_from_the_code(text: str):
    assert "<!-- generated: exposure-table -->" in text
    assert "<!-- generated: joint-exposure -->" in text
