"""pipelines_now, slots, failing_spans and state_series: rows given, rows expected."""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from tests.analytics.conftest import Acme
from tests.analytics.rows import at, client, insert, pipeline, read, record, run, uuid
from tests.examples import examples

MINUTE = timedelta(minutes=1)


def put_state(acme: Acme, **values: Any) -> None:
    acme.connection.execute(text("delete from pulsewatch.pipeline_state"))
    insert(acme.connection, "pipeline_state", **acme.keys, **{"consecutive_failures": 0, "running_count": 0, **values})


def put_schedule(acme: Acme, schedule: str | None = "@hourly", said_at: datetime | None = None) -> None:
    said = json.dumps({} if said_at is None else {"schedule": round(said_at.timestamp() * 1e6)})
    acme.connection.execute(
        text("update pulsewatch.pipeline set schedule = :schedule, said_at = cast(:said as jsonb) where id = :id"),
        {"schedule": schedule, "said": said, "id": acme.pipeline_id},
    )


def put_slot(acme: Acme, hour: float, status: str, started_at: datetime | None = None) -> None:
    """An expected start that may be five minutes late."""
    put_schedule(acme)
    put_state(acme, last_slot_at=at(hour), last_slot_status=status)
    insert(
        acme.connection,
        "slot",
        **acme.keys,
        slot_at=at(hour),
        deadline_at=at(hour) + 5 * MINUTE,
        status=status,
        run_id=uuid(1) if started_at else None,
        started_at=started_at,
    )


def put_span(acme: Acme, began: float, ended: float | None, number: int = 1) -> None:
    insert(
        acme.connection,
        "failing_span",
        **acme.keys,
        run_id=uuid(number),
        first_at=at(began) - MINUTE,
        began_at=at(began),
        last_first_at=at(began),
        ended_at=None if ended is None else at(ended),
        failure_count=2,
    )


# -- now -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "health", "code"),
    [
        ({"last_outcome": "succeeded"}, "ok", 0),
        ({"last_outcome": "succeeded", "last_slot_status": "on_time"}, "ok", 0),
        ({"last_outcome": "succeeded", "running_count": 1}, "running", 1),
        ({"running_count": 1}, "running", 1),
        ({}, "unknown", 2),
        ({"last_run_status": "cancelled"}, "unknown", 2),
        ({"last_outcome": "succeeded", "last_slot_status": "late", "running_count": 1}, "late", 3),
        ({"last_outcome": "succeeded", "last_slot_status": "missed"}, "missed", 4),
        ({"last_slot_status": "missed"}, "missed", 4),
        ({"last_outcome": "failed", "consecutive_failures": 1, "last_slot_status": "missed"}, "failing", 5),
        ({"last_outcome": "timed_out", "consecutive_failures": 64, "running_count": 2}, "failing", 5),
    ],
)
def test_health_is_the_worst_of_what_is_known(acme: Acme, state: dict[str, Any], health: str, code: int) -> None:
    put_schedule(acme)
    put_state(acme, **state)
    query = "select health, health_code, is_failing from analytics.pipelines_now"
    assert read(acme.connection, query) == [(health, code, health == "failing")]


def test_a_pipeline_in_use_is_shown_before_anything_is_known_of_it(acme: Acme) -> None:
    other = client(acme.connection, "zeta", archived_at=at(1))
    pipeline(acme.connection, other, "old")
    pipeline(acme.connection, acme.client_id, "retired", archived_at=at(1))
    query = (
        "select client, pipeline, health, health_code, is_failing, consecutive_failures, running_count, last_run_id"
        " from analytics.pipelines_now"
    )
    assert read(acme.connection, query) == [("acme", "nightly", "unknown", 2, False, 0, 0, None)]


def test_a_missed_start_is_forgotten_once_the_schedule_is_gone(acme: Acme) -> None:
    """No next start would ever make up for it."""
    run(acme.connection, *acme.ids, 1, first_at=at(-40))
    put_slot(acme, 1, "missed")
    put_slot(acme, 2, "missed")
    put_schedule(acme, None, said_at=at(2) + MINUTE)
    put_state(acme, last_outcome="succeeded", last_slot_at=at(2), last_slot_status="missed")
    query = "select health, last_slot_status from analytics.pipelines_now"
    assert read(acme.connection, query) == [("ok", "missed")]
    missed = (at(1) + 5 * MINUTE, "missed", 4)
    assert states(acme, at(0), at(10)) == [(at(0), "ok", 0), missed, (at(2) + MINUTE, "ok", 0)]
    assert states(acme, at(3), at(10)) == [(at(3), "ok", 0)]
    assert states(acme, at(0), at(2)) == [(at(0), "ok", 0), missed]


