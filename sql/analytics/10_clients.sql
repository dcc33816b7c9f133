-- One row per client, archived ones included. Times are UTC.
-- Read by dashboards for their client filter, and joined to every other object of this schema by client_id.

create or replace view analytics.clients
with (security_invoker = true) as
select
    id as client_id,
    slug as client,
    coalesce(title, slug) as client_title,
    archived_at is not null as is_archived,
    created_at,
    updated_at,
    archived_at
from pulsewatch.client;

comment on view analytics.clients is 'One row per client, archived ones included.';
comment on column analytics.clients.client_id is 'Internal number of the client, for filters and joins.';
comment on column analytics.clients.client is 'Slug of the client, its name in URLs and events; never changes.';
comment on column analytics.clients.client_title is 'Name for people; the slug where none is given.';
comment on column analytics.clients.is_archived is 'True: events are refused, history stays.';
comment on column analytics.clients.created_at is 'When it was first seen (UTC).';
comment on column analytics.clients.updated_at is 'Last change of what is known about it (UTC).';
comment on column analytics.clients.archived_at is 'When it was archived (UTC); null: it is in use.';
