"""duration_drift: rows given, rows expected. It speaks of the days before today, as the database sees today."""

from datetime import UTC, datetime, timedelta

from tests.analytics.conftest import Acme
from tests.analytics.rows import insert, read, record, uuid

DAY = timedelta(days=1)


def today(acme: Acme) -> datetime:
    ((start,),) = read(acme.connection, "select date_trunc('day', current_timestamp, 'UTC')")
    assert isinstance(start, datetime)
    return start.astimezone(UTC)


def put_day(acme: Acme, day: datetime, runs: int, total_s: float) -> None:
    counts = dict.fromkeys(
        ("started", "failed", "timed_out", "cancelled", "skipped", "retried", "on_time", "late", "missed"), 0
    )
    insert(
        acme.connection,
        "pipeline_day",
        **acme.keys,
        day_utc=day,
        **{f"{name}_count": number for name, number in counts.items()},
        succeeded_count=runs,
        duration_count=runs,
        duration_sum_s=total_s,
        duration_buckets=[0],
        duration_counts=[runs],
    )


def put_last_run(acme: Acme, duration_s: float | None) -> None:
    insert(
        acme.connection,
        "pipeline_state",
        **acme.keys,
        consecutive_failures=0,
        running_count=0,
        last_outcome_run_id=uuid(7),
        last_outcome="succeeded",
        last_finished_at=today(acme),
        last_duration_s=duration_s,
    )


def test_the_last_run_stands_beside_the_mean_of_the_seven_days_before_today(acme: Acme) -> None:
    for days, runs, total_s in ((0, 1, 1000.0), (1, 3, 30.0), (7, 1, 50.0), (8, 9, 9000.0)):
        put_day(acme, today(acme) - days * DAY, runs, total_s)
    put_last_run(acme, 50.0)
    assert record(acme.connection, "select * from analytics.duration_drift") == {
        **acme.keys,
        "client": "acme",
        "client_title": "Acme & Co",
        "pipeline": "nightly",
        "pipeline_title": "Nightly load",
        "environment": "prod",
        "owner": "data@acme.test",
        "last_run_id": uuid(7),
        "last_outcome": "succeeded",
        "last_finished_at": today(acme),
        "last_duration_s": 50.0,
        "usual_duration_s": 20.0,
        "usual_count": 4,
        "duration_ratio": 2.5,
    }


def test_a_pipeline_that_did_not_run_for_a_week_has_nothing_usual(acme: Acme) -> None:
    put_day(acme, today(acme) - 8 * DAY, 1, 10.0)
    put_last_run(acme, 50.0)
    assert read(acme.connection, "select pipeline from analytics.duration_drift") == []


def test_a_ratio_to_nothing_is_null(acme: Acme) -> None:
    put_day(acme, today(acme) - DAY, 2, 0.0)
    put_last_run(acme, 50.0)
    query = "select usual_duration_s, duration_ratio from analytics.duration_drift"
    assert read(acme.connection, query) == [(0.0, None)]