def test_pipelines_now_shows_its_state_beside_the_catalog(acme: Acme) -> None:
    state = {
        "last_run_id": uuid(3),
        "last_run_status": "running",
        "last_run_first_at": at(5),
        "last_outcome_run_id": uuid(2),
        "last_outcome": "failed",
        "last_finished_at": at(4),
        "last_duration_s": 12.5,
        "last_error_class": "Timeout",
        "last_success_at": at(1),
        "consecutive_failures": 2,
        "failing_since": at(3),
        "running_count": 1,
        "running_since": at(5),
        "last_slot_at": at(5),
        "last_slot_status": "on_time",
        "next_slot_at": at(6),
    }
    put_state(acme, **state)
    assert record(acme.connection, "select * from analytics.pipelines_now") == {
        **acme.keys,
        "client": "acme",
        "client_title": "Acme & Co",
        "pipeline": "nightly",
        "pipeline_title": "Nightly load",
        "environment": "prod",
        "owner": "data@acme.test",
        "tags": "daily, etl",
        "schedule": None,
        "timezone": "UTC",
        "health": "failing",
        "health_code": 5,
        "is_failing": True,
        **state,
    }


# -- slots and spans -----------------------------------------------------------------------------------------


def test_slots_hold_expected_against_actual_starts(acme: Acme) -> None:
    put_slot(acme, 1, "on_time", at(1) - 0.5 * MINUTE)
    put_slot(acme, 2, "late", at(2) + 6 * MINUTE)
    put_slot(acme, 3, "missed")
    put_slot(acme, 4, "open")
    query = (
        "select client, pipeline, owner, slot_at, deadline_at, status, status_code, is_late, is_missed, run_id,"
        " started_at, delay_s from analytics.slots order by slot_at"
    )
    shown = read(acme.connection, query)
    assert {row[:3] for row in shown} == {("acme", "nightly", "data@acme.test")}
    assert [row[3:] for row in shown] == [
        (at(1), at(1) + 5 * MINUTE, "on_time", 0, False, False, uuid(1), at(1) - 0.5 * MINUTE, -30.0),
        (at(2), at(2) + 5 * MINUTE, "late", 2, True, False, uuid(1), at(2) + 6 * MINUTE, 360.0),
        (at(3), at(3) + 5 * MINUTE, "missed", 3, False, True, None, None, None),
        (at(4), at(4) + 5 * MINUTE, "open", 1, False, False, None, None, None),
    ]


def test_failing_spans_tell_how_long_it_took_to_recover(acme: Acme) -> None:
    put_span(acme, 1, 2.5)
    put_span(acme, 5, None, number=2)
    query = (
        "select client, pipeline, run_id, began_at, ended_at, is_open, duration_s, failure_count, first_at,"
        " last_first_at from analytics.failing_spans order by began_at"
    )
    assert read(acme.connection, query) == [
        ("acme", "nightly", uuid(1), at(1), at(2.5), False, 5400.0, 2, at(1) - MINUTE, at(1)),
        ("acme", "nightly", uuid(2), at(5), None, True, None, 2, at(5) - MINUTE, at(5)),
    ]


def test_a_span_that_a_quicker_success_had_ended_lasted_no_time(acme: Acme) -> None:
    put_span(acme, 3, 2)
    assert read(acme.connection, "select duration_s, is_open from analytics.failing_spans") == [(0.0, False)]


# -- health over time ----------------------------------------------------------------------------------------


def states(acme: Acme, from_at: datetime, to_at: datetime, whose: str = "'acme', 'nightly'") -> list[tuple[Any, ...]]:
    query = f"select at, state, state_code from analytics.state_series(:from_at, :to_at, {whose})"
    return read(acme.connection, query, from_at=from_at, to_at=to_at)


def test_a_window_begins_with_the_state_from_before_it(acme: Acme) -> None:
    run(acme.connection, *acme.ids, 1, first_at=at(-40))
    put_span(acme, -5, 2)
    put_span(acme, -30, -20, number=2)
    put_span(acme, 20, 21, number=3)
    assert states(acme, at(0), at(10)) == [(at(0), "failing", 5), (at(2), "ok", 0)]
    assert states(acme, at(3), at(10)) == [(at(3), "ok", 0)]
    assert states(acme, at(-1), at(2)) == [(at(-1), "failing", 5)]


