-- Why the last attempt to send a message failed, for readers of all clients. Read by analytics.notifications.
-- An error tells of the host that a channel leads to, which a channel of all clients does not show to one of them: a
-- client's reader has no right to the column, and gets null.

create or replace function analytics.last_error(of_client_id bigint, of_notification_id uuid)
returns text
language plpgsql stable
as $$
begin
    -- A view alone cannot ask: it would need the right to all that it names.
    if not has_column_privilege('pulsewatch.notification', 'last_error', 'SELECT') then
        return null;
    end if;
    return (
        select notification.last_error
        from pulsewatch.notification
        where notification.client_id = of_client_id and notification.id = of_notification_id
    );
end
$$;

comment on function analytics.last_error(bigint, uuid) is
'Why the last attempt to send this message failed; null: it did not, or a client''s reader asks.';
