"""Evaluates the alert rules: what arrived or fell due since the last tick is looked at, judged, and written down.

A tick is for an instant of a grid of 5 s. It waits until all that was received before that instant is committed and
worked out, and looks at nothing that came later: so it sees what a backtest of that instant sees, whenever it comes
and however many workers there are. It costs what has changed and what is due, not rules times targets.

Everything of a tick commits together: marks are gone, standings, alerts and events are there, and so are the messages
to send. A tick that is killed has done nothing; the next one does it.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

from sqlalchemy import Connection, Engine

from pulsewatch import alert_targets, alert_writing, gate, reminders
from pulsewatch.alert_writing import Change, stored_of
from pulsewatch.db import fetch, fetch_all
from pulsewatch.episodes import step
from pulsewatch.looking import LookFailedError, Seen, bounds, look, look_or_fail, unbounded
from pulsewatch.observing import looks_again_at, observation_of, policy_of, verdict_of
from pulsewatch.rules.base import Described, Lack, Level, Verdict
from pulsewatch.rules.rule import Rule

log = logging.getLogger(__name__)

TRY_AGAIN_AFTER = timedelta(minutes=1)

# The instant up to which everything is known. A transaction of ingestion that is open may commit events received when
# it began. One that has been open for over a minute is given up: it would hold up all alerts. Sessions of the edge
# count from their first word, before they have taken ingestion's lock. (The view pg_stat_activity would look up the
# names of all databases and roles too.)
RECEIVED_UNTIL = """
select min(session.xact_start) as received_until
from pg_catalog.pg_stat_get_activity(null) as session
where session.datid = (select oid from pg_catalog.pg_database where datname = current_database())
    and session.pid <> pg_backend_pid()
    and session.xact_start > clock_timestamp() - interval '1 minute'
    and (
        session.application_name = 'pulsewatch ingest'
        or session.pid in (
            select held.pid
            from pg_catalog.pg_locks as held
            where held.locktype = 'advisory'
                and held.objsubid = 1
                and held.mode = 'ShareLock'
                and held.objid = (hashtext('pulsewatch.ingest')::bigint & 4294967295)::oid
        )
    )
"""
# Times are those of the grid of 5 s.
_ON_GRID = "date_bin('5 seconds', {}, '2000-01-01 00:00:00+00')"
# Up to when all is committed, and the latest tick there was.
BEGINNING = f"""
select {_ON_GRID.format("received.received_until")} as committed_until, last.*
from ({RECEIVED_UNTIL}) as received
left join lateral ({gate.LAST_TICK}) as last on true
"""  # noqa: S608 - constants
# Marks tell what is not worked out yet. They are read after that: what was open no more has left its marks by now. Of
# two clocks the one that is behind counts: what is yet to come for either is not known.
_WORKED_OUT = """
    least(
        %(now)s::timestamptz,
        clock_timestamp(),
        (select min(marked_at) from pulsewatch.dirty),
        (select min(marked_at) from pulsewatch.slot_mark)
    )
"""
WORKED_OUT_UNTIL = f"select {_ON_GRID.format(_WORKED_OUT)} as worked_out_until"

# What a crash of the server takes back of a tick is left to the next one, marks and all. What rests on it, as a message
# that is sent or somebody's acknowledgement, is on disk no earlier. An alert that was only seen may be gone.
_NO_WAIT_FOR_DISK = "set_config('synchronous_commit', 'off', true)"

# Pipelines as texts of arrays, which go back as they are: no number is turned over on the way.
TAKE_MARKS = """
with known as (
    delete from pulsewatch.alert_mark where marked_at < %(known_at)s returning client_id, pipeline_id, is_defined
),

defined as (
    delete from pulsewatch.alert_mark
    where marked_at >= %(known_at)s and is_defined
    returning client_id, pipeline_id, is_defined
),

taken as (
    select * from known
    union all
    select * from defined
),

touched as materialized (
    select client_id, pipeline_id, bool_or(is_defined) as is_defined
    from taken
    -- Always true. The planner takes the room that marks left for marks, and would make a table for all of them.
    where pipeline_id + 0 = pipeline_id
    group by client_id, pipeline_id
),

target as (
    select client_id, pipeline_id from touched where pipeline_id > 0
    union all
    select distinct client_id, 0 from touched
    union all
    select 0, 0
)

select
    array_agg(target.client_id)::text as client_ids,
    array_agg(target.pipeline_id)::text as pipeline_ids,
    (
        select array_agg(array[touched.client_id, touched.pipeline_id])
        from touched
        where touched.is_defined
    ) as defined,
    (select count(*) from touched) as touched_count,
    (
        select state.reltuples
        from pg_catalog.pg_class as state
        where state.oid = 'pulsewatch.pipeline_state'::regclass
    ) as pipeline_count
