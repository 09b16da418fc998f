"""Rewrite the line counts in SECURITY.md: `python docs/tools/line_counts.py`, or `--check` to compare only.

Every table row of SECURITY.md that begins with a file name in back quotes gets that file's number of lines in its
second column; a row `all` gets the sum of the rows above it in its table.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECURITY = ROOT / "SECURITY.md"

_ROW = re.compile(r"^\| `(?P<path>[^`]+)` \| *(?P<count>\d+) *\|(?P<rest>.*)$")
_TOTAL = re.compile(r"^\| all \| *\d+ *\|(?P<rest>.*)$")


def counted_files(text: str) -> dict[str, int]:
    """The files that the table lists, with the counts it gives."""
    rows = (_ROW.match(line) for line in text.splitlines())
    return {row["path"]: int(row["count"]) for row in rows if row}


def lines_of(path: str) -> int:
    """Lines of a file of this repository."""
    return len((ROOT / path).read_text(encoding="utf-8").splitlines())


def rewritten(text: str) -> str:
    """SECURITY.md with today's counts."""
    out, total = [], 0
    for line in text.splitlines():
        row, sums = _ROW.match(line), _TOTAL.match(line)
        if row:
            count = lines_of(row["path"])
            total += count
            out.append(f"| `{row['path']}` | {count} |{row['rest']}")
        elif sums:
            out.append(f"| all | {total} |{sums['rest']}")
            total = 0
        else:
            out.append(line)
    return "\n".join(out) + "\n"


def main(arguments: list[str]) -> int:
    """Exit status: 0 when the table is (now) right, 1 when `--check` finds it wrong."""
    before = SECURITY.read_text(encoding="utf-8")
    after = rewritten(before)
    if "--check" in arguments:
        return int(before != after)
    SECURITY.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
