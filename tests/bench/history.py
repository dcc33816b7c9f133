"""A history of runs and events, made inside PostgreSQL in the real tables, with keys that fit each other.

Rows have the shape that ingestion would have given them (a start and an end, each with message, metrics and
attributes), spread evenly over clients, pipelines and time. Indexes are dropped while the rows go in and built
afterwards.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg

from pulsewatch.events import digest16, pipeline_slug

CLIENTS = 100
PIPELINES_PER_CLIENT = 100
SPAN = timedelta(days=30)
SLICE_ROWS = 250_000


def client_slug(number: int) -> str:
    return f"client-{number:03d}"


def pipeline_name(number: int) -> str:
    return f"pipeline-{number:03d}"


@dataclass(frozen=True, slots=True)
class Catalog:
    """Ids of clients and pipelines; pipeline i (from 0) belongs to client i % CLIENTS."""

    client_ids: list[int]
    pipeline_ids: list[int]


def make_catalog(dsn: str) -> Catalog:
    """Make the clients and pipelines, as their first events would."""
    slugs = [client_slug(number) for number in range(CLIENTS)]
    names = [pipeline_name(number) for number in range(PIPELINES_PER_CLIENT)]
    with psycopg.connect(dsn) as connection:
        connection.execute("insert into pulsewatch.client (slug) select unnest(%s::text[])", (slugs,))
        connection.execute(
            "insert into pulsewatch.pipeline (client_id, slug, name, identity_digest)"
            " select client.id, named.slug, named.name, named.digest"
            " from unnest(%s::text[], %s::text[], %s::uuid[]) as named (slug, name, digest), pulsewatch.client",
            ([pipeline_slug("", name) for name in names], names, [digest16("", name) for name in names]),
        )
        clients = connection.execute("select id from pulsewatch.client order by slug").fetchall()
        pipelines = connection.execute(
            "select pipeline.id from pulsewatch.pipeline join pulsewatch.client on pipeline.client_id = client.id"
            " order by pipeline.name, client.slug"
        ).fetchall()
    return Catalog([row[0] for row in clients], [row[0] for row in pipelines])


# Run i of %(runs)s starts at `since` + i * `step`; its id carries that millisecond, as for a UUIDv7.
_RUNS = """
    select
        i,
        (%(client_ids)s::bigint[])[i %% cardinality(%(client_ids)s::bigint[]) + 1] as client_id,
        (%(pipeline_ids)s::bigint[])[i %% cardinality(%(pipeline_ids)s::bigint[]) + 1] as pipeline_id,
        overlay(
            overlay(
                overlay(
                    md5(i || 'run') placing lpad(
                        to_hex((extract(epoch from %(since)s::timestamptz + i * %(step)s::interval) * 1000)::bigint),
                        12, '0'
                    ) from 1
                ) placing '8' from 13
            ) placing 'a' from 17
        )::uuid as id,
        md5(i || 'running')::uuid as start_key,
        md5(i || 'end')::uuid as end_key,
        %(since)s::timestamptz + i * %(step)s::interval as start_at,
        %(since)s::timestamptz + i * %(step)s::interval + interval '30 seconds' as end_at,
        case when hashint8(i) & 31 < 2 then 'failed' else 'succeeded' end as status,
        case when hashint8(i) & 31 < 2 then 4 else 1 end as rank
    from generate_series(%(first)s::bigint, %(last)s::bigint - 1) as i
"""

INSERT_RUNS = f"""
insert into pulsewatch.run (
    client_id, id, pipeline_id, external_id, state_key, winner_key, status, finished_at, message,
    winner_metrics, winner_attributes, opened_at, opening_key, opening_metrics, opening_attributes, first_at, start_at,
    latest_start_at, earliest_end_at, prev_started_at, last_at, received_at, first_received_at
)
select
    client_id, id, pipeline_id, id::text,
    (3::bigint << 56) | ((extract(epoch from end_at) * 1000000)::bigint << 3) | rank,
    end_key, status, end_at, 'loaded the table in good order',
    '{{"rows": 1234, "bytes": 98765}}'::jsonb, '{{"table": "sales.orders"}}'::jsonb, start_at, start_key,
    '{{"queued_s": 1.5}}'::jsonb, '{{"host": "worker-7", "image": "etl:2026.11"}}'::jsonb, start_at, start_at,
    start_at, end_at, start_at, end_at, end_at, start_at
from ({_RUNS}) as made
"""

INSERT_EVENTS = f"""
insert into pulsewatch.run_event (
    client_id, occurred_at, dedupe_key, content_digest, run_id, pipeline_id, received_at, status, message, metrics,
    attributes
)
select
    made.client_id, event.at, event.key, event.key, made.id, made.pipeline_id, event.at, event.status, event.message,
    event.metrics, event.attributes
