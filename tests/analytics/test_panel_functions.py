"""clients_now, runs_change, duration_heatmap and error_classes: rows given, rows expected."""

from datetime import timedelta
from typing import Any

import pytest

from tests.analytics.conftest import Acme
from tests.analytics.rows import at, client, counted, insert, pipeline, read, record, uuid
from tests.analytics.test_summaries import put, put_day

MINUTE = timedelta(minutes=1)


# -- clients now ---------------------------------------------------------------------------------------------


def put_pipeline(acme: Acme, slug: str, *, archived: bool = False, **state: Any) -> None:
    pipeline_id = pipeline(
        acme.connection, acme.client_id, slug, schedule="@hourly", archived_at=at(9) if archived else None
    )
    keys = {"client_id": acme.client_id, "pipeline_id": pipeline_id}
    insert(acme.connection, "pipeline_state", **keys, **{"consecutive_failures": 0, "running_count": 0, **state})


def test_clients_now_counts_pipelines_in_use_by_their_health(acme: Acme) -> None:
    put_pipeline(acme, "a", consecutive_failures=2, last_slot_status="missed", last_run_first_at=at(3))
    put_pipeline(acme, "b", last_slot_status="missed", running_count=2, last_success_at=at(2))
    put_pipeline(acme, "c", last_slot_status="late", running_count=1, last_success_at=at(1))
    put_pipeline(acme, "d", archived=True, consecutive_failures=1, running_count=9, last_run_first_at=at(8))
    client(acme.connection, "gone", archived_at=at(1))
    quiet = client(acme.connection, "quiet")
    assert read(acme.connection, "select * from analytics.clients_now order by client") == [
        (acme.client_id, "acme", "Acme & Co", 4, 1, 1, 1, 3, at(3), at(2)),
        (quiet, "quiet", "quiet", 0, 0, 0, 0, 0, None, None),
    ]


# -- change --------------------------------------------------------------------------------------------------


def change(acme: Acme, window: str, whose: str = "'acme'") -> dict[str, Any]:
    return record(acme.connection, f"select * from analytics.runs_change({window}, {whose})")


def test_a_change_compares_with_as_many_hours_before(acme: Acme) -> None:
    put(acme, at(2), {20: 4}, succeeded_count=3, failed_count=1, duration_min_s=8.0, duration_max_s=8.0)
    put(acme, at(1), {10: 2}, succeeded_count=1, failed_count=1, duration_min_s=2.0, duration_max_s=2.0)
    put(acme, at(0), succeeded_count=100)
    expected = {
        "success_rate": 0.75,
        "previous_success_rate": 0.5,
        "success_rate_change": 0.25,
        "finished_count": 4,
        "previous_finished_count": 2,
        "duration_p95_s": 8.0,
        "previous_duration_p95_s": 2.0,
        "duration_p95_change_s": 6.0,
    }
    for whose in ("null", "'acme'", "'acme', 'nightly'"):
        assert change(acme, "'2026-11-21 02:00+00', '2026-11-21 03:00+00'", whose) == expected


def test_a_change_counts_no_hour_on_both_sides(acme: Acme) -> None:
    """The window from half past one is that from one on, as everywhere; the one before ends there."""
    for hour, count in ((-1, 1000), (0, 1), (1, 10), (2, 100)):
        put(acme, at(hour), succeeded_count=count)
    found = change(acme, "'2026-11-21 01:30+00', '2026-11-21 02:30+00'")
    assert (found["finished_count"], found["previous_finished_count"]) == (110, 1001)


def test_the_time_before_is_as_long_whatever_clocks_do_in_the_session_zone(acme: Acme) -> None:
    """Summer time ended in Berlin on 25 October: the day before the 26th had 25 hours there, but has 24 here."""
    acme.connection.exec_driver_sql("select pulsewatch.ensure_partition('2026-10-01')")
    acme.connection.exec_driver_sql("set local timezone = 'Europe/Berlin'")
    window = "'2026-10-26 00:30+00', '2026-10-27 00:30+00'"
    put(acme, at((-27 + 1) * 24 - 25), succeeded_count=5)
    assert change(acme, window)["previous_finished_count"] == 5
    put(acme, at((-27 + 1) * 24 - 26), succeeded_count=100)
    assert change(acme, window)["previous_finished_count"] == 5


