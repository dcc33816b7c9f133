"""Runs that go on for longer than their pipeline allows: PulseWatch says that they have timed out."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from pulsewatch import rollups
from pulsewatch.db import make_engine
from pulsewatch.events import RunEvent, Status
from pulsewatch.overdue import overdue
from pulsewatch.settings import Settings
from pulsewatch.submissions import CatalogStatement, Item
from pulsewatch.worker import time_out
from tests.test_ingest import put

BEGIN = datetime(2026, 11, 10, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SETTINGS = Settings()


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = make_engine(database, pool_size=3, application_name="tests")
    yield engine
    engine.dispose()


def run(name: str, minutes: float, status: Status = Status.RUNNING, **fields: Any) -> RunEvent:
    words = {"client": "acme", "pipeline": "nightly"} | fields
    return RunEvent(run=name, status=status, occurred_at=BEGIN + minutes * MINUTE, **words)


def tell(engine: Engine, *items: Item) -> None:
    with engine.begin() as connection:
        assert not put(connection, *items).rejected
    rollups.refresh(engine, SETTINGS, BEGIN + timedelta(hours=2))


def runs(engine: Engine) -> list[tuple[Any, ...]]:
    query = text(
        "select external_id, status, attempt, extract(epoch from finished_at - :begin)::float8 / 60 as finished"
        " from analytics.runs order by pipeline, external_id"
    )
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(query, {"begin": BEGIN})]


@pytest.fixture
def hasty(engine: Engine) -> Engine:
    """A pipeline whose runs may take ten minutes."""
    tell(engine, CatalogStatement("acme", {"max_runtime_s": 600.0}, BEGIN, "nightly"))
    return engine


def test_a_run_times_out_at_the_moment_at_which_it_should_have_ended(hasty: Engine) -> None:
    tell(hasty, run("slow", 1), run("quick", 1), run("quick", 2, Status.SUCCEEDED), run("new", 5))
    time_out(hasty, SETTINGS, BEGIN + 11 * MINUTE)
    assert runs(hasty)[2] == ("slow", "running", 0, None)
    time_out(hasty, SETTINGS, BEGIN + 11.01 * MINUTE)
    assert runs(hasty) == [
        ("new", "running", 0, None),
        ("quick", "succeeded", 0, 2),
        ("slow", "timed_out", 0, 11),
    ]


def test_it_is_said_once_however_often_it_is_found(hasty: Engine) -> None:
    tell(hasty, run("slow", 1))
    as_of = BEGIN + timedelta(hours=1)
    with hasty.connect() as connection:
        (event,) = overdue(connection, as_of)
    time_out(hasty, SETTINGS, as_of)
    with hasty.connect() as connection:
        # The hour still counts it as open, but the run has ended.
        assert overdue(connection, as_of + MINUTE) == []
    with hasty.begin() as connection:
        assert put(connection, event).duplicates == 1
    with hasty.connect() as connection:
        count = text("select count(*) from pulsewatch.run_event where status = 'timed_out'")
        assert connection.execute(count).scalar_one() == 1
        source = text("select source, accepted from pulsewatch.ingest_stat where source = 'pulsewatch'")
        assert connection.execute(source).all() == [("pulsewatch", 1)]


def test_what_the_producer_says_of_the_end_stands_whenever_it_comes(hasty: Engine) -> None:
    tell(hasty, run("slow", 1), run("before", 1))
    time_out(hasty, SETTINGS, BEGIN + timedelta(hours=1))
    tell(hasty, run("slow", 70, Status.SUCCEEDED), run("before", 5, Status.FAILED))
    time_out(hasty, SETTINGS, BEGIN + timedelta(hours=2))
    assert runs(hasty) == [("before", "failed", 0, 5), ("slow", "succeeded", 0, 70)]


def test_a_later_attempt_has_its_own_time(hasty: Engine) -> None:
    tell(hasty, run("slow", 1))
    time_out(hasty, SETTINGS, BEGIN + timedelta(hours=1))
    tell(hasty, run("slow", 65, attempt=1))
    assert runs(hasty) == [("slow", "running", 1, None)]
    time_out(hasty, SETTINGS, BEGIN + 74 * MINUTE)
    assert runs(hasty) == [("slow", "running", 1, None)]
    time_out(hasty, SETTINGS, BEGIN + 76 * MINUTE)
    assert runs(hasty) == [("slow", "timed_out", 1, 75)]


def test_without_a_start_or_a_limit_nothing_times_out(hasty: Engine) -> None:
    tell(hasty, run("waiting", 1, Status.QUEUED), run("endless", 1, pipeline="daemon"))
    time_out(hasty, SETTINGS, BEGIN + timedelta(days=1))
    assert runs(hasty) == [("endless", "running", 0, None), ("waiting", "queued", 0, None)]


def test_a_pipeline_of_a_namespace_is_found_by_it(engine: Engine) -> None:
    limit = CatalogStatement("acme", {"max_runtime_s": 0.5}, BEGIN, "dag.task", "airflow://prod")
    tell(engine, limit, run("slow", 1, namespace="airflow://prod", pipeline="dag.task"))
    time_out(engine, SETTINGS, BEGIN + timedelta(hours=1))
    assert runs(engine) == [("slow", "timed_out", 0, 1 + 0.5 / 60)]


def test_an_archived_client_takes_no_events_so_none_is_made(hasty: Engine) -> None:
    tell(hasty, run("slow", 1))
    with hasty.begin() as connection:
        connection.execute(text("update pulsewatch.client set archived_at = now()"))
        assert overdue(connection, BEGIN + timedelta(hours=1)) == []
