"""The whole service: the edge of ingestion and the API behind it, over a real socket."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import httpx
import pytest
import uvicorn

from pulsewatch.asgi import build
from pulsewatch.auth import Role, create_key
from pulsewatch.db import make_engine
from pulsewatch.settings import Settings
from tests.api.conftest import problem

BACKEND = Path(__file__).parents[2] / "backend"
EVENT = {"type": "run", "client": "acme", "pipeline": "nightly", "run": "r1", "status": "running"}


class Server(uvicorn.Server):
    """Tells when it takes requests."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()


@pytest.fixture
def key(database: str) -> str:
    engine = make_engine(database, pool_size=1, application_name="t")
    with engine.begin() as connection:
        _, key = create_key(connection, Role.ADMIN, None)
    engine.dispose()
    return key


@pytest.fixture
def service(settings: Settings, key: str) -> Iterator[httpx.Client]:
    """The service on a port of its own, in a thread."""
    config = uvicorn.Config(build(settings), port=0, log_config=None, access_log=False)
    server = Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    assert server.is_up.wait(30)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(
        base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {key}"}, timeout=30
    ) as client:
        yield client
    server.should_exit = True
    thread.join()


def test_an_event_that_was_accepted_is_read_back_as_a_run(service: httpx.Client) -> None:
    event = EVENT | {"occurred_at": datetime.now(UTC).isoformat()}
    assert service.post("/v1/events", json=event).json() == {"accepted": 1, "duplicates": 0, "rejected": []}

    (run,) = service.get("/v1/runs").json()["items"]
    whole = service.get(f"/v1/runs/{run['id']}").json()

    assert (run["client"], run["pipeline"], run["external_id"], run["status"]) == ("acme", "nightly", "r1", "running")
    assert [told["status"] for told in whole["events"]] == ["running"]
    assert service.get("/v1/clients/acme/pipelines").json()["items"][0]["slug"] == "nightly"


def test_a_refused_item_is_found_among_the_rejects(service: httpx.Client) -> None:
    naive = EVENT | {"occurred_at": "2026-01-01T00:00:00"}
    assert service.post("/v1/events", json=naive).status_code == 422

    (item,) = service.get("/v1/rejects", params={"code": "naive_time"}).json()["items"]
    assert json.loads(item["item"])["run"] == "r1"


def test_the_edge_and_the_api_share_request_ids_problems_and_numbers(service: httpx.Client) -> None:
    answer = service.post("/v1/events", content=b"{", headers={"X-Request-ID": "one"})
    assert problem(answer)[0] == 400  # type: ignore[arg-type]  # httpx and its successor answer alike
    assert answer.headers.get_list("x-request-id") == ["one"]
    assert service.get("/v1/runs", headers={"X-Request-ID": "two"}).headers.get_list("x-request-id") == ["two"]
    assert 'route="/v1/events",status="400"' in service.get("/metrics").text


def test_the_numbers_show_the_pools_of_reading_and_of_ingestion(service: httpx.Client, settings: Settings) -> None:
    service.post("/v1/events", json=EVENT | {"occurred_at": datetime.now(UTC).isoformat()}).raise_for_status()
    service.get("/v1/runs").raise_for_status()

    numbers = service.get("/metrics").text.splitlines()

    for pool, size in (("api", settings.pool_size), ("ingest", settings.ingest_writers)):
        assert f'pulsewatch_db_pool_size{{pool="{pool}"}} {size:.1f}' in numbers
        assert f'pulsewatch_db_pool_connections{{pool="{pool}",state="in_use"}} 0.0' in numbers
        assert f'pulsewatch_db_pool_connections{{pool="{pool}",state="idle"}} 1.0' in numbers


def test_the_document_describes_the_wires_too(service: httpx.Client) -> None:
    paths: dict[str, Any] = service.get("/openapi.json").json()["paths"]
    assert "post" in paths["/v1/events"]
    assert "get" in paths["/v1/runs"]


def _line_with(stream: IO[str], words: str) -> dict[str, Any]:
    for line in stream:
        if words in line:
            told: dict[str, Any] = json.loads(line)
            return told
    raise AssertionError(words)


def test_uvicorn_serves_the_factory_and_stops_on_sigterm(database: str, key: str) -> None:
    environment = os.environ | {"PULSEWATCH_DATABASE_URL": database, "PYTHONPATH": str(BACKEND)}
    command = [sys.executable, "-m", "uvicorn", "--factory", "pulsewatch.asgi:build", "--port", "0"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            said = _line_with(server.stderr, "running on")["message"]
            address = said.split()[3]
            headers = {"Authorization": f"Bearer {key}", "X-Request-ID": "from-a-test"}
            assert httpx.get(f"{address}/v1/clients?limit=5", headers=headers, timeout=60).json()["items"] == []
            line = _line_with(server.stderr, "GET /v1/clients 200")
        finally:
            server.send_signal(signal.SIGTERM)
        rest = server.stderr.read()
    assert server.returncode in (0, -signal.SIGTERM)
    assert (line["request_id"], line["route"], line["status"]) == ("from-a-test", "/v1/clients", 200)
    assert "Application shutdown complete" in rest
    assert key not in rest
