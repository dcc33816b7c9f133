"""The only way out to the network for what PulseWatch sends on its own: HTTP by requests, mail by SMTP.

Where a message goes is written by users, who may not be those who run PulseWatch. So every connection, that of a
redirect too, is made by `dial`, to an address that was judged. No proxy, no .netrc, no cookies. The time of a request
is one deadline over all of it, however slowly bytes drip in.

No error carries a path, a query or a header: they may be secrets.
"""

import contextlib
import functools
import logging
import smtplib
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, BinaryIO, Literal, cast
from urllib.parse import urljoin, urlsplit

import certifi
import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from pulsewatch import __version__
from pulsewatch.addresses import MAIL_PORTS, NO_PORTS, Guard, Network
from pulsewatch.dialing import AddressBlocked, Deadline, Unreachable, dial

__all__ = ["AddressBlocked", "Outbound", "Reply", "Security", "Unreachable"]

MAX_REDIRECTS = 3
MAX_BODY_BYTES = 64 * 1024
MAX_SMTP_BYTES = 256 * 1024
# To another origin nothing goes that could be a password or be held to be signed for it.
KEPT_ACROSS_ORIGINS = frozenset({"accept", "content-type", "user-agent", "webhook-id"})

Security = Literal["none", "starttls", "tls"]

# urllib3 logs paths, also those of answers that it cannot parse; that of a Slack webhook is its password.
logging.getLogger("urllib3").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, whatever its status. Names of headers are found in any case; the body is cut at MAX_BODY_BYTES."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Outbound:
    """Reaches public addresses, and the networks of `allow`. It keeps no connection; threads may share it."""

    def __init__(self, allow: Sequence[Network] = ()) -> None:
        self._guard = Guard(tuple(allow))

    def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None, timeout_s: float
    ) -> Reply:
        """The answer to one request. Raises AddressBlocked, Unreachable.

        At most MAX_REDIRECTS redirects are followed: 307 and 308 with the same method and body; 301, 302 and 303 for
        GET and HEAD alone, since they turn a POST into a GET that carries nothing; none from https to http. One that is
        not followed is the answer. Where the deadline cuts the body after the status came, what came is the answer:
        the other side has taken the request, and sending it again would tell people twice.
        """
        with Deadline(timeout_s) as deadline:
            for hops_left in range(MAX_REDIRECTS, -1, -1):
                answer = self._exchange(method, url, headers, body, hops_left, deadline)
                if isinstance(answer, Reply):
                    return answer
                if _origin(answer) != _origin(url):
                    headers = {name: value for name, value in headers.items() if name.lower() in KEPT_ACROSS_ORIGINS}
                url = answer
        raise AssertionError  # the last turn returns

    @contextlib.contextmanager
    def smtp(self, host: str, port: int, *, security: Security, timeout_s: float) -> Iterator[smtplib.SMTP]:
        """A connection to a mail server that has said hello, and speaks TLS unless `security` is "none".

        The certificate is checked against `host`. timeout_s is the time of the whole block. Raises AddressBlocked,
        and Unreachable also for a connection that breaks within the block; what the server answers raises the errors
        of smtplib.
        """
        if not host:
            raise AddressBlocked("The mail server has no name.")
        with Deadline(timeout_s) as deadline:
            connect = functools.partial(dial, guard=self._guard, closed=NO_PORTS, deadline=deadline)
            try:
                connection = _Mail(host, port, security == "tls", connect, deadline)
            except (smtplib.SMTPServerDisconnected, OSError) as error:
                raise _broken(error, f"{host}:{port}") from None
            try:
                connection.ehlo_or_helo_if_needed()
                if security == "starttls":
                    with _tls_errors(host):
                        connection.starttls(context=_tls("mail"))
                    connection.ehlo()
                yield connection
                with contextlib.suppress(OSError):
                    connection.quit()  # the mail is sent by then
            except (smtplib.SMTPServerDisconnected, OSError) as error:
                raise _broken(error, f"{host}:{port}") from None
            finally:
                connection.close()

    def _exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        hops_left: int,
        deadline: Deadline,
    ) -> Reply | str:
        """One hop: the answer, or the address of the redirect that is to be followed."""
        given = {
            "User-Agent": f"PulseWatch/{__version__}",
            "Accept": "*/*",
            "Accept-Encoding": "identity",  # what is packed could unpack to more than we read
            "Connection": "close",
            **headers,
        }
        try:
            for value in given.values():
                value.encode("latin-1")  # all that a header can hold
            prepared = requests.Request(method, _checked(url), headers=given, data=body).prepare()
            url = _checked(str(prepared.url))
        except (requests.RequestException, ValueError):
            raise AddressBlocked("The address, the method or a header is not of a form that can be sent.") from None
        _, host, port = _origin(url)
        connect = functools.partial(dial, guard=self._guard, closed=NO_PORTS | MAIL_PORTS, deadline=deadline)
        try:
            # Not by a session: it would read the body of a redirect to its end.
            with _Adapter(connect).send(prepared, stream=True, timeout=deadline.left_s()) as response:
                target = _redirect(response, method, url) if hops_left else None
                return target or Reply(response.status_code, response.headers, _read(response.raw))
        except (requests.RequestException, HTTPError, HTTPException, OSError):
            raise Unreachable(f"{host}:{port} did not answer as HTTP demands.") from None


# -- addresses -----------------------------------------------------------------------------------------------------


