"""Connections to addresses that were judged, under a deadline.

The name of a host is looked up once, each address that it has is judged, and the connection is made to a judged one,
never to the name: a name that answers otherwise a moment later gains nothing.
"""

import contextlib
import queue
import socket
import threading
import time
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Self

from pulsewatch.addresses import Guard, parse_host
from pulsewatch.settings import PREFIX

CONNECT_TIMEOUT_S = 5.0


class AddressBlocked(Exception):
    """It may not be sent there, or not like this. Trying again changes nothing."""


class Unreachable(Exception):
    """There was no answer. Another try may succeed."""


class Deadline:
    """Cuts the connections made under it once the time is over.

    Timeouts of a socket hold for each read, so a byte a second would keep one busy for ever.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._is_over = False
        self._ends_at = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._held: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            for connection in self._held:
                connection.close()
            self._held.clear()
        # Whatever broke first when the time was over: that it was over is what there is to tell.
        if isinstance(error, Unreachable) and time.monotonic() >= self._ends_at:
            raise self.missed() from None

    def missed(self) -> Unreachable:
        return Unreachable(f"There was no answer within {self.seconds:g} s.")

    def left_s(self) -> float:
        """Seconds that are left, more than 0. Raises Unreachable."""
        left = self._ends_at - time.monotonic()
        if left <= 0:
            raise self.missed()
        return left

    def hold(self, connection: socket.socket) -> None:
        """Cut this connection in time. A second handle on it: TLS takes the first away from whoever holds it."""
        with self._lock:
            self._held.append(connection.dup())
        if self._is_over:
            self._cut()

    def _cut(self) -> None:
        self._is_over = True
        with self._lock:
            for connection in self._held:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


def dial(host: str, port: int, guard: Guard, closed: frozenset[int], deadline: Deadline) -> socket.socket:
    """A connection to an address of the host that the guard lets pass; `closed` are ports that it never goes to.

    It is cut when the deadline is over. Raises AddressBlocked, Unreachable.
    """
    if port in closed:
        raise AddressBlocked(f"Port {port} is not open to alert channels.")
    found = look_up(host, port, deadline)
    judged = [(guard.objection(ip_address(where[0])), family, where) for family, where in found]
    failure = "has no address"
    for objection, family, where in judged:
        if objection is not None:
            continue
        try:
            return _connect(family, where, deadline)
        except TimeoutError:
            failure = f"took no connection within {CONNECT_TIMEOUT_S:g} s"
        except OSError as error:
            failure = f"takes no connection ({error.strerror or error})"
    objections = [objection for objection, _, _ in judged if objection is not None]
    if objections and len(objections) == len(judged):
        raise AddressBlocked(f"{host} is or leads to {objections[0]}. {PREFIX}OUTBOUND_ALLOW can open it.")
    raise Unreachable(f"{host}:{port} {failure}.")


def _connect(family: int, where: tuple[Any, ...], deadline: Deadline) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(min(CONNECT_TIMEOUT_S, deadline.left_s()))
        connection.connect(where)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(deadline.left_s())
        deadline.hold(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def look_up(host: str, port: int, deadline: Deadline) -> list[tuple[int, tuple[Any, ...]]]:
    """Family and socket address of each address of the host, looked up once. Raises AddressBlocked, Unreachable."""
    try:
        known = parse_host(host.strip("[]"))
    except ValueError as error:
        raise AddressBlocked(f"The host {host!r:.100} {error}.") from None
    if not isinstance(known, str):
        family = socket.AF_INET if known.version == 4 else socket.AF_INET6
        return [(family, (str(known), port))]
    answers: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(socket.getaddrinfo(known, port, type=socket.SOCK_STREAM))
        except Exception as error:  # told by who waits
            answers.put(error)

    # In a thread, because nothing can interrupt a look-up. The resolver ends it in the end.
    threading.Thread(target=ask, daemon=True, name="outbound-look-up").start()
    try:
        answer = answers.get(timeout=deadline.left_s())
    except queue.Empty:
        raise deadline.missed() from None
    if isinstance(answer, Exception):
        raise Unreachable(f"{host} could not be looked up ({getattr(answer, 'strerror', None) or answer}).") from None
    return [(family, where) for family, _, _, _, where in answer]
