"""The statements behind alerts and notifications: what they show, and which of them a key may see."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    case,
    false,
    func,
    or_,
    select,
)

from pulsewatch import models
from pulsewatch.api.answers import Item
from pulsewatch.api.deps import visible_client, visible_pipeline
from pulsewatch.api.errors import invalid
from pulsewatch.auth import Caller
from pulsewatch.events import is_slug
from pulsewatch.problems import FieldError
from pulsewatch.rules.base import Level

MAX_EVENTS = 1000
MAX_NOTIFICATIONS = 100
FLEET = 0

alert, channel, client, notification = models.alert, models.channel, models.client, models.notification
pipeline, rule, version = models.pipeline, models.alert_rule, models.alert_rule_version
rule_client = client.alias("rule_client")
channel_client = client.alias("channel_client")

# An alert that somebody has taken on is theirs, also while it is put off.
STATE: ColumnElement[str] = case(
    (alert.c.resolved_at.is_not(None), "resolved"),
    (alert.c.acknowledged_at.is_not(None), "acknowledged"),
    (alert.c.snoozed_until > func.now(), "snoozed"),
    else_="firing",
)
IS_OPEN = alert.c.resolved_at.is_(None)


def select_alerts() -> Select[Any]:
    """The select of all alerts as `shown_alert` needs them, newest first."""
    of_pipeline = and_(pipeline.c.client_id == alert.c.client_id, pipeline.c.id == alert.c.pipeline_id)
    of_version = and_(version.c.rule_id == alert.c.rule_id, version.c.version == alert.c.rule_version)
    return (
        select(
            alert,
            STATE.label("state"),
            client.c.slug.label("client"),
            pipeline.c.slug.label("pipeline"),
            rule.c.key.label("rule"),
            rule_client.c.slug.label("rule_client"),
            func.coalesce(version.c.spec["kind"].astext, rule.c.kind).label("kind"),
        )
        .select_from(
            alert.outerjoin(client, client.c.id == alert.c.client_id)
            .outerjoin(pipeline, of_pipeline)
            .join(rule, rule.c.id == alert.c.rule_id)
            .outerjoin(version, of_version)
            .outerjoin(rule_client, rule_client.c.id == rule.c.client_id)
        )
        .order_by(alert.c.fired_at.desc(), alert.c.id)
    )


SHOWN_ALERT = (
    "id", "client", "pipeline", "rule", "rule_client", "rule_version", "kind", "state", "level", "max_level", "value",
    "threshold", "summary", "labels", "annotations", "pending_at", "fired_at", "acknowledged_at", "acknowledged_by",
    "snoozed_until", "resolved_at", "resolve_reason", "is_backfill", "is_dry_run",
)  # fmt: skip


def shown_alert(row: Row[Any]) -> Item:
    """An alert as the API shows it."""
    item = {name: row._mapping[name] for name in SHOWN_ALERT}
    return item | {"level": Level(row.level).word, "max_level": Level(row.max_level).word}


SHOWN_EVENT = (
    "seq", "as_of", "kind", "from_state", "state", "prev_level", "level", "value", "threshold", "rule_version",
    "reason", "evidence", "actor", "comment", "known_at", "recorded_at", "is_backfill",
)  # fmt: skip


def shown_event(row: Row[Any]) -> Item:
    """An alert event as the API shows it."""
    item = {name: row._mapping[name] for name in SHOWN_EVENT}
    return item | {"prev_level": Level(row.prev_level).word, "level": Level(row.level).word}


def select_notifications() -> Select[Any]:
    """The select of all notifications as `shown_notification` needs them."""
    return select(
        notification,
        client.c.slug.label("client"),
        channel.c.key.label("channel"),
        channel.c.client_id.label("channel_client_id"),
        channel_client.c.slug.label("channel_client"),
    ).select_from(
        notification.join(channel, channel.c.id == notification.c.channel_id)
        .outerjoin(client, client.c.id == notification.c.client_id)
        .outerjoin(channel_client, channel_client.c.id == channel.c.client_id)
    )


SHOWN_NOTIFICATION = (
    "id", "client", "alert_id", "channel", "channel_client", "reason", "status", "held_by", "silence_id",
    "attempt_count", "next_attempt_at", "expires_at", "created_at", "sent_at", "last_error",
)  # fmt: skip


def shown_notification(row: Row[Any], caller: Caller) -> Item:
    """A notification as the API shows it."""
    item = {name: row._mapping[name] for name in SHOWN_NOTIFICATION}
    if row.status not in ("pending", "leased"):
        item["next_attempt_at"] = None
    if not may_read_errors(row, caller):
        item["last_error"] = None
    return item


def may_read_errors(row: Row[Any], caller: Caller) -> bool:
    """Errors tell of the channel's host: they are for whoever may read the channel."""
    return caller.client_id is None or bool(row.channel_client_id == caller.client_id)


