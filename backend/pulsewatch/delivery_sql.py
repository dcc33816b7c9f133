"""The statements of delivery: what is claimed, how it is settled, what is given up.

Whoever changes notifications that are there already holds DELIVERY_LOCK: so a claim sees all that others have
claimed, rates hold across workers, and two that change several rows never wait for each other. It is held for
milliseconds; nothing is sent meanwhile.
"""

DELIVERY_LOCK = "select pg_advisory_xact_lock(hashtext('pulsewatch.delivery'))"

# Whether the receiver knows of it, or may: an attempt that nobody answered may have arrived, and one that was answered
# by 5xx too, by a proxy that did not wait or by a receiver that failed later.
MAY_BE_KNOWN = """(
    notification.status in ('leased', 'sent')
    or (
        notification.attempt_count > 0
        and exists (
            select
            from pulsewatch.notification_attempt as attempt
            where attempt.client_id = notification.client_id
                and attempt.notification_id = notification.id
                and attempt.outcome in ('retry', 'lost')
                and (attempt.http_status is null or attempt.http_status >= 500)
        )
    )
)"""
# Whether the receiver knows of it, or will, or may.
IS_TOLD = f"(notification.status = 'pending' or {MAY_BE_KNOWN})"

IS_ANYTHING = "select exists (select from pulsewatch.notification where status in ('pending', 'leased'))"

MAKE_ROOM = """
select pulsewatch.ensure_partition(day)
from (values (%(as_of)s::date), ((%(as_of)s::timestamptz + interval '1 day')::date)) as coming (day)
where to_regclass('pulsewatch.notification_attempt_' || to_char(day, 'YYYY_MM')) is null
"""

# What became of an attempt that was never settled is not known.
_INSERT_LOST = """
    insert into pulsewatch.notification_attempt (
        client_id, started_at, notification_id, n, latency_s, outcome, error
    )
    select
        client_id, lost_until - %(lease)s::interval, id, lost_n, extract(epoch from %(lease)s::interval)::float8,
        'lost', 'The worker that sent it did not say what became of it.'
    from {source}
    where lost_until is not null
    order by client_id, lost_until, id, lost_n
    on conflict (client_id, started_at, notification_id, n) do nothing
"""

# Of channels that are gone or off, and of what nobody wants to hear any more.
SWEEP = f"""
with overdue as (
    select
        notification.client_id,
        notification.id,
        notification.attempt_count as lost_n,
        notification.lease_until as lost_until,
        case
            when channel.deleted_at is not null then 'dropped'
            when notification.expires_at <= %(as_of)s then 'dead'
            else 'held'
        end as status
    from pulsewatch.notification
    join pulsewatch.channel on channel.id = notification.channel_id
    where notification.status in ('pending', 'leased')
        and (notification.status = 'pending' or notification.lease_until <= %(as_of)s)
        and (
            channel.deleted_at is not null
            or notification.expires_at <= %(as_of)s
            or (not channel.is_enabled and notification.reason <> 'test')
        )
),

swept as (
    update pulsewatch.notification
    set
        status = overdue.status,
        held_by = case overdue.status when 'held' then 'channel_disabled' end,
        lease_token = null,
        lease_until = null,
        last_error = case
            when overdue.status <> 'dead' then notification.last_error
            else coalesce(
                'Given up, its time is over. ' || notification.last_error, 'Its time was over before it was sent.'
            )
        end
    from overdue
    where notification.client_id = overdue.client_id and notification.id = overdue.id
    returning
        notification.client_id, notification.id, notification.alert_id, notification.channel_id, notification.reason,
        notification.status, overdue.lost_n, overdue.lost_until
),

lost as ({_INSERT_LOST.format(source="swept")})

select client_id, alert_id, channel_id
from swept
where status = 'dead' and reason not in ('resolved', 'test')
order by client_id, alert_id, channel_id
"""

