"""/healthz, /ready and /metrics."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from pulsewatch.api import create_app
from pulsewatch.auth import Keyring
from pulsewatch.db import make_engine
from pulsewatch.settings import Settings
from tests.api.conftest import Api, World


def serve(address: str) -> Iterator[Api]:
    engine = make_engine(address, pool_size=2, application_name="t")
    with TestClient(create_app(Settings(), engine, Keyring(engine))) as client:
        yield Api(client, None)
    engine.dispose()


@pytest.fixture
def fresh(database: str) -> Iterator[Api]:
    """The API on a database that is migrated and empty."""
    yield from serve(database)


@pytest.fixture
def bare(empty_database: str) -> Iterator[Api]:
    """The API on a database that was never migrated."""
    yield from serve(empty_database)


@pytest.fixture
def away() -> Iterator[Api]:
    """The API without a database."""
    yield from serve("postgresql://nobody@127.0.0.1:1/x")


def beat(database: str, age: str) -> None:
    engine = make_engine(database, pool_size=1, application_name="t")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "insert into pulsewatch.worker_heartbeat (worker_id, started_at, beat_at)"
            " values ('w', now(), now() - %s::interval)"
            " on conflict (worker_id) do update set beat_at = excluded.beat_at",
            (age,),
        )
    engine.dispose()


def test_it_is_ready_once_the_tables_are_there_and_a_worker_is_alive(fresh: Api, database: str) -> None:
    waiting = fresh.get("/ready")
    assert waiting.status_code == 503
    assert waiting.headers["retry-after"] == "5"
    assert waiting.json()["worker"] == {"ok": False, "detail": "no worker has ever run; start 'pulsewatch worker'"}

    beat(database, "1 second")
    ready = fresh.get("/ready")
    assert ready.status_code == 200
    assert ready.json()["status"] == "ready"
    assert ready.json()["database"] == {"ok": True, "detail": "answers"}
    assert ready.json()["migrations"] == {"ok": True, "detail": "up to date"}
    assert ready.json()["worker"]["ok"] is True

    beat(database, "61 seconds")
    silent = fresh.get("/ready")
    assert silent.status_code == 503
    assert silent.json()["worker"] == {"ok": False, "detail": "last sign of life 61 s ago"}


@pytest.mark.parametrize("path", ["/healthz", "/ready"])
def test_head_says_what_get_says(fresh: Api, away: Api, path: str) -> None:
    for api in (fresh, away):
        head, get = api.request("HEAD", path), api.get(path)
        assert head.status_code == get.status_code
        assert head.headers["content-length"] == get.headers["content-length"]
    assert fresh.request("HEAD", f"{path}?nonsense=1").status_code == 422


def test_a_database_without_tables_is_not_ready(bare: Api) -> None:
    answer = bare.get("/ready")
    assert answer.status_code == 503
    assert (answer.json()["database"]["ok"], answer.json()["migrations"]["ok"]) == (True, False)
    assert "pulsewatch migrate" in answer.json()["migrations"]["detail"]


def test_without_a_database_it_is_alive_but_not_ready(away: Api) -> None:
    assert away.get("/healthz").json() == {"status": "ok"}
    answer = away.get("/ready")
    assert answer.status_code == 503
    assert [answer.json()[part]["ok"] for part in ("database", "migrations", "worker")] == [False] * 3
    assert "127.0.0.1" not in answer.text


def test_metrics_are_told_without_a_database_but_for_what_it_alone_knows(away: Api) -> None:
    lines = away.get("/metrics").text.splitlines()
    assert "pulsewatch_rollup_lag_seconds NaN" in lines
    assert "pulsewatch_alerts_lag_seconds NaN" in lines
    assert "pulsewatch_rollup_marks NaN" in lines
    assert "pulsewatch_notifications_pending NaN" in lines
    assert any(line.startswith("pulsewatch_app_info{") for line in lines)


def test_metrics_count_requests_by_route_template_and_name_no_client(world: World, admin: Api, slug: str) -> None:
    admin.put(f"/v1/clients/{slug}", {})
    admin.get("/v1/invented/path")
    admin.request("BREW", "/healthz")

    numbers = world.nobody().get("/metrics")

    assert numbers.headers["content-type"].startswith("text/plain; version=")
    lines = numbers.text.splitlines()
    put = 'pulsewatch_http_requests_total{method="PUT",route="/v1/clients/{client}",status="201"}'
    assert any(line.startswith(put) for line in lines)
    assert any('route="unmatched",status="404"' in line for line in lines)
    assert any('method="OTHER"' in line for line in lines)
    assert "invented" not in numbers.text
    assert slug not in numbers.text
    for name in (
        "pulsewatch_http_request_seconds_bucket",
        "pulsewatch_ingest_batch_events_bucket",
        "pulsewatch_ingest_queue_events",
        "pulsewatch_ingest_commit_seconds_bucket",
        'pulsewatch_db_pool_connections{pool="api",state="in_use"}',
        'pulsewatch_db_pool_size{pool="api"}',
        "pulsewatch_rollup_lag_seconds ",
        "pulsewatch_alerts_lag_seconds ",
        "pulsewatch_rollup_marks ",
        "pulsewatch_notifications_pending ",
        "pulsewatch_notifications_oldest_pending_seconds ",
        "pulsewatch_notifications_dead ",
        "pulsewatch_app_info{",
    ):
        assert any(line.startswith(name) for line in lines), name
