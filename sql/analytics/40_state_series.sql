-- The same as pipeline_states, of one pipeline, one client or all.

create or replace function analytics.state_series(
    from_at timestamptz, to_at timestamptz, of_client text default null, of_pipeline text default null
)
returns table (
    at timestamptz,
    client text,
    pipeline text,
    state_code smallint,
    state text,
    client_id bigint,
    pipeline_id bigint
)
language plpgsql stable
as $$
begin
    return query
    select *
    from analytics.pipeline_states(
        from_at, to_at, of_client, variadic case when of_pipeline is not null then array[of_pipeline] end
    );
end
$$;

comment on function analytics.state_series(timestamptz, timestamptz, text, text) is
'One row per pipeline and change of its health from from_at up to to_at, in order of time, and one at from_at itself:
the health it had by then. Of one pipeline of a client, of the client (of_pipeline null) or of all (both null); archived
pipelines only where named; no row if there is no such client or pipeline. Columns: at; client and pipeline, their slugs;
state (ok, unknown, late, missed or failing); state_code, as health_code in analytics.pipelines_now; client_id;
pipeline_id.';
