"""Whatever goes wrong, the answer is a problem that says nothing private."""

import json
import logging
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from sqlalchemy import text
from starlette.testclient import TestClient

from pulsewatch.api import create_app, deps
from pulsewatch.auth import Keyring
from pulsewatch.db import make_engine
from pulsewatch.settings import Settings
from tests.api.conftest import Api, World, problem


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/clients/", "/v1/nothing", "/docs/", "/v1/clients/a/b/c/d", "/a%00b"])
def test_a_path_that_does_not_exist_is_not_found_and_never_redirected(admin: Api, path: str) -> None:
    assert problem(admin.get(path)) == (404, "not_found", [])


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v1/clients", "GET"),
        ("PATCH", "/v1/clients/a", "DELETE, GET, PUT"),
        ("PUT", "/v1/keys", "GET, POST"),
        ("DELETE", "/healthz", "GET, HEAD"),
        ("TRACE", "/v1/runs", "GET"),
        ("NONSENSE", "/v1/runs", "GET"),
    ],
)
def test_a_method_that_is_not_possible_names_all_that_are(admin: Api, method: str, path: str, allowed: str) -> None:
    answer = admin.request(method, path)
    assert problem(answer) == (405, "method_not_allowed", [])
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/healthz", "/ready", "/metrics", "/v1/clients", "/v1/clients/a", "/v1/keys"])
def test_a_parameter_that_a_route_does_not_know_is_refused(admin: Api, path: str) -> None:
    answer = admin.get(path, nonsense="1")
    assert problem(answer) == (422, "invalid", [("?nonsense", "unknown_parameter")])


def test_odd_bytes_in_the_query_are_refused_or_harmless(admin: Api) -> None:
    for query in ("owner=%00", "owner=%ff", "owner=%ed%a0%80", "%00=1", "%ed%a0%80=1", "owner=" + "x" * 9000):
        answer = admin.request("GET", f"/v1/runs?{query}")
        assert answer.status_code < 500, query
        json.loads(answer.text)


def test_a_sane_request_id_is_kept_and_another_is_replaced(admin: Api) -> None:
    kept = admin.request("GET", "/healthz", headers={"X-Request-ID": "abc-1.2_3"})
    replaced = admin.request("GET", "/healthz", headers={"X-Request-ID": 'a"b c'})

    assert kept.headers["x-request-id"] == "abc-1.2_3"
    assert replaced.headers["x-request-id"] != 'a"b c'
    assert len(replaced.headers["x-request-id"]) == 16


@pytest.fixture
def away() -> Iterator[Api]:
    """The API while its database does not answer."""
    engine = make_engine("postgresql://somebody:secretword@127.0.0.1:1/x", pool_size=1, application_name="t")
    with TestClient(create_app(Settings(), engine, Keyring(engine))) as client:
        yield Api(client, "pw_" + "a" * 43)
    engine.dispose()


def test_while_the_database_is_away_the_answer_is_503_with_retry_after(
    away: Api, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        answer = away.get("/v1/runs")

    assert problem(answer) == (503, "unavailable", [])
    assert int(answer.headers["retry-after"]) >= 1
    assert "127.0.0.1" not in answer.text
    assert "secretword" not in answer.text + caplog.text


def test_a_query_that_takes_too_long_is_ended_and_says_what_to_do(
    world: World, admin: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin.put(f"/v1/clients/{world.slug()}", {})  # without a client no run is looked for; and now the key is known
    monkeypatch.setattr(deps, "READ_TIMEOUT", "set local statement_timeout = '20ms'")
    with world.begin() as connection:
        connection.execute(text("lock table pulsewatch.run in access exclusive mode"))
        answer = admin.get("/v1/runs")

    assert problem(answer) == (503, "unavailable", [])
    assert "Narrow it" in answer.json()["detail"]


def test_a_fault_of_ours_is_a_500_without_private_words_and_is_logged_once(
    world: World, admin: Api, caplog: pytest.LogCaptureFixture
) -> None:
    app: FastAPI = world.app
    admin.get("/v1/clients")
    before = app.state.engine
    app.state.engine = "not an engine; pw_" + "s" * 43
    try:
        with caplog.at_level(logging.ERROR):
            answer = admin.get("/v1/clients")
    finally:
        app.state.engine = before

    assert problem(answer) == (500, "internal", [])
    assert "engine" not in answer.text
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_fault_in_sql_is_ours_too(world: World, admin: Api) -> None:
    with world.begin() as connection:
        connection.execute(text("alter table pulsewatch.ingest_reject rename to hidden"))
    try:
        answer = admin.get("/v1/rejects")
    finally:
        with world.begin() as connection:
            connection.execute(text("alter table pulsewatch.hidden rename to ingest_reject"))

    assert problem(answer) == (500, "internal", [])
    assert "reject" not in answer.text
