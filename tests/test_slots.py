"""Slots on real PostgreSQL: whether a start that was expected came on time."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from pulsewatch import rollups, slots, worker
from pulsewatch.db import make_engine
from pulsewatch.events import RunEvent, Status
from tests.examples import examples
from tests.slotting import BEGIN, HOURLY, SETTINGS, Shown, World, at, run, said
from tests.test_ingest import put


@pytest.fixture
def world(connection: Connection) -> World:
    return World(connection)


@pytest.fixture
def hourly(world: World) -> World:
    """A pipeline that is due at 0, 60, 120 ... minutes, with five minutes of grace."""
    world.put(said(schedule=HOURLY))
    return world


# -- judging ---------------------------------------------------------------------------------------------------


def test_a_start_up_to_the_deadline_is_on_time_and_one_after_it_late(hourly: World) -> None:
    hourly.put(run("a", 5), run("b", 65.01))
    hourly.settle(66)
    assert hourly.slots(until=60) == [(0, "on_time", "a", 5), (60, "late", "b", 65.01)]


def test_a_slot_is_open_up_to_its_deadline_and_missed_after_it(hourly: World) -> None:
    hourly.settle(5)
    assert hourly.statuses(until=0) == ["open"]
    hourly.settle(5.01)
    assert hourly.statuses(until=60) == ["missed", "open"]


def test_a_missed_slot_becomes_late_when_the_run_comes_after_all(hourly: World) -> None:
    hourly.settle(10)
    hourly.put(run("a", 20))
    hourly.settle(21)
    assert hourly.slots(until=0) == [(0, "late", "a", 20)]


def test_a_missed_slot_becomes_on_time_when_the_news_was_late_not_the_run(hourly: World) -> None:
    hourly.settle(10)
    hourly.put(run("a", 1))
    hourly.settle(21)
    assert hourly.slots(until=0) == [(0, "on_time", "a", 1)]


def test_the_pipelines_own_grace_counts_instead_of_five_minutes(world: World) -> None:
    world.put(said(schedule=HOURLY, start_grace_s=0.0), run("a", 0), run("b", 60.001))
    world.settle(61)
    assert world.slots(until=60) == [(0, "on_time", "a", 0), (60, "late", "b", 60.001)]


def test_a_run_that_says_what_it_was_for_has_that_slot_however_late(hourly: World) -> None:
    hourly.put(run("now", 181), run("again", 182, scheduled_at=at(60)))
    hourly.settle(190)
    assert hourly.slots(until=180) == [
        (0, "missed", None, None),
        (60, "late", "again", 182),
        (120, "missed", None, None),
        (180, "on_time", "now", 181),
    ]


def test_a_scheduled_at_that_is_no_slot_says_nothing(hourly: World) -> None:
    hourly.put(run("a", 61, scheduled_at=at(30)))
    hourly.settle(70)
    assert hourly.slots(until=60) == [(0, "missed", None, None), (60, "on_time", "a", 61)]


def test_a_start_up_to_a_minute_early_counts_for_the_coming_slot(hourly: World) -> None:
    hourly.put(run("a", 0), run("early", 59), run("too early", 118.99))
    hourly.settle(130)
    assert hourly.slots(until=120) == [
        (0, "on_time", "a", 0),
        (60, "on_time", "early", 59),
        (120, "missed", None, None),
    ]


def test_where_slots_are_close_a_start_counts_for_the_nearer_one(world: World) -> None:
    world.put(said(schedule="every 30s", start_grace_s=10.0), run("a", 0.2), run("b", 0.75), run("c", 1.3))
    world.settle(1.9)
    assert world.slots(until=1.5) == [
        (0, "late", "a", 0.2),
        (0.5, "missed", None, None),
        (1, "on_time", "b", 0.75),
        (1.5, "on_time", "c", 1.3),
    ]


def test_of_two_runs_in_one_window_the_first_has_the_slot(hourly: World) -> None:
    hourly.put(run("second", 3))
    hourly.settle(4)
    assert hourly.slots(until=0) == [(0, "on_time", "second", 3)]
    hourly.put(run("first", 2))
    hourly.settle(4)
    assert hourly.slots(until=60) == [(0, "on_time", "first", 2), (60, "open", None, None)]


def test_a_run_that_turns_out_to_have_started_earlier_moves_and_frees_its_slot(hourly: World) -> None:
    hourly.put(run("a", 62, Status.SUCCEEDED))
    hourly.settle(63)
    assert hourly.slots(until=60) == [(0, "missed", None, None), (60, "on_time", "a", 62)]
    hourly.put(run("a", 10, Status.RUNNING))
    hourly.settle(63)
    assert hourly.slots(until=60) == [(0, "late", "a", 10), (60, "open", None, None)]


def test_a_slot_whose_run_moves_goes_to_the_run_that_came_second_long_ago(hourly: World) -> None:
    hourly.put(run("first", 61, Status.SUCCEEDED), run("second", 300, scheduled_at=at(60)))
    hourly.settle(301)
    assert hourly.slots(until=60)[1] == (60, "on_time", "first", 61)
    hourly.put(run("first", 10, Status.RUNNING))
    hourly.settle(302)
    assert hourly.slots(until=60) == [(0, "late", "first", 10), (60, "late", "second", 300)]


def test_a_retry_that_starts_the_run_anew_makes_its_slot_late(hourly: World) -> None:
    hourly.put(run("a", 1), run("a", 3, Status.FAILED))
    hourly.settle(4)
    assert hourly.slots(until=0) == [(0, "on_time", "a", 1)]
    hourly.put(run("a", 9, attempt=1))
    hourly.settle(10)
    assert hourly.slots(until=0) == [(0, "late", "a", 9)]


@pytest.mark.parametrize("status", [Status.QUEUED, Status.INFO])
def test_a_run_that_never_started_has_no_slot(hourly: World, status: Status) -> None:
    hourly.put(run("a", 1, status))
    hourly.settle(6)
    assert hourly.slots(until=0) == [(0, "missed", None, None)]


@pytest.mark.parametrize("status", [Status.SKIPPED, Status.CANCELLED])
def test_a_run_that_was_skipped_or_cancelled_did_come(hourly: World, status: Status) -> None:
    hourly.put(run("a", 1, status))
    hourly.settle(6)
    assert hourly.slots(until=0) == [(0, "on_time", "a", 1)]


@pytest.mark.parametrize("status", [Status.SKIPPED, Status.CANCELLED])
def test_a_run_that_was_stopped_after_its_start_has_its_slot(hourly: World, status: Status) -> None:
    hourly.put(run("a", 2, status, started_at=at(1)))
    hourly.settle(6)
    assert hourly.slots(until=0) == [(0, "on_time", "a", 1)]


def test_a_run_known_by_its_end_alone_has_a_slot_by_the_start_that_its_duration_tells(hourly: World) -> None:
    hourly.put(run("a", 70, Status.FAILED, duration_s=3600.0))
    hourly.settle(71)
    assert hourly.slots(until=60) == [(0, "late", "a", 10), (60, "missed", None, None)]


def test_whatever_changes_marks_the_hour_of_its_slot(hourly: World) -> None:
    hourly.settle(130)
    hourly.settle(130)
    hourly.put(run("a", 131, scheduled_at=at(60)))
    rollups.refresh_chunk(hourly.connection, SETTINGS, at(130))
    assert hourly.query("select hour_at from pulsewatch.dirty") == []
    assert slots.judge(hourly.connection, at(130)) == (1, False)
    assert hourly.query("select hour_at from pulsewatch.dirty") == [at(60)]
    assert slots.judge(hourly.connection, at(130)) == (0, False)


# -- any order -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expected:
    """What a slot's row must be, worked out from all runs as plainly as it can be said."""

    slot_ats: Sequence[float]
    grace: float
    as_of: float

    def rows(self, starts: dict[str, tuple[float, float | None]]) -> list[Shown]:
        claims: dict[float, list[tuple[float, str]]] = {slot_at: [] for slot_at in self.slot_ats}
        for name, (start, scheduled) in starts.items():
            slot_at = self.claimed(start, scheduled)
            if slot_at is not None:
                claims[slot_at].append((start, name))
        return [self.row(slot_at, claims[slot_at]) for slot_at in self.slot_ats]

    def claimed(self, start: float, scheduled: float | None) -> float | None:
        if scheduled in self.slot_ats:
            return scheduled
        before = [slot_at for slot_at in self.slot_ats if slot_at <= start]
        coming = [slot_at for slot_at in self.slot_ats if start < slot_at <= start + 1]
        if coming and (not before or coming[0] - start <= (coming[0] - before[-1]) / 2):
            return coming[0]
        return before[-1] if before else None

    def row(self, slot_at: float, claims: list[tuple[float, str]]) -> Shown:
        if not claims:
            return (slot_at, "missed" if self.as_of > slot_at + self.grace else "open", None, None)
        start = min(start for start, _ in claims)
        name = next(name for at_, name in claims if at_ == start)
        return (slot_at, "on_time" if start <= slot_at + self.grace else "late", name, start)


