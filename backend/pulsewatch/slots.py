"""Whether a pipeline started when it was expected to: each slot is judged on time, late or missed.

A slot's row is a pure function of the runs, the slots of its pipeline and the time, whatever the order in which runs
came (docs/slots.md):

1. A run claims one slot, once it is more than queued (one that was skipped on purpose did come): the one at its
   scheduled_at; where there is none, the last one before its start, or the next one if it started no more than a
   minute (or half the way to it) early.
2. Of the runs that claim a slot, the one that started first has it, and makes it on time or late.
3. A slot that nobody claims is open up to its deadline, and missed from then on.

Only what may have changed is worked out again: slots whose deadline has passed, and slots that runs touch which left
a mark. One worker at a time does this; the others find the lock taken and return.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, Row

from pulsewatch.settings import Settings
from pulsewatch.slot_plans import HEARD_BEFORE, plan

LOCK_SQL = "select pg_try_advisory_xact_lock(hashtext('pulsewatch.slot'))"
# Compiling a statement, or planning it for keys unlike those at hand, would take longer than running it. Empty months
# are not to be scanned and sorted: then the last slot before a time is found by reading all that were before it.
PLANNING = "set local plan_cache_mode = force_custom_plan; set local jit = off; set local enable_seqscan = off"

# What one round takes at most.
MARKS_PER_ROUND = 5000
DUE_PER_ROUND = 5000

# Runs of a pipeline whose slots are not made yet up to now have to wait, or they would claim the wrong ones.
_IS_PLANNED = "coalesce(plan.planned_until > %(as_of)s, true)"

TAKE_MARKS_SQL = f"""
with taken as (
    delete from pulsewatch.slot_mark
    where ctid = any(array(
        select mark.ctid
        from pulsewatch.slot_mark as mark
        left join pulsewatch.slot_plan as plan
            on mark.client_id = plan.client_id and mark.pipeline_id = plan.pipeline_id
        where {_IS_PLANNED}
        limit %(limit)s
    ))
    returning client_id, pipeline_id, hour_at, first_at
)

select client_id, pipeline_id, min(first_at) as from_at, max(first_at) as until_at, count(*) as mark_count
from taken
group by client_id, pipeline_id, hour_at
"""

DUE_SQL = f"""
select slot.client_id, slot.pipeline_id, slot.slot_at
from pulsewatch.slot
left join pulsewatch.slot_plan as plan on slot.client_id = plan.client_id and slot.pipeline_id = plan.pipeline_id
where slot.status = 'open'
    and slot.deadline_at < %(as_of)s
    and {_IS_PLANNED}
order by slot.deadline_at
limit %(limit)s
"""

# When a run came, and what it was for. `offset 0` keeps what is inside a lateral step by step: each step is an
# index look-up within one partition, where a join planned as a whole might read the table.
_RUN = """
    run.client_id,
    run.pipeline_id,
    run.id as run_id,
    run.first_at,
    coalesce(run.start_at, run.implied_start_at, run.first_at) as started_at,
    coalesce(run.winner_scheduled_at, run.opening_scheduled_at) as scheduled_at,
    run.status <> 'queued' as has_come
"""


def _claims(runs: str) -> str:
    """Which slot each of these runs claims."""
    return f"""
    select run.client_id, run.pipeline_id, run.run_id, run.first_at, run.started_at, claimed.slot_at, claimed.holder_id
    from {runs} as run
    cross join lateral (
        (
            select slot.slot_at, slot.run_id as holder_id, 1 as choice
            from pulsewatch.slot
            where slot.client_id = run.client_id
                and slot.pipeline_id = run.pipeline_id
                and slot.slot_at = run.scheduled_at
        )
        union all
        (
            select near.slot_at, near.holder_id, 2 as choice
            from (
                (
                    select slot.slot_at, slot.run_id as holder_id
                    from pulsewatch.slot
                    where slot.client_id = run.client_id
                        and slot.pipeline_id = run.pipeline_id
                        and slot.slot_at <= run.started_at
                    order by slot.slot_at desc
                    limit 1
                )
                union all
                (
                    select slot.slot_at, slot.run_id as holder_id
                    from pulsewatch.slot
                    where slot.client_id = run.client_id
                        and slot.pipeline_id = run.pipeline_id
                        and slot.slot_at > run.started_at
                        and slot.slot_at <= run.started_at + interval '1 minute'
                    order by slot.slot_at
                    limit 1
                )
            ) as near
            -- The nearer of the two; half the way between them, the coming one.
            order by
                greatest(near.slot_at - run.started_at, run.started_at - near.slot_at),
                near.slot_at desc
            limit 1
        )
        order by choice
        limit 1
    ) as claimed
    where run.has_come
    """


JUDGE_SQL = f"""
with cell as materialized (
    select * from json_to_recordset(%(cells)s::json) as item (
        client_id bigint, pipeline_id bigint, from_at timestamptz, until_at timestamptz
    )
),

