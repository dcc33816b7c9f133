"""The statements that work out the numbers of hours and days (docs/rollups.md says what each number means).

Each takes the keys of the rows to work out as arrays and works them out from nothing but the rows below: runs and
slots for an hour of a pipeline, hours for all else. What it finds is written where it differs from what is stored;
keys of stored rows of which nothing is left are returned, for the caller to delete.

Every look-up is a lateral step of its own, which the planner can only do key by key through an index. As plain joins
these would be planned by guesses on how many rows an array and a range find, and a wrong guess reads whole tables.
"""

from dataclasses import dataclass

# Sums that do not depend on the order of the rows, nor on whether hours are summed up on the way: decimal numbers, to
# the microsecond. The bound keeps a sum of absurd values within what a double can hold.
_SUM = "sum(least(greatest(round({0}::numeric, 6), -1e290), 1e290)) filter (where {0} is not null)"

_ENDS = ("succeeded", "failed", "timed_out", "cancelled", "skipped")
COUNTS = tuple(f"{name}_count" for name in ("started", *_ENDS, "retried", "on_time", "late", "missed", "duration"))
SHARES = {"duration_p50_s": "0.5", "duration_p95_s": "0.95", "duration_p99_s": "0.99"}
COUNTED = (
    *COUNTS,
    "duration_sum_s",
    "duration_min_s",
    "duration_max_s",
    *SHARES,
    "duration_buckets",
    "duration_counts",
    "rows_sum",
    "bytes_sum",
)
OF_PIPELINE_HOUR = (*COUNTED, "open_count", "last_success_at", "first_at_min", "first_at_max")
TYPES = {
    "client_id": "bigint",
    "pipeline_id": "bigint",
    "hour_at": "timestamptz",
    "day_utc": "timestamptz",
    "run_id": "uuid",
}


@dataclass(frozen=True, slots=True)
class Level:
    """A table of numbers by hour or day, and the table whose rows it sums up; None: it is worked out from runs."""

    table: str
    key: tuple[str, ...]
    source: str | None = None

    @property
    def time(self) -> str:
        """The column of its key that says when."""
        return self.key[-1]


PIPELINE_HOUR = Level("pipeline_hour", ("client_id", "pipeline_id", "hour_at"))
# In an order in which each finds its source worked out already.
SUMMED = (
    Level("pipeline_day", ("client_id", "pipeline_id", "day_utc"), "pipeline_hour"),
    Level("client_hour", ("client_id", "hour_at"), "pipeline_hour"),
    Level("client_day", ("client_id", "day_utc"), "client_hour"),
    Level("fleet_hour", ("hour_at",), "client_hour"),
    Level("fleet_day", ("day_utc",), "fleet_hour"),
)
# Every statement is planned for the keys at hand. Compiling them would take longer than running them, and no table is
# to be read as a whole, however few rows it has by the planner's last count.
PLANNING = "set local plan_cache_mode = force_custom_plan; set local jit = off; set local enable_seqscan = off"

# The marks may come from any page; the oldest lie first. Marks of pipelines with slots are handed on to these.
TAKE_SQL = """
with taken as (
    delete from pulsewatch.dirty
    where ctid = any(array(select ctid from pulsewatch.dirty limit %(limit)s))
    returning client_id, pipeline_id, hour_at, first_at, marked_at
),

handed_on as (
    insert into pulsewatch.slot_mark (client_id, pipeline_id, hour_at, first_at, marked_at)
    select taken.client_id, taken.pipeline_id, taken.hour_at, taken.first_at, min(taken.marked_at)
    from taken
    cross join lateral (
        select
        from pulsewatch.slot_plan as plan
        where plan.client_id = taken.client_id and plan.pipeline_id = taken.pipeline_id
        offset 0
    ) as plan
    where taken.first_at is not null
    group by taken.client_id, taken.pipeline_id, taken.hour_at, taken.first_at
),

-- The rules that watch a pipeline look at it again, once its numbers are there: at each tick that knows more of it.
-- Also where none does yet: one may before the tick that knows of this.
told as (
    insert into pulsewatch.alert_mark (client_id, pipeline_id, marked_at)
    select distinct
        taken.client_id, taken.pipeline_id, date_bin('5 seconds', taken.marked_at, '2000-01-01 00:00:00+00')
    from taken
)

select client_id, pipeline_id, hour_at, min(first_at) as from_at, max(first_at) as until_at, count(*) as mark_count
from taken
group by client_id, pipeline_id, hour_at
"""

