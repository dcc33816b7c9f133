-- One row per span in which a pipeline was failing, from a first failure to the next success. Times are UTC.
-- Read by state timelines and for the time to recovery. Filter on client_id (or client) and began_at.

create or replace view analytics.failing_spans
with (security_invoker = true) as
select
    failing_span.client_id,
    failing_span.pipeline_id,
    client.slug as client,
    coalesce(client.title, client.slug) as client_title,
    pipeline.slug as pipeline,
    coalesce(pipeline.title, pipeline.name) as pipeline_title,
    pipeline.environment,
    pipeline.owner,
    failing_span.run_id,
    failing_span.began_at,
    failing_span.ended_at,
    failing_span.ended_at is null as is_open,
    case
        when failing_span.ended_at is not null then extract(
            epoch from greatest(failing_span.ended_at, failing_span.began_at) - failing_span.began_at
        )::double precision
    end as duration_s,
    failing_span.failure_count,
    failing_span.first_at,
    failing_span.last_first_at
from pulsewatch.failing_span
left join pulsewatch.client on failing_span.client_id = client.id
left join pulsewatch.pipeline on failing_span.client_id = pipeline.client_id and failing_span.pipeline_id = pipeline.id;

comment on view analytics.failing_spans is
'One row per span in which a pipeline was failing: from a failure to the next success. Times are UTC.';
comment on column analytics.failing_spans.client_id is 'Internal number of the client, for filters and joins.';
comment on column analytics.failing_spans.pipeline_id is
'Internal number of the pipeline, for filters and joins, together with client_id.';
comment on column analytics.failing_spans.client is 'Slug of the client.';
comment on column analytics.failing_spans.client_title is 'Name of the client for people.';
comment on column analytics.failing_spans.pipeline is 'Slug of the pipeline, unique in the client.';
comment on column analytics.failing_spans.pipeline_title is 'Name of the pipeline for people.';
comment on column analytics.failing_spans.environment is 'prod, staging and the like.';
comment on column analytics.failing_spans.owner is 'Who looks after the pipeline.';
comment on column analytics.failing_spans.run_id is
'The run that failed first; joins analytics.runs together with client_id.';
comment on column analytics.failing_spans.began_at is 'When that run failed or timed out.';
comment on column analytics.failing_spans.ended_at is 'When the next run succeeded; null while the pipeline fails.';
comment on column analytics.failing_spans.is_open is 'The pipeline still fails.';
comment on column analytics.failing_spans.duration_s is
'ended_at less began_at; 0 where the next success had ended before; null while the pipeline fails. Seconds.';
comment on column analytics.failing_spans.failure_count is
'Runs that failed or timed out in it; cancelled and skipped ones are passed over.';
comment on column analytics.failing_spans.first_at is 'first_at of its first failing run.';
comment on column analytics.failing_spans.last_first_at is 'first_at of its last failing run.';
