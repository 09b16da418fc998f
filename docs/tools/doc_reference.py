"""Tables of docs/reference.md: settings, routes, errors and commands, read from the code that defines them."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import typer
from doc_tables import table

from api import errors
from api.app import create_app
from api.cli import app
from api.settings import Settings
from ledger import errors as ledger_errors
from privacy import errors as privacy_errors

__all__ = ["PARTS", "command_tree", "error_classes", "routes"]


def _one_line(text: str | None) -> str:
    """The first paragraph, fit for a cell."""
    paragraph = inspect.cleandoc(text or "").split("\n\n")[0]
    return " ".join(paragraph.split()).replace("|", "\\|")


# -- settings ---------------------------------------------------------------------------------------------------------


def _attribute_texts(source: str, name: str) -> dict[str, str]:
    """The string behind each annotated attribute of a class; a string behind several stands for all of them."""
    (found,) = (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.ClassDef) and n.name == name)
    texts: dict[str, str] = {}
    waiting: list[str] = []
    for node in found.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            waiting.append(node.target.id)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and waiting:
            texts |= dict.fromkeys(waiting, str(node.value.value))
            waiting = []
    return texts


def settings() -> str:
    """Every setting, its environment variable and default."""
    texts = _attribute_texts(inspect.getsource(inspect.getmodule(Settings) or Settings), "Settings")
    prefix = str(Settings.model_config["env_prefix"])
    rows = [
        [f"`{(prefix + name).upper()}`", f"`{field.default}`", _one_line(texts[name])]
        for name, field in Settings.model_fields.items()
    ]
    return table(["variable", "default", "meaning"], rows)


# -- routes -----------------------------------------------------------------------------------------------------------


def routes() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(method, path, OpenAPI operation) of every route."""
    for path, operations in create_app(Settings()).openapi()["paths"].items():
        for method, operation in operations.items():
            yield method.upper(), path, operation


def route_table() -> str:
    """Every route with its summary; a signed one needs the four headers of a signed request."""
    rows = []
    for method, path, operation in routes():
        headers = {p["name"].lower() for p in operation.get("parameters", ()) if p["in"] == "header"}
        signed = "yes" if "sealproof-signature" in headers else ""
        rows.append([f"`{method} {path}`", signed, operation["summary"]])
    return table(["route", "signed", "what it does"], rows)


# -- errors -----------------------------------------------------------------------------------------------------------


def error_classes() -> list[type[Exception]]:
    """Every public error class of the three packages."""
    found: list[type[Exception]] = []
    for module in (privacy_errors, ledger_errors, errors):
        members = [m for m in vars(module).values() if inspect.isclass(m) and issubclass(m, Exception)]
        found += [m for m in members if m.__module__ == module.__name__ and not m.__name__.startswith("_")]
    return found


def error_table() -> str:
    """Every error class: what it means, and how the service tells it."""
    rows = []
    for kind in error_classes():
        row = errors.ERRORS.get(kind)
        told = f"{row.status} `{row.type}`" if row else ""
        rows.append([f"`{kind.__module__}.{kind.__name__}`", told, _one_line(kind.__doc__)])
    return table(["class", "over HTTP", "meaning"], rows)


# -- commands ---------------------------------------------------------------------------------------------------------


def command_tree() -> Iterator[tuple[str, Any]]:
    """(name, command) of every command that does something, in the order of `--help`."""
    # typer brings its own copy of click, so that types cannot be told by isinstance.

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        children = getattr(command, "commands", None)
        if children is None:
            yield name, command
            return
        for part, child in children.items():
            if not child.hidden:
                yield from walk(f"{name} {part}", child)

    yield from walk("sealproof", typer.main.get_command(app))


def _cell_of(option: Any) -> list[str]:
    shown = [*option.opts, *option.secondary_opts]
    needed = " (needed)" if option.required else ""
    return [f"`{', '.join(shown)}`", f"{_one_line(option.help)}{needed}"]


def commands() -> str:
    """Every command with its arguments and options."""
    out = []
    for name, command in command_tree():
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
        words = [f"{a.name.upper()}{'...' if a.nargs != 1 else ''}" for a in arguments]
        out.append(f"### `{' '.join([name, *words])}`\n\n{_one_line(command.help)}")
        rows = [[f"`{a.name.upper()}`", _one_line(a.help)] for a in arguments] + [_cell_of(o) for o in options]
        if rows:
            out.append(table(["", ""], rows))
    return "\n\n".join(out)


PARTS: Mapping[str, Callable[[], str]] = {
    "settings": settings,
    "routes": route_table,
    "errors": error_table,
    "commands": commands,
}
