"""The package's face: exact public names, an error tree as drawn, and no way back into the rest of the project."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ledger
from ledger import errors

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    ".".join(p.relative_to(ROOT).with_suffix("").parts)
    for p in (ROOT / "ledger").rglob("*.py")
    if p.name != "__init__.py"
)


@pytest.mark.parametrize("name", ["ledger", *MODULES])
def test_all_is_exact(name: str) -> None:
    module = importlib.import_module(name)
    assert len(set(module.__all__)) == len(module.__all__)
    assert all(hasattr(module, public) for public in module.__all__)
    defined = {
        public
        for public, value in vars(module).items()
        if not public.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == name
    }
    assert defined <= set(module.__all__)


def test_the_error_tree_is_the_one_drawn() -> None:
    drawn: dict[str, str] = {}
    stack: list[str] = []
    for line in (errors.__doc__ or "").splitlines()[1:]:
        if match := re.match(r"^((?:[│ ] {3})*(?:[├└]── )?)([A-Z]\w+)", line):
            depth = len(match[1]) // 4
            stack[depth:] = [match[2]]
            drawn[match[2]] = stack[depth - 1] if depth else "Exception"
    real = {
        name: next(base.__name__ for base in getattr(errors, name).__mro__[1:] if issubclass(base, Exception))
        for name in errors.__all__
    }
    assert drawn == real
    assert set(errors.__all__) <= set(ledger.__all__)


def test_the_log_knows_nothing_of_the_rest() -> None:
    code = (
        "import sys\n"
        + "".join(f"import {m}\n" for m in MODULES)
        + "print(*sorted({m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"privacy", "api", "numpy", "tenseal", "torch", "fastapi"} & set(done.stdout.split())
