"""The ledger's part of the demonstration: witnesses, anchors, an auditor; then a server that lies.

Server and witnesses are processes of their own; so are the chains, where a development chain is installed.
"""

from __future__ import annotations

import secrets
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from api.client.clinic import Clinic
from api.client.log_mirror import mirror_log
from api.client.log_monitor import Monitor
from api.client.owner import Owner
from api.client.tile_source import open_tiles
from api.client.transport import Server
from api.client.trust import TrustedLog, parse_trust
from api.demo.data import studies
from api.demo.ledger_report import Caught, LedgerReport
from api.demo.lying import Lie, lies
from api.demo.play_chain import play_chains, why_no_chain
from api.demo.processes import local_server, local_witness
from api.demo.telling import Clock, ledger_entries, say
from api.witness.client import WitnessClient, clients_of
from ledger import Log, Signer, VerifiedHead, open_checkpoint
from ledger.errors import LedgerError
from ledger.fsck import KnownTree, fsck
from ledger.storage.locate import LogPlace
from ledger.trust_policy import TlogPolicy
from privacy.errors import PrivacyError

if TYPE_CHECKING:
    from ledger.anchors.head_anchor import HeadAnchor

__all__ = ["LEDGER_FOLDER", "tell_ledger"]

_HOSPITALS: Final = ("st-bruno", "st-clara")
_CHAINS: Final = (31337, 31338)
LEDGER_FOLDER: Final = "ledger-server"
"""Of the server, below the folder of the parties."""


def tell_ledger(folder: Path, state: Path) -> LedgerReport:
    """The honest part, then the lies. Raises when anything honest does not hold."""
    say("\nThe ledger: other hospitals witness it, contracts anchor it, and anybody checks it")
    with ExitStack() as stack:
        return _Story(folder, state, stack).tell()


