"""What routes ask for: the caller and what he may do, the database, the body of the request."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from uuid import UUID

import msgspec
from fastapi import Depends, Request
from fastapi.openapi.utils import get_openapi
from sqlalchemy import Connection, Engine, Row, select
from starlette.concurrency import run_in_threadpool

from pulsewatch import models
from pulsewatch.api.errors import invalid, not_found
from pulsewatch.auth import Caller, Keyring, Role
from pulsewatch.catalog import json_type, unknown_field
from pulsewatch.events import is_slug
from pulsewatch.problems import FieldError, Problem
from pulsewatch.settings import Settings

MAX_BODY_BYTES = 64 * 1024
# A list with a filter that hardly anything passes may walk far; it must not hold a connection for ever.
READ_TIMEOUT = "set local statement_timeout = '15s'"

Words = dict[str, Any]


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def authenticate(request: Request) -> Caller:
    """Who asks. Known keys are recognised without a thread and without the database."""
    authorization = request.headers.get("authorization")
    keyring: Keyring = request.app.state.keyring
    known = keyring.cached(authorization)
    if known is not None:
        return known
    caller: Caller = await run_in_threadpool(keyring.caller, authorization)
    return caller


def forbidden(needed: Role, caller: Caller) -> Problem:
    """403 that says which role would do."""
    return Problem(403, "forbidden", f"This needs a key of role {needed}; the key sent has {caller.role}.")


async def _reader(request: Request) -> Caller:
    caller = await authenticate(request)
    if not caller.may_read:
        raise forbidden(Role.READ, caller)
    check_query(request)
    return caller


async def _writer(request: Request) -> Caller:
    caller = await authenticate(request)
    if not caller.may_write:
        raise forbidden(Role.WRITE, caller)
    check_query(request)
    return caller


async def _admin(request: Request) -> Caller:
    caller = await authenticate(request)
    if not caller.may_admin:
        raise forbidden(Role.ADMIN, caller)
    check_query(request)
    return caller


def check_query(request: Request) -> None:
    """Refuse parameters that the route does not know, or that hold NUL, instead of passing over them.

    A filter that is silently ignored shows rows that nobody asked for.
    """
    given = request.scope["query_string"]
    if not given:
        return
    known = _known_parameters(request)
    errors = []
    for name, value in request.query_params.multi_items():
        if name not in known:
            errors.append(unknown_field(name, sorted(known), query=True))
        elif "\0" in value:
            errors.append(FieldError(f"?{name}", "nul_character", "The NUL character is in no stored text."))
    if errors:
        raise invalid(errors)


def _known_parameters(request: Request) -> frozenset[str]:
    """The query parameters of this route, as the OpenAPI document names them."""
    cache: dict[str, frozenset[str]] = request.app.state.known_parameters
    path = request.scope["route"].path_format
    method = "GET" if request.method == "HEAD" else request.method
    key = f"{method} {path}"
    if key not in cache:
        # A document of this path alone: the whole one takes half a second, and the first to ask would wait for it.
        routes = [route for route in request.app.state.api_routes if route.path_format == path]
        operation = get_openapi(title=path, version="", routes=routes)["paths"][path][method.lower()]
        named = operation.get("parameters", ())
        cache[key] = frozenset(parameter["name"] for parameter in named if parameter["in"] == "query")
    return cache[key]


async def read_object(request: Request) -> Words:
    """The body as one JSON object. Raises Problem 400, 413, 415 or 422."""
    media_type = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if media_type != "application/json":
        raise Problem(415, "unsupported_media_type", "The body must be application/json.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "unsupported_media_type", "The body must not be compressed here.")
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            raise Problem(413, "too_large", f"The body may have {MAX_BODY_BYTES} bytes at most.")
    try:
        body = msgspec.json.decode(content)
    except RecursionError as error:
        raise Problem(400, "too_deep", "The body is nested too deeply.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(400, "invalid_json", f"The body is not JSON: {error}.") from error
    if not isinstance(body, dict):
        fault = FieldError("", "wrong_type", f"The body must be an object, not {json_type(body)}.")
        raise invalid([fault])
    return body


Database = Annotated[Engine, Depends(_engine)]
Configured = Annotated[Settings, Depends(_settings)]
Reader = Annotated[Caller, Depends(_reader)]
Writer = Annotated[Caller, Depends(_writer)]
Admin = Annotated[Caller, Depends(_admin)]
Body = Annotated[Words, Depends(read_object)]


_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


def parse_id(what: str, written: str) -> UUID:
    """The id in a path. What cannot be one is not found (404): Python's own parser would take braces and more."""
    if _UUID.fullmatch(written) is None:
        raise not_found(what, written)
    return UUID(written)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One transaction that only reads, and not for ever."""
    with engine.begin() as connection:
        connection.exec_driver_sql(READ_TIMEOUT)
        yield connection


def visible_client(connection: Connection, caller: Caller, slug: str, *, is_kept: bool = False) -> Row[Any]:
    """The client's row. Raises Problem 404 if there is none that this caller may see.

    `is_kept`: it is not erased before the transaction ends. Who writes rows that refer to it needs that.
    """
    require_visible(caller, slug)
    query = select(models.client).where(models.client.c.slug == slug)
    if is_kept:
        query = query.with_for_update(read=True, key_share=True)
    row = own_row(caller, connection.execute(query).first(), slug)
    if row is None:
        raise not_found("client", slug)
    return row


def own_row(caller: Caller, row: Row[Any] | None, slug: str) -> Row[Any] | None:
    """The client's row, or None. Raises Problem 404 for a bound key unless it is the row that the key is bound to.

    A key is believed for some seconds after its client was erased: it must neither make the client anew nor see the
    next one of that name.
    """
    if caller.client_id is not None and (row is None or row.id != caller.client_id):
        raise not_found("client", slug)
    return row


def require_visible(caller: Caller, slug: str) -> None:
    """Raises Problem 404 for a client that cannot be, or that a bound key may not see."""
    if not is_slug(slug) or (caller.client is not None and caller.client != slug):
        raise not_found("client", slug)


def visible_pipeline(connection: Connection, client_id: int, slug: str) -> Row[Any]:
    """The pipeline's row. Raises Problem 404 if the client has none of this slug."""
    pipeline = models.pipeline
    row = None
    if is_slug(slug):
        query = select(pipeline).where(pipeline.c.client_id == client_id, pipeline.c.slug == slug)
        row = connection.execute(query).first()
    if row is None:
        raise not_found("pipeline", slug)
    return row
