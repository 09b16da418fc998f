"""Run what README.md and docs/ledger.md say, in the order in which it can be run, and compare or rewrite the outputs.

    python docs/tools/readme.py                   compare; exit status 1 and a message where text and reality differ
    python docs/tools/readme.py --write           run everything and write the outputs into the documents
    python docs/tools/readme.py --without demo    leave a block alone; with --write, too
    python docs/tools/readme.py --only demo       leave all others alone

Blocks that are run follow a line `<!-- run: NAME -->`, or `<!-- run on a chain: NAME -->`; the latter are left alone
where no development chain is installed (`make anvil`). Lines that begin with `$ ` are commands of a shell, those after
them that begin with `> ` go on with the command, and what follows is the output. A command that ends with `&` stays
until the end, or until another one is started on the same `--data` folder. Numbers, digests and random names may differ
between runs; everything else must be the same. A key, digest or address that an output shows is exchanged in the
commands after it for what stands there this time.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from api.demo.play_chain import find_anvil, why_no_chain  # noqa: E402

DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "ledger.md")
ORDER = (
    "owner-python",
    "rules-shell",
    "owner-shell",
    "clinic-python",
    "clinic-shell",
    "auditor-shell",
    "rules-auditor-shell",
    "ask-shell",
    "grant-shell",
    "collect-shell",
    "explain-shell",
    "consumer-python",
    "network-python",
    "dealer-shell",
    "network-shell",
    "joint-shell",
    "joint-auditor-shell",
    "nonce-shell",
    "joint-consumer-shell",
    "witness-shell",
    "policy-shell",
    "dated-shell",
    "dated-auditor-shell",
    "watch-shell",
    "report-shell",
    "evidence-shell",
    "since-shell",
    "anchor-shell",
    "anchored-shell",
    "hospitals-shell",
    "approve-shell",
    "governed-shell",
    "approved-shell",
    "committee-shell",
    "case-shell",
    "enrol-shell",
    "demo",
)
PATIENTS = "id,age,systolic,smoker\np-1,71,168,1\np-2,34,118,0\np-3,58,141,1\np-4,45,127,0\np-5,80,150,0\n"

_BLOCK = re.compile(
    r"<!-- run(?P<chain> on a chain)?: (?P<name>[a-z-]+) -->\n```(?P<kind>python|console)\n(?P<body>.*?)```\n"
    r"(?P<out>```\n.*?```\n)?",
    re.S,
)
_KEY = r"[\w./-]+\+[0-9a-f]{8}\+[A-Za-z0-9+/=]{44}"
_ADDRESS = r"\b0x[0-9a-fA-F]{40}\b"
_DIGEST = r"\b[0-9a-f]{64}(?:[0-9a-f]{2})?\b"
_TOKEN = re.compile(rf"{_KEY}|{_ADDRESS}|{_DIGEST}")
_ACCOUNT = re.compile(rf"^account: ({_ADDRESS})$", re.M)
_OF_CHAINS = re.compile(r"^.*(?:in a contract on chain |^    contract: |  nothing is anchored: ).*\n", re.M)
"""Lines of the demonstration that are there, or differ, where there is a development chain."""

_CHAIN_PORT = "8545"
_PORTS = ("8000", "7100", "7200", "8101", "8102", _CHAIN_PORT)
"""Ports that the documents name; each stands for a free one."""
_READY = ("listening", "dealing at", "node of")
"""How the last line begins that a command in the background prints before it waits for others."""
_STOP_SECONDS = 30
_CHAIN_SECONDS = 30


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
        self.background: dict[str, subprocess.Popen[str]] = {}
        self._started = 0
        self._chain: subprocess.Popen[bytes] | None = None
        self._renamed: dict[str, str] = {}
        (folder / "patients.csv").write_text(PATIENTS, encoding="utf-8")

    def python(self, code: str) -> str:
        return self._run([sys.executable, "-c", self._with_ports(code)])

    def shell(self, command: str) -> str:
        """What a command prints, one of a document after `current`."""
        if command.endswith("&"):
            return self._start(self._with_ports(command[:-1]))
        printed = self._run(["bash", "-euo", "pipefail", "-c", self._with_ports(command)])
        for account in _ACCOUNT.findall(printed) if self._chain is not None else ():
            self._ask_chain("anvil_setBalance", account, hex(10**18))
        return printed

    def current(self, text: str) -> str:
        """The text of a document with the keys, digests and addresses of this session."""
        return _TOKEN.sub(lambda match: self._renamed.get(match[0], match[0]), text)

    def learn(self, shown: str, printed: str) -> None:
        """Take what a document shows for what was printed now."""
        old, new = _TOKEN.findall(shown), _TOKEN.findall(printed)
        if len(old) == len(new):
            self._renamed |= dict(zip(old, new, strict=True))

    def start_chain(self) -> None:
        """A development chain at the port that the documents name; again does nothing."""
        if self._chain is not None:
            return
        program = find_anvil()
        assert program is not None
        command = [str(program), "--port", self.ports[_CHAIN_PORT], "--hardfork", "prague"]
        self._chain = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + _CHAIN_SECONDS
        while True:
            try:
                self._ask_chain("eth_chainId")
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
            else:
                return

    def _ask_chain(self, method: str, *parameters: str) -> None:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports[_CHAIN_PORT]}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=_CHAIN_SECONDS) as answer:
            assert "error" not in json.load(answer)

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

    def _start(self, text: str) -> str:
        words, environment = shlex.split(text.replace("\\\n", " ")), dict(self.environment)
        while re.fullmatch(r"[A-Z_]+=.*", words[0]):
            name, _, value = words.pop(0).partition("=")
            environment[name] = value
        self._started += 1
        # As a reader would, who stops a server to start it again in another way.
        place = words[words.index("--data") + 1] if "--data" in words else str(self._started)
        if place in self.background:
            _stop(self.background.pop(place))
        with (self.folder / f"{self._started}.log").open("wb") as log:
            process = subprocess.Popen(
                words, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.background[place] = process
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith(_READY):
                break
        else:
            said = (self.folder / f"{self._started}.log").read_text(encoding="utf-8")
            raise RuntimeError(f"{shlex.join(words)[:200]} ended:\n{''.join(lines)}{said}")
        time.sleep(0.2)
        return self._as_shown("".join(lines))

    def close(self) -> None:
        """End what was started; nodes wait for the server and end with it."""
        for process in self.background.values():
            process.terminate()
        for process in self.background.values():
            _stop(process)
        if self._chain is not None:
            self._chain.kill()
            self._chain.wait()


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
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


def steps(body: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with its further lines, and what is shown as their output."""
    found: list[tuple[str, str]] = []
    for line in body.splitlines(keepends=True):
        if line.startswith("$ "):
            found.append((line, ""))
        elif line.startswith("> ") and found and not found[-1][1]:
            found[-1] = (found[-1][0] + line, "")
        elif found:
            found[-1] = (found[-1][0], found[-1][1] + line)
    return found


