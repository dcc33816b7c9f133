-- One row per pipeline and tag, archived pipelines included; none for a pipeline without tags.
-- Read by dashboards for their tag filter; join it to other objects by client_id and pipeline_id together.

create or replace view analytics.pipeline_tags
with (security_invoker = true) as
select
    pipeline.client_id,
    pipeline.id as pipeline_id,
    client.slug as client,
    coalesce(client.title, client.slug) as client_title,
    pipeline.slug as pipeline,
    coalesce(pipeline.title, pipeline.name) as pipeline_title,
    pipeline.environment,
    pipeline.owner,
    labelled.tag,
    pipeline.archived_at is not null or client.archived_at is not null as is_archived
from pulsewatch.pipeline
inner join pulsewatch.client on pipeline.client_id = client.id
cross join lateral unnest(pipeline.tags) as labelled (tag);

comment on view analytics.pipeline_tags is 'One row per pipeline and tag, archived pipelines included.';
comment on column analytics.pipeline_tags.client_id is 'Internal number of the client, for filters and joins.';
comment on column analytics.pipeline_tags.pipeline_id is
'Internal number of the pipeline, for filters and joins, together with client_id.';
comment on column analytics.pipeline_tags.client is 'Slug of the client.';
comment on column analytics.pipeline_tags.client_title is 'Name of the client for people.';
comment on column analytics.pipeline_tags.pipeline is 'Slug of the pipeline, unique in the client.';
comment on column analytics.pipeline_tags.pipeline_title is 'Name of the pipeline for people.';
comment on column analytics.pipeline_tags.environment is 'prod, staging and the like.';
comment on column analytics.pipeline_tags.owner is 'Who looks after the pipeline.';
comment on column analytics.pipeline_tags.tag is 'One label of the pipeline.';
comment on column analytics.pipeline_tags.is_archived is 'True: it or its client is archived; hidden from lists.';
