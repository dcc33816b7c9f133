-- One row per run: the only definition of its status, start, duration and flags.
-- Times are timestamptz (UTC), durations are seconds. Read by the API, Grafana and Metabase.
-- Filter on client_id (and pipeline_id) and first_at: that is what the indexes serve.

create or replace view analytics.runs
with (security_invoker = true) as
select
    run.client_id,
    run.pipeline_id,
    run.id as run_id,
    client.slug as client,
    pipeline.slug as pipeline,
    run.external_id,
    run.status,
    case run.status
        when 'succeeded' then 0
        when 'skipped' then 1
        when 'queued' then 2
        when 'running' then 3
        when 'cancelled' then 4
        when 'timed_out' then 5
        when 'failed' then 6
    end::smallint as status_code,
    (run.state_key >> 58)::smallint as attempt,
    run.first_at,
    coalesce(run.winner_scheduled_at, run.opening_scheduled_at) as scheduled_at,
    coalesce(run.start_at, run.implied_start_at) as started_at,
    run.finished_at,
    coalesce(
        run.said_duration_s,
        case
            when run.finished_at >= run.start_at
                then extract(epoch from run.finished_at - run.start_at)::double precision
        end
    ) as duration_s,
    run.error_class,
    run.message,
    run.url,
    coalesce(run.finished_at < run.start_at, false) as is_finish_before_start,
    coalesce(run.latest_start_at > run.earliest_end_at + interval '1 hour', false) as is_external_id_reused,
    run.flags & 1 <> 0 as is_assumed_utc,
    run.flags & 2 <> 0 as is_scheduled_at_ignored,
    coalesce(run.winner_parent, run.opening_parent) ->> 'namespace' as parent_namespace,
    coalesce(run.winner_parent, run.opening_parent) ->> 'pipeline' as parent_pipeline,
    coalesce(run.winner_parent, run.opening_parent) ->> 'run' as parent_external_id,
    run.last_at,
    coalesce(client.title, client.slug) as client_title,
    coalesce(pipeline.title, pipeline.name) as pipeline_title,
    pipeline.environment,
    pipeline.owner,
    run.status in ('failed', 'timed_out') as is_failed,
    extract(
        epoch from coalesce(run.start_at, run.implied_start_at)
        - coalesce(run.winner_scheduled_at, run.opening_scheduled_at)
    )::double precision as start_delay_s,
    coalesce(run.winner_metrics -> 'rows', run.opening_metrics -> 'rows')::double precision as rows, -- noqa: RF04
    coalesce(run.winner_metrics -> 'bytes', run.opening_metrics -> 'bytes')::double precision as bytes
from pulsewatch.run
left join pulsewatch.client on run.client_id = client.id
left join pulsewatch.pipeline on run.client_id = pipeline.client_id and run.pipeline_id = pipeline.id;

comment on view analytics.runs is
'One row per run: one execution of a pipeline. Times are UTC, durations are seconds.';
comment on column analytics.runs.client_id is 'Internal number of the client, for filters and joins.';
comment on column analytics.runs.pipeline_id is 'Internal number of the pipeline, for filters and joins.';
comment on column analytics.runs.run_id is 'Identity of the run; the same in any order of arrival.';
comment on column analytics.runs.client is 'Slug of the client whose run it is.';
comment on column analytics.runs.pipeline is 'Slug of its pipeline, unique in the client.';
comment on column analytics.runs.external_id is 'What the producer calls the run.';
comment on column analytics.runs.status is
'queued, running, succeeded, failed, cancelled, skipped or timed_out.';
comment on column analytics.runs.status_code is
'The status as a number for panels: 0 succeeded, 1 skipped, 2 queued, 3 running, 4 cancelled, 5 timed_out, 6 failed.';
comment on column analytics.runs.attempt is 'The winning attempt, 0 for the first.';
comment on column analytics.runs.first_at is
'Least of the start and of all event times; lists sort and filter by it.';
comment on column analytics.runs.scheduled_at is 'When it was due, where a producer said so.';
comment on column analytics.runs.started_at is
'Earliest start of the winning attempt, else finish less the said duration; null if unknown.';
comment on column analytics.runs.finished_at is 'When it ended; null while it goes on.';
comment on column analytics.runs.duration_s is
'What the winning event said, else finish less start; null if unknown or negative. Seconds.';
comment on column analytics.runs.error_class is 'Kind of failure, as the winning event says.';
comment on column analytics.runs.message is 'Message of the winning event.';
comment on column analytics.runs.url is 'Where to look further, as the winning event says.';
comment on column analytics.runs.is_finish_before_start is 'The producer''s times run backwards.';
comment on column analytics.runs.is_external_id_reused is
'Started again more than an hour after it had ended, under the same id and attempt.';
comment on column analytics.runs.is_assumed_utc is 'Some event had a time without an offset; taken as UTC.';
comment on column analytics.runs.is_scheduled_at_ignored is
'Some event had a scheduled_at outside 2000 to now + 400 days; it was dropped.';
comment on column analytics.runs.parent_namespace is 'Namespace of the pipeline whose run started this one.';
comment on column analytics.runs.parent_pipeline is 'Name of the pipeline whose run started this one.';
comment on column analytics.runs.parent_external_id is 'The run that started this one, as its producer calls it.';
comment on column analytics.runs.last_at is 'Time of its latest event.';
comment on column analytics.runs.client_title is 'Name of the client for people.';
comment on column analytics.runs.pipeline_title is 'Name of the pipeline for people.';
comment on column analytics.runs.environment is 'prod, staging and the like.';
comment on column analytics.runs.owner is 'Who looks after the pipeline.';
comment on column analytics.runs.is_failed is 'It failed or timed out.';
comment on column analytics.runs.start_delay_s is
'started_at less scheduled_at; negative where it started early; null if either is unknown. Seconds.';
comment on column analytics.runs.rows is
'The metric rows; null if not reported. All metrics are in analytics.run_metrics.';
comment on column analytics.runs.bytes is 'The metric bytes; null if it is not reported.';
