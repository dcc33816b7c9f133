"""runs, run_events, run_metrics, run_attempts: rows given, rows expected."""

from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from pulsewatch.events import Status
from tests.analytics.conftest import Acme
from tests.analytics.rows import at, event, pipeline, read, record, run, uuid
from tests.examples import examples
from tests.test_ingest import DAY, put
from tests.test_ingest import event as told

MINUTE = timedelta(minutes=1)


def test_a_run_tells_its_state_and_whose_it_is(acme: Acme) -> None:
    run(
        acme.connection,
        *acme.ids,
        1,
        status="failed",
        attempt=2,
        error_class="Timeout",
        opening_scheduled_at=at(0.5),
        opening_metrics={"rows": 5, "bytes": 7},
        winner_metrics={"rows": 6.5},
    )
    row = record(acme.connection, "select * from analytics.runs")
    wanted = {
        **acme.keys,
        "run_id": uuid(1),
        "client": "acme",
        "client_title": "Acme & Co",
        "pipeline": "nightly",
        "pipeline_title": "Nightly load",
        "environment": "prod",
        "owner": "data@acme.test",
        "external_id": "run-1",
        "status": "failed",
        "status_code": 6,
        "attempt": 2,
        "is_failed": True,
        "scheduled_at": at(0.5),
        "started_at": at(1),
        "finished_at": at(1) + 10 * MINUTE,
        "duration_s": 600.0,
        "start_delay_s": 1800.0,
        "error_class": "Timeout",
        "rows": 6.5,
        "bytes": 7.0,
    }
    assert {name: row[name] for name in wanted} == wanted


def test_a_run_that_goes_on_and_reports_nothing_has_nulls(acme: Acme) -> None:
    run(acme.connection, *acme.ids, 1, status="running", finished_at=None)
    query = "select finished_at, duration_s, start_delay_s, rows, bytes, is_failed from analytics.runs"
    assert read(acme.connection, query) == [(None, None, None, None, None, False)]


def test_run_events_tell_what_was_said(acme: Acme) -> None:
    event(
        acme.connection,
        *acme.ids,
        uuid(1),
        1,
        occurred_at=at(1),
        received_at=at(1) + MINUTE,
        status="running",
        flags=1,
    )
    query = (
        "select client, pipeline, run_id, occurred_at, status, arrival_lag_s, is_assumed_utc, is_scheduled_at_ignored,"
        " client_title, pipeline_title, environment, owner from analytics.run_events"
    )
    assert read(acme.connection, query) == [
        (
            *("acme", "nightly", uuid(1), at(1), "running", 60.0, True, False),
            *("Acme & Co", "Nightly load", "prod", "data@acme.test"),
        )
    ]


def test_run_metrics_lay_the_winner_over_the_opening_event(acme: Acme) -> None:
    run(
        acme.connection,
        *acme.ids,
        1,
        opening_metrics={"rows": 5, "cost": 0.25},
        winner_metrics={"rows": 6, "bytes": 1e12},
    )
    run(acme.connection, *acme.ids, 2, first_at=at(2))
    query = "select run_id, external_id, status, first_at, metric, value from analytics.run_metrics order by metric"
    assert read(acme.connection, query) == [
        (uuid(1), "run-1", "succeeded", at(1), "bytes", 1e12),
        (uuid(1), "run-1", "succeeded", at(1), "cost", 0.25),
        (uuid(1), "run-1", "succeeded", at(1), "rows", 6.0),
    ]


ATTEMPTS = (
    "select attempt, is_last, status, is_failed, started_at, finished_at, duration_s, error_class"
    " from analytics.run_attempts order by run_id, attempt"
)


def test_a_run_without_a_retry_is_one_attempt(acme: Acme) -> None:
    run(acme.connection, *acme.ids, 1)
    assert read(acme.connection, ATTEMPTS) == [
        (0, True, "succeeded", False, at(1), at(1) + 10 * MINUTE, 600.0, None),
    ]


