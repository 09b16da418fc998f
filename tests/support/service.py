"""The real service for tests of clients: in this process, or behind a real socket."""

from __future__ import annotations

import socket
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from api.client.clinic import Clinic
from api.client.owner import Owner

URL = "http://testserver"


@dataclass(frozen=True)
class RunningServer:
    """A service and what its operator tells its users: the address and the key of its log."""

    url: str
    log_key: str
    client: Any

    def owner(self, folder: Path, name: str = "heart-lab") -> Owner:
        return Owner.init(folder, self.url, name, log_key=self.log_key, client=self.client)

    def clinic(self, folder: Path, name: str = "st-anna") -> Clinic:
        return Clinic.init(folder, self.url, name, log_key=self.log_key, client=self.client)


def _application(data: Path, settings: dict[str, Any]) -> Any:
    from api.app import create_app
    from api.settings import Settings

    return create_app(Settings(data=data, **settings))


@contextmanager
def running(data: Path, **settings: Any) -> Iterator[RunningServer]:
    """In this process."""
    with warnings.catch_warnings():
        # starlette asks for another HTTP library in its test client; the service itself does not use it.
        warnings.simplefilter("ignore")
        from starlette.testclient import TestClient

        with TestClient(_application(data, settings), base_url=URL, raise_server_exceptions=False) as client:
            yield RunningServer(URL, client.get("/v1/health").json()["log_key"], client)


@contextmanager
def listening(data: Path, **settings: Any) -> Iterator[RunningServer]:
    """Behind a real socket on this machine, with uvicorn in a thread."""
    with on_a_socket(_application(data, settings)) as url:
        yield RunningServer(url, httpx.get(f"{url}/v1/health").json()["log_key"], None)


def free_port() -> int:
    """A port of this machine where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def on_a_socket(application: Any, port: int = 0) -> Iterator[str]:
    """The address of an application that uvicorn serves in a thread, on `port` or any free one."""
    import uvicorn

    port = port or free_port()
    config = uvicorn.Config(application, host="127.0.0.1", port=port, log_level="critical", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("uvicorn did not start")
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)
