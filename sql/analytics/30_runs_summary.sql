-- One row: the numbers of a window, of a pipeline, a client or the fleet, for the API and for single-number panels.
-- Durations are seconds. The window is widened to whole hours (UTC); analytics.summaries says how it is added up.

create or replace function analytics.runs_summary(
    from_at timestamptz, to_at timestamptz, client text default null, pipeline text default null
)
returns table (
    started_count bigint,
    succeeded_count bigint,
    failed_count bigint,
    timed_out_count bigint,
    cancelled_count bigint,
    skipped_count bigint,
    finished_count bigint,
    retried_count bigint,
    on_time_count bigint,
    late_count bigint,
    missed_count bigint,
    success_rate double precision,
    failure_rate double precision,
    retry_rate double precision,
    on_time_rate double precision,
    duration_count bigint,
    duration_sum_s double precision,
    duration_avg_s double precision,
    duration_min_s double precision,
    duration_max_s double precision,
    duration_p50_s double precision,
    duration_p95_s double precision,
    duration_p99_s double precision,
    rows_sum double precision,
    bytes_sum double precision
)
language plpgsql stable
as $$
#variable_conflict use_column
begin
    -- Who sees one client alone sees no fleet: that client is all there is.
    if client is null and pipeline is null and not exists (select from pulsewatch.fleet_hour) then
        select min(client.slug) into client from pulsewatch.client having count(*) = 1;
    end if;
    return query
    select
        summary.started_count,
        summary.succeeded_count,
        summary.failed_count,
        summary.timed_out_count,
        summary.cancelled_count,
        summary.skipped_count,
        summary.finished_count,
        summary.retried_count,
        summary.on_time_count,
        summary.late_count,
        summary.missed_count,
        summary.success_rate,
        summary.failure_rate,
        summary.retry_rate,
        summary.on_time_rate,
        summary.duration_count,
        summary.duration_sum_s,
        summary.duration_avg_s,
        summary.duration_min_s,
        summary.duration_max_s,
        summary.duration_p50_s,
        summary.duration_p95_s,
        summary.duration_p99_s,
        summary.rows_sum,
        summary.bytes_sum
    from analytics.summaries(
        runs_summary.from_at,
        runs_summary.to_at,
        case
            when runs_summary.pipeline is not null then 'pipeline'
            when runs_summary.client is not null then 'client'
            else 'fleet'
        end,
        runs_summary.client,
        runs_summary.pipeline
    ) as summary;
end
$$;

comment on function analytics.runs_summary(timestamptz, timestamptz, text, text) is
'One row: the numbers of the hours (UTC) from that of from_at up to to_at, of this pipeline of this client, of this
client (pipeline null) or of the fleet (both null); no row if there is no such client or pipeline. Columns as in
analytics.client_hourly; percentiles are those of all runs together, at most 4.5 % off.';
