-- One row per alert rule that is not deleted: what it says now, what it watches, and what it finds. Times are UTC,
-- durations are seconds. Read by lists of rules.

create or replace view analytics.alert_rules_now
with (security_invoker = true) as
select
    alert_rule.client_id,
    alert_rule.id as rule_id,
    client.slug as client,
    alert_rule.key as rule,
    coalesce(wording.spec ->> 'title', alert_rule.key) as rule_title,
    alert_rule.kind,
    alert_rule.version,
    alert_rule.is_enabled,
    coalesce((wording.spec ->> 'is_dry_run')::boolean, false) as is_dry_run,
    (wording.spec -> 'levels' ->> 'warning')::double precision as warning_threshold,
    (wording.spec -> 'levels' ->> 'critical')::double precision as critical_threshold,
    (wording.spec ->> 'for_s')::double precision as for_s,
    (wording.spec ->> 'keep_firing_s')::double precision as keep_firing_s,
    (wording.spec ->> 'recover_consecutive')::integer as recover_consecutive,
    wording.spec ->> 'on_no_data' as on_no_data,
    wording.spec ->> 'on_error' as on_error,
    (wording.spec ->> 'evaluation_delay_s')::double precision as evaluation_delay_s,
    (wording.spec ->> 'new_target_grace_s')::double precision as new_target_grace_s,
    (wording.spec ->> 'repeat_s')::double precision as repeat_s,
    (
        select string_agg(item.word, ', ' order by item.place)
        from jsonb_array_elements_text(wording.spec -> 'channels') with ordinality as item (word, place)
    ) as channels,
    (
        select string_agg(item.word, ', ' order by item.place)
        from jsonb_array_elements_text(wording.spec -> 'selector' -> 'clients') with ordinality as item (word, place)
    ) as of_clients,
    (
        select string_agg(item.word, ', ' order by item.place)
        from jsonb_array_elements_text(wording.spec -> 'selector' -> 'pipelines') with ordinality as item (word, place)
    ) as of_pipelines,
    (
        select string_agg(item.word, ', ' order by item.place)
        from jsonb_array_elements_text(wording.spec -> 'selector' -> 'tags') with ordinality as item (word, place)
    ) as of_tags,
    (
        select string_agg(item.word, ', ' order by item.place)
        from jsonb_array_elements_text(wording.spec -> 'selector' -> 'owners') with ordinality as item (word, place)
    ) as of_owners,
    (
        select string_agg(item.word, ', ' order by item.place)
        from
            jsonb_array_elements_text(wording.spec -> 'selector' -> 'environments') with ordinality
                as item (word, place)
    ) as of_environments,
    wording.spec ->> 'runbook_url' as runbook_url,
    watched.target_count,
    watched.warning_count,
    watched.critical_count,
    watched.pending_count,
    watched.no_data_count,
    watched.error_count,
    (
        select max(alert.fired_at)
        from pulsewatch.alert
        where alert.rule_id = alert_rule.id
    ) as last_fired_at,
    alert_rule.created_at,
    alert_rule.updated_at,
    wording.author
from pulsewatch.alert_rule
left join pulsewatch.alert_rule_version as wording
    on alert_rule.id = wording.rule_id and alert_rule.version = wording.version
left join pulsewatch.client on alert_rule.client_id = client.id
cross join
    lateral (
        select
            count(*) as target_count,
            count(*) filter (where target.level = 1) as warning_count,
            count(*) filter (where target.level = 2) as critical_count,
            count(*) filter (where target.state = 'pending') as pending_count,
            count(*) filter (where target.state = 'no_data') as no_data_count,
            count(*) filter (where target.state = 'error') as error_count
        from pulsewatch.alert_target as target
        where target.rule_id = alert_rule.id
    ) as watched
where alert_rule.deleted_at is null;

comment on view analytics.alert_rules_now is
'One row per alert rule that is not deleted: what it says now, what it watches, and what it finds. Times are UTC,
durations are seconds.';
comment on column analytics.alert_rules_now.client_id is
'Internal number of the one client whose rule it is; null: it is for all clients.';
comment on column analytics.alert_rules_now.rule_id is 'Internal number of the alert rule, for filters and joins.';
comment on column analytics.alert_rules_now.client is 'Slug of that client; null: all.';
comment on column analytics.alert_rules_now.rule is 'Key of the alert rule.';
comment on column analytics.alert_rules_now.rule_title is 'Name of the rule for people.';
comment on column analytics.alert_rules_now.kind is 'Kind of condition.';
comment on column analytics.alert_rules_now.version is 'The version that holds.';
comment on column analytics.alert_rules_now.is_enabled is 'It is evaluated.';
comment on column analytics.alert_rules_now.is_dry_run is 'It only tries: alerts are written down, nobody is told.';
comment on column analytics.alert_rules_now.warning_threshold is
'From this value on it is a warning, in the unit of the kind; null: no such level.';
comment on column analytics.alert_rules_now.critical_threshold is
'From this value on it is critical, in the unit of the kind; null: no such level.';
comment on column analytics.alert_rules_now.for_s is 'For how long the condition must hold before it fires. Seconds.';
comment on column analytics.alert_rules_now.keep_firing_s is
'For how long it must be good before it is resolved. Seconds.';
comment on column analytics.alert_rules_now.recover_consecutive is 'So many good samples in a row resolve it.';
comment on column analytics.alert_rules_now.on_no_data is
'Where there is nothing to measure: keep, ok, no_data or alert.';
comment on column analytics.alert_rules_now.on_error is 'Where it cannot be evaluated: keep or alert.';
comment on column analytics.alert_rules_now.evaluation_delay_s is
'It looks at the time before so many seconds. Seconds.';
comment on column analytics.alert_rules_now.new_target_grace_s is 'A new pipeline does not fire before. Seconds.';
comment on column analytics.alert_rules_now.repeat_s is 'Told again after so many seconds while it lasts; null: never.';
comment on column analytics.alert_rules_now.channels is 'Keys of the channels, separated by a comma and a space.';
comment on column analytics.alert_rules_now.of_clients is 'Patterns of clients that it picks; null: any.';
comment on column analytics.alert_rules_now.of_pipelines is 'Patterns of pipelines; null: any.';
comment on column analytics.alert_rules_now.of_tags is 'Patterns of tags; null: any.';
comment on column analytics.alert_rules_now.of_owners is 'Patterns of owners; null: any.';
comment on column analytics.alert_rules_now.of_environments is 'Patterns of environments; null: any.';
comment on column analytics.alert_rules_now.runbook_url is 'What to do when it fires.';
comment on column analytics.alert_rules_now.target_count is 'Pipelines (or clients) that it watches.';
comment on column analytics.alert_rules_now.warning_count is 'Of these, those with an open warning.';
comment on column analytics.alert_rules_now.critical_count is 'Of these, those with an open critical alert.';
comment on column analytics.alert_rules_now.pending_count is
'Of these, those where the condition holds, not yet for long enough.';
comment on column analytics.alert_rules_now.no_data_count is 'Of these, those with nothing to measure.';
comment on column analytics.alert_rules_now.error_count is 'Of these, those where it cannot be evaluated.';
comment on column analytics.alert_rules_now.last_fired_at is
'When it last fired; null: never, or longer ago than alerts are kept.';
comment on column analytics.alert_rules_now.created_at is 'When its first version was made.';
comment on column analytics.alert_rules_now.updated_at is 'When the version that holds was made.';
comment on column analytics.alert_rules_now.author is 'Who made that version: the name of a key.';
