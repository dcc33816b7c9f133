-- One row per kind of failure: in how many spans of failure it came first. For bars of the most frequent ones.
-- Spans, not runs, so that a pipeline that fails every minute does not drown the others.

create or replace function analytics.error_classes(
    from_at timestamptz, to_at timestamptz, client text default null, pipeline text default null
)
returns table (error_class text, span_count bigint, failure_count bigint, pipeline_count bigint)
language plpgsql stable
as $$
#variable_conflict use_column
declare
    the_client bigint;
    the_pipeline bigint;
begin
    if client is not null then
        select client.id into the_client from pulsewatch.client where client.slug = error_classes.client;
        if the_client is null then
            return;
        end if;
    end if;
    if pipeline is not null then
        select pipeline.id into the_pipeline from pulsewatch.pipeline
        where pipeline.client_id = the_client and pipeline.slug = error_classes.pipeline;
        if the_pipeline is null then
            return;
        end if;
    end if;
    return query
    select
        coalesce(run.error_class, run.status),
        count(*),
        sum(span.failure_count),
        count(distinct (span.client_id, span.pipeline_id))
    from pulsewatch.failing_span as span
    inner join pulsewatch.run on span.client_id = run.client_id and span.run_id = run.id
    where span.began_at >= error_classes.from_at
        and span.began_at < error_classes.to_at
        and (the_client is null or span.client_id = the_client)
        and (the_pipeline is null or span.pipeline_id = the_pipeline)
    group by coalesce(run.error_class, run.status)
    order by count(*) desc, coalesce(run.error_class, run.status);
end
$$;

comment on function analytics.error_classes(timestamptz, timestamptz, text, text) is
'One row per kind of failure (error_class, else the status), the most frequent first: span_count spans of failure that
began with it in the window, failure_count runs that failed in these, pipeline_count pipelines. For this pipeline of
this client, this client (pipeline null) or the fleet (both null).';
