"""Clients: list, get, put, archive."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from sqlalchemy import Connection, Row, func, select, update
from sqlalchemy.dialects.postgresql import insert

from pulsewatch import catalog, models
from pulsewatch.api import schemas
from pulsewatch.api.answers import (
    Cursor,
    Item,
    Limit,
    answer,
    bad_cursor,
    check_preconditions,
    decode_cursor,
    encode_cursor,
    entity_tag,
    page,
)
from pulsewatch.api.deps import Body, Database, Reader, Writer, own_row, reading, require_visible, visible_client
from pulsewatch.api.errors import invalid, not_found
from pulsewatch.api.openapi import body_of, created, preconditions, problems
from pulsewatch.auth import Caller
from pulsewatch.events import is_slug
from pulsewatch.problems import FieldError, Problem

router = APIRouter(tags=["clients"])

ClientSlug = Annotated[str, Path(description="Slug of the client.", examples=["acme"])]
Archived = Annotated[
    Literal["false", "true", "any"],
    Query(description="`false`: those in use. `true`: those that were archived. `any`: both."),
]
SLUG_RULE = "1 to 100 letters, digits, dots, dashes and underscores, the first a letter or digit"


def shown(row: Row[Any]) -> Item:
    """A client as the API shows it."""
    return {
        "slug": row.slug,
        "title": row.title,
        "archived_at": row.archived_at,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


@router.get(
    "/v1/clients", response_model=schemas.ClientPage, responses=problems(400, 401, 403, 422), summary="List clients"
)
def list_clients(
    caller: Reader, engine: Database, limit: Limit = 100, cursor: Cursor = None, archived: Archived = "false"
) -> Response:
    """The clients that the key may see, by slug."""
    client = models.client
    query = select(client).order_by(client.c.slug).limit(limit + 1)
    if caller.client_id is not None:
        query = query.where(client.c.id == caller.client_id)
    if archived != "any":
        query = query.where(client.c.archived_at.is_not(None) if archived == "true" else client.c.archived_at.is_(None))
    if cursor is not None:
        _, after = decode_cursor(cursor, tuple[Literal["clients"], str])
        query = query.where(client.c.slug > slug_of_cursor(after))
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    return page(rows, limit, shown, lambda row: encode_cursor("clients", row.slug))


@router.get(
    "/v1/clients/{client}",
    response_model=schemas.Client,
    responses=problems(401, 403, 404, 422),
    summary="Get a client",
)
def get_client(client: ClientSlug, caller: Reader, engine: Database) -> Response:
    """One client, archived or not. The ETag header can go into If-Match of a PUT or DELETE."""
    with reading(engine) as connection:
        item = shown(visible_client(connection, caller, client))
    return answer(item, headers={"ETag": entity_tag(item)})


def slug_of_cursor(slug: str) -> str:
    """The slug, if it is one. Raises Problem 400."""
    if not is_slug(slug):
        raise bad_cursor()
    return slug


@router.put(
    "/v1/clients/{client}",
    response_model=schemas.Client,
    responses=created(schemas.Client) | problems(400, 401, 403, 404, 409, 412, 413, 415, 422),
    openapi_extra=body_of("ClientChanges") | preconditions(),
    summary="Create or change a client",
)
def put_client(client: ClientSlug, request: Request, caller: Writer, body: Body, engine: Database) -> Response:
    """Make the client if it is new, and set what the body says: absent is unchanged, null is cleared.

    The same request may be sent any number of times. An archived client comes back into use, unless the key is bound
    to it: what was put out of use stays so for its own producers. What an event with a later time has said stands.
    """
    if not is_slug(client):
        raise invalid([FieldError("{client}", "not_a_slug", f"A slug has {SLUG_RULE}.")])
    require_visible(caller, client)
    changes, errors = catalog.validate_client_changes(body)
    if errors:
        raise invalid(errors)
    with engine.begin() as connection:
        before = _lock_or_make(connection, client, caller, request)
        row = catalog.upsert_client(connection, client, changes, catalog.clock(connection))
        if row.archived_at is not None:
            row = _set_archived(connection, row.id, is_archived=False)
        item = shown(row)
    return answer(item, 201 if before is None else 200, {"ETag": entity_tag(item)})


def _lock_or_make(connection: Connection, slug: str, caller: Caller, request: Request) -> Row[Any] | None:
    """The client's row, locked; None if it was not there and this transaction has made it.

    Raises Problem 412 if the request's preconditions do not hold, 409 or 404 for what a bound key may not do.
    """
    while True:
        row = own_row(caller, catalog.lock_client(connection, slug), slug)
        check_preconditions(request, None if row is None else entity_tag(shown(row)))
        if row is not None and row.archived_at is not None and caller.client_id is not None:
            detail = f"Client {slug!r} is archived; a key that is bound to no client brings it back."
            raise Problem(409, "client_archived", detail)
        # Where another request makes the same client, the insert waits for it, and then there is a row to look at.
        new = insert(models.client).values(slug=slug).on_conflict_do_nothing().returning(models.client.c.id)
        if row is not None or connection.execute(new).first() is not None:
            return row


@router.delete(
    "/v1/clients/{client}",
    status_code=204,
    response_class=Response,
    responses=problems(401, 403, 404, 412, 422),
    openapi_extra=preconditions(),
    summary="Archive a client",
)
def archive_client(client: ClientSlug, request: Request, caller: Writer, engine: Database) -> Response:
    """Take the client out of use: its events are refused from now on, its history stays. PUT brings it back."""
    require_visible(caller, client)
    with engine.begin() as connection:
        row = own_row(caller, catalog.lock_client(connection, client), client)
        if row is None:
            raise not_found("client", client)
        check_preconditions(request, entity_tag(shown(row)))
        if row.archived_at is None:
            _set_archived(connection, row.id, is_archived=True)
    return Response(status_code=204)


def _set_archived(connection: Connection, client_id: int, *, is_archived: bool) -> Row[Any]:
    client = models.client
    values = {"archived_at": func.now() if is_archived else None, "updated_at": func.now()}
    return connection.execute(update(client).where(client.c.id == client_id).values(values).returning(client)).one()