def test_a_pipeline_is_unknown_until_a_first_run_has_ended(acme: Acme) -> None:
    assert states(acme, at(0), at(10)) == [(at(0), "unknown", 2)]
    run(acme.connection, *acme.ids, 1, first_at=at(1), status="skipped")
    run(acme.connection, *acme.ids, 2, first_at=at(2), finished_at=at(3))
    run(acme.connection, *acme.ids, 3, first_at=at(4))
    assert states(acme, at(0), at(10)) == [(at(0), "unknown", 2), (at(3), "ok", 0)]


def test_late_and_missed_starts_show_until_the_next_one_in_time(acme: Acme) -> None:
    run(acme.connection, *acme.ids, 1, first_at=at(-40))
    put_slot(acme, -1, "on_time", at(-1))
    put_slot(acme, 1, "missed")
    put_slot(acme, 2, "late", at(2) + 6 * MINUTE)
    put_slot(acme, 3, "on_time", at(3) - MINUTE)
    put_slot(acme, 4, "open")
    assert states(acme, at(0), at(10)) == [
        (at(0), "ok", 0),
        (at(1) + 5 * MINUTE, "missed", 4),
        (at(2) + 6 * MINUTE, "late", 3),
        (at(3) - MINUTE, "ok", 0),
    ]
    # The start at 1 o'clock is missed since five past, the one at 2 o'clock not judged yet.
    assert states(acme, at(2) + MINUTE, at(2) + 2 * MINUTE) == [(at(2) + MINUTE, "missed", 4)]
    assert states(acme, at(2) + MINUTE, at(2.5)) == [(at(2) + MINUTE, "missed", 4), (at(2) + 6 * MINUTE, "late", 3)]


def test_a_start_that_comes_after_the_next_one_changes_nothing(acme: Acme) -> None:
    run(acme.connection, *acme.ids, 1, first_at=at(-40))
    put_slot(acme, 1, "late", at(5))
    put_slot(acme, 2, "on_time", at(2))
    assert states(acme, at(0), at(10)) == [(at(0), "ok", 0)]


def test_failing_stands_before_missed(acme: Acme) -> None:
    run(acme.connection, *acme.ids, 1, first_at=at(-40))
    put_slot(acme, 1, "missed")
    put_span(acme, 2, 3)
    assert states(acme, at(0), at(10)) == [
        (at(0), "ok", 0),
        (at(1) + 5 * MINUTE, "missed", 4),
        (at(2), "failing", 5),
        (at(3), "missed", 4),
    ]


def test_a_span_that_ends_when_the_next_begins_is_one_state(acme: Acme) -> None:
    run(acme.connection, *acme.ids, 1, first_at=at(-40))
    put_span(acme, 1, 2)
    put_span(acme, 2, 3, number=2)
    assert states(acme, at(0), at(10)) == [(at(0), "ok", 0), (at(1), "failing", 5), (at(3), "ok", 0)]


def test_a_span_that_had_ended_before_it_began_hides_no_other(acme: Acme) -> None:
    run(acme.connection, *acme.ids, 1, first_at=at(-40))
    put_span(acme, 1, 5)
    put_span(acme, 4, 2, number=2)
    assert states(acme, at(0), at(10)) == [(at(0), "ok", 0), (at(1), "failing", 5), (at(5), "ok", 0)]
    assert states(acme, at(3), at(10)) == [(at(3), "failing", 5), (at(5), "ok", 0)]


def test_a_span_that_is_open_since_before_the_latest_one_still_counts(acme: Acme) -> None:
    """Its success began before the latest failure, and took longer."""
    run(acme.connection, *acme.ids, 1, first_at=at(-40))
    put_span(acme, 1, 6)
    put_span(acme, 2, 3, number=2)
    assert states(acme, at(4), at(10)) == [(at(4), "failing", 5), (at(6), "ok", 0)]


