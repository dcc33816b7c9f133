"""What ticks make of rules and of what arrives."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, text

from pulsewatch import alerting, looking, rulebook
from pulsewatch.db import make_engine
from pulsewatch.events import RunEvent, Status
from pulsewatch.observing_sql import live_sql
from pulsewatch.rules import KINDS
from pulsewatch.settings import Settings
from pulsewatch.worker import Evaluator
from tests.alert_stage import Stage, at, plain
from tests.running import Command
from tests.telling import add_channel

FRESH: dict[str, Any] = {"kind": "freshness", "levels": {"warning": 600}}


@pytest.fixture
def stage(database: str, settings: Settings) -> Iterator[Stage]:
    engine = make_engine(database, pool_size=5, application_name="tests")
    yield Stage(engine, settings)
    engine.dispose()


def ended(
    run: str, minutes: float, status: Status = Status.FAILED, pipeline: str = "nightly", client: str = "acme"
) -> RunEvent:
    return RunEvent(client=client, pipeline=pipeline, run=run, status=status, occurred_at=at(minutes))


def fail_twice(stage: Stage, **said: Any) -> None:
    """A pipeline that is about to fire at the next tick, two minutes in."""
    stage.receive(0, ended("r1", 0), ended("r2", 0.5))
    stage.rule(1, **said)
    stage.work(2)


def ticks(stage: Stage, *minutes: float) -> None:
    for minute in minutes:
        assert stage.tick(minute) is not None


# -- what fires, and what ends it -------------------------------------------------------------------------------------


def test_an_alert_fires_at_the_tick_after_the_last_straw_and_resolves_after_a_success(stage: Stage) -> None:
    stage.receive(0, ended("r0", 0, Status.SUCCEEDED))
    stage.rule(1)
    ticks(stage, 2)
    stage.receive(3, ended("r1", 3))
    ticks(stage, 4)
    stage.receive(5, ended("r2", 5))
    ticks(stage, 6, 7)
    stage.receive(8, ended("r3", 8, Status.SUCCEEDED))
    ticks(stage, 9)
    assert plain(stage.events()) == [(6, "fired", 1), (9, "resolved", 0)]
    (alert,) = stage.rows("select * from pulsewatch.alert")
    assert (alert.fired_at, alert.resolved_at, alert.resolve_reason) == (at(6), at(9), "recovered")
    assert alert.summary == "acme/nightly: 2 runs in a row have failed or timed out (limit 2)"


def test_a_late_success_that_ran_before_takes_the_alert_back(stage: Stage) -> None:
    fail_twice(stage)
    ticks(stage, 2)
    stage.receive(10, ended("between", 0.2, Status.SUCCEEDED))
    ticks(stage, 11)
    assert plain(stage.events()) == [(2, "fired", 1), (11, "resolved", 0)]


def test_worse_is_told_and_ends_what_somebody_took_on(stage: Stage) -> None:
    stage.receive(0, ended("r1", 0), ended("r2", 0.5))
    stage.rule(1, levels={"warning": 2, "critical": 3})
    ticks(stage, 2)
    with stage.engine.begin() as connection:
        connection.execute(text("update pulsewatch.alert set acknowledged_at = now(), acknowledged_by = 'ann'"))
    stage.receive(3, ended("r3", 3))
    ticks(stage, 4)
    assert plain(stage.events()) == [(2, "fired", 1), (4, "level_changed", 2)]
    (alert,) = stage.rows("select level, max_level, acknowledged_at, acknowledged_by from pulsewatch.alert")
    assert tuple(alert) == (2, 2, None, None)


def test_texts_are_filled_in_anew_when_the_level_changes(stage: Stage) -> None:
    stage.receive(0, ended("r1", 0), ended("r2", 0.5))
    texts = {"summary": "{{ pipeline }} is {{ level }}: {{ value }} of {{ threshold }} since {{ fired_at }}"}
    stage.rule(1, levels={"warning": 2, "critical": 3}, annotations=texts)
    ticks(stage, 2)
    said = "select annotations ->> 'summary' from pulsewatch.alert"
    since = f"since {at(2).isoformat()}"
    assert stage.rows(said) == [(f"nightly is warning: 2 of 2 {since}",)]
    stage.receive(3, ended("r3", 3))
    ticks(stage, 4)
    assert stage.rows(said) == [(f"nightly is critical: 3 of 3 {since}",)]
    stage.receive(5, ended("r4", 5, Status.SUCCEEDED))
    ticks(stage, 6)
    assert stage.rows(said) == [(f"nightly is critical: 3 of 3 {since}",)]


def test_a_pipeline_that_is_new_is_watched_from_its_first_events_on(stage: Stage) -> None:
    stage.receive(0, ended("r1", 0, Status.SUCCEEDED))
    stage.rule(1)
    ticks(stage, 2)
    stage.receive(3, ended("r1", 3, pipeline="other"), ended("r2", 3.5, pipeline="other"))
    ticks(stage, 4)
    assert stage.events() == [(4, "other", "fired", 1)]


def test_what_a_new_pipeline_sends_after_the_time_of_the_tick_that_finds_it_is_looked_at_by_the_next(
    stage: Stage,
) -> None:
    stage.receive(0, ended("r0", 0, Status.SUCCEEDED))
    stage.rule(1, levels={"warning": 1})
    ticks(stage, 2)
    # The tick of minute 3 is late: the numbers of what came after that are there already.
    stage.receive(3.1, ended("r1", 2.5, pipeline="other"))
    stage.work(3.2)
    with stage.engine.begin() as connection:
        assert alerting.evaluate(connection, at(3), at(3)).events == 0
    ticks(stage, 4)
    assert stage.events() == [(4, "other", "fired", 1)]


def test_a_pipeline_that_is_archived_is_closed_and_watched_no_more(stage: Stage) -> None:
    fail_twice(stage)
    ticks(stage, 2)
    with stage.engine.begin() as connection:
        connection.execute(text("update pulsewatch.pipeline set archived_at = now()"))
    ticks(stage, 3)
    assert plain(stage.events()) == [(2, "fired", 1), (3, "resolved", 0)]
    (alert,) = stage.rows("select resolve_reason from pulsewatch.alert")
    assert alert.resolve_reason == "target_removed"
    assert stage.rows("select from pulsewatch.alert_target") == []


def test_a_rule_of_a_client_sees_that_client_only(stage: Stage) -> None:
    for client in ("acme", "beta"):
        stage.receive(0, ended("r1", 0, client=client), ended("r2", 0.5, client=client))
    stage.rule(1, client="beta")
    ticks(stage, 2)
    (alert,) = stage.rows("select client.slug from pulsewatch.alert join pulsewatch.client on client.id = client_id")
    assert alert.slug == "beta"


def test_time_alone_makes_a_pipeline_stale_and_a_success_mends_it(stage: Stage) -> None:
    stage.receive(0, ended("r1", 0, Status.SUCCEEDED))
    stage.rule(1, **FRESH)
    ticks(stage, *range(2, 12))
    stage.receive(11.5, ended("r2", 11.4, Status.SUCCEEDED))
    ticks(stage, 12)
    assert plain(stage.events()) == [(10, "fired", 1), (12, "resolved", 0)]


# -- once and only once -----------------------------------------------------------------------------------------------


def test_the_same_tick_twice_writes_nothing_new(stage: Stage) -> None:
    fail_twice(stage)
    ticks(stage, 2)
    before = stage.events()
    assert stage.tick(2) is None
    assert stage.events() == before != []


def test_three_workers_at_once_write_once(stage: Stage) -> None:
    fail_twice(stage)
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda _: alerting.tick(stage.engine, at(2)), range(3)))
    assert len([one for one in done if one is not None]) == 1
    assert plain(stage.events()) == [(2, "fired", 1)]


@pytest.mark.slow
def test_a_worker_that_is_killed_in_mid_tick_leaves_everything_to_the_next_tick(stage: Stage, database: str) -> None:
    fail_twice(stage)
    with stage.engine.begin() as connection:
        # The tick gets as far as writing its event, and waits there.
        connection.execute(text("lock table pulsewatch.alert_event in exclusive mode"))
        worker = Command("worker", PULSEWATCH_DATABASE_URL=database)
        waiting = text(
            "select count(*) from pg_locks where not granted and relation = 'pulsewatch.alert_event'::regclass"
        )
        with stage.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as watch:
            while not watch.execute(waiting).scalar_one():
                assert worker.process.poll() is None, worker.err
        worker.process.kill()
        worker.process.wait()
    worker.stop()
    # The server ends the transaction of a session that is gone when it next hears of it.
    while stage.rows("select from pg_stat_activity where application_name = 'pulsewatch worker'"):
        pass
    assert stage.events() == []
    assert stage.rows("select from pulsewatch.alert") == []
    ticked = alerting.tick(stage.engine, at(2) + timedelta(days=10))
    assert ticked is not None
    told = [(kind, level) for _, pipeline, kind, level in stage.events() if pipeline == "nightly"]
    assert told == [("fired", 1)]


def test_ticks_alone_do_not_wait_for_the_disk(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    with stage.engine.begin() as connection:
        name = connection.execute(text("select quote_ident(current_database())")).scalar_one()
        connection.execute(text(f"alter database {name} set synchronous_commit = on"))
    stage.engine.dispose()
    waits: list[str] = []
    evaluate = alerting.evaluate

    def watched(connection: Connection, *arguments: Any, **named: Any) -> alerting.Ticked:
        waits.append(connection.execute(text("show synchronous_commit")).scalar_one())
        return evaluate(connection, *arguments, **named)

    monkeypatch.setattr(alerting, "evaluate", watched)
    ticks(stage, 2)
    assert waits == ["off"]
    assert stage.rows("show synchronous_commit") == [("on",)]


def known_until(connection: Connection, now: datetime) -> datetime:
    beginning = alerting.begin(connection, now)
    assert beginning is not None
    return beginning.known_until


def test_what_is_being_received_is_waited_for(stage: Stage) -> None:
    """An event counts as received when its transaction began: until that has ended, no tick may pass that time."""
    stage.rule(1)
    with stage.engine.begin() as ingesting:
        ingesting.execute(text("select pg_advisory_xact_lock_shared(hashtext('pulsewatch.ingest'))"))
        began = ingesting.execute(text("select now()")).scalar_one()
        with stage.engine.begin() as connection:
            assert known_until(connection, began + timedelta(minutes=1)) <= began
    with stage.engine.begin() as connection:
        later = connection.execute(text("select now()")).scalar_one()
        assert known_until(connection, later) > later - timedelta(seconds=5)


def test_what_is_not_worked_out_yet_is_waited_for(stage: Stage) -> None:
    stage.receive(3, ended("r1", 3))
    with stage.engine.begin() as connection:
        assert known_until(connection, at(9)) == at(3)
    stage.work(3)
    with stage.engine.begin() as connection:
        assert known_until(connection, at(9)) == at(9)


def test_a_silence_that_was_made_while_evaluation_lags_holds_back_and_changes_no_event(stage: Stage) -> None:
    silence = (
        "insert into pulsewatch.silence (matchers, starts_at, ends_at, comment)"
        """ values ('{"rules": ["*"]}', :from_at, :to_at, 'because')"""
    )
    with stage.engine.begin() as connection:
        add_channel(connection)
        connection.execute(text(silence), {"from_at": at(9), "to_at": at(20)})
    fail_twice(stage, channels=["ops"])
    # What is not worked out yet keeps evaluation at this time.
    stage.receive(2, ended("r1", 2, pipeline="other"))
    assert alerting.tick(stage.engine, at(10)) is not None
    assert plain(stage.events()) == [(2, "fired", 1)]
    (told,) = stage.rows("select status, held_by from pulsewatch.notification")
    assert tuple(told) == ("held", "silence")


# -- when silence cannot be trusted -----------------------------------------------------------------------------------


def test_after_the_worker_was_away_rules_that_measure_time_wait_for_what_is_on_its_way(stage: Stage) -> None:
    stage.receive(0, ended("r1", 0, Status.SUCCEEDED), ended("r1", 0, pipeline="other"))
    stage.rule(1, **FRESH)
    stage.rule(1, "failures", levels={"warning": 1}, selector={"pipelines": ["other"]})
    ticks(stage, 2)
    frozen = stage.tick(30)
    assert frozen is not None
    assert frozen.frozen_because == "worker_away"
    stage.receive(30.5, ended("r2", 29, Status.SUCCEEDED))
    for minute in (30.5, 31, 31.5):
        frozen = stage.tick(minute)
        assert frozen is not None
        assert frozen.frozen_because == "catching_up"
    thawed = stage.tick(32)
    assert thawed is not None
    assert thawed.frozen_because is None
    # What succeeded meanwhile is no alert; what never did is one now, not when nobody could know.
    assert stage.events() == [(2, "other", "fired", 1), (32, "other", "fired", 1)]


def test_while_nothing_arrives_at_all_one_alert_says_so_and_the_others_wait(stage: Stage) -> None:
    stage.receive(0, ended("r1", 0, Status.SUCCEEDED))
    with stage.engine.begin() as connection:
        connection.execute(text("delete from pulsewatch.ingest_stat"))
        rows = text(
            "insert into pulsewatch.ingest_stat (bucket_at, source, writer, accepted)"
            " select bucket_at, 'native', 0, 100 from"
            " generate_series(cast(:since as timestamptz), cast(:until as timestamptz), interval '5 minutes') bucket_at"
        )
        connection.execute(rows, {"since": at(-2 * 24 * 60), "until": at(-5)})
        rulebook.ensure_builtin(connection, at(0))
    stage.rule(0, **FRESH)
    for minute in range(1, 21):
        ticked = stage.tick(minute)
        assert ticked is not None
        assert ticked.frozen_because == "ingestion"
    assert stage.events() == [(5, "-", "fired", 2)]
    with stage.engine.begin() as connection:
        connection.execute(rows, {"since": at(20), "until": at(20)})
    stage.receive(20.5, ended("r2", 20, Status.SUCCEEDED))
    ticks(stage, 21, 22)
    assert stage.events()[1:] == [(21, "-", "recovering", 2)]
    # Producers have had the time to send what they could not: what is resolved is trusted again.
    with stage.engine.begin() as connection:
        connection.execute(rows, {"since": at(25), "until": at(25)})
    ticks(stage, 23, 24)
    assert stage.events()[2:] == [(23, "-", "resolved", 0)]


def test_a_history_that_is_loaded_bit_by_bit_fires_nothing_that_is_over(stage: Stage) -> None:
    """Twenty days of three pipelines in three and a half minutes, every other day a failure."""
    stage.receive(0, ended("r0", 0, Status.SUCCEEDED, pipeline="other"))
    stage.rule(1, "fresh", kind="freshness", levels={"critical": 86_400})
    stage.rule(1, "failures", levels={"critical": 2})
    ticks(stage, 1, 2, 3)
    now = 4.0
    for day in range(20, 0, -1):
        status = Status.FAILED if day % 7 < 4 else Status.SUCCEEDED
        stage.receive(now, *(ended(f"d{day}", 600 - day * 1440, status, pipeline=name) for name in "abc"))
        now += 1 / 6
        ticks(stage, now)
    stage.receive(now, *(ended("d0", 0, Status.SUCCEEDED, pipeline=name) for name in "abc"))
    ticks(stage, *(now + minute for minute in range(1, 5)))
    assert {kind for _, _, kind, _ in stage.events()} == {"pending", "pending_cleared"}
    assert stage.rows("select from pulsewatch.alert") == []


def test_what_a_loaded_history_leaves_bad_fires_two_minutes_after_its_last_arrival(stage: Stage) -> None:
    stage.receive(0, ended("r0", -3000, Status.SUCCEEDED))
    stage.rule(1)
    for minute in (1, 2, 3):
        stage.receive(minute, ended(f"r{minute}", -1000 + minute))
        ticks(stage, minute + 0.5)
    ticks(stage, 4, 4.5, 5, 5.5)
    assert plain(stage.events()) == [(2.5, "pending", 0), (5, "fired", 1)]


@pytest.mark.slow
def test_what_always_arrives_late_is_not_held_for_ever(stage: Stage) -> None:
    stage.receive(0, ended("r0", -300, Status.SUCCEEDED))
    stage.rule(1)
    for minute in range(1, 70):
        stage.receive(minute - 0.5, ended(f"r{minute}", minute - 240))
        ticks(stage, minute)
    assert plain(stage.events()) == [(2, "pending", 0), (62, "fired", 1)]


def test_a_backfill_of_old_failures_fires_nothing_that_is_over(stage: Stage) -> None:
    stage.receive(0, ended("now", 0, Status.SUCCEEDED))
    stage.rule(1)
    ticks(stage, 2)
    stage.receive(3, *[ended(f"old{number}", -1000 - number) for number in range(20)])
    ticks(stage, 4)
    assert stage.events() == []


# -- what cannot be evaluated -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_many", [False, True])
def test_no_plan_of_what_looks_at_rules_depends_on_tables_of_marks_which_are_vacuumed_all_the_time(
    stage: Stage, is_many: bool
) -> None:
    """A plan is made anew once a table that it reads was vacuumed: for this statement that takes longest of all."""
    nothing = {"client_ids": "{}", "pipeline_ids": "{}", "rules": "[]", "rule_ids": [], "earliest": at(0)}
    times = {"as_of": at(0), "known_at": at(0)}
    with stage.engine.connect() as connection:
        statement = f"explain {live_sql(tuple(KINDS.values()), is_many=is_many)}"
        plan = "\n".join(line for (line,) in connection.exec_driver_sql(statement, nothing | times))
    assert "Function Scan on unsettled" in plan
    assert " on alert_mark" not in plan
    assert " on dirty" not in plan


def test_a_kind_that_cannot_be_evaluated_is_an_error_of_its_rules_and_of_no_others(stage: Stage) -> None:
    fail_twice(stage)
    fresh: dict[str, Any] = {"kind": "freshness", "levels": {"warning": 6000}}
    stage.rule(1, "fresh", **fresh)
    stage.rule(1, "trusty", **fresh, on_error="alert")
    with stage.engine.begin() as connection:
        connection.execute(text("alter table pulsewatch.pipeline_hour rename column last_success_at to gone"))
    with stage.engine.begin() as connection:
        assert alerting.evaluate(connection, at(2), at(2)).changed == 3
    kinds = (
        "select rule.key, event.kind, event.level from pulsewatch.alert_event as event"
        " join pulsewatch.alert_rule as rule on rule.id = event.rule_id order by event.as_of, rule.key"
    )
    assert [tuple(row) for row in stage.rows(kinds)] == [
        ("fresh", "error", 0),
        ("rule", "fired", 1),
        ("trusty", "fired", 1),
    ]
    with stage.engine.begin() as connection:
        connection.execute(text("alter table pulsewatch.pipeline_hour rename column gone to last_success_at"))
    # It measures time: after a gap it would wait.
    ticks(stage, 2.5, 3)
    assert [tuple(row) for row in stage.rows(kinds)][3:] == [("fresh", "error_cleared", 0), ("trusty", "resolved", 0)]


def test_a_rule_that_asks_for_more_than_can_be_worked_out_leaves_the_others_of_its_kind_alone(stage: Stage) -> None:
    for pipeline in ("absurd", "sane", "other"):
        one = RunEvent(
            client="acme", pipeline=pipeline, run="r1", status=Status.SUCCEEDED, occurred_at=at(0), metrics={"rows": 7}
        )
        stage.receive(0, one)
        metric: dict[str, Any] = {
            "kind": "metric_threshold", "levels": {"warning": 5}, "params": {"metric": "rows"}
        }  # fmt: skip
        stage.rule(1, pipeline, **metric, selector={"pipelines": [pipeline]})
    with stage.engine.begin() as connection:
        connection.execute(text("set local session_replication_role = replica"))
        too_much = (
            "update pulsewatch.run set opening_metrics = '{\"rows\": 1e400}', winner_metrics = null"
            " where pipeline_id = (select id from pulsewatch.pipeline where slug = 'absurd')"
        )
        connection.execute(text(too_much))
    ticks(stage, 2)
    assert stage.events() == [(2, "absurd", "error", 0), (2, "other", "fired", 1), (2, "sane", "fired", 1)]


def test_the_worker_is_careful_for_a_while_after_some_rule_could_not_be_evaluated(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    evaluator = Evaluator(stage.engine)
    fail_twice(stage)
    stage.rule(1, "fresh", kind="freshness", levels={"warning": 6000})

    def tick(minute: float) -> tuple[bool, list[str]]:
        stage.work(minute)
        ticked = evaluator(at(minute))
        assert ticked is not None
        return ticked.is_careful, sorted(kind for _, pipeline, kind, _ in stage.events() if pipeline != "-")

    with stage.engine.begin() as connection:
        connection.execute(text("alter table pulsewatch.pipeline_hour rename column last_success_at to gone"))
    assert tick(2) == (True, ["error", "fired"])
    assert "kind by kind: column hour.last_success_at does not exist" in caplog.text
    with stage.engine.begin() as connection:
        connection.execute(text("alter table pulsewatch.pipeline_hour rename column gone to last_success_at"))
    # It measures time: after a gap it would wait.
    assert tick(2.5) == (True, ["error", "fired"])
    assert tick(3) == (True, ["error", "error_cleared", "fired"])
    monkeypatch.setattr(evaluator, "_careful_until_s", time.monotonic())
    assert tick(3.5) == (False, ["error", "error_cleared", "fired"])


ENDLESS = """
create or replace function pulsewatch.run_as_known(
    of_client bigint, of_run uuid, from_at timestamptz, until_at timestamptz, known_before timestamptz
)
returns table (
    first_at timestamptz, last_at timestamptz, status text, finished_at timestamptz, said_duration_s double precision,
    implied_start_at timestamptz, error_class text, winner_scheduled_at timestamptz, winner_metrics jsonb,
    opening_scheduled_at timestamptz, opening_metrics jsonb, start_at timestamptz, received_at timestamptz
)
language plpgsql stable
as $$
begin
    loop
    end loop;