due as materialized (
    select * from json_to_recordset(%(due)s::json) as item (client_id bigint, pipeline_id bigint, slot_at timestamptz)
),

-- Of a cell, all runs; for slots that are due, those that may claim one of them.
searched as (
    select client_id, pipeline_id, from_at, until_at, '-infinity'::timestamptz as due_from from cell
    union all
    select client_id, pipeline_id, min(slot_at) - %(heard_before)s, 'infinity', min(slot_at)
    from due
    group by client_id, pipeline_id
),

seen as materialized (
    select distinct run.client_id, run.pipeline_id, run.run_id, run.first_at, run.started_at, run.scheduled_at,
        run.has_come
    from searched
    cross join lateral (
        select {_RUN}
        from pulsewatch.run
        where run.client_id = searched.client_id
            and run.pipeline_id = searched.pipeline_id
            and run.first_at between searched.from_at and searched.until_at
            and (
                coalesce(run.start_at, run.implied_start_at, run.first_at) >= searched.due_from - interval '1 minute'
                or coalesce(run.winner_scheduled_at, run.opening_scheduled_at) >= searched.due_from
            )
        offset 0
    ) as run
),

claim as materialized (
    {_claims("seen")}
),

-- A run has one slot at most: one that has the slot it claims has no other.
held as (
    select slot.client_id, slot.pipeline_id, slot.slot_at
    from seen
    left join claim on seen.client_id = claim.client_id and seen.run_id = claim.run_id
    cross join lateral (
        select slot.client_id, slot.pipeline_id, slot.slot_at
        from pulsewatch.slot
        where slot.client_id = seen.client_id and slot.run_id = seen.run_id
        offset 0
    ) as slot
    where claim.holder_id is distinct from seen.run_id
),

touched as materialized (
    select
        slot.client_id, slot.pipeline_id, slot.slot_at, slot.deadline_at, slot.run_id, slot.started_at,
        slot.first_at_min, slot.first_at_max,
        seen.run_id is not null as is_seen,
        coalesce(claim.started_at <= slot.started_at, false) as is_held
    from (
        select client_id, pipeline_id, slot_at from due
        union
        select client_id, pipeline_id, slot_at from claim
        union
        select client_id, pipeline_id, slot_at from held
    ) as name
    cross join lateral (
        select slot.client_id, slot.pipeline_id, slot.slot_at, slot.deadline_at, slot.run_id, slot.started_at,
            slot.first_at_min, slot.first_at_max
        from pulsewatch.slot
        where slot.client_id = name.client_id
            and slot.pipeline_id = name.pipeline_id
            and slot.slot_at = name.slot_at
        offset 0
    ) as slot
    left join seen on slot.client_id = seen.client_id and slot.run_id = seen.run_id
    left join claim
        on slot.client_id = claim.client_id and slot.run_id = claim.run_id and slot.slot_at = claim.slot_at
),

-- Where the run that had a slot has left it or started later than it seemed, another may come first by now: one that
-- left its mark long ago, but the slot remembers where to look for it.
other as materialized (
    select distinct run.client_id, run.pipeline_id, run.run_id, run.first_at, run.started_at, run.scheduled_at,
        run.has_come
    from touched
    cross join lateral (
        select {_RUN}
        from pulsewatch.run
        where run.client_id = touched.client_id
            and run.pipeline_id = touched.pipeline_id
            and run.first_at between touched.first_at_min and touched.first_at_max
        offset 0
    ) as run
    where touched.is_seen and not touched.is_held
),

candidate as (
    select client_id, pipeline_id, slot_at, run_id, started_at, first_at from claim
    union all
    select client_id, pipeline_id, slot_at, run_id, started_at, first_at from (
        {_claims("other")}
    ) as of_other
    union all
    -- It left no mark: it is as it was.
    select client_id, pipeline_id, slot_at, run_id, started_at, first_at_min
    from touched
    where run_id is not null and not is_seen
),

first as (
    select distinct on (client_id, pipeline_id, slot_at) client_id, pipeline_id, slot_at, run_id, started_at
    from candidate
    order by client_id, pipeline_id, slot_at, started_at, run_id
),

