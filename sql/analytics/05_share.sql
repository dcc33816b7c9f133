-- Part of a whole, from 0 to 1. Read by every view and function that gives a rate, so that none divides by itself.

create or replace function analytics.share(part bigint, whole bigint)
returns double precision
language sql immutable parallel safe
return part::double precision / nullif(whole, 0);

comment on function analytics.share(bigint, bigint) is
'Part of a whole, from 0 to 1; null where the whole is 0 or unknown.';
