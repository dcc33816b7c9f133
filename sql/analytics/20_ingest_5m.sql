-- One row per five minutes (UTC) and wire in which anything came in, over all clients. Durations are seconds.
-- Read by panels that watch PulseWatch itself. Filter on bucket_at: that is what the key serves.

create or replace view analytics.ingest_5m
with (security_invoker = true) as
select
    ingest_stat.bucket_at,
    ingest_stat.source,
    sum(ingest_stat.accepted)::bigint as accepted,
    sum(ingest_stat.duplicates)::bigint as duplicates,
    sum(ingest_stat.rejected)::bigint as rejected,
    sum(ingest_stat.lag_s_sum) / nullif(sum(ingest_stat.accepted), 0)::double precision as lag_s_avg,
    max(ingest_stat.lag_s_max) filter (where ingest_stat.accepted > 0) as lag_s_max
from pulsewatch.ingest_stat
group by ingest_stat.bucket_at, ingest_stat.source;

comment on view analytics.ingest_5m is
'One row per five minutes (UTC) and wire in which anything came in, over all clients. Durations are seconds.';
comment on column analytics.ingest_5m.bucket_at is 'Start of the five minutes (UTC) in which they came in.';
comment on column analytics.ingest_5m.source is
'The wire: native, openlineage and the like; pulsewatch: its own events.';
comment on column analytics.ingest_5m.accepted is 'New events.';
comment on column analytics.ingest_5m.duplicates is 'Events that were there already.';
comment on column analytics.ingest_5m.rejected is 'Items that were refused.';
comment on column analytics.ingest_5m.lag_s_avg is
'Mean of received_at less occurred_at over the new events; null where there is none. Seconds.';
comment on column analytics.ingest_5m.lag_s_max is 'The greatest of them; null where there is none. Seconds.';