# Of the messages of an alert to a channel one at a time goes out: what is on its way, else the oldest that says that it
# goes on, and only then that it is over. Channels take turns; a rate counts attempts of the last minute and what is on
# its way. A channel that nobody answered at is tried with one message at a time until somebody does, and so many of
# them at once at most: else those that hang would keep all senders. A lease that has run out is taken over.
CLAIM = f"""
with backlog as (
    select
        notification.client_id,
        notification.id,
        notification.channel_id,
        notification.reason,
        notification.status,
        notification.attempt_count,
        notification.next_attempt_at,
        notification.lease_until,
        notification.lease_token,
        notification.created_at,
        row_number() over (
            partition by
                notification.client_id, coalesce(notification.alert_id, notification.id), notification.channel_id
            order by
                notification.status = 'leased' desc, notification.reason = 'resolved', notification.created_at,
                notification.event_seq, notification.id
        ) as place
    from pulsewatch.notification
    where notification.status in ('pending', 'leased')
),

under_way as (
    select channel_id, count(*) as message_count
    from backlog
    where status = 'leased' and lease_until > %(as_of)s
    group by channel_id
),

recent as (
    select notification.channel_id, count(*) as attempt_count
    from pulsewatch.notification_attempt as attempt
    join pulsewatch.notification
        on notification.client_id = attempt.client_id and notification.id = attempt.notification_id
    where attempt.started_at > %(as_of)s::timestamptz - interval '1 minute'
    group by notification.channel_id
),

due as (
    select
        backlog.client_id,
        backlog.id,
        backlog.status,
        backlog.attempt_count,
        backlog.lease_until,
        backlog.lease_token,
        backlog.next_attempt_at,
        channel.unanswered_since is not null as is_probe,
        least(
            channel.rate_per_min - coalesce(recent.attempt_count, 0),
            case when channel.unanswered_since is null then %(per_channel)s else 1 end
        ) - coalesce(under_way.message_count, 0) as room,
        row_number() over (
            partition by backlog.channel_id order by backlog.next_attempt_at, backlog.created_at, backlog.id
        ) as turn
    from backlog
    join pulsewatch.channel on channel.id = backlog.channel_id
    left join under_way on under_way.channel_id = backlog.channel_id
    left join recent on recent.channel_id = backlog.channel_id
    where backlog.place = 1
        and backlog.next_attempt_at <= %(as_of)s
        and (backlog.status = 'pending' or backlog.lease_until <= %(as_of)s)
        and (channel.is_enabled or backlog.reason = 'test')
        and channel.deleted_at is null
        and (channel.quiet_until is null or channel.quiet_until <= %(as_of)s)
        and channel.id <> all(%(busy)s::bigint[])
),

ready as (
    select
        due.*,
        row_number() over (partition by due.is_probe order by due.next_attempt_at, due.id) as place
    from due
    where due.turn <= due.room
),

chosen as (
    select client_id, id, status, attempt_count, lease_until, lease_token
    from ready
    where not is_probe or place <= %(probes)s - (
        select count(*)
        from under_way
        join pulsewatch.channel on channel.id = under_way.channel_id
        where channel.unanswered_since is not null
    )
    order by turn, next_attempt_at, id
    limit %(limit)s
),

claimed as (
    update pulsewatch.notification
    set
        status = 'leased',
        lease_token = %(token)s,
        lease_until = %(as_of)s::timestamptz + %(lease)s::interval,
        attempt_count = notification.attempt_count + 1
    from chosen
    where notification.client_id = chosen.client_id
        and notification.id = chosen.id
        and notification.status = chosen.status
        and notification.lease_token is not distinct from chosen.lease_token
    returning
        notification.client_id, notification.id, notification.channel_id, notification.alert_id, notification.reason,
        notification.attempt_count, notification.body, notification.rest, notification.next_attempt_at,
        notification.created_at, chosen.attempt_count as lost_n, chosen.lease_until as lost_until
),

lost as ({_INSERT_LOST.format(source="claimed")})

select
    claimed.client_id, claimed.id, claimed.channel_id, claimed.alert_id, claimed.reason, claimed.attempt_count,
    claimed.lost_until is not null as is_taken_over, claimed.body, channel.kind, channel.config, channel.secrets,
    claimed.rest
from claimed
join pulsewatch.channel on channel.id = claimed.channel_id
order by claimed.channel_id, claimed.next_attempt_at, claimed.created_at, claimed.id
"""

