"""Silences: list, get, make, change, end, and what they are about."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from sqlalchemy import ColumnElement, Connection, Row, Select, case, func, insert, select, tuple_, update

from pulsewatch import alert_targets, catalog, models
from pulsewatch.api import alert_queries, alert_schemas
from pulsewatch.api.alert_queries import IS_OPEN, alert, select_alerts, shown_alert
from pulsewatch.api.alert_rules import whose
from pulsewatch.api.alert_schemas import MAX_SILENCE_S, PreviewRequest, SilenceRequest
from pulsewatch.api.answers import (
    Cursor,
    Item,
    Limit,
    answer,
    check_preconditions,
    cursor_time,
    decode_cursor,
    encode_cursor,
    entity_tag,
    page,
)
from pulsewatch.api.deps import Body, Database, Reader, Writer, parse_id, reading
from pulsewatch.api.errors import invalid, not_found
from pulsewatch.api.model_bodies import read_body
from pulsewatch.api.openapi import body_of, preconditions, problems
from pulsewatch.api.paths import WORD
from pulsewatch.auth import Caller
from pulsewatch.events import epoch_us
from pulsewatch.problems import FieldError, Problem
from pulsewatch.rules.base import Level
from pulsewatch.rules.matchers import Matchers

router = APIRouter(tags=["silences"])

ONE = f"/v1/silences/{{id:{WORD}}}"
SHOWN_HITS = 100

silence = models.silence
# One that was ended before it began never holds. Not by the time at which the transaction began: one that was just made
# begins after that.
STATE: ColumnElement[str] = case(
    (silence.c.ends_at <= func.greatest(func.clock_timestamp(), silence.c.starts_at), "expired"),
    (silence.c.starts_at > func.clock_timestamp(), "pending"),
    else_="active",
)

SilenceId = Annotated[
    str,
    Path(
        alias="id",
        description="The silence's `id`.",
        json_schema_extra={"format": "uuid"},
        examples=["2c0d5a1e-7a3f-4b57-9a1d-5f0b6c7d8e90"],
    ),
]
SilenceClient = Annotated[
    str | None,
    Query(
        alias="client",
        description="Slug of the one client whose alerts it is about; left out: alerts of all clients, or, with a key "
        "that is bound to a client, of that one.",
    ),
]


def shown(row: Row[Any]) -> Item:
    """A silence as the API shows it."""
    return {
        "id": row.id,
        "client": row.client,
        "matchers": row.matchers,
        "state": row.state,
        "starts_at": row.starts_at,
        "ends_at": row.ends_at,
        "comment": row.comment,
        "author": row.author,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


def tag_of(row: Row[Any]) -> str:
    """The ETag: time alone does not change it."""
    return entity_tag({name: value for name, value in shown(row).items() if name != "state"})


def _select() -> Select[Any]:
    client = models.client
    return select(silence, STATE.label("state"), client.c.slug.label("client")).select_from(
        silence.outerjoin(client, client.c.id == silence.c.client_id)
    )


def _visible(connection: Connection, caller: Caller, id_: str, *, is_locked: bool = False) -> Row[Any]:
    """The silence's row. Raises Problem 404 if there is none that this caller may see."""
    query = _select().where(silence.c.id == parse_id("silence", id_))
    if caller.client_id is not None:
        query = query.where(silence.c.client_id == caller.client_id)
    if is_locked:
        query = query.with_for_update(of=silence)
    row = connection.execute(query).first()
    if row is None:
        raise not_found("silence", id_)
    return row


@router.get(
    "/v1/silences",
    response_model=alert_schemas.SilencePage,
    responses=problems(400, 401, 403, 404, 422),
    summary="List silences",
)
def list_silences(
    caller: Reader,
    engine: Database,
    limit: Limit = 100,
    cursor: Cursor = None,
    state: Annotated[
        Literal["active", "pending", "expired"] | None, Query(description="Only silences in this state.")
    ] = None,
    client: Annotated[str | None, Query(description="Only silences of this client, by its slug.")] = None,
) -> Response:
    """Silences, those that end last first. A bound key sees those of its client."""
    conditions: list[ColumnElement[bool]] = []
    if state is not None:
        conditions.append(STATE.in_((state,)))
    if cursor is not None:
        _, microseconds, last = decode_cursor(cursor, tuple[Literal["silences"], int, UUID])
        after = cursor_time(microseconds), last
        conditions.append(alert_queries.behind(silence.c.ends_at, silence.c.id, after))
    with reading(engine) as connection:
        conditions += alert_queries.of_client(connection, caller, silence.c.client_id, client)
        last_first = _select().order_by(silence.c.ends_at.desc(), silence.c.id)
        rows = connection.execute(last_first.where(*conditions).limit(limit + 1)).all()
    return page(rows, limit, shown, lambda row: encode_cursor("silences", epoch_us(row.ends_at), row.id))


