"""Rules that measure time are left as they were while nobody can know whether anything arrives."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from pulsewatch import alerting, gate, rulebook
from pulsewatch.db import fetch, make_engine
from pulsewatch.events import RunEvent, Status
from pulsewatch.settings import Settings
from tests.alert_stage import Stage, at

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def stage(database: str, settings: Settings) -> Iterator[Stage]:
    engine = make_engine(database, pool_size=5, application_name="tests")
    yield Stage(engine, settings)
    engine.dispose()


def succeed(stage: Stage, minutes: float, received: float | None = None) -> None:
    """A run of the pipeline succeeded then, and was received then, or at another time."""
    event = RunEvent(
        client="acme", pipeline="load", run=f"r{minutes}", status=Status.SUCCEEDED, occurred_at=at(minutes)
    )
    stage.receive(minutes if received is None else received, event)


def accept(stage: Stage, minutes: float) -> None:
    """Many events are accepted in these five minutes."""
    statement = (
        "insert into pulsewatch.ingest_stat (bucket_at, source, writer, accepted) values (:at, 'native', 1, 1000)"
        " on conflict do nothing"
    )
    with stage.engine.begin() as connection:
        connection.execute(text(statement), {"at": at(minutes)})


def arrive(stage: Stage, from_minute: int, to_minute: int, count: int = 100, last_s: float = 300) -> None:
    """So many events in each five minutes, the last of them so many seconds after these begin."""
    statement = (
        "insert into pulsewatch.ingest_stat (bucket_at, source, writer, accepted, last_at)"
        " select bucket_at, 'native', 0, :count, bucket_at + make_interval(secs => :last_s)"
        " from generate_series(cast(:since as timestamptz), cast(:until as timestamptz), interval '5 minutes')"
        " as bucket_at"
    )
    values = {"since": at(from_minute), "until": at(to_minute - 5), "count": count, "last_s": last_s}
    with stage.engine.begin() as connection:
        connection.execute(text(statement), values)


def doubts(stage: Stage, *minutes: float) -> list[bool]:
    with stage.engine.connect() as connection:
        return [
            gate.is_doubted(connection, at(minute), fetch(connection, gate.SILENCE, {"as_of": at(minute)}))
            for minute in minutes
        ]


def why(stage: Stage, *minutes: float) -> list[str | None]:
    """Why the ticks of these minutes left rules that measure time as they were."""
    ticked = [stage.tick(minute) for minute in minutes]
    return [None if one is None else one.frozen_because for one in ticked]


@pytest.mark.parametrize(("seconds", "away_s"), [(5, None), (60, None), (65, 65)])
def test_the_worker_was_away_if_none_saw_to_the_rules_for_over_a_minute(seconds: float, away_s: float | None) -> None:
    assert gate.LastTick(NOON, NOON, NOON + timedelta(seconds=seconds)).away_s == away_s


def test_the_first_tick_ever_is_trusted(stage: Stage) -> None:
    assert why(stage, 0) == [None]


def test_producers_have_two_minutes_to_send_what_they_could_not(stage: Stage) -> None:
    assert why(stage, 0, 10, 10.5, 11, 11.5, 12, 12.5) == [
        None, "worker_away", "catching_up", "catching_up", "catching_up", None, None,
    ]  # fmt: skip


# -- that nothing arrives ---------------------------------------------------------------------------------------------


def test_silence_is_in_doubt_after_half_a_minute_where_much_comes_in(stage: Stage) -> None:
    arrive(stage, -2880, 0)
    assert doubts(stage, 0, 0.25, 0.5, 5, 20) == [False, False, True, True, True]


def test_the_less_comes_in_the_longer_silence_is_nothing_strange(stage: Stage) -> None:
    arrive(stage, -2880, 0, count=10)
    # Ten events are missing after five minutes.
    assert doubts(stage, 4, 4.9, 5, 20) == [False, False, True, True]


def test_silence_between_bursts_is_nothing_strange(stage: Stage) -> None:
    """All that comes in five minutes comes in their first ten seconds: one burst may come late."""
    arrive(stage, -2880, 0, last_s=10)
    assert doubts(stage, 0, 4.8, 4.9, 6) == [False, False, True, True]


def test_where_nothing_came_for_some_five_minutes_of_the_last_hour_silence_counts_by_what_should_come(
    stage: Stage,
) -> None:
    arrive(stage, -2880, -30)
    arrive(stage, -25, 0)
    assert doubts(stage, 2, 4.9, 5) == [False, False, True]


def test_a_silence_that_was_the_same_a_day_before_is_in_doubt_for_eleven_minutes_only(stage: Stage) -> None:
    arrive(stage, -2880, -1440)
    arrive(stage, -720, 0)
    assert doubts(stage, 1, 10.9, 11, 600) == [True, True, False, False]


def test_no_rule_is_faster_than_the_doubt(stage: Stage) -> None:
    """Ingestion stops at minute 0: nobody is told that each pipeline has fallen silent, but for one alert."""
    names = [f"p{number}" for number in range(20)]
    stage.receive(0, *(RunEvent("acme", name, "r0", Status.SUCCEEDED, at(0)) for name in names))
    with stage.engine.begin() as connection:
        connection.execute(text("delete from pulsewatch.ingest_stat"))
        rulebook.ensure_builtin(connection, at(0))
    arrive(stage, -2880, 0)
    stage.rule(0, kind="no_data", levels={"critical": 180})
    for minute in range(1, 12):
        stage.tick(minute)
    assert stage.events() == [(5, "-", "fired", 2)]


@pytest.mark.parametrize("what", ["disabled", "deleted", "edited"])
def test_whatever_becomes_of_the_rule_that_tells_of_it_the_others_wait(stage: Stage, what: str) -> None:
    succeed(stage, 0)
    said = rulebook.Said("ann", None, at(0))
    with stage.engine.begin() as connection:
        connection.execute(text("delete from pulsewatch.ingest_stat"))
        rulebook.ensure_builtin(connection, at(0))
        row = rulebook.find(connection, None, rulebook.BUILTIN_KEY)
        assert row is not None
        if what == "disabled":
            rulebook.set_enabled(connection, row, said, is_enabled=False)
        elif what == "deleted":
            rulebook.delete(connection, row, said)
    if what == "edited":
        stage.rule(0, rulebook.BUILTIN_KEY, kind="ingestion", levels={"critical": 86_400})
    arrive(stage, -2880, 0)
    stage.rule(0, kind="freshness", levels={"warning": 600})
    assert set(why(stage, *range(1, 20))) == {"ingestion"}
    assert stage.events() == []


# -- that nobody looked -----------------------------------------------------------------------------------------------


def test_one_alert_tells_that_the_worker_was_away(stage: Stage) -> None:
    succeed(stage, 0)
    with stage.engine.begin() as connection:
        rulebook.ensure_builtin(connection, at(0))
    stage.rule(0, kind="freshness", levels={"warning": 600})
    assert why(stage, 1, 40) == [None, "worker_away"]
    succeed(stage, 39, received=40.5)
    why(stage, 41, 42, 43, 44, 45)
    assert stage.events() == [(40, "-", "fired", 2), (42, "-", "recovering", 2), (44, "-", "resolved", 0)]
    (alert,) = stage.rows("select summary from pulsewatch.alert")
    assert alert.summary == "all clients: PulseWatch itself was away for 39 min (limit 1 min)"


def test_a_worker_that_has_to_wait_for_the_numbers_is_not_away(stage: Stage) -> None:
    """What came at minute 1 is worked out at minute 5 only."""
    succeed(stage, 0)
    stage.rule(0.5, kind="freshness", levels={"warning": 200})
    assert why(stage, 0.5) == [None]
    succeed(stage, 1)
    first = alerting.tick(stage.engine, at(1.2))
    assert first is not None
    assert first.as_of == at(1)
    for half in range(3, 10):
        assert alerting.tick(stage.engine, at(half / 2)) is None
    assert why(stage, 5) == [None]
    assert stage.events() == [(5, "load", "fired", 1)]


def test_that_the_worker_waited_before_it_went_away_hides_nothing(stage: Stage) -> None:
    assert why(stage, 0) == [None]
    succeed(stage, 0)
    for minute in (0.5, 10):
        assert alerting.tick(stage.engine, at(minute)) is None
    assert why(stage, 11) == ["worker_away"]


def test_a_clock_that_is_ahead_stops_nothing(stage: Stage) -> None:
    succeed(stage, 0)
    ahead = datetime.now(UTC) + timedelta(days=30)
    ticked = alerting.tick(stage.engine, ahead)
    assert ticked is not None
    assert ticked.as_of < ahead - timedelta(days=29)
    with stage.engine.begin() as connection:
        connection.execute(text("update pulsewatch.alert_tick set as_of = :ahead, seen_at = :ahead"), {"ahead": ahead})
    assert why(stage, 1, 2) == [None, None]


# -- both, over a time ------------------------------------------------------------------------------------------------


def test_nobody_is_told_of_what_came_while_the_worker_was_away(stage: Stage) -> None:
    succeed(stage, 0)
    stage.rule(1, kind="freshness", levels={"warning": 600})
    stage.tick(1)
    # An hour later it comes back; what was sent meanwhile comes in the minute after.
    first = stage.tick(60)
    assert first is not None
    assert first.frozen_because == "worker_away"
    succeed(stage, 59, received=60.5)
    for minutes in (61, 62, 63):
        stage.tick(minutes)
    assert stage.events() == []
    # And what did not come after all is told of.
    for minutes in (64, 65, 66, 67, 68, 69, 70):
        stage.tick(minutes)
    assert stage.events() == [(69.0, "load", "fired", 1)]


def test_nobody_is_told_that_all_is_missing_while_nothing_comes_in(stage: Stage) -> None:
    """Events stop at minute 60 and come again at 90; what should have come meanwhile comes within two minutes."""
    for minutes in range(0, 60, 5):
        accept(stage, minutes)
    succeed(stage, 55)
    with stage.engine.begin() as connection:
        rulebook.ensure_builtin(connection, at(56))
    stage.rule(56, kind="freshness", levels={"warning": 15 * 60})
    for half in range(112, 180):
        stage.tick(half / 2)
    assert [(pipeline, kind) for _, pipeline, kind, _ in stage.events()] == [("-", "fired")]
    accept(stage, 90)
    for half in range(180, 200):
        if half == 183:
            succeed(stage, 89, received=91.4)
        stage.tick(half / 2)
    kinds = [kind for _, _, kind, _ in stage.events()]
    assert kinds[:3] == ["fired", "recovering", "resolved"]
    assert "fired" not in kinds[3:]
    assert {pipeline for _, pipeline, _, _ in stage.events()} == {"-"}
