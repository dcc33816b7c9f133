-- One row per pipeline, archived ones included. Times are UTC, durations are seconds.
-- Read by dashboards for their pipeline filter, and joined to the other objects of this schema by client_id and
-- pipeline_id together.

create or replace view analytics.pipelines
with (security_invoker = true) as
select
    pipeline.client_id,
    pipeline.id as pipeline_id,
    client.slug as client,
    pipeline.slug as pipeline,
    coalesce(pipeline.title, pipeline.name) as pipeline_title,
    pipeline.namespace,
    pipeline.name,
    pipeline.schedule,
    coalesce(pipeline.timezone, 'UTC') as timezone,
    pipeline.start_grace_s,
    pipeline.max_runtime_s,
    array_to_string(pipeline.tags, ', ') as tags,
    pipeline.owner,
    pipeline.environment,
    pipeline.archived_at is not null or client.archived_at is not null as is_archived,
    pipeline.created_at,
    pipeline.updated_at,
    pipeline.archived_at,
    coalesce(client.title, client.slug) as client_title
from pulsewatch.pipeline
inner join pulsewatch.client on pipeline.client_id = client.id;

comment on view analytics.pipelines is
'One row per pipeline: something that runs again and again for a client. Archived ones included.';
comment on column analytics.pipelines.client_id is 'Internal number of the client, for filters and joins.';
comment on column analytics.pipelines.pipeline_id is
'Internal number of the pipeline, for filters and joins, together with client_id.';
comment on column analytics.pipelines.client is 'Slug of its client.';
comment on column analytics.pipelines.pipeline is 'Slug of the pipeline, unique in the client; never changes.';
comment on column analytics.pipelines.pipeline_title is
'Name for people; what the producer calls it where none is given.';
comment on column analytics.pipelines.namespace is 'Namespace, as the producer says it; empty for native events.';
comment on column analytics.pipelines.name is 'Name, as the producer says it.';
comment on column analytics.pipelines.schedule is
'When it should run: five-field cron, an @ form or an interval; null: no schedule.';
comment on column analytics.pipelines.timezone is 'IANA zone in which the schedule is read.';
comment on column analytics.pipelines.start_grace_s is 'How late a start may be. Seconds.';
comment on column analytics.pipelines.max_runtime_s is 'How long a run may take. Seconds.';
comment on column analytics.pipelines.tags is 'Labels in alphabetical order, separated by a comma and a space.';
comment on column analytics.pipelines.owner is 'Who looks after it.';
comment on column analytics.pipelines.environment is 'prod, staging and the like.';
comment on column analytics.pipelines.is_archived is 'True: it or its client is archived; hidden from lists.';
comment on column analytics.pipelines.created_at is 'When it was first seen (UTC).';
comment on column analytics.pipelines.updated_at is 'Last change of what is known about it (UTC).';
comment on column analytics.pipelines.archived_at is 'When it was archived (UTC); null: it is in use.';
comment on column analytics.pipelines.client_title is 'Name of the client for people.';
