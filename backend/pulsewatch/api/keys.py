"""API keys: list, create, revoke. Only for admins."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from fastapi import APIRouter, Path, Request, Response
from sqlalchemy import Row, and_, or_

from pulsewatch import auth, models
from pulsewatch.api import schemas
from pulsewatch.api.answers import (
    Cursor,
    Item,
    Limit,
    answer,
    cursor_time,
    decode_cursor,
    encode_cursor,
    page,
)
from pulsewatch.api.deps import Admin, Body, Database, Words, parse_id, reading, require_visible, visible_client
from pulsewatch.api.errors import invalid, not_found
from pulsewatch.api.openapi import body_of, problems
from pulsewatch.auth import MAX_NAME_LENGTH, Caller, Role
from pulsewatch.catalog import FieldFault, checked_text, unknown_field
from pulsewatch.events import epoch_us
from pulsewatch.problems import FieldError, Problem

router = APIRouter(tags=["keys"])

FIELDS = ("role", "client", "name", "expires_at")


def shown(row: Row[Any]) -> Item:
    """A key as the API shows it: never the key itself."""
    return dict(row._mapping)


@router.get("/v1/keys", response_model=schemas.KeyPage, responses=problems(400, 401, 403, 422), summary="List API keys")
def list_keys(caller: Admin, engine: Database, limit: Limit = 100, cursor: Cursor = None) -> Response:
    """The keys of all clients, or those of the client that the caller's key is bound to; newest first."""
    key = models.api_key
    query = auth.select_keys().limit(limit + 1)
    if caller.client_id is not None:
        query = query.where(key.c.client_id == caller.client_id)
    if cursor is not None:
        _, microseconds, last = decode_cursor(cursor, tuple[Literal["keys"], int, UUID])
        at = cursor_time(microseconds)
        query = query.where(or_(key.c.created_at < at, and_(key.c.created_at == at, key.c.id > last)))
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    return page(rows, limit, shown, lambda row: encode_cursor("keys", epoch_us(row.created_at), row.id))


@router.post(
    "/v1/keys",
    status_code=201,
    response_model=schemas.NewKey,
    responses=problems(400, 401, 403, 404, 413, 415, 422),
    openapi_extra=body_of("KeyRequest"),
    summary="Create an API key",
)
def create_key(caller: Admin, body: Body, engine: Database) -> Response:
    """Make a key and show it, this once. A client that does not exist yet is created.

    A key that is bound to a client makes keys that are bound to the same.
    """
    role, client, name, expires_at = _read_request(body, caller)
    with engine.begin() as connection:
        if caller.client is not None:
            visible_client(connection, caller, caller.client, is_kept=True)
        key_id, key = auth.create_key(connection, role, client, name=name, expires_at=expires_at)
        row = connection.execute(auth.select_keys().where(models.api_key.c.id == key_id)).one()
    return answer({"key": key, **shown(row)}, 201, {"Cache-Control": "no-store"})


def _read_request(body: Words, caller: Caller) -> tuple[Role, str | None, str | None, datetime | None]:
    """role, client, name and expires_at. Raises Problem 404 for a client that is not the caller's, 422 for the rest."""
    errors = [unknown_field(name, FIELDS) for name in body if name not in FIELDS]
    texts: dict[str, str | None] = dict.fromkeys(FIELDS)
    for name in FIELDS:
        value = body.get(name)
        try:
            texts[name] = None if value is None else checked_text(value, MAX_NAME_LENGTH)
        except FieldFault as fault:
            errors.append(FieldError(f"/{name}", fault.code, str(fault)))
    roles = ", ".join(Role)
    if "role" not in body:
        errors.append(FieldError("/role", "missing_field", f"A role is needed: {roles}."))
    elif texts["role"] not in set(Role) and not any(error.pointer == "/role" for error in errors):
        errors.append(FieldError("/role", "unknown_value", f"The role is one of {roles}."))
    expires_at = _expiry(texts["expires_at"], errors)
    if errors:
        raise invalid(errors)
    # Not `or`: an empty text is no slug, and must not become a key to every client.
    client = caller.client if texts["client"] is None else texts["client"]
    if caller.client is not None and client is not None:
        require_visible(caller, client)
    return Role(str(texts["role"])), client, texts["name"], expires_at


def _expiry(written: str | None, errors: list[FieldError]) -> datetime | None:
    if written is None:
        return None
    try:
        at = msgspec.convert(written, datetime)
    except msgspec.ValidationError:
        errors.append(FieldError("/expires_at", "wrong_type", "Write a time as in 2027-01-31T06:00:00Z."))
        return None
    if at.tzinfo is None:
        errors.append(FieldError("/expires_at", "naive_time", "The time needs an offset, such as Z or +02:00."))
    return at


@router.delete(
    "/v1/keys/{id}",
    status_code=204,
    response_class=Response,
    responses=problems(401, 403, 404, 409, 422),
    summary="Revoke an API key",
)
def revoke_key(
    id_: Annotated[
        str,
        Path(
            alias="id",
            description="The key's `id`.",
            json_schema_extra={"format": "uuid"},
            examples=["5f0c7a52-0d5b-4a54-9d0a-3f6f5f1c9e11"],
        ),
    ],
    request: Request,
    caller: Admin,
    engine: Database,
) -> Response:
    """Refuse the key from now on; every process knows within 5 seconds. Its line stays in the list.

    A key cannot revoke itself, so that nobody locks himself out by mistake.
    """
    key_id = parse_id("key", id_)
    if key_id == caller.key_id:
        detail = "A key cannot revoke itself: send another admin's, or run 'pulsewatch key revoke'."
        raise Problem(409, "own_key", detail)
    with engine.begin() as connection:
        if not auth.revoke_key(connection, key_id, client_id=caller.client_id):
            raise not_found("key", id_)
    request.app.state.keyring.forget(key_id)
    return Response(status_code=204)
