-- One row per client that is in use: how its pipelines are doing now. Times are UTC.
-- Read by dashboards that look for clients that fail, or that have fallen silent.

create or replace view analytics.clients_now
with (security_invoker = true) as
with counted as (
    select
        pipelines_now.client_id,
        count(*) as pipeline_count,
        count(*) filter (where pipelines_now.health = 'failing') as failing_count,
        count(*) filter (where pipelines_now.health = 'missed') as missed_count,
        count(*) filter (where pipelines_now.health = 'late') as late_count,
        sum(pipelines_now.running_count) as running_count,
        max(pipelines_now.last_run_first_at) as last_run_at,
        max(pipelines_now.last_success_at) as last_success_at
    from analytics.pipelines_now
    group by pipelines_now.client_id
)

select
    client.id as client_id,
    client.slug as client,
    coalesce(client.title, client.slug) as client_title,
    coalesce(counted.pipeline_count, 0) as pipeline_count,
    coalesce(counted.failing_count, 0) as failing_count,
    coalesce(counted.missed_count, 0) as missed_count,
    coalesce(counted.late_count, 0) as late_count,
    coalesce(counted.running_count, 0) as running_count,
    counted.last_run_at,
    counted.last_success_at
from pulsewatch.client
left join counted on client.id = counted.client_id
where client.archived_at is null;

comment on view analytics.clients_now is 'One row per client that is in use: how its pipelines are doing now.';
comment on column analytics.clients_now.client_id is 'Internal number of the client, for filters and joins.';
comment on column analytics.clients_now.client is 'Slug of the client.';
comment on column analytics.clients_now.client_title is 'Name of the client for people.';
comment on column analytics.clients_now.pipeline_count is 'Its pipelines that are in use.';
comment on column analytics.clients_now.failing_count is 'Those whose health is failing.';
comment on column analytics.clients_now.missed_count is 'Those whose health is missed.';
comment on column analytics.clients_now.late_count is 'Those whose health is late.';
comment on column analytics.clients_now.running_count is
'Their runs that go on or are queued, among the last 64 of each.';
comment on column analytics.clients_now.last_run_at is
'first_at of the latest run of these pipelines; null: they have none.';
comment on column analytics.clients_now.last_success_at is
'Latest end of a run of these pipelines that succeeded; null: none.';
