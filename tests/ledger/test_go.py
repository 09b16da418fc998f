"""Go's own packages for notes and transparency logs verify a log that we wrote, and sign as we do."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ledger.checkpoint import Checkpoint, sign_checkpoint
from ledger.cosignature import Cosigner, with_cosignatures
from ledger.log import Log
from ledger.note import Signer, sign_note
from ledger.tiles import Tile
from tests.support.lying_log import Tree, entries_of, text_of, write_plain_log

GOPATH = Path("/usr/share/gocode")
PROGRAM = Path(__file__).parent / "go" / "verify.go"
LOG = Signer("log.example/test", bytes(range(32)))
WITNESSES = [Cosigner(f"witness.example/w{i}", bytes([i]) * 32) for i in (1, 2)]


class Go:
    """The program, built."""

    def __init__(self, binary: Path) -> None:
        self._binary = binary

    def __call__(self, **task: Any) -> subprocess.CompletedProcess[str]:
        text = json.dumps(task, default=lambda data: base64.b64encode(data).decode())
        return subprocess.run([self._binary], input=text, capture_output=True, text=True, timeout=120, check=False)

    def ok(self, **task: Any) -> dict[str, Any]:
        done = self(**task)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@pytest.fixture(scope="session")
def go(tmp_path_factory: pytest.TempPathFactory) -> Go:
    if shutil.which("go") is None or not (GOPATH / "src/golang.org/x/mod/sumdb/tlog").is_dir():
        pytest.skip("needs Debian's golang-go and golang-golang-x-mod-dev")
    folder = tmp_path_factory.mktemp("go")
    settings = {"GO111MODULE": "off", "GOPATH": str(GOPATH), "GOCACHE": str(folder / "cache"), "GOFLAGS": ""}
    subprocess.run(
        ["go", "build", "-o", str(folder / "verify"), str(PROGRAM)],
        env={**os.environ, **settings},
        check=True,
        timeout=300,
    )
    return Go(folder / "verify")


def cosigned(entries: list[bytes], *extensions: str) -> bytes:
    tree = Tree(entries)
    head = sign_checkpoint(Checkpoint(LOG.name, tree.size, tree.root, extensions), LOG)
    return with_cosignatures(head, [w.cosign(text_of(head), 1_700_000_000 + i) for i, w in enumerate(WITNESSES)])


def proofs(tree: Tree, size: int, indices: list[int], olds: list[int]) -> dict[str, list[dict[str, Any]]]:
    smaller = Tree(tree.entries[:size])
    inclusion = [
        {"Index": i, "Size": size, "Root": smaller.root, "Leaf": smaller.node(0, i), "Hashes": smaller.inclusion(i)}
        for i in indices
    ]
    consistency = [
        {
            "Old": old,
            "New": size,
            "OldRoot": Tree(tree.entries[:old]).root,
            "NewRoot": smaller.root,
            "Hashes": smaller.consistency(old),
        }
        for old in olds
    ]
    return {"Inclusion": inclusion, "Consistency": consistency}


KEYS = {"LogKey": str(LOG.verifier), "WitnessKeys": [str(w.verifier) for w in WITNESSES]}


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 600, 70_000])
def test_go_verifies_checkpoint_tiles_entries_and_proofs(go: Go, tmp_path: Path, size: int) -> None:
    entries = entries_of(size)
    tree = write_plain_log(tmp_path, entries, cosigned(entries, *(["extended"] if size == 600 else [])))
    indices = sorted({0, 1, size // 2, size - 2, size - 1} & set(range(size)))
    olds = sorted({1, 2, size // 3, size // 2, size - 1, size} & set(range(1, size + 1)))
    asked = proofs(tree, size, indices, olds)
    found = go.ok(Folder=str(tmp_path), **KEYS, **asked)
    assert (found["Size"], found["Entries"]) == (size, size)
    # To a Go program that knows the log's key alone, cosignatures are signatures by unknown keys: ignored.
    assert found["Signed"] == [LOG.name]
    assert found["Unverified"] == [w.name for w in WITNESSES]
    assert found["Times"] == {w.name: 1_700_000_000 + i for i, w in enumerate(WITNESSES)}
    made = [[base64.b64decode(h) for h in proof] for proof in found["ProofsMade"]]
    assert made == [p["Hashes"] for kind in ("Inclusion", "Consistency") for p in asked[kind]]


def test_go_verifies_the_proofs_of_a_real_log_at_every_size(go: Go, tmp_path: Path) -> None:
    """Proofs as `Log` hands them out, also from and to sizes that are no longer the head."""
    entries = entries_of(40)
    with Log.create(tmp_path / "log.db", LOG) as log:
        log.append_many(entries)
        tree = Tree(entries)
        asked: dict[str, list[dict[str, Any]]] = {"Inclusion": [], "Consistency": []}
        for size in range(1, 41):
            root = Tree(entries[:size]).root
            asked["Inclusion"] += [
                {
                    "Index": i,
                    "Size": size,
                    "Root": root,
                    "Leaf": tree.node(0, i),
                    "Hashes": log.inclusion_proof(i, size),
                }
                for i in range(size)
            ]
            asked["Consistency"] += [
                {
                    "Old": old,
                    "New": size,
                    "OldRoot": Tree(entries[:old]).root,
                    "NewRoot": root,
                    "Hashes": log.consistency_proof(old, size),
                }
                for old in range(1, size + 1)
            ]
    write_plain_log(tmp_path / "files", entries, cosigned(entries))
    go.ok(Folder=str(tmp_path / "files"), **KEYS, **asked)


@pytest.mark.parametrize("what", ["tile", "inner tile", "entry", "root", "inclusion", "consistency", "cosignature"])
def test_go_refuses_what_we_would_refuse(go: Go, tmp_path: Path, what: str) -> None:
    """So that the checks above are known to check something."""
    size = 600
    entries = entries_of(size)
    tree = write_plain_log(tmp_path, entries, cosigned(entries))
    asked = proofs(tree, size, [5], [300])

    def flip(path: str) -> None:
        data = bytearray((tmp_path / path).read_bytes())
        data[40] ^= 1
        (tmp_path / path).write_bytes(data)

    if what == "tile":
        flip(Tile(0, 1).path)
    elif what == "inner tile":
        flip(Tile(1, 0, 2).path)
    elif what == "entry":
        flip("tile/entries/002.p/88")
    elif what == "root":
        (tmp_path / "checkpoint").write_bytes(cosigned(entries_of(size, changed=7)))
    elif what == "cosignature":
        good = cosigned(entries)
        other = WITNESSES[0].cosign(text_of(cosigned(entries[:-1])), 1_700_000_000)
        honest = WITNESSES[0].cosign(text_of(good), 1_700_000_000)
        (tmp_path / "checkpoint").write_bytes(good.replace(honest.line().encode(), other.line().encode()))
    else:
        (proof,) = asked[what.capitalize()]
        proof["Hashes"] = [*proof["Hashes"][:-1], bytes(32)]
    assert go(Folder=str(tmp_path), **KEYS, **asked).returncode == 1


def test_go_signs_notes_and_cosignatures_byte_for_byte_as_we_do(go: Go) -> None:
    # The key and the text of Go's own tests, whose signature is published with them.
    skey = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
    text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    line = (
        "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    )
    found = go.ok(SignText=text, SignKey=skey)
    assert found["SignedNote"] == f"{text}\n{line}"
    assert sign_note(text, [Signer.parse(skey)]).format().decode() == found["SignedNote"]

    head = Checkpoint(LOG.name, 5, bytes(32), ("extended",)).format()
    (witness, *_) = WITNESSES
    found = go.ok(SignText=head, Seed=bytes([1]) * 32, CosignerN=witness.name, Time=1_700_000_000)
    assert found["CosignedNote"] == f"{head}\n{witness.cosign(head.encode(), 1_700_000_000).line()}"
