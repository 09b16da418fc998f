"""A dealer and two nodes as processes, and a server: one prediction, and what is left when one of them is killed.

A process is killed when it has certainly used its secret and not finished: the nodes of these tests wait at one step of
the session until a file appears. All else in them is `sealproof mpc`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from api.client.clinic import Clinic, JobFailed, PredictionRequest, SubmittedRecords
from api.client.owner import Owner
from api.client.session import LocatedModel
from api.client.transport import ServerRefused
from api.mpc.suspensions import ENDED
from privacy.models.network import Dense, Network
from privacy.models.network_quantise import quantise_network, reference_network, to_network_answers
from privacy.models.schema import Feature, Schema
from tests.support.service import RunningServer, listening

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = Schema("ward", 1, tuple(Feature(f"x{i}", "1", -1.0, 1.0) for i in range(4)))
NETWORK = Network(
    "ward-risk",
    (
        Dense(
            np.array([[0.5, -0.25, 0.75, 0.1], [-0.6, 0.3, 0.2, -0.9], [0.05, 0.8, -0.4, 0.3]]),
            np.array([0.1, -0.2, 0.3]),
        ),
        Dense(np.array([[0.7, -1.1, 0.9]]), np.array([-0.15])),
    ),
    ("risk",),
    "logit",
    SCHEMA,
)
PATIENTS = np.array([[0.5, -0.5, 0.25, -1.0], [-0.75, 0.1, 0.9, 0.3], [0.0, 1.0, -1.0, 0.6]])
IDS = ("p-1", "p-2", "p-3")

# `sealproof`, which waits at one step while the file `wait` exists, and says in the file `there` that it does.
WAITING = """
import os, pathlib, sys, time
from api.cli.main import main
from api.mpc import dealer_process, session

wait, there, step = pathlib.Path(os.environ["WAIT"]), pathlib.Path(os.environ["THERE"]), os.environ["STEP"]

def pause():
    there.touch()
    while wait.exists():
        time.sleep(0.02)

def before(function):
    def paused(*arguments):
        if wait.exists():
            pause()
        return function(*arguments)
    return paused

def after(function):
    def paused(*arguments):
        found = function(*arguments)
        if wait.exists():
            pause()
        return found
    return paused

if step == "dealt":
    dealer_process.DealerClient.deal = before(dealer_process.DealerClient.deal)
else:
    session.prove_batch = after(session.prove_batch)
sys.argv[0] = "sealproof"
main()
"""


class Process:
    """One `sealproof` process; its output is kept in a file."""

    def __init__(self, folder: Path, name: str, *arguments: str, waits_at: str | None = None) -> None:
        self.log, self.wait, self.there = folder / f"{name}.log", folder / f"{name}.wait", folder / f"{name}.there"
        self.there.unlink(missing_ok=True)
        environment = {**os.environ, "SEALPROOF_HOME": str(folder / f"{name}-home"), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-W", "ignore"]
        if waits_at is None:
            command += ["-m", "api.cli"]
        else:
            self.wait.touch()
            environment |= {"WAIT": str(self.wait), "THERE": str(self.there), "STEP": waits_at}
            command += ["-c", WAITING]
        self._output = self.log.open("wb")
        self.process = subprocess.Popen(
            [*command, *arguments], stdout=self._output, stderr=subprocess.STDOUT, cwd=folder, env=environment
        )

    def find(self, pattern: str, seconds: float = 120) -> str:
        """What the process has printed, as soon as it has."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            match = re.search(pattern, self.output)
            if match is not None:
                return match[match.lastindex or 0]
            assert self.process.poll() is None, self.output
            time.sleep(0.05)
        raise TimeoutError(f"{pattern!r} is not in:\n{self.output}")

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def reached(self, seconds: float = 120) -> None:
        """Wait until the process is at its step."""
        deadline = time.monotonic() + seconds
        while not self.there.exists():
            assert time.monotonic() < deadline, self.output
            assert self.process.poll() is None, self.output
            time.sleep(0.02)

    def go_on(self) -> None:
        self.wait.unlink()

    def kill(self) -> None:
        """As the kernel does: nothing of the process runs any more."""
        self.process.kill()
        assert self.process.wait(30) == -signal.SIGKILL

    def close(self) -> None:
        self.wait.unlink(missing_ok=True)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)
        self._output.close()


