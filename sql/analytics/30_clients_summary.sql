-- One row per client: the numbers of a window, for the API and for tables of all clients. Archived ones included.
-- Durations are seconds. The window is widened to whole hours (UTC); analytics.summaries says how it is added up.

create or replace function analytics.clients_summary(from_at timestamptz, to_at timestamptz)
returns table (
    client_id bigint,
    client text,
    client_title text,
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
    bytes_sum double precision,
    is_archived boolean
)
language plpgsql stable
as $$
#variable_conflict use_column
begin
    return query
    select
        summary.client_id,
        summary.client,
        summary.client_title,
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
        summary.bytes_sum,
        summary.is_archived
    from analytics.summaries(clients_summary.from_at, clients_summary.to_at, 'client') as summary
    order by summary.client;
end
$$;

comment on function analytics.clients_summary(timestamptz, timestamptz) is
'One row per client, by slug, also where nothing happened: the numbers of the hours (UTC) from that of from_at up to
to_at. Columns as in analytics.client_hourly; percentiles are those of all runs together, at most 4.5 % off; is_archived
tells clients that are no longer in use.';