end
$$
"""


def test_a_rule_that_takes_too_long_leaves_the_others_of_its_kind_alone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "KIND_TIMEOUT_S", 2.0)
    monkeypatch.setattr(looking, "LEAST_TIMEOUT_S", 1.0)
    names = ("endless", "other", "sane")
    for name in names:
        stage.receive(0, ended("r1", 0, pipeline=name), ended("r2", 0.5, pipeline=name))
        stage.rule(1, name, selector={"pipelines": [name]})
    # Its last run is told of again after the time of the tick: what was known before has to be worked out.
    stage.receive(2.5, ended("r2", 2.4, pipeline="endless"))
    stage.work(2)
    with stage.engine.begin() as connection:
        connection.execute(text(ENDLESS))
        alerting.evaluate(connection, at(2), at(2))
    assert stage.events() == [(2, "endless", "error", 0), (2, "other", "fired", 1), (2, "sane", "fired", 1)]


def test_however_long_it_takes_to_find_what_rules_watch_it_is_done(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only looks are bounded: were this, the marks would stay, and each tick would fail as the one before."""
    monkeypatch.setattr(looking, "KIND_TIMEOUT_S", 1.0)
    stage.rule(0)
    with stage.engine.begin() as connection:
        connection.execute(
            text(
                "create function public.dawdle() returns trigger language plpgsql"
                " as $$ begin perform pg_sleep(1.5); return null; end $$"
            )
        )
        connection.execute(
            text(
                "create trigger dawdle after insert on pulsewatch.alert_target"
                " for each statement execute function public.dawdle()"
            )
        )
    stage.receive(0, ended("r1", 0), ended("r2", 0.5))
    ticks(stage, 2)
    assert plain(stage.events()) == [(2, "fired", 1)]


