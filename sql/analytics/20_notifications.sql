-- One row per message to a channel: why, when, how often it was tried, and what became of it; never what it says.
-- Times are UTC, durations are seconds. Read by lists of what was told. Filter on client_id (or client) and
-- created_at; what is told of the attempts is looked up for each row that is shown.

create or replace view analytics.notifications
with (security_invoker = true) as
select
    notification.client_id,
    alert.pipeline_id,
    client.slug as client,
    coalesce(client.title, client.slug) as client_title,
    pipeline.slug as pipeline,
    coalesce(pipeline.title, pipeline.name) as pipeline_title,
    pipeline.environment,
    pipeline.owner,
    notification.id as notification_id,
    notification.alert_id,
    alert.rule_id,
    alert_rule.key as rule,
    notification.channel_id,
    channel.key as channel,
    coalesce(channel.title, channel.key) as channel_title,
    channel.kind as channel_kind,
    notification.reason,
    notification.status,
    case notification.status
        when 'sent' then 0
        when 'pending' then 1
        when 'leased' then 2
        when 'held' then 3
        when 'superseded' then 4
        when 'dropped' then 5
        when 'dead' then 6
    end::smallint as status_code,
    notification.held_by,
    notification.silence_id,
    notification.event_as_of as event_at,
    notification.created_at,
    notification.next_attempt_at,
    notification.expires_at,
    notification.sent_at,
    -- The event of a message that repeats, or that catches up, lies long before it.
    extract(
        epoch from notification.sent_at
        - case
            when notification.reason in ('fired', 'level_changed', 'resolved') then notification.event_as_of
            else notification.created_at
        end
    )::double precision as send_s,
    notification.attempt_count,
    -- The day keeps the older months out of it; clocks do not differ by as much.
    (
        select min(attempt.started_at)
        from pulsewatch.notification_attempt as attempt
        where
            attempt.client_id = notification.client_id
            and attempt.notification_id = notification.id
            and attempt.started_at >= notification.created_at - interval '1 day'
    ) as first_attempt_at,
    (
        select max(attempt.started_at)
        from pulsewatch.notification_attempt as attempt
        where
            attempt.client_id = notification.client_id
            and attempt.notification_id = notification.id
            and attempt.started_at >= notification.created_at - interval '1 day'
    ) as last_attempt_at,
    (
        select attempt.outcome
        from pulsewatch.notification_attempt as attempt
        where
            attempt.client_id = notification.client_id
            and attempt.notification_id = notification.id
            and attempt.started_at >= notification.created_at - interval '1 day'
        order by attempt.n desc
        limit 1
    ) as last_outcome,
    (
        select attempt.http_status
        from pulsewatch.notification_attempt as attempt
        where
            attempt.client_id = notification.client_id
            and attempt.notification_id = notification.id
            and attempt.started_at >= notification.created_at - interval '1 day'
        order by attempt.n desc
        limit 1
    ) as last_http_status,
    analytics.last_error(notification.client_id, notification.id) as last_error
from pulsewatch.notification
left join pulsewatch.channel on notification.channel_id = channel.id
left join pulsewatch.alert
    on notification.client_id = alert.client_id and notification.alert_id = alert.id
left join pulsewatch.alert_rule on alert.rule_id = alert_rule.id
left join pulsewatch.client on notification.client_id = client.id
left join pulsewatch.pipeline on alert.client_id = pipeline.client_id and alert.pipeline_id = pipeline.id;

comment on view analytics.notifications is
'One row per message to a channel: why, when, how often it was tried, and what became of it. Times are UTC, durations
are seconds.';
comment on column analytics.notifications.client_id is
'Internal number of the client, for filters and joins; 0: the fleet as a whole.';
comment on column analytics.notifications.pipeline_id is
'Internal number of the pipeline, for filters and joins, together with client_id; 0: the client as a whole.';
comment on column analytics.notifications.client is 'Slug of the client.';
comment on column analytics.notifications.client_title is 'Name of the client for people.';
comment on column analytics.notifications.pipeline is
'Slug of the pipeline, unique in the client; null: the client as a whole.';
comment on column analytics.notifications.pipeline_title is 'Name of the pipeline for people.';
comment on column analytics.notifications.environment is 'prod, staging and the like.';
comment on column analytics.notifications.owner is 'Who looks after the pipeline.';
comment on column analytics.notifications.notification_id is
'Identity of the message, as in the API; the receiver sees it.';
comment on column analytics.notifications.alert_id is
'The alert; joins analytics.alerts together with client_id; null: a test.';
comment on column analytics.notifications.rule_id is 'Internal number of the alert rule, for filters and joins.';
comment on column analytics.notifications.rule is 'Key of the alert rule.';
comment on column analytics.notifications.channel_id is 'Internal number of the channel, for filters and joins.';
comment on column analytics.notifications.channel is 'Key of the channel.';
comment on column analytics.notifications.channel_title is 'Name of the channel for people.';
comment on column analytics.notifications.channel_kind is 'webhook, email, slack and the like.';
comment on column analytics.notifications.reason is 'fired, level_changed, repeat, resolved, catch_up or test.';
comment on column analytics.notifications.status is
'sent, pending, leased (being sent), held, superseded (by a newer one), dropped (held for good) or dead (given up).';
comment on column analytics.notifications.status_code is
'The status as a number for panels: 0 sent, 1 pending, 2 leased, 3 held, 4 superseded, 5 dropped, 6 dead.';
comment on column analytics.notifications.held_by is
'Why it was held back: silence, acknowledged, snoozed, dry_run, backfill, channel_disabled or untold (it was over before
anybody was told).';
comment on column analytics.notifications.silence_id is 'The silence that held it back; joins analytics.silences_log.';
comment on column analytics.notifications.event_at is 'The time of the alert event that it is about.';
comment on column analytics.notifications.created_at is 'When it was written.';
comment on column analytics.notifications.next_attempt_at is 'Not tried before then.';
comment on column analytics.notifications.expires_at is 'From then on it is given up.';
comment on column analytics.notifications.sent_at is 'When the receiver took it; null: it has not.';
comment on column analytics.notifications.send_s is
'sent_at less event_at; of repeats, catch-ups and tests less created_at. Seconds.';
comment on column analytics.notifications.attempt_count is 'Attempts so far.';
comment on column analytics.notifications.first_attempt_at is 'When the first attempt began.';
comment on column analytics.notifications.last_attempt_at is 'When the last one began.';
comment on column analytics.notifications.last_outcome is 'How it went: sent, retry, permanent or lost (nobody knows).';
comment on column analytics.notifications.last_http_status is 'Status of the answer to it, where there was one.';
comment on column analytics.notifications.last_error is 'Why it failed; a client''s reader is not told.';
