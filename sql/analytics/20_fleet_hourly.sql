-- One row per hour (UTC) in which anything happened: the numbers over all clients. Durations are seconds.
-- Read by dashboards. A run counts once: its start by started_at, all else by finished_at; expected starts by slot_at.
-- Filter on hour_at: that is what the key serves.

create or replace view analytics.fleet_hourly
with (security_invoker = true) as
select
    counted.hour_at,
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
from pulsewatch.fleet_hour as counted;

comment on view analytics.fleet_hourly is
'One row per hour (UTC) in which anything happened: the numbers over all clients. Durations are seconds.';
comment on column analytics.fleet_hourly.hour_at is 'Start of the hour (UTC).';
comment on column analytics.fleet_hourly.started_count is 'Runs that started, in the hour of started_at.';
comment on column analytics.fleet_hourly.succeeded_count is 'Runs that succeeded, in the hour of finished_at.';
comment on column analytics.fleet_hourly.failed_count is 'Runs that failed, in the hour of finished_at.';
comment on column analytics.fleet_hourly.timed_out_count is 'Runs that timed out, in the hour of finished_at.';
comment on column analytics.fleet_hourly.cancelled_count is 'Runs that were cancelled, in the hour of finished_at.';
comment on column analytics.fleet_hourly.skipped_count is 'Runs that were skipped, in the hour of finished_at.';
comment on column analytics.fleet_hourly.finished_count is
'Runs that ended, however they ended, in the hour of finished_at.';
comment on column analytics.fleet_hourly.retried_count is
'Runs that ended in a later attempt than the first, in the hour of finished_at.';
comment on column analytics.fleet_hourly.on_time_count is 'Expected starts that came in time, in the hour of slot_at.';
comment on column analytics.fleet_hourly.late_count is 'Expected starts that came late, in the hour of slot_at.';
comment on column analytics.fleet_hourly.missed_count is 'Expected starts that never came, in the hour of slot_at.';
comment on column analytics.fleet_hourly.success_rate is
'succeeded / (succeeded + failed + timed_out), from 0 to 1; null where there is none.';
comment on column analytics.fleet_hourly.failure_rate is
'(failed + timed_out) / (succeeded + failed + timed_out), from 0 to 1; null where there is none.';
comment on column analytics.fleet_hourly.retry_rate is 'retried / finished, from 0 to 1; null where there is none.';
comment on column analytics.fleet_hourly.on_time_rate is
'on_time / (on_time + late + missed), from 0 to 1; null where there is none.';
comment on column analytics.fleet_hourly.duration_count is
'Runs that ended and whose duration is known, in the hour of finished_at; the durations below are theirs.';
comment on column analytics.fleet_hourly.duration_sum_s is 'Sum of the durations. Seconds.';
comment on column analytics.fleet_hourly.duration_avg_s is
'Mean duration; to average over several rows divide the sum of sums by the sum of counts. Seconds.';
comment on column analytics.fleet_hourly.duration_min_s is 'Shortest duration. Seconds.';
comment on column analytics.fleet_hourly.duration_max_s is 'Longest duration. Seconds.';
comment on column analytics.fleet_hourly.duration_p50_s is
'Median duration, at most 4.5 % off; never average it. Seconds.';
comment on column analytics.fleet_hourly.duration_p95_s is
'95th percentile of the durations, at most 4.5 % off; never average it. Seconds.';
comment on column analytics.fleet_hourly.duration_p99_s is
'99th percentile of the durations, at most 4.5 % off; never average it. Seconds.';
comment on column analytics.fleet_hourly.rows_sum is
'Sum of the metric rows over runs that ended and report it, in the hour of finished_at; null if none does.';
comment on column analytics.fleet_hourly.bytes_sum is
'Sum of the metric bytes over runs that ended and report it, in the hour of finished_at; null if none does.';
comment on column analytics.fleet_hourly.failure_count is
'Runs that failed or timed out, in the hour of finished_at: the part of failure_rate.';
comment on column analytics.fleet_hourly.outcome_count is
'Runs that succeeded, failed or timed out, in the hour of finished_at: the whole of success_rate.';
comment on column analytics.fleet_hourly.expected_count is
'Expected starts that came in time, late or never, in the hour of slot_at: the whole of on_time_rate.';
