"""runs_summary, clients_summary and runs_series: rows given, rows expected."""

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from tests.analytics.conftest import Acme
from tests.analytics.rows import at, client, counted, insert, pipeline, read, record

HOUR = timedelta(hours=1)
NUMBERS = (
    *("started_count", "succeeded_count", "failed_count", "timed_out_count", "cancelled_count", "skipped_count"),
    *("finished_count", "retried_count", "on_time_count", "late_count", "missed_count"),
    *("success_rate", "failure_rate", "retry_rate", "on_time_rate"),
    *("duration_count", "duration_sum_s", "duration_avg_s", "duration_min_s", "duration_max_s"),
    *("duration_p50_s", "duration_p95_s", "duration_p99_s", "rows_sum", "bytes_sum"),
)
NOTHING = {name: 0 if name.endswith("_count") else None for name in NUMBERS} | {"duration_sum_s": 0.0}


def middle(bucket: int) -> float:
    return float(2 ** ((bucket + 0.5) / 8))


def put(acme: Acme, at: datetime, durations: dict[int, int] | None = None, **values: Any) -> None:
    """The same numbers for the pipeline, its client and the fleet, in that hour."""
    numbers = counted(durations, **values)
    insert(acme.connection, "pipeline_hour", **acme.keys, hour_at=at, open_count=0, **numbers)
    insert(acme.connection, "client_hour", client_id=acme.client_id, hour_at=at, **numbers)
    insert(acme.connection, "fleet_hour", hour_at=at, **numbers)


def put_day(acme: Acme, at: datetime, durations: dict[int, int] | None = None, **values: Any) -> None:
    numbers = counted(durations, **values)
    insert(acme.connection, "pipeline_day", **acme.keys, day_utc=at, **numbers)
    insert(acme.connection, "client_day", client_id=acme.client_id, day_utc=at, **numbers)
    insert(acme.connection, "fleet_day", day_utc=at, **numbers)


@pytest.fixture(params=["fleet", "client", "pipeline"])
def whose(request: pytest.FixtureRequest) -> str:
    return {"fleet": "null, null", "client": "'acme', null", "pipeline": "'acme', 'nightly'"}[request.param]


def summary(acme: Acme, whose: str, from_at: datetime, to_at: datetime) -> dict[str, Any]:
    query = f"select * from analytics.runs_summary(:from_at, :to_at, {whose})"
    return record(acme.connection, query, from_at=from_at, to_at=to_at)


def test_a_summary_adds_up_hours_and_merges_their_histograms(acme: Acme, whose: str) -> None:
    put(
        acme,
        at(1),
        {20: 6, 39: 2},
        started_count=9,
        succeeded_count=7,
        failed_count=1,
        retried_count=1,
        on_time_count=3,
        duration_sum_s=80.25,
        duration_min_s=5.5,
        duration_max_s=30.0,
        rows_sum=10.0,
    )
    put(
        acme,
        at(2),
        {20: 1, 60: 1},
        started_count=1,
        succeeded_count=1,
        timed_out_count=1,
        cancelled_count=1,
        skipped_count=1,
        late_count=1,
        missed_count=1,
        duration_sum_s=200.5,
        duration_min_s=5.25,
        duration_max_s=181.0,
        rows_sum=5.0,
        bytes_sum=7.0,
    )
    assert summary(acme, whose, at(1), at(3)) == {
        "started_count": 10,
        "succeeded_count": 8,
        "failed_count": 1,
        "timed_out_count": 1,
        "cancelled_count": 1,
        "skipped_count": 1,
        "finished_count": 12,
        "retried_count": 1,
        "on_time_count": 3,
        "late_count": 1,
        "missed_count": 1,
        "success_rate": 0.8,
        "failure_rate": 0.2,
        "retry_rate": 1 / 12,
        "on_time_rate": 0.6,
        "duration_count": 10,
        "duration_sum_s": 280.75,
        "duration_avg_s": 28.075,
        "duration_min_s": 5.25,
        "duration_max_s": 181.0,
        # Seven of ten lie in bucket 20, two in 39, the longest in 60.
        "duration_p50_s": pytest.approx(middle(20), rel=1e-12),
        "duration_p95_s": 181.0,
        "duration_p99_s": 181.0,
        "rows_sum": 15.0,
        "bytes_sum": 7.0,
    }


