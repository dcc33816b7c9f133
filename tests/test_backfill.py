"""The past of a rule, written down: as a backtest tells it, and so that live evaluation goes on from there."""

from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import text

from pulsewatch import alert_targets, backtest
from pulsewatch.backfill import backfill
from pulsewatch.cli import cli
from pulsewatch.db import make_engine
from pulsewatch.events import RunEvent, Status
from pulsewatch.settings import Settings
from tests.alert_stage import Stage, at, plain
from tests.telling import add_channel

FAILED, SUCCEEDED = Status.FAILED, Status.SUCCEEDED
# Fails twice in a row, which ends; and again, which goes on.
PAST = ((0, SUCCEEDED), (10, FAILED), (20, FAILED), (30, SUCCEEDED), (40, FAILED), (50, FAILED))


@pytest.fixture
def stage(database: str, settings: Settings) -> Iterator[Stage]:
    engine = make_engine(database, pool_size=5, application_name="tests")
    yield Stage(engine, settings)
    engine.dispose()


def ended(minutes: float, status: Status, pipeline: str = "nightly") -> RunEvent:
    return RunEvent(client="acme", pipeline=pipeline, run=f"r{minutes}", status=status, occurred_at=at(minutes))


def tell(stage: Stage, minutes: float, *ends: tuple[float, Status], pipeline: str = "nightly") -> None:
    stage.receive(minutes, *(ended(when, status, pipeline) for when, status in ends))
    stage.work(minutes)


def fill(stage: Stage, from_minutes: float = 0, to_minutes: float = 60) -> int:
    with stage.engine.begin() as connection:
        (rule,) = alert_targets.load_rules(connection)
        return backfill(connection, rule, at(from_minutes), at(to_minutes))


def alerts(stage: Stage) -> list[tuple[Any, ...]]:
    query = "select fired_at, resolved_at, is_backfill from pulsewatch.alert order by fired_at"
    return [tuple(row) for row in stage.rows(query)]


def test_the_past_is_written_as_a_backtest_tells_it_and_marked(stage: Stage) -> None:
    tell(stage, 60, *PAST)
    stage.rule(60)
    assert fill(stage) == 3
    assert plain(stage.events()) == [(20, "fired", 1), (30, "resolved", 0), (50, "fired", 1)]
    assert alerts(stage) == [(at(20), at(30), True), (at(50), None, True)]
    with stage.engine.begin() as connection:
        (rule,) = alert_targets.load_rules(connection)
        (outcome,) = backtest.backtest(connection, rule, at(0), at(60), "as_final")
    assert [(one.fired_at, one.resolved_at) for one in outcome.episodes] == [one[:2] for one in alerts(stage)]
    assert stage.rows("select distinct is_backfill, known_at from pulsewatch.alert_event") == [(True, None)]


def test_what_goes_on_at_the_end_is_resolved_live_by_the_same_episode(stage: Stage) -> None:
    tell(stage, 60, *PAST)
    stage.rule(60)
    fill(stage)
    stage.tick(61)
    assert len(stage.events()) == 3
    tell(stage, 62, (62, SUCCEEDED))
    stage.tick(63)
    assert plain(stage.events())[3:] == [(63, "resolved", 0)]
    assert alerts(stage)[1:] == [(at(50), at(63), True)]


def test_it_may_get_worse_live(stage: Stage) -> None:
    tell(stage, 60, *PAST)
    stage.rule(60, levels={"warning": 2, "critical": 3})
    fill(stage)
    tell(stage, 62, (62, FAILED))
    stage.tick(63)
    assert plain(stage.events())[3:] == [(63, "level_changed", 2)]
    numbers = stage.rows("select seq from pulsewatch.alert_event order by as_of, seq")
    assert [row.seq for row in numbers] == [1, 2, 1, 2]


def test_nobody_is_told_of_it_not_even_when_it_ends_live(stage: Stage) -> None:
    tell(stage, 60, *PAST)
    with stage.engine.begin() as connection:
        add_channel(connection)
    stage.rule(60, channels=["ops"])
    fill(stage)
    stage.tick(61)
    tell(stage, 62, (62, SUCCEEDED))
    stage.tick(63)
    tell(stage, 64, (64, FAILED), (64.5, FAILED))
    stage.tick(65)
    told = "select reason, status, held_by from pulsewatch.notification order by created_at"
    assert [tuple(row) for row in stage.rows(told)] == [
        ("fired", "dropped", "backfill"),
        ("fired", "dropped", "backfill"),
        ("fired", "pending", None),
    ]


def test_what_gets_worse_live_is_told_and_that_it_is_over(stage: Stage) -> None:
    tell(stage, 60, *PAST)
    with stage.engine.begin() as connection:
        add_channel(connection)
    stage.rule(60, levels={"warning": 2, "critical": 3}, channels=["ops"])
    fill(stage)
    tell(stage, 62, (62, FAILED))
    stage.tick(63)
    told = "select reason, status, held_by from pulsewatch.notification order by created_at, event_seq"
    assert [tuple(row) for row in stage.rows(told)][2:] == [("level_changed", "pending", None)]
    with stage.engine.begin() as connection:
        sent = "update pulsewatch.notification set status = 'sent', sent_at = :at where status = 'pending'"
        connection.execute(text(sent), {"at": at(63)})
    stage.tick(63 + 240)
    tell(stage, 304, (304, SUCCEEDED))
    stage.tick(305)
    assert [tuple(row) for row in stage.rows(told)] == [
        ("fired", "dropped", "backfill"),
        ("fired", "dropped", "backfill"),
        ("level_changed", "sent", None),
        ("repeat", "superseded", None),
        ("resolved", "pending", None),
    ]


