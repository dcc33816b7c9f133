"""Alerts: list, get with what happened, and what people do with them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from sqlalchemy import ColumnElement, Connection, Row

from pulsewatch import alert_acts
from pulsewatch.alert_acts import Act
from pulsewatch.api import alert_queries, alert_schemas
from pulsewatch.api.alert_queries import alert, select_alerts, shown_alert, shown_event, shown_notification
from pulsewatch.api.alert_schemas import MAX_SNOOZE_S, AcknowledgeRequest, CommentRequest, SnoozeRequest
from pulsewatch.api.answers import (
    Cursor,
    Limit,
    TimeText,
    answer,
    cursor_time,
    decode_cursor,
    encode_cursor,
    page,
    parse_time,
)
from pulsewatch.api.deps import Body, Database, Reader, Writer, parse_id, reading
from pulsewatch.api.errors import invalid, not_found
from pulsewatch.api.model_bodies import OptionalBody, read_body
from pulsewatch.api.openapi import body_of, problems
from pulsewatch.api.paths import WORD
from pulsewatch.auth import Caller
from pulsewatch.events import epoch_us
from pulsewatch.problems import FieldError, Problem
from pulsewatch.rules.base import Level

router = APIRouter(tags=["alerts"])

ONE = f"/v1/alerts/{{id:{WORD}}}"

AlertId = Annotated[
    str,
    Path(
        alias="id",
        description="The alert's `id`.",
        json_schema_extra={"format": "uuid"},
        examples=["8f2b7c7e-5d0a-8c1b-9a53-2d7f3e6b1c44"],
    ),
]
State = Annotated[
    Literal["open", "firing", "acknowledged", "snoozed", "resolved"] | None,
    Query(description="Only alerts in this state; `open`: in any but `resolved`."),
]


@router.get(
    "/v1/alerts",
    response_model=alert_schemas.AlertPage,
    responses=problems(400, 401, 403, 404, 422),
    summary="List alerts",
)
def list_alerts(
    caller: Reader,
    engine: Database,
    limit: Limit = 100,
    cursor: Cursor = None,
    state: State = None,
    client: Annotated[str | None, Query(description="Only alerts of this client, by its slug.")] = None,
    pipeline: Annotated[
        str | None,
        Query(description="Only alerts of this pipeline, by its slug; needs `client` unless the key is bound."),
    ] = None,
    rule: Annotated[str | None, Query(description="Only alerts of rules of this key.")] = None,
    level: Annotated[Literal["warning", "critical"] | None, Query(description="Only those that are this bad.")] = None,
    from_: Annotated[TimeText, Query(alias="from", description="Only those that fired at or after this.")] = None,
    to: Annotated[TimeText, Query(alias="to", description="Only those that fired before this.")] = None,
) -> Response:
    """The alerts that the key may see, newest first by `fired_at`. A bound key sees those of its client."""
    conditions = _conditions(cursor, from_, to)
    if state is not None:
        conditions.append(alert_queries.in_state(state))
    if level is not None:
        conditions.append(alert.c.level == Level[level.upper()].value)
    with reading(engine) as connection:
        conditions += alert_queries.of_target(connection, caller, client, pipeline)
        if rule is not None:
            conditions.append(alert_queries.of_rule(connection, rule))
        rows = connection.execute(select_alerts().where(*conditions).limit(limit + 1)).all()
    return page(rows, limit, shown_alert, lambda row: encode_cursor("alerts", epoch_us(row.fired_at), row.id))


def _conditions(cursor: str | None, from_: str | None, to: str | None) -> list[ColumnElement[bool]]:
    """What bounds the list in time. Raises Problem 400 or 422."""
    errors: list[FieldError] = []
    from_at, to_at = parse_time(from_, "from", errors), parse_time(to, "to", errors)
    if errors:
        raise invalid(errors)
    conditions: list[ColumnElement[bool]] = []
    if from_at is not None:
        conditions.append(alert.c.fired_at >= from_at)
    if to_at is not None:
        conditions.append(alert.c.fired_at < to_at)
    if cursor is not None:
        _, microseconds, last = decode_cursor(cursor, tuple[Literal["alerts"], int, UUID])
        conditions.append(alert_queries.behind(alert.c.fired_at, alert.c.id, (cursor_time(microseconds), last)))
    return conditions


@router.get(
    ONE,
    response_model=alert_schemas.AlertWithEvents,
    responses=problems(401, 403, 404, 422),
    summary="Get an alert with its events",
)
def get_alert(id_: AlertId, caller: Reader, engine: Database) -> Response:
    """One alert, what happened to it, and who was told."""
    with reading(engine) as connection:
        row = visible_alert(connection, caller, id_)
        return _whole(connection, caller, row)


def visible_alert(connection: Connection, caller: Caller, id_: str) -> Row[Any]:
    """The alert's row. Raises Problem 404 if there is none that this caller may see."""
    alert_id = parse_id("alert", id_)
    own = alert_queries.of_callers_clients(connection, caller, alert.c.client_id)
    row = connection.execute(select_alerts().where(own, alert.c.id == alert_id)).first()
    if row is None:
        raise not_found("alert", id_)
    return row