def run_block(session: Session, match: re.Match[str]) -> str:
    """The block as it should stand in its document."""
    head = match[0][: match.start("body") - match.start()]
    if match["kind"] == "python":
        printed = session.python(match["body"])
        return f"{head}{match['body']}```\n" + (f"```\n{printed}```\n" if printed else "")
    if match["chain"]:
        session.start_chain()
    made = []
    for command, shown in steps(match["body"]):
        typed = session.current(command)
        printed = session.shell("\n".join(line[2:] for line in typed.splitlines()))
        session.learn(shown, printed)
        made.append(typed + printed)
    return head + "".join(made) + "```\n"


def normalised(block: str, *, chain: bool = True) -> str:
    """Without what may differ from run to run; without `chain`, without what tells of chains either."""
    if not chain:
        block = _OF_CHAINS.sub("", block)
    block = re.sub(r"\+[0-9a-f]{8}\+[A-Za-z0-9+/=]{44}", "+KEY", block)
    block = re.sub(r"^(— \S+) \S+$", r"\1 SIGNATURE", block, flags=re.M)
    block = re.sub(r"^[A-Za-z0-9+/]{43}=$", "ROOT", block, flags=re.M)
    block = re.sub(r"demo-[0-9a-f]{8}", "demo-X", block)
    block = re.sub(_ADDRESS, "ADDRESS", block)
    block = re.sub(_DIGEST, "DIGEST", block)
    block = re.sub(r"\d[\d.,]*(e[-+]\d+)?", "N", block)
    return re.sub(r"[ \t─━]+", " ", block)


def main(arguments: list[str]) -> int:
    """Exit status: 0 when the documents tell the truth, or have been made to."""
    texts = {path: path.read_text(encoding="utf-8") for path in DOCUMENTS}
    found = {name: (path, match) for path, text in texts.items() for name, match in blocks(text).items()}
    if tuple(sorted(found)) != tuple(sorted(ORDER)):
        print(f"the documents have the blocks {sorted(found)}, expected {sorted(ORDER)}")
        return 1
    left_alone = set(arguments[arguments.index("--without") + 1 :]) if "--without" in arguments else set()
    if "--only" in arguments:
        left_alone = set(ORDER) - set(arguments[arguments.index("--only") + 1 :])
    reason = why_no_chain()
    if reason is not None:
        print(f"blocks about chains are left alone: {reason}")
        left_alone |= {name for name, (_, match) in found.items() if match["chain"]}
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Path(folder))
        try:
            for name in ORDER:
                if name in left_alone:
                    continue
                path, match = found[name]
                made = run_block(session, match)
                if "--write" in arguments:
                    texts[path] = texts[path].replace(match[0], made)
                elif normalised(made, chain=reason is None) != normalised(match[0], chain=reason is None):
                    print(f"{path.name}, block {name}, is not what happens:\n{made}")
                    wrong = 1
        finally:
            session.close()
    if "--write" in arguments:
        for path, text in texts.items():
            path.write_text(text, encoding="utf-8")
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
