"""Turns what happened to alerts into notifications: one for each channel, to be sent, or held back and why.

Events are written whatever holds; only the telling waits. What is held back is remembered: `reminders` tells it once
the hold is over and the alert goes on. That an alert is over is told where it was ever told that it goes on, silence
or not, so that no receiver keeps an alert open for ever; where that only waits to be told, neither is.

Ids are made of what a notification speaks of: the same event told again makes no second one.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection

from pulsewatch.channels.base import Message, MessageLevel, MessageStatus, Reason, RunLink
from pulsewatch.db import fetch
from pulsewatch.delivery_sql import DELIVERY_LOCK, END, IS_TOLD
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
from pulsewatch.rules.base import Described, Level
from pulsewatch.rules.matchers import Silence, silenced_by
from pulsewatch.rules.rule import Rule

AlertKey = tuple[int, UUID]  # client_id, alert id


@dataclass(frozen=True, slots=True)
class Told:
    """An event that people are to be told of, and the alert as it is after it."""

    client_id: int
    alert_id: UUID
    event_as_of: datetime
    event_seq: int
    reason: str
    rule: Rule
    target: Described
    level: Level
    prev_level: Level
    max_level: Level
    value: float | None
    threshold: float | None
    summary: str
    fired_at: datetime
    resolved_at: datetime | None
    acknowledged_at: datetime | None
    snoozed_until: datetime | None
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    run_ids: Sequence[UUID]
    is_backfill: bool
    is_dry_run: bool

    @property
    def key(self) -> AlertKey:
        return self.client_id, self.alert_id


@dataclass(frozen=True, slots=True)
class _Past:
    """What became of an alert's notifications on a channel."""

    channel: Channel
    is_told: bool
    title: str


def notify(connection: Connection, told: Sequence[Told], as_of: datetime, now: datetime | None = None) -> None:
    """Make the notifications of alert events, within the caller's transaction and under ALERTING_LOCK.

    `now` is the time at which they are made where evaluation lags behind: a silence of then holds back as well.
    """
    for events in _in_turn(told):
        _notify(connection, events, as_of, as_of if now is None else now)


def _in_turn(told: Iterable[Told]) -> Iterator[list[Told]]:
    """The events in order, at most one of an alert at a time: what an earlier one made, a later one has to see."""
    waiting: defaultdict[AlertKey, list[Told]] = defaultdict(list)
    for event in sorted(told, key=lambda event: (*event.key, event.event_seq)):
        waiting[event.key].append(event)
    while waiting:
        yield [events.pop(0) for events in waiting.values()]
        for key in [key for key, events in waiting.items() if not events]:
            del waiting[key]


def _notify(connection: Connection, told: Sequence[Told], as_of: datetime, now: datetime) -> None:
    later = [event for event in told if event.reason != Reason.FIRED and not event.is_backfill and not event.is_dry_run]
    if later:
        connection.exec_driver_sql(DELIVERY_LOCK)
    past = _past(connection, later)
    firing = [event for event in told if event.reason != Reason.RESOLVED]
    channels = channels_of(connection, [event.rule for event in firing])
    silences = silences_in_force(connection, as_of, now)
    made = []
    for event in firing:
        overlay = _hold_for_good(event) or hold(
            event.rule.key, event.target, event.level, event.acknowledged_at, event.snoozed_until, silences, as_of
        )
        titles = [each.title for each in past[event.key]]
        made += [
            _notification(event, channel, overlay, titles, as_of)
            for channel in channels[event.rule.id, event.rule.version]
        ]
    ended = [event for event in later if event.reason == Reason.RESOLVED]
    for event in ended:
        made += [
            _notification(event, each.channel, None, [each.title], as_of) for each in past[event.key] if each.is_told
        ]
    made = insert(connection, made)
    supersede(connection, made)
    over = [each for each in made if each.message.reason == Reason.RESOLVED]
    if over:
        keys = {
            "client_ids": [each.client_id for each in over],
            "alert_ids": [each.message.alert_id for each in over],
            "channel_ids": [each.channel_id for each in over],
        }
        fetch(connection, END, keys)
    if ended:
        fetch(connection, DROP_HELD, {"client_ids": [e.client_id for e in ended], "ids": [e.alert_id for e in ended]})