@st.composite
def stories(draw: st.DrawFn) -> tuple[list[RunEvent], dict[str, tuple[float, float | None]]]:
    """Events of some runs, and for each run that started, when and what for. No two start at the same instant."""
    starts = draw(st.lists(st.integers(-40, 400), min_size=1, max_size=7, unique=True))
    events: list[RunEvent] = []
    told: dict[str, tuple[float, float | None]] = {}
    for number, quarter in enumerate(starts):
        name, start = f"r{number}", quarter / 2
        scheduled = draw(st.sampled_from([None, None, 0, 20, 40, 60, 45]))
        words: dict[str, Any] = {} if scheduled is None else {"scheduled_at": at(scheduled)}
        kind = draw(st.sampled_from(["pair", "end", "queued", "retried", "early"]))
        if kind in {"queued", "early"}:
            events.append(run(name, start - 10, Status.QUEUED, **words))
        if kind == "queued":
            continue
        if kind != "end":
            events.append(run(name, start, Status.RUNNING, **words))
        events.append(run(name, start + 7, Status.FAILED, duration_s=420.0, **words))
        told[name] = (start, scheduled)
        if kind == "retried":
            events.append(run(name, start + 13.25, Status.RUNNING, attempt=1, **words))
            told[name] = (start + 13.25, scheduled)
    return events, told


