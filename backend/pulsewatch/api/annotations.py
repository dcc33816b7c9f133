"""Annotations of a client: deploys and notes that people want to see beside the runs."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from fastapi import APIRouter, Path, Query, Response
from sqlalchemy import Connection, Row, Select, and_, delete, func, insert, or_, select

from pulsewatch import models
from pulsewatch.api import schemas
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
from pulsewatch.api.clients import ClientSlug
from pulsewatch.api.deps import (
    Body,
    Database,
    Reader,
    Words,
    Writer,
    parse_id,
    reading,
    visible_client,
    visible_pipeline,
)
from pulsewatch.api.errors import invalid, not_found
from pulsewatch.api.openapi import body_of, problems
from pulsewatch.api.schemas import AnnotationKind
from pulsewatch.catalog import FieldFault, checked_text, json_type, unknown_field
from pulsewatch.events import epoch_us, is_slug
from pulsewatch.problems import FieldError, Problem

router = APIRouter(tags=["annotations"])

MAX_LENGTH = 2000
OLDEST = datetime(2000, 1, 1, tzinfo=UTC)
FURTHEST = timedelta(days=400)
KINDS = ("deploy", "note")
ADDRESS = re.compile(r"https?://[^\s]+")

AnnotationId = Annotated[
    str,
    Path(
        alias="id",
        description="The annotation's `id`.",
        json_schema_extra={"format": "uuid"},
        examples=["7f2d3c55-2a86-4d0f-8f43-0c9d0a4e6b11"],
    ),
]


def shown(row: Row[Any]) -> Item:
    """An annotation as the API shows it."""
    return {
        "id": row.id,
        "client": row.client,
        "pipeline": row.pipeline,
        "at": row.at,
        "until_at": row.until_at,
        "kind": row.kind,
        "text": row.text,
        "url": row.url,
        "created_at": row.created_at,
    }


def _select(client_id: int) -> Select[Any]:
    annotation, client, pipeline = models.annotation, models.client, models.pipeline
    of_pipeline = and_(pipeline.c.client_id == annotation.c.client_id, pipeline.c.id == annotation.c.pipeline_id)
    return (
        select(annotation, client.c.slug.label("client"), pipeline.c.slug.label("pipeline"))
        .select_from(annotation.join(client, client.c.id == annotation.c.client_id).outerjoin(pipeline, of_pipeline))
        .where(annotation.c.client_id == client_id)
    )


@router.get(
    "/v1/clients/{client}/annotations",
    response_model=schemas.AnnotationPage,
    responses=problems(400, 401, 403, 404, 422),
    summary="List a client's annotations",
)
def list_annotations(
    client: ClientSlug,
    caller: Reader,
    engine: Database,
    limit: Limit = 100,
    cursor: Cursor = None,
    kind: Annotated[AnnotationKind | None, Query(description="Only annotations of this kind.")] = None,
    pipeline: Annotated[str | None, Query(description="Only those about this pipeline, by its slug.")] = None,
    from_: Annotated[TimeText, Query(alias="from", description="Only those that last until this or later.")] = None,
    to: Annotated[TimeText, Query(alias="to", description="Only those that begin before this.")] = None,
) -> Response:
    """The deploys and notes of a client, newest first by `at`. One without `until_at` is a moment."""
    annotation = models.annotation
    errors: list[FieldError] = []
    from_at, to_at = parse_time(from_, "from", errors), parse_time(to, "to", errors)
    if errors:
        raise invalid(errors)
    conditions = []
    if kind is not None:
        conditions.append(annotation.c.kind == kind)
    if from_at is not None:
        conditions.append(func.coalesce(annotation.c.until_at, annotation.c.at) >= from_at)
    if to_at is not None:
        conditions.append(annotation.c.at < to_at)
    if cursor is not None:
        _, microseconds, last = decode_cursor(cursor, tuple[Literal["annotations"], int, UUID])
        at = cursor_time(microseconds)
        conditions.append(or_(annotation.c.at < at, and_(annotation.c.at == at, annotation.c.id > last)))
    with reading(engine) as connection:
        client_id = visible_client(connection, caller, client).id
        if pipeline is not None:
            conditions.append(annotation.c.pipeline_id == visible_pipeline(connection, client_id, pipeline).id)
        newest_first = _select(client_id).order_by(annotation.c.at.desc(), annotation.c.id)
        rows = connection.execute(newest_first.where(*conditions).limit(limit + 1)).all()
    return page(rows, limit, shown, lambda row: encode_cursor("annotations", epoch_us(row.at), row.id))


@router.get(
    "/v1/clients/{client}/annotations/{id}",
    response_model=schemas.Annotation,
    responses=problems(401, 403, 404, 422),
    summary="Get an annotation",
)
def get_annotation(client: ClientSlug, id_: AnnotationId, caller: Reader, engine: Database) -> Response:
    """One deploy or note."""
    annotation_id = parse_id("annotation", id_)
    with reading(engine) as connection:
        client_id = visible_client(connection, caller, client).id
        row = connection.execute(_select(client_id).where(models.annotation.c.id == annotation_id)).first()
    if row is None:
        raise not_found("annotation", id_)
    return answer(shown(row))


@router.post(
    "/v1/clients/{client}/annotations",
    status_code=201,
    response_model=schemas.Annotation,
    responses=problems(400, 401, 403, 404, 409, 413, 415, 422),
    openapi_extra=body_of("AnnotationRequest"),
    summary="Write down a deploy or a note",
)
def create_annotation(client: ClientSlug, caller: Writer, body: Body, engine: Database) -> Response:
    """Write down what happened, about one pipeline or all of the client. Sent twice, it stands there twice."""
    values, errors = _read_request(body, datetime.now(UTC))
    with engine.begin() as connection:
        owner = visible_client(connection, caller, client, is_kept=True)
        pipeline_id = _pipeline_id(connection, owner.id, values.pop("pipeline", None), errors)
        if errors:
            raise invalid(errors)
        if owner.archived_at is not None:
            raise Problem(409, "client_archived", f"Client {client!r} is archived; PUT it to bring it back.")
        new = insert(models.annotation).values(client_id=owner.id, pipeline_id=pipeline_id, **values)
        annotation_id = connection.execute(new.returning(models.annotation.c.id)).scalar_one()
        row = connection.execute(_select(owner.id).where(models.annotation.c.id == annotation_id)).one()
    return answer(shown(row), 201, {"Location": f"/v1/clients/{client}/annotations/{annotation_id}"})


@router.delete(
    "/v1/clients/{client}/annotations/{id}",
    status_code=204,
    response_class=Response,
    responses=problems(401, 403, 404, 422),
    summary="Delete an annotation",
)
def delete_annotation(client: ClientSlug, id_: AnnotationId, caller: Writer, engine: Database) -> Response:
    """Take a deploy or note away, for ever. To change one, delete it and write it anew."""
    annotation = models.annotation
    annotation_id = parse_id("annotation", id_)
    with engine.begin() as connection:
        client_id = visible_client(connection, caller, client).id
        own = and_(annotation.c.client_id == client_id, annotation.c.id == annotation_id)
        if connection.execute(delete(annotation).where(own)).rowcount == 0:
            raise not_found("annotation", id_)
    return Response(status_code=204)


# -- the body ------------------------------------------------------------------------------------------------


def _time(value: object, now: datetime) -> datetime:
    if not isinstance(value, str):
        raise FieldFault("wrong_type", f"A text is expected, not {json_type(value)}.")
    try:
        at = msgspec.convert(value, datetime)
    except msgspec.ValidationError as error:
        raise FieldFault("wrong_type", "Write a time as in 2026-01-31T06:00:00Z.") from error
    if at.tzinfo is None:
        raise FieldFault("naive_time", "The time needs an offset, such as Z or +02:00.")
    if not OLDEST <= at <= now + FURTHEST:
        raise FieldFault("out_of_range", f"From the year {OLDEST.year} to {FURTHEST.days} days ahead.")
    return at.astimezone(UTC)


def _kind(value: object) -> str:
    kind = checked_text(value, MAX_LENGTH)
    if kind not in KINDS:
        raise FieldFault("unknown_value", f"The kind is one of {', '.join(KINDS)}.")
    return kind


def _text(value: object) -> str:
    words = checked_text(value, MAX_LENGTH)
    if not words.strip():
        raise FieldFault("too_short", "An annotation without words says nothing.")
    return words


def _url(value: object) -> str:
    address = checked_text(value, MAX_LENGTH)
    if ADDRESS.fullmatch(address) is None:
        raise FieldFault("invalid_url", "An http or https address without spaces is expected.")
    return address


def _slug(value: object) -> str:
    return checked_text(value, MAX_LENGTH)


NEEDED = ("at", "kind", "text")


def _read_request(body: Words, now: datetime) -> tuple[dict[str, Any], list[FieldError]]:
    """The fields that were given and are sound, and what is wrong with the others."""
    checks: dict[str, Callable[[object], object]] = {
        "at": lambda value: _time(value, now),
        "until_at": lambda value: _time(value, now),
        "kind": _kind,
        "text": _text,
        "pipeline": _slug,
        "url": _url,
    }
    errors = [unknown_field(name, list(checks)) for name in body if name not in checks]
    values: dict[str, Any] = {}
    for name, check in checks.items():
        if body.get(name) is None:
            if name in NEEDED:
                errors.append(FieldError(f"/{name}", "missing_field", f"An annotation needs {', '.join(NEEDED)}."))
            continue
        try:
            values[name] = check(body[name])
        except FieldFault as fault:
            errors.append(FieldError(f"/{name}", fault.code, str(fault)))
    if "at" in values and "until_at" in values and values["until_at"] <= values["at"]:
        errors.append(FieldError("/until_at", "out_of_range", "It ends after it begins; leave it out for a moment."))
    return values, errors


def _pipeline_id(connection: Connection, client_id: int, slug: str | None, errors: list[FieldError]) -> int | None:
    """The pipeline's number; adds to `errors` if the client has none of this slug."""
    if slug is None:
        return None
    pipeline = models.pipeline
    found = None
    if is_slug(slug):
        query = select(pipeline.c.id).where(pipeline.c.client_id == client_id, pipeline.c.slug == slug)
        # It is not erased before the transaction ends.
        found = connection.execute(query.with_for_update(read=True, key_share=True)).scalar_one_or_none()
    if found is None:
        errors.append(FieldError("/pipeline", "unknown_value", "The client has no pipeline of this slug."))
    return found
