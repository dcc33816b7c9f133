"""Too large a share of the runs of the last minutes, hours or days failed."""

from typing import cast

from pydantic import Field

from pulsewatch.rules.base import MAX_RUNS_SHOWN, Evidence, Kind, Params, Told
from pulsewatch.rules.known_runs import LAST_HOUR, known_runs
from pulsewatch.rules.spans import runs_of_span, spoken

WEEK_S = 7 * 86_400


class FailureRate(Params):
    """Over which time, and how many runs it takes to speak of a rate."""

    window_s: int = Field(ge=60, le=WEEK_S, description="Runs that ended within so many seconds.")
    min_runs: int = Field(5, ge=1, le=100_000, description="With fewer runs the rate counts as 0.")
    min_failures: int = Field(1, ge=1, le=100_000, description="With fewer failures the rate counts as 0.")


_WINDOW = "asked.width"

# Nearly always the state tells that nothing failed: no run did in any hour that touches the window, the last one
# included. (The hour of the last failure is not known of failures that a worker of an older version worked out.)
_IS_TOLD = f"""
    (asked.last_outcome = 'succeeded' or asked.last_finished_at <= asked.as_of - {_WINDOW})
    and coalesce(asked.last_success_at <= asked.as_of, true)
    and (
        asked.last_failure_hour_at is null
        or asked.last_failure_hour_at <= asked.as_of - {_WINDOW} - interval '1 hour'
    )
"""

# Where nothing failed, nothing but the end of all that is known can change the verdict.
_LAST_SUCCESS = f"case when asked.last_success_at > asked.as_of - {_WINDOW} then asked.last_success_at end"
_TOLD = Told(
    where=_IS_TOLD,
    value=f"case when {_LAST_SUCCESS} is not null then 0 end::double precision",
    next_at=f"{_LAST_SUCCESS} + {_WINDOW}",
)

# Else the runs are counted. A run that ends in the window may have begun long before: the hours of the window know how
# long.
OBSERVE = f"""
select
    asked.rule_id, asked.client_id, asked.pipeline_id, asked.as_of,
    {_TOLD.value} as value, {_LAST_SUCCESS} as sample_at, {_TOLD.next_at} as next_at, '{{}}'::uuid[] as run_ids,
    null::jsonb as evidence
from asked
where {_IS_TOLD}
union all
select
    asked.rule_id, asked.client_id, asked.pipeline_id, asked.as_of,
    case
        when ended.run_count = 0 then null
        when ended.run_count < (asked.params ->> 'min_runs')::bigint then 0
        when ended.failed_count < (asked.params ->> 'min_failures')::bigint then 0
        else ended.failed_count::double precision / ended.run_count
    end as value,
    ended.last_at as sample_at,
    case when ended.failed_count > 0 then ended.oldest_at else ended.last_at end + {_WINDOW} as next_at,
    coalesce(ended.run_ids, '{{}}') as run_ids,
    case
        when ended.failed_count > 0
            then jsonb_build_object('run_count', ended.run_count, 'failed_count', ended.failed_count)
    end as evidence
from asked
cross join lateral (
    select least(min(hour.first_at_min), asked.as_of - {_WINDOW}) as since
    from pulsewatch.pipeline_hour as hour
    where hour.client_id = asked.client_id
        and hour.pipeline_id = asked.pipeline_id
        and hour.hour_at > asked.as_of - {_WINDOW} - interval '1 hour'
        and hour.hour_at <= {LAST_HOUR}
    offset 0
) as searched
cross join lateral (
    select
        count(*) as run_count,
        count(*) filter (where run.status <> 'succeeded') as failed_count,
        min(run.finished_at) as oldest_at,
        max(run.finished_at) as last_at,
        (
            array_agg(run.id order by run.order_at desc, run.id desc) filter (where run.status <> 'succeeded')
        )[1:{MAX_RUNS_SHOWN}] as run_ids
    from {known_runs(since="searched.since", newest=None)} as run
    where run.finished_at > asked.as_of - {_WINDOW}
        and run.status in ('succeeded', 'failed', 'timed_out')
) as ended
where ({_IS_TOLD}) is not true
"""

# When a run ends, and when it leaves the window.
INSTANTS = f"""
select span.rule_id, span.client_id, span.pipeline_id, changed.at as as_of
from span
cross join lateral (
    select make_interval(secs => (span.params ->> 'window_s')::double precision) as width
) as counted
cross join lateral {runs_of_span("counted.width")} as run
cross join lateral (values (run.finished_at), (run.finished_at + counted.width)) as changed (at)
where changed.at >= span.from_at and changed.at < span.to_at
"""


def _share(level: float) -> None:
    if not 0 < level <= 1:
        raise ValueError("a share above 0 and up to 1")


def _describe(value: float, threshold: float, params: Params, seen: Evidence) -> str:
    rule = cast("FailureRate", params)
    run_count, failed_count = seen.get("run_count", 0), seen.get("failed_count", 0)
    window = f"of the last {spoken(rule.window_s)} failed"
    if 0 < run_count < rule.min_runs:
        return f"{failed_count} of {run_count} runs {window}: a rate takes {rule.min_runs} runs"
    if 0 < failed_count < rule.min_failures:
        return f"{failed_count} of {run_count} runs {window}: a rate takes {rule.min_failures} failures"
    return f"{value * 100:.3g} % of the runs {window} (limit {threshold * 100:.3g} %)"


KIND = Kind(
    name="failure_rate",
    title="Failure rate",
    unit="share",
    params=FailureRate,
    observe=OBSERVE,
    told=_TOLD,
    instants=INSTANTS,
    describe=_describe,
    check_level=_share,
)
