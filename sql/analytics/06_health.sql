-- The only definition of the health of a pipeline. Read by pipelines_now and, for times gone by, by state_series.

create or replace function analytics.health(
    consecutive_failures integer, last_slot_status text, running_count integer, last_outcome text
)
returns text
language sql immutable parallel safe
return case
    when consecutive_failures > 0 then 'failing'
    when last_slot_status in ('missed', 'late') then last_slot_status
    when running_count > 0 then 'running'
    when last_outcome = 'succeeded' then 'ok'
    else 'unknown'
end;

comment on function analytics.health(integer, text, integer, text) is
'failing: the last outcome is a failure; else missed or late, as the last expected start; else running; else ok: the
last outcome is a success; else unknown.';
