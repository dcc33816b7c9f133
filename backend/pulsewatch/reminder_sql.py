"""The statements of reminders: what was held back, what is to be told again, and whom nobody told."""

from pulsewatch.delivery_sql import IS_TOLD

# Over while its channel was off: told where somebody was told that it went on.
SET_FREE = f"""
with ended as (
    select held.client_id, held.id, held.alert_id, held.channel_id, held.reason, held.expires_at, channel.deleted_at
    from pulsewatch.notification as held
    join pulsewatch.channel on channel.id = held.channel_id
    left join pulsewatch.alert on alert.client_id = held.client_id and alert.id = held.alert_id
    where held.status = 'held'
        and (channel.is_enabled or channel.deleted_at is not null)
        and (alert.id is null or alert.resolved_at is not null)
),

told as (
    select distinct notification.client_id, notification.alert_id, notification.channel_id
    from ended
    join pulsewatch.notification
        on notification.client_id = ended.client_id
        and notification.alert_id = ended.alert_id
        and notification.channel_id = ended.channel_id
    where notification.reason <> 'resolved' and {IS_TOLD}
)

update pulsewatch.notification
set
    status = case
        when ended.reason = 'resolved' and told.alert_id is not null and ended.deleted_at is null
            and ended.expires_at > %(as_of)s then 'pending'
        else 'dropped'
    end,
    next_attempt_at = %(as_of)s
from ended
left join told
    on told.client_id = ended.client_id and told.alert_id = ended.alert_id and told.channel_id = ended.channel_id
where notification.client_id = ended.client_id and notification.id = ended.id
"""

_ALERT = """
    alert.client_id,
    alert.id as alert_id,
    alert.rule_id,
    alert.pipeline_id,
    alert.level,
    alert.value,
    alert.threshold,
    alert.summary,
    alert.fired_at,
    alert.acknowledged_at,
    alert.snoozed_until,
    last.id,
    newest.id as newest_id,
    last.channel_id,
    last.event_as_of,
    last.event_seq,
    last.body
"""

# Of whatever became of it: what comes next is named after it, and a name is not given twice.
_NEWEST = """
cross join lateral (
    select said.id
    from pulsewatch.notification as said
    where said.client_id = last.client_id and said.alert_id = last.alert_id and said.channel_id = last.channel_id
    order by said.created_at desc, said.event_seq desc, said.id
    limit 1
) as newest
"""

# The last message that is held back of each alert that goes on, by channel.
HELD = f"""
select distinct on (last.client_id, last.alert_id, last.channel_id)
{_ALERT}
from pulsewatch.notification as last
join pulsewatch.alert on alert.client_id = last.client_id and alert.id = last.alert_id
{_NEWEST}
where last.status = 'held' and last.reason <> 'resolved' and alert.resolved_at is null
order by last.client_id, last.alert_id, last.channel_id, last.created_at desc, last.event_seq desc, last.id
"""

# The last message of each alert that goes on, by channel, where the rule's interval has passed since and none is
# waiting. One that was given up counts from when it was written.
DUE = f"""
with going_on as (
    select
        alert.*,
        (version.spec ->> 'repeat_s')::double precision as repeat_s
    from pulsewatch.alert
    join pulsewatch.alert_rule as rule on rule.id = alert.rule_id
    join pulsewatch.alert_rule_version as version
        on version.rule_id = rule.id and version.version = rule.version
    where alert.resolved_at is null
        and not alert.is_dry_run
        and not version.spec @> '{{"is_dry_run": true}}'
        and alert.acknowledged_at is null
        and (alert.snoozed_until is null or alert.snoozed_until <= %(as_of)s)
        and alert.fired_at
            <= %(as_of)s::timestamptz - make_interval(secs => (version.spec ->> 'repeat_s')::double precision)
),

last as (
    select distinct on (said.client_id, said.alert_id, said.channel_id)
        said.client_id, said.alert_id, said.id, said.channel_id, said.event_as_of, said.event_seq, said.body,
        said.status, coalesce(said.sent_at, said.created_at) as told_at
    from going_on
    join pulsewatch.notification as said on said.client_id = going_on.client_id and said.alert_id = going_on.id
    where said.status in ('held', 'pending', 'leased', 'sent', 'dead') and said.reason <> 'resolved'
    order by
        said.client_id, said.alert_id, said.channel_id, said.status in ('held', 'pending', 'leased') desc,
        coalesce(said.sent_at, said.created_at) desc, said.id
)

select
{_ALERT}
from going_on as alert
join last on last.client_id = alert.client_id and last.alert_id = alert.id
{_NEWEST}
where last.status in ('sent', 'dead') and last.told_at <= %(as_of)s::timestamptz - make_interval(secs => alert.repeat_s)
order by alert.client_id, alert.id, last.channel_id
"""

