"""Nothing has arrived from a pipeline for too long."""

from pulsewatch.rules.base import Evidence, Kind, Params
from pulsewatch.rules.known_runs import KEY, Of, known_runs
from pulsewatch.rules.spans import check_seconds, next_at, runs_of_span, seconds_since, spoken

# What arrives for older runs than these goes unnoticed.
NEWEST: dict[Of, int] = {"pipeline": 8, "client": 64}

# With hindsight each event counts as received when it happened: a history that is loaded afterwards came all at once.
_HEARD_AT = """
    case
        when asked.known_at < 'infinity' then run.received_at
        else greatest(
            run.first_at,
            case when run.started_at <= asked.as_of then run.started_at end,
            run.finished_at,
            case when run.last_at <= asked.as_of then run.last_at end
        )
    end
"""


class NoData(Params):
    """Nothing to be told."""


def _observe(of: Of) -> str:
    return f"""
select
    asked.rule_id, asked.client_id, asked.pipeline_id, asked.as_of,
    {seconds_since("reference.at")} as value,
    asked.as_of as sample_at,
    {next_at("reference.at")} as next_at,
    coalesce(heard.run_ids, '{{}}') as run_ids,
    null::jsonb as evidence
from asked
cross join lateral (
    select max({_HEARD_AT}) as at, (array_agg(run.id order by run.order_at desc, run.id desc))[1:1] as run_ids
    from {known_runs(newest=NEWEST[of], of=of)} as run
) as heard
cross join lateral (
    select coalesce(heard.at, asked.target_since) as at
) as reference
"""


def _instants(of: Of) -> str:
    return f"""
select span.rule_id, span.client_id, span.pipeline_id, changed.at as as_of
from span
cross join lateral (
    select coalesce(max(threshold.value), 0) * interval '1 second' as back
    from unnest(span.thresholds) as threshold (value)
) as counted
cross join lateral (
    select span.target_since as at
    union all
    -- When it happened: that is what counts with hindsight.
    select happened.at
    from {runs_of_span("counted.back", of)} as run
    cross join lateral (values (run.first_at), (run.started_at), (run.finished_at), (run.last_at)) as happened (at)
    where span.known_at < 'infinity' is not true
    union all
    select event.received_at
    from pulsewatch.run_event as event
    where span.known_at < 'infinity'
        and {KEY[of].format("event", "span")}
        and event.occurred_at >= span.from_at - counted.back - interval '7 days'
        and event.received_at >= span.from_at - counted.back
        and event.received_at < span.to_at
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
    return f"nothing has arrived for {spoken(value)} (limit {spoken(threshold)})"


def kind_of(target: Of, name: str, title: str) -> Kind:
    """The kind that watches pipelines, or the one that watches clients."""
    return Kind(
        name=name,
        title=title,
        unit="s",
        params=NoData,
        observe=_observe(target),
        instants=_instants(target),
        describe=_describe,
        target=target,
        is_timed=True,
        check_level=check_seconds,
    )


KIND = kind_of("pipeline", "no_data", "Nothing from a pipeline")
