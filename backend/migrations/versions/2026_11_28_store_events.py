"""Ingestion in one round trip: what stores a batch of events is a function of the database.

Cheaper histograms, and kinds of failure counted from an index alone.

Revision ID: 0004
Revises: 0003
Create Date: 2026-11-28
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_WINS = "(excluded.state_key, excluded.winner_key) > (run.state_key, run.winner_key)"
_OPENS = "(excluded.opened_at, excluded.opening_key) < (run.opened_at, run.opening_key)"
_ATTEMPT = "(excluded.state_key >> 58)"
_STORED_ATTEMPT = "(run.state_key >> 58)"
# A setting of the connection: seconds since 1970.
LOOKING_UNTIL = "pulsewatch.looking_until"


def _block(condition: str, columns: str) -> str:
    """Assignments that take all these columns from the new row where the condition holds."""
    return ",\n        ".join(
        f"{column} = case when {condition} then excluded.{column} else run.{column} end" for column in columns.split()
    )


def _within_attempt(**functions: str) -> str:
    """Assignments for columns that speak of the winning attempt only."""
    return ",\n        ".join(
        f"{column} = case"
        f" when {_ATTEMPT} > {_STORED_ATTEMPT} then excluded.{column}"
        f" when {_ATTEMPT} = {_STORED_ATTEMPT} then {function}(excluded.{column}, run.{column})"
        f" else run.{column} end"
        for column, function in functions.items()
    )


# Told of events that may have been there already; of a batch of new ones it would cost as much as an index.
_FRESH = """
        case
            when count(*) < cardinality(batch)
                then json_agg(json_build_array(fresh.client_id, replace(fresh.dedupe_key::text, '-', '')))
        end
"""


def _merge(*, is_looking: bool) -> str:
    """The statement that stores the events of a batch and merges them into their runs.

    Inserts take the rows in the order in which the caller has sorted them, by run, so that two writers meet in the same
    order and never deadlock. `is_looking`: events may be there already; `fresh` tells which were new, if that is not
    all of them. The lag is that of the new ones.
    """
    on_known = "on conflict (client_id, occurred_at, dedupe_key) do nothing" if is_looking else ""
    return f"""
    with item as materialized (
        select * from unnest(batch) as item
    ),

    fresh as (
        insert into pulsewatch.run_event (
            client_id, occurred_at, dedupe_key, content_digest, run_id, pipeline_id, status, attempt, flags, started_at,
            scheduled_at, duration_s, event_id, message, error_class, url, metrics, attributes, parent
        )
        select
            client_id, occurred_at, dedupe_key, content_digest, run_id, pipeline_id, status, attempt, flags, started_at,
            scheduled_at, duration_s, event_id, message, error_class, url, metrics, attributes, parent
        from item
        {on_known}
        returning {"client_id, dedupe_key, " if is_looking else ""}occurred_at
    ),

    merged as (
        insert into pulsewatch.run as run (
            client_id, id, pipeline_id, external_id, state_key, winner_key, status, finished_at, said_duration_s,
            implied_start_at, message, error_class, url, winner_scheduled_at, winner_metrics, winner_attributes,
            winner_parent, opened_at, opening_key, opening_scheduled_at, opening_metrics, opening_attributes,
            opening_parent, first_at, last_at, start_at, latest_start_at, earliest_end_at, flags
        )
        select
            client_id, run_id, pipeline_id, external_id, state_key, dedupe_key,
            case status when 'info' then 'queued' else status end,
            case when status in ('succeeded', 'failed', 'cancelled', 'skipped', 'timed_out') then occurred_at end,
            duration_s, implied_start_at, message, error_class, url, scheduled_at, metrics, attributes, parent,
            coalesce(opened_at, occurred_at),
            coalesce(opening_key, dedupe_key),
            case when opening_key is null then scheduled_at else opening_scheduled_at end,
            case when opening_key is null then metrics else opening_metrics end,
            case when opening_key is null then attributes else opening_attributes end,
            case when opening_key is null then parent else opening_parent end,
            coalesce(first_at, occurred_at),
            coalesce(last_at, occurred_at),
            coalesce(start_at, case when status = 'running' then occurred_at end),
            coalesce(latest_start_at, case when status = 'running' then occurred_at end),
            coalesce(
                earliest_end_at,
                case when status in ('succeeded', 'failed', 'cancelled', 'skipped') then occurred_at end
            ),
            coalesce(run_flags, flags)
        from item
        where state_key is not null
        on conflict (client_id, id) do update set
            {
        _block(
            _WINS,
            "state_key winner_key status finished_at said_duration_s implied_start_at message error_class "
            "url winner_scheduled_at winner_metrics winner_attributes winner_parent",
        )
    },
            {
        _block(_OPENS, "opened_at opening_key opening_scheduled_at opening_metrics opening_attributes opening_parent")
    },
            {_within_attempt(start_at="least", latest_start_at="greatest", earliest_end_at="least")},
            first_at = least(excluded.first_at, run.first_at),
            last_at = greatest(excluded.last_at, run.last_at),
            flags = excluded.flags | run.flags,
            prev_started_at = coalesce(run.start_at, run.implied_start_at),
            prev_finished_at = run.finished_at,
            received_at = greatest(now(), run.received_at),
            first_received_at = least(now(), run.first_received_at)
        -- Nothing is written, and no hour marked, where the events were known already.
        where {_WINS}
            or {_OPENS}
            or excluded.first_at < run.first_at
            or excluded.last_at > run.last_at
            or excluded.flags & ~run.flags <> 0
            or {_ATTEMPT} >= {_STORED_ATTEMPT} and (
                excluded.start_at < run.start_at or run.start_at is null and excluded.start_at is not null
                or excluded.latest_start_at > run.latest_start_at
                or excluded.earliest_end_at < run.earliest_end_at
                or run.earliest_end_at is null and excluded.earliest_end_at is not null
            )
        returning
            run.client_id, run.pipeline_id, run.first_at, coalesce(run.start_at, run.implied_start_at) as started_at,
            run.finished_at, run.prev_started_at, run.prev_finished_at
    ),

    marked as (
        insert into pulsewatch.dirty (client_id, pipeline_id, hour_at, first_at)
        select distinct
            merged.client_id, merged.pipeline_id,
            date_bin('1 hour', touched.at, '2000-01-01 00:00:00+00'), merged.first_at
        from merged
        cross join lateral (
            values
            (coalesce(merged.started_at, merged.first_at)), (merged.finished_at),
            (merged.prev_started_at), (merged.prev_finished_at)
        ) as touched (at)
        where touched.at is not null
    )

    -- Read first, so that events are stored before their runs, by every writer.
    select
        count(*),
        {_FRESH if is_looking else "null"},
        coalesce(sum(greatest(date_part('epoch', now() - fresh.occurred_at), 0)), 0),
        coalesce(greatest(date_part('epoch', now() - min(fresh.occurred_at)), 0), 0)
    into fresh_count, fresh, lag_s_sum, lag_s_max
    from fresh;
