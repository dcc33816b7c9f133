"""What goes out over HTTP: real sockets and servers; only the answers of the resolver are made up."""

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import trustme

from pulsewatch import outbound as outbound_module
from pulsewatch.outbound import MAX_BODY_BYTES, AddressBlocked, Outbound, Reply, Unreachable

LOOPBACK = (ip_network("127.0.0.1/32"),)
SECRET = "s3cret-path"
HEADERS = {
    "Authorization": "Bearer s3cret",
    "X-Api-Key": "s3cret",
    "Content-Type": "application/json",
    "webhook-id": "msg_1",
    "webhook-timestamp": "1",
    "webhook-signature": "v1,s3cret",
}


@dataclass
class Receiver:
    """A server that answers as `answer` says: status, headers, body; and notes what arrives."""

    host: str
    port: int = 0
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    @property
    def paths(self) -> list[str]:
        return [f"{method} {path}" for method, path, _, _ in self.requests]


@contextlib.contextmanager
def receiver(host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    seen = Receiver(host, scheme="https" if tls else "http")

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            seen.requests.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            status, headers, answer = seen.answers.get(self.path, (200, {}, b"ok"))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(answer)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(answer)

        do_GET = do_POST = do_HEAD = handle_any  # noqa: N815 (names that http.server looks for)

        def log_message(self, *_: Any) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None: ...  # who hangs up is the test's matter

    server = Server((host, port), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    seen.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def speaking(talk: Callable[[socket.socket], None]) -> Iterator[int]:
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
def here() -> Iterator[Receiver]:
    with receiver() as server:
        yield server


@pytest.fixture
def look_ups(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """Name to what the resolver answers, one list of addresses for each question; then it knows the name no more."""
    answers: dict[str, list[list[str]]] = {}

    def getaddrinfo(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        if not answers.get(host):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        families = {True: socket.AF_INET6, False: socket.AF_INET}
        return [(families[":" in a], socket.SOCK_STREAM, 6, "", (a, port)) for a in answers[host].pop(0)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return answers


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[trustme.CA]:
    """An authority that this process trusts, as a person would have it: by SSL_CERT_FILE."""
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    outbound_module._tls.cache_clear()
    yield made
    outbound_module._tls.cache_clear()


def server_tls(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def post(outbound: Outbound, url: str, timeout_s: float = 5.0) -> Reply:
    return outbound.request("POST", url, headers=HEADERS, body=b'{"a": 1}', timeout_s=timeout_s)


# -- what is let out -----------------------------------------------------------------------------------------------


def test_a_request_arrives_as_it_was_given_and_its_answer_comes_back(here: Receiver) -> None:
    here.answers["/hook?x=1"] = (202, {"Retry-After": "7", "X-Note": "n"}, b"taken")
    reply = post(Outbound(LOOPBACK), f"{here.url}/hook?x=1")
    assert (reply.status, reply.headers["retry-after"], reply.body) == (202, "7", b"taken")
    ((method, path, headers, body),) = here.requests
    assert (method, path, body) == ("POST", "/hook?x=1", b'{"a": 1}')
    assert {name: headers[name.lower()] for name in HEADERS} == HEADERS
    assert headers["host"] == f"127.0.0.1:{here.port}"
    assert headers["user-agent"].startswith("PulseWatch/")
    assert headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("status", [204, 400, 404, 410, 429, 500, 503])
def test_every_status_is_an_answer(here: Receiver, status: int) -> None:
    here.answers["/"] = (status, {}, b"")
    assert post(Outbound(LOOPBACK), here.url).status == status


def test_proxies_netrc_and_cookies_play_no_part(
    here: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    here.answers["/a"] = (307, {"Set-Cookie": "id=1", "Location": "/b"}, b"")
    outbound = Outbound(LOOPBACK)
    reply = outbound.request("GET", f"{here.url}/a", headers={}, timeout_s=5)
    assert reply.status == 200
    assert here.paths == ["GET /a", "GET /b"]
    assert all("cookie" not in headers and "authorization" not in headers for _, _, headers, _ in here.requests)


# -- what is not ---------------------------------------------------------------------------------------------------

BLOCKED = [
    # written out
    *("127.0.0.1", "127.0.0.2", "127.255.255.254", "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1"),
    "0.0.0.0",  # noqa: S104 (nothing is bound)
    *("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192", "198.18.0.1", "192.0.2.1"),
    *("192.88.99.1", "203.0.113.9", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"),
    # as numbers
    *(
        "2130706433",
        "2852039166",
        "0x7f000001",
        "0x7F.0.0.1",
        "0x7f.1",
        "017700000001",
        "0177.0.0.1",
        "127.1",
        "127.0.1",
    ),
    *("0", "00000", "127.0.0.01", "0x0", "4294967295", "127.0.0.1.", "127.0.0.1.."),
    # IPv6
    *(
        "[::]",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::ffff:a9fe:a9fe]",
    ),
    *("[64:ff9b::7f00:1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::1]", "[2002:7f00:1::]", "[2002:a9fe:a9fe::]"),
    *(
        "[2001:0:4136:e378:8000:63bf:3fff:fdd2]",
        "[2001:db8::1]",
        "[fc00::1]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "[ff02::1]",
    ),
    *("[fe80::1%25eth0]", "[fe80::1%eth0]", "[::1%25lo]", "[::1", "::1", "[v1.a]"),
    # letters that become digits, dots or other letters
    *(
        "①②⑦.⓪.⓪.①",
        "127。0。0。1",
        "127\uff0e0\uff0e0\uff0e1",
        "\uff11\uff12\uff17.0.0.1",
        "ⓛocalhost",
        "loc\u00adalhost",
    ),
    # names of this machine
    *("localhost", "LOCALHOST", "localhost.", "LocalHost"),
    # before and behind the host
    *("user@127.0.0.1", "user:password@127.0.0.1", "example.org@127.0.0.1", "example.org:80@127.0.0.1", "@127.0.0.1"),
    *("127.0.0.1\\@example.org", "127.0.0.1#@example.org", "127.0.0.1?@example.org", "127.0.0.1%00.example.org"),
    *(
        "127.0.0.1%2f.example.org",
        "example.org%0d%0a",
        "exa\r\nmple.org",
        "exa mple.org",
        "exa\tmple.org",
        "example.org\0",
    ),
    *("*", ".", "..", "-", "", ":80", "a..b", "x" * 64 + ".org", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:-1"),
    *("127.0.0.1:x", "[::1]x", "127.0.0.1:80:80"),
]
LOCAL = {"localhost": ["127.0.0.1", "::1"], "localhost.": ["127.0.0.1"]}


@pytest.mark.parametrize("host", BLOCKED)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_tricky_host_is_refused(look_ups: dict[str, list[list[str]]], scheme: str, host: str) -> None:
    look_ups |= {name: [addresses] * 9 for name, addresses in LOCAL.items()}
    look_ups |= {name.upper(): [addresses] * 9 for name, addresses in LOCAL.items()}
    with pytest.raises(AddressBlocked):
        post(Outbound(), f"{scheme}://{host}/{SECRET}")


def test_the_corpus_of_tricky_hosts_is_large() -> None:
    assert len(set(BLOCKED)) == len(BLOCKED) >= 60


@pytest.mark.parametrize(
    "url",
    [
        *(
            "file:///etc/passwd",
            "ftp://example.org/",
            "gopher://127.0.0.1:6379/_x",
            "dict://127.0.0.1:11211/",
            "ldap://x/",
        ),
        *("unix:///var/run/docker.sock", "http+unix://%2Fvar%2Frun%2Fdocker.sock/", "httpx://example.org", "data:,x"),
        *("javascript:alert(1)", "//example.org/", "example.org", "http:", "http:/example.org", "http:///x", "", "://"),
        *(" http://127.0.0.1/", "http://127.0.0.1/a b", "http://127.0.0.1/\r\nX: y", "http://127.0.0.1/\u2028"),
    ],
)
def test_what_is_no_web_address_is_refused(url: str) -> None:
    with pytest.raises(AddressBlocked):
        post(Outbound(LOOPBACK), url)


@pytest.mark.parametrize("port", [22, 25, 465, 587, 5432, 6379, 11211])
def test_a_port_of_another_protocol_is_refused_on_every_host(port: int) -> None:
    with pytest.raises(AddressBlocked, match=f"^Port {port} is not open to alert channels.$"):
        post(Outbound(LOOPBACK), f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize(
    ("name", "value"), [("X-A", "a\r\nX-B: c"), ("X-A", "a\nb"), ("X\r\nY", "a"), ("X-A", "ü\u2603")]
)
def test_a_header_that_would_become_two_is_refused(here: Receiver, name: str, value: str) -> None:
    with pytest.raises(AddressBlocked):
        Outbound(LOOPBACK).request("GET", here.url, headers={name: value}, timeout_s=5)
    assert here.requests == []


def test_a_name_is_judged_by_where_it_leads(look_ups: dict[str, list[list[str]]]) -> None:
    look_ups["inside.example"] = [["10.1.2.3"]]
    with pytest.raises(AddressBlocked) as blocked:
        post(Outbound(), f"http://inside.example/{SECRET}")
    assert str(blocked.value) == (
        "inside.example is or leads to a private address. PULSEWATCH_OUTBOUND_ALLOW can open it."
    )


def test_of_several_addresses_only_those_let_pass_are_tried(
    look_ups: dict[str, list[list[str]]], here: Receiver
) -> None:
    with receiver("127.0.0.2", here.port) as other:
        look_ups["both.example"] = [["127.0.0.2", "127.0.0.1"]]
        assert post(Outbound(LOOPBACK), f"http://both.example:{here.port}/").status == 200
        assert (len(here.requests), len(other.requests)) == (1, 0)
    assert here.requests[0][2]["host"] == f"both.example:{here.port}"


def test_a_name_that_leads_elsewhere_the_second_time_gains_nothing(
    look_ups: dict[str, list[list[str]]], here: Receiver
) -> None:
    """Allowed is what the first answer says; the second would lead to a server that is there and not allowed."""
    with receiver("127.0.0.2", here.port) as forbidden:
        look_ups["rebinding.example"] = [["127.0.0.1"], ["127.0.0.2"]]
        outbound = Outbound(LOOPBACK)
        assert post(outbound, f"http://rebinding.example:{here.port}/").status == 200
        assert look_ups["rebinding.example"] == [["127.0.0.2"]]  # it was asked for once
        with pytest.raises(AddressBlocked):
            post(outbound, f"http://rebinding.example:{here.port}/")
        assert (len(here.requests), len(forbidden.requests)) == (1, 0)


# -- redirects -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_that_keeps_the_method_is_followed_with_all_of_it(here: Receiver, status: int) -> None:
    here.answers["/a"] = (status, {"Location": "/b"}, b"")
    assert post(Outbound(LOOPBACK), f"{here.url}/a").status == 200
    (_, _, first, _), (method, path, second, body) = here.requests
    assert (method, path, body) == ("POST", "/b", b'{"a": 1}')
    assert second == first


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_that_would_drop_the_body_is_the_answer(here: Receiver, status: int) -> None:
    here.answers["/a"] = (status, {"Location": "/b"}, b"")
    assert post(Outbound(LOOPBACK), f"{here.url}/a").status == status
    assert here.paths == ["POST /a"]
    assert Outbound(LOOPBACK).request("GET", f"{here.url}/a", headers={}, timeout_s=5).status == 200
    assert here.paths == ["POST /a", "GET /a", "GET /b"]


def test_no_more_than_three_redirects_are_followed(here: Receiver) -> None:
    for number in range(9):
        here.answers[f"/{number}"] = (307, {"Location": f"/{number + 1}"}, b"")
    assert post(Outbound(LOOPBACK), f"{here.url}/0").status == 307
    assert here.paths == ["POST /0", "POST /1", "POST /2", "POST /3"]


def test_another_origin_gets_no_password_and_no_signature(here: Receiver) -> None:
    with receiver() as other:
        here.answers["/a"] = (307, {"Location": f"{other.url}/b"}, b"")
        assert post(Outbound(LOOPBACK), f"{here.url}/a").status == 200
    ((method, path, headers, body),) = other.requests
    assert (method, path, body) == ("POST", "/b", b'{"a": 1}')
    assert not {"authorization", "x-api-key", "webhook-signature", "webhook-timestamp"} & set(headers)
    assert (headers["content-type"], headers["webhook-id"]) == ("application/json", "msg_1")
    assert "s3cret" not in str(headers)


@pytest.mark.parametrize(
    "target",
    [
        *(
            "http://127.0.0.2:{port}/b",
            "http://169.254.169.254/latest/meta-data/",
            "http://[::1]:{port}/",
            "//10.0.0.1/",
        ),
        *("http://2130706433:{port}/", "http://localtest.example:{port}/", "file:///etc/passwd", "gopher://127.0.0.1/"),
        *("http://user:password@127.0.0.1:{port}/", "http://127.0.0.1:22/", "http://[::1", "http://127.0.0.1:x/"),
    ],
)
def test_a_redirect_from_an_allowed_server_is_judged_like_any_address(
    look_ups: dict[str, list[list[str]]], here: Receiver, target: str
) -> None:
    look_ups["localtest.example"] = [["127.0.0.2"]]
    with receiver("127.0.0.2", here.port) as forbidden:
        here.answers["/a"] = (307, {"Location": target.format(port=here.port)}, b"private")
        with pytest.raises(AddressBlocked):
            post(Outbound(LOOPBACK), f"{here.url}/a")
        assert (here.paths, forbidden.requests) == (["POST /a"], [])


# -- time and size -------------------------------------------------------------------------------------------------


def test_a_body_without_end_is_cut(here: Receiver) -> None:
    here.answers["/"] = (200, {}, b"x" * (5 * 1024 * 1024))
    assert post(Outbound(LOOPBACK), here.url).body == b"x" * MAX_BODY_BYTES


def test_a_packed_body_is_not_unpacked(here: Receiver) -> None:
    here.answers["/"] = (200, {"Content-Encoding": "gzip"}, b"not gzip at all")
    assert post(Outbound(LOOPBACK), here.url).body == b"not gzip at all"


def drip(head: bytes) -> Callable[[socket.socket], None]:
    """Send the head, then a byte each 20 ms until the other side goes."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(head)
        connection.settimeout(0.02)
        while True:
            connection.sendall(b"x")
            with contextlib.suppress(TimeoutError):
                if not connection.recv(1):
                    return

    return talk


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 2"])
def test_a_server_that_drips_its_answer_is_cut_at_the_deadline(head: bytes) -> None:
    with speaking(drip(head)) as port:
        started = time.monotonic()
        with pytest.raises(Unreachable, match=r"^There was no answer within 0.4 s.$"):
            post(Outbound(LOOPBACK), f"http://127.0.0.1:{port}/", timeout_s=0.4)
        assert 0.35 < time.monotonic() - started < 5


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX-A: ", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"])
def test_what_drips_behind_the_status_is_cut_and_the_status_stands(head: bytes) -> None:
    with speaking(drip(head)) as port:
        started = time.monotonic()
        reply = post(Outbound(LOOPBACK), f"http://127.0.0.1:{port}/", timeout_s=0.4)
        assert 0.35 < time.monotonic() - started < 5
    assert reply.status == 200
    assert set(reply.body) <= {ord("x")}


def test_a_server_that_never_answers_is_cut_at_the_deadline() -> None:
    with speaking(lambda connection: _until_gone(connection)) as port:
        with pytest.raises(Unreachable, match=r"^There was no answer within 0.2 s.$"):
            post(Outbound(LOOPBACK), f"http://127.0.0.1:{port}/", timeout_s=0.2)
        with pytest.raises(Unreachable, match=r"^There was no answer within 0.2 s.$"):
            post(Outbound(LOOPBACK), f"https://127.0.0.1:{port}/", timeout_s=0.2)


def _until_gone(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def test_a_server_that_takes_no_connection_is_cut_at_the_deadline() -> None:
    """The queue of its listener is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as queued:
        for _ in range(3):
            waiting = queued.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        with pytest.raises(Unreachable, match=r"within 0.3 s.$"):
            post(Outbound(LOOPBACK), f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout_s=0.3)


def test_a_look_up_that_hangs_is_given_up_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hang(*_: Any, **__: Any) -> list[Any]:
        released.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        with pytest.raises(Unreachable, match=r"^There was no answer within 0.2 s.$"):
            post(Outbound(), "http://slow.example/", timeout_s=0.2)
    finally:
        released.set()


def test_the_body_of_a_redirect_is_not_waited_for(here: Receiver) -> None:
    head = f"HTTP/1.1 307 Go\r\nLocation: {here.url}/b\r\nContent-Length: 1000000000\r\n\r\n".encode()
    with speaking(drip(head)) as port:
        started = time.monotonic()
        assert post(Outbound(LOOPBACK), f"http://127.0.0.1:{port}/", timeout_s=10).status == 200
        assert time.monotonic() - started < 5
    assert here.paths == ["POST /b"]


def test_redirects_share_one_deadline(here: Receiver) -> None:
    with speaking(drip(b"")) as port:
        here.answers["/"] = (307, {"Location": f"http://127.0.0.1:{port}/"}, b"")
        started = time.monotonic()
        with pytest.raises(Unreachable, match=r"within 0.4 s"):
            post(Outbound(LOOPBACK), here.url, timeout_s=0.4)
        assert time.monotonic() - started < 5


# -- errors that tell, and do not tell too much ----------------------------------------------------------------------


def test_a_server_that_is_not_there_may_be_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Unreachable, match=rf"^127.0.0.1:{port} takes no connection \(Connection refused\).$"):
        post(Outbound(LOOPBACK), f"http://127.0.0.1:{port}/")


def test_a_name_that_is_not_known_may_be_tried_again(look_ups: dict[str, list[list[str]]]) -> None:
    assert look_ups == {}
    with pytest.raises(Unreachable) as unknown:
        post(Outbound(), f"http://nowhere.example/{SECRET}")
    assert str(unknown.value) == "nowhere.example could not be looked up (Name or service not known)."


@pytest.mark.parametrize("said", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n"])
def test_what_is_no_http_may_be_tried_again_and_nothing_tells_the_path(
    said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(said)

    with caplog.at_level(logging.DEBUG), speaking(talk) as port:
        with pytest.raises(Unreachable) as broken:
            post(Outbound(LOOPBACK), f"http://127.0.0.1:{port}/{SECRET}")
        assert str(broken.value) == f"127.0.0.1:{port} did not answer as HTTP demands."
    assert SECRET not in caplog.text


def test_an_answer_with_an_odd_header_leaves_no_path_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nno colon here\r\nX: y\r\n\r\n")

    with caplog.at_level(logging.DEBUG), speaking(talk) as port:
        assert post(Outbound(LOOPBACK), f"http://127.0.0.1:{port}/{SECRET}").status == 200
    assert SECRET not in caplog.text


# -- TLS -----------------------------------------------------------------------------------------------------------


def test_a_certificate_for_the_name_is_accepted(authority: trustme.CA, look_ups: dict[str, list[list[str]]]) -> None:
    """The name goes into SNI, into Host and into the check, although the connection is made to an address."""
    context, names = server_tls(authority, "hooks.example"), []
    context.sni_callback = lambda _connection, name, _context: names.append(name)
    with receiver(tls=context) as server:
        look_ups["hooks.example"] = [["127.0.0.1"]]
        assert post(Outbound(LOOPBACK), f"https://hooks.example:{server.port}/a").status == 200
    assert names == ["hooks.example"]
    assert server.requests[0][2]["host"] == f"hooks.example:{server.port}"


def test_a_certificate_for_another_name_is_refused(authority: trustme.CA, look_ups: dict[str, list[list[str]]]) -> None:
    with receiver(tls=server_tls(authority, "other.example")) as server:
        look_ups["hooks.example"] = [["127.0.0.1"]]
        with pytest.raises(Unreachable, match=r"^The certificate of hooks.example is not accepted: Hostname mismatch"):
            post(Outbound(LOOPBACK), f"https://hooks.example:{server.port}/{SECRET}")
    assert server.requests == []


@pytest.mark.usefixtures("authority")
def test_a_certificate_of_an_unknown_authority_is_refused() -> None:
    told = r"^The certificate of 127.0.0.1 is not accepted: unable to get local"
    with receiver(tls=server_tls(trustme.CA(), "127.0.0.1")) as server, pytest.raises(Unreachable, match=told):
        post(Outbound(LOOPBACK), f"{server.url}/{SECRET}")
    assert server.requests == []


def test_a_redirect_from_https_to_http_is_not_followed(authority: trustme.CA, here: Receiver) -> None:
    with receiver(tls=server_tls(authority, "127.0.0.1")) as server:
        server.answers["/"] = (307, {"Location": here.url}, b"")
        assert post(Outbound(LOOPBACK), server.url).status == 307
    assert here.requests == []


def test_a_server_without_tls_is_told_apart(here: Receiver) -> None:
    with pytest.raises(Unreachable, match=r"^127.0.0.1 does not speak TLS as it should"):
        post(Outbound(LOOPBACK), f"https://127.0.0.1:{here.port}/")
