"""Every question, asked of a real database as the role that Metabase reads with: rows given, rows expected."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.sql import Composed
from sqlalchemy import Connection, text

from pulsewatch.metabase.specs import Specs
from tests.analytics.alerting import alerting
from tests.analytics.conftest import Acme
from tests.analytics.rows import client, counted, insert, pipeline, run, uuid
from tests.metabase.mbql import native, statement

DAY = timedelta(days=1)


@pytest.fixture
def midnight(connection: Connection) -> datetime:
    """The start of today (UTC), as the database sees it."""
    found = connection.execute(text("select date_trunc('day', current_timestamp, 'UTC')")).scalar_one()
    assert isinstance(found, datetime)
    return found.astimezone(UTC)


def ask(connection: Connection, query: Composed) -> list[tuple[Any, ...]]:
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return [tuple(row) for row in driver.execute(query)]


def put_days(connection: Connection, midnight: datetime) -> None:
    """Two clients; of each a day, yesterday, with other numbers."""
    for slug, share in (("acme", 1), ("beta", 2)):
        client_id = client(connection, slug)
        pipeline_id = pipeline(connection, client_id)
        numbers = counted(
            {0: 8}, succeeded_count=6 * share, failed_count=1, timed_out_count=1, retried_count=share,
            on_time_count=3, late_count=1, rows_sum=100.0 * share, duration_sum_s=80.0, duration_min_s=1.0,
            duration_max_s=20.0, duration_p50_s=10.0, duration_p95_s=19.0 * share, duration_p99_s=20.0,
        )  # fmt: skip
        day = {"day_utc": midnight - DAY, **numbers}
        insert(connection, "client_day", client_id=client_id, **day)
        insert(connection, "pipeline_day", client_id=client_id, pipeline_id=pipeline_id, **day)
        if slug == "acme":
            insert(connection, "fleet_day", **day)


def test_every_question_is_answered_for_the_role_that_reads(specs: Specs, reader_dsn: str) -> None:
    with psycopg.connect(reader_dsn) as reader:
        assert reader.execute("select current_user, current_setting('transaction_read_only')").fetchone() == (
            "pulsewatch_metabase",
            "on",
        )
        for question in specs.questions:
            answer = reader.execute(statement(specs, question))
            assert answer.description is not None
            names = [column.name for column in answer.description]
            wanted = question.result_columns() or [*question.dimensions, *question.measures]
            assert set(wanted) <= set(names), question.key
            if question.table is not None:
                assert names == wanted, question.key


def test_native_questions_are_answered_with_and_without_their_variables(specs: Specs, reader_dsn: str) -> None:
    asked = [question for question in specs.questions if question.native is not None]
    assert asked != []
    with psycopg.connect(reader_dsn) as reader:
        for question in asked:
            for value in ("acme", "o'neill; drop table x", ""):
                values = dict.fromkeys(question.variables, value)
                assert reader.execute(statement(specs, question, **values)).fetchall() == []


def test_optional_parts_stand_or_fall_with_their_variables() -> None:
    query = "select 1 [[, {{a}}]] [[, {{a}} || {{b}}]]"
    assert native(query, {}).as_string().split() == ["select", "1"]
    assert native(query, {"a": "it's"}).as_string().split() == ["select", "1", ",", "'it''s'"]


def test_numbers_over_time_are_those_of_all_clients_together(
    connection: Connection, specs: Specs, midnight: datetime
) -> None:
    put_days(connection, midnight)
    yesterday = midnight - DAY
    expected = {
        "runs": [(22,)],
        "success_rate": [(18 / 22,)],
        "failures": [(4,)],
        "on_time_rate": [(6 / 8,)],
        "retry_rate": [(3 / 22,)],
        "success_rate_daily": [(yesterday, 18 / 22)],
        "outcomes_daily": [(yesterday, 18, 2, 2, 0, 0)],
        "durations_daily": [(yesterday, 10.0, 19.0, 20.0)],
        "rows_daily": [(yesterday, 300.0)],
        "retries_daily": [(yesterday, 3 / 22)],
    }
    assert {key: ask(connection, statement(specs, specs.question(key))) for key in expected} == expected


def test_pipelines_are_ordered_by_what_is_worst(connection: Connection, specs: Specs, midnight: datetime) -> None:
    put_days(connection, midnight)
    slowest = ask(connection, statement(specs, specs.question("slowest_pipelines")))
    assert [(row[0], row[4:]) for row in slowest] == [
        ("beta", (8, 10.0, 38.0, 20.0)),
        ("acme", (8, 10.0, 19.0, 20.0)),
    ]
    failures = ask(connection, statement(specs, specs.question("failures_by_pipeline")))
    assert sorted(failures) == [("nightly", "acme", 2), ("nightly", "beta", 2)]
    retries = ask(connection, statement(specs, specs.question("retries_by_pipeline")))
    assert retries == [("beta", "nightly", 2, 14, 2 / 14), ("acme", "nightly", 1, 8, 1 / 8)]


def test_what_lies_outside_its_window_is_left_out(connection: Connection, specs: Specs, midnight: datetime) -> None:
    client_id = client(connection)
    keys = {"client_id": client_id, "pipeline_id": pipeline(connection, client_id)}
    for days in (0, 7, 8):
        insert(connection, "pipeline_day", **keys, day_utc=midnight - days * DAY, **counted({0: 1}, failed_count=1))
    # Today and the seven whole days before it; of yesterday nothing.
    assert ask(connection, statement(specs, specs.question("failures_by_pipeline"))) == [("nightly", "acme", 2)]
    assert ask(connection, statement(specs, specs.question("slowest_pipelines"))) == []


def test_failing_pipelines_are_listed_the_longest_first(
    connection: Connection, specs: Specs, midnight: datetime
) -> None:
    client_id = client(connection)
    for hours, slug in ((1, "short"), (5, "long"), (0, "well")):
        keys = {"client_id": client_id, "pipeline_id": pipeline(connection, client_id, slug)}
        failing = {"failing_since": midnight - timedelta(hours=hours), "last_error_class": "Timeout"} if hours else {}
        insert(
            connection, "pipeline_state", **keys, consecutive_failures=hours, running_count=0,
            last_outcome="failed" if hours else "succeeded", **failing,
        )  # fmt: skip
    rows = ask(connection, statement(specs, specs.question("failing_now")))
    assert [(row[1], row[5], row[6]) for row in rows] == [("long", 5, "Timeout"), ("short", 1, "Timeout")]
    assert ask(connection, statement(specs, specs.question("failing_count"))) == [(2,)]


def test_failed_runs_of_the_last_day_are_listed(connection: Connection, specs: Specs) -> None:
    client_id = client(connection)
    keys = {"client_id": client_id, "pipeline_id": pipeline(connection, client_id)}
    now = connection.execute(text("select current_timestamp")).scalar_one()
    for number, (status, hours) in enumerate((("failed", 1), ("timed_out", 2), ("succeeded", 1), ("failed", 50))):
        first_at = now - timedelta(hours=hours)
        run(connection, **keys, number=number, status=status, first_at=first_at)
    rows = ask(connection, statement(specs, specs.question("failed_runs")))
    assert [(row[5], row[-1]) for row in rows] == [("failed", uuid(0)), ("timed_out", uuid(1))]


# -- alerts -----------------------------------------------------------------------------------------------------------


def test_alerts_are_counted_by_day_level_and_owner_and_rules_by_how_often_they_fired(
    connection: Connection, specs: Specs, midnight: datetime
) -> None:
    client_id = client(connection)
    connection.execute(text("select pulsewatch.ensure_partition(:day)"), {"day": midnight.date()})
    alerts = alerting(Acme(connection, client_id, pipeline(connection, client_id, owner="ada")))
    minute = timedelta(minutes=1)
    yesterday = midnight - DAY
    alerts.alert(1, fired_at=yesterday, resolved_at=yesterday + 2 * minute)
    alerts.alert(2, fired_at=yesterday, level=2, acknowledged_at=yesterday + minute, resolved_at=yesterday + 8 * minute)
    alerts.alert(3, fired_at=midnight, level=2)
    alerts.alert(4, fired_at=midnight, level=2, pipeline_id=99, is_dry_run=True)
    alerts.message(1, created_at=midnight, status="sent", sent_at=midnight + minute)
    alerts.message(2, created_at=midnight - 8 * DAY)
    expected: dict[str, list[tuple[Any, ...]]] = {
        "alerts_fired": [(3,)],
        "time_to_acknowledge": [(60.0,)],
        "time_to_resolve": [(300.0,)],
        "open_count": [(1,)],
        "alerts_daily": [(yesterday, "critical", 1), (yesterday, "warning", 1), (midnight, "critical", 1)],
        "alert_times": [("critical", "ada", 2, 60.0, 480.0), ("warning", "ada", 1, None, 120.0)],
        "delivery": [("On call", "sent", 1)],
    }
    assert {key: ask(connection, statement(specs, specs.question(key))) for key in expected} == expected
    ((*named, last_fired_at),) = ask(connection, statement(specs, specs.question("noisiest_rules")))
    assert named == [
        "Too many failures", "failures", "consecutive_failures", 3, 21.0, 2, 1 / 3, 1 / 3, 60.0, 300.0,
    ]  # fmt: skip
    assert last_fired_at == midnight
    open_alerts = ask(connection, statement(specs, specs.question("open_alerts")))
    assert [row[:7] for row in open_alerts] == [
        ("critical", 2, "acme", "nightly", "ada", "Too many failures", "alert 3")
    ]
