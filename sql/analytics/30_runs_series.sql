-- One row per hour or day (UTC) of a window: the numbers of a pipeline, a client or the fleet. Durations are seconds.
-- Read by the API and by time series panels. Hours and days are stored ones, so they agree with analytics.runs_hourly,
-- runs_daily and their like for clients and the fleet; those in which nothing happened are filled with zeros.

create or replace function analytics.runs_series(
    from_at timestamptz,
    to_at timestamptz,
    client text default null,
    pipeline text default null,
    step text default 'auto'
)
returns table (
    at timestamptz,
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
declare
    origin constant timestamptz := '2000-01-01 00:00:00+00';
    is_hourly constant boolean := step = 'hour' or step = 'auto' and to_at - from_at <= interval '14 days';
    -- Hours, not a day: a day of interval arithmetic follows the session's zone and its clock changes.
    width constant interval := case when is_hourly then interval '1 hour' else interval '24 hours' end;
    most_rows constant integer := 100000;
    only_these text := '';
    the_client bigint;
    the_pipeline bigint;
begin
    if step is null or step not in ('auto', 'hour', 'day') then
        raise exception 'step must be auto, hour or day' using errcode = '22023';
    end if;
    if pipeline is not null and client is null then
        raise exception 'a pipeline is named together with its client' using errcode = '22023';
    end if;
    if (from_at < to_at) is not true then
        return;
    end if;
    if extract(epoch from to_at - from_at) / extract(epoch from width) > most_rows then
        raise exception 'a series has at most % rows; take a shorter window or a longer step', most_rows
            using errcode = '22023';
    end if;
    -- Who sees one client alone sees no fleet: that client is all there is.
    if client is null and not exists (select from pulsewatch.fleet_hour) then
        select min(client.slug) into client from pulsewatch.client having count(*) = 1;
    end if;
    if client is not null then
        select client.id into the_client from pulsewatch.client where client.slug = runs_series.client;
        if the_client is null then
            return;
        end if;
        only_these := ' and client_id = $4';
    end if;
    if pipeline is not null then
        select pipeline.id into the_pipeline from pulsewatch.pipeline
        where pipeline.client_id = the_client and pipeline.slug = runs_series.pipeline;
        if the_pipeline is null then
            return;
        end if;
        only_these := only_these || ' and pipeline_id = $5';
    end if;
    return query execute format(
        $query$
        with step as (
            select step.at from generate_series($1, $2 - interval '1 microsecond', $3) as step (at)
        ),

        stored as (
            select
                rollup.*,
                rollup.%2$I as at,
                rollup.succeeded_count + rollup.failed_count + rollup.timed_out_count + rollup.cancelled_count
                + rollup.skipped_count as finished_count
            from pulsewatch.%1$I as rollup
            where rollup.%2$I >= $1 and rollup.%2$I < $2 %3$s
        )

        select
            step.at,
            coalesce(stored.started_count, 0)::bigint,
            coalesce(stored.succeeded_count, 0)::bigint,
            coalesce(stored.failed_count, 0)::bigint,
            coalesce(stored.timed_out_count, 0)::bigint,
            coalesce(stored.cancelled_count, 0)::bigint,
            coalesce(stored.skipped_count, 0)::bigint,
            coalesce(stored.finished_count, 0)::bigint,
            coalesce(stored.retried_count, 0)::bigint,
            coalesce(stored.on_time_count, 0)::bigint,
            coalesce(stored.late_count, 0)::bigint,
            coalesce(stored.missed_count, 0)::bigint,
            analytics.success_rate(stored.succeeded_count, stored.failed_count, stored.timed_out_count),
            analytics.failure_rate(stored.succeeded_count, stored.failed_count, stored.timed_out_count),
            analytics.share(stored.retried_count, stored.finished_count),
            analytics.share(stored.on_time_count, stored.on_time_count + stored.late_count + stored.missed_count),
            coalesce(stored.duration_count, 0)::bigint,
            coalesce(stored.duration_sum_s, 0),
            stored.duration_sum_s / nullif(stored.duration_count, 0),
            stored.duration_min_s,
            stored.duration_max_s,
            stored.duration_p50_s,
            stored.duration_p95_s,
            stored.duration_p99_s,
            stored.rows_sum,
            stored.bytes_sum
        from step
        left join stored on stored.at = step.at
        order by step.at
        $query$,
        case when pipeline is not null then 'pipeline' when client is not null then 'client' else 'fleet' end
        || case when is_hourly then '_hour' else '_day' end,
        case when is_hourly then 'hour_at' else 'day_utc' end,
        only_these
    ) using date_bin(width, from_at, origin), to_at, width, the_client, the_pipeline;
end
$$;

comment on function analytics.runs_series(timestamptz, timestamptz, text, text, text) is
'One row per hour or day (UTC), in order, from that of from_at up to to_at, zeros where nothing happened: the numbers of
this pipeline of this client, of this client (pipeline null) or of the fleet (both null); no row if there is no such
client or pipeline. step is hour, day, or auto: hours up to 14 days. Columns as in analytics.client_hourly; at is the
start of the hour or day.';