@pytest.mark.parametrize(
    ("spec", "status", "succeeded"),
    [
        ({"levels": {"warning": 1}, "params": {"statuses": ["cancelled"]}}, Status.CANCELLED, 0.3),
        (
            {"kind": "duration_threshold", "levels": {"warning": 5}, "params": {"statuses": ["failed"]}},
            Status.FAILED,
            0.7,
        ),
    ],
)
def test_what_the_state_tells_is_not_taken_for_rules_over_other_ends(
    stage: Stage, spec: dict[str, Any], status: Status, succeeded: float
) -> None:
    """A short success is all that a pipeline's state tells of here, and none of these rules is about one."""
    long, short = ended("long", 0.5, status), ended("short", succeeded, Status.SUCCEEDED)
    long.duration_s, short.duration_s = 6.0, 1.0
    stage.receive(1, short)
    stage.rule(1, **spec)
    ticks(stage, 2)
    assert stage.events() == []
    stage.receive(3, long)
    ticks(stage, 4)
    told = "select last_outcome, last_duration_s from pulsewatch.pipeline_state"
    assert stage.rows(told) == [("succeeded", 1.0)]
    assert plain(stage.events()) == [(4, "fired", 1)]


def test_a_failure_that_an_older_worker_worked_out_counts_for_the_rate(stage: Stage) -> None:
    stage.receive(0, *(ended(f"r{number}", number / 10) for number in range(8)))
    stage.rule(1, kind="failure_rate", levels={"warning": 0.5}, params={"window_s": 3600})
    stage.work(2)
    with stage.engine.begin() as connection:
        connection.execute(text("update pulsewatch.pipeline_state set last_failure_hour_at = null"))
    stage.tick(2)
    assert plain(stage.events()) == [(2, "fired", 1)]


