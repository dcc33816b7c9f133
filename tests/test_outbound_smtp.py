"""Mail goes out through the same guard: real SMTP servers over real sockets."""

import contextlib
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from pulsewatch import outbound as outbound_module
from pulsewatch.outbound import AddressBlocked, Outbound, Security, Unreachable

LOOPBACK = (ip_network("127.0.0.1/32"),)
MAIL = b"Subject: s\r\n\r\nbody\r\n"


class Mailbox:
    """Keeps what arrives: recipients, text, whether it came over TLS, and how the other side called itself."""

    def __init__(self) -> None:
        self.mails: list[tuple[list[str], bytes, bool, str | None]] = []

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 (aiosmtpd's)
        assert isinstance(envelope.content, bytes)
        self.mails.append((envelope.rcpt_tos, envelope.content, session.ssl is not None, session.host_name))
        return "250 kept"

    async def handle_RCPT(  # noqa: N802 (aiosmtpd's)
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if address.startswith("nobody"):
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 fine"


@contextlib.contextmanager
def mail_server(**options: Any) -> Iterator[tuple[int, Mailbox]]:
    mailbox = Mailbox()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    controller = Controller(mailbox, hostname="127.0.0.1", port=port, **options)
    controller.start()
    try:
        yield port, mailbox
    finally:
        controller.stop()


@contextlib.contextmanager
def saying(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of a server that does as `talk` says with its first connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    talk(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ssl.SSLContext]]:
    """Makes the context of a server for these names, by an authority that this process trusts."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    outbound_module._tls.cache_clear()

    def make(*names: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*names).configure_cert(context)
        return context

    yield make
    outbound_module._tls.cache_clear()


def send(port: int, security: Security = "none", host: str = "127.0.0.1", to: str = "b@example.org") -> None:
    with Outbound(LOOPBACK).smtp(host, port, security=security, timeout_s=5) as smtp:
        smtp.sendmail("a@example.org", [to], MAIL)


def test_a_mail_arrives() -> None:
    with mail_server() as (port, mailbox):
        send(port)
    assert mailbox.mails == [(["b@example.org"], MAIL, False, "[127.0.0.1]")]


def test_a_mail_arrives_over_starttls(certificate: Callable[..., ssl.SSLContext]) -> None:
    with mail_server(tls_context=certificate("127.0.0.1"), require_starttls=True) as (port, mailbox):
        send(port, "starttls")
    assert [is_tls for _, _, is_tls, _ in mailbox.mails] == [True]


def test_a_mail_arrives_over_tls(certificate: Callable[..., ssl.SSLContext]) -> None:
    with mail_server(ssl_context=certificate("127.0.0.1")) as (port, mailbox):
        send(port, "tls")
    assert len(mailbox.mails) == 1


@pytest.mark.parametrize(("security", "option"), [("starttls", "tls_context"), ("tls", "ssl_context")])
def test_a_certificate_for_another_name_is_refused(
    certificate: Callable[..., ssl.SSLContext],
    monkeypatch: pytest.MonkeyPatch,
    security: Security,
    option: str,
) -> None:
    """Checked is the name that was asked for, not the address that it led to."""
    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]
    with mail_server(**{option: certificate("127.0.0.1")}) as (port, mailbox):
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(*answer[0][:4], ("127.0.0.1", port))])
        with pytest.raises(Unreachable, match=r"^The certificate of mail.example is not accepted: Hostname mismatch"):
            send(port, security, "mail.example")
    assert mailbox.mails == []


@pytest.mark.parametrize(("security", "option"), [("starttls", "tls_context"), ("tls", "ssl_context")])
@pytest.mark.usefixtures("certificate")
def test_a_certificate_of_an_unknown_authority_is_refused(security: Security, option: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    told = r"^The certificate of 127.0.0.1 is not accepted: unable to get local"
    with mail_server(**{option: context}) as (port, mailbox), pytest.raises(Unreachable, match=told):
        send(port, security)
    assert mailbox.mails == []


def test_a_server_that_offers_no_starttls_gets_no_mail() -> None:
    with mail_server() as (port, mailbox), pytest.raises(smtplib.SMTPNotSupportedError):
        send(port, "starttls")
    assert mailbox.mails == []


def test_what_the_server_answers_is_told_as_it_is() -> None:
    with mail_server() as (port, _), pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        send(port, to="nobody@example.org")
    assert refused.value.recipients == {"nobody@example.org": (550, b"no such user")}


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.2", "10.0.0.1", "169.254.169.254", "0.0.0.0", "::1", "::ffff:127.0.0.2", "64:ff9b::a00:1", "[::1]"),  # noqa: S104
        *("2130706434", "0x7f.2", "127.2", "127.0.0.2.", "user@127.0.0.1", "127.0.0.1:25", "a\r\nb", "", "fe80::1%lo"),
    ],
)
@pytest.mark.parametrize("security", ["none", "starttls", "tls"])
def test_a_tricky_host_is_refused(host: str, security: Security) -> None:
    with pytest.raises(AddressBlocked):
        send(2525, security, host)


@pytest.mark.parametrize("port", [22, 53, 5432, 6379])
def test_a_port_of_another_protocol_is_refused(port: int) -> None:
    with pytest.raises(AddressBlocked, match=f"^Port {port} is not open to alert channels.$"):
        send(port)


def test_a_server_that_is_not_there_may_be_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Unreachable, match=rf"^127.0.0.1:{port} takes no connection \(Connection refused\).$"):
        send(port)


def test_a_server_that_drips_its_greeting_is_cut_at_the_deadline() -> None:
    def talk(connection: socket.socket) -> None:
        connection.settimeout(0.02)
        while True:
            connection.sendall(b"2")
            with contextlib.suppress(TimeoutError):
                if not connection.recv(1):
                    return

    with saying(talk) as port:
        started = time.monotonic()
        with (
            pytest.raises(Unreachable, match=r"^There was no answer within 0.4 s.$"),
            Outbound(LOOPBACK).smtp("127.0.0.1", port, security="none", timeout_s=0.4),
        ):
            pytest.fail("it has not said hello")
        assert 0.35 < time.monotonic() - started < 5


def test_a_greeting_without_end_is_cut() -> None:
    def talk(connection: socket.socket) -> None:
        while True:
            connection.sendall(b"220-" + b"x" * 1000 + b"\r\n")

    with saying(talk) as port, pytest.raises(Unreachable, match=rf"^The connection to 127.0.0.1:{port} broke.$"):
        send(port)


def test_a_server_that_turns_us_away_says_so_itself() -> None:
    with saying(lambda connection: connection.sendall(b"421 busy\r\n")) as port:
        with pytest.raises(smtplib.SMTPConnectError) as busy:
            send(port)
        assert busy.value.smtp_code == 421


def test_what_was_said_before_tls_is_not_believed_after_it(certificate: Callable[..., ssl.SSLContext]) -> None:
    """Somebody between could put answers behind the go-ahead; they are thrown away with the open connection."""
    context = certificate("127.0.0.1")

    def talk(connection: socket.socket) -> None:
        connection.sendall(b"220 hello\r\n")
        connection.recv(1000)
        connection.sendall(b"250-here\r\n250 STARTTLS\r\n")
        connection.recv(1000)
        connection.sendall(b"220 go\r\n250-injected\r\n250 AUTH PLAIN\r\n")
        with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as inner:
            inner.recv(1000)
            inner.sendall(b"250 inside\r\n")
            inner.recv(1000)
            inner.sendall(b"221 bye\r\n")

    with (
        saying(talk) as port,
        Outbound(LOOPBACK).smtp("127.0.0.1", port, security="starttls", timeout_s=5) as smtp,
    ):
        assert (smtp.ehlo_resp, smtp.has_extn("auth")) == (b"inside", False)
