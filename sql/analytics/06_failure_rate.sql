-- The only definition of the failure rate, from 0 to 1. Read by every view and function that gives it.

create or replace function analytics.failure_rate(succeeded_count bigint, failed_count bigint, timed_out_count bigint)
returns double precision
language sql immutable parallel safe
return analytics.share(failed_count + timed_out_count, succeeded_count + failed_count + timed_out_count);

comment on function analytics.failure_rate(bigint, bigint, bigint) is
'Runs that failed or timed out among those that succeeded, failed or timed out, from 0 to 1; cancelled and skipped ones
count for nothing; null where there is none.';
