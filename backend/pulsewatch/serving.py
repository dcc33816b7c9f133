"""How uvicorn serves the api.

It writes the head of an answer and its body one after the other, and each write is a system call that wakes the client.
Where a request is one event, two of these cost as much as all the rest of HTTP: here an answer leaves in one piece.
"""

import asyncio
import contextlib
import gc
import socket
from collections.abc import Callable
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Longer than proxies and clients commonly keep an idle connection: they hang up, not we on them.
KEEP_ALIVE_S = 75
SHUTDOWN_S = 10
# A batch makes thousands of objects, all free again by their counts; looking for cycles among them at the usual rate
# costs a fifth of this process's time.
GC_THRESHOLDS = (50_000, 20, 50)


def configured(build: str | Callable[[], Any]) -> uvicorn.Config:
    """How an application is served: `build` makes it, or names what does."""
    return uvicorn.Config(
        build,
        factory=True,
        loop="uvloop",
        http=OneWriteProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody asks where a request came from
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )


def serve(listener: socket.socket) -> bool:
    """Serve `pulsewatch.asgi` on a listening socket until SIGTERM or SIGINT; False if it could not start."""
    gc.set_threshold(*GC_THRESHOLDS)
    server = uvicorn.Server(configured("pulsewatch.asgi:build"))
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    return server.started


class _Gathering:
    """What uvicorn needs of a transport; what is written in one turn of the loop is sent at the end of it, at once."""

    __slots__ = (
        "_call_soon",
        "_parts",
        "_transport",
        "get_extra_info",
        "is_closing",
        "pause_reading",
        "resume_reading",
    )

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._call_soon = loop.call_soon
        self._parts: list[bytes] = []
        self.get_extra_info = transport.get_extra_info
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            data = b"".join(self._parts)
            self._parts.clear()
            self._transport.write(data)


class OneWriteProtocol(HttpToolsProtocol):
    """uvicorn's own, on such a transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base does
        super().connection_made(cast("asyncio.Transport", _Gathering(transport, self.loop)))
