"""Every outside Merkle vector has the wanted result, and none survives a change of a single bit."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger.errors import VerificationFailed
from ledger.merkle import verify_consistency, verify_inclusion

Vector = dict[str, Any]


def _load(vectors: Path, kind: str) -> dict[str, Vector]:
    folder = vectors / "merkle" / kind
    found = {str(p.relative_to(folder)): json.loads(p.read_text()) for p in sorted(folder.rglob("*.json"))}
    assert len(found) == 98
    return found


def _bytes(text: str | None) -> bytes:
    return base64.b64decode(text or "", validate=True)


def _inclusion(v: Vector) -> None:
    proof = [_bytes(h) for h in v["proof"] or []]
    verify_inclusion(_bytes(v["leafHash"]), v["leafIdx"], v["treeSize"], proof, _bytes(v["root"]))


def _consistency(v: Vector) -> None:
    proof = [_bytes(h) for h in v["proof"] or []]
    verify_consistency(v["size1"], v["size2"], proof, _bytes(v["root1"]), _bytes(v["root2"]))


def _accepts(check: Callable[[Vector], None], vector: Vector) -> bool:
    try:
        check(vector)
    except VerificationFailed:
        return False
    return True


KINDS = [("inclusion", _inclusion), ("consistency", _consistency)]


@pytest.mark.parametrize(("kind", "check"), KINDS)
def test_every_vector_has_the_wanted_result(vectors: Path, kind: str, check: Callable[[Vector], None]) -> None:
    found = _load(vectors, kind)
    results = {name: _accepts(check, v) for name, v in found.items()}
    assert results == {name: not v["wantErr"] for name, v in found.items()}
    assert 0 < sum(results.values()) < 20, "the vectors are mostly invalid"


def _flipped(vector: Vector) -> list[Vector]:
    """The last byte's top bit flipped in one hash at a time (no vector differs from a valid one there)."""

    def flip(text: str) -> str:
        data = _bytes(text)
        return base64.b64encode(data[:-1] + bytes([data[-1] ^ 0x80])).decode()

    names = [name for name in ("leafHash", "root", "root1", "root2") if vector.get(name)]
    proof = vector["proof"] or []
    return [{**vector, name: flip(vector[name])} for name in names] + [
        {**vector, "proof": [*proof[:i], flip(value), *proof[i + 1 :]]} for i, value in enumerate(proof) if value
    ]


def _resized(vector: Vector) -> list[Vector]:
    """One hash less, one twice, one more."""
    proof = vector["proof"] or []
    mutants = [{**vector, "proof": [*proof, base64.b64encode(bytes(32)).decode()]}, {**vector, "proof": [*proof, ""]}]
    for i, value in enumerate(proof):
        mutants.append({**vector, "proof": proof[:i] + proof[i + 1 :]})
        mutants.append({**vector, "proof": [*proof[:i], value, *proof[i:]]})
    return mutants


@pytest.mark.parametrize(("kind", "check"), KINDS)
def test_a_valid_vector_with_one_change_is_refused(vectors: Path, kind: str, check: Callable[[Vector], None]) -> None:
    valid = [v for v in _load(vectors, kind).values() if not v["wantErr"]]
    mutants = [m for v in valid for m in _flipped(v) + _resized(v)]
    assert len(mutants) > 30
    assert [m for m in mutants if _accepts(check, m)] == []


@pytest.mark.parametrize(("kind", "check"), KINDS)
def test_an_invalid_vector_with_one_more_change_stays_refused(
    vectors: Path, kind: str, check: Callable[[Vector], None]
) -> None:
    invalid = {name: v for name, v in _load(vectors, kind).items() if v["wantErr"]}
    assert [name for name, v in invalid.items() for m in _flipped(v) if _accepts(check, m)] == []
