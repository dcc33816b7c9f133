-- The number of a client, for filters by its slug that an index serves in order: where client_id = client_id('acme').
-- Read by lists of the latest rows of a client. A filter on the slug joins the client instead, and then all rows of the
-- window are read and sorted before the first one is shown.

create or replace function analytics.client_id(client text)
returns bigint
language plpgsql stable
as $$
#variable_conflict use_column
begin
    return (select client.id from pulsewatch.client where client.slug = client_id.client);
end
$$;

comment on function analytics.client_id(text) is
'Internal number of the client with this slug; null if there is none. Lists of the latest rows are quickest by it: where
client_id = analytics.client_id(...).';