QUARTER = timedelta(minutes=15)
SLOTS = st.dictionaries(
    st.integers(-4, 8),
    st.one_of(
        st.just(("missed", None)),
        st.just(("open", None)),
        st.just(("on_time", 0)),
        st.tuples(st.just("late"), st.integers(1, 20)),
    ),
    max_size=8,
)
SPANS = st.lists(st.tuples(st.integers(-20, 40), st.one_of(st.none(), st.integers(-20, 40))), max_size=4)


@given(
    slots=SLOTS,
    spans=SPANS,
    outcome=st.one_of(st.none(), st.integers(-20, 40)),
    window=st.tuples(st.integers(-8, 20), st.integers(1, 30)),
)
@settings(
    max_examples=examples(100),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_series_says_at_any_time_what_had_become_known_by_then(
    acme: Acme,
    slots: dict[int, tuple[str, int | None]],
    spans: list[tuple[int, int | None]],
    outcome: int | None,
    window: tuple[int, int],
) -> None:
    """Quarters of an hour from midnight; a slot an hour, and its run so many quarters later."""
    known = {}
    with acme.connection.begin_nested() as savepoint:
        for hour, (status, quarters) in slots.items():
            started_at = None if quarters is None else at(hour) + quarters * QUARTER
            put_slot(acme, hour, status, started_at)
            if status != "open":
                known[at(hour)] = (started_at or at(hour) + 5 * MINUTE, status)
        for number, (began, ended) in enumerate(spans):
            put_span(acme, began / 4, None if ended is None else ended / 4, number)
        if outcome is not None:
            run(acme.connection, *acme.ids, 1, first_at=at(-40), finished_at=at(outcome / 4))
        from_at, to_at = at() + window[0] * QUARTER, at() + sum(window) * QUARTER
        shown = states(acme, from_at, to_at)
        savepoint.rollback()

    def state(now: datetime) -> str:
        if any(at(began / 4) <= now and (ended is None or now < at(ended / 4)) for began, ended in spans):
            return "failing"
        judged = [(slot_at, status) for slot_at, (judged_at, status) in known.items() if judged_at <= now]
        nothing = "ok" if outcome is not None and at(outcome / 4) <= now else "unknown"
        return max(judged)[1] if judged and max(judged)[1] != "on_time" else nothing

    expected = [(from_at, state(from_at))]
    for step in range((to_at - from_at) // (5 * MINUTE)):
        now = from_at + step * 5 * MINUTE
        if state(now) != expected[-1][1]:
            expected.append((now, state(now)))
    assert [row[:2] for row in shown] == expected


def test_the_series_of_a_client_and_of_all_leave_out_archived_pipelines(acme: Acme) -> None:
    pipeline(acme.connection, acme.client_id, "retired", archived_at=at(1))
    zeta = client(acme.connection, "zeta")
    other = pipeline(acme.connection, zeta, "hourly")
    call = "select client, pipeline, client_id, pipeline_id from analytics.state_series(:from_at, :to_at, {})"
    window = {"from_at": at(0), "to_at": at(1)}
    nightly = ("acme", "nightly", acme.client_id, acme.pipeline_id)
    assert read(acme.connection, call.format("'acme'"), **window) == [nightly]
    assert read(acme.connection, call.format("null"), **window) == [nightly, ("zeta", "hourly", zeta, other)]
    assert [row[:2] for row in read(acme.connection, call.format("'acme', 'retired'"), **window)] == [
        ("acme", "retired")
    ]
    call = call.replace("state_series", "pipeline_states")
    for several in ("'retired', 'nightly', 'nothing'", "variadic array['nightly', 'nightly', 'retired']"):
        found = read(acme.connection, call.format(f"'acme', {several}"), **window)
        assert [row[:2] for row in found] == [("acme", "nightly"), ("acme", "retired")]
    assert read(acme.connection, call.format("'acme', variadic null"), **window) == [nightly]
    assert read(acme.connection, call.format("'acme', variadic array[]::text[]"), **window) == []


def test_the_last_state_of_a_series_is_the_health_of_now(acme: Acme) -> None:
    """The same words from the same facts: state_series at its end says what pipelines_now says."""
    run(acme.connection, *acme.ids, 1, first_at=at(-40))
    put_slot(acme, 1, "missed")
    put_span(acme, 2, None)
    put_state(acme, consecutive_failures=2, last_outcome="failed", last_slot_at=at(1), last_slot_status="missed")
    ((now, code),) = read(acme.connection, "select health, health_code from analytics.pipelines_now")
    assert states(acme, at(0), at(10))[-1] == (at(2), now, code)
