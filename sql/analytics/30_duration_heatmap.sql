-- One row per hour or day (UTC) of a window in which a run finished: how many took how long. For heatmap panels.
-- Buckets grow by a factor of four; their ends are ends of buckets of the stored histogram, so the counts are exact.

create or replace function analytics.duration_heatmap(
    from_at timestamptz, to_at timestamptz, client text default null, pipeline text default null
)
returns table (
    at timestamptz,
    le_1 bigint,
    le_4 bigint,
    le_16 bigint,
    le_64 bigint,
    le_256 bigint,
    le_1024 bigint,
    le_4096 bigint,
    le_16384 bigint,
    le_inf bigint
)
language plpgsql stable
as $$
#variable_conflict use_column
declare
    origin constant timestamptz := '2000-01-01 00:00:00+00';
    is_hourly constant boolean := to_at - from_at <= interval '14 days';
    width constant interval := case when is_hourly then interval '1 hour' else interval '24 hours' end;
    only_these text := '';
    the_client bigint;
    the_pipeline bigint;
begin
    if pipeline is not null and client is null then
        raise exception 'a pipeline is named together with its client' using errcode = '22023';
    end if;
    -- Who sees one client alone sees no fleet: that client is all there is.
    if client is null and not exists (select from pulsewatch.fleet_hour) then
        select min(client.slug) into client from pulsewatch.client having count(*) = 1;
    end if;
    if client is not null then
        select client.id into the_client from pulsewatch.client where client.slug = duration_heatmap.client;
        only_these := ' and client_id = $3';
    end if;
    if pipeline is not null then
        select pipeline.id into the_pipeline from pulsewatch.pipeline
        where pipeline.client_id = the_client and pipeline.slug = duration_heatmap.pipeline;
        only_these := only_these || ' and pipeline_id = $4';
    end if;
    return query execute format(
        $query$
        select
            rollup.%2$I as at,
            sum(held.run_count) filter (where held.bucket < 0),
            sum(held.run_count) filter (where held.bucket >= 0 and held.bucket < 16),
            sum(held.run_count) filter (where held.bucket >= 16 and held.bucket < 32),
            sum(held.run_count) filter (where held.bucket >= 32 and held.bucket < 48),
            sum(held.run_count) filter (where held.bucket >= 48 and held.bucket < 64),
            sum(held.run_count) filter (where held.bucket >= 64 and held.bucket < 80),
            sum(held.run_count) filter (where held.bucket >= 80 and held.bucket < 96),
            sum(held.run_count) filter (where held.bucket >= 96 and held.bucket < 112),
            sum(held.run_count) filter (where held.bucket >= 112)
        from pulsewatch.%1$I as rollup
        cross join lateral unnest(rollup.duration_buckets, rollup.duration_counts) as held (bucket, run_count)
        where rollup.%2$I >= $1 and rollup.%2$I < $2 %3$s
        group by rollup.%2$I
        order by rollup.%2$I
        $query$,
        case when pipeline is not null then 'pipeline' when client is not null then 'client' else 'fleet' end
        || case when is_hourly then '_hour' else '_day' end,
        case when is_hourly then 'hour_at' else 'day_utc' end,
        only_these
    ) using date_bin(width, from_at, origin), to_at, the_client, the_pipeline;
end
$$;

comment on function analytics.duration_heatmap(timestamptz, timestamptz, text, text) is
'One row per hour (by day over more than 14 days; UTC) in which a run finished, in order: how many runs took up to 1, 4,
16, 64, 256, 1024, 4096, 16384 seconds, or longer, each run in one column only; null for none. For this pipeline of this
client, this client (pipeline null) or the fleet (both null).';
