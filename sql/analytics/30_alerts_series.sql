-- One row per hour or day (UTC) of a window: alerts that fired in it, of a pipeline, a client or all, by their highest
-- level, and how long it took until somebody took them on and until they were over. Durations are seconds.
-- Read by time series panels. Alerts of dry runs do not count: nobody is told of them.

create or replace function analytics.alerts_series(
    from_at timestamptz,
    to_at timestamptz,
    client text default null,
    pipeline text default null,
    step text default 'auto'
)
returns table (
    at timestamptz,
    fired_count bigint,
    warning_count bigint,
    critical_count bigint,
    acknowledged_count bigint,
    brief_count bigint,
    acknowledge_avg_s double precision,
    resolve_avg_s double precision
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
    if client is not null then
        select client.id into the_client from pulsewatch.client where client.slug = alerts_series.client;
        if the_client is null then
            return;
        end if;
    end if;
    if pipeline is not null then
        select pipeline.id into the_pipeline from pulsewatch.pipeline
        where pipeline.client_id = the_client and pipeline.slug = alerts_series.pipeline;
        if the_pipeline is null then
            return;
        end if;
    end if;
    -- Planned anew for these values: a plan for any client would read the alerts of all.
    return query execute
        $query$
        with step as (
            select step.at from generate_series($1, $2 - interval '1 microsecond', $3) as step (at)
        ),

        fired as (
            select
                date_bin($3, alert.fired_at, $1) as at,
                count(*) as fired_count,
                count(*) filter (where alert.max_level_code = 1) as warning_count,
                count(*) filter (where alert.max_level_code = 2) as critical_count,
                count(*) filter (where alert.is_ever_acknowledged) as acknowledged_count,
                count(*) filter (where alert.is_brief) as brief_count,
                avg(alert.acknowledge_s) as acknowledge_avg_s,
                avg(alert.resolve_s) as resolve_avg_s
            from analytics.alerts as alert
            where alert.fired_at >= $1
                and alert.fired_at < $2
                and not alert.is_dry_run
                and ($4 is null or alert.client_id = $4)
                and ($5 is null or alert.pipeline_id = $5)
            group by date_bin($3, alert.fired_at, $1)
        )

        select
            step.at,
            coalesce(fired.fired_count, 0),
            coalesce(fired.warning_count, 0),
            coalesce(fired.critical_count, 0),
            coalesce(fired.acknowledged_count, 0),
            coalesce(fired.brief_count, 0),
            fired.acknowledge_avg_s,
            fired.resolve_avg_s
        from step
        left join fired on fired.at = step.at
        order by step.at
        $query$
        using date_bin(width, from_at, origin), to_at, width, the_client, the_pipeline;
end
$$;

comment on function analytics.alerts_series(timestamptz, timestamptz, text, text, text) is
'One row per hour or day (UTC), in order, from that of from_at up to to_at, zeros where nothing happened: fired_count
alerts that fired, warning_count and critical_count by their highest level, acknowledged_count that somebody took on,
brief_count that recovered by themselves within five minutes, and the mean seconds from firing until somebody took them
on (acknowledge_avg_s) and until they were resolved (resolve_avg_s). Of this pipeline of this client, of this client
(pipeline null) or of all (both null); no row if there is no such client or pipeline. step is hour, day, or auto: hours
up to 14 days. Dry runs do not count.';
