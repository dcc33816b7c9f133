"""Which starts are expected of which pipeline: slots are made ahead, and followed up when a schedule changes.

A pipeline has a plan (a row of slot_plan) while it has a schedule and neither it nor its client is archived. The plan
tells for which schedule slots were made, and up to where. docs/slots.md says what a person may expect.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, Row

from pulsewatch.events import EPOCH, MICROSECOND, SCHEDULED_AHEAD
from pulsewatch.schedules import occurrences

log = logging.getLogger(__name__)

# How late a start may be where the pipeline says nothing.
DEFAULT_GRACE_S = 300.0
# Slots are made ahead at least so far; each time a little further, so that a pipeline's turn comes once an hour.
AHEAD = timedelta(hours=2)
STRIDE = timedelta(hours=1)
# A first plan reaches back to where the schedule was said, but not further than this.
REACH_BACK = timedelta(days=90)
# A run may be heard of so long before the slot it is for.
HEARD_BEFORE = timedelta(days=1)
# Their clocks may be ahead of ours, and they may come in while a plan is being made.
HEARD_AHEAD = timedelta(hours=1)

# What one round makes at most; the rest follows in the next ones.
PIPELINES_PER_ROUND = 2000
SLOTS_PER_ROUND = 20_000
SLOTS_PER_PIPELINE = 2000

# One pass over the pipelines and their plans: those that have something to be done.
FIND_SQL = """
select
    pipeline.client_id,
    pipeline.id as pipeline_id,
    pipeline.schedule,
    pipeline.timezone,
    coalesce(pipeline.start_grace_s, %(default_grace_s)s) as start_grace_s,
    pipeline.said_at,
    plan.schedule as planned_schedule,
    plan.timezone as planned_timezone,
    plan.start_grace_s as planned_grace_s,
    plan.planned_until,
    greatest(pipeline.updated_at, client.updated_at) as revived_at,
    plan.pipeline_id is null and exists (
        select from pulsewatch.slot where slot.client_id = pipeline.client_id and slot.pipeline_id = pipeline.id
    ) as is_taken_up_again,
    wanted.is_wanted
from pulsewatch.pipeline
inner join pulsewatch.client on pipeline.client_id = client.id
left join pulsewatch.slot_plan as plan on pipeline.client_id = plan.client_id and pipeline.id = plan.pipeline_id
cross join lateral (
    select pipeline.schedule is not null and pipeline.archived_at is null and client.archived_at is null as is_wanted
) as wanted
where
    case when wanted.is_wanted
        then plan.pipeline_id is null
            or plan.planned_until < %(ahead)s
            or plan.schedule <> pipeline.schedule
            or plan.timezone is distinct from pipeline.timezone
            or plan.start_grace_s <> coalesce(pipeline.start_grace_s, %(default_grace_s)s)
        else plan.pipeline_id is not null
    end
order by plan.planned_until nulls first, pipeline.client_id, pipeline.id
limit %(pipelines)s
"""

_PIPELINES = "json_to_recordset(%(pipelines)s::json) as item (client_id bigint, pipeline_id bigint)"

END_SQL = f"""
delete from pulsewatch.slot_plan as plan
using {_PIPELINES}
where plan.client_id = item.client_id and plan.pipeline_id = item.pipeline_id
"""

WITHDRAW_SQL = f"""
delete from pulsewatch.slot
using {_PIPELINES}
where slot.client_id = item.client_id
    and slot.pipeline_id = item.pipeline_id
    and slot.slot_at > %(as_of)s
    and slot.status = 'open'
