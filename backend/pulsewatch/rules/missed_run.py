"""A pipeline did not start when it should have."""

from pulsewatch.rules.base import Evidence, Kind, Params
from pulsewatch.rules.known_runs import known_runs
from pulsewatch.rules.spans import runs_of_span

# So many slots are looked at.
MOST = 64
# So many missed ones are named.
MAX_SHOWN = 10
# Deadlines come in the order of their slots, but for those around a change of the pipeline's grace.
NEXT = 4


class MissedRun(Params):
    """Nothing to be told."""


# Slots that were due, the newest first.
_DUE = f"""
    select
        slot.client_id, slot.pipeline_id, slot.slot_at, slot.deadline_at, slot.run_id, slot.started_at, slot.status
    from pulsewatch.slot
    where slot.client_id = asked.client_id
        and slot.pipeline_id = asked.pipeline_id
        and slot.slot_at <= asked.as_of
        and slot.deadline_at <= asked.as_of
        and planned.has_slots
    order by slot.slot_at desc
    limit {MOST}
"""

# A slot that no run has may have been left open by the worker, or its run may have been another one then. Whether a
# known run claims it is told by the rules of slots (docs/slots.md): by its scheduled_at, else by its start, which
# counts for the last slot before it, or for the next one if that is nearer and less than a minute away.
# None that is as it was claims a slot that was judged missed: each missed start would have the runs of a day looked at.
_MAY_CLAIM = "slot.status <> 'missed' or run.received_at >= asked.known_at or asked.known_at = 'infinity'"
_IS_CLAIMED = f"""
    exists (
        select
        from (
            select
                slot.slot_at - least(interval '1 minute', (
                    slot.slot_at - (
                        select max(near.slot_at)
                        from pulsewatch.slot as near
                        where near.client_id = slot.client_id
                            and near.pipeline_id = slot.pipeline_id
                            and near.slot_at < slot.slot_at
                    )
                ) / 2) as from_at,
                coalesce(near.slot_at - least(interval '1 minute', (near.slot_at - slot.slot_at) / 2), 'infinity')
                    as until_at
            from (
                select min(near.slot_at) as slot_at
                from pulsewatch.slot as near
                where near.client_id = slot.client_id
                    and near.pipeline_id = slot.pipeline_id
                    and near.slot_at > slot.slot_at
            ) as near
        ) as claim
        cross join lateral {known_runs(since="slot.slot_at - interval '1 day'", newest=None, only=_MAY_CLAIM)} as run
        where run.status <> 'queued'
            and (
                run.scheduled_at = slot.slot_at
                or coalesce(run.started_at, run.first_at) >= claim.from_at
                and coalesce(run.started_at, run.first_at) < claim.until_at
                and not exists (
                    select
                    from pulsewatch.slot as own
                    where own.client_id = slot.client_id
                        and own.pipeline_id = slot.pipeline_id
                        and own.slot_at = run.scheduled_at
                )
            )
    )
"""

# Where nothing was received since, none has to be looked for.
_IS_TAKEN = f"""
    exists (
        select
        from pulsewatch.run
        where run.client_id = slot.client_id
            and run.id = slot.run_id
            and run.received_at < asked.known_at
            and slot.started_at <= asked.as_of
    )
    or not (slot.status = 'missed' and asked.is_settled and asked.known_at < 'infinity')
    and {_IS_CLAIMED}
"""

OBSERVE = f"""
select
    asked.rule_id, asked.client_id, asked.pipeline_id, asked.as_of,
    case when newest.is_taken then 0 else missed.slot_count end::double precision as value,
    newest.deadline_at as sample_at,
    coming.next_at,
    '{{}}'::uuid[] as run_ids,
    case when missed.slot_count > 0 then jsonb_build_object('slots', missed.slots) end as evidence
from asked
-- Most pipelines have no schedule, and to find no slot every month has to be looked at.
cross join lateral (
    select exists (
        select
        from pulsewatch.pipeline_state as state
        where state.client_id = asked.client_id
            and state.pipeline_id = asked.pipeline_id
            and coalesce(state.last_slot_at, state.next_slot_at) is not null
    ) as has_slots
    offset 0
) as planned
left join lateral (
    select slot.slot_at, slot.deadline_at, ({_IS_TAKEN}) as is_taken
    from ({_DUE}) as slot
    limit 1
) as newest on true
left join lateral (
    select slot.slot_at
    from ({_DUE}) as slot
    where not newest.is_taken and ({_IS_TAKEN})
    limit 1
) as taken on not newest.is_taken
left join lateral (
    select count(*) as slot_count, (array_agg(slot.slot_at order by slot.slot_at desc))[1:{MAX_SHOWN}] as slots
    from ({_DUE}) as slot
    where not newest.is_taken and slot.slot_at > coalesce(taken.slot_at, '-infinity')
) as missed on not newest.is_taken
left join lateral (
    select min(slot.deadline_at) as next_at
    from (
        select slot.deadline_at
        from pulsewatch.slot
        where slot.client_id = asked.client_id
            and slot.pipeline_id = asked.pipeline_id
            and slot.slot_at > coalesce(newest.slot_at, '-infinity')
            and slot.deadline_at > asked.as_of
            and planned.has_slots
        order by slot.slot_at
        limit {NEXT}
    ) as slot
) as coming on true
"""

# When a slot is due, and when a run comes.
INSTANTS = f"""
select span.rule_id, span.client_id, span.pipeline_id, changed.at as as_of
from span
cross join lateral (
    select slot.deadline_at
    from pulsewatch.slot
    where slot.client_id = span.client_id
        and slot.pipeline_id = span.pipeline_id
        and slot.deadline_at >= span.from_at
        and slot.slot_at >= span.from_at - interval '31 days'
        and slot.slot_at < span.to_at
    union all
    select happened.at
    from {runs_of_span()} as run
    cross join lateral (values (run.first_at), (run.started_at), (run.finished_at)) as happened (at)
) as changed (at)
where changed.at >= span.from_at and changed.at < span.to_at
"""


def _whole(level: float) -> None:
    if level < 1 or level > MOST or level != int(level):
        raise ValueError(f"a number of starts from 1 to {MOST}")


def _describe(value: float, threshold: float, _params: Params, _seen: Evidence) -> str:
    starts = "1 expected start was" if value == 1 else f"{value:.0f} expected starts in a row were"
    return f"{starts} missed (limit {threshold:.0f})"


KIND = Kind(
    name="missed_run",
    title="Missed starts in a row",
    unit="starts",
    params=MissedRun,
    observe=OBSERVE,
    instants=INSTANTS,
    describe=_describe,
    is_timed=True,
    check_level=_whole,
)
