"""Serving an application over HTTP from a command, which says where as soon as it listens."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final

__all__ = ["serve_app"]

_SHUTDOWN_SECONDS: Final = 5
"""How long requests may finish when the server is stopped; nodes that wait for work would wait longer."""


def serve_app(app: Any, host: str, port: int, connections: int, announce: Callable[[str], None]) -> None:
    """Serve `app` until the process is stopped; port 0 takes a free one. `announce` is told the address.

    Beyond `connections` at a time others get 503, so that bodies of requests cannot fill the memory.
    """
    import uvicorn

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                taken = self.servers[0].sockets[0].getsockname()[1]
                announce(f"http://{f'[{host}]' if ':' in host else host}:{taken}")

    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        limit_concurrency=connections,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    Announcing(config).run()
