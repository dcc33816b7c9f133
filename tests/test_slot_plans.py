"""Which starts are expected: slots made ahead, followed up when schedules change, on real PostgreSQL."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, text

from pulsewatch import slots
from pulsewatch.slot_plans import plan
from pulsewatch.submissions import CatalogStatement
from tests.slotting import BEGIN, HOURLY, World, at, run, said


@pytest.fixture
def world(connection: Connection) -> World:
    return World(connection)


@pytest.fixture
def hourly(world: World) -> World:
    """A pipeline that is due at 0, 60, 120 ... minutes, with five minutes of grace."""
    world.put(said(schedule=HOURLY))
    return world


def test_slots_are_made_two_hours_ahead_and_the_next_one_however_far_off(world: World) -> None:
    world.put(said(schedule="*/30 * * * *"), said(schedule="0 3 1 1 *", pipeline="yearly"))
    world.settle(10)
    assert [minutes for minutes, *_ in world.slots()] == [0, 30, 60, 90, 120, 150, 180]
    assert world.query("select max(slot_at) from pulsewatch.slot") == [datetime(2027, 1, 1, 3, tzinfo=UTC)]


@pytest.mark.slow(15)
def test_as_time_goes_on_there_is_always_a_slot_ahead(world: World) -> None:
    world.put(said(schedule="0 */5 * * *"), said(schedule="@monthly", pipeline="monthly"))
    for minutes in range(0, 60 * 24 * 40, 173):
        world.settle(minutes)
        for pipeline in ("nightly", "monthly"):
            assert world.statuses(pipeline=pipeline)[-1] == "open"
    found = [at(minutes) for minutes, *_ in world.slots(pipeline="monthly")]
    assert found == [datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)]
    assert [at(minutes).hour % 5 for minutes, *_ in world.slots()] == [0] * len(world.slots())


def test_clocks_that_go_forward_or_back_neither_miss_nor_double_a_nightly_start(world: World) -> None:
    spring, autumn = datetime(2026, 3, 28, 12, tzinfo=UTC), datetime(2026, 10, 24, 12, tzinfo=UTC)
    for name, said_at in (("spring", spring), ("autumn", autumn)):
        changes = {"schedule": "30 2 * * *", "timezone": "Europe/Berlin"}
        world.put(CatalogStatement("acme", changes, said_at, name))
        plan(world.connection, said_at + timedelta(hours=40), keep_runs_days=400)
    found = world.query("select distinct slot_at from pulsewatch.slot order by slot_at")
    # 02:30 does not exist in spring: 03:00 is the first minute there is. In autumn it exists twice: the first counts.
    assert found[0] == datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
    assert found[1] == datetime(2026, 3, 30, 0, 30, tzinfo=UTC)
    assert [one for one in found if one > autumn][:2] == [
        datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
        datetime(2026, 10, 26, 1, 30, tzinfo=UTC),
    ]


def test_a_first_plan_begins_where_the_schedule_was_said(world: World) -> None:
    world.put(said(-130, schedule=HOURLY), run("a", -59))
    world.settle(6)
    assert world.slots(until=0) == [
        (-120, "missed", None, None),
        (-60, "on_time", "a", -59),
        (0, "missed", None, None),
    ]


def test_a_first_plan_reaches_back_ninety_days_at_most_and_never_before_runs_are_kept(world: World) -> None:
    year = 366 * 24 * 60
    world.put(said(-year, schedule="@daily"), said(-year, schedule="@daily", pipeline="other"))
    world.settle(0)
    assert at(world.slots()[0][0]) == datetime(2026, 8, 13, tzinfo=UTC)
    world.connection.execute(text("truncate pulsewatch.slot, pulsewatch.slot_plan"))
    plan(world.connection, BEGIN, keep_runs_days=10)
    assert at(world.slots()[0][0]) == datetime(2026, 11, 1, tzinfo=UTC)


def test_a_changed_schedule_counts_from_now_on_and_leaves_the_past_alone(hourly: World) -> None:
    hourly.put(run("a", 1))
    hourly.settle(70)
    hourly.put(said(71, schedule="30 * * * *"))
    hourly.settle(72)
    assert hourly.slots(until=210) == [
        (0, "on_time", "a", 1),
        (60, "missed", None, None),
        (90, "open", None, None),
        (150, "open", None, None),
        (210, "open", None, None),
    ]


@pytest.mark.parametrize(
    ("changes", "deadlines"),
    [
        ({"start_grace_s": 60.0}, [65, 121, 181]),
        ({"timezone": "Asia/Kolkata"}, [65, 95, 155]),
        ({"schedule": "@hourly"}, [65, 125, 185]),
        ({"title": "Nightly"}, [65, 125, 185]),
    ],
)
def test_another_grace_or_zone_counts_for_the_slots_to_come(
    hourly: World, changes: dict[str, Any], deadlines: list[float]
) -> None:
    hourly.settle(61)
    hourly.put(said(62, **changes))
    hourly.settle(63)
    query = "select deadline_at from pulsewatch.slot where slot_at >= '2026-11-10 13:00+00' order by slot_at limit 3"
    assert hourly.query(query) == [at(minutes) for minutes in deadlines]


def test_a_slot_that_an_early_run_has_taken_stays_when_the_schedule_changes(hourly: World) -> None:
    hourly.settle(58)
    hourly.put(run("early", 59.5))
    hourly.settle(59.6)
    hourly.put(said(59.6, schedule="30 * * * *"))
    hourly.settle(59.7)
    assert hourly.slots(until=100)[1:] == [(60, "on_time", "early", 59.5), (90, "open", None, None)]


@pytest.mark.parametrize(
    "end",
    [
        "update pulsewatch.pipeline set archived_at = now()",
        "update pulsewatch.client set archived_at = now()",
        "update pulsewatch.pipeline set schedule = null",
    ],
)
def test_where_nothing_is_expected_any_more_the_slots_ahead_go_and_the_others_stay(hourly: World, end: str) -> None:
    hourly.put(run("a", 61))
    hourly.settle(122)
    hourly.connection.execute(text(end))
    hourly.settle(123)
    expected = [(0, "missed", None, None), (60, "on_time", "a", 61), (120, "open", None, None)]
    assert hourly.slots() == expected
    assert hourly.query("select count(*) from pulsewatch.slot_plan") == [0]
    hourly.settle(500)
    assert hourly.slots() == [*expected[:2], (120, "missed", None, None)]


def test_nothing_was_expected_of_a_pipeline_while_it_was_archived(hourly: World) -> None:
    hourly.settle(10)
    hourly.connection.execute(text("update pulsewatch.pipeline set archived_at = now()"))
    hourly.settle(11)
    revived = text("update pulsewatch.pipeline set archived_at = null, updated_at = :at")
    hourly.connection.execute(revived, {"at": at(200)})
    hourly.settle(201)
    assert [minutes for minutes, *_ in hourly.slots(until=300)] == [0, 240, 300]


def test_a_worker_that_was_away_for_three_days_catches_up(hourly: World) -> None:
    hourly.put(run("a", 1))
    hourly.settle(2)
    days = 3 * 24 * 60
    hourly.put(*(run(f"r{minutes}", minutes + 1) for minutes in range(60, days, 60) if minutes % 600))
    hourly.put(said(days / 2 + 30, schedule="0 */2 * * *"))
    hourly.settle(days + 10)
    found = hourly.slots(until=days)
    # The schedule that was changed meanwhile counts from where the change was said.
    wanted = [*range(0, days // 2 + 30, 60), *range(days // 2 + 120, days + 1, 120)]
    assert [minutes for minutes, *_ in found] == wanted
    odd = [(minutes, status, name) for minutes, status, name, _ in found if status != "on_time"]
    # By the new schedule, a run in between counts for the slot before it.
    assert odd == [
        *((minutes, "missed", None) for minutes in (600, 1200, 1800)),
        *((minutes, "late", f"r{minutes + 60}") for minutes in (2400, 3000, 3600, 4200)),
        (days, "missed", None),
    ]


def test_one_schedule_that_cannot_be_worked_out_does_not_hold_up_the_others(
    hourly: World, caplog: pytest.LogCaptureFixture
) -> None:
    hourly.put(said(schedule=HOURLY, pipeline="odd"))
    hourly.connection.execute(text("update pulsewatch.pipeline set timezone = 'Mars/Olympus' where slug = 'odd'"))
    hourly.settle(1)
    assert (len(hourly.slots()), len(hourly.slots(pipeline="odd"))) == (4, 0)
    assert "Mars/Olympus" in caplog.text


def test_much_to_plan_is_done_in_rounds_and_nothing_is_judged_before_its_plan_is_complete(world: World) -> None:
    world.put(said(-3 * 24 * 60, schedule="every 1m"), run("a", -24 * 60), run("b", 1))
    judged = []
    for _ in range(3):
        assert plan(world.connection, at(2), keep_runs_days=400)[0] == 1
        judged.append(slots.judge(world.connection, at(2))[0])
    # 2000 a round: the third one comes to the present. Those before -3 are due, and there is b's.
    assert judged == [0, 0, 3 * 24 * 60 - 3 + 1]
    assert [row for row in world.slots(until=1) if row[1] == "on_time"] == [
        (-24 * 60, "on_time", "a", -24 * 60),
        (1, "on_time", "b", 1),
    ]
    assert plan(world.connection, at(2), keep_runs_days=400) == (0, False)
