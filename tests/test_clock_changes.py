"""Where clocks change, a start that is missed is told once, at its time: live and in a backtest."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from pulsewatch import alert_targets, backtest
from pulsewatch.db import make_engine
from pulsewatch.events import RunEvent, Status
from pulsewatch.settings import Settings
from pulsewatch.submissions import CatalogStatement
from tests import alert_stage
from tests.alert_stage import Stage, at, plain

NIGHTLY = {"schedule": "30 2 * * *", "timezone": "Europe/Berlin", "start_grace_s": 600.0}
# The day before the change, and the starts of three days in minutes (UTC) from then.
# Forward: 02:30 is skipped, and expected at 03:00 (CEST), the first minute there is. Back: at the first of the two.
FORWARD = datetime(2026, 3, 28, tzinfo=UTC), (90, 1500, 2910)
BACK = datetime(2026, 10, 24, tzinfo=UTC), (30, 1470, 2970)


@pytest.fixture
def stage(database: str, settings: Settings) -> Iterator[Stage]:
    engine = make_engine(database, pool_size=5, application_name="tests")
    yield Stage(engine, settings)
    engine.dispose()


def begun(minutes: int) -> RunEvent:
    return RunEvent(
        client="acme", pipeline="nightly", run=f"r{minutes}", status=Status.SUCCEEDED, occurred_at=at(minutes)
    )


@pytest.mark.parametrize(("begin", "starts"), [FORWARD, BACK])
def test_a_start_that_is_missed_on_the_day_of_the_change_is_told_once_at_its_time(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, begin: datetime, starts: tuple[int, int, int]
) -> None:
    monkeypatch.setattr(alert_stage, "BEGIN", begin)
    first, missed, last = starts
    with stage.engine.begin() as connection:
        for minutes in (0, missed, last):
            connection.exec_driver_sql("select pulsewatch.ensure_partition(%(day)s)", {"day": at(minutes).date()})
    stage.receive(0, CatalogStatement("acme", NIGHTLY, at(0), "nightly"))
    stage.rule(1, kind="missed_run", levels={"warning": 1, "critical": 2})
    stage.tick(2)
    stage.receive(first, begun(first))
    # An hour on, the wrong one of the two hours is over too.
    for minutes in range(missed - 5, missed + 80):
        stage.tick(minutes)
    stage.receive(last, begun(last))
    for minutes in range(last + 1, last + 12):
        stage.tick(minutes)

    assert plain(stage.events()) == [(missed + 10, "fired", 1), (last + 10, "resolved", 0)]
    with stage.engine.begin() as connection:
        (rule,) = alert_targets.load_rules(connection)
        for mode in ("as_known", "as_final"):
            (outcome,) = backtest.backtest(connection, rule, at(2), at(last + 30), mode)
            told = [(one.fired_at, one.resolved_at) for one in outcome.episodes]
            assert told == [(at(missed + 10), at(last + 10))], mode