span as (
    select client_id, pipeline_id, slot_at, min(first_at) as first_at_min, max(first_at) as first_at_max
    from candidate
    group by client_id, pipeline_id, slot_at
),

verdict as (
    select
        touched.client_id, touched.pipeline_id, touched.slot_at, touched.deadline_at,
        case
            when first.started_at <= touched.deadline_at then 'on_time'
            when first.run_id is not null then 'late'
            when %(as_of)s > touched.deadline_at then 'missed'
            else 'open'
        end as status,
        first.run_id, first.started_at,
        least(touched.first_at_min, span.first_at_min) as first_at_min,
        greatest(touched.first_at_max, span.first_at_max) as first_at_max
    from touched
    left join first
        on touched.client_id = first.client_id
        and touched.pipeline_id = first.pipeline_id
        and touched.slot_at = first.slot_at
    left join span
        on touched.client_id = span.client_id
        and touched.pipeline_id = span.pipeline_id
        and touched.slot_at = span.slot_at
),

judged as (
    -- All of them are there: this is an update that finds each row by its key.
    insert into pulsewatch.slot as slot (
        client_id, pipeline_id, slot_at, deadline_at, status, run_id, started_at, first_at_min, first_at_max
    )
    select client_id, pipeline_id, slot_at, deadline_at, status, run_id, started_at, first_at_min, first_at_max
    from verdict
    order by client_id, pipeline_id, slot_at
    on conflict (client_id, pipeline_id, slot_at) do update set
        status = excluded.status,
        run_id = excluded.run_id,
        started_at = excluded.started_at,
        first_at_min = excluded.first_at_min,
        first_at_max = excluded.first_at_max
    where (slot.status, slot.run_id, slot.started_at, slot.first_at_min, slot.first_at_max)
        is distinct from
        (excluded.status, excluded.run_id, excluded.started_at, excluded.first_at_min, excluded.first_at_max)
    returning slot.client_id, slot.pipeline_id, slot.slot_at
),

marked as (
    insert into pulsewatch.dirty (client_id, pipeline_id, hour_at)
    select distinct
        client_id, pipeline_id, date_bin('1 hour', slot_at, '2000-01-01 00:00:00+00') as hour_at
    from judged
    order by client_id, pipeline_id, hour_at
)

select count(*) from judged
"""


@dataclass(frozen=True, slots=True)
class Round:
    """What one round did: pipelines that were planned, slots that changed, and whether there is more to do."""

    planned: int = 0
    judged: int = 0
    is_full: bool = False


def tick(engine: Engine, settings: Settings, as_of: datetime) -> Round:
    """Plan and judge what there is to be done, as much as fits into one round. Does nothing while another does it."""
    with engine.begin() as connection:
        if not _is_mine(connection):
            return Round()
        planned, is_plan_full = plan(connection, as_of, keep_runs_days=settings.keep_runs_days)
    with engine.begin() as connection:
        if not _is_mine(connection):
            return Round(planned)
        judged, is_judge_full = judge(connection, as_of)
    return Round(planned, judged, is_plan_full or is_judge_full)


def _is_mine(connection: Connection) -> bool:
    is_mine: bool = connection.exec_driver_sql(LOCK_SQL).scalar_one()
    return is_mine


def judge(connection: Connection, as_of: datetime) -> tuple[int, bool]:
    """Judge what is due or marked; returns how many slots changed, and whether as much was taken as may be.

    The marks are taken in a statement of their own: the next one sees all runs that left them.
    """
    cells = connection.exec_driver_sql(TAKE_MARKS_SQL, {"as_of": as_of, "limit": MARKS_PER_ROUND}).all()
    due = connection.exec_driver_sql(DUE_SQL, {"as_of": as_of, "limit": DUE_PER_ROUND}).all()
    if not cells and not due:
        return 0, False
    connection.exec_driver_sql(PLANNING)
    values = {"cells": _encoded(cells), "due": _encoded(due), "as_of": as_of, "heard_before": HEARD_BEFORE}
    judged: int = connection.exec_driver_sql(JUDGE_SQL, values).scalar_one()
    is_full = len(due) == DUE_PER_ROUND or sum(cell.mark_count for cell in cells) == MARKS_PER_ROUND
    return judged, is_full


def _encoded(rows: Sequence[Row[Any]]) -> str:
    return msgspec.json.encode([row._asdict() for row in rows]).decode()