# Runs that finished or started in the hour. `offset 0` has each expression evaluated once.
_RUN_OF_HOUR = """
    select
        run.first_at,
        run.status,
        run.finished_at,
        run.is_started,
        run.is_finished,
        run.is_finished and run.state_key >> 58 > 0 as is_retried,
        case
            when run.is_finished then coalesce(
                run.said_duration_s,
                case
                    when run.finished_at >= run.start_at
                        then extract(epoch from run.finished_at - run.start_at)::double precision
                end
            )
        end as duration_s,
        case
            when run.is_finished then coalesce(run.winner_metrics ->> 'rows', run.opening_metrics ->> 'rows')
        end as rows,
        case
            when run.is_finished then coalesce(run.winner_metrics ->> 'bytes', run.opening_metrics ->> 'bytes')
        end as bytes
    from (
        select
            run.first_at, run.status, run.state_key, run.start_at, run.finished_at, run.said_duration_s,
            run.winner_metrics, run.opening_metrics,
            coalesce(
                coalesce(run.start_at, run.implied_start_at) >= cell.hour_at
                and coalesce(run.start_at, run.implied_start_at) < cell.hour_at + interval '1 hour',
                false
            ) as is_started,
            coalesce(
                run.finished_at >= cell.hour_at and run.finished_at < cell.hour_at + interval '1 hour', false
            ) as is_finished
        from pulsewatch.run
        where run.client_id = cell.client_id
            and run.pipeline_id = cell.pipeline_id
            and run.first_at between cell.from_at and cell.until_at
        offset 0
    ) as run
    where run.is_started or run.is_finished
    offset 0
"""


def _ended(status: str) -> str:
    return f"count(*) filter (where is_finished and status = '{status}') as {status}_count"


_TOTALS_OF_RUNS = f"""
    select
        coalesce(sum(started_count), 0)::integer as started_count,
        coalesce(sum(open_count), 0)::integer as open_count,
        coalesce(sum(succeeded_count), 0)::integer as succeeded_count,
        coalesce(sum(failed_count), 0)::integer as failed_count,
        coalesce(sum(timed_out_count), 0)::integer as timed_out_count,
        coalesce(sum(cancelled_count), 0)::integer as cancelled_count,
        coalesce(sum(skipped_count), 0)::integer as skipped_count,
        coalesce(sum(retried_count), 0)::integer as retried_count,
        coalesce(sum(duration_count), 0)::integer as duration_count,
        coalesce(sum(duration_sum_s), 0)::double precision as duration_sum_s,
        min(duration_min_s) as duration_min_s,
        max(duration_max_s) as duration_max_s,
        coalesce(array_agg(bucket order by bucket) filter (where bucket is not null), '{{}}') as duration_buckets,
        coalesce(array_agg(duration_count::integer order by bucket) filter (where bucket is not null), '{{}}')
            as duration_counts,
        sum(rows_sum)::double precision as rows_sum,
        sum(bytes_sum)::double precision as bytes_sum,
        max(last_success_at) as last_success_at,
        min(first_at_min) as first_at_min,
        max(first_at_max) as first_at_max
    from (
        select
            pulsewatch.duration_bucket(duration_s) as bucket,
            count(*) filter (where is_started) as started_count,
            count(*) filter (where is_started and finished_at is null) as open_count,
            {", ".join(map(_ended, _ENDS))},
            count(*) filter (where is_retried) as retried_count,
            count(duration_s) as duration_count,
            {_SUM.format("duration_s")} as duration_sum_s,
            min(duration_s) as duration_min_s,
            max(duration_s) as duration_max_s,
            {_SUM.format("rows")} as rows_sum,
            {_SUM.format("bytes")} as bytes_sum,
            max(finished_at) filter (where is_finished and status = 'succeeded') as last_success_at,
            min(first_at) as first_at_min,
            max(first_at) as first_at_max
        from ({_RUN_OF_HOUR}) as run
        group by bucket
    ) as of_bucket
"""


def _columns(names: tuple[str, ...], table: str = "") -> str:
    return ", ".join(f"{table}.{name}" if table else name for name in names)


def _match(key: tuple[str, ...], one: str, other: str) -> str:
    return " and ".join(f"{one}.{name} = {other}.{name}" for name in key)


def _arrays(names: tuple[str, ...]) -> str:
    """Parameters, each the values of a column, as a table."""
    return "unnest(" + ", ".join(f"%({name})s::{TYPES[name]}[]" for name in names) + ")"


