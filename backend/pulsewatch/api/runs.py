"""Runs: lists over all clients, one client or one pipeline; one run with its events."""

from datetime import datetime
from typing import Annotated, Literal, TypedDict
from uuid import UUID

import msgspec
from fastapi import APIRouter, Path, Query, Response
from sqlalchemy import Connection, RowMapping, select

from pulsewatch import models
from pulsewatch.api import run_queries, schemas
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
from pulsewatch.api.deps import Database, Reader, parse_id, reading, visible_client, visible_pipeline
from pulsewatch.api.errors import invalid, not_found
from pulsewatch.api.openapi import problems
from pulsewatch.api.pipelines import Environment, Owner, PipelineSlug, Tags, filtered
from pulsewatch.api.run_queries import RunFilter
from pulsewatch.api.schemas import RunStatus
from pulsewatch.auth import Caller
from pulsewatch.events import Flag, epoch_us
from pulsewatch.problems import FieldError

router = APIRouter(tags=["runs"])

Statuses = Annotated[
    list[RunStatus] | None,
    Query(alias="status", max_length=10, description="Only runs of this status; given often, of any of them."),
]
FromTime = Annotated[TimeText, Query(alias="from", description="Only runs whose `first_at` is at or after this.")]
ToTime = Annotated[TimeText, Query(alias="to", description="Only runs whose `first_at` is before this.")]

FLAGS = ("finish_before_start", "external_id_reused", "assumed_utc", "scheduled_at_ignored")


def shown(row: RowMapping) -> Item:
    """A run as the API shows it."""
    return {
        "id": row["id"],
        "client": row["client"],
        "pipeline": row["pipeline"],
        "external_id": row["external_id"],
        "status": row["status"],
        "scheduled_at": row["scheduled_at"],
        "started_at": row["started_at"],
        "finished_at": row["finished_at"],
        "duration_s": row["duration_s"],
        "attempt": row["attempt"],
        "error_class": row["error_class"],
        "message": row["message"],
        # The database's own JSON text goes through as it is.
        "metrics": msgspec.Raw(row["metrics"]),
        "attributes": msgspec.Raw(row["attributes"]),
        "url": row["url"],
        "parent": _parent(row),
        "flags": [flag for flag in FLAGS if row[f"is_{flag}"]],
        "first_at": row["first_at"],
    }


def _parent(row: RowMapping) -> Item | None:
    if row["parent_external_id"] is None:
        return None
    return {
        "namespace": row["parent_namespace"] or "",
        "pipeline": row["parent_pipeline"],
        "run": row["parent_external_id"],
    }


def shown_event(row: RowMapping) -> Item:
    """A run event as the API shows it."""
    event: Item = {name: value for name, value in row.items() if name != "dedupe_key"}
    event["metrics"] = msgspec.Raw(row["metrics"])
    event["attributes"] = msgspec.Raw(row["attributes"])
    parent = row["parent"]
    event["parent"] = parent and {"namespace": "", **parent}
    names = {Flag.ASSUMED_UTC: "assumed_utc", Flag.SCHEDULED_AT_IGNORED: "scheduled_at_ignored"}
    event["flags"] = [name for bit, name in names.items() if row["flags"] & bit]
    return event


@router.get(
    "/v1/runs",
    response_model=schemas.RunPage,
    responses=problems(400, 401, 403, 404, 422),
    summary="List runs",
)
def list_runs(
    caller: Reader,
    engine: Database,
    limit: Limit = 100,
    cursor: Cursor = None,
    client: Annotated[str | None, Query(description="Only runs of this client, by its slug.")] = None,
    pipeline: Annotated[
        str | None,
        Query(description="Only runs of this pipeline, by its slug; needs `client` unless the key is bound."),
    ] = None,
    tags: Tags = None,
    owner: Owner = None,
    environment: Environment = None,
    statuses: Statuses = None,
    from_: FromTime = None,
    to: ToTime = None,
) -> Response:
    """The runs that the key may see, newest first by `first_at`: the earliest time known of a run."""
    timed = _timed(cursor, from_, to)
    with reading(engine) as connection:
        client_ids = visible_client_ids(connection, caller, client)
        if pipeline is not None and client is None and caller.client_id is None:
            detail = "A pipeline's slug is unique in its client only: give client too."
            raise invalid([FieldError("?pipeline", "client_required", detail)])
        pipelines = None
        if pipeline is not None or tags or owner is not None or environment is not None:
            pipelines = _matching_pipelines(connection, client_ids, pipeline, filtered_by=(tags, owner, environment))
        wanted = RunFilter(client_ids, pipelines, statuses, **timed)
        rows = run_queries.select_runs(connection, wanted, limit + 1)
    return page(rows, limit, shown, _cursor_of)