def test_earlier_attempts_are_worked_out_from_their_events(acme: Acme) -> None:
    ids = acme.ids
    run_id = run(acme.connection, *ids, 1, attempt=2, last_at=at(3), start_at=at(2), finished_at=at(3))
    said: list[tuple[datetime, dict[str, Any]]] = [
        # The first attempt failed; that it was reported as running afterwards changes nothing.
        (at(1), {"status": "running"}),
        (at(1) + 5 * MINUTE, {"status": "failed", "error_class": "Timeout"}),
        (at(1) + 6 * MINUTE, {"status": "running", "attempt": 0}),
        # The second one says how long it took, and never that it started.
        (at(1.5), {"status": "cancelled", "attempt": 1, "duration_s": 90.0}),
        (at(1.5), {"status": "info", "attempt": 1, "message": "cleaning up"}),
        (at(2), {"status": "running", "attempt": 2}),
        (at(3), {"status": "succeeded", "attempt": 2}),
    ]
    for number, (occurred_at, values) in enumerate(said):
        event(acme.connection, *ids, run_id, number, occurred_at=occurred_at, **values)
    # Another run's events at the same times stay out.
    event(acme.connection, *ids, uuid(9), 99, occurred_at=at(1), status="failed", attempt=1)
    assert read(acme.connection, ATTEMPTS) == [
        (0, False, "failed", True, at(1), at(1) + 5 * MINUTE, 300.0, "Timeout"),
        (1, False, "cancelled", False, at(1.5) - timedelta(seconds=90), at(1.5), 90.0, None),
        (2, True, "succeeded", False, at(2), at(3), 3600.0, None),
    ]


def test_an_attempt_that_another_took_over_from_never_ended(acme: Acme) -> None:
    ids = acme.ids
    run_id = run(acme.connection, *ids, 1, attempt=1, last_at=at(2), start_at=at(1.5), finished_at=at(2))
    event(acme.connection, *ids, run_id, 1, occurred_at=at(1), status="queued")
    event(acme.connection, *ids, run_id, 2, occurred_at=at(1.25), started_at=at(1.2), status="running")
    assert read(acme.connection, ATTEMPTS) == [
        (0, False, "running", False, at(1.2), None, None, None),
        (1, True, "succeeded", False, at(1.5), at(2), 1800.0, None),
    ]


SAID = st.lists(
    st.fixed_dictionaries(
        {"status": st.sampled_from([status for status in Status if status is not Status.TIMED_OUT])},
        optional={
            "minutes": st.integers(0, 3),
            "event_id": st.sampled_from(["a", "b", "c"]),
            "started_at": st.integers(-2, 2).map(lambda minutes: DAY + minutes * MINUTE),
            "duration_s": st.sampled_from([0.0, 30.5, 600.0]),
            "error_class": st.sampled_from(["Timeout", "OutOfMemory"]),
        },
    ),
    min_size=1,
    max_size=6,
)


@given(said=SAID)
@settings(
    max_examples=examples(50),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_an_attempt_has_the_state_that_its_run_would_have_without_later_ones(
    connection: Connection, said: list[dict[str, Any]]
) -> None:
    """The view's precedence is that of runstate: the same events give the same state to a run and to an attempt."""
    # Of two events of one identity that say different things the first is stored.
    stored: dict[object, Status] = {}
    for words in said:
        stored.setdefault((words.get("minutes", 0), words.get("event_id", words["status"])), words["status"])
    assume(any(status is not Status.INFO for status in stored.values()))
    with connection.begin_nested() as savepoint:
        # The run has the same name in both clients: it is part of the keys that settle ties.
        once = [told(**words, client="beta", run="1", attempt=0) for words in said]
        twice = [told(**words, client="gamma", run="1", attempt=0) for words in said]
        put(connection, *once, *twice, told(Status.RUNNING, 5, client="gamma", run="1", attempt=1))
        rows = read(
            connection,
            "select attempt, status, started_at, finished_at, duration_s, error_class from analytics.run_attempts"
            " order by client, attempt",
        )
        savepoint.rollback()
    assert [row[0] for row in rows] == [0, 0, 1]
    assert rows[0] == rows[1]


def test_runs_of_other_pipelines_keep_their_own_names(acme: Acme) -> None:
    other = pipeline(acme.connection, acme.client_id, "hourly")
    run(acme.connection, acme.client_id, other, 1)
    run(acme.connection, *acme.ids, 2)
    query = "select run_id, pipeline, pipeline_title from analytics.runs order by run_id"
    assert read(acme.connection, query) == [(uuid(1), "hourly", "hourly"), (uuid(2), "nightly", "Nightly load")]