def _checked(url: str) -> str:
    """The URL, if it is one that may be asked for. Raises AddressBlocked, ValueError."""
    if not url.isprintable() or any(sign in url for sign in " \\"):
        raise AddressBlocked("The address holds a space, a backslash or a character that cannot be seen.")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise AddressBlocked("The address does not begin with https:// or http://.")
    if "@" in parts.netloc:
        raise AddressBlocked("The address carries a user or a password.")
    if parts.hostname is None or parts.port == 0:
        raise AddressBlocked("The address names no host, or port 0.")
    return url


def _origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL. Raises AddressBlocked."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise AddressBlocked("The address is not of a form that can be read.") from None


def _redirect(response: requests.Response, method: str, url: str) -> str | None:
    """Where the answer leads, if it is a redirect that is to be followed. Raises AddressBlocked."""
    location = response.headers.get("location")
    keeps = response.status_code in (307, 308)
    changes = response.status_code in (301, 302, 303) and method.upper() in ("GET", "HEAD")
    if location is None or not (keeps or changes):
        return None
    try:
        # As requests does it: headers are read as Latin-1, what they hold is UTF-8.
        target = urljoin(url, location.encode("latin-1").decode())
    except ValueError:
        raise AddressBlocked("It redirects to what is no address.") from None
    is_downgrade = urlsplit(url).scheme == "https" and _origin(target)[0] != "https"
    return None if is_downgrade else target


# -- HTTP ----------------------------------------------------------------------------------------------------------

Dial = Callable[[str, int], socket.socket]


class _Adapter(HTTPAdapter):
    """Connects by `dial`, and keeps certificates to our own context instead of what requests would set."""

    def __init__(self, dial: Dial) -> None:
        super().__init__()
        self._dial = dial

    def get_connection_with_tls_context(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> Any:
        scheme, host, port = _origin(str(request.url))
        pool: HTTPConnectionPool
        if scheme == "https":
            pool = HTTPSConnectionPool(host, port, ssl_context=_tls("web"))
            pool.ConnectionCls = cast("Any", functools.partial(_Tls, self._dial))
        else:
            pool = HTTPConnectionPool(host, port)
            pool.ConnectionCls = cast("Any", functools.partial(_Plain, self._dial))
        return pool

    def cert_verify(self, *_: Any, **__: Any) -> None:
        """The context checks certificates and host names already."""


class _Plain(HTTPConnection):
    def __init__(self, dial: Dial, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._dial = dial

    def _new_conn(self) -> socket.socket:
        return self._dial(self._dns_host, int(self.port or 0))


class _Tls(HTTPSConnection):
    def __init__(self, dial: Dial, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._dial = dial

    def _new_conn(self) -> socket.socket:
        return self._dial(self._dns_host, int(self.port or 0))

    def connect(self) -> None:
        with _tls_errors(self.host):
            super().connect()


@functools.cache
def _tls(_purpose: Literal["web", "mail"]) -> ssl.SSLContext:
    """The authorities that the system trusts, or SSL_CERT_FILE names, and those that come with requests.

    One for each purpose, because urllib3 writes into its own that it speaks HTTP.
    """
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


@contextlib.contextmanager
def _tls_errors(host: str) -> Iterator[None]:
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise Unreachable(f"The certificate of {host} is not accepted: {error.verify_message}.") from None
    except ssl.SSLError as error:
        raise Unreachable(f"{host} does not speak TLS as it should ({error.reason or 'broken off'}).") from None


def _read(raw: Any) -> bytes:
    """The body as it came, packed or not, up to MAX_BODY_BYTES, or as far as it came before the connection broke."""
    body = b""
    with contextlib.suppress(HTTPError, HTTPException, OSError):
        while len(body) < MAX_BODY_BYTES:
            part = raw.read1(MAX_BODY_BYTES - len(body), decode_content=False)
            if not part:
                break
            body += part
    return body


# -- mail ----------------------------------------------------------------------------------------------------------


class _Mail(smtplib.SMTP):
    """smtplib's connection, made by `dial`; with TLS from the start if `is_tls`."""

    def __init__(self, host: str, port: int, is_tls: bool, dial: Dial, deadline: Deadline) -> None:
        self._dial, self._is_tls = dial, is_tls
        # A name is given, because smtplib would look up this machine's own.
        super().__init__(host, port, local_hostname="localhost", timeout=deadline.left_s())
        assert self.sock is not None  # noqa: S101 (for mypy: it is connected)
        here = self.sock.getsockname()[0]
        self.local_hostname = f"[IPv6:{here}]" if ":" in here else f"[{here}]"

    def _get_socket(self, host: str, port: int, _timeout: float) -> socket.socket:
        connection = self._dial(host, port)
        if not self._is_tls:
            return connection
        try:
            with _tls_errors(host):
                return _tls("mail").wrap_socket(connection, server_hostname=host)
        except BaseException:
            connection.close()
            raise

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock is not None:
            self.file = _Capped(self.sock.makefile("rb"))
        return super().getreply()


class _Capped:
    """What a mail server says, up to MAX_SMTP_BYTES: an answer may have lines without end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = MAX_SMTP_BYTES
        self.close = file.close

    def readline(self, limit: int) -> bytes:
        line = self._file.readline(min(limit, self._left))
        self._left -= len(line)
        # A line without its end was cut off with the connection: half an answer is none.
        return line if line.endswith(b"\n") or len(line) == limit else b""


def _broken(error: Exception, where: str) -> Exception:
    """What to raise for an error in the talk with a mail server: its answers as they are, all else as Unreachable."""
    if isinstance(error, smtplib.SMTPException) and not isinstance(error, smtplib.SMTPServerDisconnected):
        return error
    return Unreachable(f"The connection to {where} broke.")
