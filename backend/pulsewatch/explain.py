"""Why a rule stands on a target as it does: what it sees, the values it holds that against, and the runs behind it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row

from pulsewatch.alert_writing import stored_of, summary
from pulsewatch.episodes import Standing, State
from pulsewatch.observing import Asked, looks_again_at, observe, verdict_of
from pulsewatch.rules.base import Described, Level, Observation, Verdict
from pulsewatch.rules.rule import Rule

STANDING = """
select
    target.state, target.level, target.state_since, target.pending_since, target.lower_since, target.ok_samples,
    target.sample_at as counted_at, target.alert_id, target.seq, target.target_since, target.deadline_at
from pulsewatch.alert_target as target
where target.client_id = %(client_id)s and target.pipeline_id = %(pipeline_id)s and target.rule_id = %(rule_id)s
"""
# How it stood at a time that is past, as its events tell.
STOOD = """
select
    last.state, last.level, last.alert_id,
    (
        select max(changed.as_of)
        from pulsewatch.alert_event as changed
        where changed.client_id = %(client_id)s
            and changed.alert_id = last.alert_id
            and changed.as_of <= %(as_of)s
            and changed.from_state <> changed.state
    ) as state_since
from (
    select event.as_of, event.seq, event.alert_id, event.state, event.level
    from pulsewatch.alert_event as event
    where event.client_id = %(client_id)s
        and event.pipeline_id = %(pipeline_id)s
        and event.rule_id = %(rule_id)s
        and event.as_of <= %(as_of)s
    order by event.as_of desc, event.seq desc
    limit 1
) as last
"""
LAST_TICK = """
select tick.as_of, tick.frozen_because
from pulsewatch.alert_tick as tick
where tick.as_of <= %(as_of)s
order by tick.as_of desc
limit 1
"""
RUNS = """
select
    run.id, run.external_id, run.status, coalesce(run.start_at, run.implied_start_at) as started_at, run.finished_at,
    run.error_class, run.message, run.url,
    coalesce(run.opening_metrics, '{}') || coalesce(run.winner_metrics, '{}') as metrics
