"""Real witnesses on sockets of this machine, and the policy files that name them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ledger import Signer, Verifier
from ledger.cosignature import CosignatureVerifier
from tests.support.service import free_port, on_a_socket

ORIGIN = "localhost/sealproof"


@dataclass
class RunningWitness:
    """A hospital's witness of one log, which may be stopped and started again at the same address."""

    name: str
    folder: Path
    log: Verifier
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        from ledger.witness_store import open_folder

        store, cosigner = open_folder(self.folder, f"{self.name}.example/witness")
        self.verifier: CosignatureVerifier = cosigner.verifier
        store.close()
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        from api.witness.app import create_witness_app
        from ledger.witness import Witness
        from ledger.witness_store import open_folder

        store, cosigner = open_folder(self.folder, None)
        self._stack.callback(store.close)
        witness = Witness(store, cosigner, {self.log.name: self.log})
        self._stack.enter_context(on_a_socket(create_witness_app(witness, store), self.port))

    def stop(self) -> None:
        self._stack.close()

    def line(self) -> str:
        return f"witness {self.name} {self.verifier} {self.url}"


def policy(log: Verifier, witnesses: Sequence[RunningWitness], needed: int) -> str:
    """A policy of this log that demands so many of these witnesses."""
    names = " ".join(w.name for w in witnesses)
    lines = [f"log {log}", *(w.line() for w in witnesses), f"group hospitals {needed} {names}", "quorum hospitals", ""]
    return "\n".join(lines)


@contextmanager
def witnesses(folder: Path, data: Path, names: Sequence[str]) -> Iterator[list[RunningWitness]]:
    """Witnesses of the log whose server will have the folder `data`; its key is made here."""
    data.mkdir(mode=0o700, parents=True)
    signer = Signer.generate(ORIGIN)
    signer.save(data / "log.key")
    made = [RunningWitness(name, folder / name, signer.verifier) for name in names]
    try:
        for witness in made:
            witness.start()
        yield made
    finally:
        for witness in made:
            witness.stop()
