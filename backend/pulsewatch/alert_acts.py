"""What people do with an alert: take it on, give it back, put it off, say something.

Each act is an alert event like those of the rules, in the order of the episode; the alert shows what holds. Everything
happens in the caller's transaction, under ALERTING_LOCK: take `lock` before anything is read, so that whoever evaluates
rules sees all of it or nothing.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, func, insert, select, update

from pulsewatch import catalog, models
from pulsewatch.alert_writing import ALERTING_LOCK, WAIT_BRIEFLY
from pulsewatch.episodes import State


class ActKind(StrEnum):
    """What people do with an alert, beside what verdicts do."""

    ACKNOWLEDGED = "acknowledged"
    UNACKNOWLEDGED = "unacknowledged"
    SNOOZED = "snoozed"
    COMMENTED = "commented"


class AlertResolved(Exception):
    """The alert is over: there is nothing left to be taken on or put off."""


@dataclass(frozen=True, slots=True)
class Act:
    """Who does something with which alert (the name of a key), when, and what they say about it."""

    client_id: int
    alert_id: UUID
    as_of: datetime
    actor: str | None
    comment: str | None = None


def lock(connection: Connection) -> datetime:
    """Until the transaction ends nobody else changes alerts; the time, as it is then.

    Raises OperationalError (SQLSTATE 55P03) where others take longer than two seconds.
    """
    connection.exec_driver_sql(WAIT_BRIEFLY)
    connection.exec_driver_sql(ALERTING_LOCK)
    return catalog.clock(connection)


def acknowledge(connection: Connection, act: Act) -> None:
    """Nobody is told again until it is resolved or gets worse. Raises AlertResolved.

    An alert that somebody has taken on already stays theirs; what is said is written down.
    """
    alert = _open(connection, act)
    if alert.acknowledged_at is None:
        first_at = alert.first_acknowledged_at or act.as_of
        _set(connection, act, acknowledged_at=act.as_of, acknowledged_by=act.actor, first_acknowledged_at=first_at)
        _write(connection, alert, act, ActKind.ACKNOWLEDGED)
    elif act.comment is not None:
        _write(connection, alert, act, ActKind.COMMENTED)


def unacknowledge(connection: Connection, act: Act) -> None:
    """Take back that it was taken on, and that it was put off: people are told again. Raises AlertResolved."""
    alert = _open(connection, act)
    if alert.acknowledged_at is not None or alert.snoozed_until is not None:
        _set(connection, act, acknowledged_at=None, acknowledged_by=None, snoozed_until=None)
        _write(connection, alert, act, ActKind.UNACKNOWLEDGED)
    elif act.comment is not None:
        _write(connection, alert, act, ActKind.COMMENTED)


def snooze(connection: Connection, act: Act, until: datetime) -> None:
    """Nobody is told again before then, unless it is resolved or gets worse. Raises AlertResolved.

    Until when it is, is the evidence of the event: the alert only knows the last one.
    """
    alert = _open(connection, act)
    if alert.snoozed_until == until and act.comment is None:
        return
    _set(connection, act, snoozed_until=until)
    _write(connection, alert, act, ActKind.SNOOZED, {"until": until.isoformat()})


def comment(connection: Connection, act: Act) -> None:
    """Say something about an alert, also about one that is over."""
    _write(connection, _alert(connection, act), act, ActKind.COMMENTED)


def _alert(connection: Connection, act: Act) -> Row[Any]:
    """The alert with how its rule stands on its target now."""
    alert, target, event = models.alert, models.alert_target, models.alert_event
    standing = (
        (target.c.client_id == alert.c.client_id)
        & (target.c.pipeline_id == alert.c.pipeline_id)
        & (target.c.rule_id == alert.c.rule_id)
        & (target.c.alert_id == alert.c.id)
    )
    of_alert = (event.c.client_id == act.client_id) & (event.c.alert_id == act.alert_id)
    last_seq = select(func.coalesce(func.max(event.c.seq), 0)).where(of_alert).scalar_subquery()
    query = (
        select(
            alert,
            func.coalesce(target.c.state, State.OK.value).label("state"),
            func.coalesce(target.c.level, 0).label("standing_level"),
            # An open episode counts its events in its standing; one that is over has none any more.
            func.greatest(func.coalesce(target.c.seq, 0), last_seq).label("seq"),
        )
        .select_from(alert.outerjoin(target, standing))
        .where(alert.c.client_id == act.client_id, alert.c.id == act.alert_id)
    )
    return connection.execute(query).one()


def _open(connection: Connection, act: Act) -> Row[Any]:
    alert = _alert(connection, act)
    if alert.resolved_at is not None:
        raise AlertResolved
    return alert


def _set(connection: Connection, act: Act, **values: object) -> None:
    alert = models.alert
    own = update(alert).where(alert.c.client_id == act.client_id, alert.c.id == act.alert_id)
    connection.execute(own.values(values))


def _write(
    connection: Connection,
    alert: Row[Any],
    act: Act,
    kind: ActKind,
    evidence: dict[str, str] | None = None,
) -> None:
    """The event, as the next of its episode."""
    seq, target = alert.seq + 1, models.alert_target
    event = {
        "client_id": alert.client_id,
        "as_of": act.as_of,
        "alert_id": alert.id,
        "seq": seq,
        "rule_id": alert.rule_id,
        "rule_version": alert.rule_version,
        "pipeline_id": alert.pipeline_id,
        "kind": kind.value,
        "from_state": alert.state,
        "state": alert.state,
        "prev_level": alert.standing_level,
        "level": alert.standing_level,
        "actor": act.actor,
        "comment": act.comment,
    }
    if evidence is not None:
        event["evidence"] = evidence
    connection.execute(insert(models.alert_event).values(event))
    connection.execute(
        update(target)
        .where(
            target.c.client_id == alert.client_id,
            target.c.pipeline_id == alert.pipeline_id,
            target.c.rule_id == alert.rule_id,
            target.c.alert_id == alert.id,
        )
        .values(seq=seq)
    )