def _percentiles(table: str) -> str:
    return ",\n        ".join(
        f"pulsewatch.duration_percentile({table}.duration_buckets, {table}.duration_counts, {share},"
        f" {table}.duration_min_s, {table}.duration_max_s) as {name}"
        for name, share in SHARES.items()
    )


def _write(level: Level, values: tuple[str, ...]) -> str:
    """CTEs that bring the stored rows in line with those of the CTE `found`.

    Rows that are as they should be are left out beforehand: a conflict would lock them, which is a write too.
    """
    return f"""
compared as materialized (
    select found.*, stored.{level.time} is not null as is_stored
    from found
    left join lateral (
        select {_columns((*level.key, *values))}
        from pulsewatch.{level.table} as stored
        where {_match(level.key, "stored", "found")}
        offset 0
    ) as stored on true
    where found.is_empty and stored.{level.time} is not null
        or not found.is_empty and ({_columns(values, "found")}) is distinct from ({_columns(values, "stored")})
),

written as (
    insert into pulsewatch.{level.table} as stored ({_columns((*level.key, *values))})
    select {_columns((*level.key, *values))}
    from compared
    where not is_empty
    order by {_columns(level.key)}
    on conflict ({_columns(level.key)}) do update set
        {", ".join(f"{name} = excluded.{name}" for name in values)}
)
"""


# Returns each key with the last first_at it was looked for at, and whether its row is stored but empty.
HOUR_SQL = f"""
with cell as materialized (
    select
        cell.client_id, cell.pipeline_id, cell.hour_at,
        -- Runs that count in the hour were counted before, or have left a mark: this is where all of them are.
        least(cell.from_at, stored.first_at_min) as from_at,
        greatest(cell.until_at, stored.first_at_max) as until_at
    from unnest(
        %(client_id)s::bigint[], %(pipeline_id)s::bigint[], %(hour_at)s::timestamptz[],
        %(from_at)s::timestamptz[], %(until_at)s::timestamptz[]
    ) as cell (client_id, pipeline_id, hour_at, from_at, until_at)
    left join lateral (
        select stored.first_at_min, stored.first_at_max
        from pulsewatch.pipeline_hour as stored
        where {_match(PIPELINE_HOUR.key, "stored", "cell")}
        offset 0
    ) as stored on true
),

found as materialized (
    select
        cell.client_id, cell.pipeline_id, cell.hour_at, run_total.*, slot_total.*,
        {_percentiles("run_total")},
        run_total.first_at_min is null
        and slot_total.on_time_count + slot_total.late_count + slot_total.missed_count = 0 as is_empty
    from cell
    cross join lateral ({_TOTALS_OF_RUNS}) as run_total
    cross join lateral (
        select
            (count(*) filter (where slot.status = 'on_time'))::integer as on_time_count,
            (count(*) filter (where slot.status = 'late'))::integer as late_count,
            (count(*) filter (where slot.status = 'missed'))::integer as missed_count
        from pulsewatch.slot
        where slot.client_id = cell.client_id
            and slot.pipeline_id = cell.pipeline_id
            and slot.slot_at >= cell.hour_at
            and slot.slot_at < cell.hour_at + interval '1 hour'
    ) as slot_total
),
{_write(PIPELINE_HOUR, OF_PIPELINE_HOUR)}
select cell.client_id, cell.pipeline_id, cell.hour_at, cell.until_at, coalesce(gone.is_empty, false) as is_gone
from cell
left join compared as gone on {_match(PIPELINE_HOUR.key, "gone", "cell")} and gone.is_empty
"""