@pytest.mark.slow
@hypothesis_settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(story=stories(), data=st.data())
def test_any_order_of_arrival_with_ticks_in_between_gives_the_same_slots(
    connection: Connection, story: tuple[list[RunEvent], dict[str, tuple[float, float | None]]], data: st.DataObject
) -> None:
    events, starts = story
    order = data.draw(st.permutations(events))
    batches = data.draw(st.lists(st.integers(1, 4), min_size=len(order), max_size=len(order)))
    said_first = data.draw(st.booleans())
    with connection.begin_nested() as trial:
        world = World(connection)
        statement = said(schedule="every 20m", start_grace_s=120.0)
        if said_first:
            world.put(statement)
        left = list(order)
        for size in batches:
            if left:
                world.put(*left[:size])
                del left[:size]
                if data.draw(st.booleans()):
                    world.settle(data.draw(st.integers(0, 250)) if said_first else 0)
        if not said_first:
            world.put(statement)
        world.settle(250)
        expected = Expected([20.0 * number for number in range(13)], 2, 250).rows(starts)
        assert world.slots(until=240) == expected
        trial.rollback()


# -- the tick --------------------------------------------------------------------------------------------------


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = make_engine(database, pool_size=6, application_name="tests")
    yield engine
    engine.dispose()


@dataclass
class Workers:
    """Several workers at once, each ticking until nothing is left."""

    engine: Engine
    errors: list[Exception] = field(default_factory=list)

    def run(self, as_of: datetime) -> None:
        threads = [threading.Thread(target=self._work, args=(as_of,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not self.errors

    def _work(self, as_of: datetime) -> None:
        try:
            for _ in range(30):
                slots.tick(self.engine, SETTINGS, as_of)
        except Exception as error:
            self.errors.append(error)


def test_workers_that_tick_at_once_leave_the_same_slots_as_one(engine: Engine) -> None:
    def rows() -> list[Any]:
        with engine.connect() as connection:
            return list(connection.execute(text("select * from pulsewatch.slot order by pipeline_id, slot_at")))

    with engine.begin() as connection:
        for number in range(40):
            put(connection, said(-600, schedule=f"{number} * * * *", pipeline=f"p{number}"))
            put(connection, *(run(f"r{hour}", 60 * hour + number, pipeline=f"p{number}") for hour in range(-9, 0, 2)))
    Workers(engine).run(BEGIN)
    with engine.begin() as connection:
        rollups.refresh_chunk(connection, SETTINGS, BEGIN)
    Workers(engine).run(BEGIN)
    by_many = rows()
    assert len(by_many) == 40 * 13 + 1
    with engine.begin() as connection:
        connection.execute(text("truncate pulsewatch.slot, pulsewatch.slot_plan, pulsewatch.slot_mark"))
    while slots.tick(engine, SETTINGS, BEGIN).is_full:
        pass
    assert rows() == by_many


def test_a_tick_returns_at_once_while_another_worker_has_the_lock(engine: Engine) -> None:
    with engine.begin() as connection:
        put(connection, said(schedule=HOURLY))
    with engine.begin() as other:
        assert other.exec_driver_sql(slots.LOCK_SQL).scalar_one()
        assert slots.tick(engine, SETTINGS, BEGIN) == slots.Round()
    assert slots.tick(engine, SETTINGS, BEGIN) == slots.Round(planned=1)


def test_the_worker_goes_on_at_once_where_one_round_is_not_enough(engine: Engine) -> None:
    with engine.begin() as connection:
        put(connection, said(-3 * 24 * 60, schedule="every 1m"))
    worker.judge_slots(engine, SETTINGS, at(0.5))
    with engine.connect() as connection:
        count = text("select status, count(*) from pulsewatch.slot group by status order by status")
        # Up to five minutes ago they are missed; three hours lie ahead.
        assert connection.execute(count).all() == [("missed", 3 * 24 * 60 - 4), ("open", 5 + 180)]
