"""The API in front of a real database, driven through the whole stack of the application."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import Response
from sqlalchemy import Connection, Engine
from starlette.testclient import TestClient

from pulsewatch import ingest, resolve
from pulsewatch.api import create_app
from pulsewatch.auth import Keyring, Role, create_key
from pulsewatch.db import make_engine
from pulsewatch.settings import Settings
from pulsewatch.submissions import Item, Rejected, Submission
from tests.conftest import TEMPLATE, create_database, drop_database

_numbers = count()


class Api:
    """A caller of the API with one key."""

    def __init__(self, client: TestClient, key: str | None) -> None:
        self.client = client
        self.key = key
        self.headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    def request(self, method: str, path: str, **options: Any) -> Response:
        headers = self.headers | options.pop("headers", {})
        response: Response = self.client.request(method, path, headers=headers, **options)
        return response

    def get(self, path: str, **params: Any) -> Response:
        return self.request("GET", path, params=params)

    def put(self, path: str, body: object, **headers: str) -> Response:
        return self.request("PUT", path, json=body, headers=_spelt(headers))

    def post(self, path: str, body: object) -> Response:
        return self.request("POST", path, json=body)

    def delete(self, path: str, **headers: str) -> Response:
        return self.request("DELETE", path, headers=_spelt(headers))


def _spelt(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


class World:
    """A database of real commits with the API in front of it. Every test names its own clients."""

    def __init__(self, engine: Engine, app: FastAPI, client: TestClient) -> None:
        self.engine = engine
        self.app = app
        self.client = client

    def slug(self) -> str:
        """The slug of a client that does not exist yet."""
        return f"client-{next(_numbers):05}"

    def key(self, role: str, client: str | None = None) -> str:
        with self.engine.begin() as connection:
            return create_key(connection, Role(role), client)[1]

    def caller(self, role: str, client: str | None = None) -> Api:
        """A caller with a fresh key of this role, bound to the client if one is given."""
        return Api(self.client, self.key(role, client))

    def nobody(self) -> Api:
        return Api(self.client, None)

    def begin(self) -> AbstractContextManager[Connection]:
        return self.engine.begin()

    def store(self, *items: Item, rejected: Sequence[Rejected] = (), source: str = "native", **of_key: Any) -> None:
        """Take in events and rejects as one request would bring them, through the real ingestion."""
        submission = Submission(source, list(items), list(range(len(items))), list(rejected), **of_key)
        submission.text_of = b'{"item": %d}'.__mod__
        now = datetime.now(UTC)
        (receipt,) = ingest.store(self.engine.begin, [submission], resolve.Names(), max_pipelines=1000, received_at=now)
        assert receipt.accepted == len(items)


@pytest.fixture(scope="package")
def world(server: str) -> Iterator[World]:
    """One database for all tests of the API."""
    name = "pulsewatch_api"
    address = create_database(server, name, TEMPLATE)
    engine = make_engine(address, pool_size=10, application_name="api under test")
    settings = Settings.model_validate({"database_url": address, "secret_key": "k" * 32})
    app = create_app(settings, engine, Keyring(engine))
    with TestClient(app, raise_server_exceptions=True) as client:
        yield World(engine, app, client)
    engine.dispose()
    drop_database(server, name)


@pytest.fixture
def admin(world: World) -> Api:
    """An admin of everything."""
    return world.caller("admin")


@pytest.fixture
def slug(world: World) -> str:
    """A client's slug that no other test uses."""
    return world.slug()


def problem(response: Response) -> tuple[int, str, list[tuple[str, str]]]:
    """Status, code, and (pointer, code) of each field at fault, of an answer that must be a problem."""
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == response.status_code
    assert body["request_id"] == response.headers["x-request-id"]
    code = body["type"].removeprefix("urn:pulsewatch:problem:")
    return response.status_code, code, [(error["pointer"], error["code"]) for error in body.get("errors", ())]


def slugs(response: Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [item["slug"] for item in response.json()["items"]]