# What the first message of an alert that a channel took is called there.
THREADS = """
select distinct on (first.client_id, first.alert_id, first.channel_id)
    first.client_id, first.alert_id, first.channel_id, first.provider_ref
from unnest(%(client_ids)s::bigint[], %(alert_ids)s::uuid[], %(channel_ids)s::bigint[])
    as wanted (client_id, alert_id, channel_id)
join pulsewatch.notification as first
    on first.client_id = wanted.client_id and first.alert_id = wanted.alert_id
    and first.channel_id = wanted.channel_id
where first.status = 'sent' and first.provider_ref is not null
order by first.client_id, first.alert_id, first.channel_id, first.sent_at, first.id
"""

# Whoever took over a lease says what became of it, and nobody else.
SETTLE = """
with said as (
    select
        client_id, id, lease_token, outcome, started_at, latency_s, http_status, error, retry_after_s, next_attempt_at,
        provider_ref, rest
    from unnest(
        %(client_id)s::bigint[], %(id)s::uuid[], %(lease_token)s::uuid[], %(outcome)s::text[],
        %(started_at)s::timestamptz[], %(latency_s)s::float8[], %(http_status)s::integer[], %(error)s::text[],
        %(retry_after_s)s::float8[], %(next_attempt_at)s::timestamptz[], %(provider_ref)s::text[], %(rest)s::text[]
    ) as each (
        client_id, id, lease_token, outcome, started_at, latency_s, http_status, error, retry_after_s, next_attempt_at,
        provider_ref, rest
    )
),

settled as (
    update pulsewatch.notification
    set
        status = case
            when said.outcome = 'sent' then 'sent'
            when said.outcome = 'permanent' then 'dead'
            when said.outcome = 'retry' and said.next_attempt_at >= notification.expires_at then 'dead'
            else 'pending'
        end,
        sent_at = case
            when said.outcome = 'sent' then said.started_at + make_interval(secs => said.latency_s)
        end,
        provider_ref = said.provider_ref,
        rest = coalesce(said.rest::jsonb, notification.rest),
        last_error = case when said.outcome = 'returned' then notification.last_error else said.error end,
        next_attempt_at = coalesce(said.next_attempt_at, notification.next_attempt_at),
        attempt_count = notification.attempt_count - (said.outcome = 'returned')::integer,
        lease_token = null,
        lease_until = null
    from said
    where notification.client_id = said.client_id
        and notification.id = said.id
        and notification.lease_token = said.lease_token
    returning
        notification.client_id, notification.id, notification.alert_id, notification.channel_id, notification.reason,
        notification.status, notification.attempt_count, said.started_at, said.latency_s, said.outcome,
        said.http_status, said.error, said.retry_after_s
),

logged as (
    insert into pulsewatch.notification_attempt (
        client_id, started_at, notification_id, n, latency_s, outcome, http_status, error, retry_after_s
    )
    select client_id, started_at, id, attempt_count, latency_s, outcome, http_status, error, retry_after_s
    from settled
    where outcome <> 'returned'
    order by client_id, started_at, id, attempt_count
)

select client_id, id, alert_id, channel_id, reason, status
from settled
order by client_id, id
"""

# While it was on its way, a newer message came that tells the same and more.
SUPERSEDE_LATE = """
update pulsewatch.notification as older
set status = 'superseded'
from unnest(%(client_ids)s::bigint[], %(ids)s::uuid[]) as late (client_id, id)
join pulsewatch.notification as same on same.client_id = late.client_id and same.id = late.id
join pulsewatch.notification as newer
    on newer.client_id = same.client_id and newer.alert_id = same.alert_id and newer.channel_id = same.channel_id
where older.client_id = late.client_id
    and older.id = late.id
    and older.status = 'pending'
    and newer.status = 'pending'
    and newer.reason <> 'resolved'
    and (newer.created_at, newer.event_seq) > (same.created_at, same.event_seq)
"""

