"""The processes of the demonstration: server, dealer, nodes and auditor, each with its own folder and log file.

They are the product's own commands. What one of them prints goes to `<name>.log` beside the folders; when it does not
become ready, the end of that file says why.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from api.client.transport import Server, ServerError
from api.demo.base_install import base_install
from privacy.zk.generators import cache_folder

__all__ = ["Background", "Parties", "audit", "local_server", "local_witness"]

_PRODUCT: Final = "api.cli"
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 0.05


class Background:
    """`python -m MODULE ARGUMENTS` beside this process; a context manager that ends it. `log` is appended to.

    `program` are the words of another program in its place.
    """

    def __init__(
        self,
        name: str,
        log: Path,
        arguments: Sequence[str],
        *,
        module: str = _PRODUCT,
        end: signal.Signals = signal.SIGTERM,
        program: Sequence[str] | None = None,
    ) -> None:
        self.name = name
        self._log = log
        self._end = end
        self._from = log.stat().st_size if log.exists() else 0
        # Pretty lines are cut to the width of a terminal that is not there.
        environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
        with log.open("ab") as sink:
            self._process = subprocess.Popen(  # noqa: S603
                [*(program or (sys.executable, "-m", module)), *arguments], stdout=sink, stderr=sink, env=environment
            )

    def check_alive(self, what: str) -> None:
        """Raise RuntimeError with the end of the log if it ended; `what` it was to do."""
        if self._process.poll() is not None:
            raise RuntimeError(f"the {self.name} ended before {what}:\n{self.text()[-2000:]}")

    def text(self) -> str:
        """What it has printed so far."""
        with self._log.open("rb") as log:
            log.seek(self._from)
            return log.read().decode("utf-8", "replace")

    def until(self, condition: Callable[[], bool], what: str, seconds: float = _START_SECONDS) -> None:
        """Wait until `condition` holds. Raises RuntimeError with the end of the log if it does not, or it ended."""
        end = time.monotonic() + seconds
        while not condition():
            self.check_alive(what)
            if time.monotonic() > end:
                raise RuntimeError(f"the {self.name}: no {what} within {seconds:.0f} s; see {self._log}")
            time.sleep(_PAUSE_SECONDS)

    def find(self, pattern: str, what: str, seconds: float = _START_SECONDS) -> re.Match[str]:
        """The first match in what it prints, as soon as there is one. Raises RuntimeError."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            found.extend(re.finditer(pattern, self.text()))
            return bool(found)

        self.until(look, what, seconds)
        return found[0]

    def stop(self) -> None:
        """End it in good order, or, after some seconds, at once."""
        self._process.send_signal(self._end)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@contextmanager
def local_witness(data: Path, name: str, log_key: str) -> Iterator[tuple[str, str]]:
    """A witness of one log in its own process on a free port: its verifier key and its address."""
    arguments = ["ledger", "witness", "--data", str(data), "--name", name, "--log", log_key, "--port", "0"]
    with Background(f"witness {data.name}", data.parent / f"{data.name}.log", arguments) as process:
        found = process.find(r"witness: (\S+)\s+listening on (\S+)", "word that it listens")
        yield found[1], found[2]


@contextmanager
def local_server(data: Path, origin: str, *options: str) -> Iterator[tuple[str, str]]:
    """A server in its own process on a free port of this machine: its address and its ledger's key."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    server = Server(url, retries=0)

    def answers() -> bool:
        try:
            server.health()
        except ServerError:
            return False
        return True

    data.parent.mkdir(parents=True, exist_ok=True)
    arguments = ["serve", "--data", str(data), "--port", str(port), "--origin", origin, *options]
    with Background("server", data.parent / "server.log", arguments) as process:
        process.until(answers, "answer")
        yield url, (data / "log.vkey").read_text(encoding="utf-8").strip()


class Parties:
    """The dealer, the clinic's node and the owner's, each in a process of its own; a context manager that ends them.

    The parties' folders are `state`/clinic and `state`/owner, the dealer's is `state`/dealer. Nothing runs until it is
    started; every `start_...` returns once what it started is ready.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._running: dict[str, Background] = {}
        self._dealer: tuple[str, ...] = ()
        # A node that is started again is found where it was before.
        self._listen = f"127.0.0.1:{_free_port()}"

    @property
    def dealer(self) -> Background:
        """The dealer's process."""
        return self._running["dealer"]

    @property
    def clinic(self) -> Background:
        """The process of the clinic's node."""
        return self._running["clinic"]

    @property
    def owner(self) -> Background:
        """The process of the owner's node."""
        return self._running["owner"]

    def start_dealer(self) -> None:
        """`sealproof mpc dealer` on a free port."""
        folder = self._state / "dealer"
        arguments = ["mpc", "dealer", "-f", str(folder), "--listen", "127.0.0.1:0"]
        self._running["dealer"] = Background("dealer", self._state / "dealer.log", arguments)
        address = self.dealer.find(r"dealing at (\S+)", "word that it deals")[1]
        self._dealer = ("--dealer", address, "--dealer-key", str(folder / "dealer.pub"))

    def start_nodes(self) -> None:
        """`sealproof mpc node` of both: the clinic's connects to the owner's and listens nowhere."""
        self._begin("clinic", [], _PRODUCT)
        self.start_owner()
        self._ready("clinic")

    def start_owner(self, module: str = _PRODUCT) -> None:
        """The owner's node, in the place of one that runs. `module` is its software: the product's, or another."""
        if "owner" in self._running:
            self._running.pop("owner").stop()
        self._begin("owner", ["--listen", self._listen], module)
        self._ready("owner")

    def check_alive(self) -> None:
        """Raise RuntimeError if one of them ended."""
        for process in self._running.values():
            process.check_alive("the work was done")

    def _ready(self, role: str) -> None:
        self._running[role].find("is ready", "word that it is ready")

    def _begin(self, role: str, arguments: Sequence[str], module: str) -> None:
        command = ["mpc", "node", "-f", str(self._state / role), *self._dealer, *arguments]
        # It waits for offers for seconds on end: only an interrupt ends that at once.
        self._running[role] = Background(
            f"{role}'s node", self._state / f"{role}-node.log", command, module=module, end=signal.SIGINT
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._running.values():
            process.stop()
        self._running.clear()


def audit(state: Path, bundles: Sequence[Path], log_key: str, nonce: bytes | None = None) -> list[dict[str, Any]]:
    """`sealproof verify --json` in a process that has no key, and nothing installed but what auditors install.

    `nonce` is that of the recipient of a disclosure.
    """
    home = state / "auditor"
    home.mkdir(exist_ok=True)
    installed = base_install(home / "site")
    paths = [str(bundle.resolve()) for bundle in bundles]
    # Without -S it would find the packages of this environment, encryption libraries among them.
    command = [sys.executable, "-S", "-m", _PRODUCT, "verify", *paths, "--log-key", log_key, "--json"]
    command += ["--nonce", nonce.hex()] if nonce else []
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(home.resolve()),
        "SEALPROOF_CACHE": str(cache_folder().resolve()),
        "PYTHONPATH": str(installed.resolve()),
    }
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, check=False)  # noqa: S603
    try:
        found = json.loads(done.stdout)
    except json.JSONDecodeError as error:
        raise RuntimeError(f"the auditor failed ({done.returncode}): {done.stderr[-2000:]}") from error
    return found if isinstance(found, list) else [found]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
