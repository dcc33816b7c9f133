"""Notifications: list, get with attempts, send again."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from sqlalchemy import ColumnElement, Connection, Row, select

from pulsewatch import catalog, models
from pulsewatch.api import alert_queries, notification_schemas
from pulsewatch.api.alert_queries import (
    alert,
    channel,
    may_read_errors,
    notification,
    select_notifications,
    shown_notification,
)
from pulsewatch.api.answers import (
    Cursor,
    Item,
    Limit,
    TimeText,
    answer,
    cursor_time,
    decode_cursor,
    encode_cursor,
    page,
    parse_time,
)
from pulsewatch.api.deps import Database, Reader, Writer, parse_id, reading
from pulsewatch.api.errors import invalid, not_found
from pulsewatch.api.notification_schemas import NotificationStatus
from pulsewatch.api.openapi import problems
from pulsewatch.api.paths import WORD
from pulsewatch.auth import Caller
from pulsewatch.channels.base import Reason
from pulsewatch.delivery_sql import DELIVERY_LOCK
from pulsewatch.events import epoch_us, is_slug
from pulsewatch.notifications import retry
from pulsewatch.problems import FieldError, Problem

router = APIRouter(tags=["notifications"])

ONE = f"/v1/notifications/{{id:{WORD}}}"
MAX_ATTEMPTS = 100

NotificationId = Annotated[
    str,
    Path(
        alias="id",
        description="The notification's `id`.",
        json_schema_extra={"format": "uuid"},
        examples=["b1e6f0a4-3c52-8d7e-a1f9-0c4d5e6f7a8b"],
    ),
]
Statuses = Annotated[
    list[NotificationStatus] | None,
    Query(alias="status", max_length=10, description="Only those of this status; given often, of any of them."),
]


def shown_attempt(row: Row[Any], *, may_read_errors: bool) -> Item:
    """An attempt as the API shows it."""
    return {
        "n": row.n,
        "started_at": row.started_at,
        "latency_s": row.latency_s,
        "outcome": row.outcome,
        "http_status": row.http_status,
        "error": row.error if may_read_errors else None,
        "retry_after_s": row.retry_after_s,
    }


@router.get(
    "/v1/notifications",
    response_model=notification_schemas.NotificationPage,
    responses=problems(400, 401, 403, 404, 422),
    summary="List notifications",
)
def list_notifications(
    caller: Reader,
    engine: Database,
    limit: Limit = 100,
    cursor: Cursor = None,
    statuses: Statuses = None,
    key: Annotated[str | None, Query(alias="channel", description="Only those to channels of this key.")] = None,
    alert: Annotated[UUID | None, Query(description="Only those about this alert, by its `id`.")] = None,
    client: Annotated[str | None, Query(description="Only those of this client's alerts, by its slug.")] = None,
    from_: Annotated[TimeText, Query(alias="from", description="Only those written at or after this.")] = None,
    to: Annotated[TimeText, Query(alias="to", description="Only those written before this.")] = None,
) -> Response:
    """What people were told, or are to be, newest first by `created_at`. A bound key sees those of its client."""
    conditions = _conditions(cursor, from_, to)
    if statuses:
        conditions.append(notification.c.status.in_(statuses))
    if alert is not None:
        conditions.append(notification.c.alert_id == alert)
    with reading(engine) as connection:
        own = alert_queries.of_client(connection, caller, notification.c.client_id, client)
        if not own and alert is not None:
            # The index by alert begins with the client.
            own = [alert_queries.of_callers_clients(connection, caller, notification.c.client_id)]
        conditions += own
        if key is not None:
            known = select(channel.c.id).where(channel.c.key == key) if is_slug(key) else None
            ids = [] if known is None else connection.execute(known).scalars().all()
            conditions.append(notification.c.channel_id.in_(ids))
        newest_first = select_notifications().order_by(notification.c.created_at.desc(), notification.c.id)
        rows = connection.execute(newest_first.where(*conditions).limit(limit + 1)).all()
    return page(
        rows,
        limit,
        lambda row: shown_notification(row, caller),
        lambda row: encode_cursor("notifications", epoch_us(row.created_at), row.id),
    )


def _conditions(cursor: str | None, from_: str | None, to: str | None) -> list[ColumnElement[bool]]:
    """What bounds the list in time. Raises Problem 400 or 422."""
    errors: list[FieldError] = []
    from_at, to_at = parse_time(from_, "from", errors), parse_time(to, "to", errors)
    if errors:
        raise invalid(errors)
    at = notification.c.created_at
    conditions: list[ColumnElement[bool]] = []
    if from_at is not None:
        conditions.append(at >= from_at)
    if to_at is not None:
        conditions.append(at < to_at)
    if cursor is not None:
        _, microseconds, last = decode_cursor(cursor, tuple[Literal["notifications"], int, UUID])
        conditions.append(alert_queries.behind(at, notification.c.id, (cursor_time(microseconds), last)))
    return conditions


@router.get(
    ONE,
    response_model=notification_schemas.NotificationWithAttempts,
    responses=problems(401, 403, 404, 422),
    summary="Get a notification with its attempts",
)
def get_notification(id_: NotificationId, caller: Reader, engine: Database) -> Response:
    """One message, what it says, and how each attempt to send it went."""
    with reading(engine) as connection:
        item = _whole(connection, caller, visible_notification(connection, caller, id_))
    return answer(item)


def visible_notification(connection: Connection, caller: Caller, id_: str) -> Row[Any]:
    """The notification's row. Raises Problem 404 if there is none that this caller may see."""
    notification_id = parse_id("notification", id_)
    own = alert_queries.of_callers_clients(connection, caller, notification.c.client_id)
    row = connection.execute(select_notifications().where(own, notification.c.id == notification_id)).first()
    if row is None:
        raise not_found("notification", id_)
    return row


