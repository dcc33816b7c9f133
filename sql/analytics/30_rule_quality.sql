-- One row per alert rule that is not deleted: how often it fired in the last 28 days, and what came of it. Times are
-- UTC, durations are seconds. Read to find rules that cry wolf, and rules that never fire. Alerts of dry runs and those
-- worked out from history are counted apart: nobody was told of them.

create or replace view analytics.rule_quality
with (security_invoker = true) as
select
    alert_rule.client_id,
    alert_rule.id as rule_id,
    client.slug as client,
    alert_rule.key as rule,
    coalesce(wording.spec ->> 'title', alert_rule.key) as rule_title,
    alert_rule.kind,
    alert_rule.is_enabled,
    coalesce((wording.spec ->> 'is_dry_run')::boolean, false) as is_dry_run,
    recent.fired_count,
    -- A rule that is younger than that has had less time to fire; one of hours is taken for one of a day.
    recent.fired_count * 7.0::double precision
    / least(greatest(extract(epoch from now() - alert_rule.created_at)::double precision / 86400, 1), 28)
        as fired_per_week,
    recent.critical_count,
    recent.open_count,
    recent.brief_count,
    recent.acknowledged_count,
    analytics.share(recent.brief_count, recent.fired_count) as brief_rate,
    analytics.share(recent.acknowledged_count, recent.fired_count) as acknowledged_rate,
    recent.acknowledge_avg_s,
    recent.resolve_avg_s,
    (
        select max(alert.fired_at)
        from pulsewatch.alert
        where
            alert.rule_id = alert_rule.id
            and not alert.is_dry_run
            and not alert.is_backfill
    ) as last_fired_at,
    recent.dry_run_count,
    recent.backfill_count
from pulsewatch.alert_rule
left join pulsewatch.alert_rule_version as wording
    on alert_rule.id = wording.rule_id and alert_rule.version = wording.version
left join pulsewatch.client on alert_rule.client_id = client.id
cross join
    lateral (
        select
            count(*) filter (where alert.is_told) as fired_count,
            count(*) filter (where alert.is_told and alert.max_level_code = 2) as critical_count,
            count(*) filter (where alert.is_told and alert.is_open) as open_count,
            count(*) filter (where alert.is_told and alert.is_brief) as brief_count,
            count(*) filter (where alert.is_told and alert.is_ever_acknowledged) as acknowledged_count,
            avg(alert.acknowledge_s) filter (where alert.is_told) as acknowledge_avg_s,
            avg(alert.resolve_s) filter (where alert.is_told) as resolve_avg_s,
            count(*) filter (where alert.is_dry_run) as dry_run_count,
            count(*) filter (where alert.is_backfill and not alert.is_dry_run) as backfill_count
        from (
            select
                fired.*,
                not fired.is_dry_run and not fired.is_backfill as is_told
            from analytics.alerts as fired
        ) as alert
        where alert.rule_id = alert_rule.id and alert.fired_at >= now() - interval '672 hours'
    ) as recent
where alert_rule.deleted_at is null;

comment on view analytics.rule_quality is
'One row per alert rule that is not deleted: how often it fired in the last 28 days, and what came of it. Times are
UTC, durations are seconds.';
comment on column analytics.rule_quality.client_id is
'Internal number of the one client whose rule it is; null: it is for all clients.';
comment on column analytics.rule_quality.rule_id is 'Internal number of the alert rule, for filters and joins.';
comment on column analytics.rule_quality.client is 'Slug of that client; null: all.';
comment on column analytics.rule_quality.rule is 'Key of the alert rule.';
comment on column analytics.rule_quality.rule_title is 'Name of the rule for people.';
comment on column analytics.rule_quality.kind is 'Kind of condition.';
comment on column analytics.rule_quality.is_enabled is 'It is evaluated.';
comment on column analytics.rule_quality.is_dry_run is 'It only tries: nobody is told.';
comment on column analytics.rule_quality.fired_count is
'Alerts that fired in the last 28 days, without those of dry runs and those worked out from history.';
comment on column analytics.rule_quality.fired_per_week is
'How many of them in a week: of 28 days, or of the age of a younger rule, a day at least.';
comment on column analytics.rule_quality.critical_count is 'Of these, those that became critical.';
comment on column analytics.rule_quality.open_count is 'Of these, those that are still open.';
comment on column analytics.rule_quality.brief_count is
'Of these, those that recovered by themselves within five minutes.';
comment on column analytics.rule_quality.acknowledged_count is 'Of these, those that somebody took on.';
comment on column analytics.rule_quality.brief_rate is
'Share that recovered by itself within five minutes; null: none fired.';
comment on column analytics.rule_quality.acknowledged_rate is 'Share that somebody took on; null: none fired.';
comment on column analytics.rule_quality.acknowledge_avg_s is
'Mean time from firing until somebody took it on. Seconds.';
comment on column analytics.rule_quality.resolve_avg_s is 'Mean time from firing to resolved. Seconds.';
comment on column analytics.rule_quality.last_fired_at is
'When it last fired; null: never, or longer ago than alerts are kept.';
comment on column analytics.rule_quality.dry_run_count is
'Alerts that fired in the last 28 days while it only tried; they do not count above.';
comment on column analytics.rule_quality.backfill_count is
'Alerts of the last 28 days that were worked out from history; they do not count above.';
