"""`pulsewatch rollup rebuild`: it repairs what was changed by hand, and tells how far it is."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from pulsewatch import rollups
from pulsewatch.db import make_engine
from pulsewatch.events import RunEvent, Status
from tests.rollup_steps import DAY, NOW, SETTINGS, assert_right, catch_up, ended, execute, put, rows
from tests.running import run


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = make_engine(database, pool_size=5, application_name="tests")
    yield engine
    engine.dispose()


DAMAGES = (
    "update pulsewatch.pipeline_hour set failed_count = 99, first_at_max = first_at_min",
    "delete from pulsewatch.pipeline_day",
    "update pulsewatch.client_hour set duration_p95_s = 1",
    "delete from pulsewatch.client_day",
    "update pulsewatch.fleet_hour set hour_at = hour_at + interval '5 hours'",
    "update pulsewatch.fleet_day set duration_counts = '{}'",
    "update pulsewatch.failing_span set ended_at = null, failure_count = 7",
    """
    insert into pulsewatch.failing_span
    select client_id, pipeline_id, id, first_at, first_at, first_at, null, 1
    from pulsewatch.run
    where status = 'skipped'
    """,
    "delete from pulsewatch.pipeline_state",
)


def damage(engine: Engine) -> None:
    for statement in DAMAGES:
        assert execute(engine, statement) > 0, statement


def some_runs(engine: Engine) -> None:
    put(
        engine,
        ended("r1", 0, Status.FAILED, duration_s=3.0),
        ended("r2", 10, Status.FAILED, duration_s=4.0),
        ended("r3", 70, duration_s=5.0),
        ended("r4", 1500, pipeline="hourly", metrics={"rows": 5.0}),
        ended("r6", 1550, Status.SKIPPED, pipeline="hourly"),
        ended("r5", 1600, Status.RUNNING, pipeline="hourly"),
        RunEvent(client="globex", pipeline="p", run="r", status=Status.SUCCEEDED, occurred_at=DAY),
    )


def test_a_rebuild_repairs_whatever_is_wrong_and_tells_how_far_it_is(engine: Engine) -> None:
    some_runs(engine)
    catch_up(engine)
    damage(engine)
    told: list[tuple[float, int]] = []
    count = rollups.rebuild(engine, SETTINGS, None, None, lambda done, total: told.append((done, total)), as_of=NOW)
    assert count == len(rows(engine, "select hour_at from pulsewatch.pipeline_hour"))
    assert told == sorted(told)
    assert max(told) == (2, 2)
    assert_right(engine)


def test_a_rebuild_of_some_days_leaves_the_others(engine: Engine) -> None:
    some_runs(engine)
    catch_up(engine)
    execute(engine, "update pulsewatch.pipeline_hour set skipped_count = 9")
    day = DAY.replace(hour=0, minute=0)
    rollups.rebuild(engine, SETTINGS, day, day + timedelta(days=1), lambda _done, _total: None, as_of=NOW)
    wrong = rows(engine, "select date_trunc('day', hour_at) from pulsewatch.pipeline_hour where skipped_count = 9")
    assert {at for (at,) in wrong} == {
        at for (at,) in rows(engine, "select day_utc from pulsewatch.fleet_day") if at != day
    }


def test_the_command_rebuilds_and_shows_its_progress(database: str, engine: Engine) -> None:
    some_runs(engine)
    catch_up(engine)
    damage(engine)
    done = run("rollup", "rebuild", "--from", "2000-01-01", PULSEWATCH_DATABASE_URL=database)
    assert done.process.returncode == 0
    assert_right(engine)
    (hours,) = rows(engine, "select count(*) from pulsewatch.pipeline_hour")[0]
    assert any("Working out" in line and "100%" in line for line in done.err)
    assert done.err[-1] == f"worked out {hours} hours of pipelines\n"


def test_a_rebuild_from_a_later_to_an_earlier_time_is_refused(database: str) -> None:
    words = ("rollup", "rebuild", "--from", "2026-11-21", "--to", "2026-11-20T23:00:00+00:00")
    assert run(*words, PULSEWATCH_DATABASE_URL=database).process.returncode == 2
