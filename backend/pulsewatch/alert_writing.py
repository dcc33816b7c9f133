"""Writes down what changed about alerts: standings, alerts, their events and what people are to be told, together.

Everything happens in the caller's transaction, under ALERTING_LOCK: whoever changes alerts holds it, so that the
events of an episode have one order. The same change written again writes nothing: episodes and events have keys made
of what they speak of.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from pulsewatch import notifying
from pulsewatch.alert_sql import ALERTS, FIRED_AT, INSERT_ALERTS, INSERT_EVENTS, SET_STANDINGS, STANDINGS, UPDATE_ALERTS
from pulsewatch.db import fetch
from pulsewatch.episodes import EventKind, Standing, State, Step, Transition, closed
from pulsewatch.events import digest16
from pulsewatch.rules.base import Described, Evidence, Level, Observation, Verdict
from pulsewatch.rules.rule import Rule
from pulsewatch.rules.spec import fill_in

ALERTING_LOCK = "select pg_advisory_xact_lock(hashtext('pulsewatch.alerting'))"
# Who waits for an answer holds one of a few connections meanwhile: after that he is asked to come again.
WAIT_BRIEFLY = "set local lock_timeout = '2s'"
TRY_ALERTING_LOCK = "select pg_try_advisory_xact_lock(hashtext('pulsewatch.alerting'))"


@dataclass(frozen=True, slots=True)
class Stored:
    """What alert_target holds of a rule on a target."""

    standing: Standing
    alert_id: UUID | None = None
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """What a verdict, or somebody, changes about a rule on a target."""

    rule: Rule
    target: Described
    stored: Stored
    step: Step
    as_of: datetime
    deadline_at: datetime | None = None
    verdict: Verdict | None = None
    observation: Observation | None = None
    # Of an end that is no recovery: rule_changed, rule_deleted, rule_disabled or target_removed.
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class _Event:
    """An event, and what it changes of its alert."""

    change: Change
    transition: Transition
    alert_id: UUID
    seq: int

    @property
    def value(self) -> float | None:
        verdict = self.change.verdict
        return None if verdict is None else verdict.value

    @property
    def threshold(self) -> float | None:
        verdict = self.change.verdict
        return None if verdict is None else verdict.threshold

    @property
    def summary(self) -> str:
        seen = self.change.observation
        evidence = None if seen is None else seen.evidence
        return summary(self.change.rule, self.change.target, self.value, self.threshold, evidence)


def write(connection: Connection, changes: Sequence[Change]) -> int:
    """Write changes down, at most one of each target and rule; returns how many events there were."""
    stand(connection, changes)
    return tell(connection, changes)


def tell(
    connection: Connection,
    changes: Iterable[Change],
    *,
    known_at: datetime | None = None,
    now: datetime | None = None,
    is_backfill: bool = False,
) -> int:
    """The same without the standings: the events, and what people are to hear of them.

    `now` is the time of the moment where it is later than that of the changes.
    What is written afterwards (`is_backfill`) leaves the standings as they are: `stand` sets those that go on.
    """
    changes = sorted(changes, key=lambda change: (change.target.client_id, change.target.pipeline_id, change.rule.id))
    events = [event for change in changes for event in _events_of(change)]
    if events:
        told = _write_events(connection, events, known_at, is_backfill=is_backfill)
        if told:
            as_of = max(event.change.as_of for event in told)
            notifying.notify(connection, _told(connection, told, is_backfill=is_backfill), as_of, now)
    return len(events)


def stand(connection: Connection, changes: Sequence[Change]) -> None:
    """Set where changes lead: the standings of their targets, and when those are looked at again."""
    for asked in standings(changes):
        fetch(connection, *asked)


def standings(changes: Sequence[Change]) -> list[tuple[str, dict[str, Any]]]:
    """The statement that does that; none where nothing changes."""
    return [(SET_STANDINGS, {"rows": json.dumps([_standing_row(change) for change in changes])})] if changes else []


def after(change: Change) -> Stored:
    """What alert_target holds once the change is written."""
    standing, events = change.step.standing, _events_of(change)
    if standing.state is State.OK:
        return Stored(standing)
    return (
        Stored(standing, events[-1].alert_id, events[-1].seq) if events else replace(change.stored, standing=standing)
    )


def close(connection: Connection, targets: Sequence[tuple[Rule, Described]], reason: str, as_of: datetime) -> int:
    """End whatever is going on of these rules on these targets: alerts are resolved for this reason.

    Returns how many events there were.
    """
    wanted = {
        "client_ids": [target.client_id for _, target in targets],
        "pipeline_ids": [target.pipeline_id for _, target in targets],
        "rule_ids": [rule.id for rule, _ in targets],
    }
    named = {(target.client_id, target.pipeline_id, rule.id): (rule, target) for rule, target in targets}
    changes = []
    for row in connection.exec_driver_sql(STANDINGS, wanted):
        rule, target = named[row.client_id, row.pipeline_id, row.rule_id]
        stored = stored_of(row)
        changes.append(Change(rule, target, stored, closed(stored.standing, as_of), as_of, reason=reason))
    return write(connection, changes)


def stored_of(row: Any) -> Stored:
    """What a row of alert_target says."""
    standing = Standing(
        State(row.state),
        Level(row.level),
        row.state_since,
        row.pending_since,
        row.lower_since,
        row.ok_samples,
        row.counted_at,
    )
    return Stored(standing, row.alert_id, row.seq)


def episode_id(rule_id: int, client_id: int, pipeline_id: int, began_at: datetime) -> UUID:
    """The id of the episode of a rule on a target that began then; the same whoever works it out."""
    return UUID(hex=digest16("alert", str(rule_id), str(client_id), str(pipeline_id), began_at.isoformat()))


def summary(
    rule: Rule, target: Described, value: float | None, threshold: float | None, evidence: Evidence | None
) -> str:
    """One sentence for people: which target, and what is the matter with it."""
    if value is None or threshold is None:
        return f"{target.name}: there is nothing to measure"
    return f"{target.name}: {rule.spec.definition.describe(value, threshold, rule.spec.parsed, evidence or {})}"


def _events_of(change: Change) -> list[_Event]:
    if not change.step.transitions:
        return []
    stored, target = change.stored, change.target
    alert_id = stored.alert_id
    if stored.standing.state is State.OK or alert_id is None:
        alert_id = episode_id(change.rule.id, target.client_id, target.pipeline_id, change.as_of)
    seq = 0 if stored.standing.state is State.OK else stored.seq
    return [
        _Event(change, transition, alert_id, seq + number)
        for number, transition in enumerate(change.step.transitions, 1)
    ]


def _standing_row(change: Change) -> dict[str, Any]:
    new = after(change)
    standing = new.standing
    return {
        "client_id": change.target.client_id,
        "pipeline_id": change.target.pipeline_id,
        "rule_id": change.rule.id,
        "deadline_at": _iso(change.deadline_at),
        "state": standing.state,
        "level": int(standing.level),
        "alert_id": None if new.alert_id is None else str(new.alert_id),
        "state_since": _iso(standing.state_since),
        "pending_since": _iso(standing.pending_since),
        "lower_since": _iso(standing.lower_since),
        "ok_samples": standing.ok_samples,
        "sample_at": _iso(standing.sample_at),
        "seq": new.seq,
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


TOLD = {
    EventKind.FIRED: "fired",
    EventKind.LEVEL_CHANGED: "level_changed",
    EventKind.RESOLVED: "resolved",
}


def _write_events(
    connection: Connection, events: Sequence[_Event], known_at: datetime | None, *, is_backfill: bool
) -> list[_Event]:
    """Write events, and what they make of their alerts; returns those that people are told of."""
    fired = [event for event in events if event.transition.kind is EventKind.FIRED]
    if fired:
        rows = [_alert_row(event, is_backfill=is_backfill) for event in fired]
        connection.exec_driver_sql(INSERT_ALERTS, {"rows": json.dumps(rows)})
    moved = [event for event in events if event.transition.kind in {EventKind.LEVEL_CHANGED, EventKind.RESOLVED}]
    if moved:
        fired_at = _fired_at(connection, moved)
        rows = [_moved_row(event, fired_at.get((event.change.target.client_id, event.alert_id))) for event in moved]
        connection.exec_driver_sql(UPDATE_ALERTS, {"rows": json.dumps(rows)})
    event_rows = [_event_row(event, known_at, is_backfill=is_backfill) for event in events]
    connection.exec_driver_sql(INSERT_EVENTS, {"rows": json.dumps(event_rows)})
    return [event for event in events if event.transition.kind in TOLD]


def _alert_row(event: _Event, *, is_backfill: bool) -> dict[str, Any]:
    change, spec, standing = event.change, event.change.rule.spec, event.change.step.standing
    return {
        "client_id": change.target.client_id,
        "id": str(event.alert_id),
        "rule_id": change.rule.id,
        "rule_version": change.rule.version,
        "pipeline_id": change.target.pipeline_id,
        "level": int(standing.level),
        "pending_at": _iso(standing.pending_since),
        "fired_at": change.as_of.isoformat(),
        "value": event.value,
        "threshold": event.threshold,
        "summary": event.summary,
        "labels": spec.labels,
        "annotations": _filled(event, change.as_of),
        "is_backfill": is_backfill,
        "is_dry_run": spec.is_dry_run,
    }


def _fired_at(connection: Connection, events: Sequence[_Event]) -> dict[tuple[int, UUID], datetime]:
    """When these alerts fired, where their texts have to be filled in anew because the level is another one."""
    anew = [
        (event.change.target.client_id, event.alert_id)
        for event in events
        if event.transition.kind is EventKind.LEVEL_CHANGED and event.change.rule.spec.annotations
    ]
    if not anew:
        return {}
    wanted = {"client_ids": [client_id for client_id, _ in anew], "ids": [alert_id for _, alert_id in anew]}
    return {(client_id, id_): fired_at for client_id, id_, fired_at in fetch(connection, FIRED_AT, wanted)}


def _filled(event: _Event, fired_at: datetime) -> dict[str, str]:
    """The annotations of the rule with their placeholders filled in."""
    rule, target, level = event.change.rule, event.change.target, event.change.step.standing.level
    values = {
        "client": target.client,
        "pipeline": target.pipeline,
        "owner": target.owner,
        "environment": target.environment,
        "rule": rule.key,
        "level": level.word,
        "value": None if event.value is None else f"{event.value:g}",
        "threshold": None if event.threshold is None else f"{event.threshold:g}",
        "unit": rule.spec.definition.unit,
        "fired_at": fired_at.isoformat(),
    }
    return {name: fill_in(text, values) for name, text in rule.spec.annotations.items()}


def _moved_row(event: _Event, fired_at: datetime | None) -> dict[str, Any]:
    """`fired_at`: where its texts are filled in anew."""
    is_over = event.transition.kind is EventKind.RESOLVED
    return {
        "client_id": event.change.target.client_id,
        "id": str(event.alert_id),
        "level": int(event.transition.level),
        "value": event.value,
        "threshold": event.threshold,
        "summary": event.summary,
        "annotations": None if fired_at is None or is_over else _filled(event, fired_at),
        "resolved_at": event.change.as_of.isoformat() if is_over else None,
        "resolve_reason": (event.change.reason or "recovered") if is_over else None,
    }


def _event_row(event: _Event, known_at: datetime | None, *, is_backfill: bool) -> dict[str, Any]:
    change, transition, spec, seen = event.change, event.transition, event.change.rule.spec, event.change.observation
    evidence = None
    if seen is not None:
        evidence = {
            "runs": [str(run_id) for run_id in seen.run_ids],
            "sample_at": _iso(seen.sample_at),
            "next_at": _iso(seen.next_at),
            "params": spec.params,
            "levels": spec.levels.model_dump(exclude_none=True),
        } | dict(seen.evidence or {})
    return {
        "client_id": change.target.client_id,
        "as_of": change.as_of.isoformat(),
        "alert_id": str(event.alert_id),
        "seq": event.seq,
        "rule_id": change.rule.id,
        "rule_version": change.rule.version,
        "pipeline_id": change.target.pipeline_id,
        "kind": transition.kind,
        "from_state": transition.from_state,
        "state": transition.state,
        "prev_level": int(transition.prev_level),
        "level": int(transition.level),
        "value": event.value,
        "threshold": event.threshold,
        "reason": change.reason,
        "evidence": evidence,
        "known_at": _iso(known_at),
        "is_backfill": is_backfill,
    }


def _told(connection: Connection, events: Sequence[_Event], *, is_backfill: bool) -> list[notifying.Told]:
    """What is to be told, with the alerts as they are now."""
    ids = {(event.change.target.client_id, event.alert_id) for event in events}
    wanted = {"client_ids": [client_id for client_id, _ in ids], "ids": [alert_id for _, alert_id in ids]}
    alerts = {(row.client_id, row.id): row for row in connection.exec_driver_sql(ALERTS, wanted)}
    told = []
    for event in events:
        alert = alerts[event.change.target.client_id, event.alert_id]
        told.append(
            notifying.Told(
                client_id=alert.client_id,
                alert_id=alert.id,
                event_as_of=event.change.as_of,
                event_seq=event.seq,
                reason=TOLD[event.transition.kind],
                rule=event.change.rule,
                target=event.change.target,
                level=Level(event.transition.level or alert.level),
                prev_level=Level(event.transition.prev_level),
                max_level=Level(alert.max_level),
                value=event.value,
                threshold=event.threshold,
                summary=alert.summary,
                fired_at=alert.fired_at,
                resolved_at=alert.resolved_at,
                acknowledged_at=alert.acknowledged_at,
                snoozed_until=alert.snoozed_until,
                labels=alert.labels,
                annotations=alert.annotations,
                run_ids=() if event.change.observation is None else event.change.observation.run_ids,
                # Of the event: what becomes of an alert of the past is told once it happens now.
                is_backfill=is_backfill,
                is_dry_run=alert.is_dry_run,
            )
        )
    return told
