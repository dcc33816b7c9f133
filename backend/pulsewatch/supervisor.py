"""`pulsewatch up`: the database, the api and the worker on one machine, under one process.

The listening socket belongs to this process, so an api that is restarted refuses no connection. The children hold
the read end of a pipe: when this process dies, however it dies, the pipe closes and they stop. They also inherit the
lock on the data folder, so that the next start waits until the last of them has gone.
"""

import contextlib
import fcntl
import http.client
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from pulsewatch.embedded import EmbeddedPostgres
from pulsewatch.migrate import migrate
from pulsewatch.secretbox import key_setting
from pulsewatch.settings import Settings, export

log = logging.getLogger(__name__)

READY_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20
ORPHAN_GRACE_S = 10  # how long a child whose parent died may take to finish what it has begun
TURN_S = 0.1
BACKOFF_S = (0.5, 30.0)
STEADY_AFTER_S = 60  # a child that ran so long starts over with the shortest pause
DEATHS_BEFORE_READY = 3


class UpError(Exception):
    """PulseWatch cannot be started; the message names the cure."""


@dataclass(slots=True)
class Child:
    """One supervised process, which is started again whenever it ends."""

    name: str
    arguments: tuple[str, ...]
    keep_open: tuple[int, ...]
    process: subprocess.Popen[bytes] | None = None
    deaths: int = 0
    started: float = 0.0
    next_start: float = 0.0
    pause_s: float = field(default=BACKOFF_S[0])

    def tend(self) -> None:
        """Start it if it does not run and its pause is over."""
        now = time.monotonic()
        if self.process is not None and (code := self.process.poll()) is not None:
            log.warning("%s ended with code %s; it is started again", self.name, code)
            self.process = None
            self.deaths += 1
            steady = now - self.started > STEADY_AFTER_S
            self.pause_s = BACKOFF_S[0] if steady else min(self.pause_s * 2, BACKOFF_S[1])
            self.next_start = now + self.pause_s
        if self.process is None and now >= self.next_start:
            # A session of its own: Ctrl-C reaches this process alone, which then stops the children in order.
            self.process = subprocess.Popen(
                (sys.executable, "-m", "pulsewatch", *self.arguments),
                pass_fds=self.keep_open,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            self.started = now

    def stop(self) -> None:
        """Ask it to end, and make it end if it does not."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            log.warning("%s does not stop; it is killed", self.name)
            self.process.kill()
            self.process.wait()


class Stack:
    """A running PulseWatch: its addresses, and `turn`, which must be called again and again to keep it so."""

    def __init__(self, url: str, dsn: str, children: list[Child], embedded: EmbeddedPostgres | None) -> None:
        self.url = url
        self.dsn = dsn
        self.children = children
        self._embedded = embedded

    def turn(self) -> None:
        """Bring back whatever has died, and sleep a moment."""
        if self._embedded is not None and self._embedded.pid() is None and self._embedded.revive():
            log.warning("the embedded PostgreSQL had died; it is started again")
        for child in self.children:
            child.tend()
        time.sleep(TURN_S)

    def is_ready(self) -> bool:
        """Whether /ready answers 200."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=2)
        try:
            connection.request("GET", "/ready")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def wait_until_ready(self, is_over: Callable[[], bool]) -> None:
        """Returns once requests are taken, or once `is_over`. Raises UpError."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not is_over():
            self.turn()
            if self.is_ready():
                return
            dying = [child.name for child in self.children if child.deaths >= DEATHS_BEFORE_READY]
            if dying or time.monotonic() > deadline:
                msg = f"PulseWatch does not get ready: {' and '.join(dying) or 'see the lines'} above"
                raise UpError(msg)


class Signals:
    """SIGTERM and SIGINT as a question that is asked between steps. The second one interrupts the step."""

    def __init__(self) -> None:
        self.received = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def is_over(self) -> bool:
        return self.received

    def _receive(self, _number: int, _frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = True


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[Stack]:
    """Everything started, on the data folder or the database that is set; stopped when the block ends.

    The stack is ready once `wait_until_ready` has returned. Raises UpError, EmbeddedError, MigrateError.
    """
    with contextlib.ExitStack() as exits:
        embedded, keep_open = None, []
        if settings.database_url is None:
            # A database of the user's own may serve several machines: the lock is for the embedded one alone.
            embedded = EmbeddedPostgres(settings)
            embedded.prepare_folder()
            keep_open.append(exits.enter_context(_only_one(embedded.folder)))
            listener = exits.enter_context(listen(settings.host, settings.port))
            dsn = exits.enter_context(embedded)
        else:
            listener = exits.enter_context(listen(settings.host, settings.port))
            dsn = settings.database_url.get_secret_value()
        migrate(dsn, settings)
        export({"database_url": dsn, **key_setting(settings)})
        alive, ours = os.pipe()
        exits.callback(os.close, ours)
        exits.callback(os.close, alive)
        keep_open.append(alive)
        parent, inherited = ("--parent", str(alive)), ("--socket", str(listener.fileno()))
        api = Child("api", ("api", *parent, *inherited), (*keep_open, listener.fileno()))
        worker = Child("worker", ("worker", *parent), tuple(keep_open))
        for child in (worker, api):
            exits.callback(child.stop)
        yield Stack(_url(listener), dsn, [worker, api], embedded)


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[int]:
    """Hold the data folder's lock, which names the process that holds it."""
    descriptor = os.open(folder / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take(descriptor, folder)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _take(descriptor: int, folder: Path) -> None:
    """Take the lock; wait for the children of one that was killed, but not for one that runs."""
    deadline = time.monotonic() + ORPHAN_GRACE_S + 5
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            holder = os.pread(descriptor, 20, 0).decode() or "0"
            if _is_alive(int(holder)) or time.monotonic() > deadline:
                msg = f"PulseWatch already runs on {folder} (process {holder}); stop it, or choose another --data-dir"
                raise UpError(msg) from error
            time.sleep(TURN_S)


def _is_alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UpError where the address cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        msg = f"cannot listen on {host} port {port}: {error.strerror or error}; choose another --port or --host"
        raise UpError(msg) from error
    return listener


def _url(listener: socket.socket) -> str:
    """Where a person on this machine reaches it."""
    host, port = listener.getsockname()[:2]
    local = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - a comparison
    return f"http://{local.get(host, f'[{host}]' if ':' in host else host)}:{port}"


def die_with_parent(pipe: int) -> None:
    """In a child: end in an orderly way when the process that holds the other end of the pipe has gone."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            os.read(pipe, 1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(ORPHAN_GRACE_S)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
