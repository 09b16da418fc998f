"""Every command, option, setting, route and error is documented. Looked up again, without the tool that writes them."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

from api import errors as api_errors
from api.settings import Settings
from api.witness.app import create_witness_app
from ledger import Verifier
from ledger import errors as ledger_errors
from ledger.witness import Witness
from ledger.witness_store import open_folder
from privacy import errors as privacy_errors

RAISED = re.compile(
    r"(?:VerificationFailed|FileRefused|ChainRefused|PredictionRefused|NotPermitted|NotAuthenticated|SessionBroken"
    r"|RootMismatch|NodesNotReady)\(\s*\"([a-z0-9-]+\.[a-z0-9-]+)\""
)


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


def test_every_route_of_a_witness_is_documented(reference: str, tmp_path: Path):
    store, cosigner = open_folder(tmp_path / "witness", "witness.example/w")
    try:
        app = create_witness_app(Witness(store, cosigner, {"log.example": Verifier("log.example", bytes(32))}), store)
        routes = {(method, route.path) for route in app.routes for method in route.methods - {"HEAD"}}
    finally:
        store.close()
    assert len(routes) == 4
    for method, path in routes:
        assert f"| `{method} {path}` |" in reference


def test_every_check_is_documented(reference: str, root: Path):
    """Those that are named where they are raised; the tool finds more."""
    found = set()
    for folder in ("privacy", "ledger", "api"):
        for path in (root / folder).rglob("*.py"):
            found |= set(RAISED.findall(path.read_text(encoding="utf-8")))
    assert len(found) > 200
    assert found > {"policy.quorum", "anchor.fork", "approval.withdrawn", "enrolment.threshold", "tree.root"}
    assert not {name for name in found if f"`{name}`" not in reference}


def test_a_kind_of_check_without_a_meaning_is_noticed(tools: ModuleType, monkeypatch: pytest.MonkeyPatch):
    meanings = {kind: text for kind, text in tools.doc_checks.MEANINGS.items() if kind != "tile"}
    monkeypatch.setattr(tools.doc_checks, "MEANINGS", meanings)
    with pytest.raises(ValueError, match="tile"):
        tools.doc_checks.check_table()


def test_every_command_and_option_is_documented(reference: str, tools: ModuleType):
    commands = list(tools.doc_reference.command_tree())
    assert len(commands) > 15
    for name, command in commands:
        section = re.split(rf"^### `{name}[ `]", reference, flags=re.MULTILINE)[1].split("\n#")[0]
        for parameter in command.params:
            for option in (*parameter.opts, *parameter.secondary_opts):
                assert not option.startswith("-") or option in section, f"{name} {option}"
