"""Every relative link in a document leads to a file, and to a heading where it names one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken_links(path: Path) -> list[str]:
    found = []
    for match in LINK.finditer(FENCE.sub("", path.read_text(encoding="utf-8"))):
        target, _, anchor = match["target"].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        place = (path.parent / target).resolve() if target else path
        if not place.exists() or (anchor and anchor not in anchors(place)):
            found.append(match["target"])
    return found


def test_links_resolve(documents: list[Path]):
    broken = {str(path): broken_links(path) for path in documents}
    assert not {path: links for path, links in broken.items() if links}


def test_documents_that_belong_together_link_to_each_other(root: Path):
    architecture = (root / "docs/architecture.md").read_text(encoding="utf-8")
    for name in ("spec/protocol.md", "spec/formats.md", "threat-model.md", "reference.md"):
        assert f"({name})" in architecture
    for image in (root / "docs/img").glob("*.svg"):
        assert f"(img/{image.name})" in architecture


@pytest.mark.parametrize("text", ["[a](missing.md)", "![a](img/no.svg)", "[a](#nowhere)", "[a](page.md#nowhere)"])
def test_a_broken_link_is_noticed(tmp_path: Path, text: str):
    page = tmp_path / "page.md"
    page.write_text(f"# Here\n\n[good](page.md#here) {text}\n")
    assert len(broken_links(page)) == 1