# -- which of them ----------------------------------------------------------------------------------------------------


def of_callers_clients(connection: Connection, caller: Caller, column: ColumnElement[int]) -> ColumnElement[bool]:
    """That a row is of a client that the caller may see, or of all clients together if he sees all.

    The clients are listed: so a row is found by its primary key, which begins with the client.
    """
    if caller.client_id is not None:
        return column == caller.client_id
    return column.in_([FLEET, *connection.execute(select(client.c.id).order_by(client.c.id)).scalars()])


def of_client(
    connection: Connection, caller: Caller, column: ColumnElement[int], slug: str | None
) -> list[ColumnElement[bool]]:
    """That a row is of the client asked for, else of any that the caller may see. Raises Problem 404."""
    if slug is not None:
        return [column == visible_client(connection, caller, slug).id]
    return [] if caller.client_id is None else [column == caller.client_id]


def of_target(
    connection: Connection, caller: Caller, slug: str | None, pipeline_slug: str | None
) -> list[ColumnElement[bool]]:
    """That an alert is of this client and pipeline. Raises Problem 404 or 422."""
    conditions = of_client(connection, caller, alert.c.client_id, slug)
    if pipeline_slug is not None:
        client_id = caller.client_id
        if slug is not None:
            client_id = visible_client(connection, caller, slug).id
        if client_id is None:
            detail = "A pipeline's slug is unique in its client only: give client too."
            raise invalid([FieldError("?pipeline", "client_required", detail)])
        conditions.append(alert.c.pipeline_id == visible_pipeline(connection, client_id, pipeline_slug).id)
    return conditions


def of_rule(connection: Connection, key: str) -> ColumnElement[bool]:
    """That an alert is of a rule of this key, whosever it is, deleted or not."""
    if not is_slug(key):
        return false()
    return alert.c.rule_id.in_(connection.execute(select(rule.c.id).where(rule.c.key == key)).scalars().all())


def in_state(state: str) -> ColumnElement[bool]:
    """That an alert is in this state; `open`: in any but resolved."""
    if state == "resolved":
        return ~IS_OPEN
    # Said apart, for the index of what is open.
    return IS_OPEN if state == "open" else and_(IS_OPEN, STATE.in_((state,)))


def behind(at: ColumnElement[datetime], id_: ColumnElement[UUID], after: tuple[datetime, UUID]) -> ColumnElement[bool]:
    """That a row comes after this place in a list that goes newest first, then by id."""
    # The first condition is the one that an index can start from.
    return and_(at <= after[0], or_(at < after[0], id_ > after[1]))


# -- all of one alert -------------------------------------------------------------------------------------------------


def select_events(connection: Connection, client_id: int, alert_id: UUID) -> tuple[list[Row[Any]], bool]:
    """The events of an alert, oldest first, and whether these are all."""
    event = models.alert_event
    newest = (
        select(event)
        .where(event.c.client_id == client_id, event.c.alert_id == alert_id)
        .order_by(event.c.seq.desc())
        .limit(MAX_EVENTS + 1)
    )
    rows = list(connection.execute(newest))
    return rows[:MAX_EVENTS][::-1], len(rows) <= MAX_EVENTS


def notifications_of(connection: Connection, client_id: int, alert_id: UUID) -> list[Row[Any]]:
    """The last notifications of an alert, oldest first."""
    newest = (
        select_notifications()
        .where(notification.c.client_id == client_id, notification.c.alert_id == alert_id)
        .order_by(notification.c.created_at.desc(), notification.c.event_seq.desc(), notification.c.id)
        .limit(MAX_NOTIFICATIONS)
    )
    return list(connection.execute(newest))[::-1]
