-- One row per accepted event, an immutable fact about a run. Times are UTC, durations are seconds.
-- Read by people who ask what a run's producer said, and when. Filter on client_id and occurred_at: that is what
-- the key and the monthly partitions serve. Runs, with their state worked out, are in analytics.runs.

create or replace view analytics.run_events
with (security_invoker = true) as
select
    run_event.client_id,
    run_event.pipeline_id,
    run_event.run_id,
    client.slug as client,
    pipeline.slug as pipeline,
    run_event.occurred_at,
    run_event.received_at,
    extract(epoch from run_event.received_at - run_event.occurred_at)::double precision as arrival_lag_s,
    run_event.status,
    run_event.attempt,
    run_event.started_at,
    run_event.scheduled_at,
    run_event.duration_s,
    run_event.event_id,
    run_event.error_class,
    run_event.message,
    run_event.url,
    run_event.flags & 1 <> 0 as is_assumed_utc,
    run_event.flags & 2 <> 0 as is_scheduled_at_ignored,
    coalesce(client.title, client.slug) as client_title,
    coalesce(pipeline.title, pipeline.name) as pipeline_title,
    pipeline.environment,
    pipeline.owner
from pulsewatch.run_event
left join pulsewatch.client on run_event.client_id = client.id
left join pulsewatch.pipeline
    on run_event.client_id = pipeline.client_id and run_event.pipeline_id = pipeline.id;

comment on view analytics.run_events is
'One row per accepted event: what a producer said about a run, and when. Times are UTC, durations are seconds.';
comment on column analytics.run_events.client_id is 'Internal number of the client, for filters and joins.';
comment on column analytics.run_events.pipeline_id is 'Internal number of the pipeline, for filters and joins.';
comment on column analytics.run_events.run_id is 'The run it is about; joins analytics.runs together with client_id.';
comment on column analytics.run_events.client is 'Slug of the client whose event it is.';
comment on column analytics.run_events.pipeline is 'Slug of its pipeline, unique in the client.';
comment on column analytics.run_events.occurred_at is 'When it happened, as the producer says.';
comment on column analytics.run_events.received_at is 'When PulseWatch stored it.';
comment on column analytics.run_events.arrival_lag_s is
'received_at less occurred_at; negative where the producer''s clock is ahead. Seconds.';
comment on column analytics.run_events.status is
'queued, running, succeeded, failed, cancelled, skipped, timed_out, or info, which changes no status.';
comment on column analytics.run_events.attempt is 'Which attempt it is about, 0 for the first; null counts as 0.';
comment on column analytics.run_events.started_at is 'Start of the run, where the event says it.';
comment on column analytics.run_events.scheduled_at is 'When the run was due, where the event says it.';
comment on column analytics.run_events.duration_s is 'Duration of the run, where the event says it. Seconds.';
comment on column analytics.run_events.event_id is 'The producer''s own id of the event, where it gives one.';
comment on column analytics.run_events.error_class is 'Kind of failure.';
comment on column analytics.run_events.message is 'What the producer says for people.';
comment on column analytics.run_events.url is 'Where to look further.';
comment on column analytics.run_events.is_assumed_utc is 'Its time came without an offset and was taken as UTC.';
comment on column analytics.run_events.is_scheduled_at_ignored is
'Its scheduled_at lay outside 2000 to now + 400 days and was dropped.';
comment on column analytics.run_events.client_title is 'Name of the client for people.';
comment on column analytics.run_events.pipeline_title is 'Name of the pipeline for people.';
comment on column analytics.run_events.environment is 'prod, staging and the like.';
comment on column analytics.run_events.owner is 'Who looks after the pipeline.';
