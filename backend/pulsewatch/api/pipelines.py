"""Pipelines of a client: list, get, put, archive."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from sqlalchemy import Connection, Row, Select, and_, func, select, update

from pulsewatch import catalog, models, resolve
from pulsewatch.api import schemas
from pulsewatch.api.answers import (
    Cursor,
    Item,
    Limit,
    answer,
    check_preconditions,
    decode_cursor,
    encode_cursor,
    entity_tag,
    page,
)
from pulsewatch.api.clients import SLUG_RULE, Archived, ClientSlug, slug_of_cursor
from pulsewatch.api.deps import (
    Body,
    Configured,
    Database,
    Reader,
    Writer,
    reading,
    visible_client,
    visible_pipeline,
)
from pulsewatch.api.errors import invalid, not_found
from pulsewatch.api.openapi import body_of, created, preconditions, problems
from pulsewatch.events import is_slug
from pulsewatch.problems import FieldError, Problem

router = APIRouter(tags=["pipelines"])

PipelineSlug = Annotated[str, Path(description="Slug of the pipeline, unique in the client.", examples=["nightly"])]
Tags = Annotated[
    list[str] | None,
    Query(alias="tag", max_length=20, description="Only pipelines with this tag; given often, with all of them."),
]
Owner = Annotated[str | None, Query(max_length=200, description="Only pipelines of this owner.")]
Environment = Annotated[str | None, Query(max_length=100, description="Only pipelines of this environment.")]


def shown(row: Row[Any]) -> Item:
    """A pipeline as the API shows it."""
    return {
        "slug": row.slug,
        "namespace": row.namespace,
        "name": row.name,
        "title": row.title,
        "schedule": row.schedule,
        "timezone": row.timezone,
        "start_grace_s": row.start_grace_s,
        "max_runtime_s": row.max_runtime_s,
        "tags": row.tags,
        "owner": row.owner,
        "environment": row.environment,
        "archived_at": row.archived_at,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


def filtered(query: Select[Any], tags: list[str] | None, owner: str | None, environment: str | None) -> Select[Any]:
    """The query over pipelines, less those that lack a tag or have another owner or environment."""
    pipeline = models.pipeline
    if tags:
        query = query.where(pipeline.c.tags.contains(tags))
    if owner is not None:
        query = query.where(pipeline.c.owner == owner)
    if environment is not None:
        query = query.where(pipeline.c.environment == environment)
    return query


@router.get(
    "/v1/clients/{client}/pipelines",
    response_model=schemas.PipelinePage,
    responses=problems(400, 401, 403, 404, 422),
    summary="List a client's pipelines",
)
def list_pipelines(
    client: ClientSlug,
    caller: Reader,
    engine: Database,
    limit: Limit = 100,
    cursor: Cursor = None,
    tags: Tags = None,
    owner: Owner = None,
    environment: Environment = None,
    archived: Archived = "false",
) -> Response:
    """The pipelines of a client, by slug."""
    pipeline = models.pipeline
    query = filtered(select(pipeline), tags, owner, environment).order_by(pipeline.c.slug).limit(limit + 1)
    if archived != "any":
        is_archived = pipeline.c.archived_at.is_not(None)
        query = query.where(is_archived if archived == "true" else ~is_archived)
    if cursor is not None:
        _, after = decode_cursor(cursor, tuple[Literal["pipelines"], str])
        query = query.where(pipeline.c.slug > slug_of_cursor(after))
    with reading(engine) as connection:
        client_id = visible_client(connection, caller, client).id
        rows = connection.execute(query.where(pipeline.c.client_id == client_id)).all()
    return page(rows, limit, shown, lambda row: encode_cursor("pipelines", row.slug))


@router.get(
    "/v1/clients/{client}/pipelines/{pipeline}",
    response_model=schemas.Pipeline,
    responses=problems(401, 403, 404, 422),
    summary="Get a pipeline",
)
def get_pipeline(client: ClientSlug, pipeline: PipelineSlug, caller: Reader, engine: Database) -> Response:
    """One pipeline, archived or not. The ETag header can go into If-Match of a PUT or DELETE."""
    with reading(engine) as connection:
        client_id = visible_client(connection, caller, client).id
        item = shown(visible_pipeline(connection, client_id, pipeline))
    return answer(item, headers={"ETag": entity_tag(item)})


@router.put(
    "/v1/clients/{client}/pipelines/{pipeline}",
    response_model=schemas.Pipeline,
    responses=created(schemas.Pipeline) | problems(400, 401, 403, 404, 409, 412, 413, 415, 422),
    openapi_extra=body_of("PipelineChanges") | preconditions(),
    summary="Create or change a pipeline",
)
def put_pipeline(
    client: ClientSlug,
    pipeline: PipelineSlug,
    request: Request,
    caller: Writer,
    body: Body,
    engine: Database,
    settings: Configured,
) -> Response:
    """Make the pipeline if it is new, and set what the body says: absent is unchanged, null is cleared.

    A new pipeline is named by its slug, in the namespace of native events. A pipeline of any namespace can be
    changed by its slug. The same request may be sent any number of times; an archived pipeline comes back into use;
    what an event with a later time has said stands.
    """
    if not is_slug(pipeline):
        raise invalid([FieldError("{pipeline}", "not_a_slug", f"A slug has {SLUG_RULE}.")])
    changes, errors = catalog.validate_pipeline_changes(body)
    with engine.begin() as connection:
        owner = visible_client(connection, caller, client, is_kept=True)
        if errors:
            raise invalid(errors)
        if owner.archived_at is not None:
            raise Problem(409, "client_archived", f"Client {client!r} is archived; PUT it to bring it back.")
        before = catalog.lock_pipeline(connection, owner.id, pipeline)
        if before is None:
            # Pipelines are made under this lock: what another request is just making is there after it.
            resolve.lock_clients(connection, [owner.id])
            before = catalog.lock_pipeline(connection, owner.id, pipeline)
        check_preconditions(request, None if before is None else entity_tag(shown(before)))
        namespace, name = ("", pipeline) if before is None else (before.namespace, before.name)
        if before is None:
            _make(connection, owner.id, pipeline, settings.max_pipelines)
        said_at = catalog.clock(connection)
        row = catalog.upsert_pipeline(connection, owner.id, namespace, name, changes, said_at)
        if row.archived_at is not None:
            row = _set_archived(connection, row, is_archived=False)
        item = shown(row)
    return answer(item, 201 if before is None else 200, {"ETag": entity_tag(item)})


def _make(connection: Connection, client_id: int, slug: str, max_pipelines: int) -> None:
    name = (client_id, "", slug)
    ids, _ = resolve.pipelines(connection, [name], max_pipelines=max_pipelines)
    if name not in ids:
        raise Problem(409, "pipeline_limit", f"The client has {max_pipelines} pipelines, which is the most it may.")


@router.delete(
    "/v1/clients/{client}/pipelines/{pipeline}",
    status_code=204,
    response_class=Response,
    responses=problems(401, 403, 404, 412, 422),
    openapi_extra=preconditions(),
    summary="Archive a pipeline",
)
def archive_pipeline(
    client: ClientSlug, pipeline: PipelineSlug, request: Request, caller: Writer, engine: Database
) -> Response:
    """Take the pipeline out of lists. Its history stays, and its events are still kept. PUT brings it back."""
    with engine.begin() as connection:
        client_id = visible_client(connection, caller, client).id
        row = catalog.lock_pipeline(connection, client_id, pipeline) if is_slug(pipeline) else None
        if row is None:
            raise not_found("pipeline", pipeline)
        check_preconditions(request, entity_tag(shown(row)))
        if row.archived_at is None:
            _set_archived(connection, row, is_archived=True)
    return Response(status_code=204)


def _set_archived(connection: Connection, row: Row[Any], *, is_archived: bool) -> Row[Any]:
    pipeline = models.pipeline
    key = and_(pipeline.c.client_id == row.client_id, pipeline.c.id == row.id)
    values = {"archived_at": func.now() if is_archived else None, "updated_at": func.now()}
    return connection.execute(update(pipeline).where(key).values(values).returning(pipeline)).one()
