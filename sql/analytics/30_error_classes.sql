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
    if pipeline is not null and client is null then
        raise exception 'a pipeline is named together with its client' using errcode = '22023';
    end if;
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
    -- Planned anew for these values: a plan for any client would read the spans of all. In order of time, so that those
    -- of all clients are read where they lie side by side, and not once a client all over the disk.
    return query execute
        $query$
        with begun as (
            select coalesce(error_class, 'unknown') as error_class, client_id, pipeline_id, failure_count
            from pulsewatch.failing_span
            where began_at >= $1
                and began_at < $2
                and ($3 is null or client_id = $3)
                and ($4 is null or pipeline_id = $4)
            order by began_at
        ),

        of_pipeline as (
            select error_class, client_id, pipeline_id, count(*) as span_count, sum(failure_count) as failure_count
            from begun
            group by error_class, client_id, pipeline_id
        )

        select error_class, sum(span_count)::bigint, sum(failure_count)::bigint, count(*)
        from of_pipeline
        group by error_class
        order by sum(span_count) desc, error_class
        $query$
        using from_at, to_at, the_client, the_pipeline;
end
$$;

comment on function analytics.error_classes(timestamptz, timestamptz, text, text) is
'One row per kind of failure (error_class, else the status), the most frequent first:
span_count spans of failure that began with it in the window, failure_count runs that failed in these, pipeline_count
pipelines. For this pipeline of this client, this client (pipeline null) or the fleet (both null).';
