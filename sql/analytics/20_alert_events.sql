-- One row per alert event: a transition of an alert, or what somebody did about it. Times are UTC. Read by the history
-- of an alert. Filter on client_id (or client) and occurred_at, or on alert_id together with client_id.

create or replace view analytics.alert_events
with (security_invoker = true) as
select
    alert_event.client_id,
    alert_event.pipeline_id,
    client.slug as client,
    coalesce(client.title, client.slug) as client_title,
    pipeline.slug as pipeline,
    coalesce(pipeline.title, pipeline.name) as pipeline_title,
    pipeline.environment,
    pipeline.owner,
    alert_event.alert_id,
    alert_event.rule_id,
    alert_rule.key as rule,
    coalesce(wording.spec ->> 'title', alert_rule.key) as rule_title,
    alert_event.rule_version,
    alert_event.as_of as occurred_at,
    alert_event.seq,
    alert_event.kind,
    alert_event.from_state,
    alert_event.state,
    analytics.alert_level(alert_event.prev_level) as prev_level,
    alert_event.prev_level as prev_level_code,
    analytics.alert_level(alert_event.level) as level,
    alert_event.level as level_code,
    alert_event.value,
    alert_event.threshold,
    alert_event.reason,
    alert_event.actor,
    alert_event.comment,
    (alert_event.evidence -> 'runs' ->> 0)::uuid as run_id,
    jsonb_array_length(alert_event.evidence -> 'runs') as run_count,
    (
        select run.url
        from pulsewatch.run
        where run.client_id = alert_event.client_id and run.id = (alert_event.evidence -> 'runs' ->> 0)::uuid
    ) as run_url,
    alert_event.known_at,
    alert_event.recorded_at,
    alert_event.is_backfill
from pulsewatch.alert_event
left join pulsewatch.alert_rule on alert_event.rule_id = alert_rule.id
left join pulsewatch.alert_rule_version as wording
    on alert_event.rule_id = wording.rule_id and alert_event.rule_version = wording.version
left join pulsewatch.client on alert_event.client_id = client.id
left join pulsewatch.pipeline on alert_event.client_id = pipeline.client_id and alert_event.pipeline_id = pipeline.id;

comment on view analytics.alert_events is
'One row per alert event: a transition of an alert, or what somebody did about it. Times are UTC.';
comment on column analytics.alert_events.client_id is
'Internal number of the client, for filters and joins; 0: the fleet as a whole.';
comment on column analytics.alert_events.pipeline_id is
'Internal number of the pipeline, for filters and joins, together with client_id; 0: the client as a whole.';
comment on column analytics.alert_events.client is 'Slug of the client.';
comment on column analytics.alert_events.client_title is 'Name of the client for people.';
comment on column analytics.alert_events.pipeline is
'Slug of the pipeline, unique in the client; null: the client as a whole.';
comment on column analytics.alert_events.pipeline_title is 'Name of the pipeline for people.';
comment on column analytics.alert_events.environment is 'prod, staging and the like.';
comment on column analytics.alert_events.owner is 'Who looks after the pipeline.';
comment on column analytics.alert_events.alert_id is
'The alert; joins analytics.alerts together with client_id. An episode that never fired has no alert.';
comment on column analytics.alert_events.rule_id is 'Internal number of the alert rule, for filters and joins.';
comment on column analytics.alert_events.rule is 'Key of the alert rule.';
comment on column analytics.alert_events.rule_title is 'Name of the rule for people.';
comment on column analytics.alert_events.rule_version is 'Version of the rule.';
comment on column analytics.alert_events.occurred_at is 'The time that it speaks of.';
comment on column analytics.alert_events.seq is 'Counts the events of the alert, from 1.';
comment on column analytics.alert_events.kind is
'pending, pending_cleared, fired, level_changed, recovering, refired, resolved, no_data, data_back, error,
error_cleared; of people: acknowledged, unacknowledged, snoozed, commented.';
comment on column analytics.alert_events.from_state is
'State before: ok, pending, firing, recovering, no_data or error.';
comment on column analytics.alert_events.state is 'State after.';
comment on column analytics.alert_events.prev_level is 'Level before: warning or critical; null: none.';
comment on column analytics.alert_events.prev_level_code is 'Level before as a number: 0 none, 1 warning, 2 critical.';
comment on column analytics.alert_events.level is 'Level after: warning or critical; null: none.';
comment on column analytics.alert_events.level_code is 'Level after as a number: 0 none, 1 warning, 2 critical.';
comment on column analytics.alert_events.value is 'What was measured, in the unit of the rule''s kind.';
comment on column analytics.alert_events.threshold is 'What it was held against, in the same unit.';
comment on column analytics.alert_events.reason is
'Why, where it was not what was measured: rule_changed, rule_deleted, rule_disabled, target_removed.';
comment on column analytics.alert_events.actor is 'Who did it: the name of a key; null: PulseWatch.';
comment on column analytics.alert_events.comment is 'What they said.';
comment on column analytics.alert_events.run_id is
'The newest run that it rests on; joins analytics.runs together with client_id.';
comment on column analytics.alert_events.run_count is
'Runs that it names as evidence, ten at most; the API lists them.';
comment on column analytics.alert_events.run_url is 'Address of the newest run, as the producer gave it.';
comment on column analytics.alert_events.known_at is 'Events of runs that were received before then were known.';
comment on column analytics.alert_events.recorded_at is 'When it was written down.';
comment on column analytics.alert_events.is_backfill is 'It was worked out afterwards, from history.';
