"""Run what the README says, in the order in which it can be run, and compare or rewrite the outputs that it shows.

    python docs/tools/readme.py                   compare; exit status 1 and a message where README and reality differ
    python docs/tools/readme.py --write           run everything and write the outputs into README.md
    python docs/tools/readme.py --without demo    leave a block alone; with --write, too

Blocks that are run follow a line `<!-- run: NAME -->`. Lines that begin with `$ ` are commands of a shell, what follows
is their output; a command that ends with `&` stays until the end. Numbers, digests and random names may differ between
runs; everything else must be the same.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
ORDER = (
    "owner-python",
    "owner-shell",
    "clinic-python",
    "clinic-shell",
    "auditor-shell",
    "network-python",
    "dealer-shell",
    "network-shell",
    "joint-shell",
    "joint-auditor-shell",
    "nonce-shell",
    "disclose-shell",
    "consumer-shell",
    "demo",
)
PATIENTS = "id,age,systolic,smoker\np-1,71,168,1\np-2,34,118,0\np-3,58,141,1\np-4,45,127,0\np-5,80,150,0\n"

_BLOCK = re.compile(
    r"<!-- run: (?P<name>[a-z-]+) -->\n```(?P<kind>python|console)\n(?P<body>.*?)```\n(?P<out>```\n.*?```\n)?", re.S
)
_PORTS = ("8000", "7100", "7200")
"""Ports that the README names; each stands for a free one."""
_READY = ("listening", "dealing at", "node of")
"""How the last line begins that a command in the background prints before it waits for others."""
_STOP_SECONDS = 30


class Session:
    """A folder, ports, and what was started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with ExitStack() as stack:
            probes = [stack.enter_context(socket.socket()) for _ in _PORTS]
            for probe in probes:
                probe.bind(("127.0.0.1", 0))
            self.ports = {name: str(probe.getsockname()[1]) for name, probe in zip(_PORTS, probes, strict=True)}
        self.environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            "SEALPROOF_HOME": str(folder / "home"),
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "100",
            "NO_COLOR": "1",
        }
        self.background: list[subprocess.Popen[str]] = []
        (folder / "patients.csv").write_text(PATIENTS, encoding="utf-8")

    def python(self, code: str) -> str:
        return self._run([sys.executable, "-c", self._with_ports(code)])

    def shell(self, command: str) -> str:
        if command.endswith("&"):
            return self._start(shlex.split(self._with_ports(command[:-1])))
        return self._run(["bash", "-euo", "pipefail", "-c", self._with_ports(command)])

    def _with_ports(self, text: str) -> str:
        for name, port in self.ports.items():
            text = re.sub(rf"\b{name}\b", port, text)
        return text

    def _as_shown(self, text: str) -> str:
        for name, port in self.ports.items():
            text = re.sub(rf"\b{port}\b", name, text)
        return text

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            logs = "".join(path.read_text(encoding="utf-8")[-2000:] for path in sorted(self.folder.glob("*.log")))
            raise RuntimeError(
                f"{shlex.join(command)[:200]} failed ({done.returncode}):\n{done.stdout}{done.stderr}\n{logs}"
            )
        return self._as_shown(done.stdout)

    def _start(self, command: list[str]) -> str:
        with (self.folder / f"{len(self.background)}.log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.background.append(process)
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith(_READY):
                break
        time.sleep(0.2)
        return self._as_shown("".join(lines))

    def close(self) -> None:
        """End what was started; nodes wait for the server and end with it."""
        for process in self.background:
            process.terminate()
        for process in self.background:
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()


def blocks(text: str) -> dict[str, re.Match[str]]:
    """The blocks that are run, by name."""
    return {match["name"]: match for match in _BLOCK.finditer(text)}


def run_block(session: Session, match: re.Match[str]) -> str:
    """The block as it should stand in the README."""
    head = f"<!-- run: {match['name']} -->\n```{match['kind']}\n"
    if match["kind"] == "python":
        printed = session.python(match["body"])
        return f"{head}{match['body']}```\n" + (f"```\n{printed}```\n" if printed else "")
    commands = [line for line in match["body"].splitlines() if line.startswith("$ ")]
    return head + "".join(f"{line}\n{session.shell(line[2:])}" for line in commands) + "```\n"


def normalised(block: str) -> str:
    """Without what may differ from run to run."""
    block = re.sub(r"\+[0-9a-f]{8}\+[A-Za-z0-9+/=]{44}", "+KEY", block)
    block = re.sub(r"demo-[0-9a-f]{8}", "demo-X", block)
    block = re.sub(r"[0-9a-f]{64}", "DIGEST", block)
    block = re.sub(r"\d[\d.,]*(e[-+]\d+)?", "N", block)
    return re.sub(r"[ \t─━]+", " ", block)


def main(arguments: list[str]) -> int:
    """Exit status: 0 when the README tells the truth, or has been made to."""
    text = README.read_text(encoding="utf-8")
    found = blocks(text)
    if tuple(sorted(found)) != tuple(sorted(ORDER)):
        print(f"README.md has the blocks {sorted(found)}, expected {sorted(ORDER)}")
        return 1
    left_alone = set(arguments[arguments.index("--without") + 1 :]) if "--without" in arguments else set()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Path(folder))
        try:
            for name in ORDER:
                if name in left_alone:
                    continue
                made = run_block(session, found[name])
                if "--write" in arguments:
                    text = text.replace(found[name][0], made)
                elif normalised(made) != normalised(found[name][0]):
                    print(f"README.md, block {name}, is not what happens:\n{made}")
                    wrong = 1
        finally:
            session.close()
    if "--write" in arguments:
        README.write_text(text, encoding="utf-8")
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
