"""The names of all checks: what `check` of an error may say. Collected from the code that refuses."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from doc_reference import error_classes
from doc_tables import table

from api.client.explain.checks import MEANINGS

__all__ = ["PARTS", "checks_in_code"]

ROOT: Final = Path(__file__).resolve().parents[2]

_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\.[a-z0-9]+(-[a-z0-9]+)*")
_FILES: Final = frozenset({"html", "json", "key", "pdf", "sealproof", "sqlite", "vkey"})
"""How names of files end, which look like those of checks."""
_NO_CHECKS: Final = frozenset({"ledger.anchors", "mpc.protocol", "mpc.provider"})
_COMPOSED: Final = (
    "approval.act",
    "approval.hospital",
    "approval.log",
    "consistency.hash",
    "entries.full",
    "inclusion.hash",
    "tile.full",
)
"""Names that the code puts together."""


def checks_in_code() -> dict[str, list[str]]:
    """Names of checks by what stands before the dot. Raises ValueError for one that has no meaning here."""
    raised: set[str] = set(_COMPOSED)
    seen: set[str] = set()
    classes = {kind.__name__ for kind in error_classes()}
    for package in ("privacy", "ledger", "api"):
        for path in (ROOT / package).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            seen.update(_names(tree))
            for call in ast.walk(tree):
                if isinstance(call, ast.Call) and call.args and _called(call) in classes:
                    raised.update(_names(call.args[0]))
    prefixes = {name.partition(".")[0] for name in raised}
    # Names that reach an error through a variable: everything else of a known kind that is no file.
    for name in seen:
        kind, _, rest = name.partition(".")
        if kind in prefixes and rest not in _FILES and name not in _NO_CHECKS:
            raised.add(name)
    if prefixes != set(MEANINGS):
        raise ValueError(f"say in api/client/explain/checks.py what these are: {sorted(prefixes ^ set(MEANINGS))}")
    return {prefix: sorted(n for n in raised if n.startswith(f"{prefix}.")) for prefix in sorted(prefixes)}


def _called(call: ast.Call) -> str:
    return str(getattr(call.func, "id", getattr(call.func, "attr", "")))


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _NAME.fullmatch(node.value):
            yield node.value


def check_table() -> str:
    """Every name, by what it is about."""
    rows = [[MEANINGS[prefix], ", ".join(f"`{name}`" for name in names)] for prefix, names in checks_in_code().items()]
    return table(["about", "checks"], rows)


PARTS: Mapping[str, Callable[[], str]] = {"checks": check_table}
