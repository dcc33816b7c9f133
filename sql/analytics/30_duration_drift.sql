-- One row per pipeline in use that ran in the last seven days: its last run beside what is usual for it.
-- Times are UTC, durations are seconds. Read by lists of what has become slow or suspiciously quick.
-- Usual is the mean over the seven whole days (UTC) before today, from the rollups of days.

create or replace view analytics.duration_drift
with (security_invoker = true) as
with usual as (
    select
        pipeline_day.client_id,
        pipeline_day.pipeline_id,
        sum(pipeline_day.duration_count) as usual_count,
        sum(pipeline_day.duration_sum_s) / nullif(sum(pipeline_day.duration_count), 0) as usual_duration_s
    from pulsewatch.pipeline_day
    where
        pipeline_day.day_utc >= date_trunc('day', current_timestamp, 'UTC') - interval '7 days'
        and pipeline_day.day_utc < date_trunc('day', current_timestamp, 'UTC')
    group by pipeline_day.client_id, pipeline_day.pipeline_id
)

select
    pipelines_now.client_id,
    pipelines_now.pipeline_id,
    pipelines_now.client,
    pipelines_now.client_title,
    pipelines_now.pipeline,
    pipelines_now.pipeline_title,
    pipelines_now.environment,
    pipelines_now.owner,
    pipelines_now.last_outcome_run_id as last_run_id,
    pipelines_now.last_outcome,
    pipelines_now.last_finished_at,
    pipelines_now.last_duration_s,
    usual.usual_duration_s,
    usual.usual_count,
    pipelines_now.last_duration_s / nullif(usual.usual_duration_s, 0) as duration_ratio
from analytics.pipelines_now
inner join usual
    on pipelines_now.client_id = usual.client_id and pipelines_now.pipeline_id = usual.pipeline_id;

comment on view analytics.duration_drift is
'One row per pipeline in use that ran in the last seven days: its last run beside what is usual for it.';
comment on column analytics.duration_drift.client_id is 'Internal number of the client, for filters and joins.';
comment on column analytics.duration_drift.pipeline_id is
'Internal number of the pipeline, for filters and joins, together with client_id.';
comment on column analytics.duration_drift.client is 'Slug of the client.';
comment on column analytics.duration_drift.client_title is 'Name of the client for people.';
comment on column analytics.duration_drift.pipeline is 'Slug of the pipeline, unique in the client.';
comment on column analytics.duration_drift.pipeline_title is 'Name of the pipeline for people.';
comment on column analytics.duration_drift.environment is 'prod, staging and the like.';
comment on column analytics.duration_drift.owner is 'Who looks after the pipeline.';
comment on column analytics.duration_drift.last_run_id is
'The last run that ended in an outcome; joins analytics.runs together with client_id.';
comment on column analytics.duration_drift.last_outcome is 'How it ended: succeeded, failed or timed_out.';
comment on column analytics.duration_drift.last_finished_at is 'When it ended.';
comment on column analytics.duration_drift.last_duration_s is 'How long it took; null if that is unknown. Seconds.';
comment on column analytics.duration_drift.usual_duration_s is
'Mean duration of the runs that ended in the seven whole days before today. Seconds.';
comment on column analytics.duration_drift.usual_count is 'Of how many runs that is the mean.';
comment on column analytics.duration_drift.duration_ratio is
'last_duration_s / usual_duration_s: 2 is twice as long as usual; null where one is unknown or 0.';
