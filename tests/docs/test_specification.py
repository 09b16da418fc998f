"""The specification has the sections that code refers to, and every format that code writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from api.entries import KINDS
from privacy.ckks.params import PARAMETER_SETS

PACKAGES = ("privacy", "ledger", "api")
REFERENCE = re.compile(r"docs/[\w./-]+\.md")
SECTIONS = re.compile(r"docs/spec/protocol\.md,?\s+sections?\s+((?:[0-9]+(?:, | and )?)+)")
TAG = re.compile(r'b?"(sealproof/[\w./-]+/v[0-9]+|sealproof/v[0-9]+[\w./-]*)')


@pytest.fixture(scope="module")
def sources(root: Path) -> dict[str, str]:
    found = {
        str(path.relative_to(root)): path.read_text(encoding="utf-8")
        for package in (*PACKAGES, "tests")
        for path in (root / package).rglob("*.py")
    }
    assert len(found) > 50
    return found


def read(root: Path, name: str) -> str:
    return (root / name).read_text(encoding="utf-8")


def test_the_protocol_has_sections_0_to_10(root: Path):
    headings = re.findall(r"^## ([0-9]+)\. .+$", read(root, "docs/spec/protocol.md"), re.MULTILINE)
    assert headings == [str(i) for i in range(11)]


def test_every_section_and_document_that_code_refers_to_exists(sources: dict[str, str], root: Path):
    count = 0
    for name, text in sources.items():
        # Comments and docstrings break lines anywhere.
        flat = re.sub(r"\s*\n\s*#?\s*", " ", text)
        for numbers in SECTIONS.findall(flat):
            count += 1
            assert all(int(n) <= 10 for n in re.findall("[0-9]+", numbers)), name
        for document in REFERENCE.findall(flat):
            assert (root / document).exists(), f"{name}: {document}"
    assert count > 30


def test_every_tag_that_code_writes_is_in_the_format_documentation(sources: dict[str, str], root: Path):
    documents = read(root, "docs/spec/formats.md") + read(root, "docs/spec/protocol.md")
    tags = {tag: name for name, text in sources.items() if not name.startswith("tests/") for tag in TAG.findall(text)}
    assert len(tags) > 8
    missing = {tag: name for tag, name in tags.items() if tag not in documents}
    assert not missing


def test_every_kind_of_entry_and_parameter_set_is_documented(root: Path):
    formats, protocol = read(root, "docs/spec/formats.md"), read(root, "docs/spec/protocol.md")
    assert all(kind in formats for kind in KINDS)
    for params in PARAMETER_SETS.values():
        assert all(str(prime) in protocol for prime in (*params.primes, params.special_prime))
        assert f"`{params.name}`" in protocol


def test_what_is_not_in_this_release_is_said_to_be_missing(root: Path):
    protocol = read(root, "docs/spec/protocol.md")
    for number in (6, 7):
        section = re.split(r"^## [0-9]+\. ", protocol, flags=re.MULTILINE)[number + 1]
        assert "Not in this release." in section


def test_decision_records_are_short_and_numbered_without_gaps(root: Path):
    records = sorted((root / "docs/adr").glob("*.md"))
    assert [path.name[:4] for path in records] == [f"{i:04}" for i in range(1, len(records) + 1)]
    for path in records:
        text = path.read_text(encoding="utf-8")
        assert "Status: " in text
        assert len(text.split()) < 500, path.name
