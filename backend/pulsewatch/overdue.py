"""Which runs go on for longer than their pipeline's max_runtime_s: the events that say so."""

from datetime import datetime

from sqlalchemy import Connection

from pulsewatch.events import RunEvent, Status

# What one tick takes at most; the rest follows with the next.
RUNS_PER_TICK = 2000

# Hours with open runs are few, and an index names them; the runs of an hour lie between the two bounds it holds.
# An archived client takes no events.
OVERDUE_SQL = """
select
    client.slug as client,
    pipeline.namespace,
    pipeline.name as pipeline,
    run.external_id,
    (run.state_key >> 58)::smallint as attempt,
    run.start_at + make_interval(secs => pipeline.max_runtime_s) as timed_out_at
from pulsewatch.pipeline_hour as hour
inner join pulsewatch.pipeline
    on hour.client_id = pipeline.client_id and hour.pipeline_id = pipeline.id
inner join pulsewatch.client on hour.client_id = client.id
cross join lateral (
    select run.external_id, run.state_key, run.start_at
    from pulsewatch.run
    where run.client_id = hour.client_id
        and run.pipeline_id = hour.pipeline_id
        and run.first_at between hour.first_at_min and hour.first_at_max
        and run.finished_at is null
        and run.start_at >= hour.hour_at
        and run.start_at < hour.hour_at + interval '1 hour'
        and run.start_at + make_interval(secs => pipeline.max_runtime_s) < %(as_of)s
    offset 0
) as run
where hour.open_count > 0
    and hour.hour_at + make_interval(secs => pipeline.max_runtime_s) < %(as_of)s
    and client.archived_at is null
order by timed_out_at, client.slug, pipeline.namespace, pipeline.name, run.external_id
limit %(limit)s
"""


def overdue(connection: Connection, as_of: datetime) -> list[RunEvent]:
    """A `timed_out` event for each run that should have ended before `as_of`, at the moment when it should have.

    The same run gives the same event each time: stored twice, it is a duplicate. It does not outlive what a producer
    says: that the run has ended, or that a later attempt has begun.
    """
    rows = connection.exec_driver_sql(OVERDUE_SQL, {"as_of": as_of, "limit": RUNS_PER_TICK})
    return [
        RunEvent(
            client=row.client,
            namespace=row.namespace,
            pipeline=row.pipeline,
            run=row.external_id,
            status=Status.TIMED_OUT,
            occurred_at=row.timed_out_at,
            attempt=row.attempt,
            message="It went on for longer than the pipeline's max_runtime_s.",
        )
        for row in rows
    ]