def test_a_change_from_nothing_is_unknown(acme: Acme) -> None:
    put(acme, at(2), succeeded_count=1)
    found = change(acme, "'2026-11-21 02:00+00', '2026-11-21 03:00+00'")
    assert (found["success_rate"], found["previous_success_rate"], found["success_rate_change"]) == (1.0, None, None)


# -- heatmap -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whose", ["null, null", "'acme', null", "'acme', 'nightly'"])
def test_a_heatmap_counts_each_duration_in_one_column(acme: Acme, whose: str) -> None:
    put(acme, at(1), {-80: 1, -1: 2, 0: 3, 15: 4, 16: 5, 40: 6, 63: 7, 64: 8, 80: 9, 111: 10, 112: 11, 150: 12})
    put(acme, at(2), started_count=1)  # nothing finished
    put(acme, at(3), {20: 1})  # after the window
    query = f"select * from analytics.duration_heatmap('2026-11-21 01:30+00', '2026-11-21 03:00+00', {whose})"
    assert read(acme.connection, query) == [(at(1), 3, 7, 5, 6, 7, 8, 9, 10, 23)]


@pytest.mark.parametrize(
    ("bound_s", "bucket"), [(1, 0), (4, 16), (16, 32), (64, 48), (256, 64), (1024, 80), (16384, 112)]
)
def test_columns_end_where_buckets_end(acme: Acme, bound_s: float, bucket: int) -> None:
    query = "select pulsewatch.duration_bucket(:bound_s), pulsewatch.duration_bucket(:bound_s * (1 - 1e-12))"
    assert read(acme.connection, query, bound_s=float(bound_s)) == [(bucket, bucket - 1)]


def test_a_heatmap_goes_by_day_over_more_than_14_days(acme: Acme) -> None:
    put_day(acme, at(day=20), {20: 3})
    query = "select at, le_16 from analytics.duration_heatmap('2026-11-01', '2026-11-21 06:00+00', 'acme')"
    assert read(acme.connection, query) == [(at(day=20), 3)]


def test_who_sees_one_client_alone_sees_its_heatmap_as_that_of_the_fleet(acme: Acme) -> None:
    insert(acme.connection, "client_hour", client_id=acme.client_id, hour_at=at(1), **counted({20: 3}))
    query = "select at, le_16 from analytics.duration_heatmap('2026-11-21', '2026-11-22')"
    assert read(acme.connection, query) == [(at(1), 3)]


# -- kinds of failure ----------------------------------------------------------------------------------------


def put_failure(
    acme: Acme, number: int, pipeline_id: int, hour: float, failures: int, error_class: str | None = None
) -> None:
    insert(
        acme.connection,
        "failing_span",
        client_id=acme.client_id,
        pipeline_id=pipeline_id,
        run_id=uuid(number),
        first_at=at(hour) - 10 * MINUTE,
        began_at=at(hour),
        last_first_at=at(hour),
        failure_count=failures,
        error_class=error_class,
    )


def test_kinds_of_failure_are_counted_by_the_spans_that_they_began(acme: Acme) -> None:
    other = pipeline(acme.connection, acme.client_id, "other")
    put_failure(acme, 1, acme.pipeline_id, 1, 5, "Timeout")
    put_failure(acme, 2, acme.pipeline_id, 2, 1, "Timeout")
    put_failure(acme, 3, other, 1, 2, "Timeout")
    put_failure(acme, 4, other, 1.5, 9, "timed_out")
    put_failure(acme, 5, other, 2, 30)  # from before the kind was kept
    put_failure(acme, 6, other, 3, 1, "Later")
    call = "select * from analytics.error_classes(:from_at, :to_at, {}) "
    window = {"from_at": at(1), "to_at": at(3)}
    all_of_them = [("Timeout", 3, 8, 2), ("timed_out", 1, 9, 1), ("unknown", 1, 30, 1)]
    assert read(acme.connection, call.format("null"), **window) == all_of_them
    assert read(acme.connection, call.format("'acme'"), **window) == all_of_them
    assert read(acme.connection, call.format("'acme', 'nightly'"), **window) == [("Timeout", 2, 6, 1)]
