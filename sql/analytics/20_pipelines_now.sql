-- One row per pipeline in use: how it is doing now. Times are UTC, durations are seconds.
-- Read by lists of what needs attention and by status grids. Filter on client_id (or client) and health.

create or replace view analytics.pipelines_now
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
    array_to_string(pipeline.tags, ', ') as tags,
    pipeline.schedule,
    coalesce(pipeline.timezone, 'UTC') as timezone,
    -- Once its schedule is gone nothing is expected any more, and no next start would ever make up for a missed one.
    analytics.health(
        state.consecutive_failures,
        case when pipeline.schedule is not null then state.last_slot_status end,
        state.running_count,
        state.last_outcome
    ) as health,
    analytics.health_code(
        analytics.health(
            state.consecutive_failures,
            case when pipeline.schedule is not null then state.last_slot_status end,
            state.running_count,
            state.last_outcome
        )
    ) as health_code,
    coalesce(state.consecutive_failures, 0) > 0 as is_failing,
    state.failing_since,
    coalesce(state.consecutive_failures, 0::smallint) as consecutive_failures,
    coalesce(state.running_count, 0::smallint) as running_count,
    state.running_since,
    state.last_run_id,
    state.last_run_status,
    state.last_run_first_at,
    state.last_outcome_run_id,
    state.last_outcome,
    state.last_finished_at,
    state.last_duration_s,
    state.last_error_class,
    state.last_success_at,
    state.last_slot_at,
    state.last_slot_status,
    state.next_slot_at
from pulsewatch.pipeline
inner join pulsewatch.client on pipeline.client_id = client.id
left join pulsewatch.pipeline_state as state
    on pipeline.client_id = state.client_id and pipeline.id = state.pipeline_id
where pipeline.archived_at is null and client.archived_at is null;

comment on view analytics.pipelines_now is
'One row per pipeline in use: how it is doing now. Archived ones are left out. Times are UTC, durations are seconds.';
comment on column analytics.pipelines_now.client_id is 'Internal number of the client, for filters and joins.';
comment on column analytics.pipelines_now.pipeline_id is
'Internal number of the pipeline, for filters and joins, together with client_id.';
comment on column analytics.pipelines_now.client is 'Slug of the client.';
comment on column analytics.pipelines_now.client_title is 'Name of the client for people.';
comment on column analytics.pipelines_now.pipeline is 'Slug of the pipeline, unique in the client.';
comment on column analytics.pipelines_now.pipeline_title is 'Name of the pipeline for people.';
comment on column analytics.pipelines_now.environment is 'prod, staging and the like.';
comment on column analytics.pipelines_now.owner is 'Who looks after the pipeline.';
comment on column analytics.pipelines_now.tags is 'Labels in alphabetical order, separated by a comma and a space.';
comment on column analytics.pipelines_now.schedule is
'When it should run: five-field cron, an @ form or an interval; null: no schedule.';
comment on column analytics.pipelines_now.timezone is 'IANA zone in which the schedule is read.';
comment on column analytics.pipelines_now.health is
'failing: its last outcome is a failure; else missed or late, as its last expected start (while it has a schedule); else
running; else ok: its last outcome is a success; else unknown.';
comment on column analytics.pipelines_now.health_code is
'The health as a number, the worse the greater: 0 ok, 1 running, 2 unknown, 3 late, 4 missed, 5 failing.';
comment on column analytics.pipelines_now.is_failing is
'Its last outcome is a failure; cancelled and skipped runs are passed over.';
comment on column analytics.pipelines_now.failing_since is
'When the first of the consecutive failures ended; null while it does not fail.';
comment on column analytics.pipelines_now.consecutive_failures is
'Runs that failed or timed out since the last success, 64 at most.';
comment on column analytics.pipelines_now.running_count is 'Runs that go on or are queued, among the last 64.';
comment on column analytics.pipelines_now.running_since is 'Earliest start among these.';
comment on column analytics.pipelines_now.last_run_id is
'Its latest run, by first_at; joins analytics.runs together with client_id.';
comment on column analytics.pipelines_now.last_run_status is 'Status of that run.';
comment on column analytics.pipelines_now.last_run_first_at is 'first_at of that run.';
comment on column analytics.pipelines_now.last_outcome_run_id is 'Its latest run that succeeded, failed or timed out.';
comment on column analytics.pipelines_now.last_outcome is 'Status of that run: succeeded, failed or timed_out.';
comment on column analytics.pipelines_now.last_finished_at is 'When that run ended.';
comment on column analytics.pipelines_now.last_duration_s is 'How long that run took; null if unknown. Seconds.';
comment on column analytics.pipelines_now.last_error_class is 'Kind of failure of that run.';
comment on column analytics.pipelines_now.last_success_at is
'Latest end of any run that succeeded; null if there is none.';
comment on column analytics.pipelines_now.last_slot_at is 'The latest expected start that was judged.';
comment on column analytics.pipelines_now.last_slot_status is 'How it was met: on_time, late or missed.';
comment on column analytics.pipelines_now.next_slot_at is 'The next expected start; null: no schedule.';
