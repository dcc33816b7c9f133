"""Whom the demo tells of its alerts: a web server on this machine that shows what arrives.

It is what a user's own receiver would be: it checks the signature, and knows a message that comes again by its id.
"""

import html
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hmac import compare_digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from uuid import UUID

from pydantic import BaseModel

from pulsewatch.channels.base import Message, MessageStatus
from pulsewatch.channels.webhook import signed_headers

HOOK = "/hook"
LATEST = 100
TOLERANCE_S = 300
MAX_BYTES = 1_000_000


class _Body(BaseModel):
    """What of a webhook's body is read."""

    pulsewatch: Message


class Refused(Exception):
    """It is not from this PulseWatch."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message as it came in. `channel` is the end of the path."""

    at: datetime
    channel: str
    message: Message

    @property
    def line(self) -> str:
        """In one line for the terminal."""
        said = self.message
        state = "TEST" if said.is_test else said.status.upper()
        about = f"[{said.rule}, {said.reason}, to {self.channel}]"
        return f"{self.at:%H:%M:%S}  {state:8}  {said.level:8}  {said.summary}  {about}"


def read(headers: Mapping[str, str], body: bytes, secret: str, now_s: float) -> Message:
    """The message, after https://www.standardwebhooks.com; headers in lower case. Raises Refused or ValueError."""
    id_, sent = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not (sent.isascii() and sent.isdigit()) or abs(now_s - int(sent)) > TOLERANCE_S:
        msg = "it was sent at another time"
        raise Refused(msg)
    expected = signed_headers(id_, int(sent), body, [secret])["webhook-signature"]
    given = headers.get("webhook-signature", "").split()
    if not any(compare_digest(expected.encode(), one.encode()) for one in given):
        msg = "the signature is wrong"
        raise Refused(msg)
    return _Body.model_validate_json(body).pulsewatch


class Receiver:
    """Listens from entering the block to leaving it, on `port` if it is free. `say` is called with a line a message."""

    def __init__(self, secret: str, port: int, say: Callable[[str], None]) -> None:
        self._secret = secret
        self._say = say
        self._lock = threading.Lock()
        self._latest: deque[Arrived] = deque(maxlen=LATEST)
        self._known: deque[UUID] = deque(maxlen=10 * LATEST)
        try:
            self._server = _Server(("127.0.0.1", port), _handler(self))
        except OSError:
            self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, name="demo-receiver", daemon=True)

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def hook(self) -> str:
        """Where channels lead, with the name of the channel behind it."""
        return self.url + HOOK

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def take(self, path: str, headers: Mapping[str, str], body: bytes) -> None:
        """Take a message in, unless it came before. Raises Refused or ValueError."""
        message = read(headers, body, self._secret, time.time())
        arrived = Arrived(datetime.now(UTC), path.removeprefix(HOOK).strip("/"), message)
        with self._lock:
            if message.notification_id in self._known:
                return
            self._known.append(message.notification_id)
            self._latest.appendleft(arrived)
            self._say(arrived.line)

    @property
    def latest(self) -> list[Arrived]:
        """The newest messages first."""
        with self._lock:
            return list(self._latest)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """Whoever asked may be gone."""


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 30

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not (self.path.startswith(f"{HOOK}/") and length.isdigit() and int(length) <= MAX_BYTES):
                self._answer(404, "text/plain", b"channels post to /hook/NAME\n")
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            try:
                receiver.take(self.path, headers, self.rfile.read(int(length)))
            except Refused as error:
                self._answer(401, "text/plain", f"{error}\n".encode())
                return
            except ValueError:
                self._answer(400, "text/plain", b"it is no message\n")
                return
            self._answer(204)

        def do_GET(self) -> None:
            if self.path == "/":
                self._answer(200, "text/html; charset=utf-8", page(receiver.latest).encode())
            elif self.path == "/messages":
                self._answer(200, "application/json", messages(receiver.latest))
            else:
                self._answer(404, "text/plain", b"there are / and /messages\n")

        def _answer(self, status: int, kind: str = "text/plain", body: bytes = b"") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """What matters is said by `say`."""

    return Handler


def messages(latest: list[Arrived]) -> bytes:
    """As JSON: when each came, to which channel, and what PulseWatch says of the alert."""
    items = [
        {"arrived_at": one.at.isoformat(), "channel": one.channel, "message": one.message.model_dump(mode="json")}
        for one in latest
    ]
    return json.dumps({"items": items}).encode()


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="refresh" content="3">
<title>Messages of the demo</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: #1f2430; background: #fff; }
table { border-collapse: collapse; }
th, td { text-align: left; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid #d8dbe2; vertical-align: top; }
td:nth-child(-n+4) { white-space: nowrap; }
.critical { color: #b3261e; } .warning { color: #8a5a00; } .resolved { color: #1b6e3c; }
</style>
<h1>What the demo's channels are told</h1>
<p>Newest first, signatures checked. <a href="/messages">As JSON</a>.</p>
<table>
<tr><th>Arrived (UTC)<th>Channel<th>Status<th>Rule<th>What
%s
</table>
%s
</html>
"""


def page(latest: list[Arrived]) -> str:
    """For a browser."""
    empty = "" if latest else "<p>Nothing yet. A stream will fail within a few minutes.</p>"
    return PAGE % ("\n".join(map(_row, latest)), empty)


def _row(arrived: Arrived) -> str:
    said = arrived.message
    is_over = said.status is MessageStatus.RESOLVED
    status = "resolved" if is_over else f"{said.level} ({said.reason})"
    cells = (
        f"{arrived.at:%Y-%m-%d %H:%M:%S}",
        html.escape(arrived.channel),
        f'<span class="{"resolved" if is_over else said.level}">{status}</span>',
        html.escape(said.rule_title),
        html.escape(said.summary),
    )
    return "<tr>" + "".join(f"<td>{cell}" for cell in cells)
