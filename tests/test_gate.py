"""Rules that measure time are left as they were while nobody can know whether anything arrives."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from pulsewatch import gate, rulebook
from pulsewatch.db import make_engine
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


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("last", "away_since", "now", "why"),
    [
        (0, None, 5, None),
        (0, None, 60, None),
        (0, None, 65, "worker_away"),
        # Two minutes to send what could not be sent.
        (100, 60, 105, "worker_away"),
        (170, 60, 175, "worker_away"),
        (175, 60, 180, None),
    ],
)
def test_the_worker_was_away_until_two_minutes_after_it_came_back(
    last: float, away_since: float | None, now: float, why: str | None
) -> None:
    tick = gate.LastTick(after(last), None if away_since is None else after(away_since))
    assert gate.away(tick, after(now)) == why


def test_the_first_tick_ever_is_trusted() -> None:
    assert gate.away(None, NOON) is None


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
    """Events stop at minute 60 and come again at 90; what should have come meanwhile comes bit by bit until 92."""
    for minutes in range(0, 60, 5):
        accept(stage, minutes)
    succeed(stage, 55)
    with stage.engine.begin() as connection:
        rulebook.ensure_builtin(connection, at(56))
    stage.rule(56, kind="freshness", levels={"warning": 15 * 60})
    for minutes in range(56, 90):
        stage.tick(minutes)
    assert [(pipeline, kind) for _, pipeline, kind, _ in stage.events()] == [("-", "pending"), ("-", "fired")]
    accept(stage, 90)
    for half in range(180, 200):
        if half == 184:
            succeed(stage, 89, received=91.9)
        stage.tick(half / 2)
    kinds = [kind for _, _, kind, _ in stage.events()]
    assert kinds[:4] == ["pending", "fired", "recovering", "resolved"]
    assert "fired" not in kinds[4:]
    assert {pipeline for _, pipeline, _, _ in stage.events()} == {"-"}
