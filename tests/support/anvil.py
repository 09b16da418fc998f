"""A development chain (anvil) for the tests: started on a free port, stopped when the session ends.

The program is the one that the demonstration finds too (`api.demo.play_chain.find_anvil`); where there is none, the
tests that need a chain are skipped.
"""

from __future__ import annotations

import atexit
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from api.demo.play_chain import find_anvil, why_no_chain

# What anvil derives from its well-known mnemonic; they hold play money and nothing else, ever.
KEYS = (
    "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
    "5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
    "7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6",
)

# A shell between: when its standard input ends, because the tests were killed themselves, it stops the chain.
_WATCHED = ("sh", "-c", '"$@" & chain=$!; cat >/dev/null; kill -9 $chain', "sh")
_LISTENING = re.compile(r"Listening on 127\.0\.0\.1:(\d+)")
_START_SECONDS = 30
_BATCH = 500


class Anvil:
    """A running chain. `rpc` is its address, `key(n)` the secret of an account with play money."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process = process
        # Nobody else reads on: anvil would block once the pipe is full.
        self._drain = threading.Thread(target=_drain, args=(process,), daemon=True)
        self._drain.start()
        self._client = httpx.Client(timeout=60)
        self.rpc = f"http://127.0.0.1:{port}"

    def key(self, number: int = 0) -> Any:
        """Key of account `number`, 0 to 3."""
        from ledger.anchors.evm import ChainKey

        return ChainKey.parse(KEYS[number])

    @contextmanager
    def connected(self, number: int | None = 0, **options: Any) -> Iterator[Any]:
        """A `Chain` whose transactions account `number` pays; None: for reading only."""
        from ledger.anchors.evm import Chain

        with Chain.connect(self.rpc, None if number is None else self.key(number), **options) as chain:
            yield chain

    def request(self, method: str, *parameters: Any) -> Any:
        """One of anvil's own JSON-RPC methods, such as `anvil_mine`."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)}
        answer = self._client.post(self.rpc, json=body).json()
        assert "error" not in answer, answer
        return answer["result"]

    def accepted(self, calls: Sequence[Mapping[str, str]]) -> list[bool]:
        """Which of these `eth_call`s do not revert; any other failure is an error. Many at a time, for speed."""
        found: dict[int, bool] = {}
        for start in range(0, len(calls), _BATCH):
            numbers = range(start, min(start + _BATCH, len(calls)))
            batch = [{"jsonrpc": "2.0", "id": i, "method": "eth_call", "params": [calls[i], "latest"]} for i in numbers]
            for answer in self._client.post(self.rpc, json=batch).json():
                if "error" in answer:
                    assert answer["error"]["message"].startswith("execution reverted"), answer
                found[answer["id"]] = "result" in answer
        return [found[i] for i in range(len(calls))]

    def stop(self) -> None:
        """End the process and whatever it started. Twice does no harm."""
        self._client.close()
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._drain.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        atexit.unregister(self.stop)


def start_anvil(*options: str, hardfork: str = "prague") -> Anvil:
    """A new chain on a free port. Skips the test where anvil is missing."""
    program = find_anvil()
    if program is None:
        pytest.skip(f"no chain for this test: {why_no_chain()}")
    process = subprocess.Popen(
        [*_WATCHED, str(program), "--port", "0", "--hardfork", hardfork, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # its own group: stopped whole, and not by an interrupt of the terminal
    )
    killer = threading.Timer(_START_SECONDS, os.killpg, (process.pid, signal.SIGKILL))
    killer.start()
    printed = []
    assert process.stdout is not None
    for line in process.stdout:
        printed.append(line)
        found = _LISTENING.search(line)
        if found:
            killer.cancel()
            anvil = Anvil(process, int(found[1]))
            atexit.register(anvil.stop)
            return anvil
    killer.cancel()
    process.communicate()
    raise RuntimeError("anvil did not start:\n" + "".join(printed[-20:]))


def _drain(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for _ in process.stdout:
        pass


@pytest.fixture(scope="session")
def anvil() -> Iterator[Anvil]:
    """One chain for all tests of a session: deploy contracts of your own."""
    running = start_anvil()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def chain(anvil: Anvil) -> Iterator[Any]:
    """`ledger.anchors.evm.Chain` to it; account 0 pays."""
    pytest.importorskip("web3", reason="web3 is not installed: pip install 'sealproof[evm]'")
    with anvil.connected() as connected:
        yield connected
