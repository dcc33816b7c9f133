"""Tells again what goes on, and tells late what was held back.

What was held back while an alert goes on is told once nothing holds it any more, as it is then, in one message.
What was told is told again at the rule's interval, unless somebody has taken it on, put it off or silenced it. What
waits to be sent is held back once somebody has.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from pulsewatch.alert_targets import describe, load_rules
from pulsewatch.channels.base import Message, MessageLevel, MessageStatus, Reason
from pulsewatch.db import fetch
from pulsewatch.delivery_sql import DELIVERY_LOCK, IS_TOLD
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
from pulsewatch.notifying import hold
from pulsewatch.rules.base import Described, Level
from pulsewatch.rules.matchers import Silence
from pulsewatch.rules.rule import Rule

IS_ANYTHING = "select exists (select from pulsewatch.notification where status = 'held')"

# Over while its channel was off: told where somebody was told that it went on.
SET_FREE = f"""
with ended as (
    select held.client_id, held.id, held.alert_id, held.channel_id, held.reason, held.expires_at, channel.deleted_at
    from pulsewatch.notification as held
    join pulsewatch.channel on channel.id = held.channel_id
    left join pulsewatch.alert on alert.client_id = held.client_id and alert.id = held.alert_id
    where held.status = 'held'
        and (channel.is_enabled or channel.deleted_at is not null)
        and (alert.id is null or alert.resolved_at is not null)
),

told as (
    select distinct notification.client_id, notification.alert_id, notification.channel_id
    from ended
    join pulsewatch.notification
        on notification.client_id = ended.client_id
        and notification.alert_id = ended.alert_id
        and notification.channel_id = ended.channel_id
    where notification.reason <> 'resolved' and {IS_TOLD}
)

update pulsewatch.notification
set
    status = case
        when ended.reason = 'resolved' and told.alert_id is not null and ended.deleted_at is null
            and ended.expires_at > %(as_of)s then 'pending'
        else 'dropped'
    end,
    next_attempt_at = %(as_of)s
from ended
left join told
    on told.client_id = ended.client_id and told.alert_id = ended.alert_id and told.channel_id = ended.channel_id
where notification.client_id = ended.client_id and notification.id = ended.id
"""

_ALERT = """
    alert.client_id,
    alert.id as alert_id,
    alert.rule_id,
    alert.pipeline_id,
    alert.level,
    alert.value,
    alert.threshold,
    alert.summary,
    alert.fired_at,
    alert.acknowledged_at,
    alert.snoozed_until,
    last.id,
    last.channel_id,
    last.event_as_of,
    last.event_seq,
    last.body
"""

# The last message that is held back of each alert that goes on, by channel.
HELD = f"""
select distinct on (last.client_id, last.alert_id, last.channel_id)
{_ALERT}
from pulsewatch.notification as last
join pulsewatch.alert on alert.client_id = last.client_id and alert.id = last.alert_id
where last.status = 'held' and last.reason <> 'resolved' and alert.resolved_at is null
order by last.client_id, last.alert_id, last.channel_id, last.created_at desc, last.event_seq desc, last.id
"""

# The last message of each alert that goes on, by channel, where the rule's interval has passed since and none is
# waiting. One that was given up counts from when it was written.
DUE = f"""
with going_on as (
    select
        alert.*,
        (version.spec ->> 'repeat_s')::double precision as repeat_s
    from pulsewatch.alert
    join pulsewatch.alert_rule as rule on rule.id = alert.rule_id
    join pulsewatch.alert_rule_version as version
        on version.rule_id = rule.id and version.version = rule.version
    where alert.resolved_at is null
        and not alert.is_backfill
        and not alert.is_dry_run
        and alert.acknowledged_at is null
        and (alert.snoozed_until is null or alert.snoozed_until <= %(as_of)s)
        and alert.fired_at
            <= %(as_of)s::timestamptz - make_interval(secs => (version.spec ->> 'repeat_s')::double precision)
),

