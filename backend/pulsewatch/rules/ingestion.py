"""Nothing has arrived at all, at a time at which something should have."""

from pydantic import Field

from pulsewatch.rules.base import Evidence, Kind, Params
from pulsewatch.rules.spans import check_seconds, spoken


class Ingestion(Params):
    """How many events must be missing before silence means something."""

    min_events: int = Field(10, ge=1, le=1_000_000, description="So many should have come meanwhile, by then.")


# What came is counted per five minutes: it is silent since the end of the last five in which anything was accepted.
# What should have come since is told by the same time a week before, or a day before while there are no numbers of
# the week before, or else by the rate of the day before it fell silent. The longer the silence, the more should have
# come: it does not end in a quiet night. Whole minutes, so that the verdict changes at these only.
OBSERVE = """
select
    asked.rule_id, asked.client_id, asked.pipeline_id, asked.as_of,
    case
        when last.silent_at is null or asked.as_of <= last.silent_at then 0
        when awaited.event_count >= (asked.params ->> 'min_events')::double precision then silence.length_s
        else 0
    end::double precision as value,
    last.silent_at as sample_at,
    date_bin('1 minute', asked.as_of, '2000-01-01 00:00:00+00') + interval '1 minute' as next_at,
    '{}'::uuid[] as run_ids,
    null::jsonb as evidence
from asked
left join lateral (
    select stat.bucket_at + interval '5 minutes' as silent_at
    from pulsewatch.ingest_stat as stat
    where stat.bucket_at <= asked.as_of and stat.accepted > 0
    order by stat.bucket_at desc
    limit 1
) as last on true
cross join lateral (
    select min(stat.bucket_at) as first_at
    from pulsewatch.ingest_stat as stat
) as known
cross join lateral (
    select
        floor(extract(epoch from asked.as_of - last.silent_at) / 60) * 60 as length_s,
        case
            when known.first_at <= last.silent_at - interval '7 days' then interval '7 days'
            when known.first_at <= last.silent_at - interval '1 day' then interval '1 day'
        end as ago
) as silence
cross join lateral (
    select
        case
            when silence.ago is not null then sum(stat.accepted)
            else sum(stat.accepted) * silence.length_s
                / greatest(extract(epoch from last.silent_at - known.first_at), 300)
        end as event_count
    from pulsewatch.ingest_stat as stat
    where stat.bucket_at >= last.silent_at - coalesce(silence.ago, interval '1 day')
        and stat.bucket_at + interval '5 minutes'
        <= case when silence.ago is null then last.silent_at else asked.as_of - silence.ago end
) as awaited
"""

INSTANTS = """
select span.rule_id, span.client_id, span.pipeline_id, changed.at as as_of
from span
cross join lateral generate_series(
    date_bin('1 minute', span.from_at, '2000-01-01 00:00:00+00'), span.to_at, interval '1 minute'
) as changed (at)
where changed.at >= span.from_at and changed.at < span.to_at
"""


def _describe(value: float, threshold: float, _params: Params, _seen: Evidence) -> str:
    return f"nothing has arrived from anybody for {spoken(value)} (limit {spoken(threshold)})"


KIND = Kind(
    name="ingestion",
    title="Ingestion has stopped",
    unit="s",
    params=Ingestion,
    observe=OBSERVE,
    instants=INSTANTS,
    describe=_describe,
    target="fleet",
    check_level=check_seconds,
)