def _hold_for_good(told: Told) -> Held | None:
    if told.is_backfill:
        return Held("backfill")
    # A rule that only tries from now on tells nobody of what fired before, but for its end.
    return Held("dry_run") if told.is_dry_run or told.rule.spec.is_dry_run else None


def hold(
    rule: str,
    target: Described,
    level: Level,
    acknowledged_at: datetime | None,
    snoozed_until: datetime | None,
    silences: Iterable[Silence],
    as_of: datetime,
) -> Held | None:
    """What holds back that an alert goes on, whatever the channel; None: nothing does."""
    silence_id = silenced_by(silences, rule, target, level)
    if silence_id is not None:
        return Held("silence", silence_id)
    if acknowledged_at is not None:
        return Held("acknowledged")
    return Held("snoozed") if snoozed_until is not None and snoozed_until > as_of else None


def _notification(
    told: Told, channel: Channel, held: Held | None, titles: Sequence[str], as_of: datetime
) -> Notification:
    if held is None and not channel.is_enabled:
        held = Held("channel_disabled")
    message = message_of(told, notification_id(told.alert_id, told.event_seq, told.reason, channel.id))
    if titles:
        message = message.model_copy(update={"title": titles[0]})
    return Notification(
        told.client_id,
        channel.id,
        message,
        told.event_as_of,
        told.event_seq,
        held,
        told.event_as_of if told.is_backfill else as_of,
    )


def message_of(told: Told, id_: UUID) -> Message:
    """What is told of an event."""
    spec, is_over = told.rule.spec, told.reason == Reason.RESOLVED
    title = spec.title or told.rule.key
    return Message(
        notification_id=id_,
        alert_id=told.alert_id,
        reason=Reason(told.reason),
        status=MessageStatus.RESOLVED if is_over else MessageStatus.FIRING,
        level=MessageLevel(told.level.word or "warning"),
        client=told.target.client,
        pipeline=told.target.pipeline,
        rule=told.rule.key,
        rule_title=title,
        rule_version=told.rule.version,
        kind=spec.kind,
        title=f"{title}: {told.target.name}",
        summary=told.summary,
        value=told.value,
        threshold=told.threshold,
        unit=spec.definition.unit,
        fired_at=told.fired_at,
        resolved_at=told.resolved_at if is_over else None,
        labels=dict(told.labels),
        annotations=dict(told.annotations),
        runbook_url=spec.runbook_url,
        runs=tuple(RunLink(id=run_id) for run_id in told.run_ids),
    )


PAST = f"""
select
    notification.client_id,
    notification.alert_id,
    channel.id,
    channel.client_id,
    channel.key,
    channel.is_enabled,
    bool_or({IS_TOLD}) as is_told,
    (array_agg(notification.body ->> 'title' order by notification.created_at, notification.id))[1] as title
from unnest(%(client_ids)s::bigint[], %(ids)s::uuid[]) as wanted (client_id, id)
join pulsewatch.notification
    on notification.client_id = wanted.client_id and notification.alert_id = wanted.id
join pulsewatch.channel on channel.id = notification.channel_id
where notification.reason <> 'resolved' and channel.deleted_at is null
group by notification.client_id, notification.alert_id, channel.id
order by notification.client_id, notification.alert_id, channel.id
"""

# It is over, and nobody was told that it went on.
DROP_HELD = """
update pulsewatch.notification as held
set status = 'dropped'
from unnest(%(client_ids)s::bigint[], %(ids)s::uuid[]) as ended (client_id, id)
where held.client_id = ended.client_id
    and held.alert_id = ended.id
    and held.status = 'held'
    and held.reason <> 'resolved'
"""


def _past(connection: Connection, told: Sequence[Told]) -> defaultdict[AlertKey, list[_Past]]:
    found: defaultdict[AlertKey, list[_Past]] = defaultdict(list)
    if told:
        wanted = {"client_ids": [event.client_id for event in told], "ids": [event.alert_id for event in told]}
        for client_id, alert_id, *channel, is_told, title in fetch(connection, PAST, wanted):
            found[client_id, alert_id].append(_Past(Channel(*channel), is_told, title))
    return found
