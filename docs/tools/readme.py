"""Run what the README says, in the order in which it can be run, and compare or rewrite the outputs that it shows.

    python docs/tools/readme.py            compare; exit status 1 and a message where README and reality differ
    python docs/tools/readme.py --write    run everything and write the outputs into README.md

Blocks that are run follow a line `<!-- run: NAME -->`. Lines that begin with `$ ` are commands, what follows is their
output. Numbers, digests and random names may differ between runs; everything else must be the same.
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
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
ORDER = ("owner-python", "owner-shell", "clinic-python", "clinic-shell", "auditor-shell", "demo")
PATIENTS = "id,age,systolic,smoker\np-1,71,168,1\np-2,34,118,0\np-3,58,141,1\np-4,45,127,0\np-5,80,150,0\n"

_BLOCK = re.compile(
    r"<!-- run: (?P<name>[a-z-]+) -->\n```(?P<kind>python|console)\n(?P<body>.*?)```\n(?P<out>```\n.*?```\n)?", re.S
)
_PORT = "8000"


class Session:
    """A folder, a port, and what was started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = str(probe.getsockname()[1])
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
        return self._run([sys.executable, "-c", code.replace(_PORT, self.port)])

    def shell(self, command: str) -> str:
        parts = shlex.split(command.replace(_PORT, self.port))
        if parts[-1] == "&":
            return self._start(parts[:-1])
        return self._run(parts)

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{shlex.join(command)[:200]} failed ({done.returncode}):\n{done.stdout}{done.stderr}")
        return done.stdout.replace(self.port, _PORT)

    def _start(self, command: list[str]) -> str:
        process = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, text=True)
        self.background.append(process)
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("listening"):
                break
        time.sleep(0.2)
        return "".join(lines).replace(self.port, _PORT)

    def close(self) -> None:
        for process in self.background:
            process.terminate()
            process.wait(20)


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
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Path(folder))
        try:
            for name in ORDER:
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
