-- One row per client and day (UTC) in which anything happened: the numbers over its pipelines. Durations are seconds.
-- Read by dashboards. A run counts once: its start by started_at, all else by finished_at; expected starts by slot_at.
-- Filter on client_id (or client) and day_utc: that is what the keys serve.
-- Days are kept for ever; add up hours where a day of another time zone is wanted.

create or replace view analytics.client_daily
with (security_invoker = true) as
select
    counted.client_id,
    client.slug as client,
    coalesce(client.title, client.slug) as client_title,
    counted.day_utc,
    counted.started_count,
    counted.succeeded_count,
    counted.failed_count,
    counted.timed_out_count,
    counted.cancelled_count,
    counted.skipped_count,
    counted.succeeded_count + counted.failed_count + counted.timed_out_count + counted.cancelled_count
    + counted.skipped_count as finished_count,
    counted.retried_count,
    counted.on_time_count,
    counted.late_count,
    counted.missed_count,
    analytics.success_rate(counted.succeeded_count, counted.failed_count, counted.timed_out_count) as success_rate,
    analytics.failure_rate(counted.succeeded_count, counted.failed_count, counted.timed_out_count) as failure_rate,
    analytics.share(
        counted.retried_count,
        counted.succeeded_count + counted.failed_count + counted.timed_out_count + counted.cancelled_count
        + counted.skipped_count
    ) as retry_rate,
    analytics.share(
        counted.on_time_count, counted.on_time_count + counted.late_count + counted.missed_count
    ) as on_time_rate,
    counted.duration_count,
    counted.duration_sum_s,
    counted.duration_sum_s / nullif(counted.duration_count, 0) as duration_avg_s,
    counted.duration_min_s,
    counted.duration_max_s,
    counted.duration_p50_s,
    counted.duration_p95_s,
    counted.duration_p99_s,
    counted.rows_sum,
    counted.bytes_sum,
    counted.failed_count + counted.timed_out_count as failure_count,
    counted.succeeded_count + counted.failed_count + counted.timed_out_count as outcome_count,
    counted.on_time_count + counted.late_count + counted.missed_count as expected_count
from pulsewatch.client_day as counted
left join pulsewatch.client on counted.client_id = client.id;

comment on view analytics.client_daily is
'One row per client and day (UTC) in which anything happened: the numbers over its pipelines. Durations are seconds.';
comment on column analytics.client_daily.client_id is 'Internal number of the client, for filters and joins.';
comment on column analytics.client_daily.client is 'Slug of the client.';
comment on column analytics.client_daily.client_title is 'Name of the client for people.';
comment on column analytics.client_daily.day_utc is 'Start of the day (UTC).';
comment on column analytics.client_daily.started_count is 'Runs that started, in the day of started_at.';
comment on column analytics.client_daily.succeeded_count is 'Runs that succeeded, in the day of finished_at.';
comment on column analytics.client_daily.failed_count is 'Runs that failed, in the day of finished_at.';
comment on column analytics.client_daily.timed_out_count is 'Runs that timed out, in the day of finished_at.';
comment on column analytics.client_daily.cancelled_count is 'Runs that were cancelled, in the day of finished_at.';
comment on column analytics.client_daily.skipped_count is 'Runs that were skipped, in the day of finished_at.';
comment on column analytics.client_daily.finished_count is
'Runs that ended, however they ended, in the day of finished_at.';
comment on column analytics.client_daily.retried_count is
'Runs that ended in a later attempt than the first, in the day of finished_at.';
comment on column analytics.client_daily.on_time_count is 'Expected starts that came in time, in the day of slot_at.';
comment on column analytics.client_daily.late_count is 'Expected starts that came late, in the day of slot_at.';
comment on column analytics.client_daily.missed_count is 'Expected starts that never came, in the day of slot_at.';
comment on column analytics.client_daily.success_rate is
'succeeded / (succeeded + failed + timed_out), from 0 to 1; null where there is none.';
comment on column analytics.client_daily.failure_rate is
'(failed + timed_out) / (succeeded + failed + timed_out), from 0 to 1; null where there is none.';
comment on column analytics.client_daily.retry_rate is 'retried / finished, from 0 to 1; null where there is none.';
comment on column analytics.client_daily.on_time_rate is
'on_time / (on_time + late + missed), from 0 to 1; null where there is none.';
comment on column analytics.client_daily.duration_count is
'Runs that ended and whose duration is known, in the day of finished_at; the durations below are theirs.';
comment on column analytics.client_daily.duration_sum_s is 'Sum of the durations. Seconds.';
comment on column analytics.client_daily.duration_avg_s is
'Mean duration; to average over several rows divide the sum of sums by the sum of counts. Seconds.';
comment on column analytics.client_daily.duration_min_s is 'Shortest duration. Seconds.';
comment on column analytics.client_daily.duration_max_s is 'Longest duration. Seconds.';
comment on column analytics.client_daily.duration_p50_s is
'Median duration, at most 4.5 % off; never average it. Seconds.';
comment on column analytics.client_daily.duration_p95_s is
'95th percentile of the durations, at most 4.5 % off; never average it. Seconds.';
comment on column analytics.client_daily.duration_p99_s is
'99th percentile of the durations, at most 4.5 % off; never average it. Seconds.';
comment on column analytics.client_daily.rows_sum is
'Sum of the metric rows over runs that ended and report it, in the day of finished_at; null if none does.';
comment on column analytics.client_daily.bytes_sum is
'Sum of the metric bytes over runs that ended and report it, in the day of finished_at; null if none does.';
comment on column analytics.client_daily.failure_count is
'Runs that failed or timed out, in the day of finished_at: the part of failure_rate.';
comment on column analytics.client_daily.outcome_count is
'Runs that succeeded, failed or timed out, in the day of finished_at: the whole of success_rate.';
comment on column analytics.client_daily.expected_count is
'Expected starts that came in time, late or never, in the day of slot_at: the whole of on_time_rate.';
