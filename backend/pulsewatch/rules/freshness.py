"""It is too long ago that a run succeeded."""

from pulsewatch.rules.base import Evidence, Kind, Params, Told
from pulsewatch.rules.known_runs import LAST_HOUR, known_runs, newest_run
from pulsewatch.rules.spans import check_seconds, next_at, runs_of_span, seconds_since, spoken


class Freshness(Params):
    """Nothing to be told."""


_IS_TOLD = "asked.last_outcome = 'succeeded' and asked.last_finished_at = asked.last_success_at"

# A run that began before the newest success may have succeeded after it. Where the pipeline's state says that there
# was no later success, none needs to be looked for; hours know where to look. A success before the last runs that are
# looked at is told by its hour alone; where that may tell of what came later, by the runs of the hour.
OBSERVE = f"""
with reference as (
    select asked.*, asked.last_finished_at as at, asked.last_outcome_run_id as run_id
    from asked
    where {_IS_TOLD}
    union all
    select
        asked.*,
        coalesce(overlapping.finished_at, newest.finished_at, older.last_success_at, asked.target_since) as at,
        coalesce(overlapping.id, newest.id) as run_id
    from asked
    left join lateral ({newest_run("run.finished_at", "run.status = 'succeeded'")}) as newest on true
    left join lateral (
        select state.last_success_at
        from pulsewatch.pipeline_state as state
        where state.client_id = asked.client_id
            and state.pipeline_id = asked.pipeline_id
        offset 0
    ) as state on true
    left join lateral (
        select later.finished_at, later.id
        from (
            select run.finished_at, run.id
            from (
                select min(hour.first_at_min) as since
                from pulsewatch.pipeline_hour as hour
                where hour.client_id = asked.client_id
                    and hour.pipeline_id = asked.pipeline_id
                    and hour.hour_at > newest.finished_at - interval '1 hour'
                    and hour.hour_at <= {LAST_HOUR}
            ) as searched
            cross join lateral {
    known_runs(
        since="searched.since",
        newest=None,
        only="run.first_at <= newest.order_at"
        " and (run.finished_at > newest.finished_at or run.received_at >= asked.known_at)",
    )
} as run
            where run.status = 'succeeded' and run.finished_at > newest.finished_at
            order by run.finished_at desc, run.id desc
            limit 1
        ) as later
        where newest.finished_at is distinct from state.last_success_at or not asked.is_settled
        offset 0
    ) as overlapping on true
    left join lateral (
        select coalesce(known.finished_at, hour.last_success_at) as last_success_at
        from pulsewatch.pipeline_hour as hour
        left join lateral (
            select max(run.finished_at) as finished_at
            from {
    known_runs(
        since="hour.first_at_min",
        until="hour.first_at_max",
        newest=None,
        only="run.status = 'succeeded' or run.received_at >= asked.known_at",
    )
} as run
            where run.status = 'succeeded'
        ) as known on not asked.is_settled and hour.last_success_at is not null
        where newest.finished_at is null
            and state.last_success_at is not null
            and hour.client_id = asked.client_id
            and hour.pipeline_id = asked.pipeline_id
            and hour.hour_at <= {LAST_HOUR}
            and hour.last_success_at is not null
            and case
                when asked.is_settled then hour.last_success_at <= asked.as_of
                else known.finished_at is not null
            end
        order by hour.hour_at desc
        limit 1
    ) as older on true
    where ({_IS_TOLD}) is not true
)

select
    asked.rule_id, asked.client_id, asked.pipeline_id, asked.as_of,
    {seconds_since("asked.at")} as value,
    asked.as_of as sample_at,
    {next_at("asked.at")} as next_at,
    case when asked.run_id is null then '{{}}' else array[asked.run_id] end as run_ids,
    null::jsonb as evidence
from reference as asked
"""

INSTANTS = f"""
select span.rule_id, span.client_id, span.pipeline_id, changed.at as as_of
from span
cross join lateral (
    select coalesce(max(threshold.value), 0) * interval '1 second' as back
    from unnest(span.thresholds) as threshold (value)
) as counted
cross join lateral (
    select span.target_since as at
    union all
    select run.finished_at
    from {runs_of_span("counted.back")} as run
) as reference
cross join lateral (
    select reference.at
    union all
    select reference.at + make_interval(secs => threshold.value)
    from unnest(span.thresholds) as threshold (value)
) as changed
where changed.at >= span.from_at and changed.at < span.to_at
"""


def _describe(value: float, threshold: float, _params: Params, _seen: Evidence) -> str:
    return f"no success for {spoken(value)} (limit {spoken(threshold)})"


KIND = Kind(
    name="freshness",
    title="Time since the last success",
    unit="s",
    params=Freshness,
    observe=OBSERVE,
    told=Told(_IS_TOLD, seconds_since("asked.last_finished_at"), next_at("asked.last_finished_at")),
    instants=INSTANTS,
    describe=_describe,
    is_timed=True,
    check_level=check_seconds,
)
