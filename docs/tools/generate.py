"""Rewrite the generated parts of the documents: `python docs/tools/generate.py`, or `--check` to compare only.

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`. Its content is computed here by the
product's own code, so that no table and no example can drift away from it. Everything is deterministic: example keys
come from fixed seeds and must never be used for anything else.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "tools")]

import doc_checks  # noqa: E402
import doc_choosing  # noqa: E402
import doc_cost  # noqa: E402
import doc_cost_ledger  # noqa: E402
import doc_examples  # noqa: E402
import doc_joint  # noqa: E402
import doc_joint_tables  # noqa: E402
import doc_reference  # noqa: E402
import doc_tables  # noqa: E402

PARTS: Mapping[str, Callable[[], str]] = {
    **doc_tables.PARTS,
    **doc_examples.PARTS,
    **doc_joint.PARTS,
    **doc_joint_tables.PARTS,
    **doc_reference.PARTS,
    **doc_checks.PARTS,
    **doc_cost.PARTS,
    **doc_cost_ledger.PARTS,
    **doc_choosing.PARTS,
}
DOCUMENTS = (
    "docs/spec/protocol.md",
    "docs/spec/formats.md",
    "docs/threat-model.md",
    "docs/reference.md",
    "docs/ledger.md",
    "README.md",
)

_PART = re.compile(r"(<!-- generated: (?P<name>[a-z0-9-]+) -->\n).*?(<!-- end -->\n)", re.DOTALL)


def rewritten(text: str) -> str:
    """A document with its generated parts computed anew. Raises KeyError for a part that nothing generates."""
    return _PART.sub(lambda match: f"{match[1]}\n{PARTS[match['name']]().strip()}\n\n{match[3]}", text)


def parts_of(text: str) -> list[str]:
    """Names of the generated parts of a document."""
    return [match["name"] for match in _PART.finditer(text)]


def main(arguments: list[str]) -> int:
    """Exit status: 0 when every part is (now) right, 1 when `--check` finds one that is not."""
    stale = False
    for name in DOCUMENTS:
        path = ROOT / name
        before = path.read_text(encoding="utf-8")
        after = rewritten(before)
        if before != after and "--check" in arguments:
            print(f"{name}: run python docs/tools/generate.py")
            stale = True
        elif before != after:
            path.write_text(after, encoding="utf-8")
    return int(stale)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