class _Story:
    def __init__(self, folder: Path, state: Path, stack: ExitStack) -> None:
        self._folder, self._state, self._stack = folder, state, stack
        self._clock = Clock()
        self._origin = f"demo-{secrets.token_hex(4)}.localhost/ledger"
        self._gas: list[int] = []
        self._evidence: list[str] = []

    def tell(self) -> LedgerReport:
        self._start()
        head = self._watch()
        caught = self._lie(head)
        return LedgerReport(
            steps=self._clock.steps,
            policy=self._policy,
            note=head.note.decode("utf-8"),
            anchors=[anchor.name for anchor in self._anchors],
            gas=self._gas,
            caught=caught,
            mirror=str(self._state / "mirror"),
            policy_file=str(self._folder / "auditor.policy"),
            evidence=self._evidence,
        )

    # -- honest --------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        data = self._state / LEDGER_FOLDER
        data.mkdir(mode=0o700, parents=True)
        self._signer = Signer.generate(self._origin)
        self._signer.save(data / "log.key")
        log_key = str(self._signer.verifier)
        lines = [f"log {log_key}"]
        lines += [self._witness(name, log_key) for name in _HOSPITALS]
        members = " ".join(_HOSPITALS)
        self._policy = "\n".join([*lines, f"group hospitals any {members}", "quorum hospitals", ""])
        (self._folder / "auditor.policy").write_text(self._policy, encoding="utf-8")
        # The server waits for both; the auditor is content with one.
        asked = self._policy.replace(" any ", " all ")
        (self._state / "server.policy").write_text(asked, encoding="utf-8")
        (self._trusted,) = parse_trust(self._policy)
        options = ("--witnesses", str(self._state / "server.policy"))
        url, _ = self._stack.enter_context(local_server(data, self._origin, *options))
        self._server, self._url = Server(url), url
        self._chains = self._stack.enter_context(play_chains(self._state, _CHAINS))
        self._anchors: list[HeadAnchor] = []

    def _witness(self, name: str, log_key: str) -> str:
        """Start a hospital's witness; its line of the policy."""
        witness = local_witness(self._state / f"witness-{name}", f"{name}.example/witness", log_key)
        vkey, url = self._clock.time(
            f"hospital {name}", "start a witness of the ledger", lambda: self._stack.enter_context(witness)
        )
        return f"witness {name} {vkey} {url}"

    def _register(self, name: str) -> None:
        folder = self._state / f"clinic-{name}"
        self._clock.time(
            f"hospital {name}",
            "register as a clinic",
            lambda: Clinic.init(folder, self._url, name, log_key=self._policy, ckks=False).close(),
        )

    def _watch(self) -> VerifiedHead:
        clock, trusted = self._clock, self._trusted
        owner = clock.time(
            "model owner",
            "register; what it logs counts once both hospitals have cosigned it",
            lambda: Owner.init(self._state / "ledger-owner", self._url, "heart-lab", log_key=self._policy),
        )
        clock.time(
            "model owner",
            "publish a model",
            lambda: owner.publish(
                studies()[0].model,
                version="1",
                scheme="mpc",
                weight_scale_bits=16,
                weight_range_bits=3,
                bias_range_bits=8,
            ),
        )
        for name in _HOSPITALS:
            self._register(name)
        note = self._server.checkpoint()
        head = open_checkpoint(note, trusted.verifier, self._origin)
        witnessed = trusted.witnesses(note)
        if witnessed is None or len(witnessed.cosigned) != len(_HOSPITALS):
            raise RuntimeError(f"the head was not cosigned by both: {note.decode()}")
        mirror = self._state / "mirror"
        with open_tiles(f"{self._url}/log") as tiles:
            clock.time(
                "auditor",
                "read the whole log and check every file, with code that shares nothing with the server",
                lambda: fsck(tiles.fetch, str(trusted.verifier), fetch_many=tiles.fetch_many),
            )
            clock.time("auditor", "keep a copy of it in plain files", lambda: mirror_log(tiles, trusted, mirror))
        self._anchor(head)
        return head

    def _anchor(self, head: VerifiedHead) -> None:
        if not self._chains:
            say(f"  nothing is anchored: {why_no_chain()}")
            return
        from ledger.anchors.head_anchor import HeadAnchor

        for chain in self._chains:
            anchor, _ = HeadAnchor.deploy(chain, self._origin)
            self._anchors.append(anchor)
            self._push(anchor, head)

    def _push(self, anchor: HeadAnchor, head: VerifiedHead) -> None:
        from api.chain.anchors import push_head

        pushed = self._clock.time(
            "server",
            f"anchor the head in a contract on chain {anchor.contract.chain.chain_id}",
            lambda: push_head(anchor, head, self._server.consistency),
        )
        if pushed.receipt is not None:
            self._gas.append(pushed.receipt.gas_used)

    # -- lies ----------------------------------------------------------------------------------------------------------

    def _lie(self, head: VerifiedHead) -> list[Caught]:
        say("\nThe server turns crooked; it still has the log's key")
        entries = ledger_entries(self._server)
        witnesses = clients_of(TlogPolicy.parse(self._policy))
        return [
            self._caught(lie, head, witnesses, entries)
            for lie in lies(self._signer, entries, head, self._state / "mirror", self._state / "lies")
        ]

    def _caught(self, lie: Lie, head: VerifiedHead, witnesses: list[WitnessClient], entries: list[bytes]) -> Caught:
        """What each watcher says. Witnesses and contracts see heads, not files."""
        by = {"monitor": self._monitored(lie), "fsck": _checked(lie, self._trusted, head)}
        if lie.signed:
            by["witness"] = self._ask_witnesses(witnesses, head, lie)
        if lie.signed and self._anchors:
            by["contract"] = self._contract(lie, entries)
        say(f"  it {lie.what}")
        for who, check in by.items():
            say(f"    {who}: {check or 'NOTICES NOTHING'}")
        return Caught(lie.name, lie.what, by, tuple(who for who, check in by.items() if not check))

    def _ask_witnesses(self, witnesses: list[WitnessClient], head: VerifiedHead, lie: Lie) -> str:
        """What both say when they are asked to cosign; "" if one of them does."""
        size = min(head.size, lie.head.size)
        with Log.on(LogPlace.parse(f"tiles:{lie.folder}").open_readonly(), self._trusted.verifier) as log:
            proof = log.consistency_proof(size)
        replies = [witness.add_checkpoint(size, proof, lie.head.note) for witness in witnesses]
        if any(reply.signature is not None for reply in replies):
            return ""
        known = {reply.known_size for reply in replies}
        return f"knows {known.pop()} entries" if known != {None} else replies[0].reason.partition(" (")[0]

    def _monitored(self, lie: Lie) -> str:
        """The finding of a monitor that had seen the honest log at the place where the lie is shown now."""
        shown = self._state / "shown"
        shutil.rmtree(shown, ignore_errors=True)
        shutil.copytree(self._state / "mirror", shown)
        with open_tiles(str(shown)) as view:
            monitor = Monitor([view], self._trusted, self._state / "monitor")
            before = monitor.check()
            if before.findings or before.unreachable:
                raise RuntimeError(f"the monitor refused the honest log: {before}")
        shutil.rmtree(shown)
        shutil.copytree(lie.folder, shown)
        with open_tiles(str(shown)) as view:
            found = Monitor([view], self._trusted, self._state / "monitor").check(whole=True)
        self._evidence += [str(one.evidence) for one in found.findings if one.convicts and one.evidence is not None]
        return found.findings[0].check if found.findings else ""

    def _contract(self, lie: Lie, honest: list[bytes]) -> str:
        """Why every contract refuses the lie's head, with whatever proof the lie has; "" if one takes it."""
        from ledger.errors import ChainRefused

        with Log.on(LogPlace.parse(f"tiles:{lie.folder}").open_readonly(), self._trusted.verifier) as log:
            proof = log.consistency_proof(min(len(honest), lie.head.size))
        reasons = []
        for anchor in self._anchors:
            try:
                anchor.advance(lie.head, proof)
            except ChainRefused as error:
                reasons.append(error.detail.partition(": ")[2])
            else:
                return ""
        return reasons[0]


def _checked(lie: Lie, trusted: TrustedLog, head: VerifiedHead) -> str:
    """What fsck says of the lie's files, from the head that the auditor checked before where it needs one."""

    with open_tiles(str(lie.folder)) as tiles:
        for since in (None, KnownTree(head.size, head.root)):
            try:
                fsck(tiles.fetch, str(trusted.verifier), since=since)
            except (LedgerError, PrivacyError) as error:
                return str(getattr(error, "check", type(error).__name__))
    return ""
