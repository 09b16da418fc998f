"""A clinic, an owner, a dealer and both nodes against the real service: sessions in this process, over loopback.

Networks are linear, so that no CrypTen is needed and a whole session takes a fifth of a second. A test says what the
server offers, what a node sends instead of what it should, and where it breaks.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.client.clinic import Clinic, PredictionRequest, SubmittedRecords
from api.client.http_answers import JobState, Offer
from api.client.owner import Owner
from api.client.session import LocatedModel
from api.entries import Policy, Suspension
from api.mpc import node as nodes
from api.mpc.dealer_process import DealerClient, DealerServer
from api.mpc.link import Address, LinkChannel, parse_address
from api.mpc.mirror import Mirror
from api.mpc.node import Node, NodeDealer
from api.mpc.nodes import node_of_clinic, node_of_owner
from privacy.models.linear import LinearModel
from tests.support.bundles import PATIENTS, SCHEMA
from tests.support.service import RunningServer

Role = Literal["A", "B"]
ROLES: Final[tuple[Role, Role]] = ("A", "B")
IDS: Final = ("p-40", "p-71", "p-55", "p-18", "p-90")
RISK = LinearModel("risk", np.array([[0.02, -0.05, 0.9]]), np.array([-0.25]), ("risk",), "logit", SCHEMA)
ANY: Final = parse_address("127.0.0.1:0")

Tap = Callable[["TappedLink", str, bytes], bytes | None]
"""What a node sends of a frame: bytes, nothing (None), or whatever it does to the link itself; it may raise."""

_NUMBERS = itertools.count(1)


class TappedLink:
    """A link that keeps what its node sends, and lets a test change it."""

    def __init__(self, link: LinkChannel, tap: Tap | None) -> None:
        self.link = link
        self.tap = tap
        self.frames: list[tuple[str, bytes]] = []

    def send(self, label: str, data: bytes) -> None:
        self.frames.append((label, data))
        changed = data if self.tap is None else self.tap(self, label, data)
        if changed is not None:
            self.link.send(label, changed)

    @property
    def timeout(self) -> float:
        return self.link.timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self.link.timeout = seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self.link, name)


def at(wanted: str, act: Callable[[TappedLink, bytes], bytes | None]) -> Tap:
    """A tap that acts on the first frame of one label."""
    acted: list[str] = []

    def tap(link: TappedLink, label: str, data: bytes) -> bytes | None:
        if label != wanted or acted:
            return data
        acted.append(label)
        return act(link, data)

    return tap


class Died(Exception):
    """What ends a node in these tests, in the midst of its work."""


def die(link: TappedLink, data: bytes) -> None:
    link.close()
    raise Died("the node died")


@dataclass
class Ended:
    """How a session ended: for each node an error or None; `links` are their connections, if they had one."""

    request: PredictionRequest
    errors: dict[Role, Exception | None]
    links: dict[Role, TappedLink]

    @property
    def checks(self) -> tuple[str | None, str | None]:
        """The names of what failed."""
        return getattr(self.errors["A"], "check", None), getattr(self.errors["B"], "check", None)


@dataclass
class Pair:
    """A clinic and an owner with a model, records, and a node each."""

    server: RunningServer
    clinic: Clinic
    owner: Owner
    model: LocatedModel
    records: SubmittedRecords
    dealer: DealerServer
    nodes: dict[Role, Node]
    stall: float = 20.0
    links: dict[Role, TappedLink] = field(default_factory=dict)
    taps: dict[Role, Tap] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for role, node in self.nodes.items():
            self._tap(role, node)

    def _tap(self, role: Role, node: Node) -> None:
        honest = node._connect

        def connect(offer: Offer, key: bytes) -> Any:
            link = honest(offer, key)
            link.timeout = self.stall
            self.links[role] = TappedLink(link, self.taps.get(role))
            return self.links[role]

        node._connect = connect  # type: ignore[method-assign]

    def replace_node(self, role: Role, node: Node) -> None:
        """Another node in this part, as after a restart."""
        self.nodes[role].close()
        self.nodes[role] = node
        self._tap(role, node)

    # -- sessions -----------------------------------------------------------------------------------------------------

    def ask(self) -> PredictionRequest:
        return self.clinic.request(self.records, self.model)

    def offers(self, request: PredictionRequest) -> dict[Role, Offer]:
        """What the server offers to both nodes for this request."""
        self.nodes["B"]._offers(0)
        return {role: self.offer(role, request) for role in ROLES}

    def offer(self, role: Role, request: PredictionRequest) -> Offer:
        (found,) = [offer for offer in self.nodes[role]._offers(0) if offer.job == request.job]
        return found

    def meet(self, request: PredictionRequest, offers: dict[Role, Offer]) -> Ended:
        """Each node does what it is offered."""
        self.links.clear()
        errors: dict[Role, Exception | None] = {}

        def side(role: Role) -> None:
            errors[role] = self.nodes[role].do(offers[role])

        threads = [threading.Thread(target=side, args=(role,), name=f"node-{role}") for role in offers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return Ended(request, {role: errors.get(role) for role in ROLES}, dict(self.links))

    def session(self) -> Ended:
        request = self.ask()
        return self.meet(request, self.offers(request))

    def breaks(self, **taps: Tap) -> Ended:
        """A session in which nodes A or B send other things than they should."""
        self.taps = dict(taps)  # type: ignore[arg-type]
        try:
            return self.session()
        finally:
            self.taps = {}

    # -- what is left -------------------------------------------------------------------------------------------------

    def state(self, request: PredictionRequest) -> JobState:
        """The job, once it has ended."""
        deadline = time.monotonic() + 30
        while (state := self.clinic.state(request)).state not in ("done", "failed"):
            assert time.monotonic() < deadline, f"the job is still {state.state}"
            time.sleep(0.02)
        return state

    def suspended_here(self) -> dict[Role, list[str]]:
        """The reasons that each node keeps itself."""
        return {role: [found.reason for found in node.suspensions.list()] for role, node in self.nodes.items()}

    def suspended_there(self) -> dict[str, list[str]]:
        """The reasons on the ledger, by who wrote them; open ones only."""
        mirror = Mirror(self.clinic.session)
        mirror.follow(self.clinic.session.server.checkpoint())
        parties = (self.clinic.session.identity.party, self.owner.session.identity.party)
        assert None not in parties
        found: dict[str, list[str]] = {}
        for logged in mirror.registry.suspension_of(*(party.index for party in parties if party)):
            assert isinstance(logged.body, Suspension)
            author = mirror.registry.author_of(logged.reference.index).body.role
            found.setdefault(author, []).append(logged.body.reason)
        return found

    def predictions(self) -> int:
        """Joint predictions on the ledger about this pair's records."""
        from api.entries import JointPrediction

        mirror = Mirror(self.owner.session)
        mirror.follow(self.owner.session.server.checkpoint())
        found = mirror.registry.all(JointPrediction)
        return sum(prediction.body.records == self.records.reference for prediction in found)

    def check_open(self) -> None:
        """Nobody is suspended, and the next prediction works."""
        assert self.suspended_here() == {"A": [], "B": []}
        assert self.suspended_there() == {}
        ended = self.session()
        assert ended.errors == {"A": None, "B": None}
        scores = self.clinic.open_bundle(self.clinic.fetch(ended.request, timeout=30), ended.request)
        assert np.abs(scores.raw.reveal_raw() - RISK.predict_raw(PATIENTS)).max() <= float(scores.error_bounds[0])

    def check_suspended(self, *words: str) -> None:
        """Both nodes refuse, and the ledger says why, in the words of both."""
        here, there = self.suspended_here(), self.suspended_there()
        assert all(len(reasons) == 1 for reasons in here.values()), here
        assert set(there) == {"clinic", "owner"}, there
        for word in words:
            assert any(word in reason for reasons in here.values() for reason in reasons), here
            assert any(word in reason for reasons in there.values() for reason in reasons), there


