-- One row per expected start of a scheduled pipeline, those ahead included. Times are UTC, durations are seconds.
-- Read by panels that hold expected against actual starts. Filter on client_id (or client), pipeline_id and slot_at.

create or replace view analytics.slots
with (security_invoker = true) as
select
    slot.client_id,
    slot.pipeline_id,
    client.slug as client,
    coalesce(client.title, client.slug) as client_title,
    pipeline.slug as pipeline,
    coalesce(pipeline.title, pipeline.name) as pipeline_title,
    pipeline.environment,
    pipeline.owner,
    slot.slot_at,
    slot.deadline_at,
    slot.status,
    case slot.status
        when 'on_time' then 0
        when 'open' then 1
        when 'late' then 2
        when 'missed' then 3
    end::smallint as status_code,
    slot.status = 'late' as is_late,
    slot.status = 'missed' as is_missed,
    slot.run_id,
    slot.started_at,
    extract(epoch from slot.started_at - slot.slot_at)::double precision as delay_s
from pulsewatch.slot
left join pulsewatch.client on slot.client_id = client.id
left join pulsewatch.pipeline on slot.client_id = pipeline.client_id and slot.pipeline_id = pipeline.id;

comment on view analytics.slots is
'One row per expected start of a scheduled pipeline, met or not. Times are UTC, durations are seconds.';
comment on column analytics.slots.client_id is 'Internal number of the client, for filters and joins.';
comment on column analytics.slots.pipeline_id is
'Internal number of the pipeline, for filters and joins, together with client_id.';
comment on column analytics.slots.client is 'Slug of the client.';
comment on column analytics.slots.client_title is 'Name of the client for people.';
comment on column analytics.slots.pipeline is 'Slug of the pipeline, unique in the client.';
comment on column analytics.slots.pipeline_title is 'Name of the pipeline for people.';
comment on column analytics.slots.environment is 'prod, staging and the like.';
comment on column analytics.slots.owner is 'Who looks after the pipeline.';
comment on column analytics.slots.slot_at is 'When a start was expected.';
comment on column analytics.slots.deadline_at is 'A later start is late.';
comment on column analytics.slots.status is
'open, on_time, late or missed; open: the deadline is ahead and no run has come.';
comment on column analytics.slots.status_code is
'The status as a number for panels: 0 on_time, 1 open, 2 late, 3 missed.';
comment on column analytics.slots.is_late is 'A run came after the deadline.';
comment on column analytics.slots.is_missed is
'No run came, and the deadline is over; one that comes yet makes it late.';
comment on column analytics.slots.run_id is 'The run that took it; joins analytics.runs together with client_id.';
comment on column analytics.slots.started_at is 'When that run started.';
comment on column analytics.slots.delay_s is
'started_at less slot_at; negative where the run came early; null without a run. Seconds.';
