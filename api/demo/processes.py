"""The processes of the demonstration: server, dealer, nodes and auditor, each with its own folder and log file.

They are the product's own commands. What one of them prints goes to `<name>.log` beside the folders; when it does not
become ready, the end of that file says why.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from api.client.transport import Server, ServerError
from privacy.zk.generators import cache_folder

__all__ = ["FORBIDDEN", "Background", "Dealer", "audit", "local_server", "start_dealer", "start_node"]

FORBIDDEN: Final = (
    "tenseal",
    "torch",
    "crypten",
    "sklearn",
    "zksk",
    "petlib",
    "fastapi",
    "uvicorn",
    "matplotlib",
)
"""What cannot be imported in the auditor's process."""

_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 0.05
_ANY_PORT: Final = "127.0.0.1:0"


class Background:
    """`python -m MODULE ARGUMENTS` beside this process; a context manager that ends it. `log` is appended to."""

    def __init__(self, name: str, log: Path, arguments: Sequence[str], *, module: str = "api.cli") -> None:
        self.name = name
        self._log = log
        self._from = log.stat().st_size if log.exists() else 0
        # Pretty lines are cut to the width of a terminal that is not there.
        environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
        with log.open("ab") as sink:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", module, *arguments], stdout=sink, stderr=sink, env=environment
            )

    def text(self) -> str:
        """What it has printed so far."""
        with self._log.open("rb") as log:
            log.seek(self._from)
            return log.read().decode("utf-8", "replace")

    def until(self, condition: Callable[[], bool], what: str, seconds: float = _START_SECONDS) -> None:
        """Wait until `condition` holds. Raises RuntimeError with the end of the log if it does not, or it ended."""
        end = time.monotonic() + seconds
        while not condition():
            if self._process.poll() is not None:
                raise RuntimeError(f"the {self.name} ended before {what}:\n{self.text()[-2000:]}")
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
        self._process.terminate()
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
def local_server(data: Path, origin: str) -> Iterator[tuple[str, str]]:
    """A server in its own process on a free port of this machine: its address and its ledger's key."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = Server(url, retries=0)

    def answers() -> bool:
        try:
            server.health()
        except ServerError:
            return False
        return True

    data.parent.mkdir(parents=True, exist_ok=True)
    arguments = ["serve", "--data", str(data), "--port", str(port), "--origin", origin]
    with Background("server", data.parent / "server.log", arguments) as process:
        process.until(answers, "answer")
        yield url, (data / "log.vkey").read_text(encoding="utf-8").strip()


@dataclass(frozen=True)
class Dealer:
    """A running dealer: where it is and the file with its key, for the nodes."""

    process: Background
    address: str
    key_file: Path


def start_dealer(state: Path) -> Dealer:
    """`sealproof mpc dealer` on a free port; ready when this returns."""
    folder = state / "dealer"
    process = Background("dealer", state / "dealer.log", ["mpc", "dealer", "-f", str(folder), "--listen", _ANY_PORT])
    try:
        address = process.find(r"dealing at (\S+)", "word that it deals")[1]
    except BaseException:
        process.stop()
        raise
    return Dealer(process, address, folder / "dealer.pub")


def start_node(role: str, state: Path, dealer: Dealer, *, module: str = "api.cli") -> Background:
    """`sealproof mpc node` for the clinic or owner whose folder is `state`/`role`; `ready` waits for it.

    `module` is the program: the product's, or one that was changed (`api.demo.cheating_node`).
    """
    arguments = ["mpc", "node", "-f", str(state / role), "--dealer", dealer.address, "--dealer-key"]
    arguments += [str(dealer.key_file), *(["--listen", _ANY_PORT] if role == "owner" else [])]
    return Background(f"{role}'s node", state / f"{role}-node.log", arguments, module=module)


def audit(state: Path, bundles: Sequence[Path], log_key: str) -> list[dict[str, Any]]:
    """`sealproof verify --json` in a process that has no key and cannot import an encryption library."""
    home = state / "auditor"
    home.mkdir(exist_ok=True)
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({FORBIDDEN!r})); sys.argv[0] = 'sealproof'; "
        "from api.cli import main; main()"
    )
    paths = [str(bundle.resolve()) for bundle in bundles]
    command = [sys.executable, "-c", program, "verify", *paths, "--log-key", log_key, "--json"]
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(home.resolve()),
        "SEALPROOF_CACHE": str(cache_folder().resolve()),
        "PYTHONPATH": os.pathsep.join(dict.fromkeys([str(Path(__file__).resolve().parents[2])])),
    }
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, check=False)  # noqa: S603
    try:
        found = json.loads(done.stdout)
    except json.JSONDecodeError as error:
        raise RuntimeError(f"the auditor failed ({done.returncode}): {done.stderr[-2000:]}") from error
    return found if isinstance(found, list) else [found]