# Of what is over, that it goes on is not told any more where the receiver knows that it did; and nobody needs to hear
# that something is over that nobody heard of. What may have arrived is told to the end, in order.
END = f"""
with ended as (
    select
        resolved.client_id,
        resolved.alert_id,
        resolved.channel_id,
        coalesce(bool_or(notification.status = 'sent'), false) as is_known,
        coalesce(bool_or({MAY_BE_KNOWN}), false) as may_be_known
    from (
        select distinct client_id, alert_id, channel_id
        from unnest(%(client_ids)s::bigint[], %(alert_ids)s::uuid[], %(channel_ids)s::bigint[])
            as said (client_id, alert_id, channel_id)
    ) as said
    join pulsewatch.notification as resolved
        on resolved.client_id = said.client_id
        and resolved.alert_id = said.alert_id
        and resolved.channel_id = said.channel_id
        and resolved.reason = 'resolved'
        and resolved.status in ('pending', 'held')
    left join pulsewatch.notification
        on notification.client_id = said.client_id
        and notification.alert_id = said.alert_id
        and notification.channel_id = said.channel_id
        and notification.reason <> 'resolved'
    group by resolved.client_id, resolved.alert_id, resolved.channel_id
)

update pulsewatch.notification
set
    status = case notification.reason when 'resolved' then 'dropped' else 'superseded' end,
    held_by = case notification.reason when 'resolved' then 'untold' else notification.held_by end
from ended
where notification.client_id = ended.client_id
    and notification.alert_id = ended.alert_id
    and notification.channel_id = ended.channel_id
    and (
        (notification.reason = 'resolved' and notification.status in ('pending', 'held') and not ended.may_be_known)
        or (
            notification.reason <> 'resolved'
            and notification.status = 'pending'
            and (ended.is_known or not ended.may_be_known)
        )
    )
"""

# Whoever asks to be left alone is left alone, also by what is made afterwards.
PUT_OFF = """
update pulsewatch.channel
set quiet_until = put_off.until_at
from unnest(%(channel_ids)s::bigint[], %(until_at)s::timestamptz[]) as put_off (channel_id, until_at)
where channel.id = put_off.channel_id
    and (channel.quiet_until is null or channel.quiet_until < put_off.until_at)
"""

# By the last attempt of each.
NOTE_ANSWERS = """
update pulsewatch.channel
set unanswered_since = case when said.is_unanswered then coalesce(channel.unanswered_since, said.ended_at) end
from unnest(%(channel_ids)s::bigint[], %(is_unanswered)s::boolean[], %(ended_at)s::timestamptz[])
    as said (channel_id, is_unanswered, ended_at)
where channel.id = said.channel_id and said.is_unanswered <> (channel.unanswered_since is not null)
"""

# One that was switched on again by hand begins to count anew.
COUNT_REFUSALS = """
with counted as (
    select
        channel.id,
        said.is_gone,
        case
            when said.is_reset or channel.permanent_failures >= %(limit)s then 0
            else channel.permanent_failures
        end + said.refused as failures,
        said.error
    from unnest(
        %(channel_ids)s::bigint[], %(is_reset)s::boolean[], %(refused)s::integer[], %(is_gone)s::boolean[],
        %(errors)s::text[]
    ) as said (channel_id, is_reset, refused, is_gone, error)
    join pulsewatch.channel on channel.id = said.channel_id
    where said.refused > 0 or channel.permanent_failures > 0
)

update pulsewatch.channel
set
    permanent_failures = least(counted.failures, 1000),
    is_enabled = channel.is_enabled and not (counted.is_gone or counted.failures >= %(limit)s),
    disabled_reason = case
        when not channel.is_enabled then channel.disabled_reason
        when counted.is_gone then 'It is gone: ' || counted.error
        when counted.failures >= %(limit)s then counted.failures || ' refusals in a row, the last: ' || counted.error
        else channel.disabled_reason
    end,
    updated_at = case
        when channel.is_enabled and (counted.is_gone or counted.failures >= %(limit)s) then now()
        else channel.updated_at
    end
from counted
where channel.id = counted.id
returning channel.key, channel.is_enabled, channel.disabled_reason
"""

STANDING = """
select
    count(*) filter (where status in ('pending', 'leased')) as pending,
    coalesce(
        greatest(
            extract(epoch from now() - min(created_at) filter (where status in ('pending', 'leased'))), 0
        ),
        0
    )::float8 as oldest_pending_s,
    count(*) filter (where status = 'dead') as dead
from pulsewatch.notification
where status in ('pending', 'leased', 'dead')
"""
ATTEMPTS = """
select channel.kind, attempt.outcome, count(*) as attempt_count
from pulsewatch.notification_attempt as attempt
join pulsewatch.notification
    on notification.client_id = attempt.client_id and notification.id = attempt.notification_id
join pulsewatch.channel on channel.id = notification.channel_id
where attempt.started_at > now() - interval '1 hour'
group by channel.kind, attempt.outcome
order by channel.kind, attempt.outcome
"""
