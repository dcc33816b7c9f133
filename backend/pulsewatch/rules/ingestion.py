"""Nothing has arrived at all, at a time at which something should have; or nobody has looked."""

from pydantic import Field

from pulsewatch.rules.base import Evidence, Kind, Params
from pulsewatch.rules.spans import check_seconds, spoken


class Ingestion(Params):
    """How many events must be missing before silence means something."""

    min_events: int = Field(10, ge=1, le=1_000_000, description="So many should have come meanwhile, by then.")


# PulseWatch's own events, such as runs that it timed out, are no arrivals.
ARRIVED = "stat.accepted > 0 and stat.source <> 'pulsewatch'"
# What was accepted last of a row; where it does not say, at the end of its five minutes.
LAST_AT = "coalesce(stat.last_at, stat.bucket_at + interval '5 minutes')"

SETTLES = "interval '2 minutes'"
# So many times min_events make a rate.
STEADY = 10

# It is silent since anything was accepted last. What should have come since is counted in whole five minutes that have
# gone by since: it is told by the same time a week before, or a day before while there are no numbers of the week
# before, or else by the rate of the day before it fell silent, if that was steady: a few events on the first day, with
# which somebody tried things out, tell nothing of what a nightly job sends. The longer the silence, the more should
# have come: it does not end in a quiet night. Whole minutes, so that the verdict changes at these only.
OBSERVE = f"""
select
    asked.rule_id, asked.client_id, asked.pipeline_id, asked.as_of,
    greatest(missed.silent_s, away.length_s, 0) as value,
    last.silent_at as sample_at,
    least(minute.at + interval '1 minute', away.until_at) as next_at,
    '{{}}'::uuid[] as run_ids,
    jsonb_build_object(
        'last_arrival_at', last.silent_at, 'awaited_count', coalesce(round(awaited.event_count), 0),
        'silent_s', missed.silent_s, 'away_s', coalesce(away.length_s, 0)
    ) as evidence
from asked
left join lateral (
    select newest.bucket_at, max({LAST_AT}) as silent_at
    from (
        select stat.bucket_at
        from pulsewatch.ingest_stat as stat
        where stat.bucket_at <= asked.as_of and {ARRIVED}
        order by stat.bucket_at desc
        limit 1
    ) as newest
    join pulsewatch.ingest_stat as stat on stat.bucket_at = newest.bucket_at and {ARRIVED}
    group by newest.bucket_at
) as last on true
cross join lateral (
    select min(stat.bucket_at) as first_at
    from pulsewatch.ingest_stat as stat
) as known
cross join lateral (
    select date_bin('1 minute', asked.as_of, '2000-01-01 00:00:00+00') as at
) as minute
cross join lateral (
    select
        greatest(extract(epoch from minute.at - last.silent_at), 0)::double precision as length_s,
        last.bucket_at + interval '5 minutes' as from_at,
        case
            when known.first_at <= last.bucket_at - interval '7 days' then interval '7 days'
            when known.first_at <= last.bucket_at - interval '1 day' then interval '1 day'
        end as ago
) as silence
left join lateral (
    select
        case
            when silence.ago is not null then sum(stat.accepted)
            when sum(stat.accepted) >= (asked.params ->> 'min_events')::double precision * {STEADY}
                then sum(stat.accepted) * floor(extract(epoch from minute.at - silence.from_at) / 300) * 300
                / greatest(extract(epoch from silence.from_at - known.first_at), 300)
        end as event_count
    from pulsewatch.ingest_stat as stat
    where {ARRIVED}
        and stat.bucket_at >= silence.from_at - coalesce(silence.ago, interval '1 day')
        and stat.bucket_at + interval '5 minutes'
        <= case when silence.ago is null then silence.from_at else asked.as_of - silence.ago end
) as awaited on asked.as_of > silence.from_at
cross join lateral (
    select
        case
            when awaited.event_count >= (asked.params ->> 'min_events')::double precision then silence.length_s
            else 0
        end as silent_s
) as missed
-- That nobody looked is told for as long as producers have to send what they could not.
cross join lateral (
    select max(tick.away_s) as length_s, max(tick.as_of) + {SETTLES} as until_at
    from pulsewatch.alert_tick as tick
    where tick.as_of > asked.as_of - {SETTLES} and tick.as_of <= asked.as_of and tick.away_s is not null
) as away
"""

INSTANTS = f"""
select span.rule_id, span.client_id, span.pipeline_id, changed.at as as_of
from span
cross join lateral (
    select minute.at
    from generate_series(
        date_bin('1 minute', span.from_at, '2000-01-01 00:00:00+00'), span.to_at, interval '1 minute'
    ) as minute (at)
    union all
    select told.at
    from pulsewatch.alert_tick as tick
    cross join lateral (values (tick.as_of), (tick.as_of + {SETTLES})) as told (at)
    where tick.as_of > span.from_at - {SETTLES} and tick.as_of < span.to_at and tick.away_s is not null
) as changed
where changed.at >= span.from_at and changed.at < span.to_at
"""


def _describe(value: float, threshold: float, _params: Params, seen: Evidence) -> str:
    if value == seen.get("away_s"):
        return f"PulseWatch itself was away for {spoken(value)} (limit {spoken(threshold)})"
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
