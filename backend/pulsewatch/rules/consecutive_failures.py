"""So many runs have failed in a row."""

from typing import Literal, cast

from pydantic import Field

from pulsewatch.rules.base import MAX_RUNS_SHOWN, Evidence, Kind, Params, Told
from pulsewatch.rules.known_runs import NEWEST, known_runs, newest_run
from pulsewatch.rules.spans import runs_of_span

# Of the last NEWEST runs some may be going on, or count for nothing.
MOST = 50


class ConsecutiveFailures(Params):
    """Which ends count as failures. Cancelled and skipped runs count for nothing unless they are named."""

    statuses: tuple[Literal["failed", "timed_out", "cancelled", "skipped"], ...] = Field(
        ("failed", "timed_out"), min_length=1, description="Ends that count as failures."
    )


_COUNTS = """
    run.finished_at is not null
    and (run.status in ('succeeded', 'failed', 'timed_out') or run.status = any(asked.statuses))
"""

_IS_FAILED = "run.status = any(asked.statuses)"

_IS_PLAIN = "not asked.statuses && '{cancelled,skipped}'"
_IS_TOLD = f"asked.last_outcome = 'succeeded' and {_IS_PLAIN}"

# The state counts too, where failures of both sorts count and nothing else does.
_TOLD = Told(
    of=_IS_PLAIN,
    where="asked.last_outcome = 'succeeded'"
    " or asked.last_outcome is not null and asked.statuses @> '{failed,timed_out}'",
    value="case when asked.last_outcome = 'succeeded' then 0 else asked.consecutive_failures end",
)

# The state tells nearly always that nothing is wrong. Else the newest end that counts does; only where it is a failure
# is more read.
OBSERVE = f"""
select
    asked.rule_id, asked.client_id, asked.pipeline_id, asked.as_of, 0::double precision as value,
    asked.last_finished_at as sample_at, null::timestamptz as next_at, '{{}}'::uuid[] as run_ids,
    null::jsonb as evidence
from asked
where {_IS_TOLD}
union all
select
    asked.rule_id, asked.client_id, asked.pipeline_id, asked.as_of,
    case when newest.is_failed then failed.run_count when newest.id is not null then 0 end::double precision as value,
    newest.finished_at as sample_at,
    null::timestamptz as next_at,
    coalesce(failed.run_ids, '{{}}') as run_ids,
    null::jsonb as evidence
from asked
left join lateral ({newest_run(f"run.finished_at, {_IS_FAILED} as is_failed", _COUNTS)}) as newest on true
left join lateral (
    {newest_run("true as is_good", f"{_COUNTS} and not {_IS_FAILED}", if_="newest.is_failed")}
) as good on true
left join lateral (
    select counted.run_count, counted.run_ids
    from (
        select
            count(*) as run_count,
            (array_agg(run.id order by run.order_at desc, run.id desc))[1:{MAX_RUNS_SHOWN}] as run_ids
        from {known_runs(since="coalesce(case when asked.is_settled then good.order_at end, '-infinity')")} as run
        where {_COUNTS}
            and {_IS_FAILED}
            and (good.id is null or (run.order_at, run.id) > (good.order_at, good.id))
    ) as counted
    where newest.is_failed
    offset 0
) as failed on true
where ({_IS_TOLD}) is not true
"""

# Where only such failures count as spans of failure tell of, nothing changes outside of these: a run that ends within
# one, and began no earlier, may; runs that overlap may end in any order.
_IS_TOLD_BY_SPANS = "span.params -> 'statuses' <@ '[\"failed\", \"timed_out\"]'"
INSTANTS = f"""
select span.rule_id, span.client_id, span.pipeline_id, run.finished_at as as_of
from span
cross join lateral {runs_of_span()} as run
where run.finished_at >= span.from_at and run.finished_at < span.to_at and not {_IS_TOLD_BY_SPANS}
union all
select span.rule_id, span.client_id, span.pipeline_id, ended.finished_at as as_of
from span
cross join lateral (
    select failing.first_at, failing.began_at, coalesce(failing.ended_at, span.to_at) as until_at
    from pulsewatch.failing_span as failing
    where failing.client_id = span.client_id
        and failing.pipeline_id = span.pipeline_id
        and failing.began_at < span.to_at
        and (failing.ended_at is null or failing.ended_at >= span.from_at)
    union all
    -- Before its first run had ended there was nothing to count.
    (
        select hour.first_at_min, hour.hour_at, hour.hour_at + interval '1 hour'
        from pulsewatch.pipeline_hour as hour
        where hour.client_id = span.client_id
            and hour.pipeline_id = span.pipeline_id
            and hour.succeeded_count + hour.failed_count + hour.timed_out_count > 0
        order by hour.hour_at
        limit 1
    )
    offset 0
) as failing
cross join lateral (
    select run.finished_at
    from pulsewatch.run
    where run.client_id = span.client_id
        and run.pipeline_id = span.pipeline_id
        and run.first_at between failing.first_at and failing.until_at
        and run.finished_at between failing.began_at and failing.until_at
    offset 0
) as ended
where ended.finished_at >= span.from_at and ended.finished_at < span.to_at and {_IS_TOLD_BY_SPANS}
"""


def _whole(level: float) -> None:
    if level < 1 or level > MOST or level != int(level):
        raise ValueError(f"a number of runs from 1 to {MOST}")


def _describe(value: float, threshold: float, params: Params, _seen: Evidence) -> str:
    names = " or ".join(cast("ConsecutiveFailures", params).statuses).replace("_", " ")
    runs = "1 run has" if value == 1 else f"{value:.0f}{' or more' * (value >= NEWEST)} runs in a row have"
    return f"{runs} {names} (limit {threshold:.0f})"


KIND = Kind(
    name="consecutive_failures",
    title="Failures in a row",
    unit="runs",
    params=ConsecutiveFailures,
    observe=OBSERVE,
    told=_TOLD,
    instants=INSTANTS,
    describe=_describe,
    check_level=_whole,
)
