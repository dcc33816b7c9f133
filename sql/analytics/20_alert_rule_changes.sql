-- One row per version of an alert rule, those of deleted rules included: who changed what, and what it said from then
-- on. Times are UTC, durations are seconds. Read beside alerts: what became better or worse, and since which change.

create or replace view analytics.alert_rule_changes
with (security_invoker = true) as
select
    alert_rule.client_id,
    alert_rule.id as rule_id,
    client.slug as client,
    alert_rule.key as rule,
    coalesce(wording.spec ->> 'title', alert_rule.key) as rule_title,
    wording.version,
    wording.created_at as changed_at,
    wording.change,
    (
        select string_agg(said.field, ', ' order by said.field)
        from jsonb_each(wording.spec) as said (field, value)
        where
            previous.spec is not null
            and (previous.spec -> said.field) is distinct from said.value
    ) as changed_fields,
    wording.author,
    wording.comment,
    wording.spec ->> 'kind' as kind,
    coalesce((wording.spec ->> 'is_enabled')::boolean, true) as is_enabled,
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
    wording.version = alert_rule.version and alert_rule.deleted_at is null as is_in_force
from pulsewatch.alert_rule_version as wording
inner join pulsewatch.alert_rule on wording.rule_id = alert_rule.id
left join pulsewatch.alert_rule_version as previous
    on wording.rule_id = previous.rule_id and wording.version = previous.version + 1
left join pulsewatch.client on alert_rule.client_id = client.id;

comment on view analytics.alert_rule_changes is
'One row per version of an alert rule: who changed what, and what it said from then on. Times are UTC, durations are
seconds.';
comment on column analytics.alert_rule_changes.client_id is
'Internal number of the one client whose rule it is; null: it is for all clients.';
comment on column analytics.alert_rule_changes.rule_id is 'Internal number of the alert rule, for filters and joins.';
comment on column analytics.alert_rule_changes.client is 'Slug of that client; null: all.';
comment on column analytics.alert_rule_changes.rule is 'Key of the alert rule.';
comment on column analytics.alert_rule_changes.rule_title is 'Name of the rule for people, by this version.';
comment on column analytics.alert_rule_changes.version is 'Counts from 1.';
comment on column analytics.alert_rule_changes.changed_at is 'When this version was made.';
comment on column analytics.alert_rule_changes.change is
'created, changed, enabled, disabled, dry_run, restored or deleted.';
comment on column analytics.alert_rule_changes.changed_fields is
'Fields that say something else than in the version before, separated by a comma and a space.';
comment on column analytics.alert_rule_changes.author is 'Who did it: the name of a key.';
comment on column analytics.alert_rule_changes.comment is 'Why, in their words.';
comment on column analytics.alert_rule_changes.kind is 'Kind of condition.';
comment on column analytics.alert_rule_changes.is_enabled is 'It was evaluated.';
comment on column analytics.alert_rule_changes.is_dry_run is
'It only tried: alerts were written down, nobody was told.';
comment on column analytics.alert_rule_changes.warning_threshold is
'From this value on it is a warning, in the unit of the kind; null: no such level.';
comment on column analytics.alert_rule_changes.critical_threshold is
'From this value on it is critical, in the unit of the kind; null: no such level.';
comment on column analytics.alert_rule_changes.for_s is
'For how long the condition must hold before it fires. Seconds.';
comment on column analytics.alert_rule_changes.keep_firing_s is
'For how long it must be good before it is resolved. Seconds.';
comment on column analytics.alert_rule_changes.recover_consecutive is 'So many good samples in a row resolve it.';
comment on column analytics.alert_rule_changes.on_no_data is
'Where there is nothing to measure: keep, ok, no_data or alert.';
comment on column analytics.alert_rule_changes.on_error is 'Where it cannot be evaluated: keep or alert.';
comment on column analytics.alert_rule_changes.evaluation_delay_s is
'It looks at the time before so many seconds. Seconds.';
comment on column analytics.alert_rule_changes.new_target_grace_s is 'A new pipeline does not fire before. Seconds.';
comment on column analytics.alert_rule_changes.repeat_s is
'Told again after so many seconds while it lasts; null: never.';
comment on column analytics.alert_rule_changes.channels is 'Keys of the channels, separated by a comma and a space.';
comment on column analytics.alert_rule_changes.of_clients is 'Patterns of clients that it picks; null: any.';
comment on column analytics.alert_rule_changes.of_pipelines is 'Patterns of pipelines; null: any.';
comment on column analytics.alert_rule_changes.of_tags is 'Patterns of tags; null: any.';
comment on column analytics.alert_rule_changes.of_owners is 'Patterns of owners; null: any.';
comment on column analytics.alert_rule_changes.of_environments is 'Patterns of environments; null: any.';
comment on column analytics.alert_rule_changes.runbook_url is 'What to do when it fires.';
comment on column analytics.alert_rule_changes.is_in_force is 'It is the version that holds.';
