"""Processes of a benchmark that are told what to do: one JSON object a line, over stdin and stdout.

Standard library only: CrypTen's own processes import it, too, and nothing of the product with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from measure import peak_rss_mb

__all__ = ["Child", "serve"]

_CLOSE_SECONDS = 20
_SHOWN_LINES = 15


class Child:
    """A script in a process of its own that answers commands (`serve`). A context manager; ends with it."""

    def __init__(self, name: str, script: Path, arguments: Sequence[str], environment: Mapping[str, str] | None = None):
        self.name = name
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 closed with it
        self._process = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **(environment or {})},
        )

    def tell(self, command: str, **arguments: object) -> None:
        """Send a command; `hear` its answer before the next one."""
        try:
            print(json.dumps({"do": command, "with": arguments}), file=self._process.stdin, flush=True)
        except OSError:
            raise SystemExit(f"{self.name} is gone:\n{self._tail()}") from None

    def hear(self) -> Any:
        """The answer to the last command. Exits with what the process said if it failed."""
        line = self._process.stdout.readline() if self._process.stdout else ""
        answer = json.loads(line) if line else {"failed": "it ended"}
        if "failed" in answer:
            raise SystemExit(f"{self.name}: {answer['failed']}\n{self._tail()}")
        return answer["answer"]

    def ask(self, command: str, **arguments: object) -> Any:
        """Send a command and wait for its answer."""
        self.tell(command, **arguments)
        return self.hear()

    def peak_rss_mb(self) -> float:
        """Its peak memory so far."""
        return peak_rss_mb(self._process.pid)

    def _tail(self) -> str:
        self._errors.seek(0)
        return "\n".join(self._errors.read().splitlines()[-_SHOWN_LINES:])

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is not None:  # its peer may never answer any more
                self._process.terminate()
            if self._process.stdin:
                self._process.stdin.close()
            self._process.wait(_CLOSE_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._errors.close()


def serve(commands: Mapping[str, Callable[..., object]]) -> None:
    """Answer commands until stdin ends. What else is printed goes to stderr, so that no library talks in between."""
    answers: TextIO = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        request = json.loads(line)
        try:
            said = {"answer": commands[request["do"]](**request["with"])}
        except Exception as error:
            # Told to the parent, which stops everything; the traceback is for stderr.
            sys.excepthook(type(error), error, error.__traceback__)
            said = {"failed": f"{request['do']}: {error}"}
        print(json.dumps(said), file=answers, flush=True)
