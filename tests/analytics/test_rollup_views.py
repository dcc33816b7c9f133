"""runs_hourly ... fleet_daily, duration_hist_hourly: rows given, rows expected."""

from typing import Any

import pytest

from tests.analytics.conftest import Acme
from tests.analytics.rows import at, client, counted, insert, read, record

STORED: dict[str, Any] = {
    "started_count": 12,
    "succeeded_count": 6,
    "failed_count": 1,
    "timed_out_count": 1,
    "cancelled_count": 1,
    "skipped_count": 1,
    "retried_count": 2,
    "on_time_count": 6,
    "late_count": 1,
    "missed_count": 1,
    "duration_sum_s": 60.0,
    "duration_min_s": 5.0,
    "duration_max_s": 30.0,
    "duration_p50_s": 6.0,
    "duration_p95_s": 29.0,
    "duration_p99_s": 30.0,
    "rows_sum": 1e9,
    "bytes_sum": 1e12,
}
# Eight durations: six in bucket 20, two in bucket 39.
DURATIONS = {20: 6, 39: 2}
SHOWN = {
    **STORED,
    "finished_count": 10,
    "failure_count": 2,
    "outcome_count": 8,
    "expected_count": 8,
    "success_rate": 0.75,
    "failure_rate": 0.25,
    "retry_rate": 0.2,
    "on_time_rate": 0.75,
    "duration_count": 8,
    "duration_avg_s": 7.5,
}
VIEWS = [
    ("runs_hourly", "pipeline_hour", "hour_at"),
    ("runs_daily", "pipeline_day", "day_utc"),
    ("client_hourly", "client_hour", "hour_at"),
    ("client_daily", "client_day", "day_utc"),
    ("fleet_hourly", "fleet_hour", "hour_at"),
    ("fleet_daily", "fleet_day", "day_utc"),
]


def keys_of(acme: Acme, table: str) -> dict[str, Any]:
    level = table.split("_")[0]
    keys: dict[str, Any] = {"pipeline": acme.keys, "client": {"client_id": acme.client_id}, "fleet": {}}[level]
    return keys | ({"open_count": 3} if table == "pipeline_hour" else {})


@pytest.mark.parametrize(("view", "table", "time"), VIEWS)
def test_a_rollup_shows_its_numbers_and_rates(acme: Acme, view: str, table: str, time: str) -> None:
    keys = keys_of(acme, table)
    insert(acme.connection, table, **keys, **{time: at(0)}, **counted(DURATIONS, **STORED))
    row = record(acme.connection, f"select * from analytics.{view}")
    names = {"client": "acme", "client_title": "Acme & Co"} if "client_id" in keys else {}
    if "pipeline_id" in keys:
        names |= {
            "pipeline": "nightly",
            "pipeline_title": "Nightly load",
            "environment": "prod",
            "owner": "data@acme.test",
        }
    assert row == {**keys, **names, time: at(0), **SHOWN}


@pytest.mark.parametrize(("view", "table", "time"), VIEWS)
def test_rates_and_durations_of_nothing_are_null(acme: Acme, view: str, table: str, time: str) -> None:
    """Cancelled and skipped runs count for no success and no failure."""
    numbers = counted(cancelled_count=1, skipped_count=1)
    insert(acme.connection, table, **keys_of(acme, table), **{time: at(0)}, **numbers)
    query = (
        "select finished_count, success_rate, failure_rate, retry_rate, on_time_rate, duration_sum_s, duration_avg_s,"
        " duration_min_s, duration_max_s, duration_p50_s, duration_p95_s, duration_p99_s, rows_sum"
        f" from analytics.{view}"
    )
    assert read(acme.connection, query) == [(2, None, None, 0.0, None, 0.0, *[None] * 7)]


@pytest.mark.parametrize("view", [view for view, *_ in VIEWS])
def test_all_rollups_name_the_same_numbers_in_the_same_order(acme: Acme, view: str) -> None:
    names = "select attname from pg_attribute where attrelid = cast(:view as regclass) and attnum > 0 order by attnum"
    columns = [name for (name,) in read(acme.connection, names, view=f"analytics.{view}")]
    fleet = [name for (name,) in read(acme.connection, names, view="analytics.fleet_hourly")]
    first = columns.index("started_count")
    assert [name for name in columns[first:] if name != "open_count"] == fleet[1:]


def test_durations_of_an_hour_are_shown_by_bucket(acme: Acme) -> None:
    held = {-80: 1, 0: 2, 8: 3}
    insert(acme.connection, "client_hour", client_id=acme.client_id, hour_at=at(1), **counted(held))
    other = client(acme.connection, "beta")
    insert(acme.connection, "client_hour", client_id=other, hour_at=at(1), **counted())
    query = "select client, hour_at, lower_s, upper_s, run_count from analytics.duration_hist_hourly order by upper_s"
    rows = read(acme.connection, query)
    assert [row[:3] + row[4:] for row in rows] == [
        ("acme", at(1), 0.0, 1),  # whatever is shorter than the first bound
        ("acme", at(1), 1.0, 2),
        ("acme", at(1), 2.0, 3),
    ]
    assert [row[3] for row in rows] == pytest.approx([2 ** (-79 / 8), 2 ** (1 / 8), 2 ** (9 / 8)], rel=1e-12)


@pytest.mark.parametrize("duration_s", [0.0, 0.001, 0.5, 1.0, 59.9, 3600.0, 86400.0 * 366])
def test_a_duration_lies_within_the_bounds_of_its_bucket(acme: Acme, duration_s: float) -> None:
    (bucket,) = read(acme.connection, "select pulsewatch.duration_bucket(:duration_s)", duration_s=duration_s)[0]
    insert(acme.connection, "client_hour", client_id=acme.client_id, hour_at=at(1), **counted({bucket: 1}))
    ((lower_s, upper_s),) = read(acme.connection, "select lower_s, upper_s from analytics.duration_hist_hourly")
    assert lower_s <= duration_s < upper_s
