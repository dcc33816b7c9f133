"""Items that ingestion refused, so that a producer can be told why."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from sqlalchemy import Row, Select, select

from pulsewatch import models
from pulsewatch.api import schemas
from pulsewatch.api.answers import (
    Cursor,
    Item,
    Limit,
    TimeText,
    bad_cursor,
    decode_cursor,
    encode_cursor,
    page,
    parse_time,
)
from pulsewatch.api.deps import Database, Reader, reading, visible_client
from pulsewatch.api.errors import invalid
from pulsewatch.api.openapi import problems
from pulsewatch.problems import FieldError

router = APIRouter(tags=["rejects"])

MAX_BIGINT = 2**63 - 1


def shown(row: Row[Any]) -> Item:
    """A refused item as the API shows it."""
    return {
        "received_at": row.received_at,
        "client": row.client,
        "key_id": row.key_id,
        "source": row.source,
        "code": row.code,
        "pointer": row.pointer,
        "detail": row.detail,
        "item": row.item,
    }


@router.get(
    "/v1/rejects",
    response_model=schemas.RejectPage,
    responses=problems(400, 401, 403, 404, 422),
    summary="List refused items",
)
def list_rejects(
    caller: Reader,
    engine: Database,
    limit: Limit = 100,
    cursor: Cursor = None,
    client: Annotated[str | None, Query(description="Only items of this client, by its slug.")] = None,
    code: Annotated[str | None, Query(max_length=100, description="Only items refused for this reason.")] = None,
    source: Annotated[str | None, Query(max_length=100, description="Only items of this wire.")] = None,
    from_: Annotated[TimeText, Query(alias="from", description="Only items received at or after this.")] = None,
    to: Annotated[TimeText, Query(alias="to", description="Only items received before this.")] = None,
) -> Response:
    """The items that were refused in the last days, newest first, with the first 8 KB of each."""
    query = _filtered(code, source, from_, to).limit(limit + 1)
    if cursor is not None:
        query = query.where(models.ingest_reject.c.id < _id_in(cursor))
    with reading(engine) as connection:
        client_id = caller.client_id
        if client is not None:
            client_id = visible_client(connection, caller, client).id
        if client_id is not None:
            query = query.where(models.ingest_reject.c.client_id == client_id)
        rows = connection.execute(query).all()
    return page(rows, limit, shown, lambda row: encode_cursor("rejects", row.id))


def _filtered(code: str | None, source: str | None, from_: str | None, to: str | None) -> Select[Any]:
    errors: list[FieldError] = []
    from_at, to_at = parse_time(from_, "from", errors), parse_time(to, "to", errors)
    if errors:
        raise invalid(errors)
    reject, client = models.ingest_reject, models.client
    query = (
        select(reject, client.c.slug.label("client"))
        .select_from(reject.outerjoin(client, client.c.id == reject.c.client_id))
        .order_by(reject.c.id.desc())
    )
    if code is not None:
        query = query.where(reject.c.code == code)
    if source is not None:
        query = query.where(reject.c.source == source)
    if from_at is not None:
        query = query.where(reject.c.received_at >= from_at)
    if to_at is not None:
        query = query.where(reject.c.received_at < to_at)
    return query


def _id_in(cursor: str) -> int:
    _, last = decode_cursor(cursor, tuple[Literal["rejects"], int])
    if not 0 <= last <= MAX_BIGINT:
        raise bad_cursor()
    return last
