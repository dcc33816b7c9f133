-- One row per channel to which messages were written in a window: what became of them, and how long they took.
-- Durations are seconds. Read by panels about delivery.

create or replace function analytics.channels_summary(
    from_at timestamptz, to_at timestamptz, client text default null
)
returns table (
    channel_id bigint,
    channel text,
    channel_title text,
    channel_kind text,
    notification_count bigint,
    sent_count bigint,
    waiting_count bigint,
    held_count bigint,
    superseded_count bigint,
    dropped_count bigint,
    dead_count bigint,
    retried_count bigint,
    attempt_count bigint,
    sent_rate double precision,
    send_p50_s double precision,
    send_p95_s double precision,
    last_sent_at timestamptz
)
language plpgsql stable
as $$
#variable_conflict use_column
declare
    the_client bigint;
begin
    if client is not null then
        select client.id into the_client from pulsewatch.client where client.slug = channels_summary.client;
        if the_client is null then
            return;
        end if;
    end if;
    -- Planned anew for these values: a plan for any client would read the messages of all.
    return query execute
        $query$
        with told as (
            select
                message.channel_id,
                count(*) as notification_count,
                count(*) filter (where message.status = 'sent') as sent_count,
                count(*) filter (where message.status in ('pending', 'leased')) as waiting_count,
                count(*) filter (where message.status = 'held') as held_count,
                count(*) filter (where message.status = 'superseded') as superseded_count,
                count(*) filter (where message.status = 'dropped') as dropped_count,
                count(*) filter (where message.status = 'dead') as dead_count,
                count(*) filter (where message.attempt_count > 1) as retried_count,
                sum(message.attempt_count)::bigint as attempt_count,
                percentile_cont(0.5) within group (order by message.send_s) as send_p50_s,
                percentile_cont(0.95) within group (order by message.send_s) as send_p95_s,
                max(message.sent_at) as last_sent_at
            from analytics.notifications as message
            where message.created_at >= $1
                and message.created_at < $2
                and ($3 is null or message.client_id = $3)
            group by message.channel_id
        )

        select
            told.channel_id,
            channel.key,
            coalesce(channel.title, channel.key),
            channel.kind,
            told.notification_count,
            told.sent_count,
            told.waiting_count,
            told.held_count,
            told.superseded_count,
            told.dropped_count,
            told.dead_count,
            told.retried_count,
            told.attempt_count,
            analytics.share(told.sent_count, told.sent_count + told.dead_count),
            told.send_p50_s,
            told.send_p95_s,
            told.last_sent_at
        from told
        left join pulsewatch.channel on told.channel_id = channel.id
        order by told.notification_count desc, channel.key, told.channel_id
        $query$
        using from_at, to_at, the_client;
end
$$;

comment on function analytics.channels_summary(timestamptz, timestamptz, text) is
'One row per channel to which messages were written in the window, the busiest first: how many messages, sent, waiting
to be sent, held, superseded, dropped and dead ones, those tried more than once (retried_count), attempts in all, sent_rate
(sent among sent and dead), median and 95th percentile of the seconds from the alert event to the receiver, and when one
was last sent. About the alerts of this client, or of all (null); no row if there is no such client.';
