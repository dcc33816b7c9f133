"""The real server as a process of its own, and a relay through which a test can cut the line to PostgreSQL."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Self
from uuid import UUID

import httpx
import psycopg
import uvicorn
from sqlalchemy.engine import make_url

from pulsewatch.asgi import build
from pulsewatch.auth import Role, create_key
from pulsewatch.db import make_engine
from pulsewatch.serving import configured
from pulsewatch.settings import PREFIX, Settings
from pulsewatch.telemetry import App, Message

BACKEND = Path(__file__).resolve().parent.parent / "backend"
DEADLINE_S = 60.0


def wait_until(condition: Callable[[], object], what: str, *, deadline_s: float = DEADLINE_S) -> None:
    """Ask again and again until it holds. Raises AssertionError past the deadline."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def make_key(dsn: str, role: Role = Role.INGEST, client: str | None = None) -> tuple[UUID, dict[str, str]]:
    """A fresh key's id, and the header to send it in."""
    engine = make_engine(dsn, pool_size=1, application_name="tests")
    try:
        with engine.begin() as connection:
            key_id, key = create_key(connection, role, client)
    finally:
        engine.dispose()
    return key_id, {"Authorization": f"Bearer {key}"}


def scalar(dsn: str, query: str) -> int:
    """The one number that a query gives."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def is_ingest_waiting(dsn: str) -> bool:
    """Whether a transaction of ingestion waits for a lock."""
    waiting = "application_name = 'pulsewatch ingest' and wait_event_type = 'Lock'"
    return scalar(dsn, f"select count(*) from pg_stat_activity where datname = current_database() and {waiting}") > 0


class Server:
    """A running api process."""

    def __init__(self, dsn: str, settings: dict[str, object]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        environment |= {"PYTHONPATH": str(BACKEND), f"{PREFIX}DATABASE_URL": dsn, f"{PREFIX}LOG_LEVEL": "warning"}
        environment |= {PREFIX + name.upper(): str(value) for name, value in settings.items()}
        command = (sys.executable, "-m", "pulsewatch", "api", "--port", str(self.port))
        self.process = subprocess.Popen(command, env=environment)

    def wait_until_healthy(self) -> None:
        def is_healthy() -> bool:
            assert self.process.poll() is None, f"the server ended with code {self.process.returncode}"
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"{self.url}/healthz").status_code == 200
            return False

        wait_until(is_healthy, "the server is healthy")

    def kill(self) -> None:
        """End it as the kernel would, without a chance to do anything."""
        self.process.kill()
        self.process.wait(DEADLINE_S)

    def terminate(self) -> int:
        """Ask it to end; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)


@contextlib.asynccontextmanager
async def running(app: App) -> AsyncIterator[None]:
    """Tell an application in this process that the server starts and, after the block, that it stops."""
    told: asyncio.Queue[Message] = asyncio.Queue()
    said: asyncio.Queue[Message] = asyncio.Queue()
    living = asyncio.ensure_future(app({"type": "lifespan", "asgi": {"version": "3.0"}}, told.get, said.put))
    await told.put({"type": "lifespan.startup"})
    assert (await said.get())["type"] == "lifespan.startup.complete"
    yield
    await told.put({"type": "lifespan.shutdown"})
    assert (await said.get())["type"] == "lifespan.shutdown.complete"
    await living


@contextlib.contextmanager
def serve(dsn: str, **settings: object) -> Iterator[Server]:
    """A server on a free port against this database; it is gone after the block."""
    server = Server(dsn, settings)
    try:
        server.wait_until_healthy()
        yield server
    finally:
        if server.process.poll() is None:
            try:
                server.terminate()
            except subprocess.TimeoutExpired:
                server.kill()
                raise


@contextlib.contextmanager
def serve_here(dsn: str) -> Iterator[str]:
    """A server in a thread of this process, which is there at once: its address."""
    settings = Settings.model_validate({"database_url": dsn, "log_level": "warning"})
    server = uvicorn.Server(configured(lambda: build(settings)))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_until(lambda: server.started or not thread.is_alive(), "the server takes requests")
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


class Relay:
    """A relay in front of PostgreSQL that can withhold the answer to what commits, or be down altogether.

    Only connections of ingestion are tampered with; those of keys and reads pass.
    """

    def __init__(self, dsn: str) -> None:
        url = make_url(dsn)
        assert url.host is not None
        assert url.port is not None
        self._target = (url.host, url.port)
        self._port = free_port()
        self.dsn = url.set(host="127.0.0.1", port=self._port).render_as_string(hide_password=False)
        self._listener: socket.socket | None = None
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self.withholds = False
        self.withheld = threading.Event()  # an answer to what commits has come and was not passed on

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def open(self) -> None:
        """Take connections."""
        listener = socket.create_server(("127.0.0.1", self._port), backlog=64)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def cut(self) -> None:
        """Break all connections, and refuse new ones."""
        with self._lock:
            listener, self._listener = self._listener, None
            pairs, self._pairs = self._pairs, []
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for pair in pairs:
            for end in pair:
                _close(end)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            with self._lock:
                if self._listener is not listener:
                    _close(near)
                    _close(far)
                    return
                self._pairs.append((near, far))
            line = _Line(self, near, far)
            threading.Thread(target=line.ask, daemon=True).start()
            threading.Thread(target=line.answer, daemon=True).start()


class _Line:
    """One connection through the relay."""

    def __init__(self, relay: Relay, near: socket.socket, far: socket.socket) -> None:
        self._relay, self._near, self._far = relay, near, far
        self._is_ingest = False
        self._is_in_transaction = False  # else each statement commits by itself
        self._is_committing = False

    def ask(self) -> None:
        with contextlib.suppress(OSError):
            while said := self._near.recv(65536):
                self._is_ingest = self._is_ingest or b"application_name\0pulsewatch ingest\0" in said
                if b"BEGIN" in said:
                    self._is_in_transaction = True
                elif not self._is_in_transaction or said.endswith(b"COMMIT\0"):
                    self._is_committing = self._is_ingest and self._relay.withholds
                    self._is_in_transaction = False
                self._far.sendall(said)
        _close(self._far)

    def answer(self) -> None:
        with contextlib.suppress(OSError):
            while said := self._far.recv(65536):
                if self._is_committing:
                    self._relay.withheld.set()
                    continue
                self._near.sendall(said)
        _close(self._near)


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
