-- One row: a window beside the same length of time before it, of a pipeline, a client or the fleet.
-- Read by panels that show a change. Durations are seconds; the numbers are those of analytics.runs_summary.
-- Both windows are whole hours (UTC) and share none, so that no run is on both sides.

create or replace function analytics.runs_change(
    from_at timestamptz, to_at timestamptz, client text default null, pipeline text default null
)
returns table (
    success_rate double precision,
    previous_success_rate double precision,
    success_rate_change double precision,
    finished_count bigint,
    previous_finished_count bigint,
    duration_p95_s double precision,
    previous_duration_p95_s double precision,
    duration_p95_change_s double precision
)
language plpgsql stable
as $$
#variable_conflict use_column
declare
    origin constant timestamptz := '2000-01-01 00:00:00+00';
    first_hour constant timestamptz := date_bin('1 hour', from_at, origin);
    end_hour constant timestamptz := date_bin('1 hour', to_at + interval '1 hour' - interval '1 microsecond', origin);
    -- Hours, not days: a day of interval arithmetic follows the session's zone and its clock changes.
    width constant interval := make_interval(secs => extract(epoch from end_hour - first_hour)::double precision);
begin
    return query
    select
        this.success_rate,
        previous.success_rate,
        this.success_rate - previous.success_rate,
        this.finished_count,
        previous.finished_count,
        this.duration_p95_s,
        previous.duration_p95_s,
        this.duration_p95_s - previous.duration_p95_s
    from analytics.runs_summary(first_hour, end_hour, runs_change.client, runs_change.pipeline) as this
    cross join analytics.runs_summary(
        first_hour - width, first_hour, runs_change.client, runs_change.pipeline
    ) as previous;
end
$$;

comment on function analytics.runs_change(timestamptz, timestamptz, text, text) is
'One row: success rate, finished runs and 95th percentile of durations of the hours (UTC) from that of from_at up to
to_at, of as many hours before them, and the differences; null where either is unknown. For this pipeline of this client, this client (pipeline null) or
the fleet (both null); no row if there is no such client or pipeline.';
