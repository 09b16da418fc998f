"""Development chains (anvil) on this machine, where one is installed: play money, and forgotten at their end.

The program is looked for in $SEALPROOF_ANVIL, which keeps every other from being used, where `make anvil` puts it, and
on the PATH.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from api.demo.processes import Background

if TYPE_CHECKING:
    from ledger.anchors.evm import Chain

__all__ = ["anvil_version", "find_anvil", "play_chains", "why_no_chain"]

_TOOLS: Final = Path(__file__).resolve().parents[2] / ".tools" / "node_modules"
_VERSION_SECONDS: Final = 10
_KEY: Final = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
"""The first account of anvil's well-known mnemonic: it holds play money and nothing else, ever."""


def find_anvil() -> Path | None:
    """The program, or None."""
    explicit = os.environ.get("SEALPROOF_ANVIL")
    if explicit:
        return _program(explicit)
    # The program itself before npm's wrapper, which would be one more process to stop.
    for path in sorted(_TOOLS.glob("@foundry-rs/anvil-*/bin/anvil")):
        return path
    return _program("anvil") or _program(str(_TOOLS / ".bin" / "anvil"))


def _program(name: str) -> Path | None:
    found = shutil.which(name)
    return Path(found) if found else None


def anvil_version(program: Path) -> str:
    """The version that the program tells, such as 1.7.1; empty if it tells none."""
    try:
        done = subprocess.run(  # noqa: S603
            [str(program), "--version"], capture_output=True, text=True, check=False, timeout=_VERSION_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"\d+\.\d+\.\d+", done.stdout)
    return found[0] if found else ""


def why_no_chain() -> str | None:
    """What is missing for chains on this machine, and how to get it; None if nothing is."""
    if importlib.util.find_spec("web3") is None:
        return "web3 is not installed (pip install 'sealproof[evm]')"
    if find_anvil() is not None:
        return None
    explicit = os.environ.get("SEALPROOF_ANVIL")
    if explicit:
        return f"SEALPROOF_ANVIL names {explicit!r}, which is no program"
    return "no development chain is installed here (make anvil, which needs npm)"


@contextmanager
def play_chains(folder: Path, ids: tuple[int, ...]) -> Iterator[list[Chain]]:
    """Chains with these ids, each in a process of its own; none where anvil or web3 is missing."""
    program = find_anvil()
    if program is None or why_no_chain() is not None:
        yield []
        return
    from ledger.anchors.evm import Chain, ChainKey

    with ExitStack() as stack:
        chains = []
        for number in ids:
            arguments = ["--port", "0", "--chain-id", str(number), "--hardfork", "prague"]
            process = Background(f"chain {number}", folder / f"chain-{number}.log", arguments, program=[str(program)])
            stack.enter_context(process)
            port = process.find(r"Listening on 127\.0\.0\.1:(\d+)", "word that it listens")[1]
            chains.append(stack.enter_context(Chain.connect(f"http://127.0.0.1:{port}", ChainKey.parse(_KEY))))
        yield chains
