-- One row per client, hour (UTC) and bucket of durations that holds a run: the histogram behind every percentile.
-- Durations are seconds. Read by heatmaps. A run counts in the hour of finished_at. Filter on client_id (or client) and
-- hour_at: that is what the key serves.

create or replace view analytics.duration_hist_hourly
with (security_invoker = true) as
select
    counted.client_id,
    client.slug as client,
    coalesce(client.title, client.slug) as client_title,
    counted.hour_at,
    -- All that is shorter than a millisecond is in the first bucket.
    case
        when held.bucket > pulsewatch.duration_bucket(0) then power(2::double precision, held.bucket / 8.0)
        else 0
    end::double precision as lower_s,
    power(2::double precision, (held.bucket + 1) / 8.0)::double precision as upper_s,
    held.run_count
from pulsewatch.client_hour as counted
left join pulsewatch.client on counted.client_id = client.id
cross join lateral unnest(counted.duration_buckets, counted.duration_counts) as held (bucket, run_count);

comment on view analytics.duration_hist_hourly is
'One row per client, hour (UTC) and bucket of durations that holds a run: eight an octave. Durations are seconds.';
comment on column analytics.duration_hist_hourly.client_id is 'Internal number of the client, for filters and joins.';
comment on column analytics.duration_hist_hourly.client is 'Slug of the client.';
comment on column analytics.duration_hist_hourly.client_title is 'Name of the client for people.';
comment on column analytics.duration_hist_hourly.hour_at is 'Start of the hour (UTC) in which the runs ended.';
comment on column analytics.duration_hist_hourly.lower_s is
'Durations in the bucket are at least this; 0 in the first one. Seconds.';
comment on column analytics.duration_hist_hourly.upper_s is 'Durations in the bucket are below this. Seconds.';
comment on column analytics.duration_hist_hourly.run_count is 'Runs that took so long.';