from unnest(%(ids)s::uuid[]) with ordinality as wanted (id, place)
join pulsewatch.run on run.client_id = %(client_id)s and run.id = wanted.id
order by wanted.place
"""


class Wait(StrEnum):
    """What a rule waits for before it tells that something is wrong, or that it is over."""

    GRACE = "new_target_grace"
    HOLDS = "for"
    KEEPS_FIRING = "keep_firing"
    SAMPLES = "recover_consecutive"
    ARRIVALS = "arrivals"
    GATE = "ingestion_gate"


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is waited for. `until` is when that is over if nothing changes; None: time alone does not end it."""

    wait: Wait
    until: datetime | None
    detail: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a rule sees of a target at a time, how it judges that, and how it stood on it then.

    `standing` is None where the rule did not watch the target then, `target_since` where it does not now.
    Though nothing arrives, the value may reach another level at `changes_at`, and the rule looks again at
    `looks_again_at`; None: never.
    """

    observation: Observation
    verdict: Verdict
    summary: str
    runs: list[Row[Any]]
    standing: Standing | None
    alert_id: UUID | None
    target_since: datetime | None
    changes_at: datetime | None
    looks_again_at: datetime | None
    frozen_because: str | None
    waits: tuple[Waiting, ...]


def explain(
    connection: Connection,
    rule: Rule,
    target: Described,
    as_of: datetime,
    *,
    is_past: bool = False,
    was_watched: bool = False,
) -> Explanation:
    """Look at a target as the rule does at a time: by what had been received by then.

    `is_past`: how it stood is told by its events; else as it stands. Since when the rule has watched the target is
    known of the present only: a rule that was switched off since, or describes its targets anew, has begun again.
    `was_watched`: its version of that time did.
    """
    keys = {"client_id": target.client_id, "pipeline_id": target.pipeline_id, "rule_id": rule.id, "as_of": as_of}
    row = connection.exec_driver_sql(STANDING, keys).one_or_none()
    target_since = None if row is None else row.target_since
    asked_at = as_of - timedelta(seconds=rule.spec.evaluation_delay_s)
    asked = Asked(target.client_id, target.pipeline_id, asked_at, as_of, target_since or as_of)
    (seen,) = observe(connection, rule, [asked])
    verdict = verdict_of(rule, seen)
    standing, alert_id = None, None
    is_since = target_since is not None and target_since <= as_of
    if is_past and (is_since or was_watched):
        standing, alert_id = _stood(connection.exec_driver_sql(STOOD, keys).one_or_none())
    elif row is not None and is_since and not is_past:
        standing, alert_id = stored_of(row).standing, row.alert_id
    frozen_because = _frozen_because(connection, rule, as_of)
    return Explanation(
        seen,
        verdict,
        summary(rule, target, verdict.value, verdict.threshold, seen.evidence),
        runs_of(connection, target.client_id, seen.run_ids),
        standing,
        alert_id,
        target_since,
        looks_again_at(rule, seen),
        looks_again_at(rule, seen) if is_past or row is None else row.deadline_at,
        frozen_because,
        tuple(_waits(rule, verdict, standing, target_since, as_of, frozen_because)),
    )


def runs_of(connection: Connection, client_id: int, run_ids: Sequence[UUID]) -> list[Row[Any]]:
    """These runs as they are now, in this order; those that are gone are left out."""
    return list(connection.exec_driver_sql(RUNS, {"client_id": client_id, "ids": list(run_ids)}))


def _stood(row: Row[Any] | None) -> tuple[Standing, UUID | None]:
    """Without events it has always been good."""
    if row is None:
        return Standing(), None
    state, since = State(row.state), row.state_since
    standing = Standing(
        state,
        Level(row.level),
        since,
        pending_since=since if state is State.PENDING else None,
        lower_since=since if state is State.RECOVERING else None,
    )
    return standing, None if state is State.OK else row.alert_id


def _frozen_because(connection: Connection, rule: Rule, as_of: datetime) -> str | None:
    if not rule.spec.definition.is_timed:
        return None
    tick = connection.exec_driver_sql(LAST_TICK, {"as_of": as_of}).one_or_none()
    return None if tick is None else tick.frozen_because


def _waits(
    rule: Rule,
    verdict: Verdict,
    standing: Standing | None,
    target_since: datetime | None,
    as_of: datetime,
    frozen_because: str | None,
) -> Iterator[Waiting]:
    """What has to happen first. Pure."""
    spec = rule.spec
    if frozen_because is not None:
        yield Waiting(
            Wait.GATE, None, f"Rules that measure time are left as they were: {FROZEN.get(frozen_because, 'in doubt')}."
        )
    if standing is None or target_since is None:
        return
    grace_ends_at = target_since + timedelta(seconds=spec.new_target_grace_s)
    if not standing.state.is_open and as_of < grace_ends_at:
        detail = f"The target is new: it does not fire within {spec.new_target_grace_s:g} s."
        yield Waiting(Wait.GRACE, grace_ends_at, detail)
    if standing.state is State.PENDING and verdict.held_until is not None and verdict.held_until > as_of:
        yield Waiting(Wait.ARRIVALS, verdict.held_until, "What happened long ago is arriving; more may be on its way.")
    if standing.state is State.PENDING and standing.pending_since is not None and spec.for_s > 0:
        until = standing.pending_since + timedelta(seconds=spec.for_s)
        yield Waiting(Wait.HOLDS, until, f"It must have been bad for {spec.for_s:g} s.")
    if standing.lower_since is not None and spec.keep_firing_s > 0:
        until = standing.lower_since + timedelta(seconds=spec.keep_firing_s)
        better = "good" if verdict.level is Level.NONE else "better"
        yield Waiting(Wait.KEEPS_FIRING, until, f"It must have been {better} for {spec.keep_firing_s:g} s.")
    if standing.state is State.RECOVERING and standing.ok_samples < spec.recover_consecutive > 1:
        seen = f", {standing.ok_samples} so far" if standing.ok_samples else ""
        detail = f"It takes {spec.recover_consecutive} good samples in a row{seen}."
        yield Waiting(Wait.SAMPLES, None, detail)


FROZEN = {
    "ingestion": "events do not arrive as they should",
    "worker_away": "PulseWatch itself was away until now",
    "catching_up": "PulseWatch or its producers were away, and what could not be sent is on its way",
}