"""

INSERT_SQL = """
insert into pulsewatch.slot (client_id, pipeline_id, slot_at, deadline_at)
select c, p, s, s + make_interval(secs => g)
from json_to_recordset(%(slots)s::json) as item (c bigint, p bigint, s timestamptz, g double precision)
order by c, p, s
on conflict (client_id, pipeline_id, slot_at) do nothing
"""

PLAN_SQL = """
insert into pulsewatch.slot_plan as plan (
    client_id, pipeline_id, schedule, timezone, start_grace_s, planned_until
)
select client_id, pipeline_id, schedule, timezone, start_grace_s, planned_until
from json_to_recordset(%(plans)s::json) as item (
    client_id bigint, pipeline_id bigint, schedule text, timezone text, start_grace_s double precision,
    planned_until timestamptz
)
order by client_id, pipeline_id
on conflict (client_id, pipeline_id) do update set
    schedule = excluded.schedule,
    timezone = excluded.timezone,
    start_grace_s = excluded.start_grace_s,
    planned_until = excluded.planned_until
"""

# Open slots count in no hour, so any hour will do for the pipeline's state to be worked out again: the present one,
# because marks that lie far ahead are dropped.
MARK_STATE_SQL = f"""
insert into pulsewatch.dirty (client_id, pipeline_id, hour_at)
select item.client_id, item.pipeline_id, date_bin('1 hour', %(as_of)s, '2000-01-01 00:00:00+00')
from {_PIPELINES}
order by item.client_id, item.pipeline_id
"""

# New slots among runs that are there already: those runs are looked at again, as if they had changed.
MARK_RUNS_SQL = f"""
insert into pulsewatch.slot_mark (client_id, pipeline_id, hour_at, first_at)
select item.client_id, item.pipeline_id, date_bin('1 hour', %(as_of)s, '2000-01-01 00:00:00+00'), bound.first_at
from {_PIPELINES}
cross join (values (%(heard_from)s), (%(heard_until)s)) as bound (first_at)
order by item.client_id, item.pipeline_id
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is written of one pipeline in one round: these slots, and how far they go."""

    client_id: int
    pipeline_id: int
    schedule: str
    timezone: str | None
    start_grace_s: float
    slot_ats: Sequence[datetime]
    planned_until: datetime
    is_changed: bool
    # Whether runs may be there already that belong to the new slots.
    is_among_runs: bool


def plan(connection: Connection, as_of: datetime, *, keep_runs_days: int) -> tuple[int, bool]:
    """Make the slots that are missing, as many as fit into one round.

    Returns how many pipelines had their turn, and whether there is more to do.
    """
    wanted = {"default_grace_s": DEFAULT_GRACE_S, "ahead": as_of + AHEAD, "pipelines": PIPELINES_PER_ROUND}
    rows = connection.exec_driver_sql(FIND_SQL, wanted).all()
    if ended := [{"client_id": row.client_id, "pipeline_id": row.pipeline_id} for row in rows if not row.is_wanted]:
        values = {"pipelines": _encoded(ended), "as_of": as_of}
        for statement in (WITHDRAW_SQL, END_SQL, MARK_STATE_SQL):
            connection.exec_driver_sql(statement, values)
    oldest = as_of - min(REACH_BACK, timedelta(days=keep_runs_days))
    plans: list[Plan] = []
    room = SLOTS_PER_ROUND
    for row in rows:
        if row.is_wanted and room > 0:
            plans.append(_plan(row, as_of, oldest, min(room, SLOTS_PER_PIPELINE)))
            room -= len(plans[-1].slot_ats)
    if plans:
        _write(connection, plans, as_of)
    is_full = len(rows) == PIPELINES_PER_ROUND or room <= 0 or any(one.planned_until < as_of + AHEAD for one in plans)
    return len(ended) + len(plans), is_full


def _plan(row: Row[Any], as_of: datetime, oldest: datetime, room: int) -> Plan:
    """The next stretch of a pipeline's slots.

    What was planned for stays as it is up to the moment at which another schedule was said, even where the worker was
    away meanwhile: then that stretch comes first, and the new schedule has its turn in the next round.
    """
    schedule, timezone, grace_s = row.schedule, row.timezone, row.start_grace_s
    is_changed = False
    until = as_of + AHEAD + STRIDE
    if row.planned_until is None:
        said_at = _said_at(row, "schedule")
        begin = max(as_of if said_at is None else said_at, oldest)
        if row.is_taken_up_again:
            # It was archived, or had no schedule for a while: nothing was expected then.
            begin = max(begin, min(row.revived_at, as_of))
    elif (row.planned_schedule, row.planned_timezone, row.planned_grace_s) == (schedule, timezone, grace_s):
        begin = max(row.planned_until, oldest)
    else:
        changed_at = min(as_of, max((at for field in SAID_FIELDS if (at := _said_at(row, field))), default=as_of))
        begin = max(row.planned_until, oldest)
        if begin < changed_at:
            schedule, timezone, grace_s = row.planned_schedule, row.planned_timezone, row.planned_grace_s
            until = changed_at
        else:
            is_changed = True
            begin = min(begin, as_of)
    slot_ats, planned_until = _stretch(schedule, timezone, begin, until, as_of, room)
    return Plan(
        row.client_id,
        row.pipeline_id,
        schedule,
        timezone,
        grace_s,
        slot_ats,
        planned_until,
        is_changed,
        is_among_runs=begin <= as_of,
    )


SAID_FIELDS = ("schedule", "timezone", "start_grace_s")


def _said_at(row: Row[Any], field: str) -> datetime | None:
    at = row.said_at.get(field)
    return None if at is None else EPOCH + timedelta(microseconds=at)


def _stretch(
    schedule: str, timezone: str | None, begin: datetime, until: datetime, as_of: datetime, room: int
) -> tuple[list[datetime], datetime]:
    """At most `room` slots from `begin` up to `until`, and up to where (exclusively) these are all there are.

    Where none of them lies beyond AHEAD, the next one after that comes along: something is always expected.
    """
    slot_ats: list[datetime] = []
    try:
        for at in occurrences(schedule, timezone, begin - MICROSECOND, as_of + SCHEDULED_AHEAD):
            if at > until and (until <= as_of or (slot_ats and slot_ats[-1] > as_of + AHEAD)):
                break
            if len(slot_ats) == room:
                return slot_ats, slot_ats[-1] + MICROSECOND
            slot_ats.append(at)
            if at > until:
                break
    except ValueError as error:
        # One that this machine cannot work out does not hold up the others.
        log.warning("no slots: %s", error)
    return slot_ats, max(until, slot_ats[-1] if slot_ats else until) + MICROSECOND


def _write(connection: Connection, plans: Sequence[Plan], as_of: datetime) -> None:
    changed = [_key(one) for one in plans if one.is_changed]
    if changed:
        connection.exec_driver_sql(WITHDRAW_SQL, {"pipelines": _encoded(changed), "as_of": as_of})
    slots = [
        {"c": one.client_id, "p": one.pipeline_id, "s": at, "g": one.start_grace_s}
        for one in plans
        for at in one.slot_ats
    ]
    for month in sorted({at.strftime("%Y-%m-01") for one in plans for at in one.slot_ats}):
        connection.exec_driver_sql("select pulsewatch.ensure_partition(%s::date)", (month,))
    connection.exec_driver_sql(INSERT_SQL, {"slots": _encoded(slots)})
    stored = [
        _key(one)
        | {
            "schedule": one.schedule,
            "timezone": one.timezone,
            "start_grace_s": one.start_grace_s,
            "planned_until": one.planned_until,
        }
        for one in plans
    ]
    connection.exec_driver_sql(PLAN_SQL, {"plans": _encoded(stored)})
    marked = _encoded([_key(one) for one in plans if one.slot_ats or one.is_changed])
    connection.exec_driver_sql(MARK_STATE_SQL, {"pipelines": marked, "as_of": as_of})
    among_runs = [_key(one) for one in plans if one.is_among_runs]
    if among_runs:
        heard = {"heard_from": as_of - HEARD_BEFORE, "heard_until": as_of + HEARD_AHEAD}
        connection.exec_driver_sql(MARK_RUNS_SQL, {"pipelines": _encoded(among_runs), "as_of": as_of} | heard)


def _key(one: Plan) -> dict[str, Any]:
    return {"client_id": one.client_id, "pipeline_id": one.pipeline_id}


def _encoded(rows: list[dict[str, Any]]) -> str:
    return msgspec.json.encode(rows).decode()
