"""Development chains (anvil) on this machine, where one is installed: play money, and forgotten at their end.

The program is looked for in $SEALPROOF_ANVIL, on the PATH, and where `make anvil` puts it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from api.demo.processes import Background

if TYPE_CHECKING:
    from ledger.anchors.evm import Chain

__all__ = ["find_anvil", "play_chains"]

_TOOLS: Final = Path(__file__).resolve().parents[2] / ".tools" / "node_modules"
_KEY: Final = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
"""The first account of anvil's well-known mnemonic: it holds play money and nothing else, ever."""


def find_anvil() -> Path | None:
    """The program, or None."""
    explicit = os.environ.get("SEALPROOF_ANVIL")
    if explicit:
        return Path(explicit)
    # The program itself before npm's wrapper, which would be one more process to stop.
    for path in sorted(_TOOLS.glob("@foundry-rs/anvil-*/bin/anvil")):
        return path
    on_path = shutil.which("anvil")
    return Path(on_path) if on_path else None


@contextmanager
def play_chains(folder: Path, ids: tuple[int, ...]) -> Iterator[list[Chain]]:
    """Chains with these ids, each in a process of its own; none where anvil or web3 is missing."""
    program = find_anvil()
    if program is None or importlib.util.find_spec("web3") is None:
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