@contextmanager
def pair_of(
    server: RunningServer,
    folder: Path,
    *,
    policy: Policy | None = None,
    exposure_cap: Fraction | None = None,
    pair_timeout: float = 2.0,
) -> Iterator[Pair]:
    """A new clinic, a new owner and a new dealer. Nodes are made and do not run by themselves."""
    number = next(_NUMBERS)
    with ExitStack() as stack:
        owner = server.owner(folder / f"owner-{number}", f"lab-{number}")
        model = owner.publish(RISK, version="1", scheme="mpc")
        clinic = Clinic.init(
            folder / f"clinic-{number}",
            server.url,
            f"st-{number}",
            log_key=server.log_key,
            ckks=False,
            client=server.client,
        )
        stack.callback(owner.close)
        stack.callback(clinic.close)
        records = clinic.submit(SCHEMA.cohort(PATIENTS, IDS), model, policy=policy)
        key = Ed25519PrivateKey.generate()
        dealer = stack.enter_context(DealerServer(ANY, key, pair_timeout=pair_timeout))
        dealer.start()
        known = NodeDealer(Address("127.0.0.1", dealer.port), key.public_key().public_bytes_raw())
        made: dict[Role, Node] = {
            "A": node_of_clinic(clinic, known),
            "B": node_of_owner(owner, known, ANY, exposure_cap=exposure_cap),
        }
        pair = Pair(server, clinic, owner, model, records, dealer, made)
        stack.callback(lambda: [node.close() for node in pair.nodes.values()])
        yield pair


def be_quick(patch: pytest.MonkeyPatch, seconds: float = 2.0) -> None:
    """Nodes wait for each other, and for the dealer, for seconds instead of half a minute."""
    patch.setattr(nodes, "_CONNECT_SECONDS", seconds)

    def client(*arguments: Any) -> DealerClient:
        return DealerClient(*arguments, pair_timeout=seconds, timeout=10.0)

    patch.setattr(nodes, "DealerClient", client)