"""


# Looking for each event before it is inserted takes a tenth of the time, mostly for nothing. So it is not done, until
# an event turns out to be known: then all of the statement is undone and done again with a look, and this connection
# goes on looking for a minute, because whoever repeats one event will repeat more of them.
MERGE_EVENTS = f"""
create function pulsewatch.merge_events(
    batch pulsewatch.merge_row[],
    out fresh_count bigint, out fresh json, out lag_s_sum double precision, out lag_s_max double precision
)
language plpgsql
as $$
#variable_conflict use_column
begin
    if date_part('epoch', now()) > coalesce(nullif(current_setting('{LOOKING_UNTIL}', true), ''), '0')::float then
        begin
            {_merge(is_looking=False)}
            return;
        exception when unique_violation then
            perform set_config('{LOOKING_UNTIL}', (date_part('epoch', now()) + 60)::text, false);
        end;
    end if;
    {_merge(is_looking=True)}
end
$$
"""

# A function of its own, because it has to see what others committed while merge_events waited for them.
EVENT_CONFLICTS = """
create function pulsewatch.event_conflicts(batch pulsewatch.merge_row[])
returns table (client_id bigint, dedupe_key uuid, content_digest uuid)
language plpgsql
as $$
#variable_conflict use_column
begin
    return query
    select item.client_id, item.dedupe_key, stored.content_digest
    from unnest(batch) as item
    cross join lateral (
        select run_event.content_digest
        from pulsewatch.run_event
        where run_event.client_id = item.client_id
            and run_event.occurred_at = item.occurred_at
            and run_event.dedupe_key = item.dedupe_key
        limit 1
    ) as stored
    where stored.content_digest <> item.content_digest;
