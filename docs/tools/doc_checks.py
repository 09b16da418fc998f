"""The names of all checks: what `check` of an error may say. Collected from the code that refuses."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from doc_reference import error_classes
from doc_tables import table

__all__ = ["PARTS", "checks_in_code"]

ROOT: Final = Path(__file__).resolve().parents[2]

_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\.[a-z0-9]+(-[a-z0-9]+)*")
_FILES: Final = frozenset({"html", "json", "key", "pdf", "sqlite", "vkey"})
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

_MEANINGS: Final[Mapping[str, str]] = {
    "anchor": "the head of a bundle or server against the one in a contract",
    "approval": "hospitals' approval of a model: its signatures, its place, and the reader's governance file",
    "attestation": "the server's signed statement; also `attestation.` and a field that differs from the ledger's",
    "blob": "an uploaded file",
    "bls": "signatures and keys of a committee",
    "bounds": "what a parameter set leaves room for",
    "bundle": "the file: what is missing, damaged or not about the prediction",
    "chain": "what a contract said, or that it is not the contract it should be",
    "checkpoint": "a signed head",
    "clearance": "a clearance entry",
    "clinic": "a bundle that is not about this clinic's own records, key or request",
    "consistency": "a proof that one tree extends another",
    "disclosure": "one answer, shown to one recipient",
    "enrolment": "a disclosure against the terms of a trial, and the shares of its committee",
    "entries": "a bundle of entries that a log serves",
    "entry": "a ledger entry: its author, role, signature and references",
    "evaluation": "the proof of an evaluation on ciphertexts",
    "evidence": "two signed heads that are said to convict a log",
    "exposure": "bits of a model that answers have released",
    "file": "how a log serves a file",
    "head": "the ledger head that a prediction names",
    "inclusion": "a proof that an entry is in a tree",
    "job": "who may deliver or fetch for a joint prediction",
    "joint": "the joint proof, and shares of its answers",
    "key": "a key entry and its certificate",
    "ledger": "order, references, names and revocations on the ledger",
    "linear": "a linear relation of a proof",
    "log": "the log that a proof is of, and whether it is trusted",
    "model": "a model entry, its certificate and its opening",
    "monitor": "a log that contradicts what it signed before",
    "mpc": "a session of two nodes, and why it ended",
    "network": "a network entry, its certificate and its opening",
    "note": "the signatures of a note",
    "offer": "what a node was asked to compute",
    "party": "a registration",
    "policy": "what records may be used for, and until when; `policy.quorum`: too few witnesses",
    "prediction": "a prediction entry against records and model",
    "publication": "a head that was to be published",
    "quadratic": "an exact relation of a proof, or a range",
    "records": "a records entry",
    "report": "a ledger report against its signed note and the ledger",
    "representation": "an opening of commitments",
    "request": "the signature of a request",
    "revocation": "a revocation entry",
    "submit": "what the server says it received",
    "suspension": "a suspension entry",
    "tile": "a tile that a log serves",
    "tree": "the root that all files together give",
    "trial": "a trial's contract against its terms",
    "zero-weight": "a statement that a weight is zero",
}


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
    if prefixes != set(_MEANINGS):
        raise ValueError(f"say in doc_checks what these are: {sorted(prefixes ^ set(_MEANINGS))}")
    return {prefix: sorted(n for n in raised if n.startswith(f"{prefix}.")) for prefix in sorted(prefixes)}


def _called(call: ast.Call) -> str:
    return str(getattr(call.func, "id", getattr(call.func, "attr", "")))


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _NAME.fullmatch(node.value):
            yield node.value


def check_table() -> str:
    """Every name, by what it is about."""
    rows = [[_MEANINGS[prefix], ", ".join(f"`{name}`" for name in names)] for prefix, names in checks_in_code().items()]
    return table(["about", "checks"], rows)


PARTS: Mapping[str, Callable[[], str]] = {"checks": check_table}
