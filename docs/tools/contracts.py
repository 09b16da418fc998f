"""Compile ledger/anchors/contracts/*.vy into the *.json beside them: `python docs/tools/contracts.py [NAME...]`.

With `--check` nothing is written: the exit status says whether every artefact is what its source compiles to.
The artefacts are committed, so that whoever uses the contracts needs no compiler. Compilation is deterministic: the
same source and the same compiler give the same bytes, and a test compares them.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "ledger" / "anchors" / "contracts"
EVM_VERSION = "prague"


def compiled(name: str, source: str) -> dict[str, Any]:
    """The artefact of a contract: see `ledger.anchors.evm.Artefact`. Raises vyper's own errors."""
    import vyper
    from vyper.compiler import compile_code
    from vyper.compiler.settings import OptimizationLevel, Settings

    settings = Settings(evm_version=EVM_VERSION, optimize=OptimizationLevel.GAS)
    found = compile_code(
        source,
        contract_path=f"{name}.vy",
        output_formats=["abi", "bytecode", "bytecode_runtime", "layout"],
        settings=settings,
    )
    immutables = found["layout"].get("code_layout", {}).values()
    return {
        "name": name,
        "abi": found["abi"],
        "bytecode": found["bytecode"].removeprefix("0x"),
        "runtime": found["bytecode_runtime"].removeprefix("0x"),
        "immutable_bytes": max((value["offset"] + value["length"] for value in immutables), default=0),
        "compiler": f"vyper {vyper.__version__.split('+')[0]}",
        "evm_version": EVM_VERSION,
        "source_sha256": hashlib.sha256(source.encode("utf-8")).hexdigest(),
    }


def artefact_text(source: Path) -> str:
    """The content of the artefact's file."""
    return json.dumps(compiled(source.stem, source.read_text(encoding="utf-8")), indent=1, sort_keys=True) + "\n"


def main(arguments: list[str]) -> int:
    """Exit status: 0 when every artefact is (now) right, 1 when `--check` finds one that is not."""
    wrong, names = [], [argument for argument in arguments if argument != "--check"]
    for source in sorted(FOLDER.glob("*.vy")):
        if names and source.stem not in names:
            continue
        text, target = artefact_text(source), source.with_suffix(".json")
        if target.exists() and target.read_text(encoding="utf-8") == text:
            continue
        wrong.append(target.name)
        if "--check" not in arguments:
            target.write_text(text, encoding="utf-8")
            print(f"wrote {target}")
    stray = {path.stem for path in FOLDER.glob("*.json")} - {path.stem for path in FOLDER.glob("*.vy")}
    for name in sorted(stray):
        print(f"{name}.json has no source")
    if "--check" in arguments:
        for name in wrong:
            print(f"{name} is not what its source compiles to: python docs/tools/contracts.py")
        return int(bool(wrong or stray))
    return int(bool(stray))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
