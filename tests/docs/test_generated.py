"""Tables and examples in the documents are what today's code computes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import ModuleType

import pytest

from api.entries import KINDS, Disclosure, decode_entry
from api.registry import Registry


def test_every_generated_part_is_up_to_date(tools: ModuleType, root: Path):
    for name in tools.DOCUMENTS:
        text = (root / name).read_text(encoding="utf-8")
        assert tools.rewritten(text) == text, f"{name}: run python docs/tools/generate.py"


def test_every_part_is_shown_somewhere_and_every_mark_is_of_a_known_part(tools: ModuleType, root: Path):
    shown = [part for name in tools.DOCUMENTS for part in tools.parts_of((root / name).read_text(encoding="utf-8"))]
    assert sorted(shown) == sorted(tools.PARTS)


def test_marks_stand_in_listed_documents_only(tools: ModuleType, documents: list[Path], root: Path):
    for path in documents:
        if "<!-- generated:" in path.read_text(encoding="utf-8"):
            assert str(path.relative_to(root)) in tools.DOCUMENTS


def test_a_part_that_drifted_is_noticed(tools: ModuleType, root: Path):
    text = (root / "docs/spec/protocol.md").read_text(encoding="utf-8")
    assert "| 2^-6 | 25 |" in text
    assert tools.rewritten(text.replace("| 2^-6 | 25 |", "| 2^-6 | 26 |")) == text


def test_a_mark_that_nothing_generates_is_noticed(tools: ModuleType):
    with pytest.raises(KeyError):
        tools.rewritten("<!-- generated: nothing -->\n<!-- end -->\n")


def test_the_ledger_of_the_examples_is_one_that_a_reader_accepts(tools: ModuleType):
    """Signatures, roles, references, order, coverage: everything that entries alone can show."""
    example = tools.doc_examples.example()
    registry = Registry(tools.doc_examples.ORIGIN)
    registry.extend(example.entries)
    assert {entry.body.KIND for entry in map(decode_entry, example.entries)} == set(KINDS)


def test_the_examples_of_signed_statements_are_those_that_the_ledger_names(tools: ModuleType):
    example = tools.doc_examples.example()
    (disclosure,) = [e.body for e in map(decode_entry, example.entries) if isinstance(e.body, Disclosure)]
    envelope = tools.doc_joint.signed_disclosure(example.entries, disclosure.prediction.index)
    assert hashlib.sha256(envelope).digest() == disclosure.statement


def test_the_table_of_the_engines_knows_what_was_not_measured(
    tools: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("RESULTS", "LATENCY", "MPC"):
        monkeypatch.setattr(tools.doc_cost, name, tmp_path / "missing.json")
    assert tools.doc_choosing.choosing().count("not measured yet") == 4
