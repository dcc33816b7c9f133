"""The statements that work out how pipelines are doing: the spans in which they fail, and their state.

Built like those of rollup_sql: keys as arrays, look-ups key by key, written where it differs.
"""

from pulsewatch.rollup_sql import delete_sql

# How far back the state looks.
RECENT_RUNS = 64

SPAN_KEY = ("client_id", "pipeline_id", "run_id")

# Only the stretch from the last success before what has changed to the first one after it: spans beyond it are as
# they were. The runs of an old span may be gone, past their keep time: such a span stays, and keeps its beginning.
SPAN_SQL = """
with touched as (
    select * from unnest(
        %(client_id)s::bigint[], %(pipeline_id)s::bigint[], %(from_at)s::timestamptz[], %(until_at)s::timestamptz[]
    ) as touched (client_id, pipeline_id, from_at, until_at)
),

stretch as materialized (
    select
        touched.client_id, touched.pipeline_id,
        coalesce(earlier.first_at, '-infinity') as from_at,
        coalesce(earlier.id, '00000000-0000-0000-0000-000000000000') as from_id,
        coalesce(later.first_at, 'infinity') as until_at,
        coalesce(later.id, 'ffffffff-ffff-ffff-ffff-ffffffffffff') as until_id
    from touched
    left join lateral (
        select run.first_at, run.id
        from pulsewatch.run
        where run.client_id = touched.client_id
            and run.pipeline_id = touched.pipeline_id
            and run.first_at < touched.from_at
            and run.status = 'succeeded'
        order by run.first_at desc, run.id desc
        limit 1
    ) as earlier on true
    left join lateral (
        select run.first_at, run.id
        from pulsewatch.run
        where run.client_id = touched.client_id
            and run.pipeline_id = touched.pipeline_id
            and run.first_at > touched.until_at
            and run.status = 'succeeded'
        order by run.first_at, run.id
        limit 1
    ) as later on true
),

outcome as materialized (
    select
        run.client_id, run.pipeline_id, run.id, run.first_at, run.finished_at, run.status = 'succeeded' as is_success,
        coalesce(run.error_class, run.status) as error_class,
        count(*) filter (where run.status = 'succeeded') over (
            partition by run.client_id, run.pipeline_id order by run.first_at, run.id
        ) as success_count
    from stretch
    cross join lateral (
        select
            run.client_id, run.pipeline_id, run.id, run.first_at, run.finished_at, run.status, run.error_class
        from pulsewatch.run
        where run.client_id = stretch.client_id
            and run.pipeline_id = stretch.pipeline_id
            and run.first_at between stretch.from_at and stretch.until_at
            and (run.first_at, run.id) >= (stretch.from_at, stretch.from_id)
            and (run.first_at, run.id) <= (stretch.until_at, stretch.until_id)
            and run.status in ('succeeded', 'failed', 'timed_out')
        offset 0
    ) as run
),

-- A success and the failures that follow it, up to the next success.
followed as (
    select
        client_id, pipeline_id, success_count,
        max(finished_at) filter (where is_success) as succeeded_at,
        (array_agg(id order by first_at, id) filter (where not is_success))[1] as run_id,
        (array_agg(finished_at order by first_at, id) filter (where not is_success))[1] as began_at,
        (array_agg(error_class order by first_at, id) filter (where not is_success))[1] as error_class,
        min(first_at) filter (where not is_success) as first_at,
        max(first_at) filter (where not is_success) as last_first_at,
        (count(*) filter (where not is_success))::integer as failure_count
    from outcome
    group by client_id, pipeline_id, success_count
),

ended as (
    select
        followed.*,
        lead(succeeded_at) over (partition by client_id, pipeline_id order by success_count) as ended_at
    from followed
),

found as (
    select
        ended.client_id, ended.pipeline_id,
        coalesce(older.run_id, ended.run_id) as run_id,
        coalesce(older.first_at, ended.first_at) as first_at,
        coalesce(older.began_at, ended.began_at) as began_at,
        ended.last_first_at, ended.ended_at, ended.failure_count,
        case when older.run_id is null then ended.error_class else older.error_class end as error_class
    from ended
    left join lateral (
        select stored.run_id, stored.first_at, stored.began_at, stored.error_class
        from pulsewatch.failing_span as stored
        where stored.client_id = ended.client_id
            and stored.pipeline_id = ended.pipeline_id
            and stored.first_at < ended.first_at
            and stored.last_first_at >= ended.first_at
            and not exists (
                select from pulsewatch.run where run.client_id = stored.client_id and run.id = stored.run_id
            )
        order by stored.first_at desc
        limit 1
    ) as older on ended.success_count = 0
    where ended.failure_count > 0
),

stored as (
    select stored.*
    from stretch
    cross join lateral (
        select
            stored.client_id, stored.pipeline_id, stored.run_id, stored.first_at, stored.began_at,
            stored.last_first_at, stored.ended_at, stored.failure_count, stored.error_class,
            exists (
                select from pulsewatch.run where run.client_id = stored.client_id and run.id = stored.run_id
            ) as is_run_kept
        from pulsewatch.failing_span as stored
        where stored.client_id = stretch.client_id
            and stored.pipeline_id = stretch.pipeline_id
            and stored.first_at between stretch.from_at and stretch.until_at
            and (stored.first_at, stored.run_id) > (stretch.from_at, stretch.from_id)
            and (stored.first_at, stored.run_id) < (stretch.until_at, stretch.until_id)
        offset 0
    ) as stored
),

compared as materialized (
    select
        found.*, stored.client_id as stored_client_id, stored.pipeline_id as stored_pipeline_id,
        stored.run_id as stored_run_id
    from found
    full join stored
        on found.client_id = stored.client_id
        and found.pipeline_id = stored.pipeline_id
        and found.run_id = stored.run_id
    where found.run_id is null and stored.is_run_kept
        or found.run_id is not null
        and (
            found.first_at, found.began_at, found.last_first_at, found.ended_at, found.failure_count, found.error_class
        ) is distinct from (
            stored.first_at, stored.began_at, stored.last_first_at, stored.ended_at, stored.failure_count,
            stored.error_class
        )
),

written as (
    insert into pulsewatch.failing_span (
        client_id, pipeline_id, run_id, first_at, began_at, last_first_at, ended_at, failure_count, error_class
    )
    select client_id, pipeline_id, run_id, first_at, began_at, last_first_at, ended_at, failure_count, error_class
    from compared
    where run_id is not null
    order by client_id, pipeline_id, run_id
    on conflict (client_id, pipeline_id, run_id) do update set
        first_at = excluded.first_at,
        began_at = excluded.began_at,
        last_first_at = excluded.last_first_at,
        ended_at = excluded.ended_at,
        failure_count = excluded.failure_count,
        error_class = excluded.error_class
)

select stored_client_id as client_id, stored_pipeline_id as pipeline_id, stored_run_id as run_id
from compared
where run_id is null
"""

