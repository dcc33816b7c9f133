"""Tells again what goes on, and tells late what was held back.

What was held back while an alert goes on is told once nothing holds it any more, as it is then, in one message.
What was told is told again at the rule's interval, unless somebody has taken it on, put it off or silenced it. What
waits to be sent is held back once somebody has. A channel that came while an alert went on is told once.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from pulsewatch.alert_targets import describe, load_rules
from pulsewatch.channels.base import Message, MessageLevel, MessageStatus, Reason
from pulsewatch.db import fetch
from pulsewatch.delivery_sql import DELIVERY_LOCK
from pulsewatch.notifications import (
    Channel,
    Held,
    Notification,
    channels_of,
    insert,
    notification_id,
    silences_in_force,
    supersede,
)
from pulsewatch.notifying import Told, hold, message_of
from pulsewatch.reminder_sql import DROP, DUE, HELD, HOLD, IS_ANYTHING, IS_UNTOLD, SET_FREE, UNTOLD, WAITING
from pulsewatch.rules.base import Described, Level
from pulsewatch.rules.matchers import Silence
from pulsewatch.rules.rule import Rule


def is_anything(as_of: datetime, now: datetime | None = None) -> tuple[str, dict[str, Any]]:
    """The statement that tells `remind` whether there is anything to do."""
    return IS_ANYTHING, _times(as_of, now)


def _times(as_of: datetime, now: datetime | None) -> dict[str, Any]:
    return {"as_of": as_of, "now": as_of if now is None else now}


def remind(
    connection: Connection,
    as_of: datetime,
    now: datetime | None = None,
    found: Sequence[tuple[Any, ...]] | None = None,
) -> int:
    """Make repeats and catch-ups, within the caller's transaction and under ALERTING_LOCK; returns how many.

    `now` is the time of the moment where evaluation lags behind: a silence of then holds back as well. `found` is what
    `is_anything` gave, where it has been asked.
    """
    times = _times(as_of, now)
    ((is_something, may_be_untold),) = found or fetch(connection, *is_anything(as_of, now))
    if not is_something and not (may_be_untold and fetch(connection, IS_UNTOLD) == [(True,)]):
        return 0
    connection.exec_driver_sql(DELIVERY_LOCK)
    fetch(connection, SET_FREE, times)
    held, due, waiting, untold = (
        [dict(row) for row in connection.exec_driver_sql(statement, times).mappings()]
        for statement in (HELD, DUE, WAITING, UNTOLD)
    )
    rows = [*held, *due, *waiting, *untold]
    if not rows:
        return 0
    known = _Known(connection, rows, as_of, times["now"])
    _hold(connection, [(row, overlay) for row in waiting if (overlay := known.overlay(row)) is not None])
    made = insert(
        connection,
        [
            *(told for row in held if (told := known.message(row, Reason.CATCH_UP)) is not None),
            *(told for row in due if (told := known.message(row, Reason.REPEAT)) is not None),
            *(told for row in untold if (told := known.message(row, Reason.CATCH_UP)) is not None),
        ],
    )
    supersede(connection, made)
    _drop(connection, [row for row in held if known.is_unwanted(row)])
    return len(made)


class _Known:
    """The rules, targets, channels and silences that some messages rest on."""

    def __init__(
        self, connection: Connection, rows: Iterable[Mapping[str, Any]], as_of: datetime, now: datetime
    ) -> None:
        rows = list(rows)
        self._as_of = as_of
        self._rules: dict[int, Rule] = {
            rule.id: rule for rule in load_rules(connection, {row["rule_id"] for row in rows})
        }
        named = {(row["client_id"], row["pipeline_id"]) for row in rows}
        self._targets: dict[tuple[int, int], Described] = {
            (target.client_id, target.pipeline_id): target for target in describe(connection, named)
        }
        self._channels: dict[tuple[int, int], Channel] = {
            (rule_id, channel.id): channel
            for (rule_id, _), channels in channels_of(connection, self._rules.values()).items()
            for channel in channels
        }
        self._silences: Sequence[Silence] = silences_in_force(connection, as_of, now)

    def is_unwanted(self, row: Mapping[str, Any]) -> bool:
        """Whether the channel is gone, or the rule does not name it any more."""
        return (row["rule_id"], row["channel_id"]) not in self._channels

    def _rule_and_target(self, row: Mapping[str, Any]) -> tuple[Rule, Described] | None:
        rule = self._rules.get(row["rule_id"])
        target = self._targets.get((row["client_id"], row["pipeline_id"]))
        return None if rule is None or target is None else (rule, target)

    def overlay(self, row: Mapping[str, Any]) -> Held | None:
        """What holds back that the alert goes on; None: nothing does."""
        known = self._rule_and_target(row)
        if known is None:
            return None
        rule, target = known
        if rule.spec.is_dry_run:
            return Held("dry_run")
        return hold(
            rule.key,
            target,
            Level(row["level"]),
            row["acknowledged_at"],
            row["snoozed_until"],
            self._silences,
            self._as_of,
        )

    def message(self, row: Mapping[str, Any], reason: Reason) -> Notification | None:
        """The message that is to be sent now; None where something holds it."""
        known = self._rule_and_target(row)
        channel = self._channels.get((row["rule_id"], row["channel_id"]))
        if known is None or channel is None or not channel.is_enabled or self.overlay(row) is not None:
            return None
        rule, target = known
        id_ = notification_id(row["alert_id"], row["event_seq"], reason, row["channel_id"], after=row["newest_id"])
        message = _again(row, id_, reason) if "body" in row else _first(row, id_, reason, rule, target)
        return Notification(
            row["client_id"], channel.id, message, row["event_as_of"], row["event_seq"], None, self._as_of
        )


def _again(row: Mapping[str, Any], id_: UUID, reason: Reason) -> Message:
    """The last message, as things stand now."""
    return Message.model_validate(row["body"]).model_copy(
        update={
            "notification_id": id_,
            "reason": reason,
            "status": MessageStatus.FIRING,
            "level": MessageLevel(Level(row["level"]).word or ""),
            "summary": row["summary"],
            "value": row["value"],
            "threshold": row["threshold"],
        }
    )


def _first(row: Mapping[str, Any], id_: UUID, reason: Reason, rule: Rule, target: Described) -> Message:
    """What the event would have told, as things stand now."""
    told = Told(
        client_id=row["client_id"],
        alert_id=row["alert_id"],
        event_as_of=row["event_as_of"],
        event_seq=row["event_seq"],
        reason=reason,
        rule=rule,
        target=target,
        level=Level(row["level"]),
        prev_level=Level(row["prev_level"]),
        max_level=Level(row["max_level"]),
        value=row["value"],
        threshold=row["threshold"],
        summary=row["summary"],
        fired_at=row["fired_at"],
        resolved_at=None,
        acknowledged_at=row["acknowledged_at"],
        snoozed_until=row["snoozed_until"],
        labels=row["labels"],
        annotations=row["annotations"],
        run_ids=[UUID(run_id) for run_id in row["runs"] or ()],
        is_backfill=False,
        is_dry_run=False,
    )
    return message_of(told, id_)


def _hold(connection: Connection, rows: Sequence[tuple[Mapping[str, Any], Held]]) -> None:
    if rows:
        values = {
            "client_ids": [row["client_id"] for row, _ in rows],
            "ids": [row["id"] for row, _ in rows],
            "held_by": [held.by for _, held in rows],
            "silence_ids": [held.silence_id for _, held in rows],
        }
        fetch(connection, HOLD, values)


def _drop(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        values = {f"{name}s": [row[name] for row in rows] for name in ("client_id", "alert_id", "channel_id")}
        fetch(connection, DROP, values)
