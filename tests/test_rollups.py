"""Working out hours, days, spans and states on real commits: nothing is lost, nothing is left over."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine

from pulsewatch import ingest, resolve, rollups
from pulsewatch.db import make_engine
from pulsewatch.events import Status
from pulsewatch.settings import Settings
from pulsewatch.submissions import CatalogStatement, Submission
from tests.examples import examples
from tests.rollup_reference import stored
from tests.rollup_steps import DAY, NOW, SETTINGS, assert_right, catch_up, ended, execute, put, rows, written


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = make_engine(database, pool_size=5, application_name="tests")
    yield engine
    engine.dispose()


# -- nothing is lost -----------------------------------------------------------------------------------------

# Statements of a refresh: lock, plan, take, months, six tables, spans, state.
PLACES = range(12)


@pytest.mark.parametrize("place", PLACES)
def test_a_change_that_commits_between_any_two_statements_of_a_refresh_is_not_lost(engine: Engine, place: int) -> None:
    put(engine, ended("r1", 10, Status.FAILED), ended("r2", 20), ended("r3", 30, Status.FAILED))
    catch_up(engine)
    put(engine, ended("r1", 70, Status.FAILED, attempt=1), ended("r4", 40))
    seen = 0

    class Watched(psycopg.Cursor[tuple[object, ...]]):
        def execute(self, *said: Any, **how: Any) -> Self:
            nonlocal seen
            seen += 1
            if seen == place + 1:
                # It ends in another hour, succeeds, and is found to have begun earlier than it seemed.
                moved = ended("r1", 130, attempt=2, started_at=DAY - timedelta(minutes=90), duration_s=3.5)
                put(engine, moved, ended("r4", 200, Status.FAILED, attempt=1), ended("r5", 41, Status.TIMED_OUT))
            return super().execute(*said, **how)

    watched = make_engine(engine.url.render_as_string(hide_password=False), pool_size=1, application_name="refresher")
    with watched.connect() as connection:  # what SQLAlchemy asks first does not count
        connection.connection.driver_connection.cursor_factory = Watched  # type: ignore[union-attr]  # it is psycopg's
    try:
        rollups.refresh(watched, SETTINGS, NOW)
    finally:
        watched.dispose()
    assert seen > place, "there are fewer statements than places"
    catch_up(engine)
    assert len(rows(engine, "select id from pulsewatch.run")) == 5
    assert_right(engine)


def test_a_change_that_is_not_committed_yet_is_worked_out_once_it_is(engine: Engine) -> None:
    put(engine, ended("r1", 10))
    is_written, may_commit = threading.Event(), threading.Event()

    @contextmanager
    def begin() -> Iterator[Connection]:
        with engine.begin() as connection:
            yield connection
            is_written.set()
            assert may_commit.wait(30)

    submission = Submission("native", [ended("r1", 90, Status.FAILED), ended("r2", 15)], [0, 1])
    store = threading.Thread(
        target=ingest.store,
        args=(begin, [submission], resolve.Names()),
        kwargs={"max_pipelines": 100, "received_at": NOW},
    )
    store.start()
    assert is_written.wait(30)
    catch_up(engine)
    assert_right(engine)
    may_commit.set()
    store.join()
    catch_up(engine)
    assert len(rows(engine, "select id from pulsewatch.run")) == 2
    assert_right(engine)


def test_a_refresh_that_breaks_off_leaves_its_marks(engine: Engine) -> None:
    put(engine, ended("r1", 10))
    with engine.connect() as connection, connection.begin() as broken_off:
        assert rollups.refresh_chunk(connection, SETTINGS, NOW) == (1, 1)
        broken_off.rollback()
    assert rollups.refresh(engine, SETTINGS, NOW) == 1
    assert_right(engine)


def test_a_second_refresher_leaves_the_work_to_the_first(engine: Engine) -> None:
    put(engine, ended("r1", 10))
    with engine.begin() as first:
        assert rollups.refresh_chunk(first, SETTINGS, NOW) == (1, 1)
        assert rollups.refresh(engine, SETTINGS, NOW) == 0
    assert_right(engine)


# -- nothing is left over, nothing is written twice ----------------------------------------------------------


def test_rows_vanish_when_nothing_is_left(engine: Engine) -> None:
    put(engine, ended("r1", 10, Status.FAILED), ended("r2", 70), ended("r3", 1500, pipeline="hourly"))
    catch_up(engine)
    execute(engine, "delete from pulsewatch.run")
    execute(
        engine,
        "insert into pulsewatch.dirty (client_id, pipeline_id, hour_at, first_at)"
        " select client_id, pipeline_id, hour_at, first_at_min from pulsewatch.pipeline_hour",
    )
    catch_up(engine)
    with engine.connect() as connection:
        tables = stored(connection)
    # A span whose run is gone is history, as are those of runs past their keep time.
    assert {table for table, found in tables.items() if found} == {"failing_span"}


def test_a_run_that_moves_leaves_nothing_in_the_hours_it_was_in(engine: Engine) -> None:
    put(engine, ended("r1", 10, Status.FAILED, started_at=DAY))
    catch_up(engine)
    put(engine, ended("r1", 1500, attempt=1, started_at=DAY + timedelta(minutes=1490)))
    catch_up(engine)
    assert len(rows(engine, "select hour_at from pulsewatch.pipeline_hour")) == 1
    assert rows(engine, "select run_id from pulsewatch.failing_span") == []
    assert_right(engine)


def test_a_mark_without_a_change_writes_nothing(engine: Engine) -> None:
    put(engine, ended("r1", 10, Status.FAILED, duration_s=0.1, metrics={"rows": 0.1}), ended("r2", 20))
    execute(engine, "create table public.mark as select * from pulsewatch.dirty")
    catch_up(engine)
    execute(engine, "insert into pulsewatch.dirty select * from public.mark")
    with engine.connect() as connection:
        before = written(connection)
    assert rollups.refresh(engine, SETTINGS, NOW) == 2
    with engine.connect() as connection:
        assert written(connection) == before


# -- which hours count ---------------------------------------------------------------------------------------


def test_hours_whose_runs_may_be_gone_keep_their_numbers(engine: Engine) -> None:
    settings = Settings(keep_events_days=2, keep_runs_days=2)
    old, young = ended("old", -40), ended("young", 40)
    put(engine, old, young)
    catch_up(engine)
    before = rows(engine, "select * from pulsewatch.pipeline_hour order by hour_at")
    execute(engine, "delete from pulsewatch.run")
    execute(
        engine,
        "insert into pulsewatch.dirty (client_id, pipeline_id, hour_at, first_at)"
        " select client_id, pipeline_id, hour_at, first_at_min from pulsewatch.pipeline_hour",
    )
    # The older hour has begun before the keep time, the younger one has not.
    as_of = young.occurred_at.replace(minute=0) + timedelta(days=2)
    catch_up(engine, as_of, settings)
    assert rows(engine, "select * from pulsewatch.pipeline_hour order by hour_at") == before[:1]
    assert rows(engine, "select count(*) from pulsewatch.dirty") == [(0,)]
    rollups.rebuild(engine, settings, None, None, lambda _done, _total: None, as_of=as_of)
    assert rows(engine, "select * from pulsewatch.pipeline_hour order by hour_at") == before[:1]


def test_an_hour_that_lies_partly_before_the_keep_time_is_frozen() -> None:
    settings = Settings(keep_events_days=2, keep_runs_days=2)
    hour_at = datetime(2026, 11, 19, 12, tzinfo=UTC)
    two_days = timedelta(days=2)
    assert rollups.frozen_before(settings, hour_at + two_days) == hour_at
    assert rollups.frozen_before(settings, hour_at + two_days + timedelta(microseconds=1)) == hour_at + rollups.HOUR


def test_a_start_before_all_months_made_ahead_gets_one(engine: Engine) -> None:
    settings = Settings(keep_events_days=400, keep_runs_days=1000, keep_hours_days=1000, keep_slots_days=1000)
    put(engine, ended("r1", duration_s=600 * 86_400.0))
    catch_up(engine, settings=settings)
    months = "select to_char(hour_at, 'YYYY-MM') from pulsewatch.pipeline_hour order by 1"
    assert rows(engine, months) == [(f"{DAY - timedelta(days=600):%Y-%m}",), (f"{DAY:%Y-%m}",)]
    assert_right(engine)


def test_a_mark_of_a_slot_far_ahead_gives_the_next_slot_and_no_hour(engine: Engine) -> None:
    put(engine, CatalogStatement("acme", {}, DAY, "nightly"))
    ahead = NOW + timedelta(days=30)
    execute(
        engine,
        "insert into pulsewatch.slot (client_id, pipeline_id, slot_at, deadline_at)"
        f" select client_id, id, '{ahead}', '{ahead}' from pulsewatch.pipeline",
    )
    execute(
        engine,
        "insert into pulsewatch.dirty (client_id, pipeline_id, hour_at)"
        f" select client_id, id, date_trunc('hour', '{ahead}'::timestamptz) from pulsewatch.pipeline",
    )
    catch_up(engine)
    assert rows(engine, "select next_slot_at from pulsewatch.pipeline_state") == [(ahead,)]
    assert_right(engine)


def test_marks_are_handed_on_where_there_are_slots(engine: Engine) -> None:
    put(engine, ended("r1", 10), ended("r2", 20, pipeline="hourly"))
    execute(
        engine,
        "insert into pulsewatch.slot_plan (client_id, pipeline_id, schedule, start_grace_s, planned_until)"
        " select client_id, id, '@hourly', 300, now() from pulsewatch.pipeline where slug = 'hourly'",
    )
    catch_up(engine)
    handed_on = rows(
        engine,
        "select slug, hour_at, first_at from pulsewatch.slot_mark"
        " inner join pulsewatch.pipeline on pipeline.id = slot_mark.pipeline_id",
    )
    at = DAY + timedelta(minutes=20)
    assert handed_on == [("hourly", at.replace(minute=0), at)]


# -- states and spans ----------------------------------------------------------------------------------------


def test_a_state_counts_64_failures_at_most_and_knows_since_when_for_longer(engine: Engine) -> None:
    put(engine, ended("good", -100), *(ended(f"r{number}", number, Status.FAILED) for number in range(70)))
    catch_up(engine)
    state = "select consecutive_failures, failing_since, last_success_at from pulsewatch.pipeline_state"
    assert rows(engine, state) == [(64, DAY, DAY - timedelta(minutes=100))]
    assert rows(engine, "select failure_count from pulsewatch.failing_span") == [(70,)]


def test_cancelled_skipped_and_unfinished_runs_neither_end_nor_begin_a_span(engine: Engine) -> None:
    between = (Status.CANCELLED, Status.SKIPPED, Status.RUNNING, Status.QUEUED)
    put(
        engine,
        ended("r1", 0, Status.FAILED),
        *(ended(f"b{place}", 1 + place, status) for place, status in enumerate(between)),
        ended("r2", 10, Status.TIMED_OUT),
        ended("r3", 20),
        ended("r4", 30, Status.CANCELLED),
    )
    catch_up(engine)
    spans = "select began_at, ended_at, failure_count, last_first_at from pulsewatch.failing_span"
    at = [DAY + timedelta(minutes=minutes) for minutes in (0, 20, 10)]
    assert rows(engine, spans) == [(at[0], at[1], 2, at[2])]


def test_a_span_that_is_older_than_the_kept_runs_keeps_its_beginning(engine: Engine) -> None:
    put(engine, *(ended(f"r{number}", number, Status.FAILED) for number in range(4)))
    catch_up(engine)
    (first,) = rows(engine, "select run_id, first_at, began_at from pulsewatch.failing_span")
    execute(engine, "delete from pulsewatch.run where external_id in ('r0', 'r1')")
    put(engine, ended("r2", 5, Status.FAILED, attempt=1), ended("r5", 6, Status.FAILED))
    catch_up(engine)
    spans = "select run_id, first_at, began_at, last_first_at, failure_count from pulsewatch.failing_span"
    assert rows(engine, spans) == [(*first, DAY + timedelta(minutes=6), 3)]


# -- numbers -------------------------------------------------------------------------------------------------


def test_absurd_metrics_do_not_stop_anything(engine: Engine) -> None:
    absurd = [1.7e308, 1.7e308, -1.7e308, 5e-324]
    put(engine, *(ended(f"r{at}", at, metrics={"rows": rows, "bytes": 1e16}) for at, rows in enumerate(absurd)))
    catch_up(engine)
    assert rows(engine, "select rows_sum, bytes_sum from pulsewatch.fleet_day") == [(1e290, 4e16)]


@hypothesis_settings(
    max_examples=examples(50), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.floats(0.001, 366 * 86_400.0), min_size=1, max_size=300), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_percentile_is_within_four_and_a_half_percent_of_the_nearest_rank(
    connection: Connection, durations: list[float], share: float
) -> None:
    (found,) = connection.exec_driver_sql(
        "with held as (select pulsewatch.duration_bucket(d) as bucket, count(*)::integer as amount"
        " from unnest(%(durations)s::float8[]) as d group by bucket)"
        " select pulsewatch.duration_percentile(array_agg(bucket order by bucket), array_agg(amount order by bucket),"
        " %(share)s::float8, %(least)s::float8, %(greatest)s::float8) from held",
        {"durations": durations, "share": share, "least": min(durations), "greatest": max(durations)},
    ).one()
    exact = sorted(durations)[math.ceil(share * len(durations)) - 1]
    assert abs(found - exact) <= 0.045 * exact
