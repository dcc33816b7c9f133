-- One row per deploy or note that people want to see beside the runs. Times are UTC.
-- Read by the annotation layer of dashboards. Filter on client_id (or client) and at.

create or replace view analytics.annotations
with (security_invoker = true) as
select
    annotation.client_id,
    annotation.pipeline_id,
    client.slug as client,
    coalesce(client.title, client.slug) as client_title,
    pipeline.slug as pipeline,
    coalesce(pipeline.title, pipeline.name) as pipeline_title,
    pipeline.environment,
    pipeline.owner,
    annotation.id as annotation_id,
    annotation.at,
    annotation.until_at,
    annotation.kind,
    annotation.text,
    annotation.url,
    annotation.created_at
from pulsewatch.annotation
left join pulsewatch.client on annotation.client_id = client.id
left join pulsewatch.pipeline on annotation.client_id = pipeline.client_id and annotation.pipeline_id = pipeline.id;

comment on view analytics.annotations is
'One row per deploy or note that people want to see beside the runs. Times are UTC.';
comment on column analytics.annotations.client_id is 'Internal number of the client, for filters and joins.';
comment on column analytics.annotations.pipeline_id is
'Internal number of the pipeline, for filters and joins, together with client_id; null: it is about all of the client.';
comment on column analytics.annotations.client is 'Slug of the client.';
comment on column analytics.annotations.client_title is 'Name of the client for people.';
comment on column analytics.annotations.pipeline is
'Slug of the pipeline, unique in the client; null: it is about all of the client.';
comment on column analytics.annotations.pipeline_title is 'Name of the pipeline for people.';
comment on column analytics.annotations.environment is 'prod, staging and the like.';
comment on column analytics.annotations.owner is 'Who looks after the pipeline.';
comment on column analytics.annotations.annotation_id is 'Identity of the annotation, as in the API.';
comment on column analytics.annotations.at is 'When it happened, or began.';
comment on column analytics.annotations.until_at is 'When it ended; null: a moment.';
comment on column analytics.annotations.kind is 'deploy or note.';
comment on column analytics.annotations.text is 'What people are told.';
comment on column analytics.annotations.url is 'Where to look further.';
comment on column analytics.annotations.created_at is 'When it was written down.';