def test_days_within_the_window_are_read_whole_and_its_ends_by_hour(acme: Acme, whose: str) -> None:
    put(acme, at(22, day=18), started_count=1)  # before the window
    put(acme, at(23, day=18), {10: 1}, started_count=10)
    put_day(acme, at(day=18), started_count=1000)
    put(acme, at(5, day=19), started_count=10_000)  # counted in its day, which says something else here
    put_day(acme, at(day=19), {20: 1}, started_count=100)
    put_day(acme, at(day=20), {20: 1}, started_count=100)
    put(acme, at(0, day=21), {30: 1}, started_count=10)
    put(acme, at(1, day=21), started_count=1)  # after the window
    put_day(acme, at(day=21), started_count=1000)
    found = summary(acme, whose, at(23, day=18), at(1, day=21))
    assert (found["started_count"], found["duration_count"]) == (220, 4)


@pytest.mark.parametrize(
    ("from_at", "to_at", "started"),
    [
        (at(1), at(2), 1),
        (at(1.5), at(1.6), 1),  # widened to the whole hour
        (at(1.9), at(2.1), 11),
        (at(2), at(2) + timedelta(microseconds=1), 10),
        (at(0), at(24), 1000),  # the day as a whole
        (at(0), at(23), 111),
        (at(1), at(24), 111),
        (at(-48), at(48), 1000),
    ],
)
def test_a_window_is_widened_to_whole_hours(
    acme: Acme, whose: str, from_at: datetime, to_at: datetime, started: int
) -> None:
    for hour, count in ((1, 1), (2, 10), (22, 100)):
        put(acme, at(hour), started_count=count)
    put_day(acme, at(0), started_count=1000)
    assert summary(acme, whose, from_at, to_at)["started_count"] == started


def test_a_summary_of_nothing_is_a_row_of_zeros(acme: Acme, whose: str) -> None:
    assert summary(acme, whose, at(1), at(3)) == NOTHING


def test_sums_hold_whatever_was_reported_and_depend_on_no_order(acme: Acme, whose: str) -> None:
    """Added as binary numbers, the rows would be 0.0 and the bytes 0.6000000000000001 or 0.6 by order."""
    huge = {"rows_sum": 1e290, "bytes_sum": 0.1, "duration_sum_s": 1e16}
    put(acme, at(1), {20: 1}, **huge)
    put(acme, at(2), {20: 1}, **huge | {"rows_sum": 3.0, "bytes_sum": 0.2})
    put(acme, at(3), {20: 1}, **huge | {"rows_sum": -1e290, "bytes_sum": 0.3})
    found = summary(acme, whose, at(1), at(4))
    assert (found["rows_sum"], found["bytes_sum"], found["duration_sum_s"]) == (3.0, 0.6, 3e16)


def test_the_sum_of_one_hour_is_what_is_stored(acme: Acme, whose: str) -> None:
    put(acme, at(1), {20: 1}, duration_sum_s=1234567890.123457, bytes_sum=12345678901234567.0)
    found = summary(acme, whose, at(1), at(2))
    assert (found["duration_sum_s"], found["bytes_sum"]) == (1234567890.123457, 12345678901234567.0)


