"""Two servers on one data folder and one ledger in PostgreSQL: both may be asked, one leads, the other takes over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from api.client.clinic import Clinic
from api.client.owner import Owner
from api.client.transport import Server
from api.service import Service
from api.settings import Settings
from ledger.errors import LogLocked
from privacy.models.linear import LinearModel
from tests.support.bundles import PATIENTS, SCHEMA
from tests.support.postgres import TestServer, postgres
from tests.support.service import RunningServer, listening

__all__ = ["postgres"]

MODEL = LinearModel("heart", np.array([[0.02, 0.0, 0.9]]), np.array([-0.25]), ("risk",), "logit", SCHEMA)


class Twins:
    """Two running servers, the first of which leads."""

    def __init__(self, data: Path, ledger: str) -> None:
        self._settings: dict[str, Any] = {"ledger": ledger}
        self._data = data
        self._stacks = [ExitStack(), ExitStack()]
        self.servers: list[RunningServer] = []
        for stack in self._stacks:
            self.servers.append(stack.enter_context(listening(data, **self._settings)))

    def stop(self, number: int) -> None:
        self._stacks[number].close()


@pytest.fixture
def twins(postgres: TestServer, tmp_path: Path) -> Iterator[Twins]:
    made = Twins(tmp_path / "data", postgres.address().shown)  # without a password nothing is left out
    yield made
    for number in (0, 1):
        made.stop(number)


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def test_what_is_logged_at_one_is_seen_at_the_other(twins: Twins, tmp_path: Path) -> None:
    first, second = twins.servers
    with first.owner(tmp_path / "owner") as owner:
        owner.publish(MODEL, version="1")
    with second.clinic(tmp_path / "clinic") as clinic:
        records = clinic.submit(SCHEMA.cohort(PATIENTS, [f"p{i}" for i in range(5)]), model="heart")
        scores = clinic.predict(records, "heart", timeout=120)
        assert np.abs(scores.raw.reveal_raw() - MODEL.predict_raw(PATIENTS)).max() <= float(scores.error_bounds[0])
    notes = {Server(server.url).checkpoint() for server in twins.servers}
    assert len(notes) == 1
    twins.stop(0)
    with Clinic.open(tmp_path / "clinic", second.url) as clinic:  # the second leads now
        scores = clinic.predict(records, "heart", timeout=120)
        assert len(scores.ids) == 5


def test_parties_that_register_at_both_at_once_are_all_logged_once(twins: Twins, tmp_path: Path) -> None:
    def register(number: int) -> None:
        server = twins.servers[number % 2]
        with Owner.init(tmp_path / f"owner-{number}", server.url, f"lab-{number}", log_key=server.log_key):
            pass

    threads = [threading.Thread(target=register, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    size = Server(twins.servers[0].url).checkpoint().split(b"\n")[1]
    assert size == b"9", "the server's own entry and eight parties"


def test_one_name_is_given_once_whoever_is_asked(twins: Twins, tmp_path: Path) -> None:
    outcomes: list[str] = []

    def register(number: int) -> None:
        server = twins.servers[number % 2]
        try:
            with Owner.init(tmp_path / f"owner-{number}", server.url, "the-lab", log_key=server.log_key):
                outcomes.append("registered")
        except OSError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=register, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("registered") == 1
    assert all("party.name" in o or "'the-lab' is entry" in o for o in outcomes if o != "registered"), outcomes


def test_nodes_are_told_to_ask_the_one_that_leads(twins: Twins, tmp_path: Path) -> None:
    from api.client.transport import ServerRefused

    with twins.servers[0].owner(tmp_path / "owner") as owner:
        identity = owner.session.identity
    follower = Server(twins.servers[1].url, identity, retries=0)
    with pytest.raises(ServerRefused, match="another process of this server matches the nodes"):
        follower.offers(None, "dealer.example:7200", bytes(32), 0)
    leader = Server(twins.servers[0].url, identity)
    assert leader.offers(None, "dealer.example:7200", bytes(32), 0) == []


def test_a_ledger_in_a_file_has_one_server(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data")
    service = Service(settings)
    try:
        with pytest.raises(LogLocked):
            Service(settings)
    finally:
        service.close()
    Service(settings).close()


def test_the_address_of_the_database_is_not_shown(twins: Twins) -> None:
    for server in twins.servers:
        for path in ("/v1/health", "/log/checkpoint", "/openapi.json"):
            assert "postgres" not in httpx.get(f"{server.url}{path}").text
