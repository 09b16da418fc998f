"""Every command, option, setting, route and error is documented. Looked up again, without the tool that writes them."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

from api import errors as api_errors
from api.settings import Settings
from ledger import errors as ledger_errors
from privacy import errors as privacy_errors


@pytest.fixture(scope="module")
def reference(root: Path) -> str:
    return (root / "docs/reference.md").read_text(encoding="utf-8")


def test_every_setting_is_documented(reference: str):
    for name in Settings.model_fields:
        assert f"`SEALPROOF_{name.upper()}`" in reference


def test_every_environment_variable_that_code_reads_is_documented(reference: str, root: Path):
    for folder in ("privacy", "ledger", "api"):
        for path in (root / folder).rglob("*.py"):
            for line in path.read_text(encoding="utf-8").splitlines():
                if "environ" in line and '"SEALPROOF_' in line:
                    name = line.split('"')[1]
                    assert f"`{name}`" in reference, f"{path}: {name}"


@pytest.mark.parametrize("module", [privacy_errors, ledger_errors, api_errors])
def test_every_error_class_is_documented(reference: str, module: ModuleType):
    kinds = [value for value in vars(module).values() if inspect.isclass(value) and issubclass(value, Exception)]
    public = [kind for kind in kinds if kind.__module__ == module.__name__ and not kind.__name__.startswith("_")]
    assert len(public) > 3
    for kind in public:
        assert f"`{kind.__module__}.{kind.__name__}`" in reference


def test_every_route_is_documented(reference: str):
    from api.app import create_app

    paths = create_app(Settings()).openapi()["paths"]
    assert len(paths) > 10
    for path, operations in paths.items():
        for method in operations:
            assert f"`{method.upper()} {path}`" in reference


def test_every_command_and_option_is_documented(reference: str, tools: ModuleType):
    commands = list(tools.doc_reference.command_tree())
    assert len(commands) > 15
    for name, command in commands:
        section = re.split(rf"^### `{name}[ `]", reference, flags=re.MULTILINE)[1].split("\n#")[0]
        for parameter in command.params:
            for option in (*parameter.opts, *parameter.secondary_opts):
                assert not option.startswith("-") or option in section, f"{name} {option}"
