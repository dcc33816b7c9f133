-- The health of a pipeline as a number, the worse the greater. Read by pipelines_now and state_series.

create or replace function analytics.health_code(health text)
returns smallint
language sql immutable parallel safe
return case health
    when 'ok' then 0
    when 'running' then 1
    when 'unknown' then 2
    when 'late' then 3
    when 'missed' then 4
    when 'failing' then 5
end::smallint;

comment on function analytics.health_code(text) is
'The health of a pipeline as a number for panels, the worse the greater: 0 ok, 1 running, 2 unknown, 3 late, 4 missed,
5 failing.';
