"""The statements of backtests: what a rule sees of targets in a window, and since when it may look at them."""

from typing import Literal

from pulsewatch.rules.base import Kind
from pulsewatch.rules.known_runs import ARRIVALS, PARAMS, UNTOLD, held_until
from pulsewatch.rules.spans import runs_of_span

Mode = Literal["as_known", "as_final"]

# The times at which something may change, put off to the first tick that may see it: what is received is known just
# after it, all else at its time.
_ARRIVALS = f"""
    union all
    select arrival.client_id, arrival.pipeline_id, arrival.as_of + interval '1 microsecond'
    from ({ARRIVALS}) as arrival
"""
# Where good samples are counted, each counts, though the verdict stays as it is.
_ENDS = f"""
    union all
    select span.client_id, span.pipeline_id, run.finished_at + make_interval(secs => rule.delay_s)
    from span
    cross join rule
    cross join lateral {runs_of_span()} as run
    where run.finished_at >= span.from_at and run.finished_at < span.to_at
"""
_ON_GRID = """
    case
        when date_bin('5 seconds', moment.at, '2000-01-01 00:00:00+00') = moment.at then moment.at
        else date_bin('5 seconds', moment.at, '2000-01-01 00:00:00+00') + interval '5 seconds'
    end
"""
# Where ticks are on record, the first one after it that looked at rules of this kind.
_ON_RECORD = f"""
    case
        when moment.at >= (select min(earliest.as_of) from pulsewatch.alert_tick as earliest) then (
            select tick.as_of
            from pulsewatch.alert_tick as tick
            where tick.as_of >= moment.at and (tick.frozen_because is null or not %(is_timed)s)
            order by tick.as_of
            limit 1
        )
        else {_ON_GRID}
    end
"""


_HELD = held_until("compared", "compared.as_of + make_interval(secs => rule.delay_s)", "compared.level > 0")
HELD_NEVER = "null::timestamptz as held_until"


def history_sql(kind: Kind, mode: Mode, *, is_thinned: bool) -> str:
    """What a rule sees of targets in a window, at the times at which something may change.

    Thinned out: only where the level is another one than before.
    """
    is_as_known = mode == "as_known"
    return f"""
with rule as materialized (
    select rule.*, {PARAMS}
    from json_to_recordset(%(rules)s::json) as rule (
        rule_id bigint, params jsonb, thresholds double precision[], warning double precision,
        critical double precision, is_above boolean, delay_s double precision
    )
),

span as materialized (
    select
        rule.rule_id, wanted.client_id, wanted.pipeline_id, rule.params, rule.thresholds, wanted.target_since,
        greatest(%(from_at)s, wanted.target_since) - make_interval(secs => rule.delay_s) as from_at,
        %(to_at)s - make_interval(secs => rule.delay_s) as to_at, %(known_at)s::timestamptz as known_at
    from unnest(%(client_ids)s::bigint[], %(pipeline_ids)s::bigint[], %(target_sinces)s::timestamptz[])
        as wanted (client_id, pipeline_id, target_since)
    cross join rule
),

instant as ({kind.instants}),

moment as (
    select instant.client_id, instant.pipeline_id, instant.as_of + make_interval(secs => rule.delay_s) as at
    from instant
    cross join rule
    {_ARRIVALS if is_as_known else "" if is_thinned else _ENDS}
    union all
    select span.client_id, span.pipeline_id, span.from_at + make_interval(secs => rule.delay_s)
    from span
    cross join rule
),

ticked as materialized (
    select distinct moment.client_id, moment.pipeline_id, {_ON_RECORD if is_as_known else _ON_GRID} as at
    from moment
),

asked as materialized (
    select
        span.rule_id, span.client_id, span.pipeline_id, ticked.at - make_interval(secs => rule.delay_s) as as_of,
        {"ticked.at" if is_as_known else "'infinity'::timestamptz"} as known_at, span.params, rule.width,
        rule.statuses, span.thresholds, span.target_since, {"false" if is_as_known else "true"} as is_settled, {UNTOLD}
    from ticked
    join span on span.client_id = ticked.client_id and span.pipeline_id = ticked.pipeline_id
    cross join rule
    where ticked.at < %(to_at)s
),

observed as ({kind.observe}),

leveled as (
    select
        observed.*,
        case
            when observed.value is null then -1
            when rule.is_above then case
                when observed.value >= rule.critical then 2
                when observed.value >= rule.warning then 1
                else 0
            end
            when observed.value <= rule.critical then 2
            when observed.value <= rule.warning then 1
            else 0
        end as level
    from observed
    cross join rule
),

compared as (
    select
        leveled.*,
        lag(leveled.level) over (
            partition by leveled.client_id, leveled.pipeline_id
            order by leveled.as_of
        ) as previous_level
    from leveled
)

select
    compared.rule_id, compared.client_id, compared.pipeline_id, compared.as_of, compared.value, compared.sample_at,
    compared.next_at, compared.run_ids, compared.evidence, {"held.held_until" if is_as_known else HELD_NEVER}
from compared
{f"cross join rule left join lateral {_HELD} as held on true" if is_as_known else ""}
{"where compared.level is distinct from coalesce(compared.previous_level, 0)" if is_thinned else ""}
order by compared.client_id, compared.pipeline_id, compared.as_of
"""


# Since when there has been anything to watch: a history may be older than the day on which it was loaded.
THERE_SINCE = """
select wanted.client_id, wanted.pipeline_id, least(described.created_at, began.first_at) as there_since
from unnest(%(client_ids)s::bigint[], %(pipeline_ids)s::bigint[]) as wanted (client_id, pipeline_id)
cross join lateral (
    select pipeline.created_at
    from pulsewatch.pipeline
    where pipeline.client_id = wanted.client_id and pipeline.id = wanted.pipeline_id
    union all
    select client.created_at
    from pulsewatch.client
    where client.id = wanted.client_id and wanted.pipeline_id = 0
) as described
left join lateral (
    (
        select run.first_at
        from pulsewatch.run
        where run.client_id = wanted.client_id and run.pipeline_id = wanted.pipeline_id
        order by run.first_at
        limit 1
    )
    union all
    (
        select run.first_at
        from pulsewatch.run
        where run.client_id = wanted.client_id and wanted.pipeline_id = 0
        order by run.first_at
        limit 1
    )
) as began on true
"""
# Since when the rule has watched what it watches now.
TARGET_SINCE = """
select target.client_id, target.pipeline_id, target.target_since
from pulsewatch.alert_target as target
where target.rule_id = %(rule_id)s
"""
TICKS = """
select tick.as_of
from pulsewatch.alert_tick as tick
where tick.as_of >= %(from_at)s
    and tick.as_of < %(to_at)s
    and (tick.frozen_because is null or not %(is_timed)s)
order by tick.as_of
"""
