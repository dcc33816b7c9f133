"""The load generator: HTTP/1.1 over raw sockets, in a process of its own.

Requests are encoded before the clock starts and answers are barely looked at, so it takes little of the machine that
it shares with what it measures; how much is reported (`cpu_s`).
"""

import asyncio
import itertools
import random
import re
import select
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import psycopg
import uvloop

END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Timing:
    """What one side of one round took."""

    elapsed_s: float
    latencies_s: tuple[float, ...]
    cpu_s: float


def encode_request(method: str, path: str, key: str, body: bytes = b"") -> bytes:
    """A whole request; the connection stays open after it."""
    head = f"{method} {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key}\r\n"
    if body:
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time; opened anew where the server has closed it while idle."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._received = bytearray()
        self._answer: asyncio.Future[None] | None = None
        self._transport: asyncio.WriteTransport | None = None
        self.lock = asyncio.Lock()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # TCP transports write

    async def open(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", self._port)

    async def send(self, request: bytes) -> None:
        """Send and wait for the whole answer. Raises RuntimeError where it is not a 200.

        A server may close an idle connection in the very moment in which the request leaves: then it is sent again,
        as any client does. The time that this takes counts.
        """
        try:
            await self._send(request)
        except ConnectionError:
            self._transport = None
            await self._send(request)

    async def _send(self, request: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            self._received.clear()
            await self.open()
        self._answer = asyncio.get_running_loop().create_future()
        if self._transport is not None:
            self._transport.write(request)
        await self._answer

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        head = received.find(END_OF_HEAD)
        if head < 0 or self._answer is None or self._answer.done():
            return
        at = received.find(b"content-length: ")
        length = int(received[at + 16 : received.find(b"\r", at)])
        if len(received) < head + len(END_OF_HEAD) + length:
            return
        if received[9:12] == b"200":
            self._answer.set_result(None)
        else:
            self._answer.set_exception(RuntimeError(bytes(received[:2000]).decode(errors="replace")))
        received.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the server hung up"))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def send_all(port: int, requests: Sequence[bytes], connections: int, ending: bytes) -> Timing:
    """Send the requests over so many connections, each sending its next one as soon as it has its answer.

    No event loop and no HTTP library stands between this and the kernel: what the generator takes, the server lacks.
    Raises RuntimeError for an answer other than a 200 with this ending.
    """
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    by_number = {one.fileno(): one for one in sockets}
    poll = select.epoll()
    waiting = iter(requests)
    received: dict[int, bytes] = dict.fromkeys(by_number, b"")
    sent_at: dict[int, float] = {}
    latencies: list[float] = []
    now, cpu_s, started_at = time.perf_counter, time.process_time(), time.perf_counter()

    def send_next(number: int) -> None:
        request = next(waiting, None)
        if request is None:
            sent_at.pop(number, None)
        else:
            sent_at[number] = now()
            by_number[number].sendall(request)

    for one in sockets:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(one, select.EPOLLIN)
        send_next(one.fileno())
    while sent_at:
        for number, _ in poll.poll():
            part = by_number[number].recv(65536)
            answer = received[number] + part
            if answer.endswith(ending) and answer[9:12] == b"200":
                received[number] = b""
                latencies.append(now() - sent_at[number])
                send_next(number)
            elif not part or _is_whole(answer):
                raise RuntimeError(answer[:2000].decode(errors="replace") or "the server hung up")
            else:
                received[number] = answer
    timing = Timing(now() - started_at, tuple(latencies), time.process_time() - cpu_s)
    poll.close()
    for one in sockets:
        one.close()
    return timing


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(END_OF_HEAD)
    length = re.search(rb"content-length: (\d+)", head)
    return bool(end) and (length is None or len(body) >= int(length[1]))


def send_paced(port: int, requests: Sequence[bytes], connections: int, per_second: float, count: int) -> Timing:
    """Send `count` requests at random moments, together `per_second`, the connections taking turns.

    A latency counts from the moment at which the request was due, so a server that stalls is not spared.
    """
    return uvloop.run(_send_paced(port, requests, connections, per_second, count))


async def _send_paced(port: int, requests: Sequence[bytes], connections: int, per_second: float, count: int) -> Timing:
    opened = await _open(port, connections)
    chance = random.Random(1)  # noqa: S311 - load, not secrets
    latencies: list[float] = []

    async def ask(connection: Connection, request: bytes, due_at: float) -> None:
        async with connection.lock:  # a user who still waits asks later, and the wait counts
            await connection.send(request)
        latencies.append(time.perf_counter() - due_at)

    async def pace() -> None:
        turns = itertools.cycle(opened)
        due_at = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                due_at += chance.expovariate(per_second)
                await asyncio.sleep(max(0.0, due_at - time.perf_counter()))
                group.create_task(ask(next(turns), chance.choice(requests), due_at))

    try:
        return await _timed(pace, latencies)
    finally:
        for connection in opened:
            connection.close()


async def _open(port: int, count: int) -> list[Connection]:
    connections = [Connection(port) for _ in range(count)]
    # A few at a time: a backlog that overflows would cost seconds.
    for first in range(0, count, 50):
        await asyncio.gather(*(connection.open() for connection in connections[first : first + 50]))
    return connections


async def _timed(work: Callable[[], Awaitable[object]], latencies: list[float]) -> Timing:
    cpu_s, started_at = time.process_time(), time.perf_counter()
    await work()
    return Timing(time.perf_counter() - started_at, tuple(latencies), time.process_time() - cpu_s)


# Kept open until this process ends: the CPU time of a server process that has just ended is missing for a moment.
_writers: dict[str, psycopg.Connection] = {}


def copy_all(dsn: str, statement: str, blocks: Sequence[bytes]) -> Timing:
    """One writer: COPY block after block, a commit after each."""
    writer = _writers.get(dsn) or _writers.setdefault(dsn, psycopg.connect(dsn))
    latencies: list[float] = []
    cpu_s, started_at = time.process_time(), time.perf_counter()
    for block in blocks:
        sent_at = time.perf_counter()
        with writer.cursor().copy(statement.encode()) as copy:
            copy.write(block)
        writer.commit()
        latencies.append(time.perf_counter() - sent_at)
    return Timing(time.perf_counter() - started_at, tuple(latencies), time.process_time() - cpu_s)
