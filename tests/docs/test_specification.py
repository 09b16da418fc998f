"""The specification has the sections that code refers to, and every format that code writes."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from api.entries import KINDS
from privacy.ckks.params import PARAMETER_SETS
from privacy.mpc.params import MPC_PARAMETER_SETS

PACKAGES = ("privacy", "ledger", "api")
REFERENCE = re.compile(r"docs/[\w./-]+\.md")
SECTIONS = re.compile(r"docs/spec/protocol\.md,?\s+sections?\s+((?:[0-9]+(?:, | and )?)+)")
FRAMES = (
    "api/mpc/link.py",
    "api/mpc/dealer_process.py",
    "api/mpc/session.py",
    "privacy/mpc/blind_check.py",
    "privacy/mpc/joint_prover.py",
)
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
    for joint in MPC_PARAMETER_SETS.values():
        assert (
            f"`{joint.name}`: inputs at scale 2^{joint.input_scale_bits}, words of {joint.word_bits} bits" in protocol
        )


def labels(path: Path) -> set[str]:
    """Labels of frames in a file: texts, or constants that hold them, among the arguments of what sends or receives."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = {
        node.target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and isinstance(node.value, ast.Constant)
    }
    found = set()
    for call in ast.walk(tree):
        if isinstance(call, ast.Call):
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            if re.search("send|receive|exchange|_products", name):
                for argument in call.args:
                    value = texts.get(argument.id) if isinstance(argument, ast.Name) else None
                    value = argument.value if isinstance(argument, ast.Constant) else value
                    found |= {value} if isinstance(value, str) else set()
    return found


def test_every_label_of_a_frame_is_documented(root: Path):
    formats = read(root, "docs/spec/formats.md")
    found = {label for name in FRAMES for label in labels(root / name)}
    assert found > {"hello", "link/ready", "dealer/plan", "ring key", "tau", "responses", "blind check", "delivered"}
    assert not {label for label in found if f"`{label}`" not in formats}


def test_what_is_not_in_this_release_is_said_to_be_missing(root: Path):
    sections = re.split(r"^## [0-9]+\. ", read(root, "docs/spec/protocol.md"), flags=re.MULTILINE)[1:]
    assert [number for number, text in enumerate(sections) if "Not in this release." in text] == []


def test_decision_records_are_short_and_numbered_without_gaps(root: Path):
    records = sorted((root / "docs/adr").glob("*.md"))
    assert [path.name[:4] for path in records] == [f"{i:04}" for i in range(1, len(records) + 1)]
    for path in records:
        text = path.read_text(encoding="utf-8")
        assert "Status: " in text
        assert len(text.split()) < 500, path.name