end
$$
"""

# All of an ingest transaction: the lock that erasing a client waits for, a look at the clients under it, the events,
# and the count of outcomes. Nothing is stored where a client is gone or archived (is_stored is false), or an event
# contradicts a stored one (SQLSTATE PW001): the caller goes step by step then, and finds out which.
STORE_EVENTS = """
create function pulsewatch.store_events(
    batch pulsewatch.merge_row[], client_ids bigint[], source text, repeated_count bigint,
    out is_stored boolean, out fresh_count bigint, out fresh json
)
language plpgsql
as $$
#variable_conflict use_column
declare
    lag_s_sum double precision;
    lag_s_max double precision;
begin
    perform pg_advisory_xact_lock_shared(hashtext('pulsewatch.ingest'));
    select count(*) = cardinality(client_ids)
    into is_stored
    from pulsewatch.client
    where client.id = any(client_ids) and client.archived_at is null;
    if not is_stored then
        return;
    end if;
    select merged.fresh_count, merged.fresh, merged.lag_s_sum, merged.lag_s_max
    into fresh_count, fresh, lag_s_sum, lag_s_max
    from pulsewatch.merge_events(batch) as merged;
    if fresh_count < cardinality(batch) then
        if exists (select from pulsewatch.event_conflicts(batch)) then
            raise exception 'an event contradicts a stored one' using errcode = 'PW001';
        end if;
    end if;
    insert into pulsewatch.ingest_stat as stat (
        bucket_at, source, writer, accepted, duplicates, rejected, lag_s_sum, lag_s_max, last_at
    )
    values (
        date_bin('5 minutes', now(), '2000-01-01 00:00:00+00'), store_events.source, pg_backend_pid(),
        store_events.fresh_count, cardinality(batch) - store_events.fresh_count + repeated_count, 0,
        lag_s_sum, lag_s_max, case when store_events.fresh_count > 0 then now() end
    )
    on conflict (bucket_at, source, writer) do update set
        accepted = stat.accepted + excluded.accepted,
        duplicates = stat.duplicates + excluded.duplicates,
        lag_s_sum = stat.lag_s_sum + excluded.lag_s_sum,
        lag_s_max = greatest(stat.lag_s_max, excluded.lag_s_max),
        last_at = greatest(stat.last_at, excluded.last_at);
end
$$
"""

# Not strict, but null for null all the same: this way PostgreSQL puts its body into the query that calls it. A call for
# each run takes ten times as long.
DURATION_BUCKET = """
create or replace function pulsewatch.duration_bucket(duration_s double precision) returns smallint
language sql immutable parallel safe
return floor(
    ln(case when duration_s < 0.001 then 0.001 else duration_s end) / ln(2.0::double precision) * 8
)::smallint
"""
STRICT_DURATION_BUCKET = """
create or replace function pulsewatch.duration_bucket(duration_s double precision) returns smallint
language sql immutable strict parallel safe
return floor(ln(greatest(duration_s, 0.001)) / ln(2.0::double precision) * 8)::smallint
"""

FUNCTIONS = {
    "merge_events(pulsewatch.merge_row[])": (
        MERGE_EVENTS,
        "Stores a batch of run events and merges them into their runs; says which were new.",
    ),
    "event_conflicts(pulsewatch.merge_row[])": (
        EVENT_CONFLICTS,
        "Stored events of the same identity that say something else.",
    ),
    "store_events(pulsewatch.merge_row[], bigint[], text, bigint)": (
        STORE_EVENTS,
        "The whole of an ingest transaction, where clients and pipelines are known.",
    ),
}


SPAN_INDEX = "failing_span_client_began_at_idx"
# What error_classes counts: it reads no row.
COUNTED = ["pipeline_id", "error_class", "failure_count"]


def index_spans(included: list[str]) -> None:
    op.drop_index(SPAN_INDEX, table_name="failing_span", schema="pulsewatch")
    op.create_index(
        SPAN_INDEX, "failing_span", ["client_id", "began_at"], schema="pulsewatch", postgresql_include=included
    )


def upgrade() -> None:
    index_spans(COUNTED)
    op.execute(DURATION_BUCKET)
    for signature, (definition, comment) in FUNCTIONS.items():
        op.execute(definition)
        op.execute(f"comment on function pulsewatch.{signature} is '{comment}'")


def downgrade() -> None:
    index_spans([])
    op.execute(STRICT_DURATION_BUCKET)
    for signature in reversed(FUNCTIONS):
        op.execute(f"drop function pulsewatch.{signature}")
