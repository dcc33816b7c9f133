"""The worker's ticks, and the process that runs them: it outlives its database and tells when it goes."""

import logging
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, text

from pulsewatch import retention, worker
from pulsewatch.db import make_engine
from pulsewatch.settings import Settings
from pulsewatch.worker import Worker, clean_up, farewell, guarded, heartbeat, make_room
from tests.running import until

AS_OF = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = make_engine(database, pool_size=3, application_name="tests")
    yield engine
    engine.dispose()


def beats(engine: Engine) -> list[tuple[str, datetime, datetime]]:
    with engine.connect() as connection:
        query = text("select worker_id, started_at, beat_at from pulsewatch.worker_heartbeat order by worker_id")
        return [tuple(row) for row in connection.execute(query)]


def test_a_worker_beats_in_one_row_of_its_own_and_takes_it_away(engine: Engine) -> None:
    later = AS_OF + timedelta(seconds=5)
    heartbeat(engine, AS_OF, "a", AS_OF)
    heartbeat(engine, AS_OF, "b", AS_OF)
    heartbeat(engine, AS_OF, "a", later)
    assert beats(engine) == [("a", AS_OF, later), ("b", AS_OF, AS_OF)]
    farewell(engine, "a")
    assert beats(engine) == [("b", AS_OF, AS_OF)]


def test_room_is_made_for_the_months_to_come(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    make_room(engine, Settings(keep_events_days=1, keep_runs_days=1), datetime(2031, 5, 7, tzinfo=UTC))
    assert retention.partitions(engine, "run_event")[-3:] == [date(2031, 5, 1), date(2031, 6, 1), date(2031, 7, 1)]
    assert "partitions made: 2031-05, 2031-06, 2031-07" in caplog.text


def test_what_was_removed_is_logged_and_nothing_is_not(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    settings = Settings(keep_events_days=30, keep_runs_days=30)
    with engine.begin() as connection:
        connection.execute(text("select pulsewatch.ensure_partition('2024-05-01')"))
    clean_up(engine, settings, AS_OF)
    assert "removed past their keep time: partitions run_event_2024_05, " in caplog.text
    caplog.clear()
    clean_up(engine, settings, AS_OF)
    assert caplog.text == ""


def test_a_tick_that_fails_is_one_line_and_no_end(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_as_of: datetime) -> None:
        raise RuntimeError("the database went away\nand more")

    guarded("heartbeat", fail)()
    assert [record.getMessage() for record in caplog.records] == [
        "heartbeat failed and is tried again: the database went away"
    ]


def test_ticks_run_at_the_current_time() -> None:
    seen: list[datetime] = []
    before = datetime.now(UTC)
    guarded("tick", seen.append)()
    assert before <= seen[0] <= datetime.now(UTC)


def test_the_worker_beats_through_a_loss_of_its_connections_until_it_is_told_to_stop(
    database: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers: dict[int, object] = {}
    monkeypatch.setattr(signal, "signal", lambda number, handler: handlers.setdefault(number, handler))
    monkeypatch.setattr(worker, "BEAT_EVERY", timedelta(milliseconds=50))
    process = Worker(Settings(), database)
    thread = threading.Thread(target=process.run)
    thread.start()
    try:
        first = _next_beat(engine, None)
        with psycopg.connect(database, autocommit=True) as admin:
            admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pulsewatch worker'"
            )
        assert _next_beat(engine, first) > first
    finally:
        stop = handlers[signal.SIGTERM]
        assert callable(stop)
        stop(signal.SIGTERM, None)
        thread.join(30)
    assert not thread.is_alive()
    assert beats(engine) == []


def test_a_worker_that_is_told_to_stop_while_it_starts_stops(
    database: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tell_at_once(number: int, handler: Any) -> None:
        if number == signal.SIGTERM:
            handler(number, None)

    monkeypatch.setattr(signal, "signal", tell_at_once)
    thread = threading.Thread(target=Worker(Settings(), database).run, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert beats(engine) == []


def test_a_worker_that_is_told_twice_stops_once(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: dict[int, Any] = {}
    monkeypatch.setattr(signal, "signal", lambda number, handler: handlers.setdefault(number, handler))
    process = Worker(Settings(), database)
    thread = threading.Thread(target=process.run, daemon=True)
    thread.start()
    until(lambda: bool(process.scheduler.running))
    for number in (signal.SIGTERM, signal.SIGINT):
        handlers[number](number, None)
    thread.join(30)
    assert not thread.is_alive()


def _next_beat(engine: Engine, last: datetime | None) -> datetime:
    until(lambda: any(last is None or beat_at > last for _, _, beat_at in beats(engine)))
    return beats(engine)[0][2]


def test_two_workers_at_once_are_safe(engine: Engine) -> None:
    failures: list[BaseException] = []
    settings = Settings(keep_events_days=30, keep_runs_days=30)

    def go(tick: partial[None]) -> None:
        try:
            tick()
        except BaseException as error:
            failures.append(error)

    later = datetime(2027, 6, 1, tzinfo=UTC)
    ticks = [partial(tick, engine, settings, later) for tick in (make_room, clean_up) for _ in range(3)]
    threads = [threading.Thread(target=go, args=(tick,)) for tick in ticks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert retention.partitions(engine, "run_event")[-1] == date(2027, 8, 1)
