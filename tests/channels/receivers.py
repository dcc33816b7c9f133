"""The far end: a web server and a mail server on loopback that keep what they get."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from pulsewatch.outbound import Outbound

LOOPBACK = ip_network("127.0.0.0/8")


def outbound() -> Outbound:
    """The way out, with loopback opened."""
    return Outbound(allow=[LOOPBACK])


def closed_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


@dataclass(frozen=True)
class Got:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """A web server; `answer` is what the next requests get."""

    url: str = ""
    answer: tuple[int, Mapping[str, str], bytes] = (200, {}, b"ok")
    got: list[Got] = field(default_factory=list)


@contextlib.contextmanager
def web_server() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.got.append(Got(self.path, headers, body))
            status, told, text = receiver.answer
            self.send_response(status)
            for name, value in {**told, "Content-Length": str(len(text))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_port}/hook"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Mailed:
    """A mail as it was handed over."""

    sender: str
    recipients: list[str]
    raw: bytes

    @property
    def mail(self) -> EmailMessage:
        mail = message_from_bytes(self.raw, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        return mail

    def part(self, kind: str) -> str:
        """The text of a part, plain or html, with the line ends of Python."""
        part = self.mail.get_body((kind,))
        assert part is not None
        return str(part.get_content()).replace("\r\n", "\n")


@dataclass
class Postbox:
    """A mail server; the answers are what the next mails get."""

    port: int = 0
    to_sender: str = "250 ok"
    to_recipient: dict[str, str] = field(default_factory=dict)
    to_data: str = "250 ok"
    users: dict[bytes, bytes] = field(default_factory=dict)
    got: list[Mailed] = field(default_factory=list)
    logins: list[bytes] = field(default_factory=list)

    async def handle_MAIL(  # noqa: N802 (aiosmtpd asks for it by this name)
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return self.to_sender

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        said = self.to_recipient.get(address, "250 ok")
        if said.startswith("250"):
            envelope.rcpt_tos.append(address)
        return said

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.to_data.startswith("250"):
            assert envelope.mail_from is not None
            assert isinstance(envelope.original_content, bytes)
            self.got.append(Mailed(envelope.mail_from, envelope.rcpt_tos, envelope.original_content))
        return self.to_data

    def authenticate(self, _server: SMTP, _session: Session, _envelope: Envelope, _how: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append(data.login)
        return AuthResult(success=self.users.get(data.login) == data.password, handled=False)


class AnyPort(Controller):
    """On a port that the system picks, of which the library would not know."""

    def _trigger_server(self) -> None:
        assert isinstance(self.server, asyncio.Server)
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call]  # untyped in aiosmtpd


@contextlib.contextmanager
def mail_server(**options: Any) -> Iterator[Postbox]:
    """options: of aiosmtpd's SMTP, such as tls_context."""
    postbox = Postbox()
    controller = AnyPort(postbox, "127.0.0.1", 0, authenticator=postbox.authenticate, **options)
    controller.start()
    postbox.port = controller.port
    try:
        yield postbox
    finally:
        controller.stop()