def _whole(connection: Connection, caller: Caller, row: Row[Any]) -> Item:
    attempt = models.notification_attempt
    newest = (
        select(attempt)
        .where(attempt.c.client_id == row.client_id, attempt.c.notification_id == row.id)
        .order_by(attempt.c.n.desc(), attempt.c.started_at.desc())
        .limit(MAX_ATTEMPTS)
    )
    attempts = connection.execute(newest).all()[::-1]
    may_read = may_read_errors(row, caller)
    return shown_notification(row, caller) | {
        "message": row.body,
        "attempts": [shown_attempt(each, may_read_errors=may_read) for each in attempts],
    }


@router.post(
    f"{ONE}:retry",
    response_model=notification_schemas.NotificationWithAttempts,
    responses=problems(401, 403, 404, 409, 422),
    summary="Send a dead notification again",
)
def retry_notification(id_: NotificationId, caller: Writer, engine: Database) -> Response:
    """Try again what was given up, from now on as if it were new: with the same id, so that a receiver that has seen
    it may drop it.

    What a newer message has overtaken is not sent any more.
    """
    with engine.begin() as connection:
        # What is sent meanwhile is seen by it.
        connection.exec_driver_sql(DELIVERY_LOCK)
        row = visible_notification(connection, caller, id_)
        _refuse_stale(connection, row)
        if not retry(connection, row.client_id, row.id, catalog.clock(connection)):
            raise Problem(409, "not_dead", "Only what was given up (`dead`) is sent again.")
        item = _whole(connection, caller, visible_notification(connection, caller, id_))
    return answer(item)


def _refuse_stale(connection: Connection, row: Row[Any]) -> None:
    """Raises Problem 409 where the channel is gone, its receiver knows of a later state of the alert already or is to
    hear of one, or would never hear that it is over.
    """
    gone = select(channel.c.id).where(channel.c.id == row.channel_id, channel.c.deleted_at.is_not(None))
    if connection.execute(gone).first() is not None:
        raise Problem(409, "channel_deleted", "Its channel was deleted.")
    if row.alert_id is None:
        return
    over = select(alert.c.id).where(
        alert.c.client_id == row.client_id, alert.c.id == row.alert_id, alert.c.resolved_at.is_not(None)
    )
    if row.reason != Reason.RESOLVED and connection.execute(over).first() is not None:
        raise Problem(409, "alert_resolved", "The alert is resolved: that it goes on is not true any more.")
    newer = select(notification.c.id).where(
        notification.c.client_id == row.client_id,
        notification.c.alert_id == row.alert_id,
        notification.c.channel_id == row.channel_id,
        notification.c.created_at > row.created_at,
        notification.c.status.in_(("pending", "leased", "sent")),
    )
    if connection.execute(newer.limit(1)).first() is not None:
        raise Problem(409, "superseded", "The channel has taken a newer message about this alert, or is to get one.")