@router.get(
    ONE,
    response_model=alert_schemas.Silence,
    responses=problems(401, 403, 404, 422),
    summary="Get a silence",
)
def get_silence(id_: SilenceId, caller: Reader, engine: Database) -> Response:
    """One silence, also one that is over. The ETag header can go into If-Match of a PUT or DELETE."""
    with reading(engine) as connection:
        row = _visible(connection, caller, id_)
    return answer(shown(row), headers={"ETag": tag_of(row)})


# -- writing ----------------------------------------------------------------------------------------------------------


@router.post(
    "/v1/silences",
    status_code=201,
    response_model=alert_schemas.Silence,
    responses=problems(400, 401, 403, 404, 409, 413, 415, 422),
    openapi_extra=body_of("SilenceRequest"),
    summary="Silence alerts",
)
def create_silence(caller: Writer, body: Body, engine: Database, client: SilenceClient = None) -> Response:
    """Tell nobody of these alerts for a time. They are written down all the same; what still fires when the silence is
    over is told then.

    Sent twice there are two silences.
    """
    with engine.begin() as connection:
        owner = whose(connection, caller, client, is_kept=True)
        if owner is not None and owner.archived_at is not None:
            raise Problem(409, "client_archived", f"Client {owner.slug!r} is archived; PUT it to bring it back.")
        said = read_body(SilenceRequest, body)
        now = catalog.clock(connection)
        starts_at = _begin(said, now)
        values = {
            "client_id": None if owner is None else owner.id,
            "matchers": _stored(said.matchers),
            "starts_at": starts_at,
            "ends_at": _ends_at(said, starts_at, now),
            "comment": said.comment,
            "author": caller.name,
        }
        id_ = connection.execute(insert(silence).values(values).returning(silence.c.id)).scalar_one()
        row = _visible(connection, caller, str(id_))
    return answer(shown(row), 201, {"Location": f"/v1/silences/{id_}", "ETag": tag_of(row)})


@router.put(
    ONE,
    response_model=alert_schemas.Silence,
    responses=problems(400, 401, 403, 404, 409, 412, 413, 415, 422),
    openapi_extra=body_of("SilenceRequest") | preconditions(),
    summary="Change a silence",
)
def put_silence(id_: SilenceId, request: Request, caller: Writer, body: Body, engine: Database) -> Response:
    """Say anew what the silence is about, and when. The body is the whole silence.

    One that has begun keeps its start and its matchers, so that it can be told afterwards what was silenced: end it,
    and make another. One that is over stays as it was.
    """
    with engine.begin() as connection:
        row = _visible(connection, caller, id_, is_locked=True)
        check_preconditions(request, tag_of(row))
        said = read_body(SilenceRequest, body)
        now = catalog.clock(connection)
        if row.state == "expired":
            raise Problem(409, "silence_over", "The silence is over; make a new one.")
        starts_at = _starts_at(said, row, now)
        values = {
            "matchers": _stored(said.matchers),
            "starts_at": starts_at,
            "ends_at": _ends_at(said, starts_at, now),
            "comment": said.comment,
        }
        if any(row._mapping[name] != value for name, value in values.items()):
            connection.execute(
                update(silence).where(silence.c.id == row.id).values(values | {"updated_at": func.now()})
            )
            row = _visible(connection, caller, id_)
    return answer(shown(row), headers={"ETag": tag_of(row)})