@pytest.mark.parametrize(
    "call",
    [
        "runs_summary(:from_at, :to_at, 'nobody')",
        "runs_summary(:from_at, :to_at, 'acme', 'nothing')",
        "runs_summary(:from_at, :to_at, 'nobody', 'nightly')",
        "runs_summary(:to_at, :from_at, 'acme')",
        "runs_summary(null, :to_at, coalesce('acme', cast(:from_at as text)))",
        "runs_series(:from_at, :to_at, 'nobody')",
        "runs_series(:from_at, :to_at, 'acme', 'nothing')",
        "runs_series(:from_at, :from_at, coalesce('acme', cast(:to_at as text)))",
        "clients_summary(:to_at, :from_at)",
        "state_series(:from_at, :to_at, 'nobody')",
        "state_series(:from_at, :to_at, 'acme', 'nothing')",
        "pipeline_states(:from_at, :to_at, 'acme', 'nothing', null)",
        "summaries(:from_at, :to_at, 'pipeline', 'nobody')",
        "runs_change(:from_at, :to_at, 'nobody')",
        "runs_change(:to_at, :from_at, 'acme')",
        "duration_heatmap(:from_at, :to_at, 'nobody')",
        "error_classes(:from_at, :to_at, 'nobody')",
    ],
)
def test_what_does_not_exist_has_no_row(acme: Acme, call: str) -> None:
    parameters = {"from_at": at(1), "to_at": at(3)}
    assert read(acme.connection, f"select * from analytics.{call}", **parameters) == []


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("runs_summary(now(), now(), null, 'nightly')", "a pipeline is named together with its client"),
        ("runs_series(now(), now(), null, 'nightly')", "a pipeline is named together with its client"),
        ("state_series(now(), now(), null, 'nightly')", "a pipeline is named together with its client"),
        ("pipeline_states(now(), now(), null, 'nightly')", "a pipeline is named together with its client"),
        ("runs_series(now(), now(), step => 'week')", "step must be auto, hour or day"),
        ("runs_series('2000-01-01', '2026-01-01', step => 'hour')", "a series has at most 100000 rows"),
        ("duration_heatmap(now(), now(), null, 'nightly')", "a pipeline is named together with its client"),
        ("error_classes(now(), now(), null, 'nightly')", "a pipeline is named together with its client"),
        ("runs_change(now(), now(), null, 'nightly')", "a pipeline is named together with its client"),
        ("summaries(now(), now(), 'galaxy')", "level must be pipeline, client or fleet"),
        ("summaries(now(), now(), 'client', null, 'nightly')", "a pipeline is named together with its client"),
        ("summaries(now(), now(), 'client', 'acme', 'nightly')", "level client is about more than what is named"),
        ("summaries(now(), now(), 'fleet', 'acme')", "level fleet is about more than what is named"),
    ],
)
def test_a_call_that_makes_no_sense_says_why(acme: Acme, call: str, reason: str) -> None:
    with pytest.raises(DBAPIError, match=reason) as failure:
        read(acme.connection, f"select * from analytics.{call}")
    assert getattr(failure.value.orig, "sqlstate", None) == "22023"


def test_clients_summary_has_a_row_per_client_by_slug(acme: Acme) -> None:
    put(acme, at(1), {20: 1}, succeeded_count=3, failed_count=1, duration_min_s=6.0, duration_max_s=6.0)
    client(acme.connection, "aaa", archived_at=at(1))
    rows = acme.connection.exec_driver_sql(
        "select * from analytics.clients_summary('2026-11-21 01:00+00', '2026-11-21 02:00+00')"
    ).mappings()
    quiet, busy = (dict(row) for row in rows)
    named = {"client": "aaa", "client_title": "aaa", "is_archived": True, "client_id": quiet["client_id"]}
    assert quiet == named | NOTHING
    assert busy["client_id"] == acme.client_id
    assert (busy["client"], busy["client_title"], busy["is_archived"]) == ("acme", "Acme & Co", False)
    assert (busy["succeeded_count"], busy["success_rate"], busy["duration_p95_s"]) == (3, 0.75, 6.0)


def test_a_level_of_pipelines_has_a_row_for_each(acme: Acme) -> None:
    put(acme, at(1), succeeded_count=3)
    pipeline(acme.connection, acme.client_id, "hourly", archived_at=at(1))
    query = (
        "select client, pipeline, pipeline_title, is_archived, succeeded_count"
        " from analytics.summaries(:from_at, :to_at, 'pipeline', 'acme') order by pipeline"
    )
    assert read(acme.connection, query, from_at=at(1), to_at=at(2)) == [
        ("acme", "hourly", "hourly", True, 0),
        ("acme", "nightly", "Nightly load", False, 3),
    ]


