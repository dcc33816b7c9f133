"""A backtest tells what live evaluation told, and what it would tell with all that is known now."""

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, text

from pulsewatch import alert_targets, alerting, backtest, looking
from pulsewatch.db import make_engine
from pulsewatch.events import RunEvent, Status
from pulsewatch.rules import KINDS
from pulsewatch.settings import Settings
from tests.alert_stage import BEGIN, Stage, at

PIPELINES = ("nightly", "hourly", "weekly")
# What was not received of these for a time was received all at once at this minute.
BACK_AT = {"hourly": 62.0, "weekly": 118.0}
RULES: dict[str, dict[str, Any]] = {
    "failures": {"kind": "consecutive_failures", "levels": {"warning": 2, "critical": 4}},
    "held": {
        "kind": "consecutive_failures",
        "levels": {"critical": 1},
        "for_s": 240,
        "keep_firing_s": 420,
        "recover_consecutive": 2,
    },
    "rate": {
        "kind": "failure_rate",
        "levels": {"warning": 0.3, "critical": 0.7},
        "params": {"window_s": 1800, "min_runs": 2},
        "on_no_data": "no_data",
    },
    "fresh": {
        "kind": "freshness",
        "levels": {"warning": 900, "critical": 2400},
        "evaluation_delay_s": 60,
        "for_s": 180,
        "keep_firing_s": 90,
    },
    "long": {"kind": "overrun", "levels": {"warning": 600}},
    "slow": {"kind": "duration_threshold", "levels": {"warning": 300}, "keep_firing_s": 600},
    "silent": {"kind": "no_data", "levels": {"warning": 1200}, "new_target_grace_s": 600},
    "rows": {
        "kind": "metric_threshold",
        "levels": {"critical": 10},
        "params": {"metric": "rows", "direction": "below"},
    },
    "missed": {"kind": "missed_run", "levels": {"warning": 1, "critical": 3}},
}


@pytest.fixture
def stage(database: str, settings: Settings) -> Iterator[Stage]:
    engine = make_engine(database, pool_size=5, application_name="tests")
    yield Stage(engine, settings)
    engine.dispose()


def some_life(seed: int, minutes: int) -> list[tuple[float, RunEvent]]:
    """Runs of three pipelines with their ups and downs, each event with when it was received: late, now and then.

    Some runs are tried again, up to half an hour later. For one time nothing is received of a pipeline, and then all
    at once: more runs than rules look at. And late in the day some of weeks ago are told of.
    """
    chance = random.Random(seed)  # noqa: S311 - a life to play, no secret
    told = []

    def tell(pipeline: str, run: str, status: Status, occurred: float, delay: float, attempt: int = 0) -> None:
        words: dict[str, Any] = {"client": "acme", "pipeline": pipeline, "run": run, "attempt": attempt}
        metrics = None if status is Status.RUNNING else {"rows": float(chance.randrange(40))}
        received = occurred + delay
        if pipeline in BACK_AT and 50 < received < BACK_AT[pipeline]:
            received = BACK_AT[pipeline]
        told.append((received, RunEvent(status=status, occurred_at=at(occurred), metrics=metrics, **words)))

    for pipeline in PIPELINES:
        now, is_bad = 0.0, False
        for number in range(1000):
            now += chance.choice((0.25, 0.5, 1) if pipeline in BACK_AT and 40 < now < 90 else (1, 2, 5, 9, 25))
            if now > minutes:
                break
            is_bad = chance.random() < (0.8 if is_bad else 0.25)
            lasts = chance.choice((0.5, 2, 4, 6, 14))
            end = Status.FAILED if is_bad else Status.SUCCEEDED
            tries = [(now, lasts, end)]
            if chance.random() < 0.2:
                tries.append((now + lasts + chance.choice((1, 16, 30)), 9, chance.choice((Status.SUCCEEDED, end))))
            for attempt, (began, lasted, status) in enumerate(tries):
                for said, occurred in ((Status.RUNNING, began), (status, began + lasted)):
                    delay = chance.choice((0.05, 0.05, 0.3, 1, 8, 31))
                    if chance.random() < 0.95:
                        tell(pipeline, f"r{number}", said, occurred, delay, attempt)
    for days, received, status in ((12, 0.2, Status.FAILED), (11, 0.2, Status.FAILED), (10, 60, Status.SUCCEEDED)):
        tell("yearly", f"old{days}", status, -days * 1440, days * 1440 + received)
    return sorted(told, key=lambda one: one[0])


