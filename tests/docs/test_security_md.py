"""SECURITY.md lists what a verdict rests on, with the right sizes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

PROGRAM = """
import json, sys
import api.client.audit
print(json.dumps([m.__file__ for n, m in sys.modules.items() if n.split(".")[0] in ("api", "privacy", "ledger")]))
"""


def test_line_counts_are_those_of_the_files(line_counts: ModuleType):
    text = line_counts.SECURITY.read_text(encoding="utf-8")
    assert line_counts.rewritten(text) == text, "run python docs/tools/line_counts.py"


def test_a_wrong_count_is_noticed(line_counts: ModuleType):
    text = line_counts.SECURITY.read_text(encoding="utf-8")
    count = line_counts.lines_of("privacy/zk/transcript.py")
    changed = text.replace(f"transcript.py` | {count} |", f"transcript.py` | {count + 1} |")
    assert changed != text
    assert line_counts.rewritten(changed) == text


def test_the_tables_list_what_the_verifier_imports_and_nothing_else(line_counts: ModuleType, root: Path):
    found = subprocess.run([sys.executable, "-c", PROGRAM], cwd=root, capture_output=True, text=True, check=True)
    paths = {str(Path(name).relative_to(root)) for name in json.loads(found.stdout)}
    imported = {path for path in paths if not path.endswith("__init__.py")}
    verifier, _, watchers = line_counts.SECURITY.read_text(encoding="utf-8").partition("\n## Watching the ledger\n")
    assert set(line_counts.counted_files(verifier)) == imported
    others = set(line_counts.counted_files(watchers))
    assert others > {"ledger/fsck.py", "ledger/witness.py", "ledger/anchors/contracts/HeadAnchor.vy"}
    assert not others & imported