def test_what_is_yet_to_come_is_waited_for_by_each_rule_with_its_own_delay(stage: Stage) -> None:
    """A failure five minutes ahead of the clock: each rule finds it at its time and its delay, at no other tick."""
    for key, delay_s in (("at-once", 0), ("later", 120), ("late", 600)):
        stage.rule(0, key, kind="consecutive_failures", levels={"warning": 1}, evaluation_delay_s=delay_s)
    stage.receive(1, ended("ok", 0, Status.SUCCEEDED), ended("bad", 6))
    stage.work(2)
    looked = [minutes for minutes in range(2, 30) if (found := stage.tick(minutes)) and found.events]
    assert plain(stage.events()) == [(minutes, "fired", 1) for minutes in (6, 8, 16)]
    assert looked == [6, 8, 16]


def test_a_rule_over_a_client_that_looks_back_sees_in_time_what_was_known_before(stage: Stage) -> None:
    """What is received meanwhile enters its view ten minutes later, although nothing else arrives."""
    stage.receive(0, ended("r0", 0, Status.SUCCEEDED))
    ticks(stage, 0.5)
    stage.rule(1, kind="client_no_data", levels={"warning": 1800}, evaluation_delay_s=600)
    ticks(stage, *range(2, 60))
    stage.receive(60, ended("r1", 60, Status.SUCCEEDED))
    ticks(stage, *(minute + 0.5 for minute in range(60, 90)))
    assert plain(stage.events()) == [(40, "fired", 1), (70.5, "resolved", 0)]