def _whole(connection: Connection, caller: Caller, row: Row[Any]) -> Response:
    """An alert with its events and notifications."""
    events, has_all_events = alert_queries.select_events(connection, row.client_id, row.id)
    notifications = alert_queries.notifications_of(connection, row.client_id, row.id)
    return answer(
        shown_alert(row)
        | {
            "events": [shown_event(event) for event in events],
            "has_all_events": has_all_events,
            "notifications": [shown_notification(each, caller) for each in notifications],
        }
    )


# -- acts -------------------------------------------------------------------------------------------------------------


def _do(
    engine: Database, caller: Caller, id_: str, comment: str | None, act: Callable[[Connection, Act], None]
) -> Response:
    """Do this with the alert, and show it as it is then."""
    with engine.begin() as connection:
        as_of = alert_acts.lock(connection)
        row = visible_alert(connection, caller, id_)
        try:
            act(connection, Act(row.client_id, row.id, as_of, caller.name, comment))
        except alert_acts.AlertResolved as resolved:
            raise Problem(
                409, "alert_resolved", "The alert is resolved: there is nothing left to be done."
            ) from resolved
        return _whole(connection, caller, visible_alert(connection, caller, id_))


@router.post(
    f"{ONE}:ack",
    response_model=alert_schemas.AlertWithEvents,
    responses=problems(400, 401, 403, 404, 409, 413, 415, 422),
    openapi_extra=body_of("AcknowledgeRequest", is_required=False),
    summary="Acknowledge an alert",
)
def acknowledge_alert(id_: AlertId, caller: Writer, engine: Database, body: OptionalBody) -> Response:
    """Take the alert on: nobody is told again until it is resolved or gets worse.

    One that was taken on already stays with whom it is; a comment is written down.
    """
    comment = read_body(AcknowledgeRequest, body).comment
    return _do(engine, caller, id_, comment, alert_acts.acknowledge)


@router.post(
    f"{ONE}:unack",
    response_model=alert_schemas.AlertWithEvents,
    responses=problems(400, 401, 403, 404, 409, 413, 415, 422),
    openapi_extra=body_of("AcknowledgeRequest", is_required=False),
    summary="Take back an acknowledgement or a snooze",
)
def unacknowledge_alert(id_: AlertId, caller: Writer, engine: Database, body: OptionalBody) -> Response:
    """Give the alert back: people are told of it again as if nobody had taken it on or put it off."""
    comment = read_body(AcknowledgeRequest, body).comment
    return _do(engine, caller, id_, comment, alert_acts.unacknowledge)


@router.post(
    f"{ONE}:snooze",
    response_model=alert_schemas.AlertWithEvents,
    responses=problems(400, 401, 403, 404, 409, 413, 415, 422),
    openapi_extra=body_of("SnoozeRequest"),
    summary="Snooze an alert",
)
def snooze_alert(id_: AlertId, caller: Writer, engine: Database, body: Body) -> Response:
    """Put the alert off: nobody is told again before then, unless it is resolved or gets worse.

    Snoozing it again sets another time.
    """
    said = read_body(SnoozeRequest, body)

    def act(connection: Connection, its: Act) -> None:
        alert_acts.snooze(connection, its, _until(said, its.as_of))

    return _do(engine, caller, id_, said.comment, act)


def _until(said: SnoozeRequest, now: datetime) -> datetime:
    """When the snooze ends. Raises Problem 422."""
    if said.for_s is not None:
        return now + timedelta(seconds=said.for_s)
    if said.until is None or not now < said.until <= now + timedelta(seconds=MAX_SNOOZE_S):
        raise invalid([FieldError("/until", "out_of_range", "It lies ahead, by 31 days at most.")])
    return said.until.astimezone(UTC)


@router.post(
    f"{ONE}:comment",
    response_model=alert_schemas.AlertWithEvents,
    responses=problems(400, 401, 403, 404, 413, 415, 422),
    openapi_extra=body_of("CommentRequest"),
    summary="Comment on an alert",
)
def comment_on_alert(id_: AlertId, caller: Writer, engine: Database, body: Body) -> Response:
    """Write down what people should know, among what happened; also for an alert that is resolved."""
    return _do(engine, caller, id_, read_body(CommentRequest, body).comment, alert_acts.comment)
