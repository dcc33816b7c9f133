-- How people call a level of an alert. Read by every view that shows one.

create or replace function analytics.alert_level(level_code smallint)
returns text
language sql immutable parallel safe
return case level_code
    when 1 then 'warning'
    when 2 then 'critical'
end;

comment on function analytics.alert_level(smallint) is 'The level of an alert: 1 warning, 2 critical; null: none.';