from target
"""
# So many touched pipelines, if they are a good part of all, are found sooner by looking through all.
MANY = 1000
GOOD_PART = 0.25

DUE_RULES = """
select distinct target.rule_id
from pulsewatch.alert_target as target
where target.deadline_at <= %(as_of)s
"""

# What is not looked at now, is at the first tick that may.
PUT_OFF = """
update pulsewatch.alert_target as target
set deadline_at = %(as_of)s
from unnest(%(client_ids)s::bigint[], %(pipeline_ids)s::bigint[]) as touched (client_id, pipeline_id)
where target.client_id = touched.client_id
    and target.pipeline_id = touched.pipeline_id
    and target.rule_id = any(%(rule_ids)s)
    and (target.deadline_at is null or target.deadline_at > %(as_of)s)
"""

RECORD = """
insert into pulsewatch.alert_tick as tick (
    as_of, seen_at, touched, changed, frozen_because, away_s, duration_s
)
values (
    %(as_of)s, %(seen_at)s, %(touched)s, %(changed)s, %(frozen_because)s, %(away_s)s, %(duration_s)s
)
on conflict (as_of) do update set
    seen_at = excluded.seen_at,
    touched = excluded.touched,
    changed = excluded.changed,
    frozen_because = excluded.frozen_because,
    away_s = excluded.away_s,
    duration_s = excluded.duration_s
"""


@dataclass(frozen=True, slots=True)
class Ticked:
    """What a tick did: how many pipelines were touched, how many standings changed, how many events there were.

    `is_careful`: rules were looked at kind by kind.
    """

    as_of: datetime
    touched: int
    changed: int
    events: int
    frozen_because: str | None
    is_careful: bool


def tick(engine: Engine, now: datetime, *, known_at: datetime | None = None, is_careful: bool = False) -> Ticked | None:
    """Evaluate what changed and what is due, for the latest instant of the grid up to which all is known.

    None: another worker does it, or that instant was done. `known_at` is for histories that were received later than
    what they tell of: then `now` itself is evaluated, by what had been received before `known_at`. Where rules cannot
    be looked at all together, it is done again with care; `is_careful`: at once.
    """
    began = monotonic()
    if not is_careful:
        try:
            return _tick(engine, now, known_at, began, is_careful=False)
        except LookFailedError as failed:
            log.warning("alert rules are looked at kind by kind: %s", failed)
    return _tick(engine, now, known_at, began, is_careful=True)


def _tick(engine: Engine, now: datetime, known_at: datetime | None, began: float, *, is_careful: bool) -> Ticked | None:
    with engine.begin() as connection:
        beginning = begin(connection, now)
        if beginning is None:
            return None
        last = beginning.last
        as_of = now if known_at is not None else beginning.known_until
        if last is not None and as_of <= last.as_of:
            gate.still_there(connection, last)
            return None
        return evaluate(connection, as_of, known_at or as_of, last, began, now, is_careful=is_careful)


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a tick begins with: the latest tick there was (None: none ever), and the latest instant that it may be for.

    Before `known_until`, which is on the grid, all that was received is committed and worked out.
    """

    last: gate.LastTick | None
    known_until: datetime


def begin(connection: Connection, now: datetime) -> Beginning | None:
    """Take ALERTING_LOCK, and see how far things are; None: somebody else holds it."""
    ((is_ours, _),), ((committed_until, *last),), ((worked_out_until,),) = fetch_all(
        connection,
        (f"{alert_writing.TRY_ALERTING_LOCK}, {_NO_WAIT_FOR_DISK}", {}),
        (BEGINNING, {"now": now}),
        (WORKED_OUT_UNTIL, {"now": now}),
    )
    if not is_ours:
        return None
    return Beginning(
        gate.LastTick(*last) if last[0] is not None else None,
        worked_out_until if committed_until is None else min(committed_until, worked_out_until),
    )


