-- One row per alert: an episode of one rule on one pipeline, from firing to resolved. Times are UTC, durations are
-- seconds. Read by lists of what is wrong and by the times to acknowledge and to resolve. Filter on client_id (or
-- client) and fired_at; the counts are looked up for each row that is shown.

create or replace view analytics.alerts
with (security_invoker = true) as
select
    alert.client_id,
    alert.pipeline_id,
    client.slug as client,
    coalesce(client.title, client.slug) as client_title,
    pipeline.slug as pipeline,
    coalesce(pipeline.title, pipeline.name) as pipeline_title,
    pipeline.environment,
    pipeline.owner,
    alert.id as alert_id,
    alert.rule_id,
    alert_rule.key as rule,
    coalesce(wording.spec ->> 'title', alert_rule.key) as rule_title,
    wording.spec ->> 'kind' as rule_kind,
    alert.rule_version,
    analytics.alert_level(alert.level) as level,
    alert.level as level_code,
    analytics.alert_level(alert.max_level) as max_level,
    alert.max_level as max_level_code,
    alert.resolved_at is null as is_open,
    alert.acknowledged_at is not null as is_acknowledged,
    coalesce(
        alert.resolve_reason = 'recovered'
        and alert.first_acknowledged_at is null
        and alert.resolved_at < alert.fired_at + interval '5 minutes',
        false
    ) as is_brief,
    alert.pending_at,
    alert.fired_at,
    alert.acknowledged_at,
    alert.acknowledged_by,
    alert.snoozed_until as snoozed_until_at,
    alert.resolved_at,
    alert.resolve_reason,
    extract(epoch from alert.fired_at - alert.pending_at)::double precision as pending_s,
    extract(epoch from alert.first_acknowledged_at - alert.fired_at)::double precision as acknowledge_s,
    extract(epoch from alert.resolved_at - alert.fired_at)::double precision as resolve_s,
    alert.value,
    alert.threshold,
    alert.summary,
    wording.spec ->> 'runbook_url' as runbook_url,
    (
        select count(*)
        from pulsewatch.alert_event
        where alert_event.client_id = alert.client_id and alert_event.alert_id = alert.id
    ) as event_count,
    (
        select count(*)
        from pulsewatch.notification
        where notification.client_id = alert.client_id and notification.alert_id = alert.id
    ) as notification_count,
    (
        select count(*)
        from pulsewatch.notification
        where
            notification.client_id = alert.client_id
            and notification.alert_id = alert.id
            and notification.status = 'sent'
    ) as sent_count,
    alert.is_backfill,
    alert.is_dry_run,
    alert.first_acknowledged_at,
    alert.first_acknowledged_at is not null as is_ever_acknowledged
from pulsewatch.alert
left join pulsewatch.alert_rule on alert.rule_id = alert_rule.id
left join pulsewatch.alert_rule_version as wording
    on alert.rule_id = wording.rule_id and alert.rule_version = wording.version
left join pulsewatch.client on alert.client_id = client.id
left join pulsewatch.pipeline on alert.client_id = pipeline.client_id and alert.pipeline_id = pipeline.id;

comment on view analytics.alerts is
'One row per alert: an episode of one rule on one pipeline, from firing to resolved. Times are UTC, durations are
seconds.';
comment on column analytics.alerts.client_id is
'Internal number of the client, for filters and joins; 0: the fleet as a whole.';
comment on column analytics.alerts.pipeline_id is
'Internal number of the pipeline, for filters and joins, together with client_id; 0: the client as a whole.';
comment on column analytics.alerts.client is 'Slug of the client.';
comment on column analytics.alerts.client_title is 'Name of the client for people.';
comment on column analytics.alerts.pipeline is
'Slug of the pipeline, unique in the client; null: the client as a whole.';
comment on column analytics.alerts.pipeline_title is 'Name of the pipeline for people.';
comment on column analytics.alerts.environment is 'prod, staging and the like.';
comment on column analytics.alerts.owner is 'Who looks after the pipeline.';
comment on column analytics.alerts.alert_id is 'Identity of the alert, as in the API.';
comment on column analytics.alerts.rule_id is 'Internal number of the alert rule, for filters and joins.';
comment on column analytics.alerts.rule is 'Key of the alert rule.';
comment on column analytics.alerts.rule_title is 'Name of the rule for people.';
comment on column analytics.alerts.rule_kind is 'Kind of condition, of the version that fired.';
comment on column analytics.alerts.rule_version is 'Version of the rule that fired.';
comment on column analytics.alerts.level is 'warning or critical: the last one told.';
comment on column analytics.alerts.level_code is 'The level as a number: 1 warning, 2 critical.';
comment on column analytics.alerts.max_level is 'warning or critical: the highest so far.';
comment on column analytics.alerts.max_level_code is 'The highest level as a number: 1 warning, 2 critical.';
comment on column analytics.alerts.is_open is 'It is not resolved yet.';
comment on column analytics.alerts.is_acknowledged is
'Somebody has it, or had it when it was resolved; false again once it got worse or was given back.';
comment on column analytics.alerts.is_brief is 'It recovered by itself within five minutes: nobody had taken it on.';
comment on column analytics.alerts.pending_at is 'When the condition began to hold; null where that is unknown.';
comment on column analytics.alerts.fired_at is 'When it fired.';
comment on column analytics.alerts.acknowledged_at is
'When somebody took it on; null again once it got worse or was given back.';
comment on column analytics.alerts.acknowledged_by is 'Who took it on.';
comment on column analytics.alerts.snoozed_until_at is 'Until then nobody is told again, unless it gets worse.';
comment on column analytics.alerts.resolved_at is 'When it ended; null while it is open.';
comment on column analytics.alerts.resolve_reason is
'recovered, rule_changed, rule_deleted, rule_disabled or target_removed; null while it is open.';
comment on column analytics.alerts.pending_s is
'fired_at less pending_at: for how long the condition had held. Seconds.';
comment on column analytics.alerts.acknowledge_s is
'first_acknowledged_at less fired_at; null until somebody takes it on. Seconds.';
comment on column analytics.alerts.resolve_s is 'resolved_at less fired_at; null while it is open. Seconds.';
comment on column analytics.alerts.value is 'What was measured when it last changed, in the unit of the rule''s kind.';
comment on column analytics.alerts.threshold is 'The threshold of its level, in the same unit.';
comment on column analytics.alerts.summary is 'What is the matter, in one sentence.';
comment on column analytics.alerts.runbook_url is 'What to do, by the rule.';
comment on column analytics.alerts.event_count is 'Events of it: what happened to it, and what people did.';
comment on column analytics.alerts.notification_count is 'Messages about it, also those that were held back.';
comment on column analytics.alerts.sent_count is 'Messages about it that were sent.';
comment on column analytics.alerts.is_backfill is
'It was worked out afterwards, from history; nobody was told that it fired.';
comment on column analytics.alerts.is_dry_run is 'Its rule only tries: nobody was told.';
comment on column analytics.alerts.first_acknowledged_at is
'When somebody first took it on, whatever came of it; null: nobody did.';
comment on column analytics.alerts.is_ever_acknowledged is 'Somebody took it on, now or before.';
