"""Filters on a client and on time reach the keys, also where a client is named by its slug."""

import json
import re
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, text

from tests.analytics.rows import counted, read

SERVED = [
    ("runs", "first_at"),
    ("run_metrics", "first_at"),
    ("run_attempts", "first_at"),
    ("run_events", "occurred_at"),
    ("runs_hourly", "hour_at"),
    ("runs_daily", "day_utc"),
    ("client_hourly", "hour_at"),
    ("client_daily", "day_utc"),
    ("duration_hist_hourly", "hour_at"),
    ("slots", "slot_at"),
    ("failing_spans", "began_at"),
    ("annotations", "at"),
    ("alerts", "fired_at"),
    ("notifications", "created_at"),
]
WITHOUT_CLIENT = [
    ("fleet_hourly", "hour_at"),
    ("fleet_daily", "day_utc"),
    ("ingest_5m", "bucket_at"),
    ("alerts", "fired_at"),
    ("notifications", "created_at"),
]


FILL = """
    insert into pulsewatch.client (slug) select 'plan-' || number from generate_series(1, 40) as number;
    insert into pulsewatch.pipeline (client_id, slug, name, identity_digest)
    select client.id, 'p' || number, 'p' || number, gen_random_uuid()
    from pulsewatch.client, generate_series(1, 3) as number;
    insert into pulsewatch.client_hour
    select (counted).*
    from (
        select jsonb_populate_record(null::pulsewatch.client_hour, cast(:numbers as jsonb) || jsonb_build_object(
            'client_id', client.id, 'hour_at', timestamptz '2026-11-21 00:00+00' - number * interval '1 hour'
        )) as counted
        from pulsewatch.client, generate_series(1, 500) as number
    ) as made;
    insert into pulsewatch.failing_span (
        client_id, pipeline_id, run_id, first_at, began_at, last_first_at, ended_at, failure_count
    )
    select client_id, id, gen_random_uuid(), began.at, began.at, began.at, null, 1
    from pulsewatch.pipeline, generate_series(1, 300) as number,
    lateral (select timestamptz '2026-11-21 00:00+00' - number * interval '2 hours' as at) as began;
    insert into pulsewatch.run (
        client_id, id, pipeline_id, external_id, state_key, winner_key, status, opened_at, opening_key, first_at,
        last_at
    )
    select
        client_id, gen_random_uuid(), id, number, 0, gen_random_uuid(), 'queued', begun.at, gen_random_uuid(), begun.at,
        begun.at
    from pulsewatch.pipeline, generate_series(1, 200) as number,
    lateral (select timestamptz '2026-11-21 00:00+00' - number * interval '2 hours' as at) as begun;
    insert into pulsewatch.slot (client_id, pipeline_id, slot_at, deadline_at, status)
    select client_id, id, expected.at, expected.at, 'missed'
    from pulsewatch.pipeline, generate_series(1, 200) as number,
    lateral (select timestamptz '2026-11-21 00:00+00' - number * interval '2 hours' as at) as expected
    where slug = 'p2';
    insert into pulsewatch.alert_rule (key, version, kind, is_enabled) values ('plans', 1, 'freshness', true);
    insert into pulsewatch.channel (key, kind, config) values ('plans', 'webhook', '{}');
    insert into pulsewatch.alert (
        client_id, id, rule_id, rule_version, pipeline_id, level, max_level, fired_at, resolved_at, resolve_reason,
        summary
    )
    select
        client.id, gen_random_uuid(), alert_rule.id, 1, number, 1, 1, fired.at, fired.at, 'recovered', ''
    from pulsewatch.client, pulsewatch.alert_rule, generate_series(1, 300) as number,
    lateral (select timestamptz '2026-11-21 00:00+00' - number * interval '2 hours' as at) as fired;
    insert into pulsewatch.alert_event (
        client_id, as_of, alert_id, seq, rule_id, rule_version, pipeline_id, kind, from_state, state, prev_level, level
    )
    select client_id, fired_at, id, 1, rule_id, 1, pipeline_id, 'fired', 'ok', 'firing', 0, 1
    from pulsewatch.alert
    where fired_at >= '2026-11-01 00:00+00';
    insert into pulsewatch.notification (
        client_id, id, channel_id, alert_id, reason, status, body, next_attempt_at, expires_at, created_at
    )
    select alert.client_id, alert.id, channel.id, alert.id, 'fired', 'held', '{}', fired_at, fired_at, fired_at
    from pulsewatch.alert, pulsewatch.channel;
    analyze pulsewatch.client, pulsewatch.pipeline, pulsewatch.client_hour, pulsewatch.failing_span, pulsewatch.alert,
        pulsewatch.alert_event, pulsewatch.notification, pulsewatch.slot, pulsewatch.run
"""


@pytest.fixture(scope="module")
def connection(engine: Engine) -> Iterator[Connection]:
    """Some history, where an empty table would be searched in any way; undone after the last test."""
    with engine.connect() as connection:
        transaction = connection.begin()
        connection.execute(text("select pulsewatch.ensure_partition('2026-11-01')"))
        numbers = json.dumps(counted({20: 1}))
        for statement in FILL.split(";\n"):
            connection.execute(text(statement), {"numbers": numbers} if ":numbers" in statement else {})
        yield connection
        transaction.rollback()


