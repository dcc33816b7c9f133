"""Summaries: the numbers of a window for the fleet, a client or a pipeline, as a whole and step by step.

Nothing is computed here: the functions of the schema analytics define every number.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from sqlalchemy import Connection, Engine, RowMapping, text

from pulsewatch.api.answers import Item, TimeText, answer, parse_time
from pulsewatch.api.clients import ClientSlug
from pulsewatch.api.deps import Database, Reader, reading, visible_client, visible_pipeline
from pulsewatch.api.errors import invalid
from pulsewatch.api.openapi import problems
from pulsewatch.api.pipelines import PipelineSlug
from pulsewatch.api.summary_schemas import FleetSummary, Numbers, Summary
from pulsewatch.auth import Caller
from pulsewatch.problems import FieldError

router = APIRouter(tags=["summaries"])

HOUR = timedelta(hours=1)
DEFAULT_WINDOW = timedelta(hours=24)
LONGEST_WINDOW = timedelta(days=400)
# A row of a series has half a kilobyte.
LONGEST_BY_HOUR = timedelta(days=100)
OLDEST = datetime(2000, 1, 1, tzinfo=UTC)
NEWEST = datetime(2255, 1, 1, tzinfo=UTC)

From = Annotated[
    TimeText,
    Query(
        alias="from",
        description="Start of the window, cut down to the whole hour (UTC). Left out: 24 hours before `to`.",
    ),
]
To = Annotated[
    TimeText,
    Query(
        description="End of the window, cut up to the whole hour (UTC), at most 400 days after `from`. Left out: now."
    ),
]
Step = Annotated[
    Literal["hour", "day", "none"] | None,
    Query(
        description="What the series goes by: hours, for a window of at most 100 days, or UTC days. `none`: no series. "
        "Left out: hours up to 14 days, days beyond."
    ),
]

NUMBERS = ", ".join(Numbers.model_fields)
_TOTALS = text(f"select {NUMBERS} from analytics.runs_summary(:from_at, :to_at, :client, :pipeline)")  # noqa: S608 - constants
_SERIES = text(f"select at, {NUMBERS} from analytics.runs_series(:from_at, :to_at, :client, :pipeline, :step)")  # noqa: S608 - as above
_CLIENTS = text(
    f"select client, client_title as title, is_archived, {NUMBERS}"  # noqa: S608 - as above
    " from analytics.clients_summary(:from_at, :to_at)"
    # An archived client in which nothing happened is of no interest.
    " where not is_archived or started_count + finished_count + on_time_count + late_count + missed_count > 0"
    " order by client"
)
# Totals, series and clients tell of the same moment.
ONE_SNAPSHOT = "set transaction isolation level repeatable read"


@dataclass(frozen=True, slots=True)
class Window:
    """Whole hours, and what to go by within them."""

    from_at: datetime
    to_at: datetime
    step: str


def read_window(from_: str | None, to: str | None, step: str | None, now: datetime) -> Window:
    """The window asked for. Raises Problem 422."""
    errors: list[FieldError] = []
    given = {name: parse_time(words, name, errors) for name, words in (("from", from_), ("to", to))}
    for name, at in given.items():
        if at is not None and not OLDEST <= at <= NEWEST:
            errors.append(FieldError(f"?{name}", "out_of_range", "A window lies between the years 2000 and 2255."))
    if errors:
        raise invalid(errors)
    to_at = _hour_up(given["to"] or now)
    from_at = _hour_down(given["from"] or to_at - DEFAULT_WINDOW)
    # Both bounds in one hour are an hour; the same instant twice is nothing.
    if from_at >= to_at or (given["from"] or from_at) >= (given["to"] or now):
        raise invalid([FieldError("?to", "out_of_range", "The window ends before it begins.")])
    if to_at - from_at > LONGEST_WINDOW:
        detail = f"A window has at most {LONGEST_WINDOW.days} days."
        raise invalid([FieldError("?from", "out_of_range", detail)])
    if step == "hour" and to_at - from_at > LONGEST_BY_HOUR:
        detail = f"By hour a window has at most {LONGEST_BY_HOUR.days} days; go by day, or ask for one after the other."
        raise invalid([FieldError("?step", "out_of_range", detail)])
    return Window(from_at, to_at, step or "auto")


def _hour_down(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def _hour_up(at: datetime) -> datetime:
    whole = _hour_down(at)
    return whole if whole == at else whole + HOUR


def _summary(connection: Connection, window: Window, client: str | None, pipeline: str | None) -> Item:
    values = {"from_at": window.from_at, "to_at": window.to_at, "client": client, "pipeline": pipeline}
    totals = connection.execute(_TOTALS, values).mappings().one()
    series: list[RowMapping] = []
    if window.step != "none":
        series = list(connection.execute(_SERIES, values | {"step": window.step}).mappings())
    return {
        "from": window.from_at,
        "to": window.to_at,
        "totals": dict(totals),
        "series": [dict(row) for row in series],
    }


@router.get(
    "/v1/summary",
    response_model=FleetSummary,
    responses=problems(401, 403, 404, 422),
    summary="Summarise all clients",
)
def summarise(caller: Reader, engine: Database, from_: From = None, to: To = None, step: Step = None) -> Response:
    """How many runs there were, how they ended and how long they took, over all clients and in each of them.

    For a key that is bound to a client, all there is to see is that client.
    """
    window = read_window(from_, to, step, datetime.now(UTC))
    return answer(_of_client_alone(engine, caller, window) if caller.client is not None else _of_fleet(engine, window))


def _of_fleet(engine: Engine, window: Window) -> Item:
    with reading(engine) as connection:
        connection.exec_driver_sql(ONE_SNAPSHOT)
        item = _summary(connection, window, None, None)
        rows = connection.execute(_CLIENTS, {"from_at": window.from_at, "to_at": window.to_at}).mappings()
        return item | {"clients": [dict(row) for row in rows]}


def _of_client_alone(engine: Engine, caller: Caller, window: Window) -> Item:
    with reading(engine) as connection:
        connection.exec_driver_sql(ONE_SNAPSHOT)
        client = visible_client(connection, caller, str(caller.client))
        item = _summary(connection, window, client.slug, None)
    named = {
        "client": client.slug,
        "title": client.slug if client.title is None else client.title,
        "is_archived": client.archived_at is not None,
    }
    return item | {"clients": [named | item["totals"]]}


@router.get(
    "/v1/clients/{client}/summary",
    response_model=Summary,
    responses=problems(401, 403, 404, 422),
    summary="Summarise a client",
)
def summarise_client(
    client: ClientSlug, caller: Reader, engine: Database, from_: From = None, to: To = None, step: Step = None
) -> Response:
    """How many runs of the client there were, how they ended and how long they took."""
    window = read_window(from_, to, step, datetime.now(UTC))
    with reading(engine) as connection:
        connection.exec_driver_sql(ONE_SNAPSHOT)
        slug = visible_client(connection, caller, client).slug
        item = _summary(connection, window, slug, None)
    return answer(item)


@router.get(
    "/v1/clients/{client}/pipelines/{pipeline}/summary",
    response_model=Summary,
    responses=problems(401, 403, 404, 422),
    summary="Summarise a pipeline",
)
def summarise_pipeline(
    client: ClientSlug,
    pipeline: PipelineSlug,
    caller: Reader,
    engine: Database,
    from_: From = None,
    to: To = None,
    step: Step = None,
) -> Response:
    """How many runs of the pipeline there were, how they ended and how long they took."""
    window = read_window(from_, to, step, datetime.now(UTC))
    with reading(engine) as connection:
        connection.exec_driver_sql(ONE_SNAPSHOT)
        owner = visible_client(connection, caller, client)
        slug = visible_pipeline(connection, owner.id, pipeline).slug
        item = _summary(connection, window, owner.slug, slug)
    return answer(item)