# -- series --------------------------------------------------------------------------------------------------


def series(acme: Acme, whose: str, from_at: datetime, to_at: datetime, step: str = "auto") -> list[dict[str, Any]]:
    query = f"select * from analytics.runs_series('{from_at}', '{to_at}', {whose}, '{step}')"
    return [dict(row) for row in acme.connection.exec_driver_sql(query).mappings()]


def test_a_series_shows_stored_hours_and_fills_the_others_with_zeros(acme: Acme, whose: str) -> None:
    stored = {
        "started_count": 3,
        "succeeded_count": 3,
        "failed_count": 1,
        "duration_sum_s": 8.0,
        "duration_min_s": 2.0,
        "duration_max_s": 4.0,
        "duration_p50_s": 2.5,
        "duration_p95_s": 3.5,
        "duration_p99_s": 4.0,
        "rows_sum": 9.0,
    }
    put(acme, at(2), {10: 4}, **stored)
    rows = series(acme, whose, at(1.5), at(4))
    assert [row["at"] for row in rows] == [at(1), at(2), at(3)]
    assert rows[0] == {"at": at(1)} | NOTHING
    rates = {"success_rate": 0.75, "failure_rate": 0.25, "retry_rate": 0.0, "on_time_rate": None}
    assert rows[1] == {"at": at(2)} | NOTHING | stored | rates | {
        "finished_count": 4,
        "duration_count": 4,
        "duration_avg_s": 2.0,
    }
    assert rows[2] == {"at": at(3)} | NOTHING


@pytest.mark.parametrize(
    ("days", "step", "rows", "between"),
    [
        (14, "auto", 14 * 24, HOUR),
        (15, "auto", 15, 24 * HOUR),
        (1, "day", 1, 24 * HOUR),
        (15, "hour", 15 * 24, HOUR),
    ],
)
def test_a_series_picks_hours_up_to_14_days(acme: Acme, days: int, step: str, rows: int, between: timedelta) -> None:
    times = [row["at"] for row in series(acme, "'acme', null", at(0) - timedelta(days=days), at(0), step)]
    assert len(times) == rows
    assert {later - earlier for earlier, later in pairwise(times)} <= {between}


def test_a_series_by_day_shows_days_whole(acme: Acme, whose: str) -> None:
    put_day(acme, at(day=20), started_count=5)
    put_day(acme, at(day=21), started_count=7)
    rows = series(acme, whose, at(13, day=20), at(1, day=21), "day")
    assert [(row["at"], row["started_count"]) for row in rows] == [(at(day=20), 5), (at(day=21), 7)]


def test_days_are_utc_days_whatever_the_session_zone(acme: Acme) -> None:
    """Across the end of summer time in Berlin, where a day has 25 hours."""
    acme.connection.exec_driver_sql("set local timezone = 'Europe/Berlin'")
    insert(acme.connection, "client_day", client_id=acme.client_id, day_utc=at(-26 * 24), **counted(started_count=5))
    days = [row["at"] for row in series(acme, "'acme', null", at(-30 * 24), at(0)) if row["started_count"] == 5]
    assert days == [at(-26 * 24)]
    assert summary(acme, "'acme', null", at(-30 * 24), at(0))["started_count"] == 5


def test_a_reader_who_sees_one_client_alone_sees_it_as_the_fleet(acme: Acme) -> None:
    put(acme, at(1), started_count=5)
    # As row-level security hides them: no row of the fleet, one client.
    acme.connection.exec_driver_sql("delete from pulsewatch.fleet_hour")
    assert summary(acme, "null, null", at(1), at(2))["started_count"] == 5
    assert [row["started_count"] for row in series(acme, "null, null", at(1), at(3))] == [5, 0]
    client(acme.connection, "beta")
    assert summary(acme, "null, null", at(1), at(2)) == NOTHING