def conditions(connection: Connection, view: str, filters: str) -> list[str]:
    """The conditions with which the view's indexes are searched."""
    # Small tables are read whole, whatever index there is; what is asked is whether the filters get as far as one.
    connection.execute(text("set local enable_seqscan = off"))
    lines = read(connection, f"explain (costs off) select * from analytics.{view} where {filters}")
    return [line for (line,) in lines if "Index Cond" in line]


def window(time: str) -> str:
    return f"{time} >= '2026-11-20' and {time} < '2026-11-21'"


def names(condition: str) -> set[str]:
    return set(re.findall(r"\(\"?(\w+)\"? [=<>]", condition))


@pytest.mark.parametrize(("view", "time"), SERVED)
@pytest.mark.parametrize("whose", ["client_id = {}", "client = 'plan-7'"])
def test_a_window_of_a_client_is_searched_by_index(connection: Connection, view: str, time: str, whose: str) -> None:
    # One that has rows: of one that has none the planner expects none, and any index will do.
    ((client_id,),) = read(connection, "select id from pulsewatch.client where slug = 'plan-7'")
    found = [names(line) for line in conditions(connection, view, f"{whose.format(client_id)} and {window(time)}")]
    assert any({"client_id", time} <= columns for columns in found), found


@pytest.mark.parametrize("whose", ["client_id = {}", "client = 'plan-7'"])
def test_a_window_of_a_clients_alert_events_is_searched_by_index(connection: Connection, whose: str) -> None:
    ((client_id,),) = read(connection, "select id from pulsewatch.client where slug = 'plan-7'")
    found = conditions(connection, "alert_events", f"{whose.format(client_id)} and {window('occurred_at')}")
    assert any({"client_id", "as_of"} <= names(line) for line in found), found


@pytest.mark.parametrize("function", ["alerts_summary", "level_series", "rules_summary", "channels_summary"])
def test_functions_about_alerts_read_those_of_their_window(connection: Connection, function: str) -> None:
    """Of 12,000 alerts and as many messages, those of four clients' worth at most."""
    query = """
        select sum(seq_tup_read + idx_tup_fetch)::bigint from pg_stat_xact_user_tables
        where relname in ('alert', 'notification') or relname like 'alert_event_%'
    """
    ((before,),) = read(connection, query)
    read(connection, f"select * from analytics.{function}('2026-11-20 00:00+00', '2026-11-21 00:00+00')")
    ((after,),) = read(connection, query)
    assert 0 < after - before < 2000


@pytest.mark.parametrize(("view", "time"), WITHOUT_CLIENT)
def test_a_window_of_the_fleet_is_searched_by_index(connection: Connection, view: str, time: str) -> None:
    found = [names(line) for line in conditions(connection, view, window(time))]
    assert any(time in columns for columns in found), found


def test_only_runs_with_a_retry_look_into_their_events(connection: Connection) -> None:
    filters = f"client_id = 7 and {window('first_at')}"
    lines = [
        line
        for (line,) in read(connection, f"explain (costs off) select * from analytics.run_attempts where {filters}")
    ]
    assert any("One-Time Filter: ((run.state_key >> 58) > 0)" in line for line in lines), lines


STATE_SERIES = """
    insert into pulsewatch.pipeline_state (client_id, pipeline_id, last_slot_at, consecutive_failures, running_count)
    select client_id, id, '2026-11-20 23:00+00', 0, 0 from pulsewatch.pipeline where slug = 'p1';
    insert into pulsewatch.slot (client_id, pipeline_id, slot_at, deadline_at, status)
    select client_id, id, slot_at, slot_at, 'missed'
    from pulsewatch.pipeline,
    generate_series(timestamptz '2026-11-01 00:00+00', '2026-11-20 23:00+00', '1 hour') as slot_at
    where slug = 'p1';
    analyze pulsewatch.slot, pulsewatch.pipeline_state
"""


@pytest.mark.parametrize("whose", ["null", "'plan-7'"])
def test_a_state_series_of_an_hour_reads_no_history(connection: Connection, whose: str) -> None:
    """Of 480 slots and 300 spans of a pipeline only the few that are about the window, also for all of them at once."""
    with connection.begin_nested() as savepoint:
        connection.execute(text("select pulsewatch.ensure_partition('2026-11-01')"))
        for statement in STATE_SERIES.split(";\n"):
            connection.execute(text(statement))
        before = rows_read(connection)
        window = "'2026-11-20 12:30+00', '2026-11-20 13:30+00'"
        states = read(connection, f"select state from analytics.state_series({window}, {whose})")
        count = rows_read(connection) - before
        savepoint.rollback()
    assert len(states) == (3 if whose != "null" else 120)
    assert 2 * len(states) < count < 24 * len(states)


def rows_read(connection: Connection) -> int:
    """Slots and spans that this transaction has read so far."""
    query = """
        select sum(seq_tup_read + idx_tup_fetch)::bigint from pg_stat_xact_user_tables
        where relname ~ '^(slot_[0-9]{4}_[0-9]{2}|failing_span)$'
    """
    ((count,),) = read(connection, query)
    return int(count)


def test_the_latest_rows_of_a_client_are_read_in_order(connection: Connection) -> None:
    """By its number nothing is sorted: the first rows of the index are the answer."""
    query = "select first_at, pipeline, status from analytics.runs where client_id = analytics.client_id('plan-7')"
    lines = [line for (line,) in read(connection, f"explain (costs off) {query} order by first_at desc limit 100")]
    assert any("run_client_first_at_idx" in line for line in lines), lines
    assert not any("Sort" in line for line in lines), lines