last as (
    select distinct on (said.client_id, said.alert_id, said.channel_id)
        said.client_id, said.alert_id, said.id, said.channel_id, said.event_as_of, said.event_seq, said.body,
        said.status, coalesce(said.sent_at, said.created_at) as told_at
    from going_on
    join pulsewatch.notification as said on said.client_id = going_on.client_id and said.alert_id = going_on.id
    where said.status in ('held', 'pending', 'leased', 'sent', 'dead') and said.reason <> 'resolved'
    order by
        said.client_id, said.alert_id, said.channel_id, said.status in ('held', 'pending', 'leased') desc,
        coalesce(said.sent_at, said.created_at) desc, said.id
)

select
{_ALERT}
from going_on as alert
join last on last.client_id = alert.client_id and last.alert_id = alert.id
where last.status in ('sent', 'dead') and last.told_at <= %(as_of)s::timestamptz - make_interval(secs => alert.repeat_s)
order by alert.client_id, alert.id, last.channel_id
"""

# What waits to be sent still, of alerts that somebody may have taken on, put off or silenced since it was made.
WAITING = """
select
    alert.client_id, alert.rule_id, alert.pipeline_id, alert.level, alert.acknowledged_at, alert.snoozed_until, last.id
from pulsewatch.notification as last
join pulsewatch.alert on alert.client_id = last.client_id and alert.id = last.alert_id
where last.status = 'pending'
    and last.reason <> 'resolved'
    and last.created_at < %(as_of)s
    and alert.resolved_at is null
    and (
        alert.acknowledged_at is not null
        or alert.snoozed_until > %(as_of)s
        or exists (
            select
            from pulsewatch.silence
            where silence.starts_at <= %(now)s
                and silence.ends_at > %(as_of)s
                and (silence.client_id is null or silence.client_id = alert.client_id)
        )
    )
order by last.client_id, last.id
"""

HOLD = """
update pulsewatch.notification as waiting
set status = 'held', held_by = overlay.held_by, silence_id = overlay.silence_id
from unnest(%(client_ids)s::bigint[], %(ids)s::uuid[], %(held_by)s::text[], %(silence_ids)s::uuid[])
    as overlay (client_id, id, held_by, silence_id)
where waiting.client_id = overlay.client_id and waiting.id = overlay.id and waiting.status = 'pending'
"""

DROP = """
update pulsewatch.notification as held
set status = 'dropped'
from unnest(%(client_ids)s::bigint[], %(alert_ids)s::uuid[], %(channel_ids)s::bigint[])
    as unwanted (client_id, alert_id, channel_id)
where held.client_id = unwanted.client_id
    and held.alert_id = unwanted.alert_id
    and held.channel_id = unwanted.channel_id
    and held.status = 'held'
"""


def remind(connection: Connection, as_of: datetime, now: datetime | None = None) -> int:
    """Make repeats and catch-ups, within the caller's transaction and under ALERTING_LOCK; returns how many.

    `now` is the time of the moment where evaluation lags behind: a silence of then holds back as well.
    """
    now = as_of if now is None else now
    held: list[Mapping[str, Any]] = []
    if fetch(connection, IS_ANYTHING)[0][0]:
        connection.exec_driver_sql(DELIVERY_LOCK)
        fetch(connection, SET_FREE, {"as_of": as_of})
        held = [dict(row) for row in connection.exec_driver_sql(HELD).mappings()]
    due = [dict(row) for row in connection.exec_driver_sql(DUE, {"as_of": as_of}).mappings()]
    waiting = [dict(row) for row in connection.exec_driver_sql(WAITING, {"as_of": as_of, "now": now}).mappings()]
    if not held and not due and not waiting:
        return 0
    connection.exec_driver_sql(DELIVERY_LOCK)
    known = _Known(connection, [*held, *due, *waiting], as_of, now)
    _hold(connection, [(row, overlay) for row in waiting if (overlay := known.overlay(row)) is not None])
    made = insert(
        connection,
        [
            *(told for row in held if (told := known.message(row, Reason.CATCH_UP)) is not None),
            *(told for row in due if (told := known.message(row, Reason.REPEAT)) is not None),
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
        id_ = notification_id(row["alert_id"], row["event_seq"], reason, row["channel_id"], after=row["id"])
        message = Message.model_validate(row["body"]).model_copy(
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
        return Notification(
            row["client_id"], channel.id, message, row["event_as_of"], row["event_seq"], None, self._as_of
        )


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