def visible_client_ids(connection: Connection, caller: Caller, slug: str | None) -> list[int]:
    """The client asked for, else all that the caller may see. Raises Problem 404."""
    if slug is not None:
        return [visible_client(connection, caller, slug).id]
    if caller.client_id is not None:
        return [caller.client_id]
    return list(connection.execute(select(models.client.c.id).order_by(models.client.c.id)).scalars())


def _matching_pipelines(
    connection: Connection,
    client_ids: list[int],
    slug: str | None,
    *,
    filtered_by: tuple[list[str] | None, str | None, str | None],
) -> list[tuple[int, int]]:
    """(client_id, id) of the pipelines that pass tag, owner and environment. Raises Problem 404 for an unknown slug."""
    pipeline = models.pipeline
    query = filtered(select(pipeline.c.client_id, pipeline.c.id), *filtered_by)
    query = query.where(pipeline.c.client_id.in_(client_ids)).order_by(pipeline.c.client_id, pipeline.c.id)
    if slug is not None:
        query = query.where(pipeline.c.id == visible_pipeline(connection, client_ids[0], slug).id)
    return [(row.client_id, row.id) for row in connection.execute(query)]


@router.get(
    "/v1/clients/{client}/pipelines/{pipeline}/runs",
    response_model=schemas.RunPage,
    responses=problems(400, 401, 403, 404, 422),
    summary="List a pipeline's runs",
)
def list_pipeline_runs(
    client: ClientSlug,
    pipeline: PipelineSlug,
    caller: Reader,
    engine: Database,
    limit: Limit = 100,
    cursor: Cursor = None,
    statuses: Statuses = None,
    from_: FromTime = None,
    to: ToTime = None,
) -> Response:
    """The runs of one pipeline, newest first by `first_at`."""
    timed = _timed(cursor, from_, to)
    with reading(engine) as connection:
        client_id = visible_client(connection, caller, client).id
        pipeline_id = visible_pipeline(connection, client_id, pipeline).id
        wanted = RunFilter([client_id], [(client_id, pipeline_id)], statuses, **timed)
        rows = run_queries.select_runs(connection, wanted, limit + 1)
    return page(rows, limit, shown, _cursor_of)


class _Timed(TypedDict):
    from_at: datetime | None
    to_at: datetime | None
    after: tuple[datetime, UUID] | None


def _timed(cursor: str | None, from_: str | None, to: str | None) -> _Timed:
    """The bounds of a list in time. Raises Problem 400 or 422."""
    errors: list[FieldError] = []
    from_at, to_at = parse_time(from_, "from", errors), parse_time(to, "to", errors)
    if errors:
        raise invalid(errors)
    after = None
    if cursor is not None:
        _, microseconds, id_ = decode_cursor(cursor, tuple[Literal["runs"], int, UUID])
        after = (cursor_time(microseconds), id_)
    return {"from_at": from_at, "to_at": to_at, "after": after}


def _cursor_of(row: RowMapping) -> str:
    return encode_cursor("runs", epoch_us(row["first_at"]), row["id"])


RunId = Annotated[
    str,
    Path(
        description="The run's `id`.",
        json_schema_extra={"format": "uuid"},
        examples=["0193e8a4-7c1e-8a55-9f0e-1d2c3b4a5968"],
    ),
]


@router.get(
    "/v1/runs/{id}",
    response_model=schemas.RunWithEvents,
    responses=problems(401, 403, 404, 422),
    summary="Get a run with its events",
)
def get_run(
    id_: Annotated[RunId, Path(alias="id")],
    caller: Reader,
    engine: Database,
    client: Annotated[str | None, Query(description="Look in this client only; quicker with many clients.")] = None,
) -> Response:
    """One run and its events, oldest first."""
    run_id = parse_id("run", id_)
    with reading(engine) as connection:
        row = run_queries.select_run(connection, visible_client_ids(connection, caller, client), run_id)
        if row is None:
            raise not_found("run", id_)
        events, has_all_events = run_queries.select_events(connection, row)
    return answer(shown(row) | {"events": [shown_event(event) for event in events], "has_all_events": has_all_events})
