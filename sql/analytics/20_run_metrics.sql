-- One row per run and metric that it reports, as rows or bytes. Times are UTC.
-- Read by panels of throughput. Filter on client_id (or client), pipeline_id and first_at: that is what the indexes of
-- runs serve; then on metric. Its names are the producer's own.

create or replace view analytics.run_metrics
with (security_invoker = true) as
select
    run.client_id,
    run.pipeline_id,
    client.slug as client,
    coalesce(client.title, client.slug) as client_title,
    pipeline.slug as pipeline,
    coalesce(pipeline.title, pipeline.name) as pipeline_title,
    pipeline.environment,
    pipeline.owner,
    run.id as run_id,
    run.external_id,
    run.status,
    run.first_at,
    run.finished_at,
    item.metric,
    item.amount::double precision as value -- noqa: RF04
from pulsewatch.run
left join pulsewatch.client on run.client_id = client.id
left join pulsewatch.pipeline on run.client_id = pipeline.client_id and run.pipeline_id = pipeline.id
cross join lateral jsonb_each(
    coalesce(run.opening_metrics, '{}') || coalesce(run.winner_metrics, '{}')
) as item (metric, amount);

comment on view analytics.run_metrics is 'One row per run and metric that it reports. Times are UTC.';
comment on column analytics.run_metrics.client_id is 'Internal number of the client, for filters and joins.';
comment on column analytics.run_metrics.pipeline_id is
'Internal number of the pipeline, for filters and joins, together with client_id.';
comment on column analytics.run_metrics.client is 'Slug of the client.';
comment on column analytics.run_metrics.client_title is 'Name of the client for people.';
comment on column analytics.run_metrics.pipeline is 'Slug of the pipeline, unique in the client.';
comment on column analytics.run_metrics.pipeline_title is 'Name of the pipeline for people.';
comment on column analytics.run_metrics.environment is 'prod, staging and the like.';
comment on column analytics.run_metrics.owner is 'Who looks after the pipeline.';
comment on column analytics.run_metrics.run_id is 'The run; joins analytics.runs together with client_id.';
comment on column analytics.run_metrics.external_id is 'What the producer calls the run.';
comment on column analytics.run_metrics.status is
'queued, running, succeeded, failed, cancelled, skipped or timed_out.';
comment on column analytics.run_metrics.first_at is 'Least of the start and of all event times of the run.';
comment on column analytics.run_metrics.finished_at is 'When the run ended; null while it goes on.';
comment on column analytics.run_metrics.metric is 'Name of the metric, as the producer says it.';
comment on column analytics.run_metrics.value is 'Its value: what the winning event says, else the earliest one.';