@dataclass
class Ward:
    """A server, a clinic and an owner, and the processes of all three parts."""

    folder: Path
    server: RunningServer
    clinic: Clinic
    owner: Owner
    model: LocatedModel
    records: SubmittedRecords
    stack: ExitStack
    processes: dict[str, Process] = field(default_factory=dict)
    dealer_address: str = "127.0.0.1:0"

    def start(self, name: str, waits_at: str | None = None) -> Process:
        """A process of this part, in the place of the one before."""
        if name in self.processes:
            self.processes[name].close()
        if name == "dealer":
            arguments = ["mpc", "dealer", "--folder", "dealer", "--listen", self.dealer_address]
        else:
            arguments = ["mpc", "node", "-f", name, "--dealer", self.dealer_address]
            arguments += ["--dealer-key", str(self.folder / "dealer" / "dealer.pub")]
        made = Process(self.folder, name, *arguments, waits_at=waits_at)
        self.stack.callback(made.close)
        self.processes[name] = made
        if name == "dealer":
            self.dealer_address = made.find(r"dealing at (127\.0\.0\.1:[0-9]+)")
        else:
            made.find(r"is ready")
        return made

    def command(self, *arguments: str) -> Any:
        """What one more `sealproof` command says, as JSON."""
        done = subprocess.run(
            [sys.executable, "-m", "api.cli", *arguments, "--json"],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={**os.environ, "SEALPROOF_HOME": str(self.folder / "home"), "PYTHONPATH": str(ROOT)},
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def ask(self) -> PredictionRequest:
        return self.clinic.request(self.records, self.model)

    def check_prediction(self) -> None:
        """A prediction works, and is the network's."""
        scores = self.clinic.predict(self.records, self.model, timeout=120)
        quantised = quantise_network(NETWORK, 16)
        exact = to_network_answers(reference_network(quantised, PATIENTS), quantised)
        assert np.array_equal(scores.raw.reveal_raw(), exact)
        assert scores.ids == IDS

    def fails(self, request: PredictionRequest) -> str:
        """Why the job of this request ended."""
        with pytest.raises(JobFailed) as caught:
            self.clinic.fetch(request, timeout=60)
        return str(caught.value)

    def clear(self) -> None:
        """Both look into it, and each clears the pair."""
        for name, peer in (("clinic", "ward-lab"), ("owner", "st-ward")):
            found = self.command("mpc", "status", "-f", name)
            assert [one["peer"] for one in found] == [peer]
            assert found[0]["local"], found
            with pytest.raises(ServerRefused, match="sealproof mpc clear"):
                self.ask()
            cleared = self.command("mpc", "clear", peer, "-f", name)
            assert cleared["local"] == 1
        for name in ("clinic", "owner"):
            assert self.command("mpc", "status", "-f", name) == []


@contextmanager
def ward(folder: Path) -> Iterator[Ward]:
    with ExitStack() as stack:
        server = stack.enter_context(listening(folder / "server"))
        owner = server.owner(folder / "owner", "ward-lab")
        model = owner.publish(NETWORK, version="1")
        clinic = Clinic.init(folder / "clinic", server.url, "st-ward", log_key=server.log_key, ckks=False)
        records = clinic.submit(SCHEMA.cohort(PATIENTS, IDS), model)
        found = Ward(folder, server, clinic, owner, model, records, stack)
        yield found
        for process in found.processes.values():
            process.close()
        found.ask()  # or the server would wait for what nodes that are gone have asked for


@pytest.mark.slow
def test_three_processes_compute_what_the_network_says(tmp_path: Path) -> None:
    with ward(tmp_path) as found:
        key = found.start("dealer").find(r"\b([0-9a-f]{64})\b")
        assert (tmp_path / "dealer" / "dealer.pub").read_text().strip() == key
        assert (tmp_path / "dealer" / "dealer.key").stat().st_mode & 0o777 == 0o600
        clinic, owner = found.start("clinic"), found.start("owner")
        assert "node of clinic st-ward is ready" in clinic.output
        assert "node of owner ward-lab is ready, reached at 127.0.0.1:" in owner.output
        found.check_prediction()
        for name in ("clinic", "owner"):
            assert found.command("mpc", "status", "-f", name) == []
        # Nodes say what they do, and nothing of what they do it with.
        outputs = "".join(process.output for process in found.processes.values())
        assert "proven;" in outputs
        for opening in found.clinic.committed_openings(found.records.index):
            assert str(opening.rho) not in outputs
        clinic.process.send_signal(signal.SIGTERM)
        owner.process.send_signal(signal.SIGTERM)
        found.ask()  # wakes both
        assert clinic.process.wait(60) == 0
        assert owner.process.wait(60) == 0
        found.processes["dealer"].process.send_signal(signal.SIGTERM)
        assert found.processes["dealer"].process.wait(30) == 0


@pytest.mark.slow
def test_after_any_process_was_killed_the_pair_is_suspended_until_both_clear_it(tmp_path: Path) -> None:
    with ward(tmp_path) as found:
        found.start("dealer")

        # The clinic's node: it has verified the proof and has said nothing of it.
        clinic = found.start("clinic", waits_at="proven")
        found.start("owner")
        request = found.ask()
        clinic.reached()
        clinic.kill()
        assert "mpc.gone" in found.fails(request)
        # The owner's node has written it down; the clinic's had before.
        (said,) = found.command("mpc", "status", "-f", "owner")
        assert len(said["ledger"]) == 1
        assert "is gone" in said["local"][0]
        (said,) = found.command("mpc", "status", "-f", "clinic")
        assert said["local"][0].endswith(ENDED)
        assert list((tmp_path / "clinic" / "joint").glob("*.box")) == []
        found.start("clinic")
        found.clear()
        found.check_prediction()

        # The owner's node, at the same step: nothing was delivered.
        delivered = len(list((tmp_path / "owner" / "delivered").iterdir()))
        owner = found.start("owner", waits_at="proven")
        request = found.ask()
        owner.reached()
        owner.kill()
        assert "mpc.gone" in found.fails(request)
        assert len(list((tmp_path / "owner" / "delivered").iterdir())) == delivered
        (said,) = found.command("mpc", "status", "-f", "owner")
        assert said["local"][0].endswith(ENDED)
        found.start("owner")
        found.clear()
        found.check_prediction()

        # The dealer, while both nodes are in a session: it sees no data, but who knows whether it dealt honestly.
        clinic = found.start("clinic", waits_at="dealt")
        request = found.ask()
        clinic.reached()
        found.processes["dealer"].kill()
        clinic.go_on()
        assert "the dealer is gone" in found.fails(request)
        found.start("dealer")
        deadline = time.monotonic() + 30
        while len(found.command("mpc", "status", "-f", "clinic")[0]["ledger"]) < 2 and time.monotonic() < deadline:
            time.sleep(0.2)
        found.clear()
        found.check_prediction()


@pytest.mark.slow
def test_a_node_that_was_killed_after_its_shares_were_kept_opens_the_answers(tmp_path: Path) -> None:
    """The clinic's node is killed with all on its disk and the owner's having published: nothing is lost."""
    with ward(tmp_path) as found:
        found.start("dealer")
        owner = found.start("owner", waits_at="proven")
        clinic = found.start("clinic")
        request = found.ask()
        owner.reached()
        # A has said `done` by now or will; B goes on when its shares are on disk.
        deadline = time.monotonic() + 60
        while not list((tmp_path / "clinic" / "joint").glob("*.shares.json")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(1.0)
        os.kill(clinic.process.pid, signal.SIGSTOP)
        owner.go_on()
        path = found.clinic.fetch(request, timeout=60)
        clinic.kill()
        scores = found.clinic.open_bundle(path, request)
        assert scores.ids == IDS
        # The clinic's own record is careful: it does not know how the session ended.
        (said,) = found.command("mpc", "status", "-f", "clinic")
        assert (said["local"][0].endswith(ENDED), said["ledger"]) == (True, [])
        assert found.command("mpc", "status", "-f", "owner") == []
        assert found.command("mpc", "clear", "ward-lab", "-f", "clinic") == {
            "peer": "ward-lab",
            "local": 1,
            "entries": [],
        }
        found.start("owner")
        found.start("clinic")
        found.check_prediction()