def evaluate(
    connection: Connection,
    as_of: datetime,
    known_at: datetime,
    last: gate.LastTick | None = None,
    began: float | None = None,
    now: datetime | None = None,
    *,
    is_careful: bool = True,
) -> Ticked:
    """Do all of a tick within the caller's transaction, who holds ALERTING_LOCK.

    `now` is the time of the moment where it is later than as_of. It decides nothing but what silences hold back.
    Without `is_careful` it raises LookFailedError where rules cannot be looked at all together.
    """
    began = monotonic() if began is None else began
    record: dict[str, Any] = {
        "as_of": as_of,
        "seen_at": as_of if last is None else last.now,
        "touched": 0,
        "changed": 0,
        "frozen_because": None,
        "away_s": None if last is None else last.away_s,
        "duration_s": 0,
    }
    if record["away_s"] is not None:
        # The rule that tells of it reads it there.
        fetch(connection, RECORD, record)
    taken = _take(connection, as_of, known_at)
    changed: list[Change] = []
    events = 0
    # Whether ingestion is well is told before what depends on it is looked at.
    for is_timed in (False, True):
        frozen_because = gate.frozen_because(connection, last, as_of, taken.silent_for) if is_timed else None
        those = [rule for rule in taken.rules if rule.spec.definition.is_timed is is_timed]
        if not those:
            continue
        if frozen_because is not None:
            fetch(connection, PUT_OFF, {**taken.due, "rule_ids": [rule.id for rule in those]})
            continue
        seen = (look if is_careful else look_or_fail)(connection, those, taken.due, is_many=taken.is_many)
        changes = _changes(seen, {rule.id: rule for rule in those}, as_of)
        changed += changes
        events += alert_writing.tell(connection, _described(connection, changes), known_at=known_at, now=now)
    record |= {
        "touched": taken.touched_count,
        "changed": len(changed),
        "frozen_because": frozen_because,
        "duration_s": monotonic() - began,
    }
    *_, found = fetch_all(
        connection, *alert_writing.standings(changed), (RECORD, record), reminders.is_anything(as_of, now)
    )
    if reminders.remind(connection, as_of, now, found):
        fetch(connection, RECORD, record | {"duration_s": monotonic() - began})
    return Ticked(as_of, taken.touched_count, len(changed), events, frozen_because, is_careful)


@dataclass(frozen=True, slots=True)
class _Taken:
    """What a tick has to look at: of which rules, at what time (`due`), and at a good part of all targets or few."""

    rules: Sequence[Rule]
    due: Mapping[str, Any]
    is_many: bool
    touched_count: int
    silent_for: gate.SilentFor


def _take(connection: Connection, as_of: datetime, known_at: datetime) -> _Taken:
    """Take the marks, and give pipelines that were defined anew the targets that they make."""
    (marks,), in_force, silent_for, _ = fetch_all(
        connection,
        (TAKE_MARKS, {"known_at": known_at}),
        (alert_targets.IN_FORCE, {}),
        (gate.SILENCE, {"as_of": as_of}),
        bounds(),
    )
    client_ids, pipeline_ids, defined, touched_count, pipeline_count = marks
    if defined:
        # However long that takes: nothing can be told before.
        fetch(connection, *unbounded())
        alert_targets.retarget_pipelines(connection, [(one, other) for one, other in defined], as_of)
        fetch(connection, *bounds())
    rules = alert_targets.understood(in_force)
    if not touched_count:
        # Most ticks find nothing, and no statement is the cheapest.
        due_rules = {rule_id for (rule_id,) in fetch(connection, DUE_RULES, {"as_of": as_of})}
        rules = [rule for rule in rules if rule.id in due_rules]
    due = {"as_of": as_of, "known_at": known_at, "client_ids": client_ids, "pipeline_ids": pipeline_ids}
    is_many = touched_count >= max(MANY, GOOD_PART * pipeline_count)
    return _Taken(rules, due, is_many, touched_count, silent_for)


def _changes(seen: Iterable[Seen], rules: Mapping[int, Rule], as_of: datetime) -> list[Change]:
    """What is to be written: a standing, or the time to look again."""
    changes = []
    for row, is_error in seen:
        change = _change(rules[row.rule_id], row, as_of, is_error=is_error)
        if (
            change.step.transitions
            or change.step.standing != change.stored.standing
            or (change.deadline_at != row.deadline_at)
        ):
            changes.append(change)
    return changes


def _change(rule: Rule, row: Any, as_of: datetime, *, is_error: bool) -> Change:
    stored = stored_of(row)
    target = Described(row.client_id, row.pipeline_id, None, None)
    observation = None if is_error else observation_of(row)
    if observation is None:
        verdict = Verdict(Level.NONE, None, None, Lack.ERROR)
        look_at: datetime | None = as_of + TRY_AGAIN_AFTER
    else:
        verdict = verdict_of(rule, observation)
        look_at = looks_again_at(rule, observation)
    grace_ends_at = row.target_since + timedelta(seconds=rule.spec.new_target_grace_s)
    if as_of < grace_ends_at and not stored.standing.state.is_open:
        verdict, look_at = Verdict(Level.NONE, verdict.threshold, verdict.value), grace_ends_at
    sample_at = as_of if observation is None else observation.sample_at
    taken = step(stored.standing, verdict, as_of, sample_at, policy_of(rule))
    deadline_at = min((at for at in (look_at, taken.deadline_at) if at is not None), default=None)
    return Change(rule, target, stored, taken, as_of, deadline_at, verdict, observation)


def _described(connection: Connection, changes: Sequence[Change]) -> list[Change]:
    """The changes with all that messages say of their targets, where there is anything to tell."""
    wanted = {(one.target.client_id, one.target.pipeline_id) for one in changes if one.step.transitions}
    if not wanted:
        return list(changes)
    known = {(one.client_id, one.pipeline_id): one for one in alert_targets.describe(connection, wanted)}
    return [
        replace(one, target=known.get((one.target.client_id, one.target.pipeline_id), one.target)) for one in changes
    ]
