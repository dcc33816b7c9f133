"""A run goes on for too long. This watches it; pipelines with a max_runtime_s have it ended besides."""

from pulsewatch.rules.base import MAX_RUNS_SHOWN, Evidence, Kind, Params
from pulsewatch.rules.known_runs import known_runs
from pulsewatch.rules.spans import check_seconds, next_at, runs_of_span, seconds_since, spoken


class Overrun(Params):
    """Nothing to be told."""


# A run that goes on for long need not be among the newest: the hours know when those that ran then began. Between one
# that was never ended and now there may be any number of others: these are not read, but for those of its hour.
OBSERVE = f"""
select
    asked.rule_id, asked.client_id, asked.pipeline_id, asked.as_of,
    coalesce({seconds_since("running.started_at")}, 0) as value,
    asked.as_of as sample_at,
    {next_at("running.started_at")} as next_at,
    coalesce(running.run_ids, '{{}}') as run_ids,
    null::jsonb as evidence
from asked
cross join lateral (
    -- The hours tell of runs as they came out: one that is known to have ended since may have been going on.
    select
        least(
            min(hour.first_at_min), date_bin('1 hour', asked.as_of, '2000-01-01 00:00:00+00'),
            case when not asked.is_settled then asked.as_of - interval '7 days' end
        ) as since
    from pulsewatch.pipeline_hour as hour
    where hour.client_id = asked.client_id
        and hour.pipeline_id = asked.pipeline_id
        and hour.hour_at > asked.as_of - interval '1 hour'
) as late
cross join lateral (
    select
        min(run.started_at) as started_at,
        (array_agg(run.id order by run.first_at desc, run.id desc))[1:{MAX_RUNS_SHOWN}] as run_ids
    from (
        select distinct run.id, run.first_at, run.started_at
        from (
            select late.since, asked.as_of as until
            union all
            select hour.first_at_min, hour.first_at_max
            from pulsewatch.pipeline_hour as hour
            where hour.client_id = asked.client_id
                and hour.pipeline_id = asked.pipeline_id
                and hour.open_count > 0
                and hour.hour_at <= asked.as_of - interval '1 hour'
        ) as searched
        cross join lateral {
    known_runs(
        since="searched.since",
        until="searched.until",
        newest=None,
        only="run.finished_at is null or run.finished_at > asked.as_of or run.received_at >= asked.known_at",
    )
} as run
        where run.status = 'running'
    ) as run
) as running
"""

INSTANTS = f"""
select span.rule_id, span.client_id, span.pipeline_id, changed.at as as_of
from span
cross join lateral {runs_of_span()} as run
cross join lateral (
    select run.finished_at
    union all
    select run.started_at + make_interval(secs => threshold.value)
    from unnest(span.thresholds) as threshold (value)
) as changed (at)
where changed.at >= span.from_at and changed.at < span.to_at
"""


def _describe(value: float, threshold: float, _params: Params, _seen: Evidence) -> str:
    return f"a run has been going on for {spoken(value)} (limit {spoken(threshold)})"


KIND = Kind(
    name="overrun",
    title="Runs for too long",
    unit="s",
    params=Overrun,
    observe=OBSERVE,
    instants=INSTANTS,
    describe=_describe,
    is_timed=True,
    check_level=check_seconds,
)
