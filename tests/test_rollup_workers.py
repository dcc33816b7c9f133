"""Several workers, killed at random, leave the rows of one; a busy one rests; how far it is behind is told."""

import os
import random
import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import count

import pytest
from sqlalchemy import Engine

from pulsewatch import rollups
from pulsewatch.db import make_engine
from pulsewatch.events import RunEvent, Status
from pulsewatch.worker import Refresher
from tests.rollup_steps import DAY, NOW, SETTINGS, assert_right, catch_up, ended, execute, put, rows
from tests.running import Command


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = make_engine(database, pool_size=5, application_name="tests")
    yield engine
    engine.dispose()


PATIENCE_S = 90
DONE = "select count(*) from pulsewatch.pipeline_hour"
LOAD_S = float(os.environ.get("PULSEWATCH_TEST_LOAD_S", "15"))


@pytest.mark.slow(15)
def test_three_workers_that_are_killed_at_random_leave_the_rows_of_one(database: str, engine: Engine) -> None:
    chance = random.Random(3)  # noqa: S311 - an order, not a secret
    environment = {"PULSEWATCH_DATABASE_URL": database, "PULSEWATCH_LOG_FORMAT": "json"}
    workers = [Command("worker", **environment) for _ in range(3)]
    until = time.monotonic() + LOAD_S
    # Each is killed some time after its own start, which takes long on a busy machine: else none would do anything.
    kill_at: dict[int, float] = {}
    kills = 0
    sent: list[list[RunEvent]] = []
    try:
        # On a busy machine a worker takes its time to start, and to do anything: some are killed all the same.
        while time.monotonic() < until or (
            (kills < 3 or rows(engine, DONE) == [(0,)]) and time.monotonic() < until + PATIENCE_S
        ):
            sent.append([_any_event(chance) for _ in range(50)])
            put(engine, *sent[-1], *chance.choice(sent))
            victim = chance.randrange(3)
            if victim not in kill_at:
                if any("started" in line for line in workers[victim].err):
                    kill_at[victim] = time.monotonic() + chance.uniform(0.2, 3)
            elif time.monotonic() > kill_at[victim]:
                del kill_at[victim]
                workers[victim].stop(signal.SIGKILL)
                workers[victim] = Command("worker", **environment)
                kills += 1
    finally:
        for worker in workers:
            worker.stop()
    assert kills > 0
    assert rows(engine, DONE) > [(0,)], "the workers did nothing"
    catch_up(engine)
    assert_right(engine)


numbers = count()


def _any_event(chance: random.Random) -> RunEvent:
    run = chance.randrange(2000)
    return RunEvent(
        event_id=f"e{next(numbers)}",
        client=f"client-{run % 3}",
        pipeline=f"pipeline-{run % 20}",
        run=f"r{run}",
        status=chance.choice([Status.RUNNING, Status.SUCCEEDED, Status.FAILED, Status.SKIPPED, Status.QUEUED]),
        occurred_at=DAY + timedelta(minutes=run + chance.randrange(180)),
        attempt=chance.choice([None, None, 0, 1, 2]),
        duration_s=chance.choice([None, 1.5, 700.0]),
    )


def test_the_lag_is_the_age_of_the_oldest_mark(engine: Engine) -> None:
    with engine.connect() as connection:
        assert rollups.lag(connection) == (0, 0.0)
        assert not rollups.is_pouring_in(connection)
    put(engine, ended("r1", 10), ended("r2", 80))
    with engine.connect() as connection:
        assert not rollups.is_pouring_in(connection)
    more = (
        "insert into pulsewatch.dirty (client_id, pipeline_id, hour_at)"
        " select client_id, pipeline_id, hour_at from pulsewatch.dirty cross join generate_series(1, 500)"
    )
    execute(engine, more)
    with engine.connect() as connection:
        assert rollups.is_pouring_in(connection)
        assert not rollups.is_pouring_in(connection, 0)
    execute(
        engine,
        "update pulsewatch.dirty set marked_at = now() - interval '90 s'"
        " where hour_at = (select min(hour_at) from pulsewatch.dirty)",
    )
    with engine.connect() as connection:
        marks, lag_s = rollups.lag(connection)
    assert marks == 2 * 501
    assert 90 <= lag_s < 150
    catch_up(engine)
    with engine.connect() as connection:
        assert rollups.lag(connection) == (0, 0.0)


def test_a_rest_ends_once_nothing_more_pours_in(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, is_pouring_in = 100.0, True
    began: list[float] = []

    def refresh(*_: object, **__: object) -> int:
        nonlocal clock
        began.append(clock)
        clock += 3
        return 0

    monkeypatch.setattr("pulsewatch.worker.time.monotonic", lambda: clock)
    monkeypatch.setattr(rollups, "refresh", refresh)
    monkeypatch.setattr(rollups, "is_pouring_in", lambda *_: is_pouring_in)
    tick = Refresher(engine, SETTINGS)
    tick(NOW)
    clock = 105.0
    tick(NOW)
    assert began == [100.0]
    is_pouring_in = False
    tick(NOW)
    assert began == [100.0, 105.0]


def test_so_many_marks_are_taken_at_once_as_touch_a_bounded_number_of_hours_but_few_prove_little() -> None:
    pace = rollups.Pace()
    pace.adapt(50, 1)
    assert pace.marks == rollups.CHUNK_MARKS
    taken = []
    for _ in range(4):
        pace.adapt(pace.marks, 1000)
        taken.append(pace.marks)
    assert taken == [80_000, 320_000, rollups.MANY_MARKS, rollups.MANY_MARKS]
    pace.adapt(rollups.MANY_MARKS, rollups.CHUNK_MARKS * 5)
    assert pace.marks == rollups.MANY_MARKS // 5
    pace.adapt(rollups.CHUNK_MARKS, rollups.CHUNK_MARKS)
    assert pace.marks == rollups.CHUNK_MARKS
    pace.adapt(0, 0)
    assert pace.marks == rollups.CHUNK_MARKS


@pytest.mark.parametrize(
    ("took_s", "lag_s", "is_pouring_in", "began_at"),
    [
        (1, 1.0, True, [100.0, 111.0, 199.0, 220.0]),
        (3, 1.0, False, [100.0, 104.0, 111.0, 114.0, 199.0, 202.0, 220.0]),
        (3, 60.0, True, [100.0, 104.0, 111.0, 114.0, 199.0, 202.0, 220.0]),
        # It caught up on what had waited, and events still come.
        (90, 1.0, True, [100.0, 220.0]),
    ],
)
def test_a_tick_that_took_long_rests_for_longer_while_events_pour_in_unless_it_is_far_behind(
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    took_s: float,
    lag_s: float,
    is_pouring_in: bool,
    began_at: list[float],
) -> None:
    clock = [100.0]
    monkeypatch.setattr("pulsewatch.worker.time.monotonic", lambda: clock[0])
    began: list[float] = []

    def refresh(*_: object, **__: object) -> int:
        began.append(clock[0])
        clock[0] += took_s
        return 0

    monkeypatch.setattr(rollups, "refresh", refresh)
    monkeypatch.setattr(rollups, "lag", lambda _: (1, lag_s))
    monkeypatch.setattr(rollups, "is_pouring_in", lambda *_: is_pouring_in)
    tick = Refresher(engine, SETTINGS)
    for now in (100.0, 104.0, 111.0, 112.0, 199.0, 200.0, 220.0):
        clock[0] = max(clock[0], now)
        tick(NOW)
    assert began == began_at