from ({_RUNS}) as made
cross join lateral (
    values
    (made.start_at, made.start_key, 'running', 'picked up by worker-7', '{{"queued_s": 1.5}}'::jsonb,
     '{{"host": "worker-7", "image": "etl:2026.11"}}'::jsonb),
    (made.end_at, made.end_key, made.status, 'loaded the table in good order',
     '{{"rows": 1234, "bytes": 98765}}'::jsonb, '{{"table": "sales.orders"}}'::jsonb)
) as event (at, key, status, message, metrics, attributes)
"""


def make_history(dsn: str, catalog: Catalog, *, runs: int, events: int, until: datetime) -> None:
    """Fill in `runs` runs over SPAN up to `until`; the newest events // 2 of them have their two events.

    The tables must be empty.
    """
    step = SPAN / runs if runs else SPAN
    arguments = {
        "client_ids": catalog.client_ids,
        "pipeline_ids": catalog.pipeline_ids,
        "since": until - SPAN,
        "step": step,
    }
    with psycopg.connect(dsn, autocommit=True) as connection:
        for month in {(until - SPAN + timedelta(days=day)).strftime("%Y-%m-01") for day in range(SPAN.days + 2)}:
            connection.execute("select pulsewatch.ensure_partition(%s::date)", (month,))
        restore = _drop_run_indexes(connection)
    with ThreadPoolExecutor(2) as threads:
        first_with_events = max(runs - events // 2, 0)
        work = [(INSERT_RUNS, first, min(first + SLICE_ROWS, runs)) for first in range(0, runs, SLICE_ROWS)]
        work += [
            (INSERT_EVENTS, first, min(first + SLICE_ROWS, runs))
            for first in range(first_with_events, runs, SLICE_ROWS)
        ]
        list(threads.map(lambda one: _insert(dsn, one[0], arguments | {"first": one[1], "last": one[2]}), work))
        list(threads.map(lambda statement: _execute(dsn, statement), restore))
    for table in ("run", "run_event", "pipeline", "client"):
        _execute(dsn, f"vacuum (analyze) pulsewatch.{table}")
    _execute(dsn, "checkpoint")


# Every eighth pipeline has a schedule: each of its runs has a slot, one in fifty met late, one in a hundred not at all.
INSERT_SLOTS = """
insert into pulsewatch.slot (client_id, pipeline_id, slot_at, deadline_at, status, run_id, started_at)
select
    run.client_id, run.pipeline_id, due.slot_at, due.slot_at + interval '300 seconds', due.status,
    case when due.status <> 'missed' then run.id end, case when due.status <> 'missed' then run.start_at end
from pulsewatch.run
cross join lateral (select extract(epoch from run.start_at)::bigint % 100 as turn) as drawn
cross join lateral (
    select
        case when drawn.turn < 2 then 'late' when drawn.turn = 2 then 'missed' else 'on_time' end as status,
        run.start_at - case when drawn.turn < 2 then interval '600 seconds' else interval '5 seconds' end as slot_at
) as due
where hashint8(run.pipeline_id) & 7 = 0
order by run.client_id, run.pipeline_id, due.slot_at
on conflict do nothing
"""


def make_slots(dsn: str) -> None:
    """Fill in slots for the runs of `make_history`."""
    _execute(dsn, INSERT_SLOTS)


def _insert(dsn: str, statement: str, arguments: dict[str, object]) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("set timezone to 'UTC'")
        connection.execute(statement, arguments)


def _execute(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("set maintenance_work_mem to '1GB'")
        connection.execute(statement)


def _drop_run_indexes(connection: psycopg.Connection) -> list[str]:
    """Drop what slows bulk loading of `run`; the statements that bring it back as it was."""
    key = connection.execute(
        "select conname, pg_get_constraintdef(oid) from pg_constraint"
        " where conrelid = 'pulsewatch.run'::regclass and contype = 'p'"
    ).fetchone()
    if key is None:
        return []
    indexes = connection.execute(
        "select indexname, indexdef from pg_indexes"
        " where schemaname = 'pulsewatch' and tablename = 'run' and indexname <> %s",
        (key[0],),
    ).fetchall()
    for name, _ in indexes:
        connection.execute(f'drop index pulsewatch."{name}"')
    connection.execute(f'alter table pulsewatch.run drop constraint "{key[0]}"')
    return [
        f'alter table pulsewatch.run add constraint "{key[0]}" {key[1]}',
        *(definition for _, definition in indexes),
    ]