@router.delete(
    ONE,
    status_code=204,
    response_class=Response,
    responses=problems(401, 403, 404, 412, 422),
    openapi_extra=preconditions(),
    summary="End a silence",
)
def end_silence(id_: SilenceId, request: Request, caller: Writer, engine: Database) -> Response:
    """End the silence now: people are told again. It stays in the list; one that is over already stays as it is."""
    with engine.begin() as connection:
        row = _visible(connection, caller, id_, is_locked=True)
        check_preconditions(request, tag_of(row))
        if row.state != "expired":
            ends_at = max(catalog.clock(connection), row.starts_at)
            values = {"ends_at": ends_at, "updated_at": func.now()}
            connection.execute(update(silence).where(silence.c.id == row.id).values(values))
    return Response(status_code=204)


def _stored(matchers: Matchers) -> dict[str, Any]:
    """Matchers as they are stored: those that are given."""
    return {name: values for name, values in matchers.model_dump(mode="json").items() if values}


def _begin(said: SilenceRequest, now: datetime) -> datetime:
    """When a new silence begins. Raises Problem 422."""
    if said.starts_at is None or said.starts_at <= now:
        return now
    if said.starts_at > now + timedelta(seconds=MAX_SILENCE_S):
        raise invalid([FieldError("/starts_at", "out_of_range", "It begins 400 days from now at the latest.")])
    return said.starts_at.astimezone(UTC)


def _starts_at(said: SilenceRequest, row: Row[Any], now: datetime) -> datetime:
    """When a silence that is changed begins. Raises Problem 409 for what must not change any more."""
    starts_at: datetime = row.starts_at
    if row.state == "pending":
        return starts_at if said.starts_at is None else _begin(said, now)
    if said.starts_at not in (None, starts_at) or _stored(said.matchers) != row.matchers:
        detail = "The silence has begun: its start and matchers stay. End it and make another."
        raise Problem(409, "silence_started", detail)
    return starts_at


def _ends_at(said: SilenceRequest, starts_at: datetime, now: datetime) -> datetime:
    """When the silence ends. Raises Problem 422."""
    if said.ends_at is None:
        ends_at, field = max(now, starts_at) + timedelta(seconds=said.for_s or 0), "for_s"
    else:
        ends_at, field = said.ends_at, "ends_at"
    if not max(now, starts_at) < ends_at <= now + timedelta(seconds=MAX_SILENCE_S):
        detail = "It ends after it begins and after now, and 400 days from now at the latest."
        raise invalid([FieldError(f"/{field}", "out_of_range", detail)])
    return ends_at.astimezone(UTC)


# -- what it is about -------------------------------------------------------------------------------------------------


@router.post(
    "/v1/silences:preview",
    response_model=alert_schemas.SilencePreview,
    responses=problems(400, 401, 403, 404, 413, 415, 422),
    openapi_extra=body_of("PreviewRequest"),
    summary="Preview what a silence would be about",
)
def preview_silence(caller: Reader, body: Body, engine: Database, client: SilenceClient = None) -> Response:
    """Which of the alerts that are open now these matchers hit. Nothing is written."""
    with reading(engine) as connection:
        owner = whose(connection, caller, client)
        matchers = read_body(PreviewRequest, body).matchers
        hits = _hits(connection, None if owner is None else owner.id, matchers)
        shown_first = select_alerts().where(
            tuple_(alert.c.client_id, alert.c.id).in_([(hit.client_id, hit.id) for hit in hits[:SHOWN_HITS]])
        )
        rows = connection.execute(shown_first).all()
    return answer({"count": len(hits), "items": [shown_alert(row) for row in rows]})


def _hits(connection: Connection, client_id: int | None, matchers: Matchers) -> list[Row[Any]]:
    """The open alerts of a client, or of all, that the matchers hit; newest first."""
    rule = models.alert_rule
    query: Select[Any] = (
        select(alert.c.client_id, alert.c.id, alert.c.pipeline_id, alert.c.level, rule.c.key)
        .select_from(alert.join(rule, rule.c.id == alert.c.rule_id))
        .where(IS_OPEN)
        .order_by(alert.c.fired_at.desc(), alert.c.id)
    )
    if client_id is not None:
        query = query.where(alert.c.client_id == client_id)
    rows = connection.execute(query).all()
    named = {(row.client_id, row.pipeline_id) for row in rows}
    described = {(each.client_id, each.pipeline_id): each for each in alert_targets.describe(connection, named)}
    return [
        row
        for row in rows
        if (target := described.get((row.client_id, row.pipeline_id))) is not None
        and matchers.match(row.key, target, Level(row.level))
    ]