def sum_sql(level: Level) -> str:
    """The statement that works out rows of this level; returns the keys of those that are stored but empty."""
    assert level.source is not None, "the hours of pipelines come from runs"  # noqa: S101 - narrows the type
    source = f"pulsewatch.{level.source} as part"
    time = "part.hour_at = wanted.hour_at"
    if level.source == "client_day":
        # Client by client: that is how they are found by their key.
        source = "pulsewatch.client inner join pulsewatch.client_day as part on client.id = part.client_id"
        time = "part.day_utc = wanted.day_utc"
    elif level.time == "day_utc":
        # Not a day: what that is depends on the session's zone.
        time = "part.hour_at >= wanted.day_utc and part.hour_at < wanted.day_utc + interval '24 hours'"
    conditions = [*(f"part.{name} = wanted.{name}" for name in level.key[:-1]), time]
    parts = f"from {source}\n        where " + " and ".join(conditions)
    return f"""
with wanted as (
    select * from {_arrays(level.key)} as wanted ({_columns(level.key)})
),

found as materialized (
    select
        {_columns(level.key, "wanted")}, total.*, histogram.*,
        {_percentiles("whole")},
        total.part_count = 0 as is_empty
    from wanted
    cross join lateral (
        select
            count(*) as part_count,
            {", ".join(f"coalesce(sum(part.{name}), 0)::integer as {name}" for name in COUNTS)},
            coalesce({_SUM.format("part.duration_sum_s")}, 0)::double precision as duration_sum_s,
            min(part.duration_min_s) as duration_min_s,
            max(part.duration_max_s) as duration_max_s,
            ({_SUM.format("part.rows_sum")})::double precision as rows_sum,
            ({_SUM.format("part.bytes_sum")})::double precision as bytes_sum
        {parts}
    ) as total
    cross join lateral (
        select
            coalesce(array_agg(held.bucket order by held.bucket), '{{}}') as duration_buckets,
            coalesce(array_agg(held.amount order by held.bucket), '{{}}') as duration_counts
        from (
            select held.bucket, sum(held.amount)::integer as amount
            from (
                select part.duration_buckets, part.duration_counts
        {parts}
                offset 0
            ) as part
            cross join lateral unnest(part.duration_buckets, part.duration_counts) as held (bucket, amount)
            group by held.bucket
        ) as held
    ) as histogram
    cross join lateral (
        select histogram.duration_buckets, histogram.duration_counts, total.duration_min_s, total.duration_max_s
    ) as whole
),
{_write(level, COUNTED)}
select {_columns(level.key)} from compared where is_empty
"""


def delete_sql(table: str, key: tuple[str, ...]) -> str:
    """Deletes rows by their keys."""
    return f"delete from pulsewatch.{table} as stored using {_arrays(key)} as gone ({_columns(key)}) where " + _match(
        key, "stored", "gone"
    )


SUM_SQL = {level.table: sum_sql(level) for level in SUMMED}
DELETE_SQL = {level.table: delete_sql(level.table, level.key) for level in (PIPELINE_HOUR, *SUMMED)}

# All hours of a client's runs and slots in a window, and those that are stored, with where to find their runs.
CELLS_SQL = """
select
    cell.client_id, cell.pipeline_id, cell.hour_at, min(cell.first_at) as from_at, max(cell.first_at) as until_at
from (
    select run.client_id, run.pipeline_id, touched.hour_at, run.first_at
    from pulsewatch.run
    cross join lateral (
        values
        (date_bin('1 hour', coalesce(run.start_at, run.implied_start_at), '2000-01-01 00:00:00+00')),
        (date_bin('1 hour', run.finished_at, '2000-01-01 00:00:00+00')),
        -- One that has neither counts nowhere, but is its pipeline's latest run perhaps.
        (date_bin('1 hour', run.first_at, '2000-01-01 00:00:00+00'))
    ) as touched (hour_at)
    where run.client_id = %(client_id)s and touched.hour_at >= %(from_at)s and touched.hour_at < %(until_at)s
    union all
    select slot.client_id, slot.pipeline_id, date_bin('1 hour', slot.slot_at, '2000-01-01 00:00:00+00'), null
    from pulsewatch.slot
    where slot.client_id = %(client_id)s and slot.slot_at >= %(from_at)s and slot.slot_at < %(until_at)s
    union all
    select stored.client_id, stored.pipeline_id, stored.hour_at, null
    from pulsewatch.pipeline_hour as stored
    where stored.client_id = %(client_id)s and stored.hour_at >= %(from_at)s and stored.hour_at < %(until_at)s
) as cell
group by cell.client_id, cell.pipeline_id, cell.hour_at
order by cell.hour_at, cell.pipeline_id
"""


def stored_sql(level: Level) -> str:
    """The keys that are stored of a window: of one client, or of the fleet."""
    own = "client_id = %(client_id)s and " if "client_id" in level.key else ""
    from_at = "%(from_at)s"
    if level.time == "day_utc":
        from_at = "date_bin('24 hours', %(from_at)s, '2000-01-01 00:00:00+00')"
    return (
        f"select {_columns(level.key)} from pulsewatch.{level.table}"
        f" where {own}{level.time} >= {from_at} and {level.time} < %(until_at)s order by {level.time}"
    )
