"""The one statement that stores a batch of run events, and the one that finds conflicts.

Both take the batch as one parameter, an array of the rows that `packing.pack` makes. Inserts are sorted by
key, so that two writers meet in the same order and never deadlock.
"""

_BATCH = "unnest(%(batch)s::pulsewatch.merge_row[]) as item"

_WINS = "(excluded.state_key, excluded.winner_key) > (run.state_key, run.winner_key)"
_OPENS = "(excluded.opened_at, excluded.opening_key) < (run.opened_at, run.opening_key)"
_ATTEMPT = "(excluded.state_key >> 58)"
_STORED_ATTEMPT = "(run.state_key >> 58)"


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


MERGE_SQL = f"""
with item as materialized (
    select * from {_BATCH}
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
    order by client_id, occurred_at, dedupe_key
    on conflict (client_id, occurred_at, dedupe_key) do nothing
    returning client_id, dedupe_key
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
    order by client_id, run_id
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
        received_at = greatest(now(), run.received_at)
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
        merged.client_id, merged.pipeline_id, date_bin('1 hour', touched.at, '2000-01-01 00:00:00+00'), merged.first_at
    from merged
    cross join lateral (
        values
        (coalesce(merged.started_at, merged.first_at)), (merged.finished_at),
        (merged.prev_started_at), (merged.prev_finished_at)
    ) as touched (at)
    where touched.at is not null
)

select
    (select count(*) from fresh) as fresh_count,
    -- Which ones, where it was not all of them.
    case when (select count(*) from fresh) < %(sent)s then (
        select json_agg(json_build_array(
            fresh.client_id, replace(fresh.dedupe_key::text, '-', '')
        ))
        from fresh
    ) end as fresh
"""

# A statement of its own, because it has to see what others committed while MERGE_SQL waited for them.
CONFLICT_SQL = f"""
select item.client_id, item.dedupe_key, stored.content_digest
from {_BATCH}
cross join lateral (
    select run_event.content_digest
    from pulsewatch.run_event
    where run_event.client_id = item.client_id
        and run_event.occurred_at = item.occurred_at
        and run_event.dedupe_key = item.dedupe_key
    limit 1
) as stored
where stored.content_digest <> item.content_digest
"""
