"""What goes when its time is up, and what stays."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine

from pulsewatch import retention
from pulsewatch.db import make_engine
from pulsewatch.retention import Removed, ensure_partitions, partitions, remove_expired
from pulsewatch.settings import Settings
from tests.rows import add_client, add_row, add_run, execute, scalars

AS_OF = datetime(2026, 11, 21, 12, tzinfo=UTC)
SETTINGS = Settings(
    keep_events_days=60, keep_runs_days=90, keep_slots_days=100, keep_hours_days=120, keep_rejects_days=14
)


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = make_engine(database, pool_size=5, application_name="tests")
    yield engine
    engine.dispose()


# -- partitions ----------------------------------------------------------------------------------------------


def test_missing_months_are_made_and_the_others_left(engine: Engine) -> None:
    before = partitions(engine, "run_event")
    later = datetime(2027, 3, 5, tzinfo=UTC)
    made = ensure_partitions(engine, SETTINGS, later)
    wanted = {date(2027, month, 1) for month in (1, 2, 3, 4, 5)}
    assert set(made) == wanted - set(before)
    assert wanted <= set(partitions(engine, "run_event"))
    assert ensure_partitions(engine, SETTINGS, later) == []


def test_the_newest_month_is_made_first_and_a_locked_one_left_to_the_next_time(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    execute(engine, "create table pulsewatch.asked (month date, place int generated always as identity)")
    execute(
        engine,
        "create or replace function pulsewatch.ensure_partition(month date) returns boolean language plpgsql"
        " as $$ begin if month = '2041-03-01' then raise exception 'no' using errcode = 'lock_not_available'; end if;"
        " insert into pulsewatch.asked (month) values (month); return true; end $$",
    )
    made = ensure_partitions(engine, SETTINGS, datetime(2041, 3, 5, tzinfo=UTC))
    assert made == [date(2040, 12, 1), *(date(2041, month, 1) for month in (1, 2, 4, 5))]
    assert scalars(engine, "select month from pulsewatch.asked order by place") == made[::-1]
    assert "no room is made for 2041-03" in caplog.text


def test_a_table_that_a_person_attached_is_none_of_our_months(engine: Engine) -> None:
    before = partitions(engine, "run_event")
    for name, year in (("run_event_archive", 2011), ("run_event_2012_13", 2012)):
        execute(
            engine,
            f"create table pulsewatch.{name} partition of pulsewatch.run_event"
            f" for values from ('{year}-01-01T00:00:00Z') to ('{year}-02-01T00:00:00Z')",
        )
    assert partitions(engine, "run_event") == before
    remove_expired(engine, SETTINGS, AS_OF)
    assert scalars(engine, "select to_regclass('pulsewatch.run_event_archive')::text") == [
        "pulsewatch.run_event_archive"
    ]


def test_dropping_a_month_makes_ingestion_wait_for_a_moment_only(engine: Engine) -> None:
    setting = "select unnest(proconfig) from pg_proc where oid = 'pulsewatch.drop_partition(text, date)'::regprocedure"
    assert "lock_timeout=200ms" in scalars(engine, setting)


def test_a_month_goes_when_all_of_it_is_past_the_keep_time(engine: Engine) -> None:
    client_id = add_client(engine, "acme")
    # 60 days before AS_OF is 22 September: August is past, September is not.
    add_run(engine, client_id, "old", datetime(2026, 8, 31, 23, 59, tzinfo=UTC))
    add_run(engine, client_id, "kept", datetime(2026, 9, 1, tzinfo=UTC))
    removed = remove_expired(engine, SETTINGS, AS_OF)
    assert [name for name in removed.partitions if name.startswith("run_event")][-1] == "run_event_2026_08"
    assert partitions(engine, "run_event")[0] == date(2026, 9, 1)
    assert scalars(engine, "select count(*) from pulsewatch.run_event") == [1]


def test_a_month_that_is_being_read_is_left_to_the_next_time(engine: Engine, database: str) -> None:
    execute(engine, "alter function pulsewatch.drop_partition(text, date) set lock_timeout = '50ms'")
    execute(engine, "select pulsewatch.ensure_partition('2024-05-01')")
    oldest = partitions(engine, "run_event")[0]
    with psycopg.connect(database) as reader:
        reader.execute("select count(*) from pulsewatch.run_event")
        assert [name for name in remove_expired(engine, SETTINGS, AS_OF).partitions if "run_event" in name] == []
    assert remove_expired(engine, SETTINGS, AS_OF).partitions[0] == f"run_event_{oldest:%Y_%m}"


def test_every_partitioned_table_has_the_months_and_keeps_them_for_its_own_time(engine: Engine) -> None:
    ensure_partitions(engine, SETTINGS, AS_OF - timedelta(days=60))
    removed = remove_expired(engine, SETTINGS, AS_OF)
    ensure_partitions(engine, SETTINGS, AS_OF)
    oldest = {table: partitions(engine, table)[0] for table in ("run_event", "slot", "pipeline_hour")}
    # 60, 100 and 120 days before AS_OF are 22 September, 13 August and 24 July.
    assert oldest == {"run_event": date(2026, 9, 1), "slot": date(2026, 8, 1), "pipeline_hour": date(2026, 7, 1)}
    assert {name for name in removed.partitions if "2026_0" in name and name[-1] >= "6"} == {
        "run_event_2026_06",
        "run_event_2026_07",
        "run_event_2026_08",
        "slot_2026_06",
        "slot_2026_07",
        "pipeline_hour_2026_06",
    }


def test_a_month_past_for_events_but_not_for_hours_is_not_made_again_and_again(engine: Engine) -> None:
    remove_expired(engine, SETTINGS, AS_OF)
    assert ensure_partitions(engine, SETTINGS, AS_OF) == []
    assert remove_expired(engine, SETTINGS, AS_OF).partitions == []


def test_the_months_that_somebody_may_write_to_are_made_anew_if_one_is_lacking(engine: Engine) -> None:
    ensure_partitions(engine, SETTINGS, AS_OF)
    execute(engine, "drop table pulsewatch.slot_2026_10")
    assert ensure_partitions(engine, SETTINGS, AS_OF) == [date(2026, 10, 1)]
    assert date(2026, 10, 1) in partitions(engine, "slot")


# -- what was worked out -------------------------------------------------------------------------------------


def test_the_hours_of_clients_and_the_fleet_go_by_the_same_months_as_those_of_pipelines(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)
    july = datetime(2026, 7, 1, tzinfo=UTC)
    for hours in (-3, -2, -1, 0, 1):
        at = july + timedelta(hours=hours)
        execute(engine, "select pulsewatch.ensure_partition(:day)", day=at.date())
        add_row(engine, "pipeline_hour", client_id=1, pipeline_id=1, hour_at=at)
        add_row(engine, "client_hour", client_id=1, hour_at=at)
        add_row(engine, "fleet_hour", hour_at=at)
    for table in ("pipeline_day", "client_day"):
        add_row(engine, table, client_id=1, day_utc=july - timedelta(days=1))
    add_row(engine, "fleet_day", day_utc=july - timedelta(days=1))

    assert remove_expired(engine, SETTINGS, AS_OF).hours == 6
    for table in ("pipeline_hour", "client_hour", "fleet_hour"):
        kept = scalars(engine, f"select hour_at from pulsewatch.{table} order by hour_at")
        assert kept == [july, july + timedelta(hours=1)], table
    for table in ("pipeline_day", "client_day", "fleet_day"):
        assert scalars(engine, f"select count(*) from pulsewatch.{table}") == [1]


def test_spans_go_when_they_ended_before_the_keep_time_of_runs(engine: Engine) -> None:
    client_id = add_client(engine, "acme")
    limit = AS_OF - timedelta(days=90)
    old = limit - timedelta(days=9)
    for number, ended_at in enumerate((limit - timedelta(microseconds=1), limit, None)):
        add_row(engine, "failing_span", client_id=client_id, pipeline_id=number, began_at=old, ended_at=ended_at)
    assert remove_expired(engine, SETTINGS, AS_OF).spans == 1
    assert scalars(engine, "select pipeline_id from pulsewatch.failing_span order by 1") == [1, 2]


def test_state_and_annotations_stay(engine: Engine) -> None:
    client_id = add_client(engine, "acme")
    long_ago = AS_OF - timedelta(days=5000)
    add_row(engine, "annotation", client_id=client_id, at=long_ago)
    add_row(engine, "pipeline_state", client_id=client_id, last_run_first_at=long_ago)
    remove_expired(engine, SETTINGS, AS_OF)
    for table in ("annotation", "pipeline_state"):
        assert scalars(engine, f"select count(*) from pulsewatch.{table}") == [1]


def test_nothing_goes_that_the_rollups_read_while_they_are_behind(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    client_id = add_client(engine, "acme")
    add_run(engine, client_id, "old", AS_OF - timedelta(days=150))
    add_row(engine, "client_hour", client_id=client_id, hour_at=AS_OF - timedelta(days=200))
    add_row(
        engine,
        "failing_span",
        client_id=client_id,
        began_at=AS_OF - timedelta(days=99),
        ended_at=AS_OF - timedelta(days=95),
    )
    waiting = AS_OF - timedelta(minutes=1, microseconds=1)
    add_row(engine, "dirty", client_id=client_id, hour_at=AS_OF, marked_at=waiting)

    held = remove_expired(engine, SETTINGS, AS_OF)
    assert {name.rsplit("_", 2)[0] for name in held.partitions} == {"run_event"}
    assert (held.runs, held.hours, held.spans) == (0, 0, 0)
    assert "the rollups are behind" in caplog.text

    # A mark that has only just been left holds nothing up.
    execute(engine, "update pulsewatch.dirty set marked_at = :at", at=AS_OF - timedelta(minutes=1))
    removed = remove_expired(engine, SETTINGS, AS_OF)
    assert {name.rsplit("_", 2)[0] for name in removed.partitions} == {"slot", "pipeline_hour"}
    assert (removed.runs, removed.hours, removed.spans) == (1, 1, 1)


# -- runs, rejects, statistics -------------------------------------------------------------------------------


def test_runs_go_when_their_last_word_is_past_the_keep_time(engine: Engine) -> None:
    client_id = add_client(engine, "acme")
    limit = AS_OF - timedelta(days=90, hours=2)
    add_run(engine, client_id, "gone", limit - timedelta(days=2), limit - timedelta(microseconds=1))
    add_run(engine, client_id, "ended lately", limit - timedelta(days=2), limit)
    add_run(engine, client_id, "young", limit)
    add_run(engine, client_id, "says it starts later", limit - timedelta(days=2))
    start = "update pulsewatch.run set start_at = :limit where external_id = 'says it starts later'"
    execute(engine, start, limit=limit)
    assert remove_expired(engine, SETTINGS, AS_OF).runs == 1
    names = scalars(engine, "select external_id from pulsewatch.run order by 1")
    assert names == ["ended lately", "says it starts later", "young"]


def test_a_run_stays_until_its_events_have_gone_with_their_month(engine: Engine) -> None:
    settings = Settings(keep_events_days=60, keep_runs_days=60)
    client_id = add_client(engine, "acme")
    # Both are past the keep time, which is 22 September; the second one's events are in a month that is not.
    add_run(engine, client_id, "month gone", datetime(2026, 8, 31, 23, 59, 59, 999999, tzinfo=UTC))
    add_run(engine, client_id, "month kept", datetime(2026, 9, 1, tzinfo=UTC))
    assert remove_expired(engine, settings, AS_OF).runs == 1
    assert scalars(engine, "select external_id from pulsewatch.run") == ["month kept"]
    orphans = (
        "select count(*) from pulsewatch.run_event where not exists"
        " (select from pulsewatch.run where run.client_id = run_event.client_id and run.id = run_event.run_id)"
    )
    assert scalars(engine, orphans) == [0]


def test_runs_go_in_batches_and_for_every_client(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)
    for slug in ("acme", "beta"):
        client_id = add_client(engine, slug)
        for number in range(5):
            add_run(engine, client_id, f"{number}", AS_OF - timedelta(days=100 + number))
    assert remove_expired(engine, SETTINGS, AS_OF).runs == 10


def test_a_run_that_ingestion_holds_is_passed_over(engine: Engine, database: str) -> None:
    client_id = add_client(engine, "acme")
    for name in ("held", "free"):
        add_run(engine, client_id, name, AS_OF - timedelta(days=100))
    with psycopg.connect(database) as writer:
        writer.execute("update pulsewatch.run set message = 'x' where external_id = 'held'")
        assert remove_expired(engine, SETTINGS, AS_OF).runs == 1
    assert scalars(engine, "select external_id from pulsewatch.run") == ["held"]


def test_rejects_statistics_and_signs_of_life_go(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)
    for days in (13, 15, 15, 15, 400):
        at = AS_OF - timedelta(days=days)
        execute(
            engine,
            "insert into pulsewatch.ingest_reject (received_at, source, code, pointer, detail, item)"
            " values (:at, 'native', 'c', '', 'd', '{}')",
            at=at,
        )
    for days in (59, 61):
        stat = "insert into pulsewatch.ingest_stat (bucket_at, source, writer) values (:at, 'native', 1)"
        execute(engine, stat, at=AS_OF - timedelta(days=days))
    for name, hours in (("lives", 23), ("dead", 25)):
        beat = "insert into pulsewatch.worker_heartbeat values (:name, :at, :at)"
        execute(engine, beat, name=name, at=AS_OF - timedelta(hours=hours))
    removed = remove_expired(engine, SETTINGS, AS_OF)
    assert (removed.rejects, removed.stats) == (4, 1)
    assert scalars(engine, "select received_at from pulsewatch.ingest_reject") == [AS_OF - timedelta(days=13)]
    assert scalars(engine, "select worker_id from pulsewatch.worker_heartbeat") == ["lives"]


def test_nothing_is_done_twice_while_another_worker_is_at_it(engine: Engine, database: str) -> None:
    client_id = add_client(engine, "acme")
    add_run(engine, client_id, "old", AS_OF - timedelta(days=100))
    with psycopg.connect(database) as other:
        other.execute("select pg_advisory_xact_lock(hashtext('pulsewatch.retention'))")
        assert remove_expired(engine, SETTINGS, AS_OF) == Removed()
    assert remove_expired(engine, SETTINGS, AS_OF).runs == 1


# -- alerts --------------------------------------------------------------------------------------------------

ALERTS = Settings(keep_alerts_days=60)
# 60 days before AS_OF. August is past; September is not, so what ended in it stays, also before the 22nd.
CUT = AS_OF - timedelta(days=60)
SEPTEMBER = datetime(2026, 9, 1, tzinfo=UTC)


def add_alert(engine: Engine, client_id: int, number: int, fired_at: datetime, ended_at: datetime | None) -> None:
    """An alert with its first event, and with a message of which there was one attempt."""
    execute(engine, "select pulsewatch.ensure_partition(:day)", day=fired_at.date())
    rule_id, channel_id = (
        scalars(engine, f"select id from pulsewatch.{table} where key = 'x'")[0] for table in ("alert_rule", "channel")
    )
    keys: dict[str, Any] = {"client_id": client_id, "alert_id": UUID(int=number)}
    ended = {"resolved_at": ended_at, "resolve_reason": "recovered" if ended_at else None}
    add_row(
        engine, "alert", client_id=client_id, id=UUID(int=number), rule_id=rule_id, pipeline_id=number,
        fired_at=fired_at, **ended,
    )  # fmt: skip
    add_row(engine, "alert_event", **keys, as_of=fired_at)
    told = {"status": "sent", "sent_at": fired_at, "created_at": fired_at}
    add_row(engine, "notification", **keys, id=UUID(int=number), channel_id=channel_id, **told)
    add_row(engine, "notification_attempt", client_id=client_id, notification_id=UUID(int=number), started_at=fired_at)


@pytest.fixture
def alerting(engine: Engine) -> Engine:
    """A rule and a channel."""
    for table in ("alert_rule", "channel"):
        add_row(engine, table, key="x")
    return engine


def test_alerts_events_messages_and_attempts_go_together(alerting: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)
    client_id = add_client(alerting, "acme")
    before = SEPTEMBER - timedelta(microseconds=1)
    for number in range(5):
        add_alert(alerting, client_id, number, before - timedelta(days=number), before)
    # Those of the fleet as a whole have no client.
    add_alert(alerting, 0, 5, before, before)
    add_alert(alerting, client_id, 6, SEPTEMBER, SEPTEMBER)
    removed = remove_expired(alerting, ALERTS, AS_OF)
    assert (removed.alerts, removed.notifications) == (6, 6)
    for table in ("alert", "alert_event", "notification", "notification_attempt"):
        assert scalars(alerting, f"select count(*) from pulsewatch.{table}") == [1], table
    for table in ("alert_event", "notification_attempt"):
        assert partitions(alerting, table)[0] == SEPTEMBER.date()
    assert partitions(alerting, "run_event")[0] < SEPTEMBER.date()


def test_an_alert_that_goes_on_or_ended_lately_stays_and_so_does_what_was_told_of_one_that_goes_on(
    alerting: Engine,
) -> None:
    client_id = add_client(alerting, "acme")
    old = SEPTEMBER - timedelta(days=3)
    add_alert(alerting, client_id, 1, old, None)
    add_alert(alerting, client_id, 2, old, CUT)
    removed = remove_expired(alerting, ALERTS, AS_OF)
    assert (removed.alerts, removed.notifications) == (0, 1)
    assert scalars(alerting, "select pipeline_id from pulsewatch.alert order by 1") == [1, 2]
    assert scalars(alerting, "select alert_id from pulsewatch.notification") == [UUID(int=1)]


def test_a_message_that_may_yet_be_sent_stays(alerting: Engine) -> None:
    client_id = add_client(alerting, "acme")
    old = SEPTEMBER - timedelta(days=3)
    for number in (1, 2):
        add_alert(alerting, client_id, number, old, old)
    execute(
        alerting,
        "update pulsewatch.notification set status = 'pending', sent_at = null where alert_id = :id",
        id=UUID(int=1),
    )
    assert remove_expired(alerting, ALERTS, AS_OF).notifications == 1
    assert scalars(alerting, "select status from pulsewatch.notification") == ["pending"]


def test_silences_go_after_their_end_and_evaluations_after_forty_days(engine: Engine) -> None:
    for seconds in (-1, 0, 1):
        add_row(
            engine, "silence", id=UUID(int=2 + seconds), starts_at=CUT - timedelta(days=1), comment="x",
            ends_at=CUT + timedelta(seconds=seconds),
        )  # fmt: skip
        add_row(engine, "alert_tick", as_of=AS_OF - timedelta(days=40) + timedelta(seconds=seconds))
    remove_expired(engine, ALERTS, AS_OF)
    assert scalars(engine, "select ends_at from pulsewatch.silence order by 1") == [CUT, CUT + timedelta(seconds=1)]
    assert scalars(engine, "select as_of from pulsewatch.alert_tick order by 1") == [
        AS_OF - timedelta(days=40),
        AS_OF - timedelta(days=40) + timedelta(seconds=1),
    ]


def test_rules_their_versions_and_channels_stay(alerting: Engine) -> None:
    (rule_id,) = scalars(alerting, "select id from pulsewatch.alert_rule")
    long_ago = AS_OF - timedelta(days=5000)
    add_row(alerting, "alert_rule_version", rule_id=rule_id, created_at=long_ago)
    for table in ("alert_rule", "channel"):
        execute(alerting, f"update pulsewatch.{table} set deleted_at = :at", at=long_ago)
    remove_expired(alerting, ALERTS, AS_OF)
    for table in ("alert_rule", "alert_rule_version", "channel"):
        assert scalars(alerting, f"select count(*) from pulsewatch.{table}") == [1], table
