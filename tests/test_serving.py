"""How the api is served, over a real socket."""

import socket
from collections.abc import Iterator

import pytest

from tests.conftest import TEMPLATE, create_database, drop_database
from tests.serving import Server, serve

pytestmark = [pytest.mark.any_postgresql, pytest.mark.unmeasured]


@pytest.fixture(scope="module")
def api(server: str) -> Iterator[Server]:
    with serve(create_database(server, "serving", TEMPLATE)) as started:
        yield started
    drop_database(server, "serving")


def test_an_answer_leaves_in_one_piece(api: Server) -> None:
    with socket.create_connection(("127.0.0.1", api.port), timeout=30) as client:
        for _ in range(50):
            client.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            head, _, body = client.recv(65536).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert body == b'{"status":"ok"}'


def test_a_large_answer_arrives_whole_and_the_connection_ends_when_asked_to(api: Server) -> None:
    with socket.create_connection(("127.0.0.1", api.port), timeout=30) as client:
        client.sendall(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        received = b"".join(iter(lambda: client.recv(65536), b""))
        head, _, body = received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        assert len(body) == length > 100_000
