-- One row: the alerts that fired in a window, of a pipeline, a client or all, by what came of them, and how long it
-- took until somebody took them on and until they were over. Durations are seconds.
-- Read by panels with one number. Alerts of dry runs do not count: nobody is told of them.

create or replace function analytics.alerts_summary(
    from_at timestamptz, to_at timestamptz, client text default null, pipeline text default null
)
returns table (
    fired_count bigint,
    warning_count bigint,
    critical_count bigint,
    open_count bigint,
    acknowledged_count bigint,
    brief_count bigint,
    acknowledged_rate double precision,
    brief_rate double precision,
    acknowledge_avg_s double precision,
    acknowledge_p50_s double precision,
    resolve_avg_s double precision,
    resolve_p50_s double precision
)
language plpgsql stable
as $$
#variable_conflict use_column
declare
    the_client bigint;
    the_pipeline bigint;
begin
    if pipeline is not null and client is null then
        raise exception 'a pipeline is named together with its client' using errcode = '22023';
    end if;
    if client is not null then
        select client.id into the_client from pulsewatch.client where client.slug = alerts_summary.client;
        if the_client is null then
            return;
        end if;
    end if;
    if pipeline is not null then
        select pipeline.id into the_pipeline from pulsewatch.pipeline
        where pipeline.client_id = the_client and pipeline.slug = alerts_summary.pipeline;
        if the_pipeline is null then
            return;
        end if;
    end if;
    -- Planned anew for these values: a plan for any client would read the alerts of all.
    return query execute
        $query$
        with fired as (
            select
                alert.max_level_code,
                alert.is_open,
                alert.is_ever_acknowledged,
                alert.is_brief,
                alert.acknowledge_s,
                alert.resolve_s
            from analytics.alerts as alert
            where alert.fired_at >= $1
                and alert.fired_at < $2
                and not alert.is_dry_run
                and ($3 is null or alert.client_id = $3)
                and ($4 is null or alert.pipeline_id = $4)
        )

        select
            count(*),
            count(*) filter (where max_level_code = 1),
            count(*) filter (where max_level_code = 2),
            count(*) filter (where is_open),
            count(*) filter (where is_ever_acknowledged),
            count(*) filter (where is_brief),
            analytics.share(count(*) filter (where is_ever_acknowledged), count(*)),
            analytics.share(count(*) filter (where is_brief), count(*)),
            avg(acknowledge_s),
            percentile_cont(0.5) within group (order by acknowledge_s),
            avg(resolve_s),
            percentile_cont(0.5) within group (order by resolve_s)
        from fired
        $query$
        using from_at, to_at, the_client, the_pipeline;
end
$$;

comment on function analytics.alerts_summary(timestamptz, timestamptz, text, text) is
'One row about the alerts that fired in the window: how many (fired_count), by highest level (warning_count,
critical_count), still open, acknowledged, and recovered by themselves within five minutes (brief_count), these as shares
of all, and mean and median seconds from firing until somebody took them on (acknowledge_avg_s, acknowledge_p50_s) and
until they were resolved (resolve_avg_s, resolve_p50_s). Of this pipeline of this client, of this client (pipeline null)
or of all (both null); no row if there is no such client or pipeline. Dry runs do not count.';
