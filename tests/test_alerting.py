"""What ticks make of rules and of what arrives."""

from collections.abc import Iterator

import pytest

from pulsewatch.db import make_engine
from pulsewatch.events import RunEvent, Status
from pulsewatch.settings import Settings
from tests.alert_stage import Stage, at, plain


@pytest.fixture
def stage(database: str, settings: Settings) -> Iterator[Stage]:
    engine = make_engine(database, pool_size=5, application_name="tests")
    yield Stage(engine, settings)
    engine.dispose()


def ended(run: str, minutes: float, status: Status = Status.FAILED, pipeline: str = "nightly") -> RunEvent:
    return RunEvent(client="acme", pipeline=pipeline, run=run, status=status, occurred_at=at(minutes))


def test_an_alert_fires_at_the_tick_after_the_last_straw_and_resolves_after_a_success(stage: Stage) -> None:
    stage.receive(0, ended("r0", 0, Status.SUCCEEDED))
    stage.rule(1)
    stage.tick(2)
    stage.receive(3, ended("r1", 3))
    stage.tick(4)
    stage.receive(5, ended("r2", 5))
    stage.tick(6)
    stage.tick(7)
    stage.receive(8, ended("r3", 8, Status.SUCCEEDED))
    stage.tick(9)
    assert plain(stage.events()) == [(6, "fired", 1), (9, "resolved", 0)]
    (alert,) = stage.rows("select * from pulsewatch.alert")
    assert (alert.fired_at, alert.resolved_at, alert.resolve_reason) == (at(6), at(9), "recovered")
    assert alert.summary == "acme/nightly: 2 runs in a row have failed or timed out (limit 2)"


def test_the_same_tick_twice_writes_nothing_new(stage: Stage) -> None:
    stage.receive(0, ended("r1", 0), ended("r2", 0.5))
    stage.rule(1)
    assert stage.tick(2) is not None
    before = stage.events()
    assert stage.tick(2) is None
    assert stage.events() == before != []