STATE_KEY = ("client_id", "pipeline_id")
_STATE = (
    "last_run_id",
    "last_run_status",
    "last_run_first_at",
    "last_outcome_run_id",
    "last_outcome",
    "last_finished_at",
    "last_duration_s",
    "last_error_class",
    "last_success_at",
    "last_failure_hour_at",
    "consecutive_failures",
    "failing_since",
    "running_count",
    "running_since",
    "last_slot_at",
    "last_slot_status",
    "next_slot_at",
)


def _all(table: str) -> str:
    return ", ".join(f"{table}.{name}" for name in _STATE)


# Open slots begin where the judged ones end, but for those within the grace: further back none is looked for.
STATE_SQL = f"""
with touched as (
    select * from unnest(%(client_id)s::bigint[], %(pipeline_id)s::bigint[]) as touched (client_id, pipeline_id)
),

found as materialized (
    select
        touched.client_id, touched.pipeline_id,
        last_run.id as last_run_id, last_run.status as last_run_status, last_run.first_at as last_run_first_at,
        outcome.id as last_outcome_run_id, outcome.status as last_outcome, outcome.finished_at as last_finished_at,
        outcome.duration_s as last_duration_s, outcome.error_class as last_error_class, success.last_success_at,
        failure.hour_at as last_failure_hour_at,
        failing.consecutive_failures,
        case when failing.consecutive_failures > 0 then span.began_at end as failing_since,
        recent.running_count, recent.running_since,
        judged.last_slot_at, judged.last_slot_status, coming.next_slot_at,
        coalesce(last_run.first_at, judged.last_slot_at, coming.next_slot_at) is null as is_empty
    from touched
    cross join lateral (
        -- The runs come newest first, and so do the elements of each array.
        select
            (array_agg(recent.id))[1] as last_id,
            array_agg(recent.id) filter (where recent.is_outcome) as outcome_ids,
            array_agg(recent.status) filter (where recent.is_outcome) as outcomes,
            (count(*) filter (where recent.finished_at is null))::smallint as running_count,
            min(recent.started_at) filter (where recent.finished_at is null) as running_since
        from (
            select
                run.id, run.status, run.finished_at,
                coalesce(run.start_at, run.implied_start_at) as started_at,
                run.status in ('succeeded', 'failed', 'timed_out') as is_outcome
            from pulsewatch.run
            where run.client_id = touched.client_id and run.pipeline_id = touched.pipeline_id
            order by run.first_at desc, run.id desc
            limit {RECENT_RUNS}
        ) as recent
    ) as recent
    cross join lateral (
        select coalesce(array_position(recent.outcomes, 'succeeded') - 1, cardinality(recent.outcomes), 0)::smallint
            as consecutive_failures
    ) as failing
    left join lateral (
        select run.id, run.status, run.first_at
        from pulsewatch.run
        where run.client_id = touched.client_id and run.id = recent.last_id
        offset 0
    ) as last_run on true
    left join lateral (
        select
            run.id, run.status, run.finished_at, run.error_class,
            coalesce(
                run.said_duration_s,
                case
                    when run.finished_at >= run.start_at
                        then extract(epoch from run.finished_at - run.start_at)::double precision
                end
            ) as duration_s
        from pulsewatch.run
        where run.client_id = touched.client_id and run.id = recent.outcome_ids[1]
        offset 0
    ) as outcome on true
    left join lateral (
        select hour.last_success_at
        from pulsewatch.pipeline_hour as hour
        where hour.client_id = touched.client_id
            and hour.pipeline_id = touched.pipeline_id
            and hour.last_success_at is not null
        order by hour.hour_at desc
        limit 1
    ) as success on true
    left join lateral (
        select hour.hour_at
        from pulsewatch.pipeline_hour as hour
        where hour.client_id = touched.client_id
            and hour.pipeline_id = touched.pipeline_id
            and hour.failed_count + hour.timed_out_count > 0
        order by hour.hour_at desc
        limit 1
    ) as failure on true
    left join lateral (
        select span.began_at
        from pulsewatch.failing_span as span
        where span.client_id = touched.client_id and span.pipeline_id = touched.pipeline_id
        order by span.first_at desc, span.run_id desc
        limit 1
    ) as span on true
    left join lateral (
        select slot.slot_at as last_slot_at, slot.status as last_slot_status
        from pulsewatch.slot
        where slot.client_id = touched.client_id and slot.pipeline_id = touched.pipeline_id and slot.status <> 'open'
        order by slot.slot_at desc
        limit 1
    ) as judged on true
    left join lateral (
        select plan.start_grace_s
        from pulsewatch.slot_plan as plan
        where plan.client_id = touched.client_id and plan.pipeline_id = touched.pipeline_id
        offset 0
    ) as plan on true
    left join lateral (
        select slot.slot_at as next_slot_at
        from pulsewatch.slot
        where slot.client_id = touched.client_id
            and slot.pipeline_id = touched.pipeline_id
            and slot.status = 'open'
            and slot.slot_at >= %(as_of)s - coalesce(plan.start_grace_s, 0) * interval '1 second' - interval '1 hour'
        order by slot.slot_at
        limit 1
    ) as coming on true
),

compared as materialized (
    select found.*
    from found
    left join lateral (
        select stored.client_id, {_all("stored")}
        from pulsewatch.pipeline_state as stored
        where stored.client_id = found.client_id and stored.pipeline_id = found.pipeline_id
        offset 0
    ) as stored on true
    where found.is_empty and stored.client_id is not null
        or not found.is_empty and ({_all("found")}) is distinct from ({_all("stored")})
),

written as (
    insert into pulsewatch.pipeline_state ({", ".join((*STATE_KEY, *_STATE))})
    select {", ".join((*STATE_KEY, *_STATE))}
    from compared
    where not is_empty
    order by client_id, pipeline_id
    on conflict (client_id, pipeline_id) do update set
        {", ".join(f"{name} = excluded.{name}" for name in _STATE)}
)

select client_id, pipeline_id from compared where is_empty
"""

DELETE_SPANS_SQL = delete_sql("failing_span", SPAN_KEY)
DELETE_STATES_SQL = delete_sql("pipeline_state", STATE_KEY)
