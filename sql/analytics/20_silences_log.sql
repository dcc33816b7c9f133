-- One row per silence, past, present and ahead: whom it holds back, from when to when, and why. Times are UTC,
-- durations are seconds. Read by audits of what was not told.

create or replace view analytics.silences_log
with (security_invoker = true) as
select
    silence.client_id,
    client.slug as client,
    silence.id as silence_id,
    silence.starts_at,
    silence.ends_at,
    extract(epoch from silence.ends_at - silence.starts_at)::double precision as duration_s,
    silence.starts_at <= now() and silence.ends_at > now() as is_in_force,
    (
        select string_agg(item.word, ', ' order by item.place)
        from jsonb_array_elements_text(silence.matchers -> 'rules') with ordinality as item (word, place)
    ) as of_rules,
    (
        select string_agg(item.word, ', ' order by item.place)
        from jsonb_array_elements_text(silence.matchers -> 'clients') with ordinality as item (word, place)
    ) as of_clients,
    (
        select string_agg(item.word, ', ' order by item.place)
        from jsonb_array_elements_text(silence.matchers -> 'pipelines') with ordinality as item (word, place)
    ) as of_pipelines,
    (
        select string_agg(item.word, ', ' order by item.place)
        from jsonb_array_elements_text(silence.matchers -> 'tags') with ordinality as item (word, place)
    ) as of_tags,
    (
        select string_agg(item.word, ', ' order by item.place)
        from jsonb_array_elements_text(silence.matchers -> 'owners') with ordinality as item (word, place)
    ) as of_owners,
    (
        select string_agg(item.word, ', ' order by item.place)
        from jsonb_array_elements_text(silence.matchers -> 'environments') with ordinality as item (word, place)
    ) as of_environments,
    (
        select string_agg(item.word, ', ' order by item.place)
        from jsonb_array_elements_text(silence.matchers -> 'levels') with ordinality as item (word, place)
    ) as of_levels,
    silence.comment,
    silence.author,
    silence.created_at,
    silence.updated_at
from pulsewatch.silence
left join pulsewatch.client on silence.client_id = client.id;

comment on view analytics.silences_log is
'One row per silence: whom it holds back, from when to when, and why. Times are UTC, durations are seconds.';
comment on column analytics.silences_log.client_id is
'Internal number of the one client whose silence it is; null: it is for all clients.';
comment on column analytics.silences_log.client is 'Slug of that client; null: all.';
comment on column analytics.silences_log.silence_id is 'Identity of the silence, as in the API.';
comment on column analytics.silences_log.starts_at is 'It holds from then on.';
comment on column analytics.silences_log.ends_at is 'It holds until then.';
comment on column analytics.silences_log.duration_s is 'ends_at less starts_at. Seconds.';
comment on column analytics.silences_log.is_in_force is 'It holds now.';
comment on column analytics.silences_log.of_rules is
'Patterns of rules that it holds back, separated by a comma and a space; null: any.';
comment on column analytics.silences_log.of_clients is 'Patterns of clients; null: any.';
comment on column analytics.silences_log.of_pipelines is 'Patterns of pipelines; null: any.';
comment on column analytics.silences_log.of_tags is 'Patterns of tags; null: any.';
comment on column analytics.silences_log.of_owners is 'Patterns of owners; null: any.';
comment on column analytics.silences_log.of_environments is 'Patterns of environments; null: any.';
comment on column analytics.silences_log.of_levels is 'Levels: warning, critical; null: any.';
comment on column analytics.silences_log.comment is 'Why.';
comment on column analytics.silences_log.author is 'Who: the name of a key.';
comment on column analytics.silences_log.created_at is 'When it was made.';
comment on column analytics.silences_log.updated_at is 'Last change.';