# Alerts that go on, with each channel that was never told and has no message waiting: the rule names it, or it was
# made, since the alert fired, or what was for it went when it was deleted.
UNTOLD = """
select
    alert.client_id,
    alert.id as alert_id,
    alert.rule_id,
    alert.pipeline_id,
    alert.level,
    alert.max_level,
    alert.value,
    alert.threshold,
    alert.summary,
    alert.fired_at,
    alert.acknowledged_at,
    alert.snoozed_until,
    alert.labels,
    alert.annotations,
    channel.id as channel_id,
    event.as_of as event_as_of,
    event.seq as event_seq,
    event.prev_level,
    event.runs,
    (
        select said.id
        from pulsewatch.notification as said
        where said.client_id = alert.client_id and said.alert_id = alert.id and said.channel_id = channel.id
        order by said.created_at desc, said.event_seq desc, said.id
        limit 1
    ) as newest_id
from pulsewatch.alert
join pulsewatch.alert_rule as rule on rule.id = alert.rule_id
join pulsewatch.alert_rule_version as version on version.rule_id = rule.id and version.version = rule.version
cross join lateral (
    select distinct listed.key from jsonb_array_elements_text(version.spec -> 'channels') as listed (key)
) as named
cross join lateral (
    select channel.id, channel.created_at
    from pulsewatch.channel
    where channel.key = named.key
        and channel.deleted_at is null
        and (channel.client_id is null or channel.client_id = rule.client_id)
    order by channel.client_id
    limit 1
) as channel
cross join lateral (
    select told.as_of, told.seq, told.prev_level, told.is_backfill, told.evidence -> 'runs' as runs
    from pulsewatch.alert_event as told
    where told.client_id = alert.client_id
        and told.alert_id = alert.id
        and told.as_of >= alert.fired_at
        and told.kind in ('fired', 'level_changed')
    order by told.seq desc
    limit 1
) as event
where alert.resolved_at is null
    and not alert.is_dry_run
    and not version.spec @> '{"is_dry_run": true}'
    and not event.is_backfill
    and greatest(version.created_at, channel.created_at) > alert.fired_at
    and not exists (
        select
        from pulsewatch.notification as said
        where said.client_id = alert.client_id
            and said.alert_id = alert.id
            and said.channel_id = channel.id
            and said.status in ('held', 'pending', 'leased', 'sent', 'dead')
            and said.reason <> 'resolved'
    )
order by alert.client_id, alert.id, channel.id
"""

# What waits to be sent still, of alerts that somebody may have taken on, put off or silenced since it was made, or
# whose rule only tries by now.
WAITING = """
select
    alert.client_id, alert.rule_id, alert.pipeline_id, alert.level, alert.acknowledged_at, alert.snoozed_until, last.id
from pulsewatch.notification as last
join pulsewatch.alert on alert.client_id = last.client_id and alert.id = last.alert_id
where last.status = 'pending'
    and last.reason <> 'resolved'
    and last.created_at < %(as_of)s
    and alert.resolved_at is null
    and (
        alert.acknowledged_at is not null
        or alert.snoozed_until > %(as_of)s
        or exists (
            select
            from pulsewatch.alert_rule as rule
            join pulsewatch.alert_rule_version as version
                on version.rule_id = rule.id and version.version = rule.version
            where rule.id = alert.rule_id and version.spec @> '{"is_dry_run": true}'
        )
        or exists (
            select
            from pulsewatch.silence
            where silence.starts_at <= %(now)s
                and silence.ends_at > %(as_of)s
                and (silence.client_id is null or silence.client_id = alert.client_id)
        )
    )
order by last.client_id, last.id
"""

# Mostly there is nothing, and one statement tells so. To find out who was not told takes longer; nobody can have been
# left out where neither the rule nor any channel has changed since the alert fired.
IS_ANYTHING = f"""
select
    exists (select from pulsewatch.notification where status = 'held')
    or exists ({DUE})
    or exists ({WAITING}) as is_anything,
    exists (
        select
        from pulsewatch.alert
        join pulsewatch.alert_rule as rule on rule.id = alert.rule_id
        join pulsewatch.alert_rule_version as version on version.rule_id = rule.id and version.version = rule.version
        where alert.resolved_at is null
            and not alert.is_dry_run
            and (
                version.created_at > alert.fired_at
                or exists (
                    select
                    from pulsewatch.channel
                    where channel.deleted_at is null and channel.created_at > alert.fired_at
                )
            )
    ) as may_be_untold
"""
IS_UNTOLD = f"select exists ({UNTOLD})"

HOLD = """
update pulsewatch.notification as waiting
set status = 'held', held_by = overlay.held_by, silence_id = overlay.silence_id
from unnest(%(client_ids)s::bigint[], %(ids)s::uuid[], %(held_by)s::text[], %(silence_ids)s::uuid[])
    as overlay (client_id, id, held_by, silence_id)
where waiting.client_id = overlay.client_id and waiting.id = overlay.id and waiting.status = 'pending'
"""

DROP = """
update pulsewatch.notification as held
set status = 'dropped'
from unnest(%(client_ids)s::bigint[], %(alert_ids)s::uuid[], %(channel_ids)s::bigint[])
    as unwanted (client_id, alert_id, channel_id)
where held.client_id = unwanted.client_id
    and held.alert_id = unwanted.alert_id
    and held.channel_id = unwanted.channel_id
    and held.status = 'held'
"""