def test_the_same_again_writes_nothing(stage: Stage) -> None:
    tell(stage, 60, *PAST)
    stage.rule(60)
    fill(stage)
    standing = stage.rows("select * from pulsewatch.alert_target")
    before = stage.events(), alerts(stage)
    assert fill(stage) == 0
    assert (stage.events(), alerts(stage)) == before
    assert stage.rows("select * from pulsewatch.alert_target") == standing


def test_what_live_evaluation_has_begun_is_left_to_it(stage: Stage) -> None:
    tell(stage, 60, *PAST)
    stage.rule(60)
    stage.tick(61)
    assert plain(stage.events()) == [(61, "fired", 1)]
    standing = stage.rows("select * from pulsewatch.alert_target")
    assert fill(stage, 0, 90) == 2
    assert plain(stage.events()) == [(20, "fired", 1), (30, "resolved", 0), (61, "fired", 1)]
    assert alerts(stage) == [(at(20), at(30), True), (at(61), None, False)]
    assert stage.rows("select * from pulsewatch.alert_target") == standing


def test_nothing_goes_on_from_a_past_that_ends_before_the_rule_began(stage: Stage) -> None:
    tell(stage, 60, *PAST)
    stage.rule(60)
    assert fill(stage, 0, 55) == 2
    stage.tick(61)
    assert plain(stage.events())[2:] == [(61, "fired", 1)]


def test_what_waits_goes_on_waiting(stage: Stage) -> None:
    tell(stage, 60, *PAST)
    stage.rule(60, for_s=900, levels={"warning": 2})
    assert fill(stage) == 3
    stage.tick(61)
    stage.tick(65)
    assert plain(stage.events()) == [
        (20, "pending", 0),
        (30, "pending_cleared", 0),
        (50, "pending", 0),
        (65, "fired", 1),
    ]
    assert alerts(stage) == [(at(65), None, False)]


def test_samples_that_were_good_count_when_it_goes_on(stage: Stage) -> None:
    tell(stage, 60, (10, FAILED), (20, SUCCEEDED), (30, SUCCEEDED))
    stage.rule(60, levels={"warning": 1}, recover_consecutive=3)
    assert plain_of(fill(stage), stage) == [(10, "fired", 1), (20, "recovering", 1)]
    assert [row.ok_samples for row in stage.rows("select ok_samples from pulsewatch.alert_target")] == [2]
    tell(stage, 62, (62, SUCCEEDED))
    stage.tick(63)
    assert plain(stage.events())[2:] == [(63, "resolved", 0)]


def plain_of(count: int, stage: Stage) -> list[tuple[Any, ...]]:
    told = plain(stage.events())
    assert len(told) == count
    return told


def test_each_target_has_its_own_past_and_progress_is_told(stage: Stage) -> None:
    tell(stage, 60, *PAST)
    tell(stage, 60, (5, FAILED), (15, FAILED), pipeline="hourly")
    tell(stage, 60, (5, SUCCEEDED), pipeline="weekly")
    stage.rule(60)
    seen: list[tuple[int, int]] = []
    with stage.engine.begin() as connection:
        (rule,) = alert_targets.load_rules(connection)
        backfill(connection, rule, at(0), at(60), lambda done, total: seen.append((done, total)))
    assert seen[-1] == (3, 3)
    told = [(minutes, pipeline, kind) for minutes, pipeline, kind, _ in stage.events()]
    assert told == [
        (15, "hourly", "fired"),
        (20, "nightly", "fired"),
        (30, "nightly", "resolved"),
        (50, "nightly", "fired"),
    ]


def command(database: str, *arguments: str) -> Result:
    given = {"PULSEWATCH_DATABASE_URL": database}
    return CliRunner().invoke(cli, ["alert", "backfill", *arguments], env=given)


def test_a_command_writes_the_past_of_a_rule_of_all_clients_or_of_one(stage: Stage, database: str) -> None:
    tell(stage, 60, *PAST)
    stage.rule(60)
    stage.rule(60, "own", "acme", levels={"critical": 2})
    done = command(database, "rule")
    assert (done.exit_code, done.output.splitlines()[-1]) == (0, "wrote 3 alert events")
    own = command(
        database, "own", "--client", "acme", "--from", at(0).isoformat()[:19], "--to", at(45).isoformat()[:19]
    )
    assert (own.exit_code, own.output.splitlines()[-1]) == (0, "wrote 2 alert events")
    again = command(database, "rule")
    assert (again.exit_code, again.output.splitlines()[-1]) == (0, "wrote 0 alert events")
    levels = [level for _, kind, level in plain(stage.events()) if kind == "fired"]
    assert sorted(levels) == [1, 1, 2]


def test_a_command_names_what_is_wrong(stage: Stage, database: str) -> None:
    tell(stage, 60, *PAST)
    stage.rule(60, is_enabled=False)
    for wrong in (("other",), ("rule", "--client", "acme"), ("rule", "--client", "nobody"), ("rule",)):
        done = command(database, *wrong)
        assert (done.exit_code, done.output.splitlines()[-1]) == (1, f"Error: there is no rule {wrong[0]!r} in force")
    assert command(database, "rule", "--from", "2026-01-02", "--to", "2026-01-01").exit_code == 2


def test_no_rule_is_evaluated_while_a_past_is_written(stage: Stage) -> None:
    tell(stage, 60, *PAST)
    stage.rule(60)
    with stage.engine.begin() as connection:
        (rule,) = alert_targets.load_rules(connection)
        backfill(connection, rule, at(0), at(60))
        assert stage.tick(61) is None
    assert stage.tick(62) is not None
    assert len(stage.events()) == 3