def play(stage: Stage, seed: int, minutes: int) -> None:
    """Receive these events and tick once a minute, now and then not."""
    told = some_life(seed, minutes)
    chance = random.Random(seed)  # noqa: S311 - a life to play, no secret
    scheduled = ["nightly", "hourly"]
    stage.receive(0.5, *[event for received, event in told if received <= 0.5])
    with stage.engine.begin() as connection:
        connection.execute(
            text(
                "update pulsewatch.pipeline set schedule = '*/10 * * * *', start_grace_s = 120 where slug = any(:slugs)"
            ),
            {"slugs": scheduled},
        )
    rest = [one for one in told if one[0] > 0.5]
    for minute in range(1, minutes):
        arrived = [event for received, event in rest if minute - 1 < received <= minute]
        if arrived:
            stage.receive(minute - 0.01, *arrived)
        if minute == 2:
            for key, said in RULES.items():
                stage.rule(2, key, **said)
        if minute == 2 or (minute > 2 and chance.random() < 0.95):
            stage.tick(minute)


@pytest.fixture
def seen_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has every tick look a second time, at all that is touched: what it passes by is nothing that it would write."""
    look = looking._look_at_once
    thoroughly = {name: replace(kind, told=None) for name, kind in KINDS.items()}

    def look_both_ways(connection: Connection, *arguments: Any) -> list[looking.Seen]:
        seen = look(connection, *arguments)
        with monkeypatch.context() as patch:
            patch.setattr(looking, "KINDS", thoroughly)
            assert look(connection, *arguments) == seen
        return seen

    monkeypatch.setattr(looking, "_look_at_once", look_both_ways)


@pytest.mark.usefixtures("seen_both_ways")
@pytest.mark.slow(25)
@pytest.mark.parametrize(("seed", "many"), [(0, alerting.MANY), (1, 0)])
def test_what_was_known_then_tells_what_live_evaluation_told(
    stage: Stage, seed: int, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where ticks look through all targets, as they do when a good part of many is touched."""
    monkeypatch.setattr(alerting, "MANY", many)
    monkeypatch.setattr(alerting, "GOOD_PART", 0)
    minutes = 130
    play(stage, seed, minutes)
    kinds, told = set(), set()
    with stage.engine.begin() as connection:
        slugs = {row.id: row.slug for row in connection.execute(text("select id, slug from pulsewatch.pipeline"))}
        for rule in alert_targets.load_rules(connection):
            query = text(
                "select as_of, pipeline_id, kind, level, value from pulsewatch.alert_event"
                " where rule_id = :id order by 2, 1, seq"
            )
            live = [
                ((row.as_of - BEGIN) / timedelta(minutes=1), slugs[row.pipeline_id], row.kind, row.level, row.value)
                for row in connection.execute(query, {"id": rule.id})
            ]
            replayed = [
                (
                    (one.as_of - BEGIN) / timedelta(minutes=1),
                    target.pipeline,
                    event.kind,
                    event.level,
                    one.verdict.value,
                )
                for target, moments in backtest.replay(connection, rule, at(2), at(minutes), "as_known")
                for one in moments
                for event in one.step.transitions
            ]
            assert replayed == live, rule.key
            told |= {rule.key} if live else set()
            kinds |= {kind for _, _, kind, _, _ in live}
    assert len(told) >= len(RULES) - 2
    assert {"fired", "resolved", "level_changed", "pending", "recovering"} <= kinds
