-- One row per run and attempt; a run that was never tried again has one row. Times are UTC, durations are seconds.
-- Read by panels of flakiness and of what retries cost. Filter on client_id (or client), pipeline_id and first_at: that
-- is what the indexes of runs serve. The last attempt is the run itself; only runs with a later attempt than the first
-- look for the ones before it among their events, by the key of run_event. They vanish with the events.

create or replace view analytics.run_attempts
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
    run.first_at,
    tried.attempt,
    tried.is_last,
    tried.status,
    tried.status in ('failed', 'timed_out') as is_failed,
    tried.started_at,
    tried.finished_at,
    coalesce(
        tried.said_duration_s,
        case
            when tried.finished_at >= tried.start_at
                then extract(epoch from tried.finished_at - tried.start_at)::double precision
        end
    ) as duration_s,
    tried.error_class,
    tried.message,
    tried.url
from pulsewatch.run
left join pulsewatch.client on run.client_id = client.id
left join pulsewatch.pipeline on run.client_id = pipeline.client_id and run.pipeline_id = pipeline.id
cross join lateral ( -- noqa: ST05
    select
        (run.state_key >> 58)::smallint as attempt,
        true as is_last,
        run.status,
        run.start_at,
        coalesce(run.start_at, run.implied_start_at) as started_at,
        run.finished_at,
        run.said_duration_s,
        run.error_class,
        run.message,
        run.url
    union all
    (
        -- The event with the greatest state key speaks for its attempt, as the winning one does for the run.
        select distinct on (said.attempt)
            said.attempt,
            false as is_last,
            said.status,
            said.start_at,
            coalesce(
                said.start_at,
                case when said.precedence >= 2 then said.occurred_at - make_interval(secs => said.duration_s) end
            ) as started_at,
            case when said.precedence >= 2 then said.occurred_at end as finished_at,
            said.duration_s as said_duration_s,
            said.error_class,
            said.message,
            said.url
        from ( -- noqa: ST05
            select
                coalesce(run_event.attempt, 0::smallint) as attempt,
                run_event.status,
                run_event.occurred_at,
                run_event.dedupe_key,
                run_event.duration_s,
                run_event.error_class,
                run_event.message,
                run_event.url,
                case
                    when run_event.status in ('failed', 'cancelled', 'skipped', 'succeeded') then 3
                    when run_event.status = 'timed_out' then 2
                    when run_event.status = 'running' then 1
                    else 0
                end as precedence,
                case run_event.status
                    when 'failed' then 4
                    when 'cancelled' then 3
                    when 'skipped' then 2
                    when 'succeeded' then 1
                    else 0
                end as badness,
                min(
                    case
                        when run_event.status = 'running' then least(run_event.started_at, run_event.occurred_at)
                        else run_event.started_at
                    end
                ) over (partition by coalesce(run_event.attempt, 0::smallint)) as start_at
            from pulsewatch.run_event
            where
                run.state_key >> 58 > 0
                and run_event.client_id = run.client_id
                and run_event.occurred_at >= run.first_at
                and run_event.occurred_at <= run.last_at
                and run_event.run_id = run.id
                and run_event.status <> 'info'
                and coalesce(run_event.attempt, 0::smallint) < run.state_key >> 58
        ) as said
        order by
            said.attempt asc, said.precedence desc, said.occurred_at desc, said.badness desc, said.dedupe_key desc
    )
) as tried;

comment on view analytics.run_attempts is
'One row per run and attempt; a run that was never tried again has one row. Times are UTC, durations are seconds.';
comment on column analytics.run_attempts.client_id is 'Internal number of the client, for filters and joins.';
comment on column analytics.run_attempts.pipeline_id is
'Internal number of the pipeline, for filters and joins, together with client_id.';
comment on column analytics.run_attempts.client is 'Slug of the client.';
comment on column analytics.run_attempts.client_title is 'Name of the client for people.';
comment on column analytics.run_attempts.pipeline is 'Slug of the pipeline, unique in the client.';
comment on column analytics.run_attempts.pipeline_title is 'Name of the pipeline for people.';
comment on column analytics.run_attempts.environment is 'prod, staging and the like.';
comment on column analytics.run_attempts.owner is 'Who looks after the pipeline.';
comment on column analytics.run_attempts.run_id is 'The run; joins analytics.runs together with client_id.';
comment on column analytics.run_attempts.external_id is 'What the producer calls the run.';
comment on column analytics.run_attempts.first_at is
'Least of the start and of all event times of the run, the same for all its attempts.';
comment on column analytics.run_attempts.attempt is 'Which attempt, 0 for the first.';
comment on column analytics.run_attempts.is_last is 'The winning attempt: it gives the run its state.';
comment on column analytics.run_attempts.status is
'queued, running, succeeded, failed, cancelled, skipped or timed_out, worked out from its events.';
comment on column analytics.run_attempts.is_failed is 'The attempt failed or timed out.';
comment on column analytics.run_attempts.started_at is
'Earliest start of the attempt, else its finish less the said duration; null if unknown.';
comment on column analytics.run_attempts.finished_at is 'When the attempt ended; null if it did not, or never said so.';
comment on column analytics.run_attempts.duration_s is
'What the event that ended the attempt said, else its finish less its start; null if unknown or negative. Seconds.';
comment on column analytics.run_attempts.error_class is 'Kind of failure of the attempt.';
comment on column analytics.run_attempts.message is 'Message of the event that gives the attempt its status.';
comment on column analytics.run_attempts.url is 'Where to look further.';
