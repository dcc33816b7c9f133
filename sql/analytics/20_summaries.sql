-- One row per pipeline, per client or for the fleet: the numbers of a window. Durations are seconds.
-- Read by runs_summary and clients_summary; the only place where hours and days are added up and histograms merged.
-- Days that lie wholly within the window are read whole, so a year is as quick as a month; its ends are read by hour.

create or replace function analytics.summaries(
    from_at timestamptz, to_at timestamptz, level text, of_client text default null, of_pipeline text default null
)
returns table (
    client_id bigint,
    pipeline_id bigint,
    client text,
    client_title text,
    pipeline text,
    pipeline_title text,
    is_archived boolean,
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
    first_hour constant timestamptz := date_bin('1 hour', from_at, origin);
    end_hour constant timestamptz := date_bin('1 hour', to_at + interval '1 hour' - interval '1 microsecond', origin);
    first_day timestamptz := date_bin('24 hours', first_hour + interval '23 hours', origin);
    end_day timestamptz := date_bin('24 hours', end_hour, origin);
    -- What the rows are about. One number is enough: pipelines are always those of one client.
    subject_id constant text := case level
        when 'pipeline' then 'pipeline_id'
        when 'client' then 'client_id'
        when 'fleet' then '0::bigint'
    end;
    subjects constant text := case level
        when 'pipeline' then
            'select pipeline.id as subject_id, pipeline.client_id, pipeline.id as pipeline_id, client.slug as client,'
            ' coalesce(client.title, client.slug) as client_title, pipeline.slug as pipeline,'
            ' coalesce(pipeline.title, pipeline.name) as pipeline_title,'
            ' pipeline.archived_at is not null or client.archived_at is not null as is_archived'
            ' from pulsewatch.pipeline join pulsewatch.client on client.id = pipeline.client_id'
            ' where pipeline.client_id = $5 and pipeline.id = coalesce($6, pipeline.id)'
        when 'client' then
            'select client.id as subject_id, client.id as client_id, null::bigint as pipeline_id, client.slug as client,'
            ' coalesce(client.title, client.slug) as client_title, null as pipeline, null as pipeline_title,'
            ' client.archived_at is not null as is_archived'
            ' from pulsewatch.client where client.id = coalesce($5, client.id)'
        when 'fleet' then
            'select 0::bigint as subject_id, null::bigint as client_id, null::bigint as pipeline_id, null as client,'
            ' null as client_title, null as pipeline, null as pipeline_title, false as is_archived'
    end;
    columns constant text :=
        'started_count, succeeded_count, failed_count, timed_out_count, cancelled_count, skipped_count, retried_count,'
        ' on_time_count, late_count, missed_count, duration_count, duration_sum_s, duration_min_s, duration_max_s,'
        ' duration_buckets, duration_counts, rows_sum, bytes_sum';
    only_these text := '';
    the_client bigint;
    the_pipeline bigint;
begin
    if level is null or level not in ('pipeline', 'client', 'fleet') then
        raise exception 'level must be pipeline, client or fleet' using errcode = '22023';
    end if;
    if (level = 'pipeline' or of_pipeline is not null) and of_client is null then
        raise exception 'a pipeline is named together with its client' using errcode = '22023';
    end if;
    if level = 'fleet' and of_client is not null or level = 'client' and of_pipeline is not null then
        raise exception 'level % is about more than what is named', level using errcode = '22023';
    end if;
    if (from_at < to_at) is not true then
        return;
    end if;
    -- A window without a whole day is read by hour alone.
    if first_day > end_day then
        first_day := end_hour;
        end_day := end_hour;
    end if;
    -- By id, not by slug: the rollups are found by index, also where they are spread over several servers.
    if of_client is not null then
        select client.id into the_client from pulsewatch.client where client.slug = of_client;
        if the_client is null then
            return;
        end if;
        only_these := ' and client_id = $5';
    end if;
    if of_pipeline is not null then
        select pipeline.id into the_pipeline from pulsewatch.pipeline
        where pipeline.client_id = the_client and pipeline.slug = of_pipeline;
        if the_pipeline is null then
            return;
        end if;
        only_these := only_these || ' and pipeline_id = $6';
    end if;
    return query execute format(
        $query$
        with part as (
            select %1$s as subject_id, %2$s from pulsewatch.%3$I where hour_at >= $1 and hour_at < $2 %5$s
            union all
            select %1$s as subject_id, %2$s from pulsewatch.%4$I where day_utc >= $2 and day_utc < $3 %5$s
            union all
            select %1$s as subject_id, %2$s from pulsewatch.%3$I where hour_at >= $3 and hour_at < $4 %5$s
        ),

        total as (
            select
                subject_id,
                sum(started_count) as started_count,
                sum(succeeded_count) as succeeded_count,
                sum(failed_count) as failed_count,
                sum(timed_out_count) as timed_out_count,
                sum(cancelled_count) as cancelled_count,
                sum(skipped_count) as skipped_count,
                sum(retried_count) as retried_count,
                sum(on_time_count) as on_time_count,
                sum(late_count) as late_count,
                sum(missed_count) as missed_count,
                sum(duration_count) as duration_count,
                sum(succeeded_count + failed_count + timed_out_count + cancelled_count + skipped_count)
                as finished_count,
                -- As decimal numbers, and by way of text with all their digits: so a sum depends on no order of the
                -- rows, and that of one row is what is stored.
                sum(duration_sum_s::text::numeric)::double precision as duration_sum_s,
                min(duration_min_s) as duration_min_s,
                max(duration_max_s) as duration_max_s,
                sum(rows_sum::text::numeric)::double precision as rows_sum,
                sum(bytes_sum::text::numeric)::double precision as bytes_sum
            from part
            group by subject_id
        ),

        held as (
            select subject_id, unnest(duration_buckets) as bucket, unnest(duration_counts) as runs
            from part
        ),

        bucket as (
            select subject_id, bucket, least(sum(runs), 2147483647)::integer as runs
            from held
            group by subject_id, bucket
        ),

        histogram as (
            select
                subject_id,
                array_agg(bucket order by bucket) as buckets,
                array_agg(runs order by bucket) as counts
            from bucket
            group by subject_id
        ),

        subject as (%6$s)

        select
            subject.client_id,
            subject.pipeline_id,
            subject.client,
            subject.client_title,
            subject.pipeline,
            subject.pipeline_title,
            subject.is_archived,
            coalesce(total.started_count, 0),
            coalesce(total.succeeded_count, 0),
            coalesce(total.failed_count, 0),
            coalesce(total.timed_out_count, 0),
            coalesce(total.cancelled_count, 0),
            coalesce(total.skipped_count, 0),
            coalesce(total.finished_count, 0),
            coalesce(total.retried_count, 0),
            coalesce(total.on_time_count, 0),
            coalesce(total.late_count, 0),
            coalesce(total.missed_count, 0),
            analytics.success_rate(total.succeeded_count, total.failed_count, total.timed_out_count),
            analytics.failure_rate(total.succeeded_count, total.failed_count, total.timed_out_count),
            analytics.share(total.retried_count, total.finished_count),
            analytics.share(total.on_time_count, total.on_time_count + total.late_count + total.missed_count),
            coalesce(total.duration_count, 0),
            coalesce(total.duration_sum_s, 0),
            total.duration_sum_s / nullif(total.duration_count, 0),
            total.duration_min_s,
            total.duration_max_s,
            pulsewatch.duration_percentile(
                histogram.buckets, coalesce(histogram.counts, '{}'), 0.5, total.duration_min_s, total.duration_max_s
            ),
            pulsewatch.duration_percentile(
                histogram.buckets, coalesce(histogram.counts, '{}'), 0.95, total.duration_min_s, total.duration_max_s
            ),
            pulsewatch.duration_percentile(
                histogram.buckets, coalesce(histogram.counts, '{}'), 0.99, total.duration_min_s, total.duration_max_s
            ),
            total.rows_sum,
            total.bytes_sum
        from subject
        left join total on total.subject_id = subject.subject_id
        left join histogram on histogram.subject_id = subject.subject_id
        $query$,
        subject_id, columns, level || '_hour', level || '_day', only_these, subjects
    ) using first_hour, first_day, end_day, end_hour, the_client, the_pipeline;
end
$$;

comment on function analytics.summaries(timestamptz, timestamptz, text, text, text) is
'The numbers of the hours (UTC) from that of from_at up to to_at. Level pipeline: one row per pipeline of this client,
or of this one pipeline; client: one row per client, or of this one; fleet: one row. No row if there is no such client or
pipeline, or no time between from_at and to_at. Columns as in analytics.client_hourly; percentiles are those of all runs
together, from the merged histogram, at most 4.5 % off.';
