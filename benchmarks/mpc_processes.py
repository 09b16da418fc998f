"""The processes of two-party computation: dealer, nodes and auditor of the product, and CrypTen's own two."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from children import Child
from measure import peak_rss_mb

__all__ = ["Dealer", "Parties", "command_process", "dealer_process", "parties"]

HERE = Path(__file__).resolve().parent
_STOP_SECONDS = 3


@contextlib.contextmanager
def command_process(arguments: Sequence[str], ready: str, log: Path) -> Iterator[tuple[int, re.Match[str]]]:
    """`sealproof ARGUMENTS` in a process of its own: its id, and the match of the line that says it is ready."""
    # Pretty lines are cut to the width of a terminal that is not there.
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "api.cli", *arguments]
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
    try:
        found = next(filter(None, (re.search(ready, line) for line in process.stdout or ())), None)
        if found is None:
            raise SystemExit(f"sealproof {arguments[0]} {arguments[1]} did not start:\n{log.read_text()}")
        yield process.pid, found
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Dealer:
    """The dealer's process: its id, where it is, and its key in hexadecimal digits."""

    process: int
    address: str
    key: str


@contextlib.contextmanager
def dealer_process(folder: Path) -> Iterator[Dealer]:
    """`sealproof mpc dealer` on a free port, with its key in `folder`."""
    arguments = ["mpc", "dealer", "--folder", str(folder), "--listen", "127.0.0.1:0"]
    with command_process(arguments, r"dealing at (\S+)", folder.with_suffix(".log")) as (process, ready):
        yield Dealer(process, ready[1], (folder / "dealer.pub").read_text(encoding="ascii").strip())


@dataclass(frozen=True, eq=False)
class Parties:
    """Every process of one model."""

    dealer: Dealer
    nodes: Mapping[str, Child]
    auditor: Child
    crypten: tuple[Child, Child]

    def nodes_do(self, command: str) -> dict[str, Any]:
        """Both nodes do it at the same time."""
        for node in self.nodes.values():
            node.tell(command)
        return {role: node.hear() for role, node in self.nodes.items()}

    def crypten_does(self, command: str) -> list[Any]:
        """Both processes of CrypTen do it at the same time."""
        for party in self.crypten:
            party.tell(command)
        return [party.hear() for party in self.crypten]

    def open(self, folder: Path) -> None:
        """Everybody takes up the work in `folder`."""
        where = {"dealer": self.dealer.address, "dealer_key": self.dealer.key}
        port = self.nodes["B"].ask("open", folder=str(folder), **where)
        self.nodes["A"].ask("open", folder=str(folder), **where)
        self.nodes["A"].ask("peer", port=port)
        for child in (self.auditor, *self.crypten):
            child.ask("open", folder=str(folder))

    def memory(self) -> dict[str, float]:
        """Peak memory so far, by process; of CrypTen's two the greater one."""
        return {
            "node_A": self.nodes["A"].peak_rss_mb(),
            "node_B": self.nodes["B"].peak_rss_mb(),
            "dealer": peak_rss_mb(self.dealer.process),
            "auditor": self.auditor.peak_rss_mb(),
            "crypten": max(party.peak_rss_mb() for party in self.crypten),
        }


@contextlib.contextmanager
def parties(folder: Path) -> Iterator[Parties]:
    """Fresh processes, which keep what they need below `folder`."""
    folder.mkdir()
    node, alone = HERE / "mpc_node.py", HERE / "crypten_alone.py"
    with contextlib.ExitStack() as stack:
        dealer = stack.enter_context(dealer_process(folder / "dealer"))
        nodes = {role: stack.enter_context(Child(f"node {role}", node, [role])) for role in ("A", "B")}
        auditor = stack.enter_context(Child("auditor", node, ["auditor"]))
        first, second = (stack.enter_context(Child(f"CrypTen {n}", alone, [str(n), str(folder)])) for n in (0, 1))
        yield Parties(dealer, nodes, auditor, (first, second))
